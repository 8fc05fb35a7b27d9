/*
 * Finds what a carrier requires; see modules.h. The scanner knows just enough of Lua to tell a
 * call of require from a word in a comment or a string; whether all of it is Lua tos-vm says.
 */
#include "lib/modules.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/mem.h"
#include "base/text.h"
#include "base/where.h"
#include "lib/home.h"
#include "seal/seal.h"

/* What `require` has without any file; src/vm/prelude.lua and src/kernel/carrier/admit.c have the same
 * list. */
static const char *const builtin[] = { "coroutine", "math", "string", "table", "tos", "utf8" };

void modules_fini(struct modules *m)
{
	for (size_t i = 0; i < m->n; i++) {
		free(m->v[i].path);
		buf_fini(&m->v[i].text);
	}
	free(m->v);
	memset(m, 0, sizeof(*m));
}

/* ---- scanning */

void module_scan_init(struct module_scan *s, const char *text, size_t n)
{
	*s = (struct module_scan){ text, text + n, 1, false };
	if (n && *text == '#') /* the shell's first line */
		while (s->p < s->end && *s->p != '\n')
			s->p++;
}

static int here(const struct module_scan *s, size_t ahead)
{
	return (size_t)(s->end - s->p) > ahead ? (unsigned char)s->p[ahead] : 0;
}

static void step(struct module_scan *s)
{
	if (s->p < s->end && *s->p++ == '\n')
		s->line++;
}

/* At "[": is it "[[" or "[==["? Its level, or -1. */
static int long_level(const struct module_scan *s)
{
	size_t n = 1;

	while (here(s, n) == '=')
		n++;
	return here(s, n) == '[' ? (int)n - 1 : -1;
}

/* Past "[==[...]==]"; the content, which may be cut off by the end. */
static void skip_long(struct module_scan *s, int level, const char **content, size_t *n)
{
	s->p += level + 2;
	*content = s->p;
	for (; s->p < s->end; step(s)) {
		size_t k = 1;

		if (*s->p != ']')
			continue;
		while (here(s, k) == '=')
			k++;
		if (here(s, k) == ']' && (int)k - 1 == level)
			break;
	}
	*n = (size_t)(s->p - *content);
	for (int i = 0; i < level + 2; i++)
		step(s);
}

static void skip_quoted(struct module_scan *s, const char **content, size_t *n)
{
	char quote = *s->p++;

	*content = s->p;
	while (s->p < s->end && *s->p != quote && *s->p != '\n') {
		bool escape = *s->p == '\\', blanks;

		if (escape)
			step(s);
		blanks = escape && here(s, 0) == 'z'; /* \z: up to the next letter */
		step(s);
		while (blanks && isspace(here(s, 0)))
			step(s);
	}
	*n = (size_t)(s->p - *content);
	step(s);
}

static void skip_blanks(struct module_scan *s)
{
	const char *content;
	size_t n;

	for (;;) {
		while (s->p < s->end && isspace((unsigned char)*s->p))
			step(s);
		if (here(s, 0) != '-' || here(s, 1) != '-')
			return;
		s->p += 2;
		if (here(s, 0) == '[' && long_level(s) >= 0)
			skip_long(s, long_level(s), &content, &n);
		else
			while (s->p < s->end && *s->p != '\n')
				s->p++;
	}
}

/* A string of any form, if one stands here. */
static bool take_string(struct module_scan *s, const char **content, size_t *n)
{
	int level;

	if (here(s, 0) == '"' || here(s, 0) == '\'') {
		skip_quoted(s, content, n);
		return true;
	}
	if (here(s, 0) != '[' || (level = long_level(s)) < 0)
		return false;
	skip_long(s, level, content, n);
	return true;
}

/* Behind the word: "x", ("x"), or , "x" as in pcall(require, "x"). A name that is computed is
 * nobody's to find. */
static bool take_argument(struct module_scan *s, struct module_use *out)
{
	bool open, literal;

	skip_blanks(s);
	open = here(s, 0) == '(';
	out->optional = here(s, 0) == ',';
	if (open || out->optional)
		step(s);
	skip_blanks(s);
	out->line = s->line;
	literal = take_string(s, &out->name, &out->n);
	if (!literal || !(open || out->optional))
		return literal;
	skip_blanks(s);
	return here(s, 0) == ')';
}

