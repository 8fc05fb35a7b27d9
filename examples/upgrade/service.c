/*
 * Service: hands what carriers ask to the host's service manager, a process of the host's own behind
 * a Unix socket (in the folder that property `sockets` names), and its answer back. An example of an extension that joins TOS to
 * what a host has already; runs in the kernel's process, so nothing here waits.
 *
 * A request is a line "VERB argument", an answer a line "ok NAME=VALUE ..." or "fail CODE text".
 */
#include <tos/extension.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define LOOK_MS   5
#define LINE_MAX_ 1024

struct order {
	int fd;
	uint64_t token;
	int64_t until;
	char line[LINE_MAX_];
	size_t n;
};

static void order_end(struct order *o)
{
	close(o->fd);
	free(o);
}

/* "NAME=VALUE NAME=VALUE" */
static struct tos_value *answer_map(char *text)
{
	struct tos_value *all = tos_array(), *map = tos_map();
	char *rest = NULL;

	for (char *word = strtok_r(text, " ", &rest); word; word = strtok_r(NULL, " ", &rest)) {
		char *equals = strchr(word, '=');

		if (!equals)
			continue;
		*equals = '\0';
		tos_set(map, word, tos_text(equals + 1));
	}
	tos_push(all, map);
	return all;
}

static void answered(struct tos_ext *x, struct order *o)
{
	o->line[o->n] = '\0';
	o->line[strcspn(o->line, "\n")] = '\0';
	if (strncmp(o->line, "ok", 2) == 0)
		tos_reply(x, o->token, "ok", answer_map(o->line + 2));
	else if (strncmp(o->line, "fail ", 5) == 0)
		tos_fail(x, o->token, TOS_ERR_REFUSED, o->line + 5);
	else
		tos_fail(x, o->token, TOS_ERR_IO, "the service manager gave no answer");
	order_end(o);
}

static void look(struct tos_ext *x, void *arg)
{
	struct order *o = arg;
	ssize_t n = recv(o->fd, o->line + o->n, sizeof(o->line) - 1 - o->n, MSG_DONTWAIT);

	if (n > 0)
		o->n += (size_t)n;
	if (n == 0 || memchr(o->line, '\n', o->n) || o->n == sizeof(o->line) - 1) {
		answered(x, o);
	} else if (n < 0 && errno != EAGAIN && errno != EINTR) {
		tos_fail(
			x, o->token, TOS_ERR_IO, "the connection to the service manager broke");
		order_end(o);
	} else if (tos_now_ms(x) > o->until || !tos_timer(x, LOOK_MS, look, o)) {
		tos_fail(x, o->token, TOS_ERR_TIMEOUT, "the service manager does not answer");
		order_end(o);
	}
}

static int reach(struct tos_ext *x)
{
	struct sockaddr_un at = { .sun_family = AF_UNIX };
	int n = snprintf(at.sun_path, sizeof(at.sun_path), "%s/%s.sock",
		tos_property(x, "sockets"), tos_kernel_name(x));
	int fd = n >= (int)sizeof(at.sun_path)
			 ? -1
			 : socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	if (fd < 0)
		return -1;
	if (connect(fd, (struct sockaddr *)&at, sizeof(at)) == 0)
		return fd;
	close(fd);
	return -1;
}

static void order(struct tos_ext *x, const struct tos_message *m)
{
	const char *what = tos_as_text(tos_at(m->elements, 0), "");
	struct order *o;
	char line[LINE_MAX_];
	int n = snprintf(line, sizeof(line), "%s %s\n", m->folder, what), fd;

	if (n >= (int)sizeof(line) || strchr(what, '\n') || !m->token) {
		tos_fail(x, m->token, TOS_ERR_MALFORMED, "one word or none, please");
		return;
	}
	fd = reach(x);
	o = fd < 0 ? NULL : calloc(1, sizeof(*o));
	if (!o || send(fd, line, (size_t)n, MSG_NOSIGNAL) != n) {
		tos_fail(x, m->token, TOS_ERR_IO, "the service manager can't be reached");
		free(o);
		if (fd >= 0)
			close(fd);
		return;
	}
	o->fd = fd;
	o->token = m->token;
	o->until = tos_now_ms(x) + m->deadline_ms;
	tos_timer(x, LOOK_MS, look, o);
}

static void wake(struct tos_ext *x, struct tos_inbox *in)
{
	struct tos_message m;

	while (tos_inbox_next(in, &m))
		order(x, &m);
}

static const struct tos_inbox_spec inboxes[] = {
	{ .name = "Service",
		.doc = "the host's service manager",
		.wake = wake,
		.bound = 16,
		.protocol =
			"STATUS, STAGE digest, SWITCH digest, DROP digest -> ok {...} | refused" },
	{ 0 },
};

static const struct tos_property_spec properties[] = {
	{ "sockets", "text", "", "Folder of the service manager's socket, KERNEL.sock.", 0, 0,
		"/run/services", false },
	{ 0 },
};

const struct tos_extension tos_extension = {
	TOS_ABI,
	.name = "service",
	.doc = "Asks the host's service manager.",
	.inboxes = inboxes,
	.properties = properties,
};
