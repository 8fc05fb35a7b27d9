/* An address that parses prints as the bytes it came from. */
#include <string.h>

#include "base/mem.h"
#include "core/name.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct address a;
	struct errmsg em;
	char text[200];

	if (address_parse((const char *)data, size, &a, &em) < 0)
		return 0;
	must(address_text(&a, text, sizeof(text)) == 0);
	must(strlen(text) == size && memcmp(text, data, size) == 0);
	must(a.kind == ADDRESS_INBOX || name_kernel_ok(a.kernel));
	must(a.kind != ADDRESS_INBOX || name_inbox_ok(a.inbox));
	return 0;
}
