/*
 * How an extension comes and leaves: see extender.h. A version is first started beside whatever is
 * there, hidden; when it is ready its package goes to the store; when that is durable it is published.
 * Before that point everything that fails leaves what was there as it was.
 */
#include "kernel/services/extender.h"

#include <string.h>

#include "base/log.h"
#include "kernel/services/installed.h"
#include "kernel/trust/trust.h"

#define RETIRE_MS 10000

static void measure(struct kernel *k)
{
	struct installed *in;
	size_t it = 0, n = 0;
	char label[160];

	while ((in = map_next(k->extender->all, &it, NULL, NULL))) {
		bool runs = in->phase == HERE && !in->refused[0];

		n += runs;
		snprintf(label, sizeof(label), "extension=\"%s\",version=\"%s\"", in->name,
			in->version);
		metric_set(k->metrics, "extension_version", label, runs);
	}
	metric_set(k->metrics, "extensions_installed", NULL, (double)n);
}

/* In the audit log and the journal of the system, and to whoever asked. */
void extender_refuse(
	struct kernel *k, struct request *rq, struct tos_value *m, int rc, const char *text)
{
	char label[64];

	tos_set(m, "code", tos_text(err_word(rc)));
	tos_set(m, "text", tos_text(text));
	log_notice("extension refused", KV_STR("extension", tos_get_text(m, "name", "")),
		KV_STR("version", tos_get_text(m, "version", "")),
		KV_STR("by", tos_get_text(m, "by", "")),
		KV_STR("officer", tos_get_text(m, "officer", "")),
		KV_STR("error", err_word(rc)), KV_STR("reason", text));
	/* Carriers and other kernels may ask as often as they like. */
	if (rq && (rq->from.kernel[0] || rq->from.cls == ORIGIN_CARRIER))
		audit_refusal(k, NULL, rq->from.kernel, "extension-refused", m);
	else
		audit_event(k, NULL, "extension-refused", m);
	snprintf(label, sizeof(label), "code=\"%s\"", err_word(rc));
	metric_add(k->metrics, "extensions_refused_total", label, 1);
	if (rq)
		request_fail(rq, rc, "%s", text);
}

/* It did not come: nothing of it stays. */
static void give_up(struct installed *in, int rc, const char *text)
{
	struct kernel *k = in->k;

	in->phase = LEAVING;
	extender_refuse(k, STEAL(in->rq), installed_said(in), rc, text);
	ext_abandon(k->exts, in->key);
}

static int place_ok(struct kernel *k, const char *name, enum how how, struct errmsg *em)
{
	const struct installed *old = installed_named(k, name, true);

	if (installed_named(k, name, false))
		return err_set(
			em, ERR_STATE, "another version of %s is just being installed", name);
	if (old && how == NEW)
		return err_set(em, ERR_EXISTS, "extension %s %s is there already; replace it",
			name, old->version);
	if (!old && how == INSTEAD)
		return err_set(em, ERR_NOT_FOUND, "no extension %s is installed here", name);
	return 0;
}

/* ---- coming: check, start, save, publish */

static void answer_installed(struct installed *in)
{
	struct tos_value *m = installed_said(in),
			 *declared = ext_declared(in->k->exts, in->key);

	tos_set(m, "kernel", tos_text(in->k->config.name));
	tos_set(m, "where", tos_text(in->in_kernel ? "kernel" : "isolated"));
	tos_set(m, "privileges", tos_text(in->privileges));
	if (tos_get(declared, "inboxes"))
		tos_set(m, "inboxes", tos_value_copy(tos_get(declared, "inboxes")));
	tos_value_free(declared);
	if (in->rq)
		request_ok(STEAL(in->rq), m);
	else
		tos_value_free(m);
}

static void row_put(struct store_txn *t, const struct installed *in)
{
	struct tos_value *m = installed_said(in);
	uint8_t *bytes = NULL;
	size_t n;

	tos_set(m, "bundle", tos_bytes(in->package.p, in->package.n));
	tos_set(m, "wall", tos_int(in->wall_ms));
	if (tos_encode(m, &bytes, &n) == 0)
		store_put(t, T_EXTENSION, in->name, strlen(in->name), bytes, n, 0);
	free(bytes);
	tos_value_free(m);
}

/* The store has it, and it cannot be published: what was there before is put back. */
static void put_back(struct installed *in)
{
	struct store_txn *t = store_begin(in->k->store);

	if (in->before.n)
		store_put(t, T_EXTENSION, in->name, strlen(in->name), in->before.p,
			in->before.n, 0);
	else
		store_del(t, T_EXTENSION, in->name, strlen(in->name));
	store_commit(t, NULL, NULL);
}

