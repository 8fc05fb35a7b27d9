/*
 * Making a clone, where its parent is (doc/protocol.md, "Clones"). tos.clone() freezes the carrier
 * without stopping it; Spawner says where the copy goes and what it gets of the budgets; here that
 * is checked, offered to the destination, signed as a birth record, and journaled: the parent's row
 * with the number given out, the clone's row, and the note to the home, in one transaction. From
 * then on the clone is a carrier like any other, and Mobility moves it.
 */
#include "kernel/carrier/family.h"

#include <string.h>

#include "base/clock.h"
#include "base/fault.h"
#include "base/log.h"
#include "core/path.h"
#include "kernel/carrier/account.h"
#include "kernel/carrier/admit.h"
#include "kernel/carrier/resident.h"
#include "kernel/carrier/seals.h"
#include "kernel/carrier/vms.h"
#include "kernel/handoff/moves.h"
#include "kernel/handoff/report.h"
#include "kernel/trust/trust.h"
#include "seal/records.h"
#include "tos/extension.h"
#include "wire/pick.h"

#define SPAWNER_CALL_MS 60000u
#define ASKED_BYTES                                                                            \
	16 /* of the request's digest: enough to tell two requests of one run apart */

/* A CLONE that has not been answered. */
struct cloning {
	struct kernel *k;
	struct resident *parent; /* NULL: it has ended, or its run has */
	struct resident *child;  /* ours until it is durable */
	struct request *rq;      /* Spawner's SPAWN; NULL: none is under way */
	unsigned waits;          /* callbacks that will come */
	uint64_t seq, call;
	uint8_t asked[ASKED_BYTES];
	char dest[64];
	bool moves;
	int64_t split[LIMIT_COUNT];
	int64_t had[LIMIT_COUNT],
		left[LIMIT_COUNT]; /* the parent's limits, before and behind it */
	struct blob state, briefcase;
	struct tos_value *path;
};

static void cloning_end(struct cloning *c)
{
	if (c->parent)
		c->parent->cloning = NULL;
	c->parent = NULL;
	if (c->rq)
		request_fail(STEAL(c->rq), ERR_CANCELLED, "the carrier has ended");
	if (c->waits)
		return;
	resident_free(c->child);
	blob_free(&c->state);
	blob_free(&c->briefcase);
	tos_value_free(c->path);
	free(c);
}

void clone_cancel(struct resident *r)
{
	if (r->cloning)
		cloning_end(r->cloning);
}

/* One that was waited for has come. NULL: nobody is interested any more. */
static struct cloning *cloning_back(void *arg)
{
	struct cloning *c = arg;

	c->waits--;
	if (c->parent)
		return c;
	cloning_end(c);
	return NULL;
}

/* ---- what was made in this run */

void clone_checkpoint(struct resident *r)
{
	tos_value_free(r->clones);
	r->clones = NULL;
	r->clone_base = r->clone_calls;
}

void clone_forget(struct resident *r)
{
	clone_checkpoint(r);
	r->clone_calls = r->clone_base = 0;
}

/* Numbers of an incarnation that nobody else can have given out. */
#define NUMBERS_EACH ((uint64_t)1000000)

void clone_renumber(struct resident *r)
{
	clone_forget(r);
	if (r->n_children < r->e.count * NUMBERS_EACH)
		r->n_children = r->e.count * NUMBERS_EACH;
}

static void clone_note(struct resident *r, const struct cloning *c)
{
	struct tos_value *row = tos_array();

	if (!r->clones)
		r->clones = tos_array();
	tos_push(row, tos_int((int64_t)c->call));
	tos_push(row, tos_bytes(c->asked, ASKED_BYTES));
	tos_push(row, tos_int((int64_t)r->n_children));
	tos_push(r->clones, row);
}

static const struct tos_value *clone_made(const struct resident *r, uint64_t call)
{
	for (size_t i = 0; i < tos_len(r->clones); i++)
		if (tos_as_int(tos_at(tos_at(r->clones, i), 0), -1) == (int64_t)call)
			return tos_at(r->clones, i);
	return NULL;
}

