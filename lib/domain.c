/* The authority of a domain. See domain.h. */
#include "lib/domain.h"

#include "lib/domain_inside.h"

#include <arpa/inet.h>
#include <confuse.h>
#include <dirent.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <netdb.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/text.h"
#include "seal/seal.h"

#define DAY_MS         ((int64_t)86400000)
#define YEAR_MS        (365 * DAY_MS)
#define ROOT_LIFE      (10 * YEAR_MS)
#define REGISTRAR_LIFE (5 * YEAR_MS)
#define ADMIN_LIFE     (2 * YEAR_MS)
#define KERNEL_LIFE    YEAR_MS
/* clocks of a fleet differ; certificates are used at once */
#define BACKDATED   (10 * 60000)
#define REVOKED_MAX ((size_t)4 << 20)
#define PORT_FIRST  21212

/* ---- small pieces */

const char *domain_passphrase(void)
{
	const char *s = getenv("TOS_PASSPHRASE");

	return s && *s ? s : NULL;
}

static int at(const struct home *h, char out[HOME_PATH_MAX], struct errmsg *em, const char *dir,
	const char *name, const char *file)
{
	return name ? path_join(out, HOME_PATH_MAX, em, h->path, dir, name, file, NULL)
		    : path_join(out, HOME_PATH_MAX, em, h->path, dir, file, NULL);
}

/* The certificates of a PEM file as slices; certs_done() it. */
struct certs {
	struct buf der[COSE_CHAIN_MAX];
	size_t n;
};
static void certs_done(struct certs *c)
{
	for (size_t i = 0; i < COSE_CHAIN_MAX; i++)
		buf_fini(&c->der[i]);
}
static struct slice certs_leaf(const struct certs *c)
{
	return (struct slice){ c->der[0].data, c->der[0].len };
}
static int certs_read(const char *path, struct certs *c, struct errmsg *em)
{
	memset(c, 0, sizeof(*c));
	if (access(path, R_OK) < 0)
		return errno == ENOENT
			       ? err_set(em, ERR_NOT_FOUND, "there is no certificate %s", path)
			       : err_errno(em, "cannot read %s", path);
	return certs_load(path, c->der, &c->n, em);
}

/* Who signs: a key and its certificate. */
struct issuer {
	struct key *key;
	struct certs certs;
};
static void issuer_done(struct issuer *i)
{
	key_free(i->key);
	certs_done(&i->certs);
}
static int issuer_read(const struct home *h, const char *who, const char *passphrase,
	struct issuer *out, struct errmsg *em)
{
	char key[HOME_PATH_MAX], crt[HOME_PATH_MAX], name[32];
	int rc;

	memset(out, 0, sizeof(*out));
	snprintf(name, sizeof(name), "%s.key", who);
	rc = at(h, key, em, "ca", NULL, name);
	snprintf(name, sizeof(name), "%s.crt", who);
	rc = rc ? rc : at(h, crt, em, "ca", NULL, name);
	if (rc < 0)
		return rc;
	if (access(key, F_OK) < 0)
		return err_set(em, ERR_DENIED,
			"the domain's %s key is not in %s/ca; do this where the "
			"domain was made",
			who, h->path);
	rc = key_load(key, passphrase, &out->key, em);
	if (rc < 0 && !passphrase)
		return err_wrap(em, rc, "%s (TOS_PASSPHRASE gives the passphrase)", key);
	if (rc == 0)
		rc = certs_read(crt, &out->certs, em);
	return rc;
}

bool domain_has_root(const struct home *h)
{
	char key[HOME_PATH_MAX];

	return at(h, key, NULL, "ca", NULL, "root.key") == 0 && access(key, F_OK) == 0;
}

static int save_certs(
	const char *path, const struct buf *leaf, struct slice above, struct errmsg *em)
{
	struct slice ders[2] = { { leaf->data, leaf->len }, above };

	return certs_save(path, ders, above.n ? 2 : 1, em);
}

/* A new key with its certificate, DIR/KEY and DIR/CERT. */
static int make_pair(const struct issuer *by, enum cert_kind kind, const char *name,
	unsigned roles, const char *only, int64_t life_ms, const char *key_path,
	const char *cert_path, struct errmsg *em)
{
	AUTO(key) k = key_new();
	int64_t now = clock_wall_ms();
	AUTOBUF der = BUF_INIT;
	struct slice above = { NULL, 0 };
	uint8_t public[32];
	int rc;

	key_public(k, public);
	rc = cert_issue_only(by->key, certs_leaf(&by->certs), kind, name, roles, only, public,
		now - BACKDATED, now + life_ms, &der, em);
	if (rc == 0)
		rc = key_save(k, key_path, NULL, false, em);
	if (kind == CERT_KERNEL)
		above = certs_leaf(&by->certs);
	if (rc == 0)
		rc = save_certs(cert_path, &der, above, em);
	return rc;
}

