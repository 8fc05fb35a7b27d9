/*
 * The loop: one tos-kernel, its launchers, up to TOSD_CHILDREN sandboxes; who is started, signals, and
 * the end. While the table of children is full nothing more is read from tos-kernel.
 */
#include "tosd/supervise.h"

#include <signal.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"

#define STOP_MS 10000

struct super super;

void notify(const char *text)
{
	const char *path = getenv("NOTIFY_SOCKET");
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	size_t len = path ? strlen(path) : 0;
	int fd;

	if (len < 2 || len >= sizeof(a.sun_path) || (path[0] != '/' && path[0] != '@'))
		return;
	memcpy(a.sun_path, path, len);
	if (path[0] == '@')
		a.sun_path[0] = 0;
	fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return;
	sendto(fd, text, strlen(text), MSG_NOSIGNAL | MSG_DONTWAIT, (struct sockaddr *)&a,
		(socklen_t)(offsetof(struct sockaddr_un, sun_path) + len));
	mem_close(fd);
}

static void on_kernel_death(void)
{
	int status;

	if (waitpid(super.kernel.pid, &status, WNOHANG) != super.kernel.pid)
		return;
	if (WIFEXITED(status) && WEXITSTATUS(status) == TOSD_EXIT_BROKEN)
		super.config_broken = true;
	peer_reaped(&super.kernel);
	if (!super.stopping)
		super.stop_ms = 0; /* it was meant for this one */
	if (super.stopping && WIFEXITED(status) && WEXITSTATUS(status) == 0)
		log_notice("tos-kernel has stopped");
	else if (WIFEXITED(status))
		log_error("tos-kernel ended", KV_INT("status", WEXITSTATUS(status)));
	else
		log_error("tos-kernel was killed", KV_INT("signal", WTERMSIG(status)));
	/* The next one reads its store while these are being ended; its sandboxes wait. */
	super.phase = super.stopping || super.config_broken ? PHASE_ENDING : PHASE_DOWN;
	super.ready = false;
	reload_forget();
	action_forget();
	children_end();
}

static void start_peers(void)
{
	struct errmsg em = { "" };
	int64_t now = clock_ms();
	int fd, pidfd, pid;

	makers_start(now);
	if (super.phase != PHASE_DOWN || super.kernel.next_ms > now || super.stopping)
		return;
	pid = kernel_start(super.t, &fd, &pidfd, &em);
	if (pid < 0) {
		log_error("cannot start tos-kernel", KV_ERR(pid, &em));
		peer_later(&super.kernel);
		return;
	}
	peer_started(&super.kernel, pid, pidfd, fd, WATCH_KERNEL);
	super.phase = PHASE_UP;
	kept_offer();
	log_info("tos-kernel started", KV_INT("pid", pid));
}

void check_again(void)
{
	int pidfd = reload_begin(super.t);

	if (pidfd >= 0)
		watch_add(pidfd, WATCH_CHECK_PID, EPOLLIN);
}

static void stop(int sig)
{
	struct tosd_simple m = { .head = { TOSD_MSG_VERSION, TOSD_STOP, sizeof(m) } };

	if (super.stopping) {
		if (super.kernel.pidfd >= 0)
			pidfd_signal(super.kernel.pidfd, SIGKILL); /* asked twice: at once */
		return;
	}
	log_notice("stopping", KV_STR("signal", sig == SIGINT ? "INT" : "TERM"));
	notify("STOPPING=1");
	super.stopping = true;
	super.stop_ms = clock_ms() + STOP_MS;
	if (super.phase != PHASE_UP)
		return;
	super.phase = PHASE_STOPPING;
	/* A tos-kernel that reads nothing is killed when its time is up. */
	ipc_send(super.kernel.fd, &m, sizeof(m), NULL, 0, NULL);
}

static void on_signals(void)
{
	struct signalfd_siginfo si;

	while (read(super.signals, &si, sizeof(si)) == (ssize_t)sizeof(si)) {
		if (si.ssi_signo == SIGTERM || si.ssi_signo == SIGINT)
			stop((int)si.ssi_signo);
		else if (si.ssi_signo == SIGHUP)
			check_again();
	}
}

