/*
 * The configuration is read again: on SIGHUP to tosd, or by the act `reload`. tosd has it checked in
 * a sandbox first, as at the start, and says what came of it; a file that is broken changes nothing.
 * What may not change while the kernel runs keeps its value, and is named.
 */
#include "kernel/settings.h"

#include <string.h>

#include "base/log.h"

#define WAITING_MAX 16

struct reload {
	struct request *rq[WAITING_MAX];
	char by[CERT_NAME_MAX + 1];
	size_t n;
};

static struct reload *reload_of(struct kernel *k)
{
	if (!k->reload)
		k->reload = mem_new(struct reload);
	return k->reload;
}

struct changes {
	struct kernel *k;
	struct tos_value *taken, *kept;
};

static void on_change(void *arg, const char *key, const char *from, const char *to, bool taken)
{
	struct changes *c = arg;
	struct tos_value *m = tos_map();

	tos_set(m, "key", tos_text(key));
	tos_set(m, "from", tos_text(from));
	tos_set(m, "to", tos_text(to));
	tos_push(taken ? c->taken : c->kept, m);
	if (taken)
		log_notice("configuration changed", KV_STR("key", key), KV_STR("from", from),
			KV_STR("to", to));
	else
		log_warning("configuration needs a restart", KV_STR("key", key),
			KV_STR("value", from), KV_STR("file", to));
}

/* A firewall is made whole before it takes the place of the old one. */
static int rules_renew(struct kernel *k, struct errmsg *em)
{
	struct firewall *f = firewall_new();
	int rc = 0;

	for (size_t i = 0; i < k->config.n_rules && rc == 0; i++)
		rc = firewall_add(f, k->config.rules[i], em);
	if (rc < 0) {
		firewall_free(f);
		return rc;
	}
	firewall_free(k->firewall);
	k->firewall = f;
	return 0;
}

static struct tos_value *keys_of(const struct tos_value *list)
{
	struct tos_value *out = tos_array();

	for (size_t i = 0; i < tos_len(list); i++)
		tos_push(out, tos_text(tos_get_text(tos_at(list, i), "key", "")));
	return out;
}

static int reload_take(struct kernel *k, struct changes *c, struct errmsg *em)
{
	AUTOFREE struct config *fresh = mem_new(struct config);
	int rc = config_load(k->conf_path, fresh, em);

	if (rc < 0)
		return rc;
	settings_lift(k);
	config_take(&k->config, fresh, on_change, c);
	config_fini(fresh);
	rc = rules_renew(k, em);
	must(rc == 0); /* each rule was parsed by config_load() */
	for (size_t i = 0; i < k->config.n_extensions; i++)
		settings_configured(k, &k->config.extensions[i]);
	for (size_t i = 0; i < k->config.n_installed; i++)
		settings_configured(k, &k->config.installed[i]);
	settings_changed(k);
	settings_apply(k, NULL);
	return 0;
}

static void reload_audit(
	struct kernel *k, const char *by, int rc, const char *text, const struct changes *c)
{
	struct tos_value *m = tos_map();

	tos_set(m, "by", tos_text(*by ? by : "SIGHUP"));
	if (rc < 0)
		tos_set(m, "text", tos_text(text));
	else {
		tos_set(m, "changed", keys_of(c->taken));
		tos_set(m, "kept", keys_of(c->kept));
	}
	audit_event(k, NULL, rc < 0 ? "reload-refused" : "reloaded", m);
	metric_add(k->metrics, rc < 0 ? "reloads_refused_total" : "reloads_total", NULL, 1);
}

static void reload_answer(struct reload *r, int rc, const char *text, const struct changes *c)
{
	struct request *waiting[WAITING_MAX];
	size_t n = r->n;

	memcpy(waiting, r->rq, n * sizeof(waiting[0]));
	r->n = 0;
	r->by[0] = 0;
	for (size_t i = 0; i < n; i++) {
		struct tos_value *m;

		if (rc < 0) {
			request_fail(waiting[i], rc, "%s", text);
			continue;
		}
		m = tos_map();
		tos_set(m, "kernel", tos_text(c->k->config.name));
		tos_set(m, "changed", tos_value_copy(c->taken));
		tos_set(m, "kept", tos_value_copy(c->kept));
		request_ok(waiting[i], m);
	}
}

void reload_checked(struct kernel *k, int rc, const char *text)
{
	struct reload *r = reload_of(k);
	struct changes c = { k, tos_array(), tos_array() };
	struct errmsg em = { "" };
	char by[sizeof(r->by)];

	memcpy(by, r->by, sizeof(by));
	if (rc < 0)
		err_set(&em, rc, "%s", text);
	else
		rc = reload_take(k, &c, &em);
	if (rc < 0)
		log_error("the configuration is broken; nothing has changed", KV_ERR(rc, &em));
	else
		log_notice("configuration read again", KV_INT("changed", tos_len(c.taken)),
			KV_INT("kept", tos_len(c.kept)));
	reload_audit(k, by, rc, em.text, &c);
	reload_answer(r, rc, err_show(rc, &em), &c);
	tos_value_free(c.taken);
	tos_value_free(c.kept);
}

void reload_act(struct kernel *k, struct request *rq, const char *by)
{
	struct reload *r = reload_of(k);
	int rc = 0;

	if (r->n == WAITING_MAX) {
		request_fail(rq, ERR_FULL, "%d wait for the configuration to be read already",
			WAITING_MAX);
		return;
	}
	if (r->n == 0)
		rc = tosd_reload(k);
	if (rc < 0) {
		request_fail(rq, rc, "tosd cannot be asked to check the configuration");
		return;
	}
	r->rq[r->n++] = rq;
	snprintf(r->by, sizeof(r->by), "%s", by);
}

/* Who has waited too long is told so; what tosd says later is taken all the same. */
void reload_tick(struct kernel *k, int64_t now_ms)
{
	struct reload *r = k->reload;
	size_t kept = 0;

	for (size_t i = 0; r && i < r->n; i++) {
		if (now_ms < r->rq[i]->deadline_at_ms)
			r->rq[kept++] = r->rq[i];
		else
			request_fail(r->rq[i], ERR_TIMEOUT,
				"tosd has not said yet what the configuration is like");
	}
	if (r)
		r->n = kept;
}
