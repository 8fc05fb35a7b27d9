/* Listening sockets and directories of isolated extensions: see grants.h. */
#include "kernel/services/grants.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/text.h"
#include "ext/body.h"

#define ASKS_MAX   256 /* of one extension */
#define ACCEPT_MS  60000u
#define BACKLOG    64
#define ROWS_PER_S 5

/* An extension wants the next connection. */
struct ask {
	struct list node;
	char key[EXT_KEY_BYTES];
	uint32_t life;
	uint64_t number;
	int64_t deadline_ms;
};

struct listener {
	struct list node;
	uv_poll_t poll;
	struct kernel *k;
	char ext[64], address[TOSD_NAME_BYTES];
	int fd;
	int came; /* accepted, and to be handed over to whoever asks first; else -1 */
	char peer[64];
	bool polling, closing;
	struct list asks;
	size_t n_asks;
};

static struct list listeners; /* of this process's one kernel */
static size_t n_listeners;
static struct log_rate rate_refused;

static struct listener *listener_of(const char *ext)
{
	struct list *pos;

	if (!listeners.next)
		list_init(&listeners);
	LIST_EACH(pos, &listeners)
	{
		struct listener *l = LIST_ITEM(pos, struct listener, node);

		if (!l->closing && strcmp(l->ext, ext) == 0)
			return l;
	}
	return NULL;
}

static void ask_free(struct listener *l, struct ask *a)
{
	list_del(&a->node);
	l->n_asks--;
	free(a);
}

static void on_closed(uv_handle_t *h)
{
	struct listener *l = h->data;

	list_del(&l->node);
	mem_close(l->came);
	mem_close(l->fd);
	free(l);
}

static void listener_close(struct listener *l)
{
	struct list *pos, *tmp;

	LIST_EACH_SAFE(pos, tmp, &l->asks)
	ask_free(l, LIST_ITEM(pos, struct ask, node));
	l->closing = true;
	uv_poll_stop(&l->poll);
	uv_close((uv_handle_t *)&l->poll, on_closed);
	metric_set(l->k->metrics, "extension_listeners", NULL, (double)--n_listeners);
}

/* ---- opening */

static int address_of(const char *text, struct addrinfo **out)
{
	struct addrinfo hint = { .ai_flags = AI_NUMERICHOST | AI_NUMERICSERV | AI_PASSIVE,
		.ai_socktype = SOCK_STREAM };
	const char *colon = strrchr(text, ':'), *from = text;
	size_t n = colon ? (size_t)(colon - text) : 0;
	char host[TOSD_NAME_BYTES];

	if (n >= 2 && text[0] == '[' && text[n - 1] == ']') {
		from++;
		n -= 2;
	}
	if (!colon || text_copy(host, sizeof(host), from, n) < 0)
		return ERR_MALFORMED;
	return getaddrinfo(host, colon + 1, &hint, out) == 0 ? 0 : ERR_MALFORMED;
}

static int socket_open(const char *ext, const char *text, struct errmsg *em)
{
	AUTOCLOSE int fd = -1;
	struct addrinfo *a = NULL;
	int one = 1, rc = -1, mine;

	if (address_of(text, &a) < 0)
		return err_set(em, ERR_CONFIG, "listen of extension %s: '%s' is no address",
			ext, text);
	fd = socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd >= 0) {
		setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
		if (a->ai_family == AF_INET6)
			setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof(one));
		rc = bind(fd, a->ai_addr, a->ai_addrlen);
	}
	if (rc == 0)
		rc = listen(fd, BACKLOG);
	freeaddrinfo(a);
	if (rc == 0) {
		mine = fd;
		fd = -1; /* NOLINT(clang-analyzer-deadcode.DeadStores): AUTOCLOSE reads it */
		return mine;
	}
	if (errno == EADDRINUSE)
		return err_set(em, ERR_EXISTS,
			"%s is in use: stop what listens there, or change listen of extension %s",
			text, ext);
	if (errno == EADDRNOTAVAIL)
		return err_set(em, ERR_CONFIG,
			"%s is not an address of this host: change listen of extension %s",
			text, ext);
	if (errno == EACCES)
		return err_set(em, ERR_DENIED,
			"tos-kernel may not listen on %s: give extension %s a port above 1023",
			text, ext);
	return err_errno(em, "extension %s cannot listen on %s", ext, text);
}

static void audit_listen(struct kernel *k, const char *event, const char *ext,
	const char *address, int rc, const char *text)
{
	struct tos_value *m;

	if (rc < 0 && !log_rate_ok(&rate_refused, ROWS_PER_S)) {
		metric_add(k->metrics, "audit_rows_dropped_total", NULL, 1);
		return;
	}
	m = tos_map();
	tos_set(m, "extension", tos_text(ext));
	if (address && *address)
		tos_set(m, "address", tos_text(address));
	if (rc < 0) {
		tos_set(m, "code", tos_text(err_word(rc)));
		tos_set(m, "text", tos_text(text));
	}
	audit_event(k, NULL, event, m);
}

