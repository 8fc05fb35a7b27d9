/* What a child of ours that runs a carrier without a kernel gives up before it becomes tos-vm. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct confinement {
	int64_t memory; /* bytes that the carrier is granted */
	int64_t cpu_ms;
};
/* In the child, between fork() and exec: namespaces where they are allowed, limits,
 * no_new_privs, and the list of system calls. False where the last two are not to be had. */
bool confine(const struct confinement *c);
