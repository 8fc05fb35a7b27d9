/*
 * The configuration of one kernel: see config.h. One table describes every key; the parser, the
 * checks and the printer come from it. libconfuse only splits the text into keys and values:
 * every value is taken as text and checked here, because its own integers are octal with a
 * leading zero and its errors don't name ranges.
 */
#include "kernel/config.h"

#include <arpa/inet.h>
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
#include "core/place.h"
#include "kernel/config_action.h"
#include "seal/seal.h"
#include "wire/frame.h"

#define FILE_BYTES_MAX ((size_t)1 << 20)
#define PEERS_MAX      1024
#define RULES_MAX      1024
#define HOUR_MS        3600000
#define DAY_MS         86400000

enum key_kind {
	KEY_KERNEL,   /* a kernel's name */
	KEY_KERNEL0,  /* or "" */
	KEY_LISTEN,   /* a numeric address and a port */
	KEY_ADDRESS,  /* a host and a port */
	KEY_ADDRESS0, /* or "" */
	KEY_LEVEL,
	KEY_WHERE,
	KEY_WORD,
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

#define TEXT(sec, nm, kd, member, dflt)                                                        \
	{                                                                                      \
		.section = sec, .name = nm, .kind = kd,                                        \
		.offset = offsetof(struct config, member),                                     \
		.cap = sizeof(((struct config *)0)->member), .text = dflt                      \
	}
#define NUMBER(sec, nm, kd, member, least, most, dflt)                                         \
	{                                                                                      \
		.section = sec, .name = nm, .kind = kd,                                        \
		.offset = offsetof(struct config, member), .min = least, .max = most,          \
		.def = dflt                                                                    \
	}
#define LIST(sec, nm, kd, item, most)                                                          \
	{                                                                                      \
		.section = sec, .name = nm, .kind = kd,                                        \
		.cap = sizeof(((struct config *)0)->item), .max = UINT32_MAX, .list = most     \
	}
/* Of sections that come more than once: checked by the table, stored by their own function. */
#define ITEM(sec, nm, kd, struct_name, item, most)                                             \
	{                                                                                      \
		.section = sec, .name = nm, .kind = kd,                                        \
		.cap = sizeof(((struct struct_name *)0)->item), .list = most                   \
	}

#define FILE_SIZE(sec)                                                                         \
	{                                                                                      \
		.section = sec, .name = "file_size", .kind = KEY_BYTES, .min = 1 << 12,        \
		.max = (int64_t)1 << 40, .def = (int64_t)TOSD_FILE_BYTES                       \
	}

#ifdef TOS_SMALL
#define DEFAULT(usual, small) (small)
#else
#define DEFAULT(usual, small) (usual)
#endif

/* clang-format off */
static const struct key keys[] = {
	TEXT("", "name", KEY_KERNEL, name, NULL),
	LIST("", "listen", KEY_LISTEN, listen[0], TOSD_LISTEN_MAX),
	TEXT("", "advertise", KEY_ADDRESS0, advertise, NULL),
	TEXT("", "registrar", KEY_KERNEL0, registrar, ""),
	NUMBER("", "default_extensions", KEY_BOOL, default_extensions, 0, 1, 0),
	NUMBER("", "uid_base", KEY_U32, uid_base, 0, 4000000000, 0),
	TEXT("log", "level", KEY_LEVEL, log_level, "info"),
	NUMBER("log", "json", KEY_BOOL, log_json, 0, 1, 0),
	LIST("sandbox", "require", KEY_WORD, require[0], 8),
	NUMBER("sandbox", "vm_address", KEY_BYTES, vm_address_bytes, 64 << 20, (int64_t)1 << 40, DEFAULT(1 << 30, 64 << 20)),
	NUMBER("programs", "most", KEY_U32, n_programs, 0, TOSD_PROGRAMS, DEFAULT(64, 8)),
	NUMBER("programs", "memory", KEY_BYTES, programs.memory, 1 << 20, (int64_t)1 << 40, DEFAULT(256 << 20, 32 << 20)),
	NUMBER("programs", "cpu", KEY_MS, programs.cpu_ms, 1000, DAY_MS, 60000),
	NUMBER("programs", "processes", KEY_COUNT, programs.processes, 1, 32768, 64),
	NUMBER("programs", "files", KEY_COUNT, programs.files, 16, 1 << 20, 256),
	NUMBER("programs", "file_size", KEY_BYTES, programs.file_size, 1 << 12, (int64_t)1 << 40, 64 << 20),
	NUMBER("programs", "scratch", KEY_BYTES, programs.scratch, 1 << 16, (int64_t)1 << 40, DEFAULT(64 << 20, 8 << 20)),
	NUMBER("programs", "wall", KEY_MS, programs.wall_ms, 0, 366 * (int64_t)DAY_MS, HOUR_MS),
	LIST("programs", "pin", KEY_PIN, pin[0], 64),
	NUMBER("sandbox", "test_no_userns", KEY_BOOL, test_no_userns, 0, 1, 0),
#define X(nm, unit, dflt, most, text) NUMBER("limits", #nm, KEY_LIMIT, limits[LIMIT_##nm], 0, most, \
	DEFAULT(most, LIMIT_##nm == LIMIT_state ? 128 << 10 : most)),
	LIMIT_LIST(X)
#undef X
	NUMBER("limits", "carriers", KEY_U32, carriers, 0, 1000000, DEFAULT(1000, 50)),
	NUMBER("limits", "carriers_per_principal", KEY_U32, carriers_per_principal, 0, 1000000, 500),
	NUMBER("limits", "disk_per_principal", KEY_BYTES, disk_per_principal, 0, (int64_t)1 << 50, 1 << 30),
	NUMBER("limits", "journal_bytes", KEY_BYTES, journal_bytes, 1 << 10, (int64_t)1 << 40, DEFAULT(64 << 20, 4 << 20)),
	NUMBER("limits", "journal_rows", KEY_U32, journal_rows, 1, 10000000, DEFAULT(100000, 10000)),
	NUMBER("limits", "cpu_share", KEY_U32, cpu_share, 0, 100, 0),
	NUMBER("limits", "cpu_share_per_principal", KEY_U32, cpu_share_per_principal, 0, 100000, 0),
	NUMBER("limits", "sent_rate", KEY_BYTES, sent_rate, 0, (int64_t)1 << 40, 64 << 20),
	NUMBER("limits", "sent_rate_per_principal", KEY_BYTES, sent_rate_per_principal, 0, (int64_t)1 << 40, 0),
	NUMBER("limits", "spare_vms", KEY_U32, spare_vms, 0, CONFIG_SPARES_MAX, DEFAULT(2, 0)),
	NUMBER("limits", "vm_carriers", KEY_U32, vm_carriers, 1, 65536, 1024),
	NUMBER("policy", "defaults", KEY_BOOL, default_rules, 0, 1, 1),
	NUMBER("policy", "confirm", KEY_BOOL, confirm, 0, 1, 0),
	NUMBER("timing", "test_protocol_min", KEY_U32, test_protocol_min, 1, 99, PROTOCOL_VERSION_MIN),
	NUMBER("timing", "test_protocol_max", KEY_U32, test_protocol_max, 1, 99, PROTOCOL_VERSION),
	LIST("policy", "rules", KEY_RULE, name, RULES_MAX),
	LIST("extender", "kernel", KEY_INBOX, extender_kernel[0], 16),
	NUMBER("extender", "enabled", KEY_BOOL, extender_enabled, 0, 1, 1),
	TEXT("extender", "privileges", KEY_WORDS, extender_privileges, ""),
	NUMBER("extender", "memory", KEY_BYTES, extender_memory, 16 << 20, (int64_t)1 << 40, 512 << 20),
	LIST("local", "principals", KEY_U32, local_uids[0], 32),
	NUMBER("clock", "skew", KEY_MS, skew_ms, 0, DAY_MS, 300000),
	NUMBER("revocation", "max_age", KEY_MS, revocation_max_ms, 0, 3650 * (int64_t)DAY_MS, 7 * (int64_t)DAY_MS),
	NUMBER("queue", "inbox", KEY_U32, inbox_bound, 1, 1000000, 1024),
	NUMBER("queue", "link_bytes", KEY_SIZE, link_bytes, 2 << 20, 1 << 30, DEFAULT(8 << 20, 2 << 20)),
	NUMBER("queue", "stream", KEY_U32, stream_posts, 1, 1000000, 1024),
	NUMBER("queue", "stream_bytes", KEY_SIZE, stream_bytes, 1 << 10, 1 << 30, 4 << 20),
	NUMBER("queue", "streams_bytes", KEY_SIZE, streams_bytes, 1 << 20, (int64_t)1 << 34, 64 << 20),
	NUMBER("content", "max", KEY_BYTES, content_max, 0, (int64_t)1 << 50, DEFAULT((int64_t)2 << 30, 16 << 20)),
	TEXT("content", "admit_signed", KEY_ROLES, admit_signed, "officer"),
	NUMBER("timing", "handshake", KEY_MS32, handshake_ms, 10, HOUR_MS, 10000),
	NUMBER("timing", "ping", KEY_MS32, ping_ms, 10, HOUR_MS, 5000),
	NUMBER("timing", "silent", KEY_MS32, silent_ms, 10, HOUR_MS, 15000),
	NUMBER("timing", "offer", KEY_MS32, offer_ms, 10, HOUR_MS, 10000),
	NUMBER("timing", "offer_again", KEY_MS32, offer_again_ms, 0, HOUR_MS, 60000),
	NUMBER("timing", "hook", KEY_MS32, hook_ms, 10, HOUR_MS, 5000),
	NUMBER("timing", "call", KEY_MS32, call_ms, 10, HOUR_MS, 30000),
	NUMBER("timing", "report", KEY_MS32, report_ms, 10, HOUR_MS, 10000),
	NUMBER("timing", "lost", KEY_MS32, lost_ms, 10, HOUR_MS, 5000),
	NUMBER("timing", "retry", KEY_MS32, retry_ms, 10, HOUR_MS, 1000),
	NUMBER("timing", "restart", KEY_MS32, restart_ms, 100, HOUR_MS, 10000),
	ITEM("peer", "address", KEY_ADDRESS, config_peer, address[0], 4),
	ITEM("extension", "library", KEY_LIBRARY, config_extension, library, 0),
	ITEM("extension", "where", KEY_WHERE, config_extension, privileges, 0),
	ITEM("extension", "privileges", KEY_WORDS, config_extension, privileges, 0),
	ITEM("extension", "places", KEY_PLACE, config_extension, places[0], 16),
	ITEM("extension", "ca", KEY_PATH, config_extension, ca, 0),
	ITEM("extension", "directory", KEY_DIRECTORY, config_extension, directory, 0),
	FILE_SIZE("extension"),
	ITEM("extension", "listen", KEY_LISTEN, config_extension, listen, 0),
	ITEM("extension", "property", KEY_PROPERTY, config_extension, property[0], 16),
	ITEM("action", "run", KEY_TEXT, tosd_action, text, TOSD_ACTION_WORDS),
	ITEM("action", "args", KEY_TEXT, tosd_action, text, TOSD_ACTION_ARGS),
	ITEM("action", "timeout", KEY_TEXT, tosd_action, text, 0),
	ITEM("installed", "places", KEY_PLACE, config_extension, places[0], 16),
	ITEM("installed", "ca", KEY_PATH, config_extension, ca, 0),
	ITEM("installed", "directory", KEY_DIRECTORY, config_extension, directory, 0),
	FILE_SIZE("installed"),
	ITEM("installed", "listen", KEY_LISTEN, config_extension, listen, 0),
	ITEM("installed", "property", KEY_PROPERTY, config_extension, property[0], 16),
};

static const struct {
	const char *name;
	cfg_flag_t flags;
} sections[] = {
	{ "log", CFGF_NONE }, { "sandbox", CFGF_NONE }, { "limits", CFGF_NONE }, { "policy", CFGF_NONE },
	{ "extender", CFGF_NONE },
	{ "programs", CFGF_NONE },
	{ "local", CFGF_NONE }, { "clock", CFGF_NONE }, { "revocation", CFGF_NONE }, { "queue", CFGF_NONE }, { "timing", CFGF_NONE }, { "content", CFGF_NONE },
	{ "peer", CFGF_MULTI | CFGF_TITLE | CFGF_NO_TITLE_DUPES },
	{ "extension", CFGF_MULTI | CFGF_TITLE | CFGF_NO_TITLE_DUPES },
	{ "action", CFGF_MULTI | CFGF_TITLE | CFGF_NO_TITLE_DUPES },
	{ "installed", CFGF_MULTI | CFGF_TITLE | CFGF_NO_TITLE_DUPES },
};

static const char *const default_rules[] = {
	"allow role:admin * *",
	"allow role:admin run /usr/bin/*",
	"allow role:admin run /bin/*",
	"allow role:admin run /usr/sbin/*",
	"allow role:admin run /sbin/*",
	"allow role:admin run admitted",
	"allow role:owner launch *",
	"allow role:owner arrive *",
	"allow role:owner clone *",
	"allow role:owner kill own",
	"allow role:owner suspend own",
	"allow role:owner resume own",
	"allow role:owner retry own",
	"allow role:owner resolve own",
	"allow role:author launch *",
	"allow class:carrier post Commit",
	"allow class:carrier post Echo",
	"allow class:carrier post Messenger",
	"allow class:carrier post Monitor",
	"allow class:carrier post Executor",
	"allow class:carrier post Mobility",
	"allow class:carrier post Directory",
	"allow class:carrier post Content",
	"allow class:carrier post Download",
	"allow class:carrier post carrier",
	"allow role:owner read Content",
	"allow role:owner put Content",
	"allow class:client post *",
	"allow class:client read *",
	"allow class:kernel * *",
	"allow class:extension * *",
};

static const struct {
	const char *name, *library, *privileges;
	bool isolated;
} default_extensions[] = {
	{ "Echo", "echo", "", false },
	{ "Mobility", "mobility", "", false },
	{ "Spawner", "spawner", "", false },
	{ "Messenger", "messenger", "", false },
	{ "Directory", "directory", "", false },
	{ "Monitor", "monitor", "read-proc read-fs", true },
	{ "Commit", "commit", "", false },
	{ "Executor", "executor", "", false },
};
/* clang-format on */

const char *const *config_default_rules(size_t *n)
{
	*n = ARRAY_LEN(default_rules);
	return default_rules;
}

/* ---- single values */

/* The port behind the last ':'; *n_host is what stands before it. */
static int port_check(const char *s, size_t *n_host, struct errmsg *em)
{
	const char *colon = strrchr(s, ':');
	int64_t port;

	if (!colon || colon == s)
		return err_set(em, ERR_CONFIG, "'%s' is not host:port", s);
	if (colon[1] < '1' || colon[1] > '9' || text_int(colon + 1, 1, 65535, &port) < 0)
		return err_set(em, ERR_CONFIG, "'%s': a port is a number from 1 to 65535", s);
	*n_host = (size_t)(colon - s);
	return 0;
}

static bool is_numeric(const char *s, size_t n)
{
	char host[INET6_ADDRSTRLEN + 1];
	struct in6_addr addr;

	if (n > 2 && s[0] == '[' && s[n - 1] == ']')
		return text_copy(host, sizeof(host), s + 1, n - 2) == 0 &&
		       inet_pton(AF_INET6, host, &addr) == 1;
	return text_copy(host, sizeof(host), s, n) == 0 && inet_pton(AF_INET, host, &addr) == 1;
}

static bool host_ok(const char *s, size_t n)
{
	if (s[0] == '-' || s[0] == '.')
		return false;
	for (size_t i = 0; i < n; i++)
		if (!(s[i] >= 'a' && s[i] <= 'z') && !(s[i] >= 'A' && s[i] <= 'Z') &&
			!(s[i] >= '0' && s[i] <= '9') && s[i] != '.' && s[i] != '-' &&
			s[i] != '_')
			return false;
	return true;
}

static int address_check(const char *s, bool numeric, struct errmsg *em)
{
	size_t n_host = 0;
	int rc = port_check(s, &n_host, em);

	if (rc < 0 || is_numeric(s, n_host))
		return rc;
	if (numeric)
		return err_set(em, ERR_CONFIG,
			"'%s': listening needs a numeric address, 127.0.0.1:21212 or "
			"[::1]:21212",
			s);
	return host_ok(s, n_host) ? 0 : err_set(em, ERR_CONFIG, "'%s' names no host", s);
}

static int one_of(const char *s, const char *const *words, struct errmsg *em)
{
	char all[128] = "";
	size_t n = 0;

	for (; *words; words++) {
		if (strcmp(s, *words) == 0)
			return 0;
		n += (size_t)snprintf(all + n, sizeof(all) - n, "%s%s", n ? ", " : "", *words);
	}
	return err_set(em, ERR_CONFIG, "'%s' is none of %s", s, all);
}

static bool words_ok(const char *s, bool one)
{
	if (one && !*s)
		return false;
	for (; *s; s++)
		if (!(*s >= 'a' && *s <= 'z') && !(*s >= '0' && *s <= '9') && *s != '-' &&
			*s != '_' && (one || *s != ' '))
			return false;
	return true;
}

static int rule_check(const char *s, struct errmsg *em)
{
	struct firewall *f = firewall_new();
	struct errmsg why = { "" };
	int rc = firewall_add(f, s, &why);

	firewall_free(f);
	return rc < 0 ? err_set(em, ERR_CONFIG, "%s", why.text) : 0;
}

static int roles_check(const char *s, struct errmsg *em)
{
	char word[16];

	while (*s) {
		size_t n = strcspn(s, " ");

		if (n && (text_copy(word, sizeof(word), s, n) < 0 || !role_parse(word)))
			return err_set(em, ERR_CONFIG,
				"'%s': the roles are admin, owner, author and officer", s);
		s += n;
		s += strspn(s, " ");
	}
	return 0;
}

/* /usr/bin/df=SHA-256 in hex */
static int pin_check(const char *s, struct errmsg *em)
{
	const char *equals = strrchr(s, '=');
	uint8_t digest[DIGEST_BYTES];

	if (s[0] == '/' && equals && strlen(equals + 1) == 2 * sizeof(digest) &&
		text_unhex(equals + 1, 2 * sizeof(digest), digest, sizeof(digest)) == 0 &&
		strspn(equals + 1, "0123456789abcdef") == 2 * sizeof(digest))
		return 0;
	return err_set(em, ERR_CONFIG,
		"'%s' is not PATH=SHA-256, the latter as sha256sum prints it", s);
}

static int place_check(const char *s, struct errmsg *em)
{
	struct errmsg why = { "" };
	struct place p;

	return place_parse(s, &p, &why) < 0 ? err_set(em, ERR_CONFIG, "%s", why.text) : 0;
}

/* Nothing of the host's own, and no way around by "..". */
static int directory_check(const char *s, struct errmsg *em)
{
	static const char *const no[] = { "/", "/proc", "/sys", "/dev", "/etc", "/root", "/run",
		"/boot" };
	size_t n = strcspn(s, " ");
	bool flag = strcmp(s + n, " read-only") == 0;
	char path[TOSD_DIRECTORY_BYTES];

	if (s[0] != '/' || (s[n] && !flag) || text_copy(path, sizeof(path), s, n) < 0)
		return err_set(em, ERR_CONFIG,
			"'%s' is not an absolute path, or one with \" read-only\" behind it",
			s);
	for (const char *at = path; (at = strstr(at, "/..")); at += 3)
		if (!at[3] || at[3] == '/')
			return err_set(em, ERR_CONFIG, "'%s': write the path without ..", s);
	for (size_t i = 0; i < ARRAY_LEN(no); i++)
		if (strcmp(path, no[i]) == 0)
			return err_set(em, ERR_CONFIG,
				"'%s' is the host's, and no extension's: name a directory that was "
				"made for it",
				path);
	return 0;
}

static int text_check(const struct key *k, const char *s, struct errmsg *em)
{
	static const char *const levels[] = { "debug", "info", "notice", "warning", "error",
		NULL };
	static const char *const wheres[] = { "kernel", "isolated", NULL };

	switch (k->kind) {
	case KEY_KERNEL0:
		if (!*s)
			return 0;
		/* fall through */
	case KEY_KERNEL:
		return name_kernel_ok(s)
			       ? 0
			       : err_set(em, ERR_CONFIG,
					 "'%s' is no kernel's name (lower case, digits, "
					 ". and -; not client or tos)",
					 s);
	case KEY_ADDRESS0:
		return *s ? address_check(s, false, em) : 0;
	case KEY_ADDRESS:
	case KEY_LISTEN:
		return address_check(s, k->kind == KEY_LISTEN, em);
	case KEY_LEVEL:
		return one_of(s, levels, em);
	case KEY_WHERE:
		return one_of(s, wheres, em);
	case KEY_WORD:
	case KEY_WORDS:
		return words_ok(s, k->kind == KEY_WORD)
			       ? 0
			       : err_set(em, ERR_CONFIG, "'%s' is not made of lower-case words",
					 s);
	case KEY_LIBRARY:
		return s[0] == '/' || words_ok(s, true)
			       ? 0
			       : err_set(em, ERR_CONFIG,
					 "'%s': a library is an absolute path or a shipped "
					 "one's name",
					 s);
	case KEY_PLACE:
		return place_check(s, em);
	case KEY_DIRECTORY:
		return directory_check(s, em);
	case KEY_PATH:
		return s[0] == '/' ? 0 : err_set(em, ERR_CONFIG, "'%s' is no absolute path", s);
	case KEY_ROLES:
		return roles_check(s, em);
	case KEY_PROPERTY:
		return s[0] == '/' && strchr(s, '=')
			       ? 0
			       : err_set(em, ERR_CONFIG, "'%s' is not /path=value", s);
	case KEY_INBOX:
		return name_inbox_ok(s)
			       ? 0
			       : err_set(em, ERR_CONFIG,
					 "'%s': an extension's name begins with a capital letter, "
					 "then letters, digits, - and .",
					 s);
	case KEY_PIN:
		return pin_check(s, em);
	case KEY_TEXT:
		return 0;
	case KEY_RULE:
		return rule_check(s, em);
	default:
		return err_set(em, ERR_STATE, "not a text");
	}
}

static bool is_text(enum key_kind kind)
{
	return kind <= KEY_RULE;
}

static int bool_parse(const char *s, int64_t *out)
{
	static const char *const words[] = { "false", "no", "off", "true", "yes", "on" };

	for (size_t i = 0; i < ARRAY_LEN(words); i++) {
		if (strcmp(s, words[i]) != 0)
			continue;
		*out = i >= 3;
		return 0;
	}
	return ERR_MALFORMED;
}

/* A plain decimal number: 010 would be 8 elsewhere, so it is nothing here. */
static int plain_parse(const char *s, int64_t *out)
{
	return s[0] == '0' && s[1] ? ERR_MALFORMED : text_int(s, 0, INT64_MAX, out);
}

static int number_parse(const struct key *k, const char *s, int64_t *out, struct errmsg *em)
{
	char text[160];
	enum limit_id id;
	uint64_t bytes = 0;
	const char *what = "a number";
	int rc;

	switch (k->kind) {
	case KEY_BOOL:
		rc = bool_parse(s, out);
		what = "true or false";
		break;
	case KEY_BYTES:
	case KEY_SIZE:
		rc = text_bytes(s, &bytes);
		*out = bytes > INT64_MAX ? INT64_MAX : (int64_t)bytes;
		what = "a size like 64M";
		break;
	case KEY_MS:
	case KEY_MS32:
		rc = text_duration(s, out);
		what = "a time like 30s";
		break;
	case KEY_LIMIT:
		snprintf(text, sizeof(text), "%s=%s", k->name, s);
		return limit_parse(text, &id, out, em) < 0 ? ERR_CONFIG : 0;
	default:
		rc = plain_parse(s, out);
		break;
	}
	return rc < 0 ? err_set(em, ERR_CONFIG, "'%s' is not %s", s, what) : 0;
}

static void number_text(const struct key *k, int64_t v, char out[32])
{
	bool time =
		k->kind == KEY_MS || k->kind == KEY_MS32 ||
		(k->kind == KEY_LIMIT &&
			strcmp(limit_units[limit_find(k->name, strlen(k->name))], "ms") == 0);

	if (k->kind == KEY_BOOL)
		snprintf(out, 32, "%s", v ? "true" : "false");
	else if (time && v % 1000 == 0)
		snprintf(out, 32, "%llds", (long long)v / 1000);
	else
		snprintf(out, 32, "%lld%s", (long long)v, time ? "ms" : "");
}

static int number_check(const struct key *k, const char *s, int64_t *out, struct errmsg *em)
{
	char least[32], most[32];
	int64_t v = 0;
	int rc = number_parse(k, s, &v, em);

	if (rc < 0)
		return rc;
	number_text(k, k->min, least);
	number_text(k, k->max, most);
	if (v < k->min || v > k->max)
		return err_set(em, ERR_CONFIG, "%s is not from %s to %s", s, least, most);
	*out = v;
	return 0;
}

static int value_check(const struct key *k, const char *s, struct errmsg *em)
{
	int64_t v;
	size_t n = strlen(s);

	/* So that what is printed reads back as it was, and a log line stays one. */
	for (size_t i = 0; i < n; i++)
		if ((unsigned char)s[i] < ' ' || s[i] == 0x7f)
			return err_set(em, ERR_CONFIG, "a control character in the value");
	if (!text_utf8(s, n) || strstr(s, "${"))
		return err_set(em, ERR_CONFIG, "the value is not plain text");
	if (!is_text(k->kind))
		return number_check(k, s, &v, em);
	if (k->kind != KEY_RULE && n >= k->cap)
		return err_set(em, ERR_CONFIG, "longer than %zu bytes", k->cap - 1);
	return text_check(k, s, em);
}

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
	for (size_t i = 0; i < ARRAY_LEN(keys); i++)
		if (strcmp(keys[i].section, section) == 0 && strcmp(keys[i].name, name) == 0)
			return &keys[i];
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
	if (value_check(k, value, &why) < 0) {
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

	for (size_t i = 0; i < ARRAY_LEN(keys); i++) {
		if (strcmp(keys[i].section, section) != 0)
			continue;
		must(n < SECTION_KEYS_MAX);
		if (keys[i].list)
			out[n++] = (cfg_opt_t)CFG_STR_LIST_CB(
				keys[i].name, NULL, CFGF_NODEFAULT, on_value);
		else
			out[n++] = (cfg_opt_t)CFG_STR_CB(
				keys[i].name, NULL, CFGF_NODEFAULT, on_value);
	}
	out[n] = (cfg_opt_t)CFG_END();
}

static cfg_t *tree_new(const char *where)
{
	cfg_opt_t sub[ARRAY_LEN(sections)][SECTION_KEYS_MAX + 1];
	cfg_opt_t top[SECTION_KEYS_MAX + 2 + ARRAY_LEN(sections)];
	size_t n = 0;
	cfg_t *cfg;

	options_fill("", top);
	while (top[n].name)
		n++;
	top[n++] = (cfg_opt_t)CFG_STR_CB(END_MARK, NULL, CFGF_NODEFAULT, on_end);
	for (size_t i = 0; i < ARRAY_LEN(sections); i++) {
		options_fill(sections[i].name, sub[i]);
		top[n++] = (cfg_opt_t)CFG_SEC(sections[i].name, sub[i], sections[i].flags);
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
	return ARRAY_LEN(keys);
}

bool config_key_get(size_t i, struct config_key *out)
{
	const struct key *k = &keys[i];

	if (k->list || is_item(k))
		return false;
	*out = (struct config_key){ .section = k->section,
		.name = k->name,
		.live = is_live(k),
		.is_text = is_text(k->kind),
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

	return k ? (int)(k - keys) : ERR_NOT_FOUND;
}

/* Only checked values come here. */
static int value_store(const struct key *k, const char *s, struct config *c, struct errmsg *em)
{
	char *at = (char *)c + k->offset;
	int64_t v = k->def;
	int rc = 0;

	if (is_text(k->kind))
		return text_copy(at, k->cap, s ? s : k->text, strlen(s ? s : k->text));
	if (s)
		rc = number_check(k, s, &v, em);
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
	for (size_t i = 0; i < ARRAY_LEN(keys); i++) {
		const struct key *k = &keys[i];
		const char *s;
		int rc;

		if (k->list || is_item(k))
			continue;
		s = scalar(cfg, k);
		if (s)
			c->given[i / 64] |= (uint64_t)1 << i % 64;
		if (!s && is_text(k->kind) && !k->text)
			continue; /* has a default of its own below */
		rc = value_store(k, s, c, em);
		if (rc < 0)
			return rc;
	}
	return 0;
}

static void lists_fill(cfg_t *cfg, struct config *c, const struct buf *rule_lines)
{
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
	c->n_rules = n + (c->default_rules ? ARRAY_LEN(default_rules) : 0);
	c->rules = mem_zero((c->n_rules + 1) * sizeof(char *));
	c->rule_lines = mem_zero((n + 1) * sizeof(uint32_t));
	if (n && rule_lines->len == n * sizeof(uint32_t))
		memcpy(c->rule_lines, rule_lines->data, rule_lines->len);
	for (size_t i = 0; i < c->n_rules; i++)
		c->rules[i] = mem_strdup(i < n ? cfg_getnstr(policy, "rules", (unsigned)i)
					       : default_rules[i - n]);
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
	for (size_t i = 0; i < ARRAY_LEN(default_extensions); i++) {
		struct config_extension *x = &c->extensions[c->n_extensions];

		if (c->n_extensions == ARRAY_LEN(c->extensions) ||
			extension_known(c, default_extensions[i].name))
			continue;
		c->n_extensions++;

		snprintf(x->name, sizeof(x->name), "%s", default_extensions[i].name);
		snprintf(x->privileges, sizeof(x->privileges), "%s",
			default_extensions[i].privileges);
		x->file_bytes = TOSD_FILE_BYTES;
		x->isolated = default_extensions[i].isolated;
		library_resolve(x, default_extensions[i].library);
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
		(void)number_check(key_find("extension", "file_size"), size, &bytes, NULL);
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
	if (gethostname(host, sizeof(host) - 1) == 0 && host[0] && host_ok(host, strlen(host)))
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
		*out = *c;
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

/* ---- printing */

static void quoted(struct buf *out, const char *s)
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
		quoted(out, first + i * step);
	}
	buf_add_str(out, "}\n");
}

static int64_t number_at(const struct key *k, const struct config *c)
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

	for (size_t i = 0; i < ARRAY_LEN(keys); i++) {
		const struct key *k = &keys[i];

		if (k->list || strcmp(k->section, section) != 0)
			continue;
		buf_printf(out, "%s%s = ", indent, k->name);
		if (is_text(k->kind)) {
			quoted(out, (const char *)c + k->offset);
		} else {
			number_text(k, number_at(k, c), text);
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
		quoted(out, c->rules[i]);
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
	for (size_t i = 0; i < ARRAY_LEN(sections); i++) {
		const char *name = sections[i].name;

		if (sections[i].flags & CFGF_MULTI)
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
	quoted(out, value);
	buf_add_u8(out, '\n');
}

static void print_extension(
	const char *section, const struct config_extension *x, struct buf *out)
{
	buf_printf(out, "%s \"%s\" {\n", section, x->name);
	if (strcmp(section, "extension") == 0) {
		buf_add_str(out, "\tlibrary = ");
		quoted(out, x->library);
		buf_printf(out, "\n\twhere = \"%s\"\n\tprivileges = ",
			x->isolated ? "isolated" : "kernel");
		quoted(out, x->privileges);
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
		quoted(out, text);
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

/* ---- changes at run time */

_Static_assert(
	ARRAY_LEN(keys) <= 64 * ARRAY_LEN(((struct config *)0)->given), "a bit for each key");

int64_t config_key_number(const struct config *c, size_t i)
{
	return number_at(&keys[i], c);
}

void config_key_text(const struct config *c, size_t i, char *out, size_t cap)
{
	char text[32];

	if (is_text(keys[i].kind)) {
		snprintf(out, cap, "%s", (const char *)c + keys[i].offset);
		return;
	}
	number_text(&keys[i], number_at(&keys[i], c), text);
	snprintf(out, cap, "%s", text);
}

int config_key_check(size_t i, const char *value, struct errmsg *em)
{
	return value_check(&keys[i], value, em);
}

int config_key_set(struct config *c, size_t i, const char *value, struct errmsg *em)
{
	int rc = value ? value_check(&keys[i], value, em) : 0;

	return rc ? rc : value_store(&keys[i], value, c, em);
}