static bool word_char(int c)
{
	return isalnum(c) || c == '_';
}

static bool take_word(struct module_scan *s, struct module_use *out)
{
	const char *word = s->p;
	bool member = s->member;
	size_t n;

	while (s->p < s->end && word_char((unsigned char)*s->p))
		s->p++;
	n = (size_t)(s->p - word);
	s->member = n == 8 && memcmp(word, "function", 8) == 0;
	return n == 7 && memcmp(word, "require", 7) == 0 && !member && take_argument(s, out);
}

bool module_scan_next(struct module_scan *s, struct module_use *out)
{
	const char *content;
	size_t n;

	for (skip_blanks(s); s->p < s->end; skip_blanks(s)) {
		if (word_char((unsigned char)*s->p)) {
			if (take_word(s, out))
				return true;
			continue;
		}
		if (!take_string(s, &content, &n)) {
			int c = (unsigned char)*s->p;

			step(s);
			s->member = (c == '.' && here(s, 0) != '.') || c == ':';
			while (c == '.' && here(s, 0) == '.')
				step(s);
			continue;
		}
		s->member = false;
	}
	return false;
}

/* ---- finding */

static bool name_ok(const char *p, size_t n)
{
	if (n == 0 || n > MODULE_NAME_MAX || p[0] == '.' || p[n - 1] == '.')
		return false;
	for (size_t i = 0; i < n; i++)
		if (!(word_char((unsigned char)p[i]) || p[i] == '-' ||
			    (p[i] == '.' && p[i - 1] != '.')))
			return false;
	return true;
}

static bool is_builtin(const char *name)
{
	for (size_t i = 0; i < ARRAY_LEN(builtin); i++)
		if (strcmp(builtin[i], name) == 0)
			return true;
	return false;
}

/* lib.names -> lib/names, and back; what stands between must not hold the other. */
static void translate(char *text, char from, char to)
{
	for (; *text; text++)
		if (*text == from)
			*text = to;
}

enum module_kin module_kin(const char *file, const void *p, size_t n)
{
	char name[129], path[4096];
	AUTOBUF text = BUF_INIT;
	size_t len = strlen(file);

	if (len < 5 || len >= sizeof(name) || strcmp(file + len - 4, ".lua") != 0)
		return MODULE_OWN;
	snprintf(name, sizeof(name), "%.*s", (int)(len - 4), file);
	if (where_library(name, path, sizeof(path)) < 0 ||
		bytes_read(path, MODULES_BYTES, &text, NULL) < 0)
		return MODULE_OWN;
	return text.len == n && (n == 0 || memcmp(text.data, p, n) == 0) ? MODULE_SYSTEM
									 : MODULE_DIFFERS;
}

/* The path of the file to take. What lies in the carrier's folder is its own, but for names that
 * the system has: then it must be the same file. */
static int find(const char *dir, const char *name, char path[4096], struct errmsg *em)
{
	char slashed[129], own[4096];
	bool mine;

	snprintf(slashed, sizeof(slashed), "%s", name);
	translate(slashed, '.', '/');
	mine = dir &&
	       snprintf(own, sizeof(own), "%s/%s.lua", dir, slashed) < (int)sizeof(own) &&
	       access(own, F_OK) == 0;
	if (is_builtin(name))
		return mine ? err_set(em, ERR_NAME,
				      "%s would never be loaded: require \"%s\" is a standard "
				      "library; call it otherwise",
				      own, name)
			    : 0;
	if (where_library(slashed, path, 4096) == 0) {
		AUTOBUF text = BUF_INIT;
		char file[133];

		snprintf(file, sizeof(file), "%s.lua", slashed);
		if (mine && (bytes_read(own, MODULES_BYTES, &text, em) < 0 ||
				    module_kin(file, text.data, text.len) != MODULE_SYSTEM))
			return err_set(em, ERR_NAME,
				"%s would take the place of the system's library %s; call it "
				"otherwise",
				own, name);
		return 0;
	}
	if (mine) {
		memcpy(path, own, sizeof(own));
		return 0;
	}
	return dir ? err_set(em, ERR_NOT_FOUND,
			     "there is no module %s: neither %s nor a library of the system",
			     name, own)
		   : err_set(em, ERR_NOT_FOUND, "there is no library %s of the system", name);
}

