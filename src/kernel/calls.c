/*
 * The kernel's own inboxes and its own calls: requests come in here and find their verb; calls
 * go out from here and find their answer. Every call ends exactly once: by an answer, a
 * failure, or its deadline.
 */
#include "kernel/services/content.h"
#include "kernel/services/journal.h"
#include "kernel/services/extender.h"
#include "kernel/services/programs.h"

#include <stdarg.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/text.h"
#include "kernel/carrier/resident.h"
#include "kernel/handoff/moves.h"
#include "kernel/upload.h"
#include "kernel/home/home.h"
#include "kernel/trust/trust.h"

#define CALLS_MAX     100000
#define SLOW_TURN_US  500 /* of one turn of the loop, for what can wait */
#define CALL_GRACE_MS 200 /* an answer may arrive this much after the other side's deadline */

struct call {
	uint64_t number;
	char peer[64]; /* "" here */
	char what[96]; /* "host2/Handoff OFFER", for messages */
	int64_t deadline_at_ms;
	bool sent;
	bool hasty; /* to Handoff or Home: made again by itself when the link is back */
	call_done_fn *done;
	void *arg;
};

struct later {
	struct list node;
	void (*fn)(struct kernel *k, void *arg);
	void *arg;
};

/* ---- later */

/* As much as fits into a turn that nobody notices, in order. */
static void run_slow(struct kernel *k)
{
	int64_t until_us = clock_us() + SLOW_TURN_US;

	while (!list_empty(&k->slow) && clock_us() < until_us) {
		struct later *l = LIST_ITEM(k->slow.next, struct later, node);

		list_del(&l->node);
		l->fn(k, l->arg);
		free(l);
	}
}

static void on_idle(uv_idle_t *idle)
{
	struct kernel *k = idle->data;
	struct list batch;

	/* What is added while this batch runs waits for the next turn. */
	list_init(&batch);
	list_take(&k->later, &batch);
	while (!list_empty(&batch)) {
		struct later *l = LIST_ITEM(batch.next, struct later, node);

		list_del(&l->node);
		l->fn(k, l->arg);
		free(l);
	}
	run_slow(k);
	if (list_empty(&k->later) && list_empty(&k->slow))
		uv_idle_stop(idle);
}

static void later_add(struct kernel *k, struct list *where,
	void (*fn)(struct kernel *k, void *arg), void *arg)
{
	struct later *l = mem_new(struct later);

	l->fn = fn;
	l->arg = arg;
	list_add(where, &l->node);
	if (!uv_is_closing((uv_handle_t *)&k->idle))
		uv_idle_start(&k->idle, on_idle);
}

void kernel_later(struct kernel *k, void (*fn)(struct kernel *k, void *arg), void *arg)
{
	later_add(k, &k->later, fn, arg);
}

void kernel_later_slow(struct kernel *k, void (*fn)(struct kernel *k, void *arg), void *arg)
{
	later_add(k, &k->slow, fn, arg);
}

int calls_init(struct kernel *k)
{
	list_init(&k->later);
	list_init(&k->slow);
	uv_idle_init(k->loop, &k->idle);
	k->idle.data = k;
	uv_timer_init(k->loop, &k->late_timer);
	k->late_timer.data = k;
	k->calls = map_new();
	/* An answer to a call from before a restart must not pass for one to a new call. */
	random_bytes(&k->next_call, sizeof(k->next_call));
	k->next_call >>= 16;
	return 0;
}

void calls_close(struct kernel *k)
{
	struct call *c;
	size_t it = 0;

	while ((c = map_next(k->calls, &it, NULL, NULL))) {
		map_del(k->calls, &c->number, sizeof(c->number));
		free(c);
	}
	while (!list_empty(&k->later)) {
		struct later *l = LIST_ITEM(k->later.next, struct later, node);

		list_del(&l->node);
		free(l);
	}
	list_take(&k->slow, &k->later);
	while (!list_empty(&k->later)) {
		struct later *l = LIST_ITEM(k->later.next, struct later, node);

		list_del(&l->node);
		free(l);
	}
	uv_close((uv_handle_t *)&k->idle, NULL);
}

/* ---- calls */

static struct call *call_get(const struct kernel *k, uint64_t number)
{
	return map_find(k->calls, &number, sizeof(number));
}

/* Take the call out and tell its maker. */
static void call_end(struct kernel *k, struct call *c, int rc, const char *text,
	const struct tos_value *elements)
{
	map_del(k->calls, &c->number, sizeof(c->number));
	k->ending_call_sent = c->sent;
	c->done(k, c->arg, rc, text, elements);
	free(c);
}

