/*
 * Signed acts: what a principal asks for with its own signature, checked here, where it is
 * carried out, and given to whichever room it is about. No kernel vouches for a principal.
 */
#include "kernel/kernel.h"

#include <string.h>

#include "base/clock.h"
#include "base/fault.h"
#include "base/log.h"
#include "kernel/carrier/resident.h"
#include "kernel/handoff/forced.h"
#include "kernel/handoff/moves.h"
#include "kernel/home/families.h"
#include "kernel/home/home.h"
#include "kernel/services/content.h"
#include "kernel/services/extender.h"
#include "kernel/services/programs.h"
#include "kernel/settings.h"
#include "kernel/trust/trust.h"

#define ACT_MOST_MS 3600000

struct act {
	struct request *rq;
	struct cert_info who;
	char name[33], target[NAME_BYTES_MAX + 1];
	char owner[CERT_NAME_MAX + 1]; /* of the target; policy was asked about it */
	struct tos_value *payload;
	const struct tos_value *args;
};

static void act_free(struct act *a)
{
	tos_value_free(a->payload);
	free(a);
}

static void act_fail(struct act *a, int rc, const char *text)
{
	request_fail(STEAL(a->rq), rc, "%s", text);
	act_free(a);
}

/* ---- carriers */

static void act_carrier(struct kernel *k, struct act *a)
{
	static const struct {
		const char *act, *wanted;
	} wanted[] = { { "kill", "killed" }, { "suspend", "suspended" },
		{ "resume", "running" }, { "retry", "retry" } };
	struct home_record *h = home_find(k, a->target);

	if (!h) {
		act_fail(a, ERR_NOT_FOUND, "no carrier of that name was launched here");
		return;
	}
	for (size_t i = 0; i < ARRAY_LEN(wanted); i++) {
		if (strcmp(wanted[i].act, a->name) != 0)
			continue;
		if (!tos_get_bool(a->args, "family", false))
			home_want(k, h, wanted[i].wanted, STEAL(a->rq));
		else if (strcmp(wanted[i].wanted, "retry") != 0)
			family_want(k, h, wanted[i].wanted, STEAL(a->rq));
		else
			request_fail(STEAL(a->rq), ERR_UNSUPPORTED,
				"carriers are retried one by one");
	}
	act_free(a);
}

static void act_resolve(struct kernel *k, struct act *a)
{
	struct resident *r = resident_find(k, a->target);

	if (!r) {
		act_fail(a, ERR_NOT_FOUND, "no carrier of that name is here");
		return;
	}
	if (tos_get_bool(a->args, "force", false)) {
		struct slice cose;

		cose.p = tos_get_bytes(a->rq->args, "cose", &cose.n);
		forced_begin(r, a->rq, a->who.name, a->payload, cose);
		a->rq = NULL;
	} else {
		resolve_begin(r, STEAL(a->rq));
	}
	act_free(a);
}

/* ---- kernels */

struct declared {
	struct kernel *k;
	struct request *rq;
	char dead[64];
};

static void on_declared(void *arg, int rc, const struct errmsg *em)
{
	AUTOFREE struct declared *d = arg;
	struct tos_value *m, *names;
	struct resident *r;
	size_t it = 0;

	FAULT_AT(DECLARE_JOURNALED);
	if (rc < 0) {
		request_fail(d->rq, rc, "%s", err_show(rc, em));
		return;
	}
	m = tos_map();
	names = tos_array();
	home_declared(d->k, d->dead, names);
	/* Copies here that are in doubt towards it ask their homes now. */
	while ((r = map_next(d->k->residents, &it, NULL, NULL)))
		if (r->state == SHELL_DEPARTING && r->in_doubt && !r->asking &&
			strcmp(r->dest, d->dead) == 0) {
			tos_push(names, tos_text(r->name));
			resolve_begin(r, NULL);
		}
	tos_set(m, "kernel", tos_text(d->dead));
	tos_set(m, "carriers", names);
	request_ok(d->rq, m);
}

