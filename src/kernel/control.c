/*
 * Inbox Control: what clients read, launch and ask for (doc/inboxes.md). Local clients are
 * known by their uid, acts by the signature of a principal.
 */
#include "kernel/services/actions.h"
#include "kernel/services/grants.h"
#include "kernel/services/programs.h"
#include "kernel/carrier/family.h"
#include "kernel/home/families.h"
#include "kernel/trust/introduce.h"
#include "kernel/settings.h"

#include <string.h>

#include "base/clock.h"
#include "base/fault.h"
#include "base/log.h"
#include "base/text.h"
#include "core/path.h"
#include "kernel/carrier/account.h"
#include "kernel/carrier/admit.h"
#include "kernel/carrier/resident.h"
#include "kernel/carrier/seals.h"
#include "kernel/handoff/restored.h"
#include "kernel/upload.h"
#include "kernel/home/home.h"
#include "kernel/trust/trust.h"

#define NAME_KEEP_MS  600000
#define NAMES_BLOCK   1000
#define NAMES_OUT_MAX 100000
#define CLIENTS_MAX   1000
#define ACT_SKEW_MS   300000
#define WAIT_MOST_MS  86400000
#define DOCTORS_MAX   8    /* that walk the audit log at a time */
#define AUDIT_PART    2000 /* rows of it in one turn of the loop */

/* ---- clients */

int client_up(struct kernel *k, struct link *l, const struct hello *h, struct errmsg *em)
{
	char name[NAME_BYTES_MAX + 1];

	if (map_size(k->clients) >= CLIENTS_MAX)
		return err_set(em, ERR_FULL, "%s serves %d clients already", k->config.name,
			CLIENTS_MAX);
	/* Numbers are given out, each once. */
	if (h->want_name[strspn(h->want_name, "0123456789")] && name_private_ok(h->want_name))
		snprintf(name, sizeof(name), "%s/client/%s", k->config.name, h->want_name);
	else
		snprintf(name, sizeof(name), "%s/client/%llu", k->config.name,
			(unsigned long long)++k->next_client);
	if (map_find_str(k->clients, name))
		return err_set(em, ERR_EXISTS, "a client named %s is connected", name);
	link_set_name(l, name);
	link_on_writable(l, (void (*)(void *, struct link *))content_writable, k);
	map_put_str(k->clients, name, l);
	return 0;
}

void client_down(struct kernel *k, struct link *l)
{
	if (map_find_str(k->clients, link_name(l)) == l)
		map_del_str(k->clients, link_name(l));
	introduced_drop(k, link_name(l));
	content_link_down(k, link_name(l));
	home_waiters_drop(k, link_name(l));
	family_waiters_drop(k, link_name(l));
	watchers_drop(k, link_name(l), false);
}

static bool uid_may_read(const struct kernel *k, uid_t uid)
{
	if (uid == 0 || uid == k->dir_owner)
		return true;
	for (size_t i = 0; i < k->config.n_local_uids; i++)
		if (k->config.local_uids[i] == uid)
			return true;
	return false;
}

/* A local one that has shown whose it is. */
static void origin_introduced(struct kernel *k, struct origin *o)
{
	const struct introduced *i = introduced_find(k, o->name);

	if (!i || o->cls != ORIGIN_CLIENT || o->principal[0])
		return;
	snprintf(o->principal, sizeof(o->principal), "%s", i->who.name);
	o->roles = i->who.roles;
	o->owner_only = i->origin.owner_only;
}

void client_origin(struct kernel *k, struct link *l, struct origin *out)
{
	const struct cert_info *cert = link_cert(l);

	*out = (struct origin){ .cls = ORIGIN_CLIENT, .link = l };
	snprintf(out->name, sizeof(out->name), "%s", link_name(l));
	if (link_kind(l) == LINK_LOCAL) {
		out->may_read = uid_may_read(k, link_uid(l));
	} else if (cert && cert->kind == CERT_JOINER) {
		out->cls = ORIGIN_JOINER;
	} else if (cert) {
		snprintf(out->principal, sizeof(out->principal), "%s", cert->name);
		out->roles = cert->roles;
		out->owner_only = rights_of(k, cert);
		out->may_read = true;
	}
	origin_introduced(k, out);
}

/* 0, or the request has been failed. */
int control_may_read(struct kernel *k, struct request *rq)
{
	struct errmsg em = { "" };
	int rc;

	if (!rq->from.may_read) {
		request_fail(rq, ERR_DENIED,
			"this user may not read %s: only the owner of its state directory and local.principals",
			k->config.name);
		return ERR_DENIED;
	}
	rc = kernel_allowed(k, &rq->from, "read", rq->verb, "", &em);
	if (rc < 0)
		request_fail(rq, rc, "%s", err_show(rc, &em));
	return rc;
}

