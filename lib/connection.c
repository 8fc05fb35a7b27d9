/*
 * A conversation with a kernel: frames over its Unix socket, or over TLS for a host that joins.
 *
 * Everything blocks with a deadline. Folders that arrive while an answer is awaited are queued
 * for tos_receive(). The queue is bounded: the answer is behind them, so what does not fit is
 * dropped and counted, and tos_receive() says so.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/mem.h"
#include "base/text.h"
#include "lib/home.h"
#include "lib/internal.h"
#include "seal/seal.h"
#include "wire/frame.h"

#define GRANT_POSTS       1024u
#define GRANT_CHUNKS      64u
#define QUEUE_MAX         8192
#define QUEUE_BYTES_MAX   ((size_t)64 << 20)
#define LATE_MAX          16 /* times that is taken in what is there already, behind a deadline */
#define CONTENTS_MAX      8
#define CONTENT_BYTES_MAX ((size_t)128 << 20)

struct queued {
	struct queued *next;
	char sender[NAME_BYTES_MAX + 1], folder[NAME_BYTES_MAX + 1];
	struct tos_value *elements;
	size_t bytes;
};

/* Comes ahead of an answer that does not fit a frame, in chunks. */
struct content {
	uint8_t digest[DIGEST_BYTES];
	size_t total, have;
	uint8_t *bytes; /* NULL: the place is free */
};

struct tos_connection {
	int fd, event, epoll;
	struct tls_session *tls;
	struct frame_reader reader;
	char kernel[NAME_BYTES_MAX + 1], name[NAME_BYTES_MAX + 1];
	char home[HOME_PATH_MAX];       /* where its socket is; "" for one over TLS */
	char place[NAME_BYTES_MAX + 1]; /* the kernel whose socket that is; "" likewise */
	uint64_t tag;                   /* last one used */
	uint64_t introduced;            /* as whose: its number */
	int64_t introduced_until_ms;    /* wall clock */
	struct queued *first, **last;
	size_t n_queued, queued_bytes;
	uint64_t dropped;  /* that found no place in it; not told yet */
	uint32_t consumed; /* posts taken since we granted credit */
	uint32_t consumed_chunks;
	struct content content[CONTENTS_MAX];
	size_t content_next;                  /* the one that makes place */
	uint64_t credit_posts, credit_chunks; /* what the kernel still takes */
	int dead;                             /* the conversation is over, and why */
	char why[256];
	/* the answer that is awaited */
	uint64_t want;
	bool answered;
	enum post_kind answer_kind;
	char answer_folder[NAME_BYTES_MAX + 1];
	struct tos_value *answer;
};

const char *tos_error_word(int rc)
{
	return err_word(rc);
}

const char *tos_connection_kernel(const struct tos_connection *c)
{
	return c->kernel;
}

const char *tos_connection_name(const struct tos_connection *c)
{
	return c->name;
}

int tos_connection_fd(const struct tos_connection *c)
{
	return c->epoll;
}

void tos_disconnect(struct tos_connection *c)
{
	if (!c)
		return;
	while (c->first) {
		struct queued *q = c->first;

		c->first = q->next;
		tos_value_free(q->elements);
		free(q);
	}
	for (size_t i = 0; i < CONTENTS_MAX; i++)
		free(c->content[i].bytes);
	tos_value_free(c->answer);
	tls_session_free(c->tls);
	buf_fini(&c->reader.in);
	mem_close(c->epoll);
	mem_close(c->event);
	mem_close(c->fd);
	free(c);
}

/* ---- bytes */

static int die(struct tos_connection *c, int rc, struct errmsg *em, const char *why)
{
	c->dead = rc;
	snprintf(c->why, sizeof(c->why), "%s", why);
	return err_set(em, rc, "%s", why);
}

static int still_alive(struct tos_connection *c, struct errmsg *em)
{
	return c->dead ? err_set(em, c->dead, "%s", c->why) : 0;
}

