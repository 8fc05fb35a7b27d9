/*
 * Carriers on the wire: limits, manifest, bundle, ticket, hop record. See carrier.h; the
 * envelope is in envelope.c.
 */
#include "wire/carrier.h"

#include <stdlib.h>
#include <string.h>

#include <tos/value.h>

#include "base/mem.h"
#include "base/text.h"
#include "wire/signed.h"
#include "wire/tree.h"

#define PATH_TEXT_MAX   1024
#define PATH_BYTES_MAX  ((size_t)4 << 20)
#define PARTS_BYTES_MAX ((size_t)4 << 20)

/* ---- limits */

const char *const limit_names[LIMIT_COUNT] = {
#define LIMIT_NAME(name, unit, def, max, text) #name,
	LIMIT_LIST(LIMIT_NAME)
#undef LIMIT_NAME
};
const char *const limit_units[LIMIT_COUNT] = {
#define LIMIT_UNIT(name, unit, def, max, text) unit,
	LIMIT_LIST(LIMIT_UNIT)
#undef LIMIT_UNIT
};
const char *const limit_texts[LIMIT_COUNT] = {
#define LIMIT_TEXT(name, unit, def, max, text) text,
	LIMIT_LIST(LIMIT_TEXT)
#undef LIMIT_TEXT
};
const int64_t limit_defaults[LIMIT_COUNT] = {
#define LIMIT_DEFAULT(name, unit, def, max, text) def,
	LIMIT_LIST(LIMIT_DEFAULT)
#undef LIMIT_DEFAULT
};
const int64_t limit_greatest[LIMIT_COUNT] = {
#define LIMIT_GREATEST(name, unit, def, max, text) max,
	LIMIT_LIST(LIMIT_GREATEST)
#undef LIMIT_GREATEST
};

int limit_find(const char *name, size_t len)
{
	for (int i = 0; i < LIMIT_COUNT; i++)
		if (strlen(limit_names[i]) == len && memcmp(limit_names[i], name, len) == 0)
			return i;
	return ERR_NOT_FOUND;
}

/* In the unit of the table. */
static int limit_value(enum limit_id id, const char *text, int64_t *value)
{
	uint64_t bytes;
	int rc;

	if (strcmp(limit_units[id], "ms") == 0)
		return text_duration(text, value);
	if (strcmp(limit_units[id], "B") != 0)
		return text_int(text, 0, INT64_MAX, value);
	rc = text_bytes(text, &bytes);
	if (rc == 0 && bytes > INT64_MAX)
		rc = ERR_TOO_LARGE;
	if (rc == 0)
		*value = (int64_t)bytes;
	return rc;
}

static int limit_unknown(int n, const char *name, struct errmsg *em)
{
	AUTOBUF all = BUF_INIT;

	for (size_t i = 0; i < LIMIT_COUNT; i++)
		buf_printf(&all, "%s%s", i ? ", " : "", limit_names[i]);
	return err_set(em, ERR_USAGE, "there is no limit \"%.*s\"; there are %s", n, name,
		buf_cstr(&all));
}

int limit_parse(const char *text, enum limit_id *id, int64_t *value, struct errmsg *em)
{
	const char *eq = strchr(text, '=');
	int64_t v = 0;
	int found, rc;

	if (!eq)
		return err_set(em, ERR_USAGE, "limit \"%s\": write it as NAME=VALUE", text);
	found = limit_find(text, (size_t)(eq - text));
	if (found < 0)
		return limit_unknown((int)(eq - text), text, em);
	rc = limit_value((enum limit_id)found, eq + 1, &v);
	if (rc == ERR_MALFORMED)
		return err_set(em, ERR_USAGE, "limit %s: \"%s\" is no %s", limit_names[found],
			eq + 1,
			strcmp(limit_units[found], "ms") == 0  ? "time, as 500ms or 2m"
			: strcmp(limit_units[found], "B") == 0 ? "size, as 500K or 32M"
							       : "whole number");
	if (rc < 0 || v > limit_greatest[found])
		return err_set(em, ERR_TOO_LARGE,
			"limit %s: \"%s\" is above the greatest, %lld%s%s", limit_names[found],
			eq + 1, (long long)limit_greatest[found],
			limit_units[found][0] ? " " : "", limit_units[found]);
	*id = (enum limit_id)found;
	*value = v;
	return 0;
}

