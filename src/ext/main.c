/*
 * tos-ext --describe LIBRARY writes what it declares (the `hello`) to standard output, for whoever
 * makes a package of it; no sandbox then, and it is not started.
 *
 * tos-ext NAME [LIBRARY]: one isolated extension in a process of its own, with just the
 * privileges that it declares; the sandbox is around it before this program begins. Talks to
 * the kernel on descriptor 3 (wire/extproto.h) and to nobody else. Where LIBRARY is left out it
 * is /ext.so, which the sandbox puts there, or else what lies on descriptor 4. Exits 0 when
 * told to stop or when the kernel is gone, 1 when it can't go on.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <tos/value.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/map.h"
#include "base/mem.h"
#include "base/text.h"
#include "ext/body.h"
#include "ext/load.h"
#include "ext/script.h"
#include "wire/extproto.h"
#include "wire/frame.h"

#define KERNEL_FD      3
#define LIBRARY_COPY   "/ext.so"
#define LIBRARY_FD     "/proc/self/fd/4"
#define OUT_BYTES_MOST ((size_t)4 << 20) /* above that, wait until the kernel has read */
#define WRITE_MS       10000
#define LAST_MS        500 /* for what its stop() says; the kernel listens no longer either */
#define FDS_MAX        16

struct side {
	struct body *body;
	const struct tos_extension *spec;
	const char *directory; /* where it may write; NULL: nowhere */
	struct frame_reader in;
	struct buf out;
	struct map *tokens; /* calls to be answered: number to deadline */
	bool stop;
	size_t watching,
		came; /* descriptors watched, sockets that came; and what the kernel was told */
	size_t watching_told, came_told;
	int fds[FDS_MAX]; /* that came and whose frame did not yet */
	size_t n_fds;
};

struct owed {
	uint64_t token;
	int64_t due;
};

static _Noreturn void give_up(const char *why)
{
	log_error("tos-ext ends", KV_STR("reason", why));
	exit(1);
}

/* ---- out ---- */

