/*
 * Folders that the owner protects: sealed ones stay as they were at the launch, append-only ones
 * grow and nothing else. The ticket names them, each hop record says how far the latter had grown,
 * and every kernel that takes a carrier in compares both with what has come; so a kernel on the
 * path that changes one is found by the next honest one, and named. Nothing here is trusted of a
 * tos-vm, an extension, or the kernel before.
 */
#include "kernel/carrier/seals.h"

#include <string.h>

#include "base/log.h"
#include "kernel/carrier/resident.h"
#include "seal/folders.h"
#include "wire/record.h"

/* Elements of all append-only folders of a carrier: each costs two digests a hop, on the loop. */
#define GROWTH_ELEMENTS_MAX 16384

/* The encoded elements; empty if it is not there. */
static struct slice folder_find(struct slice briefcase, const char *name)
{
	struct slice key, elements;
	size_t at = 0;

	while (briefcase_next(briefcase, &at, &key, &elements))
		if (slice_equal(key, slice_text(name)))
			return elements;
	return (struct slice){ NULL, 0 };
}

static uint64_t elements_count(struct slice elements)
{
	struct cbor_cursor c;

	cbor_init(&c, elements.p, elements.n);
	return elements.n ? cbor_open_array_max(&c, elements.n) : 0;
}

static bool is_digest(const struct tos_value *v, const uint8_t digest[DIGEST_BYTES])
{
	size_t n;
	const uint8_t *p = tos_as_bytes(v, &n);

	return p && n == DIGEST_BYTES && memcmp(p, digest, n) == 0;
}

/* The first sealed folder that is not what the owner sealed, or NULL. */
static const char *sealed_broken(const struct ticket *t, struct slice briefcase)
{
	for (size_t i = 0; i < tos_len(t->sealed); i++) {
		const char *name = tos_as_text(tos_key_at(t->sealed, i), "");
		struct slice elements = folder_find(briefcase, name);
		uint8_t digest[DIGEST_BYTES];

		if (elements.n)
			folder_digest(slice_text(name), elements, digest);
		if (!elements.n || !is_digest(tos_value_at(t->sealed, i), digest))
			return name;
	}
	return NULL;
}

static int growth_bound(const struct ticket *t, struct slice briefcase, struct errmsg *em)
{
	uint64_t sum = 0;

	for (size_t i = 0; i < tos_len(t->append); i++)
		sum += elements_count(
			folder_find(briefcase, tos_as_text(tos_key_at(t->append, i), "")));
	return sum <= GROWTH_ELEMENTS_MAX
		       ? 0
		       : err_set(em, ERR_TOO_LARGE,
				 "its append-only folders have %llu elements, more than %d",
				 (unsigned long long)sum, GROWTH_ELEMENTS_MAX);
}

int seals_launched(const struct ticket *t, struct slice briefcase, struct errmsg *em)
{
	const char *broken = sealed_broken(t, briefcase);
	int rc = growth_bound(t, briefcase, em);

	if (broken)
		return err_set(em, ERR_SIGNATURE,
			"folder %s is not the one that the ticket seals", broken);
	for (size_t i = 0; rc == 0 && i < tos_len(t->append); i++) {
		const char *name = tos_as_text(tos_key_at(t->append, i), "");
		struct growth now, said;

		folder_growth(slice_text(name), folder_find(briefcase, name), &now);
		if (!growth_read(tos_value_at(t->append, i), &said) ||
			said.count != now.count ||
			memcmp(said.head, now.head, DIGEST_BYTES) != 0)
			rc = err_set(em, ERR_SIGNATURE,
				"folder %s is not the one that the ticket lets grow", name);
	}
	return rc;
}

/* The new elements begin with all the old ones. */
static bool grew(struct slice old, struct slice now)
{
	uint64_t n_old = elements_count(old);
	struct cbor_cursor a, b;

	if (elements_count(now) < n_old)
		return false;
	cbor_init(&a, old.p, old.n);
	cbor_init(&b, now.p, now.n);
	if (n_old) {
		cbor_open_array_max(&a, old.n);
		cbor_open_array_max(&b, now.n);
	}
	for (uint64_t i = 0; i < n_old; i++)
		if (!slice_equal(cbor_any(&a), cbor_any(&b)))
			return false;
	return a.rc == 0 && b.rc == 0;
}

int seals_kept(const struct resident *r, struct slice briefcase, struct errmsg *em)
{
	const struct ticket *t = &r->ticket;
	const char *broken = sealed_broken(t, briefcase);

	if (broken)
		return err_set(em, ERR_DENIED, "folder %s is sealed by its owner, %s", broken,
			r->owner->name);
	for (size_t i = 0; i < tos_len(t->append); i++) {
		const char *name = tos_as_text(tos_key_at(t->append, i), "");

		if (!grew(folder_find(blob_slice(&r->briefcase), name),
			    folder_find(briefcase, name)))
			return err_set(em, ERR_DENIED,
				"folder %s may only grow: its owner, %s, made it append-only",
				name, r->owner->name);
	}
	return growth_bound(t, briefcase, em);
}

struct tos_value *seals_grown(const struct ticket *t, struct slice briefcase)
{
	struct tos_value *m = tos_len(t->append) ? tos_map() : NULL;

	for (size_t i = 0; i < tos_len(t->append); i++) {
		const char *name = tos_as_text(tos_key_at(t->append, i), "");
		struct growth g;

		folder_growth(slice_text(name), folder_find(briefcase, name), &g);
		tos_set(m, name, growth_value(&g));
	}
	return m;
}

/* ---- who changed it */