void clone_put(const struct resident *r, struct tos_value *row)
{
	if (r->suffix[0])
		tos_set(row, "suffix", tos_text(r->suffix));
	if (r->clone_base)
		tos_set(row, "clone_base", tos_int((int64_t)r->clone_base));
	if (tos_len(r->clones))
		tos_set(row, "clones", tos_value_copy(r->clones));
}

void clone_load(struct resident *r, struct slice clone_base, struct slice clones)
{
	r->clone_base = (uint64_t)pick_int(clone_base, 0);
	r->clones = pick_value(clones);
}

/* ---- answers */

static void clone_failed(struct cloning *c, int rc, const char *text)
{
	char label[48];

	snprintf(label, sizeof(label), "code=\"%s\"", err_word(rc));
	metric_add(c->k->metrics, "cloning_refused_total", label, 1);
	log_notice("a carrier was not cloned", KV_STR("carrier", c->parent->name),
		KV_STR("dest", c->dest), KV_STR("error", err_word(rc)), KV_STR("reason", text));
	vm_done(c->parent, c->seq, rc, text);
	cloning_end(c);
}

/* Refused by what this host allows: written down, as other refusals are. */
static void clone_refused(struct cloning *c, int rc, const char *text)
{
	struct tos_value *m = audit_carrier(c->parent, c->parent->n);

	tos_set(m, "owner", tos_text(c->parent->owner->name));
	tos_set(m, "code", tos_text(err_word(rc)));
	tos_set(m, "text", tos_text(text));
	audit_refusal(c->k, NULL, "", "cloning-refused", m);
}

/* SPAWN failed: Spawner decides what is tried next. */
static void spawn_failed(struct cloning *c, int rc, const char *text)
{
	struct request *rq = STEAL(c->rq);

	resident_free(c->child);
	c->child = NULL;
	if (rq)
		request_fail(rq, rc, "%s", text);
}

/* ---- the copy */

static void copy_identity(struct resident *child, const struct resident *parent)
{
	uint8_t id[DIGEST_BYTES];
	char suffix[sizeof(parent->suffix) + 24];

	/* Decoded and found good when the parent came. */
	ticket_stored(
		blob_slice(&parent->ticket_cose), &child->ticket, id, &child->owner, NULL);
	blob_share(&child->ticket_cose, &parent->ticket_cose);
	cert_keep(&child->owner, parent->owner);
	cert_keep(&child->author, parent->author);
	snprintf(suffix, sizeof(suffix), "%s.%llu", parent->suffix,
		(unsigned long long)parent->n_children + 1);
	family_is(child, parent->root, suffix);
	memcpy(child->code_digest, parent->code_digest, DIGEST_BYTES);
	memcpy(child->minimum, parent->minimum, sizeof(child->minimum));
}

static struct resident *copy_make(struct cloning *c, struct tos_value *path)
{
	struct resident *parent = c->parent, *child = resident_new(c->k);
	struct code *code = map_find(c->k->codes, parent->code_digest, DIGEST_BYTES);

	copy_identity(child, parent);
	/* The author's: what a hook replaced was for the parent's stay. */
	blob_share(&child->code, code ? &code->bundle : &parent->code);
	blob_share(&child->briefcase, &c->briefcase);
	blob_share(&child->state_bytes, &c->state);
	tos_value_free(child->path);
	child->path = path;
	records_copy(&child->hops, &parent->hops);
	child->launched_ms = parent->launched_ms;
	child->n = 1; /* 0 is its birth */
	child->completed = c->moves;
	memcpy(child->budget, child->ticket.limits, sizeof(child->budget));
	for (size_t i = 0; i < SPLIT_COUNT; i++)
		child->budget[split_limits[i]] = c->split[split_limits[i]];
	resident_trail(child, "cloned", "", "");
	return child;
}

