/*
 * tos-kernel --backup, --restore, --inspect: what tos backup and tos restore run. Here because only
 * this program has SQLite; it is a process of the caller's own then, with the caller's rights,
 * and no kernel.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/text.h"
#include "kernel/kernel.h"

#define FILE_MOST ((size_t)16 << 20)
#define MARKER    "restored"

static const struct {
	const char *name;
	bool secret;
} files[] = {
	{ "tosd.conf", false },
	{ "cert", false },
	{ "root.crt", false },
	{ "revoked", false },
	{ "registrar.crt", false },
	{ "key", true },
	{ "registrar.key", true },
};

static int file_read(const char *path, struct buf *out)
{
	AUTOCLOSE int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	uint8_t bytes[8192];
	ssize_t n;

	if (fd < 0)
		return errno == ENOENT ? ERR_NOT_FOUND : ERR_IO;
	while ((n = read(fd, bytes, sizeof(bytes))) > 0)
		buf_add(out, bytes, (size_t)n);
	return n < 0 ? ERR_IO : buf_check(out);
}

static int kernel_name(const char *dir, char out[64], struct errmsg *em)
{
	AUTOFREE struct config *c = mem_new(struct config);
	char path[TOSD_PATH_BYTES];
	int rc;

	snprintf(path, sizeof(path), "%s/tosd.conf", dir);
	rc = config_load(path, c, em);
	if (rc < 0)
		return rc;
	snprintf(out, 64, "%s", c->name);
	config_fini(c);
	return 0;
}

static int backup(const char *dir, const char *out, bool keys, struct errmsg *em)
{
	struct store_file list[ARRAY_LEN(files) + 2];
	struct buf body[ARRAY_LEN(files)];
	char store[TOSD_PATH_BYTES], path[TOSD_PATH_BYTES], name[64], wall[24];
	size_t n = 0;
	int rc = kernel_name(dir, name, em);

	for (size_t i = 0; i < ARRAY_LEN(files); i++)
		body[i] = (struct buf)BUF_MAX(FILE_MOST);
	for (size_t i = 0; rc == 0 && i < ARRAY_LEN(files); i++) {
		if (files[i].secret && !keys)
			continue;
		snprintf(path, sizeof(path), "%s/%s", dir, files[i].name);
		rc = file_read(path, &body[i]);
		if (rc == 0)
			list[n++] = (struct store_file){ files[i].name, slice_buf(&body[i]) };
		rc = rc == ERR_NOT_FOUND ? 0 : rc;
		if (rc < 0)
			err_set(em, rc, "%s can't be read", path);
	}
	snprintf(wall, sizeof(wall), "%lld", (long long)clock_wall_ms());
	list[n++] = (struct store_file){ "kernel", slice_text(name) };
	list[n++] = (struct store_file){ "wall", slice_text(wall) };
	snprintf(store, sizeof(store), "%s/store.db", dir);
	if (rc == 0)
		rc = store_backup(store, out, list, n, em);
	for (size_t i = 0; i < ARRAY_LEN(files); i++)
		buf_fini(&body[i]);
	return rc;
}

struct inspected {
	char kernel[64], wall[24];
	bool key;
	struct buf root;
};

static int inspect_file(void *arg, const char *name, struct slice body)
{
	struct inspected *in = arg;

	if (strcmp(name, "kernel") == 0)
		slice_copy_text(body, in->kernel, sizeof(in->kernel));
	else if (strcmp(name, "wall") == 0)
		slice_copy_text(body, in->wall, sizeof(in->wall));
	else if (strcmp(name, "key") == 0)
		in->key = true;
	else if (strcmp(name, "root.crt") == 0)
		buf_add(&in->root, body.p, body.n);
	return 0;
}

static int inspect(const char *file, struct inspected *in, struct errmsg *em)
{
	struct store_backup_info info;
	int rc;

	*in = (struct inspected){ .root = BUF_MAX(FILE_MOST) };
	rc = store_backup_read(file, &info, inspect_file, in, em);
	if (rc == 0 && !name_kernel_ok(in->kernel))
		rc = err_set(em, ERR_STORE, "%s does not say whose it is", file);
	if (rc == 0)
		printf("kernel=%s\nwall=%s\nkeys=%s\ncarriers=%lld\n", in->kernel, in->wall,
			in->key ? "yes" : "no", (long long)info.residents);
	return rc;
}

struct unpacking {
	const char *dir;
	struct errmsg *em;
};

/* Only what is missing: a kernel that is there keeps its configuration and its key. */
static int unpack(void *arg, const char *name, struct slice body)
{
	struct unpacking *u = arg;
	char path[TOSD_PATH_BYTES];
	size_t i = 0;
	int fd;
	bool ok;

	while (i < ARRAY_LEN(files) && strcmp(files[i].name, name) != 0)
		i++;
	if (i == ARRAY_LEN(files))
		return 0;
	snprintf(path, sizeof(path), "%s/%s", u->dir, name);
	fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW,
		files[i].secret ? 0600 : 0644);
	if (fd < 0)
		return errno == EEXIST ? 0 : err_errno(u->em, "%s", path);
	ok = write(fd, body.p, body.n) == (ssize_t)body.n && fsync(fd) == 0;
	return close(fd) == 0 && ok ? 0 : err_errno(u->em, "%s", path);
}

