/*
 * The registry of admitted digests: what the host's policy lets run, or take for true, whoever
 * brings it. Journaled, audited; see content.h.
 *
 * A digest is admitted by a signed act, by a carrier or the Download extension whom policy lets
 * admit, or by a statement that somebody with a role of content.admit_signed signed elsewhere. A
 * withdrawn one leaves a row, so that its statement does not bring it back; an act does.
 */
#include "kernel/services/content.h"

#include <string.h>

#include "base/clock.h"
#include "base/text.h"
#include "kernel/trust/trust.h"

#define ADMITTED_MAX 100000

static struct map *registry; /* digest -> struct admitted; of this process's one kernel */

/* digest -> struct withdrawing: what is being withdrawn, and is not on the disk yet */
static struct map *withdrawing;
struct withdrawing {
	size_t n;
	char by[NAME_BYTES_MAX + 1]; /* the last */
};

static void withdrawing_note(const struct admitted *a)
{
	struct withdrawing *w = map_find(withdrawing, a->digest, DIGEST_BYTES);

	if (!w) {
		w = mem_new(struct withdrawing);
		map_put(withdrawing, a->digest, DIGEST_BYTES, w);
	}
	w->n++;
	snprintf(w->by, sizeof(w->by), "%s", a->by);
}

static void withdrawing_over(const struct admitted *a)
{
	struct withdrawing *w = map_find(withdrawing, a->digest, DIGEST_BYTES);

	if (--w->n == 0) {
		map_del(withdrawing, a->digest, DIGEST_BYTES);
		free(w);
	}
}

/* Who withdrew it, or is just doing so: what came before that, and what comes without an act, does not
 * admit it. NULL: nobody. */
static const char *withdrawn_by(const struct admitted *old, const uint8_t digest[DIGEST_BYTES])
{
	const struct withdrawing *w = map_find(withdrawing, digest, DIGEST_BYTES);

	return w ? w->by : old && old->withdrawn ? old->by : NULL;
}

static bool kind_ok(const char *kind)
{
	return strcmp(kind, "program") == 0 || strcmp(kind, "bundle") == 0 ||
	       strcmp(kind, "data") == 0;
}

static void text_field(
	const struct tos_value *m, const char *key, const char *def, char *out, size_t cap)
{
	const char *s = tos_get_text(m, key, def);

	text_cut(out, cap, s[0] ? s : def);
}

/* What act, statement and row have in common. */
static int fields_read(const struct tos_value *m, struct admitted *a, struct errmsg *em)
{
	if (!content_digest(m, a->digest))
		return err_set(em, ERR_MALFORMED, "digest is missing");
	text_field(m, "kind", "program", a->kind, sizeof(a->kind));
	text_field(m, "name", "", a->name, sizeof(a->name));
	text_field(m, "version", "", a->version, sizeof(a->version));
	text_field(m, "machine", "any", a->machine, sizeof(a->machine));
	a->expires_ms = tos_get_int(m, "expires", 0);
	if (!kind_ok(a->kind))
		return err_set(em, ERR_MALFORMED,
			"'%s': what is admitted is program, bundle or data", a->kind);
	if (a->expires_ms && a->expires_ms <= clock_wall_ms())
		return err_set(em, ERR_EXPIRED, "it says that it has expired");
	return 0;
}

struct tos_value *admitted_row(const struct admitted *a)
{
	struct tos_value *m = tos_map();

	tos_set(m, "digest", tos_bytes(a->digest, DIGEST_BYTES));
	tos_set(m, "kind", tos_text(a->kind));
	tos_set(m, "name", tos_text(a->name));
	tos_set(m, "version", tos_text(a->version));
	tos_set(m, "machine", tos_text(a->machine));
	tos_set(m, "by", tos_text(a->by));
	tos_set(m, "how", tos_text(a->how));
	tos_set(m, "at", tos_int(a->at_ms));
	tos_set(m, "expires", tos_int(a->expires_ms));
	if (a->n_serial)
		tos_set(m, "serial", tos_bytes(a->serial, a->n_serial));
	if (a->withdrawn)
		tos_set(m, "withdrawn", tos_bool(true));
	return m;
}

