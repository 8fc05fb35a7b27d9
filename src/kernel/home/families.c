/*
 * Families at their home (doc/protocol.md, "Clones"). A clone is made wherever its parent is, and is
 * known here from the first report that shows its birth: the records that lead from this home, or
 * from its parent's own birth, to the kernel that made it. Each clone has a home record of its own;
 * here is what joins them: what the parent's budgets still allow, whether all members are known and
 * have ended, and wishes for the whole family.
 */
#include "kernel/handoff/evidence.h"
#include "kernel/carrier/family.h"
#include "kernel/home/families.h"

#include <string.h>

#include "base/clock.h"
#include "base/fault.h"
#include "base/log.h"
#include "kernel/carrier/resident.h"
#include "kernel/handoff/chain.h"
#include "kernel/home/home.h"
#include "seal/records.h"

#define BIRTH_BYTES_MAX ((size_t)96 << 10) /* of a report; a record has up to 2 KiB */
#define WAITERS_MAX     1000
#define MEMBERS_MAX     100000 /* of one family, in an answer */

/* ---- the place's side */

static struct slice record_at(const struct tos_value *list, size_t i)
{
	struct slice s;

	s.p = tos_as_bytes(tos_at(list, i), &s.n);
	return s;
}

static bool is_birth(struct slice bytes)
{
	struct hop hop = { .parts = NULL };
	bool yes = record_hop(bytes, &hop, NULL) == 0 && hop.kind == HOP_CLONE;

	hop_fini(&hop);
	return yes;
}

/* The whole chain up to the birth record; or what there is since its parent's, or what fits. */
static size_t birth_from(const struct resident *r)
{
	size_t bytes = 0, from = r->n_before;

	while (from > 0) {
		bytes += records_at(&r->hops, from - 1).n;
		if (bytes > BIRTH_BYTES_MAX)
			break;
		from--;
	}
	for (size_t i = from; from > 0 && i + 1 < r->n_before; i++)
		if (is_birth(records_at(&r->hops, i)))
			from = i + 1;
	return from;
}

void family_evidence(const struct resident *r, struct tos_value *args)
{
	struct tos_value *list;

	if (!r->suffix[0] || r->birth_known)
		return;
	list = tos_array();
	for (size_t i = birth_from(r); i < r->n_before; i++) {
		struct slice one = records_at(&r->hops, i);

		tos_push(list, tos_bytes(one.p, one.n));
	}
	tos_set(args, "birth", list);
}

/* ---- a birth is registered */

static struct home_record *member(
	struct kernel *k, const struct home_record *root, const char *suffix)
{
	char name[2 * NAME_BYTES_MAX];

	snprintf(name, sizeof(name), "%s%s", root->name, suffix);
	return strlen(name) <= NAME_BYTES_MAX ? home_find(k, name) : NULL;
}

static struct home_record *parent_of(struct kernel *k, const char *name)
{
	char parent[NAME_BYTES_MAX + 1];

	family_parent_name(name, parent);
	return home_find(k, parent);
}

static void birth_refused(struct kernel *k, const struct home_record *parent,
	const struct hop *birth, const char *why)
{
	struct tos_value *m = tos_map();

	tos_set(m, "parent", tos_text(parent->name));
	tos_set(m, "suffix", tos_text(birth->suffix));
	tos_set(m, "from", tos_text(birth->from));
	tos_set(m, "text", tos_text(why));
	log_warning("a clone was refused by its home", KV_STR("parent", parent->name),
		KV_STR("suffix", birth->suffix), KV_STR("made_by", birth->from),
		KV_STR("reason", why));
	metric_add(k->metrics, "clones_denied_total", NULL, 1);
	audit_refusal(k, NULL, birth->from, "cloning-refused", m);
}

/* What its clones were given may not be more than a carrier had: only here all of them are seen. */
static int budget_left(
	const struct home_record *parent, const struct hop *birth, struct errmsg *em)
{
	for (size_t i = 0; i < SPLIT_COUNT; i++) {
		enum limit_id l = split_limits[i];

		if (birth->split[l] + (l == LIMIT_clones ? 1 : 0) >
			parent->budget[l] - parent->gave[l])
			return err_set(em, ERR_LIMIT,
				"limit %s: the clones of %s were given more than it had",
				limit_names[l], parent->name);
	}
	return 0;
}

