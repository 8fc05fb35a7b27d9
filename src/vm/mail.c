/*
 * Inboxes, and the folders that come in them: what one holds is read when it is asked for. The folders
 * that wait are C memory of the carrier's (struct vm_inbox).
 */
#include "vm/api.h"
#include "vm/libs.h"
#include "vm/vm.h"

#include <lauxlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/text.h"
#include "wire/vmproto.h"

#define INBOX_TIMEOUT_S 60
#define INBOX_BOUND_MAX 65536

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
