/*
 * The supervisor's loop in parts, and the one struct that they share: nobody else includes this.
 *
 *   peers.c         the processes that are always wanted, and when one is started again
 *   children.c      the table of tos-kernel's children
 *   makers.c        the launchers, and what waits for them
 *   conversation.c  requests of tos-kernel, news for it
 *   supervise.c     the loop
 */
#pragma once

#include "ipc/ipc.h"
#include "tosd/tosd.h"

enum child_state {
	CHILD_FREE,
	CHILD_QUEUED,    /* asked for */
	CHILD_LAUNCHING, /* the launcher has it */
	CHILD_STARTED,   /* runs; SPAWNED is to be sent */
	CHILD_RUNNING,
	CHILD_FAILED, /* FAILED is to be sent */
	CHILD_DEAD,   /* DIED is to be sent */
	CHILD_KEPT,   /* a program from before this kernel: KEPT is to be sent */
};

struct child {
	enum child_state state;
	bool kill_wanted, killed, died_early;
	bool orphan; /* of a kernel that is dead: nobody hears of it, and it is only awaited */
	uint32_t next; /* in the queue, or of the free rows */
	uint64_t slot;
	uint32_t kind, ext, cpu_s, privileges;
	uint64_t address_bytes;
	struct program_row *program; /* of its kind, else NULL */
	enum launcher_kind by;       /* who makes it */
	pid_t pid;
	int pidfd, fd;
	int library; /* of an installed extension, until it is launched; else -1 */
	int rc;
	struct tosd_died died;
	char label[TOSD_NAME_BYTES];
	char text[TOSD_TEXT_BYTES];
};

#define NIL UINT32_MAX

/* tos-kernel's phases, as bits for its table. */
enum phase {
	PHASE_DOWN = 1, /* no tos-kernel */
	PHASE_UP = 2,
	PHASE_STOPPING = 4, /* TOSD_STOP was sent */
	PHASE_ENDING = 8,   /* there will be no other: its children are being ended */
};

/* What epoll tells of: a child's pidfd by its row, the rest by these. */
enum watch {
	WATCH_SIGNAL = TOSD_CHILDREN,
	WATCH_KERNEL,
	WATCH_KERNEL_PID,
	WATCH_LAUNCHER, /* and, behind each, its process */
	WATCH_END = WATCH_LAUNCHER + 2 * LAUNCHERS,
	WATCH_CHECK_PID = WATCH_END,
	WATCH_ACTION, /* so many of them */
};

struct peer {
	int fd, pidfd;
	pid_t pid;
	int64_t since_ms, next_ms; /* started; when to start again */
	int64_t backoff_ms;
	uint32_t events;
};

/* A launcher and what waits for it. That of programs is started when the first one is asked for. */
struct maker {
	struct peer peer;
	bool wanted;
	uint32_t n_in_flight, queue_head, queue_tail;
	int64_t deadline_ms;
};

extern struct super {
	struct tosd *t;
	int epoll, signals;
	enum phase phase;
	struct peer kernel;
	struct maker maker[LAUNCHERS];
	struct child child[TOSD_CHILDREN];
	uint32_t n_children, n_kept; /* of the former, programs that outlive the kernel */
	uint32_t n_orphans;          /* of the former; no sandbox is made while there are any */
	uint32_t free_head;
	uint32_t unsent; /* rows whose news is to be sent */
	int64_t stop_ms; /* when to stop asking and kill; 0: not stopping */
	bool stopping, ready, config_broken;
	uint32_t next_vm_uid;
} super;

/* ---- peers.c */
void watch_add(int fd, uint32_t id, uint32_t events);
void watch_change(struct peer *p, uint32_t id, uint32_t events);
/* id: of its socket; that of its process is the next one. */
void peer_started(struct peer *p, pid_t pid, int pidfd, int fd, uint32_t id);
void peer_later(struct peer *p); /* it could not be started */
/* Read a batch; bounded: no more than the table of children has room for. Returns 0, or why the peer
 * must be ended; ERR_CLOSED when it has closed. */
int peer_read(struct peer *p, const struct ipc_rule *rules, size_t n_rules, bool bounded,
	void *arg, struct errmsg *em);
void peer_close(struct peer *p);
void peer_reaped(struct peer *p);

/* ---- children.c */
void children_init(void);
struct child *child_find(uint64_t slot);
struct child *child_take(void); /* NULL: the table is full */
void child_drop(struct child *c);
bool child_runs(const struct child *c);
void child_kill(struct child *c);
/* News for tos-kernel; without one it is nobody's. */
void child_news(struct child *c, enum child_state state);
void child_failed(struct child *c, int rc, const char *text);
void child_reap(struct child *c); /* its pidfd says that it has ended */
void kept_offer(void);            /* to a tos-kernel that has just been started */
void children_end(void);          /* tos-kernel is gone */

/* ---- makers.c */
void makers_init(void);
void makers_start(int64_t now_ms);
void makers_turn(void); /* have what waits made */
void makers_forget(void);
void makers_expire(int64_t now_ms);
int64_t makers_deadline(void);
void makers_end(void);
void maker_queue(struct child *c);
void maker_readable(struct maker *m);
void maker_reap(struct maker *m);

/* ---- conversation.c */
void kernel_readable(void);
void tell_kernel(void);

/* ---- supervise.c */
void check_again(void); /* the configuration */
