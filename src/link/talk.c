/* The conversation's rules: see talk.h. */
#include "link/talk.h"

#include <string.h>

#include "base/mem.h"

#define HELLO_BYTES_MAX                                                                        \
	(16u << 10) /* before hello is over a stranger may not make us hold more */
#define CREDIT_MAX   (1u << 20)
#define KEEP_BYTES   (256u << 10)
#define SLACK_BYTES  (64u << 10) /* beyond out_max, for our own small frames */
#define BYE_TEXT_MAX 200

static int on_hello(
	struct talk *t, struct cbor_cursor *c, struct slice frame, struct errmsg *em);
static int on_credit(
	struct talk *t, struct cbor_cursor *c, struct slice frame, struct errmsg *em);
static int on_ping(
	struct talk *t, struct cbor_cursor *c, struct slice frame, struct errmsg *em);
static int on_pong(
	struct talk *t, struct cbor_cursor *c, struct slice frame, struct errmsg *em);
static int on_bye(struct talk *t, struct cbor_cursor *c, struct slice frame, struct errmsg *em);
static int on_post(
	struct talk *t, struct cbor_cursor *c, struct slice frame, struct errmsg *em);
static int on_chunk(
	struct talk *t, struct cbor_cursor *c, struct slice frame, struct errmsg *em);
static int on_other(
	struct talk *t, struct cbor_cursor *c, struct slice frame, struct errmsg *em);

#define IN(state) (1u << (state))
#define NOT_OVER  (IN(TALK_HELLO) | IN(TALK_CREDIT) | IN(TALK_HELD) | IN(TALK_OPEN))

typedef int talk_fn(
	struct talk *t, struct cbor_cursor *c, struct slice frame, struct errmsg *em);

/* What is not listed is refused. */
static const struct talk_rule {
	unsigned states; /* in which it may come */
	talk_fn *fn;
} talk_rules[] = {
	[FRAME_HELLO] = { IN(TALK_HELLO), on_hello },
	[FRAME_POST] = { IN(TALK_OPEN), on_post },
	[FRAME_CREDIT] = { IN(TALK_CREDIT) | IN(TALK_HELD) | IN(TALK_OPEN), on_credit },
	[FRAME_PING] = { IN(TALK_OPEN), on_ping },
	[FRAME_PONG] = { IN(TALK_OPEN), on_pong },
	[FRAME_WANT] = { IN(TALK_OPEN), on_other },
	[FRAME_CHUNK] = { IN(TALK_OPEN), on_chunk },
	[FRAME_LACK] = { IN(TALK_OPEN), on_other },
	[FRAME_VOUCH] = { IN(TALK_OPEN), on_other },
	[FRAME_BYE] = { NOT_OVER, on_bye },
	[FRAME_CARRY] = { IN(TALK_OPEN), on_post },
	[FRAME_TAKEN] = { IN(TALK_OPEN), on_other },
};

void talk_init(struct talk *t, const struct talk_callbacks *cb, void *arg, size_t out_max,
	uint32_t window_posts, uint32_t window_chunks)
{
	memset(t, 0, sizeof(*t));
	t->cb = cb;
	t->arg = arg;
	t->out_max = out_max;
	t->out.max =
		2 *
		(out_max + SLACK_BYTES); /* what was taken lies in front until it is moved */
	t->in.max = HELLO_BYTES_MAX;
	t->rtt_us = -1;
	t->window[TALK_POSTS] = window_posts;
	t->window[TALK_CHUNKS] = window_chunks;
}

void talk_fini(struct talk *t)
{
	buf_fini(&t->in.in);
	buf_fini(&t->out);
}

size_t talk_queued(const struct talk *t)
{
	return t->out.len - t->out_at;
}

/* ---- sending */

struct slice talk_pending(const struct talk *t, size_t most)
{
	size_t n = talk_queued(t);

	if (n == 0)
		return (struct slice){ NULL, 0 };
	return (struct slice){ t->out.data + t->out_at, n < most ? n : most };
}

void talk_taken(struct talk *t, size_t n)
{
	must(n <= talk_queued(t));
	t->out_at += n;
	if (t->out_at == t->out.len) {
		buf_clear(&t->out);
		t->out_at = 0;
		if (t->out.cap > KEEP_BYTES)
			buf_fini(&t->out);
	} else if (t->out_at >
		   t->out.len / 2) { /* each byte is moved once at most, on average */
		buf_shift(&t->out, t->out_at);
		t->out_at = 0;
	}
}