/* {name: int}; what is not there is -1. */
/* As map keys are ordered; a ticket that is decoded does not sort them. */
static const enum limit_id limits_order[] = { LIMIT_cpu, LIMIT_hops, LIMIT_sent, LIMIT_inbox,
	LIMIT_posts, LIMIT_state, LIMIT_clones, LIMIT_memory, LIMIT_places, LIMIT_channels,
	LIMIT_lifetime, LIMIT_programs };
_Static_assert(ARRAY_LEN(limits_order) == LIMIT_COUNT, "a limit has no place");

static void limits_read(
	struct cbor_cursor *c, int64_t limits[LIMIT_COUNT], bool all, bool *extra)
{
	struct fields f;

	fields_open(&f, c);
	for (size_t i = 0; i < LIMIT_COUNT; i++) {
		enum limit_id id = limits_order[i];

		limits[id] = -1;
		if (all)
			field_need(&f, limit_names[id]);
		if (all || field_may(&f, limit_names[id]))
			limits[id] = (int64_t)cbor_uint(c, (uint64_t)limit_greatest[id]);
	}
	fields_close(&f);
	*extra = *extra || f.extra;
}

static void limits_put(struct buf *b, const int64_t limits[LIMIT_COUNT])
{
	uint64_t stated = 0;

	for (size_t i = 0; i < LIMIT_COUNT; i++)
		stated += limits[i] >= 0;
	cbor_put_map(b, stated);
	for (size_t i = 0; i < LIMIT_COUNT; i++) {
		if (limits[limits_order[i]] < 0)
			continue;
		cbor_put_text(b, limit_names[limits_order[i]]);
		cbor_put_int(b, limits[limits_order[i]]);
	}
}

/* The end of each decoder of a payload. */
static int payload_done(struct fields *f, const char *what, struct errmsg *em)
{
	int rc;

	fields_close(f);
	rc = cbor_finish(f->c);
	if (rc == ERR_MALFORMED || rc == ERR_TOO_LARGE)
		return err_set(em, rc, "%s: %s at \"%s\"", what, err_word(rc), f->at);
	return rc < 0 ? err_set(em, rc, "%s: %s", what, err_text(rc)) : 0;
}

/* ---- manifest */

void manifest_fini(struct manifest *m)
{
	free(m->files);
	m->files = NULL;
	m->n_files = 0;
}

/* A file's name stays inside its bundle: no absolute path, no "..", no empty component. */
static bool file_name_ok(struct slice s)
{
	size_t start = 0;

	if (s.n == 0 || !name_printable(s))
		return false;
	for (size_t i = 0; i <= s.n; i++) {
		if (i < s.n && s.p[i] != '/')
			continue;
		if (i == start ||
			(s.p[start] == '.' &&
				(i - start == 1 || (i - start == 2 && s.p[start + 1] == '.'))))
			return false;
		start = i + 1;
	}
	return true;
}

static void files_read(struct fields *f, struct manifest *m)
{
	struct cbor_cursor *c = f->c;
	uint64_t n = cbor_open_map_max(c, MANIFEST_FILES_MAX);

	if (n == 0)
		cbor_fail(c, ERR_MALFORMED);
	if (c->rc)
		return;
	m->files = mem_try((size_t)n * sizeof(*m->files));
	if (!m->files)
		cbor_fail(c, ERR_NOMEM);
	for (size_t i = 0; !c->rc && i < n; i++) {
		struct slice name = cbor_text(c, 1, sizeof(m->files[i].name) - 1);

		if (!file_name_ok(name))
			cbor_fail(c, ERR_MALFORMED);
		text_copy(m->files[i].name, sizeof(m->files[i].name), (const char *)name.p,
			name.n);
		field_fixed(f, m->files[i].digest, DIGEST_BYTES);
		m->n_files = i + 1;
	}
	cbor_close(c);
}

