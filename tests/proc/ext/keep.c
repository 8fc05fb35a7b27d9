/* For test_journal.py: passes what is posted to Keep on to the inbox Journal, and its answer back. */
#include <tos/extension.h>

#include <stdint.h>
#include <stdlib.h>

static void answered(struct tos_ext *x, void *arg, int rc, const char *text, const char *folder,
	const struct tos_value *elements)
{
	uint64_t *token = arg;

	if (rc < 0)
		(void)tos_fail(x, *token, rc, text);
	else
		tos_reply(x, *token, folder, tos_value_copy(elements));
	free(token);
}

static void wake(struct tos_ext *x, struct tos_inbox *in)
{
	struct tos_message m;

	while (tos_inbox_next(in, &m)) {
		uint64_t *token = malloc(sizeof(*token));

		if (!token)
			return;
		*token = m.token;
		if (tos_call(x, "Journal", m.folder, tos_value_copy(m.elements), 10000,
			    answered, token) < 0)
			free(token);
	}
}

#ifdef OTHER
#define NAME "Other"
#else
#define NAME "Keep"
#endif
static const struct tos_inbox_spec inboxes[] = {
	{ .name = NAME, .doc = "asks the Journal", .wake = wake },
	{ 0 },
};
const struct tos_extension tos_extension = {
	TOS_ABI,
	.name = "keep",
	.doc = "asks the Journal",
	.inboxes = inboxes,
};
