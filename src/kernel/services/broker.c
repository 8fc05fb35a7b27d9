/* Connections for isolated extensions: see broker.h. */
#include "kernel/services/broker.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "core/place.h"

#define DIALS_MAX    128
#define CONNECT_MS   60000u
#define CA_BYTES     ((size_t)1 << 20)
#define AUDITS_PER_S 20

struct dial {
	struct list node;
	uv_poll_t poll;
	uv_getaddrinfo_t lookup;
	struct kernel *k;
	char key[96], ext[64], host[256];
	uint32_t life;
	uint64_t number;
	uint16_t port;
	bool private_ok, looking, polling, ended, handing;
	struct addrinfo *found, *next;
	int fd;
	int64_t deadline_ms;
	struct errmsg em; /* of the last address */
	char address[INET6_ADDRSTRLEN + 8];
};

static struct list dials; /* of this process's one kernel */
static size_t n_dials;
static struct log_rate rate_audit, rate_refused; /* what they say, and what is seen here */

/* ---- the end of one */

static void dial_free(struct dial *d)
{
	list_del(&d->node);
	n_dials--;
	if (d->found)
		freeaddrinfo(d->found);
	mem_close(d->fd);
	free(d);
}

static void on_poll_closed(uv_handle_t *h)
{
	dial_free(h->data);
}

/* Its handles end first. */
static void dial_drop(struct dial *d)
{
	if (d->looking) {
		uv_cancel((uv_req_t *)&d->lookup);
		return; /* on_lookup comes */
	}
	if (d->polling) {
		d->polling = false;
		uv_poll_stop(&d->poll);
		uv_close((uv_handle_t *)&d->poll, on_poll_closed);
		return;
	}
	dial_free(d);
}

/* Told, or told as soon as there is room. */
static void dial_end(struct dial *d, int rc, const char *text)
{
	if (d->ended)
		return;
	if (d->k->stopping) { /* the extensions may be gone */
		d->ended = true;
		dial_drop(d);
		return;
	}
	if (rc == 0 && ext_connected(d->k->exts, d->key, d->life, d->number, 0, text, d->fd) ==
			       ERR_AGAIN) {
		d->handing = true; /* broker_tick() */
		return;
	}
	if (rc < 0)
		ext_connected(d->k->exts, d->key, d->life, d->number, rc, text, -1);
	d->ended = true;
	dial_drop(d);
}

static void audit_row(struct kernel *k, struct log_rate *rate, const char *ext,
	const char *event, const struct tos_value *map);

static void refused(struct kernel *k, const char *ext, const char *host, uint16_t port,
	const char *address, const char *why)
{
	struct tos_value *m = tos_map();

	metric_add(k->metrics, "extension_connects_refused_total", NULL, 1);
	tos_set(m, "host", tos_text(host));
	tos_set(m, "port", tos_int(port));
	if (address[0])
		tos_set(m, "address", tos_text(address));
	tos_set(m, "text", tos_text(why));
	audit_row(k, &rate_refused, ext, "connect-refused", m);
	tos_value_free(m);
}

/* ---- connecting */

static void dial_next(struct dial *d);

static void numeric_text(const struct addrinfo *a, char out[INET6_ADDRSTRLEN + 8])
{
	char host[INET6_ADDRSTRLEN] = "?";

	getnameinfo(a->ai_addr, a->ai_addrlen, host, sizeof(host), NULL, 0, NI_NUMERICHOST);
	snprintf(out, INET6_ADDRSTRLEN + 8, "%s", host);
}

static void on_poll(uv_poll_t *p, int status, int events)
{
	struct dial *d = p->data;
	int error = 0;
	socklen_t n = sizeof(error);

	(void)events;
	if (d->ended || d->handing)
		return;
	/* Also where the loop says no more than that something is wrong. */
	if (getsockopt(d->fd, SOL_SOCKET, SO_ERROR, &error, &n) < 0)
		error = errno;
	else if (error == 0 && status < 0)
		error = EIO;
	uv_poll_stop(p);
	if (error == 0) {
		metric_add(d->k->metrics, "extension_connects_total", NULL, 1);
		dial_end(d, 0, d->address);
		return;
	}
	err_set(&d->em, ERR_UNREACHABLE, "%s (%s) port %u: %s", d->host, d->address, d->port,
		strerror(error));
	/* A poll handle is bound to its descriptor: the next address gets a dial of its own. */
	if (d->next) {
		struct dial *e = mem_new(struct dial);

		*e = *d;
		e->polling = false;
		e->fd = -1;
		list_add(&dials, &e->node);
		n_dials++;
		d->found = d->next = NULL;
		d->ended = true;
		dial_drop(d);
		dial_next(e);
		return;
	}
	dial_end(d, ERR_UNREACHABLE, d->em.text);
}

