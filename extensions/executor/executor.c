/*
 * Executor: runs programs for carriers. It decides what carriers may say and hear: which program of
 * several fits this machine, what becomes of the output (captured up to a bound, posted to an inbox
 * of the carrier, or read by it), who waits for an end, whose handle it is. The programs themselves
 * are the kernel's, behind its inbox Programs, which checks policy and limits.
 *
 * A program that the carrier does not outlive is forgotten with it; one that stays is found again
 * by its name, also after a restart of the kernel.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <tos/extension.h>

#define JOBS_MAX      512
#define WAITERS_MAX   16
#define CAPTURE_BYTES (256u << 10) /* of each stream, unless asked otherwise */
#define CAPTURE_MAX   (512u << 10) /* two of them fit into one answer, nearly */
#define CAPTURED_MAX  (32u << 20)  /* of all that have ended */
#define INPUT_BYTES   (256u << 10) /* what the kernel keeps of stdin until it is read */
#define LINE_MAX_     8192
#define READ_MS       60000
#define AGAIN_MS      5 /* a full inbox is tried again */
#define KEPT_MS       600000
#define STOP_S        5

/* doc/errors.md */
#define DENIED    (-2)
#define FULL      (-3)
#define TOO_LARGE (-6)
#define MALFORMED (-8)
#define NO_MEMORY (-10)
#define LIMIT     (-11)
#define NOT_FOUND (-14)
#define TIMED_OUT (-21)
#define USAGE     (-26)

enum mode { CAPTURE, POST, READ };

/* The beginning and the end of what came; what lay between is counted. */
struct capture {
	uint8_t *head, *tail;
	size_t n_head, n_tail, tail_at, most; /* of each of them */
	uint64_t total;
};

struct job {
	struct job *next;
	struct tos_ext *x;
	uintptr_t number; /* what callbacks know it by: it may be forgotten before they come */
	char handle[33], carrier[192], owner[80], inbox[96];
	bool stays, ended, lines;
	enum mode mode;
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
	bool partial_posted[2], end_posted;
	uint64_t lost; /* folders that nobody takes any more */
};

struct executor {
	struct job *jobs;
	size_t n_jobs;
	uintptr_t numbers;
	struct ask *asks;
	char machine[65];
};

/* What a call to the kernel was made for. */
struct ask {
	struct ask *next, **at;
	uint64_t token;
	int64_t until_ms; /* nobody waits for the answer any more */
	char handle[33];
	char carrier[192], owner[80];
	bool wait, stays, lines, input, dry;
	enum mode mode;
	char inbox[96];
	size_t capture;
	uint8_t *text;
	size_t n_text;
};

static void pump(struct job *j);

/* ---- values ---- */

static struct tos_value *text_or_bytes(const void *p, size_t n)
{
	struct tos_value *v = tos_text_n(p, n);

	return v ? v : tos_bytes(p, n);
}

static struct tos_value *one(struct tos_value *v)
{
	struct tos_value *list = tos_array();

	tos_push(list, v);
	return list;
}

static void reply(struct tos_ext *x, uint64_t token, struct tos_value *v)
{
	if (token)
		tos_reply(x, token, "ok", one(v));
	else
		tos_value_free(v);
}

static void refuse(struct tos_ext *x, uint64_t token, int rc, const char *text)
{
	if (token)
		tos_fail(x, token, rc, text);
}

/* ---- capturing ---- */

static void capture_add(struct capture *c, const uint8_t *p, size_t n)
{
	c->total += n;
	if (!c->head) {
		c->head = malloc(c->most ? c->most : 1);
		c->tail = malloc(c->most ? c->most : 1);
	}
	if (!c->head || !c->tail)
		return; /* counted as cut */
	while (n) {
		size_t part;

		if (c->n_head < c->most) {
			part = c->most - c->n_head < n ? c->most - c->n_head : n;
			memcpy(c->head + c->n_head, p, part);
			c->n_head += part;
		} else if (!c->most) {
			return;
		} else {
			part = c->most - c->tail_at < n ? c->most - c->tail_at : n;
			memcpy(c->tail + c->tail_at, p, part);
			c->tail_at = (c->tail_at + part) % c->most;
			if (c->n_tail < c->most)
				c->n_tail +=
					part < c->most - c->n_tail ? part : c->most - c->n_tail;
		}
		p += part;
		n -= part;
	}
}

