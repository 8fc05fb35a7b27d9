/*
 * Does the place that the home knows still hold the carrier, or the one that handed it there? They
 * are asked (HOLDS) when they are linked, when one has denied it, and when one is declared dead. A
 * carrier that nobody holds is lost.
 */
#include "kernel/home/holds.h"

#include <string.h>

#include "base/clock.h"
#include "kernel/handoff/moves.h"
#include "kernel/home/home.h"
#include "kernel/home/outcome.h"
#include "kernel/home/records.h"

#define DENIED_AGAIN_MS 5000 /* a place denies twice, at least this far apart */

struct holds_asked {
	char name[NAME_BYTES_MAX + 1], kernel[64];
	bool told; /* that its destination is dead */
};

void holds_heard(struct home_record *h)
{
	h->denied_ms = h->holds_at_ms = 0;
	h->denied = false;
}

/* Its place has no copy any more, by its own denial or by declaration. Whoever handed it there
 * may have kept its own, and is asked before it counts as lost; while that kernel is away
 * nothing is decided. */
void holds_settle(struct kernel *k, struct home_record *h)
{
	bool declared = home_is_declared(k, h->kernel);
	char text[200];

	if (shell_ended(h->state) || (!declared && !h->denied))
		return;
	h->holds_at_ms = clock_ms() + COMMAND_AGAIN_MS;
	if (home_busy(h))
		return;
	if (h->from[0] && strcmp(h->from, h->kernel) != 0 && !home_is_declared(k, h->from)) {
		holds_ask(k, h, h->from, declared ? h->kernel : "");
		return;
	}
	if (declared)
		snprintf(text, sizeof(text), "its kernel %s was declared dead", h->kernel);
	else
		snprintf(text, sizeof(text), "%s does not hold it, and nobody else does",
			h->kernel);
	home_lost(k, h, text);
}

void home_told(struct kernel *k, struct home_record *h, const char *where,
	const struct incarnation *e, uint64_t n)
{
	int cmp = incarnation_compare(e, &h->e);

	if (shell_ended(h->state) || cmp < 0 || (cmp == 0 && n <= h->n))
		return;
	h->e = *e;
	h->n = n;
	h->from[0] = 0;
	h->in_doubt = false;
	snprintf(h->kernel, sizeof(h->kernel), "%s", where);
	place_note(k, h->name, h->kernel);
	holds_heard(h);
	incarnation_learn(k, h->id, &h->e, h->expires_ms);
	home_save(k, h);
	/* It may have moved on from there since. */
	if (strcmp(where, k->config.name) != 0)
		holds_ask(k, h, where, "");
}

/* A kernel was declared dead: carriers known to be there, with no copy in doubt elsewhere, are
 * lost. */
void home_declared(struct kernel *k, const char *dead, struct tos_value *names)
{
	struct home_record *h;
	size_t it = 0;

	homes_all(k);
	while ((h = map_next(k->homes, &it, NULL, NULL)))
		if (!shell_ended(h->state) &&
			(strcmp(h->kernel, dead) == 0 || strcmp(h->from, dead) == 0)) {
			tos_push(names, tos_text(h->name));
			holds_settle(k, h);
		}
}

/* A departure later than what is known here, or the one that leads away from there: a place may have
 * reported a higher n of a departure that it took back, and that a crash made undone. An older
 * record of that kernel's tells nothing. */
static bool gone_since(const struct home_record *h, const struct tos_value *m)
{
	struct incarnation e;

	return incarnation_read(tos_get(m, "e"), &e) == 0 &&
	       incarnation_compare(&e, &h->e) == 0 &&
	       (uint64_t)tos_get_int(m, "n", 0) + 1 >= h->n;
}

static void place_denies(struct kernel *k, struct home_record *h)
{
	int64_t now = clock_ms();

	if (!h->denied_ms) {
		h->denied_ms = now;
		h->holds_at_ms = now + DENIED_AGAIN_MS;
	} else if (now - h->denied_ms >= DENIED_AGAIN_MS) {
		h->denied = true;
		holds_settle(k, h);
	}
}

/* What the place that the home knows says. */
static void place_said(
	struct kernel *k, struct home_record *h, const struct tos_value *m, bool told)
{
	const char *state = tos_get_text(m, "state", "");
	const char *dest = tos_get_text(m, "dest", "");

	if (strcmp(state, "gone") == 0 && gone_since(h, m)) {
		if (!name_kernel_ok(dest) || strcmp(dest, k->config.name) == 0)
			return;
		holds_heard(h);
		h->n = (uint64_t)tos_get_int(m, "n", 0) + 1;
		h->from[0] = 0;
		home_place(h, dest, h->n);
		home_save(k, h);
		holds_ask(k, h, dest, "");
	} else if (strcmp(state, "gone") == 0 || strcmp(state, "unknown") == 0) {
		place_denies(k, h);
	} else {
		holds_heard(h);
		/* In doubt towards a kernel that is declared dead here: it is to ask. */
		if (!told && strcmp(state, "departing") == 0 && dest[0] &&
			home_is_declared(k, dest))
			holds_ask(k, h, h->kernel, dest);
	}
}

/* What the kernel says that handed it to a place where it is not any more. */
static void source_said(struct kernel *k, struct home_record *h, const struct tos_value *m)
{
	const char *state = tos_get_text(m, "state", "");

	if (strcmp(state, "gone") != 0 && strcmp(state, "unknown") != 0)
		return; /* it has a copy, and asks for it: HOLDS told it why */
	h->from[0] = 0;
	holds_settle(k, h);
}

static void on_holds(
	struct kernel *k, void *arg, int rc, const char *text, const struct tos_value *elements)
{
	AUTOFREE struct holds_asked *a = arg;
	struct home_record *h = home_find(k, a->name);
	const struct tos_value *m = tos_at(elements, 0);

	(void)text;
	if (!h || shell_ended(h->state))
		return;
	if (home_busy(h)) {
		h->holds_at_ms = clock_ms() + COMMAND_AGAIN_MS; /* asked anew */
		return;
	}
	if (strcmp(h->kernel, a->kernel) == 0) {
		if (rc == 0)
			place_said(k, h, m, a->told);
		else
			holds_heard(h); /* no denial: it is asked when it is linked again */
	} else if (rc == 0 && strcmp(h->from, a->kernel) == 0) {
		source_said(k, h, m);
	}
}

void holds_ask(struct kernel *k, struct home_record *h, const char *kernel, const char *dead)
{
	struct holds_asked *a = mem_new(struct holds_asked);
	struct tos_value *args = tos_map();

	snprintf(a->name, sizeof(a->name), "%s", h->name);
	snprintf(a->kernel, sizeof(a->kernel), "%s", kernel);
	tos_set(args, "name", tos_text(h->name));
	tos_set(args, "id", tos_bytes(h->id, DIGEST_BYTES));
	if (dead[0])
		tos_set(args, "dead", tos_text(dead));
	a->told = dead[0] != 0;
	kernel_call(k, kernel, "Handoff", "HOLDS", args, k->config.call_ms, on_holds, a);
}
