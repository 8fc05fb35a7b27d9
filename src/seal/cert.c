/*
 * Certificates: issued, parsed strictly, described. doc/protocol.md, "Certificates".
 *
 * A certificate is parsed into plain data (struct cert) and remembered by the digest of its
 * DER, so that a chain seen before costs a look-up. Whether it may be believed is trust.c's
 * business.
 */
#include "seal/ossl.h"

#include <pthread.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"

#define SERIAL_BYTES 16
#define SAN_MAX      (8 + RIGHTS_MAX)
#define TIME_MAX_MS  INT64_C(253402300799000) /* the last second of 9999 */

OSSL_DEFINE(GENERAL_NAMES, GENERAL_NAMES_free)
OSSL_DEFINE(EVP_PKEY_CTX, EVP_PKEY_CTX_free)

static const struct {
	enum role role;
	const char *word;
} roles[] = {
	{ ROLE_ADMIN, "admin" },
	{ ROLE_OWNER, "owner" },
	{ ROLE_AUTHOR, "author" },
	{ ROLE_OFFICER, "officer" },
};
#define ROLES_ALL (ROLE_ADMIN | ROLE_OWNER | ROLE_AUTHOR | ROLE_OFFICER)

/* What each kind of certificate is. A named kind's URI goes on with the name. */
static const struct {
	const char *word, *uri, *constraints, *usage;
	uint32_t usage_bits;
	bool named, authority;
} kinds[] = {
	[CERT_ROOT] = { "root", "tos:root", "critical,CA:TRUE,pathlen:1",
		"critical,digitalSignature,keyCertSign",
		KU_DIGITAL_SIGNATURE | KU_KEY_CERT_SIGN, false, true },
	[CERT_REGISTRAR] = { "registrar", "tos:registrar", "critical,CA:TRUE,pathlen:0",
		"critical,keyCertSign", KU_KEY_CERT_SIGN, false, true },
	[CERT_KERNEL] = { "kernel", "tos:kernel:", "critical,CA:FALSE",
		"critical,digitalSignature", KU_DIGITAL_SIGNATURE, true, false },
	[CERT_PRINCIPAL] = { "principal", "tos:principal:", "critical,CA:FALSE",
		"critical,digitalSignature", KU_DIGITAL_SIGNATURE, true, false },
	[CERT_JOINER] = { "joiner", "tos:joiner", "critical,CA:FALSE",
		"critical,digitalSignature", KU_DIGITAL_SIGNATURE, false, false },
};

unsigned role_parse(const char *word)
{
	for (size_t i = 0; i < ARRAY_LEN(roles); i++)
		if (strcmp(roles[i].word, word) == 0)
			return roles[i].role;
	return 0;
}

const char *role_word(enum role r)
{
	for (size_t i = 0; i < ARRAY_LEN(roles); i++)
		if (roles[i].role == r)
			return roles[i].word;
	return "none";
}

const char *cert_kind_word(enum cert_kind k)
{
	return kinds[k].word;
}

/* ---- names */

static bool is_lower_or_digit(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
}

/* Kernel and principal names stand in URIs and addresses; the others are only shown to people.
 */
/* host0:21213, where two kernels share a name; core/name.h has the grammar. */
static bool port_ok(const char *s, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (s[i] < '0' || s[i] > '9')
			return false;
	return n >= 1 && n <= 5 && s[0] != '0';
}

static bool name_ok(enum cert_kind kind, const char *s, size_t n)
{
	size_t most = kind == CERT_KERNEL ? CERT_NAME_MAX - 1 : CERT_NAME_MAX;
	const char *colon = kind == CERT_KERNEL && n ? memchr(s, ':', n) : NULL;

	if (n == 0 || n > most)
		return false;
	if (colon && !port_ok(colon + 1, n - (size_t)(colon + 1 - s)))
		return false;
	if (colon)
		n = (size_t)(colon - s);
	if (n == 0)
		return false;
	for (size_t i = 0; i < n; i++) {
		char c = s[i];
		bool plain = is_lower_or_digit(c);

		if (kind == CERT_PRINCIPAL)
			plain = plain || (c >= 'A' && c <= 'Z');
		if (kind == CERT_KERNEL && !plain && (i == 0 || (c != '.' && c != '-')))
			return false;
		if (kind == CERT_PRINCIPAL && !plain &&
			(i == 0 || (c != '.' && c != '-' && c != '_' && c != '@')))
			return false;
		if (c < ' ' || c > '~')
			return false;
	}
	return true;
}

