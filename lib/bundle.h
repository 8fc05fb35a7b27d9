/* Paths and bundles as libtos and the tos command see them before a launch. */
#pragma once

#include <tos/tos.h>

#include "base/buf.h"
#include "base/err.h"
#include "wire/cbor.h"

struct names;

/* "a,b|c,@all" as an array of entries; @all becomes `all`, or stays where that is NULL.
 * ERR_NAME names what is not well-formed, ERR_NOT_FOUND a group that there is not. */
int path_entries(
	const char *text, const struct names *all, struct tos_value **out, struct errmsg *em);
/* The nth choice of an entry "b|c"; false past the last. */
bool path_alternative(const char *entry, unsigned nth, char name[64]);

struct slice shell_bundle(const struct tos_shell *s); /* empty: not signed; lent */
/* Names of the path that the kernel's KERNELS doesn't list, and those that it does, with
 * commas. */
int shell_unknown_hosts(const struct tos_shell *s, struct tos_connection *c,
	struct buf *unknown, struct buf *known, struct errmsg *em);

/*
 * Check a bundle as a kernel would: manifest, chain, signature, role, dates, digest of every
 * file. *out: {name, version, runtime, entry, author, roles, issued, expires, code, files:
 * {name: bytes}}, also after some failures, so that people see whose it claims to be.
 */
int bundle_verify(
	struct slice bundle, const char *home, struct tos_value **out, struct errmsg *em);
