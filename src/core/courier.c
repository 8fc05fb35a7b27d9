/* Numbered posts between two kernels: see courier.h. */
#include "core/courier.h"

#include <string.h>

#include "base/mem.h"
#include "base/text.h"

#define FAILURE_TEXT_MAX 200

struct courier_failure {
	struct list node;
	uint64_t seq;
	int rc;
	bool said, breaks;
	char text[FAILURE_TEXT_MAX];
	size_t n_sender, n_carrier;
	char row[]; /* sender, carrier */
};

/* ---- the sender's end */

void courier_out_init(struct courier_out *out)
{
	*out = (struct courier_out){ .next = 0 };
	list_init(&out->flying);
}

void courier_out_add(struct courier_out *out, struct courier_item *it, size_t bytes)
{
	it->seq = ++out->next;
	it->bytes = bytes;
	list_add(&out->flying, &it->node);
	out->n++;
	out->bytes += bytes;
}

void courier_out_land(struct courier_out *out, struct courier_item *it)
{
	list_del(&it->node);
	it->seq = 0;
	out->n--;
	out->bytes -= it->bytes;
}

static struct courier_item *first_until(struct courier_out *out, uint64_t seq)
{
	struct courier_item *it;

	if (list_empty(&out->flying))
		return NULL;
	it = LIST_ITEM(out->flying.next, struct courier_item, node);
	return it->seq <= seq ? it : NULL;
}

static void land_until(struct courier_out *out, uint64_t seq, courier_landed_fn *fn, void *arg)
{
	struct courier_item *it;

	while ((it = first_until(out, seq))) {
		courier_out_land(out, it);
		fn(arg, it, 0, "");
	}
}

/* Is the frame in order? Nothing is done before that is known. */
static int taken_check(const struct courier_out *out, struct cbor_cursor c, struct errmsg *em)
{
	uint64_t seq, n, last = 0;
	struct taken_row row;
	int rc;

	taken_decode(&c, &seq, &n);
	for (uint64_t i = 0; i < n && !c.rc; i++) {
		taken_row_decode(&c, &row);
		if (!c.rc && (row.seq <= last || row.seq > seq))
			cbor_fail(&c, ERR_MALFORMED);
		last = row.seq;
	}
	rc = taken_finish(&c);
	if (rc == 0 && seq > out->next)
		rc = ERR_MALFORMED;
	return rc < 0 ? err_set(em, rc, "what was taken is not what was sent") : 0;
}

int courier_out_taken(struct courier_out *out, struct cbor_cursor *c, courier_landed_fn *fn,
	void *arg, struct errmsg *em)
{
	uint64_t seq, n;
	struct taken_row row;
	int rc = taken_check(out, *c, em);

	if (rc < 0)
		return rc;
	taken_decode(c, &seq, &n);
	if (seq > out->seen)
		out->seen = seq;
	for (uint64_t i = 0; i < n; i++) {
		struct courier_item *it;
		char text[TAKEN_TEXT_MAX + 1];

		taken_row_decode(c, &row);
		land_until(out, row.seq - 1, fn, arg);
		it = first_until(out, row.seq);
		if (!it)
			continue; /* heard of before, or given up */
		text_copy(text, sizeof(text), (const char *)row.text.p, row.text.n);
		courier_out_land(out, it);
		fn(arg, it, row.rc, text);
	}
	land_until(out, seq, fn, arg);
	return 0;
}

/* ---- the receiver's end */

void courier_in_init(struct courier_in *in)
{
	*in = (struct courier_in){ .taken = 0 };
	list_init(&in->failures);
}

static void failure_drop(struct courier_in *in, struct courier_failure *f)
{
	list_del(&f->node);
	in->n_failures--;
	in->n_breaks -= f->breaks;
	free(f);
}

