/*
 * Content and Journal as they are in tos-kernel, with a store and files of their own, led by the input: who asks what
 * of them with which arguments, and what the kernels answer from which Content fetches. FUZZ_VERBS names the table of
 * the inbox. The rest of the kernel is the few functions below that the two call: each says what the input wants.
 *
 * Each request is answered once; an answer is well-formed. One kernel serves all inputs, and each begins with nothing
 * here, all withdrawn and an empty journal, so that a finding can be repeated from its input.
 */
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/text.h"
#include "kernel/carrier/account.h"
#include "kernel/carrier/admit.h"
#include "kernel/handoff/restored.h"
#include "kernel/services/broker.h"
#include "kernel/services/content.h"
#include "kernel/services/journal.h"
#include "kernel/trust/trust.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define DEPTH_MAX    4
#define REQUESTS_MAX 200
#define N_CONTENTS   6

struct call {
	struct list node;
	uint64_t number;
	struct tos_value *args;
	call_done_fn *done;
	void *arg;
};

struct later {
	struct list node;
	void (*fn)(struct kernel *k, void *arg);
	void *arg;
};

static struct kernel kernel;
static uv_loop_t loop;
static char folder[64];
static struct list calls, laters;
static uint64_t next_number;
static unsigned n_open; /* requests that wait for their answer */
static bool denied;

/* What there is to be put and fetched. */
static struct {
	uint8_t *bytes, digest[DIGEST_BYTES];
	size_t n;
} contents[N_CONTENTS];
static const size_t content_sizes[N_CONTENTS] = { 0, 1, 300, 65536, 65537, 400000 };

static struct {
	const uint8_t *p;
	size_t left;
} in;

/* ---- the rest of the kernel */

void request_free(struct request *rq)
{
	tos_value_free(rq->elements);
	free(rq);
	n_open--;
}

void request_ok(struct request *rq, struct tos_value *result)
{
	AUTOFREE uint8_t *coded = NULL;
	struct tos_value *back = NULL;
	size_t n;

	if (result) {
		must(tos_encode(result, &coded, &n) == 0);
		must(tos_decode(coded, n, 0, &back) == 0);
		/* A row has all its texts. */
		must(!tos_get(result, "account") ||
			(tos_get(result, "name") && tos_get(result, "source")));
		must(!tos_get(result, "how") ||
			(tos_get(result, "name") && tos_get(result, "version") &&
				tos_get(result, "machine")));
	}
	tos_value_free(back);
	tos_value_free(result);
	request_free(rq);
}

void request_fail(struct request *rq, int rc, const char *fmt, ...)
{
	char text[ERRMSG_BYTES];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	must(rc < 0);
	request_free(rq);
}

uint64_t kernel_call(struct kernel *k, const char *to, const char *inbox, const char *verb,
	struct tos_value *args, uint32_t timeout_ms, call_done_fn *done, void *arg)
{
	struct call *c = mem_new(struct call);

	(void)k, (void)timeout_ms;
	must(*to && strcmp(inbox, "Content") == 0 && strcmp(verb, "GET") == 0);
	c->number = ++next_number;
	c->args = args;
	c->done = done;
	c->arg = arg;
	list_add(&calls, &c->node);
	return c->number;
}

static void call_free(struct call *c)
{
	list_del(&c->node);
	tos_value_free(c->args);
	free(c);
}

void call_cancel(struct kernel *k, uint64_t number)
{
	struct list *pos, *tmp;

	(void)k;
	LIST_EACH_SAFE(pos, tmp, &calls)
	{
		struct call *c = LIST_ITEM(pos, struct call, node);

		if (c->number != number)
			continue;
		free(c->arg);
		call_free(c);
		return;
	}
	must(false); /* it was not under way */
}

void kernel_later(struct kernel *k, void (*fn)(struct kernel *k, void *arg), void *arg)
{
	struct later *l = mem_new(struct later);

	(void)k;
	l->fn = fn;
	l->arg = arg;
	list_add(&laters, &l->node);
}

