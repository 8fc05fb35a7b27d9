/*
 * Inbox Content: what clients, carriers, extensions and other kernels may do with the content
 * store. See content.h.
 *
 * Who: the firewall's words read (HAS, GET, LIST, STAT, ADMITTED, CHECK), put (PUT, FETCH), remove (DROP)
 * and admit (ADMIT, WITHDRAW) at the object Content. A local client has no principal: it announces
 * a file by a signed act, and then sends the bytes, which the digest in the act vouches for.
 * Another kernel, its extensions and clients read what is shared, and nothing else.
 */
#include "kernel/services/broker.h"
#include "kernel/services/content.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "base/text.h"

#define HAS_MAX     4096
#define LIST_MAX    1000
#define READING_MAX ((size_t)64 << 20) /* bytes of pieces that are being read for GETs */

bool content_digest(const struct tos_value *args, uint8_t out[DIGEST_BYTES])
{
	size_t n;
	const uint8_t *p = tos_get_bytes(args, "digest", &n);

	if (p && n == 2 * DIGEST_BYTES) /* as people write it */
		return text_unhex((const char *)p, n, out, DIGEST_BYTES) == 0;
	if (!p || n != DIGEST_BYTES)
		return false;
	memcpy(out, p, n);
	return true;
}

/* True, or the request has been failed. */
static bool digest_or_fail(struct request *rq, uint8_t out[DIGEST_BYTES])
{
	if (content_digest(rq->args, out))
		return true;
	request_fail(rq, ERR_MALFORMED, "%s wants digest, the 32 bytes of a SHA-256", rq->verb);
	return false;
}

static bool may(struct kernel *k, struct request *rq, const char *action)
{
	struct errmsg em = { "" };
	bool foreign = rq->from.kernel[0] && rq->from.cls != ORIGIN_CARRIER;
	int rc = kernel_allowed(k, &rq->from, action, "Content", "", &em);

	/* No kernel vouches for a principal. */
	if (rc == 0 && foreign && strcmp(action, "read") != 0)
		rc = err_set(&em, ERR_DENIED, "%s of %s may only read here",
			origin_class_word(rq->from.cls), rq->from.kernel);
	if (rc < 0) {
		metric_add(k->metrics, "content_denied_total", NULL, 1);
		request_fail(rq, rc, "%s", err_show(rc, &em));
	}
	return rc == 0;
}

/* What is not shared is for its owner, for admins, and for this kernel and its own local clients
 * and extensions. */
static bool visible(const struct origin *from, bool shared, const char *owner)
{
	if (shared || (from->roles & ROLE_ADMIN))
		return true;
	if (from->principal[0])
		return strcmp(from->principal, owner) == 0;
	return !from->kernel[0] && from->cls != ORIGIN_CARRIER;
}

/* ---- reading */

static void has_verb(struct kernel *k, struct request *rq)
{
	const struct tos_value *asked = tos_get(rq->args, "digests");
	struct tos_value *m, *here;

	if (!may(k, rq, "read"))
		return;
	if (tos_type(asked) != TOS_ARRAY || tos_len(asked) > HAS_MAX) {
		request_fail(rq, ERR_MALFORMED, "HAS wants digests, at most %d", HAS_MAX);
		return;
	}
	here = tos_array();
	for (size_t i = 0; i < tos_len(asked); i++) {
		size_t n;
		const uint8_t *p = tos_as_bytes(tos_at(asked, i), &n);
		const struct content_file *f =
			p && n == DIGEST_BYTES ? content_find(k, p) : NULL;

		if (f && visible(&rq->from, f->shared, f->owner))
			tos_push(here, tos_bytes(p, n));
	}
	m = tos_map();
	tos_set(m, "digests", here);
	request_ok(rq, m);
}

/* A read of one piece, in a thread. */
struct reading {
	uv_work_t work;
	struct request *rq;
	int fd, error;
	int64_t size, offset, have; /* have -1: the file is whole */
	size_t want;
	ssize_t got;
	uint8_t *bytes;
	char name[CONTENT_NAME_MAX + 1];
};

static size_t reading_bytes; /* of this process's one kernel */

static void read_work(uv_work_t *w)
{
	struct reading *r = w->data;

	do
		r->got = pread(r->fd, r->bytes, r->want, r->offset);
	while (r->got < 0 && errno == EINTR);
	r->error = errno;
}

