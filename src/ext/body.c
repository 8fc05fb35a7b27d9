/* The extension's side of the ABI; see body.h. Runs in tos-kernel and in tos-ext. */
#include "ext/body.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/list.h"
#include "base/map.h"
#include "base/mem.h"
#include "base/text.h"

#define NEVER INT64_MAX

/* One folder in a queue. */
struct item {
	struct list link;
	struct slice folder; /* owned, behind the struct */
	struct tos_value *info;
	uint64_t token;
	int64_t deadline_at; /* 0: none */
	char sender[NAME_BYTES_MAX + 1];
};

struct tos_inbox {
	const struct tos_host_table *host; /* first: TOS_HOST() */
	struct body *body;
	const struct tos_inbox_spec *spec;
	struct list items;
	size_t n;
	bool posted;     /* since its last wake */
	int64_t wake_at; /* by wait_ms */
	/* what the last tos_inbox_next() lent out */
	struct item *lent;
	struct tos_value *elements;
	char folder[NAME_BYTES_MAX + 1];
};

struct call {
	struct list link; /* calls; once answered: answers */
	uint64_t seq;
	int64_t due;
	tos_answer_fn *done;
	void *arg;
	int rc; /* of the answer */
	char folder[NAME_BYTES_MAX + 1];
	char text[256];
	struct tos_value *elements;
};

struct tos_timer {
	struct list link;
	struct body *body;
	int64_t due;
	void (*fn)(struct tos_ext *, void *);
	void *arg;
};

/* A connection that was asked for; once it is answered it waits to be told. */
struct connecting {
	struct list link;
	uint64_t number;
	int64_t due;
	tos_connected_fn *done;
	void *arg;
	bool answered;
	int rc, fd;
	char text[256];
};

struct watch {
	int fd;
	unsigned events, so;
	tos_watch_fn *fn;
	void *arg;
};

struct prop {
	const struct tos_property_spec *spec;
	char value[EXT_VALUE_BYTES];
};

struct tos_ext {
	const struct tos_host_table *host; /* first: TOS_HOST() */
};

struct body {
	struct tos_ext ext; /* first */
	const struct tos_extension *spec;
	const struct body_ops *ops;
	void *arg;
	void *data;
	char kernel[NAME_BYTES_MAX + 1];
	struct tos_inbox inbox[EXT_INBOXES_MAX];
	size_t n_inboxes;
	struct prop prop[EXT_PROPERTIES_MAX];
	size_t n_props;
	struct list calls;   /* awaited */
	struct list answers; /* to be told */
	struct list timers;
	struct map *by_seq;
	uint64_t next_seq;
	size_t n_calls, n_timers;
	int64_t due; /* nothing in calls, connects and timers is due before this */
	/* outside */
	struct tos_value *places;
	char *directory;
	struct blob trusted;
	struct list connects;
	size_t n_connects;
	uint64_t next_connect;
	struct watch watch[EXT_WATCHES_MAX];
	size_t n_watches;
	bool started;
};

static struct body *body_of(struct tos_ext *x)
{
	return CONTAINER_OF(x, struct body, ext);
}

/* ---- what the extension calls ---- */

static void item_free(struct item *it)
{
	if (!it)
		return;
	tos_value_free(it->info);
	free(it);
}

/* What the last tos_inbox_next() gave out is valid until now. */
static void inbox_give_back(struct tos_inbox *in)
{
	item_free(in->lent);
	in->lent = NULL;
	tos_value_free(in->elements);
	in->elements = NULL;
}

static size_t host_inbox_size(struct tos_inbox *in)
{
	return in->n;
}

static struct item *inbox_pop(struct tos_inbox *in)
{
	struct item *it = LIST_ITEM(in->items.next, struct item, link);

	list_del(&it->link);
	in->n--;
	in->body->ops->taken(in->body->arg, in->spec->name, 1);
	return it;
}

static bool host_inbox_next(struct tos_inbox *in, struct tos_message *out)
{
	struct body *b = in->body;
	int64_t now = clock_ms();

	inbox_give_back(in);
	while (in->n) {
		struct item *it = inbox_pop(in);

		in->lent = it;
		/* Its caller has been told timed-out already. */
		if (it->deadline_at && it->deadline_at <= now) {
			inbox_give_back(in);
			continue;
		}
		if (folder_decode(it->folder, in->folder, &in->elements) < 0) {
			if (it->token)
				b->ops->fail(b->arg, it->token, ERR_NOMEM, err_text(ERR_NOMEM));
			inbox_give_back(in);
			continue;
		}
		*out = (struct tos_message){ it->sender, in->folder, in->elements, it->info,
			it->token, it->deadline_at ? (uint32_t)(it->deadline_at - now) : 0 };
		return true;
	}
	return false;
}

