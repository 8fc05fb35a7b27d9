/*
 * What a home knows of one carrier, in memory and as a row of the store. When it is written is in
 * saving.c, when they are read after a start in loading.c; home.c says what changes it.
 */
#include "kernel/home/records.h"

#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "kernel/carrier/account.h"
#include "kernel/carrier/family.h"
#include "kernel/carrier/resident.h"
#include "kernel/handoff/moves.h"
#include "kernel/home/home.h"
#include "kernel/home/waiters.h"
#include "wire/pick.h"

struct home_record *home_new(struct kernel *k, const char *name)
{
	struct home_record *h = mem_new(struct home_record);

	slice_copy_text(slice_text(name), h->name, sizeof(h->name));
	list_init(&h->waiters);
	list_init(&h->ticked);
	h->launched_ms = h->since_ms = clock_wall_ms();
	h->k = k;
	return h;
}

void home_wake(struct home_record *h)
{
	if (!h->over)
		return;
	h->over = false;
	list_del(&h->ticked);
	list_add(&h->k->homes_open, &h->ticked);
}

void home_add(struct kernel *k, struct home_record *h)
{
	map_put_str(k->homes, h->name, h);
	list_del(&h->ticked);
	list_add(&k->homes_open, &h->ticked);
}

void home_free(struct home_record *h)
{
	if (!h)
		return;
	list_del(&h->ticked);
	waiters_fail(h, ERR_CLOSED, "the kernel stops");
	blob_free(&h->ticket_cose);
	tos_value_free(h->outcome);
	tos_value_free(h->end_outcome);
	tos_value_free(h->fault);
	for (size_t i = 0; i < ARRAY_LEN(h->places); i++)
		free(h->places[i]);
	free(h);
}

void home_place(struct home_record *h, const char *kernel, uint64_t came)
{
	char **oldest = &h->places[h->n_places % ARRAY_LEN(h->places)];

	if (strcmp(h->kernel, kernel) != 0) {
		free(*oldest);
		*oldest = mem_dup(kernel, strnlen(kernel, sizeof(h->kernel) - 1));
		h->n_places++;
	}
	slice_copy_text(slice_text(kernel), h->kernel, sizeof(h->kernel));
	h->came = came;
}

static struct tos_value *budgets_value(const int64_t v[LIMIT_COUNT])
{
	struct tos_value *m = tos_map();

	for (size_t i = 0; i < SPLIT_COUNT; i++)
		tos_set(m, limit_names[split_limits[i]], tos_int(v[split_limits[i]]));
	return m;
}

static void put_family(const struct home_record *h, struct tos_value *m)
{
	tos_set(m, "budget", budgets_value(h->budget));
	if (h->born[0]) {
		tos_set(m, "born", tos_text(h->born));
		tos_set(m, "birth", tos_bytes(h->birth, DIGEST_BYTES));
	}
	if (h->n_registered) {
		tos_set(m, "gave", budgets_value(h->gave));
		tos_set(m, "registered", tos_int((int64_t)h->n_registered));
	}
	if (h->family_wanted[0])
		tos_set(m, "family_wanted", tos_text(h->family_wanted));
}

static void budgets_pick(struct slice m, int64_t v[LIMIT_COUNT])
{
	const char *names[SPLIT_COUNT];
	struct slice item[SPLIT_COUNT];

	for (size_t i = 0; i < SPLIT_COUNT; i++) {
		names[i] = limit_names[split_limits[i]];
		v[split_limits[i]] = 0;
	}
	if (m.n == 0 || pick(m, names, SPLIT_COUNT, item) < 0)
		return;
	for (size_t i = 0; i < SPLIT_COUNT; i++)
		v[split_limits[i]] = pick_int(item[i], 0);
}