static struct home_record *birth_record(struct kernel *k, struct home_record *parent,
	const struct hop *birth, const struct chain_end *end)
{
	char root_name[NAME_BYTES_MAX + 1], name[2 * NAME_BYTES_MAX];
	struct home_record *h;

	family_root_name(parent->name, root_name);
	snprintf(name, sizeof(name), "%s%s", root_name, birth->suffix);
	h = home_new(k, name);
	memcpy(h->id, birth->id, DIGEST_BYTES);
	memcpy(h->birth, end->prev, DIGEST_BYTES);
	memcpy(h->budget, end->budget, sizeof(h->budget));
	snprintf(h->born, sizeof(h->born), "%s", birth->from);
	snprintf(h->owner, sizeof(h->owner), "%s", parent->owner);
	home_place(h, birth->from, 1);
	h->n = 1;
	h->state = SHELL_READY;
	h->expires_ms = parent->expires_ms;
	blob_share(&h->ticket_cose, &parent->ticket_cose);
	/* A wish for the family is one for those that come to be known later. */
	snprintf(h->family_wanted, sizeof(h->family_wanted), "%s", parent->family_wanted);
	snprintf(h->wanted, sizeof(h->wanted), "%s", parent->family_wanted);
	h->command_due = h->wanted[0] != 0;
	home_add(k, h);
	return h;
}

static void both_saved(void *arg, int rc, const struct errmsg *em)
{
	struct {
		struct kernel *k;
		char name[NAME_BYTES_MAX + 1];
	} *ctx = arg;
	struct home_record *h = rc < 0 ? map_find_str(ctx->k->homes, ctx->name) : NULL;
	struct home_record *parent = h ? parent_of(ctx->k, ctx->name) : NULL;

	(void)em;
	if (h)
		home_save_due(h);
	if (parent)
		home_save_due(parent);
	free(ctx);
}

static void both_save(struct kernel *k, struct home_record *h, struct home_record *parent)
{
	struct {
		struct kernel *k;
		char name[NAME_BYTES_MAX + 1];
	} *ctx = mem_zero(sizeof(*ctx));
	struct store_txn *t = store_begin(k->store);
	int rc;

	ctx->k = k;
	snprintf(ctx->name, sizeof(ctx->name), "%s", h->name);
	home_put(t, h);
	home_put(t, parent);
	FAULT_AT(CLONED_COMMIT);
	rc = store_commit(t, both_saved, ctx);
	if (rc < 0)
		both_saved(ctx, rc, NULL);
}

/* One that is verified: its record, made now if it is new. */
static int birth_take(struct kernel *k, const struct home_record *root, const struct hop *birth,
	const struct chain_end *end, struct home_record **out, struct errmsg *em)
{
	struct home_record *h = member(k, root, birth->suffix), *parent;
	char suffix[sizeof(birth->suffix)], *dot;
	int rc;

	if (h && memcmp(h->birth, end->prev, DIGEST_BYTES) == 0) {
		*out = h;
		return 0;
	}
	snprintf(suffix, sizeof(suffix), "%s", birth->suffix);
	dot = strrchr(suffix, '.');
	if (dot)
		*dot = 0;
	parent = member(k, root, suffix);
	if (!parent)
		return err_set(em, ERR_STATE, "the parent of %s%s is not known here yet",
			root->name, birth->suffix);
	if (home_busy(parent))
		return err_set(
			em, ERR_STATE, "something of %s is being journaled", parent->name);
	rc = h ? err_set(em, ERR_EXISTS, "%s is another clone", h->name)
	       : budget_left(parent, birth, em);
	if (rc < 0) {
		birth_refused(k, parent, birth, err_show(rc, em));
		return rc;
	}
	h = birth_record(k, parent, birth, end);
	for (size_t i = 0; i < SPLIT_COUNT; i++)
		parent->gave[split_limits[i]] += birth->split[split_limits[i]] +
						 (split_limits[i] == LIMIT_clones ? 1 : 0);
	parent->n_registered++;
	place_note(k, h->name, h->kernel);
	metric_add(k->metrics, "clones_registered_total", NULL, 1);
	log_info("a clone is known", KV_STR("carrier", h->name), KV_STR("made_by", h->born));
	k->family_news = true;
	both_save(k, h, parent);
	*out = h;
	return 0;
}

/* Where the records begin: at this home, at the birth of the carrier that they are of, or at where it is
 * known to be. */
