/* Claims about names and addresses. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/name.h"
#include "base/mem.h"

static int parse(const char *s, struct address *a)
{
	struct errmsg em = { "" };
	int rc = address_parse(s, strlen(s), a, &em);

	assert_true((rc == 0) == (em.text[0] == 0));
	return rc;
}

static void every_good_address_prints_as_it_was_read(void **state)
{
	static const struct {
		const char *text;
		enum address_kind kind;
		const char *kernel, *inbox;
	} good[] = {
		{ "Echo", ADDRESS_INBOX, "", "Echo" },
		{ "host3/Echo", ADDRESS_INBOX, "host3", "Echo" },
		{ "host0#42", ADDRESS_CARRIER, "host0", "" },
		{ "host0#42/replies", ADDRESS_CARRIER, "host0", "replies" },
		{ "host0#42.1.3/in_box-2", ADDRESS_CARRIER, "host0", "in_box-2" },
		{ "a.b-c#18446744073709551615", ADDRESS_CARRIER, "a.b-c", "" },
		{ "host0/client/7", ADDRESS_CLIENT, "host0", "7" },
		{ "host0/client/panel", ADDRESS_CLIENT, "host0", "panel" },
		{ "0/A", ADDRESS_INBOX, "0", "A" },
		{ "host0:21213/Echo", ADDRESS_INBOX, "host0:21213", "Echo" },
		{ "host0:1#42.1/in", ADDRESS_CARRIER, "host0:1", "in" },
		{ "a.b:65535/client/7", ADDRESS_CLIENT, "a.b:65535", "7" },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(good); i++) {
		struct address a;
		char text[160];

		assert_int_equal(parse(good[i].text, &a), 0);
		assert_int_equal(a.kind, good[i].kind);
		assert_string_equal(a.kernel, good[i].kernel);
		assert_string_equal(a.inbox, good[i].inbox);
		assert_int_equal(address_text(&a, text, sizeof(text)), 0);
		assert_string_equal(text, good[i].text);
		assert_int_equal(address_text(&a, text, strlen(good[i].text)), ERR_TOO_LARGE);
	}
}

static void a_carriers_parts_are_taken_out(void **state)
{
	struct address a;

	(void)state;
	assert_int_equal(parse("host0#42.1.3/replies", &a), 0);
	assert_string_equal(a.carrier, "host0#42.1.3");
	assert_string_equal(a.suffix, ".1.3");
	assert_true(a.number == 42);
}

static void a_bad_address_is_refused_and_out_is_left_alone(void **state)
{
	static const char *const bad[] = { "", "echo", "/Echo", "host3/", "host3/echo",
		"Host/Echo", "host0#", "#42", "host0#042", "host0#4a", "host0#42.",
		"host0#42.01", "host0#42..1", "host0#42/", "host0#42/Echo", "host0#42/a/b",
		"host0#18446744073709551616", "client/Echo", "tos/Echo", "tos.x/Echo",
		"client#1", "host0/client/", "host0/client/A", "host0/client/7/x", "/client/7",
		"host0/client", "Echo/x", "Ec ho", "Echo\n", "\xc3\xa9", "host0#42@host3",
		"-host/Echo", ".host/Echo", "host0:/Echo", "host0:0/Echo", "host0:021213/Echo",
		"host0:65536/Echo", "host0:21212/Echo", "host0:x/Echo", "host0:1:2/Echo",
		":21213/Echo", "host0:21213#", "tos:21213/Echo" };
	struct address a = { .number = 77 };

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(bad); i++)
		assert_int_equal(parse(bad[i], &a), ERR_NAME);
	assert_true(a.number == 77);
	assert_int_equal(address_parse("Echo\0x", 6, &a, NULL), ERR_NAME);
}

static void a_port_is_a_part_of_the_name(void **state)
{
	size_t n;

	(void)state;
	assert_int_equal(name_kernel_port("host0:21213", &n), 21213);
	assert_int_equal(n, 5);
	assert_int_equal(name_kernel_port("a.example.org", &n), 21212);
	assert_int_equal(n, 13);
	assert_true(name_kernel_ok("host0:21213"));
	assert_false(name_kernel_ok("host0:21212")); /* that is host0 */
}

static void lengths_are_bounded_where_the_grammar_says(void **state)
{
	char name[80], address[200];
	struct address a;

	(void)state;
	memset(name, 'a', sizeof(name));
	name[63] = 0;
	assert_true(name_kernel_ok(name));
	assert_true(name_private_ok(name));
	name[63] = 'a';
	name[64] = 0;
	assert_false(name_kernel_ok(name));
	assert_false(name_private_ok(name));
	name[0] = 'A';
	assert_false(name_inbox_ok(name));
	name[63] = 0;
	assert_true(name_inbox_ok(name));
	assert_false(name_kernel_ok(""));
	memset(address, 0, sizeof(address));
	strcpy(address, "host0#1");
	while (strlen(address) < 64)
		strcat(address, ".1");
	assert_int_equal(parse(address, &a), 0);
	while (strlen(address) < 127)
		strcat(address, ".1");
	assert_int_equal(parse(address, &a), ERR_NAME);
}

static void the_systems_names_can_not_be_taken(void **state)
{
	(void)state;
	assert_false(name_kernel_ok("client"));
	assert_false(name_kernel_ok("tos"));
	assert_false(name_kernel_ok("tos.web"));
	assert_true(name_kernel_ok("tosca"));
	assert_true(name_kernel_ok("clients"));
}

static void a_folders_name_is_printable_ascii_up_to_128_bytes(void **state)
{
	char name[129];

	(void)state;
	memset(name, ' ', sizeof(name));
	assert_true(name_folder_ok(name, 0));
	assert_true(name_folder_ok(name, 128));
	assert_false(name_folder_ok(name, 129));
	assert_false(name_folder_ok("a\tb", 3));
	assert_false(name_folder_ok("\xc3\xa9", 2));
	assert_false(name_folder_ok("a\x7f", 2));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_good_address_prints_as_it_was_read),
		cmocka_unit_test(a_carriers_parts_are_taken_out),
		cmocka_unit_test(a_bad_address_is_refused_and_out_is_left_alone),
		cmocka_unit_test(a_port_is_a_part_of_the_name),
		cmocka_unit_test(lengths_are_bounded_where_the_grammar_says),
		cmocka_unit_test(the_systems_names_can_not_be_taken),
		cmocka_unit_test(a_folders_name_is_printable_ascii_up_to_128_bytes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
