/* Memory helpers: see mem.h. */
#include "base/mem.h"

#include <string.h>
#include <unistd.h>

static unsigned fault_at; /* 0: off */
static unsigned fault_count;

static void *must_have(void *p)
{
	if (!p) {
		static const char msg[] = "out of memory\n";

		(void)!write(STDERR_FILENO, msg, sizeof(msg) - 1);
		abort();
	}
	return p;
}

void *mem_zero(size_t bytes)
{
	return must_have(calloc(1, bytes ? bytes : 1));
}

void *mem_raw(size_t bytes)
{
	return must_have(malloc(bytes ? bytes : 1));
}

void *mem_dup(const void *p, size_t bytes)
{
	char *copy = must_have(bytes == SIZE_MAX ? NULL : malloc(bytes + 1));

	if (bytes)
		memcpy(copy, p, bytes);
	copy[bytes] = 0;
	return copy;
}

char *mem_strdup(const char *s)
{
	return s ? mem_dup(s, strlen(s)) : NULL;
}

static bool fault_now(void)
{
	return fault_at && ++fault_count == fault_at;
}

bool fault_alloc(unsigned nth)
{
	bool reached = nth == 1 || (fault_at && fault_count >= fault_at);

	fault_at = reached ? nth : 0;
	fault_count = 0;
	return reached;
}

void *mem_try(size_t bytes)
{
	return fault_now() ? NULL : calloc(1, bytes ? bytes : 1);
}

void *mem_try_raw(size_t bytes)
{
	return fault_now() ? NULL : malloc(bytes ? bytes : 1);
}

void *mem_try_resize(void *p, size_t bytes)
{
	return fault_now() ? NULL : realloc(p, bytes ? bytes : 1);
}

void mem_close(int fd)
{
	if (fd >= 0)
		close(fd);
}

void must_fail(const char *expr, const char *file, int line)
{
	fprintf(stderr, "%s:%d: must(%s) does not hold\n", file, line, expr);
	abort();
}

void *mem_tagged(void *p, uint32_t magic, const char *what)
{
	uint32_t tag = 0;

	if (p)
		memcpy(&tag, p, sizeof(tag));
	if (tag != magic) {
		fprintf(stderr, "a pointer that should be a struct of type %s is not\n", what);
		abort();
	}
	return p;
}
