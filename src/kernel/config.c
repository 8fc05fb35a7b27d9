/*
 * The configuration of one kernel: see config.h. One table describes every key; the parser, the
 * checks and the printer come from it. libconfuse only splits the text into keys and values:
 * every value is taken as text and checked here, because its own integers are octal with a
 * leading zero and its errors don't name ranges.
 */
#include "kernel/config_table.h"

#include <confuse.h>
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/mem.h"
#include "base/text.h"
#include "base/where.h"
#include "core/firewall.h"
#include "core/name.h"
#include "kernel/config_action.h"

#define FILE_BYTES_MAX ((size_t)1 << 20)
#define PEERS_MAX      1024

/* ---- reading */

/* libconfuse gives its callbacks no argument of ours; one configuration is read at a time. */
#define END_MARK "end-of-configuration"
static struct reading {
	const char *where;
	struct errmsg *em;
	bool failed, ended;
	struct buf seen; /* options that were given a value: pointers */
	struct buf *rule_lines;
} * reading;

static void on_error(cfg_t *cfg, const char *fmt, va_list ap)
{
	char text[400];

	if (reading->failed) /* the first one is the cause */
		return;
	reading->failed = true;
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
	vsnprintf(text, sizeof(text), fmt, ap);
#pragma GCC diagnostic pop
	if (strstr(text, END_MARK))
		snprintf(text, sizeof(text),
			"the file ends too early: a } or a value is missing");
	for (char *p = text; *p; p++)
		if ((unsigned char)*p < ' ' || *p == 0x7f)
			*p = '?';
	err_set(reading->em, ERR_CONFIG, "%s:%d: %s", reading->where, cfg ? cfg->line : 0,
		text);
}

static const struct key *key_find(const char *section, const char *name)
{
	for (size_t i = 0; i < config_n_keys; i++)
		if (strcmp(config_table[i].section, section) == 0 &&
			strcmp(config_table[i].name, name) == 0)
			return &config_table[i];
	return NULL;
}

/* `=` starts an option anew, without a word about what stood there: only a list's later
 * elements are no new beginning. */
static bool given_again(const struct key *k, cfg_opt_t *opt)
{
	cfg_opt_t *const *seen = (cfg_opt_t *const *)(const void *)reading->seen.data;
	size_t n = reading->seen.len / sizeof(cfg_opt_t *);

	if (k->list && cfg_opt_size(opt) > 1)
		return false;
	for (size_t i = 0; i < n; i++)
		if (seen[i] == opt)
			return true;
	buf_add(&reading->seen, &opt, sizeof(cfg_opt_t *));
	return false;
}

/* libconfuse takes the end of the file for the end of every open section, and of a comment. A
 * mark that only counts at the top tells a file that was cut off. */
static int on_end(cfg_t *cfg, cfg_opt_t *opt, const char *value, void *result)
{
	if (reading->ended) /* the file has one of its own */
		cfg_error(cfg, "%s", opt->name);
	reading->ended = true;
	*(const char **)result = value;
	return 0;
}

static int on_value(cfg_t *cfg, cfg_opt_t *opt, const char *value, void *result)
{
	bool top = strcmp(cfg->name, "root") == 0;
	const struct key *k = key_find(top ? "" : cfg->name, opt->name);
	struct errmsg why = { "" };

	must(k);
	if (given_again(k, opt)) {
		cfg_error(cfg, "%s is given twice", opt->name);
		return 1;
	}
	if (k->list && cfg_opt_size(opt) > k->list) {
		cfg_error(cfg, "%s has more than %zu values", opt->name, k->list);
		return 1;
	}
	if (strcmp(value, END_MARK) == 0) {
		cfg_error(cfg, END_MARK);
		return 1;
	}
	if (config_value_check(k, value, &why) < 0) {
		cfg_error(cfg, "%s: %s", opt->name, why.text);
		return 1;
	}
	if (k->kind == KEY_RULE)
		buf_add(reading->rule_lines, &(uint32_t){ (uint32_t)cfg->line },
			sizeof(uint32_t));
	*(const char **)result = value;
	return 0;
}

#define SECTION_KEYS_MAX 24

