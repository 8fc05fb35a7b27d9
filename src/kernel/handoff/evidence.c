/*
 * Evidence: what shows a home that a kernel holds a carrier, or held it. A report counts when it
 * comes from where the home knows the carrier to be, or with hop records that lead from there to
 * the reporter: a kernel that had the carrier earlier can sign another departure of its old copy,
 * but not one of the place that has it now.
 */
#include "kernel/handoff/evidence.h"

#include <string.h>

#include "base/log.h"
#include "kernel/carrier/resident.h"
#include "kernel/home/home.h"
#include "kernel/trust/trust.h"
#include "seal/records.h"

/* Of one report, which must fit a frame together with a fault's trail, log and briefcase. A record
 * has up to 2 KiB. */
#define CHAIN_BYTES_MAX ((size_t)96 << 10)

/* A hop record of this carrier in the home's incarnation, signed by the kernel it names. */
static int record_read(struct kernel *k, const struct home_record *h, struct slice bytes,
	const struct incarnation *e, struct hop *hop)
{
	struct cert_info signer;
	struct trust trust;
	int rc = record_hop(bytes, hop, NULL);

	if (rc < 0)
		return rc;
	kernel_trust(k, &trust);
	/* Its certificate counts at the time when it signed, as in the chain of an envelope. */
	if (hop->time_ms < trust.now_ms)
		trust.now_ms = hop->time_ms;
	rc = record_verify(&trust, bytes, NULL, &signer, NULL);
	if (rc == 0 && (signer.kind != CERT_KERNEL || strcmp(signer.name, hop->from) != 0 ||
			       memcmp(hop->id, h->id, DIGEST_BYTES) != 0 ||
			       hop->kind == HOP_CLONE || incarnation_compare(&hop->e, e) != 0))
		rc = ERR_SIGNATURE;
	return rc;
}

/* A record that says so, whoever signed it. */
static bool record_leaves(struct slice bytes, const char *kernel, uint64_t n)
{
	struct hop hop = { .parts = NULL };
	bool yes = record_hop(bytes, &hop, NULL) == 0 && strcmp(hop.from, kernel) == 0 &&
		   hop.n >= n;

	hop_fini(&hop);
	return yes;
}

/* The last departure from that kernel in a list of records; behind the end if there is none. */
static size_t chain_from(const struct records *list, const char *kernel, uint64_t n)
{
	for (size_t i = records_n(list); i > 0; i--)
		if (record_leaves(records_at(list, i - 1), kernel, n))
			return i - 1;
	return records_n(list);
}

/* From the last that leaves the place that the home knows each record goes on from the one
 * before, and the last comes to `who`. */
static bool chain_passes(struct kernel *k, const struct home_record *h,
	const struct records *list, const char *who)
{
	uint8_t prev[DIGEST_BYTES];
	char at[65];
	size_t from = chain_from(list, h->kernel, h->came);
	bool good = from < records_n(list);

	snprintf(at, sizeof(at), "%s", h->kernel);
	for (size_t i = from; i < records_n(list) && good; i++) {
		struct hop hop = { .parts = NULL };
		struct slice bytes = records_at(list, i);

		good = record_read(k, h, bytes, &h->e, &hop) == 0 &&
		       strcmp(hop.from, at) == 0 &&
		       (i == from || memcmp(hop.prev, prev, sizeof(prev)) == 0);
		if (good) {
			snprintf(at, sizeof(at), "%s", hop.dest);
			digest_bytes(bytes.p, bytes.n, prev);
		}
		hop_fini(&hop);
	}
	return good && strcmp(at, who) == 0;
}

static bool list_passes(struct kernel *k, const struct home_record *h,
	const struct tos_value *list, const char *who)
{
	struct records records;
	bool passes;

	records_init(&records);
	passes = records_of(&records, list) == 0 && chain_passes(k, h, &records, who);
	records_fini(&records);
	return passes;
}

