/*
 * How a carrier ended, or stands: its state as the home knows it, and the outcome that it leaves.
 * Nobody is told of an end that is not durable, but for a kill.
 */
#include "kernel/home/outcome.h"

#include <string.h>

#include "base/clock.h"
#include "base/fault.h"
#include "base/log.h"
#include "kernel/carrier/resident.h"
#include "kernel/home/home.h"
#include "kernel/home/records.h"
#include "kernel/home/waiters.h"

struct tos_value *outcome_of(struct resident *r)
{
	struct tos_value *m = tos_map(), *b = NULL;

	tos_decode(r->briefcase.p, r->briefcase.n, (size_t)512 << 20, &b);
	tos_set(m, "briefcase", b ? b : tos_map());
	tos_set(m, "trail", tos_value_copy(lines_all(&r->trail)));
	tos_set(m, "log", tos_value_copy(lines_all(&r->log)));
	tos_set(m, "fault", r->fault ? tos_value_copy(r->fault) : tos_nil());
	if (r->n_made)
		tos_set(m, "clones", tos_int((int64_t)r->n_made));
	return m;
}

bool home_outcome_known(const struct home_record *h)
{
	return shell_ended(h->state) || h->state == SHELL_FAULTED;
}

void home_state(struct kernel *k, struct home_record *h, enum shell_state state)
{
	struct tos_value *ev;

	if (h->state == state)
		return;
	h->state = state;
	h->since_ms = clock_wall_ms();
	ev = tos_map();
	tos_set(ev, "name", tos_text(h->name));
	tos_set(ev, "kind", tos_text("state"));
	tos_set(ev, "state", tos_text(shell_state_word(state)));
	tos_set(ev, "kernel", tos_text(h->kernel));
	tos_set(ev, "wall", tos_int(h->since_ms));
	watch_event(k, h->name, ev);
}

void home_outcome(struct kernel *k, struct home_record *h, enum shell_state state,
	struct tos_value *outcome)
{
	if (outcome) {
		tos_value_free(h->outcome);
		h->outcome = outcome;
	}
	tos_value_free(h->fault);
	h->fault = NULL;
	h->in_doubt = h->command_due = false;
	h->ended_ms = clock_wall_ms();
	snprintf(h->kernel, sizeof(h->kernel), "%s", k->config.name);
	place_forget(k, h->name);
	home_state(k, h, state);
	metric_add(k->metrics, "outcomes_total", NULL, 1);
	log_info("carrier ended", KV_STR("carrier", h->name),
		KV_STR("state", shell_state_word(state)));
	waiters_tell(h);
}

void home_close(struct home_record *h, enum shell_state state, struct tos_value *outcome)
{
	h->closing = true;
	h->end_state = state;
	h->end_outcome = outcome;
	h->end_ms = clock_wall_ms();
}

void home_end(struct kernel *k, struct home_record *h, int rc)
{
	struct tos_value *outcome = STEAL(h->end_outcome);

	h->closing = false;
	if (rc == 0 && !shell_ended(h->state)) {
		home_outcome(k, h, h->end_state, outcome);
		h->ended_ms = h->since_ms = h->end_ms; /* as the row says */
	} else {
		tos_value_free(outcome);
		home_save_due(h); /* another row may have said that it had ended */
	}
}

void home_fault(struct home_record *h, const struct tos_value *args)
{
	struct tos_value *o = tos_map();
	static const char *const parts[] = { "briefcase", "trail", "log", "fault", "clones" };

	tos_value_free(h->fault);
	h->fault = tos_value_copy(tos_get(args, "fault"));
	for (size_t i = 0; i < ARRAY_LEN(parts); i++)
		if (tos_get(args, parts[i]))
			tos_set(o, parts[i], tos_value_copy(tos_get(args, parts[i])));
	tos_value_free(h->outcome);
	h->outcome = o;
}

struct lost {
	struct kernel *k;
	char name[NAME_BYTES_MAX + 1];
};

static void lost_saved(void *arg, int rc, const struct errmsg *em)
{
	AUTOFREE struct lost *s = arg;
	struct home_record *h = map_find_str(s->k->homes, s->name);

	(void)em;
	if (h)
		home_end(s->k, h, rc); /* if not, the tick settles it anew */
}

/* No copy is left anywhere that the home could hear of. Nobody is told before it is durable: a
 * holder that hears of it ends its copy. */
void home_lost(struct kernel *k, struct home_record *h, const char *text)
{
	struct tos_value *o = tos_map(), *fault = tos_map();
	bool killed = strcmp(h->wanted, "killed") == 0;
	struct lost *s;
	struct store_txn *t;
	int rc;

	tos_set(fault, "code", tos_text(killed ? "killed" : "lost"));
	tos_set(fault, "text", tos_text(text));
	tos_set(fault, "kernel", tos_text(h->kernel));
	tos_set(o, "fault", fault);
	if (home_busy(h)) {
		tos_value_free(o);
		return;
	}
	home_close(h, killed ? SHELL_KILLED : SHELL_LOST, o);
	s = mem_new(struct lost);
	s->k = k;
	snprintf(s->name, sizeof(s->name), "%s", h->name);
	t = store_begin(k->store);
	home_put(t, h);
	FAULT_AT(HOME_COMMIT);
	rc = store_commit(t, lost_saved, s);
	if (rc < 0)
		lost_saved(s, rc, NULL);
}
