/* Tables for people: aligned columns from arrays of maps. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <wchar.h>

#include "base/mem.h"
#include "cli/cli.h"
#include "lib/bundle.h"

#define COLUMNS_MAX 32

struct column {
	char key[65], title[65];
	size_t width;
	bool numbers; /* all of them: right-aligned */
};

/* Characters on the screen: UTF-8 continuation bytes don't count. */
static size_t shown_width(const char *s)
{
	size_t n = 0;

	for (; *s; s++)
		n += ((unsigned char)*s & 0xc0) != 0x80;
	return n;
}

/* One character of s that steers a terminal: of C0 and C1 (in UTF-8: two bytes), or DEL; 0: it is none. */
static size_t steers(const char *s, size_t n)
{
	unsigned char c = (unsigned char)s[0];

	if (c < 0x20 || c == 0x7f)
		return 1;
	return c == 0xc2 && n > 1 && (unsigned char)s[1] >= 0x80 && (unsigned char)s[1] < 0xa0
		       ? 2
		       : 0;
}

void put_shown(struct buf *b, const char *s, size_t n, const char *kept)
{
	size_t bad;

	for (; n; s += bad ? bad : 1, n -= bad ? bad : 1) {
		bad = steers(s, n);
		buf_add_u8(b, !bad || (*s && strchr(kept, *s)) ? (uint8_t)*s
			      : *s == '\n'                     ? ' '
							       : '?');
	}
}

const char *text_shown(struct buf *b, const char *s)
{
	buf_clear(b);
	put_shown(b, s, strlen(s), "\n\t");
	return buf_cstr(b);
}

void put_text(struct buf *b, const struct tos_value *v)
{
	const char *s;
	char *json;

	if (!v || tos_type(v) == TOS_NIL)
		return;
	s = tos_as_text(v, NULL);
	json = s ? NULL : tos_type(v) == TOS_FLOAT ? NULL : tos_to_json(v, 0);
	if (tos_type(v) == TOS_FLOAT)
		buf_printf(b, "%.6g", tos_as_float(v, 0));
	s = s ? s : json ? json : "";
	put_shown(b, s, strlen(s), "");
	free(json);
}

/* A row that is no map is one value. */
static const struct tos_value *cell_value(const struct tos_value *row, const char *key)
{
	if (tos_type(row) == TOS_MAP)
		return tos_get(row, key);
	return strcmp(key, "value") == 0 ? row : NULL;
}

static void cell(const struct tos_value *row, const char *key, struct buf *out)
{
	buf_clear(out);
	put_text(out, cell_value(row, key));
}

static void add_column(struct column *c, size_t *n, const char *key, const char *title)
{
	for (size_t i = 0; i < *n; i++)
		if (strcmp(c[i].key, key) == 0)
			return;
	if (*n == COLUMNS_MAX || strlen(key) > 64)
		return;
	snprintf(c[*n].key, sizeof(c->key), "%s", key);
	snprintf(c[*n].title, sizeof(c->title), "%.64s", title);
	c[(*n)++].numbers = true;
}

static size_t columns_given(const char *text, struct column *c)
{
	size_t n = 0;

	while (*text) {
		char key[65], title[65];
		size_t len = strcspn(text, " "), k = strcspn(text, ": ");

		snprintf(key, sizeof(key), "%.*s", (int)k, text);
		snprintf(title, sizeof(title), "%.*s", k < len ? (int)(len - k - 1) : (int)len,
			k < len ? text + k + 1 : text);
		add_column(c, &n, key, title);
		text += len;
		text += strspn(text, " ");
	}
	return n;
}

static bool any_has(const struct tos_value *rows, const char *key)
{
	for (size_t i = 0; i < tos_len(rows); i++)
		if (tos_type(tos_at(rows, i)) == TOS_MAP && tos_get(tos_at(rows, i), key))
			return true;
	return false;
}

/* The encoding sorts keys, so the order that the carrier wrote is lost: `kernel` and `host`
 * lead. */
static size_t columns_union(const struct tos_value *rows, struct column *c)
{
	static const char *const lead[] = { "kernel", "host", "os" };
	size_t n = 0;

	for (size_t i = 0; i < ARRAY_LEN(lead); i++)
		if (any_has(rows, lead[i]))
			add_column(c, &n, lead[i], lead[i]);
	for (size_t i = 0; i < tos_len(rows); i++) {
		const struct tos_value *row = tos_at(rows, i);

		if (tos_type(row) != TOS_MAP)
			add_column(c, &n, "value", "value");
		for (size_t k = 0; tos_type(row) == TOS_MAP && k < tos_len(row); k++) {
			const char *key = tos_as_text(tos_key_at(row, k), NULL);

			if (key)
				add_column(c, &n, key, key);
		}
	}
	return n;
}

