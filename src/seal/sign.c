/*
 * Ed25519, and the memory of signatures that were good.
 *
 * The memory is a fixed table of digests: what is in there was checked once and can't become
 * wrong, since key, signature and message are all in the digest. Only good signatures get in,
 * so a stranger cannot fill it. Guarded by a lock, because verification may run off the loop.
 */
#include "seal/ossl.h"

#include <pthread.h>
#include <string.h>

#ifdef TOS_HOSTILE
#define MEMORY_SETS 2
#else
#define MEMORY_SETS 1024
#endif
#define MEMORY_WAYS 4

static struct {
	uint8_t known[MEMORY_WAYS][DIGEST_BYTES];
	uint8_t used, next;
} memory[MEMORY_SETS];
static pthread_mutex_t memory_lock = PTHREAD_MUTEX_INITIALIZER;

static size_t memory_set(const uint8_t digest[DIGEST_BYTES])
{
	return ((size_t)digest[0] << 8 | digest[1]) % MEMORY_SETS;
}

static bool memory_has(const uint8_t digest[DIGEST_BYTES])
{
	size_t set = memory_set(digest);
	bool found = false;

	pthread_mutex_lock(&memory_lock);
	for (size_t i = 0; i < memory[set].used && !found; i++)
		found = memcmp(memory[set].known[i], digest, DIGEST_BYTES) == 0;
	pthread_mutex_unlock(&memory_lock);
	return found;
}

static void memory_add(const uint8_t digest[DIGEST_BYTES])
{
	size_t set = memory_set(digest);

	pthread_mutex_lock(&memory_lock);
	memcpy(memory[set].known[memory[set].next], digest, DIGEST_BYTES);
	memory[set].next = (uint8_t)((memory[set].next + 1) % MEMORY_WAYS);
	if (memory[set].used < MEMORY_WAYS)
		memory[set].used++;
	pthread_mutex_unlock(&memory_lock);
}

static bool signature_digest(const uint8_t *public_key, struct slice message,
	const uint8_t *signature, uint8_t out[DIGEST_BYTES])
{
	OSSL(EVP_MD_CTX, EVP_MD_CTX_free) ctx = EVP_MD_CTX_new();

	/* two fixed lengths in front, so no two different triples give the same bytes */
	return ctx && EVP_DigestInit_ex(ctx, EVP_sha256(), NULL) == 1 &&
	       EVP_DigestUpdate(ctx, public_key, PUBLIC_KEY_BYTES) == 1 &&
	       EVP_DigestUpdate(ctx, signature, SIGNATURE_BYTES) == 1 &&
	       EVP_DigestUpdate(ctx, message.p, message.n) == 1 &&
	       EVP_DigestFinal_ex(ctx, out, NULL) == 1;
}

/* The keys of the last signers, as OpenSSL wants them: mostly a few kernels and principals. */
#define KEYS_MAX 16
static struct {
	uint8_t bytes[PUBLIC_KEY_BYTES];
	EVP_PKEY *pkey;
} keys[KEYS_MAX];

static EVP_PKEY *key_of_bytes(const uint8_t *public_key)
{
	size_t i = public_key[0] % KEYS_MAX;
	EVP_PKEY *pkey = NULL;

	pthread_mutex_lock(&memory_lock);
	if (keys[i].pkey && memcmp(keys[i].bytes, public_key, PUBLIC_KEY_BYTES) == 0 &&
		EVP_PKEY_up_ref(keys[i].pkey) == 1)
		pkey = keys[i].pkey;
	pthread_mutex_unlock(&memory_lock);
	if (pkey)
		return pkey;
	pkey = EVP_PKEY_new_raw_public_key(
		EVP_PKEY_ED25519, NULL, public_key, PUBLIC_KEY_BYTES);
	if (!pkey || EVP_PKEY_up_ref(pkey) != 1)
		return pkey;
	pthread_mutex_lock(&memory_lock);
	EVP_PKEY_free(keys[i].pkey);
	keys[i].pkey = pkey;
	memcpy(keys[i].bytes, public_key, PUBLIC_KEY_BYTES);
	pthread_mutex_unlock(&memory_lock);
	return pkey;
}

static bool signature_verify(
	const uint8_t *public_key, struct slice message, const uint8_t *signature)
{
	OSSL(EVP_MD_CTX, EVP_MD_CTX_free) ctx = EVP_MD_CTX_new();
	OSSL(EVP_PKEY, EVP_PKEY_free) pkey = key_of_bytes(public_key);

	bool good =
		ctx && pkey && EVP_DigestVerifyInit(ctx, NULL, NULL, NULL, pkey) == 1 &&
		EVP_DigestVerify(ctx, signature, SIGNATURE_BYTES, message.p, message.n) == 1;

	ERR_clear_error();
	return good;
}

bool signature_good(const uint8_t public_key[PUBLIC_KEY_BYTES], struct slice message,
	const uint8_t signature[SIGNATURE_BYTES])
{
	uint8_t digest[DIGEST_BYTES];

	if (!signature_digest(public_key, message, signature, digest))
		return false;
	if (memory_has(digest))
		return true;
	if (!signature_verify(public_key, message, signature))
		return false;
	memory_add(digest);
	return true;
}

int signature_make(const struct key *k, struct slice message, uint8_t out[SIGNATURE_BYTES])
{
	OSSL(EVP_MD_CTX, EVP_MD_CTX_free) ctx = EVP_MD_CTX_new();
	uint8_t digest[DIGEST_BYTES];
	size_t n = SIGNATURE_BYTES;

	if (!ctx || EVP_DigestSignInit(ctx, NULL, NULL, NULL, k->pkey) != 1 ||
		EVP_DigestSign(ctx, out, &n, message.p, message.n) != 1 ||
		n != SIGNATURE_BYTES) {
		ERR_clear_error();
		return ERR_NOMEM;
	}
	/* What we signed comes back, in the chains of carriers above all. */
	if (signature_digest(k->public_key, message, out, digest))
		memory_add(digest);
	return 0;
}
