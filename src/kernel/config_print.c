/* A configuration as one would write it, with what it has by default. */
#include "kernel/config_table.h"

#include <stdio.h>
#include <string.h>

#include "base/buf.h"
#include "kernel/config_action.h"

void config_quoted(struct buf *out, const char *s)
{
	buf_add_u8(out, '"');
	for (; *s; s++) {
		if (*s == '"' || *s == '\\')
			buf_add_u8(out, '\\');
		buf_add_u8(out, (uint8_t)*s);
	}
	buf_add_u8(out, '"');
}

static void print_list(struct buf *out, const char *indent, const char *name, const char *first,
	size_t step, size_t n)
{
	buf_printf(out, "%s%s = {", indent, name);
	for (size_t i = 0; i < n; i++) {
		if (i)
			buf_add_str(out, ", ");
		config_quoted(out, first + i * step);
	}
	buf_add_str(out, "}\n");
}

int64_t config_number_at(const struct key *k, const struct config *c)
{
	const char *at = (const char *)c + k->offset;

	switch (k->kind) {
	case KEY_BOOL:
		return *(const bool *)at;
	case KEY_U32:
	case KEY_MS32:
		return *(const uint32_t *)(const void *)at;
	case KEY_SIZE:
		return (int64_t) * (const size_t *)(const void *)at;
	default:
		return *(const int64_t *)(const void *)at;
	}
}

static void print_scalars(
	const struct config *c, const char *section, const char *indent, struct buf *out)
{
	char text[32];

	for (size_t i = 0; i < config_n_keys; i++) {
		const struct key *k = &config_table[i];

		if (k->list || strcmp(k->section, section) != 0)
			continue;
		buf_printf(out, "%s%s = ", indent, k->name);
		if (config_is_text(k->kind)) {
			config_quoted(out, (const char *)c + k->offset);
		} else {
			config_number_text(k, config_number_at(k, c), text);
			buf_printf(out, "\"%s\"", text);
		}
		buf_add_u8(out, '\n');
	}
}

static void print_rules(const struct config *c, struct buf *out)
{
	buf_add_str(out, "\trules = {\n");
	for (size_t i = 0; i < c->n_own_rules; i++) {
		buf_add_str(out, "\t\t");
		config_quoted(out, c->rules[i]);
		buf_add_str(out, i + 1 < c->n_own_rules ? ",\n" : "\n");
	}
	buf_add_str(out, "\t}\n");
	if (c->default_rules)
		buf_add_str(out, "\t# and the defaults:\n");
	for (size_t i = c->n_own_rules; i < c->n_rules; i++)
		buf_printf(out, "\t#\t%s\n", c->rules[i]);
}

static void print_sections(const struct config *c, struct buf *out)
{
	for (size_t i = 0; i < config_n_sections; i++) {
		const char *name = config_sections[i].name;

		if (config_sections[i].multi)
			continue;
		buf_printf(out, "%s {\n", name);
		print_scalars(c, name, "\t", out);
		if (strcmp(name, "sandbox") == 0)
			print_list(out, "\t", "require", c->require[0], sizeof(c->require[0]),
				c->n_require);
		if (strcmp(name, "extender") == 0)
			print_list(out, "\t", "kernel", c->extender_kernel[0],
				sizeof(c->extender_kernel[0]), c->n_extender_kernel);
		if (strcmp(name, "programs") == 0)
			print_list(out, "\t", "pin", c->pin[0], sizeof(c->pin[0]), c->n_pins);
		if (strcmp(name, "policy") == 0)
			print_rules(c, out);
		if (strcmp(name, "local") == 0) {
			buf_add_str(out, "\tprincipals = {");
			for (size_t k = 0; k < c->n_local_uids; k++)
				buf_printf(out, "%s\"%u\"", k ? ", " : "", c->local_uids[k]);
			buf_add_str(out, "}\n");
		}
		buf_add_str(out, "}\n");
	}
}

static void print_peer(const struct config_peer *p, struct buf *out)
{
	buf_printf(out, "peer \"%s\" {\n", p->name);
	print_list(out, "\t", "address", p->address[0], sizeof(p->address[0]), p->n_address);
	buf_add_str(out, "}\n");
}

static void print_text(struct buf *out, const char *name, const char *value)
{
	if (!value[0])
		return;
	buf_printf(out, "\t%s = ", name);
	config_quoted(out, value);
	buf_add_u8(out, '\n');
}

static void print_extension(
	const char *section, const struct config_extension *x, struct buf *out)
{
	buf_printf(out, "%s \"%s\" {\n", section, x->name);
	if (strcmp(section, "extension") == 0) {
		buf_add_str(out, "\tlibrary = ");
		config_quoted(out, x->library);
		buf_printf(out, "\n\twhere = \"%s\"\n\tprivileges = ",
			x->isolated ? "isolated" : "kernel");
		config_quoted(out, x->privileges);
		buf_add_u8(out, '\n');
	}
	if (x->n_places)
		print_list(
			out, "\t", "places", x->places[0], sizeof(x->places[0]), x->n_places);
	print_text(out, "ca", x->ca);
	print_text(out, "directory", x->directory);
	if (x->file_bytes != TOSD_FILE_BYTES)
		buf_printf(out, "\tfile_size = \"%llu\"\n", (unsigned long long)x->file_bytes);
	print_text(out, "listen", x->listen);
	buf_add_str(out, "\tproperty = {");
	for (size_t i = 0; i < x->n_property; i++) {
		char text[260];

		snprintf(text, sizeof(text), "%s=%s", x->property[i][0], x->property[i][1]);
		buf_add_str(out, i ? ", " : "");
		config_quoted(out, text);
	}
	buf_add_str(out, "}\n}\n");
}

int config_print(const struct config *c, struct buf *out)
{
	print_scalars(c, "", "", out);
	print_list(out, "", "listen", c->listen[0], sizeof(c->listen[0]), c->n_listen);
	print_sections(c, out);
	for (size_t i = 0; i < c->n_peers; i++)
		print_peer(&c->peers[i], out);
	for (size_t i = 0; i < c->n_extensions; i++)
		print_extension("extension", &c->extensions[i], out);
	for (size_t i = 0; i < c->n_installed; i++)
		print_extension("installed", &c->installed[i], out);
	config_actions_print(c, out);
	return buf_check(out);
}
