/*
 * CPU shares: how much of a processor a carrier, and all carriers of one owner, may use in the long
 * run. Each has an account of microseconds that fills at that rate, up to a second's worth; who is
 * in debt is paused in its tos-vm until the debt is paid, so that what is used on average is the
 * share exactly, however long one slice was.
 */
#include "kernel/carrier/account.h"

#include "base/clock.h"
#include "kernel/carrier/resident.h"
#include "kernel/carrier/vms.h"

static void throttle(struct resident *r, const char *label)
{
	if (r->throttled || !r->vm_runs)
		return;
	r->throttled = true;
	metric_add(r->k->metrics, "limits_exceeded_total", label, 1);
	if (r->state == SHELL_RUNNING)
		vm_freeze(r, true);
}

void share_open(struct resident *r)
{
	rate_init(&r->cpu_share, (int64_t)r->k->config.cpu_share * 10000, clock_ms());
}

void share_used(struct resident *r, int64_t cpu_us)
{
	struct rate *owner = account_share(r);
	int64_t now = clock_ms();
	struct resident *other;
	size_t it = 0;

	if (rate_charge(&r->cpu_share, cpu_us, now))
		throttle(r, "limit=\"cpu_share\"");
	if (!owner || !rate_charge(owner, cpu_us, now))
		return;
	while ((other = map_next(r->k->residents, &it, NULL, NULL)))
		if (account_share(other) == owner)
			throttle(other, "limit=\"cpu_share_per_principal\"");
}

void shares_tick(struct kernel *k, int64_t now_ms)
{
	struct resident *r;
	size_t it = 0;

	if (!k->config.cpu_share && !k->config.cpu_share_per_principal)
		return;
	while ((r = map_next(k->residents, &it, NULL, NULL))) {
		struct rate *owner = r->throttled ? account_share(r) : NULL;

		if (!r->throttled || rate_charge(&r->cpu_share, 0, now_ms) ||
			(owner && rate_charge(owner, 0, now_ms)))
			continue;
		r->throttled = false;
		if (r->state == SHELL_RUNNING)
			vm_freeze(r, false);
	}
}
