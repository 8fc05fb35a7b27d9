/*
 * Two ends of a link's conversation in memory, led by the input: who sends, acknowledges,
 * pings, closes, how many bytes go over at a time, and what a hostile peer puts in between.
 *
 * As long as nothing is put in, neither end ever fails and every post arrives once and in
 * order. Whatever is put in, the bounds hold and nothing comes after the end.
 */
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "link/talk.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define OUT_MAX (2u << 20)

struct end {
	struct talk talk;
	struct end *other;
	bool dialled, hold, failed, spoiled; /* spoiled: fed what the other end never said */
	uint64_t sent, received;             /* posts */
	uint32_t unthanked[TALK_CLASSES];
};

static int on_hello(void *arg, const struct hello *h, struct errmsg *em)
{
	struct end *e = arg;

	(void)em;
	must(e->talk.state == TALK_HELLO);
	must(strlen(h->name) <= NAME_BYTES_MAX);
	return h->version_max < PROTOCOL_VERSION ? ERR_VERSION : 0;
}

static void say_hello(struct end *e)
{
	struct hello h = { .version_min = 1, .version_max = PROTOCOL_VERSION, .name = "host0" };

	talk_say_hello(&e->talk, &h);
}

/* Who was dialled answers with its hello when it has accepted, maybe later. */
static void open_end(struct end *e)
{
	talk_open(&e->talk);
	if (!e->dialled)
		say_hello(e);
}

static int on_ready(void *arg, struct errmsg *em)
{
	struct end *e = arg;

	(void)em;
	must(e->talk.state == TALK_HELD);
	if (e->hold)
		return ERR_AGAIN;
	open_end(e);
	return 0;
}

static int on_frame(void *arg, struct slice frame, struct errmsg *em)
{
	struct end *e = arg;
	struct cbor_cursor c;
	struct post p;
	int rc, type = frame_open(&c, frame);

	must(e->talk.state == TALK_OPEN);
	if (type == FRAME_CHUNK)
		e->unthanked[TALK_CHUNKS]++;
	if (type != FRAME_POST)
		return 0;
	e->unthanked[TALK_POSTS]++;
	must(e->unthanked[TALK_POSTS] <= e->talk.window[TALK_POSTS]);
	rc = post_decode(&c, &p);
	if (rc < 0)
		return err_set(em, rc, "post");
	e->received++;
	if (!e->spoiled)
		must(p.tag == e->received && p.tag <= e->other->sent);
	return 0;
}

static void on_credit(void *arg)
{
	(void)arg;
}

static const struct talk_callbacks callbacks = { on_hello, on_ready, on_frame, on_credit };

static void check(const struct end *e)
{
	const struct talk *t = &e->talk;

	must(talk_queued(t) <= OUT_MAX + (128u << 10));
	must(!t->out.failed);
	for (int i = 0; i < TALK_CLASSES; i++)
		must((uint64_t)t->may_receive[i] + t->owed[i] <= t->window[i]);
}

static void feed(struct end *e)
{
	struct errmsg em = { "" };
	int rc;

	if (e->failed)
		return;
	rc = talk_feed(&e->talk, 1000, &em);
	if (rc == 0)
		return;
	must(e->spoiled || e->talk.peer_bye);
	e->failed = true;
	if (!e->talk.peer_bye)
		talk_bye(&e->talk, rc, em.text);
	must(e->talk.state == TALK_OVER);
}

static void carry(struct end *from, size_t most)
{
	struct slice s = talk_pending(&from->talk, most);

	if (s.n == 0)
		return;
	buf_add(&from->other->talk.in.in, s.p, s.n);
	talk_taken(&from->talk, s.n);
	feed(from->other);
}

static void send_post(struct end *e, size_t bytes)
{
	static const uint8_t filling[4096];
	AUTOBUF folder = BUF_INIT;
	AUTOBUF b = BUF_INIT;
	struct post p = {
		.dest = { (const uint8_t *)"Echo", 4 },
		.tag = e->sent + 1,
	};

	cbor_put_array(&folder, 2);
	cbor_put_text(&folder, "f");
	cbor_put_array(&folder, 1);
	cbor_put_bytes(&folder, filling, bytes % sizeof(filling));
	p.folder = (struct slice){ folder.data, folder.len };
	post_encode(&b, &p);
	if (talk_send(&e->talk, TALK_POSTS, b.data, b.len) == 0)
		e->sent++;
}

