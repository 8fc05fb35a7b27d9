/*
 * What carriers use: accounts of their owners (account.c), shares of the processor (share.c), and the
 * kernel's own work for them (cost.c).
 */
#pragma once

#include "kernel/kernel.h"

int accounts_load(struct kernel *k, struct errmsg *em);
/* It has something here: from now on there is a row of it. */
void account_known(struct kernel *k, const char *principal);
/* A stay begins, or (`comes` false) goes on after a restart; usage so far was charged elsewhere. */
void account_open(struct resident *r, bool comes);
/* The stay ends: charge the owner in this transaction; NULL: soon. */
void account_charge(struct store_txn *t, struct resident *r);
/* What was charged with t NULL. */
void accounts_save(struct kernel *k);
void accounts_tick(struct kernel *k, int64_t now_ms);
/* A row of that owner's has so many bytes now, until then (wall clock; 0: for good); 0 bytes: it
 * is gone. */
enum stored_kind { STORED_RESIDENT = 'r', STORED_HOME = 'h', STORED_CODE = 'c' };
void account_stored(struct kernel *k, enum stored_kind kind, const char *name,
	const char *owner, size_t bytes, int64_t until_ms);
/* Would so many bytes more stay within limits.disk_per_principal? ERR_LIMIT. */
int account_room(struct kernel *k, const char *owner, int64_t more, struct errmsg *em);
int64_t accounts_disk(struct kernel *k);        /* of all */
struct rate *account_share(struct resident *r); /* of its owner's CPU time; NULL: none */
/* May the carrier post so many bytes now? ERR_LIMIT. */
int account_send(struct resident *r, int64_t bytes, struct errmsg *em);
/* A program of the owner's has ended. */
void account_program(struct kernel *k, const char *owner, uint64_t cpu_us, uint64_t peak_bytes,
	int64_t ran_ms);
/* Rows of ACCOUNTS; principal "": of everybody. */
struct tos_value *accounts_value(struct kernel *k, const char *principal);

/* ---- share.c */
void share_open(struct resident *r); /* a stay begins */
void share_used(struct resident *r, int64_t cpu_us);
void shares_tick(struct kernel *k, int64_t now_ms);

/* ---- cost.c: the kernel's work for carriers here is charged to them */
void costs_init(struct kernel *k);
void cost_note(struct resident *r, int64_t us); /* a frame of it took so long */
void costs_tick(struct kernel *k);
