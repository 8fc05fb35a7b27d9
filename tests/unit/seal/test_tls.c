/* TLS sessions, both ends in memory: src/seal/tls.c. */
#include "domain.h"

static struct domain d;

static int setup(void **state)
{
	(void)state;
	domain_init(&d);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	domain_fini(&d);
	return 0;
}

struct end {
	struct tls_session *s;
	struct buf in, out; /* plain text received; bytes for the other end */
	int rc;             /* the first failure */
	struct errmsg em;
};

struct pair {
	struct end client, server;
};

static void pair_init(struct pair *p, struct tls_context *client, struct tls_context *server)
{
	memset(p, 0, sizeof(*p));
	p->client.s = tls_session_new(client, false);
	p->server.s = tls_session_new(server, true);
}

static void end_fini(struct end *e)
{
	tls_session_free(e->s);
	buf_fini(&e->in);
	buf_fini(&e->out);
}

static void pair_fini(struct pair *p)
{
	end_fini(&p->client);
	end_fini(&p->server);
}

/* Give what one end wants to send to the other, `step` bytes at a time. */
static void carry(struct end *from, struct end *to, size_t step)
{
	AUTOBUF b = from->out;

	from->out = (struct buf)BUF_INIT;
	for (size_t at = 0; at < b.len && to->rc == 0; at += step) {
		size_t n = b.len - at < step ? b.len - at : step;

		to->rc = tls_feed(to->s, b.data + at, n, &to->in, &to->out, &to->em);
	}
}

static void run_steps(struct pair *p, size_t step)
{
	if (p->client.rc == 0 && !tls_ready(p->client.s))
		p->client.rc = tls_start(p->client.s, &p->client.out, &p->client.em);
	while (p->client.out.len || p->server.out.len) {
		carry(&p->client, &p->server, step);
		carry(&p->server, &p->client, step);
	}
}

static void run(struct pair *p)
{
	run_steps(p, 1 << 16);
}

static struct tls_context *context(const struct signer *s, const struct domain *of)
{
	struct tls_context *t = NULL;

	assert_int_equal(tls_context_new(s, slice_buf(&of->root), &t, NULL), 0);
	return t;
}

static void assert_peer(const struct tls_session *s, enum cert_kind kind, const char *name)
{
	struct cert_info i;

	assert_int_equal(tls_peer(s, &i), 0);
	assert_int_equal(i.kind, kind);
	assert_string_equal(i.name, name);
}

static void send_text(struct end *e, const char *text)
{
	assert_int_equal(tls_send(e->s, text, strlen(text), &e->out, NULL), 0);
}

static void kernels_meet_and_talk(void **state)
{
	AUTO(signer) a = signer_new_enrolled(&d, "host1");
	AUTO(signer) b = signer_new(&d, CERT_KERNEL, "host0", 0, -DAY, DAY);
	AUTO(tls_context) ca = context(a, &d);
	AUTO(tls_context) cb = context(b, &d);
	AUTOBUF root = BUF_INIT;
	struct pair p;

	(void)state;
	pair_init(&p, ca, cb);
	assert_false(tls_ready(p.client.s));
	assert_int_equal(tls_send(p.client.s, "x", 1, &p.client.out, NULL), ERR_STATE);
	run(&p);
	assert_int_equal(p.client.rc, 0);
	assert_int_equal(p.server.rc, 0);
	assert_true(tls_ready(p.client.s) && tls_ready(p.server.s));
	assert_peer(p.client.s, CERT_KERNEL, "host0");
	assert_peer(p.server.s, CERT_KERNEL, "host1");
	send_text(&p.client, "hello, server");
	send_text(&p.server, "hello, client");
	run(&p);
	assert_string_equal(buf_cstr(&p.server.in), "hello, server");
	assert_string_equal(buf_cstr(&p.client.in), "hello, client");
	assert_int_equal(tls_peer_root(p.client.s, &root), 0);
	assert_int_equal(root.len, d.root.len);
	pair_fini(&p);
}

