/* Framed streams and timers, over real socketpairs. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"
#include "loop/stream.h"
#include "loop/timer.h"

struct end {
	struct stream *stream;
	unsigned n_frames, n_closed, n_drained;
	size_t n_bytes;
	int rc;
	bool disorder, pause_each, close_at_first;
	struct stream *echo_to;
};

static uv_loop_t loop;

static int setup(void **state)
{
	(void)state;
	return uv_loop_init(&loop);
}

static void turn_once(uv_timer_t *t)
{
	(void)t;
}

static void turn(void)
{
	uv_timer_t timer;

	uv_timer_init(&loop, &timer);
	uv_timer_start(&timer, turn_once, 10,
		10); /* again: libuv runs those that are due before it waits */
	uv_run(&loop, UV_RUN_ONCE);
	uv_close((uv_handle_t *)&timer, NULL);
	uv_run(&loop, UV_RUN_NOWAIT);
}

static int teardown(void **state)
{
	(void)state;
	for (int i = 0; i < 50 && uv_loop_alive(&loop); i++)
		turn();
	return uv_loop_close(&loop);
}

#define until(cond)                                                                            \
	do {                                                                                   \
		int64_t until_ = clock_ms() + 5000;                                            \
		while (!(cond)) {                                                              \
			if (clock_ms() >= until_)                                              \
				fail_msg("not within 5 s: %s", #cond);                         \
			turn();                                                                \
		}                                                                              \
	} while (0)

static void on_frame(void *arg, struct stream *s, struct slice frame)
{
	struct end *e = arg;

	assert_ptr_equal(s, e->stream);
	assert_ptr_equal(stream_data(s), arg);
	if (frame.n >= 1)
		e->disorder |= frame.p[0] != (uint8_t)e->n_frames;
	e->n_frames++;
	e->n_bytes += frame.n;
	if (e->pause_each)
		stream_pause(s);
	if (e->close_at_first)
		stream_close(s);
}

static void on_closed(void *arg, struct stream *s, int rc, const char *why)
{
	struct end *e = arg;

	assert_non_null(why);
	assert_ptr_equal(s, e->stream);
	e->n_closed++;
	e->rc = rc;
	e->stream = NULL;
}

static void on_drained(void *arg, struct stream *s)
{
	(void)s;
	((struct end *)arg)->n_drained++;
}

static const struct stream_callbacks callbacks = { on_frame, on_closed, on_drained };

static void pair(struct end *a, struct end *b, int *raw)
{
	int fd[2];

	memset(a, 0, sizeof(*a));
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fd), 0);
	assert_int_equal(stream_open(&loop, fd[0], 0, &callbacks, a, &a->stream, NULL), 0);
	if (raw) {
		*raw = fd[1];
		return;
	}
	memset(b, 0, sizeof(*b));
	assert_int_equal(stream_open(&loop, fd[1], 0, &callbacks, b, &b->stream, NULL), 0);
}

static int send_one(struct stream *s, unsigned number, size_t n)
{
	AUTOFREE uint8_t *p = mem_zero(n + 4);

	p[0] = (uint8_t)(n >> 24);
	p[1] = (uint8_t)(n >> 16);
	p[2] = (uint8_t)(n >> 8);
	p[3] = (uint8_t)n;
	p[4] = (uint8_t)number;
	return stream_send(s, p, n + 4);
}

static void close_both(struct end *a, struct end *b)
{
	if (a->stream)
		stream_close(a->stream);
	if (b && b->stream)
		stream_close(b->stream);
	until(a->n_closed == 1 && (!b || b->n_closed == 1));
}

static void frames_arrive_whole_and_in_order(void **state)
{
	struct end a, b;

	(void)state;
	pair(&a, &b, NULL);
	for (unsigned i = 0; i < 200; i++)
		assert_int_equal(send_one(a.stream, i, 1 + i * 97), 0);
	assert_int_equal(b.n_frames, 0); /* nothing happens but from the loop */
	assert_true(stream_queued(a.stream) > 0);
	until(b.n_frames == 200 && a.n_drained >= 1);
	assert_int_equal(stream_queued(a.stream), 0);
	assert_false(b.disorder);
	close_both(&a, &b);
	assert_int_equal(a.rc, 0);
}

static void a_full_queue_refuses_and_recovers(void **state)
{
	struct end a, b;
	unsigned sent = 0;

	(void)state;
	pair(&a, &b, NULL);
	stream_set_max_queue(a.stream, 1u << 20);
	while (send_one(a.stream, sent, 50000) == 0)
		sent++;
	assert_int_equal(sent, 20);
	assert_int_equal(send_one(a.stream, sent, 50000), ERR_FULL);
	until(b.n_frames == 20);
	assert_int_equal(send_one(a.stream, sent, 50000), 0);
	until(b.n_frames == 21);
	assert_false(b.disorder);
	close_both(&a, &b);
}

static void a_reader_that_pauses_gets_every_frame_later(void **state)
{
	struct end a, b;

	(void)state;
	pair(&a, &b, NULL);
	b.pause_each = true;
	for (unsigned i = 0; i < 5; i++)
		assert_int_equal(send_one(a.stream, i, 10), 0);
	for (unsigned i = 1; i <= 5; i++) {
		until(b.n_frames == i);
		turn();
		turn();
		assert_int_equal(b.n_frames, i);
		stream_resume(b.stream);
		assert_int_equal(b.n_frames, i); /* from the loop only */
	}
	stream_finish(a.stream, 1000);
	until(a.n_closed == 1 && b.n_closed == 1);
	assert_int_equal(b.rc, ERR_CLOSED);
}

