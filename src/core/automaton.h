/*
 * Security automata (doc/decisions/automata.md): which actions of a carrier are allowed, after which. An
 * extension gives one for a stay; the kernel asks it for each thing that the carrier asks of the kernel.
 * Logic without I/O.
 *
 * Text, one rule a line or between semicolons, of five words; '#' begins a comment:
 *
 *   STATE EVENT[,EVENT]... OBJECT TIMES NEXT
 *
 *   STATE   a name, or * for any; the first rule's is where it begins, and is a name
 *   EVENT   post call answer go clone inbox, or *
 *   OBJECT  exact, PREFIX*, or *: of posts and calls the inbox (Echo, host1/Echo, host0#4/x), of go and
 *           clone the kernel ("path": the next entry), of inbox its name
 *   TIMES   how often in the stay the rule may be used, or *
 *   NEXT    a state, `same`, `deny` (it is refused, nothing changes) or `end` (the carrier is ended)
 *
 * The first rule that fits and is not used up decides. None: denied.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include <tos/value.h>

#include "base/err.h"
#include "base/mem.h"

#define AUTOMATON_BYTES_MAX 4096
#define AUTOMATON_RULES_MAX 64
#define AUTOMATON_NAME_MAX  31

enum automaton_event {
	AUTOMATON_POST,
	AUTOMATON_CALL,
	AUTOMATON_ANSWER,
	AUTOMATON_GO,
	AUTOMATON_CLONE,
	AUTOMATON_INBOX,
	AUTOMATON_EVENTS
};
const char *automaton_event_word(enum automaton_event ev);

enum automaton_verdict { AUTOMATON_ALLOW, AUTOMATON_DENY, AUTOMATON_END };

struct automaton;
/* ERR_SYNTAX names the rule, ERR_TOO_LARGE. */
int automaton_parse(const char *text, size_t n, struct automaton **out, struct errmsg *em);
void automaton_free(struct automaton *a);
AUTO_DEFINE(automaton)
/* What it would say, and by which rule (its number from 0, -1: none fits). Changes nothing. */
enum automaton_verdict automaton_ask(
	const struct automaton *a, enum automaton_event ev, const char *object, int *rule);
/* That rule is used. -1: nothing. */
void automaton_take(struct automaton *a, int rule);
const char *automaton_state(const struct automaton *a);
const char *automaton_text(const struct automaton *a);
/* The rule as it was written, for people; "no rule fits" for -1. */
const char *automaton_rule(const struct automaton *a, int rule);
/* What a run that begins again begins with. */
void automaton_keep(struct automaton *a);
void automaton_back(struct automaton *a);
/* {state, used: [int]} as it was kept. */
struct tos_value *automaton_kept(const struct automaton *a);
/* ERR_MALFORMED: it is not of this automaton. */
int automaton_restore(struct automaton *a, const struct tos_value *kept);
