/*
 * tos resolve --force: a holder goes on without its home's word. The incarnation is raised by whoever
 * signed the act: count as it says, nonce from the act's own. The act travels in the carrier's
 * trail, so that the home, when it is back, can see who raised it, wherever the carrier is by then.
 */
#include "kernel/handoff/forced.h"

#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "kernel/carrier/resident.h"
#include "kernel/handoff/restored.h"
#include "kernel/home/home.h"
#include "kernel/trust/trust.h"

/* The act by which that incarnation was made, as the trail has it; empty: it was not forced. */
struct slice forced_act(struct lines *lines, const struct incarnation *e)
{
	/* An incarnation that nobody raised has no number. */
	const struct tos_value *trail = e->count > 0 ? lines_all(lines) : NULL;

	for (size_t i = tos_len(trail); i > 0; i--) {
		const struct tos_value *line = tos_at(trail, i - 1);
		struct slice act, nonce;

		act.p = tos_get_bytes(line, "act", &act.n);
		nonce.p = tos_get_bytes(line, "nonce", &nonce.n);
		if (act.p && nonce.p && nonce.n == sizeof(e->nonce) &&
			memcmp(nonce.p, e->nonce, nonce.n) == 0)
			return act;
	}
	return (struct slice){ NULL, 0 };
}

void forced_evidence(struct resident *r, struct tos_value *args)
{
	struct slice act = forced_act(&r->trail, &r->e);

	if (act.n)
		tos_set(args, "forced", tos_bytes(act.p, act.n));
}

/* What the act says fits this carrier and this incarnation, and who signed it may do that. */
static int act_check(struct kernel *k, const struct home_record *h, const struct tos_value *m,
	const struct cert_info *who, const struct incarnation *e, struct errmsg *em)
{
	struct origin by = { .cls = ORIGIN_CLIENT, .roles = who->roles };
	size_t n;
	const uint8_t *nonce = tos_get_bytes(m, "nonce", &n);
	const struct tos_value *args = tos_get(m, "args");

	if (who->kind != CERT_PRINCIPAL || strcmp(tos_get_text(m, "act", ""), "resolve") != 0 ||
		strcmp(tos_get_text(m, "target", ""), h->name) != 0 ||
		!tos_get_bool(args, "force", false) || !nonce || n != 16 ||
		memcmp(nonce, e->nonce, sizeof(e->nonce)) != 0 ||
		tos_get_int(args, "count", 0) != (int64_t)e->count ||
		!name_kernel_ok(tos_get_text(m, "kernel", "")))
		return err_set(em, ERR_SIGNATURE, "the act is about something else");
	snprintf(by.name, sizeof(by.name), "%s", who->name);
	snprintf(by.principal, sizeof(by.principal), "%s", who->name);
	by.owner_only = rights_of(k, who);
	return kernel_allowed(k, &by, "resolve", h->name, h->owner, em);
}

bool forced_take(
	struct kernel *k, struct home_record *h, struct slice act, const struct incarnation *e)
{
	struct tos_value *m = NULL, *row;
	struct cert_info who;
	struct errmsg em = { "" };
	struct trust trust;
	struct cose cose;
	int rc;

	if (!act.n || shell_ended(h->state) || incarnation_compare(e, &h->e) <= 0)
		return false;
	kernel_trust(k, &trust);
	rc = cose_verify(&trust, "act", act, &cose, &who, &em);
	if (rc == 0)
		rc = tos_decode(cose.payload.p, cose.payload.n, 0, &m);
	if (rc == 0)
		rc = act_check(k, h, m, &who, e, &em);
	if (rc == 0) {
		home_forced(k, h, tos_get_text(m, "kernel", ""), e);
		row = tos_map();
		tos_set(row, "carrier", tos_text(h->name));
		tos_set(row, "by", tos_text(who.name));
		tos_set(row, "kernel", tos_text(h->kernel));
		audit_event(k, NULL, "force-learnt", row);
		log_notice("a holder went on without this home's word",
			KV_STR("carrier", h->name), KV_STR("kernel", h->kernel),
			KV_STR("by", who.name));
	} else {
		log_notice("a forced incarnation was not believed", KV_STR("carrier", h->name),
			KV_ERR(rc, &em));
	}
	tos_value_free(m);
	return rc == 0;
}

/* ---- at the holder */

struct forcing {
	struct kernel *k;
	struct request *rq;
	char name[NAME_BYTES_MAX + 1];
};

void forced_begin(struct resident *r, struct request *rq, const char *by,
	const struct tos_value *act, struct slice act_cose)
{
	const struct tos_value *args = tos_get(act, "args");
	struct incarnation e = { .count = (uint64_t)tos_get_int(args, "count", 0) };
	struct tos_value *line, *m;
	size_t n;
	const uint8_t *nonce = tos_get_bytes(act, "nonce", &n);

	if (!(r->state == SHELL_DEPARTING && r->in_doubt && !r->outcome_move) &&
		!r->quarantined) {
		request_fail(rq, ERR_STATE, "%s is %s%s", r->name, shell_state_word(r->state),
			r->outcome_move ? ": only its home can take its outcome"
					: ", not in doubt");
		return;
	}
	if (e.count != r->e.count + 1) {
		request_fail(rq, ERR_STATE, "the incarnation of %s here is %llu", r->name,
			(unsigned long long)r->e.count);
		return;
	}
	memcpy(e.nonce, nonce, sizeof(e.nonce)); /* act.c has looked at its length */
	line = tos_map();
	tos_set(line, "event", tos_text("forced"));
	tos_set(line, "kernel", tos_text(r->k->config.name));
	tos_set(line, "wall", tos_int(clock_wall_ms()));
	if (r->dest[0] && r->state == SHELL_DEPARTING)
		tos_set(line, "peer", tos_text(r->dest));
	tos_set(line, "by", tos_text(by));
	tos_set(line, "nonce", tos_bytes(e.nonce, sizeof(e.nonce)));
	tos_set(line, "act", tos_bytes(act_cose.p, act_cose.n));
	lines_push(&r->trail, line);
	m = tos_map();
	tos_set(m, "carrier", tos_text(r->name));
	tos_set(m, "by", tos_text(by));
	tos_set(m, "dest", tos_text(r->state == SHELL_DEPARTING ? r->dest : ""));
	audit_event(r->k, NULL, "forced", m);
	metric_add(r->k->metrics, "forced_total", NULL, 1);
	log_warning(
		"a carrier goes on without its home's word: until the kernels meet there may be two",
		KV_STR("carrier", r->name), KV_STR("by", by));
	if (r->state == SHELL_DEPARTING) {
		r->quarantined = false;
		r->confirmed = true;
		resolve_forced(r, rq, &e);
		return;
	}
	r->e = e;
	resident_forced(r);
	m = tos_map();
	tos_set(m, "name", tos_text(r->name));
	tos_set(m, "state", tos_text(shell_state_word(r->state)));
	restored_release(r);
	request_ok(rq, m);
}
