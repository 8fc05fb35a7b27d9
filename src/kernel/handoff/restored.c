/*
 * Stores that are older than what was seen of them (design, "Restored stores"): a backup that was
 * put back, an image that was started twice, a copy of the file. Owns what this kernel has seen of
 * its peers' stores (table peer), and the search for what became of the carriers that an old store
 * still holds: each is held back until its home, or for a home here every other kernel, has said
 * what it knows. Whoever is elsewhere is dropped here, what is nowhere is lost, the rest goes on.
 *
 * An old store is known by any of these: a peer has seen a later sequence or boot of it; its file
 * is not the one that this kernel wrote last; tosd was started with --restored. A clone is known
 * by a peer that has a link with the other one: it holds back everything until that is over.
 */
#include "kernel/handoff/gone.h"
#include "kernel/handoff/handoff.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "kernel/carrier/resident.h"
#include "kernel/handoff/moves.h"
#include "kernel/handoff/restored.h"
#include "kernel/home/home.h"

#define MARKS_MAX      20000
#define MARKS_SAVE_MS  1000
#define MARK_KEEP_MS   ((int64_t)210 * 86400000)
#define SEEN_AHEAD_MAX ((uint64_t)1 << 48) /* of a peer's word: more is nonsense */
#define SETTLE_MS      200
#define FIRST_LINK_MS                                                                          \
	1000 /* what was loaded waits so long for a peer to say what it has seen */
#define LIST_AGAIN_MS 10000
#define BATCH_MAX     256 /* carriers asked for in one call */
#define OFFERED_MAX   10000
#define NAMES_SKIP    1000000
#define ROW_RESTORED  "restored"
#define ROW_PLACE     "place"
#define MARKER_FILE   "restored" /* in the state directory: tos restore, tosd --restored */

/* What we have seen of a peer's store. */
struct mark {
	char name[64];
	uint64_t boot, seq, before; /* before: the highest sequence of earlier boots */
	uint8_t nonce[16];
	bool dirty;
};

/* A carrier whose whereabouts are asked for. */
struct item {
	uint64_t number;
	char name[NAME_BYTES_MAX + 1], home[64];
	uint8_t id[DIGEST_BYTES];
	bool found, ended, decided;
	int verdict; /* of restored_vet() */
	/* the latest copy that anybody knows of */
	struct incarnation e;
	uint64_t n;
	char where[64];
};

/* A kernel that is asked. */
struct asked {
	char name[64];
	uint64_t answered; /* all items up to this number */
	bool busy;
	int64_t again_ms;
};

struct restored {
	struct map *marks;
	int64_t marks_at_ms;
	uint64_t seq_at_start; /* of the store, as it was found; raised with it */
	bool on;               /* and not all of it is settled */
	int64_t wait_until_ms; /* for the first link; 0: it is over */
	bool listed, listing;  /* the Directory has named all kernels */
	int64_t list_at_ms, settle_at_ms;
	char why[200];
	struct map *clones;  /* peers that refused us -> why */
	struct map *kernels; /* struct asked */
	struct map *items;   /* name -> struct item */
	struct map *offered; /* id, n of departures that were offered here since */
	uint64_t next_item, n_open;
};

/* ---- what we have seen of others */

static struct mark *mark_get(struct kernel *k, const char *name)
{
	struct restored *rs = k->restored;
	struct mark *m = map_find_str(rs->marks, name);

	if (m || map_size(rs->marks) >= MARKS_MAX || !name_kernel_ok(name))
		return m;
	m = mem_new(struct mark);
	snprintf(m->name, sizeof(m->name), "%s", name);
	map_put_str(rs->marks, name, m);
	return m;
}

static int mark_row(void *arg, struct slice key, struct slice body, int64_t expires_ms)
{
	struct kernel *k = arg;
	struct tos_value *v = NULL;
	char name[64];
	struct mark *m;
	size_t n;
	const uint8_t *p;

	(void)expires_ms;
	slice_copy_text(key, name, sizeof(name));
	if (tos_decode(body.p, body.n, 0, &v) < 0)
		return 0;
	m = mark_get(k, name);
	if (m) {
		m->boot = (uint64_t)tos_get_int(v, "boot", 0);
		m->seq = (uint64_t)tos_get_int(v, "seq", 0);
		m->before = (uint64_t)tos_get_int(v, "before", 0);
		p = tos_get_bytes(v, "nonce", &n);
		if (p && n == sizeof(m->nonce))
			memcpy(m->nonce, p, n);
	}
	tos_value_free(v);
	return 0;
}

