/*
 * Records of departures that were accepted (the store's table gone). Nobody waits for one to be on the
 * disk: if it gets lost in a crash the copy that departs is still there, is sent once more, and the
 * destination repeats its answer. So it is written with whatever is written next, and until then is
 * read from memory.
 */
#pragma once

#include "kernel/kernel.h"

struct gone_late;

/* Into t, which also deletes the carrier's row. For gone_commit(); where t is of memory only and is
 * committed otherwise, the result is NULL. */
struct gone_late *gone_put(
	struct store_txn *t, const struct resident *r, uint64_t n, const char *dest);
void gone_commit(struct store_txn *t, struct gone_late *g);
/* The last record, decoded; NULL: none. The caller's. */
struct tos_value *gone_find(struct kernel *k, const uint8_t id[DIGEST_BYTES]);
/* The carrier's row, if there is one still, goes with a record that is not yet on the disk. */
bool gone_is_late(const struct kernel *k, const uint8_t id[DIGEST_BYTES]);
