/* Text: hex, bounded copies, numbers with units, UTF-8. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* out has 2n+1 bytes. Returns out. */
char *text_hex(const uint8_t *p, size_t n, char *out);
/* n bytes from exactly 2n lower- or upper-case digits; ERR_MALFORMED otherwise. */
int text_unhex(const char *s, size_t len, uint8_t *out, size_t n);

/* Copy with a NUL; ERR_TOO_LARGE if it does not fit, dst is then "". */
int text_copy(char *dst, size_t cap, const char *src, size_t len);
/* As much of it as fits, up to a whole character: for texts that people read. */
void text_cut(char *dst, size_t cap, const char *src);
/* In place, what a format that bounds bytes has cut: a character that is not whole is left out at the end,
 * and is '?' before. So is every byte that belongs to none. */
void text_mend(char *s);

/* Shortest well-formed UTF-8, no surrogates (RFC 3629). */
bool text_utf8(const char *s, size_t len);

/* "16M" -> 16777216. K M G are powers of 1024; a plain number is bytes. ERR_MALFORMED,
 * ERR_TOO_LARGE. */
int text_bytes(const char *s, uint64_t *out);
/* "250ms" "30s" "5m" "2h" "7d"; a plain number is seconds. Result in ms. */
int text_duration(const char *s, int64_t *out_ms);
/* A whole decimal number within [min, max], nothing around it. */
int text_int(const char *s, int64_t min, int64_t max, int64_t *out);

/* Changes of one letter that make one word of the other, at most `most` + 1: what was meant? */
unsigned text_distance(const char *a, const char *b, unsigned most);