static void marks_save(struct kernel *k)
{
	struct store_txn *t = NULL;
	struct mark *m;
	size_t it = 0;

	while ((m = map_next(k->restored->marks, &it, NULL, NULL))) {
		AUTOBUF key = BUF_INIT;
		struct tos_value *v;

		if (!m->dirty)
			continue;
		m->dirty = false;
		t = t ? t : store_begin(k->store);
		v = tos_map();
		tos_set(v, "boot", tos_int((int64_t)m->boot));
		tos_set(v, "seq", tos_int((int64_t)m->seq));
		tos_set(v, "before", tos_int((int64_t)m->before));
		tos_set(v, "nonce", tos_bytes(m->nonce, sizeof(m->nonce)));
		buf_add_str(&key, m->name);
		journal_put(t, T_PEER, &key, v, clock_wall_ms() + MARK_KEEP_MS);
	}
	if (t)
		store_commit(t, NULL, NULL);
}

static void mark_seq(struct kernel *k, const char *peer, uint64_t seq)
{
	struct mark *m = peer[0] ? mark_get(k, peer) : NULL;

	if (m && seq > m->seq && seq <= INT64_MAX) {
		m->seq = seq;
		m->dirty = true;
	}
}

void restored_stamp(struct kernel *k, struct tos_value *m)
{
	tos_set(m, "store", tos_int((int64_t)store_seq(k->store)));
}

void restored_see(struct kernel *k, const char *peer, const struct tos_value *m)
{
	int64_t seq = tos_get_int(m, "store", 0);

	if (seq > 0)
		mark_seq(k, peer, (uint64_t)seq);
}

void restored_hello(struct kernel *k, const char *peer, struct hello *h)
{
	struct mark *m = peer[0] ? map_find_str(k->restored->marks, peer) : NULL;

	if (!m)
		return;
	h->seen_seq = m->seq;
	h->boot_seen = m->boot;
	h->seen_before = m->before;
	memcpy(h->boot_seen_nonce, m->nonce, sizeof(m->nonce));
}

/* ---- holding back */

static bool here(const struct kernel *k, const char *kernel)
{
	return strcmp(kernel, k->config.name) == 0;
}

bool restored_pending(const struct kernel *k)
{
	return k->restored->on || map_size(k->restored->clones) > 0;
}

bool restored_holds_back(const struct kernel *k)
{
	return k->restored->on;
}

bool restored_waits(const struct resident *r)
{
	return r->quarantined || (r->loaded && !r->confirmed && r->k->restored->wait_until_ms);
}

/* Nobody has said otherwise in time; or, of those that are at home, the first peer has not. */
static void wait_over(struct kernel *k, bool only_home)
{
	struct resident *r;
	size_t it = 0;

	if (!only_home)
		k->restored->wait_until_ms = 0;
	while ((r = map_next(k->residents, &it, NULL, NULL))) {
		if (!r->loaded || r->confirmed || (only_home && !here(k, r->ticket.home)))
			continue;
		r->confirmed = true;
		if (r->state == SHELL_READY)
			resident_go_on(r);
	}
}

void restored_confirmed(struct resident *r)
{
	if (!r->loaded || r->confirmed || here(r->k, r->ticket.home))
		return;
	r->confirmed = true;
	if (r->state == SHELL_READY)
		resident_go_on(r);
}

void restored_link_up(struct kernel *k, const char *peer, const struct hello *h)
{
	struct mark *m = mark_get(k, peer);
	bool ours = memcmp(h->boot_seen_nonce, k->boot_nonce, sizeof(k->boot_nonce)) == 0;
	/* Of this boot it may have seen anything; of those before, no more than this one found. */
	uint64_t seen = ours ? h->seen_before : h->seen_seq, seq = k->restored->seq_at_start;
	char why[200];

	free(map_del_str(k->restored->clones, peer));
	if (m && h->boot_count > m->boot) {
		m->boot = h->boot_count;
		m->before = m->seq;
		memcpy(m->nonce, h->boot_nonce, sizeof(m->nonce));
		m->dirty = true;
	}
	mark_seq(k, peer, h->store_seq);
	if (seen > seq && seen - seq < SEEN_AHEAD_MAX) {
		snprintf(why, sizeof(why),
			"%s has seen record %llu of this store, which ended at %llu", peer,
			(unsigned long long)seen, (unsigned long long)seq);
		restored_begin(k, why, h->seen_seq, h->boot_seen);
	} else if (h->boot_seen > k->boot_count || (h->boot_seen == k->boot_count && !ours)) {
		snprintf(why, sizeof(why),
			"%s has seen start %llu of this store, which counts %llu", peer,
			(unsigned long long)h->boot_seen, (unsigned long long)k->boot_count);
		restored_begin(k, why, h->seen_seq, h->boot_seen);
	}
	if (k->restored->wait_until_ms)
		wait_over(k, true);
}