static int copy_file(const struct home *h, const char *from, const char *kernel, const char *to,
	unsigned mode, struct errmsg *em)
{
	char a[HOME_PATH_MAX], b[HOME_PATH_MAX];
	AUTOBUF bytes = BUF_INIT;
	int rc = at(h, a, em, "ca", NULL, from);

	if (rc == 0)
		rc = at(h, b, em, "kernels", kernel, to);
	if (rc == 0)
		rc = bytes_read(a, REVOKED_MAX, &bytes, em);
	return rc < 0 ? rc : bytes_write(b, bytes.data, bytes.len, mode, em);
}

/* ---- configurations of kernels */

static void ignore_confuse(cfg_t *cfg, const char *fmt, va_list ap)
{
	(void)cfg;
	(void)fmt;
	(void)ap;
}

int kernel_conf_listen(const struct home *h, const char *kernel, char out[128])
{
	cfg_opt_t opts[] = { CFG_STR_LIST("listen", "{}", CFGF_NONE),
		CFG_STR("__unknown", NULL, CFGF_NONE), CFG_END() };
	char file[HOME_PATH_MAX];
	cfg_t *cfg;
	int rc = at(h, file, NULL, "kernels", kernel, "tosd.conf");

	out[0] = 0;
	if (rc < 0)
		return rc;
	cfg = cfg_init(opts, CFGF_IGNORE_UNKNOWN);
	if (!cfg)
		return ERR_NOMEM;
	cfg_set_error_function(cfg, ignore_confuse);
	/* What libconfuse can't skip (sections) comes after this key in what we write. */
	cfg_parse(cfg, file);
	if (cfg_size(cfg, "listen") > 0)
		snprintf(out, 128, "%s", cfg_getnstr(cfg, "listen", 0));
	cfg_free(cfg);
	return *out ? 0 : ERR_NOT_FOUND;
}

int kernel_conf_write(const struct home *h, const struct kernel_conf *k, struct errmsg *em)
{
	char file[HOME_PATH_MAX];
	AUTOBUF b = BUF_INIT;
	int rc = at(h, file, em, "kernels", k->name, "tosd.conf");

	buf_printf(&b, "# One kernel of TOS; see tosd(8). 'tosd -t' checks this file.\n");
	buf_printf(&b, "name = \"%s\"\nlisten = {\"%s\"}\n", k->name, k->listen);
	if (k->advertise)
		buf_printf(&b, "advertise = \"%s\"\n", k->advertise);
	buf_printf(&b, "registrar = \"%s\"\n", k->registrar);
	if (k->n_registrar_at) {
		buf_printf(&b, "peer \"%s\" {\n\taddress = {", k->registrar);
		for (size_t i = 0; i < k->n_registrar_at; i++)
			buf_printf(&b, "%s\"%s\"", i ? ", " : "", k->registrar_at[i]);
		buf_printf(&b, "}\n}\n");
	}
	if (rc == 0)
		rc = buf_check(&b);
	return rc < 0 ? rc : bytes_write(file, b.data, b.len, 0644, em);
}

/* Numbers only, so nobody is asked. */
static struct addrinfo *numeric(const char *host, unsigned port)
{
	struct addrinfo hint = { .ai_flags = AI_NUMERICHOST | AI_NUMERICSERV,
		.ai_socktype = SOCK_STREAM },
			*a = NULL;
	char service[16];

	snprintf(service, sizeof(service), "%u", port);
	return getaddrinfo(host, service, &hint, &a) == 0 ? a : NULL;
}

/* What is wrong with the address itself the kernel will say. */
static bool port_is_free(const char *host, unsigned port)
{
	struct addrinfo *a = numeric(host, port);
	AUTOCLOSE int fd = a ? socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0) : -1;
	bool is_free = true;
	int one = 1;

	if (fd >= 0) {
		setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
		is_free = (bind(fd, a->ai_addr, a->ai_addrlen) == 0 && listen(fd, 1) == 0) ||
			  errno != EADDRINUSE;
	}
	if (a)
		freeaddrinfo(a);
	return is_free;
}

static bool is_wildcard(const char *host)
{
	return strcmp(host, "0.0.0.0") == 0 || strcmp(host, "::") == 0;
}

