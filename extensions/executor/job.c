/*
 * The programs that were started here. What they write is read from the kernel, and captured up to a
 * bound or posted to an inbox of the carrier; whoever waits for an end is answered. Callbacks know a
 * program by its number: it may be forgotten before they come.
 */
#include "executor.h"

#define JOBS_MAX      512
#define WAITERS_MAX   16
#define CAPTURED_MAX  (32u << 20) /* of all that have ended */
#define LINE_MAX_     8192
#define READ_MS       60000
#define AGAIN_MS      5   /* a full inbox is tried again */
#define AGAIN_MOST_MS 500 /* of a carrier that reads nothing */
#define KEPT_MS       600000

struct job {
	struct job *next;
	struct tos_ext *x;
	uintptr_t number; /* what callbacks know it by */
	char handle[HANDLE_BYTES];
	struct terms terms;
	bool ended;
	struct capture out[2];
	struct {
		uint64_t token;
		int64_t until_ms;
	} waiter[WAITERS_MAX];
	size_t n_waiters;
	struct tos_value *end; /* the kernel's last word */
	int64_t ended_ms;
	/* what was read and is being posted */
	struct tos_value *output;
	size_t chunk, at;
	struct {
		char text[LINE_MAX_];
		size_t n;
	} line[2];
	struct tos_value *stuck; /* a folder that found the inbox full */
	uint32_t again_ms;       /* how long it waits then */
	bool end_posted;
	uint64_t lost; /* folders that nobody takes any more */
};

struct job *job_find(struct tos_ext *x, const char *handle)
{
	struct job *j = ((struct executor *)tos_data(x))->jobs;

	while (j && strcmp(j->handle, handle) != 0)
		j = j->next;
	return j;
}

static struct job *job_numbered(struct tos_ext *x, void *number)
{
	struct job *j = ((struct executor *)tos_data(x))->jobs;

	while (j && j->number != (uintptr_t)number)
		j = j->next;
	return j;
}

static void job_drop(struct job *j)
{
	struct executor *e = tos_data(j->x);
	struct job **at = &e->jobs;

	for (size_t i = 0; i < j->n_waiters; i++)
		refuse(j->x, j->waiter[i].token, TOS_ERR_NOT_FOUND,
			"the program was forgotten");
	while (*at != j)
		at = &(*at)->next;
	*at = j->next;
	e->n_jobs--;
	capture_free(&j->out[0]);
	capture_free(&j->out[1]);
	tos_value_free(j->end);
	tos_value_free(j->output);
	tos_value_free(j->stuck);
	free(j);
}

void jobs_trim(struct executor *e)
{
	for (;;) {
		struct job *oldest = NULL;
		size_t held = 0;

		for (struct job *j = e->jobs; j; j = j->next) {
			if (!j->ended)
				continue;
			held += capture_held(&j->out[0]) + capture_held(&j->out[1]);
			if (!oldest || j->ended_ms < oldest->ended_ms)
				oldest = j;
		}
		if (!oldest || (e->n_jobs < JOBS_MAX && held <= CAPTURED_MAX &&
				       tos_now_ms(oldest->x) - oldest->ended_ms < KEPT_MS))
			return;
		job_drop(oldest);
	}
}

struct job *job_new(struct tos_ext *x, const char *handle, const struct terms *t)
{
	struct executor *e = tos_data(x);
	struct job *j;

	jobs_trim(e);
	j = e->n_jobs < JOBS_MAX ? calloc(1, sizeof(*j)) : NULL;
	if (!j)
		return NULL;
	j->x = x;
	j->number = ++e->numbers;
	snprintf(j->handle, sizeof(j->handle), "%s", handle);
	j->terms = *t;
	j->out[0].most = j->out[1].most = t->capture / 2;
	j->next = e->jobs;
	e->jobs = j;
	e->n_jobs++;
	return j;
}

/* For whoever waits: how it ended and what it wrote. */
static struct tos_value *job_result(const struct job *j)
{
	static const char *const names[2] = { "stdout", "stderr" };
	static const char *const cut[2] = { "stdout_cut", "stderr_cut" };
	struct tos_value *m = tos_value_copy(j->end);

