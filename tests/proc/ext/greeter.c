/* An extension that tests install, replace and lose. What it is made of says the compiler's command line: RELEASE,
 * INBOX, PRIVILEGES, ABI_MINOR, START (what start() returns), CRASH, LARGE (bytes). Folders posted to it: "version",
 * "proc" (can it see processes?), "keep" (never answered), "slow" (answered after 300 ms), "hang", "forge" (an audit
 * row), "leave" (it takes nothing more), "crash", and "count" (how many other folders came); "note" NUMBER is counted. */
#include <tos/extension.h>
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#ifndef PRIVILEGES
#define PRIVILEGES NULL
#endif
#ifndef START
#define START 0
#endif
#ifndef ABI_MINOR
#define ABI_MINOR TOS_ABI_MINOR
#endif
#ifdef LARGE
static char large[LARGE] = { 1 };
#endif

static int64_t n_folders;

static void answer(struct tos_ext *x, uint64_t token, struct tos_value *v)
{
	struct tos_value *a = tos_array();

	tos_push(a, v);
	if (token)
		tos_reply(x, token, "ok", a);
	else
		tos_value_free(a);
}

static const char *sees_processes(void)
{
	DIR *d = opendir("/proc");
	int n = 0;

	while (d && readdir(d))
		n++;
	if (d)
		closedir(d);
	return n > 3 ? "yes" : "no";
}

static void late(struct tos_ext *x, void *arg)
{
	uint64_t *token = arg;

	answer(x, *token, tos_text(RELEASE));
	free(token);
}

static void slow(struct tos_ext *x, uint64_t token)
{
	uint64_t *t = malloc(sizeof(*t));

	*t = token;
	tos_timer(x, 300, late, t);
}

/* Counted, across all versions; and does each sender's number grow? */
static void note(struct tos_ext *x, const struct tos_message *m)
{
	static struct sender {
		char name[80];
		int64_t last;
	} senders[128];
	int64_t n = tos_as_int(tos_at(m->elements, 1), 0);
	struct sender *s = senders;

	while (s->name[0] && strcmp(s->name, m->sender) != 0 && s < senders + 127)
		s++;
	snprintf(s->name, sizeof(s->name), "%s", m->sender);
	tos_count(x, "notes", 1);
	if (n <= s->last)
		tos_count(x, "disorder", 1);
	s->last = n;
}

/* An audit row that looks like one of the kernel's. */
static void forge(struct tos_ext *x)
{
	struct tos_value *m = tos_map();

	tos_set(m, "by", tos_text("admin"));
	tos_set(m, "act", tos_text("revoke"));
	tos_audit(x, "act", m);
}

static void wake(struct tos_ext *x, struct tos_inbox *in)
{
	static bool leave;
	struct tos_message m;

	while (!leave && tos_inbox_next(in, &m)) {
		const char *what = tos_as_text(tos_at(m.elements, 0), "");

		if (strcmp(what, "version") == 0)
			answer(x, m.token, tos_text(RELEASE));
		else if (strcmp(what, "proc") == 0)
			answer(x, m.token, tos_text(sees_processes()));
		else if (strcmp(what, "slow") == 0)
			slow(x, m.token);
		else if (strcmp(what, "count") == 0)
			answer(x, m.token, tos_int(n_folders));
		else if (strcmp(what, "note") == 0)
			note(x, &m);
		else if (strcmp(what, "hang") == 0)
			sleep(3600);
		else if (strcmp(what, "crash") == 0)
			abort();
		else if (strcmp(what, "forge") == 0)
			forge(x);
		else if (strcmp(what, "leave") == 0)
			leave = true;
		else if (strcmp(what, "keep") != 0 && ++n_folders)
			answer(x, m.token, tos_text(RELEASE));
	}
}

static int start(struct tos_ext *x)
{
	(void)x;
#ifdef LARGE
	n_folders = large[0] - 1;
#endif
#ifdef HANG
	sleep(3600);
#endif
#ifdef CRASH
	abort();
#endif
	return START;
}

static const struct tos_inbox_spec inboxes[] = { { .name = INBOX, .wake = wake }, { 0 } };

const struct tos_extension tos_extension = { (uint32_t)sizeof(struct tos_extension),
	TOS_ABI_MAJOR, ABI_MINOR, .name = "greeter", .doc = "A service of a test.",
	.inboxes = inboxes, .privileges = PRIVILEGES, .start = start };
