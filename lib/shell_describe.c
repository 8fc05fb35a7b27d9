/*
 * What others are told of a shell: a tos-vm that is to run it without a kernel, people, and whoever
 * counts its parts.
 */
#include "lib/shell.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/text.h"
#include "seal/seal.h"

/* The manifest's entry of a bundle that was loaded. */
static int entry_of(const struct tos_shell *s, char out[129], struct errmsg *em)
{
	struct bundle *b = mem_new(struct bundle);
	struct manifest m;
	struct cose cose;
	int rc = bundle_decode((struct slice){ s->bundle.data, s->bundle.len }, b, em);

	rc = rc ? rc : cose_decode(b->manifest_cose, &cose, em);
	rc = rc ? rc : manifest_decode(cose.payload, &m, em);
	free(b);
	if (rc < 0)
		return rc;
	snprintf(out, 129, "%s", m.entry);
	if (strncmp(m.runtime, "lua", 3) != 0)
		rc = err_set(
			em, ERR_UNSUPPORTED, "its runtime %s is not known here", m.runtime);
	manifest_fini(&m);
	return rc;
}

/* The code as it is, or the source under a signature that nobody made: a tos-vm checks none. */
static int start_code(const struct tos_shell *s, struct tos_value *v, struct errmsg *em)
{
	struct slice none = { s->source.data, 1 };
	struct buf b = BUF_MAX(CARRIER_MAX);
	char entry[129];
	int rc;

	if (!s->source.len) {
		rc = entry_of(s, entry, em);
		rc = rc ? rc : tos_set(v, "entry", tos_text(entry));
		return rc ? rc : tos_set(v, "bundle", tos_bytes(s->bundle.data, s->bundle.len));
	}
	rc = shell_put_bundle(s, none, &b);
	rc = rc ? rc : tos_set(v, "entry", tos_text(s->entry));
	rc = rc ? rc : tos_set(v, "bundle", tos_bytes(b.data, b.len));
	buf_fini(&b);
	return rc;
}

int shell_start(const struct tos_shell *s, const char *name, const char *place, struct buf *out,
	struct errmsg *em)
{
	struct tos_value *v = tos_map(), *limits = tos_map(), *path = NULL;
	uint8_t *p = NULL;
	size_t n = 0;
	int rc = path_entries(s->path, NULL, NULL, &path, em);

	for (size_t i = 0; rc == 0 && i < LIMIT_COUNT; i++)
		rc = tos_set(limits, limit_names[i], tos_int(s->limits[i]));
	rc = rc ? rc : tos_set(v, "path", STEAL(path));
	rc = rc ? rc : tos_set(v, "limits", STEAL(limits));
	rc = rc ? rc : shell_start_seals(s, v);
	rc = rc ? rc : tos_set(v, "briefcase", tos_value_copy(s->briefcase));
	rc = rc ? rc : tos_set(v, "begun", tos_bool(false));
	rc = rc ? rc : tos_set(v, "cpu_us", tos_int(0));
	rc = rc ? rc : tos_set(v, "function", tos_text("begin"));
	rc = rc ? rc : tos_set(v, "home", tos_text(place));
	rc = rc ? rc : tos_set(v, "kernel", tos_text(place));
	rc = rc ? rc : tos_set(v, "name", tos_text(name));
	rc = rc ? rc : tos_set(v, "owner", tos_text(place));
	rc = rc ? rc : tos_set(v, "state", tos_bytes("", 0));
	rc = rc ? rc : tos_set(v, "usage", tos_map());
	rc = rc ? rc : start_code(s, v, em);
	rc = rc ? rc : tos_encode(v, &p, &n);
	if (rc == 0)
		cbor_put_raw(out, (struct slice){ p, n });
	free(p);
	tos_value_free(path);
	tos_value_free(limits);
	tos_value_free(v);
	return rc;
}

static int part_add(struct tos_value *parts, const char *name, const void *p, size_t n)
{
	char hex[2 * DIGEST_BYTES + 1];
	uint8_t digest[DIGEST_BYTES];
	struct tos_value *v = tos_map();
	int rc;

	digest_bytes(p, n, digest);
	rc = tos_set(v, "part", tos_text(name));
	rc = rc ? rc : tos_set(v, "bytes", tos_int((int64_t)n));
	rc = rc ? rc : tos_set(v, "sha256", tos_text(text_hex(digest, sizeof(digest), hex)));
	if (rc == 0)
		return tos_push(parts, v);
	tos_value_free(v);
	return rc;
}

static int part_value(struct tos_value *parts, const char *name, const struct tos_value *v)
{
	uint8_t *p = NULL;
	size_t n = 0;
	int rc = tos_encode(v, &p, &n);

	rc = rc ? rc : part_add(parts, name, p, n);
	free(p);
	return rc;
}

static int describe_properties(const struct tos_shell *s, struct tos_value *v)
{
	struct tos_value *folders = tos_map(), *limits = tos_map();
	int rc = 0;

	for (size_t i = 0; rc == 0 && i < tos_len(s->briefcase); i++)
		rc = tos_set_value(folders, tos_value_copy(tos_key_at(s->briefcase, i)),
			tos_int((int64_t)tos_len(tos_value_at(s->briefcase, i))));
	for (size_t i = 0; rc == 0 && i < LIMIT_COUNT; i++)
		if (s->limits[i] != limit_defaults[i])
			rc = tos_set(limits, limit_names[i], tos_int(s->limits[i]));
	rc = rc ? rc : tos_set(v, "folders", STEAL(folders));
	rc = rc ? rc : tos_set(v, "limits", STEAL(limits));
	rc = rc ? rc : tos_set(v, "path", tos_text(s->path));
	rc = rc ? rc : tos_set(v, "on-unreachable", tos_text(s->on_unreachable));
	rc = rc ? rc : tos_set(v, "itinerant", tos_bool(s->itinerant));
	tos_value_free(folders);
	tos_value_free(limits);
	return rc;
}

int shell_describe(const struct tos_shell *s, struct tos_value **out, struct errmsg *em)
{
	struct tos_value *v = tos_map(), *parts = tos_array(), *path = NULL;
	const struct buf *code = s->bundle.len ? &s->bundle : &s->source;
	int rc = path_entries(s->path, NULL, NULL, &path, em);

	rc = rc ? rc : part_add(parts, "code", code->data, code->len);
	rc = rc ? rc : part_value(parts, "path", path);
	rc = rc ? rc : part_value(parts, "data", s->briefcase);
	rc = rc ? rc : tos_set(v, "parts", STEAL(parts));
	rc = rc ? rc : describe_properties(s, v);
	rc = rc ? rc : shell_describe_seals(s, v);
	tos_value_free(parts);
	tos_value_free(path);
	if (rc < 0)
		tos_value_free(v);
	else
		*out = v;
	return rc;
}
