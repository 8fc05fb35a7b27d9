/*
 * What a package has to be to run at this kernel: its names, what it was built for, and what the
 * configuration grants.
 */
#include <string.h>
#include <sys/utsname.h>

#include "base/text.h"
#include "ext/body.h"
#include "kernel/services/installed.h"
#include "sandbox/sandbox.h"
#include "tos/extension.h"

bool extension_configured(const struct kernel *k, const char *name)
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
	if (extension_configured(k, p->manifest.name) || inbox_is_kernels(p->manifest.name))
		return err_set(em, ERR_EXISTS, "the name %s belongs to %s itself",
			p->manifest.name, k->config.name);
	while (*at) {
		char name[64];
		size_t n = strcspn(at, " ");

		if (text_copy(name, sizeof(name), at, n) < 0 || !name_inbox_ok(name))
			return err_set(em, ERR_NAME, "%s has an inbox of a wrong name",
				p->manifest.name);
		if (extension_configured(k, name) || inbox_is_kernels(name))
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
int package_fits(const struct kernel *k, const struct package *p, uint32_t *bits,
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
int package_two_keys(const struct package *p, const char *by, struct errmsg *em)
{
	return strcmp(p->officer.name, by) != 0
		       ? 0
		       : err_set(em, ERR_DENIED,
				 "%s signed the package and cannot bring it, too: it takes two",
				 by);
}
