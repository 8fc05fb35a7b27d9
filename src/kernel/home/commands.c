/*
 * What is wanted of a carrier: journaled at the home, then told to its place until that has done it.
 */
#include "kernel/home/commands.h"

#include <string.h>

#include "base/clock.h"
#include "base/fault.h"
#include "kernel/carrier/resident.h"
#include "kernel/handoff/moves.h"
#include "kernel/home/home.h"
#include "kernel/home/outcome.h"
#include "kernel/home/records.h"

#define COMMAND_MOST_MS 10000 /* where it cannot be told */

struct command {
	char name[NAME_BYTES_MAX + 1], wanted[sizeof(((struct home_record *)0)->wanted)];
};

static void on_command(
	struct kernel *k, void *arg, int rc, const char *text, const struct tos_value *elements)
{
	AUTOFREE struct command *c = arg;
	struct home_record *h = home_find(k, c->name);
	const char *state = tos_get_text(tos_at(elements, 0), "state", "");
	const char *departing = tos_get_text(tos_at(elements, 0), "departing", "");

	(void)text;
	if (!h)
		return;
	h->commanding = false;
	if (strcmp(h->wanted, c->wanted) != 0) {
		/* this answers an older wish: a kill must not be lost on it */
		h->command_at_ms = h->command_pause_ms = 0;
		return;
	}
	/* When it is linked again it is told at once. */
	h->command_pause_ms =
		rc < 0 ? pause_longer(h->command_pause_ms, COMMAND_AGAIN_MS, COMMAND_MOST_MS)
		       : COMMAND_AGAIN_MS;
	h->command_at_ms = clock_ms() + h->command_pause_ms;
	if (strcmp(h->wanted, "suspended") == 0 && strcmp(state, "running") == 0)
		return; /* it was about to move: again, here or there */
	if (rc < 0 || departing[0] || strcmp(state, "gone") == 0)
		return; /* it is on its way: repeated until its place has said so */
	h->command_due = false;
	home_save(k, h);
}

void command_send(struct kernel *k, struct home_record *h)
{
	struct resident *r = resident_find(k, h->name);
	struct tos_value *args;
	struct command *c;

	h->command_at_ms = clock_ms() + COMMAND_AGAIN_MS;
	if (r && r->state != SHELL_DEPARTING) {
		resident_wanted(r, h->wanted, &h->e);
		r = resident_find(k, h->name);
		h->command_due =
			r && r->state == SHELL_RUNNING && strcmp(h->wanted, "suspended") == 0;
		return;
	}
	if (!r && strcmp(h->kernel, k->config.name) == 0 && strcmp(h->wanted, "killed") == 0) {
		/* Killing works for what is not there any more, too. */
		home_outcome(k, h, SHELL_KILLED, NULL);
		home_save(k, h);
		return;
	}
	if (!h->kernel[0] || strcmp(h->kernel, k->config.name) == 0 || h->commanding)
		return;
	h->commanding = true;
	c = mem_new(struct command);
	snprintf(c->name, sizeof(c->name), "%s", h->name);
	snprintf(c->wanted, sizeof(c->wanted), "%s", h->wanted);
	args = tos_map();
	tos_set(args, "name", tos_text(h->name));
	tos_set(args, "wanted", tos_text(h->wanted));
	tos_set(args, "e", incarnation_value(&h->e));
	kernel_call(k, h->kernel, "Handoff", "COMMAND", args, k->config.call_ms, on_command, c);
}

struct wanted_saved {
	struct kernel *k;
	char name[NAME_BYTES_MAX + 1], wanted[sizeof(((struct home_record *)0)->wanted)];
	struct request *rq;
};

static void wanted_answer(struct kernel *k, const char *name, struct request *rq)
{
	const struct home_record *h = home_find(k, name);
	struct tos_value *out = tos_map();

	tos_set(out, "name", tos_text(name));
	tos_set(out, "state", tos_text(h ? shell_state_word(h->state) : "gone"));
	tos_set(out, "wanted", tos_text(h ? h->wanted : ""));
	request_ok(rq, out);
}

static void on_wanted_saved(void *arg, int rc, const struct errmsg *em)
{
	AUTOFREE struct wanted_saved *w = arg;
	struct home_record *h = home_find(w->k, w->name);

	FAULT_AT(WANT_JOURNALED);
	if (h && strcmp(w->wanted, "retry") == 0)
		home_raised(w->k, h, rc);
	/* A kill is done even if it could not be journaled. */
	if (h && !shell_ended(h->state) && (rc == 0 || strcmp(w->wanted, "killed") == 0)) {
		if (strcmp(h->wanted, "killed") != 0)
			snprintf(h->wanted, sizeof(h->wanted), "%s", w->wanted);
		h->command_due = true;
		command_send(w->k, h);
	}
	if (rc < 0)
		request_fail(w->rq, rc, "%s", err_show(rc, em));
	else
		wanted_answer(w->k, w->name, w->rq);
}

/* An incarnation was granted, and nothing heard of it yet: its copy may be at work already, and
 * another one would end it. The same is told again. */
static void retry_again(struct kernel *k, struct home_record *h, struct request *rq)
{
	char name[NAME_BYTES_MAX + 1];

	snprintf(name, sizeof(name), "%s", h->name);
	h->command_due = true;
	command_send(k, h);
	wanted_answer(k, name, rq);
}

int home_want(struct kernel *k, struct home_record *h, const char *wanted, struct request *rq)
{
	struct wanted_saved *w;
	struct store_txn *t;
	char was[sizeof(h->wanted)];
	bool due = h->command_due;
	int rc;

	if (shell_ended(h->state)) {
		request_fail(rq, ERR_STATE, "%s has ended (%s)", h->name,
			shell_state_word(h->state));
		return ERR_STATE;
	}
	if (strcmp(h->wanted, "killed") == 0 && strcmp(wanted, "killed") != 0) {
		request_fail(rq, ERR_STATE, "%s is being killed", h->name);
		return ERR_STATE;
	}
	if (strcmp(wanted, "retry") == 0) {
		if (h->state != SHELL_FAULTED || h->raising) {
			request_fail(rq, ERR_STATE,
				"%s is %s; only a faulted carrier is retried", h->name,
				shell_state_word(h->state));
			return ERR_STATE;
		}
		if (strcmp(h->wanted, "retry") == 0) {
			retry_again(k, h, rq);
			return 0;
		}
		/* A higher incarnation: its requests to extensions are new ones. */
		home_raise(h);
	}
	w = mem_new(struct wanted_saved);
	w->k = k;
	w->rq = rq;
	snprintf(w->name, sizeof(w->name), "%s", h->name);
	snprintf(w->wanted, sizeof(w->wanted), "%s", wanted);
	snprintf(was, sizeof(was), "%s", h->wanted);
	snprintf(h->wanted, sizeof(h->wanted), "%s", wanted);
	h->command_due = true;
	t = store_begin(k->store);
	home_put(t, h);
	/* Memory follows when it is durable; a kill does not wait for that. */
	if (strcmp(wanted, "killed") != 0) {
		snprintf(h->wanted, sizeof(h->wanted), "%s", was);
		h->command_due = due;
	}
	FAULT_AT(WANT_COMMIT);
	rc = store_commit(t, on_wanted_saved, w);
	if (rc < 0) {
		struct errmsg em = { "" };

		on_wanted_saved(w, rc, &em);
	}
	return 0;
}
