/*
 * URLs that Download is given, and places that it may take them from. Nothing here touches the
 * network. A URL is what it seems or is refused: no user, no fragment, no encoded slashes or dots, no
 * "." or "..".
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct url {
	char text[1024]; /* normalised, as it is asked for */
	char scheme[8];  /* "http", "https", "tos" */
	char host[256];  /* lower case, an IPv6 address without brackets; a kernel for tos */
	uint16_t port;
	char path[1024]; /* begins with '/'; with the query */
};

/* NULL, or what is wrong with it. */
const char *url_parse(const char *text, struct url *out);
/* A redirect's Location, which may be relative. */
const char *url_resolve(const struct url *base, const char *location, struct url *out);
/* Is it at that place ("https://example.org/pkgs/ admit")? *admit: the place says so. */
bool url_at(const struct url *u, const char *place, bool *admit);
/* tos://KERNEL/sha256/HEX: whether it has that form, and the digest. */
bool url_digest(const struct url *u, uint8_t digest[32]);
bool hex_digest(const char *hex, uint8_t digest[32]);
