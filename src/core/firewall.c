/*
 * The firewall: see firewall.h. Rules are kept as they were written and taken apart once; a
 * decision is the rule with the highest rank, remembered for the same question.
 */
#include "core/firewall.h"

#include <stdarg.h>
#include <string.h>

#include "base/map.h"
#include "base/mem.h"
#include "base/text.h"
#include "seal/seal.h"

#define RULES_MAX  4096
#define WORD_BYTES RIGHT_WORD_BYTES
#define RULE_BYTES 512
#define CACHE_MAX  4096

enum who_kind {
	WHO_ANY,
	WHO_CLASS,
	WHO_ROLE,
	WHO_PRINCIPAL,
	WHO_CARRIER_OF,
	WHO_KERNEL,
	WHO_AUTHOR
};

struct rule {
	char *text;
	bool allow, any_action;
	enum who_kind who_kind;
	unsigned role, rank;
	char who[WORD_BYTES], action[16];
	struct right_object object;
};

struct firewall {
	struct rule **rules;
	size_t n, cap;
	struct map *decided; /* question -> the deciding rule, or &no_rule */
};

static const struct rule no_rule = { .text = (char *)(uintptr_t) "no rule allows it" };

static const char *const classes[] = { "carrier", "client", "extension", "kernel" };

struct firewall *firewall_new(void)
{
	struct firewall *f = mem_new(struct firewall);

	f->decided = map_new();
	return f;
}

static void rule_free(struct rule *r)
{
	if (!r)
		return;
	free(r->text);
	free(r);
}

void firewall_free(struct firewall *f)
{
	if (!f)
		return;
	for (size_t i = 0; i < f->n; i++)
		rule_free(f->rules[i]);
	free(f->rules);
	map_free(f->decided);
	free(f);
}

static bool word_in(const char *word, const char *const *list, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (strcmp(list[i], word) == 0)
			return true;
	return false;
}

static const char *behind(const char *s, const char *prefix)
{
	size_t n = strlen(prefix);

	return strncmp(s, prefix, n) == 0 ? s + n : NULL;
}

static int parse_who(struct rule *r, const char *s, struct errmsg *em)
{
	static const struct {
		const char *prefix;
		enum who_kind kind;
	} kinds[] = { { "principal:", WHO_PRINCIPAL }, { "carrier-of:", WHO_CARRIER_OF },
		{ "kernel:", WHO_KERNEL }, { "author:", WHO_AUTHOR }, { "role:", WHO_ROLE },
		{ "class:", WHO_CLASS } };
	const char *rest = NULL;

	if (strcmp(s, "*") == 0) {
		r->who_kind = WHO_ANY;
		return 0;
	}
	for (size_t i = 0; i < ARRAY_LEN(kinds) && !rest; i++) {
		rest = behind(s, kinds[i].prefix);
		r->who_kind = kinds[i].kind;
	}
	if (!rest)
		return err_set(em, ERR_SYNTAX,
			"'%s': who is principal:NAME, carrier-of:NAME, author:NAME, kernel:NAME, role:R, "
			"class:C or *",
			s);
	if (r->who_kind == WHO_ROLE && !(r->role = role_parse(rest)))
		return err_set(
			em, ERR_SYNTAX, "'%s': a role is admin, owner, author or officer", s);
	if (r->who_kind == WHO_CLASS && !word_in(rest, classes, ARRAY_LEN(classes)))
		return err_set(em, ERR_SYNTAX,
			"'%s': a class is carrier, client, extension or kernel", s);
	if (!right_name_ok(rest))
		return err_set(em, ERR_SYNTAX, "'%s' has no usable name", s);
	return text_copy(r->who, sizeof(r->who), rest, strlen(rest));
}

static int parse_action(struct rule *r, const char *s, struct errmsg *em)
{
	r->any_action = strcmp(s, "*") == 0;
	if (!r->any_action && !right_action_ok(s))
		return err_set(em, ERR_SYNTAX, "'%s' is no action", s);
	return text_copy(r->action, sizeof(r->action), s, strlen(s));
}

/* Who before action before object, deny before allow: one number that compares. */
static unsigned rule_rank(const struct rule *r)
{
	static const unsigned who[] = { [WHO_ANY] = 0,
		[WHO_CLASS] = 1,
		[WHO_ROLE] = 2,
		[WHO_PRINCIPAL] = 3,
		[WHO_CARRIER_OF] = 3,
		[WHO_KERNEL] = 3,
		[WHO_AUTHOR] = 3 };

	return 1 + (who[r->who_kind] << 4 | (r->any_action ? 0u : 1u) << 3 |
			   right_object_rank(r->object.kind) << 1 | (r->allow ? 0u : 1u));
}

