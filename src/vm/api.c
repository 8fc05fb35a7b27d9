/*
 * The carrier's API but for its folders: posts and questions, inboxes, moves, time, log, and what
 * a carrier is told about itself. doc/guide/carrier-api.md is the reference; folders, the briefcase
 * and require are the prelude's.
 *
 * All are plain functions, of which a carrier that does not use them has nothing. What has an
 * identity (an inbox, a folder that came, a question) is userdata whose metatable no carrier can
 * get hold of: what it holds can be trusted.
 *
 * `host` is set where C memory of ours is being changed, and never where Lua code of the carrier
 * may run: in its metamethods.
 */
#include "vm/libs.h"
#include "vm/vm.h"

#include <lauxlib.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/text.h"
#include "wire/vmproto.h"

#define POST_SLACK           512 /* of a frame, for what stands around the folder */
#define FAILURE_ELEMENTS_MAX 16
#define CALL_TIMEOUT_S       30 /* where none is given: every wait has a deadline */
#define INBOX_TIMEOUT_S      60
#define WAIT_MOST_S          (366.0 * 86400)
#define INBOX_NAME_MAX       63
#define INBOX_BOUND_MAX      65536

/* ---- objects */

struct object_kind {
	const char *name;
	const luaL_Reg *meta;
};

/* Pushes their metatable. */
static void kind_push(lua_State *L, const struct object_kind *kind)
{
	if (lua_rawgetp(L, LUA_REGISTRYINDEX, kind) == LUA_TTABLE)
		return;
	lua_pop(L, 1);
	lua_createtable(L, 0, 6);
	luaL_setfuncs(L, kind->meta, 0);
	lua_pushstring(L, kind->name);
	lua_pushvalue(L, -1);
	lua_setfield(L, -3, "__name");
	lua_setfield(L, -2, "__metatable");
	lua_pushvalue(L, -1);
	lua_rawsetp(L, LUA_REGISTRYINDEX, kind);
}

static void *object_new(lua_State *L, const struct object_kind *kind, size_t bytes)
{
	void *o = lua_newuserdatauv(L, bytes, 0);

	memset(o, 0, bytes);
	kind_push(L, kind);
	lua_setmetatable(L, -2);
	return o;
}

/* NULL: something else. */
static void *object_of(lua_State *L, int index, const struct object_kind *kind)
{
	void *o = NULL;

	if (lua_type(L, index) != LUA_TUSERDATA || !lua_getmetatable(L, index))
		return NULL;
	lua_rawgetp(L, LUA_REGISTRYINDEX, kind);
	if (lua_rawequal(L, -1, -2))
		o = lua_touserdata(L, index);
	lua_pop(L, 2);
	return o;
}

/* Pushes the method that the key at 2 names, or nil. */
static int method_push(lua_State *L, const luaL_Reg *methods)
{
	const char *key = lua_type(L, 2) == LUA_TSTRING ? lua_tostring(L, 2) : "";

	while (methods->name && strcmp(methods->name, key) != 0)
		methods++;
	if (methods->name)
		lua_pushcfunction(L, methods->func);
	else
		lua_pushnil(L);
	return 1;
}

/* ---- arguments */

static bool printable(struct slice s, uint8_t from)
{
	for (size_t i = 0; i < s.n; i++)
		if (s.p[i] < from || s.p[i] > 0x7e)
			return false;
	return true;
}

static struct slice text_arg(lua_State *L, int index)
{
	struct slice s = { NULL, 0 };

	if (lua_type(L, index) == LUA_TSTRING)
		s.p = (const uint8_t *)lua_tolstring(L, index, &s.n);
	return s;
}

static struct slice check_dest(lua_State *L, int index)
{
	struct slice s = text_arg(L, index);

	if (s.n < 1 || s.n > NAME_BYTES_MAX || !printable(s, 0x21))
		luaL_error(L, "a destination is a string like \"Echo\" or \"host1/Echo\"");
	return s;
}

struct slice check_folder_name(lua_State *L, int index, int level)
{
	struct slice s = text_arg(L, index);
	bool text = s.p != NULL;

