/* Connections and schema of the store: see db.h. */
#include "store/db.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/mem.h"
#include "store/store_impl.h"

#define DAMAGED                                                                                \
	"the file is damaged (%s): restore a backup, or move the file away to start empty: "   \
	"carriers on it will be lost"
#define BUSY_MS 5000

const char *const store_table_names[STORE_TABLE_COUNT] = {
#define X(sym, name, text) name,
	STORE_TABLES(X)
#undef X
};

int db_fail(sqlite3 *db, struct errmsg *em)
{
	int sys = sqlite3_system_errno(db);
	const char *text = sqlite3_errmsg(db);

	switch (sqlite3_errcode(db) & 0xff) {
	case SQLITE_CORRUPT:
	case SQLITE_NOTADB:
		return err_set(em, ERR_STORE, DAMAGED, text);
	case SQLITE_FULL:
		return err_set(em, ERR_STORE,
			"the disk is full or the store has reached its greatest size: free "
			"some space");
	case SQLITE_READONLY:
	case SQLITE_PERM:
	case SQLITE_AUTH:
		return err_set(em, ERR_STORE,
			"it can't be written (%s): make the file and its folder writable",
			text);
	case SQLITE_CANTOPEN:
		return err_set(em, ERR_STORE,
			"it can't be opened (%s): check that its folder exists and is writable",
			sys ? strerror(sys) : text);
	case SQLITE_IOERR:
		if (sys == ENOSPC || sys == EDQUOT || sys == EFBIG)
			return err_set(em, ERR_STORE, "no space left (%s): free some space",
				strerror(sys));
		return err_set(em, ERR_STORE, "reading or writing failed (%s): check the disk",
			sys ? strerror(sys) : text);
	case SQLITE_BUSY:
	case SQLITE_LOCKED:
		return err_set(
			em, ERR_STORE, "another program holds it locked (%s): end that", text);
	default:
		return err_set(em, ERR_STORE, "%s", text);
	}
}

void db_synced(sqlite3 *db)
{
	int rc = sqlite3_extended_errcode(db), sys = sqlite3_system_errno(db);
	const char *path = sqlite3_db_filename(db, "main");

	if (rc != SQLITE_IOERR_FSYNC && rc != SQLITE_IOERR_DIR_FSYNC)
		return;
	fprintf(stderr,
		"store %s: the disk did not confirm what was written (%s), so nobody can be told what "
		"became of it: this process ends, and what it finds when it starts is what holds; "
		"check the disk\n",
		path ? path : "?", sys ? strerror(sys) : sqlite3_errmsg(db));
	abort();
}

int db_exec(sqlite3 *db, const char *sql, struct errmsg *em)
{
	return sqlite3_exec(db, sql, NULL, NULL, NULL) == SQLITE_OK ? 0 : db_fail(db, em);
}

int db_prepare(sqlite3 *db, sqlite3_stmt **out, struct errmsg *em, const char *fmt, ...)
{
	char sql[512];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(sql, sizeof(sql), fmt, ap);
	va_end(ap);
	if (sqlite3_prepare_v3(db, sql, -1, SQLITE_PREPARE_PERSISTENT, out, NULL) != SQLITE_OK)
		return db_fail(db, em);
	return 0;
}

/* The first column of the first row as a number, or as text (copied, at most cap bytes). */
static int db_ask(sqlite3 *db, const char *sql, int64_t *number, char *text, size_t cap,
	struct errmsg *em)
{
	sqlite3_stmt *s = NULL;
	int rc = db_prepare(db, &s, em, "%s", sql);

	if (rc < 0)
		return rc;
	if (sqlite3_step(s) == SQLITE_ROW) {
		const unsigned char *word = sqlite3_column_text(s, 0);

		if (number)
			*number = sqlite3_column_int64(s, 0);
		if (text)
			snprintf(text, cap, "%s", word ? (const char *)word : "");
	} else {
		rc = db_fail(db, em);
	}
	sqlite3_finalize(s);
	return rc;
}

