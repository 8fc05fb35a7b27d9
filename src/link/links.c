/*
 * The set of links: listeners, peers, dials and their repetition, and the one timer that sees
 * to every deadline. What is told to the kernel later (`down`, `dial_failed`) is told from that
 * timer, and memory of links goes nowhere else, so a pointer held across a callback stays good.
 */
#include "link/link.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/map.h"
#include "base/text.h"
#include "link/inside.h"
#include "loop/timer.h"

#define BACKLOG          128
#define BACKOFF_FIRST_MS 100
#define BACKOFF_LAST_MS  30000
#define STEADY_MS        5000 /* a link that lived so long starts the back-off anew */
#define EVICT_AFTER_MS   1000
#define TICK_LONGEST_MS  60000

void links_config_defaults(struct links_config *c)
{
	*c = (struct links_config){
		.handshake_ms = 10000,
		.ping_ms = 10000,
		.silent_ms = 30000,
		.queue_bytes = 8u << 20,
		.credit_posts = 1024,
		.credit_chunks = 64,
		.max_links = 1024,
		.max_handshakes = 64,
		.max_clients = 256,
		.version_min = PROTOCOL_VERSION_MIN,
		.version_max = PROTOCOL_VERSION,
		.max_joiners = 16,
		.joiner_ms = 30000,
	};
}

/* ---- the tick */

static void tick(void *arg);

void links_wake(struct links *ls)
{
	timer_again(ls->tick, 0);
}

void links_due(struct links *ls, int64_t in_ms)
{
	uint64_t ms = in_ms < 0 ? 0 : (uint64_t)in_ms;

	if (ms < ls->tick_in_ms)
		ls->tick_in_ms = ms;
}

void links_tell_downs(struct links *ls)
{
	struct list *e;

	LIST_EACH(e, &ls->all)
	{
		struct link *l = LIST_ITEM(e, struct link, node);

		if (l->state < LINK_CLOSING || !l->told_up || l->told_down)
			continue;
		l->told_down = true;
		log_debug("link ended", KV_STR("peer", l->name), KV_STR("address", l->address),
			KV_STR("error", err_word(l->rc)), KV_STR("reason", l->why));
		ls->cb->down(ls->arg, l, l->rc, l->why);
	}
}

static void begin_dials(struct links *ls)
{
	struct list *e;

	LIST_EACH(e, &ls->all)
	{
		struct link *l = LIST_ITEM(e, struct link, node);

		if (l->state == LINK_DIALLING && !l->began)
			dial_begin(l);
	}
}

/* Their hello came while our own dial to the same kernel was as far; now one of both may be
 * settled. */
static void settle_parked(struct links *ls)
{
	struct list *e;

	LIST_EACH(e, &ls->all)
	{
		struct link *l = LIST_ITEM(e, struct link, node);
		struct errmsg em = { "" };
		int rc;

		if (l->state != LINK_PARKED)
			continue;
		rc = link_decide(l, &em);
		if (rc < 0 && rc != ERR_AGAIN)
			link_refuse(l, rc, err_show(rc, &em));
	}
}

static void tell_dial_failed(struct links *ls, struct peer *p)
{
	static struct log_rate rate;

	p->failed = false;
	if (log_rate_ok(&rate, 5))
		log_notice("dial failed", KV_STR("peer", p->name),
			KV_STR("error", err_word(p->rc)), KV_STR("reason", p->why));
	ls->stats.failed++;
	if (!p->asked)
		return;
	p->asked = false;
	ls->cb->dial_failed(ls->arg, p->name, p->rc, p->why);
}

static size_t count_dials(const struct links *ls)
{
	size_t n = 0;
	struct list *e;

	LIST_EACH(e, &ls->peers)
	n += LIST_ITEM(e, struct peer, node)->dial != NULL;
	return n;
}

