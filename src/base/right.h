/*
 * The words of rights: actions and objects, which the rules of a host's policy (core/firewall.h) and the
 * restrictions in a principal's certificate share, and such restrictions themselves.
 *
 * A restriction as text:  allow|deny ACTION[,ACTION]... OBJECT     one a line
 * Action and object are as in a rule, * for all. A certificate without any says nothing. With some, what is
 * asked must be allowed by the most specific of them that speaks of it (action exact > *; then object exact
 * > /DIR/ and * > own > *; deny before allow at a tie), and is denied when none does. They only narrow: host
 * policy must allow it besides, and * means to run programs, too.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

#define RIGHT_WORD_BYTES 128
#define RIGHTS_MAX       16
#define RIGHTS_BYTES     512 /* of the text of all, line ends included */

/* The actions that there are, one by one; NULL past the last. */
const char *right_action(size_t i);
bool right_action_ok(const char *word);

/* Names as they stand in certificates, addresses and inboxes. */
bool right_name_ok(const char *s);

enum right_object_kind { OBJECT_ANY, OBJECT_OWN, OBJECT_BELOW, OBJECT_OWNER, OBJECT_NAME };
struct right_object {
	enum right_object_kind kind;
	char text[RIGHT_WORD_BYTES];
};
int right_object_parse(const char *word, struct right_object *out, struct errmsg *em);
/* principal: whose right it is, "" nobody's; name and owner: of what it is asked of. */
bool right_object_matches(const struct right_object *o, const char *principal, const char *name,
	const char *owner);
/* The more specific the higher: 0 to 3. */
unsigned right_object_rank(enum right_object_kind kind);

struct right {
	bool allow;
	uint64_t actions; /* bits by number; all of them: any */
	struct right_object object;
	char why[2 * RIGHT_WORD_BYTES]; /* for people */
};
struct rights {
	char of[65];
	size_t n;
	struct right right[RIGHTS_MAX];
	char otherwise[2 * RIGHT_WORD_BYTES]; /* why, where none of them speaks of it */
};

/* The restrictions in `text`, of the principal `of`. ERR_SYNTAX: one is malformed, says a word that is not
 * known here, or there are too many: *out denies everything then, and says so. */
int rights_parse(const char *text, const char *of, struct rights *out, struct errmsg *em);
/* 0 or ERR_DENIED; *why (may be NULL) says which decided. Borrowed. r NULL: 0. */
int rights_check(const struct rights *r, const char *action, const char *principal,
	const char *name, const char *owner, const char **why);
