/*
 * The chain of a carrier's hop records as it travels: one piece of memory, and where each record lies
 * in it. Records are looked at by their bytes; what one says is in record.h.
 */
#pragma once

#include "base/buf.h"
#include "wire/cbor.h"

struct tos_value;

struct records {
	struct buf
		bytes; /* encoded byte strings, one behind the other: an array without its head */
	/* where each one's content begins, and how long it is */
	struct {
		size_t at, n;
	} * list;
	size_t n, cap;
};

void records_init(struct records *r);
void records_fini(struct records *r);
static inline size_t records_n(const struct records *r)
{
	return r->n;
}
/* Lent until the next record is added; empty where there is none of that number. */
struct slice records_at(const struct records *r, size_t i);
/* Copied; false: there is no memory for it. */
bool records_push(struct records *r, struct slice record);
/* An encoded array of byte strings; what was there is forgotten, also when it fails: ERR_MALFORMED,
 * ERR_NOMEM. */
int records_load(struct records *r, struct slice array);
/* The encoded array. */
void records_put(const struct records *r, struct buf *b);
/* As many as there is memory for, what was there is forgotten: ERR_NOMEM if that is not all. */
int records_copy(struct records *r, const struct records *from);
/* The same of a list of byte strings; what is none is an empty record. */
int records_of(struct records *r, const struct tos_value *list);
