/* Places on the network: see place.h. */
#include "core/place.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <string.h>

#include "base/mem.h"
#include "base/text.h"

static int bad(struct errmsg *em, const char *text, const char *why)
{
	return err_set(em, ERR_SYNTAX, "'%.200s': %s", text, why);
}

/* host, host:port, [v6], [v6]:port. Returns how long it is; 0: none. */
static size_t authority(const char *s, struct place *p, int64_t *port)
{
	size_t n = strcspn(s, "/ ?#"), host;
	const char *colon;

	if (s[0] == '[') {
		const char *end = memchr(s, ']', n);
		struct in6_addr a;

		if (!end ||
			text_copy(p->host, sizeof(p->host), s + 1, (size_t)(end - s) - 1) < 0 ||
			inet_pton(AF_INET6, p->host, &a) != 1)
			return 0;
		host = (size_t)(end - s) + 1;
		if (host < n && s[host] != ':')
			return 0;
	} else {
		colon = memchr(s, ':', n);
		host = colon ? (size_t)(colon - s) : n;
		if (host == 0 || text_copy(p->host, sizeof(p->host), s, host) < 0)
			return 0;
		for (char *c = p->host; *c; c++) {
			if (*c >= 'A' && *c <= 'Z')
				*c = (char)(*c - 'A' + 'a');
			if (!((*c >= 'a' && *c <= 'z') || (*c >= '0' && *c <= '9') ||
				    *c == '.' || *c == '-' || *c == '_'))
				return 0;
		}
	}
	if (host < n) {
		char text[8];

		if (text_copy(text, sizeof(text), s + host + 1, n - host - 1) < 0 ||
			text_int(text, 1, 65535, port) < 0)
			return 0;
	}
	return n;
}

static int flags(const char *s, const char *text, struct place *p, struct errmsg *em)
{
	while (*s) {
		size_t n;

		s += strspn(s, " ");
		n = strcspn(s, " ");
		if (n == 7 && memcmp(s, "private", n) == 0)
			p->private = true;
		else if (n == 5 && memcmp(s, "admit", n) == 0)
			p->admit = true;
		else if (n)
			return bad(em, text,
				"behind the URL there is private or admit, nothing else");
		s += n;
	}
	return 0;
}

static bool path_ok(const char *s, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		if (s[i] <= ' ' || s[i] > '~' || strchr("%?#\\*\"", s[i]))
			return false;
		if (s[i] == '/' && s[i + 1] == '.' &&
			(i + 2 >= n || s[i + 2] == '/' ||
				(s[i + 2] == '.' && (i + 3 >= n || s[i + 3] == '/'))))
			return false;
	}
	return true;
}

int place_parse(const char *text, struct place *out, struct errmsg *em)
{
	static const struct {
		const char *word;
		uint16_t port;
	} schemes[] = { { "http", 80 }, { "https", 443 }, { "tcp", 0 }, { "tos", 0 } };
	struct place p = { .port = 0 };
	const char *rest = strstr(text, "://");
	size_t n, i;
	int64_t port = 0;

	if (!rest || text_copy(p.scheme, sizeof(p.scheme), text, (size_t)(rest - text)) < 0)
		return bad(em, text, "a place is a URL such as https://example.org/pkgs/");
	for (i = 0; i < ARRAY_LEN(schemes) && strcmp(schemes[i].word, p.scheme) != 0; i++)
		;
	if (i == ARRAY_LEN(schemes))
		return bad(em, text, "a place begins with http, https, tcp or tos");
	rest += 3;
	if (strcmp(p.scheme, "tos") == 0 && rest[0] == '*') { /* any kernel of the domain */
		memcpy(p.host, "*", 2);
		n = 1;
	} else {
		n = authority(rest, &p, &port);
	}
	if (!n)
		return bad(em, text, "it names no host");
	p.port = (uint16_t)(port ? port : schemes[i].port);
	if (strcmp(p.scheme, "tcp") == 0 && !p.port)
		return bad(em, text, "it names no port");
	rest += n;
	n = strcspn(rest, " ");
	if (n && (rest[0] != '/' || !path_ok(rest, n)))
		return bad(em, text, "its path has no %, ?, #, \\ or dots for names");
	if (flags(rest + n, text, &p, em) < 0)
		return ERR_SYNTAX;
	*out = p;
	return 0;
}

/* ---- addresses */

static bool private_4(uint32_t a)
{
	static const struct {
		uint32_t net, mask;
	} nets[] = {
		{ 0x00000000, 0xff000000 }, /* this network */
		{ 0x0a000000, 0xff000000 }, { 0xac100000, 0xfff00000 },
		{ 0xc0a80000, 0xffff0000 }, /* private use */
		{ 0x64400000, 0xffc00000 }, /* shared */
		{ 0x7f000000, 0xff000000 }, /* loopback */
		{ 0xa9fe0000, 0xffff0000 }, /* link-local */
		{ 0xc0000000, 0xffffff00 }, { 0xc0000200, 0xffffff00 },
		{ 0xc6336400, 0xffffff00 },
		{ 0xcb007100, 0xffffff00 }, /* for protocols, examples */
		{ 0xc6120000, 0xfffe0000 }, /* benchmarks */
		{ 0xe0000000, 0xe0000000 }, /* multicast, reserved, broadcast */
	};

	for (size_t i = 0; i < ARRAY_LEN(nets); i++)
		if ((a & nets[i].mask) == nets[i].net)
			return true;
	return false;
}

static uint32_t be32(const uint8_t *p)
{
	return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static bool private_6(const uint8_t a[16])
{
	static const uint8_t zero[16], nat64[12] = { 0, 0x64, 0xff, 0x9b };

	if (memcmp(a, zero, 10) == 0 &&
		((a[10] == 0xff && a[11] == 0xff) || (!a[10] && !a[11])))
		return private_4(be32(a + 12)); /* ::, ::1, and IPv4 in it */
	if (memcmp(a, nat64, sizeof(nat64)) == 0)
		return private_4(be32(a + 12));
	if (a[0] == 0x20 && a[1] == 0x02) /* 6to4 */
		return private_4(be32(a + 2));
	if (a[0] == 0x20 && a[1] == 0x01 && (a[2] < 0x02 || (a[2] == 0x0d && a[3] == 0xb8)))
		return true;          /* for protocols (Teredo among them), examples */
	return (a[0] & 0xe0) != 0x20; /* all but global unicast */
}

bool address_private(const struct sockaddr *a)
{
	const void *p = a;

	if (a->sa_family == AF_INET)
		return private_4(ntohl(((const struct sockaddr_in *)p)->sin_addr.s_addr));
	if (a->sa_family == AF_INET6)
		return private_6(((const struct sockaddr_in6 *)p)->sin6_addr.s6_addr);
	return true;
}
