/*
 * The supervisor: starts, watches and restarts tos-kernel and everything sandboxed, and is the
 * only one of ours that may keep privilege. It parses nothing that comes from the network,
 * allocates only at start, and trusts nobody: a message outside its tables ends its sender.
 *
 *   main.c       options, start, exit status
 *   check.c      runs tos-kernel --check-config
 *   place.c      programs, listeners, the state directory and its lock, uids
 *   launcher.c   the small children that make sandboxes
 *   programs.c   programs: what is kept of each, where it goes
 *   action.c     named actions, which tosd runs itself
 *   grants.c     the directories that extensions were granted
 *   kernel.c     starts tos-kernel
 *   reload.c     has the configuration checked again
 *   supervise.h  the loop, in parts: children, deaths, restarts, signals
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"
#include "ipc/tosd_msg.h"
#include "sandbox/sandbox.h"

#define TOSD_UIDS       1024 /* of one kernel: itself, 31 extensions, the rest for tos-vm */
#define TOSD_UIDS_EXT   32
#define TOSD_EXTENSIONS "extensions" /* below the state directory: their own directories */

struct program {
	char path[4096];
	int fd; /* O_RDONLY */
	bool dynamic;
};

struct tosd {
	char **argv;
	const char *config_path; /* as given */
	const char *programs;    /* --programs, or NULL */
	bool restored;           /* --restored */
	struct tosd_config config;
	char *config_text; /* normalised */
	struct program kernel, vm, ext;
	struct sandbox_host host;
	struct sandbox_filter filter[SANDBOX_KINDS];
	struct sandbox_filter filter_directory; /* of a tos-ext that has one */
	uint32_t privileges[TOSD_EXT_MAX], installed_privileges;
	int listen_fd[TOSD_LISTEN_MAX];
	int state_fd, lock_fd, null_fd;
	uid_t owner;    /* of the state directory */
	uid_t uid_base; /* with host.own_uid */
	bool kernel_keeps_uid;
	const char *hide[6];
	char state_path[TOSD_PATH_BYTES]; /* as tos-kernel sees it */
	char config_seen[TOSD_PATH_BYTES + 64];
	char program_seen[4096]; /* tos-kernel's own path where it is bound elsewhere; else ""
				  */
	char prefix[4096];       /* what is bound there */
};

/* check.c: fills config and config_text. The checker's own errors have gone to stderr by then.
 */
int check_config(struct tosd *t, struct errmsg *em);
/* In a child: become the checker, sandboxed. It writes the table, what it would run as, and errors;
 * status_fd: as in struct sandbox_plan. */
_Noreturn void checker_run(
	struct tosd *t, int table_fd, int text_fd, int log_fd, int status_fd);
/* Whether the table that a checker wrote is one. */
bool check_table(const struct tosd_config *c);

/* place.c */
int program_open(
	const struct tosd *t, const char *name, struct program *out, struct errmsg *em);
/* An extension's shared object, readable whatever uid its tos-ext gets. */
int library_open(const char *path, struct errmsg *em);
/* One that tos-kernel gives: in memory, of a size that fits, and nobody can change it any more. */
int library_check(int fd, struct errmsg *em);
int place_lock(struct tosd *t, struct errmsg *em);
int place_listen(struct tosd *t, struct errmsg *em);
uid_t place_uid_base(const struct tosd *t);
/* Gives what lies in the directory to that uid; takes dir. */
int place_give(int dir, uid_t uid);
/* Decides how tos-kernel reaches its state and programs, and gives the state directory to its
 * uid. */
int place_state(struct tosd *t, struct errmsg *em);

/* launcher.c: messages between tosd and its launchers, over SEQPACKET. */
enum launcher_kind {
	LAUNCHER_SANDBOXES, /* of tos-vm and tos-ext */
	LAUNCHER_PROGRAMS,
	LAUNCHER_NETWORKED, /* of programs that were granted the host's network */
	LAUNCHERS
};
enum launch_type { LAUNCH_REQUEST = 128, LAUNCH_REPLY, LAUNCH_PROGRAM };
struct launch_request { /* fds: the extension's shared object, or none */
	struct tosd_head head;
	uint32_t index, kind, privileges;
	int32_t uid; /* -1: ours */
	uint64_t address_bytes;
	uint32_t cpu_s;
	uint32_t read_only; /* of the directory; "": none */
	uint64_t file_bytes;
	char name[TOSD_NAME_BYTES];
	char directory[TOSD_PATH_BYTES];
};
struct launch_program { /* fds: the program */
	struct launch_request request;
	struct tosd_spawn_program program;
};
struct launch_reply { /* fds when rc is 0: our end of its socket (of a program PROGRAM_FDS), its
			 pidfd */
	struct tosd_head head;
	uint32_t index;
	int32_t rc, pid; /* pid also after a failure, to be reaped; else 0 */
	char text[TOSD_TEXT_BYTES];
};
/* Start one; *fd is our end. Returns its pid or a negative enum err. */
int launcher_start(
	struct tosd *t, enum launcher_kind kind, int *fd, int *pidfd, struct errmsg *em);