/* ---- parsing */

static int bad(struct errmsg *em, const char *why)
{
	ERR_clear_error();
	return err_set(em, ERR_MALFORMED, "bad certificate: %s", why);
}

int cert_subject_parse(X509_NAME *subject, char out[CERT_NAME_MAX + 1], struct errmsg *em)
{
	if (X509_NAME_entry_count(subject) != 1)
		return bad(em, "the subject is not just a common name");
	X509_NAME_ENTRY *entry = X509_NAME_get_entry(subject, 0);
	const ASN1_STRING *text = X509_NAME_ENTRY_get_data(entry);
	int type = ASN1_STRING_type(text), length = ASN1_STRING_length(text);

	if (OBJ_obj2nid(X509_NAME_ENTRY_get_object(entry)) != NID_commonName)
		return bad(em, "the subject is not just a common name");
	if ((type != V_ASN1_UTF8STRING && type != V_ASN1_PRINTABLESTRING) || length < 1 ||
		length > CERT_NAME_MAX)
		return bad(em, "the common name is not a text of 1 to 64 bytes");
	memcpy(out, ASN1_STRING_get0_data(text), (size_t)length);
	out[length] = 0;
	/* a NUL inside is found by name_ok, which looks at all the bytes */
	if (!name_ok(CERT_ROOT, out, (size_t)length))
		return bad(em, "the common name holds strange characters");
	return 0;
}

static int parse_name(X509 *x, struct cert *out, struct errmsg *em)
{
	X509_NAME *subject = X509_get_subject_name(x), *issuer = X509_get_issuer_name(x);
	const unsigned char *der;
	size_t n;
	int rc = cert_subject_parse(subject, out->info.name, em);

	if (rc < 0)
		return rc;
	if (X509_NAME_get0_der(subject, &der, &n) != 1)
		return bad(em, "no subject");
	digest_bytes(der, n, out->subject);
	if (X509_NAME_get0_der(issuer, &der, &n) != 1)
		return bad(em, "no issuer");
	digest_bytes(der, n, out->issuer);
	return 0;
}

static int parse_time(const ASN1_TIME *t, int64_t *out_ms)
{
	struct tm tm;
	time_t s;

	if (ASN1_TIME_to_tm(t, &tm) != 1)
		return ERR_MALFORMED;
	s = timegm(&tm);
	if (s < 0 || s > TIME_MAX_MS / 1000)
		return ERR_MALFORMED;
	*out_ms = (int64_t)s * 1000;
	return 0;
}

static int parse_serial(const ASN1_INTEGER *serial, struct cert_info *out)
{
	int n = ASN1_STRING_length(serial);

	if (ASN1_STRING_type(serial) != V_ASN1_INTEGER || n < 1 || n > (int)sizeof(out->serial))
		return ERR_MALFORMED;
	memcpy(out->serial, ASN1_STRING_get0_data(serial), (size_t)n);
	out->serial_len = (size_t)n;
	return 0;
}

static bool is_ed25519(const X509_ALGOR *algorithm)
{
	const ASN1_OBJECT *object;
	int type;

	X509_ALGOR_get0(&object, &type, NULL, algorithm);
	return OBJ_obj2nid(object) == NID_ED25519 && type == V_ASN1_UNDEF;
}

