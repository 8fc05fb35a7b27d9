/* A configuration that is read prints as one that is read and prints the same. A refused one
 * says why in one line. */
#include <string.h>

#include "base/buf.h"
#include "base/mem.h"
#include "kernel/config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct config one, two; /* large */
	struct errmsg em = { "" };
	AUTOBUF first = BUF_INIT, second = BUF_INIT;

	if (config_parse((const char *)data, size, "tosd.conf", &one, &em) < 0) {
		must(em.text[0] && !strchr(em.text, '\n'));
		return 0;
	}
	must(config_print(&one, &first) == 0);
	if (config_parse((const char *)first.data, first.len, "tosd.conf", &two, &em) < 0) {
		fprintf(stderr, "%s\n%s\n", em.text, buf_cstr(&first));
		abort();
	}
	must(config_print(&two, &second) == 0);
	must(first.len == second.len && memcmp(first.data, second.data, first.len) == 0);
	config_fini(&one);
	config_fini(&two);
	return 0;
}
