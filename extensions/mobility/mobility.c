/*
 * Mobility: where a carrier goes next. The kernel tells it when begin() returned or tos.go()
 * was called; it takes the next entry of the path, tries the entry's alternatives one after the
 * other, and obeys the ticket's on-unreachable when none takes the carrier. The kernel moves
 * the carrier; here is only the decision. The verbs of both sides are described in
 * tos/extension.h.
 *
 * What is decided by an offer that came to nothing may be decided again. Once a hand-off has
 * begun (in-doubt) nothing is: the kernel settles it.
 */
#include <tos/extension.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "entry.h"

#define JOURNEYS_MAX     4096
#define ALTERNATIVES_MAX 16
#define NAME_BYTES       129
#define KERNEL_BYTES     64
#define TEXT_BYTES       256
#define WAIT_DEFAULT_MS  30000
#define FINAL_TRIES                                                                            \
	6 /* for FINISH, FAULT, RESUME, DROP_ENTRY, which the kernel should never fail */

static const char *code_word(int rc)
{
	static const char *const words[] = { "ok", "no-such-inbox", "denied", "full",
		"unreachable", "expired", "too-large", "moved", "malformed", "unknown",
		"no-memory", "limit", "wrong-state", "exists", "not-found", "bad-signature",
		"untrusted", "revoked", "not-yet-valid", "replayed", "superseded", "timed-out",
		"wrong-version", "io", "store", "config", "usage", "cancelled", "sandbox",
		"fault", "refused", "diverged", "in-doubt", "closed", "unsupported", "syntax",
		"bad-name" };

	return rc <= 0 && (size_t)-rc < sizeof(words) / sizeof(*words) ? words[-rc] : "unknown";
}

enum policy { WAIT, SKIP, ALTERNATE, FAIL };

struct alternative {
	char kernel[KERNEL_BYTES];
	bool refused; /* by its own word: not to be asked again */
};

/* One carrier that is between two kernels. It lives until the kernel has taken over. */
struct journey {
	struct journey *next, **at; /* in its bucket */
	struct tos_ext *x;
	char name[NAME_BYTES];
	bool go;    /* tos.go() awaits an answer: failures go back there */
	bool entry; /* the first entry of the path goes with the move */
	enum policy policy;
	int64_t wait_ms, give_up_at; /* 0: not yet tried */
	uint32_t offer_ms;
	struct tos_value *path; /* what remains, the entry in hand first */
	struct alternative alt[ALTERNATIVES_MAX];
	size_t n_alts, now; /* the one that is asked */
	uint32_t back_off_ms;
	bool told; /* that it waits */
	unsigned tries;
	/* what came of the last one asked */
	int rc;
	char host[KERNEL_BYTES], text[TEXT_BYTES];
	/* the verb that ends it, to be repeated if that fails */
	const char *verb;
};

#define BUCKETS 1024
struct mobility {
	struct journey *bucket[BUCKETS];
	size_t n;
	uint32_t random;
};

/* ---- the table ---- */

static struct journey **bucket_of(struct mobility *mob, const char *name)
{
	uint32_t h = 2166136261u;

	for (; *name; name++)
		h = (h ^ (unsigned char)*name) * 16777619u;
	return &mob->bucket[h % BUCKETS];
}

static struct journey *journey_find(struct mobility *mob, const char *name)
{
	struct journey *j = *bucket_of(mob, name);

	while (j && strcmp(j->name, name) != 0)
		j = j->next;
	return j;
}

static struct journey *journey_new(struct tos_ext *x, const char *name)
{
	struct mobility *mob = tos_data(x);
	struct journey *j = mob->n < JOURNEYS_MAX ? calloc(1, sizeof(*j)) : NULL;

	if (!j)
		return NULL;
	j->x = x;
	snprintf(j->name, sizeof(j->name), "%s", name);
	j->at = bucket_of(mob, name);
	j->next = *j->at;
	if (j->next)
		j->next->at = &j->next;
	*j->at = j;
	mob->n++;
	return j;
}

static void journey_end(struct journey *j)
{
	struct mobility *mob = tos_data(j->x);

	*j->at = j->next;
	if (j->next)
		j->next->at = j->at;
	mob->n--;
	tos_value_free(j->path);
	free(j);
}

