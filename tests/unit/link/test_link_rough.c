/* Links to peers that misbehave, that fall silent or are closed; and clients. */
#include "town.h"

#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"

/* ---- peers that misbehave */

static void quick(struct node *n)
{
	n->config.handshake_ms = 300;
	n->config.ping_ms = 60;
	n->config.silent_ms = 250;
}

static void a_peer_that_never_finishes_the_handshake_is_dropped(void **state)
{
	struct town t;
	struct node *a, *b;
	struct raw mute, nameless;
	struct links_stats stats;

	(void)state;
	town_pair(&t, &a, &b, 0);
	quick(a);
	node_open(a);
	raw_dial(&t, &mute, a->port, NULL);       /* no TLS at all */
	raw_dial(&t, &nameless, a->port, b->tls); /* no hello */
	town_until(&t, mute.closed && nameless.closed);
	assert_true(nameless.got_bye);
	assert_int_equal(nameless.bye_rc, ERR_TIMEOUT);
	links_stats(a->ls, &stats);
	assert_int_equal(stats.handshake_timeouts, 2);
	assert_int_equal(a->n_up, 0);
	raw_close(&mute);
	raw_close(&nameless);
	town_fini(&t);
}

static void a_dial_that_nobody_answers_ends_at_its_deadline(void **state)
{
	AUTOCLOSE int fd = -1;
	struct town t;
	struct node *a, *b;
	int64_t began;
	uint16_t port;

	(void)state;
	town_pair(&t, &a, &b, 0);
	quick(a);
	node_open(a);
	fd = silent_listener(&port);
	snprintf(b->address, sizeof(b->address), "127.0.0.1:%u", port);
	began = clock_ms();
	links_dial(a->ls, "host1");
	town_until(&t, a->n_failed == 1);
	assert_int_equal(a->failed_rc, ERR_TIMEOUT);
	assert_true(clock_ms() - began >= 250);
	town_fini(&t);
}

static void strangers_that_never_finish_do_not_keep_others_out(void **state)
{
	struct town t;
	struct node *a, *b;
	struct raw mute[4];
	struct links_stats stats;

	(void)state;
	town_init(&t);
	a = town_node(&t, "host0");
	b = town_kernel(&t, "host1");
	a->config.max_handshakes = 4;
	node_open(a);
	for (int i = 0; i < 4; i++)
		raw_dial(&t, &mute[i], a->port, NULL);
	town_for(&t, 1100);
	links_dial(b->ls, "host0");
	town_until(&t, linked(a, b));
	links_stats(a->ls, &stats);
	assert_int_equal(stats.refused, 1);
	for (int i = 0; i < 4; i++)
		raw_close(&mute[i]);
	town_fini(&t);
}

static void those_that_were_refused_and_stay_do_not_keep_others_out(void **state)
{
	struct town t;
	struct node *a, *b;
	struct raw mute[4];
	struct links_stats stats;

	(void)state;
	town_init(&t);
	a = town_node(&t, "host0");
	b = town_kernel(&t, "host1");
	a->config.max_handshakes = 4;
	a->config.handshake_ms = 300;
	node_open(a);
	for (int i = 0; i < 4; i++) {
		raw_dial(&t, &mute[i], a->port, NULL);
		conn_pause(mute[i].conn); /* it does not hear that it was refused */
	}
	town_until(&t, (links_stats(a->ls, &stats), stats.refused == 4));
	links_dial(b->ls, "host0");
	town_until(&t, linked(a, b) || b->n_failed);
	assert_int_equal(b->n_failed, 0);
	for (int i = 0; i < 4; i++)
		raw_close(&mute[i]);
	town_fini(&t);
}

static void expect_malformed(const void *bytes, size_t n, int bye)
{
	struct town t;
	struct node *a, *b, *c;
	struct raw bad;
	struct links_stats stats;

	town_pair(&t, &a, &b, 1);
	c = town_kernel(&t, "host2");
	links_dial(c->ls, "host0");
	town_until(&t, linked(a, c));
	raw_join(&bad, a, b, 1);
	raw_send(&bad, bytes, n);
	town_until(&t, bad.closed);
	assert_true(bad.got_bye);
	assert_int_equal(bad.bye_rc, bye);
	assert_int_equal(a->n_down, 1);
	assert_int_equal(a->down_rc, bye);
	links_stats(a->ls, &stats);
	assert_int_equal(stats.malformed, 1);
	assert_int_equal(post(c->last, 1, 10), 0); /* others are unharmed */
	town_until(&t, a->n_frames == 1);
	raw_close(&bad);
	town_fini(&t);
}

