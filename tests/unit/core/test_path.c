/* Claims about paths. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "core/path.h"
#include "tos/value.h"
#include "wire/carrier.h"

static struct tos_value *path(const char *text)
{
	struct tos_value *p = NULL;

	assert_int_equal(path_parse(text, &p, NULL), 0);
	return p;
}

static void assert_path(const struct tos_value *p, const char *want)
{
	char text[400] = "";

	for (size_t i = 0; i < tos_len(p); i++) {
		strcat(text, i ? "," : "");
		strcat(text, tos_as_text(tos_at(p, i), "?"));
	}
	assert_string_equal(text, want);
}

static void a_path_is_split_and_spaces_are_dropped(void **state)
{
	static const char *const paths[][2] = { { "a", "a" }, { "a,b|c,@all", "a,b|c,@all" },
		{ " a , b | c\t, @web-1 ", "a,b|c,@web-1" }, { "a,a,a", "a,a,a" } };

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(paths); i++) {
		struct tos_value *p = path(paths[i][0]);

		assert_path(p, paths[i][1]);
		tos_value_free(p);
	}
}

static void a_bad_path_is_refused_with_the_word_that_is_wrong(void **state)
{
	static const struct {
		const char *text;
		int rc;
		const char *says;
	} bad[] = {
		{ "", ERR_SYNTAX, "empty" },
		{ "a,,b", ERR_SYNTAX, "empty" },
		{ "a,", ERR_SYNTAX, "empty" },
		{ "a||b", ERR_SYNTAX, "empty" },
		{ "|a", ERR_SYNTAX, "empty" },
		{ "a,Bob", ERR_NAME, "'Bob'" },
		{ "client", ERR_NAME, "'client'" },
		{ "a b", ERR_NAME, "'a b'" },
		{ "@", ERR_NAME, "'@'" },
		{ "@Web", ERR_NAME, "'@Web'" },
		{ "a|@web", ERR_NAME, "'@web'" },
		{ "a|b|c|d|e|f|g|h|i|j|k|l|m|n|o|p|q", ERR_TOO_LARGE, "alternatives" },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		struct tos_value *p = NULL;
		struct errmsg em = { "" };

		assert_int_equal(path_parse(bad[i].text, &p, &em), bad[i].rc);
		assert_null(p);
		assert_non_null(strstr(em.text, bad[i].says));
	}
}

static void a_path_has_no_more_entries_than_the_wire_allows(void **state)
{
	char *text = mem_zero(2 * (PATH_ENTRIES_MAX + 1));
	struct tos_value *p = NULL;
	struct errmsg em;

	(void)state;
	for (size_t i = 0; i < PATH_ENTRIES_MAX + 1; i++)
		memcpy(text + 2 * i, "a,", 2);
	text[2 * PATH_ENTRIES_MAX + 1] = 0;
	assert_int_equal(path_parse(text, &p, &em), ERR_TOO_LARGE);
	text[2 * PATH_ENTRIES_MAX - 1] = 0;
	assert_int_equal(path_parse(text, &p, &em), 0);
	assert_int_equal(tos_len(p), PATH_ENTRIES_MAX);
	tos_value_free(p);
	free(text);
}

static void all_becomes_every_kernel_in_order_where_it_stands(void **state)
{
	static const char *const kernels[] = { "k0", "k1", "k2" };
	struct tos_value *p = path("a,@all,b|c,@all");
	struct errmsg em = { "" };

	(void)state;
	assert_int_equal(path_expand(p, kernels, 3, &em), 0);
	assert_path(p, "a,k0,k1,k2,b|c,k0,k1,k2");
	assert_int_equal(path_expand(p, kernels, 3, &em), 0);
	assert_path(p, "a,k0,k1,k2,b|c,k0,k1,k2");
	tos_value_free(p);
	p = path("a,@web");
	assert_int_equal(path_expand(p, kernels, 3, &em), ERR_NOT_FOUND);
	assert_non_null(strstr(em.text, "@web"));
	assert_path(p, "a,@web");
	tos_value_free(p);
}

static void alternatives_come_in_the_order_written(void **state)
{
	char name[64] = "";

	(void)state;
	assert_int_equal(path_choice("a|bb|c", 0, name), 0);
	assert_string_equal(name, "a");
	assert_int_equal(path_choice("a|bb|c", 1, name), 0);
	assert_string_equal(name, "bb");
	assert_int_equal(path_choice("a|bb|c", 2, name), 0);
	assert_string_equal(name, "c");
	assert_int_equal(path_choice("a|bb|c", 3, name), ERR_NOT_FOUND);
	assert_int_equal(path_choice("", 0, name), ERR_NOT_FOUND);
	assert_int_equal(path_choice("a", 1, name), ERR_NOT_FOUND);
}

static void only_a_suffix_is_a_suffix(void **state)
{
	struct tos_value *whole = path("a,b|c,d"), *none = tos_array(), *text = tos_text("d");
	static const struct {
		const char *rest;
		bool is;
	} cases[] = { { "d", true }, { "b|c,d", true }, { "a,b|c,d", true }, { "a", false },
		{ "a,b|c", false }, { "x,a,b|c,d", false }, { "b,d", false } };

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct tos_value *rest = path(cases[i].rest);

		assert_true(path_is_suffix(rest, whole) == cases[i].is);
		tos_value_free(rest);
	}
	assert_true(path_is_suffix(none, whole));
	assert_true(path_is_suffix(none, none));
	assert_false(path_is_suffix(text, whole));
	assert_false(path_is_suffix(NULL, whole));
	tos_value_free(whole);
	tos_value_free(none);
	tos_value_free(text);
}

static void without_memory_a_path_is_an_answer_not_a_leak(void **state)
{
	static const char *const kernels[] = { "k0", "k1", "k2", "k3" };
	int rc = 0;

	(void)state;
	for (unsigned nth = 1; fault_alloc(nth); nth++) {
		struct tos_value *p = NULL;

		rc = path_parse("a,b|c,@all", &p, NULL);
		if (rc == 0)
			rc = path_expand(p, kernels, 4, NULL);
		if (rc < 0)
			assert_int_equal(rc, ERR_NOMEM);
		tos_value_free(p);
	}
	assert_int_equal(rc, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_path_is_split_and_spaces_are_dropped),
		cmocka_unit_test(a_bad_path_is_refused_with_the_word_that_is_wrong),
		cmocka_unit_test(a_path_has_no_more_entries_than_the_wire_allows),
		cmocka_unit_test(all_becomes_every_kernel_in_order_where_it_stands),
		cmocka_unit_test(alternatives_come_in_the_order_written),
		cmocka_unit_test(only_a_suffix_is_a_suffix),
		cmocka_unit_test(without_memory_a_path_is_an_answer_not_a_leak),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
