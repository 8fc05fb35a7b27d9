/*
 * The security automata of a stay: extensions give them when they answer ARRIVAL, and each thing that the
 * carrier asks of this kernel goes past them (doc/decisions/automata.md). They are here and not in the
 * tos-vm: what a carrier's process says of itself is not believed.
 */
#include "kernel/carrier/automata.h"

#include <string.h>

#include "core/automaton.h"
#include "kernel/carrier/resident.h"

#define AUTOMATA_MAX 8 /* of one carrier */

struct automata {
	size_t n;
	struct {
		char by[64]; /* the hook's inbox */
		struct automaton *a;
	} one[AUTOMATA_MAX];
};

void automata_free(struct resident *r)
{
	for (size_t i = 0; r->automata && i < r->automata->n; i++)
		automaton_free(r->automata->one[i].a);
	free(r->automata);
	r->automata = NULL;
}

static int add(struct resident *r, const char *by, const char *text, size_t n,
	struct automaton **out, struct errmsg *em)
{
	struct automaton *a;
	int rc;

	if (r->automata && r->automata->n == AUTOMATA_MAX)
		return err_set(em, ERR_LIMIT, "more than %d automata", AUTOMATA_MAX);
	rc = automaton_parse(text, n, &a, em);
	if (rc < 0)
		return err_wrap(em, rc, "the automaton of %s", by);
	if (!r->automata)
		r->automata = mem_new(struct automata);
	snprintf(r->automata->one[r->automata->n].by, sizeof(r->automata->one[0].by), "%s", by);
	r->automata->one[r->automata->n++].a = a;
	if (out)
		*out = a;
	return 0;
}

int automata_add(
	struct resident *r, const char *by, const struct tos_value *text, struct errmsg *em)
{
	size_t n = 0;
	const uint8_t *p = tos_as_bytes(text, &n);
	int rc;

	if (tos_type(text) == TOS_TEXT) {
		p = (const uint8_t *)tos_as_text(text, "");
		n = strlen((const char *)p);
	}
	if (!p)
		return err_set(em, ERR_MALFORMED, "the automaton of %s is no text", by);
	rc = add(r, by, (const char *)p, n, NULL, em);
	if (rc < 0)
		return rc;
	resident_trail(r, "watched", by, "");
	metric_add(r->k->metrics, "automata_given_total", NULL, 1);
	log_info("a carrier is watched by an automaton", KV_STR("carrier", r->name),
		KV_STR("by", by), KV_INT("bytes", n));
	return 0;
}

/* As one writes it, whichever way the carrier did: Echo and host0/Echo are the same here. */
static void canonical(const struct kernel *k, struct slice dest, char *out, size_t cap)
{
	struct address a;

	slice_copy_text(dest, out, cap);
	if (address_parse((const char *)dest.p, dest.n, &a, NULL) < 0)
		return;
	if (a.kind == ADDRESS_INBOX && (!a.kernel[0] || strcmp(a.kernel, k->config.name) == 0))
		snprintf(out, cap, "%s", a.inbox);
}

static int refused(struct resident *r, const char *by, const struct automaton *a,
	enum automaton_event ev, const char *object, int rule, bool ends, struct errmsg *why)
{
	struct origin who = { .cls = ORIGIN_CARRIER };
	char said[300];

	snprintf(said, sizeof(said), "automaton of %s, state %s: %.180s", by,
		automaton_state(a), automaton_rule(a, rule));
	snprintf(who.name, sizeof(who.name), "%s", r->name);
	snprintf(who.principal, sizeof(who.principal), "%s", r->owner->name);
	metric_add(r->k->metrics, "automata_denied_total", NULL, 1);
	audit_denial(r->k, &who, automaton_event_word(ev), object, said);
	err_set(why, ERR_DENIED, "%s may not %s %s at %s (%s)", r->name,
		automaton_event_word(ev), object, r->k->config.name, said);
	if (ends)
		resident_fault(r, ERR_DENIED, why->text, "");
	return ERR_DENIED;
}

/* All are asked before any goes on: what one of them denies has not happened for the others. */
static int ask(struct resident *r, enum automaton_event ev, const char *object, bool *ended,
	struct errmsg *why)
{
	struct automata *all = r->automata;
	int rule[AUTOMATA_MAX];