/* Wait for `events`; 1 ready, 0 the deadline passed. A deadline of -1 never passes. */
static int wait_fd(int fd, short events, int64_t deadline)
{
	for (;;) {
		struct pollfd p = { .fd = fd, .events = events };
		int64_t left = deadline < 0 ? 3600000 : deadline - clock_ms();
		int n = poll(&p, 1, left < 0 ? 0 : left > 3600000 ? 3600000 : (int)left);

		if (n > 0)
			return 1;
		if (n < 0 && errno != EINTR)
			return ERR_IO;
		if (n == 0 && deadline >= 0 && clock_ms() >= deadline)
			return 0;
	}
}

static int write_raw(struct tos_connection *c, const uint8_t *p, size_t n, int64_t deadline,
	struct errmsg *em)
{
	while (n) {
		ssize_t did = send(c->fd, p, n, MSG_NOSIGNAL | MSG_DONTWAIT);

		if (did > 0) {
			p += did;
			n -= (size_t)did;
			continue;
		}
		if (did < 0 && errno != EAGAIN && errno != EINTR)
			return die(c, ERR_CLOSED, em, "the kernel closed the connection");
		if (wait_fd(c->fd, POLLOUT, deadline) == 0)
			return die(c, ERR_TIMEOUT, em,
				"the kernel does not read what is sent to it");
	}
	return 0;
}

static int send_frame(
	struct tos_connection *c, struct buf *b, int64_t deadline, struct errmsg *em)
{
	AUTOBUF wire = BUF_INIT;
	int rc = buf_check(b);

	if (rc < 0)
		return err_set(em, rc, "the frame is too large");
	if (b->len > FRAME_BYTES_MAX)
		return err_set(em, ERR_TOO_LARGE,
			"the folder is larger than one frame may be (%u KiB)",
			FRAME_BYTES_MAX >> 10);
	rc = still_alive(c, em);
	if (rc < 0)
		return rc;
	if (!c->tls)
		return write_raw(c, b->data, b->len, deadline, em);
	rc = tls_send(c->tls, b->data, b->len, &wire, em);
	return rc < 0 ? rc : write_raw(c, wire.data, wire.len, deadline, em);
}

/* Take in what the socket has; waits until the deadline. */
static int fill(struct tos_connection *c, int64_t deadline, struct errmsg *em)
{
	uint8_t block[32768];
	AUTOBUF wire = BUF_INIT;
	ssize_t n;
	int rc = still_alive(c, em);

	if (rc < 0)
		return rc;
	rc = wait_fd(c->fd, POLLIN, deadline);
	if (rc == 0)
		return err_set(em, ERR_TIMEOUT, "no answer within the time");
	n = recv(c->fd, block, sizeof(block), MSG_DONTWAIT);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return 0;
	if (n <= 0)
		return die(c, ERR_CLOSED, em, "the kernel closed the connection");
	if (!c->tls) {
		rc = buf_add(&c->reader.in, block, (size_t)n);
		return rc < 0 ? die(c, rc, em, "out of memory") : 0;
	}
	rc = tls_feed(c->tls, block, (size_t)n, &c->reader.in, &wire, em);
	if (wire.len) {
		int sent = write_raw(c, wire.data, wire.len, deadline, rc < 0 ? NULL : em);

		rc = rc < 0 ? rc : sent;
	}
	if (rc < 0) {
		c->dead = rc;
		snprintf(c->why, sizeof(c->why), "%s", err_show(rc, em));
	}
	return rc;
}

/* ---- frames */

/* tos_receive() has something to say. */
static int queue_wake(struct tos_connection *c)
{
	uint64_t one = 1;

	return write(c->event, &one, sizeof(one)) < 0 && errno != EAGAIN ? ERR_IO : 0;
}

