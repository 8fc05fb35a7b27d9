/*
 * Extensions in Lua; see script.h and doc/guide/first-extension.md. Runs in tos-ext only, whose
 * sandbox is what contains it: the standard libraries are there but for those that load code. What
 * a script does goes through the same ABI as an extension in C.
 *
 * A Lua error is a longjmp: whatever is owned here is owned across no call that can raise one.
 */
#include "ext/script.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <lauxlib.h>
#include <lua.h>
#include <lualib.h>

#include <tos/extension.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/text.h"
#include "ext/body.h"
#include "ext/script_in.h"
#include "ext/script_net.h"

#define SCRIPT_MAX  ((size_t)8 << 20)
#define MEMORY_MAX  ((size_t)128 << 20)
#define TURN_MS     2000 /* of one handler */
#define HOOK_COUNT  100000
#define DEPTH_MAX   24
#define MESSAGE     "tos.message"
#define HANDLER_KEY "tos.handlers"

static struct script {
	lua_State *L;
	struct tos_ext *x; /* once it is started */
	size_t memory;
	int64_t until_ms; /* of the handler that runs */
	struct tos_extension spec;
	struct tos_inbox_spec inboxes[EXT_INBOXES_MAX + 1];
	int handler[EXT_INBOXES_MAX], start, stop; /* references */
} script;

/* ---- values */

/* May raise: memory is bounded. */
static void value_push(lua_State *L, const struct tos_value *v)
{
	const uint8_t *p;
	size_t n;

	luaL_checkstack(L, 4, "too deep");
	switch (tos_type(v)) {
	case TOS_BOOL:
		lua_pushboolean(L, tos_as_bool(v, false));
		return;
	case TOS_INT:
		lua_pushinteger(L, tos_as_int(v, 0));
		return;
	case TOS_FLOAT:
		lua_pushnumber(L, tos_as_float(v, 0));
		return;
	case TOS_TEXT:
		lua_pushlstring(L, tos_as_text(v, ""), tos_len(v));
		return;
	case TOS_BYTES:
		p = tos_as_bytes(v, &n);
		lua_pushlstring(L, (const char *)p, n);
		return;
	case TOS_ARRAY:
		lua_newtable(L);
		for (size_t i = 0; i < tos_len(v); i++) {
			value_push(L, tos_at(v, i));
			lua_rawseti(L, -2, (lua_Integer)i + 1);
		}
		return;
	case TOS_MAP:
		lua_newtable(L);
		for (size_t i = 0; i < tos_len(v); i++) {
			if (tos_type(tos_key_at(v, i)) == TOS_NIL)
				continue;
			value_push(L, tos_key_at(v, i));
			value_push(L, tos_value_at(v, i));
			lua_rawset(L, -3);
		}
		return;
	default:
		lua_pushnil(L);
		return;
	}
}

static struct tos_value *value_of(lua_State *L, int at, int depth);

static struct tos_value *string_of(lua_State *L, int at)
{
	size_t n;
	const char *s = lua_tolstring(L, at, &n);

	return text_utf8(s, n) ? tos_text_n(s, n) : tos_bytes(s, n);
}

static struct tos_value *list_of(lua_State *L, int at, lua_Unsigned n, int depth)
{
	struct tos_value *v = tos_array();

	for (lua_Unsigned i = 1; v && i <= n; i++) {
		struct tos_value *one;

		lua_rawgeti(L, at, (lua_Integer)i);
		one = value_of(L, lua_gettop(L), depth + 1);
		lua_pop(L, 1);
		if (!one || tos_push(v, one) < 0) {
			tos_value_free(v);
			return NULL;
		}
	}
	return v;
}

static struct tos_value *map_of(lua_State *L, int at, int depth)
{
	struct tos_value *v = tos_map();

	lua_pushnil(L);
	while (v && lua_next(L, at)) {
		struct tos_value *key = NULL, *one = value_of(L, lua_gettop(L), depth + 1);

		lua_pop(L, 1);
		if (lua_type(L, -1) == LUA_TSTRING)
			key = string_of(L, lua_gettop(L));
		else if (lua_isinteger(L, -1))
			key = tos_int(lua_tointeger(L, -1));
		if (!key || !one) {
			tos_value_free(key);
			tos_value_free(one);
		} else if (tos_set_value(v, key, one) == 0) {
			continue;
		}
		lua_pop(L, 1);
		tos_value_free(v);
		return NULL;
	}
	return v;
}

