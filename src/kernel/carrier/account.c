/*
 * Accounts: what the carriers of a principal have used at this kernel, over all of them and beyond
 * their end, and how much of its disk they take now. Use is charged when a stay ends, in the
 * transaction that ends it, and every half minute while it lasts, so that a crash forgets no more
 * than that. Read as properties below /accounts, and by the verb ACCOUNTS.
 */
#include "kernel/carrier/account.h"

#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "kernel/carrier/content_share.h"
#include "kernel/carrier/resident.h"
#include "kernel/carrier/vms.h"

#define ACCOUNTS_MAX 10000
#define CHARGE_EACH  30000
#define EXPIRE_EACH  60000

/* What is counted: the columns of an account, its rows in the store, properties and answers. */
#define USE_LIST(X)                                                                            \
	/* key, property, unit, text */                                                        \
	X(cpu_ms, "cpu", "ms", "CPU time that this principal's carriers used here.")           \
	X(memory_byte_seconds, "memory", "B.s", "Memory times seconds that they held here.")   \
	X(sent_bytes, "sent", "B", "Bytes that they posted from here.")                        \
	X(received_bytes, "received", "B", "Bytes of folders that were delivered to them.")    \
	X(moved_bytes, "moved", "B",                                                           \
		"Bytes of carriers of theirs that left for other kernels.")                    \
	X(posts, "posts", "", "Folders that they posted from here.")                           \
	X(carriers, "carriers", "",                                                            \
		"Carriers of theirs that were launched here or came here.")                    \
	X(stays, "stays", "", "Stays of theirs that have ended here.")                         \
	X(programs, "programs", "", "Programs of theirs that have ended here.")

enum use {
#define USE_ENUM(key, property, unit, text) USE_##key,
	USE_LIST(USE_ENUM)
#undef USE_ENUM
		USE_COUNT
};

static const struct {
	const char *key, *property, *unit, *doc;
} uses[USE_COUNT] = {
#define USE_ROW(key, property, unit, text) { #key, property, unit, text },
	USE_LIST(USE_ROW)
#undef USE_ROW
};

struct account {
	struct kernel *k;
	char principal[CERT_NAME_MAX + 1];
	int64_t used[USE_COUNT]; /* as charged */
	int64_t disk;            /* bytes in the store now */
	struct rate sent_rate, cpu_share;
	bool dirty;
};

/* A row in the store that counts against somebody's disk. */
struct stored {
	struct account *account;
	int64_t bytes, until_ms; /* wall; 0: until it is taken out */
};

static int64_t account_charge_due; /* monotonic; of this process's one kernel */
static int64_t account_expire_due;

/* Bytes times milliseconds would not fit for a large one that stays for long. */
static int64_t byte_seconds(int64_t bytes, int64_t ms)
{
	return bytes * (ms / 1000) + bytes * (ms % 1000) / 1000;
}

/* What a resident has used since it was last charged. */
static void due_of(struct resident *r, int64_t out[USE_COUNT])
{
	int64_t now = clock_ms();

	memset(out, 0, USE_COUNT * sizeof(*out));
	out[USE_cpu_ms] = (int64_t)(vm_cpu_us(r) / 1000) - r->charged.cpu_ms;
	out[USE_sent_bytes] = r->usage.used[LIMIT_sent] - r->charged.sent;
	out[USE_received_bytes] = r->received - r->charged.received;
	out[USE_moved_bytes] = r->moved - r->charged.moved;
	out[USE_posts] = r->n_posts - r->charged.posts;
	out[USE_memory_byte_seconds] =
		byte_seconds(r->usage.used[LIMIT_memory], now - r->charged.at_ms);
	for (int i = 0; i < USE_COUNT; i++)
		if (out[i] < 0)
			out[i] = 0;
}

static void account_now(struct account *a, int64_t out[USE_COUNT])
{
	struct resident *r;
	size_t it = 0;

	memcpy(out, a->used, sizeof(a->used));
	while ((r = map_next(a->k->residents, &it, NULL, NULL))) {
		int64_t due[USE_COUNT];

		if (strcmp(r->owner->name, a->principal) != 0)
			continue;
		due_of(r, due);
		for (int i = 0; i < USE_COUNT; i++)
			out[i] += due[i];
	}
}

static struct tos_value *read_use(struct account *a, enum use use)
{
	int64_t now[USE_COUNT];

