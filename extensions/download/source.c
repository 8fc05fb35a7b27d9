/*
 * Where a job of Download looks: other kernels' stores, its parent in the tree of all that want the
 * file, the URL.
 */
#include "download.h"

#include <stdlib.h>
#include <string.h>

/* ---- from the URL: what the store has of it first */

static void on_begun(struct tos_ext *x, void *arg, int rc, const char *text, const char *folder,
	const struct tos_value *elements)
{
	struct job *j = later_job(x, arg);
	const struct tos_value *m = tos_at(elements, 0);

	(void)folder;
	if (!j)
		return;
	if (rc < 0) {
		job_fail(j, rc, "%s", text);
		return;
	}
	if (tos_get_bool(m, "done", false)) { /* somebody else was faster */
		j->stored = true;
		j->from = "the store";
		if (!j->ask.admit) {
			job_end(j, 0, "", false);
			return;
		}
		j->verify_only = true;
	} else {
		j->sent = tos_get_int(m, "have", 0);
	}
	transfer_begin(j);
}

void job_from_url(struct job *j)
{
	struct tos_value *m;

	if (strcmp(j->url.scheme, "tos") == 0) {
		job_fail(j, TOS_ERR_NOT_FOUND, "%s: %s", j->url.text,
			j->why[0] ? j->why : "it is not there");
		return;
	}
	if (j->verify_only) {
		transfer_begin(j);
		return;
	}
	/* What an earlier life or another job left may be from elsewhere: it does not count where
	 * admission hangs on the place. */
	if (j->ask.admit) {
		job_restart(j);
		return;
	}
	m = digest_args(j);
	tos_set(m, "offset", tos_int(0));
	tos_set(m, "source", tos_text(j->url.text));
	tos_set(m, "name", tos_text(j->ask.name));
	if (j->ask.size >= 0)
		tos_set(m, "size", tos_int(j->ask.size));
	if (!job_call(j, "Content", "PUT", m, PUT_MS, on_begun, later_new(j)))
		job_fail(j, TOS_ERR_IO, NO_CALLS);
}

/* ---- from other kernels */

/* The kernel that had it has admitted it: if its place says admit, it is here, too. */
static void on_peer_admitted(struct tos_ext *x, void *arg, int rc, const char *text,
	const char *folder, const struct tos_value *elements)
{
	struct job *j = later_job(x, arg);

	(void)folder;
	if (!j)
		return;
	if (rc == 0) {
		job_admit(j, tos_at(elements, 0));
	} else {
		snprintf(
			j->why, sizeof(j->why), "it is here, but not admitted there: %s", text);
		j->verify_only = true;
		job_from_url(j);
	}
}

void peer_has_it(struct job *j, const char *kernel)
{
	struct url u = { .scheme = "tos" };
	char dest[80];
	bool admits = false;

	snprintf(u.host, sizeof(u.host), "%s", kernel);
	snprintf(dest, sizeof(dest), "%.63s/Content", kernel);
	snprintf(j->from_text, sizeof(j->from_text), "%s", kernel);
	j->from = j->from_text;
	tos_count(j->x, "from_kernels", 1);
	if (!j->ask.admit) {
		job_end(j, 0, "", false);
	} else if (!kernel[0] || !place_lists(j->x, &u, &admits) || !admits) {
		/* It is here, but nobody whose word counts says what it is. */
		j->verify_only = true;
		job_from_url(j);
	} else if (!job_call(j, dest, "ADMITTED", digest_args(j), 10000, on_peer_admitted,
			   later_new(j))) {
		job_fail(j, TOS_ERR_IO, NO_CALLS);
	}
}

static void on_fetched(struct tos_ext *x, void *arg, int rc, const char *text,
	const char *folder, const struct tos_value *elements)
{
	struct job *j = later_job(x, arg);

	(void)folder;
	if (!j)
		return;
	if (rc == 0) {
		j->total = tos_get_int(tos_at(elements, 0), "size", -1);
		peer_has_it(j, tos_get_text(tos_at(elements, 0), "from", ""));
	} else {
		snprintf(j->why, sizeof(j->why), "%s", text);
		job_from_url(j);
	}
}

static void from_kernels(struct job *j)
{
	struct tos_value *m = digest_args(j), *from = tos_array();
	uint32_t ms = job_left_ms(j);

	if (strcmp(j->url.scheme, "tos") == 0)
		tos_push(from, tos_text(j->url.host));
	for (size_t i = 0; i < j->ask.n_peers; i++)
		tos_push(from, tos_text(j->ask.peers[i]));
	if (tos_len(from) == 0) {
		tos_value_free(from);
		tos_value_free(m);
		job_from_url(j);
		return;
	}
	tos_set(m, "from", from);
	tos_set(m, "name", tos_text(j->ask.name));
	/* Where there is a URL, too, kernels get half of the time. */
	if (strcmp(j->url.scheme, "tos") != 0)
		ms /= 2;
	if (!job_call(j, "Content", "FETCH", m, ms, on_fetched, later_new(j)))
		job_fail(j, TOS_ERR_IO, NO_CALLS);
}

/* The parent has it now, or could not get it. */
static void on_parent(struct tos_ext *x, void *arg, int rc, const char *text,
	const char *folder, const struct tos_value *elements)
{
	struct job *j = later_job(x, arg);

	(void)folder;
	(void)elements;
	if (j && rc < 0) {
		char line[300];

		snprintf(line, sizeof(line), "%s could not get it for us: %s", j->ask.peers[0],
			text);
		tos_log(x, 1, line);
		j->ask.n_peers = 0;
	}
	if (j)
		from_kernels(j);
}

/* Our place in the tree of kernels that all want it: the first asks the URL, each other one its
 * parent. */
void job_from_via(struct job *j)
{
	const char *me = tos_kernel_name(j->x), *parent = NULL;
	struct tos_value *m;
	char dest[80], hex[65];
	size_t n = tos_len(j->ask.via), i = 0;

	while (i < n && strcmp(tos_as_text(tos_at(j->ask.via, i), ""), me) != 0)
		i++;
	if (i > 0 && n > 0)
		parent = tos_as_text(
			tos_at(j->ask.via, i < n ? (i - 1) / TREE_CHILDREN : 0), NULL);
	if (!parent || strcmp(parent, me) == 0) {
		from_kernels(j);
		return;
	}
	m = tos_map();
	digest_hex(j->ask.digest, hex);
	tos_set(m, "url", tos_text(j->ask.url.text));
	tos_set(m, "sha256", tos_text(hex));
	tos_set(m, "name", tos_text(j->ask.name));
	tos_set(m, "kind", tos_text(j->ask.kind));
	tos_set(m, "version", tos_text(j->ask.version));
	tos_set(m, "machine", tos_text(j->ask.machine));
	tos_set(m, "admit", tos_bool(j->ask.admit));
	if (j->ask.size >= 0)
		tos_set(m, "size", tos_int(j->ask.size));
	tos_set(m, "via", tos_value_copy(j->ask.via));
	snprintf(dest, sizeof(dest), "%.63s/Download", parent);
	memmove(j->ask.peers[1], j->ask.peers[0], sizeof(j->ask.peers[0]) * (PEERS_MAX - 1));
	snprintf(j->ask.peers[0], sizeof(j->ask.peers[0]), "%s", parent);
	if (j->ask.n_peers < PEERS_MAX)
		j->ask.n_peers++;
	if (!job_call(j, dest, "GET", m, job_left_ms(j) / 4 * 3, on_parent, later_new(j)))
		job_fail(j, TOS_ERR_IO, NO_CALLS);
}
