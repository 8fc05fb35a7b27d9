/* A connection that says whose it is: signed by a principal, believed by every kernel that it posts to. */
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "lib/internal.h"
#include "seal/seal.h"

#define HOLDS_MS 600000
#define FRESH_MS 60000 /* what has to be left of it */

static int introduce_ask(struct tos_connection *c, struct tos_value *args, uint32_t timeout_ms,
	struct tos_value **out, struct tos_error *err)
{
	struct tos_value *elements = tos_array(), *answer = NULL;
	int rc = tos_push(elements, args);

	rc = rc ? rc
		: tos_ask(c, "Control", "INTRODUCE", elements, timeout_ms, NULL, &answer, err);
	if (rc == 0)
		*out = tos_take_at(answer, 0);
	tos_value_free(elements);
	tos_value_free(answer);
	return rc;
}

/* Signed is what the kernel says of us: another kernel's client it must not be, which could then be
 * anybody that this one tells. */
static bool client_is_of(const char *client, const char *kernel)
{
	size_t n = strlen(kernel);

	return n && strncmp(client, kernel, n) == 0 &&
	       strncmp(client + n, "/client/", strlen("/client/")) == 0;
}

/* what: the answer to an INTRODUCE that says nothing. */
static int introduction_sign(const struct tos_principal *p, const char *kernel,
	const struct tos_value *what, int64_t until_ms, struct buf *cose, struct errmsg *em)
{
	const char *client = tos_get_text(what, "client", "");
	struct tos_value *v = tos_map();
	uint8_t *payload = NULL;
	size_t n = 0;
	int rc = 0;

	if (!client_is_of(client, kernel)) {
		tos_value_free(v);
		return err_set(em, ERR_DENIED,
			"kernel %s says that this client is %.*s: that is not signed", kernel,
			NAME_BYTES_MAX, client);
	}
	rc |= tos_set(v, "boot", tos_value_copy(tos_get(what, "boot")));
	rc |= tos_set(v, "client", tos_value_copy(tos_get(what, "client")));
	rc |= tos_set(v, "expires", tos_int(until_ms));
	rc |= tos_set(v, "issued", tos_int(clock_wall_ms()));
	rc = rc ? err_set(em, ERR_MALFORMED, "the kernel does not say who this client is")
		: tos_encode(v, &payload, &n);
	if (rc == 0)
		rc = cose_sign(
			principal_signer(p), "client", (struct slice){ payload, n }, cose, em);
	free(payload);
	tos_value_free(v);
	return rc;
}

int tos_introduce(struct tos_connection *c, const struct tos_principal *p, uint32_t timeout_ms,
	struct tos_error *err)
{
	int64_t now = clock_wall_ms(), until = now + HOLDS_MS;
	struct tos_value *what = NULL, *args;
	AUTOBUF cose = BUF_INIT;
	int rc;

	if (connection_introduced(c, p) - now > FRESH_MS)
		return 0;
	rc = introduce_ask(c, tos_map(), timeout_ms, &what, err);
	rc = rc ? rc
		: introduction_sign(p, connection_place(c), what, until, &cose, em_of(err));
	tos_value_free(STEAL(what));
	if (rc < 0)
		return rc;
	args = tos_map();
	if (tos_set(args, "cose", tos_bytes(cose.data, cose.len)) < 0) {
		tos_value_free(args);
		return ERR_NOMEM;
	}
	rc = introduce_ask(c, args, timeout_ms, &what, err);
	tos_value_free(what);
	if (rc == 0)
		connection_introduce(c, p, until);
	return rc;
}
