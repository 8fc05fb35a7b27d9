/*
 * A configuration that was read again goes into the one that holds, as far as it may while the
 * kernel runs. See config.h.
 */
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "kernel/config_action.h"

/* Where it stands in the file, of both. */
static void given_copy(struct config *to, const struct config *from, size_t i)
{
	uint64_t bit = (uint64_t)1 << i % 64;

	to->given[i / 64] = (to->given[i / 64] & ~bit) | (from->given[i / 64] & bit);
}

static void scalars_take(
	struct config *now, const struct config *fresh, config_change_fn *fn, void *arg)
{
	struct config_key k;
	char from[300], to[300], name[80];

	for (size_t i = 0; i < config_keys(); i++) {
		if (!config_key_get(i, &k))
			continue;
		config_key_text(now, i, from, sizeof(from));
		config_key_text(fresh, i, to, sizeof(to));
		if (k.live)
			given_copy(now, fresh, i);
		if (strcmp(from, to) == 0)
			continue;
		snprintf(
			name, sizeof(name), "%s%s%s", k.section, *k.section ? "." : "", k.name);
		if (k.live)
			must(config_key_set(now, i, to, NULL) == 0);
		fn(arg, name, from, to, k.live);
	}
}

static bool rules_same(const struct config *a, const struct config *b)
{
	if (a->n_own_rules != b->n_own_rules)
		return false;
	for (size_t i = 0; i < a->n_own_rules; i++)
		if (strcmp(a->rules[i], b->rules[i]) != 0)
			return false;
	return true;
}

#define SWAP(a, b)                                                                             \
	do {                                                                                   \
		__typeof__(a) kept_ = (a);                                                     \
		(a) = (b);                                                                     \
		(b) = kept_;                                                                   \
	} while (0)

static void lists_take(
	struct config *now, struct config *fresh, config_change_fn *fn, void *arg)
{
	bool same = rules_same(now, fresh);
	char from[32], to[32];

	snprintf(from, sizeof(from), "%zu", now->n_own_rules);
	snprintf(to, sizeof(to), "%zu", fresh->n_own_rules);
	/* Always: lines and defaults may have changed, too. */
	SWAP(now->rules, fresh->rules);
	SWAP(now->rule_lines, fresh->rule_lines);
	SWAP(now->n_rules, fresh->n_rules);
	SWAP(now->n_own_rules, fresh->n_own_rules);
	if (!same)
		fn(arg, "policy.rules", from, to, true);
	if (now->n_local_uids != fresh->n_local_uids ||
		memcmp(now->local_uids, fresh->local_uids, sizeof(now->local_uids)) != 0) {
		now->n_local_uids = fresh->n_local_uids;
		memcpy(now->local_uids, fresh->local_uids, sizeof(now->local_uids));
		fn(arg, "local.principals", "", "", true);
	}
	if (now->n_pins != fresh->n_pins ||
		memcmp(now->pin, fresh->pin, sizeof(now->pin)) != 0) {
		now->n_pins = fresh->n_pins;
		memcpy(now->pin, fresh->pin, sizeof(now->pin));
		fn(arg, "programs.pin", "", "", true);
	}
	if (now->n_listen != fresh->n_listen ||
		memcmp(now->listen, fresh->listen, sizeof(now->listen)) != 0)
		fn(arg, "listen", now->listen[0], fresh->listen[0], false);
	if (now->n_require != fresh->n_require ||
		memcmp(now->require, fresh->require, sizeof(now->require)) != 0)
		fn(arg, "sandbox.require", "", "", false);
}

static void peers_take(
	struct config *now, struct config *fresh, config_change_fn *fn, void *arg)
{
	char name[80];
	bool same = now->n_peers == fresh->n_peers;

	for (size_t i = 0; i < fresh->n_peers; i++) {
		const struct config_peer *p = &fresh->peers[i], *was = NULL;

		for (size_t k = 0; k < now->n_peers && !was; k++)
			if (strcmp(now->peers[k].name, p->name) == 0)
				was = &now->peers[k];
		if (was && memcmp(was, p, sizeof(*p)) == 0)
			continue;
		same = true; /* this says so */
		snprintf(name, sizeof(name), "peer %s", p->name);
		fn(arg, name, was && was->n_address ? was->address[0] : "",
			p->n_address ? p->address[0] : "", true);
	}
	if (!same)
		fn(arg, "peer", "", "", true); /* some are gone */
	SWAP(now->peers, fresh->peers);
	SWAP(now->n_peers, fresh->n_peers);
}

