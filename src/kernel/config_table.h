/*
 * The table of keys of the configuration, and what its own files share: config_table.c has the table,
 * config_value.c holds single values against it, config.c reads, config_print.c prints.
 */
#pragma once

#include "base/buf.h"
#include "kernel/config.h"

enum key_kind {
	KEY_KERNEL,   /* a kernel's name */
	KEY_KERNEL0,  /* or "" */
	KEY_LISTEN,   /* a numeric address and a port */
	KEY_ADDRESS,  /* a host and a port */
	KEY_ADDRESS0, /* or "" */
	KEY_LEVEL,
	KEY_WHERE,
	KEY_WORD,
	KEY_LAYER, /* of the sandbox */
	KEY_WORDS,
	KEY_LIBRARY,
	KEY_PROPERTY,
	KEY_ROLES,
	KEY_INBOX, /* an extension's name */
	KEY_PIN,   /* a path and a digest */
	KEY_PLACE,
	KEY_PATH,
	KEY_TEXT,      /* checked by its own function later */
	KEY_DIRECTORY, /* a path, perhaps " read-only" */
	KEY_RULE,
	KEY_BOOL,
	KEY_U32,
	KEY_COUNT, /* 64 bits */
	KEY_BYTES,
	KEY_SIZE, /* bytes as a size_t */
	KEY_MS,
	KEY_MS32,
	KEY_LIMIT,
};

struct key {
	const char *section, *name;
	enum key_kind kind;
	size_t offset, cap; /* where it lies, and a text's room */
	int64_t min, max, def;
	const char *text; /* a text's default */
	size_t list;      /* at most so many values; 0: not a list */
};

struct config_section {
	const char *name;
	bool multi; /* comes more than once, each with a title */
};

struct config_shipped {
	const char *name, *library, *privileges;
	bool isolated;
};

#define CONFIG_SECTIONS_MAX 24

extern const struct key config_table[];
extern const size_t config_n_keys;
extern const struct config_section config_sections[];
extern const size_t config_n_sections;
extern const struct config_shipped config_shipped[];
extern const size_t config_n_shipped;

/* config_value.c: is s a value of that key? 0, or ERR_CONFIG and em says why not. */
int config_value_check(const struct key *k, const char *s, struct errmsg *em);
/* The same for a number, a time or a size, which it gives in *out. */
int config_number_check(const struct key *k, const char *s, int64_t *out, struct errmsg *em);
/* v as one writes it, with its unit. */
void config_number_text(const struct key *k, int64_t v, char out[32]);
/* A host's name or address without its port. */
bool config_host_ok(const char *s, size_t n);
bool config_is_text(enum key_kind kind);
/* The number that c has for k, whatever its type. */
int64_t config_number_at(const struct key *k, const struct config *c);
