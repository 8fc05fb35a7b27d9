/*
 * Counters and gauges: see property.h. Two levels of maps; counting allocates only at the first
 * use of a name or label. Written as Prometheus text 0.0.4.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/map.h"
#include "base/mem.h"
#include "base/text.h"
#include "core/property.h"

#define NAMES_MAX   512
#define LABELS_MAX  256
#define LABEL_BYTES 200

struct sample {
	char *label;
	uint64_t n;
	double v;
};
struct metric {
	char *name, *help;
	bool gauge;
	struct map *samples; /* label -> struct sample */
};
struct metrics {
	struct map *by_name;
};

struct metrics *metrics_new(void)
{
	struct metrics *m = mem_new(struct metrics);

	m->by_name = map_new();
	return m;
}

static void metric_free(struct metric *me)
{
	struct sample *s;
	size_t it = 0;

	while ((s = map_next(me->samples, &it, NULL, NULL))) {
		free(s->label);
		free(s);
	}
	map_free(me->samples);
	free(me->name);
	free(me->help);
	free(me);
}

void metrics_free(struct metrics *m)
{
	struct metric *me;
	size_t it = 0;

	if (!m)
		return;
	while ((me = map_next(m->by_name, &it, NULL, NULL)))
		metric_free(me);
	map_free(m->by_name);
	free(m);
}

static bool name_ok(const char *s)
{
	size_t n = strnlen(s, 101);

	if (n == 0 || n > 100)
		return false;
	for (; *s; s++)
		if (!((*s >= 'a' && *s <= 'z') || (*s >= '0' && *s <= '9') || *s == '_'))
			return false;
	return true;
}

/* NULL for a name that would break the text, or past the bound. */
static struct metric *metric_at(struct metrics *m, const char *name, bool gauge)
{
	struct metric *me = map_find_str(m->by_name, name);

	if (me || !name_ok(name) || map_size(m->by_name) >= NAMES_MAX)
		return me;
	me = mem_new(struct metric);
	me->name = mem_strdup(name);
	me->gauge = gauge;
	me->samples = map_new();
	map_put_str(m->by_name, name, me);
	return me;
}

/* key="value" with the quotes closed and nothing that would end the line. */
static bool label_ok(const char *s)
{
	size_t n = strnlen(s, LABEL_BYTES);
	bool quoted = false;

	if (n == LABEL_BYTES || (n > 0 && s[n - 1] != '"'))
		return false;
	for (; *s; s++) {
		if (*s == '\n' || (!quoted && (*s == '{' || *s == '}')))
			return false;
		if (quoted && *s == '\\') {
			if (!*++s || *s == '\n')
				return false;
		} else if (*s == '"') {
			quoted = !quoted;
		}
	}
	return !quoted && text_utf8(s - n, n);
}

/* What a label past the bound is counted under: its first key with the value "other". */
static void label_other(const char *label, char out[LABEL_BYTES])
{
	size_t n = strcspn(label, "=");

	for (size_t i = 0; i < n; i++)
		if (!((label[i] >= 'a' && label[i] <= 'z') || label[i] == '_'))
			n = 0;
	if (n == 0 || n > LABEL_BYTES - 16)
		label = "label", n = 5;
	memcpy(out, label, n);
	memcpy(out + n, "=\"other\"", 9);
}

static struct sample *sample_at(struct metric *me, const char *label)
{
	struct sample *s;
	char other[LABEL_BYTES];

	if (!label)
		label = "";
	s = map_find_str(me->samples, label);
	if (s)
		return s;
	if (map_size(me->samples) >= LABELS_MAX || !label_ok(label)) {
		label_other(label, other);
		label = other;
		s = map_find_str(me->samples, label);
		if (s)
			return s;
	}
	s = mem_new(struct sample);
	s->label = mem_strdup(label);
	map_put_str(me->samples, label, s);
	return s;
}

