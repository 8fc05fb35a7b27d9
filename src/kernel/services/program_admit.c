/*
 * What may run: a path that policy names, or a digest that was admitted; within limits that this
 * host grants. The bytes of a path are looked at at each run, in a thread, unless the file is the
 * one that was looked at before. See programs.h.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/text.h"
#include "kernel/services/content.h"
#include "kernel/services/programs.h"

#define PROGRAM_BYTES_MAX ((off_t)256 << 20)
#define SEEN_MAX          256
#define SETTLED_MS        2000 /* a file that changed this lately may change unseen */

/* ---- limits */

struct limit_row {
	const char *name;
	size_t offset;
	bool seconds; /* asked in seconds, kept in ms */
};
#define ROW(name, member, seconds)                                                             \
	{                                                                                      \
		name, offsetof(struct program_limits, member), seconds                         \
	}
static const struct limit_row limit_rows[] = { ROW("memory", memory, false),
	ROW("cpu", cpu_ms, true), ROW("processes", processes, false),
	ROW("files", files, false), ROW("file_size", file_size, false),
	ROW("scratch", scratch, false), ROW("wall", wall_ms, true) };

static int64_t *limit_at(struct program_limits *l, size_t i)
{
	return (int64_t *)(void *)((char *)l + limit_rows[i].offset);
}

static int limit_read(const struct tos_value *v, const struct limit_row *row, int64_t *out)
{
	double d = tos_as_float(v, -1);

	if (!(d > 0) || d > 9e15)
		return ERR_USAGE;
	*out = (int64_t)(row->seconds ? d * 1000 : d);
	return *out > 0 ? 0 : ERR_USAGE;
}

static int limits_ask(struct program *p, const struct tos_value *asked, struct errmsg *em)
{
	struct program_limits host = p->k->config.programs;

	p->limits = host;
	for (size_t i = 0; i < tos_len(asked); i++) {
		const char *name = tos_as_text(tos_key_at(asked, i), "");
		int64_t value = 0, most;
		size_t j = 0;

		while (j < ARRAY_LEN(limit_rows) && strcmp(limit_rows[j].name, name) != 0)
			j++;
		if (j == ARRAY_LEN(limit_rows))
			return err_set(em, ERR_USAGE, "a program has no limit %.64s", name);
		if (limit_read(tos_value_at(asked, i), &limit_rows[j], &value) < 0)
			return err_set(em, ERR_USAGE, "limit %s is not a number above 0", name);
		most = *limit_at(&host, j);
		if (most && value > most)
			return err_set(em, ERR_LIMIT,
				"limit %s: %lld asked, this host grants programs %lld%s", name,
				(long long)(limit_rows[j].seconds ? value / 1000 : value),
				(long long)(limit_rows[j].seconds ? most / 1000 : most),
				limit_rows[j].seconds ? " s" : "");
		*limit_at(&p->limits, j) = value;
	}
	return 0;
}

/* ---- arguments */

struct texts {
	struct tosd_spawn_program *m;
	struct errmsg *em;
	int rc;
};

static void text_add(
	struct texts *t, uint32_t *count, const char *key, const uint8_t *s, size_t n)
{
	struct tosd_spawn_program *m = t->m;
	size_t n_key = key ? strlen(key) + 1 : 0;

	if (t->rc < 0)
		return;
	if (!s || memchr(s, 0, n))
		t->rc = err_set(
			t->em, ERR_USAGE, "an argument or variable is a text without a NUL");
	else if (*count == TOSD_ARGS_MAX || m->n_text + n_key + n + 1 > sizeof(m->text))
		t->rc = err_set(t->em, ERR_TOO_LARGE,
			"arguments and environment are more than %d or %d bytes", TOSD_ARGS_MAX,
			TOSD_ARGS_BYTES);
	if (t->rc < 0)
		return;
	if (key) {
		memcpy(m->text + m->n_text, key, n_key - 1);
		m->text[m->n_text + n_key - 1] = '=';
		m->n_text += (uint32_t)n_key;
	}
	memcpy(m->text + m->n_text, s, n);
	m->text[m->n_text + n] = 0;
	m->n_text += (uint32_t)n + 1;
	(*count)++;
}

