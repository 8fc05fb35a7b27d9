/* The fields of a signed payload: see signed.h. */
#include "wire/signed.h"

#include <string.h>

#include "base/text.h"

#define FIELDS_MAX 64

void fields_open(struct fields *f, struct cbor_cursor *c)
{
	*f = (struct fields){ .c = c, .at = "" };
	f->left = cbor_open_map_max(c, FIELDS_MAX);
}

/* Pass over one pair if its key begins with "x-". */
static bool extra_skip(struct fields *f)
{
	struct cbor_cursor *c = f->c;
	/* A text shorter than 24 bytes has a head of one byte; longer ones are no keys of ours.
	 */
	const uint8_t *p = c->p;

	if (f->left == 0 || cbor_peek(c) != CBOR_TEXT || c->end - p < 3 || *p > 0x77 ||
		p[1] != 'x' || p[2] != '-')
		return false;
	cbor_text(c, 3, 23);
	cbor_any(c);
	f->left--;
	f->extra = true;
	return !c->rc;
}

bool field_may(struct fields *f, const char *key)
{
	while (f->left && !cbor_key(f->c, key))
		if (!extra_skip(f))
			return false;
	if (!f->left)
		return false;
	f->left--;
	f->at = key;
	return true;
}

void field_need(struct fields *f, const char *key)
{
	if (f->c->rc)
		return;
	if (!field_may(f, key))
		cbor_fail(f->c, ERR_MALFORMED);
	f->at = key;
}

void fields_close(struct fields *f)
{
	if (f->c->rc)
		return;
	while (extra_skip(f))
		;
	if (f->left)
		f->at = "a key that is not known";
	cbor_close(f->c);
}

bool name_printable(struct slice s)
{
	for (size_t i = 0; i < s.n; i++)
		if (s.p[i] < 0x21 || s.p[i] > 0x7e)
			return false;
	return true;
}

void field_name(struct fields *f, char *out, size_t least, size_t cap)
{
	struct slice s = cbor_text(f->c, least, cap - 1);

	if (!name_printable(s))
		cbor_fail(f->c, ERR_MALFORMED);
	else
		text_copy(out, cap, (const char *)s.p, s.n);
}

void field_fixed(struct fields *f, uint8_t *out, size_t n)
{
	struct slice s = cbor_bytes(f->c, n, n);

	if (s.n)
		memcpy(out, s.p, s.n);
}

int64_t field_time(struct fields *f)
{
	return (int64_t)cbor_uint(f->c, INT64_MAX);
}

static bool key_before(const char *a, const char *b)
{
	size_t na = strlen(a), nb = strlen(b);

	return na != nb ? na < nb : strcmp(a, b) < 0;
}

void key_order(const char *const *names, size_t n, unsigned *order)
{
	for (size_t i = 0; i < n; i++) { /* a dozen: insertion */
		size_t at = i;

		while (at && key_before(names[i], names[order[at - 1]])) {
			order[at] = order[at - 1];
			at--;
		}
		order[at] = (unsigned)i;
	}
}
