/*
 * What a sandboxed process sees of the file system. Runs in the child, in its own mount
 * namespace, as the one who may mount there. Nothing is allocated. See sandbox.h.
 */
#include "sandbox/sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/mount.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/mem.h"

/* glibc's sys/mount.h and the kernel's header exclude each other; these are the kernel's own
 * numbers. */
int mount(const char *source, const char *target, const char *type, unsigned long flags,
	const void *data);
int umount2(const char *target, int flags);
#define DETACH 2

/* Any directory that surely exists and that no sandbox needs: the new root is built upon it. */
#define SCAFFOLD "/dev"

static int lock_down_as(const char *path, bool recursive, bool exec, bool read_only)
{
	struct mount_attr attr = { .attr_set = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV |
					       (read_only ? MOUNT_ATTR_RDONLY : 0) |
					       (exec ? 0 : MOUNT_ATTR_NOEXEC) };
	unsigned flags = recursive ? AT_RECURSIVE : 0;

	if (syscall(SYS_mount_setattr, AT_FDCWD, path, flags, &attr, sizeof(attr)) == 0)
		return 0;
	if (errno != ENOSYS)
		return -errno;
	/* Before 5.12: the top mount only; uid and Landlock stay in the way of writing below.
	 */
	if (mount(NULL, path, NULL,
		    MS_REMOUNT | MS_BIND | MS_NOSUID | MS_NODEV | (read_only ? MS_RDONLY : 0) |
			    (exec ? 0 : MS_NOEXEC),
		    NULL) < 0)
		return -errno;
	return 0;
}

static int lock_down(const char *path, bool recursive, bool exec)
{
	return lock_down_as(path, recursive, exec, true);
}

/* Bind a host directory or file below the new root, which is the working directory. */
static int bind_in(const char *from, bool exec)
{
	const char *to = from + 1;
	struct stat st;
	char link[256];
	ssize_t n;

	if (lstat(from, &st) < 0)
		return 0; /* what the host lacks the sandbox lacks */
	if (S_ISLNK(st.st_mode)) {
		n = readlink(from, link, sizeof(link) - 1);
		if (n < 0)
			return -errno;
		link[n] = 0;
		return symlink(link, to) < 0 && errno != EEXIST ? -errno : 0;
	}
	if (S_ISDIR(st.st_mode)) {
		if (mkdir(to, 0755) < 0 && errno != EEXIST)
			return -errno;
	} else {
		int fd = open(to, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);

		if (fd < 0)
			return -errno;
		mem_close(fd);
	}
	/* Recursive: a mount in a less privileged namespace may not uncover what lies below
	 * another. */
	if (mount(from, to, NULL, MS_BIND | MS_REC, NULL) < 0)
		return -errno;
	return lock_down(to, true, exec);
}

static int bind_each(const char *const *paths, bool exec)
{
	int rc = 0;

	for (; *paths && rc == 0; paths++)
		rc = bind_in(*paths, exec);
	return rc;
}

/* The extension's shared object is copied: it may lie where its own uid can't go. */
static int copy_library(int from)
{
	AUTOCLOSE int to = open("ext.so", O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0555);
	char block[65536];
	off_t at = 0;
	ssize_t n;

	if (to < 0)
		return -errno;
	while ((n = pread(from, block, sizeof(block), at)) > 0) {
		for (ssize_t done = 0; done < n;) {
			ssize_t w = write(to, block + done, (size_t)(n - done));

			if (w < 0)
				return -errno;
			done += w;
		}
		at += n;
	}
	return n < 0 ? -errno : 0;
}