static void entry_check(struct cbor_cursor *c, const struct manifest *m)
{
	for (size_t i = 0; i < m->n_files; i++)
		/* NOLINTNEXTLINE(clang-analyzer-core.NonNullParamChecker): n_files > 0 */
		if (strcmp(m->files[i].name, m->entry) == 0)
			return;
	cbor_fail(c, ERR_MALFORMED);
}

static void permissions_read(struct fields *f, struct manifest *m)
{
	uint64_t n = cbor_open_array_max(f->c, ARRAY_LEN(m->permissions));

	for (size_t i = 0; i < n; i++)
		field_name(f, m->permissions[i], 1, sizeof(m->permissions[i]));
	cbor_close(f->c);
	m->n_permissions = (size_t)n;
}

int manifest_decode(struct slice payload, struct manifest *out, struct errmsg *em)
{
	struct manifest m = { .n_files = 0 };
	struct cbor_cursor c;
	struct fields f;
	int rc;

	cbor_init(&c, payload.p, payload.n);
	fields_open(&f, &c);
	field_need(&f, "name");
	field_name(&f, m.name, 1, sizeof(m.name));
	field_need(&f, "entry");
	field_name(&f, m.entry, 1, sizeof(m.entry));
	field_need(&f, "files");
	files_read(&f, &m);
	entry_check(&c, &m);
	field_need(&f, "issued");
	m.issued_ms = field_time(&f);
	field_need(&f, "limits");
	limits_read(&c, m.limits, false, &f.extra);
	field_need(&f, "expires");
	m.expires_ms = field_time(&f);
	if (m.expires_ms <= m.issued_ms)
		cbor_fail(&c, ERR_MALFORMED);
	field_need(&f, "runtime");
	field_name(&f, m.runtime, 1, sizeof(m.runtime));
	field_need(&f, "version");
	field_name(&f, m.version, 1, sizeof(m.version));
	field_need(&f, "permissions");
	permissions_read(&f, &m);
	rc = payload_done(&f, "manifest", em);
	m.extra = f.extra;
	if (rc < 0)
		manifest_fini(&m);
	else
		*out = m;
	return rc;
}

static int file_name_compare(const char *a, const char *b)
{
	size_t na = strlen(a), nb = strlen(b);

	return na != nb ? (na < nb ? -1 : 1) : strcmp(a, b);
}

static void files_put(struct buf *b, const struct manifest *m)
{
	size_t order[MANIFEST_FILES_MAX];

	if (m->n_files > MANIFEST_FILES_MAX) {
		b->failed = true;
		return;
	}
	for (size_t i = 0; i < m->n_files; i++) {
		size_t at = i;

		while (at &&
			file_name_compare(m->files[i].name, m->files[order[at - 1]].name) < 0) {
			order[at] = order[at - 1];
			at--;
		}
		order[at] = i;
	}
	cbor_put_map(b, m->n_files);
	for (size_t i = 0; i < m->n_files; i++) {
		cbor_put_text(b, m->files[order[i]].name);
		cbor_put_bytes(b, m->files[order[i]].digest, DIGEST_BYTES);
	}
}

static void put_key_text(struct buf *b, const char *key, const char *text)
{
	cbor_put_text(b, key);
	cbor_put_text(b, text);
}

static void put_key_int(struct buf *b, const char *key, int64_t v)
{
	cbor_put_text(b, key);
	cbor_put_int(b, v);
}

static void put_key_bytes(struct buf *b, const char *key, const uint8_t *p, size_t n)
{
	cbor_put_text(b, key);
	cbor_put_bytes(b, p, n);
}

/* Nothing for NULL. */
static void put_key_value(struct buf *b, const char *key, const struct tos_value *v)
{
	if (!v)
		return;
	cbor_put_text(b, key);
	value_put(b, v);
}

