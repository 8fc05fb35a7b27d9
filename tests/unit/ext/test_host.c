/* The host of extensions: the same claims for one in the kernel and one in a tos-ext of its
 * own. */
#include "world.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/buf.h"
#include "wire/extproto.h"

static bool is_ready(struct world *w)
{
	return w->n_ready > 0;
}

static struct world *probe_world(bool isolated)
{
	struct world *w = world_new();
	struct errmsg em = { "" };

	w->library = isolated ? PROBE : NULL;
	if (world_load(w, "Probe", PROBE, "", isolated, &em) < 0)
		fail_msg("%s", em.text);
	assert_true(world_until(w, is_ready));
	if (w->ready_rc)
		fail_msg("%s", w->ready_why);
	return w;
}

static void both(void (*claim)(struct world *w))
{
	for (int isolated = 0; isolated < 2; isolated++) {
		struct world *w = probe_world(isolated);

		claim(w);
		world_free(w);
	}
}

static void call_claim(struct world *w)
{
	struct sent *s = world_call(w, "Probe", "echo", texts("a", "b", NULL));

	assert_int_equal(s->kind, POST_ANSWER);
	assert_string_equal(s->dest, "host0#1");
	assert_string_equal(s->sender, "Probe");
	assert_string_equal(s->folder, "host0#1");
	assert_int_equal(tos_len(s->elements), 2);
	assert_string_equal(tos_as_text(tos_at(s->elements, 1), ""), "b");
	assert_string_equal(world_call(w, "Probe", "class", NULL)->folder, "carrier");
	assert_string_equal(world_call(w, "Probe", "kernel", NULL)->folder, "host0");
}

static void a_call_is_answered_to_its_sender(void **state)
{
	(void)state;
	both(call_claim);
}

static void failure_claim(struct world *w)
{
	struct sent *s = world_call(w, "Probe", "fail", texts("no", NULL));

	assert_string_equal(failure_word(s), "refused");
	assert_string_equal(failure_text(s), "no");
}

static void a_failure_carries_its_word_and_text(void **state)
{
	(void)state;
	both(failure_claim);
}

static void answer_call(struct world *w, struct sent *s)
{
	/* From within the extension's own tos_call(): the probe aborts if it is called back
	 * there. */
	if (s->kind == POST_CALL && strcmp(s->dest, "host1/Good") == 0)
		world_answer(w, s, 0, NULL, texts("x", NULL));
	else if (s->kind == POST_CALL && strcmp(s->dest, "host1/Bad") == 0)
		world_answer(w, s, ERR_UNREACHABLE, "no road", NULL);
}

static void extension_calls_claim(struct world *w)
{
	struct sent *s;

	w->on_send = answer_call;
	s = world_call(w, "Probe", "call", texts("host1/Good", NULL));
	assert_int_equal(tos_as_int(tos_at(s->elements, 0), 1), 0);
	assert_string_equal(tos_as_text(tos_at(s->elements, 1), ""), "ok");
	assert_int_equal(tos_as_int(tos_at(s->elements, 2), 0), 1);
	s = world_call(w, "Probe", "call", texts("host1/Bad", NULL));
	assert_int_equal(tos_as_int(tos_at(s->elements, 0), 1), ERR_UNREACHABLE);
	assert_string_equal(tos_as_text(tos_at(s->elements, 1), ""), "no road");
	s = world_call(w, "Probe", "call", texts("host1/Silent", NULL));
	assert_int_equal(tos_as_int(tos_at(s->elements, 0), 1), ERR_TIMEOUT);
}

static void an_extension_calls_others_and_is_never_entered_twice(void **state)
{
	(void)state;
	both(extension_calls_claim);
}

static void refused_call_claim(struct world *w)
{
	struct sent *s = world_call(w, "Probe", "call", texts("Nowhere", NULL));

	if (s->kind == POST_FAILURE)
		assert_string_equal(failure_word(s), "no-such-inbox");
	else
		assert_int_equal(tos_as_int(tos_at(s->elements, 0), 1), ERR_NO_INBOX);
}

