/*
 * A shell from Lua sources, which a tos-vm checks: a file or text, the modules that it requires, and what
 * is added by name.
 */
#include "lib/shell.h"

#include <ctype.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/mem.h"
#include "base/text.h"
#include "base/where.h"
#include "lib/home.h"
#include "lib/internal.h"

#define SOURCE_MAX ((size_t)16 << 20)

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
