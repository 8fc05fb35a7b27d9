/* Of this room: telling a place what is wanted (commands.c). */
#pragma once

#include "kernel/kernel.h"

/* May end the carrier, if it is here. */
void command_send(struct kernel *k, struct home_record *h);
