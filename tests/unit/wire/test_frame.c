/* Frames: src/wire/frame.c. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>
#include <string.h>

#include <tos/value.h>

#include "base/mem.h"
#include "samples.h"
#include "wire/frame.h"

static void splitter_gives_whole_frames_however_they_arrive(void **state)
{
	struct frame_reader r = { BUF_INIT, 0, 0 };
	AUTOBUF stream = BUF_INIT;
	struct slice frame;
	unsigned n = 0;
	const int types[] = { FRAME_PING, FRAME_CREDIT, FRAME_POST, FRAME_BYE };

	(void)state;
	sample_make("ping", &stream);
	sample_make("credit", &stream);
	sample_make("post", &stream);
	sample_make("bye", &stream);
	for (size_t i = 0; i < stream.len; i++) { /* byte by byte */
		struct cbor_cursor c;

		buf_add(&r.in, stream.data + i, 1);
		if (frame_next(&r, &frame) == ERR_AGAIN)
			continue;
		assert_true(n < ARRAY_LEN(types));
		assert_int_equal(frame_open(&c, frame), types[n++]);
	}
	assert_int_equal(n, ARRAY_LEN(types));
	buf_add(&r.in, stream.data, stream.len); /* all at once */
	for (n = 0; frame_next(&r, &frame) == 0; n++)
		assert_true(frame.n > 0);
	assert_int_equal(n, ARRAY_LEN(types));
	buf_fini(&r.in);
}

static void splitter_refuses_lengths_before_the_bytes_come(void **state)
{
	struct frame_reader r = { BUF_INIT, 0, 0 };
	struct slice frame;

	(void)state;
	buf_add(&r.in, "\x00\x10\x00\x00",
		4); /* with its length it would be 1 MiB and four bytes */
	assert_int_equal(frame_next(&r, &frame), ERR_TOO_LARGE);
	buf_clear(&r.in);
	buf_add(&r.in, "\x00\x0f\xff\xfc", 4);
	assert_int_equal(frame_next(&r, &frame), ERR_AGAIN);
	buf_clear(&r.in);
	buf_add(&r.in, "\xff\xff\xff\xff", 4);
	assert_int_equal(frame_next(&r, &frame), ERR_TOO_LARGE);
	buf_clear(&r.in);
	buf_add(&r.in, "\x00\x00\x00\x00", 4);
	assert_int_equal(frame_next(&r, &frame), ERR_MALFORMED);
	buf_clear(&r.in);
	r.max = 16;
	buf_add(&r.in, "\x00\x00\x00\x0d", 4);
	assert_int_equal(frame_next(&r, &frame), ERR_TOO_LARGE);
	buf_fini(&r.in);
}

static void frames_too_large_for_a_link_are_not_made(void **state)
{
	AUTOBUF folder = BUF_INIT;
	AUTOBUF out = BUF_INIT;
	AUTOFREE uint8_t *big = mem_zero(FRAME_BYTES_MAX);
	struct tos_value *v = tos_bytes(big, FRAME_BYTES_MAX - 8);
	const struct tos_value *elements[1] = { v };
	struct post p = { POST_ONEWAY, { (const uint8_t *)"Echo", 4 }, { NULL, 0 }, 0, 0,
		{ NULL, 0 }, { NULL, 0 } };

	(void)state;
	folder_encode(&folder, "x", elements, 1);
	p.folder = (struct slice){ folder.data, folder.len };
	post_encode(&out, &p);
	assert_true(out.failed);
	assert_int_equal(out.len, 0);
	tos_value_free(v);
}

static int again_hex(const char *kind, const uint8_t *p, size_t n)
{
	AUTOBUF out = BUF_INIT;
	bool open;

	return sample_again(kind, (struct slice){ p, n }, &out, &open);
}

static void post_carries_what_it_was_given(void **state)
{
	struct frame_reader r = { BUF_INIT, 0, 0 };
	struct slice frame, name;
	struct cbor_cursor c;
	struct post p;
	uint64_t n;

	(void)state;
	sample_make("post", &r.in);
	assert_int_equal(frame_next(&r, &frame), 0);
	assert_int_equal(frame_open(&c, frame), FRAME_POST);
	assert_int_equal(post_decode(&c, &p), 0);
	assert_int_equal(p.kind, POST_CALL);
	assert_memory_equal(p.dest.p, "host1/Echo", 10);
	assert_memory_equal(p.sender.p, "host0#42", 8);
	assert_int_equal(p.tag, 7);
	assert_int_equal(p.deadline_ms, 2000);
	assert_int_equal(p.trace.n, TRACE_BYTES);
	assert_int_equal(folder_check(p.folder, &name, &n), 0);
	assert_memory_equal(name.p, "greeting", 8);
	assert_int_equal(n, 3);
	buf_fini(&r.in);
}

