/*
 * Content from other kernels' stores, in pieces: several GETs under way at once, more of them as
 * long as answers come soon. One transfer for each digest, however many ask for it; where a source
 * fails the next one goes on from the same byte, and a transfer that was given up is gone on with
 * by whoever asks next (content.c keeps what came). See content.h.
 */
#include "kernel/services/content.h"

#include <string.h>

#include "base/clock.h"
#include "base/text.h"

#define FETCH_BY      "*fetch" /* no principal has that name */
#define PIECE_BYTES   ((size_t)64 << 10)
#define WINDOW_FIRST  2
#define WINDOW_MAX    32
#define SOON_MS       500  /* an answer within that: one more at once */
#define LATE_MS       2000 /* later than that: half as many */
#define PIECE_MS      15000
#define MORE_MS       50  /* until a source that is itself still getting it is asked again */
#define MORE_MOST_MS  800 /* where it got nothing more meanwhile; two may wait for each other */
#define AGAIN_MS      500
#define AGAIN_MOST_MS 5000
#define SOURCES_MAX   16
#define WAITERS_MAX   4096
#define TRANSFERS_MAX 48
#define EACH_MAX      16 /* of those, begun by one principal */

struct waiter {
	struct list node;
	struct request *rq;
};

struct transfer;
struct piece {
	uint64_t call; /* 0: free or answered */
	int64_t offset, asked_ms;
	bool answered;
	size_t want, n;
	uint8_t *bytes;
};

struct transfer {
	struct kernel *k;
	uint8_t digest[DIGEST_BYTES];
	uint64_t number;
	char by[NAME_BYTES_MAX + 1];      /* who began it */
	char account[NAME_BYTES_MAX + 1]; /* that one's principal, or "" */
	char source[SOURCES_MAX][64];
	size_t n_sources, at;
	char sized_by[64]; /* the source whose word the size is; "": of an earlier transfer */
	char name[CONTENT_NAME_MAX + 1];
	bool pin, ending, part; /* part: the source has not all of it yet */
	struct list waiters;
	size_t n_waiters, failed; /* sources in a row that failed */
	bool only_missing;        /* all of them because they don't have it */
	struct content_put *put;  /* NULL: nothing has come */
	int64_t size, next;       /* -1: not known; the byte that is asked for next */
	struct piece piece[WINDOW_MAX];
	size_t window, n_asked;
	int64_t deadline_ms, again_ms, wait_ms, more_ms;
	int rc; /* of the last failure */
	char text[200];
};

static struct map *transfers; /* digest -> struct transfer; of this process's one kernel */
static uint64_t next_number;

static struct transfer *transfer_of(const uint8_t *digest)
{
	return transfers ? map_find(transfers, digest, DIGEST_BYTES) : NULL;
}

/* ---- the end */

static void pieces_drop(struct transfer *t)
{
	for (size_t i = 0; i < WINDOW_MAX; i++) {
		if (t->piece[i].call)
			call_cancel(t->k, t->piece[i].call);
		free(t->piece[i].bytes);
		t->piece[i] = (struct piece){ 0 };
	}
	t->n_asked = 0;
}

static void waiter_end(struct transfer *t, struct waiter *w, int rc, const char *text)
{
	const struct content_file *f = content_find(t->k, t->digest);

	list_del(&w->node);
	t->n_waiters--;
	if (rc == 0 && f) {
		struct tos_value *m = content_row(f);

		tos_set(m, "from", tos_text(f->source));
		request_ok(w->rq, m);
	} else {
		request_fail(w->rq, rc ? rc : ERR_NOT_FOUND, "%s",
			rc ? text : "it was dropped at once to make room");
	}
	free(w);
}

/* What came of it stays where it is: somebody may ask again. */
static void transfer_end(struct transfer *t, int rc, const char *text)
{
	pieces_drop(t);
	map_del(transfers, t->digest, DIGEST_BYTES);
	metric_add(t->k->metrics, rc ? "content_fetches_failed_total" : "content_fetches_total",
		NULL, 1);
	while (!list_empty(&t->waiters))
		waiter_end(t, LIST_ITEM(t->waiters.next, struct waiter, node), rc, text);
	free(t);
}

