/* An extension that does what the test of its host asks for; other modules are built of it by
 * macros. */
#include <tos/extension.h>

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int depth; /* to see that nothing calls us from within our own calls */

static void enter(void)
{
	if (++depth != 1)
		abort();
}

static void on_answer(struct tos_ext *x, void *arg, int rc, const char *text,
	const char *folder, const struct tos_value *elements)
{
	uint64_t token = (uint64_t)(uintptr_t)arg;
	struct tos_value *v = tos_array();

	enter();
	tos_push(v, tos_int(rc));
	tos_push(v, tos_text(rc ? text : folder));
	tos_push(v, tos_int((int64_t)tos_len(elements)));
	tos_reply(x, token, "answered", v);
	depth--;
}

static void on_timer(struct tos_ext *x, void *arg)
{
	enter();
	tos_reply(x, (uint64_t)(uintptr_t)arg, "fired", NULL);
	depth--;
}

static void on_late(struct tos_ext *x, void *arg)
{
	char line[64];

	snprintf(
		line, sizeof(line), "%d", tos_reply(x, (uint64_t)(uintptr_t)arg, "late", NULL));
	tos_property_set(x, "late", line);
}

static void obey(struct tos_ext *x, const struct tos_message *m)
{
	const struct tos_value *first = tos_at(m->elements, 0);
	const char *text = tos_as_text(first, "");

	if (strcmp(m->folder, "echo") == 0)
		tos_reply(x, m->token, m->sender, tos_value_copy(m->elements));
	else if (strcmp(m->folder, "fail") == 0)
		tos_fail(x, m->token, -30, text);
	else if (strcmp(m->folder, "call") == 0) {
		int rc = tos_call(
			x, text, "asked", NULL, 200, on_answer, (void *)(uintptr_t)m->token);

		if (rc < 0)
			tos_fail(x, m->token, rc, "at once");
	} else if (strcmp(m->folder, "post") == 0)
		tos_post(x, text, "posted", tos_value_copy(m->elements));
	else if (strcmp(m->folder, "timer") == 0) {
		struct tos_timer *stopped = tos_timer(x, 1, on_late, NULL);

		tos_timer_stop(x, stopped);
		tos_timer(x, 20, on_timer, (void *)(uintptr_t)m->token);
	} else if (strcmp(m->folder, "late") == 0)
		tos_timer(x, (uint32_t)tos_as_int(first, 0), on_late,
			(void *)(uintptr_t)m->token);
	else if (strcmp(m->folder, "property") == 0)
		tos_reply(x, m->token, tos_property(x, text), NULL);
	else if (strcmp(m->folder, "kernel") == 0)
		tos_reply(x, m->token, tos_kernel_name(x), NULL);
	else if (strcmp(m->folder, "crash") == 0)
		raise(SIGKILL);
	else if (strcmp(m->folder, "twice") == 0) {
		tos_reply(x, m->token, "first", NULL);
		tos_fail(x, m->token, -30, "second");
	} else if (strcmp(m->folder, "garbage") == 0) {
		if (write(3, text, tos_len(first)) < 0)
			abort();
	} else if (strcmp(m->folder, "class") == 0)
		tos_reply(x, m->token, tos_get_text(m->info, "class", "none"), NULL);
	tos_count(x, "obeyed", 1);
	tos_count(x, "No good name", 1);
	tos_log(x, 0, "obeyed");
}

static void wake(struct tos_ext *x, struct tos_inbox *in)
{
	struct tos_message m;

	enter();
	while (tos_inbox_next(in, &m))
		obey(x, &m);
	depth--;
}

/* Takes nothing until told: shows the bound. */
static void wake_slow(struct tos_ext *x, struct tos_inbox *in)
{
	struct tos_message m;

	enter();
	if (tos_inbox_size(in) >= 3)
		while (tos_inbox_next(in, &m))
			tos_reply(x, m.token, "slow", NULL);
	depth--;
}

static void wake_clock(struct tos_ext *x, struct tos_inbox *in)
{
	enter();
	if (tos_inbox_size(in) == 0)
		tos_count(x, "waited", 1);
	depth--;
}

static int start(struct tos_ext *x)
{
	tos_post(x, "Somebody", "started", NULL);
#ifdef PROBE_FAILS
	return -11;
#else
	return tos_property_set(x, "late", "-") ? -1 : 0;
#endif
}

static const struct tos_inbox_spec inboxes[] = {
	{ "Probe", "does as told", wake, 0, 0, 0, "" },
	{ "Closed", "of extensions", wake, TOS_INBOX_EXTENSIONS_ONLY, 0, 0, NULL },
	{ "Slow", "takes three at a time", wake_slow, 0, 3, 0, NULL },
	{ "Clock", "wakes by itself", wake_clock, 0, 0, 10, NULL },
#ifdef PROBE_RESERVED
	{ "Shells", "belongs to the kernel", wake, 0, 0, 0, NULL },
#endif
	{ 0 },
};

static const struct tos_property_spec properties[] = {
	{ "pace", "int", "ms", "a number", 1, 100, "10", false },
	{ "late", "text", "", "what a late reply returned", 0, 0, "", true },
	{ 0 },
};

const struct tos_extension tos_extension = {
#ifdef PROBE_MAJOR
	sizeof(struct tos_extension),
	PROBE_MAJOR,
	0,
#elif defined(PROBE_MINOR)
	sizeof(struct tos_extension),
	TOS_ABI_MAJOR,
	PROBE_MINOR,
#elif defined(PROBE_SIZE)
	PROBE_SIZE,
	TOS_ABI_MAJOR,
	TOS_ABI_MINOR,
#else
	TOS_ABI,
#endif
	.name = "probe",
	.doc = "for tests",
	.inboxes = inboxes,
	.properties = properties,
#ifdef PROBE_PRIVILEGED
	.privileges = "read-proc launch-missiles",
#endif
	.start = start,
};
