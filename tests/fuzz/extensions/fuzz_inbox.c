/*
 * A shipped extension in the kernel's own host of extensions, led by the input: who posts what to its inbox, and what the
 * kernel's inboxes answer to what it asks of them. FUZZ_INBOX names the inbox; the extension is linked with this file.
 *
 * Each call that it is given is answered once at most, and by its end; what it says is well-formed. Values are written
 * in a few bytes each, with words that the protocols know, so that most inputs get behind the first check.
 */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <uv.h>

#include <tos/extension.h>

#include "base/buf.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/text.h"
#include "ext/ext.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define CALLS_MAX 256
#define DEPTH_MAX 5

struct run {
	struct ext_host *host;
	const uint8_t *p;
	size_t left;
	unsigned given, n_asked;
	bool answered[CALLS_MAX + 1], closed;
	uint64_t asked[CALLS_MAX]; /* calls of its own that wait for an answer: their tags */
	char asker[96];
	struct tos_value *heard; /* the last good answer that it gave */
};

/* ---- reading the input */

static unsigned next(struct run *r)
{
	if (r->left == 0)
		return 0;
	r->left--;
	return *r->p++;
}

static const char *const words[] = { "admit", "after", "any", "args", "begun", "by", "capture",
	"carrier", "carriers", "class", "code", "commit", "abort", "data", "decision", "dest",
	"done", "dry", "e", "ended", "env", "expect", "handle", "here", "inbox", "input",
	"kernel", "kernels", "key", "left_ms", "limits", "lines", "lost", "members", "mixed",
	"more", "n", "name", "note", "one_phase", "output", "owner", "path", "phases", "plan",
	"post", "principals", "program", "programs", "rest", "result", "roles", "rows", "seq",
	"settled", "signal", "since", "split", "state", "stay", "stdin", "stdout", "text",
	"ticket", "timeout_ms", "told", "tx", "value", "vote", "wait", "yes", "cpu", "hops",
	"clones", "sent", "for", "stream", "close", "itinerant", "begin", "preparing",
	"prepared", "committing", "committed", "aborted", "joined", "voted", "restored_ms",
	"read", "machine", "where", "host0#1", "host0#2", "host1#7", "host0", "host1", "a|b",
	"alice", "bob", "KILL", "h1", "t1" };
static const char *const verbs[] = { "BEGIN", "JOIN", "PREPARE", "COMMIT", "ABORT", "VOTE",
	"DONE", "STATUS", "LIST", "ENTER", "OUTCOME", "ENDED", "POLL", "DECIDE", "RESOLVE",
	"RUN", "WAIT", "READ", "WRITE", "SIGNAL", "STOP", "ACTION", "CLONE", "KEPT", "x" };

static struct tos_value *value(struct run *r, unsigned depth);

static struct tos_value *map(struct run *r, unsigned depth)
{
	struct tos_value *m = tos_map();

	for (unsigned n = next(r) % 10; n > 0 && r->left > 0; n--) {
		const char *key = words[next(r) % ARRAY_LEN(words)];
		struct tos_value *v = value(r, depth + 1);

		tos_set(m, key, v);
	}
	return m;
}

static struct tos_value *array(struct run *r, unsigned depth)
{
	struct tos_value *a = tos_array();

	for (unsigned n = next(r) % 8; n > 0 && r->left > 0; n--)
		tos_push(a, value(r, depth + 1));
	return a;
}

static struct tos_value *bytes(struct run *r, bool text)
{
	size_t n = next(r);
	struct tos_value *v;

	n = n > 250 ? n << 4 : n; /* some are longer than any buffer for them */
	n = n < r->left ? n : r->left;
	v = text ? tos_text_n((const char *)r->p, n) : tos_bytes(r->p, n);
	r->p += n;
	r->left -= n;
	return v ? v : tos_nil();
}

static struct tos_value *number(struct run *r)
{
	uint64_t n = 0;

	for (unsigned i = 0; i < 8; i++)
		n = n << 8 | next(r);
	return tos_int((int64_t)n);
}

