/*
 * Claims about numbered posts: a sender and a receiver with a wire between them that a test can
 * cut, and a carrier that is at the receiver or not.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdlib.h>

#include "base/mem.h"
#include "core/courier.h"

#define POSTS 64

struct sent {
	struct courier_item item;
	int landed, rc;
	char text[64];
};

struct ends {
	struct courier_out out;
	struct courier_in in;
	struct sent sent[POSTS];
	size_t n;
	/* what was delivered at the receiver, in that order */
	size_t delivered[POSTS];
	size_t n_delivered;
};

static void ends_init(struct ends *e)
{
	memset(e, 0, sizeof(*e));
	courier_out_init(&e->out);
	courier_in_init(&e->in);
}

static size_t send(struct ends *e)
{
	courier_out_add(&e->out, &e->sent[e->n].item, 10);
	return e->n++;
}

/* It arrives, with what the sender had heard when it was sent. */
static enum courier_verdict arrive_as(
	struct ends *e, size_t i, uint64_t seq, uint64_t seen, int rc, const char *carrier)
{
	enum courier_verdict v = COURIER_NEW;

	assert_int_equal(courier_in_post(&e->in, seq, seen, slice_text("host0#1"),
				 slice_text(carrier), &v),
		0);
	if (v != COURIER_NEW)
		return v;
	courier_in_done(&e->in, seq, rc, rc == ERR_MOVED ? "host2" : "so it is",
		rc == ERR_MOVED, slice_text("host0#1"), slice_text(carrier));
	if (rc == 0)
		e->delivered[e->n_delivered++] = i;
	return v;
}

static enum courier_verdict arrive(struct ends *e, size_t i, int rc)
{
	return arrive_as(e, i, e->sent[i].item.seq, e->out.seen, rc, "host1#2");
}

static void on_landed(void *arg, struct courier_item *it, int rc, const char *text)
{
	struct sent *s = CONTAINER_OF(it, struct sent, item);

	(void)arg;
	s->landed++;
	s->rc = rc;
	snprintf(s->text, sizeof(s->text), "%s", text);
}

static int hear(struct ends *e, const struct buf *frame)
{
	struct cbor_cursor c;

	assert_int_equal(
		frame_open(&c, (struct slice){ frame->data + 4, frame->len - 4 }), FRAME_TAKEN);
	return courier_out_taken(&e->out, &c, on_landed, NULL, NULL);
}

/* What the receiver has to say comes to the sender. */
static void answer(struct ends *e)
{
	AUTOBUF frame = BUF_INIT;

	assert_true(courier_in_due(&e->in));
	courier_in_say(&e->in, &frame);
	assert_false(courier_in_due(&e->in));
	assert_int_equal(hear(e, &frame), 0);
}

static void one_answer_is_for_all_up_to_it(void **state)
{
	struct ends e;

	(void)state;
	ends_init(&e);
	for (int i = 0; i < 5; i++)
		arrive(&e, send(&e), 0);
	assert_int_equal(e.out.n, 5);
	assert_int_equal(e.out.bytes, 50);
	answer(&e);
	for (int i = 0; i < 5; i++)
		assert_true(e.sent[i].landed == 1 && e.sent[i].rc == 0);
	assert_int_equal(e.out.n, 0);
	assert_int_equal(e.out.bytes, 0);
	assert_int_equal(e.out.seen, 5);
	courier_in_fini(&e.in);
}

static void a_failure_is_named_and_the_others_are_not_held_up(void **state)
{
	struct ends e;

	(void)state;
	ends_init(&e);
	for (int i = 0; i < 3; i++)
		arrive(&e, send(&e), i == 1 ? ERR_FULL : 0);
	answer(&e);
	assert_int_equal(e.sent[0].rc, 0);
	assert_int_equal(e.sent[1].rc, ERR_FULL);
	assert_string_equal(e.sent[1].text, "so it is");
	assert_int_equal(e.sent[2].rc, 0);
	assert_int_equal(e.n_delivered, 2);
	courier_in_fini(&e.in);
}

static void what_is_behind_one_that_moved_comes_back_too(void **state)
{
	struct ends e;

	(void)state;
	ends_init(&e);
	for (int i = 0; i < 4; i++)
		send(&e);
	arrive(&e, 0, 0);
	arrive(&e, 1, ERR_MOVED);
	/* The carrier may be back by now: what is behind must not get before. */
	assert_int_equal(arrive(&e, 2, 0), COURIER_BEHIND);
	assert_int_equal(arrive(&e, 3, 0), COURIER_BEHIND);
	answer(&e);
	for (int i = 1; i < 4; i++) {
		assert_int_equal(e.sent[i].rc, ERR_MOVED);
		assert_string_equal(e.sent[i].text, "host2");
	}
	assert_int_equal(e.n_delivered, 1);
	courier_in_fini(&e.in);
}

static void another_row_is_not_broken(void **state)
{
	struct ends e;

	(void)state;
	ends_init(&e);
	arrive(&e, send(&e), ERR_MOVED);
	send(&e);
	assert_int_equal(arrive_as(&e, 1, 2, 0, 0, "host1#3"), COURIER_NEW);
	assert_int_equal(e.n_delivered, 1);
	courier_in_fini(&e.in);
}

