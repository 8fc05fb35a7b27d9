/* Security automata: see automaton.h. */
#include "core/automaton.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/text.h"

#define RULE_BYTES 256
#define STATES_MAX (2 * AUTOMATON_RULES_MAX)
#define TIMES_MAX  1000000000L

struct step {
	char *text, *object;
	int from; /* state, -1: any */
	unsigned events;
	bool prefix;
	long times; /* -1: always */
	enum automaton_verdict verdict;
	int to; /* state, -1: the same */
};

struct place {
	int state;
	long *used; /* by rule */
};

struct automaton {
	char *source;
	size_t n, n_states;
	/* While it is parsed there is room for all; then it has the size that it takes. */
	struct step *step;
	char (*state)[AUTOMATON_NAME_MAX + 1];
	struct place now, kept;
};

static const char *const events[AUTOMATON_EVENTS] = { "post", "call", "answer", "go", "clone",
	"inbox" };

const char *automaton_event_word(enum automaton_event ev)
{
	return events[ev];
}

void automaton_free(struct automaton *a)
{
	if (!a)
		return;
	for (size_t i = 0; i < a->n; i++) {
		free(a->step[i].text);
		free(a->step[i].object);
	}
	free(a->step);
	free(a->state);
	free(a->now.used);
	free(a->kept.used);
	free(a->source);
	free(a);
}

/* ---- parsing */

static bool name_ok(const char *s)
{
	size_t n = strlen(s);

	for (size_t i = 0; i < n; i++)
		if (!((s[i] >= 'a' && s[i] <= 'z') || (s[i] >= '0' && s[i] <= '9') ||
			    s[i] == '-' || s[i] == '_'))
			return false;
	return n > 0 && n <= AUTOMATON_NAME_MAX;
}

/* The number of that state, a new one if need be. */
static int state_find(struct automaton *a, const char *name)
{
	for (size_t i = 0; i < a->n_states; i++)
		if (strcmp(a->state[i], name) == 0)
			return (int)i;
	snprintf(a->state[a->n_states], sizeof(a->state[0]), "%s", name);
	return (int)a->n_states++;
}

static int from_parse(struct automaton *a, const char *word, struct step *s, struct errmsg *em)
{
	s->from = -1;
	if (strcmp(word, "*") == 0)
		return a->n ? 0
			    : err_set(em, ERR_SYNTAX,
				      "the first rule names the state in which it begins");
	if (!name_ok(word) || strcmp(word, "same") == 0 || strcmp(word, "deny") == 0 ||
		strcmp(word, "end") == 0)
		return err_set(em, ERR_SYNTAX, "'%s' is no name for a state", word);
	s->from = state_find(a, word);
	return 0;
}

static int events_parse(const char *list, struct step *s, struct errmsg *em)
{
	char word[RULE_BYTES];
	const char *at = list;

	if (strcmp(list, "*") == 0) {
		s->events = (1u << AUTOMATON_EVENTS) - 1;
		return 0;
	}
	for (;;) {
		size_t n = strcspn(at, ","), i = 0;

		snprintf(word, sizeof(word), "%.*s", (int)n, at);
		while (i < AUTOMATON_EVENTS && strcmp(events[i], word) != 0)
			i++;
		if (i == AUTOMATON_EVENTS)
			return err_set(em, ERR_SYNTAX,
				"'%s' is no event; there are post, call, answer, go, clone, inbox",
				word);
		s->events |= 1u << i;
		if (!at[n])
			return 0;
		at += n + 1;
	}
}

static int object_parse(const char *word, struct step *s, struct errmsg *em)
{
	size_t n = strlen(word);

	s->prefix = word[n - 1] == '*';
	n -= s->prefix;
	if (memchr(word, '*', n))
		return err_set(em, ERR_SYNTAX, "'%s': a star is at the end of an object", word);
	s->object = mem_dup(word, n);
	return 0;
}

