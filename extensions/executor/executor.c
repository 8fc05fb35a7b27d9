/*
 * Executor: runs programs for carriers. It decides what carriers may say and hear: which program of
 * several fits this machine, what becomes of the output (captured up to a bound, posted to an inbox
 * of the carrier, or read by it), who waits for an end, whose handle it is. The programs themselves
 * are the kernel's, behind its inbox Programs, which checks policy and limits.
 *
 * A program that the carrier does not outlive is forgotten with it; one that stays is found again
 * by its name, also after a restart of the kernel.
 *
 * This file is the inbox, and the questions to the kernel that it passes on.
 */
#include "executor.h"

#include <sys/utsname.h>

#define READ_MS 60000
#define STOP_S  5

struct tos_value *one(struct tos_value *v)
{
	struct tos_value *list = tos_array();

	tos_push(list, v);
	return list;
}

void reply(struct tos_ext *x, uint64_t token, struct tos_value *v)
{
	if (token)
		tos_reply(x, token, "ok", one(v));
	else
		tos_value_free(v);
}

void refuse(struct tos_ext *x, uint64_t token, int rc, const char *text)
{
	if (token)
		tos_fail(x, token, rc, text);
}

static bool is_of(const struct terms *t, const struct tos_message *m)
{
	const char *owner = tos_get_text(m->info, "owner", "");

	return strcmp(t->carrier, m->sender) == 0 ||
	       (t->stays && owner[0] && strcmp(t->owner, owner) == 0);
}

void ask_free(struct ask *a)
{
	*a->at = a->next;
	if (a->next)
		a->next->at = a->at;
	free(a->text);
	free(a);
}

void ask_reply(struct tos_ext *x, struct ask *a, struct tos_value *v)
{
	reply(x, a->token, v);
	ask_free(a);
}

void ask_refuse(struct tos_ext *x, struct ask *a, int rc, const char *text)
{
	refuse(x, a->token, rc, text);
	ask_free(a);
}

/* The kernel's answer is the carrier's. */
static void on_passed(struct tos_ext *x, void *arg, int rc, const char *text,
	const char *folder, const struct tos_value *elements)
{
	struct ask *a = arg;

	(void)folder;
	if (rc < 0)
		ask_refuse(x, a, rc, text);
	else
		ask_reply(x, a, tos_value_copy(tos_at(elements, 0)));
}

struct ask *ask_new(struct tos_ext *x, const struct tos_message *m)
{
	struct executor *e = tos_data(x);
	struct ask *a = calloc(1, sizeof(*a));

	if (!a) {
		refuse(x, m->token, TOS_ERR_NOMEM, "out of memory");
		return NULL;
	}
	a->at = &e->asks;
	a->next = e->asks;
	if (a->next)
		a->next->at = &a->next;
	e->asks = a;
	a->token = m->token;
	a->until_ms = tos_now_ms(x) + m->deadline_ms;
	snprintf(a->terms.carrier, sizeof(a->terms.carrier), "%s", m->sender);
	snprintf(a->terms.owner, sizeof(a->terms.owner), "%s",
		tos_get_text(m->info, "owner", ""));
	return a;
}

void kernel_ask(struct tos_ext *x, struct ask *a, const char *verb, struct tos_value *args,
	tos_answer_fn *done)
{
	int rc;

	tos_set(args, "for", tos_text(a->terms.carrier));
	rc = tos_call(x, "Programs", verb, one(args), READ_MS, done, a);
	if (rc < 0)
		ask_refuse(x, a, rc, "the kernel takes no more calls");
}

static void pass(struct tos_ext *x, const struct tos_message *m, const char *verb,
	const struct tos_value *args)
{
	struct ask *a = ask_new(x, m);

	if (a)
		kernel_ask(x, a, verb,
			tos_type(args) == TOS_MAP ? tos_value_copy(args) : tos_map(),
			on_passed);
}

/* A named action of the host's: the kernel has tosd run it, and answers when it has ended. */
static void action(struct tos_ext *x, const struct tos_message *m, const struct tos_value *args)
{
	struct tos_value *to = tos_type(args) == TOS_MAP ? tos_value_copy(args) : tos_map();
	struct ask *a = ask_new(x, m);

	if (!a) {
		tos_value_free(to);
		return;
	}
	tos_set(to, "for", tos_text(a->terms.carrier));
	if (tos_call(x, "Programs", "ACTION", one(to),
		    m->deadline_ms ? m->deadline_ms : READ_MS, on_passed, a) < 0)
		ask_refuse(x, a, TOS_ERR_FULL, "the kernel takes no more calls");
}