static void a_call_that_fails_at_once_is_told(void **state)
{
	(void)state;
	both(refused_call_claim);
}

static bool is_posted(struct world *w)
{
	return world_sent_folder(w, "posted", 0) != NULL;
}

static void post_claim(struct world *w)
{
	assert_non_null(world_sent_folder(w, "started", 0));
	assert_int_equal(world_post(w, POST_ONEWAY, "", "kernel", "Probe", "post",
				 texts("host1/Echo", NULL), 0),
		0);
	assert_true(world_until(w, is_posted));
	assert_string_equal(world_sent_folder(w, "posted", 0)->dest, "host1/Echo");
	assert_string_equal(world_sent_folder(w, "posted", 0)->sender, "Probe");
}

static void posts_go_out_under_the_first_inbox(void **state)
{
	(void)state;
	both(post_claim);
}

static void timer_claim(struct world *w)
{
	int64_t before = clock_ms();

	assert_string_equal(world_call(w, "Probe", "timer", NULL)->folder, "fired");
	assert_true(clock_ms() - before >= 19);
}

static void timers_fire_once_and_stopped_ones_do_not(void **state)
{
	(void)state;
	both(timer_claim);
}

static bool has_waited(struct world *w)
{
	return world_count(w, "waited") >= 3;
}

static void wait_claim(struct world *w)
{
	assert_true(world_until(w, has_waited));
}

static void an_inbox_is_woken_after_its_time_without_a_post(void **state)
{
	(void)state;
	both(wait_claim);
}

static bool late_known(struct world *w)
{
	return strcmp(world_property(w, "late"), "-") != 0;
}

static void deadline_claim(struct world *w)
{
	struct tos_value *ms = array_of(tos_int(150));
	uint64_t tag;

	assert_int_equal(
		world_post(w, POST_CALL, "host0#1", "carrier", "Probe", "late", ms, 50), 0);
	tag = w->next_tag - 1;
	assert_true(world_until(w, late_known));
	assert_string_equal(failure_word(world_sent_tag(w, tag)), "timed-out");
	/* The extension learns that nobody waits any more. */
	assert_string_equal(world_property(w, "late"), "-14");
	assert_int_equal(world_count(w, "timed_out"), 1);
}

static void an_answer_after_the_deadline_goes_nowhere(void **state)
{
	(void)state;
	both(deadline_claim);
}

static void twice_claim(struct world *w)
{
	uint64_t tag;
	size_t answers = 0;

	assert_string_equal(world_call(w, "Probe", "twice", NULL)->folder, "first");
	tag = w->next_tag - 1;
	world_run(w, 50);
	for (size_t i = 0; i < w->n_sent; i++)
		answers += w->sent[i].kind >= POST_ANSWER && w->sent[i].tag == tag;
	assert_int_equal(answers, 1);
	assert_int_equal(w->n_lost, 0);
}

static void a_second_answer_is_dropped(void **state)
{
	(void)state;
	both(twice_claim);
}

static bool slow_answered(struct world *w)
{
	size_t n = 0;

	for (size_t i = 0; i < w->n_sent; i++)
		n += strcmp(w->sent[i].folder, "slow") == 0;
	return n == 3;
}

static int post_slow(struct world *w)
{
	return world_post(w, POST_CALL, "host0#1", "carrier", "Slow", "x", NULL, 5000);
}

static void bound_claim(struct world *w)
{
	struct tos_value *all;
	const struct tos_value *v;

	assert_int_equal(post_slow(w), 0);
	assert_int_equal(post_slow(w), 0);
	world_run(w, 50); /* it leaves them there */
	assert_int_equal(post_slow(w), 0);
	assert_int_equal(post_slow(w), ERR_FULL);
	assert_true(world_until(w, slow_answered));
	world_run(w, 20);
	assert_int_equal(post_slow(w), 0);
	all = ext_describe(w->host);
	v = tos_at(all, 0);
	assert_string_equal(tos_get_text(v, "state", ""), "ready");
	assert_int_equal(tos_get_int(tos_at(tos_get(v, "inboxes"), 2), "refused", 0), 1);
	assert_int_equal(tos_get_int(tos_at(tos_get(v, "inboxes"), 2), "taken", 0), 3);
	tos_value_free(all);
}

