/*
 * The modules that a carrier's source requires: found at the launch, checked, and put beside it
 * as files of the bundle, under the author's signature. In a tos-vm `require` finds nothing else.
 * doc/decisions/modules.md
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "base/buf.h"
#include "base/err.h"

#define MODULE_NAME_MAX 120 /* "lib.names"; its file's name is four bytes longer */
#define MODULES_MAX     255 /* files beside the entry */
#define MODULES_BYTES   ((size_t)16 << 20)

struct module {
	char file[129]; /* in the bundle: lib/names.lua */
	char *path;     /* where it was found */
	struct buf text;
};
struct modules {
	struct module *v;
	size_t n, bytes;
	size_t n_seen; /* whose own requirements are here as well */
};
void modules_fini(struct modules *m);

/*
 * The next require of a literal name from *at on; false at the end. *name borrows from text;
 * *line counts from 1. optional: pcall(require, "x"), which may be missing. Comments, strings and
 * fields that are called require are passed over.
 */
struct module_use {
	const char *name;
	size_t n;
	unsigned line;
	bool optional;
};
struct module_scan {
	const char *p, *end;
	unsigned line;
	bool member; /* behind a dot, a colon or `function` */
};
void module_scan_init(struct module_scan *s, const char *text, size_t n);
bool module_scan_next(struct module_scan *s, struct module_use *out);

/*
 * Add what this text requires, and what that requires, and so on. dir: the carrier's folder, or
 * NULL for one that lies in none: then only libraries of the system are found. shown: what stands
 * in front of a line in messages. entry: the carrier's own file, which can't be required.
 * ERR_NOT_FOUND, ERR_NAME (a name of the system's would be taken by another file), ERR_SYNTAX,
 * ERR_LIMIT.
 */
int modules_gather(struct modules *m, const char *dir, const char *entry, const char *shown,
	const struct buf *text, struct errmsg *em);
/* One that no literal names. */
int modules_add(struct modules *m, const char *dir, const char *entry, const char *name,
	struct errmsg *em);
/* A file as it is: bytes that the carrier reads from its folder CODE. */
int modules_add_file(
	struct modules *m, const char *file, const void *p, size_t n, struct errmsg *em);

/* Does a library of the system have this file's name, and is it the same? */
enum module_kin { MODULE_OWN, MODULE_SYSTEM, MODULE_DIFFERS };
enum module_kin module_kin(const char *file, const void *p, size_t n);

/* shell_source.c: does tos-vm take it? entry: and could it be a carrier. */
int syntax_check(const struct buf *source, const char *shown, bool entry, struct errmsg *em);
