/* Of this room: a home record in memory (records.c), when it is written (saving.c) and read (loading.c). */
#pragma once

#include "kernel/kernel.h"

#define IN_MEMORY_MS     3600000 /* ended carriers are listed for an hour */
#define COMMAND_AGAIN_MS 1000    /* whoever has not answered is asked again */

/* Now, or with the tick after what is being journaled of it. */
void home_save(struct kernel *k, struct home_record *h);
/* Where it is now: soon, once for all that came meanwhile. */
void home_save_soon(struct home_record *h);
/* The next incarnation: home_put() writes it from here on. home_raised() when that has come out. */
void home_raise(struct home_record *h);
void home_raised(struct kernel *k, struct home_record *h, int rc);
/* From its row; what of it is in the store is counted against its owner. ERR_MALFORMED. */
int home_read(struct kernel *k, struct slice body, struct home_record **out);