static void dial_peer(struct links *ls, struct peer *p)
{
	struct link *l = link_new(ls, LINK_KERNEL, true);

	l->dialled = true;
	l->state = LINK_DIALLING;
	text_copy(l->wanted, sizeof(l->wanted), p->name, strlen(p->name));
	text_copy(l->name, sizeof(l->name), p->name, strlen(p->name));
	p->dial = l;
	p->retry_at_ms = 0;
	ls->stats.dialled++;
	links_wake(ls);
}

static void tick_peers(struct links *ls, int64_t now)
{
	size_t dials = count_dials(ls);
	struct list *e;

	LIST_EACH(e, &ls->peers)
	{
		struct peer *p = LIST_ITEM(e, struct peer, node);

		if (p->failed)
			tell_dial_failed(ls, p);
		if (p->retry_at_ms == 0 || ls->closing)
			continue;
		if (p->up || p->dial || !p->want)
			p->retry_at_ms = 0;
		else if (now < p->retry_at_ms)
			links_due(ls, p->retry_at_ms - now);
		else if (dials < ls->config.max_handshakes) {
			dials++;
			dial_peer(ls, p);
		} else
			links_due(ls, BACKOFF_FIRST_MS);
	}
}

static void reap(struct links *ls)
{
	struct list *e, *next;

	LIST_EACH_SAFE(e, next, &ls->all)
	{
		struct link *l = LIST_ITEM(e, struct link, node);

		if (l->state == LINK_DEAD && l->n_conns == 0 && !l->looking &&
			(!l->told_up || l->told_down))
			link_free(l);
	}
	LIST_EACH_SAFE(e, next, &ls->peers)
	{
		struct peer *p = LIST_ITEM(e, struct peer, node);

		if (p->up || p->dial || p->failed || (p->want && !ls->closing))
			continue;
		list_del(&p->node);
		map_del_str(ls->by_name, p->name);
		free(p);
	}
}

static void links_free(struct links *ls)
{
	void (*closed)(void *arg) = ls->closed;
	void *arg = ls->closed_arg;

	timer_stop(ls->tick);
	map_free(ls->by_name);
	ls->tag = 0;
	free(ls);
	closed(arg);
}

static void tick(void *arg)
{
	struct links *ls = TAGGED(arg, struct links, LINKS_TAG);
	int64_t now = clock_ms();
	struct list *e;

	ls->tick_in_ms = TICK_LONGEST_MS;
	timer_again(ls->tick, TICK_LONGEST_MS); /* links_wake() below may make it sooner */
	begin_dials(ls);
	LIST_EACH(e, &ls->all)
	link_tick(LIST_ITEM(e, struct link, node), now);
	settle_parked(ls);
	links_tell_downs(ls);
	tick_peers(ls, now);
	reap(ls);
	if (ls->closing && ls->handles == 0 && list_empty(&ls->all) && list_empty(&ls->peers)) {
		links_free(ls);
		return;
	}
	if (ls->tick_in_ms < timer_due_ms(ls->tick))
		timer_again(ls->tick, ls->tick_in_ms);
}

/* ---- peers */

struct peer *links_peer(struct links *ls, const char *name)
{
	return map_find_str(ls->by_name, name);
}

struct peer *links_peer_get(struct links *ls, const char *name)
{
	struct peer *p = links_peer(ls, name);

	if (p)
		return p;
	p = mem_new(struct peer);
	p->tag = PEER_TAG;
	text_copy(p->name, sizeof(p->name), name, strlen(name));
	list_add(&ls->peers, &p->node);
	map_put_str(ls->by_name, p->name, p);
	return p;
}

/* Half of the wait is chance, so that a hundred peers of a kernel that restarts don't come as
 * one. */
static int64_t jitter(uint32_t ms)
{
	uint32_t r;

	random_bytes(&r, sizeof(r));
	return (int64_t)(ms / 2) + (int64_t)(r % (ms / 2 + 1));
}

