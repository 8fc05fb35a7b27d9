/* tos content: files by their SHA-256 in a kernel's store, and which of them are admitted */
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/text.h"
#include "cli/cli.h"
#include "cli/commands.h"
#include "lib/internal.h"
#include "seal/seal.h"

#define PIECE_BYTES ((size_t)512 << 10)
#define HEX_BYTES   (2 * DIGEST_BYTES)
#define PREFIX_MIN  6

/* As extensions/download/index.h has them. */
#define INDEX_BYTES_MAX      (128 << 10)
#define INDEX_STATEMENTS_MAX 64

/* ---- asking */

/* VERB with a map (taken) to inbox Content of the asked kernel. */
static int ask(struct cli *cli, const char *verb, struct tos_value *args, uint32_t timeout_ms,
	struct tos_value **out)
{
	struct tos_value *elements = tos_array(), *answer = NULL;
	char dest[129] = "Content";
	int rc = cli_connect(cli);

	if (rc == 0 && cli->remote)
		snprintf(dest, sizeof(dest), "%.64s/Content", cli->kernel);
	if (rc < 0)
		tos_value_free(args);
	else
		rc = tos_push(elements, args ? args : tos_map());
	if (rc == 0)
		rc = tos_ask(cli->connection, dest, verb, elements,
			cli_timeout(cli, timeout_ms), NULL, &answer, cli_err(cli));
	if (rc == 0)
		*out = tos_take_at(answer, 0);
	if (rc == 0 && !*out)
		rc = err_set(&cli->em, ERR_MALFORMED, "the answer to %s is empty", verb);
	tos_value_free(elements);
	tos_value_free(answer);
	return rc;
}

static struct tos_value *of_digest(const uint8_t digest[DIGEST_BYTES])
{
	return map_of("digest", tos_bytes(digest, DIGEST_BYTES));
}

static int each_file(struct cli *cli, struct tos_value **out)
{
	struct tos_value *all = tos_array(), *next = NULL;
	int rc;

	do {
		struct tos_value *m = NULL, *args = tos_map();
		struct tos_value *files;

		if (next)
			tos_set(args, "digest", STEAL(next));
		rc = ask(cli, "LIST", args, 10000, &m);
		if (rc < 0)
			break;
		files = tos_get_mut(m, "files");
		for (size_t i = 0; i < tos_len(files); i++)
			tos_push(all, tos_value_copy(tos_at(files, i)));
		if (tos_type(tos_get(m, "next")) == TOS_BYTES)
			next = tos_value_copy(tos_get(m, "next"));
		tos_value_free(m);
	} while (next);
	if (rc == 0)
		*out = all;
	else
		tos_value_free(all);
	return rc;
}

static int each_admitted(struct cli *cli, struct tos_value **out)
{
	struct tos_value *m = NULL;
	int rc = ask(cli, "ADMITTED", NULL, 10000, &m);

	if (rc == 0)
		*out = tos_value_copy(tos_get(m, "admitted"));
	tos_value_free(m);
	return rc;
}

static void find_prefix(
	const struct tos_value *rows, const char *word, uint8_t *digest, size_t *found)
{
	for (size_t i = 0; i < tos_len(rows); i++) {
		char hex[HEX_BYTES + 1];
		size_t n;
		const uint8_t *p = tos_get_bytes(tos_at(rows, i), "digest", &n);

		if (!p || n != DIGEST_BYTES)
			continue;
		text_hex(p, n, hex);
		if (strncmp(hex, word, strlen(word)) != 0 ||
			(*found && memcmp(digest, p, n) == 0))
			continue;
		memcpy(digest, p, n);
		++*found;
	}
}

