/* Claims about inboxes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "core/inbox.h"

static struct slice text(const char *s)
{
	return (struct slice){ (const uint8_t *)s, strlen(s) };
}

static int push(struct inbox *in, const char *folder, const char *info)
{
	struct post p = {
		.kind = POST_CALL, .sender = text("host0#1"), .tag = 7, .folder = text(folder)
	};

	return inbox_push(in, &p, text(info), 99);
}

static void a_hundred_folders_come_out_in_order(void **state)
{
	struct inbox in;
	char name[32];

	(void)state;
	inbox_init(&in, "Echo", 100, 0, 0);
	for (int i = 0; i < 100; i++) {
		snprintf(name, sizeof(name), "folder %d", i);
		assert_int_equal(push(&in, name, ""), 0);
	}
	assert_int_equal(in.n, 100);
	for (int i = 0; i < 100; i++) {
		struct inbox_item *it = inbox_take(&in);

		snprintf(name, sizeof(name), "folder %d", i);
		assert_non_null(it);
		assert_int_equal(it->folder.n, strlen(name));
		assert_memory_equal(it->folder.p, name, strlen(name));
		inbox_item_free(it);
	}
	assert_null(inbox_take(&in));
	assert_int_equal(in.n, 0);
	assert_int_equal(in.bytes, 0);
	assert_true(in.posted == 100 && in.taken == 100 && in.refused == 0);
	inbox_fini(&in);
}

static void at_its_bound_it_refuses_and_counts(void **state)
{
	struct inbox in;

	(void)state;
	inbox_init(&in, "Echo", 2, 0, 0);
	assert_int_equal(push(&in, "a", ""), 0);
	assert_int_equal(push(&in, "b", ""), 0);
	assert_int_equal(push(&in, "c", ""), ERR_FULL);
	assert_true(in.refused == 1 && in.n == 2);
	inbox_item_free(inbox_take(&in));
	assert_int_equal(push(&in, "c", ""), 0);
	inbox_fini(&in);
	assert_int_equal(in.n, 0);
}

static void bytes_are_bounded_with_what_is_told_about_the_sender(void **state)
{
	struct inbox in;

	(void)state;
	inbox_init(&in, "Echo", 100, 10, 0);
	assert_int_equal(push(&in, "12345678901", ""), ERR_FULL);
	assert_int_equal(push(&in, "12345", "12345"), 0);
	assert_int_equal(push(&in, "", ""), 0);
	assert_int_equal(push(&in, "1", ""), ERR_FULL);
	inbox_item_free(inbox_take(&in));
	assert_int_equal(push(&in, "1", ""), 0);
	inbox_fini(&in);
}

static void an_item_holds_copies_and_gives_the_post_back(void **state)
{
	static const uint8_t trace[TRACE_BYTES] = { 1, 2, 3 };
	char folder[] = "folder", sender[] = "host0#1";
	struct post p = { .kind = POST_ANSWER,
		.sender = text(sender),
		.tag = 9,
		.trace = { trace, sizeof(trace) },
		.folder = text(folder) },
		    out;
	struct inbox in;
	struct inbox_item *it;

	(void)state;
	inbox_init(&in, "Echo", 1, 0, 3);
	assert_int_equal(inbox_push(&in, &p, text("info"), 1234), 0);
	memset(folder, 'x', strlen(folder));
	memset(sender, 'x', strlen(sender));
	it = inbox_take(&in);
	assert_true(it->deadline_at_ms == 1234 && it->info.n == 4);
	inbox_item_post(it, "host0/Echo", &out);
	assert_int_equal(out.kind, POST_ANSWER);
	assert_true(out.tag == 9);
	assert_memory_equal(out.folder.p, "folder", 6);
	assert_memory_equal(out.sender.p, "host0#1", 7);
	assert_memory_equal(out.dest.p, "host0/Echo", 10);
	assert_memory_equal(out.trace.p, trace, TRACE_BYTES);
	inbox_item_free(it);
	inbox_fini(&in);
}

static void a_senders_name_that_is_too_long_is_refused(void **state)
{
	static const uint8_t name[NAME_BYTES_MAX + 1] = { 'a' };
	struct post p = { .sender = { name, sizeof(name) }, .folder = text("f") };
	struct inbox in;

	(void)state;
	inbox_init(&in, "Echo", 1, 0, 0);
	assert_int_equal(inbox_push(&in, &p, text(""), 0), ERR_TOO_LARGE);
	inbox_fini(&in);
}

static void without_memory_nothing_is_queued(void **state)
{
	struct inbox in;

	(void)state;
	inbox_init(&in, "Echo", 10, 0, 0);
	assert_true(fault_alloc(1));
	assert_int_equal(push(&in, "a", ""), ERR_NOMEM);
	assert_int_equal(in.n, 0);
	assert_true(in.refused == 1);
	assert_true(fault_alloc(2));
	assert_int_equal(push(&in, "a", ""), 0);
	assert_false(fault_alloc(3));
	inbox_fini(&in);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_hundred_folders_come_out_in_order),
		cmocka_unit_test(at_its_bound_it_refuses_and_counts),
		cmocka_unit_test(bytes_are_bounded_with_what_is_told_about_the_sender),
		cmocka_unit_test(an_item_holds_copies_and_gives_the_post_back),
		cmocka_unit_test(a_senders_name_that_is_too_long_is_refused),
		cmocka_unit_test(without_memory_nothing_is_queued),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
