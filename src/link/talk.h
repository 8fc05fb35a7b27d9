/*
 * One conversation without I/O: which frame may come when, credit, heartbeats, and what waits
 * to be sent. Bytes in, frames out; TLS, sockets and timers are link.c's. doc/protocol.md,
 * "Links".
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "wire/frame.h"

enum talk_state {
	TALK_HELLO,  /* the peer's hello must come next */
	TALK_CREDIT, /* and then its credit */
	TALK_HELD,   /* it came; our decision is not made: the peer has to wait */
	TALK_OPEN,
	TALK_OVER, /* nothing is read any more */
};

enum talk_class { TALK_POSTS, TALK_CHUNKS, TALK_CLASSES };

struct talk_callbacks {
	/* The peer's hello; slices borrow. Negative: refused. */
	int (*hello)(void *arg, const struct hello *h, struct errmsg *em);
	/* Hello is complete on the peer's side: talk_open() now, or return ERR_AGAIN and do it
	 * later; else a refusal. */
	int (*ready)(void *arg, struct errmsg *em);
	/* POST, WANT, CHUNK, LACK, VOUCH. Negative: the conversation is over. */
	int (*frame)(void *arg, struct slice frame, struct errmsg *em);
	/* The peer gave credit. */
	void (*credit)(void *arg);
};

struct talk {
	enum talk_state state;
	bool credit_first; /* the peer's credit is a part of its hello (kernels) */
	const struct talk_callbacks *cb;
	void *arg;
	struct frame_reader in; /* append received bytes to in.in, then talk_feed() */
	struct buf out;         /* frames not yet given to the transport, from out_at on */
	size_t out_at, out_max;
	uint32_t may_send[TALK_CLASSES];    /* what the peer allows us */
	uint32_t may_receive[TALK_CLASSES]; /* what we allow the peer */
	uint32_t owed[TALK_CLASSES];        /* dealt with, not yet said so */
	uint32_t window[TALK_CLASSES];
	uint64_t ping_number;
	int64_t ping_sent_us, ping_sent_ms, in_us;
	int64_t rtt_us; /* -1 unknown */
	uint64_t frames_in, frames_out;
	uint64_t pings_in, pings_out; /* of them, and what answers pings */
	bool peer_bye;                /* the peer said goodbye: its code and text */
	int peer_rc;
};

void talk_init(struct talk *t, const struct talk_callbacks *cb, void *arg, size_t out_max,
	uint32_t window_posts, uint32_t window_chunks);
void talk_fini(struct talk *t);

/*
 * Deal with every whole frame in t->in. 0: go on. ERR_CLOSED with peer_bye: the peer's reason
 * is in em. Else the peer broke the rules or a callback said no: tell it with talk_bye() and
 * close. now: clock_us().
 */
int talk_feed(struct talk *t, int64_t now_us, struct errmsg *em);
void talk_open(struct talk *t); /* frames may flow */

/* Our hello and first credit go in front of whatever waits: they are the first that the peer
 * sees. */
void talk_say_hello(struct talk *t, const struct hello *h);
/* Queue a whole frame. class TALK_CLASSES: no credit needed. ERR_FULL, ERR_CLOSED,
 * ERR_TOO_LARGE, ERR_NOMEM. */
int talk_send(struct talk *t, enum talk_class cls, const void *frame, size_t n);
void talk_consumed(struct talk *t, enum talk_class cls, uint32_t n);
void talk_ping(struct talk *t, int64_t now_us);
/* Last words; the state becomes TALK_OVER. */
void talk_bye(struct talk *t, int rc, const char *text);

/* What waits to be sent, at most `most` bytes of it; then say how much was taken. */
struct slice talk_pending(const struct talk *t, size_t most);
void talk_taken(struct talk *t, size_t n);
size_t talk_queued(const struct talk *t);
