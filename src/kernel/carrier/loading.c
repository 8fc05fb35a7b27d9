/*
 * Residents read from the store at the start, by the thousand. What is found in a row by itself a thread
 * finds out ahead (store_ahead()); what it means for this kernel is done here, in the loop's thread.
 */
#include "kernel/handoff/forced.h"
#include "kernel/carrier/family.h"

#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/text.h"
#include "kernel/carrier/account.h"
#include "kernel/carrier/admit.h"
#include "kernel/carrier/automata.h"
#include "kernel/carrier/resident.h"
#include "kernel/handoff/moves.h"
#include "kernel/handoff/restored.h"
#include "kernel/trust/trust.h"
#include "wire/pick.h"
#include "wire/tree.h"

#define DAY_MS ((int64_t)86400000)

/* What a row has, in the order in which it has them: see pick(). */
/* clang-format off */
#define ROW_FIELDS(X) \
	X(e) X(n) X(hop) X(dest) X(name) X(path) X(fault) X(since) X(state) X(asking) \
	X(clones) X(limits) X(suffix) X(outcome) X(automata) X(envelope) X(code_here) \
	X(completed) X(clone_base) X(sent_envelope)
/* clang-format on */

enum row_field {
#define FIELD(name) F_##name,
	ROW_FIELDS(FIELD)
#undef FIELD
		ROW_FIELD_COUNT
};

static const char *const row_fields[] = {
#define FIELD(name) #name,
	ROW_FIELDS(FIELD)
#undef FIELD
};

/* What is found in a row by itself: by the thread that reads ahead. */
struct row_look {
	int rc;
	struct errmsg em;
	struct slice f[ROW_FIELD_COUNT];
	struct envelope env;
	struct ticket_look ticket;
};

static void row_look(struct slice key, struct slice body, void *note)
{
	struct row_look *l = note;
	int rc = pick(body, row_fields, ROW_FIELD_COUNT, l->f);

	(void)key;
	l->em.text[0] = 0;
	if (rc == 0)
		rc = envelope_decode(
			pick_bytes(l->f[l->f[F_envelope].n ? F_envelope : F_sent_envelope]),
			&l->env, &l->em);
	if (rc == 0)
		rc = ticket_look(pick_bytes(l->env.part[PART_TICKET]), &l->ticket, &l->em);
	l->rc = rc;
}

/* What travels, and who it is. */
static int read_carrier(struct resident *r, const struct row_look *l, struct errmsg *em)
{
	const struct slice *f = l->f;
	char suffix[sizeof(r->suffix)];
	int rc = resident_take_envelope(r, &l->env, em);

	if (rc == 0 && f[F_path].n) {
		tos_value_free(r->path);
		r->path = pick_value(f[F_path]);
	}
	if (rc == 0)
		/* An expired or revoked one is loaded all the same and ended by the rules for
		 * that. */
		rc = ticket_seen(&l->ticket, &r->ticket, r->id, &r->owner, em);
	if (rc < 0)
		return rc;
	pick_text(f[F_suffix], suffix, sizeof(suffix));
	family_is(r, r->id, suffix);
	clone_load(r, f[F_clone_base], f[F_clones]);
	return family_budget(r, em);
}

/* Once for all that run it. */
static struct code *code_of(struct resident *r, struct errmsg *em)
{
	struct code *code = map_find(r->k->codes, r->code_digest, DIGEST_BYTES);

	return code ? code : code_find(r->k, r->code_digest, em);
}

static void read_limits(struct resident *r, struct slice limits)
{
	struct slice item[LIMIT_COUNT];

	if (pick(limits, limit_names, LIMIT_COUNT, item) < 0)
		return;
	for (int i = 0; i < LIMIT_COUNT; i++)
		r->usage.limit[i] = pick_int(item[i], 0);
}

static void read_departing(struct resident *r, const struct slice f[ROW_FIELD_COUNT])
{
	pick_text(f[F_dest], r->dest, sizeof(r->dest));
	r->outcome_move = pick_bool(f[F_outcome], false);
	r->asking = pick_bool(f[F_asking], false); /* until it is answered */
	blob_set(&r->hop_cose, pick_bytes(f[F_hop]));
	blob_set(&r->envelope, pick_bytes(f[F_sent_envelope]));
	r->n_undelivered = tos_len(r->undelivered);
	r->sent = true; /* after a restart a departing copy always counts as sent */
	r->in_doubt = true;
}

