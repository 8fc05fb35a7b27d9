/* What the parts of tos principal share. */
#pragma once

#include <stdint.h>

#include "base/right.h"
#include "cli/cli.h"

/* --role, else `otherwise`. ERR_USAGE. */
int principal_roles(struct cli *cli, unsigned otherwise, unsigned *out);
/* --restrict, one a line; "" none. ERR_USAGE. */
int principal_only(struct cli *cli, const char *name, char out[RIGHTS_BYTES]);
void print_only(const struct tos_value *only); /* a list of them */
/* --expires, else a year. ERR_USAGE. */
int principal_expires(struct cli *cli, int64_t *out_ms);

/* cmd_principal_key.c; they print what they did */
int principal_key_request(struct cli *cli, const char *name);
int principal_key_sign(struct cli *cli, const struct home *h, const char *file);
int principal_key_import(struct cli *cli, const char *file);

/* cmd_kernels.c: the next revocation list with these, saved and posted */
int revoke_serials(struct cli *cli, const struct home *h, const struct tos_value *serials,
	uint64_t *number);
