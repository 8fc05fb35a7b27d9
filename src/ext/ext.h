/*
 * The extensions of one kernel: loads them (here, or in a tos-ext of their own), keeps their
 * inboxes and what they registered, and passes posts in both directions. Protocol:
 * include/tos/extension.h; isolated: wire/extproto.h.
 *
 * Extensions are called from the loop only, never from within a call made here. The callbacks
 * of struct ext_callbacks come from the loop or from within ext_load().
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <uv.h>

#include "base/err.h"
#include "wire/frame.h"

struct ext_host;
struct tos_value;

struct ext_callbacks {
	/* A post, call, answer or failure by extension `name`. p->sender is "" and must be
	 * filled in as KERNEL/NAME-OF-ITS-FIRST-INBOX (given as `sender`, without the kernel).
	 * An answer or failure goes to p->dest, the sender of the call, "" the kernel itself,
	 * with the tag that the call had. Returns 0 or the failure known at once. May call
	 * ext_deliver(). */
	int (*send)(void *arg, const char *sender, const struct post *p, struct errmsg *em);
	/* Pass a call that was given to a LOCATES inbox on to that kernel. `original` is the
	 * call as delivered (kind, dest, sender, tag, trace, folder; the deadline is what is
	 * left). */
	int (*forward)(void *arg, const struct post *original, const char *kernel);
	/* Ask tosd for a tos-ext; later ext_attach() or ext_spawn_failed(). Here and below an
	 * extension goes by its key. */
	int (*spawn)(void *arg, const char *key);
	/* End it; ext_died() is to follow. */
	void (*kill)(void *arg, const char *key);
	void (*count)(void *arg, const char *ext, const char *name, uint64_t delta);
	/* A property appeared (spec fields) or changed. */
	void (*property)(void *arg, const char *ext, const char *path, const char *type,
		const char *unit, const char *doc, int64_t min, int64_t max, bool read_only,
		const char *value);
	/* Started, or failed to. Of isolated ones later, and after each restart. */
	void (*ready)(void *arg, const char *key, int rc, const char *why);
	/* An isolated one died; it is restarted with back-off. */
	void (*lost)(void *arg, const char *key, const char *why);
	/* Nothing is left of one that was replaced, removed or given up: process, socket, or
	 * library in our own process. May be NULL. */
	void (*gone)(void *arg, const char *key);
	/* It wants a connection and has the privilege net-out; later, or from within,
	 * ext_connected(). life: to be given back. NULL: none is ever made. */
	void (*connect)(void *arg, const char *key, const char *name, uint32_t life,
		uint64_t number, const char *host, uint16_t port, uint32_t timeout_ms);
	/* The places and certificates that such an extension is told of at its start: a map
	 * {places, trusted}, or NULL. May be NULL itself. */
	struct tos_value *(*outside)(void *arg, const char *name);
	/* It declares and was granted net-in, and is about to start: the address to which others
	 * connect is opened, if it has one. A failure keeps it from starting. NULL: never. */
	int (*listen)(void *arg, const char *name, struct errmsg *em);
	/* It wants the next connection to that address; as connect. */
	void (*accept)(void *arg, const char *key, const char *name, uint32_t life,
		uint64_t number, uint32_t timeout_ms);
	/* A row for the audit trail; map as it was sent. NULL: dropped. */
	void (*audit)(
		void *arg, const char *ext, const char *event, const struct tos_value *map);
	/* Whether the kernel itself reads that inbox; may be NULL. */
	bool (*reserved)(void *arg, const char *inbox);
};

#define EXT_KEY_BYTES 80

struct ext_load {
	const char *name; /* as in the configuration */
	/* NULL: the name. Two of one name, while one replaces the other, differ in it. */
	const char *key;
	/* Until ext_publish() nobody finds its inboxes, and it is not restarted. */
	bool hidden;
	/* Keep what it has not taken, so that it can be given to one that replaces it. Isolated
	 * ones only. */
	bool keep;
	/* The inboxes that it may declare, with spaces between: those and no others. NULL: any. */
	const char *inboxes;
	const char *library;    /* path of the shared object */
	const char *privileges; /* granted */
	bool isolated;
	const char *(*property)(
		void *arg, const char *path); /* configured value or NULL; may be NULL */
	void *arg;                            /* both are used again at restarts */
};

