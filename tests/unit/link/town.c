/* Kernels in one process: see town.h. */
#include "town.h"

#include <arpa/inet.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/text.h"

#define DAY INT64_C(86400000)

static struct slice of(const struct buf *b)
{
	return (struct slice){ b->data, b->len };
}

static void issue(const struct key *by, struct slice by_der, enum cert_kind kind,
	const char *name, const struct key *whose, struct buf *out)
{
	int64_t now = clock_wall_ms();
	uint8_t public_key[32];
	struct errmsg em = { "" };

	key_public(whose, public_key);
	if (cert_issue(by, by_der, kind, name, kind == CERT_PRINCIPAL ? ROLE_OWNER : 0,
		    public_key, now - DAY, now + DAY, out, &em) < 0)
		fail_msg("%s", em.text);
}

struct signer *town_signer(struct town *t, enum cert_kind kind, const char *name)
{
	struct signer *s = mem_new(struct signer);

	s->key = key_new();
	s->n_chain = 1;
	issue(t->root_key, of(&t->root), kind, name, s->key, &s->chain[0]);
	assert_int_equal(cert_info(of(&s->chain[0]), &s->info, NULL), 0);
	return s;
}

void town_init(struct town *t)
{
	memset(t, 0, sizeof(*t));
	assert_int_equal(uv_loop_init(&t->loop), 0);
	t->root_key = key_new();
	issue(t->root_key, (struct slice){ NULL, 0 }, CERT_ROOT, "town", t->root_key, &t->root);
}

static void wake(uv_timer_t *timer)
{
	(void)timer;
}

/* One turn that ends within 20 ms even when nothing happens. */
void town_turn(struct town *t)
{
	uv_timer_t timer;

	uv_timer_init(&t->loop, &timer);
	uv_timer_start(&timer, wake, 20,
		20); /* again: libuv runs those that are due before it waits */
	uv_run(&t->loop, UV_RUN_ONCE);
	uv_close((uv_handle_t *)&timer, NULL);
	uv_run(&t->loop, UV_RUN_NOWAIT); /* the close callback: the handle is on the stack */
}

void town_for(struct town *t, int64_t ms)
{
	int64_t until = clock_ms() + ms;

	/* Who was kept off the processor meanwhile gets the turns that it would have had. */
	for (int64_t turns = 0; turns <= ms / 20 || clock_ms() < until; turns++)
		town_turn(t);
}

void town_fini(struct town *t)
{
	for (size_t i = 0; i < t->n_nodes; i++) {
		struct node *n = &t->nodes[i];

		if (n->ls)
			node_close(n);
		tls_context_free(n->tls);
		signer_free(n->signer);
	}
	for (int i = 0; i < 100 && uv_loop_alive(&t->loop); i++)
		town_turn(t);
	assert_int_equal(uv_loop_close(&t->loop), 0);
	key_free(t->root_key);
	buf_fini(&t->root);
}

/* ---- callbacks */

static void on_hello(void *arg, const char *peer_name, struct hello *h)
{
	struct node *n = arg;

	(void)peer_name;
	h->version_min = n->version_min;
	h->version_max = n->version_max;
	text_copy(h->name, sizeof(h->name), n->name, strlen(n->name));
	memcpy(h->domain, n->domain, sizeof(h->domain));
	h->boot_count = n->boot_count;
	memcpy(h->boot_nonce, n->boot_nonce, sizeof(h->boot_nonce));
}

static int on_up(void *arg, struct link *l, const struct hello *h, struct errmsg *em)
{
	struct node *n = arg;

	(void)h;
	if (n->refuse < 0)
		return err_set(em, n->refuse, "the test said no");
	n->n_up++;
	n->last = l;
	n->last_kind = link_kind(l);
	n->uid = link_uid(l);
	if (n->set_name)
		link_set_name(l, n->set_name);
	if (n->in_up)
		n->in_up(n, l);
	return 0;
}

