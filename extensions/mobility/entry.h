/*
 * One entry of a path: the names of kernels of which one is gone to, "a|b|c". Mobility's, and whoever
 * reads paths as it does.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

/* The next name in what is left of the entry, *n bytes, lent; NULL: that was all. An empty one may come. */
const char *entry_next(const char **left, size_t *n);
bool entry_has(const char *entry, const char *kernel);