/* ---- words ---- */

/* "30000" (ms, as tickets say it), "30s", "500ms", "5m", "2h"; -1 if it is none. */
static int64_t duration_ms(const char *s)
{
	char *end;
	long long n = strtoll(s, &end, 10);
	static const struct {
		const char *unit;
		int64_t ms;
	} units[] = { { "ms", 1 }, { "s", 1000 }, { "", 1 }, { "m", 60000 }, { "h", 3600000 },
		{ "d", 86400000 } };

	if (end == s || n < 0 || n > 1000000000)
		return -1;
	for (size_t i = 0; i < sizeof(units) / sizeof(*units); i++)
		if (strcmp(end, units[i].unit) == 0)
			return n * units[i].ms;
	return -1;
}

static int policy_parse(const char *s, struct journey *j)
{
	static const struct {
		const char *word;
		enum policy policy;
	} words[] = { { "", WAIT }, { "wait", WAIT }, { "skip", SKIP },
		{ "alternate", ALTERNATE }, { "fail", FAIL } };

	j->wait_ms = WAIT_DEFAULT_MS;
	if (strncmp(s, "wait=", 5) == 0) {
		j->policy = WAIT;
		j->wait_ms = duration_ms(s + 5);
		return j->wait_ms < 0 ? TOS_ERR_MALFORMED : 0;
	}
	for (size_t i = 0; i < sizeof(words) / sizeof(*words); i++)
		if (strcmp(words[i].word, s) == 0) {
			j->policy = words[i].policy;
			return 0;
		}
	return TOS_ERR_MALFORMED;
}

static bool alternative_add(struct journey *j, const char *s, size_t n)
{
	if (!n || n >= KERNEL_BYTES || j->n_alts == ALTERNATIVES_MAX)
		return false;
	memcpy(j->alt[j->n_alts].kernel, s, n);
	j->alt[j->n_alts].kernel[n] = 0;
	j->alt[j->n_alts].refused = false;
	j->n_alts++;
	return true;
}

/* "a|b|c" */
static bool entry_split(struct journey *j, const char *entry)
{
	const char *kernel;
	size_t n;

	j->n_alts = 0;
	j->now = 0;
	while ((kernel = entry_next(&entry, &n)))
		if (!alternative_add(j, kernel, n))
			return false;
	return true;
}

static const char *first_entry(const struct journey *j)
{
	return tos_as_text(tos_at(j->path, 0), "");
}

/* ---- asking the kernel ---- */

static void try_next(struct journey *j);
static void take_entry(struct journey *j);

static struct tos_value *args_of(const struct journey *j)
{
	struct tos_value *v = tos_map();

	tos_set(v, "name", tos_text(j->name));
	return v;
}

static int ask(struct journey *j, const char *verb, struct tos_value *args, uint32_t timeout_ms,
	tos_answer_fn *done, void *arg)
{
	struct tos_value *elements = tos_array();

	tos_push(elements, args);
	return tos_call(j->x, "Shells", verb, elements, timeout_ms, done, arg);
}

/* What may be mended while it waits: a kernel that is away, a full disk here or there, a clock that is
 * far off. */
static bool passes(int rc)
{
	return rc == TOS_ERR_UNREACHABLE || rc == TOS_ERR_STORE || rc == TOS_ERR_NOT_YET ||
	       rc == TOS_ERR_EXPIRED;
}

/* Answers that mean that the carrier is no matter of ours any more. */
static bool out_of_hand(int rc)
{
	return rc == TOS_ERR_STATE || rc == TOS_ERR_NOT_FOUND || rc == TOS_ERR_IN_DOUBT;
}

/* For what is only told: TRAIL, WAITING. */
static void tell(struct journey *j, const char *verb, struct tos_value *args)
{
	ask(j, verb, args, 0, NULL, NULL);
}

static void ending_repeat(struct tos_ext *x, void *arg);