static void transfer_go(struct transfer *t);

struct finish_of {
	uint8_t digest[DIGEST_BYTES];
	uint64_t number;
};

static void on_finished(struct kernel *k, void *arg, int rc, const char *text)
{
	AUTOFREE struct finish_of *f = arg;
	struct transfer *t = transfer_of(f->digest);

	(void)k;
	if (!t || t->number != f->number)
		return;
	t->ending = false;
	t->put = NULL;
	if (rc != ERR_DIGEST) {
		transfer_end(t, rc, text);
		return;
	}
	/* Who sent the last byte is not asked again; whoever else it was will be found out. */
	log_notice("content is not what its digest says", KV_STR("from", t->source[t->at]));
	memmove(t->source[t->at], t->source[t->at + 1],
		(t->n_sources - t->at - 1) * sizeof(t->source[0]));
	if (--t->n_sources == 0) {
		transfer_end(t, ERR_DIGEST, "what came is not what the digest says");
		return;
	}
	t->at %= t->n_sources;
	t->next = 0;
	t->size = -1;
	pieces_drop(t); /* one that was asked for twice may still be on its way */
	transfer_go(t);
}

static void transfer_finish(struct transfer *t)
{
	struct finish_of *f = mem_new(struct finish_of);

	memcpy(f->digest, t->digest, DIGEST_BYTES);
	f->number = t->number;
	t->ending = true;
	content_finish(t->k, t->put, on_finished, f);
}

/* ---- pieces */

struct asked {
	uint8_t digest[DIGEST_BYTES];
	uint64_t number;
	size_t slot;
};

/* This source is of no use now: the next one, or after a round a pause. */
static void source_failed(struct transfer *t, int rc, const char *text)
{
	char why[200];

	snprintf(why, sizeof(why), "%.60s: %.120s", t->source[t->at], text);
	memcpy(t->text, why, sizeof(why));
	t->rc = rc;
	pieces_drop(t);
	t->window = WINDOW_FIRST;
	t->part = false;
	t->next = t->put ? content_put_have(t->put) : 0;
	t->only_missing = (t->failed == 0 || t->only_missing) &&
			  (rc == ERR_NOT_FOUND || rc == ERR_DENIED || rc == ERR_NO_INBOX);
	t->at = (t->at + 1) % t->n_sources;
	if (++t->failed % t->n_sources == 0) {
		if (t->only_missing) {
			transfer_end(t, rc, t->text);
			return;
		}
		t->again_ms = clock_ms() + t->wait_ms;
		t->wait_ms = t->wait_ms * 2 > AGAIN_MOST_MS ? AGAIN_MOST_MS : t->wait_ms * 2;
		return;
	}
	transfer_go(t);
}

/* Begun with the first answer: now its size is known, if the source knows it. False: it has
 * ended. */
static bool put_begin(struct transfer *t)
{
	struct errmsg em = { "" };
	int rc = content_begin(t->k,
		&(struct content_begin){ .digest = t->digest,
			.size = t->size,
			.name = t->name,
			.source = t->source[t->at],
			.owner = "",
			.account = t->account,
			.by = FETCH_BY,
			.pinned = t->pin,
			.shared = true },
		&t->put, &em);

	if (rc == 0 && t->size >= 0 && content_put_size(t->put) < 0)
		rc = content_put_sized(t->k, t->put, t->size, &em);
	if (rc == 0)
		return true;
	transfer_end(t, rc == ERR_EXISTS ? 0 : rc, err_show(rc, &em));
	return false;
}

