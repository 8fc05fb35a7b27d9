/*
 * The kernel's side of all extensions: which there are, whose inbox is whose, the calls that
 * await their answers, and calling those that live in the kernel. What concerns one tos-ext is
 * remote.c.
 */
#include "ext/ext.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include <tos/value.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/map.h"
#include "base/mem.h"
#include "base/text.h"
#include "ext/host.h"
#include "ext/load.h"

static const char *state_word(enum ext_state s)
{
	static const char *const words[] = {
#define X(sym, word) [sym] = (word),
		EXT_STATES(X)
#undef X
	};
	return words[s];
}

struct ext *host_by_key(const struct ext_host *h, const char *key)
{
	struct ext *e = h->first;

	while (e && strcmp(e->key, key) != 0)
		e = e->next;
	return e;
}

static bool is_public(const struct ext *e)
{
	return !e->hidden && !e->retiring && e->state != EXT_LEAVING;
}

struct ext *host_published(const struct ext_host *h, const char *name)
{
	struct ext *e = h->first;

	while (e && !(is_public(e) && strcmp(e->name, name) == 0))
		e = e->next;
	return e;
}

/* Whose inbox it is now; else of one that is just being published, which has it anew. */
static struct ext *inbox_owner(
	const struct ext_host *h, const char *inbox, struct decl_inbox **in)
{
	for (int publishing = 0; publishing < 2; publishing++)
		for (struct ext *e = h->first; e; e = e->next) {
			if (publishing ? !e->publishing : !is_public(e))
				continue;
			*in = decl_inbox_find(e->decl, inbox);
			if (*in)
				return e;
		}
	return NULL;
}

/* ---- tokens ---- */

static struct token *token_new(
	struct ext *e, const struct decl_inbox *in, const struct post *p, int64_t now)
{
	size_t folder_n = in->flags & TOS_INBOX_LOCATES ? p->folder.n : 0;
	struct token *t = mem_try(sizeof(*t) + folder_n);

	if (!t)
		return NULL;
	memset(t, 0, sizeof(*t));
	t->number = e->next_token++;
	t->deadline_ms = p->deadline_ms ? p->deadline_ms : EXT_CALL_MS;
	t->due = now + t->deadline_ms;
	t->tag = p->tag;
	t->inbox = in->name;
	t->sender_n = p->sender.n;
	t->dest_n = p->dest.n;
	text_copy(t->sender, sizeof(t->sender), (const char *)p->sender.p, p->sender.n);
	text_copy(t->dest, sizeof(t->dest), (const char *)p->dest.p, p->dest.n);
	if (p->trace.n == TRACE_BYTES) {
		memcpy(t->trace, p->trace.p, TRACE_BYTES);
		t->trace_n = TRACE_BYTES;
	}
	t->folder_n = folder_n;
	if (folder_n)
		memcpy(t->folder, p->folder.p, folder_n);
	map_put(e->tokens, &t->number, sizeof(t->number), t);
	if (t->due < e->token_due)
		e->token_due = t->due;
	return t;
}

static struct token *token_find(const struct ext *e, uint64_t number)
{
	return map_find(e->tokens, &number, sizeof(number));
}

static void token_drop(struct ext *e, struct token *t)
{
	map_del(e->tokens, &t->number, sizeof(t->number));
	free(t);
}

/* The answer to t, which is used up. */
static int token_answer(
	struct ext *e, struct token *t, enum post_kind kind, struct slice folder)
{
	struct post p = { .kind = kind,
		.dest = { (const uint8_t *)t->sender, t->sender_n },
		.tag = t->tag,
		.trace = { t->trace, t->trace_n },
		.folder = folder };
	int rc;

	map_del(e->tokens, &t->number,
		sizeof(t->number)); /* before anybody can come back here */
	rc = e->host->cb->send(e->host->arg, e->decl->inbox[0].name, &p, NULL);
	free(t);
	return rc;
}

