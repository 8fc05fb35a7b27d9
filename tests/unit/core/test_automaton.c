/* Claims about security automata. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "core/automaton.h"

static struct automaton *made(const char *text)
{
	struct errmsg em = { "" };
	struct automaton *a = NULL;

	assert_int_equal(automaton_parse(text, strlen(text), &a, &em), 0);
	return a;
}

/* Asked, and the rule used. */
static enum automaton_verdict does(
	struct automaton *a, enum automaton_event ev, const char *object)
{
	int rule;
	enum automaton_verdict v = automaton_ask(a, ev, object, &rule);

	automaton_take(a, rule);
	return v;
}

static void at_most_ten_posts_stops_the_eleventh(void **state)
{
	AUTO(automaton)
	a = made("# at most ten posts\ngo post,call * 10 same\n"
		 "go post,call * * deny; go * * * same # all else\n");

	(void)state;
	for (int i = 0; i < 10; i++)
		assert_int_equal(does(a, i % 2 ? AUTOMATON_POST : AUTOMATON_CALL, "Echo"),
			AUTOMATON_ALLOW);
	for (int i = 0; i < 3; i++)
		assert_int_equal(does(a, AUTOMATON_POST, "Echo"), AUTOMATON_DENY);
	assert_int_equal(does(a, AUTOMATON_GO, "path"), AUTOMATON_ALLOW);
	assert_string_equal(automaton_state(a), "go");
}

static void what_was_done_decides_what_may_be_done(void **state)
{
	AUTO(automaton)
	a = made("clean call Monitor * tainted\nclean * * * same\n"
		 "tainted post,call host0/* * same\ntainted go host0 * same\n"
		 "tainted answer * * same\ntainted go * * end\n");

	(void)state;
	assert_int_equal(does(a, AUTOMATON_POST, "host9/Sink"), AUTOMATON_ALLOW);
	assert_int_equal(does(a, AUTOMATON_POST, "Monitor"), AUTOMATON_ALLOW);
	assert_string_equal(automaton_state(a), "clean");
	assert_int_equal(does(a, AUTOMATON_CALL, "Monitor"), AUTOMATON_ALLOW);
	assert_string_equal(automaton_state(a), "tainted");
	assert_int_equal(does(a, AUTOMATON_POST, "host9/Sink"), AUTOMATON_DENY);
	assert_int_equal(does(a, AUTOMATON_POST, "host0/Sink"), AUTOMATON_ALLOW);
	assert_int_equal(does(a, AUTOMATON_CLONE, "host0"), AUTOMATON_DENY);
	assert_int_equal(does(a, AUTOMATON_GO, "host0"), AUTOMATON_ALLOW);
	assert_int_equal(does(a, AUTOMATON_GO, "host00"), AUTOMATON_END);
}

static void asking_changes_nothing(void **state)
{
	AUTO(automaton) a = made("a post * 1 b");
	int rule = 7;

	(void)state;
	for (int i = 0; i < 5; i++)
		assert_int_equal(
			automaton_ask(a, AUTOMATON_POST, "Echo", &rule), AUTOMATON_ALLOW);
	assert_int_equal(rule, 0);
	assert_string_equal(automaton_rule(a, 0), "a post * 1 b");
	assert_int_equal(automaton_ask(a, AUTOMATON_GO, "path", &rule), AUTOMATON_DENY);
	assert_int_equal(rule, -1);
	automaton_take(a, rule);
	assert_string_equal(automaton_state(a), "a");
}

static void a_run_that_begins_again_begins_with_what_was_kept(void **state)
{
	static const char text[] = "a post * 3 same\na go * * b\nb post Echo * same";
	AUTO(automaton) a = made(text);
	AUTO(automaton) b = made(text);
	AUTO(automaton) other = made("a post * 3 same");
	struct tos_value *kept;

	(void)state;
	does(a, AUTOMATON_POST, "x");
	automaton_keep(a);
	does(a, AUTOMATON_POST, "x");
	does(a, AUTOMATON_GO, "path");
	kept = automaton_kept(a);
	automaton_back(a);
	assert_string_equal(automaton_state(a), "a");
	assert_int_equal(automaton_restore(b, kept), 0);
	assert_int_equal(automaton_restore(other, kept), ERR_MALFORMED);
	for (int i = 0; i < 2; i++) {
		assert_int_equal(does(a, AUTOMATON_POST, "x"), AUTOMATON_ALLOW);
		assert_int_equal(does(b, AUTOMATON_POST, "x"), AUTOMATON_ALLOW);
	}
	assert_int_equal(does(a, AUTOMATON_POST, "x"), AUTOMATON_DENY);
	assert_int_equal(does(b, AUTOMATON_POST, "x"), AUTOMATON_DENY);
	tos_set(kept, "state", tos_text("nowhere"));
	assert_int_equal(automaton_restore(b, kept), ERR_MALFORMED);
	tos_value_free(kept);
}

static void what_is_malformed_is_no_automaton(void **state)
{
	static const char *const bad[] = { "", "# nothing\n", "a post * *", "a post * * b c",
		"* post * * a", "A post * * a", "same post * * a", "a jump * * a",
		"a post, * * a", "a post a*b * a", "a post * 0 a", "a post * -1 a",
		"a post * 1x a", "a post * 9999999999999 a", "a post * * B", "a post \x01 * a",
		"a post * * a; b", "a post * * toolongtoolongtoolongtoolongtoolong" };
	char many[AUTOMATON_BYTES_MAX + 2];
	struct automaton *a = NULL;
	struct errmsg em;

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(bad); i++)
		assert_true(automaton_parse(bad[i], strlen(bad[i]), &a, &em) < 0);
	many[0] = 0;
	for (int i = 0; i <= AUTOMATON_RULES_MAX; i++)
		strcat(many, "a post * * a\n");
	assert_int_equal(automaton_parse(many, strlen(many), &a, &em), ERR_TOO_LARGE);
	memset(many, ' ', sizeof(many));
	assert_int_equal(automaton_parse(many, sizeof(many), &a, &em), ERR_TOO_LARGE);
	assert_null(a);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(at_most_ten_posts_stops_the_eleventh),
		cmocka_unit_test(what_was_done_decides_what_may_be_done),
		cmocka_unit_test(asking_changes_nothing),
		cmocka_unit_test(a_run_that_begins_again_begins_with_what_was_kept),
		cmocka_unit_test(what_is_malformed_is_no_automaton),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