static int birth_sign(struct resident *child, struct errmsg *em)
{
	struct hop hop = { .kind = HOP_CLONE, .time_ms = clock_wall_ms() };
	const char *name = child->k->config.name;
	AUTOBUF bytes = BUF_MAX((size_t)160 << 20), payload = BUF_MAX((size_t)8 << 20),
		cose = BUF_MAX((size_t)9 << 20);
	struct envelope env;
	struct slice last, one;
	int rc = resident_envelope(child, child->path, &bytes);

	memcpy(hop.id, child->id, sizeof(hop.id));
	snprintf(hop.suffix, sizeof(hop.suffix), "%s", child->suffix);
	snprintf(hop.from, sizeof(hop.from), "%s", name);
	snprintf(hop.dest, sizeof(hop.dest), "%s", name);
	memcpy(hop.split, child->budget, sizeof(hop.split));
	if (records_n(&child->hops)) {
		last = records_at(&child->hops, records_n(&child->hops) - 1);
		digest_bytes(last.p, last.n, hop.prev);
	}
	if (rc == 0)
		rc = envelope_decode(slice_buf(&bytes), &env, em);
	if (rc == 0)
		rc = envelope_digests(&env, &hop.parts, em);
	if (rc == 0) {
		hop.grown = seals_grown(&child->ticket, blob_slice(&child->briefcase));
		hop_encode(&payload, &hop);
		rc = buf_check(&payload);
	}
	hop_fini(&hop);
	one = slice_buf(&payload);
	if (rc == 0)
		rc = records_sign(child->k->signer, &one, 1, &cose, em);
	if (rc == 0) {
		rc = records_push(&child->hops, slice_buf(&cose)) ? family_budget(child, em)
								  : ERR_NOMEM;
	}
	return rc;
}

/* ---- what it gets */

/* What the parent has left to give. */
static void rest_of(const struct resident *r, int64_t rest[LIMIT_COUNT])
{
	family_asked(r, rest);
	rest[LIMIT_cpu] -= (int64_t)(vm_cpu_us(r) / 1000);
	rest[LIMIT_hops] -= (int64_t)r->hop_count;
	rest[LIMIT_sent] -= r->usage.used[LIMIT_sent];
	/* The host's limit counts here, too: the whole family that is made here stays within. */
	rest[LIMIT_clones] = r->usage.limit[LIMIT_clones] - r->usage.used[LIMIT_clones];
	for (size_t i = 0; i < SPLIT_COUNT; i++)
		if (rest[split_limits[i]] < 0)
			rest[split_limits[i]] = 0;
}

static int split_check(struct resident *r, const int64_t split[LIMIT_COUNT], struct errmsg *em)
{
	int64_t rest[LIMIT_COUNT];
	char label[48];

	rest_of(r, rest);
	for (size_t i = 0; i < SPLIT_COUNT; i++) {
		enum limit_id id = split_limits[i];
		/* One for the clone itself; and without any CPU time it could not begin. */
		int64_t least = id == LIMIT_cpu ? 1 : 0, own = id == LIMIT_clones ? 1 : 0;

		if (split[id] >= least && split[id] <= rest[id] - own)
			continue;
		r->usage.exceeded[id]++;
		snprintf(label, sizeof(label), "limit=\"%s\"", limit_names[id]);
		metric_add(r->k->metrics, "limits_exceeded_total", label, 1);
		return err_set(em, ERR_LIMIT,
			"limit %s: %lld%s%s are left for %s and its clones, %lld were to go to a new one",
			limit_names[id], (long long)rest[id], limit_units[id][0] ? " " : "",
			limit_units[id], r->name, (long long)split[id]);
	}
	return 0;
}

/* From here on the parent has that much less. */
static void split_take(struct resident *r, const int64_t split[LIMIT_COUNT], int sign)
{
	int64_t asked[LIMIT_COUNT];

	r->usage.used[LIMIT_clones] += sign * (split[LIMIT_clones] + 1);
	for (size_t i = 0; i < SPLIT_COUNT; i++)
		if (split_limits[i] != LIMIT_clones)
			r->gave[split_limits[i]] += sign * split[split_limits[i]];
	family_asked(r, asked);
	for (size_t i = 0; sign > 0 && i < SPLIT_COUNT; i++)
		if (r->usage.limit[split_limits[i]] > asked[split_limits[i]])
			r->usage.limit[split_limits[i]] = asked[split_limits[i]];
}