static struct job *job_asked(
	struct tos_ext *x, const struct tos_message *m, const struct tos_value *args)
{
	struct job *j = job_find(x, tos_get_text(args, "handle", ""));

	return j && is_of(job_terms(j), m) ? j : NULL;
}

/* A handle that is not here may be unknown to us only: the kernel says what it is, or why not. */
static void wait_verb(
	struct tos_ext *x, const struct tos_message *m, const struct tos_value *args)
{
	struct job *j = job_asked(x, m, args);

	if (j && job_terms(j)->mode == READ)
		refuse(x, m->token, TOS_ERR_USAGE,
			"who reads a program's output reads its end, too");
	else if (j)
		job_wait(j, m->token, tos_now_ms(x) + m->deadline_ms);
	else
		pass(x, m, "STATUS", args);
}

static void on_stopping(struct tos_ext *x, void *arg, int rc, const char *text,
	const char *folder, const struct tos_value *elements)
{
	struct ask *a = arg;
	struct job *j = job_find(x, a->handle);

	(void)folder;
	(void)elements;
	if (rc < 0 && !(j && job_ended(j)))
		refuse(x, a->token, rc, text);
	else if (j && job_terms(j)->mode != READ)
		job_wait(j, a->token, a->until_ms);
	else
		reply(x, a->token, tos_map());
	ask_free(a);
}

/* SIGTERM now, SIGKILL when its time is up; answered when it has ended. */
static void stop_verb(
	struct tos_ext *x, const struct tos_message *m, const struct tos_value *args)
{
	struct ask *a = ask_new(x, m);
	double after = tos_as_float(tos_get(args, "after"), STOP_S);
	struct tos_value *to;

	if (!a)
		return;
	if (!(after >= 0) || after > 3600) {
		ask_refuse(x, a, TOS_ERR_USAGE, "after is a number of seconds, at most 3600");
		return;
	}
	snprintf(a->handle, sizeof(a->handle), "%s", tos_get_text(args, "handle", ""));
	to = tos_map();
	tos_set(to, "handle", tos_text(a->handle));
	tos_set(to, "signal", tos_text("TERM"));
	tos_set(to, "kill_ms", tos_int((int64_t)(after * 1000) + 1));
	kernel_ask(x, a, "SIGNAL", to, on_stopping);
}

static void on_output(struct tos_ext *x, void *arg, int rc, const char *text,
	const char *folder, const struct tos_value *elements)
{
	static const char *const names[2] = { "stdout", "stderr" };
	struct ask *a = arg;
	const struct tos_value *m = tos_at(elements, 0), *list = tos_get(m, "output");
	struct capture c[2] = { { .most = CAPTURE_MAX }, { .most = CAPTURE_MAX } };
	struct tos_value *to;
	struct job *j = job_find(x, a->handle);

	(void)folder;
	if (rc < 0) {
		ask_refuse(x, a, rc, text);
		return;
	}
	to = tos_map();
	for (size_t i = 0; i < tos_len(list); i++) {
		size_t n;
		const uint8_t *p = tos_as_bytes(tos_at(tos_at(list, i), 1), &n);

		capture_add(&c[tos_as_int(tos_at(tos_at(list, i), 0), 1) == 2], p, n);
	}
	for (int i = 0; i < 2; i++) {
		if (c[i].total)
			tos_set(to, names[i], capture_value(&c[i]));
		capture_free(&c[i]);
	}
	if (tos_get(m, "ended"))
		tos_set(to, "ended", tos_value_copy(tos_get(m, "ended")));
	reply(x, a->token, to);
	if (j && tos_get(m, "ended"))
		job_end_read(j, tos_get(m, "ended"));
	ask_free(a);
}

/* The next of what it wrote; waits for it. */
static void read_verb(
	struct tos_ext *x, const struct tos_message *m, const struct tos_value *args)
{
	struct job *j = job_asked(x, m, args);
	struct tos_value *to;
	struct ask *a;

	if (!j || job_terms(j)->mode != READ) {
		refuse(x, m->token, j ? TOS_ERR_USAGE : TOS_ERR_NOT_FOUND,
			j ? "run it with output = \"read\" to read what it writes"
			  : "you have no program of that handle here");
		return;
	}
	a = ask_new(x, m);
	if (!a)
		return;
	snprintf(a->handle, sizeof(a->handle), "%s", tos_get_text(args, "handle", ""));
	to = tos_map();
	tos_set(to, "handle", tos_text(a->handle));
	if (tos_call(x, "Programs", "READ", one(to), m->deadline_ms, on_output, a) < 0)
		ask_refuse(x, a, TOS_ERR_FULL, "the kernel takes no more calls");
}

