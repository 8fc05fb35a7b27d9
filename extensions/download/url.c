/* URLs and places: see url.h. libcurl's parser takes them apart, so that what is checked here is what
 * it later asks for. */
#include "url.h"

#include <ctype.h>
#include <curl/curl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool part(CURLU *u, CURLUPart what, unsigned flags, char **text)
{
	return curl_url_get(u, what, text, flags) == CURLUE_OK;
}

bool hex_digest(const char *hex, uint8_t digest[32])
{
	if (strlen(hex) != 64 || strspn(hex, "0123456789abcdef") != 64)
		return false;
	for (size_t i = 0; i < 32; i++) {
		char two[3] = { hex[2 * i], hex[2 * i + 1], 0 };

		digest[i] = (uint8_t)strtoul(two, NULL, 16);
	}
	return true;
}

/* Each %XX must be something that can't be mistaken: no control character, slash, backslash, dot or
 * percent. */
static bool escapes_ok(const char *s)
{
	for (; (s = strchr(s, '%')); s += 3) {
		char two[3] = { s[1], s[1] ? s[2] : 0, 0 };
		unsigned long c;

		if (!isxdigit((unsigned char)two[0]) || !isxdigit((unsigned char)two[1]))
			return false;
		c = strtoul(two, NULL, 16);
		if (c < ' ' || c == 0x7f || strchr("/\\.%", (int)c))
			return false;
	}
	return true;
}

static bool segments_ok(const char *path)
{
	for (const char *s = path; *s && *s != '?'; s++) {
		size_t n;

		if (*s != '/')
			continue;
		n = strcspn(s + 1, "/?");
		if ((n == 1 && s[1] == '.') || (n == 2 && s[1] == '.' && s[2] == '.'))
			return false;
	}
	return true;
}

/* Also behind %, which libcurl takes away. */
static bool host_ok(const char *host)
{
	return host[0] && strspn(host, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
				       "0123456789.-_:[]") == strlen(host);
}

static const char *text_wrong(const char *text)
{
	if (strlen(text) >= sizeof(((struct url *)0)->text))
		return "it is too long";
	for (const char *s = text; *s; s++)
		if (*s <= ' ' || *s > '~' || *s == '\\')
			return "it has a character that no URL has";
	return NULL;
}

static const char *take(CURLU *u, struct url *out)
{
	char *scheme = NULL, *host = NULL, *port = NULL, *path = NULL, *query = NULL;
	char *user = NULL, *fragment = NULL, *all = NULL;
	const char *wrong = NULL;

	memset(out, 0, sizeof(*out));
	if (part(u, CURLUPART_USER, 0, &user))
		wrong = "it names a user";
	else if (part(u, CURLUPART_FRAGMENT, 0, &fragment))
		wrong = "it has a fragment";
	else if (!part(u, CURLUPART_SCHEME, 0, &scheme) || !part(u, CURLUPART_HOST, 0, &host) ||
		 !part(u, CURLUPART_PATH, 0, &path))
		wrong = "it has no scheme, host and path";
	else if (!host_ok(host))
		wrong = "its host has a character that no name of a host has";
	else if (strcmp(scheme, "http") != 0 && strcmp(scheme, "https") != 0 &&
		 strcmp(scheme, "tos") != 0)
		wrong = "only http, https and tos are known";
	else if (!segments_ok(path))
		wrong = "its path goes up or stays with . or ..";
	if (!wrong) {
		bool six = host[0] == '[';
		size_t n = strlen(host);

		snprintf(out->scheme, sizeof(out->scheme), "%s", scheme);
		snprintf(out->host, sizeof(out->host), "%.*s", (int)(six ? n - 2 : n),
			host + (six ? 1 : 0));
		for (char *c = out->host; *c; c++)
			*c = (char)tolower((unsigned char)*c);
		out->port = strcmp(scheme, "https") == 0  ? 443
			    : strcmp(scheme, "http") == 0 ? 80
							  : 0;
		if (part(u, CURLUPART_PORT, 0, &port))
			out->port = (uint16_t)strtoul(port, NULL, 10);
		part(u, CURLUPART_QUERY, 0, &query);
		snprintf(out->path, sizeof(out->path), "%s%s%s", path,
			query && *query ? "?" : "", query ? query : "");
		if (!escapes_ok(out->path))
			wrong = "it hides a slash, a dot or worse behind %";
		else if (!part(u, CURLUPART_URL, 0, &all) || strlen(all) >= sizeof(out->text))
			wrong = "it is too long";
		else
			snprintf(out->text, sizeof(out->text), "%s", all);
	}
	curl_free(scheme);
	curl_free(host);
	curl_free(port);
	curl_free(path);
	curl_free(query);
	curl_free(user);
	curl_free(fragment);
	curl_free(all);
	return wrong;
}