int grants_listen(void *arg, const char *ext, struct errmsg *em)
{
	struct kernel *k = arg;
	const struct config_extension *x = config_extension(&k->config, ext);
	struct listener *l = listener_of(ext);
	struct errmsg why = { "" };
	int fd;

	if (l || !x || !x->listen[0])
		return 0;
	fd = socket_open(ext, x->listen, &why);
	if (fd < 0) {
		metric_add(k->metrics, "extension_listens_refused_total", NULL, 1);
		audit_listen(k, "listen-refused", ext, x->listen, fd, err_show(fd, &why));
		return err_set(em, fd, "%s", err_show(fd, &why));
	}
	l = mem_new(struct listener);
	l->k = k;
	l->fd = fd;
	l->came = -1;
	list_init(&l->asks);
	text_copy(l->ext, sizeof(l->ext), ext, strlen(ext));
	snprintf(l->address, sizeof(l->address), "%s", x->listen);
	if (uv_poll_init(k->loop, &l->poll, fd) < 0) {
		mem_close(fd);
		free(l);
		return err_set(em, ERR_IO, "extension %s: its socket can't be watched", ext);
	}
	l->poll.data = l;
	list_add(&listeners, &l->node);
	metric_set(k->metrics, "extension_listeners", NULL, (double)++n_listeners);
	audit_listen(k, "extension-listens", ext, l->address, 0, "");
	log_notice(
		"extension listens", KV_STR("extension", ext), KV_STR("address", l->address));
	return 0;
}

/* ---- accepting */

static void poll_update(struct listener *l);

static void peer_text(const struct sockaddr_storage *a, socklen_t n, char out[64])
{
	char host[INET6_ADDRSTRLEN] = "?", port[8] = "?";

	getnameinfo((const struct sockaddr *)a, n, host, sizeof(host), port, sizeof(port),
		NI_NUMERICHOST | NI_NUMERICSERV);
	snprintf(out, 64, a->ss_family == AF_INET6 ? "[%s]:%s" : "%s:%s", host, port);
}

/* The first who may have one now; those of lives that are over are forgotten. */
static struct ask *ask_next(struct listener *l)
{
	struct list *pos, *tmp;

	LIST_EACH_SAFE(pos, tmp, &l->asks)
	{
		struct ask *a = LIST_ITEM(pos, struct ask, node);
		int may = ext_serves(l->k->exts, a->key, a->life);

		if (may < 0)
			ask_free(l, a);
		else if (may)
			return a;
	}
	return NULL;
}

/* What came goes to whoever asks first. Where a stream is full it stays here until the next tick, and
 * belongs to nobody: the version that asked may have been replaced by then. */
static void hand_over(struct listener *l)
{
	struct ask *a = l->came >= 0 ? ask_next(l) : NULL;

	if (!a || ext_connected(l->k->exts, a->key, a->life, a->number, 0, l->peer, l->came) ==
			  ERR_AGAIN)
		return;
	metric_add(l->k->metrics, "extension_accepts_total", NULL, 1);
	mem_close(l->came);
	l->came = -1;
	ask_free(l, a);
}

static void on_connection(uv_poll_t *p, int status, int events)
{
	struct listener *l = p->data;
	struct sockaddr_storage from = { 0 };
	socklen_t n = sizeof(from);
	bool wanted = !l->closing && l->came < 0 && ask_next(l);

	(void)events;
	if (wanted && status == 0) {
		l->came = accept4(
			l->fd, (struct sockaddr *)&from, &n, SOCK_CLOEXEC | SOCK_NONBLOCK);
		if (l->came < 0 && errno != EAGAIN && errno != ECONNABORTED && errno != EINTR) {
			log_warning("a connection can't be accepted",
				KV_STR("extension", l->ext), KV_STR("reason", strerror(errno)));
			uv_poll_stop(
				&l->poll); /* until the next tick: out of descriptors, say */
			l->polling = false;
			return;
		}
		if (l->came >= 0) {
			peer_text(&from, n, l->peer);
			hand_over(l);
		}
	}
	poll_update(l);
}

/* Only while somebody wants one: all others wait in the system's queue. */
static void poll_update(struct listener *l)
{
	bool wanted = !l->closing && l->came < 0 && ask_next(l);

	if (wanted && !l->polling)
		uv_poll_start(&l->poll, UV_READABLE, on_connection);
	else if (!wanted && l->polling)
		uv_poll_stop(&l->poll);
	l->polling = wanted;
}

void grants_accept(void *arg, const char *key, const char *ext, uint32_t life, uint64_t number,
	uint32_t timeout_ms)
{
	struct kernel *k = arg;
	struct listener *l = listener_of(ext);
	struct errmsg em = { "" };
	struct ask *a;

	if (!l) {
		err_set(&em, ERR_DENIED,
			"the configuration of %s names no address for extension %s to listen on",
			k->config.name, ext);
		metric_add(k->metrics, "extension_listens_refused_total", NULL, 1);
		audit_listen(k, "listen-refused", ext, NULL, ERR_DENIED, em.text);
		ext_connected(k->exts, key, life, number, ERR_DENIED, em.text, -1);
		return;
	}
	if (l->n_asks >= ASKS_MAX) {
		ext_connected(k->exts, key, life, number, ERR_FULL,
			"it asked for too many connections at once", -1);
		return;
	}
	a = mem_new(struct ask);
	a->life = life;
	a->number = number;
	a->deadline_ms =
		clock_ms() + (timeout_ms && timeout_ms < ACCEPT_MS ? timeout_ms : ACCEPT_MS);
	text_copy(a->key, sizeof(a->key), key, strlen(key));
	list_add(&l->asks, &a->node);
	l->n_asks++;
	hand_over(l);
	poll_update(l);
}

