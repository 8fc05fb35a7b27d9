/* Bytes, borrowed or owned: see slice.h. */
#include "wire/slice.h"

#include <stdlib.h>

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

void blob_set(struct blob *b, struct slice s)
{
	uint8_t *copy = mem_dup(s.p, s.n);

	free(b->p);
	b->p = copy;
	b->n = s.n;
}

void blob_free(struct blob *b)
{
	free(b->p);
	*b = (struct blob){ NULL, 0 };
}