static int on_frame(void *arg, struct link *l, struct slice frame, struct errmsg *em)
{
	struct node *n = arg;
	struct cbor_cursor c;
	struct post p;
	int type = frame_open(&c, frame);

	n->n_frames++;
	if (type == FRAME_POST) {
		int rc = post_decode(&c, &p);

		if (rc < 0)
			return err_set(em, rc, "bad post");
		n->disorder |= p.tag != ++n->next_tag;
		if (n->consume)
			link_consumed(l, LINK_POSTS, 1);
	} else if (type == FRAME_CHUNK && n->consume) {
		link_consumed(l, LINK_CHUNKS, 1);
	}
	return n->frame_rc;
}

static void on_down(void *arg, struct link *l, int rc, const char *why)
{
	struct node *n = arg;

	n->n_down++;
	n->down_rc = rc;
	text_copy(n->down_why, sizeof(n->down_why), why, strlen(why));
	if (n->last == l)
		n->last = NULL;
}

static void on_failed(void *arg, const char *name, int rc, const char *why)
{
	struct node *n = arg;

	n->n_failed++;
	n->failed_rc = rc;
	text_copy(n->failed_name, sizeof(n->failed_name), name, strlen(name));
	text_copy(n->failed_why, sizeof(n->failed_why), why, strlen(why));
}

static size_t addresses_of(const struct node *to, char (*out)[128], size_t most)
{
	size_t n = 0;

	for (size_t i = 0; i < ARRAY_LEN(to->more) && n + 1 < most; i++)
		if (to->more[i][0])
			snprintf(out[n++], 128, "%s", to->more[i]);
	if (to->address[0])
		snprintf(out[n++], 128, "%s", to->address);
	else
		snprintf(out[n++], 128, "127.0.0.1:%u", to->port);
	return n;
}

static size_t on_resolve(void *arg, const char *name, char (*out)[128], size_t most)
{
	struct node *n = arg;

	for (size_t i = 0; i < n->town->n_nodes; i++) {
		const struct node *to = &n->town->nodes[i];

		if (strcmp(to->name, name) == 0 && !to->unresolvable)
			return addresses_of(to, out, most);
	}
	return 0;
}

static const struct link_callbacks callbacks = {
	.hello = on_hello,
	.up = on_up,
	.frame = on_frame,
	.down = on_down,
	.dial_failed = on_failed,
	.resolve = on_resolve,
};

/* ---- kernels */

struct node *town_node(struct town *t, const char *name)
{
	struct node *n = &t->nodes[t->n_nodes++];
	uint8_t digest[DIGEST_BYTES];
	struct errmsg em = { "" };

	n->town = t;
	text_copy(n->name, sizeof(n->name), name, strlen(name));
	n->signer = town_signer(t, CERT_KERNEL, name);
	if (tls_context_new(n->signer, of(&t->root), &n->tls, &em) < 0)
		fail_msg("%s", em.text);
	digest_bytes(t->root.data, t->root.len, digest);
	text_hex(digest, sizeof(digest), n->domain);
	n->version_min = n->version_max = PROTOCOL_VERSION;
	n->boot_count = 1;
	random_bytes(n->boot_nonce, sizeof(n->boot_nonce));
	links_config_defaults(&n->config);
	snprintf(n->config.name, sizeof(n->config.name), "%s", name);
	return n;
}

static int listen_socket(uint16_t *port)
{
	struct sockaddr_in sa = { .sin_family = AF_INET, .sin_port = htons(*port) };
	socklen_t len = sizeof(sa);
	int on = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	sa.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	assert_int_equal(bind(fd, (struct sockaddr *)&sa, sizeof(sa)), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&sa, &len), 0);
	*port = ntohs(sa.sin_port);
	return fd;
}

void node_open(struct node *n)
{
	struct errmsg em = { "" };
	int fd = listen_socket(&n->port), second;

	n->closed = false;
	n->second_port = 0;
	second = listen_socket(&n->second_port);
	if (links_new(&n->town->loop, &n->config, n->tls, &callbacks, n, &n->ls, &em) < 0 ||
		links_listen_tcp(n->ls, fd, &em) < 0 ||
		links_listen_tcp(n->ls, second, &em) < 0)
		fail_msg("%s", em.text);
}

