/*
 * Dialling: from a kernel's name to a connection. The resolver callback gives addresses, names
 * among them are looked up (in libuv's threads; numbers are not, so a slow DNS holds nobody up
 * who has one), and each is tried in turn until TLS stands and the name is right.
 */
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/text.h"
#include "link/inside.h"

#define TRY_LEAST_MS 1000

/* "host:port" or "[v6]:port" */
static int split_target(const char *s, char *host, size_t cap, uint16_t *port)
{
	const char *colon = strrchr(s, ':');
	size_t n = colon ? (size_t)(colon - s) : 0;
	int64_t v;

	if (n == 0 || text_int(colon + 1, 1, 65535, &v) < 0)
		return ERR_MALFORMED;
	if (s[0] == '[' && s[n - 1] == ']') {
		s++;
		n -= 2;
	}
	*port = (uint16_t)v;
	return text_copy(host, cap, s, n);
}

static bool numeric(const char *host, uint16_t port, struct sockaddr_storage *out)
{
	return uv_ip4_addr(host, port, (struct sockaddr_in *)out) == 0 ||
	       uv_ip6_addr(host, port, (struct sockaddr_in6 *)out) == 0;
}

static void describe(struct link *l, const struct sockaddr_storage *sa)
{
	char ip[64] = "?";

	if (sa->ss_family == AF_INET6) {
		uv_ip6_name((const struct sockaddr_in6 *)sa, ip, sizeof(ip));
		snprintf(l->address, sizeof(l->address), "[%s]:%u", ip, l->port);
	} else {
		uv_ip4_name((const struct sockaddr_in *)sa, ip, sizeof(ip));
		snprintf(l->address, sizeof(l->address), "%s:%u", ip, l->port);
	}
}

static void on_found(uv_getaddrinfo_t *req, int status, struct addrinfo *res)
{
	struct link *l = TAGGED(req->data, struct link, LINK_TAG);

	l->looking = false;
	if (l->state != LINK_DIALLING) {
		uv_freeaddrinfo(res);
		links_wake(l->ls); /* it may be all that kept l */
		return;
	}
	for (struct addrinfo *a = res; a && l->n_found < LINK_ADDRESSES; a = a->ai_next) {
		struct sockaddr_storage *to = &l->found[l->n_found];

		if (a->ai_addrlen > sizeof(*to))
			continue;
		memcpy(to, a->ai_addr, a->ai_addrlen);
		if (a->ai_family == AF_INET)
			((struct sockaddr_in *)to)->sin_port = htons(l->port);
		else if (a->ai_family == AF_INET6)
			((struct sockaddr_in6 *)to)->sin6_port = htons(l->port);
		else
			continue;
		l->n_found++;
	}
	uv_freeaddrinfo(res);
	if (status < 0) {
		char why[300];

		snprintf(why, sizeof(why), "%s: %s", l->targets[l->target - 1],
			uv_strerror(status));
		dial_next(l, ERR_UNREACHABLE, why);
	} else {
		dial_next(l, 0, NULL);
	}
}

/* 0: the answer comes later */
static int look_up(struct link *l, const char *host)
{
	struct addrinfo hints = { .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM };
	int rc;

	l->lookup.data = l;
	rc = uv_getaddrinfo(l->ls->loop, &l->lookup, on_found, host, NULL, &hints);
	l->looking = rc == 0;
	return rc == 0 ? 0 : err_from_uv(rc);
}

/* 0: under way */
static int try_address(struct link *l, const struct sockaddr_storage *sa, struct errmsg *em)
{
	int64_t now = clock_ms(), left = l->deadline_ms - now;
	size_t more = l->n_targets - l->target + l->n_found - l->next_found;
	int64_t share = left / (int64_t)(more + 1);
	int rc;

	describe(l, sa);
	l->try_until_ms = now + (share > TRY_LEAST_MS ? share : TRY_LEAST_MS);
	rc = conn_new(l->ls->loop, CONN_TCP, &link_conn_callbacks, l, &l->conn, em);
	if (rc < 0)
		return rc;
	l->n_conns++;
	rc = conn_connect(l->conn, (const struct sockaddr *)sa, em);
	if (rc < 0) {
		conn_close(l->conn, rc, NULL);
		l->conn = NULL;
	}
	links_wake(l->ls); /* a new deadline */
	return rc;
}

/* The next target's addresses into l->found. 0: there are some; ERR_AGAIN: wait; else it is no
 * good. */
static int next_target(struct link *l)
{
	const char *target = l->targets[l->target++];
	char host[128];
	int rc = split_target(target, host, sizeof(host), &l->port);

	l->n_found = l->next_found = 0;
	l->try_until_ms = 0;
	if (rc < 0)
		return rc;
	if (numeric(host, l->port, &l->found[0])) {
		l->n_found = 1;
		return 0;
	}
	rc = look_up(l, host);
	return rc == 0 ? ERR_AGAIN : rc;
}

static void remember(struct link *l, int rc, const char *why)
{
	if (rc == 0)
		return;
	l->rc = rc;
	snprintf(l->why, sizeof(l->why), "%s", why && *why ? why : err_text(rc));
}

void dial_next(struct link *l, int rc, const char *why)
{
	struct errmsg em = { "" };

	remember(l, rc, why);
	while (clock_ms() < l->deadline_ms) {
		if (l->next_found < l->n_found) {
			rc = try_address(l, &l->found[l->next_found++], &em);
			if (rc == 0)
				return;
			remember(l, rc, em.text);
		} else if (l->target < l->n_targets) {
			rc = next_target(l);
			if (rc == ERR_AGAIN)
				return;
			remember(l, rc, l->targets[l->target - 1]);
		} else {
			break;
		}
	}
	if (l->rc == 0)
		remember(l, ERR_TIMEOUT, "no answer in time");
	link_end(l, l->rc, l->why);
}

void dial_begin(struct link *l)
{
	struct links *ls = l->ls;

	l->began = true;
	l->n_targets = ls->cb->resolve(ls->arg, l->wanted, l->targets, LINK_TARGETS);
	if (l->n_targets > LINK_TARGETS)
		l->n_targets = LINK_TARGETS;
	if (l->n_targets == 0)
		dial_next(l, ERR_UNREACHABLE, "no address is known for it");
	else
		dial_next(l, 0, NULL);
}
