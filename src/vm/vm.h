/*
 * tos-vm: runs Lua carriers inside the sandbox that it was started in.
 *
 * One process, descriptor 3 to its kernel (wire/vmproto.h), a table of carriers with a
 * lua_State each. What a carrier can reach is made by the files of libs.h and nowhere else.
 *
 * Everything that raises a Lua error is a longjmp, so C memory that must survive one belongs to
 * the carrier (struct vm_carrier) and not to a C frame.
 */
#pragma once

#include <lua.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/list.h"
#include "vm/arena.h"
#include "wire/carrier.h"
#include "wire/cbor.h"
#include "wire/frame.h"

#define VM_CARRIERS_MAX 65536
#define VM_CALLS_MAX    1024 /* questions of one carrier without an answer */
#define VM_INBOXES_MAX  256  /* of one carrier */
#define VM_FRAME_BYTES_MAX                                                                     \
	((size_t)160 << 20) /* START holds a whole carrier: state, briefcase, code */
#define VM_LOG_BYTES_MAX 4096
#define VM_LOGS_PER_S                                                                          \
	200 /* the kernel takes more: what waited in a stall, and the line about the dropped */
#define VM_TEXT_BYTES_MAX  4096 /* of a fault's text */
#define VM_TRACE_BYTES_MAX 16384

/* ---- codec.c: Lua values and CBOR */

#define VALUE_DEPTH_MAX                                                                        \
	24                  /* of a folder's element; frames around it add the rest of the 32  \
			     */
#define STATE_DEPTH_MAX 128 /* of `self` */

/* Scratch of one encoding run. Lives in the carrier, because an error may jump out of the run.
 */
struct codec {
	struct buf keys; /* encoded keys of the maps being written */
	uint32_t *order; /* their offsets */
	size_t n_order, cap_order;
	struct errmsg em;
};
void codec_fini(struct codec *k);

/*
 * Append the plain value at `index`: nil, booleans, numbers, strings (UTF-8 as text, others as
 * bytes), tables whose keys are 1..n as arrays, other tables as maps. Raw access: no metamethod
 * runs.
 *
 * Returns 0, ERR_UNSUPPORTED (something that can't travel), ERR_TOO_LARGE, ERR_NOMEM; k->em
 * says which and where, starting with `root`. Raises nothing but Lua's memory error.
 */
int value_encode(lua_State *L, int index, struct buf *b, struct codec *k, const char *root);
/* The same with shared and cyclic tables (tags 28 and 29) and depth STATE_DEPTH_MAX. */
int state_encode(lua_State *L, int index, struct buf *b, struct codec *k, const char *root);

/* Push the value of exactly one item, checked strictly; hostile input is fine. On an error
 * nothing is pushed: ERR_MALFORMED, ERR_TOO_LARGE (too deep). Raises nothing but Lua's memory
 * error. */
int value_decode(lua_State *L, struct slice bytes);
int state_decode(lua_State *L, struct slice bytes);

/* Marks a string that is sent as bytes whatever it holds; the value at the top is replaced. */
void bytes_mark(lua_State *L);

/* ---- carrier.c: one carrier */

enum vm_state {
	VM_LOADING,
	VM_READY_TO_RUN, /* in one of the scheduler's queues, unless it is paused */
	VM_WAITING,
	VM_ENDED, /* finished or faulted; the kernel says END */
};

enum vm_wait {
	WAIT_NONE,
	WAIT_DONE,  /* the kernel's DONE for wait_id */
	WAIT_CALL,  /* the answer with tag wait_id */
	WAIT_INBOX, /* a folder in wait_box */
	WAIT_SLEEP,
};

struct vm_msg {
	struct vm_msg *next;
	uint64_t tag;
	unsigned kind;
	size_t n_sender, n_folder, n_owner, n_class;
	uint8_t bytes[]; /* sender, folder, owner, class */
};

struct vm_inbox {
	char name[NAME_BYTES_MAX + 1];
	struct vm_msg *first, **last;
	size_t n, bound;
	uint64_t n_owed; /* TAKEN that waits until GO is answered */
};