static void write_some(struct side *s)
{
	while (s->out.len) {
		ssize_t n = write(KERNEL_FD, s->out.data, s->out.len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
			return;
		if (n <= 0)
			exit(0); /* the kernel is gone */
		buf_shift(&s->out, (size_t)n);
	}
}

/* An extension that says much waits for the kernel here, so that what it says stays bounded. */
static void write_until_small(struct side *s)
{
	int64_t until = clock_ms() + WRITE_MS;

	while (s->out.len > OUT_BYTES_MOST) {
		struct pollfd p = { .fd = KERNEL_FD, .events = POLLOUT };

		if (clock_ms() > until)
			give_up("the kernel does not read");
		poll(&p, 1, 1000);
		write_some(s);
	}
}

static void write_last(struct side *s)
{
	int64_t until = clock_ms() + LAST_MS;

	write_some(s);
	while (s->out.len && clock_ms() < until) {
		struct pollfd p = { .fd = KERNEL_FD, .events = POLLOUT };

		poll(&p, 1, 100);
		write_some(s);
	}
}

static size_t out_begin(struct side *s, enum ext_frame type, unsigned fields)
{
	size_t at = frame_begin(&s->out);

	cbor_put_array(&s->out, fields + 1);
	cbor_put_uint(&s->out, type);
	return at;
}

static void out_end(struct side *s, size_t at)
{
	frame_end(&s->out, at);
	if (buf_check(&s->out) < 0)
		give_up("out of memory");
	write_until_small(s);
}

static void out_text(struct side *s, const char *text)
{
	char whole[EXT_TEXT_BYTES_MAX + 1];

	snprintf(whole, sizeof(whole), "%s", text);
	text_mend(whole);
	cbor_put_text(&s->out, whole);
}

static int on_send(void *arg, enum post_kind kind, const char *dest, uint64_t seq,
	uint32_t deadline_ms, struct slice folder)
{
	struct side *s = arg;
	size_t at = out_begin(s, EXT_SEND, 5);

	cbor_put_uint(&s->out, kind);
	cbor_put_text(&s->out, dest);
	cbor_put_uint(&s->out, seq);
	cbor_put_uint(&s->out, deadline_ms);
	cbor_put_raw(&s->out, folder);
	out_end(s, at);
	return 0;
}

/* True once for each token whose deadline has not passed. */
static bool token_spend(struct side *s, uint64_t token)
{
	struct owed *o = map_del(s->tokens, &token, sizeof(token));
	bool ok = o && o->due > clock_ms();

	free(o);
	return ok;
}

static int on_reply(void *arg, uint64_t token, struct slice folder)
{
	struct side *s = arg;
	size_t at;

	if (!token_spend(s, token))
		return ERR_NOT_FOUND;
	at = out_begin(s, EXT_REPLY, 2);
	cbor_put_uint(&s->out, token);
	cbor_put_raw(&s->out, folder);
	out_end(s, at);
	return 0;
}

static int on_fail(void *arg, uint64_t token, int rc, const char *text)
{
	struct side *s = arg;
	size_t at;

	if (!token_spend(s, token))
		return ERR_NOT_FOUND;
	at = out_begin(s, EXT_FAIL, 3);
	cbor_put_uint(&s->out, token);
	cbor_put_int(&s->out, rc < -255 ? ERR_UNKNOWN : rc);
	out_text(s, text);
	out_end(s, at);
	return 0;
}

static int on_forward(void *arg, uint64_t token, const char *kernel)
{
	struct side *s = arg;
	size_t at;

	if (!kernel || !*kernel || strlen(kernel) > 63)
		return ERR_NAME;
	if (!token_spend(s, token))
		return ERR_NOT_FOUND;
	at = out_begin(s, EXT_FORWARD, 2);
	cbor_put_uint(&s->out, token);
	out_text(s, kernel);
	out_end(s, at);
	return 0;
}

static void on_taken(void *arg, const char *inbox, uint32_t n)
{
	struct side *s = arg;
	size_t at = out_begin(s, EXT_TAKEN, 2);

	cbor_put_text(&s->out, inbox);
	cbor_put_uint(&s->out, n);
	out_end(s, at);
}

static void on_log(void *arg, int level, const char *text)
{
	struct side *s = arg;
	size_t at = out_begin(s, EXT_LOG, 2);

	cbor_put_uint(&s->out, (uint64_t)level);
	out_text(s, text);
	out_end(s, at);
}

static void on_count(void *arg, const char *name, uint64_t delta)
{
	struct side *s = arg;
	size_t at, n = name ? strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789_") : 0;

	if (!n || n > 63 || name[n])
		return;
	at = out_begin(s, EXT_COUNT, 2);
	cbor_put_text(&s->out, name);
	cbor_put_uint(&s->out, delta);
	out_end(s, at);
}

static void on_property(void *arg, const char *path, const char *value)
{
	struct side *s = arg;
	size_t at = out_begin(s, EXT_PROPERTY, 2);

	cbor_put_text(&s->out, path);
	cbor_put_text(&s->out, value);
	out_end(s, at);
}

static int on_connect(
	void *arg, uint64_t number, const char *host, uint16_t port, uint32_t timeout_ms)
{
	struct side *s = arg;
	size_t at = out_begin(s, EXT_CONNECT, 4);

	cbor_put_uint(&s->out, number);
	out_text(s, host);
	cbor_put_uint(&s->out, port);
	cbor_put_uint(&s->out, timeout_ms);
	out_end(s, at);
	return 0;
}

static int on_accept(void *arg, uint64_t number, uint32_t timeout_ms)
{
	struct side *s = arg;
	size_t at = out_begin(s, EXT_ACCEPT, 2);

	cbor_put_uint(&s->out, number);
	cbor_put_uint(&s->out, timeout_ms);
	out_end(s, at);
	return 0;
}

static void on_audit(void *arg, const char *event, struct slice map)
{
	struct side *s = arg;
	size_t at = out_begin(s, EXT_AUDIT, 2);

	out_text(s, event);
	cbor_put_raw(&s->out, map);
	out_end(s, at);
}

static void on_busy(void *arg)
{
	(void)arg; /* body_run() comes before each poll */
}

static const struct body_ops ops = {
	.send = on_send,
	.reply = on_reply,
	.fail = on_fail,
	.forward = on_forward,
	.taken = on_taken,
	.log = on_log,
	.count = on_count,
	.property = on_property,
	.busy = on_busy,
	.connect = on_connect,
	.accept = on_accept,
	.audit = on_audit,
};

static void send_failed(struct side *s, int rc, const char *why)
{
	size_t at = out_begin(s, EXT_FAILED, 2);

	cbor_put_int(&s->out, rc);
	out_text(s, why);
	out_end(s, at);
}

static void send_hello(struct side *s)
{
	struct tos_value *v = library_describe(s->spec);
	uint8_t *p = NULL;
	size_t n = 0, at;

	if (!v || tos_encode(v, &p, &n) < 0)
		give_up("out of memory");
	tos_value_free(v);
	at = out_begin(s, EXT_HELLO, 1);
	cbor_put_raw(&s->out, (struct slice){ p, n });
	out_end(s, at);
	free(p);
}

/* ---- in ---- */

static bool c_string(char *dst, size_t cap, struct slice s)
{
	return text_copy(dst, cap, (const char *)s.p, s.n) == 0;
}

static int configure(struct side *s, const struct tos_value *properties, struct errmsg *em)
{
	for (size_t i = 0; i < tos_len(properties); i++) {
		int rc = body_configure(s->body, tos_as_text(tos_key_at(properties, i), ""),
			tos_as_text(tos_value_at(properties, i), ""), em);

		if (rc < 0)
			return rc;
	}
	return 0;
}

static int on_start(struct side *s, struct cbor_cursor *c)
{
	struct slice item = cbor_any(c);
	struct tos_value *v = NULL;
	struct errmsg em = { "" };
	struct slice trusted;
	int rc;

	cbor_close(c);
	if (s->body || cbor_finish(c) < 0 || tos_decode(item.p, item.n, 4 << 20, &v) < 0)
		return ERR_MALFORMED;
	body_new(s->spec, tos_get_text(v, "kernel", ""), (uint64_t)tos_get_int(v, "seq", 1),
		&ops, s, &s->body);
	rc = configure(s, tos_get(v, "properties"), &em);
	trusted.p = tos_get_bytes(v, "trusted", &trusted.n);
	body_outside(s->body, tos_get(v, "places"), trusted, s->directory);
	tos_value_free(v);
	if (!rc)
		rc = body_start(s->body, &em);
	if (rc < 0) {
		send_failed(s, rc, em.text);
		s->stop = true;
	} else {
		out_end(s, out_begin(s, EXT_STARTED, 0));
	}
	return 0;
}

static int on_deliver(struct side *s, struct cbor_cursor *c)
{
	struct slice inbox = cbor_text(c, 1, 63), sender = cbor_text(c, 0, NAME_BYTES_MAX);
	uint64_t token = cbor_uint(c, UINT64_MAX);
	uint32_t deadline_ms = (uint32_t)cbor_uint(c, UINT32_MAX);
	struct slice info = cbor_any(c), folder = cbor_any(c);
	struct tos_value *v = NULL;
	struct post p = {
		.kind = token ? POST_CALL : POST_ONEWAY, .sender = sender, .folder = folder
	};
	char name[64];
	int rc;

	cbor_close(c);
	if (cbor_finish(c) < 0 || !s->body || !c_string(name, sizeof(name), inbox) ||
		tos_decode(info.p, info.n, 0, &v) < 0)
		return ERR_MALFORMED;
	if (token) {
		struct owed *o =
			mem_new(struct owed); /* the kernel bounds how many there are */

		*o = (struct owed){ token, clock_ms() + deadline_ms };
		free(map_put(s->tokens, &token, sizeof(token), o));
	}
	rc = body_deliver(s->body, name, &p, token, deadline_ms, v);
	tos_value_free(v);
	return rc;
}

static int on_drain(struct side *s, struct cbor_cursor *c)
{
	cbor_close(c);
	if (cbor_finish(c) < 0 || !s->body)
		return ERR_MALFORMED;
	body_drain(s->body);
	out_end(s, out_begin(s, EXT_DRAINED, 0));
	return 0;
}

static int on_answer(struct side *s, struct cbor_cursor *c)
{
	uint64_t seq = cbor_uint(c, UINT64_MAX);
	enum post_kind kind = (enum post_kind)cbor_uint(c, POST_FAILURE);
	struct slice folder = cbor_any(c);

	cbor_close(c);
	if (cbor_finish(c) < 0 || !s->body)
		return ERR_MALFORMED;
	body_answer(s->body, seq, kind, folder);
	return 0;
}

/* A connection that the kernel made: the socket came with this frame's first byte. */
static int on_connected(struct side *s, struct cbor_cursor *c)
{
	uint64_t number = cbor_uint(c, UINT64_MAX);
	int64_t code = cbor_int(c);
	struct slice text = cbor_text(c, 0, EXT_TEXT_BYTES_MAX);
	char why[EXT_TEXT_BYTES_MAX + 1];
	int fd = -1;

	cbor_close(c);
	if (cbor_finish(c) < 0 || !s->body || code > 0 || code < -255 ||
		!c_string(why, sizeof(why), text) || (code == 0 && s->n_fds == 0))
		return ERR_MALFORMED;
	if (code == 0) {
		s->came++;
		fd = s->fds[0];
		memmove(s->fds, s->fds + 1, --s->n_fds * sizeof(int));
	}
	body_connected(s->body, number, (int)code, why, fd);
	return 0;
}

static int on_set(struct side *s, struct cbor_cursor *c)
{
	struct slice path = cbor_text(c, 1, 63), value = cbor_text(c, 0, EXT_VALUE_BYTES - 1);
	char name[64], text[EXT_VALUE_BYTES];

	cbor_close(c);
	if (cbor_finish(c) < 0 || !s->body || !c_string(name, sizeof(name), path) ||
		!c_string(text, sizeof(text), value))
		return ERR_MALFORMED;
	return body_configure(s->body, name, text, NULL);
}

static int on_frame(struct side *s, struct slice frame)
{
	struct cbor_cursor c;

	switch (frame_open(&c, frame)) {
	case EXT_START:
		return on_start(s, &c);
	case EXT_DELIVER:
		return on_deliver(s, &c);
	case EXT_ANSWER:
		return on_answer(s, &c);
	case EXT_DRAIN:
		return on_drain(s, &c);
	case EXT_CONNECTED:
		return on_connected(s, &c);
	case EXT_SET:
		return on_set(s, &c);
	case EXT_STOP:
		s->stop = true;
		return 0;
	default:
		return ERR_MALFORMED;
	}
}

/* As read(), and keeps the descriptors that come along. */
static ssize_t receive(struct side *s, uint8_t *bytes, size_t cap)
{
	union {
		char bytes[CMSG_SPACE(FDS_MAX * sizeof(int))];
		struct cmsghdr align;
	} control;
	struct iovec iov = { bytes, cap };
	struct msghdr m = { .msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = control.bytes,
		.msg_controllen = sizeof(control.bytes) };
	ssize_t n = recvmsg(KERNEL_FD, &m, MSG_CMSG_CLOEXEC);

	for (struct cmsghdr *c = n > 0 ? CMSG_FIRSTHDR(&m) : NULL; c; c = CMSG_NXTHDR(&m, c)) {
		size_t count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);

		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		for (size_t i = 0; i < count; i++) {
			int fd;

			memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(int));
			if (s->n_fds == FDS_MAX)
				give_up("the kernel sent too many descriptors");
			s->fds[s->n_fds++] = fd;
		}
	}
	return n;
}