void manifest_encode(struct buf *b, const struct manifest *m)
{
	cbor_put_map(b, 9);
	put_key_text(b, "name", m->name);
	put_key_text(b, "entry", m->entry);
	cbor_put_text(b, "files");
	files_put(b, m);
	put_key_int(b, "issued", m->issued_ms);
	cbor_put_text(b, "limits");
	limits_put(b, m->limits);
	put_key_int(b, "expires", m->expires_ms);
	put_key_text(b, "runtime", m->runtime);
	put_key_text(b, "version", m->version);
	cbor_put_text(b, "permissions");
	cbor_put_array(b, m->n_permissions);
	for (size_t i = 0; i < m->n_permissions; i++)
		cbor_put_text(b, m->permissions[i]);
}

/* ---- bundle = [manifest, {file name: bytes}] */

bool bundle_file_ok(const char *name)
{
	size_t n = strlen(name);

	return n < sizeof(((struct manifest *)0)->entry) &&
	       file_name_ok((struct slice){ (const uint8_t *)name, n });
}

int bundle_decode(struct slice bytes, struct bundle *out, struct errmsg *em)
{
	struct cbor_cursor c;
	int rc;

	cbor_init(&c, bytes.p, bytes.n);
	cbor_open_array(&c, 2);
	out->manifest_cose = cbor_bytes(&c, 1, FRAME_BYTES_MAX);
	out->n_files = cbor_open_map_max(&c, MANIFEST_FILES_MAX);
	for (size_t i = 0; !c.rc && i < out->n_files; i++) {
		out->files[i].name =
			cbor_text(&c, 1, sizeof(((struct manifest *)0)->entry) - 1);
		if (!file_name_ok(out->files[i].name))
			cbor_fail(&c, ERR_MALFORMED);
		out->files[i].content = cbor_bytes(&c, 0, SIZE_MAX);
	}
	cbor_close(&c);
	cbor_close(&c);
	rc = cbor_finish(&c);
	if (rc < 0)
		out->n_files = 0;
	return rc < 0 ? err_set(em, rc, "the bundle does not follow the format") : 0;
}

static bool slice_before(struct slice a, struct slice b)
{
	return a.n != b.n ? a.n < b.n : a.n && memcmp(a.p, b.p, a.n) < 0;
}

void bundle_encode(struct buf *b, struct slice manifest_cose, const struct slice *names,
	const struct slice *contents, size_t n)
{
	size_t order[MANIFEST_FILES_MAX];

	if (n > MANIFEST_FILES_MAX) {
		b->failed = true;
		return;
	}
	for (size_t i = 0; i < n; i++) {
		size_t at = i;

		while (at && slice_before(names[i], names[order[at - 1]])) {
			order[at] = order[at - 1];
			at--;
		}
		order[at] = i;
	}
	cbor_put_array(b, 2);
	cbor_put_bytes(b, manifest_cose.p, manifest_cose.n);
	cbor_put_map(b, n);
	for (size_t i = 0; i < n; i++) {
		cbor_put_text_n(b, (const char *)names[order[i]].p, names[order[i]].n);
		cbor_put_bytes(b, contents[order[i]].p, contents[order[i]].n);
	}
}

/* ---- ticket */

void ticket_fini(struct ticket *t)
{
	tos_value_free(t->path);
	tos_value_free(t->sealed);
	tos_value_free(t->append);
	t->path = t->sealed = t->append = NULL;
}

static bool on_unreachable_ok(const char *s)
{
	int64_t ms;

	if (strncmp(s, "wait=", 5) ==
		0) /* one spelling of a number, so that it encodes the same */
		return text_int(s + 5, 0, INT64_MAX, &ms) == 0 && s[5] != '-' &&
		       (s[5] != '0' || !s[6]);
	return !s[0] || strcmp(s, "skip") == 0 || strcmp(s, "alternate") == 0 ||
	       strcmp(s, "fail") == 0;
}

