/*
 * The extension ABI.
 *
 * An extension is one constant, `tos_extension`, in a shared object. Everything it does goes
 * through inboxes: it declares them, is woken when a folder is posted to one, and takes folders
 * out when it likes. It passes folders only and so does not know whether it lives in the kernel
 * or in a tos-ext of its own. All callbacks come from one thread and must return soon: nothing
 * may block.
 *
 *   #include <tos/extension.h>
 *   #include <stdio.h>
 *
 *   static void wake(struct tos_ext *x, struct tos_inbox *in)
 *   {
 *           struct tos_message m;
 *
 *           while (tos_inbox_next(in, &m))
 *                   printf("%s\n", tos_as_text(tos_at(m.elements, 0), ""));
 *   }
 *   static const struct tos_inbox_spec inboxes[] = {
 *           { "Echo", "prints what is posted", wake }, { 0 }
 *   };
 *   const struct tos_extension tos_extension = {
 *           TOS_ABI, "echo", "prints what is posted", inboxes
 *   };
 *
 * Changes: 1.0 first version. 1.1 what is outside: tos_place, tos_connect, tos_watch, tos_trusted,
 * tos_audit. 1.2 tos_directory, tos_accept. Fields are only ever added at the end.
 */
#pragma once

#include <tos/errors.h>
#include <tos/value.h>

#define TOS_ABI_MAJOR 1
#define TOS_ABI_MINOR 2
#define TOS_ABI       (uint32_t)sizeof(struct tos_extension), TOS_ABI_MAJOR, TOS_ABI_MINOR

struct tos_ext;   /* the extension as its host sees it */
struct tos_inbox; /* one of its inboxes */
struct tos_timer;

/* One folder taken from an inbox. The host owns everything; it is valid until the next
 * tos_inbox_next() on that inbox or the return to the host. */
struct tos_message {
	const char *sender; /* "host0#42", "host1", "host0/client/7"; "" the kernel itself */
	const char *folder; /* name of the folder, may be "" */
	const struct tos_value *elements; /* array */
	/* map filled in by the kernel: owner, roles (array), class ("carrier", "extension",
	 * "kernel", "client"), and for calls of carriers e, n, seq */
	const struct tos_value *info;
	uint64_t token;       /* 0: one-way; else give exactly one reply, fail or forward */
	uint32_t deadline_ms; /* what is left for the answer; 0 for one-way */
};