static uint64_t capture_cut(const struct capture *c)
{
	return c->total - c->n_head - c->n_tail;
}

static struct tos_value *capture_value(const struct capture *c)
{
	size_t n = c->n_head + c->n_tail, first;
	uint8_t *all;
	struct tos_value *v;

	if (!n)
		return tos_text("");
	all = malloc(n);
	if (!all)
		return NULL;
	memcpy(all, c->head, c->n_head);
	if (c->n_tail == c->most && c->most) { /* a ring that is full begins where it goes on */
		first = c->most - c->tail_at;
		memcpy(all + c->n_head, c->tail + c->tail_at, first);
		memcpy(all + c->n_head + first, c->tail, c->tail_at);
	} else {
		memcpy(all + c->n_head, c->tail, c->n_tail);
	}
	v = text_or_bytes(all, n);
	free(all);
	return v;
}

static void capture_free(struct capture *c)
{
	free(c->head);
	free(c->tail);
	memset(c, 0, sizeof(*c));
}

/* ---- jobs ---- */

static struct job *job_find(struct executor *e, const char *handle)
{
	struct job *j = e->jobs;

	while (j && strcmp(j->handle, handle) != 0)
		j = j->next;
	return j;
}

static struct job *job_numbered(struct executor *e, void *number)
{
	struct job *j = e->jobs;

	while (j && j->number != (uintptr_t)number)
		j = j->next;
	return j;
}

static bool job_is_of(const struct job *j, const struct tos_message *m)
{
	const char *owner = tos_get_text(m->info, "owner", "");

	return strcmp(j->carrier, m->sender) == 0 ||
	       (j->stays && owner[0] && strcmp(j->owner, owner) == 0);
}

