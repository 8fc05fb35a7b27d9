/*
 * find, match, gmatch and gsub of `string`, by a pattern matcher that counts its steps, and rep,
 * upper, lower, reverse and format for what is long. As those of Lua 5.4.
 *
 * A match may take STEPS_MOST steps and STEPS_EACH more for each byte of the subject: patterns
 * that backtrack without end are an error, the same each time. Beyond that the functions that
 * go over a whole text make room when their slice is over, between matches.
 */
#include "vm/libs.h"
#include "vm/vm.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

#define STEPS_MOST  ((int64_t)1 << 20)
#define STEPS_EACH  8
#define STEPS_LOOK  4096 /* between two looks at the clock */
#define DEPTH_MOST  200  /* of recursion */
#define CAPTURES    32
#define PIECE_BYTES ((size_t)32 << 10)
#define QUOTE_BYTES ((size_t)4 << 10) /* shorter ones the library's own quotes quickly enough */
#define CHUNK_BYTES ((size_t)256 << 10)

#define ESC '%'

/* ---- the matcher */

enum { OPEN = -1, POSITION = -2 };

struct matcher {
	lua_State *L;
	const char *src, *src_end, *pat_end;
	int64_t steps; /* left */
	int depth;
	int level;
	struct {
		const char *at;
		ptrdiff_t n; /* or OPEN, POSITION */
	} capture[CAPTURES];
};

static const char *match(struct matcher *m, const char *s, const char *p);

static inline void step(struct matcher *m)
{
	if (--m->steps % STEPS_LOOK == 0) {
		if (m->steps <= 0)
			luaL_error(m->L, "pattern too complex: it takes too many steps");
		lib_pause(m->L, 0, NULL);
	}
}

static int capture_check(struct matcher *m, int c)
{
	int i = c - '1';

	if (i < 0 || i >= m->level || m->capture[i].n == OPEN)
		luaL_error(m->L, "invalid capture index %%%d", i + 1);
	return i;
}

static int capture_to_close(struct matcher *m)
{
	int i = m->level - 1;

	while (i >= 0 && m->capture[i].n != OPEN)
		i--;
	if (i < 0)
		luaL_error(m->L, "invalid pattern capture");
	return i;
}

/* Behind the single item at p. */
static const char *item_end(struct matcher *m, const char *p)
{
	if (p == m->pat_end)
		luaL_error(m->L, "malformed pattern (ends with '%%')");
	if (*p == ESC) {
		if (p + 1 == m->pat_end)
			luaL_error(m->L, "malformed pattern (ends with '%%')");
		return p + 2;
	}
	if (*p++ != '[')
		return p;
	if (p < m->pat_end && *p == '^')
		p++;
	do { /* a ']' that comes first stands for itself */
		if (p == m->pat_end)
			luaL_error(m->L, "malformed pattern (missing ']')");
		if (*p++ == ESC) {
			if (p == m->pat_end)
				luaL_error(m->L, "malformed pattern (missing ']')");
			p++;
		}
	} while (p == m->pat_end || *p != ']');
	return p + 1;
}

static bool class_holds(int c, int class)
{
	bool in;

	switch (tolower(class)) {
	case 'a':
		in = isalpha(c);
		break;
	case 'c':
		in = iscntrl(c);
		break;
	case 'd':
		in = isdigit(c);
		break;
	case 'g':
		in = isgraph(c);
		break;
	case 'l':
		in = islower(c);
		break;
	case 'p':
		in = ispunct(c);
		break;
	case 's':
		in = isspace(c);
		break;
	case 'u':
		in = isupper(c);
		break;
	case 'w':
		in = isalnum(c);
		break;
	case 'x':
		in = isxdigit(c);
		break;
	case 'z': /* of old, and still understood */
		in = c == 0;
		break;
	default:
		return class == c;
	}
	return isupper(class) ? !in : in;
}

