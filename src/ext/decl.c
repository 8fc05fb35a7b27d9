/* What one extension declared: see decl.h. */
#include "ext/decl.h"

#include <stdlib.h>
#include <string.h>

#include <tos/value.h>

#include "base/mem.h"
#include "base/text.h"

#define WAITING_BYTES_MAX ((size_t)16 << 20) /* of one extension's inboxes together */

static int text_field(const struct tos_value *map, const char *key, char *dst, size_t cap)
{
	const char *s = tos_get_text(map, key, NULL);

	if (!s || strlen(s) != tos_len(tos_get(map, key)))
		return ERR_MALFORMED;
	return text_copy(dst, cap, s, strlen(s)) < 0 ? ERR_MALFORMED : 0;
}

/* Texts for people may be cut. */
static void doc_field(const struct tos_value *map, const char *key, char *dst, size_t cap)
{
	text_cut(dst, cap, tos_get_text(map, key, ""));
}

static int read_inbox(const struct tos_value *v, uint32_t default_bound, struct decl_inbox *in)
{
	int64_t flags = tos_get_int(v, "flags", -1), bound = tos_get_int(v, "bound", -1);

	if (text_field(v, "name", in->name, sizeof(in->name)) < 0 ||
		!body_inbox_name_ok(in->name))
		return ERR_NAME;
	if (flags < 0 || flags > 63 || bound < 0 || bound > EXT_BOUND_MAX)
		return ERR_MALFORMED;
	doc_field(v, "doc", in->doc, sizeof(in->doc));
	in->flags = (uint32_t)flags;
	in->bound = bound ? (uint32_t)bound : default_bound;
	in->bytes = mem_try(in->bound * sizeof(*in->bytes));
	return in->bytes ? 0 : ERR_NOMEM;
}

static int read_property(const struct tos_value *v, struct decl_property *p)
{
	if (text_field(v, "path", p->path, sizeof(p->path)) < 0 || !*p->path ||
		text_field(v, "type", p->type, sizeof(p->type)) < 0 ||
		text_field(v, "unit", p->unit, sizeof(p->unit)) < 0 ||
		text_field(v, "value", p->value, sizeof(p->value)) < 0)
		return ERR_MALFORMED;
	doc_field(v, "doc", p->doc, sizeof(p->doc));
	memcpy(p->initial, p->value, sizeof(p->initial));
	p->min = tos_get_int(v, "min", 0);
	p->max = tos_get_int(v, "max", 0);
	p->read_only = tos_get_bool(v, "read_only", false);
	return body_value_ok(p->type, p->min, p->max, p->value);
}

static int read_lists(struct decl *d, const struct tos_value *hello, uint32_t default_bound)
{
	const struct tos_value *inboxes = tos_get(hello, "inboxes"),
			       *properties = tos_get(hello, "properties");
	int rc;

	if (tos_type(inboxes) != TOS_ARRAY || tos_type(properties) != TOS_ARRAY ||
		!tos_len(inboxes) || tos_len(inboxes) > EXT_INBOXES_MAX ||
		tos_len(properties) > EXT_PROPERTIES_MAX)
		return ERR_MALFORMED;
	d->inbox = mem_try(tos_len(inboxes) * sizeof(*d->inbox));
	d->property = mem_try(tos_len(properties) * sizeof(*d->property));
	if (!d->inbox || !d->property)
		return ERR_NOMEM;
	for (size_t i = 0; i < tos_len(inboxes); i++) {
		rc = read_inbox(tos_at(inboxes, i), default_bound, &d->inbox[i]);
		d->n_inboxes = i + 1;
		if (rc < 0)
			return rc;
		if (decl_inbox_find(d, d->inbox[i].name) != &d->inbox[i])
			return ERR_EXISTS;
	}
	for (size_t i = 0; i < tos_len(properties); i++) {
		rc = read_property(tos_at(properties, i), &d->property[i]);
		d->n_properties = i + 1;
		if (rc < 0)
			return rc;
		if (decl_property_find(d, d->property[i].path) != &d->property[i])
			return ERR_EXISTS;
	}
	return 0;
}

int decl_read(const struct tos_value *hello, uint32_t default_bound, struct decl **out,
	struct errmsg *em)
{
	const struct tos_value *abi = tos_get(hello, "abi");
	struct decl *d;
	int rc;

