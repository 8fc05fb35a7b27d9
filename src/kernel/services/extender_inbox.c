/*
 * The inbox Extender and the acts on extensions: who brings or removes which, and where its package
 * is; and LIST.
 */
#include "kernel/services/extender.h"

#include <string.h>
#include <unistd.h>

#include "kernel/upload.h"
#include "kernel/services/content.h"
#include "kernel/services/grants.h"
#include "kernel/services/installed.h"

/* From the content store, for whoever may read it there. */
static int package_of_store(struct kernel *k, const uint8_t *digest, const char *principal,
	struct blob *out, struct errmsg *em)
{
	const struct content_file *f = content_find(k, digest);
	AUTOCLOSE int fd = -1;
	AUTOFREE uint8_t *bytes = NULL;
	int64_t size = 0;
	int rc;

	if (!f || (!f->shared && strcmp(f->owner, principal) != 0))
		return err_set(em, ERR_NOT_FOUND,
			"the package did not come along, and is not in the content store of %s",
			k->config.name);
	rc = content_open(k, digest, &fd, &size, em);
	if (rc < 0)
		return rc;
	if (size <= 0 || (size_t)size > PACKAGE_BYTES_MAX)
		return err_set(em, ERR_TOO_LARGE, "a package has %zu MiB at most",
			PACKAGE_BYTES_MAX >> 20);
	bytes = mem_try((size_t)size);
	if (!bytes)
		return err_set(em, ERR_NOMEM, "no memory for the package");
	for (int64_t at = 0; at < size;) {
		ssize_t n = pread(fd, bytes + at, (size_t)(size - at), at);

		if (n <= 0)
			return err_set(em, ERR_IO, "the package can't be read");
		at += n;
	}
	blob_set(out, (struct slice){ bytes, (size_t)size });
	return 0;
}

/* kept: holds it where it comes from the content store. */
static int package_of_act(struct kernel *k, const struct request *rq, const char *by,
	const struct tos_value *args, struct slice *out, struct blob *kept, struct errmsg *em)
{
	size_t n = 0;
	const uint8_t *digest = tos_get_bytes(args, "package", &n);
	uint8_t found[DIGEST_BYTES];
	int rc;

	if (!digest || n != DIGEST_BYTES)
		return err_set(em, ERR_MALFORMED, "the act names no package by its SHA-256");
	out->p = tos_get_bytes(rq->args, "package", &out->n);
	if (!out->p)
		*out = upload_find(k, digest, &rq->from);
	if (!out->p) {
		rc = package_of_store(k, digest, by, kept, em);
		if (rc < 0)
			return rc;
		*out = blob_slice(kept);
	}
	digest_bytes(out->p, out->n, found);
	return memcmp(found, digest, DIGEST_BYTES) == 0
		       ? 0
		       : err_set(em, ERR_SIGNATURE,
				 "the package is not the one that the act was signed for");
}

void extender_install_act(struct kernel *k, struct request *rq, const char *by,
	const char *name, const struct tos_value *args)
{
	struct bringer who = { by, "" };
	const char *mode = tos_get_text(args, "mode", "new");
	struct errmsg em = { "" };
	struct blob kept = { NULL, 0 };
	struct slice bytes;
	int rc = package_of_act(k, rq, by, args, &bytes, &kept, &em);

	if (rc < 0) {
		struct tos_value *m = tos_map();

		tos_set(m, "name", tos_text(name));
		tos_set(m, "by", tos_text(by));
		extender_refuse(k, rq, m, rc, err_show(rc, &em));
		return;
	}
	extender_install(k, rq, &who, name,
		strcmp(mode, "replace") == 0  ? INSTEAD
		: strcmp(mode, "either") == 0 ? EITHER
					      : NEW,
		bytes);
	blob_free(&kept);
}

void extender_remove_act(struct kernel *k, struct request *rq, const char *by, const char *name)
{
	struct bringer who = { by, "" };

	extender_remove(k, rq, &who, name);
}

/* Only a carrier can bring one by itself: it has an owner who answers for it. Everybody else says
 * so with a signed act (inbox Control). */