static void options_fill(const char *section, cfg_opt_t out[SECTION_KEYS_MAX + 1])
{
	size_t n = 0;

	for (size_t i = 0; i < config_n_keys; i++) {
		if (strcmp(config_table[i].section, section) != 0)
			continue;
		must(n < SECTION_KEYS_MAX);
		if (config_table[i].list)
			out[n++] = (cfg_opt_t)CFG_STR_LIST_CB(
				config_table[i].name, NULL, CFGF_NODEFAULT, on_value);
		else
			out[n++] = (cfg_opt_t)CFG_STR_CB(
				config_table[i].name, NULL, CFGF_NODEFAULT, on_value);
	}
	out[n] = (cfg_opt_t)CFG_END();
}

static cfg_t *tree_new(const char *where)
{
	cfg_opt_t sub[CONFIG_SECTIONS_MAX][SECTION_KEYS_MAX + 1];
	cfg_opt_t top[SECTION_KEYS_MAX + 2 + CONFIG_SECTIONS_MAX];
	size_t n = 0;
	cfg_t *cfg;

	options_fill("", top);
	while (top[n].name)
		n++;
	top[n++] = (cfg_opt_t)CFG_STR_CB(END_MARK, NULL, CFGF_NODEFAULT, on_end);
	for (size_t i = 0; i < config_n_sections; i++) {
		options_fill(config_sections[i].name, sub[i]);
		top[n++] = (cfg_opt_t)CFG_SEC(config_sections[i].name, sub[i],
			config_sections[i].multi ? CFGF_MULTI | CFGF_TITLE | CFGF_NO_TITLE_DUPES
						 : CFGF_NONE);
	}
	top[n] = (cfg_opt_t)CFG_END();
	cfg = cfg_init(top, CFGF_NONE); /* copies the options */
	must(cfg);
	cfg->filename = mem_strdup(where);
	cfg_set_error_function(cfg, on_error);
	return cfg;
}

static const char *scalar(cfg_t *cfg, const struct key *k)
{
	cfg_t *sec = k->section[0] ? cfg_getsec(cfg, k->section) : cfg;

	return sec ? cfg_getstr(sec, k->name) : NULL;
}

/* ---- one key */

/* What may change while the kernel runs: what is read anew each time that it matters. The rest is
 * with tosd, or was handed to others at the start. */
static bool is_live(const struct key *k)
{
	static const struct {
		const char *section, *names; /* NULL: all of them */
	} live[] = { { "limits", NULL }, { "policy", NULL }, { "log", NULL }, { "clock", NULL },
		{ "local", NULL }, { "revocation", NULL }, { "programs", NULL },
		{ "queue", " stream stream_bytes streams_bytes " },
		{ "timing", " offer offer_again hook call report lost retry " } };
	char word[40];

	snprintf(word, sizeof(word), " %.36s ", k->name);
	for (size_t i = 0; i < ARRAY_LEN(live); i++)
		if (strcmp(live[i].section, k->section) == 0)
			return !live[i].names || strstr(live[i].names, word);
	return false;
}

/* Of a section that comes more than once; lists are told by themselves. */
static bool is_item(const struct key *k)
{
	return strcmp(k->section, "extension") == 0 || strcmp(k->section, "action") == 0 ||
	       strcmp(k->section, "installed") == 0;
}

size_t config_keys(void)
{
	return config_n_keys;
}

bool config_key_get(size_t i, struct config_key *out)
{
	const struct key *k = &config_table[i];

	if (k->list || is_item(k))
		return false;
	*out = (struct config_key){ .section = k->section,
		.name = k->name,
		.live = is_live(k),
		.is_text = config_is_text(k->kind),
		.is_bool = k->kind == KEY_BOOL,
		.unit = k->kind == KEY_BYTES || k->kind == KEY_SIZE ? "B"
			: k->kind == KEY_MS || k->kind == KEY_MS32  ? "ms"
								    : "",
		.min = k->min,
		.max = k->max };
	if (k->kind == KEY_LIMIT)
		out->unit = limit_units[limit_find(k->name, strlen(k->name))];
	return true;
}

int config_key_find(const char *section, const char *name)
{
	const struct key *k = key_find(section, name);

	return k ? (int)(k - config_table) : ERR_NOT_FOUND;
}

