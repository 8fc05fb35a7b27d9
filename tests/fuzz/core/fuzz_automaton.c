/* Automata that extensions write: what is taken has rules and a state at any time, and comes back from what
 * was kept of it. */
#include <string.h>

#include "core/automaton.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const char *const objects[] = { "Echo", "host1/Echo", "path", "" };
	struct automaton *a, *b;
	struct tos_value *kept;
	int rule, again;

	if (automaton_parse((const char *)data, size, &a, NULL) < 0)
		return 0;
	for (unsigned i = 0; i < 64; i++) {
		enum automaton_event ev = (enum automaton_event)(i % AUTOMATON_EVENTS);
		const char *object = objects[i / AUTOMATON_EVENTS % ARRAY_LEN(objects)];
		enum automaton_verdict v = automaton_ask(a, ev, object, &rule);

		must(automaton_ask(a, ev, object, &again) == v && again == rule);
		must(rule >= 0 || v == AUTOMATON_DENY);
		automaton_take(a, rule);
		must(automaton_state(a)[0]);
	}
	automaton_keep(a);
	kept = automaton_kept(a);
	must(automaton_parse(automaton_text(a), strlen(automaton_text(a)), &b, NULL) == 0);
	must(automaton_restore(b, kept) == 0);
	must(strcmp(automaton_state(a), automaton_state(b)) == 0);
	tos_value_free(kept);
	automaton_free(a);
	automaton_free(b);
	return 0;
}