/* The set from '[' at p to its ']' at end. */
static bool set_holds(struct matcher *m, int c, const char *p, const char *end)
{
	bool wanted = true;

	if (p[1] == '^') {
		wanted = false;
		p++;
	}
	while (++p < end) {
		step(m);
		if (*p == ESC) {
			p++;
			if (class_holds(c, (unsigned char)*p))
				return wanted;
		} else if (p[1] == '-' && p + 2 < end) {
			p += 2;
			if ((unsigned char)p[-2] <= c && c <= (unsigned char)*p)
				return wanted;
		} else if ((unsigned char)*p == c) {
			return wanted;
		}
	}
	return !wanted;
}

static bool single(struct matcher *m, const char *s, const char *p, const char *ep)
{
	int c;

	if (s >= m->src_end)
		return false;
	c = (unsigned char)*s;
	step(m);
	switch (*p) {
	case '.':
		return true;
	case ESC:
		return class_holds(c, (unsigned char)p[1]);
	case '[':
		return set_holds(m, c, p, ep - 1);
	default:
		return (unsigned char)*p == c;
	}
}

static const char *match_balance(struct matcher *m, const char *s, const char *p)
{
	int depth = 1;

	if (p >= m->pat_end - 1)
		luaL_error(m->L, "malformed pattern (missing arguments to '%%b')");
	if (s >= m->src_end || *s != *p)
		return NULL;
	while (++s < m->src_end) {
		step(m);
		if (*s == p[1]) {
			if (--depth == 0)
				return s + 1;
		} else if (*s == *p) {
			depth++;
		}
	}
	return NULL;
}

static const char *match_frontier(struct matcher *m, const char *s, const char *p)
{
	const char *end;
	int before = s == m->src ? 0 : (unsigned char)s[-1];
	int here = s < m->src_end ? (unsigned char)*s : 0;

	if (p == m->pat_end || *p != '[')
		luaL_error(m->L, "missing '[' after '%%f' in pattern");
	end = item_end(m, p);
	if (set_holds(m, before, p, end - 1) || !set_holds(m, here, p, end - 1))
		return NULL;
	return match(m, s, end);
}

static const char *match_most(struct matcher *m, const char *s, const char *p, const char *ep)
{
	ptrdiff_t i = 0;

	while (single(m, s + i, p, ep))
		i++;
	for (; i >= 0; i--) {
		const char *end = match(m, s + i, ep + 1);

		if (end)
			return end;
	}
	return NULL;
}

static const char *match_least(struct matcher *m, const char *s, const char *p, const char *ep)
{
	for (;;) {
		const char *end = match(m, s, ep + 1);

		if (end)
			return end;
		if (!single(m, s, p, ep))
			return NULL;
		s++;
	}
}

static const char *capture_open(struct matcher *m, const char *s, const char *p, int what)
{
	const char *end;

	if (m->level >= CAPTURES)
		luaL_error(m->L, "too many captures");
	m->capture[m->level].at = s;
	m->capture[m->level].n = what;
	m->level++;
	end = match(m, s, p);
	if (!end)
		m->level--;
	return end;
}

static const char *capture_close(struct matcher *m, const char *s, const char *p)
{
	int i = capture_to_close(m);
	const char *end;

	m->capture[i].n = s - m->capture[i].at;
	end = match(m, s, p);
	if (!end)
		m->capture[i].n = OPEN;
	return end;
}

static const char *match_again(struct matcher *m, const char *s, int c)
{
	int i = capture_check(m, c);
	size_t n = (size_t)m->capture[i].n;

	m->steps -= (int64_t)(n / 64) % STEPS_LOOK;
	step(m);
	if ((size_t)(m->src_end - s) >= n && memcmp(m->capture[i].at, s, n) == 0)
		return s + n;
	return NULL;
}

/* An item that is not special, with what may stand behind it. False: *s is the result. */
static bool match_item(struct matcher *m, const char **s, const char **p)
{
	const char *ep = item_end(m, *p);
	char more = ep < m->pat_end ? *ep : '\0';
	const char *end;

	switch (more) {
	case '?':
		end = single(m, *s, *p, ep) ? match(m, *s + 1, ep + 1) : NULL;
		if (end) {
			*s = end;
			return false;
		}
		*p = ep + 1;
		return true;
	case '+':
		*s = single(m, *s, *p, ep) ? match_most(m, *s + 1, *p, ep) : NULL;
		return false;
	case '*':
		*s = match_most(m, *s, *p, ep);
		return false;
	case '-':
		*s = match_least(m, *s, *p, ep);
		return false;
	default:
		if (!single(m, *s, *p, ep)) {
			*s = NULL;
			return false;
		}
		(*s)++;
		*p = ep;
		return true;
	}
}

