/* Echo, Directory and Messenger, in the kernel. */
#include "world.h"

#include <fcntl.h>
#include <string.h>
#include <unistd.h>

static struct world *world_with(const char *name, const char *library)
{
	struct world *w = world_new();
	struct errmsg em = { "" };

	if (world_load(w, name, library, "", false, &em) < 0)
		fail_msg("%s", em.text);
	return w;
}

/* ---- Echo, and the example of the guide ---- */

static void prints(const char *library)
{
	struct world *w = world_with("Echo", library);
	char line[128] = "";
	int pipe_of[2], out;
	ssize_t n;

	fflush(stdout);
	assert_int_equal(pipe(pipe_of), 0);
	out = dup(1);
	dup2(pipe_of[1], 1);
	assert_int_equal(world_post(w, POST_ONEWAY, "host0#1", "carrier", "Echo", "text",
				 texts("Hello, World", NULL), 0),
		0);
	world_run(w, 30);
	fflush(stdout);
	dup2(out, 1);
	close(out);
	close(pipe_of[1]);
	n = read(pipe_of[0], line, sizeof(line) - 1);
	close(pipe_of[0]);
	assert_true(n > 0);
	assert_string_equal(line, "host0#1: Hello, World\n");
	world_free(w);
}

static void echo_prints_what_is_posted(void **state)
{
	(void)state;
	prints(ECHO_SO);
}

static void the_example_of_the_guide_does_what_the_guide_says(void **state)
{
	(void)state;
	prints(GUIDE_SO);
}

static bool is_ready(struct world *w)
{
	return w->n_ready > 0;
}

static void the_functions_on_values_may_be_left_to_tos_ext(void **state)
{
	struct world *w = world_new();

	(void)state;
	w->library = GUIDE_PLAIN_SO;
	assert_int_equal(world_load(w, "Echo", GUIDE_PLAIN_SO, "", true, NULL), 0);
	assert_true(world_until(w, is_ready));
	assert_string_equal(w->ready_why, "");
	world_free(w);
}

static void echo_answers_calls_with_the_same_folder(void **state)
{
	struct world *w = world_with("Echo", ECHO_SO);
	struct sent *s = world_call(w, "Echo", "greeting", array_of(tos_int(42)));

	(void)state;
	assert_string_equal(s->folder, "greeting");
	assert_int_equal(tos_as_int(tos_at(s->elements, 0), 0), 42);
	world_free(w);
}

/* ---- Directory ---- */

static struct world *directory_world(const char *settle_ms)
{
	struct world *w = world_new();
	struct errmsg em = { "" };

	w->configured[0][0] = "settle_ms";
	w->configured[0][1] = settle_ms;
	if (world_load(w, "Directory", DIRECTORY_SO, "", false, &em) < 0)
		fail_msg("%s", em.text);
	world_run(w, 10);
	return w;
}

static struct sent *directory_call(struct world *w, const char *sender, const char *class,
	const char *verb, const char *name, const char *address)
{
	struct tos_value *v = tos_map();

	if (name)
		tos_set(v, "name", tos_text(name));
	if (address)
		tos_set(v, "addresses", texts(address, NULL));
	assert_int_equal(
		world_post(w, POST_CALL, sender, class, "Directory", verb, array_of(v), 5000),
		0);
	world_run(w, 20);
	assert_non_null(world_sent_tag(w, w->next_tag - 1));
	return world_sent_tag(w, w->next_tag - 1);
}