int kernel_allowed(struct kernel *k, const struct origin *from, const char *action,
	const char *object, const char *owner, struct errmsg *em)
{
	(void)k, (void)from, (void)owner;
	return denied ? err_set(em, ERR_DENIED, "%s %s", action, object) : 0;
}

struct store_txn *kernel_lazy(struct kernel *k)
{
	if (!k->lazy)
		k->lazy = store_begin(k->store);
	return k->lazy;
}

void lazy_flush(struct kernel *k)
{
	if (k->lazy)
		store_commit(k->lazy, NULL, NULL);
	k->lazy = NULL;
}

void kernel_trust(const struct kernel *k, struct trust *out)
{
	(void)k;
	*out = (struct trust){ .now_ms = clock_wall_ms() };
}

const struct rights *rights_of(struct kernel *k, const struct cert_info *who)
{
	(void)k, (void)who;
	return NULL;
}

void audit_event(struct kernel *k, struct store_txn *t, const char *event, struct tos_value *m)
{
	(void)k, (void)t, (void)event;
	tos_value_free(m);
}

void audit_refused(
	struct kernel *k, const struct request *rq, const char *event, struct tos_value *m)
{
	(void)k, (void)rq, (void)event;
	tos_value_free(m);
}

bool broker_may_admit(struct kernel *k, const char *sender)
{
	(void)k, (void)sender;
	return !denied;
}

void account_known(struct kernel *k, const char *principal)
{
	(void)k, (void)principal;
}

const char *origin_class_word(enum origin_class c)
{
	(void)c;
	return "class";
}

/* ---- reading the input */

static unsigned next(void)
{
	if (in.left == 0)
		return 0;
	in.left--;
	return *in.p++;
}

static const char *const words[] = { "digest", "digests", "bytes", "offset", "size", "name",
	"last", "private", "source", "from", "pin", "timeout_ms", "max", "most", "kind",
	"version", "machine", "expires", "statement", "statements", "key", "value", "ops",
	"prefix", "after", "have", "undo", "program", "bundle", "data", "any", "host1", "host2",
	"host0", "a", "ab", "abc" };

static struct tos_value *value(unsigned depth);

static struct tos_value *map(unsigned depth)
{
	struct tos_value *m = tos_map();

	for (unsigned n = next() % 10; n > 0 && in.left > 0; n--) {
		const char *key = words[next() % ARRAY_LEN(words)];

		tos_set(m, key, value(depth + 1));
	}
	return m;
}

static struct tos_value *array(unsigned depth)
{
	struct tos_value *a = tos_array();

	for (unsigned n = next() % 8; n > 0 && in.left > 0; n--)
		tos_push(a, value(depth + 1));
	return a;
}

static struct tos_value *string(bool text)
{
	size_t n = next();
	struct tos_value *v;

	n = n > 250 ? n << 4 : n;
	n = n < in.left ? n : in.left;
	v = text ? tos_text_n((const char *)in.p, n) : tos_bytes(in.p, n);
	in.p += n;
	in.left -= n;
	return v ? v : tos_nil();
}

/* Longer than any buffer for it, of one letter that may have several bytes. */
static struct tos_value *long_text(void)
{
	static const char *const letters[] = { "x", "\xc3\xa9", "\xe2\x82\xac",
		"\xf0\x9f\x98\x80" };
	const char *letter = letters[next() % ARRAY_LEN(letters)];
	char text[1100] = "", *end = text;

	for (unsigned n = next(); n > 0; n--)
		end = stpcpy(end, letter);
	return tos_text(text);
}

static struct tos_value *number(void)
{
	static const int64_t edges[] = { INT64_MAX, INT64_MIN, (int64_t)64 << 30, 86399999,
		65536, 65537, 300, 400000 };
	uint64_t n = 0;
	unsigned which = next();

	if (which & 1)
		return tos_int(edges[(which >> 1) % ARRAY_LEN(edges)]);
	for (unsigned i = 0; i < 8; i++)
		n = n << 8 | next();
	return tos_int((int64_t)n);
}

