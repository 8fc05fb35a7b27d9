/*
 * What the kernel does for carriers here is charged to them: who posts, logs or saves itself without
 * end has the kernel compute instead of itself, on the same processor, and would take several parts
 * of it. Measured is the time that its frames take as they come; what follows from them later
 * (extensions, the journal, the system's part) is shared out in proportion, from the kernel's CPU
 * time. Its tos-vm takes it from the carrier's turns among the others there, see src/vm/sched.c; a
 * tos-vm that does not has all its carriers share what the system gives to one process.
 */
#include "kernel/carrier/account.h"

#include <time.h>

#include "kernel/carrier/resident.h"
#include "kernel/carrier/vms.h"

/* Not more than so many times what was measured: the kernel works for others too. */
#define TIMES_MOST      4
#define CHARGE_LEAST_US 200

static int64_t process_cpu_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts);
	return (int64_t)ts.tv_sec * 1000000 + ts.tv_nsec / 1000;
}

void costs_init(struct kernel *k)
{
	list_init(&k->costs);
	k->costs_cpu_us = process_cpu_us();
}

void cost_note(struct resident *r, int64_t us)
{
	struct kernel *k = r->k;

	if (us <= 0)
		return;
	if (r->cost_us == 0)
		list_add(&k->costs, &r->costs);
	r->cost_us += us;
	k->costs_us += us;
}

static void charge(struct resident *r, int64_t us)
{
	if (us < CHARGE_LEAST_US)
		return;
	metric_add(r->k->metrics, "carriers_charged_us_total", NULL, (uint64_t)us);
	vm_charge(r, us);
}

void costs_tick(struct kernel *k)
{
	int64_t now_us = process_cpu_us(), used_us = now_us - k->costs_cpu_us,
		measured_us = k->costs_us;

	k->costs_cpu_us = now_us;
	k->costs_us = 0;
	if (used_us > TIMES_MOST * measured_us)
		used_us = TIMES_MOST * measured_us;
	while (!list_empty(&k->costs)) {
		struct resident *r = LIST_ITEM(k->costs.next, struct resident, costs);
		int64_t us = r->cost_us;

		list_del(&r->costs);
		r->cost_us = 0;
		charge(r, us * used_us / measured_us);
	}
}
