/* The content store: see content.h. This file owns the directory, the rows and the quota. */
#include "kernel/services/content.h"
#include "kernel/carrier/content_share.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/text.h"
#include "kernel/carrier/account.h"

#define PUTS_EACH_MAX 32      /* of one sender: nobody takes all the places */
#define PUT_KEEP_MS   600000  /* without a new byte it is given up */
#define USED_SAVE_MS  3600000 /* how old the store's time of the last use may be */
#define HEX_BYTES     (2 * DIGEST_BYTES)
#define FILE_MAX      ((int64_t)64 << 30)

struct entry {
	struct content_file file; /* first */
	int64_t saved_used_ms;
	bool pending; /* its row is not durable yet; at the start: its file was not seen yet */
	struct finishing *finishing; /* who is told when it is; the first brought it */
};

struct content_put {
	uint8_t digest[DIGEST_BYTES];
	char by[NAME_BYTES_MAX + 1], owner[NAME_BYTES_MAX + 1], account[NAME_BYTES_MAX + 1];
	char name[CONTENT_NAME_MAX + 1], source[CONTENT_NAME_MAX + 1];
	char path[32]; /* in the directory */
	bool pinned, shared, ending;
	int64_t size, have; /* size -1: not known yet */
	int64_t touched_ms; /* monotonic */
	int fd;
	struct digester *digester;
};

struct content_store {
	int dir;           /* content/ */
	struct map *files; /* digest -> struct entry */
	struct map *puts;  /* digest, by -> struct content_put */
	int64_t used;      /* bytes of files */
	uint64_t next_put;
};

/* ---- rows */

struct tos_value *content_row(const struct content_file *f)
{
	struct tos_value *m = tos_map();

	tos_set(m, "digest", tos_bytes(f->digest, DIGEST_BYTES));
	tos_set(m, "size", tos_int(f->size));
	tos_set(m, "name", tos_text(f->name));
	tos_set(m, "source", tos_text(f->source));
	tos_set(m, "owner", tos_text(f->owner));
	tos_set(m, "account", tos_text(f->account));
	tos_set(m, "added", tos_int(f->added_ms));
	tos_set(m, "used", tos_int(f->used_ms));
	tos_set(m, "pinned", tos_bool(f->pinned));
	tos_set(m, "shared", tos_bool(f->shared));
	return m;
}

static void row_put(struct store_txn *t, struct entry *x)
{
	struct tos_value *m = content_row(&x->file);
	uint8_t *bytes = NULL;
	size_t n;

	x->saved_used_ms = x->file.used_ms;
	if (tos_encode(m, &bytes, &n) == 0)
		store_put(t, T_CONTENT, x->file.digest, DIGEST_BYTES, bytes, n, 0);
	free(bytes);
	tos_value_free(m);
}

static void row_read(const struct tos_value *m, struct content_file *f)
{
	f->size = tos_get_int(m, "size", 0);
	snprintf(f->name, sizeof(f->name), "%s", tos_get_text(m, "name", ""));
	snprintf(f->source, sizeof(f->source), "%s", tos_get_text(m, "source", ""));
	snprintf(f->owner, sizeof(f->owner), "%s", tos_get_text(m, "owner", ""));
	snprintf(f->account, sizeof(f->account), "%s", tos_get_text(m, "account", f->owner));
	f->added_ms = tos_get_int(m, "added", 0);
	f->used_ms = tos_get_int(m, "used", 0);
	f->pinned = tos_get_bool(m, "pinned", false);
	f->shared = tos_get_bool(m, "shared", false);
}

static void counts(const struct kernel *k, const struct content_file *f, bool here)
{
	int64_t n = here ? 1 : -1, pins = f->pinned ? n : 0;

	k->content->used += n * f->size;
	content_share_add(
		f->account, (struct content_held){ n, n * f->size, pins, pins * f->size });
}

static struct entry *entry_of(const struct kernel *k, const uint8_t *digest)
{
	return map_find(k->content->files, digest, DIGEST_BYTES);
}

static struct entry *entry_live(const struct kernel *k, const uint8_t *digest)
{
	struct entry *x = entry_of(k, digest);