static void act_declare(struct kernel *k, struct act *a)
{
	struct declared *d;
	struct store_txn *t;
	struct tos_value *m;
	uint8_t *bytes = NULL;
	size_t n;
	int rc;

	if (!name_kernel_ok(a->target) || strcmp(a->target, k->config.name) == 0) {
		act_fail(a, ERR_NAME, "that is not another kernel's name");
		return;
	}
	if (links_find(k->links, a->target)) {
		act_fail(a, ERR_STATE, "that kernel is linked here: it is not dead");
		return;
	}
	d = mem_new(struct declared);
	d->k = k;
	d->rq = STEAL(a->rq);
	snprintf(d->dead, sizeof(d->dead), "%s", a->target);
	m = tos_map();
	tos_set(m, "by", tos_text(a->who.name));
	tos_set(m, "wall", tos_int(clock_wall_ms()));
	t = store_begin(k->store);
	if (tos_encode(m, &bytes, &n) == 0)
		store_put(t, T_DECLARED, d->dead, strlen(d->dead), bytes, n, 0);
	free(bytes);
	tos_set(m, "kernel", tos_text(d->dead));
	audit_event(k, t, "declared-dead", m);
	FAULT_AT(DECLARE_COMMIT);
	rc = store_commit(t, on_declared, d);
	if (rc < 0) {
		request_fail(d->rq, rc, "%s", err_text(rc));
		free(d);
	}
	act_free(a);
}

static void act_revoke(struct kernel *k, struct act *a)
{
	struct errmsg em = { "" };
	struct slice list;
	struct tos_value *m;
	int rc;

	list.p = tos_get_bytes(a->args, "list", &list.n);
	rc = list.p ? revocation_accept(k, list, &em) : ERR_MALFORMED;
	if (rc < 0) {
		act_fail(a, rc, err_show(rc, &em));
		return;
	}
	m = tos_map();
	tos_set(m, "number", tos_int((int64_t)revocation_number(k->revocation)));
	request_ok(STEAL(a->rq), m);
	act_free(a);
}

static void act_enroll(struct kernel *k, struct act *a)
{
	registrar_enroll_act(k, STEAL(a->rq), a->target, a->args);
	act_free(a);
}

static void act_remove(struct kernel *k, struct act *a)
{
	registrar_remove_act(k, STEAL(a->rq), a->target);
	act_free(a);
}

static void act_groups(struct kernel *k, struct act *a)
{
	groups_act(k, STEAL(a->rq), a->who.name, a->args);
	act_free(a);
}

static void act_set(struct kernel *k, struct act *a)
{
	settings_act(k, STEAL(a->rq), a->who.name, a->target, a->args);
	act_free(a);
}

static void act_reload(struct kernel *k, struct act *a)
{
	reload_act(k, STEAL(a->rq), a->who.name);
	act_free(a);
}

/* The copy is made by a process of whoever asks, who must be able to read the store anyway: here it
 * is allowed, counted and written down. */
static void act_backup(struct kernel *k, struct act *a)
{
	struct tos_value *m;

	if (strcmp(a->target, k->config.name) != 0) {
		act_fail(a, ERR_NAME, "a backup is of the kernel itself");
		return;
	}
	m = tos_map();
	metric_add(k->metrics, "backups_total", NULL, 1);
	tos_set(m, "name", tos_text(k->config.name));
	tos_set(m, "boot", tos_int((int64_t)k->boot_count));
	tos_set(m, "seq", tos_int((int64_t)store_seq(k->store)));
	request_ok(STEAL(a->rq), m);
	act_free(a);
}

struct drained {
	struct kernel *k;
	struct request *rq;
	bool on;
};