static void a_full_inbox_refuses_until_something_is_taken(void **state)
{
	(void)state;
	both(bound_claim);
}

static void closed_claim(struct world *w)
{
	uint32_t flags = 0;

	assert_int_equal(
		world_post(w, POST_ONEWAY, "host0#1", "carrier", "Closed", "x", NULL, 0),
		ERR_DENIED);
	assert_int_equal(
		world_post(w, POST_ONEWAY, "host0/client/1", "client", "Closed", "x", NULL, 0),
		ERR_DENIED);
	assert_int_equal(
		world_post(w, POST_ONEWAY, "host0/Echo", "extension", "Closed", "x", NULL, 0),
		0);
	assert_int_equal(world_post(w, POST_ONEWAY, "", "", "Closed", "x", NULL, 0), 0);
	assert_int_equal(
		world_post(w, POST_ONEWAY, "", "", "Unheard-of", "x", NULL, 0), ERR_NO_INBOX);
	assert_true(ext_has_inbox(w->host, "Closed", &flags));
	assert_int_equal(flags, TOS_INBOX_EXTENSIONS_ONLY);
	assert_string_equal(ext_hook(w->host, TOS_INBOX_EXTENSIONS_ONLY, 0), "Closed");
	assert_null(ext_hook(w->host, TOS_INBOX_EXTENSIONS_ONLY, 1));
}

static void an_inbox_for_extensions_refuses_carriers_and_clients(void **state)
{
	(void)state;
	both(closed_claim);
}

static void malformed_claim(struct world *w)
{
	struct post p = { .kind = POST_ONEWAY, .folder = { (const uint8_t *)"\xff", 1 } };

	assert_int_equal(ext_deliver(w->host, "Probe", &p, NULL, NULL), ERR_MALFORMED);
	p.folder.n = 0;
	assert_int_equal(ext_deliver(w->host, "Probe", &p, NULL, NULL), ERR_MALFORMED);
}

static void malformed_folders_are_refused(void **state)
{
	(void)state;
	both(malformed_claim);
}

static void configuration_reaches_the_extension(void **state)
{
	(void)state;
	for (int isolated = 0; isolated < 2; isolated++) {
		struct world *w = world_new();

		w->configured[0][0] = "pace";
		w->configured[0][1] = "42";
		w->library = isolated ? PROBE : NULL;
		assert_int_equal(world_load(w, "Probe", PROBE, "", isolated, NULL), 0);
		assert_true(world_until(w, is_ready));
		assert_string_equal(
			world_call(w, "Probe", "property", texts("pace", NULL))->folder, "42");
		assert_string_equal(world_property(w, "pace"), "42");
		world_free(w);
	}
}

static void a_property_changes_while_the_extension_runs(void **state)
{
	(void)state;
	for (int isolated = 0; isolated < 2; isolated++) {
		struct world *w = world_new();
		struct errmsg em = { "" };

		w->library = isolated ? PROBE : NULL;
		assert_int_equal(world_load(w, "Probe", PROBE, "", isolated, NULL), 0);
		assert_true(world_until(w, is_ready));
		assert_int_equal(ext_property_change(w->host, "Probe", "pace", "43", &em), 0);
		assert_string_equal(
			world_call(w, "Probe", "property", texts("pace", NULL))->folder, "43");
		assert_string_equal(world_property(w, "pace"), "43");
		/* type, bounds, what it says itself, what there is not */
		assert_int_equal(ext_property_change(w->host, "Probe", "pace", "fast", &em),
			ERR_MALFORMED);
		assert_int_equal(ext_property_change(w->host, "Probe", "pace", "101", &em),
			ERR_MALFORMED);
		assert_non_null(strstr(em.text, "from 1 to 100"));
		assert_int_equal(
			ext_property_change(w->host, "Probe", "late", "x", &em), ERR_DENIED);
		assert_int_equal(
			ext_property_change(w->host, "Probe", "none", "1", &em), ERR_NOT_FOUND);
		assert_int_equal(
			ext_property_change(w->host, "None", "pace", "1", &em), ERR_NOT_FOUND);
		assert_string_equal(
			world_call(w, "Probe", "property", texts("pace", NULL))->folder, "43");
		assert_int_equal(ext_property_change(w->host, "Probe", "pace", NULL, &em), 0);
		assert_string_equal(
			world_call(w, "Probe", "property", texts("pace", NULL))->folder, "10");
		world_free(w);
	}
}

