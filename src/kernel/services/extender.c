/*
 * The inbox Extender: see extender.h. A version is first started beside whatever is there, hidden;
 * when it is ready its package goes to the store; when that is durable it is published. Before
 * that point everything that fails leaves what was there as it was.
 */
#include "kernel/services/extender.h"

#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/text.h"
#include "ext/body.h"
#include "kernel/carrier/admit.h"
#include "kernel/handoff/evidence.h"
#include "kernel/handoff/upload.h"
#include "kernel/services/content.h"
#include "kernel/services/grants.h"
#include "sandbox/sandbox.h"
#include "seal/package.h"
#include "tos/extension.h"

#define RETIRE_MS 10000

enum phase {
	COMING, /* starts, hidden */
	SAVING, /* is ready; its package goes to the store */
	HERE,
	LEAVING
};

/* One version of one extension. */
struct installed {
	struct kernel *k;
	enum phase phase;
	char key[EXT_KEY_BYTES], name[64], version[33], privileges[128];
	char by[CERT_NAME_MAX + 1], officer[CERT_NAME_MAX + 1], via[NAME_BYTES_MAX + 1];
	char replaces[33]; /* version; "" */
	char inboxes[PACKAGE_INBOXES * 64];
	uint8_t digest[DIGEST_BYTES];
	bool lua, in_kernel;
	uint32_t index, privilege_bits;
	int fd; /* its library, sealed */
	int64_t wall_ms;
	struct blob package; /* until it is in the store */
	struct blob before;  /* the row of the version that it replaces */
	struct request *rq;  /* who waits for it to come or to be gone */
	bool removed;        /* ... for good */
	char refused[200];   /* at start: why it does not run */
};

struct extender {
	struct map *all; /* key -> struct installed */
	uint64_t next;
};

/* Who brings it. */
struct bringer {
	const char *by, *via; /* principal; carrier or "" */
};

static struct installed *of_key(const struct kernel *k, const char *key)
{
	return k->extender ? map_find_str(k->extender->all, key) : NULL;
}

static struct installed *of_name(const struct kernel *k, const char *name, bool here)
{
	struct installed *in;
	size_t it = 0;

	while ((in = map_next(k->extender->all, &it, NULL, NULL)))
		if (strcmp(in->name, name) == 0 &&
			(here ? in->phase == HERE : in->phase == COMING || in->phase == SAVING))
			return in;
	return NULL;
}

const char *extender_name(const struct kernel *k, const char *key)
{
	const struct installed *in = of_key(k, key);

	return in ? in->name : key;
}

static void installed_free(struct installed *in)
{
	map_del_str(in->k->extender->all, in->key);
	mem_close(in->fd);
	blob_free(&in->package);
	blob_free(&in->before);
	free(in);
}

/* ---- telling */

static struct tos_value *said_of(const struct installed *in)
{
	struct tos_value *m = tos_map();

	tos_set(m, "name", tos_text(in->name));
	tos_set(m, "version", tos_text(in->version));
	tos_set(m, "package", tos_bytes(in->digest, sizeof(in->digest)));
	tos_set(m, "by", tos_text(in->by));
	tos_set(m, "officer", tos_text(in->officer));
	if (in->via[0])
		tos_set(m, "via", tos_text(in->via));
	if (in->replaces[0])
		tos_set(m, "replaces", tos_text(in->replaces));
	return m;
}

static void measure(struct kernel *k)
{
	struct installed *in;
	size_t it = 0, n = 0;
	char label[160];

	while ((in = map_next(k->extender->all, &it, NULL, NULL))) {
		bool runs = in->phase == HERE && !in->refused[0];

		n += runs;
		snprintf(label, sizeof(label), "extension=\"%s\",version=\"%s\"", in->name,
			in->version);
		metric_set(k->metrics, "extension_version", label, runs);
	}
	metric_set(k->metrics, "extensions_installed", NULL, (double)n);
}