static void installed_now(struct installed *in, struct installed *old)
{
	struct kernel *k = in->k;

	in->phase = HERE;
	blob_free(&in->package);
	blob_free(&in->before);
	if (old) {
		old->phase = LEAVING;
		log_notice("extension replaced", KV_STR("extension", in->name),
			KV_STR("version", in->version), KV_STR("replaces", old->version),
			KV_STR("by", in->by), KV_STR("officer", in->officer),
			KV_STR("via", in->via));
		metric_add(k->metrics, "extensions_replaced_total", NULL, 1);
	} else {
		log_notice("extension installed", KV_STR("extension", in->name),
			KV_STR("version", in->version), KV_STR("by", in->by),
			KV_STR("officer", in->officer), KV_STR("via", in->via));
		metric_add(k->metrics, "extensions_installed_total", NULL, 1);
	}
	measure(k);
	answer_installed(in);
}

struct saving {
	struct kernel *k;
	char key[EXT_KEY_BYTES];
};

static void on_saved(void *arg, int rc, const struct errmsg *em)
{
	AUTOFREE struct saving *s = arg;
	struct installed *in = installed_find(s->k, s->key), *old;
	struct errmsg why = { "" };

	if (!in || in->phase != SAVING)
		return;
	if (rc < 0) {
		give_up(in, rc, err_show(rc, em));
		return;
	}
	old = installed_named(s->k, in->name, true);
	rc = ext_publish(s->k->exts, in->key, &why);
	if (rc < 0) {
		put_back(in);
		give_up(in, rc, err_show(rc, &why));
		return;
	}
	installed_now(in, old);
}

static void save(struct installed *in)
{
	struct kernel *k = in->k;
	struct saving *s = mem_new(struct saving);
	AUTOBUF before = BUF_MAX(PACKAGE_BYTES_MAX + (1 << 16));
	struct store_txn *t;
	int rc;

	s->k = k;
	snprintf(s->key, sizeof(s->key), "%s", in->key);
	in->phase = SAVING;
	if (store_get(k->store, T_EXTENSION, in->name, strlen(in->name), &before, NULL) == 0)
		blob_set(&in->before, slice_buf(&before));
	t = store_begin(k->store);
	row_put(t, in);
	audit_event(k, t, in->replaces[0] ? "extension-replaced" : "extension-installed",
		installed_said(in));
	rc = store_commit(t, on_saved, s);
	if (rc < 0) {
		free(s);
		give_up(in, rc, err_text(rc));
	}
}

bool extender_ready(struct kernel *k, const char *key, int rc, const char *why)
{
	struct installed *in = installed_find(k, key);

	if (!in)
		return false;
	if (in->phase == COMING && rc == 0)
		save(in);
	else if (in->phase == COMING)
		give_up(in, rc, why && *why ? why : err_text(rc));
	else if (in->phase == SAVING && rc < 0)
		snprintf(in->refused, sizeof(in->refused), "%s", why); /* publishing fails */
	else if (in->phase == HERE) {
		snprintf(in->refused, sizeof(in->refused), "%s", rc < 0 ? why : "");
		measure(k);
	}
	return true;
}

/* The package's bytes are borrowed; takes rq. */
void extender_install(struct kernel *k, struct request *rq, const struct bringer *who,
	const char *name, enum how how, struct slice bytes)
{
	AUTOFREE struct package *p = mem_new(struct package);
	struct installed *in = NULL;
	const struct installed *old;
	struct errmsg em = { "" };
	struct slice file;
	struct trust trust;
	uint32_t bits = 0;
	int rc;

	kernel_trust(k, &trust);
	rc = admission_closed(k, &em) ? ERR_STORE : package_open(&trust, bytes, p, &em);
	if (rc == 0 && !k->config.extender_enabled)
		rc = err_set(&em, ERR_UNSUPPORTED,
			"nothing is installed at %s while it runs (extender.enabled)",
			k->config.name);
	if (rc == 0) {
		if (name && strcmp(name, p->manifest.name) != 0)
			rc = err_set(&em, ERR_NAME, "the package is of %s, not of %s",
				p->manifest.name, name);
		if (rc == 0 && !name)
			rc = kernel_allowed(k, &rq->from, "install", p->manifest.name, "", &em);
		rc = rc ? rc : package_two_keys(p, who->by, &em);
		rc = rc ? rc : package_fits(k, p, &bits, &file, &em);
		rc = rc ? rc : place_ok(k, p->manifest.name, how, &em);
		rc = rc ? rc : installed_new(k, p, file, bits, who, &in, &em);
	}
	if (!in) {
		struct tos_value *m = tos_map();

		tos_set(m, "name", tos_text(name ? name : p->manifest.name));
		tos_set(m, "version", tos_text(p->manifest.version));
		tos_set(m, "package", tos_bytes(p->digest, sizeof(p->digest)));
		tos_set(m, "by", tos_text(who->by));
		tos_set(m, "officer", tos_text(p->officer.name));
		if (who->via[0])
			tos_set(m, "via", tos_text(who->via));
		extender_refuse(k, rq, m, rc, err_show(rc, &em));
		package_close(p);
		return;
	}
	old = installed_named(k, in->name, true);
	if (old)
		snprintf(in->replaces, sizeof(in->replaces), "%s", old->version);
	blob_set(&in->package, bytes);
	in->rq = rq;
	package_close(p);
	rc = installed_start(in, true, &em); /* in may be gone by now, if that was quick */
	if (rc < 0) {
		give_up(in, rc, err_show(rc, &em));
		installed_free(in);
	}
}