	if (!text || s.n > NAME_BYTES_MAX || !printable(s, 0x20)) {
		luaL_where(L, level);
		if (text)
			lua_pushliteral(
				L, "a folder's name is at most 128 printable ASCII characters");
		else
			lua_pushfstring(L, "a folder's name must be a string, not a %s",
				luaL_typename(L, index));
		lua_concat(L, 2);
		lua_error(L);
	}
	return s;
}

/* s, in ms */
static lua_Integer check_time(lua_State *L, int index, double otherwise_s)
{
	double s = otherwise_s;

	if (!lua_isnoneornil(L, index)) {
		s = lua_type(L, index) == LUA_TNUMBER ? lua_tonumber(L, index) : -1;
		if (!(s >= 0))
			luaL_error(L, "a time must be a number of seconds, 0 or more");
	}
	if (s > WAIT_MOST_S)
		s = WAIT_MOST_S;
	return (lua_Integer)(s * 1000 + 0.5);
}

static void check_options(lua_State *L, int index)
{
	if (!lua_isnoneornil(L, index) && !lua_istable(L, index))
		luaL_error(L, "options must be a table such as { name = \"TASK\" }");
}

/* ---- a folder to post, from a value */

/* Of the items of a table that has no others but 1..n; 0: it is none such. */
static lua_Integer sequence_length(lua_State *L, int index)
{
	lua_Integer n = (lua_Integer)lua_rawlen(L, index), count = 0;

	if (n == 0)
		return 0;
	lua_pushnil(L);
	while (lua_next(L, index)) {
		lua_pop(L, 1);
		count++;
		if (!lua_isinteger(L, -1)) { /* the rest can't make it right */
			lua_pop(L, 1);
			return 0;
		}
	}
	return count == n ? n : 0;
}

static int values_put(lua_State *L, int index, bool spread, struct buf *b, struct codec *k)
{
	lua_Integer n = spread && lua_istable(L, index) ? sequence_length(L, index) : 0;
	char root[48];
	int rc = 0;

	cbor_put_array(b, n ? (uint64_t)n : 1);
	if (!n)
		return value_encode(L, index, b, k, spread ? "the element" : "the value");
	for (lua_Integer i = 1; i <= n && !rc; i++) {
		lua_rawgeti(L, index, i);
		rc = value_encode(L, lua_gettop(L), b, k, "");
		if (rc == ERR_UNSUPPORTED) { /* once more, for its name */
			snprintf(root, sizeof root, "element %lld", (long long)i);
			value_encode(L, lua_gettop(L), b, k, root);
		}
		lua_pop(L, 1);
	}
	return rc;
}

/* The elements of what stands at `value`, as an array, in port->enc; a name comes from the folder, or the
 * options. Raises errors. */
static struct slice elements_encode(lua_State *L, int value, int options, bool spread)
{
	struct vm_carrier *c = carrier_of(L);
	struct buf *b = &c->port->enc;
	struct slice name = { (const uint8_t *)"", 0 };
	bool named = false;

