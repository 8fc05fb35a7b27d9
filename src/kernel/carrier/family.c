/* Families: names, identities and budgets. See family.h. */
#include "kernel/carrier/family.h"

#include <string.h>

#include "kernel/carrier/resident.h"
#include "seal/records.h"
#include "wire/pick.h"

void family_id(const uint8_t root[DIGEST_BYTES], const char *suffix, uint8_t out[DIGEST_BYTES])
{
	uint8_t bytes[DIGEST_BYTES + sizeof(((struct hop *)0)->suffix)];
	size_t n = strnlen(suffix, sizeof(bytes) - DIGEST_BYTES);

	memcpy(bytes, root, DIGEST_BYTES);
	memcpy(bytes + DIGEST_BYTES, suffix, n);
	if (n)
		digest_bytes(bytes, DIGEST_BYTES + n, out);
	else if (out != root)
		memcpy(out, root, DIGEST_BYTES);
}

void family_is(struct resident *r, const uint8_t root[DIGEST_BYTES], const char *suffix)
{
	memmove(r->root, root, DIGEST_BYTES);
	slice_copy_text(slice_text(suffix), r->suffix, sizeof(r->suffix));
	if (r->suffix[0])
		snprintf(r->name, sizeof(r->name), "%s%s", r->ticket.name, r->suffix);
	else
		slice_copy_text(slice_text(r->ticket.name), r->name, sizeof(r->name));
	family_id(r->root, r->suffix, r->id);
}

bool family_parent(const char *parent, const char *child)
{
	size_t n = strlen(parent);

	return strncmp(parent, child, n) == 0 && child[n] == '.' && !strchr(child + n + 1, '.');
}

const char *family_suffix(const char *name)
{
	const char *hash = strchr(name, '#');
	const char *dot = hash ? strchr(hash, '.') : NULL;

	return dot ? dot : "";
}

void family_root_name(const char *name, char out[NAME_BYTES_MAX + 1])
{
	snprintf(out, NAME_BYTES_MAX + 1, "%.*s",
		(int)(strlen(name) - strlen(family_suffix(name))), name);
}

void family_parent_name(const char *name, char out[NAME_BYTES_MAX + 1])
{
	const char *dot = strrchr(family_suffix(name), '.');

	snprintf(out, NAME_BYTES_MAX + 1, "%.*s", dot ? (int)(dot - name) : 0, name);
}

/* ---- budgets */

/* Where its own life begins in the chain: behind its birth record. */
static size_t born_at(const struct resident *r, struct hop *birth)
{
	for (size_t i = r->suffix[0] ? records_n(&r->hops) : 0; i > 0; i--) {
		struct slice bytes = records_at(&r->hops, i - 1);

		*birth = (struct hop){ .parts = NULL };
		if (record_hop(bytes, birth, NULL) == 0 && birth->kind == HOP_CLONE)
			return i;
		hop_fini(birth);
	}
	return 0;
}

int family_budget(struct resident *r, struct errmsg *em)
{
	struct hop birth = { .parts = NULL };
	size_t at = born_at(r, &birth);
	int rc = 0;

	memcpy(r->budget, r->ticket.limits, sizeof(r->budget));
	r->n_before = at;
	if (at && strcmp(birth.suffix, r->suffix) == 0)
		for (size_t i = 0; i < SPLIT_COUNT; i++)
			r->budget[split_limits[i]] = birth.split[split_limits[i]];
	else if (r->suffix[0])
		rc = err_set(em, ERR_SIGNATURE, "nothing shows where %s was made", r->name);
	hop_fini(&birth);
	return rc;
}

void family_asked(const struct resident *r, int64_t out[LIMIT_COUNT])
{
	memcpy(out, r->budget, sizeof(r->budget));
	for (size_t i = 0; i < SPLIT_COUNT; i++) {
		enum limit_id id = split_limits[i];

		/* Clones are counted as used. */
		out[id] -= id == LIMIT_clones ? 0 : r->gave[id];
		if (out[id] < 0)
			out[id] = 0;
	}
}

uint64_t family_hops(const struct resident *r)
{
	return records_n(&r->hops) - r->n_before;
}

/* ---- what of it travels, and what is shown */

/* In the order of split_limits. */
static const char *const gave_keys[] = { "gave-cpu", "gave-hops", "gave-sent", "gave-clones" };
_Static_assert(ARRAY_LEN(gave_keys) == SPLIT_COUNT, "a key for each");

void family_counters(const struct resident *r, struct tos_value *counters)
{
	if (r->n_children)
		tos_set(counters, "children", tos_int((int64_t)r->n_children));
	if (r->n_made)
		tos_set(counters, "made", tos_int((int64_t)r->n_made));
	for (size_t i = 0; i < SPLIT_COUNT; i++)
		if (r->gave[split_limits[i]] > 0)
			tos_set(counters, gave_keys[i], tos_int(r->gave[split_limits[i]]));
}

int family_counted(struct resident *r, struct slice counters)
{
	const char *names[SPLIT_COUNT + 2] = { "made", "children" };
	struct slice item[SPLIT_COUNT + 2];
	int rc;

	memcpy(names + 2, gave_keys, sizeof(gave_keys));
	rc = pick(counters, names, ARRAY_LEN(names), item);
	if (rc < 0)
		return rc;
	r->n_made = (uint64_t)pick_int(item[0], 0);
	r->n_children = (uint64_t)pick_int(item[1], 0);
	for (size_t i = 0; i < SPLIT_COUNT; i++) {
		int64_t v = pick_int(item[i + 2], 0);

		r->gave[split_limits[i]] = v < 0 ? 0 : v;
	}
	return 0;
}

void family_row(const char *name, struct tos_value *row)
{
	char parent[NAME_BYTES_MAX + 1];

	family_parent_name(name, parent);
	if (parent[0])
		tos_set(row, "parent", tos_text(parent));
}
