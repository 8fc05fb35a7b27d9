/*
 * The table: limits and layers of each kind of process (the calls are in filter.c). See
 * sandbox.h.
 */
#include "sandbox/sandbox.h"

#include <string.h>

#include "base/mem.h"

#ifdef TOS_SANITIZE
/* Sanitizer builds: shadow memory is larger than any address space limit, the runtimes keep
 * descriptors of their own, write reports and start threads. */
#define SAN(plain, wide) (wide)
#else
#define SAN(plain, wide) (plain)
#endif
/* The small profile (meson -Dsmall=true) states what a node needs: its kernel gets no more. */
#ifdef TOS_SMALL
#define KERNEL_AS SAN((uint64_t)TOS_SMALL_KERNEL_MIB << 20, NONE)
#else
#define KERNEL_AS NONE
#endif
/* The operator's own file may lie in somebody's home. */
#define READ_ANY (1ull << 1 | 1ull << 2) /* CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH */
/* CAP_SETGID, CAP_SETUID, CAP_SETPCAP, CAP_SYS_ADMIN */
#define BUILD (1ull << 6 | 1ull << 7 | 1ull << 8 | 1ull << 21)
#define NONE  SANDBOX_UNLIMITED
#define PLAN  SANDBOX_FROM_PLAN

/* clang-format off */
static const struct sandbox_profile profiles[SANDBOX_KINDS] = {
	/*                     name        kill              ns     mdwe              landl
	 *                         denies  caps      root                oom   as     data
	 *                                 cpu   fsize         nofile       core mlock nproc
	 *                                 msgq  sigpend */
	[SANDBOX_KERNEL]   = { "kernel",   false,            false, false, SAN(true, false), true,  0,        SANDBOX_ROOT_HOST,  0,    KERNEL_AS, NONE,       NONE, NONE,         NONE,        0,   0,    NONE,         0,    NONE },
	[SANDBOX_CHECK]    = { "check",    false,            false, false, SAN(true, false), true,  READ_ANY, SANDBOX_ROOT_HOST,  0,    SAN(PLAN, NONE), NONE, PLAN, NONE,         64,          0,   0,    NONE,         0,    NONE },
	[SANDBOX_LAUNCHER] = { "launcher", false,            false, false, false,            false, BUILD,    SANDBOX_ROOT_HOST,  0,    NONE, NONE,            NONE, NONE,         NONE,        0,   NONE, NONE,         NONE, NONE },
	[SANDBOX_VM]       = { "vm",       SAN(true, false), false, true,  SAN(true, false), true,  0,        SANDBOX_ROOT_EMPTY, 1000, SAN(PLAN, NONE), NONE, PLAN, SAN(0, NONE), SAN(16, 64), 0,   0,    SAN(1, NONE), 0,    16 },
	[SANDBOX_EXT]      = { "ext",      false,            false, true,  SAN(true, false), true,  0,        SANDBOX_ROOT_EMPTY, 500,  SAN(PLAN, NONE), NONE, NONE, SAN(0, NONE), 64,          0,   0,    SAN(64, NONE), 0,   64 },
	[SANDBOX_MAKER]    = { "programs", false,            true,  false, false,         false, BUILD,    SANDBOX_ROOT_HOST,  0,    NONE,            NONE, NONE, NONE,         NONE,        0,   NONE, NONE,         NONE, NONE },
	[SANDBOX_PROGRAM]  = { "program",  false,            true,  true,  false,         true,  0,        SANDBOX_ROOT_HOST,  1000, SAN(PLAN, NONE),  SAN(PLAN, NONE), PLAN, PLAN,         PLAN,        0,   64 << 10, PLAN,     0,    64 },
};
/* clang-format on */

const struct sandbox_profile *sandbox_profile(enum sandbox_kind kind)
{
	must((unsigned)kind < SANDBOX_KINDS);
	return &profiles[kind];
}

int sandbox_privileges(const char *words, uint32_t *out, struct errmsg *em)
{
	static const struct {
		const char *word;
		uint32_t bit;
	} known[] = { { "read-proc", SANDBOX_READ_PROC }, { "read-fs", SANDBOX_READ_FS },
		{ "directory", SANDBOX_DIRECTORY },
		/* nothing in the sandbox: the kernel connects, and accepts, for it */
		{ "net-out", 0 }, { "net-in", 0 } };
	uint32_t bits = 0;

	while (*words) {
		size_t len = strcspn(words, " ,"), i;

		for (i = 0; i < ARRAY_LEN(known); i++)
			if (strlen(known[i].word) == len &&
				memcmp(known[i].word, words, len) == 0)
				break;
		if (len > 0 && i == ARRAY_LEN(known))
			return err_set(
				em, ERR_CONFIG, "unknown privilege \"%.*s\"", (int)len, words);
		if (len > 0)
			bits |= known[i].bit;
		words += len;
		words += strspn(words, " ,");
	}
	if ((bits & SANDBOX_DIRECTORY) && (bits & SANDBOX_READ_FS))
		return err_set(em, ERR_CONFIG,
			"privileges \"directory\" and \"read-fs\" exclude each other");
	*out = bits;
	return 0;
}

const char *const sandbox_layer_names[] = { "full", "user-namespace", "mount-namespace",
	"pid-namespace", "net-namespace", "ipc-namespace", "uts-namespace", "own-uid",
	"landlock", "seccomp", "no-new-privs", "capabilities", "mdwe", "rlimits", "oom-score",
	"memory-limit", "cpu-limit", "freeze", NULL };

const struct sandbox_layer *sandbox_layer_find(const struct sandbox_host *h, const char *name)
{
	for (uint32_t i = 0; i < h->n; i++)
		if (strcmp(h->layer[i].name, name) == 0)
			return &h->layer[i];
	return NULL;
}
