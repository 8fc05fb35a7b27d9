/*
 * The tos command: a table of commands, from which parsing, help, manual pages and completion
 * come. One file a command; what they share is in cli.c, args.c and table.c.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <tos/tos.h>

#include "base/buf.h"
#include "base/err.h"
#include "lib/home.h"

enum exit_code {
	EXIT_DONE = 0,
	EXIT_FAILED = 1,
	EXIT_USAGE = 2,
	EXIT_DENIED = 3,
	EXIT_TIMEOUT = 4,
	EXIT_UNREACHABLE = 5,
	EXIT_DETACHED = 130
};

struct cli;

struct option_spec {
	const char *name;  /* "path" */
	char letter;       /* 'n', or 0 */
	const char *value; /* "PATH"; NULL: a flag */
	const char *doc;
};
#define OPTIONS_MAX 24

struct command {
	const char *name;
	const char *args;     /* "NAME..." */
	const char *summary;  /* one line, no full stop */
	const char *about;    /* paragraphs for help and manual */
	const char *examples; /* lines: "command\tcomment"; may be NULL */
	int (*run)(struct cli *cli);
	size_t min_args, max_args; /* max 0 with min 0: none; ARGS_ANY */
	bool hidden;               /* part of the machinery */
	bool runs_words;           /* its arguments may be a command, behind -- */
	const char *words; /* for completion of arguments: "carriers", "kernels", "files", ...
			      or "on off" */
	struct option_spec options[OPTIONS_MAX]; /* ends with a zero entry */
};
#define ARGS_ANY ((size_t)-1)

/* ---- args.c: parsing, without side effects */
#define ARGS_MAX 1024
struct args {
	const struct command *command; /* NULL: none was named */
	const char *word[ARGS_MAX];    /* arguments of the command */
	size_t n_word;
	bool dashes; /* there was a --, behind so many of them */
	size_t n_before;
	struct {
		const struct option_spec *spec;
		const char *value; /* "" for a flag */
	} option[ARGS_MAX];
	size_t n_option;
};
extern const struct option_spec global_options[];
/* ERR_USAGE with a sentence. argv[0] is the program. */
int args_parse(int argc, char *const *argv, const struct command *const *table,
	struct args *out, struct errmsg *em);
/* The last value given, or NULL. Flags give "". */
const char *args_value(const struct args *a, const char *name);
/* Each value in turn: `size_t it = 0; while ((v = args_next(a, "data", &it)))`. */
const char *args_next(const struct args *a, const char *name, size_t *it);

/* ---- commands */
extern const struct command *const commands[]; /* ends with NULL */
const struct command *command_find(const char *name);
void help_program(FILE *out);
void help_command(const struct command *c, FILE *out);
void manual_page(const struct command *c, FILE *out); /* scdoc */
void completion_print(FILE *out);                     /* bash */

