/*
 * Heaps of carriers: see arena.h. Pages that are free are kept for all of them.
 *
 * A page is taken for four slabs, and given back when none of them is in use, so that what is folded
 * is one carrier's.
 */
#include "vm/arena.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <zlib.h>

#include "base/mem.h"

#define SLAB_BYTES ((size_t)1024)
#define PAGE_BYTES ((size_t)4096)
#define PAGE_SLABS (PAGE_BYTES / SLAB_BYTES)
#define BATCH      64 /* pages taken at once */

struct slab {
	struct list node;
	uint16_t class, n_used;
	uint16_t
		free; /* offset of the first block that was given back, 0 none; it holds the next */
	uint16_t fresh; /* offset behind the last block ever given out */
	/* Of the page, in its first slab only. Blocks lie at multiples of 16. */
	uint32_t page, n_slabs;
};
_Static_assert(sizeof(struct slab) % 16 == 0, "blocks must be aligned");

struct large {
	struct list node;
	size_t n;
	uint64_t pad;
	uint8_t bytes[];
};
_Static_assert(sizeof(struct large) % 16 == 0, "blocks must be aligned");

/* What leaves little of a slab over. */
static const uint16_t class_bytes[ARENA_CLASSES] = { 16, 32, 48, 64, 80, 96, 112, 128, 160, 192,
	240, 320, 496, 992 };

static struct list free_pages = { &free_pages, &free_pages };

void arena_init(struct arena *a)
{
	memset(a, 0, sizeof *a);
	for (int i = 0; i < ARENA_CLASSES; i++)
		list_init(&a->partial[i]);
	list_init(&a->full);
	list_init(&a->empty);
	list_init(&a->large);
}

/* ARENA_CLASSES: a large block. */
static unsigned class_of(size_t n)
{
	unsigned i = 8;

#if defined(TOS_SANITIZE) || defined(TOS_VALGRIND)
	return ARENA_CLASSES;
#endif
	if (n <= 128)
		return (unsigned)((n + 15) / 16) - 1;
	while (i < ARENA_CLASSES && class_bytes[i] < n)
		i++;
	return i;
}

/* ---- pages */

static struct slab *page_head(const void *p)
{
	return (struct slab *)((uintptr_t)p & ~(uintptr_t)(PAGE_BYTES - 1));
}

static bool pages_more(void)
{
	uint8_t *p = aligned_alloc(PAGE_BYTES, BATCH * PAGE_BYTES);

	if (!p)
		return false;
	for (size_t i = 0; i < BATCH; i++)
		list_add(&free_pages, &((struct slab *)(p + i * PAGE_BYTES))->node);
	return true;
}

static bool page_take(struct arena *a)
{
	struct slab *head;

	if (a->n_pages == a->cap_pages) {
		uint32_t cap = a->cap_pages ? 2 * a->cap_pages : 8;
		uint8_t **more = mem_try_resize(a->pages, cap * sizeof(uint8_t *));

		if (!more)
			return false;
		a->pages = more;
		a->cap_pages = cap;
	}
	if (list_empty(&free_pages) && !pages_more())
		return false;
	head = LIST_ITEM(free_pages.next, struct slab, node);
	list_del(&head->node);
	head->page = a->n_pages;
	head->n_slabs = 0;
	a->pages[a->n_pages++] = (uint8_t *)head;
	a->bytes += PAGE_BYTES;
	for (size_t i = 0; i < PAGE_SLABS; i++)
		list_add(&a->empty, &((struct slab *)((uint8_t *)head + i * SLAB_BYTES))->node);
	return true;
}

static void page_give(struct arena *a, struct slab *head)
{
	for (size_t i = 0; i < PAGE_SLABS; i++)
		list_del(&((struct slab *)((uint8_t *)head + i * SLAB_BYTES))->node);
	a->pages[head->page] = a->pages[--a->n_pages];
	((struct slab *)a->pages[head->page])->page = head->page;
	a->bytes -= PAGE_BYTES;
	/* In front: it is warm. */
	list_add(free_pages.next, &head->node);
}

/* ---- slabs */

static struct slab *slab_new(struct arena *a, unsigned class)
{
	struct slab *s;

	if (list_empty(&a->empty) && !page_take(a))
		return NULL;
	s = LIST_ITEM(a->empty.next, struct slab, node);
	list_del(&s->node);
	page_head(s)->n_slabs++;
	s->class = (uint16_t) class;
	s->n_used = s->free = 0;
	s->fresh = sizeof(*s);
	list_add(&a->partial[class], &s->node);
	return s;
}

static void slab_drop(struct arena *a, struct slab *s)
{
	struct slab *head = page_head(s);

	list_del(&s->node);
	list_add(a->empty.next, &s->node);
	if (--head->n_slabs == 0)
		page_give(a, head);
}

static void *small_new(struct arena *a, unsigned class)
{
	struct list *q = &a->partial[class];
	struct slab *s =
		list_empty(q) ? slab_new(a, class) : LIST_ITEM(q->next, struct slab, node);
	uint8_t *p = (uint8_t *)s;

	if (!s)
		return NULL;
	if (s->free) {
		p += s->free;
		memcpy(&s->free, p, sizeof(s->free));
	} else {
		p += s->fresh;
		s->fresh = (uint16_t)(s->fresh + class_bytes[class]);
	}
	s->n_used++;
	if (!s->free && s->fresh + class_bytes[class] > SLAB_BYTES) {
		list_del(&s->node);
		list_add(&a->full, &s->node);
	}
	return p;
}

