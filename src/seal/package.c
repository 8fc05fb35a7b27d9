/* Packages of extensions: see package.h. Runs in tos-kernel and in the command that signs. */
#include "seal/package.h"

#include <stdlib.h>
#include <string.h>

#include <tos/value.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/text.h"

#define RUNTIME     "extension"
#define RUNTIME_LUA "extension-lua"
#define DESCRIPTION ((size_t)256 << 10) /* memory that one may take */

/* ---- reading */

static const struct slice *file_of(const struct package *p, const char *name)
{
	for (uint64_t i = 0; i < p->bundle.n_files; i++) {
		struct slice s = p->bundle.files[i].name;

		if (s.n == strlen(name) && memcmp(s.p, name, s.n) == 0)
			return &p->bundle.files[i].content;
	}
	return NULL;
}

static int files_as_signed(const struct package *p, struct errmsg *em)
{
	const struct manifest *m = &p->manifest;

	if (p->bundle.n_files != m->n_files)
		return err_set(em, ERR_MALFORMED,
			"the package has other files than its manifest says");
	for (uint64_t i = 0; i < m->n_files; i++) {
		const struct slice *content = file_of(p, m->files[i].name);
		uint8_t digest[DIGEST_BYTES];

		if (!content)
			return err_set(em, ERR_MALFORMED, "file %s is missing in the package",
				m->files[i].name);
		digest_bytes(content->p, content->n, digest);
		if (memcmp(digest, m->files[i].digest, sizeof(digest)) != 0)
			return err_set(em, ERR_SIGNATURE,
				"file %s is not what the officer signed", m->files[i].name);
	}
	return 0;
}

static int officer_ok(const struct package *p, const struct trust *t, struct errmsg *em)
{
	const struct manifest *m = &p->manifest;

	if (p->officer.kind != CERT_PRINCIPAL || !(p->officer.roles & ROLE_OFFICER))
		return err_set(em, ERR_DENIED,
			"%s signed the package but has not the role officer", p->officer.name);
	if (m->expires_ms < t->now_ms - t->skew_ms)
		return err_set(em, ERR_EXPIRED, "the package of %s has expired", m->name);
	if (m->issued_ms > t->now_ms + t->skew_ms)
		return err_set(em, ERR_NOT_YET,
			"the package of %s is not yet valid; check the clocks", m->name);
	return 0;
}

static int text_of(const struct tos_value *v, char *out, size_t cap)
{
	const char *s = tos_as_text(v, NULL);

	return s && strlen(s) == tos_len(v) && text_copy(out, cap, s, strlen(s)) == 0
		       ? 0
		       : ERR_MALFORMED;
}

static int inboxes_read(struct package *p, const struct tos_value *inboxes)
{
	size_t used = 0;

	if (tos_type(inboxes) != TOS_ARRAY || !tos_len(inboxes) ||
		tos_len(inboxes) > PACKAGE_INBOXES)
		return ERR_MALFORMED;
	for (size_t i = 0; i < tos_len(inboxes); i++) {
		char name[64];

		if (text_of(tos_at(inboxes, i), name, sizeof(name)) < 0 || !name[0] ||
			strchr(name, ' '))
			return ERR_MALFORMED;
		used += (size_t)snprintf(p->inboxes + used, sizeof(p->inboxes) - used, "%s%s",
			i ? " " : "", name);
	}
	return 0;
}

static int description_read(struct package *p, const struct tos_value *v)
{
	const struct tos_value *abi = tos_get(v, "abi"), *files = tos_get(v, "files");
	char where[16];

	if (tos_type(v) != TOS_MAP || tos_len(v) != 5 || tos_len(abi) != 2 ||
		tos_type(files) != TOS_MAP || !tos_len(files))
		return ERR_MALFORMED;
	p->abi_major = (unsigned)tos_as_int(tos_at(abi, 0), 0);
	p->abi_minor = (unsigned)tos_as_int(tos_at(abi, 1), -1);
	for (size_t i = 0; i < tos_len(files); i++) {
		const char *name = tos_as_text(tos_value_at(files, i), NULL);

		if (!name || !file_of(p, name))
			return ERR_MALFORMED;
	}
	p->files = tos_value_copy(files);
	if (text_of(tos_get(v, "where"), where, sizeof(where)) < 0 ||
		(strcmp(where, "isolated") != 0 && strcmp(where, "kernel") != 0) ||
		text_of(tos_get(v, "privileges"), p->privileges, sizeof(p->privileges)) < 0)
		return ERR_MALFORMED;
	p->in_kernel = strcmp(where, "kernel") == 0;
	return inboxes_read(p, tos_get(v, "inboxes"));
}