/* One step along the pattern. False: *s is the result. */
static bool match_one(struct matcher *m, const char **s, const char **p)
{
	const char *q = *p;
	char next = q + 1 < m->pat_end ? q[1] : '\0';

	if (*q == '(') {
		*s = next == ')' ? capture_open(m, *s, q + 2, POSITION)
				 : capture_open(m, *s, q + 1, OPEN);
		return false;
	}
	if (*q == ')') {
		*s = capture_close(m, *s, q + 1);
		return false;
	}
	if (*q == '$' && q + 1 == m->pat_end) {
		*s = *s == m->src_end ? *s : NULL;
		return false;
	}
	if (*q == ESC && next == 'b') {
		*s = match_balance(m, *s, q + 2);
		*p = q + 4;
		return *s != NULL;
	}
	if (*q == ESC && next == 'f') {
		*s = match_frontier(m, *s, q + 2);
		return false;
	}
	if (*q == ESC && isdigit((unsigned char)next)) {
		*s = match_again(m, *s, (unsigned char)next);
		*p = q + 2;
		return *s != NULL;
	}
	return match_item(m, s, p);
}

/* Behind the match of p at s, or NULL. */
static const char *match(struct matcher *m, const char *s, const char *p)
{
	if (--m->depth == 0)
		luaL_error(m->L, "pattern too complex");
	step(m);
	while (p != m->pat_end && match_one(m, &s, &p))
		;
	m->depth++;
	return s;
}

static void matcher_init(
	struct matcher *m, lua_State *L, const char *s, size_t n, const char *p, size_t n_p)
{
	m->L = L;
	m->src = s;
	m->src_end = s + n;
	m->pat_end = p + n_p;
	m->steps = STEPS_MOST + STEPS_EACH * (int64_t)n;
}

static const char *matcher_try(struct matcher *m, const char *s, const char *p)
{
	m->level = 0;
	m->depth = DEPTH_MOST;
	return match(m, s, p);
}

static void push_capture(struct matcher *m, int i, const char *s, const char *e)
{
	if (i >= m->level) {
		if (i != 0)
			luaL_error(m->L, "invalid capture index %%%d", i + 1);
		lua_pushlstring(m->L, s, (size_t)(e - s));
	} else if (m->capture[i].n == POSITION) {
		lua_pushinteger(m->L, m->capture[i].at - m->src + 1);
	} else if (m->capture[i].n == OPEN) {
		luaL_error(m->L, "unfinished capture");
	} else {
		lua_pushlstring(m->L, m->capture[i].at, (size_t)m->capture[i].n);
	}
}

static int push_captures(struct matcher *m, const char *s, const char *e)
{
	int n = m->level == 0 && s ? 1 : m->level;

	luaL_checkstack(m->L, n, "too many captures");
	for (int i = 0; i < n; i++)
		push_capture(m, i, s, e);
	return n;
}

/* ---- find and match */

static size_t position(lua_Integer i, size_t n)
{
	if (i > 0)
		return (size_t)i;
	if (i == 0 || i < -(lua_Integer)n)
		return 1;
	return n + (size_t)i + 1;
}

static bool has_specials(const char *p, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (p[i] && strchr("^$*+?.([%-", p[i]))
			return true;
	return false;
}

static int find_plain(lua_State *L, const char *s, size_t n, const char *p, size_t n_p)
{
	const char *at = memmem(s, n, p, n_p); /* takes time in proportion to n + n_p */
	lua_Integer first;

	if (!at) {
		lua_pushnil(L);
		return 1;
	}
	first = at - lua_tostring(L, 1) + 1;
	lua_pushinteger(L, first);
	lua_pushinteger(L, first + (lua_Integer)n_p - 1);
	return 2;
}

