/*
 * A carrier as the kernel describes it: the frame START, from which it is made, and LIMITS. What a
 * START holds is hostile until it is checked; its Lua side is loaded in a protected call.
 */
#include "vm/code.h"
#include "vm/libs.h"
#include "vm/vm.h"

#include <lauxlib.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/text.h"
#include "wire/vmproto.h"

#define NUMBER_MAX          (INT64_MAX / 4096)
#define CARRIER_CAP_DEFAULT ((size_t)16 << 20)

struct start {
	struct slice briefcase, bundle, path, seals, state;
	char failure_code[65], failure_text[ERRMSG_BYTES];
	bool has_failure;
};

/* folder -> "sealed" or "append", for the prelude. */
static int seals_push(lua_State *L, struct slice map)
{
	struct cbor_cursor c;
	uint64_t n;

	cbor_init(&c, map.p, map.n);
	n = cbor_open_map_max(&c, 2 * PROTECTED_FOLDERS_MAX);
	lua_newtable(L);
	for (uint64_t i = 0; i < n && !c.rc; i++) {
		struct slice name = cbor_text(&c, 0, NAME_BYTES_MAX),
			     word = cbor_text(&c, 1, 16);

		if (c.rc)
			break;
		lua_pushlstring(L, (const char *)name.p, name.n);
		lua_pushlstring(L, (const char *)word.p, word.n);
		lua_rawset(L, -3);
	}
	cbor_close(&c);
	return cbor_finish(&c);
}

/* Its code is shared with others, and counts for each as what waits outside its heap does. */
static void load_code(lua_State *L, struct slice bundle)
{
	struct vm_carrier *c = carrier_of(L);
	size_t bytes;

	if (code_ref(bundle, &c->code, &c->port->em))
		luaL_error(L, "code: %s", c->port->em.text);
	bytes = code_bytes(c->code);
	if (bytes > c->cap) {
		c->refused = true;
		luaL_error(L, "not enough memory for its code");
	}
	c->held += bytes;
}

/* Protected; on its return `boot` and its arguments lie on co. */
static int load_body(lua_State *L)
{
	struct vm_carrier *c = carrier_of(L);
	const struct start *s = lua_touserdata(L, 1);
	static const char *const what[] = { "briefcase", "path", "state", "list of seals" };
	const char *bad = NULL;

	lua_settop(L, 0);
	load_code(L, s->bundle);
	if (briefcase_push(L, s->briefcase))
		bad = what[0];
	else
		lua_setfield(L, LUA_REGISTRYINDEX, REG_BRIEFCASE);
	if (!bad && store_push(L, s->path, true))
		bad = what[1];
	else if (!bad)
		lua_setfield(L, LUA_REGISTRYINDEX, REG_PATH);
	if (!bad && s->state.n == 0)
		lua_newtable(L);
	else if (!bad && state_decode(L, s->state))
		bad = what[2];
	if (bad)
		return luaL_error(L, "its %s is malformed", bad);
	if (!lua_istable(L, -1)) { /* a state that is no table was not made by us */
		lua_pop(L, 1);
		lua_newtable(L);
	}
	lua_setfield(L, LUA_REGISTRYINDEX, REG_SELF);
	if (seals_push(L, s->seals))
		return luaL_error(L, "its %s is malformed", what[3]);
	lua_setfield(L, LUA_REGISTRYINDEX, REG_SEALS);
	lazy_open(L);
	c->co = lua_newthread(L);
	lua_setfield(L, LUA_REGISTRYINDEX, "tos.thread");
	lua_pushcfunction(L, boot);
	lua_pushstring(L, c->entry);
	lua_pushstring(L, c->function);
	lua_getfield(L, LUA_REGISTRYINDEX, REG_SELF);
	c->n_args = 3;
	if (s->has_failure) {
		lua_createtable(L, 0, 2);
		lua_pushstring(L, s->failure_code);
		lua_setfield(L, -2, "code");
		lua_pushstring(L, s->failure_text);
		lua_setfield(L, -2, "text");
		c->n_args++;
	}
	lua_xmove(L, c->co, c->n_args + 1);
	if (c->prepared) {
		/* For boot to find compiled; what is wrong with it is told there. */
		code_load(L, c->code, c->entry);
		lua_settop(L, 0);
	}
	return 0;
}

static void copy_text(struct cbor_cursor *c, char *dst, size_t cap)
{
	struct slice s = cbor_text(c, 0, cap - 1);

	if (c->rc || text_copy(dst, cap, (const char *)s.p, s.n))
		cbor_fail(c, ERR_MALFORMED);
}

/* Within what can be added and turned into microseconds. */
static void numbers_read(struct cbor_cursor *c, int64_t out[LIMIT_COUNT])
{
	uint64_t n = cbor_open_map_max(c, 256);

	for (uint64_t i = 0; i < n && !c->rc; i++) {
		struct slice name = cbor_text(c, 1, 64);
		int64_t v = cbor_int(c);
		int id = c->rc ? -1 : limit_find((const char *)name.p, name.n);

		if (id >= 0)
			out[id] = v < 0 ? 0 : v < NUMBER_MAX ? v : NUMBER_MAX;
	}
	cbor_close(c);
}

static bool is_key(struct slice key, const char *name)
{
	return key.n == strlen(name) && memcmp(key.p, name, key.n) == 0;
}

