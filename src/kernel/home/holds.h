/* Of this room: asking kernels whether they hold a carrier (holds.c). */
#pragma once

#include "kernel/kernel.h"

/* Ask that kernel; dead: the destination that is declared dead, or "". */
void holds_ask(struct kernel *k, struct home_record *h, const char *kernel, const char *dead);
/* Its place, or news of another, was heard of: what was denied before is forgotten. */
void holds_heard(struct home_record *h);
/* If its place has no copy any more it is lost, once nobody else may have one. */
void holds_settle(struct kernel *k, struct home_record *h);
