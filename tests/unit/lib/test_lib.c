/* libtos against a real domain on disk and, in another process, a kernel's end of the
 * connection. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <signal.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <uv.h>

#include "base/clock.h"
#include "base/mem.h"
#include "lib/bundle.h"
#include "lib/domain.h"
#include "lib/internal.h"
#include "lib/modules.h"
#include "link/link.h"
#include "seal/seal.h"
#include "wire/carrier.h"

static char home[512];
static struct tos_error err;

/* ---- the other end: answers a few verbs and checks a launch as a kernel does */

struct peer {
	uv_loop_t loop;
	struct links *ls;
	struct trusted *trusted;
	uint64_t chunk_bytes;
	bool introduced; /* from then on it lies about who the client is */
	uv_idle_t flood;
	struct link *flooded;
	int n_flood;
	uint64_t calm; /* who asked that it ends; 0: nobody */
};

static int peer_try(struct link *l, enum post_kind kind, uint64_t tag, const char *folder,
	struct tos_value *element)
{
	int rc;

	const struct tos_value *elements[] = { element };
	AUTOBUF f = BUF_INIT;
	AUTOBUF b = BUF_INIT;
	struct post p = { .kind = kind, .tag = tag };

	folder_encode(&f, folder, elements, element ? 1 : 0);
	p.dest = (struct slice){ (const uint8_t *)link_name(l), strlen(link_name(l)) };
	p.sender = (struct slice){ (const uint8_t *)"host0", 5 };
	p.folder = (struct slice){ f.data, f.len };
	post_encode(&b, &p);
	rc = link_send(l, LINK_POSTS, b.data, b.len);
	tos_value_free(element);
	return rc;
}

static void peer_send(struct link *l, enum post_kind kind, uint64_t tag, const char *folder,
	struct tos_value *element)
{
	must(peer_try(l, kind, tag, folder, element) == 0);
}

static void on_flood(uv_idle_t *idle)
{
	struct peer *s = idle->data;

	/* The answer, too, goes when there is room. */
	if (s->calm) {
		if (peer_try(s->flooded, POST_ANSWER, s->calm, "ok", tos_int(s->n_flood)) == 0)
			uv_idle_stop(idle);
		return;
	}
	while (peer_try(s->flooded, POST_ONEWAY, 0, "event", tos_int(s->n_flood)) == 0)
		s->n_flood++;
}

static void peer_fail(struct link *l, uint64_t tag, const char *word, const char *text)
{
	struct tos_value *w = tos_text(word), *t = tos_text(text);
	const struct tos_value *elements[] = { w, t };
	AUTOBUF f = BUF_INIT;
	AUTOBUF b = BUF_INIT;
	struct post p = { .kind = POST_FAILURE, .tag = tag };

	folder_encode(&f, "failure", elements, 2);
	p.dest = (struct slice){ (const uint8_t *)link_name(l), strlen(link_name(l)) };
	p.sender = (struct slice){ (const uint8_t *)"host0", 5 };
	p.folder = (struct slice){ f.data, f.len };
	post_encode(&b, &p);
	must(link_send(l, LINK_POSTS, b.data, b.len) == 0);
	tos_value_free(w);
	tos_value_free(t);
}

static struct tos_value *one(const char *key, struct tos_value *v)
{
	struct tos_value *m = tos_map();

	must(tos_set(m, key, v) == 0);
	return m;
}

/* What the ticket says, if all of its signatures and digests hold. */
static void peer_launch(
	struct peer *s, struct link *l, uint64_t tag, const struct tos_value *args)
{
	struct slice cose, code, briefcase;
	uint8_t digest[DIGEST_BYTES];
	struct cert_info who;
	struct errmsg em = { "" };
	struct ticket t;
	struct cose c;

	cose.p = tos_get_bytes(args, "ticket", &cose.n);
	code.p = tos_get_bytes(args, "code", &code.n);
	briefcase.p = tos_get_bytes(args, "briefcase", &briefcase.n);
	if (cose_verify(trusted_trust(s->trusted), "ticket", cose, &c, &who, &em) < 0 ||
		ticket_decode(c.payload, &t, &em) < 0) {
		peer_fail(l, tag, "bad-signature", em.text);
		return;
	}
	digest_bytes(code.p, code.n, digest);
	if (code.n && memcmp(digest, t.code, sizeof(digest)) != 0)
		peer_fail(l, tag, "bad-signature", "code");
	else if (t.nonce[0] != 9 || strcmp(t.name, "host0#7") != 0)
		peer_fail(l, tag, "replayed", "nonce or name");
	else if (!code.n && s->chunk_bytes < 600000)
		peer_fail(l, tag, "not-found", "neither code nor chunks");
	else {
		struct tos_value *m = one("name", tos_text(t.name));

		tos_set(m, "path", tos_value_copy(t.path));
		tos_set(m, "owner", tos_text(who.name));
		peer_send(l, POST_ANSWER, tag, "ok", m);
	}
	ticket_fini(&t);
}