static int queue_post(struct tos_connection *c, const struct post *p)
{
	struct queued *q;

	if (c->n_queued >= QUEUE_MAX || c->queued_bytes + p->folder.n > QUEUE_BYTES_MAX) {
		c->dropped++;
		return queue_wake(c);
	}
	q = mem_new(struct queued);
	q->bytes = p->folder.n;
	if (text_copy(q->sender, sizeof(q->sender), (const char *)p->sender.p, p->sender.n) <
			0 ||
		folder_decode(p->folder, q->folder, &q->elements) < 0) {
		free(q);
		return ERR_MALFORMED;
	}
	*c->last = q;
	c->last = &q->next;
	c->n_queued++;
	c->queued_bytes += q->bytes;
	return queue_wake(c);
}

static struct content *content_find(struct tos_connection *c, struct slice digest)
{
	for (size_t i = 0; i < CONTENTS_MAX; i++)
		if (c->content[i].bytes && digest.n == DIGEST_BYTES &&
			memcmp(c->content[i].digest, digest.p, DIGEST_BYTES) == 0)
			return &c->content[i];
	return NULL;
}

static void content_drop(struct content *k)
{
	free(k->bytes);
	*k = (struct content){ .bytes = NULL };
}

static struct content *content_new(struct tos_connection *c, const struct chunk *k)
{
	struct content *n = &c->content[c->content_next++ % CONTENTS_MAX];

	content_drop(n);
	if (k->total > CONTENT_BYTES_MAX)
		return NULL;
	n->bytes = mem_try((size_t)k->total + 1);
	if (!n->bytes)
		return NULL;
	memcpy(n->digest, k->digest.p, DIGEST_BYTES);
	n->total = (size_t)k->total;
	return n;
}

/* What does not go on where the last chunk ended is left out; the answer that names it then says
 * so. */
static int on_chunk(struct tos_connection *c, struct cbor_cursor *cur)
{
	struct content *n;
	struct chunk k;
	int rc = chunk_decode(cur, &k);

	if (rc < 0)
		return rc;
	n = content_find(c, k.digest);
	if (k.offset == 0 && n)
		content_drop(n);
	if (k.offset == 0)
		n = content_new(c, &k);
	if (n && k.offset == n->have && k.total == n->total && k.data.n <= n->total - n->have) {
		memcpy(n->bytes + n->have, k.data.p, k.data.n);
		n->have += k.data.n;
	}
	if (++c->consumed_chunks >= GRANT_CHUNKS / 4) {
		AUTOBUF b = BUF_INIT;

		credit_encode(&b, 0, c->consumed_chunks);
		c->consumed_chunks = 0;
		send_frame(c, &b, clock_ms() + 5000,
			NULL); /* its failure shows at the next read */
	}
	return 0;
}

/* The awaited answer is only {digest, bytes, folder}: take what came ahead. */
static int answer_content(struct tos_connection *c)
{
	const struct tos_value *m = tos_at(c->answer, 0);
	struct tos_value *elements = NULL;
	struct slice digest;
	struct content *n;
	uint8_t sum[DIGEST_BYTES];
	int rc = ERR_NOT_FOUND;

	digest.p = tos_get_bytes(m, "digest", &digest.n);
	n = digest.p ? content_find(c, digest) : NULL;
	if (n && n->have == n->total) {
		digest_bytes(n->bytes, n->total, sum);
		rc = memcmp(sum, n->digest, DIGEST_BYTES) != 0
			     ? ERR_MALFORMED
			     : tos_decode(n->bytes, n->total, (size_t)512 << 20, &elements);
	}
	if (rc == 0)
		snprintf(c->answer_folder, sizeof(c->answer_folder), "%s",
			tos_get_text(m, "folder", "ok"));
	if (n)
		content_drop(n);
	tos_value_free(c->answer);
	c->answer = elements;
	return rc;
}

