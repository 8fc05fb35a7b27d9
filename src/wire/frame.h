/*
 * Frames: what travels on every connection (links, clients, children): a 32-bit big-endian
 * length, then one CBOR array whose first element is the type. doc/protocol.md, "Frames".
 *
 * No sockets here: the splitter is fed bytes and gives back frames.
 */
#pragma once

#include "base/buf.h"
#include "base/err.h"
#include "wire/cbor.h"

struct tos_value;

#define FRAME_BYTES_MAX (1u << 20) /* one frame with its length */
#define CHUNK_BYTES_MAX (64u << 10)
#define BLOB_BYTES_MAX  (128u << 20) /* what chunks may add up to */
#define NAME_BYTES_MAX  128          /* any address: host0#42.1.3/replies */
#define DIGEST_BYTES    32
#define TRACE_BYTES     16

enum frame_type {
	FRAME_HELLO = 0,
	FRAME_POST = 1,
	FRAME_CREDIT = 2,
	FRAME_PING = 3,
	FRAME_PONG = 4,
	FRAME_WANT = 5,  /* [5, digest, offset] */
	FRAME_CHUNK = 6, /* [6, digest, offset, total, data] */
	FRAME_LACK = 7,  /* [7, digest]: what you want is not here */
	FRAME_VOUCH = 8, /* [8, ticket, [hop record...]]: I speak for this carrier */
	FRAME_BYE = 9,   /* [9, code, text]: closing, and why */
	/* from version 2 on, between kernels: posts to carriers */
	FRAME_CARRY =
		10, /* [10, seq, seen, kind, dest, sender, tag, deadline_ms, trace, folder] */
	FRAME_TAKEN = 11, /* [11, seq, [[seq, code, text]...]] */
	/* 32 and up: between a kernel and its children only, see vmproto.h and extproto.h */
};

enum post_kind {
	POST_ONEWAY = 0,
	POST_CALL = 1, /* wants an answer with the same tag before the deadline */
	POST_ANSWER = 2,
	POST_FAILURE = 3, /* folder ["failure", [code word, text]] */
};

/* post = [1, kind, dest, sender, tag, deadline_ms, trace, folder]; everything borrows. */
struct post {
	enum post_kind kind;
	struct slice dest; /* text, 1..NAME_BYTES_MAX */
	/* text, 0..NAME_BYTES_MAX; filled in by the kernel of a local sender */
	struct slice sender;
	uint64_t tag;         /* the sender's own; 0 for a one-way post */
	uint32_t deadline_ms; /* what is left of it; 0: the receiver's default */
	struct slice trace;   /* TRACE_BYTES or empty */
	struct slice folder;  /* encoded [name, [element...]] , well-formed */
};

/* after the type was read; see frame_open */
int post_decode(struct cbor_cursor *c, struct post *p);
/* the whole frame with its length in front */
void post_encode(struct buf *b, const struct post *p);

/* A post to a carrier that is said to be at the receiver. Numbered ones are answered by `taken`;
 * number 0 wants no answer. doc/protocol.md, "Posts to carriers". */
struct carry {
	uint64_t seq;
	uint64_t seen; /* the highest number that the receiver has said it took */
	struct post post;
};
int carry_decode(struct cbor_cursor *c, struct carry *y);
void carry_encode(struct buf *b, const struct carry *y);

/* Everything up to `seq` was dealt with; of those that failed a row each, in ascending order. The
 * rows are read and written one by one. */
#define TAKEN_ROWS_MAX 1024u
#define TAKEN_TEXT_MAX 512u
struct taken_row {
	uint64_t seq;
	int rc;
	struct slice text;
};
/* then n_rows times taken_row_decode(), then taken_finish() */
void taken_decode(struct cbor_cursor *c, uint64_t *seq, uint64_t *n_rows);
void taken_row_decode(struct cbor_cursor *c, struct taken_row *row);
int taken_finish(struct cbor_cursor *c);
/* then n_rows times taken_row_encode(), then taken_end() with what taken_begin() returned */
size_t taken_begin(struct buf *b, uint64_t seq, uint64_t n_rows);
void taken_row_encode(struct buf *b, const struct taken_row *row);
void taken_end(struct buf *b, size_t at);

/* folder = [name: tstr, [element...]]. */
int folder_check(struct slice folder, struct slice *name, uint64_t *n_elements);
/* Of an item that cbor_any() has walked: is it a folder? */
int folder_form(struct slice folder);
/* Encode a folder with these elements (borrowed, may be NULL for none). */
void folder_encode(
	struct buf *b, const char *name, const struct tos_value *const *elements, size_t n);
