/* Outcomes: waiting for one with progress, and printing it. Shared by launch and wait. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"
#include "cli/cli.h"

#define SLICE_MS     200   /* how late Ctrl-C may be noticed */
#define ASK_EVERY_MS 2000  /* should an event be lost */
#define GONE_MS      60000 /* how long a home may be away */

bool state_is_final(const char *state)
{
	static const char *const final[] = { "finished", "faulted", "killed", "lost", "refused",
		"superseded" };

	for (size_t i = 0; i < ARRAY_LEN(final); i++)
		if (strcmp(state, final[i]) == 0)
			return true;
	return false;
}

/* ---- printing */

void trail_error(const struct tos_value *line, struct buf *out)
{
	const char *error = tos_get_text(line, "error", ""),
		   *peer = tos_get_text(line, "peer", "");

	/* Which host was skipped, or refused it: not where that was written down. */
	if (*error && *peer && strncmp(error, peer, strlen(peer)) != 0)
		buf_printf(out, "%s: ", peer);
	put_shown(out, error, strlen(error), "");
}

static void print_trail(const struct tos_value *trail)
{
	for (size_t i = 0; i < tos_len(trail); i++) {
		const struct tos_value *t = tos_at(trail, i);
		int64_t wall = tos_get_int(t, "wall", tos_get_int(t, "time", 0));
		char when[CLOCK_TEXT_BYTES] = "";
		AUTOBUF error = BUF_INIT;

		trail_error(t, &error);
		if (wall)
			clock_text(wall, when);
		printf("%2zu  %-12s %-10s %s%s%s\n", i + 1, tos_get_text(t, "kernel", "?"),
			tos_get_text(t, "event", ""), wall ? when + 11 : "",
			error.len ? "  " : "", buf_cstr(&error));
	}
}

static void print_fault(const char *name, const char *state, const struct tos_value *fault)
{
	const char *traceback = tos_get_text(fault, "traceback", ""),
		   *code = tos_get_text(fault, "code", "fault"),
		   *text = tos_get_text(fault, "text", "");
	/* "limit cpu: ..." needs no "limit: ", and an error of its own no word at all. */
	bool said = strcmp(code, "fault") == 0 || strncmp(text, code, strlen(code)) == 0;
	AUTOBUF calm = BUF_INIT;

	if (tos_type(fault) != TOS_MAP) {
		fprintf(stderr, "tos: %s is %s\n", name, state);
		return;
	}
	fprintf(stderr, "tos: %s is %s at %s: %s%s%s\n", name, state,
		tos_get_text(fault, "kernel", "?"), said ? "" : code, said ? "" : ": ",
		text_shown(&calm, text));
	if (*traceback)
		fprintf(stderr, "%s%s", text_shown(&calm, traceback),
			traceback[strlen(traceback) - 1] == '\n' ? "" : "\n");
	if (strcmp(state, "faulted") == 0 && strncmp(name, "local#", 6) != 0)
		fprintf(stderr, "tos retry %s has it run again there\n", name);
}

/* Other folders than RESULTS are only named: they may hold anything. */
static void print_folders(const struct tos_value *briefcase)
{
	for (size_t i = 0; i < tos_len(briefcase); i++) {
		const char *name = tos_as_text(tos_key_at(briefcase, i), "");
		const struct tos_value *f = tos_value_at(briefcase, i);

		if (strcmp(name, "RESULTS") != 0)
			printf("folder %s: %zu element%s (--json shows them)\n",
				*name ? name : "(unnamed)", tos_len(f),
				tos_len(f) == 1 ? "" : "s");
	}
}

int outcome_print(const struct cli *cli, const struct tos_value *o)
{
	const char *name = tos_get_text(o, "name", "?"), *state = tos_get_text(o, "state", "?");
	const struct tos_value *results = tos_get(tos_get(o, "briefcase"), "RESULTS");
	bool finished = strcmp(state, "finished") == 0;

	if (cli->json) {
		print_json(o);
		return finished ? EXIT_DONE : EXIT_FAILED;
	}
	if (tos_len(results))
		table_print(results, NULL, stdout);
	print_folders(tos_get(o, "briefcase"));
	if (tos_len(tos_get(o, "trail"))) {
		puts(tos_len(results) ? "\ntrail" : "trail");
		print_trail(tos_get(o, "trail"));
	}
	fflush(stdout);
	if (!finished)
		print_fault(name, state, tos_get(o, "fault"));
	return finished ? EXIT_DONE : EXIT_FAILED;
}

/* ---- waiting */

struct wait {
	struct cli *cli;
	const char *name;
	bool follow;
	char state[32];
	int64_t deadline; /* 0: none */
	int64_t asked, lost;
	struct tos_value *shown; /* log lines shown so far: [kernel, text]... */
};

/* States of every move: the log lines and the trail tell more. */
static bool is_passing(const char *state)
{
	static const char *const passing[] = { "arriving", "ready", "running", "departing",
		"gone" };

	for (size_t i = 0; i < ARRAY_LEN(passing); i++)
		if (strcmp(state, passing[i]) == 0)
			return true;
	return false;
}