static void read_done(uv_work_t *w, int status)
{
	struct reading *r = w->data;
	struct kernel *k = r->rq->k;
	struct tos_value *m;

	reading_bytes -= r->want;
	mem_close(r->fd);
	if (status < 0 || r->got < 0) {
		request_fail(r->rq, ERR_IO, "the content can't be read: %s",
			strerror(r->error ? r->error : ECANCELED));
	} else {
		m = tos_map();
		tos_set(m, "offset", tos_int(r->offset));
		tos_set(m, "bytes", tos_bytes(r->bytes, (size_t)r->got));
		if (r->size >= 0)
			tos_set(m, "size", tos_int(r->size));
		if (r->have >= 0)
			tos_set(m, "have", tos_int(r->have));
		if (r->name[0])
			tos_set(m, "name", tos_text(r->name));
		metric_add(k->metrics, "content_read_bytes_total", NULL, (uint64_t)r->got);
		request_ok(r->rq, m);
	}
	free(r->bytes);
	free(r);
}

static void get_verb(struct kernel *k, struct request *rq)
{
	const struct content_file *f;
	uint8_t digest[DIGEST_BYTES];
	int64_t offset = tos_get_int(rq->args, "offset", 0), end;
	int64_t most = tos_get_int(rq->args, "max", (int64_t)CONTENT_CHUNK_MAX);
	struct errmsg em = { "" };
	struct reading *r;
	int rc;

	if (!may(k, rq, "read") || !digest_or_fail(rq, digest))
		return;
	f = content_find(k, digest);
	if (f && !visible(&rq->from, f->shared, f->owner))
		f = NULL;
	r = mem_new(struct reading);
	r->have = -1;
	if (f && offset == 0)
		memcpy(r->name, f->name, sizeof(f->name));
	if (f)
		rc = content_open(k, digest, &r->fd, &r->size, &em);
	else
		/* What has come so far of a file that is being written serves others already:
		 * they check the digest of the whole themselves. */
		rc = content_has(k, digest)
			     ? ERR_NOT_FOUND
			     : content_part_open(k, digest, &r->fd, &r->size, &r->have);
	end = rc < 0 ? 0 : r->have >= 0 ? r->have : r->size;
	if (rc == 0 && (offset < 0 || offset > end)) {
		rc = err_set(
			&em, ERR_USAGE, "offset %lld is behind the end", (long long)offset);
		mem_close(r->fd);
	}
	if (rc < 0) {
		free(r);
		request_fail(rq, rc, "%s",
			rc == ERR_NOT_FOUND ? "that content is not here" : err_show(rc, &em));
		return;
	}
	if (most < 0 || most > (int64_t)CONTENT_CHUNK_MAX)
		most = (int64_t)CONTENT_CHUNK_MAX;
	r->work.data = r;
	r->rq = rq;
	r->offset = offset;
	r->want = (size_t)(end - offset < most ? end - offset : most);
	/* A GET is small and its answer is not: whoever sends many waits for the first of them. */
	r->bytes =
		reading_bytes + r->want <= READING_MAX ? mem_try(r->want ? r->want : 1) : NULL;
	if (r->bytes) {
		reading_bytes += r->want;
		uv_queue_work(k->loop, &r->work, read_work, read_done);
		return;
	}
	mem_close(r->fd);
	free(r);
	request_fail(rq, ERR_FULL, "too much content is being read at %s; ask again",
		k->config.name);
}

static void list_verb(struct kernel *k, struct request *rq)
{
	int64_t most = tos_get_int(rq->args, "most", LIST_MAX);
	uint8_t after[DIGEST_BYTES];
	bool from_there;
	struct tos_value *rows, *m, *shown;

	if (!may(k, rq, "read"))
		return;
	from_there = content_digest(rq->args, after);
	rows = content_list(k, from_there ? after : NULL,
		(size_t)(most < 1 || most > LIST_MAX ? LIST_MAX : most));
	shown = tos_array();
	for (size_t i = 0; i < tos_len(rows); i++) {
		struct tos_value *row = tos_at_mut(rows, i);
		const struct admitted *a;
		size_t n;
		const uint8_t *p = tos_get_bytes(row, "digest", &n);

		if (!visible(&rq->from, tos_get_bool(row, "shared", false),
			    tos_get_text(row, "owner", "")))
			continue;
		a = p && n == DIGEST_BYTES ? admitted_find(k, p) : NULL;
		tos_set(row, "admitted", a ? tos_text(a->kind) : tos_nil());
		tos_push(shown, tos_value_copy(row));
	}
	m = tos_map();
	/* Where the next LIST goes on; nil: that was all. */
	if (tos_len(rows) > 0 &&
		(int64_t)tos_len(rows) >= (most < 1 || most > LIST_MAX ? LIST_MAX : most))
		tos_set(m, "next",
			tos_value_copy(tos_get(tos_at(rows, tos_len(rows) - 1), "digest")));
	else
		tos_set(m, "next", tos_nil());
	tos_value_free(rows);
	tos_set(m, "files", shown);
	request_ok(rq, m);
}