struct failed_start {
	uint64_t number;
	int rc;
	char text[ERRMSG_BYTES];
};

static void fail_later(struct kernel *k, void *arg)
{
	struct failed_start *f = arg;

	calls_failed(k, f->number, f->rc, f->text);
	free(f);
}

static void call_fail_later(struct kernel *k, uint64_t number, int rc, const struct errmsg *em)
{
	struct failed_start *f = mem_new(struct failed_start);

	f->number = number;
	f->rc = rc;
	snprintf(f->text, sizeof(f->text), "%s", err_show(rc, em));
	kernel_later(k, fail_later, f);
}

struct local_call {
	char inbox[64];
	struct buf frame;
};

/* A call to one of our own inboxes runs on a later turn, so that its answer never comes before
 * kernel_call() has returned. */
static void run_local(struct kernel *k, void *arg)
{
	struct local_call *lc = arg;
	struct cbor_cursor c;
	struct post p = { 0 };
	struct errmsg em = { "" };
	struct origin self;
	int rc;

	cbor_init(&c, lc->frame.data, lc->frame.len);
	rc = frame_open(&c, (struct slice){ lc->frame.data + 4, lc->frame.len - 4 });
	if (rc == FRAME_POST)
		rc = post_decode(&c, &p);
	must(rc == 0); /* we encoded it */
	origin_self(k, &self);
	rc = kernel_route(k, &self, &p, &em);
	if (rc < 0)
		calls_failed(k, p.tag, rc, err_show(rc, &em));
	buf_fini(&lc->frame);
	free(lc);
}

static void encode_call(struct kernel *k, const char *dest, uint64_t number,
	enum post_kind kind, const char *verb, const struct tos_value *elements,
	uint32_t timeout_ms, struct buf *frame)
{
	AUTOBUF folder = BUF_INIT;
	char sender[NAME_BYTES_MAX + 1];
	const struct tos_value *parts[16];
	size_t n = tos_len(elements) < ARRAY_LEN(parts) ? tos_len(elements) : ARRAY_LEN(parts);

	for (size_t i = 0; i < n; i++)
		parts[i] = tos_at(elements, i);
	folder_encode(&folder, verb, parts, n);
	snprintf(sender, sizeof(sender), "%s/Kernel", k->config.name);
	post_encode(frame, &(struct post){ .kind = kind,
				   .dest = slice_text(dest),
				   .sender = slice_text(sender),
				   .tag = number,
				   .deadline_ms = timeout_ms,
				   .folder = slice_buf(&folder) });
}

uint64_t call_start(struct kernel *k, const char *kernel, const char *inbox, const char *verb,
	struct tos_value *elements, uint32_t timeout_ms, const char *vouch_for,
	call_done_fn *done, void *arg)
{
	struct call *c = mem_new(struct call);
	bool here = !kernel[0] || strcmp(kernel, k->config.name) == 0;
	AUTOBUF frame = BUF_MAX(FRAME_BYTES_MAX + 16);
	struct errmsg em = { "" };
	char dest[NAME_BYTES_MAX + 1];
	int rc;

	c->number = ++k->next_call;
	c->done = done;
	c->arg = arg;
	c->deadline_at_ms = clock_ms() + timeout_ms + CALL_GRACE_MS;
	snprintf(c->peer, sizeof(c->peer), "%s", here ? "" : kernel);
	snprintf(dest, sizeof(dest), "%s/%s", here ? k->config.name : kernel, inbox);
	snprintf(c->what, sizeof(c->what), "%s %s", dest, verb);
	c->hasty = !here && (strcmp(inbox, "Handoff") == 0 || strcmp(inbox, "Home") == 0);
	map_put(k->calls, &c->number, sizeof(c->number), c);
	if (map_size(k->calls) > CALLS_MAX) {
		rc = err_set(&em, ERR_FULL, "too many calls are under way");
	} else {
		encode_call(k, dest, c->number, POST_CALL, verb, elements, timeout_ms, &frame);
		rc = buf_check(&frame);
		if (rc == 0 && frame.len > FRAME_BYTES_MAX)
			rc = ERR_TOO_LARGE;
	}
	if (rc == 0 && here) {
		struct local_call *lc = mem_new(struct local_call);

		snprintf(lc->inbox, sizeof(lc->inbox), "%s", inbox);
		lc->frame = frame;
		frame = (struct buf)BUF_INIT;
		c->sent = true;
		kernel_later(k, run_local, lc);
	} else if (rc == 0) {
		rc = peer_send(k, kernel, slice_buf(&frame), clock_ms() + timeout_ms, c->number,
			vouch_for, &em);
	}
	tos_value_free(elements);
	if (rc < 0)
		call_fail_later(k, c->number, rc, &em);
	return c->number;
}