/* ---- reading */

static void status_verb(struct kernel *k, struct request *rq)
{
	struct tos_value *m, *linked;
	struct link *l = NULL;
	char hex[2 * DIGEST_BYTES + 1];

	if (control_may_read(k, rq) < 0)
		return;
	m = tos_map();
	linked = tos_array();
	while ((l = links_next(k->links, l)))
		if (link_kind(l) == LINK_KERNEL)
			tos_push(linked, tos_text(link_name(l)));
	tos_set(m, "name", tos_text(k->config.name));
	tos_set(m, "version", tos_text(TOS_VERSION));
	tos_set(m, "boot", tos_int((int64_t)k->boot_count));
	tos_set(m, "ready", tos_bool(k->ready));
	tos_set(m, "draining", tos_bool(k->draining));
	tos_set(m, "linked", linked);
	tos_set(m, "registrar", tos_text(k->config.registrar));
	tos_set(m, "level", tos_text(k->layers.level));
	tos_set(m, "carriers", tos_int((int64_t)map_size(k->residents)));
	tos_set(m, "uptime_ms", tos_int(clock_ms() - k->started_ms));
	tos_set(m, "domain", tos_text(text_hex(k->domain, DIGEST_BYTES, hex)));
	tos_set(m, "pid", tos_int(getpid()));
	request_ok(rq, m);
}

static struct tos_value *resident_rows(const struct kernel *k)
{
	struct tos_value *rows = tos_array();
	struct resident *r;
	size_t it = 0;

	while ((r = map_next(k->residents, &it, NULL, NULL)))
		tos_push(rows, resident_row(r));
	return rows;
}

static void ps_verb(struct kernel *k, struct request *rq)
{
	struct tos_value *rows;
	struct home_record *h;
	size_t it = 0;

	if (control_may_read(k, rq) < 0)
		return;
	rows = resident_rows(k);
	homes_all(k);
	while ((h = map_next(k->homes, &it, NULL, NULL)))
		if (!map_find_str(k->residents, h->name))
			tos_push(rows, home_row(h));
	request_ok(rq, rows);
}

/* Those that are here, and nothing of what this kernel knows as their home. */
static void residents_verb(struct kernel *k, struct request *rq)
{
	if (control_may_read(k, rq) == 0)
		request_ok(rq, resident_rows(k));
}

struct show_ask {
	struct request *rq;
	char name[NAME_BYTES_MAX + 1];
};

static void show_family(struct kernel *k, const char *name, struct tos_value *m)
{
	const struct home_record *h = home_find(k, name);

	if (h)
		tos_set(m, "clones", family_children(k, h));
}

static struct tos_value *home_show(struct home_record *h)
{
	struct tos_value *m = home_row(h), *limits = tos_map();
	struct ticket t = { .path = NULL };
	struct cose cose;
	char hex[2 * DIGEST_BYTES + 1];

	if (cose_decode(blob_slice(&h->ticket_cose), &cose, NULL) == 0 &&
		ticket_decode(cose.payload, &t, NULL) == 0) {
		for (int i = 0; i < LIMIT_COUNT; i++)
			tos_set(limits, limit_names[i], tos_int(t.limits[i]));
		tos_set(m, "code", tos_text(text_hex(t.code, DIGEST_BYTES, hex)));
		seals_show(&t, m);
		tos_set(m, "path",
			shell_ended(h->state) ? tos_array() : tos_value_copy(t.path));
	}
	ticket_fini(&t);
	tos_set(m, "limits", limits);
	tos_set(m, "usage", tos_map());
	tos_set(m, "trail",
		tos_get(h->outcome, "trail") ? tos_value_copy(tos_get(h->outcome, "trail"))
					     : tos_array());
	if (h->fault)
		tos_set(m, "fault", tos_value_copy(h->fault));
	else
		tos_set(m, "fault",
			tos_get(h->outcome, "fault")
				? tos_value_copy(tos_get(h->outcome, "fault"))
				: tos_nil());
	tos_set(m, "folders", tos_map());
	tos_set(m, "id", tos_text(text_hex(h->id, DIGEST_BYTES, hex)));
	tos_set(m, "incarnation", tos_int((int64_t)h->e.count));
	tos_set(m, "departures", tos_int((int64_t)h->n));
	tos_set(m, "wanted", tos_text(h->wanted));
	show_family(h->k, h->name, m);
	return m;
}