static void retry_later(struct links *ls, struct peer *p)
{
	if (!p->want || ls->closing)
		return;
	p->backoff_ms = p->backoff_ms == 0 ? BACKOFF_FIRST_MS : p->backoff_ms * 2;
	if (p->backoff_ms > BACKOFF_LAST_MS)
		p->backoff_ms = BACKOFF_LAST_MS;
	p->retry_at_ms = clock_ms() + jitter(p->backoff_ms);
}

void links_dial_ended(struct links *ls, struct link *l)
{
	struct peer *p = l->kind == LINK_KERNEL ? links_peer(ls, l->name) : NULL;
	bool was_up = p && p->up == l, was_dial = p && p->dial == l;

	if (!was_up && !was_dial)
		return;
	if (was_up)
		p->up = NULL;
	if (was_dial)
		p->dial = NULL;
	if (p->up)
		return;
	if (was_up && clock_ms() - l->since_ms >= STEADY_MS)
		p->backoff_ms = 0;
	if (was_dial) {
		p->failed = true;
		p->rc = l->rc;
		snprintf(p->why, sizeof(p->why), "%s", l->why);
	}
	retry_later(ls, p);
}

static int peer_name_check(const struct links *ls, const char *name)
{
	size_t n = strlen(name);

	if (n == 0 || n > CERT_NAME_MAX || strcmp(name, ls->config.name) == 0)
		return ERR_NAME;
	return ls->closing ? ERR_CLOSED : 0;
}

int links_dial(struct links *ls, const char *name)
{
	struct peer *p = links_peer(ls, name);
	int rc = peer_name_check(ls, name);

	if (rc < 0)
		return rc;
	if (p && p->up)
		return 0;
	if (p && p->dial) {
		p->asked = true;
		return 0;
	}
	if (count_dials(ls) >= ls->config.max_handshakes)
		return ERR_LIMIT;
	p = links_peer_get(ls, name);
	p->asked = true;
	dial_peer(ls, p);
	return 0;
}

void links_want(struct links *ls, const char *name, bool want)
{
	struct peer *p = links_peer(ls, name);

	if (peer_name_check(ls, name) < 0 || (!p && !want))
		return;
	p = p ? p : links_peer_get(ls, name);
	p->want = want;
	if (!want) {
		p->retry_at_ms = 0;
		p->backoff_ms = 0;
	} else if (!p->up && !p->dial && p->retry_at_ms == 0) {
		p->retry_at_ms = clock_ms();
	}
	links_wake(ls);
}

struct link *links_find(struct links *ls, const char *name)
{
	struct peer *p = links_peer(ls, name);

	return p && p->up && p->up->state == LINK_UP ? p->up : NULL;
}

struct link *links_next(struct links *ls, struct link *after)
{
	struct list *e = after ? after->node.next : ls->all.next;

	for (; e != &ls->all; e = e->next) {
		struct link *l = LIST_ITEM(e, struct link, node);

		if (l->state == LINK_UP)
			return l;
	}
	return NULL;
}

void links_stats(const struct links *ls, struct links_stats *out)
{
	struct list *e;

	*out = ls->stats;
	LIST_EACH(e, &ls->all)
	{
		const struct link *l = LIST_ITEM(e, struct link, node);

		if (l->told_up)
			link_flow_add(l, &out->flow[l->kind]);
	}
}

/* ---- listening */

/* Strangers that never finish must not keep the others out: beyond the bound the oldest one
 * makes room, for an honest handshake is over long before it is the oldest. Nor must those that
 * were refused and don't close: they have no last words where their number counts. Local ones
 * are counted for themselves: whoever floods the port does not keep the owner from killing a
 * carrier. */
