/* Programs, listeners, the state directory, uids: what tosd finds and opens before anything
 * starts. */
#include <dirent.h>
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <netdb.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/log.h"
#include "base/mem.h"
#include "base/text.h"
#include "base/where.h"
#include "tosd/tosd.h"

#define PROGRAM_BYTES_MAX ((off_t)256 << 20)
#define GIVE_DEPTH        16
#define UID_FIRST         200000u
#define UID_BLOCKS        60000u
#define BOUND_STATE       "/run/tos-state"
#define BOUND_PREFIX      "/run/tos-prefix"

/* A program with an interpreter needs the host's libraries in its sandbox. */
static bool has_interpreter(int fd)
{
	Elf64_Ehdr head;
	Elf64_Phdr part;

	if (pread(fd, &head, sizeof(head), 0) != (ssize_t)sizeof(head) ||
		memcmp(head.e_ident, ELFMAG, SELFMAG) != 0 ||
		head.e_ident[EI_CLASS] != ELFCLASS64 || head.e_phentsize != sizeof(part))
		return true;
	for (unsigned i = 0; i < head.e_phnum && i < 64; i++) {
		off_t at = (off_t)(head.e_phoff + i * sizeof(part));

		if (pread(fd, &part, sizeof(part), at) != (ssize_t)sizeof(part))
			return true;
		if (part.p_type == PT_INTERP)
			return true;
	}
	return false;
}

/* A copy that every uid may execute: the file itself may be closed to all but its owner. */
static int copy_to_memory(int from, const struct stat *st, const char *name, struct errmsg *em)
{
	int to = memfd_create(name, MFD_CLOEXEC);
	char block[65536];
	off_t at = 0;

	if (to < 0)
		return err_errno(em, "cannot make a memory file");
	while (at < st->st_size) {
		ssize_t n = pread(from, block, sizeof(block), at);

		if (n <= 0 || write(to, block, (size_t)n) != n) {
			mem_close(to);
			return err_errno(em, "cannot copy %s", name);
		}
		at += n;
	}
	fchmod(to, 0555);
	return to;
}

/* Read-only, or a copy in memory where children of another uid could not execute it. */
static int open_for_all(const char *path, const char *name, struct errmsg *em)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC), copy;
	struct stat st;

	if (fd < 0)
		return err_errno(em, "cannot open %s", path);
	if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || st.st_size > PROGRAM_BYTES_MAX) {
		mem_close(fd);
		return err_set(em, ERR_IO, "%s is no program", path);
	}
	if (geteuid() != 0 || (st.st_mode & 0005) == 0005)
		return fd;
	copy = copy_to_memory(fd, &st, name, em);
	mem_close(fd);
	return copy;
}

int program_open(const struct tosd *t, const char *name, struct program *out, struct errmsg *em)
{
	char path[4096];

	if (t->programs) {
		if (snprintf(path, sizeof(path), "%s/%s", t->programs, name) >=
			(int)sizeof(path))
			return err_set(em, ERR_TOO_LARGE, "the path of %s is too long", name);
	} else if (where_program(name, path, sizeof(path)) < 0) {
		return err_set(em, ERR_NOT_FOUND,
			"%s is not installed beside tosd; install it again or finish the build",
			name);
	}
	if (!realpath(path, out->path))
		return err_errno(em, "cannot find %s", path);
	out->fd = open_for_all(out->path, name, em);
	if (out->fd < 0)
		return out->fd;
	out->dynamic = has_interpreter(out->fd);
	return 0;
}

int library_open(const char *path, struct errmsg *em)
{
	return open_for_all(path, "extension", em);
}

int library_check(int fd, struct errmsg *em)
{
	const int wanted = F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE;
	int seals = fcntl(fd, F_GET_SEALS);
	struct stat st;

	if (seals < 0 || (seals & wanted) != wanted)
		return err_set(em, ERR_MALFORMED, "the library is not sealed");
	if (fstat(fd, &st) < 0)
		return err_errno(em, "cannot look at the library");
	return st.st_size > 0 && st.st_size <= (off_t)TOSD_LIBRARY_BYTES
		       ? 0
		       : err_set(em, ERR_TOO_LARGE, "the library has %lld bytes",
				 (long long)st.st_size);
}

