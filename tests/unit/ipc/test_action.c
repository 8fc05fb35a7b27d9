/* Named actions: which rows are good, which values get through, and what comes of both. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>

#include "base/mem.h"
#include "ipc/action.h"

typedef char value_text[TOSD_ACTION_VALUE];

static struct tosd_action block(void)
{
	struct tosd_action a = { .name = "block", .timeout_ms = 1000 };

	assert_int_equal(action_arg_add(&a, "address", NULL), 0);
	assert_int_equal(action_arg_add(&a, "hours:number", NULL), 0);
	assert_int_equal(action_word_add(&a, "/usr/sbin/nft", NULL), 0);
	assert_int_equal(action_word_add(&a, "{ {address} timeout {hours}h }", NULL), 0);
	assert_int_equal(action_check(&a, NULL), 0);
	return a;
}

static void values_fill_their_places_and_nothing_else(void **state)
{
	struct tosd_action a = block();
	value_text v[] = { "192.0.2.7", "12" };
	char out[2048];
	uint32_t n = 0;

	(void)state;
	assert_int_equal(action_expand(&a, 2, v, out, sizeof(out), &n, NULL), 0);
	assert_int_equal(n, 2);
	assert_string_equal(out, "/usr/sbin/nft");
	assert_string_equal(out + strlen(out) + 1, "{ 192.0.2.7 timeout 12h }");
	assert_int_equal(action_expand(&a, 1, v, out, sizeof(out), &n, NULL), ERR_USAGE);
	assert_int_equal(action_expand(&a, 2, v, out, 30, &n, NULL), ERR_TOO_LARGE);
	memset(v[1], 'x', sizeof(v[1])); /* no end */
	assert_int_equal(action_expand(&a, 2, v, out, sizeof(out), &n, NULL), ERR_USAGE);
}

static void a_value_is_never_expanded_again(void **state)
{
	struct tosd_action a = { .name = "x", .timeout_ms = 1000 };
	value_text v[] = { "b", "c" };
	char out[64];
	uint32_t n;

	(void)state;
	assert_int_equal(action_arg_add(&a, "a:name", NULL), 0);
	assert_int_equal(action_arg_add(&a, "b:name", NULL), 0);
	assert_int_equal(action_word_add(&a, "/bin/echo", NULL), 0);
	assert_int_equal(action_word_add(&a, "{{a}}{b}", NULL), 0);
	assert_int_equal(action_check(&a, NULL), 0);
	assert_int_equal(action_expand(&a, 2, v, out, sizeof(out), &n, NULL), 0);
	assert_string_equal(out + strlen(out) + 1, "{b}c");
}

static void each_kind_lets_through_what_it_is_for(void **state)
{
	static const struct {
		uint32_t kind;
		const char *given, *becomes; /* NULL: refused */
	} rows[] = {
		{ ACTION_ADDRESS, "10.0.0.1", "10.0.0.1" },
		{ ACTION_ADDRESS, "2001:DB8:0::1", "2001:db8::1" },
		{ ACTION_ADDRESS4, "2001:db8::1", NULL },
		{ ACTION_ADDRESS6, "10.0.0.1", NULL },
		{ ACTION_ADDRESS, "10.0.0.1/8", NULL },
		{ ACTION_ADDRESS, "10.0.0", NULL },
		{ ACTION_ADDRESS, "fe80::1%eth0", NULL },
		{ ACTION_ADDRESS, " 10.0.0.1", NULL },
		{ ACTION_ADDRESS, "10.0.0.1;reboot", NULL },
		{ ACTION_ADDRESS, "", NULL },
		{ ACTION_NAME, "nginx.service", "nginx.service" },
		{ ACTION_NAME, "_a-B", "_a-B" },
		{ ACTION_NAME, "-rf", NULL },
		{ ACTION_NAME, "..", NULL },
		{ ACTION_NAME, "a/b", NULL },
		{ ACTION_NAME, "a b", NULL },
		{ ACTION_NAME, "$(id)", NULL },
		{ ACTION_NAME, "", NULL },
		{ ACTION_NAME,
			"0123456789012345678901234567890123456789012345678901234567890123",
			"0123456789012345678901234567890123456789012345678901234567890123" },
		{ ACTION_NAME,
			"01234567890123456789012345678901234567890123456789012345678901234",
			NULL },
		{ ACTION_NUMBER, "0", "0" },
		{ ACTION_NUMBER, "999999999999999999", "999999999999999999" },
		{ ACTION_NUMBER, "1000000000000000000", NULL },
		{ ACTION_NUMBER, "-1", NULL },
		{ ACTION_NUMBER, "+1", NULL },
		{ ACTION_NUMBER, "007", NULL },
		{ ACTION_NUMBER, "1e3", NULL },
		{ ACTION_PORT, "65535", "65535" },
		{ ACTION_PORT, "0", NULL },
		{ ACTION_PORT, "65536", NULL },
		{ ACTION_DIGEST,
			"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
			"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef" },
		{ ACTION_DIGEST,
			"0123456789ABCDEF0123456789abcdef0123456789abcdef0123456789abcdef",
			NULL },
		{ ACTION_DIGEST, "0123", NULL },
		{ 0, "x", NULL },
		{ 99, "x", NULL },
	};
	char out[TOSD_ACTION_VALUE];

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		int rc = action_value(rows[i].kind, rows[i].given, out, NULL);

		if (rc != (rows[i].becomes ? 0 : ERR_USAGE) ||
			(rc == 0 && strcmp(out, rows[i].becomes) != 0))
			fail_msg("%s '%s': %d", action_kind_word(rows[i].kind), rows[i].given,
				rc);
	}
}

