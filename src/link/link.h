/*
 * Links between kernels (TCP, mutual TLS 1.3) and connections of local clients (Unix socket,
 * peer credentials): one framed conversation each. Runs on the kernel's loop.
 *
 * Either side may dial; whatever link is open is used. Names are looked up by the kernel's
 * resolver callback. hello comes first on both sides; until it is over nothing else is
 * accepted. Who dialled speaks first; who was dialled answers with its own hello once it has
 * accepted, or with BYE. Credit starts at nothing: each hello is followed by a credit frame (a
 * client may wait for our hello before it sends its own credit). A peer that breaks the format
 * is told why (BYE), closed, named in the log, counted.
 *
 * There is one link between two kernels. When both dial at once, the one dialled by the smaller
 * name stays. A peer that dials again replaces its old link if that one is of an earlier boot,
 * silent, or known to be lost at the other end; else it is refused with ERR_EXISTS.
 *
 * Callbacks come from the loop, never from within a call made here, and any function may be
 * called in them.
 */
#pragma once

#include <uv.h>

#include "base/buf.h"
#include "seal/seal.h"
#include "wire/frame.h"

struct links;
struct link;

#define LINK_KINDS 4
enum link_kind {
	LINK_KERNEL,
	LINK_CLIENT, /* TLS, a principal's certificate */
	LINK_LOCAL,  /* Unix socket */
	LINK_JOINER, /* TLS, a key without a certificate: may only talk to inbox Registrar */
};
enum link_class {
	LINK_POSTS,
	LINK_CHUNKS,
	LINK_CONTROL /* no credit needed: want, lack, vouch */
};

struct link_callbacks {
	/* Fill our side of the hello just before it is sent; versions are filled in already.
	 * peer_name: the certified kernel name, or what link_set_name() gave a client in `up`.
	 * For those that dialled us it comes after `up`. */
	void (*hello)(void *arg, const char *peer_name, struct hello *out);
	/* The conversation is open: peer identified and hello exchanged. Return a negative code
	 * to refuse it. For LINK_KERNEL `name` is the certified kernel name; for clients the
	 * name is given later by link_set_name(). */
	int (*up)(void *arg, struct link *l, const struct hello *h, struct errmsg *em);
	/* One frame (POST, WANT, CHUNK, LACK, VOUCH; the rest is handled here). A negative
	 * return closes the link. */
	int (*frame)(void *arg, struct link *l, struct slice frame, struct errmsg *em);
	/* Closed for good; called once for each up. */
	void (*down)(void *arg, struct link *l, int rc, const char *why);
	/* A dial came to nothing: name, code. Called once for each links_dial() that does not
	 * end in up; further tries go on with back-off while links_want() says so. */
	void (*dial_failed)(void *arg, const char *name, int rc, const char *why);
	/* Where is that kernel? Write up to `most` addresses "ip-or-host:port"; return how
	 * many. */
	size_t (*resolve)(void *arg, const char *name, char (*out)[128], size_t most);
	/* Two kernels of one name and key: the one at `address` was refused (ERR_CLONE), the one
	 * at `linked` keeps its link. NULL: nobody is told. */
	void (*clone)(void *arg, const char *name, const char *address, const char *linked);
};

struct links_config {
	char name[CERT_NAME_MAX + 1];
	uint32_t handshake_ms;  /* 10 s: connect, TLS and hello together */
	uint32_t ping_ms;       /* 10 s idle */
	uint32_t silent_ms;     /* 30 s without anything: dead */
	size_t queue_bytes;     /* 8 MiB waiting to be sent on one link */
	uint32_t credit_posts;  /* 1024: what a peer may send before link_consumed() */
	uint32_t credit_chunks; /* 64 */
	size_t max_links;       /* 1024 kernels */
	size_t max_handshakes;  /* 64 not finished yet, each way */
	size_t max_clients;     /* 256 clients, and of one local user a quarter of that */
	size_t max_joiners; /* 16: anybody can be one; and not for longer than joiner_ms, 30 s */
	uint32_t joiner_ms;
	uint32_t version_min, version_max; /* of the protocol: what we speak, or tests say so */
};
void links_config_defaults(struct links_config *c);

