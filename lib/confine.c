/*
 * A small sandbox for `tos launch --local`, around one tos-vm that a person started at a
 * terminal. It is less than what a kernel builds (there is no root of its own and no uid): new
 * empty namespaces if the host allows them, resource limits, no_new_privs, and a seccomp list
 * of what src/vm/main.c says that tos-vm needs. Calls that are not on the list fail with EPERM.
 *
 * The list lets exec through, because it is in force before tos-vm is there; what would be
 * started by it could open no file and no socket.
 */
#include "lib/confine.h"

#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/mem.h"

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SANITIZED 1
#endif
#endif
#if defined(__SANITIZE_ADDRESS__)
#define SANITIZED 1
#endif

#if defined(__x86_64__)
#define ARCH AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define ARCH AUDIT_ARCH_AARCH64
#elif defined(__riscv) && __riscv_xlen == 64
#define ARCH AUDIT_ARCH_RISCV64
#endif

#define PROGRAM_BYTES ((int64_t)96 << 20) /* address space besides what the carrier has */

static void limit(int what, int64_t value)
{
	struct rlimit r = { (rlim_t)value, (rlim_t)value };

	setrlimit((__rlimit_resource_t)what, &r);
}

#if defined(ARCH) && !defined(SANITIZED)
static const int calls[] = {
	__NR_execve,
	__NR_execveat,
	__NR_brk,
	__NR_mmap,
	__NR_munmap,
	__NR_mremap,
	__NR_mprotect,
	__NR_madvise,
	__NR_read,
	__NR_write,
	__NR_ppoll,
	__NR_clock_gettime,
	__NR_getrandom,
	__NR_exit,
	__NR_exit_group,
	__NR_set_tid_address,
	__NR_set_robust_list,
	__NR_rseq,
	__NR_prlimit64,
	__NR_readlinkat,
	__NR_rt_sigprocmask,
	__NR_rt_sigreturn,
	__NR_restart_syscall,
	__NR_gettid,
	__NR_getpid,
	__NR_tgkill,
#ifdef __NR_poll
	__NR_poll,
#endif
#ifdef __NR_readlink
	__NR_readlink,
#endif
#ifdef __NR_arch_prctl
	__NR_arch_prctl,
#endif
};

static bool list_calls(void)
{
	struct sock_filter code[4 + ARRAY_LEN(calls) + 2];
	struct sock_fprog program = { ARRAY_LEN(code), code };
	unsigned at = 0, n = ARRAY_LEN(calls);

	code[at++] = (struct sock_filter)BPF_STMT(
		BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch));
	code[at++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, ARCH, 1, 0);
	code[at++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS);
	code[at++] = (struct sock_filter)BPF_STMT(
		BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr));
	for (unsigned i = 0; i < n; i++)
		code[at++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K,
			(unsigned)calls[i], (unsigned char)(n - i), 0);
	code[at++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM);
	code[at++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
	must(at == ARRAY_LEN(code));
	return prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0;
}
#else
/* The sanitizers need more, and so do machines whose numbers nobody has tried. */
static bool list_calls(void)
{
#ifdef SANITIZED
	return true;
#else
	return false;
#endif
}
#endif

bool confine(const struct confinement *c)
{
	unshare(CLONE_NEWUSER | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS);
	limit(RLIMIT_CORE, 0);
	limit(RLIMIT_FSIZE, 0);
	limit(RLIMIT_CPU, c->cpu_ms / 1000 + 2); /* whoever waits for us ends it before that */
#ifndef SANITIZED
	limit(RLIMIT_AS, c->memory + PROGRAM_BYTES);
#endif
	return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 && list_calls();
}
