/*
 * Shells before their launch (TOS figure 3): code, briefcase, path, limits and options of a
 * carrier that has not started, and the signatures under them.
 */
#include "lib/bundle.h"
#include "lib/groups.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/text.h"
#include "base/where.h"
#include "lib/home.h"
#include "lib/internal.h"
#include "lib/modules.h"
#include "seal/folders.h"
#include "wire/carrier.h"

#define SOURCE_MAX      ((size_t)16 << 20)
#define CARRIER_MAX     ((size_t)80 << 20)
#define UPLOAD_FROM     ((size_t)512 << 10) /* a larger launch goes ahead in chunks */
#define DAY_MS          ((int64_t)86400000)
#define LAUNCH_AGAIN_MS 20000 /* how long a home that went away is waited for */
#define YEAR_MS         (365 * DAY_MS)

struct tos_shell {
	char name[65];   /* of the code: "hello" */
	char entry[129]; /* its file: "hello.lua" */
	char *dir;       /* where it lay, and its modules may; NULL: nowhere */
	struct buf source;
	struct modules modules; /* what it requires, beside the entry */
	struct buf bundle;      /* signed; empty as long as nobody has signed */
	char *path;
	struct tos_value *briefcase;
	struct tos_value *sealed, *append; /* names of folders that the ticket protects */
	int64_t limits[LIMIT_COUNT];
	bool itinerant, fast;
	char on_unreachable[32];
	int64_t expires_ms; /* of the ticket, counted from the launch; 0: lifetime and a day */
};

static struct tos_shell *shell_new(void)
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

/* ---- from a source */

/* What tos-vm --check says about it, from its standard error: "file:line: reason". */
static int read_complaint(int fd, char *out, size_t cap)
{
	size_t n = 0;
	ssize_t got;

	while (n + 1 < cap && (got = read(fd, out + n, cap - 1 - n)) > 0)
		n += (size_t)got;
	while (n && isspace((unsigned char)out[n - 1]))
		n--;
	out[n] = 0;
	return (int)n;
}

/* The source on its standard input, what it says on ours to read. */
static void check_child(const char *vm, const char *shown, bool entry, int in, int err)
{
	dup2(in, STDIN_FILENO);
	dup2(err, STDERR_FILENO);
	dup2(err, STDOUT_FILENO);
	execl(vm, "tos-vm", "--check", "-", shown, entry ? (char *)NULL : "module",
		(char *)NULL);
	_exit(127);
}

static int source_as_file(const struct buf *source, struct errmsg *em)
{
	int fd = memfd_create("source", MFD_CLOEXEC);

	if (fd < 0)
		return err_errno(em, "cannot hand the source to tos-vm");
	for (size_t at = 0; at < source->len;) {
		ssize_t n = write(fd, source->data + at, source->len - at);

		if (n <= 0) {
			close(fd);
			return err_errno(em, "cannot hand the source to tos-vm");
		}
		at += (size_t)n;
	}
	lseek(fd, 0, SEEK_SET);
	return fd;
}

/* shown: the name that stands in front of the line number. */
int syntax_check(const struct buf *source, const char *shown, bool entry, struct errmsg *em)
{
	char vm[4096], text[400];
	AUTOCLOSE int in = -1;
	int ends[2], status = 0;
	pid_t pid;

	if (where_program("tos-vm", vm, sizeof(vm)) < 0)
		return err_set(em, ERR_NOT_FOUND,
			"tos-vm is not installed beside this program, so the "
			"syntax of %s cannot be checked",
			shown);
	in = source_as_file(source, em);
	if (in < 0)
		return ERR_IO;
	if (pipe2(ends, O_CLOEXEC) < 0)
		return err_errno(em, "cannot start tos-vm");
	pid = fork();
	if (pid == 0)
		check_child(vm, shown, entry, in, ends[1]);
	close(ends[1]);
	read_complaint(ends[0], text, sizeof(text));
	close(ends[0]);
	if (pid < 0 || waitpid(pid, &status, 0) < 0)
		return err_errno(em, "cannot start tos-vm");
	if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
		return 0;
	if (!*text)
		return err_set(em, ERR_SANDBOX, "tos-vm --check of %s ended with status %d",
			shown, status);
	return err_set(em, ERR_SYNTAX, "%s", text);
}

/* "dir/hello.lua" -> "hello": what people see; letters that names don't have become '-'. */
static void name_from_path(const char *path, char out[65])
{
	const char *base = strrchr(path, '/');
	size_t n = 0;

	for (base = base ? base + 1 : path; *base && *base != '.' && n < 63; base++)
		out[n++] = isalnum((unsigned char)*base) || *base == '_' ? *base : '-';
	out[n] = 0;
	if (!n)
		snprintf(out, 65, "carrier");
}

