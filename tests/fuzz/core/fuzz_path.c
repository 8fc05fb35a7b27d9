/* A path that parses, written with commas and parsed again, is the same; each choice is a
 * kernel's name. */
#include <string.h>

#include "base/buf.h"
#include "base/mem.h"
#include "core/name.h"
#include "core/path.h"
#include "tos/value.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_entry(const char *entry)
{
	char name[64];

	if (entry[0] == '@')
		return;
	must(path_choice(entry, 0, name) == 0);
	for (unsigned i = 0; path_choice(entry, i, name) == 0; i++)
		must(name_kernel_ok(name));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const char *const kernels[] = { "host0", "host1" };
	AUTOFREE char *text = mem_dup(data, size);
	struct tos_value *path, *again;
	struct errmsg em;
	AUTOBUF out = BUF_INIT;

	if (path_parse(text, &path, &em) < 0)
		return 0;
	for (size_t i = 0; i < tos_len(path); i++) {
		const char *entry = tos_as_text(tos_at(path, i), "");

		check_entry(entry);
		buf_printf(&out, "%s%s", i ? "," : "", entry);
	}
	must(path_parse(buf_cstr(&out), &again, &em) == 0);
	must(tos_equal(path, again));
	must(path_is_suffix(again, path));
	if (path_expand(path, kernels, 2, &em) == 0)
		must(tos_len(path) >= tos_len(again));
	tos_value_free(path);
	tos_value_free(again);
	return 0;
}
