/*
 * The kernel's side of one isolated extension: the conversation of wire/extproto.h with its
 * tos-ext, and its lives. Nothing that comes from there is believed: a wrong frame ends that
 * process, and the next one begins after a back-off.
 */
#include <stdlib.h>
#include <string.h>

#include <tos/value.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/map.h"
#include "base/mem.h"
#include "base/text.h"
#include "ext/host.h"
#include "wire/extproto.h"

#define BACK_OFF_FIRST_MS 100
#define BACK_OFF_MOST_MS  10000
#define STEADY_MS         30000 /* a life that long begins the back-off anew */
#define SPAWN_MS          10000 /* for tosd to give us a process, and for that to be ready */
#define DEATH_MS          5000  /* for the report of a death after the socket's end */
#define HELD_BYTES_MAX    ((size_t)4 << 20)
#define STOP_LINGER_MS    500
#define HELLO_MEMORY      ((size_t)1 << 20)

static void on_state_timer(void *arg);

static bool attached(const struct ext *e)
{
	return e->state == EXT_GREETING || e->state == EXT_STARTING || e->state == EXT_READY;
}

static void state_timer(struct ext *e, int64_t ms)
{
	if (e->timer)
		timer_again(e->timer, (uint64_t)ms);
	else
		e->timer = timer_start(e->host->loop, (uint64_t)ms, 0, on_state_timer, e);
}

void remote_drop(struct ext *e)
{
	struct stream *s = e->stream, *last = e->last;

	e->stream = e->last = NULL;
	if (s)
		stream_close(s);
	if (last)
		stream_close(last);
}

/* What was delivered to it and not answered. A life that was never ready was given nothing:
 * what is held then waits for the next one. */
static void lose_what_it_had(struct ext *e, const char *why)
{
	char text[320];
	uint64_t lost = 0;

	for (size_t i = 0; i < e->decl->n_inboxes; i++)
		lost += e->decl->inbox[i].waiting;
	if (lost)
		e->host->cb->count(e->host->arg, e->name, "folders_lost", lost);
	decl_emptied(e->decl);
	snprintf(text, sizeof(text), "extension %s restarts: %s", e->name, why);
	ext_fail_all(e, ERR_UNKNOWN, text);
}

/* Of one that is replaced or removed: what it had taken is lost, all else goes to its heir. */
static void last_life_over(struct ext *e, const char *why)
{
	char text[320];

	if (e->heir)
		swap_lost(e, why);
	snprintf(text, sizeof(text), "extension %s ended: %s", e->name, why);
	ext_fail_all(e, ERR_UNKNOWN, text);
	swap_leave(e);
}

static void why_set(struct ext *e, const char *why)
{
	snprintf(e->why, sizeof(e->why), "%s", why);
	text_mend(e->why);
}

/* Its start() refused, or what it declares is not acceptable: not to be tried again. */
static void remote_broken(struct ext *e, int rc, const char *why)
{
	remote_drop(e);
	if (!e->process_gone)
		e->host->cb->kill(e->host->arg, e->key);
	e->state = EXT_BROKEN;
	why_set(e, why);
	ext_fail_all(e, ERR_NO_INBOX, why);
	decl_free(e->decl);
	e->decl = NULL;
	buf_fini(&e->held);
	if (e->host->cb->ready)
		e->host->cb->ready(e->host->arg, e->key, rc, why);
}

/* This life is over; tell whoever waited for it, and wait for the next. */
static void remote_down(struct ext *e, const char *why, bool awaiting_death)
{
	bool was_ready = e->state == EXT_READY;

	remote_drop(e);
	if (e->heir || e->retiring) {
		last_life_over(e, why);
		return;
	}
	if (e->hidden && !e->publishing) {
		remote_broken(e, ERR_CLOSED, why);
		return;
	}
	if (was_ready && clock_ms() - e->ready_at > STEADY_MS)
		e->back_off_ms = 0;
	e->back_off_ms = e->back_off_ms ? e->back_off_ms * 2 : BACK_OFF_FIRST_MS;
	if (e->back_off_ms > BACK_OFF_MOST_MS)
		e->back_off_ms = BACK_OFF_MOST_MS;
	e->state = EXT_WAITING;
	e->pid = 0;
	e->restarts++;
	e->awaiting_death = awaiting_death;
	e->back_off_over = false;
	why_set(e, why);
	state_timer(e, e->back_off_ms);
	log_notice("extension lost", KV_STR("extension", e->name), KV_STR("reason", why),
		KV_INT("next_ms", e->back_off_ms));

	if (was_ready)
		lose_what_it_had(e, why);
	if (e->host->cb->lost)
		e->host->cb->lost(e->host->arg, e->key, why);
}

