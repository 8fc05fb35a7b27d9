/* Mobility's decisions, against a Shells inbox that answers by a script. */
#include "world.h"

#include <stdlib.h>
#include <string.h>

/* What the kernels of the script say to an offer; not listed: ok. */
struct script {
	struct {
		const char *kernel;
		int rc;
		unsigned times; /* then ok; 0: for ever */
	} move[4];
	unsigned moves;
	int final_rc; /* of FINISH, FAULT, RESUME, while final_times lasts */
	unsigned final_times;
};

static const char *arg_of(const struct sent *s, const char *key)
{
	return tos_get_text(tos_at(s->elements, 0), key, "");
}

static void answer_move(struct world *w, struct sent *s)
{
	struct script *sc = w->script;

	sc->moves++;
	for (size_t i = 0; i < ARRAY_LEN(sc->move) && sc->move[i].kernel; i++) {
		if (strcmp(sc->move[i].kernel, arg_of(s, "dest")) != 0)
			continue;
		world_answer(w, s, sc->move[i].rc, "as scripted", NULL);
		if (sc->move[i].times && --sc->move[i].times == 0)
			sc->move[i].rc = 0;
		return;
	}
	world_answer(w, s, 0, NULL, array_of(tos_map()));
}

static void shells(struct world *w, struct sent *s)
{
	struct script *sc = w->script;

	if (s->kind != POST_CALL)
		return;
	assert_string_equal(s->dest, "Shells");
	assert_int_equal(tos_len(s->elements), 1);
	assert_string_equal(arg_of(s, "name"), "host0#1");
	if (strcmp(s->folder, "MOVE") == 0)
		answer_move(w, s);
	else if (sc->final_times && strlen(s->folder) > 4 && strcmp(s->folder, "TRAIL") &&
		 strcmp(s->folder, "WAITING")) {
		sc->final_times--;
		world_answer(w, s, sc->final_rc, "not now", NULL);
	} else
		world_answer(w, s, 0, NULL, array_of(tos_map()));
}

static struct world *mobility_world(struct script *sc)
{
	struct world *w = world_new();
	struct errmsg em = { "" };

	w->on_send = shells;
	w->script = sc;
	w->configured[0][0] = "retry/first_ms";
	w->configured[0][1] = "10";
	w->configured[1][0] = "retry/most_ms";
	w->configured[1][1] = "40";
	if (world_load(w, "Mobility", MOBILITY_SO, "", false, &em) < 0)
		fail_msg("%s", em.text);
	return w;
}

static void complete(struct world *w, const char *why, const char *dest, bool itinerant,
	const char *on_unreachable, struct tos_value *path)
{
	struct tos_value *v = tos_map();

	tos_set(v, "name", tos_text("host0#1"));
	tos_set(v, "why", tos_text(why));
	if (dest)
		tos_set(v, "dest", tos_text(dest));
	tos_set(v, "itinerant", tos_bool(itinerant));
	tos_set(v, "on_unreachable", tos_text(on_unreachable));
	tos_set(v, "path", path);
	assert_int_equal(
		world_post(w, POST_CALL, "", "", "Mobility", "COMPLETED", array_of(v), 5000),
		0);
}

/* Each verb and its destination or code, in order, as one line. */
static const char *story(struct world *w)
{
	static char line[4096];

	line[0] = 0;
	for (size_t i = 0; i < w->n_sent; i++) {
		struct sent *s = &w->sent[i];
		size_t n = strlen(line);

		if (s->kind != POST_CALL)
			continue;
		snprintf(line + n, sizeof(line) - n, "%s%s%s%s", n ? ", " : "", s->folder,
			strcmp(s->folder, "MOVE") == 0 ? " "
			: *arg_of(s, "code")           ? " "
						       : "",
			strcmp(s->folder, "MOVE") == 0 ? arg_of(s, "dest") : arg_of(s, "code"));
	}
	return line;
}

