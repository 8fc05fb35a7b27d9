/* Time: see clock.h. */
#include "base/clock.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "base/fault.h"

int64_t clock_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000000 + ts.tv_nsec / 1000;
}

int64_t clock_ms(void)
{
	return clock_us() / 1000;
}

int64_t clock_wall_ms(void)
{
	static int64_t shift_ms;
	static int known;
	struct timespec ts;

	if (!known) {
		const char *s = getenv("TOS_CLOCK_SHIFT_S");

		shift_ms = s ? strtoll(s, NULL, 10) * 1000 : 0;
		known = 1;
	}
	clock_gettime(CLOCK_REALTIME, &ts);
#ifdef TOS_FAULTS
	ts.tv_sec += fault_clock_shift_ms() / 1000;
#endif
	return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000 + shift_ms;
}

const char *clock_text(int64_t wall_ms, char buf[CLOCK_TEXT_BYTES])
{
	time_t s = (time_t)(wall_ms / 1000);
	int ms = (int)(wall_ms % 1000);
	struct tm tm;
	char day[24];

	if (ms < 0) {
		ms += 1000;
		s--;
	}
	if (!gmtime_r(&s, &tm))
		return "-";
	strftime(day, sizeof(day), "%Y-%m-%dT%H:%M:%S", &tm);
	snprintf(buf, CLOCK_TEXT_BYTES, "%s.%03dZ", day, ms % 1000);
	return buf;
}
