/* Links between kernels: who is let in, what goes over, and what happens when a side misbehaves
 * or dies. */
#include "town.h"

#include <arpa/inet.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"

static int silent_listener(uint16_t *port)
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

static void a_dial_brings_a_link_up_on_both_sides(void **state)
{
	struct town t;
	struct node *a, *b;

	(void)state;
	town_init(&t);
	a = town_kernel(&t, "host0");
	b = town_kernel(&t, "host1");
	assert_int_equal(links_dial(a->ls, "host1"), 0);
	town_until(&t, linked(a, b));
	town_for(&t, 50);
	assert_int_equal(a->n_up, 1);
	assert_int_equal(b->n_up, 1);
	assert_int_equal(link_kind(a->last), LINK_KERNEL);
	assert_string_equal(link_name(a->last), "host1");
	assert_string_equal(link_name(b->last), "host0");
	assert_string_equal(link_cert(b->last)->name, "host0");
	assert_string_equal(link_hello(b->last)->name, "host0");
	assert_int_equal(link_version(b->last), PROTOCOL_VERSION);
	assert_true(link_dialled(a->last));
	assert_false(link_dialled(b->last));
	assert_ptr_equal(links_next(a->ls, NULL), a->last);
	assert_null(links_next(a->ls, a->last));
	assert_int_equal(links_dial(b->ls, "host0"), 0); /* there is one */
	town_for(&t, 50);
	assert_int_equal(a->n_up, 1);
	town_fini(&t);
	assert_int_equal(a->n_down, 1);
	assert_int_equal(b->n_down, 1);
}

static void posts_arrive_in_order_both_ways(void **state)
{
	struct town t;
	struct node *a, *b;

	(void)state;
	town_init(&t);
	a = town_kernel(&t, "host0");
	b = town_kernel(&t, "host1");
	links_dial(a->ls, "host1");
	town_until(&t, linked(a, b));
	for (uint64_t i = 1; i <= 500; i++) {
		assert_int_equal(post(a->last, i, i * 7), 0);
		assert_int_equal(post(b->last, i, 3), 0);
	}
	town_until(&t, a->n_frames == 500 && b->n_frames == 500);
	assert_false(a->disorder);
	assert_false(b->disorder);
	town_fini(&t);
}

static void send_in_up(struct node *n, struct link *l)
{
	(void)n;
	for (uint64_t i = 1; i <= 20; i++)
		assert_int_equal(post(l, i, 100), 0);
}

static void posts_may_be_sent_as_soon_as_up_is_told(void **state)
{
	struct town t;
	struct node *a, *b;

	(void)state;
	town_init(&t);
	a = town_kernel(&t, "host0");
	b = town_kernel(&t, "host1");
	a->in_up = b->in_up = send_in_up;
	links_dial(b->ls, "host0");
	town_until(&t, a->n_frames == 20 && b->n_frames == 20);
	assert_false(a->disorder || b->disorder);
	town_fini(&t);
}

static void used_up_credit_answers_full_until_the_peer_gives_more(void **state)
{
	struct town t;
	struct node *a, *b;

	(void)state;
	town_init(&t);
	a = town_node(&t, "host0");
	b = town_node(&t, "host1");
	b->config.credit_posts = 5;
	node_open(a);
	node_open(b);
	links_dial(a->ls, "host1");
	town_until(&t, linked(a, b));
	for (uint64_t i = 1; i <= 5; i++)
		assert_int_equal(post(a->last, i, 10), 0);
	assert_int_equal(post(a->last, 6, 10), ERR_FULL);
	town_until(&t, b->n_frames == 5);
	assert_int_equal(post(a->last, 6, 10), ERR_FULL);
	link_consumed(b->last, LINK_POSTS, 5);
	town_until(&t, post(a->last, 6, 10) == 0);
	town_until(&t, b->n_frames == 6);
	assert_false(b->disorder);
	assert_true(linked(a, b));
	town_fini(&t);
}

