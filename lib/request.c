/*
 * Principals whose key is made elsewhere: the request where the key is, the certificate where the
 * root is, and back. What travels is public; its two ends compare the key's fingerprint.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/text.h"
#include "lib/domain.h"
#include "lib/domain_inside.h"
#include "seal/seal.h"

static void describe(struct principal_request *out, const char *name, unsigned roles,
	const uint8_t public_key[32])
{
	uint8_t digest[DIGEST_BYTES];

	snprintf(out->name, sizeof(out->name), "%.64s", name);
	out->roles = roles;
	out->only[0] = 0;
	digest_bytes(public_key, 32, digest);
	text_hex(digest, sizeof(digest), out->fingerprint);
}

static int in_keys(char out[HOME_PATH_MAX], const char *home, const char *name,
	const char *file, struct errmsg *em)
{
	return path_join(out, HOME_PATH_MAX, em, home, "keys", name, file, NULL);
}

/* The key of an earlier request is used again: what is signed for it still fits. */
static int request_key(const char *home, const char *name, const char *passphrase,
	struct key **out, struct errmsg *em)
{
	char dir[HOME_PATH_MAX], path[HOME_PATH_MAX], cert[HOME_PATH_MAX];
	int rc = path_join(dir, sizeof(dir), em, home, "keys", name, NULL);

	rc = rc ? rc : in_keys(path, home, name, "key", em);
	rc = rc ? rc : in_keys(cert, home, name, "cert", em);
	if (rc == 0 && access(path, F_OK) < 0 && access(cert, F_OK) == 0)
		return err_set(em, ERR_EXISTS,
			"there is a principal %s in %s already, whose key is elsewhere", name,
			dir);
	if (rc == 0 && access(path, F_OK) == 0)
		return key_load(path, passphrase, out, em);
	rc = rc ? rc : dir_make(dir, 0700, em);
	if (rc < 0)
		return rc;
	*out = key_new();
	rc = key_save(*out, path, passphrase, false, em);
	if (rc < 0) {
		key_free(*out);
		*out = NULL;
	}
	return rc;
}

int principal_request(const char *home, const char *name, unsigned roles,
	struct principal_request *out, struct errmsg *em)
{
	char base[HOME_PATH_MAX];
	AUTO(key) k = NULL;
	AUTOBUF der = BUF_INIT;
	uint8_t public[32];
	int rc = principal_name_check(name, em);

	rc = rc ? rc : home_path(home, base, em);
	rc = rc ? rc : request_key(base, name, domain_passphrase(), &k, em);
	rc = rc ? rc : request_make(k, name, roles, &der, em);
	rc = rc ? rc : in_keys(out->path, base, name, "request", em);
	rc = rc ? rc : request_save(out->path, (struct slice){ der.data, der.len }, em);
	if (rc < 0)
		return rc;
	key_public(k, public);
	describe(out, name, roles, public);
	return 0;
}

int principal_request_read(const char *file, struct principal_request *out, struct errmsg *em)
{
	struct cert_request r = { .roles = 0 };
	AUTOBUF der = BUF_INIT;
	int rc = request_load(file, &der, em);

	rc = rc ? rc : request_parse((struct slice){ der.data, der.len }, &r, em);
	rc = rc ? rc : principal_name_check(r.name, em);
	if (rc < 0)
		return rc;
	describe(out, r.name, r.roles, r.public_key);
	memcpy(out->public_key, r.public_key, sizeof(out->public_key));
	return 0;
}

/* Has this principal a certificate for this very key and these roles already? */
static bool is_signed(const char *cert, const struct principal_request *r)
{
	struct buf ders[COSE_CHAIN_MAX];
	struct cert_info info;
	size_t n = 0;
	bool same;

	if (certs_load(cert, ders, &n, NULL) < 0)
		return false;
	same = cert_info((struct slice){ ders[0].data, ders[0].len }, &info, NULL) == 0 &&
	       memcmp(info.public_key, r->public_key, sizeof(r->public_key)) == 0 &&
	       info.roles == r->roles && strcmp(info.only, r->only) == 0;
	for (size_t i = 0; i < n; i++)
		buf_fini(&ders[i]);
	return same;
}

int domain_principal_sign(
	const struct home *h, struct principal_request *r, int64_t valid_ms, struct errmsg *em)
{
	char dir[HOME_PATH_MAX], key[HOME_PATH_MAX];
	int rc = path_join(dir, sizeof(dir), em, h->path, "keys", r->name, NULL);

	rc = rc ? rc : in_keys(r->path, h->path, r->name, "cert", em);
	rc = rc ? rc : in_keys(key, h->path, r->name, "key", em);
	if (rc < 0)
		return rc;
	if (access(r->path, F_OK) == 0 && is_signed(r->path, r))
		return 0; /* asked twice: the first answer */
	if (access(r->path, F_OK) == 0 || access(key, F_OK) == 0)
		return err_set(em, ERR_EXISTS,
			"there is a principal %s in %s/keys already, with another key, other "
			"roles or restrictions; --replace revokes that one",
			r->name, h->path);
	rc = dir_make(dir, 0700, em);
	return rc ? rc
		  : domain_issue_principal(h, r->name, r->roles, r->only, r->public_key,
			    valid_ms, r->path, em);
}

