/*
 * concat, insert, move, remove, sort and unpack of `table`. As those of Lua 5.4, but that a
 * table without a metatable is read directly, that all of them make room when their slice is
 * over, and that sort is a merge sort: it keeps the order of equals and never finds an order
 * function invalid.
 */
#include "vm/libs.h"
#include "vm/vm.h"

#include <limits.h>
#include <string.h>

#define EACH 1024 /* steps between two looks at the clock */

void lib_pause(lua_State *L, lua_KContext ctx, lua_KFunction k)
{
	struct vm_carrier *c = carrier_of(L);

	if (!sched_due())
		return;
	if (k && lua_isyieldable(L) && !c->unyieldable) {
		c->preempted = true;
		lua_yieldk(L, 0, ctx, k);
	}
	if (vm_sched.overdue)
		luaL_error(L, "too long in a library function, where no pause can be made");
}

/* ---- pieces of a string */

void lib_piece(lua_State *L, int index)
{
	lua_Integer n;

	index = lua_absindex(L, index);
	lua_getfield(L, index, "n");
	n = lua_tointeger(L, -1) + 1;
	lua_pop(L, 1);
	lua_rawseti(L, index, n);
	lua_pushinteger(L, n);
	lua_setfield(L, index, "n");
}

/* On the stack: ..., pieces, bytes so far, buffer. ctx: the next piece. */
static int join_more(lua_State *L, int status, lua_KContext ctx)
{
	char *to = lua_touserdata(L, -1);
	size_t at = (size_t)lua_tointeger(L, -2), bytes = 0;
	int pieces = lua_gettop(L) - 2;
	lua_Integer n;

	(void)status;
	lua_getfield(L, pieces, "n");
	n = lua_tointeger(L, -1);
	lua_pop(L, 1);
	for (lua_Integer i = ctx; i <= n; i++) {
		size_t len;
		const char *s;

		lua_rawgeti(L, pieces, i);
		s = lua_tolstring(L, -1, &len);
		memcpy(to + at, s, len);
		at += len;
		bytes += len + 64;
		lua_pop(L, 1);
		if (bytes > ((size_t)1 << 20)) {
			bytes = 0;
			lua_pushinteger(L, (lua_Integer)at);
			lua_replace(L, -3);
			lib_pause(L, i + 1, join_more);
		}
	}
	lua_pushlstring(L, to, at);
	return 1;
}

int lib_join(lua_State *L)
{
	int pieces = lua_gettop(L);
	lua_Integer n;
	size_t total = 0;

	lua_getfield(L, pieces, "n");
	n = lua_tointeger(L, -1);
	lua_pop(L, 1);
	if (n <= 1) {
		if (n == 0)
			lua_pushliteral(L, "");
		else
			lua_rawgeti(L, pieces, 1);
		return 1;
	}
	for (lua_Integer i = 1; i <= n; i++) {
		lua_rawgeti(L, pieces, i);
		total += lua_rawlen(L, -1);
		lua_pop(L, 1);
	}
	lua_pushinteger(L, 0);
	lua_newuserdatauv(L, total, 0);
	return join_more(L, LUA_OK, 1);
}

/* ---- access */

/* Raw where no metamethod could be asked. */
static bool is_plain(lua_State *L, int index)
{
	if (lua_type(L, index) != LUA_TTABLE)
		return false;
	if (!lua_getmetatable(L, index))
		return true;
	lua_pop(L, 1);
	return false;
}

static int get(lua_State *L, bool plain, int index, lua_Integer i)
{
	return plain ? lua_rawgeti(L, index, i) : lua_geti(L, index, i);
}

static void set(lua_State *L, bool plain, int index, lua_Integer i)
{
	if (plain)
		lua_rawseti(L, index, i);
	else
		lua_seti(L, index, i);
}

/* What is no table must have the metamethods that stand in for one. */
static void check_table(lua_State *L, int index, const char *const *wanted)
{
	int n = 1;

	if (lua_type(L, index) == LUA_TTABLE)
		return;
	if (lua_getmetatable(L, index)) {
		for (; *wanted; wanted++, n++) {
			lua_pushstring(L, *wanted);
			if (lua_rawget(L, -n - 1) == LUA_TNIL)
				luaL_checktype(L, index, LUA_TTABLE);
		}
		lua_pop(L, n);
		return;
	}
	luaL_checktype(L, index, LUA_TTABLE);
}

