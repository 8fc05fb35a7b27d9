/* Groups of hosts and labels. See groups.h. */
#include "lib/groups.h"

#include <confuse.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/mem.h"
#include "base/text.h"
#include "lib/bundle.h"
#include "lib/internal.h"

#define ASK_MS     5000
#define NEAR_MOST  3
#define LABEL_MAX  32
#define VALUE_MAX  64
#define SHOWN_MOST 400

void groups_fini(struct groups *g)
{
	tos_value_free(g->value);
	memset(g, 0, sizeof(*g));
}

static const struct tos_value *group_of(const struct groups *g, const char *name)
{
	return tos_get(tos_get(g->value, "groups"), name);
}

/* ---- names */

static bool word_ok(const char *s, size_t n, size_t most)
{
	if (n == 0 || n > most || *s == '.' || *s == '-' || *s == '_')
		return false;
	for (size_t i = 0; i < n; i++)
		if (!(s[i] >= 'a' && s[i] <= 'z') && !(s[i] >= '0' && s[i] <= '9') &&
			s[i] != '.' && s[i] != '-' && s[i] != '_')
			return false;
	return true;
}

/* What may stand behind the = of a label: nothing that a path or a shell takes apart. */
static bool value_ok(const char *s, size_t n)
{
	if (n == 0 || n > VALUE_MAX)
		return false;
	for (size_t i = 0; i < n; i++)
		if (s[i] <= ' ' || s[i] > '~' || strchr(",|@=\"'", s[i]))
			return false;
	return true;
}

/* "@web" or "@os=debian", without the @. */
bool groups_selector_ok(const char *s)
{
	const char *eq = strchr(s, '=');

	if (!eq)
		return word_ok(s, strlen(s), 63);
	return word_ok(s, (size_t)(eq - s), LABEL_MAX) && value_ok(eq + 1, strlen(eq + 1));
}

/* ---- checking a value, wherever it comes from */

static int check_group(
	const char *name, const struct tos_value *hosts, size_t *total, struct errmsg *em)
{
	if (!word_ok(name, strlen(name), 63) || strcmp(name, "all") == 0)
		return err_set(em, ERR_CONFIG,
			"'%.64s' is no name for a group (lower case, digits, . _ and -; @all is "
			"every kernel)",
			name);
	*total += tos_len(hosts);
	if (tos_type(hosts) != TOS_ARRAY || *total > GROUPS_HOSTS_MAX)
		return err_set(em, ERR_CONFIG, "group %s: more than %d hosts in all groups",
			name, GROUPS_HOSTS_MAX);
	for (size_t i = 0; i < tos_len(hosts); i++) {
		const char *host = tos_as_text(tos_at(hosts, i), "");

		if (*host == '@' ? !groups_selector_ok(host + 1)
				 : !path_kernel_ok(host, strlen(host)))
			return err_set(em, ERR_CONFIG,
				"group %s: '%.64s' is neither a kernel's name nor @GROUP nor "
				"@LABEL=VALUE",
				name, host);
	}
	return 0;
}

static int check_labels(const char *host, const struct tos_value *labels, struct errmsg *em)
{
	if (!path_kernel_ok(host, strlen(host)))
		return err_set(em, ERR_CONFIG, "'%.64s' is no kernel's name", host);
	if (tos_type(labels) != TOS_MAP || tos_len(labels) > GROUPS_LABELS_MAX)
		return err_set(em, ERR_CONFIG, "host %s has more than %d labels", host,
			GROUPS_LABELS_MAX);
	for (size_t i = 0; i < tos_len(labels); i++) {
		const char *key = tos_as_text(tos_key_at(labels, i), "");
		const char *value = tos_as_text(tos_value_at(labels, i), "");

		if (!word_ok(key, strlen(key), LABEL_MAX) || !value_ok(value, strlen(value)))
			return err_set(em, ERR_CONFIG,
				"host %s: '%.40s=%.70s' is no label such as os=debian", host,
				key, value);
	}
	return 0;
}

/* Does it end within GROUPS_DEPTH_MAX? A group within itself does not. */
static int check_depth(
	const struct groups *g, const char *name, unsigned depth, struct errmsg *em)
{
	const struct tos_value *hosts = group_of(g, name);
	int rc = 0;

	if (depth > GROUPS_DEPTH_MAX)
		return err_set(em, ERR_CONFIG,
			"group %s is within itself, or groups are nested more than %d deep",
			name, GROUPS_DEPTH_MAX);
	for (size_t i = 0; rc == 0 && i < tos_len(hosts); i++) {
		const char *host = tos_as_text(tos_at(hosts, i), "");

		if (*host != '@' || strchr(host, '=') || strcmp(host, "@all") == 0)
			continue;
		if (!group_of(g, host + 1))
			return err_set(em, ERR_CONFIG, "group %s names @%s, which there is not",
				name, host + 1);
		rc = check_depth(g, host + 1, depth + 1, em);
	}
	return rc;
}

