/*
 * What a program has written, kept until its end: of much the beginning and the end.
 */
#include "executor.h"

struct tos_value *text_or_bytes(const void *p, size_t n)
{
	struct tos_value *v = tos_text_n(p, n);

	return v ? v : tos_bytes(p, n);
}

void capture_add(struct capture *c, const uint8_t *p, size_t n)
{
	c->total += n;
	if (!c->head) {
		c->head = malloc(c->most ? c->most : 1);
		c->tail = malloc(c->most ? c->most : 1);
	}
	if (!c->head || !c->tail)
		return; /* counted as cut */
	while (n) {
		size_t part;

		if (c->n_head < c->most) {
			part = c->most - c->n_head < n ? c->most - c->n_head : n;
			memcpy(c->head + c->n_head, p, part);
			c->n_head += part;
		} else if (!c->most) {
			return;
		} else {
			part = c->most - c->tail_at < n ? c->most - c->tail_at : n;
			memcpy(c->tail + c->tail_at, p, part);
			c->tail_at = (c->tail_at + part) % c->most;
			if (c->n_tail < c->most)
				c->n_tail +=
					part < c->most - c->n_tail ? part : c->most - c->n_tail;
		}
		p += part;
		n -= part;
	}
}

size_t capture_held(const struct capture *c)
{
	return c->n_head + c->n_tail;
}

uint64_t capture_cut(const struct capture *c)
{
	return c->total - c->n_head - c->n_tail;
}

struct tos_value *capture_value(const struct capture *c)
{
	size_t n = c->n_head + c->n_tail, first;
	uint8_t *all;
	struct tos_value *v;

	if (!n)
		return tos_text("");
	all = malloc(n);
	if (!all)
		return NULL;
	memcpy(all, c->head, c->n_head);
	if (c->n_tail == c->most && c->most) { /* a ring that is full begins where it goes on */
		first = c->most - c->tail_at;
		memcpy(all + c->n_head, c->tail + c->tail_at, first);
		memcpy(all + c->n_head + first, c->tail, c->tail_at);
	} else {
		memcpy(all + c->n_head, c->tail, c->n_tail);
	}
	v = text_or_bytes(all, n);
	free(all);
	return v;
}

void capture_free(struct capture *c)
{
	free(c->head);
	free(c->tail);
	memset(c, 0, sizeof(*c));
}
