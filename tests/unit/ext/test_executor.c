/* Executor, in the kernel; the test is the inbox Programs, and no program is run. */
#include "world.h"

#include <string.h>

#define HANDLE "0123456789abcdef"

/* A world in which the kernel was asked to start a program that somebody waits for. */
static struct world *starting(void)
{
	struct world *w = world_new();
	struct tos_value *run = tos_map();
	struct errmsg em = { "" };

	if (world_load(w, "Executor", EXECUTOR_SO, "", false, &em) < 0)
		fail_msg("%s", em.text);
	tos_set(run, "program", tos_text("/bin/true"));
	tos_set(run, "wait", tos_bool(true));
	assert_int_equal(world_post(w, POST_CALL, "host0#1", "carrier", "Executor", "RUN",
				 array_of(run), 5000),
		0);
	return w;
}

static bool is_asked(struct world *w)
{
	return world_sent_folder(w, "START", 0) != NULL;
}

static void started(struct world *w)
{
	struct tos_value *row = tos_map();

	assert_true(world_until(w, is_asked));
	tos_set(row, "handle", tos_text(HANDLE));
	world_answer(w, world_sent_folder(w, "START", 0), 0, NULL, array_of(row));
}

/* What was sent about the program under that folder. */
static const struct tos_value *said(struct world *w, const char *folder)
{
	struct sent *s = world_sent_folder(w, folder, 0);

	assert_non_null(s);
	assert_string_equal(s->dest, "Programs");
	assert_string_equal(tos_get_text(tos_at(s->elements, 0), "handle", ""), HANDLE);
	return tos_at(s->elements, 0);
}

static bool is_read(struct world *w)
{
	return world_sent_folder(w, "READ", 0) != NULL;
}

static bool is_answered(struct world *w)
{
	return world_sent_tag(w, 1) != NULL;
}

static bool is_passed_on(struct world *w)
{
	return world_sent_folder(w, "STATUS", 0) != NULL;
}

static void who_waits_hears_how_it_ended_and_what_it_wrote(void **state)
{
	struct world *w = starting();
	struct tos_value *chunk = tos_array(), *m = tos_map(), *end = tos_map();
	const struct tos_value *result;

	(void)state;
	started(w);
	assert_true(world_until(w, is_read));
	said(w, "READ");
	assert_null(world_sent_folder(w, "SIGNAL", 0));
	assert_false(is_answered(w));
	tos_push(chunk, tos_int(1));
	tos_push(chunk, tos_bytes("text", 4));
	tos_set(m, "output", array_of(chunk));
	tos_set(end, "code", tos_int(7));
	tos_set(m, "ended", end);
	world_answer(w, world_sent_folder(w, "READ", 0), 0, NULL, array_of(m));
	assert_true(world_until(w, is_answered));
	result = tos_at(world_sent_tag(w, 1)->elements, 0);
	assert_int_equal(tos_get_int(result, "code", -1), 7);
	assert_string_equal(tos_get_text(result, "stdout", ""), "text");
	said(w, "FORGET");
	world_free(w);
}

/* It had somebody wait for a job that was freed: nobody was answered. */
static void a_program_that_nobody_can_read_is_killed_refused_and_forgotten(void **state)
{
	struct world *w = starting();
	struct tos_value *m = tos_map();

	(void)state;
	w->refused = "READ";
	started(w);
	assert_true(world_until(w, is_answered));
	assert_string_equal(failure_word(world_sent_tag(w, 1)), "full");
	assert_string_equal(tos_get_text(said(w, "SIGNAL"), "signal", ""), "KILL");
	/* Of a handle that it does not know it asks the kernel. */
	tos_set(m, "handle", tos_text(HANDLE));
	assert_int_equal(world_post(w, POST_CALL, "host0#1", "carrier", "Executor", "WAIT",
				 array_of(m), 5000),
		0);
	assert_true(world_until(w, is_passed_on));
	said(w, "STATUS");
	world_free(w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(who_waits_hears_how_it_ended_and_what_it_wrote),
		cmocka_unit_test(
			a_program_that_nobody_can_read_is_killed_refused_and_forgotten),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