/* kernel: its name, copied; default_bound: folders of an inbox that names none, 0: 1024. */
int ext_host_new(uv_loop_t *loop, const char *kernel, uint32_t default_bound,
	const struct ext_callbacks *cb, void *arg, struct ext_host **out);
/* Stops all in reverse order, closes; `closed` from the loop, then the host is freed. */
void ext_host_close(struct ext_host *h, void (*closed)(void *arg), void *arg);

/* In the kernel: started when this returns 0. Isolated ones become ready later; until their
 * first hello their inboxes aren't known. ERR_EXISTS, ERR_NOT_FOUND, ERR_VERSION, ERR_DENIED
 * (privileges), ERR_NAME, ERR_MALFORMED, or what start() returned; then nothing of it is left.
 */
int ext_load(struct ext_host *h, const struct ext_load *what, struct errmsg *em);
/* The tos-ext of this extension is there: takes fd (a connected stream socket), also on
 * failure. */
int ext_attach(struct ext_host *h, const char *key, int fd, int pid, struct errmsg *em);
void ext_spawn_failed(struct ext_host *h, const char *key, const char *why);
/* Its process is gone; also to be called after `kill`, and when the socket's end came first. */
void ext_died(struct ext_host *h, const char *key, const char *why);

/* ---- at run time (swap.c) */
/*
 * A hidden one that is ready takes its place. Where one of its name is there already it takes
 * that one's inboxes: what waits in them untaken comes to the new one, in order and before
 * anything newer; the old one answers what it has taken, then ends. ERR_NOT_FOUND, ERR_STATE.
 */
int ext_publish(struct ext_host *h, const char *key, struct errmsg *em);
/* It leaves: no inbox of it is found any more; what it has it may still deal with, for so long. */
int ext_retire(struct ext_host *h, const char *name, uint32_t limit_ms, struct errmsg *em);
/* End a hidden one at once. */
void ext_abandon(struct ext_host *h, const char *key);
bool ext_has(const struct ext_host *h, const char *key);
/* What a hidden one declared, or one of that name: {doc, inboxes: [text], name, privileges}; NULL. */
struct tos_value *ext_declared(const struct ext_host *h, const char *key);

/* How a connect came out. 0: the extension was told, or is not there any more. ERR_AGAIN: the
 * socket could not be handed over now; try again soon. fd stays the caller's. */
int ext_connected(struct ext_host *h, const char *key, uint32_t life, uint64_t number, int rc,
	const char *text, int fd);
/* Who asked in that life: 1 is the one of its name that others find; 0 is not, yet or any more; -1
 * is over. */
int ext_serves(const struct ext_host *h, const char *key, uint32_t life);
bool ext_has_name(const struct ext_host *h, const char *name);
bool ext_has_inbox(const struct ext_host *h, const char *inbox, uint32_t *flags);
/* Inboxes with this flag, in load order: NULL ends. */
const char *ext_hook(const struct ext_host *h, uint32_t flag, size_t i);
/*
 * A post for an inbox, or an answer (kind ANSWER, FAILURE) to a call of the extension whose
 * first inbox this is. info: map {class, owner, roles, ...}, borrowed, may be NULL for the
 * kernel's own. While an isolated extension is being restarted its posts wait for it, within
 * the bound. Errors  ERR_NO_INBOX, ERR_FULL, ERR_DENIED (extensions-only), ERR_MALFORMED,
 * ERR_TOO_LARGE. Calls not answered by their deadline fail with timed-out; those an isolated
 * extension had when it died with unknown.
 */
int ext_deliver(struct ext_host *h, const char *inbox, const struct post *p,
	const struct tos_value *info, struct errmsg *em);
/* A property that is not read-only, by its path below the extension. value NULL: as it was declared.
 * ERR_NOT_FOUND, ERR_DENIED (read-only), ERR_MALFORMED (type or bounds). */
int ext_property_check(const struct ext_host *h, const char *ext, const char *path,
	const char *value, struct errmsg *em);
int ext_property_change(struct ext_host *h, const char *ext, const char *path,
	const char *value, struct errmsg *em);
/* Array of {name, key, doc, where, state, why, inboxes: [{name, doc, waiting, bound, flags,
 * posted, taken, refused}], restarts, pid, calls}; NULL without memory. */
struct tos_value *ext_describe(const struct ext_host *h);