static void show_line(struct wait *w, const char *kernel, const char *line)
{
	struct tos_value *key = tos_array();
	AUTOBUF text = BUF_INIT;
	struct tos_value *v = tos_text(line);

	put_text(&text, v);
	tos_value_free(v);
	fprintf(stderr, "%s  %s\n", kernel, buf_cstr(&text));
	if (!w->shown)
		w->shown = tos_array();
	tos_push(key, tos_text(kernel));
	tos_push(key, tos_text(line));
	tos_push(w->shown, key);
}

static void show_event(struct wait *w, const struct tos_value *e)
{
	const char *kind = tos_get_text(e, "kind", ""),
		   *kernel = tos_get_text(e, "kernel", "?");
	AUTOBUF text = BUF_INIT;

	put_text(&text, tos_get(e, "text"));
	if (strcmp(kind, "log") == 0)
		show_line(w, kernel, tos_get_text(e, "text", ""));
	else if (strcmp(kind, "wait") == 0)
		fprintf(stderr, "waiting for %s: %s\n", kernel, buf_cstr(&text));
	else if (strcmp(kind, "state") == 0 && !is_passing(tos_get_text(e, "state", "?")) &&
		 !state_is_final(tos_get_text(e, "state", "?")))
		fprintf(stderr, "%s  %s %s\n", kernel, w->name, tos_get_text(e, "state", "?"));
}

/* A clone's: what it says is said with its name. */
static void on_clone_event(const struct wait *w, const struct tos_value *e)
{
	const char *name = tos_get_text(e, "name", "");
	size_t n = strlen(w->name);
	AUTOBUF text = BUF_INIT;

	if (!w->follow || strncmp(name, w->name, n) != 0 || name[n] != '.')
		return;
	put_text(&text, tos_get(e, "text"));
	if (strcmp(tos_get_text(e, "kind", ""), "log") == 0)
		fprintf(stderr, "%s  %s: %s\n", tos_get_text(e, "kernel", "?"), name,
			buf_cstr(&text));
}

static void on_event(struct wait *w, const struct tos_value *e)
{
	if (tos_type(e) != TOS_MAP)
		return;
	if (strcmp(tos_get_text(e, "name", ""), w->name) != 0) {
		on_clone_event(w, e);
		return;
	}
	if (strcmp(tos_get_text(e, "kind", ""), "state") == 0)
		snprintf(w->state, sizeof(w->state), "%s", tos_get_text(e, "state", ""));
	if (w->follow)
		show_event(w, e);
}

static int watch(struct wait *w)
{
	struct tos_value *answer = NULL;
	char kernel[64];
	int rc;

	cli_home_of(w->name, kernel);
	rc = cli_connect_to(w->cli, kernel);
	rc = rc ? rc
		: cli_ask(w->cli, kernel, "WATCH", map_of("name", tos_text(w->name)), &answer);
	if (rc == 0)
		snprintf(w->state, sizeof(w->state), "%s", tos_get_text(answer, "state", ""));
	tos_value_free(answer);
	return rc;
}

/* Unknown: asked by way of another kernel, when it died over the question. */
static bool is_gone(int rc)
{
	return rc == ERR_CLOSED || rc == ERR_UNREACHABLE || rc == ERR_UNKNOWN;
}

/* The home went away: it is started again by its keeper, so try for a while. */
static int come_back(struct wait *w, int rc)
{
	AUTOBUF calm = BUF_INIT;

	if (!w->lost) {
		w->lost = clock_ms();
		fprintf(stderr, "waiting for the home of %s: %s\n", w->name,
			text_shown(&calm, err_show(rc, &w->cli->em)));
	}
	if (clock_ms() - w->lost > GONE_MS)
		return rc;
	cli_disconnect(w->cli);
	usleep(SLICE_MS * 1000);
	rc = watch(w);
	if (rc == 0)
		w->lost = 0;
	return is_gone(rc) || rc == ERR_TIMEOUT ? 0 : rc;
}

/* Is it there? 0 with *out set, ERR_AGAIN, or a failure. */
static int ask_outcome(struct wait *w, struct tos_value **out)
{
	struct tos_value *args = map_of("name", tos_text(w->name));
	char kernel[64];
	int rc;

	cli_home_of(w->name, kernel);
	tos_set(args, "wait_ms", tos_int(state_is_final(w->state) ? 1000 : 0));
	w->asked = clock_ms();
	rc = cli_ask(w->cli, kernel, "OUTCOME", args, out);
	return rc == ERR_TIMEOUT ? ERR_AGAIN : rc;
}

/* Only the carrier's home tells of it; anybody may post to a client. */
static bool is_event(const struct wait *w, const char *sender, const char *folder)
{
	char home[64], wanted[80];

	cli_home_of(w->name, home);
	snprintf(wanted, sizeof(wanted), "%s/Kernel", home);
	return strcmp(folder, "event") == 0 && strcmp(sender, wanted) == 0;
}

