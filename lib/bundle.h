/* Paths and bundles as libtos and the tos command see them before a launch. */
#pragma once

#include <tos/tos.h>

#include "base/buf.h"
#include "base/err.h"
#include "wire/carrier.h"

struct groups;
struct names;

/* "a,b|c,@all" as an array of entries; @all becomes `all` and other groups their members, or all of
 * them stay where `all` is NULL. ERR_NAME names what is not well-formed, ERR_NOT_FOUND a group that
 * there is not, or that is empty. */
int path_entries(const char *text, const struct groups *groups, const struct names *all,
	struct tos_value **out, struct errmsg *em);
bool path_kernel_ok(const char *s, size_t n);
/* The nth choice of an entry "b|c"; false past the last. */
bool path_alternative(const char *entry, unsigned nth, char name[64]);

struct slice shell_bundle(const struct tos_shell *s); /* empty: not signed; lent */
/* Names of the path that the kernel's KERNELS doesn't list, and those that it does, with
 * commas. */
int shell_unknown_hosts(const struct tos_shell *s, struct tos_connection *c,
	struct buf *unknown, struct buf *known, struct errmsg *em);

/* A path with every group expanded, as it would stand in a ticket. */
int path_expand(
	const char *path, struct tos_connection *c, struct tos_value **out, struct errmsg *em);
/* Another carrier's source and its modules become modules of this one; module: the name by which
 * require() has it. ERR_EXISTS: both have a file of that name, and not the same. */
int shell_take(struct tos_shell *s, const char *path, char module[129], struct errmsg *em);

/* Puts these folders (copies) in the place of those of the same names. */
int shell_pack(struct tos_shell *s, const struct tos_value *briefcase, struct errmsg *em);
/* What START tells a tos-vm of it, as a carrier called `name` at a kernel called `place`. */
int shell_start(const struct tos_shell *s, const char *name, const char *place, struct buf *out,
	struct errmsg *em);
void shell_limits(const struct tos_shell *s, int64_t out[LIMIT_COUNT]);
/*
 * What it is made of: {parts: [{part: code | path | data, bytes, sha256}], path: text, folders:
 * {name: elements}, limits: {what differs from the defaults}, on-unreachable, itinerant}. What
 * path and data are counted in is their encoding.
 */
int shell_describe(const struct tos_shell *s, struct tos_value **out, struct errmsg *em);

/* A briefcase that somebody else packed: {folder: [element...]} in CBOR. The failure names the
 * byte. `file` is for the message. */
int briefcase_unpack(
	struct slice bytes, const char *file, struct tos_value **out, struct errmsg *em);
/* The same rules for one that was read from elsewhere. */
int briefcase_valid(const struct tos_value *v, const char *file, struct errmsg *em);

/*
 * Check a bundle as a kernel would: manifest, chain, signature, role, dates, digest of every
 * file. *out: {name, version, runtime, entry, author, roles, issued, expires, code, files:
 * {name: bytes}, libraries: {name: is it the system's?}}, also after some failures, so that people see whose it claims to be.
 */
int bundle_verify(
	struct slice bundle, const char *home, struct tos_value **out, struct errmsg *em);