struct vm_call {
	struct vm_call *next;
	uint64_t tag;
	int64_t deadline_ms; /* monotonic */
	struct vm_msg *answer;
};

struct vm_bucket {
	int64_t level_milli, at_ms;
};

struct vm_carrier {
	uint64_t number; /* the kernel's */
	struct vm_port *port;
	struct code *code;
	enum vm_state state;
	bool prepared;     /* and may not run before RUN */
	lua_State *L, *co; /* co: the thread in which begin runs, anchored in the registry */
	int n_args;        /* for the next resume of co */

	/* sched.c's */
	struct list queue, untold, unsettled, unfolded;
	int64_t settle_us;   /* when it has waited long enough to be made small */
	unsigned fold_level; /* waits of that level's length before it is folded */
	size_t settled;      /* its heap then */
	int64_t credit_us;   /* of CPU time, before others; below 0 it owes them */
	int64_t fair_ns;     /* the scheduler's, when it was last ready */
	bool had_turn;       /* among the spent, and got credit for it */
	unsigned overruns;   /* of late, the last at overran_us */
	int64_t overran_us;
	bool fresh; /* it stands in `woken` */
	bool queued, paused;
	bool preempted;       /* the running thread has yielded because its slice is over */
	unsigned unyieldable; /* coroutines resumed where the one around them can't yield */
	int64_t cpu_us;       /* used here; the running one's since its slice began is to add */
	int64_t cpu_most_us;  /* what its limit leaves to it here */

	size_t used, peak, cap; /* bytes of Lua's heap */
	struct arena heap;
	bool refused; /* an allocation was refused since the last time somebody looked */
	size_t held;  /* bytes outside Lua's heap: its code, answers and folders that wait */

	enum vm_wait wait;
	uint64_t wait_id;
	struct vm_inbox *wait_box;
	int64_t wait_until_ms; /* monotonic; INT64_MAX: none of our own */
	int done_rc;
	char *done_text; /* NULL: none */

	uint64_t next_seq, next_tag;
	struct vm_call *calls;
	size_t n_calls;
	struct vm_inbox **inbox;
	size_t n_inboxes, cap_inboxes;

	char name[NAME_BYTES_MAX + 1], owner[NAME_BYTES_MAX + 1], home[NAME_BYTES_MAX + 1],
		parent[NAME_BYTES_MAX + 1], kernel[NAME_BYTES_MAX + 1];
	char entry[129], function[65];
	const void *lazy[7]; /* lazy.c's: the tables that fill as they are used */
	uint64_t opened[7];  /* and what was put into each */
	int64_t limit[LIMIT_COUNT], usage[LIMIT_COUNT]; /* as told by START */
	struct vm_bucket posts, logs;                   /* rates */
	bool answers; /* the kernel passes answers of carriers on (START's field `answers`) */
	bool going;   /* between GO and its answer the kernel hears nothing but USAGE and LOG */
	int64_t sent, n_posts, dropped_logs, dropped_folders; /* here */
	int64_t untold_logs; /* of the dropped: since that was said in a line */
	int64_t usage_sent_ms;
	int freeze_rc;
};

static inline struct vm_carrier *carrier_of(lua_State *L)
{
	return *(struct vm_carrier **)lua_getextraspace(L);
}

void carrier_free(struct vm_carrier *c);
/* Make its Lua state, within its cap; false: the cap or memory is too small for one. */
bool carrier_heap_open(struct vm_carrier *c);
/* It has no heap, or loading it ended with that LUA_ status and a message: it has sent its FAULT. */
void carrier_not_loaded(struct vm_carrier *c, int status);
/* Run it until it waits, ends, or is preempted: then it is VM_READY_TO_RUN. */
void carrier_run(struct vm_carrier *c);
/* It is over with it: it used more CPU time than granted, or could not be stopped otherwise and
 * its heap was left as it was (`dropped`), never to be touched again. */
