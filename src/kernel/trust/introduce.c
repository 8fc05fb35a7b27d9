/*
 * Whose a client is. A local client is known by its uid, and its uid is no principal; so one that wants
 * to speak for a principal says so once, signed: "the client host0/client/7, of this boot of host0, is
 * mine until then". This kernel believes the signature, and shows it to the kernels that the client posts
 * to; they believe the signature too, and host0 only for which of its clients is which
 * (doc/protocol.md, "Introductions").
 *
 * Carriers and policy see the principal as they see that of a client with a certificate.
 */
#include "kernel/trust/introduce.h"

#include <string.h>

#include "base/clock.h"
#include "kernel/trust/trust.h"

#define INTRODUCTION_MOST_MS 3600000
/* Of one peer. It does not say which of them are gone; those of whom nothing was heard for longest make room,
 * and are denied until their introduction has ended: what a principal may not, its kernel's users might. */
#define PEER_CLIENTS_MAX   2048u
#define PEER_FORGOTTEN_MAX 65536u

static void introduced_free(struct introduced *i)
{
	if (i)
		blob_free(&i->introduction);
	free(i);
}

/* ---- what is signed */

static int payload_check(const struct tos_value *m, const char *kernel, const uint8_t boot[16],
	int64_t skew_ms, struct introduced *out, struct errmsg *em)
{
	const char *client = tos_get_text(m, "client", "");
	int64_t issued = tos_get_int(m, "issued", 0), now = clock_wall_ms();
	struct address a;
	const uint8_t *nonce;
	size_t n;

	out->until_ms = tos_get_int(m, "expires", 0);
	nonce = tos_get_bytes(m, "boot", &n);
	if (tos_type(m) != TOS_MAP || tos_len(m) != 4 || !nonce || n != 16 ||
		out->until_ms <= issued || issued <= 0)
		return err_set(em, ERR_MALFORMED,
			"an introduction has boot, client, expires and issued");
	/* A name of its own choosing may be another's next. */
	if (address_parse(client, strlen(client), &a, em) < 0 || a.kind != ADDRESS_CLIENT ||
		a.inbox[strspn(a.inbox, "0123456789")] || strcmp(a.kernel, kernel) != 0 ||
		memcmp(nonce, boot, 16) != 0)
		return err_set(em, ERR_DENIED,
			"the introduction is for no client of this run of %s", kernel);
	if (out->until_ms - issued > INTRODUCTION_MOST_MS)
		return err_set(em, ERR_LIMIT, "an introduction holds for an hour at most");
	if (out->until_ms < now - skew_ms)
		return err_set(
			em, ERR_EXPIRED, "the introduction has expired; check the clocks");
	if (issued > now + skew_ms)
		return err_set(
			em, ERR_NOT_YET, "the introduction is of the future; check the clocks");
	snprintf(out->origin.name, sizeof(out->origin.name), "%s", client);
	return 0;
}

/* For a client of that run of that kernel. */
static int introduction_verify(struct kernel *k, struct slice bytes, const char *kernel,
	const uint8_t boot[16], struct introduced *out, struct errmsg *em)
{
	struct tos_value *m = NULL;
	struct trust trust;
	struct cose cose;
	int rc;

	kernel_trust(k, &trust);
	rc = cose_verify(&trust, "client", bytes, &cose, &out->who, em);
	if (rc == 0 && out->who.kind != CERT_PRINCIPAL)
		rc = err_set(em, ERR_DENIED, "only principals have clients");
	if (rc == 0)
		rc = tos_decode(cose.payload.p, cose.payload.n, 0, &m);
	if (rc == 0)
		rc = payload_check(m, kernel, boot, k->config.skew_ms, out, em);
	tos_value_free(m);
	if (rc < 0)
		return rc;
	out->origin.cls = ORIGIN_CLIENT;
	snprintf(out->origin.principal, sizeof(out->origin.principal), "%s", out->who.name);
	out->origin.roles = out->who.roles;
	out->origin.owner_only = rights_of(k, &out->who);
	out->origin.may_read = true;
	return 0;
}