static void variable_add(
	struct texts *t, const struct tos_value *given, const char *key, const char *value)
{
	if (!tos_get(given, key))
		text_add(t, &t->m->n_env, key, (const uint8_t *)value, strlen(value));
}

static int args_ask(struct program *p, const struct tos_value *args, struct errmsg *em)
{
	struct texts t = { p->spawn, em, 0 };
	const struct tos_value *list = tos_get(args, "args"), *env = tos_get(args, "env");
	const char *slash = strrchr(p->shown, '/'), *zero = tos_get_text(args, "argv0", NULL);

	if ((list && tos_type(list) != TOS_ARRAY && tos_len(list)) ||
		(env && tos_type(env) != TOS_MAP && tos_len(env)))
		return err_set(em, ERR_USAGE, "args is a list and env a table of texts");
	if (!zero)
		zero = slash ? slash + 1 : p->shown;
	text_add(&t, &t.m->n_args, NULL, (const uint8_t *)zero, strlen(zero));
	for (size_t i = 0; i < tos_len(list) && tos_type(list) == TOS_ARRAY; i++) {
		const struct tos_value *v = tos_at(list, i);
		char number[32];
		size_t n;
		const uint8_t *s = tos_as_bytes(v, &n);

		if (tos_type(v) == TOS_INT) {
			n = (size_t)snprintf(
				number, sizeof(number), "%lld", (long long)tos_as_int(v, 0));
			s = (const uint8_t *)number;
		}
		text_add(&t, &t.m->n_args, NULL, s, n);
	}
	for (size_t i = 0; i < tos_len(env) && tos_type(env) == TOS_MAP; i++) {
		const char *key = tos_as_text(tos_key_at(env, i), "");
		size_t n;
		const uint8_t *s = tos_as_bytes(tos_value_at(env, i), &n);

		if (!*key || strchr(key, '='))
			return err_set(em, ERR_USAGE, "a variable's name is a text without =");
		text_add(&t, &t.m->n_env, key, s, n);
	}
	variable_add(&t, env, "PATH", "/usr/bin:/bin:/usr/sbin:/sbin");
	variable_add(&t, env, "HOME", "/tmp");
	variable_add(&t, env, "TMPDIR", "/tmp");
	variable_add(&t, env, "LANG", "C.UTF-8");
	variable_add(&t, env, "TOS_KERNEL", p->k->config.name);
	variable_add(&t, env, "TOS_CARRIER", p->carrier);
	return t.rc;
}

/* ---- which program */

/* One spelling of each: a rule that names a directory means what lies below it. */
static bool path_plain(const char *path)
{
	size_t n = strlen(path);

	return path[0] == '/' && n > 1 && n < TOSD_PATH_BYTES && path[n - 1] != '/' &&
	       !strstr(path, "//") && !strstr(path, "/./") && !strstr(path, "/../") &&
	       strcmp(path + n - 2, "/.") != 0 && (n < 3 || strcmp(path + n - 3, "/..") != 0);
}

/* A digest that was admitted as a program for a machine like this one. */
static int digest_ask(struct program *p, const struct origin *from, const struct admitted *a,
	struct errmsg *em)
{
	char hex[2 * DIGEST_BYTES + 1];
	struct utsname u;
	int rc;