static void bytes_may_come_one_by_one(void **state)
{
	AUTO(signer) a = signer_new_enrolled(&d, "host1");
	AUTO(tls_context) c = context(a, &d);
	struct pair p;

	(void)state;
	pair_init(&p, c, c);
	run_steps(&p, 1);
	assert_true(tls_ready(p.client.s) && tls_ready(p.server.s));
	send_text(&p.client, "slow");
	run_steps(&p, 1);
	assert_string_equal(buf_cstr(&p.server.in), "slow");
	pair_fini(&p);
}

static void megabytes_arrive_whole(void **state)
{
	AUTO(signer) a = signer_new_enrolled(&d, "host1");
	AUTO(tls_context) c = context(a, &d);
	AUTOBUF big = BUF_INIT;
	struct pair p;

	(void)state;
	assert_int_equal(buf_reserve(&big, 3 << 20), 0);
	big.len = 3 << 20;
	random_bytes(big.data, big.len);
	pair_init(&p, c, c);
	run(&p);
	assert_int_equal(tls_send(p.client.s, big.data, big.len, &p.client.out, NULL), 0);
	run_steps(&p, 50000);
	assert_int_equal(p.server.in.len, big.len);
	assert_memory_equal(p.server.in.data, big.data, big.len);
	pair_fini(&p);
}

static void goodbye_is_told_from_a_cut(void **state)
{
	AUTO(signer) a = signer_new_enrolled(&d, "host1");
	AUTO(tls_context) c = context(a, &d);
	struct pair p;

	(void)state;
	pair_init(&p, c, c);
	run(&p);
	send_text(&p.client, "bye");
	assert_int_equal(tls_close(p.client.s, &p.client.out), 0);
	run(&p);
	assert_string_equal(buf_cstr(&p.server.in), "bye");
	assert_int_equal(p.server.rc, ERR_CLOSED);
	assert_int_equal(tls_send(p.client.s, "x", 1, &p.client.out, NULL), ERR_CLOSED);
	assert_int_equal(tls_close(p.server.s, &p.server.out), 0);
	pair_fini(&p);
}

static void principals_are_clients_but_never_servers(void **state)
{
	AUTO(signer) a = signer_new(&d, CERT_PRINCIPAL, "alice", ROLE_ADMIN, -DAY, DAY);
	AUTO(signer) b = signer_new(&d, CERT_KERNEL, "host0", 0, -DAY, DAY);
	AUTO(tls_context) ca = context(a, &d);
	AUTO(tls_context) cb = context(b, &d);
	struct pair p;

	(void)state;
	pair_init(&p, ca, cb);
	run(&p);
	assert_int_equal(p.client.rc, 0);
	assert_peer(p.server.s, CERT_PRINCIPAL, "alice");
	pair_fini(&p);
	pair_init(&p, cb, ca);
	run(&p);
	assert_int_equal(p.client.rc, ERR_UNTRUSTED);
	assert_non_null(strstr(p.client.em.text, "not a kernel"));
	assert_false(tls_ready(p.client.s));
	pair_fini(&p);
}

/* One bad end against a good one, in both roles: the good end refuses with `rc`, the bad one is
 * told. */
static void assert_refused(
	struct tls_context *bad, struct tls_context *good, int rc, int told, const char *word)
{
	struct cert_info i;
	struct pair p;

	pair_init(&p, bad, good);
	run(&p);
	assert_int_equal(p.server.rc, rc);
	assert_non_null(strstr(p.server.em.text, word));
	assert_false(tls_ready(p.server.s));
	assert_int_equal(tls_peer(p.server.s, &i), ERR_STATE);
	assert_int_equal(p.client.rc, told); /* although its own handshake had succeeded */
	pair_fini(&p);
	pair_init(&p, good, bad);
	run(&p);
	assert_int_equal(p.client.rc, rc);
	assert_non_null(strstr(p.client.em.text, word));
	assert_false(tls_ready(p.client.s));
	assert_int_equal(p.server.rc, told);
	pair_fini(&p);
}