/* Whoever has an inbox for it hears that it had better leave. */
static void drain_tell(struct kernel *k)
{
	struct resident *r;
	size_t it = 0;

	while ((r = map_next(k->residents, &it, NULL, NULL))) {
		AUTOBUF folder = BUF_INIT;
		struct tos_value *name;
		struct origin self;
		struct errmsg em;
		char dest[NAME_BYTES_MAX + 16];

		if (!map_find_str(r->inboxes, "drain"))
			continue;
		name = tos_text(k->config.name);
		origin_self(k, &self);
		snprintf(dest, sizeof(dest), "%s/drain", r->name);
		folder_encode(&folder, "drain", (const struct tos_value *const[]){ name }, 1);
		tos_value_free(name);
		kernel_route(k, &self,
			&(struct post){ .kind = POST_ONEWAY,
				.dest = slice_text(dest),
				.sender = slice_text(self.name),
				.folder = slice_buf(&folder) },
			&em);
	}
}

static void on_drained(void *arg, int rc, const struct errmsg *em)
{
	AUTOFREE struct drained *d = arg;
	struct tos_value *m;

	if (rc < 0) {
		request_fail(d->rq, rc, "%s", err_show(rc, em));
		return;
	}
	d->k->draining = d->on;
	metric_set(d->k->metrics, "draining", NULL, d->on);
	log_notice(
		d->on ? "draining: no carrier is taken any more" : "carriers are taken again",
		KV_INT("carriers", map_size(d->k->residents)));
	if (d->on)
		drain_tell(d->k);
	m = tos_map();
	tos_set(m, "kernel", tos_text(d->k->config.name));
	tos_set(m, "draining", tos_bool(d->on));
	request_ok(d->rq, m);
}

static void act_drain(struct kernel *k, struct act *a)
{
	struct drained *d;
	struct store_txn *t;
	int rc;

	if (strcmp(a->target, k->config.name) != 0) {
		act_fail(a, ERR_NAME, "a kernel is drained where it is");
		return;
	}
	d = mem_new(struct drained);
	d->k = k;
	d->rq = STEAL(a->rq);
	d->on = !tos_get_bool(a->args, "undo", false);
	t = store_begin(k->store);
	if (d->on)
		store_put(t, T_META, "drain", 5, "", 0, 0);
	else
		store_del(t, T_META, "drain", 5);
	rc = store_commit(t, on_drained, d);
	if (rc < 0) {
		struct errmsg em = { "" };

		on_drained(d, rc, &em);
	}
	act_free(a);
}

void drain_load(struct kernel *k)
{
	AUTOBUF body = BUF_INIT;

	k->draining = store_get(k->store, T_META, "drain", 5, &body, NULL) == 0;
	metric_set(k->metrics, "draining", NULL, k->draining);
	if (k->draining)
		log_notice("draining: no carrier is taken any more");
}

static void act_content(struct kernel *k, struct act *a)
{
	if (strcmp(a->target, "Content") != 0) {
		act_fail(a, ERR_NAME, "the target of that act is Content");
		return;
	}
	content_act(k, STEAL(a->rq), a->name, &a->who, a->args);
	act_free(a);
}

/* A transaction in doubt, here: its Commit does as the operator says. */
static void on_resolved(
	struct kernel *k, void *arg, int rc, const char *text, const struct tos_value *elements)
{
	struct act *a = arg;

	(void)k;
	if (rc < 0) {
		act_fail(a, rc, text);
		return;
	}
	request_ok(STEAL(a->rq), tos_value_copy(tos_at(elements, 0)));
	act_free(a);
}

static void act_resolve_tx(struct kernel *k, struct act *a)
{
	struct tos_value *args = tos_map();

	tos_set(args, "tx", tos_text(a->target));
	tos_set(args, "decision", tos_text(tos_get_text(a->args, "decision", "")));
	tos_set(args, "by", tos_text(a->who.name));
	kernel_call(k, "", "Commit", "RESOLVE", args, k->config.call_ms, on_resolved, a);
}

static void act_extension(struct kernel *k, struct act *a)
{
	if (strcmp(a->name, "install-extension") == 0)
		extender_install_act(k, STEAL(a->rq), a->who.name, a->target, a->args);
	else
		extender_remove_act(k, STEAL(a->rq), a->who.name, a->target);
	act_free(a);
}

static void act_program(struct kernel *k, struct act *a)
{
	programs_stop(k, STEAL(a->rq), a->target, a->owner);
	act_free(a);
}