/* Nothing has been sent for a while. */
static void settle(struct world *w)
{
	size_t n;

	do {
		n = w->n_sent;
		world_run(w, 120);
	} while (n != w->n_sent);
}

static void expect(struct script sc, const char *why, const char *dest, bool itinerant,
	const char *policy, struct tos_value *path, const char *what)
{
	struct world *w = mobility_world(&sc);

	complete(w, why, dest, itinerant, policy, path);
	settle(w);
	assert_string_equal(story(w), what);
	world_free(w);
}

#define RETURNED(policy, path, what) expect(sc, "returned", NULL, false, policy, path, what)

static void the_first_entry_is_taken_and_leaves_the_path(void **state)
{
	struct script sc = { 0 };
	struct world *w = mobility_world(&sc);
	const struct tos_value *args;

	(void)state;
	complete(w, "returned", NULL, false, "wait=1s", texts("host1", "host2", NULL));
	settle(w);
	assert_string_equal(story(w), "MOVE host1");
	args = tos_at(world_sent_folder(w, "MOVE", 0)->elements, 0);
	assert_true(tos_get_bool(args, "entry", false));
	assert_int_equal(tos_get_int(args, "timeout_ms", 0), 10000);
	assert_int_equal(world_count(w, "moves_total"), 1);
	assert_int_equal(world_sent_tag(w, w->next_tag - 1)->kind, POST_ANSWER);
	world_free(w);
}

static void the_end_of_the_path_finishes(void **state)
{
	struct script sc = { 0 };

	(void)state;
	RETURNED("", texts(NULL, NULL), "FINISH");
}

static void alternatives_are_tried_in_turn(void **state)
{
	struct script sc = { .move = { { "a", ERR_UNREACHABLE, 0 }, { "b", ERR_DENIED, 0 } } };

	(void)state;
	RETURNED("fail", texts("a|b|c", "d", NULL), "MOVE a, MOVE b, MOVE c");
}

static void skip_leaves_out_the_entry_and_says_so_in_the_trail(void **state)
{
	struct script sc = { .move = { { "a", ERR_UNREACHABLE, 0 }, { "b", ERR_LIMIT, 0 } } };

	(void)state;
	RETURNED("skip", texts("a", "b", "c", NULL),
		"MOVE a, TRAIL, DROP_ENTRY, MOVE b, TRAIL, DROP_ENTRY, MOVE c");
	RETURNED("skip", texts("a", NULL), "MOVE a, TRAIL, DROP_ENTRY, FINISH");
}

static void fail_and_alternate_fault_it_at_once(void **state)
{
	struct script sc = { .move = { { "a", ERR_UNREACHABLE, 0 },
				     { "b", ERR_UNREACHABLE, 0 } } };

	(void)state;
	RETURNED("fail", texts("a|b", "c", NULL), "MOVE a, MOVE b, FAULT unreachable");
	RETURNED("alternate", texts("a|b", "c", NULL), "MOVE a, MOVE b, FAULT unreachable");
	RETURNED("nonsense", texts("a", NULL), "FAULT malformed");
}

static void wait_tries_again_until_the_kernel_is_there(void **state)
{
	struct script sc = { .move = { { "a", ERR_UNREACHABLE, 3 } } };

	(void)state;
	RETURNED("wait=5s", texts("a", NULL),
		"MOVE a, WAITING unreachable, MOVE a, MOVE a, MOVE a");
}

static bool has_fault(struct world *w)
{
	return world_sent_folder(w, "FAULT", 0) != NULL;
}

static void wait_gives_up_after_its_time_and_names_the_host(void **state)
{
	struct script sc = { .move = { { "a", ERR_UNREACHABLE, 0 } } };
	struct world *w = mobility_world(&sc);
	int64_t before = clock_ms();

	(void)state;
	complete(w, "returned", NULL, false, "wait=300", texts("a", NULL));
	assert_true(world_until(w, has_fault));
	assert_true(clock_ms() - before >= 299);
	assert_true(sc.moves >= 5);
	assert_string_equal(arg_of(world_sent_folder(w, "FAULT", 0), "text"),
		"a: unreachable (as scripted)");
	assert_non_null(strstr(
		arg_of(world_sent_folder(w, "WAITING", 0), "text"), "Start that kernel"));
	assert_null(world_sent_folder(w, "WAITING", 1));
	world_free(w);
}

