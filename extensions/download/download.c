/*
 * Download: files named by URLs, into the content store of its kernel. Isolated: it has no network
 * of its own; the kernel connects for it to the places that the configuration names, and hands the
 * socket over (tos_connect). What it takes from there must have the digest that was asked for.
 *
 * One job for each digest, whoever asks; asks that come later join it. A job looks into the store,
 * then asks the kernels named (peers, via), then the URL. What comes goes to the store in pieces,
 * a few of them under way; a cut connection is gone on with where it was (Range), also by the
 * next life of this process, since the store keeps what it has.
 *
 * An index (INDEX) is the one thing that is read without its digest being known: a small file of
 * statements that the kernel knows the signatures of. It stays in memory, and what is in it and not
 * signed by whom policy names goes nowhere.
 *
 * Admission: only what this process itself took over http from places that say admit, in this
 * life, or what a kernel whose place says so has admitted.
 */
#include "download.h"

#include <stdlib.h>
#include <string.h>

/* ---- the inbox */

static void places(struct tos_ext *x, const struct tos_message *m)
{
	struct tos_value *e = tos_array(), *list = tos_array();
	const char *place;

	for (size_t i = 0; (place = tos_place(x, i)); i++)
		tos_push(list, tos_text(place));
	tos_push(e, list);
	tos_reply(x, m->token, "ok", e);
}

static void wake(struct tos_ext *x, struct tos_inbox *in)
{
	struct tos_message m;

	while (tos_inbox_next(in, &m)) {
		if (strcmp(m.folder, "PLACES") == 0 && m.token)
			places(x, &m);
		else if ((m.folder[0] == 0 || strcmp(m.folder, "GET") == 0) &&
			 tos_type(tos_at(m.elements, 0)) == TOS_MAP)
			ask_get(x, &m);
		else if (strcmp(m.folder, "INDEX") == 0 && m.token &&
			 tos_type(tos_at(m.elements, 0)) == TOS_MAP)
			index_ask(x, &m);
		else if (m.token)
			tos_fail(x, m.token, TOS_ERR_MALFORMED,
				"it takes GET and INDEX with a map, and PLACES");
	}
}

static int start(struct tos_ext *x)
{
	struct state *s = calloc(1, sizeof(*s));

	if (!s || curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK) {
		free(s);
		return TOS_ERR_NOMEM;
	}
	s->multi = transfers_new(x);
	if (!s->multi) {
		free(s);
		return TOS_ERR_NOMEM;
	}
	tos_set_data(x, s);
	return 0;
}

/* What waits is answered by the host. */
static void stop(struct tos_ext *x)
{
	struct state *s = state_of(x);

	while (s->jobs) {
		struct job *j = s->jobs;

		s->jobs = j->next;
		job_free(j);
	}
	curl_multi_cleanup(s->multi);
	free(s);
	tos_set_data(x, NULL);
}

static const struct tos_inbox_spec inboxes[] = {
	{ .name = "Download",
		.doc = "Files named by URLs, into the content store.",
		.wake = wake,
		.bound = 256,
		.protocol =
			"GET {url, sha256 | statement, [size], [max], [admit], [name], [kind], "
			"[version], [machine], [progress: inbox], [peers: [kernel]], [via: "
			"[kernel]]} -> ok {sha256, digest, from, size, admitted}; INDEX {url} -> "
			"ok {rows: [{digest, kind, name, version, machine, by, expires, "
			"statement}], refused: [{code, text}], from, size}; PLACES -> ok "
			"[text]" },
	{ .name = NULL },
};

static const struct tos_property_spec properties[] = {
	{ .path = "max_bytes",
		.type = "int",
		.unit = "B",
		.doc = "The largest file that is taken.",
		.min = 1,
		.max = (int64_t)64 << 30,
		.value = "1073741824" },
	{ .path = NULL },
};

const struct tos_extension tos_extension = {
	TOS_ABI,
	.name = "download",
	.doc = "Files named by URLs, from the places that the configuration lists.",
	.inboxes = inboxes,
	.properties = properties,
	.privileges = "net-out",
	.start = start,
	.stop = stop,
};