static void peer_call(struct peer *s, struct link *l, const struct post *p)
{
	uint8_t nonce[16] = { 9 };
	struct tos_value *elements = NULL, *m;
	char verb[NAME_BYTES_MAX + 1];

	must(folder_decode(p->folder, verb, &elements) == 0);
	if (strcmp(verb, "STATUS") == 0)
		peer_send(l, POST_ANSWER, p->tag, "ok", one("ready", tos_bool(true)));
	else if (strcmp(verb, "EVENTS") == 0) {
		for (int i = 0; i < 500;
			i++) /* five times: more than the client gives credit for at once */
			peer_send(l, POST_ONEWAY, 0, "event", tos_int(i));
		peer_send(l, POST_ANSWER, p->tag, "ok", NULL);
	} else if (strcmp(verb, "FLOOD") == 0) {
		s->flooded = l;
		s->calm = 0;
		uv_idle_start(&s->flood, on_flood);
	} else if (strcmp(verb, "CALM") == 0)
		s->calm = p->tag;
	else if (strcmp(verb, "DENY") == 0)
		peer_fail(l, p->tag, "denied", "not you");
	else if (strcmp(verb, "CLOSE") == 0)
		link_close(l, ERR_LIMIT, "enough of you");
	else if (strcmp(verb, "KERNELS") == 0) {
		m = tos_array();
		tos_push(m, one("name", tos_text("host10")));
		tos_push(m, one("name", tos_text("host2")));
		peer_send(l, POST_ANSWER, p->tag, "ok", m);
	} else if (strcmp(verb, "GROUPS") == 0) {
		peer_send(l, POST_ANSWER, p->tag, "ok", tos_map()); /* none was published */
	} else if (strcmp(verb, "NAME") == 0) {
		m = one("name", tos_text("host0#7"));
		tos_set(m, "nonce", tos_bytes(nonce, sizeof(nonce)));
		peer_send(l, POST_ANSWER, p->tag, "ok", m);
	} else if (strcmp(verb, "INTRODUCE") == 0) {
		if (tos_get(tos_at(elements, 0), "cose"))
			s->introduced = true;
		m = one("client",
			tos_text(s->introduced ? "host2/client/7" : "host0/client/1"));
		tos_set(m, "boot", tos_bytes(nonce, sizeof(nonce)));
		peer_send(l, POST_ANSWER, p->tag, "ok", m);
	} else if (strcmp(verb, "LAUNCH") == 0)
		peer_launch(s, l, p->tag, tos_at(elements, 0));
	tos_value_free(elements);
}

static void on_hello(void *arg, const char *peer_name, struct hello *h)
{
	(void)arg;
	(void)peer_name;
	h->version_min = h->version_max = PROTOCOL_VERSION;
	snprintf(h->name, sizeof(h->name), "host0");
	random_bytes(h->boot_nonce, sizeof(h->boot_nonce));
}

static int on_up(void *arg, struct link *l, const struct hello *h, struct errmsg *em)
{
	(void)arg;
	(void)h;
	(void)em;
	link_set_name(l, "host0/client/1");
	return 0;
}

static int on_frame(void *arg, struct link *l, struct slice frame, struct errmsg *em)
{
	struct peer *s = arg;
	struct cbor_cursor c;
	struct chunk k;
	struct post p;

	(void)em;
	switch (frame_open(&c, frame)) {
	case FRAME_POST:
		must(post_decode(&c, &p) == 0);
		link_consumed(l, LINK_POSTS, 1);
		if (p.kind == POST_CALL)
			peer_call(s, l, &p);
		break;
	case FRAME_CHUNK:
		must(chunk_decode(&c, &k) == 0);
		link_consumed(l, LINK_CHUNKS, 1);
		s->chunk_bytes += k.data.n;
		break;
	default:
		break;
	}
	return 0;
}

static void on_down(void *arg, struct link *l, int rc, const char *why)
{
	struct peer *s = arg;

	(void)rc;
	(void)why;
	if (l == s->flooded)
		uv_idle_stop(&s->flood);
}

static size_t on_resolve(void *arg, const char *name, char (*out)[128], size_t most)
{
	(void)arg;
	(void)name;
	(void)out;
	(void)most;
	return 0;
}

