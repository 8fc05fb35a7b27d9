/*
 * Monitor: what the operating system says about this host. Isolated: it reads /proc and the
 * sizes of file systems, and nothing else. Each request may say how old the answer may be
 * (msec), so that many callers cost one look.
 *
 * Units: time in ms, memory and sizes in bytes, cpu in percent of one core, percentages 0 to
 * 100.
 */
#include <tos/extension.h>

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

#define CACHED_MAX    32
#define PROCESSES_MAX 8192 /* in one answer */
#define SEEN_MAX      16384
#define KEY_BYTES     256
#define SHARE_MS      500 /* a share of the CPU is taken over at least so long */

/* What was answered, and when. */
struct cached {
	char key[KEY_BYTES];
	int64_t at;
	struct tos_value *value;
};

/* A process at the last look, for its share of the CPU since then. */
struct seen {
	int pid;
	unsigned long long start; /* ticks since boot: pids come again */
	double cpu_ms;
	int64_t at;
	double percent; /* what was reported then */
};

struct monitor {
	struct cached cached[CACHED_MAX];
	struct seen *seen; /* sorted by pid */
	size_t n_seen;
	double tick_ms;
	long page;
	int64_t total_memory;
};

/* ---- reading ---- */

/* A whole small file with a NUL behind it, or NULL. */
static char *file_read(const char *path, size_t most)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	char *s = fd >= 0 ? malloc(most + 1) : NULL;
	size_t len = 0;
	ssize_t n = 0;

	while (s && len < most && (n = read(fd, s + len, most - len)) > 0)
		len += (size_t)n;
	if (fd >= 0)
		close(fd);
	if (!s || n < 0) {
		free(s);
		return NULL;
	}
	s[len] = 0;
	return s;
}

/* "Key:   1234 kB" of a file such as meminfo, in its own unit; -1 if it is not there. */
static int64_t field(const char *text, const char *key)
{
	size_t n = strlen(key);

	for (const char *line = text; line; line = strchr(line, '\n')) {
		line += *line == '\n';
		if (strncmp(line, key, n) == 0 && line[n] == ':')
			return strtoll(line + n + 1, NULL, 10);
		if (!*line)
			break;
	}
	return -1;
}

static struct tos_value *text_safe(const char *s)
{
	struct tos_value *v = tos_text(s);
	char clean[1024];
	size_t i = 0;

	if (v)
		return v;
	for (; s[i] && i < sizeof(clean) - 1; i++)
		clean[i] = (unsigned char)s[i] < 0x80 ? s[i] : '?';
	clean[i] = 0;
	return tos_text(clean);
}

/* ---- the host ---- */

static int get_os(struct monitor *mon, const char *arg, struct tos_value **out)
{
	struct utsname u;
	struct tos_value *v = tos_map();

	(void)mon;
	(void)arg;
	uname(&u);
	tos_set(v, "name", text_safe(u.sysname));
	tos_set(v, "release", text_safe(u.release));
	tos_set(v, "version", text_safe(u.version));
	tos_set(v, "machine", text_safe(u.machine));
	tos_set(v, "text", tos_textf("%s %s", u.sysname, u.release));
	*out = v;
	return 0;
}

static int get_host(struct monitor *mon, const char *arg, struct tos_value **out)
{
	char *name = file_read("/proc/sys/kernel/hostname", 256),
	     *up = file_read("/proc/uptime", 256), *stat = file_read("/proc/stat", 1 << 20);
	struct tos_value *v = tos_map();
	struct utsname u;

	(void)mon;
	(void)arg;
	uname(&u);
	if (name)
		name[strcspn(name, "\n")] = 0;
	/* The sandbox may have a name of its own; the file is the namespace's too, but says the
	 * same. */
	tos_set(v, "hostname", text_safe(name && *name ? name : u.nodename));
	tos_set(v, "uptime_ms", tos_int(up ? (int64_t)(strtod(up, NULL) * 1000) : 0));
	tos_set(v, "cpus", tos_int(sysconf(_SC_NPROCESSORS_ONLN)));
	if (stat && strstr(stat, "\nbtime "))
		tos_set(v, "boot",
			tos_int(strtoll(strstr(stat, "\nbtime ") + 7, NULL, 10) * 1000));
	free(name);
	free(up);
	free(stat);
	*out = v;
	return 0;
}

