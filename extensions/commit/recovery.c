/*
 * The journal of the coordinator: its rows, what follows from them at the next start, what a participant
 * that was in doubt is told (OUTCOME), and an operator's word where a restored store does not know.
 */
#include "coordinator.h"

/* ---- the journal */

int64_t begun_of(const char *id)
{
	const char *slash = strrchr(id, '/');
	char digits[13] = "";

	if (slash && strlen(slash + 1) == 20)
		memcpy(digits, slash + 1, 12);
	return strtoll(digits, NULL, 16);
}

int tx_put(struct tx *t, enum tx_state as, int64_t expires, tos_answer_fn *done)
{
	struct tos_value *v = tx_map(t, as);
	char key[TX_BYTES + 4];
	int rc;

	tos_set(v, "e", era_value(&t->e));
	tos_set(v, "n", tos_int(t->n));
	tos_set(v, "seq", tos_int(t->seq));
	tos_set(v, "args", tos_bytes(t->args, t->n_args));
	tos_set(v, "begun", tos_int(t->begun_wall));
	tos_set(v, "settled", tos_bool(t->settled));
	snprintf(key, sizeof(key), "t/%s", t->id);
	rc = journal(t->c->x, key, v, expires, done, t);
	if (rc == 0)
		t->busy++;
	return rc;
}

static void on_noted(struct tos_ext *x, void *arg, int rc, const char *text, const char *folder,
	const struct tos_value *elements)
{
	struct tx *t = arg;

	(void)folder;
	(void)elements;
	t->busy--;
	if (rc < 0)
		logf_(x, 3, "%s could not be noted as %s: %s", t->id, tx_word(t->state), text);
}

void tx_note(struct tx *t, enum tx_state as)
{
	tx_put(t, as, keep_until(t->c->x), on_noted);
}

static void member_load(struct tx *t, const struct tos_value *v)
{
	struct member *m =
		member_new(t, tos_get_text(v, "carrier", ""), tos_get_text(v, "kernel", ""));
	const char *vote = tos_get_text(v, "vote", "");

	if (!m)
		return;
	copy(m->owner, sizeof(m->owner), tos_get_text(v, "owner", ""));
	copy(m->text, sizeof(m->text), tos_get_text(v, "text", ""));
	era_read(tos_get(v, "e"), &m->e);
	m->vote = strcmp(vote, "yes") == 0 ? V_YES : strcmp(vote, "no") == 0 ? V_NO : V_NONE;
	m->told = m->kept =
		tos_get_bool(v, "told", false); /* rows have it when all have kept it */
	m->done = tos_get_bool(v, "done", false);
	m->lost = tos_get_bool(v, "lost", false);
	m->plan = tos_value_copy(tos_get(v, "plan"));
	m->result = tos_value_copy(tos_get(v, "result"));
}

void tx_load(struct commit *c, const char *id, const struct tos_value *row)
{
	struct tx *t = tx_new(c);
	const char *state = tos_get_text(row, "state", "");
	const struct tos_value *members = tos_get(row, "members");
	const uint8_t *args;

	if (!t)
		return;
	copy(t->id, sizeof(t->id), id);
	copy(t->carrier, sizeof(t->carrier), tos_get_text(row, "carrier", ""));
	copy(t->owner, sizeof(t->owner), tos_get_text(row, "owner", ""));
	copy(t->name, sizeof(t->name), tos_get_text(row, "name", ""));
	copy(t->text, sizeof(t->text), tos_get_text(row, "text", ""));
	copy(t->by, sizeof(t->by), tos_get_text(row, "by", ""));
	era_read(tos_get(row, "e"), &t->e);
	t->n = tos_get_int(row, "n", 0);
	t->seq = tos_get_int(row, "seq", 0);
	t->phases = (int)tos_get_int(row, "phases", 2);
	t->begun_wall = tos_get_int(row, "begun", 0);
	t->settled = tos_get_bool(row, "settled", false);
	args = tos_get_bytes(row, "args", &t->n_args);
	t->args = malloc(t->n_args + 1);
	if (t->args && args)
		memcpy(t->args, args, t->n_args);
	else
		t->n_args = 0;
	for (size_t i = 0; i < tos_len(members); i++)
		member_load(t, tos_at(members, i));
	t->loaded = true;
	if (strcmp(state, "committed") == 0) {
		tx_turn(t, T_COMMITTED);
		if (!t->settled)
			logf_(c->x, 2, "%s was committed and is told again", t->id);
		return;
	}
	tx_turn(t, T_ABORTED);
	if (strcmp(state, "aborted") == 0)
		return;
	/* What a restored store does not have may have been a commit all the same. */
	if (t->begun_wall <= c->restored_ms) {
		tx_turn(t, T_DOUBT);
		logf_(c->x, 3,
			"%s is in doubt: this store was restored, and what was decided since is not known",
			t->id);
		return;
	}
	snprintf(t->text, sizeof(t->text), "its coordinator began again before it had decided");
	tx_note(t, T_ABORTED);
}

