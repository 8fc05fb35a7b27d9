/* The states of a carrier as one table: see shell.h. What is not listed is refused. */
#include "core/shell.h"

#include <string.h>

#include "base/mem.h"

/* Expands to one rule for each state in which a carrier has not ended. */
#define UNENDED(ev, to)                                                                        \
	{ SHELL_ARRIVING, ev, to }, { SHELL_READY, ev, to }, { SHELL_RUNNING, ev, to },        \
		{ SHELL_SUSPENDED, ev, to }, { SHELL_DEPARTING, ev, to },                      \
	{                                                                                      \
		SHELL_FAULTED, ev, to                                                          \
	}

/* clang-format off */
static const struct {
	enum shell_state from;
	enum shell_event event;
	enum shell_state to;
} rules[] = {
	{ SHELL_ARRIVING,  SHELL_EV_ADMIT,    SHELL_READY     },
	{ SHELL_ARRIVING,  SHELL_EV_REFUSE,   SHELL_REFUSED   },
	{ SHELL_READY,     SHELL_EV_START,    SHELL_RUNNING   },
	{ SHELL_READY,     SHELL_EV_SUSPEND,  SHELL_SUSPENDED },
	{ SHELL_RUNNING,   SHELL_EV_SUSPEND,  SHELL_SUSPENDED },
	{ SHELL_SUSPENDED, SHELL_EV_RESUME,   SHELL_READY     },
	{ SHELL_RUNNING,   SHELL_EV_DEPART,   SHELL_DEPARTING },
	{ SHELL_DEPARTING, SHELL_EV_ACCEPTED, SHELL_GONE      },
	{ SHELL_DEPARTING, SHELL_EV_RETURNED, SHELL_READY     },
	{ SHELL_RUNNING,   SHELL_EV_FINISH,   SHELL_FINISHED  },
	{ SHELL_DEPARTING, SHELL_EV_FINISH,   SHELL_FINISHED  },
	{ SHELL_READY,     SHELL_EV_FAULT,    SHELL_FAULTED   },
	{ SHELL_RUNNING,   SHELL_EV_FAULT,    SHELL_FAULTED   },
	{ SHELL_SUSPENDED, SHELL_EV_FAULT,    SHELL_FAULTED   },
	{ SHELL_FAULTED,   SHELL_EV_RETRY,    SHELL_READY     },
	{ SHELL_GONE,      SHELL_EV_SUPERSEDE, SHELL_SUPERSEDED },
	{ SHELL_RUNNING,   SHELL_EV_REBOOT,   SHELL_READY     },
	{ SHELL_READY,     SHELL_EV_REBOOT,   SHELL_READY     },
	{ SHELL_SUSPENDED, SHELL_EV_REBOOT,   SHELL_SUSPENDED },
	{ SHELL_DEPARTING, SHELL_EV_REBOOT,   SHELL_DEPARTING },
	{ SHELL_FAULTED,   SHELL_EV_REBOOT,   SHELL_FAULTED   },
	UNENDED(SHELL_EV_KILL, SHELL_KILLED),
	UNENDED(SHELL_EV_SUPERSEDE, SHELL_SUPERSEDED),
	UNENDED(SHELL_EV_LOSE, SHELL_LOST),
};
/* clang-format on */

static const char *const state_words[SHELL_STATE_COUNT] = {
#define X(sym, word) word,
	SHELL_STATES(X)
#undef X
};
static const char *const event_words[SHELL_EVENT_COUNT] = {
#define X(sym, word) word,
	SHELL_EVENTS(X)
#undef X
};

int shell_next(enum shell_state from, enum shell_event ev, enum shell_state *to)
{
	for (size_t i = 0; i < ARRAY_LEN(rules); i++) {
		if (rules[i].from != from || rules[i].event != ev)
			continue;
		*to = rules[i].to;
		return 0;
	}
	return ERR_STATE;
}

const char *shell_state_word(enum shell_state s)
{
	return (unsigned)s < SHELL_STATE_COUNT ? state_words[s] : "?";
}

int shell_state_parse(const char *word)
{
	for (int i = 0; i < SHELL_STATE_COUNT; i++)
		if (strcmp(state_words[i], word) == 0)
			return i;
	return ERR_NOT_FOUND;
}

const char *shell_event_word(enum shell_event e)
{
	return (unsigned)e < SHELL_EVENT_COUNT ? event_words[e] : "?";
}

bool shell_ended(enum shell_state s)
{
	switch (s) {
	case SHELL_GONE:
	case SHELL_FINISHED:
	case SHELL_REFUSED:
	case SHELL_KILLED:
	case SHELL_SUPERSEDED:
	case SHELL_LOST:
		return true;
	default:
		return false;
	}
}
