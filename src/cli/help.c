/* Help, manual pages (scdoc) and completion (bash), all from the table of commands. */
#include <ctype.h>
#include <string.h>

#include "base/text.h"
#include "base/where.h"
#include "cli/cli.h"
#include "cli/commands.h"

static void option_name(const struct option_spec *o, char out[64])
{
	if (o->letter)
		snprintf(out, 64, "-%c, --%s%s%s", o->letter, o->name, o->value ? " " : "",
			o->value ? o->value : "");
	else
		snprintf(out, 64, "    --%s%s%s", o->name, o->value ? " " : "",
			o->value ? o->value : "");
}

#define HELP_WIDTH 80

/* Words of s from column `at` on; lines after the first begin at column `indent`. Newlines of s
 * stay. */
static void help_wrap(const char *s, size_t at, size_t indent, FILE *out)
{
	size_t begin = at;

	while (*s) {
		size_t n = strcspn(s, " \n");

		if (at > begin && at + 1 + n > HELP_WIDTH) {
			fprintf(out, "\n%*s", (int)indent, "");
			at = begin = indent;
		} else if (at > begin) {
			fputc(' ', out);
			at++;
		}
		fprintf(out, "%.*s", (int)n, s);
		at += n;
		s += n;
		for (; *s == ' ' || *s == '\n'; s++)
			if (*s == '\n') {
				fprintf(out, "\n%*s", s[1] && s[1] != '\n' ? (int)indent : 0,
					"");
				at = begin = indent;
			}
	}
	fputc('\n', out);
}

static void help_options(const struct option_spec *o, FILE *out)
{
	char name[64];

	for (; o->name; o++) {
		option_name(o, name);
		fprintf(out, "  %-28s ", name);
		help_wrap(o->doc, 31, 31, out);
	}
}

/* Where in the table of commands a group begins. */
static const char *group_at(const char *command)
{
	static const struct {
		const char *first, *title;
	} groups[] = {
		{ "init", "Domain, kernels and people" },
		{ "run", "Work on hosts" },
		{ "post", "Ask and set a kernel" },
		{ "content", "Files and extensions" },
		{ "drain", "Upkeep" },
		{ "build", "Besides" },
	};

	for (size_t i = 0; i < sizeof(groups) / sizeof(groups[0]); i++)
		if (strcmp(groups[i].first, command) == 0)
			return groups[i].title;
	return NULL;
}

static void help_commands(FILE *out)
{
	for (size_t i = 0; commands[i]; i++) {
		const char *title = group_at(commands[i]->name);

		if (commands[i]->hidden)
			continue;
		if (title)
			fprintf(out, "%s%s:\n", i ? "\n" : "", title);
		fprintf(out, "  %-12s ", commands[i]->name);
		help_wrap(commands[i]->summary, 15, 15, out);
	}
}

void help_program(FILE *out)
{
	fputs("usage: tos COMMAND [OPTION]... [ARGUMENT]...\n\n"
	      "Manages hosts with carriers: signed code that travels from kernel to "
	      "kernel.\n\n",
		out);
	help_commands(out);
	fputs("\nEverywhere:\n", out);
	help_options(global_options, out);
	fputs("\nStart with 'tos up -n 3'; 'tos help COMMAND' and tos(1) say more.\n"
	      "Exit codes: 0 done, 1 failed, 2 usage, 3 denied, 4 timed out, 5 unreachable.\n",
		out);
}

static void help_examples(const char *s, FILE *out)
{
	fputs("\nExamples:\n", out);
	while (*s) {
		size_t line = strcspn(s, "\n"), tab = strcspn(s, "\t\n");

		if (tab < line)
			fprintf(out, "  # %.*s\n", (int)(line - tab - 1), s + tab + 1);
		fprintf(out, "  %.*s\n", (int)tab, s);
		s += line + (s[line] == '\n');
	}
}

void help_command(const struct command *c, FILE *out)
{
	size_t at = strlen("usage: tos  [OPTION]... ") + strlen(c->name);
	char summary[160];

	fprintf(out, "usage: tos %s [OPTION]...%s", c->name, *c->args ? " " : "");
	help_wrap(c->args, at, 11, out);
	fputc('\n', out);
	snprintf(summary, sizeof(summary), "%s.", c->summary);
	help_wrap(summary, 0, 0, out);
	fputc('\n', out);
	help_wrap(c->about, 0, 0, out);
	if (c->options[0].name) {
		fputs("\nOptions:\n", out);
		help_options(c->options, out);
	}
	fputs("\nEverywhere:\n", out);
	help_options(global_options, out);
	if (c->examples)
		help_examples(c->examples, out);
}

/* ---- scdoc */

/* Escape what scdoc would take for markup. */
static void put_sc(const char *s, FILE *out)
{
	for (const char *p = s; *p; p++) {
		/* a dash at a line's beginning would make a list of it */
		if (strchr("_*\\#[]<>|~", *p) || (*p == '-' && (p == s || p[-1] == '\n')))
			fputc('\\', out);
		fputc(*p, out);
	}
}