/* What needs no handle, which only its carrier knows. */
static bool is_local(const char *verb)
{
	return strcmp(verb, "RUN") == 0 || strcmp(verb, "LIST") == 0 ||
	       strcmp(verb, "ACTION") == 0;
}

static void answer(struct tos_ext *x, const struct tos_message *m)
{
	const struct tos_value *first = tos_at(m->elements, 0);
	bool named = tos_type(first) == TOS_TEXT;
	const char *verb = named ? tos_as_text(first, "") : m->folder;
	const struct tos_value *args = named ? tos_at(m->elements, 1) : first;

	/* The kernel goes by the carrier's name: another kernel that had it once may still speak for
	 * it, and would start programs with the rights of the one that is here. */
	if (tos_get_text(m->info, "kernel", "")[0] && is_local(verb))
		refuse(x, m->token, TOS_ERR_DENIED,
			"a carrier runs programs where it is; go there first");
	else if (strcmp(verb, "KEPT") == 0 && !m->sender[0])
		run_kept(x, args);
	else if (strcmp(verb, "RUN") == 0)
		run_verb(x, m, args);
	else if (strcmp(verb, "WAIT") == 0)
		wait_verb(x, m, args);
	else if (strcmp(verb, "READ") == 0)
		read_verb(x, m, args);
	else if (strcmp(verb, "STOP") == 0)
		stop_verb(x, m, args);
	else if (strcmp(verb, "ACTION") == 0)
		action(x, m, args);
	else if (strcmp(verb, "SIGNAL") == 0 || strcmp(verb, "STATUS") == 0 ||
		 strcmp(verb, "WRITE") == 0 || strcmp(verb, "LIST") == 0)
		pass(x, m, verb, args);
	else
		refuse(x, m->token, TOS_ERR_MALFORMED,
			"Executor knows RUN, WAIT, READ, WRITE, SIGNAL, STOP, STATUS, LIST and ACTION");
}

static void wake(struct tos_ext *x, struct tos_inbox *in)
{
	struct tos_message m;

	while (tos_inbox_next(in, &m))
		answer(x, &m);
	jobs_trim(tos_data(x));
}

static int start(struct tos_ext *x)
{
	struct executor *e = calloc(1, sizeof(*e));
	struct utsname u;

	if (!e)
		return TOS_ERR_NOMEM;
	if (uname(&u) == 0)
		snprintf(e->machine, sizeof(e->machine), "%.64s", u.machine);
	tos_set_data(x, e);
	return 0;
}

static void stop(struct tos_ext *x)
{
	struct executor *e = tos_data(x);

	jobs_free(e);
	while (e->asks)
		ask_free(e->asks);
	free(e);
}

static const struct tos_inbox_spec inboxes[] = {
	{ .name = "Executor",
		.doc = "runs programs in sandboxes, for carriers",
		.wake = wake,
		.wait_ms = 60000,
		.protocol =
			"a call with elements VERB and a table\n"
			"RUN {program, args, env, stdin, input, limits, output, by, capture, wait, "
			"stay,\n"
			"name, network} -> {handle, pid, ...}, or with wait its end; with dry it is\n"
			"only looked at whether it may and can be run: {program, digest, ...}\n"
			"WAIT {handle} -> {code or signal, cause, stdout, stderr, stdout_cut, "
			"stderr_cut,\n"
			"cpu_ms, peak_bytes, ran_ms}\n"
			"READ {handle} -> {stdout, stderr, ended}\n"
			"WRITE {handle, data, close}, SIGNAL {handle, signal}\n"
			"STOP {handle, after} -> its end: SIGTERM, then SIGKILL after so many s\n"
			"STATUS {handle}, LIST -> {programs}\n"
			"ACTION {name, args, dry} -> {code or signal, cause, stdout, stderr, ...}: a named\n"
			"action of the host's, which policy grants by its name" },
	{ 0 },
};

const struct tos_extension tos_extension = {
	TOS_ABI,
	.name = "executor",
	.doc = "Runs programs in sandboxes, for carriers.",
	.inboxes = inboxes,
	.start = start,
	.stop = stop,
};