/* Raises nothing; NULL: it can't be posted, or memory is gone. `at` is absolute. */
static struct tos_value *value_of(lua_State *L, int at, int depth)
{
	lua_Unsigned n, pairs = 0;

	if (depth > DEPTH_MAX || !lua_checkstack(L, 8))
		return NULL;
	switch (lua_type(L, at)) {
	case LUA_TNIL:
		return tos_nil();
	case LUA_TBOOLEAN:
		return tos_bool(lua_toboolean(L, at));
	case LUA_TNUMBER:
		return lua_isinteger(L, at) ? tos_int(lua_tointeger(L, at))
					    : tos_float(lua_tonumber(L, at));
	case LUA_TSTRING:
		return string_of(L, at);
	case LUA_TTABLE:
		break;
	default:
		return NULL;
	}
	n = lua_rawlen(L, at);
	for (lua_pushnil(L); lua_next(L, at); lua_pop(L, 1))
		pairs++;
	return pairs == n ? list_of(L, at, n, depth) : map_of(L, at, depth);
}

/* The arguments from `first` on, as elements. */
static struct tos_value *values_of(lua_State *L, int first, int last)
{
	struct tos_value *all = tos_array();

	for (int i = first; all && i <= last; i++) {
		struct tos_value *one = value_of(L, i, 0);

		if (one && tos_push(all, one) == 0)
			continue;
		tos_value_free(all);
		return NULL;
	}
	return all;
}

/* A list gives an element each, anything else one element. */
static struct tos_value *elements_of(lua_State *L, int at)
{
	struct tos_value *v = value_of(L, at, 0), *all;

	if (!v || tos_type(v) == TOS_ARRAY)
		return v;
	all = tos_array();
	if (tos_push(all, v) == 0)
		return all;
	tos_value_free(all);
	return NULL;
}

/* ---- running */

static void *bounded_alloc(void *ud, void *p, size_t old, size_t n)
{
	struct script *s = ud;
	void *out;

	if (!p)
		old = 0;
	if (n > old && s->memory + (n - old) > MEMORY_MAX)
		return NULL;
	out = n ? realloc(p, n) : NULL;
	if (!n)
		free(p);
	if (!n || out)
		s->memory += n - old;
	return out;
}

static void on_hook(lua_State *L, lua_Debug *ar)
{
	(void)ar;
	if (clock_ms() > script.until_ms)
		luaL_error(L, "it took more than %d ms", TURN_MS);
}

static int with_traceback(lua_State *L)
{
	luaL_traceback(L, L, lua_tostring(L, 1), 1);
	return 1;
}

static void say(int level, const char *text)
{
	if (script.x)
		tos_log(script.x, level, text);
	else
		log_warning("script", KV_STR("text", text));
}

/* Call what stands below its n arguments; on an error its text is logged and copied. */
static int run(int n_args, int n_results, char *why, size_t cap)
{
	lua_State *L = script.L;
	int base = lua_gettop(L) - n_args, rc;

	lua_pushcfunction(L, with_traceback);
	lua_insert(L, base);
	script.until_ms = clock_ms() + TURN_MS;
	rc = lua_pcall(L, n_args, n_results, base);
	lua_remove(L, base);
	if (rc == LUA_OK)
		return 0;
	const char *text = lua_tostring(L, -1);

	text = text ? text : "an error that is no text";
	say(3, text);
	snprintf(why, cap, "%.*s", (int)strcspn(text, "\n"), text);
	lua_settop(L, base - 1);
	return ERR_FAULT;
}

int script_call(int n_args, int n_results)
{
	char why[160];

	return run(n_args, n_results, why, sizeof(why));
}

/* ---- what a script calls */

struct tos_ext *script_started(lua_State *L)
{
	if (!script.x)
		luaL_error(L, "not before start");
	return script.x;
}

int script_result(lua_State *L, int rc, const char *text)
{
	if (rc == 0) {
		lua_pushboolean(L, 1);
		return 1;
	}
	lua_pushnil(L);
	lua_pushstring(L, err_word(rc));
	lua_pushstring(L, text && *text ? text : err_text(rc));
	return 3;
}