static void expect_refusal(const char *library, int rc, const char *word)
{
	for (int isolated = 0; isolated < 2; isolated++) {
		struct world *w = world_new();
		struct errmsg em = { "" };

		w->library = isolated ? library : NULL;
		if (isolated) {
			assert_int_equal(
				world_load(w, "Probe", library, "read-proc", true, &em), 0);
			assert_true(world_until(w, is_ready));
			assert_int_equal(w->ready_rc, rc);
			snprintf(em.text, sizeof(em.text), "%s", w->ready_why);
			world_run(w, 300);
			assert_int_equal(w->n_spawned, 1); /* it is not tried again */
		} else {
			assert_int_equal(
				world_load(w, "Probe", library, "read-proc", false, &em), rc);
		}
		if (!strstr(em.text, word))
			fail_msg("\"%s\" does not say \"%s\"", em.text, word);
		assert_false(ext_has_inbox(w->host, "Probe", NULL));
		world_free(w);
	}
}

static void what_does_not_fit_is_not_loaded_and_leaves_nothing(void **state)
{
	(void)state;
	expect_refusal(PROBE_MAJOR_SO, ERR_VERSION, "ABI");
	expect_refusal(PROBE_MINOR_SO, ERR_VERSION, "ABI");
	expect_refusal(PROBE_SIZE_SO, ERR_VERSION, "bytes");
	expect_refusal(PROBE_FAILS_SO, ERR_LIMIT, "start");
	expect_refusal(PROBE_PRIVILEGED_SO, ERR_DENIED, "launch-missiles");
	expect_refusal(PROBE_RESERVED_SO, ERR_EXISTS, "Shells");
	expect_refusal("/nonexistent/probe.so", ERR_NOT_FOUND, "/nonexistent");
}

static void a_configured_value_out_of_bounds_stops_the_load(void **state)
{
	struct world *w = world_new();
	struct errmsg em = { "" };

	(void)state;
	w->configured[0][0] = "pace";
	w->configured[0][1] = "1000";
	assert_int_equal(world_load(w, "Probe", PROBE, "", false, &em), ERR_CONFIG);
	assert_non_null(strstr(em.text, "pace"));
	w->configured[0][1] = "100";
	assert_int_equal(world_load(w, "Probe", PROBE, "", false, &em), 0);
	assert_int_equal(world_load(w, "Probe", PROBE, "", false, &em), ERR_EXISTS);
	assert_int_equal(world_load(w, "Probe2", PROBE, "", false, &em), ERR_EXISTS);
	assert_non_null(strstr(em.text, "belongs to extension Probe"));
	world_free(w);
}

/* ---- lives of a tos-ext ---- */

static bool is_lost(struct world *w)
{
	return w->n_lost > 0;
}

static bool is_ready_again(struct world *w)
{
	return w->n_ready > 1;
}