static void broken_frames_close_only_that_link(void **state)
{
	static const uint8_t too_long[] = { 0x00, 0x20, 0x00, 0x00, 0x82 };
	static const uint8_t garbage[] = { 0, 0, 0, 3, 0xff, 0xff, 0xff };
	static const uint8_t empty[] = { 0, 0, 0, 0 };
	static const uint8_t unknown[] = { 0, 0, 0, 3, 0x81, 0x18, 0x63 };
	static const uint8_t pong[] = { 0, 0, 0, 3, 0x82, 0x04, 0x07 };
	AUTOBUF again = BUF_INIT;
	struct hello h = { .version_min = 1, .version_max = 1 };

	(void)state;
	hello_encode(&again, &h);
	expect_malformed(too_long, sizeof(too_long), ERR_TOO_LARGE);
	expect_malformed(garbage, sizeof(garbage), ERR_MALFORMED);
	expect_malformed(empty, sizeof(empty), ERR_MALFORMED);
	expect_malformed(unknown, sizeof(unknown), ERR_MALFORMED);
	expect_malformed(pong, sizeof(pong), ERR_MALFORMED);
	expect_malformed(again.data, again.len, ERR_MALFORMED);
}

static void a_post_before_hello_is_refused(void **state)
{
	struct town t;
	struct node *a, *b;
	struct raw bad;

	(void)state;
	town_pair(&t, &a, &b, 1);
	raw_dial(&t, &bad, a->port, b->tls);
	raw_post(&bad, 1);
	town_until(&t, bad.closed);
	assert_int_equal(bad.bye_rc, ERR_MALFORMED);
	assert_int_equal(a->n_up + a->n_frames, 0);
	raw_close(&bad);
	town_fini(&t);
}

static void more_posts_than_credit_close_the_link(void **state)
{
	struct town t;
	struct node *a, *b;
	struct raw bad;

	(void)state;
	town_pair(&t, &a, &b, 0);
	a->config.credit_posts = 3;
	node_open(a);
	raw_dial(&t, &bad, a->port, b->tls);
	raw_hello(&bad, b, 1);
	town_until(&t, bad.got_hello);
	for (uint64_t i = 1; i <= 4; i++)
		raw_post(&bad, i);
	town_until(&t, bad.closed);
	assert_int_equal(bad.bye_rc, ERR_MALFORMED);
	assert_int_equal(a->n_frames, 3);
	raw_close(&bad);
	town_fini(&t);
}

static void a_silent_peer_is_found_out(void **state)
{
	struct town t;
	struct node *a, *b;
	struct raw dumb;
	struct links_stats stats;

	(void)state;
	town_pair(&t, &a, &b, 0);
	quick(a);
	node_open(a);
	raw_join(&dumb, a, b, 1);
	town_until(&t, a->n_down == 1);
	assert_int_equal(a->down_rc, ERR_TIMEOUT);
	assert_true(dumb.n_pings >= 2);
	links_stats(a->ls, &stats);
	assert_int_equal(stats.silent, 1);
	raw_close(&dumb);
	town_fini(&t);
}

static void idle_links_live_by_their_heartbeat(void **state)
{
	struct town t;
	struct node *a, *b;
	struct link_stats stats;

	(void)state;
	town_pair(&t, &a, &b, 0);
	quick(a);
	quick(b);
	node_open(a);
	node_open(b);
	links_dial(a->ls, "host1");
	town_until(&t, linked(a, b));
	town_for(&t, 800);
	assert_true(linked(a, b));
	assert_int_equal(a->n_up, 1);
	link_stats(a->last, &stats);
	assert_in_range(stats.rtt_us, 1, 1000000);
	town_fini(&t);
}

static void a_peer_that_reads_nothing_is_found_out(void **state)
{
	struct town t;
	struct node *a, *b;
	struct raw deaf;
	AUTOBUF pings = BUF_INIT;

	(void)state;
	town_pair(&t, &a, &b, 0);
	quick(a);
	node_open(a);
	raw_join(&deaf, a, b, 1);
	conn_pause(deaf.conn);
	for (uint64_t i = 1; i <= 10; i++)
		assert_int_equal(post(a->last, i, 600000), 0);
	ping_encode(&pings, FRAME_PING, 1);
	for (int64_t until = clock_ms() + 3000; a->n_down == 0 && clock_ms() < until;) {
		raw_send(&deaf, pings.data, pings.len);
		town_turn(&t);
	}
	assert_int_equal(a->n_down, 1);
	assert_non_null(strstr(a->down_why, "reads nothing"));
	raw_close(&deaf);
	town_fini(&t);
}