void token_inherit(struct ext *from, struct ext *heir, uint64_t number, struct decl_inbox *to)
{
	struct token *t = map_del(from->tokens, &number, sizeof(number));

	if (!t)
		return; /* its time was over */
	t->inbox = to->name;
	map_put(heir->tokens, &t->number, sizeof(t->number), t);
	if (t->due < heir->token_due)
		heir->token_due = t->due;
}

static void failure_encode(struct buf *b, int rc, const char *text)
{
	cbor_put_array(b, 2);
	cbor_put_text(b, "failure");
	cbor_put_array(b, 2);
	cbor_put_text(b, err_word(rc));
	cbor_put_text(b, text && *text ? text : err_text(rc));
}

static int token_fail(struct ext *e, struct token *t, int rc, const char *text)
{
	AUTOBUF b = BUF_INIT;

	failure_encode(&b, rc, text);
	return token_answer(e, t, POST_FAILURE, (struct slice){ b.data, b.len });
}

/* Whoever called must not wait longer than it said. Returns the ms until the next one is due.
 */
static int64_t tokens_expire(struct ext *e, int64_t now)
{
	char text[192];
	struct token *t;
	size_t it = 0;

	if (e->token_due > now)
		return e->token_due == INT64_MAX ? -1 : e->token_due - now;
	e->token_due = INT64_MAX;
	while ((t = map_next(e->tokens, &it, NULL, NULL))) {
		if (t->due > now) {
			if (t->due < e->token_due)
				e->token_due = t->due;
			continue;
		}
		snprintf(text, sizeof(text), "inbox %s did not answer within %u ms", t->inbox,
			t->deadline_ms);
		e->host->cb->count(e->host->arg, e->name, "timed_out", 1);
		token_fail(e, t, ERR_TIMEOUT, text);
		it = 0; /* the kernel may have put another one in */
	}
	return e->token_due == INT64_MAX ? -1 : e->token_due - now;
}

void ext_fail_all(struct ext *e, int rc, const char *text)
{
	struct token *t;
	size_t it;

	while (it = 0, (t = map_next(e->tokens, &it, NULL, NULL)))
		token_fail(e, t, rc, text);
}

/* ---- what an extension does ---- */

int ext_send(struct ext *e, enum post_kind kind, const char *dest, uint64_t seq,
	uint32_t deadline_ms, struct slice folder, struct errmsg *em)
{
	struct post p = { .kind = kind,
		.dest = { (const uint8_t *)dest, strlen(dest) },
		.tag = seq,
		.deadline_ms = deadline_ms,
		.folder = folder };

	if (e->host->stopped || !e->decl)
		return ERR_CLOSED;
	return e->host->cb->send(e->host->arg, e->decl->inbox[0].name, &p, em);
}

int ext_reply(struct ext *e, uint64_t token, enum post_kind kind, struct slice folder)
{
	struct token *t = token_find(e, token);

	return t ? token_answer(e, t, kind, folder) : ERR_NOT_FOUND;
}

int ext_fail(struct ext *e, uint64_t token, int rc, const char *text)
{
	struct token *t = token_find(e, token);

	return t ? token_fail(e, t, rc, text) : ERR_NOT_FOUND;
}

int ext_forward(struct ext *e, uint64_t token, const char *kernel)
{
	struct token *t = token_find(e, token);
	const struct decl_inbox *in = t ? decl_inbox_find(e->decl, t->inbox) : NULL;
	int64_t left = t ? t->due - clock_ms() : 0;
	int rc;

	if (!t || left <= 0)
		return ERR_NOT_FOUND;
	if (!in || !(in->flags & TOS_INBOX_LOCATES) || !e->host->cb->forward)
		return ERR_DENIED;
	struct post p = { .kind = POST_CALL,
		.dest = { (const uint8_t *)t->dest, t->dest_n },
		.sender = { (const uint8_t *)t->sender, t->sender_n },
		.tag = t->tag,
		.deadline_ms = (uint32_t)left,
		.trace = { t->trace, t->trace_n },
		.folder = { t->folder, t->folder_n } };

	map_del(e->tokens, &t->number, sizeof(t->number));
	rc = e->host->cb->forward(e->host->arg, &p, kernel);
	if (rc < 0) {
		/* Not passed on: it still awaits an answer. */
		map_put(e->tokens, &t->number, sizeof(t->number), t);
		return rc;
	}
	free(t);
	return 0;
}

