/*
 * A connected byte stream on a libuv loop: TCP, or any stream socket given as a descriptor.
 *
 * What is sent is collected and written once a loop turn, one write at a time. Closing is
 * counted: every handle is closed once, and after the last one `closed` is called, exactly
 * once, and the conn freed.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

#include "base/buf.h"
#include "base/err.h"

struct conn;

struct conn_callbacks {
	/* The connection that conn_connect() began is there. Optional. */
	void (*connected)(void *arg, struct conn *c);
	/* Bytes came in; borrowed for the call. */
	void (*bytes)(void *arg, struct conn *c, const uint8_t *p, size_t n);
	/* Once in each turn after conn_kick(), and after each finished write, while nothing is
	 * being written: append to `out` what shall be written next. Optional. */
	void (*turn)(void *arg, struct conn *c, struct buf *out);
	/* Closed for good; the conn is freed when this returns. `why` is "" where rc says it
	 * all. */
	void (*closed)(void *arg, struct conn *c, int rc, const char *why);
};

enum conn_kind { CONN_TCP, CONN_UNIX };

/* Unconnected; callbacks and arg are kept, cb is borrowed for good. Ends with conn_close(). */
int conn_new(uv_loop_t *loop, enum conn_kind kind, const struct conn_callbacks *cb, void *arg,
	struct conn **out, struct errmsg *em);
/* Take over a connected descriptor (only on success) and begin to read. */
int conn_open(struct conn *c, int fd, struct errmsg *em);
/* Take the next connection of a listener of the same kind and begin to read. */
int conn_accept(struct conn *c, uv_stream_t *listener, struct errmsg *em);
/* `connected` or `closed` follows from the loop. */
int conn_connect(struct conn *c, const struct sockaddr *sa, struct errmsg *em);

/* Queue bytes. ERR_FULL above max_queue, ERR_CLOSED. */
int conn_send(struct conn *c, const void *p, size_t n);
/* Room for so much; the default is 8 MiB. */
void conn_set_max_queue(struct conn *c, size_t bytes);
/* Call `turn` in this loop turn or the next. */
void conn_kick(struct conn *c);
/* Bytes queued and not yet taken by the operating system. */
size_t conn_queued(const struct conn *c);
/* Bytes that the operating system has taken since the start: stands still when the peer doesn't
 * read. */
uint64_t conn_taken(const struct conn *c);

void conn_pause(struct conn *c);  /* read no more; what the peer sends stays in the socket */
void conn_resume(struct conn *c); /* read on */

/* Close at once; what is queued is dropped. `closed` follows from the loop. A second call does
 * nothing. */
void conn_close(struct conn *c, int rc, const char *why);
/* Write what is queued (and what `turn` gives), say end of file, wait for the peer's, at most
 * linger_ms, then close. `bytes` is not called any more. */
void conn_finish(struct conn *c, int rc, const char *why, uint32_t linger_ms);
bool conn_closing(const struct conn *c); /* conn_close or conn_finish was called */
int conn_fd(const struct conn *c);       /* -1 if there is none */

/* ERR_CLOSED, ERR_UNREACHABLE, ERR_TIMEOUT, ... for a libuv code. */
int err_from_uv(int uv);