static void a_frame_refused_by_the_kernel_closes_the_link(void **state)
{
	struct town t;
	struct node *a, *b;

	(void)state;
	town_pair(&t, &a, &b, 2);
	b->frame_rc = ERR_DENIED;
	links_dial(a->ls, "host1");
	town_until(&t, linked(a, b));
	post(a->last, 1, 1);
	town_until(&t, a->n_down == 1 && b->n_down == 1);
	assert_int_equal(a->down_rc, ERR_DENIED);
	assert_int_equal(b->down_rc, ERR_DENIED);
	town_fini(&t);
}

static void closing_says_why_and_what_was_queued_still_arrives(void **state)
{
	struct town t;
	struct node *a, *b;

	(void)state;
	town_pair(&t, &a, &b, 2);
	links_dial(a->ls, "host1");
	town_until(&t, linked(a, b));
	for (uint64_t i = 1; i <= 50; i++)
		post(a->last, i, 20000);
	link_close(a->last, ERR_REVOKED, "your certificate is on the list");
	assert_int_equal(a->n_down, 0); /* never from within the call */
	assert_null(links_find(a->ls, "host1"));
	town_until(&t, a->n_down == 1 && b->n_down == 1);
	assert_int_equal(b->n_frames, 50);
	assert_false(b->disorder);
	assert_int_equal(b->down_rc, ERR_REVOKED);
	assert_string_equal(b->down_why, "your certificate is on the list");
	town_fini(&t);
}

static void close_in_up(struct node *n, struct link *l)
{
	(void)n;
	link_close(l, ERR_DENIED, "changed my mind");
}

static void a_link_may_be_closed_in_its_own_up(void **state)
{
	struct town t;
	struct node *a, *b;

	(void)state;
	town_pair(&t, &a, &b, 2);
	b->in_up = close_in_up;
	links_dial(a->ls, "host1");
	town_until(&t, b->n_down == 1 && a->n_failed == 1);
	assert_int_equal(a->failed_rc, ERR_DENIED);
	assert_int_equal(a->n_up, 0);
	town_fini(&t);
}

/* ---- clients */

static void a_principal_and_a_joiner_come_in_as_what_they_are(void **state)
{
	struct town t;
	struct node *a;
	struct raw r;
	struct signer *alice;
	struct tls_context *tls;
	struct key *k;
	struct node client = { .version_min = PROTOCOL_VERSION,
		.version_max = PROTOCOL_VERSION };
	uint8_t fingerprint[DIGEST_BYTES];

	(void)state;
	town_init(&t);
	a = town_kernel(&t, "host0");
	alice = town_signer(&t, CERT_PRINCIPAL, "alice");
	assert_int_equal(
		tls_context_new(alice, (struct slice){ t.root.data, t.root.len }, &tls, NULL),
		0);
	a->set_name = "host0/client/7";
	raw_dial(&t, &r, a->port, tls);
	raw_hello(&r, &client, 0);
	town_until(&t, a->n_up == 1 && r.got_hello);
	assert_int_equal(a->last_kind, LINK_CLIENT);
	assert_string_equal(link_cert(a->last)->name, "alice");
	assert_string_equal(link_name(a->last), "host0/client/7");
	raw_close(&r);
	town_until(&t, a->n_down == 1);
	tls_context_free(tls);
	signer_free(alice);

	a->set_name = NULL;
	k = key_new();
	digest_bytes(t.root.data, t.root.len, fingerprint);
	assert_int_equal(tls_context_new_joiner(k, fingerprint, &tls, NULL), 0);
	raw_dial(&t, &r, a->port, tls);
	raw_hello(&r, &client, 0);
	town_until(&t, a->n_up == 2 && r.got_hello);
	assert_int_equal(a->last_kind, LINK_JOINER);
	raw_close(&r);
	tls_context_free(tls);
	key_free(k);
	town_fini(&t);
}

static void dial_local(struct town *t, struct raw *r, const char *path)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	memset(r, 0, sizeof(*r));
	r->town = t;
	snprintf(sa.sun_path, sizeof(sa.sun_path), "%s", path);
	assert_int_equal(connect(fd, (struct sockaddr *)&sa, sizeof(sa)), 0);
	assert_int_equal(conn_new(&t->loop, CONN_UNIX, &raw_callbacks, r, &r->conn, NULL), 0);
	assert_int_equal(conn_open(r->conn, fd, NULL), 0);
}