	luaL_checkstack(L, 12, NULL);
	if (!lua_isnoneornil(L, options)) {
		named = lua_getfield(L, options, "name") != LUA_TNIL; /* stays on the stack */
		if (named)
			name = check_folder_name(L, -1, 1);
	}
	vm_sched.host = 1;
	buf_clear(b);
	b->max = (size_t)c->limit[LIMIT_state];
	if (folder_store(L, value)) {
		if (!named && lua_getfield(L, -1, "name") == LUA_TSTRING)
			name = text_arg(L, -1);
		store_put(L, named ? -1 : -2, b);
	} else if (values_put(L, value, spread, b, &c->port->codec)) {
		vm_sched.host = 0;
		luaL_error(L, "%s", c->port->codec.em.text);
	}
	vm_sched.host = 0;
	return name;
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

/* A post of the folder `name` whose elements are in port->enc; 0, or what failed, in em. */
static int post_send(struct vm_carrier *c, unsigned kind, struct slice dest, uint64_t tag,
	lua_Integer deadline_ms, struct slice name)
{
	struct buf *b = &c->port->out;
	size_t at = port_begin(c->port, 5, VM_SEND, c->number), folder;
	int rc;

	cbor_put_uint(b, kind);
	cbor_put_text_n(b, (const char *)dest.p, dest.n);
	cbor_put_uint(b, tag);
	cbor_put_uint(b, (uint64_t)deadline_ms);
	folder = b->len;
	cbor_put_array(b, 2);
	cbor_put_text_n(b, (const char *)name.p, name.n);
	cbor_put_raw(b, (struct slice){ c->port->enc.data, c->port->enc.len });
	if (c->port->enc.failed || b->failed || b->len - at > FRAME_BYTES_MAX - POST_SLACK)
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

static int post_failure(lua_State *L, int rc)
{
	return push_failure(L, rc, carrier_of(L)->port->em.text);
}

/* tos.post(dest, value, options) -> true, or nil, code, text */
int api_post(lua_State *L)
{
	struct slice dest, name;
	int rc;

	lua_settop(L, 3);
	dest = check_dest(L, 1);
	check_options(L, 3);
	name = elements_encode(L, 2, 3, false);
	vm_sched.host = 1;
	rc = post_send(carrier_of(L), POST_ONEWAY, dest, 0, 0, name);
	vm_sched.host = 0;
	if (rc)
		return post_failure(L, rc);
	lua_pushboolean(L, 1);
	return 1;
}

/* ---- questions */

static const struct object_kind request_kind;

struct request {
	uint64_t tag;
};

/* tos.call and tos.ask alike: 0 and the tag, or results are pushed: their number */
static int ask(lua_State *L, uint64_t *tag)
{
	struct vm_carrier *c = carrier_of(L);
	struct slice dest, name;
	lua_Integer deadline_ms;
	struct vm_call *call;
	int rc;

	lua_settop(L, 4);
	dest = check_dest(L, 1);
	check_options(L, 4);
	deadline_ms = check_time(L, 3, CALL_TIMEOUT_S);
	name = elements_encode(L, 2, 4, true);
	if (c->n_calls >= VM_CALLS_MAX)
		return push_failure(L, ERR_FULL, "too many questions wait for an answer");
	vm_sched.host = 1;
	rc = post_send(c, POST_CALL, dest, c->next_tag, deadline_ms, name);
	if (rc) {
		vm_sched.host = 0;
		return post_failure(L, rc);
	}
	call = mem_new(struct vm_call);
	*tag = call->tag = c->next_tag++;
	call->deadline_ms = clock_ms() + deadline_ms;
	call->next = c->calls;
	c->calls = call;
	c->n_calls++;
	vm_sched.host = 0;
	return 0;
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

/* Push the values of an array's elements; their number, or ERR_MALFORMED. */
static int elements_push(lua_State *L, struct slice array)
{
	struct cbor_cursor c;
	uint64_t n;

	cbor_init(&c, array.p, array.n);
	n = cbor_open_array_max(&c, array.n);
	if (n > LUAI_MAXSTACK / 2)
		return ERR_MALFORMED;
	luaL_checkstack(L, (int)n + 1, "too many elements");
	for (uint64_t i = 0; i < n; i++) {
		struct slice item = cbor_any(&c);

		if (c.rc || value_decode(L, item))
			return ERR_MALFORMED;
	}
	return (int)n;
}

/* A failure's code and text are its folder's first elements. */
static int failure_push(lua_State *L, struct slice folder)
{
	struct cbor_cursor c;
	struct slice code, text;

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

/* The answer's elements, true where there are none, or nil, code, text of a failure. */
static int answer_push(lua_State *L, const struct vm_msg *m)
{
	struct slice folder = { m->bytes + m->n_sender, m->n_folder }, elements;
	struct cbor_cursor c;
	int n, top = lua_gettop(L);

	if (m->kind == POST_FAILURE)
		return failure_push(L, folder);
	cbor_init(&c, folder.p, folder.n);
	cbor_open_array(&c, 2);
	cbor_text(&c, 0, NAME_BYTES_MAX);
	elements = cbor_any(&c);
	n = c.rc ? ERR_MALFORMED : elements_push(L, elements);
	if (n < 0) {
		lua_settop(L, top);
		return push_failure(L, ERR_MALFORMED, "the answer is malformed");
	}
	if (n > 0)
		return n;
	lua_pushboolean(L, 1);
	return 1;
}

/* ctx: the question's tag */
static int await_more(lua_State *L, int status, lua_KContext ctx)
{
	struct vm_carrier *c = carrier_of(L);
	struct vm_call **at = call_find(c, (uint64_t)ctx);
	int n;

	(void)status;
	if (!*at)
		return push_failure(L, ERR_STATE, "its answer was taken already");
	/* A second wake-up for another reason would be a bug; wait on. */
	if (!(*at)->answer && (*at)->deadline_ms > clock_ms())
		return env_wait(L, WAIT_CALL, (*at)->tag, (*at)->deadline_ms, ctx, await_more);
	vm_sched.host = 1;
	n = (*at)->answer ? answer_push(L, (*at)->answer)
			  : push_failure(L, ERR_TIMEOUT, "no answer within the time");
	call_drop(c, call_find(c, (uint64_t)ctx));
	vm_sched.host = 0;
	return n;
}

/* tos.call(dest, value, timeout_s, options) -> value... | nil, code, text */
int api_call(lua_State *L)
{
	uint64_t tag = 0;
	int n = ask(L, &tag);

	return n ? n : await_more(L, LUA_OK, (lua_KContext)tag);
}

/* Ask now, wait later: several questions can be on their way at once. */
int api_ask(lua_State *L)
{
	uint64_t tag = 0;
	int n = ask(L, &tag);

	if (n)
		return n;
	((struct request *)object_new(L, &request_kind, sizeof(struct request)))->tag = tag;
	return 1;
}

int api_await(lua_State *L)
{
	const struct request *r = object_of(L, 1, &request_kind);

	if (!r)
		return luaL_error(L, "this needs what tos.ask gave");
	return await_more(L, LUA_OK, (lua_KContext)r->tag);
}

static int request_index(lua_State *L)
{
	static const luaL_Reg methods[] = { { "await", api_await }, { NULL, NULL } };

	return method_push(L, methods);
}

static const luaL_Reg request_meta[] = { { "__index", request_index }, { NULL, NULL } };
static const struct object_kind request_kind = { "request", request_meta };

/* ---- a folder that came: what it holds is read when it is asked for */

static const struct object_kind mail_kind;

struct mail {
	uint64_t tag; /* 0: no answer is wanted, or one was given */
	uint64_t n;   /* elements */
	uint32_t n_sender, n_name, n_elements, n_owner, n_class;
	uint8_t bytes[]; /* sender, name, the elements' array, owner, class */
};

static struct mail *mail_arg(lua_State *L)
{
	struct mail *m = object_of(L, 1, &mail_kind);

	if (!m)
		luaL_error(L, "this needs a folder that came; call it with a colon");
	return m;
}

static struct slice mail_elements(const struct mail *m)
{
	return (struct slice){ m->bytes + m->n_sender + m->n_name, m->n_elements };
}

/* Push what the message holds; ERR_MALFORMED: nothing. */
static int mail_push(lua_State *L, const struct vm_msg *msg)
{
	struct cbor_cursor c;
	struct slice name, elements;
	struct mail *m;

	cbor_init(&c, msg->bytes + msg->n_sender, msg->n_folder);
	cbor_open_array(&c, 2);
	name = cbor_text(&c, 0, NAME_BYTES_MAX);
	elements = cbor_any(&c);
	cbor_close(&c);
	if (cbor_finish(&c))
		return ERR_MALFORMED;
	cbor_init(&c, elements.p, elements.n);
	uint64_t n = cbor_open_array_max(&c, elements.n);

	if (c.rc)
		return ERR_MALFORMED;
	m = object_new(L, &mail_kind,
		sizeof *m + msg->n_sender + name.n + elements.n + msg->n_owner + msg->n_class);
	m->tag = msg->kind == POST_CALL ? msg->tag : 0;
	m->n = n;
	m->n_sender = (uint32_t)msg->n_sender;
	m->n_name = (uint32_t)name.n;
	m->n_elements = (uint32_t)elements.n;
	if (msg->n_sender)
		memcpy(m->bytes, msg->bytes, msg->n_sender);
	memcpy(m->bytes + m->n_sender, name.p, name.n);
	memcpy(m->bytes + m->n_sender + m->n_name, elements.p, elements.n);
	m->n_owner = (uint32_t)msg->n_owner;
	m->n_class = (uint32_t)msg->n_class;
	memcpy(m->bytes + m->n_sender + m->n_name + elements.n,
		msg->bytes + msg->n_sender + msg->n_folder, msg->n_owner + msg->n_class);
	return 0;
}

/* tos.inbox's m:answer(value, options) */
static int mail_answer(lua_State *L)
{
	struct vm_carrier *c = carrier_of(L);
	struct mail *m;
	struct slice name;
	int rc;

	lua_settop(L, 3);
	m = mail_arg(L);
	if (m->tag == 0)
		return push_failure(L, ERR_STATE, "its sender does not wait for an answer");
	check_options(L, 3);
	name = elements_encode(L, 2, 3, true);
	if (lua_isnil(L, 3))
		name = (struct slice){ (const uint8_t *)"ok", 2 };
	if (!c->answers)
		return push_failure(
			L, ERR_UNSUPPORTED, "this kernel passes no answers of carriers on");
	vm_sched.host = 1;
	rc = post_send(
		c, POST_ANSWER, (struct slice){ m->bytes, m->n_sender }, m->tag, 0, name);
	vm_sched.host = 0;
	if (rc)
		return post_failure(L, rc);
	m->tag = 0;
	lua_pushboolean(L, 1);
	return 1;
}

/* m:refuse(code, text) */
static int mail_refuse(lua_State *L)
{
	struct vm_carrier *c = carrier_of(L);
	struct buf *b = &c->port->enc;
	uint64_t tag;
	struct mail *m;
	int rc;

	lua_settop(L, 3);
	m = mail_arg(L);
	if (m->tag == 0)
		return push_failure(L, ERR_STATE, "its sender does not wait for an answer");
	for (int i = 2; i <= 3; i++) {
		if (!lua_toboolean(L, i))
			lua_pushstring(L, i == 2 ? "refused" : "");
		else
			luaL_tolstring(L, i, NULL);
	}
	tag = m->tag; /* a __tostring may have answered */
	m->tag = 0;
	if (tag == 0)
		return push_failure(L, ERR_STATE, "its sender does not wait for an answer");
	if (!c->answers)
		return push_failure(
			L, ERR_UNSUPPORTED, "this kernel passes no answers of carriers on");
	vm_sched.host = 1;
	buf_clear(b);
	b->max = (size_t)c->limit[LIMIT_state];
	cbor_put_array(b, 2);
	for (int i = 4; i <= 5; i++)
		value_encode(L, i, b, &c->port->codec, "the element");
	rc = post_send(c, POST_FAILURE, (struct slice){ m->bytes, m->n_sender }, tag, 0,
		(struct slice){ (const uint8_t *)"failure", 7 });
	vm_sched.host = 0;
	if (rc)
		return post_failure(L, rc);
	lua_pushboolean(L, 1);
	return 1;
}

/* false, as nothing, is nil */
static int mail_data(lua_State *L, const struct mail *m)
{
	struct slice elements = mail_elements(m);
	struct cbor_cursor c;

	cbor_init(&c, elements.p, elements.n);
	if (cbor_open_array_max(&c, elements.n) == 0)
		return 0;
	if (value_decode(L, cbor_any(&c)))
		return luaL_error(L, "an element is malformed");
	return lua_toboolean(L, -1) ? 1 : 0;
}

static int mail_list(lua_State *L, const struct mail *m)
{
	struct slice elements = mail_elements(m);
	struct cbor_cursor c;

	cbor_init(&c, elements.p, elements.n);
	cbor_open_array_max(&c, elements.n);
	lua_createtable(L, m->n < 1024 ? (int)m->n : 1024, 0);
	for (uint64_t i = 1; i <= m->n; i++) {
		if (value_decode(L, cbor_any(&c)))
			return luaL_error(L, "an element is malformed");
		lua_rawseti(L, -2, (lua_Integer)i);
	}
	return 1;
}

/* What the kernel does not know is nil. */
static void push_known(lua_State *L, const uint8_t *p, size_t n)
{
	if (n)
		lua_pushlstring(L, (const char *)p, n);
	else
		lua_pushnil(L);
}

static int mail_index(lua_State *L)
{
	static const luaL_Reg methods[] = { { "answer", mail_answer },
		{ "refuse", mail_refuse }, { NULL, NULL } };
	const struct mail *m = mail_arg(L);
	const char *key = lua_type(L, 2) == LUA_TSTRING ? lua_tostring(L, 2) : "";

	if (strcmp(key, "data") == 0)
		return mail_data(L, m);
	if (strcmp(key, "elements") == 0)
		return mail_list(L, m);
	if (strcmp(key, "sender") == 0)
		lua_pushlstring(L, (const char *)m->bytes, m->n_sender);
	else if (strcmp(key, "name") == 0)
		lua_pushlstring(L, (const char *)m->bytes + m->n_sender, m->n_name);
	else if (strcmp(key, "wants_answer") == 0)
		lua_pushboolean(L, m->tag != 0);
	else if (strcmp(key, "owner") == 0)
		push_known(L, mail_elements(m).p + m->n_elements, m->n_owner);
	else if (strcmp(key, "class") == 0)
		push_known(L, mail_elements(m).p + m->n_elements + m->n_owner, m->n_class);
	else
		return method_push(L, methods);
	return 1;
}

static int mail_newindex(lua_State *L)
{
	return luaL_error(L, "a folder that came can't be changed");
}

static int mail_len(lua_State *L)
{
	lua_pushinteger(L, (lua_Integer)mail_arg(L)->n);
	return 1;
}

static const luaL_Reg mail_meta[] = { { "__index", mail_index },
	{ "__newindex", mail_newindex }, { "__len", mail_len }, { NULL, NULL } };
static const struct object_kind mail_kind = { "mail", mail_meta };

/* ---- inboxes */

static const struct object_kind inbox_kind;

struct inbox_ref {
	char name[INBOX_NAME_MAX + 1];
};

static const char *inbox_arg(lua_State *L)
{
	const struct inbox_ref *i = object_of(L, 1, &inbox_kind);

	if (!i)
		luaL_error(L, "this needs an inbox; call it with a colon, as in inbox:next(2)");
	return i->name;
}

static struct vm_inbox *inbox_find(lua_State *L)
{
	const char *name = inbox_arg(L);

	return carrier_inbox(carrier_of(L), name, strlen(name));
}

static void check_wait(lua_State *L)
{
	if (!lua_isyieldable(L) || carrier_of(L)->unyieldable)
		luaL_error(L,
			"cannot wait here (inside a metamethod or message handler that C calls)");
}

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

/* On the stack: the object. */
static int open_more(lua_State *L, int status, lua_KContext ctx)
{
	struct vm_carrier *c = carrier_of(L);
	struct vm_inbox *box = inbox_find(L);

	if (c->done_rc) {
		vm_sched.host = 1;
		if (box)
			carrier_drop_inbox(c, box);
		vm_sched.host = 0;
		return done_more(L, status, ctx);
	}
	lua_settop(L, 1);
	return 1;
}

static bool inbox_name_ok(struct slice s)
{
	for (size_t i = 0; i < s.n; i++) {
		uint8_t b = s.p[i];

		if (!((b >= '0' && b <= '9') || (b >= 'a' && b <= 'z') ||
			    (b >= 'A' && b <= 'Z') || b == '_' || b == '-' || b == '.'))
			return false;
	}
	return s.n >= 1 && s.n <= INBOX_NAME_MAX;
}

/* tos.inbox(name, bound) */
int api_inbox(lua_State *L)
{
	struct vm_carrier *c = carrier_of(L);
	struct slice name;
	lua_Integer bound;
	struct vm_inbox *box;
	uint64_t seq;

	lua_settop(L, 2);
	name = text_arg(L, 1);
	if (!inbox_name_ok(name))
		return luaL_error(
			L, "an inbox's name is 1 to 63 letters, digits, '_', '-' or '.'");
	bound = lua_toboolean(L, 2) ? -1 : c->limit[LIMIT_inbox];
	if (lua_isinteger(L, 2) && lua_type(L, 2) == LUA_TNUMBER)
		bound = lua_tointeger(L, 2);
	if (bound < 1 || bound > INBOX_BOUND_MAX)
		return luaL_error(L, "an inbox's bound is a number of folders, 1 to 65536");
	if (carrier_inbox(c, (const char *)name.p, name.n))
		return push_failure(L, ERR_EXISTS, "it is open already");
	if (c->n_inboxes == VM_INBOXES_MAX)
		return push_failure(L, ERR_FULL, "too many inboxes are open");
	check_wait(L);
	struct inbox_ref *ref = object_new(L, &inbox_kind, name.n + 1);

	memcpy(ref->name, name.p, name.n);
	lua_replace(L, 1);
	vm_sched.host = 1;
	box = mem_new(struct vm_inbox);
	text_copy(box->name, sizeof box->name, ref->name, name.n);
	box->last = &box->first;
	box->bound = (size_t)bound;
	carrier_add_inbox(c, box); /* now, since folders may come right behind DONE */
	seq = send_inbox(c, true, box->name, box->bound);
	return env_wait(L, WAIT_DONE, seq, INT64_MAX, 0, open_more);
}

static int folder_taken(lua_State *L, struct vm_inbox *box)
{
	struct vm_carrier *c = carrier_of(L);
	struct vm_msg *m = box->first;
	int rc;

	vm_sched.host = 1;
	rc = mail_push(L, m);
	/* Only now: an error above leaves the folder where it is. */
	box->first = m->next;
	if (!box->first)
		box->last = &box->first;
	box->n--;
	msg_free(c, m);
	carrier_taken(c, box, 1);
	vm_sched.host = 0;
	if (rc)
		return push_failure(L, ERR_MALFORMED, "the folder is malformed");
	return 1;
}

static int next_more(lua_State *L, int status, lua_KContext ctx)
{
	struct vm_inbox *box = inbox_find(L);

	(void)status;
	(void)ctx;
	if (!box)
		return push_failure(L, ERR_CLOSED, "it is closed");
	if (!box->n)
		return push_failure(L, ERR_TIMEOUT, "nothing came within the time");
	return folder_taken(L, box);
}

static int next_within(lua_State *L, lua_Integer timeout_ms)
{
	struct vm_inbox *box = inbox_find(L);

	if (!box || box->n || timeout_ms <= 0)
		return next_more(L, LUA_OK, 0);
	carrier_of(L)->wait_box = box;
	return env_wait(L, WAIT_INBOX, 0, clock_ms() + timeout_ms, 0, next_more);
}

/* inbox:next(timeout_s) -> folder | nil, code, text */
static int inbox_next(lua_State *L)
{
	inbox_arg(L);
	return next_within(L, check_time(L, 2, INBOX_TIMEOUT_S));
}

static int inbox_poll(lua_State *L)
{
	return next_within(L, 0);
}

static int inbox_size(lua_State *L)
{
	struct vm_inbox *box = inbox_find(L);

	lua_pushinteger(L, box ? (lua_Integer)box->n : 0);
	return 1;
}

/* What still waits in it is dropped. */
static int inbox_close(lua_State *L)
{
	struct vm_carrier *c = carrier_of(L);
	const char *name = inbox_arg(L);
	struct vm_inbox *box = inbox_find(L);
	uint64_t seq;

	if (!box)
		return push_failure(L, ERR_CLOSED, "it is closed");
	check_wait(L);
	vm_sched.host = 1;
	if (box->n)
		carrier_taken(c, box, box->n);
	carrier_drop_inbox(c, box);
	seq = send_inbox(c, false, name, 0);
	return env_wait(L, WAIT_DONE, seq, INT64_MAX, 0, done_more);
}

static int inbox_name(lua_State *L)
{
	lua_pushstring(L, inbox_arg(L));
	return 1;
}

static int inbox_index(lua_State *L)
{
	static const luaL_Reg methods[] = { { "next", inbox_next }, { "poll", inbox_poll },
		{ "size", inbox_size }, { "close", inbox_close }, { "name", inbox_name },
		{ NULL, NULL } };

	return method_push(L, methods);
}

static int inbox_tostring(lua_State *L)
{
	lua_pushfstring(L, "inbox \"%s\"", inbox_arg(L));
	return 1;
}

static const luaL_Reg inbox_meta[] = { { "__index", inbox_index }, { "__len", inbox_size },
	{ "__tostring", inbox_tostring }, { NULL, NULL } };
static const struct object_kind inbox_kind = { "inbox", inbox_meta };

/* ---- moving, time, log */

static struct slice check_kernel(lua_State *L, size_t most, const char *what)
{
	struct slice s = { (const uint8_t *)"", 0 };

	if (lua_isnil(L, 1))
		return s;
	s = text_arg(L, 1);
	if (!s.p || s.n > most || !printable(s, 0x21))
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