static void read_some(struct side *s)
{
	uint8_t bytes[65536];
	struct slice frame;
	ssize_t n = receive(s, bytes, sizeof(bytes));
	int rc;

	if (n < 0 && (errno == EINTR || errno == EAGAIN || errno == EWOULDBLOCK))
		return;
	if (n <= 0) {
		s->stop = true;
		return;
	}
	if (buf_add(&s->in.in, bytes, (size_t)n) < 0)
		give_up("out of memory");
	while (!s->stop && (rc = frame_next(&s->in, &frame)) != ERR_AGAIN)
		if (rc < 0 || on_frame(s, frame) < 0)
			give_up("the kernel sent a wrong frame");
}

/* Calls that the extension never answered: the kernel has told the callers. */
static void forget_expired(struct side *s)
{
	static int64_t next;
	int64_t now = clock_ms();
	struct owed *o;
	size_t it = 0;

	if (now < next)
		return;
	next = now + 1000;
	while ((o = map_next(s->tokens, &it, NULL, NULL)))
		if (o->due <= now) {
			map_del(s->tokens, &o->token, sizeof(o->token));
			free(o);
		}
}

/* One that is replaced is left alone while somebody is connected to it. */
static void tell_watching(struct side *s)
{
	size_t at;

	s->watching = s->body ? body_watching(s->body) : 0;
	if (s->watching == s->watching_told && s->came == s->came_told)
		return;
	s->watching_told = s->watching;
	s->came_told = s->came;
	at = out_begin(s, EXT_WATCHING, 2);
	cbor_put_uint(&s->out, s->watching);
	cbor_put_uint(&s->out, s->came);
	out_end(s, at);
}