static void manual_options(const struct option_spec *o, FILE *out)
{
	for (; o->name; o++) {
		if (o->letter)
			fprintf(out, "*-%c*, ", o->letter);
		fprintf(out, "*--%s*", o->name);
		if (o->value) {
			fputs(" _", out);
			put_sc(o->value, out);
			fputs("_", out);
		}
		fputs("\n\t", out);
		put_sc(o->doc, out);
		fputs(".\n\n", out);
	}
}

static void manual_examples(const char *s, FILE *out)
{
	fputs("# EXAMPLES\n\n", out);
	while (*s) {
		size_t line = strcspn(s, "\n"), tab = strcspn(s, "\t\n");

		if (tab < line) {
			char text[256];

			snprintf(
				text, sizeof(text), "%.*s", (int)(line - tab - 1), s + tab + 1);
			put_sc(text, out);
			fputs(":\n\n", out);
		}
		fprintf(out, "```\n%.*s\n```\n\n", (int)tab, s);
		s += line + (s[line] == '\n');
	}
}

static void manual_commands(FILE *out)
{
	fputs("# COMMANDS\n\n", out);
	for (size_t i = 0; commands[i]; i++) {
		if (commands[i]->hidden)
			continue;
		fprintf(out, "*%s*", commands[i]->name);
		if (*commands[i]->args) {
			fputs(" ", out);
			put_sc(commands[i]->args, out);
		}
		fputs("\n\t", out);
		put_sc(commands[i]->summary, out);
		fprintf(out, "; see *tos-%s*(1).\n\n", commands[i]->name);
	}
}

static void manual_end(FILE *out)
{
	fputs("# EXIT STATUS\n\n"
	      "0 done, 1 failed, 2 wrong usage, 3 denied, 4 timed out, 5 unreachable. One line "
	      "on standard "
	      "error says what went wrong and what to do about it.\n\n",
		out);
}

static void manual_program(FILE *out)
{
	fputs("tos(1)\n\n# NAME\n\ntos - manage hosts with carriers\n\n# SYNOPSIS\n\n"
	      "*tos* _COMMAND_ \\[_OPTION_\\]... \\[_ARGUMENT_\\]...\n\n# DESCRIPTION\n\n"
	      "A kernel of TOS runs on each host. A carrier is signed code and data that "
	      "travels from kernel "
	      "to kernel along a path, works at each, and brings its findings home. *tos* "
	      "makes the domain "
	      "to which kernels and people belong, starts kernels, launches carriers and looks "
	      "after them. "
	      "*tos up -n 3* is a start; *tos-carrier*(7) tells how carriers are written.\n\n",
		out);
	manual_commands(out);
	fputs("# OPTIONS\n\nThese are understood by every command, before or behind its "
	      "name.\n\n",
		out);
	manual_options(global_options, out);
	manual_end(out);
	fputs("# ENVIRONMENT\n\n*TOS\\_HOME*\n\tWhere the domain is, unless *--home* says "
	      "so.\n\n"
	      "*TOS\\_PASSPHRASE*\n\tThe passphrase of the root key and of keys that have "
	      "one.\n\n"
	      "# FILES\n\n_$TOS\\_HOME/domain.conf_\n\tThe principal that commands act as, and "
	      "the kernel that "
	      "they ask first.\n\n_$TOS\\_HOME/ca_\n\tThe domain's root key and certificate, "
	      "the revocation "
	      "list.\n\n_$TOS\\_HOME/keys/NAME_\n\tKey and certificate of a principal.\n\n"
	      "_$TOS\\_HOME/kernels/NAME_\n\tConfiguration, key, certificate, store, socket "
	      "and log of a "
	      "kernel of this machine.\n\n# SEE ALSO\n\n*tos-carrier*(7), *tosd*(8)\n",
		out);
}

void manual_page(const struct command *c, FILE *out)
{
	if (!c) {
		manual_program(out);
		return;
	}
	fprintf(out, "tos-%s(1)\n\n# NAME\n\ntos-%s - ", c->name, c->name);
	put_sc(c->summary, out);
	fprintf(out, "\n\n# SYNOPSIS\n\n*tos %s* \\[_OPTION_\\]...", c->name);
	if (*c->args) {
		fputs(" ", out);
		put_sc(c->args, out);
	}
	fputs("\n\n# DESCRIPTION\n\n", out);
	put_sc(c->about, out);
	fputs("\n\n# OPTIONS\n\n", out);
	manual_options(c->options, out);
	manual_options(global_options, out);
	manual_end(out);
	if (c->examples)
		manual_examples(c->examples, out);
	fputs("# SEE ALSO\n\n*tos*(1), *tos-carrier*(7)\n", out);
}

