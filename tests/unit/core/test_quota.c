/* Claims about rates and usage. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/quota.h"

static void a_rate_allows_its_burst_and_then_refills(void **state)
{
	struct rate r;

	(void)state;
	rate_init(&r, 10, 1000);
	for (int i = 0; i < 10; i++)
		assert_true(rate_take(&r, 1, 1000));
	assert_false(rate_take(&r, 1, 1000));
	assert_false(rate_take(&r, 1, 1099));
	assert_true(rate_take(&r, 1, 1100));
	assert_false(rate_take(&r, 1, 1100));
	assert_true(rate_take(&r, 10, 9000000));
	assert_false(rate_take(&r, 1, 9000000));
}

static void a_clock_that_goes_back_gives_nothing_away(void **state)
{
	struct rate r;

	(void)state;
	rate_init(&r, 5, 1000);
	assert_true(rate_take(&r, 5, 1000));
	assert_false(rate_take(&r, 1, 10));
	assert_false(rate_take(&r, 1, 1000));
	assert_true(rate_take(&r, 5, 2000));
}

static void extremes_neither_overflow_nor_pass(void **state)
{
	struct rate r;

	(void)state;
	rate_init(&r, INT64_MAX, 0);
	assert_true(rate_take(&r, 1, INT64_MAX));
	assert_false(rate_take(&r, INT64_MAX, INT64_MAX));
	assert_false(rate_take(&r, -1, INT64_MAX));
	rate_init(&r, 0, 0);
	assert_false(rate_take(&r, 1, 5000));
	rate_init(&r, -3, 0);
	assert_false(rate_take(&r, 1, 5000));
}

static void a_large_amount_passes_once_and_is_made_up_for(void **state)
{
	struct rate r;

	(void)state;
	rate_init(&r, 1000, 0);
	assert_true(rate_spend(&r, 3000, 0));
	assert_false(rate_spend(&r, 1, 1999));
	assert_true(rate_spend(&r, 1, 2001));
	assert_true(rate_spend(&r, 999, 60000)); /* no more than a second's worth is saved up */
	assert_true(rate_spend(&r, 1, 60000));
	assert_false(rate_spend(&r, 1, 60000));
	assert_false(rate_spend(&r, -1, 90000));
	rate_init(&r, 0, 0);
	assert_true(rate_spend(&r, INT64_MAX, 0));
	rate_init(&r, INT64_MAX, 0);
	assert_true(rate_spend(&r, INT64_MAX, 0));
	assert_true(rate_spend(&r, INT64_MAX, INT64_MAX));
}

static void what_was_used_is_owed_until_it_is_made_up_for(void **state)
{
	struct rate r;

	(void)state;
	rate_init(&r, 200000, 0); /* a fifth of a processor, in microseconds */
	assert_false(rate_charge(&r, 200000, 0));
	assert_true(rate_charge(&r, 50000, 0));
	assert_true(rate_charge(&r, 0, 249));
	assert_false(rate_charge(&r, 0, 250));
	for (int64_t now = 250; now < 10250; now += 100) /* 20 ms in each 100 */
		assert_false(rate_charge(&r, 20000, now + 100));
	assert_true(rate_charge(&r, INT64_MAX, 20000));
	assert_true(rate_charge(&r, INT64_MAX, 20000));
	rate_init(&r, 0, 0);
	assert_false(rate_charge(&r, INT64_MAX, 0));
}

static void slow_drips_are_not_lost_to_rounding(void **state)
{
	struct rate r;
	int got = 0;

	(void)state;
	rate_init(&r, 3, 0);
	assert_true(rate_take(&r, 3, 0));
	for (int64_t t = 1; t <= 10000; t++)
		got += rate_take(&r, 1, t);
	assert_int_equal(got, 30);
}

static void usage_past_a_limit_is_refused_counted_and_named(void **state)
{
	struct usage u = { .used = { 0 } };
	struct errmsg em = { "" };

	(void)state;
	for (int i = 0; i < LIMIT_COUNT; i++)
		u.limit[i] = 10;
	assert_int_equal(usage_add(&u, LIMIT_hops, 10, &em), 0);
	assert_int_equal(usage_add(&u, LIMIT_hops, 1, &em), ERR_LIMIT);
	assert_string_equal(em.text, "limit hops: used 10 of 10");
	assert_true(u.exceeded[LIMIT_hops] == 1 && u.used[LIMIT_hops] == 10);
	assert_int_equal(usage_add(&u, LIMIT_hops, -4, &em), 0);
	assert_int_equal(usage_add(&u, LIMIT_hops, 4, &em), 0);
	assert_int_equal(usage_add(&u, LIMIT_hops, -100, &em), 0);
	assert_true(u.used[LIMIT_hops] == 0);
	assert_int_equal(usage_add(&u, LIMIT_memory, INT64_MAX, &em), ERR_LIMIT);
	u.limit[LIMIT_sent] = -1;
	assert_int_equal(usage_add(&u, LIMIT_sent, INT64_MAX, &em), 0);
	assert_int_equal(usage_add(&u, LIMIT_sent, 1, &em), ERR_LIMIT);
}

static void the_least_of_both_holds_and_what_is_not_stated_does_not(void **state)
{
	int64_t a[LIMIT_COUNT], b[LIMIT_COUNT], out[LIMIT_COUNT];

	(void)state;
	for (int i = 0; i < LIMIT_COUNT; i++)
		a[i] = 5, b[i] = 7;
	a[1] = -1;
	b[2] = 3;
	a[3] = b[3] = -1;
	limits_least(out, a, b);
	assert_true(out[0] == 5 && out[1] == 7 && out[2] == 3 && out[3] == -1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_rate_allows_its_burst_and_then_refills),
		cmocka_unit_test(a_clock_that_goes_back_gives_nothing_away),
		cmocka_unit_test(extremes_neither_overflow_nor_pass),
		cmocka_unit_test(a_large_amount_passes_once_and_is_made_up_for),
		cmocka_unit_test(what_was_used_is_owed_until_it_is_made_up_for),
		cmocka_unit_test(slow_drips_are_not_lost_to_rounding),
		cmocka_unit_test(usage_past_a_limit_is_refused_counted_and_named),
		cmocka_unit_test(the_least_of_both_holds_and_what_is_not_stated_does_not),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
