/* Enrolment tokens: what parses is written again to the same text. */
#include "base/mem.h"
#include "seal/seal.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	AUTOFREE char *text = mem_dup(data, size);
	AUTOBUF again = BUF_INIT;
	struct token t;

	if (token_parse(text, &t, NULL) < 0)
		return 0;
	must(token_text(&t, &again) == 0);
	must(strcmp(buf_cstr(&again), text) == 0);
	return 0;
}
