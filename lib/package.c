/*
 * Packages of extensions: made of shared objects or a Lua file, signed with an officer's key, and
 * sent to kernels. What an extension declares is read by tos-ext --describe, a process of ours: a
 * shared object is loaded for that, not started.
 */
#include "lib/package.h"

#include <ctype.h>
#include <dirent.h>
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/text.h"
#include "base/where.h"
#include "lib/domain.h"
#include "lib/home.h"
#include "lib/internal.h"
#include "seal/package.h"

#define DESCRIBE_MS     20000
#define DESCRIPTION_MAX ((size_t)1 << 20)
#define YEAR_MS         ((int64_t)365 * 86400000)
#define PARTS_MAX       16

struct parts {
	struct package_part part[PARTS_MAX];
	struct buf content[PARTS_MAX];
	char path[PARTS_MAX][HOME_PATH_MAX];
	size_t n;
	int here; /* the one for this machine; -1 */
	bool lua;
};

/* ---- what it declares */

static int read_all(int fd, struct buf *out, struct errmsg *em)
{
	int64_t deadline = clock_ms() + DESCRIBE_MS;
	uint8_t bytes[8192];

	for (;;) {
		struct pollfd p = { .fd = fd, .events = POLLIN };
		int64_t left = deadline - clock_ms();
		ssize_t n;

		if (left <= 0 || poll(&p, 1, (int)left) == 0)
			return err_set(
				em, ERR_TIMEOUT, "tos-ext does not say what it declares");
		n = read(fd, bytes, sizeof(bytes));
		if (n == 0)
			return 0;
		if (n < 0 && errno != EINTR)
			return err_errno(em, "cannot read what it declares");
		if (n > 0 && buf_add(out, bytes, (size_t)n) < 0)
			return err_set(em, ERR_TOO_LARGE, "it declares too much");
	}
}

static pid_t describer(const char *path, int out, int err)
{
	char program[HOME_PATH_MAX], full[PATH_MAX]; /* a name alone is looked for elsewhere */
	pid_t pid;

	if (where_program("tos-ext", program, sizeof(program)) < 0 || !realpath(path, full))
		return ERR_NOT_FOUND;
	pid = fork();
	if (pid == 0) {
		dup2(out, STDOUT_FILENO);
		dup2(err, STDERR_FILENO);
		execl(program, "tos-ext", "--describe", full, (char *)NULL);
		_exit(127);
	}
	return pid < 0 ? ERR_IO : pid;
}

/* The last line that it wrote is why. */
static int describe_failed(const char *path, struct buf *said, int status, struct errmsg *em)
{
	char *text = (char *)(uintptr_t)buf_cstr(said), *line;
	size_t n = strlen(text);

	while (n && isspace((unsigned char)text[n - 1]))
		text[--n] = 0;
	line = strrchr(text, '\n');
	return err_set(em, ERR_MALFORMED, "%s is no extension: %s", path,
		line         ? line + 1
		: *text      ? text
		: status > 0 ? "tos-ext failed"
			     : "tos-ext is not installed beside this program");
}

static int describe_file(const char *path, struct tos_value **out, struct errmsg *em)
{
	AUTOBUF bytes = BUF_MAX(DESCRIPTION_MAX);
	AUTOBUF said = BUF_MAX(65536);
	int said_what[2], said_why[2], status = -1, rc;
	pid_t pid;

	if (pipe2(said_what, O_CLOEXEC) < 0)
		return err_errno(em, "cannot make a pipe");
	if (pipe2(said_why, O_CLOEXEC) < 0) {
		mem_close(said_what[0]);
		mem_close(said_what[1]);
		return err_errno(em, "cannot make a pipe");
	}
	pid = describer(path, said_what[1], said_why[1]);
	mem_close(said_what[1]);
	mem_close(said_why[1]);
	rc = pid < 0 ? pid : read_all(said_what[0], &bytes, em);
	if (rc == 0)
		rc = read_all(said_why[0], &said, em);
	mem_close(said_what[0]);
	mem_close(said_why[0]);
	if (pid > 0) {
		if (rc < 0)
			kill(pid, SIGKILL);
		waitpid(pid, &status, 0);
	}
	if (rc < 0 && pid > 0)
		return rc;
	if (rc < 0 || status != 0)
		return describe_failed(path, &said, status, em);
	return tos_decode(bytes.data, bytes.len, DESCRIPTION_MAX, out);
}

