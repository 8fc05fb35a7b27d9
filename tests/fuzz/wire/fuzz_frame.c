/*
 * What decodes must encode to the same bytes. One target for each kind: FUZZ_KIND is a name of
 * tests/unit/wire/samples.h, or "cbor" for values.
 */
#include <string.h>

#include "base/err.h"
#include "base/mem.h"
#include "samples.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	AUTOBUF out = BUF_INIT;
	bool open;
	int rc = sample_again(FUZZ_KIND, (struct slice){ data, size }, &out, &open);

	must(rc != ERR_USAGE);
	if (rc < 0 || open)
		return 0;
	must(!out.failed);
	must(out.len == size && memcmp(out.data, data, size) == 0);
	return 0;
}
