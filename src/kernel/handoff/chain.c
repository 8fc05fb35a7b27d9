/*
 * The chain of hop records of a carrier, from its home to here: each signed by the kernel it left
 * from, each naming the one before (doc/protocol.md, "Hop record").
 *
 * A carrier that goes to and fro brings the same records again and again. What was checked once is
 * remembered by a digest over the whole of it, so only what was added is decoded and verified; the
 * memory is void as soon as the revocation list changes.
 */
#include "kernel/handoff/chain.h"

#include <string.h>

#include "base/clock.h"
#include "kernel/carrier/resident.h"
#include "kernel/handoff/handoff.h"
#include "kernel/carrier/family.h"
#include "kernel/trust/trust.h"
#include "seal/records.h"

#ifdef TOS_HOSTILE
#define MEMORY_ROWS 2
#else
#define MEMORY_ROWS 4096
#endif

/* The records up to one that was good: `prefix` covers the carrier's home and id, and each record in
 * order. */
struct chain_known {
	uint8_t prefix[DIGEST_BYTES];
	struct chain_end end; /* where the last one leads to */
	uint64_t revocation;
	bool used;
};

static struct chain_known *memory; /* of this process's one kernel */

static struct chain_known *memory_row(const uint8_t prefix[DIGEST_BYTES])
{
	if (!memory)
		memory = mem_zero(MEMORY_ROWS * sizeof(*memory));
	return &memory[((size_t)prefix[0] << 8 | prefix[1]) % MEMORY_ROWS];
}

static const struct chain_known *memory_find(
	const struct kernel *k, const uint8_t prefix[DIGEST_BYTES])
{
	const struct chain_known *m = memory_row(prefix);

	return m->used && m->revocation == kernel_trust_number(k) &&
			       memcmp(m->prefix, prefix, DIGEST_BYTES) == 0
		       ? m
		       : NULL;
}

static void memory_add(
	const struct kernel *k, const uint8_t prefix[DIGEST_BYTES], const struct chain_end *end)
{
	struct chain_known *m = memory_row(prefix);

	memcpy(m->prefix, prefix, DIGEST_BYTES);
	m->end = *end;
	m->revocation = kernel_trust_number(k);
	m->used = true;
}

/* ---- digests of prefixes */

static void prefix_begin(const struct resident *r, uint8_t prefix[DIGEST_BYTES])
{
	uint8_t bytes[DIGEST_BYTES + sizeof(r->ticket.home)];
	size_t n = strlen(r->ticket.home);

	memcpy(bytes, r->root, DIGEST_BYTES);
	memcpy(bytes + DIGEST_BYTES, r->ticket.home, n);
	digest_bytes(bytes, DIGEST_BYTES + n, prefix);
}

static void prefix_add(uint8_t prefix[DIGEST_BYTES], const uint8_t record[DIGEST_BYTES])
{
	uint8_t both[2 * DIGEST_BYTES];

	memcpy(both, prefix, DIGEST_BYTES);
	memcpy(both + DIGEST_BYTES, record, DIGEST_BYTES);
	digest_bytes(both, sizeof(both), prefix);
}

/* ---- checking */

void chain_begin(struct chain_end *end, const uint8_t root[DIGEST_BYTES], const char *home,
	const int64_t budget[LIMIT_COUNT])
{
	*end = (struct chain_end){ .suffix = "" };
	memcpy(end->root, root, DIGEST_BYTES);
	memcpy(end->id, root, DIGEST_BYTES);
	memcpy(end->budget, budget, sizeof(end->budget));
	snprintf(end->at, sizeof(end->at), "%s", home);
}

/* The birth of a clone: made where its parent is, with no more than its parent had; one clone is the
 * clone itself. */
static int birth_fits(const struct hop *hop, const struct chain_end *end)
{
	uint8_t id[DIGEST_BYTES];

	family_id(end->root, hop->suffix, id);
	if (strcmp(hop->dest, hop->from) != 0 || !family_parent(end->suffix, hop->suffix) ||
		hop->n != 0 || hop->e.count != 0 || memcmp(id, hop->id, sizeof(id)) != 0)
		return ERR_SIGNATURE;
	for (size_t i = 0; i < SPLIT_COUNT; i++) {
		enum limit_id l = split_limits[i];

		if (hop->split[l] > end->budget[l] - (l == LIMIT_clones ? 1 : 0))
			return ERR_LIMIT;
	}
	return 0;
}

