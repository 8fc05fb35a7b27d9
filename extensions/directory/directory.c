/*
 * Directory: which kernels there are and where they can be dialled. Runs in the registrar's
 * kernel, and keeps its table in memory: kernels register again at each link-up. Only a kernel
 * itself may register its name; a name goes by the word of the kernel that hosts the Directory. One
 * kernel more than there is room for is refused: none that may be away for a while is forgotten for it.
 *
 * After a start it knows nobody: who asks for a name then has his answer when that kernel has
 * registered, or when settle_ms are over and all that are there should have.
 */
#include <tos/extension.h>

#include <stdlib.h>
#include <string.h>

#define KERNELS_MAX   4096
#define ADDRESSES_MAX 8
#define ADDRESS_BYTES 128
#define NAME_BYTES    64

#define WAITING_MAX 256

struct row {
	char name[NAME_BYTES];
	struct tos_value *addresses;
	int64_t seen_ms; /* monotonic */
};

/* A LOOKUP of a kernel that may register in a moment. */
struct waiting {
	char name[NAME_BYTES];
	uint64_t token;
};

struct directory {
	struct row *rows; /* sorted by name */
	size_t n, cap;
	bool settled; /* who has not registered by now is not there */
	struct waiting waiting[WAITING_MAX];
	size_t n_waiting;
};

