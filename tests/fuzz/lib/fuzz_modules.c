/* The scanner for require: what it finds lies within the text, in order, each on a line that there is. */
#include <string.h>

#include "base/mem.h"
#include "lib/modules.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	AUTOFREE char *text = mem_dup(data, size);
	struct module_scan s;
	struct module_use use;
	const char *at = text;
	unsigned lines = 1;

	for (size_t i = 0; i < size; i++)
		lines += text[i] == '\n';
	module_scan_init(&s, text, size);
	while (module_scan_next(&s, &use)) {
		must(use.name >= at && use.name + use.n <= text + size);
		must(use.line >= 1 && use.line <= lines);
		at = use.name;
	}
	must(s.p == text + size);
	return 0;
}