/* Only checked values come here. */
static int value_store(const struct key *k, const char *s, struct config *c, struct errmsg *em)
{
	char *at = (char *)c + k->offset;
	int64_t v = k->def;
	int rc = 0;

	if (config_is_text(k->kind))
		return text_copy(at, k->cap, s ? s : k->text, strlen(s ? s : k->text));
	if (s)
		rc = config_number_check(k, s, &v, em);
	if (rc < 0)
		return rc;
	switch (k->kind) {
	case KEY_BOOL:
		*(bool *)at = v != 0;
		break;
	case KEY_U32:
	case KEY_MS32:
		*(uint32_t *)(void *)at = (uint32_t)v;
		break;
	case KEY_SIZE:
		*(size_t *)(void *)at = (size_t)v;
		break;
	default: /* 64 bits, signed or not */
		*(int64_t *)(void *)at = v;
		break;
	}
	return 0;
}

static int scalars_fill(cfg_t *cfg, struct config *c, struct errmsg *em)
{
	for (size_t i = 0; i < config_n_keys; i++) {
		const struct key *k = &config_table[i];
		const char *s;
		int rc;

		if (k->list || is_item(k))
			continue;
		s = scalar(cfg, k);
		if (s)
			c->given[i / 64] |= (uint64_t)1 << i % 64;
		if (!s && config_is_text(k->kind) && !k->text)
			continue; /* has a default of its own below */
		rc = value_store(k, s, c, em);
		if (rc < 0)
			return rc;
	}
	return 0;
}

static void lists_fill(cfg_t *cfg, struct config *c, const struct buf *rule_lines)
{
	size_t n_defaults;
	const char *const *defaults = config_default_rules(&n_defaults);
	cfg_t *local = cfg_getsec(cfg, "local"), *sandbox = cfg_getsec(cfg, "sandbox");
	cfg_t *policy = cfg_getsec(cfg, "policy"), *extender = cfg_getsec(cfg, "extender"),
	      *programs = cfg_getsec(cfg, "programs");
	size_t n;

	c->n_listen = cfg_size(cfg, "listen");
	for (size_t i = 0; i < c->n_listen; i++)
		snprintf(c->listen[i], sizeof(c->listen[i]), "%s",
			cfg_getnstr(cfg, "listen", (unsigned)i));
	c->n_require = cfg_size(sandbox, "require");
	for (size_t i = 0; i < c->n_require; i++)
		snprintf(c->require[i], sizeof(c->require[i]), "%s",
			cfg_getnstr(sandbox, "require", (unsigned)i));
	c->n_local_uids = cfg_size(local, "principals");
	for (size_t i = 0; i < c->n_local_uids; i++)
		c->local_uids[i] = (uint32_t)strtoul(
			cfg_getnstr(local, "principals", (unsigned)i), NULL, 10);
	c->n_extender_kernel = cfg_size(extender, "kernel");
	for (size_t i = 0; i < c->n_extender_kernel; i++)
		snprintf(c->extender_kernel[i], sizeof(c->extender_kernel[i]), "%s",
			cfg_getnstr(extender, "kernel", (unsigned)i));
	c->n_pins = cfg_size(programs, "pin");
	for (size_t i = 0; i < c->n_pins; i++)
		snprintf(c->pin[i], sizeof(c->pin[i]), "%s",
			cfg_getnstr(programs, "pin", (unsigned)i));
	n = c->n_own_rules = cfg_size(policy, "rules");
	c->n_rules = n + (c->default_rules ? n_defaults : 0);
	c->rules = mem_zero((c->n_rules + 1) * sizeof(char *));
	c->rule_lines = mem_zero((n + 1) * sizeof(uint32_t));
	if (n && rule_lines->len == n * sizeof(uint32_t))
		memcpy(c->rule_lines, rule_lines->data, rule_lines->len);
	for (size_t i = 0; i < c->n_rules; i++)
		c->rules[i] = mem_strdup(
			i < n ? cfg_getnstr(policy, "rules", (unsigned)i) : defaults[i - n]);
}

/* A section's title as it may stand in a message: nobody has checked it yet. */
const char *config_title(const char *title, char out[68])
{
	size_t n = 0;

	for (; title[n] && n < 64; n++)
		out[n] = title[n] < ' ' || title[n] > '~' ? '?' : title[n];
	snprintf(out + n, 4, "%s", title[n] ? "..." : "");
	return out;
}

