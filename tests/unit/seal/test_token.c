/* Enrolment tokens: src/seal/token.c. */
#include "domain.h"

#include "base/buf.h"

static struct token sample(void)
{
	struct token t = { .n_addresses = 2, .name = "host7", .expires_ms = 1795305600000 };

	memset(t.fingerprint, 0xab, sizeof(t.fingerprint));
	memset(t.secret, 0xcd, sizeof(t.secret));
	strcpy(t.addresses[0], "192.0.2.1:21212");
	strcpy(t.addresses[1], "host0.example.org:21212");
	return t;
}

static void token_reads_back(void **state)
{
	struct token t = sample(), back;
	AUTOBUF text = BUF_INIT;

	(void)state;
	assert_int_equal(token_text(&t, &text), 0);
	assert_memory_equal(buf_cstr(&text), "tos1.", 5);
	assert_int_equal(token_parse(buf_cstr(&text), &back, NULL), 0);
	assert_string_equal(back.name, "host7");
	assert_int_equal(back.n_addresses, 2);
	assert_string_equal(back.addresses[0], t.addresses[0]);
	assert_string_equal(back.addresses[1], t.addresses[1]);
	assert_int_equal(back.expires_ms, t.expires_ms);
	assert_memory_equal(back.secret, t.secret, 32);
	assert_memory_equal(back.fingerprint, t.fingerprint, 32);
}

static void largest_token_fits(void **state)
{
	struct token t = sample(), back;
	AUTOBUF text = BUF_INIT;

	(void)state;
	t.n_addresses = 4;
	for (size_t i = 0; i < 4; i++)
		memset(t.addresses[i], 'a', 127);
	memset(t.name, 'n', CERT_NAME_MAX);
	assert_int_equal(token_text(&t, &text), 0);
	assert_int_equal(token_parse(buf_cstr(&text), &back, NULL), 0);
	assert_memory_equal(&t, &back, sizeof(t));
}

static void token_without_address_is_not_made(void **state)
{
	struct token t = sample();
	AUTOBUF text = BUF_INIT;

	(void)state;
	t.n_addresses = 0;
	assert_int_equal(token_text(&t, &text), ERR_USAGE);
	t.n_addresses = 5;
	assert_int_equal(token_text(&t, &text), ERR_USAGE);
}

/* What parses is the only text of its token. */
static void mangled_tokens_are_refused_or_say_something_else(void **state)
{
	struct token t = sample(), back;
	AUTOBUF text = BUF_INIT;
	char *s;

	(void)state;
	assert_int_equal(token_text(&t, &text), 0);
	s = (char *)(uintptr_t)buf_cstr(&text);
	for (size_t at = 0; s[at]; at++) {
		char was = s[at];

		for (unsigned bit = 0; bit < 8; bit++) {
			s[at] = (char)(was ^ (1 << bit));
			if (token_parse(s, &back, NULL) == 0)
				assert_memory_not_equal(&t, &back, sizeof(t));
		}
		s[at] = 0;
		assert_true(token_parse(s, &back, NULL) < 0);
		s[at] = was;
	}
}

static void other_texts_are_refused(void **state)
{
	static char huge[100000];
	struct token t;
	struct errmsg em = { "" };

	(void)state;
	assert_int_equal(token_parse("", &t, NULL), ERR_MALFORMED);
	assert_int_equal(token_parse("tos1.", &t, NULL), ERR_MALFORMED);
	assert_int_equal(token_parse("tos2.AAAA", &t, &em), ERR_MALFORMED);
	assert_non_null(strstr(em.text, "tos1."));
	assert_int_equal(token_parse("tos1.A", &t, NULL), ERR_MALFORMED);
	assert_int_equal(token_parse("tos1.oA==", &t, NULL), ERR_MALFORMED);
	assert_int_equal(token_parse("tos1.o+/", &t, NULL), ERR_MALFORMED);
	memset(huge, 'A', sizeof(huge) - 1);
	memcpy(huge, "tos1.", 5);
	assert_int_equal(token_parse(huge, &t, NULL), ERR_TOO_LARGE);
}

static void strange_words_in_a_token_are_refused(void **state)
{
	struct token t = sample(), back;
	AUTOBUF text = BUF_INIT;

	(void)state;
	strcpy(t.name, "a b");
	assert_int_equal(token_text(&t, &text), 0);
	assert_int_equal(token_parse(buf_cstr(&text), &back, NULL), ERR_MALFORMED);
	t = sample();
	strcpy(t.addresses[0], "a\nb");
	buf_clear(&text);
	assert_int_equal(token_text(&t, &text), 0);
	assert_int_equal(token_parse(buf_cstr(&text), &back, NULL), ERR_MALFORMED);
	t = sample();
	t.addresses[1][0] = 0;
	buf_clear(&text);
	assert_int_equal(token_text(&t, &text), 0);
	assert_int_equal(token_parse(buf_cstr(&text), &back, NULL), ERR_MALFORMED);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(token_reads_back),
		cmocka_unit_test(largest_token_fits),
		cmocka_unit_test(token_without_address_is_not_made),
		cmocka_unit_test(mangled_tokens_are_refused_or_say_something_else),
		cmocka_unit_test(other_texts_are_refused),
		cmocka_unit_test(strange_words_in_a_token_are_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
