/*
 * What a new revocation list ends at this kernel, room by room: a revoked owner's or author's carriers
 * are killed, a revoked kernel's links closed, clients are nobody's, an officer's extensions removed.
 */
#include "kernel/carrier/admit.h"
#include "kernel/kernel.h"
#include "kernel/services/extender.h"
#include "kernel/trust/introduce.h"
#include "kernel/trust/trust.h"

void kernel_revoked(struct kernel *k)
{
	struct link *l, *next;

	residents_revoked(k);
	for (l = links_next(k->links, NULL); l; l = next) {
		next = links_next(k->links, l);
		if (link_cert(l) && cert_revoked(k, link_cert(l)))
			link_close(l, ERR_REVOKED, "the certificate was revoked");
	}
	introduced_revoke(k);
	extender_recheck(k);
}