static int get_load(struct monitor *mon, const char *arg, struct tos_value **out)
{
	char *s = file_read("/proc/loadavg", 256);
	double one, five, fifteen;
	long running, total;
	struct tos_value *v;

	(void)mon;
	(void)arg;
	if (!s || sscanf(s, "%lf %lf %lf %ld/%ld", &one, &five, &fifteen, &running, &total) !=
			  5) {
		free(s);
		return TOS_ERR_IO;
	}
	free(s);
	v = tos_map();
	tos_set(v, "one", tos_float(one));
	tos_set(v, "five", tos_float(five));
	tos_set(v, "fifteen", tos_float(fifteen));
	tos_set(v, "running", tos_int(running));
	tos_set(v, "total", tos_int(total));
	*out = v;
	return 0;
}

static int get_memory(struct monitor *mon, const char *arg, struct tos_value **out)
{
	static const struct {
		const char *name, *key;
	} fields[] = { { "total", "MemTotal" }, { "free", "MemFree" },
		{ "available", "MemAvailable" }, { "swapTotal", "SwapTotal" },
		{ "swapFree", "SwapFree" } };
	char *s = file_read("/proc/meminfo", 65536);
	struct tos_value *v;

	(void)mon;
	(void)arg;
	if (!s)
		return TOS_ERR_IO;
	v = tos_map();
	for (size_t i = 0; i < sizeof(fields) / sizeof(*fields); i++) {
		int64_t kib = field(s, fields[i].key);

		if (kib >= 0)
			tos_set(v, fields[i].name, tos_int(kib * 1024));
	}
	free(s);
	*out = v;
	return 0;
}

/* ---- file systems ---- */

static struct tos_value *filesystem(const char *path)
{
	struct statvfs s;
	struct tos_value *v;
	uint64_t total, available;

	if (statvfs(path, &s) < 0)
		return NULL;
	total = (uint64_t)s.f_blocks * s.f_frsize;
	available = (uint64_t)s.f_bavail * s.f_frsize;
	if (total > INT64_MAX || available > INT64_MAX)
		return NULL;
	v = tos_map();
	tos_set(v, "path", text_safe(path));
	tos_set(v, "total", tos_int((int64_t)total));
	tos_set(v, "available", tos_int((int64_t)available));
	tos_set(v, "available%",
		tos_float(total ? 100.0 * (double)available / (double)total : 0));
	return v;
}

static int get_filesystem(struct monitor *mon, const char *arg, struct tos_value **out)
{
	(void)mon;
	if (*arg != '/')
		return TOS_ERR_MALFORMED;
	*out = filesystem(arg);
	return *out ? 0 : errno == EACCES ? TOS_ERR_DENIED : TOS_ERR_NOT_FOUND;
}

/* mountinfo writes blanks and the like as \040. */
static void unescape(char *s)
{
	char *to = s;

	for (; *s; s++) {
		if (s[0] == '\\' && isdigit((unsigned char)s[1]) &&
			isdigit((unsigned char)s[2]) && isdigit((unsigned char)s[3])) {
			*to++ = (char)((s[1] - '0') * 64 + (s[2] - '0') * 8 + (s[3] - '0'));
			s += 3;
		} else {
			*to++ = *s;
		}
	}
	*to = 0;
}

/* "36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw" */
static void mount_add(struct tos_value *all, char *line)
{
	char dev[32], point[1024], type[64], source[1024];
	char *rest = strstr(line, " - ");
	struct tos_value *v;

	if (!rest || sscanf(line, "%*s %*s %31s %*s %1023s", dev, point) != 2 ||
		sscanf(rest, " - %63s %1023s", type, source) != 2)
		return;
	unescape(point);
	unescape(source);
	v = filesystem(point);
	/* Those without blocks (proc, sysfs, ...) hold nothing. */
	if (!v || tos_get_int(v, "total", 0) == 0) {
		tos_value_free(v);
		return;
	}
	for (size_t i = 0; i < tos_len(all); i++)
		if (strcmp(tos_get_text(tos_at(all, i), "path", ""), point) == 0) {
			tos_value_free(v); /* mounted over: statvfs sees the upper one, once */
			return;
		}
	tos_set(v, "type", text_safe(type));
	tos_set(v, "source", text_safe(source));
	tos_set(v, "device", text_safe(dev));
	tos_push(all, v);
}

static int get_filesystems(struct monitor *mon, const char *arg, struct tos_value **out)
{
	/* Of the first process: ours sees what the sandbox shows it. */
	char *s = file_read("/proc/1/mountinfo", 1 << 20), *line, *save;

	(void)mon;
	(void)arg;
	if (!s || !*s) {
		free(s);
		s = file_read("/proc/self/mountinfo", 1 << 20);
	}
	if (!s)
		return TOS_ERR_IO;
	*out = tos_array();
	for (line = strtok_r(s, "\n", &save); line && tos_len(*out) < 1024;
		line = strtok_r(NULL, "\n", &save))
		mount_add(*out, line);
	free(s);
	return 0;
}