static int hop_fits(const struct hop *hop, const struct chain_end *end)
{
	if (strcmp(hop->from, end->at) != 0 || memcmp(hop->prev, end->prev, DIGEST_BYTES) != 0)
		return ERR_SIGNATURE;
	if (hop->kind == HOP_CLONE)
		return birth_fits(hop, end);
	return memcmp(hop->id, end->id, DIGEST_BYTES) == 0 &&
			       strcmp(hop->suffix, end->suffix) == 0
		       ? 0
		       : ERR_SIGNATURE;
}

static void end_moves(struct chain_end *end, const struct hop *hop)
{
	snprintf(end->at, sizeof(end->at), "%s", hop->dest);
	if (hop->kind != HOP_CLONE)
		return;
	memcpy(end->id, hop->id, DIGEST_BYTES);
	snprintf(end->suffix, sizeof(end->suffix), "%s", hop->suffix);
	for (size_t i = 0; i < SPLIT_COUNT; i++)
		end->budget[split_limits[i]] = hop->split[split_limits[i]];
}

int chain_step(struct kernel *k, struct slice bytes, struct chain_end *end, struct errmsg *em)
{
	struct hop hop = { .parts = NULL };
	int64_t now = clock_wall_ms();
	struct cert_info who;
	struct trust trust;
	int rc = record_hop(bytes, &hop, em), fits;

	kernel_trust(k, &trust);
	/* A kernel whose certificate has run out since signed in good time. */
	trust.now_ms = hop.time_ms < now ? hop.time_ms : now;
	if (rc == 0)
		rc = record_verify(&trust, bytes, NULL, &who, em);
	/* Its clock was behind when it signed: the certificate says nothing against it today, and
	 * a carrier must not be held up for good by an hour's mistake. */
	if (rc == ERR_NOT_YET && trust.now_ms != now) {
		trust.now_ms = now;
		rc = record_verify(&trust, bytes, NULL, &who, em);
	}
	if (rc == 0) {
		fits = who.kind == CERT_KERNEL && strcmp(who.name, hop.from) == 0
			       ? hop_fits(&hop, end)
			       : ERR_SIGNATURE;
		if (fits == ERR_LIMIT)
			rc = err_set(em, ERR_LIMIT, "%s gave clone %s more than its parent had",
				hop.from, hop.suffix);
		else if (fits < 0)
			rc = err_set(
				em, ERR_SIGNATURE, "hop %zu of the chain does not fit", end->n);
	}
	if (rc == 0) {
		end_moves(end, &hop);
		digest_bytes(bytes.p, bytes.n, end->prev);
		end->n++;
	}
	hop_fini(&hop);
	return rc;
}

/* How many records are known to be good, and what they lead to. */
static size_t chain_known(struct kernel *k, const struct resident *r,
	uint8_t (*digests)[DIGEST_BYTES], uint8_t prefix[DIGEST_BYTES], struct chain_end *end)
{
	uint8_t at[DIGEST_BYTES];
	size_t known = 0;

	memcpy(at, prefix, sizeof(at));
	for (size_t i = 0; i < records_n(&r->hops); i++) {
		const struct chain_known *m;

		prefix_add(at, digests[i]);
		m = memory_find(k, at);
		if (!m)
			continue;
		known = i + 1;
		memcpy(prefix, at, sizeof(at));
		*end = m->end;
	}
	return known;
}

int chain_verify(struct kernel *k, const struct resident *r, struct slice last_bytes,
	const struct hop *last, struct errmsg *em)
{
	size_t n = records_n(&r->hops);
	AUTOFREE uint8_t(*digests)[DIGEST_BYTES] = mem_zero((n + 1) * DIGEST_BYTES);
	uint8_t prefix[DIGEST_BYTES], digest[DIGEST_BYTES];
	struct chain_end end;
	int rc = 0;

	chain_begin(&end, r->root, r->ticket.home, r->ticket.limits);
	for (size_t i = 0; i < n; i++) {
		struct slice s = records_at(&r->hops, i);

		digest_bytes(s.p, s.n, digests[i]);
	}
	prefix_begin(r, prefix);
	for (size_t i = chain_known(k, r, digests, prefix, &end); i < n && rc == 0; i++) {
		rc = chain_step(k, records_at(&r->hops, i), &end, em);
		prefix_add(prefix, digests[i]);
	}
	if (rc == 0 && (last->kind == HOP_CLONE || hop_fits(last, &end) < 0))
		rc = err_set(em, ERR_SIGNATURE, "the hop record does not continue the chain");
	if (rc < 0)
		return rc;
	/* The last one's signature, signer and id are its caller's to check, and were. */
	digest_bytes(last_bytes.p, last_bytes.n, digest);
	prefix_add(prefix, digest);
	end_moves(&end, last);
	memcpy(end.prev, digest, DIGEST_BYTES);
	end.n++;
	memory_add(k, prefix, &end);
	return 0;
}