/* ---- leaving */

void extender_gone(struct kernel *k, const char *key)
{
	struct installed *in = installed_find(k, key);
	struct tos_value *m;

	if (!in)
		return;
	log_info("extension gone", KV_STR("extension", in->name),
		KV_STR("version", in->version));
	if (in->rq) {
		m = installed_said(in);
		tos_set(m, "kernel", tos_text(k->config.name));
		request_ok(STEAL(in->rq), m);
	}
	installed_free(in);
	measure(k);
}

static void on_removed(void *arg, int rc, const struct errmsg *em)
{
	AUTOFREE struct saving *s = arg;
	struct installed *in = installed_find(s->k, s->key);
	struct errmsg why = { "" };
	char path[80];

	if (!in)
		return;
	if (rc == 0 && in->phase == HERE)
		rc = ext_retire(s->k->exts, in->name, RETIRE_MS, &why);
	else if (rc < 0)
		snprintf(why.text, sizeof(why.text), "%s", err_show(rc, em));
	if (rc == ERR_NOT_FOUND && in->refused[0]) { /* it was never started */
		extender_gone(s->k, s->key);
		return;
	}
	if (rc < 0) {
		if (in->rq)
			request_fail(STEAL(in->rq), rc, "%s", why.text);
		return;
	}
	in->phase = LEAVING;
	snprintf(path, sizeof(path), "/%s", in->name);
	property_remove(s->k->properties, path);
	log_notice("extension removed", KV_STR("extension", in->name),
		KV_STR("version", in->version), KV_STR("by", in->by));
	metric_add(s->k->metrics, "extensions_removed_total", NULL, 1);
	measure(s->k);
}

static int remove_begin(struct kernel *k, struct installed *in, struct request *rq,
	const struct bringer *who, const char *why)
{
	struct saving *s = mem_new(struct saving);
	struct tos_value *m = installed_said(in);
	struct store_txn *t = store_begin(k->store);
	int rc;

	s->k = k;
	snprintf(s->key, sizeof(s->key), "%s", in->key);
	in->rq = rq;
	tos_set(m, "by", tos_text(who->by));
	if (who->via[0])
		tos_set(m, "via", tos_text(who->via));
	if (why)
		tos_set(m, "text", tos_text(why));
	store_del(t, T_EXTENSION, in->name, strlen(in->name));
	audit_event(k, t, "extension-removed", m);
	rc = store_commit(t, on_removed, s);
	if (rc < 0) {
		in->rq = NULL;
		free(s);
	}
	return rc;
}

void extender_remove(
	struct kernel *k, struct request *rq, const struct bringer *who, const char *name)
{
	struct installed *in = installed_named(k, name, true);
	struct tos_value *m;
	struct errmsg em = { "" };
	int rc;

	if (!in && extension_configured(k, name))
		rc = err_set(&em, ERR_EXISTS,
			"%s is in the configuration of %s, and is removed there", name,
			k->config.name);
	else if (!in)
		rc = err_set(&em, ERR_NOT_FOUND, "no extension %s is installed here", name);
	else if (installed_named(k, name, false) || in->rq)
		rc = err_set(&em, ERR_STATE, "%s is just being replaced or removed", name);
	else
		rc = remove_begin(k, in, rq, who, NULL);
	if (rc == 0)
		return;
	m = tos_map();
	tos_set(m, "name", tos_text(name));
	tos_set(m, "by", tos_text(who->by));
	extender_refuse(k, rq, m, rc, err_show(rc, &em));
}