static int times_parse(const char *word, struct step *s, struct errmsg *em)
{
	char *end;

	s->times = -1;
	if (strcmp(word, "*") == 0)
		return 0;
	s->times = word[0] >= '1' && word[0] <= '9' ? strtol(word, &end, 10) : 0;
	return s->times < 1 || s->times > TIMES_MAX || *end
		       ? err_set(em, ERR_SYNTAX, "'%s' is no number of times, nor *", word)
		       : 0;
}

static int next_parse(struct automaton *a, const char *word, struct step *s, struct errmsg *em)
{
	s->to = -1;
	if (strcmp(word, "deny") == 0)
		s->verdict = AUTOMATON_DENY;
	else if (strcmp(word, "end") == 0)
		s->verdict = AUTOMATON_END;
	else if (!name_ok(word))
		return err_set(em, ERR_SYNTAX, "'%s' is no name for a state", word);
	else if (strcmp(word, "same") != 0)
		s->to = state_find(a, word);
	return 0;
}

/* Words of one rule; -1: one is too long, or there are more. */
static int words_split(const char *p, size_t n, char word[5][RULE_BYTES])
{
	int count = 0;

	while (n) {
		size_t len = 0;

		if (*p == ' ' || *p == '\t') {
			p++;
			n--;
			continue;
		}
		while (len < n && p[len] != ' ' && p[len] != '\t')
			len++;
		if (count == 5 || text_copy(word[count], RULE_BYTES, p, len) < 0)
			return -1;
		count++;
		p += len;
		n -= len;
	}
	return count;
}

static int rule_parse(struct automaton *a, const char *p, size_t n, struct errmsg *em)
{
	char word[5][RULE_BYTES], text[RULE_BYTES];
	int count = words_split(p, n, word), rc;
	struct step *s;

	if (count == 0)
		return 0;
	if (a->n == AUTOMATON_RULES_MAX)
		return err_set(em, ERR_TOO_LARGE, "more than %d rules", AUTOMATON_RULES_MAX);
	if (count != 5 || (size_t)snprintf(text, sizeof(text), "%s %s %s %s %s", word[0],
				  word[1], word[2], word[3], word[4]) >= sizeof(text))
		return err_set(em, ERR_SYNTAX,
			"a rule has five words, STATE EVENT OBJECT TIMES NEXT, and %d bytes at most",
			RULE_BYTES - 1);
	s = &a->step[a->n];
	rc = from_parse(a, word[0], s, em);
	rc = rc ? rc : events_parse(word[1], s, em);
	rc = rc ? rc : object_parse(word[2], s, em);
	rc = rc ? rc : times_parse(word[3], s, em);
	rc = rc ? rc : next_parse(a, word[4], s, em);
	s->text = mem_strdup(text);
	a->n++; /* also a bad one: it is freed with the others */
	return rc;
}

/* It has no more room than it takes: there is one for each carrier. */
static void fit(struct automaton *a)
{
	struct step *step = a->step;
	char(*state)[AUTOMATON_NAME_MAX + 1] = a->state;

	a->step = mem_dup(step, a->n * sizeof(*step));
	a->state = mem_dup(state, a->n_states * sizeof(*state));
	a->now.used = mem_zero(a->n * sizeof(long));
	a->kept.used = mem_zero(a->n * sizeof(long));
	free(step);
	free(state);
}

static int parse_all(struct automaton *a, const char *text, size_t n, struct errmsg *em)
{
	size_t at = 0;
	int rc = 0;

	while (rc == 0 && at < n) {
		size_t len = 0, rule;

		while (at + len < n && text[at + len] != '\n')
			len++;
		/* a comment goes to the end of its line */
		for (size_t end = at + len, from = at; rc == 0 && from <= end;
			from += rule + 1) {
			rule = 0;
			while (from + rule < end && text[from + rule] != ';' &&
				text[from + rule] != '#')
				rule++;
			rc = rule_parse(a, text + from, rule, em);
			if (from + rule < end && text[from + rule] == '#')
				break;
		}
		at += len + 1;
	}
	if (rc == 0 && a->n == 0)
		rc = err_set(em, ERR_SYNTAX, "an automaton has at least one rule");
	return rc;
}

