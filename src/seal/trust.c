/*
 * Whether a chain leads to the domain's root, is in time, and not revoked. The one place that
 * decides it: signatures, TLS on both sides and joining hosts all come here.
 *
 * A chain is LEAF, or KERNEL then REGISTRAR; there is nothing longer. The root is compared byte
 * by byte, never looked up by name.
 */
#include "seal/ossl.h"

#include <string.h>

#include "base/text.h"

#define CHAIN_MAX 2

static const char *show(const struct cert *c, char buf[96])
{
	snprintf(buf, 96, "%s %s", cert_kind_word(c->info.kind), c->info.name);
	return buf;
}

/* Who may stand where: only these two shapes. */
static int check_shape(const struct cert *c, size_t n, struct errmsg *em)
{
	char who[96];

	if (c[0].info.kind != CERT_KERNEL && c[0].info.kind != CERT_PRINCIPAL)
		return err_set(em, ERR_UNTRUSTED, "%s is neither a kernel nor a principal",
			show(&c[0], who));
	if (n == 1)
		return 0;
	if (c[1].info.kind != CERT_REGISTRAR)
		return err_set(
			em, ERR_UNTRUSTED, "%s may not issue certificates", show(&c[1], who));
	if (c[0].info.kind != CERT_KERNEL)
		return err_set(em, ERR_UNTRUSTED, "a registrar may not issue for %s",
			show(&c[0], who));
	return 0;
}

static int check_signatures(const struct slice *ders, const struct cert *c, size_t n,
	const struct cert *root, struct errmsg *em)
{
	char who[96];

	for (size_t i = 0; i < n; i++) {
		const struct cert *issuer = i + 1 < n ? &c[i + 1] : root;

		if (!cert_signed_by(ders[i], &c[i], issuer))
			return err_set(em, ERR_UNTRUSTED,
				"the certificate of %s was not issued by this domain",
				show(&c[i], who));
	}
	return 0;
}

static int check_standing(const struct trust *t, const struct cert *c, struct errmsg *em)
{
	char who[96], serial[41];
	int rc = cert_in_time(&c->info, t->now_ms, t->skew_ms, em);

	if (rc < 0)
		return rc;
	if (t->revocation && c->info.kind != CERT_ROOT &&
		revocation_has(t->revocation, c->info.serial, c->info.serial_len))
		return err_set(em, ERR_REVOKED,
			"the certificate of %s has been revoked (serial %s)", show(c, who),
			text_hex(c->info.serial, c->info.serial_len, serial));
	return 0;
}

static int parse_root(const struct trust *t, struct cert *root, struct errmsg *em)
{
	int rc = cert_parse(t->root_der, root, em);

	if (rc < 0)
		return err_wrap(em, rc, "the domain's root");
	if (root->info.kind != CERT_ROOT || !cert_signed_by(t->root_der, root, root))
		return err_set(
			em, ERR_UNTRUSTED, "the domain's root is not a root certificate");
	return 0;
}

int trust_verify(const struct trust *t, const struct slice *chain, size_t n,
	struct cert_info *leaf, struct errmsg *em)
{
	struct cert c[CHAIN_MAX], root;
	int rc;

	if (n == 0)
		return err_set(em, ERR_MALFORMED, "no certificate");
	if (n > CHAIN_MAX)
		return err_set(em, ERR_UNTRUSTED, "a chain of %zu certificates is too long", n);
	rc = parse_root(t, &root, em);
	for (size_t i = 0; i < n && rc == 0; i++)
		rc = cert_parse(chain[i], &c[i], em);
	if (rc == 0)
		rc = check_shape(c, n, em);
	if (rc == 0)
		rc = check_signatures(chain, c, n, &root, em);
	for (size_t i = 0; i < n && rc == 0; i++)
		rc = check_standing(t, &c[i], em);
	if (rc == 0)
		rc = check_standing(t, &root, em);
	if (rc == 0)
		*leaf = c[0].info;
	return rc;
}
