/* Claims about properties and metrics. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "core/property.h"
#include "tos/value.h"

static struct tos_value *read_number(void *arg)
{
	return tos_int(*(int *)arg);
}

static int number = 5;

static int add(struct properties *p, const char *path)
{
	return property_add(p, path, PROPERTY_INT, "ms", "what it is", 1, 9, true, read_number,
		&number, NULL);
}

static void a_property_is_listed_with_all_that_is_known_of_it(void **state)
{
	struct properties *p = properties_new();
	struct tos_value *list = NULL;
	const struct tos_value *row;

	(void)state;
	assert_int_equal(add(p, "/limits/cpu"), 0);
	number = 6;
	assert_int_equal(property_list(p, "/limits/cpu", &list, NULL), 0);
	assert_int_equal(tos_len(list), 1);
	row = tos_at(list, 0);
	assert_string_equal(tos_get_text(row, "path", ""), "/limits/cpu");
	assert_string_equal(tos_get_text(row, "type", ""), "int");
	assert_string_equal(tos_get_text(row, "unit", ""), "ms");
	assert_string_equal(tos_get_text(row, "doc", ""), "what it is");
	assert_true(tos_get_int(row, "value", 0) == 6);
	assert_true(tos_get_int(row, "min", 0) == 1 && tos_get_int(row, "max", 0) == 9);
	assert_true(tos_get_bool(row, "read_only", false));
	tos_value_free(list);
	properties_free(p);
}

static void a_list_is_sorted_and_stops_at_names_not_at_letters(void **state)
{
	static const char *const paths[] = { "/b/x", "/a.c", "/a/z", "/b", "/a/b/c", "/bb" };
	struct properties *p = properties_new();
	struct tos_value *list = NULL;
	char text[200] = "";

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(paths); i++)
		assert_int_equal(add(p, paths[i]), 0);
	assert_int_equal(add(p, "/b/x"), ERR_EXISTS);
	assert_int_equal(property_list(p, "/", &list, NULL), 0);
	for (size_t i = 0; i < tos_len(list); i++)
		strcat(strcat(text, tos_get_text(tos_at(list, i), "path", "?")), " ");
	assert_string_equal(text, "/a/b/c /a/z /a.c /b /b/x /bb ");
	tos_value_free(list);
	assert_int_equal(property_list(p, "/b", &list, NULL), 0);
	assert_int_equal(tos_len(list), 2);
	tos_value_free(list);
	assert_int_equal(property_list(p, "/a", &list, NULL), 0);
	assert_int_equal(tos_len(list), 2);
	tos_value_free(list);
	assert_int_equal(property_list(p, "/c", &list, NULL), ERR_NOT_FOUND);
	assert_int_equal(property_remove(p, "/a"), 0);
	assert_int_equal(property_remove(p, "/a"), ERR_NOT_FOUND);
	assert_int_equal(property_remove(p, "/b"), 0);
	assert_int_equal(property_list(p, "/", &list, NULL), 0);
	assert_int_equal(tos_len(list), 2);
	tos_value_free(list);
	properties_free(p);
}

static void a_bad_path_is_refused(void **state)
{
	static const char *const bad[] = { "", "a", "/", "/a/", "//a", "/a b", "/a//b",
		"/\xc3\xa9" };
	struct properties *p = properties_new();

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(bad); i++)
		assert_int_equal(add(p, bad[i]), ERR_NAME);
	properties_free(p);
}

static void without_memory_listing_is_an_answer(void **state)
{
	struct properties *p = properties_new();
	struct tos_value *list;
	int rc = 0;

	(void)state;
	assert_int_equal(add(p, "/a"), 0);
	assert_int_equal(add(p, "/b"), 0);
	for (unsigned nth = 1; fault_alloc(nth); nth++) {
		list = NULL;
		rc = property_list(p, "/", &list, NULL);
		if (rc == 0)
			tos_value_free(list);
		else
			assert_int_equal(rc, ERR_NOMEM);
	}
	assert_int_equal(rc, 0);
	properties_free(p);
}

static void metrics_are_written_sorted_and_as_prometheus_wants_them(void **state)
{
	struct metrics *m = metrics_new();
	AUTOBUF out = BUF_INIT;

	(void)state;
	metric_describe(m, "posts_total", "counter", "Posts.\nAll of them.");
	metric_add(m, "posts_total", "code=\"full\"", 2);
	metric_add(m, "posts_total", "code=\"denied\"", 1);
	metric_add(m, "posts_total", "code=\"full\"", 3);
	metric_set(m, "carriers", NULL, 2.5);
	metric_set(m, "bytes", NULL, 123456789012.0);
	metric_describe(m, "frames_total", "counter", "Frames.");
	metric_set(m, "frames_total", NULL, 7); /* somebody else counts */
	metrics_text(m, &out);
	assert_string_equal(buf_cstr(&out), "# HELP tos_bytes bytes\n"
					    "# TYPE tos_bytes gauge\n"
					    "tos_bytes 123456789012\n"
					    "# HELP tos_carriers carriers\n"
					    "# TYPE tos_carriers gauge\n"
					    "tos_carriers 2.5\n"
					    "# HELP tos_frames_total Frames.\n"
					    "# TYPE tos_frames_total counter\n"
					    "tos_frames_total 7\n"
					    "# HELP tos_posts_total Posts.\\nAll of them.\n"
					    "# TYPE tos_posts_total counter\n"
					    "tos_posts_total{code=\"denied\"} 1\n"
					    "tos_posts_total{code=\"full\"} 5\n");
	assert_true(metric_get(m, "posts_total", "code=\"full\"") == 5);
	assert_true(metric_get(m, "carriers", NULL) == 2);
	assert_true(metric_get(m, "frames_total", NULL) == 7);
	assert_true(metric_get(m, "nothing", NULL) == 0);
	metrics_free(m);
}

