/*
 * The firewall: the one check on every post and every act. Rules (principal or role, action,
 * object) -> allow or deny, the most specific first; nothing matches: deny.
 *
 * A rule as text:  allow|deny WHO ACTION OBJECT
 *   WHO     author:NAME  principal:NAME  carrier-of:NAME  role:admin|owner|author|officer
 *           class:carrier|client|extension|kernel  kernel:NAME  *
 *   ACTION  post launch arrive clone depart kill suspend resume retry resolve declare read revoke
 *           enroll remove backup drain set reload put admit run stay network  *
 *   OBJECT  an inbox name, a kernel name, a carrier's owner as "owner:NAME", "own" (the
 *           principal's own carriers), a program's path, a directory with a star
 *           behind ("/usr/bin/" and *: what lies below it), *
 * principal:NAME is that principal in person, carrier-of:NAME its carriers; kernel:NAME is
 * whatever comes from that kernel. author:NAME is code signed by NAME, whoever launched it: such rules
 * only narrow. What the most specific of them denies is denied, whatever else allows it; what they
 * allow must be allowed besides. Specificity: WHO name > role > class > *; then ACTION exact
 * > *; then OBJECT exact > /DIR/ > own > *; deny before allow at a tie. To run a program takes a
 * rule that says run: ACTION * allows all but that.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"
#include "base/right.h"

struct firewall;

struct subject {
	const char *class_name; /* "carrier", "client", "extension", "kernel" */
	const char *principal;  /* owner of the carrier, or the signer of an act; "" if none */
	unsigned roles;         /* as in seal.h; lesser of author and owner for carriers */
	const char *kernel;     /* where it comes from; "" for here */
	const char *author; /* who signed the carrier's code; "" nobody, or not known here */
	/* What the certificates of principal and author allow at most (base/right.h); NULL: they say
	 * nothing. Borrowed. */
	const struct rights *owner_only, *author_only;
};
struct object {
	const char *name;  /* inbox, kernel, ... */
	const char *owner; /* of the carrier concerned, or "" */
};

struct firewall *firewall_new(void);
void firewall_free(struct firewall *f);
/* ERR_SYNTAX names the word */
int firewall_add(struct firewall *f, const char *rule, struct errmsg *em);
/* What host policy allows and the restrictions in the certificates allow, too: the intersection.
 * 0 or ERR_DENIED; *why (may be NULL) is the deciding rule's text or "no rule allows it".
 * Borrowed. Decisions are cached. */
int firewall_check(struct firewall *f, const struct subject *s, const char *action,
	const struct object *o, const char **why);
/* The restrictions alone: 0 or ERR_DENIED, then *why (may be NULL) says which. */
int firewall_narrow(
	const struct subject *s, const char *action, const struct object *o, const char **why);
/* Which rules speak to that, by their number in the order in which they were added, the deciding one
 * first. Their count; at most `most` are written. */
size_t firewall_matches(const struct firewall *f, const struct subject *s, const char *action,
	const struct object *o, size_t *out, size_t most);
bool firewall_rule_allows(const struct firewall *f, size_t i);
size_t firewall_count(const struct firewall *f);
const char *firewall_rule(const struct firewall *f, size_t i);