static void calls_of_a_killed_extension_fail_and_it_comes_back(void **state)
{
	struct world *w = probe_world(true);
	uint64_t tag;

	(void)state;
	assert_int_equal(world_post(w, POST_CALL, "host0#1", "carrier", "Probe", "late",
				 array_of(tos_int(5000)), 9000),
		0);
	tag = w->next_tag - 1;
	world_run(w, 50);
	kill(w->pid, SIGKILL);
	assert_true(world_until(w, is_lost));
	assert_string_equal(failure_word(world_sent_tag(w, tag)), "unknown");
	assert_non_null(strstr(failure_text(world_sent_tag(w, tag)), "restarts"));
	/* What comes meanwhile waits for the next life. */
	assert_int_equal(
		world_post(w, POST_CALL, "host0#1", "carrier", "Probe", "echo", NULL, 5000), 0);
	tag = w->next_tag - 1;
	assert_true(world_until(w, is_ready_again));
	world_run(w, 100);
	assert_non_null(world_sent_tag(w, tag));
	assert_int_equal(world_sent_tag(w, tag)->kind, POST_ANSWER);
	assert_string_equal(world_call(w, "Probe", "kernel", NULL)->folder, "host0");
	world_free(w);
}

static void what_waits_for_the_next_life_survives_a_stillborn_one(void **state)
{
	struct world *w = probe_world(true);
	uint64_t tag;

	(void)state;
	kill(w->pid, SIGKILL);
	assert_true(world_until(w, is_lost));
	assert_int_equal(
		world_post(w, POST_CALL, "host0#1", "carrier", "Probe", "echo", NULL, 9000), 0);
	tag = w->next_tag - 1;
	w->library = NULL; /* nothing is started */
	while (w->n_spawned < 2)
		world_run(w, 20);
	ext_spawn_failed(w->host, "Probe", "no room");
	assert_int_equal(w->n_lost, 2);
	assert_null(world_sent_tag(w, tag));
	w->library = PROBE;
	assert_true(world_until(w, is_ready_again));
	world_run(w, 100);
	assert_int_equal(world_sent_tag(w, tag)->kind, POST_ANSWER);
	world_free(w);
}

static bool lost_thrice(struct world *w)
{
	return w->n_lost == 3;
}

static bool ready_four(struct world *w)
{
	return w->n_ready == 4;
}

static void one_that_dies_again_and_again_is_started_ever_later(void **state)
{
	struct world *w = probe_world(true);
	int64_t before = clock_ms();

	(void)state;
	for (unsigned life = 1; life <= 3; life++) {
		uint64_t ready = w->n_ready;

		assert_int_equal(
			world_post(w, POST_ONEWAY, "", "", "Probe", "crash", NULL, 0), 0);
		while (w->n_ready == ready && clock_ms() - before < 10000)
			world_run(w, 20);
	}
	assert_true(lost_thrice(w));
	assert_true(world_until(w, ready_four));
	assert_true(clock_ms() - before >= 100 + 200 + 400);
	world_free(w);
}

static void garbage_from_a_tos_ext_ends_it_only(void **state)
{
	struct world *w = probe_world(true);

	(void)state;
	assert_int_equal(world_post(w, POST_ONEWAY, "", "", "Probe", "garbage",
				 texts("mist, which as a length is far too long", NULL), 0),
		0);
	assert_true(world_until(w, is_lost));
	assert_true(world_count(w, "bad_frames") >= 1);
	assert_true(world_until(w, is_ready_again));
	assert_string_equal(world_call(w, "Probe", "kernel", NULL)->folder, "host0");
	world_free(w);
}

/* ---- a hostile process in the place of tos-ext ---- */

static void frame_simple(struct buf *b, unsigned type, unsigned fields)
{
	cbor_put_array(b, fields + 1);
	cbor_put_uint(b, type);
}

