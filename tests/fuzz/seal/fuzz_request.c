/* Signing requests from strangers: request_parse(). */
#include "base/mem.h"
#include "seal/seal.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct cert_request a;

	if (request_parse((struct slice){ data, size }, &a, NULL) < 0)
		return 0;
	must(a.name[0] && strlen(a.name) <= CERT_NAME_MAX && a.roles);
	return 0;
}
