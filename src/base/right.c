/* The words of rights, and restrictions: see right.h. */
#include "base/right.h"

#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "base/text.h"

static const char *const actions[] = { "post", "launch", "arrive", "depart", "kill", "suspend",
	"resume", "retry", "resolve", "declare", "read", "revoke", "enroll", "remove", "backup",
	"drain", "set", "reload", "put", "admit", "clone", "install", "run", "stay", "network",
	"action" };
_Static_assert(ARRAY_LEN(actions) < 64, "a set of actions is a word of 64 bits");
#define ACTIONS_ALL UINT64_MAX

const char *right_action(size_t i)
{
	return i < ARRAY_LEN(actions) ? actions[i] : NULL;
}

/* 0: there is no such action. */
static uint64_t action_bit(const char *word)
{
	for (size_t i = 0; i < ARRAY_LEN(actions); i++)
		if (strcmp(actions[i], word) == 0)
			return (uint64_t)1 << i;
	return 0;
}

bool right_action_ok(const char *word)
{
	return action_bit(word) != 0;
}

/* No ':' so that a mistyped prefix is seen. */
bool right_name_ok(const char *s)
{
	if (!*s)
		return false;
	for (; *s; s++)
		if (*s <= ' ' || *s > '~' || *s == ':' || *s == '*' || *s == '"' || *s == '\\')
			return false;
	return true;
}

/* ---- objects */

int right_object_parse(const char *s, struct right_object *out, struct errmsg *em)
{
	const char *owner = strncmp(s, "owner:", 6) == 0 ? s + 6 : NULL;
	const char *name = owner ? owner : s;
	char below[RIGHT_WORD_BYTES];
	size_t n = strlen(s);

	/* A directory and a star: whatever lies below it. */
	if (s[0] == '/' && n > 2 && strcmp(s + n - 2, "/*") == 0) {
		out->kind = OBJECT_BELOW;
		snprintf(below, sizeof(below), "%.*s", (int)(n - 1), s);
		if (!right_name_ok(below))
			return err_set(em, ERR_SYNTAX, "'%s': a directory is /DIR/*", s);
		return text_copy(out->text, sizeof(out->text), below, strlen(below));
	}
	if (strcmp(s, "*") == 0)
		out->kind = OBJECT_ANY;
	else if (strcmp(s, "own") == 0)
		out->kind = OBJECT_OWN;
	else
		out->kind = owner ? OBJECT_OWNER : OBJECT_NAME;
	if (out->kind >= OBJECT_OWNER && !right_name_ok(name))
		return err_set(
			em, ERR_SYNTAX, "'%s': an object is a name, owner:NAME, own or *", s);
	return text_copy(out->text, sizeof(out->text), name, strlen(name));
}

bool right_object_matches(const struct right_object *o, const char *principal, const char *name,
	const char *owner)
{
	switch (o->kind) {
	case OBJECT_ANY:
		return true;
	case OBJECT_OWN:
		return principal[0] && strcmp(principal, owner) == 0;
	case OBJECT_BELOW:
		return strncmp(o->text, name, strlen(o->text)) == 0;
	case OBJECT_OWNER:
		return strcmp(o->text, owner) == 0;
	case OBJECT_NAME:
		return strcmp(o->text, name) == 0;
	}
	return false;
}

unsigned right_object_rank(enum right_object_kind kind)
{
	static const unsigned rank[] = { [OBJECT_ANY] = 0,
		[OBJECT_OWN] = 1,
		[OBJECT_BELOW] = 2,
		[OBJECT_OWNER] = 3,
		[OBJECT_NAME] = 3 };

	return rank[kind];
}

/* ---- restrictions */

/* The next word of *s into out; false: there is none, or it is too long. */
static bool word_next(const char **s, char out[RIGHT_WORD_BYTES])
{
	size_t n;

	*s += strspn(*s, " ");
	n = strcspn(*s, " ");
	if (n == 0 || text_copy(out, RIGHT_WORD_BYTES, *s, n) < 0)
		return false;
	*s += n;
	return true;
}