static void hello_put(struct buf *b, const char *inbox, int64_t bound, int64_t major)
{
	struct tos_value *v = tos_map(), *in = tos_map(), *abi = tos_array();
	size_t at = frame_begin(b), n;
	uint8_t *p;

	tos_push(abi, tos_int(major));
	tos_push(abi, tos_int(0));
	tos_set(v, "abi", abi);
	tos_set(v, "name", tos_text("probe"));
	tos_set(v, "doc", tos_text(""));
	tos_set(v, "privileges", tos_text(""));
	tos_set(in, "name", tos_text(inbox));
	tos_set(in, "doc", tos_text(""));
	tos_set(in, "protocol", tos_text(""));
	tos_set(in, "flags", tos_int(0));
	tos_set(in, "bound", tos_int(bound));
	tos_set(v, "inboxes", array_of(in));
	tos_set(v, "properties", tos_array());
	assert_int_equal(tos_encode(v, &p, &n), 0);
	tos_value_free(v);
	frame_simple(b, EXT_HELLO, 1);
	cbor_put_raw(b, (struct slice){ p, n });
	frame_end(b, at);
	free(p);
}

static void started_put(struct buf *b)
{
	size_t at;

	hello_put(b, "Probe", 10, TOS_ABI_MAJOR);
	at = frame_begin(b);
	frame_simple(b, EXT_STARTED, 0);
	frame_end(b, at);
}

/* Feed these bytes as a process; what is expected: it is ended (true) or refused for good. */
static void feed(const struct buf *b, bool ended, const char *what)
{
	struct world *w = world_new();
	int pair[2];

	assert_int_equal(world_load(w, "Probe", "none", "", true, NULL), 0);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	assert_int_equal(ext_attach(w->host, "Probe", pair[0], 1, NULL), 0);
	assert_int_equal(write(pair[1], b->data, b->len), (ssize_t)b->len);
	if (!world_until(w, ended ? is_lost : is_ready))
		fail_msg("%s was accepted", what);
	if (!ended)
		assert_true(w->ready_rc < 0);
	else
		assert_true(w->n_killed > 0);
	close(pair[1]);
	world_free(w);
}

static void feed_after_start(void (*put)(struct buf *b), const char *what)
{
	AUTOBUF b = BUF_INIT;
	size_t at;

	started_put(&b);
	at = frame_begin(&b);
	put(&b);
	frame_end(&b, at);
	feed(&b, true, what);
}

static void put_hello_twice(struct buf *b)
{
	frame_simple(b, EXT_HELLO, 1);
	cbor_put_map(b, 0);
}
static void put_unknown_type(struct buf *b)
{
	frame_simple(b, 79, 0);
}
static void put_kernels_type(struct buf *b)
{
	frame_simple(b, EXT_STOP, 0);
}
static void put_reply_never_asked(struct buf *b)
{
	frame_simple(b, EXT_REPLY, 2);
	cbor_put_uint(b, 1);
	cbor_put_array(b, 2);
	cbor_put_text(b, "");
	cbor_put_array(b, 0);
}
static void put_taken_too_many(struct buf *b)
{
	frame_simple(b, EXT_TAKEN, 2);
	cbor_put_text(b, "Probe");
	cbor_put_uint(b, 1);
}
static void put_taken_elsewhere(struct buf *b)
{
	frame_simple(b, EXT_TAKEN, 2);
	cbor_put_text(b, "Other");
	cbor_put_uint(b, 0);
}
static void put_answer_kind(struct buf *b)
{
	frame_simple(b, EXT_SEND, 5);
	cbor_put_uint(b, POST_ANSWER);
	cbor_put_text(b, "host0#1");
	cbor_put_uint(b, 1);
	cbor_put_uint(b, 0);
	cbor_put_array(b, 2);
	cbor_put_text(b, "");
	cbor_put_array(b, 0);
}
static void put_bad_folder(struct buf *b)
{
	frame_simple(b, EXT_SEND, 5);
	cbor_put_uint(b, POST_ONEWAY);
	cbor_put_text(b, "Echo");
	cbor_put_uint(b, 0);
	cbor_put_uint(b, 0);
	cbor_put_uint(b, 7);
}
static void put_strange_seq(struct buf *b)
{
	frame_simple(b, EXT_SEND, 5);
	cbor_put_uint(b, POST_CALL);
	cbor_put_text(b, "Echo");
	cbor_put_uint(b, 0);
	cbor_put_uint(b, 0);
	cbor_put_array(b, 2);
	cbor_put_text(b, "");
	cbor_put_array(b, 0);
}
static void put_bad_counter(struct buf *b)
{
	frame_simple(b, EXT_COUNT, 2);
	cbor_put_text(b, "tos{evil=\"\n\"}");
	cbor_put_uint(b, 1);
}
static void put_bad_level(struct buf *b)
{
	frame_simple(b, EXT_LOG, 2);
	cbor_put_uint(b, 9);
	cbor_put_text(b, "x");
}
static void put_unknown_property(struct buf *b)
{
	frame_simple(b, EXT_PROPERTY, 2);
	cbor_put_text(b, "limits/cpu");
	cbor_put_text(b, "1");
}
static void put_surplus(struct buf *b)
{
	frame_simple(b, EXT_LOG, 3);
	cbor_put_uint(b, 0);
	cbor_put_text(b, "x");
	cbor_put_uint(b, 0);
}
static void put_nul_in_dest(struct buf *b)
{
	frame_simple(b, EXT_SEND, 5);
	cbor_put_uint(b, POST_ONEWAY);
	cbor_put_text_n(b, "Echo\0x", 6);
	cbor_put_uint(b, 0);
	cbor_put_uint(b, 0);
	cbor_put_array(b, 2);
	cbor_put_text(b, "");
	cbor_put_array(b, 0);
}