void ext_log(struct ext *e, int level, const char *text)
{
	static struct log_rate rate;

	if (level > LOG_DEBUG && !log_rate_ok(&rate, 100))
		return;
	LOG_((enum log_level)level, "extension says", KV_STR("extension", e->name),
		KV_STR("text", text));
}

bool counter_name_ok(const char *s)
{
	size_t n = 0;

	for (; s && s[n]; n++)
		if (!islower((unsigned char)s[n]) && !isdigit((unsigned char)s[n]) &&
			s[n] != '_')
			return false;
	return n >= 1 && n <= 63;
}

void ext_announce(struct ext *e)
{
	/* One that broke while it took another's place declares nothing any more. */
	for (size_t i = 0; e->decl && i < e->decl->n_properties; i++)
		ext_property_changed(e, &e->decl->property[i]);
}

void ext_property_changed(struct ext *e, struct decl_property *p)
{
	if (e->host->cb->property && is_public(e))
		e->host->cb->property(e->host->arg, e->name, p->path, p->type, p->unit, p->doc,
			p->min, p->max, p->read_only, p->value);
}

/* The same as functions of a body, for those that live in the kernel. */

static int local_send(void *arg, enum post_kind kind, const char *dest, uint64_t seq,
	uint32_t deadline_ms, struct slice folder)
{
	return ext_send(
		TAGGED(arg, struct ext, EXT_TAG), kind, dest, seq, deadline_ms, folder, NULL);
}

static int local_reply(void *arg, uint64_t token, struct slice folder)
{
	return ext_reply(TAGGED(arg, struct ext, EXT_TAG), token, POST_ANSWER, folder);
}

static int local_fail(void *arg, uint64_t token, int rc, const char *text)
{
	return ext_fail(TAGGED(arg, struct ext, EXT_TAG), token, rc, text);
}

static int local_forward(void *arg, uint64_t token, const char *kernel)
{
	return ext_forward(TAGGED(arg, struct ext, EXT_TAG), token, kernel);
}

static void local_taken(void *arg, const char *inbox, uint32_t n)
{
	struct ext *e = TAGGED(arg, struct ext, EXT_TAG);

	must(decl_taken(e->decl, decl_inbox_find(e->decl, inbox), n) == 0);
}

static void local_log(void *arg, int level, const char *text)
{
	ext_log(TAGGED(arg, struct ext, EXT_TAG), level, text);
}

static void local_count(void *arg, const char *name, uint64_t delta)
{
	struct ext *e = TAGGED(arg, struct ext, EXT_TAG);

	if (counter_name_ok(name))
		e->host->cb->count(e->host->arg, e->name, name, delta);
}

static void local_property(void *arg, const char *path, const char *value)
{
	struct ext *e = TAGGED(arg, struct ext, EXT_TAG);
	struct decl_property *p = decl_property_find(e->decl, path);

	snprintf(p->value, sizeof(p->value), "%s", value);
	ext_property_changed(e, p);
}

static void local_busy(void *arg)
{
	host_busy(TAGGED(arg, struct ext, EXT_TAG)->host);
}

static const struct body_ops local_ops = {
	.send = local_send,
	.reply = local_reply,
	.fail = local_fail,
	.forward = local_forward,
	.taken = local_taken,
	.log = local_log,
	.count = local_count,
	.property = local_property,
	.busy = local_busy,
};