/* ---- processes ---- */

struct process {
	int pid, ppid;
	char name[64], state;
	double cpu_ms;
	unsigned long long start;
	int64_t virt, phys;
	long threads;
};

static struct seen *seen_find(struct monitor *mon, int pid)
{
	size_t low = 0, high = mon->n_seen;

	while (low < high) {
		size_t middle = (low + high) / 2;

		if (mon->seen[middle].pid < pid)
			low = middle + 1;
		else
			high = middle;
	}
	return low < mon->n_seen && mon->seen[low].pid == pid ? &mon->seen[low] : NULL;
}

static bool process_read(struct monitor *mon, int pid, struct process *p)
{
	char path[64], *s, *open_at, *close_at;
	unsigned long long user, system, start;
	unsigned long virt;
	long phys, threads;
	size_t n;
	bool ok;

	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	s = file_read(path, 4096);
	open_at = s ? strchr(s, '(') : NULL;
	close_at = s ? strrchr(s, ')') : NULL; /* a name may hold ')' */
	ok = open_at && close_at && close_at > open_at &&
	     sscanf(close_at + 1,
		     " %c %d %*d %*d %*d %*d %*u %*u %*u %*u %*u %llu %llu %*d %*d %*d %*d %ld "
		     "%*d %llu %lu %ld",
		     &p->state, &p->ppid, &user, &system, &threads, &start, &virt, &phys) == 8;
	if (ok) {
		n = (size_t)(close_at - open_at - 1);
		if (n >= sizeof(p->name))
			n = sizeof(p->name) - 1;
		memcpy(p->name, open_at + 1, n);
		p->name[n] = 0;
		p->pid = pid;
		p->start = start;
		p->threads = threads;
		p->virt = (int64_t)virt;
		p->phys = (int64_t)phys * mon->page;
		p->cpu_ms = (double)(user + system) * mon->tick_ms;
	}
	free(s);
	return ok;
}

/* Its share since the last look; since its start at the first one. */
static double cpu_percent(
	struct monitor *mon, const struct process *p, int64_t now, struct seen *put)
{
	struct seen *old = seen_find(mon, p->pid);
	struct timespec boot;
	double percent;

	if (old && old->start == p->start && now - old->at < SHARE_MS) {
		*put = *old; /* too short for a figure: a tick is 10 ms */
		return old->percent;
	}
	if (old && old->start == p->start) {
		percent = 100.0 * (p->cpu_ms - old->cpu_ms) / (double)(now - old->at);
	} else {
		double alive;

		clock_gettime(CLOCK_BOOTTIME, &boot);
		alive = (double)boot.tv_sec * 1000 + (double)boot.tv_nsec / 1e6 -
			(double)p->start * mon->tick_ms;
		percent = alive > 0 ? 100.0 * p->cpu_ms / alive : 0;
	}
	if (percent < 0)
		percent = 0;
	*put = (struct seen){ p->pid, p->start, p->cpu_ms, now, percent };
	return percent;
}

static struct tos_value *process_value(
	struct monitor *mon, const struct process *p, double percent)
{
	struct tos_value *v = tos_map();
	char state[2] = { p->state, 0 };

	tos_set(v, "pid", tos_int(p->pid));
	tos_set(v, "ppid", tos_int(p->ppid));
	tos_set(v, "name", text_safe(p->name));
	tos_set(v, "state", text_safe(state));
	tos_set(v, "cpu", tos_float(round(percent * 10) / 10));
	tos_set(v, "time", tos_int((int64_t)p->cpu_ms));
	tos_set(v, "physMem", tos_int(p->phys));
	tos_set(v, "virtMem", tos_int(p->virt));
	tos_set(v, "totalMem", tos_int(mon->total_memory));
	tos_set(v, "threads", tos_int(p->threads));
	return v;
}

/* Remember one process; its place in the sorted table is kept. */
static void seen_put(struct monitor *mon, struct seen s)
{
	struct seen *old = seen_find(mon, s.pid), *more;
	size_t i = mon->n_seen;

	if (old) {
		*old = s;
		return;
	}
	if (mon->n_seen == SEEN_MAX)
		return;
	more = realloc(mon->seen, (mon->n_seen + 1) * sizeof(s));
	if (!more)
		return;
	mon->seen = more;
	for (; i && more[i - 1].pid > s.pid; i--)
		more[i] = more[i - 1];
	more[i] = s;
	mon->n_seen++;
}

