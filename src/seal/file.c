/* Key and certificate files: read whole and bounded, written so that a crash leaves the old or
 * the new one and never half of either. */
#include "seal/ossl.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/text.h"

static int write_all(int fd, struct slice bytes)
{
	while (bytes.n) {
		ssize_t put = write(fd, bytes.p, bytes.n);

		if (put < 0 && errno == EINTR)
			continue;
		if (put < 0)
			return -1;
		bytes.p += put;
		bytes.n -= (size_t)put;
	}
	return 0;
}

static int write_new(const char *path, unsigned mode, struct slice bytes)
{
	AUTOCLOSE int fd =
		open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, mode);

	if (fd < 0)
		return -1;
	/* fchmod: the umask may have taken bits that were asked for */
	return fchmod(fd, mode) < 0 || write_all(fd, bytes) < 0 || fsync(fd) < 0 ? -1 : 0;
}

/* A rename is durable once its folder is. */
static int sync_folder(const char *path)
{
	char folder[PATH_MAX];
	const char *slash = strrchr(path, '/');
	size_t n = slash ? (size_t)(slash - path) : 0;

	if (!slash)
		strcpy(folder, ".");
	else if (text_copy(folder, sizeof(folder), path, n ? n : 1) < 0)
		return -1;
	AUTOCLOSE int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	return fd < 0 || fsync(fd) < 0 ? -1 : 0;
}

static int put_in_place(const char *from, const char *to, bool replace)
{
	if (replace)
		return rename(from, to);
	/* link() refuses an existing name, and unlike rename() cannot lose a race for it */
	if (link(from, to) < 0)
		return -1;
	unlink(from);
	return 0;
}

int file_replace(
	const char *path, unsigned mode, struct slice bytes, bool replace, struct errmsg *em)
{
	char fresh[PATH_MAX], word[17];
	uint8_t nonce[8];

	if (!replace && access(path, F_OK) == 0)
		return err_set(em, ERR_EXISTS, "%s exists", path);
	random_bytes(nonce, sizeof(nonce));
	text_hex(nonce, sizeof(nonce), word);
	if (snprintf(fresh, sizeof(fresh), "%s.%s", path, word) >= (int)sizeof(fresh))
		return err_set(em, ERR_TOO_LARGE, "the path %.64s... is too long", path);
	if (write_new(fresh, mode, bytes) < 0 || put_in_place(fresh, path, replace) < 0) {
		int why = errno;

		unlink(fresh);
		errno = why;
		if (why == EEXIST)
			return err_set(em, ERR_EXISTS, "%s exists", path);
		return err_errno(em, "cannot write %s", path);
	}
	return sync_folder(path) < 0 ? err_errno(em, "cannot sync the folder of %s", path) : 0;
}

static int read_all(int fd, struct buf *out)
{
	uint8_t part[4096];
	ssize_t got;

	while ((got = read(fd, part, sizeof(part))) != 0) {
		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return ERR_IO;
		if (buf_add(out, part, (size_t)got) < 0) {
			OPENSSL_cleanse(part, sizeof(part));
			errno = EFBIG;
			return ERR_TOO_LARGE;
		}
	}
	OPENSSL_cleanse(part, sizeof(part)); /* it may have been a key */
	return 0;
}

int file_read(const char *path, bool secret, struct buf *out, struct errmsg *em)
{
	AUTOCLOSE int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	struct stat st;

	if (fd < 0 && errno == ENOENT)
		return err_set(em, ERR_NOT_FOUND, "there is no %s", path);
	if (fd < 0 || fstat(fd, &st) < 0)
		return err_errno(em, "cannot open %s", path);
	if (!S_ISREG(st.st_mode))
		return err_set(em, ERR_IO, "%s is not a file", path);
	if (secret && (st.st_mode & S_IRWXO))
		return err_set(em, ERR_DENIED, "everybody may read %s: chmod 600 it", path);
	if (st.st_size > SEAL_FILE_MAX)
		return err_set(
			em, ERR_TOO_LARGE, "%s is larger than %u bytes", path, SEAL_FILE_MAX);
	/* all at once, so that growing leaves no copy of a secret behind */
	if (buf_reserve(out, SEAL_FILE_MAX) < 0)
		return err_set(em, ERR_NOMEM, "cannot read %s: out of memory", path);
	int rc = read_all(fd, out);

	return rc < 0 ? err_set(em, rc, "cannot read %s: %s", path, strerror(errno)) : 0;
}