/* Only the kernel itself sends content ahead. */
static bool is_content(const struct tos_connection *c, const struct post *p)
{
	size_t n = strlen(c->kernel);

	return p->kind == POST_ANSWER && strcmp(c->answer_folder, "content") == 0 &&
	       p->sender.n == n + 7 && memcmp(p->sender.p, c->kernel, n) == 0 &&
	       memcmp(p->sender.p + n, "/Kernel", 7) == 0;
}

static int on_post(struct tos_connection *c, struct cbor_cursor *cur)
{
	struct post p;
	int rc = post_decode(cur, &p);

	if (rc < 0)
		return rc;
	if (p.dest.n && p.dest.n <= NAME_BYTES_MAX)
		text_copy(c->name, sizeof(c->name), (const char *)p.dest.p, p.dest.n);
	/* A failure without a tag is about a one-way post. */
	if (p.kind == POST_ONEWAY || p.kind == POST_CALL || (p.kind == POST_FAILURE && !p.tag))
		rc = queue_post(c, &p);
	else if (c->want && p.tag == c->want && !c->answered) {
		c->answer_kind = p.kind;
		rc = folder_decode(p.folder, c->answer_folder, &c->answer);
		if (rc == 0 && is_content(c, &p))
			rc = answer_content(c);
		c->answered = rc == 0;
	} /* else: the answer to a call that was given up */
	if (rc == 0 && ++c->consumed >= GRANT_POSTS / 4) {
		AUTOBUF b = BUF_INIT;

		credit_encode(&b, c->consumed, 0);
		c->consumed = 0;
		send_frame(c, &b, clock_ms() + 5000,
			NULL); /* its failure shows at the next read */
	}
	return rc;
}

static int on_bye(struct tos_connection *c, struct cbor_cursor *cur, struct errmsg *em)
{
	char text[256];
	struct slice s = { NULL, 0 };
	int code = ERR_CLOSED;

	if (bye_decode(cur, &code, &s) < 0)
		return die(c, ERR_CLOSED, em, "the kernel closed the connection");
	snprintf(text, sizeof(text), "the kernel closed the connection: %.*s",
		(int)(s.n > 180 ? 180 : s.n), s.n ? (const char *)s.p : "");
	return die(c, code < 0 ? code : ERR_CLOSED, em, text);
}

static int on_frame(struct tos_connection *c, struct slice frame, struct errmsg *em)
{
	AUTOBUF b = BUF_INIT;
	struct cbor_cursor cur;
	uint32_t posts, chunks;
	uint64_t number;
	int rc = 0, type = frame_open(&cur, frame);

	switch (type) {
	case FRAME_POST:
		rc = on_post(c, &cur);
		break;
	case FRAME_CHUNK:
		rc = on_chunk(c, &cur);
		break;
	case FRAME_CREDIT:
		rc = credit_decode(&cur, &posts, &chunks);
		if (rc == 0) {
			c->credit_posts += posts;
			c->credit_chunks += chunks;
		}
		break;
	case FRAME_PING:
		rc = ping_decode(&cur, &number);
		if (rc == 0) {
			ping_encode(&b, FRAME_PONG, number);
			rc = send_frame(c, &b, clock_ms() + 5000, em);
		}
		break;
	case FRAME_BYE:
		return on_bye(c, &cur, em);
	case FRAME_PONG:
	case FRAME_WANT: /* we send what we have before it is asked for */
	case FRAME_LACK:
		break;
	default:
		rc = ERR_MALFORMED;
	}
	if (rc == ERR_MALFORMED)
		return die(c, rc, em, "the kernel sent what is no frame of this protocol");
	return rc;
}

/* Handle every frame that is here, and if there was none wait for one. */
static int pump(struct tos_connection *c, int64_t deadline, struct errmsg *em)
{
	bool any = false;

	for (;;) {
		struct slice frame;
		int rc = frame_next(&c->reader, &frame);

		if (rc == 0) {
			any = true;
			rc = on_frame(c, frame, em);
			if (rc < 0)
				return rc;
			continue;
		}
		if (rc != ERR_AGAIN)
			return die(
				c, rc, em, "the kernel sent what is no frame of this protocol");
		if (any)
			return 0;
		rc = fill(c, deadline, em);
		if (rc < 0)
			return rc;
	}
}

