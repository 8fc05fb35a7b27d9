/*
 * Commit: one-phase and two-phase atomic commit among carriers, on any kernels. Runs in the kernel's
 * process, and keeps what must not be forgotten in the inbox Journal. A carrier begins a transaction
 * at its own kernel's Commit, the coordinator; others join it, each at its own kernel's. Aborts are
 * presumed: what the coordinator does not remember was not committed.
 *
 * This file is the inbox: who asks, which verb, what is due; and loads the journal at the start.
 */
#include "commit.h"

#include <stdarg.h>
#include <time.h>

#define LOAD_MOST     200
#define LOAD_FIRST_MS 50 /* after the start */
#define LOAD_AGAIN_MS 1000
#define LEFT_MOST_MS  604800000 /* as timeout/most_ms */

int64_t wall_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_REALTIME, &t);
	return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

bool copy(char *out, size_t cap, const char *text)
{
	size_t n = strlen(text);

	if (n >= cap)
		return false;
	memcpy(out, text, n + 1);
	return true;
}

int era_compare(const struct era *a, const struct era *b)
{
	if (a->count != b->count)
		return a->count < b->count ? -1 : 1;
	return memcmp(a->nonce, b->nonce, sizeof(a->nonce));
}

struct tos_value *era_value(const struct era *e)
{
	struct tos_value *v = tos_array();

	tos_push(v, tos_int(e->count));
	tos_push(v, tos_bytes(e->nonce, sizeof(e->nonce)));
	return v;
}

void era_read(const struct tos_value *v, struct era *out)
{
	size_t n;
	const uint8_t *p = tos_as_bytes(tos_at(v, 1), &n);

	memset(out, 0, sizeof(*out));
	out->count = tos_as_int(tos_at(v, 0), 0);
	if (p && n == sizeof(out->nonce))
		memcpy(out->nonce, p, n);
}

struct tos_value *one(struct tos_value *v)
{
	struct tos_value *a = tos_array();

	tos_push(a, v);
	return a;
}

void ok(struct tos_ext *x, uint64_t token, struct tos_value *map)
{
	if (token)
		tos_reply(x, token, "ok", one(map ? map : tos_map()));
	else
		tos_value_free(map);
}

uint64_t take(uint64_t *token)
{
	uint64_t t = *token;

	*token = 0;
	return t;
}

void no(struct tos_ext *x, uint64_t token, int rc, const char *text)
{
	if (token)
		tos_fail(x, token, rc, text);
}

size_t value_bytes(const struct tos_value *v)
{
	uint8_t *bytes = NULL;
	size_t n = 0;

	if (v && tos_encode(v, &bytes, &n) < 0)
		n = SIZE_MAX;
	free(bytes);
	return n;
}

void coordinator_of(const char *tx, char out[KERNEL_BYTES])
{
	const char *slash = strrchr(tx, '/');
	size_t n = slash ? (size_t)(slash - tx) : 0;

	if (n >= KERNEL_BYTES)
		n = 0;
	memcpy(out, tx, n);
	out[n] = '\0';
}

int64_t left_of(const struct tos_value *args)
{
	int64_t left = tos_get_int(args, "left_ms", 0);

	return left < 0 ? 0 : left > LEFT_MOST_MS ? LEFT_MOST_MS : left;
}

int ask(struct tos_ext *x, const char *kernel, const char *verb, struct tos_value *args,
	uint32_t timeout_ms, tos_answer_fn *done, void *arg)
{
	char dest[KERNEL_BYTES + 8];

	snprintf(dest, sizeof(dest), "%s/Commit", kernel);
	return tos_call(x, dest, verb, one(args), timeout_ms, done, arg);
}

int journal(struct tos_ext *x, const char *key, struct tos_value *value, int64_t expires,
	tos_answer_fn *done, void *arg)
{
	struct tos_value *args = tos_map();
	const char *verb = value ? "PUT" : "DROP";

	tos_set(args, "key", tos_text(key));
	if (value)
		tos_set(args, "value", value);
	if (expires)
		tos_set(args, "expires", tos_int(expires));
	return tos_call(x, "Journal", verb, one(args), 0, done, arg);
}

static void on_dropped(struct tos_ext *x, void *arg, int rc, const char *text,
	const char *folder, const struct tos_value *elements)
{
	(void)x;
	(void)arg;
	(void)rc;
	(void)text;
	(void)folder;
	(void)elements;
}

