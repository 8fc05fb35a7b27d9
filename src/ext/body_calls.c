/*
 * What an extension sends, each folder encoded here, and what it then waits for: the answers to its
 * calls, and its timers.
 */
#include "ext/body_in.h"

#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/text.h"

struct call {
	struct list link; /* calls; once answered: answers */
	uint64_t seq;
	int64_t due;
	tos_answer_fn *done;
	void *arg;
	int rc; /* of the answer */
	char folder[NAME_BYTES_MAX + 1];
	char text[256];
	struct tos_value *elements;
};

struct tos_timer {
	struct list link;
	struct body *body;
	int64_t due;
	void (*fn)(struct tos_ext *, void *);
	void *arg;
};

/* Encode [folder, elements]; takes elements. */
static int folder_make(struct buf *b, const char *folder, struct tos_value *elements)
{
	const struct tos_value **each = NULL;
	size_t n = tos_len(elements);
	int rc = 0;

	if (elements && tos_type(elements) != TOS_ARRAY)
		rc = ERR_MALFORMED;
	else if (strlen(folder) > NAME_BYTES_MAX)
		rc = ERR_NAME;
	else if (n) {
		each = mem_try(n * sizeof(*each));
		if (!each)
			rc = ERR_NOMEM;
	}
	if (!rc) {
		for (size_t i = 0; i < n; i++)
			each[i] = tos_at(elements, i);
		b->max = FRAME_BYTES_MAX;
		folder_encode(b, folder, each, n);
		rc = buf_check(b);
	}
	free(each);
	tos_value_free(elements);
	return rc;
}

int host_reply(
	struct tos_ext *x, uint64_t token, const char *folder, struct tos_value *elements)
{
	struct body *b = body_of(x);
	AUTOBUF f = BUF_INIT;
	int rc = folder_make(&f, folder ? folder : "", elements);

	if (rc < 0) {
		/* The caller must not wait for an answer that can't be made. */
		b->ops->fail(b->arg, token, rc, "the answer could not be encoded");
		return rc;
	}
	return b->ops->reply(b->arg, token, slice_buf(&f));
}

int host_fail(struct tos_ext *x, uint64_t token, int rc, const char *text)
{
	struct body *b = body_of(x);

	return b->ops->fail(b->arg, token, rc < 0 ? rc : ERR_UNKNOWN, text ? text : "");
}

int host_forward(struct tos_ext *x, uint64_t token, const char *kernel)
{
	struct body *b = body_of(x);

	return b->ops->forward(b->arg, token, kernel);
}

static bool dest_ok(const char *dest)
{
	return dest && *dest && strlen(dest) <= NAME_BYTES_MAX && text_utf8(dest, strlen(dest));
}

int host_post(
	struct tos_ext *x, const char *dest, const char *folder, struct tos_value *elements)
{
	struct body *b = body_of(x);
	AUTOBUF f = BUF_INIT;
	int rc = folder_make(&f, folder ? folder : "", elements);

	if (rc < 0)
		return rc;
	if (!dest_ok(dest))
		return ERR_NAME;
	return b->ops->send(b->arg, POST_ONEWAY, dest, 0, 0, slice_buf(&f));
}

static void call_free(struct call *c)
{
	tos_value_free(c->elements);
	free(c);
}

static struct call *call_new(
	struct body *b, uint32_t timeout_ms, tos_answer_fn *done, void *arg)
{
	struct call *c;

	if (b->n_calls >= EXT_CALLS_MAX)
		return NULL;
	c = mem_try(sizeof(*c));
	if (!c)
		return NULL;
	*c = (struct call){ .seq = b->next_seq++,
		.due = clock_ms() + (timeout_ms ? timeout_ms : 30000),
		.done = done,
		.arg = arg };
	list_init(&c->link);
	map_put(b->by_seq, &c->seq, sizeof(c->seq), c);
	list_add(&b->calls, &c->link);
	b->n_calls++;
	return c;
}

static void call_forget(struct body *b, struct call *c)
{
	map_del(b->by_seq, &c->seq, sizeof(c->seq));
	list_del(&c->link);
	b->n_calls--;
	call_free(c);
}

int host_call(struct tos_ext *x, const char *dest, const char *folder,
	struct tos_value *elements, uint32_t timeout_ms, tos_answer_fn *done, void *arg)
{
	struct body *b = body_of(x);
	AUTOBUF f = BUF_INIT;
	int rc = folder_make(&f, folder ? folder : "", elements);
	struct call *c;
	uint64_t seq;

	if (rc < 0)
		return rc;
	if (!dest_ok(dest))
		return ERR_NAME;
	c = call_new(b, timeout_ms, done, arg);
	if (!c)
		return b->n_calls >= EXT_CALLS_MAX ? ERR_LIMIT : ERR_NOMEM;
	body_due(b, c->due);
	/* The answer may be queued before send() returns, so look the call up again. */
	seq = c->seq;
	rc = b->ops->send(
		b->arg, POST_CALL, dest, seq, timeout_ms ? timeout_ms : 30000, slice_buf(&f));
	if (rc < 0) {
		c = map_find(b->by_seq, &seq, sizeof(seq));
		if (c)
			call_forget(b, c);
	}
	return rc;
}

