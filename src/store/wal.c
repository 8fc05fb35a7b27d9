/*
 * The write-ahead log of the store: when it is copied into the file, and the room that it has on the
 * disk. Runs in the writer's thread, while nobody waits for it.
 *
 * A commit that makes the log's file longer is a change of the file system, too, written in a journal
 * that all kernels of a machine share. SQLite writes a log that was copied again from its beginning, and
 * so has room; a young one gets it here. What lies behind the last commit is no frame, since its
 * checksum does not fit: zeros are as good as an old one.
 */
#include "base/mem.h"
#include "store/db.h"
#include "store/store_impl.h"

/* Pages of the log from which on it is copied into the file: between groups, and while more wait */
#define LOG_PAGES_IDLE 1000
#define LOG_PAGES_BUSY 8000
#define FRAME_BYTES    (24 + 4096)
#define ROOM_PAGES     64 /* to begin with; doubled until there is room for LOG_PAGES_IDLE */

static int on_log_grown(void *writer, sqlite3 *db, const char *name, int pages)
{
	struct writer *w = writer;

	(void)db;
	(void)name;
	w->log_pages = w->log_end = pages;
	return SQLITE_OK;
}

void log_watch(struct writer *w)
{
	sqlite3_wal_hook(w->db, on_log_grown, w); /* instead of a checkpoint within a commit */
}

bool log_due(const struct writer *w, bool busy)
{
	return w->log_pages >= (busy ? LOG_PAGES_BUSY : LOG_PAGES_IDLE);
}

/* Where it fails the log grows on, and the next group tries again. */
void log_copy(struct writer *w)
{
	w->log_pages = 0;
	if (sqlite3_wal_checkpoint_v2(w->db, NULL, SQLITE_CHECKPOINT_PASSIVE, NULL, NULL) !=
		SQLITE_OK)
		db_synced(
			w->db); /* else the next try might begin the log anew, without what was lost */
}

bool log_cramped(const struct writer *w)
{
	int spare = w->log_room / 4 > ROOM_PAGES / 2 ? w->log_room / 4 : ROOM_PAGES / 2;

	return !w->log_fixed && w->log_end > 0 && w->log_room < LOG_PAGES_IDLE &&
	       w->log_room - w->log_end < spare;
}

/* Where the disk has no room for it the log grows as it did, and what was written of it stays: room
 * for what is written next. */
void log_extend(struct writer *w)
{
	static uint8_t zeros[64 << 10];
	sqlite3_file *f = NULL;
	sqlite3_int64 at = 0, end;
	int rc = sqlite3_file_control(w->db, "main", SQLITE_FCNTL_JOURNAL_POINTER, &f);

	w->log_room = w->log_room ? 2 * w->log_room : ROOM_PAGES;
	if (w->log_room > LOG_PAGES_IDLE)
		w->log_room = LOG_PAGES_IDLE;
	end = 32 + (sqlite3_int64)w->log_room * FRAME_BYTES;
	if (rc != SQLITE_OK || !f || !f->pMethods ||
		f->pMethods->xFileSize(f, &at) != SQLITE_OK) {
		w->log_fixed = true;
		return;
	}
	for (rc = SQLITE_OK; rc == SQLITE_OK && at < end; at += (sqlite3_int64)sizeof(zeros))
		rc = f->pMethods->xWrite(f, zeros, (int)sizeof(zeros), at);
	if (rc == SQLITE_OK)
		rc = f->pMethods->xSync(f, SQLITE_SYNC_NORMAL | SQLITE_SYNC_DATAONLY);
	w->log_fixed = rc != SQLITE_OK;
}