/* ---- OUTCOME */

static void outcome_say(struct commit *c, uint64_t token, const char *state, const char *text)
{
	struct tos_value *v = tos_map();

	tos_set(v, "state", tos_text(state));
	if (*text)
		tos_set(v, "text", tos_text(text));
	ok(c->x, token, v);
}

/* Nothing says that it was committed. Was this store always here? */
static void on_restored(struct tos_ext *x, void *arg, int rc, const char *text,
	const char *folder, const struct tos_value *elements)
{
	struct entry *e = arg;
	struct commit *c = e->c;
	const struct tx *t = tx_find(c, e->tx);

	(void)text;
	(void)folder;
	(void)x;
	if (rc == 0)
		c->restored_ms = tos_get_int(tos_at(elements, 0), "restored_ms", 0);
	if (rc < 0)
		no(x, e->token, rc, "the journal does not answer");
	else if (t && (!t->loaded || t->by[0])) /* ours, or an operator has settled it */
		outcome_say(c, e->token, tx_word(t->state), t->text);
	else if (begun_of(e->tx) <= c->restored_ms)
		outcome_say(c, e->token, "in-doubt",
			"the coordinator's store was restored: what was decided is not known there");
	else
		outcome_say(c, e->token, "aborted",
			t && t->text[0] ? t->text : "the coordinator knows of no commit");
	entry_free(e);
}

void tx_outcome(struct commit *c, const struct asker *a)
{
	const char *id = tos_get_text(a->args, "tx", ""),
		   *carrier = tos_get_text(a->args, "carrier", "");
	struct tx *t = tx_find(c, id);
	struct member *m = t ? member_find(t, carrier) : NULL;
	char coordinator[KERNEL_BYTES];
	struct entry *e;

	coordinator_of(id, coordinator);
	if (strcmp(coordinator, tos_kernel_name(c->x)) != 0) {
		no(c->x, a->m->token, TOS_ERR_MALFORMED,
			"that transaction is another kernel's");
	} else if (t && t->state == T_COMMITTED && !m && !t->by[0]) {
		/* It was told that it takes part, and we have committed without it. */
		outcome_say(c, a->m->token, "aborted", "it was committed without this carrier");
	} else if (t && (t->state != T_ABORTED || !t->loaded) && t->state != T_DOUBT) {
		outcome_say(c, a->m->token, tx_word(t->state), t->text);
	} else {
		e = entry_new(c, a);
		if (!e)
			no(c->x, a->m->token, TOS_ERR_MALFORMED, "OUTCOME wants {tx, carrier}");
		else if (tos_call(c->x, "Journal", "INFO", one(tos_map()), 0, on_restored, e) <
			 0) {
			no(c->x, a->m->token, TOS_ERR_FULL, "the journal can't be asked");
			entry_free(e);
		}
	}
}

/* ---- an operator */

bool tx_resolve(struct commit *c, const char *id, bool commit, const char *by)
{
	struct tx *t = tx_find(c, id);
	char coordinator[KERNEL_BYTES];

	coordinator_of(id, coordinator);
	if (strcmp(coordinator, tos_kernel_name(c->x)) != 0 ||
		(t ? t->state != T_DOUBT && !(t->state == T_ABORTED && t->loaded && !t->by[0] &&
						    t->begun_wall <= c->restored_ms)
		   : begun_of(id) > c->restored_ms))
		return false;
	if (!t) {
		t = tx_new(c);
		if (!t || !copy(t->id, sizeof(t->id), id))
			return false;
		t->begun_wall = begun_of(id);
		t->loaded = true;
	}
	snprintf(t->by, sizeof(t->by), "%s", by);
	snprintf(t->text, sizeof(t->text), "%s", "an operator decided");
	logf_(c->x, 3, "%s is %s by %s: the store was restored", id,
		commit ? "committed" : "aborted", by);
	if (commit)
		commit_tx(t);
	else
		abort_tx(t, NULL);
	return true;
}
