/*
 * The numbers of <tos/errors.h> are those of base/err.h: one list for us, one that extensions can
 * include without us. Compiled, never run.
 */
#include <tos/errors.h>

#include "base/err.h"

#define SAME(symbol, number, word, text)                                                       \
	_Static_assert(                                                                        \
		(int)TOS_##symbol == (int)symbol, "<tos/errors.h> differs from base/err.h");
ERR_LIST(SAME)
#undef SAME
