/* Arguments, tables and values of the command line. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/mem.h"
#include "cli/cli.h"

/* A table of our own, so that a new command changes no test here. */
static const struct command go = {
	.name = "go",
	.args = "WHERE...",
	.summary = "Go",
	.about = "Goes.",
	.min_args = 1,
	.max_args = 2,
	.options = { { "path", 'p', "PATH", "where" }, { "fast", 'f', NULL, "quickly" } },
};
static const struct command stay = {
	.name = "stay", .args = "", .summary = "Stay", .about = "Stays."
};
static const struct command *const table[] = { &go, &stay, NULL };
const struct command *const commands[] = { &go, &stay, NULL };

const struct command *command_find(const char *name)
{
	return strcmp(name, "go") == 0 ? &go : NULL;
}

static struct args a;
static struct errmsg em;

static int parse(const char *line)
{
	static char text[512];
	char *argv[32];
	int argc = 0;

	snprintf(text, sizeof(text), "tos %s", line);
	for (char *p = strtok(text, " "); p; p = strtok(NULL, " "))
		argv[argc++] = p;
	return args_parse(argc, argv, table, &a, &em);
}

static void options_may_stand_anywhere(void **state)
{
	(void)state;
	assert_int_equal(parse("--json go -p a,b one --fast two"), 0);
	assert_ptr_equal(a.command, &go);
	assert_int_equal(a.n_word, 2);
	assert_string_equal(a.word[0], "one");
	assert_string_equal(a.word[1], "two");
	assert_string_equal(args_value(&a, "path"), "a,b");
	assert_non_null(args_value(&a, "fast"));
	assert_non_null(args_value(&a, "json"));
	assert_null(args_value(&a, "kernel"));
}

static void every_way_to_give_a_value_is_taken(void **state)
{
	size_t it = 0;

	(void)state;
	assert_int_equal(parse("go x --path=1 --path 2 -p3 -p 4 -fp5 --path="), 0);
	assert_string_equal(args_next(&a, "path", &it), "1");
	assert_string_equal(args_next(&a, "path", &it), "2");
	assert_string_equal(args_next(&a, "path", &it), "3");
	assert_string_equal(args_next(&a, "path", &it), "4");
	assert_string_equal(args_next(&a, "path", &it), "5");
	assert_string_equal(args_next(&a, "path", &it), "");
	assert_null(args_next(&a, "path", &it));
	assert_non_null(args_value(&a, "fast"));
}

static void behind_two_dashes_all_is_argument(void **state)
{
	(void)state;
	assert_int_equal(parse("go -- --fast -x"), 0);
	assert_int_equal(a.n_word, 2);
	assert_string_equal(a.word[0], "--fast");
	assert_int_equal(parse("go -"), 0);
	assert_string_equal(a.word[0], "-");
}

static void wrong_usage_says_what_is_wrong(void **state)
{
	static const struct {
		const char *line, *says;
	} wrong[] = {
		{ "fly", "no command fly" },
		{ "go", "too few" },
		{ "go 1 2 3", "too many" },
		{ "stay here", "too many" },
		{ "go x --bogus", "no option --bogus" },
		{ "go x -q", "no option -q" },
		{ "stay --path x", "no option --path" },
		{ "go x --path", "--path needs a value" },
		{ "go x -p", "-p needs a value" },
		{ "go x --fast=1", "--fast takes no value" },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(wrong); i++) {
		assert_int_equal(parse(wrong[i].line), ERR_USAGE);
		assert_non_null(strstr(em.text, wrong[i].says));
	}
}

static void help_needs_no_arguments(void **state)
{
	(void)state;
	assert_int_equal(parse("go --help"), 0);
	assert_non_null(args_value(&a, "help"));
	assert_int_equal(parse("--version"), 0);
	assert_null(a.command);
	assert_int_equal(parse(""), 0);
}

/* ---- tables */

static struct tos_value *row(const char *kernel, struct tos_value *free_bytes)
{
	struct tos_value *v = tos_map();

	assert_int_equal(tos_set(v, "kernel", tos_text(kernel)), 0);
	assert_int_equal(tos_set(v, "free", free_bytes), 0);
	return v;
}

static void a_table_has_the_union_of_columns_with_kernel_first(void **state)
{
	struct tos_value *rows = tos_array(), *odd = row("host10", tos_int(7));
	AUTOBUF text = BUF_INIT;

	(void)state;
	assert_int_equal(tos_set(odd, "note", tos_text("low")), 0);
	tos_push(rows, row("host0", tos_int(12345)));
	tos_push(rows, odd);
	tos_push(rows, tos_int(3));
	table_text(rows, NULL, &text);
	assert_string_equal(buf_cstr(&text), "kernel   free  note  value\n"
					     "host0   12345        \n"
					     "host10      7  low   \n"
					     "                         3\n");
	tos_value_free(rows);
}

