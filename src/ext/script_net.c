/*
 * Connections of extensions in Lua; see script_net.h and doc/guide/first-extension.md. The kernel
 * makes them (tos_connect, tos_accept); here lie the sockets and what waits to be sent. Bytes are
 * read only when a function wants them, a piece at a time, so that nothing that came in is kept;
 * and sent only from the loop, so that a function of the script is never called from within another.
 *
 * The struct lies in a userdata. While its socket is watched the registry holds that; one that is
 * not watched and that the script has forgotten is closed by __gc.
 */
#include "ext/script_net.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <lauxlib.h>
#include <lua.h>

#include <tos/extension.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/list.h"
#include "base/mem.h"
#include "ext/script_in.h"

#define CONNECTION  "tos.connection"
#define MOST        32 /* connections, those asked for included; tos-ext watches 64 descriptors */
#define OUT_BYTES   ((size_t)256 << 10) /* of one, that wait to be sent */
#define PIECE_BYTES 16384
#define LINGER_MS   10000 /* for what waits when it is closed */
#define ASK_MS      30000 /* an accept without a time is asked again and again */
#define TIME_MOST   86400

enum { READER = 1, FLUSHED }; /* user values */

struct connection {
	struct list link;
	int fd; /* -1: over, for the reason below */
	bool anchored, reading, flushing, ended, closing;
	struct tos_timer *linger; /* while closing */
	struct buf out;
	int rc;
	char why[96], peer[80];
};

static struct {
	lua_State *L;
	struct tos_ext *x;
	struct list all;
	size_t n, n_asked;
} net;

/* ---- what is watched */

static void unanchor(struct connection *c)
{
	if (!c->anchored)
		return;
	c->anchored = false;
	lua_pushnil(net.L);
	lua_rawsetp(net.L, LUA_REGISTRYINDEX, c); /* it is there: raises nothing */
}

/* May raise, and so comes before anything else is changed. */
static void anchor(lua_State *L, int at, struct connection *c)
{
	if (c->anchored)
		return;
	lua_pushvalue(L, at);
	lua_rawsetp(L, LUA_REGISTRYINDEX, c);
	c->anchored = true;
}

static void drop(struct connection *c, int rc, const char *why)
{
	if (c->fd < 0)
		return;
	tos_watch(net.x, c->fd, 0, NULL, NULL);
	close(c->fd);
	c->fd = -1;
	c->rc = rc;
	snprintf(c->why, sizeof(c->why), "%s", why);
	if (c->linger)
		tos_timer_stop(net.x, c->linger);
	c->linger = NULL;
	c->reading = c->flushing = c->closing = false;
	buf_fini(&c->out);
	list_del(&c->link);
	net.n--;
	unanchor(c);
}

static void on_ready(struct tos_ext *x, void *arg, int fd, unsigned events);

/* After each change; it must be anchored where there is something to watch. */
static void watch(struct connection *c)
{
	unsigned events = (c->reading ? TOS_READABLE : 0) |
			  (c->out.len || c->flushing ? TOS_WRITABLE : 0);

	if (c->fd < 0)
		return;
	must(!events || c->anchored);
	must(tos_watch(net.x, c->fd, events, on_ready, c) == 0); /* MOST sees to that */
	if (!events)
		unanchor(c);
}

/* ---- what the script is told; its userdata is on top of the main state's stack */

struct said {
	int rc;
	const char *text; /* where rc is 0: bytes, or NULL */
	size_t n;
};

static int said_push(lua_State *L)
{
	const struct said *s = lua_touserdata(L, 1);

	if (s->rc < 0 || !s->text)
		return script_result(L, s->rc, s->text);
	lua_pushlstring(L, s->text, s->n);
	return 1;
}

/* A function that fails leaves the conversation nobody knows where. */
static void tell(struct connection *c, int which, struct said s)
{
	lua_State *L = net.L;
	int at = lua_gettop(L), rc = 0;

	if (lua_getiuservalue(L, at, which) == LUA_TFUNCTION) {
		lua_pushcfunction(L, said_push);
		lua_pushlightuserdata(L, &s);
		rc = script_call(1, LUA_MULTRET);
		if (rc == 0)
			rc = script_call(lua_gettop(L) - at - 1, 0);
	}
	lua_settop(L, at);
	if (rc < 0)
		drop(c, ERR_FAULT, "the function that was told of it failed");
}

static void broken(struct connection *c, int error)
{
	bool reading = c->reading, flushing = c->flushing;
	struct said s = { .rc = ERR_IO, .text = c->why };

	drop(c, ERR_IO, strerror(error));
	if (flushing)
		tell(c, FLUSHED, s);
	if (reading)
		tell(c, READER, s);
}