	*ended = false;
	for (size_t i = 0; i < all->n; i++) {
		enum automaton_verdict v = automaton_ask(all->one[i].a, ev, object, &rule[i]);

		if (v == AUTOMATON_ALLOW)
			continue;
		*ended = v == AUTOMATON_END;
		automaton_take(all->one[i].a, rule[i]);
		return refused(
			r, all->one[i].by, all->one[i].a, ev, object, rule[i], *ended, why);
	}
	for (size_t i = 0; i < all->n; i++)
		automaton_take(all->one[i].a, rule[i]);
	return 0;
}

int automata_post(struct resident *r, enum post_kind kind, struct slice dest, bool *ended,
	struct errmsg *why)
{
	static const enum automaton_event events[] = { [POST_ONEWAY] = AUTOMATON_POST,
		[POST_CALL] = AUTOMATON_CALL,
		[POST_ANSWER] = AUTOMATON_ANSWER,
		[POST_FAILURE] = AUTOMATON_ANSWER };
	char object[NAME_BYTES_MAX + 1];

	*ended = false;
	if (!r->automata)
		return 0;
	canonical(r->k, dest, object, sizeof(object));
	return ask(r, events[kind], object, ended, why);
}

static int asked(struct resident *r, enum automaton_event ev, const char *object, bool *ended,
	struct errmsg *why)
{
	*ended = false;
	return r->automata ? ask(r, ev, object, ended, why) : 0;
}

int automata_go(struct resident *r, const char *dest, bool *ended, struct errmsg *why)
{
	return asked(r, AUTOMATON_GO, dest[0] ? dest : "path", ended, why);
}

int automata_clone(struct resident *r, struct slice dest, bool *ended, struct errmsg *why)
{
	char name[NAME_BYTES_MAX + 1];

	slice_copy_text(dest, name, sizeof(name));
	return asked(r, AUTOMATON_CLONE, name[0] ? name : "path", ended, why);
}

int automata_inbox(struct resident *r, const char *name, bool *ended, struct errmsg *why)
{
	return asked(r, AUTOMATON_INBOX, name, ended, why);
}

/* ---- runs that begin again */

void automata_keep(struct resident *r)
{
	for (size_t i = 0; r->automata && i < r->automata->n; i++)
		automaton_keep(r->automata->one[i].a);
}

void automata_back(struct resident *r)
{
	for (size_t i = 0; r->automata && i < r->automata->n; i++)
		automaton_back(r->automata->one[i].a);
}

void automata_put(const struct resident *r, struct tos_value *row)
{
	struct tos_value *list;

	if (!r->automata)
		return;
	list = tos_array();
	for (size_t i = 0; i < r->automata->n; i++) {
		struct tos_value *m = tos_map();

		tos_set(m, "by", tos_text(r->automata->one[i].by));
		tos_set(m, "text", tos_text(automaton_text(r->automata->one[i].a)));
		tos_set(m, "kept", automaton_kept(r->automata->one[i].a));
		tos_push(list, m);
	}
	tos_set(row, "automata", list);
}

/* One that can't be read, perhaps of a later version, allows nothing. */
void automata_read(struct resident *r, const struct tos_value *list)
{
	static const char none[] = "not-understood * * * deny";

	for (size_t i = 0; i < tos_len(list) && i < AUTOMATA_MAX; i++) {
		const struct tos_value *m = tos_at(list, i);
		const char *text = tos_get_text(m, "text", ""), *by = tos_get_text(m, "by", "");
		struct automaton *a = NULL;
		struct errmsg em = { "" };

		if (add(r, by, text, strlen(text), &a, &em) == 0 &&
			automaton_restore(a, tos_get(m, "kept")) == 0)
			continue;
		log_error("an automaton of a carrier can't be read; nothing is allowed",
			KV_STR("carrier", r->name), KV_STR("by", by),
			KV_STR("reason", em.text));
		add(r, by, none, sizeof(none) - 1, NULL, NULL);
	}
}

struct tos_value *automata_show(const struct resident *r)
{
	struct tos_value *list = tos_array();

	for (size_t i = 0; r->automata && i < r->automata->n; i++) {
		struct tos_value *m = tos_map();

		tos_set(m, "by", tos_text(r->automata->one[i].by));
		tos_set(m, "state", tos_text(automaton_state(r->automata->one[i].a)));
		tos_set(m, "text", tos_text(automaton_text(r->automata->one[i].a)));
		tos_push(list, m);
	}
	return list;
}
