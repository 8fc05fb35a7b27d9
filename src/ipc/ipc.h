/*
 * Messages and descriptors between our own processes: one sendmsg or recvmsg each, never
 * blocking unless the socket does.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

#define IPC_FDS_MAX 16

/* Send one packet with n_fds descriptors (which stay the caller's). ERR_AGAIN when the socket
 * is full, ERR_CLOSED, ERR_IO. */
int ipc_send(int fd, const void *p, size_t n, const int *fds, size_t n_fds, struct errmsg *em);

/* Receive one packet into p (cap bytes); *n its length. Descriptors, close-on-exec, go to fds;
 * those past cap_fds are closed and ERR_MALFORMED returned. ERR_AGAIN, ERR_CLOSED,
 * ERR_TOO_LARGE (cut), ERR_IO. */
int ipc_recv(int fd, void *p, size_t cap, size_t *n, int *fds, size_t cap_fds, size_t *n_fds,
	struct errmsg *em);

/* One row of a fixed message table. */
struct ipc_rule {
	uint16_t type;
	uint32_t when; /* bits of the receiver's phases in which it is allowed */
	size_t bytes;  /* exact length */
	size_t n_fds;  /* exact number, or IPC_ANY_FDS */
	int (*handler)(void *arg, const void *msg, int *fds, size_t n_fds);
};
#define IPC_ANY_FDS ((size_t)-1)

/* Check head, table, phase, length and descriptors, then call the handler. On a violation
 * descriptors are closed and ERR_MALFORMED returned: end the sender. */
int ipc_dispatch(const struct ipc_rule *rules, size_t n_rules, uint32_t phase, void *arg,
	const void *msg, size_t n, int *fds, size_t n_fds, struct errmsg *em);
