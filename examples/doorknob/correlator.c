/*
 * The correlator of the doorknob monitor: general, and simple. It reads what sensors report, a line each, on standard
 * input, and says on standard output when one source tried the doors of several of the machines that its configuration
 * names, within a time. It knows nothing of what the doors are.
 *
 *   correlator CONFIG      a file; "-": standard input up to an empty line, before the first report
 *
 * Configuration, a word and its value a line: "threshold N" machines (3), "within SECONDS" (60), "host NAME" each.
 * Input: "HOST watching WHAT", "HOST exposed WHAT", "HOST attempt SOURCE WHAT".
 * Output: "alarm SOURCE TIME HOST:WHAT:closed|exposed ...", targets in the order in which they were tried; once for a
 * source, and again only when it had been quiet for the whole time. A report of a machine that is not named is counted
 * and said once, on standard error.
 */
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define HOSTS_MAX   1024
#define NAME_BYTES  128
#define WHAT_BYTES  64
#define SOURCES_MAX 1024 /* the one that was quiet longest makes room */
#define TRIES_MAX   64   /* of one source, a machine each */
#define DOORS_MAX   4096 /* that are known to be exposed */

struct attempt {
	size_t host;
	char what[WHAT_BYTES];
	double at;
};

struct source {
	char name[NAME_BYTES];
	struct attempt tries[TRIES_MAX];
	size_t n_tries;
	double last;
	bool told;
};

struct door {
	size_t host;
	char what[WHAT_BYTES];
};

static char hosts[HOSTS_MAX][NAME_BYTES];
static size_t n_hosts;
static struct source sources[SOURCES_MAX];
static size_t n_sources;
static struct door exposed[DOORS_MAX];
static size_t n_exposed;
static unsigned long threshold = 3, within = 60;

static double now_s(void)
{
	struct timespec t;

	clock_gettime(CLOCK_REALTIME, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static size_t host_find(const char *name)
{
	size_t i = 0;

	while (i < n_hosts && strcmp(hosts[i], name) != 0)
		i++;
	return i;
}

static bool door_exposed(size_t host, const char *what)
{
	for (size_t i = 0; i < n_exposed; i++)
		if (exposed[i].host == host && strcmp(exposed[i].what, what) == 0)
			return true;
	return false;
}

static int config_read(const char *path)
{
	char line[256], word[32], value[NAME_BYTES];
	bool inline_ = strcmp(path, "-") == 0;
	FILE *f = inline_ ? stdin : fopen(path, "r");
	unsigned at = 0;

	if (f == NULL) {
		fprintf(stderr, "correlator: %s: %s\n", path, strerror(errno));
		return -1;
	}
	while (fgets(line, sizeof line, f) != NULL) {
		char *end = value;
		unsigned long n;

		at++;
		if (inline_ && line[0] == '\n')
			return 0;
		if (line[strspn(line, " \t\n")] == '\0' || line[0] == '#')
			continue;
		if (sscanf(line, "%31s %127s", word, value) != 2)
			goto bad;
		n = strtoul(value, &end, 10);
		if (strcmp(word, "host") == 0 && n_hosts < HOSTS_MAX)
			memcpy(hosts[n_hosts++], value, sizeof value);
		else if (strcmp(word, "threshold") == 0 && *end == '\0' && n > 0 &&
			 n <= TRIES_MAX)
			threshold = n;
		else if (strcmp(word, "within") == 0 && *end == '\0' && n > 0)
			within = n;
		else
			goto bad;
	}
	if (!inline_)
		fclose(f);
	return 0;
bad:
	fprintf(stderr,
		"correlator: %s:%u: not one of: host NAME (at most %d), threshold 1..%d, within SECONDS\n",
		path, at, HOSTS_MAX, TRIES_MAX);
	if (!inline_)
		fclose(f);
	return -1;
}

static struct source *source_get(const char *name, double now)
{
	struct source *s = &sources[0];

	for (size_t i = 0; i < n_sources; i++) {
		if (strcmp(sources[i].name, name) == 0)
			return &sources[i];
		if (sources[i].last < s->last)
			s = &sources[i];
	}
	if (n_sources < SOURCES_MAX)
		s = &sources[n_sources++];
	*s = (struct source){ .last = now };
	snprintf(s->name, sizeof s->name, "%s", name);
	return s;
}

/* Leaves out what is older than the time. */
static void source_forget(struct source *s, double now)
{
	size_t kept = 0;

	if (now - s->last > (double)within)
		s->told = false;
	for (size_t i = 0; i < s->n_tries; i++)
		if (now - s->tries[i].at <= (double)within)
			s->tries[kept++] = s->tries[i];
	s->n_tries = kept;
}

static void alarm_say(struct source *s, double now)
{
	printf("alarm %s %.3f", s->name, now);
	for (size_t i = 0; i < s->n_tries; i++)
		printf(" %s:%s:%s", hosts[s->tries[i].host], s->tries[i].what,
			door_exposed(s->tries[i].host, s->tries[i].what) ? "exposed"
									 : "closed");
	putchar('\n');
	fflush(stdout);
	s->told = true;
}

static void attempt_take(size_t host, const char *name, const char *what)
{
	double now = now_s();
	struct source *s = source_get(name, now);

	source_forget(s, now);
	s->last = now;
	for (size_t i = 0; i < s->n_tries; i++)
		if (s->tries[i].host == host)
			return; /* the machine counts once */
	if (s->n_tries < TRIES_MAX) {
		s->tries[s->n_tries] = (struct attempt){ .host = host, .at = now };
		snprintf(s->tries[s->n_tries].what, sizeof s->tries[0].what, "%s", what);
		s->n_tries++;
	}
	if (s->n_tries >= threshold && !s->told)
		alarm_say(s, now);
}

int main(int argc, char **argv)
{
	char line[512], host[NAME_BYTES], event[16], a[NAME_BYTES], b[WHAT_BYTES];
	bool told = false;

	if (argc != 2) {
		fprintf(stderr, "usage: correlator CONFIG\n");
		return 2;
	}
	if (config_read(argv[1]) < 0)
		return 1;
	while (fgets(line, sizeof line, stdin) != NULL) {
		int n = sscanf(line, "%127s %15s %127s %63s", host, event, a, b);
		size_t at = n >= 3 ? host_find(host) : n_hosts;

		if (at == n_hosts) {
			if (!told)
				fprintf(stderr,
					"correlator: a report of a machine that is not in %s: %s",
					argv[1], line);
			told = true;
		} else if (n == 4 && strcmp(event, "attempt") == 0) {
			attempt_take(at, a, b);
		} else if (n == 3 && strcmp(event, "exposed") == 0 && n_exposed < DOORS_MAX &&
			   !door_exposed(at, a)) {
			exposed[n_exposed] = (struct door){ .host = at };
			snprintf(exposed[n_exposed++].what, WHAT_BYTES, "%.63s", a);
		}
	}
	return 0;
}