int place_lock(struct tosd *t, struct errmsg *em)
{
	const char *dir = t->config.state_dir;
	struct stat st;
	char pid[32];
	int n;

	t->state_fd = open(dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (t->state_fd < 0)
		return err_errno(em, "cannot enter the state directory %s", dir);
	t->lock_fd =
		openat(t->state_fd, "lock", O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (t->lock_fd < 0)
		return err_errno(em, "cannot write in the state directory %s", dir);
	if (fstat(t->state_fd, &st) < 0)
		return err_errno(em, "cannot look at %s", dir);
	t->owner = st.st_uid;
	if (flock(t->lock_fd, LOCK_EX | LOCK_NB) < 0) {
		ssize_t got = pread(t->lock_fd, pid, sizeof(pid) - 1, 0);

		pid[got > 0 ? got : 0] = 0;
		return err_set(em, ERR_EXISTS,
			"another tosd (pid %ld) runs on %s; stop it first",
			strtol(pid, NULL, 10), dir);
	}
	n = snprintf(pid, sizeof(pid), "%d\n", (int)getpid());
	if (ftruncate(t->lock_fd, 0) < 0 || pwrite(t->lock_fd, pid, (size_t)n, 0) != n)
		return err_errno(em, "cannot write %s/lock", dir);
	return 0;
}

/* "127.0.0.1:21212" or "[::1]:21212": numbers only, so nobody is asked. */
static int parse_address(const char *text, struct addrinfo **out)
{
	struct addrinfo hint = { .ai_flags = AI_NUMERICHOST | AI_NUMERICSERV | AI_PASSIVE,
		.ai_socktype = SOCK_STREAM };
	char host[TOSD_NAME_BYTES];
	const char *colon = strrchr(text, ':'), *from = text;
	size_t len;

	if (!colon)
		return ERR_MALFORMED;
	len = (size_t)(colon - text);
	if (len >= 2 && text[0] == '[' && text[len - 1] == ']') {
		from++;
		len -= 2;
	}
	if (text_copy(host, sizeof(host), from, len) < 0)
		return ERR_MALFORMED;
	return getaddrinfo(host, colon + 1, &hint, out) == 0 ? 0 : ERR_MALFORMED;
}

static int listen_one(const struct tosd *t, const char *text, struct errmsg *em)
{
	struct addrinfo *a = NULL;
	int fd, one = 1;

	if (parse_address(text, &a) < 0)
		return err_set(em, ERR_CONFIG, "listen: \"%s\" is not ADDRESS:PORT in %s", text,
			t->config_path);
	fd = socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd >= 0) {
		setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
		if (a->ai_family == AF_INET6)
			setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof(one));
	}
	if (fd >= 0 && (bind(fd, a->ai_addr, a->ai_addrlen) < 0 || listen(fd, 128) < 0)) {
		mem_close(fd);
		fd = -1;
	}
	freeaddrinfo(a);
	if (fd >= 0)
		return fd;
	if (errno == EADDRINUSE)
		return err_set(em, ERR_EXISTS,
			"%s is in use: stop what listens there, or change listen in %s", text,
			t->config_path);
	if (errno == EADDRNOTAVAIL)
		return err_set(em, ERR_CONFIG,
			"%s is not an address of this host: change listen in %s", text,
			t->config_path);
	if (errno == EACCES)
		return err_set(em, ERR_DENIED,
			"only root may listen on %s: change listen in %s to a port above 1023",
			text, t->config_path);
	return err_errno(em, "cannot listen on %s", text);
}

int place_listen(struct tosd *t, struct errmsg *em)
{
	for (uint32_t i = 0; i < t->config.n_listen; i++) {
		int fd = listen_one(t, t->config.listen[i], em);

		if (fd < 0)
			return fd;
		t->listen_fd[i] = fd;
	}
	return 0;
}

