/*
 * Shells before their launch (TOS figure 3): code, briefcase, path, limits and options of a carrier that
 * has not started, and the signatures under them. The struct is for these files alone; others have
 * bundle.h.
 *
 *   shell.c           what it is made of, and its properties
 *   shell_source.c    from Lua sources, checked by tos-vm
 *   shell_seals.c     the folders that its ticket protects
 *   shell_sign.c      the author's signature
 *   shell_file.c      written and read
 *   shell_describe.c  what others are told of it
 *   shell_launch.c    the owner's ticket, and the launch
 */
#pragma once

#include "lib/bundle.h"
#include "lib/modules.h"

#define CARRIER_MAX ((size_t)80 << 20)

struct tos_shell {
	char name[65];   /* of the code: "hello" */
	char entry[129]; /* its file: "hello.lua" */
	char *dir;       /* where it lay, and its modules may; NULL: nowhere */
	struct buf source;
	struct modules modules; /* what it requires, beside the entry */
	struct buf bundle;      /* signed; empty as long as nobody has signed */
	char *path;
	struct tos_value *briefcase;
	struct tos_value *sealed, *append; /* names of folders that the ticket protects */
	int64_t limits[LIMIT_COUNT];
	bool itinerant, fast;
	char on_unreachable[32];
	int64_t expires_ms; /* of the ticket, counted from the launch; 0: lifetime and a day */
};

struct tos_shell *shell_new(void);
/* Appends the files of its source under this manifest. */
int shell_put_bundle(const struct tos_shell *s, struct slice cose, struct buf *out);
struct signer;
/* ERR_EXPIRED, with what to do, when nothing that it signs would count any more. */
int signer_expired(const struct signer *s, struct errmsg *em);

/* ---- shell_seals.c */
/* names: s->sealed or s->append, which gets one more. */
int shell_protect(
	struct tos_shell *s, struct tos_value *names, const char *name, struct errmsg *em);
/* For the ticket: {folder: digest} of what is sealed, {folder: [count, head]} of what may only
 * grow; NULL for none. */
int shell_sealed(const struct tos_shell *s, struct tos_value **out, struct errmsg *em);
int shell_appended(const struct tos_shell *s, struct tos_value **out);
/* For START, and for people. */
int shell_start_seals(const struct tos_shell *s, struct tos_value *v);
int shell_describe_seals(const struct tos_shell *s, struct tos_value *v);