static void options_read(struct fields *outer, struct ticket *t)
{
	struct fields f;

	fields_open(&f, outer->c);
	field_need(&f, "fast");
	t->fast = cbor_bool(f.c);
	field_need(&f, "on-unreachable");
	field_name(&f, t->on_unreachable, 0, sizeof(t->on_unreachable));
	if (!on_unreachable_ok(t->on_unreachable))
		cbor_fail(f.c, ERR_MALFORMED);
	fields_close(&f);
	outer->extra = outer->extra || f.extra;
}

/* [entry...], each a text; the tree is built only after the whole was seen to be that. */
static struct tos_value *path_read(struct cbor_cursor *c)
{
	struct cbor_cursor look = *c;
	size_t budget = PATH_BYTES_MAX;
	uint64_t n = cbor_open_array_max(&look, PATH_ENTRIES_MAX);

	for (uint64_t i = 0; !look.rc && i < n; i++)
		if (!name_printable(cbor_text(&look, 1, PATH_TEXT_MAX)))
			cbor_fail(&look, ERR_MALFORMED);
	if (look.rc)
		cbor_fail(c, look.rc);
	return c->rc ? NULL : value_read(c, &budget);
}

static bool folder_text_ok(const uint8_t *p, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (p[i] < 0x20 || p[i] > 0x7e)
			return false;
	return n <= FOLDER_NAME_MAX;
}

/* {folder: digest}, or {folder: [count, head]} where `grows`. */
static struct tos_value *protected_read(struct cbor_cursor *c, bool grows)
{
	struct cbor_cursor look = *c;
	size_t budget = PARTS_BYTES_MAX;
	uint64_t n = cbor_open_map_max(&look, PROTECTED_FOLDERS_MAX);

	if (n == 0)
		cbor_fail(&look, ERR_MALFORMED);
	for (uint64_t i = 0; !look.rc && i < n; i++) {
		struct slice name = cbor_text(&look, 0, FOLDER_NAME_MAX);

		if (!folder_text_ok(name.p, name.n))
			cbor_fail(&look, ERR_MALFORMED);
		if (grows) {
			cbor_open_array(&look, 2);
			cbor_uint(&look, INT64_MAX);
		}
		cbor_bytes(&look, DIGEST_BYTES, DIGEST_BYTES);
		if (grows)
			cbor_close(&look);
	}
	if (look.rc)
		cbor_fail(c, look.rc);
	return c->rc ? NULL : value_read(c, &budget);
}

int ticket_decode(struct slice payload, struct ticket *out, struct errmsg *em)
{
	struct ticket t = { .path = NULL };
	struct cbor_cursor c;
	struct fields f;
	int rc;

	cbor_init(&c, payload.p, payload.n);
	fields_open(&f, &c);
	field_need(&f, "code");
	field_fixed(&f, t.code, DIGEST_BYTES);
	field_need(&f, "home");
	field_name(&f, t.home, 1, sizeof(t.home));
	field_need(&f, "name");
	field_name(&f, t.name, 1, sizeof(t.name));
	field_need(&f, "path");
	t.path = path_read(&c);
	field_need(&f, "nonce");
	field_fixed(&f, t.nonce, sizeof(t.nonce));
	if (field_may(&f, "append"))
		t.append = protected_read(&c, true);
	field_need(&f, "issued");
	t.issued_ms = field_time(&f);
	field_need(&f, "limits");
	limits_read(&c, t.limits, true, &f.extra);
	if (field_may(&f, "sealed"))
		t.sealed = protected_read(&c, false);
	field_need(&f, "expires");
	t.expires_ms = field_time(&f);
	if (t.expires_ms <= t.issued_ms)
		cbor_fail(&c, ERR_MALFORMED);
	field_need(&f, "options");
	options_read(&f, &t);
	field_need(&f, "alternate");
	field_name(&f, t.alternate, 0, sizeof(t.alternate));
	field_need(&f, "briefcase");
	field_fixed(&f, t.briefcase, DIGEST_BYTES);
	field_need(&f, "itinerant");
	t.itinerant = cbor_bool(&c);
	rc = payload_done(&f, "ticket", em);
	t.extra = f.extra;
	if (rc < 0)
		ticket_fini(&t);
	else
		*out = t;
	return rc;
}