static int peers_fill(cfg_t *cfg, struct config *c, struct errmsg *em)
{
	size_t n = cfg_size(cfg, "peer");

	if (n > PEERS_MAX)
		return err_set(
			em, ERR_CONFIG, "%s: more than %d peers", cfg->filename, PEERS_MAX);
	c->peers = mem_zero((n + 1) * sizeof(struct config_peer));
	for (size_t i = 0; i < n; i++) {
		cfg_t *sec = cfg_getnsec(cfg, "peer", (unsigned)i);
		struct config_peer *p = &c->peers[c->n_peers];
		const char *name = cfg_title(sec);
		char shown[68];

		if (!name_kernel_ok(name))
			return err_set(em, ERR_CONFIG, "%s:%d: peer '%s' is no kernel's name",
				cfg->filename, sec->line, config_title(name, shown));
		snprintf(p->name, sizeof(p->name), "%s", name);
		p->n_address = cfg_size(sec, "address");
		for (size_t k = 0; k < p->n_address; k++)
			snprintf(p->address[k], sizeof(p->address[k]), "%s",
				cfg_getnstr(sec, "address", (unsigned)k));
		c->n_peers++;
	}
	return 0;
}

/* A shipped library's name becomes its path; one that is not there keeps its name, and
 * config_to_tosd() says so. */
static void library_resolve(struct config_extension *x, const char *library)
{
	char found[PATH_MAX], *real = NULL;

	if (library[0] != '/' && where_extension(library, found, sizeof(found)) == 0)
		real = realpath(found, NULL);
	if (!real || text_copy(x->library, sizeof(x->library), real, strlen(real)) < 0)
		snprintf(x->library, sizeof(x->library), "%s", library);
	free(real);
}

static bool extension_known(const struct config *c, const char *name)
{
	for (size_t i = 0; i < c->n_extensions; i++)
		if (strcmp(c->extensions[i].name, name) == 0)
			return true;
	return false;
}

/* Those that the configuration does not have itself. */
static void extensions_default(struct config *c)
{
	for (size_t i = 0; i < config_n_shipped; i++) {
		struct config_extension *x = &c->extensions[c->n_extensions];

		if (c->n_extensions == ARRAY_LEN(c->extensions) ||
			extension_known(c, config_shipped[i].name))
			continue;
		c->n_extensions++;

		snprintf(x->name, sizeof(x->name), "%s", config_shipped[i].name);
		snprintf(x->privileges, sizeof(x->privileges), "%s",
			config_shipped[i].privileges);
		x->file_bytes = TOSD_FILE_BYTES;
		x->isolated = config_shipped[i].isolated;
		library_resolve(x, config_shipped[i].library);
	}
}

static int extension_property(struct config_extension *x, const char *text)
{
	const char *equals = strchr(text, '=');
	char(*at)[128] = x->property[x->n_property];

	if (text_copy(at[0], sizeof(at[0]), text, (size_t)(equals - text)) < 0 ||
		text_copy(at[1], sizeof(at[1]), equals + 1, strlen(equals + 1)) < 0)
		return ERR_TOO_LARGE;
	x->n_property++;
	return 0;
}

static void text_fill(cfg_t *sec, const char *key, char *out, size_t cap)
{
	const char *s = cfg_getstr(sec, key);

	snprintf(out, cap, "%s", s ? s : "");
}

/* What configured and installed ones have alike. */
static int grants_fill(
	cfg_t *sec, struct config_extension *x, const char *file, struct errmsg *em)
{
	const char *size = cfg_getstr(sec, "file_size");
	int64_t bytes = (int64_t)TOSD_FILE_BYTES;

	x->n_places = cfg_size(sec, "places");
	for (unsigned i = 0; i < x->n_places; i++)
		snprintf(x->places[i], sizeof(x->places[i]), "%s",
			cfg_getnstr(sec, "places", i));
	text_fill(sec, "ca", x->ca, sizeof(x->ca));
	text_fill(sec, "directory", x->directory, sizeof(x->directory));
	text_fill(sec, "listen", x->listen, sizeof(x->listen));
	if (size)
		(void)config_number_check(
			key_find("extension", "file_size"), size, &bytes, NULL);
	x->file_bytes = (uint64_t)bytes;
	for (unsigned i = 0; i < cfg_size(sec, "property"); i++)
		if (extension_property(x, cfg_getnstr(sec, "property", i)) < 0)
			return err_set(em, ERR_CONFIG,
				"%s:%d: extension %s: a property is too long", file, sec->line,
				x->name);
	return 0;
}

