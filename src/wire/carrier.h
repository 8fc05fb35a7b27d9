/*
 * Carriers on the wire: manifest, ticket, hop record, envelope. Payloads only: the COSE_Sign1
 * around the first three is taken apart by cose.h and verified by src/seal/.
 * doc/protocol.md, "Carriers".
 *
 * Signed payloads are maps with text keys in deterministic order. An unknown key is refused
 * unless it begins with "x-" (not critical); such keys are not kept, `extra` says that there
 * were some. Names are printable ASCII without blanks. Decoders write *out on success only;
 * encoders trust their argument, and what they make of a wrong one a decoder refuses.
 */
#pragma once

#include "base/buf.h"
#include "wire/frame.h"

#define LIMIT_LIST(X)                                                                          \
	/* name, unit, default asked, greatest, text */                                        \
	X(cpu, "ms", 10000, 86400000, "CPU time over the carrier's life")                      \
	X(memory, "B", 16 << 20, (int64_t)4 << 30, "memory of the carrier's VM")               \
	X(lifetime, "ms", 3600000, (int64_t)366 * 86400000, "time from launch to the end")     \
	X(hops, "", 64, 100000, "accepted moves")                                              \
	X(posts, "1/s", 1000, 1000000, "posts in a second")                                    \
	X(sent, "B", 64 << 20, (int64_t)1 << 40, "bytes posted over the carrier's life")       \
	X(state, "B", 4 << 20, 64 << 20, "frozen size: self, briefcase, log, path")            \
	X(inbox, "folders", 256, 65536, "folders waiting in all its inboxes")                  \
	X(clones, "", 0, 1000000, "clones made by it and its clones")                          \
	X(places, "", 0, 1000, "places retained")                                              \
	X(channels, "", 0, 1000, "open channels")                                              \
	X(programs, "", 16, 1000, "programs running")

enum limit_id {
#define LIMIT_ENUM(name, unit, def, max, text) LIMIT_##name,
	LIMIT_LIST(LIMIT_ENUM)
#undef LIMIT_ENUM
		LIMIT_COUNT
};
extern const char *const limit_names[LIMIT_COUNT];
extern const char *const limit_units[LIMIT_COUNT];
extern const char *const limit_texts[LIMIT_COUNT];
extern const int64_t limit_defaults[LIMIT_COUNT];
extern const int64_t limit_greatest[LIMIT_COUNT];
int limit_find(const char *name, size_t len); /* enum limit_id or ERR_NOT_FOUND */
/* "cpu=2" (s, or 500ms), "memory=32M", "hops=5": value in the table's unit. */
int limit_parse(const char *text, enum limit_id *id, int64_t *value, struct errmsg *em);

/* manifest = {entry, expires, files: {name: digest}, issued, limits, name, permissions: [tstr],
 * runtime, version}. Times: wall clock, ms. */
#define MANIFEST_FILES_MAX 256
struct manifest {
	char name[65], version[33], runtime[33], entry[129];
	uint64_t n_files;
	struct {
		char name[129];
		uint8_t digest[DIGEST_BYTES];
	} * files;                   /* malloc'ed */
	int64_t limits[LIMIT_COUNT]; /* -1: not stated */
	char permissions[16][65];
	size_t n_permissions;
	int64_t issued_ms, expires_ms;
	bool extra;
};
void manifest_fini(struct manifest *m);
int manifest_decode(struct slice payload, struct manifest *out, struct errmsg *em);
void manifest_encode(struct buf *b, const struct manifest *m);

/* bundle = [manifest COSE_Sign1 bytes, {file name: bytes}]; what "code" means everywhere is
 * these bytes, and the code digest is their SHA-256. */
struct bundle {
	struct slice manifest_cose;
	uint64_t n_files;
	struct {
		struct slice name, content;
	} files[MANIFEST_FILES_MAX];
};
/* May a bundle hold a file of this name? */
bool bundle_file_ok(const char *name);
/* borrows; no signature check */
int bundle_decode(struct slice bytes, struct bundle *out, struct errmsg *em);
void bundle_encode(struct buf *b, struct slice manifest_cose, const struct slice *names,
	const struct slice *contents, size_t n); /* sorts */

/* Folders that the owner protects. `sealed` is a map of folder -> digest: they stay as they
 * were at the launch. `append` and a hop's `grown` are maps of folder -> [count, head]: they
 * only grow, and count elements had the head that seal/folders.h makes of them. NULL where there
 * are none; an empty map is refused. */
#define PROTECTED_FOLDERS_MAX 64