static unsigned n_writable;

static void on_writable(void *arg, struct link *l)
{
	(void)arg;
	assert_true(link_chunk_room(l) > 0);
	n_writable++;
}

static void room_for_chunks_ends_and_comes_back(void **state)
{
	static uint8_t data[CHUNK_BYTES_MAX];
	static const uint8_t digest[DIGEST_BYTES];
	AUTOBUF f = BUF_INIT;
	struct chunk k = { { digest, sizeof(digest) }, 0, sizeof(data),
		{ data, sizeof(data) } };
	struct town t;
	struct node *a, *b;
	unsigned sent = 0, before;

	(void)state;
	chunk_encode(&f, &k);
	town_init(&t);
	a = town_kernel(&t, "host0");
	b = town_kernel(&t, "host1");
	links_dial(a->ls, "host1");
	town_until(&t, linked(a, b));
	n_writable = 0;
	link_on_writable(a->last, on_writable, NULL);
	while (link_chunk_room(a->last) > 0) {
		while (link_chunk_room(a->last) > 0) {
			assert_int_equal(link_send(a->last, LINK_CHUNKS, f.data, f.len), 0);
			sent++;
		}
		before = n_writable;
		if (sent < 64)
			town_until(&t, n_writable > before);
	}
	assert_int_equal(sent, 64); /* credit, not the queue, is what ended it */
	town_until(&t, b->n_frames == 64);
	assert_int_equal(link_send(a->last, LINK_CHUNKS, f.data, f.len), ERR_FULL);
	assert_int_equal(post(a->last, 1, 1), 0); /* posts have their own */
	before = n_writable;
	link_consumed(b->last, LINK_CHUNKS, 64);
	town_until(&t, n_writable > before);
	assert_int_equal(link_send(a->last, LINK_CHUNKS, f.data, f.len), 0);
	town_fini(&t);
}

static void a_queue_at_its_bound_answers_full(void **state)
{
	struct town t;
	struct node *a, *b;
	unsigned sent = 0;
	int rc;

	(void)state;
	town_init(&t);
	a = town_node(&t, "host0");
	b = town_kernel(&t, "host1");
	a->config.queue_bytes = 2u << 20;
	node_open(a);
	links_dial(a->ls, "host1");
	town_until(&t, linked(a, b));
	while ((rc = post(a->last, sent + 1, 100000)) == 0)
		sent++;
	assert_int_equal(rc, ERR_FULL);
	assert_int_equal(sent, 20);
	town_until(&t, b->n_frames == sent);
	assert_int_equal(post(a->last, sent + 1, 100000), 0);
	town_until(&t, b->n_frames == sent + 1);
	assert_false(b->disorder);
	town_fini(&t);
}

static void a_kernel_of_another_domain_is_refused(void **state)
{
	struct town t, other;
	struct node *a, *b, *c;

	(void)state;
	town_init(&t);
	town_init(&other);
	a = town_kernel(&t, "host0");
	b = town_node(&t, "host1");
	c = town_node(&other, "host1");
	b->tls = (tls_context_free(b->tls), c->tls); /* the name is right, the root is not */
	c->tls = NULL;
	node_open(b);
	links_dial(a->ls, "host1");
	town_until(&t, a->n_failed == 1);
	assert_int_equal(a->failed_rc, ERR_UNTRUSTED);
	links_dial(b->ls, "host0");
	town_until(&t, b->n_failed == 1);
	assert_int_equal(b->failed_rc, ERR_UNTRUSTED);
	assert_int_equal(a->n_up + b->n_up, 0);
	town_fini(&t);
	town_fini(&other);
}