static int parse_key(X509 *x, struct cert *out, struct errmsg *em)
{
	const ASN1_BIT_STRING *signature;
	const X509_ALGOR *outer;
	EVP_PKEY *pkey = X509_get0_pubkey(x);
	size_t n = PUBLIC_KEY_BYTES;

	X509_get0_signature(&signature, &outer, x);
	if (!is_ed25519(outer) || !is_ed25519(X509_get0_tbs_sigalg(x)))
		return bad(em, "not signed with Ed25519");
	if (ASN1_STRING_length(signature) != SIGNATURE_BYTES || (signature->flags & 7))
		return bad(em, "the signature has the wrong size");
	memcpy(out->signature, ASN1_STRING_get0_data(signature), SIGNATURE_BYTES);
	if (!pkey || EVP_PKEY_get_id(pkey) != EVP_PKEY_ED25519 ||
		EVP_PKEY_get_raw_public_key(pkey, out->info.public_key, &n) != 1 ||
		n != PUBLIC_KEY_BYTES)
		return bad(em, "not an Ed25519 key");
	return 0;
}

/* ---- restrictions: "tos:only:" and the text, its bytes beyond these percent-encoded */

static const char only_uri[] = "tos:only:";

static bool only_plain(char c)
{
	return is_lower_or_digit(c) || (c >= 'A' && c <= 'Z') || (c && strchr("-._~/@*:", c));
}