/* ---- checking */

static const struct act_rule {
	const char *name, *action; /* the firewall's word */
	bool carrier;              /* the target is a carrier: its owner counts */
	void (*fn)(struct kernel *k, struct act *a);
} act_rules[] = {
	{ "kill", "kill", true, act_carrier },
	{ "suspend", "suspend", true, act_carrier },
	{ "resume", "resume", true, act_carrier },
	{ "retry", "retry", true, act_carrier },
	{ "resolve", "resolve", true, act_resolve },
	{ "resolve-tx", "declare", false, act_resolve_tx },
	{ "declare-dead", "declare", false, act_declare },
	{ "revoke", "revoke", false, act_revoke },
	{ "enroll", "enroll", false, act_enroll },
	{ "remove", "remove", false, act_remove },
	{ "backup", "backup", false, act_backup },
	{ "drain", "drain", false, act_drain },
	{ "stop-program", "kill", false, act_program },
	{ "groups", "set", false, act_groups },
	{ "set", "set", false, act_set },
	{ "reload", "reload", false, act_reload },
	{ "content-put", "put", false, act_content },
	{ "content-fetch", "put", false, act_content },
	{ "content-pin", "put", false, act_content },
	{ "content-drop", "remove", false, act_content },
	{ "admit", "admit", false, act_content },
	{ "withdraw", "admit", false, act_content },
	{ "install-extension", "install", false, act_extension },
	{ "remove-extension", "install", false, act_extension },
};

const char *carrier_owner(struct kernel *k, const char *name)
{
	struct resident *r = resident_find(k, name);
	struct home_record *h = home_find(k, name);

	return r ? r->owner->name : h ? h->owner : "";
}

static int act_verify(struct kernel *k, struct act *a, const struct act_rule **rule,
	uint8_t nonce[16], int64_t *deadline, struct errmsg *em)
{
	struct origin who = { .cls = ORIGIN_CLIENT };
	struct slice bytes;
	struct trust trust;
	struct cose cose;
	size_t n;
	const uint8_t *p;
	int64_t now = clock_wall_ms();
	int rc;

	bytes.p = tos_get_bytes(a->rq->args, "cose", &bytes.n);
	kernel_trust(k, &trust);
	rc = cose_verify(&trust, "act", bytes, &cose, &a->who, em);
	if (rc == 0 && a->who.kind != CERT_PRINCIPAL)
		rc = err_set(em, ERR_DENIED, "only principals act");
	if (rc == 0)
		rc = tos_decode(cose.payload.p, cose.payload.n, 0, &a->payload);
	if (rc < 0)
		return rc;
	snprintf(a->name, sizeof(a->name), "%s", tos_get_text(a->payload, "act", ""));
	snprintf(a->target, sizeof(a->target), "%s", tos_get_text(a->payload, "target", ""));
	a->args = tos_get(a->payload, "args");
	*deadline = tos_get_int(a->payload, "deadline", 0);
	p = tos_get_bytes(a->payload, "nonce", &n);
	if (!p || n != 16 || tos_type(a->payload) != TOS_MAP || tos_len(a->payload) != 6)
		return err_set(em, ERR_MALFORMED,
			"an act has act, args, deadline, kernel, nonce, target");
	memcpy(nonce, p, n);
	if (strcmp(tos_get_text(a->payload, "kernel", ""), k->config.name) != 0)
		return err_set(em, ERR_DENIED, "the act is meant for kernel %s",
			tos_get_text(a->payload, "kernel", ""));
	if (*deadline < now - k->config.skew_ms)
		return err_set(
			em, ERR_EXPIRED, "the act's deadline has passed; check the clocks");
	if (*deadline > now + ACT_MOST_MS + k->config.skew_ms)
		return err_set(
			em, ERR_NOT_YET, "the act's deadline is too far off; check the clocks");
	*rule = NULL;
	for (size_t i = 0; i < ARRAY_LEN(act_rules); i++)
		if (strcmp(act_rules[i].name, a->name) == 0)
			*rule = &act_rules[i];
	if (!*rule)
		return err_set(em, ERR_UNSUPPORTED, "no act %s here", a->name);
	snprintf(who.name, sizeof(who.name), "%s", a->who.name);
	snprintf(who.principal, sizeof(who.principal), "%s", a->who.name);
	who.roles = a->who.roles;
	who.owner_only = rights_of(k, &a->who);
	if ((*rule)->carrier)
		snprintf(a->owner, sizeof(a->owner), "%s", carrier_owner(k, a->target));
	else if ((*rule)->fn == act_program)
		snprintf(a->owner, sizeof(a->owner), "%s",
			program_owner(k, a->target, a->who.name));
	return kernel_allowed(k, &who, (*rule)->action, a->target, a->owner, em);
}

