/*
 * Carriers that are here, each with its hold on one (resident.c, rows.c, envelope.c,
 * vm_conversation.c), and the posts that wait for one (held.c).
 */
#pragma once

#include "kernel/carrier/lines.h"
#include "kernel/kernel.h"
#include "wire/records.h"

struct vm;

/* Of its log; its tos-vm keeps to half of that (vm.h). */
#define LINES_PER_S 400

struct resident {
	struct kernel *k;
	/* id: of this carrier; root: of its ticket, the same but for a clone */
	uint8_t id[DIGEST_BYTES], root[DIGEST_BYTES];
	char name[NAME_BYTES_MAX + 1], suffix[64];
	enum shell_state state;
	struct incarnation e;
	uint64_t n; /* number of the next departure */
	struct ticket ticket;
	const struct cert_info *owner, *author; /* certs.c; cert_nobody: not known yet */
	struct blob ticket_cose;
	/* the bundle as run here: the author's, unless a hook replaced files for this stay */
	struct blob code;
	bool code_changed;
	struct automata *automata; /* automata.c; NULL: none */
	uint8_t code_digest[DIGEST_BYTES];
	/* the envelope's parts */
	struct blob briefcase, state_bytes;
	struct tos_value *path, *undelivered;
	struct records hops;
	struct lines trail, log;
	struct usage usage;           /* used here and before; limits granted for this stay */
	int64_t minimum[LIMIT_COUNT]; /* what the manifest says it cannot do without */
	/* family.h: what it may use in its life, what of that it gave to its clones, the number of the
	 * last of them, and how many records of its chain are of the time before it was made */
	int64_t budget[LIMIT_COUNT], gave[LIMIT_COUNT];
	uint64_t n_children, n_made; /* and how many it made */
	size_t n_before;
	bool birth_known; /* its home has heard where it was made */
	/* clones made in this run, and which a run that begins again made already */
	struct cloning *cloning;
	struct tos_value *clones;
	uint64_t clone_calls, clone_base;
	uint64_t hop_count;
	int64_t launched_ms, since_ms; /* wall */
	/* begin returned (or must not run here): Mobility is to move it on */
	bool completed;
	bool completion_due; /* that is not in the store yet */
	bool ending; /* its end is being journaled, its row deleted: nothing may write it again */
	bool via_go;                /* the present move was asked for by tos.go */
	bool saved;                 /* a row in the store exists */
	bool report_due, reporting; /* the home must hear of it */
	/* the home asks for the records since that place, from that departure on */
	bool chain_due;
	char chain_at[64];
	uint64_t chain_n;
	int64_t report_at_ms, report_pause_ms;
	/* a move under way */
	struct move *move;
	bool in_doubt, sent, outcome_move, asking, wants_link;
	bool fast_move; /* that departure is in memory only, here and there */
	/* departing, and its record waits for a signature */
	struct list signing;
	struct blob hop;
	int64_t resend_at_ms, ask_at_ms, ask_pause_ms;
	bool resending, ask_sent;
	char dest[64];
	struct blob hop_cose, envelope; /* what was sent, for repeating */
	/* a fault */
	struct tos_value *fault;
	char *waiting; /* what it waits for, for people; NULL: nothing */
	/* its VM */
	struct vm *vm;
	int64_t started_ms;     /* monotonic; 0: not started in this stay */
	uint64_t vm_number;     /* by which the VM knows it */
	bool vm_runs;           /* it was handed over */
	bool vm_held;           /* it is to be made ready there, and must not run yet */
	bool vm_prepared;       /* and its tos-vm was told so */
	bool answer_late;       /* where it came from is told when it runs */
	uint64_t cpu_before_us; /* CPU used before this VM */
	uint64_t vm_cpu_us;     /* and in it, as it says */
	/* VMs that ended with it in them and named nobody, and when the last did; monotonic */
	unsigned vm_deaths;
	int64_t vm_death_ms;
	struct rate post_rate, log_rate, sent_rate, cpu_share;
	bool throttled;           /* its share, or its owner's, is used up */
	struct list costs;        /* in the kernel's, while cost_us is not 0 */
	int64_t cost_us;          /* of the kernel's time, and not charged yet */
	struct origin *speaks_as; /* once it has posted */
	/* name -> struct inbox: what was delivered and not yet taken */
	struct map *inboxes;
	struct map *asked; /* tag, sender -> struct asked: calls that it may answer */
	struct list held;  /* posts kept until it can take them */
	/* folders held here; folders in its VM that it has not taken */
	size_t n_held, n_waiting;
	size_t held_bytes;
	size_t n_undelivered; /* rows of `undelivered` before those that were held */
	uint64_t n_delivered;
	/* of this stay: bytes delivered to it and handed over with it, folders it posted */
	int64_t received, moved, n_posts;
	struct {
		int64_t cpu_ms, sent, received, moved, posts, at_ms;
	} charged;               /* what the owner's account has of it */
	uint64_t go_seq;         /* of the GO that waits for its answer; 0 none */
	uint64_t completed_call; /* Mobility is being told */
	int64_t ask_again_ms;    /* when Mobility is told again, should it have forgotten */
	bool scheduled;          /* resident_go_on is due on a later turn */
	bool frozen_taken;       /* briefcase, path and state come from the VM's last freeze */
	/* restored.c: its row was there when this kernel started; nothing of it runs or moves
	 * until others have said that it is nowhere else; it was stopped for that */
	bool loaded, confirmed, quarantined, paused;
};

