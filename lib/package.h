/* Packages of extensions, where they are made and from where they are sent. */
#pragma once

#include <tos/tos.h>

#include "base/buf.h"
#include "base/err.h"
#include "wire/cbor.h"

struct package_source {
	const char *path; /* FILE.so, FILE.lua, or a folder with a FILE.so for each machine */
	const char *name; /* NULL: what it calls itself, with a capital letter */
	const char *version; /* NULL: "1" */
	bool in_kernel;      /* to live in the kernel's process */
	int64_t expires_ms;  /* from now on; 0: a year */
};
/*
 * Read, describe (by tos-ext --describe) and sign it; appended to *out. ERR_NOT_FOUND,
 * ERR_MALFORMED, ERR_DENIED (not an officer's key), ERR_TOO_LARGE, ERR_UNSUPPORTED (no file for
 * this machine, by which it could be described).
 */
int package_build(const struct package_source *s, const struct tos_principal *officer,
	struct buf *out, struct errmsg *em);
/* Check a package as a kernel of this home's domain would: {name, version, officer, where,
 * privileges, inboxes: [text], machines: [text], abi: text, package: hex, expires: text}. */
int package_describe(
	struct slice package, const char *home, struct tos_value **out, struct errmsg *em);
/* The name that a package gives itself, whoever signed it, as a text. */
int package_name(struct slice package, struct tos_value **out, struct errmsg *em);
/* The act that installs it at that kernel, and the package: in the same post, or ahead of it where c leads
 * to that kernel; else it is to be in that kernel's content store already. mode: "new", "replace",
 * "either". */
#define PACKAGE_INLINE_BYTES ((size_t)900 << 10)
int package_send(struct tos_connection *c, const struct tos_principal *p, const char *kernel,
	struct slice package, const char *name, const char *mode, uint32_t timeout_ms,
	struct tos_value **out, struct errmsg *em);