static struct item *item_add(
	struct kernel *k, const char *name, const uint8_t id[DIGEST_BYTES], const char *home)
{
	struct restored *rs = k->restored;
	struct item *i = map_find_str(rs->items, name);

	if (i)
		return i;
	i = mem_new(struct item);
	i->number = ++rs->next_item;
	snprintf(i->name, sizeof(i->name), "%s", name);
	snprintf(i->home, sizeof(i->home), "%s", home);
	memcpy(i->id, id, DIGEST_BYTES);
	map_put_str(rs->items, name, i);
	rs->n_open++;
	return i;
}

/* What runs stops where it is, what waits does not start, what departs is not sent again. */
static void hold_back(struct resident *r)
{
	if (r->quarantined || shell_ended(r->state))
		return;
	r->quarantined = true;
	resident_pause(r);
}

static void hold_back_all(struct kernel *k, bool only_loaded)
{
	struct resident *r;
	size_t it = 0;

	while ((r = map_next(k->residents, &it, NULL, NULL))) {
		if (only_loaded && !r->loaded)
			continue;
		hold_back(r);
		item_add(k, r->name, r->id, r->ticket.home);
	}
}

static void homes_stale(struct kernel *k)
{
	struct home_record *h;
	size_t it = 0;

	homes_all(k);
	while ((h = map_next(k->homes, &it, NULL, NULL)))
		if (!shell_ended(h->state)) {
			h->stale = true;
			item_add(k, h->name, h->id, k->config.name);
		}
}

/* Which file this is: a copy of it has another number or another time of birth. */
static int place_read(const struct kernel *k, uint8_t out[24])
{
	char path[TOSD_PATH_BYTES + 32];
	struct statx sx;
	uint64_t parts[3];

	snprintf(path, sizeof(path), "%s/store.db", k->dir);
	if (statx(AT_FDCWD, path, 0, STATX_INO | STATX_BTIME, &sx) < 0)
		return -1;
	parts[0] = sx.stx_ino;
	parts[1] = sx.stx_mask & STATX_BTIME ? (uint64_t)sx.stx_btime.tv_sec : 0;
	parts[2] = sx.stx_mask & STATX_BTIME ? sx.stx_btime.tv_nsec : 0;
	memcpy(out, parts, sizeof(parts));
	return 0;
}

static void place_put(struct kernel *k, struct store_txn *t)
{
	uint8_t now[24];

	if (place_read(k, now) == 0)
		store_put(t, T_META, ROW_PLACE, strlen(ROW_PLACE), now, sizeof(now), 0);
}

static void row_put(struct kernel *k, struct store_txn *t)
{
	struct tos_value *m = tos_map();
	AUTOBUF key = BUF_INIT;

	buf_add_str(&key, ROW_RESTORED);
	tos_set(m, "wall", tos_int(k->restored_ms));
	tos_set(m, "on", tos_bool(k->restored->on));
	tos_set(m, "why", tos_text(k->restored->why));
	journal_put(t, T_META, &key, m, 0);
}

static void begun(void *arg, int rc, const struct errmsg *em)
{
	(void)arg;
	if (rc < 0)
		log_error(
			"that the store is an old one could not be journaled", KV_ERR(rc, em));
}

static void begin_put(struct kernel *k, struct store_txn *t)
{
	struct tos_value *m = tos_map();
	uint8_t be[8];

	/* Names that were given out since the backup are not given out again. */
	k->next_name = k->names_reserved = k->next_name + NAMES_SKIP;
	for (int i = 0; i < 8; i++)
		be[i] = (uint8_t)(k->next_name >> (56 - 8 * i));
	store_put(t, T_META, "names", 5, be, sizeof(be), 0);
	row_put(k, t);
	place_put(k, t);
	tos_set(m, "why", tos_text(k->restored->why));
	audit_event(k, t, "store-restored", m);
}