static int extension_name_ok(cfg_t *sec, const char *file, struct errmsg *em)
{
	char shown[68];

	if (name_inbox_ok(cfg_title(sec)))
		return 0;
	return err_set(em, ERR_CONFIG,
		"%s:%d: extension '%s': a name begins with a capital letter, then letters, digits, "
		"- and .",
		file, sec->line, config_title(cfg_title(sec), shown));
}

static int extension_fill(
	cfg_t *sec, struct config_extension *x, const char *file, struct errmsg *em)
{
	const char *library = cfg_getstr(sec, "library"), *where = cfg_getstr(sec, "where");
	const char *privileges = cfg_getstr(sec, "privileges"), *name = cfg_title(sec);
	int rc = extension_name_ok(sec, file, em);

	if (rc < 0)
		return rc;
	if (!library)
		return err_set(em, ERR_CONFIG, "%s:%d: extension %s has no library", file,
			sec->line, name);
	snprintf(x->name, sizeof(x->name), "%s", name);
	snprintf(x->privileges, sizeof(x->privileges), "%s", privileges ? privileges : "");
	x->isolated = where && strcmp(where, "isolated") == 0;
	library_resolve(x, library);
	return grants_fill(sec, x, file, em);
}

static int installed_fill(cfg_t *cfg, struct config *c, struct errmsg *em)
{
	unsigned n = cfg_size(cfg, "installed");

	if (n > ARRAY_LEN(c->installed))
		return err_set(em, ERR_CONFIG, "%s: more than %zu sections installed",
			cfg->filename, ARRAY_LEN(c->installed));
	for (unsigned i = 0; i < n; i++) {
		struct config_extension *x = &c->installed[i];
		cfg_t *sec = cfg_getnsec(cfg, "installed", i);
		int rc = extension_name_ok(sec, cfg->filename, em);

		if (rc == 0 && extension_known(c, cfg_title(sec)))
			rc = err_set(em, ERR_CONFIG,
				"%s:%d: extension %s is configured here: it can't be installed, too",
				cfg->filename, sec->line, cfg_title(sec));
		if (rc < 0)
			return rc;
		snprintf(x->name, sizeof(x->name), "%s", cfg_title(sec));
		x->isolated = true;
		rc = grants_fill(sec, x, cfg->filename, em);
		if (rc < 0)
			return rc;
		c->n_installed++;
	}
	return 0;
}

static int extensions_fill(cfg_t *cfg, struct config *c, struct errmsg *em)
{
	unsigned n = cfg_size(cfg, "extension");
	size_t isolated = 0;

	if (n > ARRAY_LEN(c->extensions))
		return err_set(em, ERR_CONFIG, "%s: more than %zu extensions", cfg->filename,
			ARRAY_LEN(c->extensions));
	for (unsigned i = 0; i < n; i++) {
		struct config_extension *x = &c->extensions[c->n_extensions];
		int rc = extension_fill(cfg_getnsec(cfg, "extension", i), x, cfg->filename, em);

		if (rc < 0)
			return rc;
		isolated += x->isolated;
		c->n_extensions++;
	}
	if (n == 0 || c->default_extensions)
		extensions_default(c);
	for (size_t i = n; i < c->n_extensions; i++)
		isolated += c->extensions[i].isolated;
	if (isolated > TOSD_EXT_MAX)
		return err_set(em, ERR_CONFIG, "%s: more than %d isolated extensions",
			cfg->filename, TOSD_EXT_MAX);
	return 0;
}

/* Where others dial us: the first address that we listen on; if that is every address, this
 * host's name. */
static void advertise_default(struct config *c)
{
	const char *port = strrchr(c->listen[0], ':');
	char host[64] = "";

	if (strncmp(c->listen[0], "0.0.0.0:", 8) != 0 &&
		strncmp(c->listen[0], "[::]:", 5) != 0) {
		snprintf(c->advertise, sizeof(c->advertise), "%s", c->listen[0]);
		return;
	}
	if (gethostname(host, sizeof(host) - 1) == 0 && host[0] &&
		config_host_ok(host, strlen(host)))
		snprintf(c->advertise, sizeof(c->advertise), "%s%s", host, port);
}