static uint64_t message_token(lua_State *L)
{
	uint64_t token;

	luaL_checktype(L, 1, LUA_TTABLE);
	lua_getfield(L, 1, "token");
	token = (uint64_t)luaL_optinteger(L, -1, 0);
	lua_pop(L, 1);
	return token;
}

static int l_reply(lua_State *L)
{
	struct tos_ext *x = script_started(L);
	uint64_t token = message_token(L);
	struct tos_value *v = values_of(L, 2, lua_gettop(L));

	if (!v)
		return luaL_error(L, "the answer holds what can't be posted");
	return script_result(L, tos_reply(x, token, "ok", v), NULL);
}

static int code_of(lua_State *L, int at)
{
	size_t n;
	const char *word = luaL_checklstring(L, at, &n);
	int rc = err_from_word(word, n);

	return rc < 0 ? rc : ERR_FAULT;
}

static int l_fail(lua_State *L)
{
	struct tos_ext *x = script_started(L);
	uint64_t token = message_token(L);
	int rc = code_of(L, 2);

	return script_result(
		L, (tos_fail)(x, token, rc, luaL_optstring(L, 3, err_text(rc))), NULL);
}

static int l_post(lua_State *L)
{
	struct tos_ext *x = script_started(L);
	const char *dest = luaL_checkstring(L, 1), *folder = luaL_optstring(L, 3, "");
	struct tos_value *v = elements_of(L, 2);

	if (!v)
		return luaL_error(L, "that can't be posted");
	return script_result(L, tos_post(x, dest, folder, v), NULL);
}

static void on_called(struct tos_ext *x, void *arg, int rc, const char *text,
	const char *folder, const struct tos_value *elements);

struct answer {
	int rc;
	const char *text;
	const struct tos_value *elements;
};

static int answer_push(lua_State *L)
{
	const struct answer *a = lua_touserdata(L, 1);

	lua_settop(L, 0);
	if (a->rc < 0)
		return script_result(L, a->rc, a->text);
	luaL_checkstack(L, (int)tos_len(a->elements) + 4, "too many elements");
	for (size_t i = 0; i < tos_len(a->elements); i++)
		value_push(L, tos_at(a->elements, i));
	if (!tos_len(a->elements))
		lua_pushboolean(L, 1);
	return lua_gettop(L);
}

/* tos.call(dest, value, timeout, fn [, folder]); fn gets the answer's elements, or nil, code,
 * text. */
static int l_call(lua_State *L)
{
	struct tos_ext *x = script_started(L);
	const char *dest = luaL_checkstring(L, 1), *folder = luaL_optstring(L, 5, "");
	lua_Number timeout = luaL_optnumber(L, 3, 30);
	struct tos_value *v;
	int ref, rc;

	luaL_checktype(L, 4, LUA_TFUNCTION);
	luaL_argcheck(L, timeout > 0 && timeout < 86400, 3, "no time in seconds");
	lua_pushvalue(L, 4);
	ref = luaL_ref(L, LUA_REGISTRYINDEX);
	v = elements_of(L, 2);
	rc = v ? tos_call(x, dest, folder, v, (uint32_t)(timeout * 1000), on_called,
			 (void *)(intptr_t)ref)
	       : ERR_MALFORMED;
	if (rc < 0)
		luaL_unref(L, LUA_REGISTRYINDEX, ref);
	return script_result(L, rc, NULL);
}

void script_call_once(intptr_t ref, lua_CFunction arguments, void *arg)
{
	lua_State *L = script.L;
	char why[160];
	int n = 0, top = lua_gettop(L);

	lua_rawgeti(L, LUA_REGISTRYINDEX, (lua_Integer)ref);
	luaL_unref(L, LUA_REGISTRYINDEX, (int)ref);
	if (arguments) {
		lua_pushcfunction(L, arguments);
		lua_pushlightuserdata(L, arg);
		if (run(1, LUA_MULTRET, why, sizeof(why)) < 0) {
			lua_settop(L, top);
			return;
		}
		n = lua_gettop(L) - top - 1;
	}
	run(n, 0, why, sizeof(why));
	lua_settop(L, top);
}

static void on_called(struct tos_ext *x, void *arg, int rc, const char *text,
	const char *folder, const struct tos_value *elements)
{
	struct answer a = { rc, text, elements };

	(void)x;
	(void)folder;
	script_call_once((intptr_t)arg, answer_push, &a);
}