/* No clone came of it. A limit that has changed meanwhile stays as it is. */
static void split_undo(struct cloning *c)
{
	struct resident *r = c->parent;

	split_take(r, c->split, -1);
	for (size_t i = 0; i < SPLIT_COUNT; i++) {
		enum limit_id id = split_limits[i];

		if (r->usage.limit[id] == c->left[id])
			r->usage.limit[id] = c->had[id];
	}
	vm_limits(r);
}

/* ---- the transaction */

static void clone_saved(void *arg, int rc, const struct errmsg *em)
{
	struct cloning *c = arg;
	struct resident *child = STEAL(c->child);
	char name[NAME_BYTES_MAX + 1];
	struct tos_value *m;

	FAULT_AT(CLONE_JOURNALED);
	snprintf(name, sizeof(name), "%s", child->name);
	if (rc < 0) {
		if (c->parent) {
			split_undo(c);
			c->parent->n_made--;
			tos_value_free(
				tos_take_at(c->parent->clones, tos_len(c->parent->clones) - 1));
		}
		resident_free(child);
		if (cloning_back(c))
			spawn_failed(c, rc, err_show(rc, em));
		return;
	}
	account_open(child, true);
	map_put_str(c->k->residents, child->name, child);
	metric_add(c->k->metrics, "carriers_cloned_total", NULL, 1);
	home_birth_send(child);
	if (!child->completed)
		home_report(child);
	resident_go_on(child);
	c = cloning_back(c);
	if (c && c->rq) {
		m = tos_map();
		tos_set(m, "clone", tos_text(name));
		request_ok(STEAL(c->rq), m);
	}
	FAULT_AT(CLONE_ANSWERED);
}

static void clone_journal(struct cloning *c)
{
	struct resident *r = c->parent, *child = c->child;
	struct store_txn *t;
	struct tos_value *m;
	int rc;

	r->n_children++;
	r->n_made++;
	memcpy(c->had, r->usage.limit, sizeof(c->had));
	split_take(r, c->split, 1);
	memcpy(c->left, r->usage.limit, sizeof(c->left));
	vm_limits(r);
	clone_note(r, c);
	resident_event(child, SHELL_EV_ADMIT, NULL);
	resident_trail(r, "clone", child->name, "");
	t = store_begin(c->k->store);
	resident_put(t, r);
	resident_put(t, child);
	m = audit_carrier(child, 0);
	tos_set(m, "owner", tos_text(r->owner->name));
	tos_set(m, "parent", tos_text(r->name));
	tos_set(m, "dest", tos_text(c->dest));
	audit_event(c->k, t, "cloned", m);
	home_birth_put(t, child);
	c->waits++;
	FAULT_AT(CLONE_COMMIT);
	rc = store_commit(t, clone_saved, c);
	if (rc < 0)
		clone_saved(c, rc, NULL);
}

/* ---- SPAWN */

static void on_clone_hooks(struct kernel *k, void *arg, int rc, const char *text)
{
	struct cloning *c = cloning_back(arg);
	struct errmsg em = { "" };

	(void)k;
	if (!c)
		return;
	/* Its number was reserved by nobody else being cloned of this parent meanwhile. */
	if (rc == 0) {
		rc = birth_sign(c->child, &em);
		text = err_show(rc, &em);
	}
	if (rc < 0) {
		spawn_failed(c, rc == ERR_TIMEOUT ? ERR_REFUSED : rc, text);
		return;
	}
	clone_journal(c);
}

/* It begins here, or is moved on at once: then hooks see it leave, and arrive elsewhere. */
static void clone_admit(struct cloning *c)
{
	c->waits++;
	if (c->moves)
		on_clone_hooks(c->k, c, 0, "");
	else
		hooks_run(c->k, c->child, TOS_INBOX_ON_ARRIVAL, c->k->config.name,
			c->k->config.name, on_clone_hooks, c);
}

static void on_clone_offered(
	struct kernel *k, void *arg, int rc, const char *text, const struct tos_value *elements)
{
	struct cloning *c = cloning_back(arg);
	struct errmsg em = { "" };

	(void)k;
	(void)elements;
	if (!c)
		return;
	if (rc == ERR_TIMEOUT)
		rc = ERR_UNREACHABLE;
	if (rc < 0)
		spawn_failed(c, err_set(&em, rc, "%s: %s", c->dest, text), em.text);
	else
		clone_admit(c);
}