/* In order into the store. False: it has ended. */
static bool pieces_store(struct transfer *t)
{
	for (;;) {
		struct piece *p = NULL;
		struct errmsg em = { "" };
		int rc;

		for (size_t i = 0; i < WINDOW_MAX; i++)
			if (t->piece[i].answered &&
				t->piece[i].offset == content_put_have(t->put))
				p = &t->piece[i];
		if (!p)
			return true;
		rc = content_append(t->k, t->put, p->bytes, p->n, &em);
		free(p->bytes);
		*p = (struct piece){ 0 };
		if (rc < 0) {
			t->put = NULL;
			transfer_end(t, rc, err_show(rc, &em));
			return false;
		}
	}
}

/* Another source says that it has another size. One of the two lies, and which of them shows when all
 * is here: what came goes, and the one that is asked now is believed until it fails, too. */
static void transfer_anew(struct transfer *t)
{
	log_notice("two kernels disagree about the size of a content",
		KV_STR("one", t->sized_by), KV_STR("other", t->source[t->at]));
	pieces_drop(t);
	if (t->put && !content_put_ending(t->put))
		content_cancel(t->k, t->put);
	t->put = NULL;
	t->size = -1;
	t->next = 0;
	t->window = WINDOW_FIRST;
	t->part = false;
	transfer_go(t);
}

/* It says another size than is known; true if that is not itself. */
static bool size_differs(const struct transfer *t, int64_t size)
{
	return t->size >= 0 && size >= 0 && size != t->size &&
	       strcmp(t->sized_by, t->source[t->at]) != 0;
}

static void window_turn(struct transfer *t, const struct piece *p)
{
	int64_t took = clock_ms() - p->asked_ms;

	if (took > LATE_MS && t->window > 1)
		t->window /= 2;
	else if (took < SOON_MS && t->window < WINDOW_MAX)
		t->window++;
}

static void on_piece(
	struct kernel *k, void *arg, int rc, const char *text, const struct tos_value *elements)
{
	AUTOFREE struct asked *a = arg;
	struct transfer *t = transfer_of(a->digest);
	const struct tos_value *m = tos_at(elements, 0);
	struct piece *p;
	const uint8_t *bytes;
	int64_t size;
	size_t n = 0;

	(void)k;
	if (!t || t->number != a->number)
		return;
	p = &t->piece[a->slot];
	p->call = 0;
	t->n_asked--;
	if (t->ending)
		return;
	bytes = rc == 0 ? tos_get_bytes(m, "bytes", &n) : NULL;
	size = tos_get_int(m, "size", -1);
	if (rc == 0 && size_differs(t, size)) {
		transfer_anew(t);
		return;
	}
	if (rc == 0 && (!bytes || n > p->want || size < -1 ||
			       tos_get_int(m, "offset", -1) != p->offset ||
			       (t->size >= 0 && size >= 0 && size != t->size)))
		rc = ERR_MALFORMED;
	if (rc < 0) {
		source_failed(t, rc, text && *text ? text : err_text(rc));
		return;
	}
	t->part = tos_get(m, "have") != NULL;
	if (!t->name[0])
		text_cut(t->name, sizeof(t->name), tos_get_text(m, "name", ""));
	if (t->size < 0 && size >= 0) {
		t->size = size;
		memcpy(t->sized_by, t->source[t->at], sizeof(t->sized_by));
	}
	if (!t->put && !put_begin(t))
		return;
	if (t->size >= 0 && content_put_size(t->put) < 0 &&
		content_put_sized(t->k, t->put, t->size, NULL) < 0) {
		t->size = -1;
		source_failed(t, ERR_MALFORMED, "its size is not the one announced");
		return;
	}
	if (n < p->want && !t->part && p->offset + (int64_t)n != t->size) {
		source_failed(t, ERR_MALFORMED, "a piece that is too short");
		return;
	}
	if (n > 0) {
		t->failed = 0;
		t->more_ms = 0;
		t->wait_ms = AGAIN_MS;
		window_turn(t, p);
		p->bytes = mem_try(n);
		if (!p->bytes) {
			transfer_end(t, ERR_NOMEM, err_text(ERR_NOMEM));
			return;
		}
		memcpy(p->bytes, bytes, n);
		p->n = n;
		p->answered = true;
		if (n < p->want) /* there was not more of it: asked for again from there */
			t->next = p->offset + (int64_t)n;
		if (!pieces_store(t))
			return;
	} else {
		t->next = p->offset;
		*p = (struct piece){ 0 };
		if (t->part) {
			t->more_ms = t->more_ms ? 2 * t->more_ms : MORE_MS;
			if (t->more_ms > MORE_MOST_MS)
				t->more_ms = MORE_MOST_MS;
			t->again_ms = clock_ms() + t->more_ms;
		}
	}
	transfer_go(t);
}

