/*
 * A body in parts: nobody else includes this.
 *
 *   body.c        its life, its inboxes and properties, and when the extension is called
 *   body_calls.c  what the extension sends, and what it waits for
 *   outside.c     connections, descriptors that are watched, what it was granted
 */
#pragma once

#include "base/buf.h"
#include "base/list.h"
#include "base/map.h"
#include "ext/body.h"

#define NEVER INT64_MAX

struct tos_inbox {
	const struct tos_host_table *host; /* first: TOS_HOST() */
	struct body *body;
	const struct tos_inbox_spec *spec;
	struct list items;
	size_t n;
	bool posted;     /* since its last wake */
	int64_t wake_at; /* by wait_ms */
	/* what the last tos_inbox_next() lent out */
	struct item *lent;
	struct tos_value *elements;
	char folder[NAME_BYTES_MAX + 1];
};

struct watch {
	int fd;
	unsigned events, so;
	tos_watch_fn *fn;
	void *arg;
};

struct prop {
	const struct tos_property_spec *spec;
	char value[EXT_VALUE_BYTES];
};

struct tos_ext {
	const struct tos_host_table *host; /* first: TOS_HOST() */
};

struct body {
	struct tos_ext ext; /* first */
	const struct tos_extension *spec;
	const struct body_ops *ops;
	void *arg;
	void *data;
	char kernel[NAME_BYTES_MAX + 1];
	struct tos_inbox inbox[EXT_INBOXES_MAX];
	size_t n_inboxes;
	struct prop prop[EXT_PROPERTIES_MAX];
	size_t n_props;
	struct list calls;   /* awaited */
	struct list answers; /* to be told */
	struct list timers;
	struct map *by_seq;
	uint64_t next_seq;
	size_t n_calls, n_timers;
	int64_t due; /* nothing in calls, connects and timers is due before this */
	/* outside */
	struct tos_value *places;
	char *directory;
	struct blob trusted;
	struct list connects;
	size_t n_connects;
	uint64_t next_connect;
	struct watch watch[EXT_WATCHES_MAX];
	size_t n_watches;
	bool started;
};

static struct body *body_of(struct tos_ext *x)
{
	return CONTAINER_OF(x, struct body, ext);
}

/* Something is due by then. */
void body_due(struct body *b, int64_t when);
/* What was lent to the extension ends with the return to us. */
void inboxes_take_back(struct body *b);

/* ---- body_calls.c. What is due is done; what is not makes b->due exact. */
void calls_expire(struct body *b, int64_t now);
void timers_run(struct body *b, int64_t now);
void answers_run(struct body *b);
void calls_free(struct body *b); /* timers too */

int host_reply(
	struct tos_ext *x, uint64_t token, const char *folder, struct tos_value *elements);
int host_fail(struct tos_ext *x, uint64_t token, int rc, const char *text);
int host_forward(struct tos_ext *x, uint64_t token, const char *kernel);
int host_post(
	struct tos_ext *x, const char *dest, const char *folder, struct tos_value *elements);
int host_call(struct tos_ext *x, const char *dest, const char *folder,
	struct tos_value *elements, uint32_t timeout_ms, tos_answer_fn *done, void *arg);
struct tos_timer *host_timer(
	struct tos_ext *x, uint32_t after_ms, void (*fn)(struct tos_ext *, void *), void *arg);
void host_timer_stop(struct tos_timer *t);

/* ---- outside.c */
void outside_run(struct body *b, int64_t now);
void outside_free(struct body *b);

const char *host_place(struct tos_ext *x, size_t i);
const void *host_trusted(struct tos_ext *x, size_t *n);
const char *host_directory(struct tos_ext *x);
int host_accept(struct tos_ext *x, uint32_t timeout_ms, tos_connected_fn *done, void *arg);
int host_connect(struct tos_ext *x, const char *host, uint16_t port, uint32_t timeout_ms,
	tos_connected_fn *done, void *arg);
int host_watch(struct tos_ext *x, int fd, unsigned events, tos_watch_fn *fn, void *arg);
void host_audit(struct tos_ext *x, const char *event, struct tos_value *map);
