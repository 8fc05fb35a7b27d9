/* Lines of a carrier: see lines.h. */
#include "kernel/carrier/lines.h"

#include <string.h>

#include "base/mem.h"
#include "wire/tree.h"

#define LINES_BYTES_MAX ((size_t)256 << 20)

void lines_init(struct lines *l)
{
	*l = (struct lines){ NULL, 0, 0, NULL };
}

void lines_fini(struct lines *l)
{
	free(l->before);
	tos_value_free(l->list);
	*l = (struct lines){ NULL, 0, 0, NULL };
}

size_t lines_count(const struct lines *l)
{
	return l->n_before + tos_len(l->list);
}

void lines_push(struct lines *l, struct tos_value *v)
{
	if (!l->list)
		l->list = tos_array();
	tos_push(l->list, v);
}

void lines_push_encoded(struct lines *l, struct slice line)
{
	struct tos_value *v = NULL;
	uint8_t *p;

	if (tos_len(l->list) > 0) {
		if (tos_decode(line.p, line.n, LINES_BYTES_MAX, &v) == 0)
			lines_push(l, v);
		return;
	}
	p = mem_try_resize(l->before, l->before_bytes + line.n);
	if (!p)
		return; /* as a tree that could not be made */
	memcpy(p + l->before_bytes, line.p, line.n);
	l->before = p;
	l->before_bytes += line.n;
	l->n_before++;
}

int lines_load(struct lines *l, struct slice array)
{
	struct cbor_cursor c;
	uint64_t n;
	size_t left;

	cbor_init(&c, array.p, array.n);
	n = cbor_open_array_max(&c, array.n);
	if (c.rc < 0)
		return c.rc;
	left = (size_t)(c.end - c.p);
	lines_fini(l);
	lines_init(l);
	l->before = left ? mem_dup(c.p, left) : NULL;
	l->before_bytes = left;
	l->n_before = (size_t)n;
	return 0;
}

static int list_encode(const struct lines *l, struct buf *b)
{
	int rc = 0;

	for (size_t i = 0; i < tos_len(l->list) && rc == 0; i++)
		rc = value_put(b, tos_at(l->list, i));
	return rc;
}

int lines_encode(const struct lines *l, struct buf *b)
{
	cbor_put_array(b, lines_count(l));
	if (l->before_bytes)
		buf_add(b, l->before, l->before_bytes);
	return list_encode(l, b);
}

struct tos_value *lines_all(struct lines *l)
{
	AUTOBUF b = BUF_MAX(LINES_BYTES_MAX);
	struct tos_value *all = NULL;

	if (l->n_before && lines_encode(l, &b) == 0 &&
		tos_decode(b.data, b.len, LINES_BYTES_MAX, &all) == 0) {
		lines_fini(l);
		l->list = all;
	}
	if (!l->list)
		l->list = tos_array();
	return l->list;
}