static void on_remote_show(
	struct kernel *k, void *arg, int rc, const char *text, const struct tos_value *elements)
{
	AUTOFREE struct show_ask *a = arg;
	struct home_record *h = home_find(k, a->name);
	struct tos_value *m;

	if (rc == 0) {
		m = tos_value_copy(tos_at(elements, 0));
		show_family(k, a->name, m);
		request_ok(a->rq, m);
		return;
	}
	if (!h) {
		request_fail(a->rq, ERR_NOT_FOUND, "%s", text);
		return;
	}
	/* The place is down: what the home knows. */
	m = home_show(h);
	tos_set(m, "note", tos_textf("%s does not answer: %s", h->kernel, text));
	request_ok(a->rq, m);
}

static void show_verb(struct kernel *k, struct request *rq)
{
	const char *name = tos_get_text(rq->args, "name", "");
	struct resident *r = resident_find(k, name);
	struct home_record *h;
	struct show_ask *a;
	struct tos_value *args;

	if (control_may_read(k, rq) < 0)
		return;
	if (r) {
		struct tos_value *m = resident_show(r);

		show_family(k, name, m);
		request_ok(rq, m);
		return;
	}
	h = home_find(k, name);
	if (!h) {
		request_fail(rq, ERR_NOT_FOUND, "no carrier %s is known at %s (see: tos ps)",
			name, k->config.name);
		return;
	}
	if (shell_ended(h->state) || !h->kernel[0] || strcmp(h->kernel, k->config.name) == 0) {
		request_ok(rq, home_show(h));
		return;
	}
	a = mem_new(struct show_ask);
	a->rq = rq;
	snprintf(a->name, sizeof(a->name), "%s", name);
	args = tos_map();
	tos_set(args, "name", tos_text(name));
	kernel_call(k, h->kernel, "Control", "SHOW", args, 3000, on_remote_show, a);
}

/* All that is known of a carrier and what comes of it, once that has ended. */
static void family_verb(struct kernel *k, struct request *rq)
{
	const char *name = tos_get_text(rq->args, "name", "");
	int64_t wait_ms = tos_get_int(rq->args, "wait_ms", 0);
	struct home_record *h = home_find(k, name);

	if (control_may_read(k, rq) < 0)
		return;
	if (!h)
		request_fail(rq, ERR_NOT_FOUND, "no carrier %s was launched at %s", name,
			k->config.name);
	else
		family_wait(k, h, rq,
			(uint32_t)(wait_ms < 0              ? 0
				   : wait_ms > WAIT_MOST_MS ? WAIT_MOST_MS
							    : wait_ms));
}

static void locate_verb(struct kernel *k, struct request *rq)
{
	const char *name = tos_get_text(rq->args, "name", "");
	struct resident *r = resident_find(k, name);
	struct home_record *h = home_find(k, name);
	struct tos_value *m;

	if (control_may_read(k, rq) < 0)
		return;
	if (!r && !h) {
		request_fail(rq, ERR_NOT_FOUND, "no carrier %s is known at %s", name,
			k->config.name);
		return;
	}
	m = tos_map();
	tos_set(m, "name", tos_text(name));
	tos_set(m, "kernel", tos_text(r ? k->config.name : h->kernel));
	tos_set(m, "state", tos_text(shell_state_word(r ? r->state : h->state)));
	tos_set(m, "home", tos_text(r ? r->ticket.home : k->config.name));
	request_ok(rq, m);
}

static void outcome_verb(struct kernel *k, struct request *rq)
{
	const char *name = tos_get_text(rq->args, "name", "");
	int64_t wait_ms = tos_get_int(rq->args, "wait_ms", 0);
	struct home_record *h = home_find(k, name);

	if (control_may_read(k, rq) < 0)
		return;
	if (!h) {
		request_fail(rq, ERR_NOT_FOUND, "no carrier %s was launched at %s", name,
			k->config.name);
		return;
	}
	home_wait(h, rq,
		(uint32_t)(wait_ms < 0              ? 0
			   : wait_ms > WAIT_MOST_MS ? WAIT_MOST_MS
						    : wait_ms));
}

static void log_verb(struct kernel *k, struct request *rq)
{
	uint64_t next = 0;
	struct tos_value *m;

	if (control_may_read(k, rq) < 0)
		return;
	m = tos_map();
	tos_set(m, "lines",
		log_lines(k, tos_get_text(rq->args, "name", ""),
			(uint64_t)tos_get_int(rq->args, "after", 0),
			(size_t)tos_get_int(rq->args, "most", 1000), &next));
	tos_set(m, "next", tos_int((int64_t)next));
	request_ok(rq, m);
}