/* ---- reading the files */

/* What uname -m calls the machine of an ELF file; NULL: none that we know. */
static const char *machine_of(struct slice s)
{
	static const struct {
		unsigned number;
		const char *name;
	} known[] = { { EM_X86_64, "x86_64" }, { EM_AARCH64, "aarch64" }, { EM_386, "i686" },
		{ EM_ARM, "armv7l" }, { EM_RISCV, "riscv64" }, { EM_PPC64, "ppc64le" },
		{ EM_S390, "s390x" } };
	unsigned number;

	if (s.n < sizeof(Elf32_Ehdr) || memcmp(s.p, ELFMAG, SELFMAG) != 0)
		return NULL;
	number = s.p[EI_DATA] == ELFDATA2MSB ? (unsigned)s.p[18] << 8 | s.p[19]
					     : (unsigned)s.p[19] << 8 | s.p[18];
	for (size_t i = 0; i < ARRAY_LEN(known); i++)
		if (known[i].number == number)
			return known[i].name;
	return NULL;
}

static int part_add(struct parts *all, const char *path, bool lua, struct errmsg *em)
{
	struct package_part *part = &all->part[all->n];
	struct buf *content = &all->content[all->n];
	const char *machine = "any";
	struct utsname u;
	int rc;

	if (all->n == PARTS_MAX)
		return err_set(
			em, ERR_TOO_LARGE, "a package is for at most %d machines", PARTS_MAX);
	*content = (struct buf)BUF_MAX(PACKAGE_FILE_MAX);
	rc = bytes_read(path, PACKAGE_FILE_MAX, content, em);
	if (rc < 0)
		return rc;
	part->content = (struct slice){ content->data, content->len };
	if (!lua)
		machine = machine_of(part->content);
	if (!machine)
		return err_set(em, ERR_MALFORMED,
			"%s is neither a shared object for a machine that is known here nor a "
			".lua file",
			path);
	for (size_t i = 0; i < all->n; i++)
		if (strcmp(all->part[i].machine, machine) == 0)
			return err_set(em, ERR_EXISTS, "%s and %s are both for %s",
				all->path[i], path, machine);
	uname(&u);
	if (lua || strcmp(machine, u.machine) == 0)
		all->here = (int)all->n;
	snprintf(part->machine, sizeof(part->machine), "%s", machine);
	snprintf(part->name, sizeof(part->name), lua ? "extension.lua" : "%s.so", machine);
	snprintf(all->path[all->n], sizeof(all->path[0]), "%s", path);
	all->lua = lua;
	all->n++;
	return 0;
}

static bool ends_with(const char *s, const char *end)
{
	size_t n = strlen(s), e = strlen(end);

	return n > e && strcmp(s + n - e, end) == 0;
}

static int parts_of_folder(struct parts *all, const char *path, struct errmsg *em)
{
	struct dirent **names;
	int n = scandir(path, &names, NULL, alphasort), rc = 0;

	if (n < 0)
		return err_errno(em, "cannot read the folder %s", path);
	for (int i = 0; i < n; i++) {
		char file[HOME_PATH_MAX];

		if (rc == 0 && ends_with(names[i]->d_name, ".so")) {
			rc = path_join(file, sizeof(file), em, path, names[i]->d_name, NULL);
			rc = rc ? rc : part_add(all, file, false, em);
		}
		free(names[i]);
	}
	free(names);
	if (rc == 0 && !all->n)
		rc = err_set(em, ERR_NOT_FOUND, "there is no .so in the folder %s", path);
	return rc;
}