/* Up to `most` words into word[]; returns their number, or more than `most`. ERR_TOO_LARGE. */
static int words_split(const char *s, char word[][WORD_BYTES], int most)
{
	int n = 0;

	for (;;) {
		size_t len;

		s += strspn(s, " \t");
		if (!*s)
			return n;
		len = strcspn(s, " \t");
		if (n == most)
			return n + 1;
		if (text_copy(word[n++], WORD_BYTES, s, len) < 0)
			return ERR_TOO_LARGE;
		s += len;
	}
}

static int rule_parse(struct rule *r, const char *text, struct errmsg *em)
{
	char word[4][WORD_BYTES];
	int n = strnlen(text, RULE_BYTES) < RULE_BYTES ? words_split(text, word, 4)
						       : ERR_TOO_LARGE;
	int rc;

	if (n == ERR_TOO_LARGE)
		return err_set(em, ERR_SYNTAX, "a rule's word or the rule is too long");
	if (n != 4)
		return err_set(em, ERR_SYNTAX,
			"'%s': a rule has four words, allow|deny WHO ACTION OBJECT", text);
	r->allow = strcmp(word[0], "allow") == 0;
	if (!r->allow && strcmp(word[0], "deny") != 0)
		return err_set(
			em, ERR_SYNTAX, "'%s': a rule begins with allow or deny", word[0]);
	rc = parse_who(r, word[1], em);
	if (rc == 0)
		rc = parse_action(r, word[2], em);
	if (rc == 0)
		rc = right_object_parse(word[3], &r->object, em);
	r->rank = rule_rank(r);
	return rc;
}

static void decided_clear(struct firewall *f)
{
	map_free(f->decided);
	f->decided = map_new();
}

int firewall_add(struct firewall *f, const char *rule, struct errmsg *em)
{
	struct rule *r;
	int rc;

	if (f->n == RULES_MAX)
		return err_set(em, ERR_LIMIT, "more than %d rules", RULES_MAX);
	if (f->n == f->cap) {
		size_t cap = f->cap ? 2 * f->cap : 16;
		struct rule **grown = mem_try_resize(f->rules, cap * sizeof(struct rule *));

		if (!grown)
			return err_set(em, ERR_NOMEM, "no memory for a rule");
		f->rules = grown;
		f->cap = cap;
	}
	r = mem_new(struct rule);
	rc = rule_parse(r, rule, em);
	if (rc < 0) {
		rule_free(r);
		return rc;
	}
	r->text = mem_strdup(rule);
	f->rules[f->n++] = r;
	decided_clear(f);
	return 0;
}

static bool who_matches(const struct rule *r, const struct subject *s)
{
	bool carrier = strcmp(s->class_name, "carrier") == 0;

	switch (r->who_kind) {
	case WHO_ANY:
		return true;
	case WHO_CLASS:
		return strcmp(r->who, s->class_name) == 0;
	case WHO_ROLE:
		return (s->roles & r->role) != 0;
	case WHO_PRINCIPAL: /* in person; what its carriers may do is said by carrier-of */
		return !carrier && strcmp(r->who, s->principal) == 0;
	case WHO_CARRIER_OF:
		return carrier && strcmp(r->who, s->principal) == 0;
	case WHO_KERNEL:
		return strcmp(r->who, s->kernel) == 0;
	case WHO_AUTHOR:
		return carrier && strcmp(r->who, s->author) == 0;
	}
	return false;
}

static bool object_matches(
	const struct rule *r, const struct subject *s, const struct object *o)
{
	return right_object_matches(&r->object, s->principal, o->name, o->owner);
}

/* What may run is admitted by name: a right to do everything is none to run anything. */
static bool action_matches(const struct rule *r, const char *action)
{
	if (r->any_action)
		return !r->allow ||
		       (strcmp(action, "run") != 0 && strcmp(action, "action") != 0);
	return strcmp(r->action, action) == 0;
}

