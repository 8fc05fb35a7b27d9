/* Enrolment tokens: what a new host needs to find the domain and prove that it was asked in. */
#include "seal/ossl.h"

#include <string.h>

#define TOKEN_PREFIX    "tos1."
#define TOKEN_BYTES_MAX 1024
#define TOKEN_TEXT_MAX  1400
#define TIME_MAX_MS     UINT64_C(253402300799999)
#define ADDRESSES_MAX   4
#define SECRET_BYTES    32

static const char alphabet[] =
	"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/* base64url without padding (RFC 4648, section 5). */
static void put_base64url(struct buf *out, struct slice in)
{
	for (size_t i = 0; i < in.n; i += 3) {
		size_t left = in.n - i;
		uint32_t v = (uint32_t)in.p[i] << 16;

		if (left > 1)
			v |= (uint32_t)in.p[i + 1] << 8;
		if (left > 2)
			v |= in.p[i + 2];
		for (size_t k = 0; k < (left > 2 ? 4 : left + 1); k++)
			buf_add_u8(out, (uint8_t)alphabet[v >> (18 - 6 * k) & 63]);
	}
}

static int get_base64url(const char *s, size_t n, struct buf *out)
{
	uint32_t v = 0;
	unsigned bits = 0;

	for (size_t i = 0; i < n; i++) {
		const char *at = s[i] ? strchr(alphabet, s[i]) : NULL;

		if (!at)
			return ERR_MALFORMED;
		v = v << 6 | (uint32_t)(at - alphabet);
		bits += 6;
		if (bits < 8)
			continue;
		bits -= 8;
		if (buf_add_u8(out, (uint8_t)(v >> bits)) < 0)
			return ERR_TOO_LARGE;
		v &= (1u << bits) - 1;
	}
	/* one text for one token: no lone letter, no bits left over that say something */
	return bits == 6 || v ? ERR_MALFORMED : 0;
}

static void need_key(struct cbor_cursor *c, const char *key)
{
	if (!cbor_key(c, key))
		cbor_fail(c, ERR_MALFORMED);
}

/* Printable ASCII without spaces; it goes to a resolver and into files. */
static void read_word(struct cbor_cursor *c, char *to, size_t cap)
{
	struct slice s = cbor_text(c, 1, cap - 1);

	if (c->rc < 0)
		return;
	for (size_t i = 0; i < s.n; i++)
		if (s.p[i] <= ' ' || s.p[i] > '~')
			cbor_fail(c, ERR_MALFORMED);
	memcpy(to, s.p, s.n);
	to[s.n] = 0;
}

static void read_fixed(struct cbor_cursor *c, uint8_t *to, size_t n)
{
	struct slice s = cbor_bytes(c, n, n);

	if (c->rc == 0)
		memcpy(to, s.p, n);
}

/* Keys in the order of their encodings, which puts the shorter ones first. */
static int token_decode(struct slice bytes, struct token *t)
{
	struct cbor_cursor c;

	cbor_init(&c, bytes.p, bytes.n);
	if (cbor_open_map_max(&c, 5) != 5)
		cbor_fail(&c, ERR_MALFORMED);
	need_key(&c, "name");
	read_word(&c, t->name, sizeof(t->name));
	need_key(&c, "secret");
	read_fixed(&c, t->secret, SECRET_BYTES);
	need_key(&c, "expires");
	t->expires_ms = (int64_t)cbor_uint(&c, TIME_MAX_MS);
	need_key(&c, "addresses");
	t->n_addresses = (size_t)cbor_open_array_max(&c, ADDRESSES_MAX);
	if (t->n_addresses == 0)
		cbor_fail(&c, ERR_MALFORMED);
	for (size_t i = 0; i < t->n_addresses && c.rc == 0; i++)
		read_word(&c, t->addresses[i], sizeof(t->addresses[i]));
	cbor_close(&c);
	need_key(&c, "fingerprint");
	read_fixed(&c, t->fingerprint, DIGEST_BYTES);
	cbor_close(&c);
	return cbor_finish(&c);
}

int token_parse(const char *text, struct token *out, struct errmsg *em)
{
	static const char bad[] = "not an enrolment token; was it copied whole?";
	AUTOBUF bytes = BUF_MAX(TOKEN_BYTES_MAX);
	struct token t;
	size_t n = strnlen(text, TOKEN_TEXT_MAX + 1), prefix = strlen(TOKEN_PREFIX);

	if (n > TOKEN_TEXT_MAX)
		return err_set(em, ERR_TOO_LARGE, "too long for an enrolment token");
	if (n < prefix || memcmp(text, TOKEN_PREFIX, prefix) != 0)
		return err_set(
			em, ERR_MALFORMED, "an enrolment token begins with %s", TOKEN_PREFIX);
	if (get_base64url(text + prefix, n - prefix, &bytes) < 0)
		return err_set(em, ERR_MALFORMED, "%s", bad);
	memset(&t, 0, sizeof(t));
	if (token_decode((struct slice){ bytes.data, bytes.len }, &t) < 0)
		return err_set(em, ERR_MALFORMED, "%s", bad);
	*out = t;
	return 0;
}

int token_text(const struct token *t, struct buf *out)
{
	AUTOBUF b = BUF_MAX(TOKEN_BYTES_MAX);

	if (t->n_addresses == 0 || t->n_addresses > ADDRESSES_MAX || t->expires_ms < 0)
		return ERR_USAGE;
	cbor_put_map(&b, 5);
	cbor_put_text(&b, "name");
	cbor_put_text(&b, t->name);
	cbor_put_text(&b, "secret");
	cbor_put_bytes(&b, t->secret, SECRET_BYTES);
	cbor_put_text(&b, "expires");
	cbor_put_uint(&b, (uint64_t)t->expires_ms);
	cbor_put_text(&b, "addresses");
	cbor_put_array(&b, t->n_addresses);
	for (size_t i = 0; i < t->n_addresses; i++)
		cbor_put_text(&b, t->addresses[i]);
	cbor_put_text(&b, "fingerprint");
	cbor_put_bytes(&b, t->fingerprint, DIGEST_BYTES);
	if (buf_check(&b) < 0)
		return buf_check(&b);
	buf_add_str(out, TOKEN_PREFIX);
	put_base64url(out, slice_of(&b));
	return buf_check(out);
}
