/*
 * What the configuration grants to isolated extensions besides connections (broker.h): a listening
 * socket, and a directory, which tosd gives. With the privilege net-in the kernel listens at the
 * address that `listen` names, from the extension's first start until it is removed; so the socket
 * outlives its crashes and goes from one version to the next. Connections are accepted when the
 * extension asks for one, and handed over: it has neither bind() nor accept().
 *
 * Source: doc/decisions/grants.md
 */
#pragma once

#include "kernel/kernel.h"

/* For struct ext_callbacks. */
int grants_listen(void *arg, const char *ext, struct errmsg *em);
void grants_accept(void *arg, const char *key, const char *ext, uint32_t life, uint64_t number,
	uint32_t timeout_ms);
/* One of that name is gone. */
void grants_left(struct kernel *k, const char *ext);
/* It is ready: its privileges go to the audit log and the metrics. */
void grants_ready(struct kernel *k, const char *ext);
void grants_tick(struct kernel *k, int64_t now_ms);
/* Rows for tos doctor. */
void grants_checks(struct kernel *k, struct tos_value *checks);
/* Where it listens and writes, for those who list extensions. */
void grants_describe(struct kernel *k, const char *ext, struct tos_value *row);
