/* Text: see text.h. */
#include "base/text.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"

char *text_hex(const uint8_t *p, size_t n, char *out)
{
	static const char digits[] = "0123456789abcdef";

	for (size_t i = 0; i < n; i++) {
		out[2 * i] = digits[p[i] >> 4];
		out[2 * i + 1] = digits[p[i] & 15];
	}
	out[2 * n] = 0;
	return out;
}

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}

int text_unhex(const char *s, size_t len, uint8_t *out, size_t n)
{
	if (len != 2 * n)
		return ERR_MALFORMED;
	for (size_t i = 0; i < n; i++) {
		int hi = hex_digit(s[2 * i]), lo = hex_digit(s[2 * i + 1]);

		if (hi < 0 || lo < 0)
			return ERR_MALFORMED;
		out[i] = (uint8_t)(hi << 4 | lo);
	}
	return 0;
}

int text_copy(char *dst, size_t cap, const char *src, size_t len)
{
	dst[0] = 0;
	if (len >= cap)
		return ERR_TOO_LARGE;
	if (len)
		memcpy(dst, src, len);
	dst[len] = 0;
	return 0;
}

/* Bytes that follow the lead byte, and the bounds of the first of them (RFC 3629, section 4). */
static int utf8_tail(uint8_t lead, uint8_t *least, uint8_t *most)
{
	*least = 0x80;
	*most = 0xbf;
	if (lead < 0x80)
		return 0;
	if (lead >= 0xc2 && lead <= 0xdf)
		return 1;
	if (lead >= 0xe0 && lead <= 0xef) {
		if (lead == 0xe0)
			*least = 0xa0;
		if (lead == 0xed)
			*most = 0x9f;
		return 2;
	}
	if (lead >= 0xf0 && lead <= 0xf4) {
		if (lead == 0xf0)
			*least = 0x90;
		if (lead == 0xf4)
			*most = 0x8f;
		return 3;
	}
	return -1;
}

bool text_utf8(const char *s, size_t len)
{
	const uint8_t *p = (const uint8_t *)s;

	for (size_t i = 0; i < len;) {
		uint8_t least, most;
		uint64_t eight;

		if (len - i >= 8) { /* plain ASCII goes eight at a time */
			memcpy(&eight, p + i, 8);
			if (!(eight & 0x8080808080808080u)) {
				i += 8;
				continue;
			}
		}
		int tail = utf8_tail(p[i], &least, &most);

		if (tail < 0 || (size_t)tail >= len - i)
			return false;
		for (int k = 1; k <= tail; k++) {
			if (p[i + (size_t)k] < least || p[i + (size_t)k] > most)
				return false;
			least = 0x80;
			most = 0xbf;
		}
		i += (size_t)tail + 1;
	}
	return true;
}

void text_cut(char *dst, size_t cap, const char *src)
{
	size_t n = strnlen(src, cap - 1);

	while (n && !text_utf8(src, n))
		n--;
	memcpy(dst, src, n);
	dst[n] = 0;
}

/* Bytes of the character at the beginning of s, or 0. */
static size_t character(const char *s, size_t n)
{
	for (size_t len = 1; len <= 4 && len <= n; len++)
		if (text_utf8(s, len))
			return len;
	return 0;
}

/* The beginning of one, cut off by the end. */
static bool is_begun(const char *s, size_t n)
{
	if (n > 3 || ((uint8_t)s[0] & 0xc0) != 0xc0)
		return false;
	for (size_t i = 1; i < n; i++)
		if (((uint8_t)s[i] & 0xc0) != 0x80)
			return false;
	return true;
}

void text_mend(char *s)
{
	size_t n = strlen(s);

	if (text_utf8(s, n))
		return;
	for (size_t at = 0, len; at < n; at += len) {
		len = character(s + at, n - at);
		if (len)
			continue;
		if (is_begun(s + at, n - at)) {
			s[at] = 0;
			return;
		}
		s[at] = '?';
		len = 1;
	}
}

static int number(const char *s, uint64_t *out, const char **end)
{
	char *stop;

	if (*s < '0' || *s > '9')
		return ERR_MALFORMED;
	errno = 0;
	*out = strtoull(s, &stop, 10);
	*end = stop;
	return errno ? ERR_TOO_LARGE : 0;
}

int text_bytes(const char *s, uint64_t *out)
{
	uint64_t n;
	unsigned shift = 0;
	const char *end;
	int rc = number(s, &n, &end);

	if (rc < 0)
		return rc;
	if (*end == 'K' || *end == 'k')
		shift = 10;
	else if (*end == 'M')
		shift = 20;
	else if (*end == 'G')
		shift = 30;
	else if (*end && !(*end == 'B' && !end[1]))
		return ERR_MALFORMED;
	if (shift && end[1] && !(end[1] == 'B' && !end[2]))
		return ERR_MALFORMED;
	if (shift && n > (UINT64_MAX >> 1) >> shift)
		return ERR_TOO_LARGE;
	*out = n << shift;
	return 0;
}

int text_duration(const char *s, int64_t *out_ms)
{
	static const struct {
		const char *unit;
		uint64_t ms;
	} units[] = {
		{ "", 1000 },
		{ "ms", 1 },
		{ "s", 1000 },
		{ "m", 60000 },
		{ "h", 3600000 },
		{ "d", 86400000 },
	};
	uint64_t n;
	const char *end;
	int rc = number(s, &n, &end);

	if (rc < 0)
		return rc;
	for (size_t i = 0; i < sizeof(units) / sizeof(units[0]); i++) {
		if (strcmp(end, units[i].unit) != 0)
			continue;
		if (n > (uint64_t)INT64_MAX / units[i].ms)
			return ERR_TOO_LARGE;
		*out_ms = (int64_t)(n * units[i].ms);
		return 0;
	}
	return ERR_MALFORMED;
}

int text_int(const char *s, int64_t min, int64_t max, int64_t *out)
{
	char *end;
	long long v;

	if ((*s < '0' || *s > '9') && *s != '-')
		return ERR_MALFORMED;
	errno = 0;
	v = strtoll(s, &end, 10);
	if (*end || end == s)
		return ERR_MALFORMED;
	if (errno || v < min || v > max)
		return ERR_TOO_LARGE;
	*out = v;
	return 0;
}

unsigned text_distance(const char *a, const char *b, unsigned most)
{
	unsigned row[65], n = (unsigned)strlen(b), least;

	if (n > 64 || strlen(a) > 64)
		return most + 1;
	for (unsigned j = 0; j <= n; j++)
		row[j] = j;
	for (unsigned i = 1; a[i - 1]; i++) {
		unsigned corner = row[0];

		least = row[0] = i;
		for (unsigned j = 1; j <= n; j++) {
			unsigned here = corner + (a[i - 1] != b[j - 1]);

			corner = row[j];
			here = here < row[j] + 1 ? here : row[j] + 1;
			row[j] = here < row[j - 1] + 1 ? here : row[j - 1] + 1;
			least = row[j] < least ? row[j] : least;
		}
		if (least > most)
			return most + 1;
	}
	return row[n];
}