/* Encode [folder, elements]; takes elements. */
static int folder_make(struct buf *b, const char *folder, struct tos_value *elements)
{
	const struct tos_value **each = NULL;
	size_t n = tos_len(elements);
	int rc = 0;

	if (elements && tos_type(elements) != TOS_ARRAY)
		rc = ERR_MALFORMED;
	else if (strlen(folder) > NAME_BYTES_MAX)
		rc = ERR_NAME;
	else if (n) {
		each = mem_try(n * sizeof(*each));
		if (!each)
			rc = ERR_NOMEM;
	}
	if (!rc) {
		for (size_t i = 0; i < n; i++)
			each[i] = tos_at(elements, i);
		b->max = FRAME_BYTES_MAX;
		folder_encode(b, folder, each, n);
		rc = buf_check(b);
	}
	free(each);
	tos_value_free(elements);
	return rc;
}

static struct slice buf_slice(const struct buf *b)
{
	return (struct slice){ b->data, b->len };
}

static int host_reply(
	struct tos_ext *x, uint64_t token, const char *folder, struct tos_value *elements)
{
	struct body *b = body_of(x);
	AUTOBUF f = BUF_INIT;
	int rc = folder_make(&f, folder ? folder : "", elements);

	if (rc < 0) {
		/* The caller must not wait for an answer that can't be made. */
		b->ops->fail(b->arg, token, rc, "the answer could not be encoded");
		return rc;
	}
	return b->ops->reply(b->arg, token, buf_slice(&f));
}

static int host_fail(struct tos_ext *x, uint64_t token, int rc, const char *text)
{
	struct body *b = body_of(x);

	return b->ops->fail(b->arg, token, rc < 0 ? rc : ERR_UNKNOWN, text ? text : "");
}

static int host_forward(struct tos_ext *x, uint64_t token, const char *kernel)
{
	struct body *b = body_of(x);

	return b->ops->forward(b->arg, token, kernel);
}

static bool dest_ok(const char *dest)
{
	return dest && *dest && strlen(dest) <= NAME_BYTES_MAX && text_utf8(dest, strlen(dest));
}

static int host_post(
	struct tos_ext *x, const char *dest, const char *folder, struct tos_value *elements)
{
	struct body *b = body_of(x);
	AUTOBUF f = BUF_INIT;
	int rc = folder_make(&f, folder ? folder : "", elements);

	if (rc < 0)
		return rc;
	if (!dest_ok(dest))
		return ERR_NAME;
	return b->ops->send(b->arg, POST_ONEWAY, dest, 0, 0, buf_slice(&f));
}

static void due_at(struct body *b, int64_t when)
{
	if (when < b->due) {
		b->due = when;
		b->ops->busy(b->arg); /* so that the embedding loop learns the new time */
	}
}

static void call_free(struct call *c)
{
	tos_value_free(c->elements);
	free(c);
}

static struct call *call_new(
	struct body *b, uint32_t timeout_ms, tos_answer_fn *done, void *arg)
{
	struct call *c;

	if (b->n_calls >= EXT_CALLS_MAX)
		return NULL;
	c = mem_try(sizeof(*c));
	if (!c)
		return NULL;
	*c = (struct call){ .seq = b->next_seq++,
		.due = clock_ms() + (timeout_ms ? timeout_ms : 30000),
		.done = done,
		.arg = arg };
	list_init(&c->link);
	map_put(b->by_seq, &c->seq, sizeof(c->seq), c);
	list_add(&b->calls, &c->link);
	b->n_calls++;
	return c;
}

static void call_forget(struct body *b, struct call *c)
{
	map_del(b->by_seq, &c->seq, sizeof(c->seq));
	list_del(&c->link);
	b->n_calls--;
	call_free(c);
}

static int host_call(struct tos_ext *x, const char *dest, const char *folder,
	struct tos_value *elements, uint32_t timeout_ms, tos_answer_fn *done, void *arg)
{
	struct body *b = body_of(x);
	AUTOBUF f = BUF_INIT;
	int rc = folder_make(&f, folder ? folder : "", elements);
	struct call *c;
	uint64_t seq;

