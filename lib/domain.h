/*
 * A domain's authority, where its root key is: making the domain, certificates for kernels of
 * this machine and for principals, the revocation list. No kernel is asked here; what kernels
 * must know is posted to them by the commands.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include <tos/value.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/mem.h"
#include "base/right.h"
#include "lib/home.h"
#include "wire/cbor.h"

struct trust;

/* Where kernels that are made listen. */
struct listen_at {
	char host[64];       /* numeric; IPv6 without brackets */
	unsigned port;       /* of the first kernel; 0: the first from 21212 on that is free */
	char advertise[128]; /* HOST:PORT that others dial; "": where it listens */
};
/* From --listen ADDRESS[:PORT] and --advertise HOST[:PORT] (may be NULL); ERR_USAGE. An address
 * that stands for all of them can't be dialled, so it needs the second. */
int listen_parse(
	const char *listen, const char *advertise, struct listen_at *out, struct errmsg *em);

/* Root, registrar, principal admin, kernel host0. Refuses (ERR_EXISTS) where there is a domain
 * or a part of one; `said` gets a line for each thing made. passphrase NULL: the root key is
 * kept in the clear. */
int domain_init(const char *home, const char *passphrase, const struct listen_at *where,
	struct buf *said, struct errmsg *em);
/* The passphrase of the root key for the calls below comes from the environment,
 * TOS_PASSPHRASE. */

/* Directory, key, certificate, configuration of one more kernel on this machine. where NULL: it
 * listens on 127.0.0.1 and the first port from 21212 + nth on that is free and in no other
 * configuration here. */
int domain_kernel_add(const struct home *h, const char *name, unsigned nth,
	const struct listen_at *where, struct errmsg *em);
/* only: what it may at most, lines as base/right.h has them; NULL or "": whatever hosts allow. */
int domain_principal_add(const struct home *h, const char *name, unsigned roles,
	const char *only, int64_t valid_ms, struct errmsg *em);
/* The same for one that is there: a new key and certificate with these roles. serials (an array) gets what is to be
 * revoked. ERR_NOT_FOUND. */
int domain_principal_replace(const struct home *h, const char *name, unsigned roles,
	const char *only, int64_t valid_ms, struct tos_value *serials, struct errmsg *em);
/* Another certificate for the same key, roles and restrictions, valid from now on. The old one is kept beside it
 * as cert-SERIAL, for domain_serials(). ERR_REVOKED if that one was revoked. */
int domain_principal_renew(
	const struct home *h, const char *name, int64_t valid_ms, struct errmsg *em);
/* Principals whose key is made elsewhere: request there, sign where the root is, import there. */
struct principal_request {
	char name[65];
	unsigned roles;
	char fingerprint[65]; /* SHA-256 of the public key, hex: for both ends to compare */
	uint8_t public_key[32];
	char path[HOME_PATH_MAX]; /* of what was written */
	char only[RIGHTS_BYTES]; /* restrictions that whoever signs puts into the certificate */
};
/* Key (that of an earlier request, else a new one, under TOS_PASSPHRASE if that is set) and
 * request in $TOS_HOME/keys/NAME; no domain need be known there. ERR_EXISTS, ERR_NAME. */
int principal_request(const char *home, const char *name, unsigned roles,
	struct principal_request *out, struct errmsg *em);
/* The lines of `only`, an array. */
struct tos_value *principal_only_value(const char *text);
/* Checked: it is signed by the key that it is for. ERR_MALFORMED, ERR_SIGNATURE. */
int principal_request_read(const char *file, struct principal_request *out, struct errmsg *em);
/* The certificate, with the root's behind it, for the roles in *r: keys/NAME/cert, without a key.
 * The same again changes nothing. ERR_EXISTS if that name has another key or other roles or restrictions. */
int domain_principal_sign(
	const struct home *h, struct principal_request *r, int64_t valid_ms, struct errmsg *em);
int domain_principal_sign_replace(const struct home *h, struct principal_request *r,
	int64_t valid_ms, struct tos_value *serials, struct errmsg *em);
/* What was signed, beside its key. ERR_NOT_FOUND without the key, ERR_UNTRUSTED for another key or
 * domain. */
int principal_import(
	const char *home, const char *file, struct principal_request *out, struct errmsg *em);
/* [{name, roles: [text], only: [text], expires, serial: bytes, revoked: bool, key: bool}] */
int domain_principals(const struct home *h, struct tos_value **out, struct errmsg *em);
/* Serial numbers of the certificates of a principal (renewed ones too) or of a kernel made here;
 * appended to the array. ERR_NOT_FOUND. */
int domain_serials(const struct home *h, bool kernel, const char *name,
	struct tos_value *serials, struct errmsg *em);
/* The next list, with these (array of bytes) added: saved as ca/revoked and appended to *list.
 */
int domain_revoke(const struct home *h, const struct tos_value *serials, uint64_t *number,
	struct buf *list, struct errmsg *em);
bool domain_has_root(const struct home *h);

/* What `name = "..."` and so on are for one kernel. addresses of the registrar: at most 4; may
 * be NULL for itself. */
struct kernel_conf {
	const char *name, *listen, *advertise, *registrar; /* advertise NULL: the default */
	const char (*registrar_at)[128];
	size_t n_registrar_at;
};
int kernel_conf_write(const struct home *h, const struct kernel_conf *k, struct errmsg *em);
/* The value of listen = {"..."} in its first address, "127.0.0.1:21212"; for people and for
 * choosing ports. */
int kernel_conf_listen(const struct home *h, const char *kernel, char out[128]);

/* The root certificate and the revocation list that are known in this TOS_HOME. */
struct trusted;
int trusted_open(const char *home, struct trusted **out, struct errmsg *em);
void trusted_free(struct trusted *t);
const struct trust *trusted_trust(const struct trusted *t);

/* ---- joining (join.c) */
struct join {
	const char *token;     /* tos1.... */
	const char *listen;    /* NULL: 0.0.0.0:21212 */
	const char *advertise; /* NULL: the address that the registrar sees us at; "": it only
				  dials out */
	uint32_t timeout_ms;
};
/* Key, ENROLL at the registrar, certificate, configuration, domain.conf if there is none. name:
 * 64 bytes. */
int domain_join(const char *home, const struct join *j, char name[64], struct buf *said,
	struct errmsg *em);