static int config_fill(
	cfg_t *cfg, struct config *c, const struct buf *rule_lines, struct errmsg *em)
{
	int rc = scalars_fill(cfg, c, em);

	if (rc < 0)
		return rc;
	if (!c->name[0])
		return err_set(em, ERR_CONFIG, "%s: name is missing: add name = \"host0\"",
			cfg->filename);
	lists_fill(cfg, c, rule_lines);
	if (c->n_listen == 0) {
		snprintf(c->listen[0], sizeof(c->listen[0]), "0.0.0.0:21212");
		c->n_listen = 1;
	}
	if (!cfg_getstr(cfg, "advertise"))
		advertise_default(c);
	rc = peers_fill(cfg, c, em);
	rc = rc ? rc : config_actions_fill(cfg, c, em);
	rc = rc ? rc : extensions_fill(cfg, c, em);
	return rc ? rc : installed_fill(cfg, c, em);
}

/* What libconfuse would do behind our back: names of the environment are put into quoted text.
 */
static int text_scan(const char *text, size_t n, const char *where, struct errmsg *em)
{
	int line = 1;

	for (size_t i = 0; i < n; i++) {
		if (text[i] == '\n')
			line++;
		else if (text[i] == 0)
			return err_set(em, ERR_CONFIG, "%s:%d: a NUL byte", where, line);
		else if (text[i] == '$' && i + 1 < n && text[i + 1] == '{')
			return err_set(em, ERR_CONFIG,
				"%s:%d: ${...} is not expanded here: write the value", where,
				line);
	}
	return 0;
}

/* Comments of one line become blanks: libconfuse counts the line of each three times. */
static void comments_blank(char *text, size_t n)
{
	char quote = 0;

	for (size_t i = 0; i < n; i++) {
		if (quote) {
			if (text[i] == '\\')
				i++;
			else if (text[i] == quote)
				quote = 0;
		} else if (text[i] == '"' || text[i] == '\'') {
			quote = text[i];
		} else if (text[i] == '/' && i + 1 < n && text[i + 1] == '*') {
			for (i += 2; i + 1 < n && !(text[i] == '*' && text[i + 1] == '/');)
				i++;
			i++;
		} else if (text[i] == '#' ||
			   (text[i] == '/' && i + 1 < n && text[i + 1] == '/')) {
			for (; i < n && text[i] != '\n'; i++)
				text[i] = ' ';
		}
	}
}

static int parse_marked(struct buf *text, cfg_t *cfg, struct buf *rule_lines, struct errmsg *em)
{
	struct reading now = { .where = cfg->filename, .em = em, .rule_lines = rule_lines };
	FILE *in = fmemopen(text->data, text->len, "r");
	int rc;

	if (!in)
		return err_set(em, ERR_NOMEM, "no memory to read %s", cfg->filename);
	reading = &now;
	rc = cfg_parse_fp(cfg, in);
	reading = NULL;
	fclose(in);
	buf_fini(&now.seen);
	if (now.failed)
		return ERR_CONFIG;
	if (rc != CFG_SUCCESS)
		return err_set(em, ERR_CONFIG, "%s: it can't be read", cfg->filename);
	return now.ended ? 0
			 : err_set(em, ERR_CONFIG, "%s: the file ends within a comment or text",
				   cfg->filename);
}

static int parse_tree(
	const char *text, size_t n, cfg_t *cfg, struct buf *rule_lines, struct errmsg *em)
{
	AUTOBUF marked = BUF_INIT;

	buf_add(&marked, text, n);
	if (buf_check(&marked) == 0)
		comments_blank((char *)marked.data, marked.len);
	buf_add_str(&marked, "\n" END_MARK " = reached\n");
	if (buf_check(&marked) < 0)
		return err_set(em, ERR_NOMEM, "no memory to read %s", cfg->filename);
	return parse_marked(&marked, cfg, rule_lines, em);
}

/* Half a megabyte, most of which is zero here and there: what is the same is not touched, and so takes no
 * memory. */
static void config_give(const struct config *c, struct config *out)
{
	for (size_t at = 0, n; at < sizeof(*c); at += n) {
		const char *from = (const char *)c + at;
		char *to = (char *)out + at;

		n = sizeof(*c) - at < 4096 ? sizeof(*c) - at : 4096;
		if (memcmp(from, to, n) != 0)
			memcpy(to, from, n);
	}
}

