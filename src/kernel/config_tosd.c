/* What tosd is told of a configuration, and what it grants to each extension. See config.h. */
#include "kernel/config.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/text.h"

struct config_extension *config_extension(struct config *c, const char *name)
{
	for (size_t i = 0; i < c->n_extensions; i++)
		if (strcmp(c->extensions[i].name, name) == 0)
			return &c->extensions[i];
	for (size_t i = 0; i < c->n_installed; i++)
		if (strcmp(c->installed[i].name, name) == 0)
			return &c->installed[i];
	return NULL;
}

bool config_directory(const struct config_extension *x, char path[TOSD_DIRECTORY_BYTES])
{
	size_t n = strcspn(x->directory, " ");

	text_copy(path, TOSD_DIRECTORY_BYTES, x->directory, n);
	return x->directory[n] != 0;
}

static void grant_to_tosd(const struct config_extension *x, struct tosd_grant *out)
{
	snprintf(out->name, sizeof(out->name), "%s", x->name);
	out->read_only = config_directory(x, out->directory);
	out->file_bytes = x->file_bytes;
}

static int extension_to_tosd(
	const struct config_extension *x, struct tosd_config *out, struct errmsg *em)
{
	if (x->library[0] != '/')
		return err_set(em, ERR_CONFIG,
			"extension %s: no library '%s' was found among the shipped ones",
			x->name, x->library);
	if (access(x->library, R_OK) < 0)
		return err_set(em, ERR_CONFIG, "extension %s: %s: %s", x->name, x->library,
			strerror(errno));
	if (!x->isolated)
		return 0;
	snprintf(out->ext[out->n_ext].name, sizeof(out->ext[0].name), "%s", x->name);
	snprintf(out->ext[out->n_ext].path, sizeof(out->ext[0].path), "%s", x->library);
	snprintf(out->ext[out->n_ext].privileges, sizeof(out->ext[0].privileges), "%s",
		x->privileges);
	grant_to_tosd(x, &out->ext[out->n_ext].grant);
	out->n_ext++;
	return 0;
}

int config_to_tosd(const struct config *c, struct tosd_config *out, struct errmsg *em)
{
	memset(out, 0, sizeof(*out)); /* padding too: it goes over a socket */
	out->version = TOSD_MSG_VERSION;
	out->length = sizeof(*out);
	snprintf(out->name, sizeof(out->name), "%s", c->name);
	snprintf(out->state_dir, sizeof(out->state_dir), "%s", c->state_dir);
	out->n_listen = (uint32_t)c->n_listen;
	memcpy(out->listen, c->listen, sizeof(out->listen));
	out->uid_base = c->uid_base;
	out->n_require = (uint32_t)c->n_require;
	memcpy(out->require, c->require, sizeof(out->require));
	out->vm_address_bytes = c->vm_address_bytes;
	out->n_actions = (uint32_t)c->n_actions;
	memcpy(out->action, c->actions, sizeof(out->action));
	snprintf(out->installed_privileges, sizeof(out->installed_privileges), "%s",
		c->extender_privileges);
	snprintf(out->log_level, sizeof(out->log_level), "%s", c->log_level);
	out->log_json = c->log_json;
	out->restart_ms = c->restart_ms;
	out->test_no_userns = c->test_no_userns;
	for (size_t i = 0; i < c->n_installed; i++)
		grant_to_tosd(&c->installed[i], &out->installed[out->n_installed++]);
	for (size_t i = 0; i < c->n_extensions; i++) {
		int rc = extension_to_tosd(&c->extensions[i], out, em);

		if (rc < 0)
			return rc;
	}
	return 0;
}
