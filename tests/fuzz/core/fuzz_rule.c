/* Rules, one a line: any that is taken is kept as written, and deciding by them is the same
 * twice. The same as the restrictions of a certificate: they never allow what was denied, and nothing at all
 * when one of them is malformed. */
#include <string.h>

#include "base/mem.h"
#include "core/firewall.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	AUTOFREE char *text = mem_dup(data, size), *lines = mem_dup(data, size);
	struct firewall *f = firewall_new();
	struct rights only;
	struct subject s = { "carrier", "alice", 3, "host1", "", NULL, NULL };
	struct object o = { "Echo", "alice" };
	const char *why[2] = { NULL, NULL };
	int rc[2];
	char *save = NULL;

	for (char *line = strtok_r(text, "\n", &save); line;
		line = strtok_r(NULL, "\n", &save)) {
		struct errmsg em;
		size_t n = firewall_count(f);

		if (firewall_add(f, line, &em) == 0)
			must(strcmp(firewall_rule(f, n), line) == 0);
		else
			must(firewall_count(f) == n);
	}
	for (int i = 0; i < 2; i++)
		rc[i] = firewall_check(f, &s, "post", &o, &why[i]);
	must(rc[0] == rc[1] && why[0] == why[1]);
	must(firewall_count(f) > 0 || rc[0] == ERR_DENIED);
	if (rights_parse(lines, "alice", &only, NULL) < 0)
		must(only.n == 0);
	s.owner_only = &only;
	must(firewall_check(f, &s, "post", &o, NULL) == ERR_DENIED || rc[0] == 0);
	must(only.n > 0 || firewall_check(f, &s, "post", &o, NULL) == ERR_DENIED);
	firewall_free(f);
	return 0;
}