static int spawn_path(struct cloning *c, const struct tos_value *path, struct errmsg *em)
{
	if (tos_type(path) != TOS_ARRAY || tos_len(path) > PATH_ENTRIES_MAX)
		return err_set(em, ERR_MALFORMED, "the clone's path is not a list");
	for (size_t i = 0; i < tos_len(path); i++)
		if (tos_type(tos_at(path, i)) != TOS_TEXT)
			return err_set(em, ERR_MALFORMED, "a path entry is not a text");
	if (!c->parent->ticket.itinerant && !path_is_suffix(path, c->parent->ticket.path))
		return err_set(em, ERR_DENIED,
			"%s is not in the ticket's path, and the ticket is not itinerant",
			c->dest);
	return 0;
}

static int spawn_check(struct cloning *c, const struct tos_value *args, struct errmsg *em)
{
	struct resident *r = c->parent;
	const struct tos_value *path = tos_get(args, "path"), *split = tos_get(args, "split");
	int rc = name_kernel_ok(c->dest)
			 ? 0
			 : err_set(em, ERR_NAME, "%s is not a kernel's name", c->dest);

	for (int i = 0; i < LIMIT_COUNT; i++)
		c->split[i] = tos_get_int(split, limit_names[i], -1);
	if (rc == 0)
		rc = spawn_path(c, path, em);
	if (rc == 0)
		rc = split_check(r, c->split, em);
	if (rc == 0 && strlen(r->suffix) + 22 > sizeof(r->suffix))
		rc = err_set(em, ERR_LIMIT, "%s has too many ancestors", r->name);
	if (rc == 0 && strlen(r->name) + 22 > NAME_BYTES_MAX)
		rc = err_set(
			em, ERR_LIMIT, "the name of a clone of %s would be too long", r->name);
	if (rc == 0)
		rc = admit_check(c->k, r->owner, "clone", true, em);
	if (rc == 0)
		rc = admit_author(c->k, r->owner, r->author, "clone", em);
	if (rc == 0)
		rc = account_room(c->k, r->owner->name,
			(int64_t)(c->briefcase.n + c->state.n + r->code.n), em);
	if (rc < 0 && rc != ERR_LIMIT && rc != ERR_DENIED)
		return rc;
	if (rc < 0) {
		clone_refused(c, rc, err_show(rc, em));
		return rc;
	}
	c->child = copy_make(c, tos_value_copy(path));
	if (records_n(&c->child->hops) != records_n(&c->parent->hops))
		return err_set(em, ERR_NOMEM, "there is no memory for the chain of a copy");
	rc = admit_limits(c->k, c->child->budget, c->child->minimum, c->child->usage.limit, em);
	rate_init(&c->child->post_rate, c->child->usage.limit[LIMIT_posts], clock_ms());
	rate_init(&c->child->log_rate, LINES_PER_S, clock_ms());
	return rc;
}

void shells_spawn(struct kernel *k, struct request *rq)
{
	struct resident *r = resident_find(k, tos_get_text(rq->args, "name", ""));
	struct cloning *c = r ? r->cloning : NULL;
	int64_t timeout = tos_get_int(rq->args, "timeout_ms", 0);
	struct errmsg em = { "" };
	int rc;

	if (!c || c->rq || c->child) {
		request_fail(rq, c ? ERR_STATE : ERR_NOT_FOUND,
			"no such carrier waits to be cloned");
		return;
	}
	c->rq = rq;
	snprintf(c->dest, sizeof(c->dest), "%s", tos_get_text(rq->args, "dest", ""));
	c->moves = tos_get_bool(rq->args, "moves", false);
	FAULT_AT(CLONE_TAKEN);
	rc = spawn_check(c, rq->args, &em);
	if (rc < 0) {
		spawn_failed(c, rc, err_show(rc, &em));
		return;
	}
	if (strcmp(c->dest, k->config.name) == 0) {
		clone_admit(c);
		return;
	}
	/* Nothing is committed: a kernel that is down, or will not have it, costs no clone. */
	c->waits++;
	kernel_call(k, c->dest, "Handoff", "OFFER", offer_args(c->child),
		timeout > 0 && timeout <= 600000 ? (uint32_t)timeout : k->config.offer_ms,
		on_clone_offered, c);
}

