/* An arrival hook for tests: adds a folder, drops path entries named "nowhere", replaces a
 * function's file, refuses carriers that bring a folder REFUSE, and thinks for some seconds about
 * those with a folder HOLD, saying so in the log: their hop record has come, their answer has not
 * been given. */
#include <tos/extension.h>
#include <stdio.h>
#include <string.h>

#define HOLD_MS 3000

#define DENIED -2 /* doc/errors.md */

static const char replacement[] = "return 'replaced'\n";

static struct tos_value *path_without(const struct tos_value *path)
{
	struct tos_value *out = tos_array();

	for (size_t i = 0; i < tos_len(path); i++)
		if (strcmp(tos_as_text(tos_at(path, i), ""), "nowhere") != 0)
			tos_push(out, tos_value_copy(tos_at(path, i)));
	return out;
}

static void answer(struct tos_ext *x, const struct tos_message *m)
{
	const struct tos_value *args = tos_at(m->elements, 0), *files = tos_get(args, "files");
	struct tos_value *change = tos_map(), *set = tos_map(), *folder = tos_array(),
			 *out = tos_array();

	tos_push(folder, tos_text("was here"));
	tos_set(set, "HOOK", folder);
	tos_set(change, "set", set);
	tos_set(change, "path", path_without(tos_get(args, "path")));
	for (size_t i = 0; i < tos_len(files); i++)
		if (strcmp(tos_as_text(tos_at(files, i), ""), "what.lua") == 0) {
			struct tos_value *code = tos_map();

			tos_set(code, "what.lua",
				tos_bytes(
					(const uint8_t *)replacement, sizeof(replacement) - 1));
			tos_set(change, "code", code);
		}
	tos_push(out, change);
	tos_reply(x, m->token, "allow", out);
}

/* Those that it thinks about; the kernel may stop before a timer has come. */
static struct held {
	uint64_t token;
} held[256];
static size_t n_held;

static void release(struct tos_ext *x, void *arg)
{
	struct held *h = arg;

	tos_reply(x, h->token, "allow", NULL);
}

static void hold(struct tos_ext *x, const struct tos_message *m)
{
	struct held *h = &held[n_held++ % (sizeof(held) / sizeof(held[0]))];
	char text[200];

	h->token = m->token;
	snprintf(text, sizeof(text), "holding %s",
		tos_get_text(tos_at(m->elements, 0), "name", "?"));
	tos_log(x, 2, text);
	tos_timer(x, HOLD_MS, release, h);
}

static void wake(struct tos_ext *x, struct tos_inbox *in)
{
	struct tos_message m;

	while (tos_inbox_next(in, &m)) {
		if (!m.token)
			continue;
		if (tos_get(tos_get(tos_at(m.elements, 0), "folders"), "REFUSE"))
			tos_fail(x, m.token, DENIED, "the hook does not like it");
		else if (tos_get(tos_get(tos_at(m.elements, 0), "folders"), "HOLD"))
			hold(x, &m);
		else
			answer(x, &m);
	}
}

static const struct tos_inbox_spec inboxes[] = {
	{ .name = "Hook",
		.doc = "changes and refuses carriers that arrive",
		.flags = TOS_INBOX_ON_ARRIVAL,
		.wake = wake },
	{ 0 },
};

const struct tos_extension tos_extension = {
	TOS_ABI,
	.name = "hook",
	.doc = "A hook for tests.",
	.inboxes = inboxes,
};
