/* The domain that this room's tests use: see domain.h. */
#include "domain.h"

static void issue(const struct key *by, struct slice by_der, enum cert_kind kind,
	const char *name, unsigned roles, const struct key *for_key, int64_t from_ms,
	int64_t to_ms, struct buf *out)
{
	struct errmsg em = { "" };
	uint8_t public_key[32];
	int rc;

	key_public(for_key, public_key);
	rc = cert_issue(by, by_der, kind, name, roles, public_key, from_ms, to_ms, out, &em);
	if (rc < 0)
		print_message("cert_issue: %s\n", em.text);
	assert_int_equal(rc, 0);
}

void domain_init(struct domain *d)
{
	memset(d, 0, sizeof(*d));
	d->now_ms = clock_wall_ms();
	d->root_key = key_new();
	d->registrar_key = key_new();
	issue(d->root_key, (struct slice){ NULL, 0 }, CERT_ROOT, "test domain", 0, d->root_key,
		d->now_ms - DAY, d->now_ms + 3650 * DAY, &d->root);
	issue(d->root_key, slice_buf(&d->root), CERT_REGISTRAR, "registrar of host0", 0,
		d->registrar_key, d->now_ms - DAY, d->now_ms + 365 * DAY, &d->registrar);
	d->trust = (struct trust){ slice_buf(&d->root), NULL, d->now_ms, SKEW };
}

void domain_fini(struct domain *d)
{
	key_free(d->root_key);
	key_free(d->registrar_key);
	buf_fini(&d->root);
	buf_fini(&d->registrar);
}

struct signer *signer_new(struct domain *d, enum cert_kind kind, const char *name,
	unsigned roles, int64_t from_ms, int64_t to_ms)
{
	struct signer *s = mem_new(struct signer);

	s->key = key_new();
	s->n_chain = 1;
	issue(d->root_key, slice_buf(&d->root), kind, name, roles, s->key, d->now_ms + from_ms,
		d->now_ms + to_ms, &s->chain[0]);
	assert_int_equal(cert_info(slice_buf(&s->chain[0]), &s->info, NULL), 0);
	return s;
}

struct signer *signer_new_enrolled(struct domain *d, const char *name)
{
	struct signer *s = mem_new(struct signer);

	s->key = key_new();
	s->n_chain = 2;
	issue(d->registrar_key, slice_buf(&d->registrar), CERT_KERNEL, name, 0, s->key,
		d->now_ms - DAY, d->now_ms + DAY, &s->chain[0]);
	buf_add(&s->chain[1], d->registrar.data, d->registrar.len);
	assert_int_equal(cert_info(slice_buf(&s->chain[0]), &s->info, NULL), 0);
	return s;
}