static int port_parse(const char *text, unsigned *out)
{
	int64_t port;
	int rc = text_int(text, 1, 65535, &port);

	if (rc == 0)
		*out = (unsigned)port;
	return rc;
}

/* ADDRESS, ADDRESS:PORT, [IPV6], [IPV6]:PORT, and IPv6 alone. */
int listen_parse(
	const char *text, const char *advertise, struct listen_at *out, struct errmsg *em)
{
	struct listen_at at = { "", 0, "" };
	const char *close_bracket = *text == '[' ? strchr(text, ']') : NULL;
	const char *colon = strrchr(text, ':');
	size_t n = strlen(text);
	struct addrinfo *a;

	if (close_bracket)
		colon = close_bracket[1] == ':' ? close_bracket + 1 : NULL;
	else if (colon && memchr(text, ':', (size_t)(colon - text)))
		colon = NULL;
	if (colon)
		n = (size_t)(colon - text);
	if ((close_bracket ? text_copy(at.host, sizeof(at.host), text + 1, n - 2)
			   : text_copy(at.host, sizeof(at.host), text, n)) < 0 ||
		(colon && port_parse(colon + 1, &at.port) < 0) || !(a = numeric(at.host, 1)))
		return err_set(em, ERR_USAGE,
			"--listen %s is no numeric address such as 192.0.2.1, 192.0.2.1:21212 or [::1]:21212",
			text);
	freeaddrinfo(a);
	if (is_wildcard(at.host) && !advertise)
		return err_set(em, ERR_USAGE,
			"nobody can dial %s; say --advertise HOST too, what others dial",
			at.host);
	snprintf(at.advertise, sizeof(at.advertise), "%s", advertise ? advertise : "");
	*out = at;
	return 0;
}

static void address_text(const char *host, unsigned port, char out[128])
{
	snprintf(out, 128, strchr(host, ':') ? "[%s]:%u" : "%s:%u", host, port);
}

static bool port_is_taken(const struct home *h, const struct names *all, unsigned port)
{
	char listen[128];

	for (size_t i = 0; i < all->n; i++) {
		const char *colon;

		if (kernel_conf_listen(h, all->v[i], listen) < 0)
			continue;
		colon = strrchr(listen, ':');
		if (colon && strtoul(colon + 1, NULL, 10) == port)
			return true;
	}
	return false;
}

static int choose_port(const struct home *h, unsigned nth, const struct listen_at *where,
	unsigned *out, struct errmsg *em)
{
	struct names all;
	unsigned port;

	if (where->port) {
		*out = where->port + nth;
		return *out < 65536 ? 0 : err_set(em, ERR_FULL, "there is no port %u", *out);
	}

	if (home_kernels(h, &all) < 0)
		return err_set(em, ERR_IO, "cannot list %s/kernels", h->path);
	for (port = PORT_FIRST + nth; port < 65536; port++)
		if (!port_is_taken(h, &all, port) && port_is_free(where->host, port))
			break;
	names_fini(&all);
	if (port >= 65536)
		return err_set(em, ERR_FULL, "no port from %u on is free on %s",
			PORT_FIRST + nth, where->host);
	*out = port;
	return 0;
}

/* A failure midway must not leave what looks like a kernel: the configuration is written last.
 */