static void a_kernel_that_says_another_domain_is_refused(void **state)
{
	struct town t;
	struct node *a, *b;

	(void)state;
	town_init(&t);
	a = town_kernel(&t, "host0");
	b = town_kernel(&t, "host1");
	b->domain[0] = b->domain[0] == '0' ? '1' : '0';
	links_dial(b->ls, "host0");
	town_until(&t, b->n_failed == 1);
	assert_int_equal(b->failed_rc, ERR_UNTRUSTED);
	assert_int_equal(a->n_up + b->n_up, 0);
	town_fini(&t);
}

static void who_is_not_the_kernel_that_was_dialled_is_refused(void **state)
{
	struct town t;
	struct node *a, *b, *c;

	(void)state;
	town_init(&t);
	a = town_kernel(&t, "host0");
	b = town_kernel(&t, "host1");
	c = town_node(&t, "host2"); /* not running; its address leads to host1 */
	snprintf(c->address, sizeof(c->address), "127.0.0.1:%u", b->port);
	links_dial(a->ls, "host2");
	town_until(&t, a->n_failed == 1);
	assert_int_equal(a->failed_rc, ERR_UNTRUSTED);
	assert_string_equal(a->failed_name, "host2");
	assert_non_null(strstr(a->failed_why, "host1"));
	assert_int_equal(a->n_up + b->n_up, 0);
	town_fini(&t);
}

static void no_common_version_is_refused_with_that_code(void **state)
{
	struct town t;
	struct node *a, *b;

	(void)state;
	town_init(&t);
	a = town_kernel(&t, "host0");
	b = town_kernel(&t, "host1");
	b->version_min = b->version_max = PROTOCOL_VERSION + 5;
	links_dial(a->ls, "host1");
	town_until(&t, a->n_failed == 1);
	assert_int_equal(a->failed_rc, ERR_VERSION);
	assert_int_equal(a->n_up + b->n_up, 0);
	town_fini(&t);
}

static void neighbouring_versions_agree_on_the_highest_common_one(void **state)
{
	struct town t;
	struct node *a, *b;

	(void)state;
	town_init(&t);
	a = town_kernel(&t, "host0");
	b = town_kernel(&t, "host1");
	b->version_max = PROTOCOL_VERSION + 1;
	links_dial(a->ls, "host1");
	town_until(&t, linked(a, b));
	assert_int_equal(link_version(a->last), PROTOCOL_VERSION);
	assert_int_equal(link_version(b->last), PROTOCOL_VERSION);
	town_fini(&t);
}

static void a_refusal_by_up_reaches_the_dialler_with_its_code(void **state)
{
	struct town t;
	struct node *a, *b;

	(void)state;
	town_init(&t);
	a = town_kernel(&t, "host0");
	b = town_kernel(&t, "host1");
	b->refuse = ERR_REVOKED;
	links_dial(a->ls, "host1");
	town_until(&t, a->n_failed == 1);
	assert_int_equal(a->failed_rc, ERR_REVOKED);
	assert_non_null(strstr(a->failed_why, "the test said no"));
	assert_int_equal(a->n_up + b->n_up + a->n_down + b->n_down, 0);
	assert_null(links_find(b->ls, "host0"));
	town_fini(&t);
}

static void nobody_there_fails_once_for_each_dial(void **state)
{
	struct town t;
	struct node *a, *b, *c;

	(void)state;
	town_init(&t);
	a = town_kernel(&t, "host0");
	b = town_node(&t, "host1");
	c = town_node(&t, "host2");
	b->unresolvable = true;
	snprintf(c->address, sizeof(c->address), "127.0.0.1:1"); /* nothing listens there */
	links_dial(a->ls, "host1");
	links_dial(a->ls, "host1");
	assert_int_equal(a->n_failed, 0); /* never from within the call */
	town_until(&t, a->n_failed == 1);
	assert_int_equal(a->failed_rc, ERR_UNREACHABLE);
	links_dial(a->ls, "host2");
	town_until(&t, a->n_failed == 2);
	assert_int_equal(a->failed_rc, ERR_UNREACHABLE);
	town_for(&t, 100);
	assert_int_equal(a->n_failed, 2);
	assert_int_equal(links_dial(a->ls, "host0"), ERR_NAME);
	assert_int_equal(links_dial(a->ls, ""), ERR_NAME);
	town_fini(&t);
}