static void closing_in_the_callback_ends_the_frames(void **state)
{
	struct end a, b;

	(void)state;
	pair(&a, &b, NULL);
	b.close_at_first = true;
	for (unsigned i = 0; i < 5; i++)
		send_one(a.stream, i, 10);
	until(b.n_closed == 1 && a.n_closed == 1);
	assert_int_equal(b.n_frames, 1);
	assert_int_equal(b.rc, 0);
	assert_int_equal(a.rc, ERR_CLOSED);
}

static void closed_comes_once_and_later(void **state)
{
	struct end a, b;

	(void)state;
	pair(&a, &b, NULL);
	stream_close(a.stream);
	stream_close(a.stream);
	stream_finish(a.stream, 10);
	assert_int_equal(send_one(a.stream, 0, 1), ERR_CLOSED);
	assert_int_equal(a.n_closed, 0);
	until(a.n_closed == 1 && b.n_closed == 1);
	for (int i = 0; i < 5; i++)
		turn();
	assert_int_equal(a.n_closed, 1);
}

static void finishing_still_sends_what_is_queued(void **state)
{
	struct end a, b;

	(void)state;
	pair(&a, &b, NULL);
	for (unsigned i = 0; i < 40; i++)
		send_one(a.stream, i, 100000);
	stream_finish(a.stream, 3000);
	until(a.n_closed == 1 && b.n_closed == 1);
	assert_int_equal(b.n_frames, 40);
	assert_false(b.disorder);
	assert_int_equal(a.rc, 0);
}

static void finishing_ends_in_time_when_the_peer_reads_nothing(void **state)
{
	struct end a;
	int raw;

	(void)state;
	pair(&a, NULL, &raw);
	for (unsigned i = 0; i < 40; i++)
		send_one(a.stream, i, 100000);
	stream_finish(a.stream, 50);
	until(a.n_closed == 1);
	close(raw);
}

static void a_frame_too_long_or_empty_closes(void **state)
{
	static const uint8_t too_long[] = { 0x7f, 0, 0, 0, 1 }, empty[] = { 0, 0, 0, 0 };
	struct end a;
	int raw;

	(void)state;
	pair(&a, NULL, &raw);
	assert_int_equal(write(raw, too_long, sizeof(too_long)), sizeof(too_long));
	until(a.n_closed == 1);
	assert_int_equal(a.rc, ERR_TOO_LARGE);
	close(raw);
	pair(&a, NULL, &raw);
	assert_int_equal(write(raw, empty, sizeof(empty)), sizeof(empty));
	until(a.n_closed == 1);
	assert_int_equal(a.rc, ERR_MALFORMED);
	close(raw);
}

static void the_other_sides_end_is_told(void **state)
{
	struct end a;
	int raw;

	(void)state;
	pair(&a, NULL, &raw);
	close(raw);
	until(a.n_closed == 1);
	assert_int_equal(a.rc, ERR_CLOSED);
}

static void what_is_no_stream_socket_is_refused(void **state)
{
	struct end a = { 0 };
	int fd = open("/dev/null", O_RDWR | O_CLOEXEC), rc;

	(void)state;
	rc = stream_open(&loop, fd, 0, &callbacks, &a, &a.stream, NULL);
	assert_int_equal(rc, ERR_IO);
	assert_int_equal(fcntl(fd, F_GETFD), -1); /* taken over all the same */
	for (int i = 0; i < 3; i++)
		turn();
	assert_int_equal(a.n_closed, 0);
}

static unsigned n_fired;
static struct timer *the_timer;

static void on_fire(void *arg)
{
	(void)arg;
	n_fired++;
}

static void on_fire_stop(void *arg)
{
	(void)arg;
	n_fired++;
	timer_stop(the_timer);
}

static void a_timer_fires_once_or_repeats_until_stopped(void **state)
{
	struct timer *once, *often;

	(void)state;
	n_fired = 0;
	once = timer_start(&loop, 5, 0, on_fire, NULL);
	assert_true(timer_due_ms(once) <= 5);
	until(n_fired == 1);
	assert_true(timer_due_ms(once) == UINT64_MAX);
	for (int i = 0; i < 5; i++)
		turn();
	assert_int_equal(n_fired, 1);
	timer_again(once, 1);
	until(n_fired == 2);
	timer_stop(once);
	often = timer_start(&loop, 1, 1, on_fire, NULL);
	until(n_fired >= 5);
	timer_stop(often);
	timer_stop(NULL);
	n_fired = 0;
	for (int i = 0; i < 3; i++)
		turn();
	assert_int_equal(n_fired, 0);
}

static void a_timer_may_be_stopped_where_it_fires(void **state)
{
	(void)state;
	n_fired = 0;
	the_timer = timer_start(&loop, 1, 1, on_fire_stop, NULL);
	until(n_fired == 1);
	for (int i = 0; i < 3; i++)
		turn();
	assert_int_equal(n_fired, 1);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(frames_arrive_whole_and_in_order),
		TEST(a_full_queue_refuses_and_recovers),
		TEST(a_reader_that_pauses_gets_every_frame_later),
		TEST(closing_in_the_callback_ends_the_frames),
		TEST(closed_comes_once_and_later),
		TEST(finishing_still_sends_what_is_queued),
		TEST(finishing_ends_in_time_when_the_peer_reads_nothing),
		TEST(a_frame_too_long_or_empty_closes),
		TEST(the_other_sides_end_is_told),
		TEST(what_is_no_stream_socket_is_refused),
		TEST(a_timer_fires_once_or_repeats_until_stopped),
		TEST(a_timer_may_be_stopped_where_it_fires),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
