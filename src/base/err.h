/*
 * Error codes and messages.
 *
 * One list makes the enum, the words that travel on the wire and stand in logs, and the table
 * in the manual. Numbers are fixed: they are part of the protocol between our own processes.
 *
 * A call that can fail returns 0 or a negative enum err. Whoever sees the cause writes the
 * message with err_set(); each layer adds where, once, with err_wrap(); the one who handles it
 * logs it.
 */
#pragma once

#include <stdarg.h>
#include <stddef.h>

/* X(symbol, number, word, text for people) */
#define ERR_LIST(X)                                                                            \
	X(ERR_NO_INBOX, 1, "no-such-inbox", "nobody reads an inbox of that name")              \
	X(ERR_DENIED, 2, "denied", "the firewall does not allow it")                           \
	X(ERR_FULL, 3, "full", "the queue is at its bound")                                    \
	X(ERR_UNREACHABLE, 4, "unreachable", "no link to that kernel could be made")           \
	X(ERR_EXPIRED, 5, "expired", "the deadline, certificate or ticket has passed")         \
	X(ERR_TOO_LARGE, 6, "too-large", "larger than the limit allows")                       \
	X(ERR_MOVED, 7, "moved", "the carrier has moved on")                                   \
	X(ERR_MALFORMED, 8, "malformed", "the bytes do not follow the format")                 \
	X(ERR_UNKNOWN, 9, "unknown", "the answer was lost; it may or may not have happened")   \
	X(ERR_NOMEM, 10, "no-memory", "out of memory")                                         \
	X(ERR_LIMIT, 11, "limit", "a limit of the carrier or of the host is reached")          \
	X(ERR_STATE, 12, "wrong-state", "not possible in the present state")                   \
	X(ERR_EXISTS, 13, "exists", "the name is taken")                                       \
	X(ERR_NOT_FOUND, 14, "not-found", "there is nothing of that name")                     \
	X(ERR_SIGNATURE, 15, "bad-signature", "the signature does not match")                  \
	X(ERR_UNTRUSTED, 16, "untrusted",                                                      \
		"the certificate does not lead to this domain's root")                         \
	X(ERR_REVOKED, 17, "revoked", "the certificate has been revoked")                      \
	X(ERR_NOT_YET, 18, "not-yet-valid",                                                    \
		"valid only from a later time on; check the clocks")                           \
	X(ERR_REPLAY, 19, "replayed", "already used")                                          \
	X(ERR_SUPERSEDED, 20, "superseded", "a higher incarnation is known")                   \
	X(ERR_TIMEOUT, 21, "timed-out", "no answer within the time")                           \
	X(ERR_VERSION, 22, "wrong-version", "the protocol versions have none in common")       \
	X(ERR_IO, 23, "io", "the operating system reported an error")                          \
	X(ERR_STORE, 24, "store", "the store could not be read or written")                    \
	X(ERR_CONFIG, 25, "config", "the configuration is wrong")                              \
	X(ERR_USAGE, 26, "usage", "wrong arguments")                                           \
	X(ERR_CANCELLED, 27, "cancelled", "given up before it was done")                       \
	X(ERR_SANDBOX, 28, "sandbox", "the sandbox could not be built")                        \
	X(ERR_FAULT, 29, "fault", "the carrier failed")                                        \
	X(ERR_REFUSED, 30, "refused", "the other side refused")                                \
	X(ERR_DIVERGED, 31, "diverged", "the same request number came with another content")   \
	X(ERR_IN_DOUBT, 32, "in-doubt", "the copy may live elsewhere")                         \
	X(ERR_CLOSED, 33, "closed", "the connection was closed")                               \
	X(ERR_UNSUPPORTED, 34, "unsupported", "this kernel does not offer it")                 \
	X(ERR_SYNTAX, 35, "syntax", "the text does not parse")                                 \
	X(ERR_NAME, 36, "bad-name", "not a valid name")                                        \
	X(ERR_AGAIN, 37, "again", "more is needed; not a failure")                             \
	X(ERR_CLONE, 38, "clone", "another kernel runs with this one's name and key")          \
	X(ERR_DIGEST, 39, "bad-digest", "the bytes are not those of the digest")               \
	X(ERR_COMMITTED, 40, "committed", "the transaction was committed")                     \
	X(ERR_ABORTED, 41, "aborted", "the transaction was aborted")

enum err {
#define ERR_ENUM(sym, num, word, text) sym = -(num),
	ERR_LIST(ERR_ENUM)
#undef ERR_ENUM
};

#define ERRMSG_BYTES 512

/* A fixed buffer of the caller's; NULL is fine wherever one is asked for. */
struct errmsg {
	char text[ERRMSG_BYTES];
};

/* Write the message and return rc, so that `return err_set(em, ERR_IO, ...)` is one line. */
int err_set(struct errmsg *em, int rc, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

/* Put "where: " in front of what stands there and return rc. */
int err_wrap(struct errmsg *em, int rc, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

/* err_set() with ": strerror(errno)" behind it. Returns ERR_IO. */
int err_errno(struct errmsg *em, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* A static analyzer sees one file at a time: this tells it that what comes back is the rc
 * given. */
#if defined(__clang_analyzer__) && !defined(ERR_HERE)
#define err_set(em, rc, ...)  (err_set(em, rc, __VA_ARGS__), (rc))
#define err_wrap(em, rc, ...) (err_wrap(em, rc, __VA_ARGS__), (rc))
#define err_errno(em, ...)    (err_errno(em, __VA_ARGS__), ERR_IO)
#endif

/* The word ("no-such-inbox") for a code; "ok" for 0; "error" for what is not in the list. */
const char *err_word(int rc);

/* The sentence for people; never NULL. */
const char *err_text(int rc);

/* The code for a word that came over the wire; ERR_UNKNOWN for a word not in the list. */
int err_from_word(const char *word, size_t len);

/* What stands in em, or err_text(rc) where em is NULL or empty. Borrowed. */
const char *err_show(int rc, const struct errmsg *em);
