/*
 * Moves, time, log, and what a carrier is told about itself. Of the rest of the API posts and
 * questions are in post.c, inboxes in mail.c; folders, the briefcase and require are the prelude's.
 * doc/guide/carrier-api.md is the reference.
 *
 * All are plain functions, of which a carrier that does not use them has nothing.
 */
#include "vm/api.h"
#include "vm/libs.h"
#include "vm/vm.h"

#include <lauxlib.h>
#include <math.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "wire/vmproto.h"

/* ---- moving, time, log */

static struct slice check_kernel(lua_State *L, size_t most, const char *what)
{
	struct slice s = { (const uint8_t *)"", 0 };

	if (lua_isnil(L, 1))
		return s;
	s = text_arg(L, 1);
	if (!s.p || s.n > most || !text_printable(s, 0x21))
		luaL_error(
			L, "%s is a kernel's name, or nothing for the path's next entry", what);
	return s;
}

int api_go(lua_State *L)
{
	struct slice dest;

	lua_settop(L, 1);
	dest = check_kernel(L, NAME_BYTES_MAX, "where to go");
	return carrier_go(L, dest);
}

int api_checkpoint(lua_State *L)
{
	return carrier_checkpoint(L);
}

/* In the kernel's units; cpu is given in seconds. A number that fits is below zero where it is bad. */
static lua_Integer share_of(lua_State *L, const char *name)
{
	double unit = strcmp(name, "cpu") == 0 ? 1000 : 1, v;
	bool known = unit > 1 || strcmp(name, "hops") == 0 || strcmp(name, "sent") == 0 ||
		     strcmp(name, "clones") == 0;
	int type = lua_type(L, -1);

	if (!known || type != LUA_TNUMBER)
		return -1;
	if (lua_isinteger(L, -1) && unit < 2)
		return lua_tointeger(L, -1);
	v = floor(lua_tonumber(L, -1) * unit);
	return v >= 0 && v < 9e15 ? (lua_Integer)v : -1;
}

/* A copy of this carrier: at dest, or at the path's next entry, or here if dest is this kernel. What it
 * gets of the budgets is in split; of what is not said there, half of what is left. */
int api_clone(lua_State *L)
{
	struct slice dest;

	lua_settop(L, 2);
	if (lua_istable(L, 1) && lua_isnil(L, 2))
		lua_insert(L, 1);
	dest = check_kernel(L, INBOX_NAME_MAX, "where the clone goes");
	if (!lua_isnil(L, 2))
		luaL_checktype(L, 2, LUA_TTABLE);
	lua_newtable(L);
	lua_pushnil(L);
	while (lua_istable(L, 2) && lua_next(L, 2)) {
		const char *name = lua_type(L, -2) == LUA_TSTRING ? lua_tostring(L, -2) : "";
		lua_Integer n = share_of(L, name);

		if (n < 0) {
			const char *key = luaL_tolstring(L, -2, NULL);

			return luaL_error(L,
				"a clone gets numbers of cpu (s), hops, sent and clones; %s = %s is none",
				key, luaL_tolstring(L, -2, NULL));
		}
		lua_pushvalue(L, -2);
		lua_pushinteger(L, n);
		lua_rawset(L, 3);
		lua_pop(L, 1);
	}
	lua_settop(L, 3);
	lua_replace(L, 2);
	return carrier_clone(L, dest);
}

static int sleep_more(lua_State *L, int status, lua_KContext ctx)
{
	(void)L;
	(void)status;
	(void)ctx;
	return 0;
}

int api_sleep(lua_State *L)
{
	lua_Integer ms;

	lua_settop(L, 1);
	ms = check_time(L, 1, 0);
	return env_wait(L, WAIT_SLEEP, 0, clock_ms() + ms, 0, sleep_more);
}

/* One event, one line: control characters become spaces. */
static void line_put(struct buf *b, const char *text, size_t n)
{
	char line[VM_LOG_BYTES_MAX];

	if (n > sizeof line)
		n = sizeof line;
	for (size_t i = 0; i < n; i++)
		line[i] = (unsigned char)text[i] < 0x20 || text[i] == 0x7f ? ' ' : text[i];
	text_put(b, line, n, sizeof line);
}

