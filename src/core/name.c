/* Names and addresses: see name.h. Pure; every process that names something may use it. */
#include "core/name.h"

#include <stdio.h>
#include <string.h>

#include "base/text.h"
#include "wire/frame.h"

static bool is_lower(char c)
{
	return c >= 'a' && c <= 'z';
}

static bool is_upper(char c)
{
	return c >= 'A' && c <= 'Z';
}

static bool is_digit(char c)
{
	return c >= '0' && c <= '9';
}

#define PORT_KNOWN 21212

/* Where the name's own part ends; n if no port follows it. */
static size_t port_at(const char *s, size_t n)
{
	const char *colon = memchr(s, ':', n);

	return colon ? (size_t)(colon - s) : n;
}

/* One spelling: no leading zeros, and the known port is left out. */
static unsigned port_read(const char *s, size_t n)
{
	unsigned port = 0;

	if (n < 1 || n > 5 || s[0] == '0')
		return 0;
	for (size_t i = 0; i < n; i++) {
		if (!is_digit(s[i]))
			return 0;
		port = 10 * port + (unsigned)(s[i] - '0');
	}
	return port > 65535 || port == PORT_KNOWN ? 0 : port;
}

unsigned name_kernel_port(const char *s, size_t *n)
{
	size_t len = strnlen(s, KERNEL_NAME_MAX + 1);

	*n = port_at(s, len);
	return *n < len ? port_read(s + *n + 1, len - *n - 1) : PORT_KNOWN;
}

static bool kernel_ok(const char *s, size_t whole)
{
	size_t n = whole > KERNEL_NAME_MAX ? whole : port_at(s, whole);

	if (n < whole && !port_read(s + n + 1, whole - n - 1))
		return false;
	if (n < 1 || n > KERNEL_NAME_MAX || !(is_lower(s[0]) || is_digit(s[0])))
		return false;
	for (size_t i = 1; i < n; i++)
		if (!is_lower(s[i]) && !is_digit(s[i]) && s[i] != '.' && s[i] != '-')
			return false;
	/* The system's own names, so that "client" in an address and "tos..." in a log mean one
	 * thing. */
	if ((n == 6 && memcmp(s, "client", 6) == 0) || (n == 3 && memcmp(s, "tos", 3) == 0))
		return false;
	return !(n >= 4 && memcmp(s, "tos.", 4) == 0);
}

static bool inbox_ok(const char *s, size_t n)
{
	if (n < 1 || n > 63 || !is_upper(s[0]))
		return false;
	for (size_t i = 1; i < n; i++)
		if (!is_upper(s[i]) && !is_lower(s[i]) && !is_digit(s[i]) && s[i] != '-' &&
			s[i] != '.')
			return false;
	return true;
}

static bool private_ok(const char *s, size_t n)
{
	if (n < 1 || n > 63)
		return false;
	for (size_t i = 0; i < n; i++)
		if (!is_lower(s[i]) && !is_digit(s[i]) && s[i] != '-' && s[i] != '_')
			return false;
	return true;
}

bool name_kernel_ok(const char *s)
{
	return kernel_ok(s, strnlen(s, KERNEL_NAME_MAX + 1));
}

bool name_inbox_ok(const char *s)
{
	return inbox_ok(s, strnlen(s, 64));
}

bool name_private_ok(const char *s)
{
	return private_ok(s, strnlen(s, 64));
}

bool name_folder_ok(const char *s, size_t n)
{
	if (n > 128)
		return false;
	for (size_t i = 0; i < n; i++)
		if (s[i] < 0x20 || s[i] > 0x7e)
			return false;
	return true;
}

/* A decimal number without leading zeros, so that a name has one spelling. Returns its digits
 * or 0. */
static size_t number_scan(const char *s, size_t n, uint64_t *out)
{
	uint64_t v = 0;
	size_t i;

	for (i = 0; i < n && is_digit(s[i]); i++) {
		uint64_t digit = (uint64_t)(s[i] - '0');

		if (v > (UINT64_MAX - digit) / 10)
			return 0;
		v = v * 10 + digit;
	}
	if (i > 1 && s[0] == '0')
		return 0;
	*out = v;
	return i;
}

/* NUMBER{.NUMBER} behind the '#'. */
static bool carrier_tail(const char *s, size_t n, struct address *a)
{
	uint64_t clone;
	size_t at = number_scan(s, n, &a->number);

	if (at == 0 || text_copy(a->suffix, sizeof(a->suffix), s + at, n - at) < 0)
		return false;
	while (at < n) {
		size_t digits;

		if (s[at] != '.')
			return false;
		digits = number_scan(s + at + 1, n - at - 1, &clone);
		if (digits == 0)
			return false;
		at += 1 + digits;
	}
	return true;
}

