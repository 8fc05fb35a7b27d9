/*
 * What all processes of a program hold in memory together. Runs in process 1 of its sandbox, whose /proc shows these and
 * no others. Nothing is allocated. See sandbox.h.
 */
#include "sandbox/sandbox.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/mem.h"

struct entry { /* as getdents64() has it */
	uint64_t ino;
	int64_t off;
	uint16_t bytes;
	uint8_t type;
	char name[];
};

uint64_t sandbox_sum_kb(const char *text, const char *const *keys, size_t n_keys, size_t *found)
{
	uint64_t sum = 0;

	*found = 0;
	while (*text) {
		size_t line = strcspn(text, "\n");

		for (size_t i = 0; i < n_keys; i++) {
			size_t n = strlen(keys[i]);

			if (line > n && strncmp(text, keys[i], n) == 0 && text[n] == ':') {
				sum += strtoull(text + n + 1, NULL, 10) * 1024;
				++*found;
			}
		}
		text += line + (text[line] == '\n');
	}
	return sum;
}

static bool read_text(const char *pid, const char *file, char *out, size_t cap)
{
	char path[64];
	size_t at = 0;
	ssize_t n;
	int fd;

	if (snprintf(path, sizeof(path), "/proc/%s/%s", pid, file) >= (int)sizeof(path))
		return false;
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return false;
	while (at + 1 < cap && (n = read(fd, out + at, cap - 1 - at)) > 0)
		at += (size_t)n;
	mem_close(fd);
	out[at] = 0;
	return at > 0;
}

/* Pages of files are not counted: the host takes them back when it needs them. */
static uint64_t held_by(const char *pid, bool exact)
{
	static const char *const quick[] = { "RssAnon", "RssShmem", "VmSwap" };
	static const char *const shared[] = { "Pss_Anon", "Pss_Shmem", "SwapPss" };
	static char text[8192];
	uint64_t sum;
	size_t found;

	/* Takes as long as the memory is large, and one that hides itself can't be looked into. */
	if (exact && read_text(pid, "smaps_rollup", text, sizeof(text))) {
		sum = sandbox_sum_kb(text, shared, ARRAY_LEN(shared), &found);
		if (found == ARRAY_LEN(shared))
			return sum;
	}
	return read_text(pid, "status", text, sizeof(text))
		       ? sandbox_sum_kb(text, quick, ARRAY_LEN(quick), &found)
		       : 0;
}

uint64_t sandbox_held(bool exact)
{
	static _Alignas(struct entry) char block[4096];
	AUTOCLOSE int fd = open("/proc", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	uint64_t sum = 0;
	long n;

	if (fd < 0)
		return 0;
	while ((n = syscall(SYS_getdents64, fd, block, sizeof(block))) > 0)
		for (long at = 0; at < n;) {
			const struct entry *e = (const void *)(block + at);

			if (e->name[0] >= '1' && e->name[0] <= '9' && strcmp(e->name, "1") != 0)
				sum += held_by(e->name, exact);
			at += e->bytes;
		}
	return sum;
}