struct kernels_ask {
	struct request *rq;
};

static struct tos_value *kernel_row(struct kernel *k, const char *name, const char *address)
{
	struct link *l = links_find(k->links, name);
	bool self = strcmp(name, k->config.name) == 0;
	struct tos_value *m = tos_map();
	struct link_stats st = { .rtt_us = -1 };
	int64_t age_ms;

	if (l)
		link_stats(l, &st);
	tos_set(m, "name", tos_text(name));
	tos_set(m, "address", tos_text(self ? k->config.advertise : address));
	tos_set(m, "linked", tos_bool(l || self));
	tos_set(m, "state", tos_text(self ? "here" : l ? "linked" : "not linked"));
	/* The clock of the day, as everywhere on the wire; 0: not linked. */
	age_ms = l ? (int64_t)st.since_ms : clock_ms() - k->started_ms;
	tos_set(m, "since_ms", tos_int(l || self ? clock_wall_ms() - age_ms : 0));
	tos_set(m, "rtt_us", tos_int(st.rtt_us));
	tos_set(m, "protocol", tos_int(l ? link_version(l) : 0));
	tos_set(m, "trust", tos_text(TRUST_SYSTEM));
	return m;
}

static void on_directory(
	struct kernel *k, void *arg, int rc, const char *text, const struct tos_value *elements)
{
	AUTOFREE struct kernels_ask *a = arg;
	const struct tos_value *list = tos_at(elements, 0);
	struct tos_value *rows = tos_array();
	struct map *seen = map_new();
	struct link *l = NULL;

	(void)text;
	for (size_t i = 0; rc == 0 && i < tos_len(list); i++) {
		const char *name = tos_get_text(tos_at(list, i), "name", "");

		map_put_str(seen, name, k);
		tos_push(rows,
			kernel_row(k, name,
				tos_as_text(
					tos_at(tos_get(tos_at(list, i), "addresses"), 0), "")));
	}
	if (!map_find_str(seen, k->config.name))
		tos_push(rows, kernel_row(k, k->config.name, ""));
	while ((l = links_next(k->links, l)))
		if (link_kind(l) == LINK_KERNEL && !map_find_str(seen, link_name(l)))
			tos_push(rows, kernel_row(k, link_name(l), link_address(l)));
	map_free(seen);
	request_ok(a->rq, rows);
}

static void kernels_verb(struct kernel *k, struct request *rq)
{
	struct kernels_ask *a;

	if (control_may_read(k, rq) < 0)
		return;
	a = mem_new(struct kernels_ask);
	a->rq = rq;
	kernel_call(k, k->config.registrar, "Directory", "LIST", NULL, 3000, on_directory, a);
}

static void get_verb(struct kernel *k, struct request *rq)
{
	const char *path = tos_get_text(rq->args, "path", "/");
	struct tos_value *out = NULL;
	struct errmsg em = { "" };
	int rc;

	if (control_may_read(k, rq) < 0)
		return;
	rc = property_list(k->properties, path[0] ? path : "/", &out, &em);
	if (rc == 0)
		settings_describe(k, out);
	if (rc < 0)
		request_fail(rq, rc, "%s", err_show(rc, &em));
	else
		request_ok(rq, out);
}

static void accounts_verb(struct kernel *k, struct request *rq)
{
	if (control_may_read(k, rq) < 0)
		return;
	request_ok(rq, accounts_value(k, tos_get_text(rq->args, "principal", "")));
}

static void metrics_verb(struct kernel *k, struct request *rq)
{
	AUTOBUF text = BUF_MAX(FRAME_BYTES_MAX);
	struct tos_value *m;

	if (control_may_read(k, rq) < 0)
		return;
	metrics_collect(k);
	metrics_text(k->metrics, &text);
	m = tos_map();
	tos_set(m, "text", tos_text_n((const char *)text.data, text.len));
	request_ok(rq, m);
}

static struct tos_value *check_row(const char *name, bool ok, const char *text)
{
	struct tos_value *m = tos_map();

	tos_set(m, "name", tos_text(name));
	tos_set(m, "ok", tos_bool(ok));
	tos_set(m, "text", tos_text(text));
	return m;
}

static struct tos_value *audit_check_row(const struct store_audit_walk *w, int rc)
{
	char text[100];

