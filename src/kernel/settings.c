/*
 * Values that a kernel is told while it runs: `tos set`. Each is an override of what tosd.conf says
 * or leaves at its default, kept in the store (meta, "set:PATH") so that it outlives a restart.
 *
 * A path is /SECTION/KEY of the configuration, for keys that are read anew each time that they
 * matter, or /EXTENSION/PROPERTY. Which came from where is shown by GET as `origin`.
 */
#include "kernel/settings.h"

#include <ctype.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/text.h"

#define KEY_PREFIX   "set:"
#define SETTINGS_MAX 1024

struct setting {
	char path[192], value[256], by[CERT_NAME_MAX + 1];
	char base[256]; /* of a configuration's key: what the file says, or its default */
	bool applied;
	int64_t wall;
};

static struct setting *setting_find(const struct kernel *k, const char *path)
{
	return map_find_str(k->settings, path);
}

/* ---- where a path leads */

struct target {
	int key; /* of the configuration, or -1 */
	char ext[64];
	const char *property;
};

static int target_parse(const char *path, struct target *t, struct errmsg *em)
{
	const char *slash = *path == '/' ? strchr(path + 1, '/') : NULL;
	struct config_key key;
	char first[64];

	*t = (struct target){ .key = -1 };
	if (!slash || !slash[1] || strlen(path) >= sizeof(((struct setting *)0)->path) ||
		text_copy(first, sizeof(first), path + 1, (size_t)(slash - path - 1)) < 0)
		return err_set(em, ERR_NAME,
			"'%.80s' is no path of a property, such as /limits/hops or "
			"/Mobility/offer/timeout_ms",
			path);
	if (!strchr(slash + 1, '/'))
		t->key = config_key_find(first, slash + 1);
	if (t->key >= 0 && config_key_get((size_t)t->key, &key)) {
		if (key.live && strcmp(path, "/policy/defaults") != 0)
			return 0;
		return err_set(em, ERR_UNSUPPORTED,
			"%s is read at the start: change tosd.conf, then start the kernel again",
			path);
	}
	t->key = -1;
	memcpy(t->ext, first, sizeof(first));
	t->property = slash + 1;
	return 0;
}

static const char *configured(const struct kernel *k, const struct target *t)
{
	const struct config_extension *x =
		config_extension((struct config *)(uintptr_t)&k->config, t->ext);

	return x ? config_property(x, t->property) : NULL;
}

/* Could it be set so? */
static int target_check(struct kernel *k, const struct target *t, const char *value,
	const char *path, struct errmsg *em)
{
	struct config_key key;
	int rc;

	if (t->key >= 0 && config_key_get((size_t)t->key, &key)) {
		rc = value ? config_key_check((size_t)t->key, value, em) : 0;
		return rc < 0 ? err_wrap(em, ERR_MALFORMED, "%s", path) : 0;
	}
	rc = ext_property_check(k->exts, t->ext, t->property, value, em);
	return rc == ERR_NOT_FOUND
		       ? err_set(em, rc, "there is no property %s; 'tos get' lists all", path)
		       : rc;
}

/* ---- what a change of the configuration brings with it */

void settings_changed(struct kernel *k)
{
	log_init("tos-kernel", k->config.name, log_level_parse(k->config.log_level),
		k->config.log_json);
	tls_context_trust(k->tls, k->revocation, k->config.skew_ms);
}

static int target_apply(
	struct kernel *k, const struct target *t, const char *value, struct errmsg *em)
{
	int rc;

	if (t->key < 0)
		return ext_property_change(
			k->exts, t->ext, t->property, value ? value : configured(k, t), em);
	rc = config_key_set(&k->config, (size_t)t->key, value, em);
	if (rc == 0)
		settings_changed(k);
	return rc;
}

static void setting_apply(struct kernel *k, struct setting *s)
{
	struct errmsg em = { "" };
	struct target t;
	int rc = target_parse(s->path, &t, &em);

	if (rc == 0 && t.key >= 0 && !s->applied)
		config_key_text(&k->config, (size_t)t.key, s->base, sizeof(s->base));
	rc = rc ? rc : target_apply(k, &t, s->value, &em);
	s->applied = rc == 0;
	/* A property that its extension no longer has, or not yet. */
	if (rc < 0)
		log_notice("a value that was set is not used", KV_STR("path", s->path),
			KV_ERR(rc, &em));
}

