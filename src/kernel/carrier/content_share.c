/*
 * Shares of the content store. A file counts against the principal who put it or had it fetched, however many
 * use it, in bytes and as one of so many files. Nothing is set aside: a share is what others can't push out, so
 * one alone has the whole store. What is pinned can't be pushed out at all; so no more than a share may be.
 *
 * What an extension brought, and the kernel itself, counts for the host and has no bound but the store's.
 */
#include "kernel/carrier/content_share.h"

#include <string.h>

static struct map *holders; /* account -> struct content_held; of this process's one kernel */

static const struct content_held *holder_of(const char *account)
{
	return holders ? map_find_str(holders, account) : NULL;
}

static int64_t share(const struct kernel *k)
{
	return (int64_t)(k->config.content_max * k->config.content_share / 100);
}

static int64_t share_files(const struct kernel *k)
{
	return (int64_t)k->config.content_files * k->config.content_share / 100;
}

void content_share_add(const char *account, struct content_held more)
{
	struct content_held *h;

	if (!account[0])
		return;
	if (!holders)
		holders = map_new();
	h = map_find_str(holders, account);
	if (!h) {
		h = mem_new(struct content_held);
		map_put_str(holders, account, h);
	}
	h->files += more.files;
	h->bytes += more.bytes;
	h->pinned_files += more.pinned_files;
	h->pinned_bytes += more.pinned_bytes;
	must(h->pinned_files >= 0 && h->pinned_files <= h->files);
	must(h->pinned_bytes >= 0 && h->pinned_bytes <= h->bytes);
	if (h->files == 0) {
		map_del_str(holders, account);
		free(h);
	}
}

int64_t content_share_bytes(const char *account)
{
	const struct content_held *h = holder_of(account);

	return h ? h->bytes : 0;
}

bool content_share_over(const struct kernel *k, const char *account, int64_t more)
{
	const struct content_held *h = account[0] ? holder_of(account) : NULL;

	return account[0] &&
	       ((h ? h->bytes : 0) + more > share(k) || (h && h->files > share_files(k)));
}

bool content_share_files(const struct kernel *k, const char *account)
{
	const struct content_held *h = account[0] ? holder_of(account) : NULL;

	return h && h->files >= share_files(k);
}

int content_share_refuse(const struct kernel *k, const char *account, struct errmsg *em)
{
	metric_add(k->metrics, "content_share_refused_total", NULL, 1);
	return err_set(em, ERR_LIMIT,
		"%s has its share of the content store of %s (content.share, %lld bytes, %lld files), the rest is others', and what is pinned of its own stays",
		account, k->config.name, (long long)share(k), (long long)share_files(k));
}

int content_share_pin(
	const struct kernel *k, const char *account, int64_t more, struct errmsg *em)
{
	const struct content_held *h = holder_of(account);

	if (!account[0] || ((h ? h->pinned_bytes : 0) + more <= share(k) &&
				   (h ? h->pinned_files : 0) < share_files(k)))
		return 0;
	metric_add(k->metrics, "content_share_refused_total", NULL, 1);
	return err_set(em, ERR_LIMIT,
		"more would be pinned for %s than its share of the content store of %s (content.share, %lld bytes, %lld files)",
		account, k->config.name, (long long)share(k), (long long)share_files(k));
}

void content_share_each(struct kernel *k, void (*fn)(struct kernel *k, const char *account))
{
	const void *key;
	char account[NAME_BYTES_MAX + 1];
	size_t it = 0, n;

	while (holders && map_next(holders, &it, &key, &n)) {
		slice_copy_text((struct slice){ key, n }, account, sizeof(account));
		fn(k, account);
	}
}
