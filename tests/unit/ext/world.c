/* A kernel as small as extensions need one: see world.h. */
#include "world.h"

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

static int on_send(void *arg, const char *sender, const struct post *p, struct errmsg *em)
{
	struct world *w = arg;
	struct sent *s = &w->sent[w->n_sent];

	(void)em;
	assert_true(w->n_sent < SENT_MAX);
	memset(s, 0, sizeof(*s));
	s->kind = p->kind;
	s->tag = p->tag;
	s->deadline_ms = p->deadline_ms;
	s->at = clock_ms();
	snprintf(s->sender, sizeof(s->sender), "%s", sender);
	snprintf(s->dest, sizeof(s->dest), "%.*s", (int)p->dest.n, (const char *)p->dest.p);
	assert_int_equal(p->sender.n, 0);
	assert_int_equal(folder_decode(p->folder, s->folder, &s->elements), 0);
	if (strcmp(s->dest, "Nowhere") == 0) {
		tos_value_free(s->elements);
		return ERR_NO_INBOX;
	}
	if (w->refused && s->kind < POST_ANSWER && strcmp(s->folder, w->refused) == 0) {
		tos_value_free(s->elements);
		return ERR_FULL;
	}
	w->n_sent++;
	if (w->on_send)
		w->on_send(w, s);
	return 0;
}

static int on_forward(void *arg, const struct post *original, const char *kernel)
{
	struct world *w = arg;

	assert_true(w->n_forwarded < 16);
	snprintf(w->forwarded[w->n_forwarded], 64, "%s", kernel);
	w->forwarded_tag[w->n_forwarded++] = original->tag;
	return 0;
}

static int on_spawn(void *arg, const char *name)
{
	struct world *w = arg;
	int pair[2];
	char *argv[4] = { (char *)(uintptr_t) "tos-ext", (char *)(uintptr_t)name,
		(char *)(uintptr_t)w->library, NULL };
	posix_spawn_file_actions_t actions;

	w->n_spawned++;
	if (!w->library)
		return 0;
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	posix_spawn_file_actions_init(&actions);
	/* dup2 onto itself would keep close-on-exec. */
	if (pair[1] == 3) {
		pair[1] = fcntl(pair[1], F_DUPFD_CLOEXEC, 10);
		close(3);
	}
	posix_spawn_file_actions_adddup2(&actions, pair[1], 3);
	assert_int_equal(posix_spawn(&w->pid, TOS_EXT_PATH, &actions, NULL, argv, environ), 0);
	posix_spawn_file_actions_destroy(&actions);
	close(pair[1]);
	return ext_attach(w->host, name, pair[0], w->pid, NULL);
}

static void reap(struct world *w)
{
	if (w->pid > 0)
		waitpid(w->pid, NULL, 0);
	w->pid = 0;
}

static void on_kill(void *arg, const char *name)
{
	struct world *w = arg;

	(void)name;
	w->n_killed++;
	if (w->pid > 0)
		kill(w->pid, SIGKILL);
}

static void on_count(void *arg, const char *ext, const char *name, uint64_t delta)
{
	struct world *w = arg;
	size_t i = 0;

	(void)ext;
	while (i < 63 && *w->count[i].name && strcmp(w->count[i].name, name) != 0)
		i++;
	snprintf(w->count[i].name, sizeof(w->count[i].name), "%s", name);
	w->count[i].n += delta;
}

static void on_property(void *arg, const char *ext, const char *path, const char *type,
	const char *unit, const char *doc, int64_t min, int64_t max, bool read_only,
	const char *value)
{
	struct world *w = arg;
	size_t i = 0;

	(void)ext, (void)type, (void)unit, (void)doc, (void)min, (void)max, (void)read_only;
	while (i < w->n_properties && strcmp(w->property[i][0], path) != 0)
		i++;
	assert_true(i < 16);
	snprintf(w->property[i][0], 256, "%s", path);
	snprintf(w->property[i][1], 256, "%s", value);
	if (i == w->n_properties)
		w->n_properties++;
}

