/*
 * Posts and questions: a folder made of a value, the carrier's rates, and answers. What answers hold
 * until they are taken is C memory of the carrier's (struct vm_call).
 */
#include "vm/api.h"
#include "vm/libs.h"
#include "vm/vm.h"

#include <lauxlib.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "wire/vmproto.h"

#define POST_SLACK           512 /* of a frame, for what stands around the folder */
#define FAILURE_ELEMENTS_MAX 16
#define CALL_TIMEOUT_S       30 /* where none is given: every wait has a deadline */

static struct slice check_dest(lua_State *L, int index)
{
	struct slice s = text_arg(L, index);

	if (s.n < 1 || s.n > NAME_BYTES_MAX || !text_printable(s, 0x21))
		luaL_error(L, "a destination is a string like \"Echo\" or \"host1/Echo\"");
	return s;
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
struct slice elements_encode(lua_State *L, int value, int options, bool spread)
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
bool bucket_take(struct vm_bucket *k, int64_t per_s)
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
int post_send(struct vm_carrier *c, unsigned kind, struct slice dest, uint64_t tag,
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

int post_failure(lua_State *L, int rc)
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
