/*
 * Spawner: where a clone goes, and what it gets. The kernel tells it when tos.clone() was called; it
 * takes the destination that was named, or the alternatives of the path's next entry one after the
 * other, and shares out what the carrier has left of its budgets. The kernel makes the clone; here
 * is only the decision. The verbs of both sides are described in tos/extension.h.
 */
#include <tos/extension.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../mobility/entry.h"

#define ASKED_MAX        4096
#define ALTERNATIVES_MAX 16
#define NAME_BYTES       129
#define KERNEL_BYTES     64
#define TEXT_BYTES       256

/* A carrier that waits for its clone. */
struct asked {
	struct asked *next, **at;
	struct tos_ext *x;
	uint64_t token;
	char name[NAME_BYTES], here[KERNEL_BYTES];
	char alt[ALTERNATIVES_MAX][KERNEL_BYTES];
	size_t n_alts, now;
	bool moves;
	struct tos_value *path, *split; /* the clone's */
	/* of the last one asked */
	int rc;
	char text[TEXT_BYTES];
};

struct spawner {
	struct asked *first;
	size_t n;
};

static struct asked *asked_new(struct tos_ext *x)
{
	struct spawner *sp = tos_data(x);
	struct asked *a = sp->n < ASKED_MAX ? calloc(1, sizeof(*a)) : NULL;

	if (!a)
		return NULL;
	a->x = x;
	a->at = &sp->first;
	a->next = sp->first;
	if (a->next)
		a->next->at = &a->next;
	sp->first = a;
	sp->n++;
	return a;
}

static void asked_end(struct asked *a)
{
	struct spawner *sp = tos_data(a->x);

	*a->at = a->next;
	if (a->next)
		a->next->at = a->at;
	sp->n--;
	tos_value_free(a->path);
	tos_value_free(a->split);
	free(a);
}

static void refuse(struct asked *a, int rc, const char *text)
{
	tos_fail(a->x, a->token, rc, text);
	asked_end(a);
}

/* ---- where ---- */

static bool alternative_add(struct asked *a, const char *s, size_t n)
{
	if (!n || n >= KERNEL_BYTES || a->n_alts == ALTERNATIVES_MAX)
		return false;
	memcpy(a->alt[a->n_alts], s, n);
	a->alt[a->n_alts++][n] = 0;
	return true;
}

/* "a|b|c" */
static bool entry_split(struct asked *a, const char *entry)
{
	const char *kernel;
	size_t n;

	while ((kernel = entry_next(&entry, &n)))
		if (!alternative_add(a, kernel, n))
			return false;
	return true;
}

/* What the clone's path is: from that entry on, whole. */
static struct tos_value *path_from(const struct tos_value *path, size_t at)
{
	struct tos_value *out = tos_array();

	for (; at < tos_len(path); at++)
		tos_push(out, tos_text(tos_as_text(tos_at(path, at), "")));
	return out;
}

/* To a kernel by name: where the path leads there, on from there; else from there along the path. */
static bool where_named(struct asked *a, const struct tos_value *path, const char *dest)
{
	size_t at = 0;

	while (at < tos_len(path) && !entry_has(tos_as_text(tos_at(path, at), ""), dest))
		at++;
	if (at < tos_len(path)) {
		a->path = path_from(path, at);
	} else {
		a->path = tos_array();
		tos_push(a->path, tos_text(dest));
		for (size_t i = 0; i < tos_len(path); i++)
			tos_push(a->path, tos_text(tos_as_text(tos_at(path, i), "")));
	}
	a->moves = true;
	return alternative_add(a, dest, strlen(dest));
}

static bool where(struct asked *a, const struct tos_value *args)
{
	const struct tos_value *path = tos_get(args, "path");
	const char *dest = tos_get_text(args, "dest", "");

	if (*dest && strcmp(dest, a->here) != 0)
		return where_named(a, path, dest);
	a->path = path_from(path, 0);
	a->moves = !*dest && tos_len(path) > 0;
	return a->moves ? entry_split(a, tos_as_text(tos_at(path, 0), ""))
			: alternative_add(a, a->here, strlen(a->here));
}

/* ---- how much: what it asked for, and half of what is left of the rest ---- */

static void share(struct asked *a, const struct tos_value *args)
{
	static const char *const budgets[] = { "cpu", "hops", "sent", "clones" };
	const struct tos_value *rest = tos_get(args, "rest"), *said = tos_get(args, "split");

	a->split = tos_map();
	for (size_t i = 0; i < sizeof(budgets) / sizeof(*budgets); i++) {
		/* One of the clones is this one. */
		int64_t left = tos_get_int(rest, budgets[i], 0) - (i == 3 ? 1 : 0);
		int64_t half = left > 0 ? left / 2 : 0;

		tos_set(a->split, budgets[i], tos_int(tos_get_int(said, budgets[i], half)));
	}
}

/* ---- asking the kernel ---- */

static void try_next(struct asked *a);

