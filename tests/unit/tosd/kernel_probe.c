/*
 * Stands in for tos-kernel in the tests of tosd: speaks tosd's protocol on descriptor 3 and
 * does what a test asks for, line by line, over the Unix socket "ctl" in its state directory.
 * As --check-config it reads a file of "key value" lines.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/mem.h"
#include "ipc/action.h"
#include "ipc/ipc.h"
#include "ipc/tosd_msg.h"

#define MAX_SLOTS 8192

static int ctl = -1;
static int slot_fd[MAX_SLOTS], slot_pidfd[MAX_SLOTS];
static bool muted;

static void set_text(char *to, size_t cap, const char *from)
{
	snprintf(to, cap, "%.*s", (int)cap - 1, from);
}

static int read_key(struct tosd_config *c, const char *key, char *value)
{
	if (strcmp(key, "name") == 0)
		set_text(c->name, sizeof(c->name), value);
	else if (strcmp(key, "listen") == 0 && c->n_listen < TOSD_LISTEN_MAX)
		set_text(c->listen[c->n_listen++], sizeof(c->listen[0]), value);
	else if (strcmp(key, "require") == 0 && c->n_require < ARRAY_LEN(c->require))
		set_text(c->require[c->n_require++], sizeof(c->require[0]), value);
	else if (strcmp(key, "uid_base") == 0)
		c->uid_base = (uint32_t)strtoul(value, NULL, 10);
	else if (strcmp(key, "no_userns") == 0)
		c->test_no_userns = 1;
	else if (strcmp(key, "log") == 0)
		set_text(c->log_level, sizeof(c->log_level), value);
	else if (strcmp(key, "ext") == 0 && c->n_ext < TOSD_EXT_MAX) {
		char *path = strtok(value, " "), *privileges = strtok(NULL, "");

		set_text(c->ext[c->n_ext].name, sizeof(c->ext[0].name), "Probe");
		set_text(c->ext[c->n_ext].path, sizeof(c->ext[0].path), path ? path : "");
		set_text(c->ext[c->n_ext].privileges, sizeof(c->ext[0].privileges),
			privileges ? privileges : "");
		c->n_ext++;
	} else if (strcmp(key, "action") == 0 && c->n_actions < TOSD_ACTIONS_MAX) {
		/* action NAME TIMEOUT_MS ARG,ARG|- WORD... */
		struct tosd_action *a = &c->action[c->n_actions++];
		char *name = strtok(value, " "), *ms = strtok(NULL, " "),
		     *args = strtok(NULL, " "), *words = strtok(NULL, "");

		set_text(a->name, sizeof(a->name), name ? name : "");
		a->timeout_ms = (uint32_t)strtoul(ms ? ms : "0", NULL, 10);
		for (char *w = strtok(args, ",-"); w; w = strtok(NULL, ","))
			action_arg_add(a, w, NULL);
		for (char *w = strtok(words, " "); w; w = strtok(NULL, " "))
			action_word_add(a, w, NULL);
	} else if (strcmp(key, "hang") == 0)
		pause();
	else if (strcmp(key, "short") == 0)
		exit(write(3, c, 10) == 10 ? 0 : 1);
	else
		return -1;
	return 0;
}

static int check(const char *path)
{
	static struct tosd_config c = { .version = TOSD_MSG_VERSION,
		.length = sizeof(c),
		.log_level = "info",
		.vm_address_bytes = (uint64_t)1 << 30 };
	FILE *f = fopen(path, "re");
	char line[1024], real[4096];
	int n = 0;

	if (!f || !realpath(path, real)) {
		fprintf(stderr, "%s: %s\n", path, strerror(errno));
		return 1;
	}
	*strrchr(real, '/') = 0;
	set_text(c.state_dir, sizeof(c.state_dir), real);
	while (fgets(line, sizeof(line), f)) {
		char *key = strtok(line, " \n"), *value = strtok(NULL, "\n");

		n++;
		if (key && read_key(&c, key, value ? value : (char *)"") < 0) {
			fprintf(stderr, "%s:%d: unknown key \"%s\"\n", path, n, key);
			return 1;
		}
	}
	printf("# normalised\nname %s\n", c.name);
	fflush(stdout);
	return write(3, &c, sizeof(c)) == (ssize_t)sizeof(c) ? 0 : 1;
}

