/* Heaps of carriers: what is allocated stays what it is, folded and unfolded, and all of it is given back. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "vm/arena.h"

#define BLOCKS 600

struct block {
	uint8_t *p;
	size_t n;
	uint8_t seed;
};

static unsigned state_now = 7;

static unsigned random_below(unsigned n)
{
	state_now = state_now * 1103515245 + 12345;
	return state_now / 65536 % n;
}

static void fill(struct block *b)
{
	for (size_t i = 0; i < b->n; i++)
		b->p[i] = (uint8_t)(b->seed + i / 7);
}

static void check(const struct block *b)
{
	for (size_t i = 0; i < b->n; i++)
		assert_int_equal(b->p[i], (uint8_t)(b->seed + i / 7));
}

static void resize(struct arena *a, struct block *b, size_t n)
{
	size_t kept = b->n < n ? b->n : n;

	check(b);
	b->p = arena_resize(a, b->p, b->n, n);
	assert_true((b->p != NULL) == (n != 0));
	assert_true(((uintptr_t)b->p & 15) == 0);
	b->n = kept;
	check(b);
	b->n = n;
	fill(b);
}

static void churn(struct arena *a, struct block *blocks, int steps)
{
	for (int i = 0; i < steps; i++) {
		struct block *b = &blocks[random_below(BLOCKS)];

		resize(a, b, random_below(3) ? random_below(random_below(20) ? 200 : 3000) : 0);
	}
}

static void check_all(const struct block *blocks)
{
	for (int i = 0; i < BLOCKS; i++)
		check(&blocks[i]);
}

static void a_heap_is_the_same_after_it_was_folded(void **state)
{
	static struct block blocks[BLOCKS];
	struct arena a;

	(void)state;
	arena_init(&a);
	for (int i = 0; i < BLOCKS; i++)
		blocks[i].seed = (uint8_t)i;
	assert_false(arena_fold(&a)); /* there is nothing in it */
	for (int round = 0; round < 20; round++) {
		churn(&a, blocks, 2000);
		assert_true(arena_fold(&a));
		assert_true(a.n_folded < a.n_pages * (size_t)2048);
		assert_false(arena_fold(&a)); /* it is */
		arena_unfold(&a);
		arena_unfold(&a); /* and this does nothing */
		check_all(blocks);
	}
	for (int i = 0; i < BLOCKS; i++)
		resize(&a, &blocks[i], 0);
	assert_int_equal(a.n_pages, 0);
	assert_int_equal(a.bytes, 0);
	arena_drop(&a);
}

static void what_does_not_shrink_stays(void **state)
{
	struct arena a;
	uint8_t *p[200];

	(void)state;
	arena_init(&a);
	for (size_t i = 0; i < 200; i++) {
		p[i] = arena_resize(&a, NULL, 0, 900);
		for (size_t j = 0; j < 900; j++)
			p[i][j] = (uint8_t)random_below(256);
	}
	assert_false(arena_fold(&a));
	assert_null(a.folded);
	arena_drop(&a);
}

static void a_folded_heap_is_dropped_and_its_pages_used_again(void **state)
{
	struct arena a, b;
	uint8_t *p;

	(void)state;
	arena_init(&a);
	arena_init(&b);
	for (int i = 0; i < 300; i++)
		memset(arena_resize(&a, NULL, 0, 100), i, 100);
	assert_true(arena_fold(&a));
	arena_drop(&a);
	assert_null(a.folded);
	for (int i = 0; i < 300; i++) {
		p = arena_resize(&b, NULL, 0, 100);
		memset(p, 5, 100);
	}
	arena_drop(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_heap_is_the_same_after_it_was_folded),
		cmocka_unit_test(what_does_not_shrink_stays),
		cmocka_unit_test(a_folded_heap_is_dropped_and_its_pages_used_again),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
