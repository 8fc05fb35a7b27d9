/* Links between kernels: who is let in, what goes over, and what happens when both dial or one dies. */
#include "town.h"

#include "base/log.h"

static void a_dial_brings_a_link_up_on_both_sides(void **state)
{
	struct town t;
	struct node *a, *b;

	(void)state;
	town_pair(&t, &a, &b, 2);
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
	town_pair(&t, &a, &b, 2);
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
	town_pair(&t, &a, &b, 2);
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
	town_pair(&t, &a, &b, 0);
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
	town_pair(&t, &a, &b, 2);
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
	town_pair(&t, &a, &b, 2);
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
	town_pair(&t, &a, &b, 2);
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
	town_pair(&t, &a, &b, 2);
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
	town_pair(&t, &a, &b, 2);
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
	town_pair(&t, &a, &b, 2);
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
	town_pair(&t, &a, &b, 1);
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
	town_pair(&t, &a, &b, 2);
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
	town_pair(&t, &a, &b, 1);
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
	raw_join(&ours, a, b, 1);
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
	town_pair(&t, &a, &b, 2);
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
	town_pair(&t, &a, &b, 2);
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
	town_pair(&t, &a, &b, 1);
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

static unsigned n_closed(const struct raw *r, size_t n)
{
	unsigned closed = 0;

	for (size_t i = 0; i < n; i++)
		closed += r[i].closed;
	return closed;
}

static void a_flood_of_strangers_is_cut_off(void **state)
{
	struct town t;
	struct node *a;
	struct raw r[6];
	struct links_stats stats;

	(void)state;
	town_init(&t);
	a = town_node(&t, "host0");
	a->config.max_handshakes = 4;
	node_open(a);
	for (int i = 0; i < 6; i++)
		raw_dial(&t, &r[i], a->port, NULL);
	town_until(&t, n_closed(r, 6) >= 2);
	town_for(&t, 50);
	assert_int_equal(n_closed(r, 6), 2);
	for (int i = 0; i < 6; i++)
		raw_close(&r[i]);
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
	town_pair(&t, &a, &b, 1);
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
	town_pair(&t, &a, &b, 2);
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
	town_pair(&t, &a, &b, 1);
	raw_join(&old, a, b, 1);
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
	town_pair(&t, &a, &b, 1);
	raw_join(&old, a, b, 3);
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
	town_pair(&t, &a, &b, 1);
	raw_join(&old, a, b, 1);
	raw_join(&new, a, b, 1);
	assert_int_equal(a->n_down, 1);
	raw_close(&old);
	raw_close(&new);
	town_fini(&t);
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
	};

	log_init("test", "town", LOG_ERROR, false);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
