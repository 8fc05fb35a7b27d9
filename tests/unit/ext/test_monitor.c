/* What Monitor says, in a tos-ext of its own, against what the system's own tools say. */
#include "world.h"

#include <fcntl.h>
#include <math.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static bool is_ready(struct world *w)
{
	return w->n_ready > 0;
}

static struct world *monitor_world(void)
{
	struct world *w = world_new();
	struct errmsg em = { "" };

	w->library = MONITOR_SO;
	assert_int_equal(
		world_load(w, "Monitor", MONITOR_SO, "read-proc read-fs", true, &em), 0);
	assert_true(world_until(w, is_ready));
	assert_int_equal(w->ready_rc, 0);
	return w;
}

static struct sent *ask_raw(
	struct world *w, const char *what, struct tos_value *arg, int64_t msec)
{
	struct tos_value *elements = texts(what, NULL);

	if (arg)
		tos_push(elements, arg);
	if (msec >= 0) {
		struct tos_value *m = tos_map();

		tos_set(m, "msec", tos_int(msec));
		tos_push(elements, m);
	}
	return world_call(w, "Monitor", "", elements);
}

static const struct tos_value *ask(
	struct world *w, const char *what, struct tos_value *arg, int64_t msec)
{
	struct sent *s = ask_raw(w, what, arg, msec);

	if (s->kind != POST_ANSWER)
		fail_msg("%s: %s", failure_word(s), failure_text(s));
	assert_string_equal(s->folder, what);
	return tos_at(s->elements, 0);
}

/* First line of a command's output. */
static char *line_of(const char *command)
{
	static char line[4096];
	FILE *f = popen(command, "r");

	assert_non_null(f);
	line[0] = 0;
	if (!fgets(line, sizeof(line), f))
		line[0] = 0;
	pclose(f);
	line[strcspn(line, "\n")] = 0;
	return line;
}

static void os_is_what_uname_prints(void **state)
{
	struct world *w = monitor_world();
	const struct tos_value *v = ask(w, "os", NULL, -1);

	(void)state;
	assert_string_equal(tos_get_text(v, "text", ""), line_of("uname -sr"));
	assert_string_equal(tos_get_text(v, "machine", ""), line_of("uname -m"));
	assert_string_equal(tos_get_text(v, "version", ""), line_of("uname -v"));
	world_free(w);
}

static void host_load_and_memory_agree_with_the_system(void **state)
{
	struct world *w = monitor_world();
	const struct tos_value *v = ask(w, "host", NULL, -1);
	double one;

	(void)state;
	assert_string_equal(tos_get_text(v, "hostname", ""), line_of("uname -n"));
	assert_int_equal(tos_get_int(v, "cpus", 0), atoi(line_of("nproc --all")));
	assert_true(llabs(tos_get_int(v, "boot", 0) + tos_get_int(v, "uptime_ms", 0) -
			    (int64_t)time(NULL) * 1000) < 5000);
	v = ask(w, "load", NULL, -1);
	one = atof(line_of("cat /proc/loadavg"));
	assert_true(fabs(tos_get_float(v, "one", -1) - one) < 0.5);
	assert_true(tos_get_int(v, "total", 0) > 0);
	v = ask(w, "memory", NULL, -1);
	assert_int_equal(tos_get_int(v, "total", 0),
		atoll(line_of("awk '/^MemTotal/{print $2*1024}' OFMT=%.0f /proc/meminfo")));
	assert_true(tos_get_int(v, "available", 0) > 0);
	assert_true(tos_get_int(v, "free", 0) <= tos_get_int(v, "total", 0));
	world_free(w);
}

static void filesystem_equals_df(void **state)
{
	struct world *w = monitor_world();
	const struct tos_value *v = ask(w, "filesystem", tos_text("/"), -1), *all;
	int64_t total = tos_get_int(v, "total", 0), available = tos_get_int(v, "available", 0);
	bool root = false;

	(void)state;
	assert_int_equal(total, atoll(line_of("df -B1 --output=size / | tail -1")));
	assert_true(llabs(available - atoll(line_of("df -B1 --output=avail / | tail -1"))) <
		    (16 << 20)); /* others write meanwhile */
	assert_true(fabs(tos_get_float(v, "available%", -1) -
			    100.0 * (double)available / (double)total) < 0.01);
	all = ask(w, "filesystems", NULL, -1);
	for (size_t i = 0; i < tos_len(all); i++)
		root = root || strcmp(tos_get_text(tos_at(all, i), "path", ""), "/") == 0;
	assert_true(root);
	assert_string_equal(
		failure_word(ask_raw(w, "filesystem", tos_text("/no/such/place"), -1)),
		"not-found");
	assert_string_equal(
		failure_word(ask_raw(w, "filesystem", tos_text("etc"), -1)), "malformed");
	world_free(w);
}

