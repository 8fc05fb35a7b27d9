/*
 * What lies under $TOS_HOME (design: "Command line"):
 *
 *   domain.conf                       principal and kernel that commands take by default, groups
 *   ca/{root.key,root.crt,revoked}    the domain's root; only where the domain was made
 *   keys/NAME/{key,cert}              principals
 *   kernels/NAME/{tosd.conf,key,cert,root.crt,...}
 */
#pragma once

#include <stddef.h>

#include "base/buf.h"
#include "base/err.h"

#define HOME_PATH_MAX 1024

struct home {
	char path[HOME_PATH_MAX];
	char principal[65]; /* "admin"; "" none */
	char kernel[64];    /* first choice; "" none */
};
struct names {
	char (*v)[64];
	size_t n;
};

/* asked, else $TOS_HOME, else /var/lib/tos for root and ~/.tos for others; made absolute. */
int home_path(const char *asked, char out[HOME_PATH_MAX], struct errmsg *em);
/* ERR_NOT_FOUND where there is no domain.conf. */
int home_open(const char *asked, struct home *out, struct errmsg *em);
/* The same, and groups and labels as they stand there (lib/groups.h); groups NULL: not wanted. */
struct tos_value;
int home_open_with(
	const char *asked, struct home *out, struct tos_value **groups, struct errmsg *em);
/* Principal and kernel; what else is in the file stays. */
int home_write(const struct home *h, struct errmsg *em);
/* Kernels with a configuration here: the default one first, then host2 before host10.
 * names_fini() them. */
int home_kernels(const struct home *h, struct names *out);
void names_fini(struct names *n);
int names_add(struct names *n, const char *name);
int names_compare(const void *a, const void *b); /* "host2" before "host10" */

/* Joins with '/' into out; ERR_TOO_LARGE. Ends with NULL. */
int path_join(char *out, size_t cap, struct errmsg *em, const char *first, ...)
	__attribute__((sentinel));
int dir_make(const char *path, unsigned mode,
	struct errmsg *em); /* with its parents; there already is fine */
/* Whole files, at most `most` bytes; written to a new file that is renamed. */
int bytes_read(const char *path, size_t most, struct buf *out, struct errmsg *em);
int bytes_write(const char *path, const void *p, size_t n, unsigned mode, struct errmsg *em);