/* {digest}: one file; {}: the store. */
static void stat_verb(struct kernel *k, struct request *rq)
{
	const struct content_file *f;
	uint8_t digest[DIGEST_BYTES];

	if (!may(k, rq, "read"))
		return;
	if (!tos_get(rq->args, "digest")) {
		request_ok(rq, content_stat(k));
		return;
	}
	if (!digest_or_fail(rq, digest))
		return;
	f = content_find(k, digest);
	if (f && visible(&rq->from, f->shared, f->owner))
		request_ok(rq, content_row(f));
	else
		request_fail(rq, ERR_NOT_FOUND, "that content is not here");
}

/* ---- writing */

struct putting {
	struct request *rq;
	int64_t size;
};

static struct tos_value *put_value(int64_t have, int64_t size, bool done)
{
	struct tos_value *m = tos_map();

	tos_set(m, "have", tos_int(have));
	if (size >= 0)
		tos_set(m, "size", tos_int(size));
	tos_set(m, "done", tos_bool(done));
	return m;
}

static void put_answer(struct request *rq, int64_t have, int64_t size, bool done)
{
	request_ok(rq, put_value(have, size, done));
}

static void on_put(struct kernel *k, void *arg, int rc, const char *text)
{
	AUTOFREE struct putting *p = arg;

	(void)k;
	if (rc < 0)
		request_fail(p->rq, rc, "%s", text);
	else
		put_answer(p->rq, p->size, p->size, true);
}

/* Where this sender's put is, begun if it may; NULL: the request has been answered. */
static struct content_put *put_of(
	struct kernel *k, struct request *rq, const uint8_t digest[DIGEST_BYTES])
{
	bool announced = rq->from.cls == ORIGIN_CLIENT && !rq->from.roles;
	const char *by =
		announced || !rq->from.principal[0] ? rq->from.name : rq->from.principal;
	const struct content_file *f = content_find(k, digest);
	struct content_put *p = content_put_find(k, digest, by);
	char source[NAME_BYTES_MAX + 1];
	struct errmsg em = { "" };
	int rc;

	/* Also while others may not see it: whoever has the bytes learns nothing. */
	if (f && (p || announced || may(k, rq, "put"))) {
		put_answer(rq, f->size, f->size, true);
		return NULL;
	}
	if (f)
		return NULL;
	if (announced && p)
		return p;
	if (!may(k, rq, "put"))
		return NULL;
	snprintf(source, sizeof(source), "put by %s",
		rq->from.principal[0] ? rq->from.principal : rq->from.name);
	rc = content_begin(k,
		&(struct content_begin){ .digest = digest,
			.size = tos_get_int(rq->args, "size", -1),
			.name = tos_get_text(rq->args, "name", ""),
			.source = rq->from.cls == ORIGIN_EXTENSION
					  ? tos_get_text(rq->args, "source", source)
					  : source,
			.owner = rq->from.principal,
			.by = by,
			.pinned = false,
			.shared = !tos_get_bool(rq->args, "private", false) },
		&p, &em);
	if (rc == 0)
		return p;
	request_fail(rq, rc, "%s", err_show(rc, &em));
	return NULL;
}

static void put_verb(struct kernel *k, struct request *rq)
{
	uint8_t digest[DIGEST_BYTES];
	struct content_put *p;
	struct errmsg em = { "" };
	struct putting *x;
	size_t n = 0;
	const uint8_t *bytes = tos_get_bytes(rq->args, "bytes", &n);
	int64_t offset = tos_get_int(rq->args, "offset", 0);
	int rc = 0;

	if (!digest_or_fail(rq, digest))
		return;
	if (n > CONTENT_CHUNK_MAX) {
		request_fail(
			rq, ERR_TOO_LARGE, "a piece is at most %zu bytes", CONTENT_CHUNK_MAX);
		return;
	}
	p = put_of(k, rq, digest);
	if (!p)
		return;
	if (content_put_ending(p)) {
		request_fail(rq, ERR_STATE, "it is complete and being written to the disk");
		return;
	}
	/* A repeat, or a piece too far: the sender goes on from where we are. */
	if (offset == content_put_have(p) && n)
		rc = content_append(k, p, bytes, n, &em);
	if (rc < 0) {
		request_fail(rq, rc, "%s", err_show(rc, &em));
		return;
	}
	if (content_put_size(p) < 0 && offset == content_put_have(p) - (int64_t)n &&
		tos_get_bool(rq->args, "last", false))
		rc = content_put_sized(k, p, content_put_have(p), &em);
	if (rc < 0) {
		request_fail(rq, rc, "%s", err_show(rc, &em));
		return;
	}
	if (content_put_have(p) != content_put_size(p)) {
		put_answer(rq, content_put_have(p), content_put_size(p), false);
		return;
	}
	x = mem_new(struct putting);
	x->rq = rq;
	x->size = content_put_size(p);
	content_finish(k, p, on_put, x);
}