/* ---- the loop ---- */

static void host_stop(struct ext_host *h);

static void sooner(int64_t *next, int64_t due)
{
	if (due >= 0 && (*next < 0 || due < *next))
		*next = due;
}

static void on_timer(void *arg)
{
	struct ext_host *h = arg;
	int64_t next = -1;

	if (h->stopped)
		return;
	if (h->closing) {
		host_stop(h);
		return;
	}
	h->running = true;
	h->again = false;
	for (struct ext *e = h->first; e; e = e->next) {
		sooner(&next, e->body && e->state != EXT_LEAVING ? body_run(e->body) : -1);
		sooner(&next, tokens_expire(e, clock_ms()));
	}
	h->running = false;
	for (struct ext *e = h->first, *after; e; e = after) {
		after = e->next;
		sooner(&next, swap_turn(e, clock_ms()));
	}
	if (h->again || h->closing)
		next = 0;
	if (next >= 0)
		timer_again(h->timer, (uint64_t)next);
}

void host_busy(struct ext_host *h)
{
	h->again = true;
	if (!h->running && !h->stopped)
		timer_again(h->timer, 0);
}

int ext_host_new(uv_loop_t *loop, const char *kernel, uint32_t default_bound,
	const struct ext_callbacks *cb, void *arg, struct ext_host **out)
{
	struct ext_host *h = mem_new(struct ext_host);

	h->loop = loop;
	h->default_bound = default_bound ? default_bound : 1024;
	h->cb = cb;
	h->arg = arg;
	/* An answer to a call of an earlier boot must not meet a call of this one. */
	h->next_seq = (hash_bytes("calls", 5) >> 16) + 1;
	snprintf(h->kernel, sizeof(h->kernel), "%s", kernel);
	h->timer = timer_start(loop, 0, 0, on_timer, h);
	*out = h;
	return 0;
}

static void ext_free(struct ext *e)
{
	struct token *t;
	size_t it = 0;

	body_free(e->body);
	library_close(e->lib);
	while ((t = map_next(e->tokens, &it, NULL, NULL)))
		token_drop(e, t);
	map_free(e->tokens);
	decl_free(e->decl);
	buf_fini(&e->held);
	timer_stop(e->timer);
	free(e->inboxes);
	e->tag = 0;
	free(e);
}

static void on_gone(void *arg)
{
	struct ext_host *h = arg;
	void (*closed)(void *) = h->closed;
	void *closed_arg = h->closed_arg;

	if (h->n_streams)
		return; /* host_stream_gone() calls again */
	timer_stop(h->timer);
	while (h->first) {
		struct ext *e = h->first;

		h->first = e->next;
		ext_free(e);
	}
	free(h);
	if (closed)
		closed(closed_arg);
}

void host_stream_gone(struct ext_host *h)
{
	h->n_streams--;
	if (h->stopped && h->n_streams == 0)
		timer_again(h->timer, 0);
}

static void stop_from(struct ext *e)
{
	if (!e)
		return;
	stop_from(e->next); /* the last one loaded first */
	if (e->body)
		body_stop(e->body);
	else
		remote_stop(e);
	e->state = EXT_STOPPED;
}

static void host_stop(struct ext_host *h)
{
	stop_from(h->first);
	h->stopped = true;
	timer_stop(h->timer);
	/* From the loop even when no stream has to end first. */
	h->timer = timer_start(h->loop, 0, 0, on_gone, h);
}

void ext_host_close(struct ext_host *h, void (*closed)(void *arg), void *arg)
{
	h->closing = true;
	h->closed = closed;
	h->closed_arg = arg;
	host_busy(h);
}

/* ---- loading ---- */

const char *ext_configured(const struct ext *e, const char *path)
{
	return e->property ? e->property(e->property_arg, path) : NULL;
}

/* Anybody but whom it replaces: one that leaves has no inboxes any more, one that is hidden will
 * have some. */
