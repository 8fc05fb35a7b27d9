/* The chain of hop records: see records.h. */
#include "wire/records.h"

#include <tos/value.h>

#include "base/err.h"
#include "base/mem.h"

#define RECORDS_BYTES_MAX ((size_t)256 << 20)

void records_init(struct records *r)
{
	*r = (struct records){ .bytes = BUF_MAX(RECORDS_BYTES_MAX) };
}

void records_fini(struct records *r)
{
	buf_fini(&r->bytes);
	free(r->list);
	records_init(r);
}

struct slice records_at(const struct records *r, size_t i)
{
	if (i >= r->n)
		return (struct slice){ NULL, 0 };
	return (struct slice){ r->bytes.data + r->list[i].at, r->list[i].n };
}

static bool room_for(struct records *r, size_t n)
{
	size_t cap = r->cap ? r->cap : 8;
	void *more;

	if (n <= r->cap)
		return true;
	while (cap < n)
		cap *= 2;
	more = mem_try_resize(r->list, cap * sizeof(r->list[0]));
	if (!more)
		return false;
	r->list = more;
	r->cap = cap;
	return true;
}

bool records_push(struct records *r, struct slice record)
{
	size_t before = r->bytes.len;

	if (!room_for(r, r->n + 1))
		return false;
	cbor_put_bytes(&r->bytes, record.p, record.n);
	if (buf_check(&r->bytes) < 0) {
		r->bytes.len = before;
		r->bytes.failed = false;
		return false;
	}
	r->list[r->n].at = r->bytes.len - record.n;
	r->list[r->n].n = record.n;
	r->n++;
	return true;
}

int records_load(struct records *r, struct slice array)
{
	struct cbor_cursor c;
	const uint8_t *first;
	uint64_t n;

	records_fini(r);
	cbor_init(&c, array.p, array.n);
	n = cbor_open_array_max(&c, array.n);
	first = c.p;
	if (c.rc == 0 && !room_for(r, (size_t)n))
		return ERR_NOMEM;
	for (uint64_t i = 0; i < n && c.rc == 0; i++) {
		struct slice one = cbor_bytes(&c, 0, SIZE_MAX);

		if (c.rc < 0)
			break;
		r->list[i].at = (size_t)(one.p - first);
		r->list[i].n = one.n;
	}
	cbor_close(&c);
	if (cbor_finish(&c) < 0)
		return c.rc;
	if (n > 0)
		buf_add(&r->bytes, first, (size_t)(c.p - first));
	if (buf_check(&r->bytes) < 0)
		return ERR_NOMEM;
	r->n = (size_t)n;
	return 0;
}

void records_put(const struct records *r, struct buf *b)
{
	cbor_put_array(b, r->n);
	if (r->bytes.len)
		buf_add(b, r->bytes.data, r->bytes.len);
}

int records_copy(struct records *r, const struct records *from)
{
	records_fini(r);
	for (size_t i = 0; i < from->n; i++)
		if (!records_push(r, records_at(from, i)))
			return ERR_NOMEM;
	return 0;
}

int records_of(struct records *r, const struct tos_value *list)
{
	records_fini(r);
	for (size_t i = 0; i < tos_len(list); i++) {
		struct slice one;

		one.p = tos_as_bytes(tos_at(list, i), &one.n);
		if (!records_push(r, one))
			return ERR_NOMEM;
	}
	return 0;
}
