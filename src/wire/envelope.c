/*
 * Envelope and briefcase: what of a carrier travels. See carrier.h. Everything is held as
 * slices of the bytes that came, because most of it is passed on or stored as it is.
 */
#include "wire/carrier.h"

#include "wire/signed.h"

const char *const envelope_part_names[PART_COUNT] = { "briefcase", "channels", "code",
	"counters", "hops", "log", "path", "state", "ticket", "trail", "undelivered" };

#define COUNT_MAX     1000000 /* items of a list; the bytes bound them first */
#define LOG_TEXT_MAX  4096
#define PATH_TEXT_MAX 1024

/* ---- briefcase = {name: [element...]} */

static bool folder_name_ok(struct slice s)
{
	for (size_t i = 0; i < s.n; i++)
		if (s.p[i] < 0x20 || s.p[i] > 0x7e)
			return false;
	return true;
}

static void briefcase_read(struct cbor_cursor *c)
{
	uint64_t n = cbor_open_map_max(c, COUNT_MAX);

	for (uint64_t i = 0; !c->rc && i < n; i++) {
		if (!folder_name_ok(cbor_text(c, 0, FOLDER_NAME_MAX)))
			cbor_fail(c, ERR_MALFORMED);
		if (cbor_peek(c) != CBOR_ARRAY)
			cbor_fail(c, ERR_MALFORMED);
		cbor_any(c);
	}
	cbor_close(c);
}

int briefcase_check(struct slice bytes, struct errmsg *em)
{
	struct cbor_cursor c;
	int rc;

	cbor_init(&c, bytes.p, bytes.n);
	briefcase_read(&c);
	rc = cbor_finish(&c);
	return rc < 0 ? err_set(em, rc, "the briefcase does not follow the format") : 0;
}

bool briefcase_next(struct slice bytes, size_t *at, struct slice *name, struct slice *elements)
{
	struct cbor_cursor c;

	cbor_init(&c, bytes.p, bytes.n);
	if (*at == 0)
		cbor_open_map_max(&c, COUNT_MAX);
	else
		c.p += *at;
	c.depth = 0; /* the pairs one by one, as a sequence: they were checked */
	if (c.rc || c.p == c.end)
		return false;
	*name = cbor_text(&c, 0, FOLDER_NAME_MAX);
	*elements = cbor_any(&c);
	*at = (size_t)(c.p - bytes.p);
	return !c.rc;
}

/* ---- the other parts */

static void channels_read(struct cbor_cursor *c)
{
	if (cbor_peek(c) != CBOR_ARRAY)
		cbor_fail(c, ERR_MALFORMED);
	cbor_any(c);
}

static void code_read(struct cbor_cursor *c)
{
	cbor_bytes(c, DIGEST_BYTES, DIGEST_BYTES);
}

static void counters_read(struct cbor_cursor *c)
{
	uint64_t n = cbor_open_map_max(c, 256);

	for (uint64_t i = 0; !c->rc && i < n; i++) {
		if (!name_printable(cbor_text(c, 1, 64)))
			cbor_fail(c, ERR_MALFORMED);
		cbor_uint(c, INT64_MAX);
	}
	cbor_close(c);
}

static void hops_read(struct cbor_cursor *c)
{
	uint64_t n = cbor_open_array_max(c, COUNT_MAX);

	for (uint64_t i = 0; !c->rc && i < n; i++)
		cbor_bytes(c, 1, FRAME_BYTES_MAX);
	cbor_close(c);
}

/* [[time, kernel, text]...] */
static void log_read(struct cbor_cursor *c)
{
	uint64_t n = cbor_open_array_max(c, COUNT_MAX);

	for (uint64_t i = 0; !c->rc && i < n; i++) {
		cbor_open_array(c, 3);
		cbor_uint(c, INT64_MAX);
		if (!name_printable(cbor_text(c, 1, 64)))
			cbor_fail(c, ERR_MALFORMED);
		cbor_text(c, 0, LOG_TEXT_MAX);
		cbor_close(c);
	}
	cbor_close(c);
}