/* 64 hexadecimal digits, or the first six or more of one that the kernel has or admits. */
static int digest_of(struct cli *cli, const char *word, uint8_t digest[DIGEST_BYTES])
{
	struct tos_value *rows = NULL;
	size_t found = 0;
	int rc;

	if (strncmp(word, "sha256:", 7) == 0)
		word += 7;
	if (text_unhex(word, strlen(word), digest, DIGEST_BYTES) == 0)
		return 0;
	if (strlen(word) < PREFIX_MIN || strspn(word, "0123456789abcdef") != strlen(word))
		return err_set(&cli->em, ERR_USAGE,
			"'%.70s' is no digest: 64 hexadecimal digits, or the first %d or more of one that is there",
			word, PREFIX_MIN);
	rc = each_file(cli, &rows);
	if (rc == 0)
		find_prefix(rows, word, digest, &found);
	tos_value_free(STEAL(rows));
	if (rc == 0 && !found) {
		rc = each_admitted(cli, &rows);
		if (rc == 0)
			find_prefix(rows, word, digest, &found);
		tos_value_free(rows);
	}
	if (rc == 0 && found != 1)
		rc = err_set(&cli->em, found ? ERR_NAME : ERR_NOT_FOUND,
			found ? "more than one digest begins with %s"
			      : "no content begins with %s here; 'tos content list' shows what is there",
			word);
	return rc;
}

/* For people and --json: digests as they are typed. */
static void show_hex(struct tos_value *row)
{
	static const char *const keys[] = { "digest", "serial" };

	for (size_t i = 0; i < 2; i++) {
		char hex[HEX_BYTES + 1];
		size_t n;
		const uint8_t *p = tos_get_bytes(row, keys[i], &n);

		if (p && n <= DIGEST_BYTES && tos_type(tos_get(row, keys[i])) == TOS_BYTES)
			tos_set(row, keys[i], tos_text(text_hex(p, n, hex)));
	}
}

static void show_rows(struct tos_value *rows)
{
	for (size_t i = 0; i < tos_len(rows); i++)
		show_hex(tos_at_mut(rows, i));
}

static void print_row(const struct cli *cli, struct tos_value *row)
{
	show_hex(row);
	if (cli->json)
		print_json(row);
	else
		printf("%s\n", tos_get_text(row, "digest", ""));
}

/* ---- put */

struct local_file {
	int fd;
	int64_t size;
	uint8_t digest[DIGEST_BYTES], head[64];
	size_t n_head;
};

static int file_open(struct cli *cli, const char *path, struct local_file *f)
{
	AUTO(digester) d = digester_new();
	AUTOFREE uint8_t *bytes = mem_zero(PIECE_BYTES);
	struct stat st;
	ssize_t n;

	*f = (struct local_file){ .fd = open(path, O_RDONLY | O_CLOEXEC) };
	if (f->fd < 0 || fstat(f->fd, &st) < 0)
		return err_errno(&cli->em, "%s", path);
	if (!S_ISREG(st.st_mode))
		return err_set(&cli->em, ERR_USAGE, "%s is not a file", path);
	while ((n = read(f->fd, bytes, PIECE_BYTES)) > 0) {
		if (f->size == 0) {
			f->n_head = n < (ssize_t)sizeof(f->head) ? (size_t)n : sizeof(f->head);
			memcpy(f->head, bytes, f->n_head);
		}
		digester_add(d, bytes, (size_t)n);
		f->size += n;
	}
	if (n < 0)
		return err_errno(&cli->em, "%s", path);
	digester_end(d, f->digest);
	return 0;
}

static const char *machine_of(const struct local_file *f)
{
	static const struct {
		uint16_t number;
		const char *word;
	} machines[] = { { EM_X86_64, "x86_64" }, { EM_AARCH64, "aarch64" }, { EM_ARM, "arm" },
		{ EM_386, "i386" }, { EM_RISCV, "riscv64" }, { EM_PPC64, "ppc64le" },
		{ EM_S390, "s390x" }, { EM_MIPS, "mips" } };
	uint16_t number;

	if (f->n_head < 20 || memcmp(f->head, ELFMAG, SELFMAG) != 0)
		return "any";
	number = f->head[EI_DATA] == ELFDATA2MSB ? (uint16_t)(f->head[18] << 8 | f->head[19])
						 : (uint16_t)(f->head[19] << 8 | f->head[18]);
	for (size_t i = 0; i < ARRAY_LEN(machines); i++)
		if (machines[i].number == number)
			return machines[i].word;
	return "any";
}

static const char *base_name(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash ? slash + 1 : path;
}