static bool make_room(struct links *ls, bool local)
{
	struct link *oldest = NULL, *ending = NULL;
	size_t n = 0, n_ending = 0;
	struct list *e;

	LIST_EACH(e, &ls->all)
	{
		struct link *l = LIST_ITEM(e, struct link, node);

		if (l->dialled || l->told_up || l->state == LINK_UP || l->state == LINK_DEAD ||
			(l->kind == LINK_LOCAL) != local)
			continue;
		n++;
		if (l->state == LINK_CLOSING) {
			n_ending++;
			if (l->conn && (!ending || l->since_ms < ending->since_ms))
				ending = l;
		} else if (!oldest || l->since_ms < oldest->since_ms) {
			oldest = l;
		}
	}
	if (n < ls->config.max_handshakes)
		return true;
	if (ending)
		conn_close(ending->conn, ending->rc, NULL);
	if (n > 2 * ls->config.max_handshakes)
		return false;
	if (n - n_ending < ls->config.max_handshakes)
		return true;
	if (!oldest || clock_ms() - oldest->since_ms < EVICT_AFTER_MS)
		return false;
	link_refuse(oldest, ERR_LIMIT, "too many connections that are not finished");
	return true;
}

/* An accepted connection has to be taken from the listener, wanted or not. */
static void drop_connection(struct links *ls, uv_stream_t *listener);

static void name_peer(struct link *l)
{
	struct sockaddr_storage sa;
	socklen_t n = sizeof(sa);
	char ip[64] = "?";

	memset(&sa, 0, sizeof(sa));
	if (getpeername(conn_fd(l->conn), (struct sockaddr *)&sa, &n) < 0)
		memset(&sa, 0, sizeof(sa));
	if (sa.ss_family == AF_INET6) {
		uv_ip6_name((struct sockaddr_in6 *)&sa, ip, sizeof(ip));
		snprintf(l->address, sizeof(l->address), "[%s]:%u", ip,
			ntohs(((struct sockaddr_in6 *)&sa)->sin6_port));
	} else if (sa.ss_family == AF_INET) {
		uv_ip4_name((struct sockaddr_in *)&sa, ip, sizeof(ip));
		snprintf(l->address, sizeof(l->address), "%s:%u", ip,
			ntohs(((struct sockaddr_in *)&sa)->sin_port));
	} else {
		snprintf(l->address, sizeof(l->address), "unix");
	}
}

static void name_user(struct link *l)
{
	struct ucred who = { 0, (uid_t)-1, (gid_t)-1 };
	socklen_t n = sizeof(who);

	getsockopt(conn_fd(l->conn), SOL_SOCKET, SO_PEERCRED, &who, &n);
	l->uid = who.uid;
	l->pid = who.pid;
	snprintf(l->name, sizeof(l->name), "uid %u", (unsigned)who.uid);
}

static void accept_one(struct links *ls, uv_stream_t *listener, bool local)
{
	struct link *l;
	int rc;

	if (ls->closing || !make_room(ls, local)) {
		ls->stats.refused++;
		drop_connection(ls, listener);
		return;
	}
	ls->stats.accepted++;
	l = link_new(ls, local ? LINK_LOCAL : LINK_KERNEL, !local);
	l->state = local ? LINK_GREETING : LINK_SECURING;
	l->deadline_ms = l->since_ms + ls->config.handshake_ms;
	rc = conn_new(ls->loop, local ? CONN_UNIX : CONN_TCP, &link_conn_callbacks, l, &l->conn,
		NULL);
	if (rc < 0) {
		drop_connection(ls, listener);
		link_end(l, rc, err_text(rc));
		return;
	}
	l->n_conns++;
	rc = conn_accept(l->conn, listener, NULL);
	if (rc < 0) {
		conn_close(l->conn, rc, NULL);
		return;
	}
	name_peer(l);
	if (local)
		name_user(l);
	link_connected(l);
}

static void on_tcp(uv_stream_t *listener, int status)
{
	if (status == 0)
		accept_one(TAGGED(listener->data, struct links, LINKS_TAG), listener, false);
}

