/*
 * Runs a carrier without a kernel (TOS 3.3.2): a tos-vm of our own, its child end of
 * wire/vmproto.h, and this side in the place of the kernel. Whatever needs other carriers,
 * kernels or extensions is refused; the rest of the API works.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/where.h"
#include "lib/bundle.h"
#include "lib/confine.h"
#include "lib/internal.h"
#include "wire/frame.h"
#include "wire/vmproto.h"

#define CARRIER     1
#define FRAME_MOST  ((size_t)160 << 20)
#define VALUE_MOST  ((size_t)256 << 20)
#define LOOK_MS     100 /* how late a limit or Ctrl-C may be noticed */
#define LOG_LINES   1000
#define SEND_BUFFER (1 << 20) /* refusals of all the calls that a carrier can have open */
#define NAME        "local#1"
#define PLACE       "local"

struct run {
	const struct tos_local *how;
	int64_t limits[LIMIT_COUNT], deadline;
	pid_t pid;
	int fd;
	bool ready, ended, failures; /* failures: its inbox of that name is open */
	struct tos_value *outcome;
};

/* ---- the child */

static void child_exec(int vm, int sock, const struct run *r)
{
	static char *const argv[] = { (char *)(uintptr_t) "tos-vm", NULL };
	static char *const envp[] = { NULL };
	struct confinement c = { r->limits[LIMIT_memory], r->limits[LIMIT_cpu] };
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	signal(SIGINT, SIG_IGN); /* whoever waits for it ends it */
	if (null < 0 || dup2(null, STDIN_FILENO) < 0 || dup2(null, STDOUT_FILENO) < 0)
		_exit(126);
	/* Whichever of both lies on 3, the other one must not be lost. */
	sock = fcntl(sock, F_DUPFD_CLOEXEC, 10);
	vm = fcntl(vm, F_DUPFD_CLOEXEC, 10);
	if (sock < 0 || vm < 0 || dup2(sock, 3) < 0)
		_exit(126);
#ifdef SYS_close_range
	syscall(SYS_close_range, 4, vm - 1, 0);
	syscall(SYS_close_range, vm + 1, ~0U, 0);
#endif
	if (!confine(&c))
		_exit(125);
	syscall(SYS_execveat, vm, "", argv, envp, AT_EMPTY_PATH);
	_exit(127);
}

static int child_start(struct run *r, struct errmsg *em)
{
	AUTOCLOSE int vm = -1;
	char path[4096];
	int ends[2], size = SEND_BUFFER;

	if (where_program("tos-vm", path, sizeof(path)) < 0)
		return err_set(
			em, ERR_NOT_FOUND, "tos-vm is not installed beside this program");
	vm = open(path, O_PATH | O_CLOEXEC);
	if (vm < 0 || socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) < 0)
		return err_errno(em, "cannot start %s", path);
	setsockopt(ends[0], SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
	r->pid = fork();
	if (r->pid == 0)
		child_exec(vm, ends[1], r);
	close(ends[1]);
	r->fd = ends[0];
	return r->pid < 0 ? err_errno(em, "cannot start %s", path) : 0;
}