static void send_chunk(struct end *e)
{
	static const uint8_t bytes[1024];
	AUTOBUF b = BUF_INIT;
	struct chunk k = { { bytes, DIGEST_BYTES }, 0, sizeof(bytes),
		{ bytes, sizeof(bytes) } };

	chunk_encode(&b, &k);
	talk_send(&e->talk, TALK_CHUNKS, b.data, b.len);
}

static void send_lack(struct end *e)
{
	static const uint8_t digest[DIGEST_BYTES];
	AUTOBUF b = BUF_INIT;

	lack_encode(&b, digest);
	talk_send(&e->talk, TALK_CLASSES, b.data, b.len);
}

static void thank(struct end *e, enum talk_class cls, uint32_t n)
{
	n = n < e->unthanked[cls] ? n : e->unthanked[cls];
	talk_consumed(&e->talk, cls, n);
	e->unthanked[cls] -= n;
}

static void spoil(struct end *e, const uint8_t **p, size_t *left, size_t n, bool framed)
{
	uint8_t head[4] = { 0, 0, 0, (uint8_t)n };

	n = n < *left ? n : *left;
	head[3] = (uint8_t)n;
	e->spoiled = e->other->spoiled = true;
	if (framed)
		buf_add(&e->talk.in.in, head, sizeof(head));
	buf_add(&e->talk.in.in, *p, n);
	*p += n;
	*left -= n;
	feed(e);
}

static void settle_hold(struct end *e)
{
	e->hold = !e->hold && !e->dialled;
	if (!e->hold && e->talk.state == TALK_HELD) {
		open_end(e);
		feed(e);
	}
}

static void step(struct end *e, unsigned op, unsigned arg, const uint8_t **p, size_t *left)
{
	bool over = e->talk.state == TALK_OVER;

	switch (op) {
	case 0:
		carry(e, arg + 1);
		break;
	case 1:
		carry(e, SIZE_MAX);
		break;
	case 2:
		send_post(e, arg);
		break;
	case 3:
		for (unsigned i = 0; i < arg; i++)
			send_post(e, arg * 16);
		break;
	case 4:
		send_chunk(e);
		break;
	case 5:
		send_lack(e);
		break;
	case 6:
		thank(e, TALK_POSTS, arg);
		break;
	case 7:
		thank(e, TALK_CHUNKS, arg);
		break;
	case 8:
		talk_ping(&e->talk, 500);
		break;
	case 9:
		if (arg == 7)
			talk_bye(&e->talk, ERR_CLOSED, "enough");
		break;
	case 10:
		settle_hold(e);
		break;
	case 11:
		spoil(e, p, left, arg % 32, false);
		break;
	case 12:
		spoil(e, p, left, arg % 64, true);
		break;
	default:
		carry(e, 1);
	}
	must(!over || e->talk.state == TALK_OVER);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct end *ends = mem_zero(2 * sizeof(*ends));
	size_t left = size > 8192 ? 8192 : size;
	unsigned first = left > 0 ? data[0] : 0;

	for (int i = 0; i < 2; i++) {
		uint32_t window = 1 + ((first >> (i * 3)) & 7) * 4;

		talk_init(&ends[i].talk, &callbacks, &ends[i], OUT_MAX, window, window);
		ends[i].talk.credit_first = (first & 0x40) != 0;
		ends[i].other = &ends[1 - i];
	}
	ends[0].dialled = true;
	say_hello(&ends[0]);
	while (left >= 2) {
		unsigned op = data[0] & 0x0f, who = data[0] >> 7, arg = data[1];

		data += 2;
		left -= 2;
		step(&ends[who], op, arg, &data, &left);
		check(&ends[0]);
		check(&ends[1]);
	}
	talk_fini(&ends[0].talk);
	talk_fini(&ends[1].talk);
	free(ends);
	return 0;
}
