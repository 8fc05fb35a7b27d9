/* Memory helpers: see mem.h. */
#include "base/mem.h"

#include <malloc.h>
#include <string.h>
#include <sys/mman.h>
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

/* ---- many small things at once */

#define EXPECT_LEAST ((size_t)8 << 20)
#define EXPECT_MOST  ((size_t)1 << 30)
#define PIECE        ((size_t)100 << 10) /* below what malloc maps for itself */

#if defined(__GLIBC__) && !defined(TOS_SANITIZE) && !defined(TOS_SMALL)
static bool expecting;

/* To say how much it grows by, malloc wants to be told also what it finds out else: what is mapped for
 * itself and when memory is given back. These are what it comes to in a process that has had some
 * large things. */
void mem_expect(size_t bytes)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	void *a, *b;
	uintptr_t from, to;

	if (bytes < EXPECT_LEAST)
		return;
	bytes = bytes < EXPECT_MOST ? bytes : EXPECT_MOST;
	mallopt(M_MMAP_THRESHOLD, 4 << 20);
	mallopt(M_TRIM_THRESHOLD, 8 << 20);
	mallopt(M_TOP_PAD, (int)bytes);
	expecting = true;
	/* Two, as the first may still fit where the heap ends now. */
	a = malloc(PIECE);
	b = malloc(PIECE);
	from = (uintptr_t)a;
	to = (uintptr_t)sbrk(0);
	if (a && b && from < to && to - from >= bytes) { /* else it is not there that it grew */
		from = (from + page - 1) / page * page;
		(void)madvise((void *)from, to - from, MADV_HUGEPAGE); /* or in small ones */
	}
	free(b);
	free(a);
}

void mem_expected(void)
{
	if (expecting)
		mallopt(M_TOP_PAD, 128 << 10);
	expecting = false;
}
#else
void mem_expect(size_t bytes)
{
	(void)bytes;
}

void mem_expected(void)
{
}
#endif

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