static int dial_one(struct dial *d, const struct addrinfo *a)
{
	int rc;

	d->fd = socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (d->fd < 0)
		return -errno;
	rc = connect(d->fd, a->ai_addr, a->ai_addrlen);
	if (rc < 0 && errno != EINPROGRESS)
		rc = -errno;
	else
		rc = uv_poll_init(d->k->loop, &d->poll, d->fd);
	if (rc < 0) {
		mem_close(d->fd);
		d->fd = -1;
		return rc;
	}
	d->poll.data = d;
	d->polling = true;
	uv_poll_start(&d->poll, UV_WRITABLE, on_poll);
	return 0;
}

static void dial_next(struct dial *d)
{
	while (d->next) {
		struct addrinfo *a = d->next;
		int rc;

		d->next = a->ai_next;
		numeric_text(a, d->address);
		if (!d->private_ok && address_private(a->ai_addr)) {
			err_set(&d->em, ERR_DENIED,
				"%s leads to %s, a private address: its place does not say private",
				d->host, d->address);
			refused(d->k, d->ext, d->host, d->port, d->address, d->em.text);
			dial_end(d, ERR_DENIED, d->em.text);
			return;
		}
		rc = dial_one(d, a);
		if (rc == 0)
			return;
		err_set(&d->em, ERR_UNREACHABLE, "%s (%s) port %u: %s", d->host, d->address,
			d->port, strerror(-rc));
	}
	dial_end(d, ERR_UNREACHABLE, d->em.text[0] ? d->em.text : "no address");
}

static void on_lookup(uv_getaddrinfo_t *q, int status, struct addrinfo *res)
{
	struct dial *d = q->data;

	d->looking = false;
	d->found = d->next = res;
	if (d->ended) {
		dial_drop(d);
	} else if (status < 0) {
		err_set(&d->em, ERR_UNREACHABLE, "%s: %s", d->host, uv_strerror(status));
		dial_end(d, ERR_UNREACHABLE, d->em.text);
	} else {
		dial_next(d);
	}
}

/* ---- asking */

static struct config_extension *extension_of(struct kernel *k, const char *name)
{
	return config_extension(&k->config, name);
}

static bool host_same(const char *a, const char *b)
{
	size_t n = strlen(a);

	return n == strlen(b) && strncasecmp(a, b, n) == 0;
}

static bool is_address(const char *host)
{
	struct in6_addr a;

	return inet_pton(AF_INET, host, &a) == 1 || inet_pton(AF_INET6, host, &a) == 1;
}

/* A place of that host and port; *private_ok: an address that the place itself names may be
 * private. */
static bool place_allows(
	const struct config_extension *x, const char *host, uint16_t port, bool *private_ok)
{
	bool found = false;

	*private_ok = false;
	for (size_t i = 0; x && i < x->n_places; i++) {
		struct place p;

		if (place_parse(x->places[i], &p, NULL) < 0 || strcmp(p.scheme, "tos") == 0 ||
			p.port != port || !host_same(p.host, host))
			continue;
		found = true;
		*private_ok |= p.private || is_address(p.host);
	}
	return found;
}

void broker_connect(void *arg, const char *key, const char *ext, uint32_t life, uint64_t number,
	const char *host, uint16_t port, uint32_t timeout_ms)
{
	struct kernel *k = arg;
	struct addrinfo hint = { .ai_socktype = SOCK_STREAM,
		.ai_flags =
			AI_NUMERICSERV | (is_address(host) ? AI_NUMERICHOST : AI_ADDRCONFIG) };
	struct errmsg em;
	bool private_ok;
	char service[8];
	struct dial *d;
	int rc;

	if (!dials.next)
		list_init(&dials);
	if (!place_allows(extension_of(k, ext), host, port, &private_ok)) {
		err_set(&em, ERR_DENIED, "no place of extension %s is %s port %u", ext, host,
			port);
		refused(k, ext, host, port, "", em.text);
		ext_connected(k->exts, key, life, number, ERR_DENIED, em.text, -1);
		return;
	}
	if (n_dials >= DIALS_MAX) {
		ext_connected(k->exts, key, life, number, ERR_FULL,
			"too many connections are being made", -1);
		return;
	}
	d = mem_new(struct dial);
	d->k = k;
	snprintf(d->key, sizeof(d->key), "%s", key);
	snprintf(d->ext, sizeof(d->ext), "%s", ext);
	snprintf(d->host, sizeof(d->host), "%s", host);
	d->life = life;
	d->number = number;
	d->port = port;
	d->private_ok = private_ok;
	d->fd = -1;
	d->deadline_ms =
		clock_ms() + (timeout_ms && timeout_ms < CONNECT_MS ? timeout_ms : CONNECT_MS);
	list_add(&dials, &d->node);
	n_dials++;
	snprintf(service, sizeof(service), "%u", port);
	d->lookup.data = d;
	rc = uv_getaddrinfo(k->loop, &d->lookup, on_lookup, host, service, &hint);
	d->looking = rc == 0;
	if (rc < 0)
		dial_end(d, ERR_UNREACHABLE, uv_strerror(rc));
}

