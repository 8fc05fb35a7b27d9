/*
 * What of a carrier travels: its envelope made of a resident, taken into one, and the digests of its
 * parts. What an envelope is on the wire is in wire/envelope.c.
 */
#include "kernel/carrier/family.h"

#include <string.h>

#include "kernel/carrier/resident.h"
#include "seal/folders.h"
#include "wire/pick.h"
#include "wire/tree.h"

#define EMPTY_ARRAY 0x80 /* encoded */

/* The buffer may move: what is remembered is the offset, the caller adds the base at the end. */
static int put_encoded(struct buf *b, const struct tos_value *v, struct slice *out)
{
	size_t at = b->len;
	int rc = value_put(b, v);

	*out = (struct slice){ (const uint8_t *)at, b->len - at };
	return rc;
}

static int put_lines(struct buf *b, const struct lines *l, struct slice *out)
{
	size_t at = b->len;
	int rc = lines_encode(l, b);

	*out = (struct slice){ (const uint8_t *)at, b->len - at };
	return rc;
}

static int put_bytes(struct buf *b, const void *p, size_t n, struct slice *out)
{
	size_t at = b->len;

	cbor_put_bytes(b, p, n);
	*out = (struct slice){ (const uint8_t *)at, b->len - at };
	return buf_check(b);
}

static int put_records(struct buf *b, const struct records *r, struct slice *out)
{
	size_t at = b->len;

	records_put(r, b);
	*out = (struct slice){ (const uint8_t *)at, b->len - at };
	return buf_check(b);
}

static struct tos_value *counters_of(const struct resident *r)
{
	struct tos_value *m = tos_map();

	for (int i = 0; i < LIMIT_COUNT; i++)
		if (r->usage.used[i] > 0)
			tos_set(m, limit_names[i], tos_int(r->usage.used[i]));
	tos_set(m, "hops", tos_int((int64_t)r->hop_count));
	tos_set(m, "launched", tos_int(r->launched_ms));
	family_counters(r, m);
	return m;
}

int resident_envelope(struct resident *r, const struct tos_value *path, struct buf *out)
{
	AUTOBUF parts = BUF_MAX((size_t)160 << 20);
	struct tos_value *value[PART_COUNT] = { NULL };
	struct envelope env = { 0 };
	int rc = 0;

	value[PART_CHANNELS] = tos_array();
	value[PART_COUNTERS] = counters_of(r);
	const struct tos_value *lent[PART_COUNT] = {
		[PART_PATH] = path, [PART_UNDELIVERED] = r->undelivered
	};

	for (int i = 0; i < PART_COUNT && rc == 0; i++) {
		if (i == PART_BRIEFCASE)
			continue;
		if (i == PART_HOPS)
			rc = put_records(&parts, &r->hops, &env.part[i]);
		else if (i == PART_TRAIL || i == PART_LOG)
			rc = put_lines(
				&parts, i == PART_LOG ? &r->log : &r->trail, &env.part[i]);
		else if (i == PART_CODE)
			rc = put_bytes(&parts, r->code_digest, DIGEST_BYTES, &env.part[i]);
		else if (i == PART_TICKET)
			rc = put_bytes(
				&parts, r->ticket_cose.p, r->ticket_cose.n, &env.part[i]);
		else if (i == PART_STATE)
			rc = put_bytes(
				&parts, r->state_bytes.p, r->state_bytes.n, &env.part[i]);
		else
			rc = put_encoded(&parts, lent[i] ? lent[i] : value[i], &env.part[i]);
	}
	for (int i = 0; i < PART_COUNT; i++) {
		if (i != PART_BRIEFCASE)
			env.part[i].p = parts.data + (uintptr_t)env.part[i].p;
		tos_value_free(value[i]);
	}
	env.part[PART_BRIEFCASE] = blob_slice(&r->briefcase);
	if (rc == 0) {
		envelope_encode(out, &env);
		rc = buf_check(out);
	}
	return rc;
}

static int decode_part(const struct envelope *env, enum envelope_part part,
	struct tos_value **out, struct errmsg *em)
{
	struct tos_value *v = NULL;
	int rc;

	/* Most have none, and then there is one that is empty. */
	if (*out && env->part[part].n == 1 && *env->part[part].p == EMPTY_ARRAY &&
		tos_type(*out) == TOS_ARRAY && tos_len(*out) == 0)
		return 0;
	rc = tos_decode(env->part[part].p, env->part[part].n, (size_t)256 << 20, &v);

	if (rc < 0)
		return err_set(em, rc, "the envelope's part %s does not decode",
			envelope_part_names[part]);
	tos_value_free(*out);
	*out = v;
	return 0;
}

/* A part that is bytes; empty: it is not. */
static struct slice bytes_part(const struct envelope *env, enum envelope_part part, int *rc)
{
	struct cbor_cursor c;
	struct slice s;

	cbor_init(&c, env->part[part].p, env->part[part].n);
	s = cbor_bytes(&c, 0, SIZE_MAX);
	if (*rc == 0)
		*rc = cbor_finish(&c);
	return s;
}

