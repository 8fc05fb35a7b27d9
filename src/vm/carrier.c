/*
 * One carrier: its memory, its start, its turns, its end.
 *
 * Its Lua heap is counted against its cap by our allocator. What comes for it while it does
 * something else waits in C memory, counted in `held`.
 */
#include "vm/code.h"
#include "vm/libs.h"
#include "vm/vm.h"

#include <lauxlib.h>
#include <stdlib.h>
#include <string.h>
#include <stdio.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/text.h"
#include "wire/vmproto.h"

#define FAULT_GRACE_BYTES ((size_t)512 << 10) /* above the cap, to say what went wrong */
#define HEAP_SLACK        ((size_t)256 << 10) /* what is left over in slabs; small heaps */
#define SETTLE_MOST       ((size_t)1 << 20)
#define FOLD_PAGES_MAX                                                                         \
	32 /* folding takes some 100 us for each 4 KiB, and who runs waits for it */
#define USAGE_EACH_MS       200
#define ENVELOPE_SLACK      ((size_t)64 << 10)
#define NUMBER_MAX          (INT64_MAX / 4096)
#define CARRIER_CAP_DEFAULT ((size_t)16 << 20)

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

/* Without asking Lua, which may have been left anywhere. It has no finalizers. */
static void heap_drop(struct vm_carrier *c)
{
	c->L = c->co = NULL;
	c->used = 0;
	arena_drop(&c->heap);
}

static size_t msg_bytes(const struct vm_msg *m)
{
	return sizeof *m + m->n_sender + m->n_folder + m->n_owner + m->n_class;
}

void msg_free(struct vm_carrier *c, struct vm_msg *m)
{
	if (!m)
		return;
	c->held -= msg_bytes(m);
	free(m);
}

static void calls_free(struct vm_carrier *c)
{
	while (c->calls) {
		struct vm_call *next = c->calls->next;

		msg_free(c, c->calls->answer);
		free(c->calls);
		c->calls = next;
	}
}

void carrier_free(struct vm_carrier *c)
{
	if (!c)
		return;
	sched_forget(c);
	heap_drop(c);
	code_unref(c->code);
	calls_free(c);
	while (c->n_inboxes)
		carrier_drop_inbox(c, c->inbox[0]);
	free(c->inbox);
	free(c->done_text);
	free(c);
}

/* ---- inboxes */

struct vm_inbox *carrier_inbox(struct vm_carrier *c, const char *name, size_t n)
{
	for (size_t i = 0; i < c->n_inboxes; i++)
		if (strlen(c->inbox[i]->name) == n && memcmp(c->inbox[i]->name, name, n) == 0)
			return c->inbox[i];
	return NULL;
}

void carrier_add_inbox(struct vm_carrier *c, struct vm_inbox *box)
{
	if (c->n_inboxes == c->cap_inboxes) {
		size_t cap = c->cap_inboxes ? 2 * c->cap_inboxes : 2;
		struct vm_inbox **more = mem_zero(cap * sizeof(struct vm_inbox *));

		if (c->n_inboxes)
			memcpy(more, c->inbox, c->n_inboxes * sizeof(struct vm_inbox *));
		free(c->inbox);
		c->inbox = more;
		c->cap_inboxes = cap;
	}
	c->inbox[c->n_inboxes++] = box;
}

void carrier_drop_inbox(struct vm_carrier *c, struct vm_inbox *box)
{
	while (box->first) {
		struct vm_msg *next = box->first->next;

		msg_free(c, box->first);
		box->first = next;
	}
	for (size_t i = 0; i < c->n_inboxes; i++)
		if (c->inbox[i] == box)
			c->inbox[i] = c->inbox[--c->n_inboxes];
	free(box);
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
	port_send(c->port, at);
	c->usage_sent_ms = clock_ms();
	c->cpu_told_us = cpu;
}

void carrier_note_activity(struct vm_carrier *c)
{
	if (clock_ms() - c->usage_sent_ms >= USAGE_EACH_MS)
		carrier_send_usage(c);
}

