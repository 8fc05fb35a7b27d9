/* Folders that the owner protects (seals.c). */
#pragma once

#include "kernel/kernel.h"

struct hop;
/* A new carrier's briefcase is what its ticket says. */
int seals_launched(const struct ticket *t, struct slice briefcase, struct errmsg *em);
/* May the carrier have this briefcase instead of the one it has? ERR_DENIED names the folder. */
int seals_kept(const struct resident *r, struct slice briefcase, struct errmsg *em);
/* What came against ticket and chain; ERR_SIGNATURE names the folder and who changed it. */
int seals_arrived(
	struct kernel *k, const struct resident *r, const struct hop *last, struct errmsg *em);
/* For the hop record; NULL where no folder is append-only. */
struct tos_value *seals_grown(const struct ticket *t, struct slice briefcase);
void seals_show(const struct ticket *t, struct tos_value *m);
struct tos_value *seals_words(const struct ticket *t); /* folder -> "sealed" or "append" */
