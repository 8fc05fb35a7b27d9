/* Arguments, tables and values of the command line. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/mem.h"
#include "cli/cli.h"
#include "lib/bundle.h"

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
		{ "sty", "no command sty; is it stay?" },
		{ "go x --pth=a", "no option --pth=a; is it --path?" },
		{ "stay --jso", "no option --jso; is it --json?" },
		{ "go x --nothing", "no option --nothing; 'tos" },
		{ "go x --jets", "no option --jets; 'tos" },
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
					     "host0   12345\n"
					     "host10      7  low\n"
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
					     "h\xc3\xb6st\n");
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
	/* CSI of C1 in UTF-8; letters of other scripts stay, and of several lines the ends */
	buf_clear(&text);
	put_shown(&text,
		"\xc2\x9b"
		"2J\0\x7f\xc2\xb5m",
		9, "");
	assert_string_equal(buf_cstr(&text), "?2J??\xc2\xb5m");
	assert_string_equal(text_shown(&text, "one\n\ttwo\r\033]0;x\a"), "one\n\ttwo??]0;x?");
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

/* ---- briefcases and amounts */

static void base64_is_read_strictly(void **state)
{
	static const char *const wrong[] = { "A", "AAA", "A===", "AA=A", "AAA*", "=AAA",
		"AAAAA", "AA==AAAA" };
	static const struct {
		const char *text, *bytes;
	} right[] = { { "", "" }, { "YQ==", "a" }, { "YWI=", "ab" }, { "YWJj", "abc" },
		{ "YWJj+/8=", "abc\xfb\xff" } };

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(wrong); i++)
		assert_null(base64_value(wrong[i]));
	for (size_t i = 0; i < ARRAY_LEN(right); i++) {
		struct tos_value *v = base64_value(right[i].text);
		size_t n = 0;
		const uint8_t *p = tos_as_bytes(v, &n);

		assert_int_equal(tos_type(v), TOS_BYTES);
		assert_int_equal(n, strlen(right[i].bytes));
		assert_memory_equal(p, right[i].bytes, n);
		tos_value_free(v);
	}
}

static int read_back(const void *p, size_t n, struct tos_value **out)
{
	char file[] = "/tmp/tos-test.XXXXXX";
	int fd = mkstemp(file), rc;

	assert_true(fd >= 0);
	assert_int_equal(write(fd, p, n), (ssize_t)n);
	close(fd);
	rc = briefcase_read(file, out, &em);
	unlink(file);
	return rc;
}

static struct tos_value *some_briefcase(void)
{
	struct tos_value *b = tos_map(), *f = tos_array(), *m = tos_map();

	tos_set(m, "", tos_float(1.0));
	tos_set(m, "deep", tos_array());
	tos_push(f, tos_int(INT64_MIN));
	tos_push(f, tos_int(INT64_MAX));
	tos_push(f, tos_float(0.1));
	tos_push(f, tos_bool(true));
	tos_push(f, tos_nil());
	tos_push(f, tos_bytes("\0\xff\x80", 3));
	tos_push(f, tos_bytes("", 0));
	tos_push(f, tos_text("gr\xc3\xb6\xc3\x9f"
			     "er \"q\" \\ \n\t"));
	tos_push(f, m);
	tos_set(b, "", f);
	tos_set(b, "EMPTY", tos_array());
	return b;
}

static void a_briefcase_survives_json_and_cbor(void **state)
{
	struct tos_value *b = some_briefcase(), *back = NULL;
	uint8_t *p = NULL;
	size_t n = 0;

	(void)state;
	for (unsigned indent = 0; indent < 3; indent += 2) {
		char *json = tos_to_json(b, indent);

		assert_int_equal(read_back(json, strlen(json), &back), 0);
		assert_true(tos_equal(b, back));
		tos_value_free(STEAL(back));
		free(json);
	}
	assert_int_equal(tos_encode(b, &p, &n), 0);
	assert_int_equal(read_back(p, n, &back), 0);
	assert_true(tos_equal(b, back));
	tos_value_free(STEAL(back));
	for (size_t k = 0; k < n;
		k++) /* each truncation names the file, and none is believed */
		assert_true(read_back(p, k, &back) < 0 && strstr(em.text, "/tmp/tos-test"));
	free(p);
	tos_value_free(b);
}

static void a_wrong_briefcase_is_refused_with_its_place(void **state)
{
	static const struct {
		const char *text, *says;
	} wrong[] = {
		{ "", "is empty" },
		{ "[1]", "map of folders" },
		{ "{\"A\": 3}", "'A' is not a list" },
		{ "{\"A\": [1,]}", ":1:10:" },
		{ "{\"A\": [1]\n", ":2:" },
		{ "{\"A\": [1], \"A\": []}", "duplicate" },
		{ "{\"\\u00e9\": []}", "printable ASCII" },
		{ "{\"A\": [\"base64:A\"]}", "base64" },
		{ "{\"A\": [{\"base64\": \"A\"}]}", "base64" },
		{ "\xa1\x61\x41\x81", "ends at byte 4" },
		{ "\xa1\x61\x41\x80\x01", "byte 4" },
		{ "\xa1\x61\x41\x01", "'A' is not a list" },
	};
	struct tos_value *back = NULL;

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(wrong); i++) {
		assert_true(read_back(wrong[i].text, strlen(wrong[i].text), &back) < 0);
		if (!strstr(em.text, wrong[i].says))
			fail_msg("%s: %s", wrong[i].text, em.text);
	}
}

static void limits_are_written_as_people_say_them(void **state)
{
	static const struct {
		const char *name;
		int64_t value;
		const char *text;
	} each[] = { { "cpu", 10000, "10s" }, { "cpu", 1, "1ms" }, { "cpu", 1500, "1500ms" },
		{ "cpu", 0, "0ms" }, { "cpu", 90000, "90s" }, { "lifetime", 3600000, "1h" },
		{ "lifetime", 90 * 60000, "90m" }, { "memory", 16 << 20, "16M" },
		{ "memory", 0, "0" }, { "memory", 1000, "1000" }, { "memory", 101218, "98.8K" },
		{ "sent", (int64_t)1 << 40, "1T" }, { "posts", 1000, "1000" },
		{ "other", 7, "7" } };
	char text[64];

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(each); i++) {
		limit_text(each[i].name, each[i].value, text, sizeof(text));
		assert_string_equal(text, each[i].text);
	}
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
		cmocka_unit_test(base64_is_read_strictly),
		cmocka_unit_test(a_briefcase_survives_json_and_cbor),
		cmocka_unit_test(a_wrong_briefcase_is_refused_with_its_place),
		cmocka_unit_test(limits_are_written_as_people_say_them),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
