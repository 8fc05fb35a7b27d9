/* Digests of folders, see folders.h. */
#include "seal/folders.h"

#include <string.h>
#include <tos/value.h>

#include "wire/cbor.h"

void folder_digest(struct slice name, struct slice elements, uint8_t out[DIGEST_BYTES])
{
	AUTOBUF folder = BUF_MAX((size_t)256 << 20);

	cbor_put_array(&folder, 2);
	cbor_put_text_n(&folder, (const char *)name.p, name.n);
	cbor_put_raw(&folder, elements);
	must(buf_check(&folder) == 0);
	digest_bytes(folder.data, folder.len, out);
}

static void growth_begin(struct slice name, struct growth *g)
{
	g->count = 0;
	digest_bytes(name.p, name.n, g->head);
}

static void growth_step(struct growth *g, struct slice element)
{
	uint8_t both[2 * DIGEST_BYTES];

	memcpy(both, g->head, DIGEST_BYTES);
	digest_bytes(element.p, element.n, both + DIGEST_BYTES);
	digest_bytes(both, sizeof(both), g->head);
	g->count++;
}

static uint64_t elements_open(struct cbor_cursor *c, struct slice elements)
{
	cbor_init(c, elements.p, elements.n);
	return elements.n ? cbor_open_array_max(c, elements.n) : 0;
}

void folder_growth(struct slice name, struct slice elements, struct growth *out)
{
	struct cbor_cursor c;
	uint64_t n = elements_open(&c, elements);

	growth_begin(name, out);
	for (uint64_t i = 0; i < n && !c.rc; i++)
		growth_step(out, cbor_any(&c));
}

void folder_holds(struct slice name, struct slice elements, const struct growth *claims,
	size_t n_claims, bool *holds)
{
	struct cbor_cursor c;
	struct growth g;
	uint64_t n = elements_open(&c, elements);
	size_t at = 0;

	for (size_t i = 0; i < n_claims; i++)
		holds[i] = false;
	growth_begin(name, &g);
	for (;;) {
		for (; at < n_claims && claims[at].count <= g.count; at++)
			holds[at] = claims[at].count == g.count &&
				    memcmp(claims[at].head, g.head, DIGEST_BYTES) == 0;
		if (g.count == n || c.rc)
			break;
		growth_step(&g, cbor_any(&c));
	}
}

struct tos_value *growth_value(const struct growth *g)
{
	struct tos_value *v = tos_array();

	tos_push(v, tos_int((int64_t)g->count));
	tos_push(v, tos_bytes(g->head, sizeof(g->head)));
	return v;
}

bool growth_read(const struct tos_value *v, struct growth *out)
{
	size_t n;
	const uint8_t *p = tos_as_bytes(tos_at(v, 1), &n);
	int64_t count = tos_as_int(tos_at(v, 0), -1);

	if (!p || n != DIGEST_BYTES || count < 0)
		return false;
	out->count = (uint64_t)count;
	memcpy(out->head, p, n);
	return true;
}
