/*
 * Timers on a libuv loop, on the heap, so that stopping one never races with its close
 * callback. One thread, the loop's.
 */
#pragma once

#include <stdint.h>
#include <uv.h>

struct timer;
typedef void timer_fn(void *arg);

/*
 * Call fn after after_ms, and again every repeat_ms unless that is 0. Never called before
 * timer_start() returns. Every timer is given back with timer_stop(), one that has fired too.
 */
struct timer *timer_start(
	uv_loop_t *loop, uint64_t after_ms, uint64_t repeat_ms, timer_fn *fn, void *arg);
/* Begin anew: the next call comes after after_ms, whether or not it has fired. */
void timer_again(struct timer *t, uint64_t after_ms);
/* When it fires next, in ms from now; UINT64_MAX: it has fired and does not repeat. */
uint64_t timer_due_ms(const struct timer *t);
/* No call after this one; the memory goes in the close callback. NULL is fine; so is a call
 * from fn. */
void timer_stop(struct timer *t);