static bool has(const struct modules *m, const char *file)
{
	for (size_t i = 0; i < m->n; i++)
		if (strcmp(m->v[i].file, file) == 0)
			return true;
	return false;
}

int modules_add_file(
	struct modules *m, const char *file, const void *p, size_t n, struct errmsg *em)
{
	struct module *more, *mod;

	if (strlen(file) >= sizeof(mod->file))
		return err_set(em, ERR_NAME, "a file's name has at most 128 bytes");
	if (m->n >= MODULES_MAX || n > MODULES_BYTES - m->bytes)
		return err_set(em, ERR_LIMIT,
			"a carrier's code has at most %d files and %zu bytes beside its entry",
			MODULES_MAX, MODULES_BYTES);
	more = mem_zero((m->n + 1) * sizeof(*more));
	if (m->n)
		memcpy(more, m->v, m->n * sizeof(*more));
	free(m->v);
	m->v = more;
	mod = &m->v[m->n];
	snprintf(mod->file, sizeof(mod->file), "%s", file);
	if (buf_add(&mod->text, p, n) < 0)
		return ERR_NOMEM;
	m->n++;
	m->bytes += n;
	return 0;
}

static int take(struct modules *m, const char *dir, const char *entry, const char *name,
	struct errmsg *em)
{
	char path[4096] = "", slashed[129], file[133];
	AUTOBUF text = BUF_INIT;
	int rc = find(dir, name, path, em);

	if (rc < 0 || !*path)
		return rc; /* a standard library has no file */
	snprintf(slashed, sizeof(slashed), "%s", name);
	translate(slashed, '.', '/');
	snprintf(file, sizeof(file), "%s.lua", slashed);
	if (has(m, file))
		return 0;
	if (strcmp(file, entry) == 0)
		return err_set(
			em, ERR_NAME, "%s is the carrier itself, not one of its modules", path);
	rc = bytes_read(path, MODULES_BYTES, &text, em);
	if (rc == 0 && !text_utf8((const char *)text.data, text.len))
		rc = err_set(em, ERR_SYNTAX, "%s is not a text in UTF-8", path);
	rc = rc ? rc : syntax_check(&text, path, false, em);
	rc = rc ? rc : modules_add_file(m, file, text.data, text.len, em);
	if (rc == 0)
		m->v[m->n - 1].path = mem_strdup(path);
	return rc;
}

static int gather_one(struct modules *m, const char *dir, const char *entry, const char *shown,
	const struct buf *text, struct errmsg *em)
{
	struct module_scan s;
	struct module_use use;

	module_scan_init(&s, (const char *)text->data, text->len);
	while (module_scan_next(&s, &use)) {
		char name[MODULE_NAME_MAX + 1];
		int rc = ERR_NAME;

		if (name_ok(use.name, use.n)) {
			snprintf(name, sizeof(name), "%.*s", (int)use.n, use.name);
			rc = take(m, dir, entry, name, em);
		} else {
			err_set(em, rc, "no module can have that name");
		}
		if (rc == ERR_NOT_FOUND && use.optional)
			continue;
		if (rc == ERR_NOT_FOUND || rc == ERR_NAME)
			return err_wrap(em, rc, "%s:%u", shown, use.line);
		if (rc < 0)
			return rc;
	}
	return 0;
}

/* What the files there require in turn, each file once. */
static int gather_rest(struct modules *m, const char *dir, const char *entry, struct errmsg *em)
{
	int rc = 0;

	while (rc == 0 && m->n_seen < m->n) {
		struct module *mod = &m->v[m->n_seen++];
		struct buf text =
			mod->text; /* lent: adding more moves the array, not the text */

		if (mod->path)
			rc = gather_one(m, dir, entry, mod->path, &text, em);
	}
	return rc;
}

int modules_gather(struct modules *m, const char *dir, const char *entry, const char *shown,
	const struct buf *text, struct errmsg *em)
{
	int rc = gather_one(m, dir, entry, shown, text, em);

	return rc ? rc : gather_rest(m, dir, entry, em);
}

int modules_add(struct modules *m, const char *dir, const char *entry, const char *name,
	struct errmsg *em)
{
	int rc;

	if (!name_ok(name, strlen(name)))
		return err_set(em, ERR_NAME,
			"'%s' is no module's name such as waves or lib.names", name);
	rc = take(m, dir, entry, name, em);
	return rc ? rc : gather_rest(m, dir, entry, em);
}