static void directory_tells_what_kernels_registered(void **state)
{
	struct world *w = directory_world("0");
	const struct tos_value *v;
	struct sent *s;

	(void)state;
	s = directory_call(w, "host2", "kernel", "REGISTER", "host2", "10.0.0.2:21212");
	assert_string_equal(s->folder, "ok");
	directory_call(w, "host1", "kernel", "REGISTER", "host1", "10.0.0.1:21212");
	directory_call(w, "", "", "REGISTER", "host0", "10.0.0.0:21212");
	directory_call(w, "host1", "kernel", "REGISTER", "host1", "10.0.0.11:21212");
	s = directory_call(w, "host2", "kernel", "LOOKUP", "host1", NULL);
	v = tos_at(s->elements, 0);
	assert_string_equal(tos_get_text(v, "name", ""), "host1");
	assert_string_equal(
		tos_as_text(tos_at(tos_get(v, "addresses"), 0), ""), "10.0.0.11:21212");
	s = directory_call(w, "host0/client/1", "client", "LIST", NULL, NULL);
	v = tos_at(s->elements, 0);
	assert_int_equal(tos_len(v), 3);
	for (size_t i = 0; i < 3; i++) {
		char name[8];

		snprintf(name, sizeof(name), "host%zu", i);
		assert_string_equal(tos_get_text(tos_at(v, i), "name", ""), name);
		assert_true(tos_get_int(tos_at(v, i), "seen_ms", -1) >= 0);
	}
	s = directory_call(w, "host2", "kernel", "LOOKUP", "host9", NULL);
	assert_string_equal(failure_word(s), "not-found");
	world_free(w);
}

static void nobody_registers_or_removes_for_another(void **state)
{
	struct world *w = directory_world("0");

	(void)state;
	directory_call(w, "host1", "kernel", "REGISTER", "host1", "10.0.0.1:21212");
	assert_string_equal(failure_word(directory_call(
				    w, "host2", "kernel", "REGISTER", "host1", "6.6.6.6:1")),
		"denied");
	assert_string_equal(failure_word(directory_call(
				    w, "host1", "carrier", "REGISTER", "host1", "6.6.6.6:1")),
		"denied");
	assert_string_equal(
		failure_word(directory_call(w, "host1", "kernel", "REMOVE", "host1", NULL)),
		"denied");
	assert_string_equal(
		failure_word(directory_call(w, "host1", "kernel", "REGISTER", "host1", NULL)),
		"malformed");
	assert_string_equal(
		failure_word(directory_call(w, "host1", "kernel", "DROP", "host1", NULL)),
		"malformed");
	assert_string_equal(directory_call(w, "", "", "REMOVE", "host1", NULL)->folder, "ok");
	assert_string_equal(
		failure_word(directory_call(w, "", "", "LOOKUP", "host1", NULL)), "not-found");
	world_free(w);
}

static uint64_t lookup(struct world *w, const char *name)
{
	struct tos_value *v = tos_map();

	tos_set(v, "name", tos_text(name));
	assert_int_equal(world_post(w, POST_CALL, "host2", "kernel", "Directory", "LOOKUP",
				 array_of(v), 5000),
		0);
	world_run(w, 10);
	return w->next_tag - 1;
}

static uint64_t last_lookup;

static bool was_answered(struct world *w)
{
	return world_sent_tag(w, last_lookup) != NULL;
}

static void who_asks_just_after_a_start_waits_for_the_kernel_to_register(void **state)
{
	struct world *w = directory_world("300");
	uint64_t there = lookup(w, "host1"), again = lookup(w, "host1"), absent;
	int64_t began = clock_ms();

	(void)state;
	absent = lookup(w, "host9");
	assert_null(world_sent_tag(w, there));
	directory_call(w, "host1", "kernel", "REGISTER", "host1", "10.0.0.1:21212");
	assert_string_equal(world_sent_tag(w, there)->folder, "ok");
	assert_string_equal(world_sent_tag(w, again)->folder, "ok");
	assert_null(world_sent_tag(w, absent));
	last_lookup = absent;
	assert_true(world_until(w, was_answered));
	assert_string_equal(failure_word(world_sent_tag(w, absent)), "not-found");
	assert_true(clock_ms() - began >= 200);
	/* From then on at once. */
	assert_string_equal(failure_word(world_sent_tag(w, lookup(w, "host8"))), "not-found");
	world_free(w);
}

