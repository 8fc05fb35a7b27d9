/* Records of departures: see gone.h. */
#include "kernel/handoff/gone.h"

#include <string.h>

#include "base/fault.h"
#include "base/log.h"
#include "kernel/carrier/resident.h"
#include "kernel/handoff/handoff.h"
#include "kernel/handoff/moves.h"

struct gone_late {
	struct kernel *k;
	uint8_t id[DIGEST_BYTES];
	struct tos_value *record;
};

struct gone_late *gone_put(
	struct store_txn *t, const struct resident *r, uint64_t n, const char *dest)
{
	AUTOBUF key = BUF_INIT;
	struct tos_value *m = tos_map();
	struct gone_late *g = NULL;
	char from[64];

	resident_key(r, &key);
	tos_set(m, "name", tos_text(r->name));
	tos_set(m, "home", tos_text(r->ticket.home));
	came_from(r, from);
	tos_set(m, "from", tos_text(from));
	tos_set(m, "e", incarnation_value(&r->e));
	tos_set(m, "n", tos_int((int64_t)n));
	tos_set(m, "dest", tos_text(dest));
	if (!r->fast_move) {
		g = mem_new(struct gone_late);
		g->k = r->k;
		memcpy(g->id, r->id, DIGEST_BYTES);
		g->record = tos_value_copy(m);
	}
	journal_put(t, T_GONE, &key, m, r->ticket.expires_ms + KEEP_AFTER_MS);
	return g;
}

static void gone_saved(void *arg, int rc, const struct errmsg *em)
{
	struct gone_late *g = arg;

	FAULT_AT(DROPPED);
	if (rc < 0)
		log_error(
			"a departure could not be journaled; the copy stays and will be dropped later",
			KV_ERR(rc, em));
	/* It may have come back and departed again meanwhile. */
	if (map_find(g->k->gone_late, g->id, DIGEST_BYTES) == g)
		map_del(g->k->gone_late, g->id, DIGEST_BYTES);
	tos_value_free(g->record);
	free(g);
}

void gone_commit(struct store_txn *t, struct gone_late *g)
{
	struct kernel *k = g->k;
	int rc;

	map_put(k->gone_late, g->id, DIGEST_BYTES, g);
	rc = store_commit_late(t, gone_saved, g);
	if (rc < 0)
		gone_saved(g, rc, NULL);
	else
		late_soon(k);
}

bool gone_is_late(const struct kernel *k, const uint8_t id[DIGEST_BYTES])
{
	return map_find(k->gone_late, id, DIGEST_BYTES) != NULL;
}

struct tos_value *gone_find(struct kernel *k, const uint8_t id[DIGEST_BYTES])
{
	const struct gone_late *g = map_find(k->gone_late, id, DIGEST_BYTES);
	AUTOBUF body = BUF_MAX(65536);
	struct tos_value *m = NULL;

	if (g)
		return tos_value_copy(g->record);
	if (store_get(k->store, T_GONE, id, DIGEST_BYTES, &body, NULL) == 0)
		tos_decode(body.data, body.len, 0, &m);
	return m;
}