static void a_refusal_is_not_waited_for(void **state)
{
	struct script sc = { .move = { { "a", ERR_DENIED, 0 }, { "b", ERR_UNREACHABLE, 2 } } };

	(void)state;
	RETURNED("wait=5s", texts("a", NULL), "MOVE a, FAULT denied");
	/* Only the one that said nothing is asked again. */
	RETURNED("wait=5s", texts("a|b", NULL),
		"MOVE a, MOVE b, WAITING unreachable, MOVE b, MOVE b");
}

/* Disks are emptied, and clocks set right. */
static void what_passes_is_waited_for(void **state)
{
	static const int codes[] = { ERR_STORE, ERR_NOT_YET, ERR_EXPIRED };

	(void)state;
	for (size_t i = 0; i < sizeof(codes) / sizeof(*codes); i++) {
		struct script sc = { .move = { { "a", codes[i], 2 } } };
		char story[100];

		snprintf(story, sizeof(story), "MOVE a, WAITING %s, MOVE a, MOVE a",
			err_word(codes[i]));
		RETURNED("wait=5s", texts("a", NULL), story);
	}
	struct script sc = { .move = { { "a", ERR_STORE, 0 } } };

	RETURNED("fail", texts("a", NULL), "MOVE a, FAULT store");
}

static void what_is_in_doubt_is_left_to_the_kernel(void **state)
{
	struct script sc = { .move = { { "a", ERR_IN_DOUBT, 0 } } };

	(void)state;
	RETURNED("skip", texts("a|b", "c", NULL), "MOVE a");
	sc.move[0].rc = ERR_STATE;
	RETURNED("wait=5s", texts("a|b", "c", NULL), "MOVE a");
}

static void an_offer_without_an_answer_is_as_good_as_not_there(void **state)
{
	struct script sc = { .move = { { "a", ERR_UNKNOWN, 0 } } };

	(void)state;
	RETURNED("fail", texts("a|b", NULL), "MOVE a, MOVE b");
	RETURNED("fail", texts("a", NULL), "MOVE a, FAULT unreachable");
}

static void a_carrier_that_is_gone_is_forgotten(void **state)
{
	struct script sc = { .move = { { "a", ERR_NOT_FOUND, 0 } },
		.final_rc = ERR_NOT_FOUND,
		.final_times = 9 };

	(void)state;
	RETURNED("fail", texts("a", NULL), "MOVE a, FAULT not-found");
	RETURNED("skip", texts("a", "b", NULL), "MOVE a, TRAIL, DROP_ENTRY");
}

static void go_moves_once_and_failures_resume_it(void **state)
{
	struct script sc = { .move = { { "a", ERR_UNREACHABLE, 0 } } };

	(void)state;
	expect(sc, "go", "b", true, "wait=5s", texts("x", NULL), "MOVE b");
	expect(sc, "go", "a", true, "wait=5s", texts("x", NULL), "MOVE a, RESUME unreachable");
	expect(sc, "go", "a", true, "skip", texts("x", NULL), "MOVE a, RESUME unreachable");
	expect(sc, "go", NULL, false, "wait=5s", texts("a|c", NULL), "MOVE a, MOVE c");
	expect(sc, "go", "", false, "wait=5s", texts(NULL, NULL), "RESUME not-found");
}

static void go_outside_the_path_needs_an_itinerant_ticket(void **state)
{
	struct script sc = { 0 };

	(void)state;
	expect(sc, "go", "b", false, "", texts("a", NULL), "RESUME denied");
	expect(sc, "go", "b", false, "", texts("a", "x|b", NULL), "MOVE b");
}

