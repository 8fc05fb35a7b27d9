/* tos run: shows results as they come, and a table at the end. See run.h. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"
#include "cli/run.h"
#include "lib/internal.h"

#define SLICE_MS 200   /* how late Ctrl-C may be noticed */
#define GONE_MS  60000 /* how long a home may be away */

/* ---- what comes */

/* Each line with its host in front. What programs print must not steer the terminal, but for
 * tabulators. */
static void print_lines(
	const struct run *r, const char *host, const struct tos_value *v, FILE *out)
{
	size_t n = 0;
	const uint8_t *p = tos_as_bytes(v, &n);
	AUTOBUF line = BUF_INIT;

	for (size_t at = 0; p && at < n;) {
		const uint8_t *end = memchr(p + at, '\n', n - at);
		size_t len = end ? (size_t)(end - p) - at : n - at;

		fprintf(out, "%-*s  ", r->width, host);
		buf_clear(&line);
		put_shown(&line, (const char *)p + at, len, "\t");
		fprintf(out, "%s\n", buf_cstr(&line));
		at += len + (end != NULL);
	}
}

static void on_row(struct run *r, const struct tos_value *row)
{
	const char *host = tos_get_text(row, "host", "");

	if (!*host)
		return;
	tos_set(r->rows, host, tos_value_copy(row));
	if (r->cli->json)
		return;
	print_lines(r, host, tos_get(row, "stdout"), stdout);
	fflush(stdout);
	print_lines(r, host, tos_get(row, "stderr"), stderr);
	if (tos_get_bool(row, "cut", false))
		fprintf(stderr, "%-*s  (more was printed than is kept)\n", r->width, host);
}

static void on_paused(const struct tos_value *m)
{
	const char *name = tos_get_text(m, "name", "?");

	fprintf(stderr,
		"paused behind wave %lld: 'tos post %s/run resume' goes on, 'tos post %s/run stop' ends it\n",
		(long long)tos_get_int(m, "wave", 0), name, name);
}

static void on_folder(struct run *r, const char *folder, const struct tos_value *v)
{
	if (strcmp(folder, "row") == 0)
		on_row(r, v);
	else if (strcmp(folder, "hello") == 0)
		r->hello = true;
	else if (strcmp(folder, "paused") == 0)
		on_paused(v);
	else if (strcmp(folder, "end") == 0 && !r->summary)
		r->summary = tos_value_copy(v);
}

static void on_event(struct run *r, const struct tos_value *e)
{
	if (strcmp(tos_get_text(e, "name", ""), r->name) == 0 &&
		strcmp(tos_get_text(e, "kind", ""), "state") == 0)
		snprintf(r->state, sizeof(r->state), "%s", tos_get_text(e, "state", ""));
}

int run_receive(struct run *r, uint32_t wait_ms)
{
	char sender[129], folder[129], home[64], kernel[80];
	struct tos_value *e = NULL;
	int rc = tos_receive(r->cli->connection, wait_ms, sender, folder, &e, cli_err(r->cli));

	cli_home_of(r->name, home);
	snprintf(kernel, sizeof(kernel), "%s/Kernel", home);
	if (rc == 0 && strcmp(sender, r->name) == 0)
		on_folder(r, folder, tos_at(e, 0));
	else if (rc == 0 && strcmp(folder, "event") == 0 && strcmp(sender, kernel) == 0)
		on_event(r, tos_at(e, 0));
	tos_value_free(e);
	return rc;
}

/* ---- the home went away, and came back */

static int say_hello_again(struct run *r)
{
	struct tos_value *answer = NULL, *elements = tos_array();
	char home[64], dest[200];
	int rc;

	cli_home_of(r->name, home);
	rc = cli_ask(r->cli, home, "WATCH", map_of("name", tos_text(r->name)), &answer);
	if (rc == 0)
		snprintf(r->state, sizeof(r->state), "%s", tos_get_text(answer, "state", ""));
	tos_value_free(answer);
	snprintf(dest, sizeof(dest), "%s/run", r->name);
	if (rc == 0) /* it takes that from its owner only */
		rc = cli_principal(r->cli);
	if (rc == 0)
		rc = tos_introduce(
			r->cli->connection, r->cli->principal, 5000, cli_err(r->cli));
	if (rc == 0 &&
		tos_push(elements, tos_text(tos_connection_name(r->cli->connection))) == 0)
		tos_send(r->cli->connection, dest, "client", elements, NULL);
	tos_value_free(elements);
	return rc;
}