/* A row of a version that knew no clones. */
static void budget_of_ticket(struct home_record *h)
{
	struct ticket t = { .path = NULL };
	struct cose cose;

	if (cose_decode(blob_slice(&h->ticket_cose), &cose, NULL) == 0 &&
		ticket_decode(cose.payload, &t, NULL) == 0)
		memcpy(h->budget, t.limits, sizeof(h->budget));
	ticket_fini(&t);
}

/* What a row has, in the order in which it has them: see pick(). */
/* clang-format off */
#define HOME_FIELDS(X) \
	X(e) X(n) X(id) X(born) X(came) X(from) X(gave) X(name) X(birth) X(ended) \
	X(fault) X(owner) X(since) X(state) X(budget) X(kernel) X(result) X(ticket) \
	X(wanted) X(expires) X(in_doubt) X(launched) X(registered) X(command_due) \
	X(family_wanted)
/* clang-format on */

enum home_field {
#define FIELD(name) F_##name,
	HOME_FIELDS(FIELD)
#undef FIELD
		HOME_FIELD_COUNT
};

static const char *const home_fields[] = {
#define FIELD(name) #name,
	HOME_FIELDS(FIELD)
#undef FIELD
};

static void read_family(const struct slice f[HOME_FIELD_COUNT], struct home_record *h)
{
	struct slice birth = pick_bytes(f[F_birth]);

	if (birth.n == DIGEST_BYTES)
		memcpy(h->birth, birth.p, birth.n);
	pick_text(f[F_born], h->born, sizeof(h->born));
	pick_text(f[F_family_wanted], h->family_wanted, sizeof(h->family_wanted));
	budgets_pick(f[F_budget], h->budget);
	budgets_pick(f[F_gave], h->gave);
	h->n_registered = (uint64_t)pick_int(f[F_registered], 0);
	if (f[F_budget].n == 0)
		budget_of_ticket(h);
}

void home_put(struct store_txn *t, const struct home_record *h)
{
	struct tos_value *m = tos_map(), *outcome = h->closing ? h->end_outcome : h->outcome;
	uint8_t *bytes = NULL;
	size_t n;

	tos_set(m, "name", tos_text(h->name));
	tos_set(m, "id", tos_bytes(h->id, DIGEST_BYTES));
	tos_set(m, "owner", tos_text(h->owner));
	tos_set(m, "state", tos_text(shell_state_word(h->closing ? h->end_state : h->state)));
	tos_set(m, "kernel", tos_text(h->kernel));
	tos_set(m, "from", tos_text(h->from));
	tos_set(m, "e", incarnation_value(h->raising ? &h->next_e : &h->e));
	tos_set(m, "n", tos_int((int64_t)h->n));
	tos_set(m, "came", tos_int((int64_t)h->came));
	/* What home_outcome() will say, once this is durable. */
	tos_set(m, "in_doubt", tos_bool(h->in_doubt && !h->closing));
	tos_set(m, "wanted", tos_text(h->wanted));
	tos_set(m, "command_due", tos_bool(h->command_due && !h->closing));
	tos_set(m, "launched", tos_int(h->launched_ms));
	tos_set(m, "since", tos_int(h->closing ? h->end_ms : h->since_ms));
	tos_set(m, "ended", tos_int(h->closing ? h->end_ms : h->ended_ms));
	tos_set(m, "expires", tos_int(h->expires_ms));
	tos_set(m, "ticket", tos_bytes(h->ticket_cose.p, h->ticket_cose.n));
	put_family(h, m);
	if (outcome)
		tos_set(m, "result", tos_value_copy(outcome));
	if (h->fault && !h->closing)
		tos_set(m, "fault", tos_value_copy(h->fault));
	if (tos_encode(m, &bytes, &n) == 0) {
		store_put(t, T_HOME, h->name, strlen(h->name), bytes, n,
			h->expires_ms + KEEP_AFTER_MS);
		account_stored(
			h->k, STORED_HOME, h->name, h->owner, n, h->expires_ms + KEEP_AFTER_MS);
	}
	free(bytes);
	tos_value_free(m);
}