static int one_step(struct wait *w, struct tos_value **out)
{
	struct tos_value *e = NULL;
	char sender[129], folder[129];
	int rc;

	if (!w->cli->connection)
		return come_back(w, ERR_CLOSED);
	if (state_is_final(w->state) || clock_ms() - w->asked >= ASK_EVERY_MS) {
		rc = ask_outcome(w, out);
		if (rc == 0)
			return 1;
		if (is_gone(rc))
			return come_back(w, rc);
		if (rc != ERR_AGAIN)
			return rc;
		if (w->deadline && clock_ms() >= w->deadline)
			return 0;
	}
	rc = tos_receive(w->cli->connection, SLICE_MS, sender, folder, &e, cli_err(w->cli));
	if (rc == 0 && is_event(w, sender, folder))
		on_event(w, tos_at(e, 0));
	tos_value_free(e);
	if (is_gone(rc))
		return come_back(w, rc);
	/* Events that were dropped: the outcome is asked for all the same, and has what they said. */
	return rc == ERR_TIMEOUT || rc == ERR_FULL ? 0 : rc;
}

/* What is queued behind the last state: log lines that came with the outcome. */
static void drain(struct wait *w)
{
	struct tos_value *e = NULL;
	char sender[129], folder[129];

	while (w->cli->connection &&
		tos_receive(w->cli->connection, 0, sender, folder, &e, NULL) == 0) {
		if (is_event(w, sender, folder))
			on_event(w, tos_at(e, 0));
		tos_value_free(STEAL(e));
	}
}

/* Lines that came before we watched, or got lost on the way: the outcome has them all. */
static void show_rest(struct wait *w, const struct tos_value *outcome)
{
	const struct tos_value *log = tos_get(outcome, "log");

	for (size_t i = 0; i < tos_len(log); i++) {
		const struct tos_value *line = tos_at(log, i);
		const char *kernel = tos_as_text(tos_at(line, 1), "?"),
			   *text = tos_as_text(tos_at(line, 2), "");
		bool seen = false;

		for (size_t j = 0; j < tos_len(w->shown) && !seen; j++) {
			const struct tos_value *key = tos_at(w->shown, j);

			seen = strcmp(tos_as_text(tos_at(key, 0), ""), kernel) == 0 &&
			       strcmp(tos_as_text(tos_at(key, 1), ""), text) == 0;
			if (seen)
				tos_value_free(tos_take_at(w->shown, j));
		}
		if (!seen) {
			show_line(w, kernel, text);
			tos_value_free(tos_take_at(w->shown, tos_len(w->shown) - 1));
		}
	}
}

/* The last line is always that of the end, whatever was seen of it. */
static void show_end(struct wait *w, const struct tos_value *outcome)
{
	char home[64];

	cli_home_of(w->name, home);
	fprintf(stderr, "%s  %s %s\n", tos_get_text(tos_get(outcome, "fault"), "kernel", home),
		w->name, tos_get_text(outcome, "state", "?"));
}

/* Whoever launched a carrier wants what came of it; tos wait says whether. */
static bool wants_family(const struct cli *cli, const struct tos_value *outcome)
{
	return cli_option(cli, "family") || (strcmp(cli->args.command->name, "wait") != 0 &&
						    tos_get_int(outcome, "clones", 0) > 0);
}

static int detach(const struct wait *w)
{
	fprintf(stderr, "still running: tos wait %s\n", w->name);
	return EXIT_DETACHED;
}

int outcome_wait(struct cli *cli, const char *name, bool follow, bool quiet)
{
	struct wait w = { .cli = cli, .name = name, .follow = follow };
	struct tos_value *outcome = NULL;
	int code, rc;

	w.deadline = cli->timeout_ms ? clock_ms() + cli->timeout_ms : 0;
	interrupt_catch();
	rc = watch(&w);
	if (is_gone(rc))
		rc = come_back(&w, rc);
	while (rc == 0) {
		if (interrupted()) {
			tos_value_free(w.shown);
			return detach(&w);
		}
		if (w.deadline && clock_ms() >= w.deadline) {
			rc = err_set(&cli->em, ERR_TIMEOUT,
				"%s has not ended; it goes on: tos wait %s", name, name);
			break;
		}
		rc = one_step(&w, &outcome);
	}
	if (rc < 0) {
		tos_value_free(w.shown);
		return cli_fail(cli, rc);
	}
	drain(&w);
	if (follow) {
		show_rest(&w, outcome);
		show_end(&w, outcome);
	}
	tos_value_free(w.shown);
	if (wants_family(cli, outcome)) {
		tos_value_free(outcome);
		return family_wait(cli, name, w.deadline, quiet);
	}
	code = quiet ? (strcmp(tos_get_text(outcome, "state", ""), "finished") == 0
				       ? EXIT_DONE
				       : EXIT_FAILED)
		     : outcome_print(cli, outcome);
	tos_value_free(outcome);
	return code;
}
