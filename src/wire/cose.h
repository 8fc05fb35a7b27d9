/*
 * COSE_Sign1 (RFC 9052, section 4.2) taken apart and put together; no cryptography here.
 *
 * COSE_Sign1 = 18([protected: bstr, unprotected: {}, payload: bstr, signature: bstr 64]).
 * Protected header: {1: -8 (EdDSA), 16: "application/tos-KIND", 33 (x5chain): bstr |
 * [bstr...]}. The chain is inside the protected header so that it is signed. Unprotected is
 * empty.
 */
#pragma once

#include "base/buf.h"
#include "wire/frame.h"

#define COSE_CHAIN_MAX 3

struct cose {
	struct slice protected_bytes; /* contents of the protected bstr */
	struct slice payload;
	struct slice signature;             /* 64 bytes */
	struct slice type;                  /* text after "application/tos-": "ticket" */
	struct slice chain[COSE_CHAIN_MAX]; /* DER certificates, leaf first */
	size_t n_chain;
};

int cose_decode(struct slice bytes, struct cose *out, struct errmsg *em); /* borrows */
/* Encode the protected header for this kind ("ticket") and chain. */
void cose_protected(struct buf *b, const char *kind, const struct slice *chain, size_t n);
/* Sig_structure = ["Signature1", protected, external_aad = h'', payload]: what is signed. */
void cose_to_sign(struct buf *b, struct slice protected_bytes, struct slice payload);
void cose_encode(struct buf *b, struct slice protected_bytes, struct slice payload,
	const uint8_t signature[64]);