/* How many uids, counted from 0, there are in our user namespace. */
static uint64_t uids_mapped(void)
{
	FILE *f = fopen("/proc/self/uid_map", "re");
	unsigned long inside, outside, n;
	uint64_t end = 0;

	if (!f)
		return UINT32_MAX;
	while (fscanf(f, "%lu %lu %lu", &inside, &outside, &n) == 3)
		if (inside <= end && inside + n > end)
			end = inside + n;
	fclose(f);
	return end;
}

/* The inode stays the same for the life of the directory, and two directories of one file
 * system differ in it, so a kernel keeps its uids and shares them with no other. */
uid_t place_uid_base(const struct tosd *t)
{
	uint64_t n = 0;
	struct stat st;

	if (t->config.uid_base)
		return t->config.uid_base;
	if (fstat(t->state_fd, &st) == 0)
		n = st.st_ino ^ (uint64_t)st.st_dev * 7919;
	if (uids_mapped() > UID_FIRST + UID_BLOCKS * TOSD_UIDS)
		return (uid_t)(UID_FIRST + TOSD_UIDS * (n % UID_BLOCKS));
	/* A container with a map of 65536: fewer blocks, so a configured base is wise there. */
	return (uid_t)(10240 + TOSD_UIDS * (n % 50));
}

/* Give the tree to one uid. Only below the directory, only what is not a link, bounded in
 * depth. */
static int give(int dir, uid_t uid, const char *keep, int depth)
{
	DIR *d = fdopendir(dir);
	struct dirent *e;
	int rc = 0;

	if (!d) {
		mem_close(dir);
		return ERR_IO;
	}
	while (rc == 0 && (e = readdir(d)) != NULL) {
		struct stat st;
		int fd, below;

		if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
			continue;
		/* Each of what lies there is an extension's: grants.c */
		if (keep && strcmp(e->d_name, keep) == 0)
			continue;
		/* What is looked at is what is given, whatever its name leads to by then. */
		fd = openat(dirfd(d), e->d_name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
		if (fd < 0)
			continue;
		/* A hard link to a file of somebody else's would give that away. */
		if (fstat(fd, &st) < 0 || (!S_ISDIR(st.st_mode) && st.st_nlink != 1)) {
			mem_close(fd);
			continue;
		}
		if (st.st_uid != uid && fchownat(fd, "", uid, uid, AT_EMPTY_PATH) < 0)
			rc = ERR_IO;
		below = rc == 0 && S_ISDIR(st.st_mode) && depth > 0
				? openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC)
				: -1;
		mem_close(fd);
		if (below >= 0)
			rc = give(below, uid, NULL, depth - 1);
	}
	closedir(d);
	return rc;
}

int place_give(int dir, uid_t uid)
{
	return give(dir, uid, NULL, GIVE_DEPTH);
}

/* A file of the directory that stays its owner's, readable by the group of tos-kernel. */
static void keep_file(int dir, const char *name, uid_t owner, gid_t gid, mode_t mode)
{
	int fd = openat(dir, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	struct stat st;

	if (fd < 0)
		return;
	if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_nlink == 1 &&
		fchown(fd, owner, gid) == 0)
		fchmod(fd, mode);
	mem_close(fd);
}

/*
 * What is in the state directory becomes tos-kernel's, but the directory keeps its owner and
 * gets the sticky bit, and so does the configuration: tosd obeys that file with privilege, so
 * whoever took over tos-kernel must not be able to replace it.
 */
static int give_state(const struct tosd *t, uid_t uid, struct errmsg *em)
{
	int fd = openat(t->state_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC), walk;
	struct stat st;

	if (fd < 0)
		return err_errno(em, "cannot read %s", t->config.state_dir);
	walk = openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fstat(fd, &st) < 0 || fchown(fd, t->owner, uid) < 0 ||
		fchmod(fd, 01770 | (st.st_mode & 0005)) < 0 || walk < 0 ||
		give(walk, uid, TOSD_EXTENSIONS, GIVE_DEPTH) < 0) {
		err_errno(em, "cannot give what is in %s to uid %u", t->config.state_dir, uid);
		mem_close(fd);
		return ERR_IO;
	}
	keep_file(fd, "tosd.conf", t->owner, uid, 0640);
	keep_file(fd, "lock", geteuid(), getegid(), 0644);
	mem_close(fd);
	return 0;
}