void restored_begin(struct kernel *k, const char *why, uint64_t seen_seq, uint64_t seen_boot)
{
	struct restored *rs = k->restored;
	struct store_txn *t = store_begin(k->store);
	struct asked *a;
	size_t it = 0;

	if (seen_boot >= k->boot_count)
		k->boot_count = seen_boot + 1;
	store_raise(t, seen_seq, k->boot_count);
	if (seen_seq > rs->seq_at_start)
		rs->seq_at_start = seen_seq;
	if (rs->on) {
		store_commit(t, begun, NULL); /* one more who says so */
		return;
	}
	k->restored_ms = clock_wall_ms();
	rs->on = true;
	rs->listed = false;
	rs->settle_at_ms = rs->list_at_ms = 0;
	snprintf(rs->why, sizeof(rs->why), "%s", why);
	while ((a = map_next(rs->kernels, &it, NULL, NULL)))
		a->answered = 0; /* what it said before may have been about another copy */
	log_error(
		"this store is older than what was seen of it: its carriers are held back until their homes have been asked",
		KV_STR("reason", why));
	metric_add(k->metrics, "store_restored_total", NULL, 1);
	begin_put(k, t);
	store_commit(t, begun, NULL);
	if (k->residents)
		hold_back_all(k, true);
	if (k->homes)
		homes_stale(k);
}

void restored_clone(struct kernel *k, const char *peer, const char *why)
{
	struct restored *rs = k->restored;
	struct tos_value *m;

	if (map_find_str(rs->clones, peer)) {
		hold_back_all(k, false);
		return;
	}
	map_put_str(rs->clones, peer, mem_strdup(why));
	log_error(
		"a kernel with this one's name and key is linked elsewhere: this one holds back all its carriers; stop one of the two",
		KV_STR("peer", peer), KV_STR("reason", why));
	metric_add(k->metrics, "clone_refusals_total", NULL, 1);
	m = tos_map();
	tos_set(m, "peer", tos_text(peer));
	tos_set(m, "text", tos_text(why));
	audit_event(k, NULL, "refused-as-clone", m);
	if (!rs->on)
		restored_begin(k, why, 0, 0);
	hold_back_all(k, false);
}

void restored_clone_refused(
	struct kernel *k, const char *name, const char *address, const char *linked)
{
	struct tos_value *m = tos_map();

	tos_set(m, "kernel", tos_text(name));
	tos_set(m, "address", tos_text(address));
	tos_set(m, "linked", tos_text(linked));
	audit_event(k, NULL, "clone-refused", m);
	metric_add(k->metrics, "clones_refused_total", NULL, 1);
}

/* ---- what this kernel knows, for one that asks */

static void known_home(struct kernel *k, struct tos_value *out, const char *name,
	const uint8_t id[DIGEST_BYTES])
{
	struct home_record *h = home_find(k, name);
	struct tos_value *m;

	if (!h || memcmp(h->id, id, DIGEST_BYTES) != 0)
		return;
	m = tos_map();
	tos_set(m, "state", tos_text(shell_state_word(h->state)));
	tos_set(m, "kernel", tos_text(h->kernel));
	tos_set(m, "e", incarnation_value(&h->e));
	tos_set(m, "n", tos_int((int64_t)h->n));
	tos_set(out, "home", m);
}

/* The number that the copy there carries: the next departure of one that is here, and for one
 * that went on the departure after that. */
static struct tos_value *known_one(
	struct kernel *k, const char *name, const uint8_t id[DIGEST_BYTES])
{
	struct tos_value *out = tos_map(), *m;
	struct resident *r = resident_find(k, name);

	if (r && memcmp(r->id, id, DIGEST_BYTES) == 0) {
		tos_set(out, "at", tos_text(k->config.name));
		tos_set(out, "e", incarnation_value(&r->e));
		tos_set(out, "n", tos_int((int64_t)r->n - (r->state == SHELL_DEPARTING)));
	} else {
		m = gone_find(k, id);
		if (tos_get(m, "e")) {
			tos_set(out, "at", tos_text(tos_get_text(m, "dest", "")));
			tos_set(out, "e", tos_value_copy(tos_get(m, "e")));
			tos_set(out, "n", tos_int(tos_get_int(m, "n", 0) + 1));
		}
		tos_value_free(m);
	}
	known_home(k, out, name, id);
	return out;
}