static void setting_undo(struct kernel *k, struct setting *s)
{
	struct errmsg em = { "" };
	struct target t;

	if (s->applied && target_parse(s->path, &t, &em) == 0)
		target_apply(k, &t, t.key >= 0 ? s->base : NULL, &em);
	s->applied = false;
}

void settings_lift(struct kernel *k)
{
	struct setting *s;
	size_t it = 0;

	while ((s = map_next(k->settings, &it, NULL, NULL)))
		if (s->applied && islower((unsigned char)s->path[1]))
			setting_undo(k, s);
}

void settings_apply(struct kernel *k, const char *ext)
{
	struct setting *s;
	size_t it = 0, n = ext ? strlen(ext) : 0;

	while ((s = map_next(k->settings, &it, NULL, NULL)))
		if (ext ? strncmp(s->path + 1, ext, n) == 0 && s->path[n + 1] == '/'
			: islower((unsigned char)s->path[1]) != 0)
			setting_apply(k, s);
	metric_set(k->metrics, "settings", NULL, (double)map_size(k->settings));
}

void settings_configured(struct kernel *k, const struct config_extension *x)
{
	struct tos_value *list = NULL;
	char top[80];

	snprintf(top, sizeof(top), "/%s", x->name);
	if (property_list(k->properties, top, &list, NULL) < 0)
		return;
	for (size_t i = 0; i < tos_len(list); i++) {
		const char *path = tos_get_text(tos_at(list, i), "path", "");
		struct errmsg em = { "" };
		struct target t;
		int rc;

		if (setting_find(k, path) || target_parse(path, &t, NULL) < 0)
			continue;
		rc = ext_property_change(k->exts, t.ext, t.property, configured(k, &t), &em);
		if (rc < 0 && rc != ERR_DENIED) /* it sets that itself */
			log_warning("a configured value is not used", KV_STR("path", path),
				KV_ERR(rc, &em));
	}
	tos_value_free(list);
}

/* ---- the store */

static int load_one(void *arg, struct slice key, struct slice body, int64_t expires_ms)
{
	struct kernel *k = arg;
	struct tos_value *m = NULL;
	struct setting *s;

	(void)expires_ms;
	if (key.n <= strlen(KEY_PREFIX) || memcmp(key.p, KEY_PREFIX, strlen(KEY_PREFIX)) != 0)
		return 1; /* past them */
	if (tos_decode(body.p, body.n, 0, &m) < 0)
		return 0;
	s = mem_new(struct setting);
	text_copy(s->path, sizeof(s->path), (const char *)key.p + strlen(KEY_PREFIX),
		key.n - strlen(KEY_PREFIX));
	snprintf(s->value, sizeof(s->value), "%s", tos_get_text(m, "value", ""));
	snprintf(s->by, sizeof(s->by), "%s", tos_get_text(m, "by", ""));
	s->wall = tos_get_int(m, "wall", 0);
	tos_value_free(m);
	map_put_str(k->settings, s->path, s);
	return 0;
}

int settings_load(struct kernel *k, struct errmsg *em)
{
	int rc;

	k->settings = map_new();
	rc = store_each(k->store, T_META, slice_text(KEY_PREFIX), load_one, k, em);
	if (rc < 0)
		return rc;
	settings_apply(k, NULL);
	return 0;
}

/* ---- the act */

struct setting_act {
	struct kernel *k;
	struct request *rq;
	struct setting fresh;
	bool drop;
};