static void on_closed(void *arg)
{
	struct node *n = arg;

	n->closed = true;
	n->ls = NULL;
}

void node_close(struct node *n)
{
	links_close(n->ls, on_closed, n);
	town_until(n->town, n->closed);
}

struct node *town_kernel(struct town *t, const char *name)
{
	struct node *n = town_node(t, name);

	node_open(n);
	return n;
}

void town_pair(struct town *t, struct node **a, struct node **b, int n_open)
{
	town_init(t);
	*a = town_node(t, "host0");
	*b = town_node(t, "host1");
	if (n_open > 0)
		node_open(*a);
	if (n_open > 1)
		node_open(*b);
}

int post(struct link *l, uint64_t tag, size_t bytes)
{
	AUTOBUF folder = BUF_INIT;
	AUTOBUF b = BUF_INIT;
	AUTOFREE char *filling = mem_zero(bytes + 1);
	struct post p = {
		.kind = POST_ONEWAY,
		.dest = { (const uint8_t *)"Echo", 4 },
		.sender = { (const uint8_t *)"test", 4 },
		.tag = tag,
	};

	cbor_put_array(&folder, 2);
	cbor_put_text(&folder, "f");
	cbor_put_array(&folder, 1);
	cbor_put_bytes(&folder, filling, bytes);
	p.folder = of(&folder);
	post_encode(&b, &p);
	return link_send(l, LINK_POSTS, b.data, b.len);
}

bool linked(struct node *a, struct node *b)
{
	return links_find(a->ls, b->name) && links_find(b->ls, a->name);
}

/* ---- a raw peer */

static void raw_read_frames(struct raw *r)
{
	struct slice frame, text;
	struct cbor_cursor c;

	while (frame_next(&r->in, &frame) == 0) {
		int type = frame_open(&c, frame);

		r->got_hello |= type == FRAME_HELLO;
		r->n_posts += type == FRAME_POST;
		r->n_pings += type == FRAME_PING;
		if (type == FRAME_BYE) {
			r->got_bye = true;
			assert_int_equal(bye_decode(&c, &r->bye_rc, &text), 0);
		}
		if (type == FRAME_PING && r->answer_pings) {
			AUTOBUF b = BUF_INIT;
			uint64_t number;

			assert_int_equal(ping_decode(&c, &number), 0);
			ping_encode(&b, FRAME_PONG, number);
			raw_send(r, b.data, b.len);
		}
	}
}

static void raw_on_connected(void *arg, struct conn *c)
{
	struct raw *r = arg;
	AUTOBUF wire = BUF_INIT;

	r->connected = true;
	if (!r->tls)
		return;
	assert_int_equal(tls_start(r->tls, &wire, NULL), 0);
	conn_send(c, wire.data, wire.len);
}

static void raw_on_bytes(void *arg, struct conn *c, const uint8_t *p, size_t n)
{
	struct raw *r = arg;
	AUTOBUF wire = BUF_INIT;

	if (r->tls)
		tls_feed(r->tls, p, n, &r->in.in, &wire, NULL);
	else
		buf_add(&r->in.in, p, n);
	if (wire.len > 0)
		conn_send(c, wire.data, wire.len);
	raw_read_frames(r);
}

static void raw_on_closed(void *arg, struct conn *c, int rc, const char *why)
{
	struct raw *r = arg;

	(void)c;
	(void)rc;
	(void)why;
	r->closed = true;
	r->conn = NULL;
}

const struct conn_callbacks raw_callbacks = {
	.connected = raw_on_connected,
	.bytes = raw_on_bytes,
	.closed = raw_on_closed,
};

