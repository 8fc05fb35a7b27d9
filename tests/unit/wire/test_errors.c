/* doc/errors.md says what ERR_LIST says. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/mem.h"

static const struct {
	int number;
	const char *word, *text;
} list[] = {
#define ROW(sym, num, word, text) { num, word, text },
	ERR_LIST(ROW)
#undef ROW
};

static void table_in_the_manual_is_the_list(void **state)
{
	FILE *f = fopen(DOC_DIR "/errors.md", "r");
	char line[512];
	size_t n = 0;

	(void)state;
	assert_non_null(f);
	while (fgets(line, sizeof(line), f)) {
		AUTOBUF want = BUF_INIT;

		if (line[0] != '|' || line[2] < '0' || line[2] > '9')
			continue;
		assert_true(n < ARRAY_LEN(list));
		buf_printf(&want, "| %d | `%s` | %s |\n", list[n].number, list[n].word,
			list[n].text);
		assert_string_equal(line, buf_cstr(&want));
		n++;
	}
	fclose(f);
	assert_int_equal(n, ARRAY_LEN(list));
}

static void words_and_numbers_are_unique(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(list); i++) {
		assert_int_equal(list[i].number, i + 1);
		assert_int_equal(
			err_from_word(list[i].word, strlen(list[i].word)), -list[i].number);
		assert_string_equal(err_word(-list[i].number), list[i].word);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(table_in_the_manual_is_the_list),
		cmocka_unit_test(words_and_numbers_are_unique),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