/* What it said itself, names of its own making above all. */
static struct tos_value *echo(struct run *r)
{
	const struct tos_value *v =
		tos_get(tos_at(r->heard, 0), words[next(r) % ARRAY_LEN(words)]);

	return v ? tos_value_copy(v) : tos_nil();
}

static struct tos_value *value(struct run *r, unsigned depth)
{
	switch (next(r) % 11) {
	case 0:
		return tos_int((int8_t)next(r));
	case 1:
		return number(r);
	case 2:
	case 3:
		return tos_text(words[next(r) % ARRAY_LEN(words)]);
	case 4:
		return bytes(r, true);
	case 5:
		return bytes(r, false);
	case 6:
		return depth < DEPTH_MAX ? array(r, depth) : tos_nil();
	case 7:
		return depth < DEPTH_MAX ? map(r, depth) : tos_nil();
	case 8:
		return tos_bool(next(r) & 1);
	case 9:
		return echo(r);
	default:
		return tos_nil();
	}
}

/* As it comes over the wire. */
static void folder(struct run *r, const char *name, struct buf *out)
{
	struct tos_value *list = tos_array();
	AUTOFREE uint8_t *coded = NULL;
	size_t n = 0;

	for (unsigned i = next(r) % 4; i > 0; i--)
		tos_push(list, next(r) & 1 ? map(r, 0) : value(r, 0));
	must(tos_encode(list, &coded, &n) == 0);
	folder_put(out, (struct slice){ (const uint8_t *)name, strlen(name) },
		(struct slice){ coded, n });
	tos_value_free(list);
}

/* ---- what it says */

static void hear(struct run *r, const struct post *p)
{
	struct tos_value *v = NULL;

	if (tos_decode(p->folder.p, p->folder.n, 0, &v) < 0)
		return;
	tos_value_free(r->heard);
	r->heard = tos_value_copy(tos_at(v, 1));
	tos_value_free(v);
}

static int on_send(void *arg, const char *sender, const struct post *p, struct errmsg *em)
{
	struct run *r = arg;
	struct slice name;
	uint64_t n;

	(void)em;
	must(folder_check(p->folder, &name, &n) == 0);
	if (p->kind == POST_CALL) {
		if (r->n_asked == CALLS_MAX)
			return ERR_FULL;
		snprintf(r->asker, sizeof(r->asker), "%s", sender);
		r->asked[r->n_asked++] = p->tag;
	} else if (p->kind != POST_ONEWAY) {
		must(p->tag >= 1 && p->tag <= r->given);
		must(!r->answered[p->tag]);
		r->answered[p->tag] = true;
		if (p->kind == POST_ANSWER)
			hear(r, p);
	}
	return 0;
}

static int on_forward(void *arg, const struct post *original, const char *kernel)
{
	struct run *r = arg;

	(void)kernel;
	must(!r->answered[original->tag]);
	r->answered[original->tag] = true;
	return 0;
}

static void on_count(void *arg, const char *ext, const char *name, uint64_t delta)
{
	(void)arg, (void)ext, (void)name, (void)delta;
}

static void on_ready(void *arg, const char *ext, int rc, const char *why)
{
	(void)arg, (void)ext, (void)why;
	must(rc == 0);
}

static void on_closed(void *arg)
{
	((struct run *)arg)->closed = true;
}

static const struct ext_callbacks callbacks = {
	.send = on_send, .forward = on_forward, .count = on_count, .ready = on_ready
};

/* ---- what comes to it */

static struct tos_value *info(
	struct run *r, const char *class, const char *kernel, const char *owner)
{
	struct tos_value *m = tos_map(), *e = tos_array(), *roles = tos_array();