int links_new(uv_loop_t *loop, const struct links_config *c, struct tls_context *tls,
	const struct link_callbacks *cb, void *arg, struct links **out, struct errmsg *em);
/* Takes a bound TCP socket and listens; up to 16 of them. */
int links_listen_tcp(struct links *ls, int fd, struct errmsg *em);
/* Binds and listens on a Unix socket, replacing a stale one; mode 0666, the peer's credentials
 * decide. */
int links_listen_local(struct links *ls, const char *path, struct errmsg *em);
/* Close everything; `closed` is called once from the loop. */
void links_close(struct links *ls, void (*closed)(void *arg), void *arg);

/* Begin to connect unless there is a link or a dial already. ERR_NAME (our own, or none),
 * ERR_LIMIT too many dials at once, ERR_CLOSED. */
int links_dial(struct links *ls, const char *name);
/* Keep a link to this kernel up (reconnecting with back-off and jitter, 0.1 s .. 30 s), or
 * stop. */
void links_want(struct links *ls, const char *name, bool want);
struct link *links_find(struct links *ls, const char *name); /* an open one, or NULL */
/* Iterate over open links: NULL starts. */
struct link *links_next(struct links *ls, struct link *after);

/* Queue one encoded frame (with its length in front). ERR_FULL when the peer gave no credit or
 * the queue is at its bound; ERR_CLOSED. Posts and chunks use up the peer's credit. */
int link_send(struct link *l, enum link_class cls, const void *frame, size_t n);
/* We are done with n received posts or chunks: the peer may send as many more. */
void link_consumed(struct link *l, enum link_class cls, uint32_t n);
/* Bytes of chunks that may be queued now; the `writable` callback, if set, is called when it
 * rises from 0. It is never called from within link_send(). */
uint32_t link_chunk_room(const struct link *l);
void link_on_writable(struct link *l, void (*fn)(void *arg, struct link *l), void *arg);
/* sends BYE; down() follows from the loop */
void link_close(struct link *l, int rc, const char *why);

enum link_kind link_kind(const struct link *l);
const char *link_name(const struct link *l);             /* "host1", "host0/client/7" */
void link_set_name(struct link *l, const char *name);    /* clients */
const struct cert_info *link_cert(const struct link *l); /* NULL for LINK_LOCAL */
uid_t link_uid(const struct link *l);                    /* LINK_LOCAL */
pid_t link_pid(const struct link *l);
/* the peer's; slices are good as long as l */
const struct hello *link_hello(const struct link *l);
uint32_t link_version(const struct link *l);    /* of the protocol, as agreed */
bool link_dialled(const struct link *l);        /* by us */
int64_t link_heard_ms(const struct link *l);    /* when its last bytes came; monotonic */
const char *link_address(const struct link *l); /* "192.0.2.1:21212", "unix" */
void *link_data(const struct link *l);
void link_set_data(struct link *l, void *data);
struct link_stats {
	uint64_t frames_in, frames_out, bytes_in, bytes_out;
	uint64_t since_ms; /* its age: ms since it went up */
	int64_t rtt_us;    /* of the last ping; -1 unknown */
	size_t queued;
};
void link_stats(const struct link *l, struct link_stats *out);
/* What went over connections that came up; pings and what answers them are frames too. */
struct links_flow {
	uint64_t frames_in, frames_out, pings_in, pings_out, bytes_in, bytes_out;
};
struct links_stats {
	uint64_t accepted, dialled, failed, refused, malformed, silent, handshake_timeouts;
	struct links_flow flow[LINK_KINDS]; /* those that are closed included */
};
void links_stats(const struct links *ls, struct links_stats *out);