static void set_saved(void *arg, int rc, const struct errmsg *em)
{
	AUTOFREE struct setting_act *a = arg;
	struct setting *s = setting_find(a->k, a->fresh.path);
	struct tos_value *m;

	if (rc < 0) {
		request_fail(a->rq, rc, "%s", err_show(rc, em));
		return;
	}
	if (a->drop && s) {
		setting_undo(a->k, s);
		free(map_del_str(a->k->settings, a->fresh.path));
	} else if (!a->drop) {
		if (!s) {
			s = mem_new(struct setting);
			map_put_str(a->k->settings, a->fresh.path, s);
		}
		memcpy(s->path, a->fresh.path, sizeof(s->path));
		memcpy(s->value, a->fresh.value, sizeof(s->value));
		memcpy(s->by, a->fresh.by, sizeof(s->by));
		s->wall = a->fresh.wall;
		setting_apply(a->k, s);
	}
	metric_set(a->k->metrics, "settings", NULL, (double)map_size(a->k->settings));
	log_notice(a->drop ? "a value is as configured again" : "a value was set",
		KV_STR("path", a->fresh.path), KV_STR("value", a->fresh.value),
		KV_STR("by", a->fresh.by));
	m = tos_map();
	tos_set(m, "path", tos_text(a->fresh.path));
	tos_set(m, "kernel", tos_text(a->k->config.name));
	request_ok(a->rq, m);
}

static void set_commit(struct setting_act *a)
{
	struct store_txn *t = store_begin(a->k->store);
	struct tos_value *m = tos_map();
	char key[sizeof(a->fresh.path) + 8];
	uint8_t *bytes = NULL;
	size_t n = 0;
	int rc;

	snprintf(key, sizeof(key), KEY_PREFIX "%s", a->fresh.path);
	tos_set(m, "by", tos_text(a->fresh.by));
	tos_set(m, "value", tos_text(a->fresh.value));
	tos_set(m, "wall", tos_int(a->fresh.wall));
	if (a->drop)
		store_del(t, T_META, key, strlen(key));
	else if (tos_encode(m, &bytes, &n) == 0)
		store_put(t, T_META, key, strlen(key), bytes, n, 0);
	free(bytes);
	tos_unset(m, "wall");
	tos_set(m, "path", tos_text(a->fresh.path));
	if (a->drop)
		tos_unset(m, "value");
	audit_event(a->k, t, a->drop ? "unset" : "set", m);
	rc = store_commit(t, set_saved, a);
	if (rc < 0) {
		struct errmsg em = { "" };

		set_saved(a, rc, &em);
	}
}

void settings_act(struct kernel *k, struct request *rq, const char *by, const char *path,
	const struct tos_value *args)
{
	struct setting_act *a;
	const char *value = tos_get_text(args, "value", NULL);
	struct errmsg em = { "" };
	struct target t;
	int rc = target_parse(path, &t, &em);

	rc = rc ? rc : target_check(k, &t, value, path, &em);
	if (rc == 0 && value && !setting_find(k, path) && map_size(k->settings) >= SETTINGS_MAX)
		rc = err_set(&em, ERR_FULL, "%d values are set already", SETTINGS_MAX);
	if (rc == 0 && value && strlen(value) >= sizeof(a->fresh.value))
		rc = err_set(&em, ERR_TOO_LARGE, "a value has %zu bytes at most",
			sizeof(a->fresh.value) - 1);
	if (rc < 0) {
		request_fail(rq, rc, "%s", err_show(rc, &em));
		return;
	}
	a = mem_new(struct setting_act);
	a->k = k;
	a->rq = rq;
	a->drop = !value;
	a->fresh.wall = clock_wall_ms();
	snprintf(a->fresh.path, sizeof(a->fresh.path), "%s", path);
	snprintf(a->fresh.value, sizeof(a->fresh.value), "%s", value ? value : "");
	snprintf(a->fresh.by, sizeof(a->fresh.by), "%s", by);
	set_commit(a);
}

/* ---- GET */

