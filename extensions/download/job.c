/*
 * Jobs of Download: one for each digest, whoever asks; how they begin, whom they tell, how they end.
 */
#include "download.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct state *state_of(struct tos_ext *x)
{
	return tos_data(x);
}

void digest_hex(const uint8_t digest[32], char out[65])
{
	for (int i = 0; i < 32; i++)
		snprintf(out + 2 * i, 3, "%02x", digest[i]);
}

struct job *job_by_number(struct tos_ext *x, uint64_t number)
{
	struct job *j = state_of(x)->jobs;

	while (j && j->number != number)
		j = j->next;
	return j && !j->over ? j : NULL;
}

static struct job *job_of(struct tos_ext *x, const struct ask *a)
{
	struct job *j = state_of(x)->jobs;

	while (j && (j->over || j->ask.index != a->index ||
			    memcmp(j->ask.digest, a->digest, 32) != 0))
		j = j->next;
	return j;
}

/* ---- telling */

static void progress_to(
	struct job *j, struct waiter *w, const char *what, int rc, const char *text)
{
	struct tos_value *m, *e;
	char hex[65];

	if (!w->ask.progress[0])
		return;
	digest_hex(j->ask.digest, hex);
	m = tos_map();
	tos_set(m, "state", tos_text(what));
	tos_set(m, "url", tos_text(j->url.text));
	tos_set(m, "sha256", tos_text(hex));
	tos_set(m, "bytes", tos_int(j->sent + (int64_t)j->n_buf));
	if (j->total >= 0)
		tos_set(m, "size", tos_int(j->total));
	if (rc)
		tos_set(m, "code", tos_int(rc));
	if (text && *text)
		tos_set(m, "text", tos_text(text));
	e = tos_array();
	tos_push(e, m);
	tos_post(j->x, w->ask.progress, "progress", e);
}

void job_tell(struct job *j, const char *what, const char *text)
{
	j->told_ms = tos_now_ms(j->x);
	for (struct waiter *w = j->waiters; w; w = w->next)
		progress_to(j, w, what, 0, text);
}

/* ---- asking the store */

struct later *later_new(const struct job *j)
{
	struct later *l = calloc(1, sizeof(*l));

	if (l)
		l->number = j->number;
	return l;
}

struct job *later_job(struct tos_ext *x, struct later *l)
{
	struct job *j = job_by_number(x, l->number);

	free(l);
	return j;
}

/* A call about this job; takes args and l. */
bool job_call(struct job *j, const char *dest, const char *verb, struct tos_value *args,
	uint32_t timeout_ms, tos_answer_fn *done, struct later *l)
{
	struct tos_value *e = tos_array();

	tos_push(e, args);
	if (l && tos_call(j->x, dest, verb, e, timeout_ms, done, l) == 0)
		return true;
	if (!l)
		tos_value_free(e);
	free(l);
	return false;
}

uint32_t job_left_ms(const struct job *j)
{
	int64_t left = 0, now = tos_now_ms(j->x);

	for (const struct waiter *w = j->waiters; w; w = w->next)
		if (w->ask.deadline_ms - now > left)
			left = w->ask.deadline_ms - now;
	return left > 0 ? (uint32_t)left : 1;
}

/* ---- admission */

static void on_admit(struct tos_ext *x, void *arg, int rc, const char *text, const char *folder,
	const struct tos_value *elements)
{
	struct job *j = later_job(x, arg);

	(void)folder;
	(void)elements;
	if (!j)
		return;
	if (rc < 0)
		job_fail(j, rc, "it is here, but was not admitted: %s", text);
	else
		job_end(j, 0, "", true);
}

void job_admit(struct job *j, const struct tos_value *as)
{
	struct tos_value *m = digest_args(j);

	tos_set(m, "kind", tos_text(tos_get_text(as, "kind", j->ask.kind)));
	tos_set(m, "name", tos_text(tos_get_text(as, "name", j->ask.name)));
	tos_set(m, "version", tos_text(tos_get_text(as, "version", j->ask.version)));
	tos_set(m, "machine", tos_text(tos_get_text(as, "machine", j->ask.machine)));
	if (!job_call(j, "Content", "ADMIT", m, 10000, on_admit, later_new(j)))
		job_fail(j, TOS_ERR_IO, NO_CALLS);
}

/* All of it came over http. */
void job_stored(struct job *j)
{
	j->from = j->url.text;
	if (j->ask.admit)
		job_admit(j, NULL);
	else
		job_end(j, 0, "", false);
}

/* ---- the end of a job */

static void jobs_start(struct tos_ext *x);

static void waiter_free(struct waiter *w)
{
	tos_value_free(w->ask.via);
	free(w);
}

