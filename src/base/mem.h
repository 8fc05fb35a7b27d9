/*
 * Memory: small structs of our own, cleanup at the end of a scope, and assertions.
 *
 * mem_new() is for our own small structs and aborts when memory is gone (the supervisor
 * restarts us). What somebody else sizes or counts is bounded first and taken with mem_try(),
 * whose failure is an answer.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

/* Zeroed struct; aborts when memory is gone. Free with free() or the type's own _free. */
#define mem_new(type) ((type *)mem_zero(sizeof(type)))

void *mem_zero(size_t bytes);               /* aborts */
void *mem_raw(size_t bytes);                /* aborts; not cleared */
char *mem_strdup(const char *s);            /* aborts; s may be NULL, then NULL */
void *mem_dup(const void *p, size_t bytes); /* aborts; a NUL is put behind the copy */

void *mem_try(size_t bytes);                 /* NULL when memory is gone or a test says so */
void *mem_try_raw(size_t bytes);             /* the same, not cleared: twice as quick */
void *mem_try_resize(void *p, size_t bytes); /* NULL: p is untouched */

/* Tests: let the nth (1...) mem_try from now on fail. False once a whole run passed without
 * reaching it, so `for (n = 1; fault_alloc(n); n++)` walks every allocation. */
bool fault_alloc(unsigned nth);

/* Calls name_free(x) at the end of the scope. */
#define AUTO(name) __attribute__((cleanup(name##_auto))) struct name *
#define AUTO_DEFINE(name)                                                                      \
	__attribute__((unused)) static inline void name##_auto(struct name **p)                \
	{                                                                                      \
		name##_free(*p);                                                               \
	}

#define STEAL(p)                                                                               \
	({                                                                                     \
		__typeof__(p) stolen_ = (p);                                                   \
		(p) = NULL;                                                                    \
		stolen_;                                                                       \
	})

static inline void mem_autofree(void *p)
{
	free(*(void **)p);
}
#define AUTOFREE __attribute__((cleanup(mem_autofree)))

static inline void mem_autoclose(int *fd);
void mem_close(int fd);
static inline void mem_autoclose(int *fd)
{
	mem_close(*fd);
}
/* An int descriptor that is closed at the end of the scope unless it is -1. */
#define AUTOCLOSE __attribute__((cleanup(mem_autoclose)))

/* What we guarantee ourselves, never what a peer sent. Stays on in release builds. */
#define must(expr)                                                                             \
	do {                                                                                   \
		if (!(expr))                                                                   \
			must_fail(#expr, __FILE__, __LINE__);                                  \
	} while (0)
_Noreturn void must_fail(const char *expr, const char *file, int line);

/* Checks a magic number wherever a void * comes back to us. The struct's first member is
 * `uint32_t tag`. */
#define TAGGED(ptr, type, magic) ((type *)mem_tagged((ptr), (magic), #type))
void *mem_tagged(void *p, uint32_t magic, const char *what);

#define ARRAY_LEN(a) (sizeof(a) / sizeof((a)[0]))
/* clang-format off */
#define CONTAINER_OF(ptr, type, member) ((type *)((char *)(ptr) - offsetof(type, member)))
/* clang-format on */