void settings_describe(const struct kernel *k, struct tos_value *list)
{
	for (size_t i = 0; i < tos_len(list); i++) {
		struct tos_value *row = tos_at_mut(list, i);
		const char *path = tos_get_text(row, "path", "");
		const struct setting *s = setting_find(k, path);
		struct config_key key;
		struct target t;

		if (target_parse(path, &t, NULL) < 0 && t.key < 0)
			continue;
		if (s && s->applied)
			tos_set(row, "origin", tos_textf("set by %s", s->by));
		else if (t.key >= 0)
			tos_set(row, "origin",
				tos_text(k->config.given[t.key / 64] >> t.key % 64 & 1
						 ? "tosd.conf"
						 : "default"));
		else if (configured(k, &t))
			tos_set(row, "origin", tos_text("tosd.conf"));
		if (t.key >= 0 && config_key_get((size_t)t.key, &key))
			tos_set(row, "read_only",
				tos_bool(!key.live || strcmp(path, "/policy/defaults") == 0));
	}
}

/* ---- the configuration as properties */

struct key_property {
	struct kernel *k;
	size_t key;
};

static struct tos_value *read_key(void *arg)
{
	const struct key_property *p = arg;
	struct config_key key;
	char text[300];

	config_key_get(p->key, &key);
	if (key.is_text) {
		config_key_text(&p->k->config, p->key, text, sizeof(text));
		return tos_text(text);
	}
	return key.is_bool ? tos_bool(config_key_number(&p->k->config, p->key) != 0)
			   : tos_int(config_key_number(&p->k->config, p->key));
}

static const struct {
	const char *path, *unit, *doc;
} docs[] = {
	{ "/limits/carriers", "", "Carriers that this kernel admits." },
	{ "/limits/carriers_per_principal", "",
		"Carriers of one owner that this kernel admits." },
	{ "/limits/disk_per_principal", "B",
		"Bytes that carriers, outcomes and code of one owner may take in the store; 0: any." },
	{ "/limits/journal_bytes", "B", "Bytes that one extension may keep in the store." },
	{ "/limits/journal_rows", "", "Rows that one extension may keep in the store." },
	{ "/limits/cpu_share", "%", "Part of one processor that one carrier may use; 0: any." },
	{ "/limits/cpu_share_per_principal", "%",
		"Part of one processor that all carriers of one owner may use; 0: any." },
	{ "/limits/sent_rate", "B/s", "Bytes that one carrier may post in a second; 0: any." },
	{ "/limits/sent_rate_per_principal", "B/s",
		"Bytes that all carriers of one owner may post in a second; 0: any." },
	{ "/log/level", "", "The least that is logged: debug, info, notice, warning, error." },
	{ "/clock/skew", "ms", "How far clocks may differ." },
	{ "/policy/confirm", "", "Ask a carrier's home before it is accepted here." },
	{ "/revocation/max_age", "ms",
		"How old the news may be that the revocation list is the newest." },
};

static const char *key_doc(const char *path, const struct config_key *key, const char **unit)
{
	*unit = key->unit;
	for (size_t i = 0; i < ARRAY_LEN(docs); i++)
		if (strcmp(docs[i].path, path) == 0) {
			*unit = docs[i].unit;
			return docs[i].doc;
		}
	for (size_t i = 0; strcmp(key->section, "limits") == 0 && i < LIMIT_COUNT; i++)
		if (strcmp(limit_names[i], key->name) == 0)
			return limit_texts[i];
	return strcmp(key->section, "timing") == 0 ? "How long that may take, see tosd.conf."
						   : "See tosd.conf.";
}

int settings_properties(struct kernel *k, struct errmsg *em)
{
	struct config_key key;
	int rc = 0;

	for (size_t i = 0; rc == 0 && i < config_keys(); i++) {
		struct key_property *p;
		const char *unit, *doc;
		char path[96];

		if (!config_key_get(i, &key) || !*key.section ||
			strncmp(key.name, "test_", 5) == 0)
			continue;
		p = mem_new(struct key_property); /* as long as the kernel */
		p->k = k;
		p->key = i;
		snprintf(path, sizeof(path), "/%s/%s", key.section, key.name);
		doc = key_doc(path, &key, &unit);
		rc = property_add(k->properties, path,
			key.is_text   ? PROPERTY_TEXT
			: key.is_bool ? PROPERTY_BOOL
				      : PROPERTY_INT,
			unit, doc, key.min, key.max, true, read_key, p, em);
	}
	return rc;
}
