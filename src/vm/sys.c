/*
 * The primitives under the prelude, which only the prelude's functions hold, and moves: what
 * freezes the carrier.
 *
 * Arguments come from the prelude, which has checked them; a failure that a carrier can meet is
 * returned as nil, code, text.
 */
#include "vm/api.h"
#include "vm/code.h"
#include "vm/libs.h"
#include "vm/vm.h"

#include <lauxlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/text.h"
#include "wire/vmproto.h"

int push_failure(lua_State *L, int rc, const char *text)
{
	lua_pushnil(L);
	lua_pushstring(L, err_word(rc));
	lua_pushstring(L, text && *text ? text : err_text(rc));
	return 3;
}

/* ---- values */

/* encode(value, root) -> element, or nil and the reason */
static int sys_encode(lua_State *L)
{
	struct vm_carrier *c = carrier_of(L);
	const char *root = luaL_optstring(L, 2, "the value");

	lua_settop(L, 2);
	buf_clear(&c->port->enc);
	c->port->enc.max = (size_t)c->limit[LIMIT_state];
	if (value_encode(L, 1, &c->port->enc, &c->port->codec, root)) {
		lua_pushnil(L);
		lua_pushstring(L, c->port->codec.em.text);
		return 2;
	}
	lua_pushlstring(L, (const char *)c->port->enc.data, c->port->enc.len);
	return 1;
}

static int sys_decode(lua_State *L)
{
	struct slice s;

	s.p = (const uint8_t *)luaL_checklstring(L, 1, &s.n);
	if (value_decode(L, s))
		return luaL_error(L, "an element is malformed");
	return 1;
}

int sys_bytes(lua_State *L)
{
	luaL_checktype(L, 1, LUA_TSTRING);
	lua_settop(L, 1);
	vm_sched.host = 1;
	bytes_mark(L);
	vm_sched.host = 0;
	return 1;
}

static int sys_utf8(lua_State *L)
{
	size_t n;
	const char *s = luaL_checklstring(L, 1, &n);

	lua_pushboolean(L, text_utf8(s, n));
	return 1;
}

/* box(t, metatable) -> userdata that only unbox looks into: a carrier can't reach t by rawset
 * or next. */
static int sys_box(lua_State *L)
{
	luaL_checktype(L, 1, LUA_TTABLE);
	luaL_checktype(L, 2, LUA_TTABLE);
	lua_settop(L, 2);
	lua_newuserdatauv(L, 0, 1);
	lua_pushvalue(L, 1);
	lua_setiuservalue(L, 3, 1);
	lua_pushvalue(L, 2);
	lua_setmetatable(L, 3);
	return 1;
}

/* unbox(v, metatable) -> t, or nil if v is something else */
static int sys_unbox(lua_State *L)
{
	lua_settop(L, 2);
	if (lua_type(L, 1) != LUA_TUSERDATA || !lua_getmetatable(L, 1)) {
		lua_pushnil(L);
		return 1;
	}
	if (!lua_rawequal(L, -1, 2))
		lua_pushnil(L);
	else
		lua_getiuservalue(L, 1, 1);
	return 1;
}

/* ---- what the kernel answers with DONE */

int done_more(lua_State *L, int status, lua_KContext ctx)
{
	struct vm_carrier *c = carrier_of(L);

	(void)status;
	(void)ctx;
	if (c->done_rc)
		return push_failure(L, c->done_rc, c->done_text ? c->done_text : "");
	lua_pushboolean(L, 1);
	return 1;
}

/* Its name is the answer's text. */
static int clone_more(lua_State *L, int status, lua_KContext ctx)
{
	struct vm_carrier *c = carrier_of(L);

	if (c->done_rc)
		return done_more(L, status, ctx);
	lua_pushstring(L, c->done_text ? c->done_text : "");
	return 1;
}

static int go_more(lua_State *L, int status, lua_KContext ctx);