	if (tos_as_int(tos_at(abi, 0), -1) != TOS_ABI_MAJOR ||
		tos_as_int(tos_at(abi, 1), INT64_MAX) > TOS_ABI_MINOR)
		return err_set(em, ERR_VERSION, "is built for another ABI than %u.%u",
			TOS_ABI_MAJOR, TOS_ABI_MINOR);
	d = mem_new(struct decl);
	doc_field(hello, "doc", d->doc, sizeof(d->doc));
	rc = text_field(hello, "name", d->name, sizeof(d->name));
	if (!rc)
		rc = text_field(hello, "privileges", d->privileges, sizeof(d->privileges));
	if (!rc)
		rc = read_lists(d, hello, default_bound);
	if (rc < 0) {
		decl_free(d);
		return err_set(em, rc, "what it declares is wrong: %s", err_text(rc));
	}
	*out = d;
	return 0;
}

void decl_free(struct decl *d)
{
	if (!d)
		return;
	decl_emptied(d);
	for (size_t i = 0; i < d->n_inboxes; i++) {
		free(d->inbox[i].bytes);
		free(d->inbox[i].kept);
	}
	free(d->inbox);
	free(d->property);
	free(d);
}

struct decl_inbox *decl_inbox_find(struct decl *d, const char *name)
{
	for (size_t i = 0; d && i < d->n_inboxes; i++)
		if (strcmp(d->inbox[i].name, name) == 0)
			return &d->inbox[i];
	return NULL;
}

struct decl_property *decl_property_find(struct decl *d, const char *path)
{
	for (size_t i = 0; d && i < d->n_properties; i++)
		if (strcmp(d->property[i].path, path) == 0)
			return &d->property[i];
	return NULL;
}

bool decl_same_inboxes(const struct decl *a, const struct decl *b)
{
	if (a->n_inboxes != b->n_inboxes)
		return false;
	for (size_t i = 0; i < a->n_inboxes; i++)
		if (strcmp(a->inbox[i].name, b->inbox[i].name) != 0 ||
			a->inbox[i].flags != b->inbox[i].flags ||
			a->inbox[i].bound != b->inbox[i].bound)
			return false;
	return true;
}

int decl_waits(struct decl *d, struct decl_inbox *in, size_t bytes)
{
	if (in->waiting >= in->bound || d->waiting_bytes + bytes > WAITING_BYTES_MAX) {
		in->refused++;
		return ERR_FULL;
	}
	in->bytes[(in->head + in->waiting) % in->bound] = (uint32_t)bytes;
	in->waiting++;
	in->posted++;
	d->waiting_bytes += bytes;
	return 0;
}

static void kept_drop(struct decl_inbox *in, uint32_t at)
{
	if (!in->kept)
		return;
	free(in->kept[at]);
	in->kept[at] = NULL;
}

void decl_unwait(struct decl *d, struct decl_inbox *in)
{
	uint32_t at;

	in->waiting--;
	in->posted--;
	at = (in->head + in->waiting) % in->bound;
	d->waiting_bytes -= in->bytes[at];
	kept_drop(in, at);
}

int decl_taken(struct decl *d, struct decl_inbox *in, uint64_t n)
{
	if (n > in->waiting - in->unsent)
		return ERR_MALFORMED;
	for (; n; n--) {
		d->waiting_bytes -= in->bytes[in->head];
		kept_drop(in, in->head);
		in->head = (in->head + 1) % in->bound;
		in->waiting--;
		in->taken++;
	}
	return 0;
}

int decl_keep(struct decl *d)
{
	for (size_t i = 0; i < d->n_inboxes; i++) {
		struct decl_inbox *in = &d->inbox[i];
		size_t n = in->bound * sizeof(struct kept *);

		if (in->kept)
			continue;
		in->kept = mem_try(n);
		if (!in->kept)
			return ERR_NOMEM;
		memset(in->kept, 0, n);
	}
	return 0;
}

void decl_kept(struct decl_inbox *in, struct kept *kept)
{
	uint32_t at = (in->head + in->waiting - 1) % in->bound;

	if (!in->kept || !in->waiting) {
		free(kept);
		return;
	}
	free(in->kept[at]);
	in->kept[at] = kept;
}

struct kept *decl_take_kept(struct decl *d, struct decl_inbox *in, size_t *bytes)
{
	struct kept *kept;

	if (!in->waiting || !in->kept || !in->kept[in->head])
		return NULL;
	kept = in->kept[in->head];
	in->kept[in->head] = NULL;
	*bytes = in->bytes[in->head];
	d->waiting_bytes -= in->bytes[in->head];
	in->head = (in->head + 1) % in->bound;
	in->waiting--;
	if (in->unsent > in->waiting)
		in->unsent = in->waiting;
	return kept;
}

void decl_emptied(struct decl *d)
{
	for (size_t i = 0; d && i < d->n_inboxes; i++) {
		struct decl_inbox *in = &d->inbox[i];

		for (uint32_t n = 0; n < in->waiting; n++)
			kept_drop(in, (in->head + n) % in->bound);
		in->waiting = in->unsent = 0;
	}
	if (d)
		d->waiting_bytes = 0;
}