static bool piece_ask(struct transfer *t)
{
	struct asked *a;
	struct piece *p = NULL;
	struct tos_value *args;
	size_t slot;

	for (slot = 0; slot < WINDOW_MAX && !p; slot++)
		if (!t->piece[slot].call && !t->piece[slot].answered)
			p = &t->piece[slot];
	if (!p)
		return false;
	*p = (struct piece){ .offset = t->next, .asked_ms = clock_ms(), .want = PIECE_BYTES };
	if (t->size >= 0 && t->size - t->next < (int64_t)p->want)
		p->want = (size_t)(t->size - t->next);
	a = mem_new(struct asked);
	memcpy(a->digest, t->digest, DIGEST_BYTES);
	a->number = t->number;
	a->slot = slot - 1;
	args = tos_map();
	tos_set(args, "digest", tos_bytes(t->digest, DIGEST_BYTES));
	tos_set(args, "offset", tos_int(t->next));
	tos_set(args, "max", tos_int((int64_t)p->want));
	t->next += (int64_t)p->want;
	t->n_asked++;
	p->call = kernel_call(
		t->k, t->source[t->at], "Content", "GET", args, PIECE_MS, on_piece, a);
	return true;
}

/* As many GETs as may be; the first one alone, since only it tells the size; one at a time where the
 * source gets it itself. */
static void transfer_go(struct transfer *t)
{
	size_t most = !t->put || t->part ? 1 : t->window;

	if (t->ending || t->again_ms > clock_ms())
		return;
	if (t->put && t->size >= 0 && content_put_have(t->put) == t->size) {
		transfer_finish(t);
		return;
	}
	while (t->n_asked < most && (t->size < 0 || t->next < t->size || !t->put))
		if (!piece_ask(t))
			return;
}

/* ---- asking */

static void source_add(struct transfer *t, const char *name)
{
	if (!name_kernel_ok(name) || strcmp(name, t->k->config.name) == 0 ||
		t->n_sources == SOURCES_MAX)
		return;
	for (size_t i = 0; i < t->n_sources; i++)
		if (strcmp(t->source[i], name) == 0)
			return;
	snprintf(t->source[t->n_sources++], sizeof(t->source[0]), "%s", name);
}

static void sources_add(struct transfer *t, const struct tos_value *from)
{
	if (tos_type(from) == TOS_TEXT)
		source_add(t, tos_as_text(from, ""));
	for (size_t i = 0; tos_type(from) == TOS_ARRAY && i < tos_len(from); i++)
		source_add(t, tos_as_text(tos_at(from, i), ""));
}

/* Nobody takes all the places, nor keeps one that somebody else wants when he does not wait for it
 * himself. */
static bool place_free(const char *by)
{
	struct transfer *t, *left = NULL;
	size_t it = 0, own = 0;

	while ((t = map_next(transfers, &it, NULL, NULL))) {
		own += strcmp(t->by, by) == 0;
		if (t->n_waiters == 0 && !t->ending && (!left || t->number < left->number))
			left = t;
	}
	if (own >= EACH_MAX)
		return false;
	if (map_size(transfers) < TRANSFERS_MAX)
		return true;
	if (left)
		transfer_end(left, ERR_FULL, "others were waited for");
	return left != NULL;
}

static struct transfer *transfer_new(struct kernel *k, const uint8_t *digest)
{
	struct transfer *t = mem_new(struct transfer);