static void send_fault(
	struct vm_carrier *c, const char *code, const char *text, const char *trace)
{
	bool frozen = c->L && carrier_freeze(c, c->L) == 0;
	struct buf *b = &c->port->out;
	size_t at;

	carrier_send_usage(c);
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

/* ---- freezing */

static void put_stores_key(lua_State *L, const char *name, int *index)
{
	lua_getfield(L, LUA_REGISTRYINDEX, name);
	*index = lua_gettop(L);
}

void store_put(lua_State *L, int index, struct buf *b)
{
	lua_Integer first, last;

	index = lua_absindex(L, index);
	luaL_checkstack(L, 4, NULL);
	lua_getfield(L, index, "first");
	lua_getfield(L, index, "last");
	first = lua_tointeger(L, -2);
	last = lua_tointeger(L, -1);
	lua_pop(L, 2);
	cbor_put_array(b, (uint64_t)(last - first + 1));
	for (lua_Integer i = first; i <= last; i++) {
		size_t n = 0;
		const char *s;

		lua_rawgeti(L, index, i);
		s = lua_tolstring(L, -1, &n);
		cbor_put_raw(b, (struct slice){ (const uint8_t *)s, n });
		lua_pop(L, 1);
	}
}

struct name {
	const char *s; /* held by the table */
	size_t n;
};

/* The order of the encoded texts: shorter first, then bytewise. */
static int name_compare(const void *a, const void *b)
{
	const struct name *x = a, *y = b;

	if (x->n != y->n)
		return x->n < y->n ? -1 : 1;
	return memcmp(x->s, y->s, x->n);
}

void briefcase_put(lua_State *L, struct buf *b)
{
	size_t n = 0, at = 0;
	struct name *names;
	int t;

	luaL_checkstack(L, 10, NULL);
	put_stores_key(L, REG_BRIEFCASE, &t);
	for (lua_pushnil(L); lua_next(L, t); lua_pop(L, 1))
		n++;
	names = lua_newuserdatauv(L, (n + 1) * sizeof *names, 0);
	for (lua_pushnil(L); lua_next(L, t); lua_pop(L, 1)) {
		names[at].s = lua_tolstring(L, -2, &names[at].n);
		at++;
	}
	qsort(names, n, sizeof *names, name_compare);
	cbor_put_map(b, n);
	for (size_t i = 0; i < n; i++) {
		cbor_put_text_n(b, names[i].s, names[i].n);
		lua_pushlstring(L, names[i].s, names[i].n);
		lua_rawget(L, t);
		store_put(L, -1, b);
		lua_pop(L, 1);
	}
	lua_settop(L, t - 1);
}

static int freeze_body(lua_State *L)
{
	struct vm_carrier *c = carrier_of(L);
	size_t most = (size_t)c->limit[LIMIT_state];
	int t;

	buf_clear(&c->port->enc_state);
	c->port->enc_state.max = most + ENVELOPE_SLACK;
	put_stores_key(L, REG_SELF, &t);
	c->freeze_rc = state_encode(L, t, &c->port->enc_state, &c->port->codec, "self");
	if (c->freeze_rc) {
		bool large = c->port->enc_state.failed;

		err_set(&c->port->em, c->freeze_rc, "%s%s", large ? "limit state: " : "",
			c->port->codec.em.text);
		if (large)
			c->freeze_rc = ERR_LIMIT;
		return 0;
	}
	/* In the deterministic order of the keys' encodings. */
	cbor_put_map(&c->port->enc, 3);
	cbor_put_text(&c->port->enc, "path");
	put_stores_key(L, REG_PATH, &t);
	store_put(L, t, &c->port->enc);
	cbor_put_text(&c->port->enc, "state");
	cbor_put_bytes(&c->port->enc, c->port->enc_state.data, c->port->enc_state.len);
	cbor_put_text(&c->port->enc, "briefcase");
	briefcase_put(L, &c->port->enc);
	if (c->port->enc.failed || c->port->enc.len > most)
		c->freeze_rc = err_set(&c->port->em, ERR_LIMIT,
			"limit state: self, briefcase and path take more than %zu bytes", most);
	return 0;
}

int carrier_freeze(struct vm_carrier *c, lua_State *L)
{
	c->freeze_rc = 0;
	buf_clear(&c->port->enc);
	c->port->enc.max = (size_t)c->limit[LIMIT_state] + ENVELOPE_SLACK;
	if (!lua_checkstack(L, 8))
		return err_set(&c->port->em, ERR_LIMIT, "limit memory: no room to freeze it");
	lua_pushcfunction(L, freeze_body);
	if (lua_pcall(L, 0, 0, 0) != LUA_OK) {
		lua_pop(L, 1);
		c->freeze_rc =
			err_set(&c->port->em, ERR_LIMIT, "limit memory: no room to freeze it");
	}
	buf_fini(&c->port->enc_state);
	return c->freeze_rc;
}

/* ---- START */

struct start {
	struct slice briefcase, bundle, path, seals, state;
	char failure_code[65], failure_text[ERRMSG_BYTES];
	bool has_failure;
};

int store_push(lua_State *L, struct slice array, bool only_text)
{
	struct cbor_cursor c;
	lua_Integer bytes = 0;
	uint64_t n;
	int top = lua_gettop(L);

	cbor_init(&c, array.p, array.n);
	n = cbor_open_array_max(&c, array.n);
	lua_createtable(L, n < 1024 ? (int)n : 1024, 4);
	for (uint64_t i = 1; i <= n && !c.rc; i++) {
		enum cbor_kind kind = cbor_peek(&c);
		struct slice item = cbor_any(&c);

		if (only_text && kind != CBOR_TEXT)
			cbor_fail(&c, ERR_MALFORMED);
		if (c.rc)
			break;
		lua_pushlstring(L, (const char *)item.p, item.n);
		lua_rawseti(L, -2, (lua_Integer)i);
		bytes += (lua_Integer)item.n;
	}
	cbor_close(&c);
	if (cbor_finish(&c)) {
		lua_settop(L, top);
		return ERR_MALFORMED;
	}
	lua_pushinteger(L, 1);
	lua_setfield(L, -2, "first");
	lua_pushinteger(L, (lua_Integer)n);
	lua_setfield(L, -2, "last");
	lua_pushinteger(L, bytes);
	lua_setfield(L, -2, "bytes");
	return 0;
}

int folder_push(lua_State *L, struct slice folder)
{
	struct cbor_cursor c;
	struct slice name, elements;
	int rc;

	cbor_init(&c, folder.p, folder.n);
	cbor_open_array(&c, 2);
	name = cbor_text(&c, 0, NAME_BYTES_MAX);
	elements = cbor_any(&c);
	cbor_close(&c);
	rc = cbor_finish(&c);
	if (rc)
		return rc;
	lua_pushlstring(L, (const char *)name.p, name.n);
	rc = store_push(L, elements, false);
	if (rc)
		lua_pop(L, 1);
	return rc;
}

static bool folder_name_ok(struct slice name)
{
	for (size_t i = 0; i < name.n; i++)
		if (name.p[i] < 0x20 || name.p[i] > 0x7e)
			return false;
	return name.n <= NAME_BYTES_MAX;
}

int briefcase_push(lua_State *L, struct slice map)
{
	struct cbor_cursor c;
	uint64_t n;
	int top = lua_gettop(L);

	cbor_init(&c, map.p, map.n);
	n = cbor_open_map_max(&c, map.n);
	lua_newtable(L);
	for (uint64_t i = 0; i < n && !c.rc; i++) {
		struct slice name = cbor_text(&c, 0, NAME_BYTES_MAX), elements = cbor_any(&c);

		if (c.rc)
			break;
		if (!folder_name_ok(name)) {
			cbor_fail(&c, ERR_NAME);
			break;
		}
		lua_pushlstring(L, (const char *)name.p, name.n);
		if (store_push(L, elements, false)) {
			cbor_fail(&c, ERR_MALFORMED);
			break;
		}
		lua_rawset(L, -3);
	}
	cbor_close(&c);
	if (cbor_finish(&c)) {
		lua_settop(L, top);
		return ERR_MALFORMED;
	}
	return 0;
}

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

static const char *error_code(const struct vm_carrier *c, int status, const char *text)
{
	if (status == LUA_ERRMEM || (c->refused && strstr(text, "not enough memory")))
		return "limit";
	return "fault";
}

static int64_t cpu_most_us(const struct vm_carrier *c)
{
	return c->limit[LIMIT_cpu] > 0 ? (c->limit[LIMIT_cpu] - c->usage[LIMIT_cpu]) * 1000
				       : INT64_MAX;
}

int carrier_start(
	struct vm_port *port, uint64_t number, struct cbor_cursor *cur, struct vm_carrier **out)
{
	struct vm_carrier *c = mem_new(struct vm_carrier);
	struct start s;
	int rc, status;