static int parts_read(struct parts *all, const char *path, struct errmsg *em)
{
	struct stat st;
	int rc;

	all->here = -1;
	if (stat(path, &st) < 0)
		return err_errno(em, "cannot read %s", path);
	rc = S_ISDIR(st.st_mode) ? parts_of_folder(all, path, em)
				 : part_add(all, path, ends_with(path, ".lua"), em);
	if (rc == 0 && all->here < 0)
		rc = err_set(em, ERR_UNSUPPORTED,
			"nothing in %s is for this machine, where it could be asked what it "
			"declares",
			path);
	return rc;
}

static void parts_free(struct parts *all)
{
	for (size_t i = 0; i < all->n + 1 && i < PARTS_MAX; i++)
		buf_fini(&all->content[i]);
	free(all);
}

/* ---- making */

static struct tos_value *inbox_names(const struct tos_value *hello)
{
	const struct tos_value *inboxes = tos_get(hello, "inboxes");
	struct tos_value *names = tos_array();

	for (size_t i = 0; i < tos_len(inboxes); i++)
		tos_push(names, tos_text(tos_get_text(tos_at(inboxes, i), "name", "")));
	return names;
}

static int parts_sign(const struct package_source *s, const struct parts *all,
	const struct tos_value *hello, const struct signer *officer, struct buf *out,
	struct errmsg *em)
{
	const struct tos_value *abi = tos_get(hello, "abi");
	struct tos_value *inboxes = inbox_names(hello);
	char name[65];
	struct package_make m = { .name = name,
		.version = s->version ? s->version : "1",
		.privileges = tos_get_text(hello, "privileges", ""),
		.inboxes = inboxes,
		.lua = all->lua,
		.in_kernel = s->in_kernel,
		.abi_major = (unsigned)tos_as_int(tos_at(abi, 0), 0),
		.abi_minor = (unsigned)tos_as_int(tos_at(abi, 1), 0),
		.part = all->part,
		.n_parts = all->n };
	int rc;

	snprintf(name, sizeof(name), "%s",
		s->name ? s->name : tos_get_text(hello, "name", "extension"));
	if (!s->name)
		name[0] = (char)toupper((unsigned char)name[0]);
	if (!tos_len(inboxes))
		rc = err_set(em, ERR_MALFORMED, "%s declares no inbox", s->path);
	else if (!*m.version || strlen(m.version) > 32 || strchr(m.version, ' '))
		rc = err_set(em, ERR_USAGE, "a release has 1 to 32 printable characters");
	else
		rc = package_make(&m, officer,
			clock_wall_ms() + (s->expires_ms > 0 ? s->expires_ms : YEAR_MS), out,
			em);
	tos_value_free(inboxes);
	return rc;
}

int package_build(const struct package_source *s, const struct tos_principal *officer,
	struct buf *out, struct errmsg *em)
{
	struct parts *all = mem_new(struct parts);
	struct tos_value *hello = NULL;
	int rc = parts_read(all, s->path, em);

	rc = rc ? rc : describe_file(all->path[all->here], &hello, em);
	rc = rc ? rc : parts_sign(s, all, hello, principal_signer(officer), out, em);
	tos_value_free(hello);
	parts_free(all);
	return rc;
}

/* ---- looking at one */

static struct tos_value *words(const char *text)
{
	struct tos_value *all = tos_array();

	while (*text) {
		size_t n = strcspn(text, " ");

		tos_push(all, tos_text_n(text, n));
		text += n + (text[n] == ' ');
	}
	return all;
}

static struct tos_value *package_value(const struct package *p)
{
	struct tos_value *v = tos_map(), *machines = tos_array();
	char hex[2 * DIGEST_BYTES + 1], when[CLOCK_TEXT_BYTES];

