/*
 * Makes vm_prelude.h at build time: the prelude as text and compiled. tos-vm itself compiles
 * what carriers bring and loads nothing compiled but this, which is part of its own binary.
 * `prelude_gen prelude.lua vm_prelude.h`
 */
#include <lauxlib.h>
#include <lua.h>
#include <stdio.h>
#include <stdlib.h>

struct array {
	FILE *f;
	size_t n;
};

static int put(lua_State *L, const void *p, size_t n, void *to)
{
	const unsigned char *byte = p;
	struct array *a = to;

	(void)L;
	for (size_t i = 0; i < n; i++)
		fprintf(a->f, "%u,%s", byte[i], ++a->n % 20 ? "" : "\n");
	return 0;
}

int main(int argc, char **argv)
{
	static char text[1 << 20];
	FILE *in = argc == 3 ? fopen(argv[1], "rb") : NULL;
	struct array out = { .f = argc == 3 ? fopen(argv[2], "w") : NULL };
	size_t n = in ? fread(text, 1, sizeof text, in) : 0;
	lua_State *L = luaL_newstate();

	if (n == 0 || n == sizeof text || !out.f || !L) {
		fprintf(stderr, "usage: prelude_gen prelude.lua vm_prelude.h\n");
		return 1;
	}
	if (luaL_loadbufferx(L, text, n, "=[tos]", "t") != LUA_OK) {
		fprintf(stderr, "%s: %s\n", argv[1], lua_tostring(L, -1));
		return 1;
	}
	fputs("static const unsigned char vm_prelude[] = {\n", out.f);
	put(L, text, n, &out);
	fputs("};\nstatic const unsigned char vm_prelude_compiled[] = {\n", out.f);
	lua_dump(L, put, &out, 1); /* without names and lines: each carrier has a copy */
	fputs("};\n", out.f);
	lua_close(L);
	fclose(in);
	return fclose(out.f) == 0 ? 0 : 1;
}