int domain_kernel_add(const struct home *h, const char *name, unsigned nth,
	const struct listen_at *where, struct errmsg *em)
{
	static const struct listen_at here = { "127.0.0.1", 0, "" };
	char dir[HOME_PATH_MAX], key[HOME_PATH_MAX], cert[HOME_PATH_MAX], listen[128];
	char advertise[160];
	char registrar_at[1][128] = { "" };
	struct kernel_conf k = { .name = name, .listen = listen, .registrar = "host0" };
	struct issuer registrar;
	unsigned port = 0;
	bool first = strcmp(name, "host0") == 0;
	int rc = path_join(dir, sizeof(dir), em, h->path, "kernels", name, NULL);

	where = where ? where : &here;
	rc = rc ? rc : dir_make(dir, 0700, em);
	rc = rc ? rc : at(h, key, em, "kernels", name, "key");
	rc = rc ? rc : at(h, cert, em, "kernels", name, "cert");
	rc = rc ? rc : choose_port(h, nth, where, &port, em);
	if (rc < 0)
		return rc;
	unlink(key); /* without a configuration it belongs to no kernel */
	rc = issuer_read(h, "registrar", NULL, &registrar, em);
	if (rc == 0)
		rc = make_pair(
			&registrar, CERT_KERNEL, name, 0, NULL, KERNEL_LIFE, key, cert, em);
	issuer_done(&registrar);
	rc = rc ? rc : copy_file(h, "root.crt", name, "root.crt", 0644, em);
	rc = rc ? rc : copy_file(h, "revoked", name, "revoked", 0644, em);
	if (first) {
		rc = rc ? rc : copy_file(h, "registrar.key", name, "registrar.key", 0600, em);
		rc = rc ? rc : copy_file(h, "registrar.crt", name, "registrar.crt", 0644, em);
	} else if (kernel_conf_listen(h, "host0", registrar_at[0]) == 0) {
		/* It is on this machine. */
		if (strncmp(registrar_at[0], "0.0.0.0:", 8) == 0) {
			snprintf(listen, sizeof(listen), "127.0.0.1:%s", registrar_at[0] + 8);
			snprintf(registrar_at[0], sizeof(registrar_at[0]), "%s", listen);
		} else if (strncmp(registrar_at[0], "[::]:", 5) == 0) {
			snprintf(listen, sizeof(listen), "[::1]:%s", registrar_at[0] + 5);
			snprintf(registrar_at[0], sizeof(registrar_at[0]), "%s", listen);
		}
		k.registrar_at = (const char(*)[128])registrar_at;
		k.n_registrar_at = 1;
	}
	address_text(where->host, port, listen);
	if (where->advertise[0]) {
		const char *colon = strrchr(where->advertise, ':');

		if (colon && !strchr(colon, ']'))
			snprintf(advertise, sizeof(advertise), "%s", where->advertise);
		else
			snprintf(advertise, sizeof(advertise), "%s:%u", where->advertise, port);
		k.advertise = advertise;
	}
	return rc ? rc : kernel_conf_write(h, &k, em);
}

/* ---- the domain itself */

static int make_root(
	const struct home *h, const char *passphrase, struct issuer *out, struct errmsg *em)
{
	char key[HOME_PATH_MAX], crt[HOME_PATH_MAX];
	int64_t now = clock_wall_ms();
	uint8_t public[32];
	int rc = at(h, key, em, "ca", NULL, "root.key");

	rc = rc ? rc : at(h, crt, em, "ca", NULL, "root.crt");
	memset(out, 0, sizeof(*out));
	if (rc < 0)
		return rc;
	out->key = key_new();
	key_public(out->key, public);
	rc = cert_issue(out->key, (struct slice){ NULL, 0 }, CERT_ROOT, "tos root", 0, public,
		now - BACKDATED, now + ROOT_LIFE, &out->certs.der[0], em);
	out->certs.n = 1;
	rc = rc ? rc : key_save(out->key, key, passphrase, false, em);
	return rc ? rc : save_certs(crt, &out->certs.der[0], (struct slice){ NULL, 0 }, em);
}

static int write_list(const struct home *h, const struct issuer *root, uint64_t number,
	const struct slice *serials, size_t n, struct buf *list, struct errmsg *em)
{
	char path[HOME_PATH_MAX];
	int rc = at(h, path, em, "ca", NULL, "revoked");

	rc = rc ? rc
		: revocation_make(root->key, certs_leaf(&root->certs), number, clock_wall_ms(),
			  serials, n, list, em);
	return rc ? rc : bytes_write(path, list->data, list->len, 0644, em);
}

static int principal_add_by(const struct home *h, const struct issuer *root, const char *name,
	unsigned roles, const char *only, int64_t valid_ms, struct errmsg *em)
{
	char dir[HOME_PATH_MAX], key[HOME_PATH_MAX], cert[HOME_PATH_MAX];
	int rc = path_join(dir, sizeof(dir), em, h->path, "keys", name, NULL);

	rc = rc ? rc : at(h, key, em, "keys", name, "key");
	rc = rc ? rc : at(h, cert, em, "keys", name, "cert");
	if (rc < 0)
		return rc;
	if (access(key, F_OK) == 0 || access(cert, F_OK) == 0)
		return err_set(em, ERR_EXISTS, "there is a principal %s in %s/keys already",
			name, h->path);
	rc = dir_make(dir, 0700, em);
	return rc ? rc
		  : make_pair(root, CERT_PRINCIPAL, name, roles, only, valid_ms, key, cert, em);
}