/* The same within a wait for one thing, which others that come must not make longer. After the deadline only
 * what is here already is taken in, and not more and more of it. */
static int pump_until(
	struct tos_connection *c, int64_t deadline, unsigned *late, struct errmsg *em)
{
	if (clock_ms() >= deadline && (*late)++ >= LATE_MAX)
		return err_set(em, ERR_TIMEOUT, "no answer within the time");
	return pump(c, deadline, em);
}

/* ---- opening */

static int read_hello(struct tos_connection *c, int64_t deadline, struct errmsg *em)
{
	struct cbor_cursor cur;
	struct slice frame;
	struct hello h;
	int rc;

	while ((rc = frame_next(&c->reader, &frame)) == ERR_AGAIN) {
		rc = fill(c, deadline, em);
		if (rc < 0)
			return rc;
	}
	if (rc == 0)
		rc = frame_open(&cur, frame);
	if (rc == FRAME_BYE)
		return on_bye(c, &cur, em);
	if (rc != FRAME_HELLO || hello_decode(&cur, &h) < 0)
		return die(c, ERR_MALFORMED, em, "what answers there is not a kernel");
	if (h.version_min > PROTOCOL_VERSION || h.version_max < PROTOCOL_VERSION_MIN) {
		err_set(em, ERR_VERSION,
			"kernel %s speaks protocol %u to %u, this program %d to %d; install "
			"the same release on both",
			h.name, h.version_min, h.version_max, PROTOCOL_VERSION_MIN,
			PROTOCOL_VERSION);
		return ERR_VERSION;
	}
	snprintf(c->kernel, sizeof(c->kernel), "%s", h.name);
	return 0;
}

static int handshake(struct tos_connection *c, int64_t deadline, struct errmsg *em)
{
	AUTOBUF wire = BUF_INIT;
	unsigned late = 0;
	int rc = tls_start(c->tls, &wire, em);

	if (rc == 0)
		rc = write_raw(c, wire.data, wire.len, deadline, em);
	while (rc == 0 && !tls_ready(c->tls))
		rc = clock_ms() >= deadline && late++ >= LATE_MAX
			     ? err_set(em, ERR_TIMEOUT, "no answer within the time")
			     : fill(c, deadline, em);
	return rc;
}

static int say_hello(struct tos_connection *c, int64_t deadline, struct errmsg *em)
{
	struct hello h = { .version_min = PROTOCOL_VERSION_MIN,
		.version_max = PROTOCOL_VERSION };
	AUTOBUF b = BUF_INIT;

	random_bytes(h.boot_nonce, sizeof(h.boot_nonce));
	hello_encode(&b, &h);
	return send_frame(c, &b, deadline, em);
}

static int watch_fds(struct tos_connection *c)
{
	struct epoll_event e = { .events = EPOLLIN };

	c->event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	c->epoll = epoll_create1(EPOLL_CLOEXEC);
	if (c->event < 0 || c->epoll < 0 || epoll_ctl(c->epoll, EPOLL_CTL_ADD, c->fd, &e) < 0 ||
		epoll_ctl(c->epoll, EPOLL_CTL_ADD, c->event, &e) < 0)
		return ERR_IO;
	return 0;
}

int connection_open(int fd, struct tls_session *tls, uint32_t timeout_ms,
	struct tos_connection **out, struct errmsg *em)
{
	int64_t deadline = clock_ms() + (timeout_ms ? timeout_ms : 10000);
	struct tos_connection *c = mem_new(struct tos_connection);
	AUTOBUF b = BUF_INIT;
	int rc;