/* The file is given to nobody but us, and SQL in it can do nothing but hold data. */
static int db_harden(sqlite3 *db, struct errmsg *em)
{
	static const struct {
		int option, value;
	} settings[] = {
		{ SQLITE_DBCONFIG_DEFENSIVE, 1 },
		{ SQLITE_DBCONFIG_ENABLE_LOAD_EXTENSION, 0 },
		{ SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0 },
		{ SQLITE_DBCONFIG_ENABLE_TRIGGER, 0 },
		{ SQLITE_DBCONFIG_ENABLE_VIEW, 0 },
		{ SQLITE_DBCONFIG_DQS_DML, 0 },
		{ SQLITE_DBCONFIG_DQS_DDL, 0 },
	};

	for (size_t i = 0; i < ARRAY_LEN(settings); i++)
		if (sqlite3_db_config(db, settings[i].option, settings[i].value, (int *)NULL) !=
			SQLITE_OK)
			return db_fail(db, em);
	sqlite3_busy_timeout(db, BUSY_MS);
	sqlite3_extended_result_codes(db, 1);
	return db_exec(db,
		"PRAGMA trusted_schema=OFF; PRAGMA cell_size_check=ON;"
#ifdef TOS_SMALL
		"PRAGMA cache_size=-256;"
#endif
		"PRAGMA mmap_size=0; PRAGMA temp_store=MEMORY",
		em);
}

static int tables_make(sqlite3 *db, struct errmsg *em)
{
	char sql[256];

	for (int i = 0; i < STORE_TABLE_COUNT; i++) {
		int rc;

		snprintf(sql, sizeof(sql),
			"CREATE TABLE IF NOT EXISTS \"%s\" (key BLOB NOT NULL PRIMARY KEY,"
			" body BLOB NOT NULL, expires INTEGER NOT NULL DEFAULT 0) STRICT",
			store_table_names[i]);
		rc = db_exec(db, sql, em);
		if (rc < 0)
			return rc;
	}
	return 0;
}

/* 1: one table for each kind of record, and the audit log. */
static int upgrade_1(sqlite3 *db, struct errmsg *em)
{
	int rc = tables_make(db, em);

	if (rc < 0)
		return rc;
	return db_exec(db,
		"CREATE TABLE IF NOT EXISTS audit (seq INTEGER PRIMARY KEY,"
		" time INTEGER NOT NULL, chain BLOB NOT NULL, body BLOB NOT NULL) STRICT",
		em);
}

/* 2: expired records are found without reading a whole table. */
static int upgrade_2(sqlite3 *db, struct errmsg *em)
{
	char sql[256];

	for (int i = 0; i < STORE_TABLE_COUNT; i++) {
		int rc;

		snprintf(sql, sizeof(sql),
			"CREATE INDEX IF NOT EXISTS \"%s_expires\" ON \"%s\" (expires)"
			" WHERE expires > 0",
			store_table_names[i], store_table_names[i]);
		rc = db_exec(db, sql, em);
		if (rc < 0)
			return rc;
	}
	return 0;
}

/* The ladder: step i leads from version i to i+1. What a step made is never changed, only
 * followed. 3 and 4: the tables journal, content, admitted and extension, with
 * their indexes. */
static int (*const upgrades[SCHEMA_VERSION])(
	sqlite3 *db, struct errmsg *em) = { upgrade_1, upgrade_2, upgrade_2, upgrade_2 };

static int upgrade_steps(sqlite3 *db, int64_t from, struct errmsg *em)
{
	char sql[64];
	int rc = tables_make(db, em);

	for (int64_t v = from; v < SCHEMA_VERSION && rc == 0; v++)
		rc = upgrades[v](db, em);
	if (rc < 0)
		return rc;
	snprintf(sql, sizeof(sql), "PRAGMA user_version=%d", SCHEMA_VERSION);
	rc = db_exec(db, sql, em);
	if (rc < 0)
		return rc;
	snprintf(sql, sizeof(sql), "PRAGMA application_id=%d", SCHEMA_APP_ID);
	return db_exec(db, sql, em);
}

static int schema_is_current(sqlite3 *db, bool *out, struct errmsg *em)
{
	int64_t version = 0, app = 0;
	int rc = db_ask(db, "PRAGMA user_version", &version, NULL, 0, em);

	if (rc == 0)
		rc = db_ask(db, "PRAGMA application_id", &app, NULL, 0, em);
	*out = version == SCHEMA_VERSION && app == SCHEMA_APP_ID;
	return rc;
}