static void what_is_written_is_no_longer_available(void **state)
{
	struct world *w = monitor_world();
	char path[] = "/tmp/tos-monitor-XXXXXX", bytes[65536];
	int fd = mkstemp(path);
	int64_t before, after;

	(void)state;
	assert_true(fd >= 0);
	memset(bytes, 'x', sizeof(bytes));
	before = tos_get_int(ask(w, "filesystem", tos_text("/tmp"), -1), "available", 0);
	for (int i = 0; i < 1024; i++)
		assert_int_equal(write(fd, bytes, sizeof(bytes)), sizeof(bytes));
	fsync(fd);
	after = tos_get_int(ask(w, "filesystem", tos_text("/tmp"), -1), "available", 0);
	unlink(path);
	close(fd);
	/* 64 MiB, give or take what others do. */
	assert_true(before - after > (48 << 20));
	world_free(w);
}

/* A child that obeys: 'm' map 64 MiB, 't' touch them, 'b' be busy until killed. */
struct child {
	pid_t pid;
	int to, from;
};

static void child_main(int in, int out)
{
	char c, *p = NULL;
	const size_t n = 64 << 20;

	while (read(in, &c, 1) == 1) {
		if (c == 'm')
			p = mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
				-1, 0);
		else if (c == 't')
			memset(p, 1, n);
		if (write(out, &c, 1) != 1)
			_exit(1);
		if (c == 'b')
			for (volatile unsigned i = 0;; i++)
				;
	}
	_exit(0);
}

static struct child child_start(void)
{
	struct child c;
	int to[2], from[2];

	assert_int_equal(pipe(to), 0);
	assert_int_equal(pipe(from), 0);
	c.pid = fork();
	if (c.pid == 0)
		child_main(to[0], from[1]);
	close(to[0]);
	close(from[1]);
	c.to = to[1];
	c.from = from[0];
	return c;
}

static void child_do(struct child *c, char what)
{
	char done;

	assert_int_equal(write(c->to, &what, 1), 1);
	assert_int_equal(read(c->from, &done, 1), 1);
}

static void child_end(struct child *c)
{
	kill(c->pid, SIGKILL);
	waitpid(c->pid, NULL, 0);
	close(c->to);
	close(c->from);
}

static void memory_of_a_process_follows_what_it_maps_and_touches(void **state)
{
	struct world *w = monitor_world();
	struct child c = child_start();
	const struct tos_value *start, *mapped, *touched;
	const int64_t mib = 1 << 20;

	(void)state;
	start = ask(w, "process", tos_int(c.pid), 0);
	assert_int_equal(tos_get_int(start, "pid", 0), c.pid);
	assert_int_equal(tos_get_int(start, "ppid", 0), getpid());
	child_do(&c, 'm');
	mapped = ask(w, "process", tos_int(c.pid), 0);
	assert_true(llabs(tos_get_int(mapped, "virtMem", 0) - tos_get_int(start, "virtMem", 0) -
			    64 * mib) < mib);
	assert_true(llabs(tos_get_int(mapped, "physMem", 0) -
			    tos_get_int(start, "physMem", 0)) < mib);
	child_do(&c, 't');
	touched = ask(w, "process", tos_int(c.pid), 0);
#ifndef TOS_SANITIZE
	assert_true(llabs(tos_get_int(touched, "physMem", 0) -
			    tos_get_int(mapped, "physMem", 0) - 64 * mib) < mib);
#else
	assert_true(tos_get_int(touched, "physMem", 0) - tos_get_int(mapped, "physMem", 0) >
		    63 * mib);
#endif
	assert_int_equal(tos_get_int(touched, "totalMem", 0),
		tos_get_int(ask(w, "memory", NULL, 0), "total", -1));
	child_end(&c);
	world_free(w);
}

/* What the kernel's own clocks say, in ms. */
struct moment {
	int64_t cpu, wall;
};

static struct moment moment_of(clockid_t id)
{
	struct timespec t;

	assert_int_equal(clock_gettime(id, &t), 0);
	return (struct moment){ t.tv_sec * 1000 + t.tv_nsec / 1000000, clock_ms() };
}