static void hostile_frames_end_their_sender(void **state)
{
	static const struct {
		const char *what;
		void (*put)(struct buf *b);
	} each[] = { { "a second hello", put_hello_twice },
		{ "an unknown type", put_unknown_type },
		{ "a kernel's type", put_kernels_type },
		{ "a reply to nothing", put_reply_never_asked },
		{ "more taken than given", put_taken_too_many },
		{ "taken from another's inbox", put_taken_elsewhere },
		{ "a forged answer", put_answer_kind },
		{ "a folder that is none", put_bad_folder },
		{ "a call without a number", put_strange_seq },
		{ "a bad counter", put_bad_counter }, { "a bad level", put_bad_level },
		{ "an unknown property", put_unknown_property },
		{ "a field too many", put_surplus }, { "NUL in an address", put_nul_in_dest } };

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(each); i++)
		feed_after_start(each[i].put, each[i].what);
}

static void hostile_greetings_are_refused(void **state)
{
	AUTOBUF b = BUF_INIT;

	(void)state;
	hello_put(&b, "Probe", 10, 99);
	feed(&b, false, "another ABI");
	buf_clear(&b);
	hello_put(&b, "lower", 10, TOS_ABI_MAJOR);
	feed(&b, false, "a bad name");
	buf_clear(&b);
	hello_put(&b, "Probe", INT64_C(1) << 40, TOS_ABI_MAJOR);
	feed(&b, false, "an endless bound");
	buf_clear(&b);
	hello_put(&b, "Shells", 10, TOS_ABI_MAJOR);
	feed(&b, false, "a name of the kernel's");
	buf_clear(&b);
	size_t at = frame_begin(&b);
	frame_simple(&b, EXT_STARTED, 0);
	frame_end(&b, at);
	feed(&b, true, "a start without a greeting");
	buf_clear(&b);
	buf_add(&b, "\xff\xff\xff\xff", 4);
	feed(&b, true, "an endless frame");
}

/* ---- one in the place of another, both hand-fed */

