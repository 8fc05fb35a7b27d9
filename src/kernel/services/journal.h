/* The inbox "Journal": what extensions keep on the disk. */
#pragma once

#include "kernel/kernel.h"

/* What there is, and how much of it each extension has; at start. */
int journal_load(struct kernel *k, struct errmsg *em);
void journal_tick(struct kernel *k, int64_t now_ms);
void journal_metrics(struct kernel *k);
extern const struct verb journal_verbs[];