/* One change at a time to a row that is good. */
static void what_is_wrong_with_a_row_is_found(void **state)
{
	struct tosd_action a;
	char text[TOSD_ACTION_TEXT + 1];

	(void)state;
	a = block();
	assert_int_equal(action_arg_add(&a, "address:name", NULL), ERR_CONFIG); /* twice */
	assert_int_equal(action_arg_add(&a, "file:path", NULL), ERR_CONFIG);
	assert_int_equal(action_arg_add(&a, ":name", NULL), ERR_CONFIG);
	assert_int_equal(action_arg_add(&a, "A:name", NULL), ERR_CONFIG);
	memset(text, 'x', sizeof(text) - 1);
	text[sizeof(text) - 1] = 0;
	assert_int_equal(action_word_add(&a, text, NULL), ERR_CONFIG);
	assert_int_equal(action_word_add(&a, "{port}", NULL), 0);
	assert_int_equal(action_check(&a, NULL), ERR_CONFIG); /* no such argument */
	a = block();
	assert_int_equal(action_arg_add(&a, "port", NULL), 0);
	assert_int_equal(action_check(&a, NULL), ERR_CONFIG); /* not used */
	a = block();
	a.name[0] = '-';
	assert_int_equal(action_check(&a, NULL), ERR_CONFIG);
	a = block();
	a.text[0] = 'x'; /* no absolute path */
	assert_int_equal(action_check(&a, NULL), ERR_CONFIG);
	a = block();
	a.timeout_ms = 0;
	assert_int_equal(action_check(&a, NULL), ERR_CONFIG);
	a = block();
	a.n_words++;
	assert_int_equal(action_check(&a, NULL), ERR_CONFIG);
	a = block();
	a.n_text = sizeof(a.text) + 1;
	assert_int_equal(action_check(&a, NULL), ERR_CONFIG);
	a = block();
	a.n_args = TOSD_ACTION_ARGS + 1;
	assert_int_equal(action_check(&a, NULL), ERR_CONFIG);
	a = block();
	memset(a.arg[1].name, 'x', sizeof(a.arg[1].name));
	assert_int_equal(action_check(&a, NULL), ERR_CONFIG);
}

static void the_program_is_fixed(void **state)
{
	struct tosd_action a = { .name = "x", .timeout_ms = 1000 };

	(void)state;
	assert_int_equal(action_arg_add(&a, "name", NULL), 0);
	assert_int_equal(action_word_add(&a, "/usr/bin/{name}", NULL), 0);
	assert_int_equal(action_check(&a, NULL), ERR_CONFIG);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(values_fill_their_places_and_nothing_else),
		cmocka_unit_test(a_value_is_never_expanded_again),
		cmocka_unit_test(each_kind_lets_through_what_it_is_for),
		cmocka_unit_test(what_is_wrong_with_a_row_is_found),
		cmocka_unit_test(the_program_is_fixed),
	};

	return cmocka_run_group_tests_name("action", tests, NULL, NULL);
}