	if (rc < 0)
		snprintf(text, sizeof(text), "the log can't be read (%s)", err_word(rc));
	else if (w->bad)
		snprintf(text, sizeof(text), "record %llu does not fit the chain",
			(unsigned long long)w->bad);
	else
		snprintf(text, sizeof(text), "the chain is whole");
	return check_row("audit", rc == 0 && !w->bad, text);
}

/* rc and w: what came of looking at the audit log. */
static void doctor_answer(
	struct kernel *k, struct request *rq, const struct store_audit_walk *w, int rc)
{
	struct tos_value *m, *layers = tos_array(), *checks = tos_array();
	struct store_stats st;
	int64_t left;
	char text[200];

	for (uint32_t i = 0; i < k->layers.n; i++) {
		struct tos_value *row = tos_map();

		tos_set(row, "name", tos_text(k->layers.layer[i].name));
		tos_set(row, "state", tos_text(k->layers.layer[i].state));
		tos_set(row, "reason", tos_text(k->layers.layer[i].reason));
		tos_push(layers, row);
	}
	store_stats(k->store, &st);
	tos_push(checks,
		check_row("store", !st.failed, st.failed ? st.failure : "writes are durable"));
	struct tos_value *old = restored_status(k);

	if (old)
		tos_push(checks,
			check_row(tos_get_bool(old, "clone", false) ? "clone" : "restored",
				false, tos_get_text(old, "why", "")));
	tos_value_free(old);
	tos_push(checks, audit_check_row(w, rc));
	snprintf(text, sizeof(text),
		k->n_audit_rewritten
			? "%llu times the log of a peer was not what it had been; see audit-rewritten in tos audit"
			: "no log of a peer was rewritten since the start",
		(unsigned long long)k->n_audit_rewritten);
	tos_push(checks, check_row("peers' audit", k->n_audit_rewritten == 0, text));
	left = (k->signer->info.not_after_ms - clock_wall_ms()) / 86400000;
	snprintf(text, sizeof(text), "expires in %lld days", (long long)left);
	tos_push(checks, check_row("certificate", left > 7, text));
	snprintf(text, sizeof(text), "list %llu, confirmed %lld s ago",
		(unsigned long long)(k->revocation ? revocation_number(k->revocation) : 0),
		(long long)(fresh_age_ms(k) / 1000));
	tos_push(checks, check_row("revocation", fresh_enough(k, NULL), text));
	bool registrar = !k->config.registrar[0] ||
			 strcmp(k->config.registrar, k->config.name) == 0 ||
			 links_find(k->links, k->config.registrar);

	snprintf(text, sizeof(text), "%s%s", k->config.registrar,
		registrar ? "" : " is not linked");
	tos_push(checks, check_row("registrar", registrar, text));
	grants_checks(k, checks);
	m = tos_map();
	tos_set(m, "level", tos_text(k->layers.level));
	tos_set(m, "layers", layers);
	tos_set(m, "checks", checks);
	request_ok(rq, m);
}

struct doctor {
	struct request *rq;
	struct store_audit_walk walk;
};

static unsigned doctors; /* of this process's one kernel */

/* The log may have millions of rows, and others wait for the loop. */
static void doctor_look(struct kernel *k, void *arg)
{
	struct doctor *d = arg;
	struct errmsg em = { "" };
	int rc = store_audit_walk(k->store, &d->walk, AUDIT_PART, &em);

	if (rc > 0) {
		kernel_later_slow(k, doctor_look, d);
		return;
	}
	doctors--;
	doctor_answer(k, STEAL(d->rq), &d->walk, rc);
	free(d);
}

static void doctor_verb(struct kernel *k, struct request *rq)
{
	struct doctor *d;

	if (control_may_read(k, rq) < 0)
		return;
	if (doctors >= DOCTORS_MAX) {
		request_fail(
			rq, ERR_FULL, "%d look at %s already", DOCTORS_MAX, k->config.name);
		return;
	}
	doctors++;
	d = mem_new(struct doctor);
	d->rq = rq;
	doctor_look(k, d);
}

static int audit_row(
	void *arg, uint64_t seq, int64_t time_ms, const uint8_t chain[32], struct slice body)
{
	struct tos_value *rows = arg, *m = NULL;
	char hex[65];

	if (tos_decode(body.p, body.n, 0, &m) < 0)
		return 0;
	tos_set(m, "seq", tos_int((int64_t)seq));
	tos_set(m, "wall", tos_int(time_ms));
	tos_set(m, "chain", tos_text(text_hex(chain, 32, hex)));
	tos_push(rows, m);
	return 0;
}

