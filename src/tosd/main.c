/* tosd: options and start. See tosd.h for what each part does. */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <grp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/log.h"
#include "base/mem.h"
#include "tosd/tosd.h"

#define EXIT_USAGE   2
#define EXIT_STOPPED 3 /* by tos stop --all: nothing is to start it again */

static const char usage[] =
	"usage: tosd [-c FILE] [-t]\n"
	"\n"
	"Starts the kernel that FILE configures and keeps it running, in the foreground.\n"
	"\n"
	"  -c, --config FILE   default: $TOS_HOME/kernels/host0/tosd.conf\n"
	"  -t, --test          check the configuration, print it normalised, and exit\n"
	"      --restored      the store was put back from a backup: ask before anything of it runs\n"
	"      --programs DIR  where tos-kernel, tos-vm and tos-ext are\n"
	"  -h, --help\n"
	"  -V, --version\n";

struct options {
	char config[4096];
	const char *programs;
	bool test, restored;
};

static void default_config(char *out, size_t cap)
{
	const char *home = getenv("TOS_HOME"), *user = getenv("HOME");

	if (home)
		snprintf(out, cap, "%s/kernels/host0/tosd.conf", home);
	else if (geteuid() == 0 || !user)
		snprintf(out, cap, "/var/lib/tos/kernels/host0/tosd.conf");
	else
		snprintf(out, cap, "%s/.tos/kernels/host0/tosd.conf", user);
}

/* Returns -1 to go on, or the exit status. */
static int parse_options(int argc, char **argv, struct options *o)
{
	static const struct option longs[] = { { "config", 1, NULL, 'c' },
		{ "test", 0, NULL, 't' }, { "restored", 0, NULL, 'r' },
		{ "programs", 1, NULL, 'p' }, { "help", 0, NULL, 'h' },
		{ "version", 0, NULL, 'V' }, { NULL, 0, NULL, 0 } };
	int c;

	default_config(o->config, sizeof(o->config));
	while ((c = getopt_long(argc, argv, "c:thV", longs, NULL)) != -1) {
		switch (c) {
		case 'c':
			snprintf(o->config, sizeof(o->config), "%s", optarg);
			break;
		case 't':
			o->test = true;
			break;
		case 'r':
			o->restored = true;
			break;
		case 'p':
			o->programs = optarg;
			break;
		case 'h':
			fputs(usage, stdout);
			return 0;
		case 'V':
			puts("tosd " TOS_VERSION);
			return 0;
		default:
			fputs(usage, stderr);
			return EXIT_USAGE;
		}
	}
	if (optind < argc) {
		fputs(usage, stderr);
		return EXIT_USAGE;
	}
	return -1;
}

/* Where the host has no seccomp there is nothing to compile for: level none says so. */
static int make_filters(struct tosd *t, struct errmsg *em)
{
	if (t->host.seccomp) {
		sandbox_filter_fini(&t->filter_directory);
		int rc = sandbox_filter_make_ext(SANDBOX_DIRECTORY, &t->filter_directory, em);

		if (rc < 0)
			return rc;
	}
	for (enum sandbox_kind k = 0; t->host.seccomp && k < SANDBOX_KINDS; k++) {
		bool dynamic = k == SANDBOX_VM ? t->vm.dynamic : true;
		int rc;

		sandbox_filter_fini(&t->filter[k]);
		rc = sandbox_filter_make(k, dynamic, &t->filter[k], em);
		if (rc < 0)
			return rc;
	}
	return 0;
}

/* Descriptors 0 to 2 must be there, or the next one opened would be taken for them. */
static int open_null(struct tosd *t, struct errmsg *em)
{
	int fd;

	do {
		fd = open("/dev/null", O_RDWR | O_CLOEXEC);
		if (fd < 0)
			return err_errno(em, "cannot open /dev/null");
		if (fd <= STDERR_FILENO)
			fcntl(fd, F_SETFD, 0);
	} while (fd <= STDERR_FILENO);
	t->null_fd = fd;
	return 0;
}

/* Read the configuration: just enough sandbox is known by then to have it read by somebody
 * else. */
static int configure(struct tosd *t, struct errmsg *em)
{
	int rc = open_null(t, em);

	if (rc == 0)
		rc = program_open(t, "tos-kernel", &t->kernel, em);
	if (rc < 0)
		return rc;
	sandbox_probe(&t->host, false, 200000);
	rc = make_filters(t, em);
	return rc < 0 ? rc : check_config(t, em);
}

static int check_require(const struct tosd *t, struct errmsg *em)
{
	for (uint32_t i = 0; i < t->config.n_require; i++) {
		const char *name = t->config.require[i];
		const struct sandbox_layer *l = sandbox_layer_find(&t->host, name);

		if (strcmp(name, "full") == 0 && strcmp(t->host.level, "full") != 0)
			return err_set(em, ERR_SANDBOX,
				"sandbox.require wants level full, this host offers %s",
				t->host.level);
		if (strcmp(name, "full") == 0)
			continue;
		if (!l)
			return err_set(em, ERR_CONFIG,
				"sandbox.require names an unknown layer \"%s\"", name);
		if (strcmp(l->state, "off") == 0)
			return err_set(em, ERR_SANDBOX,
				"sandbox.require wants %s, which this host does not offer: %s",
				name, l->reason);
	}
	return 0;
}