	if (rc < 0)
		return rc;
	if (!dest_ok(dest))
		return ERR_NAME;
	c = call_new(b, timeout_ms, done, arg);
	if (!c)
		return b->n_calls >= EXT_CALLS_MAX ? ERR_LIMIT : ERR_NOMEM;
	due_at(b, c->due);
	/* The answer may be queued before send() returns, so look the call up again. */
	seq = c->seq;
	rc = b->ops->send(
		b->arg, POST_CALL, dest, seq, timeout_ms ? timeout_ms : 30000, buf_slice(&f));
	if (rc < 0) {
		c = map_find(b->by_seq, &seq, sizeof(seq));
		if (c)
			call_forget(b, c);
	}
	return rc;
}

static struct tos_timer *host_timer(
	struct tos_ext *x, uint32_t after_ms, void (*fn)(struct tos_ext *, void *), void *arg)
{
	struct body *b = body_of(x);
	struct tos_timer *t = b->n_timers < EXT_TIMERS_MAX ? mem_try(sizeof(*t)) : NULL;

	if (!t)
		return NULL;
	*t = (struct tos_timer){
		.body = b, .due = clock_ms() + after_ms, .fn = fn, .arg = arg
	};
	list_add(&b->timers, &t->link);
	b->n_timers++;
	due_at(b, t->due);
	return t;
}

static void timer_drop(struct tos_timer *t)
{
	t->body->n_timers--;
	list_del(&t->link);
	free(t);
}

static void host_timer_stop(struct tos_timer *t)
{
	if (t)
		timer_drop(t);
}

static void host_log(struct tos_ext *x, int level, const char *text)
{
	struct body *b = body_of(x);

	b->ops->log(b->arg, level < 0 ? 0 : level > 4 ? 4 : level, text ? text : "");
}

static void host_count(struct tos_ext *x, const char *name, uint64_t delta)
{
	struct body *b = body_of(x);

	b->ops->count(b->arg, name, delta);
}

static struct prop *prop_find(struct body *b, const char *path)
{
	for (size_t i = 0; i < b->n_props; i++)
		if (strcmp(b->prop[i].spec->path, path) == 0)
			return &b->prop[i];
	return NULL;
}

static const char *host_property(struct tos_ext *x, const char *path)
{
	struct prop *p = prop_find(body_of(x), path);

	return p ? p->value : NULL;
}

static int prop_set(struct prop *p, const char *value)
{
	int rc = body_value_ok(p->spec->type, p->spec->min, p->spec->max, value);

	return rc < 0 ? rc : text_copy(p->value, sizeof(p->value), value, strlen(value));
}

static int host_property_set(struct tos_ext *x, const char *path, const char *value)
{
	struct body *b = body_of(x);
	struct prop *p = prop_find(b, path);
	int rc;

	if (!p)
		return ERR_NOT_FOUND;
	if (!p->spec->read_only)
		return ERR_DENIED;
	rc = prop_set(p, value);
	if (!rc)
		b->ops->property(b->arg, path, p->value);
	return rc;
}

static const char *host_kernel_name(struct tos_ext *x)
{
	return body_of(x)->kernel;
}

static void *host_data(struct tos_ext *x)
{
	return body_of(x)->data;
}

static void host_set_data(struct tos_ext *x, void *data)
{
	body_of(x)->data = data;
}

static int64_t host_now_ms(struct tos_ext *x)
{
	(void)x;
	return clock_ms();
}

/* ---- what is outside ---- */

static const char *host_place(struct tos_ext *x, size_t i)
{
	return tos_as_text(tos_at(body_of(x)->places, i), NULL);
}

static const void *host_trusted(struct tos_ext *x, size_t *n)
{
	struct body *b = body_of(x);

	*n = b->trusted.n;
	return b->trusted.n ? b->trusted.p : NULL;
}

static const char *host_directory(struct tos_ext *x)
{
	return body_of(x)->directory;
}

static struct connecting *connecting_new(
	struct body *b, uint32_t *timeout_ms, tos_connected_fn *done, void *arg)
{
	struct connecting *c = mem_new(struct connecting);

	*timeout_ms = *timeout_ms ? *timeout_ms : 30000;
	*c = (struct connecting){ .number = ++b->next_connect,
		.due = clock_ms() + *timeout_ms + 1000, /* the kernel's answer comes first */
		.done = done,
		.arg = arg,
		.fd = -1 };
	return c;
}