uint64_t kernel_call(struct kernel *k, const char *kernel, const char *inbox, const char *verb,
	struct tos_value *args, uint32_t timeout_ms, call_done_fn *done, void *arg)
{
	struct tos_value *elements = tos_array();

	tos_push(elements, args ? args : tos_map());
	return call_start(k, kernel, inbox, verb, elements, timeout_ms, NULL, done, arg);
}

void call_cancel(struct kernel *k, uint64_t number)
{
	struct call *c = number ? call_get(k, number) : NULL;

	if (c) {
		map_del(k->calls, &number, sizeof(number));
		free(c->arg);
		free(c);
	}
}

bool call_waits(const struct kernel *k, uint64_t number)
{
	return call_get(k, number) != NULL;
}

bool call_sent(const struct kernel *k, uint64_t number)
{
	const struct call *c = call_get(k, number);

	return c && c->sent;
}

void call_mark_sent(struct kernel *k, uint64_t number)
{
	struct call *c = number ? call_get(k, number) : NULL;

	if (c)
		c->sent = true;
}

void kernel_notify(struct kernel *k, const char *kernel, const char *inbox, const char *verb,
	struct tos_value *args)
{
	kernel_notify_for(k, kernel, inbox, verb, args, k->config.call_ms, NULL);
}

void kernel_notify_for(struct kernel *k, const char *kernel, const char *inbox,
	const char *verb, struct tos_value *args, uint32_t limit_ms, const char *vouch_for)
{
	AUTOBUF frame = BUF_MAX(FRAME_BYTES_MAX + 16);
	struct tos_value *elements = tos_array();
	char dest[NAME_BYTES_MAX + 1];
	struct errmsg em;
	struct origin self;

	snprintf(dest, sizeof(dest), "%s/%s", kernel, inbox);
	tos_push(elements, args);
	encode_call(k, dest, 0, POST_ONEWAY, verb, elements, 0, &frame);
	tos_value_free(elements);
	if (buf_check(&frame) < 0)
		return;
	if (strcmp(kernel, k->config.name) != 0) {
		peer_send(
			k, kernel, slice_buf(&frame), clock_ms() + limit_ms, 0, vouch_for, &em);
	} else {
		struct cbor_cursor c;
		struct post p;

		if (frame_open(&c, (struct slice){ frame.data + 4, frame.len - 4 }) ==
				FRAME_POST &&
			post_decode(&c, &p) == 0) {
			origin_self(k, &self);
			kernel_route(k, &self, &p, &em);
		}
	}
}

void calls_failed(struct kernel *k, uint64_t number, int rc, const char *text)
{
	struct call *c = call_get(k, number);

	if (c)
		call_end(k, c, rc, text, NULL);
}

/* What was asked about carriers over a link that is down will not be answered: an answer belongs to
 * its link. Whoever asked does so again over the next one, and need not wait for the deadline. */
void calls_link_down(struct kernel *k, const char *peer)
{
	struct call *c;
	size_t it = 0;

	/* As in calls_tick(): at worst the walk misses some, which have their deadline. */
	while ((c = map_next(k->calls, &it, NULL, NULL)))
		if (c->hasty && c->sent && strcmp(c->peer, peer) == 0)
			call_end(k, c, ERR_CLOSED, "the link closed before the answer", NULL);
}

/* failure folder: [code word, text] */
static int failure_read(const struct tos_value *elements, const char **text)
{
	const char *word = tos_as_text(tos_at(elements, 0), "unknown");

	*text = tos_as_text(tos_at(elements, 1), "");
	return err_from_word(word, strlen(word));
}

/* The elements of an answer that was too large for a frame came ahead. */
static int content_elements(
	struct kernel *k, const char *from_kernel, struct tos_value **elements)
{
	const struct tos_value *m = tos_at(*elements, 0);
	struct origin from = { .cls = ORIGIN_KERNEL };
	struct tos_value *v = NULL;
	struct slice content;
	size_t n;
	const uint8_t *digest = tos_get_bytes(m, "digest", &n);
	int rc = ERR_NOT_FOUND;

	snprintf(from.kernel, sizeof(from.kernel), "%s", from_kernel);
	if (digest && n == DIGEST_BYTES) {
		content = upload_find(k, digest, &from);
		if (content.n)
			rc = tos_decode(content.p, content.n, (size_t)512 << 20, &v);
	}
	tos_value_free(*elements);
	*elements = v;
	return rc;
}