static void audit_verb(struct kernel *k, struct request *rq)
{
	struct tos_value *rows;
	struct errmsg em = { "" };
	int64_t most = tos_get_int(rq->args, "most", 100);
	int rc;

	if (control_may_read(k, rq) < 0)
		return;
	rows = tos_array();
	rc = store_audit_each(k->store, (uint64_t)tos_get_int(rq->args, "after", 0),
		(size_t)(most < 1 || most > 1000 ? 1000 : most), audit_row, rows, &em);
	if (rc < 0) {
		tos_value_free(rows);
		request_fail(rq, rc, "%s", err_show(rc, &em));
	} else {
		request_ok(rq, rows);
	}
}

/* ---- launching */

struct given {
	uint8_t nonce[16];
	int64_t until_ms;
};

static void names_saved(void *arg, int rc, const struct errmsg *em)
{
	(void)arg;
	if (rc < 0)
		log_error("the counter of names could not be saved", KV_ERR(rc, em));
}

static void names_trim(struct kernel *k)
{
	struct given *g;
	const void *key;
	size_t it = 0, len;
	int64_t now = clock_ms();

	while ((g = map_next(k->names, &it, &key, &len)))
		if (now > g->until_ms) {
			map_del(k->names, key, len);
			free(g);
		}
}

void name_verb(struct kernel *k, struct request *rq)
{
	struct given *g;
	struct tos_value *m;
	char name[NAME_BYTES_MAX + 1];

	FAULT_AT(LAUNCH_NAMED);
	if (control_may_read(k, rq) < 0)
		return;
	if (map_size(k->names) >= NAMES_OUT_MAX)
		names_trim(k);
	if (map_size(k->names) >= NAMES_OUT_MAX) {
		request_fail(rq, ERR_FULL, "too many names are given out and not yet used");
		return;
	}
	if (k->next_name >= k->names_reserved) {
		/* Numbers are reserved in blocks; a crash skips the rest of one, none is used
		 * twice. */
		struct store_txn *t = store_begin(k->store);
		uint8_t be[8];

		k->names_reserved = k->next_name + NAMES_BLOCK;
		for (int i = 0; i < 8; i++)
			be[i] = (uint8_t)(k->names_reserved >> (56 - 8 * i));
		store_put(t, T_META, "names", 5, be, sizeof(be), 0);
		store_commit(t, names_saved, k);
	}
	g = mem_new(struct given);
	random_bytes(g->nonce, sizeof(g->nonce));
	g->until_ms = clock_ms() + NAME_KEEP_MS;
	snprintf(name, sizeof(name), "%s#%llu", k->config.name,
		(unsigned long long)++k->next_name);
	map_put_str(k->names, name, g);
	m = tos_map();
	tos_set(m, "name", tos_text(name));
	tos_set(m, "nonce", tos_bytes(g->nonce, sizeof(g->nonce)));
	request_ok(rq, m);
}

struct launching {
	struct kernel *k;
	struct request *rq;
	char name[NAME_BYTES_MAX + 1];
};

static void launched(void *arg, int rc, const struct errmsg *em)
{
	AUTOFREE struct launching *lg = arg;
	struct kernel *k = lg->k;
	struct resident *r = resident_find(k, lg->name);
	struct home_record *h = home_find(k, lg->name);
	struct tos_value *m;

	FAULT_AT(LAUNCH_JOURNALED);
	if (rc == 0 && !r && h) { /* killed before the journal was through */
		free(map_del_str(k->names, lg->name));
		request_ok(lg->rq, home_row(h));
		return;
	}
	if (rc < 0 || !r) {
		h = map_del_str(k->homes, lg->name);
		if (h)
			account_stored(k, STORED_HOME, h->name, h->owner, 0, 0);
		if (r)
			resident_free(r);
		home_free(h);
		request_fail(lg->rq, rc, "%s", err_show(rc, em));
		return;
	}
	free(map_del_str(k->names, lg->name));
	m = tos_map();
	tos_set(m, "name", tos_text(r->name));
	tos_set(m, "state", tos_text(shell_state_word(r->state)));
	request_ok(lg->rq, m);
	FAULT_AT(LAUNCH_ANSWERED);
	resident_go_on(r);
}