/* rc: whether the kernel was asked. */
static int connecting_begun(struct body *b, struct connecting *c, int rc)
{
	if (rc < 0) {
		free(c);
		return rc;
	}
	list_add(&b->connects, &c->link);
	b->n_connects++;
	due_at(b, c->due);
	return 0;
}

static int host_accept(
	struct tos_ext *x, uint32_t timeout_ms, tos_connected_fn *done, void *arg)
{
	struct body *b = body_of(x);
	struct connecting *c;

	if (!b->ops->accept)
		return ERR_UNSUPPORTED;
	if (!done)
		return ERR_NAME;
	if (b->n_connects >= EXT_CONNECTS_MAX)
		return ERR_LIMIT;
	c = connecting_new(b, &timeout_ms, done, arg);
	return connecting_begun(b, c, b->ops->accept(b->arg, c->number, timeout_ms));
}

static int host_connect(struct tos_ext *x, const char *host, uint16_t port, uint32_t timeout_ms,
	tos_connected_fn *done, void *arg)
{
	struct body *b = body_of(x);
	struct connecting *c;

	if (!b->ops->connect)
		return ERR_UNSUPPORTED;
	if (!host || !*host || strlen(host) > 255 || !port || !done)
		return ERR_NAME;
	if (b->n_connects >= EXT_CONNECTS_MAX)
		return ERR_LIMIT;
	c = connecting_new(b, &timeout_ms, done, arg);
	return connecting_begun(
		b, c, b->ops->connect(b->arg, c->number, host, port, timeout_ms));
}

static int host_watch(struct tos_ext *x, int fd, unsigned events, tos_watch_fn *fn, void *arg)
{
	struct body *b = body_of(x);
	size_t i = 0;

	if (!b->ops->connect)
		return ERR_UNSUPPORTED;
	while (i < b->n_watches && b->watch[i].fd != fd)
		i++;
	if (i == b->n_watches && !events)
		return 0;
	if (!events) {
		b->watch[i] = b->watch[--b->n_watches];
		return 0;
	}
	if (i == EXT_WATCHES_MAX)
		return ERR_LIMIT;
	if (i == b->n_watches)
		b->n_watches++;
	b->watch[i] = (struct watch){ fd, events, 0, fn, arg };
	return 0;
}

static void host_audit(struct tos_ext *x, const char *event, struct tos_value *map)
{
	struct body *b = body_of(x);
	uint8_t *bytes = NULL;
	size_t n;

	if (b->ops->audit && event && tos_type(map) == TOS_MAP &&
		tos_encode(map, &bytes, &n) == 0)
		b->ops->audit(b->arg, event, (struct slice){ bytes, n });
	free(bytes);
	tos_value_free(map);
}

void body_outside(struct body *b, const struct tos_value *places, struct slice trusted,
	const char *directory)
{
	b->directory = mem_strdup(directory);
	b->places = places ? tos_value_copy(places) : NULL;
	blob_set(&b->trusted, trusted);
}

void body_connected(struct body *b, uint64_t number, int rc, const char *text, int fd)
{
	struct list *pos;

	LIST_EACH(pos, &b->connects)
	{
		struct connecting *c = LIST_ITEM(pos, struct connecting, link);

		if (c->number != number || c->answered)
			continue;
		c->answered = true;
		c->rc = rc;
		c->fd = fd;
		snprintf(c->text, sizeof(c->text), "%s", text);
		b->due = clock_ms();
		b->ops->busy(b->arg);
		return;
	}
	mem_close(fd); /* it was given up meanwhile */
}

static void connecting_free(struct body *b, struct connecting *c)
{
	list_del(&c->link);
	b->n_connects--;
	free(c);
}

/* Those that were answered, and those whose time is up; b->due becomes exact. */
static void run_connects(struct body *b, int64_t now)
{
	struct list *pos, *tmp;

	LIST_EACH_SAFE(pos, tmp, &b->connects)
	{
		struct connecting *c = LIST_ITEM(pos, struct connecting, link), done = *c;

		if (!c->answered && c->due > now) {
			if (c->due < b->due)
				b->due = c->due;
			continue;
		}
		connecting_free(b, c);
		if (done.answered)
			done.done(&b->ext, done.arg, done.rc, done.text, done.fd);
		else
			done.done(&b->ext, done.arg, ERR_TIMEOUT, err_text(ERR_TIMEOUT), -1);
	}
}