void broker_tick(struct kernel *k, int64_t now_ms)
{
	struct list *pos, *tmp;

	(void)k;
	if (!dials.next)
		return;
	LIST_EACH_SAFE(pos, tmp, &dials)
	{
		struct dial *d = LIST_ITEM(pos, struct dial, node);

		if (d->ended)
			continue;
		if (d->handing) {
			d->handing = false;
			dial_end(d, 0, d->address);
		} else if (now_ms >= d->deadline_ms) {
			err_set(&d->em, ERR_TIMEOUT, "%s port %u did not answer in time",
				d->host, d->port);
			dial_end(d, ERR_TIMEOUT, d->em.text);
		}
	}
}

/* ---- what an extension is told, and what it tells */

static void ca_read(const char *path, struct buf *out)
{
	AUTOCLOSE int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	uint8_t bytes[16384];
	ssize_t n;

	while (fd >= 0 && (n = read(fd, bytes, sizeof(bytes))) > 0)
		buf_add(out, bytes, (size_t)n);
}

struct tos_value *broker_outside(void *arg, const char *ext)
{
	static const char *const usual[] = { "/etc/ssl/certs/ca-certificates.crt",
		"/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem" };
	const struct config_extension *x = extension_of(arg, ext);
	struct tos_value *m, *places;
	AUTOBUF pem = BUF_MAX(CA_BYTES);

	if (!x)
		return NULL;
	m = tos_map();
	places = tos_array();
	for (size_t i = 0; i < x->n_places; i++)
		tos_push(places, tos_text(x->places[i]));
	tos_set(m, "places", places);
	if (x->ca[0])
		ca_read(x->ca, &pem);
	for (size_t i = 0; !x->ca[0] && i < ARRAY_LEN(usual) && pem.len == 0; i++)
		ca_read(usual[i], &pem);
	if (x->ca[0] && pem.len == 0)
		log_warning("certificates of authorities can't be read: no https will work",
			KV_STR("extension", x->name), KV_STR("file", x->ca));
	if (buf_check(&pem) == 0)
		tos_set(m, "trusted",
			tos_bytes(pem.data ? pem.data : (const uint8_t *)"", pem.len));
	return m;
}

static void audit_row(struct kernel *k, struct log_rate *rate, const char *ext,
	const char *event, const struct tos_value *map)
{
	struct tos_value *m;

	if (!log_rate_ok(rate, AUDITS_PER_S)) {
		metric_add(k->metrics, "audit_rows_dropped_total", NULL, 1);
		return;
	}
	m = tos_value_copy(map);
	tos_set(m, "extension", tos_text(ext));
	log_notice("extension's audit", KV_STR("extension", ext), KV_STR("event", event),
		KV_STR("text", tos_get_text(m, "text", "")));
	audit_event(k, NULL, event, m);
}

/* What an extension tells is told in its own name: no row of it looks like one of the kernel's. */
static void event_name(const char *ext, const char *event, char out[160])
{
	size_t n = 0;

	for (; ext[n] && n < 64; n++)
		out[n] = (char)(ext[n] >= 'A' && ext[n] <= 'Z' ? ext[n] - 'A' + 'a' : ext[n]);
	out[n++] = '-';
	if (strncmp(event, out, n) == 0)
		n = 0;
	snprintf(out + n, 160 - n, "%s", event);
}

void broker_audit(void *arg, const char *ext, const char *event, const struct tos_value *map)
{
	struct kernel *k = arg;
	char name[160];

	metric_add(k->metrics, "extension_audits_total", NULL, 1);
	event_name(ext, event, name);
	audit_row(k, &rate_audit, ext, name, map);
}

bool broker_may_admit(struct kernel *k, const char *sender)
{
	const char *slash = strchr(sender, '/');
	const struct config_extension *x = extension_of(k, slash ? slash + 1 : sender);

	for (size_t i = 0; x && i < x->n_places; i++) {
		struct place p;

		if (place_parse(x->places[i], &p, NULL) == 0 && p.admit)
			return true;
	}
	return false;
}
