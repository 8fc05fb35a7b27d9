/*
 * Who joins a transaction: another kernel's Commit asks for a carrier there (ENTER), and the carrier's
 * home has to say that it is there, and show by the owner's ticket whose it is.
 */
#include "coordinator.h"

#define VET_MS 3000 /* a home may hear of an arrival a little later than we of the carrier */

/* ---- finding, making, freeing */

void entry_free(struct entry *e)
{
	struct entry **at = &e->c->entries;

	while (*at != e)
		at = &(*at)->next;
	*at = e->next;
	free(e);
}

struct entry *entry_new(struct commit *c, const struct asker *a)
{
	const char *carrier = tos_get_text(a->args, "carrier", "");
	struct entry *e = calloc(1, sizeof(*e));
	size_t n = strcspn(carrier, "#");

	if (!e || !carrier[n] || n == 0 || n >= sizeof(e->home) ||
		!copy(e->carrier, sizeof(e->carrier), carrier) ||
		!copy(e->tx, sizeof(e->tx), tos_get_text(a->args, "tx", ""))) {
		free(e);
		return NULL;
	}
	memcpy(e->home, carrier, n);
	e->c = c;
	copy(e->kernel, sizeof(e->kernel), a->from);
	era_read(tos_get(a->args, "e"), &e->e);
	e->token = a->m->token;
	e->until = tos_now_ms(c->x) + VET_MS;
	e->next = c->entries;
	c->entries = e;
	return e;
}

/* ---- who may */

static bool listed(const struct tos_value *list, const char *word)
{
	for (size_t i = 0; i < tos_len(list); i++)
		if (strcmp(tos_as_text(tos_at(list, i), ""), word) == 0)
			return true;
	return false;
}

/* Its owner's carriers, and those of listed principals; where carriers or kernels are listed, only
 * these. */
static bool admitted(
	const struct tx *t, const char *owner, const char *carrier, const char *kernel)
{
	const struct tos_value *carriers = tos_get(t->admit, "carriers"),
			       *kernels = tos_get(t->admit, "kernels");

	return (strcmp(owner, t->owner) == 0 ||
		       listed(tos_get(t->admit, "principals"), owner)) &&
	       (!carriers || listed(carriers, carrier)) &&
	       (!kernels || listed(kernels, kernel));
}

/* ---- ENTER: another kernel's Commit, for a carrier there */

static void enter_answer(struct tx *t, uint64_t token)
{
	struct tos_value *v = tos_map();
	int64_t left = t->deadline - tos_now_ms(t->c->x);

	tos_set(v, "state", tos_text(tx_word(t->state)));
	tos_set(v, "phases", tos_int(t->phases));
	tos_set(v, "left_ms", tos_int(left > 0 ? left : 0));
	if (t->text[0])
		tos_set(v, "text", tos_text(t->text));
	ok(t->c->x, token, v);
}

/* NULL: it was refused. */
static struct tx *enterable(struct commit *c, const char *id, uint64_t token)
{
	struct tx *t = tx_find(c, id);

	if (t && t->state == T_OPEN)
		return t;
	if (!t)
		no(c->x, token, TOS_ERR_NOT_FOUND, "no transaction of that name is open");
	else if (t->state == T_COMMITTED || t->state == T_DECIDING)
		no(c->x, token, TOS_ERR_COMMITTED, "the transaction was committed without it");
	else if (t->state == T_ABORTED)
		no(c->x, token, TOS_ERR_ABORTED, t->text);
	else
		no(c->x, token, TOS_ERR_STATE, "the transaction takes nobody in any more");
	return NULL;
}

static void vet(struct entry *e);

static void vet_again(struct tos_ext *x, void *arg)
{
	(void)x;
	vet(arg);
}

static void vetted(struct entry *e, const char *owner)
{
	struct commit *c = e->c;
	struct tx *t = enterable(c, e->tx, e->token);
	struct member *m;

	if (!t)
		return;
	if (!admitted(t, owner, e->carrier, e->kernel)) {
		no(c->x, e->token, TOS_ERR_DENIED,
			"the transaction does not admit this carrier");
		tos_count(c->x, "denied_total", 1);
		return;
	}
	m = member_find(t, e->carrier);
	if (!m && t->n_members < MEMBERS_MAX)
		m = member_new(t, e->carrier, e->kernel);
	if (!m) {
		no(c->x, e->token, TOS_ERR_LIMIT, "the transaction has too many participants");
		return;
	}
	copy(m->owner, sizeof(m->owner), owner);
	m->e = e->e;
	enter_answer(t, e->token);
	go_on(t);
}