static int load_row(void *arg, struct slice key, struct slice body, int64_t expires_ms)
{
	struct tos_value *m = NULL;
	struct admitted *a;
	const uint8_t *serial;
	size_t n;

	(void)arg;
	(void)expires_ms;
	if (key.n != DIGEST_BYTES || tos_decode(body.p, body.n, 0, &m) < 0)
		return 0;
	a = mem_new(struct admitted);
	if (fields_read(m, a, NULL) < 0) {
		free(a);
	} else {
		text_field(m, "by", "", a->by, sizeof(a->by));
		text_field(m, "how", "", a->how, sizeof(a->how));
		a->at_ms = tos_get_int(m, "at", 0);
		a->withdrawn = tos_get_bool(m, "withdrawn", false);
		serial = tos_get_bytes(m, "serial", &n);
		if (serial && n <= sizeof(a->serial)) {
			memcpy(a->serial, serial, n);
			a->n_serial = n;
		}
		map_put(registry, a->digest, DIGEST_BYTES, a);
	}
	tos_value_free(m);
	return 0;
}

int admitted_load(struct kernel *k, struct errmsg *em)
{
	registry = map_new();
	withdrawing = map_new();
	return store_each(k->store, T_ADMITTED, (struct slice){ NULL, 0 }, load_row, k, em);
}

static bool holds(struct kernel *k, const struct admitted *a)
{
	return !a->withdrawn && (!a->expires_ms || a->expires_ms > clock_wall_ms()) &&
	       !(a->n_serial && k->revocation &&
		       revocation_has(k->revocation, a->serial, a->n_serial));
}

const struct admitted *admitted_find(struct kernel *k, const uint8_t digest[DIGEST_BYTES])
{
	const struct admitted *a = map_find(registry, digest, DIGEST_BYTES);

	return a && holds(k, a) ? a : NULL;
}

/* A name that an act gave goes to another digest by an act only, one that a signature gave by either:
 * whoever may have something downloaded and admitted names it as it likes. */
static int answered_for(const struct admitted *a)
{
	return strcmp(a->how, "act") == 0 ? 2 : strcmp(a->how, "signed") == 0 ? 1 : 0;
}

static bool goes_first(const struct admitted *a, const struct admitted *before)
{
	int by = answered_for(a), than = answered_for(before);

	return by > than || (by == than && a->at_ms >= before->at_ms);
}

const struct admitted *admitted_named(
	struct kernel *k, const char *kind, const char *name, const char *machine)
{
	const struct admitted *a, *found = NULL;
	size_t it = 0;

	while ((a = map_next(registry, &it, NULL, NULL)))
		if (holds(k, a) && strcmp(a->name, name) == 0 &&
			(!kind[0] || strcmp(a->kind, kind) == 0) &&
			(!machine || strcmp(a->machine, machine) == 0 ||
				strcmp(a->machine, "any") == 0) &&
			(!found || goes_first(a, found)))
			found = a;
	return found;
}

struct tos_value *admitted_list(struct kernel *k, size_t most)
{
	struct tos_value *rows = tos_array();
	const struct admitted *a;
	size_t it = 0;

	while (tos_len(rows) < most && (a = map_next(registry, &it, NULL, NULL))) {
		struct tos_value *row;

		if (!holds(k, a))
			continue;
		row = admitted_row(a);
		tos_set(row, "here", tos_bool(content_has(k, a->digest)));
		tos_push(rows, row);
	}
	return rows;
}

/* ---- changing it */

struct changing {
	struct kernel *k;
	struct request *rq;
	struct admitted a;
};

static void on_changed(void *arg, int rc, const struct errmsg *em)
{
	AUTOFREE struct changing *c = arg;
	struct admitted *a;
	char hex[2 * DIGEST_BYTES + 1];

	if (c->a.withdrawn)
		withdrawing_over(&c->a);
	if (rc < 0) {
		request_fail(c->rq, rc, "%s", err_show(rc, em));
		return;
	}
	a = mem_new(struct admitted);
	*a = c->a;
	free(map_put(registry, a->digest, DIGEST_BYTES, a));
	metric_set(c->k->metrics, "admitted", NULL, (double)map_size(registry));
	text_hex(a->digest, DIGEST_BYTES, hex);
	log_notice(a->withdrawn ? "content withdrawn" : "content admitted",
		KV_STR("digest", hex), KV_STR("kind", a->kind), KV_STR("name", a->name),
		KV_STR("by", a->by), KV_STR("how", a->how));
	request_ok(c->rq, admitted_row(a));
}

