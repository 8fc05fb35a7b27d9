/*
 * Messenger: finds the carrier that a post is for. The kernel hands it posts for carriers that
 * are not here (LOCATE of tos/extension.h); it asks the carrier's home where it is, remembers
 * that for a short while, and has the kernel forward the post. A kernel that the carrier has
 * left answers `moved` with the next place, and the kernel hands the post here again with that
 * as a hint.
 */
#include <tos/extension.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NAME_BYTES     129
#define KERNEL_BYTES   64
#define PLACES_MAX     4096 /* remembered */
#define SEARCHES_MAX   1024
#define WAITING_MAX    256 /* posts that one search holds */
#define BUCKETS        1024
#define ASK_MS         10000
#define PAUSE_FIRST_MS 20
#define PAUSE_MOST_MS  60

/* A carrier, where it was last known to be, and the posts that wait until we know. */
struct carrier {
	struct carrier *next;
	char name[NAME_BYTES], home[KERNEL_BYTES], kernel[KERNEL_BYTES];
	int64_t good_until; /* of kernel */
	bool asking;        /* its home, or about to again: it can't be freed */
	uint32_t pause_ms;
	int64_t give_up_at; /* the latest deadline of those that wait */
	uint64_t waiting[WAITING_MAX];
	size_t n_waiting;
};

struct messenger {
	struct carrier *bucket[BUCKETS];
	size_t n, n_searches;
	unsigned sweep; /* the next bucket to look for old places in */
};

static struct carrier **bucket_of(struct messenger *ms, const char *name)
{
	uint32_t h = 2166136261u;

	for (; *name; name++)
		h = (h ^ (unsigned char)*name) * 16777619u;
	return &ms->bucket[h % BUCKETS];
}

static struct carrier *carrier_find(struct messenger *ms, const char *name)
{
	struct carrier *c = *bucket_of(ms, name);

	while (c && strcmp(c->name, name) != 0)
		c = c->next;
	return c;
}

/* Forget what is old in one bucket; in a full table go on until one place is free. */
static void forget_old(struct messenger *ms, int64_t now)
{
	for (unsigned i = 0; i < BUCKETS; i++) {
		struct carrier **at = &ms->bucket[ms->sweep++ % BUCKETS];

		while (*at) {
			struct carrier *c = *at;

			if (c->asking || (c->good_until > now && ms->n < PLACES_MAX)) {
				at = &c->next;
				continue;
			}
			*at = c->next;
			free(c);
			ms->n--;
		}
		if (ms->n < PLACES_MAX)
			return;
	}
}

static struct carrier *carrier_new(struct messenger *ms, const char *name, int64_t now)
{
	struct carrier **at = bucket_of(ms, name), *c;

	forget_old(ms, now);
	c = ms->n < PLACES_MAX ? calloc(1, sizeof(*c)) : NULL;
	if (!c)
		return NULL;
	snprintf(c->name, sizeof(c->name), "%s", name);
	c->next = *at;
	*at = c;
	ms->n++;
	return c;
}

/* ---- asking home ---- */

static void ask_home(struct tos_ext *x, struct carrier *c);

static void search_over(struct tos_ext *x, struct carrier *c)
{
	struct messenger *ms = tos_data(x);

	c->asking = false;
	c->n_waiting = 0;
	ms->n_searches--;
}

static void fail_waiting(struct tos_ext *x, struct carrier *c, int rc, const char *text)
{
	for (size_t i = 0; i < c->n_waiting; i++)
		tos_fail(x, c->waiting[i], rc, text);
	tos_count(x, "not_located_total", c->n_waiting);
	search_over(x, c);
}

static void forward(struct tos_ext *x, uint64_t token, const char *kernel)
{
	int rc = tos_forward(x, token, kernel);

	/* not-found: its deadline passed, and its sender has been told. */
	if (rc < 0 && rc != TOS_ERR_NOT_FOUND)
		tos_fail(x, token, rc, "the post could not be forwarded");
	tos_count(x, "forwarded_total", rc == 0);
}