static void on_owner(struct tos_ext *x, void *arg, int rc, const char *text, const char *folder,
	const struct tos_value *elements)
{
	struct entry *e = arg;
	char why[TEXT_BYTES];

	(void)folder;
	if (rc == 0) {
		vetted(e, tos_get_text(tos_at(elements, 0), "owner", ""));
	} else {
		snprintf(why, sizeof(why), "%.60s shows no ticket of %.60s that holds: %.90s",
			e->home, e->carrier, text);
		no(x, e->token, TOS_ERR_DENIED, why);
		tos_count(x, "forged_total", 1);
		logf_(x, 3, "a participant was refused: %s", why);
	}
	entry_free(e);
}

/* A home of its own making could say anything of whose it is: the owner has signed that. */
static void owner_ask(struct entry *e, const struct tos_value *ticket)
{
	struct tos_value *args = tos_map();

	tos_set(args, "name", tos_text(e->carrier));
	if (ticket)
		tos_set(args, "ticket", tos_value_copy(ticket));
	if (tos_call(e->c->x, "Home", "OWNER", one(args), CALL_MS, on_owner, e) < 0) {
		no(e->c->x, e->token, TOS_ERR_FULL, "the kernel takes no more calls");
		entry_free(e);
	}
}

/* Its home says where a carrier is; the kernel that speaks for it could say anything. */
static void on_where(struct tos_ext *x, void *arg, int rc, const char *text, const char *folder,
	const struct tos_value *elements)
{
	struct entry *e = arg;
	const struct tos_value *v = tos_at(elements, 0);
	const char *kernel = tos_get_text(v, "kernel", "");
	char why[TEXT_BYTES];

	(void)folder;
	if (rc < 0) {
		snprintf(why, sizeof(why), "%.60s, home of %.60s: %.100s", e->home, e->carrier,
			text);
		no(x, e->token, rc == TOS_ERR_NOT_FOUND ? TOS_ERR_DENIED : rc, why);
	} else if (strcmp(kernel, e->kernel) == 0) {
		owner_ask(e, tos_get(v, "ticket"));
		return;
	} else if (tos_now_ms(x) < e->until && tos_timer(x, AGAIN_MS, vet_again, e)) {
		return;
	} else {
		snprintf(why, sizeof(why), "%.60s says that %.60s is not at %.60s", e->home,
			e->carrier, e->kernel);
		no(x, e->token, TOS_ERR_DENIED, why);
		tos_count(x, "forged_total", 1);
		logf_(x, 3, "a participant was refused: %s", why);
	}
	entry_free(e);
}

static void vet(struct entry *e)
{
	struct tos_value *args = tos_map();
	char dest[KERNEL_BYTES + 8] = "Home";

	if (strcmp(e->home, tos_kernel_name(e->c->x)) != 0)
		snprintf(dest, sizeof(dest), "%s/Home", e->home);
	tos_set(args, "name", tos_text(e->carrier));
	if (tos_call(e->c->x, dest, "WHERE", one(args), CALL_MS, on_where, e) < 0) {
		no(e->c->x, e->token, TOS_ERR_UNREACHABLE, "the carrier's home can't be asked");
		entry_free(e);
	}
}

/* It joins again after a crash of its own or of its kernel: 0 it is a new one. */
static bool entered_again(struct tx *t, const struct asker *a, struct member *m)
{
	struct era e;
	int order;

	if (!m)
		return false;
	era_read(tos_get(a->args, "e"), &e);
	order = era_compare(&e, &m->e);
	if (strcmp(m->kernel, a->from) != 0) {
		no(t->c->x, a->m->token, TOS_ERR_DENIED, "it takes part at another kernel");
	} else if (order < 0) {
		no(t->c->x, a->m->token, TOS_ERR_SUPERSEDED, "a higher incarnation takes part");
	} else {
		m->e = e;
		m->again_at = 0;
		m->pause_ms = 0;
		enter_answer(t, a->m->token);
		tick_soon(t->c);
	}
	return true;
}

void tx_enter(struct commit *c, const struct asker *a)
{
	const char *id = tos_get_text(a->args, "tx", "");
	struct tx *t = tx_find(c, id);
	struct entry *e;

	if (t && entered_again(t, a, member_find(t, tos_get_text(a->args, "carrier", ""))))
		return;
	if (!enterable(c, id, a->m->token))
		return;
	e = entry_new(c, a);
	if (e)
		vet(e);
	else
		no(c->x, a->m->token, TOS_ERR_MALFORMED, "ENTER wants {tx, carrier, e}");
}