static int find_or_match(lua_State *L, bool find)
{
	size_t n, n_p;
	const char *s = luaL_checklstring(L, 1, &n), *p = luaL_checklstring(L, 2, &n_p);
	size_t init = position(luaL_optinteger(L, 3, 1), n) - 1;
	const char *at = s + init, *end;
	bool anchored = n_p > 0 && *p == '^';
	struct matcher m;

	if (init > n) {
		lua_pushnil(L);
		return 1;
	}
	if (find && (lua_toboolean(L, 4) || !has_specials(p, n_p)))
		return find_plain(L, at, n - init, p, n_p);
	p += anchored;
	n_p -= anchored;
	matcher_init(&m, L, s, n, p, n_p);
	do {
		end = matcher_try(&m, at, p);
		if (end && find) {
			lua_pushinteger(L, at - s + 1);
			lua_pushinteger(L, end - s);
			return push_captures(&m, NULL, NULL) + 2;
		}
		if (end)
			return push_captures(&m, at, end);
	} while (at++ < m.src_end && !anchored);
	lua_pushnil(L);
	return 1;
}

int str_find(lua_State *L)
{
	return find_or_match(L, true);
}

int str_match(lua_State *L)
{
	return find_or_match(L, false);
}

/* ---- gmatch: upvalues subject, pattern, where to go on (0: at the end), end of the last match */

static int gmatch_next(lua_State *L)
{
	size_t n, n_p;
	const char *s = lua_tolstring(L, lua_upvalueindex(1), &n);
	const char *p = lua_tolstring(L, lua_upvalueindex(2), &n_p);
	const char *at = s + lua_tointeger(L, lua_upvalueindex(3));
	const char *last = s + lua_tointeger(L, lua_upvalueindex(4));
	struct matcher m;

	matcher_init(&m, L, s, n, p, n_p);
	for (; at <= m.src_end; at++) {
		const char *end = matcher_try(&m, at, p);

		if (!end || end == last)
			continue;
		lua_pushinteger(L, end - s);
		lua_copy(L, -1, lua_upvalueindex(3));
		lua_replace(L, lua_upvalueindex(4));
		return push_captures(&m, at, end);
	}
	lua_pushinteger(L, (lua_Integer)n + 1);
	lua_replace(L, lua_upvalueindex(3));
	return 0;
}

int str_gmatch(lua_State *L)
{
	size_t n, init;

	luaL_checklstring(L, 1, &n);
	luaL_checkstring(L, 2);
	init = position(luaL_optinteger(L, 3, 1), n) - 1;
	lua_settop(L, 2);
	lua_pushinteger(L, (lua_Integer)(init > n ? n + 1 : init));
	lua_pushinteger(L, -1);
	lua_pushcclosure(L, gmatch_next, 4);
	return 1;
}

/* ---- gsub: stack s, p, replacement, most, pieces, state */

struct gsub {
	size_t at;      /* in s, of the next try */
	ptrdiff_t last; /* end of the last match, -1 none */
	lua_Integer n;  /* matches so far */
	bool anchored, done;
	size_t match, end; /* whose replacement is asked for */
};

static void add_text(struct matcher *m, luaL_Buffer *b, const char *s, const char *e)
{
	size_t n;
	const char *r = lua_tolstring(m->L, 3, &n), *r_end = r + n;

	while (r < r_end) {
		const char *esc = memchr(r, ESC, (size_t)(r_end - r));

		luaL_addlstring(b, r, (size_t)((esc ? esc : r_end) - r));
		if (!esc)
			return;
		r = esc + 1;
		if (r < r_end && *r == ESC) {
			luaL_addchar(b, *r);
		} else if (r < r_end && *r == '0') {
			luaL_addlstring(b, s, (size_t)(e - s));
		} else if (r < r_end && isdigit((unsigned char)*r)) {
			push_capture(m, *r - '1', s, e);
			luaL_addvalue(b);
		} else {
			luaL_error(m->L, "invalid use of '%%' in replacement string");
		}
		r++;
	}
}

static int gsub_more(lua_State *L, int status, lua_KContext ctx);