/* Flags of an inbox. */
/* posts of carriers and clients are denied */
#define TOS_INBOX_EXTENSIONS_ONLY 1u
/* the kernel calls it for every carrier before it starts */
#define TOS_INBOX_ON_ARRIVAL 2u
/* ... and before it leaves; implies EXTENSIONS_ONLY, as ON_ARRIVAL */
#define TOS_INBOX_ON_DEPARTURE 4u
/* the kernel calls it when begin returned or tos.go was called: Mobility */
#define TOS_INBOX_ON_COMPLETION 8u
/* the kernel hands it posts to carriers that are not here: Messenger */
#define TOS_INBOX_LOCATES 16u
/* the kernel calls it when tos.clone was called: Spawner; implies EXTENSIONS_ONLY */
#define TOS_INBOX_ON_CLONE 32u
/*
 * What the kernel asks of hooks, and what hooks may ask of the kernel. All are calls whose
 * folder is named after the verb and holds one element, a map; sender "" in the first group.
 * NAME is a carrier's name, KERNEL a kernel's. An argument in [] may be absent.
 *
 * Kernel to extension:
 *   ARRIVAL, DEPARTURE {author, code: digest, dest, files: [text], folders: {name: bytes},
 *           from, home, hop: int, limits: {name: int}, name, owner, path: [entry]}
 *       files are the names of the files in the bundle, folders the sizes of the briefcase's.
 *       Answered by "allow" [{[automaton]: text, [code]: {file: bytes}, [limits]: {name: int}, [path]: [entry],
 *       [set]: {folder: [element...]}, [unset]: [folder]}] (an empty or no map changes
 *       nothing), or by a failure, which refuses the carrier with that code and text. `code`
 *       replaces files for this stay only; `automaton` (of ARRIVAL) is asked for all that the carrier
 *       does in it: rules STATE EVENT OBJECT TIMES NEXT, doc/guide/security.md, "Automata".
 *   COMPLETED {arrived_by: "path" | "go", [dest], itinerant: bool, name, on_unreachable, path:
 *           [entry], why: "returned" | "go", [timeout_ms]}
 *       begin returned, or tos.go(dest, timeout_ms) was called ("" or no dest: the path's first
 *       entry). path is what remains of it; on_unreachable is "wait=T" (T like 30s, 500ms),
 *       "skip", "alternate" or "fail". Answered at once by "ok" [] when the extension has taken
 *       it over; what comes of it is told by the verbs below. The kernel repeats COMPLETED (by
 *       name) for carriers that wait after a restart, of its own or of the extension; while the
 *       name is in hand, a repeat changes nothing.
 *   CLONE {dest, here: KERNEL, itinerant: bool, name, path: [entry], rest: {limit: int}, split:
 *           {limit: int}}
 *       tos.clone(dest, split) was called ("" or no dest: the path's first entry). path is what
 *       remains of it, rest what the carrier has left of the budgets cpu (ms), hops, sent and
 *       clones, split what it wants to give of them; what it did not say is not there. Answered
 *       by "ok" [{clone: NAME}] once SPAWN has made it, or by a failure, which tos.clone() returns.
 *   LOCATE {dest, [hint], home}
 *       where is carrier dest (NAME or NAME/inbox)? home is its home kernel; hint a kernel that
 *       is said to have it, or "". Answered by tos_forward(x, token, KERNEL), which may be this
 *       kernel, or tos_fail().
 *
 * Extension to the kernel's inbox "Shells", for extensions only; each is answered by "ok" [{}]
 * or a failure:
 *   MOVE {dest: KERNEL, entry: bool, name, timeout_ms}
 *       the offer and, if accepted, the hand-off. With entry the first entry of the path does
 *       not travel: it is taken off with the move, and stays if the move fails. Failures:
 *       unreachable (no link, or no answer to the offer: nothing was committed); in-doubt (the
 *       hand-off began; the kernel keeps the carrier and settles it); wrong-state (it does not
 *       wait to be moved any more); not-found (no such carrier here); all others (refused,
 *       denied, limit, ...) are the destination's refusal, with its text.
 *   DROP_ENTRY {name}              takes the first entry off the path
 *   FINISH {name}                  it goes home with its outcome
 *   FAULT {code, name, text}       it is faulted
 *   RESUME {code, name, text}      tos.go() returns nil, code, text
 *   SPAWN {dest: KERNEL, moves: bool, name, path: [entry], split: {cpu, hops, sent, clones: int},
 *           timeout_ms}
 *       makes a clone of a carrier for which CLONE was asked; path is the clone's. With moves it is
 *       moved along it at once, dest being the first it will try; else it begins here, which dest
 *       must be then. Another dest is asked first, as by MOVE, and its failures are the same:
 *       nothing was made. Answered by "ok" [{clone: NAME}] once it is journaled.
 *   TRAIL {error, event, kernel, name}  adds a line to its trail
 *   WAITING {code, dest, name, text, until_ms}  it waits for dest, for so many ms more; `tos
 *                                               launch --wait` shows text
 */

/* Called when a folder was posted (once for several), and wait_ms after the last call without
 * one. Folders that it leaves in the inbox stay there. */
typedef void tos_wake_fn(struct tos_ext *x, struct tos_inbox *in);

struct tos_inbox_spec {
	const char *name; /* letters, digits, '-', '.'; begins with an upper-case letter */
	const char *doc;  /* one line */
	tos_wake_fn *wake;
	uint32_t flags;
	uint32_t bound;       /* folders; 0: the host's default */
	uint32_t wait_ms;     /* 0: wake only on a post */
	const char *protocol; /* the folders it understands, for the manual; may be NULL */
};

/* A typed property, read with `tos get /NAME/path`. */
struct tos_property_spec {
	const char *path; /* below the extension's own: "retry/first_ms" */
	const char *type; /* "int", "float", "text", "bool" */
	const char *unit; /* "" or "ms", "B", ... */
	const char *doc;
	int64_t min, max;  /* for numbers; both 0: no bound */
	const char *value; /* default, as text */
	bool read_only;    /* set by the extension itself with tos_property_set() */
};

struct tos_extension {
	uint32_t size;
	uint16_t abi_major, abi_minor; /* TOS_ABI fills these three */
	const char *name;              /* lower case */
	const char *doc;
	const struct tos_inbox_spec *inboxes;       /* ends with a zero entry */
	const struct tos_property_spec *properties; /* ends with a zero entry; may be NULL */
	/* words with spaces between: read-proc read-fs directory net-out net-in; NULL: none.
	 * Enforced when isolated */
	const char *privileges;
	/* 0, or a negative code: it is not loaded; may be NULL */
	int (*start)(struct tos_ext *x);
	void (*stop)(struct tos_ext *x); /* may be NULL */
};
extern TOS_API const struct tos_extension tos_extension;