static void on_launch_hooks(struct kernel *k, void *arg, int rc, const char *text)
{
	struct launching *lg = arg;
	struct resident *r = resident_find(k, lg->name);
	struct home_record *h = home_find(k, lg->name);
	struct store_txn *t;
	struct tos_value *m;

	if (rc < 0 || !r || !h) {
		if (r)
			resident_free(r);
		home_free(map_del_str(k->homes, lg->name));
		request_fail(lg->rq, rc < 0 ? rc : ERR_CANCELLED, "%s", text);
		free(lg);
		return;
	}
	resident_event(r, SHELL_EV_ADMIT, NULL);
	t = store_begin(k->store);
	m = audit_carrier(r, r->n);
	tos_set(m, "owner", tos_text(r->owner->name));
	tos_set(m, "author", tos_text(r->author->name));
	resident_put(t, r);
	home_put(t, h);
	audit_event(k, t, "launched", m);
	metric_add(k->metrics, "launches_total", NULL, 1);
	FAULT_AT(LAUNCH_COMMIT);
	rc = store_commit(t, launched, lg);
	if (rc < 0) {
		struct errmsg em = { "" };

		launched(lg, rc, &em);
	}
}

/* Take the bytes from the request, or from what was uploaded before. */
static struct slice launch_bytes(struct kernel *k, struct request *rq, const char *key,
	const uint8_t digest[DIGEST_BYTES])
{
	struct slice s;

	s.p = tos_get_bytes(rq->args, key, &s.n);
	return s.n ? s : upload_find(k, digest, &rq->from);
}

static int launch_parts(
	struct kernel *k, struct request *rq, struct resident *r, struct errmsg *em)
{
	struct slice code = launch_bytes(k, rq, "code", r->ticket.code);
	struct slice briefcase = launch_bytes(k, rq, "briefcase", r->ticket.briefcase);
	uint8_t digest[DIGEST_BYTES];
	struct code *c = NULL;
	int rc;

	if (code.n)
		rc = code_verify(k, code, &c, em);
	else
		rc = (c = code_find(k, r->ticket.code, em))
			     ? 0
			     : err_set(em, ERR_NOT_FOUND, "the code did not come along");
	if (rc < 0)
		return rc;
	if (memcmp(c->digest, r->ticket.code, DIGEST_BYTES) != 0)
		return err_set(em, ERR_SIGNATURE, "the code is not what the ticket names");
	memcpy(r->code_digest, c->digest, DIGEST_BYTES);
	blob_share(&r->code, &c->bundle);
	cert_keep(&r->author, &c->author);
	memcpy(r->minimum, c->manifest.limits, sizeof(r->minimum));
	rc = admit_author(k, r->owner, r->author, "launch", em);
	if (rc < 0)
		return rc;
	if (!briefcase.n)
		briefcase = (struct slice){ (const uint8_t *)"\xa0", 1 };
	digest_bytes(briefcase.p, briefcase.n, digest);
	if (memcmp(digest, r->ticket.briefcase, DIGEST_BYTES) != 0)
		return err_set(em, ERR_SIGNATURE, "the briefcase is not what the ticket names");
	rc = briefcase_check(briefcase, em);
	if (rc == 0)
		rc = account_room(k, r->owner->name, (int64_t)(briefcase.n + c->bundle.n), em);
	if (rc == 0)
		rc = seals_launched(&r->ticket, briefcase, em);
	if (rc == 0)
		blob_set(&r->briefcase, briefcase);
	return rc;
}

/* The name was given out with this nonce, and the ticket has not been used. */
static int launch_name(
	struct kernel *k, const struct resident *r, bool *repeat, struct errmsg *em)
{
	struct home_record *h = home_find(k, r->ticket.name);
	struct given *g = map_find_str(k->names, r->ticket.name);

	*repeat = h && memcmp(h->id, r->id, DIGEST_BYTES) == 0;
	if (*repeat)
		return 0;
	if (h)
		return err_set(
			em, ERR_REPLAY, "%s was launched with another ticket", r->ticket.name);
	if (strcmp(r->ticket.home, k->config.name) != 0)
		return err_set(em, ERR_DENIED, "the ticket names %s as home, this is %s",
			r->ticket.home, k->config.name);
	if (!g || clock_ms() > g->until_ms ||
		memcmp(g->nonce, r->ticket.nonce, sizeof(g->nonce)) != 0)
		return err_set(em, ERR_REPLAY,
			"the name %s was not given out with this nonce; ask again",
			r->ticket.name);
	return 0;
}