	for (int i = 0; i < 2 && j->terms.mode == CAPTURE; i++) {
		tos_set(m, names[i], capture_value(&j->out[i]));
		tos_set(m, cut[i], tos_int((int64_t)capture_cut(&j->out[i])));
	}
	if (j->lost)
		tos_set(m, "lost", tos_int((int64_t)j->lost));
	return m;
}

static void job_end(struct job *j)
{
	struct tos_value *m = tos_map();

	j->ended = true;
	j->ended_ms = tos_now_ms(j->x);
	for (size_t i = 0; i < j->n_waiters; i++)
		reply(j->x, j->waiter[i].token, job_result(j));
	j->n_waiters = 0;
	tos_set(m, "handle", tos_text(j->handle));
	tos_post(j->x, "Programs", "FORGET", one(m));
	tos_count(j->x, "ended", 1);
}

static void on_read(struct tos_ext *x, void *arg, int rc, const char *text, const char *folder,
	const struct tos_value *elements);
static void pump(struct job *j);

/* False: it is forgotten, since nobody would hear of its end. */
static bool job_read(struct job *j)
{
	struct tos_value *m = tos_map();

	tos_set(m, "handle", tos_text(j->handle));
	if (tos_call(j->x, "Programs", "READ", one(m), READ_MS, on_read, (void *)j->number) ==
		0)
		return true;
	job_drop(j);
	return false;
}

static void capture_output(struct job *j, const struct tos_value *output)
{
	for (size_t i = 0; i < tos_len(output); i++) {
		const struct tos_value *pair = tos_at(output, i);
		int64_t which = tos_as_int(tos_at(pair, 0), 1);
		size_t n;
		const uint8_t *p = tos_as_bytes(tos_at(pair, 1), &n);

		capture_add(&j->out[which == 2], p, n);
	}
}

/* The call was about a program that may have been forgotten meanwhile. */
static void on_read(struct tos_ext *x, void *arg, int rc, const char *text, const char *folder,
	const struct tos_value *elements)
{
	struct job *j = job_numbered(x, arg);
	const struct tos_value *m = tos_at(elements, 0), *end = tos_get(m, "ended");

	(void)text;
	(void)folder;
	if (!j)
		return;
	if (rc == TOS_ERR_TIMEOUT) {
		job_read(j);
		return;
	}
	if (rc < 0) {
		job_drop(j);
		return;
	}
	if (end)
		j->end = tos_value_copy(end);
	if (j->terms.mode == CAPTURE) {
		capture_output(j, tos_get(m, "output"));
		if (end)
			job_end(j);
		else
			job_read(j);
		return;
	}
	tos_value_free(j->output);
	j->output = tos_value_copy(tos_get(m, "output"));
	j->chunk = j->at = 0;
	pump(j);
}

static struct tos_value *folder_of(struct job *j, int which, const void *p, size_t n)
{
	struct tos_value *m = tos_map();

	tos_set(m, "handle", tos_text(j->handle));
	tos_set(m, "stream", tos_text(which ? "stderr" : "stdout"));
	tos_set(m, j->terms.lines ? "line" : "data", text_or_bytes(p, n));
	return m;
}

