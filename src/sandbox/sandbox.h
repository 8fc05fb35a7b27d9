/*
 * What each kind of process may still do, as one table, and the means to enforce it.
 *
 * Nothing here decides which process runs: tosd and its launcher prepare a struct sandbox_plan,
 * clone, and the child calls sandbox_run(), which takes everything away that the table does not
 * grant and executes the program. Used single-threaded, before the program reads a byte.
 *
 * Source: doc/architecture.md, "Sandbox".
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"

struct sock_filter;

enum sandbox_kind {
	SANDBOX_KERNEL,   /* tos-kernel */
	SANDBOX_CHECK,    /* tos-kernel --check-config: reads files, nothing else */
	SANDBOX_LAUNCHER, /* makes the next two; what it may do includes what they may */
	SANDBOX_VM,       /* tos-vm */
	SANDBOX_EXT,      /* tos-ext */
	SANDBOX_MAKER,    /* the launcher of programs: the next one, and what builds its view */
	SANDBOX_PROGRAM,  /* a program that was admitted */
	SANDBOX_KINDS
};

/* Privileges that an extension is granted. */
#define SANDBOX_READ_PROC 1u /* the host's /proc */
#define SANDBOX_READ_FS                                                                        \
	2u /* names, sizes and usage of the host's files; contents of system files only */
#define SANDBOX_DIRECTORY                                                                      \
	4u /* one directory of the host, at SANDBOX_DATA; not with the former */
#define SANDBOX_DATA "/data"
/* The bits for words with spaces between; ERR_CONFIG names the first unknown word. */
int sandbox_privileges(const char *words, uint32_t *out, struct errmsg *em);

#define SANDBOX_UNLIMITED UINT64_MAX
#define SANDBOX_FROM_PLAN (UINT64_MAX - 1)

enum sandbox_root {
	SANDBOX_ROOT_HOST,  /* the host's files, as the uid and Landlock allow */
	SANDBOX_ROOT_EMPTY, /* an empty read-only tmpfs, plus what a dynamic program needs */
};

/* One row of the table. */
struct sandbox_profile {
	const char *name;
	bool kill;       /* a call that is not on the list kills; otherwise EPERM */
	bool denies;     /* the list is of calls that are refused; all others are allowed */
	bool namespaces; /* its own pid and mount namespaces, and a user namespace where there
			    are */
	bool mdwe;       /* memory is never writable and executable */
	bool landlock;
	uint64_t keep_caps; /* all others are dropped for good */
	enum sandbox_root root;
	int oom_score_adj;
	uint64_t as, data, cpu, fsize, nofile, core, memlock, nproc, msgqueue, sigpending;
};
const struct sandbox_profile *sandbox_profile(enum sandbox_kind kind);

/* A compiled filter. */
struct sandbox_filter {
	unsigned short n;
	struct sock_filter *insn;
};
/* dynamic: the program has an interpreter that maps libraries. Free with sandbox_filter_fini.
 */
int sandbox_filter_make(
	enum sandbox_kind kind, bool dynamic, struct sandbox_filter *out, struct errmsg *em);
/* Of a tos-ext with these privileges. */
int sandbox_filter_make_ext(uint32_t privileges, struct sandbox_filter *out, struct errmsg *em);
void sandbox_filter_fini(struct sandbox_filter *f);
/* Needs no_new_privs. */
int sandbox_filter_load(const struct sandbox_filter *f);
/* What the filter's table says about a call, for tests and the manual: 'a' allowed, 'c' allowed
 * for some arguments, 'e' an errno, '-' the kind's default. */
char sandbox_filter_says(enum sandbox_kind kind, bool dynamic, const char *call);
char sandbox_filter_says_ext(uint32_t privileges, const char *call);

/* The layers, found by trying each in a throw-away child. */
struct sandbox_layer {
	char name[24], state[12], reason[120];
};
#define SANDBOX_LAYERS_MAX 24
struct sandbox_host {
	bool root; /* the effective uid is 0 */
	bool userns, pidns, mountns, netns, ipcns, utsns;
	bool root_mounts; /* we may mount without a user namespace */
	bool own_uid;     /* children get uids of their own */
	bool seccomp, mdwe, caps;
	int landlock_abi; /* 0: none */
	char level[16];   /* "full", "reduced", "none" */
	uint32_t n;
	struct sandbox_layer layer[SANDBOX_LAYERS_MAX];
};
/* no_namespaces: behave as if the host had none (tests). uid: one that a child would get, as
 * root. */
void sandbox_probe(struct sandbox_host *h, bool no_namespaces, uid_t uid);
/* NULL, or the layer of that name. */
/* All that sandbox_probe() may name, and "full", the level; NULL ends. */
extern const char *const sandbox_layer_names[];
const struct sandbox_layer *sandbox_layer_find(const struct sandbox_host *h, const char *name);

/* ABI of the running kernel's Landlock, 0 without. */
int sandbox_landlock_abi(void);