/* An answer to a call: rc 0, the folder's name and its elements; or rc negative (<tos/errors.h>:
 * unreachable -4, timed-out -21, ... as in doc/errors.md), a sentence, and no elements.
 * Borrowed for the callback. */
typedef void tos_answer_fn(struct tos_ext *x, void *arg, int rc, const char *text,
	const char *folder, const struct tos_value *elements);

/* A connection to a place: rc 0, a connected non-blocking TCP socket that is the extension's to
 * close, and the address that it leads to as text; or rc negative, a sentence, and -1. */
typedef void tos_connected_fn(struct tos_ext *x, void *arg, int rc, const char *text, int fd);
/* events: what is so of the descriptor, TOS_READABLE and TOS_WRITABLE. */
#define TOS_READABLE 1u
#define TOS_WRITABLE 2u
typedef void tos_watch_fn(struct tos_ext *x, void *arg, int fd, unsigned events);

/* What the host offers. Use the functions below instead. */
struct tos_host_table {
	uint32_t size;
	size_t (*inbox_size)(struct tos_inbox *in);
	bool (*inbox_next)(struct tos_inbox *in, struct tos_message *out);
	int (*reply)(struct tos_ext *x, uint64_t token, const char *folder,
		struct tos_value *elements);
	int (*fail)(struct tos_ext *x, uint64_t token, int rc, const char *text);
	int (*forward)(struct tos_ext *x, uint64_t token, const char *kernel);
	int (*post)(struct tos_ext *x, const char *dest, const char *folder,
		struct tos_value *elements);
	int (*call)(struct tos_ext *x, const char *dest, const char *folder,
		struct tos_value *elements, uint32_t timeout_ms, tos_answer_fn *done,
		void *arg);
	struct tos_timer *(*timer)(struct tos_ext *x, uint32_t after_ms,
		void (*fn)(struct tos_ext *, void *), void *arg);
	void (*timer_stop)(struct tos_timer *t);
	void (*log)(struct tos_ext *x, int level, const char *text);
	void (*count)(struct tos_ext *x, const char *name, uint64_t delta);
	const char *(*property)(struct tos_ext *x, const char *path);
	int (*property_set)(struct tos_ext *x, const char *path, const char *value);
	const char *(*kernel_name)(struct tos_ext *x);
	void *(*data)(struct tos_ext *x);
	void (*set_data)(struct tos_ext *x, void *data);
	int64_t (*now_ms)(struct tos_ext *x);
	/* 1.1 */
	const char *(*place)(struct tos_ext *x, size_t i);
	int (*connect)(struct tos_ext *x, const char *host, uint16_t port, uint32_t timeout_ms,
		tos_connected_fn *done, void *arg);
	int (*watch)(struct tos_ext *x, int fd, unsigned events, tos_watch_fn *fn, void *arg);
	const void *(*trusted)(struct tos_ext *x, size_t *n);
	void (*audit)(struct tos_ext *x, const char *event, struct tos_value *map);
	/* 1.2 */
	const char *(*directory)(struct tos_ext *x);
	int (*accept)(
		struct tos_ext *x, uint32_t timeout_ms, tos_connected_fn *done, void *arg);
};
/* Hosts place this pointer first in struct tos_ext and struct tos_inbox. */
#define TOS_HOST(p) (*(const struct tos_host_table *const *)(const void *)(p))

static inline size_t tos_inbox_size(struct tos_inbox *in)
{
	return TOS_HOST(in)->inbox_size(in);
}
/* Takes the first folder out; false when the inbox is empty. */
static inline bool tos_inbox_next(struct tos_inbox *in, struct tos_message *out)
{
	return TOS_HOST(in)->inbox_next(in, out);
}
/* Answer a call; takes elements (an array, or NULL for none). not-found: token unknown or its
 * deadline passed. */
static inline int tos_reply(
	struct tos_ext *x, uint64_t token, const char *folder, struct tos_value *elements)
{
	return TOS_HOST(x)->reply(x, token, folder, elements);
}
/* The brackets: test frameworks have a macro of that name. */
static inline int tos_fail(struct tos_ext *x, uint64_t token, int rc, const char *text)
{
	return (TOS_HOST(x)->fail)(x, token, rc, text);
}
static inline int tos_forward(struct tos_ext *x, uint64_t token, const char *kernel)
{
	return TOS_HOST(x)->forward(x, token, kernel);
}
/* Post one folder; takes elements. Never waits. */
static inline int tos_post(
	struct tos_ext *x, const char *dest, const char *folder, struct tos_value *elements)
{
	return TOS_HOST(x)->post(x, dest, folder, elements);
}
/* Post one folder and get the answer: done is called exactly once, later, unless tos_call()
 * fails or the extension is stopped before. timeout_ms 0: 30 s. */
