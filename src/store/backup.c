/*
 * Copies of a store: a backup, taken while its kernel runs or not, and the way back. A backup is one
 * SQLite file: the store as it was at one moment, and a table `backup` with the files of the
 * kernel that it belongs to. Runs in a process of its own, beside the kernel's.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "base/mem.h"
#include "store/db.h"
#include "store/store_impl.h"

#define FILE_BYTES_MAX (16 << 20)

static int copy_all(sqlite3 *from, sqlite3 *to, struct errmsg *em)
{
	sqlite3_backup *b = sqlite3_backup_init(to, "main", from, "main");
	int rc;

	if (!b)
		return db_fail(to, em);
	/* One step: a reader's view of one moment, which holds up no writer. */
	rc = sqlite3_backup_step(b, -1);
	if (sqlite3_backup_finish(b) != SQLITE_OK || rc != SQLITE_DONE)
		return db_fail(to, em);
	return 0;
}

static int open_new(const char *path, sqlite3 **out, struct errmsg *em)
{
	int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);

	if (fd < 0)
		return err_set(em, errno == EEXIST ? ERR_EXISTS : ERR_IO, "%s: %s", path,
			errno == EEXIST ? "it is there already" : strerror(errno));
	close(fd);
	if (sqlite3_open_v2(path, out, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX, NULL) ==
		SQLITE_OK)
		return 0;
	return err_wrap(em, db_fail(*out, em), "%s", path);
}

static int open_old(const char *path, sqlite3 **out, struct errmsg *em)
{
	int rc;

	if (access(path, R_OK) < 0)
		return err_errno(em, "%s", path);
	rc = db_open_reader(path, out, em);
	return rc < 0 ? err_wrap(em, rc, "%s", path) : 0;
}

static int put_file(sqlite3 *db, const struct store_file *f, struct errmsg *em)
{
	sqlite3_stmt *s = NULL;
	int rc = db_prepare(db, &s, em, "INSERT INTO backup (name, body) VALUES (?1, ?2)");

	if (rc < 0)
		return rc;
	sqlite3_bind_text(s, 1, f->name, -1, SQLITE_STATIC);
	sqlite3_bind_blob64(
		s, 2, f->body.n ? (const void *)f->body.p : "", f->body.n, SQLITE_STATIC);
	rc = sqlite3_step(s) == SQLITE_DONE ? 0 : db_fail(db, em);
	sqlite3_finalize(s);
	return rc;
}

static int put_files(sqlite3 *db, const struct store_file *files, size_t n, struct errmsg *em)
{
	int rc = db_exec(db,
		"PRAGMA journal_mode=DELETE; PRAGMA synchronous=FULL; BEGIN;"
		"CREATE TABLE backup (name TEXT NOT NULL PRIMARY KEY,"
		" body BLOB NOT NULL) STRICT",
		em);

	for (size_t i = 0; rc == 0 && i < n; i++)
		rc = put_file(db, &files[i], em);
	return rc ? rc : db_exec(db, "COMMIT", em);
}

static int sync_file(const char *path, struct errmsg *em)
{
	AUTOCLOSE int fd = open(path, O_RDONLY | O_CLOEXEC);

	return fd >= 0 && fsync(fd) == 0 ? 0 : err_errno(em, "%s", path);
}

int store_backup(const char *path, const char *out, const struct store_file *files, size_t n,
	struct errmsg *em)
{
	sqlite3 *from = NULL, *to = NULL;
	int rc = open_old(path, &from, em);

	if (rc == 0)
		rc = open_new(out, &to, em);
	if (rc == ERR_EXISTS) {
		sqlite3_close(from);
		return rc;
	}
	if (rc == 0)
		rc = copy_all(from, to, em);
	if (rc == 0)
		rc = put_files(to, files, n, em);
	sqlite3_close(from);
	sqlite3_close(to);
	if (rc == 0)
		rc = sync_file(out, em);
	if (rc < 0 && to)
		unlink(out);
	return rc;
}

static int ask_number(sqlite3 *db, const char *sql, int64_t *out, struct errmsg *em)
{
	sqlite3_stmt *s = NULL;
	int rc = db_prepare(db, &s, em, "%s", sql);

	if (rc < 0)
		return rc;
	if (sqlite3_step(s) == SQLITE_ROW)
		*out = sqlite3_column_int64(s, 0);
	else
		rc = db_fail(db, em);
	sqlite3_finalize(s);
	return rc;
}