static const char *const reads[] = { "__index", "__len", NULL };
static const char *const writes[] = { "__index", "__newindex", "__len", NULL };

/* ---- concat(t, sep, i, j): stack t, sep, i, j, pieces */

static int concat_more(lua_State *L, int status, lua_KContext ctx)
{
	lua_Integer last = lua_tointeger(L, 4), i = ctx;
	bool plain = is_plain(L, 1), more = i <= last;
	size_t n_sep;
	const char *sep = lua_tolstring(L, 2, &n_sep);

	(void)status;
	lua_settop(L, 5);
	while (more) {
		luaL_Buffer b;
		size_t steps = 0;

		luaL_buffinit(L, &b);
		while (more && steps < 16 * EACH) {
			get(L, plain, 1, i);
			if (!lua_isstring(L, -1))
				return luaL_error(L,
					"invalid value (%s) at index %I in table for 'concat'",
					luaL_typename(L, -1), (LUAI_UACINT)i);
			steps += 8 + lua_rawlen(L, -1) / 64;
			luaL_addvalue(&b);
			if (i != last)
				luaL_addlstring(&b, sep, n_sep);
			steps += n_sep / 64;
			more = i != last;
			i += more;
		}
		luaL_pushresult(&b);
		if (!more && lua_rawlen(L, 5) == 0)
			return 1;
		lib_piece(L, 5);
		if (more)
			lib_pause(L, i, concat_more);
	}
	return lib_join(L);
}

int tab_concat(lua_State *L)
{
	lua_Integer last;

	check_table(L, 1, reads);
	luaL_optstring(L, 2, "");
	last = lua_isnoneornil(L, 4) ? luaL_len(L, 1) : luaL_checkinteger(L, 4);
	lua_Integer first = luaL_optinteger(L, 3, 1);

	lua_settop(L, 2);
	if (lua_isnil(L, 2)) {
		lua_pushliteral(L, "");
		lua_replace(L, 2);
	}
	lua_pushinteger(L, first);
	lua_pushinteger(L, last);
	lua_newtable(L);
	return concat_more(L, LUA_OK, first);
}

/* ---- insert and remove: t, position, value */

/* Move what is at i - 1 up by one, down to the position; ctx: i. */
static int insert_more(lua_State *L, int status, lua_KContext ctx)
{
	lua_Integer at = lua_tointeger(L, 2);
	bool plain = is_plain(L, 1);

	(void)status;
	lua_settop(L, 3);
	for (lua_Integer i = ctx; i > at; i--) {
		get(L, plain, 1, i - 1);
		set(L, plain, 1, i);
		if (i % EACH == 0)
			lib_pause(L, i - 1, insert_more);
	}
	set(L, plain, 1, at);
	return 0;
}

int tab_insert(lua_State *L)
{
	lua_Integer end, at;

	check_table(L, 1, writes);
	end = (lua_Integer)((lua_Unsigned)luaL_len(L, 1) + 1);
	switch (lua_gettop(L)) {
	case 2:
		set(L, is_plain(L, 1), 1, end);
		return 0;
	case 3:
		at = luaL_checkinteger(L, 2);
		luaL_argcheck(L, (lua_Unsigned)at - 1u < (lua_Unsigned)end, 2,
			"position out of bounds");
		return insert_more(L, LUA_OK, end);
	default:
		return luaL_error(L, "wrong number of arguments to 'insert'");
	}
}

/* Stack t, last, the value that is removed. ctx: the place to fill. */
static int remove_more(lua_State *L, int status, lua_KContext ctx)
{
	lua_Integer last = lua_tointeger(L, 2);
	bool plain = is_plain(L, 1);

	(void)status;
	lua_settop(L, 3);
	for (lua_Integer i = ctx; i < last; i++) {
		get(L, plain, 1, i + 1);
		set(L, plain, 1, i);
		if (i % EACH == 0)
			lib_pause(L, i + 1, remove_more);
	}
	lua_pushnil(L);
	set(L, plain, 1, ctx > last ? (lua_Integer)ctx : last);
	return 1;
}