/* No tree is made of what is not a tree here either: there may be thousands of them. */
int home_read(struct kernel *k, struct slice body, struct home_record **out)
{
	struct slice f[HOME_FIELD_COUNT], bytes;
	const struct resident *r;
	struct home_record *h;
	char text[NAME_BYTES_MAX + 1];
	int state, rc = pick(body, home_fields, HOME_FIELD_COUNT, f);

	if (rc < 0)
		return rc;
	pick_text(f[F_name], text, sizeof(text));
	h = home_new(k, text);
	bytes = pick_bytes(f[F_id]);
	if (bytes.n == DIGEST_BYTES)
		memcpy(h->id, bytes.p, bytes.n);
	pick_text(f[F_owner], h->owner, sizeof(h->owner));
	pick_text(f[F_kernel], text, sizeof(text));
	home_place(h, text, (uint64_t)pick_int(f[F_came], 0));
	pick_text(f[F_from], h->from, sizeof(h->from));
	pick_text(f[F_wanted], h->wanted, sizeof(h->wanted));
	pick_text(f[F_state], text, sizeof(text));
	state = shell_state_parse(text);
	h->state = state < 0 ? SHELL_LOST : (enum shell_state)state;
	incarnation_pick(f[F_e], &h->e);
	h->n = (uint64_t)pick_int(f[F_n], 0);
	h->in_doubt = !shell_ended(h->state) && pick_bool(f[F_in_doubt], false);
	h->command_due = pick_bool(f[F_command_due], false);
	h->launched_ms = pick_int(f[F_launched], 0);
	h->since_ms = pick_int(f[F_since], 0);
	h->ended_ms = pick_int(f[F_ended], 0);
	h->expires_ms = pick_int(f[F_expires], 0);
	bytes = pick_bytes(f[F_ticket]);
	r = k->residents ? map_find_str(k->residents, h->name) : NULL;
	if (bytes.n)
		blob_set_like(&h->ticket_cose, bytes, r ? &r->ticket_cose : NULL);
	read_family(f, h);
	h->outcome = pick_value(f[F_result]);
	h->fault = pick_value(f[F_fault]);
	if (shell_ended(h->state)) /* what is left of it is here */
		home_place(h, k->config.name, 0);
	account_stored(
		k, STORED_HOME, h->name, h->owner, body.n, h->expires_ms + KEEP_AFTER_MS);
	*out = h;
	return 0;
}

/* The record, from memory or, when it ended long ago or has not been read since the start, from the
 * store (then it stays in memory, or does so a while). */
struct home_record *home_find(struct kernel *k, const char *name)
{
	struct home_record *h = map_find_str(k->homes, name);
	AUTOBUF body = BUF_MAX((size_t)512 << 20);

	if (h || !name[0])
		return h;
	if (store_get(k->store, T_HOME, name, strlen(name), &body, NULL) < 0 ||
		home_read(k, slice_buf(&body), &h) < 0)
		return NULL;
	home_add(k, h);
	return h;
}

struct tos_value *home_row(const struct home_record *h)
{
	struct tos_value *m = tos_map();
	const char *at = strchr(h->name, '#');

	tos_set(m, "name", tos_text(h->name));
	tos_set(m, "state", tos_text(shell_state_word(h->state)));
	tos_set(m, "in_doubt", tos_bool(h->in_doubt));
	tos_set(m, "kernel", tos_text(h->kernel));
	tos_set(m, "home", at ? tos_text_n(h->name, (size_t)(at - h->name)) : tos_text(""));
	tos_set(m, "owner", tos_text(h->owner));
	tos_set(m, "hop", tos_int((int64_t)h->n));
	tos_set(m, "since_ms", tos_int(h->since_ms));
	tos_set(m, "trust", tos_text(TRUST_USER));
	family_row(h->name, m);
	return m;
}
