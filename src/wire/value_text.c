/*
 * Values as text for people: JSON, and the diagnostic notation of RFC 8949. See include/tos/value.h,
 * whose functions are all that is needed here.
 */
#include <tos/value.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/mem.h"
#include "base/text.h"
#include "wire/cbor.h"

/* Quoted as JSON does; diagnostic notation takes its strings from there. */
static void print_text(struct buf *b, const uint8_t *s, size_t n)
{
	size_t done = 0;

	buf_add_u8(b, '"');
	for (size_t i = 0; i < n; i++) {
		if (s[i] >= 0x20 && s[i] != '"' && s[i] != '\\' && s[i] != 0x7f)
			continue;
		buf_add(b, s + done, i - done);
		done = i + 1;
		if (s[i] == '"' || s[i] == '\\')
			buf_printf(b, "\\%c", s[i]);
		else if (s[i] == '\n')
			buf_add_str(b, "\\n");
		else if (s[i] == '\t')
			buf_add_str(b, "\\t");
		else
			buf_printf(b, "\\u%04x", s[i]);
	}
	buf_add(b, s + done, n - done);
	buf_add_u8(b, '"');
}

/* The fewest digits that read back as the same number, and always a mark of a float. */
static void print_float(struct buf *b, double d)
{
	char text[40];

	for (int digits = 15; digits <= 17; digits++) {
		snprintf(text, sizeof(text), "%.*g", digits, d);
		if (strtod(text, NULL) == d)
			break;
	}
	buf_add_str(b, text);
	if (!strpbrk(text, ".e"))
		buf_add_str(b, ".0");
}

static void print_base64(struct buf *b, const struct tos_value *v)
{
	static const char set[] =
		"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	size_t n;
	const uint8_t *p = tos_as_bytes(v, &n);

	for (size_t i = 0; i < n; i += 3) {
		size_t have = n - i < 3 ? n - i : 3;
		uint32_t u = (uint32_t)p[i] << 16 | (have > 1 ? (uint32_t)p[i + 1] << 8 : 0) |
			     (have > 2 ? p[i + 2] : 0u);
		char four[4] = { set[u >> 18], set[u >> 12 & 63],
			have > 1 ? set[u >> 6 & 63] : '=', have > 2 ? set[u & 63] : '=' };

		buf_add(b, four, 4);
	}
}

static void new_line(struct buf *b, unsigned indent, unsigned depth)
{
	static const char blanks[] = "                ";

	if (!indent)
		return;
	buf_add_u8(b, '\n');
	for (size_t n = (size_t)indent * depth; n;) {
		size_t some = n < sizeof(blanks) - 1 ? n : sizeof(blanks) - 1;

		buf_add(b, blanks, some);
		n -= some;
	}
}

static const struct tos_value *item_of(const struct tos_value *v, size_t i)
{
	return tos_type(v) == TOS_MAP ? tos_value_at(v, i) : tos_at(v, i);
}

static void diag_at(struct buf *b, const struct tos_value *v, unsigned depth);
static void json_at(struct buf *b, const struct tos_value *v, unsigned indent, unsigned depth);

/* A text, or the bytes of one. */
static void print_string(struct buf *b, const struct tos_value *v)
{
	size_t n;
	const uint8_t *s = tos_as_bytes(v, &n);

	print_text(b, s, n);
}

static void json_key(struct buf *b, const struct tos_value *key)
{
	AUTOBUF text = BUF_INIT;

	if (tos_type(key) == TOS_TEXT) {
		print_string(b, key);
		return;
	}
	diag_at(&text, key, 0);
	if (text.failed)
		b->failed = true;
	print_text(b, text.data, text.len);
}

static void json_container(
	struct buf *b, const struct tos_value *v, unsigned indent, unsigned depth)
{
	bool map = tos_type(v) == TOS_MAP;

	buf_add_u8(b, map ? '{' : '[');
	for (size_t i = 0; i < tos_len(v) && !b->failed; i++) {
		if (i)
			buf_add_str(b, indent ? "," : ", ");
		new_line(b, indent, depth + 1);
		if (map) {
			json_key(b, tos_key_at(v, i));
			buf_add_str(b, ": ");
		}
		json_at(b, item_of(v, i), indent, depth + 1);
	}
	if (tos_len(v))
		new_line(b, indent, depth);
	buf_add_u8(b, map ? '}' : ']');
}