static const struct frozen_kind {
	unsigned type, n;
	lua_KFunction more;
} frozen_kinds[] = {
	{ VM_CHECKPOINT, 2, done_more },
	{ VM_GO, 3, go_more },
	{ VM_CLONE, 4, clone_more },
};
enum { KIND_CHECKPOINT, KIND_GO, KIND_CLONE };

/* {name: int}: of a table at that place in the stack, the prelude's own. */
static void split_put(lua_State *L, int at, struct buf *b)
{
	uint64_t n = 0;

	for (size_t i = 0; i < SPLIT_COUNT; i++) {
		n += lua_getfield(L, at, limit_names[split_limits[i]]) == LUA_TNUMBER;
		lua_pop(L, 1);
	}
	cbor_put_map(b, n);
	for (size_t i = 0; i < SPLIT_COUNT; i++) {
		if (lua_getfield(L, at, limit_names[split_limits[i]]) == LUA_TNUMBER) {
			cbor_put_text(b, limit_names[split_limits[i]]);
			cbor_put_int(b, lua_tointeger(L, -1));
		}
		lua_pop(L, 1);
	}
}

/* GO, CLONE and CHECKPOINT: the frozen carrier behind what stands in port->out. */
static int send_frozen(lua_State *L, unsigned kind, const char *dest, size_t n_dest)
{
	const struct frozen_kind *k = &frozen_kinds[kind];
	struct vm_carrier *c = carrier_of(L);
	struct buf *b = &c->port->out;
	uint64_t seq = c->next_seq++;
	int rc = carrier_freeze(c, L);
	size_t at;

	if (rc)
		return push_failure(L, rc, c->port->em.text);
	if (!lua_isyieldable(L) || c->unyieldable)
		return luaL_error(L,
			"cannot wait here (inside a metamethod or message handler that C calls)");
	carrier_send_usage(c);
	if (kind == KIND_GO)
		carrier_tell_dropped(c);
	at = port_begin(c->port, k->n, k->type, c->number);
	cbor_put_uint(b, seq);
	if (dest)
		cbor_put_text_n(b, dest, n_dest);
	if (kind == KIND_CLONE)
		split_put(L, 2, b);
	cbor_put_raw(b, (struct slice){ c->port->enc.data, c->port->enc.len });
	rc = port_send(c->port, at);
	buf_fini(&c->port->enc);
	if (rc)
		return push_failure(L, rc, "the frozen carrier is larger than a frame");
	c->going = kind == KIND_GO;
	return env_wait(L, WAIT_DONE, seq, INT64_MAX, 0, k->more);
}

static int go_more(lua_State *L, int status, lua_KContext ctx)
{
	carrier_gone_back(carrier_of(L));
	return done_more(L, status, ctx);
}

int carrier_go(lua_State *L, struct slice dest)
{
	vm_sched.host = 1;
	return send_frozen(L, KIND_GO, (const char *)dest.p, dest.n);
}

int carrier_checkpoint(lua_State *L)
{
	vm_sched.host = 1;
	return send_frozen(L, KIND_CHECKPOINT, NULL, 0);
}

int carrier_clone(lua_State *L, struct slice dest)
{
	vm_sched.host = 1;
	return send_frozen(L, KIND_CLONE, (const char *)dest.p, dest.n);
}

/* ---- time, and about itself */

int sys_now(lua_State *L)
{
	lua_pushnumber(L, (lua_Number)clock_wall_ms() / 1000);
	return 1;
}

int sys_clock(lua_State *L)
{
	lua_pushnumber(L, (lua_Number)clock_us() / 1e6);
	return 1;
}

/* In the units that people use: times in seconds. */
static void set_amount(lua_State *L, enum limit_id id, int64_t v)
{
	if (strcmp(limit_units[id], "ms") == 0)
		lua_pushnumber(L, (lua_Number)v / 1000);
	else
		lua_pushinteger(L, v);
	lua_setfield(L, -2, limit_names[id]);
}