static int describe(struct package *p, struct errmsg *em)
{
	const struct slice *entry = file_of(p, p->manifest.entry);
	struct tos_value *v = NULL;
	int rc;

	p->lua = strcmp(p->manifest.runtime, RUNTIME_LUA) == 0;
	if (!p->lua && strcmp(p->manifest.runtime, RUNTIME) != 0)
		return err_set(em, ERR_UNSUPPORTED, "%s is no extension: its runtime is %s",
			p->manifest.name, p->manifest.runtime);
	rc = entry ? tos_decode(entry->p, entry->n, DESCRIPTION, &v) : ERR_MALFORMED;
	if (rc == 0)
		rc = description_read(p, v);
	tos_value_free(v);
	return rc < 0 ? err_set(em, rc, "what the package of %s says of it is malformed",
				p->manifest.name)
		      : 0;
}

int package_open(
	const struct trust *t, struct slice bytes, struct package *out, struct errmsg *em)
{
	struct cose cose;
	int rc;

	memset(out, 0, sizeof(*out));
	if (bytes.n > PACKAGE_BYTES_MAX)
		return err_set(em, ERR_TOO_LARGE, "a package has at most %zu MiB",
			PACKAGE_BYTES_MAX >> 20);
	digest_bytes(bytes.p, bytes.n, out->digest);
	rc = bundle_decode(bytes, &out->bundle, em);
	if (rc == 0)
		rc = cose_verify(
			t, PACKAGE_KIND, out->bundle.manifest_cose, &cose, &out->officer, em);
	if (rc == 0)
		rc = manifest_decode(cose.payload, &out->manifest, em);
	if (rc == 0)
		rc = officer_ok(out, t, em);
	if (rc == 0)
		rc = files_as_signed(out, em);
	if (rc == 0)
		rc = describe(out, em);
	if (rc < 0)
		package_close(out);
	return rc;
}

void package_close(struct package *p)
{
	manifest_fini(&p->manifest);
	tos_value_free(p->files);
	p->files = NULL;
}

int package_file(
	const struct package *p, const char *machine, struct slice *out, struct errmsg *em)
{
	const char *name = tos_get_text(p->files, p->lua ? "any" : machine, NULL);
	const struct slice *content = name ? file_of(p, name) : NULL;
	AUTOBUF there = BUF_INIT;

	for (size_t i = 0; i < tos_len(p->files); i++)
		buf_printf(&there, "%s%s", i ? ", " : "",
			tos_as_text(tos_key_at(p->files, i), "?"));
	if (!content)
		return err_set(em, ERR_UNSUPPORTED,
			"%s is not made for this machine (%s), but for %s", p->manifest.name,
			machine, buf_cstr(&there));
	if (!content->n || content->n > PACKAGE_FILE_MAX)
		return err_set(em, ERR_TOO_LARGE,
			"what %s brings for this machine has %zu bytes, and may have %zu",
			p->manifest.name, content->n, PACKAGE_FILE_MAX);
	*out = *content;
	return 0;
}

/* ---- making */