static void serve(struct side *s)
{
	while (!s->stop) {
		struct pollfd p[1 + EXT_WATCHES_MAX] = { { .fd = KERNEL_FD,
			.events = POLLIN } };
		size_t n;
		int64_t wait = s->body ? body_run(s->body) : -1;

		forget_expired(s);
		tell_watching(s);
		write_some(s);
		if (s->out.len)
			p[0].events |= POLLOUT;
		n = s->body ? body_watched(s->body, p + 1, EXT_WATCHES_MAX) : 0;
		if (wait < 0 || wait > 60000)
			wait = 60000;
		if (poll(p, 1 + n, (int)wait) <= 0)
			continue;
		if (p[0].revents & (POLLIN | POLLHUP | POLLERR))
			read_some(s);
		if (s->body && !s->stop)
			body_polled(s->body, p + 1, n);
	}
	if (s->body)
		body_stop(s->body);
	write_last(s);
}

static void side_fini(struct side *s)
{
	struct owed *o;
	size_t it = 0;

	body_free(s->body);
	while ((o = map_next(s->tokens, &it, NULL, NULL))) {
		map_del(s->tokens, &o->token, sizeof(o->token));
		free(o);
	}
	map_free(s->tokens);
	buf_fini(&s->in.in);
	buf_fini(&s->out);
}

