/*
 * A hash map from byte strings to pointers, keyed with a random seed (SipHash) so that a peer
 * can't choose colliding names. Insertion order is kept for iteration. Values stay the
 * caller's.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct map;

struct map *map_new(void);
void map_free(struct map *m); /* keys are freed, values are not */

/* The value or NULL. */
void *map_find(const struct map *m, const void *key, size_t len);
/* Returns the value that stood there, or NULL; aborts without memory (keys are bounded by
 * callers). */
void *map_put(struct map *m, const void *key, size_t len, void *value);
/* Returns the value removed, or NULL. */
void *map_del(struct map *m, const void *key, size_t len);
size_t map_size(const struct map *m);

/* Iterate in insertion order: `size_t it = 0; while ((v = map_next(m, &it, &key, &len)))`.
 * Deleting the entry just returned is allowed; inserting is not. key and len may be NULL. */
void *map_next(const struct map *m, size_t *it, const void **key, size_t *len);

/* The same for NUL-terminated keys. */
void *map_find_str(const struct map *m, const char *key);
void *map_put_str(struct map *m, const char *key, void *value);
void *map_del_str(struct map *m, const char *key);

/* Keyed 64-bit hash; also what jitter and sampling use. */
uint64_t hash_bytes(const void *p, size_t len);