static void ending_done(struct tos_ext *x, void *arg, int rc, const char *text,
	const char *folder, const struct tos_value *elements)
{
	struct journey *j = arg;
	char line[TEXT_BYTES + NAME_BYTES + 64];

	(void)folder;
	(void)elements;
	if (rc == 0 || out_of_hand(rc)) {
		journey_end(j);
		return;
	}
	if (++j->tries < FINAL_TRIES && tos_timer(x, 200u << j->tries, ending_repeat, j))
		return;
	snprintf(line, sizeof(line), "%s of %s failed: %s", j->verb, j->name, text);
	tos_log(x, 3, line);
	tos_count(x, "stuck_total", 1);
	journey_end(j);
}

/* FINISH, FAULT or RESUME: after that the carrier is the kernel's again. */
static void ending_repeat(struct tos_ext *x, void *arg)
{
	struct journey *j = arg;
	struct tos_value *v = args_of(j);
	int rc;

	if (strcmp(j->verb, "FINISH") != 0) {
		tos_set(v, "code", tos_text(code_word(j->rc)));
		tos_set(v, "text", tos_text(j->text));
	}
	rc = ask(j, j->verb, v, 0, ending_done, j);
	if (rc < 0)
		ending_done(x, j, rc, "it could not be asked", "", NULL);
}

static void ending(struct journey *j, const char *verb)
{
	j->verb = verb;
	j->tries = 0;
	ending_repeat(j->x, j);
}

static void fail_with(struct journey *j, int rc, const char *text)
{
	j->rc = rc;
	if (text != j->text)
		snprintf(j->text, sizeof(j->text), "%s", text);
	ending(j, j->go ? "RESUME" : "FAULT");
}

/* ---- when nobody takes it ---- */

static void drop_done(struct tos_ext *x, void *arg, int rc, const char *text,
	const char *folder, const struct tos_value *elements)
{
	struct journey *j = arg;

	(void)x;
	(void)folder;
	(void)elements;
	if (out_of_hand(rc)) {
		journey_end(j);
		return;
	}
	if (rc < 0) {
		fail_with(j, rc, text);
		return;
	}
	tos_value_free(tos_take_at(j->path, 0));
	take_entry(j);
}

static void skip(struct journey *j)
{
	struct tos_value *trail = args_of(j);
	int rc;

	tos_set(trail, "kernel", tos_text(first_entry(j)));
	tos_set(trail, "event", tos_text("skipped"));
	tos_set(trail, "error", tos_text(code_word(j->rc)));
	tell(j, "TRAIL", trail);
	tos_count(j->x, "skipped_total", 1);
	rc = ask(j, "DROP_ENTRY", args_of(j), 0, drop_done, j);
	if (rc < 0)
		drop_done(j->x, j, rc, "the entry could not be dropped", "", NULL);
}

static void retry(struct tos_ext *x, void *arg)
{
	struct journey *j = arg;

	(void)x;
	j->now = 0;
	try_next(j);
}

static uint32_t property_ms(struct tos_ext *x, const char *path)
{
	return (uint32_t)strtoul(tos_property(x, path), NULL, 10);
}

/* Half of it for sure, the rest by chance, so that carriers don't all knock at once. */
static uint32_t jitter(struct mobility *mob, uint32_t ms)
{
	mob->random = mob->random * 1664525u + 1013904223u;
	return ms / 2 + (uint32_t)(((uint64_t)mob->random * (ms / 2 + 1)) >> 32);
}

static void tell_waiting(struct journey *j, int64_t left)
{
	struct tos_value *v = args_of(j);

	tos_set(v, "dest", tos_text(j->host));
	tos_set(v, "code", tos_text(code_word(j->rc)));
	tos_set(v, "text",
		tos_textf("%s. %s, or launch with --on-unreachable skip", j->text,
			j->rc == TOS_ERR_UNREACHABLE ? "Start that kernel"
			: j->rc == TOS_ERR_STORE     ? "Make room on its disk, or on this one"
						     : "Set the clocks right"));
	tos_set(v, "until_ms", tos_int(left));
	tell(j, "WAITING", v);
	j->told = true;
	tos_count(j->x, "waited_total", 1);
}