static const char *library_path(int argc, char **argv)
{
	if (argc >= 3)
		return argv[2];
	return access(LIBRARY_COPY, R_OK) == 0 ? LIBRARY_COPY : LIBRARY_FD;
}

/* One that is built for another ABI is described as far as it goes: who loads it decides. */
static int describe(const char *path)
{
	const struct tos_extension *spec;
	struct errmsg em = { "" };
	struct tos_value *v;
	uint8_t *p = NULL;
	size_t n = 0;
	void *lib = NULL;
	int rc = script_is(path) ? script_open(path, &spec, &em)
				 : library_find(path, &lib, &spec, &em);

	if (rc == 0 && spec->abi_major != TOS_ABI_MAJOR)
		rc = err_set(&em, ERR_VERSION, "is built for ABI %u.%u, and this is %u.%u",
			spec->abi_major, spec->abi_minor, TOS_ABI_MAJOR, TOS_ABI_MINOR);
	if (rc < 0) {
		fprintf(stderr, "%s\n", err_show(rc, &em));
		return 1;
	}
	v = library_describe(spec);
	rc = v ? tos_encode(v, &p, &n) : ERR_NOMEM;
	tos_value_free(v);
	if (rc == 0 && (fwrite(p, 1, n, stdout) != n || fflush(stdout) != 0))
		rc = ERR_IO;
	free(p);
	library_close(lib);
	return rc < 0;
}

int main(int argc, char **argv)
{
	struct side s = { .in = { .max = EXT_FRAME_BYTES_MAX } };
	struct errmsg em = { "" };
	const char *path;
	void *lib = NULL;
	int rc;

	if (argc == 3 && strcmp(argv[1], "--describe") == 0)
		return describe(argv[2]);
	if (argc < 2 || argc > 4) {
		fprintf(stderr,
			"usage: tos-ext NAME [LIBRARY [DIRECTORY]]   (started by tosd)\n");
		return 64;
	}
	s.directory = argc == 4 ? argv[3] : NULL;
	s.tokens = map_new();
	log_init("tos-ext", argv[1], LOG_INFO, false);
	if (fcntl(KERNEL_FD, F_SETFL, O_NONBLOCK) < 0)
		give_up("descriptor 3 is no socket");
	path = library_path(argc, argv);
	rc = script_is(path) ? script_open(path, &s.spec, &em)
			     : library_open(path, &lib, &s.spec, &em);
	if (rc < 0) {
		log_error("extension not loaded", KV_ERR(rc, &em));
		send_failed(&s, rc, em.text);
		write_some(&s);
		side_fini(&s);
		return 1;
	}
	send_hello(&s);
	serve(&s);
	side_fini(&s);
	library_close(lib);
	return 0;
}