static void json_at(struct buf *b, const struct tos_value *v, unsigned indent, unsigned depth)
{
	switch (tos_type(v)) {
	case TOS_NIL:
		buf_add_str(b, "null");
		break;
	case TOS_BOOL:
		buf_add_str(b, tos_as_bool(v, false) ? "true" : "false");
		break;
	case TOS_INT:
		buf_printf(b, "%lld", (long long)tos_as_int(v, 0));
		break;
	case TOS_FLOAT:
		if (isfinite(tos_as_float(v, 0)))
			print_float(b, tos_as_float(v, 0));
		else
			buf_add_str(b, "null");
		break;
	case TOS_BYTES:
		buf_add_str(b, "\"base64:");
		print_base64(b, v);
		buf_add_u8(b, '"');
		break;
	case TOS_TEXT:
		print_string(b, v);
		break;
	case TOS_ARRAY:
	case TOS_MAP:
		if (depth >= CBOR_DEPTH_MAX)
			b->failed = true;
		else
			json_container(b, v, indent, depth);
		break;
	case TOS_TAG:
		buf_printf(b,
			"{\"tag\": %llu, \"value\": ", (unsigned long long)tos_tag_number(v));
		json_at(b, tos_tag_value(v), indent, depth);
		buf_add_u8(b, '}');
		break;
	}
}

static void diag_container(struct buf *b, const struct tos_value *v, unsigned depth)
{
	bool map = tos_type(v) == TOS_MAP;

	if (depth >= CBOR_DEPTH_MAX) {
		b->failed = true;
		return;
	}
	buf_add_u8(b, map ? '{' : '[');
	for (size_t i = 0; i < tos_len(v) && !b->failed; i++) {
		if (i)
			buf_add_str(b, ", ");
		if (map) {
			diag_at(b, tos_key_at(v, i), depth + 1);
			buf_add_str(b, ": ");
		}
		diag_at(b, item_of(v, i), depth + 1);
	}
	buf_add_u8(b, map ? '}' : ']');
}

static void diag_float(struct buf *b, double d)
{
	if (isnan(d))
		buf_add_str(b, "NaN");
	else if (isinf(d))
		buf_add_str(b, d < 0 ? "-Infinity" : "Infinity");
	else
		print_float(b, d);
}

static void diag_bytes(struct buf *b, const struct tos_value *v)
{
	size_t n;
	const uint8_t *p = tos_as_bytes(v, &n);

	buf_add_str(b, "h'");
	for (size_t i = 0; i < n; i++) {
		char two[3];

		buf_add(b, text_hex(p + i, 1, two), 2);
	}
	buf_add_u8(b, '\'');
}

static void diag_at(struct buf *b, const struct tos_value *v, unsigned depth)
{
	switch (tos_type(v)) {
	case TOS_FLOAT:
		diag_float(b, tos_as_float(v, 0));
		break;
	case TOS_BYTES:
		diag_bytes(b, v);
		break;
	case TOS_ARRAY:
	case TOS_MAP:
		diag_container(b, v, depth);
		break;
	case TOS_TAG:
		buf_printf(b, "%llu(", (unsigned long long)tos_tag_number(v));
		diag_at(b, tos_tag_value(v), depth);
		buf_add_u8(b, ')');
		break;
	default: /* as in JSON */
		json_at(b, v, 0, depth);
		break;
	}
}

static char *text_steal(struct buf *b)
{
	buf_add_u8(b, 0);
	return b->failed ? NULL : (char *)STEAL(b->data);
}

char *tos_to_json(const struct tos_value *v, unsigned indent)
{
	AUTOBUF b = BUF_INIT;

	json_at(&b, v, indent, 0);
	return text_steal(&b);
}

char *tos_to_diag(const struct tos_value *v)
{
	AUTOBUF b = BUF_INIT;

	diag_at(&b, v, 0);
	return text_steal(&b);
}