static void no_more_wait_than_there_is_room_for(void **state)
{
	struct world *w = directory_world("60000");
	uint64_t tag = 0;

	(void)state;
	for (int i = 0; i < 257; i++)
		tag = lookup(w, "host9");
	assert_string_equal(failure_word(world_sent_tag(w, tag)), "not-found");
	assert_null(world_sent_tag(w, tag - 1));
	world_free(w);
}

/* ---- Messenger ---- */

struct home {
	const char *kernel, *state, *cache_ms;
	int rc;
	unsigned asked;
	bool silent; /* the test answers later */
};

static void home(struct world *w, struct sent *s)
{
	struct home *h = w->script;
	struct tos_value *v;

	if (s->kind != POST_CALL)
		return;
	assert_string_equal(s->folder, "WHERE");
	assert_string_equal(tos_get_text(tos_at(s->elements, 0), "name", ""), "host1#7");
	h->asked++;
	if (h->silent)
		return;
	v = tos_map();
	tos_set(v, "kernel", tos_text(h->kernel));
	tos_set(v, "state", tos_text(h->state));
	world_answer(w, s, h->rc, "as scripted", array_of(v));
}

static struct world *messenger_world(struct home *h)
{
	struct world *w = world_new();
	struct errmsg em = { "" };

	w->configured[0][0] = "cache/ms";
	w->configured[0][1] = h->cache_ms ? h->cache_ms : "0";
	if (world_load(w, "Messenger", MESSENGER_SO, "", false, &em) < 0)
		fail_msg("%s", em.text);
	w->on_send = home;
	w->script = h;
	return w;
}

static uint64_t locate(
	struct world *w, const char *home_kernel, const char *hint, uint32_t deadline)
{
	struct tos_value *v = tos_map();

	tos_set(v, "dest", tos_text("host1#7/replies"));
	tos_set(v, "home", tos_text(home_kernel));
	tos_set(v, "kind", tos_text("post"));
	tos_set(v, "hint", tos_text(hint));
	tos_set(v, "folder", tos_text("x"));
	assert_int_equal(
		world_post(w, POST_CALL, "", "", "Messenger", "LOCATE", array_of(v), deadline),
		0);
	return w->next_tag - 1;
}

static void messenger_asks_home_and_remembers_if_told_to(void **state)
{
	struct home h = { .kernel = "host3", .state = "running", .cache_ms = "5000" };
	struct world *w = messenger_world(&h);
	uint64_t tag = locate(w, "host1", "", 5000);

	(void)state;
	world_run(w, 20);
	assert_int_equal(w->n_forwarded, 1);
	assert_string_equal(w->forwarded[0], "host3");
	assert_int_equal(w->forwarded_tag[0], tag);
	assert_string_equal(world_sent_folder(w, "WHERE", 0)->dest, "host1/Home");
	locate(w, "host1", "", 5000);
	world_run(w, 20);
	assert_int_equal(h.asked, 1);
	assert_int_equal(w->n_forwarded, 2);
	assert_string_equal(ext_hook(w->host, TOS_INBOX_LOCATES, 0), "Messenger");
	world_free(w);
	/* Unless told to remember, it asks each time: the kernel remembers too. */
	h = (struct home){ .kernel = "host3", .state = "running" };
	w = messenger_world(&h);
	locate(w, "host1", "", 5000);
	world_run(w, 20);
	locate(w, "host1", "", 5000);
	world_run(w, 20);
	assert_int_equal(h.asked, 2);
	world_free(w);
}

static void messenger_asks_our_own_home_without_a_link(void **state)
{
	struct home h = { .kernel = "host3", .state = "running" };
	struct world *w = messenger_world(&h);

	(void)state;
	locate(w, "host0", "", 5000);
	world_run(w, 20);
	assert_string_equal(world_sent_folder(w, "WHERE", 0)->dest, "Home");
	world_free(w);
}