static void log_layers(const struct tosd *t)
{
	for (uint32_t i = 0; i < t->host.n; i++) {
		const struct sandbox_layer *l = &t->host.layer[i];

		log_info("sandbox layer", KV_STR("layer", l->name), KV_STR("state", l->state),
			KV_STR("reason", l->reason));
	}
	if (strcmp(t->host.level, "full") != 0)
		/* The warning is tos-kernel's, whose log others can read. */
		log_info("sandbox is not complete on this host; tos doctor names what is "
			 "missing",
			KV_STR("level", t->host.level));
}

static int read_privileges(struct tosd *t, struct errmsg *em)
{
	for (uint32_t i = 0; i < t->config.n_ext; i++) {
		int rc = sandbox_privileges(t->config.ext[i].privileges, &t->privileges[i], em);

		if (rc < 0)
			return err_wrap(em, rc, "extension \"%s\"", t->config.ext[i].name);
	}
	return sandbox_privileges(t->config.installed_privileges, &t->installed_privileges, em);
}

/* Keys and state, kept from extensions that may look at the host's files. */
static void find_hidden(struct tosd *t)
{
	size_t n = 0;
	const char *home = getenv("HOME");

	t->hide[n++] = t->config.state_dir;
	if (getenv("TOS_HOME"))
		t->hide[n++] = getenv("TOS_HOME");
	if (home && home[0] == '/' && home[1])
		t->hide[n++] = home;
	t->hide[n++] = "/root";
	t->hide[n] = NULL;
}

/* A file of this name in the state directory says something by being there. */
static bool marked(const struct tosd *t, const char *name)
{
	return faccessat(t->state_fd, name, F_OK, AT_SYMLINK_NOFOLLOW) == 0;
}

/* tos-kernel takes the mark of a restored store away when its own journal has it. */
static int mark_restored(const struct tosd *t, struct errmsg *em)
{
	int fd = openat(
		t->state_fd, "restored", O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);

	if (fd < 0 || fsync(fd) < 0)
		return err_errno(em, "cannot mark %s as restored", t->config.state_dir);
	close(fd);
	return 0;
}

static int prepare(struct tosd *t, struct errmsg *em)
{
	int rc;

	if ((rc = read_privileges(t, em)) < 0 || (rc = place_lock(t, em)) < 0)
		return rc;
	if (marked(t, "stopped"))
		return err_set(
			em, ERR_STATE, "stopped by 'tos stop --all': 'tos resume --all' first");
	if (t->restored && (rc = mark_restored(t, em)) < 0)
		return rc;
	t->uid_base = place_uid_base(t);
	sandbox_probe(&t->host, t->config.test_no_userns, t->uid_base);
	log_layers(t);
	if ((rc = check_require(t, em)) < 0 || (rc = place_listen(t, em)) < 0)
		return rc;
	if ((rc = program_open(t, "tos-vm", &t->vm, em)) < 0)
		return rc;
	t->ext.fd = -1;
	/* Where none is configured it is needed only if one is installed. */
	rc = program_open(t, "tos-ext", &t->ext, em);
	if (rc < 0 && t->config.n_ext > 0)
		return rc;
	if ((rc = make_filters(t, em)) < 0) /* again, now that we know tos-vm */
		return rc;
	find_hidden(t);
	return place_state(t, em);
}

static void raise_nofile(void)
{
	struct rlimit r;

	if (getrlimit(RLIMIT_NOFILE, &r) == 0) {
		r.rlim_cur = r.rlim_max;
		setrlimit(RLIMIT_NOFILE, &r);
	}
}

static int start(struct tosd *t, struct errmsg *em)
{
	int rc = prepare(t, em);

	if (rc < 0)
		return rc;
	if (geteuid() == 0)
		setgroups(0, NULL);
	raise_nofile();
	return 0;
}

int main(int argc, char **argv)
{
	static struct tosd t;
	static struct options o;
	struct errmsg em = { "" };
	int rc = parse_options(argc, argv, &o);

	if (rc >= 0)
		return rc;
	log_init("tosd", NULL, LOG_INFO, false);
	t.argv = argv;
	t.config_path = o.config;
	t.programs = o.programs;
	t.restored = o.restored;
	rc = configure(&t, &em);
	if (rc == 0 && o.test) {
		fputs(t.config_text, stdout);
		return 0;
	}
	if (rc == 0) {
		log_init("tosd", t.config.name, log_level_parse(t.config.log_level),
			t.config.log_json != 0);
		rc = start(&t, &em);
	}
	if (rc < 0) {
		fprintf(stderr, "tosd: %s\n", err_show(rc, &em));
		return rc == ERR_STATE && marked(&t, "stopped") ? EXIT_STOPPED : 1;
	}
	return supervise(&t);
}