static int source_take(
	struct tos_shell *s, const char *name, const void *p, size_t n, struct errmsg *em)
{
	if (!text_utf8(p, n))
		return err_set(em, ERR_SYNTAX,
			"%s is not a text in UTF-8; carriers are Lua sources", name);
	name_from_path(name, s->name);
	snprintf(s->entry, sizeof(s->entry), "%s.lua", s->name);
	return buf_add(&s->source, p, n);
}

/* malloc'ed. */
static char *folder_of(const char *path)
{
	const char *slash = strrchr(path, '/');
	char *dir = mem_strdup(slash ? path : ".");

	if (slash)
		dir[slash == path ? 1 : slash - path] = 0;
	return dir;
}

int tos_shell_file(const char *path, struct tos_shell **out, struct tos_error *err)
{
	struct errmsg *em = em_of(err);
	struct tos_shell *s = shell_new();
	AUTOBUF text = BUF_INIT;
	int rc = bytes_read(path, SOURCE_MAX, &text, em);

	if (rc == 0)
		rc = source_take(s, path, text.data, text.len, em);
	if (rc == 0)
		rc = syntax_check(&s->source, path, true, em);
	if (rc == 0) {
		s->dir = folder_of(path);
		rc = modules_gather(&s->modules, s->dir, s->entry, path, &s->source, em);
	}
	if (rc < 0) {
		tos_shell_free(s);
		return rc;
	}
	*out = s;
	return 0;
}

int tos_shell_source(const char *name, const char *source, size_t n, struct tos_shell **out,
	struct tos_error *err)
{
	struct tos_shell *s = shell_new();
	int rc = source_take(s, name, source, n, em_of(err));

	if (rc == 0)
		rc = syntax_check(&s->source, name, true, em_of(err));
	if (rc == 0)
		rc = modules_gather(&s->modules, NULL, s->entry, name, &s->source, em_of(err));
	if (rc < 0) {
		tos_shell_free(s);
		return rc;
	}
	*out = s;
	return 0;
}

/* A signature is under what was there, so it can't be added to. */
static int open_code(struct tos_shell *s, struct errmsg *em)
{
	if (!s->source.len)
		return err_set(em, ERR_STATE, "its code is signed, and takes no more files");
	buf_clear(&s->bundle);
	return 0;
}

int tos_shell_module(struct tos_shell *s, const char *name, struct tos_error *err)
{
	int rc = open_code(s, em_of(err));

	return rc ? rc : modules_add(&s->modules, s->dir, s->entry, name, em_of(err));
}

int tos_shell_add_file(
	struct tos_shell *s, const char *file, const void *p, size_t n, struct tos_error *err)
{
	int rc = open_code(s, em_of(err));

	if (rc == 0 && !bundle_file_ok(file))
		rc = err_set(em_of(err), ERR_NAME, "a bundle can hold no file %s", file);
	for (size_t i = 0; rc == 0 && i <= s->modules.n; i++)
		if (strcmp(i ? s->modules.v[i - 1].file : s->entry, file) == 0)
			rc = err_set(
				em_of(err), ERR_EXISTS, "there is a file %s already", file);
	return rc ? rc : modules_add_file(&s->modules, file, p, n, em_of(err));
}

static int take_file(
	struct tos_shell *s, const char *file, const struct buf *text, struct errmsg *em)
{
	for (size_t i = 0; i <= s->modules.n; i++) {
		const struct buf *own = i ? &s->modules.v[i - 1].text : &s->source;

		if (strcmp(i ? s->modules.v[i - 1].file : s->entry, file) != 0)
			continue;
		if (own->len == text->len && memcmp(own->data, text->data, text->len) == 0)
			return 0;
		return err_set(em, ERR_EXISTS,
			"%s has a file %s of its own; call yours otherwise", s->name, file);
	}
	return modules_add_file(&s->modules, file, text->data, text->len, em);
}

int shell_take(struct tos_shell *s, const char *path, char module[129], struct errmsg *em)
{
	struct tos_shell *other = NULL;
	int rc = tos_shell_file(path, &other, public_of(em));

	rc = rc ? rc : open_code(s, em);
	rc = rc ? rc : take_file(s, other->entry, &other->source, em);
	for (size_t i = 0; rc == 0 && i < other->modules.n; i++)
		rc = take_file(s, other->modules.v[i].file, &other->modules.v[i].text, em);
	if (rc == 0)
		snprintf(module, 129, "%s", other->name);
	tos_shell_free(other);
	return rc;
}

