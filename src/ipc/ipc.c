/* Packets with descriptors between our own processes: see ipc.h. Bounded, allocates nothing. */
#include "ipc/ipc.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "base/mem.h"
#include "ipc/tosd_msg.h"

/* Room for one more than we take, so that a sender of too many is seen and not just cut. */
union control {
	char bytes[CMSG_SPACE(sizeof(int) * (IPC_FDS_MAX + 1))];
	struct cmsghdr align;
};

int ipc_send(int fd, const void *p, size_t n, const int *fds, size_t n_fds, struct errmsg *em)
{
	struct iovec iov = { (void *)(uintptr_t)p, n };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };
	union control control;
	ssize_t sent;

	if (n_fds > IPC_FDS_MAX)
		return err_set(em, ERR_TOO_LARGE, "%zu descriptors in one message", n_fds);
	if (n_fds > 0) {
		struct cmsghdr *c;

		memset(&control, 0, sizeof(control));
		msg.msg_control = control.bytes;
		msg.msg_controllen = CMSG_SPACE(sizeof(int) * n_fds);
		c = CMSG_FIRSTHDR(&msg);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(sizeof(int) * n_fds);
		memcpy(CMSG_DATA(c), fds, sizeof(int) * n_fds);
	}
	do
		sent = sendmsg(fd, &msg, MSG_NOSIGNAL);
	while (sent < 0 && errno == EINTR);
	if (sent >= 0)
		return (size_t)sent == n
			       ? 0
			       : err_set(em, ERR_IO, "a packet was cut while sending");
	/* ETOOMANYREFS: too many descriptors in flight; the receiver must read first. */
	if (errno == EAGAIN || errno == EWOULDBLOCK || errno == ENOBUFS ||
		errno == ETOOMANYREFS)
		return ERR_AGAIN;
	if (errno == EPIPE || errno == ECONNRESET || errno == ENOTCONN)
		return err_set(em, ERR_CLOSED, "the other process closed the socket");
	return err_errno(em, "cannot send a packet");
}

static void close_all(const int *fds, size_t n)
{
	for (size_t i = 0; i < n; i++)
		mem_close(fds[i]);
}

/* Take every descriptor of the message; those past cap are closed. Returns how many there were.
 */
static size_t take_fds(struct msghdr *msg, int *fds, size_t cap)
{
	size_t n = 0;

	for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c; c = CMSG_NXTHDR(msg, c)) {
		size_t here;

		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		here = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		for (size_t i = 0; i < here; i++, n++) {
			int fd;

			memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(int));
			if (n < cap)
				fds[n] = fd;
			else
				mem_close(fd);
		}
	}
	return n;
}

int ipc_recv(int fd, void *p, size_t cap, size_t *n, int *fds, size_t cap_fds, size_t *n_fds,
	struct errmsg *em)
{
	struct iovec iov = { p, cap };
	union control control;
	struct msghdr msg = { .msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = control.bytes,
		.msg_controllen = sizeof(control.bytes) };
	ssize_t got;
	size_t came;

	do
		got = recvmsg(fd, &msg, MSG_CMSG_CLOEXEC);
	while (got < 0 && errno == EINTR);
	if (got < 0) {
		if (errno == EAGAIN || errno == EWOULDBLOCK)
			return ERR_AGAIN;
		if (errno == ECONNRESET || errno == ENOTCONN)
			return err_set(em, ERR_CLOSED, "the other process closed the socket");
		return err_errno(em, "cannot receive a packet");
	}
	came = take_fds(&msg, fds, cap_fds);
	if (came > cap_fds || (msg.msg_flags & MSG_CTRUNC)) {
		close_all(fds, came < cap_fds ? came : cap_fds);
		return err_set(
			em, ERR_MALFORMED, "more than %zu descriptors in one message", cap_fds);
	}
	if (msg.msg_flags & MSG_TRUNC) {
		close_all(fds, came);
		return err_set(em, ERR_TOO_LARGE, "a message is larger than %zu bytes", cap);
	}
	if (got == 0) {
		/* No message of ours is empty, so this is the end of the stream. */
		close_all(fds, came);
		return err_set(em, ERR_CLOSED, "the other process closed the socket");
	}
	*n = (size_t)got;
	*n_fds = came;
	return 0;
}

static int check(const struct ipc_rule *rules, size_t n_rules, uint32_t phase, const void *msg,
	size_t n, size_t n_fds, const struct ipc_rule **out, struct errmsg *em)
{
	struct tosd_head head;

	if (n < sizeof(head))
		return err_set(em, ERR_MALFORMED, "a message of %zu bytes has no head", n);
	memcpy(&head, msg, sizeof(head));
	if (head.version != TOSD_MSG_VERSION)
		return err_set(em, ERR_MALFORMED, "message version %u, ours is %u",
			head.version, TOSD_MSG_VERSION);
	if (head.length != n)
		return err_set(em, ERR_MALFORMED, "message type %u says %u bytes, has %zu",
			head.type, head.length, n);
	for (size_t i = 0; i < n_rules; i++) {
		const struct ipc_rule *r = &rules[i];

		if (r->type != head.type)
			continue;
		if (!(r->when & phase))
			return err_set(em, ERR_MALFORMED, "message type %u is out of order",
				head.type);
		if (r->bytes != n)
			return err_set(em, ERR_MALFORMED,
				"message type %u has %zu bytes, not %zu", head.type, n,
				r->bytes);
		if (r->n_fds != IPC_ANY_FDS && r->n_fds != n_fds)
			return err_set(em, ERR_MALFORMED,
				"message type %u has %zu descriptors, not %zu", head.type,
				n_fds, r->n_fds);
		*out = r;
		return 0;
	}
	return err_set(em, ERR_MALFORMED, "message type %u is not in the table", head.type);
}

int ipc_dispatch(const struct ipc_rule *rules, size_t n_rules, uint32_t phase, void *arg,
	const void *msg, size_t n, int *fds, size_t n_fds, struct errmsg *em)
{
	const struct ipc_rule *r = NULL;
	int rc = check(rules, n_rules, phase, msg, n, n_fds, &r, em);

	if (rc < 0) {
		close_all(fds, n_fds);
		return rc;
	}
	return r->handler(arg, msg, fds, n_fds);
}