/* CURLU_PATH_AS_IS: dots are to be seen, not followed. */
#define HOW (CURLU_PATH_AS_IS | CURLU_NON_SUPPORT_SCHEME | CURLU_DISALLOW_USER)

const char *url_parse(const char *text, struct url *out)
{
	const char *wrong = text_wrong(text);
	CURLU *u = wrong ? NULL : curl_url();

	if (wrong)
		return wrong;
	if (!u || curl_url_set(u, CURLUPART_URL, text, HOW) != CURLUE_OK)
		wrong = "it is no URL, or names a user";
	else
		wrong = take(u, out);
	curl_url_cleanup(u);
	return wrong;
}

const char *url_resolve(const struct url *base, const char *location, struct url *out)
{
	const char *wrong = text_wrong(location);
	CURLU *u;
	char *all = NULL;

	/* Relative to the base libcurl would follow the dots. */
	if (!wrong && !segments_ok(location))
		wrong = "its path goes up or stays with . or ..";
	if (!wrong && (strncmp(location, "../", 3) == 0 || strncmp(location, "./", 2) == 0 ||
			      strcmp(location, "..") == 0 || strcmp(location, ".") == 0))
		wrong = "its path goes up or stays with . or ..";
	if (wrong)
		return wrong;
	u = curl_url();
	if (!u || curl_url_set(u, CURLUPART_URL, base->text, HOW) != CURLUE_OK ||
		curl_url_set(u, CURLUPART_URL, location, HOW) != CURLUE_OK ||
		!part(u, CURLUPART_URL, 0, &all))
		wrong = "it is no URL, or names a user";
	else
		wrong = url_parse(all, out);
	curl_free(all);
	curl_url_cleanup(u);
	return wrong;
}

/* The place's path is a folder (it ends with a slash, or one follows in the URL), or the very file. */
static bool path_within(const char *path, const char *place)
{
	size_t n = strlen(place);

	if (n == 0 || strcmp(place, "/") == 0)
		return true;
	if (strncmp(path, place, n) != 0)
		return false;
	return place[n - 1] == '/' || path[n] == 0 || path[n] == '/' || path[n] == '?';
}

bool url_at(const struct url *u, const char *place, bool *admit)
{
	char text[1024];
	const char *flags = strchr(place, ' ');
	const char *path;
	struct url p;
	size_t n = flags ? (size_t)(flags - place) : strlen(place);

	if (n >= sizeof(text))
		return false;
	snprintf(text, sizeof(text), "%.*s", (int)n, place);
	*admit = flags && strstr(flags, " admit");
	if (strncmp(text, "tos://", 6) == 0) {
		n = strcspn(text + 6, "/");
		return strcmp(u->scheme, "tos") == 0 &&
		       (strncmp(text + 6, "*", n) == 0 ||
			       (strlen(u->host) == n && strncmp(text + 6, u->host, n) == 0));
	}
	if (url_parse(text, &p))
		return false;
	path = strstr(text, "://");
	path = path ? strchr(path + 3, '/') : NULL;
	return strcmp(u->scheme, p.scheme) == 0 && strcmp(u->host, p.host) == 0 &&
	       u->port == p.port && path_within(u->path, path ? path : "/");
}

bool url_digest(const struct url *u, uint8_t digest[32])
{
	return strcmp(u->scheme, "tos") == 0 && strncmp(u->path, "/sha256/", 8) == 0 &&
	       hex_digest(u->path + 8, digest);
}
