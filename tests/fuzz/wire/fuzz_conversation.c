/*
 * A peer's whole stream: split in two deliveries at the place that the first byte says, each
 * frame decoded by its type. Nothing may be read outside of it, and a failure ends it.
 */
#include <string.h>

#include "base/mem.h"
#include "wire/frame.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int decode(int type, struct cbor_cursor *c)
{
	struct post p;
	struct hello h;
	struct chunk k;
	struct carry carry;
	struct taken_row row;
	struct slice a, b;
	uint32_t x, y;
	uint64_t n, rows;
	int code;

	switch (type) {
	case FRAME_HELLO:
		return hello_decode(c, &h);
	case FRAME_POST:
		return post_decode(c, &p);
	case FRAME_CREDIT:
		return credit_decode(c, &x, &y);
	case FRAME_PING:
	case FRAME_PONG:
		return ping_decode(c, &n);
	case FRAME_WANT:
		return want_decode(c, &a, &n);
	case FRAME_CHUNK:
		return chunk_decode(c, &k);
	case FRAME_LACK:
		return lack_decode(c, &a);
	case FRAME_VOUCH:
		return vouch_decode(c, &a, &b);
	case FRAME_BYE:
		return bye_decode(c, &code, &a);
	case FRAME_CARRY:
		return carry_decode(c, &carry);
	case FRAME_TAKEN:
		taken_decode(c, &n, &rows);
		for (uint64_t i = 0; i < rows && !c->rc; i++)
			taken_row_decode(c, &row);
		return taken_finish(c);
	default:
		return type < 0 ? type : ERR_MALFORMED;
	}
}

/* Frames decoded until more is needed (0) or the stream is at fault. */
static int drain(struct frame_reader *r, unsigned *n)
{
	struct slice frame;
	struct cbor_cursor c;
	int rc;

	while ((rc = frame_next(r, &frame)) == 0) {
		rc = decode(frame_open(&c, frame), &c);
		if (rc < 0)
			return rc;
		(*n)++;
	}
	return rc == ERR_AGAIN ? 0 : rc;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct frame_reader whole = { BUF_INIT, 0, 0 }, cut = { BUF_INIT, 0, 0 };
	unsigned n_whole = 0, n_cut = 0;
	size_t first;
	int rc, rc_cut;

	if (size < 2)
		return 0;
	first = data[0] * (size - 1) / 256;
	data++;
	size--;
	buf_add(&whole.in, data, size);
	rc = drain(&whole, &n_whole);
	buf_add(&cut.in, data, first);
	rc_cut = drain(&cut, &n_cut);
	if (rc_cut == 0) {
		buf_add(&cut.in, data + first, size - first);
		rc_cut = drain(&cut, &n_cut);
	}
	must(rc == rc_cut && n_whole == n_cut); /* however it arrives */
	buf_fini(&whole.in);
	buf_fini(&cut.in);
	return 0;
}
