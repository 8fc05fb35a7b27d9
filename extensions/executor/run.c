/*
 * RUN: which program of several fits this machine, how it is to be started, and what becomes of its
 * output. One that stays is found again by its name after a restart of the kernel, whose note on it
 * says what becomes of its output.
 */
#include "executor.h"

#define CAPTURE_BYTES (256u << 10) /* of each stream, unless asked otherwise */
#define INPUT_BYTES   (256u << 10) /* what the kernel keeps of stdin until it is read */

/* What is to be written at once, and whether more may follow. */
static void write_input(struct tos_ext *x, const struct ask *a, const char *handle)
{
	struct tos_value *m = tos_map();

	tos_set(m, "for", tos_text(a->terms.carrier));
	tos_set(m, "handle", tos_text(handle));
	tos_set(m, "data", tos_bytes(a->text, a->n_text));
	tos_set(m, "close", tos_bool(!a->input));
	tos_post(x, "Programs", "WRITE", one(m));
}

static void kernel_kill(struct tos_ext *x, const struct ask *a, const char *handle)
{
	struct tos_value *m = tos_map();

	tos_set(m, "for", tos_text(a->terms.carrier));
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
		ask_refuse(x, a, rc, text);
		return;
	}
	if (a->dry) {
		ask_reply(x, a, tos_value_copy(row));
		return;
	}
	j = job_find(x, handle);
	if (!j) {
		j = job_new(x, handle, &a->terms);
		if (!j) {
			kernel_kill(x, a, handle); /* nobody would hear of it */
			ask_refuse(x, a, TOS_ERR_FULL, "too many programs are remembered");
			return;
		}
		tos_count(x, "started", 1);
		write_input(x, a, handle);
		if (!job_begin(j)) {
			kernel_kill(x, a, handle);
			ask_refuse(x, a, TOS_ERR_FULL, "the kernel takes no more calls");
			return;
		}
	}
	if (a->wait)
		job_wait(j, a->token, a->until_ms);
	else
		reply(x, a->token, tos_value_copy(row));
	ask_free(a);
}

/* output: "capture", "read", or an inbox's name, which has to fit; by: "line" or "chunk". */
static void terms_set(struct terms *t, const char *by, size_t capture, const char *output)
{
	t->lines = strcmp(by, "line") == 0;
	t->mode = strcmp(output, "capture") == 0 ? CAPTURE
		  : strcmp(output, "read") == 0  ? READ
						 : POST;
	t->capture = capture;
	snprintf(t->inbox, sizeof(t->inbox), "%s", output);
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
	size_t n, capture = CAPTURE_BYTES;
	const uint8_t *p;

	snprintf(text, cap, "RUN takes a table with at least program");
	if (tos_type(args) != TOS_MAP || !(program = tos_get(args, "program")))
		return TOS_ERR_USAGE;
	program = for_machine(e, program, text, cap);
	if (!program)
		return TOS_ERR_NOT_FOUND;
	if (tos_type(program) != TOS_TEXT) {
		snprintf(text, cap,
			"program is a path, a name, sha256:DIGEST, or a table of these "
			"by machine");
		return TOS_ERR_USAGE;
	}
	tos_set(to, "program", tos_value_copy(program));
	for (size_t i = 0; i < sizeof(passed) / sizeof(*passed); i++)
		if (tos_get(args, passed[i]))
			tos_set(to, passed[i], tos_value_copy(tos_get(args, passed[i])));
	a->wait = tos_get_bool(args, "wait", false);
	a->terms.stays = tos_get_bool(args, "stay", false);
	a->input = tos_get_bool(args, "input", false);
	a->dry = tos_get_bool(args, "dry", false);
	if (tos_get(args, "capture")) {
		int64_t most = tos_get_int(args, "capture", -1);

		snprintf(text, cap, "capture is a number of bytes, at most %u", CAPTURE_MAX);
		if (most < 0 || most > CAPTURE_MAX)
			return TOS_ERR_USAGE;
		capture = (size_t)most;
	}
	p = tos_as_bytes(stdin_, &n);
	snprintf(text, cap, "stdin is a text of at most %u bytes; WRITE takes more",
		INPUT_BYTES);
	if (stdin_ && !p)
		return TOS_ERR_USAGE;
	if (n > INPUT_BYTES)
		return TOS_ERR_TOO_LARGE;
	if (n) {
		a->text = malloc(n);
		if (!a->text)
			return TOS_ERR_NOMEM;
		memcpy(a->text, p, n);
		a->n_text = n;
	}
	by = tos_get_text(args, "by", "line");
	terms_set(&a->terms, by, capture, output);
	snprintf(text, cap,
		"output is \"capture\", \"read\", or the name of an inbox of the carrier, "
		"by \"line\" or \"chunk\"");
	if ((!a->terms.lines && strcmp(by, "chunk") != 0) || strlen(output) >= INBOX_BYTES ||
		strchr(output, '/') || (a->terms.mode == READ && a->wait))
		return TOS_ERR_USAGE;
	snprintf(note, sizeof(note), "%s %zu %s", by, capture, output);
	tos_set(to, "note", tos_text(note));
	return 0;
}

void run_verb(struct tos_ext *x, const struct tos_message *m, const struct tos_value *args)
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
	tos_value_free(to);
	ask_refuse(x, a, rc, text);
}

void run_kept(struct tos_ext *x, const struct tos_value *row)
{
	const char *handle = tos_get_text(row, "handle", "");
	struct terms t = { .stays = true };
	char by[8] = "line", output[INBOX_BYTES] = "capture";
	size_t capture = CAPTURE_BYTES;
	struct job *j;

	if (job_find(x, handle))
		return;
	if (sscanf(tos_get_text(row, "note", ""), "%7s %zu %95s", by, &capture, output) != 3 ||
		capture > CAPTURE_MAX)
		capture = CAPTURE_BYTES;
	terms_set(&t, by, capture, output);
	snprintf(t.carrier, sizeof(t.carrier), "%s", tos_get_text(row, "carrier", ""));
	snprintf(t.owner, sizeof(t.owner), "%s", tos_get_text(row, "owner", ""));
	j = job_new(x, handle, &t);
	if (!j)
		return;
	tos_count(x, "kept", 1);
	job_begin(j);
}
