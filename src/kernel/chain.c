/*
 * The chain of hop records of a carrier, from its home to here: each signed by the kernel it left
 * from, each naming the one before (doc/protocol.md, "Hop record").
 *
 * A carrier that goes to and fro brings the same records again and again. What was checked once is
 * remembered by a digest over the whole of it, so only what was added is decoded and verified; the
 * memory is void as soon as the revocation list changes.
 */
#include "kernel/handoff.h"

#include <string.h>

#include "base/clock.h"
#include "seal/records.h"

#ifdef TOS_HOSTILE
#define MEMORY_ROWS 2
#else
#define MEMORY_ROWS 4096
#endif

/* The records up to one that was good: `prefix` covers the carrier's home and id, and each record in
 * order. */
struct chain_known {
	uint8_t prefix[DIGEST_BYTES], last[DIGEST_BYTES];
	char at[65]; /* where the last one leads to */
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

static void memory_add(const struct kernel *k, const uint8_t prefix[DIGEST_BYTES],
	const uint8_t last[DIGEST_BYTES], const char *at)
{
	struct chain_known *m = memory_row(prefix);

	memcpy(m->prefix, prefix, DIGEST_BYTES);
	memcpy(m->last, last, DIGEST_BYTES);
	snprintf(m->at, sizeof(m->at), "%s", at);
	m->revocation = kernel_trust_number(k);
	m->used = true;
}

/* ---- digests of prefixes */

static void prefix_begin(const struct resident *r, uint8_t prefix[DIGEST_BYTES])
{
	uint8_t bytes[DIGEST_BYTES + sizeof(r->ticket.home)];
	size_t n = strlen(r->ticket.home);

	memcpy(bytes, r->id, DIGEST_BYTES);
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

static struct slice record_at(const struct resident *r, size_t i)
{
	struct slice s;

	s.p = tos_as_bytes(tos_at(r->hops, i), &s.n);
	return s;
}

/* ---- checking */

struct chain_end {
	uint8_t prev[DIGEST_BYTES]; /* digest of the last record; zeros before the first */
	char at[65];
};

static int record_check(struct kernel *k, const struct resident *r, size_t i,
	struct slice bytes, struct chain_end *end, struct errmsg *em)
{
	struct hop hop = { .parts = NULL };
	int64_t now = clock_wall_ms();
	struct cert_info who;
	struct trust trust;
	int rc = record_hop(bytes, &hop, em);

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
	if (rc == 0 && (who.kind != CERT_KERNEL || strcmp(who.name, hop.from) != 0 ||
			       strcmp(hop.from, end->at) != 0 ||
			       memcmp(hop.prev, end->prev, DIGEST_BYTES) != 0 ||
			       memcmp(hop.id, r->id, DIGEST_BYTES) != 0))
		rc = err_set(em, ERR_SIGNATURE, "hop %zu of the chain does not fit", i);
	snprintf(end->at, sizeof(end->at), "%s", hop.dest);
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
	for (size_t i = 0; i < tos_len(r->hops); i++) {
		const struct chain_known *m;

		prefix_add(at, digests[i]);
		m = memory_find(k, at);
		if (!m)
			continue;
		known = i + 1;
		memcpy(prefix, at, sizeof(at));
		memcpy(end->prev, m->last, DIGEST_BYTES);
		snprintf(end->at, sizeof(end->at), "%s", m->at);
	}
	return known;
}

int chain_verify(struct kernel *k, const struct resident *r, struct slice last_bytes,
	const struct hop *last, struct errmsg *em)
{
	size_t n = tos_len(r->hops);
	AUTOFREE uint8_t(*digests)[DIGEST_BYTES] = mem_zero((n + 1) * DIGEST_BYTES);
	uint8_t prefix[DIGEST_BYTES], digest[DIGEST_BYTES];
	struct chain_end end = { .prev = { 0 } };
	int rc = 0;

	snprintf(end.at, sizeof(end.at), "%s", r->ticket.home);
	for (size_t i = 0; i < n; i++) {
		struct slice s = record_at(r, i);

		digest_bytes(s.p, s.n, digests[i]);
	}
	prefix_begin(r, prefix);
	for (size_t i = chain_known(k, r, digests, prefix, &end); i < n && rc == 0; i++) {
		rc = record_check(k, r, i, record_at(r, i), &end, em);
		memcpy(end.prev, digests[i], DIGEST_BYTES);
		prefix_add(prefix, digests[i]);
	}
	if (rc == 0 && (strcmp(last->from, end.at) != 0 ||
			       memcmp(last->prev, end.prev, DIGEST_BYTES) != 0))
		rc = err_set(em, ERR_SIGNATURE, "the hop record does not continue the chain");
	if (rc < 0)
		return rc;
	/* The last one's signature, signer and id are its caller's to check, and were. */
	digest_bytes(last_bytes.p, last_bytes.n, digest);
	prefix_add(prefix, digest);
	memory_add(k, prefix, digest, last->dest);
	return 0;
}