__attribute__((format(printf, 1, 2))) static void say(const char *fmt, ...)
{
	char text[2048];
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(text, sizeof(text) - 1, fmt, ap);
	va_end(ap);
	text[n++] = '\n';
	for (int done = 0; done < n;) {
		ssize_t w = write(ctl, text + done, (size_t)(n - done));

		if (w < 0)
			_exit(3);
		done += (int)w;
	}
}

static void send_msg(void *msg, uint16_t type, size_t n)
{
	struct tosd_head *h = msg;

	*h = (struct tosd_head){ TOSD_MSG_VERSION, type, (uint32_t)n };
	while (ipc_send(3, msg, n, NULL, 0, NULL) == ERR_AGAIN)
		usleep(1000);
}

static void ask_child(uint64_t slot, const char *text)
{
	char reply[1024], line[1024];
	ssize_t n;

	/* In one piece: the probe takes what one read gives for one line. */
	n = snprintf(line, sizeof(line), "%s\n", text);
	if (write(slot_fd[slot], line, (size_t)n) < 0) {
		say("REPLY %lu closed", (unsigned long)slot);
		return;
	}
	n = read(slot_fd[slot], reply, sizeof(reply) - 1);
	reply[n > 0 ? n : 0] = 0;
	reply[strcspn(reply, "\n")] = 0;
	say("REPLY %lu %s", (unsigned long)slot, n > 0 ? reply : "closed");
}

static void try_write(const char *path)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);

	say("OPENED %s", fd < 0 ? strerror(errno) : "ok");
	if (fd >= 0)
		close(fd);
}

static void send_garbage(const char *kind)
{
	struct tosd_spawn m = { .head = { TOSD_MSG_VERSION, TOSD_SPAWN, sizeof(m) } };

	if (strcmp(kind, "version") == 0)
		m.head.version = 99;
	else if (strcmp(kind, "type") == 0)
		m.head.type = TOSD_DIED;
	else if (strcmp(kind, "length") == 0)
		m.head.length--;
	else if (strcmp(kind, "kind") == 0)
		m.kind = 77;
	else if (strcmp(kind, "ext") == 0) {
		m.kind = TOSD_EXT;
		m.ext = 9999;
	}
	ipc_send(3, &m, strcmp(kind, "short") == 0 ? 3 : sizeof(m), NULL, 0, NULL);
}

static void do_spawn(char *rest)
{
	struct tosd_spawn m = { .kind = TOSD_VM };
	char kind[8] = "";
	unsigned long slot = 0, ext = 0, as = 0, cpu = 0;

	sscanf(rest, "%lu %7s %lu %lu %lu", &slot, kind, &ext, &as, &cpu);
	m.slot = slot;
	m.kind = strcmp(kind, "ext") == 0 ? TOSD_EXT : TOSD_VM;
	m.ext = (uint32_t)ext;
	m.address_bytes = as;
	m.cpu_s = (uint32_t)cpu;
	snprintf(m.label, sizeof(m.label), "probe-%lu", slot);
	send_msg(&m, TOSD_SPAWN, sizeof(m));
}

static void do_signal(const char *rest)
{
	struct tosd_signal m = { 0 };
	unsigned long slot = 0, what = 0;

	sscanf(rest, "%lu %lu", &slot, &what);
	m.slot = slot;
	m.what = (uint32_t)what;
	send_msg(&m, TOSD_SIGNAL, sizeof(m));
}