/* Our own small frames may go a little beyond the bound; past that they are left out (what
 * drops out then, an answer to a ping, is what a peer that doesn't read can do without). */
static bool has_slack(const struct talk *t)
{
	return talk_queued(t) < t->out_max + SLACK_BYTES / 2;
}

int talk_send(struct talk *t, enum talk_class cls, const void *frame, size_t n)
{
	int rc;

	if (t->state != TALK_OPEN)
		return ERR_CLOSED;
	if (n > FRAME_BYTES_MAX)
		return ERR_TOO_LARGE;
	if (cls < TALK_CLASSES && t->may_send[cls] == 0)
		return ERR_FULL;
	if (talk_queued(t) + n > t->out_max)
		return ERR_FULL;
	rc = buf_add(&t->out, frame, n);
	if (rc < 0) {
		t->out.failed = false; /* nothing was added, and the caller knows */
		return rc;
	}
	if (cls < TALK_CLASSES)
		t->may_send[cls]--;
	t->frames_out++;
	return 0;
}

static void say_credit(struct talk *t)
{
	credit_encode(&t->out, t->owed[TALK_POSTS], t->owed[TALK_CHUNKS]);
	for (int i = 0; i < TALK_CLASSES; i++) {
		t->may_receive[i] += t->owed[i];
		t->owed[i] = 0;
	}
	t->frames_out++;
}

void talk_say_hello(struct talk *t, const struct hello *h)
{
	struct buf behind = t->out;

	must(t->out_at == 0);
	t->out = (struct buf)BUF_INIT;
	t->out.max = behind.max;
	hello_encode(&t->out, h);
	t->frames_out++;
	for (int i = 0; i < TALK_CLASSES; i++)
		t->owed[i] = t->window[i];
	say_credit(t);
	buf_add(&t->out, behind.data, behind.len);
	buf_fini(&behind);
}

void talk_consumed(struct talk *t, enum talk_class cls, uint32_t n)
{
	uint32_t room;

	must(cls < TALK_CLASSES);
	if (t->state != TALK_OPEN)
		return;
	room = t->window[cls] - t->may_receive[cls];
	room -= t->owed[cls];
	t->owed[cls] +=
		n < room ? n : room; /* never more than the window, whoever counted wrong */
	if (t->owed[cls] > 0 && t->owed[cls] >= t->window[cls] / 4)
		say_credit(t);
}

void talk_ping(struct talk *t, int64_t now_us)
{
	if (t->state != TALK_OPEN || !has_slack(t))
		return;
	t->ping_sent_us = now_us;
	t->ping_sent_ms = now_us / 1000;
	ping_encode(&t->out, FRAME_PING, ++t->ping_number);
	t->frames_out++;
	t->pings_out++;
}

void talk_bye(struct talk *t, int rc, const char *text)
{
	if (t->state == TALK_OVER)
		return;
	t->state = TALK_OVER;
	bye_encode(&t->out, rc, text);
	t->frames_out++;
}

void talk_open(struct talk *t)
{
	must(t->state != TALK_OPEN && t->state != TALK_OVER);
	t->state = TALK_OPEN;
	t->in.max = FRAME_BYTES_MAX;
}

/* ---- receiving */

static int ready(struct talk *t, struct errmsg *em)
{
	int rc;

	t->state = TALK_HELD;
	rc = t->cb->ready(t->arg, em);
	return rc == ERR_AGAIN ? 0 : rc;
}

static int on_hello(
	struct talk *t, struct cbor_cursor *c, struct slice frame, struct errmsg *em)
{
	struct hello h = { 0 };
	int rc = hello_decode(c, &h);

	(void)frame;
	if (rc < 0)
		return err_set(em, rc, "hello: %s", err_text(rc));
	rc = t->cb->hello(t->arg, &h, em);
	if (rc < 0)
		return rc;
	if (!t->credit_first)
		return ready(t, em);
	t->state = TALK_CREDIT;
	return 0;
}

static int on_credit(
	struct talk *t, struct cbor_cursor *c, struct slice frame, struct errmsg *em)
{
	uint32_t more[TALK_CLASSES] = { 0, 0 };
	int rc = credit_decode(c, &more[TALK_POSTS], &more[TALK_CHUNKS]);

