/*
 * The content store: files by their SHA-256 below the state directory, and the registry of those
 * that were admitted as programs, bundles or data. Runs in tos-kernel, on its one loop thread;
 * what touches the disk for long runs in libuv's threads.
 *
 * A file lies at content/HEX, mode 0555 in a directory that only the kernel can enter: others get
 * at it by a descriptor that the kernel hands them, and may execute that. It is written under
 * another name, its digest checked, synced, renamed, and then its row is journaled: a crash leaves
 * a whole file with its row, or something that the next start removes.
 *
 * Source: doc/inboxes.md, "Content"; doc/decisions/content.md
 */
#pragma once

#include "kernel/kernel.h"

#define CONTENT_NAME_MAX  128
#define CONTENT_CHUNK_MAX ((size_t)512 << 10) /* of one PUT or GET */

struct content_file {
	uint8_t digest[DIGEST_BYTES];
	int64_t size;
	char name[CONTENT_NAME_MAX + 1];   /* for people */
	char source[CONTENT_NAME_MAX + 1]; /* "put by alice", "host0", a URL */
	char owner[NAME_BYTES_MAX + 1];    /* principal that put it; "" none */
	char account[NAME_BYTES_MAX + 1];  /* against whose share it counts; "" the host's */
	int64_t added_ms, used_ms;         /* wall */
	bool pinned;                       /* not to make room for others */
	bool shared; /* other kernels and carriers of others may read it */
};

int content_init(struct kernel *k, struct errmsg *em);
void content_tick(struct kernel *k, int64_t now_ms);

/* ---- reading */
bool content_has(struct kernel *k, const uint8_t digest[DIGEST_BYTES]);
/* NULL if it is not here. Borrowed until the loop turns. */
const struct content_file *content_find(struct kernel *k, const uint8_t digest[DIGEST_BYTES]);
/* A descriptor for reading (and for execveat), which is the caller's to close and stays good when
 * the file is dropped. ERR_NOT_FOUND, ERR_IO. Counts as a use. */
int content_open(struct kernel *k, const uint8_t digest[DIGEST_BYTES], int *fd, int64_t *size,
	struct errmsg *em);

/* ---- writing: begun, appended to, ended by the last byte; a few at once */
#define CONTENT_PUTS_MAX 64
struct content_put;
struct content_begin {
	const uint8_t *digest;
	int64_t size; /* -1: not known yet */
	const char *name, *source, *owner;
	const char *account; /* NULL: the owner's */
	const char *by;      /* whose put: two of one digest by different senders do not meet */
	bool pinned, shared;
};
/* Begins one, or finds that of the same sender as far as it came. ERR_EXISTS it is here; ERR_LIMIT
 * no room within the quota; ERR_FULL too many at once; ERR_IO. */
int content_begin(struct kernel *k, const struct content_begin *b, struct content_put **out,
	struct errmsg *em);
struct content_put *content_put_find(
	struct kernel *k, const uint8_t digest[DIGEST_BYTES], const char *by);
/* What has come so far of one that may be shared. ERR_NOT_FOUND, ERR_IO. */
int content_part_open(struct kernel *k, const uint8_t digest[DIGEST_BYTES], int *fd,
	int64_t *size, int64_t *have);
/* A put that a client of this principal began over a connection that may be gone becomes that of
 * the client `by`. */
void content_put_adopt(struct kernel *k, const uint8_t digest[DIGEST_BYTES],
	const char *principal, const char *by);
int64_t content_put_have(const struct content_put *p);
int64_t content_put_size(const struct content_put *p); /* -1: not known yet */
bool content_put_ending(const struct content_put *p);
/* It is not abandoned, though no byte comes. */
void content_put_touch(struct content_put *p);
/* The size has become known. ERR_LIMIT, ERR_TOO_LARGE; the put stays. */
int content_put_sized(struct kernel *k, struct content_put *p, int64_t size, struct errmsg *em);
/* At its end only. After a failure the put is gone: ERR_TOO_LARGE, ERR_LIMIT, ERR_IO. */
int content_append(struct kernel *k, struct content_put *p, const void *bytes, size_t n,
	struct errmsg *em);
