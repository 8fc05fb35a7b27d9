/*
 * Whose turn it is, and how it ends.
 *
 * Carriers that are ready stand in two queues: `woken`, what has just become so, and `spent`,
 * what used up its last slice. Woken ones come first, so that a message is not kept waiting by
 * what computes, but not for ever: each carrier has a credit of CPU time, which its turn among the
 * spent fills, and so does its part of what the others use while it waits. Who wakes without credit,
 * because it wakes all the time or because the kernel says (CHARGE) that it has much work with it,
 * waits for its turn among the spent; who owes more than a turn gives is passed over. What could not
 * be interrupted in time costs many times over, for meanwhile nobody else could be served.
 *
 * No hook stands while Lua runs: a count hook, however rare, halves its speed. A timer's signal,
 * or SIGIO where something has come for another carrier, sets a hook for the next instruction of
 * the running thread, and the hook yields. A coroutine that yields so is left by co_step() in
 * env.c, and so are all around it, up to carrier_run().
 *
 * Where it can't yield (a metamethod called by a C function, a message handler) the hook raises
 * an error once the slice is OVERDUE_US too long. Where it does not come back from C at all the
 * handler leaves it by a jump after JUMP_US: that carrier's heap is dropped and never looked at
 * again. The jump is not taken inside the allocator or where C memory of ours is being changed
 * (`host`); if that lasts the kernel is told (STUCK), and ends the process.
 *
 * What the process uses is charged to the carrier for which it was used: CPU time, read once at
 * the end of a slice.
 */
#include "vm/vm.h"

#include <errno.h>
#include <fcntl.h>
#include <lauxlib.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <string.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/map.h"
#include "base/mem.h"
#include "wire/vmproto.h"

#define SLICE_US   ((int64_t)1000)                /* while others are ready */
#define ALONE_US   ((int64_t)50000)               /* then it only shows that it lives */
#define OVERDUE_US ((int64_t)8000 * SCHED_SLOWER) /* then an error where it can't yield */
/* Then it is left by a jump; later where what Lua itself does in one go takes longer: its tables
 * grow, and its collector marks them, by 2 ns a byte. */
#define JUMP_US        ((int64_t)50000 * SCHED_SLOWER)
#define JUMP_PER_US    512 /* bytes */
#define HOST_PER_US    16
#define STUCK_US       ((int64_t)50000 * SCHED_SLOWER) /* after that the kernel is told */
#define ALARM_LEAST_US ((int64_t)50)
#define TELL_US        ((int64_t)50000) /* of CPU time, of one or of all, that is told late */
#define WOKEN_US       ((int64_t)4000)  /* of woken carriers before a spent one has a turn */
#define WOKEN_LEAST_US ((int64_t)100)
#define CREDIT_MOST_US ((int64_t)2000)
#define DEBT_MOST_US   ((int64_t)500000)
/* Where more than so many are ready one that wakes is kept back only for more than this part. */
#define PARTS_MOST 50
/* Whose slices always run for so long beyond their end pays for it twice, and for twice that four times: so it is
 * for who waits. A first one counts less, and one a while ago not at all. */
#define OVERRUN_US      ((int64_t)250 * SCHED_SLOWER)
#define OVERRUNS        8
#define OVERRUN_PAST_US ((int64_t)10000000)
#define PASSED_OVER_MAX 1000 /* in one turn */
#define SETTLE_US       ((int64_t)500000)
#define TURN_MOST_MS    60000
#ifdef TOS_HOSTILE
#define FOLD_US ((int64_t)1000)
#else
/* Of waiting, before the first folding; then twice as long, and so on. */
#define FOLD_US ((int64_t)4000000)
#endif

struct vm_sched vm_sched;
static struct vm_port *the_port;
static jmp_buf out_of_slice;

static int64_t clock_read(clockid_t id)
{
	struct timespec ts;

	clock_gettime(id, &ts);
	return (int64_t)ts.tv_sec * 1000000 + ts.tv_nsec / 1000;
}

static int64_t cpu_now(void)
{
	return clock_read(CLOCK_PROCESS_CPUTIME_ID);
}

static int64_t now_us(void)
{
	return clock_read(CLOCK_MONOTONIC);
}

/* ---- the end of a slice */

static void on_hook(lua_State *L, lua_Debug *ar)
{
	struct vm_carrier *c = carrier_of(L);

	(void)ar;
	lua_sethook(L, NULL, 0, 0);
	vm_sched.host = 0; /* an error may have jumped over the line that says so */
	if (!vm_sched.preempt)
		return;
	if (lua_isyieldable(L) && !c->unyieldable) {
		c->preempted = true;
		lua_yield(L, 0);
		return;
	}
	/* The next signal sets it again; from here on it stays, or a pcall around would go on. */
	if (vm_sched.overdue) {
		lua_sethook(L, on_hook, LUA_MASKCOUNT, 1);
		luaL_error(L, "too long without a pause, where none can be made");
	}
}