static void names_are_looked_up(void **state)
{
	struct town t;
	struct node *a, *b;

	(void)state;
	town_init(&t);
	a = town_kernel(&t, "host0");
	b = town_kernel(&t, "host1");
	snprintf(b->address, sizeof(b->address), "localhost:%u", b->port);
	links_dial(a->ls, "host1");
	town_until(&t, linked(a, b));
	snprintf(a->address, sizeof(a->address), "localhost");
	town_fini(&t);
}

/* ---- both dial at once */

static void both_dialling_at_once_end_with_one_link(void **state)
{
	struct town t;
	struct node *a, *b;

	(void)state;
	for (int round = 0; round < 10; round++) {
		town_init(&t);
		a = town_kernel(&t, "host0");
		b = town_kernel(&t, "host1");
		a->in_up = b->in_up = send_in_up;
		links_dial(round % 2 ? a->ls : b->ls, round % 2 ? "host1" : "host0");
		for (int i = 0; i < round / 2; i++)
			uv_run(&t.loop, UV_RUN_NOWAIT);
		links_dial(round % 2 ? b->ls : a->ls, round % 2 ? "host0" : "host1");
		town_until(&t, linked(a, b));
		town_for(&t, 100);
		assert_true(linked(a, b));
		assert_int_equal(a->n_up, 1);
		assert_int_equal(b->n_up, 1);
		assert_int_equal(a->n_down + b->n_down + a->n_failed + b->n_failed, 0);
		assert_int_equal(a->n_frames, 20);
		assert_int_equal(b->n_frames, 20);
		assert_true(link_dialled(a->last) != link_dialled(b->last));
		town_fini(&t);
	}
}

/* host0 has said hello to a host1 that doesn't answer yet, when that one's own dial comes. */
static void half_dialled(struct town *t, struct node **a, struct node **b,
	struct raw_listener *rl, struct raw *theirs, struct raw *ours)
{
	town_init(t);
	*a = town_kernel(t, "host0");
	*b = town_node(t, "host1");
	raw_listen(t, rl, theirs, (*b)->tls);
	snprintf((*b)->address, sizeof((*b)->address), "127.0.0.1:%u", rl->port);
	links_dial((*a)->ls, "host1");
	town_until(t, theirs->got_hello);
	raw_dial(t, ours, (*a)->port, (*b)->tls);
	raw_hello(ours, *b, 1);
	town_for(t, 100);
	assert_int_equal((*a)->n_up, 0);
	assert_false(ours->got_hello || ours->got_bye);
}

static void a_parked_link_goes_up_when_our_own_dial_fails(void **state)
{
	struct town t;
	struct node *a, *b;
	struct raw_listener rl;
	struct raw theirs, ours;

	(void)state;
	half_dialled(&t, &a, &b, &rl, &theirs, &ours);
	raw_close(&theirs);
	town_until(&t, a->n_up == 1 && ours.got_hello);
	assert_false(link_dialled(a->last));
	assert_int_equal(a->n_failed, 0); /* there is a link, after all */
	raw_close(&ours);
	raw_listener_close(&rl);
	town_fini(&t);
}

static void a_parked_link_is_closed_when_our_own_dial_succeeds(void **state)
{
	struct town t;
	struct node *a, *b;
	struct raw_listener rl;
	struct raw theirs, ours;

	(void)state;
	half_dialled(&t, &a, &b, &rl, &theirs, &ours);
	raw_hello(&theirs, b, 1);
	town_until(&t, a->n_up == 1 && ours.got_bye);
	assert_true(link_dialled(a->last));
	assert_int_equal(ours.bye_rc, ERR_EXISTS);
	assert_int_equal(a->n_down, 0);
	raw_close(&ours);
	raw_close(&theirs);
	raw_listener_close(&rl);
	town_fini(&t);
}

