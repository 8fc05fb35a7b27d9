/*
 * What certificates say, once for all carriers whose owner or author has one: ten thousand carriers
 * have few owners.
 */
#include "kernel/trust/trust.h"

#include <string.h>

#include "base/clock.h"

struct kept {
	struct cert_info info; /* first: what is lent is this */
	size_t refs;
};

static struct map *kept_certs; /* fingerprint -> struct kept */

const struct cert_info cert_nobody;

void cert_keep(const struct cert_info **at, const struct cert_info *info)
{
	const struct cert_info *before = *at;
	struct kept *found;

	if (!kept_certs)
		kept_certs = map_new();
	found = map_find(kept_certs, info->fingerprint, DIGEST_BYTES);
	if (!found) {
		found = mem_new(struct kept);
		found->info = *info;
		map_put(kept_certs, found->info.fingerprint, DIGEST_BYTES, found);
	}
	found->refs++;
	*at = &found->info;
	cert_leave(&before); /* info may be that */
}

void cert_leave(const struct cert_info **at)
{
	struct kept *kept;

	if (*at != &cert_nobody) {
		kept = CONTAINER_OF((struct cert_info *)(uintptr_t)*at, struct kept, info);
		if (--kept->refs == 0) {
			map_del(kept_certs, kept->info.fingerprint, DIGEST_BYTES);
			free(kept);
		}
	}
	*at = &cert_nobody;
}

void kernel_trust(const struct kernel *k, struct trust *out)
{
	*out = (struct trust){ .root_der = { k->root_der.data, k->root_der.len },
		.revocation = k->revocation,
		.now_ms = clock_wall_ms(),
		.skew_ms = k->config.skew_ms };
}

uint64_t kernel_trust_number(const struct kernel *k)
{
	return k->revocation ? revocation_number(k->revocation) + 1 : 0;
}