static struct tos_value *digest(unsigned which)
{
	char hex[2 * DIGEST_BYTES + 1];
	const uint8_t *d = contents[which % N_CONTENTS].digest;

	if (which < 240)
		return tos_bytes(d, DIGEST_BYTES);
	text_hex(d, DIGEST_BYTES, hex);
	return tos_text(hex);
}

static struct tos_value *value(unsigned depth)
{
	switch (next() % 13) {
	case 0:
		return tos_int((int8_t)next());
	case 1:
		return number();
	case 2:
	case 3:
		return tos_text(words[next() % ARRAY_LEN(words)]);
	case 4:
		return string(true);
	case 5:
		return string(false);
	case 6:
		return depth < DEPTH_MAX ? array(depth) : tos_nil();
	case 7:
		return depth < DEPTH_MAX ? map(depth) : tos_nil();
	case 8:
		return tos_bool(next() & 1);
	case 9:
	case 10:
		return digest(next());
	case 11:
		return long_text();
	default:
		return tos_nil();
	}
}

/* ---- who asks what */

static void origin(unsigned who, struct origin *from)
{
	static const struct {
		enum origin_class cls;
		const char *name, *kernel, *principal;
		unsigned roles;
	} origins[] = { { ORIGIN_CLIENT, "host0/client/1", "", "", 0 },
		{ ORIGIN_CARRIER, "host0#1", "", "alice", ROLE_OWNER },
		{ ORIGIN_CARRIER, "host0#2", "", "bob", ROLE_ADMIN },
		{ ORIGIN_EXTENSION, "host0/Download", "", "", 0 },
		{ ORIGIN_EXTENSION, "host0/Commit", "", "", 0 },
		{ ORIGIN_KERNEL, "host1", "host1", "", 0 },
		{ ORIGIN_CLIENT, "host1/client/2", "host1", "alice", 0 },
		{ ORIGIN_CARRIER, "host1#7", "host1", "bob", ROLE_OWNER } };
	size_t i = who % ARRAY_LEN(origins);

	from->cls = origins[i].cls;
	from->roles = origins[i].roles;
	snprintf(from->name, sizeof(from->name), "%s", origins[i].name);
	snprintf(from->kernel, sizeof(from->kernel), "%s", origins[i].kernel);
	snprintf(from->principal, sizeof(from->principal), "%s", origins[i].principal);
}

/* A request with these arguments, which it takes. */
static struct request *request(unsigned who, const char *verb, struct tos_value *args)
{
	struct request *rq = mem_new(struct request);

	rq->k = &kernel;
	origin(who, &rq->from);
	snprintf(rq->verb, sizeof(rq->verb), "%s", verb);
	rq->deadline_at_ms = clock_ms() + 60000;
	rq->elements = tos_array();
	tos_push(rq->elements, args);
	args = tos_at_mut(rq->elements, 0);
	rq->args = tos_type(args) == TOS_MAP ? args : NULL;
	n_open++;
	return rq;
}

static void ask(unsigned who, const struct verb *verb, struct tos_value *args)
{
	verb->fn(&kernel, request(who, verb->name, args));
}

static void post(unsigned who)
{
	const struct verb *const verbs = FUZZ_VERBS, *verb = verbs;
	unsigned n = 0, shape = next();
	struct tos_value *args;

	while (verb[n].name)
		n++;
	verb += next() % n;
	denied = shape >= 240;
	args = shape & 1 ? map(0) : value(0);
	if (shape & 2 && tos_type(args) == TOS_MAP)
		tos_set(args, "digest", digest(next()));
	if (verbs == journal_verbs) /* only extensions get there */
		who = 3 + (who & 1);
	ask(who, verb, args);
}

static const struct verb *verb_of(const struct verb *v, const char *name)
{
	while (strcmp(v->name, name) != 0)
		v++;
	return v;
}

