/*
 * Names (design: "Words"). One grammar:
 *   kernel   [a-z0-9] then [a-z0-9.-]; never "client", "tos" or beginning "tos." (the system's);
 *            where two share it, :PORT behind it (not :21212, which is the one meant without);
 *            63 at most in all
 *   carrier  KERNEL#NUMBER then .N for each clone: host0#42, host0#42.1.3
 *   place    CARRIER@KERNEL
 *   inbox    global: upper-case letter, then letters, digits, '-', '.', 63 at most; of a
 *            carrier: [a-z0-9_-]
 *   address  INBOX | KERNEL/INBOX | CARRIER[/inbox] | KERNEL/client/NUMBER or
 *            KERNEL/client/name
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "wire/cbor.h"

#define KERNEL_NAME_MAX 63

enum address_kind { ADDRESS_INBOX, ADDRESS_CARRIER, ADDRESS_CLIENT };
struct address {
	enum address_kind kind;
	char kernel[KERNEL_NAME_MAX + 1]; /* INBOX, CLIENT: "" means here. CARRIER: its home */
	char carrier[129];                /* CARRIER: the full name, host0#42.1 */
	uint64_t number;                  /* CARRIER */
	char suffix[64];                  /* CARRIER: ".1.3" or "" */
	/* INBOX: its name; CARRIER: the part behind the slash or ""; CLIENT: its id */
	char inbox[64];
};
bool name_kernel_ok(const char *s);
/* The port behind a kernel's name, or 21212; *n becomes the length of what is before it. */
unsigned name_kernel_port(const char *s, size_t *n);
bool name_inbox_ok(const char *s);            /* global */
bool name_private_ok(const char *s);          /* of a carrier */
bool name_folder_ok(const char *s, size_t n); /* printable ASCII, 0..128 */
/* ERR_NAME */
int address_parse(const char *s, size_t n, struct address *out, struct errmsg *em);
int address_text(const struct address *a, char *out, size_t cap);