static void small_free(struct arena *a, void *p)
{
	struct slab *s = (struct slab *)((uintptr_t)p & ~(uintptr_t)(SLAB_BYTES - 1));
	bool was_full = !s->free && s->fresh + class_bytes[s->class] > SLAB_BYTES;

	memcpy(p, &s->free, sizeof(s->free));
	s->free = (uint16_t)((uint8_t *)p - (uint8_t *)s);
	s->n_used--;
	if (s->n_used == 0) {
		slab_drop(a, s);
	} else if (was_full) {
		list_del(&s->node);
		list_add(&a->partial[s->class], &s->node);
	}
}

static void *large_resize(struct arena *a, void *p, size_t n)
{
	struct large *l = p ? CONTAINER_OF(p, struct large, bytes) : NULL, *q;
	size_t old = l ? l->n : 0;

	if (l)
		list_del(&l->node);
	if (n == 0) {
		free(l);
		a->bytes -= old;
		return NULL;
	}
	q = realloc(l, sizeof(*q) + n);
	if (!q && !l)
		return NULL;
	list_add(&a->large, q ? &q->node : &l->node);
	if (!q)
		return NULL;
	q->n = n;
	a->bytes += n - old;
	return q->bytes;
}

static void block_free(struct arena *a, void *p, unsigned class)
{
	if (class < ARENA_CLASSES)
		small_free(a, p);
	else
		large_resize(a, p, 0);
}

void *arena_resize(struct arena *a, void *p, size_t old, size_t n)
{
	unsigned from = p && old ? class_of(old) : ARENA_CLASSES;
	unsigned to = n ? class_of(n) : ARENA_CLASSES;
	void *q;

	if (n == 0) {
		if (p)
			block_free(a, p, from);
		return NULL;
	}
	if (p && from == to && to < ARENA_CLASSES)
		return p;
	if (to == ARENA_CLASSES && (!p || from == ARENA_CLASSES))
		return large_resize(a, p, n);
	q = to < ARENA_CLASSES ? small_new(a, to) : large_resize(a, NULL, n);
	if (q && p) {
		memcpy(q, p, old < n ? old : n);
		block_free(a, p, from);
	}
	return q;
}

void arena_drop(struct arena *a)
{
	while (a->n_pages)
		list_add(free_pages.next, &((struct slab *)a->pages[--a->n_pages])->node);
	while (!list_empty(&a->large))
		large_resize(a, LIST_ITEM(a->large.next, struct large, node)->bytes, 0);
	free(a->pages);
	free(a->folded);
	arena_init(a);
}

/* ---- folding */

/* What a heap repeats lies near: a small window does, and little memory for the two streams. */
#define WINDOW_BITS 13
#define MEM_LEVEL   6
#define LEVEL       1

static z_stream unfolding;

/* Kept from the first fold on, so that what was folded can always be unfolded. */
static bool unfolding_ready(void)
{
	static bool ready;

	if (!ready)
		ready = inflateInit2(&unfolding, -WINDOW_BITS) == Z_OK;
	return ready;
}

/* All pages, into `out`; the bytes used, 0: they are too many. */
static size_t pages_deflate(const struct arena *a, uint8_t *out, size_t most)
{
	z_stream z = { .next_out = out, .avail_out = (uInt)most };
	size_t n = 0;

	if (deflateInit2(&z, LEVEL, Z_DEFLATED, -WINDOW_BITS, MEM_LEVEL, Z_DEFAULT_STRATEGY) !=
		Z_OK)
		return 0;
	for (uint32_t i = 0; i < a->n_pages; i++) {
		bool last = i + 1 == a->n_pages;

		z.next_in = a->pages[i];
		z.avail_in = PAGE_BYTES;
		if (deflate(&z, last ? Z_FINISH : Z_NO_FLUSH) == Z_STREAM_END)
			n = most - z.avail_out;
		if (z.avail_in)
			break;
	}
	deflateEnd(&z);
	return n;
}

bool arena_fold(struct arena *a)
{
	size_t whole = a->n_pages * PAGE_BYTES, n;
	uint8_t *out, *exact;

	if (a->folded || whole == 0 || !unfolding_ready())
		return false;
	out = mem_try(whole / 2); /* more would not pay */
	if (!out)
		return false;
	n = pages_deflate(a, out, whole / 2);
	exact = n ? mem_try(n) : NULL; /* a smaller block elsewhere leaves no hole behind it */
	if (exact)
		memcpy(exact, out, n);
	free(out);
	if (!exact)
		return false;
	a->folded = exact;
	a->n_folded = n;
	for (uint32_t i = 0; i < a->n_pages; i++)
		madvise(a->pages[i], PAGE_BYTES, MADV_DONTNEED);
	return true;
}

void arena_unfold(struct arena *a)
{
	if (!a->folded)
		return;
	must(inflateReset(&unfolding) == Z_OK);
	unfolding.next_in = a->folded;
	unfolding.avail_in = (uInt)a->n_folded;
	for (uint32_t i = 0; i < a->n_pages; i++) {
		unfolding.next_out = a->pages[i];
		unfolding.avail_out = PAGE_BYTES;
		inflate(&unfolding, Z_SYNC_FLUSH);
		must(unfolding.avail_out == 0);
	}
	free(a->folded);
	a->folded = NULL;
	a->n_folded = 0;
}
