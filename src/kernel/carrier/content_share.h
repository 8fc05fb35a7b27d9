/*
 * What of the content store each principal has. Whoever is within its share (content.share) is not pushed out
 * by others; beyond it one has what others leave free, and is the first to go. See content_share.c.
 */
#pragma once

#include "kernel/kernel.h"

/* What one has, or how much more of it, or less. What is pinned counts among the others, too. */
struct content_held {
	int64_t files, bytes, pinned_files, pinned_bytes;
};

/* account "": the host's, which is not counted. */
void content_share_add(const char *account, struct content_held more);
int64_t content_share_bytes(const char *account);
/* With so many bytes more it has more than its share, or has more files than that. */
bool content_share_over(const struct kernel *k, const char *account, int64_t more);
/* With one file more it would have more than its share of their number. */
bool content_share_files(const struct kernel *k, const char *account);
/* May one more of its files be pinned, and so many more of its bytes? ERR_LIMIT. */
int content_share_pin(
	const struct kernel *k, const char *account, int64_t more, struct errmsg *em);
/* Audited as a metric: somebody was refused for its share. Returns ERR_LIMIT. */
int content_share_refuse(const struct kernel *k, const char *account, struct errmsg *em);
/* Everybody who has something. */
void content_share_each(struct kernel *k, void (*fn)(struct kernel *k, const char *account));