/* From `have` on until the kernel says that it has all of it. */
static int put_pieces(
	struct cli *cli, const char *path, const struct local_file *f, int64_t have)
{
	AUTOFREE uint8_t *bytes = mem_zero(PIECE_BYTES);
	bool done = false;

	while (!done) {
		struct tos_value *args = of_digest(f->digest), *answer = NULL;
		ssize_t n = pread(f->fd, bytes, PIECE_BYTES, have);
		int64_t now;
		int rc;

		if (n < 0 || (n == 0 && have < f->size)) {
			tos_value_free(args);
			return n < 0 ? err_errno(&cli->em, "%s", path)
				     : err_set(&cli->em, ERR_IO, "%s became shorter", path);
		}
		tos_set(args, "offset", tos_int(have));
		tos_set(args, "bytes", tos_bytes(bytes, (size_t)n));
		rc = ask(cli, "PUT", args, 30000, &answer);
		if (rc < 0)
			return rc;
		now = tos_get_int(answer, "have", -1);
		done = tos_get_bool(answer, "done", false);
		tos_value_free(answer);
		if (!done && now <= have)
			return err_set(&cli->em, ERR_STATE, "%s does not go on at byte %lld",
				cli_kernel(cli), (long long)have);
		have = now;
	}
	return 0;
}

static struct tos_value *admission(
	struct cli *cli, const uint8_t *digest, const char *name, const char *machine, int *rc)
{
	struct tos_value *m = of_digest(digest);
	const char *kind = cli_option(cli, "kind"), *version = cli_option(cli, "version-of");
	const char *expires = cli_option(cli, "expires"), *said = cli_option(cli, "name");
	int64_t ms = 0;

	*rc = 0;
	if (expires && (text_duration(expires, &ms) < 0 || ms <= 0))
		*rc = err_set(
			&cli->em, ERR_USAGE, "--expires %s is no time such as 30d", expires);
	machine = cli_option(cli, "machine") ? cli_option(cli, "machine") : machine;
	tos_set(m, "kind", tos_text(kind ? kind : "program"));
	tos_set(m, "name", tos_text(said ? said : name));
	tos_set(m, "version", tos_text(version ? version : ""));
	tos_set(m, "machine", tos_text(machine));
	tos_set(m, "expires", tos_int(ms ? clock_wall_ms() + ms : 0));
	return m;
}

static int put_one(struct cli *cli, const char *path)
{
	struct local_file f;
	struct tos_value *args, *answer = NULL, *row;
	const char *name = cli_option(cli, "name");
	char hex[HEX_BYTES + 1];
	int rc = file_open(cli, path, &f);

	name = name ? name : base_name(path);
	if (rc == 0) {
		args = of_digest(f.digest);
		tos_set(args, "size", tos_int(f.size));
		tos_set(args, "name", tos_text(name));
		tos_set(args, "pin", tos_bool(cli_option(cli, "pin") != NULL));
		tos_set(args, "private", tos_bool(cli_option(cli, "private") != NULL));
		rc = cli_act(cli, NULL, "content-put", "Content", args, &answer);
	}
	if (rc == 0 && !tos_get_bool(answer, "done", false))
		rc = put_pieces(cli, path, &f, tos_get_int(answer, "have", 0));
	tos_value_free(STEAL(answer));
	if (rc == 0 && cli_option(cli, "admit")) {
		args = admission(cli, f.digest, name, machine_of(&f), &rc);
		if (rc == 0)
			rc = cli_act(cli, NULL, "admit", "Content", args, &answer);
		else
			tos_value_free(args);
		tos_value_free(STEAL(answer));
	}
	mem_close(f.fd);
	if (rc < 0)
		return rc;
	row = map_of("digest", tos_text(text_hex(f.digest, DIGEST_BYTES, hex)));
	tos_set(row, "size", tos_int(f.size));
	tos_set(row, "name", tos_text(name));
	tos_set(row, "admitted", tos_bool(cli_option(cli, "admit") != NULL));
	if (cli->json)
		print_json(row);
	else
		printf("%s  %s\n", hex, name);
	tos_value_free(row);
	return 0;
}