/* What the function or table says to the match, left at the top. */
static void ask_replacement(struct matcher *m, const char *s, const char *e)
{
	lua_State *L = m->L;

	if (lua_type(L, 3) == LUA_TTABLE) {
		push_capture(m, 0, s, e);
		lua_gettable(L, 3);
	} else {
		lua_pushvalue(L, 3);
		lua_callk(L, push_captures(m, s, e), 1, 1, gsub_more);
	}
}

/* The replacement at the top becomes a piece. */
static void take_replacement(lua_State *L, const struct gsub *g)
{
	if (!lua_toboolean(L, -1)) {
		lua_pop(L, 1);
		lua_pushlstring(L, lua_tostring(L, 1) + g->match, g->end - g->match);
	} else if (!lua_isstring(L, -1)) {
		luaL_error(L, "invalid replacement value (a %s)", luaL_typename(L, -1));
	} else {
		lua_tostring(L, -1);
	}
	lib_piece(L, 5);
	lua_settop(L, 6);
}

static void flush(lua_State *L, luaL_Buffer *b)
{
	luaL_pushresult(b);
	if (lua_rawlen(L, -1) > 0)
		lib_piece(L, 5);
	else
		lua_pop(L, 1);
}

/* Texts, until enough is gathered, all is done, or a replacement must be asked for: true then. */
static bool gsub_gather(struct matcher *m, struct gsub *g, const char *p)
{
	lua_State *L = m->L;
	lua_Integer most = lua_tointeger(L, 4);
	bool text = lua_type(L, 3) == LUA_TSTRING, asks = false;
	const char *at = m->src + g->at;
	int64_t until = m->steps - 16 * STEPS_LOOK;
	luaL_Buffer b;

	luaL_buffinit(L, &b);
	g->done = g->n >= most;
	while (!g->done && !asks && luaL_bufflen(&b) < PIECE_BYTES && m->steps > until) {
		const char *end = matcher_try(m, at, p);

		if (end && end - m->src != g->last) {
			g->n++;
			g->match = (size_t)(at - m->src);
			g->last = end - m->src;
			g->end = (size_t)g->last;
			if (text)
				add_text(m, &b, at, end);
			asks = !text;
			at = end;
		} else if (at < m->src_end) {
			luaL_addlstring(&b, at, 1);
			at++;
		} else {
			g->done = true;
		}
		g->done = g->done || g->anchored || g->n >= most;
		g->at = (size_t)(at - m->src);
	}
	flush(L, &b);
	return asks;
}

/* ctx 1: a replacement is at the top; 2: the whole is */
static int gsub_more(lua_State *L, int status, lua_KContext ctx)
{
	struct gsub *g = lua_touserdata(L, 6);
	size_t n, n_p;
	const char *s = lua_tolstring(L, 1, &n), *p = lua_tolstring(L, 2, &n_p);
	struct matcher m;

	(void)status;
	if (ctx == 1)
		take_replacement(L, g);
	p += g->anchored;
	n_p -= g->anchored;
	while (ctx != 2 && !g->done) {
		matcher_init(&m, L, s, n, p, n_p);
		if (gsub_gather(&m, g, p)) {
			ask_replacement(&m, s + g->match, s + g->end);
			take_replacement(L, g);
		}
		lib_pause(L, 0, gsub_more);
	}
	if (ctx != 2) {
		lua_pushlstring(L, s + g->at, n - g->at);
		lib_piece(L, 5);
		lua_pushcfunction(L, lib_join);
		lua_pushvalue(L, 5);
		lua_callk(L, 1, 1, 2, gsub_more);
	}
	lua_pushinteger(L, g->n);
	return 2;
}

int str_gsub(lua_State *L)
{
	size_t n;
	const char *p;
	int type = lua_type(L, 3);
	lua_Integer most;
	struct gsub *g;

	luaL_checklstring(L, 1, &n);
	p = luaL_checkstring(L, 2);
	luaL_argexpected(L,
		type == LUA_TNUMBER || type == LUA_TSTRING || type == LUA_TFUNCTION ||
			type == LUA_TTABLE,
		3, "string/function/table");
	if (type == LUA_TNUMBER)
		lua_tostring(L, 3);
	most = luaL_optinteger(L, 4, (lua_Integer)n + 1);
	lua_settop(L, 3);
	lua_pushinteger(L, most);
	lua_newtable(L);
	g = lua_newuserdatauv(L, sizeof *g, 0);
	memset(g, 0, sizeof *g);
	g->last = -1;
	g->anchored = *p == '^';
	return gsub_more(L, LUA_OK, 0);
}