static struct ext *inbox_rival(const struct ext *e, const char *inbox)
{
	for (struct ext *other = e->host->first; other; other = other->next)
		if (other != e && !other->retiring && other->state != EXT_LEAVING &&
			(!e->hidden || other->hidden || strcmp(other->name, e->name) != 0) &&
			decl_inbox_find(other->decl, inbox))
			return other;
	return NULL;
}

/* Nobody else may have these inboxes. */
static int names_free(struct ext *e, const struct decl *d, struct errmsg *em)
{
	struct ext_host *h = e->host;

	for (size_t i = 0; i < d->n_inboxes; i++) {
		const char *name = d->inbox[i].name;
		struct ext *other = inbox_rival(e, name);

		if (other)
			return err_set(em, ERR_EXISTS, "inbox %s belongs to extension %s", name,
				other->name);
		if (h->cb->reserved && h->cb->reserved(h->arg, name))
			return err_set(em, ERR_EXISTS, "inbox %s belongs to the kernel", name);
	}
	return 0;
}

/* Those that its package names, each of them and no others. */
static int inboxes_as_said(const struct ext *e, const struct decl *d, struct errmsg *em)
{
	const char *at = e->inboxes;
	size_t said = 0;

	while (at && *at) {
		char name[64];
		size_t n = strcspn(at, " ");

		if (n && (text_copy(name, sizeof(name), at, n) < 0 ||
				 !decl_inbox_find((struct decl *)(uintptr_t)d, name)))
			return err_set(em, ERR_DIVERGED,
				"does not declare the inbox %.*s that its package names",
				(int)(n > 63 ? 63 : n), at);
		said += n > 0;
		at += n + (at[n] == ' ');
	}
	if (e->inboxes && said != d->n_inboxes)
		return err_set(em, ERR_DIVERGED,
			"declares %zu inboxes, and its package names %zu", d->n_inboxes, said);
	return 0;
}

static int apply_configuration(struct ext *e, struct decl *d, struct errmsg *em)
{
	for (size_t i = 0; i < d->n_properties; i++) {
		struct decl_property *p = &d->property[i];
		const char *value = ext_configured(e, p->path);

		if (!value)
			continue;
		if (p->read_only || body_value_ok(p->type, p->min, p->max, value) < 0)
			return err_set(em, ERR_CONFIG,
				"property %s: \"%s\" is no %s within its bounds", p->path,
				value, p->type);
		snprintf(p->value, sizeof(p->value), "%s", value);
	}
	return 0;
}

int ext_register(struct ext *e, const struct tos_value *hello, struct errmsg *em)
{
	struct decl *d;
	int rc = decl_read(hello, e->host->default_bound, &d, em);

	if (rc < 0)
		return rc;
	rc = body_privileges_ok(d->privileges, e->privileges, em);
	if (!rc)
		rc = inboxes_as_said(e, d, em);
	if (!rc)
		rc = names_free(e, d, em);
	if (!rc)
		rc = apply_configuration(e, d, em);
	if (!rc && e->keep)
		rc = decl_keep(d);
	if (!rc && e->decl && !decl_same_inboxes(e->decl, d))
		rc = err_set(em, ERR_DIVERGED, "declares other inboxes than before");
	if (rc < 0) {
		decl_free(d);
		return rc;
	}
	if (e->decl) {
		/* Tokens and what is held point into the old one, whose inboxes are the same.
		 */
		free(e->decl->property);
		e->decl->property = STEAL(d->property);
		e->decl->n_properties = d->n_properties;
		decl_free(d);
	} else {
		e->decl = d;
	}
	ext_announce(e);
	return 0;
}