/* act SLOT WITHIN_MS NAME VALUE...: whatever tosd may think of it */
static void do_act(char *rest)
{
	struct tosd_action_ask m = { 0 };
	char *slot = strtok(rest, " "), *ms = strtok(NULL, " "), *w = strtok(NULL, " ");

	m.slot = strtoul(slot, NULL, 10);
	m.within_ms = (uint32_t)strtoul(ms, NULL, 10);
	snprintf(m.name, sizeof(m.name), "%s", w ? w : "");
	while ((w = strtok(NULL, " ")) && m.n_values < TOSD_ACTION_ARGS)
		snprintf(m.value[m.n_values++], TOSD_ACTION_VALUE, "%s", w);
	send_msg(&m, TOSD_ACTION_ASK, sizeof(m));
}

static void act_garbage(const char *kind)
{
	struct tosd_action_ask m = { .slot = 1, .within_ms = 1000, .name = "echo" };

	/* Of these the first must still be there. */
	if (strcmp(kind, "slot") == 0 || strcmp(kind, "many") == 0)
		snprintf(m.name, sizeof(m.name), "nap");
	if (strcmp(kind, "name") == 0)
		memset(m.name, 'x', sizeof(m.name));
	else if (strcmp(kind, "value") == 0) {
		m.n_values = 1;
		memset(m.value[0], '7', sizeof(m.value[0]));
	} else if (strcmp(kind, "values") == 0)
		m.n_values = 1000000;
	send_msg(&m, TOSD_ACTION_ASK, strcmp(kind, "length") == 0 ? sizeof(m) - 1 : sizeof(m));
	if (strcmp(kind, "slot") == 0)
		send_msg(&m, TOSD_ACTION_ASK, sizeof(m));
	for (int i = 0; strcmp(kind, "many") == 0 && i < 100; i++) {
		m.slot++;
		send_msg(&m, TOSD_ACTION_ASK, sizeof(m));
	}
}

static void say_ended(const struct tosd_action_ended *e)
{
	char text[200];
	size_t n = 0;

	for (size_t i = 0; i < e->n[0] && n < sizeof(text) - 1; i++)
		text[n++] = e->output[0][i] == '\n' ? '|' : e->output[0][i];
	text[n] = 0;
	say("ACTION %lu rc=%d status=%d late=%u n=%u cut=%lu %s%s", (unsigned long)e->slot,
		e->rc, e->status, e->timed_out, e->n[0], (unsigned long)e->cut[0], e->text,
		text);
}

static void obey(char *line)
{
	char *word = strtok(line, " "), *rest = strtok(NULL, "");

	if (!word)
		return;
	if (!rest)
		rest = (char *)"";
	if (strcmp(word, "spawn") == 0)
		do_spawn(rest);
	else if (strcmp(word, "signal") == 0)
		do_signal(rest);
	else if (strcmp(word, "act") == 0)
		do_act(rest);
	else if (strcmp(word, "act-garbage") == 0)
		act_garbage(rest);
	else if (strcmp(word, "ready") == 0) {
		struct tosd_simple m = { 0 };

		send_msg(&m, TOSD_KERNEL_READY, sizeof(m));
	} else if (strcmp(word, "ask") == 0) {
		char *text = strchr(rest, ' ');

		ask_child(strtoul(rest, NULL, 10), text ? text + 1 : "");
	} else if (strcmp(word, "close") == 0)
		close(slot_fd[strtoul(rest, NULL, 10)]);
	else if (strcmp(word, "garbage") == 0)
		send_garbage(rest);
	else if (strcmp(word, "write") == 0)
		try_write(rest);
	else if (strcmp(word, "mute") == 0)
		muted = true;
	else if (strcmp(word, "unmute") == 0)
		muted = false;
	else if (strcmp(word, "exit") == 0)
		_exit(atoi(rest));
	else if (strcmp(word, "who") == 0)
		say("WHO pid=%d uid=%d", (int)getpid(), (int)getuid());
}

