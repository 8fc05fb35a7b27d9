/* How long a program takes from its start to the first byte that it writes: `first_output N PROGRAM
 * ARGUMENT...`. It must exit with 0. */
#include "bench.h"

#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

static double once(char **argv)
{
	posix_spawn_file_actions_t to_pipe;
	int ends[2], status = 1;
	double at = bench_us(), took;
	char byte;
	pid_t pid;

	if (pipe2(ends, O_CLOEXEC) < 0)
		bench_die("pipe");
	posix_spawn_file_actions_init(&to_pipe);
	posix_spawn_file_actions_adddup2(&to_pipe, ends[1], 1);
	if (posix_spawnp(&pid, argv[0], &to_pipe, NULL, argv, environ) != 0)
		bench_die(argv[0]);
	close(ends[1]);
	if (read(ends[0], &byte, 1) != 1)
		bench_die("it wrote nothing");
	took = bench_us() - at;
	close(ends[0]);
	posix_spawn_file_actions_destroy(&to_pipe);
	if (waitpid(pid, &status, 0) != pid || status != 0)
		bench_die("its end");
	return took;
}

int main(int argc, char **argv)
{
	size_t n = argc > 2 ? strtoul(argv[1], NULL, 10) : 0;
	double *us = calloc(n ? n : 1, sizeof(*us)), begun = bench_us();

	if (!n || !us)
		return 2;
	for (size_t i = 0; i < n; i++)
		us[i] = once(argv + 2);
	bench_print(us, n, 1e6 * (double)n / (bench_us() - begun));
	free(us);
	return 0;
}
