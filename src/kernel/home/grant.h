/* Of this room: what is declared of kernels, and who goes on (grant.c). */
#pragma once

#include "kernel/kernel.h"

void ask_verb(struct kernel *k, struct request *rq); /* takes rq */
/* It is linked, so it is not dead. */
void declaration_lift(struct kernel *k, const char *kernel);