static void on_local(uv_stream_t *listener, int status)
{
	if (status == 0)
		accept_one(TAGGED(listener->data, struct links, LINKS_TAG), listener, true);
}

static void dropped(void *arg, struct conn *c, int rc, const char *why)
{
	(void)arg;
	(void)c;
	(void)rc;
	(void)why;
}

static void drop_connection(struct links *ls, uv_stream_t *listener)
{
	static const struct conn_callbacks cb = { .closed = dropped };
	struct conn *c;

	if (conn_new(ls->loop, listener->type == UV_TCP ? CONN_TCP : CONN_UNIX, &cb, NULL, &c,
		    NULL) < 0)
		return;
	conn_accept(c, listener, NULL);
	conn_close(c, ERR_LIMIT, NULL);
}

static void on_listener_closed(uv_handle_t *handle)
{
	struct links *ls = TAGGED(handle->data, struct links, LINKS_TAG);

	ls->handles--;
	links_wake(ls);
}

int links_listen_tcp(struct links *ls, int fd, struct errmsg *em)
{
	uv_tcp_t *tcp = &ls->tcp[ls->n_tcp];
	int rc;

	if (ls->n_tcp == LINK_LISTENERS || ls->closing)
		return err_set(em, ERR_LIMIT, "too many listening sockets");
	rc = uv_tcp_init(ls->loop, tcp);
	if (rc < 0)
		return err_set(em, err_from_uv(rc), "cannot listen: %s", uv_strerror(rc));
	tcp->data = ls;
	ls->handles++;
	ls->n_tcp++;
	rc = uv_tcp_open(tcp, fd);
	if (rc == 0)
		rc = uv_listen((uv_stream_t *)tcp, BACKLOG, on_tcp);
	/* on failure the handle stays until links_close(): it can't be used again before it is
	 * closed */
	return rc < 0 ? err_set(em, err_from_uv(rc), "cannot listen: %s", uv_strerror(rc)) : 0;
}

/* A path too long for sun_path goes through its folder's descriptor; *dir stays open meanwhile.
 */