/* In the audit log and the journal of the system, and to whoever asked. */
static void refusal(
	struct kernel *k, struct request *rq, struct tos_value *m, int rc, const char *text)
{
	char label[64];

	tos_set(m, "code", tos_text(err_word(rc)));
	tos_set(m, "text", tos_text(text));
	log_notice("extension refused", KV_STR("extension", tos_get_text(m, "name", "")),
		KV_STR("version", tos_get_text(m, "version", "")),
		KV_STR("by", tos_get_text(m, "by", "")),
		KV_STR("officer", tos_get_text(m, "officer", "")),
		KV_STR("error", err_word(rc)), KV_STR("reason", text));
	/* Carriers and other kernels may ask as often as they like. */
	if (rq && (rq->from.kernel[0] || rq->from.cls == ORIGIN_CARRIER))
		audit_refusal(k, NULL, rq->from.kernel, "extension-refused", m);
	else
		audit_event(k, NULL, "extension-refused", m);
	snprintf(label, sizeof(label), "code=\"%s\"", err_word(rc));
	metric_add(k->metrics, "extensions_refused_total", label, 1);
	if (rq)
		request_fail(rq, rc, "%s", text);
}

/* It did not come: nothing of it stays. */
static void give_up(struct installed *in, int rc, const char *text)
{
	struct kernel *k = in->k;

	in->phase = LEAVING;
	refusal(k, STEAL(in->rq), said_of(in), rc, text);
	ext_abandon(k->exts, in->key);
}

/* ---- checking */

static bool configured(const struct kernel *k, const char *name)
{
	for (size_t i = 0; i < k->config.n_extensions; i++)
		if (strcmp(k->config.extensions[i].name, name) == 0)
			return true;
	return false;
}

static int in_kernel_ok(const struct kernel *k, const struct package *p, struct errmsg *em)
{
	if (!p->in_kernel)
		return 0;
	if (p->lua)
		return err_set(em, ERR_UNSUPPORTED,
			"%s is written in Lua, and such run isolated only", p->manifest.name);
	for (size_t i = 0; i < k->config.n_extender_kernel; i++)
		if (strcmp(k->config.extender_kernel[i], p->manifest.name) == 0)
			return 0;
	return err_set(em, ERR_DENIED,
		"%s wants to live in the kernel's process, and extender.kernel of %s does not name it",
		p->manifest.name, k->config.name);
}

static int privileges_ok(
	const struct kernel *k, const struct package *p, uint32_t *bits, struct errmsg *em)
{
	struct errmsg why = { "" };

	if (sandbox_privileges(p->privileges, bits, &why) < 0)
		return err_set(
			em, ERR_UNSUPPORTED, "%s asks for an %s", p->manifest.name, why.text);
	/* In the kernel it is trusted wholly: there they mean nothing. Word by word, since not every
	 * privilege is the sandbox's. */
	if (p->in_kernel ||
		body_privileges_ok(p->privileges, k->config.extender_privileges, NULL) == 0)
		return 0;
	return err_set(em, ERR_DENIED,
		"%s asks for the privileges '%s', and extender.privileges of %s grants '%s'",
		p->manifest.name, p->privileges, k->config.name, k->config.extender_privileges);
}

/* Names of the kernel's own inboxes and of configured extensions are nobody's to take, whether
 * these run just now or not. */
static int names_ok(const struct kernel *k, const struct package *p, struct errmsg *em)
{
	const char *at = p->inboxes;

	if (!name_inbox_ok(p->manifest.name))
		return err_set(em, ERR_NAME,
			"'%s': an extension's name begins with a capital letter, then letters, "
			"digits, - and .",
			p->manifest.name);
	if (configured(k, p->manifest.name) || inbox_is_kernels(p->manifest.name))
		return err_set(em, ERR_EXISTS, "the name %s belongs to %s itself",
			p->manifest.name, k->config.name);
	while (*at) {
		char name[64];
		size_t n = strcspn(at, " ");

		if (text_copy(name, sizeof(name), at, n) < 0 || !name_inbox_ok(name))
			return err_set(em, ERR_NAME, "%s has an inbox of a wrong name",
				p->manifest.name);
		if (configured(k, name) || inbox_is_kernels(name))
			return err_set(em, ERR_EXISTS, "the inbox %s belongs to %s itself",
				name, k->config.name);
		at += n + (at[n] == ' ');
	}
	return 0;
}