static void on_timer(struct tos_ext *x, void *arg)
{
	(void)x;
	script_call_once((intptr_t)arg, NULL, NULL);
}

static int l_timer(lua_State *L)
{
	struct tos_ext *x = script_started(L);
	lua_Number after = luaL_checknumber(L, 1);
	int ref;

	luaL_checktype(L, 2, LUA_TFUNCTION);
	luaL_argcheck(L, after >= 0 && after < 86400 * 30, 1, "no time in seconds");
	lua_pushvalue(L, 2);
	ref = luaL_ref(L, LUA_REGISTRYINDEX);
	if (tos_timer(x, (uint32_t)(after * 1000), on_timer, (void *)(intptr_t)ref))
		return script_result(L, 0, NULL);
	luaL_unref(L, LUA_REGISTRYINDEX, ref);
	return script_result(L, ERR_LIMIT, NULL);
}

static int l_log(lua_State *L)
{
	say(2, luaL_tolstring(L, 1, NULL));
	return 0;
}

static int l_count(lua_State *L)
{
	lua_Integer n = luaL_optinteger(L, 2, 1);

	luaL_argcheck(L, n >= 0, 2, "counters only grow");
	tos_count(script_started(L), luaL_checkstring(L, 1), (uint64_t)n);
	return 0;
}

static int l_kernel(lua_State *L)
{
	lua_pushstring(L, tos_kernel_name(script_started(L)));
	return 1;
}

static int l_directory(lua_State *L)
{
	lua_pushstring(L, tos_directory(script_started(L)));
	return 1;
}

static int l_now(lua_State *L)
{
	lua_pushnumber(L, (lua_Number)clock_ms() / 1000);
	return 1;
}

static const luaL_Reg functions[] = { { "call", l_call }, { "count", l_count },
	{ "directory", l_directory }, { "kernel", l_kernel }, { "log", l_log },
	{ "now", l_now }, { "post", l_post }, { "timer", l_timer }, { NULL, NULL } };
static const luaL_Reg methods[] = { { "fail", l_fail }, { "reply", l_reply }, { NULL, NULL } };

/* ---- what comes in */

static int message_push(lua_State *L)
{
	const struct tos_message *m = lua_touserdata(L, 1);

	lua_newtable(L);
	luaL_setmetatable(L, MESSAGE);
	lua_pushstring(L, m->sender);
	lua_setfield(L, -2, "sender");
	lua_pushstring(L, m->folder);
	lua_setfield(L, -2, "folder");
	if (m->token) {
		lua_pushinteger(L, (lua_Integer)m->token);
		lua_setfield(L, -2, "token");
		lua_pushinteger(L, m->deadline_ms);
		lua_setfield(L, -2, "deadline_ms");
	}
	value_push(L, m->info);
	lua_setfield(L, -2, "info");
	value_push(L, m->elements);
	lua_setfield(L, -2, "elements");
	return 1;
}

/* What a handler returns is the answer: values, or nil, code, text; nothing leaves it open. */
static void answer_results(struct tos_ext *x, uint64_t token, int first)
{
	lua_State *L = script.L;
	int last = lua_gettop(L);
	struct tos_value *v;

	if (!token || last < first)
		return;
	if (lua_isnil(L, first) && last > first && lua_type(L, first + 1) == LUA_TSTRING) {
		size_t n;
		const char *word = lua_tolstring(L, first + 1, &n);
		int rc = err_from_word(word, n);

		(tos_fail)(x, token, rc < 0 ? rc : ERR_FAULT,
			lua_type(L, first + 2) == LUA_TSTRING ? lua_tostring(L, first + 2)
							      : word);
		return;
	}
	v = values_of(L, first, last);
	if (v)
		tos_reply(x, token, "ok", v);
	else
		(tos_fail)(x, token, ERR_FAULT, "the answer holds what can't be posted");
}

static void deal_with(struct tos_ext *x, int handler, struct tos_message *m)
{
	lua_State *L = script.L;
	int top = lua_gettop(L);
	char why[160];

	lua_rawgeti(L, LUA_REGISTRYINDEX, handler);
	lua_pushcfunction(L, message_push);
	lua_pushlightuserdata(L, m);
	if (run(1, 1, why, sizeof(why)) == 0 && run(1, LUA_MULTRET, why, sizeof(why)) == 0)
		answer_results(x, m->token, top + 1);
	else if (m->token)
		(tos_fail)(x, m->token, ERR_FAULT, why);
	lua_settop(L, top);
}