/* The sender has heard of all up to this number. */
static void failures_confirmed(struct courier_in *in, uint64_t seen)
{
	while (!list_empty(&in->failures)) {
		struct courier_failure *f =
			LIST_ITEM(in->failures.next, struct courier_failure, node);

		if (f->seq > seen)
			return;
		failure_drop(in, f);
	}
}

void courier_in_fini(struct courier_in *in)
{
	failures_confirmed(in, UINT64_MAX);
	courier_in_init(in);
}

static bool row_is(const struct courier_failure *f, struct slice sender, struct slice carrier)
{
	return f->breaks && f->n_sender == sender.n && f->n_carrier == carrier.n &&
	       memcmp(f->row, sender.p, sender.n) == 0 &&
	       memcmp(f->row + sender.n, carrier.p, carrier.n) == 0;
}

static const struct courier_failure *break_find(
	const struct courier_in *in, struct slice sender, struct slice carrier)
{
	struct list *pos;

	if (in->n_breaks == 0)
		return NULL;
	LIST_EACH(pos, &in->failures)
	{
		const struct courier_failure *f = LIST_ITEM(pos, struct courier_failure, node);

		if (row_is(f, sender, carrier))
			return f;
	}
	return NULL;
}

int courier_in_post(struct courier_in *in, uint64_t seq, uint64_t seen, struct slice sender,
	struct slice carrier, enum courier_verdict *out)
{
	const struct courier_failure *f;

	failures_confirmed(in, seen);
	if (seq <= in->taken) {
		*out = COURIER_REPEAT;
		return 0;
	}
	if (in->n_failures >= COURIER_FAILURES_MAX)
		return ERR_LIMIT;
	f = break_find(in, sender, carrier);
	*out = f ? COURIER_BEHIND : COURIER_NEW;
	if (f)
		courier_in_done(in, seq, f->rc, f->text, true, sender, carrier);
	return 0;
}

void courier_in_done(struct courier_in *in, uint64_t seq, int rc, const char *text, bool breaks,
	struct slice sender, struct slice carrier)
{
	struct courier_failure *f;

	in->taken = seq;
	if (rc == 0)
		return;
	f = mem_zero(sizeof(*f) + sender.n + carrier.n);
	f->seq = seq;
	f->rc = rc;
	f->breaks = breaks;
	text_copy(f->text, sizeof(f->text), text, strnlen(text, sizeof(f->text) - 1));
	/* text_copy() may have cut a letter in two */
	while (!text_utf8(f->text, strlen(f->text)))
		f->text[strlen(f->text) - 1] = 0;
	f->n_sender = sender.n;
	f->n_carrier = carrier.n;
	memcpy(f->row, sender.p, sender.n);
	memcpy(f->row + sender.n, carrier.p, carrier.n);
	list_add(&in->failures, &f->node);
	in->n_failures++;
	in->n_breaks += breaks;
	in->failed = true;
}

bool courier_in_due(const struct courier_in *in)
{
	return in->taken > in->said || in->failed;
}

void courier_in_say_again(struct courier_in *in)
{
	struct list *pos;

	in->said = 0;
	LIST_EACH(pos, &in->failures)
	{
		LIST_ITEM(pos, struct courier_failure, node)->said = false;
		in->failed = true;
	}
}

void courier_in_say(struct courier_in *in, struct buf *frame)
{
	struct list *pos;
	uint64_t n = 0;
	size_t at;

	LIST_EACH(pos, &in->failures)
	n += !LIST_ITEM(pos, struct courier_failure, node)->said;
	at = taken_begin(frame, in->taken, n);
	LIST_EACH(pos, &in->failures)
	{
		struct courier_failure *f = LIST_ITEM(pos, struct courier_failure, node);

		if (f->said)
			continue;
		f->said = true;
		taken_row_encode(
			frame, &(struct taken_row){ f->seq, f->rc, slice_text(f->text) });
	}
	taken_end(frame, at);
	in->said = in->taken;
	in->failed = false;
}

void courier_in_unsaid(struct courier_in *in)
{
	courier_in_say_again(in);
}
