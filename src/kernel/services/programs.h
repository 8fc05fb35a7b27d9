/*
 * Programs: what runs here outside of a tos-vm, in a sandbox of its own, on behalf of a carrier.
 * The mechanism; what carriers say is the business of extension Executor. Runs in tos-kernel.
 *
 *   programs.c       the table, the inbox Programs, lifetimes
 *   program_admit.c  what may run: policy, the file, its digest, limits
 *   program_pipe.c   stdin, stdout, stderr
 *
 * A program is started by tosd only once policy allowed it and its bytes were looked at. It belongs
 * to the carrier that asked and ends with that one's stay, or (`stays`) to its owner's carriers
 * until it ends. What it writes is kept here up to a bound until somebody reads it; beyond that its
 * pipe stalls and so does the program.
 *
 * Source: doc/inboxes.md, "Programs"; doc/decisions/programs.md
 */
#pragma once

#include "kernel/kernel.h"

#define PROGRAM_OUTPUT_MAX (256u << 10) /* kept of each until it is read */
#define PROGRAM_INPUT_MAX  (256u << 10)
#define PROGRAM_NAME_MAX   64

enum program_state {
	PROGRAM_LOOKING, /* at its bytes */
	PROGRAM_STARTING,
	PROGRAM_RUNNING,
	PROGRAM_ENDED, /* what it wrote may still be there */
};

struct program_pipe;
struct program {
	struct kernel *k;
	uint64_t slot;
	char handle
		[33]; /* 128 random bits, in hex: who has it and is of the right carrier may use it */
	char name[PROGRAM_NAME_MAX + 1]; /* chosen by the carrier; "" */
	char carrier[NAME_BYTES_MAX + 1], owner[CERT_NAME_MAX + 1];
	char path[TOSD_PATH_BYTES];  /* "" where it was named by its digest */
	char shown[TOSD_PATH_BYTES]; /* what it is, for people */
	uint8_t digest[DIGEST_BYTES];
	char note[256];                /* of the extension that asked; comes back with KEPT */
	uint8_t request[DIGEST_BYTES]; /* what was asked, to tell a repeat */
	enum program_state state;
	bool stays, killing;
	bool dry; /* looked at, and not started */
	int fd;   /* the program, until tosd has it */
	int pid;
	struct program_limits limits;
	struct tosd_spawn_program *spawn; /* until tosd has it */
	struct request *starter, *reader; /* wait for an answer */
	int64_t started_ms, ended_ms;     /* wall */
	int64_t asked_us;                 /* monotonic; 0 once it has written something */
	int64_t wall_at_ms, kill_at_ms;   /* monotonic; 0: never */
	/* what it wrote and nobody has read: struct program_chunk */
	struct list chunks;
	size_t kept;
	uint64_t written[2];
	struct program_pipe *in, *out[2];
	/* its end */
	uint32_t cause; /* enum tosd_cause */
	int32_t status;
	uint64_t cpu_us, peak_bytes;
	char why[64]; /* why we ended it; "" */
};

void programs_init(struct kernel *k);
struct program *program_by_slot(struct kernel *k, uint64_t slot); /* NULL */
void programs_tick(struct kernel *k, int64_t now_ms);
size_t programs_running(const struct kernel *k);
/* PROGRAMS of Control: everybody's, without handles. Takes rq. */
void programs_list_verb(struct kernel *k, struct request *rq);
/* Who asks, by `for` of args: a carrier that is here and runs. ERR_STATE; *from is set in any case. */
int program_starter(struct kernel *k, const struct tos_value *args, struct origin *from,
	struct resident **out, struct errmsg *em);
/* Whose program of that number or name is meant: the asker's, if it has one; "": there is none. */
const char *program_owner(struct kernel *k, const char *which, const char *asker);
/* End that of this owner, of whom policy was asked. Takes rq. */
void programs_stop(struct kernel *k, struct request *rq, const char *which, const char *owner);
extern const struct verb programs_verbs[];

/* From tosd. */
void program_spawned(struct program *p, const int fds[3], int pid); /* takes fds */
void program_failed(struct program *p, int rc, const char *text);
void program_died(struct program *p, const struct tosd_died *d);
/* One that outlived the last kernel; takes fds. NULL: it is nobody's, and is to be ended. */
struct program *program_kept(struct kernel *k, const struct tosd_kept *m, const int fds[3]);
/* To tosd: child.c. Takes fd. */
int child_spawn_program(
	struct kernel *k, struct program *p, struct tosd_spawn_program *m, int fd);
/* Of one that stays tosd has a copy of the pipe. */
void child_input_ends(struct kernel *k, const struct program *p);
void child_signal_program(
	struct kernel *k, const struct program *p, int sig); /* SIGKILL: kill */

/* ---- program_admit.c */
/* Policy and limits of what `args` asks for, which is written into p. ERR_DENIED, ERR_LIMIT, ... */
int program_ask(struct program *p, const struct origin *from, const struct tos_value *args,
	struct errmsg *em);
/* Open the file and look at its bytes in a thread; done comes later, once. p->digest, p->fd. */
void program_look(struct program *p,
	void (*done)(struct kernel *k, uint64_t slot, int fd, int rc, const char *text));

/* ---- program_pipe.c */
struct program_chunk {
	struct list node;
	int which; /* 1 stdout, 2 stderr */
	size_t n, at;
	uint8_t bytes[];
};
int pipes_open(struct program *p, const int fds[3]); /* takes fds */
void pipes_close(struct program *p);
bool pipes_ended(const struct program *p); /* nothing more is to come */
void pipes_go_on(struct program *p);       /* something was read from what is kept */
/* To stdin; then close it if `close`. ERR_FULL, ERR_CLOSED. */
int pipes_write(struct program *p, const void *bytes, size_t n, bool close);
void program_wrote(struct program *p); /* programs.c: there is something to read, or an end */
