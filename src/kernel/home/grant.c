/*
 * Who goes on when a destination is dead (doc/protocol.md, "In doubt"): what operators have declared
 * of kernels, and ASK, by which a holder gets a higher incarnation.
 */
#include "kernel/home/grant.h"

#include <string.h>

#include "base/fault.h"
#include "base/log.h"
#include "kernel/handoff/forced.h"
#include "kernel/handoff/moves.h"
#include "kernel/home/claims.h"
#include "kernel/home/holds.h"
#include "kernel/home/home.h"
#include "kernel/home/records.h"

static bool declaration_kept(struct kernel *k, const char *kernel)
{
	AUTOBUF body = BUF_MAX(65536);

	return store_get(k->store, T_DECLARED, kernel, strlen(kernel), &body, NULL) == 0;
}

/* One that is linked is not dead, whatever the journal still says. */
bool home_is_declared(struct kernel *k, const char *kernel)
{
	return declaration_kept(k, kernel) && !links_find(k->links, kernel);
}

struct grant {
	struct kernel *k;
	struct request *rq;
	char name[NAME_BYTES_MAX + 1];
};

static void ask_answer(struct request *rq, const char *word, const struct incarnation *e)
{
	struct tos_value *out = tos_map();

	tos_set(out, "answer", tos_text(word));
	if (e)
		tos_set(out, "e", incarnation_value(e));
	request_ok(rq, out);
}

static void granted(void *arg, int rc, const struct errmsg *em)
{
	AUTOFREE struct grant *g = arg;
	struct home_record *h = home_find(g->k, g->name);

	FAULT_AT(GRANT_JOURNALED);
	if (h)
		home_raised(g->k, h, rc);
	if (rc < 0) {
		request_fail(g->rq, rc, "%s", err_show(rc, em));
	} else if (!h || shell_ended(h->state)) {
		ask_answer(g->rq, "elsewhere", NULL); /* killed meanwhile */
	} else {
		home_place(h, claim_from(g->k, g->rq), 0);
		h->in_doubt = false;
		h->from[0] = 0;
		holds_heard(h);
		if (strcmp(h->wanted, "retry") == 0)
			h->wanted[0] = 0;
		ask_answer(g->rq, "granted", &h->e);
	}
}

/* The holder asks anew: it had not got the answer, or had lost it in a crash. */
static bool granted_before(
	const struct home_record *h, const char *who, const struct incarnation *e, uint64_t n)
{
	return !shell_ended(h->state) && incarnation_compare(e, &h->e) < 0 &&
	       strcmp(h->kernel, who) == 0 && h->n <= n + 1;
}

/* May that kernel have a copy that it froze for a departure to dest? The place that the home
 * knows, or one that was handed it from there; where the home heard of it at dest already, the
 * one that handed it there. */
static bool may_ask(struct kernel *k, const struct home_record *h, const struct request *rq,
	const struct incarnation *e, const char *dest)
{
	if (strcmp(h->kernel, dest) == 0 && strcmp(h->from, claim_from(k, rq)) == 0)
		return true;
	return claim_judge(k, h, rq, e) == EVIDENCE_GOOD;
}

void ask_verb(struct kernel *k, struct request *rq)
{
	struct home_record *h = claim_record(k, rq);
	const char *dest = tos_get_text(rq->args, "dest", "");
	uint64_t n = (uint64_t)tos_get_int(rq->args, "n", 0);
	struct incarnation e;
	struct store_txn *t;
	struct grant *g;
	struct tos_value *m;
	char was[sizeof(h->kernel)];
	int rc;

	if (!h) {
		claim_unknown(k, rq);
		return;
	}
	FAULT_AT(ASK_TAKEN);
	if (incarnation_read(tos_get(rq->args, "e"), &e) < 0) {
		request_fail(rq, ERR_MALFORMED, "ASK lacks e");
		return;
	}
	if (claim_busy(h, rq))
		return;
	if (granted_before(h, claim_from(k, rq), &e, n)) {
		ask_answer(rq, "granted", &h->e);
		return;
	}
	/* Somebody has it in a later departure or a higher incarnation, or it is over. */
	if (shell_ended(h->state) || incarnation_compare(&e, &h->e) < 0 || h->n > n + 1) {
		ask_answer(rq, "elsewhere", NULL);
		return;
	}
	if (incarnation_compare(&e, &h->e) > 0 || !may_ask(k, h, rq, &e, dest)) {
		claim_ignored(k, h, rq);
		request_fail(rq, ERR_DENIED, "%s does not hold %s", claim_from(k, rq), h->name);
		return;
	}
	if (!home_is_declared(k, dest)) {
		request_fail(rq, ERR_IN_DOUBT,
			"%s may be at %s, which nobody declared dead: if it is, say tos resolve --dead %s",
			h->name, dest, dest);
		return;
	}
	g = mem_new(struct grant);
	g->k = k;
	g->rq = rq;
	snprintf(g->name, sizeof(g->name), "%s", h->name);
	m = tos_map();
	tos_set(m, "carrier", tos_text(h->name));
	tos_set(m, "holder", tos_text(claim_from(k, rq)));
	tos_set(m, "dead", tos_text(dest));
	/* The row as it will be; memory follows when it is durable. */
	home_raise(h);
	snprintf(was, sizeof(was), "%s", h->kernel);
	snprintf(h->kernel, sizeof(h->kernel), "%s", claim_from(k, rq));
	t = store_begin(k->store);
	home_put(t, h);
	snprintf(h->kernel, sizeof(h->kernel), "%s", was);
	audit_event(k, t, "incarnation-raised", m);
	FAULT_AT(GRANT_COMMIT);
	rc = store_commit(t, granted, g);
	if (rc < 0) {
		struct errmsg em = { "" };

		granted(g, rc, &em);
	}
}

void home_forced(struct kernel *k, struct home_record *h, const char *kernel,
	const struct incarnation *e)
{
	h->e = *e;
	h->n = 0; /* numbers of the incarnation before tell nothing of this one */
	h->from[0] = 0;
	h->in_doubt = false;
	home_place(h, kernel, 0);
	place_note(k, h->name, kernel);
	holds_heard(h);
	incarnation_learn(k, h->id, e, h->expires_ms);
	home_save(k, h);
}

/* It is linked, so it is not dead: what was granted meanwhile stays, and its copies give way. */
void declaration_lift(struct kernel *k, const char *kernel)
{
	struct store_txn *t;
	struct tos_value *m;

	if (!declaration_kept(k, kernel))
		return;
	m = tos_map();
	tos_set(m, "kernel", tos_text(kernel));
	t = store_begin(k->store);
	store_del(t, T_DECLARED, kernel, strlen(kernel));
	audit_event(k, t, "declaration-lifted", m);
	store_commit(t, NULL, NULL);
	log_notice("a kernel that was declared dead is back", KV_STR("kernel", kernel));
}