static void on_ready(void *arg, const char *ext, int rc, const char *why)
{
	struct world *w = arg;

	(void)ext;
	w->n_ready++;
	w->ready_rc = rc;
	snprintf(w->ready_why, sizeof(w->ready_why), "%s", why);
}

static void on_lost(void *arg, const char *ext, const char *why)
{
	struct world *w = arg;

	w->n_lost++;
	snprintf(w->lost_why, sizeof(w->lost_why), "%s", why);
	reap(w);
	/* What tosd would say soon after. */
	ext_died(w->host, ext, "signal 9");
}

static bool is_reserved(void *arg, const char *inbox)
{
	(void)arg;
	return strcmp(inbox, "Shells") == 0;
}

static const struct ext_callbacks callbacks = {
	.send = on_send,
	.forward = on_forward,
	.spawn = on_spawn,
	.kill = on_kill,
	.count = on_count,
	.property = on_property,
	.ready = on_ready,
	.lost = on_lost,
	.reserved = is_reserved,
};

struct world *world_new(void)
{
	struct world *w = mem_new(struct world);

	w->next_tag = 1;
	uv_loop_init(&w->loop);
	assert_int_equal(ext_host_new(&w->loop, "host0", 0, &callbacks, w, &w->host), 0);
	return w;
}

static void on_closed(void *arg)
{
	((struct world *)arg)->closed = true;
}

static bool is_closed(struct world *w)
{
	return w->closed;
}

void world_free(struct world *w)
{
	ext_host_close(w->host, on_closed, w);
	assert_true(world_until(w, is_closed));
	uv_run(&w->loop, UV_RUN_NOWAIT);
	uv_run(&w->loop, UV_RUN_DEFAULT);
	assert_int_equal(uv_loop_close(&w->loop), 0);
	reap(w);
	for (size_t i = 0; i < w->n_sent; i++)
		tos_value_free(w->sent[i].elements);
	free(w);
}

static const char *configured(void *arg, const char *path)
{
	struct world *w = arg;

	for (size_t i = 0; i < 4 && w->configured[i][0]; i++)
		if (strcmp(w->configured[i][0], path) == 0)
			return w->configured[i][1];
	return NULL;
}

int world_load(struct world *w, const char *name, const char *library, const char *privileges,
	bool isolated, struct errmsg *em)
{
	struct ext_load what = { .name = name,
		.library = library,
		.privileges = privileges,
		.isolated = isolated,
		.property = configured,
		.arg = w };

	return ext_load(w->host, &what, em);
}

#define TICK_MS 5

static void on_tick(uv_timer_t *t)
{
	(void)t;
}

static bool never(struct world *w)
{
	(void)w;
	return false;
}

static bool run_until(struct world *w, bool (*cond)(struct world *w), int64_t ms)
{
	int64_t end = clock_ms() + ms, turns = 0;
	uv_timer_t tick;
	bool is = false;

	/* So that the loop turns, whatever it waits for. */
	uv_timer_init(&w->loop, &tick);
	uv_timer_start(&tick, on_tick, TICK_MS, TICK_MS);
	/* Who was kept off the processor meanwhile gets the turns that it would have had. */
	while (!(is = cond(w)) && (turns++ <= ms / TICK_MS || clock_ms() < end))
		uv_run(&w->loop, UV_RUN_ONCE);
	uv_close((uv_handle_t *)&tick, NULL);
	uv_run(&w->loop, UV_RUN_NOWAIT);
	return is || cond(w);
}

bool world_until(struct world *w, bool (*cond)(struct world *w))
{
	return run_until(w, cond, 10000);
}

void world_run(struct world *w, int64_t ms)
{
	run_until(w, never, ms);
}

static struct slice encode(const char *folder, struct tos_value *elements, struct buf *b)
{
	const struct tos_value *each[64];
	size_t n = tos_len(elements);

	assert_true(n <= 64);
	for (size_t i = 0; i < n; i++)
		each[i] = tos_at(elements, i);
	folder_encode(b, folder, each, n);
	assert_int_equal(buf_check(b), 0);
	tos_value_free(elements);
	return (struct slice){ b->data, b->len };
}