static void posts_that_wait_go_on_in_their_order(void **state)
{
	struct home h = { .kernel = "host3", .state = "running", .silent = true };
	struct world *w = messenger_world(&h);
	uint64_t first = locate(w, "host1", "", 5000);
	struct tos_value *v = tos_map();

	(void)state;
	locate(w, "host1", "", 5000);
	locate(w, "host1", "", 5000);
	world_run(w, 20);
	assert_int_equal(h.asked, 1);
	tos_set(v, "kernel", tos_text("host3"));
	tos_set(v, "state", tos_text("running"));
	world_answer(w, world_sent_folder(w, "WHERE", 0), 0, NULL, array_of(v));
	world_run(w, 20);
	assert_int_equal(w->n_forwarded, 3);
	for (size_t i = 0; i < 3; i++)
		assert_int_equal(w->forwarded_tag[i], first + i);
	world_free(w);
}

static void a_hint_is_followed_but_not_to_ourselves(void **state)
{
	struct home h = { .kernel = "host3", .state = "running" };
	struct world *w = messenger_world(&h);

	(void)state;
	locate(w, "host1", "host5", 5000);
	world_run(w, 20);
	assert_string_equal(w->forwarded[0], "host5");
	assert_int_equal(h.asked, 0);
	locate(w, "host1", "host0", 5000);
	world_run(w, 20);
	assert_int_equal(h.asked, 1);
	assert_string_equal(w->forwarded[1], "host3");
	world_free(w);
}

static void a_carrier_that_has_ended_is_not_found(void **state)
{
	struct home h = { .kernel = "host3", .state = "finished" };
	struct world *w = messenger_world(&h);
	uint64_t tag = locate(w, "host1", "", 5000);

	(void)state;
	world_run(w, 20);
	assert_string_equal(failure_word(world_sent_tag(w, tag)), "not-found");
	assert_string_equal(failure_text(world_sent_tag(w, tag)), "host1#7 is finished");
	h.rc = ERR_UNREACHABLE;
	tag = locate(w, "host1", "", 5000);
	world_run(w, 20);
	assert_string_equal(failure_word(world_sent_tag(w, tag)), "unreachable");
	assert_non_null(strstr(failure_text(world_sent_tag(w, tag)), "home host1 of host1#7"));
	world_free(w);
}

static void one_said_to_be_here_is_asked_for_again_and_then_left_to_the_kernel(void **state)
{
	struct home h = { .kernel = "host0", .state = "running" };
	struct world *w = messenger_world(&h);

	(void)state;
	locate(w, "host1", "", 5000);
	world_run(w, 200);
	assert_int_equal(h.asked, 3);
	assert_int_equal(w->n_forwarded, 1);
	assert_string_equal(w->forwarded[0], "host0");
	locate(w, "host1", "", 5000);
	world_run(w, 10);
	h.kernel = "host4";
	world_run(w, 200);
	assert_int_equal(w->n_forwarded, 2);
	assert_string_equal(w->forwarded[1], "host4");
	world_free(w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(echo_prints_what_is_posted),
		cmocka_unit_test(the_example_of_the_guide_does_what_the_guide_says),
		cmocka_unit_test(the_functions_on_values_may_be_left_to_tos_ext),
		cmocka_unit_test(echo_answers_calls_with_the_same_folder),
		cmocka_unit_test(directory_tells_what_kernels_registered),
		cmocka_unit_test(who_asks_just_after_a_start_waits_for_the_kernel_to_register),
		cmocka_unit_test(no_more_wait_than_there_is_room_for),
		cmocka_unit_test(nobody_registers_or_removes_for_another),
		cmocka_unit_test(messenger_asks_home_and_remembers_if_told_to),
		cmocka_unit_test(messenger_asks_our_own_home_without_a_link),
		cmocka_unit_test(posts_that_wait_go_on_in_their_order),
		cmocka_unit_test(a_hint_is_followed_but_not_to_ourselves),
		cmocka_unit_test(a_carrier_that_has_ended_is_not_found),
		cmocka_unit_test(
			one_said_to_be_here_is_asked_for_again_and_then_left_to_the_kernel),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