/* Setting a hook marks every call on the stack, 5 ms where a recursion has run away. One that has not
 * fired yet is not set again: while such a stack is torn down or moved, in C, each millisecond would
 * cost five, and the carrier look hung. */
static void hook_set(lua_State *L)
{
	if (lua_gethook(L) != on_hook)
		lua_sethook(L, on_hook, LUA_MASKCOUNT, 1);
}

static void preempt(void)
{
	vm_sched.preempt = 1;
	hook_set(vm_sched.thread);
}

void sched_thread(lua_State *L)
{
	vm_sched.thread = L;
	if (vm_sched.preempt)
		hook_set(L);
}

static void arm(int64_t us)
{
	struct itimerval t = { .it_value = {
				       .tv_sec = us / 1000000, .tv_usec = us % 1000000 } };

	vm_sched.armed_us = now_us() + us;
	setitimer(ITIMER_REAL, &t, NULL);
}

/* From the handler, with nothing half written: STUCK, as port.c would make it; a number has one
 * encoding only, the shortest. */
static void tell_stuck(const struct vm_carrier *c)
{
	static const struct {
		uint8_t head;
		int bytes;
		uint64_t most;
	} forms[] = { { 0x18, 1, UINT8_MAX }, { 0x19, 2, UINT16_MAX }, { 0x1a, 4, UINT32_MAX },
		{ 0x1b, 8, UINT64_MAX } };
	uint8_t frame[16] = { 0, 0, 0, 4, 0x82, 0x18, VM_STUCK, (uint8_t)c->number };
	size_t form = 0;

	if (c->number >= 24) {
		while (c->number > forms[form].most)
			form++;
		frame[7] = forms[form].head;
		frame[3] = (uint8_t)(4 + forms[form].bytes);
		for (int i = 0; i < forms[form].bytes; i++)
			frame[8 + i] =
				(uint8_t)(c->number >> (8 * (forms[form].bytes - 1 - i)));
	}
	vm_sched.told_stuck = 1;
	if (write(the_port->fd, frame, 4 + (size_t)frame[3]) < 0)
		return; /* the kernel sees it by the CPU time */
}

static void slice_is_due(struct vm_carrier *c, int64_t cpu_us)
{
	int64_t late = cpu_us - vm_sched.most_us;
	int64_t jump_us = JUMP_US + (int64_t)c->used / JUMP_PER_US;

	preempt();
	if (late > OVERDUE_US)
		vm_sched.overdue = 1;
	if (late > jump_us && !vm_sched.host && vm_sched.jump_ok)
		longjmp(out_of_slice, 1);
	/* What is ours goes over all it has, at worst: freezing it. */
	if (vm_sched.host)
		jump_us += (int64_t)c->used / HOST_PER_US;
	if (late > jump_us + STUCK_US && !vm_sched.told_stuck && !the_port->writing)
		tell_stuck(c);
}

/* Until the next look. A short slice may have begun before this alarm was set, or had to wait for the core. */
static int64_t next_us(int64_t cpu_us)
{
	int64_t left = vm_sched.most_us - cpu_us;

	return left <= 0 || left >= SLICE_US ? SLICE_US
	       : left < ALARM_LEAST_US       ? ALARM_LEAST_US
					     : left;
}

static void on_alarm(int signo)
{
	struct vm_carrier *c = vm_sched.running;
	int err = errno;
	int64_t now, cpu_us;

	(void)signo;
	vm_sched.armed_us = 0;
	if (!c)
		return;
	now = now_us();
	cpu_us = cpu_now() - vm_sched.cpu_began_us;
	/* By CPU time: that the process had to wait is not what the carrier used. */
	if (vm_sched.preempt || cpu_us >= vm_sched.most_us ||
		now >= vm_sched.next_deadline_us || c->cpu_us + cpu_us > c->cpu_most_us)
		slice_is_due(c, cpu_us);
	port_flush_alarm(the_port);
	arm(next_us(cpu_us));
	errno = err;
}

static void on_io(int signo)
{
	int err = errno;

	(void)signo;
	vm_sched.came = 1;
	if (vm_sched.running)
		preempt();
	errno = err;
}

static void async_set(bool on)
{
	int flags;

	if (vm_sched.async == on)
		return;
	vm_sched.async = on;
	flags = fcntl(the_port->fd, F_GETFL);
	fcntl(the_port->fd, F_SETFL, on ? flags | O_ASYNC : flags & ~O_ASYNC);
}