static void wake(struct tos_ext *x, struct tos_inbox *in, size_t which)
{
	struct tos_message m;

	while (tos_inbox_next(in, &m))
		deal_with(x, script.handler[which], &m);
}

/* The ABI does not say which inbox it is. */
#define WAKE_LIST(X)                                                                           \
	X(0) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8) X(9) X(10) X(11) X(12) X(13) X(14) X(15)
#define WAKE(n)                                                                                \
	static void wake_##n(struct tos_ext *x, struct tos_inbox *in)                          \
	{                                                                                      \
		wake(x, in, n);                                                                \
	}
WAKE_LIST(WAKE)
#define WAKE_NAME(n) wake_##n,
static tos_wake_fn *const wakes[EXT_INBOXES_MAX] = { WAKE_LIST(WAKE_NAME) };

static int run_hook(int ref)
{
	char why[160];

	if (ref == LUA_NOREF)
		return 0;
	lua_rawgeti(script.L, LUA_REGISTRYINDEX, ref);
	return run(0, 0, why, sizeof(why));
}

static int on_start(struct tos_ext *x)
{
	script.x = x;
	return run_hook(script.start);
}

static void on_stop(struct tos_ext *x)
{
	(void)x;
	run_hook(script.stop);
	script_net_stop();
}

/* ---- declaring */

/* A text for the life of the process. */
static const char *text_kept(lua_State *L, int table, const char *key, const char *otherwise)
{
	const char *s;

	lua_getfield(L, table, key);
	s = luaL_optstring(L, -1, otherwise);
	s = s ? mem_strdup(s) : NULL;
	lua_pop(L, 1);
	return s;
}

static int function_kept(lua_State *L, int table, const char *key)
{
	lua_getfield(L, table, key);
	if (lua_isnil(L, -1)) {
		lua_pop(L, 1);
		return LUA_NOREF;
	}
	luaL_checktype(L, -1, LUA_TFUNCTION);
	return luaL_ref(L, LUA_REGISTRYINDEX);
}

/* NAME = function, or NAME = { handler, doc = ..., bound = ... } */
static void inbox_declare(lua_State *L, size_t n, const char *name)
{
	struct tos_inbox_spec *in = &script.inboxes[n];
	int at = lua_gettop(L);

	*in = (struct tos_inbox_spec){ .name = mem_strdup(name), .wake = wakes[n] };
	if (lua_istable(L, at)) {
		in->doc = text_kept(L, at, "doc", "");
		lua_getfield(L, at, "bound");
		in->bound = (uint32_t)luaL_optinteger(L, -1, 0);
		lua_pop(L, 1);
		lua_getfield(L, at, "extensions_only");
		in->flags = lua_toboolean(L, -1) ? TOS_INBOX_EXTENSIONS_ONLY : 0;
		lua_pop(L, 1);
		lua_rawgeti(L, at, 1);
	} else {
		in->doc = "";
		lua_pushvalue(L, at);
	}
	if (!lua_isfunction(L, -1))
		luaL_error(L, "inbox %s has no function", name);
	script.handler[n] = luaL_ref(L, LUA_REGISTRYINDEX);
}

static void inboxes_declare(lua_State *L)
{
	size_t n = 0;

	luaL_checktype(L, -1, LUA_TTABLE);
	for (lua_pushnil(L); lua_next(L, -2); lua_pop(L, 1)) {
		if (lua_type(L, -2) != LUA_TSTRING)
			luaL_error(L, "inboxes is a table of NAME = function");
		if (n == EXT_INBOXES_MAX)
			luaL_error(L, "at most %d inboxes", EXT_INBOXES_MAX);
		inbox_declare(L, n++, lua_tostring(L, -2));
	}
}

static int l_extension(lua_State *L)
{
	luaL_checktype(L, 1, LUA_TTABLE);
	if (script.spec.name)
		return luaL_error(L, "a file declares one extension");
	lua_getfield(L, 1, "inboxes");
	inboxes_declare(L);
	lua_pop(L, 1);
	script.start = function_kept(L, 1, "start");
	script.stop = function_kept(L, 1, "stop");
	script.spec = (struct tos_extension){ TOS_ABI, .doc = text_kept(L, 1, "doc", ""),
		.inboxes = script.inboxes, .privileges = text_kept(L, 1, "privileges", NULL),
		.start = on_start, .stop = on_stop };
	script.spec.name = text_kept(L, 1, "name", NULL);
	return script.spec.name ? 0 : luaL_error(L, "the extension has no name");
}

