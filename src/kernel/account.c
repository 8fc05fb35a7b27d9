/*
 * Accounts: what the carriers of a principal have used at this kernel, over all of them and
 * beyond their end. Charged when a stay ends, in the transaction that ends it; read as
 * properties below /accounts.
 */
#include "kernel/kernel.h"

#include <string.h>

#include "base/clock.h"
#include "base/log.h"

#define ACCOUNTS_MAX 10000

struct account {
	char principal[CERT_NAME_MAX + 1];
	int64_t cpu_ms, sent_bytes, memory_byte_seconds, stays;
	bool save_due;
};

static struct tos_value *account_value(const struct account *a)
{
	struct tos_value *m = tos_map();

	tos_set(m, "cpu_ms", tos_int(a->cpu_ms));
	tos_set(m, "sent_bytes", tos_int(a->sent_bytes));
	tos_set(m, "memory_byte_seconds", tos_int(a->memory_byte_seconds));
	tos_set(m, "stays", tos_int(a->stays));
	return m;
}

static struct tos_value *read_cpu(void *arg)
{
	return tos_int(((struct account *)arg)->cpu_ms);
}

static struct tos_value *read_sent(void *arg)
{
	return tos_int(((struct account *)arg)->sent_bytes);
}

static struct tos_value *read_memory(void *arg)
{
	return tos_int(((struct account *)arg)->memory_byte_seconds);
}

static struct tos_value *read_stays(void *arg)
{
	return tos_int(((struct account *)arg)->stays);
}

static struct account *account_get(struct kernel *k, const char *principal)
{
	static const struct {
		const char *name, *unit, *doc;
		property_read_fn *read;
	} properties[] = {
		{ "cpu", "ms", "CPU time that this principal's carriers used here.", read_cpu },
		{ "sent", "B", "Bytes that they posted from here.", read_sent },
		{ "memory", "B.s", "Memory times seconds that they held here.", read_memory },
		{ "stays", "", "Stays of theirs that have ended here.", read_stays },
	};
	struct account *a = map_find_str(k->accounts, principal);

	if (a || map_size(k->accounts) >= ACCOUNTS_MAX)
		return a;
	a = mem_new(struct account);
	snprintf(a->principal, sizeof(a->principal), "%s", principal);
	map_put_str(k->accounts, principal, a);
	for (size_t i = 0; i < ARRAY_LEN(properties); i++) {
		struct errmsg em = { "" };
		char path[128];

		snprintf(path, sizeof(path), "/accounts/%s/%s", principal, properties[i].name);
		if (property_add(k->properties, path, PROPERTY_INT, properties[i].unit,
			    properties[i].doc, 0, 0, true, properties[i].read, a, &em) < 0)
			log_notice("an account is not shown", KV_STR("path", path),
				KV_STR("reason", em.text));
	}
	return a;
}

void account_open(struct resident *r)
{
	r->charged_cpu_ms = r->usage.used[LIMIT_cpu];
	r->charged_sent = r->usage.used[LIMIT_sent];
	r->charged_at_ms = clock_ms();
}

/* Bytes times milliseconds would not fit for a large one that stays for long. */
static int64_t byte_seconds(int64_t bytes, int64_t ms)
{
	return bytes * (ms / 1000) + bytes * (ms % 1000) / 1000;
}

static void account_put(struct store_txn *t, struct account *a)
{
	struct tos_value *m = account_value(a);
	uint8_t *bytes = NULL;
	size_t n;

	if (tos_encode(m, &bytes, &n) == 0)
		store_put(t, T_ACCOUNT, a->principal, strlen(a->principal), bytes, n, 0);
	a->save_due = false;
	free(bytes);
	tos_value_free(m);
}

void account_charge(struct store_txn *t, struct resident *r)
{
	struct account *a = account_get(r->k, r->owner.name);
	int64_t now = clock_ms(), cpu_ms = (int64_t)(vm_cpu_us(r) / 1000);

	if (!a)
		return;
	a->cpu_ms += cpu_ms - r->charged_cpu_ms;
	a->sent_bytes += r->usage.used[LIMIT_sent] - r->charged_sent;
	a->memory_byte_seconds +=
		byte_seconds(r->usage.used[LIMIT_memory], now - r->charged_at_ms);
	a->stays++;
	r->charged_cpu_ms = cpu_ms;
	r->charged_sent = r->usage.used[LIMIT_sent];
	r->charged_at_ms = now;
	if (t)
		account_put(t, a);
	else
		a->save_due = true;
}

void accounts_save(struct kernel *k)
{
	struct account *a;
	size_t it = 0;

	while ((a = map_next(k->accounts, &it, NULL, NULL)))
		if (a->save_due)
			account_put(kernel_lazy(k), a);
}

static int account_row(void *arg, struct slice key, struct slice body, int64_t expires_ms)
{
	struct kernel *k = arg;
	struct tos_value *m = NULL;
	struct account *a;
	char principal[CERT_NAME_MAX + 1];

	(void)expires_ms;
	slice_copy_text(key, principal, sizeof(principal));
	if (tos_decode(body.p, body.n, 0, &m) == 0 && (a = account_get(k, principal))) {
		a->cpu_ms = tos_get_int(m, "cpu_ms", 0);
		a->sent_bytes = tos_get_int(m, "sent_bytes", 0);
		a->memory_byte_seconds = tos_get_int(m, "memory_byte_seconds", 0);
		a->stays = tos_get_int(m, "stays", 0);
	}
	tos_value_free(m);
	return 0;
}

int accounts_load(struct kernel *k, struct errmsg *em)
{
	k->accounts = map_new();
	return store_each(k->store, T_ACCOUNT, (struct slice){ NULL, 0 }, account_row, k, em);
}