	text_hex(a->digest, DIGEST_BYTES, hex);
	memcpy(p->digest, a->digest, DIGEST_BYTES);
	p->path[0] = 0;
	snprintf(p->shown, sizeof(p->shown), "%s", a->name[0] ? a->name : hex);
	if (strcmp(a->kind, "program") != 0)
		return err_set(em, ERR_DENIED, "%.16s... was admitted as %s, not as a program",
			hex, a->kind);
	if (uname(&u) == 0 && strcmp(a->machine, "any") != 0 &&
		strcmp(a->machine, u.machine) != 0)
		return err_set(em, ERR_NOT_FOUND,
			"%s is for machine %s, and this is one of type %s", p->shown,
			a->machine, u.machine);
	rc = kernel_allowed(p->k, from, "run", "admitted", "", em);
	if (rc == 0 && !content_has(p->k, a->digest))
		rc = err_set(em, ERR_NOT_FOUND,
			"%s was admitted, but its bytes are not here: FETCH them first",
			p->shown);
	return rc;
}

/* What was admitted, also where the host has a program of that name. */
#define ADMITTED "admitted:"
#define DIGEST   "sha256:"

static bool starts(const char *name, const char *with)
{
	return strncmp(name, with, strlen(with)) == 0;
}

static bool is_admitted(const char *name)
{
	return starts(name, ADMITTED) || starts(name, DIGEST);
}

/* NULL with 0: it is no digest, and nothing of that name was admitted. */
static const struct admitted *admitted_for(
	struct kernel *k, const char *name, int *rc, struct errmsg *em)
{
	const char *hex = starts(name, DIGEST) ? name + strlen(DIGEST) : NULL;
	uint8_t digest[DIGEST_BYTES];
	const struct admitted *a;
	struct utsname u;

	if (starts(name, ADMITTED))
		name += strlen(ADMITTED);
	if (!hex)
		return uname(&u) == 0 ? admitted_named(k, "program", name, u.machine) : NULL;
	if (strlen(hex) != 2 * sizeof(digest) ||
		text_unhex(hex, 2 * sizeof(digest), digest, sizeof(digest)) < 0) {
		*rc = err_set(em, ERR_USAGE, "a digest is sha256: and 64 hexadecimal digits");
		return NULL;
	}
	a = admitted_find(k, digest);
	if (!a)
		*rc = err_set(
			em, ERR_DENIED, "%.16s... was not admitted at %s", hex, k->config.name);
	return a;
}

/* A name without a slash is looked for where the system's own programs are. */
static int path_find(const char *name, char out[TOSD_PATH_BYTES], struct errmsg *em)
{
	static const char *const places[] = { "/usr/bin", "/bin", "/usr/sbin", "/sbin" };

	if (strchr(name, '/')) {
		if (!path_plain(name))
			return err_set(em, ERR_USAGE,
				"'%.200s': a program is an absolute path without . and .., or a "
				"name to be found in /usr/bin, /bin, /usr/sbin or /sbin",
				name);
		return text_copy(out, TOSD_PATH_BYTES, name, strlen(name));
	}
	for (size_t i = 0; i < ARRAY_LEN(places); i++)
		if (snprintf(out, TOSD_PATH_BYTES, "%s/%s", places[i], name) <
				TOSD_PATH_BYTES &&
			path_plain(out) && access(out, F_OK) == 0)
			return 0;
	return err_set(em, ERR_NOT_FOUND,
		"there is no program %.200s in /usr/bin, /bin, /usr/sbin or /sbin here", name);
}

static int which_ask(struct program *p, const struct origin *from, const struct tos_value *args,
	struct errmsg *em)
{
	const char *name = tos_get_text(args, "program", "");
	const struct admitted *a;
	int rc = ERR_NOT_FOUND, why = 0;

	if (!*name)
		return err_set(em, ERR_USAGE, "program is missing: a path or a name");
	/* The host's own comes first: whoever names what is downloaded must not hide it. */
	if (!is_admitted(name)) {
		rc = path_find(name, p->path, em);
		if (rc == 0) {
			snprintf(p->shown, sizeof(p->shown), "%s", p->path);
			return kernel_allowed(p->k, from, "run", p->path, "", em);
		}
		if (rc != ERR_NOT_FOUND || strchr(name, '/'))
			return rc;
	}
	a = admitted_for(p->k, name, &why, em);
	if (a || why < 0)
		return a ? digest_ask(p, from, a, em) : why;
	return is_admitted(name)
		       ? err_set(em, ERR_NOT_FOUND, "no %.200s at %s", name, p->k->config.name)
		       : rc;
}

