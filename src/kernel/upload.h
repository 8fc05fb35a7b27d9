/* Content by digest, in chunks over a link (upload.c). */
#pragma once

#include "kernel/kernel.h"

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
