/*
 * Joining a domain: one call ENROLL to the registrar's inbox, over TLS with a key that has no
 * certificate yet. The token's fingerprint is what makes the registrar believable; its secret
 * is what makes us so.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/text.h"
#include "lib/domain.h"
#include "lib/internal.h"
#include "seal/seal.h"

/* "host:port", "[::1]:port" */
static int split_address(const char *address, char host[128], char port[16])
{
	const char *colon = strrchr(address, ':');
	size_t n = colon ? (size_t)(colon - address) : 0;

	if (!colon || !n || n > 120 || strlen(colon + 1) > 5)
		return ERR_MALFORMED;
	if (*address == '[' && address[n - 1] == ']')
		text_copy(host, 128, address + 1, n - 2);
	else
		text_copy(host, 128, address, n);
	snprintf(port, 16, "%s", colon + 1);
	return 0;
}

static int connect_within(const struct addrinfo *a, int64_t deadline)
{
	int fd = socket(
		a->ai_family, a->ai_socktype | SOCK_CLOEXEC | SOCK_NONBLOCK, a->ai_protocol);
	struct pollfd p = { .fd = fd, .events = POLLOUT };
	socklen_t len = sizeof(int);
	int64_t left = deadline - clock_ms();
	int failed = 0;

	if (fd < 0)
		return -1;
	if (connect(fd, a->ai_addr, a->ai_addrlen) == 0)
		return fd;
	if (errno == EINPROGRESS && poll(&p, 1, left > 0 ? (int)left : 0) == 1 &&
		getsockopt(fd, SOL_SOCKET, SO_ERROR, &failed, &len) == 0 && failed == 0)
		return fd;
	failed = failed ? failed : errno == EINPROGRESS ? ETIMEDOUT : errno;
	close(fd);
	errno = failed;
	return -1;
}

static int dial(const char *address, int64_t deadline, int *out, struct errmsg *em)
{
	struct addrinfo hint = { .ai_socktype = SOCK_STREAM }, *list, *a;
	char host[128], port[16];
	int fd = -1, rc = split_address(address, host, port);

	if (rc < 0)
		return err_set(em, rc, "'%s' is no address HOST:PORT", address);
	rc = getaddrinfo(host, port, &hint, &list);
	if (rc != 0)
		return err_set(em, ERR_UNREACHABLE, "%s: %s", address, gai_strerror(rc));
	for (a = list; a && fd < 0; a = a->ai_next)
		fd = connect_within(a, deadline);
	freeaddrinfo(list);
	if (fd < 0)
		return err_set(em, ERR_UNREACHABLE, "%s: %s", address, strerror(errno));
	*out = fd;
	return 0;
}

/* Our address as the registrar's host sees it, with the port that we listen on. */
static void own_address(int fd, const char *listen, char out[128])
{
	struct sockaddr_storage sa;
	socklen_t len = sizeof(sa);
	char host[INET6_ADDRSTRLEN + 8] = "";
	const char *port = strrchr(listen, ':');

	out[0] = 0;
	if (getsockname(fd, (struct sockaddr *)&sa, &len) == 0 &&
		getnameinfo((struct sockaddr *)&sa, len, host, sizeof(host), NULL, 0,
			NI_NUMERICHOST) == 0)
		snprintf(out, 128, strchr(host, ':') ? "[%s]%s" : "%s%s", host,
			port ? port : ":21212");
}

static bool is_wildcard(const char *listen)
{
	return strncmp(listen, "0.0.0.0:", 8) == 0 || strncmp(listen, "[::]:", 5) == 0;
}

struct joining {
	struct home h;
	struct token token;
	struct key *key;
	char listen[128], advertise[128];
	struct tos_value *answer;
};

static int enroll(
	struct joining *j, struct tos_connection *c, uint32_t timeout_ms, struct errmsg *em)
{
	struct tos_value *args = tos_map(), *elements = tos_array(), *answer = NULL;
	uint8_t public[32];
	int rc;

