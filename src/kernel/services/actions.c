/*
 * Named actions, as tos-kernel sees them: who may ask for which, with what values, and who waits. It
 * asks tosd, which runs them by its own table; what is checked here is checked for the carrier's sake,
 * who gets a reason, and for policy, which is the kernel's. See actions.h.
 */
#include "kernel/services/actions.h"

#include <string.h>
#include <sys/wait.h>

#include "base/clock.h"
#include "base/log.h"
#include "ipc/action.h"
#include "kernel/carrier/resident.h"
#include "kernel/services/programs.h"

#define CARRIER_MAX         4  /* that one carrier may have asked for at once */
#define REFUSALS_TOLD_PER_S 50 /* in log and audit; all are counted */

struct pending {
	struct list node;
	struct request *rq; /* NULL: nobody waits any more, but tosd has not told */
	uint64_t slot;
	char name[TOSD_NAME_BYTES];
	char carrier[NAME_BYTES_MAX + 1], owner[CERT_NAME_MAX + 1];
};

static struct list pendings; /* of this process's one kernel */
static size_t n_pending;

void actions_init(void)
{
	list_init(&pendings);
}

static struct tos_value *audit_row(const struct pending *p)
{
	struct tos_value *m = tos_map();

	tos_set(m, "carrier", tos_text(p->carrier));
	tos_set(m, "owner", tos_text(p->owner));
	tos_set(m, "action", tos_text(p->name));
	return m;
}

static void count(struct kernel *k, const char *metric, const char *label, const char *word)
{
	char text[96];

	snprintf(text, sizeof(text), "%s=\"%s\"", label, word);
	metric_add(k->metrics, metric, text, 1);
}

static void refuse(
	struct kernel *k, const struct pending *p, struct request *rq, int rc, const char *text)
{
	static struct log_rate rate;

	count(k, "actions_refused_total", "code", err_word(rc));
	if (log_rate_ok(&rate, REFUSALS_TOLD_PER_S)) {
		struct tos_value *m = audit_row(p);

		tos_set(m, "code", tos_text(err_word(rc)));
		tos_set(m, "text", tos_text(text));
		audit_event(k, kernel_lazy(k), "action-refused", m);
		log_notice("an action was refused", KV_STR("carrier", p->carrier),
			KV_STR("reason", text));
	}
	if (rq)
		request_fail(rq, rc, "%s", text);
}

/* ---- asking */

static int value_read(const struct tos_value *v, char out[TOSD_ACTION_VALUE])
{
	const char *text = tos_as_text(v, NULL);
	char number[32];

	if (tos_type(v) == TOS_INT) {
		snprintf(number, sizeof(number), "%lld", (long long)tos_as_int(v, 0));
		text = number;
	}
	if (!text || strlen(text) >= TOSD_ACTION_VALUE)
		return ERR_USAGE;
	memcpy(out, text, strlen(text) + 1);
	return 0;
}

/* By name; each of them, and no others. */
static int values_read(const struct tosd_action *a, const struct tos_value *args,
	struct tosd_action_ask *m, struct errmsg *em)
{
	if (args && tos_type(args) != TOS_MAP && tos_len(args) > 0)
		return err_set(em, ERR_USAGE, "args is a table of arguments by name");
	for (uint32_t i = 0; i < a->n_args; i++) {
		const char *name = a->arg[i].name;
		const struct tos_value *v = tos_get(args, name);
		char kept[TOSD_ACTION_VALUE];
		struct errmsg why = { "" };

		if (!v)
			return err_set(em, ERR_USAGE, "action %s needs the argument %s, %s",
				a->name, name, action_kind_word(a->arg[i].kind));
		if (value_read(v, m->value[i]) < 0)
			return err_set(em, ERR_USAGE,
				"argument %s of action %s is no text, or too long", name,
				a->name);
		if (action_value(a->arg[i].kind, m->value[i], kept, &why) < 0)
			return err_set(em, ERR_USAGE, "argument %s of action %s: %s", name,
				a->name, why.text);
	}
	m->n_values = a->n_args;
	for (size_t i = 0; tos_type(args) == TOS_MAP && i < tos_len(args); i++) {
		const char *name = tos_as_text(tos_key_at(args, i), "?");
		uint32_t at = 0;

		while (at < a->n_args && strcmp(a->arg[at].name, name) != 0)
			at++;
		if (at == a->n_args)
			return err_set(em, ERR_USAGE, "action %s has no argument %.64s",
				a->name, name);
	}
	return 0;
}

