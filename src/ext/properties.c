/* Properties of extensions that are changed while they run. */
#include <stdio.h>
#include <string.h>

#include "ext/body.h"
#include "ext/decl.h"
#include "ext/ext.h"
#include "ext/host.h"

static int find(const struct ext_host *h, const char *ext, const char *path, struct ext **e,
	struct decl_property **p, struct errmsg *em)
{
	for (*e = h->first; *e && strcmp((*e)->name, ext) != 0;)
		*e = (*e)->next;
	*p = *e && (*e)->decl ? decl_property_find((*e)->decl, path) : NULL;
	if (!*p)
		return err_set(em, ERR_NOT_FOUND, "there is no property /%s/%s", ext, path);
	if ((*p)->read_only)
		return err_set(
			em, ERR_DENIED, "/%s/%s is what the extension itself says", ext, path);
	return 0;
}

static int value_check(
	const struct decl_property *p, const char *ext, const char *value, struct errmsg *em)
{
	if (body_value_ok(p->type, p->min, p->max, value) == 0)
		return 0;
	if (p->min || p->max)
		return err_set(em, ERR_MALFORMED, "/%s/%s: '%.64s' is no %s from %lld to %lld",
			ext, p->path, value, p->type, (long long)p->min, (long long)p->max);
	return err_set(
		em, ERR_MALFORMED, "/%s/%s: '%.64s' is no %s", ext, p->path, value, p->type);
}

int ext_property_check(const struct ext_host *h, const char *ext, const char *path,
	const char *value, struct errmsg *em)
{
	struct decl_property *p;
	struct ext *e;
	int rc = find(h, ext, path, &e, &p, em);

	return rc < 0 || !value ? rc : value_check(p, ext, value, em);
}

static int change(struct ext *e, const char *path, const char *value, struct errmsg *em)
{
	struct decl_property *p = e->decl ? decl_property_find(e->decl, path) : NULL;
	int rc = 0;

	if (!p || p->read_only)
		return 0;
	value = value ? value : p->initial;
	rc = value_check(p, e->name, value, em);
	if (rc < 0 || strcmp(p->value, value) == 0)
		return rc;
	if (e->body)
		rc = body_configure(e->body, path, value, em);
	else if (e->state == EXT_STARTING || e->state == EXT_READY)
		rc = remote_set(e, path, value); /* any other gets it with its START */
	if (rc < 0)
		return err_wrap(em, rc, "/%s/%s", e->name, path);
	snprintf(p->value, sizeof(p->value), "%s", value);
	ext_property_changed(e, p);
	return 0;
}

/* While one replaces another there are two of the name: both are told. */
int ext_property_change(struct ext_host *h, const char *ext, const char *path,
	const char *value, struct errmsg *em)
{
	struct decl_property *p;
	struct ext *e;
	int rc = find(h, ext, path, &e, &p, em);

	for (e = h->first; rc == 0 && e; e = e->next)
		if (strcmp(e->name, ext) == 0)
			rc = change(e, path, value, em);
	return rc;
}
