/*
 * libtos: build, sign and launch carriers, and talk to a kernel, from a program that is neither
 * carrier nor extension (launcher, control panel, the tos command itself).
 *
 * Blocking calls with time-outs; one connection is used by one thread. Every function returns 0
 * or a negative code (tos_error_word() names it), and writes a sentence to *err if err is not
 * NULL.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <tos/value.h>

#ifdef __cplusplus
extern "C" {
#endif

struct tos_error {
	char text[512];
};
TOS_API const char *tos_error_word(int rc);

/* ---- a connection to a kernel (Unix socket of $TOS_HOME/kernels/NAME/sock) */
struct tos_connection;
/* home NULL: $TOS_HOME or its default. kernel NULL: domain.conf's first kernel that answers. */
TOS_API int tos_connect(const char *home, const char *kernel, uint32_t timeout_ms,
	struct tos_connection **out, struct tos_error *err);
TOS_API void tos_disconnect(struct tos_connection *c);
TOS_API const char *tos_connection_kernel(const struct tos_connection *c);
/* host0/client/7; "" before the first answer */
TOS_API const char *tos_connection_name(const struct tos_connection *c);

/* Post one folder; elements is an array and stays the caller's. Returns when the kernel has it
 * in hand. */
TOS_API int tos_send(struct tos_connection *c, const char *dest, const char *folder,
	const struct tos_value *elements, struct tos_error *err);
/* Post and wait for the answer. *folder (NAME, 129 bytes) may be NULL; *elements is the
 * caller's to free. */
TOS_API int tos_ask(struct tos_connection *c, const char *dest, const char *folder,
	const struct tos_value *elements, uint32_t timeout_ms, char answer[129],
	struct tos_value **out, struct tos_error *err);
/* The next folder posted to this client (answers excluded); timed-out when none came. full, once: so many
 * came while answers were awaited that the text says how many were dropped. */
TOS_API int tos_receive(struct tos_connection *c, uint32_t timeout_ms, char sender[129],
	char folder[129], struct tos_value **elements, struct tos_error *err);
/* Readable when tos_receive() would not wait. */
TOS_API int tos_connection_fd(const struct tos_connection *c);

/* ---- signing */
struct tos_principal; /* a key of $TOS_HOME/keys/NAME */
TOS_API int tos_principal_load(
	const char *home, const char *name, struct tos_principal **out, struct tos_error *err);
TOS_API void tos_principal_free(struct tos_principal *p);
/* From here on, for ten minutes, what this connection posts is that principal's: kernels judge it so,
 * and carriers are told. Done again when less than a minute is left; so call it before each order.
 * unsupported: the kernel is of a version that does not know introductions. */
TOS_API int tos_introduce(struct tos_connection *c, const struct tos_principal *p,
	uint32_t timeout_ms, struct tos_error *err);
/* A signed act: {act, args, deadline, kernel, nonce, target}, posted to KERNEL/Control as ACT
 * [cose]; the answer's elements are the caller's. */
TOS_API int tos_act(struct tos_connection *c, const struct tos_principal *p, const char *kernel,
	const char *act, const char *target, const struct tos_value *args, uint32_t timeout_ms,
	struct tos_value **out, struct tos_error *err);

/* ---- shells: a carrier before it is launched (TOS figure 3) */
struct tos_shell;
/* From one Lua file; its syntax is checked by tos-vm --check. What it requires by literal names is
 * looked for in its folder, then among the libraries of the system, and put beside it; a source
 * lies in no folder. */
TOS_API int tos_shell_file(const char *path, struct tos_shell **out, struct tos_error *err);
TOS_API int tos_shell_source(const char *name, const char *source, size_t n,
	struct tos_shell **out, struct tos_error *err);
/* Add a module that no literal names, and a file that the carrier reads from its folder CODE. Not to
 * code that somebody has signed. */
TOS_API int tos_shell_module(struct tos_shell *s, const char *name, struct tos_error *err);
TOS_API int tos_shell_add_file(
	struct tos_shell *s, const char *file, const void *p, size_t n, struct tos_error *err);
/* A bundle or a saved carrier, with whatever signatures it has. */
TOS_API int tos_shell_load(const char *path, struct tos_shell **out, struct tos_error *err);
TOS_API int tos_shell_save(const struct tos_shell *s, const char *path, struct tos_error *err);
TOS_API void tos_shell_free(struct tos_shell *s);
/* The same bytes as they would be in a file. */
TOS_API int tos_shell_write(const struct tos_shell *s, int fd, struct tos_error *err);
/* "a,b|c,@all" */
TOS_API int tos_shell_path(struct tos_shell *s, const char *path, struct tos_error *err);
/* takes element */
TOS_API int tos_shell_push(struct tos_shell *s, const char *folder, struct tos_value *element,
	struct tos_error *err);
/* "cpu=2" */
TOS_API int tos_shell_limit(struct tos_shell *s, const char *name_value, struct tos_error *err);
/* itinerant, on-unreachable, expires, name; seal and append-only, which name a folder each time */
TOS_API int tos_shell_option(
	struct tos_shell *s, const char *name, const char *value, struct tos_error *err);
TOS_API int tos_shell_sign(
	struct tos_shell *s, const struct tos_principal *author, struct tos_error *err);
/* Asks the home (the connected kernel) for a name, signs the ticket, launches. name: 129 bytes. A home
 * that goes away meanwhile is waited for and asked whether it has the carrier; the connection is then
 * a new one with another descriptor, and what was posted to the old one and not received is lost. */
TOS_API int tos_shell_launch(struct tos_shell *s, struct tos_connection *c,
	const struct tos_principal *owner, char name[129], struct tos_error *err);

/* Run it in a sandboxed child of this process, without a kernel: once, at a place called
 * "local", where nobody answers posts. Any of these may be NULL or 0. */
struct tos_local {
	void (*log)(void *arg, const char *level, const char *text);
	bool (*stop)(void *arg); /* asked now and then: is it to be killed? */
	void *arg;
	uint32_t timeout_ms; /* then it is ended, and timed-out */
};
/* *out: as of tos_outcome(). */
TOS_API int tos_shell_run(const struct tos_shell *s, const struct tos_local *how,
	struct tos_value **out, struct tos_error *err);

/* Wait for an outcome: a map {name, state, briefcase, trail, fault, log}. */
TOS_API int tos_outcome(struct tos_connection *c, const char *name, uint32_t timeout_ms,
	struct tos_value **out, struct tos_error *err);

#ifdef __cplusplus
}
#endif