static int room_check(const struct pending *p, struct errmsg *em)
{
	size_t own = 0;

	for (struct list *at = pendings.next; at != &pendings; at = at->next)
		own += strcmp(LIST_ITEM(at, struct pending, node)->carrier, p->carrier) == 0;
	if (own >= CARRIER_MAX)
		return err_set(
			em, ERR_LIMIT, "%s has %d actions under way", p->carrier, CARRIER_MAX);
	if (n_pending >= TOSD_ACTIONS_ASKED)
		return err_set(em, ERR_FULL, "%d actions are under way at this host",
			TOSD_ACTIONS_ASKED);
	return 0;
}

static void audit_asked(struct kernel *k, const struct pending *p, const struct tosd_action *a,
	const struct tosd_action_ask *m)
{
	struct tos_value *row = audit_row(p), *args = tos_map();

	for (uint32_t i = 0; i < a->n_args; i++)
		tos_set(args, a->arg[i].name, tos_text(m->value[i]));
	tos_set(row, "args", args);
	audit_event(k, kernel_lazy(k), "action-run", row);
	log_notice(
		"an action is run", KV_STR("carrier", p->carrier), KV_STR("action", p->name));
}

/* Policy first: who may not run it does not learn whether it is there. */
static int ask(struct kernel *k, const struct origin *from, struct request *rq,
	struct pending *p, struct errmsg *em)
{
	struct tosd_action_ask m = { .head = { TOSD_MSG_VERSION, TOSD_ACTION_ASK, sizeof(m) } };
	const struct tosd_action *a;
	int64_t within = rq->deadline_at_ms - clock_ms();
	int rc = kernel_allowed(k, from, "action", p->name, "", em);

	if (rc < 0)
		return rc;
	a = action_find(k->config.actions, k->config.n_actions, p->name);
	if (!a)
		return err_set(
			em, ERR_NOT_FOUND, "%s has no action %s", k->config.name, p->name);
	rc = values_read(a, tos_get(rq->args, "args"), &m, em);
	if (rc == 0)
		rc = room_check(p, em);
	if (rc == 0 && admission_closed(k, em))
		rc = ERR_STORE;
	if (rc < 0 || tos_get_bool(rq->args, "dry", false))
		return rc;
	p->slot = m.slot = ++k->next_slot;
	m.within_ms = within > 0 ? (uint32_t)within : 1;
	memcpy(m.name, p->name, sizeof(m.name));
	rc = tosd_send(k, &m, sizeof(m), -1);
	if (rc == 0)
		audit_asked(k, p, a, &m);
	return rc;
}

void action_verb(struct kernel *k, struct request *rq)
{
	struct pending *p = mem_new(struct pending);
	struct errmsg em = { "" };
	struct resident *r = NULL;
	struct origin from;
	int rc = program_starter(k, rq->args, &from, &r, &em);

	snprintf(p->name, sizeof(p->name), "%.63s", tos_get_text(rq->args, "name", ""));
	snprintf(p->carrier, sizeof(p->carrier), "%s", from.name);
	snprintf(p->owner, sizeof(p->owner), "%s", from.principal);
	if (rc == 0)
		rc = ask(k, &from, rq, p, &em);
	if (rc < 0) {
		refuse(k, p, rq, rc, err_show(rc, &em));
		free(p);
	} else if (!p->slot) {
		struct tos_value *m = tos_map();

		tos_set(m, "action", tos_text(p->name));
		request_ok(rq, m);
		free(p);
	} else {
		p->rq = rq;
		list_add(&pendings, &p->node);
		metric_set(k->metrics, "actions_running", NULL, (double)++n_pending);
	}
}

/* ---- how it ended */

