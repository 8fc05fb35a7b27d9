/*
 * A carrier's trail, or its log: lines that it brought along, kept encoded as they came, and those of
 * this stay, encoded too where they are made so. Most lines travel on without anybody looking at them.
 */
#pragma once

#include "base/buf.h"
#include "tos/value.h"
#include "wire/cbor.h"

struct lines {
	uint8_t *before; /* encoded elements, without the array's head; NULL: none */
	size_t before_bytes, n_before;
	struct tos_value *list; /* array, once there is one */
};
void lines_init(struct lines *l);
void lines_fini(struct lines *l);
size_t lines_count(const struct lines *l);
/* takes v */
void lines_push(struct lines *l, struct tos_value *v);
/* One encoded line, well-formed; copied. */
void lines_push_encoded(struct lines *l, struct slice line);
/* An encoded array, checked before; copied. What was there is forgotten. */
int lines_load(struct lines *l, struct slice array);
int lines_encode(const struct lines *l, struct buf *b);
/* All of them as an array; lent. */
struct tos_value *lines_all(struct lines *l);