static int births_begin(struct kernel *k, const struct home_record *root,
	const struct tos_value *list, struct chain_end *end, const char **held,
	struct errmsg *em)
{
	static const uint8_t zeros[DIGEST_BYTES];
	struct hop first = { .parts = NULL };
	struct home_record *h;
	char *dot;
	int rc = record_hop(record_at(list, 0), &first, em);

	*held = NULL;
	chain_begin(end, root->id, k->config.name, root->budget);
	if (rc == 0 && memcmp(first.prev, zeros, sizeof(zeros)) != 0) {
		dot = first.kind == HOP_CLONE ? strrchr(first.suffix, '.') : NULL;
		if (dot)
			*dot = 0;
		h = member(k, root, first.suffix);
		rc = h ? 0
		       : err_set(em, ERR_STATE, "%s%s is not known here yet", root->name,
				 first.suffix);
		if (rc == 0) {
			memcpy(end->id, h->id, DIGEST_BYTES);
			memcpy(end->budget, h->budget, sizeof(end->budget));
			memcpy(end->prev, first.prev, DIGEST_BYTES);
			snprintf(end->suffix, sizeof(end->suffix), "%s", first.suffix);
			snprintf(end->at, sizeof(end->at), "%s", h->born);
			if (!h->born[0] || memcmp(h->birth, first.prev, DIGEST_BYTES) != 0) {
				*held = h->kernel;
				snprintf(end->at, sizeof(end->at), "%s", first.from);
			}
		}
	}
	hop_fini(&first);
	return rc;
}

static int births_take(struct kernel *k, const struct home_record *root,
	const struct tos_value *list, const char *suffix, struct home_record **out,
	struct errmsg *em)
{
	struct chain_end end;
	const char *held;
	int rc = births_begin(k, root, list, &end, &held, em);

	*out = NULL;
	for (size_t i = 0; i < tos_len(list) && rc == 0; i++) {
		struct hop hop = { .parts = NULL };

		rc = chain_step(k, record_at(list, i), &end, em);
		if (rc == 0)
			rc = record_hop(record_at(list, i), &hop, em);
		if (rc == 0 && hop.kind == HOP_CLONE && held && strcmp(held, hop.from) != 0)
			rc = err_set(em, ERR_STATE,
				"how its parent came to %s is not known here yet", hop.from);
		if (rc == 0 && hop.kind == HOP_CLONE)
			rc = birth_take(k, root, &hop, &end, out, em);
		hop_fini(&hop);
	}
	if (rc == 0 && (!*out || strcmp(family_suffix((*out)->name), suffix) != 0))
		rc = err_set(em, ERR_SIGNATURE, "the records are not those of its birth");
	return rc;
}

int family_take(struct kernel *k, const struct tos_value *args, struct home_record **out,
	struct errmsg *em)
{
	const char *name = tos_get_text(args, "name", ""), *suffix = family_suffix(name);
	const struct tos_value *list = tos_get(args, "birth");
	char root_name[NAME_BYTES_MAX + 1];
	struct home_record *root;

	if (!suffix[0] || tos_len(list) == 0)
		return ERR_NOT_FOUND;
	family_root_name(name, root_name);
	root = home_find(k, root_name);
	if (!root)
		return ERR_NOT_FOUND;
	return births_take(k, root, list, suffix, out, em);
}

int family_arrived(
	struct kernel *k, const struct resident *r, struct home_record **out, struct errmsg *em)
{
	struct home_record *root = r->suffix[0] ? home_find(k, r->ticket.name) : NULL;
	struct tos_value *list;
	int rc;

	if (!root || memcmp(root->id, r->root, DIGEST_BYTES) != 0)
		return err_set(em, ERR_UNKNOWN, "its home never launched it");
	list = tos_array();
	for (size_t i = 0; i < r->n_before; i++) {
		struct slice one = records_at(&r->hops, i);

		tos_push(list, tos_bytes(one.p, one.n));
	}
	rc = births_take(k, root, list, r->suffix, out, em);
	tos_value_free(list);
	return rc;
}

/* ---- CLONED: the kernel that made it repeats this until it is durable here */

static void cloned_saved(void *arg, int rc, const struct errmsg *em)
{
	struct request *rq = arg;

	FAULT_AT(CLONED_JOURNALED);
	if (rc < 0)
		request_fail(rq, rc, "%s", err_show(rc, em));
	else
		request_ok(rq, NULL);
}