static int local_start(struct ext *e, struct errmsg *em)
{
	const struct tos_extension *spec;
	struct tos_value *hello;
	int rc = library_open(e->library, &e->lib, &spec, em);

	if (rc < 0)
		return rc;
	hello = library_describe(spec);
	rc = ext_register(e, hello, em);
	tos_value_free(hello);
	if (rc < 0)
		return rc;
	rc = body_new(spec, e->host->kernel, e->host->next_seq, &local_ops, e, &e->body);
	e->host->next_seq += (uint64_t)1 << 32;
	for (size_t i = 0; rc == 0 && i < e->decl->n_properties; i++)
		rc = body_configure(
			e->body, e->decl->property[i].path, e->decl->property[i].value, em);
	return rc < 0 ? rc : body_start(e->body, em);
}

static void ext_append(struct ext_host *h, struct ext *e)
{
	struct ext **last = &h->first;

	while (*last)
		last = &(*last)->next;
	*last = e;
}

static void ext_remove(struct ext_host *h, struct ext *e)
{
	struct ext **at = &h->first;

	while (*at != e)
		at = &(*at)->next;
	*at = e->next;
	ext_free(e);
}

void host_forget(struct ext *e)
{
	struct ext_host *h = e->host;
	char key[EXT_KEY_BYTES];

	snprintf(key, sizeof(key), "%s", e->key);
	ext_remove(h, e);
	if (h->cb->gone)
		h->cb->gone(h->arg, key);
}

int ext_load(struct ext_host *h, const struct ext_load *what, struct errmsg *em)
{
	const char *key = what->key ? what->key : what->name;
	struct ext *e;
	int rc;

	if (host_by_key(h, key) || (!what->hidden && host_published(h, what->name)))
		return err_set(em, ERR_EXISTS, "extension %s is loaded already", what->name);
	e = mem_new(struct ext);
	e->hidden = what->hidden;
	e->keep = what->keep && what->isolated;
	e->process_gone = true;
	e->inboxes = what->inboxes ? mem_strdup(what->inboxes) : NULL;
	snprintf(e->key, sizeof(e->key), "%s", key);
	e->tag = EXT_TAG;
	e->host = h;
	e->isolated = what->isolated;
	e->property = what->property;
	e->property_arg = what->arg;
	e->tokens = map_new();
	e->next_token = 1;
	e->token_due = INT64_MAX;
	snprintf(e->name, sizeof(e->name), "%s", what->name);
	snprintf(e->library, sizeof(e->library), "%s", what->library ? what->library : "");
	snprintf(e->privileges, sizeof(e->privileges), "%s",
		what->privileges ? what->privileges : "");
	ext_append(h, e);
	if (e->isolated) {
		remote_spawn(e);
		return 0;
	}
	rc = local_start(e, em);
	if (rc < 0) {
		err_wrap(em, rc, "extension %s", what->name);
		ext_fail_all(e, ERR_NO_INBOX, "the extension could not be started");
		ext_remove(h, e);
		return rc;
	}
	e->state = EXT_READY;
	if (h->cb->ready)
		h->cb->ready(h->arg, e->key, 0, "");
	return 0;
}

int ext_attach(struct ext_host *h, const char *key, int fd, int pid, struct errmsg *em)
{
	struct ext *e = host_by_key(h, key);

	if (!e || !e->isolated || h->closing) {
		mem_close(fd);
		return err_set(em, ERR_NOT_FOUND, "no isolated extension %s", key);
	}
	return remote_attach(e, fd, pid, em);
}

void ext_spawn_failed(struct ext_host *h, const char *key, const char *why)
{
	ext_died(h, key, why);
}

void ext_died(struct ext_host *h, const char *key, const char *why)
{
	struct ext *e = host_by_key(h, key);

	if (!e || !e->isolated || h->closing)
		return;
	e->process_gone = true;
	remote_died(e, why);
	host_busy(h);
}

/* ---- delivery ---- */

int ext_connected(struct ext_host *h, const char *key, uint32_t life, uint64_t number, int rc,
	const char *text, int fd)
{
	struct ext *e = host_by_key(h, key);

	/* An earlier life asked, or it has ended. */
	if (!e || !e->stream || e->restarts != life)
		return 0;
	return remote_connected(e, number, rc, text, fd);
}

