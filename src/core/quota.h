/* Counting: rates, usage against limits, accounts of principals. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "wire/carrier.h"

/* A token bucket: at most `per_s` in a second, bursts of as much. */
struct rate {
	int64_t per_s, level_milli, at_ms;
};
void rate_init(struct rate *r, int64_t per_s, int64_t now_ms);
bool rate_take(struct rate *r, int64_t n, int64_t now_ms);
/* For amounts that may be larger than a second's worth: passes while nothing is owed, and what
 * goes beyond has to be made up for before the next one passes. per_s 0: no bound. */
bool rate_spend(struct rate *r, int64_t n, int64_t now_ms);

/* Takes it whatever is there; true while something is owed. per_s 0: never. */
bool rate_charge(struct rate *r, int64_t n, int64_t now_ms);

struct usage {
	int64_t used[LIMIT_COUNT];
	int64_t limit[LIMIT_COUNT];
	uint64_t exceeded[LIMIT_COUNT];
};
/* Take the least of both for each limit. */
void limits_least(
	int64_t out[LIMIT_COUNT], const int64_t a[LIMIT_COUNT], const int64_t b[LIMIT_COUNT]);
/* Add n if it stays within the limit; else count and ERR_LIMIT with "limit NAME: used U of L"
 * in em. */
int usage_add(struct usage *u, enum limit_id id, int64_t n, struct errmsg *em);