static void measure(const struct tos_value *rows, struct column *c, size_t n)
{
	AUTOBUF text = BUF_INIT;

	for (size_t k = 0; k < n; k++)
		c[k].width = shown_width(c[k].title);
	for (size_t i = 0; i < tos_len(rows); i++)
		for (size_t k = 0; k < n; k++) {
			const struct tos_value *v = cell_value(tos_at(rows, i), c[k].key);
			size_t w;

			cell(tos_at(rows, i), c[k].key, &text);
			w = shown_width(buf_cstr(&text));
			c[k].width = w > c[k].width ? w : c[k].width;
			if (text.len && tos_type(v) != TOS_INT && tos_type(v) != TOS_FLOAT)
				c[k].numbers = false;
		}
}

static void put_cell(struct buf *out, const char *text, const struct column *c, bool last)
{
	size_t w = shown_width(text), pad = c->width > w ? c->width - w : 0;

	if (c->numbers && !(last && !w))
		buf_printf(out, "%*s%s", (int)pad, "", text);
	else
		buf_printf(out, "%s%*s", text, last ? 0 : (int)pad, "");
	buf_add_str(out, last ? "\n" : "  ");
}

/* No blanks where the last cells of a row are empty. */
static void end_line(struct buf *out)
{
	size_t n = out->len;

	while (n > 1 && out->data[n - 1] == '\n' && out->data[n - 2] == ' ')
		out->data[--n - 1] = '\n';
	out->len = n;
}

void table_text(const struct tos_value *rows, const char *columns, struct buf *out)
{
	struct column c[COLUMNS_MAX];
	AUTOBUF text = BUF_INIT;
	size_t n;

	memset(c, 0, sizeof(c));
	n = columns ? columns_given(columns, c) : columns_union(rows, c);
	measure(rows, c, n);
	for (size_t k = 0; k < n; k++)
		put_cell(out, c[k].title, &c[k], k + 1 == n);
	for (size_t i = 0; i < tos_len(rows); i++) {
		for (size_t k = 0; k < n; k++) {
			cell(tos_at(rows, i), c[k].key, &text);
			put_cell(out, buf_cstr(&text), &c[k], k + 1 == n);
		}
		end_line(out);
	}
}

void table_print(const struct tos_value *rows, const char *columns, FILE *out)
{
	AUTOBUF text = BUF_INIT;

	table_text(rows, columns, &text);
	fwrite(text.data, 1, text.len, out);
}

void age_text(int64_t since, int64_t now, char out[16])
{
	static const struct {
		int64_t ms;
		char unit;
	} units[] = { { 86400000, 'd' }, { 3600000, 'h' }, { 60000, 'm' }, { 1000, 's' } };
	int64_t age = now > since ? now - since : 0;

	snprintf(out, 16, "0s");
	if (since <= 0) {
		snprintf(out, 16, "-");
		return;
	}
	for (size_t i = 0; i < ARRAY_LEN(units); i++)
		if (age >= units[i].ms) {
			snprintf(out, 16, "%" PRId64 "%c", age / units[i].ms, units[i].unit);
			return;
		}
}

/* "16M", or "98.8K" where it is no whole number of any unit. */
static void size_text(int64_t v, char *out, size_t cap)
{
	static const char units[] = "\0KMGT";
	double d = (double)v;
	size_t u = 0;

	for (; d >= 1024 && u + 1 < sizeof(units) - 1; u++)
		d /= 1024;
	snprintf(out, cap, d == (double)(int64_t)d ? "%.0f%.1s" : "%.1f%.1s", d, &units[u]);
}

/* In the largest unit that it is a whole number of: "10s", "1500ms". */
static void time_text(int64_t ms, char *out, size_t cap)
{
	static const struct {
		int64_t ms;
		const char *unit;
	} units[] = { { 86400000, "d" }, { 3600000, "h" }, { 60000, "m" }, { 1000, "s" },
		{ 1, "ms" } };
	size_t u = 0;

	while (ms == 0 || ms % units[u].ms) {
		if (++u == ARRAY_LEN(units) - 1)
			break;
	}
	snprintf(out, cap, "%" PRId64 "%s", ms / units[u].ms, units[u].unit);
}

void limit_text(const char *name, int64_t value, char *out, size_t cap)
{
	int id = limit_find(name, strlen(name));
	const char *unit = id >= 0 ? limit_units[id] : "";

	if (strcmp(unit, "B") == 0)
		size_text(value, out, cap);
	else if (strcmp(unit, "ms") == 0)
		time_text(value, out, cap);
	else
		snprintf(out, cap, "%" PRId64, value);
}