	key_public(j->key, public);
	rc = tos_set(args, "name", tos_text(j->token.name));
	rc = rc ? rc
		: tos_set(args, "secret", tos_bytes(j->token.secret, sizeof(j->token.secret)));
	rc = rc ? rc : tos_set(args, "public_key", tos_bytes(public, sizeof(public)));
	rc = rc ? rc : tos_set(args, "address", tos_text(j->advertise));
	rc = rc ? rc : tos_push(elements, STEAL(args));
	rc = rc ? rc
		: tos_ask(c, "Registrar", "ENROLL", elements, timeout_ms, NULL, &answer,
			  public_of(em));
	if (rc == 0)
		j->answer = tos_take_at(answer, 0);
	tos_value_free(args);
	tos_value_free(elements);
	tos_value_free(answer);
	return rc;
}

static int ask_at(struct joining *j, const struct join *how, const char *address,
	int64_t deadline, struct errmsg *em)
{
	AUTO(tls_context) tls = NULL;
	struct tos_connection *c;
	uint32_t left;
	int fd = -1, rc = dial(address, deadline, &fd, em);

	rc = rc ? rc : tls_context_new_joiner(j->key, j->token.fingerprint, &tls, em);
	if (rc < 0) {
		mem_close(fd);
		return rc;
	}
	if (how->advertise)
		snprintf(j->advertise, sizeof(j->advertise), "%s", how->advertise);
	else if (is_wildcard(j->listen))
		own_address(fd, j->listen, j->advertise);
	else
		snprintf(j->advertise, sizeof(j->advertise), "%s", j->listen);
	left = clock_ms() < deadline ? (uint32_t)(deadline - clock_ms()) : 1;
	rc = connection_open(fd, tls_session_new(tls, false), left, &c, em);
	if (rc < 0)
		return err_wrap(em, rc, "registrar at %s", address);
	rc = enroll(j, c, left, em);
	tos_disconnect(c);
	return rc < 0 ? err_wrap(em, rc, "registrar at %s", address) : 0;
}

/* The root's fingerprint stands in the token: a registrar that lies is found out here too. */
static int check_answer(struct joining *j, struct slice ders[COSE_CHAIN_MAX], size_t *n,
	struct slice *root, struct errmsg *em)
{
	const struct tos_value *chain = tos_get(j->answer, "chain");
	struct trust trust = { .now_ms = clock_wall_ms(), .skew_ms = 300000 };
	uint8_t digest[DIGEST_BYTES], public[32];
	struct cert_info leaf;
	int rc;

	root->p = tos_get_bytes(j->answer, "root", &root->n);
	*n = tos_len(chain);
	if (!root->p || *n < 1 || *n > COSE_CHAIN_MAX)
		return err_set(
			em, ERR_MALFORMED, "the registrar's answer holds no certificate");
	digest_bytes(root->p, root->n, digest);
	if (memcmp(digest, j->token.fingerprint, sizeof(digest)) != 0)
		return err_set(
			em, ERR_UNTRUSTED, "the registrar is of another domain than the token");
	for (size_t i = 0; i < *n; i++)
		ders[i].p = tos_as_bytes(tos_at(chain, i), &ders[i].n);
	trust.root_der = *root;
	rc = trust_verify(&trust, ders, *n, &leaf, em);
	if (rc < 0)
		return err_wrap(em, rc, "the certificate from the registrar");
	key_public(j->key, public);
	if (leaf.kind != CERT_KERNEL || strcmp(leaf.name, j->token.name) != 0 ||
		memcmp(leaf.public_key, public, sizeof(public)) != 0)
		return err_set(em, ERR_UNTRUSTED,
			"the registrar's certificate is not for this kernel");
	return 0;
}

static int write_kernel(struct joining *j, struct errmsg *em)
{
	char path[HOME_PATH_MAX];
	struct slice ders[COSE_CHAIN_MAX], root;
	const char *registrar = tos_get_text(j->answer, "registrar", "host0");
	struct kernel_conf k = { .name = j->token.name,
		.listen = j->listen,
		.advertise = j->advertise,
		.registrar = registrar,
		.registrar_at = (const char(*)[128])j->token.addresses,
		.n_registrar_at = j->token.n_addresses };
	size_t n, len;
	const uint8_t *list = tos_get_bytes(j->answer, "revocation", &len);
	int rc = check_answer(j, ders, &n, &root, em);

	rc = rc ? rc
		: path_join(path, sizeof(path), em, j->h.path, "kernels", k.name, "cert", NULL);
	rc = rc ? rc : certs_save(path, ders, n, em);
	rc = rc ? rc
		: path_join(path, sizeof(path), em, j->h.path, "kernels", k.name, "root.crt",
			  NULL);
	rc = rc ? rc : certs_save(path, &root, 1, em);
	if (list && rc == 0) {
		rc = path_join(
			path, sizeof(path), em, j->h.path, "kernels", k.name, "revoked", NULL);
		rc = rc ? rc : bytes_write(path, list, len, 0644, em);
	}
	return rc ? rc : kernel_conf_write(&j->h, &k, em);
}