size_t body_watched(const struct body *b, struct pollfd *out, size_t most)
{
	size_t n = 0;

	for (; n < b->n_watches && n < most; n++)
		out[n] = (struct pollfd){ .fd = b->watch[n].fd,
			.events = (short)((b->watch[n].events & TOS_READABLE ? POLLIN : 0) |
					  (b->watch[n].events & TOS_WRITABLE ? POLLOUT : 0)) };
	return n;
}

size_t body_watching(const struct body *b)
{
	return b->n_watches;
}

static struct watch *watch_of(struct body *b, int fd)
{
	for (size_t i = 0; i < b->n_watches; i++)
		if (b->watch[i].fd == fd)
			return &b->watch[i];
	return NULL;
}

/* Each callback may change what is watched: so all is looked up anew. */
void body_polled(struct body *b, const struct pollfd *in, size_t n)
{
	for (size_t i = 0; b->started && i < n; i++) {
		struct watch *w = in[i].revents ? watch_of(b, in[i].fd) : NULL;
		unsigned so = 0;

		if (!w)
			continue;
		if (in[i].revents & (POLLIN | POLLHUP | POLLERR | POLLNVAL))
			so |= w->events & TOS_READABLE;
		if (in[i].revents & (POLLOUT | POLLHUP | POLLERR | POLLNVAL))
			so |= w->events & TOS_WRITABLE;
		if (so)
			w->fn(&b->ext, w->arg, w->fd, so);
	}
}

static void outside_free(struct body *b)
{
	struct list *pos, *tmp;

	LIST_EACH_SAFE(pos, tmp, &b->connects)
	{
		struct connecting *c = LIST_ITEM(pos, struct connecting, link);

		mem_close(c->fd);
		connecting_free(b, c);
	}
	tos_value_free(b->places);
	free(b->directory);
	blob_free(&b->trusted);
}

static const struct tos_host_table host_table = {
	.size = sizeof(struct tos_host_table),
	.inbox_size = host_inbox_size,
	.inbox_next = host_inbox_next,
	.reply = host_reply,
	.fail = host_fail,
	.forward = host_forward,
	.post = host_post,
	.call = host_call,
	.timer = host_timer,
	.timer_stop = host_timer_stop,
	.log = host_log,
	.count = host_count,
	.property = host_property,
	.property_set = host_property_set,
	.kernel_name = host_kernel_name,
	.data = host_data,
	.set_data = host_set_data,
	.now_ms = host_now_ms,
	.place = host_place,
	.connect = host_connect,
	.watch = host_watch,
	.trusted = host_trusted,
	.audit = host_audit,
	.directory = host_directory,
	.accept = host_accept,
};

/* ---- the checks ---- */

bool body_inbox_name_ok(const char *s)
{
	size_t n = 1;

	if (!s || *s < 'A' || *s > 'Z')
		return false;
	for (; s[n]; n++)
		if (!isalnum((unsigned char)s[n]) && s[n] != '-' && s[n] != '.')
			return false;
	return n <= 63;
}

static bool extension_name_ok(const char *s)
{
	size_t n = 0;

	for (; s && s[n]; n++)
		if (!islower((unsigned char)s[n]) && !isdigit((unsigned char)s[n]) &&
			s[n] != '-' && s[n] != '.' && s[n] != '_')
			return false;
	return n >= 1 && n <= 63;
}

static bool path_ok(const char *s)
{
	size_t n = 0;

	for (; s && s[n]; n++)
		if (!isalnum((unsigned char)s[n]) && !strchr("_-./", s[n]))
			return false;
	return n >= 1 && n <= 63 && *s != '/';
}

int body_value_ok(const char *type, int64_t min, int64_t max, const char *value)
{
	bool bounded = min || max;
	int64_t i;
	double d;
	char *end;

	if (!type || !value || strlen(value) >= EXT_VALUE_BYTES ||
		!text_utf8(value, strlen(value)))
		return ERR_MALFORMED;
	if (strcmp(type, "text") == 0)
		return 0;
	if (strcmp(type, "bool") == 0)
		return strcmp(value, "true") == 0 || strcmp(value, "false") == 0
			       ? 0
			       : ERR_MALFORMED;
	if (strcmp(type, "int") == 0)
		return text_int(value, bounded ? min : INT64_MIN, bounded ? max : INT64_MAX,
			       &i) < 0
			       ? ERR_MALFORMED
			       : 0;
	if (strcmp(type, "float") != 0)
		return ERR_MALFORMED;
	d = strtod(value, &end);
	if (end == value || *end || !isfinite(d))
		return ERR_MALFORMED;
	return bounded && (d < (double)min || d > (double)max) ? ERR_MALFORMED : 0;
}

