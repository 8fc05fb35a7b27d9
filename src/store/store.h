/*
 * The store: SQLite in WAL mode, synchronous=FULL, one file a kernel, one writer thread with
 * group commit. The only room that includes sqlite3.h.
 *
 * Every kind of record is a table (key BLOB PRIMARY KEY, body BLOB, expires INTEGER) STRICT;
 * the bodies are CBOR and belong to whoever owns the table. Writes are collected in a
 * transaction and become durable together; `done` runs on the loop thread after the fdatasync.
 * Reads see what is committed, and are short.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "wire/cbor.h"

/* X(symbol, table name, what the key and the body are) */
#define STORE_TABLES(X)                                                                        \
	X(T_META, "meta", "settings of the store itself")                                      \
	X(T_RESIDENT, "resident", "id -> carrier held here: state, e, n, envelope")            \
	X(T_CODE, "code", "digest -> bundle")                                                  \
	X(T_ANSWER, "answer", "id, e, n -> accepted or refused, repeated until it expires")    \
	X(T_GONE, "gone", "id -> e, n, destination of the last departure")                     \
	X(T_HOME, "home", "name -> what the home knows of a carrier, its outcome included")    \
	X(T_VOID, "void", "id, e, n, destination -> a void still to be acknowledged")          \
	X(T_INCARNATION, "incarnation", "id -> highest e known")                               \
	X(T_DECLARED, "declared", "kernel -> declared dead, when, by whom")                    \
	X(T_NONCE, "nonce", "act or name nonce already used")                                  \
	X(T_DIRECTORY, "directory", "kernel name -> addresses")                                \
	X(T_TOKEN, "token",                                                                    \
		"enrolment token digest -> name, expiry, public key it was spent for")         \
	X(T_ENROLLED, "enrolled", "kernel name -> certificate")                                \
	X(T_PEER, "peer", "kernel name -> boot count, highest sequence seen")                  \
	X(T_ACCOUNT, "account", "principal -> usage")                                          \
	X(T_TRUST, "trust", "revocation list, root")                                           \
	X(T_OUTBOX, "outbox", "reports and posts that must reach their kernel in the end")     \
	X(T_DEDUP, "dedup", "request -> first result")                                         \
	X(T_JOURNAL, "journal", "extension, key -> what it keeps")                             \
	X(T_CONTENT, "content", "digest -> size, name, source of a file in content/")          \
	X(T_ADMITTED, "admitted", "digest -> what it was admitted as, by whom")                \
	X(T_EXTENSION, "extension", "name -> package of an installed extension, by whom")

enum store_table {
#define STORE_ENUM(sym, name, text) sym,
	STORE_TABLES(STORE_ENUM)
#undef STORE_ENUM
		STORE_TABLE_COUNT
};

struct store;
struct store_txn;

/* Opens or makes the file, upgrades the schema, checks integrity (quick_check), starts the
 * writer. `wake` is called from the writer thread and must only signal the loop, which then
 * calls store_poll(). Errors name the file and the remedy: ERR_STORE (corrupt, of a newer
 * version, disk full, read-only). */
int store_open(const char *path, void (*wake)(void *arg), void *arg, struct store **out,
	struct errmsg *em);
/* The same, while the check goes on beside the caller (unless the schema is to be upgraded). It can be
 * read; of what is committed nothing is written until store_checked() would return, which waits
 * for the verdict: ERR_STORE. Nobody is served before. */
int store_open_unchecked(const char *path, void (*wake)(void *arg), void *arg,
	struct store **out, struct errmsg *em);
int store_checked(struct store *st, struct errmsg *em);
/* Waits until everything submitted is durable (at most limit_ms), reports it, then closes. What
 * was not written by then is reported as ERR_CANCELLED. */
void store_close(struct store *st, uint32_t limit_ms);

struct store_txn *store_begin(struct store *st);
void store_cancel(struct store_txn *t);
/* key 1..512 bytes; body up to 128 MiB; both copied. expires_ms: wall clock, 0 never. */
void store_put(struct store_txn *t, enum store_table tb, const void *key, size_t n_key,
	const void *body, size_t n_body, int64_t expires_ms);
void store_del(struct store_txn *t, enum store_table tb, const void *key, size_t n_key);
/* Append an audit record in the same transaction; the store adds sequence, time and chain
 * digest. body: encoded CBOR map. */
void store_audit(struct store_txn *t, const void *body, size_t n_body);
/* This store is older than what others have seen of it: go on above these numbers. */
void store_raise(struct store_txn *t, uint64_t seq, uint64_t boot_count);
/* Submit; takes t. done(arg, rc, em) is called exactly once from store_poll() on the loop
 * thread, in the order of submission: 0 means durable. On failure nothing of t was applied. Where the
 * disk does not confirm what it was given, which may be found later or not, the process ends instead. At
 * most STORE_QUEUE_MAX transactions may wait: (or 512 MiB of them): beyond that ERR_FULL is
 * returned at once, t is freed and done is not called. done may be NULL. */
#define STORE_QUEUE_MAX 65536
typedef void store_done_fn(void *arg, int rc, const struct errmsg *em);
int store_commit(struct store_txn *t, store_done_fn *done, void *arg);
/* The same for what nobody waits for: it keeps its place in the order, and is written with the next
 * one that was submitted otherwise, or from store_nudge() on. */
