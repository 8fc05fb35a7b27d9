/*
 * The extensions of one kernel: loads them (here, or in a tos-ext of their own), keeps their inboxes and what they
 * registered, and passes posts in both directions. Protocol: include/tos/extension.h; isolated: wire/extproto.h.
 */
#pragma once

#include <uv.h>

#include "base/err.h"
#include "wire/frame.h"

struct ext_host;
struct tos_value;

struct ext_callbacks {
	/* A post, call, answer or failure by extension `name`. p->sender is "" and must be filled in as KERNEL/NAME-OF-ITS-
	 * FIRST-INBOX (given as `sender`, without the kernel). Returns 0 or the failure known at once. */
	int (*send)(void *arg, const char *sender, const struct post *p, struct errmsg *em);
	/* Pass a call that `sender` with `tag` made on to that kernel: the message that was given to a LOCATES inbox. `original` is the
	 * post as delivered. */
	int (*forward)(void *arg, const struct post *original, const char *kernel);
	/* Ask tosd for a tos-ext; later ext_attach() or ext_spawn_failed(). */
	int (*spawn)(void *arg, const char *name);
	void (*kill)(void *arg, const char *name);
	void (*count)(void *arg, const char *ext, const char *name, uint64_t delta);
	/* A property appeared (spec fields) or changed. */
	void (*property)(void *arg, const char *ext, const char *path, const char *type, const char *unit, const char *doc, int64_t min, int64_t max,
		bool read_only, const char *value);
	void (*ready)(void *arg, const char *ext, int rc, const char *why); /* started, or failed to */
	void (*lost)(void *arg, const char *ext, const char *why);         /* an isolated one died; it is restarted with back-off */
};

struct ext_load {
	const char *name;      /* as in the configuration */
	const char *library;   /* path of the shared object */
	const char *privileges;/* granted */
	bool isolated;
	const char *(*property)(void *arg, const char *path); /* configured value or NULL */
	void *arg;
};
int ext_host_new(uv_loop_t *loop, const char *kernel, uint32_t default_bound, const struct ext_callbacks *cb, void *arg, struct ext_host **out);
/* Stops all in reverse order, closes; `closed` from the loop. */
void ext_host_close(struct ext_host *h, void (*closed)(void *arg), void *arg);
int ext_load(struct ext_host *h, const struct ext_load *what, struct errmsg *em); /* isolated ones become ready later */
/* The tos-ext of this extension is there: takes fd (a connected stream socket). */
int ext_attach(struct ext_host *h, const char *name, int fd, int pid, struct errmsg *em);
void ext_died(struct ext_host *h, const char *name, const char *why);
bool ext_has_inbox(const struct ext_host *h, const char *inbox, uint32_t *flags);
/* Inboxes with this flag, in load order: NULL ends. */
const char *ext_hook(const struct ext_host *h, uint32_t flag, size_t i);
/* A post for an inbox, or an answer (kind ANSWER, FAILURE) to a call of the extension. info: map {class, owner, roles, ...}, borrowed.
 * ERR_NO_INBOX, ERR_FULL, ERR_DENIED (extensions-only), ERR_MALFORMED. Calls not answered by their deadline fail with timed-out. */
int ext_deliver(struct ext_host *h, const char *inbox, const struct post *p, const struct tos_value *info, struct errmsg *em);
/* Array of {name, doc, where, state, inboxes: [{name, doc, waiting, bound, flags}], restarts, pid}. */
struct tos_value *ext_describe(const struct ext_host *h);