static int take_counters(struct resident *r, struct slice counters)
{
	const char *names[LIMIT_COUNT + 1];
	struct slice item[LIMIT_COUNT + 1];
	int rc;

	for (int i = 0; i < LIMIT_COUNT; i++)
		names[i] = limit_names[i];
	names[LIMIT_COUNT] = "launched";
	rc = pick(counters, names, ARRAY_LEN(names), item);
	if (rc < 0)
		return rc;
	for (int i = 0; i < LIMIT_COUNT; i++)
		r->usage.used[i] = pick_int(item[i], 0);
	r->hop_count = (uint64_t)r->usage.used[LIMIT_hops];
	r->launched_ms = pick_int(item[LIMIT_COUNT], 0);
	return family_counted(r, counters);
}

static int take_bytes(struct resident *r, const struct envelope *env, struct errmsg *em)
{
	int rc = 0;
	struct slice state = bytes_part(env, PART_STATE, &rc);
	struct slice ticket = bytes_part(env, PART_TICKET, &rc);
	struct slice code = bytes_part(env, PART_CODE, &rc);

	if (rc == 0 && code.n != DIGEST_BYTES)
		rc = ERR_MALFORMED;
	if (rc < 0)
		return err_set(em, rc, "the envelope's state, ticket or code does not decode");
	blob_set(&r->briefcase, env->part[PART_BRIEFCASE]);
	blob_set(&r->state_bytes, state);
	blob_set_like(&r->ticket_cose, ticket,
		r->k->ticket_kept ? r->k->ticket_kept(r->k, r->name) : NULL);
	memcpy(r->code_digest, code.p, DIGEST_BYTES);
	return 0;
}

int resident_take_envelope(struct resident *r, const struct envelope *env, struct errmsg *em)
{
	int rc = decode_part(env, PART_PATH, &r->path, em);

	if (rc == 0)
		rc = lines_load(&r->trail, env->part[PART_TRAIL]);
	if (rc == 0)
		rc = lines_load(&r->log, env->part[PART_LOG]);
	if (rc == 0 && (rc = records_load(&r->hops, env->part[PART_HOPS])) < 0)
		err_set(em, rc, "the envelope's part hops does not decode");
	if (rc == 0)
		rc = decode_part(env, PART_UNDELIVERED, &r->undelivered, em);
	if (rc == 0 && take_counters(r, env->part[PART_COUNTERS]) < 0)
		rc = err_set(em, ERR_MALFORMED, "the envelope's part counters does not decode");
	return rc < 0 ? rc : take_bytes(r, env, em);
}

int resident_load_envelope(struct resident *r, struct slice bytes, struct errmsg *em)
{
	struct envelope env;
	int rc = envelope_decode(bytes, &env, em);

	return rc < 0 ? rc : resident_take_envelope(r, &env, em);
}

static int digest_part(struct tos_value *out, const char *name, struct slice bytes)
{
	uint8_t digest[DIGEST_BYTES];

	digest_bytes(bytes.p, bytes.n, digest);
	return tos_set(out, name, tos_bytes(digest, sizeof(digest)));
}

/* A folder's digest is that of [name, [elements]], so that folders can be sealed one by one
 * later. */
static int digest_folders(struct tos_value *out, struct slice briefcase, struct errmsg *em)
{
	struct cbor_cursor c;
	uint64_t n;
	int rc = 0;

	cbor_init(&c, briefcase.p, briefcase.n);
	n = cbor_open_map_max(&c, 1 << 20);
	for (uint64_t i = 0; i < n && rc == 0 && c.rc == 0; i++) {
		struct slice name = cbor_text(&c, 0, 128);
		struct slice elements = cbor_any(&c);
		uint8_t digest[DIGEST_BYTES];
		char key[160];

		if (c.rc < 0)
			break;
		snprintf(key, sizeof(key), "folder/%.*s", (int)name.n, (const char *)name.p);
		folder_digest(name, elements, digest);
		rc = tos_set(out, key, tos_bytes(digest, sizeof(digest)));
	}
	if (rc == 0 && c.rc < 0)
		rc = err_set(em, c.rc, "the briefcase does not decode");
	return rc;
}

int envelope_digests(const struct envelope *env, struct tos_value **out, struct errmsg *em)
{
	static const enum envelope_part parts[] = { PART_STATE, PART_PATH, PART_COUNTERS,
		PART_TRAIL, PART_LOG, PART_UNDELIVERED, PART_CHANNELS };
	struct tos_value *m = tos_map();
	int rc = 0;

	for (size_t i = 0; i < ARRAY_LEN(parts) && rc == 0; i++)
		rc = digest_part(m, envelope_part_names[parts[i]], env->part[parts[i]]);
	if (rc == 0)
		rc = digest_folders(m, env->part[PART_BRIEFCASE], em);
	if (rc < 0)
		tos_value_free(m);
	else
		*out = m;
	return rc;
}