struct tos_timer *host_timer(
	struct tos_ext *x, uint32_t after_ms, void (*fn)(struct tos_ext *, void *), void *arg)
{
	struct body *b = body_of(x);
	struct tos_timer *t = b->n_timers < EXT_TIMERS_MAX ? mem_try(sizeof(*t)) : NULL;

	if (!t)
		return NULL;
	*t = (struct tos_timer){
		.body = b, .due = clock_ms() + after_ms, .fn = fn, .arg = arg
	};
	list_add(&b->timers, &t->link);
	b->n_timers++;
	body_due(b, t->due);
	return t;
}

static void timer_drop(struct tos_timer *t)
{
	t->body->n_timers--;
	list_del(&t->link);
	free(t);
}

void host_timer_stop(struct tos_timer *t)
{
	if (t)
		timer_drop(t);
}

/* A failure's folder is ["failure", [word, text]]. */
static void call_failed(struct call *c)
{
	const char *word = tos_as_text(tos_at(c->elements, 0), "unknown");

	c->rc = err_from_word(word, strlen(word));
	snprintf(c->text, sizeof(c->text), "%s",
		tos_as_text(tos_at(c->elements, 1), err_text(c->rc)));
	tos_value_free(c->elements);
	c->elements = NULL;
	c->folder[0] = 0;
}

void body_answer(struct body *b, uint64_t seq, enum post_kind kind, struct slice folder)
{
	struct call *c = map_find(b->by_seq, &seq, sizeof(seq));

	if (!c)
		return;
	map_del(b->by_seq, &seq, sizeof(seq));
	list_del(&c->link);
	c->rc = folder_decode(folder, c->folder, &c->elements);
	if (c->rc < 0)
		snprintf(c->text, sizeof(c->text), "%s", err_text(c->rc));
	else if (kind == POST_FAILURE)
		call_failed(c);
	list_add(&b->answers, &c->link);
	b->ops->busy(b->arg);
}

void answers_run(struct body *b)
{
	struct list now;

	/* Only those that are there now: what an answer leads to waits for the next round. */
	list_init(&now);
	list_take(&b->answers, &now);
	while (!list_empty(&now)) {
		struct call *c = LIST_ITEM(now.next, struct call, link);

		list_del(&c->link);
		b->n_calls--;
		if (c->done)
			c->done(&b->ext, c->arg, c->rc, c->text, c->folder, c->elements);
		call_free(c);
		inboxes_take_back(b);
	}
}

/* Calls whose time is up get timed-out as their answer; b->due becomes exact again. */
void calls_expire(struct body *b, int64_t now)
{
	struct list *pos, *tmp;

	LIST_EACH_SAFE(pos, tmp, &b->calls)
	{
		struct call *c = LIST_ITEM(pos, struct call, link);

		if (c->due > now) {
			if (c->due < b->due)
				b->due = c->due;
			continue;
		}
		map_del(b->by_seq, &c->seq, sizeof(c->seq));
		list_del(&c->link);
		c->rc = ERR_TIMEOUT;
		snprintf(c->text, sizeof(c->text), "%s", err_text(ERR_TIMEOUT));
		list_add(&b->answers, &c->link);
	}
}

static struct tos_timer *timer_due(struct body *b, int64_t now)
{
	struct list *pos;

	LIST_EACH(pos, &b->timers)
	{
		struct tos_timer *t = LIST_ITEM(pos, struct tos_timer, link);

		if (t->due <= now)
			return t;
		if (t->due < b->due)
			b->due = t->due;
	}
	return NULL;
}

void timers_run(struct body *b, int64_t now)
{
	struct tos_timer *t;

	/* From the start each time: a timer's function may stop any other one. A timer that it
	 * starts is never due before now + 0, so bound the rounds by those there are. */
	for (size_t left = b->n_timers; left && (t = timer_due(b, now)); left--) {
		void (*fn)(struct tos_ext *, void *) = t->fn;
		void *arg = t->arg;

		timer_drop(t);
		fn(&b->ext, arg);
		inboxes_take_back(b);
	}
	timer_due(b, INT64_MIN); /* for b->due alone */
}

static void list_free(struct list *l)
{
	struct list *pos, *tmp;

	LIST_EACH_SAFE(pos, tmp, l)
	call_free(LIST_ITEM(pos, struct call, link));
	list_init(l);
}

void calls_free(struct body *b)
{
	struct list *pos, *tmp;

	list_free(&b->calls);
	list_free(&b->answers);
	LIST_EACH_SAFE(pos, tmp, &b->timers)
	timer_drop(LIST_ITEM(pos, struct tos_timer, link));
}
