/*
 * The directories of the host that extensions were granted. The configuration names one, which is
 * left as it is; or there is one of the extension's own at extensions/NAME below the state
 * directory, made when it is first asked for. That belongs to the uid of its tos-ext, and the one
 * above it to tosd: tos-kernel, whose state directory it is, can't put something else there.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "base/mem.h"
#include "tosd/tosd.h"

/* An extension's, and so one name in a directory: tos-kernel tells it. */
static bool name_ok(const char *s)
{
	size_t n =
		strspn(s, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-.");

	return s[0] >= 'A' && s[0] <= 'Z' && !s[n];
}

/* What the configuration does not speak of. */
static const struct tosd_grant granted_nothing = { .file_bytes = TOSD_FILE_BYTES };

static const struct tosd_grant *grant_find(
	const struct tosd_config *c, uint32_t index, const char *name)
{
	if (index < TOSD_EXT_MAX)
		return &c->ext[index].grant;
	for (uint32_t i = 0; i < c->n_installed; i++)
		if (strcmp(c->installed[i].name, name) == 0)
			return &c->installed[i];
	return &granted_nothing;
}

static int directory_in(int at, const char *name, mode_t mode, struct errmsg *em)
{
	int fd;

	if (mkdirat(at, name, mode) < 0 && errno != EEXIST)
		return err_errno(em, "cannot make the directory %s", name);
	fd = openat(at, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	return fd < 0 ? err_errno(em, "cannot open the directory %s", name) : fd;
}

/* All in it is of one uid; the directory itself is given last, so that a walk that was cut short
 * is made again. */
static int give_to(int fd, uid_t uid, struct errmsg *em)
{
	struct stat st;
	int copy;

	if (fstat(fd, &st) < 0)
		return err_errno(em, "cannot look at it");
	if (st.st_uid == uid)
		return 0;
	copy = openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (copy < 0 || place_give(copy, uid) < 0 || fchown(fd, uid, uid) < 0)
		return err_errno(em, "cannot give it to uid %u", uid);
	return 0;
}

static int own_directory(const struct tosd *t, struct launch_request *r, struct errmsg *em)
{
	AUTOCLOSE int all = -1, own = -1;
	int rc = 0;

	if (!name_ok(r->name))
		return err_set(em, ERR_NAME, "'%.20s' is no name of an extension", r->name);
	all = directory_in(t->state_fd, TOSD_EXTENSIONS, 0711, em);
	if (all < 0)
		return all;
	own = directory_in(all, r->name, 0700, em);
	if (own < 0)
		return own;
	if (r->uid >= 0)
		rc = give_to(own, (uid_t)r->uid, em);
	if (rc < 0)
		return err_wrap(
			em, rc, "%s/" TOSD_EXTENSIONS "/%s", t->config.state_dir, r->name);
	return snprintf(r->directory, sizeof(r->directory), "%s/" TOSD_EXTENSIONS "/%s",
		       t->config.state_dir, r->name) < (int)sizeof(r->directory)
		       ? 0
		       : err_set(em, ERR_TOO_LARGE, "the path of %s is too long", r->name);
}

int grant_directory(
	const struct tosd *t, uint32_t index, struct launch_request *r, struct errmsg *em)
{
	const struct tosd_grant *g = grant_find(&t->config, index, r->name);

	if (!(r->privileges & SANDBOX_DIRECTORY))
		return 0;
	r->file_bytes = g->file_bytes;
	if (!g->directory[0])
		return own_directory(t, r, em);
	r->read_only = g->read_only;
	snprintf(r->directory, sizeof(r->directory), "%s", g->directory);
	return 0;
}