static void launch_admit(struct kernel *k, struct request *rq, struct resident *r)
{
	struct home_record *h = home_new(k, r->ticket.name);
	struct launching *lg = mem_new(struct launching);

	family_is(r, r->id, "");
	family_budget(r, NULL);
	memcpy(h->budget, r->budget, sizeof(h->budget));
	r->path = tos_value_copy(r->ticket.path);
	r->launched_ms = clock_wall_ms();
	/* begin runs only at entries of the path; without a path, here. */
	r->completed = tos_len(r->path) > 0;
	rate_init(&r->post_rate, r->usage.limit[LIMIT_posts], clock_ms());
	rate_init(&r->log_rate, LINES_PER_S, clock_ms());
	account_open(r, true);
	resident_trail(r, "launched", "", "");
	map_put_str(k->residents, r->name, r);
	memcpy(h->id, r->id, DIGEST_BYTES);
	snprintf(h->owner, sizeof(h->owner), "%s", r->owner->name);
	home_place(h, k->config.name, 0);
	h->state = SHELL_READY;
	h->expires_ms = r->ticket.expires_ms;
	blob_share(&h->ticket_cose, &r->ticket_cose);
	home_add(k, h);
	lg->k = k;
	lg->rq = rq;
	snprintf(lg->name, sizeof(lg->name), "%s", r->name);
	hooks_run(k, r, 2u /* TOS_INBOX_ON_ARRIVAL */, k->config.name, "", on_launch_hooks, lg);
}

void launch_verb(struct kernel *k, struct request *rq)
{
	struct cert_info owner = { 0 };
	struct resident *r;
	struct errmsg em = { "" };
	struct slice cose;
	bool repeat = false;
	int rc;

	if (control_may_read(k, rq) < 0)
		return;
	FAULT_AT(LAUNCH_TAKEN);
	cose.p = tos_get_bytes(rq->args, "ticket", &cose.n);
	r = resident_new(k);
	rc = cose.p ? ticket_verify(k, cose, &r->ticket, r->id, &owner, &em)
		    : err_set(&em, ERR_MALFORMED, "LAUNCH lacks its ticket");
	if (owner.name[0])
		cert_keep(&r->owner, &owner); /* refused, too: it is written down whose it is */
	if (rc == 0)
		rc = launch_name(k, r, &repeat, &em);
	if (rc == 0 && repeat) {
		struct home_record *h = home_find(k, r->ticket.name);
		struct tos_value *m;

		if (map_find_str(k->names, r->ticket.name)) {
			/* Not durable yet: nobody is told that it is launched. */
			request_fail(rq, ERR_STATE, "%s is being launched", h->name);
			resident_free(r);
			return;
		}
		m = home_row(h);
		resident_free(r);
		request_ok(rq, m);
		return;
	}
	if (rc == 0)
		rc = admit_check(k, r->owner, "launch", true, &em);
	if (rc == 0)
		rc = launch_parts(k, rq, r, &em);
	if (rc == 0)
		rc = admit_limits(k, r->ticket.limits, r->minimum, r->usage.limit, &em);
	if (rc < 0) {
		struct tos_value *m = tos_map();

		tos_set(m, "carrier", tos_text(r->ticket.name));
		tos_set(m, "owner", tos_text(r->owner->name));
		tos_set(m, "code", tos_text(err_word(rc)));
		tos_set(m, "text", tos_text(err_show(rc, &em)));
		audit_refused(k, rq, "launch-refused", m);
		metric_add(k->metrics, "launches_refused_total", NULL, 1);
		resident_free(r);
		request_fail(rq, rc, "%s", err_show(rc, &em));
		return;
	}
	blob_set(&r->ticket_cose, cose);
	tos_value_free(r->path);
	r->path = NULL;
	launch_admit(k, rq, r);
}

const struct verb control_verbs[] = {
	{ "STATUS", status_verb },
	{ "NAME", name_verb },
	{ "LAUNCH", launch_verb },
	{ "PS", ps_verb },
	{ "RESIDENTS", residents_verb },
	{ "SHOW", show_verb },
	{ "LOCATE", locate_verb },
	{ "OUTCOME", outcome_verb },
	{ "FAMILY", family_verb },
	{ "WATCH", watch_verb },
	{ "LOG", log_verb },
	{ "KERNELS", kernels_verb },
	{ "GET", get_verb },
	{ "GROUPS", groups_verb },
	{ "CAN", can_verb },
	{ "ACCOUNTS", accounts_verb },
	{ "PROGRAMS", programs_list_verb },
	{ "ACTIONS", actions_list_verb },
	{ "METRICS", metrics_verb },
	{ "DOCTOR", doctor_verb },
	{ "AUDIT", audit_verb },
	{ "ACT", act_verb },
	{ "INTRODUCE", introduce_verb },
	{ NULL, NULL },
};