void metric_describe(struct metrics *m, const char *name, const char *type, const char *help)
{
	bool gauge = strcmp(type, "gauge") == 0;
	struct metric *me = metric_at(m, name, gauge);

	if (!me)
		return;
	me->gauge = gauge;
	free(me->help);
	me->help = mem_strdup(help);
}

void metric_add(struct metrics *m, const char *name, const char *label, uint64_t n)
{
	struct metric *me = metric_at(m, name, false);

	if (me)
		sample_at(me, label)->n += n;
}

uint64_t *metric_counter(struct metrics *m, const char *name)
{
	static uint64_t nowhere;
	struct metric *me = metric_at(m, name, false);

	return me ? &sample_at(me, NULL)->n : &nowhere;
}

void metric_set(struct metrics *m, const char *name, const char *label, double v)
{
	struct metric *me = metric_at(m, name, true);
	struct sample *s = me ? sample_at(me, label) : NULL;

	if (s && me->gauge)
		s->v = v;
	else if (s) /* a counter that somebody else keeps */
		s->n = v >= 0x1p64 ? UINT64_MAX : v > 0 ? (uint64_t)v : 0;
}

uint64_t metric_get(const struct metrics *m, const char *name, const char *label)
{
	const struct metric *me = map_find_str(m->by_name, name);
	const struct sample *s = me ? map_find_str(me->samples, label ? label : "") : NULL;

	if (!s)
		return 0;
	if (!me->gauge)
		return s->n;
	return s->v >= 0x1p64 ? UINT64_MAX : s->v > 0 ? (uint64_t)s->v : 0;
}

static int by_text(const void *a, const void *b)
{
	/* Both structs begin with the text that orders them. */
	return strcmp(**(const char *const *const *)a, **(const char *const *const *)b);
}

/* The values of m, sorted; the caller frees the array. */
static void **sorted(const struct map *m)
{
	void **list = mem_zero((map_size(m) + 1) * sizeof(void *));
	size_t it = 0, n = 0;
	void *v;

	while ((v = map_next(m, &it, NULL, NULL)))
		list[n++] = v;
	qsort(list, n, sizeof(void *), by_text);
	return list;
}

static void number_text(struct buf *out, double v)
{
	if (isnan(v))
		buf_add_str(out, "NaN");
	else if (isinf(v))
		buf_add_str(out, v > 0 ? "+Inf" : "-Inf");
	else if (v == floor(v) && fabs(v) < 1e15)
		buf_printf(out, "%.0f", v);
	else
		buf_printf(out, "%.17g", v);
}

static void help_text(struct buf *out, const char *help)
{
	for (; *help; help++) {
		if (*help == '\n')
			buf_add_str(out, "\\n");
		else if (*help == '\\')
			buf_add_str(out, "\\\\");
		else
			buf_add_u8(out, (uint8_t)*help);
	}
}

static void metric_text(const struct metric *me, struct buf *out)
{
	AUTOFREE struct sample **samples = (struct sample **)sorted(me->samples);

	buf_printf(out, "# HELP tos_%s ", me->name);
	help_text(out, me->help ? me->help : me->name);
	buf_printf(out, "\n# TYPE tos_%s %s\n", me->name, me->gauge ? "gauge" : "counter");
	for (size_t i = 0; samples[i]; i++) {
		const struct sample *s = samples[i];

		buf_printf(out, "tos_%s", me->name);
		if (s->label[0])
			buf_printf(out, "{%s}", s->label);
		buf_add_u8(out, ' ');
		if (me->gauge)
			number_text(out, s->v);
		else
			buf_printf(out, "%llu", (unsigned long long)s->n);
		buf_add_u8(out, '\n');
	}
}

void metrics_text(const struct metrics *m, struct buf *out)
{
	AUTOFREE struct metric **all = (struct metric **)sorted(m->by_name);

	for (size_t i = 0; all[i]; i++)
		metric_text(all[i], out);
}