	return x && !x->pending ? x : NULL;
}

static void entry_free(struct kernel *k, struct entry *x)
{
	map_del(k->content->files, x->file.digest, DIGEST_BYTES);
	free(x);
}

/* ---- the start */

static int load_row(void *arg, struct slice key, struct slice body, int64_t expires_ms)
{
	struct kernel *k = arg;
	struct tos_value *m = NULL;
	struct entry *x;

	(void)expires_ms;
	if (key.n != DIGEST_BYTES || tos_decode(body.p, body.n, 0, &m) < 0)
		return 0;
	x = mem_new(struct entry);
	memcpy(x->file.digest, key.p, DIGEST_BYTES);
	row_read(m, &x->file);
	x->saved_used_ms = x->file.used_ms;
	x->pending = true;
	tos_value_free(m);
	map_put(k->content->files, x->file.digest, DIGEST_BYTES, x);
	return 0;
}

/* A file that has its row, of the right size. */
static bool file_known(struct kernel *k, const char *name)
{
	uint8_t digest[DIGEST_BYTES];
	struct stat st;
	struct entry *x;

	if (strlen(name) != HEX_BYTES || text_unhex(name, HEX_BYTES, digest, DIGEST_BYTES) < 0)
		return false;
	x = entry_of(k, digest);
	if (!x || fstatat(k->content->dir, name, &st, AT_SYMLINK_NOFOLLOW) < 0 ||
		!S_ISREG(st.st_mode) || st.st_size != x->file.size)
		return false;
	x->pending = false;
	counts(k, &x->file, true);
	return true;
}

/* What a crash left, and what somebody else put there. */
static int directory_clean(struct kernel *k, struct errmsg *em)
{
	int fd = openat(k->content->dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *d = fd >= 0 ? fdopendir(fd) : NULL;
	struct dirent *e;

	if (!d) {
		mem_close(fd);
		return err_errno(em, "%s/content", k->dir);
	}
	while ((e = readdir(d)))
		if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0 &&
			!file_known(k, e->d_name))
			unlinkat(k->content->dir, e->d_name, 0);
	closedir(d);
	return 0;
}

/* Rows whose file is gone: the store was restored, or somebody removed it. */
static void rows_clean(struct kernel *k)
{
	struct store_txn *t = store_begin(k->store);
	struct entry *x;
	size_t it = 0, n = 0;

	while ((x = map_next(k->content->files, &it, NULL, NULL)))
		if (x->pending) {
			store_del(t, T_CONTENT, x->file.digest, DIGEST_BYTES);
			entry_free(k, x);
			n++;
		}
	if (n) {
		log_notice(
			"content that is not here any more is forgotten", KV_INT("files", n));
		store_commit(t, NULL, NULL);
	} else {
		store_cancel(t);
	}
}

int content_init(struct kernel *k, struct errmsg *em)
{
	struct content_store *c = k->content = mem_new(struct content_store);
	char path[TOSD_PATH_BYTES + 16];
	int rc;

	snprintf(path, sizeof(path), "%s/content", k->dir);
	c->files = map_new();
	c->puts = map_new();
	if (mkdir(path, 0700) < 0 && errno != EEXIST)
		return err_errno(em, "%s", path);
	c->dir = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (c->dir < 0)
		return err_errno(em, "%s", path);
	rc = store_each(k->store, T_CONTENT, (struct slice){ NULL, 0 }, load_row, k, em);
	if (rc == 0)
		rc = directory_clean(k, em);
	if (rc == 0) {
		rows_clean(k);
		rc = admitted_load(k, em);
	}
	return rc;
}

/* ---- reading */

bool content_has(struct kernel *k, const uint8_t digest[DIGEST_BYTES])
{
	return entry_live(k, digest) != NULL;
}

const struct content_file *content_find(struct kernel *k, const uint8_t digest[DIGEST_BYTES])
{
	struct entry *x = entry_live(k, digest);

	return x ? &x->file : NULL;
}

