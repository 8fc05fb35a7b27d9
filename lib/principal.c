/* Principals: keys of $TOS_HOME/keys, and the acts that they sign. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"
#include "lib/home.h"
#include "lib/internal.h"
#include "seal/seal.h"

struct tos_principal {
	struct signer *signer;
	uint64_t number; /* of this one, as loaded: an address may be another's next */
};

uint64_t principal_number(const struct tos_principal *p)
{
	return p->number;
}

const struct signer *principal_signer(const struct tos_principal *p)
{
	return p->signer;
}

void tos_principal_free(struct tos_principal *p)
{
	if (!p)
		return;
	signer_free(p->signer);
	free(p);
}

static int not_ours(const struct home *h, const char *name, struct errmsg *em)
{
	return err_set(em, ERR_NOT_FOUND,
		"there is no key of %s in %s/keys; 'tos principal list' shows whose there are, "
		"--as NAME "
		"takes another",
		name, h->path);
}

int tos_principal_load(
	const char *home, const char *name, struct tos_principal **out, struct tos_error *err)
{
	char key[HOME_PATH_MAX], cert[HOME_PATH_MAX];
	struct errmsg *em = em_of(err);
	struct signer *s;
	struct home h;
	int rc = home_open(home, &h, em);

	if (rc < 0)
		return rc;
	if (!name || !*name)
		name = h.principal;
	if (!*name || strchr(name, '/') || *name == '.')
		return *name ? not_ours(&h, name, em)
			     : err_set(em, ERR_NOT_FOUND,
				       "%s/domain.conf names no principal: do this where your key is, or "
				       "make one here (tos principal request) and use --as NAME",
				       h.path);
	rc = path_join(key, sizeof(key), em, h.path, "keys", name, "key", NULL);
	if (rc == 0)
		rc = path_join(cert, sizeof(cert), em, h.path, "keys", name, "cert", NULL);
	if (rc < 0)
		return rc;
	if (access(key, F_OK) < 0)
		return errno == EACCES
			       ? err_set(em, ERR_DENIED,
					 "the key of %s in %s/keys cannot be read by this "
					 "user: ask as its owner",
					 name, h.path)
			       : not_ours(&h, name, em);
	rc = signer_load(key, cert, getenv("TOS_PASSPHRASE"), &s, em);
	if (rc < 0)
		return err_wrap(em, rc, "key of %s", name);
	*out = mem_new(struct tos_principal);
	(*out)->signer = s;
	random_bytes(&(*out)->number, sizeof((*out)->number));
	return 0;
}

int act_sign(const struct tos_principal *p, const char *kernel, const char *act,
	const char *target, const struct tos_value *args, uint32_t timeout_ms, struct buf *cose,
	struct errmsg *em)
{
	struct tos_value *v = tos_map();
	uint8_t nonce[16], *payload = NULL;
	size_t n = 0;
	int rc = 0;

	random_bytes(nonce, sizeof(nonce));
	rc |= tos_set(v, "act", tos_text(act));
	rc |= tos_set(v, "args", args ? tos_value_copy(args) : tos_map());
	/* The act may wait for a link; nobody can use it again, for its nonce is spent. */
	rc |= tos_set(v, "deadline", tos_int(clock_wall_ms() + timeout_ms + 60000));
	rc |= tos_set(v, "kernel", tos_text(kernel));
	rc |= tos_set(v, "nonce", tos_bytes(nonce, sizeof(nonce)));
	rc |= tos_set(v, "target", tos_text(target ? target : ""));
	rc = rc ? err_set(em, ERR_MALFORMED, "the act cannot be written: is '%s' UTF-8?",
			  target)
		: tos_encode(v, &payload, &n);
	if (rc == 0)
		rc = cose_sign(p->signer, "act", (struct slice){ payload, n }, cose, em);
	free(payload);
	tos_value_free(v);
	return rc;
}

int tos_act(struct tos_connection *c, const struct tos_principal *p, const char *kernel,
	const char *act, const char *target, const struct tos_value *args, uint32_t timeout_ms,
	struct tos_value **out, struct tos_error *err)
{
	struct tos_value *map, *elements;
	char dest[129] = "Control";
	AUTOBUF cose = BUF_INIT;
	int rc;

	if (!kernel || !*kernel)
		kernel = tos_connection_kernel(c);
	if (strcmp(kernel, tos_connection_kernel(c)) != 0)
		snprintf(dest, sizeof(dest), "%.64s/Control", kernel);
	rc = act_sign(p, kernel, act, target, args, timeout_ms, &cose, em_of(err));
	if (rc < 0)
		return rc;
	map = tos_map();
	elements = tos_array();
	if (tos_set(map, "cose", tos_bytes(cose.data, cose.len)) < 0 ||
		tos_push(elements, map) < 0)
		rc = ERR_NOMEM;
	else
		rc = tos_ask(c, dest, "ACT", elements, timeout_ms, NULL, out, err);
	tos_value_free(elements);
	return rc;
}

int tos_outcome(struct tos_connection *c, const char *name, uint32_t timeout_ms,
	struct tos_value **out, struct tos_error *err)
{
	struct tos_value *map = tos_map(), *elements = tos_array(), *answer = NULL;
	int rc = tos_set(map, "name", tos_text(name));

	if (rc == 0)
		rc = tos_set(map, "wait_ms", tos_int(timeout_ms));
	if (rc == 0)
		rc = tos_push(elements, STEAL(map));
	if (rc == 0) /* the kernel waits that long; the call a little longer */
		rc = tos_ask(c, "Control", "OUTCOME", elements, timeout_ms + 2000, NULL,
			&answer, err);
	tos_value_free(map);
	tos_value_free(elements);
	if (rc == 0)
		*out = tos_take_at(answer, 0);
	tos_value_free(answer);
	return rc;
}
