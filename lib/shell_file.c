/* A shell as a file: a bundle as it is, or everything: ["tos-carrier", 1, {...}]. */
#include "lib/shell.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/mem.h"
#include "base/text.h"
#include "lib/home.h"
#include "lib/internal.h"

static struct tos_value *shell_value(const struct tos_shell *s)
{
	struct tos_value *v = tos_map(), *limits = tos_map(), *files = tos_map();
	int rc = 0;

	for (size_t i = 0; i < LIMIT_COUNT; i++)
		rc |= tos_set(limits, limit_names[i], tos_int(s->limits[i]));
	rc |= tos_set(v, "limits", limits);
	rc |= tos_set(v, "briefcase", tos_value_copy(s->briefcase));
	rc |= tos_set(v, "bundle", tos_bytes(s->bundle.data, s->bundle.len));
	rc |= tos_set(v, "source", tos_bytes(s->source.data, s->source.len));
	for (size_t i = 0; i < s->modules.n; i++)
		rc |= tos_set(files, s->modules.v[i].file,
			tos_bytes(s->modules.v[i].text.data, s->modules.v[i].text.len));
	rc |= tos_set(v, "files", files);
	rc |= tos_set(v, "name", tos_text(s->name));
	rc |= tos_set(v, "entry", tos_text(s->entry));
	rc |= tos_set(v, "path", tos_text(s->path));
	rc |= tos_set(v, "sealed", tos_value_copy(s->sealed));
	rc |= tos_set(v, "append", tos_value_copy(s->append));
	rc |= tos_set(v, "itinerant", tos_bool(s->itinerant));
	rc |= tos_set(v, "fast", tos_bool(s->fast));
	rc |= tos_set(v, "on-unreachable", tos_text(s->on_unreachable));
	rc |= tos_set(v, "expires", tos_int(s->expires_ms));
	if (rc == 0)
		return v;
	tos_value_free(v);
	return NULL;
}

static bool is_plain(const struct tos_shell *s)
{
	return s->bundle.len && !*s->path && tos_len(s->briefcase) == 0 &&
	       memcmp(s->limits, limit_defaults, sizeof(s->limits)) == 0 && !s->itinerant &&
	       !tos_len(s->sealed) && !tos_len(s->append) && !s->fast && !s->expires_ms &&
	       strcmp(s->on_unreachable, "wait=30000") == 0;
}

/* The bytes of a file of it. */
static int shell_bytes(const struct tos_shell *s, uint8_t **p, size_t *n, struct errmsg *em)
{
	struct tos_value *v, *all;
	int rc;

	if (is_plain(s)) {
		*p = mem_dup(s->bundle.data, s->bundle.len);
		*n = s->bundle.len;
		return 0;
	}
	v = shell_value(s);
	all = tos_array();
	rc = tos_push(all, tos_text("tos-carrier"));
	if (rc == 0)
		rc = tos_push(all, tos_int(1));
	if (rc == 0)
		rc = tos_push(all, STEAL(v));
	if (rc == 0)
		rc = tos_encode(all, p, n);
	tos_value_free(v);
	tos_value_free(all);
	return rc < 0 ? err_set(em, rc, "the carrier cannot be written down") : 0;
}

int tos_shell_save(const struct tos_shell *s, const char *path, struct tos_error *err)
{
	uint8_t *p = NULL;
	size_t n = 0;
	int rc = shell_bytes(s, &p, &n, em_of(err));

	if (rc == 0)
		rc = bytes_write(path, p, n, 0644, em_of(err));
	free(p);
	return rc;
}

int tos_shell_write(const struct tos_shell *s, int fd, struct tos_error *err)
{
	uint8_t *p = NULL;
	size_t n = 0;
	int rc = shell_bytes(s, &p, &n, em_of(err));

	for (size_t at = 0; rc == 0 && at < n;) {
		ssize_t did = write(fd, p + at, n - at);

		if (did < 0 && errno != EINTR)
			rc = err_errno(em_of(err), "cannot write the carrier");
		if (did > 0)
			at += (size_t)did;
	}
	free(p);
	return rc;
}

static int load_bytes(const struct tos_value *v, const char *key, struct buf *out)
{
	size_t n;
	const uint8_t *p = tos_get_bytes(v, key, &n);

	return n ? buf_add(out, p, n) : 0;
}