static int peer_run(void)
{
	static const struct link_callbacks cb = { .hello = on_hello,
		.up = on_up,
		.frame = on_frame,
		.down = on_down,
		.resolve = on_resolve };
	char key[600], cert[600], sock[600];
	struct peer s = { .chunk_bytes = 0 };
	struct links_config config;
	struct tls_context *tls;
	struct signer *signer;

	snprintf(key, sizeof(key), "%s/kernels/host0/key", home);
	snprintf(cert, sizeof(cert), "%s/kernels/host0/cert", home);
	snprintf(sock, sizeof(sock), "%s/kernels/host0/sock", home);
	must(uv_loop_init(&s.loop) == 0);
	must(uv_idle_init(&s.loop, &s.flood) == 0);
	s.flood.data = &s;
	must(trusted_open(home, &s.trusted, NULL) == 0);
	must(signer_load(key, cert, NULL, &signer, NULL) == 0);
	must(tls_context_new(signer, trusted_trust(s.trusted)->root_der, &tls, NULL) == 0);
	links_config_defaults(&config);
	snprintf(config.name, sizeof(config.name), "host0");
	must(links_new(&s.loop, &config, tls, &cb, &s, &s.ls, NULL) == 0);
	must(links_listen_local(s.ls, sock, NULL) == 0);
	return uv_run(&s.loop, UV_RUN_DEFAULT);
}

static pid_t peer_pid; /* of the test that runs */

static pid_t peer_start(void)
{
	pid_t parent = getpid(), pid = fork();
	char sock[600];

	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		_exit(getppid() == parent ? peer_run() : 1);
	}
	peer_pid = pid;
	snprintf(sock, sizeof(sock), "%s/kernels/host0/sock", home);
	for (int64_t until = clock_ms() + 10000; clock_ms() < until; usleep(1000)) {
		struct tos_connection *c;

		if (tos_connect(home, "host0", 1000, &c, NULL) == 0) {
			tos_disconnect(c);
			return pid;
		}
	}
	fail_msg("the peer did not start");
	return -1;
}

static void peer_stop(pid_t pid)
{
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	peer_pid = 0;
}

/* An assertion that fails leaves the test where it is. */
static int peer_gone(void **state)
{
	(void)state;
	if (peer_pid)
		peer_stop(peer_pid);
	return 0;
}

/* ---- a domain on disk */

static int make_home(void **state)
{
	AUTOBUF said = BUF_INIT;
	char dir[] = "/tmp/tos-test.XXXXXX";
	struct errmsg em = { "" };

	(void)state;
	assert_non_null(mkdtemp(dir));
	snprintf(home, sizeof(home), "%s/h", dir);
	if (domain_init(home, NULL, NULL, &said, &em) < 0)
		fail_msg("%s", em.text);
	return 0;
}

static int remove_home(void **state)
{
	char command[600];

	(void)state;
	*strrchr(home, '/') = 0;
	snprintf(command, sizeof(command), "rm -r '%s'", home);
	return system(command);
}

static void a_domain_is_not_made_twice(void **state)
{
	AUTOBUF said = BUF_INIT;
	struct errmsg em = { "" };

	(void)state;
	assert_int_equal(domain_init(home, NULL, NULL, &said, &em), ERR_EXISTS);
	assert_non_null(strstr(em.text, "nothing was changed"));
}

static void keys_are_for_their_owner_only(void **state)
{
	static const char *const keys[] = { "ca/root.key", "ca/registrar.key", "keys/admin/key",
		"kernels/host0/key", "kernels/host0/registrar.key" };
	char path[700];
	struct stat st;

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(keys); i++) {
		snprintf(path, sizeof(path), "%s/%s", home, keys[i]);
		assert_int_equal(stat(path, &st), 0);
		assert_int_equal(st.st_mode & 0777, 0600);
	}
}

static void more_kernels_get_ports_of_their_own(void **state)
{
	char a[128], b[128];
	struct names all;
	struct home h;

	(void)state;
	assert_int_equal(home_open(home, &h, NULL), 0);
	assert_int_equal(
		domain_kernel_add(&h, "host1", 0, NULL, NULL), 0); /* 0: host0's port */
	assert_int_equal(domain_kernel_add(&h, "host10", 1, NULL, NULL), 0);
	assert_int_equal(kernel_conf_listen(&h, "host0", a), 0);
	assert_int_equal(kernel_conf_listen(&h, "host1", b), 0);
	assert_string_not_equal(a, b);
	assert_int_equal(domain_kernel_add(&h, "host2", 2, NULL, NULL), 0);
	assert_int_equal(home_kernels(&h, &all), 0);
	assert_int_equal(all.n, 4);
	assert_string_equal(all.v[2], "host2"); /* before host10 */
	names_fini(&all);
}

