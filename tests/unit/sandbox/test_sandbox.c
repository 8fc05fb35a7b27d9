/* What the sandbox's table claims, and what its filters and layers do in a child. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/mem.h"
#include "sandbox/sandbox.h"

static const char *const never[] = { "process_vm_writev", "bpf", "perf_event_open",
	"io_uring_setup", "userfaultfd", "add_key", "keyctl", "request_key", "kexec_load",
	"init_module", "shmget", "msgget", "semget", "mq_open", "setns", "chroot", "execve",
	"reboot", "swapon", "open_by_handle_at" };

static void dangerous_calls_are_on_no_list(void **state)
{
	(void)state;
	for (enum sandbox_kind k = 0; k < SANDBOX_MAKER; k++)
		for (size_t i = 0; i < ARRAY_LEN(never); i++)
			assert_int_equal(sandbox_filter_says(k, true, never[i]), '-');
}

/* Theirs is a list of what is refused. */
static void programs_and_their_launcher_are_refused_what_is_dangerous(void **state)
{
	static const char *const of_programs[] = { "mount", "umount2", "pivot_root", "unshare",
		"mount_setattr" };

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(never); i++) {
		if (strcmp(never[i], "execve") == 0)
			continue;
		assert_int_equal(sandbox_filter_says(SANDBOX_MAKER, true, never[i]), 'e');
		assert_int_equal(sandbox_filter_says(SANDBOX_PROGRAM, true, never[i]), 'e');
	}
	for (size_t i = 0; i < ARRAY_LEN(of_programs); i++) {
		assert_int_equal(
			sandbox_filter_says(SANDBOX_PROGRAM, true, of_programs[i]), 'e');
		assert_int_equal(sandbox_filter_says(SANDBOX_MAKER, true, of_programs[i]), '-');
	}
	assert_int_equal(sandbox_filter_says(SANDBOX_PROGRAM, true, "clone"), 'c');
	assert_int_equal(sandbox_filter_says(SANDBOX_PROGRAM, true, "socket"), 'c');
}

static void only_the_launcher_builds_sandboxes(void **state)
{
	static const char *const build[] = { "mount", "umount2", "pivot_root", "unshare",
		"setresuid", "capset", "seccomp", "landlock_create_ruleset" };

	(void)state;
	for (enum sandbox_kind k = 0; k < SANDBOX_MAKER; k++)
		for (size_t i = 0; i < ARRAY_LEN(build); i++)
			assert_int_equal(sandbox_filter_says(k, true, build[i]),
				k == SANDBOX_LAUNCHER ? 'a' : '-');
}

static void only_the_kernel_has_a_network(void **state)
{
	static const char *const net[] = { "bind", "listen", "accept4", "setsockopt" };

	(void)state;
	for (enum sandbox_kind k = 0; k < SANDBOX_MAKER; k++) {
		for (size_t i = 0; i < ARRAY_LEN(net); i++)
			assert_int_equal(sandbox_filter_says(k, true, net[i]),
				k == SANDBOX_KERNEL ? 'a' : '-');
		assert_int_not_equal(sandbox_filter_says(k, true, "socket"), 'a');
		/* A tos-ext is answered, so that libcurl goes on with what the kernel connected; nothing
		 * is connected by it. */
		assert_int_equal(sandbox_filter_says(k, true, "connect"),
			k == SANDBOX_KERNEL                         ? 'a'
			: k == SANDBOX_EXT || k == SANDBOX_LAUNCHER ? 'e'
								    : '-');
	}
}

static void only_with_a_directory_an_extension_writes(void **state)
{
	static const char *const files[] = { "rename", "unlink", "mkdir", "ftruncate",
		"fsync" };
	static const char *const never_there[] = { "symlink", "link", "linkat", "mknod",
		"chmod", "fchmod", "chown", "accept4", "bind" };
	uint32_t bits;

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(files); i++) {
		assert_int_equal(sandbox_filter_says_ext(0, files[i]), '-');
		assert_int_equal(sandbox_filter_says_ext(SANDBOX_READ_PROC, files[i]), '-');
		assert_int_equal(sandbox_filter_says_ext(SANDBOX_DIRECTORY, files[i]), 'a');
		assert_int_equal(sandbox_filter_says(SANDBOX_LAUNCHER, true, files[i]), 'a');
		assert_int_equal(sandbox_filter_says(SANDBOX_VM, true, files[i]), '-');
	}
	for (size_t i = 0; i < ARRAY_LEN(never_there); i++)
		assert_int_equal(
			sandbox_filter_says_ext(SANDBOX_DIRECTORY, never_there[i]), '-');
	assert_int_equal(sandbox_privileges("directory net-in net-out", &bits, NULL), 0);
	assert_int_equal(bits, SANDBOX_DIRECTORY);
	assert_int_equal(sandbox_privileges("read-fs directory", &bits, NULL), ERR_CONFIG);
}