static int check_inboxes(const struct tos_inbox_spec *in, struct errmsg *em)
{
	size_t n = 0;

	for (; in && in[n].name; n++) {
		if (n == EXT_INBOXES_MAX)
			return err_set(em, ERR_MALFORMED, "declares more than %d inboxes",
				EXT_INBOXES_MAX);
		if (!body_inbox_name_ok(in[n].name))
			return err_set(
				em, ERR_NAME, "\"%.64s\" is no name for an inbox", in[n].name);
		if (!in[n].wake)
			return err_set(em, ERR_MALFORMED, "inbox %s has no function to wake",
				in[n].name);
		for (size_t i = 0; i < n; i++)
			if (strcmp(in[i].name, in[n].name) == 0)
				return err_set(
					em, ERR_EXISTS, "declares inbox %s twice", in[n].name);
	}
	return n ? 0 : err_set(em, ERR_MALFORMED, "declares no inbox");
}

static int check_properties(const struct tos_property_spec *p, struct errmsg *em)
{
	for (size_t n = 0; p && p[n].path; n++) {
		if (n == EXT_PROPERTIES_MAX)
			return err_set(em, ERR_MALFORMED, "declares more than %d properties",
				EXT_PROPERTIES_MAX);
		if (!path_ok(p[n].path))
			return err_set(
				em, ERR_NAME, "\"%.64s\" is no path of a property", p[n].path);
		if (body_value_ok(p[n].type, p[n].min, p[n].max, p[n].value ? p[n].value : "") <
			0)
			return err_set(em, ERR_MALFORMED,
				"property %s has a type or a default that does not fit",
				p[n].path);
	}
	return 0;
}

int body_check(const struct tos_extension *spec, struct errmsg *em)
{
	int rc;

	if (spec->abi_major != TOS_ABI_MAJOR || spec->abi_minor > TOS_ABI_MINOR)
		return err_set(em, ERR_VERSION, "is built for ABI %u.%u; this kernel has %u.%u",
			spec->abi_major, spec->abi_minor, TOS_ABI_MAJOR, TOS_ABI_MINOR);
	if (spec->size != sizeof(*spec)) /* 1.0 is the only minor so far */
		return err_set(em, ERR_VERSION, "has a constant of %u bytes instead of %zu",
			spec->size, sizeof(*spec));
	if (!extension_name_ok(spec->name))
		return err_set(em, ERR_NAME, "has no name in lower case");
	rc = check_inboxes(spec->inboxes, em);
	return rc < 0 ? rc : check_properties(spec->properties, em);
}

static bool word_in(const char *word, size_t n, const char *words)
{
	for (const char *p = words; p && *p;) {
		size_t len;

		p += strspn(p, " ,");
		len = strcspn(p, " ,");
		if (len == n && memcmp(p, word, n) == 0)
			return true;
		p += len;
	}
	return false;
}

int body_privileges_ok(const char *asked, const char *granted, struct errmsg *em)
{
	for (const char *p = asked; p && *p;) {
		size_t n;

		p += strspn(p, " ,");
		n = strcspn(p, " ,");
		if (n && !word_in(p, n, granted))
			return err_set(em, ERR_DENIED,
				"needs the privilege %.*s, which the configuration does not "
				"grant",
				(int)n, p);
		p += n;
	}
	return 0;
}

/* ---- life ---- */

int body_new(const struct tos_extension *spec, const char *kernel, uint64_t first_seq,
	const struct body_ops *ops, void *arg, struct body **out)
{
	struct body *b = mem_new(struct body);

	b->ext.host = &host_table;
	b->spec = spec;
	b->ops = ops;
	b->arg = arg;
	b->next_seq = first_seq;
	b->due = NEVER;
	list_init(&b->calls);
	list_init(&b->answers);
	list_init(&b->timers);
	list_init(&b->connects);
	b->by_seq = map_new();
	snprintf(b->kernel, sizeof(b->kernel), "%s", kernel);
	for (; spec->inboxes && spec->inboxes[b->n_inboxes].name; b->n_inboxes++) {
		struct tos_inbox *in = &b->inbox[b->n_inboxes];

		must(b->n_inboxes < EXT_INBOXES_MAX);
		*in = (struct tos_inbox){ .host = &host_table,
			.body = b,
			.spec = &spec->inboxes[b->n_inboxes],
			.wake_at = NEVER };
		list_init(&in->items);
	}
	for (; spec->properties && spec->properties[b->n_props].path; b->n_props++) {
		struct prop *p = &b->prop[b->n_props];

		must(b->n_props < EXT_PROPERTIES_MAX);
		p->spec = &spec->properties[b->n_props];
		snprintf(
			p->value, sizeof(p->value), "%s", p->spec->value ? p->spec->value : "");
	}
	*out = b;
	return 0;
}