	for (size_t i = 0; i < tos_len(p->files); i++)
		tos_push(machines, tos_value_copy(tos_key_at(p->files, i)));
	tos_set(v, "name", tos_text(p->manifest.name));
	tos_set(v, "version", tos_text(p->manifest.version));
	tos_set(v, "officer", tos_text(p->officer.name));
	tos_set(v, "where", tos_text(p->in_kernel ? "kernel" : "isolated"));
	tos_set(v, "privileges", tos_text(p->privileges));
	tos_set(v, "inboxes", words(p->inboxes));
	tos_set(v, "machines", machines);
	tos_set(v, "abi", tos_textf("%u.%u", p->abi_major, p->abi_minor));
	tos_set(v, "package", tos_text(text_hex(p->digest, DIGEST_BYTES, hex)));
	tos_set(v, "expires", tos_text(clock_text(p->manifest.expires_ms, when)));
	return v;
}

int package_describe(
	struct slice package, const char *home, struct tos_value **out, struct errmsg *em)
{
	AUTOFREE struct package *p = mem_new(struct package);
	struct trusted *t = NULL;
	int rc = trusted_open(home, &t, em);

	if (rc < 0)
		return rc;
	rc = package_open(trusted_trust(t), package, p, em);
	if (rc == 0) {
		*out = package_value(p);
		package_close(p);
	}
	trusted_free(t);
	return rc;
}

int package_name(struct slice package, struct tos_value **out, struct errmsg *em)
{
	AUTOFREE struct bundle *b = mem_new(struct bundle);
	struct manifest m = { .n_files = 0 };
	struct cose cose;
	int rc = bundle_decode(package, b, em);

	rc = rc ? rc : cose_decode(b->manifest_cose, &cose, em);
	rc = rc ? rc : manifest_decode(cose.payload, &m, em);
	if (rc == 0)
		*out = tos_text(m.name);
	manifest_fini(&m);
	return rc;
}

/* ---- sending */

static int ask_act(struct tos_connection *c, const char *kernel, struct slice cose,
	struct slice package, uint32_t timeout_ms, struct tos_value **out, struct errmsg *em)
{
	struct tos_value *map = tos_map(), *elements = tos_array();
	char dest[129];
	int rc = tos_set(map, "cose", tos_bytes(cose.p, cose.n));

	snprintf(dest, sizeof(dest), "%.64s/Control", kernel);
	if (rc == 0 && package.n)
		rc = tos_set(map, "package", tos_bytes(package.p, package.n));
	if (rc == 0)
		rc = tos_push(elements, map);
	rc = rc ? ERR_NOMEM
		: tos_ask(c, dest, "ACT", elements, timeout_ms, NULL, out, public_of(em));
	tos_value_free(elements);
	return rc;
}

int package_send(struct tos_connection *c, const struct tos_principal *p, const char *kernel,
	struct slice package, const char *name, const char *mode, uint32_t timeout_ms,
	struct tos_value **out, struct errmsg *em)
{
	bool direct = strcmp(kernel, tos_connection_kernel(c)) == 0;
	struct tos_value *args = tos_map();
	uint8_t digest[DIGEST_BYTES];
	AUTOBUF cose = BUF_INIT;
	int rc;

	digest_bytes(package.p, package.n, digest);
	tos_set(args, "package", tos_bytes(digest, sizeof(digest)));
	tos_set(args, "mode", tos_text(mode));
	rc = act_sign(p, kernel, "install-extension", name, args, timeout_ms, &cose, em);
	tos_value_free(args);
	if (rc == 0 && package.n > PACKAGE_INLINE_BYTES) {
		if (direct)
			rc = connection_upload(c, digest, package.p, package.n, em);
		package.n = 0;
	}
	return rc ? rc
		  : ask_act(c, kernel, (struct slice){ cose.data, cose.len }, package,
			    timeout_ms, out, em);
}