/* ---- clients here */

const struct introduced *introduced_find(struct kernel *k, const char *client)
{
	const struct introduced *i = map_find_str(k->introduced, client);

	return i && clock_wall_ms() < i->until_ms ? i : NULL;
}

/* What peers were shown of it says no longer whose it is. */
static void vouched_forget(struct kernel *k, const char *client)
{
	struct peer *p;
	size_t it = 0;

	while ((p = map_next(k->peers, &it, NULL, NULL)))
		map_del_str(p->vouched, client);
}

void introduced_drop(struct kernel *k, const char *client)
{
	struct introduced *i = map_del_str(k->introduced, client);

	if (i)
		vouched_forget(k, client);
	introduced_free(i);
}

static int introduce(
	struct kernel *k, const struct request *rq, struct slice bytes, struct errmsg *em)
{
	struct introduced *i = mem_new(struct introduced);
	const struct cert_info *cert = rq->from.link ? link_cert(rq->from.link) : NULL;
	int rc = introduction_verify(k, bytes, k->config.name, k->boot_nonce, i, em);

	if (rc == 0 && strcmp(i->origin.name, rq->from.name) != 0)
		rc = err_set(em, ERR_DENIED, "that is the introduction of %s", i->origin.name);
	if (rc == 0 && cert && strcmp(cert->name, i->who.name) != 0)
		rc = err_set(em, ERR_DENIED, "the connection is %s's", cert->name);
	if (rc < 0) {
		introduced_free(i);
		return rc;
	}
	blob_set(&i->introduction, bytes);
	introduced_drop(k, rq->from.name);
	map_put_str(k->introduced, i->origin.name, i);
	return 0;
}

static void introduce_refuse(
	struct kernel *k, struct request *rq, int rc, const struct errmsg *em)
{
	struct tos_value *m = tos_map();

	tos_set(m, "client", tos_text(rq->from.name));
	tos_set(m, "code", tos_text(err_word(rc)));
	tos_set(m, "text", tos_text(err_show(rc, em)));
	audit_refused(k, rq, "introduction-refused", m);
	metric_add(k->metrics, "introductions_refused_total", NULL, 1);
	request_fail(rq, rc, "%s", err_show(rc, em));
}

/* Without an introduction: what has to be in one. */
void introduce_verb(struct kernel *k, struct request *rq)
{
	const struct introduced *i;
	struct errmsg em = { "" };
	struct tos_value *m;
	struct slice bytes;
	int rc = 0;

	if (rq->from.cls != ORIGIN_CLIENT || !rq->from.link) {
		request_fail(rq, ERR_DENIED,
			"clients introduce themselves to the kernel that they are of");
		return;
	}
	bytes.p = tos_get_bytes(rq->args, "cose", &bytes.n);
	if (bytes.p)
		rc = introduce(k, rq, bytes, &em);
	if (rc < 0) {
		introduce_refuse(k, rq, rc, &em);
		return;
	}
	if (bytes.p)
		metric_add(k->metrics, "introductions_total", NULL, 1);
	i = introduced_find(k, rq->from.name);
	m = tos_map();
	tos_set(m, "boot", tos_bytes(k->boot_nonce, sizeof(k->boot_nonce)));
	tos_set(m, "client", tos_text(rq->from.name));
	tos_set(m, "principal", tos_text(i ? i->who.name : rq->from.principal));
	request_ok(rq, m);
}

/* ---- clients of peers */

const struct origin *introduced_holds(const struct kernel *k, const struct origin *o)
{
	const struct introduced *i = (const struct introduced *)o;

	if (!o || o->cls != ORIGIN_CLIENT)
		return o;
	return clock_wall_ms() < i->until_ms + k->config.skew_ms ? o : NULL;
}

static void peer_drop(struct peer *p, struct introduced *i)
{
	map_del_str(p->vouched_for, i->origin.name);
	list_del(&i->node);
	p->n_introduced--;
	introduced_free(i);
}