static int description_make(const struct package_make *m, uint8_t **p, size_t *n)
{
	struct tos_value *v = tos_map(), *abi = tos_array(), *files = tos_map();
	int rc = 0;

	tos_push(abi, tos_int(m->abi_major));
	tos_push(abi, tos_int(m->abi_minor));
	for (size_t i = 0; i < m->n_parts; i++)
		rc |= tos_set(files, m->part[i].machine, tos_text(m->part[i].name));
	rc |= tos_set(v, "abi", abi);
	rc |= tos_set(v, "files", files);
	rc |= tos_set(v, "where", tos_text(m->in_kernel ? "kernel" : "isolated"));
	rc |= tos_set(v, "inboxes", tos_value_copy(m->inboxes));
	rc |= tos_set(v, "privileges", tos_text(m->privileges ? m->privileges : ""));
	rc = rc ? ERR_MALFORMED : tos_encode(v, p, n);
	tos_value_free(v);
	return rc;
}

static void manifest_fill(struct manifest *m, const struct package_make *made,
	const struct slice *names, const struct slice *contents, size_t n, int64_t expires_ms)
{
	snprintf(m->name, sizeof(m->name), "%s", made->name);
	snprintf(m->version, sizeof(m->version), "%s", made->version);
	snprintf(m->runtime, sizeof(m->runtime), "%s", made->lua ? RUNTIME_LUA : RUNTIME);
	snprintf(m->entry, sizeof(m->entry), "%s", PACKAGE_ENTRY);
	m->files = mem_zero(n * sizeof(*m->files));
	m->n_files = n;
	for (size_t i = 0; i < n; i++) {
		text_copy(m->files[i].name, sizeof(m->files[i].name), (const char *)names[i].p,
			names[i].n);
		digest_bytes(contents[i].p, contents[i].n, m->files[i].digest);
	}
	for (size_t i = 0; i < LIMIT_COUNT; i++)
		m->limits[i] = -1;
	m->issued_ms = clock_wall_ms();
	m->expires_ms = expires_ms;
}

static int parts_sign(const struct package_make *made, const struct signer *officer,
	int64_t expires_ms, struct slice description, struct buf *out, struct errmsg *em)
{
	struct slice names[MANIFEST_FILES_MAX], contents[MANIFEST_FILES_MAX];
	size_t n = made->n_parts + 1;
	struct manifest m;
	AUTOBUF payload = BUF_INIT;
	AUTOBUF cose = BUF_INIT;
	int rc;

	if (!made->n_parts || n > MANIFEST_FILES_MAX)
		return err_set(
			em, ERR_USAGE, "a package has 1 to %d files", MANIFEST_FILES_MAX - 1);
	names[0] = (struct slice){ (const uint8_t *)PACKAGE_ENTRY, strlen(PACKAGE_ENTRY) };
	contents[0] = description;
	for (size_t i = 1; i < n; i++) {
		names[i] = (struct slice){ (const uint8_t *)made->part[i - 1].name,
			strlen(made->part[i - 1].name) };
		contents[i] = made->part[i - 1].content;
	}
	memset(&m, 0, sizeof(m));
	manifest_fill(&m, made, names, contents, n, expires_ms);
	manifest_encode(&payload, &m);
	manifest_fini(&m);
	rc = buf_check(&payload);
	if (rc == 0)
		rc = cose_sign(officer, PACKAGE_KIND,
			(struct slice){ payload.data, payload.len }, &cose, em);
	if (rc < 0)
		return err_wrap(em, rc, "signing the package");
	bundle_encode(out, (struct slice){ cose.data, cose.len }, names, contents, n);
	return buf_check(out);
}

int package_make(const struct package_make *m, const struct signer *officer, int64_t expires_ms,
	struct buf *out, struct errmsg *em)
{
	uint8_t *p = NULL;
	size_t n = 0;
	int rc;

	if (officer->info.kind != CERT_PRINCIPAL || !(officer->info.roles & ROLE_OFFICER))
		return err_set(em, ERR_DENIED,
			"%s may not sign packages: its certificate lacks the role officer; "
			"--sign NAME takes another",
			officer->info.name);
	if (expires_ms > officer->info.not_after_ms)
		expires_ms = officer->info.not_after_ms;
	rc = description_make(m, &p, &n);
	rc = rc ? err_set(em, rc, "the package cannot be described")
		: parts_sign(m, officer, expires_ms, (struct slice){ p, n }, out, em);
	free(p);
	return rc;
}
