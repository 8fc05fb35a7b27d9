/*
 * One carrier: its memory, its turns, its faults, its end.
 *
 * Its Lua heap is counted against its cap by our allocator. start.c makes it from a START frame,
 * frozen.c has what of it travels, delivery.c what comes for it.
 */
#include "vm/code.h"
#include "vm/vm.h"

#include <lauxlib.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/text.h"
#include "wire/vmproto.h"

#define FAULT_GRACE_BYTES ((size_t)512 << 10) /* above the cap, to say what went wrong */
#define HEAP_SLACK        ((size_t)256 << 10) /* what is left over in slabs; small heaps */
#define SETTLE_MOST       ((size_t)1 << 20)
#define FOLD_PAGES_MAX                                                                         \
	32 /* folding takes some 100 us for each 4 KiB, and who runs waits for it */
#define USAGE_EACH_MS 200

/* ---- memory */

static void *carrier_alloc(void *ud, void *p, size_t osize, size_t nsize)
{
	struct vm_carrier *c = ud;
	void *q;

	if (!p)
		osize = 0; /* then it is a kind of object */
	if (nsize > osize && (c->used >= c->cap || nsize - osize > c->cap - c->used ||
				     c->heap.bytes > 2 * c->cap + HEAP_SLACK)) {
		c->refused = true;
		return NULL;
	}
	vm_sched.jump_ok = 0;
	q = arena_resize(&c->heap, p, osize, nsize);
	vm_sched.jump_ok = 1;
	if (!q && nsize) {
		c->refused = true;
		return NULL;
	}
	c->used += nsize;
	c->used -= osize;
	if (c->used > c->peak)
		c->peak = c->used;
	return q;
}

bool carrier_heap_open(struct vm_carrier *c)
{
	arena_init(&c->heap);
	c->L = lua_newstate(carrier_alloc, c);
	if (!c->L)
		return false;
	*(struct vm_carrier **)lua_getextraspace(c->L) = c;
#ifdef TOS_HOSTILE
	lua_gc(c->L, LUA_GCINC, 1, 1000, 1); /* a collector that hardly rests */
#endif
	return true;
}

/* Without asking Lua, which may have been left anywhere. It has no finalizers. */
static void heap_drop(struct vm_carrier *c)
{
	c->L = c->co = NULL;
	c->used = 0;
	arena_drop(&c->heap);
}

void carrier_free(struct vm_carrier *c)
{
	if (!c)
		return;
	sched_forget(c);
	heap_drop(c);
	code_unref(c->code);
	carrier_drop_mail(c);
	free(c->done_text);
	free(c);
}

/* ---- what it says to the kernel */

void text_put(struct buf *b, const char *s, size_t n, size_t most)
{
	char out[VM_TRACE_BYTES_MAX];

	if (most > sizeof out)
		most = sizeof out;
	if (n > most)
		n = most;
	memcpy(out, s, n);
	for (size_t i = 0; i < n;) {
		size_t len = 1;

		if ((unsigned char)out[i] >= 0x80) {
			for (len = 2; len <= 4 && i + len <= n && !text_utf8(out + i, len);
				len++)
				;
			if (len > 4 || i + len > n) {
				out[i] = '?';
				len = 1;
			}
		}
		i += len;
	}
	cbor_put_text_n(b, out, n);
}

void carrier_send_usage(struct vm_carrier *c)
{
	size_t at = port_begin(c->port, 2, VM_USAGE, c->number);
	int64_t cpu = sched_cpu_us(c);

	cbor_put_uint(&c->port->out, cpu > 0 ? (uint64_t)cpu : 0);
	cbor_put_uint(&c->port->out, c->used + c->held);
	port_send_later(c->port, at);
	c->usage_sent_ms = clock_ms();
	list_del(&c->untold);
}

void carrier_note_activity(struct vm_carrier *c)
{
	if (clock_ms() - c->usage_sent_ms >= USAGE_EACH_MS)
		carrier_send_usage(c);
}

/* Its end: with what it has, frozen, where it has something and that fits. */
static void send_fault(
	struct vm_carrier *c, const char *code, const char *text, const char *trace)
{
	bool frozen = c->L && carrier_freeze(c, c->L) == 0;
	struct buf *b = &c->port->out;
	size_t at;

