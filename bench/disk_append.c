/*
 * Yardstick of the durable move: two records of 1 KB appended to a file one after the other,
 * each made durable with fdatasync before the next. `disk_append FOLDER N`; the rate is that of
 * single appends.
 */
#include "bench.h"

#include <fcntl.h>
#include <string.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	size_t n = argc > 2 ? strtoul(argv[2], NULL, 10) : 300;
	double *us = calloc(n ? n : 1, sizeof(*us)), begun;
	char path[4096], record[1024];
	int fd;

	if (argc < 2 || !n || !us)
		return 2;
	memset(record, 'x', sizeof(record));
	snprintf(path, sizeof(path), "%s/append.XXXXXX", argv[1]);
	fd = mkstemp(path);
	if (fd < 0)
		bench_die(path);
	unlink(path);
	begun = bench_us();
	for (size_t i = 0; i < n; i++) {
		double at = bench_us();

		for (int twice = 0; twice < 2; twice++)
			if (write(fd, record, sizeof(record)) != (ssize_t)sizeof(record) ||
				fdatasync(fd) < 0)
				bench_die("append");
		us[i] = bench_us() - at;
	}
	begun = bench_us() - begun;
	bench_print(us, n, 2e6 * (double)n / begun);
	free(us);
	return 0;
}