static void free_calls(struct list *l)
{
	struct list *pos, *tmp;

	LIST_EACH_SAFE(pos, tmp, l)
	call_free(LIST_ITEM(pos, struct call, link));
	list_init(l);
}

void body_free(struct body *b)
{
	struct list *pos, *tmp;

	if (!b)
		return;
	for (size_t i = 0; i < b->n_inboxes; i++) {
		inbox_give_back(&b->inbox[i]);
		LIST_EACH_SAFE(pos, tmp, &b->inbox[i].items)
		item_free(LIST_ITEM(pos, struct item, link));
	}
	free_calls(&b->calls);
	free_calls(&b->answers);
	LIST_EACH_SAFE(pos, tmp, &b->timers)
	timer_drop(LIST_ITEM(pos, struct tos_timer, link));
	map_free(b->by_seq);
	outside_free(b);
	free(b);
}

int body_configure(struct body *b, const char *path, const char *value, struct errmsg *em)
{
	struct prop *p = prop_find(b, path);

	if (!p)
		return err_set(em, ERR_NOT_FOUND, "has no property %s", path);
	if (prop_set(p, value) < 0)
		return err_set(em, ERR_MALFORMED,
			"property %s: \"%s\" is no %s within its bounds", path, value,
			p->spec->type);
	return 0;
}

int body_start(struct body *b, struct errmsg *em)
{
	int rc = b->spec->start ? b->spec->start(&b->ext) : 0;
	int64_t now = clock_ms();

	if (rc != 0)
		return err_set(em, rc < 0 ? rc : ERR_FAULT, "its start failed: %s",
			err_text(rc < 0 ? rc : ERR_FAULT));
	b->started = true;
	for (size_t i = 0; i < b->n_inboxes; i++)
		if (b->inbox[i].spec->wait_ms)
			b->inbox[i].wake_at = now + b->inbox[i].spec->wait_ms;
	b->ops->busy(b->arg);
	return 0;
}

void body_stop(struct body *b)
{
	if (b->started && b->spec->stop)
		b->spec->stop(&b->ext);
	b->started = false;
}

/* ---- what comes in ---- */

static struct tos_inbox *inbox_find(struct body *b, const char *name)
{
	for (size_t i = 0; i < b->n_inboxes; i++)
		if (strcmp(b->inbox[i].spec->name, name) == 0)
			return &b->inbox[i];
	return NULL;
}

int body_deliver(struct body *b, const char *inbox, const struct post *p, uint64_t token,
	uint32_t deadline_ms, const struct tos_value *info)
{
	struct tos_inbox *in = inbox_find(b, inbox);
	struct item *it;

	if (!in)
		return ERR_NO_INBOX;
	it = mem_try(sizeof(*it) + p->folder.n);
	if (!it)
		return ERR_NOMEM;
	*it = (struct item){ .token = token,
		.deadline_at = token ? clock_ms() + deadline_ms : 0,
		.folder = { (uint8_t *)(it + 1), p->folder.n },
		.info = info ? tos_value_copy(info) : tos_map() };
	if (!it->info) {
		free(it);
		return ERR_NOMEM;
	}
	if (p->folder.n)
		memcpy(it + 1, p->folder.p, p->folder.n);
	text_copy(it->sender, sizeof(it->sender), (const char *)p->sender.p, p->sender.n);
	list_add(&in->items, &it->link);
	in->n++;
	in->posted = true;
	b->ops->busy(b->arg);
	return 0;
}

void body_drain(struct body *b)
{
	struct list *pos, *tmp;

	for (size_t i = 0; i < b->n_inboxes; i++) {
		struct tos_inbox *in = &b->inbox[i];

		LIST_EACH_SAFE(pos, tmp, &in->items)
		item_free(LIST_ITEM(pos, struct item, link));
		list_init(&in->items);
		in->n = 0;
		in->posted = false;
	}
}