static void a_revoked_certificate_stays_on_the_list(void **state)
{
	struct tos_value *serials = tos_array(), *list = NULL;
	struct trusted *t;
	struct home h;
	uint64_t number = 0;

	(void)state;
	assert_int_equal(home_open(home, &h, NULL), 0);
	assert_int_equal(domain_principal_add(&h, "eve", ROLE_OWNER, NULL, 86400000, NULL), 0);
	assert_int_equal(
		domain_principal_add(&h, "eve", ROLE_OWNER, NULL, 86400000, NULL), ERR_EXISTS);
	assert_int_equal(
		domain_principal_add(&h, "../eve", ROLE_OWNER, NULL, 86400000, NULL), ERR_NAME);
	assert_int_equal(domain_serials(&h, false, "eve", serials, NULL), 0);
	assert_int_equal(domain_serials(&h, false, "nobody", serials, NULL), ERR_NOT_FOUND);
	for (uint64_t i = 2; i < 4; i++) {
		AUTOBUF bytes = BUF_INIT;

		assert_int_equal(domain_revoke(&h, serials, &number, &bytes, NULL), 0);
		assert_int_equal(number, i);
	}
	assert_int_equal(trusted_open(home, &t, NULL), 0);
	assert_int_equal(revocation_count(trusted_trust(t)->revocation), 1);
	trusted_free(t);
	assert_int_equal(domain_principals(&h, &list, NULL), 0);
	for (size_t i = 0; i < tos_len(list); i++)
		assert_int_equal(tos_get_bool(tos_at(list, i), "revoked", false),
			strcmp(tos_get_text(tos_at(list, i), "name", ""), "eve") == 0);
	tos_value_free(list);
	tos_value_free(serials);
}

/* ---- paths */

static void paths_are_taken_apart(void **state)
{
	struct names all = { NULL, 0 };
	struct tos_value *v;
	char name[64];

	(void)state;
	assert_int_equal(names_add(&all, "host0"), 0);
	assert_int_equal(names_add(&all, "host1"), 0);
	assert_int_equal(path_entries("a, b|c ,@all", NULL, &all, &v, NULL), 0);
	assert_int_equal(tos_len(v), 4);
	assert_string_equal(tos_as_text(tos_at(v, 1), ""), "b|c");
	assert_string_equal(tos_as_text(tos_at(v, 3), ""), "host1");
	assert_true(path_alternative("b|c", 1, name));
	assert_string_equal(name, "c");
	assert_false(path_alternative("b|c", 2, name));
	tos_value_free(v);
	assert_int_equal(path_entries("", NULL, &all, &v, NULL), 0);
	assert_int_equal(tos_len(v), 0);
	tos_value_free(v);
	names_fini(&all);
}

static void paths_that_are_none_are_refused(void **state)
{
	static const char *const wrong[] = { "a,,b", ",a", "a,", "a|", "|a", "A", "a b", "-a",
		"a/b", "a#1", "@a|b", "@", "@A", "@=x", "@os=", "@os=a|b" };
	struct tos_value *v;

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(wrong); i++)
		assert_true(path_entries(wrong[i], NULL, NULL, &v, NULL) < 0);
}

/* ---- conversations */

static void a_kernel_that_is_not_there_is_unreachable(void **state)
{
	struct tos_connection *c;

	(void)state;
	assert_int_equal(tos_connect(home, NULL, 1000, &c, &err), ERR_UNREACHABLE);
	assert_non_null(strstr(err.text, "tos up"));
	assert_int_equal(tos_connect(home, "nobody", 1000, &c, &err), ERR_NOT_FOUND);
	assert_int_equal(tos_connect("/nonexistent", NULL, 1000, &c, &err), ERR_NOT_FOUND);
}

