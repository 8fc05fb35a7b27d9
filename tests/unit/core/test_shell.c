/* Claims about the states of a carrier: every pair is walked. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "core/shell.h"

/* A letter for the state that follows, '.' for refused; written down apart from the table under
 * test. */
static const char letters[SHELL_STATE_COUNT + 1] = "arRsdgfFxksl";
/* clang-format off */
static const char *const want[SHELL_STATE_COUNT] = {
	/*                 admit refuse start susp resume depart acc ret finish fault retry kill
	 *                     super lose reboot */
	[SHELL_ARRIVING]   = "r" "x" "." "." "." "." "." "." "." "." "." "k" "S" "l" ".",
	[SHELL_READY]      = "." "." "R" "s" "." "." "." "." "." "F" "." "k" "S" "l" "r",
	[SHELL_RUNNING]    = "." "." "." "s" "." "d" "." "." "f" "F" "." "k" "S" "l" "r",
	[SHELL_SUSPENDED]  = "." "." "." "." "r" "." "." "." "." "F" "." "k" "S" "l" "s",
	[SHELL_DEPARTING]  = "." "." "." "." "." "." "g" "r" "f" "." "." "k" "S" "l" "d",
	[SHELL_GONE]       = "." "." "." "." "." "." "." "." "." "." "." "." "S" "." ".",
	[SHELL_FINISHED]   = "." "." "." "." "." "." "." "." "." "." "." "." "." "." ".",
	[SHELL_FAULTED]    = "." "." "." "." "." "." "." "." "." "." "r" "k" "S" "l" "F",
	[SHELL_REFUSED]    = "." "." "." "." "." "." "." "." "." "." "." "." "." "." ".",
	[SHELL_KILLED]     = "." "." "." "." "." "." "." "." "." "." "." "." "." "." ".",
	[SHELL_SUPERSEDED] = "." "." "." "." "." "." "." "." "." "." "." "." "." "." ".",
	[SHELL_LOST]       = "." "." "." "." "." "." "." "." "." "." "." "." "." "." ".",
};
/* clang-format on */

static char letter(enum shell_state s)
{
	return s == SHELL_SUPERSEDED ? 'S' : letters[s];
}

static void every_pair_of_state_and_event_is_as_designed(void **state)
{
	(void)state;
	for (int s = 0; s < SHELL_STATE_COUNT; s++) {
		assert_int_equal(strlen(want[s]), SHELL_EVENT_COUNT);
		for (int e = 0; e < SHELL_EVENT_COUNT; e++) {
			enum shell_state to = SHELL_STATE_COUNT;
			int rc = shell_next((enum shell_state)s, (enum shell_event)e, &to);

			if (want[s][e] == '.') {
				assert_int_equal(rc, ERR_STATE);
				assert_int_equal(to, SHELL_STATE_COUNT);
			} else {
				assert_int_equal(rc, 0);
				assert_int_equal(letter(to), want[s][e]);
			}
		}
	}
}

static void an_ended_carrier_never_lives_again(void **state)
{
	(void)state;
	for (int s = 0; s < SHELL_STATE_COUNT; s++) {
		enum shell_state to;

		if (!shell_ended((enum shell_state)s))
			continue;
		for (int e = 0; e < SHELL_EVENT_COUNT; e++)
			if (shell_next((enum shell_state)s, (enum shell_event)e, &to) == 0)
				assert_true(shell_ended(to));
	}
}

static void killing_works_in_every_unended_state(void **state)
{
	(void)state;
	for (int s = 0; s < SHELL_STATE_COUNT; s++) {
		enum shell_state to = SHELL_STATE_COUNT;
		int rc = shell_next((enum shell_state)s, SHELL_EV_KILL, &to);

		assert_true((rc == 0) == !shell_ended((enum shell_state)s));
		if (rc == 0)
			assert_int_equal(to, SHELL_KILLED);
	}
}

static void words_are_read_back_as_states(void **state)
{
	(void)state;
	for (int s = 0; s < SHELL_STATE_COUNT; s++)
		assert_int_equal(shell_state_parse(shell_state_word((enum shell_state)s)), s);
	assert_int_equal(shell_state_parse("dead"), ERR_NOT_FOUND);
	assert_string_equal(shell_state_word(SHELL_STATE_COUNT), "?");
	assert_string_equal(shell_event_word(SHELL_EV_REBOOT), "reboot");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_pair_of_state_and_event_is_as_designed),
		cmocka_unit_test(an_ended_carrier_never_lives_again),
		cmocka_unit_test(killing_works_in_every_unended_state),
		cmocka_unit_test(words_are_read_back_as_states),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
