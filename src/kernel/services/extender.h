/*
 * Extensions that are installed, replaced and removed while the kernel runs: the inbox Extender
 * and what stands behind it. Whoever brings one needs the right `install`, and the package an
 * officer's signature; neither is enough alone, nor may one person give both.
 */
#pragma once

#include "kernel/kernel.h"

struct extender;

extern const struct verb extender_verbs[];
/* Those of the store, after the configured ones. */
int extender_load(struct kernel *k, struct errmsg *em);
/* An act: {package: digest, [replace: bool]}; its bytes lie beside it, or came ahead. Takes rq. */
void extender_install_act(struct kernel *k, struct request *rq, const char *by,
	const char *name, const struct tos_value *args);
void extender_remove_act(
	struct kernel *k, struct request *rq, const char *by, const char *name);
/* What the host says of one; false: it is a configured one. */
bool extender_ready(struct kernel *k, const char *key, int rc, const char *why);
void extender_gone(struct kernel *k, const char *key);
/* The name that people know it by. */
const char *extender_name(const struct kernel *k, const char *key);
/* Of an installed one, for tosd. *fd stays ours. ERR_NOT_FOUND. */
struct extender_process {
	uint32_t index, privileges;
	uint64_t address_bytes;
	int fd;
	char label[64];
};
int extender_process(const struct kernel *k, const char *key, struct extender_process *out);
/* An officer's certificate may have been revoked. */
void extender_recheck(struct kernel *k);