/* ---- what makes a long string: stack ..., buffer; ctx: bytes done */

/* Stack s, count, separator, buffer. The first s and separator, then what there is, doubled. */
static int rep_more(lua_State *L, int status, lua_KContext ctx)
{
	size_t total = lua_rawlen(L, 4), done = (size_t)ctx;
	size_t each = lua_rawlen(L, 1) + lua_rawlen(L, 3);
	char *to = lua_touserdata(L, 4);

	(void)status;
	while (done < total) {
		size_t n = done;

		/* Whole ones, but for the last. */
		if (n > CHUNK_BYTES)
			n = each > CHUNK_BYTES ? each : CHUNK_BYTES / each * each;
		n = n < total - done ? n : total - done;
		memcpy(to + done, to, n);
		done += n;
		lib_pause(L, (lua_KContext)done, rep_more);
	}
	lua_pushlstring(L, to, total);
	return 1;
}

int str_rep(lua_State *L)
{
	size_t n, n_sep;
	const char *s = luaL_checklstring(L, 1, &n);
	lua_Integer count = luaL_checkinteger(L, 2);
	const char *sep = luaL_optlstring(L, 3, "", &n_sep);
	size_t each = n + n_sep, cap = carrier_of(L)->cap, total;
	char *to;

	if (count <= 0 || (each == 0)) {
		lua_pushliteral(L, "");
		return 1;
	}
	if ((size_t)count > cap / each + 1) {
		carrier_of(L)->refused = true;
		lua_pushliteral(L, "not enough memory"); /* as Lua says it */
		return lua_error(L);
	}
	total = each * (size_t)count - n_sep;
	lua_tostring(L, 1); /* not a number any more: its length is wanted */
	lua_settop(L, 2);
	lua_pushlstring(L, sep, n_sep);
	to = lua_newuserdatauv(L, total, 0);
	memcpy(to, s, n);
	if (count > 1)
		memcpy(to + n, sep, n_sep);
	return rep_more(L, LUA_OK, (lua_KContext)(count > 1 ? each : n));
}

enum turn { UPPER, LOWER, REVERSE };

static void turn_some(
	char *to, const unsigned char *s, size_t n, size_t from, size_t until, enum turn how)
{
	for (size_t i = from; i < until; i++)
		to[i] = how == REVERSE ? (char)s[n - 1 - i]
			: how == LOWER ? (char)tolower(s[i])
				       : (char)toupper(s[i]);
}

/* Stack s, how, buffer. */
static int turn_more(lua_State *L, int status, lua_KContext ctx)
{
	size_t n, done = (size_t)ctx;
	const unsigned char *s = (const unsigned char *)lua_tolstring(L, 1, &n);
	char *to = lua_touserdata(L, 3);

	(void)status;
	while (done < n) {
		size_t until = n - done < CHUNK_BYTES ? n : done + CHUNK_BYTES;

		turn_some(to, s, n, done, until, (enum turn)lua_tointeger(L, 2));
		done = until;
		lib_pause(L, (lua_KContext)done, turn_more);
	}
	lua_pushlstring(L, to, n);
	return 1;
}

static int turn(lua_State *L, enum turn how)
{
	char few[512];
	size_t n;
	const char *s = luaL_checklstring(L, 1, &n);

	if (n <= sizeof few) {
		turn_some(few, (const unsigned char *)s, n, 0, n, how);
		lua_pushlstring(L, few, n);
		return 1;
	}
	lua_settop(L, 1);
	lua_pushinteger(L, how);
	lua_newuserdatauv(L, n, 0);
	return turn_more(L, LUA_OK, 0);
}

int str_upper(lua_State *L)
{
	return turn(L, UPPER);
}

int str_lower(lua_State *L)
{
	return turn(L, LOWER);
}

