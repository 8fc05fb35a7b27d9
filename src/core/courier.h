/*
 * Numbered posts between two kernels: bookkeeping of both ends, without I/O or clock.
 *
 * The sender numbers the posts for carriers at one peer, in one ascending row, and keeps each
 * until the peer has said that it was dealt with: one `taken` answers all up to a number, and names
 * those that failed. What was on its way when the link broke is sent again with its number over
 * the next link to the same boot of the peer, and dealt with once.
 *
 * A post that fails because the carrier is not there breaks the row of its sender and carrier:
 * those behind it that were sent before the sender heard of it fail likewise, so that all of them
 * can be sent elsewhere in order. doc/protocol.md, "Posts to carriers".
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/list.h"
#include "wire/frame.h"

/* ---- the sender's end */

struct courier_item {
	struct list node;
	uint64_t seq; /* 0: not on its way */
	size_t bytes;
};
struct courier_out {
	uint64_t next;      /* the last number given */
	uint64_t seen;      /* the highest number in a `taken` */
	struct list flying; /* struct courier_item, by number */
	size_t n, bytes;
};
void courier_out_init(struct courier_out *out);
/* Number it; the caller keeps it until it is landed. */
void courier_out_add(struct courier_out *out, struct courier_item *it, size_t bytes);
/* It is not on its way any more. */
void courier_out_land(struct courier_out *out, struct courier_item *it);
/* A `taken` behind its type. fn for each item that it answers, which has landed then; text is
 * good for the call. ERR_MALFORMED: it answers what was never sent, or rows are out of order. */
typedef void courier_landed_fn(void *arg, struct courier_item *it, int rc, const char *text);
int courier_out_taken(struct courier_out *out, struct cbor_cursor *c, courier_landed_fn *fn,
	void *arg, struct errmsg *em);

/* ---- the receiver's end */

#define COURIER_FAILURES_MAX 1024 /* that the sender has not confirmed to have heard of */

enum courier_verdict {
	COURIER_NEW,    /* deal with it, then courier_in_done() */
	COURIER_REPEAT, /* it was dealt with before */
	COURIER_BEHIND, /* behind one that failed: it has failed now, too */
};
struct courier_in {
	uint64_t taken;       /* the highest number dealt with */
	uint64_t said;        /* and said so */
	struct list failures; /* struct courier_failure, by number */
	size_t n_failures, n_breaks;
	bool failed; /* one that nobody was told of */
};
void courier_in_init(struct courier_in *in);
void courier_in_fini(struct courier_in *in); /* may be used again: another boot of the peer */
/* row: what the order holds for, sender and carrier. ERR_LIMIT: the peer has more on its way than
 * it may. */
int courier_in_post(struct courier_in *in, uint64_t seq, uint64_t seen, struct slice sender,
	struct slice carrier, enum courier_verdict *out);
/* rc 0: delivered. breaks: the carrier is not there. */
void courier_in_done(struct courier_in *in, uint64_t seq, int rc, const char *text, bool breaks,
	struct slice sender, struct slice carrier);
/* Something to say. */
bool courier_in_due(const struct courier_in *in);
/* Over a new link: what was said on the old one may have been lost. */
void courier_in_say_again(struct courier_in *in);
/* Append the frame `taken`. */
void courier_in_say(struct courier_in *in, struct buf *frame);
/* It was not sent after all. */
void courier_in_unsaid(struct courier_in *in);