void introduced_clear(struct peer *p)
{
	void *until;
	size_t it = 0;

	while (!list_empty(&p->introduced))
		peer_drop(p, LIST_ITEM(p->introduced.next, struct introduced, node));
	while ((until = map_next(p->forgotten, &it, NULL, NULL)))
		free(until);
	map_free(p->forgotten);
	p->forgotten = map_new();
}

void introduced_heard(struct peer *p, const struct origin *o)
{
	struct introduced *i;

	if (!o || o->cls != ORIGIN_CLIENT)
		return;
	i = map_find_str(p->vouched_for, o->name);
	list_del(&i->node);
	list_add(&p->introduced, &i->node);
}

bool introduced_forgotten(const struct peer *p, struct slice client)
{
	const int64_t *until = map_find(p->forgotten, client.p, client.n);

	/* With no room to remember one more, it may be any. */
	return map_size(p->forgotten) >= PEER_FORGOTTEN_MAX ||
	       (until && clock_wall_ms() < *until);
}

static void forgotten_sweep(struct peer *p)
{
	int64_t *until, now = clock_wall_ms();
	const void *key;
	size_t it = 0, n;

	while ((until = map_next(p->forgotten, &it, &key, &n)))
		if (now >= *until)
			free(map_del(p->forgotten, key, n));
}

/* Room for one more. */
static bool peer_room(struct kernel *k, struct peer *p)
{
	struct introduced *i;
	int64_t *until;

	if (p->n_introduced < PEER_CLIENTS_MAX)
		return true;
	if (map_size(p->forgotten) >= PEER_FORGOTTEN_MAX)
		forgotten_sweep(p);
	if (map_size(p->forgotten) >= PEER_FORGOTTEN_MAX)
		return false;
	i = LIST_ITEM(p->introduced.next, struct introduced, node);
	if (introduced_holds(k, &i->origin)) {
		until = mem_new(int64_t);
		*until = i->until_ms + k->config.skew_ms;
		free(map_put_str(p->forgotten, i->origin.name, until));
		metric_add(k->metrics, "introductions_forgotten_total", NULL, 1);
	}
	peer_drop(p, i);
	return true;
}

/* Those that `which` names. */
static void peer_sweep(struct kernel *k, struct peer *p,
	bool (*which)(const struct kernel *, const struct cert_info *))
{
	struct list *pos, *tmp;

	LIST_EACH_SAFE(pos, tmp, &p->introduced)
	{
		struct introduced *i = LIST_ITEM(pos, struct introduced, node);

		if (which(k, &i->who))
			peer_drop(p, i);
	}
}

bool introduced_vouched(struct kernel *k, struct peer *p, struct slice introduction)
{
	struct introduced *i = mem_new(struct introduced), *old;
	struct errmsg em = { "" };

	if (!p->boot_known ||
		introduction_verify(k, introduction, p->name, p->boot_nonce, i, &em) < 0 ||
		!peer_room(k, p)) {
		introduced_free(i);
		return false;
	}
	snprintf(i->origin.kernel, sizeof(i->origin.kernel), "%s", p->name);
	old = map_find_str(p->vouched_for, i->origin.name);
	if (old)
		peer_drop(p, old);
	free(map_del_str(p->forgotten, i->origin.name));
	map_put_str(p->vouched_for, i->origin.name, &i->origin);
	list_add(&p->introduced, &i->node);
	p->n_introduced++;
	return true;
}

void introduced_revoke(struct kernel *k)
{
	struct introduced *i;
	struct peer *p;
	size_t it = 0;

	while ((i = map_next(k->introduced, &it, NULL, NULL)))
		if (cert_revoked(k, &i->who)) {
			introduced_drop(k, i->origin.name);
			it = 0;
		}
	it = 0;
	while ((p = map_next(k->peers, &it, NULL, NULL)))
		peer_sweep(k, p, cert_revoked);
}
