/*
 * The kernel: one struct that joins the parts, shared by the files of this room and by nobody
 * else. Runs in tos-kernel, on its one loop thread.
 */
#pragma once

#include <uv.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/list.h"
#include "base/log.h"
#include "base/map.h"
#include "base/mem.h"
#include "core/courier.h"
#include "core/firewall.h"
#include "core/inbox.h"
#include "core/name.h"
#include "core/property.h"
#include "core/quota.h"
#include "core/shell.h"
#include "ext/ext.h"
#include "ipc/tosd_msg.h"
#include "kernel/config.h"
#include "kernel/carrier/lines.h"
#include "link/link.h"
#include "seal/seal.h"
#include "store/store.h"
#include "tos/value.h"
#include "wire/carrier.h"
#include "wire/frame.h"

/* The two trust domains: carriers, their inboxes and clients; kernels and their extensions. */
#define TRUST_USER   "user"
#define TRUST_SYSTEM "system"

struct kernel;
struct resident;
struct request;
struct peer;
struct home_record;

/* ---- who sends a post: filled in by whoever took it from its connection, never from its bytes */
enum origin_class {
	ORIGIN_KERNEL,
	ORIGIN_EXTENSION,
	ORIGIN_CARRIER,
	ORIGIN_CLIENT,
	ORIGIN_JOINER
};
struct origin {
	enum origin_class cls;
	/* full address of the sender: host0#42, host0/Echo, host0/client/7 */
	char name[NAME_BYTES_MAX + 1];
	char kernel[64]; /* kernel it came from; "" for here */
	char principal[CERT_NAME_MAX + 1];
	char author[CERT_NAME_MAX + 1]; /* of the code of a carrier that is here; else "" */
	/* rights.c: what the certificates of the two allow at most; NULL: all. Lent for good. */
	const struct rights *owner_only, *author_only;
	unsigned roles;
	bool may_read;     /* local clients: uid allowed to read */
	struct link *link; /* clients and joiners: the connection; else NULL */
};
const char *origin_class_word(enum origin_class c);
/* Its name, if another kernel has to be shown a ticket or an introduction first; else NULL. */
const char *origin_vouched(const struct origin *from);
/* this kernel's own inbox "Kernel" */
void origin_self(const struct kernel *k, struct origin *o);

/* ---- a request to one of the kernel's own inboxes; ends by exactly one request_ok or
 * request_fail */