static int actions_parse(const char *list, uint64_t *out, struct errmsg *em)
{
	*out = 0;
	if (strcmp(list, "*") == 0)
		*out = ACTIONS_ALL;
	while (*out != ACTIONS_ALL && *list) {
		char word[24];
		size_t n = strcspn(list, ",");
		uint64_t bit = 0;

		if (n < sizeof(word) && text_copy(word, sizeof(word), list, n) == 0)
			bit = action_bit(word);
		if (!bit || (list[n] == ',' && !list[n + 1]))
			return err_set(em, ERR_SYNTAX, "'%.*s' is no action", (int)n, list);
		*out |= bit;
		list += n + (list[n] == ',');
	}
	return 0;
}

static int right_parse(const char *line, const char *of, struct right *out, struct errmsg *em)
{
	char allow[RIGHT_WORD_BYTES], list[RIGHT_WORD_BYTES], object[RIGHT_WORD_BYTES];
	const char *s = line;
	int rc;

	if (!word_next(&s, allow) || !word_next(&s, list) || !word_next(&s, object) ||
		s[strspn(s, " ")])
		return err_set(em, ERR_SYNTAX,
			"'%s': a restriction has three words, allow|deny ACTION[,ACTION]... OBJECT",
			line);
	out->allow = strcmp(allow, "allow") == 0;
	if (!out->allow && strcmp(allow, "deny") != 0)
		return err_set(
			em, ERR_SYNTAX, "'%s': a restriction begins with allow or deny", allow);
	rc = actions_parse(list, &out->actions, em);
	if (rc == 0)
		rc = right_object_parse(object, &out->object, em);
	snprintf(out->why, sizeof(out->why), "certificate of %.64s: %.150s", of, line);
	return rc;
}

/* Not understood is not allowed. */
static int rights_bad(struct rights *out, struct errmsg *em, const struct errmsg *why)
{
	out->n = 0;
	snprintf(out->otherwise, sizeof(out->otherwise),
		"a restriction in the certificate of %.64s is not understood: %.150s", out->of,
		why->text);
	return err_set(em, ERR_SYNTAX, "%s", why->text);
}

int rights_parse(const char *text, const char *of, struct rights *out, struct errmsg *em)
{
	struct errmsg why = { "" };
	int rc = 0;

	memset(out, 0, sizeof(*out));
	snprintf(out->of, sizeof(out->of), "%s", of);
	snprintf(out->otherwise, sizeof(out->otherwise),
		"no restriction in the certificate of %.64s allows it", of);
	if (strnlen(text, RIGHTS_BYTES) == RIGHTS_BYTES)
		rc = err_set(&why, ERR_SYNTAX, "they take %d bytes or more", RIGHTS_BYTES);
	while (rc == 0 && *text) {
		char line[RIGHTS_BYTES];
		size_t n = strcspn(text, "\n");

		snprintf(line, sizeof(line), "%.*s", (int)n, text);
		text += n + (text[n] == '\n');
		if (out->n == RIGHTS_MAX)
			rc = err_set(&why, ERR_SYNTAX, "there are more than %d", RIGHTS_MAX);
		else
			rc = right_parse(line, of, &out->right[out->n], &why);
		out->n += rc == 0;
	}
	return rc < 0 ? rights_bad(out, em, &why) : 0;
}

static unsigned right_rank(const struct right *r)
{
	return (r->actions == ACTIONS_ALL ? 0u : 8u) + 2 * right_object_rank(r->object.kind) +
	       (r->allow ? 0u : 1u);
}

int rights_check(const struct rights *r, const char *action, const char *principal,
	const char *name, const char *owner, const char **why)
{
	const struct right *best = NULL;
	uint64_t bit = action_bit(action);

	if (!r)
		return 0;
	for (size_t i = 0; i < r->n; i++) {
		const struct right *one = &r->right[i];

		if ((one->actions == ACTIONS_ALL || (one->actions & bit)) &&
			right_object_matches(&one->object, principal, name, owner) &&
			(!best || right_rank(one) > right_rank(best)))
			best = one;
	}
	if (why)
		*why = best ? best->why : r->otherwise;
	return best && best->allow ? 0 : ERR_DENIED;
}