/* End a process of ours that misbehaved. */
static void remote_end(struct ext *e, const char *why)
{
	e->host->cb->kill(e->host->arg, e->key);
	remote_down(e, why, true);
}

void remote_spawn(struct ext *e)
{
	int rc;

	e->state = EXT_SPAWNING;
	e->awaiting_death = false;
	e->process_gone = false;
	state_timer(e, SPAWN_MS);
	rc = e->host->cb->spawn(e->host->arg, e->key);
	e->process_gone = rc < 0;
	if (rc < 0)
		remote_down(e, err_text(rc), false);
}

static void on_state_timer(void *arg)
{
	struct ext *e = TAGGED(arg, struct ext, EXT_TAG);

	if (e->last)
		remote_drop(e);
	if (e->host->closing)
		return;
	switch (e->state) {
	case EXT_WAITING:
		if (e->awaiting_death && !e->back_off_over) {
			e->back_off_over = true;
			state_timer(e, DEATH_MS);
			return;
		}
		remote_spawn(e);
		return;
	case EXT_SPAWNING:
		remote_down(e, "no process was given within 10 s", false);
		return;
	case EXT_GREETING:
	case EXT_STARTING:
		remote_end(e, "it was not ready within 10 s");
		return;
	default:
		return;
	}
}

void remote_died(struct ext *e, const char *why)
{
	if (attached(e) || e->state == EXT_SPAWNING) {
		remote_down(e, why, false);
	} else if (e->state == EXT_WAITING && e->awaiting_death) {
		e->awaiting_death = false;
		why_set(e, why);
		if (e->back_off_over)
			state_timer(e, 0);
	}
}

/* ---- frames out ---- */

static int remote_write(struct ext *e, struct buf *b)
{
	int rc = buf_check(b);

	return rc < 0 ? rc : stream_send(e->stream, b->data, b->len);
}

static void put_info(struct buf *b, const struct tos_value *info)
{
	uint8_t *p = NULL;
	size_t n;

	if (!info || tos_encode(info, &p, &n) < 0)
		cbor_put_map(b, 0);
	else
		cbor_put_raw(b, (struct slice){ p, n });
	free(p);
}

/* What can't be sent now is for its next life. */
static int send_or_hold(struct ext *e, const uint8_t *p, size_t n)
{
	if (e->state == EXT_READY)
		return stream_send(e->stream, p, n);
	if (e->held.len + n > HELD_BYTES_MAX)
		return ERR_FULL;
	return buf_add(&e->held, p, n);
}

/* One that is being replaced is given nothing more: what comes is for its heir. */
static int deliver_and_keep(
	struct ext *e, struct decl_inbox *in, uint64_t token, const struct buf *frame)
{
	struct kept *kept = mem_try(sizeof(*kept) + frame->len);

	if (!kept)
		return ERR_NOMEM;
	kept->token = token;
	kept->n = frame->len;
	memcpy(kept->frame, frame->data, frame->len);
	if (!e->heir)
		return remote_redeliver(e, in, kept);
	in->unsent++;
	decl_kept(in, kept);
	return 0;
}

int remote_deliver(struct ext *e, const char *inbox, const struct post *p, uint64_t token,
	uint32_t deadline_ms, const struct tos_value *info)
{
	AUTOBUF b = BUF_MAX(EXT_FRAME_BYTES_MAX);
	size_t at = frame_begin(&b);

	cbor_put_array(&b, 7);
	cbor_put_uint(&b, EXT_DELIVER);
	cbor_put_text(&b, inbox);
	cbor_put_text_n(&b, (const char *)p->sender.p, p->sender.n);
	cbor_put_uint(&b, token);
	cbor_put_uint(&b, deadline_ms);
	put_info(&b, info);
	cbor_put_raw(&b, p->folder);
	frame_end(&b, at);
	if (buf_check(&b) < 0)
		return ERR_TOO_LARGE;
	if (!e->keep)
		return send_or_hold(e, b.data, b.len);
	return deliver_and_keep(e, decl_inbox_find(e->decl, inbox), token, &b);
}

