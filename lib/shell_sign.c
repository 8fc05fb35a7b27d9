/* The author's signature under a shell's code: its manifest, and the bundle. */
#include "lib/shell.h"

#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "lib/internal.h"
#include "seal/seal.h"

#define YEAR_MS ((int64_t)365 * 86400000)

static int manifest_make(struct tos_shell *s, const struct signer *author, struct buf *out)
{
	struct manifest m;

	memset(&m, 0, sizeof(m));
	snprintf(m.name, sizeof(m.name), "%s", s->name);
	snprintf(m.version, sizeof(m.version), "1");
	snprintf(m.runtime, sizeof(m.runtime), "lua5.4");
	snprintf(m.entry, sizeof(m.entry), "%s", s->entry);
	m.n_files = s->modules.n + 1;
	m.files = mem_zero(m.n_files * sizeof(*m.files));
	for (size_t i = 0; i < m.n_files; i++) {
		const struct buf *text = i ? &s->modules.v[i - 1].text : &s->source;

		snprintf(m.files[i].name, sizeof(m.files[i].name), "%s",
			i ? s->modules.v[i - 1].file : s->entry);
		digest_bytes(text->data, text->len, m.files[i].digest);
	}
	for (size_t i = 0; i < LIMIT_COUNT; i++)
		m.limits[i] = -1; /* the author asks for nothing special; the ticket states them
				     all */
	m.issued_ms = clock_wall_ms();
	m.expires_ms = m.issued_ms + YEAR_MS;
	if (m.expires_ms > author->info.not_after_ms)
		m.expires_ms = author->info.not_after_ms;
	manifest_encode(out, &m);
	manifest_fini(&m);
	return buf_check(out);
}

/* The files under this manifest. */
int shell_put_bundle(const struct tos_shell *s, struct slice cose, struct buf *out)
{
	struct slice names[MODULES_MAX + 1], contents[MODULES_MAX + 1];

	for (size_t i = 0; i <= s->modules.n; i++) {
		const char *name = i ? s->modules.v[i - 1].file : s->entry;
		const struct buf *text = i ? &s->modules.v[i - 1].text : &s->source;

		names[i] = (struct slice){ (const uint8_t *)name, strlen(name) };
		contents[i] = (struct slice){ text->data, text->len };
	}
	bundle_encode(out, cose, names, contents, s->modules.n + 1);
	return buf_check(out);
}

int tos_shell_sign(
	struct tos_shell *s, const struct tos_principal *author, struct tos_error *err)
{
	const struct signer *a = principal_signer(author);
	struct errmsg *em = em_of(err);
	AUTOBUF manifest = BUF_INIT;
	AUTOBUF cose = BUF_INIT;
	int rc;

	if (!s->source.len)
		return err_set(em, ERR_STATE,
			s->bundle.len ? "it is signed already" : "it has no code");
	if (!(a->info.roles & ROLE_AUTHOR))
		return err_set(em, ERR_DENIED,
			"%s may not sign code: its certificate lacks the role author",
			a->info.name);
	rc = signer_expired(a, em);
	rc = rc ? rc : manifest_make(s, a, &manifest);
	if (rc == 0)
		rc = cose_sign(a, "manifest", (struct slice){ manifest.data, manifest.len },
			&cose, em);
	if (rc < 0)
		return err_wrap(em, rc, "signing the code");
	buf_clear(&s->bundle);
	return shell_put_bundle(s, (struct slice){ cose.data, cose.len }, &s->bundle);
}
