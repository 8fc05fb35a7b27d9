/* A line server: each line that somebody sends to its address is posted to the inbox of its property `to`, with RELEASE
 * before it, and answered by "RELEASE: the line". What is posted to its own inbox, for tests: "write" NAME TEXT and "read" NAME
 * in its directory, "open" PATH, "make" PATH, "tcp" PORT, "bind", "accept", "link" PATH: the answer is what came of it, a
 * text or the name of an errno; "version", "crash", "fill" NAME BYTES, "stop" TEXT (said when it stops). RELEASE, INBOX and PRIVILEGES as of greeter.c. */
#define _GNU_SOURCE
#include <tos/extension.h>

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#ifndef PRIVILEGES
#define PRIVILEGES "net-in directory"
#endif
#define MOST 8

struct line {
	int fd;
	size_t n;
	char bytes[512];
};
static struct line lines[MOST];
static size_t n_lines;
static bool asked;

static void ask(struct tos_ext *x);

static void hang_up(struct tos_ext *x, struct line *l)
{
	tos_watch(x, l->fd, 0, NULL, NULL);
	close(l->fd);
	l->fd = 0;
	n_lines--;
	ask(x);
}

static void one_line(struct tos_ext *x, struct line *l, const char *text)
{
	struct tos_value *v = tos_array();
	char answer[600];
	int n = snprintf(answer, sizeof(answer), RELEASE ": %s\n", text);

	tos_push(v, tos_textf(RELEASE ": %s", text));
	tos_post(x, tos_property(x, "to"), "line", v);
	tos_count(x, "lines", 1);
	if (write(l->fd, answer, (size_t)n) != n)
		tos_count(x, "unwritten", 1);
}

static void on_bytes(struct tos_ext *x, void *arg, int fd, unsigned events)
{
	struct line *l = arg;
	ssize_t n = read(fd, l->bytes + l->n, sizeof(l->bytes) - 1 - l->n);
	char *end;

	(void)events;
	if (n < 0 && errno == EAGAIN)
		return;
	if (n <= 0) {
		hang_up(x, l);
		return;
	}
	l->n += (size_t)n;
	l->bytes[l->n] = 0;
	while ((end = strchr(l->bytes, '\n'))) {
		*end = 0;
		one_line(x, l, l->bytes);
		l->n -= (size_t)(end + 1 - l->bytes);
		memmove(l->bytes, end + 1, l->n + 1);
	}
	if (l->n == sizeof(l->bytes) - 1)
		hang_up(x, l);
}

static void on_accepted(struct tos_ext *x, void *arg, int rc, const char *text, int fd)
{
	struct line *l = lines;

	(void)arg;
	asked = false;
	if (rc == 0) {
		while (l->fd)
			l++;
		*l = (struct line){ .fd = fd };
		n_lines++;
		tos_watch(x, fd, TOS_READABLE, on_bytes, l);
	} else if (rc != -21) {
		tos_log(x, 2, text);
		return;
	}
	ask(x);
}

static void ask(struct tos_ext *x)
{
	if (!asked && n_lines < MOST)
		asked = tos_accept(x, 5000, on_accepted, NULL) == 0;
}

/* ---- what a test asks */

static struct tos_value *outcome(long rc)
{
	return tos_text(rc >= 0 ? "done" : strerrorname_np(errno));
}

static const char *path_of(struct tos_ext *x, const char *name)
{
	static char path[512];

	if (name[0] == '/')
		return name;
	snprintf(path, sizeof(path), "%s/%s", tos_directory(x) ? tos_directory(x) : "/none",
		name);
	return path;
}

static struct tos_value *store(const char *path, const char *text, size_t n)
{
	char part[520];
	int fd;
	ssize_t w;

	snprintf(part, sizeof(part), "%s.part", path);
	fd = open(part, O_WRONLY | O_CREAT | O_TRUNC, 0644);
	if (fd < 0)
		return outcome(-1);
	w = write(fd, text, n);
	if (w >= 0 && fsync(fd) == 0 && rename(part, path) == 0)
		errno = 0;
	close(fd);
	return w < 0 ? outcome(-1) : errno ? outcome(-1) : tos_textf("%zd", w);
}

static struct tos_value *load(const char *path)
{
	char text[256] = "";
	int fd = open(path, O_RDONLY);
	ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);

	if (fd >= 0)
		close(fd);
	return n < 0 ? outcome(-1) : tos_text(text);
}