int program_ask(struct program *p, const struct origin *from, const struct tos_value *args,
	struct errmsg *em)
{
	struct tosd_spawn_program *m;
	int rc = which_ask(p, from, args, em);

	if (rc == 0 && p->stays)
		rc = kernel_allowed(p->k, from, "stay", p->shown, "", em);
	if (rc == 0 && tos_get_bool(args, "network", false))
		rc = kernel_allowed(p->k, from, "network", p->shown, "", em);
	if (rc == 0)
		rc = limits_ask(p, tos_get(args, "limits"), em);
	if (rc < 0)
		return rc;
	m = p->spawn = mem_new(struct tosd_spawn_program);
	rc = args_ask(p, args, em);
	m->data_bytes = (uint64_t)p->limits.memory;
	/* What is only reserved does not count as memory, and runtimes reserve a lot. */
	m->address_bytes = 4 * m->data_bytes + ((uint64_t)4 << 30);
	m->file_bytes = (uint64_t)p->limits.file_size;
	m->scratch_bytes = (uint64_t)p->limits.scratch;
	m->cpu_s = (uint32_t)((p->limits.cpu_ms + 999) / 1000);
	m->processes = (uint32_t)p->limits.processes;
	m->files = (uint32_t)p->limits.files;
	m->stays = p->stays;
	m->network = tos_get_bool(args, "network", false);
	snprintf(m->label, sizeof(m->label), "%.60s", p->name[0] ? p->name : p->carrier);
	snprintf(m->path, sizeof(m->path), "%s", p->path);
	return rc;
}

/* ---- its bytes */

/* Files that were looked at, by what changes with them. */
static struct seen {
	dev_t dev;
	ino_t ino;
	off_t size;
	struct timespec mtime, ctime;
	uint8_t digest[DIGEST_BYTES];
} seen[SEEN_MAX];
static size_t next_seen;

static struct seen *seen_find(const struct stat *st)
{
	for (size_t i = 0; i < SEEN_MAX; i++) {
		struct seen *s = &seen[i];

		if (s->ino == st->st_ino && s->dev == st->st_dev && s->size == st->st_size &&
			memcmp(&s->mtime, &st->st_mtim, sizeof(s->mtime)) == 0 &&
			memcmp(&s->ctime, &st->st_ctim, sizeof(s->ctime)) == 0)
			return s;
	}
	return NULL;
}

/* A change within a tick of the clock leaves no trace: such a file is looked at anew each time. */
static void seen_add(const struct stat *st, const uint8_t digest[DIGEST_BYTES])
{
	struct seen *s = &seen[next_seen % SEEN_MAX];

	if (clock_wall_ms() - (int64_t)st->st_ctim.tv_sec * 1000 < SETTLED_MS || seen_find(st))
		return;
	next_seen++;
	*s = (struct seen){ st->st_dev, st->st_ino, st->st_size, st->st_mtim, st->st_ctim,
		{ 0 } };
	memcpy(s->digest, digest, DIGEST_BYTES);
}

struct look {
	uv_work_t work;
	struct kernel *k;
	uint64_t slot;
	char path[TOSD_PATH_BYTES], pinned[65];
	void (*done)(struct kernel *k, uint64_t slot, int fd, int rc, const char *text);
	uint8_t digest[DIGEST_BYTES];
	struct stat st;
	int fd, rc;
	bool content; /* it lies in the content store, and pinned is its name there */
	struct errmsg em;
};