/* What was begun and will not be finished. */
static void cancel_verb(struct kernel *k, struct request *rq)
{
	const char *by = rq->from.principal[0] ? rq->from.principal : rq->from.name;
	uint8_t digest[DIGEST_BYTES];
	struct content_put *p;

	if (!digest_or_fail(rq, digest))
		return;
	p = content_put_find(k, digest, by);
	if (p && !content_put_ending(p))
		content_cancel(k, p);
	request_ok(rq, NULL);
}

static void fetch_verb(struct kernel *k, struct request *rq)
{
	const struct content_file *f;
	uint8_t digest[DIGEST_BYTES];

	if (!may(k, rq, "put") || !digest_or_fail(rq, digest))
		return;
	f = content_find(k, digest);
	if (f && !visible(&rq->from, f->shared, f->owner))
		request_fail(rq, ERR_DENIED,
			"it is at %s already, and private to whoever put it: PUT shows that you have it",
			k->config.name);
	else
		content_fetch(k, rq, rq->args, rq->from.principal);
}

static void drop_do(struct kernel *k, struct request *rq, const uint8_t *digest, const char *by)
{
	struct errmsg em = { "" };
	struct tos_value *m;
	char why[NAME_BYTES_MAX + 16];
	int rc;

	snprintf(why, sizeof(why), "by %s", by);
	rc = content_drop(k, digest, why, &em);
	if (rc < 0) {
		request_fail(rq, rc, "%s", err_show(rc, &em));
		return;
	}
	m = tos_map();
	tos_set(m, "digest", tos_bytes(digest, DIGEST_BYTES));
	request_ok(rq, m);
}

static const char *who(const struct request *rq)
{
	return rq->from.principal[0] ? rq->from.principal : rq->from.name;
}

/* An owner takes away what is its own; all else takes `remove`. */
static void drop_verb(struct kernel *k, struct request *rq)
{
	const struct content_file *f;
	uint8_t digest[DIGEST_BYTES];

	if (!digest_or_fail(rq, digest))
		return;
	f = content_find(k, digest);
	if ((f && f->owner[0] && strcmp(f->owner, rq->from.principal) == 0) ||
		may(k, rq, "remove"))
		drop_do(k, rq, digest, who(rq));
}

/* ---- the registry */

static void admit_verb(struct kernel *k, struct request *rq)
{
	uint8_t digest[DIGEST_BYTES];

	/* The signature says who admits: whoever brings it. */
	if (tos_get(rq->args, "statement"))
		admitted_signed(k, rq);
	else if (rq->from.cls == ORIGIN_EXTENSION && !broker_may_admit(k, rq->from.name))
		request_fail(
			rq, ERR_DENIED, "none of the places of %s says admit", rq->from.name);
	else if (may(k, rq, "admit") && digest_or_fail(rq, digest))
		admitted_add(k, rq, rq->args, who(rq),
			rq->from.cls == ORIGIN_EXTENSION ? "download" : "carrier");
}

static void check_verb(struct kernel *k, struct request *rq)
{
	if (may(k, rq, "read"))
		admitted_check(k, rq);
}

static void withdraw_verb(struct kernel *k, struct request *rq)
{
	uint8_t digest[DIGEST_BYTES];

	if (may(k, rq, "admit") && digest_or_fail(rq, digest))
		admitted_withdraw(k, rq, digest, who(rq));
}

static void admitted_verb(struct kernel *k, struct request *rq)
{
	const struct admitted *a;
	uint8_t digest[DIGEST_BYTES];
	struct tos_value *m;

	if (!may(k, rq, "read"))
		return;
	if (!tos_get(rq->args, "digest")) {
		m = tos_map();
		tos_set(m, "admitted", admitted_list(k, LIST_MAX));
		request_ok(rq, m);
		return;
	}
	if (!digest_or_fail(rq, digest))
		return;
	a = admitted_find(k, digest);
	if (a)
		request_ok(rq, admitted_row(a));
	else
		request_fail(rq, ERR_NOT_FOUND, "that content is not admitted at %s",
			k->config.name);
}