void cloned_verb(struct kernel *k, struct request *rq)
{
	struct home_record *h = NULL;
	struct errmsg em = { "" };
	struct store_txn *t;
	int rc;

	FAULT_AT(CLONED_TAKEN);
	rc = family_take(k, rq->args, &h, &em);
	if (rc < 0) {
		request_fail(rq, rc == ERR_STATE || rc == ERR_NOT_FOUND ? rc : ERR_DENIED, "%s",
			err_show(rc, &em));
		return;
	}
	/* Behind the transaction that made the record, if that is on its way still. */
	t = store_begin(k->store);
	if (!home_busy(h))
		home_put(t, h);
	rc = store_commit(t, cloned_saved, rq);
	if (rc < 0)
		cloned_saved(rq, rc, &em);
}

/* ---- all of them */

struct members {
	struct tos_value *names;
	const char *name;
};

static bool in_family(const char *name, const char *of)
{
	size_t n = strlen(of);

	return strncmp(name, of, n) == 0 && (!name[n] || name[n] == '.');
}

static int member_row(void *arg, struct slice key, struct slice body, int64_t expires_ms)
{
	struct members *ms = arg;
	char name[NAME_BYTES_MAX + 1];

	(void)body;
	(void)expires_ms;
	slice_copy_text(key, name, sizeof(name));
	/* '.' is before all digits: nothing of it comes behind what is not. */
	if (!in_family(name, ms->name) || tos_len(ms->names) >= MEMBERS_MAX)
		return 1;
	tos_push(ms->names, tos_text(name));
	return 0;
}

/* Names of h and of all that come of it: those in the store, and those that are on their way there. */
static struct tos_value *members_of(struct kernel *k, const char *name)
{
	struct members ms = { tos_array(), name };
	struct map *seen = map_new();
	struct home_record *h;
	struct errmsg em;
	size_t it = 0;

	store_each(k->store, T_HOME, slice_text(name), member_row, &ms, &em);
	for (size_t i = 0; i < tos_len(ms.names); i++)
		map_put_str(seen, tos_as_text(tos_at(ms.names, i), ""), k);
	while ((h = map_next(k->homes, &it, NULL, NULL)))
		if (in_family(h->name, name) && !map_find_str(seen, h->name))
			tos_push(ms.names, tos_text(h->name));
	map_free(seen);
	return ms.names;
}

struct tos_value *family_children(struct kernel *k, const struct home_record *h)
{
	struct tos_value *all = members_of(k, h->name), *out = tos_array();

	for (size_t i = 0; i < tos_len(all); i++)
		if (family_parent(h->name, tos_as_text(tos_at(all, i), "")))
			tos_push(out, tos_value_copy(tos_at(all, i)));
	tos_value_free(all);
	return out;
}

/* ---- waiting for all */

struct family_waiter {
	struct list node;
	struct request *rq;
	char name[NAME_BYTES_MAX + 1];
	int64_t until_ms;
};

/* It has ended, and each clone that it says it made is known. */
static bool member_done(const struct home_record *h)
{
	return home_outcome_known(h) &&
	       h->n_registered >= (uint64_t)tos_get_int(h->outcome, "clones", 0);
}

static struct tos_value *family_value(struct kernel *k, const char *name, size_t *open)
{
	struct tos_value *names = members_of(k, name), *rows = tos_array(), *m = tos_map();

	*open = 0;
	for (size_t i = 0; i < tos_len(names); i++) {
		struct home_record *h = home_find(k, tos_as_text(tos_at(names, i), ""));

		if (!h)
			continue;
		*open += !member_done(h);
		tos_push(rows, home_row(h));
	}
	tos_value_free(names);
	tos_set(m, "name", tos_text(name));
	tos_set(m, "complete", tos_bool(*open == 0));
	tos_set(m, "members", rows);
	return m;
}

void family_wait(struct kernel *k, struct home_record *h, struct request *rq, uint32_t wait_ms)
{
	struct family_waiter *w;
	struct list *pos;
	size_t open, n = 0;
	struct tos_value *m = family_value(k, h->name, &open);

	if (open == 0 || wait_ms == 0) {
		request_ok(rq, m);
		return;
	}
	tos_value_free(m);
	LIST_EACH(pos, &k->families)
	n++;
	if (n >= WAITERS_MAX) {
		request_fail(rq, ERR_FULL, "%d wait for families already", WAITERS_MAX);
		return;
	}
	w = mem_new(struct family_waiter);
	w->rq = rq;
	w->until_ms = clock_ms() + wait_ms;
	snprintf(w->name, sizeof(w->name), "%s", h->name);
	list_add(&k->families, &w->node);
}