static int abi_ok(const struct package *p, struct errmsg *em)
{
	if (p->abi_major == TOS_ABI_MAJOR && p->abi_minor <= TOS_ABI_MINOR)
		return 0;
	return err_set(em, ERR_VERSION,
		"%s %s is built for the extension ABI %u.%u, and this kernel has %u.%u",
		p->manifest.name, p->manifest.version, p->abi_major, p->abi_minor,
		TOS_ABI_MAJOR, TOS_ABI_MINOR);
}

/* What this kernel's configuration and build say of it; asked again at each start. */
static int fits(const struct kernel *k, const struct package *p, uint32_t *bits,
	struct slice *file, struct errmsg *em)
{
	struct utsname u;
	int rc = names_ok(k, p, em);

	rc = rc ? rc : abi_ok(p, em);
	rc = rc ? rc : in_kernel_ok(k, p, em);
	rc = rc ? rc : privileges_ok(k, p, bits, em);
	if (rc < 0)
		return rc;
	uname(&u);
	return package_file(p, u.machine, file, em);
}

/* The second key: not the first one's owner again. */
static int two_keys(const struct package *p, const char *by, struct errmsg *em)
{
	return strcmp(p->officer.name, by) != 0
		       ? 0
		       : err_set(em, ERR_DENIED,
				 "%s signed the package and cannot bring it, too: it takes two",
				 by);
}

enum how { NEW, INSTEAD, EITHER };

static int place_ok(struct kernel *k, const char *name, enum how how, struct errmsg *em)
{
	const struct installed *old = of_name(k, name, true);

	if (of_name(k, name, false))
		return err_set(
			em, ERR_STATE, "another version of %s is just being installed", name);
	if (old && how == NEW)
		return err_set(em, ERR_EXISTS, "extension %s %s is there already; replace it",
			name, old->version);
	if (!old && how == INSTEAD)
		return err_set(em, ERR_NOT_FOUND, "no extension %s is installed here", name);
	return 0;
}

/* Each extension has a uid of its own while it lives. The versions of one have the same, so that one
 * that takes another's place finds the directory its own. */
static int free_index(const struct kernel *k, const char *name, uint32_t *out)
{
	bool used[TOSD_EXT_INSTALLED] = { false };
	struct installed *in = of_name(k, name, true);
	size_t it = 0;

	if (in) {
		*out = in->index;
		return 0;
	}
	while ((in = map_next(k->extender->all, &it, NULL, NULL)))
		used[in->index] = true;
	for (*out = 0; *out < TOSD_EXT_INSTALLED; ++*out)
		if (!used[*out])
			return 0;
	return ERR_LIMIT;
}

/* ---- starting */

