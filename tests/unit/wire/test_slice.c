/* Bytes, borrowed or owned: src/wire/slice.c. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>
#include <string.h>

#include "base/mem.h"
#include "base/text.h"
#include "wire/slice.h"

static void equal_are_the_same_bytes_and_as_many(void **state)
{
	struct slice none = { NULL, 0 };

	(void)state;
	assert_true(slice_equal(slice_text("abc"), slice_text("abc")));
	assert_false(slice_equal(slice_text("abc"), slice_text("abd")));
	assert_false(slice_equal(slice_text("abc"), slice_text("ab")));
	assert_true(slice_equal(none, slice_text("")));
	assert_true(slice_equal(none, none));
	assert_false(slice_equal(none, slice_text("a")));
}

static void text_is_cut_to_what_fits_and_always_ends(void **state)
{
	char out[4];

	(void)state;
	memset(out, 'x', sizeof(out));
	slice_copy_text(slice_text("abcdef"), out, sizeof(out));
	assert_string_equal(out, "abc");
	slice_copy_text(slice_text("abc"), out, sizeof(out));
	assert_string_equal(out, "abc");
	slice_copy_text(slice_text("abcd"), out, sizeof(out));
	assert_string_equal(out, "abc");
	slice_copy_text(slice_text("a"), out, sizeof(out));
	assert_string_equal(out, "a");
	memset(out, 'x', sizeof(out));
	slice_copy_text((struct slice){ NULL, 0 }, out, 1);
	assert_int_equal(out[0], 0);
	assert_int_equal(out[1], 'x');
}

static void blob_owns_a_copy_also_of_itself(void **state)
{
	char text[] = "abc";
	struct blob b = { NULL, 0 };

	(void)state;
	blob_set(&b, slice_text(text));
	text[0] = 'x';
	assert_int_equal(b.n, 3);
	assert_memory_equal(b.p, "abc", 3);
	blob_set(&b, (struct slice){ b.p + 1, 2 });
	assert_int_equal(b.n, 2);
	assert_memory_equal(b.p, "bc", 2);
	blob_set(&b, (struct slice){ NULL, 0 });
	assert_int_equal(b.n, 0);
	blob_free(&b);
	blob_free(&b);
	assert_null(b.p);
}

static void blobs_that_share_live_on_their_own(void **state)
{
	struct blob a = { NULL, 0 }, b = { NULL, 0 }, c = { NULL, 0 };

	(void)state;
	blob_share(&b, &a);
	assert_null(b.p);
	blob_set(&a, slice_text("abc"));
	blob_set(&b, slice_text("x"));
	blob_share(&b, &a);
	assert_ptr_equal(a.p, b.p);
	blob_share(&b, &b);
	blob_set_like(&c, slice_text("abc"), &a);
	assert_ptr_equal(c.p, a.p);
	blob_set_like(&c, slice_text("abd"), &a);
	assert_ptr_not_equal(c.p, a.p);
	assert_memory_equal(c.p, "abd", 3);
	blob_set_like(&c, slice_text("abc"), NULL);
	assert_ptr_not_equal(c.p, a.p);
	blob_set(&a, (struct slice){ a.p + 1, 1 });
	assert_memory_equal(a.p, "b", 1);
	assert_memory_equal(b.p, "abc", 3);
	blob_free(&a);
	blob_free(&c);
	assert_memory_equal(b.p, "abc", 3);
	blob_free(&b);
}

static void what_does_not_fit_is_cut_between_characters(void **state)
{
	static const struct {
		const char *text, *cut;
	} texts[] = { { "", "" }, { "abc", "abc" }, { "abcde", "abcd" },
		{ "ab\xe2\x82\xac", "ab" }, { "a\xe2\x82\xac\xe2\x82\xac", "a\xe2\x82\xac" },
		{ "\xf0\x9f\x98\x80x", "\xf0\x9f\x98\x80" },
		{ "ab\xe2\x82", "ab" } /* cut already */ };
	char cut[5];

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
		text_cut(cut, sizeof(cut), texts[i].text);
		assert_string_equal(cut, texts[i].cut);
	}
}

static void what_a_format_cut_is_whole_characters_again(void **state)
{
	static const struct {
		const char *text, *mended;
	} texts[] = { { "", "" }, { "h\xc3\xa9", "h\xc3\xa9" }, { "h\xc3", "h" },
		{ "ab\xe2\x82", "ab" }, { "ab\xe2", "ab" }, { "\xf0\x9f\x98", "" },
		{ "'\xc3': no", "'?': no" },
		{ "'\xe2\x82': \xe2\x82\xac", "'?"
					      "?': \xe2\x82\xac" },
		{ "\x80\xff\xc0\xaf.", "????." }, { "a\xff", "a" }, { "a\x80", "a?" },
		{ "\xed\xa0\x80\xed", "???" } };
	char text[16];

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
		snprintf(text, sizeof(text), "%s", texts[i].text);
		text_mend(text);
		assert_string_equal(text, texts[i].mended);
		assert_true(text_utf8(text, strlen(text)));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(equal_are_the_same_bytes_and_as_many),
		cmocka_unit_test(text_is_cut_to_what_fits_and_always_ends),
		cmocka_unit_test(blob_owns_a_copy_also_of_itself),
		cmocka_unit_test(blobs_that_share_live_on_their_own),
		cmocka_unit_test(what_does_not_fit_is_cut_between_characters),
		cmocka_unit_test(what_a_format_cut_is_whole_characters_again),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
