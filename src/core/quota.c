/* Rates and usage: see quota.h. Plain arithmetic; the caller brings the clock. */
#include "core/quota.h"

void rate_init(struct rate *r, int64_t per_s, int64_t now_ms)
{
	/* A thousandth of a token is the unit: per_s tokens in 1000 ms is per_s thousandths in
	 * one. */
	r->per_s = per_s < 0 ? 0 : per_s > INT64_MAX / 2000 ? INT64_MAX / 2000 : per_s;
	r->level_milli = r->per_s * 1000;
	r->at_ms = now_ms;
}

static void rate_refill(struct rate *r, int64_t now_ms)
{
	int64_t room = r->per_s * 1000 - r->level_milli;
	int64_t passed_ms = now_ms - r->at_ms;

	if (passed_ms <= 0)
		return;
	/* A debt may take longer than a second. */
	r->level_milli += r->per_s > 0 && passed_ms >= (room + r->per_s - 1) / r->per_s
				  ? room
				  : passed_ms * r->per_s;
	r->at_ms = now_ms;
}

bool rate_take(struct rate *r, int64_t n, int64_t now_ms)
{
	if (n < 0 || n > r->per_s)
		return false;
	rate_refill(r, now_ms);
	if (r->level_milli < n * 1000)
		return false;
	r->level_milli -= n * 1000;
	return true;
}

bool rate_spend(struct rate *r, int64_t n, int64_t now_ms)
{
	if (r->per_s <= 0)
		return true;
	rate_refill(r, now_ms);
	if (n < 0 || r->level_milli <= 0)
		return false;
	r->level_milli -= n > INT64_MAX / 4000 ? INT64_MAX / 4 : n * 1000;
	return true;
}

bool rate_charge(struct rate *r, int64_t n, int64_t now_ms)
{
	int64_t least = -(INT64_MAX / 4);

	if (r->per_s <= 0)
		return false;
	rate_refill(r, now_ms);
	if (n > 0)
		r->level_milli -= n > INT64_MAX / 4000 ? INT64_MAX / 4 : n * 1000;
	if (r->level_milli < least)
		r->level_milli = least;
	return r->level_milli < 0;
}

void limits_least(
	int64_t out[LIMIT_COUNT], const int64_t a[LIMIT_COUNT], const int64_t b[LIMIT_COUNT])
{
	for (int i = 0; i < LIMIT_COUNT; i++) {
		int64_t x = a[i], y = b[i];

		/* A negative one is not stated. */
		out[i] = x < 0 ? y : y < 0 ? x : x < y ? x : y;
	}
}

int usage_add(struct usage *u, enum limit_id id, int64_t n, struct errmsg *em)
{
	int64_t used = u->used[id], limit = u->limit[id];

	if (n < 0) { /* given back */
		u->used[id] = used + n > 0 ? used + n : 0;
		return 0;
	}
	if (n > INT64_MAX - used || (limit >= 0 && used + n > limit)) {
		u->exceeded[id]++;
		return err_set(em, ERR_LIMIT, "limit %s: used %lld of %lld%s%s",
			limit_names[id], (long long)used, (long long)limit,
			limit_units[id][0] ? " " : "", limit_units[id]);
	}
	u->used[id] = used + n;
	return 0;
}