static void clone3_is_an_errno_for_all_but_the_launcher(void **state)
{
	(void)state;
	for (enum sandbox_kind k = 0; k < SANDBOX_KINDS; k++)
		assert_int_equal(sandbox_filter_says(k, false, "clone3"),
			k == SANDBOX_LAUNCHER ? 'a' : 'e');
}

static void launcher_may_all_that_its_children_may(void **state)
{
	static const char *const some[] = { "read", "mmap", "mprotect", "openat", "readlink",
		"prctl", "statfs", "clone", "execveat", "timerfd_create", "tgkill", "sysinfo",
		"prlimit64" };

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(some); i++)
		assert_int_equal(sandbox_filter_says(SANDBOX_LAUNCHER, true, some[i]), 'a');
}

#ifndef TOS_SANITIZE
static void vm_is_the_narrowest(void **state)
{
	static const char *const no[] = { "clone", "socket", "socketpair", "getdents64",
		"statfs", "kill", "pipe2", "memfd_create", "inotify_init1", "ptrace" };

	(void)state;
	assert_true(sandbox_profile(SANDBOX_VM)->kill);
	for (size_t i = 0; i < ARRAY_LEN(no); i++) {
		assert_int_not_equal(sandbox_filter_says(SANDBOX_VM, false, no[i]), 'a');
		assert_int_not_equal(sandbox_filter_says(SANDBOX_VM, false, no[i]), 'c');
	}
	assert_int_equal(sandbox_filter_says(SANDBOX_VM, false, "mmap"), 'c');
	assert_int_equal(sandbox_filter_says(SANDBOX_VM, true, "mmap"), 'a');
	assert_int_equal(sandbox_filter_says(SANDBOX_VM, false, "openat"), 'e');
	assert_int_equal(sandbox_filter_says(SANDBOX_VM, true, "openat"), 'a');
}

static void vm_row_has_the_limits_of_the_manual(void **state)
{
	const struct sandbox_profile *p = sandbox_profile(SANDBOX_VM);

	(void)state;
	assert_int_equal(p->as, SANDBOX_FROM_PLAN);
	assert_int_equal(p->fsize, 0);
	assert_int_equal(p->nofile, 16);
	assert_int_equal(p->core, 0);
	assert_int_equal(p->memlock, 0);
	assert_int_equal(p->nproc, 1);
	assert_true(p->mdwe && p->landlock && p->namespaces);
	assert_int_equal(p->keep_caps, 0);
	assert_int_equal(p->root, SANDBOX_ROOT_EMPTY);
	assert_int_equal(p->oom_score_adj, 1000);
}
#endif

static void privileges_are_words(void **state)
{
	uint32_t bits = 99;

	(void)state;
	assert_int_equal(sandbox_privileges("", &bits, NULL), 0);
	assert_int_equal(bits, 0);
	assert_int_equal(sandbox_privileges("read-proc  read-fs", &bits, NULL), 0);
	assert_int_equal(bits, SANDBOX_READ_PROC | SANDBOX_READ_FS);
	assert_int_equal(sandbox_privileges("read-proc network", &bits, NULL), ERR_CONFIG);
	assert_int_equal(sandbox_privileges("read", &bits, NULL), ERR_CONFIG);
}

static void every_kind_compiles_to_a_filter(void **state)
{
	(void)state;
	for (enum sandbox_kind k = 0; k < SANDBOX_KINDS; k++)
		for (int dynamic = 0; dynamic < 2; dynamic++) {
			struct sandbox_filter f = { 0, NULL };
			struct errmsg em = { "" };

			assert_int_equal(sandbox_filter_make(k, dynamic, &f, &em), 0);
			assert_true(f.n > 20 && f.n < BPF_MAXINSNS);
			sandbox_filter_fini(&f);
		}
}

/* In a child under the filter of tos-ext (default EPERM): returns its exit status. */
static int under_filter(enum sandbox_kind kind, int (*fn)(void))
{
	struct sandbox_filter f = { 0, NULL };
	int status;
	pid_t pid;

	assert_int_equal(sandbox_filter_make(kind, true, &f, NULL), 0);
	pid = fork();
	if (pid == 0) {
		if (sandbox_no_new_privs() < 0 || sandbox_filter_load(&f) < 0)
			_exit(100);
		_exit(fn());
	}
	sandbox_filter_fini(&f);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	return WIFSIGNALED(status) ? 1000 + WTERMSIG(status) : WEXITSTATUS(status);
}

