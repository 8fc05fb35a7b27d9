/* How long a program takes from its start to its end: `repeat N PROGRAM ARGUMENT...`. Its output
 * is dropped; it must exit with 0. */
#include "bench.h"

#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>

extern char **environ;

int main(int argc, char **argv)
{
	size_t n = argc > 2 ? strtoul(argv[1], NULL, 10) : 0;
	double *us = calloc(n ? n : 1, sizeof(*us)), begun = bench_us();
	posix_spawn_file_actions_t quiet;

	if (!n || !us)
		return 2;
	posix_spawn_file_actions_init(&quiet);
	posix_spawn_file_actions_addopen(&quiet, 1, "/dev/null", O_WRONLY, 0);
	posix_spawn_file_actions_addopen(&quiet, 2, "/dev/null", O_WRONLY, 0);
	for (size_t i = 0; i < n; i++) {
		double at = bench_us();
		int status = 1;
		pid_t pid;

		if (posix_spawnp(&pid, argv[2], &quiet, NULL, argv + 2, environ) != 0)
			bench_die(argv[2]);
		if (waitpid(pid, &status, 0) != pid || status != 0) {
			fprintf(stderr, "%s: status %d\n", argv[2], status);
			return 1;
		}
		us[i] = bench_us() - at;
	}
	bench_print(us, n, 1e6 * (double)n / (bench_us() - begun));
	free(us);
	return 0;
}