/* ---- properties */

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

static bool named_in(const struct tos_value *names, const char *name)
{
	for (size_t i = 0; i < tos_len(names); i++)
		if (strcmp(tos_as_text(tos_at(names, i), ""), name) == 0)
			return true;
	return false;
}

/* A folder is sealed as it is at the launch, so it must be there by then; one that may only grow
 * need not. */
static int protect_folder(
	struct tos_shell *s, struct tos_value *names, const char *name, struct errmsg *em)
{
	static const char *const reserved[] = { "PATH", "HOST", "CODE", "X-CODE" };

	if (!name || strlen(name) > FOLDER_NAME_MAX)
		return err_set(em, ERR_NAME, "which folder? its name has at most %d bytes",
			FOLDER_NAME_MAX);
	for (const char *p = name; *p; p++)
		if (*p < 0x20 || *p > 0x7e)
			return err_set(em, ERR_NAME, "a folder's name is printable ASCII");
	for (size_t i = 0; i < ARRAY_LEN(reserved); i++)
		if (strcmp(name, reserved[i]) == 0)
			return err_set(em, ERR_NAME,
				"folder %s is a view on the path or the code, which have signatures of their own",
				name);
	if (named_in(names, name))
		return 0;
	if (named_in(s->sealed, name) || named_in(s->append, name))
		return err_set(em, ERR_USAGE,
			"folder %s can be sealed or append-only, not both", name);
	if (tos_len(names) >= PROTECTED_FOLDERS_MAX)
		return err_set(em, ERR_LIMIT, "at most %d folders can be protected in that way",
			PROTECTED_FOLDERS_MAX);
	return tos_push(names, tos_text(name));
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
		return protect_folder(s, s->sealed, value, em);
	else if (strcmp(name, "append-only") == 0)
		return protect_folder(s, s->append, value, em);
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

/* ---- the author's signature */

static int manifest_make(struct tos_shell *s, const struct signer *author, struct buf *out)
{
	struct manifest m;

	memset(&m, 0, sizeof(m));
	snprintf(m.name, sizeof(m.name), "%s", s->name);
	snprintf(m.version, sizeof(m.version), "1");
	snprintf(m.runtime, sizeof(m.runtime), "lua5.4");
	snprintf(m.entry, sizeof(m.entry), "%s", s->entry);
	m.n_files = s->modules.n + 1;
	m.files = mem_zero(m.n_files * sizeof(*m.files));
	for (size_t i = 0; i < m.n_files; i++) {
		const struct buf *text = i ? &s->modules.v[i - 1].text : &s->source;

		snprintf(m.files[i].name, sizeof(m.files[i].name), "%s",
			i ? s->modules.v[i - 1].file : s->entry);
		digest_bytes(text->data, text->len, m.files[i].digest);
	}
	for (size_t i = 0; i < LIMIT_COUNT; i++)
		m.limits[i] = -1; /* the author asks for nothing special; the ticket states them
				     all */
	m.issued_ms = clock_wall_ms();
	m.expires_ms = m.issued_ms + YEAR_MS;
	if (m.expires_ms > author->info.not_after_ms)
		m.expires_ms = author->info.not_after_ms;
	manifest_encode(out, &m);
	manifest_fini(&m);
	return buf_check(out);
}

/* The files under this manifest. */
static int bundle_put(const struct tos_shell *s, struct slice cose, struct buf *out)
{
	struct slice names[MODULES_MAX + 1], contents[MODULES_MAX + 1];

	for (size_t i = 0; i <= s->modules.n; i++) {
		const char *name = i ? s->modules.v[i - 1].file : s->entry;
		const struct buf *text = i ? &s->modules.v[i - 1].text : &s->source;

		names[i] = (struct slice){ (const uint8_t *)name, strlen(name) };
		contents[i] = (struct slice){ text->data, text->len };
	}
	bundle_encode(out, cose, names, contents, s->modules.n + 1);
	return buf_check(out);
}

int tos_shell_sign(
	struct tos_shell *s, const struct tos_principal *author, struct tos_error *err)
{
	const struct signer *a = principal_signer(author);
	struct errmsg *em = em_of(err);
	AUTOBUF manifest = BUF_INIT;
	AUTOBUF cose = BUF_INIT;
	int rc;

