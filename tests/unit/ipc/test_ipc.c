/* Packets and the message table: what is refused, and that no descriptor stays behind. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <dirent.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/mem.h"
#include "ipc/ipc.h"
#include "ipc/tosd_msg.h"

static int pair[2];
static int handled;

static int setup(void **state)
{
	(void)state;
	handled = 0;
	return socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair);
}

static int teardown(void **state)
{
	(void)state;
	mem_close(pair[0]);
	mem_close(pair[1]);
	return 0;
}

static int count_fds(void)
{
	DIR *d = opendir("/proc/self/fd");
	int n = 0;

	assert_non_null(d);
	while (readdir(d))
		n++;
	closedir(d);
	return n;
}

static int on_message(void *arg, const void *msg, int *fds, size_t n_fds)
{
	(void)arg;
	(void)msg;
	for (size_t i = 0; i < n_fds; i++)
		mem_close(fds[i]);
	handled++;
	return 0;
}

static const struct ipc_rule rules[] = {
	{ TOSD_STOP, 1, sizeof(struct tosd_simple), 0, on_message },
	{ TOSD_SPAWNED, 2, sizeof(struct tosd_spawned), 2, on_message },
	{ TOSD_CONFIG, 1, sizeof(struct tosd_simple), IPC_ANY_FDS, on_message },
};

static struct tosd_simple simple(uint16_t type)
{
	struct tosd_simple m = { .head = { TOSD_MSG_VERSION, type, sizeof(m) } };

	return m;
}

static int dispatch(const void *msg, size_t n, uint32_t phase, size_t n_fds)
{
	int fds[4];

	for (size_t i = 0; i < n_fds; i++)
		fds[i] = open("/dev/null", O_RDONLY | O_CLOEXEC);
	return ipc_dispatch(rules, ARRAY_LEN(rules), phase, NULL, msg, n, fds, n_fds, NULL);
}

static void message_and_descriptors_arrive(void **state)
{
	struct tosd_simple m = simple(TOSD_CONFIG), got;
	int fds[2] = { pair[0], pair[1] }, in[2], before = count_fds();
	size_t n, n_fds;

	(void)state;
	assert_int_equal(ipc_send(pair[0], &m, sizeof(m), fds, 2, NULL), 0);
	assert_int_equal(ipc_recv(pair[1], &got, sizeof(got), &n, in, 2, &n_fds, NULL), 0);
	assert_int_equal(n, sizeof(m));
	assert_memory_equal(&m, &got, sizeof(m));
	assert_int_equal(n_fds, 2);
	assert_true(fcntl(in[0], F_GETFD) & FD_CLOEXEC);
	mem_close(in[0]);
	mem_close(in[1]);
	assert_int_equal(count_fds(), before);
}

static void empty_socket_says_again(void **state)
{
	char b[8];
	size_t n, n_fds;

	(void)state;
	assert_int_equal(ipc_recv(pair[1], b, sizeof(b), &n, NULL, 0, &n_fds, NULL), ERR_AGAIN);
}

static void full_socket_says_again(void **state)
{
	struct tosd_simple m = simple(TOSD_STOP);
	int rc;

	(void)state;
	while ((rc = ipc_send(pair[0], &m, sizeof(m), NULL, 0, NULL)) == 0)
		;
	assert_int_equal(rc, ERR_AGAIN);
}

static void closed_peer_is_told(void **state)
{
	struct tosd_simple m = simple(TOSD_STOP);
	size_t n, n_fds;

	(void)state;
	mem_close(pair[0]);
	pair[0] = dup(pair[1]);
	assert_int_equal(
		ipc_recv(pair[1], &m, sizeof(m), &n, NULL, 0, &n_fds, NULL), ERR_CLOSED);
	assert_int_equal(ipc_send(pair[1], &m, sizeof(m), NULL, 0, NULL), ERR_CLOSED);
}

static void cut_message_is_refused_and_its_descriptors_closed(void **state)
{
	struct tosd_simple m = simple(TOSD_STOP);
	int before = count_fds(), in[2];
	size_t n, n_fds;

	(void)state;
	assert_int_equal(ipc_send(pair[0], &m, sizeof(m), pair, 2, NULL), 0);
	assert_int_equal(ipc_recv(pair[1], &m, 4, &n, in, 2, &n_fds, NULL), ERR_TOO_LARGE);
	assert_int_equal(count_fds(), before);
}

static void too_many_descriptors_are_refused_and_closed(void **state)
{
	struct tosd_simple m = simple(TOSD_STOP);
	int before = count_fds(), many[IPC_FDS_MAX + 1], in[IPC_FDS_MAX];
	size_t n, n_fds;

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(many); i++)
		many[i] = pair[0];
	assert_int_equal(
		ipc_send(pair[0], &m, sizeof(m), many, ARRAY_LEN(many), NULL), ERR_TOO_LARGE);
	for (size_t cap = 0; cap < IPC_FDS_MAX; cap += 5) {
		assert_int_equal(ipc_send(pair[0], &m, sizeof(m), many, IPC_FDS_MAX, NULL), 0);
		assert_int_equal(ipc_recv(pair[1], &m, sizeof(m), &n, in, cap, &n_fds, NULL),
			ERR_MALFORMED);
		assert_int_equal(count_fds(), before);
	}
}

static void listed_message_reaches_its_handler(void **state)
{
	struct tosd_simple m = simple(TOSD_STOP);

	(void)state;
	assert_int_equal(dispatch(&m, sizeof(m), 1, 0), 0);
	m = simple(TOSD_CONFIG);
	assert_int_equal(dispatch(&m, sizeof(m), 1, 3), 0);
	assert_int_equal(handled, 2);
}

static void wrong_messages_are_refused_and_descriptors_closed(void **state)
{
	struct tosd_simple m;
	struct tosd_spawned s = { .head = { TOSD_MSG_VERSION, TOSD_SPAWNED, sizeof(s) } };
	int before = count_fds();

	(void)state;
	m = simple(TOSD_STOP);
	m.head.version++;
	assert_int_equal(dispatch(&m, sizeof(m), 1, 2), ERR_MALFORMED);
	m = simple(TOSD_STOP);
	m.head.length--;
	assert_int_equal(dispatch(&m, sizeof(m), 1, 2), ERR_MALFORMED);
	m = simple(TOSD_STOP);
	assert_int_equal(dispatch(&m, sizeof(m) - 8, 1, 0), ERR_MALFORMED);
	m.head.length = sizeof(m) - 8;
	assert_int_equal(dispatch(&m, sizeof(m) - 8, 1, 0), ERR_MALFORMED);
	assert_int_equal(dispatch(&m, 3, 1, 1), ERR_MALFORMED);
	m = simple(TOSD_DIED);
	assert_int_equal(dispatch(&m, sizeof(m), 1, 0), ERR_MALFORMED);
	m = simple(TOSD_STOP);
	assert_int_equal(dispatch(&m, sizeof(m), 2, 0), ERR_MALFORMED);
	assert_int_equal(dispatch(&m, sizeof(m), 1, 1), ERR_MALFORMED);
	assert_int_equal(dispatch(&s, sizeof(s), 2, 1), ERR_MALFORMED);
	assert_int_equal(handled, 0);
	assert_int_equal(dispatch(&s, sizeof(s), 2, 2), 0);
	assert_int_equal(count_fds(), before);
}

#define CASE(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(message_and_descriptors_arrive),
		CASE(empty_socket_says_again),
		CASE(full_socket_says_again),
		CASE(closed_peer_is_told),
		CASE(cut_message_is_refused_and_its_descriptors_closed),
		CASE(too_many_descriptors_are_refused_and_closed),
		CASE(listed_message_reaches_its_handler),
		CASE(wrong_messages_are_refused_and_descriptors_closed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