static void on_tosd(void)
{
	static union {
		struct tosd_head head;
		struct tosd_spawned spawned;
		struct tosd_failed failed;
		struct tosd_died died;
		struct tosd_layers layers;
		struct tosd_reloaded reloaded;
		struct tosd_action_ended ended;
	} m;
	int fds[IPC_FDS_MAX];
	size_t n, n_fds;

	if (ipc_recv(3, &m, sizeof(m), &n, fds, ARRAY_LEN(fds), &n_fds, NULL) < 0)
		_exit(4);
	if (m.head.type == TOSD_SPAWNED) {
		slot_fd[m.spawned.slot] = fds[0];
		slot_pidfd[m.spawned.slot] = fds[1];
		say("SPAWNED %lu %d", (unsigned long)m.spawned.slot, m.spawned.pid);
	} else if (m.head.type == TOSD_FAILED)
		say("FAILED %lu %d %s", (unsigned long)m.failed.slot, m.failed.rc,
			m.failed.text);
	else if (m.head.type == TOSD_DIED)
		say("DIED %lu cause=%u status=%d cpu_us=%lu peak=%lu",
			(unsigned long)m.died.slot, m.died.cause, m.died.status,
			(unsigned long)m.died.cpu_us, (unsigned long)m.died.peak_bytes);
	else if (m.head.type == TOSD_ACTION_ENDED)
		say_ended(&m.ended);
	else if (m.head.type == TOSD_RELOADED)
		say("RELOADED %d %s", m.reloaded.rc, m.reloaded.text);
	else if (m.head.type == TOSD_STOP) {
		say("STOP");
		if (!muted)
			_exit(0);
	}
}

static void serve(void)
{
	static char line[65536];
	size_t have = 0;

	for (;;) {
		struct pollfd p[2] = { { muted ? -1 : 3, POLLIN, 0 }, { ctl, POLLIN, 0 } };
		char *end;
		ssize_t n;

		if (poll(p, 2, -1) < 0)
			_exit(5);
		if (p[0].revents)
			on_tosd();
		if (!p[1].revents)
			continue;
		n = read(ctl, line + have, sizeof(line) - 1 - have);
		if (n <= 0)
			_exit(0);
		have += (size_t)n;
		line[have] = 0;
		while ((end = strchr(line, '\n')) != NULL) {
			*end = 0;
			obey(line);
			have -= (size_t)(end + 1 - line);
			memmove(line, end + 1, have + 1);
		}
	}
}

static int listen_ctl(const char *state)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), got;

	snprintf(a.sun_path, sizeof(a.sun_path), "%s/ctl", state);
	unlink(a.sun_path);
	if (fd < 0 || bind(fd, (struct sockaddr *)&a, sizeof(a)) < 0 || listen(fd, 1) < 0) {
		fprintf(stderr, "kernel_probe: %s: %s\n", a.sun_path, strerror(errno));
		_exit(6);
	}
	got = accept(fd, NULL, NULL);
	close(fd);
	return got;
}

int main(int argc, char **argv)
{
	static struct tosd_config_msg c;
	static struct tosd_layers l;
	int fds[IPC_FDS_MAX];
	size_t n, n_fds, config_fds;

	setvbuf(stderr, NULL, _IOLBF, 0);
	if (argc == 4 && strcmp(argv[1], "--check-config") == 0)
		return check(argv[3]);
	if (ipc_recv(3, &c, sizeof(c), &n, fds, ARRAY_LEN(fds), &config_fds, NULL) < 0 ||
		c.head.type != TOSD_CONFIG || n != sizeof(c))
		return 10;
	if (ipc_recv(3, &l, sizeof(l), &n, fds, ARRAY_LEN(fds), &n_fds, NULL) < 0 ||
		l.head.type != TOSD_LAYERS || n != sizeof(l))
		return 11;
	signal(SIGPIPE, SIG_IGN);
	ctl = listen_ctl(c.state_path);
	say("CONFIG file=%s listeners=%u fds=%zu state=%s restarts=%u level=%s uid=%d", argv[2],
		c.n_listen, config_fds, c.state_path, c.restarts, l.level, (int)getuid());
	for (uint32_t i = 0; i < l.n; i++)
		say("LAYER %s %s %s", l.layer[i].name, l.layer[i].state, l.layer[i].reason);
	say("UP");
	serve();
}