int config_parse(
	const char *text, size_t n, const char *where, struct config *out, struct errmsg *em)
{
	AUTOFREE char *folder = mem_strdup(where);
	AUTOFREE struct config *c = NULL;
	AUTOBUF rule_lines = BUF_INIT;
	cfg_t *cfg;
	int rc;

	if (n > FILE_BYTES_MAX)
		return err_set(
			em, ERR_CONFIG, "%s: larger than %zu bytes", where, FILE_BYTES_MAX);
	rc = text_scan(text, n, where, em);
	if (rc < 0)
		return rc;
	cfg = tree_new(where);
	c = mem_new(struct config); /* too large for the stack */
	if (snprintf(c->state_dir, sizeof(c->state_dir), "%s", dirname(folder)) >=
		(int)sizeof(c->state_dir))
		rc = err_set(em, ERR_CONFIG, "%s: the folder's name is too long", where);
	if (rc == 0)
		rc = parse_tree(text, n, cfg, &rule_lines, em);
	if (rc == 0)
		rc = config_fill(cfg, c, &rule_lines, em);
	cfg_free(cfg);
	if (rc == 0)
		config_give(c, out);
	else
		config_fini(c);
	return rc;
}

/* ---- the file */

static int file_trusted(int fd, const char *path, struct errmsg *em)
{
	struct stat s;

	if (fstat(fd, &s) < 0)
		return err_errno(em, "%s", path);
	if (!S_ISREG(s.st_mode))
		return err_set(em, ERR_CONFIG, "%s: not a file", path);
	if (s.st_uid != 0 && s.st_uid != geteuid())
		return err_set(em, ERR_CONFIG,
			"%s: belongs to another user (uid %u): give it to root or to us", path,
			(unsigned)s.st_uid);
	if (s.st_mode & 022)
		return err_set(em, ERR_CONFIG,
			"%s: others may write it (mode %03o): chmod go-w it", path,
			(unsigned)s.st_mode & 0777);
	return 0;
}

static int file_read(int fd, const char *path, struct buf *out, struct errmsg *em)
{
	char chunk[16384];
	ssize_t n;

	while ((n = read(fd, chunk, sizeof(chunk))) != 0) {
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return err_errno(em, "%s", path);
		if (buf_add(out, chunk, (size_t)n) < 0)
			return err_set(em, ERR_CONFIG, "%s: larger than %zu bytes", path,
				FILE_BYTES_MAX);
	}
	return 0;
}

int config_load(const char *path, struct config *out, struct errmsg *em)
{
	AUTOBUF text = BUF_MAX(FILE_BYTES_MAX);
	AUTOCLOSE int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	char *real;
	int rc;

	if (fd < 0)
		return err_set(em, ERR_CONFIG, "%s: %s", path, strerror(errno));
	rc = file_trusted(fd, path, em);
	if (rc == 0)
		rc = file_read(fd, path, &text, em);
	if (rc == 0)
		rc = config_parse((const char *)text.data, text.len, path, out, em);
	if (rc < 0)
		return rc;
	real = realpath(out->state_dir, NULL);
	if (real && text_copy(out->state_dir, sizeof(out->state_dir), real, strlen(real)) < 0)
		rc = err_set(em, ERR_CONFIG, "%s: the folder's name is too long", path);
	else if (!real)
		rc = err_set(em, ERR_CONFIG, "%s: its folder: %s", path, strerror(errno));
	free(real);
	if (rc < 0)
		config_fini(out);
	return rc;
}

void config_fini(struct config *c)
{
	for (size_t i = 0; c->rules && i < c->n_rules; i++)
		free(c->rules[i]);
	free(c->rules);
	free(c->rule_lines);
	free(c->peers);
	c->rules = NULL;
	c->rule_lines = NULL;
	c->peers = NULL;
	c->n_rules = c->n_own_rules = c->n_peers = 0;
}

/* ---- changes at run time */

int64_t config_key_number(const struct config *c, size_t i)
{
	return config_number_at(&config_table[i], c);
}

void config_key_text(const struct config *c, size_t i, char *out, size_t cap)
{
	char text[32];

	if (config_is_text(config_table[i].kind)) {
		snprintf(out, cap, "%s", (const char *)c + config_table[i].offset);
		return;
	}
	config_number_text(&config_table[i], config_number_at(&config_table[i], c), text);
	snprintf(out, cap, "%s", text);
}

int config_key_check(size_t i, const char *value, struct errmsg *em)
{
	return config_value_check(&config_table[i], value, em);
}

int config_key_set(struct config *c, size_t i, const char *value, struct errmsg *em)
{
	int rc = value ? config_value_check(&config_table[i], value, em) : 0;

	return rc ? rc : value_store(&config_table[i], value, c, em);
}