void ticket_encode(struct buf *b, const struct ticket *t)
{
	cbor_put_map(b, 12u + (t->append ? 1 : 0) + (t->sealed ? 1 : 0));
	put_key_bytes(b, "code", t->code, DIGEST_BYTES);
	put_key_text(b, "home", t->home);
	put_key_text(b, "name", t->name);
	cbor_put_text(b, "path");
	if (t->path)
		value_put(b, t->path);
	else
		cbor_put_array(b, 0);
	put_key_bytes(b, "nonce", t->nonce, sizeof(t->nonce));
	put_key_value(b, "append", t->append);
	put_key_int(b, "issued", t->issued_ms);
	cbor_put_text(b, "limits");
	limits_put(b, t->limits);
	put_key_value(b, "sealed", t->sealed);
	put_key_int(b, "expires", t->expires_ms);
	cbor_put_text(b, "options");
	cbor_put_map(b, 2);
	cbor_put_text(b, "fast");
	cbor_put_bool(b, t->fast);
	put_key_text(b, "on-unreachable", t->on_unreachable);
	put_key_text(b, "alternate", t->alternate);
	put_key_bytes(b, "briefcase", t->briefcase, DIGEST_BYTES);
	cbor_put_text(b, "itinerant");
	cbor_put_bool(b, t->itinerant);
}

/* ---- hop record */

int incarnation_compare(const struct incarnation *a, const struct incarnation *b)
{
	int order = memcmp(a->nonce, b->nonce, sizeof(a->nonce));

	if (a->count != b->count)
		return a->count < b->count ? -1 : 1;
	return order < 0 ? -1 : order > 0;
}

void hop_fini(struct hop *h)
{
	tos_value_free(h->parts);
	tos_value_free(h->grown);
	h->parts = h->grown = NULL;
}

const enum limit_id split_limits[SPLIT_COUNT] = { LIMIT_cpu, LIMIT_hops, LIMIT_sent,
	LIMIT_clones };

bool suffix_ok(const char *s)
{
	while (*s) {
		if (*s++ != '.' || *s < '1' || *s > '9')
			return false;
		while (*s >= '0' && *s <= '9')
			s++;
	}
	return true;
}

static bool part_name_ok(struct slice s)
{
	static const char *const names[] = { "state", "path", "counters", "trail", "log",
		"undelivered", "channels" };
	static const char folder[] = "folder/";
	const size_t n = sizeof(folder) - 1;

	for (size_t i = 0; i < ARRAY_LEN(names); i++)
		if (strlen(names[i]) == s.n && memcmp(names[i], s.p, s.n) == 0)
			return true;
	if (s.n < n || s.n > n + FOLDER_NAME_MAX || memcmp(s.p, folder, n) != 0)
		return false;
	return folder_text_ok(s.p + n, s.n - n);
}

static struct tos_value *parts_read(struct cbor_cursor *c)
{
	struct cbor_cursor look = *c;
	size_t budget = PARTS_BYTES_MAX;
	uint64_t n = cbor_open_map_max(&look, UINT64_MAX);

	for (uint64_t i = 0; !look.rc && i < n; i++) {
		if (!part_name_ok(cbor_text(&look, 1, SIZE_MAX)))
			cbor_fail(&look, ERR_MALFORMED);
		cbor_bytes(&look, DIGEST_BYTES, DIGEST_BYTES);
	}
	if (look.rc)
		cbor_fail(c, look.rc);
	return c->rc ? NULL : value_read(c, &budget);
}

static void incarnation_read(struct fields *f, struct incarnation *e)
{
	cbor_open_array(f->c, 2);
	e->count = cbor_uint(f->c, INT64_MAX);
	field_fixed(f, e->nonce, sizeof(e->nonce));
	cbor_close(f->c);
}