static int come_back(struct run *r, int rc)
{
	int64_t until = clock_ms() + GONE_MS;
	struct errmsg em = r->cli->em;

	fprintf(stderr, "waiting for the home of %s: %s\n", r->name, err_show(rc, &em));
	do {
		if (interrupted())
			return rc;
		usleep(SLICE_MS * 1000);
		rc = connection_again(r->cli->connection, 2000, &r->cli->em);
		rc = rc ? rc : say_hello_again(r);
	} while ((rc == ERR_CLOSED || rc == ERR_UNREACHABLE || rc == ERR_TIMEOUT ||
			 rc == ERR_STATE) &&
		 clock_ms() < until);
	return rc;
}

/* ---- the end */

/* Rows that did not reach us are in the outcome. */
static int from_outcome(struct run *r)
{
	struct tos_value *args = map_of("name", tos_text(r->name)), *o = NULL;
	const struct tos_value *results, *output, *fault;
	char home[64];
	int rc;

	cli_home_of(r->name, home);
	tos_set(args, "wait_ms", tos_int(5000));
	rc = cli_ask(r->cli, home, "OUTCOME", args, &o);
	if (rc < 0)
		return rc;
	results = tos_get(tos_get(o, "briefcase"), "RESULTS");
	output = tos_get(tos_get(o, "briefcase"), "OUTPUT");
	fault = tos_get(o, "fault");
	for (size_t i = 0; i < tos_len(results); i++) {
		const struct tos_value *row = tos_at(results, i);
		struct tos_value *whole;

		if (tos_get(r->rows, tos_get_text(row, "host", "")))
			continue;
		whole = tos_value_copy(row);
		for (size_t j = 0; j < tos_len(output); j++) {
			const struct tos_value *out = tos_at(output, j);

			if (strcmp(tos_get_text(out, "host", ""),
				    tos_get_text(row, "host", "?")) != 0)
				continue;
			for (size_t k = 0; k < tos_len(out); k++)
				tos_set_value(whole, tos_value_copy(tos_key_at(out, k)),
					tos_value_copy(tos_value_at(out, k)));
		}
		on_row(r, whole);
		tos_value_free(whole);
	}
	if (!r->summary && tos_len(tos_get(tos_get(o, "briefcase"), "SUMMARY")))
		r->summary =
			tos_value_copy(tos_at(tos_get(tos_get(o, "briefcase"), "SUMMARY"), 0));
	if (!r->summary)
		rc = err_set(&r->cli->em, ERR_FAULT, "%s is %s: %s", r->name,
			tos_get_text(o, "state", "?"),
			tos_get_text(fault, "text", "no word of why"));
	tos_value_free(o);
	return rc;
}

/* In the order of the hosts; those of which nothing was heard are left out. */
static struct tos_value *rows_in_order(const struct run *r)
{
	struct tos_value *list = tos_array();

	for (size_t i = 0; i < tos_len(r->hosts); i++) {
		const struct tos_value *row =
			tos_get(r->rows, tos_as_text(tos_at(r->hosts, i), ""));

		if (row)
			tos_push(list, tos_value_copy(row));
	}
	return list;
}

/* What was only looked at is not done. */
static const char *state_shown(const char *state, bool dry)
{
	return dry && strcmp(state, "done") == 0 ? "ready" : state;
}

/* What people see of a row. */
static struct tos_value *shown(const struct tos_value *row, bool waves, bool dry)
{
	struct tos_value *v = tos_map();
	const char *state = state_shown(tos_get_text(row, "state", "?"), dry);
	const char *at = tos_get_text(row, "at", NULL), *host = tos_get_text(row, "host", "?");

	tos_set(v, "host", at ? tos_textf("%s (%s)", host, at) : tos_text(host));
	tos_set(v, "state", tos_text(state));
	if (tos_get(row, "signal"))
		tos_set(v, "exit",
			tos_textf("signal %lld", (long long)tos_get_int(row, "signal", 0)));
	else if (tos_get(row, "exit"))
		tos_set(v, "exit", tos_int(tos_get_int(row, "exit", 0)));
	if (tos_get(row, "ms"))
		tos_set(v, "time", tos_textf("%lld ms", (long long)tos_get_int(row, "ms", 0)));
	if (waves && tos_get(row, "wave"))
		tos_set(v, "wave", tos_int(tos_get_int(row, "wave", 0)));
	if (tos_get(row, "code"))
		tos_set(v, "why",
			tos_textf("%s: %s", tos_get_text(row, "code", ""),
				tos_get_text(row, "text", "")));
	else if (dry && tos_get(row, "text"))
		tos_set(v, "why", tos_text(tos_get_text(row, "text", "")));
	return v;
}