static void send_some(struct connection *c)
{
	ssize_t n = c->out.len ? send(c->fd, c->out.data, c->out.len, MSG_NOSIGNAL) : 0;

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n < 0) {
		broken(c, errno);
		return;
	}
	buf_shift(&c->out, (size_t)n);
	if (c->out.len)
		return;
	buf_fini(&c->out);
	if (c->flushing) {
		c->flushing = false;
		tell(c, FLUSHED, (struct said){ .rc = 0 });
	}
	if (c->closing && !c->out.len)
		drop(c, ERR_CLOSED, "it was closed here");
	watch(c);
}

static void receive_some(struct connection *c)
{
	static char piece[PIECE_BYTES];
	ssize_t n = recv(c->fd, piece, sizeof(piece), 0);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n < 0) {
		broken(c, errno);
	} else if (n > 0) {
		tell(c, READER, (struct said){ .text = piece, .n = (size_t)n });
	} else {
		c->ended = true;
		c->reading = false;
		watch(c); /* it may go on to send */
		tell(c, READER, (struct said){ ERR_CLOSED, "the other side has ended it", 0 });
	}
}

static void on_ready(struct tos_ext *x, void *arg, int fd, unsigned events)
{
	struct connection *c = arg;
	int top = lua_gettop(net.L);

	(void)x;
	(void)fd;
	/* On the stack it outlives whatever the script does with it. */
	lua_rawgetp(net.L, LUA_REGISTRYINDEX, c);
	if (events & TOS_WRITABLE)
		send_some(c);
	if (c->fd >= 0 && c->reading && (events & TOS_READABLE))
		receive_some(c);
	lua_settop(net.L, top);
}

/* ---- its methods */

static struct connection *self(lua_State *L)
{
	return luaL_checkudata(L, 1, CONNECTION);
}

static int over(lua_State *L, const struct connection *c)
{
	if (c->fd < 0)
		return script_result(L, c->rc, c->why);
	return script_result(L, ERR_CLOSED,
		c->closing ? "it was closed here" : "the other side has ended it");
}

/* conn:read(function), or nil for no more of them for now */
static int l_read(lua_State *L)
{
	struct connection *c = self(L);
	bool wanted = !lua_isnoneornil(L, 2);

	if (wanted)
		luaL_checktype(L, 2, LUA_TFUNCTION);
	if (c->fd < 0 || c->closing || c->ended)
		return over(L, c);
	lua_settop(L, 2);
	anchor(L, 1, c);
	lua_setiuservalue(L, 1, READER);
	c->reading = wanted;
	watch(c);
	return script_result(L, 0, NULL);
}

/* All of it or nothing: true; false, code, text where there is no room now; nil, code, text */
static int l_write(lua_State *L)
{
	struct connection *c = self(L);
	size_t n;
	const char *bytes = luaL_checklstring(L, 2, &n);

	if (c->fd < 0 || c->closing)
		return over(L, c);
	if (n > OUT_BYTES)
		return script_result(L, ERR_TOO_LARGE, "more than 256 KiB at a time");
	anchor(L, 1, c);
	if (buf_add(&c->out, bytes, n) < 0) {
		lua_pushboolean(L, 0);
		lua_pushstring(L, err_word(ERR_FULL));
		lua_pushstring(L, "256 KiB wait to be sent");
		return 3;
	}
	watch(c);
	return script_result(L, 0, NULL);
}

/* conn:flush(function): once, when nothing waits to be sent any more */
static int l_flush(lua_State *L)
{
	struct connection *c = self(L);

	luaL_checktype(L, 2, LUA_TFUNCTION);
	if (c->fd < 0 || c->closing)
		return over(L, c);
	lua_settop(L, 2);
	anchor(L, 1, c);
	lua_setiuservalue(L, 1, FLUSHED);
	c->flushing = true;
	watch(c);
	return script_result(L, 0, NULL);
}

static void on_linger(struct tos_ext *x, void *arg)
{
	struct connection *c = arg;

	(void)x;
	c->linger = NULL;
	drop(c, ERR_TIMEOUT, "what waited when it was closed was not taken in time");
}

static int l_close(lua_State *L)
{
	struct connection *c = self(L);

	if (c->fd < 0 || c->closing)
		return 0;
	c->reading = false;
	c->closing = c->out.len > 0;
	c->linger = c->closing ? tos_timer(net.x, LINGER_MS, on_linger, c) : NULL;
	if (c->linger)
		watch(c);
	else
		drop(c, ERR_CLOSED, "it was closed here");
	return 0;
}

static int l_peer(lua_State *L)
{
	lua_pushstring(L, self(L)->peer);
	return 1;
}

static int l_gc(lua_State *L)
{
	drop(self(L), ERR_CLOSED, "it was forgotten");
	return 0;
}

static const luaL_Reg methods[] = { { "close", l_close }, { "flush", l_flush },
	{ "peer", l_peer }, { "read", l_read }, { "write", l_write }, { NULL, NULL } };