/* Those that are split, all of them and no others. */
static void split_read(struct fields *f, int64_t split[LIMIT_COUNT])
{
	size_t stated = 0;

	limits_read(f->c, split, false, &f->extra);
	for (size_t i = 0; i < LIMIT_COUNT; i++)
		stated += split[i] >= 0;
	for (size_t i = 0; i < SPLIT_COUNT; i++)
		if (split[split_limits[i]] < 0)
			stated = 0;
	if (stated != SPLIT_COUNT)
		cbor_fail(f->c, ERR_MALFORMED);
}

static void split_put(struct buf *b, const int64_t split[LIMIT_COUNT])
{
	int64_t stated[LIMIT_COUNT];

	for (size_t i = 0; i < LIMIT_COUNT; i++)
		stated[i] = -1;
	for (size_t i = 0; i < SPLIT_COUNT; i++)
		stated[split_limits[i]] = split[split_limits[i]];
	cbor_put_text(b, "split");
	limits_put(b, stated);
}

int hop_decode(struct slice payload, struct hop *out, struct errmsg *em)
{
	struct hop h = { .parts = NULL };
	struct cbor_cursor c;
	struct fields f;
	int rc;

	cbor_init(&c, payload.p, payload.n);
	fields_open(&f, &c);
	field_need(&f, "e");
	incarnation_read(&f, &h.e);
	field_need(&f, "n");
	h.n = cbor_uint(&c, INT64_MAX);
	field_need(&f, "id");
	field_fixed(&f, h.id, DIGEST_BYTES);
	h.has_boot = field_may(&f, "boot");
	if (h.has_boot)
		field_fixed(&f, h.boot, sizeof(h.boot));
	field_need(&f, "dest");
	field_name(&f, h.dest, 1, sizeof(h.dest));
	field_need(&f, "from");
	field_name(&f, h.from, 1, sizeof(h.from));
	field_need(&f, "kind");
	h.kind = (unsigned)cbor_uint(&c, HOP_CLONE);
	field_need(&f, "prev");
	field_fixed(&f, h.prev, DIGEST_BYTES);
	field_need(&f, "time");
	h.time_ms = field_time(&f);
	if (field_may(&f, "grown"))
		h.grown = protected_read(&c, true);
	field_need(&f, "parts");
	h.parts = parts_read(&c);
	if (h.kind == HOP_CLONE) {
		field_need(&f, "split");
		split_read(&f, h.split);
	}
	field_need(&f, "suffix");
	field_name(&f, h.suffix, 0, sizeof(h.suffix));
	if (!suffix_ok(h.suffix) || (h.kind == HOP_CLONE && !h.suffix[0]))
		cbor_fail(&c, ERR_MALFORMED);
	rc = payload_done(&f, "hop record", em);
	h.extra = f.extra;
	if (rc < 0)
		hop_fini(&h);
	else
		*out = h;
	return rc;
}

void hop_encode(struct buf *b, const struct hop *h)
{
	cbor_put_map(b, 10u + (h->has_boot ? 1 : 0) + (h->grown ? 1 : 0) +
				(h->kind == HOP_CLONE ? 1 : 0));
	cbor_put_text(b, "e");
	cbor_put_array(b, 2);
	cbor_put_uint(b, h->e.count);
	cbor_put_bytes(b, h->e.nonce, sizeof(h->e.nonce));
	cbor_put_text(b, "n");
	cbor_put_uint(b, h->n);
	put_key_bytes(b, "id", h->id, DIGEST_BYTES);
	if (h->has_boot)
		put_key_bytes(b, "boot", h->boot, sizeof(h->boot));
	put_key_text(b, "dest", h->dest);
	put_key_text(b, "from", h->from);
	cbor_put_text(b, "kind");
	cbor_put_uint(b, h->kind);
	put_key_bytes(b, "prev", h->prev, DIGEST_BYTES);
	put_key_int(b, "time", h->time_ms);
	put_key_value(b, "grown", h->grown);
	cbor_put_text(b, "parts");
	if (h->parts)
		value_put(b, h->parts);
	else
		cbor_put_map(b, 0);
	if (h->kind == HOP_CLONE)
		split_put(b, h->split);
	put_key_text(b, "suffix", h->suffix);
}
