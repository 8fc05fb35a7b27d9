/* A shell's life and properties; see shell.h. */
#include "lib/shell.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/text.h"
#include "lib/internal.h"

struct tos_shell *shell_new(void)
{
	struct tos_shell *s = mem_new(struct tos_shell);

	memcpy(s->limits, limit_defaults, sizeof(s->limits));
	s->briefcase = tos_map();
	s->sealed = tos_array();
	s->append = tos_array();
	s->path = mem_strdup("");
	snprintf(s->on_unreachable, sizeof(s->on_unreachable), "wait=30000");
	return s;
}

void tos_shell_free(struct tos_shell *s)
{
	if (!s)
		return;
	buf_fini(&s->source);
	buf_fini(&s->bundle);
	modules_fini(&s->modules);
	free(s->dir);
	tos_value_free(s->briefcase);
	tos_value_free(s->sealed);
	tos_value_free(s->append);
	free(s->path);
	free(s);
}

int tos_shell_path(struct tos_shell *s, const char *path, struct tos_error *err)
{
	struct tos_value *entries;
	int rc = path_entries(path, NULL, NULL, &entries, em_of(err));

	if (rc < 0)
		return rc;
	tos_value_free(entries);
	free(s->path);
	s->path = mem_strdup(path);
	return 0;
}

int tos_shell_push(struct tos_shell *s, const char *folder, struct tos_value *element,
	struct tos_error *err)
{
	struct tos_value *f;
	int rc;

	for (const char *p = folder; *p; p++)
		if (*p < 0x20 || *p > 0x7e || p - folder >= NAME_BYTES_MAX) {
			tos_value_free(element);
			return err_set(em_of(err), ERR_NAME,
				"a folder's name is printable ASCII, 128 bytes at most");
		}
	if (!tos_get(s->briefcase, folder)) {
		rc = tos_set(s->briefcase, folder, tos_array());
		if (rc < 0) {
			tos_value_free(element);
			return rc;
		}
	}
	f = tos_get_mut(s->briefcase, folder);
	rc = tos_push(f, element);
	return rc < 0 ? err_set(em_of(err), rc, "the element does not fit into folder %s",
				folder)
		      : 0;
}

int shell_pack(struct tos_shell *s, const struct tos_value *briefcase, struct errmsg *em)
{
	int rc = 0;

	for (size_t i = 0; rc == 0 && i < tos_len(briefcase); i++)
		rc = tos_set_value(s->briefcase, tos_value_copy(tos_key_at(briefcase, i)),
			tos_value_copy(tos_value_at(briefcase, i)));
	return rc < 0 ? err_set(em, rc, "the briefcase does not fit") : 0;
}

int tos_shell_limit(struct tos_shell *s, const char *name_value, struct tos_error *err)
{
	enum limit_id id;
	int64_t value;
	int rc = limit_parse(name_value, &id, &value, em_of(err));

	if (rc == 0)
		s->limits[id] = value;
	return rc;
}

/* "wait" "wait=30s" "skip" "alternate" "fail" */
static int set_on_unreachable(struct tos_shell *s, const char *value, struct errmsg *em)
{
	int64_t ms = 30000;

	if (strcmp(value, "skip") == 0 || strcmp(value, "alternate") == 0 ||
		strcmp(value, "fail") == 0) {
		snprintf(s->on_unreachable, sizeof(s->on_unreachable), "%s", value);
		return 0;
	}
	if (strncmp(value, "wait", 4) != 0 || (value[4] && value[4] != '=') ||
		(value[4] && text_duration(value + 5, &ms) < 0) || ms < 0)
		return err_set(em, ERR_USAGE,
			"'%s' is none of wait, wait=TIME, skip, alternate, fail", value);
	snprintf(s->on_unreachable, sizeof(s->on_unreachable), "wait=%lld", (long long)ms);
	return 0;
}

static bool truth(const char *value)
{
	return !value || (strcmp(value, "false") != 0 && strcmp(value, "0") != 0);
}

int tos_shell_option(
	struct tos_shell *s, const char *name, const char *value, struct tos_error *err)
{
	struct errmsg *em = em_of(err);

	if (strcmp(name, "itinerant") == 0)
		s->itinerant = truth(value);
	else if (strcmp(name, "fast") == 0)
		s->fast = truth(value);
	else if (strcmp(name, "seal") == 0)
		return shell_protect(s, s->sealed, value, em);
	else if (strcmp(name, "append-only") == 0)
		return shell_protect(s, s->append, value, em);
	else if (strcmp(name, "on-unreachable") == 0)
		return set_on_unreachable(s, value ? value : "", em);
	else if (strcmp(name, "expires") == 0) {
		if (!value || text_duration(value, &s->expires_ms) < 0 || s->expires_ms <= 0)
			return err_set(em, ERR_USAGE, "'%s' is no duration such as 90m or 7d",
				value ? value : "");
	} else if (strcmp(name, "name") == 0) {
		if (!value || !*value || strlen(value) > 64)
			return err_set(em, ERR_NAME, "a code's name has 1 to 64 bytes");
		snprintf(s->name, sizeof(s->name), "%s", value);
		buf_clear(&s->bundle); /* the name is under the author's signature */
	} else
		return err_set(em, ERR_USAGE, "a shell has no option %s", name);
	return 0;
}

struct slice shell_bundle(const struct tos_shell *s)
{
	return (struct slice){ s->bundle.data, s->bundle.len };
}

void shell_limits(const struct tos_shell *s, int64_t out[LIMIT_COUNT])
{
	memcpy(out, s->limits, sizeof(s->limits));
}