enum evidence evidence_judge(struct kernel *k, const struct home_record *h, const char *who,
	const struct tos_value *args, const struct incarnation *e)
{
	struct hop hop = { .parts = NULL };
	enum evidence found = EVIDENCE_NONE;
	struct slice bytes;

	if (strcmp(h->kernel, who) == 0)
		return EVIDENCE_GOOD;
	bytes.p = tos_get_bytes(args, "hop", &bytes.n);
	if (record_read(k, h, bytes, e, &hop) == 0 && strcmp(hop.from, who) != 0 &&
		strcmp(hop.dest, who) == 0) {
		if (incarnation_compare(e, &h->e) == 0 && strcmp(hop.from, h->kernel) == 0 &&
			hop.n >= h->came)
			found = EVIDENCE_GOOD;
		else if (incarnation_compare(e, &h->e) == 0 && hop.n < h->came)
			found = EVIDENCE_PASSED;
		else if (!tos_get(args, "hops"))
			found = EVIDENCE_GAP;
		else
			found = list_passes(k, h, tos_get(args, "hops"), who) ? EVIDENCE_GOOD
									      : EVIDENCE_FORK;
	}
	hop_fini(&hop);
	return found;
}

bool evidence_handed(struct kernel *k, const struct home_record *h, const char *who,
	const struct tos_value *args, const struct incarnation *e)
{
	struct hop hop = { .parts = NULL };
	struct slice bytes;
	bool yes;

	bytes.p = tos_get_bytes(args, "hop", &bytes.n);
	yes = record_read(k, h, bytes, e, &hop) == 0 && strcmp(hop.from, who) != 0 &&
	      strcmp(hop.dest, who) == 0;
	hop_fini(&hop);
	return yes;
}

bool evidence_passes(
	const struct home_record *h, const struct records *hops, const struct hop *last)
{
	bool passes = strcmp(last->from, h->kernel) == 0 && last->n >= h->came;

	for (size_t i = records_n(hops); i > 0 && !passes; i--) {
		struct hop hop = { .parts = NULL };

		passes = record_hop(records_at(hops, i - 1), &hop, NULL) == 0 &&
			 memcmp(hop.id, h->id, DIGEST_BYTES) == 0 &&
			 strcmp(hop.from, h->kernel) == 0 && hop.n >= h->came &&
			 incarnation_compare(&hop.e, &h->e) == 0;
		hop_fini(&hop);
	}
	return passes;
}

/* ---- the place's side */

static void put_chain(const struct resident *r, size_t from, struct tos_value *args)
{
	struct tos_value *list = tos_array();
	size_t n = records_n(&r->hops), bytes = 0;

	for (size_t i = from; i < n; i++) {
		struct slice one = records_at(&r->hops, i);

		bytes += one.n;
		tos_push(list, tos_bytes(one.p, one.n));
	}
	if (bytes <= CHAIN_BYTES_MAX)
		tos_set(args, "hops", list);
	else
		tos_value_free(list);
}

void evidence_chain(
	const struct resident *r, const char *kernel, uint64_t n, struct tos_value *args)
{
	put_chain(r, chain_from(&r->hops, kernel, n), args);
}

void evidence_chain_all(const struct resident *r, struct tos_value *args)
{
	put_chain(r, 0, args);
}

void evidence_forked(struct kernel *k, const struct home_record *h, const char *who,
	const struct tos_value *args)
{
	struct hop hop = { .parts = NULL };
	struct tos_value *m = tos_map();
	struct slice bytes;

	bytes.p = tos_get_bytes(args, "hop", &bytes.n);
	tos_set(m, "carrier", tos_text(h->name));
	tos_set(m, "from", tos_text(who));
	tos_set(m, "known_at", tos_text(h->kernel));
	if (record_hop(bytes, &hop, NULL) == 0) {
		tos_set(m, "signed_by", tos_text(hop.from));
		tos_set(m, "n", tos_int((int64_t)hop.n));
	}
	log_warning(
		"a second copy of a carrier was reported and is ended: a kernel that had it "
		"signed a departure that its place did not",
		KV_STR("carrier", h->name), KV_STR("at", h->kernel), KV_STR("reported_by", who),
		KV_STR("signed_by", hop.from));
	hop_fini(&hop);
	metric_add(k->metrics, "home_forks_total", NULL, 1);
	audit_refusal(k, NULL, who, "forked", m);
}