int tab_remove(lua_State *L)
{
	lua_Integer last, at;

	check_table(L, 1, writes);
	last = luaL_len(L, 1);
	at = luaL_optinteger(L, 2, last);
	if (at != last)
		luaL_argcheck(L, (lua_Unsigned)at - 1u <= (lua_Unsigned)last, 1,
			"position out of bounds");
	lua_settop(L, 1);
	lua_pushinteger(L, last);
	get(L, is_plain(L, 1), 1, at);
	return remove_more(L, LUA_OK, at);
}

/* ---- move(a1, f, e, t [,a2]) */

/* ctx: how many are done */
static int move_more(lua_State *L, int status, lua_KContext ctx)
{
	lua_Integer f = lua_tointeger(L, 2), e = lua_tointeger(L, 3), t = lua_tointeger(L, 4);
	bool from = is_plain(L, 1), to = is_plain(L, 5);
	bool up = t > e || t <= f || !lua_rawequal(L, 1, 5);

	(void)status;
	lua_settop(L, 5);
	for (lua_Integer i = ctx; i <= e - f; i++) {
		lua_Integer at = up ? i : e - f - i;

		get(L, from, 1, f + at);
		set(L, to, 5, t + at);
		if (i % EACH == 0)
			lib_pause(L, i + 1, move_more);
	}
	lua_settop(L, 5);
	return 1;
}

int tab_move(lua_State *L)
{
	static const char *const reading[] = { "__index", NULL };
	static const char *const writing[] = { "__newindex", NULL };
	lua_Integer f = luaL_checkinteger(L, 2), e = luaL_checkinteger(L, 3);
	lua_Integer t = luaL_checkinteger(L, 4);

	lua_settop(L, 5);
	if (lua_isnil(L, 5)) {
		lua_pushvalue(L, 1);
		lua_replace(L, 5);
	}
	check_table(L, 1, reading);
	check_table(L, 5, writing);
	if (e < f)
		return 1;
	luaL_argcheck(L, f > 0 || e < LUA_MAXINTEGER + f, 3, "too many elements to move");
	luaL_argcheck(L, t <= LUA_MAXINTEGER - (e - f + 1) + 1, 4, "destination wrap around");
	return move_more(L, LUA_OK, 0);
}

/* ---- unpack */

int tab_unpack(lua_State *L)
{
	lua_Integer first = luaL_optinteger(L, 2, 1);
	lua_Integer last = lua_isnoneornil(L, 3) ? luaL_len(L, 1) : luaL_checkinteger(L, 3);
	lua_Unsigned n;
	bool plain = is_plain(L, 1);

	if (first > last)
		return 0;
	n = (lua_Unsigned)last - (lua_Unsigned)first;
	if (n >= (unsigned)INT_MAX || !lua_checkstack(L, (int)++n))
		return luaL_error(L, "too many results to unpack");
	for (lua_Integer i = first; i < last; i++) {
		get(L, plain, 1, i);
		if (i % EACH == 0)
			lib_pause(L, 0, NULL);
	}
	get(L, plain, 1, last);
	return (int)n;
}

/* ---- sort: t, order or nil, from, to, state; runs of `width` are merged from one into the other
 */

struct merge {
	lua_Integer n, width;
	lua_Integer left, left_end, right, right_end, out; /* of the pair being merged */
	unsigned steps;
	bool right_first; /* what the last comparison said */
};

static void merge_pair(struct merge *m, lua_Integer at)
{
	lua_Integer mid = at + m->width, end = mid + m->width;

	m->left = m->out = at;
	m->left_end = m->right = mid < m->n + 1 ? mid : m->n + 1;
	m->right_end = end < m->n + 1 ? end : m->n + 1;
}

static void merge_take(lua_State *L, struct merge *m, bool right)
{
	lua_rawgeti(L, 3, right ? m->right++ : m->left++);
	lua_rawseti(L, 4, m->out++);
}

static int sort_more(lua_State *L, int status, lua_KContext ctx);