static void answers_come_to_who_asked(void **state)
{
	pid_t pid = peer_start();
	struct tos_value *v = NULL;
	struct tos_connection *c;
	char folder[129];

	(void)state;
	assert_int_equal(tos_connect(home, NULL, 5000, &c, &err), 0);
	assert_string_equal(tos_connection_kernel(c), "host0");
	assert_int_equal(tos_ask(c, "Control", "STATUS", NULL, 5000, folder, &v, &err), 0);
	assert_string_equal(folder, "ok");
	assert_true(tos_get_bool(tos_at(v, 0), "ready", false));
	assert_string_equal(tos_connection_name(c), "host0/client/1");
	tos_value_free(v);
	assert_int_equal(
		tos_ask(c, "Control", "DENY", NULL, 5000, folder, &v, &err), ERR_DENIED);
	assert_string_equal(err.text, "not you");
	assert_int_equal(
		tos_ask(c, "Control", "SILENCE", NULL, 50, folder, &v, &err), ERR_TIMEOUT);
	assert_int_equal(tos_ask(c, "Control", "STATUS", NULL, 5000, folder, &v, &err), 0);
	tos_value_free(v);
	assert_true(tos_ask(c, "", "STATUS", NULL, 5000, folder, &v, &err) < 0);
	assert_int_equal(
		tos_ask(c, "Control", "CLOSE", NULL, 5000, folder, &v, &err), ERR_LIMIT);
	assert_non_null(strstr(err.text, "enough of you"));
	assert_int_equal(
		tos_ask(c, "Control", "STATUS", NULL, 5000, folder, &v, &err), ERR_LIMIT);
	tos_disconnect(c);
	peer_stop(pid);
}

static void folders_that_come_meanwhile_are_kept_in_order(void **state)
{
	pid_t pid = peer_start();
	struct tos_value *v = NULL;
	struct tos_connection *c;
	char sender[129], folder[129];

	(void)state;
	assert_int_equal(tos_connect(home, NULL, 5000, &c, &err), 0);
	for (int round = 0; round < 5; round++) {
		assert_int_equal(
			tos_ask(c, "Control", "EVENTS", NULL, 5000, NULL, NULL, &err), 0);
		for (int i = 0; i < 500; i++) {
			assert_int_equal(tos_receive(c, 1000, sender, folder, &v, &err), 0);
			assert_string_equal(folder, "event");
			assert_int_equal(tos_as_int(tos_at(v, 0), -1), i);
			tos_value_free(v);
		}
		assert_int_equal(tos_receive(c, 0, sender, folder, &v, &err), ERR_TIMEOUT);
	}
	tos_disconnect(c);
	peer_stop(pid);
}

/* All that came and was not dropped, in order; how many. Once told how many were. */
static int received(struct tos_connection *c, int *told)
{
	struct tos_value *v = NULL;
	int n = 0, rc;

	*told = 0;
	while ((rc = tos_receive(c, 0, NULL, NULL, &v, &err)) == 0) {
		assert_int_equal(tos_as_int(tos_at(v, 0), -1), n);
		tos_value_free(v);
		n++;
	}
	if (rc == ERR_FULL)
		assert_int_equal(sscanf(err.text, "%d folders", told), 1);
	return n;
}

static void a_flood_of_folders_ends_no_deadline_and_fills_no_memory(void **state)
{
	pid_t pid = peer_start();
	int64_t begun = clock_ms();
	struct tos_value *v = NULL;
	struct tos_connection *c;
	int n, told, sent, rc;

	(void)state;
	assert_int_equal(tos_connect(home, NULL, 5000, &c, &err), 0);
	alarm(60); /* for a client that it would hold */
	assert_int_equal(
		tos_ask(c, "Control", "FLOOD", NULL, 500, NULL, NULL, &err), ERR_TIMEOUT);
	assert_true(clock_ms() - begun < 10000);
	/* An answer comes behind it. */
	assert_int_equal(tos_ask(c, "Control", "CALM", NULL, 20000, NULL, &v, &err), 0);
	alarm(0);
	sent = (int)tos_as_int(tos_at(v, 0), -1);
	tos_value_free(STEAL(v));
	assert_true(sent > 8192);
	n = received(c, &told);
	assert_int_equal(n, 8192);
	assert_int_equal(n + told, sent);
	assert_non_null(strstr(err.text, "dropped"));
	/* It is told once, and there is place again. */
	rc = tos_receive(c, 0, NULL, NULL, &v, &err);
	assert_int_equal(rc, ERR_TIMEOUT);
	assert_int_equal(tos_ask(c, "Control", "EVENTS", NULL, 5000, NULL, NULL, &err), 0);
	assert_int_equal(received(c, &told), 500);
	tos_disconnect(c);
	peer_stop(pid);
}

static void a_dead_peer_ends_the_conversation(void **state)
{
	pid_t pid = peer_start();
	struct tos_connection *c;

	(void)state;
	assert_int_equal(tos_connect(home, NULL, 5000, &c, &err), 0);
	peer_stop(pid);
	assert_int_equal(
		tos_ask(c, "Control", "STATUS", NULL, 5000, NULL, NULL, &err), ERR_CLOSED);
	tos_disconnect(c);
}

/* ---- shells */

/* A bundle as tos build makes it, but without tos-vm, whose check has tests of its own. */
static struct tos_shell *shell_of(size_t bytes)
{
	char file[600];
	struct tos_principal *author;
	struct tos_value *all = tos_array(), *m = tos_map(), *limits = tos_map();
	char *source = mem_zero(bytes + 64);
	struct tos_shell *s;
	uint8_t *p;
	size_t n;