static void output_set(struct tos_value *m, const struct tosd_action_ended *e, int which,
	const char *name, const char *cut)
{
	size_t n = e->n[which] < TOSD_ACTION_OUTPUT ? e->n[which] : TOSD_ACTION_OUTPUT;
	struct tos_value *text = tos_text_n(e->output[which], n);

	tos_set(m, name, text ? text : tos_bytes(e->output[which], n));
	tos_set(m, cut, tos_int((int64_t)e->cut[which]));
}

static struct tos_value *result(
	const struct pending *p, const struct tosd_action_ended *e, bool output)
{
	struct tos_value *m = tos_map();
	bool exited = WIFEXITED(e->status);

	tos_set(m, "action", tos_text(p->name));
	tos_set(m, "cause", tos_text(e->timed_out ? "wall" : exited ? "exited" : "signalled"));
	tos_set(m, exited ? "code" : "signal",
		tos_int(exited ? WEXITSTATUS(e->status) : WTERMSIG(e->status)));
	tos_set(m, "ran_ms", tos_int(e->ran_ms));
	if (output) {
		output_set(m, e, 0, "stdout", "stdout_cut");
		output_set(m, e, 1, "stderr", "stderr_cut");
	}
	return m;
}

static void told(struct kernel *k, struct pending *p, const struct tosd_action_ended *e)
{
	struct tos_value *m = result(p, e, false);

	tos_set(m, "carrier", tos_text(p->carrier));
	tos_set(m, "owner", tos_text(p->owner));
	count(k, "actions_total", "cause", tos_get_text(m, "cause", ""));
	log_notice("an action has ended", KV_STR("carrier", p->carrier),
		KV_STR("action", p->name), KV_STR("cause", tos_get_text(m, "cause", "")),
		KV_INT("ran_ms", e->ran_ms));
	audit_event(k, kernel_lazy(k), "action-ended", m);
	if (p->rq)
		request_ok(p->rq, result(p, e, true));
}

void action_ended(struct kernel *k, const struct tosd_action_ended *e)
{
	char text[TOSD_TEXT_BYTES];

	for (struct list *at = pendings.next; at != &pendings; at = at->next) {
		struct pending *p = LIST_ITEM(at, struct pending, node);

		if (p->slot != e->slot)
			continue;
		list_del(&p->node);
		metric_set(k->metrics, "actions_running", NULL, (double)--n_pending);
		snprintf(text, sizeof(text), "%.*s", (int)sizeof(e->text) - 1, e->text);
		if (e->rc < 0)
			refuse(k, p, p->rq, e->rc, text);
		else
			told(k, p, e);
		free(p);
		return;
	}
}

/* Who asked gets an answer in time; what runs goes on, and is still counted. */
void actions_tick(int64_t now_ms)
{
	for (struct list *at = pendings.next; at != &pendings; at = at->next) {
		struct pending *p = LIST_ITEM(at, struct pending, node);

		if (p->rq && now_ms >= p->rq->deadline_at_ms)
			request_fail(STEAL(p->rq), ERR_TIMEOUT,
				"action %s has not ended in the time that was given to it; it "
				"goes on",
				p->name);
	}
}

/* ---- for people */

static struct tos_value *row(const struct tosd_action *a)
{
	struct tos_value *m = tos_map(), *args = tos_array(), *run = tos_array();
	const char *word = a->text;

	for (uint32_t i = 0; i < a->n_args; i++) {
		struct tos_value *arg = tos_map();

		tos_set(arg, "name", tos_text(a->arg[i].name));
		tos_set(arg, "kind", tos_text(action_kind_word(a->arg[i].kind)));
		tos_push(args, arg);
	}
	for (uint32_t i = 0; i < a->n_words; i++, word += strlen(word) + 1)
		tos_push(run, tos_text(word));
	tos_set(m, "name", tos_text(a->name));
	tos_set(m, "args", args);
	tos_set(m, "run", run);
	tos_set(m, "timeout_ms", tos_int(a->timeout_ms));
	return m;
}

void actions_list_verb(struct kernel *k, struct request *rq)
{
	struct tos_value *m, *list;

	if (control_may_read(k, rq) < 0)
		return;
	m = tos_map();
	list = tos_array();
	for (size_t i = 0; i < k->config.n_actions; i++)
		tos_push(list, row(&k->config.actions[i]));
	tos_set(m, "actions", list);
	request_ok(rq, m);
}