const struct verb content_verbs[] = {
	{ "HAS", has_verb },
	{ "GET", get_verb },
	{ "LIST", list_verb },
	{ "STAT", stat_verb },
	{ "PUT", put_verb },
	{ "CANCEL", cancel_verb },
	{ "FETCH", fetch_verb },
	{ "DROP", drop_verb },
	{ "ADMIT", admit_verb },
	{ "CHECK", check_verb },
	{ "WITHDRAW", withdraw_verb },
	{ "ADMITTED", admitted_verb },
	{ NULL, NULL },
};

/* ---- pins */

struct pin_asked {
	struct request *rq;
	struct tos_value *answer;
};

static void on_pin(struct kernel *k, void *arg, int rc, const char *text)
{
	AUTOFREE struct pin_asked *p = arg;

	(void)k;
	if (rc == 0) {
		request_ok(p->rq, p->answer);
		return;
	}
	tos_value_free(p->answer);
	request_fail(p->rq, rc, "%s", text);
}

void content_pin_answer(struct kernel *k, struct request *rq,
	const uint8_t digest[DIGEST_BYTES], bool pinned, struct tos_value *answer)
{
	struct pin_asked *p = mem_new(struct pin_asked);
	struct errmsg em = { "" };
	int rc;

	*p = (struct pin_asked){ rq, answer };
	rc = content_pin(k, digest, pinned, on_pin, p, &em);
	if (rc < 0)
		on_pin(k, p, rc, err_show(rc, &em));
}

/* ---- acts */

/* The client may send those bytes now, over the connection that brought the act. */
static void act_put(struct kernel *k, struct request *rq, const struct cert_info *by,
	const struct tos_value *args, const uint8_t *digest)
{
	char source[NAME_BYTES_MAX + 1];
	struct content_put *p = NULL;
	struct errmsg em = { "" };
	const struct content_file *f = content_find(k, digest);
	int64_t size = tos_get_int(args, "size", -1);
	int rc;

	if (f && tos_get_bool(args, "pin", false)) {
		content_pin_answer(k, rq, digest, true, put_value(f->size, f->size, true));
		return;
	}
	if (f) {
		put_answer(rq, f->size, f->size, true);
		return;
	}
	if (size < 0) {
		request_fail(rq, ERR_MALFORMED, "content-put wants size");
		return;
	}
	content_put_adopt(k, digest, by->name, rq->from.name);
	snprintf(source, sizeof(source), "put by %s", by->name);
	rc = content_begin(k,
		&(struct content_begin){ .digest = digest,
			.size = size,
			.name = tos_get_text(args, "name", ""),
			.source = source,
			.owner = by->name,
			.by = rq->from.name,
			.pinned = tos_get_bool(args, "pin", false),
			.shared = !tos_get_bool(args, "private", false) },
		&p, &em);
	if (rc < 0)
		request_fail(rq, rc, "%s", err_show(rc, &em));
	else
		put_answer(rq, content_put_have(p), size, false);
}

static void act_pin(struct kernel *k, struct request *rq, const struct tos_value *args,
	const uint8_t *digest)
{
	const struct content_file *f = content_find(k, digest);
	bool pinned = !tos_get_bool(args, "undo", false);
	struct tos_value *row = f ? content_row(f) : tos_map();

	tos_set(row, "pinned", tos_bool(pinned));
	content_pin_answer(k, rq, digest, pinned, row);
}

void content_act(struct kernel *k, struct request *rq, const char *act,
	const struct cert_info *by, const struct tos_value *args)
{
	uint8_t digest[DIGEST_BYTES];

	if (!content_digest(args, digest))
		request_fail(
			rq, ERR_MALFORMED, "%s wants digest, the 32 bytes of a SHA-256", act);
	else if (strcmp(act, "content-put") == 0)
		act_put(k, rq, by, args, digest);
	else if (strcmp(act, "content-fetch") == 0)
		content_fetch(k, rq, args, by->name);
	else if (strcmp(act, "content-pin") == 0)
		act_pin(k, rq, args, digest);
	else if (strcmp(act, "content-drop") == 0)
		drop_do(k, rq, digest, by->name);
	else if (strcmp(act, "admit") == 0)
		admitted_add(k, rq, args, by->name, "act");
	else
		admitted_withdraw(k, rq, digest, by->name);
}