/* ---- cli.c: one run */
struct cli {
	struct args args;
	const char *home;   /* --home, or NULL */
	const char *kernel; /* --kernel, or NULL */
	bool json;
	bool remote; /* --kernel is of another machine: asked through the connected one */
	uint32_t timeout_ms; /* --timeout, or 0: the command's own default */
	struct errmsg em;
	struct tos_connection *connection; /* of cli_connect() */
	struct tos_principal *principal;   /* of cli_principal() */
	struct tos_shell *shell;
};
const char *cli_option(const struct cli *cli, const char *name);
/* --timeout or this. */
uint32_t cli_timeout(const struct cli *cli, uint32_t def_ms);
int cli_exit(int rc); /* exit code for an enum err */
/* Says "tos COMMAND: what is in cli->em" on stderr; returns the exit code. */
int cli_fail(const struct cli *cli, int rc);
int cli_usage(struct cli *cli, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* For the em parameters of libtos. */
struct tos_error *cli_err(struct cli *cli);

/* Connect to --kernel or the default one, once; where --kernel is none of this TOS_HOME, to one
 * that passes on what it is asked. 0 or a negative code with cli->em set. */
int cli_connect(struct cli *cli);
/* Connect to this kernel of this TOS_HOME if it runs here; otherwise stay with the default
 * connection. */
int cli_connect_to(struct cli *cli, const char *kernel);
void cli_disconnect(struct cli *cli);
/* The kernel that is asked: --kernel, or the connected one. */
const char *cli_kernel(const struct cli *cli);
/* Load --as or domain.conf's principal, once. */
int cli_principal(struct cli *cli);
/* VERB with a map (taken; NULL for none) to Control of `kernel` (NULL: the connected one);
 * *out: the one element. */
int cli_ask(struct cli *cli, const char *kernel, const char *verb, struct tos_value *args,
	struct tos_value **out);
/* A signed act at `kernel` (NULL: the connected one); args taken; *out may be NULL. */
int cli_act(struct cli *cli, const char *kernel, const char *act, const char *target,
	struct tos_value *args, struct tos_value **out);
/* "42" or "host0#42" -> "host0#42", asking the kernels of this TOS_HOME where it is short;
 * leaves us connected to the home if it runs here. */
int cli_carrier(struct cli *cli, const char *word, char name[129]);
void cli_home_of(const char *carrier, char kernel[64]); /* "host0#42.1" -> "host0" */

struct tos_value *map_of(const char *key, struct tos_value *v); /* {key: v}; takes v */

void print_json(const struct tos_value *v);
/* An element for people: text bare, everything else as JSON. Control characters are shown as ?.
 */
void print_element(const struct tos_value *v, FILE *out);
void put_text(struct buf *b, const struct tos_value *v);
/* What others wrote must not steer the terminal: of control characters only those in kept stay. */
void put_shown(struct buf *b, const char *s, size_t n, const char *kept);
/* The same of a text of several lines, into b, which is emptied first; lent by it. */
const char *text_shown(struct buf *b, const char *s);

/* ---- words.c: values from the command line */
/* JSON if it is some (unless as_text), else text. */
struct tos_value *word_value(const char *word, bool as_text);
struct json_t;
/* NULL where it can't be one. bytes: "base64:..." and {"base64": "..."} are bytes. */
struct tos_value *json_value(const struct json_t *j, bool bytes);

/* ---- briefcase.c: --briefcase FILE */
struct tos_value *base64_value(const char *s); /* NULL: it is none */
int briefcase_read(const char *file, struct tos_value **out, struct errmsg *em);
/* What the option names goes into cli->shell; where there is none, folder CODE makes it. */
int briefcase_take(struct cli *cli);

/* ---- cmd_content.c */
/* Put a file into the store of the kernel, as far as it is not there: {digest, hex, name, machine}. */
int content_bring(struct cli *cli, const char *path, struct tos_value **out);

/* ---- cmd_completion.c */
void carriers_shipped(struct buf *out, const char *between); /* their names */

/* ---- cmd_launch.c: for build too */
#define PROPERTY_OPTIONS                                                                       \
	{ "path", 'p', "PATH", "where it goes, such as host0,host1|host2,@all,@web" },         \
		{ "data", 'd', "NAME=VALUE",                                                   \
			"push VALUE, text or JSON, into folder NAME; may be repeated" },       \
		{ "briefcase", 'b', "FILE", "take these folders along, from JSON or CBOR" },   \
		{ "module", 0, "NAME",                                                         \
			"put this module beside the code too; may be repeated" },              \
		{ "seal", 0, "FOLDER",                                                         \
			"nobody may change this folder on the way; may be repeated" },         \
		{ "append-only", 0, "FOLDER",                                                  \
			"this folder may grow and nothing else; may be repeated" },            \
		{ "limit", 'l', "NAME=VALUE",                                                  \
			"a limit, such as cpu=2, memory=32M, hops=5; may be repeated" },       \
		{ "on-unreachable", 'u', "WHAT",                                               \
			"wait, wait=TIME, skip, alternate or fail; default wait=30s" },        \
		{ "itinerant", 0, NULL, "it may change its path, where hosts allow that" },    \
		{ "fast", 0, NULL, "in memory only: a crash may lose it, never double it" },   \
	{                                                                                      \
		"expires", 0, "TIME",                                                          \
			"how long its ticket is good, default its lifetime and a day"          \
	}
int launch_properties(struct cli *cli);
int launch_data(struct cli *cli); /* --data alone */
/* The path of a Lua source, or of a shipped carrier of that name. */
int launch_file_of(struct cli *cli, const char *word, char path[4096]);

/* Of tos init and tos up. */
#define LISTEN_OPTIONS                                                                         \
	{ "listen", 0, "ADDRESS[:PORT]",                                                       \
		"where kernels that are made listen; default 127.0.0.1 and a free port from "  \
		"21212 on" },                                                                  \
	{                                                                                      \
		"advertise", 0, "HOST[:PORT]",                                                 \
			"where others dial them; default where they listen"                    \
	}
struct listen_at;
/* *where is NULL if --listen was not given, else out. */
int cli_listen(struct cli *cli, struct listen_at *out, const struct listen_at **where);

/* ---- table.c */
/* Rows are maps; columns: "key:TITLE" separated by spaces, or NULL: the union of keys with
 * `kernel` first, as titles. */
void table_print(const struct tos_value *rows, const char *columns, FILE *out);
void table_text(const struct tos_value *rows, const char *columns, struct buf *out);
/* A limit as it is given to --limit: "10s", "16M", "1000". */
void limit_text(const char *name, int64_t value, char *out, size_t cap);
/* "3m" "2d" ago for a wall time. */
void age_text(int64_t since_wall_ms, int64_t now_wall_ms, char out[16]);

/* ---- outcome.c: shared by launch and wait */
/* Wait for these, print progress if `follow`, and outcomes; returns the exit code. */
int outcome_wait(struct cli *cli, const char *name, bool follow, bool quiet);
/* ---- family.c: the carrier and all that came of it; deadline 0: none. Exit code */
int family_wait(struct cli *cli, const char *name, int64_t deadline, bool quiet);
bool state_is_final(const char *state);
/* What went wrong at that step of a trail, and with whom. */
void trail_error(const struct tos_value *line, struct buf *out);
int outcome_print(const struct cli *cli, const struct tos_value *outcome); /* exit code */

/* ---- keeper.c: kernels of this machine */
int keeper_run(struct cli *cli); /* the hidden command */
int keeper_start(const struct home *h, const char *kernel, struct errmsg *em);
/* The process that keeps it, or 0. */
int keeper_pid(const struct home *h, const char *kernel);
/* The last lines of kernels/NAME/log. */
void keeper_log_tail(
	const struct home *h, const char *kernel, size_t lines, bool info, FILE *out);

/* ---- cmd_stop.c */
bool stop_marked(const struct home *h, const char *kernel); /* by tos stop --all */
int stop_resume(struct cli *cli);                           /* tos resume --all; exit code */

/* interrupted.c */
void interrupt_catch(void); /* SIGINT sets a flag from now on instead of ending us */
bool interrupted(void);
