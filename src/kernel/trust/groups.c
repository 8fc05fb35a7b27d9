/*
 * Host groups and labels of the domain: an administrator publishes them at the registrar, other
 * kernels ask there when a client asks them, and remember the answer for when the registrar is away.
 * What they mean is the business of who expands a path (lib/groups.c); here they are one value.
 */
#include "kernel/trust/trust.h"

#include <string.h>

#include "base/clock.h"

#define GROUPS_KEY       "groups"
#define GROUPS_BYTES_MAX ((size_t)512 << 10)
#define GROUPS_ASK_MS    3000

/* NULL: none are known. */
static struct tos_value *groups_load(struct kernel *k)
{
	struct buf body = BUF_MAX(GROUPS_BYTES_MAX);
	struct tos_value *v = NULL;

	if (store_get(k->store, T_META, GROUPS_KEY, strlen(GROUPS_KEY), &body, NULL) == 0)
		tos_decode(body.data, body.len, 0, &v);
	buf_fini(&body);
	return v;
}

static int groups_put(struct store_txn *t, const struct tos_value *v, struct errmsg *em)
{
	uint8_t *bytes = NULL;
	size_t n = 0;
	int rc = tos_encode(v, &bytes, &n);

	if (rc == 0 && n > GROUPS_BYTES_MAX)
		rc = err_set(em, ERR_TOO_LARGE, "groups and labels take more than %zu bytes",
			GROUPS_BYTES_MAX);
	if (rc == 0)
		store_put(t, T_META, GROUPS_KEY, strlen(GROUPS_KEY), bytes, n, 0);
	free(bytes);
	return rc;
}

static bool is_registrar(const struct kernel *k)
{
	return !k->config.registrar[0] || strcmp(k->config.registrar, k->config.name) == 0;
}

/* ---- publishing */

struct publishing {
	struct request *rq;
	struct tos_value *answer;
};

static void groups_saved(void *arg, int rc, const struct errmsg *em)
{
	AUTOFREE struct publishing *p = arg;

	if (rc < 0) {
		tos_value_free(p->answer);
		request_fail(p->rq, rc, "%s", err_show(rc, em));
	} else
		request_ok(p->rq, p->answer);
}

static int groups_shape(const struct tos_value *args, struct errmsg *em)
{
	if (tos_type(args) != TOS_MAP || tos_len(args) != 2 ||
		tos_type(tos_get(args, "groups")) != TOS_MAP ||
		tos_type(tos_get(args, "labels")) != TOS_MAP)
		return err_set(em, ERR_MALFORMED, "the act groups has groups and labels");
	return 0;
}

void groups_act(
	struct kernel *k, struct request *rq, const char *by, const struct tos_value *args)
{
	struct tos_value *v = tos_value_copy(args), *m;
	struct errmsg em = { "" };
	struct publishing *p;
	struct store_txn *t;
	int rc = groups_shape(args, &em);

	if (rc == 0 && !is_registrar(k))
		rc = err_set(&em, ERR_UNSUPPORTED, "%s is not the registrar; that is %s",
			k->config.name, k->config.registrar);
	if (rc < 0) {
		tos_value_free(v);
		request_fail(rq, rc, "%s", err_show(rc, &em));
		return;
	}
	tos_set(v, "from", tos_text(k->config.name));
	tos_set(v, "by", tos_text(by));
	tos_set(v, "wall", tos_int(clock_wall_ms()));
	m = tos_map();
	tos_set(m, "groups", tos_int((int64_t)tos_len(tos_get(v, "groups"))));
	tos_set(m, "hosts", tos_int((int64_t)tos_len(tos_get(v, "labels"))));
	t = store_begin(k->store);
	rc = groups_put(t, v, &em);
	tos_value_free(v);
	if (rc < 0) {
		store_cancel(t);
		tos_value_free(m);
		request_fail(rq, rc, "%s", err_show(rc, &em));
		return;
	}
	p = mem_new(struct publishing);
	p->rq = rq;
	p->answer = tos_value_copy(m);
	tos_set(m, "by", tos_text(by));
	audit_event(k, t, "groups-published", m);
	rc = store_commit(t, groups_saved, p);
	if (rc < 0)
		groups_saved(p, rc, &em);
}

/* ---- asking */

static void groups_answer(struct request *rq, struct tos_value *v)
{
	if (!v) {
		v = tos_map();
		tos_set(v, "from", tos_text(""));
	}
	request_ok(rq, v);
}

/* Of the registrar: for kernels. */
void groups_give(struct kernel *k, struct request *rq)
{
	if (is_registrar(k))
		groups_answer(rq, groups_load(k));
	else
		request_fail(rq, ERR_UNSUPPORTED, "%s is not the registrar", k->config.name);
}

static void on_groups(
	struct kernel *k, void *arg, int rc, const char *text, const struct tos_value *elements)
{
	struct request *rq = arg;
	const struct tos_value *v = tos_at(elements, 0);
	struct tos_value *old;

	(void)text;
	if (rc == 0 && tos_type(v) == TOS_MAP) {
		old = groups_load(k);
		if (tos_get_text(v, "from", "")[0] && !tos_equal(old, v))
			groups_put(kernel_lazy(k), v, NULL);
		tos_value_free(old);
		groups_answer(rq, tos_value_copy(v));
		return;
	}
	/* The registrar is away, or older than groups are: what it said last. */
	groups_answer(rq, groups_load(k));
}

void groups_verb(struct kernel *k, struct request *rq)
{
	if (control_may_read(k, rq) < 0)
		return;
	if (is_registrar(k))
		groups_answer(rq, groups_load(k));
	else
		kernel_call(k, k->config.registrar, "Kernel", "GROUPS", NULL, GROUPS_ASK_MS,
			on_groups, rq);
}
