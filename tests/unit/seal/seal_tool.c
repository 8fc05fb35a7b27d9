/*
 * Signed objects for, and from, another implementation: check_vectors.py beside this file.
 *
 *   seal_tool make          a JSON file of signed objects, with fresh keys
 *   seal_tool check FILE    verify each case of such a file; exit 1 if one has another result
 */
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/text.h"
#include "seal/records.h"

#define DAY INT64_C(86400000)

static struct slice of(const struct buf *b)
{
	return (struct slice){ b->data, b->len };
}

static json_t *hex(const uint8_t *p, size_t n)
{
	char *text = mem_zero(2 * n + 1);
	json_t *j = json_string(text_hex(p, n, text));

	free(text);
	return j;
}

/* ---- check */

static int unhex(const json_t *c, const char *key, struct buf *out)
{
	const char *text = json_string_value(json_object_get(c, key));
	size_t n = text ? strlen(text) / 2 : 0;

	if (!text)
		return ERR_NOT_FOUND;
	if (buf_reserve(out, n) < 0 || text_unhex(text, strlen(text), out->data, n) < 0)
		return ERR_MALFORMED;
	out->len = n;
	return 0;
}

static bool same_text(const json_t *c, const char *key, const char *text)
{
	const char *want = json_string_value(json_object_get(c, key));

	return !want || strcmp(want, text) == 0;
}

static bool same_id(const json_t *c, const struct cose *cose)
{
	uint8_t id[DIGEST_BYTES];
	char text[2 * DIGEST_BYTES + 1];

	cose_id(cose, id);
	return same_text(c, "id", text_hex(id, sizeof(id), text));
}

static int verify_case(const json_t *c, struct cose *out, struct cert_info *who,
	struct buf *cose, struct errmsg *em)
{
	const char *kind = json_string_value(json_object_get(c, "kind"));
	AUTO(revocation) list = NULL;
	AUTOBUF root = BUF_INIT;
	AUTOBUF revoked = BUF_INIT;
	struct trust t = { .now_ms = json_integer_value(json_object_get(c, "now_ms")),
		.skew_ms = json_integer_value(json_object_get(c, "skew_ms")) };

	if (!kind || unhex(c, "root", &root) < 0 || unhex(c, "cose", cose) < 0)
		return err_set(em, ERR_USAGE, "the case itself is broken");
	t.root_der = of(&root);
	if (unhex(c, "revocation", &revoked) == 0) {
		int rc = revocation_decode(of(&revoked), t.root_der, &list, em);

		if (rc < 0)
			return rc;
		t.revocation = list;
	}
	if (strcmp(kind, "record") == 0) /* of a batch: its place in the tree counts too */
		return record_verify(&t, of(cose), NULL, who, em);
	return cose_verify(&t, kind, of(cose), out, who, em);
}

static bool check_case(const json_t *c)
{
	const char *name = json_string_value(json_object_get(c, "name"));
	AUTOBUF bytes = BUF_INIT;
	struct errmsg em = { "" };
	struct cert_info who;
	struct cose cose = { .n_chain = 0 };
	int rc = verify_case(c, &cose, &who, &bytes, &em);
	bool good = same_text(c, "result", err_word(rc));

	if (good && rc == 0)
		good = same_text(c, "who", who.name) && same_id(c, &cose);
	printf("%s %s: %s %s\n", good ? "good" : "BAD ", name ? name : "?", err_word(rc),
		em.text);
	return good;
}

static int check(const char *path)
{
	json_error_t e;
	json_t *file = json_load_file(path, 0, &e), *c;
	json_t *cases = json_object_get(file, "cases");
	size_t i, bad = 0;

	if (json_array_size(cases) == 0) {
		fprintf(stderr, "%s: no cases: %s\n", path, e.text);
		json_decref(file);
		return 1;
	}
	json_array_foreach(cases, i, c) bad += !check_case(c);
	printf("%zu cases, %zu bad\n", json_array_size(cases), bad);
	json_decref(file);
	return bad ? 1 : 0;
}

/* ---- make */

struct maker {
	struct key *root, *registrar;
	struct buf root_der, registrar_der, revocation;
	int64_t now_ms;
	json_t *cases;
};

static void issue(struct maker *m, const struct key *by, struct slice by_der,
	enum cert_kind kind, const char *name, unsigned roles, const struct key *k,
	struct buf *out)
{
	uint8_t public_key[32];

	key_public(k, public_key);
	must(cert_issue(by, by_der, kind, name, roles, public_key, m->now_ms - DAY,
		     m->now_ms + 365 * DAY, out, NULL) == 0);
}

