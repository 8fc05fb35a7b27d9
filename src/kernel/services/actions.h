/*
 * Named actions: privileged steps that the host's configuration lists, granted one by one by rules
 * with the word `action`, and run by tosd. Runs in tos-kernel.
 *
 * Source: doc/inboxes.md, "Programs"; doc/decisions/actions.md
 */
#pragma once

#include "kernel/kernel.h"

void actions_init(void);
void actions_tick(int64_t now_ms);
/* ACTION of Programs. Takes rq. */
void action_verb(struct kernel *k, struct request *rq);
/* ACTIONS of Control. Takes rq. */
void actions_list_verb(struct kernel *k, struct request *rq);
/* From tosd. */
void action_ended(struct kernel *k, const struct tosd_action_ended *e);
