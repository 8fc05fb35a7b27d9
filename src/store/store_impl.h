/* Inside the store: what its files share. */
#pragma once

#include <pthread.h>
#include <sqlite3.h>

#include "store/store.h"

#define STORE_KEY_MAX   512
#define STORE_BODY_MAX  ((size_t)128 << 20)
#define STORE_BYTES_MAX ((size_t)512 << 20) /* of all that waits */

extern const char *const store_table_names[STORE_TABLE_COUNT];

/* NOT INDEXED: an index of what expires would lead here and there. */
#define STORE_ALL_SQL                                                                          \
	"SELECT key, body, expires FROM \"%s\" NOT INDEXED"                                    \
	" WHERE expires = 0 OR expires > ?1 ORDER BY rowid"

enum op_kind { OP_PUT, OP_DEL, OP_AUDIT, OP_EXPIRE, OP_RAISE };
struct op {
	struct op *next;
	enum op_kind kind;
	enum store_table table;
	int64_t time_ms; /* PUT: expires; AUDIT and EXPIRE: now */
	size_t n_key, n_body;
	uint8_t data[]; /* key, then body */
};

struct store_txn {
	struct store_txn *next;
	struct store *st;
	struct op *first, *last;
	size_t bytes;
	int rc; /* building or applying it failed */
	struct errmsg em;
	store_done_fn *done;
	void *arg;
	bool waited, finished; /* somebody sleeps in store_commit_wait() */
	bool late;             /* nobody waits for it */
};

struct txn_list {
	struct store_txn *first, *last;
	size_t n;
};

/* The running end of what is numbered; the writer's copy becomes the store's when a group is
 * durable. */
struct store_mark {
	uint64_t seq, audit_seq;
	uint8_t audit_head[32];
};

struct writer {
	sqlite3 *db;
	sqlite3_stmt *put[STORE_TABLE_COUNT], *del[STORE_TABLE_COUNT],
		*expire[STORE_TABLE_COUNT];
	sqlite3_stmt *audit, *begin, *commit, *rollback;
	struct store_mark mark;
	uint64_t max_bytes; /* as set on db */
	int log_pages;      /* in the write-ahead log, since it was last copied into the file */
	int log_end;        /* its last commit ends at this page */
	int log_room;       /* pages for which its file has room, as far as we made it */
	bool log_fixed;     /* no more: making room has failed */
	bool more_expired;  /* the last OP_EXPIRE left some; read when that is reported */
};

struct store {
	char *path;
	int lock_fd;
	void (*wake)(void *arg);
	void *wake_arg;

	struct writer w; /* the writer thread's from its start to its end */

	sqlite3 *r; /* the loop thread's */
	sqlite3_stmt *get[STORE_TABLE_COUNT];
	int64_t boot_count;
	bool expiring; /* one such piece of work is under way */

	pthread_t thread;
	pthread_mutex_t mutex; /* guards all below */
	pthread_cond_t work, finished;
	struct txn_list queue, done;
	size_t n_waiting, bytes_waiting; /* not yet reported */
	size_t n_late;                   /* of them, those that nobody waits for */
	bool due;                        /* what is queued is to be written */
	bool stopping, abandoned, ended;
	uint64_t max_bytes;
	struct store_mark mark;
	struct store_stats stats;
	struct {
		pthread_t thread;
		bool due; /* to be joined; the loop thread's */
		bool runs;
		int rc;
		struct errmsg em;
	} check;
};

int check_begin(struct store *st, struct errmsg *em);
void check_end(struct store *st); /* waits for it */

int writer_open(struct writer *w, const char *path, struct errmsg *em);
void writer_close(struct writer *w);
void *writer_main(void *store); /* the thread */
int mark_load(struct writer *w, struct errmsg *em);
/* Raises the boot count durably. */
int boot_raise(struct writer *w, int64_t *count, struct errmsg *em);
void log_watch(struct writer *w);
bool log_due(const struct writer *w, bool busy); /* it should be copied into the file */
void log_copy(struct writer *w);
bool log_cramped(const struct writer *w); /* it should be given room, when nobody waits */
void log_extend(struct writer *w);
void audit_chain(const uint8_t prev[32], uint64_t seq, int64_t time_ms, struct slice body,
	uint8_t out[32]);

void txn_free(struct store_txn *t);
void txn_push(struct txn_list *l, struct store_txn *t);
struct store_txn *txn_pop(struct txn_list *l);
void txn_reported(struct store *st, const struct store_txn *t);
