/*
 * What the tests of the store share: a folder of the test's own with a store on real files, and
 * short words for what they do with it.
 */
#pragma once

/* cmocka wants these before it */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "store/store.h"

struct place {
	char dir[64], path[96];
	int wake[2];
};

struct result {
	int n, rc[64];
};

#define IN_PLACE(f) cmocka_unit_test_setup_teardown(f, place_make, place_drop)

/* Setup and teardown of a test in a place. */
int place_make(void **state);
int place_drop(void **state);
/* What a store is opened with: arg is the place. */
void on_wake(void *arg);
/* Fails the test if it cannot be. */
struct store *opened(struct place *p);
/* What a loop does: wait for the signal, then poll. */
void loop_once(struct place *p, struct store *st);
void put(struct store_txn *t, enum store_table tb, const char *key, const char *body);
/* And waits until it is written. */
void put_now(struct store *st, enum store_table tb, const char *key, const char *body,
	int64_t expires_ms);
/* store_get() of a text. */
int get(struct store *st, enum store_table tb, const char *key, char *out, size_t cap);
/* want NULL: there is none. */
void assert_record(struct store *st, enum store_table tb, const char *key, const char *want);
/* For store_commit(): arg is a struct result. */
void on_done(void *arg, int rc, const struct errmsg *em);
/* Write a record of it, and wait. */
void audit(struct store *st, const char *text);
/* Behind the back of the store. */
void sqlite_do(const char *path, const char *sql);
