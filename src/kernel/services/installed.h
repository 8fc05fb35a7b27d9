/*
 * What the files of Extender share: the versions of extensions that were not configured but installed.
 * installed.c keeps them, extender_fits.c says which packages may run here, extender.c lets them come
 * and leave, extender_inbox.c is asked to.
 */
#pragma once

#include "ext/ext.h"
#include "kernel/kernel.h"
#include "seal/package.h"

enum phase {
	COMING, /* starts, hidden */
	SAVING, /* is ready; its package goes to the store */
	HERE,
	LEAVING
};

/* One version of one extension. */
struct installed {
	struct kernel *k;
	enum phase phase;
	char key[EXT_KEY_BYTES], name[64], version[33], privileges[128];
	char by[CERT_NAME_MAX + 1], officer[CERT_NAME_MAX + 1], via[NAME_BYTES_MAX + 1];
	char replaces[33]; /* version; "" */
	char inboxes[PACKAGE_INBOXES * 64];
	uint8_t digest[DIGEST_BYTES];
	bool lua, in_kernel;
	uint32_t index, privilege_bits;
	int fd; /* its library, sealed */
	int64_t wall_ms;
	struct blob package; /* until it is in the store */
	struct blob before;  /* the row of the version that it replaces */
	struct request *rq;  /* who waits for it to come or to be gone */
	bool removed;        /* ... for good */
	char refused[200];   /* at start: why it does not run */
};

struct extender {
	struct map *all; /* key -> struct installed */
	uint64_t next;
};

/* Who brings it. */
struct bringer {
	const char *by, *via; /* principal; carrier or "" */
};

/* ---- installed.c */
struct installed *installed_find(const struct kernel *k, const char *key); /* NULL */
/* The one of that name that is here, or the one that is coming; NULL. */
struct installed *installed_named(const struct kernel *k, const char *name, bool here);
/* Made of a package that was found good; file: its library, copied; bits: of its privileges. The
 * registry's until installed_free(). ERR_LIMIT too many are installed; or no memory for the library. */
int installed_new(struct kernel *k, const struct package *p, struct slice file, uint32_t bits,
	const struct bringer *who, struct installed **out, struct errmsg *em);
void installed_free(struct installed *in);
/* As ext_load(): the host says later how that went, or at once: then `in` may be gone. */
int installed_start(struct installed *in, bool hidden, struct errmsg *em);
/* What audit, store and answers say of it. */
struct tos_value *installed_said(const struct installed *in);
/* The same for LIST, into a row. */
void installed_describe(const struct installed *in, struct tos_value *row);

/* ---- extender_fits.c */
bool extension_configured(const struct kernel *k, const char *name);
/* What this kernel's configuration and build say of it; asked again at each start. *bits: of its
 * privileges; *file: its library for this machine, lent by p. ERR_NAME, ERR_EXISTS, ERR_VERSION,
 * ERR_UNSUPPORTED, ERR_DENIED. */
int package_fits(const struct kernel *k, const struct package *p, uint32_t *bits,
	struct slice *file, struct errmsg *em);
/* The second key is not the first one's owner again: ERR_DENIED. */
int package_two_keys(const struct package *p, const char *by, struct errmsg *em);

/* ---- extender.c */
enum how { NEW, INSTEAD, EITHER };
/* name: what the package has to be of, or NULL; then whoever asks needs the right to install it. The
 * package's bytes are borrowed; takes rq. */
void extender_install(struct kernel *k, struct request *rq, const struct bringer *who,
	const char *name, enum how how, struct slice bytes);
/* Takes rq. */
void extender_remove(
	struct kernel *k, struct request *rq, const struct bringer *who, const char *name);
/* In the audit log and the journal of the system, and to whoever asked. Takes m and rq (NULL: nobody
 * asked). */
void extender_refuse(
	struct kernel *k, struct request *rq, struct tos_value *m, int rc, const char *text);
