/* What host.c (the kernel's side of all extensions) and remote.c (of one tos-ext) share. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "ext/body.h"
#include "ext/decl.h"
#include "ext/ext.h"
#include "loop/stream.h"
#include "loop/timer.h"

#define EXT_TAG        0x65787468u
#define EXT_TOKENS_MAX 4096 /* calls that one extension has not answered */
#define EXT_CALL_MS    30000

#define EXT_STATES(X)                                                                          \
	X(EXT_NEW, "new")           /* being loaded into the kernel */                         \
	X(EXT_SPAWNING, "spawning") /* tosd was asked */                                       \
	X(EXT_GREETING, "greeting") /* attached; its hello is awaited */                       \
	X(EXT_STARTING, "starting")                                                            \
	X(EXT_READY, "ready")                                                                  \
	X(EXT_WAITING, "waiting") /* for its next life */                                      \
	X(EXT_BROKEN, "failed")   /* its start() refused */                                    \
	X(EXT_LEAVING, "leaving") /* its last process is being ended */                        \
	X(EXT_STOPPED, "stopped")
enum ext_state {
#define X(sym, word) sym,
	EXT_STATES(X)
#undef X
};

/* A call that awaits its answer. */
struct token {
	uint64_t number; /* key */
	int64_t due;
	uint32_t deadline_ms;
	uint64_t tag;
	const char *inbox; /* in the declaration */
	size_t sender_n, dest_n;
	char sender[NAME_BYTES_MAX + 1], dest[NAME_BYTES_MAX + 1];
	uint8_t trace[TRACE_BYTES];
	size_t trace_n;
	size_t folder_n; /* kept for LOCATES inboxes only */
	uint8_t folder[];
};

struct ext {
	uint32_t tag;
	struct ext_host *host;
	struct ext *next; /* load order */
	char key[EXT_KEY_BYTES], name[64], library[512], privileges[128];
	char *inboxes; /* that it may declare; NULL: any */
	bool isolated;
	/* at run time (swap.c) */
	bool hidden;     /* not published yet */
	bool publishing; /* it is, as soon as the one it replaces has given its inboxes back */
	bool retiring;   /* replaced or removed: deals with what it has */
	bool replaced;
	uint64_t watching; /* its descriptors, and sockets on their way to it */
	uint64_t handed;   /* sockets, in this life */
	bool keep;         /* what waits for it, so that it can be somebody else's */
	bool process_gone; /* no process of it is left or asked for */
	struct ext *heir;  /* is to get what it has not taken */
	int64_t retire_due;
	size_t n_streams; /* whose end has not come */
	const char *(*property)(void *arg, const char *path);
	void *property_arg;
	enum ext_state state;
	char why[256]; /* of its last end */
	struct decl *decl;
	struct map *tokens;
	uint64_t next_token;
	int64_t token_due; /* none is due before */
	uint32_t restarts;
	int pid;
	/* in the kernel */
	void *lib;
	struct body *body;
	/* isolated */
	struct stream *stream;
	struct stream *last; /* was told to stop: its log is heard until it ends */
	struct buf held;     /* frames for its next life */
	struct timer *timer; /* back-off, or the time a state may take */
	int64_t back_off_ms, ready_at;
	bool awaiting_death, back_off_over;
	uint64_t first_seq, last_seq; /* of this life's calls */
	uint64_t last_connect;
};

struct ext_host {
	uv_loop_t *loop;
	char kernel[64];
	uint32_t default_bound;
	const struct ext_callbacks *cb;
	void *arg;
	struct ext *first;
	struct timer *timer;
	uint64_t next_seq;
	size_t n_streams; /* whose end has not come */
	bool running;     /* extensions are being called */
	bool again;       /* ... and have to be once more */
	bool closing, stopped;
	void (*closed)(void *arg);
	void *closed_arg;
};

/* ---- host.c ---- */

void host_busy(struct ext_host *h);
/* Check a hello against privileges and the other extensions, and make it e->decl; a later life
 * must declare the same inboxes. Tells the kernel of the properties. */
int ext_register(struct ext *e, const struct tos_value *hello, struct errmsg *em);
/* The configured value of a property or NULL. */
const char *ext_configured(const struct ext *e, const char *path);
/* What an extension does, wherever it lives. */
int ext_send(struct ext *e, enum post_kind kind, const char *dest, uint64_t seq,
	uint32_t deadline_ms, struct slice folder, struct errmsg *em);
int ext_reply(struct ext *e, uint64_t token, enum post_kind kind, struct slice folder);
int ext_fail(struct ext *e, uint64_t token, int rc, const char *text);
int ext_forward(struct ext *e, uint64_t token, const char *kernel);
void ext_fail_all(struct ext *e, int rc, const char *text);
void ext_log(struct ext *e, int level, const char *text);
bool counter_name_ok(const char *s);
void ext_property_changed(struct ext *e, struct decl_property *p);
int remote_set(struct ext *e, const char *path, const char *value); /* remote.c */
void host_stream_gone(struct ext_host *h);
/* Frees it, and tells the kernel. */
void host_forget(struct ext *e);
struct ext *host_by_key(const struct ext_host *h, const char *key);
/* The one of that name whose inboxes are found, or NULL. */
struct ext *host_published(const struct ext_host *h, const char *name);
void ext_announce(struct ext *e); /* its properties */
/* That token out of one table into the other, for the inbox `to` of that extension. */
void token_inherit(struct ext *from, struct ext *heir, uint64_t number, struct decl_inbox *to);

/* ---- swap.c ---- */

/* What is due now. Returns the ms until something is again, -1 never. May free e. */
int64_t swap_turn(struct ext *e, int64_t now);
/* It has given back what it had not taken. */
void swap_drained(struct ext *e);
/* It never will: what it was sent is lost. */
void swap_lost(struct ext *e, const char *why);
/* Its process is gone or was told to end, and no other is to come. */
void swap_leave(struct ext *e);

/* ---- remote.c ---- */

/* Ask for its first or next process. */
void remote_spawn(struct ext *e);
int remote_attach(struct ext *e, int fd, int pid, struct errmsg *em);
void remote_died(struct ext *e, const char *why);
int remote_deliver(struct ext *e, const char *inbox, const struct post *p, uint64_t token,
	uint32_t deadline_ms, const struct tos_value *info);
void remote_answer(struct ext *e, uint64_t seq, enum post_kind kind, struct slice folder);
int remote_connected(struct ext *e, uint64_t number, int rc, const char *text, int fd);
void remote_stop(struct ext *e);
/* Have it take nothing more: later swap_drained(). */
int remote_drain(struct ext *e);
/* Deliver what was kept, or hold it for its next life; takes kept. */
int remote_redeliver(struct ext *e, struct decl_inbox *in, struct kept *kept);
void remote_drop(struct ext *e); /* its stream */