int str_reverse(lua_State *L)
{
	return turn(L, REVERSE);
}

/* ---- format: the library's own, but %q of a long string is made here and put in by %s */

/* Stack: ..., the string, pieces; the pieces are left. */
static void quote(lua_State *L, const char *s, size_t n)
{
	size_t at = 0;

	lua_newtable(L);
	lua_pushliteral(L, "\"");
	lib_piece(L, -2);
	while (at < n) {
		size_t until = n - at < PIECE_BYTES ? n : at + PIECE_BYTES;
		luaL_Buffer b;

		luaL_buffinit(L, &b);
		for (; at < until; at++) {
			char c = s[at], text[8];

			if (c == '"' || c == '\\' || c == '\n') {
				luaL_addchar(&b, '\\');
				luaL_addchar(&b, c);
			} else if (iscntrl((unsigned char)c)) {
				bool digit = at + 1 < n && isdigit((unsigned char)s[at + 1]);

				snprintf(text, sizeof text, digit ? "\\%03d" : "\\%d",
					(unsigned char)c);
				luaL_addstring(&b, text);
			} else {
				luaL_addchar(&b, c);
			}
		}
		luaL_pushresult(&b);
		lib_piece(L, -2);
		lib_pause(L, 0, NULL);
	}
	lua_pushliteral(L, "\"");
	lib_piece(L, -2);
}

/* Replaces argument `arg` by its quoted form. */
static void quote_arg(lua_State *L, int arg)
{
	size_t n;
	const char *s = lua_tolstring(L, arg, &n);

	lua_pushcfunction(L, lib_join);
	quote(L, s, n);
	lua_call(L, 1, 1);
	lua_replace(L, arg);
}

/* Behind the '%' at f[i]: the conversion's letter, or the end. */
static size_t conversion(const char *f, size_t n, size_t i)
{
	while (++i < n && f[i] && strchr("-+ #0123456789.", f[i]))
		;
	return i;
}

/* The format with %s for each %q whose argument is quoted already; marks: bit n of the n-th. */
static void push_format(lua_State *L, const char *f, size_t n, uint64_t marks)
{
	unsigned which = 0;
	luaL_Buffer b;

	luaL_buffinit(L, &b);
	for (size_t i = 0; i < n; i++) {
		size_t at = f[i] == ESC ? conversion(f, n, i) : i;

		if (at == i || at >= n || f[at] == ESC) {
			luaL_addlstring(&b, f + i, (at < n ? at : n - 1) - i + 1);
		} else {
			which++;
			luaL_addlstring(&b, f + i, at - i);
			luaL_addchar(&b, which < 64 && (marks >> which & 1) ? 's' : f[at]);
		}
		i = at;
	}
	luaL_pushresult(&b);
}

int str_format(lua_State *L)
{
	size_t n;
	const char *f = luaL_checklstring(L, 1, &n);
	int top = lua_gettop(L), which = 0;
	uint64_t marks = 0;

	for (size_t i = 0; i < n; i++) {
		size_t at = f[i] == ESC ? conversion(f, n, i) : i;

		if (at != i && at < n && f[at] != ESC && ++which < 63 && f[at] == 'q' &&
			at == i + 1 && which < top && lua_type(L, which + 1) == LUA_TSTRING &&
			lua_rawlen(L, which + 1) > QUOTE_BYTES) {
			quote_arg(L, which + 1);
			marks |= (uint64_t)1 << which;
		}
		i = at;
	}
	if (marks) {
		push_format(L, f, n, marks);
		lua_replace(L, 1);
	}
	lua_pushcfunction(L, lua_string_format);
	lua_insert(L, 1);
	lua_call(L, lua_gettop(L) - 1, 1);
	return 1;
}

void lib_open_string(lua_State *L)
{
	static const luaL_Reg ours[] = { { "find", str_find }, { "match", str_match },
		{ "gmatch", str_gmatch }, { "gsub", str_gsub }, { "rep", str_rep },
		{ "upper", str_upper }, { "lower", str_lower }, { "reverse", str_reverse },
		{ "format", str_format }, { NULL, NULL } };

	lazy_init();
	luaL_setfuncs(L, ours, 0);
}