	memset(source, ' ', bytes);
	snprintf(source + bytes, 64, "\nfunction begin() end\n");
	tos_set(m, "source", tos_bytes(source, strlen(source)));
	tos_set(m, "briefcase", tos_map());
	tos_set(m, "limits", limits);
	tos_set(m, "name", tos_text("hello"));
	tos_set(m, "entry", tos_text("hello.lua"));
	tos_push(all, tos_text("tos-carrier"));
	tos_push(all, tos_int(1));
	tos_push(all, m);
	assert_int_equal(tos_encode(all, &p, &n), 0);
	snprintf(file, sizeof(file), "%s/hello.carrier", home);
	assert_int_equal(bytes_write(file, p, n, 0644, NULL), 0);
	assert_int_equal(tos_shell_load(file, &s, &err), 0);
	assert_int_equal(tos_principal_load(home, NULL, &author, &err), 0);
	assert_int_equal(tos_shell_sign(s, author, &err), 0);
	tos_principal_free(author);
	tos_value_free(all);
	free(source);
	free(p);
	return s;
}

static void what_was_built_verifies_until_a_byte_changes(void **state)
{
	struct tos_shell *s = shell_of(100);
	struct slice b = shell_bundle(s);
	uint8_t *copy = mem_dup(b.p, b.n);
	struct tos_value *v = NULL;
	unsigned refused = 0;

	(void)state;
	assert_int_equal(bundle_verify(b, home, &v, em_of(&err)), 0);
	assert_string_equal(tos_get_text(v, "author", ""), "admin");
	assert_string_equal(tos_get_text(v, "entry", ""), "hello.lua");
	tos_value_free(v);
	for (size_t i = 0; i < b.n; i += 7) {
		copy[i] ^= 1;
		v = NULL;
		refused +=
			bundle_verify((struct slice){ copy, b.n }, home, &v, em_of(&err)) < 0;
		tos_value_free(v);
		copy[i] ^= 1;
	}
	assert_int_equal(refused, (b.n + 6) / 7);
	free(copy);
	tos_shell_free(s);
}

static void a_saved_shell_comes_back_as_it_was(void **state)
{
	struct tos_shell *s = shell_of(10), *t;
	char a[600], b[600];
	AUTOBUF first = BUF_INIT;
	AUTOBUF second = BUF_INIT;

	(void)state;
	snprintf(a, sizeof(a), "%s/a", home);
	snprintf(b, sizeof(b), "%s/b", home);
	assert_int_equal(tos_shell_path(s, "host0,host1|host2", &err), 0);
	assert_int_equal(tos_shell_push(s, "DATA", tos_int(3), &err), 0);
	assert_int_equal(tos_shell_limit(s, "cpu=2", &err), 0);
	assert_int_equal(tos_shell_option(s, "on-unreachable", "wait=5s", &err), 0);
	assert_int_equal(tos_shell_option(s, "itinerant", NULL, &err), 0);
	assert_int_equal(tos_shell_save(s, a, &err), 0);
	assert_int_equal(tos_shell_load(a, &t, &err), 0);
	assert_int_equal(tos_shell_save(t, b, &err), 0);
	assert_int_equal(bytes_read(a, 1 << 20, &first, NULL), 0);
	assert_int_equal(bytes_read(b, 1 << 20, &second, NULL), 0);
	assert_int_equal(first.len, second.len);
	assert_memory_equal(first.data, second.data, first.len);
	tos_shell_free(s);
	tos_shell_free(t);
}

/* ---- modules */

/* "name@line" of each use, with commas; "?" behind what is optional. */
static void scanned(const char *text, const char *want)
{
	struct module_scan s;
	struct module_use use;
	AUTOBUF out = BUF_INIT;

	module_scan_init(&s, text, strlen(text));
	while (module_scan_next(&s, &use))
		buf_printf(&out, "%s%.*s@%u%s", out.len ? "," : "", (int)use.n, use.name,
			use.line, use.optional ? "?" : "");
	assert_string_equal(buf_cstr(&out), want);
}