void known_verb(struct kernel *k, struct request *rq)
{
	const struct tos_value *list = tos_get(rq->args, "carriers");
	struct tos_value *out, *rows;

	if (tos_type(list) != TOS_ARRAY || tos_len(list) > BATCH_MAX) {
		request_fail(rq, ERR_MALFORMED, "KNOWN takes up to %d carriers", BATCH_MAX);
		return;
	}
	rows = tos_array();
	for (size_t i = 0; i < tos_len(list); i++) {
		const struct tos_value *one = tos_at(list, i);
		size_t n;
		const uint8_t *id = tos_as_bytes(tos_at(one, 1), &n);

		tos_push(rows, id && n == DIGEST_BYTES
				       ? known_one(k, tos_as_text(tos_at(one, 0), ""), id)
				       : tos_map());
	}
	out = tos_map();
	tos_set(out, "carriers", rows);
	restored_stamp(k, out);
	request_ok(rq, out);
}

/* ---- asking */

static struct asked *asked_get(struct kernel *k, const char *name)
{
	struct restored *rs = k->restored;
	struct asked *a = map_find_str(rs->kernels, name);

	if (a || here(k, name) || !name_kernel_ok(name) || map_size(rs->kernels) >= MARKS_MAX)
		return a;
	a = mem_new(struct asked);
	snprintf(a->name, sizeof(a->name), "%s", name);
	map_put_str(rs->kernels, name, a);
	return a;
}

static void on_list(
	struct kernel *k, void *arg, int rc, const char *text, const struct tos_value *elements)
{
	const struct tos_value *list = tos_at(elements, 0);

	(void)arg;
	(void)text;
	k->restored->listing = false;
	if (rc < 0)
		return;
	for (size_t i = 0; i < tos_len(list); i++)
		asked_get(k, tos_get_text(tos_at(list, i), "name", ""));
	k->restored->listed = true;
}

/* Every kernel that this one has heard of. */
static void kernels_find(struct kernel *k, int64_t now_ms)
{
	struct restored *rs = k->restored;
	struct item *i;
	struct mark *m;
	size_t it = 0;

	while ((m = map_next(rs->marks, &it, NULL, NULL)))
		asked_get(k, m->name);
	for (size_t n = 0; n < k->config.n_peers; n++)
		asked_get(k, k->config.peers[n].name);
	it = 0;
	while ((i = map_next(rs->items, &it, NULL, NULL)))
		asked_get(k, i->home);
	if (!k->config.registrar[0] || home_is_declared(k, k->config.registrar))
		rs->listed = true;
	if (rs->listing || (rs->listed && now_ms < rs->list_at_ms))
		return;
	rs->list_at_ms = now_ms + LIST_AGAIN_MS;
	rs->listing = true;
	kernel_call(k, k->config.registrar, "Directory", "LIST", NULL, 3000, on_list, NULL);
}

struct known_asked {
	char kernel[64];
	uint64_t upto;
	size_t n;
	char names[BATCH_MAX][NAME_BYTES_MAX + 1];
};

/* A copy that somebody knows of: is it a later one than what was found so far? */
static void item_hears(struct item *i, const struct tos_value *m, const char *where)
{
	struct incarnation e;
	uint64_t n = (uint64_t)tos_get_int(m, "n", 0);
	int cmp;

	if (incarnation_read(tos_get(m, "e"), &e) < 0 || !name_kernel_ok(where))
		return;
	cmp = i->found ? incarnation_compare(&e, &i->e) : 1;
	if (cmp < 0 || (cmp == 0 && n <= i->n))
		return;
	i->found = true;
	i->e = e;
	i->n = n;
	snprintf(i->where, sizeof(i->where), "%s", where);
}

static void item_answered(struct item *i, const char *kernel, const struct tos_value *row)
{
	const struct tos_value *home = tos_get(row, "home");
	int state;

	if (tos_get(row, "at"))
		item_hears(i, row, tos_get_text(row, "at", ""));
	/* Only its home's word on the whole of it counts. */
	if (!home || strcmp(i->home, kernel) != 0)
		return;
	state = shell_state_parse(tos_get_text(home, "state", ""));
	if (state >= 0 && shell_ended((enum shell_state)state))
		i->ended = true;
	else
		item_hears(i, home, tos_get_text(home, "kernel", ""));
}

