/* Typed properties: see property.h. A sorted array; reading a value asks its owner. */
#include "core/property.h"

#include <string.h>

#include "base/mem.h"
#include "tos/value.h"

#define PROPERTIES_MAX 4096
#define PATH_BYTES_MAX 192

struct property {
	char *path, *unit, *doc;
	enum property_type type;
	int64_t min, max;
	bool read_only;
	property_read_fn *read;
	void *arg;
};

struct properties {
	struct property *list; /* by path */
	size_t n, cap;
};

struct properties *properties_new(void)
{
	return mem_new(struct properties);
}

static void property_fini(struct property *p)
{
	free(p->path);
	free(p->unit);
	free(p->doc);
}

void properties_free(struct properties *p)
{
	if (!p)
		return;
	for (size_t i = 0; i < p->n; i++)
		property_fini(&p->list[i]);
	free(p->list);
	free(p);
}

/* Names between slashes: "/limits/cpu". */
static bool path_ok(const char *s)
{
	if (s[0] != '/' || strnlen(s, PATH_BYTES_MAX + 1) > PATH_BYTES_MAX)
		return false;
	for (size_t i = 0; s[i]; i++) {
		char c = s[i];
		bool name = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
			    (c >= '0' && c <= '9') || c == '-' || c == '_' || c == '.' ||
			    c == '#';

		if (!name && c != '/')
			return false;
		if (c == '/' && (s[i + 1] == '/' || !s[i + 1]))
			return false;
	}
	return true;
}

/* Children stand right behind their parent: '/' sorts before every letter of a name. */
static int path_compare(const char *a, const char *b)
{
	while (*a && *a == *b)
		a++, b++;
	if (*a == *b)
		return 0;
	if (!*a || !*b)
		return *a ? 1 : -1;
	if (*a == '/' || *b == '/')
		return *a == '/' ? -1 : 1;
	return (unsigned char)*a < (unsigned char)*b ? -1 : 1;
}

/* The first entry not before path. */
static size_t position(const struct properties *p, const char *path)
{
	size_t low = 0, high = p->n;

	while (low < high) {
		size_t mid = low + (high - low) / 2;

		if (path_compare(p->list[mid].path, path) < 0)
			low = mid + 1;
		else
			high = mid;
	}
	return low;
}

static bool at_or_below(const char *path, const char *top)
{
	size_t n = strlen(top);

	if (n == 1) /* "/" */
		return true;
	return strncmp(path, top, n) == 0 && (!path[n] || path[n] == '/');
}

int property_add(struct properties *p, const char *path, enum property_type type,
	const char *unit, const char *doc, int64_t min, int64_t max, bool read_only,
	property_read_fn *read, void *arg, struct errmsg *em)
{
	size_t at;

	if (!path_ok(path))
		return err_set(em, ERR_NAME, "'%.80s' is no property path", path);
	at = position(p, path);
	if (at < p->n && strcmp(p->list[at].path, path) == 0)
		return err_set(em, ERR_EXISTS, "there is a property '%s' already", path);
	if (p->n == PROPERTIES_MAX)
		return err_set(em, ERR_FULL, "more than %d properties", PROPERTIES_MAX);
	if (p->n == p->cap) {
		size_t cap = p->cap ? 2 * p->cap : 32;
		struct property *grown = mem_try_resize(p->list, cap * sizeof(*grown));

		if (!grown)
			return err_set(em, ERR_NOMEM, "no memory for property '%s'", path);
		p->list = grown;
		p->cap = cap;
	}
	memmove(&p->list[at + 1], &p->list[at], (p->n - at) * sizeof(p->list[0]));
	p->list[at] = (struct property){ .path = mem_strdup(path),
		.unit = mem_strdup(unit ? unit : ""),
		.doc = mem_strdup(doc ? doc : ""),
		.type = type,
		.min = min,
		.max = max,
		.read_only = read_only,
		.read = read,
		.arg = arg };
	p->n++;
	return 0;
}

int property_remove(struct properties *p, const char *path)
{
	size_t from = strcmp(path, "/") == 0 ? 0 : position(p, path), to = from;

	while (to < p->n && at_or_below(p->list[to].path, path))
		property_fini(&p->list[to++]);
	if (to == from)
		return ERR_NOT_FOUND;
	memmove(&p->list[from], &p->list[to], (p->n - to) * sizeof(p->list[0]));
	p->n -= to - from;
	return 0;
}

static int property_value(const struct property *p, struct tos_value *out)
{
	static const char *const types[] = { "int", "float", "text", "bool" };
	struct tos_value *map = tos_map(), *value = p->read ? p->read(p->arg) : NULL;
	int rc = map ? 0 : ERR_NOMEM;

	/* What its owner can't read now is nil, not a failure of the whole list. */
	rc = rc ? rc : tos_set(map, "path", tos_text(p->path));
	rc = rc ? rc : tos_set(map, "type", tos_text(types[p->type]));
	rc = rc ? rc : tos_set(map, "unit", tos_text(p->unit));
	rc = rc ? rc : tos_set(map, "doc", tos_text(p->doc));
	rc = rc ? rc : tos_set(map, "min", tos_int(p->min));
	rc = rc ? rc : tos_set(map, "max", tos_int(p->max));
	rc = rc ? rc : tos_set(map, "read_only", tos_bool(p->read_only));
	if (rc == 0)
		rc = tos_set(map, "value", value ? value : tos_nil());
	else
		tos_value_free(value);
	if (rc == 0)
		return tos_push(out, map);
	tos_value_free(map);
	return rc;
}

int property_list(
	struct properties *p, const char *path, struct tos_value **out, struct errmsg *em)
{
	struct tos_value *list = tos_array();
	const char *top = path[0] ? path : "/";
	size_t at = strcmp(top, "/") == 0 ? 0 : position(p, top), from = at;
	int rc = list ? 0 : ERR_NOMEM;

	for (; rc == 0 && at < p->n && at_or_below(p->list[at].path, top); at++)
		rc = property_value(&p->list[at], list);
	if (rc == 0 && at == from && p->n > 0)
		rc = ERR_NOT_FOUND;
	if (rc == 0) {
		*out = list;
		return 0;
	}
	tos_value_free(list);
	if (rc == ERR_NOT_FOUND)
		return err_set(em, rc, "there is no property '%.80s'%s; 'tos get' lists all",
			path, *path == '/' ? "" : " (their paths begin with /)");
	return err_set(em, rc, "no memory for the properties");
}
