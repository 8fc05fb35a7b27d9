/*
 * What another kernel claims of a carrier that was launched here: which one it means, and whether
 * the home believes it. Every verb of inbox Home that changes a record asks here first.
 */
#include "kernel/home/claims.h"

#include <string.h>

#include "base/log.h"
#include "kernel/handoff/forced.h"
#include "kernel/handoff/moves.h"
#include "kernel/home/families.h"
#include "kernel/home/holds.h"
#include "kernel/home/home.h"

struct home_record *claim_record(struct kernel *k, const struct request *rq)
{
	struct home_record *h = home_find(k, tos_get_text(rq->args, "name", ""));
	size_t n;
	const uint8_t *id = tos_get_bytes(rq->args, "id", &n);

	if (!h && tos_get(rq->args, "birth") && family_take(k, rq->args, &h, NULL) < 0)
		h = NULL;
	return h && id && n == DIGEST_BYTES && memcmp(h->id, id, n) == 0 ? h : NULL;
}

/* Where claim_record() found none. */
void claim_unknown(struct kernel *k, struct request *rq)
{
	struct home_record *h = NULL;
	struct errmsg em = { "" };
	int rc = tos_get(rq->args, "birth") ? family_take(k, rq->args, &h, &em) : ERR_NOT_FOUND;

	if (rc < 0 && rc != ERR_NOT_FOUND) {
		/* A clone that must not be is ended by whoever has it; one that is not known yet is
		 * reported again. */
		request_fail(rq,
			rc == ERR_STATE                    ? rc
			: strcmp(rq->verb, "ARRIVED") == 0 ? ERR_SUPERSEDED
							   : ERR_DENIED,
			"%s", err_show(rc, &em));
		return;
	}
	request_fail(rq, ERR_NOT_FOUND, "%s is not home of %s", k->config.name,
		tos_get_text(rq->args, "name", "?"));
}

const char *claim_from(const struct kernel *k, const struct request *rq)
{
	return rq->from.kernel[0] ? rq->from.kernel : k->config.name;
}

/* It is told to come again. */
bool claim_busy(const struct home_record *h, struct request *rq)
{
	if (!home_busy(h))
		return false;
	request_fail(rq, ERR_STATE, "%s of %s is being journaled",
		h->raising ? "a raise" : "the end", h->name);
	return true;
}

/* What the report shows about its sender; this kernel's own are believed. */
enum evidence claim_judge(struct kernel *k, const struct home_record *h,
	const struct request *rq, const struct incarnation *e)
{
	return rq->from.kernel[0] ? evidence_judge(k, h, claim_from(k, rq), rq->args, e)
				  : EVIDENCE_GOOD;
}

/* An honest kernel comes here when its carrier has been elsewhere since: nothing it says is
 * taken. */
void claim_ignored(struct kernel *k, const struct home_record *h, const struct request *rq)
{
	metric_add(k->metrics, "home_reports_ignored_total", NULL, 1);
	log_notice("a report was not taken: its sender does not hold the carrier",
		KV_STR("carrier", h->name), KV_STR("from", rq->from.kernel),
		KV_STR("verb", rq->verb));
}

/* An incarnation that this home never granted: a kernel that claims it would end the true copy. */
bool claim_raised(struct kernel *k, struct home_record *h, const struct request *rq)
{
	struct incarnation e;
	struct tos_value *m;
	struct slice act;

	/* A restored home may have forgotten what it granted. */
	if (shell_ended(h->state) || h->stale ||
		incarnation_read(tos_get(rq->args, "e"), &e) < 0 ||
		incarnation_compare(&e, &h->e) <= 0)
		return false;
	act.p = tos_get_bytes(rq->args, "forced", &act.n);
	if (act.p && forced_take(k, h, act, &e))
		return false;
	m = tos_map();
	tos_set(m, "carrier", tos_text(h->name));
	tos_set(m, "from", tos_text(claim_from(k, rq)));
	audit_refusal(k, NULL, rq->from.kernel, "report-refused", m);
	return true;
}

/* It is said again; the places in between tell meanwhile, or are asked. */
void claim_way_unknown(struct kernel *k, struct home_record *h, struct request *rq)
{
	request_fail(rq, ERR_STATE, "how %s came to %s is not known here yet", h->name,
		rq->from.kernel);
	if (strcmp(h->kernel, k->config.name) != 0)
		holds_ask(k, h, h->kernel, "");
}
