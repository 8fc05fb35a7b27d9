/* Of this room: who waits for an outcome (waiters.c). */
#pragma once

#include "kernel/kernel.h"

/* The outcome, or the fault, is known: answer them. */
void waiters_tell(struct home_record *h);
void waiters_fail(struct home_record *h, int rc, const char *text);
/* Those whose time is over. */
void waiters_tick(struct home_record *h, int64_t now_ms);