static void ask_again(struct tos_ext *x, void *arg)
{
	ask_home(x, arg);
}

/* Home says that it is here. It has just left, and home will soon know more; or it has just
 * come, and then the kernel has it by now and takes the post itself. */
static bool later(struct tos_ext *x, struct carrier *c)
{
	c->pause_ms = c->pause_ms ? c->pause_ms * 3 : PAUSE_FIRST_MS;
	return c->pause_ms <= PAUSE_MOST_MS && tos_timer(x, c->pause_ms, ask_again, c);
}

static bool ended(const char *state)
{
	static const char *const words[] = { "finished", "refused", "killed", "superseded",
		"lost", "gone" };

	for (size_t i = 0; i < sizeof(words) / sizeof(*words); i++)
		if (strcmp(state, words[i]) == 0)
			return true;
	return false;
}

static void found(struct tos_ext *x, struct carrier *c, const char *kernel)
{
	snprintf(c->kernel, sizeof(c->kernel), "%s", kernel);
	c->good_until = strcmp(kernel, tos_kernel_name(x)) == 0
				? 0
				: tos_now_ms(x) + strtol(tos_property(x, "cache/ms"), NULL, 10);
	/* In the order in which they came. */
	for (size_t i = 0; i < c->n_waiting; i++)
		forward(x, c->waiting[i], kernel);
	search_over(x, c);
}

static void home_answered(struct tos_ext *x, void *arg, int rc, const char *text,
	const char *folder, const struct tos_value *elements)
{
	struct carrier *c = arg;
	const struct tos_value *v = tos_at(elements, 0);
	const char *kernel = tos_get_text(v, "kernel", ""),
		   *state = tos_get_text(v, "state", "");
	char why[384];

	(void)folder;
	if (rc < 0) {
		snprintf(why, sizeof(why), "home %s of %s: %.192s", c->home, c->name, text);
		fail_waiting(x, c, rc, why);
	} else if (ended(state) || !*kernel || strlen(kernel) >= KERNEL_BYTES) {
		snprintf(why, sizeof(why), "%s is %.32s", c->name, *state ? state : "nowhere");
		fail_waiting(x, c, TOS_ERR_NOT_FOUND, why);
	} else if (strcmp(kernel, tos_kernel_name(x)) != 0 || !later(x, c)) {
		found(x, c, kernel);
	}
}

static void ask_home(struct tos_ext *x, struct carrier *c)
{
	struct tos_value *args = tos_map(), *elements = tos_array();
	char dest[KERNEL_BYTES + 8] = "Home";
	int64_t left = c->give_up_at - tos_now_ms(x);
	int rc;

	/* "Home" without a kernel is our own: no link is needed to ask ourselves. */
	if (strcmp(c->home, tos_kernel_name(x)) != 0)
		snprintf(dest, sizeof(dest), "%s/Home", c->home);
	tos_set(args, "name", tos_text(c->name));
	tos_push(elements, args);
	rc = tos_call(x, dest, "WHERE", elements,
		left < 100      ? 100
		: left < ASK_MS ? (uint32_t)left
				: ASK_MS,
		home_answered, c);
	if (rc < 0)
		home_answered(x, c, rc, "it could not be asked", "", NULL);
}

static void search(struct tos_ext *x, struct carrier *c, const struct tos_message *m)
{
	struct messenger *ms = tos_data(x);
	int64_t until = tos_now_ms(x) + m->deadline_ms;

	if (c->asking && c->n_waiting == WAITING_MAX) {
		tos_fail(x, m->token, TOS_ERR_FULL,
			"too many posts wait for that carrier to be located");
		return;
	}
	if (!c->asking && ms->n_searches == SEARCHES_MAX) {
		tos_fail(x, m->token, TOS_ERR_FULL, "too many carriers are being located");
		return;
	}
	c->waiting[c->n_waiting++] = m->token;
	if (until > c->give_up_at)
		c->give_up_at = until;
	if (c->asking)
		return;
	c->asking = true;
	c->pause_ms = 0;
	c->give_up_at = until;
	ms->n_searches++;
	ask_home(x, c);
}

