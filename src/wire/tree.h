/*
 * Values (include/tos/value.h) inside larger encodings: read one where a cursor stands, append
 * one to a buffer.
 */
#pragma once

#include "base/buf.h"
#include "wire/cbor.h"

struct tos_value;

#define VALUE_BYTES_DEFAULT ((size_t)16 << 20)

/* The next item as a tree, which the caller frees; NULL after a failure, which the cursor
 * remembers. What the tree takes in memory is taken off *budget; ERR_TOO_LARGE when that is
 * used up. */
struct tos_value *value_read(struct cbor_cursor *c, size_t *budget);

/* Append the encoding. ERR_TOO_LARGE (also for what is nested too deep) or ERR_NOMEM; b->failed
 * is set then. NULL is written as null. */
int value_put(struct buf *b, const struct tos_value *v);