void raw_dial(struct town *t, struct raw *r, uint16_t port, struct tls_context *tls)
{
	struct sockaddr_in sa = { .sin_family = AF_INET, .sin_port = htons(port) };

	memset(r, 0, sizeof(*r));
	sa.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	r->town = t;
	if (tls)
		r->tls = tls_session_new(tls, false);
	assert_int_equal(conn_new(&t->loop, CONN_TCP, &raw_callbacks, r, &r->conn, NULL), 0);
	assert_int_equal(conn_connect(r->conn, (struct sockaddr *)&sa, NULL), 0);
	town_until(t, r->connected && (!r->tls || tls_ready(r->tls)));
}

static void raw_on_connection(uv_stream_t *listener, int status)
{
	struct raw_listener *rl = listener->data;
	struct raw *r = rl->raw;

	assert_int_equal(status, 0);
	assert_null(r->conn);
	r->tls = tls_session_new(r->context, true);
	assert_int_equal(
		conn_new(&r->town->loop, CONN_TCP, &raw_callbacks, r, &r->conn, NULL), 0);
	assert_int_equal(conn_accept(r->conn, listener, NULL), 0);
	r->connected = true;
}

void raw_listen(struct town *t, struct raw_listener *rl, struct raw *r, struct tls_context *tls)
{
	memset(r, 0, sizeof(*r));
	memset(rl, 0, sizeof(*rl));
	r->town = t;
	r->context = tls;
	rl->raw = r;
	uv_tcp_init(&t->loop, &rl->tcp);
	rl->tcp.data = rl;
	assert_int_equal(uv_tcp_open(&rl->tcp, listen_socket(&rl->port)), 0);
	assert_int_equal(uv_listen((uv_stream_t *)&rl->tcp, 4, raw_on_connection), 0);
}

static void raw_on_listener_closed(uv_handle_t *h)
{
	((struct raw_listener *)h->data)->closed = true;
}

void raw_listener_close(struct raw_listener *rl)
{
	uv_close((uv_handle_t *)&rl->tcp, raw_on_listener_closed);
	town_until(rl->raw->town, rl->closed);
}

void raw_send(struct raw *r, const void *p, size_t n)
{
	AUTOBUF wire = BUF_INIT;

	if (!r->conn)
		return;
	if (!r->tls) {
		conn_send(r->conn, p, n);
		return;
	}
	if (tls_send(r->tls, p, n, &wire, NULL) == 0)
		conn_send(r->conn, wire.data, wire.len);
}

void raw_hello(struct raw *r, struct node *like, uint64_t boot_count)
{
	AUTOBUF b = BUF_INIT;
	struct hello h = { 0 };

	on_hello(like, "", &h);
	h.boot_count = boot_count;
	hello_encode(&b, &h);
	credit_encode(&b, 10, 10);
	raw_send(r, b.data, b.len);
}

void raw_join(struct raw *r, struct node *to, struct node *like, uint64_t boot_count)
{
	unsigned n_up = to->n_up;

	raw_dial(to->town, r, to->port, like->tls);
	raw_hello(r, like, boot_count);
	town_until(to->town, to->n_up == n_up + 1 && r->got_hello);
}

void raw_post(struct raw *r, uint64_t tag)
{
	static const uint8_t folder[] = { 0x82, 0x61, 'f', 0x80 };
	AUTOBUF b = BUF_INIT;
	struct post p = {
		.kind = POST_ONEWAY,
		.dest = { (const uint8_t *)"Echo", 4 },
		.tag = tag,
		.folder = { folder, sizeof(folder) },
	};

	post_encode(&b, &p);
	raw_send(r, b.data, b.len);
}

void raw_close(struct raw *r)
{
	if (r->conn)
		conn_close(r->conn, 0, NULL);
	town_until(r->town, r->closed);
	tls_session_free(r->tls);
	buf_fini(&r->in.in);
}

int silent_listener(uint16_t *port)
{
	struct sockaddr_in sa = { .sin_family = AF_INET };
	socklen_t n = sizeof(sa);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	sa.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	assert_int_equal(bind(fd, (struct sockaddr *)&sa, sizeof(sa)), 0);
	assert_int_equal(listen(fd, 4), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&sa, &n), 0);
	*port = ntohs(sa.sin_port);
	return fd;
}
