/*
 * Warden: puts a security automaton into each carrier that arrives. The rules are properties, so that a host
 * is configured with them; the kernel asks the automaton (doc/guide/security.md, "Automata").
 */
#include <tos/extension.h>

#include <stdio.h>
#include <string.h>

#define RULES_BYTES 1024

static const char *const parts[] = { "rules", "rules2", "rules3", "rules4" };
#define N_PARTS (sizeof(parts) / sizeof(parts[0]))

/* A property is short: there are four, one behind the other. */
static void rules_of(struct tos_ext *x, char *out, size_t cap)
{
	size_t n = 0;

	out[0] = 0;
	for (size_t i = 0; i < N_PARTS; i++) {
		const char *p = tos_property(x, parts[i]);
		int more = p && *p ? snprintf(out + n, cap - n, "%s%s", n ? "\n" : "", p) : 0;

		if (more > 0 && (size_t)more < cap - n)
			n += (size_t)more;
	}
}

static bool is_exempt(struct tos_ext *x, const struct tos_value *args)
{
	const char *exempt = tos_property(x, "exempt");
	const char *owner = tos_get_text(args, "owner", "");

	return exempt && *exempt && strcmp(exempt, owner) == 0;
}

static void arrival(struct tos_ext *x, const struct tos_message *m)
{
	struct tos_value *change = tos_map(), *out = tos_array();
	char rules[RULES_BYTES];

	rules_of(x, rules, sizeof(rules));
	if (rules[0] && !is_exempt(x, tos_at(m->elements, 0))) {
		tos_set(change, "automaton", tos_text(rules));
		tos_count(x, "carriers_watched_total", 1);
	}
	tos_push(out, change);
	tos_reply(x, m->token, "allow", out);
}

static void wake(struct tos_ext *x, struct tos_inbox *in)
{
	struct tos_message m;

	while (tos_inbox_next(in, &m))
		if (m.token)
			arrival(x, &m);
}

static const struct tos_inbox_spec inboxes[] = {
	{ .name = "Warden",
		.doc = "gives each carrier that arrives its automaton",
		.wake = wake,
		.flags = TOS_INBOX_ON_ARRIVAL },
	{ 0 },
};

static const struct tos_property_spec properties[] = {
	{ .path = "rules",
		.type = "text",
		.doc = "rules of the automaton, semicolons between: STATE EVENT OBJECT TIMES NEXT; none: nobody is watched",
		.value = "" },
	{ .path = "rules2", .type = "text", .doc = "more of them", .value = "" },
	{ .path = "rules3", .type = "text", .doc = "more of them", .value = "" },
	{ .path = "rules4", .type = "text", .doc = "more of them", .value = "" },
	{ .path = "exempt",
		.type = "text",
		.doc = "an owner whose carriers are not watched",
		.value = "" },
	{ 0 },
};

const struct tos_extension tos_extension = {
	TOS_ABI,
	.name = "warden",
	.doc = "Watches what carriers do by an automaton that the operator writes.",
	.inboxes = inboxes,
	.properties = properties,
};
