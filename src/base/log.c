/* The log: see log.h. */
#include "base/log.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/clock.h"

static struct {
	char program[32];
	char name[64];
	enum log_level least;
	bool json;
	log_tap_fn *tap;
	void *tap_arg;
} logger = { .program = "tos", .least = LOG_INFO };

static const char *const level_words[] = { "debug", "info", "notice", "warning", "error" };

void log_init(const char *program, const char *name, enum log_level least, bool json)
{
	snprintf(logger.program, sizeof(logger.program), "%s", program);
	logger.least = least;
	logger.json = json;
	log_set_name(name);
}

void log_set_name(const char *name)
{
	snprintf(logger.name, sizeof(logger.name), "%s", name ? name : "");
}

enum log_level log_level_parse(const char *word)
{
	for (size_t i = 0; i < sizeof(level_words) / sizeof(level_words[0]); i++)
		if (strcmp(word, level_words[i]) == 0)
			return (enum log_level)i;
	return LOG_INFO;
}

void log_tap(log_tap_fn *fn, void *arg)
{
	logger.tap = fn;
	logger.tap_arg = arg;
}

static void add_quoted(struct buf *b, const char *s)
{
	buf_add_u8(b, '"');
	for (; *s; s++) {
		unsigned char c = (unsigned char)*s;

		if (c == '"' || c == '\\')
			buf_printf(b, "\\%c", c);
		else if (c == '\n')
			buf_add_str(b, "\\n");
		else if (c < 0x20 || c == 0x7f)
			buf_printf(b, "\\u%04x", c);
		else
			buf_add_u8(b, c);
	}
	buf_add_u8(b, '"');
}

static void add_value(struct buf *b, const char *s)
{
	bool plain = *s != 0;

	for (const char *p = s; *p && plain; p++)
		plain = (unsigned char)*p > 0x20 && *p != '"' && *p != '\\' && *p != 0x7f;
	if (plain)
		buf_add_str(b, s);
	else
		add_quoted(b, s);
}

static void line_text(struct buf *b, const char *when, enum log_level level, const char *event,
	const struct log_kv *kv, size_t n)
{
	buf_printf(b, "%s %s %s%s%s: %s", when, level_words[level], logger.program,
		logger.name[0] ? " " : "", logger.name, event);
	for (size_t i = 0; i < n; i++) {
		if (!kv[i].key)
			continue;
		buf_printf(b, " %s=", kv[i].key);
		if (kv[i].text)
			add_value(b, kv[i].text);
		else
			buf_printf(b, "%lld", (long long)kv[i].number);
	}
}

static void line_json(struct buf *b, const char *when, enum log_level level, const char *event,
	const struct log_kv *kv, size_t n)
{
	buf_printf(b, "{\"time\":\"%s\",\"level\":\"%s\",\"program\":\"%s\",\"kernel\":", when,
		level_words[level], logger.program);
	add_quoted(b, logger.name);
	buf_add_str(b, ",\"event\":");
	add_quoted(b, event);
	for (size_t i = 0; i < n; i++) {
		if (!kv[i].key)
			continue;
		buf_add_u8(b, ',');
		add_quoted(b, kv[i].key);
		buf_add_u8(b, ':');
		if (kv[i].text)
			add_quoted(b, kv[i].text);
		else
			buf_printf(b, "%lld", (long long)kv[i].number);
	}
	buf_add_u8(b, '}');
}

void log_event(enum log_level level, const char *event, const struct log_kv *kv, size_t n)
{
	AUTOBUF b = BUF_MAX(16384);
	char when[CLOCK_TEXT_BYTES];

	if (level < logger.least)
		return;
	clock_text(clock_wall_ms(), when);
	if (logger.json)
		line_json(&b, when, level, event, kv, n);
	else
		line_text(&b, when, level, event, kv, n);
	if (logger.tap)
		logger.tap(logger.tap_arg, level, buf_cstr(&b));
	buf_add_u8(&b, '\n');
	/* One write a line, so that lines of several processes do not mix; a failed one is
	 * lost: there is nowhere to say so. */
	(void)!write(STDERR_FILENO, b.data, b.len);
}

bool log_rate_ok(struct log_rate *r, uint32_t per_s)
{
	int64_t now = clock_ms() / 1000;

	if (now != r->second) {
		r->second = now;
		r->n = 0;
	}
	if (r->n >= per_s) {
		r->dropped++;
		return false;
	}
	r->n++;
	return true;
}