int remote_redeliver(struct ext *e, struct decl_inbox *in, struct kept *kept)
{
	int rc = send_or_hold(e, kept->frame, kept->n);

	if (rc < 0)
		free(kept);
	else
		decl_kept(in, kept);
	return rc;
}

int remote_drain(struct ext *e)
{
	AUTOBUF b = BUF_INIT;
	size_t at = frame_begin(&b);

	cbor_put_array(&b, 1);
	cbor_put_uint(&b, EXT_DRAIN);
	frame_end(&b, at);
	return remote_write(e, &b);
}

void remote_answer(struct ext *e, uint64_t seq, enum post_kind kind, struct slice folder)
{
	AUTOBUF b = BUF_MAX(EXT_FRAME_BYTES_MAX);
	size_t at;

	if (seq < e->first_seq || seq > e->last_seq || !e->stream)
		return; /* an earlier life asked */
	at = frame_begin(&b);
	cbor_put_array(&b, 4);
	cbor_put_uint(&b, EXT_ANSWER);
	cbor_put_uint(&b, seq);
	cbor_put_uint(&b, kind);
	cbor_put_raw(&b, folder);
	frame_end(&b, at);
	if (remote_write(e, &b) < 0)
		e->host->cb->count(e->host->arg, e->name, "answers_lost", 1);
}

/* What it declares and what it was granted: the configuration may grant more than it asks for. */
static bool has_privilege(const struct ext *e, const char *word)
{
	return body_privileges_ok(word, e->decl->privileges, NULL) == 0 &&
	       body_privileges_ok(word, e->privileges, NULL) == 0;
}

int remote_connected(struct ext *e, uint64_t number, int rc, const char *text, int fd)
{
	AUTOBUF b = BUF_MAX(EXT_FRAME_BYTES_MAX);
	char whole[EXT_TEXT_BYTES_MAX + 1];
	size_t at = frame_begin(&b);

	cbor_put_array(&b, 4);
	cbor_put_uint(&b, EXT_CONNECTED);
	cbor_put_uint(&b, number);
	cbor_put_int(&b, rc);
	snprintf(whole, sizeof(whole), "%s", text);
	text_mend(whole);
	cbor_put_text(&b, whole);
	frame_end(&b, at);
	if (buf_check(&b) < 0)
		return ERR_NOMEM;
	if (rc == 0) {
		rc = stream_send_fd(e->stream, b.data, b.len, fd);
		e->watching += rc == 0;
		e->handed += rc == 0;
		return rc;
	}
	return stream_send(e->stream, b.data, b.len);
}

static int send_start(struct ext *e)
{
	AUTOBUF b = BUF_INIT;
	struct tos_value *v = tos_map(), *properties = tos_map(), *outside;
	size_t at = frame_begin(&b), n;
	uint8_t *p = NULL;
	int rc;

	for (size_t i = 0; i < e->decl->n_properties; i++)
		if (!e->decl->property[i].read_only)
			tos_set(properties, e->decl->property[i].path,
				tos_text(e->decl->property[i].value));
	tos_set(v, "kernel", tos_text(e->host->kernel));
	tos_set(v, "properties", properties);
	tos_set(v, "seq", tos_int((int64_t)e->first_seq));
	outside = e->host->cb->outside && has_privilege(e, "net-out")
			  ? e->host->cb->outside(e->host->arg, e->name)
			  : NULL;
	for (size_t i = 0; i < tos_len(outside); i++)
		tos_set(v, tos_as_text(tos_key_at(outside, i), ""),
			tos_value_copy(tos_value_at(outside, i)));
	tos_value_free(outside);
	rc = tos_encode(v, &p, &n);
	tos_value_free(v);
	if (rc < 0)
		return rc;
	cbor_put_array(&b, 2);
	cbor_put_uint(&b, EXT_START);
	cbor_put_raw(&b, (struct slice){ p, n });
	frame_end(&b, at);
	free(p);
	return remote_write(e, &b);
}

