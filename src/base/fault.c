/* Fault points: see fault.h. Compiled into the tos-kernel of tests only. */
#include "base/fault.h"

#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define MAGIC      0x31544c46u /* FLT1 */
#define HOLD_MAX_S 60

enum action {
	NOTHING,
	KILL, /* as kill -9 */
	HOLD, /* this thread waits here until the cell is cleared */
	FAIL, /* the step fails */
};

struct cell {
	uint32_t action;
	uint32_t skip; /* fire at the one after so many */
	uint32_t hits, fired;
};

static struct table {
	uint32_t magic, n;
	int64_t clock_shift_ms;
	struct cell cells[FAULT_COUNT];
} * table;

void fault_open(const char *path)
{
	int fd = open(path, O_RDWR | O_CLOEXEC);
	struct stat st;
	struct table *t;

	if (fd < 0)
		return;
	if (fstat(fd, &st) < 0 || st.st_size != (off_t)sizeof(*t))
		abort();
	t = mmap(NULL, sizeof(*t), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	close(fd);
	if (t == MAP_FAILED || t->magic != MAGIC || t->n != FAULT_COUNT)
		abort();
	table = t;
}

static void hold(struct cell *c)
{
	const struct timespec nap = { 0, 2000000 };

	for (int i = 0; i < HOLD_MAX_S * 500; i++) {
		if (__atomic_load_n(&c->action, __ATOMIC_SEQ_CST) != HOLD)
			return;
		nanosleep(&nap, NULL);
	}
}

bool fault_at(unsigned point)
{
	struct cell *c;
	uint32_t action;

	if (!table || point >= FAULT_COUNT)
		return false;
	c = &table->cells[point];
	__atomic_add_fetch(&c->hits, 1, __ATOMIC_SEQ_CST);
	action = __atomic_load_n(&c->action, __ATOMIC_SEQ_CST);
	if (action == NOTHING)
		return false;
	if (c->skip > 0) {
		c->skip--;
		return false;
	}
	if (action != HOLD)
		__atomic_store_n(&c->action, NOTHING, __ATOMIC_SEQ_CST);
	__atomic_add_fetch(&c->fired, 1, __ATOMIC_SEQ_CST);
	if (action == KILL) {
		raise(SIGKILL);
		_exit(137);
	}
	if (action == HOLD)
		hold(c);
	return action == FAIL;
}

int64_t fault_clock_shift_ms(void)
{
	return table ? __atomic_load_n(&table->clock_shift_ms, __ATOMIC_SEQ_CST) : 0;
}