int groups_check(const struct tos_value *value, struct errmsg *em)
{
	struct groups g = { .value = (struct tos_value *)(uintptr_t)value };
	const struct tos_value *groups = tos_get(value, "groups"),
			       *labels = tos_get(value, "labels");
	size_t total = 0;
	int rc = 0;

	if (tos_type(groups) != TOS_MAP || tos_type(labels) != TOS_MAP)
		return err_set(em, ERR_MALFORMED, "groups and labels are missing");
	if (tos_len(groups) > GROUPS_MAX || tos_len(labels) > GROUPS_HOSTS_MAX)
		return err_set(em, ERR_CONFIG, "more than %d groups or %d hosts with labels",
			GROUPS_MAX, GROUPS_HOSTS_MAX);
	for (size_t i = 0; rc == 0 && i < tos_len(groups); i++)
		rc = check_group(tos_as_text(tos_key_at(groups, i), ""),
			tos_value_at(groups, i), &total, em);
	for (size_t i = 0; rc == 0 && i < tos_len(labels); i++)
		rc = check_labels(
			tos_as_text(tos_key_at(labels, i), ""), tos_value_at(labels, i), em);
	for (size_t i = 0; rc == 0 && i < tos_len(groups); i++)
		rc = check_depth(&g, tos_as_text(tos_key_at(groups, i), ""), 1, em);
	return rc;
}

/* ---- domain.conf */

static struct tos_value *hosts_of(cfg_t *section)
{
	struct tos_value *hosts = tos_array();

	for (unsigned i = 0; i < cfg_size(section, "hosts"); i++) {
		struct tos_value *host = tos_text(cfg_getnstr(section, "hosts", i));

		tos_push(hosts, host ? host : tos_text("?"));
	}
	return hosts;
}

static struct tos_value *labels_of(cfg_t *section)
{
	struct tos_value *labels = tos_map();

	for (unsigned i = 0; i < cfg_size(section, "labels"); i++) {
		const char *label = cfg_getnstr(section, "labels", i);
		char key[LABEL_MAX + 2];
		size_t n = strcspn(label, "=");
		struct tos_value *value = label[n] ? tos_text(label + n + 1) : NULL;

		/* what is too long is cut and so refused */
		snprintf(key, sizeof(key), "%.*s", (int)(n > LABEL_MAX ? LABEL_MAX + 1 : n),
			label);
		tos_set(labels, key, value ? value : tos_text(""));
	}
	return labels;
}

int groups_of_conf(void *conf, struct tos_value **out)
{
	cfg_t *cfg = conf;
	struct tos_value *value = tos_map(), *groups = tos_map(), *labels = tos_map();

	for (unsigned i = 0; i < cfg_size(cfg, "group"); i++) {
		cfg_t *s = cfg_getnsec(cfg, "group", i);

		tos_set(groups, cfg_title(s), hosts_of(s));
	}
	for (unsigned i = 0; i < cfg_size(cfg, "host"); i++) {
		cfg_t *s = cfg_getnsec(cfg, "host", i);

		tos_set(labels, cfg_title(s), labels_of(s));
	}
	tos_set(value, "groups", groups);
	tos_set(value, "labels", labels);
	*out = value;
	return 0;
}

int groups_read(const char *home, struct groups *out, struct errmsg *em)
{
	struct home h;
	int rc = home_open_with(home, &h, &out->value, em);

	rc = rc ? rc : groups_check(out->value, em);
	if (rc < 0) {
		groups_fini(out);
		return rc == ERR_NOT_FOUND ? rc : err_wrap(em, rc, "%s/domain.conf", h.path);
	}
	out->source[0] = 0;
	if (tos_len(tos_get(out->value, "groups")) || tos_len(tos_get(out->value, "labels")))
		snprintf(out->source, sizeof(out->source), "domain.conf");
	return 0;
}

/* ---- what the registrar serves */

static int groups_ask(struct tos_connection *c, struct groups *out, struct errmsg *em)
{
	struct tos_value *answer = NULL, *none = tos_array();
	int rc = tos_ask(c, "Control", "GROUPS", none, ASK_MS, NULL, &answer, public_of(em));

	tos_value_free(none);
	if (rc == ERR_UNSUPPORTED) /* a kernel of before there were any */
		return 0;
	if (rc == 0) {
		const struct tos_value *value = tos_at(answer, 0);
		const char *from = tos_get_text(value, "from", "");

		if (*from && (rc = groups_check(value, em)) == 0) {
			out->value = tos_value_copy(value);
			snprintf(out->source, sizeof(out->source), "registrar %.64s", from);
		}
	}
	tos_value_free(answer);
	return rc;
}

int groups_find(struct tos_connection *c, struct groups *out, struct errmsg *em)
{
	int rc = 0;

	memset(out, 0, sizeof(*out));
	if (*connection_home(c))
		rc = groups_read(connection_home(c), out, em);
	if (rc == 0 && !*out->source) {
		groups_fini(out);
		rc = groups_ask(c, out, em);
	}
	return rc;
}

/* ---- choosing */