/* grants.c: the directory of the extension that is to be launched, if r->privileges have one: fills
 * r in. One of its own is made, and is its uid's. index: as of struct tosd_spawn. */
int grant_directory(
	const struct tosd *t, uint32_t index, struct launch_request *r, struct errmsg *em);

/* programs.c: one for each program that was asked for; never more than TOSD_PROGRAMS. */
#define PROGRAM_FDS 4 /* our ends of stdin, stdout, stderr; where its end is reported */
struct program_row {
	bool used, stays;
	int fd[PROGRAM_FDS - 1], report_fd;
	int program_fd; /* until it is launched */
	uint32_t n_cookie;
	uint8_t cookie[TOSD_COOKIE_BYTES];
	struct tosd_spawn_program asked;
};
bool program_valid(const struct tosd_spawn_program *m);
struct program_row *program_take(const struct tosd_spawn_program *m, int fd); /* takes fd */
void program_drop(struct program_row *p);                                     /* NULL is fine */
void program_close(struct program_row *p);      /* its pipes are the kernel's alone */
void program_input_ends(struct program_row *p); /* NULL is fine */
int program_launch(struct program_row *p, int launcher_fd, const struct launch_request *r,
	struct errmsg *em);
void program_started(struct program_row *p, const int fds[PROGRAM_FDS]); /* takes them */
/* How the program ended, if it got so far. */
bool program_report(const struct program_row *p, struct sandbox_report *out);
int program_signal(uint32_t what);       /* the signal that is passed on to programs; else 0 */
uid_t program_uid(const struct tosd *t); /* that all of this kernel's have on the host */

/* action.c: what runs is told by epoll, with numbers from first_watch on. */
#define ACTION_RUNNING 8                                     /* at once, of all names */
#define ACTION_ROWS    (TOSD_ACTIONS_ASKED + ACTION_RUNNING) /* these of a kernel that is gone */
#define ACTION_WATCHES (3 * ACTION_ROWS)
void action_init(int epoll, uint32_t first_watch);
void action_event(uint32_t id);
/* ERR_MALFORMED: whoever asks so is not ours any more. All else is answered. */
int action_ask(const struct tosd *t, const struct tosd_action_ask *m);
void action_turn(const struct tosd *t, bool stopping);
int64_t action_deadline(void); /* monotonic; INT64_MAX: none */
bool action_runs(void);
bool action_has(pid_t pid);
bool action_due(void); /* there is something to tell */
int action_tell(int fd, struct errmsg *em);
void action_forget(void); /* the tos-kernel that asked is gone */

/* pidfd.c: as fork(), and in the parent the new child's descriptor. */
pid_t pidfd_fork(int *pidfd);
int pidfd_signal(int pidfd, int sig);

/* kernel.c: start tos-kernel; *fd is our end of its descriptor 3. Returns its pid or a negative
 * enum err. */
int kernel_start(struct tosd *t, int *fd, int *pidfd, struct errmsg *em);
/* Wait (at most 5 s) until the child has executed its program. 0, or ERR_SANDBOX with what it
 * wrote. */
int exec_wait(int status_fd, struct errmsg *em);
/* The same until it writes its first byte, which goes to out; ERR_SANDBOX if it never does. */
int exec_wait_byte(int status_fd, char *out, struct errmsg *em);

/* reload.c: the configuration is checked again, beside everything else; of what tosd itself goes by
 * the named actions are taken from it. reload_begin() returns the
 * checker's pidfd to watch, or -1: one is under way, or it failed. reload_ended() reaps it, and is
 * true where another is to begin. */
int reload_begin(struct tosd *t);
bool reload_ended(struct tosd *t, int epoll);
pid_t reload_pid(void);        /* 0: none */
int64_t reload_deadline(void); /* monotonic; INT64_MAX: none is under way */
void reload_expire(int64_t now_ms);
/* What came of it goes to tos-kernel when its socket takes it; a new tos-kernel has read the file. */
bool reload_due(void);
int reload_tell(int fd, struct errmsg *em);
void reload_forget(void);

/* What of our environment tos-kernel gets. */
char **kernel_environment(void);

/* supervise.c: returns tosd's exit status. */
int supervise(struct tosd *t);
/* Tell systemd, if it listens: one datagram to $NOTIFY_SOCKET. */
void notify(const char *text);