/* Where the name stands, or would. */
static size_t row_place(const struct directory *d, const char *name)
{
	size_t low = 0, high = d->n;

	while (low < high) {
		size_t middle = (low + high) / 2;

		if (strcmp(d->rows[middle].name, name) < 0)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

static struct row *row_find(struct directory *d, const char *name)
{
	size_t i = row_place(d, name);

	return i < d->n && strcmp(d->rows[i].name, name) == 0 ? &d->rows[i] : NULL;
}

static void row_remove(struct directory *d, struct row *r)
{
	size_t i = (size_t)(r - d->rows);

	tos_value_free(r->addresses);
	memmove(r, r + 1, (d->n - i - 1) * sizeof(*r));
	d->n--;
}

static int row_add(struct directory *d, const char *name, struct row **out)
{
	size_t i;

	if (d->n == KERNELS_MAX)
		return TOS_ERR_LIMIT;
	if (d->n == d->cap) {
		size_t cap = d->cap ? d->cap * 2 : 16;
		struct row *rows = realloc(d->rows, cap * sizeof(*rows));

		if (!rows)
			return TOS_ERR_NOMEM;
		d->rows = rows;
		d->cap = cap;
	}
	i = row_place(d, name);
	memmove(&d->rows[i + 1], &d->rows[i], (d->n - i) * sizeof(*d->rows));
	d->rows[i] = (struct row){ .addresses = NULL };
	strcpy(d->rows[i].name, name); /* the caller checked its length */
	d->n++;
	*out = &d->rows[i];
	return 0;
}

static bool addresses_ok(const struct tos_value *a)
{
	if (tos_type(a) != TOS_ARRAY || tos_len(a) > ADDRESSES_MAX)
		return false;
	for (size_t i = 0; i < tos_len(a); i++) {
		size_t n = tos_len(tos_at(a, i));

		if (tos_type(tos_at(a, i)) != TOS_TEXT || n < 1 || n > ADDRESS_BYTES)
			return false;
	}
	return true;
}

/* The kernel's part of a sender such as "host0" or "host0/Home"; "" is this kernel itself. */
static bool sender_is(struct tos_ext *x, const struct tos_message *m, const char *kernel)
{
	size_t n = strcspn(m->sender, "/");

	if (!*m->sender)
		return strcmp(tos_kernel_name(x), kernel) == 0;
	return strcmp(tos_get_text(m->info, "class", ""), "kernel") == 0 &&
	       n == strlen(kernel) && memcmp(m->sender, kernel, n) == 0;
}

static struct tos_value *one(struct tos_value *v)
{
	struct tos_value *a = tos_array();

	tos_push(a, v);
	return a;
}

static struct tos_value *row_value(const struct row *r)
{
	struct tos_value *v = tos_map();

	tos_set(v, "name", tos_text(r->name));
	tos_set(v, "addresses", r->addresses ? tos_value_copy(r->addresses) : tos_array());
	return v;
}

static void unknown(struct tos_ext *x, uint64_t token)
{
	tos_fail(x, token, TOS_ERR_NOT_FOUND, "no kernel of that name is registered");
}

/* Those who waited for that name have their answer. */
static void waiting_answer(struct tos_ext *x, struct directory *d, const struct row *r)
{
	size_t left = 0;

	for (size_t i = 0; i < d->n_waiting; i++)
		if (strcmp(d->waiting[i].name, r->name) == 0)
			tos_reply(x, d->waiting[i].token, "ok", one(row_value(r)));
		else
			d->waiting[left++] = d->waiting[i];
	d->n_waiting = left;
}

static void settled(struct tos_ext *x, void *arg)
{
	struct directory *d = arg;

	d->settled = true;
	for (size_t i = 0; i < d->n_waiting; i++)
		unknown(x, d->waiting[i].token);
	d->n_waiting = 0;
}

static void on_register(struct tos_ext *x, struct directory *d, const struct tos_message *m)
{
	const struct tos_value *args = tos_at(m->elements, 0),
			       *addresses = tos_get(args, "addresses");
	const char *name = tos_get_text(args, "name", "");
	struct row *r;
	int rc = 0;

	if (!*name || strlen(name) >= NAME_BYTES || !addresses_ok(addresses)) {
		tos_fail(x, m->token, TOS_ERR_MALFORMED, "REGISTER wants {name, addresses}");
		return;
	}
	if (!sender_is(x, m, name)) {
		tos_fail(x, m->token, TOS_ERR_DENIED,
			"only a kernel itself may register its name");
		return;
	}
	r = row_find(d, name);
	if (!r)
		rc = row_add(d, name, &r);
	if (rc < 0) {
		tos_fail(x, m->token, rc, "the directory has no room for another kernel");
		return;
	}
	tos_value_free(r->addresses);
	r->addresses = tos_value_copy(addresses);
	r->seen_ms = tos_now_ms(x);
	tos_count(x, "registered", 1);
	tos_reply(x, m->token, "ok", one(tos_map()));
	waiting_answer(x, d, r);
}

static void on_remove(struct tos_ext *x, struct directory *d, const struct tos_message *m)
{
	struct row *r = row_find(d, tos_get_text(tos_at(m->elements, 0), "name", ""));

	if (!sender_is(x, m, tos_kernel_name(x)))
		tos_fail(x, m->token, TOS_ERR_DENIED,
			"only the kernel of the directory may remove names");
	else if (!r)
		tos_fail(x, m->token, TOS_ERR_NOT_FOUND, "no kernel of that name");
	else {
		row_remove(d, r);
		tos_reply(x, m->token, "ok", one(tos_map()));
	}
}

static void on_lookup(struct tos_ext *x, struct directory *d, const struct tos_message *m)
{
	const char *name = tos_get_text(tos_at(m->elements, 0), "name", "");
	struct row *r = row_find(d, name);
	struct waiting *w;

	if (r) {
		tos_reply(x, m->token, "ok", one(row_value(r)));
	} else if (d->settled || d->n_waiting == WAITING_MAX || strlen(name) >= NAME_BYTES) {
		unknown(x, m->token);
	} else {
		w = &d->waiting[d->n_waiting++];
		strcpy(w->name, name); /* its length was looked at */
		w->token = m->token;
	}
}

static void on_list(struct tos_ext *x, struct directory *d, const struct tos_message *m)
{
	struct tos_value *all = tos_array();
	int64_t now = tos_now_ms(x);

	for (size_t i = 0; i < d->n; i++) {
		struct tos_value *v = row_value(&d->rows[i]);

		tos_set(v, "seen_ms", tos_int(now - d->rows[i].seen_ms));
		tos_push(all, v);
	}
	tos_reply(x, m->token, "ok", one(all));
}

static void wake(struct tos_ext *x, struct tos_inbox *in)
{
	static const struct {
		const char *verb;
		void (*handle)(
			struct tos_ext *, struct directory *, const struct tos_message *);
	} verbs[] = { { "REGISTER", on_register }, { "REMOVE", on_remove },
		{ "LOOKUP", on_lookup }, { "LIST", on_list } };
	struct tos_message m;

	while (tos_inbox_next(in, &m)) {
		size_t i = 0, n = sizeof(verbs) / sizeof(*verbs);

		while (i < n && strcmp(verbs[i].verb, m.folder) != 0)
			i++;
		if (i < n)
			verbs[i].handle(x, tos_data(x), &m);
		else
			tos_fail(x, m.token, TOS_ERR_MALFORMED,
				"Directory knows REGISTER, REMOVE, LOOKUP, LIST");
	}
}

static int start(struct tos_ext *x)
{
	struct directory *d = calloc(1, sizeof(*d));

	tos_set_data(x, d);
	if (!d)
		return TOS_ERR_NOMEM;
	if (!tos_timer(
		    x, (uint32_t)strtoul(tos_property(x, "settle_ms"), NULL, 10), settled, d))
		d->settled = true;
	return 0;
}

static void stop(struct tos_ext *x)
{
	struct directory *d = tos_data(x);

	while (d->n)
		row_remove(d, &d->rows[d->n - 1]);
	free(d->rows);
	free(d);
}

static const struct tos_inbox_spec inboxes[] = {
	{ .name = "Directory",
		.doc = "which kernels there are and where they can be dialled",
		.wake = wake,
		.protocol =
			"REGISTER {name, addresses: [text]} -> ok {}: from that kernel only\n"
			"REMOVE {name} -> ok {}: from the kernel of the directory only\n"
			"LOOKUP {name} -> ok {name, addresses} | not-found; just after a start "
			"not before settle_ms\n"
			"LIST -> ok [{name, addresses, seen_ms}]: ms since it registered" },
	{ 0 },
};

static const struct tos_property_spec properties[] = {
	{ "settle_ms", "int", "ms",
		"after a start, how long who asks for an unknown kernel waits for it to register",
		0, 60000, "3000", false },
	{ 0 },
};

const struct tos_extension tos_extension = {
	TOS_ABI,
	.name = "directory",
	.doc = "Tells kernels where other kernels are.",
	.inboxes = inboxes,
	.properties = properties,
	.start = start,
	.stop = stop,
};
