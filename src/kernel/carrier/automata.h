/* What extensions gave to watch a carrier in this stay (automata.c). */
#pragma once

#include "kernel/kernel.h"

/* A text as core/automaton.h has it, from the hook with this inbox. ERR_SYNTAX, ERR_LIMIT, ... */
int automata_add(
	struct resident *r, const char *by, const struct tos_value *text, struct errmsg *em);
void automata_free(struct resident *r);
/* May it do that? 0, or ERR_DENIED, which is written down; *ended: it was faulted for that. */
int automata_post(struct resident *r, enum post_kind kind, struct slice dest, bool *ended,
	struct errmsg *why);
int automata_go(struct resident *r, const char *dest, bool *ended, struct errmsg *why);
int automata_clone(struct resident *r, struct slice dest, bool *ended, struct errmsg *why);
int automata_inbox(struct resident *r, const char *name, bool *ended, struct errmsg *why);
/* A run that begins again does so from here; it begins again. */
void automata_keep(struct resident *r);
void automata_back(struct resident *r);
void automata_put(const struct resident *r, struct tos_value *row);
void automata_read(struct resident *r, const struct tos_value *list); /* of a row; NULL: none */
struct tos_value *automata_show(const struct resident *r);            /* [{by, state, text}] */