static void go_to_the_first_entry_takes_it_off_the_path(void **state)
{
	struct script sc = { 0 };
	struct world *w = mobility_world(&sc);

	(void)state;
	complete(w, "go", "b", false, "", texts("a|b", "c", NULL));
	settle(w);
	assert_true(tos_get_bool(
		tos_at(world_sent_folder(w, "MOVE", 0)->elements, 0), "entry", false));
	complete(w, "go", "c", false, "", texts("a|b", "c", NULL));
	settle(w);
	assert_false(tos_get_bool(
		tos_at(world_sent_folder(w, "MOVE", 1)->elements, 0), "entry", true));
	world_free(w);
}

static void a_repeated_completion_changes_nothing(void **state)
{
	struct script sc = { .move = { { "a", ERR_UNREACHABLE, 4 } } };
	struct world *w = mobility_world(&sc);

	(void)state;
	complete(w, "returned", NULL, false, "wait=5s", texts("a", NULL));
	complete(w, "returned", NULL, false, "wait=5s", texts("a", NULL));
	world_run(w, 20);
	complete(w, "returned", NULL, false, "wait=5s", texts("a", NULL));
	settle(w);
	assert_int_equal(sc.moves, 5);
	world_free(w);
}

static void an_ending_that_fails_is_repeated(void **state)
{
	struct script sc = { .final_rc = ERR_STORE, .final_times = 1 };

	(void)state;
	/* The first pause is 400 ms, more than settle() waits for. */
	struct world *w = mobility_world(&sc);

	complete(w, "returned", NULL, false, "", texts(NULL, NULL));
	world_run(w, 700);
	assert_string_equal(story(w), "FINISH, FINISH");
	world_free(w);
}

static void only_the_kernel_tells_mobility(void **state)
{
	struct script sc = { 0 };
	struct world *w = mobility_world(&sc);

	(void)state;
	assert_int_equal(world_post(w, POST_CALL, "host0#1", "carrier", "Mobility", "COMPLETED",
				 NULL, 5000),
		ERR_DENIED);
	assert_int_equal(world_post(w, POST_CALL, "host0/Echo", "extension", "Mobility",
				 "COMPLETED", NULL, 5000),
		0);
	world_run(w, 20);
	assert_string_equal(failure_word(world_sent_tag(w, w->next_tag - 1)), "denied");
	assert_string_equal(ext_hook(w->host, TOS_INBOX_ON_COMPLETION, 0), "Mobility");
	world_free(w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_first_entry_is_taken_and_leaves_the_path),
		cmocka_unit_test(the_end_of_the_path_finishes),
		cmocka_unit_test(alternatives_are_tried_in_turn),
		cmocka_unit_test(skip_leaves_out_the_entry_and_says_so_in_the_trail),
		cmocka_unit_test(fail_and_alternate_fault_it_at_once),
		cmocka_unit_test(wait_tries_again_until_the_kernel_is_there),
		cmocka_unit_test(wait_gives_up_after_its_time_and_names_the_host),
		cmocka_unit_test(a_refusal_is_not_waited_for),
		cmocka_unit_test(what_passes_is_waited_for),
		cmocka_unit_test(what_is_in_doubt_is_left_to_the_kernel),
		cmocka_unit_test(an_offer_without_an_answer_is_as_good_as_not_there),
		cmocka_unit_test(a_carrier_that_is_gone_is_forgotten),
		cmocka_unit_test(go_moves_once_and_failures_resume_it),
		cmocka_unit_test(go_outside_the_path_needs_an_itinerant_ticket),
		cmocka_unit_test(go_to_the_first_entry_takes_it_off_the_path),
		cmocka_unit_test(a_repeated_completion_changes_nothing),
		cmocka_unit_test(an_ending_that_fails_is_repeated),
		cmocka_unit_test(only_the_kernel_tells_mobility),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
