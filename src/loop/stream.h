/*
 * A framed conversation over a connected stream socket: tos-vm and tos-ext children, local
 * clients. Frames are those of wire/frame.h; what is in them is the caller's matter.
 *
 * Callbacks come from the loop, never from within a call made here. In `frame` every function
 * here may be called, stream_close() too.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <uv.h>

#include "base/err.h"
#include "wire/frame.h"

struct stream;

struct stream_callbacks {
	/* One frame without its length; borrowed for the call. */
	void (*frame)(void *arg, struct stream *s, struct slice frame);
	/* Closed for good, called exactly once; s is freed when it returns. rc: 0 after
	 * stream_close(), ERR_CLOSED the other side closed, ERR_TOO_LARGE, ERR_MALFORMED,
	 * ERR_IO, ... */
	void (*closed)(void *arg, struct stream *s, int rc, const char *why);
	/* The queue has become empty. Optional. */
	void (*drained)(void *arg, struct stream *s);
};

/*
 * fd         a connected stream socket; taken over, on failure too
 * max_frame  bytes, the length in front included; 0: FRAME_BYTES_MAX
 * cb         borrowed for good (a static const)
 */
int stream_open(uv_loop_t *loop, int fd, size_t max_frame, const struct stream_callbacks *cb,
	void *arg, struct stream **out, struct errmsg *em);
/* Queue one or more whole frames, lengths in front; written once a loop turn. ERR_FULL when
 * more than the bound (8 MiB) would wait, ERR_CLOSED, ERR_NOMEM: nothing was queued then. */
int stream_send(struct stream *s, const void *p, size_t n);
/* The same for one frame at once, with a copy of this descriptor. ERR_AGAIN: something is queued
 * before it, or the socket is full; nothing was sent. The descriptor stays the caller's. */
int stream_send_fd(struct stream *s, const void *p, size_t n, int fd);
size_t stream_queued(const struct stream *s); /* bytes */
void stream_set_max_queue(struct stream *s, size_t bytes);
/* No more frames until resumed: neither those that have come in already. */
void stream_pause(struct stream *s);
void stream_resume(struct stream *s);
/* No frame after this; `closed` follows from the loop, with rc 0. What is queued is dropped. */
void stream_close(struct stream *s);
/* The same, but what is queued is still written, for at most linger_ms. */
void stream_finish(struct stream *s, uint32_t linger_ms);
void *stream_data(const struct stream *s); /* the arg */