/* The next folder of what was read; NULL: no more of it. */
static struct tos_value *next_folder(struct job *j)
{
	while (j->chunk < tos_len(j->output)) {
		const struct tos_value *pair = tos_at(j->output, j->chunk);
		int which = tos_as_int(tos_at(pair, 0), 1) == 2;
		size_t n, part;
		const uint8_t *p = tos_as_bytes(tos_at(pair, 1), &n), *newline;
		struct tos_value *v;

		if (j->at >= n) {
			j->chunk++;
			j->at = 0;
			continue;
		}
		if (!j->terms.lines) {
			j->chunk++;
			j->at = 0;
			return folder_of(j, which, p, n);
		}
		newline = memchr(p + j->at, '\n', n - j->at);
		part = newline ? (size_t)(newline - p) - j->at : n - j->at;
		if (part > LINE_MAX_ - j->line[which].n)
			part = LINE_MAX_ - j->line[which].n;
		memcpy(j->line[which].text + j->line[which].n, p + j->at, part);
		j->line[which].n += part;
		j->at += part;
		if (j->at < n && p[j->at] == '\n')
			j->at++;
		else if (j->line[which].n < LINE_MAX_)
			continue;
		v = folder_of(j, which, j->line[which].text, j->line[which].n);
		j->line[which].n = 0;
		return v;
	}
	/* What did not end with a newline. */
	for (int which = 0; which < 2 && j->end; which++)
		if (j->line[which].n) {
			struct tos_value *v =
				folder_of(j, which, j->line[which].text, j->line[which].n);

			j->line[which].n = 0;
			return v;
		}
	return NULL;
}

static void on_again(struct tos_ext *x, void *arg)
{
	struct job *j = job_numbered(x, arg);

	if (j)
		pump(j);
}

/* True if it is out of the way: taken, or nobody is there to take it. */
static bool give(struct job *j, const char *folder, struct tos_value *v)
{
	char dest[320];
	int rc;

	snprintf(dest, sizeof(dest), "%s/%s", j->terms.carrier, j->terms.inbox);
	rc = tos_post(j->x, dest, folder, one(tos_value_copy(v)));
	if (rc != TOS_ERR_FULL) {
		j->lost += rc < 0;
		j->again_ms = 0;
		tos_value_free(v);
		return true;
	}
	j->stuck = v;
	j->again_ms = j->again_ms ? 2 * j->again_ms : AGAIN_MS;
	if (j->again_ms > AGAIN_MOST_MS)
		j->again_ms = AGAIN_MOST_MS;
	tos_timer(j->x, j->again_ms, on_again, (void *)j->number);
	return false;
}

/* Post what was read until the inbox is full; when all is posted, read on. The program waits
 * meanwhile: nothing is thrown away. */
static void pump(struct job *j)
{
	struct tos_value *v = j->stuck;

	j->stuck = NULL;
	if (v && !give(j, j->end_posted ? "end" : "output", v))
		return;
	if (j->end_posted) {
		job_end(j);
		return;
	}
	while ((v = next_folder(j)))
		if (!give(j, "output", v))
			return;
	if (!j->end) {
		job_read(j);
		return;
	}
	j->end_posted = true;
	if (give(j, "end", job_result(j)))
		job_end(j);
}

/* ---- for the other files */

/* Those whose time is up heard so from the kernel. */
static void waiters_trim(struct job *j)
{
	size_t n = 0;

	for (size_t i = 0; i < j->n_waiters; i++)
		if (tos_now_ms(j->x) < j->waiter[i].until_ms)
			j->waiter[n++] = j->waiter[i];
	j->n_waiters = n;
}

void job_wait(struct job *j, uint64_t token, int64_t until_ms)
{
	if (!token)
		return;
	if (j->n_waiters == WAITERS_MAX)
		waiters_trim(j);
	if (j->ended)
		reply(j->x, token, job_result(j));
	else if (j->n_waiters == WAITERS_MAX)
		refuse(j->x, token, TOS_ERR_FULL, "too many wait for this program");
	else {
		j->waiter[j->n_waiters].token = token;
		j->waiter[j->n_waiters++].until_ms = until_ms;
	}
}

bool job_begin(struct job *j)
{
	return j->terms.mode == READ || job_read(j);
}

void job_end_read(struct job *j, const struct tos_value *end)
{
	j->end = j->end ? j->end : tos_value_copy(end);
	job_end(j);
}

bool job_ended(const struct job *j)
{
	return j->ended;
}

const struct terms *job_terms(const struct job *j)
{
	return &j->terms;
}

void jobs_free(struct executor *e)
{
	while (e->jobs) {
		e->jobs->n_waiters = 0;
		job_drop(e->jobs);
	}
}