int remote_set(struct ext *e, const char *path, const char *value)
{
	AUTOBUF b = BUF_INIT;
	size_t at = frame_begin(&b);

	cbor_put_array(&b, 3);
	cbor_put_uint(&b, EXT_SET);
	cbor_put_text(&b, path);
	cbor_put_text(&b, value);
	frame_end(&b, at);
	return remote_write(e, &b);
}

void remote_stop(struct ext *e)
{
	AUTOBUF b = BUF_INIT;
	struct stream *s = e->stream;
	size_t at;

	e->stream = NULL;
	if (!s)
		return;
	at = frame_begin(&b);
	cbor_put_array(&b, 1);
	cbor_put_uint(&b, EXT_STOP);
	frame_end(&b, at);
	stream_send(s, b.data, b.len);
	e->last = s;
	state_timer(e, STOP_LINGER_MS);
}

/* ---- frames in: each returns 0 or a negative error, after which the sender is ended ---- */

/* A text of a frame as a C string: no NUL within. */
static void text_read(struct cbor_cursor *c, char *dst, size_t cap)
{
	struct slice s = cbor_text(c, 0, cap - 1);

	if (!c->rc && s.n && memchr(s.p, 0, s.n))
		cbor_fail(c, ERR_MALFORMED);
	if (c->rc || text_copy(dst, cap, (const char *)s.p, s.n) < 0)
		dst[0] = 0;
}

static int frame_done(struct cbor_cursor *c)
{
	cbor_close(c);
	return cbor_finish(c);
}

static int folder_ok(struct slice folder)
{
	struct slice name;
	uint64_t n;

	return folder_check(folder, &name, &n);
}

static int on_hello(struct ext *e, struct cbor_cursor *c)
{
	struct slice item = cbor_any(c);
	struct tos_value *hello = NULL;
	struct errmsg em = { "" };
	int rc = frame_done(c);

	if (!rc)
		rc = tos_decode(item.p, item.n, HELLO_MEMORY, &hello);
	if (rc < 0)
		return rc;
	rc = ext_register(e, hello, &em);
	tos_value_free(hello);
	if (rc < 0) {
		remote_broken(e, rc, em.text);
		return 0;
	}
	if (has_privilege(e, "net-in") && e->host->cb->listen)
		rc = e->host->cb->listen(e->host->arg, e->name, &em);
	if (rc < 0) {
		/* Who has the address may go. */
		if (e->hidden && !e->publishing)
			remote_broken(e, rc, em.text);
		else
			remote_end(e, em.text);
		return 0;
	}
	e->state = EXT_STARTING;
	return send_start(e);
}

static int on_started(struct ext *e, struct cbor_cursor *c)
{
	int rc = frame_done(c);

	if (rc < 0)
		return rc;
	e->state = EXT_READY;
	e->ready_at = clock_ms();
	if (e->held.len)
		rc = stream_send(e->stream, e->held.data, e->held.len);
	buf_fini(&e->held);
	if (rc < 0)
		return rc;
	if (e->host->cb->ready)
		e->host->cb->ready(e->host->arg, e->key, 0, "");
	return 0;
}

static int on_failed(struct ext *e, struct cbor_cursor *c)
{
	int64_t code = cbor_int(c);
	char text[EXT_TEXT_BYTES_MAX + 1];
	int rc;

	text_read(c, text, sizeof(text));
	rc = frame_done(c);
	if (rc < 0 || code >= 0 || code < -255)
		return ERR_MALFORMED;
	remote_broken(e, (int)code, text);
	return 0;
}

static int on_drained(struct ext *e, struct cbor_cursor *c)
{
	int rc = frame_done(c);

	if (rc < 0 || !e->heir)
		return ERR_MALFORMED;
	swap_drained(e);
	return 0;
}

