/* Whatever our reader accepts, libcbor must accept, to the last byte and as the same kind of
 * item. */
#include <cbor.h>

#include "base/mem.h"
#include "wire/cbor.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static cbor_type expected(const uint8_t *data)
{
	return (cbor_type)(data[0] >> 5);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct cbor_load_result result;
	cbor_item_t *item;

	if (cbor_check(data, size, true) < 0)
		return 0;
	item = cbor_load(data, size, &result);
	must(item && result.error.code == CBOR_ERR_NONE);
	must(result.read == size);
	must(cbor_typeof(item) == expected(data));
	cbor_decref(&item);
	return 0;
}
