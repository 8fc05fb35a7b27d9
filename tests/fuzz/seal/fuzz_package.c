/*
 * Packages of extensions: package_open() on the input as it is, and on packages that an officer signed whose description, or
 * whose manifest, is the input, since what is behind a signature should be bounded too. The first byte says which.
 */
#include "base/mem.h"
#include "seal/package.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define BEGIN 1000000000000
#define NOW   1500000000000
#define END   4000000000000

static struct signer root, officer;

static void domain_make(void)
{
	uint8_t public_key[32];
	struct slice above;

	if (root.key)
		return;
	root.key = key_new();
	officer.key = key_new();
	root.n_chain = officer.n_chain = 1;
	key_public(root.key, public_key);
	must(cert_issue(root.key, (struct slice){ NULL, 0 }, CERT_ROOT, "root", 0, public_key,
		     BEGIN, END, &root.chain[0], NULL) == 0);
	above = (struct slice){ root.chain[0].data, root.chain[0].len };
	key_public(officer.key, public_key);
	must(cert_issue(root.key, above, CERT_PRINCIPAL, "olga", ROLE_OFFICER, public_key,
		     BEGIN, END, &officer.chain[0], NULL) == 0);
	must(cert_info((struct slice){ officer.chain[0].data, officer.chain[0].len },
		     &officer.info, NULL) == 0);
}

static void try_open(struct slice bytes)
{
	struct trust t = { { root.chain[0].data, root.chain[0].len }, NULL, NOW, 300000 };
	struct package p;
	struct slice file;

	if (package_open(&t, bytes, &p, NULL) < 0)
		return;
	must(p.officer.roles & ROLE_OFFICER);
	must(memchr(p.inboxes, 0, sizeof(p.inboxes)) && p.inboxes[0]);
	must(memchr(p.privileges, 0, sizeof(p.privileges)));
	if (package_file(&p, "x86_64", &file, NULL) == 0)
		must(file.p >= bytes.p && file.p + file.n <= bytes.p + bytes.n);
	package_file(&p, "any", &file, NULL);
	package_close(&p);
}

static void signed_with(struct slice manifest, struct slice description)
{
	static const struct slice names[2] = { { (const uint8_t *)PACKAGE_ENTRY, 9 },
		{ (const uint8_t *)"probe.so", 8 } };
	struct slice contents[2] = { description, { (const uint8_t *)"library", 7 } };
	AUTOBUF cose = BUF_INIT;
	AUTOBUF bundle = BUF_INIT;

	must(cose_sign(&officer, PACKAGE_KIND, manifest, &cose, NULL) == 0);
	bundle_encode(&bundle, (struct slice){ cose.data, cose.len }, names, contents, 2);
	try_open((struct slice){ bundle.data, bundle.len });
}

static void with_description(struct slice description)
{
	struct manifest m;
	AUTOBUF payload = BUF_INIT;

	memset(&m, 0, sizeof(m));
	strcpy(m.name, "probe");
	strcpy(m.version, "1");
	strcpy(m.runtime, "extension");
	strcpy(m.entry, PACKAGE_ENTRY);
	m.files = mem_zero(2 * sizeof(*m.files));
	m.n_files = 2;
	strcpy(m.files[0].name, PACKAGE_ENTRY);
	strcpy(m.files[1].name, "probe.so");
	digest_bytes(description.p, description.n, m.files[0].digest);
	digest_bytes("library", 7, m.files[1].digest);
	for (size_t i = 0; i < LIMIT_COUNT; i++)
		m.limits[i] = -1;
	m.issued_ms = BEGIN;
	m.expires_ms = END;
	manifest_encode(&payload, &m);
	manifest_fini(&m);
	must(buf_check(&payload) == 0);
	signed_with((struct slice){ payload.data, payload.len }, description);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct slice rest = { data + 1, size ? size - 1 : 0 };

	domain_make();
	if (!size || size > 65536)
		return 0;
	if (data[0] == 'd')
		with_description(rest);
	else if (data[0] == 'm')
		signed_with(rest, (struct slice){ (const uint8_t *)"", 0 });
	else
		try_open((struct slice){ data, size });
	return 0;
}
