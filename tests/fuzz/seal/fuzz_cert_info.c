/* Certificates from strangers: cert_info() and what trust_verify() does with them. */
#include "base/mem.h"
#include "seal/seal.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct slice der = { data, size };
	struct trust t = { .root_der = der, .now_ms = 1795305600000 };
	struct cert_info a, b;

	if (cert_info(der, &a, NULL) < 0)
		return 0;
	/* parsed and remembered must be the same */
	must(cert_info(der, &b, NULL) == 0 && memcmp(&a, &b, sizeof(a)) == 0);
	must(a.name[0] && strlen(a.name) <= CERT_NAME_MAX);
	must(a.serial_len >= 1 && a.serial_len <= sizeof(a.serial));
	must((a.kind == CERT_PRINCIPAL) == (a.roles != 0));
	must(!a.only[0] || a.kind == CERT_PRINCIPAL);
	must(strnlen(a.only, sizeof(a.only)) < sizeof(a.only));
	/* nothing vouches for itself */
	must(trust_verify(&t, &der, 1, &b, NULL) < 0);
	return 0;
}