void carrier_over_cpu(struct vm_carrier *c);
void carrier_dropped(struct vm_carrier *c);
/* It waits, and perhaps for long: give back what it does not need for that. */
void carrier_settle(struct vm_carrier *c);
/* It has waited for long: fold its heap. It is unfolded when it runs. */
void carrier_fold(struct vm_carrier *c);
/* When its wait is over at the latest; INT64_MAX for never. */
int64_t carrier_deadline(const struct vm_carrier *c);
void carrier_send_usage(struct vm_carrier *c);
/* USAGE, but not more often than each 200 ms. */
void carrier_note_activity(struct vm_carrier *c);
/* A line about those that were dropped, if any: its stay, or its life, ends. */
void carrier_tell_dropped(struct vm_carrier *c);
/* Append as text, with '?' for what is not UTF-8, at most `most` bytes. */
void text_put(struct buf *b, const char *s, size_t n, size_t most);

/* Keys in the registry of each lua_State. */
#define REG_BRIEFCASE                                                                          \
	"tos.briefcase"       /* name -> {first, last, bytes, [i] = encoded element}           \
			       */
#define REG_PATH  "tos.path"  /* one such */
#define REG_SEALS "tos.seals" /* folder -> "sealed" or "append" */
#define REG_SELF  "tos.self"  /* the table that travels */

/* ---- start.c */

/* Take the carrier of a START frame; c stands behind its number. On success *out is ready to
 * run, or waits for carrier_let_run(), or has sent its FAULT already. ERR_MALFORMED: the frame is
 * broken. */
int carrier_start(
	struct vm_port *port, uint64_t number, struct cbor_cursor *c, struct vm_carrier **out);
int carrier_let_run(struct vm_carrier *c); /* negative: it did not wait for that */
/* A LIMITS frame for it; negative: it is broken. */
int carrier_limits(struct vm_carrier *c, struct cbor_cursor *cur);

/* ---- frozen.c: what travels */

/* Write path, state and briefcase into port->enc as `frozen`. 0, ERR_UNSUPPORTED, ERR_LIMIT;
 * port->em says why. */
int carrier_freeze(struct vm_carrier *c, lua_State *L);
/* Push {first, last, bytes, [i] = encoded element} of an encoded array. ERR_MALFORMED: nothing
 * is pushed. */
int store_push(lua_State *L, struct slice array, bool only_text);
/* Push name -> store of an encoded briefcase. ERR_MALFORMED: nothing is pushed. */
int briefcase_push(lua_State *L, struct slice map);
/* Append the map of the briefcase in the registry, or the elements of the store at index as an
 * array. */
void briefcase_put(lua_State *L, struct buf *b);
void store_put(lua_State *L, int index, struct buf *b);

/* ---- delivery.c: what comes for it, and waits */

/* Frames for it; negative: the frame is broken. */
int carrier_deliver(struct vm_carrier *c, struct cbor_cursor *cur);
int carrier_done(struct vm_carrier *c, struct cbor_cursor *cur);
struct vm_inbox *carrier_inbox(struct vm_carrier *c, const char *name, size_t n); /* NULL */
void carrier_add_inbox(struct vm_carrier *c, struct vm_inbox *box); /* takes box */
void carrier_drop_inbox(struct vm_carrier *c, struct vm_inbox *box);
/* All inboxes and questions, and what has come for them. */
void carrier_drop_mail(struct vm_carrier *c);
void msg_free(struct vm_carrier *c, struct vm_msg *m);
/* So many folders have left its inboxes. */
void carrier_taken(struct vm_carrier *c, struct vm_inbox *box, uint64_t n);
/* Its GO was refused: say what could not be said meanwhile. */
void carrier_gone_back(struct vm_carrier *c);

/* ---- env.c: what Lua code finds */

/* Compile Lua text as the file `name`; pushes the function or the message. Returns a LUA_
 * status. */
int chunk_compile(lua_State *L, const char *text, size_t n, const char *name);
/* Leave the running thread, and every coroutine around it, until the wait is over; then k runs.
 */
int env_wait(lua_State *L, enum vm_wait wait, uint64_t id, int64_t until_ms, lua_KContext ctx,
	lua_KFunction k);
/* True if a thread has yielded because of env_wait. */
bool env_is_wait(lua_State *co, int n_results);

