/* Of this room: verbs of inbox Home that places post (reports.c). They take rq. */
#pragma once

#include "kernel/kernel.h"

void arrived_verb(struct kernel *k, struct request *rq);
void gone_verb(struct kernel *k, struct request *rq);
void ended_verb(struct kernel *k, struct request *rq);
void event_verb(struct kernel *k, struct request *rq);
