/* What the files of this room share; nobody else includes it. */
#pragma once

#include <uv.h>

#include "base/list.h"
#include "link/link.h"
#include "link/talk.h"
#include "loop/conn.h"

#define LINKS_TAG 0x6c6e6b73u
#define LINK_TAG  0x6c696e6bu
#define PEER_TAG  0x70656572u

#define LINK_TARGETS   8 /* addresses tried for one dial */
#define LINK_ADDRESSES 4 /* of one host name */
#define LINK_LISTENERS 16
#define LINK_LINGER_MS 1000 /* last words */
#define LINK_CHUNK_ROOM                                                                        \
	(1u << 20) /* chunks do not queue beyond this, so that posts are not far behind */

/* Encrypted and written at a time. */
#ifdef TOS_HOSTILE
#define LINK_RECORD 1000u
#else
#define LINK_RECORD (256u << 10)
#endif

enum link_state {
	LINK_DIALLING, /* looking for an address, connecting */
	LINK_SECURING, /* TLS */
	LINK_GREETING, /* hello */
	LINK_PARKED,   /* the peer's hello came while our own dial to it is as far */
	LINK_UP,
	LINK_CLOSING, /* last words, closing handles */
	LINK_DEAD,    /* nothing is left but the memory, and what is to be told */
};

enum link_event {
	LINK_EV_CONNECTED,
	LINK_EV_SECURED,
	LINK_EV_NEXT, /* give this address up, try the next */
	LINK_EV_PARK,
	LINK_EV_ACCEPTED,
	LINK_EV_END,
	LINK_EV_GONE, /* the last handle is closed */
};

/* A kernel that we are linked to, dial, or want a link with. */
struct peer {
	uint32_t tag;
	struct list node;
	char name[CERT_NAME_MAX + 1];
	bool want;
	bool asked;  /* links_dial() waits for an answer */
	bool failed; /* which is no, to be told */
	int rc;
	char why[256];
	struct link *up, *dial;
	uint32_t backoff_ms;
	int64_t retry_at_ms; /* 0: none */
};

struct links {
	uint32_t tag;
	uv_loop_t *loop;
	struct links_config config;
	struct tls_context *tls;
	const struct link_callbacks *cb;
	void *arg;
	struct timer *tick;
	uint64_t tick_in_ms; /* shortest wait that this tick found so far */
	struct list all, peers;
	struct map *by_name; /* peers */
	uv_tcp_t tcp[LINK_LISTENERS];
	size_t n_tcp;
	uv_pipe_t local;
	unsigned handles; /* listeners not closed yet */
	bool local_open;
	char local_path[256];
	bool closing;
	void (*closed)(void *arg);
	void *closed_arg;
	size_t n_links, n_clients, n_joiners; /* up */
	struct links_stats stats;
};

struct link {
	uint32_t tag;
	struct list node;
	struct links *ls;
	enum link_kind kind;
	enum link_state state;
	bool dialled, over_tls;
	bool began; /* the dial */
	bool counted, told_up, told_down;
	char wanted[CERT_NAME_MAX + 1]; /* the name that was dialled */
	char name[NAME_BYTES_MAX + 1];
	char address[160];
	/* transport */
	struct conn *conn;
	unsigned n_conns; /* not closed yet, given up ones too */
	struct tls_session *tls;
	bool tls_closed;
	struct talk talk;
	/* addresses */
	char targets[LINK_TARGETS][128];
	size_t n_targets, target;
	struct sockaddr_storage found[LINK_ADDRESSES];
	size_t n_found, next_found;
	uint16_t port;
	uv_getaddrinfo_t lookup;
	bool looking;
	/* time, ms of clock_ms() */
	int64_t deadline_ms, try_until_ms;
	int64_t since_ms, in_ms, suspect_ms, moved_ms;
	uint64_t moved; /* conn_taken() at moved_ms */
	/* who */
	struct cert_info cert;
	uid_t uid;
	pid_t pid;
	struct hello hello;
	struct buf hello_bytes; /* what the hello's slices point to */
	char domain[65];        /* ours, as said in our hello */
	uint32_t our_min, our_max;
	uint32_t version;
	/* why it ended */
	int rc;
	char why[256];
	/* the user's */
	void *data;
	void (*writable)(void *arg, struct link *l);
	void *writable_arg;
	bool blocked; /* no room for chunks */
	uint64_t bytes_in, bytes_out;
};

/* link.c: what went over it */
void link_flow_add(const struct link *l, struct links_flow *f);

/* links.c */
void links_wake(struct links *ls); /* run the tick in the next turn */
void links_due(struct links *ls, int64_t in_ms);
struct peer *links_peer(struct links *ls, const char *name);
struct peer *links_peer_get(struct links *ls, const char *name); /* made if needed */
void links_tell_downs(struct links *ls);
/* l was this peer's link or our dial to it: note it, and plan the next try where one is wanted.
 */
void links_dial_ended(struct links *ls, struct link *l);

/* dial.c */
void dial_begin(struct link *l);
void dial_next(struct link *l, int rc, const char *why); /* what the last address came to */

/* link.c */
struct link *link_new(struct links *ls, enum link_kind kind, bool over_tls);
void link_free(struct link *l);
void link_event(struct link *l, enum link_event ev);
bool link_event_allowed(enum link_state from, enum link_event ev, enum link_state *to);
void link_connected(struct link *l); /* dialled or accepted: TLS or hello begins */
int link_decide(
	struct link *l, struct errmsg *em); /* hello is complete, maybe for a second time */
/* The end, with last words where the peer can hear them. */
void link_end(struct link *l, int rc, const char *why);
void link_refuse(struct link *l, int rc, const char *why); /* the same, logged and counted */
void link_tick(struct link *l, int64_t now_ms);
extern const struct conn_callbacks link_conn_callbacks;
