/*
 * The log: one event, one line, key=value (or JSON) on stderr.
 *
 *   2026-11-22T01:02:03.456Z notice host0 move refused carrier=host0#42 peer=host2 error=denied
 *
 * What a peer can trigger is rate-limited by the caller's LOG_RATED and at most notice; error
 * means that an operator must act. No secrets. Control characters and quotes in values are
 * escaped.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct errmsg;

enum log_level { LOG_DEBUG, LOG_INFO, LOG_NOTICE, LOG_WARNING, LOG_ERROR };

struct log_kv {
	const char *key;
	const char *text; /* NULL: the number */
	int64_t number;
};

static inline const char *log_text(const char *s)
{
	return s ? s : "-";
}
#define KV_STR(k, v) ((struct log_kv){ (k), log_text(v), 0 })
#define KV_INT(k, v) ((struct log_kv){ (k), NULL, (int64_t)(v) })
/* Two fields: error=<word> and reason=<text>. */
#define KV_ERR(rc, em) KV_STR("error", err_word(rc)), KV_STR("reason", err_show((rc), (em)))

/* program: "tosd", "tos-kernel"...; name: the kernel's name or NULL. Strings are copied. */
void log_init(const char *program, const char *name, enum log_level least, bool json);
void log_set_name(const char *name);
enum log_level log_level_parse(const char *word); /* LOG_INFO for an unknown word */

/* A second reader of each line (the kernel keeps recent events); called after writing. */
typedef void log_tap_fn(void *arg, enum log_level level, const char *line);
void log_tap(log_tap_fn *fn, void *arg);

void log_event(enum log_level level, const char *event, const struct log_kv *kv, size_t n);
#define LOG_(level, event, ...)                                                                \
	log_event((level), (event),                                                            \
		(const struct log_kv[]){ { NULL, NULL, 0 }, ##__VA_ARGS__ },                   \
		sizeof((const struct log_kv[]){ { NULL, NULL, 0 }, ##__VA_ARGS__ }) /          \
			sizeof(struct log_kv))
#define log_debug(event, ...)   LOG_(LOG_DEBUG, event, ##__VA_ARGS__)
#define log_info(event, ...)    LOG_(LOG_INFO, event, ##__VA_ARGS__)
#define log_notice(event, ...)  LOG_(LOG_NOTICE, event, ##__VA_ARGS__)
#define log_warning(event, ...) LOG_(LOG_WARNING, event, ##__VA_ARGS__)
#define log_error(event, ...)   LOG_(LOG_ERROR, event, ##__VA_ARGS__)

/* True at most `per_s` times a second for this static counter; the first line of the next
 * second that passes carries how many were left out. */
struct log_rate {
	int64_t second;
	uint32_t n;
	uint32_t dropped;
};
bool log_rate_ok(struct log_rate *r, uint32_t per_s);