static int local_address(const char *path, struct sockaddr_un *sa, int *dir, struct errmsg *em)
{
	const char *slash = strrchr(path, '/');
	AUTOFREE char *folder = NULL;

	*dir = -1;
	memset(sa, 0, sizeof(*sa));
	sa->sun_family = AF_UNIX;
	if (strlen(path) < sizeof(sa->sun_path)) {
		snprintf(sa->sun_path, sizeof(sa->sun_path), "%s", path);
		return 0;
	}
	if (!slash || strlen(slash) > 64)
		return err_set(em, ERR_TOO_LARGE, "%s: too long for a socket", path);
	folder = mem_dup(path, (size_t)(slash - path));
	*dir = open(*folder ? folder : "/", O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (*dir < 0)
		return err_errno(em, "cannot open %s", folder);
	snprintf(sa->sun_path, sizeof(sa->sun_path), "/proc/self/fd/%d%s", *dir, slash);
	return 0;
}

/* A socket file outlives its kernel; only one that nobody answers at may be replaced. */
static int remove_stale(const char *path, const struct sockaddr_un *sa, struct errmsg *em)
{
	AUTOCLOSE int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	struct stat st;

	if (lstat(path, &st) < 0)
		return errno == ENOENT ? 0 : err_errno(em, "%s", path);
	if (!S_ISSOCK(st.st_mode))
		return err_set(em, ERR_EXISTS, "%s is there and no socket", path);
	if (fd < 0)
		return err_errno(em, "cannot make a socket");
	if (connect(fd, (const struct sockaddr *)sa, sizeof(*sa)) == 0 || errno == EAGAIN)
		return err_set(em, ERR_EXISTS, "another kernel listens on %s", path);
	if (unlink(path) < 0 && errno != ENOENT)
		return err_errno(em, "cannot replace %s", path);
	return 0;
}

static int bind_local(const char *path, struct errmsg *em)
{
	AUTOCLOSE int fd = -1;
	AUTOCLOSE int dir = -1;
	struct sockaddr_un sa;
	int rc = local_address(path, &sa, &dir, em);

	if (rc == 0)
		rc = remove_stale(path, &sa, em);
	if (rc < 0)
		return rc;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return err_errno(em, "cannot make a socket");
	if (bind(fd, (const struct sockaddr *)&sa, sizeof(sa)) < 0)
		return err_errno(em, "cannot bind %s", path);
	/* Whoever may reach the folder may connect; who it is the socket tells us. */
	if (chmod(path, 0666) < 0)
		return err_errno(em, "cannot set the mode of %s", path);
	rc = fd;
	fd = -1; /* NOLINT(clang-analyzer-deadcode.DeadStores): AUTOCLOSE reads it */
	return rc;
}

int links_listen_local(struct links *ls, const char *path, struct errmsg *em)
{
	int fd, rc;

	must(!ls->local_open && !ls->closing);
	if (strlen(path) >= sizeof(ls->local_path))
		return err_set(em, ERR_TOO_LARGE, "%s: too long for a socket", path);
	fd = bind_local(path, em);
	if (fd < 0)
		return fd;
	rc = uv_pipe_init(ls->loop, &ls->local, 0);
	if (rc == 0) {
		ls->local.data = ls;
		ls->handles++;
		rc = uv_pipe_open(&ls->local, fd);
		if (rc < 0)
			mem_close(fd);
		else
			rc = uv_listen((uv_stream_t *)&ls->local, BACKLOG, on_local);
	} else {
		mem_close(fd);
		return err_set(em, err_from_uv(rc), "cannot listen: %s", uv_strerror(rc));
	}
	if (rc < 0) {
		uv_close((uv_handle_t *)&ls->local, on_listener_closed);
		return err_set(em, err_from_uv(rc), "cannot listen: %s", uv_strerror(rc));
	}
	snprintf(ls->local_path, sizeof(ls->local_path), "%s", path);
	ls->local_open = true;
	return 0;
}

/* ---- beginning and end */

int links_new(uv_loop_t *loop, const struct links_config *c, struct tls_context *tls,
	const struct link_callbacks *cb, void *arg, struct links **out, struct errmsg *em)
{
	struct links *ls;

	if (c->name[0] == 0 || c->handshake_ms == 0 || c->ping_ms == 0 || c->silent_ms == 0 ||
		c->credit_posts == 0 || c->credit_chunks == 0 ||
		c->queue_bytes < FRAME_BYTES_MAX)
		return err_set(em, ERR_CONFIG,
			"links: a limit is 0 or the queue smaller than a frame");
	ls = mem_new(struct links);
	ls->tag = LINKS_TAG;
	ls->loop = loop;
	ls->config = *c;
	ls->tls = tls;
	ls->cb = cb;
	ls->arg = arg;
	list_init(&ls->all);
	list_init(&ls->peers);
	ls->by_name = map_new();
	ls->tick = timer_start(loop, TICK_LONGEST_MS, 0, tick, ls);
	*out = ls;
	return 0;
}

void links_close(struct links *ls, void (*closed)(void *arg), void *arg)
{
	struct list *e;

	must(!ls->closing);
	ls->closing = true;
	ls->closed = closed;
	ls->closed_arg = arg;
	for (size_t i = 0; i < ls->n_tcp; i++)
		uv_close((uv_handle_t *)&ls->tcp[i], on_listener_closed);
	if (ls->local_open) {
		unlink(ls->local_path);
		uv_close((uv_handle_t *)&ls->local, on_listener_closed);
	}
	LIST_EACH(e, &ls->all)
	link_end(LIST_ITEM(e, struct link, node), ERR_CLOSED, "the kernel stops");
	links_wake(ls);
}
