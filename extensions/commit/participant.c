/*
 * The part that carriers here have in transactions: who joins, what of it is in the journal, and when
 * which of the other files has something to do. Promises that the coordinator may rely on are in the
 * journal before they are said: a yes before it is answered, a decision before it is said to be kept.
 */
#include "participant.h"

const char *part_word(enum part_state s)
{
	static const char *const words[] = {
#define X(sym, word) [sym] = (word),
		PART_STATES(X)
#undef X
	};
	return words[s];
}

bool part_final(const struct part *p)
{
	return p->state == P_COMMITTED || p->state == P_ABORTED;
}

struct part *part_find(struct commit *c, const char *tx, const char *carrier)
{
	struct part *p = c->parts;

	while (p && (strcmp(p->tx, tx) != 0 || strcmp(p->carrier, carrier) != 0))
		p = p->next;
	return p;
}

static struct part *part_new(struct commit *c, const char *tx, const char *carrier)
{
	struct part *p = calloc(1, sizeof(*p));

	if (!p || !copy(p->tx, sizeof(p->tx), tx) ||
		!copy(p->carrier, sizeof(p->carrier), carrier)) {
		free(p);
		return NULL;
	}
	p->c = c;
	coordinator_of(tx, p->coordinator);
	strcpy(p->inbox, "commit");
	p->since_wall = wall_ms();
	p->next = c->parts;
	c->parts = p;
	c->n_parts++;
	return p;
}

static void part_free(struct part *p)
{
	tos_value_free(p->data);
	tos_value_free(p->plan);
	tos_value_free(p->result);
	free(p);
}

/* It never took part. */
static void part_drop(struct part *p)
{
	struct part **at = &p->c->parts;

	while (*at != p)
		at = &(*at)->next;
	*at = p->next;
	p->c->n_parts--;
	part_free(p);
}

void part_free_all(struct commit *c)
{
	while (c->parts) {
		struct part *p = c->parts;

		c->parts = p->next;
		part_free(p);
	}
}

void part_turn(struct part *p, enum part_state s)
{
	p->state = s;
	p->changed = tos_now_ms(p->c->x);
	p->tell_at = 0;
	p->pause_ms = 0;
	tick_soon(p->c);
}

/* ---- the journal */

static void key_of(const struct part *p, char *out, size_t cap)
{
	snprintf(out, cap, "p/%s %s", p->tx, p->carrier);
}

static struct tos_value *row_of(const struct part *p, enum part_state as)
{
	struct tos_value *v = tos_map();

	tos_set(v, "tx", tos_text(p->tx));
	tos_set(v, "carrier", tos_text(p->carrier));
	tos_set(v, "owner", tos_text(p->owner));
	tos_set(v, "inbox", tos_text(p->inbox));
	tos_set(v, "e", era_value(&p->e));
	tos_set(v, "state", tos_text(part_word(as)));
	tos_set(v, "since", tos_int(p->since_wall));
	if (p->plan)
		tos_set(v, "plan", tos_value_copy(p->plan));
	if (p->one_phase)
		tos_set(v, "one_phase", tos_bool(true));
	if (p->done)
		tos_set(v, "done", tos_bool(true));
	if (p->by[0])
		tos_set(v, "by", tos_text(p->by));
	if (p->mixed)
		tos_set(v, "mixed", tos_bool(true));
	if (p->text[0])
		tos_set(v, "text", tos_text(p->text));
	return v;
}

int part_put(struct part *p, enum part_state as, int64_t expires, tos_answer_fn *done)
{
	char key[TX_BYTES + NAME_BYTES + 8];
	int rc;

	key_of(p, key, sizeof(key));
	rc = journal(p->c->x, key, row_of(p, as), expires, done, p);
	if (rc == 0) {
		p->busy++;
		p->durable = true;
	}
	return rc;
}

void part_load(struct commit *c, const struct tos_value *row)
{
	const char *tx = tos_get_text(row, "tx", ""), *state = tos_get_text(row, "state", "");
	struct part *p = part_new(c, tx, tos_get_text(row, "carrier", ""));

	if (!p)
		return;
	copy(p->owner, sizeof(p->owner), tos_get_text(row, "owner", ""));
	copy(p->inbox, sizeof(p->inbox), tos_get_text(row, "inbox", "commit"));
	copy(p->by, sizeof(p->by), tos_get_text(row, "by", ""));
	copy(p->text, sizeof(p->text), tos_get_text(row, "text", ""));
	era_read(tos_get(row, "e"), &p->e);
	p->since_wall = tos_get_int(row, "since", 0);
	p->plan = tos_value_copy(tos_get(row, "plan"));
	p->one_phase = tos_get_bool(row, "one_phase", false);
	p->done = tos_get_bool(row, "done", false);
	p->mixed = tos_get_bool(row, "mixed", false);
	p->durable = p->loaded = true;
	p->commit = strcmp(state, "committed") == 0;
	p->state = p->commit                       ? P_COMMITTED
		   : strcmp(state, "aborted") == 0 ? P_ABORTED
						   : P_PREPARED;
	p->kept = p->state != P_PREPARED;
	p->changed = p->ask_at = tos_now_ms(c->x);
	if (p->state == P_PREPARED)
		logf_(c->x, 3, "%s of %s is in doubt: %s is asked", p->carrier, p->tx,
			p->coordinator);
}