static int parse_carrier(
	const char *s, size_t n, size_t hash, struct address *a, struct errmsg *em)
{
	const char *slash = memchr(s, '/', n);
	size_t n_name = slash ? (size_t)(slash - s) : n;

	a->kind = ADDRESS_CARRIER;
	if (hash >= n_name || !kernel_ok(s, hash))
		return err_set(
			em, ERR_NAME, "'%.*s': no kernel's name before the #", (int)n, s);
	if (!carrier_tail(s + hash + 1, n_name - hash - 1, a))
		return err_set(em, ERR_NAME,
			"'%.*s': after the # comes a number, then .N for clones", (int)n, s);
	text_copy(a->kernel, sizeof(a->kernel), s, hash);
	text_copy(a->carrier, sizeof(a->carrier), s, n_name);
	if (!slash)
		return 0;
	if (!private_ok(slash + 1, n - n_name - 1))
		return err_set(em, ERR_NAME,
			"'%.*s': a carrier's inbox is lower case, digits, - and _", (int)n, s);
	return text_copy(a->inbox, sizeof(a->inbox), slash + 1, n - n_name - 1);
}

static int parse_client(const char *s, size_t n, struct address *a, struct errmsg *em)
{
	a->kind = ADDRESS_CLIENT;
	if (!private_ok(s, n))
		return err_set(em, ERR_NAME, "'%.*s' names no client", (int)n, s);
	return text_copy(a->inbox, sizeof(a->inbox), s, n);
}

static int parse_parts(const char *s, size_t n, struct address *a, struct errmsg *em)
{
	const char *hash = memchr(s, '#', n), *slash = memchr(s, '/', n);
	size_t n_kernel, n_rest;

	if (hash)
		return parse_carrier(s, n, (size_t)(hash - s), a, em);
	if (!slash) {
		if (!inbox_ok(s, n))
			return err_set(em, ERR_NAME,
				"'%.*s' is no inbox (they begin with a capital letter)", (int)n,
				s);
		return text_copy(a->inbox, sizeof(a->inbox), s, n);
	}
	n_kernel = (size_t)(slash - s);
	n_rest = n - n_kernel - 1;
	if (!kernel_ok(s, n_kernel))
		return err_set(em, ERR_NAME,
			"'%.*s' is no kernel's name (lower case, digits, - and .)",
			(int)n_kernel, s);
	text_copy(a->kernel, sizeof(a->kernel), s, n_kernel);
	if (n_rest > 7 && memcmp(slash + 1, "client/", 7) == 0)
		return parse_client(slash + 8, n_rest - 7, a, em);
	if (!inbox_ok(slash + 1, n_rest))
		return err_set(em, ERR_NAME,
			"'%.*s' is no inbox (they begin with a capital letter)", (int)n_rest,
			slash + 1);
	return text_copy(a->inbox, sizeof(a->inbox), slash + 1, n_rest);
}

int address_parse(const char *s, size_t n, struct address *out, struct errmsg *em)
{
	struct address a = { .kind = ADDRESS_INBOX };
	int rc;

	if (n == 0)
		return err_set(em, ERR_NAME, "an address can't be empty");
	if (n > NAME_BYTES_MAX)
		return err_set(em, ERR_NAME, "an address has at most %d bytes", NAME_BYTES_MAX);
	if (!name_folder_ok(s, n))
		return err_set(em, ERR_NAME, "an address is printable ASCII");
	rc = parse_parts(s, n, &a, em);
	if (rc < 0)
		return rc;
	*out = a;
	return 0;
}

int address_text(const struct address *a, char *out, size_t cap)
{
	int n = 0;

	switch (a->kind) {
	case ADDRESS_INBOX:
		n = snprintf(out, cap, "%s%s%s", a->kernel, a->kernel[0] ? "/" : "", a->inbox);
		break;
	case ADDRESS_CARRIER:
		n = snprintf(out, cap, "%s%s%s", a->carrier, a->inbox[0] ? "/" : "", a->inbox);
		break;
	case ADDRESS_CLIENT:
		n = snprintf(out, cap, "%s/client/%s", a->kernel, a->inbox);
		break;
	}
	return n >= 0 && (size_t)n < cap ? 0 : ERR_TOO_LARGE;
}
