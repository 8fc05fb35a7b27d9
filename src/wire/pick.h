/*
 * Some fields of an encoded map, found in one walk without a tree being made: for rows that are read
 * by the thousand. All of the map is checked as strictly as when it is decoded.
 */
#pragma once

#include "wire/slice.h"

struct tos_value;

#define PICK_MAX 32

/* out[i]: the encoded value at names[i], or empty; borrows from map. n: PICK_MAX at most. It is
 * quickest with names in the order of keys, which is shorter ones first. ERR_MALFORMED. */
int pick(struct slice map, const char *const *names, size_t n, struct slice *out);

/* What is not there, or of another type, is the default; a text then is "". */
int64_t pick_int(struct slice item, int64_t def);
bool pick_bool(struct slice item, bool def);
void pick_text(struct slice item, char *out, size_t cap);
struct slice pick_bytes(struct slice item); /* text too; borrows */
/* The tree after all; NULL: not there. */
struct tos_value *pick_value(struct slice item);