	carrier_send_usage(c);
	carrier_tell_dropped(c);
	for (;;) {
		at = port_begin(c->port, 4, VM_FAULT, c->number);
		cbor_put_text(b, code);
		text_put(b, text, strlen(text), VM_TEXT_BYTES_MAX);
		text_put(b, trace, strlen(trace), VM_TRACE_BYTES_MAX);
		if (frozen)
			cbor_put_raw(b, (struct slice){ c->port->enc.data, c->port->enc.len });
		else
			cbor_put_null(b);
		if (port_send(c->port, at) == 0 || !frozen)
			break;
		frozen = false;
	}
	c->state = VM_ENDED;
}

/* ---- running */

struct error_text {
	struct buf text, trace;
	int status;
};

#define TRACE_DEEP 1000 /* luaL_traceback() walks the whole stack for each of its lines */
#define TRACE_MOST 20

/* The innermost levels of a stack that has run away. */
static void trace_deep(lua_State *L, lua_State *co)
{
	lua_Debug ar;
	luaL_Buffer b;

	luaL_buffinit(L, &b);
	luaL_addstring(&b, "stack traceback:\n");
	for (int i = 0; i < TRACE_MOST && lua_getstack(co, i, &ar); i++) {
		lua_getinfo(co, "Sln", &ar);
		if (ar.currentline > 0)
			lua_pushfstring(L, "\t%s:%d: in ", ar.short_src, ar.currentline);
		else
			lua_pushfstring(L, "\t%s: in ", ar.short_src);
		luaL_addvalue(&b);
		if (ar.name)
			lua_pushfstring(L, "%s '%s'\n", ar.namewhat, ar.name);
		else
			lua_pushfstring(L, "function <%s:%d>\n", ar.short_src, ar.linedefined);
		luaL_addvalue(&b);
	}
	luaL_addstring(&b, "\t... (more than a thousand levels)");
	luaL_pushresult(&b);
}

/* Protected: the message at the top of co. Its __tostring is the carrier's code. */
static int message_body(lua_State *L)
{
	struct vm_carrier *c = carrier_of(L);
	struct error_text *e = lua_touserdata(L, 1);
	const char *s;
	size_t n;

	lua_settop(L, 0);
	lua_xmove(c->co, L, 1);
	sched_thread(L);
	vm_sched.host = 0;
	s = luaL_tolstring(L, 1, &n);
	vm_sched.host = 1;
	buf_add(&e->text, s, n < VM_TEXT_BYTES_MAX ? n : VM_TEXT_BYTES_MAX);
	return 0;
}

/* Protected: the traceback of co. */
static int trace_body(lua_State *L)
{
	struct vm_carrier *c = carrier_of(L);
	struct error_text *e = lua_touserdata(L, 1);
	const char *s;

	if (lua_getstack(c->co, TRACE_DEEP, &(lua_Debug){ 0 }))
		trace_deep(L, c->co);
	else
		luaL_traceback(L, c->co, NULL, 0);
	s = lua_tostring(L, -1);
	while (s && *s) { /* the prelude's own lines, and boot's, are no help */
		const char *eol = strchr(s, '\n');
		size_t n = eol ? (size_t)(eol - s) + 1 : strlen(s);

		if (strncmp(s, "\t[tos]:", 7) != 0 && strncmp(s, "\t?: in ", 7) != 0 &&
			strcmp(s, "\t[C]: in ?") != 0)
			buf_add(&e->trace, s, n);
		s += n;
	}
	return 0;
}

static bool protected_call(struct vm_carrier *c, lua_CFunction body, struct error_text *e)
{
	lua_pushcfunction(c->L, body);
	lua_pushlightuserdata(c->L, e);
	if (lua_pcall(c->L, 1, 0, 0) == LUA_OK)
		return true;
	lua_pop(c->L, 1);
	return false;
}

static const char *error_code(const struct vm_carrier *c, int status, const char *text)
{
	if (status == LUA_ERRMEM || (c->refused && strstr(text, "not enough memory")))
		return "limit";
	return "fault";
}

