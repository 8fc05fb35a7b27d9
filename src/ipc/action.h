/*
 * Named actions: steps that need more than a sandbox gives, which the host's configuration lists one
 * by one. Each is a program with its arguments; into these go a few values of fixed kinds, and nothing
 * else. tosd runs them, tos-kernel asks for them by name; both check what is asked by these functions,
 * each against the table that it has read itself.
 *
 * Nothing here allocates. Source: doc/decisions/actions.md
 */
#pragma once

#include <stddef.h>

#include "base/err.h"
#include "ipc/tosd_msg.h"

enum action_kind {
	ACTION_ADDRESS = 1, /* IPv4 or IPv6, numeric */
	ACTION_ADDRESS4,
	ACTION_ADDRESS6,
	ACTION_NAME,   /* 1 to 64 of A-Z a-z 0-9 . _ -, beginning with a letter, a digit or _ */
	ACTION_NUMBER, /* decimal, up to 18 digits */
	ACTION_PORT,   /* 1 to 65535 */
	ACTION_DIGEST, /* 64 lower-case hexadecimal digits */
};
const char *action_kind_word(uint32_t kind); /* "?" */

/* A value as it goes into the program's arguments: addresses and numbers in one spelling of each. No
 * kind lets through what begins with '-', a space, or what a shell would take for more than a word.
 * ERR_USAGE says what was wanted. */
int action_value(
	uint32_t kind, const char *given, char out[TOSD_ACTION_VALUE], struct errmsg *em);

/* Of the configuration, each fails with ERR_CONFIG. "NAME:KIND", or KIND alone for both. */
int action_arg_add(struct tosd_action *a, const char *text, struct errmsg *em);
/* The program's path, then each of its arguments. */
int action_word_add(struct tosd_action *a, const char *word, struct errmsg *em);
/* Whether the whole makes sense; for tosd also whether it is well-formed. */
int action_check(const struct tosd_action *a, struct errmsg *em);

/* The program's path and arguments, with `{NAME}` replaced by values that were asked for, each with a
 * NUL behind it; *n is how many. ERR_USAGE for a wrong number of values or a bad one, ERR_TOO_LARGE. */
int action_expand(const struct tosd_action *a, uint32_t n_values,
	const char values[][TOSD_ACTION_VALUE], char *out, size_t cap, uint32_t *n,
	struct errmsg *em);

/* NULL: there is none of that name. */
const struct tosd_action *action_find(
	const struct tosd_action *table, size_t n, const char *name);