static void on_known(
	struct kernel *k, void *arg, int rc, const char *text, const struct tos_value *elements)
{
	AUTOFREE struct known_asked *ka = arg;
	struct asked *a = map_find_str(k->restored->kernels, ka->kernel);
	const struct tos_value *rows = tos_get(tos_at(elements, 0), "carriers");

	(void)text;
	if (!a)
		return;
	a->busy = false;
	if (rc < 0 && rc != ERR_UNSUPPORTED && rc != ERR_NOT_FOUND) {
		a->again_ms = clock_ms() + k->config.retry_ms;
		return;
	}
	/* A kernel of an earlier version knows no such question: what it holds it reports. */
	for (size_t n = 0; rc == 0 && n < ka->n; n++) {
		struct item *i = map_find_str(k->restored->items, ka->names[n]);

		if (i && !i->decided)
			item_answered(i, ka->kernel, tos_at(rows, n));
	}
	if (rc == 0)
		restored_see(k, ka->kernel, tos_at(elements, 0));
	if (ka->upto > a->answered)
		a->answered = ka->upto;
	k->restored->settle_at_ms = 0;
}

static void ask(struct kernel *k, struct asked *a)
{
	struct known_asked *ka = mem_new(struct known_asked);
	struct tos_value *args = tos_map(), *list = tos_array();
	struct item *i;
	size_t it = 0;

	snprintf(ka->kernel, sizeof(ka->kernel), "%s", a->name);
	while ((i = map_next(k->restored->items, &it, NULL, NULL)) && ka->n < BATCH_MAX) {
		struct tos_value *one;

		if (i->number <= a->answered)
			continue;
		ka->upto = i->number;
		if (i->decided)
			continue;
		one = tos_array();
		tos_push(one, tos_text(i->name));
		tos_push(one, tos_bytes(i->id, DIGEST_BYTES));
		tos_push(list, one);
		snprintf(ka->names[ka->n++], sizeof(ka->names[0]), "%s", i->name);
	}
	tos_set(args, "carriers", list);
	a->busy = true;
	kernel_call(k, a->name, "Handoff", "KNOWN", args, k->config.call_ms, on_known, ka);
}

/* ---- deciding */

static int ours_compare(const struct resident *r, const struct item *i)
{
	uint64_t n = r->n - (r->state == SHELL_DEPARTING);
	int cmp = incarnation_compare(&i->e, &r->e);

	return cmp ? cmp : i->n > n ? 1 : i->n < n ? -1 : 0;
}

void restored_release(struct resident *r)
{
	if (!r->quarantined)
		return;
	r->quarantined = false;
	r->confirmed = true;
	resident_waits(r, NULL);
	log_notice("a carrier that was held back goes on", KV_STR("carrier", r->name));
	resident_unpause(r);
}

static void drop(struct resident *r, const char *text)
{
	metric_add(r->k->metrics, "restored_dropped_total", NULL, 1);
	log_notice("a copy from an old store was dropped", KV_STR("carrier", r->name),
		KV_STR("reason", text));
	resident_end(r, SHELL_EV_SUPERSEDE, text);
}

/* The later copy came here, and what this kernel knew of it is lost with the store. */
static bool lost_here(const struct kernel *k, const struct item *i)
{
	return i->found && here(k, i->where);
}

static void item_decide(struct kernel *k, struct item *i)
{
	struct resident *r = resident_find(k, i->name);
	struct home_record *h = here(k, i->home) ? home_find(k, i->name) : NULL;
	bool mine = r && memcmp(r->id, i->id, DIGEST_BYTES) == 0 && r->quarantined;
	bool later = i->found && (!mine || ours_compare(r, i) > 0);
	char text[160];

	i->decided = true;
	k->restored->n_open--;
	if (mine && (i->ended || later)) {
		if (i->ended)
			snprintf(text, sizeof(text), "it has ended otherwise");
		else
			snprintf(text, sizeof(text), "a later copy of it went to %s", i->where);
		drop(r, text);
		r = NULL;
	}
	if (h && !shell_ended(h->state)) {
		h->stale = false;
		if (later)
			home_told(k, h, i->where, &i->e, i->n);
		if (!r && later && lost_here(k, i))
			home_lost(k, h,
				"this store was restored from a backup older than its last arrival or outcome here");
	}
	if (mine && r)
		restored_release(r);
}