/* Where descriptors lie in the new program. */
#define SANDBOX_FD_SOCKET  3
#define SANDBOX_FD_LIBRARY 4
#define SANDBOX_FD_PROGRAM 5 /* closed by exec */
#define SANDBOX_FD_STATUS  6 /* closed by exec */
#define SANDBOX_FD_RULE    7 /* closed by exec */

/* Everything that one child needs, prepared before it is made. */
struct sandbox_plan {
	enum sandbox_kind kind;
	const struct sandbox_host *host;
	const struct sandbox_filter
		*filter; /* NULL: none (seccomp is missing and the operator insists) */
	uint32_t privileges;
	bool dynamic; /* the program needs the host's libraries */
	bool network; /* SANDBOX_PROGRAM: it has the host's, which its launcher never left */
	uid_t uid;    /* host uid and gid of its own; (uid_t)-1: keep ours */
	uint64_t address_bytes; /* RLIMIT_AS where the row says so; 0: none */
	uint32_t cpu_s;         /* likewise RLIMIT_CPU */
	/* SANDBOX_PROGRAM: RLIMIT_DATA, RLIMIT_FSIZE, size of /tmp; RLIMIT_NPROC, RLIMIT_NOFILE */
	uint64_t data_bytes, file_bytes, scratch_bytes;
	uint32_t processes, files;
	int null_fd, out_fd, log_fd;           /* 0, 1, 2 */
	int socket_fd, library_fd, program_fd; /* library_fd may be -1 */
	int status_fd; /* a failure is written here as text; closed by exec */
	int gate_fd;   /* one byte is read before anything else; -1: none */
	const char *const
		*hide; /* SANDBOX_READ_FS: directories that it must not see; NULL ends */
	const char *bind_from[2],
		*bind_to[2]; /* SANDBOX_KERNEL as root: bind mounts; NULL: none */
	/* SANDBOX_DIRECTORY: absolute; file_bytes is then the most that a file may hold */
	const char *directory;
	bool read_only;
	const char *writable; /* SANDBOX_KERNEL: the only directory that it may write below */
	const char *path; /* execute this path instead of program_fd; SANDBOX_PROGRAM: if it is
				 the same file there */
	char *const *argv, *const *envp;
};
/* Where its directory lies for a tos-ext: where there are no mounts it is where it is. */
const char *sandbox_directory(const struct sandbox_plan *p);
/* clone3's namespace flags for the plan. */
uint64_t sandbox_clone_flags(const struct sandbox_plan *p);
/* In the child. Never returns: executes the program or writes why not to status_fd and exits.
 */
_Noreturn void sandbox_run(const struct sandbox_plan *p);
/* Write a child's uid_map and gid_map: 1000 inside is uid outside. */
int sandbox_map_ids(pid_t pid, uid_t uid, gid_t gid, struct errmsg *em);
/* Write one of our own: "setgroups", "uid_map", "gid_map". */
int sandbox_map_self(const char *file, const char *text);

/*
 * Programs (program.c). Their launcher enters once a mount namespace that holds what they may see:
 * read-only system directories, some of /etc, a few devices. A clone of it then needs its own /proc
 * and /tmp only. Returns 0 or a negative errno.
 */
int sandbox_skeleton(void);
int sandbox_program_mounts(const struct sandbox_plan *p);
/* What the first process of a program's sandbox leaves on status_fd: one NUL byte once the program
 * runs, and this at its end. */
struct sandbox_report {
	uint32_t magic;
	int32_t status; /* as by waitpid() */
	uint64_t held;  /* bytes by all its processes, the most that was seen; 0: nothing was */
	uint32_t over;  /* it was ended because that was more than it may hold */
	uint32_t pad;
};
#define SANDBOX_REPORT_MAGIC 0x70726f67u
/* As process 1: run the program, pass signals on to it, reap what it leaves, end it when all its
 * processes hold more than data_bytes together, report, exit. */
_Noreturn void sandbox_init(const struct sandbox_plan *p);

/* usage.c: bytes that all processes of this pid namespace but number 1 hold: anonymous, shared memory, swapped. What
 * several of them share is counted for each, or exact: once. 0 where there is no /proc. */
uint64_t sandbox_held(bool exact);
/* The sum of the lines "KEY: N kB", in bytes; *found: how many there were. */
uint64_t sandbox_sum_kb(
	const char *text, const char *const *keys, size_t n_keys, size_t *found);

/* The pieces, for the launcher and the probes. Each returns 0 or a negative errno. */
/* directory: SANDBOX_DIRECTORY, open in our own mount namespace; else -1. */
int sandbox_mounts(const struct sandbox_plan *p, int directory);
int sandbox_landlock(const struct sandbox_plan *p);
int sandbox_drop_bounding(uint64_t keep);
int sandbox_drop_caps(uint64_t keep);
int sandbox_no_new_privs(void);
int sandbox_close_from(int first);
int sandbox_mdwe(void);
