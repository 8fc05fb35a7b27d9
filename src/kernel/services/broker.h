/*
 * Connections for isolated extensions: they have no network of their own. An extension with the
 * privilege net-out asks for a host and a port; if one of its configured places names both, this
 * file looks the name up, refuses private addresses (unless the place is one, or says so),
 * connects, and hands the connected socket over. The sandbox has neither socket() nor connect(), so
 * such a socket leads where it leads.
 */
#pragma once

#include "kernel/kernel.h"

/* For struct ext_callbacks. */
void broker_connect(void *arg, const char *key, const char *ext, uint32_t life, uint64_t number,
	const char *host, uint16_t port, uint32_t timeout_ms);
void broker_audit(void *arg, const char *ext, const char *event, const struct tos_value *map);
struct tos_value *broker_outside(void *arg, const char *ext);
void broker_tick(struct kernel *k, int64_t now_ms);
/* Has this extension, by the name of one of its inboxes, a place from which may be admitted? */
bool broker_may_admit(struct kernel *k, const char *sender);