static void a_local_client_comes_with_its_uid(void **state)
{
	char dir[] = "/tmp/tos-link-XXXXXX", path[64];
	struct town t;
	struct node *a, *b;
	struct raw r;
	struct node client = { .version_min = PROTOCOL_VERSION,
		.version_max = PROTOCOL_VERSION };
	struct errmsg em = { "" };
	struct stat st;

	(void)state;
	assert_non_null(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/sock", dir);
	town_init(&t);
	a = town_node(&t, "host0");
	quick(a);
	node_open(a);
	b = town_kernel(&t, "host1");
	assert_int_equal(links_listen_local(a->ls, path, &em), 0);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0666);
	assert_int_equal(links_listen_local(b->ls, path, &em), ERR_EXISTS);
	dial_local(&t, &r, path);
	raw_hello(&r, &client, 0);
	town_until(&t, a->n_up == 1 && r.got_hello);
	assert_int_equal(a->last_kind, LINK_LOCAL);
	assert_int_equal(a->uid, getuid());
	assert_int_equal(link_pid(a->last), getpid());
	assert_null(link_cert(a->last));
	assert_string_equal(link_address(a->last), "unix");
	assert_int_equal(post(a->last, 1, 5), 0);
	raw_post(&r, 1);
	town_until(&t, a->n_frames == 1 && r.n_posts == 1);
	town_for(&t, 500);
	assert_int_equal(a->n_down, 0); /* no heartbeat is asked of it */
	raw_close(&r);
	town_until(&t, a->n_down == 1);
	town_fini(&t);
	assert_int_equal(access(path, F_OK), -1);
	rmdir(dir);
}

static void a_stale_socket_is_replaced_and_a_long_path_works(void **state)
{
	char dir[] = "/tmp/tos-link-XXXXXX", path[200], folder[190];
	struct town t;
	struct node *a;
	struct errmsg em = { "" };
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	(void)state;
	assert_non_null(mkdtemp(dir));
	snprintf(folder, sizeof(folder), "%s/%0150d", dir, 0);
	assert_int_equal(mkdir(folder, 0700), 0);
	town_init(&t);
	a = town_kernel(&t, "host0");
	snprintf(path, sizeof(path), "%s/sock", folder);
	if (links_listen_local(a->ls, path, &em) < 0)
		fail_msg("%s", em.text);
	node_close(a);
	assert_int_equal(access(path, F_OK), -1);
	rmdir(folder);

	snprintf(path, sizeof(path), "%s/sock", dir);
	snprintf(sa.sun_path, sizeof(sa.sun_path), "%s/sock", dir);
	assert_int_equal(bind(fd, (struct sockaddr *)&sa, sizeof(sa)), 0);
	close(fd); /* its owner is gone, the file is there */
	node_open(a);
	if (links_listen_local(a->ls, path, &em) < 0)
		fail_msg("%s", em.text);
	town_fini(&t);
	rmdir(dir);
}

static void clients_are_limited(void **state)
{
	char dir[] = "/tmp/tos-link-XXXXXX", path[64];
	struct town t;
	struct node *a;
	struct raw r[3];
	struct node client = { .version_min = PROTOCOL_VERSION,
		.version_max = PROTOCOL_VERSION };

	(void)state;
	assert_non_null(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/sock", dir);
	town_init(&t);
	a = town_node(&t, "host0");
	a->config.max_clients = 2;
	node_open(a);
	assert_int_equal(links_listen_local(a->ls, path, NULL), 0);
	for (int i = 0; i < 3; i++) {
		dial_local(&t, &r[i], path);
		raw_hello(&r[i], &client, 0);
		town_until(&t, r[i].got_hello || r[i].got_bye);
	}
	assert_int_equal(a->n_up, 2);
	assert_true(r[2].got_bye);
	assert_int_equal(r[2].bye_rc, ERR_LIMIT);
	for (int i = 0; i < 3; i++)
		raw_close(&r[i]);
	town_fini(&t);
	rmdir(dir);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_peer_that_never_finishes_the_handshake_is_dropped),
		cmocka_unit_test(a_dial_that_nobody_answers_ends_at_its_deadline),
		cmocka_unit_test(strangers_that_never_finish_do_not_keep_others_out),
		cmocka_unit_test(those_that_were_refused_and_stay_do_not_keep_others_out),
		cmocka_unit_test(broken_frames_close_only_that_link),
		cmocka_unit_test(a_post_before_hello_is_refused),
		cmocka_unit_test(more_posts_than_credit_close_the_link),
		cmocka_unit_test(a_silent_peer_is_found_out),
		cmocka_unit_test(idle_links_live_by_their_heartbeat),
		cmocka_unit_test(a_peer_that_reads_nothing_is_found_out),
		cmocka_unit_test(a_frame_refused_by_the_kernel_closes_the_link),
		cmocka_unit_test(closing_says_why_and_what_was_queued_still_arrives),
		cmocka_unit_test(a_link_may_be_closed_in_its_own_up),
		cmocka_unit_test(a_principal_and_a_joiner_come_in_as_what_they_are),
		cmocka_unit_test(a_local_client_comes_with_its_uid),
		cmocka_unit_test(a_stale_socket_is_replaced_and_a_long_path_works),
		cmocka_unit_test(clients_are_limited),
	};

	log_init("test", "town", LOG_ERROR, false);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