int content_bring(struct cli *cli, const char *path, struct tos_value **out)
{
	struct tos_value *args, *answer = NULL, *v;
	struct local_file f;
	char hex[HEX_BYTES + 1];
	int rc = file_open(cli, path, &f);

	if (rc == 0) {
		args = of_digest(f.digest);
		tos_set(args, "size", tos_int(f.size));
		tos_set(args, "name", tos_text(base_name(path)));
		rc = cli_act(cli, NULL, "content-put", "Content", args, &answer);
	}
	if (rc == 0 && !tos_get_bool(answer, "done", false))
		rc = put_pieces(cli, path, &f, tos_get_int(answer, "have", 0));
	tos_value_free(answer);
	mem_close(f.fd);
	if (rc < 0)
		return rc;
	v = of_digest(f.digest);
	tos_set(v, "hex", tos_text(text_hex(f.digest, DIGEST_BYTES, hex)));
	tos_set(v, "name", tos_text(base_name(path)));
	tos_set(v, "machine", tos_text(machine_of(&f)));
	*out = v;
	return 0;
}

/* ---- get */

static int get_to(struct cli *cli, const uint8_t digest[DIGEST_BYTES], int fd, const char *path)
{
	AUTO(digester) d = digester_new();
	uint8_t got[DIGEST_BYTES];
	int64_t offset = 0, size = -1;

	while (size < 0 || offset < size) {
		struct tos_value *args = of_digest(digest), *answer = NULL;
		const uint8_t *p;
		size_t n;
		int rc;

		tos_set(args, "offset", tos_int(offset));
		tos_set(args, "max", tos_int((int64_t)PIECE_BYTES));
		rc = ask(cli, "GET", args, 30000, &answer);
		if (rc < 0)
			return rc;
		size = tos_get_int(answer, "size", -1);
		p = tos_get_bytes(answer, "bytes", &n);
		if (!p || size < 0 || tos_get(answer, "have") || (n == 0 && offset < size)) {
			bool part = tos_get(answer, "have") != NULL;

			tos_value_free(answer);
			return part ? err_set(&cli->em, ERR_AGAIN,
					      "%s is itself still getting it", cli_kernel(cli))
				    : err_set(&cli->em, ERR_MALFORMED, "the answer to GET");
		}
		digester_add(d, p, n);
		for (size_t done = 0; done < n;) {
			ssize_t w = write(fd, p + done, n - done);

			if (w < 0 && errno != EINTR) {
				tos_value_free(answer);
				return err_errno(&cli->em, "%s", path);
			}
			done += w > 0 ? (size_t)w : 0;
		}
		offset += (int64_t)n;
		tos_value_free(answer);
	}
	digester_end(d, got);
	return memcmp(got, digest, DIGEST_BYTES) == 0
		       ? 0
		       : err_set(&cli->em, ERR_DIGEST, "what came is not what the digest says");
}