static int try_vsock(void)
{
	return syscall(SYS_socket, AF_VSOCK, SOCK_STREAM, 0) < 0 ? errno : 0;
}
static int try_inet(void)
{
	return syscall(SYS_socket, AF_INET, SOCK_STREAM, 0) < 0 ? errno : 0;
}
static int try_clone3(void)
{
	return syscall(SYS_clone3, NULL, 0) < 0 ? errno : 0;
}
#ifdef __x86_64__
static int try_other_architecture(void)
{
	long rc;

	/* getpid by the 32-bit entry: its number is another call in our list */
	__asm__ volatile("int $0x80" : "=a"(rc) : "a"(20) : "memory");
	return rc > 0 ? 0 : 1;
}
#endif

static void kernel_filter_allows_inet_but_not_vsock(void **state)
{
	(void)state;
	assert_int_equal(under_filter(SANDBOX_KERNEL, try_inet), 0);
	assert_int_equal(under_filter(SANDBOX_KERNEL, try_vsock), EPERM);
}

static void extension_filter_refuses_sockets(void **state)
{
	(void)state;
	assert_int_equal(under_filter(SANDBOX_EXT, try_inet), EPERM);
	assert_int_equal(under_filter(SANDBOX_EXT, try_clone3), ENOSYS);
}

static void another_architecture_is_killed(void **state)
{
	(void)state;
#ifdef __x86_64__
	assert_int_equal(under_filter(SANDBOX_EXT, try_other_architecture), 1000 + 31);
#endif
}

static void probing_finds_layers_and_a_level(void **state)
{
	static struct sandbox_host h;

	(void)state;
	sandbox_probe(&h, false, 200000);
	assert_true(h.n > 10 && h.n <= SANDBOX_LAYERS_MAX);
	assert_non_null(sandbox_layer_find(&h, "seccomp"));
	assert_non_null(sandbox_layer_find(&h, "landlock"));
	assert_null(sandbox_layer_find(&h, "colour"));
	/* What the configuration may name is what there is. */
	for (uint32_t i = 0; i < h.n; i++) {
		size_t at = 0;

		while (sandbox_layer_names[at] &&
			strcmp(sandbox_layer_names[at], h.layer[i].name) != 0)
			at++;
		assert_non_null(sandbox_layer_names[at]);
	}
	for (uint32_t i = 0; i < h.n; i++) {
		assert_true(strlen(h.layer[i].name) > 0);
		assert_true(strcmp(h.layer[i].state, "on") == 0 ||
			    strcmp(h.layer[i].state, "off") == 0 ||
			    strcmp(h.layer[i].state, "degraded") == 0);
		assert_true(strlen(h.layer[i].reason) > 0);
	}
}

static void without_namespaces_the_level_is_reduced(void **state)
{
	static struct sandbox_host h;

	(void)state;
	sandbox_probe(&h, true, 200000);
	assert_false(h.userns || h.mountns || h.pidns || h.netns || h.root_mounts);
	assert_string_equal(sandbox_layer_find(&h, "user-namespace")->state, "off");
	assert_string_equal(h.level, h.seccomp ? "reduced" : "none");
}

static void lines_of_proc_are_summed_by_their_whole_key(void **state)
{
	static const char *const keys[] = { "RssAnon", "VmSwap" };
	size_t found;

	(void)state;
	assert_int_equal(sandbox_sum_kb("Name:\tx\nVmRSS:\t     900 kB\nRssAnon:\t     12 kB\n"
					"RssAnonX:\t 7 kB\nVmSwap:\t0 kB\nVmSwa",
				 keys, 2, &found),
		12 * 1024);
	assert_int_equal(found, 2);
	assert_int_equal(sandbox_sum_kb("", keys, 2, &found), 0);
	assert_int_equal(found, 0);
	assert_int_equal(sandbox_sum_kb("RssAnon:", keys, 2, &found), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(dangerous_calls_are_on_no_list),
		cmocka_unit_test(programs_and_their_launcher_are_refused_what_is_dangerous),
		cmocka_unit_test(only_the_launcher_builds_sandboxes),
		cmocka_unit_test(only_the_kernel_has_a_network),
		cmocka_unit_test(only_with_a_directory_an_extension_writes),
		cmocka_unit_test(clone3_is_an_errno_for_all_but_the_launcher),
		cmocka_unit_test(launcher_may_all_that_its_children_may),
#ifndef TOS_SANITIZE
		cmocka_unit_test(vm_is_the_narrowest),
		cmocka_unit_test(vm_row_has_the_limits_of_the_manual),
#endif
		cmocka_unit_test(privileges_are_words),
		cmocka_unit_test(every_kind_compiles_to_a_filter),
		cmocka_unit_test(kernel_filter_allows_inet_but_not_vsock),
		cmocka_unit_test(extension_filter_refuses_sockets),
		cmocka_unit_test(another_architecture_is_killed),
		cmocka_unit_test(lines_of_proc_are_summed_by_their_whole_key),
		cmocka_unit_test(probing_finds_layers_and_a_level),
		cmocka_unit_test(without_namespaces_the_level_is_reduced),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
