/* Claims about the audit chain in the store. */
#include "place.h"

#include <stdio.h>
#include <string.h>

#include "base/mem.h"

static int audit_line(
	void *arg, uint64_t seq, int64_t time_ms, const uint8_t chain[32], struct slice body)
{
	char *out = arg;

	assert_true(time_ms > 0 && chain != NULL);
	sprintf(out + strlen(out), "%d:%.*s ", (int)seq, (int)body.n, (const char *)body.p);
	return 0;
}

static void the_audit_chain_holds_over_openings_and_shows_tampering(void **state)
{
	static const struct {
		const char *sql;
		int bad;
	} tampers[] = { { "UPDATE audit SET body = x'00' WHERE seq = 2", 2 },
		{ "UPDATE audit SET time = time + 1 WHERE seq = 3", 3 },
		{ "DELETE FROM audit WHERE seq = 2", 2 },
		{ "UPDATE audit SET chain = zeroblob(32) WHERE seq = 1", 1 } };
	struct place *p = *state;
	struct store *st = opened(p);
	uint8_t head[2][32];
	char out[200] = "";
	uint64_t bad = 99;

	audit(st, "one");
	audit(st, "two");
	store_audit_head(st, head[0]);
	store_close(st, 1000);
	st = opened(p);
	store_audit_head(st, head[1]);
	assert_memory_equal(head[0], head[1], 32);
	audit(st, "three");
	store_audit_head(st, head[1]);
	assert_memory_not_equal(head[0], head[1], 32);
	assert_int_equal(store_audit_each(st, 0, 100, audit_line, out, NULL), 0);
	assert_string_equal(out, "1:one 2:two 3:three ");
	out[0] = 0;
	assert_int_equal(store_audit_each(st, 1, 1, audit_line, out, NULL), 0);
	assert_string_equal(out, "2:two ");
	assert_int_equal(store_audit_check(st, &bad, NULL), 0);
	assert_true(bad == 0);
	store_close(st, 1000);
	for (size_t i = 0; i < ARRAY_LEN(tampers); i++) {
		sqlite_do(p->path, "CREATE TABLE keep AS SELECT * FROM audit");
		sqlite_do(p->path, tampers[i].sql);
		st = opened(p);
		assert_int_equal(store_audit_check(st, &bad, NULL), 0);
		assert_int_equal(bad, tampers[i].bad);
		struct store_audit_walk walk = { 0 };
		int more;

		while ((more = store_audit_walk(st, &walk, 1, NULL)) > 0)
			;
		assert_int_equal(more, 0);
		assert_int_equal(walk.bad, tampers[i].bad);
		store_close(st, 1000);
		sqlite_do(p->path, "DELETE FROM audit; INSERT INTO audit SELECT * FROM keep; "
				   "DROP TABLE keep");
	}
}

static void a_failed_transaction_leaves_no_audit_record(void **state)
{
	struct place *p = *state;
	struct store *st = opened(p);
	struct store_txn *t = store_begin(st);
	uint8_t head[2][32];
	uint64_t bad;

	audit(st, "one");
	store_audit_head(st, head[0]);
	store_audit(t, "never", 5);
	store_put(t, T_HOME, "", 0, "", 0, 0);
	assert_int_equal(store_commit_wait(t, NULL), ERR_TOO_LARGE);
	store_audit_head(st, head[1]);
	assert_memory_equal(head[0], head[1], 32);
	audit(st, "two");
	assert_int_equal(store_audit_check(st, &bad, NULL), 0);
	assert_true(bad == 0);
	store_close(st, 1000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		IN_PLACE(the_audit_chain_holds_over_openings_and_shows_tampering),
		IN_PLACE(a_failed_transaction_leaves_no_audit_record),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