/* The time of the last use is for choosing who goes first: it is kept roughly. */
static void entry_used(struct kernel *k, struct entry *x)
{
	x->file.used_ms = clock_wall_ms();
	if (x->file.used_ms - x->saved_used_ms > USED_SAVE_MS)
		row_put(kernel_lazy(k), x);
}

int content_open(struct kernel *k, const uint8_t digest[DIGEST_BYTES], int *fd, int64_t *size,
	struct errmsg *em)
{
	struct entry *x = entry_live(k, digest);
	char name[HEX_BYTES + 1];
	int got;

	text_hex(digest, DIGEST_BYTES, name);
	if (!x)
		return err_set(
			em, ERR_NOT_FOUND, "no content %s is at %s", name, k->config.name);
	got = openat(k->content->dir, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	if (got < 0)
		return err_errno(em, "content %s", name);
	entry_used(k, x);
	*fd = got;
	*size = x->file.size;
	return 0;
}

struct tos_value *content_list(struct kernel *k, const uint8_t *after, size_t most)
{
	struct tos_value *rows = tos_array();
	struct entry *x;
	size_t it = 0;

	if (after) /* in the order in which they came; one that is gone: from the first */
		while ((x = map_next(k->content->files, &it, NULL, NULL)) &&
			memcmp(x->file.digest, after, DIGEST_BYTES) != 0)
			;
	while (tos_len(rows) < most && (x = map_next(k->content->files, &it, NULL, NULL)))
		if (!x->pending)
			tos_push(rows, content_row(&x->file));
	return rows;
}

/* ---- the quota */

/* Bytes that puts take now, or said that they will. */
static int64_t promised(const struct kernel *k)
{
	struct content_put *p;
	size_t it = 0;
	int64_t n = 0;

	while ((p = map_next(k->content->puts, &it, NULL, NULL)))
		n += p->size > p->have ? p->size : p->have;
	return n;
}

/* Those puts of an account's. */
static int64_t promised_by(const struct kernel *k, const char *account, bool pinned)
{
	struct content_put *p;
	size_t it = 0;
	int64_t n = 0;

	while ((p = map_next(k->content->puts, &it, NULL, NULL)))
		if (strcmp(p->account, account) == 0 && (p->pinned || !pinned))
			n += p->size > p->have ? p->size : p->have;
	return n;
}

/* Who has more than its share goes before who has not; then what was not used for longest. */
static bool goes_before(const struct kernel *k, const struct entry *x, const struct entry *than)
{
	bool over = content_share_over(k, x->file.account, 0);

	if (!than || over != content_share_over(k, than->file.account, 0))
		return !than || over;
	return x->file.used_ms < than->file.used_ms;
}

/* of: that account's only; NULL: of all. */
static bool goes(const struct entry *x, const char *of)
{
	return !x->pending && !x->file.pinned && (!of || strcmp(x->file.account, of) == 0);
}

static struct entry *first_to_go(const struct kernel *k, const char *of)
{
	struct entry *x, *found = NULL;
	size_t it = 0;