struct request {
	struct kernel *k;
	struct origin from;
	char inbox[64], verb[NAME_BYTES_MAX + 1];
	uint64_t tag; /* 0: nobody waits for the answer */
	uint8_t trace[TRACE_BYTES];
	int64_t deadline_at_ms;       /* monotonic; 0 none */
	struct tos_value *elements;   /* array */
	const struct tos_value *args; /* its first element if that is a map, else NULL */
};
/* takes both; NULL result: empty map */
void request_ok(struct request *rq, struct tos_value *result);
void request_fail(struct request *rq, int rc, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
void request_free(struct request *rq);

typedef void verb_fn(struct kernel *k, struct request *rq); /* takes rq */
struct verb {
	const char *name;
	verb_fn *fn;
};
struct kernel_inbox {
	const char *name, *doc;
	unsigned classes;         /* bits 1 << enum origin_class that may post here at all */
	const struct verb *verbs; /* ends with a zero row */
};

/* ---- calls that the kernel itself makes */
typedef void call_done_fn(struct kernel *k, void *arg, int rc, const char *text,
	const struct tos_value *elements);
/* Call KERNEL/INBOX (kernel "" or our own name: here). Takes args (a map). done comes exactly
 * once, always later. timeout_ms counts connecting too. Returns the call's number, for
 * call_cancel. */
uint64_t kernel_call(struct kernel *k, const char *kernel, const char *inbox, const char *verb,
	struct tos_value *args, uint32_t timeout_ms, call_done_fn *done, void *arg);
/* Forget it: done will not be called. Its arg is given to free(). */
void call_cancel(struct kernel *k, uint64_t number);
/* A one-way post of the kernel's own. Takes args. */
void kernel_notify(struct kernel *k, const char *kernel, const char *inbox, const char *verb,
	struct tos_value *args);
/* The same on behalf of a carrier here, which must be vouched for. */
void kernel_notify_for(struct kernel *k, const char *kernel, const char *inbox,
	const char *verb, struct tos_value *args, uint32_t limit_ms, const char *vouch_for);
/* The call's frame has been given to a link (so the other side may act on it). */
bool call_sent(const struct kernel *k, uint64_t number);

/* ---- peers: kernels that we talk to or want to */
struct peer {
	char name[64];
	struct link *link; /* open, or NULL */
	struct list queue; /* struct waiting_post: for when it opens */
	size_t queued_bytes;
	char address[4][128];
	size_t n_address;
	bool looking_up, dialling;
	struct map *took;    /* owners whose carriers it took, codes that it has: struct took */
	struct map *vouched; /* carriers for which we vouched on this link */
	struct map *vouched_for; /* carriers for which it vouched: struct vouch */
	uint64_t boot_count;
	uint8_t boot_nonce[16];
	bool boot_known;
	unsigned wants; /* reasons to keep the link up */
	/* audit rows and journaled refusals that it caused */
	struct log_rate rate_refused, rate_answers;
	/* posts to carriers: ours there, theirs here (core/courier.h) */
	struct courier_out out;
	struct courier_in in;
	unsigned n_introduced; /* of those it vouched for: clients */
	unsigned n_streams;    /* that wait for the link, or for room on it */
	bool say_due;          /* peer_took() has something to say at the end of this turn */
	int64_t lost_ms;       /* when the last link was lost; 0: never */
	bool given_up;         /* what went over it */
	int64_t again_at_ms, again_ms; /* when it is dialled again, and how long that was */
};

/* ---- a carrier that is here */
struct vm;
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
	struct tos_value *path, *hops, *undelivered;
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
	int64_t report_at_ms;
	/* a move under way */
	struct move *move;
	bool in_doubt, sent, outcome_move, asking, wants_link;
	bool fast_move; /* that departure is in memory only, here and there */
	/* departing, and its record waits for a signature */
	struct list signing;
	struct blob hop;
	int64_t resend_at_ms, ask_at_ms;
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

/* ---- the kernel */
struct kernel {
	uv_loop_t *loop;
	struct config config;
	struct list costs; /* residents that the kernel has worked for since the last tick */
	int64_t costs_us, costs_cpu_us;
	char conf_path[TOSD_PATH_BYTES], dir[TOSD_PATH_BYTES], dir_outside[TOSD_PATH_BYTES];
	char socket_path[TOSD_PATH_BYTES];
	bool as_root, ready, stopping, exts_gone;
	int exit_code;
	uint8_t boot_nonce[16];
	uint64_t boot_count;
	int64_t started_ms;
	uid_t dir_owner;
	/* tosd */
	int tosd_fd;
	uv_poll_t tosd_poll;
	struct list tosd_queue;
	size_t tosd_queued;
	struct tosd_layers layers;
	uint64_t next_slot;
	struct map *children; /* slot -> struct child */
	struct map *vms;      /* slot -> struct vm */
	uint64_t next_vm_number;
	struct vm *spares[CONFIG_SPARES_MAX];
	size_t n_spares;
	int64_t spare_used_ms;
	uv_timer_t spare_timer; /* for the next ones, with this limit */
	uint64_t spare_address_bytes;
	/* parts */
	struct store *store;
	uv_async_t store_wake;
	struct signer *signer;
	struct buf root_der;
	struct revocation *revocation;
	struct blob revocation_cose;
	uint8_t domain[DIGEST_BYTES];
	struct tls_context *tls;
	struct links *links;
	struct ext_host *exts;
	struct extender *extender;
	struct firewall *firewall;
	struct map *rights; /* rights.c */
	struct properties *properties;
	struct metrics *metrics;
	struct {
		uint64_t *posts, *posts_forwarded;
	} count;                  /* those of every post */
	struct signer *registrar; /* NULL: not the registrar */
	/* until when the revocation list is known to be the newest (wall), who says so, of which
	 * number; offers that wait for that */
	int64_t fresh_ms, fresh_ask_at_ms, fresh_asked_ms;
	uint64_t fresh_number;
	struct blob fresh_cose;
	bool fresh_stale;
	unsigned fresh_asking; /* how many were asked and have not answered */
	struct list fresh_waiting;
	size_t n_fresh_waiting;
	uint8_t audit_head[DIGEST_BYTES]; /* for the hello that is just being made */
	int64_t witness_at_ms;
	uint64_t
		n_audit_rewritten; /* peers' logs that were not what they had been, since the start */
	bool renewing;
	int64_t renew_at_ms;
	/* tables */
	struct map *peers;      /* name -> struct peer */
	struct map *residents;  /* name -> struct resident */
	struct map *homes;      /* name -> struct home_record: live, and ended of late */
	struct map *calls;      /* number -> struct call */
	struct map *arrivals;   /* id, e, n -> struct arrival in progress */
	struct map *clients;    /* name -> struct client */
	struct map *introduced; /* name -> struct introduced (introduce.h) */
	struct map *uploads;    /* digest -> struct upload */
	struct map *codes;      /* digest -> struct code: verified bundles in memory */
	struct map *void_peers; /* kernels for which there are voids: their links are kept up */
	struct map *places;     /* carrier -> struct place: where it was seen last */
	struct map *streams;    /* sender|dest -> struct stream_queue */
	size_t streams_bytes;   /* in all of them */
	struct map *programs;   /* slot -> struct program */
	struct map *names;      /* names given out: name -> struct given */
	struct map *callers; /* client, carrier, extension -> struct caller: whom each asked */
	int64_t callers_at_ms;
	struct map *watchers; /* carrier -> struct watch list */
	struct map *waiting;  /* client -> how many outcomes it waits for */
	struct list families; /* struct family_waiter */
	bool family_news;     /* one of them may be complete */
	struct map *notes;    /* keys of the outbox whose answer is waited for */
	int64_t notes_at_ms;  /* when what is left in the outbox is sent again */
	struct map *acting;   /* nonces of acts, digests of tokens that are being journaled */
	struct map *incarnations; /* id -> struct incarnation, highest known */
	struct map *accounts;     /* principal -> struct account */
	struct map *stored;       /* kind and name -> struct stored: rows of somebody's */
	struct map
		*fast_taken; /* id, e, n -> struct fast_taken: accepted, and in memory only */
	struct map *gone_late;  /* id -> struct gone_late: of departures, not yet on the disk */
	struct store_txn *lazy; /* what nobody waits for: committed by the tick */
	struct list signing;    /* struct resident */
	unsigned n_lazy;
	struct restored *restored;
	struct map
		*ext_properties; /* path -> struct ext_property, used again when it changes */
	struct map *settings;    /* path -> struct setting: what was set at run time */
	struct reload *reload;   /* who waits for the configuration to be read again */
	struct journal *journal; /* journal.c */
	struct content_store *content; /* content.h */
	bool draining;                 /* takes no carriers any more: tos drain */
	struct list later, slow;       /* struct later */
	uv_idle_t idle;
	uv_async_t later_wake;
	/* of the call whose done is running: its frame had been given to a link */
	bool ending_call_sent;
	uint64_t next_call, next_name, names_reserved, next_client;
	uv_timer_t tick;
	uv_timer_t late_timer; /* for what was submitted to the store for later */
	struct tos_value *log_ring; /* array of maps, bounded */
	uint64_t log_seq;
	unsigned n_closing;
	struct log_rate rate_denied;
};

/* The time, ms, as of when this turn of the loop began: for what is asked with every post. */
static inline int64_t kernel_now(const struct kernel *k)
{
	return (int64_t)uv_now(k->loop);
}

/* ---- router.c */
/* Route one post. 0: taken over (whatever fails later is answered by a failure post); else the
 * failure known at once, for which the caller answers. */
int kernel_route(
	struct kernel *k, const struct origin *from, const struct post *p, struct errmsg *em);
/* Tell the sender of p that it failed: a failure post with its tag. Never fails itself. */
void kernel_fail_back(struct kernel *k, const struct post *p, int rc, const char *text);
/* Hand an answer or failure to whoever called: dest, tag. */
void kernel_answer(struct kernel *k, const char *dest, uint64_t tag, enum post_kind kind,
	const char *folder, const struct tos_value *elements);
int kernel_frame(void *arg, struct link *l, struct slice frame, struct errmsg *em);
void router_init(struct kernel *k);
void router_tick(struct kernel *k, int64_t now_ms);
void subject_of(const struct origin *from, struct subject *out);
/* Written down (rate-limited) and counted. */
void audit_denial(struct kernel *k, const struct origin *from, const char *action,
	const char *object, const char *why);
/* The firewall; a denial is audited (rate-limited) and counted. */
int kernel_allowed(struct kernel *k, const struct origin *from, const char *action,
	const char *object, const char *owner, struct errmsg *em);

/* ---- certs.c: certificates of owners and authors, counted. *at is cert_nobody or was kept before. */
extern const struct cert_info cert_nobody;
void cert_keep(const struct cert_info **at, const struct cert_info *info);
void cert_leave(const struct cert_info **at); /* nobody's then */

/* ---- rights.c: the restrictions in a verified certificate; NULL: it has none */
const struct rights *rights_of(struct kernel *k, const struct cert_info *who);

/* ---- streams.c: posts to carriers elsewhere */
void streams_init(struct kernel *k);
void streams_tick(struct kernel *k, int64_t now_ms);
/* Where a carrier was seen last. */
void place_note(struct kernel *k, const char *carrier, const char *kernel);
void place_forget(struct kernel *k, const char *carrier);
const char *place_find(const struct kernel *k, const char *carrier); /* NULL not known */
/* Take a post over; its deadline 0: as the post says. ERR_FULL, ERR_NOMEM. */
int stream_add(struct kernel *k, const struct origin *from, const struct post *p,
	const char *carrier, int64_t deadline_at_ms, struct errmsg *em);
/* Posts of this sender to it have not been dealt with. */
bool stream_waits(const struct kernel *k, const char *sender, const char *carrier);
/* An answer or failure, to where the caller asked from; false: it has to go through a stream. */
bool answer_sent(
	struct kernel *k, const struct origin *from, const struct post *p, const char *carrier);
/* The frame `taken` of a peer. */
int streams_taken(struct kernel *k, struct peer *p, struct cbor_cursor *c, struct errmsg *em);
void streams_link_up(struct kernel *k, struct peer *p, bool same_boot);
/* No link could be made / none came back in time. */
void streams_unreachable(struct kernel *k, struct peer *p, const char *why);
void streams_lost(struct kernel *k, struct peer *p, const char *why);

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

/* ---- peer.c */
/* made when new; bounded, then NULL */
struct peer *peer_get(struct kernel *k, const char *name);
/* Send a frame (borrowed) to that kernel, now or once there is a link, until the deadline.
 * `call`: number of the kernel's own call that it carries, else 0. vouch_for: the carrier that
 * must be vouched for first, or NULL. A post that can't be sent in the end is answered by a
 * failure post to its sender. 0, ERR_FULL, ERR_NAME, ERR_CLOSED. */
int peer_send(struct kernel *k, const char *name, struct slice frame, int64_t deadline_at_ms,
	uint64_t call, const char *vouch_for, struct errmsg *em);
/* Send a post to a carrier there, now: ERR_FULL, ERR_CLOSED, ERR_TOO_LARGE. */
int peer_carry(struct kernel *k, struct peer *p, const struct carry *y, const char *vouch_for);
/* A post of it was dealt with: it will be told. */
void peer_took(struct kernel *k, struct peer *p);
/* A link is needed. */
void peer_reach(struct kernel *k, struct peer *p);
void peer_link_up(struct kernel *k, struct link *l, const struct hello *h);
void peer_link_down(struct kernel *k, struct link *l);
void peer_dial_failed(struct kernel *k, const char *name, int rc, const char *why);
size_t peer_resolve(struct kernel *k, const char *name, char (*out)[128], size_t most);
int peer_vouch_frame(struct kernel *k, struct link *l, struct slice ticket, struct slice hops,
	struct errmsg *em);
void peer_want(struct kernel *k, const char *name, bool want);
void peers_tick(struct kernel *k, int64_t now_ms);
int peers_init(struct kernel *k, struct errmsg *em);
/* NULL: nobody does */
const struct origin *peer_vouched_for(struct kernel *k, struct peer *p, struct slice sender);

/* ---- calls.c */
int calls_init(struct kernel *k);
void calls_close(struct kernel *k);
/* Run fn on a later turn of the loop. */
void kernel_later(struct kernel *k, void (*fn)(struct kernel *k, void *arg), void *arg);
/* The same for what may be many: a little of it each turn, behind everything else. */
void kernel_later_slow(struct kernel *k, void (*fn)(struct kernel *k, void *arg), void *arg);
/* kernel_call with the address of a carrier that must be vouched for, and a prepared array of
 * elements (taken). */
uint64_t call_start(struct kernel *k, const char *kernel, const char *inbox, const char *verb,
	struct tos_value *elements, uint32_t timeout_ms, const char *vouch_for,
	call_done_fn *done, void *arg);
void call_mark_sent(struct kernel *k, uint64_t number);
/* somebody still waits for its answer */
bool call_waits(const struct kernel *k, uint64_t number);
/* The Messenger said where: ends its LOCATE call. */
int calls_forwarded(struct kernel *k, const struct post *original, const char *kernel);
void calls_answer(struct kernel *k, const char *from_kernel, const struct post *p);
void calls_tick(struct kernel *k, int64_t now_ms);
/* What was sent to that kernel will not be answered. It ends as if its time were over: to whoever
 * called that means that it may have happened. */
void calls_lost(struct kernel *k, const char *peer, const char *why);
void calls_failed(struct kernel *k, uint64_t number, int rc, const char *text);
void calls_link_down(struct kernel *k, const char *peer);
/* Dispatch a post to one of the kernel's own inboxes. ERR_NO_INBOX if there is none of that
 * name. */
int inbox_dispatch(struct kernel *k, const struct origin *from, const char *inbox,
	const struct post *p, struct errmsg *em);
bool inbox_is_kernels(const char *inbox);
/* May this class post there at all, whatever the rules say? */
bool inbox_class_ok(const char *inbox, enum origin_class c);

/* ---- callers.c: whom our clients, carriers and extensions asked */
struct address;
int callers_note(struct kernel *k, const char *caller, const struct post *p,
	const struct address *asked, struct errmsg *em);
/* A call to a carrier goes to that kernel now. */
void callers_sent(struct kernel *k, const char *caller, uint64_t tag, const char *kernel);
void callers_forget(struct kernel *k, const char *caller, uint64_t tag);
/* Is this answer or failure from whom that caller asked? It is taken once. */
bool callers_answered(
	struct kernel *k, const char *caller, const struct origin *from, const struct post *p);
void callers_tick(struct kernel *k, int64_t now_ms);
/* What was asked there until then gets `unknown`. */
void callers_lost(struct kernel *k, const char *peer, int64_t until_ms, const char *why);

/* ---- child.c: tosd */
int tosd_begin(struct kernel *k, struct errmsg *em);
/* fd -1: none; it stays the caller's */
int tosd_send(struct kernel *k, const void *msg, size_t n, int fd);
void tosd_ready(struct kernel *k);
int tosd_reload(struct kernel *k); /* have the configuration checked, then reload_checked() */
int child_spawn_ext(struct kernel *k, const char *key);
void child_kill_ext(struct kernel *k, const char *key);
int child_spawn_vm(struct kernel *k, struct vm *v, uint64_t address_bytes, const char *label);
void child_kill_vm(struct kernel *k, const struct vm *v);
void child_forget_vm(struct kernel *k, const struct vm *v);

/* ---- vms.c: the tos-vm processes, and which carrier is in which */
enum vm_phase { VM_PHASE_SPAWNING, VM_PHASE_BOOTING, VM_PHASE_READY, VM_PHASE_DYING };
struct vm {
	uint32_t magic;
	struct kernel *k;
	uint64_t slot;
	enum vm_phase phase;
	struct stream *stream;
	int pid;
	bool died;
	bool spare; /* made ahead: nobody's yet, and in kernel.spares */
	int64_t asked_us;
	uint64_t address_bytes; /* its limit as a process */
	/* whose it is: owner, author, roles, and with how many it may be shared */
	char key[2 * CERT_NAME_MAX + 64];
	size_t company;        /* the most carriers in it */
	uint64_t memory_each;  /* the most that a carrier in it may be granted */
	struct map *carriers;  /* number -> struct resident */
	uint64_t newest;       /* no number that it was given is higher */
	int64_t idle_since_ms; /* monotonic; while `carriers` is empty */
	/* signs of life; times are of its own CPU clock */
	uint64_t n_frames, frames_seen;
	int64_t alive_cpu_us;
	uint64_t stuck; /* the carrier that it says it can't stop; 0 none */
	int64_t stuck_cpu_us;
	unsigned n_ending; /* carriers that it was told to forget and has not confirmed */
	int64_t ending_ms, ending_cpu_us;
	bool busy; /* it uses most of a processor */
	int64_t busy_at_ms, busy_cpu_us;
	int64_t told_cpu_us; /* what it says that its carriers have used */
};
#define VM_MAGIC 0x766d3031u
/* Finds a tos-vm, or asks tosd for one, and hands the carrier over. */
int vm_start(struct resident *r, struct errmsg *em);
/* It is not to run any more; r->vm becomes NULL at once. */
void vm_abandon(struct resident *r);
void vm_freeze(struct resident *r, bool freeze);
/* from: who is known to have sent it; NULL: not known, or an answer */
int vm_deliver(struct resident *r, enum post_kind kind, const char *inbox, const char *sender,
	uint64_t tag, struct slice folder, const struct origin *from);
int vm_done(struct resident *r, uint64_t seq, int rc, const char *text); /* rc 0: worked */
void vm_charge(struct resident *r, int64_t us); /* CPU time that others spent on it */
void vm_limits(struct resident *r);             /* they have changed */
uint64_t vm_cpu_us(const struct resident *r);   /* as far as it has been told */
void vm_told_usage(struct resident *r, uint64_t cpu_us);
uint64_t vm_memory_bytes(const struct resident *r);
/* From tosd. */
void vm_spawned(struct vm *v, int fd, int pid); /* takes fd */
void vm_failed(struct vm *v, int rc, const char *text);
void vm_died(struct vm *v, const struct tosd_died *d);
void vms_init(struct kernel *k);
void vms_tick(struct kernel *k, int64_t now_ms);
void spares_end(struct kernel *k);

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
void resident_wanted(struct resident *r, const char *wanted, const struct incarnation *e);
/* It stops where it is, in memory only, until it is unpaused. */
void resident_pause(struct resident *r);
void resident_unpause(struct resident *r);
extern const struct verb shells_verbs[];

/* ---- admit.c: what may be launched or arrive */
struct code {
	uint8_t digest[DIGEST_BYTES];
	struct blob bundle;
	struct cert_info author;
	struct manifest manifest;
	int64_t used_ms;
	/* when it was found good, and by which revocation list */
	int64_t checked_ms;
	uint64_t checked_revocation;
	int64_t kept_until_ms;    /* wall: when the store's row of it expires; 0 not known */
	uint64_t kept_failures;   /* the store's failures when that row was written */
	int64_t counted_until_ms; /* at the start: until when its row counts for somebody */
};
/* The verified code, from memory or the store; NULL and em if it is not here. */
struct code *code_find(struct kernel *k, const uint8_t digest[DIGEST_BYTES], struct errmsg *em);
/* cached in k->codes */
int code_verify(struct kernel *k, struct slice bundle, struct code **out, struct errmsg *em);
int ticket_verify(struct kernel *k, struct slice cose, struct ticket *out,
	uint8_t id[DIGEST_BYTES], struct cert_info *owner, struct errmsg *em);
int ticket_stored(struct slice cose, struct ticket *out, uint8_t id[DIGEST_BYTES],
	const struct cert_info **owner, struct errmsg *em);
void kernel_trust(const struct kernel *k, struct trust *out);
/* Changes with the revocation list: what was found good under another number is not any more. */
uint64_t kernel_trust_number(const struct kernel *k);
/* Limits granted here; ERR_LIMIT names the first that the carrier cannot do without. */
int admit_limits(struct kernel *k, const int64_t asked[LIMIT_COUNT],
	const int64_t minimum[LIMIT_COUNT], int64_t out[LIMIT_COUNT], struct errmsg *em);
/* Once the code is known: is its author's let in? `action` launch or arrive. */
int admit_author(struct kernel *k, const struct cert_info *owner,
	const struct cert_info *author, const char *action, struct errmsg *em);
int admit_check(struct kernel *k, const struct cert_info *owner, const char *action,
	bool counts, struct errmsg *em);
/* Bits of enum role; author NULL: not known. */
unsigned carrier_roles(const struct cert_info *owner, const struct cert_info *author);
/* ---- automata.c: what extensions gave to watch the carrier in this stay */
/* A text as core/automaton.h has it, from the hook with this inbox. ERR_SYNTAX, ERR_LIMIT, ... */
int automata_add(
	struct resident *r, const char *by, const struct tos_value *text, struct errmsg *em);
void automata_free(struct resident *r);
/* May it do that? 0, or ERR_DENIED, which is written down; *ended: it was faulted for that. */
int automata_post(struct resident *r, enum post_kind kind, struct slice dest, bool *ended,
	struct errmsg *why);
int automata_go(struct resident *r, const char *dest, bool *ended, struct errmsg *why);
int automata_clone(struct resident *r, struct slice dest, bool *ended, struct errmsg *why);
int automata_inbox(struct resident *r, const char *name, bool *ended, struct errmsg *why);
/* A run that begins again does so from here; it begins again. */
void automata_keep(struct resident *r);
void automata_back(struct resident *r);
void automata_put(const struct resident *r, struct tos_value *row);
void automata_read(struct resident *r, const struct tos_value *list); /* of a row; NULL: none */
struct tos_value *automata_show(const struct resident *r);            /* [{by, state, text}] */

/* Hooks: call each ON_ARRIVAL or ON_DEPARTURE inbox in turn; done(rc, text) later. Modifies r. */
typedef void hooks_done_fn(struct kernel *k, void *arg, int rc, const char *text);
void hooks_run(struct kernel *k, struct resident *r, uint32_t flag, const char *dest,
	const char *from, hooks_done_fn *done, void *arg);

/* ---- seals.c: folders that the owner protects */
struct hop;
/* A new carrier's briefcase is what its ticket says. */
int seals_launched(const struct ticket *t, struct slice briefcase, struct errmsg *em);
/* May the carrier have this briefcase instead of the one it has? ERR_DENIED names the folder. */
int seals_kept(const struct resident *r, struct slice briefcase, struct errmsg *em);
/* What came against ticket and chain; ERR_SIGNATURE names the folder and who changed it. */
int seals_arrived(
	struct kernel *k, const struct resident *r, const struct hop *last, struct errmsg *em);
/* For the hop record; NULL where no folder is append-only. */
struct tos_value *seals_grown(const struct ticket *t, struct slice briefcase);
void seals_show(const struct ticket *t, struct tos_value *m);
struct tos_value *seals_words(const struct ticket *t); /* folder -> "sealed" or "append" */

/* ---- depart.c, arrive.c, incarnation.c */
extern const struct verb handoff_verbs[];
void move_begin(struct resident *r, struct request *rq, const char *dest, bool entry,
	uint32_t timeout_ms);
void move_cancel(struct resident *r);
void outcome_begin(struct resident *r);
void handoff_link_up(struct kernel *k, const char *peer);
void handoff_link_down(struct kernel *k, const char *peer);
void handoff_tick(struct kernel *k, int64_t now_ms);
int handoff_load(struct kernel *k, struct errmsg *em);
void handoff_voids(struct kernel *k, const char *peer);
/* A void for that kernel has been journaled: its link is kept up until it has acknowledged. */
void handoff_void_due(struct kernel *k, const char *dest);
/* What had no answer though its link stayed up is said again. */
void handoff_voids_tick(struct kernel *k, int64_t now_ms);
void handoff_voids_begin(struct kernel *k); /* those that were left at the last stop */
void handoff_expire(struct kernel *k);
/* Sign what has waited for it: as many as there are with one signature. */
void handoff_sign(struct kernel *k);
struct tos_value *incarnation_value(const struct incarnation *e);
int incarnation_read(const struct tos_value *v, struct incarnation *out);
int incarnation_pick(struct slice encoded, struct incarnation *out);
/* ticket_expires_ms: of the carrier's ticket; 0 not known */
void incarnation_learn(struct kernel *k, const uint8_t id[DIGEST_BYTES],
	const struct incarnation *e, int64_t ticket_expires_ms);
void incarnations_expire(struct kernel *k);
/* Ask the home whose the carrier is: journaled, then repeated until it has answered. rq may be
 * NULL. */
void resolve_begin(struct resident *r, struct request *rq);

/* ---- home.c */
struct home_record {
	struct kernel *k;
	char name[NAME_BYTES_MAX + 1];
	uint8_t id[DIGEST_BYTES];
	char owner[CERT_NAME_MAX + 1];
	enum shell_state state;
	char kernel[64]; /* where it is, as far as known */
	char from[64];   /* who handed it there and may have kept its copy; "" nobody */
	struct incarnation e;
	uint64_t n;
	uint64_t
		came; /* n when it came to that kernel: what leaves it has this number or more */
	/* kernels that had it, the latest over the oldest: they may tell watchers of it */
	char *places[8];
	size_t n_places;
	bool in_doubt;
	char wanted[16]; /* "", "killed", "suspended", "running" */
	bool command_due, commanding;
	/* an incarnation that is being journaled: nobody hears of it before it is durable */
	bool raising, save_due;
	struct incarnation next_e;
	/* its end, while that is being journaled: each row written meanwhile says so, too */
	bool closing;
	enum shell_state end_state;
	struct tos_value *end_outcome;
	int64_t end_ms;
	bool place_due; /* where it is, which may be forgotten */
	int64_t command_at_ms, save_at_ms, place_at_ms;
	/* its place said that it has none: when first, and when it is asked again */
	int64_t denied_ms, holds_at_ms;
	bool denied; /* for good */
	int64_t launched_ms, since_ms, ended_ms, expires_ms;
	bool stale; /* from a store that was restored: others are asked before it counts */
	struct blob ticket_cose;
	struct tos_value *outcome; /* {briefcase, trail, fault, log}; NULL until ended */
	struct tos_value *fault;
	/* families.c. Of a clone: where it was made, and its birth record's digest. Of each: its
	 * budgets, what its clones got of them, how many have registered, and what is wanted of all
	 * that come of it */
	char born[64];
	uint8_t birth[DIGEST_BYTES];
	int64_t budget[LIMIT_COUNT], gave[LIMIT_COUNT];
	uint64_t n_registered;
	char family_wanted[16];
	struct list waiters; /* struct outcome_waiter */
};
extern const struct verb home_verbs[];
struct home_record *home_find(struct kernel *k, const char *name);
int homes_load(struct kernel *k, struct errmsg *em);
void homes_tick(struct kernel *k, int64_t now_ms);
struct home_record *home_new(struct kernel *k, const char *name);
/* adopt.c: the record of a carrier that comes here by that departure and was launched here, which this
 * store has forgotten since it was put back from a backup; NULL if that is not so. Its ticket and chain
 * have been verified. */
struct home_record *home_adopt(
	struct kernel *k, const struct resident *r, const struct hop *last);
void home_put(struct store_txn *t, const struct home_record *h);
void home_free(struct home_record *h);
/* takes outcome; in memory */
void home_outcome(struct kernel *k, struct home_record *h, enum shell_state state,
	struct tos_value *outcome);
/* A raise or an end is being journaled: until that has come out nothing else is decided of the
 * carrier, and whoever reports or asks is to do so again. */
bool home_busy(const struct home_record *h);
/* It ends when a transaction with its row is durable: from here on home_put() writes the end;
 * takes outcome. home_end() when that has come out. */
void home_close(struct home_record *h, enum shell_state state, struct tos_value *outcome);
void home_end(struct kernel *k, struct home_record *h, int rc);
void home_link_up(struct kernel *k, const char *peer);
struct tos_value *home_row(const struct home_record *h);
struct tos_value *outcome_of(struct resident *r); /* {briefcase, trail, fault, log, clones} */
/* Its row is written with the next tick; whoever must know that it is durable commits by himself. */
void home_save_due(struct home_record *h);
/* Its outcome, or its fault, is known. */
bool home_outcome_known(const struct home_record *h);
void home_wait(struct home_record *h, struct request *rq, uint32_t wait_ms); /* takes rq */
void home_waiters_drop(struct kernel *k, const char *client);                /* it is gone */
int home_want(struct kernel *k, struct home_record *h, const char *wanted, struct request *rq);
void home_declared(struct kernel *k, const char *dead, struct tos_value *names);
/* What other kernels know of it, where this home's store was restored. */
void home_told(struct kernel *k, struct home_record *h, const char *where,
	const struct incarnation *e, uint64_t n);
/* No copy is left: its outcome. */
void home_lost(struct kernel *k, struct home_record *h, const char *text);
bool home_is_declared(struct kernel *k, const char *kernel);

/* ---- restored.c: this store or a peer's is older than what was seen of it; clones */
int restored_load(struct kernel *k, struct errmsg *em);
/* Once residents and homes are in memory. */
void restored_loaded(struct kernel *k);
/* From now on nothing of what the store had runs until others have been asked. why: for people. */
void restored_begin(struct kernel *k, const char *why, uint64_t seen_seq, uint64_t seen_boot);
bool restored_pending(const struct kernel *k);
/* Wall time of the last time that this store was known to be old; 0: never. */
int64_t restored_since_ms(const struct kernel *k);
/* Of a carrier loaded from the store: it waits for others' word. */
bool restored_holds_back(const struct kernel *k);
/* It does not start yet: nobody has said what became of it since this store was written. */
bool restored_waits(const struct resident *r);
void restored_confirmed(struct resident *r); /* its home has answered */
void restored_hello(struct kernel *k, const char *peer, struct hello *h);
void restored_link_up(struct kernel *k, const char *peer, const struct hello *h);
/* A peer refused this kernel: another one of its name and key is linked there. */
void restored_clone(struct kernel *k, const char *peer, const char *why);
/* One of two kernels of one name was refused here. */
void restored_clone_refused(
	struct kernel *k, const char *name, const char *address, const char *linked);
/* How far this store is, into what is said to a peer; and what a peer said of its own. */
void restored_stamp(struct kernel *k, struct tos_value *m);
void restored_see(struct kernel *k, const char *peer, const struct tos_value *m);
void restored_tick(struct kernel *k, int64_t now_ms);
/* A record that was signed before this store was restored: 0 it may be taken, ERR_SUPERSEDED its
 * carrier has moved on since, ERR_AGAIN its home is being asked. */
int restored_vet(struct kernel *k, const struct hop *hop, const char *home, const char *name);
/* An offer of departure n was granted. */
void restored_offered(struct kernel *k, const uint8_t id[DIGEST_BYTES], uint64_t n);
void restored_release(struct resident *r);
void known_verb(struct kernel *k, struct request *rq);
struct tos_value *restored_status(const struct kernel *k); /* NULL: nothing to say */

/* ---- backup.c: true if the program was called for that; its exit code */
bool backup_mode(int argc, char **argv, int *code);

/* ---- report.c: the holder tells the home */
/* A resident whose home is this kernel or another has news. */
void home_report(struct resident *r);
/* It began to run. Its home elsewhere hears of that unless it has moved on by then. */
void home_report_soon(struct resident *r);
/* What shows the home that the carrier came here, into the arguments of a report. */
void home_evidence(struct resident *r, struct tos_value *args);
/* It is at that kernel now, which it came to with this n. */
void home_place(struct home_record *h, const char *kernel, uint64_t came);
/* In the transaction that drops the row. */
void home_report_gone(struct store_txn *t, struct resident *r, uint64_t n, const char *dest);
/* A clone was made here: in its transaction, and once that is durable. */
void home_birth_put(struct store_txn *t, const struct resident *r);
void home_birth_send(const struct resident *r);
void home_ended(
	struct store_txn *t, struct resident *r, enum shell_state state, const char *why);
/* The report of its end still waits for the home. */
bool home_ended_waits(struct kernel *k, const char *name);
void home_event(struct kernel *k, const char *home, const char *name, const char *kind,
	const char *state, const char *text);
void reports_send(struct kernel *k, const char *peer); /* NULL: whoever can be reached */

/* ---- control.c, act.c, registrar.c, directory */
void kernel_stop(struct kernel *k);
void registrar_enroll_act(
	struct kernel *k, struct request *rq, const char *name, const struct tos_value *args);
void registrar_remove_act(struct kernel *k, struct request *rq, const char *name);
extern const struct verb control_verbs[], kernel_verbs[], registrar_verbs[];
void act_verb(struct kernel *k, struct request *rq);
/* 0, or the request has been failed: this client may not read. */
int control_may_read(struct kernel *k, struct request *rq);
/* groups.c: host groups and labels */
void groups_act(
	struct kernel *k, struct request *rq, const char *by, const struct tos_value *args);
void groups_verb(struct kernel *k, struct request *rq);
void groups_give(struct kernel *k, struct request *rq);
/* Of a carrier that is here or whose home is here; "" not known. */
const char *carrier_owner(struct kernel *k, const char *name);
void can_verb(struct kernel *k, struct request *rq); /* explain.c */
void drain_load(struct kernel *k);                   /* that it drains lasts over restarts */
void launch_verb(struct kernel *k, struct request *rq);
void name_verb(struct kernel *k, struct request *rq);
int client_up(struct kernel *k, struct link *l, const struct hello *h, struct errmsg *em);
void client_down(struct kernel *k, struct link *l);
void client_origin(struct kernel *k, struct link *l, struct origin *out);
/* watch.c */
void watch_verb(struct kernel *k, struct request *rq);
void watch_event(struct kernel *k, const char *name, struct tos_value *event); /* takes event */
void watch_end(struct kernel *k, const char *name); /* nothing more is to come */
/* A client is gone; all_below: who is that kernel, and all its clients are. */
void watchers_drop(struct kernel *k, const char *who, bool all_below);
/* That kernel says that dest, to which an event was sent, is not there. */
void watch_failed(struct kernel *k, const char *from_kernel, const char *dest);
int registrar_init(struct kernel *k, struct errmsg *em);
/* Its owner or author was revoked: it must not run. */
bool revocation_ends(const struct resident *r);
#define REVOKED_TEXT "the certificate of its owner or author was revoked"
/* a higher number is kept, journaled, acted on */
int revocation_accept(struct kernel *k, struct slice cose, struct errmsg *em);
void directory_register(struct kernel *k);
void directory_learn(struct kernel *k, const char *name, const struct tos_value *addresses);

/* ---- fresh.c: how old the revocation list may be */
void fresh_load(struct kernel *k);
int64_t fresh_age_ms(const struct kernel *k);
/* Carriers may be admitted; else em says why not (ERR_EXPIRED). */
bool fresh_enough(const struct kernel *k, struct errmsg *em);
/* The list is too old but is just being asked about: fn(k, rq) comes when that has come out well,
 * a failure else. False: rq is still the caller's, and there is nothing to wait for. */
bool fresh_wait(struct kernel *k, struct request *rq, verb_fn *fn);
void fresh_answer(struct kernel *k, struct request *rq); /* REVOCATION; takes rq */
void fresh_ask(struct kernel *k, const char *kernel);
void fresh_link_up(struct kernel *k, const char *peer, uint64_t number);
void fresh_tick(struct kernel *k, int64_t now_ms);

/* ---- witness.c: audit chains of peers */
void witness_hello(struct kernel *k, struct hello *h);
void witness_link_up(struct kernel *k, const char *peer, const struct hello *h);
void witness_tick(struct kernel *k, int64_t now_ms);
void witness_answer(struct kernel *k, struct request *rq); /* AUDIT_AT; takes rq */

/* ---- renew.c: this kernel's certificate before it runs out */
void renew_tick(struct kernel *k, int64_t now_ms);

/* ---- upload.c: content by digest */
int upload_chunk(struct kernel *k, struct link *l, const struct chunk *c, struct errmsg *em);
/* The whole content, verified, that this sender sent ahead, or an empty slice. Borrowed until the
 * tick. */
struct slice upload_find(
	struct kernel *k, const uint8_t digest[DIGEST_BYTES], const struct origin *from);
void uploads_tick(struct kernel *k, int64_t now_ms);
/* Send content as chunks over the link of a kernel or of a client (by its full name) as credit
 * allows; done(rc) later. */
typedef void content_sent_fn(struct kernel *k, void *arg, int rc);
int content_send(struct kernel *k, const char *peer, const uint8_t digest[DIGEST_BYTES],
	struct slice content, content_sent_fn *done, void *arg);
/* An answer too large for a frame, to a client or to another kernel's own call: its elements go
 * ahead as chunks, the answer names them. ERR_TOO_LARGE: not possible. */
#define ANSWER_CONTENT "content"
int content_answer(struct kernel *k, const char *dest, uint64_t tag, const char *folder,
	const struct tos_value *elements);
void content_writable(struct kernel *k, struct link *l);
void content_link_down(struct kernel *k, const char *peer);

/* ---- account.c */
int accounts_load(struct kernel *k, struct errmsg *em);
/* It has something here: from now on there is a row of it. */
void account_known(struct kernel *k, const char *principal);
/* A stay begins, or (`comes` false) goes on after a restart; usage so far was charged elsewhere. */
void account_open(struct resident *r, bool comes);
/* The stay ends: charge the owner in this transaction; NULL: soon. */
void account_charge(struct store_txn *t, struct resident *r);
/* What was charged with t NULL. */
void accounts_save(struct kernel *k);
void accounts_tick(struct kernel *k, int64_t now_ms);
/* A row of that owner's has so many bytes now, until then (wall clock; 0: for good); 0 bytes: it
 * is gone. */
enum stored_kind { STORED_RESIDENT = 'r', STORED_HOME = 'h', STORED_CODE = 'c' };
void account_stored(struct kernel *k, enum stored_kind kind, const char *name,
	const char *owner, size_t bytes, int64_t until_ms);
/* Would so many bytes more stay within limits.disk_per_principal? ERR_LIMIT. */
int account_room(struct kernel *k, const char *owner, int64_t more, struct errmsg *em);
int64_t accounts_disk(struct kernel *k);        /* of all */
struct rate *account_share(struct resident *r); /* of its owner's CPU time; NULL: none */
/* May the carrier post so many bytes now? ERR_LIMIT. */
int account_send(struct resident *r, int64_t bytes, struct errmsg *em);
/* A program of the owner's has ended. */
void account_program(struct kernel *k, const char *owner, uint64_t cpu_us, uint64_t peak_bytes,
	int64_t ran_ms);
/* Rows of ACCOUNTS; principal "": of everybody. */
struct tos_value *accounts_value(struct kernel *k, const char *principal);

/* ---- share.c */
void share_open(struct resident *r); /* a stay begins */
void share_used(struct resident *r, int64_t cpu_us);
void shares_tick(struct kernel *k, int64_t now_ms);

/* ---- cost.c: the kernel's work for carriers here is charged to them */
void costs_init(struct kernel *k);
void cost_note(struct resident *r, int64_t us); /* a frame of it took so long */
void costs_tick(struct kernel *k);

/* ---- telemetry.c */
/* A map that says which carrier: name, id, incarnation, and n, the departure it is about. */
struct tos_value *audit_carrier(const struct resident *r, uint64_t n);
/* takes map; t NULL: its own transaction */
void audit_event(
	struct kernel *k, struct store_txn *t, const char *event, struct tos_value *map);
/* The same of a request that is refused; what another kernel brings, so many a second. Takes map. */
void audit_refused(
	struct kernel *k, const struct request *rq, const char *event, struct tos_value *map);
/* For what may follow within a tick; lent, and gone after the next flush. */
struct store_txn *kernel_lazy(struct kernel *k);
void lazy_flush(struct kernel *k);
void late_flush(struct kernel *k); /* and what was submitted for some time later */
void late_soon(struct kernel *k);  /* to be flushed when whoever waits now has been served */
int telemetry_init(struct kernel *k, struct errmsg *em);
void metrics_collect(struct kernel *k);
struct tos_value *log_lines(
	struct kernel *k, const char *name, uint64_t after, size_t most, uint64_t *next);
int properties_init(struct kernel *k, struct errmsg *em);
/* True when nothing new may be admitted because the store or the audit cannot be written. */
bool admission_closed(const struct kernel *k, struct errmsg *em);
void admission_tick(struct kernel *k); /* each second: is there room again? */
