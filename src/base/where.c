/* Where our own files are: see where.h. */
#include "base/where.h"

#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/err.h"
#include "base/mem.h"

int where_self(char *out, size_t cap)
{
	char exe[4096];
	ssize_t n = readlink("/proc/self/exe", exe, sizeof(exe) - 1);
	char *slash;

	if (n <= 0)
		return ERR_NOT_FOUND;
	exe[n] = 0;
	slash = strrchr(exe, '/');
	if (!slash)
		return ERR_NOT_FOUND;
	*slash = 0;
	return snprintf(out, cap, "%s", slash == exe ? "/" : exe) < (int)cap ? 0
									     : ERR_TOO_LARGE;
}

/* The folder of what this code is in: libtos.so, where a program of somebody else's uses it. */
static int where_object(char *out, size_t cap)
{
	char *real, *slash;
	Dl_info info;
	int rc = ERR_NOT_FOUND;

	if (!dladdr((const void *)(uintptr_t)where_self, &info) || !info.dli_fname)
		return ERR_NOT_FOUND;
	real = realpath(info.dli_fname, NULL);
	slash = real ? strrchr(real, '/') : NULL;
	if (slash) {
		*slash = 0;
		rc = snprintf(out, cap, "%s", slash == real ? "/" : real) < (int)cap
			     ? 0
			     : ERR_TOO_LARGE;
	}
	free(real);
	return rc;
}

/* Try each pattern, in which %s is the name once or twice. */
static int try_from(const char *self, const char *const *patterns, size_t n, const char *name,
	char *out, size_t cap)
{
	char rest[512];

	for (size_t i = 0; i < n; i++) {
		/* The patterns are constants below; %1$s may stand in one more than once. */
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
		snprintf(rest, sizeof(rest), patterns[i], name);
#pragma GCC diagnostic pop
		if (snprintf(out, cap, "%s/%s", self, rest) >= (int)cap)
			continue;
		if (access(out, R_OK) == 0)
			return 0;
	}
	out[0] = 0;
	return ERR_NOT_FOUND;
}

static int try_each(
	const char *const *patterns, size_t n, const char *name, char *out, size_t cap)
{
	char self[4096];

	if (where_self(self, sizeof(self)) == 0 &&
		try_from(self, patterns, n, name, out, cap) == 0)
		return 0;
	return where_object(self, sizeof(self)) == 0
		       ? try_from(self, patterns, n, name, out, cap)
		       : ERR_NOT_FOUND;
}

int where_program(const char *name, char *out, size_t cap)
{
	static const struct {
		const char *name, *room;
	} rooms[] = { /* the build tree */
		{ "tosd", "tosd" }, { "tos", "cli" }, { "tos-kernel", "kernel" },
		{ "tos-vm", "vm" }, { "tos-ext", "ext" }
	};
	static const char *const installed[] = { "../libexec/tos/%1$s",
		"../../libexec/tos/%1$s", "../sbin/%1$s", "../bin/%1$s", "../../sbin/%1$s",
		"../../bin/%1$s" };
	static const char *const beside[] = { "%1$s" };

	char room[64], from_examples[64];
	const char *const built[] = { room, from_examples };

	room[0] = from_examples[0] = 0;
	for (size_t i = 0; i < ARRAY_LEN(rooms); i++)
		if (strcmp(rooms[i].name, name) == 0) {
			snprintf(room, sizeof(room), "../%s/%%1$s", rooms[i].room);
			snprintf(from_examples, sizeof(from_examples), "../src/%s/%%1$s",
				rooms[i].room);
		}
	if (room[0] && try_each(built, 1, name, out, cap) == 0)
		return 0;
	if (try_each(installed, ARRAY_LEN(installed), name, out, cap) == 0)
		return 0;
	if (room[0] && try_each(built + 1, 1, name, out, cap) == 0)
		return 0;
	return try_each(beside, 1, name, out, cap);
}

int where_extension(const char *name, char *out, size_t cap)
{
	static const char *const patterns[] = { "../../extensions/%1$s/%1$s.so",
		"../lib/tos/extensions/%1$s.so", "../../lib/tos/extensions/%1$s.so" };

	return try_each(patterns, ARRAY_LEN(patterns), name, out, cap);
}

int where_carrier(const char *name, char *out, size_t cap)
{
	static const char *const patterns[] = { "../../carriers/%1$s.lua",
		"../share/tos/carriers/%1$s.lua", "../../share/tos/carriers/%1$s.lua" };

	return try_each(patterns, ARRAY_LEN(patterns), name, out, cap);
}

int where_library(const char *name, char *out, size_t cap)
{
	static const char *const patterns[] = { "../../carriers/lib/%1$s.lua",
		"../share/tos/carriers/lib/%1$s.lua", "../../share/tos/carriers/lib/%1$s.lua" };

	return try_each(patterns, ARRAY_LEN(patterns), name, out, cap);
}