static int64_t child_cpu_ms(const struct run *r)
{
	struct timespec ts;
	clockid_t clock;

	if (clock_getcpuclockid(r->pid, &clock) != 0 || clock_gettime(clock, &ts) < 0)
		return 0;
	return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

/* ---- frames to it */

static int send_bytes(struct run *r, const struct buf *b)
{
	for (size_t at = 0; at < b->len;) {
		ssize_t n = send(r->fd, b->data + at, b->len - at, MSG_NOSIGNAL);

		if (n < 0 && errno != EINTR)
			return ERR_CLOSED; /* why is seen when it is waited for */
		if (n > 0)
			at += (size_t)n;
	}
	return 0;
}

static int send_start(struct run *r, const struct tos_shell *s, struct errmsg *em)
{
	struct buf b = BUF_MAX(FRAME_MOST);
	size_t at = frame_begin(&b);
	int rc;

	cbor_put_array(&b, 3);
	cbor_put_uint(&b, VM_START);
	cbor_put_uint(&b, CARRIER);
	rc = shell_start(s, NAME, PLACE, &b, em);
	frame_end(&b, at);
	if (rc == 0 && buf_check(&b) < 0)
		rc = err_set(em, ERR_TOO_LARGE, "the carrier is too large");
	if (rc == 0)
		send_bytes(r, &b);
	buf_fini(&b);
	return rc;
}

/* ["failure", [code, text, dest]] for a call, or into the inbox `failures`. */
static int send_failure(struct run *r, enum post_kind kind, int64_t tag, const char *dest)
{
	AUTOBUF b = BUF_INIT;
	size_t at = frame_begin(&b);

	cbor_put_array(&b, 9);
	cbor_put_uint(&b, VM_DELIVER);
	cbor_put_uint(&b, CARRIER);
	cbor_put_uint(&b, kind == POST_CALL ? POST_FAILURE : POST_ONEWAY);
	cbor_put_text(&b, kind == POST_CALL ? "" : "failures");
	cbor_put_text(&b, "");
	cbor_put_uint(&b, (uint64_t)tag);
	cbor_put_array(&b, 2);
	cbor_put_text(&b, "failure");
	cbor_put_array(&b, 3);
	cbor_put_text(&b, err_word(ERR_NO_INBOX));
	cbor_put_text(&b, "there is no kernel: it runs with --local");
	cbor_put_text(&b, dest);
	cbor_put_text(&b, "");
	cbor_put_text(&b, "");
	frame_end(&b, at);
	return send_bytes(r, &b);
}

static int send_done(struct run *r, const struct tos_value *frame, int rc, const char *text)
{
	AUTOBUF b = BUF_INIT;
	size_t at = frame_begin(&b);

	cbor_put_array(&b, 6);
	cbor_put_uint(&b, VM_DONE);
	cbor_put_uint(&b, CARRIER);
	cbor_put_uint(&b, (uint64_t)tos_as_int(tos_at(frame, 2), 0));
	cbor_put_text(&b, rc ? err_word(rc) : "");
	cbor_put_text(&b, text);
	cbor_put_null(&b);
	frame_end(&b, at);
	return send_bytes(r, &b);
}

/* ---- what comes of it */

static void trail_add(struct run *r, const char *event, const char *error)
{
	struct tos_value *t = tos_map();

	tos_set(t, "kernel", tos_text(PLACE));
	tos_set(t, "event", tos_text(event));
	tos_set(t, "wall", tos_int(clock_wall_ms()));
	if (error)
		tos_set(t, "error", tos_text(error));
	tos_push(tos_get_mut(r->outcome, "trail"), t);
}

static void end_with(struct run *r, const char *state, const char *event)
{
	r->ended = true;
	tos_set(r->outcome, "state", tos_text(state));
	if (event)
		trail_add(r, event, NULL);
}

static void fault_with(struct run *r, const char *code, const char *text, const char *traceback)
{
	struct tos_value *f = tos_map();

	tos_set(f, "code", tos_text(code));
	tos_set(f, "text", tos_text(text));
	tos_set(f, "traceback", tos_text(traceback));
	tos_set(f, "kernel", tos_text(PLACE));
	tos_set(f, "wall", tos_int(clock_wall_ms()));
	tos_set(r->outcome, "fault", f);
	trail_add(r, "fault", text);
	end_with(r, "faulted", NULL);
}

/* Its state is nobody's business but its own; the briefcase is what it brings. */
static void take_frozen(struct run *r, const struct tos_value *frozen)
{
	const struct tos_value *briefcase = tos_get(frozen, "briefcase");

	if (tos_type(briefcase) == TOS_MAP)
		tos_set(r->outcome, "briefcase", tos_value_copy(briefcase));
}

static void say(struct run *r, const char *level, const char *text)
{
	struct tos_value *log = tos_get_mut(r->outcome, "log"), *line = tos_array();

	tos_push(line, tos_int(clock_wall_ms()));
	tos_push(line, tos_text(PLACE));
	tos_push(line, tos_text(text));
	if (tos_len(log) < LOG_LINES)
		tos_push(log, line);
	else
		tos_value_free(line);
	if (r->how->log)
		r->how->log(r->how->arg, level, text);
}

static int on_send(struct run *r, const struct tos_value *f)
{
	enum post_kind kind = (enum post_kind)tos_as_int(tos_at(f, 2), -1);
	const char *dest = tos_as_text(tos_at(f, 3), "");

	if (kind == POST_CALL || (kind == POST_ONEWAY && r->failures))
		return send_failure(r, kind, tos_as_int(tos_at(f, 4), 0), dest);
	if (kind == POST_ONEWAY) {
		struct tos_value *text = tos_textf("posted to %s, where nobody is", dest);

		say(r, "notice", tos_as_text(text, "posted"));
		tos_value_free(text);
	}
	return 0;
}

static int on_inbox(struct run *r, const struct tos_value *f)
{
	if (strcmp(tos_as_text(tos_at(f, 4), ""), "failures") == 0)
		r->failures = tos_as_bool(tos_at(f, 3), false);
	return send_done(r, f, 0, "");
}

static int on_frame(struct run *r, const struct tos_value *f)
{
	switch (tos_as_int(tos_at(f, 0), 0)) {
	case VM_STARTED:
		trail_add(r, "started", NULL);
		return 0;
	case VM_SEND:
		return on_send(r, f);
	case VM_GO:
		return send_done(r, f, ERR_UNSUPPORTED,
			"there is no other kernel: it runs with --local");
	case VM_CHECKPOINT:
		return send_done(r, f, 0, "");
	case VM_INBOX:
		return on_inbox(r, f);
	case VM_LOG:
		say(r, tos_as_text(tos_at(f, 2), "info"), tos_as_text(tos_at(f, 3), ""));
		return 0;
	case VM_FINISHED:
		take_frozen(r, tos_at(f, 2));
		end_with(r, "finished", "finished");
		return 0;
	case VM_FAULT:
		take_frozen(r, tos_at(f, 5));
		fault_with(r, tos_as_text(tos_at(f, 2), "fault"), tos_as_text(tos_at(f, 3), ""),
			tos_as_text(tos_at(f, 4), ""));
		return 0;
	default: /* TAKEN, USAGE */
		return 0;
	}
}

static int on_bytes(
	struct run *r, struct slice bytes, const struct tos_shell *s, struct errmsg *em)
{
	struct tos_value *f = NULL;
	int rc = tos_decode(bytes.p, bytes.n, VALUE_MOST, &f);

	if (rc < 0)
		return err_set(em, rc, "tos-vm sent what is no frame");
	if (!r->ready) {
		r->ready = tos_as_int(tos_at(f, 0), 0) == VM_READY;
		rc = r->ready ? send_start(r, s, em)
			      : err_set(em, ERR_MALFORMED, "what was started is no tos-vm");
	} else
		on_frame(r, f); /* one that it no longer reads: its end is seen below */
	tos_value_free(f);
	return rc;
}

/* It closed the connection without a word. */
static int on_gone(struct run *r, struct errmsg *em)
{
	int status = 0;

	waitpid(r->pid, &status, 0);
	r->pid = 0;
	if (!r->ready && WIFEXITED(status) && WEXITSTATUS(status) == 125)
		return err_set(em, ERR_SANDBOX,
			"this host offers neither seccomp nor no_new_privs; "
			"untrusted code doesn't run without");
	if (!r->ready)
		return err_set(em, ERR_SANDBOX, "tos-vm did not start (status %d)", status);
	if (WIFSIGNALED(status) && WTERMSIG(status) == SIGXCPU)
		fault_with(r, "limit", "limit cpu: it used up its time", "");
	else
		fault_with(r, "crash", "its tos-vm ended", "");
	return 0;
}

static int check_limits(struct run *r, struct errmsg *em)
{
	int64_t cpu = child_cpu_ms(r);
	struct tos_value *text;

	if (r->how->stop && r->how->stop(r->how->arg))
		end_with(r, "killed", "killed");
	else if (cpu > r->limits[LIMIT_cpu]) {
		text = tos_textf("limit cpu: used %lld ms of %lld ms", (long long)cpu,
			(long long)r->limits[LIMIT_cpu]);
		fault_with(r, "limit", tos_as_text(text, "limit cpu"), "");
		tos_value_free(text);
	} else if (r->deadline && clock_ms() > r->deadline)
		return err_set(em, ERR_TIMEOUT, "it had not ended in time and was stopped");
	return 0;
}

static int serve(struct run *r, const struct tos_shell *s, struct errmsg *em)
{
	struct frame_reader reader = { .in = { .max = FRAME_MOST + (1 << 20) },
		.max = FRAME_MOST };
	struct pollfd p = { .fd = r->fd, .events = POLLIN };
	int rc = 0;

	while (rc == 0 && !r->ended) {
		struct slice frame;
		ssize_t n;

		rc = frame_next(&reader, &frame);
		if (rc == 0) {
			rc = on_bytes(r, frame, s, em);
			continue;
		}
		if (rc != ERR_AGAIN) {
			err_set(em, rc, "tos-vm sent what is no frame");
			break;
		}
		rc = check_limits(r, em);
		if (rc < 0 || r->ended || poll(&p, 1, LOOK_MS) <= 0)
			continue;
		if (buf_reserve(&reader.in, 65536) < 0)
			rc = ERR_NOMEM;
		n = rc ? 0 : read(r->fd, reader.in.data + reader.in.len, 65536);
		if (n > 0)
			reader.in.len += (size_t)n;
		else if (rc == 0 && (n == 0 || errno != EINTR))
			rc = on_gone(r, em);
	}
	buf_fini(&reader.in);
	return rc;
}

int tos_shell_run(const struct tos_shell *s, const struct tos_local *how,
	struct tos_value **out, struct tos_error *err)
{
	static const struct tos_local nothing;
	struct run r = { .how = how ? how : &nothing, .fd = -1, .outcome = tos_map() };
	int rc;

	shell_limits(s, r.limits);
	r.deadline = r.how->timeout_ms ? clock_ms() + r.how->timeout_ms : 0;
	tos_set(r.outcome, "name", tos_text(NAME));
	tos_set(r.outcome, "state", tos_text("running"));
	tos_set(r.outcome, "briefcase", tos_map());
	tos_set(r.outcome, "trail", tos_array());
	tos_set(r.outcome, "log", tos_array());
	tos_set(r.outcome, "fault", tos_nil());
	rc = child_start(&r, em_of(err));
	rc = rc ? rc : serve(&r, s, em_of(err));
	if (r.fd >= 0)
		close(r.fd);
	if (r.pid > 0) {
		kill(r.pid, SIGKILL);
		waitpid(r.pid, NULL, 0);
	}
	if (rc < 0)
		tos_value_free(r.outcome);
	else
		*out = r.outcome;
	return rc;
}