static int64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static int get_process(struct monitor *mon, const char *arg, struct tos_value **out)
{
	struct process p;
	struct seen s;
	char *end;
	long pid = strtol(arg, &end, 10);
	double percent;

	if (end == arg || *end || pid < 1 || pid > 4194304)
		return TOS_ERR_MALFORMED;
	if (!process_read(mon, (int)pid, &p))
		return TOS_ERR_NOT_FOUND;
	percent = cpu_percent(mon, &p, now_ms(), &s);
	seen_put(mon, s);
	*out = process_value(mon, &p, percent);
	return 0;
}

static int by_pid(const void *a, const void *b)
{
	const struct seen *x = a, *y = b;

	return (x->pid > y->pid) - (x->pid < y->pid);
}

static int get_processes(struct monitor *mon, const char *arg, struct tos_value **out)
{
	DIR *d = opendir("/proc");
	struct seen *seen = calloc(PROCESSES_MAX, sizeof(*seen));
	struct tos_value *all = tos_array();
	int64_t now = now_ms();
	struct dirent *e;
	size_t n = 0;

	(void)arg;
	if (!d || !seen) {
		if (d)
			closedir(d);
		free(seen);
		tos_value_free(all);
		return TOS_ERR_IO;
	}
	while (n < PROCESSES_MAX && (e = readdir(d))) {
		struct process p;
		int pid = atoi(e->d_name);

		if (pid > 0 && process_read(mon, pid, &p)) {
			tos_push(all,
				process_value(mon, &p, cpu_percent(mon, &p, now, &seen[n])));
			n++;
		}
	}
	closedir(d);
	qsort(seen, n, sizeof(*seen), by_pid);
	free(mon->seen);
	mon->seen = seen;
	mon->n_seen = n;
	*out = all;
	return 0;
}

/* ---- requests ---- */

static const struct {
	const char *word;
	bool takes_arg;
	int (*get)(struct monitor *mon, const char *arg, struct tos_value **out);
	const char *missing; /* the sentence of not-found */
} questions[] = {
	{ "os", false, get_os, "" },
	{ "host", false, get_host, "" },
	{ "load", false, get_load, "" },
	{ "memory", false, get_memory, "" },
	{ "filesystem", true, get_filesystem, "no such path" },
	{ "filesystems", false, get_filesystems, "" },
	{ "process", true, get_process, "no such process" },
	{ "processes", false, get_processes, "" },
};
#define QUESTIONS (sizeof(questions) / sizeof(*questions))

static struct cached *cached_find(struct monitor *mon, const char *key)
{
	for (size_t i = 0; i < CACHED_MAX; i++)
		if (mon->cached[i].value && strcmp(mon->cached[i].key, key) == 0)
			return &mon->cached[i];
	return NULL;
}

/* Takes the place of the same question, of none, or of the oldest. */
static struct cached *cached_place(struct monitor *mon, const char *key)
{
	struct cached *c = cached_find(mon, key), *oldest = &mon->cached[0];

	for (size_t i = 0; !c && i < CACHED_MAX; i++) {
		if (!mon->cached[i].value)
			c = &mon->cached[i];
		else if (mon->cached[i].at < oldest->at)
			oldest = &mon->cached[i];
	}
	if (!c)
		c = oldest;
	tos_value_free(c->value);
	c->value = NULL;
	return c;
}

struct request {
	size_t question;
	char arg[192];
	int64_t msec;
};

/* [what, argument?, {msec}?], or the question as the folder's name and the rest as elements. */
static int request_read(const struct tos_message *m, struct request *r, char *text, size_t cap)
{
	const char *what = tos_as_text(tos_at(m->elements, 0), "");
	const struct tos_value *arg = tos_at(m->elements, 1), *last;
	size_t n = tos_len(m->elements), i = 0;

	while (i < QUESTIONS && strcmp(questions[i].word, what) != 0)
		i++;
	if (i == QUESTIONS) {
		snprintf(text, cap,
			"Monitor does not know \"%.64s\"; it knows os, host, load, memory, "
			"filesystem, filesystems, process, processes",
			what);
		return TOS_ERR_MALFORMED;
	}
	r->question = i;
	last = n > 1 ? tos_at(m->elements, n - 1) : NULL;
	r->msec = tos_type(last) == TOS_MAP ? tos_get_int(last, "msec", 0) : 0;
	if (tos_type(last) == TOS_MAP)
		n--;
	snprintf(text, cap, "%s wants %s", what,
		questions[i].takes_arg ? "one argument" : "no argument but {msec}");
	if (n != (questions[i].takes_arg ? 2 : 1) || r->msec < 0)
		return TOS_ERR_MALFORMED;
	if (!questions[i].takes_arg)
		return 0;
	if (tos_type(arg) == TOS_INT)
		snprintf(r->arg, sizeof(r->arg), "%lld", (long long)tos_as_int(arg, 0));
	else if (tos_type(arg) != TOS_TEXT || tos_len(arg) >= sizeof(r->arg) ||
		 tos_len(arg) != strlen(tos_as_text(arg, "")))
		return TOS_ERR_MALFORMED;
	else
		strcpy(r->arg, tos_as_text(arg, ""));
	return 0;
}