/* What this kernel posted without a call: events for who watches a carrier, who may be gone. */
static void notice_failed(struct kernel *k, const char *from_kernel, const struct post *p)
{
	struct tos_value *elements = NULL;
	char folder[NAME_BYTES_MAX + 1];
	const char *text;

	if (folder_decode(p->folder, folder, &elements) == 0 &&
		failure_read(elements, &text) == ERR_NOT_FOUND)
		watch_failed(k, from_kernel, tos_as_text(tos_at(elements, 2), ""));
	tos_value_free(elements);
}

void calls_answer(struct kernel *k, const char *from_kernel, const struct post *p)
{
	struct call *c = call_get(k, p->tag);
	struct tos_value *elements = NULL;
	char folder[NAME_BYTES_MAX + 1];
	const char *text = "";
	int rc;

	if (p->kind == POST_FAILURE && p->tag == 0 && from_kernel[0]) {
		notice_failed(k, from_kernel, p);
		return;
	}
	/* Only the kernel that was asked may answer; our own failure posts come from "". */
	if (!c || (from_kernel[0] && strcmp(from_kernel, c->peer) != 0)) {
		metric_add(k->metrics, "answers_unexpected_total", NULL, 1);
		return;
	}
	rc = folder_decode(p->folder, folder, &elements);
	if (rc == 0 && p->kind == POST_FAILURE)
		rc = failure_read(elements, &text);
	else if (rc == 0 && from_kernel[0] && strcmp(folder, ANSWER_CONTENT) == 0)
		rc = content_elements(k, from_kernel, &elements);
	call_end(k, c, rc, rc < 0 && !text[0] ? err_text(rc) : text, elements);
	tos_value_free(elements);
}

int calls_forwarded(struct kernel *k, const struct post *original, const char *kernel)
{
	struct call *c = call_get(k, original->tag);
	struct tos_value *elements, *map;

	if (!c)
		return ERR_NOT_FOUND;
	elements = tos_array();
	map = tos_map();
	tos_set(map, "kernel", tos_text(kernel));
	tos_push(elements, map);
	call_end(k, c, 0, "", elements);
	tos_value_free(elements);
	return 0;
}

void calls_lost(struct kernel *k, const char *peer, const char *why)
{
	uint64_t last = k->next_call; /* one made in a callback goes over a new link */
	struct call *c;
	size_t it = 0;

	while ((c = map_next(k->calls, &it, NULL, NULL))) {
		char text[200];

		if (!c->sent || c->number > last || strcmp(c->peer, peer) != 0)
			continue;
		metric_add(k->metrics, "calls_lost_total", NULL, 1);
		snprintf(text, sizeof(text), "no answer from %s: %s", c->what, why);
		call_end(k, c, ERR_TIMEOUT, text, NULL);
	}
}

void calls_tick(struct kernel *k, int64_t now_ms)
{
	struct call *c;
	size_t it = 0;

	while ((c = map_next(k->calls, &it, NULL, NULL))) {
		char text[160];

		if (now_ms < c->deadline_at_ms)
			continue;
		snprintf(text, sizeof(text), "no answer from %s in time", c->what);
		/* Ending it may start another call. The walk is by index: at worst it misses
		 * some, which the next tick sees. To begin anew each time would cost the
		 * square. */
		call_end(k, c, ERR_TIMEOUT, text, NULL);
	}
}

/* ---- requests */

static const struct kernel_inbox kernel_inboxes[] = {
	{ "Content", "files by their digest, and which of them are admitted",
		1 << ORIGIN_CLIENT | 1 << ORIGIN_KERNEL | 1 << ORIGIN_EXTENSION |
			1 << ORIGIN_CARRIER,
		content_verbs },
	{ "Control", "for clients: reading, launching, signed acts",
		1 << ORIGIN_CLIENT | 1 << ORIGIN_KERNEL | 1 << ORIGIN_EXTENSION,
		control_verbs },
	{ "Extender", "installs, replaces and removes extensions",
		1 << ORIGIN_CARRIER | 1 << ORIGIN_CLIENT | 1 << ORIGIN_KERNEL |
			1 << ORIGIN_EXTENSION,
		extender_verbs },
	{ "Handoff", "for kernels: carriers change hands", 1 << ORIGIN_KERNEL, handoff_verbs },
	{ "Home", "for kernels: news of carriers to their home",
		1 << ORIGIN_KERNEL | 1 << ORIGIN_EXTENSION, home_verbs },
	{ "Journal", "for extensions of this kernel: what they keep on the disk",
		1 << ORIGIN_EXTENSION, journal_verbs },
	{ "Kernel", "for kernels", 1 << ORIGIN_KERNEL, kernel_verbs },
	{ "Programs", "for extensions of this kernel: programs in sandboxes, for carriers",
		1 << ORIGIN_EXTENSION, programs_verbs },
	{ "Registrar", "for hosts that join", 1 << ORIGIN_JOINER | 1 << ORIGIN_KERNEL,
		registrar_verbs },
	{ "Shells", "for extensions: deal with a completed carrier", 1 << ORIGIN_EXTENSION,
		shells_verbs },
};