	arena_init(&c->heap);
	list_init(&c->queue);
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
	c->L = lua_newstate(carrier_alloc, c);
	*out = c;
	if (!c->L) {
		send_fault(c, "limit", "limit memory: too small for a carrier to start in", "");
		return 0;
	}
	*(struct vm_carrier **)lua_getextraspace(c->L) = c;
#ifdef TOS_HOSTILE
	lua_gc(c->L, LUA_GCINC, 1, 1000, 1); /* a collector that hardly rests */
#endif
	lua_pushcfunction(c->L, load_body);
	lua_pushlightuserdata(c->L, &s);
	status = lua_pcall(c->L, 1, 0, 0);
	if (status == LUA_OK) {
		size_t at = port_begin(port, 0, VM_STARTED, number);

		port_send(port, at);
		sched_wake(c);
		return 0;
	}
	c->cap += FAULT_GRACE_BYTES;
	const char *text = lua_tostring(c->L, -1);
	const char *code = error_code(c, status, text ? text : "");
	char line[ERRMSG_BYTES];

	/* Nothing of it ran; a freeze would lose what it came with. The kernel has that still.
	 */
	snprintf(line, sizeof line, "%s%s", strcmp(code, "limit") == 0 ? "limit memory: " : "",
		text ? text : "could not be loaded");
	heap_drop(c);
	send_fault(c, code, line, "");
	return 0;
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

static void carrier_finished(struct vm_carrier *c)
{
	int rc = carrier_freeze(c, c->L);
	struct errmsg why;
	size_t at;

	if (!rc) {
		carrier_send_usage(c);
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

/* ---- frames for it */

/* A folder that there is no room for is answered where somebody asked, and counted. */
static void refuse_folder(
	struct vm_carrier *c, unsigned kind, struct slice sender, uint64_t tag)
{
	struct buf *b = &c->port->out;
	size_t at;

	c->dropped_folders++;
	if (kind != POST_CALL || !sender.n || c->going || !c->answers)
		return;
	at = port_begin(c->port, 5, VM_SEND, c->number);
	cbor_put_uint(b, POST_FAILURE);
	cbor_put_text_n(b, (const char *)sender.p, sender.n);
	cbor_put_uint(b, tag);
	cbor_put_uint(b, 0);
	cbor_put_array(b, 2);
	cbor_put_text(b, "failure");
	cbor_put_array(b, 2);
	cbor_put_text(b, err_word(ERR_FULL));
	cbor_put_text(b, "the carrier has no room for it");
	port_send_later(c->port, at);
}

static void msg_part(struct vm_msg *m, size_t *at, struct slice part)
{
	if (part.n)
		memcpy(m->bytes + *at, part.p, part.n);
	*at += part.n;
}

static struct vm_msg *msg_new(
	struct vm_carrier *c, unsigned kind, uint64_t tag, const struct slice part[4])
{
	size_t bytes = sizeof(struct vm_msg) + part[0].n + part[1].n + part[2].n + part[3].n;
	size_t at = 0;
	struct vm_msg *m;

	if (bytes > c->cap || c->held > c->cap - bytes)
		return NULL;
	m = mem_try(bytes);
	if (!m)
		return NULL;
	c->held += bytes;
	m->next = NULL;
	m->kind = kind;
	m->tag = tag;
	m->n_sender = part[0].n;
	m->n_folder = part[1].n;
	m->n_owner = part[2].n;
	m->n_class = part[3].n;
	for (int i = 0; i < 4; i++)
		msg_part(m, &at, part[i]);
	return m;
}

static void deliver_answer(struct vm_carrier *c, struct vm_msg *m)
{
	for (struct vm_call *call = c->calls; call && m; call = call->next)
		if (call->tag == m->tag && !call->answer) {
			call->answer = m;
			if (c->state == VM_WAITING && c->wait == WAIT_CALL &&
				c->wait_id == m->tag)
				sched_wake(c);
			return;
		}
	msg_free(c, m); /* nobody waits for it any more */
}

void carrier_taken(struct vm_carrier *c, struct vm_inbox *box, uint64_t n)
{
	size_t at;

	box->n_owed += n;
	if (c->going || !box->n_owed)
		return;
	at = port_begin(c->port, 2, VM_TAKEN, c->number);
	cbor_put_text(&c->port->out, box->name);
	cbor_put_uint(&c->port->out, box->n_owed);
	port_send_later(c->port, at);
	box->n_owed = 0;
}

void carrier_gone_back(struct vm_carrier *c)
{
	c->going = false;
	for (size_t i = 0; i < c->n_inboxes; i++)
		carrier_taken(c, c->inbox[i], 0);
}

int carrier_deliver(struct vm_carrier *c, struct cbor_cursor *cur)
{
	unsigned kind = (unsigned)cbor_uint(cur, POST_FAILURE);
	struct slice inbox = cbor_text(cur, 0, NAME_BYTES_MAX),
		     sender = cbor_text(cur, 0, NAME_BYTES_MAX);
	uint64_t tag = cbor_uint(cur, UINT64_MAX);
	struct slice folder = cbor_any(cur), owner = cbor_text(cur, 0, NAME_BYTES_MAX),
		     class_word = cbor_text(cur, 0, 32);
	struct vm_inbox *box;
	struct vm_msg *m;
	int rc;

	cbor_close(cur);
	rc = cbor_finish(cur);
	if (rc || c->state == VM_ENDED)
		return rc;
	m = msg_new(c, kind, tag, (const struct slice[]){ sender, folder, owner, class_word });
	if (inbox.n == 0) {
		deliver_answer(c, m);
		return 0;
	}
	box = carrier_inbox(c, (const char *)inbox.p, inbox.n);
	if (!box || box->n >= box->bound || !m) {
		msg_free(c, m);
		refuse_folder(c, kind, sender, tag);
		if (box)
			carrier_taken(c, box, 1);
		return 0;
	}
	*box->last = m;
	box->last = &m->next;
	box->n++;
	if (c->state == VM_WAITING && c->wait == WAIT_INBOX && c->wait_box == box)
		sched_wake(c);
	return 0;
}

int carrier_done(struct vm_carrier *c, struct cbor_cursor *cur)
{
	uint64_t seq = cbor_uint(cur, UINT64_MAX);
	struct slice code = cbor_text(cur, 0, 64), text = cbor_text(cur, 0, FRAME_BYTES_MAX);
	int rc;

	cbor_any(cur);
	cbor_close(cur);
	rc = cbor_finish(cur);
	if (rc || c->state != VM_WAITING || c->wait != WAIT_DONE || c->wait_id != seq)
		return rc;
	c->done_rc = code.n ? err_from_word((const char *)code.p, code.n) : 0;
	free(c->done_text);
	c->done_text = NULL;
	if (text.n) {
		c->done_text = mem_zero(text.n + 1);
		memcpy(c->done_text, text.p, text.n);
	}
	sched_wake(c);
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
