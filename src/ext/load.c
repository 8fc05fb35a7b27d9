/* Shared objects with an extension in them: see load.h. Runs in tos-kernel and in tos-ext. */
#include "ext/load.h"

#include <dlfcn.h>

#include <tos/extension.h>

#include "ext/body.h"

int library_find(
	const char *path, void **lib, const struct tos_extension **spec, struct errmsg *em)
{
	void *so = dlopen(path, RTLD_NOW | RTLD_LOCAL);
	const struct tos_extension *found;

	if (!so)
		return err_set(em, ERR_NOT_FOUND, "%s", dlerror());
	found = dlsym(so, "tos_extension");
	if (!found) {
		dlclose(so);
		return err_set(em, ERR_MALFORMED, "%s: has no constant tos_extension", path);
	}
	*lib = so;
	*spec = found;
	return 0;
}

int library_open(
	const char *path, void **lib, const struct tos_extension **spec, struct errmsg *em)
{
	int rc = library_find(path, lib, spec, em);

	if (rc < 0)
		return rc;
	rc = body_check(*spec, em);
	if (rc < 0) {
		dlclose(*lib);
		return err_wrap(em, rc, "%s", path);
	}
	return 0;
}

void library_close(void *lib)
{
	if (lib)
		dlclose(lib);
}

static const char *or_empty(const char *s)
{
	return s ? s : "";
}

static struct tos_value *describe_inboxes(const struct tos_inbox_spec *in)
{
	struct tos_value *all = tos_array();

	for (; all && in && in->name; in++) {
		struct tos_value *one = tos_map();

		tos_set(one, "name", tos_text(in->name));
		tos_set(one, "doc", tos_text(or_empty(in->doc)));
		tos_set(one, "flags", tos_int(in->flags));
		tos_set(one, "bound", tos_int(in->bound));
		tos_set(one, "protocol", tos_text(or_empty(in->protocol)));
		tos_push(all, one);
	}
	return all;
}

static struct tos_value *describe_properties(const struct tos_property_spec *p)
{
	struct tos_value *all = tos_array();

	for (; all && p && p->path; p++) {
		struct tos_value *one = tos_map();

		tos_set(one, "path", tos_text(p->path));
		tos_set(one, "type", tos_text(or_empty(p->type)));
		tos_set(one, "unit", tos_text(or_empty(p->unit)));
		tos_set(one, "doc", tos_text(or_empty(p->doc)));
		tos_set(one, "min", tos_int(p->min));
		tos_set(one, "max", tos_int(p->max));
		tos_set(one, "value", tos_text(or_empty(p->value)));
		tos_set(one, "read_only", tos_bool(p->read_only));
		tos_push(all, one);
	}
	return all;
}

struct tos_value *library_describe(const struct tos_extension *spec)
{
	struct tos_value *v = tos_map(), *abi = tos_array();

	tos_push(abi, tos_int(spec->abi_major));
	tos_push(abi, tos_int(spec->abi_minor));
	tos_set(v, "abi", abi);
	tos_set(v, "name", tos_text(spec->name));
	tos_set(v, "doc", tos_text(or_empty(spec->doc)));
	tos_set(v, "privileges", tos_text(or_empty(spec->privileges)));
	tos_set(v, "inboxes", describe_inboxes(spec->inboxes));
	/* The last one tells whether all went well: whoever reads it insists on every field. */
	if (tos_set(v, "properties", describe_properties(spec->properties)) < 0) {
		tos_value_free(v);
		return NULL;
	}
	return v;
}
