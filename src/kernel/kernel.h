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
	/* name -> struct origin: carriers for which it vouched, and clients (struct introduced) */
	struct map *vouched_for;
	uint64_t boot_count;
	uint8_t boot_nonce[16];
	bool boot_known;
	unsigned wants; /* reasons to keep the link up */
	/* audit rows and journaled refusals that it caused */
	struct log_rate rate_refused, rate_answers;
	/* posts to carriers: ours there, theirs here (core/courier.h) */
	struct courier_out out;
	struct courier_in in;
	/* of those it vouched for: clients (struct introduced), and those that made room for others */
	struct list introduced;
	unsigned n_introduced;
	struct map *forgotten; /* name -> int64_t, wall clock: until when */
	unsigned n_streams;    /* that wait for the link, or for room on it */
	bool say_due;          /* peer_took() has something to say at the end of this turn */
	int64_t lost_ms;       /* when the last link was lost; 0: never */
	bool given_up;         /* what went over it */
	int64_t again_at_ms, again_ms; /* when it is dialled again, and how long that was */
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
	struct list answers_late; /* arrivals that are answered when their carriers run */
	uv_timer_t answer_timer;
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
	/* what the room of carriers has others do, set by them at the start */
	void (*stay_over)(struct kernel *k, const char *carrier); /* programs.c: or it failed */
	/* loading.c: NULL, or the home's copy; and that all rows of somebody's are counted */
	const struct blob *(*ticket_kept)(const struct kernel *k, const char *carrier);
	void (*count_stored)(struct kernel *k);
	/* tables */
	struct map *peers;     /* name -> struct peer */
	struct map *residents; /* name -> struct resident */
	struct map *homes;     /* name -> struct home_record: live, and ended of late */
	bool homes_due;        /* some are still to be read, from that row on (loading.c) */
	int64_t homes_at, homes_again_ms;
	struct list homes_open; /* of them, those that the tick looks at each time */
	struct list homes_over; /* and those that have ended and only wait to be forgotten */
	int64_t homes_over_at_ms;
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
		*fast_taken;   /* id, e, n -> struct fast_taken: accepted, and in memory only */
	struct map *gone_late; /* id -> struct gone_late: of departures, not yet on the disk */
	struct store_txn *lazy; /* what nobody waits for: committed by the tick */
	struct list signing;    /* struct resident */
	unsigned n_lazy;
	struct restored *restored;
	int64_t restored_ms; /* wall: when this store was last known to be old; 0 never. restored.c */
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
	uv_timer_t late_timer;      /* for what was submitted to the store for later */
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

/* The next pause before what failed is tried again: 0 first; for ever is not as often as at first. */
static inline int64_t pause_longer(int64_t pause_ms, int64_t first_ms, int64_t most_ms)
{
	int64_t next = pause_ms ? 2 * pause_ms : first_ms;

	return next < most_ms ? next : most_ms > first_ms ? most_ms : first_ms;
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

/* ---- backup.c: true if the program was called for that; its exit code */
bool backup_mode(int argc, char **argv, int *code);

/* ---- act.c: signed acts */
void act_verb(struct kernel *k, struct request *rq);
void drain_load(struct kernel *k); /* that it drains lasts over restarts */
/* Of a carrier that is here or whose home is here; "" not known. */
const char *carrier_owner(struct kernel *k, const char *name);

/* ---- revoke.c: there is a new revocation list, and what runs or is linked by its leave ends */
void kernel_revoked(struct kernel *k);

/* ---- control.c */
void kernel_stop(struct kernel *k);
extern const struct verb control_verbs[], kernel_verbs[];
/* 0, or the request has been failed: this client may not read. */
int control_may_read(struct kernel *k, struct request *rq);
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

/* ---- telemetry.c */
/* A map that says which carrier: name, id, incarnation, and n, the departure it is about. */
struct tos_value *audit_carrier(const struct resident *r, uint64_t n);
/* takes map; t NULL: its own transaction */
void audit_event(
	struct kernel *k, struct store_txn *t, const char *event, struct tos_value *map);
/* The same of a request that is refused; what another kernel brings, so many a second. Takes map. */
void audit_refused(
	struct kernel *k, const struct request *rq, const char *event, struct tos_value *map);
/* An audit record that another kernel causes by what it sends: so many a second, the rest is
 * counted. Takes m. kernel "": a local sender. */
void audit_refusal(struct kernel *k, struct store_txn *t, const char *kernel, const char *event,
	struct tos_value *m);
/* May one more refusal of what that kernel sent be journaled? */
bool refusal_may_be_kept(struct kernel *k, const char *kernel);
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