static void read_stay(
	struct resident *r, const struct slice f[ROW_FIELD_COUNT], const struct code *code)
{
	struct slice here = pick_bytes(f[F_code_here]);
	struct tos_value *automata = pick_value(f[F_automata]);

	automata_read(r, automata);
	tos_value_free(automata);
	if (here.n)
		blob_set(&r->code, here);
	else
		blob_share(&r->code, &code->bundle);
	r->code_changed = here.n > 0;
	cert_keep(&r->author, &code->author);
	incarnation_pick(f[F_e], &r->e);
	r->n = (uint64_t)pick_int(f[F_n], 0);
	r->completed = pick_bool(f[F_completed], false);
	r->since_ms = pick_int(f[F_since], 0);
	read_limits(r, f[F_limits]);
	r->fault = pick_value(f[F_fault]);
	if (r->state == SHELL_DEPARTING)
		read_departing(r, f);
	else
		shell_next(r->state, SHELL_EV_REBOOT, &r->state);
}

static void loaded(struct resident *r, size_t row_bytes, struct code *code)
{
	int64_t until_ms = r->ticket.expires_ms + KEEP_AFTER_MS + 2 * DAY_MS;
	char hex[2 * DIGEST_BYTES + 1];

	r->saved = r->loaded = true;
	r->quarantined = restored_holds_back(r->k);
	account_stored(r->k, STORED_RESIDENT, r->name, r->owner->name, row_bytes, 0);
	if (until_ms > code->counted_until_ms) {
		code->counted_until_ms = until_ms;
		account_stored(r->k, STORED_CODE, text_hex(r->code_digest, DIGEST_BYTES, hex),
			r->owner->name, code->bundle.n, until_ms);
	}
	account_open(r, false);
	r->report_due = true;
	rate_init(&r->post_rate, r->usage.limit[LIMIT_posts], clock_ms());
	rate_init(&r->log_rate, LINES_PER_S, clock_ms());
	map_put_str(r->k->residents, r->name, r);
}

static int load_row(
	void *arg, struct slice key, struct slice body, int64_t expires_ms, void *note)
{
	struct kernel *k = arg;
	struct resident *r = resident_new(k);
	const struct row_look *l = note;
	const struct slice *f = l->f;
	struct errmsg em = l->em;
	struct code *code = NULL;
	char state[32];
	int rc = l->rc;

	(void)expires_ms;
	(void)key;
	pick_text(f[F_name], r->name, sizeof(r->name));
	if (rc == 0)
		rc = read_carrier(r, l, &em);
	if (rc == 0) {
		code = code_of(r, &em);
		rc = code ? 0 : ERR_NOT_FOUND;
	}
	if (rc == 0) {
		pick_text(f[F_state], state, sizeof(state));
		rc = shell_state_parse(state);
		if (rc < 0)
			rc = err_set(&em, ERR_STORE, "unknown state");
		else
			r->state = (enum shell_state)rc;
	}
	if (rc < 0 || !code) {
		/* Nothing is dropped: the row stays in the store, the operator is told. */
		log_error("a carrier in the store could not be loaded; its row is kept",
			KV_STR("carrier", r->name), KV_ERR(rc, &em));
		metric_add(k->metrics, "residents_unloadable_total", NULL, 1);
		r->name[0] = 0;
		resident_free(r);
		return 0;
	}
	read_stay(r, f, code);
	loaded(r, body.n, code);
	return 0;
}

int residents_load(struct kernel *k, struct errmsg *em)
{
	struct resident *r;
	int64_t began = clock_ms();
	size_t it = 0;
	int rc;

	k->residents = map_new();
	rc = store_ahead(
		k->store, T_RESIDENT, row_look, sizeof(struct row_look), load_row, k, em);
	while ((r = map_next(k->residents, &it, NULL, NULL)))
		if (r->state == SHELL_READY) {
			resident_trail(r, "restarted", "", "");
			if (!r->completed)
				resident_undelivered(r);
			resident_go_on(r);
		}
	if (map_size(k->residents))
		log_info("carriers loaded", KV_INT("carriers", map_size(k->residents)),
			KV_INT("ms", clock_ms() - began));
	return rc;
}