	while ((x = map_next(k->content->files, &it, NULL, NULL)))
		if (goes(x, of) && goes_before(k, x, found))
			found = x;
	return found;
}

/* Bytes of them: nothing is dropped for what does not fit all the same. */
static int64_t may_go(const struct kernel *k, const char *of)
{
	const struct entry *x;
	size_t it = 0;
	int64_t n = 0;

	while ((x = map_next(k->content->files, &it, NULL, NULL)))
		n += goes(x, of) ? x->file.size : 0;
	return n;
}

/* The row goes first: a file without one is removed at the next start, a row without its file
 * would be a lie until then. */
static void entry_drop(struct kernel *k, struct entry *x, const char *why)
{
	char name[HEX_BYTES + 1];
	struct store_txn *t;

	text_hex(x->file.digest, DIGEST_BYTES, name);
	log_info("content dropped", KV_STR("digest", name), KV_STR("name", x->file.name),
		KV_STR("why", why));
	/* Not with the next tick: who puts the same again meanwhile would lose its row. */
	lazy_flush(k);
	t = store_begin(k->store);
	store_del(t, T_CONTENT, x->file.digest, DIGEST_BYTES);
	store_commit(t, NULL, NULL);
	unlinkat(k->content->dir, name, 0);
	counts(k, &x->file, false);
	entry_free(k, x);
}

static void entry_evict(struct kernel *k, struct entry *x)
{
	metric_add(k->metrics, "content_evicted_total", NULL, 1);
	entry_drop(k, x, "to make room");
}

/* What has been written of the puts that have not ended. */
static int64_t written(const struct kernel *k)
{
	struct content_put *p;
	size_t it = 0;
	int64_t n = 0;

	while ((p = map_next(k->content->puts, &it, NULL, NULL)))
		n += p->have;
	return n;
}

/* Beyond its share, `more` counted, an account makes room of its own only. */
static const char *room_of(const struct kernel *k, const char *account, int64_t more)
{
	return content_share_over(k, account, promised_by(k, account, false) + more) ? account
										     : NULL;
}

static int room_none(
	const struct kernel *k, const char *account, bool own, int64_t more, struct errmsg *em)
{
	return own ? content_share_refuse(k, account, em)
		   : err_set(em, ERR_LIMIT,
			     "what is pinned at %s leaves no room for %lld bytes (content.max)",
			     k->config.name, (long long)more);
}

/* Could room be made for so many more? Nothing goes for bytes that may never come. */
static int room_promise(
	struct kernel *k, const char *account, bool pinned, int64_t more, struct errmsg *em)
{
	int64_t most = (int64_t)k->config.content_max, here = promised(k) + more;
	const char *of = room_of(k, account, more);
	int rc =
		pinned ? content_share_pin(k, account, promised_by(k, account, true) + more, em)
		       : 0;

	if (rc < 0)
		return rc;
	if (here > most)
		return err_set(em, ERR_LIMIT,
			"%lld bytes do not fit into content.max of %s (%lld)", (long long)more,
			k->config.name, (long long)most);
	return k->content->used + here > most && k->content->used + here - may_go(k, of) > most
		       ? room_none(k, account, of != NULL, more, em)
		       : 0;
}

/* For so many bytes of its promise, which have come. What could go then may be pinned by now. */
static int room_make(
	struct kernel *k, const struct content_put *p, int64_t n, struct errmsg *em)
{
	int64_t most = (int64_t)k->config.content_max, here = written(k) + n;
	const char *of = room_of(k, p->account, p->size < 0 ? n : 0);
	struct entry *x;

	if (k->content->used + here <= most)
		return 0;
	if (k->content->used + here - may_go(k, of) > most)
		return room_none(k, p->account, of != NULL, n, em);
	while (k->content->used + here > most && (x = first_to_go(k, of)))
		entry_evict(k, x);
	return 0;
}

/* The one that has to go before an account has another file here, or NULL. Beyond its share of
 * their number it makes room of its own only, as it does of the bytes. */
static int files_room(struct kernel *k, const char *account, bool pinned, struct entry **first,
	struct errmsg *em)
{
	bool own = content_share_files(k, account);
	int rc = pinned ? content_share_pin(k, account, 0, em) : 0;

	*first = NULL;
	if (rc < 0)
		return rc;
	if (map_size(k->content->files) < k->config.content_files)
		return 0;
	*first = first_to_go(k, own ? account : NULL);
	if (*first)
		return 0;
	return own ? content_share_refuse(k, account, em)
		   : err_set(em, ERR_LIMIT,
			     "%u files are at %s (content.files), all of them pinned",
			     k->config.content_files, k->config.name);
}

/* ---- writing */

struct put_key {
	uint8_t bytes[DIGEST_BYTES + NAME_BYTES_MAX];
	size_t n;
};

static void put_key(struct put_key *key, const uint8_t *digest, const char *by)
{
	key->n = DIGEST_BYTES + strnlen(by, NAME_BYTES_MAX);
	memcpy(key->bytes, digest, DIGEST_BYTES);
	memcpy(key->bytes + DIGEST_BYTES, by, key->n - DIGEST_BYTES);
}

struct content_put *content_put_find(
	struct kernel *k, const uint8_t digest[DIGEST_BYTES], const char *by)
{
	struct put_key key;