static int load_files(struct tos_shell *s, const struct tos_value *files)
{
	for (size_t i = 0; i < tos_len(files); i++) {
		const char *name = tos_as_text(tos_key_at(files, i), "");
		size_t n = 0;
		const uint8_t *p = tos_as_bytes(tos_value_at(files, i), &n);

		if (!bundle_file_ok(name) ||
			modules_add_file(&s->modules, name, p, n, NULL) < 0)
			return ERR_MALFORMED;
	}
	return 0;
}

static int shell_from_value(struct tos_shell *s, const struct tos_value *v)
{
	const struct tos_value *b = tos_get(v, "briefcase"), *limits = tos_get(v, "limits");
	int rc = load_bytes(v, "bundle", &s->bundle);

	if (rc == 0)
		rc = load_bytes(v, "source", &s->source);
	if (rc == 0)
		rc = load_files(s, tos_get(v, "files"));
	if (rc < 0 || tos_type(b) != TOS_MAP || tos_type(limits) != TOS_MAP)
		return ERR_MALFORMED;
	for (size_t i = 0; i < tos_len(b); i++)
		if (tos_type(tos_key_at(b, i)) != TOS_TEXT ||
			tos_type(tos_value_at(b, i)) != TOS_ARRAY)
			return ERR_MALFORMED;
	tos_value_free(s->briefcase);
	s->briefcase = tos_value_copy(b);
	for (size_t i = 0; i < LIMIT_COUNT; i++)
		s->limits[i] = tos_get_int(limits, limit_names[i], limit_defaults[i]);
	snprintf(s->name, sizeof(s->name), "%s", tos_get_text(v, "name", "carrier"));
	snprintf(s->entry, sizeof(s->entry), "%s", tos_get_text(v, "entry", "carrier.lua"));
	snprintf(s->on_unreachable, sizeof(s->on_unreachable), "%s",
		tos_get_text(v, "on-unreachable", "wait=30000"));
	for (size_t i = 0; i < tos_len(tos_get(v, "sealed")); i++)
		if (shell_protect(s, s->sealed,
			    tos_as_text(tos_at(tos_get(v, "sealed"), i), NULL), NULL) < 0)
			return ERR_MALFORMED;
	for (size_t i = 0; i < tos_len(tos_get(v, "append")); i++)
		if (shell_protect(s, s->append,
			    tos_as_text(tos_at(tos_get(v, "append"), i), NULL), NULL) < 0)
			return ERR_MALFORMED;
	s->itinerant = tos_get_bool(v, "itinerant", false);
	s->fast = tos_get_bool(v, "fast", false);
	s->expires_ms = tos_get_int(v, "expires", 0);
	free(s->path);
	s->path = mem_strdup(tos_get_text(v, "path", ""));
	return s->briefcase && (s->bundle.len || s->source.len) ? 0 : ERR_MALFORMED;
}

static int shell_decode(struct tos_shell *s, const struct buf *bytes, struct errmsg *em)
{
	struct tos_value *all = NULL;
	struct bundle *b = mem_new(struct bundle);
	int rc = bundle_decode((struct slice){ bytes->data, bytes->len }, b, NULL);

	if (rc == 0) {
		rc = buf_add(&s->bundle, bytes->data, bytes->len);
	} else if (tos_decode(bytes->data, bytes->len, CARRIER_MAX, &all) == 0 &&
		   strcmp(tos_as_text(tos_at(all, 0), ""), "tos-carrier") == 0) {
		rc = tos_as_int(tos_at(all, 1), 0) == 1 ? shell_from_value(s, tos_at(all, 2))
							: ERR_VERSION;
	} else
		rc = ERR_MALFORMED;
	tos_value_free(all);
	free(b);
	return rc < 0 ? err_set(em, rc,
				"neither a bundle nor a saved carrier; 'tos build' makes one")
		      : 0;
}

int tos_shell_load(const char *path, struct tos_shell **out, struct tos_error *err)
{
	struct errmsg *em = em_of(err);
	struct tos_shell *s = shell_new();
	struct buf bytes = { NULL, 0, 0, CARRIER_MAX, false };
	int rc = bytes_read(path, CARRIER_MAX, &bytes, em);

	s->bundle.max = CARRIER_MAX;
	if (rc == 0) {
		rc = shell_decode(s, &bytes, em);
		if (rc < 0)
			err_wrap(em, rc, "%s", path);
	}
	buf_fini(&bytes);
	if (rc < 0) {
		tos_shell_free(s);
		return rc;
	}
	*out = s;
	return 0;
}