/* A piece of a content as it is, of which the input may change one thing. */
static struct tos_value *piece(unsigned which, int64_t offset, size_t most)
{
	struct tos_value *m = tos_map();
	size_t n = contents[which].n, at = (size_t)offset <= n ? (size_t)offset : n;
	unsigned lie = next();

	n = n - at < most ? n - at : most;
	tos_set(m, "digest", digest(which));
	tos_set(m, "offset", tos_int((int64_t)at));
	tos_set(m, "size", tos_int((int64_t)contents[which].n));
	tos_set(m, "bytes", tos_bytes(contents[which].bytes + at, n));
	if (lie & 1) {
		const char *key = words[next() % ARRAY_LEN(words)];

		tos_set(m, key, value(0));
	}
	if (lie & 2)
		tos_unset(m, "size");
	return m;
}

static void put(unsigned who)
{
	unsigned which = next() % N_CONTENTS;

	denied = false;
	ask(who, verb_of(content_verbs, "PUT"), piece(which, (int64_t)next() << 10, 1u << 18));
}

static void act(unsigned which)
{
	static const char *const acts[] = { "content-put", "content-fetch", "content-pin",
		"content-drop", "admit", "withdraw" };
	struct cert_info by = { .kind = CERT_PRINCIPAL, .name = "alice" };
	struct tos_value *args = map(0);
	struct request *rq = request(0, "ACT", tos_value_copy(args));

	tos_set(args, "digest", digest(next()));
	content_act(&kernel, rq, acts[which % ARRAY_LEN(acts)], &by, args);
	tos_value_free(args);
}

/* ---- what the sources answer */

static unsigned content_of(const struct tos_value *args)
{
	const uint8_t *d;
	size_t n;

	d = tos_get_bytes(args, "digest", &n);
	for (unsigned i = 0; i < N_CONTENTS; i++)
		if (memcmp(contents[i].digest, d, DIGEST_BYTES) == 0)
			return i;
	return next() % N_CONTENTS;
}

static struct tos_value *answer_of(const struct call *c, unsigned how)
{
	int64_t offset = tos_get_int(c->args, "offset", 0);

	must(offset >= 0 && tos_get_int(c->args, "max", -1) >= 0);
	if (how == 0)
		return value(0);
	return piece(content_of(c->args), offset, (size_t)tos_get_int(c->args, "max", 0));
}

static void answer(unsigned which)
{
	unsigned how = next() % 8;
	struct list *pos = calls.next;
	struct tos_value *elements;
	struct call *c;

	if (list_empty(&calls))
		return;
	for (which %= 8; which > 0 && pos->next != &calls; which--)
		pos = pos->next;
	c = LIST_ITEM(pos, struct call, node);
	elements = tos_array();
	if (how > 1)
		tos_push(elements, answer_of(c, how & 1 ? 1 : next() % 4));
	list_del(&c->node);
	list_init(&c->node); /* it is over before done is called */
	if (how > 1)
		c->done(&kernel, c->arg, 0, "", elements);
	else
		c->done(&kernel, c->arg, how ? ERR_NOT_FOUND : -(int)(1 + next() % 30), "no",
			NULL);
	tos_value_free(elements);
	call_free(c);
}

/* ---- turns of the loop */

static void laters_run(void)
{
	while (!list_empty(&laters)) {
		struct later *l = LIST_ITEM(laters.next, struct later, node);

		list_del(&l->node);
		l->fn(&kernel, l->arg);
		free(l);
	}
}

/* Until nothing is under way any more but calls. */
static void settle(void)
{
	bool more = true;

	while (more) {
		uv_run(&loop, UV_RUN_DEFAULT);
		must(store_commit_wait(store_begin(kernel.store), NULL) == 0);
		store_poll(kernel.store);
		more = !list_empty(&laters) || uv_loop_alive(&loop);
		laters_run();
	}
}

static void wake(void *arg)
{
	(void)arg; /* settle() polls */
}

/* ---- each input begins with the same */

