/* What lib/domain.c lends to the other files that make certificates; nobody else includes it. */
#pragma once

#include "lib/domain.h"

/* TOS_PASSPHRASE, or NULL. */
const char *domain_passphrase(void);
int principal_name_check(const char *name, struct errmsg *em);
/* A certificate for this key by the root, which stands behind it in the file. */
int domain_issue_principal(const struct home *h, const char *name, unsigned roles,
	const char *only, const uint8_t public_key[32], int64_t valid_ms, const char *file,
	struct errmsg *em);