static void a_row_is_mended_by_who_has_heard_of_the_break(void **state)
{
	struct ends e;

	(void)state;
	ends_init(&e);
	arrive(&e, send(&e), ERR_MOVED);
	answer(&e);
	send(&e);
	assert_int_equal(arrive(&e, 1, 0), COURIER_NEW);
	assert_int_equal(e.in.n_failures, 0);
	courier_in_fini(&e.in);
}

static void over_a_new_link_nothing_is_dealt_with_twice(void **state)
{
	AUTOBUF lost = BUF_INIT;
	struct ends e;

	(void)state;
	ends_init(&e);
	for (int i = 0; i < 4; i++)
		send(&e);
	arrive(&e, 0, 0);
	arrive(&e, 1, ERR_FULL);
	courier_in_say(&e.in, &lost); /* the link breaks: this is lost, and so are 2 and 3 */
	courier_in_say_again(&e.in);
	for (size_t i = 0; i < 4; i++)
		assert_int_equal(arrive(&e, i, 0), i < 2 ? COURIER_REPEAT : COURIER_NEW);
	answer(&e);
	assert_int_equal(e.n_delivered, 3);
	assert_int_equal(e.sent[1].rc, ERR_FULL);
	for (int i = 0; i < 4; i++)
		assert_int_equal(e.sent[i].landed, 1);
	courier_in_fini(&e.in);
}

static void an_answer_heard_twice_lands_once(void **state)
{
	AUTOBUF frame = BUF_INIT;
	struct ends e;

	(void)state;
	ends_init(&e);
	arrive(&e, send(&e), ERR_FULL);
	courier_in_say(&e.in, &frame);
	assert_int_equal(hear(&e, &frame), 0);
	assert_int_equal(hear(&e, &frame), 0);
	assert_int_equal(e.sent[0].landed, 1);
	courier_in_fini(&e.in);
}

static void one_given_up_is_not_answered(void **state)
{
	struct ends e;

	(void)state;
	ends_init(&e);
	for (int i = 0; i < 2; i++)
		arrive(&e, send(&e), ERR_FULL);
	courier_out_land(&e.out, &e.sent[0].item);
	answer(&e);
	assert_int_equal(e.sent[0].landed, 0);
	assert_int_equal(e.sent[1].landed, 1);
	courier_in_fini(&e.in);
}

static void what_was_never_sent_is_not_answered(void **state)
{
	static const struct {
		uint64_t seq, row[2];
	} wrong[] = { { 3, { 0, 0 } }, { 2, { 2, 1 } }, { 2, { 1, 1 } }, { 1, { 1, 2 } } };
	struct ends e;

	(void)state;
	ends_init(&e);
	send(&e);
	send(&e);
	for (size_t i = 0; i < ARRAY_LEN(wrong); i++) {
		AUTOBUF frame = BUF_INIT;
		bool rows = wrong[i].row[0] > 0;
		size_t at = taken_begin(&frame, wrong[i].seq, rows ? 2 : 0);

		for (size_t j = 0; rows && j < 2; j++)
			taken_row_encode(&frame, &(struct taken_row){ wrong[i].row[j], ERR_FULL,
							 slice_text("") });
		taken_end(&frame, at);
		assert_int_equal(hear(&e, &frame), ERR_MALFORMED);
	}
	assert_int_equal(e.out.n, 2);
	assert_int_equal(e.sent[0].landed + e.sent[1].landed, 0);
}

static void a_peer_that_listens_to_nothing_meets_a_bound(void **state)
{
	enum courier_verdict v;
	struct courier_in in;
	uint64_t seq = 0;
	int rc;

	(void)state;
	courier_in_init(&in);
	do {
		rc = courier_in_post(
			&in, ++seq, 0, slice_text("host0#1"), slice_text("host1#2"), &v);
		if (rc == 0 && v == COURIER_NEW)
			courier_in_done(&in, seq, ERR_MOVED, "host2", true,
				slice_text("host0#1"), slice_text("host1#2"));
	} while (rc == 0 && seq < 10000);
	assert_int_equal(rc, ERR_LIMIT);
	assert_int_equal(seq, COURIER_FAILURES_MAX + 1);
	courier_in_fini(&in);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(one_answer_is_for_all_up_to_it),
		cmocka_unit_test(a_failure_is_named_and_the_others_are_not_held_up),
		cmocka_unit_test(what_is_behind_one_that_moved_comes_back_too),
		cmocka_unit_test(another_row_is_not_broken),
		cmocka_unit_test(a_row_is_mended_by_who_has_heard_of_the_break),
		cmocka_unit_test(over_a_new_link_nothing_is_dealt_with_twice),
		cmocka_unit_test(an_answer_heard_twice_lands_once),
		cmocka_unit_test(one_given_up_is_not_answered),
		cmocka_unit_test(what_was_never_sent_is_not_answered),
		cmocka_unit_test(a_peer_that_listens_to_nothing_meets_a_bound),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
