/* Heaps of carriers: see arena.h. Slabs that are free are kept for all of them. */
#include "vm/arena.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

#define SLAB_BYTES   ((size_t)1024)
#define REGION_SLABS 64

struct slab {
	struct list node;
	uint16_t class, n_used;
	uint16_t
		free; /* offset of the first block that was given back, 0 none; it holds the next */
	uint16_t fresh; /* offset behind the last block ever given out */
	uint64_t pad;   /* blocks lie at multiples of 16 */
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
	240, 320 };
#define SMALL_MOST 320

static struct list free_slabs = { &free_slabs, &free_slabs };

void arena_init(struct arena *a)
{
	for (int i = 0; i < ARENA_CLASSES; i++)
		list_init(&a->partial[i]);
	list_init(&a->full);
	list_init(&a->large);
	a->bytes = 0;
}

/* ARENA_CLASSES: a large block. */
static unsigned class_of(size_t n)
{
	unsigned i = 8;

#ifdef TOS_SANITIZE
	return ARENA_CLASSES;
#endif
	if (n <= 128)
		return (unsigned)((n + 15) / 16) - 1;
	while (i < ARENA_CLASSES && class_bytes[i] < n)
		i++;
	return i;
}

static bool region_new(void)
{
	uint8_t *p = aligned_alloc(SLAB_BYTES, REGION_SLABS * SLAB_BYTES);

	if (!p)
		return false;
	for (size_t i = 0; i < REGION_SLABS; i++)
		list_add(&free_slabs, &((struct slab *)(p + i * SLAB_BYTES))->node);
	return true;
}

static struct slab *slab_new(struct arena *a, unsigned class)
{
	struct slab *s;

	if (list_empty(&free_slabs) && !region_new())
		return NULL;
	s = LIST_ITEM(free_slabs.next, struct slab, node);
	list_del(&s->node);
	s->class = (uint16_t) class;
	s->n_used = s->free = 0;
	s->fresh = sizeof(*s);
	list_add(&a->partial[class], &s->node);
	a->bytes += SLAB_BYTES;
	return s;
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
		list_del(&s->node);
		/* In front: it is warm. */
		list_add(free_slabs.next, &s->node);
		a->bytes -= SLAB_BYTES;
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
	for (int i = 0; i < ARENA_CLASSES; i++)
		list_take(&a->partial[i], &free_slabs);
	list_take(&a->full, &free_slabs);
	while (!list_empty(&a->large))
		large_resize(a, LIST_ITEM(a->large.next, struct large, node)->bytes, 0);
	a->bytes = 0;
}