/* ---- sched.c: whose turn it is */
#if defined(TOS_SANITIZE) || defined(TOS_VALGRIND)
#define SCHED_SLOWER 8 /* what sanitizers cost */
#else
#define SCHED_SLOWER 1
#endif
#define FOLD_LEVELS 7
struct vm_sched {
	struct list untold;                /* used CPU time that the kernel does not know of */
	struct list unsettled;             /* wait, and have garbage */
	struct list unfolded[FOLD_LEVELS]; /* wait, and may be folded */
	struct list woken, spent; /* ready: what has just become so; what used up its slice */
	size_t n_ready, n_woken;
	int64_t next_deadline_us; /* no waiting carrier's time comes before it */
	int64_t fair_ns;          /* CPU time that each has been due */
	int64_t cpu_mark_us;      /* of the process, up to where it is accounted for */
	bool async;               /* SIGIO comes when there is something to read */
	int64_t spent_us;         /* when a spent one last ran */
	int64_t told_us;          /* of the process, when it was told of all */

	/* Of the running slice; read by the signal handlers. */
	struct vm_carrier *volatile running;
	lua_State
		*volatile thread; /* that runs, or the innermost around a C function that does */
	volatile int64_t cpu_began_us, most_us;
	volatile sig_atomic_t preempt; /* the slice is over: yield at the next instruction */
	volatile sig_atomic_t
		overdue; /* it has been for a while: an error where no yield can be */
	volatile sig_atomic_t host; /* inside what must not be left by a jump */
	volatile sig_atomic_t jump_ok;
	volatile sig_atomic_t told_stuck;
	volatile sig_atomic_t came; /* something to read, since port.c last looked */
	volatile int64_t armed_us;  /* when the timer fires; 0: it does not */
};
extern struct vm_sched vm_sched;

void sched_init(struct vm_port *p);
/* c has become ready. */
void sched_wake(struct vm_carrier *c);
/* c waits until its deadline. */
void sched_note_deadline(const struct vm_carrier *c);
void sched_pause(struct vm_carrier *c, bool pause);
/* c has cost others so much CPU time beside what its slices take. */
void sched_owes(struct vm_carrier *c, int64_t us);
void sched_forget(struct vm_carrier *c);
/* Charge what the process has used since the last such call to c. */
void sched_charge(struct vm_carrier *c);
/* So far, the present slice included. */
int64_t sched_cpu_us(const struct vm_carrier *c);
/* L runs from here on: it is L that is to yield when the slice is over. */
void sched_thread(lua_State *L);
/* Run what is ready, for some milliseconds; returns ms until it is to be called again, -1 for
 * when something has come. */
int sched_turn(struct vm_port *p);
/* For C functions that run long: is it time to make room? Then yield or raise an error. */
static inline bool sched_due(void)
{
	return vm_sched.preempt;
}

/* ---- port.c: descriptor 3 */
struct vm_port {
	/* of whoever encodes something, or fails: one at a time */
	struct codec codec;
	struct buf enc, enc_state;
	struct errmsg em;
	int fd;
	struct frame_reader in;
	struct buf out;        /* frames to be written, and behind them the one being made */
	size_t n_made;         /* bytes of whole frames in it */
	volatile bool making;  /* `out` is being changed */
	struct map *carriers;  /* number -> struct vm_carrier */
	volatile bool writing; /* part of a frame may be out */
};
/* Serve until the kernel closes; returns the exit status. */
int port_serve(int fd);
/* Start a frame of n elements behind type and carrier number; then append, then port_send. */
size_t port_begin(struct vm_port *p, uint64_t n_elements, unsigned type, uint64_t carrier);
/* Send it. ERR_TOO_LARGE: nothing was sent. Does not return if the kernel is gone. */
int port_send(struct vm_port *p, size_t at);
/* The same, but at the end of the slice, with what else is said in it, or at the next alarm. */
int port_send_later(struct vm_port *p, size_t at);
void port_drop(struct vm_port *p); /* give up the frame being made */
void port_flush(struct vm_port *p);
/* From a signal handler. */
void port_flush_alarm(struct vm_port *p);

/* ---- check.c: tos-vm --check */
int check_main(int argc, char **argv);