static void handler_set(int signo, void (*fn)(int))
{
	/* Not blocked while it runs: a jump out of it leaves no mask to put right. */
	struct sigaction sa = { .sa_handler = fn, .sa_flags = SA_NODEFER | SA_RESTART };

	sigemptyset(&sa.sa_mask);
	sigaction(signo, &sa, NULL);
}

void sched_init(struct vm_port *p)
{
	the_port = p;
	list_init(&vm_sched.woken);
	list_init(&vm_sched.spent);
	list_init(&vm_sched.untold);
	list_init(&vm_sched.unsettled);
	for (int i = 0; i < FOLD_LEVELS; i++)
		list_init(&vm_sched.unfolded[i]);
	vm_sched.next_deadline_us = INT64_MAX;
	handler_set(SIGALRM, on_alarm);
	handler_set(SIGIO, on_io);
	vm_sched.cpu_mark_us = cpu_now();
}

/* ---- the queues */

static void enqueue(struct vm_carrier *c, struct list *q)
{
	if (c->queued || c->paused)
		return;
	list_add(q, &c->queue);
	c->queued = true;
	c->fresh = q == &vm_sched.woken;
	vm_sched.n_woken += c->fresh;
	vm_sched.n_ready++;
}

/* It was made to wait before its slice was over: it is the next one. */
static void enqueue_first(struct vm_carrier *c)
{
	if (!c->paused)
		enqueue(c, vm_sched.spent.next);
}

static void enqueue_last(struct vm_carrier *c)
{
	c->had_turn = false;
	enqueue(c, &vm_sched.spent);
}

static void dequeue(struct vm_carrier *c)
{
	if (!c->queued)
		return;
	list_del(&c->queue);
	c->queued = false;
	vm_sched.n_woken -= c->fresh;
	vm_sched.n_ready--;
}

static void credit_give(struct vm_carrier *c, int64_t us)
{
	c->credit_us += us;
	if (c->credit_us > CREDIT_MOST_US)
		c->credit_us = CREDIT_MOST_US;
}

void sched_owes(struct vm_carrier *c, int64_t us)
{
	c->credit_us -= us < DEBT_MOST_US ? us : DEBT_MOST_US;
	if (c->credit_us < -DEBT_MOST_US)
		c->credit_us = -DEBT_MOST_US;
}

/* To one that has not been ready: what was its due meanwhile. */
static void awake(struct vm_carrier *c)
{
	if (c->queued)
		return;
	credit_give(c, (vm_sched.fair_ns - c->fair_ns) / 1000);
	c->fair_ns = vm_sched.fair_ns;
	if (c->credit_us > 0 || list_empty(&vm_sched.spent))
		enqueue(c, &vm_sched.woken);
	else
		enqueue_last(c);
}

void sched_wake(struct vm_carrier *c)
{
	c->state = VM_READY_TO_RUN;
	awake(c);
}

void sched_note_deadline(const struct vm_carrier *c)
{
	int64_t ms = carrier_deadline(c);

	if (ms < vm_sched.next_deadline_us / 1000)
		vm_sched.next_deadline_us = ms * 1000;
}

void sched_pause(struct vm_carrier *c, bool pause)
{
	c->paused = pause;
	if (pause)
		dequeue(c);
	else if (c->state == VM_READY_TO_RUN)
		awake(c);
}

void sched_forget(struct vm_carrier *c)
{
	dequeue(c);
	list_del(&c->untold);
	list_del(&c->unsettled);
	list_del(&c->unfolded);
}

/* ---- accounts */

void sched_charge(struct vm_carrier *c)
{
	int64_t now = cpu_now();

	c->cpu_us += now - vm_sched.cpu_mark_us;
	vm_sched.cpu_mark_us = now;
}

int64_t sched_cpu_us(const struct vm_carrier *c)
{
	return c->cpu_us + (vm_sched.running == c ? cpu_now() - vm_sched.cpu_mark_us : 0);
}

/* ---- turns */

static void slice_begin(struct vm_carrier *c, int64_t now, int64_t most_us)
{
	vm_sched.most_us = most_us;
	vm_sched.cpu_began_us = vm_sched.cpu_mark_us;
	vm_sched.preempt = vm_sched.overdue = vm_sched.host = vm_sched.told_stuck = 0;
	vm_sched.thread = c->co;
	vm_sched.jump_ok = 1;
	vm_sched.running = c;
	if (vm_sched.came && !c->fresh) /* since we last looked */
		preempt();
	if (most_us > SLICE_US)
		most_us = SLICE_US;
	if (!vm_sched.armed_us || vm_sched.armed_us > now + most_us)
		arm(most_us);
}

