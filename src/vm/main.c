/*
 * tos-vm: the process that runs carriers written in Lua.
 *
 *   tos-vm                       serve the kernel on descriptor 3
 *   tos-vm --check ENTRY [FILE...]  is this Lua that could be a carrier? "-" NAME: standard
 * input
 *
 * The first form is already confined when main() begins; no other descriptor than 0 to 3 is
 * open. From then on it needs these system calls and no others (plain static build; `strace
 * -f`):
 *
 *   at start (C library)  execve arch_prctl set_tid_address set_robust_list rseq prlimit64
 * readlink readlinkat getrandom brk mprotect (relocations read-only) serving               read
 * write poll clock_gettime (where the vDSO has none) getrandom memory                brk mmap
 * (anonymous, no PROT_EXEC) munmap mremap madvise ending                exit_group exit must()
 * that fails     rt_sigprocmask gettid getpid tgkill (abort), write
 *
 * There are no threads, signals, timers or descriptors to open.
 */
#include "vm/vm.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>

#define KERNEL_FD 3

int main(int argc, char **argv)
{
	if (argc > 1 && strcmp(argv[1], "--check") == 0)
		return check_main(argc - 2, argv + 2);
	if (argc > 1 && strcmp(argv[1], "--version") == 0) {
		printf("tos-vm %s (%s)\n", TOS_VERSION, LUA_RELEASE);
		return 0;
	}
	if (argc > 1) {
		fprintf(stderr,
			"usage: tos-vm --check ENTRY [FILE...] | --check - NAME [module]\n"
			"Without arguments it serves a kernel on descriptor 3.\n");
		return 2;
	}
	return port_serve(KERNEL_FD);
}