static void labels_past_the_bound_count_under_other(void **state)
{
	struct metrics *m = metrics_new();
	char label[64];

	(void)state;
	for (int i = 0; i < 1000; i++) {
		snprintf(label, sizeof(label), "peer=\"host%d\"", i);
		metric_add(m, "frames_total", label, 1);
	}
	assert_true(metric_get(m, "frames_total", "peer=\"host0\"") == 1);
	assert_true(metric_get(m, "frames_total", "peer=\"host999\"") == 0);
	assert_true(metric_get(m, "frames_total", "peer=\"other\"") == 1000 - 256);
	metrics_free(m);
}

static void a_label_can_not_break_out_of_its_line(void **state)
{
	static const char *const bad[] = { "peer=\"a\"} 7\n", "peer=\"a", "\"",
		"peer=\"a\"} 1 #\"", "peer=\"\\\"" };
	struct metrics *m = metrics_new();
	AUTOBUF out = BUF_INIT;

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(bad); i++)
		metric_add(m, "x", bad[i], 1);
	metric_add(m, "bad name", NULL, 1);
	metric_add(m, "x", "peer=\"a\\\"b\"", 1);
	metrics_text(m, &out);
	assert_string_equal(buf_cstr(&out), "# HELP tos_x x\n# TYPE tos_x counter\n"
					    "tos_x{label=\"other\"} 1\ntos_x{peer=\"a\\\"b\"} "
					    "1\ntos_x{peer=\"other\"} 4\n");
	metrics_free(m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_property_is_listed_with_all_that_is_known_of_it),
		cmocka_unit_test(a_list_is_sorted_and_stops_at_names_not_at_letters),
		cmocka_unit_test(a_bad_path_is_refused),
		cmocka_unit_test(without_memory_listing_is_an_answer),
		cmocka_unit_test(metrics_are_written_sorted_and_as_prometheus_wants_them),
		cmocka_unit_test(labels_past_the_bound_count_under_other),
		cmocka_unit_test(a_label_can_not_break_out_of_its_line),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