static void failure_read(struct start *s, struct cbor_cursor *c)
{
	if (cbor_peek(c) == CBOR_NULL) {
		cbor_null(c);
		return;
	}
	cbor_open_array(c, 2);
	copy_text(c, s->failure_code, sizeof s->failure_code);
	copy_text(c, s->failure_text, sizeof s->failure_text);
	cbor_close(c);
	s->has_failure = true;
}

static void start_field(
	struct vm_carrier *v, struct cbor_cursor *c, struct slice key, struct start *s)
{
	if (is_key(key, "briefcase"))
		s->briefcase = cbor_any(c);
	else if (is_key(key, "path"))
		s->path = cbor_any(c);
	else if (is_key(key, "seals"))
		s->seals = cbor_any(c);
	else if (is_key(key, "bundle"))
		s->bundle = cbor_bytes(c, 0, VM_FRAME_BYTES_MAX);
	else if (is_key(key, "state"))
		s->state = cbor_bytes(c, 0, VM_FRAME_BYTES_MAX);
	else if (is_key(key, "entry"))
		copy_text(c, v->entry, sizeof v->entry);
	else if (is_key(key, "function"))
		copy_text(c, v->function, sizeof v->function);
	else if (is_key(key, "home"))
		copy_text(c, v->home, sizeof v->home);
	else if (is_key(key, "kernel"))
		copy_text(c, v->kernel, sizeof v->kernel);
	else if (is_key(key, "name"))
		copy_text(c, v->name, sizeof v->name);
	else if (is_key(key, "owner"))
		copy_text(c, v->owner, sizeof v->owner);
	else if (is_key(key, "parent"))
		copy_text(c, v->parent, sizeof v->parent);
	else if (is_key(key, "limits"))
		numbers_read(c, v->limit);
	else if (is_key(key, "usage"))
		numbers_read(c, v->usage);
	else if (is_key(key, "answers"))
		v->answers = cbor_bool(c);
	else if (is_key(key, "held"))
		v->prepared = cbor_bool(c);
	else if (is_key(key, "failure"))
		failure_read(s, c);
	else
		cbor_any(c); /* begun, cpu_us, and what a later kernel may add */
}

static int start_read(struct vm_carrier *v, struct cbor_cursor *c, struct start *s)
{
	static const uint8_t empty_array = 0x80, empty_map = 0xa0;
	uint64_t n = cbor_open_map_max(c, 64);

	memset(s, 0, sizeof *s);
	s->path = (struct slice){ &empty_array, 1 };
	s->briefcase = s->seals = (struct slice){ &empty_map, 1 };
	text_copy(v->function, sizeof v->function, "begin", 5);
	memcpy(v->limit, limit_defaults, sizeof v->limit);
	for (uint64_t i = 0; i < n && !c->rc; i++) {
		struct slice key = cbor_text(c, 1, 64);

		if (!c->rc)
			start_field(v, c, key, s);
	}
	cbor_close(c);
	cbor_close(c);
	return cbor_finish(c);
}

static int64_t cpu_most_us(const struct vm_carrier *c)
{
	return c->limit[LIMIT_cpu] > 0 ? (c->limit[LIMIT_cpu] - c->usage[LIMIT_cpu]) * 1000
				       : INT64_MAX;
}

/* Told with what it says next: the kernel need not be woken before its first line has run. */
static void runs(struct vm_carrier *c)
{
	port_send_later(c->port, port_begin(c->port, 0, VM_STARTED, c->number));
	sched_wake(c);
}

int carrier_let_run(struct vm_carrier *c)
{
	if (!c->prepared)
		return ERR_MALFORMED;
	c->prepared = false;
	if (c->state == VM_LOADING)
		runs(c);
	return 0;
}

int carrier_start(
	struct vm_port *port, uint64_t number, struct cbor_cursor *cur, struct vm_carrier **out)
{
	struct vm_carrier *c = mem_new(struct vm_carrier);
	struct start s;
	int rc, status = LUA_ERRMEM;

	list_init(&c->queue);
	list_init(&c->untold);
	list_init(&c->unsettled);
	list_init(&c->unfolded);
	rc = start_read(c, cur, &s);
	if (rc) {
		free(c);
		return rc;
	}
	c->port = port;
	c->number = number;
	c->cpu_most_us = cpu_most_us(c);
	c->usage_sent_ms = clock_ms();
	c->next_seq = c->next_tag = 1;
	c->cap = c->limit[LIMIT_memory] > 0 ? (size_t)c->limit[LIMIT_memory]
					    : CARRIER_CAP_DEFAULT;
	*out = c;
	if (carrier_heap_open(c)) {
		lua_pushcfunction(c->L, load_body);
		lua_pushlightuserdata(c->L, &s);
		status = lua_pcall(c->L, 1, 0, 0);
	}
	if (status != LUA_OK) {
		carrier_not_loaded(c, status);
		return 0;
	}
	if (!c->prepared)
		runs(c);
	return 0;
}

int carrier_limits(struct vm_carrier *c, struct cbor_cursor *cur)
{
	int64_t usage[LIMIT_COUNT] = { 0 };

	numbers_read(cur, c->limit);
	numbers_read(cur, usage);
	c->usage[LIMIT_clones] = usage[LIMIT_clones];
	c->cpu_most_us = cpu_most_us(c);
	cbor_close(cur);
	if (!cbor_finish(cur) && c->limit[LIMIT_memory] > 0)
		c->cap = (size_t)c->limit[LIMIT_memory];
	return cur->rc;
}