void job_free(struct job *j)
{
	struct waiter *w;

	transfer_drop(j);
	while ((w = j->waiters ? j->waiters : j->later)) {
		if (w == j->waiters)
			j->waiters = w->next;
		else
			j->later = w->next;
		waiter_free(w);
	}
	EVP_MD_CTX_free(j->digest);
	tos_value_free(j->ask.via);
	tos_value_free(j->statements);
	tos_value_free(j->rows);
	tos_value_free(j->refused);
	free(j->buf);
	free(j);
}

static void job_unlink(struct job *j)
{
	struct job **at = &state_of(j->x)->jobs;

	while (*at != j)
		at = &(*at)->next;
	*at = j->next;
	state_of(j->x)->n_jobs--;
	if (j->active)
		state_of(j->x)->n_active--;
}

static void waiter_answer(struct job *j, struct waiter *w, bool admitted)
{
	struct tos_value *m = tos_map(), *e = tos_array();
	char hex[65];

	if (j->ask.index) {
		tos_set(m, "rows", tos_value_copy(j->rows));
		tos_set(m, "refused", tos_value_copy(j->refused));
	} else {
		digest_hex(j->ask.digest, hex);
		tos_set(m, "sha256", tos_text(hex));
		tos_set(m, "digest", tos_bytes(j->ask.digest, 32));
		tos_set(m, "admitted", tos_bool(admitted));
	}
	tos_set(m, "from", tos_text(j->from ? j->from : ""));
	if (j->total >= 0)
		tos_set(m, "size", tos_int(j->total));
	tos_push(e, m);
	if (w->ask.token)
		tos_reply(j->x, w->ask.token, "ok", e);
	else
		tos_value_free(e);
}

struct tos_value *digest_args(const struct job *j)
{
	struct tos_value *m = tos_map();

	tos_set(m, "digest", tos_bytes(j->ask.digest, 32));
	return m;
}

static struct tos_value *one_element(struct tos_value *v)
{
	struct tos_value *e = tos_array();

	tos_push(e, v);
	return e;
}

/* What came of the job is an answer to this one, too: its own URL, size and kernels would have led
 * nowhere else. */
static bool same_ask(const struct job *j, const struct ask *a)
{
	if (strcmp(j->ask.url.text, a->url.text) != 0 || j->ask.size != a->size ||
		j->ask.max != a->max)
		return false;
	if (j->ask.via || a->via) /* the tree has changed the peers */
		return j->ask.via && a->via && tos_equal(j->ask.via, a->via);
	return j->ask.n_peers == a->n_peers &&
	       memcmp(j->ask.peers, a->peers, a->n_peers * sizeof(a->peers[0])) == 0;
}

/* Not from within a callback of libcurl. j is gone. */
void job_end(struct job *j, int rc, const char *text, bool admitted)
{
	struct tos_ext *x = j->x;
	struct waiter *w, *later = j->later;
	char hex[65];

	j->over = true;
	transfer_drop(j);
	if (j->retry)
		tos_timer_stop(x, j->retry);
	if (j->deadline)
		tos_timer_stop(x, j->deadline);
	digest_hex(j->ask.digest, hex);
	/* What came is kept where another try may go on with it. */
	if (rc < 0 && rc != TOS_ERR_CLOSED && rc != TOS_ERR_UNREACHABLE &&
		rc != TOS_ERR_TIMEOUT && !j->verify_only && j->sent > 0)
		tos_post(x, "Content", "CANCEL", one_element(digest_args(j)));
	if (rc < 0) {
		ask_refused(x, &j->ask, j->url.text, rc, text);
	} else if (j->ask.index) {
		tos_count(x, "indexes", 1);
	} else {
		tos_count(x, "files", 1);
		tos_log(x, 1, hex);
	}
	while ((w = j->waiters)) {
		j->waiters = w->next;
		/* Whoever was first asked for something that there is not: others don't fail with it. */
		if (rc < 0 && !w->first && !same_ask(j, &w->ask) &&
			w->ask.deadline_ms > tos_now_ms(x)) {
			w->next = later;
			later = w;
			continue;
		}
		progress_to(j, w, rc < 0 ? "failed" : "done", rc, text);
		if (rc == 0)
			waiter_answer(j, w, admitted);
		else if (w->ask.token)
			tos_fail(x, w->ask.token, rc, text);
		waiter_free(w);
	}
	job_unlink(j);
	j->later = NULL;
	job_free(j);
	while ((w = later)) {
		later = w->next;
		ask_do(x, &w->ask);
		free(w);
	}
	jobs_start(x);
}

void job_fail(struct job *j, int rc, const char *fmt, ...)
{
	char text[600];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	job_end(j, rc, text, false);
}

/* ---- a job begins */