static void a_crossing_dial_is_refused_and_makes_the_old_link_show_life(void **state)
{
	struct town t;
	struct node *a, *b;
	struct raw_listener rl;
	struct raw theirs, ours;

	(void)state;
	town_init(&t);
	a = town_kernel(&t, "host0");
	b = town_node(&t, "host1");
	raw_listen(&t, &rl, &theirs, b->tls);
	snprintf(b->address, sizeof(b->address), "127.0.0.1:%u", rl.port);
	links_dial(a->ls, "host1");
	town_until(&t, theirs.got_hello);
	raw_hello(&theirs, b, 1);
	town_until(&t, a->n_up == 1);
	for (int round = 0; round < 2; round++) {
		theirs.answer_pings = round == 0;
		raw_dial(&t, &ours, a->port, b->tls);
		raw_hello(&ours, b, 1);
		town_until(&t, ours.got_bye);
		assert_int_equal(ours.bye_rc, ERR_EXISTS);
		raw_close(&ours);
		if (round == 0) {
			town_for(&t, 2300);
			assert_int_equal(a->n_down, 0);
		}
	}
	town_until(&t, a->n_down == 1); /* no answer this time */
	assert_int_equal(a->down_rc, ERR_TIMEOUT);
	raw_dial(&t, &ours, a->port, b->tls);
	raw_hello(&ours, b, 1);
	town_until(&t, a->n_up == 2);
	raw_close(&ours);
	raw_close(&theirs);
	raw_listener_close(&rl);
	town_fini(&t);
}

/* ---- addresses */

static void every_address_is_tried_in_turn(void **state)
{
	struct town t;
	struct node *a, *b, *c;

	(void)state;
	town_init(&t);
	a = town_kernel(&t, "host0");
	b = town_kernel(&t, "host1");
	c = town_kernel(&t, "host2");
	/* no address, nobody there, somebody else, and at last the right one */
	snprintf(b->more[0], sizeof(b->more[0]), "nonsense");
	snprintf(b->more[1], sizeof(b->more[1]), "127.0.0.1:1");
	snprintf(b->more[2], sizeof(b->more[2]), "[::1]:1");
	snprintf(b->more[3], sizeof(b->more[3]), "127.0.0.1:%u", c->port);
	links_dial(a->ls, "host1");
	town_until(&t, linked(a, b));
	assert_int_equal(a->n_failed, 0);
	assert_int_equal(c->n_up, 0);
	town_fini(&t);
}

static void a_mute_address_does_not_use_up_the_time_of_the_next(void **state)
{
	AUTOCLOSE int fd = -1;
	struct town t;
	struct node *a, *b;
	uint16_t port;

	(void)state;
	town_init(&t);
	a = town_node(&t, "host0");
	a->config.handshake_ms = 3000;
	node_open(a);
	b = town_kernel(&t, "host1");
	fd = silent_listener(&port);
	snprintf(b->more[0], sizeof(b->more[0]), "127.0.0.1:%u", port);
	links_dial(a->ls, "host1");
	town_until(&t, linked(a, b));
	town_fini(&t);
}

static void every_listener_takes_links(void **state)
{
	struct town t;
	struct node *a, *b;

	(void)state;
	town_init(&t);
	a = town_kernel(&t, "host0");
	b = town_kernel(&t, "host1");
	snprintf(b->address, sizeof(b->address), "127.0.0.1:%u", b->second_port);
	links_dial(a->ls, "host1");
	town_until(&t, linked(a, b));
	town_fini(&t);
}

