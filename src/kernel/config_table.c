/* The keys of the configuration, its sections, the rules and extensions that are there by themselves. */
#include "kernel/config_table.h"

#include <confuse.h>
#include <fcntl.h>
#include <string.h>

#include "core/firewall.h"
#include "seal/seal.h"
#include "wire/frame.h"
#include "base/mem.h"

#define RULES_MAX 1024
#define HOUR_MS   3600000
#define DAY_MS    86400000

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
const struct key config_table[] = {
	TEXT("", "name", KEY_KERNEL, name, NULL),
	LIST("", "listen", KEY_LISTEN, listen[0], TOSD_LISTEN_MAX),
	TEXT("", "advertise", KEY_ADDRESS0, advertise, NULL),
	TEXT("", "registrar", KEY_KERNEL0, registrar, ""),
	NUMBER("", "default_extensions", KEY_BOOL, default_extensions, 0, 1, 0),
	NUMBER("", "uid_base", KEY_U32, uid_base, 0, 4000000000, 0),
	TEXT("log", "level", KEY_LEVEL, log_level, "info"),
	NUMBER("log", "json", KEY_BOOL, log_json, 0, 1, 0),
	LIST("sandbox", "require", KEY_LAYER, require[0], 8),
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
	NUMBER("content", "files", KEY_U32, content_files, 16, 1000000, DEFAULT(16384, 2048)),
	NUMBER("content", "share", KEY_U32, content_share, 1, 100, 50),
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

const struct config_section config_sections[] = {
	{ "log", false }, { "sandbox", false }, { "limits", false }, { "policy", false },
	{ "extender", false },
	{ "programs", false },
	{ "local", false }, { "clock", false }, { "revocation", false }, { "queue", false }, { "timing", false }, { "content", false },
	{ "peer", true },
	{ "extension", true },
	{ "action", true },
	{ "installed", true },
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

const struct config_shipped config_shipped[] = {
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

const size_t config_n_keys = ARRAY_LEN(config_table);
const size_t config_n_sections = ARRAY_LEN(config_sections);
const size_t config_n_shipped = ARRAY_LEN(config_shipped);

_Static_assert(ARRAY_LEN(config_table) <= 64 * ARRAY_LEN(((struct config *)0)->given),
	"a bit for each key");
_Static_assert(ARRAY_LEN(config_sections) <= CONFIG_SECTIONS_MAX, "config.c has room for them");

const char *const *config_default_rules(size_t *n)
{
	*n = ARRAY_LEN(default_rules);
	return default_rules;
}
