/*
 * The control panel of the doorknob monitor, in the terminal: deploys the sensors, shows how each of them fares, shows
 * alarms, and takes everything away again at the end. It is neither carrier nor extension, but a client of one kernel,
 * built on libtos like any launcher.
 *
 *   doorknob-panel --sensor DIGEST --correlator DIGEST [--carriers FOLDER] [--chains K] [--threshold N]
 *                  [--block] [--never ADDRESS]... [--respond COMMAND] [--until-alarm] [--for S]
 *                  HOST... -- SENSOR-ARGUMENT...
 *
 * Hosts are divided into K chains. On a terminal it draws a table anew whenever something changes, and `q` or Ctrl-C ends
 * it; elsewhere it prints a line an event. An alarm can be responded to: --block has every host shut its source out, by
 * the host's own action `block` (never one that --never names); --respond runs COMMAND with the alarm's words as
 * arguments (source, time, targets), to tell somebody. The carriers are install.lua and correlate.lua in FOLDER (the present one).
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#include <tos/tos.h>

#define HOSTS_MAX   1024
#define ALARMS_KEPT 10
#define TEXT_BYTES  600
#define SILENT_S    6  /* three reports missed: the sensor counts as down */
#define DEPLOY_S    60 /* for all of them to start */
#define FAREWELL_S  30 /* for all of them to stop */
#define EVERY_S     2
#define BLOCK_S     20 /* for all of them to shut somebody out */
#define NEVER_MAX   64
#define WORDS_MAX   64 /* of an alarm, for the command; the rest is in one */
#define RESPOND_MAX 8  /* commands at once */

struct host {
	char name[129], carrier[129], state[16], text[160];
	int64_t attempts, exposed;
	double heard;   /* when; 0: never */
	unsigned asked; /* to shut somebody out, and has not answered */
};

struct panel {
	struct tos_connection *c;
	struct tos_principal *me;
	struct host hosts[HOSTS_MAX];
	size_t n_hosts;
	char correlator[129], alarms[ALARMS_KEPT][TEXT_BYTES];
	size_t n_alarms; /* so far; the last ones are kept */
	bool terminal, until_alarm, correlating, correlator_stopped, block;
	const char *respond, *never[NEVER_MAX];
	size_t n_never, n_blocked, n_open; /* hosts that did, that did not */
	pid_t responding[RESPOND_MAX];
	double begun, limit_s, block_until;
	char threshold[8];
	uint8_t sensor[32], correlate[32];
	unsigned chains;
	char **args;
	int n_args;
	const char *folder; /* of the carriers */
};

static volatile sig_atomic_t asked_to_end;

static void on_signal(int sig)
{
	(void)sig;
	asked_to_end = 1;
}