	if (!s->source.len)
		return err_set(em, ERR_STATE,
			s->bundle.len ? "it is signed already" : "it has no code");
	if (!(a->info.roles & ROLE_AUTHOR))
		return err_set(em, ERR_DENIED,
			"%s may not sign code: its certificate lacks the role author",
			a->info.name);
	rc = manifest_make(s, a, &manifest);
	if (rc == 0)
		rc = cose_sign(a, "manifest", (struct slice){ manifest.data, manifest.len },
			&cose, em);
	if (rc < 0)
		return err_wrap(em, rc, "signing the code");
	buf_clear(&s->bundle);
	return bundle_put(s, (struct slice){ cose.data, cose.len }, &s->bundle);
}

/* ---- files: a bundle as it is, or everything: ["tos-carrier", 1, {...}] */

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
		if (protect_folder(s, s->sealed,
			    tos_as_text(tos_at(tos_get(v, "sealed"), i), NULL), NULL) < 0)
			return ERR_MALFORMED;
	for (size_t i = 0; i < tos_len(tos_get(v, "append")); i++)
		if (protect_folder(s, s->append,
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

struct slice shell_bundle(const struct tos_shell *s)
{
	return (struct slice){ s->bundle.data, s->bundle.len };
}

/* ---- what others are told of it */

void shell_limits(const struct tos_shell *s, int64_t out[LIMIT_COUNT])
{
	memcpy(out, s->limits, sizeof(s->limits));
}

/* The manifest's entry of a bundle that was loaded. */
static int entry_of(const struct tos_shell *s, char out[129], struct errmsg *em)
{
	struct bundle *b = mem_new(struct bundle);
	struct manifest m;
	struct cose cose;
	int rc = bundle_decode((struct slice){ s->bundle.data, s->bundle.len }, b, em);

	rc = rc ? rc : cose_decode(b->manifest_cose, &cose, em);
	rc = rc ? rc : manifest_decode(cose.payload, &m, em);
	free(b);
	if (rc < 0)
		return rc;
	snprintf(out, 129, "%s", m.entry);
	if (strncmp(m.runtime, "lua", 3) != 0)
		rc = err_set(
			em, ERR_UNSUPPORTED, "its runtime %s is not known here", m.runtime);
	manifest_fini(&m);
	return rc;
}

/* The code as it is, or the source under a signature that nobody made: a tos-vm checks none. */
static int start_code(const struct tos_shell *s, struct tos_value *v, struct errmsg *em)
{
	struct slice none = { s->source.data, 1 };
	struct buf b = BUF_MAX(CARRIER_MAX);
	char entry[129];
	int rc;

	if (!s->source.len) {
		rc = entry_of(s, entry, em);
		rc = rc ? rc : tos_set(v, "entry", tos_text(entry));
		return rc ? rc : tos_set(v, "bundle", tos_bytes(s->bundle.data, s->bundle.len));
	}
	rc = bundle_put(s, none, &b);
	rc = rc ? rc : tos_set(v, "entry", tos_text(s->entry));
	rc = rc ? rc : tos_set(v, "bundle", tos_bytes(b.data, b.len));
	buf_fini(&b);
	return rc;
}

static int start_seals(const struct tos_shell *s, struct tos_value *v)
{
	struct tos_value *m = tos_map();
	int rc = 0;

	for (size_t i = 0; rc == 0 && i < tos_len(s->sealed); i++)
		rc = tos_set(m, tos_as_text(tos_at(s->sealed, i), ""), tos_text("sealed"));
	for (size_t i = 0; rc == 0 && i < tos_len(s->append); i++)
		rc = tos_set(m, tos_as_text(tos_at(s->append, i), ""), tos_text("append"));
	rc = rc ? rc : tos_set(v, "seals", STEAL(m));
	tos_value_free(m);
	return rc;
}

int shell_start(const struct tos_shell *s, const char *name, const char *place, struct buf *out,
	struct errmsg *em)
{
	struct tos_value *v = tos_map(), *limits = tos_map(), *path = NULL;
	uint8_t *p = NULL;
	size_t n = 0;
	int rc = path_entries(s->path, NULL, NULL, &path, em);

	for (size_t i = 0; rc == 0 && i < LIMIT_COUNT; i++)
		rc = tos_set(limits, limit_names[i], tos_int(s->limits[i]));
	rc = rc ? rc : tos_set(v, "path", STEAL(path));
	rc = rc ? rc : tos_set(v, "limits", STEAL(limits));
	rc = rc ? rc : start_seals(s, v);
	rc = rc ? rc : tos_set(v, "briefcase", tos_value_copy(s->briefcase));
	rc = rc ? rc : tos_set(v, "begun", tos_bool(false));
	rc = rc ? rc : tos_set(v, "cpu_us", tos_int(0));
	rc = rc ? rc : tos_set(v, "function", tos_text("begin"));
	rc = rc ? rc : tos_set(v, "home", tos_text(place));
	rc = rc ? rc : tos_set(v, "kernel", tos_text(place));
	rc = rc ? rc : tos_set(v, "name", tos_text(name));
	rc = rc ? rc : tos_set(v, "owner", tos_text(place));
	rc = rc ? rc : tos_set(v, "state", tos_bytes("", 0));
	rc = rc ? rc : tos_set(v, "usage", tos_map());
	rc = rc ? rc : start_code(s, v, em);
	rc = rc ? rc : tos_encode(v, &p, &n);
	if (rc == 0)
		cbor_put_raw(out, (struct slice){ p, n });
	free(p);
	tos_value_free(path);
	tos_value_free(limits);
	tos_value_free(v);
	return rc;
}

static int part_add(struct tos_value *parts, const char *name, const void *p, size_t n)
{
	char hex[2 * DIGEST_BYTES + 1];
	uint8_t digest[DIGEST_BYTES];
	struct tos_value *v = tos_map();
	int rc;

	digest_bytes(p, n, digest);
	rc = tos_set(v, "part", tos_text(name));
	rc = rc ? rc : tos_set(v, "bytes", tos_int((int64_t)n));
	rc = rc ? rc : tos_set(v, "sha256", tos_text(text_hex(digest, sizeof(digest), hex)));
	if (rc == 0)
		return tos_push(parts, v);
	tos_value_free(v);
	return rc;
}

static int part_value(struct tos_value *parts, const char *name, const struct tos_value *v)
{
	uint8_t *p = NULL;
	size_t n = 0;
	int rc = tos_encode(v, &p, &n);

	rc = rc ? rc : part_add(parts, name, p, n);
	free(p);
	return rc;
}

/* Encoded elements of a folder of the briefcase, malloc'ed; an empty array where it is not. */
static int folder_encode_elements(
	const struct tos_shell *s, const char *folder, uint8_t **p, size_t *n)
{
	const struct tos_value *elements = tos_get(s->briefcase, folder);
	struct tos_value *none = elements ? NULL : tos_array();
	int rc = tos_encode(elements ? elements : none, p, n);

	tos_value_free(none);
	return rc;
}

/* {folder: digest} of what is sealed; NULL for none. */
static int sealed_digests(const struct tos_shell *s, struct tos_value **out, struct errmsg *em)
{
	struct tos_value *m = tos_len(s->sealed) ? tos_map() : NULL;
	int rc = 0;

	for (size_t i = 0; rc == 0 && i < tos_len(s->sealed); i++) {
		const char *name = tos_as_text(tos_at(s->sealed, i), "");
		uint8_t digest[DIGEST_BYTES], *p = NULL;
		size_t n = 0;

		if (!tos_get(s->briefcase, name))
			rc = err_set(em, ERR_NOT_FOUND,
				"there is no folder %s to seal; --data or --briefcase brings one",
				name);
		rc = rc ? rc : folder_encode_elements(s, name, &p, &n);
		if (rc == 0) {
			folder_digest((struct slice){ (const uint8_t *)name, strlen(name) },
				(struct slice){ p, n }, digest);
			rc = tos_set(m, name, tos_bytes(digest, sizeof(digest)));
		}
		free(p);
	}
	if (rc < 0)
		tos_value_free(m);
	else
		*out = m;
	return rc;
}

/* {folder: [count, head]} of what may only grow; NULL for none. */
static int append_heads(const struct tos_shell *s, struct tos_value **out)
{
	struct tos_value *m = tos_len(s->append) ? tos_map() : NULL;
	int rc = 0;

	for (size_t i = 0; rc == 0 && i < tos_len(s->append); i++) {
		const char *name = tos_as_text(tos_at(s->append, i), "");
		struct growth g;
		uint8_t *p = NULL;
		size_t n = 0;

		rc = folder_encode_elements(s, name, &p, &n);
		if (rc == 0) {
			folder_growth((struct slice){ (const uint8_t *)name, strlen(name) },
				(struct slice){ p, n }, &g);
			rc = tos_set(m, name, growth_value(&g));
		}
		free(p);
	}
	if (rc < 0)
		tos_value_free(m);
	else
		*out = m;
	return rc;
}

/* For people: digests in hexadecimal. */
static int describe_seals(const struct tos_shell *s, struct tos_value *v)
{
	struct tos_value *sealed = NULL, *shown = tos_map();
	int rc = sealed_digests(s, &sealed, NULL);

	for (size_t i = 0; rc == 0 && i < tos_len(sealed); i++) {
		char hex[2 * DIGEST_BYTES + 1];
		size_t n;
		const uint8_t *p = tos_as_bytes(tos_value_at(sealed, i), &n);

		rc = tos_set_value(shown, tos_value_copy(tos_key_at(sealed, i)),
			tos_text(text_hex(p, n, hex)));
	}
	tos_value_free(sealed);
	rc = rc ? rc : tos_set(v, "sealed", STEAL(shown));
	tos_value_free(shown);
	return rc ? rc : tos_set(v, "append_only", tos_value_copy(s->append));
}

static int describe_properties(const struct tos_shell *s, struct tos_value *v)
{
	struct tos_value *folders = tos_map(), *limits = tos_map();
	int rc = 0;

	for (size_t i = 0; rc == 0 && i < tos_len(s->briefcase); i++)
		rc = tos_set_value(folders, tos_value_copy(tos_key_at(s->briefcase, i)),
			tos_int((int64_t)tos_len(tos_value_at(s->briefcase, i))));
	for (size_t i = 0; rc == 0 && i < LIMIT_COUNT; i++)
		if (s->limits[i] != limit_defaults[i])
			rc = tos_set(limits, limit_names[i], tos_int(s->limits[i]));
	rc = rc ? rc : tos_set(v, "folders", STEAL(folders));
	rc = rc ? rc : tos_set(v, "limits", STEAL(limits));
	rc = rc ? rc : tos_set(v, "path", tos_text(s->path));
	rc = rc ? rc : tos_set(v, "on-unreachable", tos_text(s->on_unreachable));
	rc = rc ? rc : tos_set(v, "itinerant", tos_bool(s->itinerant));
	tos_value_free(folders);
	tos_value_free(limits);
	return rc;
}

int shell_describe(const struct tos_shell *s, struct tos_value **out, struct errmsg *em)
{
	struct tos_value *v = tos_map(), *parts = tos_array(), *path = NULL;
	const struct buf *code = s->bundle.len ? &s->bundle : &s->source;
	int rc = path_entries(s->path, NULL, NULL, &path, em);

	rc = rc ? rc : part_add(parts, "code", code->data, code->len);
	rc = rc ? rc : part_value(parts, "path", path);
	rc = rc ? rc : part_value(parts, "data", s->briefcase);
	rc = rc ? rc : tos_set(v, "parts", STEAL(parts));
	rc = rc ? rc : describe_properties(s, v);
	rc = rc ? rc : describe_seals(s, v);
	tos_value_free(parts);
	tos_value_free(path);
	if (rc < 0)
		tos_value_free(v);
	else
		*out = v;
	return rc;
}

/* ---- the owner's ticket, and the launch */

static int ask_one(struct tos_connection *c, const char *verb, struct tos_value *args,
	struct tos_value **out, struct errmsg *em)
{
	struct tos_value *elements = tos_array(), *answer = NULL;
	int rc = tos_push(elements, args ? args : tos_map());

	if (rc == 0)
		rc = tos_ask(c, "Control", verb, elements, 30000, NULL, &answer, public_of(em));
	tos_value_free(elements);
	if (rc == 0)
		*out = tos_take_at(answer, 0);
	tos_value_free(answer);
	if (rc == 0 && !*out)
		return err_set(em, ERR_MALFORMED, "the kernel's answer to %s is empty", verb);
	return rc;
}

int connection_kernels(struct tos_connection *c, struct names *out, struct errmsg *em)
{
	struct tos_value *list = NULL;
	int rc = ask_one(c, "KERNELS", NULL, &list, em);

	if (rc == 0)
		rc = names_add(out, tos_connection_kernel(c));
	for (size_t i = 0; rc == 0 && i < tos_len(list); i++) {
		const char *name = tos_get_text(tos_at(list, i), "name", "");

		if (*name && strcmp(name, tos_connection_kernel(c)) != 0)
			rc = names_add(out, name);
	}
	if (rc == 0 && out->n)
		qsort(out->v, out->n, sizeof(*out->v), names_compare);
	tos_value_free(list);
	return rc;
}

/* With every group expanded. */
static int path_members(const char *path, struct tos_connection *c, const struct names *all,
	struct tos_value **out, struct errmsg *em)
{
	struct groups groups = { .value = NULL };
	int rc = strchr(path, '@') ? groups_find(c, &groups, em) : 0;

	rc = rc ? rc : path_entries(path, &groups, all, out, em);
	groups_fini(&groups);
	return rc;
}

int shell_unknown_hosts(const struct tos_shell *s, struct tos_connection *c,
	struct buf *unknown, struct buf *known, struct errmsg *em)
{
	struct names all = { NULL, 0 };
	struct tos_value *entries = NULL;
	int rc = *s->path ? connection_kernels(c, &all, em) : 0;

	if (rc == 0 && *s->path)
		rc = path_members(s->path, c, &all, &entries, em);
	for (size_t i = 0; rc == 0 && i < tos_len(entries); i++) {
		char name[64];

		for (unsigned k = 0;
			path_alternative(tos_as_text(tos_at(entries, i), ""), k, name); k++) {
			bool found = false;

			for (size_t j = 0; j < all.n; j++)
				found = found || strcmp(all.v[j], name) == 0;
			if (!found)
				buf_printf(unknown, "%s%s", unknown->len ? ", " : "", name);
		}
	}
	for (size_t j = 0; j < all.n; j++)
		buf_printf(known, "%s%s", known->len ? ", " : "", all.v[j]);
	tos_value_free(entries);
	names_fini(&all);
	return rc;
}

int path_expand(
	const char *path, struct tos_connection *c, struct tos_value **out, struct errmsg *em)
{
	struct names all = { NULL, 0 };
	int rc = strchr(path, '@') ? connection_kernels(c, &all, em) : 0;

	if (rc == 0)
		rc = path_members(path, c, &all, out, em);
	names_fini(&all);
	return rc;
}

static int64_t ticket_expiry(const struct tos_shell *s, const struct signer *owner, int64_t now)
{
	int64_t at = now + (s->expires_ms ? s->expires_ms : s->limits[LIMIT_lifetime] + DAY_MS);

	return at > owner->info.not_after_ms ? owner->info.not_after_ms : at;
}

/* What NAME answered goes in: the home chose the name and the nonce. */
static int ticket_make(const struct tos_shell *s, struct tos_connection *c,
	const struct signer *owner, const struct tos_value *named, struct slice briefcase,
	struct buf *out, struct errmsg *em)
{
	struct ticket t;
	size_t n = 0;
	const uint8_t *nonce = tos_get_bytes(named, "nonce", &n);
	int rc;

	memset(&t, 0, sizeof(t));
	if (n != sizeof(t.nonce))
		return err_set(em, ERR_MALFORMED, "the kernel gave no nonce for the ticket");
	memcpy(t.nonce, nonce, n);
	snprintf(t.name, sizeof(t.name), "%s", tos_get_text(named, "name", ""));
	snprintf(t.home, sizeof(t.home), "%s", tos_connection_kernel(c));
	digest_bytes(s->bundle.data, s->bundle.len, t.code);
	digest_bytes(briefcase.p, briefcase.n, t.briefcase);
	t.itinerant = s->itinerant;
	t.fast = s->fast;
	snprintf(t.on_unreachable, sizeof(t.on_unreachable), "%s", s->on_unreachable);
	memcpy(t.limits, s->limits, sizeof(t.limits));
	t.issued_ms = clock_wall_ms();
	t.expires_ms = ticket_expiry(s, owner, t.issued_ms);
	rc = path_expand(s->path, c, &t.path, em);
	rc = rc ? rc : sealed_digests(s, &t.sealed, em);
	rc = rc ? rc : append_heads(s, &t.append);
	if (rc == 0) {
		AUTOBUF payload = BUF_INIT;

		ticket_encode(&payload, &t);
		rc = buf_check(&payload);
		if (rc == 0)
			rc = cose_sign(owner, "ticket",
				(struct slice){ payload.data, payload.len }, out, em);
	}
	ticket_fini(&t);
	return rc;
}

static int launch_args(const struct tos_shell *s, struct tos_connection *c,
	const struct buf *ticket, struct slice briefcase, struct tos_value **out,
	struct errmsg *em)
{
	uint8_t digest[DIGEST_BYTES];
	struct tos_value *args = tos_map();
	int rc = tos_set(args, "ticket", tos_bytes(ticket->data, ticket->len));

	if (s->bundle.len + briefcase.n + ticket->len > UPLOAD_FROM) {
		digest_bytes(s->bundle.data, s->bundle.len, digest);
		if (rc == 0)
			rc = connection_upload(c, digest, s->bundle.data, s->bundle.len, em);
		digest_bytes(briefcase.p, briefcase.n, digest);
		if (rc == 0)
			rc = connection_upload(c, digest, briefcase.p, briefcase.n, em);
	} else {
		rc = rc ? rc : tos_set(args, "code", tos_bytes(s->bundle.data, s->bundle.len));
		rc = rc ? rc : tos_set(args, "briefcase", tos_bytes(briefcase.p, briefcase.n));
	}
	if (rc < 0)
		tos_value_free(args);
	else
		*out = args;
	return rc;
}

/* A name and a ticket for it; then the launch, once. */
static int launch_name(const struct tos_shell *s, struct tos_connection *c,
	const struct signer *owner, struct slice briefcase, struct buf *ticket, char name[129],
	struct errmsg *em)
{
	struct tos_value *named = NULL;
	int rc = ask_one(c, "NAME", NULL, &named, em);

	if (rc == 0) {
		buf_fini(ticket);
		*ticket = (struct buf)BUF_INIT;
		rc = ticket_make(s, c, owner, named, briefcase, ticket, em);
	}
	if (rc == 0)
		snprintf(name, 129, "%s", tos_get_text(named, "name", ""));
	tos_value_free(named);
	return rc;
}

static int launch_once(const struct tos_shell *s, struct tos_connection *c,
	const struct buf *ticket, struct slice briefcase, struct errmsg *em)
{
	struct tos_value *args = NULL, *launched = NULL;
	int rc = launch_args(s, c, ticket, briefcase, &args, em);

	if (rc == 0)
		rc = ask_one(c, "LAUNCH", args, &launched, em);
	tos_value_free(launched);
	return rc;
}

static bool kernel_went(int rc)
{
	return rc == ERR_CLOSED || rc == ERR_UNREACHABLE;
}

/* The kernel went away before it had answered: it may have the carrier or not. The same ticket
 * again finds out, and cannot launch twice: one that has it answers with its name, one that has
 * not does not know the ticket's nonce any more, and then there is a new one. */
static int launch_again(const struct tos_shell *s, struct tos_connection *c,
	const struct signer *owner, struct slice briefcase, struct buf *ticket, char name[129],
	struct errmsg *em)
{
	int64_t until = clock_ms() + LAUNCH_AGAIN_MS;
	const struct timespec pause = { 0, 50000000 };
	int rc;

	do {
		nanosleep(&pause, NULL);
		rc = connection_again(c, 2000, em);
		if (rc == 0)
			rc = launch_once(s, c, ticket, briefcase, em);
		if (rc == ERR_REPLAY) {
			rc = launch_name(s, c, owner, briefcase, ticket, name, em);
			if (rc == 0)
				rc = launch_once(s, c, ticket, briefcase, em);
		}
	} while ((kernel_went(rc) || rc == ERR_STATE) && clock_ms() < until);
	return rc;
}

static int launch_with(struct tos_shell *s, struct tos_connection *c,
	const struct signer *owner, struct slice briefcase, char name[129], struct errmsg *em)
{
	AUTOBUF ticket = BUF_INIT;
	char given[129] = "";
	int rc = launch_name(s, c, owner, briefcase, &ticket, given, em);

	if (rc == 0) {
		rc = launch_once(s, c, &ticket, briefcase, em);
		if (kernel_went(rc))
			rc = launch_again(s, c, owner, briefcase, &ticket, given, em);
		if (kernel_went(rc) || rc == ERR_TIMEOUT)
			return err_set(em, rc,
				"%s has not answered: tos show %s says whether the carrier was launched",
				tos_connection_kernel(c), given);
	}
	if (rc == 0)
		snprintf(name, 129, "%s", given);
	return rc;
}

int tos_shell_launch(struct tos_shell *s, struct tos_connection *c,
	const struct tos_principal *owner, char name[129], struct tos_error *err)
{
	const struct signer *o = principal_signer(owner);
	struct errmsg *em = em_of(err);
	uint8_t *briefcase = NULL;
	size_t n = 0;
	int rc = 0;

	if (!(o->info.roles & ROLE_OWNER))
		return err_set(em, ERR_DENIED,
			"%s may not launch: its certificate lacks the role owner",
			o->info.name);
	if (!s->bundle.len)
		rc = tos_shell_sign(s, owner, err);
	if (rc == 0)
		rc = tos_encode(s->briefcase, &briefcase, &n);
	if (rc == 0)
		rc = launch_with(s, c, o, (struct slice){ briefcase, n }, name, em);
	free(briefcase);
	return rc;
}