	put_key(&key, digest, by);
	return map_find(k->content->puts, key.bytes, key.n);
}

int content_part_open(struct kernel *k, const uint8_t digest[DIGEST_BYTES], int *fd,
	int64_t *size, int64_t *have)
{
	struct content_put *p, *best = NULL;
	struct entry *x = entry_of(k, digest);
	char name[HEX_BYTES + 1];
	size_t it = 0;

	if (x && x->file.shared) {
		text_hex(digest, DIGEST_BYTES, name);
		*fd = openat(k->content->dir, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
		*size = *have = x->file.size;
		return *fd < 0 ? ERR_IO : 0;
	}
	while ((p = map_next(k->content->puts, &it, NULL, NULL)))
		if (memcmp(p->digest, digest, DIGEST_BYTES) == 0 && p->shared &&
			(!best || p->have > best->have))
			best = p;
	if (!best)
		return ERR_NOT_FOUND;
	*fd = fcntl(best->fd, F_DUPFD_CLOEXEC, 3);
	*size = best->size;
	*have = best->have;
	return *fd < 0 ? ERR_IO : 0;
}

int64_t content_put_have(const struct content_put *p)
{
	return p->have;
}

int64_t content_put_size(const struct content_put *p)
{
	return p->size;
}

bool content_put_ending(const struct content_put *p)
{
	return p->ending;
}

void content_put_touch(struct content_put *p)
{
	p->touched_ms = clock_ms();
}

static void put_take_out(struct kernel *k, struct content_put *p)
{
	struct put_key key;

	put_key(&key, p->digest, p->by);
	map_del(k->content->puts, key.bytes, key.n);
}

void content_put_adopt(struct kernel *k, const uint8_t digest[DIGEST_BYTES],
	const char *principal, const char *by)
{
	struct content_put *p, *found = NULL;
	struct put_key key;
	size_t it = 0;

	if (content_put_find(k, digest, by))
		return;
	while ((p = map_next(k->content->puts, &it, NULL, NULL)))
		if (!p->ending && memcmp(p->digest, digest, DIGEST_BYTES) == 0 &&
			strstr(p->by, "/client/") && strcmp(p->owner, principal) == 0)
			found = p;
	if (!found)
		return;
	put_take_out(k, found);
	snprintf(found->by, sizeof(found->by), "%s", by);
	put_key(&key, digest, by);
	map_put(k->content->puts, key.bytes, key.n, found);
}

static void put_free(struct content_put *p)
{
	digester_free(p->digester);
	mem_close(p->fd);
	free(p);
}

void content_cancel(struct kernel *k, struct content_put *p)
{
	must(!p->ending);
	put_take_out(k, p);
	unlinkat(k->content->dir, p->path, 0);
	put_free(p);
}

static size_t puts_of(const struct kernel *k, const char *by)
{
	const struct content_put *p;
	size_t it = 0, n = 0;

	while ((p = map_next(k->content->puts, &it, NULL, NULL)))
		n += strcmp(p->by, by) == 0;
	return n;
}

int content_begin(struct kernel *k, const struct content_begin *b, struct content_put **out,
	struct errmsg *em)
{
	struct content_put *p = content_put_find(k, b->digest, b->by);
	const char *owner = b->owner ? b->owner : "",
		   *account = b->account ? b->account : owner;
	struct entry *first;
	struct put_key key;
	int rc;

	if (entry_live(k, b->digest))
		return err_set(em, ERR_EXISTS, "that content is at %s", k->config.name);
	if (p) {
		*out = p;
		return p->size < 0 && b->size >= 0 && !p->ending
			       ? content_put_sized(k, p, b->size, em)
			       : 0;
	}
	if (b->size > FILE_MAX)
		return err_set(em, ERR_TOO_LARGE, "content of %lld bytes", (long long)b->size);
	if (puts_of(k, b->by) >= PUTS_EACH_MAX)
		return err_set(em, ERR_FULL,
			"%d contents of one sender are being written at %s", PUTS_EACH_MAX,
			k->config.name);
	if (map_size(k->content->puts) >= CONTENT_PUTS_MAX)
		return err_set(em, ERR_FULL, "%d contents are being written at %s at once",
			CONTENT_PUTS_MAX, k->config.name);
	rc = room_promise(k, account, b->pinned, b->size > 0 ? b->size : 0, em);
	if (rc == 0)
		rc = files_room(k, account, b->pinned, &first, em);
	if (rc < 0)
		return rc;
	p = mem_new(struct content_put);
	memcpy(p->digest, b->digest, DIGEST_BYTES);
	snprintf(p->by, sizeof(p->by), "%s", b->by);
	snprintf(p->owner, sizeof(p->owner), "%s", owner);
	snprintf(p->account, sizeof(p->account), "%s", account);
	text_cut(p->name, sizeof(p->name), b->name ? b->name : "");
	text_cut(p->source, sizeof(p->source), b->source ? b->source : "");
	snprintf(p->path, sizeof(p->path), ".put-%llu",
		(unsigned long long)k->content->next_put++);
	p->size = b->size;
	p->pinned = b->pinned;
	p->shared = b->shared;
	p->touched_ms = clock_ms();
	p->fd = openat(k->content->dir, p->path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (p->fd < 0) {
		rc = err_errno(em, "content/%s", p->path);
		free(p);
		return rc;
	}
	p->digester = digester_new();
	put_key(&key, p->digest, p->by);
	map_put(k->content->puts, key.bytes, key.n, p);
	*out = p;
	return 0;
}

int content_put_sized(struct kernel *k, struct content_put *p, int64_t size, struct errmsg *em)
{
	int rc;

	if (p->size >= 0)
		return p->size == size
			       ? 0
			       : err_set(em, ERR_STATE, "its size was said to be %lld bytes",
					 (long long)p->size);
	if (size > FILE_MAX || size < p->have)
		return err_set(em, ERR_TOO_LARGE, "content of %lld bytes", (long long)size);
	rc = room_promise(k, p->account, p->pinned, size - p->have, em);
	if (rc == 0)
		p->size = size;
	return rc;
}

static int write_all(int fd, const uint8_t *bytes, size_t n, int64_t at)
{
	while (n) {
		ssize_t done = pwrite(fd, bytes, n, at);

		if (done < 0 && errno == EINTR)
			continue;
		if (done <= 0)
			return -1;
		bytes += done;
		n -= (size_t)done;
		at += done;
	}
	return 0;
}

int content_append(
	struct kernel *k, struct content_put *p, const void *bytes, size_t n, struct errmsg *em)
{
	int rc = 0;

	must(!p->ending);
	if (p->size >= 0 && (int64_t)n > p->size - p->have)
		rc = err_set(em, ERR_TOO_LARGE, "more than the %lld bytes announced",
			(long long)p->size);
	else if (p->have + (int64_t)n > FILE_MAX)
		rc = err_set(em, ERR_TOO_LARGE, "content of more than %lld bytes",
			(long long)FILE_MAX);
	else if (p->size < 0)
		rc = room_promise(k, p->account, p->pinned, (int64_t)n, em);
	if (rc == 0)
		rc = room_make(k, p, (int64_t)n, em);
	/* Into the page cache: the disk is waited for at the end, in a thread. */
	if (rc == 0 && write_all(p->fd, bytes, n, p->have) < 0)
		rc = err_errno(em, "content/%s", p->path);
	if (rc < 0) {
		content_cancel(k, p);
		return rc;
	}
	digester_add(p->digester, bytes, n);
	p->have += (int64_t)n;
	p->touched_ms = clock_ms();
	metric_add(k->metrics, "content_written_bytes_total", NULL, n);
	return 0;
}

/* ---- the end of one */

struct finishing {
	uv_work_t work;
	struct kernel *k;
	struct content_put *put;
	char name[HEX_BYTES + 1];
	int rc, error;
	struct entry *entry;
	struct finishing *next; /* another sender's of the same bytes */
	content_done_fn *done;
	void *arg;
};

static void finish_report(struct finishing *f, int rc, const char *text)
{
	f->done(f->k, f->arg, rc, text);
	free(f);
}

static void on_row(void *arg, int rc, const struct errmsg *em)
{
	struct finishing *f = arg, *next;
	struct entry *x = f->entry;

	x->finishing = NULL;
	if (rc == 0) {
		x->pending = false;
		metric_add(f->k->metrics, "content_added_total", NULL, 1);
		log_info("content added", KV_STR("digest", f->name),
			KV_STR("name", x->file.name), KV_STR("source", x->file.source),
			KV_INT("bytes", x->file.size));
	} else {
		unlinkat(f->k->content->dir, f->name, 0);
		counts(f->k, &x->file, false);
		entry_free(f->k, x);
	}
	for (; f; f = next) {
		next = f->next;
		finish_report(f, rc, err_show(rc, em));
	}
}

/* Another sender's was first: the same bytes, which are here when its row is durable. */
static void finish_behind(struct finishing *f, struct entry *x)
{
	if (!x->finishing) {
		finish_report(f, 0, "");
		return;
	}
	f->next = x->finishing->next;
	x->finishing->next = f;
}

/* In a thread: nothing of the kernel but the descriptors. */
static void finish_work(uv_work_t *w)
{
	struct finishing *f = w->data;
	int dir = f->k->content->dir;

	/* Readable and executable by whoever was given a descriptor; writable by nobody. */
	if (fsync(f->put->fd) < 0 || fchmod(f->put->fd, 0555) < 0 ||
		renameat(dir, f->put->path, dir, f->name) < 0 || fsync(dir) < 0) {
		f->error = errno;
		f->rc = ERR_IO;
	}
}

static void finish_done(uv_work_t *w, int status)
{
	struct finishing *f = w->data;
	struct kernel *k = f->k;
	struct content_put *p = f->put;
	struct store_txn *t;
	struct entry *x;
	struct stat st;
	struct errmsg em = { "" };
	int rc;

	put_take_out(k, p);
	if (status < 0 || f->rc < 0) {
		unlinkat(k->content->dir, p->path, 0);
		put_free(p);
		err_set(&em, ERR_IO, "content/%s: %s", f->name,
			strerror(f->error ? f->error : ECANCELED));
		finish_report(f, ERR_IO, em.text);
		return;
	}
	x = entry_of(k, p->digest);
	if (x) {
		put_free(p);
		finish_behind(f, x);
		return;
	}
	rc = files_room(k, p->account, p->pinned, &x, &em);
	if (rc < 0) {
		unlinkat(k->content->dir, f->name, 0);
		put_free(p);
		finish_report(f, rc, em.text);
		return;
	}
	if (x)
		entry_evict(k, x);
	/* Its name, too, was another sender's: who dropped that took this one along. */
	if (fstatat(k->content->dir, f->name, &st, AT_SYMLINK_NOFOLLOW) < 0) {
		put_free(p);
		finish_report(f, ERR_STATE, "it was dropped while it was being put");
		return;
	}
	x = f->entry = mem_new(struct entry);
	x->finishing = f;
	memcpy(x->file.digest, p->digest, DIGEST_BYTES);
	x->file.size = p->have;
	memcpy(x->file.name, p->name, sizeof(p->name));
	memcpy(x->file.source, p->source, sizeof(p->source));
	memcpy(x->file.owner, p->owner, sizeof(p->owner));
	memcpy(x->file.account, p->account, sizeof(p->account));
	x->file.added_ms = x->file.used_ms = clock_wall_ms();
	x->file.pinned = p->pinned;
	x->file.shared = p->shared;
	x->pending = true;
	put_free(p);
	map_put(k->content->files, x->file.digest, DIGEST_BYTES, x);
	counts(k, &x->file, true);
	account_known(k, x->file.account);
	t = store_begin(k->store);
	row_put(t, x);
	rc = store_commit(t, on_row, f);
	if (rc < 0)
		on_row(f, rc, &em);
}

struct failing {
	content_done_fn *done;
	void *arg;
	int rc;
};

static void fail_later(struct kernel *k, void *arg)
{
	AUTOFREE struct failing *f = arg;

	f->done(k, f->arg, f->rc, err_text(f->rc));
}

void content_finish(struct kernel *k, struct content_put *p, content_done_fn *done, void *arg)
{
	uint8_t digest[DIGEST_BYTES];
	struct finishing *f;

	must(!p->ending);
	digester_end(p->digester, digest);
	if (memcmp(digest, p->digest, DIGEST_BYTES) != 0) {
		struct failing *x = mem_new(struct failing);

		metric_add(k->metrics, "content_mismatches_total", NULL, 1);
		*x = (struct failing){ done, arg, ERR_DIGEST };
		content_cancel(k, p);
		kernel_later(k, fail_later, x);
		return;
	}
	p->ending = true;
	f = mem_new(struct finishing);
	f->work.data = f;
	f->k = k;
	f->put = p;
	f->done = done;
	f->arg = arg;
	text_hex(digest, DIGEST_BYTES, f->name);
	uv_queue_work(k->loop, &f->work, finish_work, finish_done);
}

/* ---- the rest */

int content_drop(struct kernel *k, const uint8_t digest[DIGEST_BYTES], const char *why,
	struct errmsg *em)
{
	struct entry *x = entry_live(k, digest);

	if (!x)
		return err_set(em, ERR_NOT_FOUND, "that content is not at %s", k->config.name);
	entry_drop(k, x, why);
	return 0;
}

struct pinning {
	struct kernel *k;
	uint8_t digest[DIGEST_BYTES];
	bool was;
	content_done_fn *done;
	void *arg;
};

static void entry_pin(struct entry *x, bool pinned)
{
	int64_t n = pinned ? 1 : -1;

	if (pinned != x->file.pinned)
		content_share_add(x->file.account, (struct content_held){ .pinned_files = n,
							   .pinned_bytes = n * x->file.size });
	x->file.pinned = pinned;
}

static void on_pinned(void *arg, int rc, const struct errmsg *em)
{
	AUTOFREE struct pinning *p = arg;
	struct entry *x = rc < 0 ? entry_live(p->k, p->digest) : NULL;

	if (x)
		entry_pin(x, p->was);
	p->done(p->k, p->arg, rc, err_show(rc, em));
}

int content_pin(struct kernel *k, const uint8_t digest[DIGEST_BYTES], bool pinned,
	content_done_fn *done, void *arg, struct errmsg *em)
{
	struct entry *x = entry_live(k, digest);
	struct pinning *p;
	struct store_txn *t;
	int rc;

	if (!x)
		return err_set(em, ERR_NOT_FOUND, "that content is not here");
	rc = pinned && !x->file.pinned ? content_share_pin(k, x->file.account, x->file.size, em)
				       : 0;
	if (rc < 0)
		return rc;
	p = mem_new(struct pinning);
	*p = (struct pinning){ .k = k, .was = x->file.pinned, .done = done, .arg = arg };
	memcpy(p->digest, digest, DIGEST_BYTES);
	entry_pin(x, pinned);
	lazy_flush(k); /* what is written of it there comes before this */
	t = store_begin(k->store);
	row_put(t, x);
	rc = store_commit(t, on_pinned, p);
	if (rc < 0) {
		entry_pin(x, p->was);
		free(p);
	}
	return rc;
}

struct tos_value *content_stat(struct kernel *k)
{
	struct tos_value *m = tos_map();

	tos_set(m, "files", tos_int((int64_t)map_size(k->content->files)));
	tos_set(m, "bytes", tos_int(k->content->used));
	tos_set(m, "max", tos_int((int64_t)k->config.content_max));
	tos_set(m, "files_max", tos_int(k->config.content_files));
	tos_set(m, "puts", tos_int((int64_t)map_size(k->content->puts)));
	return m;
}

void content_tick(struct kernel *k, int64_t now_ms)
{
	struct content_put *p;
	size_t it = 0;

	while ((p = map_next(k->content->puts, &it, NULL, NULL)))
		if (!p->ending && now_ms - p->touched_ms > PUT_KEEP_MS)
			content_cancel(k, p);
	metric_set(k->metrics, "content_bytes", NULL, (double)k->content->used);
	metric_set(k->metrics, "content_files", NULL, (double)map_size(k->content->files));
	content_fetch_tick(k, now_ms);
}