static int make_authority(const struct home *h, const char *passphrase, struct errmsg *em)
{
	char key[HOME_PATH_MAX], crt[HOME_PATH_MAX];
	AUTOBUF list = BUF_INIT;
	struct issuer root;
	int rc = make_root(h, passphrase, &root, em);

	rc = rc ? rc : at(h, key, em, "ca", NULL, "registrar.key");
	rc = rc ? rc : at(h, crt, em, "ca", NULL, "registrar.crt");
	rc = rc ? rc
		: make_pair(&root, CERT_REGISTRAR, "registrar", 0, NULL, REGISTRAR_LIFE, key,
			  crt, em);
	rc = rc ? rc : write_list(h, &root, 1, NULL, 0, &list, em);
	rc = rc ? rc
		: principal_add_by(h, &root, "admin", ROLE_ADMIN | ROLE_OWNER | ROLE_AUTHOR,
			  NULL, ADMIN_LIFE, em);
	issuer_done(&root);
	return rc;
}

static int refuse_if_there(const struct home *h, struct errmsg *em)
{
	static const char *const parts[] = { "domain.conf", "ca", "keys", "kernels" };
	char path[HOME_PATH_MAX];

	for (size_t i = 0; i < ARRAY_LEN(parts); i++)
		if (path_join(path, sizeof(path), NULL, h->path, parts[i], NULL) == 0 &&
			access(path, F_OK) == 0)
			return err_set(em, ERR_EXISTS,
				strcmp(parts[i], "kernels") == 0
					? "%s is there, but no domain.conf: was 'tos join' begun and not "
					  "finished? Repeat it, or remove that folder"
					: "%s is there already; nothing was changed. Use "
					  "another --home, or remove it",
				path);
	return 0;
}

int domain_init(const char *home, const char *passphrase, const struct listen_at *where,
	struct buf *said, struct errmsg *em)
{
	char ca[HOME_PATH_MAX], listen[128] = "";
	struct home h = { .principal = "admin", .kernel = "host0" };
	int rc = home_path(home, h.path, em);

	rc = rc ? rc : refuse_if_there(&h, em);
	rc = rc ? rc : dir_make(h.path, 0755, em);
	rc = rc ? rc : path_join(ca, sizeof(ca), em, h.path, "ca", NULL);
	rc = rc ? rc : dir_make(ca, 0700, em);
	rc = rc ? rc : make_authority(&h, passphrase, em);
	rc = rc ? rc : domain_kernel_add(&h, "host0", 0, where, em);
	rc = rc ? rc : home_write(&h, em); /* last: with it the domain is there */
	if (rc < 0)
		return rc;
	kernel_conf_listen(&h, "host0", listen);
	buf_printf(said, "domain      %s\n", h.path);
	buf_printf(said,
		"root key    %s/root.key%s; keep a copy elsewhere, kernels don't need it\n", ca,
		passphrase ? " (under the passphrase)" : "");
	buf_printf(said, "principal   admin (roles admin, owner, author), %s/keys/admin\n",
		h.path);
	buf_printf(said,
		"kernel      host0, registrar, listens on %s, %s/kernels/host0/tosd.conf\n",
		listen, h.path);
	return buf_check(said);
}

/* ---- principals */

static bool principal_name_ok(const char *s)
{
	size_t n = strlen(s);

	if (!n || n > 63 || *s == '.' || *s == '-')
		return false;
	return strspn(s,
		       "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_@") ==
	       n;
}

int principal_name_check(const char *name, struct errmsg *em)
{
	if (!principal_name_ok(name))
		return err_set(em, ERR_NAME,
			"'%.64s' is no name for a principal: letters, digits, . - _ @, "
			"63 at most",
			name);
	return 0;
}

int domain_issue_principal(const struct home *h, const char *name, unsigned roles,
	const char *only, const uint8_t public_key[32], int64_t valid_ms, const char *file,
	struct errmsg *em)
{
	int64_t now = clock_wall_ms();
	AUTOBUF der = BUF_INIT;
	struct issuer root;
	int rc = issuer_read(h, "root", domain_passphrase(), &root, em);

	rc = rc ? rc
		: cert_issue_only(root.key, certs_leaf(&root.certs), CERT_PRINCIPAL, name,
			  roles, only, public_key, now - BACKDATED, now + valid_ms, &der, em);
	rc = rc ? rc : save_certs(file, &der, certs_leaf(&root.certs), em);
	issuer_done(&root);
	return rc;
}

int domain_principal_add(const struct home *h, const char *name, unsigned roles,
	const char *only, int64_t valid_ms, struct errmsg *em)
{
	struct issuer root;
	int rc = principal_name_check(name, em);

	if (rc < 0)
		return rc;
	rc = issuer_read(h, "root", domain_passphrase(), &root, em);
	rc = rc ? rc : principal_add_by(h, &root, name, roles, only, valid_ms, em);
	issuer_done(&root);
	return rc;
}