static inline int tos_call(struct tos_ext *x, const char *dest, const char *folder,
	struct tos_value *elements, uint32_t timeout_ms, tos_answer_fn *done, void *arg)
{
	return TOS_HOST(x)->call(x, dest, folder, elements, timeout_ms, done, arg);
}
/* Fires once; stopping one that fired is an error. NULL without memory. */
static inline struct tos_timer *tos_timer(
	struct tos_ext *x, uint32_t after_ms, void (*fn)(struct tos_ext *, void *), void *arg)
{
	return TOS_HOST(x)->timer(x, after_ms, fn, arg);
}
static inline void tos_timer_stop(struct tos_ext *x, struct tos_timer *t)
{
	TOS_HOST(x)->timer_stop(t);
}
/* 0 debug .. 4 error */
static inline void tos_log(struct tos_ext *x, int level, const char *text)
{
	TOS_HOST(x)->log(x, level, text);
}
static inline void tos_count(struct tos_ext *x, const char *name, uint64_t delta)
{
	TOS_HOST(x)->count(x, name, delta);
}
static inline const char *tos_property(struct tos_ext *x, const char *path)
{
	return TOS_HOST(x)->property(x, path);
}
static inline int tos_property_set(struct tos_ext *x, const char *path, const char *value)
{
	return TOS_HOST(x)->property_set(x, path, value);
}
static inline const char *tos_kernel_name(struct tos_ext *x)
{
	return TOS_HOST(x)->kernel_name(x);
}
static inline void *tos_data(struct tos_ext *x)
{
	return TOS_HOST(x)->data(x);
}
static inline void tos_set_data(struct tos_ext *x, void *data)
{
	TOS_HOST(x)->set_data(x, data);
}
/* monotonic */
static inline int64_t tos_now_ms(struct tos_ext *x)
{
	return TOS_HOST(x)->now_ms(x);
}

/* ---- 1.1: what is outside; only where the extension is isolated and has the privilege net-out,
 * else unsupported or denied */

/* The places that the configuration names, "https://example.org:443/pkgs/ admit": a URL that
 * others must begin with, then flags. NULL past the last. */
static inline const char *tos_place(struct tos_ext *x, size_t i)
{
	return TOS_HOST(x)->place(x, i);
}
/* The extension can make no connection itself: the kernel looks the name up, checks that a place
 * has this host and port and that the address is one that may be, connects, and hands the socket
 * over. done comes exactly once, later, unless this fails. */
static inline int tos_connect(struct tos_ext *x, const char *host, uint16_t port,
	uint32_t timeout_ms, tos_connected_fn *done, void *arg)
{
	return (TOS_HOST(x)->connect)(x, host, port, timeout_ms, done, arg);
}
/* Call fn whenever one of the events is so; events 0: no more, to be said before the descriptor is
 * closed. A second one for a descriptor takes the place of the first. limit: too many. */
static inline int tos_watch(
	struct tos_ext *x, int fd, unsigned events, tos_watch_fn *fn, void *arg)
{
	return TOS_HOST(x)->watch(x, fd, events, fn, arg);
}
/* Certificates of authorities for TLS to places, as PEM: what the configuration names, or the
 * host's own. NULL: none. */
static inline const void *tos_trusted(struct tos_ext *x, size_t *n)
{
	return TOS_HOST(x)->trusted(x, n);
}
/* A row in the kernel's audit trail: what was refused, or done with a privilege. Takes map. The event
 * is told as NAME-EVENT, NAME being the extension's in lower case, unless it begins so already. */
static inline void tos_audit(struct tos_ext *x, const char *event, struct tos_value *map)
{
	TOS_HOST(x)->audit(x, event, map);
}

/* ---- 1.2 */

/* With the privilege directory, where isolated: the path of the directory that the configuration
 * grants, "/data" as a rule; files and directories there can be made, written, renamed and removed
 * unless it is granted to be read only, and stay. NULL: none. */
static inline const char *tos_directory(struct tos_ext *x)
{
	return TOS_HOST(x)->directory(x);
}
/* With the privilege net-in: the next connection that somebody makes to the address which the
 * configuration names. The kernel listens there; those whom nobody has asked for wait. done comes
 * exactly once, later, unless this fails: text is the address of the other side; or timed-out
 * (timeout_ms 0: 30 s), denied (no address is configured, or the privilege was not granted). Ask
 * again for the one after it, as long as you have room: 64 descriptors in all. */
static inline int tos_accept(
	struct tos_ext *x, uint32_t timeout_ms, tos_connected_fn *done, void *arg)
{
	return (TOS_HOST(x)->accept)(x, timeout_ms, done, arg);
}