static int on_send(struct ext *e, struct cbor_cursor *c)
{
	enum post_kind kind = (enum post_kind)cbor_uint(c, POST_CALL);
	char dest[NAME_BYTES_MAX + 1];
	uint64_t seq;
	uint32_t deadline_ms;
	struct slice folder;
	struct errmsg em = { "" };
	int rc;

	text_read(c, dest, sizeof(dest));
	seq = cbor_uint(c, INT64_MAX);
	deadline_ms = (uint32_t)cbor_uint(c, UINT32_MAX);
	folder = cbor_any(c);
	rc = frame_done(c);
	if (rc < 0 || !*dest || folder_ok(folder) < 0)
		return ERR_MALFORMED;
	if (kind == POST_ONEWAY ? seq != 0 : seq <= e->last_seq)
		return ERR_MALFORMED;
	if (kind == POST_CALL) {
		if (seq >= e->first_seq + ((uint64_t)1 << 32))
			return ERR_MALFORMED;
		e->last_seq = seq;
	}
	rc = ext_send(e, kind, dest, seq, deadline_ms, folder, &em);
	if (rc < 0 && kind == POST_CALL && e->stream) {
		AUTOBUF b = BUF_INIT;
		struct tos_value *word = tos_text(err_word(rc)),
				 *text = tos_text(err_show(rc, &em));
		const struct tos_value *both[2] = { word, text };

		folder_encode(&b, "failure", both, 2);
		remote_answer(e, seq, POST_FAILURE, (struct slice){ b.data, b.len });
		tos_value_free(word);
		tos_value_free(text);
	}
	return 0;
}

/* A token that is not in the table may have expired a moment ago; one never given out is a lie.
 */
static bool token_given(const struct ext *e, uint64_t token)
{
	return token > 0 && token < e->next_token;
}

static int on_reply(struct ext *e, struct cbor_cursor *c)
{
	uint64_t token = cbor_uint(c, UINT64_MAX);
	struct slice folder = cbor_any(c);
	int rc = frame_done(c);

	if (rc < 0 || !token_given(e, token) || folder_ok(folder) < 0)
		return ERR_MALFORMED;
	ext_reply(e, token, POST_ANSWER, folder);
	return 0;
}

static int on_fail(struct ext *e, struct cbor_cursor *c)
{
	uint64_t token = cbor_uint(c, UINT64_MAX);
	int64_t code = cbor_int(c);
	char text[EXT_TEXT_BYTES_MAX + 1];
	int rc;

	text_read(c, text, sizeof(text));
	rc = frame_done(c);
	if (rc < 0 || !token_given(e, token) || code >= 0 || code < -255)
		return ERR_MALFORMED;
	ext_fail(e, token, (int)code, text);
	return 0;
}

static int on_forward(struct ext *e, struct cbor_cursor *c)
{
	uint64_t token = cbor_uint(c, UINT64_MAX);
	char kernel[64];
	int rc;

	text_read(c, kernel, sizeof(kernel));
	rc = frame_done(c);
	if (rc < 0 || !token_given(e, token) || !*kernel)
		return ERR_MALFORMED;
	rc = ext_forward(e, token, kernel);
	if (rc < 0)
		ext_fail(e, token, rc, "it could not be forwarded");
	return 0;
}

static int on_taken(struct ext *e, struct cbor_cursor *c)
{
	char inbox[64];
	struct decl_inbox *in;
	uint64_t n;
	int rc;

	text_read(c, inbox, sizeof(inbox));
	n = cbor_uint(c, EXT_BOUND_MAX);
	rc = frame_done(c);
	in = decl_inbox_find(e->decl, inbox);
	return rc < 0 || !in ? ERR_MALFORMED : decl_taken(e->decl, in, n);
}

static int on_log(struct ext *e, struct cbor_cursor *c)
{
	int level = (int)cbor_uint(c, LOG_ERROR);
	char text[EXT_TEXT_BYTES_MAX + 1];
	int rc;

	text_read(c, text, sizeof(text));
	rc = frame_done(c);
	if (!rc)
		ext_log(e, level, text);
	return rc;
}