static int verdict(sqlite3 *db, struct errmsg *em)
{
	sqlite3_stmt *s = NULL;
	int rc = db_prepare(db, &s, em, "PRAGMA integrity_check(1)");

	if (rc < 0)
		return rc;
	if (sqlite3_step(s) != SQLITE_ROW ||
		strcmp((const char *)sqlite3_column_text(s, 0), "ok") != 0)
		rc = err_set(em, ERR_STORE, "the file is damaged");
	sqlite3_finalize(s);
	return rc;
}

static int check_backup(sqlite3 *db, struct errmsg *em)
{
	int64_t id = 0, version = 0, tables = 0;
	int rc = ask_number(db, "PRAGMA application_id", &id, em);

	rc = rc ? rc : ask_number(db, "PRAGMA user_version", &version, em);
	rc = rc ? rc
		: ask_number(db, "SELECT count(*) FROM sqlite_schema WHERE name = 'backup'",
			  &tables, em);
	if (rc == 0 && (id != SCHEMA_APP_ID || tables != 1))
		rc = err_set(em, ERR_STORE, "this is no backup of tos backup");
	if (rc == 0 && version > SCHEMA_VERSION)
		rc = err_set(em, ERR_STORE,
			"the backup is of a newer version (%lld, this is %d): update first",
			(long long)version, SCHEMA_VERSION);
	return rc ? rc : verdict(db, em);
}

int store_backup_read(const char *backup, struct store_backup_info *info, store_file_fn *fn,
	void *arg, struct errmsg *em)
{
	sqlite3 *db = NULL;
	sqlite3_stmt *s = NULL;
	int rc = open_old(backup, &db, em);

	*info = (struct store_backup_info){ 0 };
	if (rc < 0)
		return rc;
	rc = check_backup(db, em);
	rc = rc ? rc : ask_number(db, "SELECT count(*) FROM resident", &info->residents, em);
	rc = rc ? rc : db_prepare(db, &s, em, "SELECT name, body FROM backup");
	while (rc == 0 && sqlite3_step(s) == SQLITE_ROW) {
		struct slice body = { sqlite3_column_blob(s, 1),
			(size_t)sqlite3_column_bytes(s, 1) };

		if (body.n <= FILE_BYTES_MAX)
			rc = fn(arg, (const char *)sqlite3_column_text(s, 0), body);
	}
	sqlite3_finalize(s);
	sqlite3_close(db);
	return rc < 0 ? err_wrap(em, rc, "%s", backup) : 0;
}

/* The lock that a running kernel holds. */
static int lock_now(const char *path, int *out, struct errmsg *em)
{
	char name[4096];

	snprintf(name, sizeof(name), "%s.lock", path);
	*out = open(name, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (*out < 0)
		return err_errno(em, "%s", name);
	if (flock(*out, LOCK_EX | LOCK_NB) == 0)
		return 0;
	return err_set(em, ERR_STATE, "%s is in use: its kernel runs, stop it first", path);
}

static int rename_if(const char *path, const char *suffix, const char *to, struct errmsg *em)
{
	char from[4096], dest[4096];

	snprintf(from, sizeof(from), "%s%s", path, suffix);
	snprintf(dest, sizeof(dest), "%s%s%s", path, to, suffix);
	if (rename(from, dest) == 0 || errno == ENOENT)
		return 0;
	return err_errno(em, "%s", from);
}

int store_restore(const char *backup, const char *path, struct errmsg *em)
{
	char new[4096];
	sqlite3 *from = NULL, *to = NULL;
	AUTOCLOSE int lock = -1;
	int rc = lock_now(path, &lock, em);

	snprintf(new, sizeof(new), "%s.new", path);
	unlink(new);
	rc = rc ? rc : open_old(backup, &from, em);
	rc = rc ? rc : check_backup(from, em);
	rc = rc ? rc : open_new(new, &to, em);
	rc = rc ? rc : copy_all(from, to, em);
	rc = rc ? rc : db_exec(to, "PRAGMA journal_mode=DELETE; DROP TABLE backup", em);
	sqlite3_close(from);
	sqlite3_close(to);
	rc = rc ? rc : sync_file(new, em);
	/* What was there is kept beside it, with the log that belongs to it. */
	rc = rc ? rc : rename_if(path, "", ".before-restore", em);
	rc = rc ? rc : rename_if(path, "-wal", ".before-restore", em);
	rc = rc ? rc : rename_if(path, "-shm", ".before-restore", em);
	if (rc == 0 && rename(new, path) < 0)
		rc = err_errno(em, "%s", path);
	if (rc < 0)
		unlink(new);
	return rc;
}