void grants_tick(struct kernel *k, int64_t now_ms)
{
	struct list *at, *next, *pos, *tmp;

	if (!listeners.next)
		return;
	LIST_EACH_SAFE(at, next, &listeners)
	{
		struct listener *l = LIST_ITEM(at, struct listener, node);

		if (l->closing)
			continue;
		hand_over(l);
		LIST_EACH_SAFE(pos, tmp, &l->asks)
		{
			struct ask *a = LIST_ITEM(pos, struct ask, node);

			if (now_ms >= a->deadline_ms) {
				ext_connected(k->exts, a->key, a->life, a->number, ERR_TIMEOUT,
					"nobody connected in time", -1);
				ask_free(l, a);
			}
		}
		poll_update(l); /* a version may have taken another's place */
	}
}

void grants_left(struct kernel *k, const char *ext)
{
	struct listener *l = listener_of(ext);

	if (!l || ext_has_name(k->exts, ext))
		return;
	log_notice("extension listens no more", KV_STR("extension", ext),
		KV_STR("address", l->address));
	listener_close(l);
}

/* ---- telling */

static bool has(const char *privileges, const char *word)
{
	return body_privileges_ok(word, privileges, NULL) == 0;
}

void grants_describe(struct kernel *k, const char *ext, struct tos_value *row)
{
	const struct config_extension *x = config_extension(&k->config, ext);
	const char *privileges = tos_get_text(row, "privileges", "");
	const struct listener *l = listener_of(ext);
	char path[TOSD_DIRECTORY_BYTES] = "";

	if (strcmp(tos_get_text(row, "where", ""), "isolated") != 0)
		return;
	if (has(privileges, "net-in"))
		tos_set(row, "listen", tos_text(l ? l->address : x ? x->listen : ""));
	if (!has(privileges, "directory"))
		return;
	tos_set(row, "directory_read_only", tos_bool(x && config_directory(x, path)));
	/* tos-kernel may see its state elsewhere; people don't. */
	tos_set(row, "directory",
		path[0] ? tos_text(path)
			: tos_textf("%.*s/extensions/%s",
				  (int)(strrchr(k->socket_path, '/') - k->socket_path),
				  k->socket_path, ext));
}

void grants_ready(struct kernel *k, const char *ext)
{
	struct tos_value *all = ext_describe(k->exts), *m;

	for (size_t i = 0; i < tos_len(all); i++) {
		struct tos_value *row = tos_at_mut(all, i);

		if (strcmp(tos_get_text(row, "name", ""), ext) != 0)
			continue;
		grants_describe(k, ext, row);
		if (!tos_get(row, "directory"))
			continue;
		m = tos_map();
		tos_set(m, "extension", tos_text(ext));
		tos_set(m, "directory", tos_value_copy(tos_get(row, "directory")));
		tos_set(m, "read_only", tos_value_copy(tos_get(row, "directory_read_only")));
		audit_event(k, NULL, "extension-directory", m);
		break;
	}
	tos_value_free(all);
}

/* For tos doctor: what may do more than speak to us, what it may, and whether it runs. */
void grants_checks(struct kernel *k, struct tos_value *checks)
{
	struct tos_value *all = ext_describe(k->exts);

	for (size_t i = 0; i < tos_len(all); i++) {
		struct tos_value *row = tos_at_mut(all, i), *m;
		const char *state = tos_get_text(row, "state", ""), *listen, *directory;
		bool ok = strcmp(state, "ready") == 0 || strcmp(state, "draining") == 0;

		if (!tos_get_text(row, "privileges", "")[0] ||
			strcmp(tos_get_text(row, "where", ""), "isolated") != 0)
			continue;
		grants_describe(k, tos_get_text(row, "name", ""), row);
		listen = tos_get_text(row, "listen", "");
		directory = tos_get_text(row, "directory", "");
		m = tos_map();
		tos_set(m, "name", tos_text("extension"));
		tos_set(m, "ok", tos_bool(ok));
		tos_set(m, "text",
			tos_textf("%s has %s%s%s%s%s%s%s", tos_get_text(row, "name", ""),
				tos_get_text(row, "privileges", ""),
				*listen ? ", listens on " : "", listen,
				!*directory ? ""
				: tos_get_bool(row, "directory_read_only", false)
					? ", reads in "
					: ", writes in ",
				directory, ok ? "" : "; ",
				ok ? "" : tos_get_text(row, "why", state)));
		tos_push(checks, m);
	}
	tos_value_free(all);
}
