/*
 * The configuration of one kernel, kernels/NAME/tosd.conf, read by libconfuse in tos-kernel
 * --check-config (for tosd) and at start. Unknown keys, bad values and values out of range are
 * errors that name file:line.
 *
 *   name = "host0"
 *   listen = {"127.0.0.1:21212"}      # default 0.0.0.0:21212
 *   advertise = "127.0.0.1:21212"     # where others dial us; "" for a kernel that only dials
 *                                     out; default: first listen
 *   registrar = "host0"               # where the Directory is; "" none
 *   peer "host1" { address = {"127.0.0.1:21213"} }
 *   uid_base = 0                      # 0: 200000 + 1000 * a number made from the state
 *                                     directory's inode
 *   log { level = "info"  json = false }
 *   sandbox { require = {"seccomp"} vm_address = "1G" }
 *   limits { cpu = "60s" memory = "64M" ... carriers = 1000 carriers_per_principal = 500 }   #
 *                                                                                            host's
 *                                                                                            greatest,
 *                                                                                            names
 *                                                                                            of
 *                                                                                            D12
 *   extension "Monitor" { library = "monitor" where = "isolated" privileges = "read-proc
 *   read-fs" property = {"/path=value"} } policy { rules = { "allow role:admin * *", ... } }
 *   extension: also directory = "/srv/x [read-only]" file_size = "64M" listen = "127.0.0.1:8080"
 *   installed "Greeter" { property = {"/path=value"} places directory file_size listen ca }
 *   extender { kernel = {"Mobility"}  privileges = "read-proc"  memory = "512M" }   # what may be
 *                                                                            installed at run time
 *   action "block" { run = {"/usr/sbin/nft", "add", ..., "{address}"}  args = {"address"}  timeout = "10s" }
 *   local { principals = { 1000 } }   # uids that may read besides the owner of the state
 *                                     directory
 *   clock { skew = "5m" }
 *   revocation { max_age = "7d" }
 *   queue { inbox = 1024  link_bytes = "8M" }
 *   content { max = "2G"  admit_signed = "officer" }
 *   # where: "kernel" or "isolated"; library: absolute path, or name of a shipped one. No
 *   extension configured: Echo, Mobility, # Messenger, Directory, Commit in the kernel, Monitor
 *   isolated. config_default_rules() hold besides the rules, unless policy { defaults = false }.
 *   timing { handshake = "10s" ping = "10s" silent = "30s" offer = "10s" ... }    # shortened
 *                                                                                 by tests
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "ipc/tosd_msg.h"
#include "wire/carrier.h"

struct buf;

#define CONFIG_SPARES_MAX 16

struct config_peer {
	char name[64];
	char address[4][128];
	size_t n_address;
};
struct config_extension {
	char name[64], library[512], privileges[128];
	bool isolated;
	char property[16][2][128]; /* path, value */
	size_t n_property;
	char places[16][256]; /* with net-out: core/place.h */
	size_t n_places;
	char ca[512]; /* certificates of authorities for them; "": the host's */
	/* with directory: an absolute path, perhaps " read-only" behind it; "": one of its own */
	char directory[TOSD_DIRECTORY_BYTES];
	uint64_t file_bytes;          /* the most that a file there may hold */
	char listen[TOSD_NAME_BYTES]; /* with net-in: "127.0.0.1:8080"; "": nowhere */
};
/* Of a program; 0: the host's when it is asked for, none when the host says so (wall). */
struct program_limits {
	int64_t memory, cpu_ms, processes, files, file_size, scratch, wall_ms;
};
struct config {
	char name[64], state_dir[TOSD_PATH_BYTES];
	char listen[TOSD_LISTEN_MAX][TOSD_NAME_BYTES];
	size_t n_listen;
	char advertise[128], registrar[64];
	struct config_peer *peers;
	size_t n_peers;
	struct config_extension extensions[32];
	size_t n_extensions;
	/* what those are told and granted that are installed at run time, by their names */
	struct config_extension installed[TOSD_EXT_INSTALLED];
	size_t n_installed;
	/* extensions that are installed at run time: whether any may be; which may live in the kernel, what those that
	 * don't may be granted at most, and their address space */
	bool extender_enabled;
	char extender_kernel[16][64];
	size_t n_extender_kernel;
	char extender_privileges[128];
	uint64_t extender_memory;
	struct tosd_action actions[TOSD_ACTIONS_MAX]; /* tosd has a table of its own */
	size_t n_actions;
	bool default_extensions; /* those configured are besides the default ones */
	uint32_t uid_base;
	char log_level[12];
	bool log_json;
	char require[8][24];
	size_t n_require;
	uint32_t n_programs;            /* at once */
	struct program_limits programs; /* of each, at the most and by default */
	char pin[64][600];              /* PATH=SHA-256 */
	size_t n_pins;
	uint64_t vm_address_bytes;
	int64_t limits[LIMIT_COUNT];
	uint32_t carriers, carriers_per_principal;
	uint32_t cpu_share, cpu_share_per_principal; /* percent of one processor; 0: no bound */
	uint64_t sent_rate, sent_rate_per_principal; /* bytes posted in a second; 0: no bound */
	uint64_t
		disk_per_principal; /* of its carriers, outcomes and code in the store; 0: no bound */
	uint64_t journal_bytes; /* of one extension in the store */
	uint32_t journal_rows;
	uint32_t vm_carriers; /* that may share a tos-vm */
	uint32_t spare_vms;   /* tos-vm processes made ahead of their carriers */
	/* all that hold: those configured, then the defaults unless they were switched off */
	char **rules;
	size_t n_rules, n_own_rules;
	uint32_t *rule_lines; /* of those configured: where each stands in the file */
	bool default_rules;
	uint64_t content_max;   /* bytes of the content store */
	uint32_t content_files; /* and how many they may be */
	uint32_t
		content_share; /* percent of them that others can't push out of a principal's */
	char admit_signed[64]; /* roles of certificates whose signature admits content */
	bool confirm;          /* ask a carrier's home before it is accepted */
	uint32_t local_uids[32];
	size_t n_local_uids;
	int64_t skew_ms;
	int64_t revocation_max_ms; /* 0: a list may be of any age */
	uint32_t inbox_bound;
	size_t link_bytes;
	/* posts of one sender to one carrier elsewhere, their bytes, and those of all of them */
	uint32_t stream_posts;
	size_t stream_bytes, streams_bytes;
	uint32_t handshake_ms, ping_ms, silent_ms, offer_ms, hook_ms, call_ms, report_ms,
		retry_ms, lost_ms;
	/* how long a destination that took an owner's carrier is not offered the next one first */
	uint32_t offer_again_ms;
	uint32_t restart_ms; /* the longest pause before tosd starts a process again */
	bool test_no_userns;
	uint64_t given[2]; /* keys, by number, that stand in the file */
	uint32_t test_protocol_min, test_protocol_max; /* claimed instead of what is spoken */
};
/* Reads the file (root's or our user's, not writable by others) and checks everything. One
 * thread at a time: libconfuse keeps global state. *out is written on success only;
 * config_fini() it. state_dir is the file's folder, resolved. */
