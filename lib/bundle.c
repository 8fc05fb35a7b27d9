/* Looks at a bundle as a kernel does when it is offered one. */
#include "lib/bundle.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "lib/domain.h"
#include "lib/home.h"
#include "lib/modules.h"
#include "seal/seal.h"
#include "wire/carrier.h"

/* Files that have the name of a library of the system: is it that one, as it is here? */
static int describe_libraries(struct tos_value *v, const struct bundle *b)
{
	struct tos_value *libraries = tos_map();
	int rc = 0;

	for (size_t i = 0; rc == 0 && i < b->n_files; i++) {
		AUTOFREE char *name = mem_dup(b->files[i].name.p, b->files[i].name.n);
		enum module_kin kin =
			module_kin(name, b->files[i].content.p, b->files[i].content.n);

		if (kin != MODULE_OWN)
			rc = tos_set(libraries, name,
				tos_text(
					kin == MODULE_SYSTEM
						? "the system's library"
						: "NOT the system's library of that name here"));
	}
	return tos_set(v, "libraries", libraries) || rc ? ERR_NOMEM : 0;
}

static int describe(struct tos_value *v, const struct manifest *m, const struct bundle *b)
{
	struct tos_value *files = tos_map();
	char when[CLOCK_TEXT_BYTES];
	int rc = tos_set(v, "name", tos_text(m->name));

	rc |= tos_set(v, "version", tos_text(m->version));
	rc |= tos_set(v, "runtime", tos_text(m->runtime));
	rc |= tos_set(v, "entry", tos_text(m->entry));
	rc |= tos_set(v, "issued", tos_text(clock_text(m->issued_ms, when)));
	rc |= tos_set(v, "expires", tos_text(clock_text(m->expires_ms, when)));
	for (size_t i = 0; i < b->n_files; i++)
		rc |= tos_set_value(files,
			tos_text_n((const char *)b->files[i].name.p, b->files[i].name.n),
			tos_int((int64_t)b->files[i].content.n));
	rc |= tos_set(v, "files", files);
	rc |= describe_libraries(v, b);
	return rc ? ERR_NOMEM : 0;
}

static int check_files(const struct manifest *m, const struct bundle *b, struct errmsg *em)
{
	bool entry = false;

	if (m->n_files != b->n_files)
		return err_set(em, ERR_SIGNATURE,
			"the manifest names %llu files, the bundle holds %llu",
			(unsigned long long)m->n_files, (unsigned long long)b->n_files);
	for (size_t i = 0; i < m->n_files; i++) {
		uint8_t digest[DIGEST_BYTES];
		size_t k = 0, n = strlen(m->files[i].name);

		while (k < b->n_files &&
			(b->files[k].name.n != n ||
				memcmp(b->files[k].name.p, m->files[i].name, n) != 0))
			k++;
		if (k == b->n_files)
			return err_set(
				em, ERR_SIGNATURE, "the file %s is missing", m->files[i].name);
		digest_bytes(b->files[k].content.p, b->files[k].content.n, digest);
		if (memcmp(digest, m->files[i].digest, sizeof(digest)) != 0)
			return err_set(em, ERR_SIGNATURE,
				"the file %s is not the one that was signed", m->files[i].name);
		entry = entry || strcmp(m->files[i].name, m->entry) == 0;
	}
	return entry ? 0
		     : err_set(em, ERR_MALFORMED, "its entry %s is not among its files",
			       m->entry);
}

static int check_signature(
	const char *home, const struct bundle *b, struct tos_value *v, struct errmsg *em)
{
	struct cert_info who;
	struct trusted *t;
	struct cose cose;
	int rc = trusted_open(home, &t, em);

	if (rc < 0)
		return rc;
	rc = cose_verify(trusted_trust(t), "manifest", b->manifest_cose, &cose, &who, em);
	if (rc == 0 && !(who.kind == CERT_PRINCIPAL && (who.roles & ROLE_AUTHOR)))
		rc = err_set(em, ERR_DENIED,
			"%s signed it, whose certificate lacks the role author", who.name);
	if (rc == 0)
		rc = tos_set(v, "author", tos_text(who.name));
	trusted_free(t);
	return rc;
}

static int verify_into(struct slice bytes, const char *home, struct bundle *b,
	struct tos_value *v, struct errmsg *em)
{
	char hex[2 * DIGEST_BYTES + 1] = "";
	int64_t now = clock_wall_ms();
	uint8_t digest[DIGEST_BYTES];
	struct manifest m;
	struct cose cose;
	int rc = bundle_decode(bytes, b, em);

	if (rc == 0)
		rc = cose_decode(b->manifest_cose, &cose, em);
	if (rc == 0)
		rc = manifest_decode(cose.payload, &m, em);
	if (rc < 0)
		return rc;
	digest_bytes(bytes.p, bytes.n, digest);
	for (size_t i = 0; i < sizeof(digest); i++)
		snprintf(hex + 2 * i, 3, "%02x", digest[i]);
	rc = describe(v, &m, b);
	if (rc == 0)
		rc = tos_set(v, "code", tos_text(hex));
	if (rc == 0)
		rc = check_signature(home, b, v, em);
	if (rc == 0)
		rc = check_files(&m, b, em);
	if (rc == 0 && m.expires_ms <= now)
		rc = err_set(em, ERR_EXPIRED, "the manifest expired on %s; build it again",
			tos_get_text(v, "expires", ""));
	manifest_fini(&m);
	return rc;
}

int bundle_verify(
	struct slice bundle, const char *home, struct tos_value **out, struct errmsg *em)
{
	struct tos_value *v = tos_map();
	struct bundle *b = mem_new(struct bundle);
	int rc = verify_into(bundle, home, b, v, em);

	free(b);
	if (tos_len(v) > 0)
		*out = v;
	else
		tos_value_free(v);
	return rc;
}