/* Puts the folder of a principal that is there aside (kept: its old name, undone by renaming it
 * back), makes another with make(arg), and leaves in serials what is to be revoked. */
static int principal_replace(const struct home *h, const char *name, struct tos_value *serials,
	int (*make)(void *arg, struct errmsg *em), void *arg, struct errmsg *em)
{
	char path[HOME_PATH_MAX], kept[HOME_PATH_MAX], aside[96];
	int rc = domain_serials(h, false, name, serials, em);
	size_t n;
	const uint8_t *serial = tos_as_bytes(tos_at(serials, 0), &n);
	char hex[2 * 8 + 1];

	if (rc < 0)
		return rc;
	/* The old key is put aside, never thrown away: what it signed can still be looked at. */
	snprintf(aside, sizeof(aside), ".%s-%s", name, text_hex(serial, n < 8 ? n : 8, hex));
	rc = path_join(path, sizeof(path), em, h->path, "keys", name, NULL);
	rc = rc ? rc : path_join(kept, sizeof(kept), em, h->path, "keys", aside, NULL);
	if (rc == 0 && rename(path, kept) != 0)
		rc = err_errno(em, "%s cannot be put aside", path);
	if (rc < 0)
		return rc;
	rc = make(arg, em);
	if (rc < 0)
		(void)!rename(kept, path);
	return rc;
}

struct replaced {
	const struct home *h;
	const char *name, *only;
	unsigned roles;
	int64_t valid_ms;
	struct principal_request *request;
};

static int made_here(void *arg, struct errmsg *em)
{
	const struct replaced *r = arg;

	return domain_principal_add(r->h, r->name, r->roles, r->only, r->valid_ms, em);
}

int domain_principal_replace(const struct home *h, const char *name, unsigned roles,
	const char *only, int64_t valid_ms, struct tos_value *serials, struct errmsg *em)
{
	struct replaced r = {
		.h = h, .name = name, .only = only, .roles = roles, .valid_ms = valid_ms
	};

	return principal_replace(h, name, serials, made_here, &r, em);
}

static int made_elsewhere(void *arg, struct errmsg *em)
{
	const struct replaced *r = arg;

	return domain_principal_sign(r->h, r->request, r->valid_ms, em);
}

int domain_principal_sign_replace(const struct home *h, struct principal_request *request,
	int64_t valid_ms, struct tos_value *serials, struct errmsg *em)
{
	struct replaced r = { .h = h, .valid_ms = valid_ms, .request = request };

	return principal_replace(h, request->name, serials, made_elsewhere, &r, em);
}

static int read_list(
	const char *path, struct slice root_der, struct revocation **out, struct errmsg *em)
{
	struct buf bytes = BUF_MAX(REVOKED_MAX);
	int rc = bytes_read(path, REVOKED_MAX, &bytes, em);

	rc = rc ? rc
		: revocation_decode((struct slice){ bytes.data, bytes.len }, root_der, out, em);
	buf_fini(&bytes);
	return rc;
}

static int not_revoked(const struct home *h, const struct issuer *root,
	const struct cert_info *who, struct errmsg *em)
{
	struct revocation *r = NULL;
	char path[HOME_PATH_MAX];
	int rc = at(h, path, em, "ca", NULL, "revoked");

	rc = rc ? rc : read_list(path, certs_leaf(&root->certs), &r, em);
	if (rc == 0 && revocation_has(r, who->serial, who->serial_len))
		rc = err_set(em, ERR_REVOKED,
			"%s is revoked; 'tos principal add %s --replace' makes a new key",
			who->name, who->name);
	revocation_free(r);
	return rc;
}

/* The old certificate aside, the new one in its place. */
static int cert_replace(const char *cert, const struct cert_info *old, const struct buf *der,
	struct slice above, struct errmsg *em)
{
	char aside[HOME_PATH_MAX + 48], hex[41];

	snprintf(aside, sizeof(aside), "%s-%s", cert,
		text_hex(old->serial, old->serial_len, hex));
	if (link(cert, aside) != 0 && errno != EEXIST)
		return err_errno(em, "%s cannot be put aside", cert);
	return save_certs(cert, der, above, em);
}