static int content_get(struct cli *cli, const char *word)
{
	const char *path = cli_option(cli, "output");
	char part[4096];
	uint8_t digest[DIGEST_BYTES];
	int fd, rc = digest_of(cli, word, digest);

	if (rc < 0)
		return rc;
	if (!path)
		return get_to(cli, digest, STDOUT_FILENO, "standard output");
	if (snprintf(part, sizeof(part), "%s.part", path) >= (int)sizeof(part))
		return err_set(&cli->em, ERR_USAGE, "the file's name is too long");
	fd = open(part, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	if (fd < 0)
		return err_errno(&cli->em, "%s", part);
	rc = get_to(cli, digest, fd, part);
	if (rc == 0 && (fsync(fd) < 0 || rename(part, path) < 0))
		rc = err_errno(&cli->em, "%s", path);
	close(fd);
	if (rc < 0)
		unlink(part);
	return rc;
}

/* ---- the rest */

/* Takes rows. */
static int rows_print(struct cli *cli, int rc, struct tos_value *rows, const char *columns)
{
	if (rc < 0)
		return rc;
	show_rows(rows);
	if (cli->json)
		print_json(rows);
	else
		table_print(rows, columns, stdout);
	tos_value_free(rows);
	return 0;
}

static int content_list(struct cli *cli)
{
	struct tos_value *rows = NULL;
	int rc = each_file(cli, &rows);

	return rows_print(cli, rc, rows,
		"digest:DIGEST size:SIZE name:NAME admitted:ADMITTED pinned:PINNED source:SOURCE");
}

static int content_admitted(struct cli *cli)
{
	struct tos_value *rows = NULL;
	int rc = each_admitted(cli, &rows);

	return rows_print(cli, rc, rows,
		"digest:DIGEST kind:KIND name:NAME version:VERSION machine:MACHINE here:HERE by:BY how:HOW");
}

static int content_fetch(struct cli *cli, const char *word)
{
	struct tos_value *args, *from, *answer = NULL;
	const char *list = cli_option(cli, "from");
	uint8_t digest[DIGEST_BYTES];
	int rc;

	if (!list)
		return err_set(&cli->em, ERR_USAGE, "fetch wants --from KERNEL[,KERNEL]...");
	rc = digest_of(cli, word, digest);
	if (rc < 0)
		return rc;
	from = tos_array();
	while (*list) {
		size_t n = strcspn(list, ",");

		tos_push(from, tos_text_n(list, n));
		list += n + (list[n] == ',');
	}
	args = of_digest(digest);
	tos_set(args, "from", from);
	tos_set(args, "name", tos_text(cli_option(cli, "name") ? cli_option(cli, "name") : ""));
	tos_set(args, "pin", tos_bool(cli_option(cli, "pin") != NULL));
	if (!cli->timeout_ms)
		cli->timeout_ms = 300000;
	rc = cli_act(cli, NULL, "content-fetch", "Content", args, &answer);
	if (rc == 0)
		print_row(cli, answer);
	tos_value_free(answer);
	return rc;
}

static int content_act(
	struct cli *cli, const char *act, const char *word, const char *key, bool value)
{
	struct tos_value *args, *answer = NULL;
	uint8_t digest[DIGEST_BYTES];
	int rc = digest_of(cli, word, digest);

	if (rc < 0)
		return rc;
	args = of_digest(digest);
	if (key)
		tos_set(args, key, tos_bool(value));
	rc = cli_act(cli, NULL, act, "Content", args, &answer);
	if (rc == 0)
		print_row(cli, answer);
	tos_value_free(answer);
	return rc;
}

static int statement_read(struct cli *cli, const char *path, struct tos_value **out)
{
	AUTOCLOSE int fd = open(path, O_RDONLY | O_CLOEXEC);
	uint8_t bytes[65536];
	ssize_t n = fd < 0 ? -1 : read(fd, bytes, sizeof(bytes));

	if (n < 0)
		return err_errno(&cli->em, "%s", path);
	*out = tos_bytes(bytes, (size_t)n);
	return 0;
}

/* A digest by an act, a signed statement by bringing it, or a file by its digest. */
static int content_admit(struct cli *cli, const char *word)
{
	const char *path = cli_option(cli, "statement");
	struct tos_value *args, *answer = NULL, *bytes = NULL;
	struct local_file f = { .fd = -1 };
	uint8_t digest[DIGEST_BYTES];
	int rc;

	if (path && word)
		return err_set(&cli->em, ERR_USAGE, "a statement names its digest itself");
	if (!path && !word)
		return err_set(
			&cli->em, ERR_USAGE, "admit wants a DIGEST, or --statement FILE");
	if (path) {
		rc = statement_read(cli, path, &bytes);
		rc = rc ? rc : ask(cli, "ADMIT", map_of("statement", bytes), 10000, &answer);
	} else {
		rc = digest_of(cli, word, digest);
		if (rc < 0)
			return rc;
		args = admission(cli, digest, "", machine_of(&f), &rc);
		if (rc == 0)
			rc = cli_act(cli, NULL, "admit", "Content", args, &answer);
		else
			tos_value_free(args);
	}
	if (rc == 0)
		print_row(cli, answer);
	tos_value_free(answer);
	return rc;
}

/* Made without any kernel, by whoever has the key. */
static int content_sign(struct cli *cli, const char *path)
{
	const char *to = cli_option(cli, "output");
	AUTOBUF cose = BUF_INIT;
	AUTOBUF name = BUF_INIT;
	struct local_file f;
	struct tos_value *m;
	uint8_t *payload = NULL;
	size_t n = 0;
	int fd, rc = file_open(cli, path, &f);

	mem_close(f.fd); /* only its digest is wanted */
	rc = rc ? rc : cli_principal(cli);
	if (rc < 0)
		return rc;
	m = admission(cli, f.digest, base_name(path), machine_of(&f), &rc);
	tos_set(m, "issued", tos_int(clock_wall_ms()));
	rc = rc ? rc : tos_encode(m, &payload, &n);
	tos_value_free(m);
	if (rc == 0)
		rc = cose_sign(principal_signer(cli->principal), "admit",
			(struct slice){ payload, n }, &cose, &cli->em);
	free(payload);
	if (rc < 0)
		return rc;
	buf_printf(&name, "%s.admit", path);
	to = to ? to : buf_cstr(&name);
	fd = open(to, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	if (fd < 0 || write(fd, cose.data, cose.len) != (ssize_t)cose.len)
		rc = err_errno(&cli->em, "%s", to);
	mem_close(fd);
	if (rc == 0)
		printf("%s\n", to);
	return rc;
}

/* Nobody reads half of it. */
static int whole_file(struct cli *cli, const char *path, const uint8_t *bytes, size_t n)
{
	char part[4096];
	int fd, rc = 0;

	if (snprintf(part, sizeof(part), "%s.part", path) >= (int)sizeof(part))
		return err_set(&cli->em, ERR_USAGE, "the file's name is too long");
	fd = open(part, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	if (fd < 0)
		return err_errno(&cli->em, "%s", part);
	if (write(fd, bytes, n) != (ssize_t)n || fsync(fd) < 0 || rename(part, path) < 0) {
		rc = err_errno(&cli->em, "%s", path);
		unlink(part);
	}
	close(fd);
	return rc;
}

/* What tells a steward, or anybody, what there is: statements one after the other, each signed by itself. */
static int content_index(struct cli *cli)
{
	const char *to = cli_option(cli, "output");
	struct tos_value *list = tos_array();
	uint8_t *bytes = NULL;
	size_t n = 0;
	int rc = 0;

	if (cli->args.n_word - 1 > INDEX_STATEMENTS_MAX)
		rc = err_set(&cli->em, ERR_USAGE, "an index holds at most %d statements",
			INDEX_STATEMENTS_MAX);
	for (size_t i = 1; rc == 0 && i < cli->args.n_word; i++) {
		struct tos_value *one = NULL;

		rc = statement_read(cli, cli->args.word[i], &one);
		if (rc == 0)
			tos_push(list, one);
	}
	rc = rc ? rc : tos_encode(list, &bytes, &n);
	tos_value_free(list);
	if (rc == 0 && n > INDEX_BYTES_MAX)
		rc = err_set(&cli->em, ERR_TOO_LARGE, "an index has at most %d bytes",
			INDEX_BYTES_MAX);
	to = to ? to : "index";
	if (rc == 0)
		rc = whole_file(cli, to, bytes, n);
	free(bytes);
	if (rc == 0)
		printf("%s\n", to);
	return rc;
}

static int run_content(struct cli *cli)
{
	const char *verb = cli->args.n_word ? cli->args.word[0] : "list";
	const char *word = cli->args.n_word > 1 ? cli->args.word[1] : NULL;
	int rc = 0;

	if (strcmp(verb, "list") == 0 && !word)
		rc = content_list(cli);
	else if (strcmp(verb, "admitted") == 0 && !word)
		rc = content_admitted(cli);
	else if (strcmp(verb, "admit") == 0 && cli->args.n_word <= 2)
		rc = content_admit(cli, word);
	else if (strcmp(verb, "put") == 0 && word)
		for (size_t i = 1; rc == 0 && i < cli->args.n_word; i++)
			rc = put_one(cli, cli->args.word[i]);
	else if (strcmp(verb, "index") == 0 && word)
		rc = content_index(cli);
	else if (!word || cli->args.n_word > 2)
		verb = ""; /* NOLINT(bugprone-branch-clone): the order */
	else if (strcmp(verb, "get") == 0)
		rc = content_get(cli, word);
	else if (strcmp(verb, "fetch") == 0)
		rc = content_fetch(cli, word);
	else if (strcmp(verb, "pin") == 0)
		rc = content_act(cli, "content-pin", word, "undo", cli_option(cli, "undo"));
	else if (strcmp(verb, "drop") == 0)
		rc = content_act(cli, "content-drop", word, NULL, false);
	else if (strcmp(verb, "withdraw") == 0)
		rc = content_act(cli, "withdraw", word, NULL, false);
	else if (strcmp(verb, "sign") == 0)
		rc = content_sign(cli, word);
	else
		verb = "";
	if (!*verb)
		return cli_usage(cli,
			"it is 'tos content list', 'put FILE...', 'get DIGEST', 'fetch DIGEST --from KERNEL', "
			"'pin DIGEST', 'drop DIGEST', 'admit DIGEST', 'withdraw DIGEST', 'admitted', 'sign FILE' or 'index STATEMENT...'");
	return rc < 0 ? cli_fail(cli, rc) : EXIT_DONE;
}

const struct command command_content = {
	.name = "content",
	.args = "list | put FILE... | get DIGEST | fetch DIGEST | pin DIGEST | drop DIGEST | admit [DIGEST] | "
		"withdraw DIGEST | admitted | sign FILE | index STATEMENT...",
	.summary = "Files by their digest at a kernel, and which of them may be run",
	.about =
		"A kernel keeps files by their SHA-256: programs, bundles and data that carriers and the Executor use. put "
		"sends one there and prints its digest; get writes it out again; fetch has the kernel pull it from the "
		"store of another one, in pieces, going on where it was cut. The store has a quota (content.max): what was "
		"not used for longest goes first, what is pinned stays. A DIGEST is 64 hexadecimal digits, or the first "
		"six or more of one that is there.\n\n"
		"admit says that a digest may be run, or taken for what it says: by an act of a principal whom policy allows "
		"it (role admin), or with --statement by a statement that an officer signed elsewhere with sign (roles: "
		"content.admit_signed). withdraw takes it back for good; only another admit by an act undoes that. The "
		"file itself need not be there yet. index makes one file of several statements: put on a web server beside "
		"the files, it tells a carrier such as steward, by Download, what there is. What was put with --private is read by its owner only, and by no other "
		"kernel.",
	.examples = "tos content put ./agent --admit --version-of 1.2\tBring a program, and admit it\n"
		    "tos content fetch 3f8a91 --from host0 --kernel host3\tFrom one kernel to another\n"
		    "tos content sign ./agent --as olga -o agent.admit\tAn officer's statement, made anywhere\n"
		    "tos content admit --statement agent.admit\tShow it to a kernel\n"
		    "tos content index agent-1.admit agent-2.admit -o index\tFor a web server: what there is\n"
		    "tos content withdraw 3f8a91\tIt may not be run any more\n",
	.run = run_content,
	.max_args = ARGS_ANY,
	.words = "admit admitted drop fetch get index list pin put sign withdraw",
	.options = {
		{ "name", 0, "NAME", "put, fetch, admit, sign: its name; default the file's" },
		{ "output", 'o', "FILE", "get, sign, index: write here; default standard output, FILE.admit, or index" },
		{ "from", 0, "KERNEL[,KERNEL]...", "fetch: whose store to ask, one after the other" },
		{ "pin", 0, NULL, "put, fetch: never drop it to make room" },
		{ "undo", 0, NULL, "pin: it may be dropped again" },
		{ "private", 0, NULL, "put: for its owner only" },
		{ "admit", 0, NULL, "put: admit it, too" },
		{ "kind", 0, "KIND", "admit, sign: program, bundle or data; default program" },
		{ "version-of", 0, "VERSION", "admit, sign: of what it is, for people and for choosing" },
		{ "machine", 0, "MACHINE", "admit, sign: such as x86_64, or any; default what the file says" },
		{ "expires", 0, "TIME", "admit, sign: how long that holds; default for good" },
		{ "statement", 0, "FILE", "admit: what sign made" },
		{ "as", 0, "PRINCIPAL", "who signs; default from domain.conf" },
	},
};