static int row_drop(void *arg, struct slice key, struct slice body, int64_t expires_ms)
{
	struct tos_value *m = tos_map();
	size_t n = strnlen((const char *)key.p, key.n) + 1;

	(void)arg, (void)body, (void)expires_ms;
	tos_set(m, "key", tos_bytes(key.p + n, key.n - n));
	/* The two extensions that ask, whatever they are called. */
	ask(key.p[0] == 'D' ? 3 : 4, verb_of(journal_verbs, "DROP"), m);
	return 0;
}

static void withdraw(unsigned which)
{
	struct cert_info by = { .kind = CERT_PRINCIPAL, .name = "alice" };
	struct tos_value *m = tos_map();

	tos_set(m, "digest", digest(which));
	content_act(&kernel, request(0, "ACT", tos_nil()), "withdraw", &by, m);
	tos_value_free(m);
}

static void clean(void)
{
	settle();
	content_fetch_tick(&kernel, clock_ms() + ((int64_t)1 << 40));
	must(list_empty(&calls));
	settle();
	content_tick(&kernel, clock_ms() + ((int64_t)1 << 40));
	for (unsigned i = 0; i < N_CONTENTS; i++) {
		content_drop(&kernel, contents[i].digest, "clean", NULL);
		if (admitted_find(&kernel, contents[i].digest))
			withdraw(i);
	}
	store_each(kernel.store, T_JOURNAL, (struct slice){ NULL, 0 }, row_drop, NULL, NULL);
	settle();
	must(n_open == 0);
}

static void cleanup(void)
{
	char command[128];

	store_close(kernel.store, 10000);
	snprintf(command, sizeof(command), "rm -rf %s", folder);
	if (system(command) != 0)
		perror(folder);
}

static void begin(void)
{
	char path[128];

	log_init("fuzz", NULL, LOG_ERROR, false);
	list_init(&calls);
	list_init(&laters);
	/* In memory where that is: the disk is not what is tried. */
	snprintf(folder, sizeof(folder), "%s/tos-fuzz-XXXXXX",
		access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
	must(mkdtemp(folder));
	snprintf(path, sizeof(path), "%s/store", folder);
	must(store_open(path, wake, NULL, &kernel.store, NULL) == 0);
	atexit(cleanup);
	uv_loop_init(&loop);
	kernel.loop = &loop;
	snprintf(kernel.dir, sizeof(kernel.dir), "%s", folder);
	snprintf(kernel.config.name, sizeof(kernel.config.name), "host0");
	kernel.config.content_max = 1000000;
	kernel.config.content_share = 50;
	kernel.config.content_files = 16;
	kernel.config.journal_rows = 20;
	kernel.config.journal_bytes = 8000;
	kernel.metrics = metrics_new();
	for (unsigned i = 0; i < N_CONTENTS; i++) {
		contents[i].n = content_sizes[i];
		contents[i].bytes = mem_zero(contents[i].n + 1);
		memset(contents[i].bytes, (int)i, contents[i].n);
		digest_bytes(contents[i].bytes, contents[i].n, contents[i].digest);
	}
	must(content_init(&kernel, NULL) == 0);
	must(journal_load(&kernel, NULL) == 0);
	for (unsigned i = 0; i < N_CONTENTS; i++)
		withdraw(i);
	settle();
}

static void step(unsigned op)
{
	switch (op & 7) {
	case 0:
	case 1:
	case 2:
		post(op >> 3);
		break;
	case 3:
		put(op >> 3);
		break;
	case 4:
	case 5:
		answer(op >> 3);
		break;
	case 6:
		act(op >> 3);
		break;
	default:
		content_tick(&kernel, clock_ms() + 1000 * (op >> 3));
		journal_tick(&kernel, clock_ms() + 60000);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (!kernel.store)
		begin();
	in.p = data;
	in.left = size < 2048 ? size : 2048;
	for (unsigned n = 0; in.left > 0 && n < REQUESTS_MAX; n++) {
		step(next());
		if (next() & 1)
			settle();
		else
			laters_run();
	}
	clean();
	return 0;
}