static void path_read(struct cbor_cursor *c)
{
	uint64_t n = cbor_open_array_max(c, PATH_ENTRIES_MAX);

	for (uint64_t i = 0; !c->rc && i < n; i++)
		if (!name_printable(cbor_text(c, 1, PATH_TEXT_MAX)))
			cbor_fail(c, ERR_MALFORMED);
	cbor_close(c);
}

/* Nothing yet, or one item that was checked before a tos-vm of ours sees it. */
static void state_read(struct cbor_cursor *c)
{
	struct slice state = cbor_bytes(c, 0, SIZE_MAX);

	if (state.n)
		cbor_fail(c, cbor_check(state.p, state.n, true));
}

static void ticket_read(struct cbor_cursor *c)
{
	cbor_bytes(c, 1, FRAME_BYTES_MAX);
}

static void trail_read(struct cbor_cursor *c)
{
	uint64_t n = cbor_open_array_max(c, COUNT_MAX);

	for (uint64_t i = 0; !c->rc && i < n; i++) {
		if (cbor_peek(c) != CBOR_MAP)
			cbor_fail(c, ERR_MALFORMED);
		cbor_any(c);
	}
	cbor_close(c);
}

/* [[inbox, sender, folder]...] */
static void undelivered_read(struct cbor_cursor *c)
{
	uint64_t n = cbor_open_array_max(c, COUNT_MAX);

	for (uint64_t i = 0; !c->rc && i < n; i++) {
		cbor_open_array(c, 3);
		for (int name = 0; name < 2; name++)
			if (!name_printable(cbor_text(c, 0, NAME_BYTES_MAX)))
				cbor_fail(c, ERR_MALFORMED);
		struct slice folder = cbor_any(c);

		if (!c->rc)
			cbor_fail(c, folder_check(folder, NULL, NULL));
		cbor_close(c);
	}
	cbor_close(c);
}

/* In the order of the keys on the wire. */
static const struct {
	enum envelope_part part;
	void (*read)(struct cbor_cursor *c);
} parts[PART_COUNT] = {
	{ PART_LOG, log_read },
	{ PART_CODE, code_read },
	{ PART_HOPS, hops_read },
	{ PART_PATH, path_read },
	{ PART_STATE, state_read },
	{ PART_TRAIL, trail_read },
	{ PART_TICKET, ticket_read },
	{ PART_CHANNELS, channels_read },
	{ PART_COUNTERS, counters_read },
	{ PART_BRIEFCASE, briefcase_read },
	{ PART_UNDELIVERED, undelivered_read },
};

int envelope_decode(struct slice bytes, struct envelope *out, struct errmsg *em)
{
	const char *at = "";
	struct envelope e = { 0 };
	struct cbor_cursor c;
	int rc;

	cbor_init(&c, bytes.p, bytes.n);
	if (cbor_open_map_max(&c, PART_COUNT) != PART_COUNT)
		cbor_fail(&c, ERR_MALFORMED);
	for (size_t i = 0; !c.rc && i < PART_COUNT; i++) {
		const uint8_t *start;

		at = envelope_part_names[parts[i].part];
		cbor_expect_text(&c, at);
		start = c.p;
		parts[i].read(&c);
		e.part[parts[i].part] = (struct slice){ start, (size_t)(c.p - start) };
	}
	cbor_close(&c);
	rc = cbor_finish(&c);
	if (rc < 0)
		return err_set(em, rc, "envelope: %s at \"%s\"", err_word(rc), at);
	*out = e;
	return 0;
}

void envelope_encode(struct buf *b, const struct envelope *e)
{
	cbor_put_map(b, PART_COUNT);
	for (size_t i = 0; i < PART_COUNT; i++) {
		cbor_put_text(b, envelope_part_names[parts[i].part]);
		cbor_put_raw(b, e->part[parts[i].part]);
	}
}