static void change(struct kernel *k, struct request *rq, const struct admitted *a)
{
	struct changing *c = mem_new(struct changing);
	struct store_txn *t = store_begin(k->store);
	struct tos_value *m = admitted_row(a);
	struct errmsg em = { "" };
	uint8_t *bytes = NULL;
	size_t n;
	int rc;

	c->k = k;
	c->rq = rq;
	c->a = *a;
	if (a->withdrawn)
		withdrawing_note(a);
	if (tos_encode(m, &bytes, &n) == 0)
		store_put(t, T_ADMITTED, a->digest, DIGEST_BYTES, bytes, n,
			a->withdrawn ? 0 : a->expires_ms);
	free(bytes);
	audit_event(k, t, a->withdrawn ? "withdrawn" : "admitted", m); /* takes m */
	rc = store_commit(t, on_changed, c);
	if (rc < 0)
		on_changed(c, rc, &em);
}

static int refuse(struct kernel *k, const struct request *rq, const struct admitted *a,
	const char *who, int rc, struct errmsg *em)
{
	struct tos_value *m = tos_map();

	tos_set(m, "digest", tos_bytes(a->digest, DIGEST_BYTES));
	tos_set(m, "who", tos_text(who));
	tos_set(m, "code", tos_text(err_word(rc)));
	tos_set(m, "text", tos_text(err_show(rc, em)));
	audit_refused(k, rq, "admit-refused", m);
	metric_add(k->metrics, "admit_refused_total", NULL, 1);
	return rc;
}

static int room(const struct admitted *a, struct errmsg *em)
{
	if (map_size(registry) < ADMITTED_MAX || map_find(registry, a->digest, DIGEST_BYTES))
		return 0;
	return err_set(em, ERR_LIMIT, "%d digests are admitted already", ADMITTED_MAX);
}

void admitted_add(struct kernel *k, struct request *rq, const struct tos_value *args,
	const char *by, const char *how)
{
	struct admitted a = { .at_ms = clock_wall_ms() };
	const struct admitted *old;
	struct errmsg em = { "" };
	int rc = fields_read(args, &a, &em);

	snprintf(a.by, sizeof(a.by), "%s", by);
	snprintf(a.how, sizeof(a.how), "%s", how);
	if (rc == 0)
		rc = room(&a, &em);
	old = map_find(registry, a.digest, DIGEST_BYTES);
	if (rc == 0 && withdrawn_by(old, a.digest) && strcmp(how, "act") != 0)
		rc = err_set(&em, ERR_REVOKED, "%s withdrew it", withdrawn_by(old, a.digest));
	if (rc < 0) {
		refuse(k, rq, &a, by, rc, &em);
		request_fail(rq, rc, "%s", err_show(rc, &em));
	} else if (old && holds(k, old) && strcmp(how, "download") == 0 &&
		   strcmp(old->how, "download") != 0) {
		/* What somebody answers for keeps its name, its end and its signer. */
		request_ok(rq, admitted_row(old));
	} else {
		change(k, rq, &a);
	}
}

static unsigned roles_that_admit(const struct kernel *k)
{
	const char *s = k->config.admit_signed;
	unsigned roles = 0;
	char word[16];

	while (*s) {
		size_t n = strcspn(s, " ");

		if (n && text_copy(word, sizeof(word), s, n) == 0)
			roles |= role_parse(word);
		s += n;
		s += strspn(s, " ");
	}
	return roles;
}

static int statement_check(struct kernel *k, struct slice bytes, struct admitted *a,
	struct cert_info *signer, struct errmsg *em)
{
	struct tos_value *m = NULL;
	struct trust trust;
	struct cose cose;
	const char *why = "";
	int rc;

	kernel_trust(k, &trust);
	rc = cose_verify(&trust, "admit", bytes, &cose, signer, em);
	if (rc == 0)
		rc = tos_decode(cose.payload.p, cose.payload.n, 0, &m);
	if (rc == 0)
		rc = fields_read(m, a, em);
	tos_value_free(m);
	if (rc == 0 &&
		(signer->kind != CERT_PRINCIPAL || !(signer->roles & roles_that_admit(k))))
		rc = err_set(em, ERR_DENIED,
			"%s has none of the roles whose signature admits here (content.admit_signed: %s)",
			signer->name, k->config.admit_signed);
	if (rc == 0 && rights_check(rights_of(k, signer), "admit", signer->name, "Content", "",
			       &why) < 0)
		rc = err_set(
			em, ERR_DENIED, "%s may not admit content (%s)", signer->name, why);
	return rc;
}

