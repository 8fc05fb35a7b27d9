/* What of the outside an extension has (tos-ext only); see body.h. */
#include "ext/body_in.h"

#include <poll.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"

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

const char *host_place(struct tos_ext *x, size_t i)
{
	return tos_as_text(tos_at(body_of(x)->places, i), NULL);
}

const void *host_trusted(struct tos_ext *x, size_t *n)
{
	struct body *b = body_of(x);

	*n = b->trusted.n;
	return b->trusted.n ? b->trusted.p : NULL;
}

const char *host_directory(struct tos_ext *x)
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
	body_due(b, c->due);
	return 0;
}

int host_accept(struct tos_ext *x, uint32_t timeout_ms, tos_connected_fn *done, void *arg)
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

int host_connect(struct tos_ext *x, const char *host, uint16_t port, uint32_t timeout_ms,
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

int host_watch(struct tos_ext *x, int fd, unsigned events, tos_watch_fn *fn, void *arg)
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

void host_audit(struct tos_ext *x, const char *event, struct tos_value *map)
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
void outside_run(struct body *b, int64_t now)
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

void outside_free(struct body *b)
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