struct tos_value *part_map(const struct part *p)
{
	struct tos_value *v = tos_map();

	tos_set(v, "tx", tos_text(p->tx));
	tos_set(v, "state", tos_text(part_word(p->state)));
	tos_set(v, "phases", tos_int(p->one_phase ? 1 : 2));
	if (p->plan)
		tos_set(v, "plan", tos_value_copy(p->plan));
	if (p->done)
		tos_set(v, "done", tos_bool(true));
	if (p->text[0])
		tos_set(v, "text", tos_text(p->text));
	return v;
}

static bool part_evict(struct commit *c);
void part_step(struct part *p, int64_t now);

/* ---- joining */

static void on_entered(struct tos_ext *x, void *arg, int rc, const char *text,
	const char *folder, const struct tos_value *elements)
{
	struct part *p = arg;
	const struct tos_value *v = tos_at(elements, 0);
	const char *state = tos_get_text(v, "state", "");

	(void)folder;
	p->busy--;
	if (rc < 0 && p->busy)
		return; /* it has asked again since */
	if (p->state == P_ENTERING && rc < 0) {
		no(x, take(&p->join_token), rc, text);
		part_drop(p);
		return;
	}
	if (rc < 0) {
		no(x, take(&p->join_token), rc, text);
		return;
	}
	p->one_phase = tos_get_int(v, "phases", 2) == 1;
	if (p->state == P_ENTERING || p->state == P_JOINED) {
		p->deadline = tos_now_ms(x) + left_of(v);
		if (strcmp(state, "aborted") == 0)
			part_abort(p, tos_get_text(v, "text", "it was aborted"));
		else
			part_turn(p, P_JOINED);
	}
	ok(x, take(&p->join_token), part_map(p));
}

static int enter(struct part *p)
{
	struct tos_value *args = tos_map();
	int rc;

	tos_set(args, "tx", tos_text(p->tx));
	tos_set(args, "carrier", tos_text(p->carrier));
	tos_set(args, "e", era_value(&p->e));
	rc = ask(p->c->x, p->coordinator, "ENTER", args, 2 * CALL_MS, on_entered, p);
	if (rc == 0)
		p->busy++;
	return rc;
}

static int part_make(struct commit *c, const struct asker *a, const char *tx, struct part **out)
{
	char coordinator[KERNEL_BYTES];

	coordinator_of(tx, coordinator);
	if (!coordinator[0] || strlen(tx) >= TX_BYTES)
		return TOS_ERR_MALFORMED;
	if ((int64_t)c->n_parts >= setting(c->x, "most/parts") && !part_evict(c))
		return TOS_ERR_LIMIT;
	*out = part_new(c, tx, a->m->sender);
	if (!*out)
		return TOS_ERR_NOMEM;
	copy((*out)->owner, sizeof((*out)->owner), a->owner);
	(*out)->e = a->e;
	return 0;
}

/* Lower incarnations have no say any more. */
bool part_era_ok(struct part *p, const struct asker *a)
{
	int order = era_compare(&a->e, &p->e);

	if (order < 0) {
		no(p->c->x, a->m->token, TOS_ERR_SUPERSEDED,
			"a higher incarnation of this carrier takes part");
		return false;
	}
	p->e = a->e;
	return true;
}

void part_join(struct commit *c, const struct asker *a)
{
	const char *tx = tos_get_text(a->args, "tx", ""),
		   *inbox = tos_get_text(a->args, "inbox", "commit");
	struct part *p = part_find(c, tx, a->m->sender);
	bool known = p != NULL;
	int rc = 0;

	if (!*inbox || strlen(inbox) >= sizeof(p->inbox)) {
		no(c->x, a->m->token, TOS_ERR_MALFORMED, "JOIN wants {tx, [inbox]}");
		return;
	}
	if (!p)
		rc = part_make(c, a, tx, &p);
	if (rc < 0) {
		no(c->x, a->m->token, rc,
			rc == TOS_ERR_MALFORMED
				? "JOIN wants {tx, [inbox]}: tx is what BEGIN gave"
				: "this kernel takes part in too much already");
		return;
	}
	if (known && !part_era_ok(p, a))
		return;
	strcpy(p->inbox, inbox);
	/* Whoever has begun again hears at once what it missed. */
	p->tell_at = 0;
	p->telling = false;
	if (known && p->state != P_ENTERING && p->state != P_JOINED && p->state != P_ASKED) {
		ok(c->x, a->m->token, part_map(p));
		tick_soon(c);
		return;
	}
	no(c->x, take(&p->join_token), TOS_ERR_CANCELLED, "it joined again");
	p->join_token = a->m->token;
	if (!known)
		part_turn(p, P_ENTERING);
	rc = enter(p);
	if (rc < 0) {
		no(c->x, take(&p->join_token), rc, "the coordinator can't be asked");
		if (!known)
			part_drop(p);
	}
}