/* ---- CLONE */

/* Spawner is done with it. */
static void on_cloned(
	struct kernel *k, void *arg, int rc, const char *text, const struct tos_value *elements)
{
	struct cloning *c = cloning_back(arg);
	const char *name = tos_get_text(tos_at(elements, 0), "clone", "");

	(void)k;
	if (!c)
		return;
	if (rc < 0) {
		clone_failed(c, rc, text);
		return;
	}
	vm_done(c->parent, c->seq, 0, name);
	cloning_end(c);
}

/* Where to: what it is to get may be worked out from what was used, and that is never the same twice. */
static void asked_digest(const struct clone_asked *a, uint8_t out[ASKED_BYTES])
{
	uint8_t digest[DIGEST_BYTES];

	digest_bytes(a->dest.p, a->dest.n, digest);
	memcpy(out, digest, ASKED_BYTES);
}

/* Made before a crash, by the run that this one repeats: the same clone, never two. */
static bool repeated(struct resident *r, const struct clone_asked *a, const uint8_t *asked)
{
	const struct tos_value *made = clone_made(r, r->clone_calls);
	char name[NAME_BYTES_MAX + 32];
	const uint8_t *was;
	size_t n;

	if (!made)
		return false;
	was = tos_as_bytes(tos_at(made, 1), &n);
	if (n != ASKED_BYTES || memcmp(was, asked, n) != 0) {
		vm_done(r, a->seq, ERR_DIVERGED,
			"this run asked for another clone here before the crash");
		return true;
	}
	snprintf(name, sizeof(name), "%s.%lld", r->name,
		(long long)tos_as_int(tos_at(made, 2), 0));
	metric_add(r->k->metrics, "clones_repeated_total", NULL, 1);
	vm_done(r, a->seq, 0, name);
	return true;
}

static struct tos_value *clone_args(struct cloning *c, const struct clone_asked *a)
{
	struct resident *r = c->parent;
	struct tos_value *m = tos_map(), *rest = tos_map(), *split = tos_map();
	int64_t left[LIMIT_COUNT];

	rest_of(r, left);
	for (size_t i = 0; i < SPLIT_COUNT; i++) {
		enum limit_id id = split_limits[i];

		tos_set(rest, limit_names[id], tos_int(left[id]));
		if (a->split[id] >= 0)
			tos_set(split, limit_names[id], tos_int(a->split[id]));
	}
	tos_set(m, "name", tos_text(r->name));
	tos_set(m, "dest", tos_text(c->dest));
	tos_set(m, "here", tos_text(c->k->config.name));
	tos_set(m, "path", tos_value_copy(c->path));
	tos_set(m, "itinerant", tos_bool(r->ticket.itinerant));
	tos_set(m, "rest", rest);
	tos_set(m, "split", split);
	return m;
}

void clone_begin(struct resident *r, struct clone_asked *a)
{
	const char *inbox = ext_hook(r->k->exts, TOS_INBOX_ON_CLONE, 0);
	uint8_t asked[ASKED_BYTES];
	struct cloning *c;

	r->clone_calls++;
	asked_digest(a, asked);
	if (repeated(r, a, asked) || !inbox) {
		if (!inbox)
			vm_done(r, a->seq, ERR_UNSUPPORTED,
				"this kernel has no spawner extension");
		tos_value_free(a->path);
		return;
	}
	c = mem_new(struct cloning);
	c->k = r->k;
	c->parent = r;
	c->seq = a->seq;
	c->call = r->clone_calls;
	memcpy(c->asked, asked, sizeof(asked));
	slice_copy_text(a->dest, c->dest, sizeof(c->dest));
	blob_set(&c->state, a->state);
	blob_set(&c->briefcase, a->briefcase);
	c->path = a->path;
	r->cloning = c;
	c->waits++;
	kernel_call(r->k, "", inbox, "CLONE", clone_args(c, a), SPAWNER_CALL_MS, on_cloned, c);
}