int sys_limits(lua_State *L)
{
	const struct vm_carrier *c = carrier_of(L);

	lua_createtable(L, 0, LIMIT_COUNT);
	for (int i = 0; i < LIMIT_COUNT; i++)
		set_amount(L, (enum limit_id)i, c->limit[i]);
	return 1;
}

int sys_usage(lua_State *L)
{
	const struct vm_carrier *c = carrier_of(L);
	lua_Integer waiting = 0;

	lua_createtable(L, 0, LIMIT_COUNT + 2);
	for (int i = 0; i < LIMIT_COUNT; i++)
		set_amount(L, (enum limit_id)i, c->usage[i]);
	for (size_t i = 0; i < c->n_inboxes; i++)
		waiting += (lua_Integer)c->inbox[i]->n;
	set_amount(L, LIMIT_cpu, c->usage[LIMIT_cpu] + sched_cpu_us(c) / 1000);
	set_amount(L, LIMIT_memory, (int64_t)(c->used + c->held));
	set_amount(L, LIMIT_posts, c->n_posts);
	set_amount(L, LIMIT_sent, c->usage[LIMIT_sent] + c->sent);
	set_amount(L, LIMIT_inbox, waiting);
	lua_pushinteger(L, c->dropped_logs);
	lua_setfield(L, -2, "dropped_logs");
	lua_pushinteger(L, c->dropped_folders);
	lua_setfield(L, -2, "dropped_folders");
	return 1;
}

/* ---- code and briefcase */

/* compile(file, globals?) -> function, or nil where there is no such file */
static int sys_compile(lua_State *L)
{
	const char *name = luaL_checkstring(L, 1);
	int status;

	lua_settop(L, 2);
	status = code_load(L, carrier_of(L)->code, name);
	if (status == CODE_NO_FILE) {
		lua_pushnil(L);
		return 1;
	}
	if (status != LUA_OK)
		return lua_error(L);
	if (lua_istable(L, 2)) { /* a chunk's one upvalue is its globals */
		lua_pushvalue(L, 2);
		if (!lua_setupvalue(L, -2, 1))
			lua_pop(L, 1);
	}
	return 1;
}

/* files() -> name -> content */
static int sys_files(lua_State *L)
{
	const struct code *k = carrier_of(L)->code;

	lua_createtable(L, 0, (int)code_n_files(k));
	for (size_t i = 0; i < code_n_files(k); i++) {
		struct slice name, content = code_file(k, i, &name);

		lua_pushlstring(L, (const char *)name.p, name.n);
		lua_pushlstring(L, (const char *)content.p, content.n);
		lua_rawset(L, -3);
	}
	return 1;
}

static int sys_archive(lua_State *L)
{
	struct vm_carrier *c = carrier_of(L);

	buf_clear(&c->port->enc);
	c->port->enc.max = (size_t)c->limit[LIMIT_state];
	briefcase_put(L, &c->port->enc);
	if (c->port->enc.failed)
		return push_failure(L, ERR_LIMIT, "limit state: the briefcase is larger");
	lua_pushlstring(L, (const char *)c->port->enc.data, c->port->enc.len);
	return 1;
}

/* unarchive(bytes) -> name -> store, or nil, code, text */
static int sys_unarchive(lua_State *L)
{
	struct slice s;

	s.p = (const uint8_t *)luaL_checklstring(L, 1, &s.n);
	if (cbor_check(s.p, s.n, false) || briefcase_push(L, s))
		return push_failure(L, ERR_MALFORMED, "not an archived briefcase");
	return 1;
}

/* ---- what the prelude asks for */

/* Folders are boxes with a metatable that only the prelude holds. */
static const char folder_key;

static int sys_folder_meta(lua_State *L)
{
	if (lua_rawgetp(L, LUA_REGISTRYINDEX, &folder_key) == LUA_TTABLE)
		return 1;
	lua_pop(L, 1);
	lua_newtable(L);
	lua_pushvalue(L, -1);
	lua_rawsetp(L, LUA_REGISTRYINDEX, &folder_key);
	return 1;
}

