/*
 * Packages of extensions: a bundle (wire/carrier.h) whose manifest an officer has signed, with
 * the kind "extension". Its runtime is "extension" (shared objects) or "extension-lua"; its entry
 * is a file that says what it is:
 *
 *   {abi: [major, minor], files: {machine: file}, where: "isolated" | "kernel",
 *    inboxes: [text], privileges: text}
 *
 * A machine is what uname -m says, such as x86_64; "any" for Lua. doc/protocol.md, "Packages of
 * extensions".
 */
#pragma once

#include "seal/seal.h"
#include "wire/carrier.h"

#define PACKAGE_KIND      "extension"
#define PACKAGE_ENTRY     "extension"
#define PACKAGE_BYTES_MAX ((size_t)32 << 20) /* all machines together */
#define PACKAGE_FILE_MAX  ((size_t)8 << 20)  /* what one machine gets */
#define PACKAGE_INBOXES   16

struct package {
	struct manifest manifest; /* name and version are there */
	struct cert_info officer;
	uint8_t digest[DIGEST_BYTES]; /* of the whole package */
	bool lua, in_kernel;
	unsigned abi_major, abi_minor;
	char privileges[128];
	char inboxes[PACKAGE_INBOXES * 64]; /* with spaces between */
	struct tos_value *files;            /* machine -> file; owned */
	struct bundle bundle;               /* borrows from the bytes given */
};
/*
 * Check all of it: format, digests, signature, the signer's role, dates. When it fails nothing is
 * to be freed, and `officer.name` may say whose signature it was.
 * Errors  ERR_TOO_LARGE, ERR_MALFORMED, ERR_SIGNATURE, ERR_UNTRUSTED, ERR_REVOKED, ERR_EXPIRED,
 *         ERR_NOT_YET, ERR_DENIED (not an officer), ERR_UNSUPPORTED (runtime)
 */
int package_open(
	const struct trust *t, struct slice bytes, struct package *out, struct errmsg *em);
void package_close(struct package *p);
/* Its library or text for that machine; borrowed. ERR_UNSUPPORTED. */
int package_file(
	const struct package *p, const char *machine, struct slice *out, struct errmsg *em);

/* One file of a package that is being made. */
struct package_part {
	char machine[33], name[65];
	struct slice content;
};
/* What is signed besides name and version; the texts as in struct package. */
struct package_make {
	const char *name, *version, *privileges;
	const struct tos_value *inboxes; /* array of texts */
	bool lua, in_kernel;
	unsigned abi_major, abi_minor;
	const struct package_part *part;
	size_t n_parts;
};
/* Append the package. ERR_DENIED: not an officer's key. */
int package_make(const struct package_make *m, const struct signer *officer, int64_t expires_ms,
	struct buf *out, struct errmsg *em);
