/*
 * Groups of hosts and labels of hosts: the domain's inventory.
 *
 *   group "web" { hosts = {"host1", "host2", "@edge"} }
 *   host "host1" { labels = {"os=debian", "rack=3"} }
 *
 * They stand in $TOS_HOME/domain.conf where the domain is administered, and with the registrar
 * once they were published (tos groups publish), which other hosts ask. A path is expanded into
 * the ticket at launch: what changes afterwards changes nothing for a carrier that is under way.
 */
#pragma once

#include <tos/tos.h>

#include "base/buf.h"
#include "base/err.h"
#include "lib/home.h"

#define GROUPS_MAX        1024
#define GROUPS_HOSTS_MAX  16384
#define GROUPS_DEPTH_MAX  8
#define GROUPS_LABELS_MAX 32 /* of one host */

/* As a value: {groups: {NAME: [HOST | "@SELECTOR"]}, labels: {HOST: {KEY: VALUE}}}. */
struct groups {
	struct tos_value *value;
	char source[128]; /* "domain.conf" or "registrar host0"; "" nowhere is any */
};
void groups_fini(struct groups *g);

/* What domain.conf says; neither group nor host there: source "". ERR_CONFIG with file and line.
 * checked: bounds, names, no group within itself. */
int groups_read(const char *home, struct groups *out, struct errmsg *em);
/* The same checks for a value that came from elsewhere. */
int groups_check(const struct tos_value *value, struct errmsg *em);
/* Those of domain.conf of the connection's TOS_HOME, else what the connected kernel knows of the
 * registrar's. */
int groups_find(struct tos_connection *c, struct groups *out, struct errmsg *em);
/* Members of "@all", "@NAME", "@KEY=VALUE": each once, in the order given, appended to *out (which may
 * hold others already). ERR_NOT_FOUND: there is no such group (with near ones), or nobody is in it. */
int groups_select(const struct groups *g, const char *selector, const struct names *all,
	struct names *out, struct errmsg *em);
/* Is that a selector as such, behind its @? */
bool groups_selector_ok(const char *s);
/* The sections of a domain.conf that was parsed (a cfg_t), unchecked. */
int groups_of_conf(void *conf, struct tos_value **out);
/* Every selector that there is, "@all" first: for lists and completion. */
int groups_selectors(const struct groups *g, struct names *out);
