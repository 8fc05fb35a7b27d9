/* What code is kept: see code.h. Codes are compared byte by byte, their hashes only save that. */
#include "vm/code.h"
#include "vm/vm.h"

#include <lauxlib.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

#define IDLE_BYTES_MAX     ((size_t)2 << 20) /* of codes that no carrier has now */
#define IDLE_MAX           32
#define COMPILED_BYTES_MAX ((size_t)8 << 20) /* of all; what is beyond is compiled each time */

struct file {
	struct slice name, content; /* in the bundle */
	struct buf compiled;
};

struct code {
	struct list node; /* those in use first, then by when they were used last */
	uint64_t hash;
	unsigned refs;
	struct slice bundle; /* ours */
	size_t n_files;
	struct file files[];
};

static struct list codes = { &codes, &codes };
static size_t idle_bytes, n_idle, compiled_bytes;

static uint64_t hash_of(struct slice s)
{
	uint64_t h = s.n, word;
	size_t i = 0;

	for (; i + sizeof word <= s.n; i += sizeof word) {
		memcpy(&word, s.p + i, sizeof word);
		h = (h ^ word) * UINT64_C(0x9e3779b97f4a7c15);
		h ^= h >> 29;
	}
	for (; i < s.n; i++)
		h = (h ^ s.p[i]) * UINT64_C(0x100000001b3);
	return h;
}

size_t code_bytes(const struct code *k)
{
	return sizeof *k + k->n_files * sizeof(struct file) + k->bundle.n;
}

size_t code_n_files(const struct code *k)
{
	return k->n_files;
}

struct slice code_file(const struct code *k, size_t i, struct slice *name)
{
	*name = k->files[i].name;
	return k->files[i].content;
}

static void code_free(struct code *k)
{
	list_del(&k->node);
	for (size_t i = 0; i < k->n_files; i++) {
		compiled_bytes -= k->files[i].compiled.len;
		buf_fini(&k->files[i].compiled);
	}
	free((void *)(uintptr_t)k->bundle.p);
	free(k);
}

/* The one that was used last longest ago. */
static void idle_drop(void)
{
	struct code *k = LIST_ITEM(codes.prev, struct code, node);

	idle_bytes -= code_bytes(k);
	n_idle--;
	code_free(k);
}

void code_forget(void)
{
	while (n_idle)
		idle_drop();
}

static int code_new(struct slice bundle, uint64_t hash, struct code **out, struct errmsg *em)
{
	uint8_t *copy = mem_try(bundle.n ? bundle.n : 1);
	struct bundle b;
	struct code *k;
	int rc;

	if (!copy)
		return err_set(em, ERR_NOMEM, "not enough memory");
	if (bundle.n)
		memcpy(copy, bundle.p, bundle.n);
	rc = bundle_decode((struct slice){ copy, bundle.n }, &b, em);
	if (rc) {
		free(copy);
		return rc;
	}
	k = mem_zero(sizeof *k + b.n_files * sizeof(struct file));
	k->hash = hash;
	k->bundle = (struct slice){ copy, bundle.n };
	k->n_files = b.n_files;
	for (size_t i = 0; i < k->n_files; i++) {
		k->files[i].name = b.files[i].name;
		k->files[i].content = b.files[i].content;
	}
	list_add(codes.next, &k->node); /* in front */
	*out = k;
	return 0;
}

static struct code *code_find(struct slice bundle, uint64_t hash)
{
	for (struct list *at = codes.next; at != &codes; at = at->next) {
		struct code *k = LIST_ITEM(at, struct code, node);

		if (k->hash == hash && k->bundle.n == bundle.n &&
			memcmp(k->bundle.p, bundle.p, bundle.n) == 0)
			return k;
	}
	return NULL;
}

int code_ref(struct slice bundle, struct code **out, struct errmsg *em)
{
	uint64_t hash = hash_of(bundle);
	struct code *k = bundle.n ? code_find(bundle, hash) : NULL;
	int rc;

	if (!k) {
		rc = code_new(bundle, hash, &k, em);
		if (rc)
			return rc;
	} else if (k->refs == 0) {
		idle_bytes -= code_bytes(k);
		n_idle--;
		list_del(&k->node);
		list_add(codes.next, &k->node);
	}
	k->refs++;
	*out = k;
	return 0;
}

void code_unref(struct code *k)
{
	if (!k || --k->refs)
		return;
	/* Idle ones stand behind those in use, the latest first. */
	list_del(&k->node);
	struct list *at = codes.next;

	while (at != &codes && LIST_ITEM(at, struct code, node)->refs)
		at = at->next;
	list_add(at, &k->node);
	idle_bytes += code_bytes(k);
	n_idle++;
	while (n_idle > IDLE_MAX || idle_bytes > IDLE_BYTES_MAX)
		idle_drop();
}

static int dump_add(lua_State *L, const void *p, size_t n, void *to)
{
	(void)L;
	return buf_add(to, p, n);
}

/* With names and lines: they are in messages and tracebacks. */
static void compiled_keep(lua_State *L, struct file *f)
{
	if (compiled_bytes > COMPILED_BYTES_MAX / 2)
		code_forget();
	f->compiled.max = COMPILED_BYTES_MAX - compiled_bytes;
	if (f->compiled.max == 0) /* that would be no bound */
		return;
	lua_dump(L, dump_add, &f->compiled, 0);
	if (f->compiled.failed)
		buf_fini(&f->compiled);
	compiled_bytes += f->compiled.len;
}

static struct file *file_find(struct code *k, const char *name)
{
	size_t n = strlen(name);

	for (size_t i = 0; i < k->n_files; i++)
		if (k->files[i].name.n == n && memcmp(k->files[i].name.p, name, n) == 0)
			return &k->files[i];
	return NULL;
}

int code_load(lua_State *L, struct code *k, const char *name)
{
	struct file *f = file_find(k, name);
	int status;

	if (!f)
		return CODE_NO_FILE;
	if (f->compiled.len)
		return luaL_loadbufferx(
			L, (const char *)f->compiled.data, f->compiled.len, name, "b");
	status = chunk_compile(L, (const char *)f->content.p, f->content.n, name);
	if (status == LUA_OK)
		compiled_keep(L, f);
	return status;
}