static void job_drop(struct job *j)
{
	struct executor *e = tos_data(j->x);
	struct job **at = &e->jobs;

	for (size_t i = 0; i < j->n_waiters; i++)
		refuse(j->x, j->waiter[i].token, NOT_FOUND, "the program was forgotten");
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

/* The oldest that have ended make room: by number, age and what they hold. */
static void jobs_trim(struct executor *e)
{
	for (;;) {
		struct job *oldest = NULL;
		size_t held = 0;

		for (struct job *j = e->jobs; j; j = j->next) {
			if (!j->ended)
				continue;
			held += j->out[0].n_head + j->out[0].n_tail + j->out[1].n_head +
				j->out[1].n_tail;
			if (!oldest || j->ended_ms < oldest->ended_ms)
				oldest = j;
		}
		if (!oldest || (e->n_jobs < JOBS_MAX && held <= CAPTURED_MAX &&
				       tos_now_ms(oldest->x) - oldest->ended_ms < KEPT_MS))
			return;
		job_drop(oldest);
	}
}

static struct job *job_new(struct tos_ext *x, const char *handle)
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

	for (int i = 0; i < 2 && j->mode == CAPTURE; i++) {
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

/* ---- output ---- */

static void on_read(struct tos_ext *x, void *arg, int rc, const char *text, const char *folder,
	const struct tos_value *elements);

static void job_read(struct job *j)
{
	struct tos_value *m = tos_map();

	tos_set(m, "handle", tos_text(j->handle));
	if (tos_call(j->x, "Programs", "READ", one(m), READ_MS, on_read, (void *)j->number) < 0)
		job_drop(j);
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
	struct job *j = job_numbered(tos_data(x), arg);
	const struct tos_value *m = tos_at(elements, 0), *end = tos_get(m, "ended");

	(void)text;
	(void)folder;
	if (!j)
		return;
	if (rc == TIMED_OUT) {
		job_read(j);
		return;
	}
	if (rc < 0) {
		job_drop(j);
		return;
	}
	if (end)
		j->end = tos_value_copy(end);
	if (j->mode == CAPTURE) {
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

/* ---- posting output to the carrier ---- */

static struct tos_value *folder_of(struct job *j, int which, const void *p, size_t n)
{
	struct tos_value *m = tos_map();

	tos_set(m, "handle", tos_text(j->handle));
	tos_set(m, "stream", tos_text(which ? "stderr" : "stdout"));
	tos_set(m, j->lines ? "line" : "data", text_or_bytes(p, n));
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
		if (!j->lines) {
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
	struct job *j = job_numbered(tos_data(x), arg);

	if (j)
		pump(j);
}

/* True if it is out of the way: taken, or nobody is there to take it. */
static bool give(struct job *j, const char *folder, struct tos_value *v)
{
	char dest[320];
	int rc;

	snprintf(dest, sizeof(dest), "%s/%s", j->carrier, j->inbox);
	rc = tos_post(j->x, dest, folder, one(tos_value_copy(v)));
	if (rc != FULL) {
		j->lost += rc < 0;
		tos_value_free(v);
		return true;
	}
	j->stuck = v;
	tos_timer(j->x, AGAIN_MS, on_again, (void *)j->number);
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

/* ---- verbs ---- */

static void ask_free(struct ask *a)
{
	*a->at = a->next;
	if (a->next)
		a->next->at = a->at;
	free(a->text);
	free(a);
}

/* The kernel's answer is the carrier's. */
static void on_passed(struct tos_ext *x, void *arg, int rc, const char *text,
	const char *folder, const struct tos_value *elements)
{
	struct ask *a = arg;

	(void)folder;
	if (rc < 0)
		refuse(x, a->token, rc, text);
	else
		reply(x, a->token, tos_value_copy(tos_at(elements, 0)));
	ask_free(a);
}

static struct ask *ask_new(struct tos_ext *x, const struct tos_message *m)
{
	struct executor *e = tos_data(x);
	struct ask *a = calloc(1, sizeof(*a));

	if (!a) {
		refuse(x, m->token, NO_MEMORY, "out of memory");
		return NULL;
	}
	a->at = &e->asks;
	a->next = e->asks;
	if (a->next)
		a->next->at = &a->next;
	e->asks = a;
	a->token = m->token;
	a->until_ms = tos_now_ms(x) + m->deadline_ms;
	snprintf(a->carrier, sizeof(a->carrier), "%s", m->sender);
	snprintf(a->owner, sizeof(a->owner), "%s", tos_get_text(m->info, "owner", ""));
	return a;
}

/* Ask the kernel on behalf of the sender. Takes args and a. */
static void kernel_ask(struct tos_ext *x, struct ask *a, const char *verb,
	struct tos_value *args, tos_answer_fn *done)
{
	int rc;

	tos_set(args, "for", tos_text(a->carrier));
	rc = tos_call(x, "Programs", verb, one(args), READ_MS, done, a);
	if (rc < 0) {
		refuse(x, a->token, rc, "the kernel takes no more calls");
		ask_free(a);
	}
}

static void pass(struct tos_ext *x, const struct tos_message *m, const char *verb,
	const struct tos_value *args)
{
	struct ask *a = ask_new(x, m);

	if (a)
		kernel_ask(x, a, verb,
			tos_type(args) == TOS_MAP ? tos_value_copy(args) : tos_map(),
			on_passed);
}

/* A named action of the host's: the kernel has tosd run it, and answers when it has ended. */
static void action(struct tos_ext *x, const struct tos_message *m, const struct tos_value *args)
{
	struct tos_value *to = tos_type(args) == TOS_MAP ? tos_value_copy(args) : tos_map();
	struct ask *a = ask_new(x, m);

	if (!a) {
		tos_value_free(to);
		return;
	}
	tos_set(to, "for", tos_text(a->carrier));
	if (tos_call(x, "Programs", "ACTION", one(to),
		    m->deadline_ms ? m->deadline_ms : READ_MS, on_passed, a) < 0) {
		refuse(x, a->token, FULL, "the kernel takes no more calls");
		ask_free(a);
	}
}

/* Those whose time is up heard so from the kernel. */
static void waiters_trim(struct job *j)
{
	size_t n = 0;

	for (size_t i = 0; i < j->n_waiters; i++)
		if (tos_now_ms(j->x) < j->waiter[i].until_ms)
			j->waiter[n++] = j->waiter[i];
	j->n_waiters = n;
}

static void wait_for(struct job *j, uint64_t token, int64_t until_ms)
{
	if (!token)
		return;
	if (j->n_waiters == WAITERS_MAX)
		waiters_trim(j);
	if (j->ended)
		reply(j->x, token, job_result(j));
	else if (j->n_waiters == WAITERS_MAX)
		refuse(j->x, token, FULL, "too many wait for this program");
	else {
		j->waiter[j->n_waiters].token = token;
		j->waiter[j->n_waiters++].until_ms = until_ms;
	}
}

/* What is to be written at once, and whether more may follow. */
static void write_input(struct tos_ext *x, const struct ask *a, const char *handle)
{
	struct tos_value *m = tos_map();

	tos_set(m, "for", tos_text(a->carrier));
	tos_set(m, "handle", tos_text(handle));
	tos_set(m, "data", tos_bytes(a->text, a->n_text));
	tos_set(m, "close", tos_bool(!a->input));
	tos_post(x, "Programs", "WRITE", one(m));
}

static void kernel_kill(struct tos_ext *x, const struct ask *a, const char *handle)
{
	struct tos_value *m = tos_map();

	tos_set(m, "for", tos_text(a->carrier));
	tos_set(m, "handle", tos_text(handle));
	tos_set(m, "signal", tos_text("KILL"));
	tos_post(x, "Programs", "SIGNAL", one(m));
}

static void on_started(struct tos_ext *x, void *arg, int rc, const char *text,
	const char *folder, const struct tos_value *elements)
{
	struct ask *a = arg;
	const struct tos_value *row = tos_at(elements, 0);
	const char *handle = tos_get_text(row, "handle", "");
	struct job *j;

	(void)folder;
	if (rc < 0) {
		tos_count(x, "refused", 1);
		refuse(x, a->token, rc, text);
		ask_free(a);
		return;
	}
	if (a->dry) {
		reply(x, a->token, tos_value_copy(row));
		ask_free(a);
		return;
	}
	j = job_find(tos_data(x), handle);
	if (!j) {
		j = job_new(x, handle);
		if (!j) {
			kernel_kill(x, a, handle); /* nobody would hear of it */
			refuse(x, a->token, FULL, "too many programs are remembered");
			ask_free(a);
			return;
		}
		snprintf(j->carrier, sizeof(j->carrier), "%s", a->carrier);
		snprintf(j->owner, sizeof(j->owner), "%s", a->owner);
		snprintf(j->inbox, sizeof(j->inbox), "%s", a->inbox);
		j->stays = a->stays;
		j->mode = a->mode;
		j->lines = a->lines;
		j->out[0].most = j->out[1].most = a->capture / 2;
		tos_count(x, "started", 1);
		write_input(x, a, handle);
		if (j->mode != READ)
			job_read(j);
	}
	if (a->wait)
		wait_for(j, a->token, a->until_ms);
	else
		reply(x, a->token, tos_value_copy(row));
	ask_free(a);
}

/* {x86_64: ..., aarch64: ...}: the one for this machine. NULL: text says why. */
static const struct tos_value *for_machine(
	const struct executor *e, const struct tos_value *v, char *text, size_t cap)
{
	const struct tos_value *found = tos_get(v, e->machine);
	size_t n;

	if (tos_type(v) != TOS_MAP)
		return v;
	if (!found)
		found = tos_get(v, "any");
	if (found)
		return found;
	n = (size_t)snprintf(
		text, cap, "there is no program for this machine (%s); there is", e->machine);
	for (size_t i = 0; i < tos_len(v) && n < cap; i++)
		n += (size_t)snprintf(text + n, cap - n, "%s %.32s", i ? "," : "",
			tos_as_text(tos_key_at(v, i), "?"));
	return NULL;
}

static int run_read(struct executor *e, const struct tos_value *args, struct ask *a,
	struct tos_value *to, char *text, size_t cap)
{
	static const char *const passed[] = { "args", "env", "argv0", "limits", "dry", "stay",
		"name", "network" };
	const struct tos_value *program, *stdin_ = tos_get(args, "stdin");
	const char *output = tos_get_text(args, "output", "capture"), *by;
	char note[160];
	size_t n;
	const uint8_t *p;

	snprintf(text, cap, "RUN takes a table with at least program");
	if (tos_type(args) != TOS_MAP || !(program = tos_get(args, "program")))
		return USAGE;
	program = for_machine(e, program, text, cap);
	if (!program)
		return NOT_FOUND;
	if (tos_type(program) != TOS_TEXT) {
		snprintf(text, cap,
			"program is a path, a name, sha256:DIGEST, or a table of these "
			"by machine");
		return USAGE;
	}
	tos_set(to, "program", tos_value_copy(program));
	for (size_t i = 0; i < sizeof(passed) / sizeof(*passed); i++)
		if (tos_get(args, passed[i]))
			tos_set(to, passed[i], tos_value_copy(tos_get(args, passed[i])));
	a->wait = tos_get_bool(args, "wait", false);
	a->stays = tos_get_bool(args, "stay", false);
	a->input = tos_get_bool(args, "input", false);
	a->dry = tos_get_bool(args, "dry", false);
	a->capture = CAPTURE_BYTES;
	if (tos_get(args, "capture")) {
		int64_t most = tos_get_int(args, "capture", -1);

		snprintf(text, cap, "capture is a number of bytes, at most %u", CAPTURE_MAX);
		if (most < 0 || most > CAPTURE_MAX)
			return USAGE;
		a->capture = (size_t)most;
	}
	p = tos_as_bytes(stdin_, &n);
	snprintf(text, cap, "stdin is a text of at most %u bytes; WRITE takes more",
		INPUT_BYTES);
	if (stdin_ && !p)
		return USAGE;
	if (n > INPUT_BYTES)
		return TOO_LARGE;
	if (n) {
		a->text = malloc(n);
		if (!a->text)
			return NO_MEMORY;
		memcpy(a->text, p, n);
		a->n_text = n;
	}
	by = tos_get_text(args, "by", "line");
	a->lines = strcmp(by, "line") == 0;
	a->mode = strcmp(output, "capture") == 0 ? CAPTURE
		  : strcmp(output, "read") == 0  ? READ
						 : POST;
	snprintf(text, cap,
		"output is \"capture\", \"read\", or the name of an inbox of the carrier, "
		"by \"line\" or \"chunk\"");
	if ((!a->lines && strcmp(by, "chunk") != 0) || strlen(output) >= sizeof(a->inbox) ||
		strchr(output, '/') || (a->mode == READ && a->wait))
		return USAGE;
	snprintf(a->inbox, sizeof(a->inbox), "%s", output);
	snprintf(note, sizeof(note), "%s %zu %s", by, a->capture, output);
	tos_set(to, "note", tos_text(note));
	return 0;
}

static void run(struct tos_ext *x, const struct tos_message *m, const struct tos_value *args)
{
	struct ask *a = ask_new(x, m);
	struct tos_value *to = tos_map();
	char text[256];
	int rc;

	if (!a) {
		tos_value_free(to);
		return;
	}
	rc = run_read(tos_data(x), args, a, to, text, sizeof(text));
	if (rc == 0) {
		kernel_ask(x, a, "START", to, on_started);
		return;
	}
	refuse(x, a->token, rc, text);
	tos_value_free(to);
	ask_free(a);
}

static struct job *job_asked(
	struct tos_ext *x, const struct tos_message *m, const struct tos_value *args)
{
	struct job *j = job_find(tos_data(x), tos_get_text(args, "handle", ""));

	if (j && job_is_of(j, m))
		return j;
	return NULL;
}

/* A handle that is not here may be unknown to us only: the kernel says what it is, or why not. */
static void wait_verb(
	struct tos_ext *x, const struct tos_message *m, const struct tos_value *args)
{
	struct job *j = job_asked(x, m, args);

	if (j && j->mode == READ)
		refuse(x, m->token, USAGE, "who reads a program's output reads its end, too");
	else if (j)
		wait_for(j, m->token, tos_now_ms(x) + m->deadline_ms);
	else
		pass(x, m, "STATUS", args);
}

static void on_stopping(struct tos_ext *x, void *arg, int rc, const char *text,
	const char *folder, const struct tos_value *elements)
{
	struct ask *a = arg;
	struct job *j = job_find(tos_data(x), a->handle);

	(void)folder;
	(void)elements;
	if (rc < 0 && !(j && j->ended))
		refuse(x, a->token, rc, text);
	else if (j && j->mode != READ)
		wait_for(j, a->token, a->until_ms);
	else
		reply(x, a->token, tos_map());
	ask_free(a);
}

/* SIGTERM now, SIGKILL when its time is up; answered when it has ended. */
static void stop_verb(
	struct tos_ext *x, const struct tos_message *m, const struct tos_value *args)
{
	struct ask *a = ask_new(x, m);
	double after = tos_as_float(tos_get(args, "after"), STOP_S);
	struct tos_value *to;

	if (!a)
		return;
	if (!(after >= 0) || after > 3600) {
		refuse(x, m->token, USAGE, "after is a number of seconds, at most 3600");
		ask_free(a);
		return;
	}
	snprintf(a->handle, sizeof(a->handle), "%s", tos_get_text(args, "handle", ""));
	to = tos_map();
	tos_set(to, "handle", tos_text(a->handle));
	tos_set(to, "signal", tos_text("TERM"));
	tos_set(to, "kill_ms", tos_int((int64_t)(after * 1000) + 1));
	kernel_ask(x, a, "SIGNAL", to, on_stopping);
}

static void on_output(struct tos_ext *x, void *arg, int rc, const char *text,
	const char *folder, const struct tos_value *elements)
{
	static const char *const names[2] = { "stdout", "stderr" };
	struct ask *a = arg;
	const struct tos_value *m = tos_at(elements, 0), *list = tos_get(m, "output");
	struct capture c[2] = { { .most = CAPTURE_MAX }, { .most = CAPTURE_MAX } };
	struct tos_value *to;
	struct job *j = job_find(tos_data(x), a->handle);

	(void)folder;
	if (rc < 0) {
		refuse(x, a->token, rc, text);
		ask_free(a);
		return;
	}
	to = tos_map();
	for (size_t i = 0; i < tos_len(list); i++) {
		size_t n;
		const uint8_t *p = tos_as_bytes(tos_at(tos_at(list, i), 1), &n);

		capture_add(&c[tos_as_int(tos_at(tos_at(list, i), 0), 1) == 2], p, n);
	}
	for (int i = 0; i < 2; i++) {
		if (c[i].total)
			tos_set(to, names[i], capture_value(&c[i]));
		capture_free(&c[i]);
	}
	if (tos_get(m, "ended"))
		tos_set(to, "ended", tos_value_copy(tos_get(m, "ended")));
	reply(x, a->token, to);
	if (j && tos_get(m, "ended")) {
		j->end = j->end ? j->end : tos_value_copy(tos_get(m, "ended"));
		job_end(j);
	}
	ask_free(a);
}

/* The next of what it wrote; waits for it. */
static void read_verb(
	struct tos_ext *x, const struct tos_message *m, const struct tos_value *args)
{
	struct job *j = job_asked(x, m, args);
	struct tos_value *to;
	struct ask *a;

	if (!j || j->mode != READ) {
		refuse(x, m->token, j ? USAGE : NOT_FOUND,
			j ? "run it with output = \"read\" to read what it writes"
			  : "you have no program of that handle here");
		return;
	}
	a = ask_new(x, m);
	if (!a)
		return;
	snprintf(a->handle, sizeof(a->handle), "%s", j->handle);
	to = tos_map();
	tos_set(to, "handle", tos_text(j->handle));
	if (tos_call(x, "Programs", "READ", one(to), m->deadline_ms, on_output, a) < 0) {
		refuse(x, a->token, FULL, "the kernel takes no more calls");
		ask_free(a);
	}
}

/* From the kernel: a program that outlived the one before. */
static void kept(struct tos_ext *x, const struct tos_value *row)
{
	struct job *j;
	char by[8] = "line", output[96] = "capture";
	size_t capture = CAPTURE_BYTES;

	if (job_find(tos_data(x), tos_get_text(row, "handle", "")))
		return;
	j = job_new(x, tos_get_text(row, "handle", ""));
	if (!j)
		return;
	if (sscanf(tos_get_text(row, "note", ""), "%7s %zu %95s", by, &capture, output) != 3 ||
		capture > CAPTURE_MAX)
		capture = CAPTURE_BYTES;
	snprintf(j->carrier, sizeof(j->carrier), "%s", tos_get_text(row, "carrier", ""));
	snprintf(j->owner, sizeof(j->owner), "%s", tos_get_text(row, "owner", ""));
	snprintf(j->inbox, sizeof(j->inbox), "%s", output);
	j->stays = true;
	j->lines = strcmp(by, "line") == 0;
	j->mode = strcmp(output, "capture") == 0 ? CAPTURE
		  : strcmp(output, "read") == 0  ? READ
						 : POST;
	j->out[0].most = j->out[1].most = capture / 2;
	tos_count(x, "kept", 1);
	if (j->mode != READ)
		job_read(j);
}

/* What needs no handle, which only its carrier knows. */
static bool is_local(const char *verb)
{
	return strcmp(verb, "RUN") == 0 || strcmp(verb, "LIST") == 0 ||
	       strcmp(verb, "ACTION") == 0;
}

static void answer(struct tos_ext *x, const struct tos_message *m)
{
	const struct tos_value *first = tos_at(m->elements, 0);
	bool named = tos_type(first) == TOS_TEXT;
	const char *verb = named ? tos_as_text(first, "") : m->folder;
	const struct tos_value *args = named ? tos_at(m->elements, 1) : first;

	/* The kernel goes by the carrier's name: another kernel that had it once may still speak for
	 * it, and would start programs with the rights of the one that is here. */
	if (tos_get_text(m->info, "kernel", "")[0] && is_local(verb))
		refuse(x, m->token, DENIED,
			"a carrier runs programs where it is; go there first");
	else if (strcmp(verb, "KEPT") == 0 && !m->sender[0])
		kept(x, args);
	else if (strcmp(verb, "RUN") == 0)
		run(x, m, args);
	else if (strcmp(verb, "WAIT") == 0)
		wait_verb(x, m, args);
	else if (strcmp(verb, "READ") == 0)
		read_verb(x, m, args);
	else if (strcmp(verb, "STOP") == 0)
		stop_verb(x, m, args);
	else if (strcmp(verb, "ACTION") == 0)
		action(x, m, args);
	else if (strcmp(verb, "SIGNAL") == 0 || strcmp(verb, "STATUS") == 0 ||
		 strcmp(verb, "WRITE") == 0 || strcmp(verb, "LIST") == 0)
		pass(x, m, verb, args);
	else
		refuse(x, m->token, MALFORMED,
			"Executor knows RUN, WAIT, READ, WRITE, SIGNAL, STOP, STATUS, LIST and ACTION");
}

static void wake(struct tos_ext *x, struct tos_inbox *in)
{
	struct tos_message m;

	while (tos_inbox_next(in, &m))
		answer(x, &m);
	jobs_trim(tos_data(x));
}

static int start(struct tos_ext *x)
{
	struct executor *e = calloc(1, sizeof(*e));
	struct utsname u;

	if (!e)
		return NO_MEMORY;
	if (uname(&u) == 0)
		snprintf(e->machine, sizeof(e->machine), "%.64s", u.machine);
	tos_set_data(x, e);
	return 0;
}

static void stop(struct tos_ext *x)
{
	struct executor *e = tos_data(x);

	while (e->jobs) {
		e->jobs->n_waiters = 0;
		job_drop(e->jobs);
	}
	while (e->asks)
		ask_free(e->asks);
	free(e);
}

static const struct tos_inbox_spec inboxes[] = {
	{ .name = "Executor",
		.doc = "runs programs in sandboxes, for carriers",
		.wake = wake,
		.wait_ms = 60000,
		.protocol =
			"a call with elements VERB and a table\n"
			"RUN {program, args, env, stdin, input, limits, output, by, capture, wait, "
			"stay,\n"
			"name, network} -> {handle, pid, ...}, or with wait its end; with dry it is\n"
			"only looked at whether it may and can be run: {program, digest, ...}\n"
			"WAIT {handle} -> {code or signal, cause, stdout, stderr, stdout_cut, "
			"stderr_cut,\n"
			"cpu_ms, peak_bytes, ran_ms}\n"
			"READ {handle} -> {stdout, stderr, ended}\n"
			"WRITE {handle, data, close}, SIGNAL {handle, signal}\n"
			"STOP {handle, after} -> its end: SIGTERM, then SIGKILL after so many s\n"
			"STATUS {handle}, LIST -> {programs}\n"
			"ACTION {name, args, dry} -> {code or signal, cause, stdout, stderr, ...}: a named\n"
			"action of the host's, which policy grants by its name" },
	{ 0 },
};

const struct tos_extension tos_extension = {
	TOS_ABI,
	.name = "executor",
	.doc = "Runs programs in sandboxes, for carriers.",
	.inboxes = inboxes,
	.start = start,
	.stop = stop,
};