/* False when the time is up. */
static bool wait_more(struct journey *j)
{
	int64_t left = j->give_up_at - tos_now_ms(j->x);
	uint32_t most = property_ms(j->x, "retry/most_ms"), pause;

	if (left <= 0)
		return false;
	if (!j->told)
		tell_waiting(j, left);
	j->back_off_ms =
		j->back_off_ms ? j->back_off_ms * 2 : property_ms(j->x, "retry/first_ms");
	if (j->back_off_ms > most)
		j->back_off_ms = most;
	pause = jitter(tos_data(j->x), j->back_off_ms);
	if (pause > left)
		pause = (uint32_t)left;
	return tos_timer(j->x, pause, retry, j) != NULL;
}

static bool all_refused(const struct journey *j)
{
	for (size_t i = 0; i < j->n_alts; i++)
		if (!j->alt[i].refused)
			return false;
	return true;
}

static void nobody_takes_it(struct journey *j)
{
	if (!j->go && j->policy == SKIP)
		skip(j);
	else if (j->go || j->policy != WAIT || all_refused(j) || !wait_more(j))
		fail_with(j, j->rc, j->text);
}

/* ---- moving ---- */

static void move_done(struct tos_ext *x, void *arg, int rc, const char *text,
	const char *folder, const struct tos_value *elements)
{
	struct journey *j = arg;

	(void)folder;
	(void)elements;
	if (rc == 0)
		tos_count(x, "moves_total", 1);
	/* Should the hand-off have begun after all, the kernel says wrong-state to whatever we
	 * do next. */
	if (rc == TOS_ERR_UNKNOWN || rc == TOS_ERR_TIMEOUT || rc == TOS_ERR_CLOSED)
		rc = TOS_ERR_UNREACHABLE;
	if (rc == 0 || rc == TOS_ERR_STATE || rc == TOS_ERR_IN_DOUBT ||
		rc == TOS_ERR_CANCELLED) {
		journey_end(j);
		return;
	}
	/* not-found may be the destination's word: that the carrier is gone shows in the next
	 * verb. */
	j->rc = rc;
	snprintf(j->host, sizeof(j->host), "%s", j->alt[j->now].kernel);
	snprintf(j->text, sizeof(j->text), "%s: %s (%s)", j->host, code_word(rc), text);
	if (!passes(rc)) {
		j->alt[j->now].refused = true;
		tos_count(x, "refused_total", 1);
	}
	j->now++;
	try_next(j);
}

static void try_next(struct journey *j)
{
	struct tos_value *v;
	int rc;

	while (j->now < j->n_alts && j->alt[j->now].refused)
		j->now++;
	if (j->now == j->n_alts) {
		nobody_takes_it(j);
		return;
	}
	v = args_of(j);
	tos_set(v, "dest", tos_text(j->alt[j->now].kernel));
	tos_set(v, "entry", tos_bool(j->entry));
	tos_set(v, "timeout_ms", tos_int(j->offer_ms));
	/* The kernel's own time-out comes first; this one is for a kernel that lost the call.
	 */
	rc = ask(j, "MOVE", v, j->offer_ms + 24u * 3600u * 1000u, move_done, j);
	if (rc < 0)
		fail_with(j, rc, "the kernel could not be asked to move it");
}

/* The first entry of the path, or the end of it. */
static void take_entry(struct journey *j)
{
	if (!tos_len(j->path)) {
		if (j->go)
			fail_with(j, TOS_ERR_NOT_FOUND, "the path is at its end");
		else
			ending(j, "FINISH");
		return;
	}
	if (!entry_split(j, first_entry(j))) {
		fail_with(j, TOS_ERR_MALFORMED, "the path has an entry that names no kernel");
		return;
	}
	j->entry = true;
	j->told = false;
	j->back_off_ms = 0;
	j->give_up_at = tos_now_ms(j->x) + j->wait_ms;
	try_next(j);
}