void admitted_signed(struct kernel *k, struct request *rq)
{
	struct admitted a = { .at_ms = clock_wall_ms(), .how = "signed" };
	const struct admitted *old;
	struct cert_info signer = { .kind = CERT_JOINER };
	struct errmsg em = { "" };
	struct slice bytes;
	int rc;

	bytes.p = tos_get_bytes(rq->args, "statement", &bytes.n);
	rc = bytes.p ? statement_check(k, bytes, &a, &signer, &em)
		     : err_set(&em, ERR_MALFORMED, "a statement is bytes");
	old = rc == 0 ? map_find(registry, a.digest, DIGEST_BYTES) : NULL;
	if (rc == 0 && withdrawn_by(old, a.digest))
		rc = err_set(&em, ERR_REVOKED, "%s withdrew it", withdrawn_by(old, a.digest));
	if (rc == 0)
		rc = room(&a, &em);
	if (rc < 0) {
		refuse(k, rq, &a, rq->from.name, rc, &em);
		request_fail(rq, rc, "%s", err_show(rc, &em));
		return;
	}
	if (old && holds(k, old)) { /* as before: nothing is journaled for a repeat */
		request_ok(rq, admitted_row(old));
		return;
	}
	snprintf(a.by, sizeof(a.by), "%s", signer.name);
	memcpy(a.serial, signer.serial, signer.serial_len);
	a.n_serial = signer.serial_len;
	change(k, rq, &a);
}

/* One of CHECK's answers: the row that it would make here, or why it would make none. */
static struct tos_value *statement_row(struct kernel *k, struct slice bytes)
{
	struct admitted a = { .how = "signed" };
	struct cert_info signer = { .kind = CERT_JOINER };
	const struct admitted *old;
	struct errmsg em = { "" };
	struct tos_value *m;
	int rc = bytes.p ? statement_check(k, bytes, &a, &signer, &em)
			 : err_set(&em, ERR_MALFORMED, "a statement is bytes");

	old = rc == 0 ? map_find(registry, a.digest, DIGEST_BYTES) : NULL;
	if (rc == 0 && withdrawn_by(old, a.digest))
		rc = err_set(&em, ERR_REVOKED, "%s withdrew it", withdrawn_by(old, a.digest));
	if (rc == 0) {
		snprintf(a.by, sizeof(a.by), "%s", signer.name);
		return admitted_row(&a);
	}
	m = tos_map();
	tos_set(m, "code", tos_int(rc));
	tos_set(m, "text", tos_text(err_show(rc, &em)));
	return m;
}

void admitted_check(struct kernel *k, struct request *rq)
{
	const struct tos_value *list = tos_get(rq->args, "statements");
	struct tos_value *rows, *m;
	size_t n = tos_len(list);

	if (tos_type(list) != TOS_ARRAY || n == 0 || n > ADMITTED_CHECK_MAX) {
		request_fail(rq, ERR_MALFORMED, "CHECK wants statements, 1 to %d",
			ADMITTED_CHECK_MAX);
		return;
	}
	rows = tos_array();
	for (size_t i = 0; i < n; i++) {
		struct slice bytes;

		bytes.p = tos_as_bytes(tos_at(list, i), &bytes.n);
		tos_push(rows, statement_row(k, bytes));
	}
	m = tos_map();
	tos_set(m, "rows", rows);
	request_ok(rq, m);
}

void admitted_withdraw(struct kernel *k, struct request *rq, const uint8_t digest[DIGEST_BYTES],
	const char *by)
{
	const struct admitted *old = map_find(registry, digest, DIGEST_BYTES);
	struct admitted a = { .kind = "program", .machine = "any" };

	/* One that was never admitted here may be withdrawn, too: a signature that is on its way
	 * does not count then. */
	if (old)
		a = *old;
	memcpy(a.digest, digest, DIGEST_BYTES);
	a.at_ms = clock_wall_ms();
	a.expires_ms = 0;
	a.withdrawn = true;
	a.n_serial = 0;
	snprintf(a.by, sizeof(a.by), "%s", by);
	snprintf(a.how, sizeof(a.how), "act");
	change(k, rq, &a);
}