void journal_drop(struct tos_ext *x, const char *key)
{
	journal(x, key, NULL, 0, on_dropped, NULL);
}

bool not_written(int rc)
{
	return rc != TOS_ERR_UNKNOWN && rc != TOS_ERR_TIMEOUT && rc != TOS_ERR_CANCELLED;
}

int64_t setting(struct tos_ext *x, const char *path)
{
	return strtoll(tos_property(x, path), NULL, 10);
}

int64_t keep_until(struct tos_ext *x)
{
	return wall_ms() + setting(x, "keep/ms");
}

void logf_(struct tos_ext *x, int level, const char *fmt, ...)
{
	char text[512];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	tos_log(x, level, text);
}

/* ---- time */

static void tick(struct tos_ext *x, void *arg)
{
	struct commit *c = arg;
	int64_t now = tos_now_ms(x), doubts;
	bool soon = false, more;
	char text[24];

	c->timer = NULL; /* what the steps do may begin it anew */
	more = tx_tick(c, now, &soon);
	more = part_tick(c, now, &soon) || more;
	if (more && !c->timer) {
		c->slow = !soon;
		c->timer = tos_timer(x, soon ? TICK_MS : TICK_SLOW_MS, tick, c);
	}
	doubts = part_doubts(c);
	if (doubts != c->in_doubt) {
		c->in_doubt = doubts;
		snprintf(text, sizeof(text), "%lld", (long long)doubts);
		tos_property_set(x, "in_doubt", text);
	}
}

void tick_soon(struct commit *c)
{
	if (c->timer && !c->slow)
		return;
	if (c->timer)
		tos_timer_stop(c->x, c->timer);
	c->slow = false;
	c->timer = tos_timer(c->x, TICK_MS, tick, c);
}

/* ---- the journal, at the start */

static void load(struct commit *c);
static void load_begin(struct tos_ext *x, void *arg);
static void wake(struct tos_ext *x, struct tos_inbox *in);

/* From where it was: a row that is loaded twice would be two. */
static void load_again(struct tos_ext *x, void *arg)
{
	(void)x;
	load(arg);
}

static void on_rows(struct tos_ext *x, void *arg, int rc, const char *text, const char *folder,
	const struct tos_value *elements)
{
	struct commit *c = arg;
	const struct tos_value *answer = tos_at(elements, 0), *rows = tos_get(answer, "rows");
	size_t n = tos_len(rows);

	(void)folder;
	if (rc < 0) {
		logf_(x, 3, "the journal could not be read: %s", text);
		tos_timer(x, LOAD_AGAIN_MS, load_again, c);
		return;
	}
	for (size_t i = 0; i < n; i++) {
		const struct tos_value *row = tos_at(rows, i), *v = tos_get(row, "value");
		const char *tx = tos_get_text(v, "tx", "");
		size_t n_key;
		const uint8_t *key = tos_get_bytes(row, "key", &n_key);

		if (key && n_key && key[0] == 't' && *tx)
			tx_load(c, tx, v);
		else if (key && n_key && key[0] == 'p' && *tx)
			part_load(c, v);
	}
	if (tos_get_bool(answer, "more", false) && n > 0) {
		tos_value_free(c->after);
		c->after = tos_value_copy(tos_get(tos_at(rows, n - 1), "key"));
		load(c);
		return;
	}
	c->loaded = true;
	tick_soon(c);
	if (c->inbox)
		wake(x, c->inbox); /* the folders that waited */
}

static void load(struct commit *c)
{
	struct tos_value *args = tos_map();

	if (c->after)
		tos_set(args, "after", tos_value_copy(c->after));
	tos_set(args, "most", tos_int(LOAD_MOST));
	if (tos_call(c->x, "Journal", "LIST", one(args), 0, on_rows, c) < 0)
		tos_timer(c->x, LOAD_AGAIN_MS, load_again, c);
}

static void on_info(struct tos_ext *x, void *arg, int rc, const char *text, const char *folder,
	const struct tos_value *elements)
{
	struct commit *c = arg;

	(void)text;
	(void)folder;
	c->restored_ms = tos_get_int(tos_at(elements, 0), "restored_ms", 0);
	if (rc == 0)
		load(c);
	else
		tos_timer(x, LOAD_AGAIN_MS, load_begin, c);
}