/* All is there. done(rc, text) comes once, later: 0 it is on the disk, ERR_DIGEST it is something
 * else, ERR_IO, ERR_STORE. The put is gone then. */
typedef void content_done_fn(struct kernel *k, void *arg, int rc, const char *text);
void content_finish(struct kernel *k, struct content_put *p, content_done_fn *done, void *arg);
void content_cancel(struct kernel *k, struct content_put *p);

/* Remove it. ERR_NOT_FOUND. */
int content_drop(struct kernel *k, const uint8_t digest[DIGEST_BYTES], const char *why,
	struct errmsg *em);
/* done comes once, later, when that is on the disk, or not; not at all after ERR_NOT_FOUND, ERR_LIMIT,
 * ERR_STORE. */
int content_pin(struct kernel *k, const uint8_t digest[DIGEST_BYTES], bool pinned,
	content_done_fn *done, void *arg, struct errmsg *em);
/* The same, and then the answer to rq; takes both. */
void content_pin_answer(struct kernel *k, struct request *rq,
	const uint8_t digest[DIGEST_BYTES], bool pinned, struct tos_value *answer);
struct tos_value *content_row(const struct content_file *f);
/* Rows behind `after` (NULL: from the first), at most so many. */
struct tos_value *content_list(struct kernel *k, const uint8_t *after, size_t most);
struct tos_value *content_stat(struct kernel *k);

/* ---- content_fetch.c: from another kernel's store */
/* Those who ask for one digest share one transfer; each has its own deadline. args: {digest, from:
 * KERNEL or a list, name?, pin?, timeout_ms?}; takes rq. */
/* account: the principal against whose share it counts, or "". */
void content_fetch(struct kernel *k, struct request *rq, const struct tos_value *args,
	const char *account);
void content_fetch_tick(struct kernel *k, int64_t now_ms);

/* ---- content_inbox.c */
extern const struct verb content_verbs[];
/* A signed act: content-put, content-fetch, content-pin, content-drop, admit, withdraw. Takes rq; args borrowed
 * for the call. */
void content_act(struct kernel *k, struct request *rq, const char *act,
	const struct cert_info *who, const struct tos_value *args);
bool content_digest(const struct tos_value *args, uint8_t out[DIGEST_BYTES]);

/* ---- admitted.c: the registry */
struct admitted {
	uint8_t digest[DIGEST_BYTES];
	char kind[16]; /* "program", "bundle", "data" */
	char name[CONTENT_NAME_MAX + 1], version[64];
	char machine[32]; /* "x86_64", ...; "any" */
	char by[NAME_BYTES_MAX + 1];
	char how[16];              /* "act", "carrier", "signed", "download" */
	int64_t at_ms, expires_ms; /* wall; 0: never */
	uint8_t serial[20];        /* of the certificate that signed it */
	size_t n_serial;
	bool withdrawn; /* kept so that a signature does not bring it back */
};
int admitted_load(struct kernel *k, struct errmsg *em);
/* NULL: not admitted, withdrawn, expired, or its signer revoked. Borrowed until the loop turns. */
const struct admitted *admitted_find(struct kernel *k, const uint8_t digest[DIGEST_BYTES]);
/* Of that name, kind ("": any) and, where machine is not NULL, for that machine or any: the one
 * admitted last, by an act if one did, else by a signature, else as it came. */
const struct admitted *admitted_named(
	struct kernel *k, const char *kind, const char *name, const char *machine);
/* Journals it, answers rq when that is durable. Takes rq. args as in the act. */
void admitted_add(struct kernel *k, struct request *rq, const struct tos_value *args,
	const char *by, const char *how);
/* {statement: bytes}: a COSE_Sign1 of kind "admit". Takes rq. */
void admitted_signed(struct kernel *k, struct request *rq);
/* {statements: [bytes]}: what each of them would admit, or why not; nothing is. Takes rq. */
#define ADMITTED_CHECK_MAX 64 /* each is two signatures to be verified on the loop */
void admitted_check(struct kernel *k, struct request *rq);
void admitted_withdraw(struct kernel *k, struct request *rq, const uint8_t digest[DIGEST_BYTES],
	const char *by);
struct tos_value *admitted_row(const struct admitted *a);
struct tos_value *admitted_list(struct kernel *k, size_t most);
