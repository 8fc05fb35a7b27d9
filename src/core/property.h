/*
 * Typed properties by path with range, unit and help (`tos get /limits`), and counters and
 * gauges (`tos metrics`).
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"

struct tos_value;
struct properties;
enum property_type { PROPERTY_INT, PROPERTY_FLOAT, PROPERTY_TEXT, PROPERTY_BOOL };
typedef struct tos_value *property_read_fn(void *arg); /* a new value */

struct properties *properties_new(void);
void properties_free(struct properties *p);
/* path "/limits/cpu"; strings are copied. ERR_EXISTS, ERR_NAME. */
int property_add(struct properties *p, const char *path, enum property_type type,
	const char *unit, const char *doc, int64_t min, int64_t max, bool read_only,
	property_read_fn *read, void *arg, struct errmsg *em);
int property_remove(struct properties *p, const char *path); /* and all below */
/* Array of maps {path, value, type, unit, doc, min, max, read_only} at or below path, sorted.
 * ERR_NOT_FOUND. */
int property_list(
	struct properties *p, const char *path, struct tos_value **out, struct errmsg *em);

struct metrics;
struct metrics *metrics_new(void);
void metrics_free(struct metrics *m);
/* Counters are made on first use. name: "posts_total"; label: `code="full"` or NULL. "tos_" is
 * put in front. */
/* "counter" | "gauge" */
void metric_describe(struct metrics *m, const char *name, const char *type, const char *help);
/* The number itself, for what is counted all the time. Good as long as m. */
uint64_t *metric_counter(struct metrics *m, const char *name);
void metric_add(struct metrics *m, const char *name, const char *label, uint64_t n);
void metric_set(struct metrics *m, const char *name, const char *label, double v);
uint64_t metric_get(const struct metrics *m, const char *name, const char *label);
/* Prometheus text 0.0.4, sorted by name. Label cardinality is bounded: past 256 of one name it
 * counts under "other". */
void metrics_text(const struct metrics *m, struct buf *out);