static void load_begin(struct tos_ext *x, void *arg)
{
	struct commit *c = arg;

	if (tos_call(x, "Journal", "INFO", one(tos_map()), 0, on_info, c) < 0)
		tos_timer(x, LOAD_AGAIN_MS, load_begin, c);
}

/* ---- the inbox */

static void list(struct commit *c, const struct asker *a)
{
	struct tos_value *rows = tos_array();

	tx_list(c, a, rows);
	part_list(c, a, rows);
	tos_reply(c->x, a->m->token, "ok", one(rows));
}

/* An operator's word, signed and checked by this kernel (act resolve-tx). */
static void resolve(struct commit *c, const struct asker *a)
{
	const char *id = tos_get_text(a->args, "tx", ""), *by = tos_get_text(a->args, "by", ""),
		   *to = tos_get_text(a->args, "decision", "");
	bool commit = strcmp(to, "commit") == 0, found;
	struct tos_value *map;

	if (!commit && strcmp(to, "abort") != 0) {
		no(c->x, a->m->token, TOS_ERR_MALFORMED, "a decision is commit or abort");
		return;
	}
	found = tx_resolve(c, id, commit, by);
	found = part_resolve(c, id, commit, by) || found;
	if (!found) {
		no(c->x, a->m->token, TOS_ERR_NOT_FOUND,
			"no transaction of that name is in doubt at this kernel");
		return;
	}
	tos_count(c->x, "resolved_total", 1);
	map = tos_map();
	tos_set(map, "tx", tos_text(id));
	tos_set(map, "decision", tos_text(to));
	ok(c->x, a->m->token, map);
}

enum { CARRIERS = 1, COMMITS = 2, CLIENTS = 4, KERNEL = 8 };
static const struct {
	const char *verb;
	unsigned who;
	void (*fn)(struct commit *c, const struct asker *a);
} verbs[] = {
	{ "BEGIN", CARRIERS, tx_begin },
	{ "PREPARE", CARRIERS, tx_prepare },
	{ "COMMIT", CARRIERS, tx_commit },
	{ "ABORT", CARRIERS, tx_abort },
	{ "STATUS", CARRIERS | CLIENTS | KERNEL, tx_status },
	{ "LIST", CARRIERS | CLIENTS | KERNEL, list },
	{ "JOIN", CARRIERS, part_join },
	{ "VOTE", CARRIERS, part_vote },
	{ "DONE", CARRIERS, part_done },
	{ "ENTER", COMMITS, tx_enter },
	{ "OUTCOME", COMMITS, tx_outcome },
	{ "ENDED", COMMITS, tx_ended },
	{ "POLL", COMMITS, part_poll },
	{ "DECIDE", COMMITS, part_decide },
	{ "RESOLVE", KERNEL, resolve },
};

/* Everybody's: the kernel itself, administrators, and as in Control the local users whom it, or the
 * kernel that they ask through, lets read. Whoever came with a certificate sees its own. */
static bool sees_all(const struct asker *a)
{
	const struct tos_value *roles = tos_get(a->m->info, "roles");

	for (size_t i = 0; i < tos_len(roles); i++)
		if (strcmp(tos_as_text(tos_at(roles, i), ""), "admin") == 0)
			return true;
	return a->kernel || (a->client && !*a->owner);
}

static void asker_read(struct asker *a, const struct tos_message *m)
{
	const char *class = tos_get_text(m->info, "class", "");
	const char *slash = strchr(m->sender, '/');
	size_t n = slash ? (size_t)(slash - m->sender) : 0;

	memset(a, 0, sizeof(*a));
	a->m = m;
	a->args = tos_type(tos_at(m->elements, 0)) == TOS_MAP ? tos_at(m->elements, 0) : NULL;
	a->owner = tos_get_text(m->info, "owner", "");
	a->here = !*tos_get_text(m->info, "kernel", "");
	a->kernel = !*m->sender;
	a->carrier = strcmp(class, "carrier") == 0;
	a->client = strcmp(class, "client") == 0;
	if (strcmp(class, "extension") == 0 && slash && strcmp(slash, "/Commit") == 0 &&
		n < sizeof(a->from))
		memcpy(a->from, m->sender, n);
	a->all = sees_all(a);
	era_read(tos_get(m->info, "e"), &a->e);
	a->n = tos_get_int(m->info, "n", 0);
	a->seq = tos_get_int(m->info, "seq", 0);
}

