/* Posts that are kept: held for a carrier that is here, or in the stream to one that is not. */
#pragma once

#include "core/courier.h"
#include "kernel/kernel.h"

struct stream_queue;

struct kept_post {
	struct list node; /* in a carrier's `held`, or in its stream */
	struct courier_item item;
	struct stream_queue *stream;
	int64_t deadline_at_ms;
	struct origin from;
	struct post post; /* slices into bytes */
	size_t n_bytes;
	bool travels; /* held, and in the envelope of the departure under way */
	uint8_t bytes[];
};
/* NULL without memory. */
struct kept_post *kept_post_new(
	struct kernel *k, const struct origin *from, const struct post *p);
/* What a post counts for where bytes are bounded. */
size_t kept_post_cost(const struct post *p);