bool folder_store(lua_State *L, int index)
{
	bool is_folder;

	if (lua_type(L, index) != LUA_TUSERDATA || !lua_getmetatable(L, index))
		return false;
	lua_rawgetp(L, LUA_REGISTRYINDEX, &folder_key);
	is_folder = lua_rawequal(L, -1, -2);
	lua_pop(L, 2);
	if (is_folder)
		lua_getiuservalue(L, index, 1);
	return is_folder;
}

static int sys_store(lua_State *L)
{
	lua_settop(L, 1);
	if (!folder_store(L, 1))
		lua_pushnil(L);
	return 1;
}

/* name(v, level): an error there unless v could be a folder's name */
static int sys_name(lua_State *L)
{
	check_folder_name(L, 1, (int)luaL_checkinteger(L, 2) + 1);
	lua_settop(L, 1);
	return 1;
}

/* Those that change C memory of ours: a carrier is not dropped in the midst of that. An error that
 * leaves one says nothing; the next hook, or the next slice, does. */
#define HOST(name)                                                                             \
	static int host_##name(lua_State *L)                                                   \
	{                                                                                      \
		int n;                                                                         \
                                                                                               \
		vm_sched.host = 1;                                                             \
		n = sys_##name(L);                                                             \
		vm_sched.host = 0;                                                             \
		return n;                                                                      \
	}
/* clang-format off */
HOST(encode)
HOST(archive)
HOST(compile)
HOST(unarchive)
/* clang-format on */

bool sys_push(lua_State *L, const char *name)
{
	static const luaL_Reg functions[] = { { "encode", host_encode },
		{ "decode", sys_decode }, { "is_utf8", sys_utf8 }, { "box", sys_box },
		{ "unbox", sys_unbox }, { "store", sys_store }, { "name", sys_name },
		{ "compile", host_compile }, { "files", sys_files },
		{ "archive", host_archive }, { "unarchive", host_unarchive }, { NULL, NULL } };
	static const char *const values[][2] = { { "stores", REG_BRIEFCASE },
		{ "seals", REG_SEALS }, { "path", REG_PATH } };

	for (const luaL_Reg *f = functions; f->name; f++)
		if (strcmp(f->name, name) == 0) {
			lua_pushcfunction(L, f->func);
			return true;
		}
	for (size_t i = 0; i < sizeof values / sizeof *values; i++)
		if (strcmp(values[i][0], name) == 0) {
			lua_getfield(L, LUA_REGISTRYINDEX, values[i][1]);
			return true;
		}
	if (strcmp(name, "folder_meta") == 0)
		return sys_folder_meta(L);
	return false;
}

/* ---- the first thing that runs */

static int boot_end(lua_State *L, int status, lua_KContext ctx)
{
	(void)L;
	(void)status;
	(void)ctx;
	return 0;
}

/* On the stack: entry, function, state, failure. */
static int boot_begin(lua_State *L, int status, lua_KContext ctx)
{
	(void)status;
	(void)ctx;
	lua_pushglobaltable(L);
	lua_pushvalue(L, 2);
	if (lua_gettable(L, -2) != LUA_TFUNCTION) {
		lua_pushfstring(
			L, "%s defines no function %s", lua_tostring(L, 1), lua_tostring(L, 2));
		return lua_error(L);
	}
	lua_replace(L, 2);
	lua_settop(L, 4);
	lua_callk(L, 2, 0, 0, boot_end);
	return 0;
}

int boot(lua_State *L)
{
	lua_settop(L, 4);
	lua_pushcfunction(L, host_compile);
	lua_pushvalue(L, 1);
	lua_call(L, 1, 1);
	if (lua_isnil(L, -1)) {
		lua_pushfstring(L, "the code has no file %s, its entry", lua_tostring(L, 1));
		return lua_error(L);
	}
	lua_callk(L, 0, 0, 0, boot_begin);
	return boot_begin(L, LUA_OK, 0);
}