/* Whether the right one comes first. May leave by an error, or by a yield to sort_more. */
static bool merge_compare(lua_State *L, struct merge *m)
{
	bool less;

	if (lua_isnil(L, 2)) {
		lua_rawgeti(L, 3, m->right);
		lua_rawgeti(L, 3, m->left);
		less = lua_compare(L, -2, -1, LUA_OPLT);
		lua_settop(L, 5);
		return less;
	}
	lua_pushvalue(L, 2);
	lua_rawgeti(L, 3, m->right);
	lua_rawgeti(L, 3, m->left);
	lua_callk(L, 2, 1, 1, sort_more);
	less = lua_toboolean(L, -1);
	lua_settop(L, 5);
	return less;
}

/* One pass: all pairs of runs. False: the runs are one. */
static bool merge_next(lua_State *L, struct merge *m)
{
	if (m->out <= m->n) {
		merge_pair(m, m->out);
		return true;
	}
	lua_pushvalue(L, 3); /* the other way round */
	lua_copy(L, 4, 3);
	lua_replace(L, 4);
	m->width *= 2;
	if (m->width >= m->n)
		return false;
	merge_pair(m, 1);
	return true;
}

static void merge_steps(lua_State *L, struct merge *m)
{
	do {
		while (m->left < m->left_end && m->right < m->right_end) {
			if (++m->steps % EACH == 0)
				lib_pause(L, 0, sort_more);
			merge_take(L, m, merge_compare(L, m));
		}
		while (m->left < m->left_end)
			merge_take(L, m, false);
		while (m->right < m->right_end)
			merge_take(L, m, true);
		lib_pause(L, 2, sort_more);
	} while (merge_next(L, m));
}

/* ctx 0: compare again; 1: a comparison has returned; 2: a pair is done */
static int sort_more(lua_State *L, int status, lua_KContext ctx)
{
	struct merge *m = lua_touserdata(L, 5);
	bool right = lua_toboolean(L, -1);
	bool plain;

	(void)status;
	lua_settop(L, 5);
	if (ctx == 1)
		merge_take(L, m, right);
	if (ctx != 2 || merge_next(L, m))
		merge_steps(L, m);
	if (lua_rawequal(L, 1, 3))
		return 0;
	plain = is_plain(L, 1);
	for (lua_Integer i = 1; i <= m->n; i++) {
		lua_rawgeti(L, 3, i);
		set(L, plain, 1, i);
	}
	return 0;
}

static bool all_of_a_kind(lua_State *L, lua_Integer n)
{
	int kind = LUA_TNONE;

	for (lua_Integer i = 1; i <= n; i++) {
		int type = lua_rawgeti(L, 1, i);

		lua_pop(L, 1);
		if ((type != LUA_TNUMBER && type != LUA_TSTRING) || (i > 1 && type != kind))
			return false;
		kind = type;
	}
	return true;
}

int tab_sort(lua_State *L)
{
	lua_Integer n;
	struct merge *m;
	bool plain;

	check_table(L, 1, writes);
	n = luaL_len(L, 1);
	luaL_argcheck(L, n < INT_MAX, 1, "array too big");
	if (!lua_isnoneornil(L, 2))
		luaL_checktype(L, 2, LUA_TFUNCTION);
	lua_settop(L, 2);
	if (n < 2)
		return 0;
	plain = is_plain(L, 1);
	lua_createtable(L, plain ? (int)n : 0, 0);
	if (plain && lua_isnil(L, 2) && all_of_a_kind(L, n))
		lua_pushvalue(L, 1); /* no comparison can fail: it may be in pieces meanwhile */
	else
		lua_createtable(L, plain ? (int)n : 0, 0);
	m = lua_newuserdatauv(L, sizeof *m, 0);
	memset(m, 0, sizeof *m);
	m->n = n;
	m->width = 1;
	for (lua_Integer i = 1; i <= n; i++) {
		get(L, plain, 1, i);
		lua_rawseti(L, 3, i);
		if (!plain && i % EACH == 0)
			lib_pause(L, 0, NULL);
	}
	merge_pair(m, 1);
	return sort_more(L, LUA_OK, 0);
}

void lib_open_table(lua_State *L)
{
	static const luaL_Reg ours[] = { { "concat", tab_concat }, { "insert", tab_insert },
		{ "move", tab_move }, { "remove", tab_remove }, { "sort", tab_sort },
		{ "unpack", tab_unpack }, { NULL, NULL } };

	luaL_setfuncs(L, ours, 0);
}