/* tos.go(dest) */
static void go_to(struct journey *j, const char *dest, bool itinerant)
{
	bool in_path = false;

	for (size_t i = 0; i < tos_len(j->path); i++)
		in_path = in_path || entry_has(tos_as_text(tos_at(j->path, i), ""), dest);
	if (!in_path && !itinerant) {
		char text[TEXT_BYTES];

		snprintf(text, sizeof(text),
			"%.64s is not in the ticket's path, and the ticket is not "
			"itinerant",
			dest);
		fail_with(j, TOS_ERR_DENIED, text);
		return;
	}
	j->entry = entry_has(first_entry(j), dest);
	j->n_alts = 0;
	j->now = 0;
	if (!alternative_add(j, dest, strlen(dest)))
		fail_with(j, TOS_ERR_NAME, "that is no name of a kernel");
	else
		try_next(j);
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

static void begin(struct journey *j, const struct tos_value *args)
{
	const char *dest = tos_get_text(args, "dest", "");
	int64_t timeout_ms = tos_get_int(args, "timeout_ms", 0);

	j->go = strcmp(tos_get_text(args, "why", ""), "go") == 0;
	j->offer_ms = timeout_ms > 0 && timeout_ms < 86400000
			      ? (uint32_t)timeout_ms
			      : property_ms(j->x, "offer/timeout_ms");
	j->path = tos_value_copy(tos_get(args, "path"));
	if (!j->path)
		fail_with(j, TOS_ERR_NOMEM, "out of memory");
	else if (policy_parse(tos_get_text(args, "on_unreachable", ""), j) < 0)
		fail_with(j, TOS_ERR_MALFORMED,
			"on_unreachable is none of wait[=T], skip, alternate, fail");
	else if (j->go && *dest)
		go_to(j, dest, tos_get_bool(args, "itinerant", false));
	else
		take_entry(j);
}

static void on_completed(struct tos_ext *x, const struct tos_message *m)
{
	const struct tos_value *args = tos_at(m->elements, 0);
	const char *name = tos_get_text(args, "name", "");
	struct journey *j;

	if (!*name || strlen(name) >= NAME_BYTES || !text_path(tos_get(args, "path"))) {
		tos_fail(x, m->token, TOS_ERR_MALFORMED, "COMPLETED wants {name, path, ...}");
		return;
	}
	j = journey_find(tos_data(x), name);
	if (!j) {
		j = journey_new(x, name);
		if (!j) {
			tos_fail(x, m->token, TOS_ERR_LIMIT,
				"too many carriers are between two kernels");
			return;
		}
		begin(j, args);
	}
	tos_reply(x, m->token, "ok", NULL);
}

static void wake(struct tos_ext *x, struct tos_inbox *in)
{
	struct tos_message m;

	while (tos_inbox_next(in, &m)) {
		if (*m.sender)
			tos_fail(x, m.token, TOS_ERR_DENIED,
				"only the kernel itself tells Mobility");
		else if (strcmp(m.folder, "COMPLETED") == 0)
			on_completed(x, &m);
		else
			tos_fail(x, m.token, TOS_ERR_MALFORMED, "Mobility knows COMPLETED");
	}
}

static int start(struct tos_ext *x)
{
	struct mobility *mob = calloc(1, sizeof(*mob));

	if (!mob)
		return TOS_ERR_NOMEM;
	mob->random = (uint32_t)tos_now_ms(x);
	tos_set_data(x, mob);
	return 0;
}

static void stop(struct tos_ext *x)
{
	struct mobility *mob = tos_data(x);

	for (size_t i = 0; i < BUCKETS; i++)
		while (mob->bucket[i])
			journey_end(mob->bucket[i]);
	free(mob);
}

static const struct tos_inbox_spec inboxes[] = {
	{ .name = "Mobility",
		.doc = "moves carriers along their paths",
		.wake = wake,
		.flags = TOS_INBOX_EXTENSIONS_ONLY | TOS_INBOX_ON_COMPLETION,
		.bound = 4096,
		.protocol = "COMPLETED of <tos/extension.h>, by the kernel only" },
	{ 0 },
};

static const struct tos_property_spec properties[] = {
	{ "retry/first_ms", "int", "ms",
		"first pause before an unreachable kernel is tried again", 10, 60000, "200",
		false },
	{ "retry/most_ms", "int", "ms", "longest pause between two tries", 10, 600000, "5000",
		false },
	{ "offer/timeout_ms", "int", "ms", "how long a kernel may take to answer an offer", 100,
		600000, "10000", false },
	{ 0 },
};

const struct tos_extension tos_extension = {
	TOS_ABI,
	.name = "mobility",
	.doc = "Moves carriers along their paths.",
	.inboxes = inboxes,
	.properties = properties,
	.start = start,
	.stop = stop,
};