static const struct kernel_inbox *inbox_find(const char *name)
{
	for (size_t i = 0; i < ARRAY_LEN(kernel_inboxes); i++)
		if (strcmp(kernel_inboxes[i].name, name) == 0)
			return &kernel_inboxes[i];
	return NULL;
}

bool inbox_is_kernels(const char *inbox)
{
	return inbox_find(inbox) != NULL;
}

bool inbox_class_ok(const char *inbox, enum origin_class c)
{
	const struct kernel_inbox *in = inbox_find(inbox);

	return !in || in->classes & 1u << c;
}

int inbox_dispatch(struct kernel *k, const struct origin *from, const char *inbox,
	const struct post *p, struct errmsg *em)
{
	const struct kernel_inbox *in = inbox_find(inbox);
	const struct verb *v;
	struct request *rq;
	int rc;

	if (!in)
		return err_set(em, ERR_NO_INBOX, "%s has no inbox %s", k->config.name, inbox);
	/* An extension of another kernel is that kernel's to vouch for: it deals with no
	 * carrier here, keeps nothing here and speaks for no place; it may ask where a
	 * carrier is. */
	if (!(in->classes & 1u << from->cls) ||
		(from->cls == ORIGIN_EXTENSION && from->kernel[0] &&
			(strcmp(inbox, "Shells") == 0 || strcmp(inbox, "Journal") == 0 ||
				strcmp(inbox, "Programs") == 0)))
		return err_set(em, ERR_DENIED, "inbox %s is not for a %s", inbox,
			origin_class_word(from->cls));
	rq = mem_new(struct request);
	rq->k = k;
	rq->from = *from;
	rq->tag = p->kind == POST_CALL ? p->tag : 0;
	rq->deadline_at_ms = clock_ms() + (p->deadline_ms ? p->deadline_ms : k->config.call_ms);
	if (p->trace.n == TRACE_BYTES)
		memcpy(rq->trace, p->trace.p, TRACE_BYTES);
	snprintf(rq->inbox, sizeof(rq->inbox), "%s", inbox);
	rc = folder_decode(p->folder, rq->verb, &rq->elements);
	if (rc < 0) {
		request_free(rq);
		return err_set(em, rc, "the folder posted to %s does not decode", inbox);
	}
	if (tos_type(tos_at(rq->elements, 0)) == TOS_MAP)
		rq->args = tos_at(rq->elements, 0);
	for (v = in->verbs; v->name && strcmp(v->name, rq->verb) != 0; v++)
		;
	if (!v->name) {
		rc = err_set(em, ERR_UNSUPPORTED, "inbox %s of %s has no verb %s", inbox,
			k->config.name, rq->verb);
		request_free(rq);
		return rc;
	}
	if (from->cls == ORIGIN_EXTENSION && strcmp(inbox, "Home") == 0 &&
		strcmp(rq->verb, "WHERE") != 0 &&
		(from->kernel[0] || strcmp(rq->verb, "OWNER") != 0)) {
		rc = err_set(em, ERR_DENIED, "only kernels report to a home");
		request_free(rq);
		return rc;
	}
	v->fn(k, rq);
	return 0;
}

void request_free(struct request *rq)
{
	if (rq) {
		tos_value_free(rq->elements);
		free(rq);
	}
}

void request_ok(struct request *rq, struct tos_value *result)
{
	struct tos_value *elements = tos_array();

	tos_push(elements, result ? result : tos_map());
	if (rq->tag)
		kernel_answer(rq->k, rq->from.name, rq->tag, POST_ANSWER, "ok", elements);
	tos_value_free(elements);
	request_free(rq);
}

void request_fail(struct request *rq, int rc, const char *fmt, ...)
{
	char text[ERRMSG_BYTES];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	text_mend(text); /* else there would be none */
	if (rq->tag) {
		struct tos_value *elements = tos_array();

		tos_push(elements, tos_text(err_word(rc)));
		tos_push(elements, tos_text(text));
		kernel_answer(rq->k, rq->from.name, rq->tag, POST_FAILURE, "failure", elements);
		tos_value_free(elements);
	}
	request_free(rq);
}
