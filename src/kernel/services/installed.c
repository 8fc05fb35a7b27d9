/*
 * The versions of extensions that are here, on their way or about to leave: each with its library,
 * sealed in memory, and the uid that its process gets.
 */
#include "kernel/services/installed.h"

#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/text.h"
#include "kernel/services/extender.h"

struct installed *installed_find(const struct kernel *k, const char *key)
{
	return k->extender ? map_find_str(k->extender->all, key) : NULL;
}

struct installed *installed_named(const struct kernel *k, const char *name, bool here)
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
	const struct installed *in = installed_find(k, key);

	return in ? in->name : key;
}

void installed_free(struct installed *in)
{
	map_del_str(in->k->extender->all, in->key);
	mem_close(in->fd);
	blob_free(&in->package);
	blob_free(&in->before);
	free(in);
}

struct tos_value *installed_said(const struct installed *in)
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

/* Each extension has a uid of its own while it lives. The versions of one have the same, so that one
 * that takes another's place finds the directory its own. */
static int free_index(const struct kernel *k, const char *name, uint32_t *out)
{
	bool used[TOSD_EXT_INSTALLED] = { false };
	struct installed *in = installed_named(k, name, true);
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

int installed_new(struct kernel *k, const struct package *p, struct slice file, uint32_t bits,
	const struct bringer *who, struct installed **out, struct errmsg *em)
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
	in->privilege_bits = bits;
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
	snprintf(in->by, sizeof(in->by), "%s", who->by);
	snprintf(in->via, sizeof(in->via), "%s", who->via);
	memcpy(in->digest, p->digest, sizeof(in->digest));
	map_put_str(k->extender->all, in->key, in);
	*out = in;
	return 0;
}

int installed_start(struct installed *in, bool hidden, struct errmsg *em)
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
	const struct installed *in = installed_find(k, key);

	if (!in)
		return ERR_NOT_FOUND;
	*out = (struct extender_process){ .index = TOSD_EXT_MAX + in->index,
		.privileges = in->privilege_bits,
		.address_bytes = k->config.extender_memory,
		.fd = in->fd };
	snprintf(out->label, sizeof(out->label), "%s", in->name);
	return 0;
}

void installed_describe(const struct installed *in, struct tos_value *row)
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
