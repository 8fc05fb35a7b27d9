/*
 * Makes vm_prelude.h at build time: the prelude as text and compiled. tos-vm itself compiles
 * what carriers bring and loads nothing compiled but this, which is part of its own binary.
 * `prelude_gen vm_prelude.h FILE.lua...`
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

static void array(FILE *out, const char *name, int file)
{
	fprintf(out, "static const unsigned char %s_%d[] = {\n", name, file);
}

static void part(lua_State *L, FILE *f, const char *path, int file)
{
	static char text[1 << 20];
	FILE *in = fopen(path, "rb");
	size_t n = in ? fread(text, 1, sizeof text, in) : 0;
	struct array out = { .f = f };

	if (n == 0 || n == sizeof text) {
		fprintf(stderr, "%s: cannot be read\n", path);
		exit(1);
	}
	fclose(in);
	if (luaL_loadbufferx(L, text, n, "=[tos]", "t") != LUA_OK) {
		fprintf(stderr, "%s: %s\n", path, lua_tostring(L, -1));
		exit(1);
	}
	array(f, "text", file);
	put(L, text, n, &out);
	fputs("};\n", f);
	array(f, "compiled", file);
	lua_dump(L, put, &out, 1); /* without names and lines: each carrier has a copy */
	fputs("};\n", f);
	lua_pop(L, 1);
}

int main(int argc, char **argv)
{
	FILE *out = argc >= 3 ? fopen(argv[1], "w") : NULL;
	lua_State *L = luaL_newstate();

	if (!out || !L) {
		fprintf(stderr, "usage: prelude_gen vm_prelude.h FILE.lua...\n");
		return 1;
	}
	for (int i = 2; i < argc; i++)
		part(L, out, argv[i], i);
	fputs("static const struct prelude_file {\n"
	      "const unsigned char *text, *compiled; size_t n_text, n_compiled;\n"
	      "} vm_prelude[] = {\n",
		out);
	for (int i = 2; i < argc; i++)
		fprintf(out, "{ text_%d, compiled_%d, sizeof text_%d, sizeof compiled_%d },\n",
			i, i, i, i);
	fputs("};\n", out);
	lua_close(L);
	return fclose(out) == 0 ? 0 : 1;
}