static void cpu_of_a_busy_process_is_a_whole_core(void **state)
{
	struct world *w = monitor_world();
	struct child c = child_start();
	struct moment before[2], after[2];
	const struct tos_value *v;
	double percent, least, most;
	int64_t used;
	clockid_t id;

	(void)state;
	ask(w, "process", tos_int(c.pid), 0);
	assert_int_equal(clock_getcpuclockid(c.pid, &id), 0);
	child_do(&c, 'b');
	before[0] = moment_of(id);
	used = -tos_get_int(ask(w, "process", tos_int(c.pid), 0), "time", 0);
	after[0] = moment_of(id);
	world_run(w, 1000);
	before[1] = moment_of(id);
	v = ask(w, "process", tos_int(c.pid), 0);
	after[1] = moment_of(id);
	used += tos_get_int(v, "time", 0);
	percent = tos_get_float(v, "cpu", -1);
	child_end(&c);
	/* Whatever else the machine does, and however long it takes to ask. */
	assert_true(used >= before[1].cpu - after[0].cpu - 30);
	assert_true(used <= after[1].cpu - before[0].cpu + 30);
	least = 100.0 * (double)(before[1].cpu - after[0].cpu) /
		(double)(after[1].wall - before[0].wall);
	most = 100.0 * (double)(after[1].cpu - before[0].cpu) /
	       (double)(before[1].wall - after[0].wall);
	assert_true(percent > least - 8 && percent < most + 8);
	world_free(w);
}

static void processes_are_those_that_ps_shows(void **state)
{
	struct world *w = monitor_world();
	const struct tos_value *all;
	int ours = 0, listed = 0;
	char command[128];

	(void)state;
	all = ask(w, "processes", NULL, -1);
	for (size_t i = 0; i < tos_len(all); i++) {
		const struct tos_value *p = tos_at(all, i);

		if (tos_get_int(p, "pid", 0) != getpid())
			continue;
		ours++;
		snprintf(command, sizeof(command), "ps -o comm= -p %d", getpid());
		assert_string_equal(tos_get_text(p, "name", ""), line_of(command));
	}
	assert_int_equal(ours, 1);
	listed = atoi(line_of("ls -d /proc/[0-9]* | wc -l"));
	assert_true(abs(listed - (int)tos_len(all)) <= 20);
	world_free(w);
}

static void bad_questions_say_what_is_wrong(void **state)
{
	struct world *w = monitor_world();
	struct sent *s = ask_raw(w, "process", tos_int(4194303), 0);

	(void)state;
	assert_string_equal(failure_word(s), "not-found");
	assert_string_equal(failure_text(s), "no such process");
	assert_string_equal(failure_word(ask_raw(w, "process", tos_int(-1), 0)), "malformed");
	assert_string_equal(
		failure_word(ask_raw(w, "process", tos_text("1; ls"), 0)), "malformed");
	assert_string_equal(failure_word(ask_raw(w, "process", NULL, 0)), "malformed");
	s = ask_raw(w, "weather", NULL, -1);
	assert_string_equal(failure_word(s), "malformed");
	assert_non_null(strstr(failure_text(s), "weather"));
	assert_string_equal(failure_word(world_call(w, "Monitor", "", NULL)), "malformed");
	world_free(w);
}

static void within_msec_the_same_look_serves(void **state)
{
	struct world *w = monitor_world();

	(void)state;
	ask(w, "load", NULL, 0);
	world_run(w, 30);
	assert_int_equal(world_count(w, "looked"), 1);
	for (int i = 0; i < 5; i++)
		ask(w, "load", NULL, 60000);
	ask(w, "load", NULL, 0);
	world_run(w, 30);
	assert_int_equal(world_count(w, "looked"), 2);
	assert_int_equal(world_count(w, "answered_from_cache"), 5);
	world_run(w, 120);
	ask(w, "load", NULL, 100); /* too old by now */
	world_run(w, 30);
	assert_int_equal(world_count(w, "looked"), 3);
	world_free(w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(os_is_what_uname_prints),
		cmocka_unit_test(host_load_and_memory_agree_with_the_system),
		cmocka_unit_test(filesystem_equals_df),
		cmocka_unit_test(what_is_written_is_no_longer_available),
		cmocka_unit_test(memory_of_a_process_follows_what_it_maps_and_touches),
		cmocka_unit_test(cpu_of_a_busy_process_is_a_whole_core),
		cmocka_unit_test(processes_are_those_that_ps_shows),
		cmocka_unit_test(bad_questions_say_what_is_wrong),
		cmocka_unit_test(within_msec_the_same_look_serves),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
