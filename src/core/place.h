/*
 * A place on the network that the configuration names for an extension: "https://example.org:443/
 * pkgs/ admit", a URL that others must begin with, then flags. What an address is private is here,
 * too.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

struct sockaddr;

struct place {
	char scheme[8]; /* "http", "https", "tcp", "tos" */
	char host[256]; /* lower case; an IPv6 address without its brackets */
	uint16_t port;  /* 0 for tos */
	bool private;   /* "private": its name may lead to a private address */
	bool admit;     /* "admit": what comes from there with its digest may be admitted */
};

/* ERR_SYNTAX says what is wrong. */
int place_parse(const char *text, struct place *out, struct errmsg *em);
/* Loopback, private, link-local, shared, multicast, reserved, in IPv4, IPv6 or one in the other: not
 * an address of the internet. */
bool address_private(const struct sockaddr *a);
