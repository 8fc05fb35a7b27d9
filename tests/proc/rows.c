/* For test_rows.py: counts what is posted to Count, and looks at carriers before they start
 * here and before they leave: their folders say what it is to do with them. */
#include <tos/extension.h>

#include <stdio.h>
#include <string.h>

#define SENDERS 256

static struct {
	char name[128];
	int64_t count, last, disorder;
} senders[SENDERS];

static void count_one(const struct tos_message *m)
{
	int64_t i = tos_as_int(tos_at(m->elements, 0), 0);

	for (size_t s = 0; s < SENDERS; s++) {
		if (senders[s].name[0] && strcmp(senders[s].name, m->sender) != 0)
			continue;
		snprintf(senders[s].name, sizeof(senders[s].name), "%s", m->sender);
		senders[s].disorder += i != senders[s].last + 1;
		senders[s].last = i;
		senders[s].count++;
		return;
	}
}

static struct tos_value *counted(void)
{
	struct tos_value *all = tos_array(), *map = tos_map();

	for (size_t s = 0; s < SENDERS && senders[s].name[0]; s++) {
		struct tos_value *row = tos_array();

		tos_push(row, tos_int(senders[s].count));
		tos_push(row, tos_int(senders[s].disorder));
		tos_set(map, senders[s].name, row);
	}
	tos_push(all, map);
	return all;
}

static void wake_count(struct tos_ext *x, struct tos_inbox *in)
{
	struct tos_message m;

	while (tos_inbox_next(in, &m)) {
		if (m.token)
			tos_reply(x, m.token, "ok", counted());
		else if (strcmp(m.folder, "tell") == 0)
			tos_post(x, tos_as_text(tos_at(m.elements, 0), ""), "told",
				tos_value_copy(m.elements));
		else
			count_one(&m);
	}
}

/* Takes one folder a second. */
static void wake_slow(struct tos_ext *x, struct tos_inbox *in)
{
	static int64_t before;
	struct tos_message m;

	if (tos_now_ms(x) - before < 1000)
		return;
	before = tos_now_ms(x);
	tos_inbox_next(in, &m);
}

static void wake_closed(struct tos_ext *x, struct tos_inbox *in)
{
	struct tos_message m;

	while (tos_inbox_next(in, &m))
		tos_count(x, "closed", 1);
}

static bool has(const struct tos_value *map, const char *folder)
{
	return tos_get(tos_get(map, "folders"), folder) != NULL;
}

static struct tos_value *path_without_first(const struct tos_value *path)
{
	struct tos_value *out = tos_array();

	for (size_t i = 1; i < tos_len(path); i++)
		tos_push(out, tos_value_copy(tos_at(path, i)));
	return out;
}

/* A mobility of its own kind: the printer in building 7 is host2's, whatever else knows of it. */
static struct tos_value *path_resolved(const struct tos_value *path)
{
	struct tos_value *out = tos_array();

	for (size_t i = 0; i < tos_len(path); i++) {
		const char *entry = tos_as_text(tos_at(path, i), "");

		tos_push(
			out, tos_text(strcmp(entry, "any-printer-in-building-7") == 0 ? "host2"
										      : entry));
	}
	return out;
}

/* By turns, so that not all go to the same host next. */
static struct tos_value *path_balanced(const struct tos_value *path)
{
	static unsigned turn;
	struct tos_value *out = tos_array();
	size_t n = tos_len(path);

	turn++;
	for (size_t i = 0; i < n; i++)
		tos_push(out, tos_value_copy(tos_at(path, turn % 2 ? i : n - 1 - i)));
	return out;
}

/* Folder ADD: another folder is added; RESOLVE, BALANCE: the path is read, or ordered, in another
 * way; REPLACE: its file is replaced; DROP: its path's first
 * entry is dropped. */
static struct tos_value *on_arrival(const struct tos_value *arg)
{
	static const char code[] = "function begin() tos.briefcase.WHO = 'replaced' end";
	struct tos_value *out = tos_map(), *set = tos_map(), *file = tos_map(),
			 *one = tos_array();

	tos_push(one, tos_text("by the host"));
	tos_set(set, "ADDED", one);
	tos_set(file, tos_as_text(tos_at(tos_get(arg, "files"), 0), "?"),
		tos_bytes(code, sizeof(code) - 1));
	if (has(arg, "ADD"))
		tos_set(out, "set", set);
	else
		tos_value_free(set);
	if (has(arg, "REPLACE"))
		tos_set(out, "code", file);
	else
		tos_value_free(file);
	if (has(arg, "RESOLVE"))
		tos_set(out, "path", path_resolved(tos_get(arg, "path")));
	if (has(arg, "BALANCE"))
		tos_set(out, "path", path_balanced(tos_get(arg, "path")));
	if (has(arg, "DROP"))
		tos_set(out, "path", path_without_first(tos_get(arg, "path")));
	return out;
}

/* What this domain does not let out: folder SECRET is taken out, one with STOP stays. */
static struct tos_value *on_departure(const struct tos_value *arg)
{
	struct tos_value *out = tos_map(), *unset = tos_array();

	tos_push(unset, tos_text("SECRET"));
	if (has(arg, "SECRET"))
		tos_set(out, "unset", unset);
	else
		tos_value_free(unset);
	return out;
}

static void wake_gate(struct tos_ext *x, struct tos_inbox *in)
{
	struct tos_message m;

	while (tos_inbox_next(in, &m)) {
		const struct tos_value *arg = tos_at(m.elements, 0);
		bool leaves = strcmp(m.folder, "DEPARTURE") == 0;
		struct tos_value *out;

		if (leaves && has(arg, "STOP")) {
			tos_log(x, 2, "folder STOP stays here");
			tos_fail(x, m.token, -2, "folder STOP stays here");
			continue;
		}
		if (leaves && has(arg, "SECRET"))
			tos_log(x, 2, "folder SECRET is taken out");
		out = tos_array();
		tos_push(out, leaves ? on_departure(arg) : on_arrival(arg));
		tos_reply(x, m.token, "allow", out);
	}
}

static const struct tos_inbox_spec inboxes[] = {
	{ .name = "Count", .doc = "counts by sender", .wake = wake_count, .bound = 65536 },
	{ .name = "Slow",
		.doc = "takes one a second",
		.wake = wake_slow,
		.bound = 100,
		.wait_ms = 1000 },
	{ .name = "Closed",
		.doc = "for extensions",
		.wake = wake_closed,
		.flags = TOS_INBOX_EXTENSIONS_ONLY },
	{ .name = "Gate",
		.doc = "looks at carriers",
		.wake = wake_gate,
		.flags = TOS_INBOX_ON_ARRIVAL | TOS_INBOX_ON_DEPARTURE },
	{ 0 },
};

const struct tos_extension tos_extension = { TOS_ABI, .name = "rows", .doc = "for tests",
	.inboxes = inboxes };