static int look_open(struct look *l)
{
	if (!l->content)
		l->fd = open(l->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	if (l->fd < 0)
		return errno == ENOENT || errno == ENOTDIR
			       ? err_set(&l->em, ERR_NOT_FOUND, "there is no program %s here",
					 l->path)
			       : err_errno(&l->em, "cannot open %s", l->path);
	if (fstat(l->fd, &l->st) < 0 || !S_ISREG(l->st.st_mode) || !(l->st.st_mode & 0111))
		return err_set(&l->em, ERR_USAGE, "%s is not a program", l->path);
	if (l->st.st_size > PROGRAM_BYTES_MAX)
		return err_set(
			&l->em, ERR_TOO_LARGE, "%s is larger than a program may be", l->path);
	return 0;
}

#define LOOK_BYTES ((size_t)64 << 10)

/* In a thread: of l alone. */
static void look_work(uv_work_t *work)
{
	struct look *l = work->data;
	struct digester *d = digester_new();
	AUTOFREE char *block = mem_raw(LOOK_BYTES);
	off_t at = 0;
	ssize_t n;

	while ((n = pread(l->fd, block, LOOK_BYTES, at)) > 0 && at < PROGRAM_BYTES_MAX) {
		digester_add(d, block, (size_t)n);
		at += n;
	}
	digester_end(d, l->digest);
	digester_free(d);
	if (n < 0)
		l->rc = err_errno(&l->em, "cannot read %s", l->path);
}

static void look_end(struct look *l)
{
	char hex[2 * DIGEST_BYTES + 1];
	struct program *p;

	text_hex(l->digest, DIGEST_BYTES, hex);
	if (l->rc == 0 && l->pinned[0] && strcmp(hex, l->pinned) != 0)
		l->rc = err_set(&l->em, ERR_DIGEST,
			"%s is not what %s: its SHA-256 is %.16s..., not %.16s...", l->path,
			l->content ? "was admitted" : "policy pins", hex, l->pinned);
	p = program_by_slot(l->k, l->slot);
	if (p && l->rc == 0)
		memcpy(p->digest, l->digest, DIGEST_BYTES);
	if (l->rc < 0 && l->fd >= 0) {
		mem_close(l->fd);
		l->fd = -1;
	}
	l->done(l->k, l->slot, l->fd, l->rc, err_show(l->rc, &l->em));
	free(l);
}

static void look_worked(uv_work_t *work, int status)
{
	struct look *l = work->data;

	if (status != 0)
		l->rc = ERR_CANCELLED;
	if (l->rc == 0)
		seen_add(&l->st, l->digest);
	look_end(l);
}

static void look_later(struct kernel *k, void *arg)
{
	(void)k;
	look_end(arg);
}

/* "PATH=HEX" in the configuration. */
static const char *pin_of(const struct config *c, const char *path)
{
	size_t n = strlen(path);

	for (size_t i = 0; i < c->n_pins; i++)
		if (strncmp(c->pin[i], path, n) == 0 && c->pin[i][n] == '=')
			return c->pin[i] + n + 1;
	return "";
}

void program_look(struct program *p,
	void (*done)(struct kernel *k, uint64_t slot, int fd, int rc, const char *text))
{
	struct look *l = mem_new(struct look);
	struct seen *s;

	l->work.data = l;
	l->k = p->k;
	l->slot = p->slot;
	l->done = done;
	l->content = !p->path[0];
	snprintf(l->path, sizeof(l->path), "%s", p->shown);
	if (l->content) {
		int64_t size;

		text_hex(p->digest, DIGEST_BYTES, l->pinned);
		l->rc = content_open(p->k, p->digest, &l->fd, &size, &l->em);
	} else {
		snprintf(l->pinned, sizeof(l->pinned), "%s", pin_of(&p->k->config, p->path));
	}
	if (l->rc == 0)
		l->rc = look_open(l);
	else
		l->fd = -1;
	/* Nobody but this kernel writes below its store; what policy pins is read each time. */
	s = l->rc == 0 && (l->content || !l->pinned[0]) ? seen_find(&l->st) : NULL;
	if (s)
		memcpy(l->digest, s->digest, DIGEST_BYTES);
	if (s || l->rc < 0)
		kernel_later(p->k, look_later, l);
	else
		uv_queue_work(p->k->loop, &l->work, look_work, look_worked);
}