/* That the process lives, and for whom it computes: where many share it none may have used so much by itself
 * for long. */
static void usage_tell(void)
{
	while (!list_empty(&vm_sched.untold)) {
		struct vm_carrier *c =
			LIST_ITEM(vm_sched.untold.next, struct vm_carrier, untold);

		list_del(&c->untold);
		if (c->state != VM_ENDED)
			carrier_send_usage(c);
	}
	vm_sched.told_us = vm_sched.cpu_mark_us;
}

static void slice_end(struct vm_carrier *c)
{
	vm_sched.running = NULL;
	vm_sched.host = 0;
	sched_charge(c);
	if (c->state != VM_ENDED && c->cpu_us > c->cpu_most_us)
		carrier_over_cpu(c);
	list_del(&c->untold);
	if (c->state != VM_ENDED)
		list_add(&vm_sched.untold, &c->untold);
	if (vm_sched.cpu_mark_us - vm_sched.told_us >= TELL_US)
		usage_tell();
}

/* Nothing local lives on over the jump. From its landing on no handler may touch what was left. */
static void slice_run(void)
{
	struct vm_carrier *c;

	if (setjmp(out_of_slice) == 0) {
		carrier_run(vm_sched.running);
		vm_sched.host = 1;
		return;
	}
	c = vm_sched.running;
	vm_sched.running = NULL;
	vm_sched.jump_ok = 1;
	sched_charge(c);
	carrier_dropped(c);
}

static void waits(struct vm_carrier *c)
{
	sched_note_deadline(c);
	c->settle_us = now_us() + SETTLE_US;
	if (c->used > c->settled + c->settled / 4) {
		list_del(&c->unsettled);
		list_add(&vm_sched.unsettled, &c->unsettled);
	}
	list_del(&c->unfolded);
	list_add(&vm_sched.unfolded[c->fold_level], &c->unfolded);
}

/* Folding and unfolding cost what some hundred messages do: whoever is woken soon after it waits longer
 * for the next, and whoever slept for long a little less. */
static void note_unfold(struct vm_carrier *c, int64_t now)
{
	int64_t slept = now - (c->settle_us - SETTLE_US);

	if (!c->heap.folded)
		return;
	if (slept < 8 * (FOLD_US << c->fold_level)) {
		if (c->fold_level < FOLD_LEVELS - 1)
			c->fold_level++;
	} else if (c->fold_level) {
		c->fold_level--;
	}
}

/* One of those that wait for long. Returns when to come again. */
static int64_t fold(int64_t now)
{
	int64_t next = INT64_MAX;

	for (int i = 0; i < FOLD_LEVELS; i++) {
		struct list *q = &vm_sched.unfolded[i];
		struct vm_carrier *c = LIST_ITEM(q->next, struct vm_carrier, unfolded);

		if (list_empty(q))
			continue;
		int64_t at = c->settle_us - SETTLE_US + (FOLD_US << i);

		if (c->state == VM_WAITING && now < at) {
			next = at < next ? at : next;
			continue;
		}
		list_del(&c->unfolded);
		if (c->state == VM_WAITING) {
			carrier_fold(c);
			sched_charge(c);
			carrier_send_usage(c); /* of life, too */
		}
		return now;
	}
	return next;
}

/* One of those that have waited for a while is made small: where nobody runs nothing else would
 * collect its garbage. Returns when to come again. */
static int64_t settle(int64_t now)
{
	struct vm_carrier *c;

	if (list_empty(&vm_sched.unsettled))
		return INT64_MAX;
	c = LIST_ITEM(vm_sched.unsettled.next, struct vm_carrier, unsettled);
	if (c->state == VM_WAITING && now < c->settle_us)
		return c->settle_us;
	list_del(&c->unsettled);
	if (c->state == VM_WAITING) {
		carrier_settle(c);
		sched_charge(c);
	}
	return now;
}

static int64_t overrun_price(struct vm_carrier *c, int64_t over_us)
{
	int64_t now = now_us();

	if (over_us < OVERRUN_US)
		return 0;
	if (now - c->overran_us > OVERRUN_PAST_US)
		c->overruns = 0;
	c->overran_us = now;
	if (c->overruns < OVERRUNS)
		c->overruns++;
	return over_us * over_us / OVERRUN_US * c->overruns / OVERRUNS;
}