static int process_new(struct world *w, const char *key)
{
	int pair[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	assert_int_equal(ext_attach(w->host, key, pair[0], 1, NULL), 0);
	return pair[1];
}

static void process_says(int fd, void (*put)(struct buf *b))
{
	AUTOBUF b = BUF_INIT;

	put(&b);
	assert_int_equal(write(fd, b.data, b.len), (ssize_t)b.len);
}

static void failed_put(struct buf *b)
{
	size_t at = frame_begin(b);

	frame_simple(b, EXT_FAILED, 2);
	cbor_put_int(b, ERR_CONFIG);
	cbor_put_text(b, "the second time it does not start");
	frame_end(b, at);
}

static void drained_put(struct buf *b)
{
	size_t at = frame_begin(b);

	frame_simple(b, EXT_DRAINED, 0);
	frame_end(b, at);
}

static bool heir_is_spawned_again(struct world *w)
{
	return w->n_spawned == 3;
}

static bool heir_is_broken(struct world *w)
{
	return w->ready_rc < 0;
}

static bool nobody_has_the_inbox(struct world *w)
{
	return !ext_has_inbox(w->host, "Probe", NULL);
}

/* It is ready and published, dies before the old one has given its inboxes back, and does not start
 * again: who posts is told that there is nobody, and the host lives. */
static void an_heir_that_breaks_before_it_has_inherited_is_only_broken(void **state)
{
	struct world *w = world_new();
	int old, heir;

	(void)state;
	assert_int_equal(world_load(w, "Probe", "none", "", true, NULL), 0);
	old = process_new(w, "Probe");
	process_says(old, started_put);
	assert_true(world_until(w, is_ready));
	w->n_ready = 0;
	assert_int_equal(ext_load(w->host,
				 &(struct ext_load){ .name = "Probe",
					 .key = "Probe@2",
					 .hidden = true,
					 .keep = true,
					 .library = "none",
					 .isolated = true },
				 NULL),
		0);
	heir = process_new(w, "Probe@2");
	process_says(heir, started_put);
	assert_true(world_until(w, is_ready));
	assert_int_equal(ext_publish(w->host, "Probe@2", NULL), 0);
	close(heir);
	assert_true(world_until(w, heir_is_spawned_again));
	heir = process_new(w, "Probe@2");
	process_says(heir, failed_put);
	assert_true(world_until(w, heir_is_broken));
	process_says(old, drained_put);
	assert_true(world_until(w, nobody_has_the_inbox));
	assert_int_equal(
		world_post(w, POST_ONEWAY, "", "", "Probe", "echo", NULL, 0), ERR_NO_INBOX);
	close(heir);
	close(old);
	world_free(w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(an_heir_that_breaks_before_it_has_inherited_is_only_broken),
		cmocka_unit_test(a_call_is_answered_to_its_sender),
		cmocka_unit_test(a_failure_carries_its_word_and_text),
		cmocka_unit_test(an_extension_calls_others_and_is_never_entered_twice),
		cmocka_unit_test(a_call_that_fails_at_once_is_told),
		cmocka_unit_test(posts_go_out_under_the_first_inbox),
		cmocka_unit_test(timers_fire_once_and_stopped_ones_do_not),
		cmocka_unit_test(an_inbox_is_woken_after_its_time_without_a_post),
		cmocka_unit_test(an_answer_after_the_deadline_goes_nowhere),
		cmocka_unit_test(a_second_answer_is_dropped),
		cmocka_unit_test(a_full_inbox_refuses_until_something_is_taken),
		cmocka_unit_test(an_inbox_for_extensions_refuses_carriers_and_clients),
		cmocka_unit_test(malformed_folders_are_refused),
		cmocka_unit_test(configuration_reaches_the_extension),
		cmocka_unit_test(a_property_changes_while_the_extension_runs),
		cmocka_unit_test(what_does_not_fit_is_not_loaded_and_leaves_nothing),
		cmocka_unit_test(a_configured_value_out_of_bounds_stops_the_load),
		cmocka_unit_test(calls_of_a_killed_extension_fail_and_it_comes_back),
		cmocka_unit_test(what_waits_for_the_next_life_survives_a_stillborn_one),
		cmocka_unit_test(one_that_dies_again_and_again_is_started_ever_later),
		cmocka_unit_test(garbage_from_a_tos_ext_ends_it_only),
		cmocka_unit_test(hostile_frames_end_their_sender),
		cmocka_unit_test(hostile_greetings_are_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