static void only_calls_of_require_with_a_literal_are_modules(void **state)
{
	(void)state;
	scanned("local a = require \"a\"\nlocal b = require('lib.b')\nrequire [[c]]\n",
		"a@1,lib.b@2,c@3");
	scanned("local ok, m = pcall(require, 'd')", "d@1?");
	scanned("-- require 'a'\n--[[ require 'b'\n]] --[==[ ]] require 'c' ]==] require 'd'",
		"d@3");
	scanned("x = 'require \\'a\\'' y = \"require 'b'\" z = [=[ require 'c' ]=] w = \"\\z\n\" require 'd'",
		"d@2");
	scanned("t.require 'a' t:require 'b' function require(x) end requires 'c' _require 'd' x=''..require 'e'",
		"e@1");
	scanned("require(name) require('a' .. 'b') require 'c'.x require", "c@1");
	scanned("#!/usr/bin/env tos require 'a'\nrequire -- why\n 'b'", "b@3");
	scanned("require 'unended", "unended@1");
	scanned("require [==[ unended", " unended@1");
	scanned("--[[ unended", "");
	scanned("", "");
}

static void what_is_written_to_a_descriptor_is_the_file(void **state)
{
	struct tos_shell *s = shell_of(10);
	AUTOBUF saved = BUF_INIT;
	uint8_t bytes[8192];
	char file[600];
	int ends[2];

	(void)state;
	snprintf(file, sizeof(file), "%s/a", home);
	assert_int_equal(pipe(ends), 0);
	assert_int_equal(tos_shell_path(s, "host0", &err), 0);
	assert_int_equal(tos_shell_save(s, file, &err), 0);
	assert_int_equal(tos_shell_write(s, ends[1], &err), 0);
	close(ends[1]);
	assert_int_equal(bytes_read(file, sizeof(bytes), &saved, NULL), 0);
	assert_int_equal(read(ends[0], bytes, sizeof(bytes)), (ssize_t)saved.len);
	assert_memory_equal(bytes, saved.data, saved.len);
	close(ends[0]);
	tos_shell_free(s);
}

static void a_shell_tells_its_three_parts(void **state)
{
	static const char *const names[] = { "code", "path", "data" };
	struct tos_shell *s = shell_of(10);
	struct tos_value *v = NULL;

	(void)state;
	assert_int_equal(tos_shell_path(s, "host0,host1|host2", &err), 0);
	assert_int_equal(tos_shell_push(s, "DATA", tos_int(3), &err), 0);
	assert_int_equal(shell_describe(s, &v, em_of(&err)), 0);
	for (size_t i = 0; i < ARRAY_LEN(names); i++) {
		const struct tos_value *part = tos_at(tos_get(v, "parts"), i);

		assert_string_equal(tos_get_text(part, "part", ""), names[i]);
		assert_int_equal(strlen(tos_get_text(part, "sha256", "")), 64);
		assert_true(tos_get_int(part, "bytes", 0) > 0);
	}
	/* {"DATA": [3]} is a1 64 44415441 81 03 */
	assert_int_equal(tos_get_int(tos_at(tos_get(v, "parts"), 2), "bytes", 0), 8);
	assert_string_equal(tos_get_text(v, "path", ""), "host0,host1|host2");
	assert_int_equal(tos_get_int(tos_get(v, "folders"), "DATA", 0), 1);
	tos_value_free(v);
	tos_shell_free(s);
}

static void wrong_properties_are_named(void **state)
{
	struct tos_shell *s = shell_of(10);

	(void)state;
	assert_true(tos_shell_path(s, "a,,b", &err) < 0);
	assert_true(tos_shell_limit(s, "speed=2", &err) < 0);
	assert_true(tos_shell_limit(s, "cpu=fast", &err) < 0);
	assert_int_equal(tos_shell_option(s, "on-unreachable", "panic", &err), ERR_USAGE);
	assert_int_equal(tos_shell_option(s, "on-unreachable", "wait=x", &err), ERR_USAGE);
	assert_int_equal(tos_shell_option(s, "colour", "red", &err), ERR_USAGE);
	assert_int_equal(tos_shell_option(s, "expires", "never", &err), ERR_USAGE);
	assert_int_equal(tos_shell_push(s, "bad\nname", tos_int(1), &err), ERR_NAME);
	assert_true(tos_shell_push(s, "DATA", NULL, &err) < 0);
	tos_shell_free(s);
}

static void launch_bytes(size_t bytes)
{
	pid_t pid = peer_start();
	struct tos_shell *s = shell_of(bytes);
	struct tos_principal *owner;
	struct tos_connection *c;
	char name[129] = "";

	assert_int_equal(tos_principal_load(home, "admin", &owner, &err), 0);
	assert_int_equal(tos_connect(home, NULL, 5000, &c, &err), 0);
	assert_int_equal(tos_shell_path(s, "@all", &err), 0);
	if (tos_shell_launch(s, c, owner, name, &err) < 0)
		fail_msg("%s", err.text);
	assert_string_equal(name, "host0#7");
	tos_disconnect(c);
	tos_principal_free(owner);
	tos_shell_free(s);
	peer_stop(pid);
}

