/* A hash map keyed with a random seed: see map.h. */
#include "base/map.h"

#include <string.h>
#include <sys/random.h>

#include "base/mem.h"

struct entry {
	void *key;
	size_t len;
	void *value; /* NULL: deleted */
	uint64_t hash;
};

struct map {
	struct entry *entries; /* in insertion order */
	size_t n, cap, live;
	uint32_t *slots; /* index + 1 into entries, 0 empty */
	size_t n_slots;  /* a power of two */
	size_t last;     /* the entry found last: who asks for it again needs no hash */
};

static uint64_t rotl(uint64_t x, int b)
{
	return (x << b) | (x >> (64 - b));
}

static void sip_round(uint64_t v[4])
{
	v[0] += v[1];
	v[1] = rotl(v[1], 13) ^ v[0];
	v[0] = rotl(v[0], 32);
	v[2] += v[3];
	v[3] = rotl(v[3], 16) ^ v[2];
	v[0] += v[3];
	v[3] = rotl(v[3], 21) ^ v[0];
	v[2] += v[1];
	v[1] = rotl(v[1], 17) ^ v[2];
	v[2] = rotl(v[2], 32);
}

/* SipHash-1-3 (Aumasson, Bernstein: "SipHash: a fast short-input PRF", 2012). */
uint64_t hash_bytes(const void *p, size_t len)
{
	static uint64_t seed[2];
	const uint8_t *s = p;
	uint64_t v[4], m, tail = (uint64_t)len << 56;

	while (!seed[0])
		if (getrandom(seed, sizeof(seed), 0) != (ssize_t)sizeof(seed))
			seed[0] = 0;
	v[0] = seed[0] ^ 0x736f6d6570736575u;
	v[1] = seed[1] ^ 0x646f72616e646f6du;
	v[2] = seed[0] ^ 0x6c7967656e657261u;
	v[3] = seed[1] ^ 0x7465646279746573u;
	for (; len >= 8; len -= 8, s += 8) {
		memcpy(&m, s, 8);
		v[3] ^= m;
		sip_round(v);
		v[0] ^= m;
	}
	for (size_t i = 0; i < len; i++)
		tail |= (uint64_t)s[i] << (8 * i);
	v[3] ^= tail;
	sip_round(v);
	v[0] ^= tail;
	v[2] ^= 0xff;
	for (int i = 0; i < 3; i++)
		sip_round(v);
	return v[0] ^ v[1] ^ v[2] ^ v[3];
}

struct map *map_new(void)
{
	return mem_new(struct map);
}

void map_free(struct map *m)
{
	if (!m)
		return;
	for (size_t i = 0; i < m->n; i++)
		free(m->entries[i].key);
	free(m->entries);
	free(m->slots);
	free(m);
}

/* The entry, or NULL. Deleted entries keep their slot until the next rebuild. */
static struct entry *lookup(const struct map *m, const void *key, size_t len, uint64_t hash)
{
	if (!m->n_slots)
		return NULL;
	for (size_t i = hash & (m->n_slots - 1);; i = (i + 1) & (m->n_slots - 1)) {
		if (!m->slots[i])
			return NULL;
		struct entry *e = &m->entries[m->slots[i] - 1];

		if (e->value && e->hash == hash && e->len == len &&
			(len == 0 || memcmp(e->key, key, len) == 0))
			return e;
	}
}

static struct entry *found_last(const struct map *m, const void *key, size_t len)
{
	struct entry *e = m->last < m->n ? &m->entries[m->last] : NULL;

	return e && e->value && e->len == len && memcmp(e->key, key, len) == 0 ? e : NULL;
}

static struct entry *find(struct map *m, const void *key, size_t len)
{
	struct entry *e = len ? found_last(m, key, len) : NULL;

	if (!e) {
		e = lookup(m, key, len, hash_bytes(key, len));
		if (e)
			m->last = (size_t)(e - m->entries);
	}
	return e;
}

static void slot_in(struct map *m, size_t index)
{
	size_t i = m->entries[index].hash & (m->n_slots - 1);

	while (m->slots[i])
		i = (i + 1) & (m->n_slots - 1);
	m->slots[i] = (uint32_t)index + 1;
}

static void rebuild(struct map *m)
{
	size_t n = 0;
	size_t want = 16;

	while (want < (m->live + 1) * 2)
		want *= 2;
	for (size_t i = 0; i < m->n; i++) {
		if (!m->entries[i].value)
			free(m->entries[i].key);
		else
			m->entries[n++] = m->entries[i];
	}
	m->n = n;
	m->cap = want;
	m->entries = realloc(m->entries, want * sizeof(*m->entries));
	free(m->slots);
	m->n_slots = want * 2;
	m->slots = mem_zero(m->n_slots * sizeof(*m->slots));
	must(m->entries);
	for (size_t i = 0; i < m->n; i++)
		slot_in(m, i);
}

void *map_find(const struct map *m, const void *key, size_t len)
{
	/* What was found last is no part of what the map holds. */
	struct entry *e = find((struct map *)(uintptr_t)m, key, len);

	return e ? e->value : NULL;
}

void *map_put(struct map *m, const void *key, size_t len, void *value)
{
	uint64_t hash = hash_bytes(key, len);
	struct entry *e = lookup(m, key, len, hash);

	must(value);
	if (e) {
		void *old = e->value;

		e->value = value;
		return old;
	}
	if (m->n == m->cap)
		rebuild(m);
	m->entries[m->n] = (struct entry){ mem_dup(key, len), len, value, hash };
	slot_in(m, m->n++);
	m->live++;
	return NULL;
}

void *map_del(struct map *m, const void *key, size_t len)
{
	struct entry *e = find(m, key, len);
	void *old = NULL;

	if (e) {
		old = e->value;
		e->value = NULL;
		m->live--;
	}
	return old;
}

size_t map_size(const struct map *m)
{
	return m->live;
}

void *map_next(const struct map *m, size_t *it, const void **key, size_t *len)
{
	while (*it < m->n) {
		const struct entry *e = &m->entries[(*it)++];

		if (!e->value)
			continue;
		if (key)
			*key = e->key;
		if (len)
			*len = e->len;
		return e->value;
	}
	return NULL;
}

void *map_find_str(const struct map *m, const char *key)
{
	return map_find(m, key, strlen(key));
}

void *map_put_str(struct map *m, const char *key, void *value)
{
	return map_put(m, key, strlen(key), value);
}

void *map_del_str(struct map *m, const char *key)
{
	return map_del(m, key, strlen(key));
}