static void print_table(const struct run *r, const struct tos_value *rows)
{
	bool waves = tos_get_int(r->summary, "wave", 0) > 1 || cli_option(r->cli, "wave");
	struct tos_value *list = tos_array();

	for (size_t i = 0; i < tos_len(rows); i++)
		tos_push(list, shown(tos_at(rows, i), waves, cli_option(r->cli, "dry-run")));
	if (tos_len(list)) {
		putc('\n', stderr);
		table_print(list,
			waves ? "host:HOST state:STATE exit:EXIT time:TIME wave:WAVE why:WHY"
			      : "host:HOST state:STATE exit:EXIT time:TIME why:WHY",
			stderr);
	}
	tos_value_free(list);
}

/* "48 done, 2 failed" */
static void print_summary(const struct run *r)
{
	static const char *const states[] = { "done", "failed", "down", "undone", "stuck",
		"waiting" };
	const struct tos_value *count = tos_get(r->summary, "count");
	const char *state = tos_get_text(r->summary, "state", "?"),
		   *why = tos_get_text(r->summary, "why", "");
	AUTOBUF b = BUF_INIT;

	for (size_t i = 0; i < ARRAY_LEN(states); i++)
		if (tos_get_int(count, states[i], 0))
			buf_printf(&b, "%s%lld %s", b.len ? ", " : "",
				(long long)tos_get_int(count, states[i], 0),
				strcmp(states[i], "waiting") == 0
					? "not begun"
					: state_shown(
						  states[i], cli_option(r->cli, "dry-run")));
	if (!b.len)
		buf_add_str(&b, "no host");
	fprintf(stderr, "%s: %s", r->name, buf_cstr(&b));
	if (strcmp(state, "finished") != 0)
		fprintf(stderr, "; %s%s%s", state, *why ? ": " : "", text_shown(&b, why));
	putc('\n', stderr);
}

/* What carriers put into RESULTS, all together, each with its kernel. */
static void print_results(const struct tos_value *rows)
{
	struct tos_value *list = tos_array();

	for (size_t i = 0; i < tos_len(rows); i++) {
		const struct tos_value *own = tos_get(tos_at(rows, i), "rows");

		for (size_t k = 0; k < tos_len(own); k++)
			tos_push(list, tos_value_copy(tos_at(own, k)));
	}
	if (tos_len(list))
		table_print(list, NULL, stdout);
	fflush(stdout);
	tos_value_free(list);
}

static void print_all_json(const struct run *r, struct tos_value *rows)
{
	struct tos_value *v = map_of("name", tos_text(r->name));

	for (size_t i = 0; i < tos_len(r->summary); i++)
		tos_set_value(v, tos_value_copy(tos_key_at(r->summary, i)),
			tos_value_copy(tos_value_at(r->summary, i)));
	tos_set(v, "hosts", rows);
	print_json(v);
	tos_value_free(v);
}

static int all_done(const struct run *r)
{
	const struct tos_value *count = tos_get(r->summary, "count");

	return strcmp(tos_get_text(r->summary, "state", ""), "finished") == 0 &&
			       tos_get_int(count, "done", 0) == tos_get_int(count, "all", -1)
		       ? EXIT_DONE
		       : EXIT_FAILED;
}

static int print_end(struct run *r)
{
	struct tos_value *rows = rows_in_order(r);
	int64_t all = tos_get_int(tos_get(r->summary, "count"), "all", 0);

	if (r->cli->json) {
		print_all_json(r, rows);
		return all_done(r);
	}
	if (r->is_carrier)
		print_results(rows);
	if (!cli_option(r->cli, "quiet") || all_done(r) != EXIT_DONE)
		print_table(r, rows);
	tos_value_free(rows);
	if (!all)
		fputs("tos run: no host meets what --where says\n", stderr);
	print_summary(r);
	return all_done(r);
}

static int detach(const struct run *r)
{
	fprintf(stderr, "still running: tos wait %s\n", r->name);
	return EXIT_DETACHED;
}

int run_follow(struct run *r)
{
	int rc = 0;

	while (!r->summary && !state_is_final(r->state)) {
		if (interrupted())
			return detach(r);
		rc = run_receive(r, SLICE_MS);
		if ((rc == ERR_CLOSED || rc == ERR_UNREACHABLE) && r->durable)
			rc = come_back(r, rc);
		if (rc < 0 && rc != ERR_TIMEOUT)
			return interrupted() ? detach(r) : cli_fail(r->cli, rc);
	}
	/* Rows of hosts that were not begun, and what was lost on the way, are in the outcome. */
	if (!r->summary ||
		(int64_t)tos_len(r->rows) < tos_get_int(tos_get(r->summary, "count"), "all", 0))
		rc = from_outcome(r);
	else
		rc = 0;
	return rc < 0 ? cli_fail(r->cli, rc) : print_end(r);
}