#define STORE_LATE_MAX 256 /* more of them do not wait */
int store_commit_late(struct store_txn *t, store_done_fn *done, void *arg);
void store_nudge(struct store *st);
/* Commit and wait for it (start and stop only, never in a loop callback). */
int store_commit_wait(struct store_txn *t, struct errmsg *em);
void store_poll(struct store *st);

/* 0 and *body appended, or ERR_NOT_FOUND, ERR_STORE. Expired records are not found. */
struct buf;
int store_get(struct store *st, enum store_table tb, const void *key, size_t n_key,
	struct buf *body, struct errmsg *em);
/* Each record in key order until fn returns non-zero (which is returned; the callback may read
 * the store, and submit). Keys at or after `from`; from may be empty. */
typedef int store_each_fn(void *arg, struct slice key, struct slice body, int64_t expires_ms);
int store_each(struct store *st, enum store_table tb, struct slice from, store_each_fn *fn,
	void *arg, struct errmsg *em);
/* The same of all records, in the order of the file: in that of the keys a large table is read once and
 * again. For what is read whole. */
int store_all(
	struct store *st, enum store_table tb, store_each_fn *fn, void *arg, struct errmsg *em);
/* The same of many, read ahead by a thread, in which `look` has a look at each record first and leaves what
 * it found in note_bytes that fn is given with it, both until fn returns. look runs beside the caller, so
 * it touches nothing but its arguments. What fn returns ends it where that is not 0, and is returned. ERR_STORE. */
typedef void store_look_fn(struct slice key, struct slice body, void *note);
typedef int store_seen_fn(
	void *arg, struct slice key, struct slice body, int64_t expires_ms, void *note);
int store_ahead(struct store *st, enum store_table tb, store_look_fn *look, size_t note_bytes,
	store_seen_fn *fn, void *arg, struct errmsg *em);
/* As store_all() in pieces, each of what is committed by then: at most so many records behind *at, which is 0
 * at first and the caller's until the next. 1: there may be more; 0: that was the last. A record that
 * is written meanwhile may come again, or not at all. */
int store_some(struct store *st, enum store_table tb, int64_t *at, size_t most,
	store_each_fn *fn, void *arg, struct errmsg *em);
/* Audit records with sequence > after, ascending, at most `most`. body as given, with seq, time
 * and chain digest. */
typedef int store_audit_fn(
	void *arg, uint64_t seq, int64_t time_ms, const uint8_t chain[32], struct slice body);
int store_audit_each(struct store *st, uint64_t after, size_t most, store_audit_fn *fn,
	void *arg, struct errmsg *em);
/* Recompute the chain in parts, from zeros on: 1 there may be more, 0 done, or a failure. */
struct store_audit_walk {
	uint64_t seq; /* up to here it is whole */
	uint8_t head[32];
	uint64_t bad; /* the first sequence that does not match; 0: none so far */
};
int store_audit_walk(
	struct store *st, struct store_audit_walk *w, size_t most, struct errmsg *em);
/* The same at once; *bad is the first sequence that does not match, 0 if all do. */
int store_audit_check(struct store *st, uint64_t *bad, struct errmsg *em);

/* highest committed sequence, counted in transactions */
uint64_t store_seq(struct store *st);
/* raised by store_open, durable before it returns */
int64_t store_boot_count(struct store *st);
void store_audit_head(struct store *st, uint8_t out[32]);
/* The last audit record that is durable, and its chain digest; 0: none */
uint64_t store_audit_last(struct store *st, uint8_t chain[32]);
/* Remove expired records, in bounded pieces, one after the other as store_poll() reports them; called by
 * the kernel now and then. */
int store_expire(struct store *st);
/* The file's greatest size, from the next group on; 0: none. Writes that would need more fail
 * as on a full disk. */
void store_set_max_bytes(struct store *st, uint64_t bytes);
struct store_stats {
	uint64_t commits, groups, failures, bytes, last_commit_us;
	uint64_t queued; /* those that somebody waits for */
	bool failed;     /* the last commit failed; cleared by the next that works */
	char failure[128];
};
void store_stats(struct store *st, struct store_stats *out);

/* ---- backup.c: for a process of its own, beside the kernel's or without one */
struct store_file {
	const char *name;
	struct slice body;
};
/* A copy of the store at `path` as it is at this moment, and these files, into the new file `out`.
 * ERR_EXISTS if that is there. */
int store_backup(const char *path, const char *out, const struct store_file *files, size_t n,
	struct errmsg *em);
struct store_backup_info {
	int64_t residents;
};
typedef int store_file_fn(void *arg, const char *name, struct slice body);
/* Checks the whole of a backup; each of its files to fn. ERR_STORE: damaged, of a newer version, or
 * none at all. */
int store_backup_read(const char *backup, struct store_backup_info *info, store_file_fn *fn,
	void *arg, struct errmsg *em);
/* The backup takes the place of the store at `path`, which is kept as PATH.before-restore.
 * ERR_STATE: its kernel runs. */
int store_restore(const char *backup, const char *path, struct errmsg *em);
