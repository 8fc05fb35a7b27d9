/* Of home.c and records.c: how long an ended carrier's record stays in memory. */
#pragma once

#include "kernel/kernel.h"

#define IN_MEMORY_MS 3600000 /* ended carriers are listed for an hour */