static int mark(const char *dir, struct errmsg *em)
{
	char path[TOSD_PATH_BYTES];
	AUTOCLOSE int fd = -1;

	snprintf(path, sizeof(path), "%s/" MARKER, dir);
	fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	return fd >= 0 && fsync(fd) == 0 ? 0 : err_errno(em, "%s", path);
}

static int restore(const char *file, const char *dir, struct errmsg *em)
{
	struct inspected in;
	struct store_backup_info info;
	struct unpacking u = { dir, em };
	AUTOBUF root = BUF_MAX(FILE_MOST);
	char path[TOSD_PATH_BYTES], name[64];
	int rc = inspect(file, &in, em);

	snprintf(path, sizeof(path), "%s/root.crt", dir);
	if (rc == 0 && file_read(path, &root) == 0 &&
		!slice_equal(slice_buf(&root), slice_buf(&in.root)))
		rc = err_set(em, ERR_UNTRUSTED, "%s is of another domain", file);
	buf_fini(&in.root);
	snprintf(path, sizeof(path), "%s/tosd.conf", dir);
	if (rc == 0 && access(path, F_OK) == 0 && (rc = kernel_name(dir, name, em)) == 0 &&
		strcmp(name, in.kernel) != 0)
		rc = err_set(
			em, ERR_NAME, "%s is a backup of %s, not of %s", file, in.kernel, name);
	snprintf(path, sizeof(path), "%s/key", dir);
	if (rc == 0 && !in.key && access(path, F_OK) != 0)
		rc = err_set(em, ERR_NOT_FOUND,
			"neither %s nor the backup has the key of %s: take backups with --keys, or let the host join again",
			dir, in.kernel);
	/* The mark first: a store that is put back is never started as if nothing had been. */
	snprintf(path, sizeof(path), "%s/store.db", dir);
	rc = rc ? rc : mark(dir, em);
	rc = rc ? rc : store_restore(file, path, em);
	return rc ? rc : store_backup_read(file, &info, unpack, &u, em);
}

bool backup_mode(int argc, char **argv, int *code)
{
	struct errmsg em = { "" };
	struct inspected in;
	int rc;

	if (strcmp(argv[1], "--backup") == 0 && argc >= 4) {
		rc = backup(argv[2], argv[3], argc > 4 && strcmp(argv[4], "--keys") == 0, &em);
	} else if (strcmp(argv[1], "--restore") == 0 && argc == 4) {
		rc = restore(argv[2], argv[3], &em);
	} else if (strcmp(argv[1], "--inspect") == 0 && argc == 3) {
		rc = inspect(argv[2], &in, &em);
		buf_fini(&in.root);
	} else {
		return false;
	}
	if (rc < 0)
		fprintf(stderr, "%s\n", err_show(rc, &em));
	*code = rc < 0 ? 1 : 0;
	return true;
}