/* A failure's folder is ["failure", [word, text]]. */
static void call_failed(struct call *c)
{
	const char *word = tos_as_text(tos_at(c->elements, 0), "unknown");

	c->rc = err_from_word(word, strlen(word));
	snprintf(c->text, sizeof(c->text), "%s",
		tos_as_text(tos_at(c->elements, 1), err_text(c->rc)));
	tos_value_free(c->elements);
	c->elements = NULL;
	c->folder[0] = 0;
}

void body_answer(struct body *b, uint64_t seq, enum post_kind kind, struct slice folder)
{
	struct call *c = map_find(b->by_seq, &seq, sizeof(seq));

	if (!c)
		return;
	map_del(b->by_seq, &seq, sizeof(seq));
	list_del(&c->link);
	c->rc = folder_decode(folder, c->folder, &c->elements);
	if (c->rc < 0)
		snprintf(c->text, sizeof(c->text), "%s", err_text(c->rc));
	else if (kind == POST_FAILURE)
		call_failed(c);
	list_add(&b->answers, &c->link);
	b->ops->busy(b->arg);
}

/* ---- calling the extension ---- */

/* What was lent to the extension ends with the return to us. */
static void take_back(struct body *b)
{
	for (size_t i = 0; i < b->n_inboxes; i++)
		inbox_give_back(&b->inbox[i]);
}

static void run_answers(struct body *b)
{
	struct list now;

	/* Only those that are there now: what an answer leads to waits for the next round. */
	list_init(&now);
	list_take(&b->answers, &now);
	while (!list_empty(&now)) {
		struct call *c = LIST_ITEM(now.next, struct call, link);

		list_del(&c->link);
		b->n_calls--;
		if (c->done)
			c->done(&b->ext, c->arg, c->rc, c->text, c->folder, c->elements);
		call_free(c);
		take_back(b);
	}
}

/* Calls whose time is up get timed-out as their answer; b->due becomes exact again. */
static void expire_calls(struct body *b, int64_t now)
{
	struct list *pos, *tmp;

	LIST_EACH_SAFE(pos, tmp, &b->calls)
	{
		struct call *c = LIST_ITEM(pos, struct call, link);

		if (c->due > now) {
			if (c->due < b->due)
				b->due = c->due;
			continue;
		}
		map_del(b->by_seq, &c->seq, sizeof(c->seq));
		list_del(&c->link);
		c->rc = ERR_TIMEOUT;
		snprintf(c->text, sizeof(c->text), "%s", err_text(ERR_TIMEOUT));
		list_add(&b->answers, &c->link);
	}
}

static struct tos_timer *timer_due(struct body *b, int64_t now)
{
	struct list *pos;

	LIST_EACH(pos, &b->timers)
	{
		struct tos_timer *t = LIST_ITEM(pos, struct tos_timer, link);

		if (t->due <= now)
			return t;
		if (t->due < b->due)
			b->due = t->due;
	}
	return NULL;
}

static void run_timers(struct body *b, int64_t now)
{
	struct tos_timer *t;

	/* From the start each time: a timer's function may stop any other one. A timer that it
	 * starts is never due before now + 0, so bound the rounds by those there are. */
	for (size_t left = b->n_timers; left && (t = timer_due(b, now)); left--) {
		void (*fn)(struct tos_ext *, void *) = t->fn;
		void *arg = t->arg;

		timer_drop(t);
		fn(&b->ext, arg);
		take_back(b);
	}
	timer_due(b, INT64_MIN); /* for b->due alone */
}

static void run_inboxes(struct body *b, int64_t now)
{
	for (size_t i = 0; i < b->n_inboxes; i++) {
		struct tos_inbox *in = &b->inbox[i];

		if (!in->posted && in->wake_at > now)
			continue;
		in->posted = false;
		if (in->spec->wait_ms)
			in->wake_at = now + in->spec->wait_ms;
		in->spec->wake(&b->ext, in);
		take_back(b);
	}
}

int64_t body_run(struct body *b)
{
	int64_t now = clock_ms(), due;

	if (!b->started)
		return -1;
	if (b->due <= now) {
		b->due = NEVER;
		expire_calls(b, now);
		run_connects(b, now);
		run_timers(b, now);
	}
	run_answers(b);
	run_inboxes(b, now);

	due = list_empty(&b->answers) ? b->due : now;
	for (size_t i = 0; i < b->n_inboxes; i++) {
		if (b->inbox[i].posted)
			due = now;
		else if (b->inbox[i].wake_at < due)
			due = b->inbox[i].wake_at;
	}
	if (due == NEVER)
		return -1;
	now = clock_ms();
	return due > now ? due - now : 0;
}