	account_now(a, now);
	return tos_int(now[use]);
}
#define USE_READ(key, property, unit, text)                                                    \
	static struct tos_value *read_##key(void *arg)                                         \
	{                                                                                      \
		return read_use(arg, USE_##key);                                               \
	}
USE_LIST(USE_READ)
#undef USE_READ

/* Once all of it is counted. */
static int64_t disk_of(struct account *a)
{
	if (a->k->count_stored)
		a->k->count_stored(a->k);
	return a->disk;
}

static struct tos_value *read_disk(void *arg)
{
	return tos_int(disk_of(arg));
}

static void account_property(struct account *a, const char *name, const char *unit,
	const char *doc, property_read_fn *read)
{
	struct errmsg em = { "" };
	char path[128];

	snprintf(path, sizeof(path), "/accounts/%s/%s", a->principal, name);
	if (property_add(a->k->properties, path, PROPERTY_INT, unit, doc, 0, 0, true, read, a,
		    &em) < 0)
		log_notice("an account is not shown", KV_STR("path", path),
			KV_STR("reason", em.text));
}

static struct account *account_get(struct kernel *k, const char *principal)
{
	static property_read_fn *const read[USE_COUNT] = {
#define USE_FN(key, property, unit, text) read_##key,
		USE_LIST(USE_FN)
#undef USE_FN
	};
	struct account *a = map_find_str(k->accounts, principal);

	if (a || !principal[0] || map_size(k->accounts) >= ACCOUNTS_MAX)
		return a;
	a = mem_new(struct account);
	a->k = k;
	snprintf(a->principal, sizeof(a->principal), "%s", principal);
	rate_init(&a->sent_rate, (int64_t)k->config.sent_rate_per_principal, clock_ms());
	rate_init(
		&a->cpu_share, (int64_t)k->config.cpu_share_per_principal * 10000, clock_ms());
	map_put_str(k->accounts, principal, a);
	for (int i = 0; i < USE_COUNT; i++)
		account_property(a, uses[i].property, uses[i].unit, uses[i].doc, read[i]);
	account_property(a, "disk", "B",
		"Bytes that their carriers and outcomes take here now.", read_disk);
	return a;
}

void account_known(struct kernel *k, const char *principal)
{
	account_get(k, principal);
}

/* ---- charging */

static void charged_now(struct resident *r)
{
	r->charged.cpu_ms = (int64_t)(vm_cpu_us(r) / 1000);
	r->charged.sent = r->usage.used[LIMIT_sent];
	r->charged.received = r->received;
	r->charged.moved = r->moved;
	r->charged.posts = r->n_posts;
	r->charged.at_ms = clock_ms();
}

void account_program(struct kernel *k, const char *owner, uint64_t cpu_us, uint64_t peak_bytes,
	int64_t ran_ms)
{
	struct account *a = account_get(k, owner);

	if (!a)
		return;
	a->used[USE_cpu_ms] += (int64_t)(cpu_us / 1000);
	a->used[USE_memory_byte_seconds] += byte_seconds((int64_t)peak_bytes, ran_ms);
	a->used[USE_programs]++;
	a->dirty = true;
}

void account_open(struct resident *r, bool comes)
{
	struct account *a = account_get(r->k, r->owner->name);

	rate_init(&r->sent_rate, (int64_t)r->k->config.sent_rate, clock_ms());
	share_open(r);
	charged_now(r);
	r->charged.cpu_ms = r->usage.used[LIMIT_cpu];
	if (a && comes) {
		a->used[USE_carriers]++;
		a->dirty = true;
	}
}

static void charge(struct account *a, struct resident *r)
{
	int64_t due[USE_COUNT];

	due_of(r, due);
	for (int i = 0; i < USE_COUNT; i++) {
		a->dirty |= due[i] > 0;
		a->used[i] += due[i];
	}
	charged_now(r);
}

static void account_put(struct store_txn *t, struct account *a)
{
	struct tos_value *m = tos_map();
	uint8_t *bytes = NULL;
	size_t n;

	for (int i = 0; i < USE_COUNT; i++)
		tos_set(m, uses[i].key, tos_int(a->used[i]));
	if (tos_encode(m, &bytes, &n) == 0)
		store_put(t, T_ACCOUNT, a->principal, strlen(a->principal), bytes, n, 0);
	free(bytes);
	tos_value_free(m);
	a->dirty = false;
}

void account_charge(struct store_txn *t, struct resident *r)
{
	struct account *a = account_get(r->k, r->owner->name);

	if (!a)
		return;
	charge(a, r);
	a->used[USE_stays]++;
	a->dirty = true;
	if (t)
		account_put(t, a);
}

void accounts_save(struct kernel *k)
{
	struct account *a;
	size_t it = 0;

	while ((a = map_next(k->accounts, &it, NULL, NULL)))
		if (a->dirty)
			account_put(kernel_lazy(k), a);
}

/* Those whose stay lasts. */
static void charge_all(struct kernel *k)
{
	struct resident *r;
	struct account *a;
	size_t it = 0;

	while ((r = map_next(k->residents, &it, NULL, NULL)))
		if ((a = account_get(k, r->owner->name)))
			charge(a, r);
	accounts_save(k);
}

/* ---- shares and rates */

struct rate *account_share(struct resident *r)
{
	struct account *a =
		r->k->config.cpu_share_per_principal ? account_get(r->k, r->owner->name) : NULL;

	return a ? &a->cpu_share : NULL;
}

int account_send(struct resident *r, int64_t bytes, struct errmsg *em)
{
	struct account *a = account_get(r->k, r->owner->name);
	int64_t now = kernel_now(r->k);

	if (!rate_spend(&r->sent_rate, bytes, now)) {
		metric_add(r->k->metrics, "limits_exceeded_total", "limit=\"sent_rate\"", 1);
		return err_set(em, ERR_LIMIT, "limit sent_rate: %lld bytes in a second",
			(long long)r->sent_rate.per_s);
	}
	if (a && !rate_spend(&a->sent_rate, bytes, now)) {
		metric_add(r->k->metrics, "limits_exceeded_total",
			"limit=\"sent_rate_per_principal\"", 1);
		return err_set(em, ERR_LIMIT,
			"limit sent_rate_per_principal: %lld bytes in a second by all carriers of %s",
			(long long)a->sent_rate.per_s, a->principal);
	}
	return 0;
}

/* ---- disk */

static void stored_end(struct kernel *k, const void *key, size_t n, struct stored *s)
{
	s->account->disk -= s->bytes;
	map_del(k->stored, key, n);
	free(s);
}

void account_stored(struct kernel *k, enum stored_kind kind, const char *name,
	const char *owner, size_t bytes, int64_t until_ms)
{
	struct account *a = account_get(k, owner);
	char key[NAME_BYTES_MAX + 4] = { (char)kind };
	size_t n = strnlen(name, sizeof(key) - 1);
	struct stored *s;

	memcpy(key + 1, name, n++);
	s = map_find(k->stored, key, n);
	if (s && bytes == 0) {
		stored_end(k, key, n, s);
		return;
	}
	if (!a || bytes == 0)
		return;
	if (!s) {
		s = mem_new(struct stored);
		s->account = a;
		map_put(k->stored, key, n, s);
	}
	/* Code that several launch counts for whom it was stored first. */
	s->account->disk += (int64_t)bytes - s->bytes;
	s->bytes = (int64_t)bytes;
	if (until_ms > s->until_ms || kind != STORED_CODE)
		s->until_ms = until_ms;
}

int account_room(struct kernel *k, const char *owner, int64_t more, struct errmsg *em)
{
	struct account *a = account_get(k, owner);
	int64_t most = (int64_t)k->config.disk_per_principal;

	if (!most || !a || more <= 0 || disk_of(a) + more <= most)
		return 0;
	metric_add(k->metrics, "limits_exceeded_total", "limit=\"disk_per_principal\"", 1);
	return err_set(em, ERR_LIMIT,
		"limit disk_per_principal: %s has %lld bytes of %lld at %s, %lld more do not fit",
		owner, (long long)a->disk, (long long)most, k->config.name, (long long)more);
}

static void expire(struct kernel *k)
{
	struct stored *s;
	const void *key;
	size_t it = 0, n;
	int64_t now = clock_wall_ms();

	while ((s = map_next(k->stored, &it, &key, &n)))
		if (s->until_ms && s->until_ms < now)
			stored_end(k, key, n, s);
}

void accounts_tick(struct kernel *k, int64_t now_ms)
{
	if (now_ms >= account_charge_due) {
		account_charge_due = now_ms + CHARGE_EACH;
		charge_all(k);
	}
	if (now_ms >= account_expire_due) {
		account_expire_due = now_ms + EXPIRE_EACH;
		expire(k);
	}
}

int64_t accounts_disk(struct kernel *k)
{
	struct account *a;
	size_t it = 0;
	int64_t sum = 0;

	while ((a = map_next(k->accounts, &it, NULL, NULL)))
		sum += disk_of(a);
	return sum;
}

/* ---- ACCOUNTS */

static struct tos_value *account_value(struct account *a)
{
	struct tos_value *m = tos_map();
	int64_t now[USE_COUNT];

	account_now(a, now);
	tos_set(m, "principal", tos_text(a->principal));
	tos_set(m, "kernel", tos_text(a->k->config.name));
	for (int i = 0; i < USE_COUNT; i++)
		tos_set(m, uses[i].key, tos_int(now[i]));
	tos_set(m, "disk_bytes", tos_int(disk_of(a)));
	tos_set(m, "content_bytes", tos_int(content_share_bytes(a->principal)));
	tos_set(m, "here", tos_int((int64_t)residents_of(a->k, a->principal)));
	return m;
}

struct tos_value *accounts_value(struct kernel *k, const char *principal)
{
	struct tos_value *rows = tos_array();
	struct account *a;
	size_t it = 0;

	while ((a = map_next(k->accounts, &it, NULL, NULL)))
		if (!principal[0] || strcmp(a->principal, principal) == 0)
			tos_push(rows, account_value(a));
	return rows;
}

static int account_row(void *arg, struct slice key, struct slice body, int64_t expires_ms)
{
	struct kernel *k = arg;
	struct tos_value *m = NULL;
	struct account *a;
	char principal[CERT_NAME_MAX + 1];

	(void)expires_ms;
	slice_copy_text(key, principal, sizeof(principal));
	if (tos_decode(body.p, body.n, 0, &m) == 0 && (a = account_get(k, principal)))
		for (int i = 0; i < USE_COUNT; i++)
			a->used[i] = tos_get_int(m, uses[i].key, 0);
	tos_value_free(m);
	return 0;
}

int accounts_load(struct kernel *k, struct errmsg *em)
{
	k->accounts = map_new();
	k->stored = map_new();
	content_share_each(k, account_known);
	return store_each(k->store, T_ACCOUNT, (struct slice){ NULL, 0 }, account_row, k, em);
}