static void expired_certificate_is_refused_on_both_sides(void **state)
{
	AUTO(signer) old = signer_new(&d, CERT_KERNEL, "host9", 0, -9 * DAY, -DAY);
	AUTO(signer) b = signer_new(&d, CERT_KERNEL, "host0", 0, -DAY, DAY);
	AUTO(tls_context) bad = context(old, &d);
	AUTO(tls_context) good = context(b, &d);

	(void)state;
	assert_refused(bad, good, ERR_EXPIRED, ERR_EXPIRED, "kernel host9 expired");
}

static void early_certificate_is_refused_on_both_sides(void **state)
{
	AUTO(signer) early = signer_new(&d, CERT_KERNEL, "host9", 0, DAY, 2 * DAY);
	AUTO(signer) b = signer_new(&d, CERT_KERNEL, "host0", 0, -DAY, DAY);
	AUTO(tls_context) bad = context(early, &d);
	AUTO(tls_context) good = context(b, &d);

	(void)state;
	assert_refused(bad, good, ERR_NOT_YET, ERR_UNTRUSTED, "not valid before");
}

static void clock_skew_is_allowed_for(void **state)
{
	AUTO(signer) early = signer_new(&d, CERT_KERNEL, "host8", 0, SKEW / 2, DAY);
	AUTO(signer) late = signer_new(&d, CERT_KERNEL, "host9", 0, -DAY, -SKEW / 2);
	AUTO(tls_context) a = context(early, &d);
	AUTO(tls_context) b = context(late, &d);
	struct pair p;

	(void)state;
	pair_init(&p, a, b);
	run(&p);
	assert_true(tls_ready(p.client.s) && tls_ready(p.server.s));
	pair_fini(&p);
	tls_context_trust(a, NULL, 0);
	pair_init(&p, a, b);
	run(&p);
	assert_int_equal(p.client.rc, ERR_EXPIRED);
	pair_fini(&p);
}

static void revoked_certificate_is_refused_on_both_sides(void **state)
{
	AUTO(signer) gone = signer_new_enrolled(&d, "host9");
	AUTO(signer) b = signer_new(&d, CERT_KERNEL, "host0", 0, -DAY, DAY);
	AUTO(tls_context) bad = context(gone, &d);
	AUTO(tls_context) good = context(b, &d);
	AUTO(revocation) r = NULL;
	AUTOBUF list = BUF_INIT;
	struct slice serial = { gone->info.serial, gone->info.serial_len };

	(void)state;
	assert_int_equal(revocation_make(d.root_key, slice_buf(&d.root), 1, d.now_ms, &serial,
				 1, &list, NULL),
		0);
	assert_int_equal(revocation_decode(slice_buf(&list), slice_buf(&d.root), &r, NULL), 0);
	tls_context_trust(good, r, SKEW);
	assert_refused(bad, good, ERR_REVOKED, ERR_REVOKED, "kernel host9 has been revoked");
}

static void foreign_domain_is_refused_on_both_sides(void **state)
{
	struct domain foreign;

	(void)state;
	domain_init(&foreign);
	AUTO(signer) a = signer_new_enrolled(&foreign, "host1");
	AUTO(signer) b = signer_new_enrolled(&d, "host1");
	AUTO(tls_context) bad = context(a, &foreign);
	AUTO(tls_context) good = context(b, &d);
	struct pair p;

	/* each is foreign to the other; the client sees the server's chain first */
	pair_init(&p, bad, good);
	run(&p);
	assert_int_equal(p.client.rc, ERR_UNTRUSTED);
	assert_non_null(strstr(p.client.em.text, "another domain: test domain"));
	assert_int_equal(p.server.rc, ERR_UNTRUSTED);
	assert_non_null(strstr(p.server.em.text, "another domain"));
	pair_fini(&p);
	domain_fini(&foreign);
}

/* A client that trusts our root but shows what another domain gave it. */
static void foreign_client_certificate_is_refused(void **state)
{
	struct domain foreign;

	(void)state;
	domain_init(&foreign);
	AUTO(signer) a = signer_new_enrolled(&foreign, "host1");
	AUTO(signer) b = signer_new_enrolled(&d, "host1");
	AUTO(tls_context) bad = context(a, &d);
	AUTO(tls_context) good = context(b, &d);

	assert_refused(bad, good, ERR_UNTRUSTED, ERR_UNTRUSTED, "not issued by this domain");
	domain_fini(&foreign);
}

