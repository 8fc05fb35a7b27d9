/* Echo: prints what is posted on standard output, and answers calls with the same folder. */
#include <tos/extension.h>
#include <stdio.h>

/* One line, whatever is in it: the output may be a log or a terminal. */
static void print_line(const char *sender, const char *text)
{
	char line[1024];
	size_t n = 0;

	while (n < sizeof(line) && text[n]) {
		line[n] =
			(char)((unsigned char)text[n] < ' ' || text[n] == 127 ? ' ' : text[n]);
		n++;
	}
	printf("%s: %.*s\n", sender, (int)n, line);
}

static void wake(struct tos_ext *x, struct tos_inbox *in)
{
	struct tos_message m;

	while (tos_inbox_next(in, &m)) {
		for (size_t i = 0; i < tos_len(m.elements); i++)
			print_line(m.sender, tos_as_text(tos_at(m.elements, i), "(no text)"));
		fflush(stdout);
		if (m.token)
			tos_reply(x, m.token, m.folder, tos_value_copy(m.elements));
	}
}

static const struct tos_inbox_spec inboxes[] = {
	{ .name = "Echo", .doc = "prints what is posted, answers calls with it", .wake = wake },
	{ 0 },
};

const struct tos_extension tos_extension = {
	TOS_ABI,
	.name = "echo",
	.doc = "Prints what is posted.",
	.inboxes = inboxes,
};
