/*
 * Inside the store: connections to the file, their settings, the schema and its upgrades, and
 * what a failure of SQLite is called. Nothing here knows of threads.
 */
#pragma once

#include <sqlite3.h>

#include "base/err.h"

/* user_version of the file. Raised with every change of a table; see the ladder in db.c. */
#define SCHEMA_VERSION 4
#define SCHEMA_APP_ID  0x544f5331 /* "TOS1" */

/* Open for writing: made if it is not there, settings, upgrade, before which it is checked. */
int db_open_writer(const char *path, sqlite3 **out, struct errmsg *em);
/* All of the file: ERR_STORE if it is damaged. */
int db_check(sqlite3 *db, struct errmsg *em);
int db_open_reader(const char *path, sqlite3 **out, struct errmsg *em);
/* After a write to db that failed: ends the process if what failed is the confirmation of the disk. What was
 * written may be found after a crash, or not, and a second try would be confirmed whatever was lost. */
void db_synced(sqlite3 *db);
int db_exec(sqlite3 *db, const char *sql, struct errmsg *em);
int db_prepare(sqlite3 *db, sqlite3_stmt **out, struct errmsg *em, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));
/* What went wrong on db just now, with the remedy. Always ERR_STORE. */
int db_fail(sqlite3 *db, struct errmsg *em);