/* ticket = {alternate, append?: {folder: [count, head]}, briefcase: digest, code: digest,
 * expires, home, issued, itinerant: bool, limits: {name: int}, name, nonce: bstr 16, options:
 * {…}, path: [entry...], sealed?: {folder: digest}}.
 * `name` is the carrier's full name, host0#42. A path entry is a text: "a", "a|b".
 * options: {fast: bool, on-unreachable: "wait=30000" | "skip" | "alternate" | "fail" | "" (the
 * kernel's)}. briefcase: SHA-256 of the initial briefcase's encoding; a0 where there is
 * none. */
#define PATH_ENTRIES_MAX 10000
struct ticket {
	char name[NAME_BYTES_MAX + 1], home[65], alternate[65];
	uint8_t nonce[16], code[DIGEST_BYTES], briefcase[DIGEST_BYTES];
	bool itinerant, fast;
	char on_unreachable[32];
	int64_t limits[LIMIT_COUNT]; /* all stated */
	int64_t issued_ms, expires_ms;
	struct tos_value *path;            /* array of texts; owned; NULL is encoded as empty */
	struct tos_value *sealed, *append; /* owned */
	bool extra;
};
void ticket_fini(struct ticket *t);
int ticket_decode(struct slice payload, struct ticket *out, struct errmsg *em);
void ticket_encode(struct buf *b, const struct ticket *t);

/* The two-part incarnation: raised by a declaration only. Ordered by count, then nonce
 * bytewise. */
struct incarnation {
	uint64_t count;
	uint8_t nonce[8];
};
int incarnation_compare(const struct incarnation *a, const struct incarnation *b);

/* hop = {boot: bstr (fast only) , dest, e: [count, nonce bstr 8], from, grown?: {folder:
 * [count, head]}, id: bstr 32, kind: 0 move | 1 outcome | 2 clone, n, parts: {name: digest}, prev:
 * digest, split (clone only): {cpu, hops, sent, clones: int}, suffix: tstr, time}. parts: one
 * digest for each of "state", "path", "counters", "trail", "log", "undelivered", "channels" and
 * "folder/NAME" for each folder.
 * A record of kind 2 is the birth of a clone: id, suffix, n and parts are the clone's, from and dest
 * the kernel that made it, prev its parent's last record, split what it may use of its parent's
 * budgets. */
enum hop_kind { HOP_MOVE, HOP_OUTCOME, HOP_CLONE };
/* The limits that are budgets: a clone gets a part of its parent's. */
#define SPLIT_COUNT 4
extern const enum limit_id split_limits[SPLIT_COUNT];
struct hop {
	uint8_t id[DIGEST_BYTES];
	char suffix[64]; /* clone suffix ".1.3" or "" */
	struct incarnation e;
	uint64_t n;
	char from[65], dest[65];
	unsigned kind;
	uint8_t boot[16];
	bool has_boot;
	int64_t time_ms;
	uint8_t prev[DIGEST_BYTES]; /* zero for the first */
	struct tos_value *parts;    /* map text -> bytes; owned */
	struct tos_value *grown; /* of each folder that the ticket says may only grow; owned */
	int64_t split[LIMIT_COUNT]; /* of a clone: those of split_limits */
	bool extra;
};
/* "" or ".1.3": numbers from 1 on, written in one way. */
bool suffix_ok(const char *s);
void hop_fini(struct hop *h);
int hop_decode(struct slice payload, struct hop *out, struct errmsg *em);
void hop_encode(struct buf *b, const struct hop *h);

/* envelope = {briefcase: {name: [element...]}, channels: [], code: digest, counters: {name:
 * uint}, hops: [COSE bytes...], log: [[time, kernel, text]...], path: [text...], state: bstr
 * (CBOR with tags 28/29, empty: none yet), ticket: COSE bytes, trail: [map...], undelivered:
 * [[inbox, sender, folder]...]}. Held as bytes, with the parts as slices that borrow. */
enum envelope_part {
	PART_BRIEFCASE,
	PART_CHANNELS,
	PART_CODE,
	PART_COUNTERS,
	PART_HOPS,
	PART_LOG,
	PART_PATH,
	PART_STATE,
	PART_TICKET,
	PART_TRAIL,
	PART_UNDELIVERED,
	PART_COUNT
};
extern const char *const envelope_part_names[PART_COUNT];
struct envelope {
	struct slice part[PART_COUNT]; /* encoded items */
};
int envelope_decode(struct slice bytes, struct envelope *out, struct errmsg *em);
void envelope_encode(struct buf *b, const struct envelope *e);

/* Briefcase as {name: [element...]}; names are printable ASCII, 0..128 bytes. */
#define FOLDER_NAME_MAX 128
int briefcase_check(struct slice bytes, struct errmsg *em);
/* Walk a checked briefcase in its order: call with *at = 0; false at the end. `elements` is the
 * encoded array; folder_put() of both is what the folder's digest is taken of. */
bool briefcase_next(struct slice bytes, size_t *at, struct slice *name, struct slice *elements);