	c->fd = fd;
	c->event = c->epoll = -1;
	c->tls = tls;
	c->last = &c->first;
	c->reader.in.max = 4 * (size_t)FRAME_BYTES_MAX;
	rc = watch_fds(c) < 0 ? err_errno(em, "cannot watch the connection") : 0;
	if (rc == 0 && tls)
		rc = handshake(c, deadline, em);
	if (rc == 0)
		rc = say_hello(c, deadline, em);
	if (rc == 0)
		rc = read_hello(c, deadline, em);
	if (rc == 0) {
		credit_encode(&b, GRANT_POSTS, GRANT_CHUNKS);
		rc = send_frame(c, &b, deadline, em);
	}
	if (rc < 0) {
		tos_disconnect(c);
		return rc;
	}
	*out = c;
	return 0;
}

/* A path that does not fit into sun_path is reached through its directory's descriptor. */
static int dial_unix(const char *dir)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	AUTOCLOSE int at = -1;
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0)
		return -1;
	if (snprintf(sa.sun_path, sizeof(sa.sun_path), "%s/sock", dir) >=
		(int)sizeof(sa.sun_path)) {
		at = open(dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
		if (at >= 0)
			snprintf(sa.sun_path, sizeof(sa.sun_path), "/proc/self/fd/%d/sock", at);
	}
	if (connect(fd, (const struct sockaddr *)&sa, sizeof(sa)) == 0)
		return fd;
	mem_close(fd);
	return -1;
}

static int connect_one(const struct home *h, const char *kernel, uint32_t timeout_ms,
	struct tos_connection **out, struct errmsg *em)
{
	char dir[HOME_PATH_MAX];
	int fd, rc = path_join(dir, sizeof(dir), em, h->path, "kernels", kernel, NULL);

	if (rc < 0)
		return rc;
	if (access(dir, F_OK) < 0 && errno == ENOENT)
		return err_set(em, ERR_NOT_FOUND,
			"there is no kernel %s in %s; 'tos kernels' lists them", kernel,
			h->path);
	fd = dial_unix(dir);
	if (fd < 0 && (errno == EACCES || errno == EPERM))
		return err_set(em, ERR_DENIED,
			"kernel %s does not let this user in; ask as the owner of %s", kernel,
			h->path);
	if (fd < 0)
		return err_set(em, ERR_UNREACHABLE,
			"kernel %s is not running; start it with 'tos up'", kernel);
	rc = connection_open(fd, NULL, timeout_ms, out, em);
	if (rc == ERR_CLOSED)
		rc = ERR_UNREACHABLE; /* it is going down, or coming up */
	if (rc < 0)
		return err_wrap(em, rc, "kernel %s", kernel);
	snprintf((*out)->home, sizeof((*out)->home), "%s", h->path);
	snprintf((*out)->place, sizeof((*out)->place), "%s", kernel);
	return 0;
}

int connection_again(struct tos_connection *c, uint32_t timeout_ms, struct errmsg *em)
{
	struct tos_connection *fresh = NULL, old;
	struct home h;
	int rc = c->home[0] ? home_open(c->home, &h, em)
			    : err_set(em, ERR_STATE, "this connection cannot be made again");

	if (rc == 0)
		rc = connect_one(&h, c->place, timeout_ms, &fresh, em);
	if (rc < 0)
		return rc;
	must(fresh);
	old = *c;
	*c = *fresh;
	*fresh = old;
	/* each list ends in its own head again */
	c->last = &c->first;
	if (!fresh->first)
		fresh->last = &fresh->first;
	tos_disconnect(fresh);
	return 0;
}

int64_t connection_introduced(const struct tos_connection *c, const struct tos_principal *p)
{
	return c->introduced == principal_number(p) ? c->introduced_until_ms : 0;
}

void connection_introduce(
	struct tos_connection *c, const struct tos_principal *p, int64_t until_ms)
{
	c->introduced = principal_number(p);
	c->introduced_until_ms = until_ms;
}