/* The arguments in one line, at the top; no more of them than a line shows. */
static const char *line_of(lua_State *L, size_t *n)
{
	int args = lua_gettop(L);
	luaL_Buffer b;

	luaL_checkstack(L, 4, NULL);
	luaL_buffinit(L, &b);
	for (int i = 1; i <= args && luaL_bufflen(&b) < VM_LOG_BYTES_MAX; i++) {
		if (i > 1)
			luaL_addchar(&b, '\t');
		luaL_tolstring(L, i, NULL);
		luaL_addvalue(&b);
	}
	luaL_pushresult(&b);
	return lua_tolstring(L, -1, n);
}

/* tos.log(...) -> true | nil, code, text */
int api_log(lua_State *L)
{
	struct vm_carrier *c = carrier_of(L);
	size_t n, at;
	const char *text = line_of(L, &n);

	if (!bucket_take(&c->logs, VM_LOGS_PER_S)) {
		c->dropped_logs++;
		c->untold_logs++;
		return push_failure(L, ERR_LIMIT, "too many lines in this second");
	}
	vm_sched.host = 1;
	at = port_begin(c->port, 2, VM_LOG, c->number);
	cbor_put_uint(&c->port->out, LOG_INFO);
	line_put(&c->port->out, text, n);
	port_send(c->port, at);
	carrier_note_activity(c);
	vm_sched.host = 0;
	lua_pushboolean(L, 1);
	return 1;
}

void carrier_tell_dropped(struct vm_carrier *c)
{
	char text[100];
	size_t at;

	if (!c->untold_logs)
		return;
	snprintf(text, sizeof text,
		"%lld lines were dropped here: at most %d are kept in a second",
		(long long)c->untold_logs, VM_LOGS_PER_S);
	c->untold_logs = 0;
	at = port_begin(c->port, 2, VM_LOG, c->number);
	cbor_put_uint(&c->port->out, LOG_WARNING);
	cbor_put_text(&c->port->out, text);
	port_send(c->port, at);
}

int api_print(lua_State *L)
{
	api_log(L);
	return 0;
}

/* ---- about itself */

int api_kernel(lua_State *L)
{
	lua_pushstring(L, carrier_of(L)->kernel);
	return 1;
}

/* nil: there is no such property */
static const char *property(const struct vm_carrier *c, const char *key)
{
	const struct {
		const char *key, *value;
	} all[] = { { "name", c->name }, { "owner", c->owner }, { "home", c->home },
		{ "kernel", c->kernel }, { "entry", c->entry },
		{ "parent", c->parent[0] ? c->parent : NULL } };

	for (size_t i = 0; i < sizeof all / sizeof *all; i++)
		if (strcmp(all[i].key, key) == 0)
			return all[i].value;
	return NULL;
}

static int self_index(lua_State *L)
{
	const char *key = lua_type(L, 2) == LUA_TSTRING ? lua_tostring(L, 2) : "";

	lua_pushstring(L, property(carrier_of(L), key)); /* NULL: nil */
	return 1;
}

static int self_newindex(lua_State *L)
{
	return luaL_error(L, "properties can be read only; %s stays as it is",
		luaL_tolstring(L, 2, NULL));
}

static int self_pairs(lua_State *L)
{
	static const char *const keys[] = { "name", "owner", "home", "kernel", "entry",
		"parent" };

	lua_pushcfunction(L, base_next);
	lua_createtable(L, 0, 6);
	for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
		lua_pushstring(L, property(carrier_of(L), keys[i]));
		lua_setfield(L, -2, keys[i]);
	}
	lua_pushnil(L);
	return 3;
}

int api_self(lua_State *L)
{
	static const luaL_Reg meta[] = { { "__index", self_index },
		{ "__newindex", self_newindex }, { "__pairs", self_pairs }, { NULL, NULL } };
	static const struct object_kind self_kind = { "properties", meta };

	if (lua_rawgetp(L, LUA_REGISTRYINDEX, &meta) != LUA_TNIL)
		return 1;
	object_new(L, &self_kind, 0);
	lua_pushvalue(L, -1);
	lua_rawsetp(L, LUA_REGISTRYINDEX, &meta);
	return 1;
}