static int sealed_copy(struct slice bytes, int *out, struct errmsg *em)
{
	AUTOCLOSE int fd = memfd_create("extension", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	if (fd < 0)
		return err_errno(em, "cannot keep the library in memory");
	for (size_t at = 0; at < bytes.n;) {
		ssize_t n = write(fd, bytes.p + at, bytes.n - at);

		if (n <= 0)
			return err_errno(em, "cannot keep the library in memory");
		at += (size_t)n;
	}
	if (fcntl(fd, F_ADD_SEALS, F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE) <
		0)
		return err_errno(em, "cannot seal the library");
	*out = fd;
	fd = -1; /* NOLINT(clang-analyzer-deadcode.DeadStores): AUTOCLOSE reads it */
	return 0;
}

static const char *property_of(void *arg, const char *path)
{
	const struct installed *in = arg;
	const struct config_extension *x = config_extension(&in->k->config, in->name);

	return x ? config_property(x, path) : NULL;
}

/* Made of a package that was found good. */
static int installed_new(struct kernel *k, const struct package *p, struct slice file,
	struct installed **out, struct errmsg *em)
{
	struct installed *in;
	uint32_t index;
	int fd = -1, rc;

	if (free_index(k, p->manifest.name, &index) < 0)
		return err_set(em, ERR_LIMIT,
			"%d extensions are installed or on their way; this is the most",
			TOSD_EXT_INSTALLED);
	rc = sealed_copy(file, &fd, em);
	if (rc < 0)
		return rc;
	in = mem_new(struct installed);
	in->k = k;
	in->fd = fd;
	in->index = index;
	in->lua = p->lua;
	in->in_kernel = p->in_kernel;
	in->wall_ms = clock_wall_ms();
	snprintf(in->name, sizeof(in->name), "%s", p->manifest.name);
	snprintf(in->key, sizeof(in->key), "%s@%llu", in->name,
		(unsigned long long)++k->extender->next);
	snprintf(in->version, sizeof(in->version), "%s", p->manifest.version);
	snprintf(in->privileges, sizeof(in->privileges), "%s", p->privileges);
	snprintf(in->inboxes, sizeof(in->inboxes), "%s", p->inboxes);
	snprintf(in->officer, sizeof(in->officer), "%s", p->officer.name);
	memcpy(in->digest, p->digest, sizeof(in->digest));
	map_put_str(k->extender->all, in->key, in);
	*out = in;
	return 0;
}

static int start(struct installed *in, bool hidden, struct errmsg *em)
{
	char library[64];
	struct ext_load what = { .name = in->name,
		.key = in->key,
		.hidden = hidden,
		.keep = !in->in_kernel,
		.inboxes = in->inboxes,
		.library = library,
		.privileges = in->privileges,
		.isolated = !in->in_kernel,
		.property = property_of,
		.arg = in };

	snprintf(library, sizeof(library), "/proc/self/fd/%d", in->fd);
	return ext_load(in->k->exts, &what, em);
}

int extender_process(const struct kernel *k, const char *key, struct extender_process *out)
{
	const struct installed *in = of_key(k, key);

	if (!in)
		return ERR_NOT_FOUND;
	*out = (struct extender_process){ .index = TOSD_EXT_MAX + in->index,
		.privileges = in->privilege_bits,
		.address_bytes = k->config.extender_memory,
		.fd = in->fd };
	snprintf(out->label, sizeof(out->label), "%s", in->name);
	return 0;
}

/* ---- coming: check, start, save, publish */

static void answer_installed(struct installed *in)
{
	struct tos_value *m = said_of(in), *declared = ext_declared(in->k->exts, in->key);

	tos_set(m, "kernel", tos_text(in->k->config.name));
	tos_set(m, "where", tos_text(in->in_kernel ? "kernel" : "isolated"));
	tos_set(m, "privileges", tos_text(in->privileges));
	if (tos_get(declared, "inboxes"))
		tos_set(m, "inboxes", tos_value_copy(tos_get(declared, "inboxes")));
	tos_value_free(declared);
	if (in->rq)
		request_ok(STEAL(in->rq), m);
	else
		tos_value_free(m);
}

static void row_put(struct store_txn *t, const struct installed *in)
{
	struct tos_value *m = said_of(in);
	uint8_t *bytes = NULL;
	size_t n;

	tos_set(m, "bundle", tos_bytes(in->package.p, in->package.n));
	tos_set(m, "wall", tos_int(in->wall_ms));
	if (tos_encode(m, &bytes, &n) == 0)
		store_put(t, T_EXTENSION, in->name, strlen(in->name), bytes, n, 0);
	free(bytes);
	tos_value_free(m);
}

/* The store has it, and it cannot be published: what was there before is put back. */
static void put_back(struct installed *in)
{
	struct store_txn *t = store_begin(in->k->store);

	if (in->before.n)
		store_put(t, T_EXTENSION, in->name, strlen(in->name), in->before.p,
			in->before.n, 0);
	else
		store_del(t, T_EXTENSION, in->name, strlen(in->name));
	store_commit(t, NULL, NULL);
}

static void installed_now(struct installed *in, struct installed *old)
{
	struct kernel *k = in->k;

	in->phase = HERE;
	blob_free(&in->package);
	blob_free(&in->before);
	if (old) {
		old->phase = LEAVING;
		log_notice("extension replaced", KV_STR("extension", in->name),
			KV_STR("version", in->version), KV_STR("replaces", old->version),
			KV_STR("by", in->by), KV_STR("officer", in->officer),
			KV_STR("via", in->via));
		metric_add(k->metrics, "extensions_replaced_total", NULL, 1);
	} else {
		log_notice("extension installed", KV_STR("extension", in->name),
			KV_STR("version", in->version), KV_STR("by", in->by),
			KV_STR("officer", in->officer), KV_STR("via", in->via));
		metric_add(k->metrics, "extensions_installed_total", NULL, 1);
	}
	measure(k);
	answer_installed(in);
}

struct saving {
	struct kernel *k;
	char key[EXT_KEY_BYTES];
};

static void on_saved(void *arg, int rc, const struct errmsg *em)
{
	AUTOFREE struct saving *s = arg;
	struct installed *in = of_key(s->k, s->key), *old;
	struct errmsg why = { "" };

	if (!in || in->phase != SAVING)
		return;
	if (rc < 0) {
		give_up(in, rc, err_show(rc, em));
		return;
	}
	old = of_name(s->k, in->name, true);
	rc = ext_publish(s->k->exts, in->key, &why);
	if (rc < 0) {
		put_back(in);
		give_up(in, rc, err_show(rc, &why));
		return;
	}
	installed_now(in, old);
}

static void save(struct installed *in)
{
	struct kernel *k = in->k;
	struct saving *s = mem_new(struct saving);
	AUTOBUF before = BUF_MAX(PACKAGE_BYTES_MAX + (1 << 16));
	struct store_txn *t;
	int rc;

	s->k = k;
	snprintf(s->key, sizeof(s->key), "%s", in->key);
	in->phase = SAVING;
	if (store_get(k->store, T_EXTENSION, in->name, strlen(in->name), &before, NULL) == 0)
		blob_set(&in->before, slice_buf(&before));
	t = store_begin(k->store);
	row_put(t, in);
	audit_event(k, t, in->replaces[0] ? "extension-replaced" : "extension-installed",
		said_of(in));
	rc = store_commit(t, on_saved, s);
	if (rc < 0) {
		free(s);
		give_up(in, rc, err_text(rc));
	}
}

bool extender_ready(struct kernel *k, const char *key, int rc, const char *why)
{
	struct installed *in = of_key(k, key);

	if (!in)
		return false;
	if (in->phase == COMING && rc == 0)
		save(in);
	else if (in->phase == COMING)
		give_up(in, rc, why && *why ? why : err_text(rc));
	else if (in->phase == SAVING && rc < 0)
		snprintf(in->refused, sizeof(in->refused), "%s", why); /* publishing fails */
	else if (in->phase == HERE) {
		snprintf(in->refused, sizeof(in->refused), "%s", rc < 0 ? why : "");
		measure(k);
	}
	return true;
}

/* The package's bytes are borrowed; takes rq. */
static void install(struct kernel *k, struct request *rq, const struct bringer *who,
	const char *name, enum how how, struct slice bytes)
{
	AUTOFREE struct package *p = mem_new(struct package);
	struct installed *in = NULL;
	const struct installed *old;
	struct errmsg em = { "" };
	struct slice file;
	struct trust trust;
	uint32_t bits = 0;
	int rc;

	kernel_trust(k, &trust);
	rc = admission_closed(k, &em) ? ERR_STORE : package_open(&trust, bytes, p, &em);
	if (rc == 0 && !k->config.extender_enabled)
		rc = err_set(&em, ERR_UNSUPPORTED,
			"nothing is installed at %s while it runs (extender.enabled)",
			k->config.name);
	if (rc == 0) {
		if (name && strcmp(name, p->manifest.name) != 0)
			rc = err_set(&em, ERR_NAME, "the package is of %s, not of %s",
				p->manifest.name, name);
		if (rc == 0 && !name)
			rc = kernel_allowed(k, &rq->from, "install", p->manifest.name, "", &em);
		rc = rc ? rc : two_keys(p, who->by, &em);
		rc = rc ? rc : fits(k, p, &bits, &file, &em);
		rc = rc ? rc : place_ok(k, p->manifest.name, how, &em);
		rc = rc ? rc : installed_new(k, p, file, &in, &em);
	}
	if (!in) {
		struct tos_value *m = tos_map();

		tos_set(m, "name", tos_text(name ? name : p->manifest.name));
		tos_set(m, "version", tos_text(p->manifest.version));
		tos_set(m, "package", tos_bytes(p->digest, sizeof(p->digest)));
		tos_set(m, "by", tos_text(who->by));
		tos_set(m, "officer", tos_text(p->officer.name));
		if (who->via[0])
			tos_set(m, "via", tos_text(who->via));
		refusal(k, rq, m, rc, err_show(rc, &em));
		package_close(p);
		return;
	}
	old = of_name(k, in->name, true);
	if (old)
		snprintf(in->replaces, sizeof(in->replaces), "%s", old->version);
	snprintf(in->by, sizeof(in->by), "%s", who->by);
	snprintf(in->via, sizeof(in->via), "%s", who->via);
	in->privilege_bits = bits;
	blob_set(&in->package, bytes);
	in->rq = rq;
	package_close(p);
	rc = start(in, true, &em); /* in may be gone by now, if that was quick */
	if (rc < 0) {
		give_up(in, rc, err_show(rc, &em));
		installed_free(in);
	}
}

/* ---- leaving */

void extender_gone(struct kernel *k, const char *key)
{
	struct installed *in = of_key(k, key);
	struct tos_value *m;

	if (!in)
		return;
	log_info("extension gone", KV_STR("extension", in->name),
		KV_STR("version", in->version));
	if (in->rq) {
		m = said_of(in);
		tos_set(m, "kernel", tos_text(k->config.name));
		request_ok(STEAL(in->rq), m);
	}
	installed_free(in);
	measure(k);
}

static void on_removed(void *arg, int rc, const struct errmsg *em)
{
	AUTOFREE struct saving *s = arg;
	struct installed *in = of_key(s->k, s->key);
	struct errmsg why = { "" };
	char path[80];

	if (!in)
		return;
	if (rc == 0 && in->phase == HERE)
		rc = ext_retire(s->k->exts, in->name, RETIRE_MS, &why);
	else if (rc < 0)
		snprintf(why.text, sizeof(why.text), "%s", err_show(rc, em));
	if (rc == ERR_NOT_FOUND && in->refused[0]) { /* it was never started */
		extender_gone(s->k, s->key);
		return;
	}
	if (rc < 0) {
		if (in->rq)
			request_fail(STEAL(in->rq), rc, "%s", why.text);
		return;
	}
	in->phase = LEAVING;
	snprintf(path, sizeof(path), "/%s", in->name);
	property_remove(s->k->properties, path);
	log_notice("extension removed", KV_STR("extension", in->name),
		KV_STR("version", in->version), KV_STR("by", in->by));
	metric_add(s->k->metrics, "extensions_removed_total", NULL, 1);
	measure(s->k);
}

static int remove_begin(struct kernel *k, struct installed *in, struct request *rq,
	const struct bringer *who, const char *why)
{
	struct saving *s = mem_new(struct saving);
	struct tos_value *m = said_of(in);
	struct store_txn *t = store_begin(k->store);
	int rc;

	s->k = k;
	snprintf(s->key, sizeof(s->key), "%s", in->key);
	in->rq = rq;
	tos_set(m, "by", tos_text(who->by));
	if (who->via[0])
		tos_set(m, "via", tos_text(who->via));
	if (why)
		tos_set(m, "text", tos_text(why));
	store_del(t, T_EXTENSION, in->name, strlen(in->name));
	audit_event(k, t, "extension-removed", m);
	rc = store_commit(t, on_removed, s);
	if (rc < 0) {
		in->rq = NULL;
		free(s);
	}
	return rc;
}

static void remove_it(
	struct kernel *k, struct request *rq, const struct bringer *who, const char *name)
{
	struct installed *in = of_name(k, name, true);
	struct tos_value *m;
	struct errmsg em = { "" };
	int rc;

	if (!in && configured(k, name))
		rc = err_set(&em, ERR_EXISTS,
			"%s is in the configuration of %s, and is removed there", name,
			k->config.name);
	else if (!in)
		rc = err_set(&em, ERR_NOT_FOUND, "no extension %s is installed here", name);
	else if (of_name(k, name, false) || in->rq)
		rc = err_set(&em, ERR_STATE, "%s is just being replaced or removed", name);
	else
		rc = remove_begin(k, in, rq, who, NULL);
	if (rc == 0)
		return;
	m = tos_map();
	tos_set(m, "name", tos_text(name));
	tos_set(m, "by", tos_text(who->by));
	refusal(k, rq, m, rc, err_show(rc, &em));
}

void extender_recheck(struct kernel *k)
{
	static const struct bringer nobody = { "", "" };
	struct installed *in;
	size_t it = 0;

	if (!k->extender)
		return;
	while ((in = map_next(k->extender->all, &it, NULL, NULL))) {
		AUTOBUF row = BUF_MAX(PACKAGE_BYTES_MAX + (1 << 16));
		struct tos_value *v = NULL;
		struct slice bytes = { NULL, 0 };
		struct errmsg em = { "" };
		struct package *p;
		struct trust trust;
		int rc;

		if (in->phase != HERE || in->rq ||
			store_get(k->store, T_EXTENSION, in->name, strlen(in->name), &row,
				NULL) < 0 ||
			tos_decode(row.data, row.len, 2 * PACKAGE_BYTES_MAX, &v) < 0)
			continue;
		bytes.p = tos_get_bytes(v, "bundle", &bytes.n);
		kernel_trust(k, &trust);
		trust.now_ms = in->wall_ms;
		p = mem_new(struct package);
		rc = bytes.p ? package_open(&trust, bytes, p, &em) : 0;
		if (rc == 0 && bytes.p)
			package_close(p);
		free(p);
		tos_value_free(v);
		if (rc != ERR_REVOKED)
			continue;
		log_warning("an extension is removed: its officer was revoked",
			KV_STR("extension", in->name), KV_STR("officer", in->officer));
		remove_begin(k, in, NULL, &nobody, em.text);
	}
}

/* ---- at start */

static void not_started(struct kernel *k, const char *name, int rc, const char *text)
{
	struct tos_value *m = tos_map();

	log_error("an installed extension does not start", KV_STR("extension", name),
		KV_STR("error", err_word(rc)), KV_STR("reason", text));
	tos_set(m, "name", tos_text(name));
	tos_set(m, "code", tos_text(err_word(rc)));
	tos_set(m, "text", tos_text(text));
	audit_event(k, NULL, "extension-not-started", m);
}

/* What was good when it was installed is good, unless its officer was revoked since: a service
 * does not end because a certificate ran out. */
static int load_one(struct kernel *k, const struct tos_value *row, struct errmsg *em)
{
	AUTOFREE struct package *p = mem_new(struct package);
	struct installed *in;
	struct trust trust;
	struct slice bytes = { NULL, 0 }, file;
	uint32_t bits = 0;
	int rc, made;

	bytes.p = tos_get_bytes(row, "bundle", &bytes.n);
	if (!bytes.p)
		return err_set(em, ERR_STORE, "its row in the store is damaged");
	kernel_trust(k, &trust);
	trust.now_ms = tos_get_int(row, "wall", 0);
	rc = package_open(&trust, bytes, p, em);
	if (rc < 0)
		return rc;
	rc = fits(k, p, &bits, &file, em);
	/* One that may not run is kept, so that it is seen, and can be removed or replaced. */
	if (rc < 0)
		file = (struct slice){ (const uint8_t *)"", 0 };
	made = installed_new(k, p, file, &in, rc < 0 ? NULL : em);
	package_close(p);
	if (made < 0)
		return rc ? rc : made;
	in->phase = HERE;
	in->privilege_bits = bits;
	in->wall_ms = trust.now_ms;
	snprintf(in->by, sizeof(in->by), "%s", tos_get_text(row, "by", ""));
	snprintf(in->via, sizeof(in->via), "%s", tos_get_text(row, "via", ""));
	rc = rc ? rc : start(in, false, em);
	if (rc < 0)
		snprintf(in->refused, sizeof(in->refused), "%s", err_show(rc, em));
	return rc;
}

static int load_row(void *arg, struct slice key, struct slice body, int64_t expires_ms)
{
	struct kernel *k = arg;
	struct tos_value *row = NULL;
	struct errmsg em = { "" };
	char name[64];
	int rc;

	(void)expires_ms;
	slice_copy_text(key, name, sizeof(name));
	rc = tos_decode(body.p, body.n, 2 * PACKAGE_BYTES_MAX, &row);
	if (rc == 0)
		rc = load_one(k, row, &em);
	tos_value_free(row);
	if (rc < 0)
		not_started(k, name, rc, err_show(rc, &em));
	return 0;
}

int extender_load(struct kernel *k, struct errmsg *em)
{
	int rc;

	k->extender = mem_new(struct extender);
	k->extender->all = map_new();
	rc = store_each(k->store, T_EXTENSION, (struct slice){ NULL, 0 }, load_row, k, em);
	measure(k);
	return rc;
}

/* ---- acts and verbs */

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
		refusal(k, rq, m, rc, err_show(rc, &em));
		return;
	}
	install(k, rq, &who, name,
		strcmp(mode, "replace") == 0  ? INSTEAD
		: strcmp(mode, "either") == 0 ? EITHER
					      : NEW,
		bytes);
	blob_free(&kept);
}