/* Could that uid use the path? Tried, not computed: modes, lists and mounts all have a say. */
static bool uid_reaches(uid_t uid, const char *path, int mode)
{
	pid_t pid = fork();
	int status;

	if (pid == 0) {
		if (setgroups(0, NULL) < 0 || setresgid(uid, uid, uid) < 0 ||
			setresuid(uid, uid, uid) < 0)
			_exit(1);
		_exit(access(path, mode) == 0 ? 0 : 1);
	}
	if (pid < 0)
		return false;
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

static bool make_point(const char *path)
{
	return mkdir(path, 0755) == 0 || errno == EEXIST;
}

/* A file below the state directory, as tos-kernel sees it; others by the path given. */
static void see_config(struct tosd *t)
{
	char real[4096];
	size_t len = strlen(t->config.state_dir);

	if (!realpath(t->config_path, real))
		snprintf(real, sizeof(real), "%s", t->config_path);
	if (strncmp(real, t->config.state_dir, len) == 0 && real[len] == '/')
		snprintf(t->config_seen, sizeof(t->config_seen), "%s%s", t->state_path,
			real + len);
	else
		snprintf(t->config_seen, sizeof(t->config_seen), "%s", real);
}

/* The directory that holds all that is ours: PREFIX of PREFIX/libexec/tos, or the build tree of
 * src/kernel. */
static void find_prefix(struct tosd *t)
{
	int up = t->programs ? 1 : 3;

	snprintf(t->prefix, sizeof(t->prefix), "%s", t->kernel.path);
	while (up-- > 0) {
		char *slash = strrchr(t->prefix, '/');

		if (slash)
			*slash = 0;
	}
	if (!t->prefix[0])
		snprintf(t->prefix, sizeof(t->prefix), "/");
}

int place_state(struct tosd *t, struct errmsg *em)
{
	uid_t uid = t->uid_base;
	char real[TOSD_PATH_BYTES];

	if (realpath(t->config.state_dir, t->prefix) && strlen(t->prefix) < sizeof(real))
		snprintf(t->config.state_dir, sizeof(t->config.state_dir), "%.511s", t->prefix);
	snprintf(t->state_path, sizeof(t->state_path), "%s", t->config.state_dir);
	find_prefix(t);
	if (!t->host.own_uid) {
		see_config(t);
		return 0;
	}
	/* First whether the programs can be reached, then the state, which needs the uid to own
	 * it. */
	if (!uid_reaches(uid, t->kernel.path, R_OK | X_OK)) {
		if (t->host.root_mounts && make_point(BOUND_PREFIX))
			snprintf(t->program_seen, sizeof(t->program_seen), "%s%s", BOUND_PREFIX,
				t->kernel.path + (t->prefix[1] ? strlen(t->prefix) : 0));
		else
			t->kernel_keeps_uid = true;
	}
	if (!t->kernel_keeps_uid && t->host.root_mounts && make_point(BOUND_STATE))
		snprintf(t->state_path, sizeof(t->state_path), "%s", BOUND_STATE);
	else if (!t->kernel_keeps_uid && give_state(t, uid, NULL) == 0 &&
		 uid_reaches(uid, t->config.state_dir, R_OK | W_OK | X_OK))
		; /* reached where it is */
	else
		t->kernel_keeps_uid = true;
	see_config(t);
	if (t->kernel_keeps_uid) {
		log_warning("tos-kernel keeps uid 0, without capabilities: its own uid cannot "
			    "reach its files",
			KV_STR("state", t->config.state_dir), KV_STR("programs", t->prefix));
		return give_state(t, 0, em);
	}
	return give_state(t, uid, em);
}
