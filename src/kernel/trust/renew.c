/*
 * This kernel's own certificate: at two thirds of its life the registrar is asked for another one
 * for the same key (inbox Registrar, RENEW), which replaces it in the file and for the links and
 * signatures from then on. What was signed before stays good: it counts at the time it was signed.
 */
#include "kernel/trust/trust.h"

#include <string.h>

#include "base/clock.h"
#include "base/log.h"

#define CALL_MS       20000
#define LOOK_MS       1000
#define AGAIN_MOST_MS 3600000
#define AGAIN_MS      10000

static int64_t life(const struct cert_info *c)
{
	return c->not_after_ms - c->not_before_ms;
}

static bool due(const struct cert_info *c, int64_t now_ms)
{
	return now_ms >= c->not_before_ms + life(c) / 3 * 2;
}

/* The chain is this domain's, for this kernel and its key, and lasts longer. */
static int chain_read(struct kernel *k, const struct tos_value *list,
	struct slice chain[COSE_CHAIN_MAX], size_t *n, struct errmsg *em)
{
	struct cert_info info;
	struct trust trust;
	int rc;

	*n = tos_len(list);
	if (*n < 1 || *n > COSE_CHAIN_MAX)
		return err_set(em, ERR_MALFORMED, "a chain of %zu certificates", *n);
	for (size_t i = 0; i < *n; i++) {
		chain[i].p = tos_as_bytes(tos_at(list, i), &chain[i].n);
		if (!chain[i].p)
			return err_set(em, ERR_MALFORMED, "not a chain of certificates");
	}
	kernel_trust(k, &trust);
	rc = trust_verify(&trust, chain, *n, &info, em);
	if (rc < 0)
		return rc;
	if (info.kind != CERT_KERNEL || strcmp(info.name, k->config.name) != 0 ||
		memcmp(info.public_key, k->signer->info.public_key, sizeof(info.public_key)) !=
			0)
		return err_set(em, ERR_UNTRUSTED, "it is for %s or another key", info.name);
	if (info.not_after_ms <= k->signer->info.not_after_ms)
		return err_set(em, ERR_EXPIRED, "it lasts no longer than the present one");
	return 0;
}

static int certificate_take(struct kernel *k, const struct tos_value *list, struct errmsg *em)
{
	char key[TOSD_PATH_BYTES + 32], cert[TOSD_PATH_BYTES + 32];
	struct slice chain[COSE_CHAIN_MAX], root = { k->root_der.data, k->root_der.len };
	struct signer *s = NULL;
	size_t n;
	int rc = chain_read(k, list, chain, &n, em);

	snprintf(key, sizeof(key), "%s/key", k->dir);
	snprintf(cert, sizeof(cert), "%s/cert", k->dir);
	if (rc == 0)
		rc = certs_save(cert, chain, n, em);
	if (rc == 0)
		rc = signer_load(key, cert, NULL, &s, em);
	if (rc == 0)
		rc = tls_context_renew(k->tls, s, root, em);
	if (rc < 0) {
		signer_free(s);
		return rc;
	}
	signer_free(k->signer);
	k->signer = s;
	return 0;
}

static void on_renewed(
	struct kernel *k, void *arg, int rc, const char *text, const struct tos_value *elements)
{
	struct errmsg em = { "" };
	struct tos_value *m;

	(void)arg;
	k->renewing = false;
	if (rc < 0)
		err_set(&em, rc, "%s", text);
	else
		rc = certificate_take(k, tos_get(tos_at(elements, 0), "chain"), &em);
	if (rc < 0) {
		metric_add(k->metrics, "renewals_failed_total", NULL, 1);
		log_warning("this kernel's certificate could not be renewed; it is tried again",
			KV_STR("registrar", k->config.registrar), KV_ERR(rc, &em));
		return;
	}
	must(k->signer);
	m = tos_map();
	tos_set(m, "expires", tos_int(k->signer->info.not_after_ms));
	audit_event(k, NULL, "certificate-renewed", m);
	log_notice("this kernel's certificate is renewed",
		KV_INT("days", (k->signer->info.not_after_ms - clock_wall_ms()) / 86400000));
}

/* A link whose other end has not renewed in time ends; a new one would not come about. */
static void expired_close(struct kernel *k)
{
	int64_t past = clock_wall_ms() - k->config.skew_ms;
	struct link *next;

	for (struct link *l = links_next(k->links, NULL); l; l = next) {
		next = links_next(k->links, l);
		if (link_cert(l) && link_kind(l) != LINK_JOINER &&
			link_cert(l)->not_after_ms < past)
			link_close(l, ERR_EXPIRED, "the certificate has expired");
	}
}

void renew_tick(struct kernel *k, int64_t now_ms)
{
	const struct cert_info *own = &k->signer->info;
	struct tos_value *args;
	int64_t again = life(own) / 200;

	if (now_ms < k->renew_at_ms)
		return;
	k->renew_at_ms = now_ms + LOOK_MS;
	expired_close(k);
	if (k->renewing || !k->config.registrar[0] || !due(own, clock_wall_ms()))
		return;
	again = again < AGAIN_MS ? AGAIN_MS : again > AGAIN_MOST_MS ? AGAIN_MOST_MS : again;
	k->renew_at_ms = now_ms + again;
	k->renewing = true;
	args = tos_map();
	tos_set(args, "public_key", tos_bytes(own->public_key, sizeof(own->public_key)));
	kernel_call(
		k, k->config.registrar, "Registrar", "RENEW", args, CALL_MS, on_renewed, NULL);
}