/* narrowing: of the rules for authors, else of all the others */
static const struct rule *decide_of(const struct firewall *f, const struct subject *s,
	const char *action, const struct object *o, bool narrowing)
{
	const struct rule *best = &no_rule;

	for (size_t i = 0; i < f->n; i++) {
		const struct rule *r = f->rules[i];

		if ((r->who_kind == WHO_AUTHOR) == narrowing && r->rank > best->rank &&
			action_matches(r, action) && who_matches(r, s) &&
			object_matches(r, s, o))
			best = r;
	}
	return best;
}

/* What the owner may and what the author's code may: the lesser of both. */
static const struct rule *decide(const struct firewall *f, const struct subject *s,
	const char *action, const struct object *o)
{
	const struct rule *r = decide_of(f, s, action, o, false), *narrow;

	if (!r->allow || !s->author[0])
		return r;
	narrow = decide_of(f, s, action, o, true);
	return narrow == &no_rule || narrow->allow ? r : narrow;
}

/* Everything a decision depends on, each part with its NUL. 0 if it is longer than a key may
 * be. */
static size_t question_key(char *key, size_t cap, const struct subject *s, const char *action,
	const struct object *o)
{
	const char *part[] = { s->class_name, s->principal, s->kernel, s->author, action,
		o->name, o->owner };
	size_t n = sizeof(s->roles);

	memcpy(key, &s->roles, n);
	for (size_t i = 0; i < ARRAY_LEN(part); i++) {
		size_t len = strlen(part[i]) + 1;

		if (len > cap - n)
			return 0;
		memcpy(key + n, part[i], len);
		n += len;
	}
	return n;
}

int firewall_narrow(
	const struct subject *s, const char *action, const struct object *o, const char **why)
{
	const struct rights *const only[] = { s->owner_only, s->author_only };
	const char *said = NULL;

	for (size_t i = 0; i < ARRAY_LEN(only); i++) {
		if (rights_check(only[i], action, only[i] ? only[i]->of : "", o->name, o->owner,
			    &said) == 0)
			continue;
		if (why)
			*why = said;
		return ERR_DENIED;
	}
	return 0;
}

int firewall_check(struct firewall *f, const struct subject *s, const char *action,
	const struct object *o, const char **why)
{
	/* NULL is taken for "", so that a caller who knows no kernel or owner need not say so.
	 */
	struct subject who = { s->class_name ? s->class_name : "",
		s->principal ? s->principal : "", s->roles, s->kernel ? s->kernel : "",
		s->author ? s->author : "", s->owner_only, s->author_only };
	struct object what = { o->name ? o->name : "", o->owner ? o->owner : "" };
	char key[512];
	size_t n_key = question_key(key, sizeof(key), &who, action, &what);
	const struct rule *r = n_key ? map_find(f->decided, key, n_key) : NULL;

	if (!r) {
		r = decide(f, &who, action, &what);
		/* Names that peers make up can't fill memory: the cache starts over at its
		 * bound. */
		if (map_size(f->decided) >= CACHE_MAX)
			decided_clear(f);
		if (n_key)
			map_put(f->decided, key, n_key, (void *)(uintptr_t)r);
	}
	if (why)
		*why = r->text;
	return r->allow ? firewall_narrow(&who, action, &what, why) : ERR_DENIED;
}

size_t firewall_matches(const struct firewall *f, const struct subject *s, const char *action,
	const struct object *o, size_t *out, size_t most)
{
	const struct rule *by = decide(f, s, action, o);
	size_t n = 0, kept = 0;

	for (size_t i = 0; i < f->n && by->who_kind == WHO_AUTHOR; i++)
		if (f->rules[i] == by && n++ < most)
			out[kept++] = i;
	for (size_t i = 0; i < f->n; i++) {
		const struct rule *r = f->rules[i];
		size_t at;

		if (r->who_kind == WHO_AUTHOR || !action_matches(r, action) ||
			!who_matches(r, s) || !object_matches(r, s, o))
			continue;
		n++;
		/* Of equal rank the first decides, as in decide(). */
		for (at = kept; at > 0 && f->rules[out[at - 1]] != by &&
				f->rules[out[at - 1]]->rank < r->rank;
			at--)
			if (at < most)
				out[at] = out[at - 1];
		if (at < most)
			out[at] = i;
		kept += kept < most;
	}
	return n;
}

bool firewall_rule_allows(const struct firewall *f, size_t i)
{
	return i < f->n && f->rules[i]->allow;
}

size_t firewall_count(const struct firewall *f)
{
	return f->n;
}

const char *firewall_rule(const struct firewall *f, size_t i)
{
	return i < f->n ? f->rules[i]->text : NULL;
}