/* The key of an earlier try is used again: with it the registrar repeats its answer. */
static int own_key(struct joining *j, struct errmsg *em)
{
	char path[HOME_PATH_MAX];
	int rc = path_join(path, sizeof(path), em, j->h.path, "kernels", j->token.name, NULL);

	rc = rc ? rc : dir_make(path, 0700, em);
	rc = rc ? rc
		: path_join(path, sizeof(path), em, j->h.path, "kernels", j->token.name, "key",
			  NULL);
	if (rc < 0)
		return rc;
	if (access(path, F_OK) == 0)
		return key_load(path, NULL, &j->key, em);
	j->key = key_new();
	return key_save(j->key, path, NULL, false, em);
}

static int check_before(
	struct joining *j, const char *home, const struct join *how, struct errmsg *em)
{
	char path[HOME_PATH_MAX];
	struct errmsg none;
	int rc = token_parse(how->token, &j->token, em);

	if (rc < 0)
		return err_wrap(em, rc, "the token");
	if (j->token.expires_ms <= clock_wall_ms())
		return err_set(em, ERR_EXPIRED,
			"the token has expired; ask for a new one with 'tos enroll %s'",
			j->token.name);
	if (strchr(j->token.name, '/') || j->token.name[0] == '.' || j->token.n_addresses == 0)
		return err_set(em, ERR_MALFORMED, "the token is not whole");
	rc = home_open(home, &j->h, &none);
	if (rc == ERR_NOT_FOUND)
		rc = home_path(home, j->h.path, em);
	else if (rc < 0)
		return err_set(em, rc, "%s", none.text);
	rc = rc ? rc
		: path_join(path, sizeof(path), em, j->h.path, "kernels", j->token.name,
			  "tosd.conf", NULL);
	if (rc == 0 && access(path, F_OK) == 0)
		return err_set(em, ERR_EXISTS, "kernel %s is configured already in %s",
			j->token.name, j->h.path);
	return rc;
}

static int join_domain(
	struct joining *j, const char *home, const struct join *how, struct errmsg *em)
{
	int64_t deadline = clock_ms() + (how->timeout_ms ? how->timeout_ms : 30000);
	int rc = check_before(j, home, how, em);
	const char *port = strchr(j->token.name, ':'); /* host0:21213 */

	snprintf(j->listen, sizeof(j->listen), "0.0.0.0%s", port ? port : ":21212");
	if (how->listen)
		snprintf(j->listen, sizeof(j->listen), "%s", how->listen);
	rc = rc ? rc : own_key(j, em);
	if (rc < 0)
		return rc;
	rc = ERR_UNREACHABLE;
	for (size_t i = 0; i < j->token.n_addresses && rc == ERR_UNREACHABLE; i++)
		rc = ask_at(j, how, j->token.addresses[i], deadline, em);
	rc = rc ? rc : write_kernel(j, em);
	if (rc == 0 && !*j->h.kernel) {
		snprintf(j->h.kernel, sizeof(j->h.kernel), "%.63s", j->token.name);
		rc = home_write(&j->h, em);
	}
	return rc;
}

int domain_join(const char *home, const struct join *how, char name[64], struct buf *said,
	struct errmsg *em)
{
	struct joining *j = mem_new(struct joining);
	int rc = join_domain(j, home, how, em);

	if (rc == 0) {
		snprintf(name, 64, "%.63s", j->token.name);
		buf_printf(said, "kernel      %s, registrar %s, listens on %s, %s\n",
			j->token.name, tos_get_text(j->answer, "registrar", "host0"), j->listen,
			*j->advertise ? j->advertise : "only dials out");
		buf_printf(said, "files       %s/kernels/%s\n", j->h.path, j->token.name);
	}
	tos_value_free(j->answer);
	key_free(j->key);
	free(j);
	return rc;
}