static struct request *family_waiter_end(struct family_waiter *w)
{
	struct request *rq = w->rq;

	list_del(&w->node);
	free(w);
	return rq;
}

void family_waiters_drop(struct kernel *k, const char *client)
{
	struct list *pos, *tmp;

	LIST_EACH_SAFE(pos, tmp, &k->families)
	{
		struct family_waiter *w = LIST_ITEM(pos, struct family_waiter, node);

		if (strcmp(w->rq->from.name, client) == 0)
			request_free(family_waiter_end(w));
	}
}

void families_tick(struct kernel *k, int64_t now_ms)
{
	struct list *pos, *tmp;
	bool news = k->family_news;

	k->family_news = false;
	LIST_EACH_SAFE(pos, tmp, &k->families)
	{
		struct family_waiter *w = LIST_ITEM(pos, struct family_waiter, node);
		struct tos_value *m = NULL;
		size_t open = 1;

		if (!news && now_ms < w->until_ms)
			continue;
		m = family_value(k, w->name, &open);
		if (open == 0) {
			request_ok(family_waiter_end(w), m);
			continue;
		}
		if (now_ms >= w->until_ms) {
			char name[NAME_BYTES_MAX + 1];
			size_t all = tos_len(tos_get(m, "members"));

			snprintf(name, sizeof(name), "%s", w->name);
			request_fail(family_waiter_end(w), ERR_TIMEOUT,
				"%zu of %zu that are known of the family of %s have not ended",
				open, all, name);
		}
		tos_value_free(m);
	}
}

/* ---- wishes for all */

struct family_wish {
	struct kernel *k;
	struct request *rq;
	char name[NAME_BYTES_MAX + 1], wanted[16];
	size_t n;
};

static void family_wanted_saved(void *arg, int rc, const struct errmsg *em)
{
	AUTOFREE struct family_wish *w = arg;
	struct tos_value *out;

	if (rc < 0) {
		request_fail(w->rq, rc, "%s", err_show(rc, em));
		return;
	}
	out = tos_map();
	tos_set(out, "name", tos_text(w->name));
	tos_set(out, "wanted", tos_text(w->wanted));
	tos_set(out, "members", tos_int((int64_t)w->n));
	request_ok(w->rq, out);
}

/* One member; the tick passes it on. */
static void member_want(
	struct store_txn *t, struct home_record *h, const char *wanted, bool ends)
{
	/* What is running needs no wish: later clones are as they are made. */
	if (strcmp(h->family_wanted, "killed") != 0)
		snprintf(h->family_wanted, sizeof(h->family_wanted), "%s",
			strcmp(wanted, "running") == 0 ? "" : wanted);
	if (!ends && strcmp(h->wanted, "killed") != 0) {
		snprintf(h->wanted, sizeof(h->wanted), "%s", wanted);
		h->command_due = true;
		h->command_at_ms = 0;
	}
	if (home_busy(h))
		home_save_due(h);
	else
		home_put(t, h);
}

void family_want(
	struct kernel *k, struct home_record *h, const char *wanted, struct request *rq)
{
	struct tos_value *names = members_of(k, h->name);
	struct family_wish *w = mem_new(struct family_wish);
	struct store_txn *t = store_begin(k->store);
	struct errmsg em = { "" };
	int rc;

	w->k = k;
	w->rq = rq;
	snprintf(w->name, sizeof(w->name), "%s", h->name);
	snprintf(w->wanted, sizeof(w->wanted), "%s", wanted);
	for (size_t i = 0; i < tos_len(names); i++) {
		struct home_record *m = home_find(k, tos_as_text(tos_at(names, i), ""));

		if (!m)
			continue;
		w->n += !shell_ended(m->state);
		member_want(t, m, wanted, shell_ended(m->state));
	}
	tos_value_free(names);
	FAULT_AT(WANT_COMMIT);
	rc = store_commit(t, family_wanted_saved, w);
	if (rc < 0)
		family_wanted_saved(w, rc, &em);
}