/* ---- making and taking them */

struct arrival {
	int rc, fd;
	const char *text;
};

static int arrival_push(lua_State *L)
{
	struct arrival *a = lua_touserdata(L, 1);
	struct connection *c;

	if (a->rc < 0)
		return script_result(L, a->rc, a->text);
	c = lua_newuserdatauv(L, sizeof(*c), 2);
	*c = (struct connection){ .fd = a->fd, .out = BUF_MAX(OUT_BYTES) };
	a->fd = -1;
	snprintf(c->peer, sizeof(c->peer), "%s", a->text);
	list_add(&net.all, &c->link);
	net.n++;
	luaL_setmetatable(L, CONNECTION);
	return 1;
}

static void on_connected(struct tos_ext *x, void *arg, int rc, const char *text, int fd)
{
	struct arrival a = { rc, fd, text };

	(void)x;
	net.n_asked--;
	script_call_once((intptr_t)arg, arrival_push, &a);
	mem_close(a.fd); /* there was no memory for it */
}

static void on_accepted(struct tos_ext *x, void *arg, int rc, const char *text, int fd)
{
	if (rc == ERR_TIMEOUT && tos_accept(x, ASK_MS, on_accepted, arg) == 0)
		return;
	on_connected(x, arg, rc, text, fd);
}

/* Those that the script has forgotten count until they are collected. */
static bool room(lua_State *L)
{
	if (net.n + net.n_asked >= MOST)
		lua_gc(L, LUA_GCCOLLECT);
	return net.n + net.n_asked < MOST;
}

static int asked(lua_State *L, int rc, int ref)
{
	if (rc == 0)
		net.n_asked++;
	else
		luaL_unref(L, LUA_REGISTRYINDEX, ref);
	return script_result(L, rc, NULL);
}

static uint32_t time_ms(lua_State *L, int at)
{
	lua_Number seconds = luaL_checknumber(L, at);

	luaL_argcheck(L, seconds >= 0.001 && seconds <= TIME_MOST, at, "no time in seconds");
	return (uint32_t)(seconds * 1000);
}

static int function_ref(lua_State *L, int at)
{
	lua_pushvalue(L, at);
	return luaL_ref(L, LUA_REGISTRYINDEX);
}

#define NO_ROOM "an extension has 32 connections at most"

/* tos.connect(host, port, seconds, function) */
static int l_connect(lua_State *L)
{
	const char *host = luaL_checkstring(L, 1);
	lua_Integer port = luaL_checkinteger(L, 2);
	uint32_t timeout_ms = time_ms(L, 3);
	int ref;

	net.x = script_started(L);
	luaL_argcheck(L, port > 0 && port < 65536, 2, "no port");
	luaL_checktype(L, 4, LUA_TFUNCTION);
	if (!room(L))
		return script_result(L, ERR_LIMIT, NO_ROOM);
	ref = function_ref(L, 4);
	return asked(L,
		tos_connect(net.x, host, (uint16_t)port, timeout_ms, on_connected,
			(void *)(intptr_t)ref),
		ref);
}

/* tos.accept(function [, seconds]) */
static int l_accept(lua_State *L)
{
	bool ever = lua_isnoneornil(L, 2);
	uint32_t timeout_ms = ever ? ASK_MS : time_ms(L, 2);
	int ref;

	net.x = script_started(L);
	luaL_checktype(L, 1, LUA_TFUNCTION);
	if (!room(L))
		return script_result(L, ERR_LIMIT, NO_ROOM);
	ref = function_ref(L, 1);
	return asked(L,
		tos_accept(net.x, timeout_ms, ever ? on_accepted : on_connected,
			(void *)(intptr_t)ref),
		ref);
}

void script_net_open(lua_State *L)
{
	static const luaL_Reg functions[] = { { "accept", l_accept }, { "connect", l_connect },
		{ NULL, NULL } };
	static const luaL_Reg rest[] = { { "__close", l_close }, { "__gc", l_gc },
		{ NULL, NULL } };

	net.L = L;
	list_init(&net.all);
	luaL_setfuncs(L, functions, 0);
	luaL_newmetatable(L, CONNECTION);
	luaL_setfuncs(L, rest, 0);
	luaL_newlib(L, methods);
	lua_setfield(L, -2, "__index");
	lua_pushboolean(L, 0);
	lua_setfield(L, -2, "__metatable");
	lua_pop(L, 1);
}

void script_net_stop(void)
{
	while (!list_empty(&net.all)) {
		struct connection *c = LIST_ITEM(net.all.next, struct connection, link);

		if (c->out.len && send(c->fd, c->out.data, c->out.len, MSG_NOSIGNAL) < 0)
			tos_count(net.x, "unsent", 1);
		drop(c, ERR_CLOSED, "the extension was stopped");
	}
}