void extender_remove_act(struct kernel *k, struct request *rq, const char *by, const char *name)
{
	struct bringer who = { by, "" };

	remove_it(k, rq, &who, name);
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
		install(k, rq, &who, NULL, how, bytes);
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
		remove_it(k, rq, &who, name);
}

static void installed_describe(const struct installed *in, struct tos_value *row)
{
	char hex[2 * DIGEST_BYTES + 1];

	tos_set(row, "version", tos_text(in->version));
	tos_set(row, "by", tos_text(in->by));
	tos_set(row, "via", tos_text(in->via));
	tos_set(row, "officer", tos_text(in->officer));
	tos_set(row, "language", tos_text(in->lua ? "lua" : "c"));
	tos_set(row, "package", tos_text(text_hex(in->digest, sizeof(in->digest), hex)));
	tos_set(row, "since_ms", tos_int(in->wall_ms));
	if (in->refused[0]) {
		tos_set(row, "state", tos_text("refused"));
		tos_set(row, "why", tos_text(in->refused));
	}
}

static void list_verb(struct kernel *k, struct request *rq)
{
	struct tos_value *all = ext_describe(k->exts);
	struct installed *in;
	size_t it = 0;

	for (size_t i = 0; i < tos_len(all); i++) {
		struct tos_value *row = tos_at_mut(all, i);

		in = of_key(k, tos_get_text(row, "key", ""));
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