static struct slice slice_of(const char *s)
{
	return (struct slice){ (const uint8_t *)s, strlen(s) };
}

int world_post(struct world *w, enum post_kind kind, const char *sender, const char *class,
	const char *inbox, const char *folder, struct tos_value *elements, uint32_t deadline_ms)
{
	AUTOBUF b = BUF_INIT;
	struct tos_value *info = tos_map();
	struct post p = { .kind = kind,
		.dest = slice_of(inbox),
		.sender = slice_of(sender),
		.tag = kind == POST_CALL ? w->next_tag++ : 0,
		.deadline_ms = deadline_ms,
		.folder = encode(folder, elements, &b) };
	int rc;

	tos_set(info, "class", tos_text(class));
	rc = ext_deliver(w->host, inbox, &p, info, NULL);
	tos_value_free(info);
	return rc;
}

static uint64_t awaited;

static bool is_answered(struct world *w)
{
	return world_sent_tag(w, awaited) != NULL;
}

struct sent *world_call(
	struct world *w, const char *inbox, const char *folder, struct tos_value *elements)
{
	assert_int_equal(
		world_post(w, POST_CALL, "host0#1", "carrier", inbox, folder, elements, 5000),
		0);
	awaited = w->next_tag - 1;
	assert_true(world_until(w, is_answered));
	return world_sent_tag(w, awaited);
}

void world_answer(struct world *w, const struct sent *s, int rc, const char *text,
	struct tos_value *elements)
{
	AUTOBUF b = BUF_INIT;
	struct post p = { .kind = rc < 0 ? POST_FAILURE : POST_ANSWER, .tag = s->tag };

	assert_int_equal(s->kind, POST_CALL);
	if (rc < 0) {
		tos_value_free(elements);
		elements = texts(err_word(rc), text, NULL);
	}
	p.folder = encode(rc < 0 ? "failure" : "ok", elements, &b);
	p.dest = slice_of(s->sender);
	p.sender = slice_of(s->dest);
	assert_int_equal(ext_deliver(w->host, s->sender, &p, NULL, NULL), 0);
}

struct sent *world_sent_tag(struct world *w, uint64_t tag)
{
	for (size_t i = 0; i < w->n_sent; i++)
		if (w->sent[i].tag == tag && w->sent[i].kind >= POST_ANSWER)
			return &w->sent[i];
	return NULL;
}

struct sent *world_sent_folder(struct world *w, const char *folder, size_t nth)
{
	for (size_t i = 0; i < w->n_sent; i++)
		if (w->sent[i].kind < POST_ANSWER && strcmp(w->sent[i].folder, folder) == 0 &&
			nth-- == 0)
			return &w->sent[i];
	return NULL;
}

uint64_t world_count(const struct world *w, const char *name)
{
	for (size_t i = 0; i < 64; i++)
		if (strcmp(w->count[i].name, name) == 0)
			return w->count[i].n;
	return 0;
}

const char *world_property(const struct world *w, const char *path)
{
	for (size_t i = 0; i < w->n_properties; i++)
		if (strcmp(w->property[i][0], path) == 0)
			return w->property[i][1];
	return NULL;
}

const char *failure_word(const struct sent *s)
{
	assert_int_equal(s->kind, POST_FAILURE);
	assert_string_equal(s->folder, "failure");
	return tos_as_text(tos_at(s->elements, 0), "");
}

const char *failure_text(const struct sent *s)
{
	return tos_as_text(tos_at(s->elements, 1), "");
}

struct tos_value *texts(const char *first, ...)
{
	struct tos_value *v = tos_array();
	va_list ap;

	va_start(ap, first);
	for (const char *s = first; s; s = va_arg(ap, const char *))
		tos_push(v, tos_text(s));
	va_end(ap);
	return v;
}

struct tos_value *array_of(struct tos_value *v)
{
	struct tos_value *a = tos_array();

	tos_push(a, v);
	return a;
}
