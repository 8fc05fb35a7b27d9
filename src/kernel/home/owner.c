/*
 * Whose a carrier is, by its ticket. A home says where its carriers are, and is believed: it is the one
 * that knows. Whose they are it need not be believed, for that their owners have signed: another
 * kernel's answer to WHERE brings the ticket along, and extensions here have it looked at by OWNER.
 * (doc/protocol.md, "Home")
 */
#include "kernel/carrier/family.h"
#include "kernel/home/families.h"

#include <string.h>

#include "kernel/carrier/admit.h"

void owner_verb(struct kernel *k, struct request *rq)
{
	const char *name = tos_get_text(rq->args, "name", "");
	char root[NAME_BYTES_MAX + 1];
	struct ticket t = { .path = NULL };
	struct cert_info owner;
	struct errmsg em = { "" };
	uint8_t id[DIGEST_BYTES];
	struct tos_value *out;
	struct slice cose;
	int rc;

	cose.p = tos_get_bytes(rq->args, "ticket", &cose.n);
	if (!cose.p || strlen(name) > NAME_BYTES_MAX) {
		request_fail(rq, ERR_MALFORMED, "OWNER wants {name, ticket}");
		return;
	}
	family_root_name(name, root);
	rc = ticket_verify(k, cose, &t, id, &owner, &em);
	if (rc == 0 && strcmp(t.name, root) != 0)
		rc = err_set(&em, ERR_DENIED, "that is the ticket of %s", t.name);
	ticket_fini(&t);
	if (rc < 0) {
		request_fail(rq, rc, "%s", err_show(rc, &em));
		return;
	}
	out = tos_map();
	tos_set(out, "owner", tos_text(owner.name));
	request_ok(rq, out);
}