static int on_count(struct ext *e, struct cbor_cursor *c)
{
	char name[64];
	uint64_t delta;
	int rc;

	text_read(c, name, sizeof(name));
	delta = cbor_uint(c, UINT64_MAX);
	rc = frame_done(c);
	if (rc < 0 || !counter_name_ok(name))
		return ERR_MALFORMED;
	e->host->cb->count(e->host->arg, e->name, name, delta);
	return 0;
}

static int on_property(struct ext *e, struct cbor_cursor *c)
{
	char path[64], value[EXT_VALUE_BYTES];
	struct decl_property *p;
	int rc;

	text_read(c, path, sizeof(path));
	text_read(c, value, sizeof(value));
	rc = frame_done(c);
	p = rc < 0 ? NULL : decl_property_find(e->decl, path);
	if (!p || !p->read_only || body_value_ok(p->type, p->min, p->max, value) < 0)
		return ERR_MALFORMED;
	memcpy(p->value, value, sizeof(value));
	ext_property_changed(e, p);
	return 0;
}

static int on_connect(struct ext *e, struct cbor_cursor *c)
{
	uint64_t number = cbor_uint(c, INT64_MAX), port;
	uint32_t timeout_ms;
	char host[256];
	int rc;

	text_read(c, host, sizeof(host));
	port = cbor_uint(c, 65535);
	timeout_ms = (uint32_t)cbor_uint(c, UINT32_MAX);
	rc = frame_done(c);
	if (rc < 0 || number <= e->last_connect || !*host || !port)
		return ERR_MALFORMED;
	e->last_connect = number;
	if (!has_privilege(e, "net-out") || !e->host->cb->connect)
		return remote_connected(
			e, number, ERR_DENIED, "it does not have the privilege net-out", -1);
	e->host->cb->connect(e->host->arg, e->key, e->name, e->restarts, number, host,
		(uint16_t)port, timeout_ms);
	return 0;
}

static int on_accept(struct ext *e, struct cbor_cursor *c)
{
	uint64_t number = cbor_uint(c, INT64_MAX);
	uint32_t timeout_ms = (uint32_t)cbor_uint(c, UINT32_MAX);
	int rc = frame_done(c);

	if (rc < 0 || number <= e->last_connect)
		return ERR_MALFORMED;
	e->last_connect = number;
	if (!has_privilege(e, "net-in") || !e->host->cb->accept)
		return remote_connected(
			e, number, ERR_DENIED, "it does not have the privilege net-in", -1);
	e->host->cb->accept(e->host->arg, e->key, e->name, e->restarts, number, timeout_ms);
	return 0;
}

static int on_watching(struct ext *e, struct cbor_cursor *c)
{
	uint64_t n = cbor_uint(c, EXT_WATCHES_MAX), came = cbor_uint(c, UINT64_MAX);
	int rc = frame_done(c);

	if (rc < 0 || came > e->handed)
		return ERR_MALFORMED;
	e->watching = n + (e->handed - came);
	if (e->retiring)
		host_busy(e->host); /* that may have been what it waited for */
	return 0;
}

static int on_audit(struct ext *e, struct cbor_cursor *c)
{
	char event[64];
	struct tos_value *map = NULL;
	struct slice item;
	int rc;

	text_read(c, event, sizeof(event));
	item = cbor_any(c);
	rc = frame_done(c);
	if (rc == 0)
		rc = tos_decode(item.p, item.n, 65536, &map);
	if (rc == 0 && (tos_type(map) != TOS_MAP || !*event))
		rc = ERR_MALFORMED;
	if (rc == 0 && e->host->cb->audit)
		e->host->cb->audit(e->host->arg, e->name, event, map);
	tos_value_free(map);
	return rc;
}