static void an_unknown_host_name_is_unreachable(void **state)
{
	struct town t;
	struct node *a, *b;

	(void)state;
	town_init(&t);
	a = town_kernel(&t, "host0");
	b = town_node(&t, "host1");
	snprintf(b->address, sizeof(b->address), "no-such-host.invalid:21212");
	links_dial(a->ls, "host1");
	town_until(&t, a->n_failed == 1);
	assert_int_equal(a->failed_rc, ERR_UNREACHABLE);
	links_dial(a->ls, "host1");
	town_turn(&t);
	town_fini(&t); /* while it is being looked up */
}

/* ---- bounds */

static void links_are_limited_and_so_are_dials(void **state)
{
	AUTOCLOSE int fd = -1;
	struct town t;
	struct node *a, *b, *c;
	uint16_t port;

	(void)state;
	town_init(&t);
	a = town_node(&t, "host0");
	a->config.max_links = 1;
	a->config.max_handshakes = 1;
	node_open(a);
	b = town_kernel(&t, "host1");
	c = town_kernel(&t, "host2");
	links_dial(b->ls, "host0");
	town_until(&t, linked(a, b));
	town_turn(&t);
	links_dial(c->ls, "host0");
	town_until(&t, c->n_failed == 1);
	assert_int_equal(c->failed_rc, ERR_LIMIT);
	assert_true(linked(a, b));
	fd = silent_listener(&port);
	snprintf(c->address, sizeof(c->address), "127.0.0.1:%u", port);
	assert_int_equal(links_dial(a->ls, "host2"), 0);
	assert_int_equal(links_dial(a->ls, "host3"), ERR_LIMIT);
	town_fini(&t);
	assert_int_equal(a->n_failed, 1); /* closing answers what was asked */
}

static void a_flood_of_strangers_is_cut_off(void **state)
{
	struct town t;
	struct node *a;
	struct raw r[6];
	unsigned n = 0;
	struct links_stats stats;

	(void)state;
	town_init(&t);
	a = town_node(&t, "host0");
	a->config.max_handshakes = 4;
	node_open(a);
	for (int i = 0; i < 6; i++)
		raw_dial(&t, &r[i], a->port, NULL);
	town_for(&t, 50);
	for (int i = 0; i < 6; i++) {
		n += r[i].closed;
		raw_close(&r[i]);
	}
	assert_int_equal(n, 2);
	links_stats(a->ls, &stats);
	assert_int_equal(stats.refused, 2);
	town_fini(&t);
}

static void a_hello_with_another_name_than_the_certificates_is_refused(void **state)
{
	struct town t;
	struct node *a, *b;
	struct raw r;

	(void)state;
	town_init(&t);
	a = town_kernel(&t, "host0");
	b = town_node(&t, "host1");
	raw_dial(&t, &r, a->port, b->tls);
	snprintf(b->name, sizeof(b->name), "host7");
	raw_hello(&r, b, 1);
	town_until(&t, r.got_bye);
	assert_int_equal(r.bye_rc, ERR_UNTRUSTED);
	assert_int_equal(a->n_up, 0);
	raw_close(&r);
	town_fini(&t);
}

/* ---- restart, reconnection */

static void a_wanted_link_comes_back_after_the_peers_restart(void **state)
{
	struct town t;
	struct node *a, *b;

	(void)state;
	town_init(&t);
	a = town_kernel(&t, "host0");
	b = town_kernel(&t, "host1");
	links_want(a->ls, "host1", true);
	town_until(&t, linked(a, b));
	node_close(b);
	town_until(&t, a->n_down == 1);
	town_for(&t, 300);
	assert_int_equal(a->n_failed, 0); /* nobody asked: the wish goes on by itself */
	b->boot_count++;
	node_open(b);
	town_until(&t, linked(a, b));
	assert_int_equal(a->n_up, 2);
	links_want(a->ls, "host1", false);
	node_close(b);
	node_open(b);
	town_for(&t, 400);
	assert_int_equal(a->n_up, 2);
	town_fini(&t);
}

