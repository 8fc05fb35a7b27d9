/* Places, and which addresses are private. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <netinet/in.h>

#include "base/mem.h"
#include "core/place.h"

static void a_place_is_a_url_and_flags(void **state)
{
	struct place p;

	(void)state;
	assert_int_equal(place_parse("https://Dl.Example.org/pkgs/ admit", &p, NULL), 0);
	assert_string_equal(p.scheme, "https");
	assert_string_equal(p.host, "dl.example.org");
	assert_int_equal(p.port, 443);
	assert_true(p.admit && !p.private);
	assert_int_equal(place_parse("http://[::1]:8080/ private admit", &p, NULL), 0);
	assert_string_equal(p.host, "::1");
	assert_int_equal(p.port, 8080);
	assert_true(p.admit && p.private);
	assert_int_equal(place_parse("tcp://mail.example.org:25", &p, NULL), 0);
	assert_int_equal(p.port, 25);
	assert_int_equal(place_parse("tos://*", &p, NULL), 0);
	assert_string_equal(p.host, "*");
	assert_int_equal(place_parse("tos://host0 admit", &p, NULL), 0);
	assert_string_equal(p.host, "host0");
}

static void what_is_none_is_refused(void **state)
{
	static const char *const wrong[] = { "", "example.org", "ftp://example.org/",
		"https://", "https:///x", "https://user@example.org/", "https://example.org:0/",
		"https://example.org:70000/", "https://example.org:x/", "https://[::1/",
		"https://[::1]x/", "https://example.org/../x", "https://example.org/a/..",
		"https://example.org/./x", "https://example.org/%2e", "https://example.org/?q",
		"https://example.org/#f", "https://example.org/a\\b", "https://example.org?x",
		"https://example.org/ allow", "tcp://example.org", "https://exa mple.org/",
		"https://*.example.org/" };

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(wrong); i++) {
		struct place p;

		if (place_parse(wrong[i], &p, NULL) != ERR_SYNTAX)
			fail_msg("'%s' was taken", wrong[i]);
	}
}

static bool is_private(const char *text)
{
	struct sockaddr_in a4 = { .sin_family = AF_INET };
	struct sockaddr_in6 a6 = { .sin6_family = AF_INET6 };
	const void *p = &a4;

	if (inet_pton(AF_INET, text, &a4.sin_addr) != 1) {
		assert_int_equal(inet_pton(AF_INET6, text, &a6.sin6_addr), 1);
		p = &a6;
	}
	return address_private(p);
}

static void addresses_that_are_not_of_the_internet_are_private(void **state)
{
	static const char *const private[] = { "127.0.0.1", "0.0.0.0", "10.1.2.3", "172.16.0.1",
		"172.31.255.255", "192.168.1.1", "169.254.169.254", "100.64.0.1", "192.0.0.8",
		"198.18.0.1", "224.0.0.1", "255.255.255.255", "240.0.0.1", "203.0.113.9",
		"::", "::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::10.0.0.1",
		"64:ff9b::a00:1", "2002:a00:1::1", "2002:7f00:1::", "fe80::1", "fc00::1",
		"fd12::1", "ff02::1", "2001:db8::1", "2001::1", "100::1" };
	static const char *const public[] = { "8.8.8.8", "172.15.255.255", "172.32.0.1",
		"192.169.0.1", "100.63.255.255", "100.128.0.1", "198.20.0.1", "223.255.255.255",
		"2606:4700::1111", "2a00:1450::1", "::ffff:8.8.8.8", "64:ff9b::808:808" };

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(private); i++)
		if (!is_private(private[i]))
			fail_msg("%s passes for public", private[i]);
	for (size_t i = 0; i < ARRAY_LEN(public); i++)
		if (is_private(public[i]))
			fail_msg("%s passes for private", public[i]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_place_is_a_url_and_flags),
		cmocka_unit_test(what_is_none_is_refused),
		cmocka_unit_test(addresses_that_are_not_of_the_internet_are_private),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