int domain_principal_renew(
	const struct home *h, const char *name, int64_t valid_ms, struct errmsg *em)
{
	int64_t now = clock_wall_ms();
	char cert[HOME_PATH_MAX];
	struct cert_info info;
	struct issuer root;
	struct certs c = { .n = 0 };
	struct slice above = { NULL, 0 };
	AUTOBUF der = BUF_INIT;
	int rc = issuer_read(h, "root", domain_passphrase(), &root, em);

	rc = rc ? rc : at(h, cert, em, "keys", name, "cert");
	rc = rc ? rc : certs_read(cert, &c, em);
	rc = rc ? rc : cert_info(certs_leaf(&c), &info, em);
	rc = rc ? rc : not_revoked(h, &root, &info, em);
	rc = rc ? rc
		: cert_issue_only(root.key, certs_leaf(&root.certs), CERT_PRINCIPAL, info.name,
			  info.roles, info.only, info.public_key, now - BACKDATED,
			  now + valid_ms, &der, em);
	/* with the root behind it where it goes to another machine */
	if (c.n > 1)
		above = certs_leaf(&root.certs);
	rc = rc ? rc : cert_replace(cert, &info, &der, above, em);
	certs_done(&c);
	issuer_done(&root);
	return rc;
}

struct tos_value *principal_only_value(const char *text)
{
	struct tos_value *list = tos_array();

	while (*text) {
		size_t n = strcspn(text, "\n");

		tos_push(list, tos_text_n(text, n));
		text += n + (text[n] == '\n');
	}
	return list;
}

static int describe_principal(const struct home *h, const struct revocation *r,
	const char *name, struct tos_value *list)
{
	struct tos_value *v = tos_map(), *roles = tos_array();
	char path[HOME_PATH_MAX], when[CLOCK_TEXT_BYTES];
	struct cert_info info;
	struct certs c;
	int rc = at(h, path, NULL, "keys", name, "cert");

	rc = rc ? rc : certs_read(path, &c, NULL);
	rc = rc ? rc : cert_info(certs_leaf(&c), &info, NULL);
	if (rc == 0) {
		for (unsigned bit = 1; bit <= ROLE_OFFICER; bit <<= 1)
			if (info.roles & bit)
				tos_push(roles, tos_text(role_word((enum role)bit)));
		rc = tos_set(v, "name", tos_text(name));
		rc = rc ? rc : tos_set(v, "roles", STEAL(roles));
		if (rc == 0 && info.only[0])
			rc = tos_set(v, "only", principal_only_value(info.only));
		rc = rc ? rc
			: tos_set(v, "expires", tos_text(clock_text(info.not_after_ms, when)));
		rc = rc ? rc : tos_set(v, "serial", tos_bytes(info.serial, info.serial_len));
		rc = rc ? rc
			: tos_set(v, "revoked",
				  tos_bool(r &&
					   revocation_has(r, info.serial, info.serial_len)));
		at(h, path, NULL, "keys", name, "key");
		rc = rc ? rc : tos_set(v, "key", tos_bool(access(path, F_OK) == 0));
		rc = rc ? rc : tos_push(list, STEAL(v));
		certs_done(&c);
	}
	tos_value_free(roles);
	tos_value_free(v);
	return rc;
}

int domain_principals(const struct home *h, struct tos_value **out, struct errmsg *em)
{
	char dir[HOME_PATH_MAX];
	struct trusted *t = NULL;
	struct dirent **e;
	int n, rc = path_join(dir, sizeof(dir), em, h->path, "keys", NULL);

	if (rc < 0)
		return rc;
	n = scandir(dir, &e, NULL, alphasort);
	if (n < 0)
		return err_errno(em, "cannot list %s", dir);
	trusted_open(h->path, &t, NULL);
	*out = tos_array();
	for (int i = 0; i < n; i++) {
		if (e[i]->d_name[0] != '.')
			describe_principal(
				h, t ? trusted_trust(t)->revocation : NULL, e[i]->d_name, *out);
		free(e[i]);
	}
	free(e);
	trusted_free(t);
	return 0;
}

/* ---- revocation */

static int serial_of(const char *path, struct tos_value *serials, struct errmsg *em)
{
	struct cert_info info;
	struct certs c;
	int rc = certs_read(path, &c, em);

	rc = rc ? rc : cert_info(certs_leaf(&c), &info, em);
	certs_done(&c);
	return rc ? rc : tos_push(serials, tos_bytes(info.serial, info.serial_len));
}