static bool kernel_answered(struct kernel *k, const char *name, uint64_t number)
{
	struct asked *a = map_find_str(k->restored->kernels, name);

	return (a && a->answered >= number) || home_is_declared(k, name);
}

static bool all_answered(struct kernel *k, uint64_t *upto)
{
	struct asked *a;
	size_t it = 0;

	*upto = UINT64_MAX;
	while ((a = map_next(k->restored->kernels, &it, NULL, NULL)))
		if (a->answered < *upto && !home_is_declared(k, a->name))
			*upto = a->answered;
	return k->restored->listed;
}

static void items_drop(struct kernel *k)
{
	struct restored *rs = k->restored;
	struct item *i;
	size_t it = 0;

	while ((i = map_next(rs->items, &it, NULL, NULL))) {
		map_del_str(rs->items, i->name);
		free(i);
	}
}

static void settled(struct kernel *k)
{
	struct restored *rs = k->restored;
	struct store_txn *t = store_begin(k->store);

	rs->on = false;
	row_put(k, t);
	audit_event(k, t, "restore-settled", tos_map());
	store_commit(t, begun, NULL);
	items_drop(k);
	log_notice("all that this store had of old is settled");
}

static void settle(struct kernel *k, int64_t now_ms)
{
	struct restored *rs = k->restored;
	struct asked *a;
	struct item *i;
	uint64_t upto;
	size_t it = 0;
	bool all;

	kernels_find(k, now_ms);
	while ((a = map_next(rs->kernels, &it, NULL, NULL)))
		if (!a->busy && a->answered < rs->next_item && now_ms >= a->again_ms)
			ask(k, a);
	if (map_size(rs->clones))
		return; /* the other one may be running what is here */
	all = all_answered(k, &upto);
	it = 0;
	while ((i = map_next(rs->items, &it, NULL, NULL))) {
		if (i->decided)
			continue;
		if (here(k, i->home) ? all && i->number <= upto
				     : kernel_answered(k, i->home, i->number))
			item_decide(k, i);
	}
	if (rs->on && rs->n_open == 0)
		settled(k);
}

static void departure_key(
	const uint8_t id[DIGEST_BYTES], uint64_t n, uint8_t out[DIGEST_BYTES + 8])
{
	memcpy(out, id, DIGEST_BYTES);
	memcpy(out + DIGEST_BYTES, &n, 8);
}

void restored_offered(struct kernel *k, const uint8_t id[DIGEST_BYTES], uint64_t n)
{
	struct restored *rs = k->restored;
	uint8_t key[DIGEST_BYTES + 8];

	if (!k->restored_ms || clock_wall_ms() >= k->restored_ms + 2 * k->config.skew_ms ||
		map_size(rs->offered) >= OFFERED_MAX)
		return;
	departure_key(id, n, key);
	map_put(rs->offered, key, sizeof(key), k);
}

int restored_vet(struct kernel *k, const struct hop *hop, const char *home, const char *name)
{
	struct restored *rs = k->restored;
	uint8_t key[DIGEST_BYTES + 8];
	struct item *i;

	departure_key(hop->id, hop->n, key);
	if (map_del(rs->offered, key, sizeof(key)))
		return 0; /* frozen after this boot had granted it: nothing was forgotten of it */
	if (!k->restored_ms || hop->time_ms >= k->restored_ms + k->config.skew_ms)
		return 0;
	i = map_find_str(rs->items, name);
	if (!i || memcmp(i->id, hop->id, DIGEST_BYTES) != 0) {
		item_add(k, name, hop->id, home);
		return ERR_AGAIN;
	}
	if (!i->decided)
		return ERR_AGAIN;
	/* The copy that departure n makes carries n + 1: is any later one known? */
	if (i->ended || (i->found && (incarnation_compare(&i->e, &hop->e) > 0 ||
					     (incarnation_compare(&i->e, &hop->e) == 0 &&
						     i->n > hop->n + 1))))
		return ERR_SUPERSEDED;
	return 0;
}

