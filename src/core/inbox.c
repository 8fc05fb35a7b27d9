/* Inboxes: see inbox.h. A singly linked queue; each item is one allocation. */
#include "core/inbox.h"

#include <string.h>

#include "base/mem.h"
#include "base/text.h"

void inbox_init(
	struct inbox *in, const char *name, uint32_t bound, size_t bytes_max, uint32_t flags)
{
	*in = (struct inbox){ .bound = bound, .bytes_max = bytes_max, .flags = flags };
	text_copy(in->name, sizeof(in->name), name, strnlen(name, sizeof(in->name)));
}

void inbox_fini(struct inbox *in)
{
	struct inbox_item *it;

	while ((it = inbox_take(in)))
		inbox_item_free(it);
}

static struct inbox_item *item_new(
	const struct post *p, struct slice info, int64_t deadline_at_ms, size_t bytes)
{
	struct inbox_item *it = mem_try(sizeof(*it) + bytes);
	uint8_t *behind;

	if (!it)
		return NULL;
	behind = (uint8_t *)(it + 1);
	it->kind = p->kind;
	it->tag = p->tag;
	it->deadline_at_ms = deadline_at_ms;
	it->bytes = bytes;
	text_copy(it->sender, sizeof(it->sender), (const char *)p->sender.p, p->sender.n);
	if (p->trace.n == TRACE_BYTES)
		memcpy(it->trace, p->trace.p, TRACE_BYTES);
	if (p->folder.n)
		memcpy(behind, p->folder.p, p->folder.n);
	it->folder = (struct slice){ behind, p->folder.n };
	if (info.n)
		memcpy(behind + p->folder.n, info.p, info.n);
	it->info = (struct slice){ behind + p->folder.n, info.n };
	return it;
}

int inbox_push(
	struct inbox *in, const struct post *p, struct slice info, int64_t deadline_at_ms)
{
	size_t bytes = p->folder.n + info.n;
	struct inbox_item *it;

	if (p->sender.n > NAME_BYTES_MAX)
		return ERR_TOO_LARGE;
	/* bytes_max 0: only the count is bounded. */
	if (in->n >= in->bound ||
		(in->bytes_max &&
			(bytes > in->bytes_max || in->bytes > in->bytes_max - bytes))) {
		in->refused++;
		return ERR_FULL;
	}
	it = item_new(p, info, deadline_at_ms, bytes);
	if (!it) {
		in->refused++;
		return ERR_NOMEM;
	}
	if (in->last)
		in->last->next = it;
	else
		in->first = it;
	in->last = it;
	in->n++;
	in->bytes += bytes;
	in->posted++;
	return 0;
}

struct inbox_item *inbox_take(struct inbox *in)
{
	struct inbox_item *it = in->first;

	if (!it)
		return NULL;
	in->first = it->next;
	if (!in->first)
		in->last = NULL;
	it->next = NULL;
	in->n--;
	in->bytes -= it->bytes;
	in->taken++;
	return it;
}

void inbox_item_free(struct inbox_item *it)
{
	free(it);
}

void inbox_item_post(const struct inbox_item *it, const char *dest, struct post *out)
{
	static const uint8_t no_trace[TRACE_BYTES];

	*out = (struct post){
		.kind = it->kind,
		.dest = { (const uint8_t *)dest, strlen(dest) },
		.sender = { (const uint8_t *)it->sender, strlen(it->sender) },
		.tag = it->tag,
		.folder = it->folder,
	};
	if (memcmp(it->trace, no_trace, TRACE_BYTES) != 0)
		out->trace = (struct slice){ it->trace, TRACE_BYTES };
}
