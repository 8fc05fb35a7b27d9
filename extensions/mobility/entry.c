/* Entries of paths, taken apart: see entry.h. */
#include "entry.h"

#include <string.h>

const char *entry_next(const char **left, size_t *n)
{
	const char *name = *left;

	if (!name)
		return NULL;
	*n = strcspn(name, "|");
	*left = name[*n] ? name + *n + 1 : NULL;
	return name;
}

bool entry_has(const char *entry, const char *kernel)
{
	const char *name;
	size_t n;

	while ((name = entry_next(&entry, &n)))
		if (n == strlen(kernel) && memcmp(name, kernel, n) == 0)
			return true;
	return false;
}