static int fill_root(const struct sandbox_plan *p)
{
	static const char *const libraries[] = { "/lib", "/lib64", "/usr/lib", "/usr/lib64",
		"/usr/lib32", "/etc/ld.so.cache", NULL };
	static const char *const proc[] = { "/proc", "/sys", NULL };
	int rc = 0;

	if (p->dynamic) {
		if (mkdir("usr", 0755) < 0 || mkdir("etc", 0755) < 0)
			return -errno;
		rc = bind_each(libraries, true);
	}
	if (rc == 0 && p->library_fd >= 0)
		rc = copy_library(p->library_fd);
	if (rc == 0 && (p->privileges & SANDBOX_READ_PROC))
		rc = bind_each(proc, false);
#if defined(TOS_SANITIZE) || defined(TOS_VALGRIND)
	if (rc == 0 && !(p->privileges & SANDBOX_READ_PROC))
		rc = bind_in("/proc", false);
#endif
	return rc;
}

/* What was opened, not what lies at the path by now. */
static int bind_directory(const struct sandbox_plan *p, int directory)
{
	const char *to = &SANDBOX_DATA[1];
	char from[40];

	if (directory < 0)
		return 0;
	if (mkdir(to, 0755) < 0)
		return -errno;
	snprintf(from, sizeof(from), "/proc/self/fd/%d", directory);
	if (mount(from, to, NULL, MS_BIND | MS_REC, NULL) < 0)
		return -errno;
	return lock_down_as(to, true, false, p->read_only);
}

static int empty_root(const struct sandbox_plan *p, int directory)
{
	const char *size = p->library_fd >= 0 ? "size=16m,nr_inodes=64,mode=0755"
					      : "size=64k,nr_inodes=32,mode=0755";
	bool exec = p->library_fd >= 0;
	int rc;

	if (mount("tmpfs", SCAFFOLD, "tmpfs", MS_NOSUID | MS_NODEV | (exec ? 0 : MS_NOEXEC),
		    size) < 0)
		return -errno;
	if (chdir(SCAFFOLD) < 0)
		return -errno;
	rc = fill_root(p);
	rc = rc ? rc : bind_directory(p, directory);
	if (rc < 0)
		return rc;
	/* Both names are one directory: the old root then lies on top of the new one and is
	 * detached. */
	if (syscall(SYS_pivot_root, ".", ".") < 0)
		return -errno;
	if (umount2(".", DETACH) < 0)
		return -errno;
	if (chdir("/") < 0)
		return -errno;
	return lock_down("/", false, exec);
}

static bool is_mount_point(const char *path)
{
	struct stat st, up;
	char parent[4096];

	if (snprintf(parent, sizeof(parent), "%s/..", path) >= (int)sizeof(parent))
		return true;
	return stat(path, &st) < 0 || stat(parent, &up) < 0 || st.st_dev != up.st_dev;
}

/* The host's own tree, read-only, so that statvfs of any path answers; keys and state are
 * covered. What this uid can't reach need not be covered, and a file system of its own must
 * stay visible: there uid and Landlock keep the contents away. */
static int host_root(const struct sandbox_plan *p)
{
	for (size_t i = 0; p->hide && p->hide[i]; i++) {
		if (is_mount_point(p->hide[i]))
			continue;
		if (mount("tmpfs", p->hide[i], "tmpfs",
			    MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC,
			    "size=4k,nr_inodes=2,mode=0555") < 0 &&
			errno != EACCES && errno != ENOENT)
			return -errno;
	}
	return lock_down("/", true, true);
}

/* tos-kernel, started by root: its state and, where its uid can't go there, its programs, at
 * fixed paths. */
static int bind_fixed(const struct sandbox_plan *p)
{
	for (size_t i = 0; i < ARRAY_LEN(p->bind_from); i++)
		if (p->bind_from[i] &&
			mount(p->bind_from[i], p->bind_to[i], NULL, MS_BIND | MS_REC, NULL) < 0)
			return -errno;
	return 0;
}

int sandbox_mounts(const struct sandbox_plan *p, int directory)
{
	if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
		return -errno;
	if (p->kind == SANDBOX_KERNEL)
		return bind_fixed(p);
	if (p->privileges & SANDBOX_READ_FS)
		return host_root(p);
	return empty_root(p, directory);
}