static void spawned(struct tos_ext *x, void *arg, int rc, const char *text, const char *folder,
	const struct tos_value *elements)
{
	struct asked *a = arg;
	struct tos_value *out;

	(void)folder;
	if (rc == 0) {
		out = tos_array();
		tos_push(out, tos_value_copy(tos_at(elements, 0)));
		tos_count(x, "clones_total", 1);
		tos_reply(x, a->token, "ok", out);
		asked_end(a);
		return;
	}
	a->rc = rc;
	snprintf(a->text, sizeof(a->text), "%s", text);
	a->now++;
	try_next(a);
}

static void try_next(struct asked *a)
{
	uint32_t timeout_ms =
		(uint32_t)strtoul(tos_property(a->x, "offer/timeout_ms"), NULL, 10);
	struct tos_value *v, *elements;
	int rc;

	/* What the carrier may not have is not to be had elsewhere. */
	if (a->now == a->n_alts ||
		(a->now && (a->rc == TOS_ERR_LIMIT || a->rc == TOS_ERR_DENIED))) {
		refuse(a, a->rc, a->text);
		return;
	}
	v = tos_map();
	tos_set(v, "name", tos_text(a->name));
	tos_set(v, "dest", tos_text(a->alt[a->now]));
	tos_set(v, "moves", tos_bool(a->moves));
	tos_set(v, "path", tos_value_copy(a->path));
	tos_set(v, "split", tos_value_copy(a->split));
	tos_set(v, "timeout_ms", tos_int(timeout_ms));
	elements = tos_array();
	tos_push(elements, v);
	rc = tos_call(a->x, "Shells", "SPAWN", elements, timeout_ms + 30000u, spawned, a);
	if (rc < 0)
		refuse(a, rc, "the kernel could not be asked to make it");
}

/* ---- what the kernel asks ---- */

static bool text_path(const struct tos_value *path)
{
	if (tos_type(path) != TOS_ARRAY)
		return false;
	for (size_t i = 0; i < tos_len(path); i++)
		if (tos_type(tos_at(path, i)) != TOS_TEXT)
			return false;
	return true;
}

static void on_clone(struct tos_ext *x, const struct tos_message *m)
{
	const struct tos_value *args = tos_at(m->elements, 0);
	const char *name = tos_get_text(args, "name", ""),
		   *here = tos_get_text(args, "here", "");
	struct asked *a;

	if (!*name || strlen(name) >= NAME_BYTES || !*here || strlen(here) >= KERNEL_BYTES ||
		!text_path(tos_get(args, "path"))) {
		tos_fail(x, m->token, TOS_ERR_MALFORMED, "CLONE wants {name, here, path, ...}");
		return;
	}
	a = asked_new(x);
	if (!a) {
		tos_fail(x, m->token, TOS_ERR_NOMEM, "too many carriers are being cloned");
		return;
	}
	a->token = m->token;
	snprintf(a->name, sizeof(a->name), "%s", name);
	snprintf(a->here, sizeof(a->here), "%s", here);
	share(a, args);
	if (where(a, args))
		try_next(a);
	else
		refuse(a, TOS_ERR_MALFORMED, "the path has an entry that names no kernel");
}

static void wake(struct tos_ext *x, struct tos_inbox *in)
{
	struct tos_message m;

	while (tos_inbox_next(in, &m)) {
		if (*m.sender)
			tos_fail(x, m.token, TOS_ERR_DENIED,
				"only the kernel itself tells Spawner");
		else if (strcmp(m.folder, "CLONE") == 0)
			on_clone(x, &m);
		else
			tos_fail(x, m.token, TOS_ERR_MALFORMED, "Spawner knows CLONE");
	}
}

static int start(struct tos_ext *x)
{
	struct spawner *sp = calloc(1, sizeof(*sp));

	if (!sp)
		return TOS_ERR_NOMEM;
	tos_set_data(x, sp);
	return 0;
}

static void stop(struct tos_ext *x)
{
	struct spawner *sp = tos_data(x);

	while (sp->first)
		asked_end(sp->first);
	free(sp);
}

static const struct tos_inbox_spec inboxes[] = {
	{ .name = "Spawner",
		.doc = "makes clones of carriers, here or elsewhere",
		.wake = wake,
		.flags = TOS_INBOX_EXTENSIONS_ONLY | TOS_INBOX_ON_CLONE,
		.bound = 4096,
		.protocol = "CLONE of <tos/extension.h>, by the kernel only" },
	{ 0 },
};

static const struct tos_property_spec properties[] = {
	{ "offer/timeout_ms", "int", "ms",
		"how long a kernel may take to answer whether it would take a clone", 100,
		600000, "10000", false },
	{ 0 },
};

const struct tos_extension tos_extension = {
	TOS_ABI,
	.name = "spawner",
	.doc = "Makes clones of carriers.",
	.inboxes = inboxes,
	.properties = properties,
	.start = start,
	.stop = stop,
};