static void given_columns_take_their_titles_and_leave_out_the_rest(void **state)
{
	struct tos_value *rows = tos_array();
	AUTOBUF text = BUF_INIT;

	(void)state;
	tos_push(rows, row("host0", tos_text("1 GiB")));
	tos_push(rows, row("h\xc3\xb6st", tos_nil()));
	table_text(rows, "kernel:KERNEL absent:X free:FREE", &text);
	assert_string_equal(buf_cstr(&text), "KERNEL  X  FREE\n"
					     "host0      1 GiB\n"
					     "h\xc3\xb6st       \n");
	tos_value_free(rows);
}

static void an_empty_table_is_its_titles(void **state)
{
	struct tos_value *rows = tos_array();
	AUTOBUF text = BUF_INIT;

	(void)state;
	table_text(rows, "name:NAME state:STATE", &text);
	assert_string_equal(buf_cstr(&text), "NAME  STATE\n");
	tos_value_free(rows);
}

static void what_a_carrier_wrote_does_not_steer_the_terminal(void **state)
{
	struct tos_value *v = tos_text("a\033[2Jb\nc");
	AUTOBUF text = BUF_INIT;

	(void)state;
	put_text(&text, v);
	assert_string_equal(buf_cstr(&text), "a?[2Jb c");
	tos_value_free(v);
}

static void ages_are_in_their_largest_unit(void **state)
{
	char age[16];

	(void)state;
	age_text(1000, 1999, age);
	assert_string_equal(age, "0s");
	age_text(1000, 61000, age);
	assert_string_equal(age, "1m");
	age_text(1000, 1000 + 49 * 3600000LL, age);
	assert_string_equal(age, "2d");
	age_text(5000, 1000, age); /* clocks differ */
	assert_string_equal(age, "0s");
	age_text(0, 1000, age);
	assert_string_equal(age, "-");
}

/* ---- words */

static enum tos_type type_of(const char *word, bool as_text)
{
	struct tos_value *v = word_value(word, as_text);
	enum tos_type t;

	assert_non_null(v);
	t = tos_type(v);
	tos_value_free(v);
	return t;
}

static void words_are_json_where_they_are_some(void **state)
{
	struct tos_value *v;

	(void)state;
	assert_int_equal(type_of("42", false), TOS_INT);
	assert_int_equal(type_of("42", true), TOS_TEXT);
	assert_int_equal(type_of("4.5", false), TOS_FLOAT);
	assert_int_equal(type_of("true", false), TOS_BOOL);
	assert_int_equal(type_of("null", false), TOS_NIL);
	assert_int_equal(type_of("Hello, World", false), TOS_TEXT);
	assert_int_equal(type_of("42 apples", false), TOS_TEXT);
	assert_int_equal(type_of("{\"a\":1,\"a\":2}", false), TOS_TEXT);
	v = word_value("{\"a\": [1, \"x\", null]}", false);
	assert_int_equal(tos_type(v), TOS_MAP);
	assert_int_equal(tos_len(tos_get(v, "a")), 3);
	tos_value_free(v);
	v = word_value("\"42\"", false);
	assert_string_equal(tos_as_text(v, ""), "42");
	tos_value_free(v);
}

static void exit_codes_follow_the_failure(void **state)
{
	(void)state;
	assert_int_equal(cli_exit(0), 0);
	assert_int_equal(cli_exit(ERR_FAULT), 1);
	assert_int_equal(cli_exit(ERR_USAGE), 2);
	assert_int_equal(cli_exit(ERR_DENIED), 3);
	assert_int_equal(cli_exit(ERR_REVOKED), 3);
	assert_int_equal(cli_exit(ERR_TIMEOUT), 4);
	assert_int_equal(cli_exit(ERR_UNREACHABLE), 5);
}

static void the_home_of_a_carrier_stands_in_its_name(void **state)
{
	char kernel[64];

	(void)state;
	cli_home_of("host0#42.1", kernel);
	assert_string_equal(kernel, "host0");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(options_may_stand_anywhere),
		cmocka_unit_test(every_way_to_give_a_value_is_taken),
		cmocka_unit_test(behind_two_dashes_all_is_argument),
		cmocka_unit_test(wrong_usage_says_what_is_wrong),
		cmocka_unit_test(help_needs_no_arguments),
		cmocka_unit_test(a_table_has_the_union_of_columns_with_kernel_first),
		cmocka_unit_test(given_columns_take_their_titles_and_leave_out_the_rest),
		cmocka_unit_test(an_empty_table_is_its_titles),
		cmocka_unit_test(what_a_carrier_wrote_does_not_steer_the_terminal),
		cmocka_unit_test(ages_are_in_their_largest_unit),
		cmocka_unit_test(words_are_json_where_they_are_some),
		cmocka_unit_test(exit_codes_follow_the_failure),
		cmocka_unit_test(the_home_of_a_carrier_stands_in_its_name),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