static int look(struct monitor *mon, const struct request *r, struct cached **out)
{
	char key[KEY_BYTES];
	struct cached *c;
	struct tos_value *v = NULL;
	int rc;

	snprintf(key, sizeof(key), "%s %s", questions[r->question].word, r->arg);
	c = cached_find(mon, key);
	if (c && now_ms() - c->at < r->msec) {
		*out = c;
		return 0;
	}
	rc = questions[r->question].get(mon, r->arg, &v);
	if (rc < 0)
		return rc;
	if (!v)
		return TOS_ERR_NOMEM;
	c = cached_place(mon, key);
	snprintf(c->key, sizeof(c->key), "%s", key);
	c->at = now_ms();
	c->value = v;
	*out = c;
	return 1;
}

static void answer(struct tos_ext *x, const struct tos_message *m)
{
	struct request r = { 0, "", 0 };
	struct cached *c = NULL;
	struct tos_value *elements;
	char text[256];
	int rc = request_read(m, &r, text, sizeof(text));

	if (rc == 0) {
		rc = look(tos_data(x), &r, &c);
		snprintf(text, sizeof(text), "%s",
			rc == TOS_ERR_NOT_FOUND   ? questions[r.question].missing
			: rc == TOS_ERR_DENIED    ? "the host does not let Monitor look there"
			: rc == TOS_ERR_MALFORMED ? "the argument is not of the right kind"
						  : "the host's files could not be read");
	}
	tos_count(x, rc == 0 ? "answered_from_cache" : rc > 0 ? "looked" : "failed", 1);
	if (rc < 0 || !c) {
		tos_fail(x, m->token, rc, text);
		return;
	}
	elements = tos_array();
	tos_push(elements, tos_value_copy(c->value));
	tos_reply(x, m->token, questions[r.question].word, elements);
}

static void wake(struct tos_ext *x, struct tos_inbox *in)
{
	struct tos_message m;

	while (tos_inbox_next(in, &m))
		answer(x, &m);
}

static int start(struct tos_ext *x)
{
	struct monitor *mon = calloc(1, sizeof(*mon));
	struct tos_value *memory = NULL;

	if (!mon)
		return TOS_ERR_NOMEM;
	mon->tick_ms = 1000.0 / (double)sysconf(_SC_CLK_TCK);
	mon->page = sysconf(_SC_PAGESIZE);
	if (get_memory(mon, "", &memory) == 0)
		mon->total_memory = tos_get_int(memory, "total", 0);
	tos_value_free(memory);
	tos_set_data(x, mon);
	return 0;
}

static void stop(struct tos_ext *x)
{
	struct monitor *mon = tos_data(x);

	for (size_t i = 0; i < CACHED_MAX; i++)
		tos_value_free(mon->cached[i].value);
	free(mon->seen);
	free(mon);
}

static const struct tos_inbox_spec inboxes[] = {
	{ .name = "Monitor",
		.doc = "what the operating system says about this host",
		.wake = wake,
		.protocol =
			"a call with elements WHAT, an argument where one is named, and "
			"optionally\n"
			"{msec}: how old the answer may be (0: look now); answered by folder "
			"WHAT with\n"
			"one element. Times in ms, sizes in bytes, cpu in % of one core.\n"
			"os -> {name, release, version, machine, text}\n"
			"host -> {hostname, uptime_ms, cpus, boot}: boot in ms since 1970\n"
			"load -> {one, five, fifteen, running, total}\n"
			"memory -> {total, free, available, swapTotal, swapFree}\n"
			"filesystem PATH -> {path, total, available, available%}\n"
			"filesystems -> [{path, total, available, available%, type, source, "
			"device}]\n"
			"process PID -> {pid, ppid, name, state, cpu, time, physMem, virtMem, "
			"totalMem,\n"
			"threads}: cpu since the last look, at the first one since its start\n"
			"processes -> [the same]" },
	{ 0 },
};

const struct tos_extension tos_extension = {
	TOS_ABI,
	.name = "monitor",
	.doc = "Tells what the operating system says about this host.",
	.inboxes = inboxes,
	.privileges = "read-proc read-fs",
	.start = start,
	.stop = stop,
};
