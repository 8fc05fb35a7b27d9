/* Shared by the files of libtos: the public error struct is our errmsg under another name. */
#pragma once

#include <tos/tos.h>

#include "base/buf.h"
#include "base/err.h"

_Static_assert(sizeof(struct tos_error) == sizeof(struct errmsg), "tos_error is an errmsg");

static inline struct errmsg *em_of(struct tos_error *err)
{
	return (struct errmsg *)err;
}
static inline struct tos_error *public_of(struct errmsg *em)
{
	return (struct tos_error *)em;
}

/* The TOS_HOME whose kernel that is; "" for one over TLS. */
const char *connection_home(const struct tos_connection *c);
/* The kernel whose socket was opened, whatever it calls itself; "": not known. */
const char *connection_place(const struct tos_connection *c);
/* The names of all kernels that it knows of, in order. */
struct names;
int connection_kernels(struct tos_connection *c, struct names *out, struct errmsg *em);

/* Until when (wall clock) it is known as that principal's; 0: it is not. */
int64_t connection_introduced(const struct tos_connection *c, const struct tos_principal *p);
void connection_introduce(
	struct tos_connection *c, const struct tos_principal *p, int64_t until_ms);

struct signer;
const struct signer *principal_signer(const struct tos_principal *p);
uint64_t principal_number(const struct tos_principal *p);

/* Append the signed act. */
int act_sign(const struct tos_principal *p, const char *kernel, const char *act,
	const char *target, const struct tos_value *args, uint32_t timeout_ms, struct buf *cose,
	struct errmsg *em);

struct tls_session;
/* Speak hello over a connected socket (taken, also on failure) and, if it is given, a TLS
 * session (taken as well) whose handshake is made first. */
int connection_open(int fd, struct tls_session *tls, uint32_t timeout_ms,
	struct tos_connection **out, struct errmsg *em);
/* The same kernel again after it closed the connection: the place of c is taken by a new one, what
 * was queued is lost. ERR_UNREACHABLE while it is away, ERR_STATE for a connection that was not
 * made by tos_connect(). */
int connection_again(struct tos_connection *c, uint32_t timeout_ms, struct errmsg *em);
/* Send these bytes ahead as chunks under their digest, so that a launch may leave them out. */
int connection_upload(struct tos_connection *c, const uint8_t digest[32], const uint8_t *p,
	size_t n, struct errmsg *em);
