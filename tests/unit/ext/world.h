/* A kernel as small as extensions need one: a loop, a host, and what they sent. */
#pragma once

/* clang-format off */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
/* clang-format on */

#include <stdbool.h>
#include <sys/types.h>
#include <uv.h>

#include <tos/extension.h>

#include "base/clock.h"
#include "base/mem.h"
#include "ext/ext.h"

#define SENT_MAX 512

struct sent {
	enum post_kind kind;
	char sender[64], dest[NAME_BYTES_MAX + 1], folder[NAME_BYTES_MAX + 1];
	struct tos_value *elements;
	uint64_t tag;
	uint32_t deadline_ms;
	int64_t at;
};

struct world {
	uv_loop_t loop;
	struct ext_host *host;
	struct sent sent[SENT_MAX];
	size_t n_sent;
	const char *refused; /* a folder of which no call or post is taken */
	/* Answers what an extension sends; NULL: it is only kept. */
	void (*on_send)(struct world *w, struct sent *s);
	void *script;
	char forwarded[16][64];
	uint64_t forwarded_tag[16];
	size_t n_forwarded;
	unsigned n_ready, n_lost, n_spawned, n_killed;
	int ready_rc;
	char ready_why[256], lost_why[256];
	struct {
		char name[64];
		uint64_t n;
	} count[64];
	char property[16][2][256];
	size_t n_properties;
	const char *configured[4][2];
	bool closed;
	/* isolated */
	const char *library; /* of the tos-ext to start; NULL: tests attach themselves */
	pid_t pid;
	uint64_t next_tag;
};

struct world *world_new(void);
void world_free(struct world *w); /* closes the host, checks that nothing is left */
int world_load(struct world *w, const char *name, const char *library, const char *privileges,
	bool isolated, struct errmsg *em);

/* Run the loop until cond(w) or 5 s have passed; whether it came true. */
bool world_until(struct world *w, bool (*cond)(struct world *w));
void world_run(struct world *w, int64_t ms);

/* Posts with sender and class; elements (an array or NULL) are taken. Returns ext_deliver()'s
 * result; a call's tag is w->next_tag - 1 afterwards. */
int world_post(struct world *w, enum post_kind kind, const char *sender, const char *class,
	const char *inbox, const char *folder, struct tos_value *elements,
	uint32_t deadline_ms);
/* Call it and wait for the answer; fails the test if there is none. */
struct sent *world_call(
	struct world *w, const char *inbox, const char *folder, struct tos_value *elements);
/* Answer what an extension called; elements are taken. rc < 0: a failure with that text. */
void world_answer(struct world *w, const struct sent *s, int rc, const char *text,
	struct tos_value *elements);
/* The answer or failure with that tag, or NULL. */
struct sent *world_sent_tag(struct world *w, uint64_t tag);
/* The nth post or call with that folder, or NULL. */
struct sent *world_sent_folder(struct world *w, const char *folder, size_t nth);
uint64_t world_count(const struct world *w, const char *name);
const char *world_property(const struct world *w, const char *path);
/* The word of a failure. */
const char *failure_word(const struct sent *s);
const char *failure_text(const struct sent *s);

/* An array of texts; NULL ends. */
struct tos_value *texts(const char *first, ...);
struct tos_value *array_of(struct tos_value *v);