static bool bringer_of(struct request *rq, struct bringer *out)
{
	out->by = rq->from.principal;
	out->via = rq->from.name;
	if (rq->from.cls == ORIGIN_CARRIER)
		return true;
	request_fail(rq, ERR_DENIED,
		"extensions are installed and removed by carriers and by signed acts; 'tos "
		"extension' signs one");
	return false;
}

/* Lua tells no bytes from text. */
static struct slice bytes_of(const struct tos_value *v)
{
	struct slice s = { NULL, 0 };
	const char *text;

	s.p = tos_as_bytes(v, &s.n);
	if (s.p)
		return s;
	text = tos_as_text(v, NULL);
	return text ? (struct slice){ (const uint8_t *)text, tos_len(v) } : s;
}

static void install_how(struct kernel *k, struct request *rq, enum how how)
{
	struct bringer who;
	struct slice bytes = bytes_of(tos_get(rq->args, "package"));
	struct blob kept = { NULL, 0 };
	uint8_t digest[DIGEST_BYTES];
	struct errmsg em = { "" };
	int rc = 0;

	if (!bringer_of(rq, &who))
		return;
	if (!bytes.p && content_digest(rq->args, digest)) {
		rc = package_of_store(k, digest, rq->from.principal, &kept, &em);
		bytes = blob_slice(&kept);
	} else if (!bytes.p) {
		rc = err_set(&em, ERR_MALFORMED,
			"it is {package = its bytes}, or {digest = its SHA-256} of the content store");
	}
	if (rc < 0)
		request_fail(rq, rc, "%s", em.text);
	else
		extender_install(k, rq, &who, NULL, how, bytes);
	blob_free(&kept);
}

static void install_verb(struct kernel *k, struct request *rq)
{
	install_how(k, rq, tos_get_bool(rq->args, "replace", false) ? EITHER : NEW);
}

static void replace_verb(struct kernel *k, struct request *rq)
{
	install_how(k, rq, INSTEAD);
}

static void remove_verb(struct kernel *k, struct request *rq)
{
	char name[64];
	struct bringer who;
	struct errmsg em = { "" };
	int rc;

	snprintf(name, sizeof(name), "%s", tos_get_text(rq->args, "name", ""));
	if (!bringer_of(rq, &who))
		return;
	rc = kernel_allowed(k, &rq->from, "install", name, "", &em);
	if (rc < 0)
		request_fail(rq, rc, "%s", em.text);
	else
		extender_remove(k, rq, &who, name);
}

static void list_verb(struct kernel *k, struct request *rq)
{
	struct tos_value *all = ext_describe(k->exts);
	struct installed *in;
	size_t it = 0;

	for (size_t i = 0; i < tos_len(all); i++) {
		struct tos_value *row = tos_at_mut(all, i);

		in = installed_find(k, tos_get_text(row, "key", ""));
		tos_set(row, "kernel", tos_text(k->config.name));
		tos_set(row, "source", tos_text(in ? "installed" : "configured"));
		if (in)
			installed_describe(in, row);
		grants_describe(k, tos_get_text(row, "name", ""), row);
	}
	while ((in = map_next(k->extender->all, &it, NULL, NULL))) {
		struct tos_value *row;

		if (!in->refused[0] || ext_has(k->exts, in->key))
			continue;
		row = tos_map();
		tos_set(row, "name", tos_text(in->name));
		tos_set(row, "kernel", tos_text(k->config.name));
		tos_set(row, "source", tos_text("installed"));
		tos_set(row, "where", tos_text(in->in_kernel ? "kernel" : "isolated"));
		tos_set(row, "privileges", tos_text(in->privileges));
		installed_describe(in, row);
		grants_describe(k, in->name, row);
		tos_push(all, row);
	}
	request_ok(rq, all);
}

const struct verb extender_verbs[] = {
	{ "INSTALL", install_verb },
	{ "REPLACE", replace_verb },
	{ "REMOVE", remove_verb },
	{ "LIST", list_verb },
	{ NULL, NULL },
};