const char *connection_home(const struct tos_connection *c)
{
	return c->home;
}

const char *connection_place(const struct tos_connection *c)
{
	return c->place;
}

int tos_connect(const char *home, const char *kernel, uint32_t timeout_ms,
	struct tos_connection **out, struct tos_error *err)
{
	struct errmsg *em = em_of(err);
	struct names all;
	struct home h;
	int rc = home_open(home, &h, em);

	if (rc < 0)
		return rc;
	if (kernel && *kernel)
		return connect_one(&h, kernel, timeout_ms, out, em);
	rc = home_kernels(&h, &all);
	if (rc < 0)
		return err_set(em, rc, "cannot list the kernels in %s", h.path);
	rc = err_set(em, ERR_UNREACHABLE,
		"no kernel in %s is running; start them with 'tos up'", h.path);
	for (size_t i = 0; i < all.n && rc < 0; i++) {
		struct errmsg one = { "" };
		int r = connect_one(&h, all.v[i], timeout_ms, out, &one);

		if (r != ERR_UNREACHABLE && r != ERR_TIMEOUT)
			rc = r < 0 ? err_set(em, r, "%s", err_show(r, &one)) : 0;
		if (r < 0 && r != ERR_UNREACHABLE && r != ERR_TIMEOUT)
			break;
	}
	names_fini(&all);
	return rc;
}

/* ---- posts */

static int post_folder(struct tos_connection *c, enum post_kind kind, const char *dest,
	const char *folder, const struct tos_value *elements, uint64_t tag,
	uint32_t deadline_ms, struct errmsg *em)
{
	AUTOBUF f = BUF_INIT;
	AUTOBUF b = BUF_INIT;
	size_t n = tos_len(elements);
	AUTOFREE const struct tos_value **each = mem_try((n + 1) * sizeof(*each));
	struct post p = { .kind = kind, .tag = tag, .deadline_ms = deadline_ms };
	int64_t until = clock_ms() + (deadline_ms ? deadline_ms : 10000);
	unsigned late = 0;
	uint8_t trace[TRACE_BYTES];

	if (!each)
		return ERR_NOMEM;
	if (!*dest || strlen(dest) > NAME_BYTES_MAX || strlen(folder) > NAME_BYTES_MAX)
		return err_set(em, ERR_NAME, "'%.64s' is no name to post to", dest);
	for (size_t i = 0; i < n; i++)
		each[i] = tos_at(elements, i);
	folder_encode(&f, folder, each, n);
	if (buf_check(&f) < 0)
		return err_set(em, buf_check(&f), "the folder is too large");
	random_bytes(trace, sizeof(trace));
	p.dest = (struct slice){ (const uint8_t *)dest, strlen(dest) };
	p.trace = (struct slice){ trace, sizeof(trace) };
	p.folder = (struct slice){ f.data, f.len };
	post_encode(&b, &p);
	while (c->credit_posts ==
		0) { /* more than it gave credit for would end the conversation */
		int rc = pump_until(c, until, &late, em);

		if (rc < 0)
			return rc;
	}
	c->credit_posts--;
	return send_frame(c, &b, until, em);
}

int tos_send(struct tos_connection *c, const char *dest, const char *folder,
	const struct tos_value *elements, struct tos_error *err)
{
	return post_folder(c, POST_ONEWAY, dest, folder, elements, 0, 0, em_of(err));
}

/* ["failure", [code word, text]] */
static int failure_of(const struct tos_value *elements, struct errmsg *em)
{
	const char *word = tos_as_text(tos_at(elements, 0), "unknown");
	const char *text = tos_as_text(tos_at(elements, 1), "");
	int rc = err_from_word(word, strlen(word));

	return err_set(em, rc, "%s", *text ? text : err_text(rc));
}