static void a_small_launch_goes_in_one_folder(void **state)
{
	(void)state;
	launch_bytes(100);
}

static void a_large_launch_goes_ahead_in_chunks(void **state)
{
	(void)state;
	launch_bytes(6000000); /* more chunks than there is credit for at once */
}

static void unknown_hosts_of_a_path_are_told(void **state)
{
	pid_t pid = peer_start();
	struct tos_shell *s = shell_of(10);
	struct tos_connection *c;
	AUTOBUF unknown = BUF_INIT;
	AUTOBUF known = BUF_INIT;

	(void)state;
	assert_int_equal(tos_connect(home, NULL, 5000, &c, &err), 0);
	assert_int_equal(tos_shell_path(s, "host0,host2|hots10,@all", &err), 0);
	assert_int_equal(shell_unknown_hosts(s, c, &unknown, &known, NULL), 0);
	assert_string_equal(buf_cstr(&unknown), "hots10");
	assert_string_equal(buf_cstr(&known), "host0, host2, host10");
	tos_disconnect(c);
	tos_shell_free(s);
	peer_stop(pid);
}

static void only_owners_launch_and_only_authors_sign(void **state)
{
	struct tos_shell *s = shell_of(10);
	struct tos_principal *p;
	char name[129];
	struct home h;

	(void)state;
	assert_int_equal(home_open(home, &h, NULL), 0);
	assert_int_equal(
		domain_principal_add(&h, "reader", ROLE_OFFICER, NULL, 86400000, NULL), 0);
	assert_int_equal(tos_principal_load(home, "reader", &p, &err), 0);
	assert_int_equal(tos_shell_sign(s, p, &err), ERR_DENIED);
	assert_int_equal(tos_shell_launch(s, NULL, p, name, &err), ERR_DENIED);
	tos_principal_free(p);
	assert_int_equal(tos_principal_load(home, "nobody", &p, &err), ERR_NOT_FOUND);
	assert_int_equal(tos_principal_load(home, "../ca", &p, &err), ERR_NOT_FOUND);
	tos_shell_free(s);
}

static void no_other_kernels_client_is_introduced(void **state)
{
	pid_t pid = peer_start();
	struct tos_connection *c;
	struct tos_principal *p;

	(void)state;
	assert_int_equal(tos_principal_load(home, "admin", &p, &err), 0);
	assert_int_equal(tos_connect(home, "host0", 5000, &c, &err), 0);
	assert_int_equal(tos_introduce(c, p, 5000, &err), 0);
	assert_int_equal(tos_introduce(c, p, 5000, &err), 0); /* it was */
	/* Another one, though it may lie where the first did. And it would be host2's client now, whom
	 * this kernel may know. */
	tos_principal_free(p);
	assert_int_equal(tos_principal_load(home, "admin", &p, &err), 0);
	assert_int_equal(tos_introduce(c, p, 5000, &err), ERR_DENIED);
	assert_non_null(strstr(err.text, "host2/client/7"));
	tos_disconnect(c);
	tos_principal_free(p);
	peer_stop(pid);
}

#define TEST(fn) cmocka_unit_test_teardown(fn, peer_gone)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(a_domain_is_not_made_twice),
		TEST(keys_are_for_their_owner_only),
		TEST(more_kernels_get_ports_of_their_own),
		TEST(a_revoked_certificate_stays_on_the_list),
		TEST(paths_are_taken_apart),
		TEST(paths_that_are_none_are_refused),
		TEST(a_kernel_that_is_not_there_is_unreachable),
		TEST(answers_come_to_who_asked),
		TEST(folders_that_come_meanwhile_are_kept_in_order),
		TEST(a_flood_of_folders_ends_no_deadline_and_fills_no_memory),
		TEST(a_dead_peer_ends_the_conversation),
		TEST(what_was_built_verifies_until_a_byte_changes),
		TEST(a_saved_shell_comes_back_as_it_was),
		TEST(only_calls_of_require_with_a_literal_are_modules),
		TEST(what_is_written_to_a_descriptor_is_the_file),
		TEST(a_shell_tells_its_three_parts),
		TEST(wrong_properties_are_named),
		TEST(a_small_launch_goes_in_one_folder),
		TEST(a_large_launch_goes_ahead_in_chunks),
		TEST(unknown_hosts_of_a_path_are_told),
		TEST(only_owners_launch_and_only_authors_sign),
		TEST(no_other_kernels_client_is_introduced),
	};

	return cmocka_run_group_tests(tests, make_home, remove_home);
}