static unsigned classes(const struct asker *a)
{
	return a->kernel    ? KERNEL
	       : a->carrier ? CARRIERS
	       : a->client  ? CLIENTS
	       : a->from[0] ? COMMITS
			    : 0;
}

static void deal(struct commit *c, const struct tos_message *m)
{
	size_t i = 0, n = sizeof(verbs) / sizeof(*verbs);
	struct asker a;

	while (i < n && strcmp(verbs[i].verb, m->folder) != 0)
		i++;
	asker_read(&a, m);
	if (i == n)
		no(c->x, m->token, TOS_ERR_UNSUPPORTED,
			"Commit knows BEGIN, JOIN, PREPARE, COMMIT, ABORT, VOTE, DONE, STATUS, LIST");
	else if (!(verbs[i].who & classes(&a)))
		no(c->x, m->token, TOS_ERR_DENIED, "that verb is not for you");
	else if (a.carrier && !a.here)
		no(c->x, m->token, TOS_ERR_DENIED,
			"a carrier asks the Commit of the kernel where it is: \"Commit\"");
	else if (!m->token)
		tos_count(c->x, "posts_ignored_total", 1); /* every verb is a call */
	else
		verbs[i].fn(c, &a);
	if (c->timer && c->slow)
		tick_soon(c);
}

static void wake(struct tos_ext *x, struct tos_inbox *in)
{
	struct commit *c = tos_data(x);
	struct tos_message m;

	/* Nothing is answered from half a journal: folders wait. */
	if (!c->loaded) {
		c->inbox = in;
		return;
	}
	while (tos_inbox_next(in, &m))
		deal(c, &m);
}

static int start(struct tos_ext *x)
{
	struct commit *c = calloc(1, sizeof(*c));

	if (!c)
		return TOS_ERR_NOMEM;
	c->x = x;
	tos_set_data(x, c);
	tos_timer(x, LOAD_FIRST_MS, load_begin, c);
	return 0;
}

static void stop(struct tos_ext *x)
{
	struct commit *c = tos_data(x);

	tx_free_all(c);
	part_free_all(c);
	tos_value_free(c->after);
	free(c);
}

static const struct tos_inbox_spec inboxes[] = {
	{ .name = "Commit",
		.doc = "atomic commit among carriers",
		.wake = wake,
		.protocol =
			"BEGIN {[name], [phases], [timeout_ms], [admit]} -> ok {tx}\n"
			"JOIN {tx, [inbox]} -> ok {tx, state, phases, [plan]}\n"
			"PREPARE {tx, [expect], [data], [dry], [timeout_ms]} -> ok {tx, state, members}\n"
			"COMMIT {tx, [expect], [data]} -> ok {tx, state, members} | aborted\n"
			"ABORT {tx, [text]} -> ok {tx, state}\n"
			"VOTE {tx, yes, [plan], [text]} -> ok {tx, state}\n"
			"DONE {tx, [result]} -> ok {}\n"
			"STATUS {tx} -> ok {tx, state, members, ...}; LIST -> ok [...]\n"
			"to inbox `commit` of participants: PREPARE, COMMIT, ABORT {tx, ...}" },
	{ 0 },
};

static const struct tos_property_spec properties[] = {
	{ "timeout/ms", "int", "ms", "Of a transaction whose BEGIN names none.", 100, 86400000,
		"60000", false },
	{ "timeout/most_ms", "int", "ms",
		"The longest that a transaction may take until it is decided.", 100, 604800000,
		"86400000", false },
	{ "keep/ms", "int", "ms",
		"How long what has ended is remembered, so that repeats get their first answer.",
		1000, 31536000000, "604800000", false },
	{ "most/transactions", "int", "",
		"Transactions that this kernel remembers as coordinator.", 1, 100000, "10000",
		false },
	{ "most/parts", "int", "",
		"Parts of carriers in transactions that this kernel remembers.", 1, 100000,
		"10000", false },
	{ "ask/ms", "int", "ms", "How often a participant in doubt asks the coordinator.", 50,
		3600000, "2000", false },
	{ "in_doubt", "int", "", "Parts that voted yes and do not know the decision.", 0, 0,
		"0", true },
	{ 0 },
};

const struct tos_extension tos_extension = {
	TOS_ABI,
	.name = "commit",
	.doc = "Has carriers change something at many kernels, or at none.",
	.inboxes = inboxes,
	.properties = properties,
	.start = start,
	.stop = stop,
};
