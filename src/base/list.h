/* An intrusive doubly linked list with a head. */
#pragma once

#include <stdbool.h>
#include "base/mem.h"

struct list {
	struct list *prev, *next;
};

static inline void list_init(struct list *l)
{
	l->prev = l->next = l;
}
static inline bool list_empty(const struct list *l)
{
	return l->next == l;
}
/* Put e at the end of the list whose head is l. */
static inline void list_add(struct list *l, struct list *e)
{
	e->prev = l->prev;
	e->next = l;
	l->prev->next = e;
	l->prev = e;
}
/* Take e out; a second time does nothing. */
static inline void list_del(struct list *e)
{
	e->prev->next = e->next;
	e->next->prev = e->prev;
	list_init(e);
}
/* All of `from`, in its order, to the end of `to`; `from` is empty then. */
static inline void list_take(struct list *from, struct list *to)
{
	while (!list_empty(from)) {
		struct list *e = from->next;

		list_del(e);
		list_add(to, e);
	}
}
#define LIST_ITEM(ptr, type, member) CONTAINER_OF(ptr, type, member)
/* clang-format off */
#define LIST_EACH(pos, head) for ((pos) = (head)->next; (pos) != (head); (pos) = (pos)->next)
#define LIST_EACH_SAFE(pos, tmp, head)                                                             \
	for ((pos) = (head)->next, (tmp) = (pos)->next; (pos) != (head);                           \
		(pos) = (tmp), (tmp) = (pos)->next)
/* clang-format on */