static int hex_upper(char c)
{
	return c >= '0' && c <= '9' ? c - '0' : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* One more line. Only what put_only() writes is taken: each text has one encoding. */
static int parse_only(const char *s, size_t n, char only[RIGHTS_BYTES])
{
	size_t at = strlen(only), begin = at + (at > 0);

	if (at)
		only[at++] = '\n';
	for (size_t i = 0; i < n; i++) {
		char c = s[i];

		if (c == '%') {
			int high = i + 2 < n ? hex_upper(s[i + 1]) : -1;
			int low = i + 2 < n ? hex_upper(s[i + 2]) : -1;

			if (high < 0 || low < 0)
				return ERR_MALFORMED;
			c = (char)(high << 4 | low);
			if (c < ' ' || c > '~' || only_plain(c))
				return ERR_MALFORMED;
			i += 2;
		} else if (!only_plain(c)) {
			return ERR_MALFORMED;
		}
		if (at + 2 > RIGHTS_BYTES)
			return ERR_MALFORMED;
		only[at++] = c;
	}
	only[at] = 0;
	return at > begin ? 0 : ERR_MALFORMED;
}

static void put_only(const char *only, struct buf *text)
{
	bool begins = true;

	for (; only && *only; only++) {
		if (begins)
			buf_printf(text, ",URI:%s", only_uri);
		begins = *only == '\n';
		if (!begins && only_plain(*only))
			buf_printf(text, "%c", *only);
		else if (!begins)
			buf_printf(text, "%%%02X", (unsigned)(unsigned char)*only);
	}
}

/* The kind or the role that this URI stands for, or a restriction. */
static int parse_uri(const char *uri, size_t n, struct cert_info *out, int *kind)
{
	static const char role_uri[] = "tos:role:";
	size_t role_at = sizeof(role_uri) - 1;

	for (int k = CERT_ROOT; k <= CERT_JOINER; k++) {
		size_t len = strlen(kinds[k].uri),
		       name = kinds[k].named ? strlen(out->name) : 0;

		if (n != len + name || memcmp(uri, kinds[k].uri, len) != 0)
			continue;
		if (memcmp(uri + len, out->name, name) != 0 || *kind >= 0)
			return ERR_MALFORMED;
		*kind = k;
		return 0;
	}
	for (size_t i = 0; i < ARRAY_LEN(roles); i++) {
		size_t len = strlen(roles[i].word);

		if (n != role_at + len || memcmp(uri, role_uri, role_at) != 0 ||
			memcmp(uri + role_at, roles[i].word, len) != 0)
			continue;
		if (out->roles & roles[i].role)
			return ERR_MALFORMED;
		out->roles |= roles[i].role;
		return 0;
	}
	if (n > sizeof(only_uri) - 1 && memcmp(uri, only_uri, sizeof(only_uri) - 1) == 0)
		return parse_only(
			uri + sizeof(only_uri) - 1, n - (sizeof(only_uri) - 1), out->only);
	return ERR_MALFORMED; /* nothing is ignored: it might have been a restriction */
}

int cert_purpose_parse(const GENERAL_NAMES *names, struct cert_info *out, struct errmsg *em)
{
	int kind = -1;

	if (!names || sk_GENERAL_NAME_num(names) > SAN_MAX)
		return bad(em, "it does not say what it is for");
	for (int i = 0; i < sk_GENERAL_NAME_num(names); i++) {
		const GENERAL_NAME *g = sk_GENERAL_NAME_value(names, i);

		if (g->type != GEN_URI ||
			parse_uri((const char *)ASN1_STRING_get0_data(g->d.ia5),
				(size_t)ASN1_STRING_length(g->d.ia5), out, &kind) < 0)
			return bad(em, "a name in it is not one of ours or not its own");
	}
	if (kind < 0)
		return bad(em, "it does not say what it is for");
	out->kind = (enum cert_kind)kind;
	if ((kind == CERT_PRINCIPAL) != (out->roles != 0))
		return bad(em, "principals have roles and nobody else has");
	if (kind != CERT_PRINCIPAL && out->only[0])
		return bad(em, "principals have restrictions and nobody else has");
	if (!name_ok(out->kind, out->name, strlen(out->name)))
		return bad(em, "that name can't be given to anybody");
	return 0;
}

static int parse_purpose(X509 *x, struct cert_info *out, struct errmsg *em)
{
	int critical;
	OSSL(GENERAL_NAMES, GENERAL_NAMES_free)
	names = X509_get_ext_d2i(x, NID_subject_alt_name, &critical, NULL);

	return cert_purpose_parse(names, out, em);
}

/* Basic constraints and key usage must be what this kind has, no more and no less. */
static int parse_usage(X509 *x, const struct cert_info *info, struct errmsg *em)
{
	uint32_t flags = X509_get_extension_flags(x);

	if (flags & (EXFLAG_INVALID | EXFLAG_CRITICAL))
		return bad(em, "an extension is malformed or not understood");
	if (!(flags & EXFLAG_BCONS) || !(flags & EXFLAG_KUSAGE))
		return bad(em, "basic constraints or key usage are missing");
	if (!!(flags & EXFLAG_CA) != kinds[info->kind].authority)
		return bad(em, "its basic constraints contradict what it is for");
	if (X509_get_key_usage(x) != kinds[info->kind].usage_bits)
		return bad(em, "its key usage contradicts what it is for");
	if (info->kind == CERT_REGISTRAR && X509_get_pathlen(x) != 0)
		return bad(em, "a registrar's path length is 0");
	return 0;
}

/* Where the signed part lies: SEQUENCE { SEQUENCE tbs, ... } */
static int parse_layout(struct slice der, struct cert *out)
{
	const uint8_t *p = der.p, *tbs;
	long n;
	int tag, class;

	if (ASN1_get_object(&p, &n, &tag, &class, (long)der.n) != V_ASN1_CONSTRUCTED)
		return ERR_MALFORMED;
	tbs = p;
	if (ASN1_get_object(&p, &n, &tag, &class, n) != V_ASN1_CONSTRUCTED ||
		tag != V_ASN1_SEQUENCE)
		return ERR_MALFORMED;
	out->tbs_at = (size_t)(tbs - der.p);
	out->tbs_len = (size_t)(p - tbs) + (size_t)n;
	return 0;
}

/* OpenSSL's decoder takes BER; ours are DER, so that a certificate has one fingerprint only. */
static bool encodes_to(X509 *x, struct slice der)
{
	unsigned char *again = NULL;
	int n = i2d_X509(x, &again);
	bool same = n > 0 && slice_same(der, (struct slice){ again, (size_t)n });

	OPENSSL_free(again);
	return same;
}

static int parse_fields(X509 *x, struct cert *out, struct errmsg *em)
{
	int rc;

	if (X509_get_version(x) != X509_VERSION_3)
		return bad(em, "not X.509 version 3");
	if ((rc = parse_name(x, out, em)) < 0 || (rc = parse_key(x, out, em)) < 0)
		return rc;
	if (parse_serial(X509_get0_serialNumber(x), &out->info) < 0)
		return bad(em, "its serial number is not positive or longer than 20 bytes");
	if (parse_time(X509_get0_notBefore(x), &out->info.not_before_ms) < 0 ||
		parse_time(X509_get0_notAfter(x), &out->info.not_after_ms) < 0)
		return bad(em, "its validity can't be read");
	if ((rc = parse_purpose(x, &out->info, em)) < 0)
		return rc;
	return parse_usage(x, &out->info, em);
}

static int parse_fresh(struct slice der, struct cert *out, struct errmsg *em)
{
	const unsigned char *p = der.p;
	OSSL(X509, X509_free) x = d2i_X509(NULL, &p, (long)der.n);

	if (!x || p != der.p + der.n || !encodes_to(x, der) || parse_layout(der, out) < 0)
		return bad(em, "not a certificate in DER");
	return parse_fields(x, out, em);
}

/* ---- parsed ones are remembered: what a digest parses to never changes */

#ifdef TOS_HOSTILE
#define PARSED_MAX 2
#else
#define PARSED_MAX 256
#endif
static struct cert parsed[PARSED_MAX];
static bool parsed_used[PARSED_MAX];
static pthread_mutex_t parsed_lock = PTHREAD_MUTEX_INITIALIZER;

static bool parsed_find(const uint8_t digest[DIGEST_BYTES], struct cert *out)
{
	size_t i = digest[0] % PARSED_MAX;
	bool found;

	pthread_mutex_lock(&parsed_lock);
	found = parsed_used[i] && memcmp(parsed[i].info.fingerprint, digest, DIGEST_BYTES) == 0;
	if (found)
		*out = parsed[i];
	pthread_mutex_unlock(&parsed_lock);
	return found;
}

static void parsed_add(const struct cert *c)
{
	size_t i = c->info.fingerprint[0] % PARSED_MAX;

	pthread_mutex_lock(&parsed_lock);
	parsed[i] = *c;
	parsed_used[i] = true;
	pthread_mutex_unlock(&parsed_lock);
}

int cert_parse(struct slice der, struct cert *out, struct errmsg *em)
{
	struct cert c;
	int rc;

	if (der.n == 0 || der.n > CERT_BYTES_MAX)
		return bad(em, "empty or larger than 4096 bytes");
	memset(&c, 0, sizeof(c));
	digest_bytes(der.p, der.n, c.info.fingerprint);
	if (parsed_find(c.info.fingerprint, out))
		return 0;
	ERR_clear_error();
	rc = parse_fresh(der, &c, em);
	if (rc < 0)
		return rc;
	parsed_add(&c);
	*out = c;
	return 0;
}

int cert_info(struct slice der, struct cert_info *out, struct errmsg *em)
{
	struct cert c;
	int rc = cert_parse(der, &c, em);

	if (rc == 0)
		*out = c.info;
	return rc;
}

bool cert_signed_by(struct slice der, const struct cert *c, const struct cert *issuer)
{
	struct slice tbs = { der.p + c->tbs_at, c->tbs_len };

	return memcmp(c->issuer, issuer->subject, DIGEST_BYTES) == 0 &&
	       signature_good(issuer->info.public_key, tbs, c->signature);
}

int cert_in_time(const struct cert_info *c, int64_t now_ms, int64_t skew_ms, struct errmsg *em)
{
	char when[CLOCK_TEXT_BYTES], now[CLOCK_TEXT_BYTES];

	if (now_ms - skew_ms > c->not_after_ms)
		return err_set(em, ERR_EXPIRED,
			"the certificate of %s %s expired at %s (it is %s here)",
			cert_kind_word(c->kind), c->name, clock_text(c->not_after_ms, when),
			clock_text(now_ms, now));
	if (now_ms + skew_ms < c->not_before_ms)
		return err_set(em, ERR_NOT_YET,
			"the certificate of %s %s is not valid before %s (it is %s here; "
			"check the clocks)",
			cert_kind_word(c->kind), c->name, clock_text(c->not_before_ms, when),
			clock_text(now_ms, now));
	return 0;
}

/* ---- issuing */

static int put_extension(X509 *x, X509 *issuer, int nid, const char *value)
{
	X509V3_CTX ctx;

	X509V3_set_ctx(&ctx, issuer, x, NULL, NULL, 0);
	X509_EXTENSION *e = X509V3_EXT_conf_nid(NULL, &ctx, nid, value);
	int ok = e && X509_add_ext(x, e, -1) == 1;

	X509_EXTENSION_free(e);
	return ok ? 0 : -1;
}

int cert_purpose_text(enum cert_kind kind, const char *name, unsigned role_bits,
	const char *only, struct buf *text)
{
	buf_printf(text, "URI:%s%s", kinds[kind].uri, kinds[kind].named ? name : "");
	for (size_t i = 0; i < ARRAY_LEN(roles); i++)
		if (role_bits & roles[i].role)
			buf_printf(text, ",URI:tos:role:%s", roles[i].word);
	put_only(only, text);
	return buf_check(text);
}

static int put_purpose(
	X509 *x, enum cert_kind kind, const char *name, unsigned role_bits, const char *only)
{
	AUTOBUF text = BUF_INIT;

	if (cert_purpose_text(kind, name, role_bits, only, &text) < 0)
		return -1;
	return put_extension(x, NULL, NID_subject_alt_name, buf_cstr(&text));
}

static int put_extensions(X509 *x, X509 *issuer, enum cert_kind kind, const char *name,
	unsigned role_bits, const char *only)
{
	if (put_extension(x, NULL, NID_basic_constraints, kinds[kind].constraints) < 0 ||
		put_extension(x, NULL, NID_key_usage, kinds[kind].usage) < 0 ||
		put_purpose(x, kind, name, role_bits, only) < 0 ||
		put_extension(x, NULL, NID_subject_key_identifier, "hash") < 0)
		return -1;
	return issuer ? put_extension(x, issuer, NID_authority_key_identifier, "keyid") : 0;
}

static int put_serial(X509 *x)
{
	uint8_t serial[SERIAL_BYTES];

	random_bytes(serial, sizeof(serial));
	serial[0] = (uint8_t)((serial[0] & 0x3f) | 0x40); /* positive, and always this long */
	BIGNUM *n = BN_bin2bn(serial, sizeof(serial), NULL);
	int ok = n && BN_to_ASN1_INTEGER(n, X509_get_serialNumber(x)) != NULL;

	BN_free(n);
	return ok ? 0 : -1;
}

static int put_key(X509 *x, const uint8_t public_key[32])
{
	OSSL(EVP_PKEY, EVP_PKEY_free)
	pkey = EVP_PKEY_new_raw_public_key(
		EVP_PKEY_ED25519, NULL, public_key, PUBLIC_KEY_BYTES);

	return pkey && X509_set_pubkey(x, pkey) == 1 ? 0 : -1;
}

static int put_names(X509 *x, X509 *issuer, const char *name)
{
	X509_NAME *subject = X509_get_subject_name(x);

	if (X509_NAME_add_entry_by_NID(subject, NID_commonName, MBSTRING_UTF8,
		    (const unsigned char *)name, -1, -1, 0) != 1)
		return -1;
	if (X509_set_issuer_name(x, issuer ? X509_get_subject_name(issuer) : subject) != 1)
		return -1;
	return 0;
}

static int put_times(X509 *x, int64_t not_before_ms, int64_t not_after_ms)
{
	return ASN1_TIME_set(X509_getm_notBefore(x), (time_t)(not_before_ms / 1000)) &&
			       ASN1_TIME_set(
				       X509_getm_notAfter(x), (time_t)(not_after_ms / 1000))
		       ? 0
		       : -1;
}

/* May this issuer issue that? */
static int issue_check(const struct key *issuer, struct slice issuer_der, enum cert_kind kind,
	const uint8_t subject_public[32], struct errmsg *em)
{
	struct cert by = { 0 };
	bool alone = kind == CERT_ROOT || kind == CERT_JOINER;
	int rc;

	if (!issuer_der.p) {
		if (!alone)
			return err_set(em, ERR_USAGE,
				"a %s signs nobody's certificate but its own",
				kinds[kind].word);
		if (memcmp(issuer->public_key, subject_public, PUBLIC_KEY_BYTES) != 0)
			return err_set(em, ERR_USAGE, "not the key that signs itself");
		return 0;
	}
	rc = cert_parse(issuer_der, &by, em);
	if (rc < 0)
		return err_wrap(em, rc, "the issuer's certificate");
	if (memcmp(by.info.public_key, issuer->public_key, PUBLIC_KEY_BYTES) != 0)
		return err_set(em, ERR_USAGE, "the issuer's key and certificate differ");
	if (alone || !(by.info.kind == CERT_ROOT ||
			     (by.info.kind == CERT_REGISTRAR && kind == CERT_KERNEL)))
		return err_set(em, ERR_DENIED, "a %s cannot issue a %s certificate",
			cert_kind_word(by.info.kind), kinds[kind].word);
	return 0;
}

static int issue_arguments(enum cert_kind kind, const char *name, unsigned role_bits,
	int64_t not_before_ms, int64_t not_after_ms, struct errmsg *em)
{
	if (!name_ok(kind, name, strlen(name)))
		return err_set(em, ERR_NAME, "\"%.80s\" is not a name for a %s", name,
			kinds[kind].word);
	if ((role_bits & ~(unsigned)ROLES_ALL) || (kind == CERT_PRINCIPAL) != (role_bits != 0))
		return err_set(
			em, ERR_USAGE, "a principal has one or more roles, nobody else any");
	if (not_before_ms < 0 || not_after_ms < not_before_ms || not_after_ms > TIME_MAX_MS)
		return err_set(em, ERR_USAGE, "the certificate would end before it begins");
	return 0;
}

static int put_der(X509 *x, struct buf *out, struct errmsg *em)
{
	unsigned char *der = NULL;
	int n = i2d_X509(x, &der), rc;

	if (n <= 0)
		return ossl_fail(em, ERR_NOMEM, "cannot encode the certificate");
	rc = buf_add(out, der, (size_t)n);
	OPENSSL_free(der);
	return rc < 0 ? err_set(em, rc, "no room for the certificate") : 0;
}

/* As a kernel will read them: a mistake would deny everything. */
static int issue_only(
	enum cert_kind kind, const char *name, const char *only, struct errmsg *em)
{
	struct errmsg why = { "" };
	struct rights r;

	if (!only || !*only)
		return 0;
	if (kind != CERT_PRINCIPAL)
		return err_set(em, ERR_USAGE, "only principals have restrictions");
	return rights_parse(only, name, &r, &why) < 0
		       ? err_set(em, ERR_USAGE, "restriction: %s", why.text)
		       : 0;
}

int cert_issue(const struct key *issuer, struct slice issuer_der, enum cert_kind kind,
	const char *name, unsigned role_bits, const uint8_t subject_public[32],
	int64_t not_before_ms, int64_t not_after_ms, struct buf *out, struct errmsg *em)
{
	return cert_issue_only(issuer, issuer_der, kind, name, role_bits, NULL, subject_public,
		not_before_ms, not_after_ms, out, em);
}

int cert_issue_only(const struct key *issuer, struct slice issuer_der, enum cert_kind kind,
	const char *name, unsigned role_bits, const char *only,
	const uint8_t subject_public[32], int64_t not_before_ms, int64_t not_after_ms,
	struct buf *out, struct errmsg *em)
{
	OSSL(X509, X509_free) x = X509_new();
	OSSL(X509, X509_free) by = NULL;
	const unsigned char *p = issuer_der.p;
	int rc = issue_arguments(kind, name, role_bits, not_before_ms, not_after_ms, em);

	ERR_clear_error();
	if (rc == 0)
		rc = issue_only(kind, name, only, em);
	if (rc == 0)
		rc = issue_check(issuer, issuer_der, kind, subject_public, em);
	if (rc < 0)
		return rc;
	if (p)
		by = d2i_X509(NULL, &p, (long)issuer_der.n);
	if (!x || (issuer_der.p && !by) || X509_set_version(x, X509_VERSION_3) != 1 ||
		put_serial(x) < 0 || put_names(x, by, name) < 0 ||
		put_times(x, not_before_ms, not_after_ms) < 0 ||
		put_key(x, subject_public) < 0 ||
		put_extensions(x, by, kind, name, role_bits, only) < 0 ||
		X509_sign(x, issuer->pkey, NULL) <= 0)
		return ossl_fail(em, ERR_NOMEM, "cannot make the certificate");
	return put_der(x, out, em);
}
