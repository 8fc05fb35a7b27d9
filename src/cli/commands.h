/* The commands, in the order in which help lists them. */
#pragma once

#include "cli/cli.h"

#define COMMANDS(X)                                                                            \
	X(init)                                                                                \
	X(up)                                                                                  \
	X(down)                                                                                \
	X(enroll)                                                                              \
	X(join)                                                                                \
	X(kernels)                                                                             \
	X(can)                                                                                 \
	X(groups)                                                                              \
	X(principal)                                                                           \
	X(run)                                                                                 \
	X(launch)                                                                              \
	X(ps)                                                                                  \
	X(show)                                                                                \
	X(locate)                                                                              \
	X(wait)                                                                                \
	X(log)                                                                                 \
	X(suspend)                                                                             \
	X(resume)                                                                              \
	X(kill)                                                                                \
	X(retry)                                                                               \
	X(resolve)                                                                             \
	X(commit)                                                                              \
	X(post)                                                                                \
	X(call)                                                                                \
	X(get)                                                                                 \
	X(set)                                                                                 \
	X(reload)                                                                              \
	X(metrics)                                                                             \
	X(audit)                                                                               \
	X(doctor)                                                                              \
	X(action)                                                                              \
	X(programs)                                                                            \
	X(content)                                                                             \
	X(extension)                                                                           \
	X(drain)                                                                               \
	X(stop)                                                                                \
	X(backup)                                                                              \
	X(restore)                                                                             \
	X(build)                                                                               \
	X(verify)                                                                              \
	X(completion)                                                                          \
	X(manual)                                                                              \
	X(keeper)

#define COMMAND_EXTERN(name) extern const struct command command_##name;
COMMANDS(COMMAND_EXTERN)

/* cmd_commit.c: at each kernel that is in doubt about it; adds to rows */
int resolve_tx(struct cli *cli, const char *tx, const char *decision, struct tos_value *rows);