static void on_stat(struct tos_ext *x, void *arg, int rc, const char *text, const char *folder,
	const struct tos_value *elements)
{
	struct job *j = later_job(x, arg);

	(void)text;
	(void)folder;
	if (!j)
		return;
	if (rc < 0) {
		job_from_via(j);
		return;
	}
	j->total = tos_get_int(tos_at(elements, 0), "size", -1);
	j->from = "the store";
	if (!j->ask.admit) {
		job_end(j, 0, "", false);
		return;
	}
	/* It may have come here in any way: what the place has is looked at again. */
	j->verify_only = true;
	j->total = -1;
	if (strcmp(j->url.scheme, "tos") == 0)
		peer_has_it(j, j->url.host);
	else
		job_from_url(j);
}

static void on_admitted(struct tos_ext *x, void *arg, int rc, const char *text,
	const char *folder, const struct tos_value *elements)
{
	struct job *j = later_job(x, arg);

	(void)text;
	(void)folder;
	(void)elements;
	if (!j)
		return;
	if (rc == 0) /* before: only the bytes are wanted */
		j->ask.admit = false;
	if (!job_call(j, "Content", "STAT", digest_args(j), 10000, on_stat, later_new(j)))
		job_fail(j, TOS_ERR_IO, NO_CALLS);
}

static void job_start(struct job *j)
{
	const char *verb = j->ask.admit ? "ADMITTED" : "STAT";

	j->active = true;
	state_of(j->x)->n_active++;
	if (j->ask.index) {
		j->verify_only = true; /* nothing of it goes to the store */
		transfer_begin(j);
	} else if (!job_call(j, "Content", verb, digest_args(j), 10000,
			   j->ask.admit ? on_admitted : on_stat, later_new(j)))
		job_fail(j, TOS_ERR_IO, NO_CALLS);
}

static void jobs_start(struct tos_ext *x)
{
	struct state *s = state_of(x);
	struct job *j = s->jobs;

	while (j && s->n_active < ACTIVE_MAX) {
		if (!j->active && !j->over && j->begun) {
			job_start(j);
			j = s->jobs; /* the list may be another one now */
		} else {
			j = j->next;
		}
	}
}

static void deadline_set(struct job *j);

static void on_deadline(struct tos_ext *x, void *arg)
{
	struct job *j = job_by_number(x, (uint64_t)(uintptr_t)arg);
	int64_t now = tos_now_ms(x);
	bool somebody = false;

	if (!j)
		return;
	j->deadline = NULL;
	for (struct waiter *w = j->waiters; w; w = w->next)
		somebody |= w->ask.deadline_ms > now;
	if (somebody)
		deadline_set(j);
	else
		job_fail(j, TOS_ERR_TIMEOUT, "%s: %lld bytes came in time", j->url.text,
			(long long)j->sent + (long long)j->n_buf);
}

static void deadline_set(struct job *j)
{
	j->deadline =
		tos_timer(j->x, job_left_ms(j), on_deadline, (void *)(uintptr_t)j->number);
}

static struct job *job_new(struct tos_ext *x, const struct ask *a)
{
	struct state *s = state_of(x);
	struct job *j = s->n_jobs < JOBS_MAX ? calloc(1, sizeof(*j)) : NULL;

	if (!j)
		return NULL;
	j->buf = malloc(PIECE_BYTES);
	j->digest = EVP_MD_CTX_new();
	if (!j->buf || !j->digest || EVP_DigestInit_ex(j->digest, EVP_sha256(), NULL) != 1) {
		EVP_MD_CTX_free(j->digest);
		free(j->buf);
		free(j);
		return NULL;
	}
	j->x = x;
	j->number = ++s->next_number;
	j->ask = *a;
	j->ask.via = a->via ? tos_value_copy(a->via) : NULL;
	j->url = a->url;
	j->fd = -1;
	j->total = j->range_start = -1;
	j->next = s->jobs;
	s->jobs = j;
	s->n_jobs++;
	return j;
}

/* Takes what a owns. */
void ask_do(struct tos_ext *x, struct ask *a)
{
	struct job *j = job_of(x, a);
	bool fresh = !j, joins = j && (!a->admit || j->ask.admit);
	struct waiter *w = calloc(1, sizeof(*w));

	if (fresh)
		j = job_new(x, a);
	if (!j || !w || j->n_waiters >= WAITERS_MAX) {
		if (a->token)
			tos_fail(x, a->token, TOS_ERR_FULL, "too many downloads are under way");
		tos_value_free(a->via);
		free(w);
		return;
	}
	w->ask = *a;
	w->first = fresh;
	j->n_waiters++;
	if (!fresh && !joins) { /* this one admits nothing: afterwards */
		w->next = j->later;
		j->later = w;
		return;
	}
	w->next = j->waiters;
	j->waiters = w;
	if (!fresh) {
		tos_count(x, "shared", 1);
		return;
	}
	j->begun = true;
	deadline_set(j);
	jobs_start(x);
}
