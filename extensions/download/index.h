/*
 * An index: what a place offers, as a CBOR array of statements, each signed by itself (COSE_Sign1 of
 * kind "admit", doc/protocol.md). Nothing here looks at signatures: the kernel does (CHECK of inbox
 * Content), and only what it finds good is given to whoever asked.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <tos/value.h>

#define INDEX_BYTES_MAX      ((size_t)128 << 10)
#define INDEX_STATEMENTS_MAX 64

/* The statements of it, an array of bytes; NULL: it is none, and *wrong says why. */
struct tos_value *index_read(const uint8_t *p, size_t n, const char **wrong);

/*
 * What the kernel said to each of the statements: *rows gets those that are good, each with its
 * `statement`; *refused {code, text} of those that are not. 0, or the first refusal's code, with its
 * text (lent by checked), where none is good.
 */
int index_rows(const struct tos_value *statements, const struct tos_value *checked,
	struct tos_value **rows, struct tos_value **refused, const char **text);