static void dispatch(uint32_t id)
{
	bool launcher = id >= WATCH_LAUNCHER && id < WATCH_END;
	struct maker *m = &super.maker[launcher ? (id - WATCH_LAUNCHER) / 2 : 0];
	bool process = (id - WATCH_LAUNCHER) % 2;

	if (id == WATCH_SIGNAL)
		on_signals();
	else if (id == WATCH_KERNEL && super.kernel.fd >= 0)
		kernel_readable();
	else if (id == WATCH_KERNEL_PID && super.kernel.pid > 0)
		on_kernel_death();
	else if (launcher && !process && m->peer.fd >= 0)
		maker_readable(m);
	else if (launcher && process && m->peer.pid > 0)
		maker_reap(m);
	else if (id == WATCH_CHECK_PID && reload_ended(super.t, super.epoll))
		check_again();
	else if (id >= WATCH_ACTION && id < WATCH_ACTION + ACTION_WATCHES)
		action_event(id);
	else if (id < TOSD_CHILDREN && super.child[id].pidfd >= 0)
		child_reap(&super.child[id]);
}

static void deadlines(void)
{
	int64_t now = clock_ms();

	if (super.stop_ms && now >= super.stop_ms) {
		super.stop_ms = 0;
		if (super.kernel.pidfd >= 0) {
			log_warning("tos-kernel does not end: killing it");
			pidfd_signal(super.kernel.pidfd, SIGKILL);
		}
	}
	makers_expire(now);
	reload_expire(now);
	action_turn(super.t, super.stopping || super.config_broken);
	if (super.phase == PHASE_ENDING && super.n_children == super.n_kept)
		super.phase = PHASE_DOWN;
}

static int timeout_ms(void)
{
	int64_t at = makers_deadline(), left;

	if (super.stop_ms && super.stop_ms < at)
		at = super.stop_ms;
	if (super.phase == PHASE_DOWN && !super.stopping && super.kernel.next_ms < at)
		at = super.kernel.next_ms;
	if (reload_deadline() < at)
		at = reload_deadline();
	if (action_deadline() < at)
		at = action_deadline();
	if (at == INT64_MAX)
		return -1;
	left = at - clock_ms();
	return left < 0 ? 0 : (int)left;
}

/* When there is nothing more to do; the exit status is tosd's. */
static bool finished(int *status)
{
	if (super.phase != PHASE_DOWN || super.n_orphans > 0 || action_runs())
		return false;
	if (super.config_broken) {
		log_error("tos-kernel cannot work with its configuration or store; see above");
		*status = 1;
		return true;
	}
	*status = 0;
	return super.stopping;
}

static bool is_socket(uint64_t id)
{
	return id == WATCH_KERNEL ||
	       (id >= WATCH_LAUNCHER && id < WATCH_END && (id - WATCH_LAUNCHER) % 2 == 0);
}

static void turn(void)
{
	struct epoll_event ev[64];
	int n = epoll_wait(super.epoll, ev, ARRAY_LEN(ev), timeout_ms());

	/* Messages before deaths: what a dead process said is still heard. Only the kernel's: a
	 * child's pidfd is its row, and rows change hands only below. */
	for (int i = 0; i < n; i++)
		if (is_socket(ev[i].data.u64))
			dispatch((uint32_t)ev[i].data.u64);
	for (int i = 0; i < n; i++)
		if (!is_socket(ev[i].data.u64))
			dispatch((uint32_t)ev[i].data.u64);
	deadlines();
	start_peers();
	makers_turn();
	tell_kernel();
	watch_change(&super.kernel, WATCH_KERNEL,
		(super.free_head != NIL ? EPOLLIN : 0u) |
			(super.unsent || reload_due() || action_due() ? EPOLLOUT : 0u));
}

static void init(struct tosd *t)
{
	sigset_t set;

	super.t = t;
	super.phase = PHASE_DOWN;
	super.kernel = (struct peer){ .fd = -1, .pidfd = -1 };
	makers_init();
	children_init();
	super.epoll = epoll_create1(EPOLL_CLOEXEC);
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGHUP);
	sigprocmask(SIG_BLOCK, &set, NULL);
	signal(SIGPIPE, SIG_IGN);
	super.signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	must(super.epoll >= 0 && super.signals >= 0);
	watch_add(super.signals, WATCH_SIGNAL, EPOLLIN);
	action_init(super.epoll, WATCH_ACTION);
}

int supervise(struct tosd *t)
{
	int status = 0;

	init(t);
	start_peers();
	while (!finished(&status))
		turn();
	makers_end();
	return status;
}
