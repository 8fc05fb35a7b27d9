/*
 * The states of a carrier (design: "The shell's states"): one table, and the only function that
 * assigns ->state.
 */
#pragma once

#include <stddef.h>

#include "base/err.h"

/* clang-format off */
#define SHELL_STATES(X)                                                                            \
	X(SHELL_ARRIVING, "arriving") X(SHELL_READY, "ready") X(SHELL_RUNNING, "running")              \
	X(SHELL_SUSPENDED, "suspended") X(SHELL_DEPARTING, "departing") X(SHELL_GONE, "gone")          \
	X(SHELL_FINISHED, "finished") X(SHELL_FAULTED, "faulted") X(SHELL_REFUSED, "refused")          \
	X(SHELL_KILLED, "killed") X(SHELL_SUPERSEDED, "superseded") X(SHELL_LOST, "lost")
enum shell_state {
#define X(sym, word) sym,
	SHELL_STATES(X)
#undef X
	SHELL_STATE_COUNT
};
#define SHELL_EVENTS(X)                                                                            \
	X(SHELL_EV_ADMIT, "admit") X(SHELL_EV_REFUSE, "refuse") X(SHELL_EV_START, "start")             \
	X(SHELL_EV_SUSPEND, "suspend") X(SHELL_EV_RESUME, "resume") X(SHELL_EV_DEPART, "depart")       \
	X(SHELL_EV_ACCEPTED, "accepted") X(SHELL_EV_RETURNED, "returned") X(SHELL_EV_FINISH, "finish") \
	X(SHELL_EV_FAULT, "fault") X(SHELL_EV_RETRY, "retry") X(SHELL_EV_KILL, "kill")                 \
	X(SHELL_EV_SUPERSEDE, "supersede") X(SHELL_EV_LOSE, "lose") X(SHELL_EV_REBOOT, "reboot")
enum shell_event {
#define X(sym, word) sym,
	SHELL_EVENTS(X)
#undef X
	SHELL_EVENT_COUNT
};
/* clang-format on */
/* ADMIT arriving->ready; REFUSE arriving->refused; START ready->running; SUSPEND
 * running|ready->suspended; RESUME suspended->ready (its VM may have to be started anew) ;
 * DEPART running->departing; ACCEPTED departing->gone; RETURNED departing->ready (refused
 * there); FINISH running|departing->finished; FAULT running|ready|suspended->faulted; RETRY
 * faulted->ready; KILL any unended->killed; SUPERSEDE any unended (and gone)->superseded; LOSE
 * any unended->lost; REBOOT running|ready->ready, suspended, departing and faulted stay.
 * Everything else is refused. */

/* 0 and *to, or ERR_STATE. Pure: a unit test walks every pair. */
int shell_next(enum shell_state from, enum shell_event ev, enum shell_state *to);
const char *shell_state_word(enum shell_state s);
int shell_state_parse(const char *word); /* enum shell_state or ERR_NOT_FOUND */
const char *shell_event_word(enum shell_event e);
#include <stdbool.h>
bool shell_ended(enum shell_state s); /* finished, refused, killed, superseded, lost, gone */