/* The name (copied, NAME_BYTES_MAX+1 bytes) and an array value of the elements, which the
 * caller frees. */
int folder_decode(struct slice folder, char *name, struct tos_value **elements);
/* The same with the name and the encoded array of elements, as they lie in a briefcase: what
 * the digest of a folder is taken of. */
void folder_put(struct buf *b, struct slice name, struct slice elements);

struct hello {
	uint32_t version_min, version_max;
	char name[NAME_BYTES_MAX + 1]; /* kernel name; "" for a client asking for one */
	char domain[65];               /* hex fingerprint of the root certificate */
	uint64_t boot_count;
	uint8_t boot_nonce[16];
	uint64_t store_seq;      /* highest committed sequence of the sender's store */
	uint64_t seen_seq;       /* highest store sequence it has seen of the receiver */
	uint64_t revocation;     /* number of its revocation list */
	struct slice audit_head; /* DIGEST_BYTES or empty */
	uint64_t audit_seq;      /* number of that record; 0 unknown */
	char want_name[64];      /* clients: a durable name, or "" */
	char address[128];       /* kernels: where it can be dialled, or "" */
	struct slice features;   /* encoded array of texts, or empty */
	/* highest boot count it has seen of the receiver, and of which boot; 0 unknown */
	uint64_t boot_seen;
	uint8_t boot_seen_nonce[16];
	uint64_t seen_before; /* highest store sequence seen of boots before that one */
};
/* 2: `carry` and `taken`. */
#define PROTOCOL_VERSION     2
#define PROTOCOL_VERSION_MIN 1

/* hello = [0, {open map}]: unknown keys are ignored. Strings end in NUL; slices borrow. */
int hello_decode(struct cbor_cursor *c, struct hello *h);
void hello_encode(struct buf *b, const struct hello *h);

struct chunk {
	struct slice digest;
	uint64_t offset, total;
	struct slice data;
};
int chunk_decode(struct cbor_cursor *c, struct chunk *k);
void chunk_encode(struct buf *b, const struct chunk *k);
int want_decode(struct cbor_cursor *c, struct slice *digest, uint64_t *offset);
void want_encode(struct buf *b, const uint8_t digest[DIGEST_BYTES], uint64_t offset);
void lack_encode(struct buf *b, const uint8_t digest[DIGEST_BYTES]);
int lack_decode(struct cbor_cursor *c, struct slice *digest);
void credit_encode(struct buf *b, uint32_t posts, uint32_t chunks);
int credit_decode(struct cbor_cursor *c, uint32_t *posts, uint32_t *chunks);
void ping_encode(struct buf *b, enum frame_type which, uint64_t number);
int ping_decode(struct cbor_cursor *c, uint64_t *number);
/* The code travels as its word; one that is not in ERR_LIST is read as ERR_UNKNOWN. The text is
 * cut at 512 bytes. */
void bye_encode(struct buf *b, int rc, const char *text);
int bye_decode(struct cbor_cursor *c, int *rc, struct slice *text);
void vouch_encode(struct buf *b, struct slice ticket, const struct slice *hops, size_t n);
int vouch_decode(
	struct cbor_cursor *c, struct slice *ticket, struct slice *hops /* encoded array */);
/* Walk such an array of byte strings (also an envelope's hops): call with *at = 0; false at the
 * end. */
bool bytes_array_next(struct slice array, size_t *at, struct slice *item);

/* Put the length in front of what fn would append: remember b->len, append 4 zero bytes and the
 * item, then call frame_end(b, at). The encoders above fail past FRAME_BYTES_MAX; frame_end()
 * does not, because frames to our own children may be larger. */
size_t frame_begin(struct buf *b);
void frame_end(struct buf *b, size_t at);

/* Splitter: append received bytes to `in`, then call until ERR_AGAIN. On 0 *frame is the CBOR
 * item without the length and borrows from `in` until frame_next is called again or `in`
 * changes. ERR_TOO_LARGE, ERR_MALFORMED: close. buf_fini(&r->in) at the end. */
struct frame_reader {
	struct buf in;
	size_t eaten; /* bytes of `in` given out, dropped at the next call */
	size_t max;   /* largest frame; 0: FRAME_BYTES_MAX */
};
int frame_next(struct frame_reader *r, struct slice *frame);

/* Start decoding: the type is read, c stands behind it inside the array. Returns the type or a
 * negative error. Finish with cbor_close(c) then cbor_finish(c), which the decoders above do. */
int frame_open(struct cbor_cursor *c, struct slice frame);
