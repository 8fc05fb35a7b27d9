/* Bytes, borrowed or owned: see slice.h. */
#include "wire/slice.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

bool slice_equal(struct slice a, struct slice b)
{
	return a.n == b.n && (a.n == 0 || memcmp(a.p, b.p, a.n) == 0);
}

void slice_copy_text(struct slice s, char *out, size_t cap)
{
	size_t n = s.n < cap ? s.n : cap - 1;

	if (n)
		memcpy(out, s.p, n);
	out[n] = 0;
}

/* Before the bytes: how many blobs have them. */
struct blob_head {
	size_t refs;
	uint8_t bytes[];
};

static struct blob_head *blob_head(const struct blob *b)
{
	return b->p ? (struct blob_head *)(uintptr_t)(b->p - offsetof(struct blob_head, bytes))
		    : NULL;
}

static void blob_drop(struct blob_head *h)
{
	if (h && --h->refs == 0)
		free(h);
}

void blob_set(struct blob *b, struct slice s)
{
	struct blob_head *before = blob_head(b);
	struct blob_head *h = mem_raw(sizeof(*h) + s.n + 1);

	h->refs = 1;
	if (s.n)
		memcpy(h->bytes, s.p, s.n);
	h->bytes[s.n] = 0;
	*b = (struct blob){ h->bytes, s.n };
	blob_drop(before); /* s may be a part of it */
}

void blob_share(struct blob *b, const struct blob *of)
{
	struct blob_head *before = blob_head(b), *h = blob_head(of);

	if (h)
		h->refs++;
	*b = *of;
	blob_drop(before);
}

void blob_set_like(struct blob *b, struct slice s, const struct blob *same)
{
	if (same && same->p && slice_equal(s, blob_slice(same)))
		blob_share(b, same);
	else
		blob_set(b, s);
}

void blob_free(struct blob *b)
{
	blob_drop(blob_head(b));
	*b = (struct blob){ NULL, 0 };
}