/* Whoever is away for a minute may be away for long. */
void part_longer(struct part *p, uint32_t first_ms)
{
	int64_t most = tos_now_ms(p->c->x) - p->changed > FORGET_MS ? FORGET_MS : AGAIN_MOST_MS;

	p->pause_ms = p->pause_ms ? 2 * p->pause_ms : first_ms;
	if (p->pause_ms > most)
		p->pause_ms = (uint32_t)most;
}

/* ---- time */

static bool forgotten(const struct part *p, int64_t now)
{
	int64_t old = now - p->changed;

	if (p->busy || !part_final(p) || p->ending)
		return false;
	if (p->durable)
		return p->kept && old > setting(p->c->x, "keep/ms");
	return old > FORGET_MS || (p->done && !p->refused && old > 5000);
}

/* The row of a decision that no carrier came for has no end of its own. */
static void part_forget(struct part *p)
{
	char key[TX_BYTES + NAME_BYTES + 8];

	key_of(p, key, sizeof(key));
	if (p->durable)
		journal_drop(p->c->x, key);
	if (p->durable && !p->done)
		logf_(p->c->x, 3, "%s of %s never acted on its decision (%s)", p->carrier,
			p->tx, part_word(p->state));
	part_drop(p);
}

/* The oldest that is over makes room. */
static bool part_evict(struct commit *c)
{
	struct part *last = NULL;

	for (struct part *p = c->parts; p; p = p->next)
		if (part_final(p) && !p->busy && !p->ending && p->done)
			last = p;
	if (last)
		part_forget(last);
	return last != NULL;
}

/* A decision that the journal has to get. */
static bool unkept(const struct part *p)
{
	return p->state == P_DECIDING || (part_final(p) && p->durable && !p->kept);
}

void part_step(struct part *p, int64_t now)
{
	bool told = p->state == P_ASKED || (part_final(p) && !p->done);

	if ((p->state == P_JOINED || p->state == P_ASKED) && now >= p->deadline) {
		part_abort(p, p->state == P_ASKED
				      ? "it did not vote in time"
				      : "the coordinator asked for no vote in time");
		return;
	}
	/* A dry run's yes binds nobody. */
	if (p->state == P_PREPARED && p->dry && now >= p->deadline)
		part_abort(p, "the dry run is over");
	else if (p->state == P_VOTING && !p->writing && now >= p->write_at)
		part_vote_write(p);
	else if (unkept(p) && !p->writing && now >= p->write_at)
		part_decision_write(p);
	else if (p->state == P_PREPARED && !p->asking && now >= p->ask_at)
		part_outcome_ask(p);
	else if (told && !p->telling && now >= p->tell_at)
		part_tell(p);
	if (p->ending && now >= p->end_at)
		part_end_say(p);
}

/* A carrier that does not act, or a coordinator that does not answer, is asked again much later. */
static bool resting(const struct part *p, int64_t now)
{
	int64_t due = p->state == P_PREPARED ? p->ask_at : p->tell_at;

	return !p->busy && !p->ending && (p->kept || p->state == P_PREPARED) && !p->dry &&
	       (p->state == P_PREPARED || part_final(p)) && due > now + TICK_SLOW_MS;
}

bool part_tick(struct commit *c, int64_t now, bool *soon)
{
	struct part **at = &c->parts;
	bool more = false;

	while (*at) {
		struct part *p = *at;

		part_step(p, now);
		if (forgotten(p, now)) {
			part_forget(p);
			continue;
		}
		if (!part_final(p) || !p->done || p->busy || p->ending || !p->durable ||
			!p->kept) {
			more = true;
			*soon |= !resting(p, now);
		}
		at = &p->next;
	}
	return more;
}

static bool doubtful(const struct part *p)
{
	return p->state == P_PREPARED && !p->dry &&
	       (p->loaded || tos_now_ms(p->c->x) > p->deadline);
}

int64_t part_doubts(const struct commit *c)
{
	int64_t n = 0;

	for (const struct part *p = c->parts; p; p = p->next)
		n += doubtful(p);
	return n;
}

void part_list(struct commit *c, const struct asker *a, struct tos_value *rows)
{
	for (const struct part *p = c->parts; p && tos_len(rows) < 5000; p = p->next) {
		struct tos_value *v;

		if (!a->all && strcmp(a->owner, p->owner) != 0)
			continue;
		v = part_map(p);
		if (doubtful(p))
			tos_set(v, "state", tos_text("in-doubt"));
		tos_set(v, "role", tos_text("participant"));
		tos_set(v, "carrier", tos_text(p->carrier));
		tos_set(v, "owner", tos_text(p->owner));
		tos_set(v, "kernel", tos_text(tos_kernel_name(c->x)));
		tos_set(v, "coordinator", tos_text(p->coordinator));
		tos_set(v, "since_ms", tos_int(p->since_wall));
		tos_set(v, "done", tos_bool(p->done));
		if (p->by[0])
			tos_set(v, "by", tos_text(p->by));
		if (p->mixed)
			tos_set(v, "mixed", tos_bool(true));
		tos_push(rows, v);
	}
}