/* ---- what the kernel asks ---- */

static void on_locate(struct tos_ext *x, const struct tos_message *m)
{
	struct messenger *ms = tos_data(x);
	const struct tos_value *args = tos_at(m->elements, 0);
	const char *dest = tos_get_text(args, "dest", ""),
		   *home = tos_get_text(args, "home", ""),
		   *hint = tos_get_text(args, "hint", "");
	char name[NAME_BYTES];
	size_t n = strcspn(dest, "/");
	int64_t now = tos_now_ms(x);
	struct carrier *c;

	if (!n || n >= sizeof(name) || !*home || strlen(home) >= KERNEL_BYTES ||
		strlen(hint) >= KERNEL_BYTES) {
		tos_fail(
			x, m->token, TOS_ERR_MALFORMED, "LOCATE wants {dest, home, hint, ...}");
		return;
	}
	memcpy(name, dest, n);
	name[n] = 0;
	c = carrier_find(ms, name);
	if (!c)
		c = carrier_new(ms, name, now);
	if (!c) {
		tos_fail(x, m->token, TOS_ERR_LIMIT, "too many carriers are being located");
		return;
	}
	snprintf(c->home, sizeof(c->home), "%s", home);
	if (strcmp(hint, tos_kernel_name(x)) == 0) {
		c->good_until = 0; /* whoever says so knows less than we do */
		hint = "";
	}
	if (*hint) {
		snprintf(c->kernel, sizeof(c->kernel), "%s", hint);
		c->good_until = now + strtol(tos_property(x, "cache/ms"), NULL, 10);
	}
	/* While its home is being asked, later posts wait behind the earlier ones. */
	if (!c->asking && (*hint || c->good_until > now))
		forward(x, m->token, c->kernel);
	else
		search(x, c, m);
}

static void wake(struct tos_ext *x, struct tos_inbox *in)
{
	struct tos_message m;

	while (tos_inbox_next(in, &m)) {
		if (strcmp(m.folder, "LOCATE") == 0 && !*m.sender)
			on_locate(x, &m);
		else
			tos_fail(x, m.token, TOS_ERR_MALFORMED,
				"Messenger knows LOCATE, by the kernel");
	}
}

static int start(struct tos_ext *x)
{
	tos_set_data(x, calloc(1, sizeof(struct messenger)));
	return tos_data(x) ? 0 : TOS_ERR_NOMEM;
}

static void stop(struct tos_ext *x)
{
	struct messenger *ms = tos_data(x);

	for (size_t i = 0; i < BUCKETS; i++)
		while (ms->bucket[i]) {
			struct carrier *c = ms->bucket[i];

			ms->bucket[i] = c->next;
			free(c);
		}
	free(ms);
}

static const struct tos_inbox_spec inboxes[] = {
	{ .name = "Messenger",
		.doc = "finds the carriers that posts are for",
		.wake = wake,
		.flags = TOS_INBOX_EXTENSIONS_ONLY | TOS_INBOX_LOCATES,
		.bound = 4096,
		.protocol = "LOCATE of <tos/extension.h>, by the kernel only" },
	{ 0 },
};

static const struct tos_property_spec properties[] = {
	{ "cache/ms", "int", "ms",
		"how long the place of a carrier is remembered besides what the kernel "
		"remembers; 0: not",
		0, 3600000, "0", false },
	{ 0 },
};

const struct tos_extension tos_extension = {
	TOS_ABI,
	.name = "messenger",
	.doc = "Finds the carriers that posts are for.",
	.inboxes = inboxes,
	.properties = properties,
	.start = start,
	.stop = stop,
};
