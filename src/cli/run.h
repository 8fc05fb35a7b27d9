/* tos run: what its two files share. cmd_run.c makes and launches the carriers, run_follow.c shows
 * what comes of them. */
#pragma once

#include "cli/cli.h"

struct run {
	struct cli *cli;
	char name[129];            /* of the one that conducts */
	struct tos_value *hosts;   /* names, in order */
	struct tos_value *paths;   /* the same with their alternatives: "a|b" */
	struct tos_value *rows;    /* host -> what became of it */
	struct tos_value *summary; /* {state, why, wave, count}; NULL: not over yet */
	char state[32];            /* of the one that conducts */
	bool hello;                /* it takes posts */
	bool durable;              /* it survives its kernel */
	bool is_carrier;           /* what is run is a carrier, not a command */
	int width;                 /* of the longest host's name */
	struct errmsg bad;
};

/* Take what came, waiting for at most so long. 0, ERR_TIMEOUT: nothing came; else the connection
 * failed. */
int run_receive(struct run *r, uint32_t wait_ms);
/* Until it is over, Ctrl-C, or the home is gone; prints; the exit code. */
int run_follow(struct run *r);