/* The ith record of the chain, the last being the one that came beside it. */
static int hop_at(const struct resident *r, size_t i, struct hop *out)
{
	return record_hop(records_at(&r->hops, i), out, NULL);
}

/* The kernel that first signed another digest of a sealed folder than the owner's. */
static void sealed_culprit(
	const struct resident *r, const struct hop *last, const char *folder, char culprit[64])
{
	const struct tos_value *sealed = tos_get(r->ticket.sealed, folder);
	char part[NAME_BYTES_MAX + 16];

	snprintf(part, sizeof(part), "folder/%s", folder);
	snprintf(culprit, 64, "%s", last->from);
	for (size_t i = 0; i < records_n(&r->hops); i++) {
		struct hop hop = { .parts = NULL };
		bool other =
			hop_at(r, i, &hop) == 0 && !tos_equal(tos_get(hop.parts, part), sealed);

		if (other)
			snprintf(culprit, 64, "%s", hop.from);
		hop_fini(&hop);
		if (other)
			return;
	}
}

static int seal_broken(struct kernel *k, const struct resident *r, const char *folder,
	const char *culprit, const char *what, struct errmsg *em)
{
	metric_add(k->metrics, "seals_broken_total", NULL, 1);
	log_notice("a protected folder was changed on the way", KV_STR("carrier", r->name),
		KV_STR("folder", folder), KV_STR("by", culprit));
	return err_set(
		em, ERR_SIGNATURE, "folder %s %s: it was changed at %s", folder, what, culprit);
}

/* What the ticket, then each record of the chain, then the last one say of the folder. */
struct claims {
	struct growth *said;
	char (*from)[64];
	bool *holds;
	size_t n;
};

/* Reads them; the index of the first that says nothing, or less than the one before, or n. */
static size_t claims_read(
	const struct resident *r, const struct hop *last, const char *folder, struct claims *c)
{
	for (size_t i = 0; i < c->n; i++) {
		struct hop hop = { .parts = NULL };
		const struct tos_value *grown = r->ticket.append;
		bool good;

		if (i > 0 && i < c->n - 1)
			grown = hop_at(r, i - 1, &hop) == 0 ? hop.grown : NULL;
		else if (i > 0)
			grown = last->grown;
		snprintf(c->from[i], sizeof(c->from[i]), "%s",
			i == 0          ? r->ticket.home
			: i == c->n - 1 ? last->from
					: hop.from);
		good = growth_read(tos_get(grown, folder), &c->said[i]) &&
		       (i == 0 || c->said[i].count >= c->said[i - 1].count);
		hop_fini(&hop);
		if (!good)
			return i;
	}
	return c->n;
}

static int growth_arrived(struct kernel *k, const struct resident *r, const struct hop *last,
	const char *folder, struct errmsg *em)
{
	struct slice elements = folder_find(blob_slice(&r->briefcase), folder);
	struct claims c = { .n = records_n(&r->hops) + 2 };
	size_t bad;

	c.said = mem_zero(c.n * sizeof(*c.said));
	c.from = mem_zero(c.n * sizeof(*c.from));
	c.holds = mem_zero(c.n * sizeof(*c.holds));
	bad = claims_read(r, last, folder, &c);
	if (bad == c.n) {
		folder_holds(slice_text(folder), elements, c.said, c.n, c.holds);
		if (!c.holds[c.n - 1] || c.said[c.n - 1].count != elements_count(elements))
			bad = c.n - 1;
		/* Whoever came after the last claim that is not true any more. */
		for (size_t i = c.n - 1; bad == c.n && i > 0; i--)
			if (!c.holds[i - 1])
				bad = i;
	}
	int rc = bad == c.n ? 0 : seal_broken(k, r, folder, c.from[bad], "may only grow", em);

	free(c.said);
	free(c.from);
	free(c.holds);
	return rc;
}

int seals_arrived(
	struct kernel *k, const struct resident *r, const struct hop *last, struct errmsg *em)
{
	struct slice briefcase = blob_slice(&r->briefcase);
	const char *broken = sealed_broken(&r->ticket, briefcase);
	char culprit[64];
	int rc = 0;

	if (broken) {
		sealed_culprit(r, last, broken, culprit);
		return seal_broken(k, r, broken, culprit, "is not what its owner sealed", em);
	}
	if (r->ticket.append)
		rc = growth_bound(&r->ticket, briefcase, em);
	for (size_t i = 0; rc == 0 && i < tos_len(r->ticket.append); i++)
		rc = growth_arrived(
			k, r, last, tos_as_text(tos_key_at(r->ticket.append, i), ""), em);
	return rc;
}

/* ---- for people and for the tos-vm */

static struct tos_value *names_of(const struct tos_value *map)
{
	struct tos_value *names = tos_array();

	for (size_t i = 0; i < tos_len(map); i++)
		tos_push(names, tos_value_copy(tos_key_at(map, i)));
	return names;
}

void seals_show(const struct ticket *t, struct tos_value *m)
{
	tos_set(m, "sealed", names_of(t->sealed));
	tos_set(m, "append_only", names_of(t->append));
}

struct tos_value *seals_words(const struct ticket *t)
{
	struct tos_value *m = tos_map();

	for (size_t i = 0; i < tos_len(t->append); i++)
		tos_set_value(m, tos_value_copy(tos_key_at(t->append, i)), tos_text("append"));
	for (size_t i = 0; i < tos_len(t->sealed); i++)
		tos_set_value(m, tos_value_copy(tos_key_at(t->sealed, i)), tos_text("sealed"));
	return m;
}