int ext_serves(const struct ext_host *h, const char *key, uint32_t life)
{
	const struct ext *e = host_by_key(h, key);

	if (!e || !e->stream || e->restarts != life)
		return -1;
	return e->state == EXT_READY && e == host_published(h, e->name);
}

bool ext_has_name(const struct ext_host *h, const char *name)
{
	for (const struct ext *e = h->first; e; e = e->next)
		if (strcmp(e->name, name) == 0)
			return true;
	return false;
}

bool ext_has_inbox(const struct ext_host *h, const char *inbox, uint32_t *flags)
{
	struct decl_inbox *in;

	if (!inbox_owner(h, inbox, &in))
		return false;
	if (flags)
		*flags = in->flags;
	return true;
}

const char *ext_hook(const struct ext_host *h, uint32_t flag, size_t i)
{
	for (struct ext *e = h->first; e; e = e->next)
		for (size_t n = 0; is_public(e) && e->decl && n < e->decl->n_inboxes; n++)
			if ((e->decl->inbox[n].flags & flag) && i-- == 0)
				return e->decl->inbox[n].name;
	return NULL;
}

static bool sender_allowed(const struct decl_inbox *in, const struct tos_value *info)
{
	const char *class = tos_get_text(info, "class", "");

	if (!(in->flags & (TOS_INBOX_EXTENSIONS_ONLY | TOS_INBOX_ON_ARRIVAL |
				  TOS_INBOX_ON_DEPARTURE)))
		return true;
	return strcmp(class, "carrier") != 0 && strcmp(class, "client") != 0;
}

/* To whoever has such an inbox, published or not, and asked: numbers of calls are nobody else's. */
static int deliver_answer(struct ext_host *h, const char *inbox, const struct post *p)
{
	bool any = false;

	for (struct ext *e = h->first; e; e = e->next) {
		if (e->state == EXT_LEAVING || !decl_inbox_find(e->decl, inbox))
			continue;
		any = true;
		if (p->tag == 0)
			h->cb->count(h->arg, e->name, "posts_failed", 1);
		else if (e->body)
			body_answer(e->body, p->tag, p->kind, p->folder);
		else
			remote_answer(e, p->tag, p->kind, p->folder);
		if (p->tag == 0)
			break;
	}
	return any ? 0 : ERR_NO_INBOX;
}

static int deliver_post(struct ext *e, struct decl_inbox *in, const struct post *p,
	const struct tos_value *info, struct errmsg *em)
{
	struct token *t = NULL;
	int rc;

	if (p->kind == POST_CALL && map_size(e->tokens) >= EXT_TOKENS_MAX) {
		in->refused++;
		return err_set(em, ERR_FULL, "extension %s owes too many answers", e->name);
	}
	rc = decl_waits(e->decl, in, p->folder.n);
	if (rc < 0)
		return err_set(em, rc, "inbox %s is full", in->name);
	if (p->kind == POST_CALL)
		t = token_new(e, in, p, clock_ms());
	rc = p->kind == POST_CALL && !t ? ERR_NOMEM
	     : e->body                  ? body_deliver(e->body, in->name, p, t ? t->number : 0,
                                 t ? t->deadline_ms : 0, info)
					: remote_deliver(e, in->name, p, t ? t->number : 0,
                                 t ? t->deadline_ms : 0, info);
	if (rc < 0) {
		decl_unwait(e->decl, in);
		if (t)
			token_drop(e, t);
		return err_set(em, rc, "inbox %s: %s", in->name, err_text(rc));
	}
	if (t)
		host_busy(e->host); /* its deadline may be the next thing due */
	return 0;
}

