/*
 * What the certificates of principals allow at most: taken apart once and kept for as long as the kernel
 * runs, since whoever speaks for a carrier or a client holds on to it (struct origin). Only certificates
 * that were verified come here, so no stranger can fill the table.
 */
#include "kernel/trust/trust.h"

#include <string.h>

#define RIGHTS_KEPT_MAX 1024

/* Where there is no room for another one: what is not known is not allowed. */
static struct rights none = { .of = "?",
	.otherwise = "too many certificates with restrictions are known here" };

static void not_understood(const struct cert_info *who, const char *why)
{
	log_warning("a restriction in a certificate is not understood: it allows nothing",
		KV_STR("principal", who->name), KV_STR("reason", why));
}

const struct rights *rights_of(struct kernel *k, const struct cert_info *who)
{
	char key[sizeof(who->name) + sizeof(who->only) + 1];
	struct errmsg em = { "" };
	struct rights *r;

	if (!who->only[0])
		return NULL;
	if (!k->rights)
		k->rights = map_new();
	snprintf(key, sizeof(key), "%s\n%s", who->name, who->only);
	r = map_find_str(k->rights, key);
	if (r)
		return r;
	if (map_size(k->rights) >= RIGHTS_KEPT_MAX) {
		log_warning("there is no room for another certificate's restrictions",
			KV_STR("principal", who->name));
		return &none;
	}
	r = mem_new(struct rights);
	if (rights_parse(who->only, who->name, r, &em) < 0)
		not_understood(who, em.text);
	map_put_str(k->rights, key, r);
	return r;
}
