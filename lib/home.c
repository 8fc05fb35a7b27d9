/* $TOS_HOME: where it is and what is in it. See home.h. */
#include "lib/home.h"

#include <confuse.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/mem.h"
#include "base/text.h"
#include "lib/groups.h"

#define CONF_MAX ((size_t)1 << 20)

int path_join(char *out, size_t cap, struct errmsg *em, const char *first, ...)
{
	size_t len = strlen(first);
	const char *part;
	va_list ap;

	if (len >= cap)
		return err_set(em, ERR_TOO_LARGE, "the path %.64s... is too long", first);
	memcpy(out, first, len + 1);
	va_start(ap, first);
	while ((part = va_arg(ap, const char *))) {
		int n = snprintf(out + len, cap - len, "/%s", part);

		if (n < 0 || (size_t)n >= cap - len) {
			va_end(ap);
			return err_set(
				em, ERR_TOO_LARGE, "the path %.64s... is too long", first);
		}
		len += (size_t)n;
	}
	va_end(ap);
	return 0;
}

int home_path(const char *asked, char out[HOME_PATH_MAX], struct errmsg *em)
{
	const char *env = getenv("TOS_HOME"), *user = getenv("HOME");
	char cwd[HOME_PATH_MAX], own[HOME_PATH_MAX];

	if (!asked || !*asked)
		asked = env && *env ? env : NULL;
	if (!asked && geteuid() == 0)
		asked = "/var/lib/tos";
	if (!asked) {
		if (!user || !*user)
			return err_set(em, ERR_USAGE,
				"neither TOS_HOME nor HOME is set; use --home DIR");
		if (path_join(own, sizeof(own), em, user, ".tos", NULL) < 0)
			return ERR_TOO_LARGE;
		asked = own;
	}
	if (*asked == '/')
		return path_join(out, HOME_PATH_MAX, em, asked, NULL);
	if (!getcwd(cwd, sizeof(cwd)))
		return err_errno(em, "cannot name the current directory");
	return path_join(out, HOME_PATH_MAX, em, cwd, asked, NULL);
}

static void ignore_confuse(cfg_t *cfg, const char *fmt, va_list ap)
{
	(void)cfg;
	(void)fmt;
	(void)ap;
}

static int conf_take(cfg_t *cfg, const char *file, struct home *out, struct tos_value **groups,
	struct errmsg *em)
{
	const char *principal = cfg_getstr(cfg, "principal"),
		   *kernel = cfg_getstr(cfg, "kernel");

	if (text_copy(out->principal, sizeof(out->principal), principal, strlen(principal)) <
			0 ||
		text_copy(out->kernel, sizeof(out->kernel), kernel, strlen(kernel)) < 0)
		return err_set(em, ERR_CONFIG, "%s: a name is longer than 63 bytes", file);
	return groups ? groups_of_conf(cfg, groups) : 0;
}

int home_open(const char *asked, struct home *out, struct errmsg *em)
{
	return home_open_with(asked, out, NULL, em);
}

int home_open_with(
	const char *asked, struct home *out, struct tos_value **groups, struct errmsg *em)
{
	cfg_opt_t group[] = { CFG_STR_LIST("hosts", "{}", CFGF_NONE), CFG_END() };
	cfg_opt_t host[] = { CFG_STR_LIST("labels", "{}", CFGF_NONE), CFG_END() };
	cfg_opt_t opts[] = { CFG_STR("principal", "", CFGF_NONE),
		CFG_STR("kernel", "", CFGF_NONE),
		CFG_SEC("group", group, CFGF_MULTI | CFGF_TITLE | CFGF_NO_TITLE_DUPES),
		CFG_SEC("host", host, CFGF_MULTI | CFGF_TITLE | CFGF_NO_TITLE_DUPES),
		CFG_END() };
	char file[HOME_PATH_MAX];
	cfg_t *cfg;
	int rc;

	memset(out, 0, sizeof(*out));
	rc = home_path(asked, out->path, em);
	if (rc == 0)
		rc = path_join(file, sizeof(file), em, out->path, "domain.conf", NULL);
	if (rc < 0)
		return rc;
	if (access(file, R_OK) < 0) {
		if (errno == ENOENT || errno == ENOTDIR)
			return err_set(em, ERR_NOT_FOUND,
				"there is no domain in %s; make one with 'tos up'", out->path);
		return err_errno(em, "cannot read %s", file);
	}
	cfg = cfg_init(opts, CFGF_NONE);
	if (!cfg)
		return ERR_NOMEM;
	cfg_set_error_function(cfg, ignore_confuse);
	rc = cfg_parse(cfg, file);
	if (rc != CFG_SUCCESS)
		rc = err_set(em, ERR_CONFIG,
			"%s:%d: not understood; it holds principal = \"NAME\", kernel = \"NAME\", "
			"group \"NAME\" { hosts = {...} } and host \"NAME\" { labels = {...} }",
			file, cfg->line);
	else
		rc = conf_take(cfg, file, out, groups, em);
	cfg_free(cfg);
	return rc;
}

static const char conf_head[] =
	"# Read by tos: whom it acts as, and the kernel that it asks first.\n";

/* What others wrote into it, groups above all, stays. */
static void conf_rest(const char *file, struct buf *out)
{
	static const char *const ours[] = { "principal", "kernel", conf_head };
	AUTOBUF old = BUF_INIT;

	if (bytes_read(file, CONF_MAX, &old, NULL) < 0)
		return;
	for (const char *line = buf_cstr(&old); *line;) {
		size_t n = strcspn(line, "\n") + 1;
		bool mine = false;

		n = line[n - 1] ? n : n - 1;
		for (size_t i = 0; i < ARRAY_LEN(ours); i++)
			mine = mine || strncmp(line, ours[i], strlen(ours[i])) == 0;
		if (!mine)
			buf_add(out, line, n);
		line += n;
	}
}