/* Its containment is the sandbox around this process; what can load code has no use in it. */
static int libraries(lua_State *L)
{
	static const char *const gone[] = { "dofile", "loadfile", "load", "require" };
	static const luaL_Reg kept[] = { { LUA_GNAME, luaopen_base },
		{ LUA_COLIBNAME, luaopen_coroutine }, { LUA_TABLIBNAME, luaopen_table },
		{ LUA_IOLIBNAME, luaopen_io }, { LUA_OSLIBNAME, luaopen_os },
		{ LUA_STRLIBNAME, luaopen_string }, { LUA_MATHLIBNAME, luaopen_math },
		{ LUA_UTF8LIBNAME, luaopen_utf8 } };

	for (size_t i = 0; i < ARRAY_LEN(kept); i++) {
		luaL_requiref(L, kept[i].name, kept[i].func, 1);
		lua_pop(L, 1);
	}
	for (size_t i = 0; i < ARRAY_LEN(gone); i++) {
		lua_pushnil(L);
		lua_setglobal(L, gone[i]);
	}
	luaL_newlib(L, functions);
	script_net_open(L);
	lua_setglobal(L, "tos");
	lua_pushcfunction(L, l_extension);
	lua_setglobal(L, "extension");
	lua_pushcfunction(L, l_log);
	lua_setglobal(L, "print");
	luaL_newmetatable(L, MESSAGE);
	luaL_newlib(L, methods);
	lua_setfield(L, -2, "__index");
	lua_pop(L, 1);
	return 0;
}

/* ---- opening */

bool script_is(const char *path)
{
	AUTOCLOSE int fd = open(path, O_RDONLY | O_CLOEXEC);
	char head[4] = { 0 };

	return fd >= 0 && pread(fd, head, sizeof(head), 0) > 0 &&
	       memcmp(head, "\177ELF", sizeof(head)) != 0;
}

static int file_read(const char *path, struct buf *out, struct errmsg *em)
{
	AUTOCLOSE int fd = open(path, O_RDONLY | O_CLOEXEC);
	uint8_t bytes[65536];
	off_t at = 0;
	ssize_t n;

	if (fd < 0)
		return err_errno(em, "cannot open %s", path);
	while ((n = pread(fd, bytes, sizeof(bytes), at)) > 0) {
		if (buf_add(out, bytes, (size_t)n) < 0)
			return err_set(em, ERR_TOO_LARGE, "the script is larger than %zu MiB",
				SCRIPT_MAX >> 20);
		at += n;
	}
	return n < 0 ? err_errno(em, "cannot read %s", path) : 0;
}

static int script_run(const struct buf *text, struct errmsg *em)
{
	lua_State *L = script.L;
	char why[160] = "";

	lua_pushcfunction(L, libraries);
	if (run(0, 0, why, sizeof(why)) < 0)
		return err_set(em, ERR_NOMEM, "%s", why);
	if (luaL_loadbufferx(L, (const char *)text->data, text->len, "=extension.lua", "t") !=
		LUA_OK)
		return err_set(em, ERR_SYNTAX, "%s", lua_tostring(L, -1));
	if (run(0, 0, why, sizeof(why)) < 0)
		return err_set(em, ERR_FAULT, "%s", why);
	if (!script.spec.name)
		return err_set(em, ERR_MALFORMED, "the script declares no extension { ... }");
	return body_check(&script.spec, em);
}

int script_open(const char *path, const struct tos_extension **spec, struct errmsg *em)
{
	AUTOBUF text = BUF_MAX(SCRIPT_MAX);
	int rc = file_read(path, &text, em);

	if (rc < 0)
		return rc;
	script.start = script.stop = LUA_NOREF;
	script.L = lua_newstate(bounded_alloc, &script);
	if (!script.L)
		return err_set(em, ERR_NOMEM, "no memory for Lua");
	lua_sethook(script.L, on_hook, LUA_MASKCOUNT, HOOK_COUNT);
	rc = script_run(&text, em);
	if (rc == 0)
		*spec = &script.spec;
	return rc;
}
