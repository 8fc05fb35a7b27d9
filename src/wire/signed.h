/*
 * The fields of a signed payload: a map whose known keys come in a fixed order, with keys that
 * begin with "x-" passed over wherever they stand. Inside src/wire/ and for payloads of other
 * rooms.
 */
#pragma once

#include "base/err.h"
#include "wire/cbor.h"

struct fields {
	struct cbor_cursor *c;
	uint64_t left;  /* pairs that were not read yet */
	bool extra;     /* "x-" keys were passed over */
	const char *at; /* the last key asked for: where it failed */
};

void fields_open(struct fields *f, struct cbor_cursor *c);
/* The cursor stands at this key's value; it fails if the key is not next. */
void field_need(struct fields *f, const char *key);
/* True if the key is next; otherwise nothing was read but "x-" pairs. */
bool field_may(struct fields *f, const char *key);
void fields_close(struct fields *f);

/* Printable ASCII without blanks, at least `least` and less than cap bytes, into out. */
void field_name(struct fields *f, char *out, size_t least, size_t cap);
/* Exactly n bytes. */
void field_fixed(struct fields *f, uint8_t *out, size_t n);
int64_t field_time(struct fields *f); /* ms, not negative */

bool name_printable(struct slice s); /* 0x21 to 0x7e */

/* Keys in deterministic order: sort an index by the names' encoding. */
void key_order(const char *const *names, size_t n, unsigned *order);