/* ---- resident.c: carriers that are here */
struct resident *resident_new(struct kernel *k);
void resident_free(struct resident *r);
/* While its departure is not settled the link to its destination is kept up; given back once. */
void resident_want_link(struct resident *r, bool want);
struct resident *resident_find(struct kernel *k, const char *name);
struct resident *resident_by_id(struct kernel *k, const uint8_t id[DIGEST_BYTES]);
int resident_event(struct resident *r, enum shell_event ev, struct errmsg *em);
/* rows.c */
void resident_put(struct store_txn *t, struct resident *r); /* its row */
/* Write the row; whoever must know that it is durable commits by itself. */
void resident_save(struct resident *r);
void resident_del(struct store_txn *t, struct resident *r);
/* Ready and nothing in its way: start it, or have it moved on. */
void resident_go_on(struct resident *r);
void resident_go_on_now(struct resident *r); /* not on a later turn; it may be its end */
/* begin returned or tos.go was called: Mobility is to deal with it. */
void resident_completed(struct resident *r, const char *dest);
void resident_fault(struct resident *r, int rc, const char *text, const char *traceback);
/* End the stay for good (killed, superseded, lost): VM ended, row deleted, home told; `ev` one
 * of KILL, SUPERSEDE, LOSE. */
void resident_end(struct resident *r, enum shell_event ev, const char *why);
void resident_trail(struct resident *r, const char *event, const char *peer, const char *error);
void resident_log(struct resident *r, const char *level, const char *text);
struct tos_value *resident_row(struct resident *r);  /* as PS */
struct tos_value *resident_show(struct resident *r); /* as SHOW */
int resident_post(struct resident *r, const struct origin *from, const struct post *p,
	const char *inbox, struct errmsg *em);
/* A post to that inbox would have to be kept for it, here or on its way. */
bool resident_would_hold(const struct resident *r, const char *inbox);
void resident_waits(struct resident *r, const char *what); /* for people; NULL: it does not */
bool resident_answers(struct resident *r, uint64_t tag, struct slice sender);
/* What was delivered to its inboxes and never taken goes along: copied to r->undelivered. */
void resident_collect(struct resident *r);
/* And what waits for its inboxes, once it really departs; at the end of its journey (`goes`
 * false) it stays. */
void resident_collect_held(struct resident *r, bool goes);
void resident_uncollect(struct resident *r);
/* Close them all; calls in them are answered `moved`. */
void resident_inboxes_drop(struct resident *r);
/* After an arrival: the folders that came along wait for its inboxes to open. */
void resident_undelivered(struct resident *r);
void resident_deliver_held(struct resident *r);
void residents_tick(struct kernel *k, int64_t now_ms);
int residents_load(struct kernel *k, struct errmsg *em); /* from the store, at start */
/* From its VM: a frame of that type, read up to its number. */
int vm_frame(struct resident *r, int type, struct cbor_cursor *c, struct errmsg *em);
/* Its VM ended because of it; d NULL: the kernel ended it. r is not in it any more. */
void resident_vm_died(struct resident *r, const struct tosd_died *d, const char *why);
/* Its VM ended because of another: it starts again from its arrival or last checkpoint. */
void resident_restart(struct resident *r, const char *why);
void resident_vm_failed(struct resident *r, int rc, const char *text);
void resident_key(const struct resident *r, struct buf *out);
size_t residents_of(struct kernel *k, const char *principal);
/* The digests of an envelope's parts, as a hop record signs them. */
int envelope_digests(const struct envelope *env, struct tos_value **out, struct errmsg *em);
/* encoded */
int resident_envelope(struct resident *r, const struct tos_value *path, struct buf *out);
int resident_load_envelope(struct resident *r, struct slice envelope, struct errmsg *em);
/* The same, decoded. */
int resident_take_envelope(struct resident *r, const struct envelope *env, struct errmsg *em);
void resident_wanted(struct resident *r, const char *wanted, const struct incarnation *e);
/* It stops where it is, in memory only, until it is unpaused. */
void resident_pause(struct resident *r);
void resident_unpause(struct resident *r);
extern const struct verb shells_verbs[];

/* ---- held.c: posts that wait for a carrier here */
/* came: with the carrier, so it was bounded where it was posted. */
int router_hold(struct resident *r, const struct origin *from, const struct post *p, bool came);
void router_held_each(struct resident *r,
	bool (*fn)(struct resident *r, const struct origin *from, const struct post *p));
void router_held_collect(struct resident *r,
	void (*fn)(struct resident *r, const struct origin *from, const struct post *p));
void router_held_uncollect(struct resident *r, bool gone);
void router_held_move(struct resident *from, struct resident *to);
/* It left: they are sent after it. */
void router_forward_held(struct kernel *k, struct resident *r, const char *kernel);