const char *config_property(const struct config_extension *x, const char *path)
{
	for (size_t i = 0; i < x->n_property; i++)
		if (strcmp(x->property[i][0] + 1, path) == 0) /* behind its slash */
			return x->property[i][1];
	return NULL;
}

static struct config_extension *extension_of(struct config *c, const char *name)
{
	struct config_extension *x = config_extension(c, name);

	return x && x->library[0] ? x : NULL;
}

static void properties_take(struct config_extension *was, const struct config_extension *x,
	config_change_fn *fn, void *arg)
{
	char name[80];

	if (was->n_property == x->n_property &&
		memcmp(was->property, x->property, sizeof(x->property)) == 0)
		return;
	snprintf(name, sizeof(name), "extension %s", x->name);
	was->n_property = x->n_property;
	memcpy(was->property, x->property, sizeof(x->property));
	fn(arg, name, "", "", true);
}

static bool grants_same(const struct config_extension *a, const struct config_extension *b)
{
	return strcmp(a->directory, b->directory) == 0 && a->file_bytes == b->file_bytes &&
	       strcmp(a->listen, b->listen) == 0 && strcmp(a->ca, b->ca) == 0 &&
	       a->n_places == b->n_places &&
	       memcmp(a->places, b->places, sizeof(a->places)) == 0;
}

/* Properties of installed ones; tosd has the rest since its start. A section that is new counts for
 * properties all the same, one that is gone has none. */
static void installed_take(
	struct config *now, const struct config *fresh, config_change_fn *fn, void *arg)
{
	static const struct config_extension none;
	char name[80];

	for (size_t i = 0; i < fresh->n_installed; i++) {
		const struct config_extension *x = &fresh->installed[i];
		struct config_extension *was = config_extension(now, x->name);

		if (!was && now->n_installed < ARRAY_LEN(now->installed)) {
			was = &now->installed[now->n_installed++];
			snprintf(was->name, sizeof(was->name), "%s", x->name);
			was->isolated = true;
			was->file_bytes = TOSD_FILE_BYTES;
		}
		if (!was || was->library[0])
			continue;
		properties_take(was, x, fn, arg);
		snprintf(name, sizeof(name), "installed %s", x->name);
		if (!grants_same(was, x))
			fn(arg, name, was->listen[0] ? was->listen : was->directory,
				x->listen[0] ? x->listen : x->directory, false);
	}
	for (size_t i = 0; i < now->n_installed; i++)
		if (!config_extension(
			    (struct config *)(uintptr_t)fresh, now->installed[i].name)) {
			struct config_extension *was = &now->installed[i], gone = none;

			snprintf(gone.name, sizeof(gone.name), "%s", was->name);
			properties_take(was, &gone, fn, arg);
			if (was->directory[0] || was->listen[0] || was->n_places)
				fn(arg, was->name, "", "", false);
		}
}

/* Which there are, and where they run, is decided at the start; what they are told is not. */
static void extensions_take(
	struct config *now, struct config *fresh, config_change_fn *fn, void *arg)
{
	char name[80];

	for (size_t i = 0; i < fresh->n_extensions; i++) {
		struct config_extension *x = &fresh->extensions[i],
					*was = extension_of(now, x->name);

		snprintf(name, sizeof(name), "extension %s", x->name);
		if (!was || strcmp(was->library, x->library) != 0 ||
			strcmp(was->privileges, x->privileges) != 0 ||
			was->isolated != x->isolated || !grants_same(was, x))
			fn(arg, name, was ? was->library : "", x->library, false);
		if (was)
			properties_take(was, x, fn, arg);
	}
	for (size_t i = 0; i < now->n_extensions; i++)
		if (!extension_of(fresh, now->extensions[i].name)) {
			snprintf(name, sizeof(name), "extension %s", now->extensions[i].name);
			fn(arg, name, now->extensions[i].library, "", false);
		}
}

void config_take(struct config *now, struct config *fresh, config_change_fn *fn, void *arg)
{
	scalars_take(now, fresh, fn, arg);
	lists_take(now, fresh, fn, arg);
	peers_take(now, fresh, fn, arg);
	extensions_take(now, fresh, fn, arg);
	config_actions_take(now, fresh, fn, arg);
	installed_take(now, fresh, fn, arg);
}
