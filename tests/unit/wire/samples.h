/*
 * One sample of everything on the wire, made by our encoders from the values that
 * tests/data/make_vectors.py uses; and decode-and-encode-again for each kind. Shared by the
 * unit tests, the fuzz targets and wire_tool.
 */
#pragma once

#include "base/buf.h"
#include "wire/cbor.h"

extern const char *const sample_kinds[]; /* ends with NULL */

/* Append the sample; false for an unknown kind. */
bool sample_make(const char *kind, struct buf *out);

/* Decode `in` as this kind and encode what was understood. 0 or a negative code (ERR_USAGE: no
 * such kind). *open says that the format lets keys be left out on the way (hello, "x-" keys).
 */
int sample_again(const char *kind, struct slice in, struct buf *out, bool *open);