static void post_with_a_wrong_field_is_refused(void **state)
{
	static const struct {
		const char *bytes;
		size_t n;
		int rc;
	} bad[] = {
#define POST(s, rc) { s, sizeof(s) - 1, rc }
		POST("\0\0\0\x0d\x88\x01\x00\x61\x61\x60\x00\x00\x40\x82\x60\x80\x00",
			ERR_MALFORMED), /* behind */
		POST("\0\0\0\x0c\x88\x01\x04\x61\x61\x60\x00\x00\x40\x82\x60\x80",
			ERR_TOO_LARGE), /* kind */
		POST("\0\0\0\x0b\x88\x01\x00\x60\x60\x00\x00\x40\x82\x60\x80",
			ERR_MALFORMED), /* no dest */
		POST("\0\0\0\x0d\x88\x01\x00\x61\x61\x60\x00\x00\x41\x00\x82\x60\x80",
			ERR_MALFORMED), /* trace */
		POST("\0\0\0\x0b\x88\x01\x00\x61\x61\x60\x00\x00\x40\x81\x60",
			ERR_MALFORMED), /* folder */
		POST("\0\0\0\x0c\x88\x01\x00\x61\x61\x60\x00\x00\x40\x82\x60\xa0",
			ERR_MALFORMED),
		POST("\0\0\0\x0c\x88\x01\x20\x61\x61\x60\x00\x00\x40\x82\x60\x80",
			ERR_MALFORMED), /* kind -1 */
		POST("\0\0\0\x0d\x89\x01\x00\x61\x61\x60\x00\x00\x40\x82\x60\x80\x00",
			ERR_MALFORMED),
#undef POST
	};
	static const uint8_t good[] = { 0, 0, 0, 12, 0x88, 1, 0, 0x61, 'a', 0x60, 0, 0, 0x40,
		0x82, 0x60, 0x80 };

	(void)state;
	assert_int_equal(again_hex("post", good, sizeof(good)), 0);
	for (size_t i = 0; i < ARRAY_LEN(bad); i++)
		if (again_hex("post", (const uint8_t *)bad[i].bytes, bad[i].n) != bad[i].rc)
			fail_msg("row %zu: not what was expected", i);
}

static void hello_ignores_what_a_later_version_adds(void **state)
{
	static const uint8_t later[] = { 0x82, 0, 0xa4, 0x18, 0x63, 0xf6, 0x64, 'n', 'a', 'm',
		'e', 0x61, 'x', 0x64, 'z', 'z', 'z', 'z', 0x81, 0xa0, 0x67, 'v', 'e', 'r', 's',
		'i', 'o', 'n', 0x82, 1, 2 };
	struct cbor_cursor c;
	struct hello h;

	(void)state;
	assert_int_equal(frame_open(&c, (struct slice){ later, sizeof(later) }), FRAME_HELLO);
	assert_int_equal(hello_decode(&c, &h), 0);
	assert_string_equal(h.name, "x");
	assert_int_equal(h.version_max, 2);
}

static void hello_needs_a_version_range(void **state)
{
	static const uint8_t none[] = { 0x82, 0, 0xa0 };
	static const uint8_t crossed[] = { 0x82, 0, 0xa1, 0x67, 'v', 'e', 'r', 's', 'i', 'o',
		'n', 0x82, 2, 1 };
	struct cbor_cursor c;
	struct hello h;

	(void)state;
	frame_open(&c, (struct slice){ none, sizeof(none) });
	assert_int_equal(hello_decode(&c, &h), ERR_MALFORMED);
	frame_open(&c, (struct slice){ crossed, sizeof(crossed) });
	assert_int_equal(hello_decode(&c, &h), ERR_MALFORMED);
}

static void chunk_claim(uint64_t offset, uint64_t total, size_t n, bool good)
{
	static const uint8_t digest[DIGEST_BYTES], data[CHUNK_BYTES_MAX + 1];
	struct chunk k = { { digest, sizeof(digest) }, offset, total, { data, n } };
	AUTOBUF b = BUF_INIT;

	chunk_encode(&b, &k);
	assert_int_equal(again_hex("chunk", b.data, b.len) == 0, good);
}