/* The certificate and, behind it, the root it came with. */
struct given {
	struct buf ders[COSE_CHAIN_MAX];
	size_t n;
	struct cert_info leaf;
};
static void given_done(struct given *g)
{
	for (size_t i = 0; i < g->n; i++)
		buf_fini(&g->ders[i]);
}
static struct slice given_at(const struct given *g, size_t i)
{
	return (struct slice){ g->ders[i].data, g->ders[i].len };
}

/* What this TOS_HOME knows of its domain counts; the root that came along only where it knows
 * none. */
static int given_check(const char *home, const struct given *g, struct errmsg *em)
{
	struct slice chain[1] = { given_at(g, 0) };
	struct trust alone = { .now_ms = clock_wall_ms(), .skew_ms = 300000 };
	struct trusted *t = NULL;
	struct cert_info leaf;
	int rc = trusted_open(home, &t, em);

	if (rc == ERR_NOT_FOUND && g->n == 2) {
		alone.root_der = given_at(g, 1);
		return trust_verify(&alone, chain, 1, &leaf, em);
	}
	rc = rc ? rc : trust_verify(trusted_trust(t), chain, 1, &leaf, em);
	trusted_free(t);
	return rc;
}

static int given_fits(
	const char *home, const struct given *g, const char *passphrase, struct errmsg *em)
{
	char path[HOME_PATH_MAX];
	AUTO(key) k = NULL;
	uint8_t public[32];
	int rc = in_keys(path, home, g->leaf.name, "key", em);

	rc = rc ? rc : key_load(path, passphrase, &k, em);
	if (rc == ERR_NOT_FOUND)
		return err_set(em, rc,
			"there is no key of %s in %s/keys; it is imported where 'tos principal "
			"request %s' was run",
			g->leaf.name, home, g->leaf.name);
	if (rc < 0)
		return rc;
	key_public(k, public);
	if (memcmp(public, g->leaf.public_key, sizeof(public)) != 0)
		return err_set(em, ERR_UNTRUSTED,
			"the certificate of %s is for another key than the one here",
			g->leaf.name);
	return 0;
}

/* Where there is no domain.conf yet, this makes one that names the principal. */
static int home_begin(const char *home, const char *principal, struct errmsg *em)
{
	struct home h;
	struct errmsg none;
	int rc = home_open(home, &h, &none);

	if (rc == 0 && *h.principal)
		return 0;
	if (rc < 0 && rc != ERR_NOT_FOUND)
		return err_set(em, rc, "%s", none.text);
	snprintf(h.principal, sizeof(h.principal), "%.64s", principal);
	return home_write(&h, em);
}

static int given_keep(const char *home, const struct given *g, struct principal_request *out,
	struct errmsg *em)
{
	char request[HOME_PATH_MAX];
	struct slice ders[COSE_CHAIN_MAX];
	int rc = in_keys(out->path, home, g->leaf.name, "cert", em);

	for (size_t i = 0; i < g->n; i++)
		ders[i] = given_at(g, i);
	rc = rc ? rc : certs_save(out->path, ders, g->n, em);
	rc = rc ? rc : home_begin(home, g->leaf.name, em);
	if (rc == 0 && in_keys(request, home, g->leaf.name, "request", NULL) == 0)
		unlink(request); /* answered */
	return rc;
}

int principal_import(
	const char *home, const char *file, struct principal_request *out, struct errmsg *em)
{
	struct given g = { .n = 0 };
	char base[HOME_PATH_MAX];
	int rc = home_path(home, base, em);

	rc = rc ? rc : certs_load(file, g.ders, &g.n, em);
	rc = rc ? rc : cert_info(given_at(&g, 0), &g.leaf, em);
	if (rc == 0 && (g.leaf.kind != CERT_PRINCIPAL || g.n > 2))
		rc = err_set(em, ERR_MALFORMED, "%s is no certificate of a principal", file);
	rc = rc ? rc : principal_name_check(g.leaf.name, em);
	rc = rc ? rc : given_fits(base, &g, domain_passphrase(), em);
	rc = rc ? rc : given_check(base, &g, em);
	rc = rc ? rc : given_keep(base, &g, out, em);
	if (rc == 0) {
		describe(out, g.leaf.name, g.leaf.roles, g.leaf.public_key);
		memcpy(out->only, g.leaf.only, sizeof(out->only));
	}
	given_done(&g);
	return rc;
}