void restored_tick(struct kernel *k, int64_t now_ms)
{
	struct restored *rs = k->restored;

	if (rs->wait_until_ms && now_ms >= rs->wait_until_ms)
		wait_over(k, false);
	if (now_ms >= rs->marks_at_ms) {
		rs->marks_at_ms = now_ms + MARKS_SAVE_MS;
		marks_save(k);
	}
	if ((rs->on || rs->n_open) && now_ms >= rs->settle_at_ms) {
		rs->settle_at_ms = now_ms + SETTLE_MS;
		settle(k, now_ms);
	}
	metric_set(k->metrics, "carriers_held_back", NULL, (double)rs->n_open);
}

struct tos_value *restored_status(const struct kernel *k)
{
	const struct restored *rs = k->restored;
	struct tos_value *m;
	const void *key;
	size_t it = 0, len;
	const char *why = map_next(rs->clones, &it, &key, &len);

	if (!rs->on && !why)
		return NULL;
	m = tos_map();
	tos_set(m, "why", tos_text(why ? why : rs->why));
	tos_set(m, "clone", tos_bool(why != NULL));
	tos_set(m, "held_back", tos_int((int64_t)rs->n_open));
	return m;
}

/* ---- at start */

/* True if it is not the file that was written here before. */
static bool place_changed(struct kernel *k)
{
	AUTOBUF was = BUF_INIT;
	uint8_t now[24];
	struct store_txn *t;

	if (place_read(k, now) < 0)
		return false;
	if (store_get(k->store, T_META, ROW_PLACE, strlen(ROW_PLACE), &was, NULL) == 0)
		return was.len != sizeof(now) || memcmp(was.data, now, sizeof(now)) != 0;
	t = store_begin(k->store);
	place_put(k, t);
	store_commit(t, NULL, NULL);
	return false;
}

static void row_load(struct kernel *k)
{
	AUTOBUF body = BUF_MAX(65536);
	struct restored *rs = k->restored;
	struct tos_value *m = NULL;

	if (store_get(k->store, T_META, ROW_RESTORED, strlen(ROW_RESTORED), &body, NULL) < 0 ||
		tos_decode(body.data, body.len, 0, &m) < 0)
		return;
	k->restored_ms = tos_get_int(m, "wall", 0);
	rs->on = tos_get_bool(m, "on", false);
	snprintf(rs->why, sizeof(rs->why), "%s", tos_get_text(m, "why", ""));
	tos_value_free(m);
}

int restored_load(struct kernel *k, struct errmsg *em)
{
	struct restored *rs = mem_new(struct restored);
	char marker[TOSD_PATH_BYTES + 32];
	bool marked, moved;
	int rc;

	k->restored = rs;
	rs->seq_at_start = store_seq(k->store);
	rs->marks = map_new();
	rs->clones = map_new();
	rs->kernels = map_new();
	rs->items = map_new();
	rs->offered = map_new();
	rc = store_each(k->store, T_PEER, (struct slice){ NULL, 0 }, mark_row, k, em);
	if (rc < 0)
		return rc;
	row_load(k);
	moved = place_changed(k);
	snprintf(marker, sizeof(marker), "%s/" MARKER_FILE, k->dir);
	marked = access(marker, F_OK) == 0;
	if (marked || moved)
		restored_begin(k,
			marked ? "it was started as a restored store"
			       : "its file is a copy: it is not the one that this kernel wrote last",
			0, 0);
	else if (rs->on)
		log_warning("this store was restored and is not settled yet",
			KV_STR("reason", rs->why));
	/* Journaled first: a crash in between finds the marker again. */
	if (marked) {
		struct store_txn *t = store_begin(k->store);

		row_put(k, t);
		rc = store_commit_wait(t, em);
		if (rc == 0 && unlink(marker) < 0)
			log_warning(
				"the marker of a restored store stays: the next start asks again",
				KV_STR("file", marker), KV_STR("error", strerror(errno)));
	}
	return rc;
}

/* Once residents and homes are in memory. */
void restored_loaded(struct kernel *k)
{
	bool peers = map_size(k->restored->marks) > 0 ||
		     (k->config.registrar[0] && !here(k, k->config.registrar));

	if (!k->restored->on) {
		if (peers && map_size(k->residents) > 0)
			k->restored->wait_until_ms = clock_ms() + FIRST_LINK_MS;
		return;
	}
	hold_back_all(k, true);
	homes_stale(k);
}