#define IN(state) (1u << (state))
static const struct {
	unsigned type, when;
	int (*handle)(struct ext *e, struct cbor_cursor *c);
} rules[] = {
	{ EXT_HELLO, IN(EXT_GREETING), on_hello },
	{ EXT_STARTED, IN(EXT_STARTING), on_started },
	{ EXT_FAILED, IN(EXT_GREETING) | IN(EXT_STARTING), on_failed },
	{ EXT_SEND, IN(EXT_STARTING) | IN(EXT_READY), on_send },
	{ EXT_REPLY, IN(EXT_READY), on_reply },
	{ EXT_FAIL, IN(EXT_READY), on_fail },
	{ EXT_TAKEN, IN(EXT_READY), on_taken },
	{ EXT_LOG, IN(EXT_GREETING) | IN(EXT_STARTING) | IN(EXT_READY), on_log },
	{ EXT_COUNT, IN(EXT_STARTING) | IN(EXT_READY), on_count },
	{ EXT_PROPERTY, IN(EXT_STARTING) | IN(EXT_READY), on_property },
	{ EXT_FORWARD, IN(EXT_READY), on_forward },
	{ EXT_DRAINED, IN(EXT_READY), on_drained },
	{ EXT_CONNECT, IN(EXT_STARTING) | IN(EXT_READY), on_connect },
	{ EXT_ACCEPT, IN(EXT_STARTING) | IN(EXT_READY), on_accept },
	{ EXT_WATCHING, IN(EXT_STARTING) | IN(EXT_READY), on_watching },
	{ EXT_AUDIT, IN(EXT_STARTING) | IN(EXT_READY), on_audit },
};

static int dispatch(struct ext *e, struct slice frame)
{
	struct cbor_cursor c;
	int type = frame_open(&c, frame);

	if (type < 0)
		return type;
	for (size_t i = 0; i < ARRAY_LEN(rules); i++)
		if (rules[i].type == (unsigned)type)
			return rules[i].when & IN(e->state) ? rules[i].handle(e, &c)
							    : ERR_STATE;
	return ERR_MALFORMED;
}

/* It was told to stop. What it said before it knew is of no use to anybody any more. */
static void last_words(struct ext *e, struct slice frame)
{
	struct cbor_cursor c;

	if (frame_open(&c, frame) == EXT_LOG && on_log(e, &c) < 0)
		remote_drop(e);
}

static void on_frame(void *arg, struct stream *s, struct slice frame)
{
	struct ext *e = TAGGED(arg, struct ext, EXT_TAG);
	char why[64];
	int rc;

	if (s == e->last) {
		last_words(e, frame);
		return;
	}
	if (s != e->stream)
		return;
	rc = dispatch(e, frame);
	if (rc < 0 && s == e->stream) {
		snprintf(why, sizeof(why), "it sent a wrong frame (%s)", err_word(rc));
		e->host->cb->count(e->host->arg, e->name, "bad_frames", 1);
		remote_end(e, why);
	}
}

static void on_closed(void *arg, struct stream *s, int rc, const char *why)
{
	struct ext *e = TAGGED(arg, struct ext, EXT_TAG);

	if (s == e->stream) {
		e->stream = NULL;
		if (rc == ERR_TOO_LARGE || rc == ERR_MALFORMED)
			e->host->cb->count(e->host->arg, e->name, "bad_frames", 1);
		/* Also where only the socket ended: nothing can be asked of that process any
		 * more. */
		e->host->cb->kill(e->host->arg, e->key);
		remote_down(e, why && *why ? why : err_text(rc), true);
	}
	if (s == e->last)
		e->last = NULL;
	e->n_streams--;
	if (e->state == EXT_LEAVING)
		host_busy(e->host);
	host_stream_gone(e->host);
}

static const struct stream_callbacks stream_cb = {
	.frame = on_frame,
	.closed = on_closed,
};

int remote_attach(struct ext *e, int fd, int pid, struct errmsg *em)
{
	int rc;

	if (e->state != EXT_SPAWNING) {
		mem_close(fd);
		return err_set(
			em, ERR_STATE, "extension %s did not wait for a process", e->name);
	}
	rc = stream_open(e->host->loop, fd, EXT_FRAME_BYTES_MAX, &stream_cb, e, &e->stream, em);
	if (rc < 0)
		return rc;
	e->host->n_streams++;
	e->n_streams++;
	e->pid = pid;
	e->state = EXT_GREETING;
	e->last_connect = 0;
	e->watching = e->handed = 0;
	e->first_seq = e->host->next_seq;
	e->last_seq = e->first_seq - 1;
	e->host->next_seq += (uint64_t)1 << 32;
	state_timer(e, SPAWN_MS);
	return 0;
}
