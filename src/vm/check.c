/*
 * tos-vm --check: does this compile, and could it be a carrier? Nothing of it runs.
 *
 * The first file is the entry: its compiled form must hold the name `begin` somewhere, or no
 * such global can come of it. That is a cheap first answer; whether `begin` is a function is
 * seen when the carrier runs.
 */
#include "vm/vm.h"

#include <errno.h>
#include <lauxlib.h>
#include <lualib.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"

#define CHECK_BYTES_MAX ((size_t)64 << 20)

static int read_all(FILE *f, struct buf *b)
{
	char part[8192];
	size_t n;

	b->max = CHECK_BYTES_MAX;
	while ((n = fread(part, 1, sizeof part, f)) > 0)
		if (buf_add(b, part, n))
			return buf_check(b);
	return ferror(f) ? ERR_IO : 0;
}

static int dump_add(lua_State *L, const void *p, size_t n, void *arg)
{
	(void)L;
	return buf_add(arg, p, n);
}

/* A short string in Lua 5.4's dump: its length + 1 with the high bit set, then its bytes. */
static bool names_begin(lua_State *L)
{
	AUTOBUF b = BUF_INIT;

	lua_dump(L, dump_add, &b, 1);
	return b.len && memmem(b.data, b.len,
				"\x86"
				"begin",
				6) != NULL;
}

/* Lua's message has the chunk's name in front, which we chose to be "?". */
static int check_text(const struct buf *text, const char *name, bool entry)
{
	lua_State *L = luaL_newstate();
	int rc = 1;

	if (!L)
		return 1;
	if (chunk_compile(L, text->data ? (const char *)text->data : "", text->len, "?") !=
		LUA_OK) {
		const char *why = lua_tostring(L, -1);

		if (why && strncmp(why, "?:", 2) == 0)
			fprintf(stderr, "%s:%s\n", name, why + 2);
		else
			fprintf(stderr, "%s:1: %s\n", name, why ? why : "out of memory");
	} else if (entry && !names_begin(L)) {
		fprintf(stderr,
			"%s:1: a carrier must define function begin(self); there is none\n",
			name);
	} else {
		rc = 0;
	}
	lua_close(L);
	return rc;
}

static int check_file(const char *path, const char *name, bool entry)
{
	AUTOBUF text = BUF_INIT;
	bool standard = strcmp(path, "-") == 0;
	FILE *f = standard ? stdin : fopen(path, "re");
	int rc;

	if (!f) {
		fprintf(stderr, "%s: %s\n", name, strerror(errno));
		return 1;
	}
	rc = read_all(f, &text);
	if (rc)
		fprintf(stderr, "%s: %s\n", name,
			rc == ERR_IO ? strerror(errno) : err_text(rc));
	if (!standard)
		fclose(f);
	return rc ? 1 : check_text(&text, name, entry);
}

int check_main(int argc, char **argv)
{
	int bad = 0;

	if (argc == 0) {
		fprintf(stderr,
			"usage: tos-vm --check ENTRY [FILE...] | --check - NAME [module]\n");
		return 2;
	}
	if (strcmp(argv[0], "-") == 0)
		return check_file("-", argc > 1 ? argv[1] : "standard input",
			argc < 3 || strcmp(argv[2], "module") != 0);
	for (int i = 0; i < argc; i++)
		bad |= check_file(argv[i], argv[i], i == 0);
	return bad;
}