int home_write(const struct home *h, struct errmsg *em)
{
	char file[HOME_PATH_MAX];
	AUTOBUF b = BUF_INIT;
	int rc;

	buf_add_str(&b, conf_head);
	if (*h->principal)
		buf_printf(&b, "principal = \"%s\"\n", h->principal);
	if (*h->kernel)
		buf_printf(&b, "kernel = \"%s\"\n", h->kernel);
	rc = path_join(file, sizeof(file), em, h->path, "domain.conf", NULL);
	if (rc == 0)
		conf_rest(file, &b);
	rc = rc ? rc : buf_check(&b);
	return rc < 0 ? rc : bytes_write(file, b.data, b.len, 0644, em);
}

int names_compare(const void *a, const void *b)
{
	return strverscmp(a, b);
}

int names_add(struct names *n, const char *name)
{
	char(*more)[64] = mem_try_resize(n->v, (n->n + 1) * sizeof(*n->v));

	if (!more)
		return ERR_NOMEM;
	n->v = more;
	if (text_copy(n->v[n->n], sizeof(*n->v), name, strlen(name)) < 0)
		return ERR_NAME;
	n->n++;
	return 0;
}

void names_fini(struct names *n)
{
	free(n->v);
	n->v = NULL;
	n->n = 0;
}

int home_kernels(const struct home *h, struct names *out)
{
	char dir[HOME_PATH_MAX], conf[HOME_PATH_MAX];
	struct dirent *e;
	DIR *d;

	memset(out, 0, sizeof(*out));
	if (path_join(dir, sizeof(dir), NULL, h->path, "kernels", NULL) < 0)
		return ERR_TOO_LARGE;
	d = opendir(dir);
	if (!d)
		return errno == ENOENT ? 0 : ERR_IO;
	while ((e = readdir(d))) {
		if (e->d_name[0] == '.' ||
			path_join(conf, sizeof(conf), NULL, dir, e->d_name, "tosd.conf", NULL) <
				0 ||
			/* one that this user may not look at is there all the same */
			(access(conf, F_OK) < 0 && errno != EACCES))
			continue;
		names_add(out, e->d_name); /* a name that is too long is none of ours */
	}
	closedir(d);
	if (out->n)
		qsort(out->v, out->n, sizeof(*out->v), names_compare);
	for (size_t i = 1; i < out->n; i++)
		if (strcmp(out->v[i], h->kernel) == 0) {
			memmove(out->v + 1, out->v, i * sizeof(*out->v));
			memcpy(out->v[0], h->kernel, sizeof(*out->v));
			break;
		}
	return 0;
}

int dir_make(const char *path, unsigned mode, struct errmsg *em)
{
	char part[HOME_PATH_MAX];

	if (path_join(part, sizeof(part), em, path, NULL) < 0)
		return ERR_TOO_LARGE;
	for (char *p = strchr(part + 1, '/');; p = strchr(p + 1, '/')) {
		if (p)
			*p = 0;
		if (mkdir(part, p ? 0755 : mode) < 0 && errno != EEXIST)
			return err_errno(em, "cannot make the directory %s", part);
		if (!p)
			return 0;
		*p = '/';
	}
}

int bytes_read(const char *path, size_t most, struct buf *out, struct errmsg *em)
{
	AUTOCLOSE int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct stat st;

	if (fd < 0)
		return errno == ENOENT ? err_set(em, ERR_NOT_FOUND, "there is no file %s", path)
				       : err_errno(em, "cannot read %s", path);
	if (fstat(fd, &st) < 0 || S_ISDIR(st.st_mode))
		return err_set(em, ERR_IO, "%s is not a file", path);
	for (;;) {
		uint8_t block[16384];
		ssize_t n = read(fd, block, sizeof(block));

		if (n < 0)
			return err_errno(em, "cannot read %s", path);
		if (n == 0)
			return buf_check(out);
		if (out->len + (size_t)n > most)
			return err_set(
				em, ERR_TOO_LARGE, "%s is larger than %zu bytes", path, most);
		if (buf_add(out, block, (size_t)n) < 0)
			return ERR_NOMEM;
	}
}

int bytes_write(const char *path, const void *p, size_t n, unsigned mode, struct errmsg *em)
{
	char fresh[HOME_PATH_MAX + 16];
	const char *at = p;
	int fd, rc = 0;

	snprintf(fresh, sizeof(fresh), "%s.XXXXXX", path);
	fd = mkostemp(fresh, O_CLOEXEC);
	if (fd < 0)
		return err_errno(em, "cannot write %s", path);
	for (size_t left = n; left && rc == 0;) {
		ssize_t did = write(fd, at, left);

		if (did < 0 && errno != EINTR)
			rc = err_errno(em, "cannot write %s", path);
		if (did > 0) {
			at += did;
			left -= (size_t)did;
		}
	}
	if (rc == 0 && (fchmod(fd, mode) < 0 || fsync(fd) < 0))
		rc = err_errno(em, "cannot write %s", path);
	if (close(fd) < 0 && rc == 0)
		rc = err_errno(em, "cannot write %s", path);
	if (rc == 0 && rename(fresh, path) < 0)
		rc = err_errno(em, "cannot write %s", path);
	if (rc < 0)
		unlink(fresh);
	return rc;
}
