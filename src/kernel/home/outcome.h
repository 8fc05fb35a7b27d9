/* Of this room: a carrier's state and end (outcome.c). */
#pragma once

#include "kernel/kernel.h"

/* In memory; those who watch it are told. */
void home_state(struct kernel *k, struct home_record *h, enum shell_state state);
/* A fault that its place reports, with what it has brought so far. */
void home_fault(struct home_record *h, const struct tos_value *args);