static void a_higher_boot_count_replaces_the_old_link(void **state)
{
	struct town t;
	struct node *a, *b;
	struct raw old, new;

	(void)state;
	town_init(&t);
	a = town_kernel(&t, "host0");
	b = town_node(&t, "host1");
	raw_dial(&t, &old, a->port, b->tls);
	raw_hello(&old, b, 1);
	town_until(&t, a->n_up == 1 && old.got_hello);
	raw_dial(&t, &new, a->port, b->tls);
	random_bytes(b->boot_nonce, sizeof(b->boot_nonce));
	raw_hello(&new, b, 2);
	town_until(&t, a->n_up == 2 && new.got_hello);
	assert_int_equal(a->n_down, 1);
	assert_int_equal(link_hello(links_find(a->ls, "host1"))->boot_count, 2);
	town_until(&t, old.got_bye);
	raw_close(&old);
	raw_close(&new);
	town_fini(&t);
}

static void a_second_kernel_of_the_same_name_is_refused(void **state)
{
	struct town t;
	struct node *a, *b;
	struct raw old, new;

	(void)state;
	town_init(&t);
	a = town_kernel(&t, "host0");
	b = town_node(&t, "host1");
	raw_dial(&t, &old, a->port, b->tls);
	raw_hello(&old, b, 3);
	town_until(&t, a->n_up == 1);
	random_bytes(b->boot_nonce, sizeof(b->boot_nonce));
	for (uint64_t boot = 2; boot <= 3; boot++) {
		raw_dial(&t, &new, a->port, b->tls);
		raw_hello(&new, b, boot);
		town_until(&t, new.got_bye);
		assert_int_equal(new.bye_rc, ERR_CLONE);
		raw_close(&new);
	}
	assert_int_equal(a->n_down, 0);
	assert_non_null(links_find(a->ls, "host1"));
	raw_close(&old);
	raw_dial(&t, &new, a->port, a->tls); /* our own name */
	raw_hello(&new, a, 9);
	town_until(&t, new.got_bye);
	assert_int_equal(new.bye_rc, ERR_EXISTS);
	raw_close(&new);
	town_fini(&t);
}

static void a_redial_in_the_same_boot_replaces_what_the_peer_lost(void **state)
{
	struct town t;
	struct node *a, *b;
	struct raw old, new;

	(void)state;
	town_init(&t);
	a = town_kernel(&t, "host0");
	b = town_node(&t, "host1");
	raw_dial(&t, &old, a->port, b->tls);
	raw_hello(&old, b, 1);
	town_until(&t, a->n_up == 1);
	raw_dial(&t, &new, a->port, b->tls);
	raw_hello(&new, b, 1);
	town_until(&t, a->n_up == 2 && new.got_hello);
	assert_int_equal(a->n_down, 1);
	raw_close(&old);
	raw_close(&new);
	town_fini(&t);
}

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
	town_init(&t);
	a = town_node(&t, "host0");
	b = town_node(&t, "host1");
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
	town_init(&t);
	a = town_node(&t, "host0");
	b = town_node(&t, "host1");
	quick(a);
	node_open(a);
	fd = silent_listener(&port);
	snprintf(b->address, sizeof(b->address), "127.0.0.1:%u", port);
	began = clock_ms();
	links_dial(a->ls, "host1");
	town_until(&t, a->n_failed == 1);
	assert_int_equal(a->failed_rc, ERR_TIMEOUT);
	assert_in_range(clock_ms() - began, 250, 2000);
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