static void carrier_fault(struct vm_carrier *c, int status)
{
	struct error_text e = { .text = BUF_INIT, .trace = BUF_INIT, .status = status };
	const char *code;

	c->cap += FAULT_GRACE_BYTES;
	if (!protected_call(c, message_body, &e))
		buf_add_str(&e.text, "an error without a message");
	vm_sched.host = 1;
	protected_call(c, trace_body, &e);
	code = error_code(c, status, buf_cstr(&e.text));
	if (strcmp(code, "limit") == 0) {
		AUTOBUF line = BUF_INIT;

		buf_printf(&line, "limit memory: %s (%zu bytes granted)", buf_cstr(&e.text),
			(size_t)c->limit[LIMIT_memory]);
		send_fault(c, code, buf_cstr(&line), buf_cstr(&e.trace));
	} else {
		send_fault(c, code, buf_cstr(&e.text), buf_cstr(&e.trace));
	}
	buf_fini(&e.text);
	buf_fini(&e.trace);
}

void carrier_not_loaded(struct vm_carrier *c, int status)
{
	const char *text = c->L ? lua_tostring(c->L, -1) : NULL, *code;
	char line[ERRMSG_BYTES];

	if (!c->L) {
		send_fault(c, "limit", "limit memory: too small for a carrier to start in", "");
		return;
	}
	c->cap += FAULT_GRACE_BYTES;
	code = error_code(c, status, text ? text : "");
	/* Nothing of it ran; a freeze would lose what it came with. The kernel has that still. */
	snprintf(line, sizeof line, "%s%s", strcmp(code, "limit") == 0 ? "limit memory: " : "",
		text ? text : "could not be loaded");
	heap_drop(c);
	send_fault(c, code, line, "");
}

static void carrier_finished(struct vm_carrier *c)
{
	int rc = carrier_freeze(c, c->L);
	struct errmsg why;
	size_t at;

	if (!rc) {
		carrier_send_usage(c);
		carrier_tell_dropped(c);
		at = port_begin(c->port, 1, VM_FINISHED, c->number);
		cbor_put_raw(
			&c->port->out, (struct slice){ c->port->enc.data, c->port->enc.len });
		rc = port_send(c->port, at);
		if (rc)
			err_set(&c->port->em, rc, "limit state: larger than a frame");
	}
	if (rc) {
		why = c->port->em; /* the fault freezes again */
		send_fault(c, rc == ERR_LIMIT || rc == ERR_TOO_LARGE ? "limit" : "fault",
			why.text, "");
	}
	c->state = VM_ENDED;
}

void carrier_run(struct vm_carrier *c)
{
	int n = 0, status;

	c->wait = WAIT_NONE;
	if (c->heap.folded) {
		vm_sched.host = 1;
		arena_unfold(&c->heap);
		vm_sched.host = 0;
	}
	status = lua_resume(c->co, c->L, c->n_args, &n);
	vm_sched.host = 1; /* what follows is ours */
	c->n_args = 0;
	if (status == LUA_YIELD && c->preempted) {
		c->preempted = false;
		return;
	}
	if (status == LUA_YIELD && env_is_wait(c->co, n)) {
		lua_pop(c->co, 1);
		c->state = VM_WAITING;
		return;
	}
	if (status == LUA_OK) {
		lua_settop(c->co, 0);
		carrier_finished(c);
		return;
	}
	carrier_fault(c, status);
}

int64_t carrier_deadline(const struct vm_carrier *c)
{
	return c->state == VM_WAITING ? c->wait_until_ms : INT64_MAX;
}

void carrier_over_cpu(struct vm_carrier *c)
{
	char text[96];

	snprintf(text, sizeof text, "limit cpu: used %lld ms of %lld ms",
		(long long)(c->usage[LIMIT_cpu] + c->cpu_us / 1000),
		(long long)c->limit[LIMIT_cpu]);
	send_fault(c, "limit", text, "");
}

void carrier_settle(struct vm_carrier *c)
{
	/* A large heap takes long to go over; it collects itself in time. */
	if (c->used <= SETTLE_MOST)
		lua_gc(c->L, LUA_GCCOLLECT);
	c->settled = c->used;
}

void carrier_fold(struct vm_carrier *c)
{
	if (c->heap.n_pages > FOLD_PAGES_MAX)
		return;
	if (c->used > c->settled)
		lua_gc(c->L, LUA_GCCOLLECT);
	c->settled = c->used;
	arena_fold(&c->heap);
}

void carrier_dropped(struct vm_carrier *c)
{
	heap_drop(c);
	if (sched_cpu_us(c) > c->cpu_most_us)
		carrier_over_cpu(c);
	else
		send_fault(c, "fault",
			"hung: it did not come back from a library function in time", "");
}