/* All steps in one transaction: a kill in the middle leaves the old version. */
static int schema_upgrade(sqlite3 *db, struct errmsg *em)
{
	int64_t version = 0, app = 0, tables = 0;
	int rc = db_ask(db, "PRAGMA user_version", &version, NULL, 0, em);

	if (rc == 0)
		rc = db_ask(db, "PRAGMA application_id", &app, NULL, 0, em);
	if (rc == 0)
		rc = db_ask(db, "SELECT count(*) FROM sqlite_schema", &tables, NULL, 0, em);
	if (rc < 0)
		return rc;
	if (app != SCHEMA_APP_ID && (tables > 0 || version != 0))
		return err_set(
			em, ERR_STORE, "it is a database of another program: move it away");
	if (version > SCHEMA_VERSION)
		return err_set(em, ERR_STORE,
			"it was written by a newer TOS (schema %lld, this one knows %d): "
			"install that version again, or restore a backup",
			(long long)version, SCHEMA_VERSION);
	rc = db_exec(db, "BEGIN IMMEDIATE", em);
	if (rc < 0)
		return rc;
	rc = upgrade_steps(db, version, em);
	if (rc == 0)
		rc = db_exec(db, "COMMIT", em);
	if (rc < 0 && !sqlite3_get_autocommit(db))
		db_exec(db, "ROLLBACK", NULL);
	return rc;
}

int db_check(sqlite3 *db, struct errmsg *em)
{
	char verdict[200] = "";
	int rc = db_ask(db, "PRAGMA quick_check(1)", NULL, verdict, sizeof(verdict), em);

	if (rc < 0)
		return rc;
	for (char *p = verdict; *p; p++) /* one line */
		if (*p == '\n')
			*p = ' ';
	return strcmp(verdict, "ok") == 0 ? 0 : err_set(em, ERR_STORE, DAMAGED, verdict);
}

/* Ours alone (SQLite gives its side files the same mode), and there after a power cut. */
static int file_make(const char *path, struct errmsg *em)
{
	char copy[4096];
	AUTOCLOSE int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
	AUTOCLOSE int dir = -1;

	if (fd < 0 && errno == EEXIST)
		return 0;
	if (fd < 0)
		return err_set(em, ERR_STORE,
			"it can't be made (%s): check that its folder exists and is writable",
			strerror(errno));
	snprintf(copy, sizeof(copy), "%s", path);
	dir = open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (dir >= 0)
		(void)fsync(dir);
	return 0;
}

static int writer_setup(sqlite3 *db, struct errmsg *em)
{
	char mode[16];
	bool current = false;
	int rc = db_harden(db, em);

	/* What is to be changed throughout is looked at throughout before: see check.c. */
	if (rc == 0)
		rc = schema_is_current(db, &current, em);
	if (rc == 0 && !current)
		rc = db_check(db, em);
	if (rc == 0)
		rc = db_ask(db, "PRAGMA journal_mode=WAL", NULL, mode, sizeof(mode), em);
	if (rc == 0 && strcmp(mode, "wal") != 0)
		rc = err_set(em, ERR_STORE,
			"its folder does not allow a write-ahead log "
			"(a network file system?): use a local disk");
	/* FULL: a commit has reached the disk when it returns. The limit gives a grown log's
	 * space back. Pages that become free are not overwritten, as Debian's default would: that
	 * made half of what a move writes. */
	if (rc == 0)
		rc = db_exec(db,
			"PRAGMA synchronous=FULL; PRAGMA journal_size_limit=67108864;"
			"PRAGMA secure_delete=FAST",
			em);
	if (rc == 0)
		rc = schema_upgrade(db, em);
	return rc;
}

static int db_open(const char *path, int flags, int (*setup)(sqlite3 *db, struct errmsg *em),
	sqlite3 **out, struct errmsg *em)
{
	sqlite3 *db = NULL;
	int rc;

	flags |= SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_PRIVATECACHE;
	if (sqlite3_open_v2(path, &db, flags, NULL) != SQLITE_OK)
		rc = db ? db_fail(db, em) : err_set(em, ERR_STORE, "no memory to open it");
	else
		rc = setup(db, em);
	if (rc == 0)
		*out = db;
	else
		sqlite3_close(db);
	return rc;
}

int db_open_writer(const char *path, sqlite3 **out, struct errmsg *em)
{
	int rc = file_make(path, em);

	if (rc < 0)
		return rc;
	if (access(path, W_OK) < 0)
		return err_set(em, ERR_STORE,
			"it can't be written (%s): make it writable for us", strerror(errno));
	return db_open(path, SQLITE_OPEN_READWRITE, writer_setup, out, em);
}

int db_open_reader(const char *path, sqlite3 **out, struct errmsg *em)
{
	return db_open(path, SQLITE_OPEN_READONLY, db_harden, out, em);
}