	tos_push(e, tos_int(1 + (next(r) & 1)));
	tos_push(e, tos_bytes("8 bytes.", 8));
	tos_push(roles, tos_text(next(r) & 1 ? "admin" : "owner"));
	tos_set(m, "class", tos_text(class));
	if (*kernel)
		tos_set(m, "kernel", tos_text(kernel));
	tos_set(m, "owner", tos_text(owner));
	tos_set(m, "roles", roles);
	tos_set(m, "e", e);
	tos_set(m, "n", tos_int(1));
	tos_set(m, "seq", tos_int(next(r) % 8));
	return m;
}

static void post(struct run *r, unsigned who)
{
	static const struct {
		const char *sender, *class, *kernel, *owner;
	} senders[] = { { "host0#1", "carrier", "", "alice" },
		{ "host0#2", "carrier", "", "bob" }, { "", "kernel", "", "" },
		{ "host1/Commit", "extension", "host1", "" },
		{ "host0/client/1", "client", "", "" },
		{ "host1#7", "carrier", "host1", "bob" },
		{ "host1/client/2", "client", "host1", "alice" },
		{ "host0/Other", "extension", "", "" } };
	unsigned i = who % ARRAY_LEN(senders);
	const char *verb = verbs[next(r) % ARRAY_LEN(verbs)], *sender = senders[i].sender;
	struct tos_value *about =
		info(r, senders[i].class, senders[i].kernel, senders[i].owner);
	bool call = r->given < CALLS_MAX && (next(r) & 7);
	AUTOBUF b = BUF_INIT;
	struct post p = { .kind = call ? POST_CALL : POST_ONEWAY,
		.dest = { (const uint8_t *)FUZZ_INBOX, strlen(FUZZ_INBOX) },
		.sender = { (const uint8_t *)sender, strlen(sender) },
		.tag = call ? ++r->given : 0,
		.deadline_ms = call ? 60000 : 0 };

	folder(r, verb, &b);
	p.folder = (struct slice){ b.data, b.len };
	if (ext_deliver(r->host, FUZZ_INBOX, &p, about, NULL) < 0 && call)
		r->answered[p.tag] = true;
	tos_value_free(about);
}

static void failure(struct run *r, struct buf *b)
{
	struct tos_value *code = tos_text(err_word(-(int)(1 + next(r) % 30))),
			 *text = tos_text("no");
	const struct tos_value *elements[] = { code, text };

	folder_encode(b, "failure", elements, 2);
	tos_value_free(code);
	tos_value_free(text);
}

static void answer(struct run *r, unsigned which)
{
	AUTOBUF b = BUF_INIT;
	struct post p = { .kind = POST_ANSWER };

	if (r->n_asked == 0)
		return;
	which %= r->n_asked;
	p.tag = r->asked[which];
	r->asked[which] = r->asked[--r->n_asked];
	if (next(r) & 3) {
		folder(r, "ok", &b);
	} else {
		failure(r, &b);
		p.kind = POST_FAILURE;
	}
	p.folder = (struct slice){ b.data, b.len };
	ext_deliver(r->host, r->asker, &p, NULL, NULL);
}

static void all_ask(struct run *r, uv_loop_t *loop)
{
	while (r->left > 0) {
		unsigned op = next(r);

		if (op & 1)
			post(r, op >> 1);
		else
			answer(r, op >> 1);
		uv_run(loop, UV_RUN_NOWAIT);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct run *r = mem_new(struct run);
	/* "": what this program itself holds. */
	struct ext_load what = { .name = FUZZ_INBOX, .library = "", .privileges = "" };
	uv_loop_t loop;

	log_init("fuzz", NULL, LOG_ERROR, false);
	r->p = data;
	r->left = size < 4096 ? size : 4096;
	uv_loop_init(&loop);
	must(ext_host_new(&loop, "host0", 0, &callbacks, r, &r->host) == 0);
	must(ext_load(r->host, &what, NULL) == 0);
	all_ask(r, &loop);
	ext_host_close(r->host, on_closed, r);
	while (!r->closed)
		uv_run(&loop, UV_RUN_ONCE);
	uv_run(&loop, UV_RUN_DEFAULT);
	must(uv_loop_close(&loop) == 0);
	tos_value_free(r->heard);
	free(r);
	return 0;
}