	(void)frame;
	if (rc < 0)
		return err_set(em, rc, "credit: %s", err_text(rc));
	for (int i = 0; i < TALK_CLASSES; i++) {
		uint32_t room = CREDIT_MAX - t->may_send[i];

		t->may_send[i] += more[i] < room ? more[i] : room;
	}
	if (t->state == TALK_CREDIT)
		return ready(t, em);
	if (t->state == TALK_OPEN)
		t->cb->credit(t->arg);
	return 0;
}

static int on_ping(struct talk *t, struct cbor_cursor *c, struct slice frame, struct errmsg *em)
{
	uint64_t number = 0;
	int rc = ping_decode(c, &number);

	(void)frame;
	if (rc < 0)
		return err_set(em, rc, "ping: %s", err_text(rc));
	t->pings_in++;
	if (has_slack(t)) {
		ping_encode(&t->out, FRAME_PONG, number);
		t->frames_out++;
		t->pings_out++;
	}
	return 0;
}

static int on_pong(struct talk *t, struct cbor_cursor *c, struct slice frame, struct errmsg *em)
{
	uint64_t number = 0;
	int rc = ping_decode(c, &number);

	(void)frame;
	if (rc < 0)
		return err_set(em, rc, "pong: %s", err_text(rc));
	if (number == 0 || number > t->ping_number)
		return err_set(em, ERR_MALFORMED, "pong without a ping");
	t->pings_in++;
	if (number == t->ping_number && t->ping_sent_us != 0) {
		t->rtt_us = t->in_us - t->ping_sent_us;
		t->ping_sent_us = 0;
	}
	return 0;
}

static int on_bye(struct talk *t, struct cbor_cursor *c, struct slice frame, struct errmsg *em)
{
	struct slice text = { NULL, 0 };
	int rc = bye_decode(c, &t->peer_rc, &text);

	(void)frame;
	if (rc < 0)
		return err_set(em, rc, "bye: %s", err_text(rc));
	t->peer_bye = true;
	t->state = TALK_OVER;
	return err_set(em, ERR_CLOSED, "%.*s", (int)(text.n < 300 ? text.n : 300),
		text.n > 0 ? (const char *)text.p : "");
}

static int credited(struct talk *t, enum talk_class cls, struct slice frame, struct errmsg *em)
{
	if (t->may_receive[cls] == 0)
		return err_set(em, ERR_MALFORMED, "more %s than credit was given for",
			cls == TALK_POSTS ? "posts" : "chunks");
	t->may_receive[cls]--;
	return t->cb->frame(t->arg, frame, em);
}

static int on_post(struct talk *t, struct cbor_cursor *c, struct slice frame, struct errmsg *em)
{
	(void)c;
	return credited(t, TALK_POSTS, frame, em);
}

static int on_chunk(
	struct talk *t, struct cbor_cursor *c, struct slice frame, struct errmsg *em)
{
	(void)c;
	return credited(t, TALK_CHUNKS, frame, em);
}

static int on_other(
	struct talk *t, struct cbor_cursor *c, struct slice frame, struct errmsg *em)
{
	(void)c;
	return t->cb->frame(t->arg, frame, em);
}

static int one_frame(struct talk *t, struct slice frame, struct errmsg *em)
{
	struct cbor_cursor c;
	int type = frame_open(&c, frame);

	if (type < 0)
		return err_set(em, type, "frame: %s", err_text(type));
	if ((size_t)type >= ARRAY_LEN(talk_rules) || !talk_rules[type].fn)
		return err_set(em, ERR_MALFORMED, "frame of unknown type %d", type);
	if (!(talk_rules[type].states & IN(t->state)))
		return err_set(em, ERR_MALFORMED, "frame of type %d %s", type,
			t->state == TALK_OPEN ? "after hello" : "before hello is over");
	t->frames_in++;
	return talk_rules[type].fn(t, &c, frame, em);
}

/* Most links are idle most of the time; they shouldn't keep what their largest frame took. */
static void drop_large(struct frame_reader *r)
{
	if (r->in.cap > KEEP_BYTES && r->eaten == r->in.len) {
		buf_fini(&r->in);
		r->eaten = 0;
	}
}

int talk_feed(struct talk *t, int64_t now_us, struct errmsg *em)
{
	struct slice frame;
	int rc;

	t->in_us = now_us;
	while (t->state != TALK_OVER) {
		rc = frame_next(&t->in, &frame);
		if (rc == ERR_AGAIN) {
			drop_large(&t->in);
			break;
		}
		if (rc < 0)
			return err_set(em, rc, "frame: %s", err_text(rc));
		rc = one_frame(t, frame, em);
		if (rc < 0)
			return rc;
	}
	return 0;
}
