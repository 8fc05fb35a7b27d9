/* Timers: see timer.h. */
#include "loop/timer.h"

#include "base/mem.h"

#define TIMER_TAG 0x74696d72u

struct timer {
	uint32_t tag;
	uv_timer_t handle;
	uint64_t repeat_ms;
	timer_fn *fn;
	void *arg;
};

static void on_fire(uv_timer_t *handle)
{
	struct timer *t = TAGGED(handle->data, struct timer, TIMER_TAG);

	t->fn(t->arg); /* t may be closing now: hands off */
}

static void on_closed(uv_handle_t *handle)
{
	struct timer *t = TAGGED(handle->data, struct timer, TIMER_TAG);

	t->tag = 0;
	free(t);
}

struct timer *timer_start(
	uv_loop_t *loop, uint64_t after_ms, uint64_t repeat_ms, timer_fn *fn, void *arg)
{
	struct timer *t = mem_new(struct timer);

	t->tag = TIMER_TAG;
	t->repeat_ms = repeat_ms;
	t->fn = fn;
	t->arg = arg;
	uv_timer_init(loop, &t->handle);
	t->handle.data = t;
	timer_again(t, after_ms);
	return t;
}

void timer_again(struct timer *t, uint64_t after_ms)
{
	/* The loop's idea of now may be as old as this turn; a deadline must not pass early. */
	uv_update_time(t->handle.loop);
	must(uv_timer_start(&t->handle, on_fire, after_ms, t->repeat_ms) == 0);
}

uint64_t timer_due_ms(const struct timer *t)
{
	if (!uv_is_active((const uv_handle_t *)&t->handle))
		return UINT64_MAX;
	return uv_timer_get_due_in(&t->handle);
}

void timer_stop(struct timer *t)
{
	if (!t)
		return;
	uv_timer_stop(&t->handle);
	uv_close((uv_handle_t *)&t->handle, on_closed);
}
