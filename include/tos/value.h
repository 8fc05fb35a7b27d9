/*
 * Values: what folders are made of.
 *
 * A value is one CBOR item held as a tree: nil, boolean, integer, float, bytes, text, array or
 * map. It is what client programs and extensions read and write; on the wire it is the core
 * deterministic encoding of RFC 8949, section 4.2.1 (doc/protocol.md, "CBOR").
 *
 * Ownership: a container owns what was put into it. Functions named _push and _set take their
 * value argument, also when they fail; passing NULL to them makes them fail. Getters lend. No
 * function here aborts: where memory is gone constructors return NULL and _push/_set return a
 * negative code (no-memory -10; usage -26 for a container or key of the wrong type).
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define TOS_API __attribute__((visibility("default")))

enum tos_type {
	TOS_NIL,
	TOS_BOOL,
	TOS_INT, /* -2^63 ... 2^63-1; a larger unsigned one is refused on decoding */
	TOS_FLOAT,
	TOS_BYTES,
	TOS_TEXT, /* UTF-8, checked on decoding and by tos_text_n() */
	TOS_ARRAY,
	TOS_MAP, /* keys: any value but containers; unique; kept in deterministic order */
	TOS_TAG, /* a tagged item: tag number and one value; only in carrier state (28, 29) */
};

struct tos_value; /* opaque */

TOS_API void tos_value_free(struct tos_value *v); /* NULL is fine */
TOS_API struct tos_value *tos_nil(void);
TOS_API struct tos_value *tos_bool(bool b);
TOS_API struct tos_value *tos_int(int64_t i);
TOS_API struct tos_value *tos_float(double d);
TOS_API struct tos_value *tos_bytes(const void *p, size_t n);  /* copies */
TOS_API struct tos_value *tos_text(const char *s);             /* copies; NULL if not UTF-8 */
TOS_API struct tos_value *tos_text_n(const char *s, size_t n); /* copies; NULL if not UTF-8 */
TOS_API struct tos_value *tos_textf(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
TOS_API struct tos_value *tos_array(void);
TOS_API struct tos_value *tos_map(void);
/* takes v; 28 or 29, else NULL */
TOS_API struct tos_value *tos_tag(uint64_t number, struct tos_value *v);
/* NULL also if nested deeper than 32 */
TOS_API struct tos_value *tos_value_copy(const struct tos_value *v);

TOS_API int tos_push(struct tos_value *array, struct tos_value *v); /* takes v */
/* takes v; replaces */
TOS_API int tos_set(struct tos_value *map, const char *key, struct tos_value *v);
/* takes both */
TOS_API int tos_set_value(struct tos_value *map, struct tos_value *key, struct tos_value *v);
TOS_API bool tos_unset(struct tos_value *map, const char *key); /* true if it was there */

TOS_API enum tos_type tos_type(const struct tos_value *v); /* NULL counts as TOS_NIL */
TOS_API size_t tos_len(const struct tos_value *v);         /* elements, pairs, or bytes */
/* NULL past the end */
TOS_API const struct tos_value *tos_at(const struct tos_value *array, size_t i);
TOS_API struct tos_value *tos_at_mut(struct tos_value *array, size_t i);
/* removes; the caller owns it */
TOS_API struct tos_value *tos_take_at(struct tos_value *array, size_t i);
/* NULL if absent */
TOS_API const struct tos_value *tos_get(const struct tos_value *map, const char *key);
TOS_API struct tos_value *tos_get_mut(struct tos_value *map, const char *key);
TOS_API const struct tos_value *tos_key_at(const struct tos_value *map, size_t i);
TOS_API const struct tos_value *tos_value_at(const struct tos_value *map, size_t i);

/* Scalars; `def` where v is NULL or of another type (an int is taken for a float, never back). */
TOS_API bool tos_as_bool(const struct tos_value *v, bool def);
TOS_API int64_t tos_as_int(const struct tos_value *v, int64_t def);
TOS_API double tos_as_float(const struct tos_value *v, double def);
/* The text with a NUL behind it (text may hold NULs of its own), or def. Borrowed. */
TOS_API const char *tos_as_text(const struct tos_value *v, const char *def);
/* Bytes of a TOS_BYTES or TOS_TEXT value, or NULL. Borrowed; *n is set, 0 for NULL. */
TOS_API const uint8_t *tos_as_bytes(const struct tos_value *v, size_t *n);

/* tos_as_x(tos_get(map, key), def) */
TOS_API bool tos_get_bool(const struct tos_value *map, const char *key, bool def);
TOS_API int64_t tos_get_int(const struct tos_value *map, const char *key, int64_t def);
TOS_API double tos_get_float(const struct tos_value *map, const char *key, double def);
TOS_API const char *tos_get_text(const struct tos_value *map, const char *key, const char *def);
TOS_API const uint8_t *tos_get_bytes(const struct tos_value *map, const char *key, size_t *n);

/* Of a TOS_TAG: the number (0 for another type) and what it tags (NULL). */
TOS_API uint64_t tos_tag_number(const struct tos_value *v);
TOS_API const struct tos_value *tos_tag_value(const struct tos_value *v);

/* The same encoding: 1 and 1.0 differ, NaN equals NaN. */
TOS_API bool tos_equal(const struct tos_value *a, const struct tos_value *b);

/* The deterministic encoding. *out is malloc'ed, the caller frees it. Errors: no-memory (-10),
 * too-large (-6: deeper than 32 or over 64 MiB). */
TOS_API int tos_encode(const struct tos_value *v, uint8_t **out, size_t *n);

/* One item and nothing behind it, strictly deterministic, depth at most 32. `most` bounds the
 * bytes that the tree may take in memory (0: 16 MiB). Errors: malformed (-8), too-large (-6),
 * no-memory. */
TOS_API int tos_decode(const void *p, size_t n, size_t most, struct tos_value **out);

/* The same for carrier state, in which tags 28 and 29 stand. */
TOS_API int tos_decode_state(const void *p, size_t n, size_t most, struct tos_value **out);

/* JSON text for people and --json: bytes become "base64:...", non-text keys their diagnostic
 * text; NaN and infinities null. malloc'ed, or NULL. indent 0: one line. */
TOS_API char *tos_to_json(const struct tos_value *v, unsigned indent);

/* RFC 8949 section 8 diagnostic notation. malloc'ed, or NULL. */
TOS_API char *tos_to_diag(const struct tos_value *v);

#ifdef __cplusplus
}
#endif