static struct tls_context *joiner(const struct key *k, const struct buf *root)
{
	uint8_t fingerprint[DIGEST_BYTES];
	struct tls_context *t = NULL;

	digest_bytes(root->data, root->len, fingerprint);
	assert_int_equal(tls_context_new_joiner(k, fingerprint, &t, NULL), 0);
	return t;
}

static void joiner_finds_the_root_it_was_told_of(void **state)
{
	AUTO(key) k = key_new();
	AUTO(signer) direct = signer_new(&d, CERT_KERNEL, "host0", 0, -DAY, DAY);
	AUTO(signer) enrolled = signer_new_enrolled(&d, "host1");
	AUTO(tls_context) c = joiner(k, &d.root);
	uint8_t public_key[32];

	(void)state;
	key_public(k, public_key);
	for (int i = 0; i < 2; i++) {
		AUTO(tls_context) server = context(i ? enrolled : direct, &d);
		AUTOBUF root = BUF_INIT;
		struct cert_info who;
		struct pair p;

		pair_init(&p, c, server);
		run(&p);
		assert_int_equal(p.client.rc, 0);
		assert_peer(p.client.s, CERT_KERNEL, i ? "host1" : "host0");
		assert_peer(p.server.s, CERT_JOINER, "joiner");
		assert_int_equal(tls_peer(p.server.s, &who), 0);
		assert_memory_equal(who.public_key, public_key, 32);
		assert_int_equal(tls_peer_root(p.client.s, &root), 0);
		assert_int_equal(root.len, d.root.len);
		assert_memory_equal(root.data, d.root.data, root.len);
		send_text(&p.client, "may I?");
		run(&p);
		assert_string_equal(buf_cstr(&p.server.in), "may I?");
		pair_fini(&p);
	}
}

static void joiner_refuses_another_domain(void **state)
{
	AUTO(key) k = key_new();
	AUTO(signer) s = signer_new_enrolled(&d, "host0");
	AUTO(tls_context) server = context(s, &d);
	AUTO(tls_context) c = NULL;
	struct domain foreign;
	struct pair p;

	(void)state;
	domain_init(&foreign);
	c = joiner(k, &foreign.root);
	pair_init(&p, c, server);
	run(&p);
	assert_int_equal(p.client.rc, ERR_UNTRUSTED);
	assert_non_null(strstr(p.client.em.text, "token"));
	assert_int_equal(p.server.rc, ERR_UNTRUSTED);
	pair_fini(&p);
	domain_fini(&foreign);
}

/* The right root at the end of the chain, but a certificate that it never issued in front. */
static void joiner_checks_more_than_the_root(void **state)
{
	AUTO(key) k = key_new();
	AUTO(tls_context) c = joiner(k, &d.root);
	struct domain foreign;
	struct pair p;

	(void)state;
	domain_init(&foreign);
	AUTO(signer) s = signer_new(&foreign, CERT_KERNEL, "host0", 0, -DAY, DAY);
	AUTO(tls_context) server = context(s, &d);

	pair_init(&p, c, server);
	run(&p);
	assert_int_equal(p.client.rc, ERR_UNTRUSTED);
	assert_false(tls_ready(p.client.s));
	pair_fini(&p);
	domain_fini(&foreign);
}

static void joiner_cannot_be_a_server(void **state)
{
	AUTO(key) k = key_new();
	AUTO(signer) host = signer_new_enrolled(&d, "host0");
	AUTO(tls_context) client = context(host, &d);
	struct signer self = { .key = k, .n_chain = 1 };
	struct pair p;

	(void)state;
	key_public(k, self.info.public_key);
	assert_int_equal(cert_issue(k, (struct slice){ NULL, 0 }, CERT_JOINER, "joiner", 0,
				 self.info.public_key, 0, d.now_ms + DAY, &self.chain[0], NULL),
		0);
	AUTO(tls_context) server = context(&self, &d);

	pair_init(&p, client, server);
	run(&p);
	assert_int_equal(p.client.rc, ERR_UNTRUSTED);
	pair_fini(&p);
	buf_fini(&self.chain[0]);
}