static void expect_malformed(const void *bytes, size_t n, int bye)
{
	struct town t;
	struct node *a, *b, *c;
	struct raw bad;
	struct links_stats stats;

	town_init(&t);
	a = town_kernel(&t, "host0");
	b = town_node(&t, "host1");
	c = town_kernel(&t, "host2");
	links_dial(c->ls, "host0");
	town_until(&t, linked(a, c));
	raw_dial(&t, &bad, a->port, b->tls);
	raw_hello(&bad, b, 1);
	town_until(&t, a->n_up == 2);
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
	town_init(&t);
	a = town_kernel(&t, "host0");
	b = town_node(&t, "host1");
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
	town_init(&t);
	a = town_node(&t, "host0");
	b = town_node(&t, "host1");
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
	town_init(&t);
	a = town_node(&t, "host0");
	b = town_node(&t, "host1");
	quick(a);
	node_open(a);
	raw_dial(&t, &dumb, a->port, b->tls);
	raw_hello(&dumb, b, 1);
	town_until(&t, a->n_up == 1);
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
	town_init(&t);
	a = town_node(&t, "host0");
	b = town_node(&t, "host1");
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
	town_init(&t);
	a = town_node(&t, "host0");
	b = town_node(&t, "host1");
	quick(a);
	node_open(a);
	raw_dial(&t, &deaf, a->port, b->tls);
	raw_hello(&deaf, b, 1);
	town_until(&t, a->n_up == 1 && deaf.got_hello);
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
	town_init(&t);
	a = town_kernel(&t, "host0");
	b = town_kernel(&t, "host1");
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
	town_init(&t);
	a = town_kernel(&t, "host0");
	b = town_kernel(&t, "host1");
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
	town_init(&t);
	a = town_kernel(&t, "host0");
	b = town_kernel(&t, "host1");
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
		cmocka_unit_test(a_dial_brings_a_link_up_on_both_sides),
		cmocka_unit_test(posts_arrive_in_order_both_ways),
		cmocka_unit_test(posts_may_be_sent_as_soon_as_up_is_told),
		cmocka_unit_test(used_up_credit_answers_full_until_the_peer_gives_more),
		cmocka_unit_test(room_for_chunks_ends_and_comes_back),
		cmocka_unit_test(a_queue_at_its_bound_answers_full),
		cmocka_unit_test(a_kernel_of_another_domain_is_refused),
		cmocka_unit_test(a_kernel_that_says_another_domain_is_refused),
		cmocka_unit_test(who_is_not_the_kernel_that_was_dialled_is_refused),
		cmocka_unit_test(no_common_version_is_refused_with_that_code),
		cmocka_unit_test(neighbouring_versions_agree_on_the_highest_common_one),
		cmocka_unit_test(a_refusal_by_up_reaches_the_dialler_with_its_code),
		cmocka_unit_test(nobody_there_fails_once_for_each_dial),
		cmocka_unit_test(names_are_looked_up),
		cmocka_unit_test(both_dialling_at_once_end_with_one_link),
		cmocka_unit_test(a_parked_link_goes_up_when_our_own_dial_fails),
		cmocka_unit_test(a_parked_link_is_closed_when_our_own_dial_succeeds),
		cmocka_unit_test(a_crossing_dial_is_refused_and_makes_the_old_link_show_life),
		cmocka_unit_test(every_address_is_tried_in_turn),
		cmocka_unit_test(a_mute_address_does_not_use_up_the_time_of_the_next),
		cmocka_unit_test(every_listener_takes_links),
		cmocka_unit_test(an_unknown_host_name_is_unreachable),
		cmocka_unit_test(links_are_limited_and_so_are_dials),
		cmocka_unit_test(a_flood_of_strangers_is_cut_off),
		cmocka_unit_test(a_hello_with_another_name_than_the_certificates_is_refused),
		cmocka_unit_test(a_wanted_link_comes_back_after_the_peers_restart),
		cmocka_unit_test(a_higher_boot_count_replaces_the_old_link),
		cmocka_unit_test(a_second_kernel_of_the_same_name_is_refused),
		cmocka_unit_test(a_redial_in_the_same_boot_replaces_what_the_peer_lost),
		cmocka_unit_test(a_peer_that_never_finishes_the_handshake_is_dropped),
		cmocka_unit_test(a_dial_that_nobody_answers_ends_at_its_deadline),
		cmocka_unit_test(strangers_that_never_finish_do_not_keep_others_out),
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
