/* Time. Deadlines use the monotonic clock; what is signed or stored uses the wall clock. */
#pragma once

#include <stddef.h>
#include <stdint.h>

int64_t clock_ms(void); /* monotonic, ms */
int64_t clock_us(void); /* monotonic, us */
/* since 1970-01-01 UTC, ms; tests may shift it by TOS_CLOCK_SHIFT_S */
int64_t clock_wall_ms(void);

/* RFC 3339 in UTC with milliseconds, e.g. 2026-11-22T01:02:03.456Z. Returns buf. */
#define CLOCK_TEXT_BYTES 32
const char *clock_text(int64_t wall_ms, char buf[CLOCK_TEXT_BYTES]);