static struct tos_value *reach(int port)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons((uint16_t)port) };
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	return outcome(fd < 0 ? -1 : connect(fd, (struct sockaddr *)&a, sizeof(a)));
}

static struct tos_value *fill(const char *path, size_t n)
{
	static char block[65536];
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
	ssize_t w = 0;

	for (size_t done = 0; fd >= 0 && done < n && w >= 0; done += sizeof(block))
		w = write(fd, block, sizeof(block));
	if (fd < 0 || w < 0)
		return outcome(-1);
	close(fd);
	return tos_text("done");
}

static char last_words[128];

static struct tos_value *obey(struct tos_ext *x, const struct tos_message *m)
{
	const char *what = tos_as_text(tos_at(m->elements, 0), "");
	const char *name = tos_as_text(tos_at(m->elements, 1), "");
	const char *text = tos_as_text(tos_at(m->elements, 2), "");
	struct sockaddr_in any = { .sin_family = AF_INET };

	if (strcmp(what, "version") == 0)
		return tos_text(RELEASE);
	if (strcmp(what, "directory") == 0)
		return tos_text(tos_directory(x) ? tos_directory(x) : "none");
	if (strcmp(what, "to") == 0)
		return tos_text(tos_property(x, "to"));
	if (strcmp(what, "write") == 0)
		return store(path_of(x, name), text, strlen(text));
	if (strcmp(what, "read") == 0 || strcmp(what, "open") == 0)
		return load(path_of(x, name));
	if (strcmp(what, "make") == 0)
		return outcome(mkdir(path_of(x, name), 0700));
	if (strcmp(what, "link") == 0)
		return outcome(symlink("/etc/passwd", path_of(x, name)));
	if (strcmp(what, "run") == 0)
		return outcome(chmod(path_of(x, name), 04755));
	if (strcmp(what, "fill") == 0)
		return fill(path_of(x, name), (size_t)tos_as_int(tos_at(m->elements, 2), 0));
	if (strcmp(what, "tcp") == 0)
		return reach((int)tos_as_int(tos_at(m->elements, 1), 0));
	if (strcmp(what, "bind") == 0)
		return outcome(bind(lines[0].fd, (struct sockaddr *)&any, sizeof(any)));
	if (strcmp(what, "accept") == 0)
		return outcome(accept(lines[0].fd, NULL, NULL));
	if (strcmp(what, "stop") == 0) {
		snprintf(last_words, sizeof(last_words), "%s", name);
		return tos_text("done");
	}
	if (strcmp(what, "crash") == 0)
		abort();
	return tos_text("what?");
}

static void why_not(struct tos_ext *x, void *arg, int rc, const char *text, int fd)
{
	uint64_t *token = arg;

	(tos_fail)(x, *token, rc < 0 ? rc : -1, text);
	if (fd >= 0)
		close(fd);
	free(token);
}

static void wake(struct tos_ext *x, struct tos_inbox *in)
{
	struct tos_message m;

	while (tos_inbox_next(in, &m)) {
		struct tos_value *a;

		if (strcmp(tos_as_text(tos_at(m.elements, 0), ""), "ask") == 0) {
			uint64_t *token = malloc(sizeof(*token));

			*token = m.token;
			tos_accept(x, 1000, why_not, token);
			continue;
		}
		a = tos_array();
		tos_push(a, obey(x, &m));
		if (m.token)
			tos_reply(x, m.token, "ok", a);
		else
			tos_value_free(a);
	}
}

static int start(struct tos_ext *x)
{
	ask(x);
	return 0;
}

static void stop(struct tos_ext *x)
{
	if (last_words[0])
		tos_log(x, 2, last_words);
}

static const struct tos_inbox_spec inboxes[] = { { .name = INBOX, .wake = wake }, { 0 } };
static const struct tos_property_spec properties[] = { { .path = "to",
							       .type = "text",
							       .unit = "",
							       .doc = "where lines are posted",
							       .value = "Echo" },
	{ .path = "most",
		.type = "int",
		.unit = "",
		.doc = "a number",
		.min = 1,
		.max = 9,
		.value = "3" },
	{ 0 } };

const struct tos_extension tos_extension = { TOS_ABI, .name = "lines",
	.doc = "A line server of a test.", .inboxes = inboxes, .properties = properties,
	.privileges = PRIVILEGES, .start = start, .stop = stop };