static bool names_have(const struct names *n, size_t from, const char *name)
{
	for (size_t i = from; i < n->n; i++)
		if (strcmp(n->v[i], name) == 0)
			return true;
	return false;
}

static int add_once(struct names *out, size_t from, const char *name)
{
	return names_have(out, from, name) ? 0 : names_add(out, name);
}

static int no_such_group(const struct groups *g, const char *selector, struct errmsg *em)
{
	struct names all = { NULL, 0 };
	AUTOBUF near = BUF_INIT;
	AUTOBUF list = BUF_INIT;
	unsigned n_near = 0;

	groups_selectors(g, &all);
	for (size_t i = 0; i < all.n; i++) {
		bool close = text_distance(selector, all.v[i], 2) <= 2 ||
			     (strlen(selector) > 2 &&
				     strncmp(selector, all.v[i], strlen(selector)) == 0);

		if (close && n_near++ < NEAR_MOST)
			buf_printf(&near, "%s%s", near.len ? " or " : "", all.v[i]);
		if (list.len < SHOWN_MOST)
			buf_printf(&list, "%s%s", list.len ? ", " : "", all.v[i]);
		else if (i + 1 == all.n)
			buf_printf(&list, ", ...");
	}
	names_fini(&all);
	return err_set(em, ERR_NOT_FOUND, "there is no group %.64s%s%s%s; there are: %s",
		selector, near.len ? "; is it " : "", near.len ? buf_cstr(&near) : "",
		near.len ? "?" : "", buf_cstr(&list));
}

static int select_label(
	const struct groups *g, const char *label, struct names *out, size_t from)
{
	const struct tos_value *labels = tos_get(g->value, "labels");
	const char *eq = strchr(label, '=');
	char key[LABEL_MAX + 1];
	int rc = 0;

	if (text_copy(key, sizeof(key), label, (size_t)(eq - label)) < 0)
		return 0; /* nobody has it */
	for (size_t i = 0; rc == 0 && i < tos_len(labels); i++)
		if (strcmp(tos_get_text(tos_value_at(labels, i), key, ""), eq + 1) == 0)
			rc = add_once(out, from, tos_as_text(tos_key_at(labels, i), ""));
	return rc;
}

/* An empty label is nobody's, so "@os=" selects nothing. */
static int select_into(const struct groups *g, const char *name, const struct names *all,
	unsigned depth, struct names *out, size_t from)
{
	const struct tos_value *hosts;
	int rc = 0;

	if (depth > GROUPS_DEPTH_MAX)
		return ERR_CONFIG;
	if (strcmp(name, "all") == 0) {
		for (size_t i = 0; rc == 0 && i < all->n; i++)
			rc = add_once(out, from, all->v[i]);
		return rc;
	}
	if (strchr(name, '='))
		return select_label(g, name, out, from);
	hosts = group_of(g, name);
	if (!hosts)
		return ERR_NOT_FOUND;
	for (size_t i = 0; rc == 0 && i < tos_len(hosts); i++) {
		const char *host = tos_as_text(tos_at(hosts, i), "");

		rc = *host == '@' ? select_into(g, host + 1, all, depth + 1, out, from)
				  : add_once(out, from, host);
	}
	return rc;
}

int groups_select(const struct groups *g, const char *selector, const struct names *all,
	struct names *out, struct errmsg *em)
{
	size_t before = out->n;
	int rc = select_into(g, selector + 1, all, 1, out, before);

	if (rc == ERR_NOT_FOUND)
		return no_such_group(g, selector, em);
	if (rc < 0)
		return err_set(em, rc, "%.64s: %s", selector, err_text(rc));
	if (out->n > before)
		return 0;
	if (strchr(selector, '='))
		return no_such_group(g, selector, em);
	return err_set(em, ERR_NOT_FOUND, "nobody is in the group %.64s", selector);
}

int groups_selectors(const struct groups *g, struct names *out)
{
	const struct tos_value *groups = tos_get(g->value, "groups"),
			       *labels = tos_get(g->value, "labels");
	char text[LABEL_MAX + VALUE_MAX + 3];
	int rc = names_add(out, "@all");

	for (size_t i = 0; rc == 0 && i < tos_len(groups); i++) {
		snprintf(text, sizeof(text), "@%s", tos_as_text(tos_key_at(groups, i), ""));
		rc = names_add(out, text) == ERR_NOMEM ? ERR_NOMEM : 0;
	}
	for (size_t i = 0; rc == 0 && i < tos_len(labels); i++) {
		const struct tos_value *of = tos_value_at(labels, i);

		for (size_t k = 0; rc == 0 && k < tos_len(of); k++) {
			snprintf(text, sizeof(text), "@%s=%s",
				tos_as_text(tos_key_at(of, k), ""),
				tos_as_text(tos_value_at(of, k), ""));
			/* one that is too long for a name is left out of the list */
			rc = names_have(out, 0, text) || names_add(out, text) != ERR_NOMEM
				     ? 0
				     : ERR_NOMEM;
		}
	}
	return rc;
}