static void other_protocols_are_named(void **state)
{
	AUTO(signer) a = signer_new_enrolled(&d, "host1");
	AUTO(tls_context) c = context(a, &d);
	static const char http[] = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";
	struct errmsg em = { "" };
	AUTOBUF plain = BUF_INIT;
	AUTOBUF wire = BUF_INIT;

	(void)state;
	AUTO(tls_session) s = tls_session_new(c, true);

	assert_int_equal(
		tls_feed(s, http, sizeof(http) - 1, &plain, &wire, &em), ERR_MALFORMED);
	assert_non_null(strstr(em.text, "HTTP"));
	/* and stays failed */
	assert_int_equal(tls_feed(s, http, 1, &plain, &wire, &em), ERR_MALFORMED);
	assert_int_equal(tls_start(s, &wire, NULL), ERR_MALFORMED);
	AUTO(tls_session) t = tls_session_new(c, true);

	assert_true(tls_feed(t, "\0\0\0\0\0\0\0\0\0\0\0\0", 12, &plain, &wire, &em) < 0);
	assert_int_equal(plain.len, 0);
}

static void flipped_byte_on_the_wire_ends_the_session(void **state)
{
	AUTO(signer) a = signer_new_enrolled(&d, "host1");
	AUTO(tls_context) c = context(a, &d);
	struct pair p;

	(void)state;
	pair_init(&p, c, c);
	run(&p);
	send_text(&p.client, "pay 10");
	p.client.out.data[p.client.out.len - 1] ^= 1;
	run(&p);
	assert_int_equal(p.server.rc, ERR_MALFORMED);
	assert_int_equal(p.server.in.len, 0);
	pair_fini(&p);
}

static void bounded_buffers_are_respected(void **state)
{
	AUTO(signer) a = signer_new_enrolled(&d, "host1");
	AUTO(tls_context) c = context(a, &d);
	struct pair p;

	(void)state;
	pair_init(&p, c, c);
	run(&p);
	p.server.in.max = 8;
	send_text(&p.client, "longer than eight");
	run(&p);
	assert_int_equal(p.server.rc, ERR_TOO_LARGE);
	pair_fini(&p);
}

static void no_ticket_is_ever_sent(void **state)
{
	AUTO(signer) a = signer_new_enrolled(&d, "host1");
	AUTO(tls_context) c = context(a, &d);
	struct pair p;

	(void)state;
	pair_init(&p, c, c);
	assert_int_equal(tls_start(p.client.s, &p.client.out, NULL), 0);
	carry(&p.client, &p.server, 1 << 16);
	carry(&p.server, &p.client, 1 << 16);
	carry(&p.client, &p.server, 1 << 16);
	assert_true(tls_ready(p.server.s));
	assert_int_equal(p.server.out.len, 0);
	pair_fini(&p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(kernels_meet_and_talk),
		cmocka_unit_test(bytes_may_come_one_by_one),
		cmocka_unit_test(megabytes_arrive_whole),
		cmocka_unit_test(goodbye_is_told_from_a_cut),
		cmocka_unit_test(principals_are_clients_but_never_servers),
		cmocka_unit_test(expired_certificate_is_refused_on_both_sides),
		cmocka_unit_test(early_certificate_is_refused_on_both_sides),
		cmocka_unit_test(clock_skew_is_allowed_for),
		cmocka_unit_test(revoked_certificate_is_refused_on_both_sides),
		cmocka_unit_test(foreign_domain_is_refused_on_both_sides),
		cmocka_unit_test(foreign_client_certificate_is_refused),
		cmocka_unit_test(joiner_finds_the_root_it_was_told_of),
		cmocka_unit_test(joiner_refuses_another_domain),
		cmocka_unit_test(joiner_checks_more_than_the_root),
		cmocka_unit_test(joiner_cannot_be_a_server),
		cmocka_unit_test(other_protocols_are_named),
		cmocka_unit_test(flipped_byte_on_the_wire_ends_the_session),
		cmocka_unit_test(bounded_buffers_are_respected),
		cmocka_unit_test(no_ticket_is_ever_sent),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