static void add_case(struct maker *m, const char *name, const char *kind, struct signer *s,
	const char *payload, bool listed)
{
	AUTOBUF cose = BUF_INIT;
	struct cose parts;
	uint8_t id[DIGEST_BYTES];
	struct slice bytes = { (const uint8_t *)payload, strlen(payload) };

	must(cert_info(of(&s->chain[0]), &s->info, NULL) == 0);
	must(cose_sign(s, kind, bytes, &cose, NULL) == 0);
	must(cose_decode(of(&cose), &parts, NULL) == 0);
	cose_id(&parts, id);
	json_t *c = json_pack("{s:s, s:s, s:I, s:i, s:o, s:o, s:s, s:s, s:o}", "name", name,
		"kind", kind, "now_ms", (json_int_t)m->now_ms, "skew_ms", 300000, "root",
		hex(m->root_der.data, m->root_der.len), "cose", hex(cose.data, cose.len),
		"result", listed ? "revoked" : "ok", "who", s->info.name, "id",
		hex(id, sizeof(id)));

	must(c != NULL);
	if (m->revocation.len)
		json_object_set_new(
			c, "revocation", hex(m->revocation.data, m->revocation.len));
	json_array_append_new(m->cases, c);
}

/* Hops under one signature; what they say does not matter here. */
static void add_batch(struct maker *m, struct signer *s, size_t n)
{
	static const char *const hops[] = { "first", "second", "third", "fourth", "fifth" };
	struct slice payloads[ARRAY_LEN(hops)];
	struct buf out[ARRAY_LEN(hops)] = { BUF_INIT };

	for (size_t i = 0; i < n; i++)
		payloads[i] = (struct slice){ (const uint8_t *)hops[i], strlen(hops[i]) };
	must(records_sign(s, payloads, n, out, NULL) == 0);
	for (size_t i = 0; i < n; i++) {
		json_t *c = json_pack("{s:s+, s:s, s:I, s:i, s:o, s:o, s:s, s:s, s:s}", "name",
			hops[i], " of a batch", "kind", "record", "now_ms",
			(json_int_t)m->now_ms, "skew_ms", 300000, "root",
			hex(m->root_der.data, m->root_der.len), "cose",
			hex(out[i].data, out[i].len), "result", "ok", "who", s->info.name,
			"hop", hops[i]);

		must(c != NULL);
		json_array_append_new(m->cases, c);
		buf_fini(&out[i]);
	}
}

static void make_cases(struct maker *m)
{
	struct signer *alice = mem_new(struct signer), *host = mem_new(struct signer);

	alice->key = key_new();
	host->key = key_new();
	alice->n_chain = 1;
	host->n_chain = 2;
	issue(m, m->root, of(&m->root_der), CERT_PRINCIPAL, "alice", ROLE_OWNER | ROLE_AUTHOR,
		alice->key, &alice->chain[0]);
	issue(m, m->registrar, of(&m->registrar_der), CERT_KERNEL, "host1", 0, host->key,
		&host->chain[0]);
	must(buf_add(&host->chain[1], m->registrar_der.data, m->registrar_der.len) == 0);
	add_case(m, "a principal's ticket", "ticket", alice, "\xa0", false);
	add_case(m, "a principal's long manifest", "manifest", alice,
		"a payload of more than a few bytes, so that its length takes two bytes, "
		"and then some more of it, and then some more of it, and then some more of it, "
		"and then some more of it, and then some more of it, and then some more of it",
		false);
	add_case(m, "an enrolled kernel's hop", "hop", host, "\x83\x01\x02\x03", false);
	struct slice serial = { alice->info.serial, alice->info.serial_len };

	must(revocation_make(m->root, of(&m->root_der), 3, m->now_ms, &serial, 1,
		     &m->revocation, NULL) == 0);
	add_case(m, "a revoked principal's act", "act", alice, "\xa0", true);
	add_case(m, "a kernel's hop beside a revocation list", "hop", host, "\xa0", false);
	for (size_t n = 2; n <= 5; n++)
		add_batch(m, host, n);
	signer_free(alice);
	signer_free(host);
}

static int make(void)
{
	struct maker m = { .root = key_new(),
		.registrar = key_new(),
		.now_ms = clock_wall_ms(),
		.cases = json_array() };

	issue(&m, m.root, (struct slice){ NULL, 0 }, CERT_ROOT, "a domain", 0, m.root,
		&m.root_der);
	issue(&m, m.root, of(&m.root_der), CERT_REGISTRAR, "a registrar", 0, m.registrar,
		&m.registrar_der);
	make_cases(&m);
	json_t *file = json_pack("{s:s, s:o}", "comment",
		"Made by tests/unit/seal/seal_tool.c; check_vectors.py verifies it.", "cases",
		m.cases);

	json_dumpf(file, stdout, JSON_INDENT(1));
	putchar('\n');
	json_decref(file);
	key_free(m.root);
	key_free(m.registrar);
	buf_fini(&m.root_der);
	buf_fini(&m.registrar_der);
	buf_fini(&m.revocation);
	return 0;
}

int main(int argc, char **argv)
{
	if (argc == 2 && strcmp(argv[1], "make") == 0)
		return make();
	if (argc == 3 && strcmp(argv[1], "check") == 0)
		return check(argv[2]);
	fprintf(stderr, "usage: seal_tool make | check FILE\n");
	return 2;
}