int automaton_parse(const char *text, size_t n, struct automaton **out, struct errmsg *em)
{
	AUTO(automaton) a = NULL;
	int rc;

	if (n > AUTOMATON_BYTES_MAX)
		return err_set(em, ERR_TOO_LARGE, "an automaton has at most %d bytes",
			AUTOMATON_BYTES_MAX);
	for (size_t i = 0; i < n; i++)
		if ((text[i] < ' ' && text[i] != '\n' && text[i] != '\t') || text[i] > '~')
			return err_set(em, ERR_SYNTAX, "an automaton is plain ASCII");
	a = mem_new(struct automaton);
	a->source = mem_dup(text, n);
	a->step = mem_zero(AUTOMATON_RULES_MAX * sizeof(*a->step));
	a->state = mem_zero(STATES_MAX * sizeof(*a->state));
	rc = parse_all(a, text, n, em);
	if (rc < 0)
		return rc;
	fit(a);
	*out = STEAL(a);
	return 0;
}

/* ---- running */

static bool fits(
	const struct automaton *a, size_t i, enum automaton_event ev, const char *object)
{
	const struct step *s = &a->step[i];

	if ((s->from >= 0 && s->from != a->now.state) || !(s->events & 1u << ev) ||
		(s->times >= 0 && a->now.used[i] >= s->times))
		return false;
	return s->prefix ? strncmp(object, s->object, strlen(s->object)) == 0
			 : strcmp(object, s->object) == 0;
}

enum automaton_verdict automaton_ask(
	const struct automaton *a, enum automaton_event ev, const char *object, int *rule)
{
	for (size_t i = 0; i < a->n; i++)
		if (fits(a, i, ev, object)) {
			*rule = (int)i;
			return a->step[i].verdict;
		}
	*rule = -1;
	return AUTOMATON_DENY;
}

void automaton_take(struct automaton *a, int rule)
{
	if (rule < 0)
		return;
	if (a->step[rule].times >= 0)
		a->now.used[rule]++;
	if (a->step[rule].to >= 0)
		a->now.state = a->step[rule].to;
}

const char *automaton_state(const struct automaton *a)
{
	return a->state[a->now.state];
}

const char *automaton_text(const struct automaton *a)
{
	return a->source;
}

const char *automaton_rule(const struct automaton *a, int rule)
{
	return rule < 0 ? "no rule fits" : a->step[rule].text;
}

static void place_copy(const struct automaton *a, struct place *to, const struct place *from)
{
	to->state = from->state;
	memcpy(to->used, from->used, a->n * sizeof(*to->used));
}

void automaton_keep(struct automaton *a)
{
	place_copy(a, &a->kept, &a->now);
}

void automaton_back(struct automaton *a)
{
	place_copy(a, &a->now, &a->kept);
}

struct tos_value *automaton_kept(const struct automaton *a)
{
	struct tos_value *m = tos_map(), *used = tos_array();

	for (size_t i = 0; i < a->n; i++)
		tos_push(used, tos_int(a->kept.used[i]));
	tos_set(m, "state", tos_text(a->state[a->kept.state]));
	tos_set(m, "used", used);
	return m;
}

int automaton_restore(struct automaton *a, const struct tos_value *kept)
{
	const struct tos_value *used = tos_get(kept, "used");
	const char *name = tos_get_text(kept, "state", "");
	size_t state = 0;

	while (state < a->n_states && strcmp(a->state[state], name) != 0)
		state++;
	if (state == a->n_states || tos_len(used) != a->n)
		return ERR_MALFORMED;
	for (size_t i = 0; i < a->n; i++)
		if (tos_as_int(tos_at(used, i), -1) < 0 ||
			tos_as_int(tos_at(used, i), -1) > TIMES_MAX)
			return ERR_MALFORMED;
	for (size_t i = 0; i < a->n; i++)
		a->kept.used[i] = (long)tos_as_int(tos_at(used, i), 0);
	a->kept.state = (int)state;
	automaton_back(a);
	return 0;
}