int ext_deliver(struct ext_host *h, const char *inbox, const struct post *p,
	const struct tos_value *info, struct errmsg *em)
{
	struct decl_inbox *in;
	bool answer = p->kind == POST_ANSWER || p->kind == POST_FAILURE;
	struct ext *e = inbox_owner(h, inbox, &in);
	struct slice name;
	uint64_t n;

	if (h->closing || (!answer && (!e || e->state == EXT_BROKEN)))
		return err_set(em, ERR_NO_INBOX, "there is no inbox %s", inbox);
	if (p->sender.n > NAME_BYTES_MAX || folder_check(p->folder, &name, &n) < 0)
		return err_set(em, ERR_MALFORMED, "inbox %s: the folder is malformed", inbox);
	if (answer)
		return deliver_answer(h, inbox, p) == 0
			       ? 0
			       : err_set(em, ERR_NO_INBOX, "there is no inbox %s", inbox);
	if (!sender_allowed(in, info)) {
		in->refused++;
		return err_set(em, ERR_DENIED, "inbox %s is for extensions only", inbox);
	}
	return deliver_post(e, in, p, info, em);
}

/* ---- describing ---- */

static struct tos_value *describe_inboxes(const struct decl *d)
{
	struct tos_value *all = tos_array();

	for (size_t i = 0; d && i < d->n_inboxes; i++) {
		const struct decl_inbox *in = &d->inbox[i];
		struct tos_value *one = tos_map();

		tos_set(one, "name", tos_text(in->name));
		tos_set(one, "doc", tos_text(in->doc));
		tos_set(one, "waiting", tos_int(in->waiting));
		tos_set(one, "bound", tos_int(in->bound));
		tos_set(one, "flags", tos_int(in->flags));
		tos_set(one, "posted", tos_int((int64_t)in->posted));
		tos_set(one, "taken", tos_int((int64_t)in->taken));
		tos_set(one, "refused", tos_int((int64_t)in->refused));
		tos_push(all, one);
	}
	return all;
}

/* As people see it: what is on its way in or out is so, whatever its process does. */
static const char *shown_state(const struct ext *e)
{
	return e->retiring && e->state == EXT_READY ? "draining" : state_word(e->state);
}

bool ext_has(const struct ext_host *h, const char *key)
{
	return host_by_key(h, key) != NULL;
}

struct tos_value *ext_declared(const struct ext_host *h, const char *key)
{
	const struct ext *e = host_by_key(h, key);
	struct tos_value *v, *inboxes;

	if (!e || !e->decl)
		return NULL;
	v = tos_map();
	inboxes = tos_array();
	for (size_t i = 0; i < e->decl->n_inboxes; i++)
		tos_push(inboxes, tos_text(e->decl->inbox[i].name));
	tos_set(v, "doc", tos_text(e->decl->doc));
	tos_set(v, "inboxes", inboxes);
	tos_set(v, "name", tos_text(e->decl->name));
	tos_set(v, "privileges", tos_text(e->decl->privileges));
	return v;
}

struct tos_value *ext_describe(const struct ext_host *h)
{
	struct tos_value *all = tos_array();

	for (const struct ext *e = h->first; e; e = e->next) {
		struct tos_value *one = tos_map();

		tos_set(one, "name", tos_text(e->name));
		tos_set(one, "key", tos_text(e->key));
		tos_set(one, "doc", tos_text(e->decl ? e->decl->doc : ""));
		tos_set(one, "privileges", tos_text(e->decl ? e->decl->privileges : ""));
		tos_set(one, "where", tos_text(e->isolated ? "isolated" : "kernel"));
		tos_set(one, "state", tos_text(shown_state(e)));
		tos_set(one, "why", tos_text(e->why));
		tos_set(one, "inboxes", describe_inboxes(e->decl));
		tos_set(one, "restarts", tos_int(e->restarts));
		tos_set(one, "pid", tos_int(e->pid));
		tos_set(one, "calls", tos_int((int64_t)map_size(e->tokens)));
		tos_push(all, one);
	}
	return all;
}