static void chunks_lie_within_their_blob(void **state)
{
	(void)state;
	chunk_claim(0, 0, 0, true);
	chunk_claim(0, 1, 1, true);
	chunk_claim(0, 1, 0, false);
	chunk_claim(1, 1, 0, false);
	chunk_claim(0, 1, 2, false);
	chunk_claim(5, 4, 0, false);
	chunk_claim(0, CHUNK_BYTES_MAX + 1, CHUNK_BYTES_MAX, true);
	chunk_claim(0, CHUNK_BYTES_MAX + 1, CHUNK_BYTES_MAX + 1, false);
	chunk_claim(0, (uint64_t)BLOB_BYTES_MAX + 1, 1, false);
}

static void bye_knows_every_word_and_reads_others_as_unknown(void **state)
{
	static const uint8_t other[] = { 0x83, 9, 0x63, 'n', 'e', 'w', 0x60 };
	struct cbor_cursor c;
	struct slice text;
	int rc;

	(void)state;
	for (int code = 0; code >= ERR_AGAIN; code--) {
		AUTOBUF b = BUF_INIT;

		bye_encode(&b, code, NULL);
		frame_open(&c, (struct slice){ b.data + 4, b.len - 4 });
		assert_int_equal(bye_decode(&c, &rc, &text), 0);
		assert_int_equal(rc, code);
	}
	frame_open(&c, (struct slice){ other, sizeof(other) });
	assert_int_equal(bye_decode(&c, &rc, &text), 0);
	assert_int_equal(rc, ERR_UNKNOWN);
}

static void bye_cuts_its_text_between_characters(void **state)
{
	char text[600];
	AUTOBUF b = BUF_INIT;
	struct cbor_cursor c;
	struct slice s;
	int rc;

	(void)state;
	memset(text, 'a', sizeof(text));
	text[511] = '\xc3';
	text[512] = '\xa9';
	text[599] = 0;
	bye_encode(&b, ERR_DENIED, text);
	frame_open(&c, (struct slice){ b.data + 4, b.len - 4 });
	assert_int_equal(bye_decode(&c, &rc, &s), 0);
	assert_int_equal(s.n, 511);
}

static void folders_decode_within_memory_or_not_at_all(void **state)
{
	AUTOBUF b = BUF_INIT;
	unsigned nth;

	(void)state;
	sample_make("folder", &b);
	for (nth = 1; fault_alloc(nth); nth++) {
		char name[NAME_BYTES_MAX + 1];
		struct tos_value *v = NULL;
		int rc = folder_decode((struct slice){ b.data, b.len }, name, &v);

		if (rc == 0) {
			assert_string_equal(name, "greeting");
			assert_int_equal(tos_len(v), 3);
			tos_value_free(v);
		} else {
			assert_int_equal(rc, ERR_NOMEM);
		}
	}
	assert_true(nth > 10);
}

static void every_sample_survives_the_round_and_no_cut_of_it(void **state)
{
	(void)state;
	for (size_t k = 0; sample_kinds[k]; k++) {
		AUTOBUF in = BUF_INIT;
		AUTOBUF out = BUF_INIT;
		bool open;

		assert_true(sample_make(sample_kinds[k], &in));
		assert_int_equal(sample_again(sample_kinds[k],
					 (struct slice){ in.data, in.len }, &out, &open),
			0);
		assert_int_equal(out.len, in.len);
		assert_memory_equal(out.data, in.data, in.len);
		for (size_t n = 0; n < in.len; n++) {
			AUTOFREE uint8_t *cut = mem_dup(in.data, n);

			if (again_hex(sample_kinds[k], cut, n) == 0)
				fail_msg("%s was accepted when cut at %zu", sample_kinds[k], n);
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(splitter_gives_whole_frames_however_they_arrive),
		cmocka_unit_test(splitter_refuses_lengths_before_the_bytes_come),
		cmocka_unit_test(frames_too_large_for_a_link_are_not_made),
		cmocka_unit_test(post_carries_what_it_was_given),
		cmocka_unit_test(post_with_a_wrong_field_is_refused),
		cmocka_unit_test(hello_ignores_what_a_later_version_adds),
		cmocka_unit_test(hello_needs_a_version_range),
		cmocka_unit_test(chunks_lie_within_their_blob),
		cmocka_unit_test(bye_knows_every_word_and_reads_others_as_unknown),
		cmocka_unit_test(bye_cuts_its_text_between_characters),
		cmocka_unit_test(folders_decode_within_memory_or_not_at_all),
		cmocka_unit_test(every_sample_survives_the_round_and_no_cut_of_it),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