/* Certificates that were renewed and are valid still. */
static void serials_before(const char *dir, struct tos_value *serials)
{
	char path[HOME_PATH_MAX];
	struct dirent **e;
	int n = scandir(dir, &e, NULL, alphasort);

	for (int i = 0; i < n; i++) {
		if (strncmp(e[i]->d_name, "cert-", 5) == 0 &&
			path_join(path, sizeof(path), NULL, dir, e[i]->d_name, NULL) == 0)
			(void)serial_of(path, serials, NULL);
		free(e[i]);
	}
	if (n >= 0)
		free(e);
}

int domain_serials(const struct home *h, bool kernel, const char *name,
	struct tos_value *serials, struct errmsg *em)
{
	char path[HOME_PATH_MAX], dir[HOME_PATH_MAX];
	int rc = strchr(name, '/') ? ERR_NOT_FOUND
				   : at(h, path, em, kernel ? "kernels" : "keys", name, "cert");

	rc = rc ? rc : serial_of(path, serials, em);
	if (rc == 0 && !kernel &&
		path_join(dir, sizeof(dir), NULL, h->path, "keys", name, NULL) == 0)
		serials_before(dir, serials);
	if (rc == ERR_NOT_FOUND)
		return err_set(em, rc, "there is no certificate of %s in %s", name, h->path);
	return rc;
}

static int list_with(const struct home *h, const struct issuer *root,
	const struct revocation *old, const struct tos_value *more, uint64_t *number,
	struct buf *list, struct errmsg *em)
{
	size_t n = 0, most = revocation_count(old) + tos_len(more);
	AUTOFREE struct slice *all = mem_try((most + 1) * sizeof(*all));

	if (!all)
		return ERR_NOMEM;
	for (; n < revocation_count(old); n++)
		all[n] = revocation_serial(old, n);
	for (size_t i = 0; i < tos_len(more); i++) {
		size_t len;
		const uint8_t *p = tos_as_bytes(tos_at(more, i), &len);

		if (p && !revocation_has(old, p, len))
			all[n++] = (struct slice){ p, len };
	}
	*number = revocation_number(old) + 1;
	return write_list(h, root, *number, all, n, list, em);
}

int domain_revoke(const struct home *h, const struct tos_value *serials, uint64_t *number,
	struct buf *list, struct errmsg *em)
{
	char path[HOME_PATH_MAX];
	struct revocation *old = NULL;
	struct issuer root;
	int rc = issuer_read(h, "root", domain_passphrase(), &root, em);

	rc = rc ? rc : at(h, path, em, "ca", NULL, "revoked");
	rc = rc ? rc : read_list(path, certs_leaf(&root.certs), &old, em);
	rc = rc ? rc : list_with(h, &root, old, serials, number, list, em);
	revocation_free(old);
	issuer_done(&root);
	return rc;
}

/* ---- what is trusted here */

struct trusted {
	struct certs root;
	struct revocation *revocation;
	struct trust trust;
};

void trusted_free(struct trusted *t)
{
	if (!t)
		return;
	certs_done(&t->root);
	revocation_free(t->revocation);
	free(t);
}

const struct trust *trusted_trust(const struct trusted *t)
{
	return &t->trust;
}

static int trusted_read(const struct home *h, const char *dir, const char *name,
	struct trusted *t, struct errmsg *em)
{
	char path[HOME_PATH_MAX];
	int rc = at(h, path, em, dir, name, "root.crt");

	rc = rc ? rc : certs_read(path, &t->root, em);
	if (rc < 0)
		return rc;
	if (at(h, path, em, dir, name, "revoked") == 0 && access(path, F_OK) == 0)
		rc = read_list(path, certs_leaf(&t->root), &t->revocation, em);
	return rc;
}

int trusted_open(const char *home, struct trusted **out, struct errmsg *em)
{
	struct trusted *t;
	struct names all;
	struct home h;
	int rc = home_open(home, &h, em);

	if (rc < 0)
		return rc;
	t = mem_new(struct trusted);
	rc = trusted_read(&h, "ca", NULL, t, em);
	if (rc == ERR_NOT_FOUND && home_kernels(&h, &all) == 0) { /* a host that joined */
		for (size_t i = 0; i < all.n && rc == ERR_NOT_FOUND; i++)
			rc = trusted_read(&h, "kernels", all.v[i], t, em);
		names_fini(&all);
	}
	if (rc < 0) {
		trusted_free(t);
		return rc;
	}
	t->trust.root_der = certs_leaf(&t->root);
	t->trust.revocation = t->revocation;
	t->trust.now_ms = clock_wall_ms();
	t->trust.skew_ms = 300000;
	*out = t;
	return 0;
}