int tos_ask(struct tos_connection *c, const char *dest, const char *folder,
	const struct tos_value *elements, uint32_t timeout_ms, char answer[129],
	struct tos_value **out, struct tos_error *err)
{
	struct errmsg *em = em_of(err);
	uint32_t limit = timeout_ms ? timeout_ms : 10000;
	/* The kernel is given the time that was asked for, so its own words about it come
	 * first. */
	int64_t deadline = clock_ms() + limit + 500;
	unsigned late = 0;
	int rc;

	c->want = ++c->tag;
	c->answered = false;
	rc = post_folder(c, POST_CALL, dest, folder, elements, c->want, limit, em);
	while (rc == 0 && !c->answered)
		rc = pump_until(c, deadline, &late, em);
	c->want = 0;
	if (rc == ERR_TIMEOUT)
		return err_set(em, rc, "no answer from %s within %.1f s", dest, limit / 1000.0);
	if (rc < 0)
		return rc;
	if (c->answer_kind == POST_FAILURE) {
		rc = failure_of(c->answer, em);
		tos_value_free(STEAL(c->answer));
		return rc < 0 ? rc : ERR_UNKNOWN;
	}
	if (answer)
		memcpy(answer, c->answer_folder, sizeof(c->answer_folder));
	if (out)
		*out = STEAL(c->answer);
	else
		tos_value_free(STEAL(c->answer));
	return 0;
}

/* Behind the last that found a place. */
static int queue_dropped(struct tos_connection *c, struct errmsg *em)
{
	unsigned long long n = c->dropped;
	uint64_t count;

	c->dropped = 0;
	if (read(c->event, &count, sizeof(count)) < 0 && errno != EAGAIN)
		return err_errno(em, "cannot read the connection");
	return err_set(em, ERR_FULL,
		"%llu folders found no place in the queue of this client and were dropped", n);
}

int tos_receive(struct tos_connection *c, uint32_t timeout_ms, char sender[129],
	char folder[129], struct tos_value **elements, struct tos_error *err)
{
	int64_t deadline = clock_ms() + timeout_ms;
	unsigned late = 0;
	struct queued *q;
	uint64_t count;
	int rc;

	while (!c->first && !c->dropped) {
		rc = pump_until(c, deadline, &late, em_of(err));
		if (rc < 0)
			return rc;
	}
	q = c->first;
	if (!q)
		return queue_dropped(c, em_of(err));
	c->first = q->next;
	c->n_queued--;
	c->queued_bytes -= q->bytes;
	if (!c->first)
		c->last = &c->first;
	if (!c->first && !c->dropped && read(c->event, &count, sizeof(count)) < 0 &&
		errno != EAGAIN)
		return err_errno(em_of(err), "cannot read the connection");
	if (sender)
		memcpy(sender, q->sender, sizeof(q->sender));
	if (folder)
		memcpy(folder, q->folder, sizeof(q->folder));
	if (elements)
		*elements = STEAL(q->elements);
	tos_value_free(q->elements);
	free(q);
	return 0;
}

/* ---- chunks */

int connection_upload(struct tos_connection *c, const uint8_t digest[32], const uint8_t *p,
	size_t n, struct errmsg *em)
{
	int64_t deadline = clock_ms() + 60000;
	unsigned late = 0;

	for (size_t at = 0; at < n || at == 0;) {
		AUTOBUF b = BUF_INIT;
		size_t part = n - at > CHUNK_BYTES_MAX ? CHUNK_BYTES_MAX : n - at;
		struct chunk k = { { digest, DIGEST_BYTES }, at, n, { p + at, part } };
		int rc = 0;

		while (rc == 0 && c->credit_chunks == 0)
			rc = pump_until(c, deadline, &late, em);
		if (rc < 0)
			return err_wrap(em, rc, "sending the code ahead");
		c->credit_chunks--;
		chunk_encode(&b, &k);
		rc = send_frame(c, &b, deadline, em);
		if (rc < 0)
			return rc;
		at += part;
		if (!part)
			break;
	}
	return 0;
}
