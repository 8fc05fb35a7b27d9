/* Sections `action` of the configuration: see ipc/action.h for what they mean. */
#include "kernel/config_action.h"

#include <string.h>

#include "base/buf.h"
#include "base/text.h"
#include "ipc/action.h"

#define TIMEOUT_MS 30000

static int timeout_fill(const char *s, struct tosd_action *a, struct errmsg *em)
{
	int64_t ms = TIMEOUT_MS;

	if (s && text_duration(s, &ms) < 0)
		return err_set(em, ERR_CONFIG, "timeout is not a time like 30s");
	if (ms < TOSD_ACTION_MS_MIN || ms > TOSD_ACTION_MS_MAX)
		return err_set(em, ERR_CONFIG, "timeout is from %dms to %ds",
			TOSD_ACTION_MS_MIN, TOSD_ACTION_MS_MAX / 1000);
	a->timeout_ms = (uint32_t)ms;
	return 0;
}

static int fill(cfg_t *sec, struct tosd_action *a, struct errmsg *em)
{
	int rc = text_copy(a->name, sizeof(a->name), cfg_title(sec), strlen(cfg_title(sec)));

	if (rc < 0)
		return err_set(em, ERR_CONFIG, "its name is too long");
	for (unsigned i = 0; rc == 0 && i < cfg_size(sec, "args"); i++)
		rc = action_arg_add(a, cfg_getnstr(sec, "args", i), em);
	for (unsigned i = 0; rc == 0 && i < cfg_size(sec, "run"); i++)
		rc = action_word_add(a, cfg_getnstr(sec, "run", i), em);
	rc = rc ? rc : timeout_fill(cfg_getstr(sec, "timeout"), a, em);
	return rc ? rc : action_check(a, em);
}

int config_actions_fill(cfg_t *cfg, struct config *c, struct errmsg *em)
{
	unsigned n = cfg_size(cfg, "action");

	if (n > TOSD_ACTIONS_MAX)
		return err_set(em, ERR_CONFIG, "%s: more than %d actions", cfg->filename,
			TOSD_ACTIONS_MAX);
	for (unsigned i = 0; i < n; i++) {
		cfg_t *sec = cfg_getnsec(cfg, "action", i);
		struct errmsg why = { "" };
		char shown[68];

		if (fill(sec, &c->actions[c->n_actions], &why) < 0)
			return err_set(em, ERR_CONFIG, "%s:%d: action '%s': %s", cfg->filename,
				sec->line, config_title(cfg_title(sec), shown), why.text);
		c->n_actions++;
	}
	return 0;
}

void config_actions_print(const struct config *c, struct buf *out)
{
	for (size_t i = 0; i < c->n_actions; i++) {
		const struct tosd_action *a = &c->actions[i];
		const char *word = a->text;

		buf_printf(out, "action \"%s\" {\n\trun = {", a->name);
		for (uint32_t w = 0; w < a->n_words; w++, word += strlen(word) + 1) {
			buf_add_str(out, w ? ", " : "");
			config_quoted(out, word);
		}
		buf_add_str(out, "}\n\targs = {");
		for (uint32_t k = 0; k < a->n_args; k++)
			buf_printf(out, "%s\"%s:%s\"", k ? ", " : "", a->arg[k].name,
				action_kind_word(a->arg[k].kind));
		buf_printf(out, "}\n\ttimeout = \"%ums\"\n}\n", a->timeout_ms);
	}
}

static bool same(const struct tosd_action *a, const struct tosd_action *b)
{
	return memcmp(a, b, sizeof(*a)) == 0; /* both were zero before they were filled */
}

void config_actions_take(
	struct config *now, const struct config *fresh, config_change_fn *fn, void *arg)
{
	char key[80];

	for (size_t i = 0; i < fresh->n_actions; i++) {
		const struct tosd_action *a = &fresh->actions[i],
					 *was = action_find(
						 now->actions, now->n_actions, a->name);

		snprintf(key, sizeof(key), "action %s", a->name);
		if (!was || !same(a, was))
			fn(arg, key, was ? was->text : "", a->text, true);
	}
	for (size_t i = 0; i < now->n_actions; i++) {
		const struct tosd_action *a = &now->actions[i];

		snprintf(key, sizeof(key), "action %s", a->name);
		if (!action_find(fresh->actions, fresh->n_actions, a->name))
			fn(arg, key, a->text, "", true);
	}
	memcpy(now->actions, fresh->actions, sizeof(now->actions));
	now->n_actions = fresh->n_actions;
}