/* Of a slice that others had to wait for. */
static void slice_pay(struct vm_carrier *c, int64_t used_us, int64_t most_us)
{
	int64_t parts = (int64_t)vm_sched.n_ready + 1, over = used_us - most_us;

	if (parts == 1) {
		if (c->credit_us < 0)
			c->credit_us = 0; /* there is nobody whom it owes anything */
		return;
	}
	vm_sched.fair_ns += used_us * 1000 / (parts < PARTS_MOST ? parts : PARTS_MOST);
	sched_owes(c, used_us + overrun_price(c, over));
}

static void run_slice(struct vm_carrier *c, int64_t now, int64_t most_us)
{
	int64_t used_us;

	dequeue(c);
	note_unfold(c, now);
	slice_begin(c, now, most_us);
	slice_run();
	slice_end(c);
	used_us = vm_sched.cpu_mark_us - vm_sched.cpu_began_us;
	slice_pay(c, used_us, most_us);
	c->fair_ns = vm_sched.fair_ns;
	if (c->state == VM_READY_TO_RUN && most_us - used_us >= WOKEN_LEAST_US)
		enqueue_first(c);
	else if (c->state == VM_READY_TO_RUN)
		enqueue_last(c);
	else if (c->state == VM_WAITING)
		waits(c);
}

static void wake_due(struct vm_port *p, int64_t now)
{
	struct vm_carrier *c;
	size_t it = 0;

	if (now < vm_sched.next_deadline_us)
		return;
	vm_sched.next_deadline_us = INT64_MAX;
	while ((c = map_next(p->carriers, &it, NULL, NULL))) {
		if (carrier_deadline(c) <= now / 1000)
			sched_wake(c);
		else
			sched_note_deadline(c);
	}
}

static struct vm_carrier *first_of(struct list *q)
{
	return list_empty(q) ? NULL : LIST_ITEM(q->next, struct vm_carrier, queue);
}

/* Where many have become ready at once, less for each: those that compute are then known soon, and
 * no longer in the way of the others. */
static int64_t woken_us(void)
{
	int64_t us = 2 * WOKEN_US / (int64_t)vm_sched.n_woken;

	return us > SLICE_US ? SLICE_US : us < WOKEN_LEAST_US ? WOKEN_LEAST_US : us;
}

static int64_t slice_us(const struct vm_carrier *c)
{
	return vm_sched.n_ready == 1           ? ALONE_US
	       : c->credit_us > SLICE_US       ? SLICE_US
	       : c->credit_us > WOKEN_LEAST_US ? c->credit_us
					       : WOKEN_LEAST_US;
}

/* Whose turn it is among the spent. Where all owe much it may be one that owes. */
static struct vm_carrier *spent_next(void)
{
	struct vm_carrier *c = first_of(&vm_sched.spent);

	for (int i = 0; c && i < PASSED_OVER_MAX; i++) {
		if (!c->had_turn)
			credit_give(c, SLICE_US);
		c->had_turn = true;
		if (c->credit_us > 0)
			break;
		dequeue(c);
		enqueue_last(c);
		c = first_of(&vm_sched.spent);
	}
	return c;
}

/* Whether there is something to read. */
static bool came(struct vm_port *p)
{
	struct pollfd pfd = { .fd = p->fd, .events = POLLIN };

	if (!vm_sched.async) {
		async_set(true);
		/* What came before it was on gave no signal. */
		if (poll(&pfd, 1, 0) > 0)
			vm_sched.came = 1;
	}
	return vm_sched.came;
}

int sched_turn(struct vm_port *p)
{
	int64_t began = now_us(), now = began, next;
	struct vm_carrier *c;

	wake_due(p, now);
	while ((c = first_of(&vm_sched.woken)) && now - began < WOKEN_US) {
		/* One that goes on is spent then, and SIGIO on. */
		run_slice(c, now, woken_us());
		now = now_us();
	}
	c = spent_next();
	if (c) {
		port_flush(p); /* what the others said does not wait for it */
		/* On one core the answer may be there by now. */
		if (came(p) && now - vm_sched.spent_us < WOKEN_US)
			return 0;
		vm_sched.came = 0;
		run_slice(c, now, slice_us(c));
		now = vm_sched.spent_us = now_us();
	}
	if (vm_sched.n_ready)
		return 0;
	async_set(false);
	next = settle(now);
	if (next > now) {
		int64_t folded = fold(now);

		next = folded < next ? folded : next;
	}
	if (vm_sched.next_deadline_us < next)
		next = vm_sched.next_deadline_us;
	if (next == INT64_MAX)
		return -1;
	if (next <= now)
		return 0;
	now = (next - now + 999) / 1000;
	return now > TURN_MOST_MS ? TURN_MOST_MS : (int)now;
}
