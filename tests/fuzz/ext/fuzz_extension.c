/* Whatever a tos-ext says, the kernel's side of the conversation stays sound: calls are
 * answered once, and a wrong frame ends the process. */
#include <sys/socket.h>
#include <unistd.h>
#include <uv.h>

#include <tos/value.h>

#include "base/buf.h"
#include "base/log.h"
#include "base/mem.h"
#include "ext/ext.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct run {
	struct ext_host *host;
	unsigned calls, answers;
	bool over, closed;
};

static int on_send(void *arg, const char *sender, const struct post *p, struct errmsg *em)
{
	struct run *r = arg;
	struct slice name;
	uint64_t n;

	(void)em;
	must(*sender);
	must(folder_check(p->folder, &name, &n) == 0);
	if (p->kind == POST_CALL) {
		struct post answer = {
			.kind = POST_ANSWER, .tag = p->tag, .folder = p->folder
		};

		ext_deliver(r->host, sender, &answer, NULL, NULL);
	} else if (p->kind != POST_ONEWAY) {
		must(p->tag >= 1 && p->tag <= r->calls);
		must(++r->answers <= r->calls);
	}
	return 0;
}

static int on_spawn(void *arg, const char *name)
{
	(void)arg;
	(void)name;
	return 0;
}

static void on_kill(void *arg, const char *name)
{
	(void)name;
	((struct run *)arg)->over = true;
}

static void on_count(void *arg, const char *ext, const char *name, uint64_t delta)
{
	(void)arg, (void)ext, (void)name, (void)delta;
}

/* Three calls, so that there is something to answer. */
static void on_ready(void *arg, const char *ext, int rc, const char *why)
{
	struct run *r = arg;
	const char *inbox = ext_hook(r->host, ~0u, 0);
	struct post p = { .kind = POST_CALL,
		.folder = { (const uint8_t *)"\x82\x61x\x80", 4 } };

	(void)ext;
	(void)why;
	for (unsigned i = 0; rc == 0 && i < 3; i++) {
		p.tag = ++r->calls;
		if (ext_deliver(r->host, inbox ? inbox : "Probe", &p, NULL, NULL) < 0)
			r->calls--;
	}
}

static void on_closed(void *arg)
{
	((struct run *)arg)->closed = true;
}

static const struct ext_callbacks callbacks = {
	.send = on_send,
	.spawn = on_spawn,
	.kill = on_kill,
	.count = on_count,
	.ready = on_ready,
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct run r = { 0 };
	struct ext_load what = {
		.name = "Probe", .library = "none", .privileges = "", .isolated = true
	};
	uv_loop_t loop;
	int pair[2];

	if (size > 65536)
		return 0;
	log_init("fuzz", NULL, LOG_ERROR, false);
	uv_loop_init(&loop);
	must(ext_host_new(&loop, "host0", 0, &callbacks, &r, &r.host) == 0);
	must(ext_load(r.host, &what, NULL) == 0);
	must(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == 0);
	must(ext_attach(r.host, "Probe", pair[0], 1, NULL) == 0);
	must(write(pair[1], data, size) == (ssize_t)size);
	shutdown(pair[1], SHUT_WR);
	while (!r.over)
		uv_run(&loop, UV_RUN_ONCE); /* the end of file comes last */
	ext_host_close(r.host, on_closed, &r);
	while (!r.closed)
		uv_run(&loop, UV_RUN_ONCE);
	uv_run(&loop, UV_RUN_DEFAULT);
	must(uv_loop_close(&loop) == 0);
	close(pair[1]);
	return 0;
}
