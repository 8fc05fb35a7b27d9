/*
 * The extension's side of the ABI: the struct tos_ext that an extension is given. Queues,
 * answers awaited, timers, properties. The same code runs in tos-kernel, for extensions that
 * live there, and in tos-ext; what lies behind it is a table of functions. No I/O and no loop:
 * whoever embeds it calls body_run() soon after `busy`, and when the time body_run() returned
 * has passed.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <tos/extension.h>

#include "base/err.h"
#include "wire/frame.h"

#define EXT_INBOXES_MAX    16
#define EXT_PROPERTIES_MAX 64
#define EXT_CALLS_MAX      4096 /* answers that one extension awaits */
#define EXT_TIMERS_MAX     4096
#define EXT_VALUE_BYTES    256 /* a property's value */
#define EXT_WATCHES_MAX    64
#define EXT_CONNECTS_MAX   64

struct body;

/* What happens to what the extension does. Functions that return int return 0 or a negative
 * enum err, which the extension sees. All slices are borrowed for the call. */
struct body_ops {
	int (*send)(void *arg, enum post_kind kind, const char *dest, uint64_t seq,
		uint32_t deadline_ms, struct slice folder);
	int (*reply)(void *arg, uint64_t token, struct slice folder);
	int (*fail)(void *arg, uint64_t token, int rc, const char *text);
	int (*forward)(void *arg, uint64_t token, const char *kernel);
	void (*taken)(void *arg, const char *inbox, uint32_t n);
	void (*log)(void *arg, int level, const char *text);
	void (*count)(void *arg, const char *name, uint64_t delta);
	void (*property)(void *arg, const char *path, const char *value);
	void (*busy)(void *arg); /* body_run() has something to do */
	/* All NULL: what is outside is not to be had here. */
	int (*connect)(void *arg, uint64_t number, const char *host, uint16_t port,
		uint32_t timeout_ms);
	int (*accept)(void *arg, uint64_t number, uint32_t timeout_ms);
	void (*audit)(void *arg, const char *event, struct slice map);
};

/*
 * spec       outlives the body
 * first_seq  the number of its first call; the next ones ascend. Two lives of one extension
 * must not share numbers, else an answer could reach the wrong one Errors     ERR_LIMIT too
 * many inboxes or properties
 */
int body_new(const struct tos_extension *spec, const char *kernel, uint64_t first_seq,
	const struct body_ops *ops, void *arg, struct body **out);
void body_free(struct body *b); /* frees what is queued, tells nobody */

/* A configured value, before body_start(). ERR_NOT_FOUND, ERR_MALFORMED by the property's type.
 */
int body_configure(struct body *b, const char *path, const char *value, struct errmsg *em);
int body_start(struct body *b, struct errmsg *em); /* the extension's start() */
void body_stop(struct body *b);

/* Queue a post for its inbox; token 0 for one that wants no answer. info may be NULL. The bound
 * is the caller's business. ERR_NO_INBOX, ERR_NOMEM. Never calls the extension. */
int body_deliver(struct body *b, const char *inbox, const struct post *p, uint64_t token,
	uint32_t deadline_ms, const struct tos_value *info);
/* Forget what it has not taken; from now on there is nothing more to take. */
void body_drain(struct body *b);
/* The answer (POST_ANSWER, POST_FAILURE) to a call; one that nobody awaits is dropped. */
void body_answer(struct body *b, uint64_t seq, enum post_kind kind, struct slice folder);

/* Call the extension for all that is due now. Returns the ms until something is due again, -1
 * never. Not to be called from within the extension's own calls. */
int64_t body_run(struct body *b);

/* What is wrong with this constant, if anything: the ABI's version, names, bounds, doubles.
 * ERR_VERSION, ERR_MALFORMED, ERR_NAME. */
int body_check(const struct tos_extension *spec, struct errmsg *em);
bool body_inbox_name_ok(const char *s);
/* ERR_MALFORMED: value is not of that type or out of bounds. */
int body_value_ok(const char *type, int64_t min, int64_t max, const char *value);
/* Every word of `asked` stands in `granted`; else ERR_DENIED naming the first that doesn't. */
int body_privileges_ok(const char *asked, const char *granted, struct errmsg *em);

/* ---- what is outside (tos-ext only) */
struct pollfd;
/* Before body_start(): the configured places, certificates, the directory or NULL; all copied. */
void body_outside(struct body *b, const struct tos_value *places, struct slice trusted,
	const char *directory);
/* The outcome of a connect or accept; takes fd. */
void body_connected(struct body *b, uint64_t number, int rc, const char *text, int fd);
/* What is watched, at most `most`; and what poll() said of it. */
size_t body_watched(const struct body *b, struct pollfd *out, size_t most);
size_t body_watching(const struct body *b);
void body_polled(struct body *b, const struct pollfd *in, size_t n);