static double now_s(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static int fail(int rc, const char *what, const struct tos_error *err)
{
	fprintf(stderr, "panel: %s: %s: %s\n", what, tos_error_word(rc), err->text);
	return 1;
}

/* ---- what is known */

static struct host *host_find(struct panel *p, const char *name)
{
	for (size_t i = 0; i < p->n_hosts; i++)
		if (strcmp(p->hosts[i].name, name) == 0)
			return &p->hosts[i];
	return NULL;
}

static bool host_ended(const struct host *h)
{
	return strcmp(h->state, "stopped") == 0 || strcmp(h->state, "failed") == 0 ||
	       strcmp(h->state, "missed") == 0 || strcmp(h->state, "down") == 0;
}

static size_t hosts_in(const struct panel *p, const char *state)
{
	size_t n = 0;

	for (size_t i = 0; i < p->n_hosts; i++)
		n += strcmp(p->hosts[i].state, state) == 0;
	return n;
}

/* ---- what is shown */

static void draw(const struct panel *p)
{
	double now = now_s();

	if (!p->terminal)
		return;
	printf("\033[H\033[2Jdoorknob monitor, %.0f s   %zu of %zu hosts watched   q ends it\n\n",
		now - p->begun, hosts_in(p, "running") + hosts_in(p, "started"), p->n_hosts);
	printf("%-16s %-10s %8s %8s %6s  %s\n", "HOST", "SENSOR", "ATTEMPTS", "EXPOSED",
		"HEARD", "");
	for (size_t i = 0; i < p->n_hosts; i++) {
		const struct host *h = &p->hosts[i];

		printf("%-16s %-10s %8lld %8lld %5.0fs  %s\n", h->name, h->state,
			(long long)h->attempts, (long long)h->exposed,
			h->heard > 0 ? now - h->heard : 0, h->text);
	}
	printf("\n%zu alarm%s%s\n", p->n_alarms, p->n_alarms == 1 ? "" : "s",
		p->n_alarms ? ":" : "");
	for (size_t i = p->n_alarms > ALARMS_KEPT ? p->n_alarms - ALARMS_KEPT : 0;
		i < p->n_alarms; i++)
		printf("  %s\n", p->alarms[i % ALARMS_KEPT]);
	fflush(stdout);
}

static void event_say(
	const struct panel *p, const char *host, const char *state, const char *text)
{
	if (p->terminal)
		return;
	printf("%8.3f %-8s %-9s %s\n", now_s() - p->begun, host, state, text);
	fflush(stdout);
}

/* ---- what is done about an alarm */

static void order(struct panel *p, const char *dest, const char *what, struct tos_value *value)
{
	struct tos_value *elements = tos_array(), *m = tos_map();

	tos_set(m, what, value);
	tos_push(elements, m);
	/* They obey their owner, and know it by this. */
	tos_introduce(p->c, p->me, 5000, NULL);
	tos_send(p->c, dest, "order", elements, NULL);
	tos_value_free(elements);
}

/* Every host that is watched shuts it out, not only those that were tried: the next one's turn would come. */
static void block(struct panel *p, const char *source)
{
	char inbox[160];

	for (size_t i = 0; i < p->n_never; i++)
		if (strcmp(p->never[i], source) == 0) {
			event_say(p, "-", "spared", source);
			return;
		}
	for (size_t i = 0; i < p->n_hosts; i++) {
		struct host *h = &p->hosts[i];

		if (!*h->carrier || host_ended(h)) {
			p->n_open++;
			event_say(p, h->name, "open", "nobody there could be told");
			continue;
		}
		snprintf(inbox, sizeof inbox, "%s/work", h->carrier);
		order(p, inbox, "block", tos_text(source));
		h->asked++;
	}
	p->block_until = now_s() + BLOCK_S;
}

static void blocked_take(struct panel *p, const struct tos_value *v)
{
	struct host *h = host_find(p, tos_get_text(v, "host", ""));
	const char *text = tos_get_text(v, "text", "");

	if (h == NULL || h->asked == 0)
		return;
	h->asked--;
	p->n_blocked += !*text;
	p->n_open += *text != 0;
	snprintf(h->text, sizeof h->text, "%s %s %.80s", *text ? "does not block" : "blocks",
		tos_get_text(v, "address", "?"), text);
	event_say(p, h->name, *text ? "open" : "blocked",
		*text ? text : tos_get_text(v, "address", "?"));
}

static bool blocking(const struct panel *p)
{
	size_t n = 0;

	for (size_t i = 0; i < p->n_hosts; i++)
		n += p->hosts[i].asked != 0 && !host_ended(&p->hosts[i]);
	return n > 0 && now_s() < p->block_until;
}

/* Its words as arguments, no shell: they come from the network. */
static void respond(struct panel *p, char *words)
{
	char *argv[WORDS_MAX + 2] = { (char *)(uintptr_t)p->respond }, *rest = words;
	size_t n = 1, at = 0;
	int rc;

	while (n < WORDS_MAX && rest != NULL && *rest != 0)
		argv[n++] = strsep(&rest, " ");
	if (rest != NULL && *rest != 0)
		argv[n] = rest;
	while (at < RESPOND_MAX && p->responding[at] > 0)
		at++;
	if (at == RESPOND_MAX) {
		event_say(p, "-", "no answer", "too many commands run already");
		return;
	}
	rc = posix_spawnp(&p->responding[at], p->respond, NULL, NULL, argv, environ);
	if (rc != 0) {
		p->responding[at] = 0;
		event_say(p, "-", "no answer", strerror(rc));
	}
}

/* True while one of them runs. */
static bool responding(struct panel *p)
{
	bool some = false;
	int status;

	for (size_t i = 0; i < RESPOND_MAX; i++) {
		if (p->responding[i] <= 0)
			continue;
		if (waitpid(p->responding[i], &status, WNOHANG) == 0) {
			some = true;
			continue;
		}
		p->responding[i] = 0;
		if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
			event_say(p, "-", "no answer", "the command failed");
		else
			event_say(p, "-", "responded", p->respond);
	}
	return some;
}

/* ---- what is heard */

static void status_take(struct panel *p, const struct tos_value *v)
{
	struct host *h = host_find(p, tos_get_text(v, "host", ""));
	const char *state = tos_get_text(v, "state", ""), *text = tos_get_text(v, "text", "");
	bool news;

	if (h == NULL) {
		if (strcmp(state, "correlating") == 0) {
			p->correlating = true;
			event_say(p, "-", state, "");
		}
		return;
	}
	news = strcmp(h->state, state) != 0;
	h->heard = now_s();
	h->attempts = tos_get_int(v, "attempts", h->attempts);
	h->exposed = tos_get_int(v, "exposed", h->exposed);
	snprintf(h->state, sizeof h->state, "%.15s", state);
	snprintf(h->text, sizeof h->text, "%.159s", text);
	if (*tos_get_text(v, "carrier", ""))
		snprintf(h->carrier, sizeof h->carrier, "%.128s",
			tos_get_text(v, "carrier", ""));
	if (news)
		event_say(p, h->name, state, text);
}

static void alarm_take(struct panel *p, const char *line)
{
	char words[TEXT_BYTES], source[64];

	snprintf(p->alarms[p->n_alarms++ % ALARMS_KEPT], TEXT_BYTES, "%.599s", line);
	event_say(p, "-", "ALARM", line);
	if (p->terminal)
		putchar('\a');
	snprintf(words, sizeof words, "%.599s",
		strncmp(line, "alarm ", 6) == 0 ? line + 6 : line);
	snprintf(source, sizeof source, "%.*s", (int)strcspn(words, " "), words);
	if (p->block)
		block(p, source);
	if (p->respond != NULL)
		respond(p, words);
}

/* One folder, if one comes within the time. */
static void hear(struct panel *p, uint32_t timeout_ms)
{
	char sender[129], folder[129];
	struct tos_value *elements = NULL;

	if (tos_receive(p->c, timeout_ms, sender, folder, &elements, NULL) < 0)
		return;
	if (strcmp(folder, "status") == 0)
		status_take(p, tos_at(elements, 0));
	else if (strcmp(folder, "alarm") == 0)
		alarm_take(p, tos_as_text(tos_at(elements, 0), "?"));
	else if (strcmp(folder, "blocked") == 0)
		blocked_take(p, tos_at(elements, 0));
	else if (strcmp(folder, "correlator") == 0)
		p->correlator_stopped = true;
	tos_value_free(elements);
	draw(p);
}

/* A sensor that was not heard of for three reports is down: killed by hand, its host off, its network gone. */
static void silent_find(struct panel *p)
{
	double now = now_s();

	for (size_t i = 0; i < p->n_hosts; i++) {
		struct host *h = &p->hosts[i];

		if (h->heard > 0 && !host_ended(h) && now - h->heard > SILENT_S) {
			snprintf(h->state, sizeof h->state, "silent");
			snprintf(h->text, sizeof h->text, "not heard of for %.0f s",
				now - h->heard);
			h->heard = now;
			event_say(p, h->name, h->state, h->text);
		}
	}
}

/* ---- what is done */

static int launch(struct panel *p, const char *file, const char *path, struct tos_value *conf,
	char name[129])
{
	struct tos_error err = { "" };
	struct tos_shell *sh = NULL;
	char full[4200];
	int rc;

	snprintf(full, sizeof full, "%s/%s", p->folder, file);
	rc = tos_shell_file(full, &sh, &err);
	if (rc == 0)
		rc = tos_shell_push(sh, "DOORKNOB", conf, &err);
	else
		tos_value_free(conf);
	if (rc == 0)
		rc = tos_shell_path(sh, path, &err);
	/* It stays for as long as it watches, and copies itself to as many hosts as there are. */
	for (const char *const *limit = (const char *const[]){ "lifetime=30d", "clones=1024",
		     "hops=4096", "posts=1000", "sent=256M", "cpu=1000", "programs=1", NULL };
		rc == 0 && *limit != NULL; limit++)
		rc = tos_shell_limit(sh, *limit, &err);
	if (rc == 0)
		rc = tos_shell_option(sh, "itinerant", "true", &err);
	if (rc == 0)
		rc = tos_shell_sign(sh, p->me, &err);
	if (rc == 0)
		rc = tos_shell_launch(sh, p->c, p->me, name, &err);
	tos_shell_free(sh);
	return rc < 0 ? fail(rc, full, &err) : 0;
}

static int correlator_launch(struct panel *p)
{
	struct tos_value *conf = tos_map();
	char *text = NULL;
	size_t n = 0;
	FILE *f = open_memstream(&text, &n);

	if (f == NULL)
		return 1;
	fprintf(f, "threshold %s\n", p->threshold);
	for (size_t i = 0; i < p->n_hosts; i++)
		fprintf(f, "host %s\n", p->hosts[i].name);
	fclose(f);
	tos_set(conf, "correlator", tos_bytes(p->correlate, sizeof p->correlate));
	tos_set(conf, "config", tos_text(text));
	tos_set(conf, "panel", tos_text(tos_connection_name(p->c)));
	free(text);
	return launch(p, "correlate.lua", tos_connection_kernel(p->c), conf, p->correlator);
}

/* The i-th of the chains: every host whose number leaves i. */
static int chain_launch(struct panel *p, size_t i)
{
	struct tos_value *conf = tos_map(), *rest = tos_array(), *args = tos_array();
	char inbox[160], name[129];

	for (size_t at = i + p->chains; at < p->n_hosts; at += p->chains)
		tos_push(rest, tos_text(p->hosts[at].name));
	for (int a = 0; a < p->n_args; a++)
		tos_push(args, tos_text(p->args[a]));
	snprintf(inbox, sizeof inbox, "%s/reports", p->correlator);
	tos_set(conf, "sensor", tos_bytes(p->sensor, sizeof p->sensor));
	tos_set(conf, "args", args);
	tos_set(conf, "trusted", tos_text(tos_connection_kernel(p->c)));
	tos_set(conf, "correlator", tos_text(inbox));
	tos_set(conf, "panel", tos_text(tos_connection_name(p->c)));
	tos_set(conf, "rest", rest);
	tos_set(conf, "every", tos_int(EVERY_S));
	return launch(p, "install.lua", p->hosts[i].name, conf, name);
}

/* We learn our own name, which carriers post to, from the first answer. */
static int name_learn(struct panel *p)
{
	struct tos_error err = { "" };
	struct tos_value *elements = tos_array();
	int rc = tos_ask(p->c, "Control", "STATUS", elements, 5000, NULL, NULL, &err);

	tos_value_free(elements);
	return rc < 0 ? fail(rc, "connecting", &err) : 0;
}

static int deploy(struct panel *p)
{
	double end = now_s() + DEPLOY_S;

	if (name_learn(p) != 0)
		return 1;
	if (correlator_launch(p) != 0)
		return 1;
	while (!p->correlating && now_s() < end && !asked_to_end)
		hear(p, 500);
	if (!p->correlating) {
		fprintf(stderr, "panel: the correlator %s did not start; see: tos show %s\n",
			p->correlator, p->correlator);
		return 1;
	}
	for (size_t i = 0; i < p->chains && i < p->n_hosts; i++)
		if (chain_launch(p, i) != 0)
			return 1;
	return 0;
}

/* Every carrier is told to stop its program, to take it away and to end; the correlator last. */
static int farewell(struct panel *p)
{
	double end = now_s() + FAREWELL_S;
	size_t left = 1;
	char inbox[160];

	for (size_t i = 0; i < p->n_hosts; i++) {
		struct host *h = &p->hosts[i];

		snprintf(inbox, sizeof inbox, "%s/work", h->carrier);
		if (*h->carrier && !host_ended(h))
			order(p, inbox, "stop", tos_bool(true));
	}
	while (left > 0 && now_s() < end) {
		left = 0;
		for (size_t i = 0; i < p->n_hosts; i++)
			left += *p->hosts[i].carrier && !host_ended(&p->hosts[i]);
		if (left > 0)
			hear(p, 200);
	}
	if (*p->correlator) {
		snprintf(inbox, sizeof inbox, "%s/reports", p->correlator);
		order(p, inbox, "stop", tos_bool(true));
		while (!p->correlator_stopped && now_s() < end)
			hear(p, 200);
	}
	for (size_t i = 0; left > 0 && i < p->n_hosts; i++)
		if (*p->hosts[i].carrier && !host_ended(&p->hosts[i]))
			fprintf(stderr, "panel: %s is still there; end it with: tos kill %s\n",
				p->hosts[i].name, p->hosts[i].carrier);
	return left > 0 || !p->correlator_stopped;
}

static void watch(struct panel *p)
{
	bool responds = false;

	while (!asked_to_end) {
		struct pollfd in[2] = { { .fd = tos_connection_fd(p->c), .events = POLLIN },
			{ .fd = p->terminal ? STDIN_FILENO : -1, .events = POLLIN } };
		char key;

		if (poll(in, 2, responds ? 50 : 1000) < 0 && errno != EINTR)
			return;
		if (in[1].revents != 0 && read(STDIN_FILENO, &key, 1) == 1 &&
			(key == 'q' || key == 4))
			return;
		hear(p, in[0].revents != 0 ? 1000 : 0);
		silent_find(p);
		draw(p);
		responds = responding(p);
		if (p->until_alarm && p->n_alarms > 0 && !responds && !blocking(p))
			return;
		if (p->limit_s > 0 && now_s() - p->begun > p->limit_s)
			return;
	}
}

/* ---- what is asked for */

static int digest_read(const char *text, uint8_t out[32])
{
	unsigned v;

	if (strlen(text) != 64 || strspn(text, "0123456789abcdef") != 64)
		return -1;
	for (size_t i = 0; i < 32; i++) {
		sscanf(text + 2 * i, "%2x", &v);
		out[i] = (uint8_t)v;
	}
	return 0;
}

static int usage(void)
{
	fprintf(stderr,
		"usage: doorknob-panel --sensor DIGEST --correlator DIGEST [--carriers FOLDER] [--chains K]\n"
		"             [--threshold N] [--block] [--never ADDRESS]... [--respond COMMAND] [--until-alarm]\n"
		"             [--for SECONDS] HOST... -- SENSOR-ARGUMENT...\n");
	return 2;
}

static int args_read(struct panel *p, int argc, char **argv)
{
	bool sensor = false, correlate = false;
	int i = 1;

	p->chains = 1;
	p->folder = ".";
	snprintf(p->threshold, sizeof p->threshold, "3");
	for (; i < argc && strcmp(argv[i], "--") != 0; i++) {
		const char *a = argv[i], *value = i + 1 < argc ? argv[i + 1] : "";

		if (strcmp(a, "--until-alarm") == 0)
			p->until_alarm = true;
		else if (strcmp(a, "--block") == 0)
			p->block = true;
		else if (strcmp(a, "--never") == 0 && p->n_never < NEVER_MAX && ++i)
			p->never[p->n_never++] = value;
		else if (strcmp(a, "--respond") == 0 && ++i)
			p->respond = value;
		else if (strcmp(a, "--sensor") == 0 && ++i)
			sensor = digest_read(value, p->sensor) == 0;
		else if (strcmp(a, "--correlator") == 0 && ++i)
			correlate = digest_read(value, p->correlate) == 0;
		else if (strcmp(a, "--carriers") == 0 && ++i)
			p->folder = value;
		else if (strcmp(a, "--chains") == 0 && ++i)
			p->chains = (unsigned)strtoul(value, NULL, 10);
		else if (strcmp(a, "--threshold") == 0 && ++i)
			snprintf(p->threshold, sizeof p->threshold, "%.7s", value);
		else if (strcmp(a, "--for") == 0 && ++i)
			p->limit_s = strtod(value, NULL);
		else if (a[0] == '-' || p->n_hosts == HOSTS_MAX || strlen(a) > 63)
			return usage();
		else
			snprintf(p->hosts[p->n_hosts++].name, sizeof p->hosts[0].name, "%.63s",
				a);
	}
	p->args = argv + i + 1;
	p->n_args = argc - i - 1;
	for (size_t h = 0; h < p->n_hosts; h++)
		snprintf(p->hosts[h].state, sizeof p->hosts[h].state, "waiting");
	return !sensor || !correlate || p->n_hosts == 0 || p->chains == 0 || p->n_args < 1
		       ? usage()
		       : 0;
}

int main(int argc, char **argv)
{
	static struct panel p;
	struct tos_error err = { "" };
	struct termios before, raw;
	struct sigaction end = { .sa_handler = on_signal };
	int rc;

	if ((rc = args_read(&p, argc, argv)) != 0)
		return rc;
	sigaction(SIGINT, &end, NULL);
	sigaction(SIGTERM, &end, NULL);
	p.begun = now_s();
	rc = tos_principal_load(NULL, NULL, &p.me, &err);
	if (rc == 0)
		rc = tos_connect(NULL, NULL, 5000, &p.c, &err);
	if (rc < 0)
		return fail(rc, "connecting", &err);
	p.terminal = isatty(STDIN_FILENO) && isatty(STDOUT_FILENO) &&
		     tcgetattr(STDIN_FILENO, &before) == 0;
	if (p.terminal) {
		raw = before;
		raw.c_lflag &= ~(tcflag_t)(ICANON | ECHO);
		tcsetattr(STDIN_FILENO, TCSANOW, &raw);
	}
	rc = deploy(&p);
	if (rc == 0)
		watch(&p);
	rc |= farewell(&p);
	if (p.terminal)
		tcsetattr(STDIN_FILENO, TCSANOW, &before);
	printf("%zu alarm%s; sensors: %zu stopped, %zu missed, %zu failed", p.n_alarms,
		p.n_alarms == 1 ? "" : "s", hosts_in(&p, "stopped"), hosts_in(&p, "missed"),
		hosts_in(&p, "failed") + hosts_in(&p, "down"));
	if (p.block)
		printf("; blocked at %zu, open at %zu", p.n_blocked, p.n_open);
	putchar('\n');
	tos_disconnect(p.c);
	tos_principal_free(p.me);
	return rc;
}