/* ---- bash */

static void completion_options(const struct command *c, FILE *out)
{
	const struct option_spec *o;

	for (o = c->options; o->name; o++)
		fprintf(out, " --%s", o->name);
	for (o = global_options; o->name; o++)
		fprintf(out, " --%s", o->name);
}

void completion_print(FILE *out)
{
	fputs("# Completion of tos for bash.\n_tos()\n{\n"
	      "\tlocal cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} cmd= i\n"
	      "\tlocal home=$HOME/.tos words=\n"
	      "\t((EUID)) || home=/var/lib/tos\n"
	      "\thome=${TOS_HOME:-$home}\n"
	      "\tfor ((i = 1; i < COMP_CWORD; i++)); do\n"
	      "\t\tcase ${COMP_WORDS[i]} in --home|--kernel|-k|--timeout|-t) ((i++));; -*) ;; "
	      "*) cmd=${COMP_WORDS[i]}; break;; esac\n\tdone\n"
	      "\tcase $prev in\n"
	      "\t-k|--kernel|--dead) COMPREPLY=($(compgen -W \"$(command ls \"$home/kernels\" "
	      "2>/dev/null)\" "
	      "-- \"$cur\")); return;;\n"
	      "\t--as|--author) COMPREPLY=($(compgen -W \"$(command ls \"$home/keys\" 2>/dev/null)\" -- "
	      "\"$cur\")); "
	      "return;;\n"
	      "\t--role) COMPREPLY=($(compgen -W 'admin owner author officer' -- \"$cur\")); return;;\n"
	      "\t-u|--on-unreachable) COMPREPLY=($(compgen -W 'wait skip alternate fail' -- "
	      "\"$cur\")); return;;\n"
	      /* Each entry and each alternative of a path on its own. */
	      "\t-p|--path|-H|--hosts) i=${cur%\"${cur##*[,|]}\"}\n"
	      "\t\tCOMPREPLY=($(compgen -P \"$i\" -W \"$(tos groups --names --timeout 2s 2>/dev/null || echo @all) "
	      "$(command ls \"$home/kernels\" "
	      "2>/dev/null)\" -- "
	      "\"${cur##*[,|]}\")); compopt -o nospace 2>/dev/null; return;;\n"
	      "\t--home|-o|--output|-b|--briefcase|--passphrase-file) COMPREPLY=($(compgen -f -- \"$cur\")); return;;\n\tesac\n"
	      "\tcase $cmd in\n\t'') words='",
		out);
	for (size_t i = 0; commands[i]; i++)
		if (!commands[i]->hidden)
			fprintf(out, "%s%s", i ? " " : "", commands[i]->name);
	fputs(" help'\n\t\t[[ $cur == -* ]] && words='", out);
	for (const struct option_spec *o = global_options; o->name; o++)
		fprintf(out, " --%s", o->name);
	fputs("';;\n\thelp) words='", out);
	for (size_t i = 0; commands[i]; i++)
		if (!commands[i]->hidden)
			fprintf(out, "%s%s", i ? " " : "", commands[i]->name);
	fputs("';;\n", out);
	for (size_t i = 0; commands[i]; i++) {
		const struct command *c = commands[i];

		if (c->hidden)
			continue;
		fprintf(out, "\t%s) words='", c->name);
		completion_options(c, out);
		fputs("'", out);
		if (c->words && strcmp(c->words, "carriers") == 0)
			fputs("\n\t\t[[ $cur == -* ]] || words=\"$(tos manual --carriers "
			      "2>/dev/null) $(compgen -f -- \"$cur\")\"",
				out);
		else if (c->words && strcmp(c->words, "kernels") == 0)
			fputs("\n\t\t[[ $cur == -* ]] || words=$(command ls "
			      "\"$home/kernels\" 2>/dev/null)",
				out);
		else if (c->words && strcmp(c->words, "files") == 0)
			fputs("\n\t\t[[ $cur == -* ]] || { COMPREPLY=($(compgen -f -- "
			      "\"$cur\")); return; }",
				out);
		else if (c->words && strcmp(c->words, "properties") == 0)
			fputs("\n\t\t[[ $cur == -* ]] || words=$(tos get --timeout 2s 2>/dev/null | "
			      "sed '1d;s/ .*//')",
				out);
		else if (c->words && strcmp(c->words, "names") == 0)
			fputs("\n\t\t[[ $cur == -* ]] || words=$(tos ps --timeout 2s 2>/dev/null | "
			      "sed '1d;s/ .*//')",
				out);
		else if (c->words)
			fprintf(out, "\n\t\t[[ $cur == -* ]] || words='%s'", c->words);
		fputs(";;\n", out);
	}
	fputs("\tesac\n\tCOMPREPLY=($(compgen -W \"$words\" -- \"$cur\"))\n}\ncomplete -F _tos "
	      "tos\n",
		out);
}