struct act_journal {
	struct kernel *k;
	struct act *a;
	const struct act_rule *rule;
	uint8_t nonce[16];
};

static void act_saved(void *arg, int rc, const struct errmsg *em)
{
	AUTOFREE struct act_journal *j = arg;

	map_del(j->k->acting, j->nonce, sizeof(j->nonce));
	/* Killing works with a full disk too. */
	if (rc < 0 && strcmp(j->rule->action, "kill") != 0)
		act_fail(j->a, rc, err_show(rc, em));
	else
		j->rule->fn(j->k, j->a);
}

/* ERR_REPLAY: it was used. ERR_STORE: that can't be read just now; killing works all the same. */
static int nonce_is_new(struct kernel *k, const struct act_rule *rule, const uint8_t nonce[16],
	struct errmsg *em)
{
	AUTOBUF seen = BUF_MAX(1024);
	struct errmsg why = { "" };
	int rc = 0;

	/* Until the journal has it the nonce is known here only: two of one act may come at
	 * once. */
	if (!map_find(k->acting, nonce, 16))
		rc = store_get(k->store, T_NONCE, nonce, 16, &seen, &why);
	if (rc == 0)
		return err_set(em, ERR_REPLAY, "this act was carried out before");
	if (rc == ERR_NOT_FOUND || strcmp(rule->action, "kill") == 0)
		return 0;
	return err_set(em, rc, "whether it was carried out before: %s", err_show(rc, &why));
}

void act_verb(struct kernel *k, struct request *rq)
{
	struct act *a = mem_new(struct act);
	const struct act_rule *rule = NULL;
	struct errmsg em = { "" };
	struct act_journal *j;
	struct store_txn *t;
	struct tos_value *m;
	uint8_t nonce[16];
	int64_t deadline = 0;
	int rc;

	a->rq = rq;
	rc = act_verify(k, a, &rule, nonce, &deadline, &em);
	if (rc == 0)
		rc = nonce_is_new(k, rule, nonce, &em);
	m = tos_map();
	tos_set(m, "act", tos_text(a->name));
	tos_set(m, "by", tos_text(a->who.name));
	tos_set(m, "target", tos_text(a->target));
	if (rc < 0) {
		tos_set(m, "code", tos_text(err_word(rc)));
		tos_set(m, "text", tos_text(err_show(rc, &em)));
		audit_refused(k, rq, "act-refused", m);
		metric_add(k->metrics, "acts_refused_total", NULL, 1);
		act_fail(a, rc, err_show(rc, &em));
		return;
	}
	metric_add(k->metrics, "acts_total", NULL, 1);
	log_notice("act", KV_STR("act", a->name), KV_STR("by", a->who.name),
		KV_STR("target", a->target));
	j = mem_new(struct act_journal);
	j->k = k;
	j->a = a;
	j->rule = rule;
	memcpy(j->nonce, nonce, sizeof(nonce));
	map_put(k->acting, j->nonce, sizeof(j->nonce), j);
	t = store_begin(k->store);
	store_put(t, T_NONCE, nonce, sizeof(nonce), "", 0, deadline + 2 * k->config.skew_ms);
	audit_event(k, t, "act", m);
	rc = store_commit(t, act_saved, j);
	if (rc < 0)
		act_saved(j, rc, &em);
}
