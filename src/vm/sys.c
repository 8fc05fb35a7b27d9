/*
 * The primitives under the prelude: the table `sys`, which only the prelude's functions hold.
 *
 * Arguments come from the prelude, which has checked them; a failure that a carrier can meet is
 * returned as nil, code, text.
 */
#include "vm/vm.h"

#include <lauxlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/text.h"
#include "wire/vmproto.h"

#define POST_SLACK           512 /* of a frame, for what stands around the folder */
#define FAILURE_ELEMENTS_MAX 16

static int push_failure(lua_State *L, int rc, const char *text)
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
	buf_clear(&c->enc);
	c->enc.max = (size_t)c->limit[LIMIT_state];
	if (value_encode(L, 1, &c->enc, &c->port->codec, root)) {
		lua_pushnil(L);
		lua_pushstring(L, c->port->codec.em.text);
		return 2;
	}
	lua_pushlstring(L, (const char *)c->enc.data, c->enc.len);
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

static int sys_bytes(lua_State *L)
{
	luaL_checktype(L, 1, LUA_TSTRING);
	lua_settop(L, 1);
	bytes_mark(L);
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

/* ---- posts */

/* As the kernel counts, a bucket of one second, but filled a little slower: a post that the
 * kernel refuses later is worse for the carrier than one that is refused here. */
static bool bucket_take(struct vm_bucket *k, int64_t per_s)
{
	int64_t now = clock_ms(), most = per_s * 1000;

	if (!k->at_ms || now - k->at_ms > 2000)
		k->level_milli = most;
	else
		k->level_milli += (now - k->at_ms) * per_s * 31 / 32;
	k->at_ms = now;
	if (k->level_milli > most)
		k->level_milli = most;
	if (k->level_milli < 1000)
		return false;
	k->level_milli -= 1000;
	return true;
}

/* One more post with a folder of so many bytes: within the rate and the total? The kernel
 * counts again. */
static int charge(struct vm_carrier *c, size_t bytes)
{
	int64_t sent = c->usage[LIMIT_sent] + c->sent;

	if (c->limit[LIMIT_sent] > 0 && (int64_t)bytes > c->limit[LIMIT_sent] - sent)
		return err_set(&c->port->em, ERR_LIMIT,
			"limit sent: %lld of %lld bytes are used", (long long)sent,
			(long long)c->limit[LIMIT_sent]);
	if (c->limit[LIMIT_posts] > 0 && !bucket_take(&c->posts, c->limit[LIMIT_posts]))
		return err_set(&c->port->em, ERR_LIMIT, "limit posts: %lld in a second",
			(long long)c->limit[LIMIT_posts]);
	c->sent += (int64_t)bytes;
	c->n_posts++;
	return 0;
}

/* The post in port->out from `at` on, its folder from `folder` on, is complete: charge and send
 * it. */
static int send_charged(struct vm_carrier *c, size_t at, size_t folder)
{
	struct buf *b = &c->port->out;
	int rc;

	if (b->failed || b->len - at > FRAME_BYTES_MAX - POST_SLACK)
		rc = err_set(&c->port->em, ERR_TOO_LARGE, "a post may take %u bytes",
			(unsigned)(FRAME_BYTES_MAX - POST_SLACK));
	else
		rc = charge(c, b->len - folder);
	if (rc) {
		port_drop(c->port);
		return rc;
	}
	rc = port_send_later(c->port, at);
	carrier_note_activity(c);
	return rc;
}

/* send(kind, dest, tag, deadline_ms, name, store) -> true, or nil, code, text */
static int send_post(lua_State *L, unsigned kind, uint64_t tag, lua_Integer deadline_ms)
{
	struct vm_carrier *c = carrier_of(L);
	struct buf *b = &c->port->out;
	size_t n_dest, n_name, at, folder;
	const char *dest = luaL_checklstring(L, 2, &n_dest),
		   *name = luaL_checklstring(L, 5, &n_name);

	luaL_checktype(L, 6, LUA_TTABLE);
	at = port_begin(c->port, 5, VM_SEND, c->number);
	cbor_put_uint(b, kind);
	cbor_put_text_n(b, dest, n_dest);
	cbor_put_uint(b, tag);
	cbor_put_uint(b, (uint64_t)deadline_ms);
	folder = b->len;
	cbor_put_array(b, 2);
	cbor_put_text_n(b, name, n_name);
	store_put(L, 6, b);
	return send_charged(c, at, folder);
}

static int sys_send(lua_State *L)
{
	lua_Integer kind = luaL_checkinteger(L, 1), tag = luaL_checkinteger(L, 3);
	int rc;

	if (kind != POST_ONEWAY && !carrier_of(L)->answers)
		return push_failure(
			L, ERR_UNSUPPORTED, "this kernel passes no answers of carriers on");
	rc = send_post(L, (unsigned)kind, (uint64_t)tag, 0);

	if (rc)
		return push_failure(L, rc, carrier_of(L)->port->em.text);
	lua_pushboolean(L, 1);
	return 1;
}

/* ask(_, dest, _, deadline_ms, name, store) -> tag, or nil, code, text */
static int sys_ask(lua_State *L)
{
	struct vm_carrier *c = carrier_of(L);
	lua_Integer deadline_ms = luaL_checkinteger(L, 4);
	struct vm_call *call;
	int rc;

	if (c->n_calls >= VM_CALLS_MAX)
		return push_failure(L, ERR_FULL, "too many questions wait for an answer");
	rc = send_post(L, POST_CALL, c->next_tag, deadline_ms);
	if (rc)
		return push_failure(L, rc, c->port->em.text);
	call = mem_new(struct vm_call);
	call->tag = c->next_tag++;
	call->deadline_ms = clock_ms() + deadline_ms;
	call->next = c->calls;
	c->calls = call;
	c->n_calls++;
	lua_pushinteger(L, (lua_Integer)call->tag);
	return 1;
}

static struct vm_call **call_find(struct vm_carrier *c, uint64_t tag)
{
	struct vm_call **at = &c->calls;

	while (*at && (*at)->tag != tag)
		at = &(*at)->next;
	return at;
}

static void call_drop(struct vm_carrier *c, struct vm_call **at)
{
	struct vm_call *call = *at;

	must(call);
	*at = call->next;
	msg_free(c, call->answer);
	free(call);
	c->n_calls--;
}

/* Pushes `true, name, store`, or nil, code, text of a failure. */
static int push_answer(lua_State *L, const struct vm_msg *m)
{
	struct slice folder = { m->bytes + m->n_sender, m->n_folder };
	struct cbor_cursor c;
	struct slice code, text;

	if (m->kind != POST_FAILURE) {
		lua_pushboolean(L, 1);
		if (folder_push(L, folder))
			return push_failure(L, ERR_MALFORMED, "the answer is malformed");
		return 3;
	}
	cbor_init(&c, folder.p, folder.n);
	cbor_open_array(&c, 2);
	cbor_text(&c, 0, NAME_BYTES_MAX);
	cbor_open_array_max(&c, FAILURE_ELEMENTS_MAX); /* code, text, and the destination */
	code = cbor_text(&c, 0, 64);
	text = cbor_text(&c, 0, FRAME_BYTES_MAX);
	if (c.rc)
		return push_failure(L, ERR_MALFORMED, "the answer is malformed");
	lua_pushnil(L);
	lua_pushlstring(L, (const char *)code.p, code.n);
	lua_pushlstring(L, (const char *)text.p, text.n);
	return 3;
}

/* await(tag) -> true, name, store | nil, code, text */
static int await_more(lua_State *L, int status, lua_KContext ctx)
{
	struct vm_carrier *c = carrier_of(L);
	struct vm_call **at = call_find(c, (uint64_t)luaL_checkinteger(L, 1));
	int n;

	(void)ctx;
	if (!*at)
		return push_failure(L, ERR_STATE, "its answer was taken already");
	if (!(*at)->answer && (*at)->deadline_ms > clock_ms()) {
		/* A second wake-up for another reason would be a bug; wait on. */
		(void)status;
		return env_wait(L, WAIT_CALL, (*at)->tag, (*at)->deadline_ms, await_more);
	}
	n = (*at)->answer ? push_answer(L, (*at)->answer)
			  : push_failure(L, ERR_TIMEOUT, "no answer within the time");
	call_drop(c, call_find(c, (uint64_t)lua_tointeger(L, 1)));
	return n;
}

static int sys_await(lua_State *L)
{
	lua_settop(L, 1);
	return await_more(L, LUA_OK, 0);
}

/* ---- what the kernel answers with DONE */

static int done_more(lua_State *L, int status, lua_KContext ctx)
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

static int wait_done(lua_State *L, uint64_t seq)
{
	return env_wait(L, WAIT_DONE, seq, INT64_MAX, done_more);
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
	at = port_begin(c->port, k->n, k->type, c->number);
	cbor_put_uint(b, seq);
	if (dest)
		cbor_put_text_n(b, dest, n_dest);
	if (kind == KIND_CLONE)
		split_put(L, 2, b);
	cbor_put_raw(b, (struct slice){ c->enc.data, c->enc.len });
	rc = port_send(c->port, at);
	buf_fini(&c->enc);
	if (rc)
		return push_failure(L, rc, "the frozen carrier is larger than a frame");
	c->going = kind == KIND_GO;
	return env_wait(L, WAIT_DONE, seq, INT64_MAX, k->more);
}

static int go_more(lua_State *L, int status, lua_KContext ctx)
{
	carrier_gone_back(carrier_of(L));
	return done_more(L, status, ctx);
}

static int sys_go(lua_State *L)
{
	size_t n;
	const char *dest = luaL_checklstring(L, 1, &n);

	return send_frozen(L, KIND_GO, dest, n);
}

static int sys_checkpoint(lua_State *L)
{
	return send_frozen(L, KIND_CHECKPOINT, NULL, 0);
}

/* clone(dest, split) -> name | nil, code, text */
static int sys_clone(lua_State *L)
{
	size_t n;
	const char *dest = luaL_checklstring(L, 1, &n);

	luaL_checktype(L, 2, LUA_TTABLE);
	lua_settop(L, 2);
	return send_frozen(L, KIND_CLONE, dest, n);
}

/* ---- inboxes */

static uint64_t send_inbox(struct vm_carrier *c, bool open, const char *name, size_t bound)
{
	uint64_t seq = c->next_seq++;
	struct buf *b = &c->port->out;
	size_t at = port_begin(c->port, 4, VM_INBOX, c->number);

	cbor_put_uint(b, seq);
	cbor_put_bool(b, open);
	cbor_put_text(b, name);
	cbor_put_uint(b, bound);
	port_send(c->port, at);
	return seq;
}

static int open_more(lua_State *L, int status, lua_KContext ctx)
{
	struct vm_carrier *c = carrier_of(L);
	size_t n;
	const char *name = luaL_checklstring(L, 1, &n);
	struct vm_inbox *box = carrier_inbox(c, name, n);

	if (c->done_rc && box)
		carrier_drop_inbox(c, box);
	return done_more(L, status, ctx);
}

/* inbox_open(name, bound) -> true | nil, code, text */
static int sys_inbox_open(lua_State *L)
{
	struct vm_carrier *c = carrier_of(L);
	size_t n;
	const char *name = luaL_checklstring(L, 1, &n);
	lua_Integer bound = luaL_checkinteger(L, 2);
	struct vm_inbox *box;

	if (carrier_inbox(c, name, n))
		return push_failure(L, ERR_EXISTS, "it is open already");
	if (c->n_inboxes == VM_INBOXES_MAX)
		return push_failure(L, ERR_FULL, "too many inboxes are open");
	if (!lua_isyieldable(L) || c->unyieldable)
		return luaL_error(L,
			"cannot wait here (inside a metamethod or message handler that C calls)");
	box = mem_new(struct vm_inbox);
	text_copy(box->name, sizeof box->name, name, n);
	box->last = &box->first;
	box->bound = (size_t)bound;
	carrier_add_inbox(c, box); /* now, since folders may come right behind DONE */
	return env_wait(
		L, WAIT_DONE, send_inbox(c, true, box->name, box->bound), INT64_MAX, open_more);
}

/* inbox_close(name) -> true | nil, code, text; what still waits in it is dropped */
static int sys_inbox_close(lua_State *L)
{
	struct vm_carrier *c = carrier_of(L);
	size_t n;
	const char *name = luaL_checklstring(L, 1, &n);
	struct vm_inbox *box = carrier_inbox(c, name, n);

	if (!box)
		return push_failure(L, ERR_CLOSED, "it is closed");
	if (!lua_isyieldable(L) || c->unyieldable)
		return luaL_error(L,
			"cannot wait here (inside a metamethod or message handler that C calls)");
	if (box->n)
		carrier_taken(c, box, box->n);
	carrier_drop_inbox(c, box);
	return wait_done(L, send_inbox(c, false, name, 0));
}

static int push_folder(lua_State *L, struct vm_inbox *box)
{
	struct vm_carrier *c = carrier_of(L);
	struct vm_msg *m = box->first;
	int rc;

	lua_pushlstring(L, (const char *)m->bytes, m->n_sender);
	lua_pushinteger(L, (lua_Integer)(m->kind == POST_CALL ? m->tag : 0));
	rc = folder_push(L, (struct slice){ m->bytes + m->n_sender, m->n_folder });
	/* Only now: an error above leaves the folder where it is. */
	box->first = m->next;
	if (!box->first)
		box->last = &box->first;
	box->n--;
	msg_free(c, m);
	carrier_taken(c, box, 1);
	if (rc)
		return push_failure(L, ERR_MALFORMED, "the folder is malformed");
	return 4;
}

static int next_more(lua_State *L, int status, lua_KContext ctx)
{
	struct vm_carrier *c = carrier_of(L);
	size_t n;
	const char *name = luaL_checklstring(L, 1, &n);
	struct vm_inbox *box = carrier_inbox(c, name, n);

	(void)status;
	(void)ctx;
	if (!box)
		return push_failure(L, ERR_CLOSED, "it is closed");
	if (!box->n)
		return push_failure(L, ERR_TIMEOUT, "nothing came within the time");
	return push_folder(L, box);
}

/* inbox_next(name, timeout_ms) -> sender, tag, folder name, store | nil, code, text */
static int sys_inbox_next(lua_State *L)
{
	struct vm_carrier *c = carrier_of(L);
	size_t n;
	const char *name = luaL_checklstring(L, 1, &n);
	lua_Integer timeout_ms = luaL_checkinteger(L, 2);
	struct vm_inbox *box = carrier_inbox(c, name, n);

	if (!box || box->n || timeout_ms <= 0)
		return next_more(L, LUA_OK, 0);
	c->wait_box = box;
	return env_wait(L, WAIT_INBOX, 0, clock_ms() + timeout_ms, next_more);
}

static int sys_inbox_size(lua_State *L)
{
	size_t n;
	const char *name = luaL_checklstring(L, 1, &n);
	struct vm_inbox *box = carrier_inbox(carrier_of(L), name, n);

	lua_pushinteger(L, box ? (lua_Integer)box->n : 0);
	return 1;
}

/* ---- time and log */

static int sleep_more(lua_State *L, int status, lua_KContext ctx)
{
	(void)L;
	(void)status;
	(void)ctx;
	return 0;
}

static int sys_sleep(lua_State *L)
{
	lua_Integer ms = luaL_checkinteger(L, 1);

	return env_wait(L, WAIT_SLEEP, 0, clock_ms() + ms, sleep_more);
}

static int sys_now(lua_State *L)
{
	lua_pushnumber(L, (lua_Number)clock_wall_ms() / 1000);
	return 1;
}

static int sys_clock(lua_State *L)
{
	lua_pushnumber(L, (lua_Number)clock_us() / 1e6);
	return 1;
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

/* log(text) -> true | nil, code, text */
static int sys_log(lua_State *L)
{
	struct vm_carrier *c = carrier_of(L);
	size_t n, at;
	const char *text = luaL_checklstring(L, 1, &n);

	if (!bucket_take(&c->logs, VM_LOGS_PER_S)) {
		c->dropped_logs++;
		return push_failure(L, ERR_LIMIT, "too many lines in this second");
	}
	at = port_begin(c->port, 2, VM_LOG, c->number);
	cbor_put_uint(&c->port->out, LOG_INFO);
	line_put(&c->port->out, text, n);
	port_send(c->port, at);
	carrier_note_activity(c);
	lua_pushboolean(L, 1);
	return 1;
}

/* ---- about itself */

static void set_text(lua_State *L, const char *key, const char *text)
{
	lua_pushstring(L, text);
	lua_setfield(L, -2, key);
}

static int sys_about(lua_State *L)
{
	const struct vm_carrier *c = carrier_of(L);

	lua_createtable(L, 0, 8);
	set_text(L, "name", c->name);
	set_text(L, "owner", c->owner);
	set_text(L, "home", c->home);
	set_text(L, "kernel", c->kernel);
	set_text(L, "entry", c->entry);
	if (c->parent[0])
		set_text(L, "parent", c->parent);
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

static int sys_limits(lua_State *L)
{
	const struct vm_carrier *c = carrier_of(L);

	lua_createtable(L, 0, LIMIT_COUNT);
	for (int i = 0; i < LIMIT_COUNT; i++)
		set_amount(L, (enum limit_id)i, c->limit[i]);
	return 1;
}

static int sys_usage(lua_State *L)
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
	const char *name = luaL_checkstring(L, 1), *text;
	size_t n;

	lua_settop(L, 2);
	lua_getfield(L, LUA_REGISTRYINDEX, REG_FILES);
	lua_pushvalue(L, 1);
	lua_rawget(L, 3);
	text = lua_tolstring(L, 4, &n);
	if (!text) {
		lua_pushnil(L);
		return 1;
	}
	if (chunk_compile(L, text, n, name) != LUA_OK)
		return lua_error(L);
	if (lua_istable(L, 2)) { /* a chunk's one upvalue is its globals */
		lua_pushvalue(L, 2);
		if (!lua_setupvalue(L, -2, 1))
			lua_pop(L, 1);
	}
	return 1;
}

static int sys_archive(lua_State *L)
{
	struct vm_carrier *c = carrier_of(L);

	buf_clear(&c->enc);
	c->enc.max = (size_t)c->limit[LIMIT_state];
	briefcase_put(L, &c->enc);
	if (c->enc.failed)
		return push_failure(L, ERR_LIMIT, "limit state: the briefcase is larger");
	lua_pushlstring(L, (const char *)c->enc.data, c->enc.len);
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
HOST(bytes)
HOST(send)
HOST(ask)
HOST(await)
HOST(go)
HOST(checkpoint)
HOST(clone)
HOST(inbox_open)
HOST(inbox_close)
HOST(inbox_next)
HOST(sleep)
HOST(log)
HOST(archive)
HOST(compile)
HOST(unarchive)
/* clang-format on */

void sys_open(lua_State *L)
{
	static const luaL_Reg functions[] = { { "encode", host_encode },
		{ "decode", sys_decode }, { "bytes", host_bytes }, { "utf8", sys_utf8 },
		{ "box", sys_box }, { "unbox", sys_unbox }, { "send", host_send },
		{ "ask", host_ask }, { "await", host_await }, { "go", host_go },
		{ "checkpoint", host_checkpoint }, { "clone", host_clone },
		{ "inbox_open", host_inbox_open }, { "inbox_close", host_inbox_close },
		{ "inbox_next", host_inbox_next }, { "inbox_size", sys_inbox_size },
		{ "sleep", host_sleep }, { "now", sys_now }, { "clock", sys_clock },
		{ "log", host_log }, { "about", sys_about }, { "limits", sys_limits },
		{ "usage", sys_usage }, { "compile", host_compile },
		{ "archive", host_archive }, { "unarchive", host_unarchive }, { NULL, NULL } };

	luaL_newlib(L, functions);
	lua_getfield(L, LUA_REGISTRYINDEX, REG_BRIEFCASE);
	lua_setfield(L, -2, "stores");
	lua_getfield(L, LUA_REGISTRYINDEX, REG_SEALS);
	lua_setfield(L, -2, "seals");
	lua_getfield(L, LUA_REGISTRYINDEX, REG_PATH);
	lua_setfield(L, -2, "path");
	lua_getfield(L, LUA_REGISTRYINDEX, REG_FILES);
	lua_setfield(L, -2, "files");
	lua_pushlightuserdata(L, NULL);
	lua_setfield(L, -2, "null");
}
