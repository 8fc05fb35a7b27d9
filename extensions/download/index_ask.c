/*
 * INDEX of Download: what a place offers. A job like any other, but that its bytes stay in memory, and
 * that only what the kernel finds signed is answered. See index.h.
 */
#include "download.h"
#include "index.h"

#include <stdlib.h>
#include <string.h>

static int index_ask_read(
	struct tos_ext *x, const struct tos_value *m, struct ask *a, char *text, size_t cap)
{
	const char *url = tos_get_text(m, "url", ""), *wrong = url_parse(url, &a->url);

	if (wrong || strcmp(a->url.scheme, "tos") == 0) {
		snprintf(a->url.text, sizeof(a->url.text), "%s", url);
		snprintf(text, cap, "'%.200s': %s", url,
			wrong ? wrong : "an index lies at an http or https URL");
		return TOS_ERR_DENIED;
	}
	if (!place_lists(x, &a->url, &a->place_admits)) {
		snprintf(text, cap, "%s: no place of this kernel's Download lists it",
			a->url.text);
		return TOS_ERR_DENIED;
	}
	a->index = true;
	if (EVP_Digest(a->url.text, strlen(a->url.text), a->digest, NULL, EVP_sha256(), NULL) ==
		1)
		return 0;
	snprintf(text, cap, "no memory");
	return TOS_ERR_NOMEM;
}

void index_ask(struct tos_ext *x, const struct tos_message *m)
{
	struct ask a;
	char text[600];
	int rc;

	ask_init(&a, x, m);
	rc = index_ask_read(x, tos_at(m->elements, 0), &a, text, sizeof(text));
	if (rc < 0) {
		ask_refuse(x, &a, a.url.text, rc, text);
		return;
	}
	tos_count(x, "requests", 1);
	ask_do(x, &a);
}

static void on_checked(struct tos_ext *x, void *arg, int rc, const char *text,
	const char *folder, const struct tos_value *elements)
{
	struct job *j = later_job(x, arg);

	(void)folder;
	if (!j)
		return;
	if (rc == 0)
		rc = index_rows(j->statements, tos_get(tos_at(elements, 0), "rows"), &j->rows,
			&j->refused, &text);
	if (rc < 0) {
		job_fail(j, rc, "%s: %s", j->url.text, text);
		return;
	}
	if (tos_len(j->refused) > 0) {
		const struct tos_value *first = tos_at(j->refused, 0);

		ask_refused(x, &j->ask, j->url.text,
			(int)tos_get_int(first, "code", TOS_ERR_MALFORMED),
			tos_get_text(first, "text", ""));
	}
	j->from = j->url.text;
	job_end(j, 0, "", false);
}

void index_over(struct job *j)
{
	struct tos_value *m;
	const char *wrong;

	transfer_drop(j);
	j->total = (int64_t)j->n_buf;
	j->statements = index_read(j->buf, j->n_buf, &wrong);
	if (!j->statements) {
		job_fail(j, TOS_ERR_MALFORMED, "%s: %s", j->url.text, wrong);
		return;
	}
	m = tos_map();
	tos_set(m, "statements", tos_value_copy(j->statements));
	if (!job_call(j, "Content", "CHECK", m, 10000, on_checked, later_new(j)))
		job_fail(j, TOS_ERR_IO, NO_CALLS);
}