/* ERR_CONFIG "tosd.conf:12: ..." */
int config_load(const char *path, struct config *out, struct errmsg *em);
/* The same from memory; `where` stands in messages, and its folder becomes state_dir as it is
 * written. */
int config_parse(
	const char *text, size_t n, const char *where, struct config *out, struct errmsg *em);
void config_fini(struct config *c);

/* ---- one key at a time, for properties, `tos set` and reload. Keys have numbers from 0 on. */
struct config_key {
	const char *section, *name; /* section "": at the top */
	bool live;                  /* may change while the kernel runs */
	bool is_text, is_bool;
	const char *unit;
	int64_t min, max;
};
size_t config_keys(void);
/* False for lists and keys of sections that come more than once. */
bool config_key_get(size_t i, struct config_key *out);
int config_key_find(const char *section, const char *name); /* ERR_NOT_FOUND */
int64_t config_key_number(const struct config *c, size_t i);
/* As the file would say it; a text's own. */
void config_key_text(const struct config *c, size_t i, char *out, size_t cap);
int config_key_check(size_t i, const char *value, struct errmsg *em);
/* Checked as in the file; NULL: the default. ERR_CONFIG. */
int config_key_set(struct config *c, size_t i, const char *value, struct errmsg *em);
/* What it says of the extension of that name, configured or installed; NULL: nothing. */
struct config_extension *config_extension(struct config *c, const char *name);
/* The path of its directory without what stands behind it; true: read-only. */
bool config_directory(const struct config_extension *x, char path[TOSD_DIRECTORY_BYTES]);
/* What the configuration says of an extension's property, by its path below it; NULL: nothing. */
const char *config_property(const struct config_extension *x, const char *path);
/* What may change while the kernel runs goes from *fresh to *now; `fn` hears of each difference, and
 * whether it was taken. key: "limits.cpu", "policy.rules", "peer host1", "extension Monitor". */
typedef void config_change_fn(
	void *arg, const char *key, const char *from, const char *to, bool taken);
void config_take(struct config *now, struct config *fresh, config_change_fn *fn, void *arg);
/* normalised, readable by config_load */
int config_print(const struct config *c, struct buf *out);
/* ERR_CONFIG if a library of an extension is not there: tosd and the kernel need an absolute
 * path. */
int config_to_tosd(const struct config *c, struct tosd_config *out, struct errmsg *em);
/* The rules that hold besides those configured, unless policy.defaults is off. */
const char *const *config_default_rules(size_t *n);