void extender_recheck(struct kernel *k)
{
	static const struct bringer nobody = { "", "" };
	struct installed *in;
	size_t it = 0;

	if (!k->extender)
		return;
	while ((in = map_next(k->extender->all, &it, NULL, NULL))) {
		AUTOBUF row = BUF_MAX(PACKAGE_BYTES_MAX + (1 << 16));
		struct tos_value *v = NULL;
		struct slice bytes = { NULL, 0 };
		struct errmsg em = { "" };
		struct package *p;
		struct trust trust;
		int rc;

		if (in->phase != HERE || in->rq ||
			store_get(k->store, T_EXTENSION, in->name, strlen(in->name), &row,
				NULL) < 0 ||
			tos_decode(row.data, row.len, 2 * PACKAGE_BYTES_MAX, &v) < 0)
			continue;
		bytes.p = tos_get_bytes(v, "bundle", &bytes.n);
		kernel_trust(k, &trust);
		trust.now_ms = in->wall_ms;
		p = mem_new(struct package);
		rc = bytes.p ? package_open(&trust, bytes, p, &em) : 0;
		if (rc == 0 && bytes.p)
			package_close(p);
		free(p);
		tos_value_free(v);
		if (rc != ERR_REVOKED)
			continue;
		log_warning("an extension is removed: its officer was revoked",
			KV_STR("extension", in->name), KV_STR("officer", in->officer));
		remove_begin(k, in, NULL, &nobody, em.text);
	}
}

/* ---- at start */

static void not_started(struct kernel *k, const char *name, int rc, const char *text)
{
	struct tos_value *m = tos_map();

	log_error("an installed extension does not start", KV_STR("extension", name),
		KV_STR("error", err_word(rc)), KV_STR("reason", text));
	tos_set(m, "name", tos_text(name));
	tos_set(m, "code", tos_text(err_word(rc)));
	tos_set(m, "text", tos_text(text));
	audit_event(k, NULL, "extension-not-started", m);
}

/* What was good when it was installed is good, unless its officer was revoked since: a service
 * does not end because a certificate ran out. */
static int load_one(struct kernel *k, const struct tos_value *row, struct errmsg *em)
{
	AUTOFREE struct package *p = mem_new(struct package);
	struct bringer who = { tos_get_text(row, "by", ""), tos_get_text(row, "via", "") };
	struct installed *in;
	struct trust trust;
	struct slice bytes = { NULL, 0 }, file;
	uint32_t bits = 0;
	int rc, made;

	bytes.p = tos_get_bytes(row, "bundle", &bytes.n);
	if (!bytes.p)
		return err_set(em, ERR_STORE, "its row in the store is damaged");
	kernel_trust(k, &trust);
	trust.now_ms = tos_get_int(row, "wall", 0);
	rc = package_open(&trust, bytes, p, em);
	if (rc < 0)
		return rc;
	rc = package_fits(k, p, &bits, &file, em);
	/* One that may not run is kept, so that it is seen, and can be removed or replaced. */
	if (rc < 0)
		file = (struct slice){ (const uint8_t *)"", 0 };
	made = installed_new(k, p, file, bits, &who, &in, rc < 0 ? NULL : em);
	package_close(p);
	if (made < 0)
		return rc ? rc : made;
	in->phase = HERE;
	in->wall_ms = trust.now_ms;
	rc = rc ? rc : installed_start(in, false, em);
	if (rc < 0)
		snprintf(in->refused, sizeof(in->refused), "%s", err_show(rc, em));
	return rc;
}

static int load_row(void *arg, struct slice key, struct slice body, int64_t expires_ms)
{
	struct kernel *k = arg;
	struct tos_value *row = NULL;
	struct errmsg em = { "" };
	char name[64];
	int rc;

	(void)expires_ms;
	slice_copy_text(key, name, sizeof(name));
	rc = tos_decode(body.p, body.n, 2 * PACKAGE_BYTES_MAX, &row);
	if (rc == 0)
		rc = load_one(k, row, &em);
	tos_value_free(row);
	if (rc < 0)
		not_started(k, name, rc, err_show(rc, &em));
	return 0;
}

int extender_load(struct kernel *k, struct errmsg *em)
{
	int rc;

	k->extender = mem_new(struct extender);
	k->extender->all = map_new();
	rc = store_each(k->store, T_EXTENSION, (struct slice){ NULL, 0 }, load_row, k, em);
	measure(k);
	return rc;
}
