/* A domain for the tests of this room: a root, a registrar, and whoever a test needs. Real
 * keys. */
#pragma once

/* cmocka wants these before it */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "base/clock.h"
#include "seal/seal.h"

#define DAY  INT64_C(86400000)
#define SKEW INT64_C(300000)

struct domain {
	struct key *root_key, *registrar_key;
	struct buf root, registrar; /* DER */
	int64_t now_ms;
	struct trust trust;
};
void domain_init(struct domain *d);
void domain_fini(struct domain *d);

/* With a new key, valid from now + from_ms to now + to_ms. */
struct signer *signer_new(struct domain *d, enum cert_kind kind, const char *name,
	unsigned roles, int64_t from_ms, int64_t to_ms);
/* A kernel with the registrar between it and the root. */
struct signer *signer_new_enrolled(struct domain *d, const char *name);
