/*
 * What the yardsticks share: a clock, sorted samples, and one line of JSON at the end.
 */
#pragma once

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static inline double bench_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec * 1e6 + (double)ts.tv_nsec / 1e3;
}

static inline int bench_compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static inline double bench_quantile(const double *sorted, size_t n, double q)
{
	return n ? sorted[(size_t)(q * (double)(n - 1) + 0.5)] : 0;
}

/* Sorts the samples. */
static inline void bench_print(double *us, size_t n, double per_s)
{
	qsort(us, n, sizeof(*us), bench_compare);
	printf("{\"n\": %zu, \"p50_us\": %.1f, \"p99_us\": %.1f, \"min_us\": %.1f, \"per_s\": %.1f}\n",
		n, bench_quantile(us, n, 0.5), bench_quantile(us, n, 0.99),
		bench_quantile(us, n, 0), per_s);
}

_Noreturn static inline void bench_die(const char *what)
{
	perror(what);
	exit(1);
}