	t->k = k;
	memcpy(t->digest, digest, DIGEST_BYTES);
	t->number = ++next_number;
	t->size = -1;
	t->window = WINDOW_FIRST;
	t->wait_ms = AGAIN_MS;
	list_init(&t->waiters);
	t->put = content_put_find(k, digest, FETCH_BY);
	if (t->put && content_put_ending(t->put))
		t->put = NULL;
	if (t->put) {
		t->size = content_put_size(t->put);
		t->next = content_put_have(t->put);
	}
	return t;
}

static void waiter_add(struct transfer *t, struct request *rq, const struct tos_value *args)
{
	struct waiter *w = mem_new(struct waiter);
	int64_t until = rq->deadline_at_ms;
	int64_t most = tos_get_int(args, "timeout_ms", 0);

	if (most > 0 && most < 86400000 && clock_ms() + most > until)
		until = clock_ms() + most; /* it goes on though nobody waits any more */
	if (until > t->deadline_ms)
		t->deadline_ms = until;
	w->rq = rq;
	list_add(&t->waiters, &w->node);
	t->n_waiters++;
}

void content_fetch(
	struct kernel *k, struct request *rq, const struct tos_value *args, const char *account)
{
	const struct content_file *f;
	const char *by = rq->from.principal[0] ? rq->from.principal : rq->from.name;
	struct transfer *t;
	uint8_t digest[DIGEST_BYTES];
	bool begun;

	must(content_digest(args, digest));
	f = content_find(k, digest);
	if (f) {
		struct tos_value *m;

		m = content_row(f);
		tos_set(m, "from", tos_text("")); /* it was here */
		if (!tos_get_bool(args, "pin", false)) {
			request_ok(rq, m);
			return;
		}
		tos_set(m, "pinned", tos_bool(true));
		content_pin_answer(k, rq, digest, true, m);
		return;
	}
	if (!transfers)
		transfers = map_new();
	t = transfer_of(digest);
	begun = !t;
	if (t ? t->n_waiters >= WAITERS_MAX : !place_free(by)) {
		request_fail(
			rq, ERR_FULL, "too many fetches are under way at %s", k->config.name);
		return;
	}
	if (!t) {
		t = transfer_new(k, digest);
		snprintf(t->by, sizeof(t->by), "%s", by);
		snprintf(t->account, sizeof(t->account), "%s", account);
	}
	sources_add(t, tos_get(args, "from"));
	if (t->n_sources == 0) {
		free(t);
		request_fail(
			rq, ERR_USAGE, "FETCH wants from, another kernel's name or a list");
		return;
	}
	if (!t->name[0])
		text_cut(t->name, sizeof(t->name), tos_get_text(args, "name", ""));
	t->pin |= tos_get_bool(args, "pin", false);
	waiter_add(t, rq, args);
	if (begun) {
		map_put(transfers, t->digest, DIGEST_BYTES, t);
		transfer_go(t);
	}
}

static void waiters_expire(struct transfer *t, int64_t now_ms)
{
	struct list *pos, *tmp;

	LIST_EACH_SAFE(pos, tmp, &t->waiters)
	{
		struct waiter *w = LIST_ITEM(pos, struct waiter, node);
		char text[320];

		if (now_ms < w->rq->deadline_at_ms)
			continue;
		snprintf(text, sizeof(text), "%lld bytes came in time%s%s",
			(long long)(t->put ? content_put_have(t->put) : 0),
			t->text[0] ? "; " : "", t->text);
		waiter_end(t, w, ERR_TIMEOUT, text);
	}
}

void content_fetch_tick(struct kernel *k, int64_t now_ms)
{
	struct transfer *t;
	size_t it = 0;

	(void)k;
	while (transfers && (t = map_next(transfers, &it, NULL, NULL))) {
		if (t->ending)
			continue;
		waiters_expire(t, now_ms);
		if (t->put)
			content_put_touch(t->put);
		if (now_ms >= t->deadline_ms) {
			transfer_end(t, ERR_TIMEOUT, t->text[0] ? t->text : "not in time");
		} else if (t->again_ms && now_ms >= t->again_ms) {
			t->again_ms = 0;
			transfer_go(t);
		}
	}
}
