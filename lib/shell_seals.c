/* The folders that a shell's ticket protects: sealed as they are at the launch, or only growing. */
#include "lib/shell.h"

#include <stdlib.h>
#include <string.h>

#include "base/text.h"
#include "seal/folders.h"

static bool named_in(const struct tos_value *names, const char *name)
{
	for (size_t i = 0; i < tos_len(names); i++)
		if (strcmp(tos_as_text(tos_at(names, i), ""), name) == 0)
			return true;
	return false;
}

/* A folder is sealed as it is at the launch, so it must be there by then; one that may only grow
 * need not. */
int shell_protect(
	struct tos_shell *s, struct tos_value *names, const char *name, struct errmsg *em)
{
	static const char *const reserved[] = { "PATH", "HOST", "CODE", "X-CODE" };

	if (!name || strlen(name) > FOLDER_NAME_MAX)
		return err_set(em, ERR_NAME, "which folder? its name has at most %d bytes",
			FOLDER_NAME_MAX);
	for (const char *p = name; *p; p++)
		if (*p < 0x20 || *p > 0x7e)
			return err_set(em, ERR_NAME, "a folder's name is printable ASCII");
	for (size_t i = 0; i < ARRAY_LEN(reserved); i++)
		if (strcmp(name, reserved[i]) == 0)
			return err_set(em, ERR_NAME,
				"folder %s is a view on the path or the code, which have signatures of their own",
				name);
	if (named_in(names, name))
		return 0;
	if (named_in(s->sealed, name) || named_in(s->append, name))
		return err_set(em, ERR_USAGE,
			"folder %s can be sealed or append-only, not both", name);
	if (tos_len(names) >= PROTECTED_FOLDERS_MAX)
		return err_set(em, ERR_LIMIT, "at most %d folders can be protected in that way",
			PROTECTED_FOLDERS_MAX);
	return tos_push(names, tos_text(name));
}

/* Encoded elements of a folder of the briefcase, malloc'ed; an empty array where it is not. */
static int folder_encode_elements(
	const struct tos_shell *s, const char *folder, uint8_t **p, size_t *n)
{
	const struct tos_value *elements = tos_get(s->briefcase, folder);
	struct tos_value *none = elements ? NULL : tos_array();
	int rc = tos_encode(elements ? elements : none, p, n);

	tos_value_free(none);
	return rc;
}

/* {folder: digest} of what is sealed; NULL for none. */
int shell_sealed(const struct tos_shell *s, struct tos_value **out, struct errmsg *em)
{
	struct tos_value *m = tos_len(s->sealed) ? tos_map() : NULL;
	int rc = 0;

	for (size_t i = 0; rc == 0 && i < tos_len(s->sealed); i++) {
		const char *name = tos_as_text(tos_at(s->sealed, i), "");
		uint8_t digest[DIGEST_BYTES], *p = NULL;
		size_t n = 0;

		if (!tos_get(s->briefcase, name))
			rc = err_set(em, ERR_NOT_FOUND,
				"there is no folder %s to seal; --data or --briefcase brings one",
				name);
		rc = rc ? rc : folder_encode_elements(s, name, &p, &n);
		if (rc == 0) {
			folder_digest((struct slice){ (const uint8_t *)name, strlen(name) },
				(struct slice){ p, n }, digest);
			rc = tos_set(m, name, tos_bytes(digest, sizeof(digest)));
		}
		free(p);
	}
	if (rc < 0)
		tos_value_free(m);
	else
		*out = m;
	return rc;
}

/* {folder: [count, head]} of what may only grow; NULL for none. */
int shell_appended(const struct tos_shell *s, struct tos_value **out)
{
	struct tos_value *m = tos_len(s->append) ? tos_map() : NULL;
	int rc = 0;

	for (size_t i = 0; rc == 0 && i < tos_len(s->append); i++) {
		const char *name = tos_as_text(tos_at(s->append, i), "");
		struct growth g;
		uint8_t *p = NULL;
		size_t n = 0;

		rc = folder_encode_elements(s, name, &p, &n);
		if (rc == 0) {
			folder_growth((struct slice){ (const uint8_t *)name, strlen(name) },
				(struct slice){ p, n }, &g);
			rc = tos_set(m, name, growth_value(&g));
		}
		free(p);
	}
	if (rc < 0)
		tos_value_free(m);
	else
		*out = m;
	return rc;
}

int shell_start_seals(const struct tos_shell *s, struct tos_value *v)
{
	struct tos_value *m = tos_map();
	int rc = 0;

	for (size_t i = 0; rc == 0 && i < tos_len(s->sealed); i++)
		rc = tos_set(m, tos_as_text(tos_at(s->sealed, i), ""), tos_text("sealed"));
	for (size_t i = 0; rc == 0 && i < tos_len(s->append); i++)
		rc = tos_set(m, tos_as_text(tos_at(s->append, i), ""), tos_text("append"));
	rc = rc ? rc : tos_set(v, "seals", STEAL(m));
	tos_value_free(m);
	return rc;
}

/* For people: digests in hexadecimal. */
int shell_describe_seals(const struct tos_shell *s, struct tos_value *v)
{
	struct tos_value *sealed = NULL, *shown = tos_map();
	int rc = shell_sealed(s, &sealed, NULL);

	for (size_t i = 0; rc == 0 && i < tos_len(sealed); i++) {
		char hex[2 * DIGEST_BYTES + 1];
		size_t n;
		const uint8_t *p = tos_as_bytes(tos_value_at(sealed, i), &n);

		rc = tos_set_value(shown, tos_value_copy(tos_key_at(sealed, i)),
			tos_text(text_hex(p, n, hex)));
	}
	tos_value_free(sealed);
	rc = rc ? rc : tos_set(v, "sealed", STEAL(shown));
	tos_value_free(shown);
	return rc ? rc : tos_set(v, "append_only", tos_value_copy(s->append));
}
