/* Limits, manifest, bundle, ticket, hop, envelope, briefcase: src/wire/carrier.c and
 * envelope.c. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>
#include <string.h>

#include <tos/value.h>

#include "base/mem.h"
#include "samples.h"
#include "wire/carrier.h"
#include "wire/tree.h"

/* The sample as a tree, to be changed and encoded again. */
static struct tos_value *sample_tree(const char *kind)
{
	struct tos_value *v = NULL;
	AUTOBUF b = BUF_INIT;

	assert_true(sample_make(kind, &b));
	assert_int_equal(tos_decode(b.data, b.len, 0, &v), 0);
	return v;
}

/* What the decoder says of the tree; takes it. */
static int verdict(const char *kind, struct tos_value *v, bool *open)
{
	AUTOBUF in = BUF_INIT;
	AUTOBUF out = BUF_INIT;
	bool unused;

	value_put(&in, v);
	tos_value_free(v);
	return sample_again(
		kind, (struct slice){ in.data, in.len }, &out, open ? open : &unused);
}

/* The sample with one key set to this (NULL: taken out). */
static int with(const char *kind, const char *key, struct tos_value *value)
{
	struct tos_value *v = sample_tree(kind);

	if (value)
		assert_int_equal(tos_set(v, key, value), 0);
	else
		assert_true(tos_unset(v, key));
	return verdict(kind, v, NULL);
}

static void limits_are_read_in_their_units(void **state)
{
	enum limit_id id;
	struct errmsg em;
	int64_t v;

	(void)state;
	assert_int_equal(limit_parse("cpu=2", &id, &v, &em), 0);
	assert_int_equal(id, LIMIT_cpu);
	assert_int_equal(v, 2000);
	assert_int_equal(limit_parse("cpu=500ms", &id, &v, &em), 0);
	assert_int_equal(v, 500);
	assert_int_equal(limit_parse("memory=32M", &id, &v, &em), 0);
	assert_int_equal(id, LIMIT_memory);
	assert_int_equal(v, 32 << 20);
	assert_int_equal(limit_parse("hops=5", &id, &v, &em), 0);
	assert_int_equal(v, 5);
	assert_int_equal(limit_find("programs", 8), LIMIT_programs);
	assert_int_equal(limit_find("program", 7), ERR_NOT_FOUND);
}

static void wrong_limits_are_explained(void **state)
{
	enum limit_id id;
	struct errmsg em;
	int64_t v;

	(void)state;
	assert_int_equal(limit_parse("cpu", &id, &v, &em), ERR_USAGE);
	assert_string_equal(em.text, "limit \"cpu\": write it as NAME=VALUE");
	assert_int_equal(limit_parse("speed=1", &id, &v, &em), ERR_USAGE);
	assert_non_null(
		strstr(em.text, "there is no limit \"speed\"; there are cpu, memory, "));
	assert_int_equal(limit_parse("cpu=fast", &id, &v, &em), ERR_USAGE);
	assert_string_equal(em.text, "limit cpu: \"fast\" is no time, as 500ms or 2m");
	assert_int_equal(limit_parse("memory=-1", &id, &v, &em), ERR_USAGE);
	assert_int_equal(limit_parse("hops=x", &id, &v, &em), ERR_USAGE);
	assert_int_equal(limit_parse("hops=-1", &id, &v, &em), ERR_TOO_LARGE);
	assert_int_equal(limit_parse("hops=100001", &id, &v, &em), ERR_TOO_LARGE);
	assert_string_equal(em.text, "limit hops: \"100001\" is above the greatest, 100000");
	assert_int_equal(
		limit_parse("memory=99999999999999999999", &id, &v, &em), ERR_TOO_LARGE);
}

static void every_key_of_a_ticket_is_needed(void **state)
{
	struct tos_value *v = sample_tree("ticket");
	size_t n = tos_len(v);

	(void)state;
	assert_int_equal(n, 12);
	for (size_t i = 0; i < n; i++) {
		const char *key = tos_as_text(tos_key_at(v, i), "");

		assert_int_equal(with("ticket", key, NULL), ERR_MALFORMED);
		assert_int_equal(with("ticket", key, tos_nil()), ERR_MALFORMED);
	}
	tos_value_free(v);
}

static void protected_folders_have_one_shape(void **state)
{
	struct tos_value *many = tos_map(), *short_digest = tos_map(), *no_head = tos_map(),
			 *bad_name = tos_map(), *v = tos_array();

	(void)state;
	assert_int_equal(with("ticket-sealed", "sealed", tos_map()), ERR_MALFORMED);
	assert_int_equal(with("ticket-sealed", "append", tos_map()), ERR_MALFORMED);
	assert_int_equal(with("hop-grown", "grown", tos_map()), ERR_MALFORMED);
	assert_int_equal(with("ticket-sealed", "sealed", tos_text("CONFIG")), ERR_MALFORMED);
	tos_set(short_digest, "CONFIG", tos_bytes("x", 1));
	assert_int_equal(with("ticket-sealed", "sealed", short_digest), ERR_MALFORMED);
	tos_push(v, tos_int(1));
	tos_set(no_head, "LOG", v);
	assert_int_equal(with("hop-grown", "grown", no_head), ERR_MALFORMED);
	tos_set(bad_name, "a\nb", tos_bytes("01234567890123456789012345678901", 32));
	assert_int_equal(with("ticket-sealed", "sealed", bad_name), ERR_MALFORMED);
	for (int i = 0; i <= PROTECTED_FOLDERS_MAX; i++) {
		char name[16];

		snprintf(name, sizeof(name), "F%d", i);
		tos_set(many, name, tos_bytes("01234567890123456789012345678901", 32));
	}
	assert_true(with("ticket-sealed", "sealed", many) < 0);
}

static void unknown_keys_are_refused_unless_they_say_that_they_may_be(void **state)
{
	static const char *const kinds[] = { "ticket", "ticket-sealed", "manifest", "hop",
		"hop-clone" };
	bool open = false;

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(kinds); i++) {
		struct tos_value *v = sample_tree(kinds[i]);

		assert_int_equal(with(kinds[i], "y-new", tos_int(1)), ERR_MALFORMED);
		assert_int_equal(with(kinds[i], "zzzzzzzzzzzzzzz", tos_int(1)), ERR_MALFORMED);
		tos_set(v, "x-a", tos_array());
		tos_set(v, "x-new", tos_map());
		tos_set(v, "x-more-of-it", tos_int(1));
		assert_int_equal(verdict(kinds[i], v, &open), 0);
		assert_true(open);
	}
}

static void ticket_has_an_end_after_its_beginning(void **state)
{
	(void)state;
	assert_int_equal(with("ticket", "expires", tos_int(1700000000000)), ERR_MALFORMED);
	assert_int_equal(with("ticket", "expires", tos_int(1700000000001)), 0);
	assert_int_equal(with("ticket", "issued", tos_int(-1)), ERR_MALFORMED);
}

static void ticket_limits_are_all_there_and_within_the_table(void **state)
{
	struct tos_value *v = sample_tree("ticket");

	(void)state;
	tos_set(tos_get_mut(v, "limits"), "hops", tos_int(100001));
	assert_int_equal(verdict("ticket", v, NULL), ERR_TOO_LARGE);
	v = sample_tree("ticket");
	tos_unset(tos_get_mut(v, "limits"), "hops");
	assert_int_equal(verdict("ticket", v, NULL), ERR_MALFORMED);
	v = sample_tree("ticket");
	tos_set(tos_get_mut(v, "limits"), "speed", tos_int(1));
	assert_int_equal(verdict("ticket", v, NULL), ERR_MALFORMED);
	v = sample_tree("manifest");
	tos_unset(tos_get_mut(v, "limits"), "cpu"); /* a manifest need not state them */
	assert_int_equal(verdict("manifest", v, NULL), 0);
}

static int unreachable(const char *word)
{
	struct tos_value *v = sample_tree("ticket");

	tos_set(tos_get_mut(v, "options"), "on-unreachable", tos_text(word));
	return verdict("ticket", v, NULL);
}

static void ticket_knows_what_to_do_when_a_host_is_unreachable(void **state)
{
	(void)state;
	assert_int_equal(unreachable("skip"), 0);
	assert_int_equal(unreachable("alternate"), 0);
	assert_int_equal(unreachable("fail"), 0);
	assert_int_equal(unreachable("wait=0"), 0);
	assert_int_equal(unreachable(""), 0);
	assert_int_equal(unreachable("wait=030"), ERR_MALFORMED);
	assert_int_equal(unreachable("wait=-1"), ERR_MALFORMED);
	assert_int_equal(unreachable("wait=30s"), ERR_MALFORMED);
	assert_int_equal(unreachable("explode"), ERR_MALFORMED);
}

static void names_hold_no_blanks_or_control_characters(void **state)
{
	(void)state;
	assert_int_equal(with("ticket", "home", tos_text("a b")), ERR_MALFORMED);
	assert_int_equal(with("ticket", "name", tos_text("a\n")), ERR_MALFORMED);
	assert_int_equal(with("ticket", "name", tos_text("\xc3\xa9")), ERR_MALFORMED);
	assert_int_equal(with("hop", "dest", tos_text("")), ERR_MALFORMED);
	assert_int_equal(with("hop", "suffix", tos_text(".0")), ERR_MALFORMED);
	assert_int_equal(with("hop", "suffix", tos_text("1")), ERR_MALFORMED);
	assert_int_equal(with("hop", "suffix", tos_text(".10.2")), 0);
}

static void path_is_a_list_of_texts(void **state)
{
	struct tos_value *path = tos_array();

	(void)state;
	for (int i = 0; i <= PATH_ENTRIES_MAX; i++)
		tos_push(path, tos_text("a"));
	assert_int_equal(with("ticket", "path", path), ERR_TOO_LARGE);
	path = tos_array();
	tos_push(path, tos_int(1));
	assert_int_equal(with("ticket", "path", path), ERR_MALFORMED);
	assert_int_equal(with("ticket", "path", tos_array()), 0);
	assert_int_equal(with("ticket", "path", tos_text("a")), ERR_MALFORMED);
}

static int with_file(const char *name)
{
	struct tos_value *v = sample_tree("manifest");
	uint8_t digest[DIGEST_BYTES] = { 0 };

	tos_set(tos_get_mut(v, "files"), name, tos_bytes(digest, sizeof(digest)));
	return verdict("manifest", v, NULL);
}

static void files_stay_within_their_bundle(void **state)
{
	(void)state;
	assert_int_equal(with_file("a/b/c.lua"), 0);
	assert_int_equal(with_file(".hidden"), 0);
	assert_int_equal(with_file("..."), 0);
	assert_int_equal(with_file("/etc/passwd"), ERR_MALFORMED);
	assert_int_equal(with_file("../x"), ERR_MALFORMED);
	assert_int_equal(with_file("a/../x"), ERR_MALFORMED);
	assert_int_equal(with_file("a/.."), ERR_MALFORMED);
	assert_int_equal(with_file("a//b"), ERR_MALFORMED);
	assert_int_equal(with_file("a/"), ERR_MALFORMED);
	assert_int_equal(with_file("./a"), ERR_MALFORMED);
	assert_int_equal(with("manifest", "entry", tos_text("other.lua")), ERR_MALFORMED);
	assert_int_equal(with("manifest", "files", tos_map()), ERR_MALFORMED);
}

static int with_part(const char *name)
{
	struct tos_value *v = sample_tree("hop");
	uint8_t digest[DIGEST_BYTES] = { 0 };

	tos_set(tos_get_mut(v, "parts"), name, tos_bytes(digest, sizeof(digest)));
	return verdict("hop", v, NULL);
}

static void hop_record_names_known_parts(void **state)
{
	(void)state;
	assert_int_equal(with_part("folder/"), 0);
	assert_int_equal(with_part("folder/with blanks"), 0);
	assert_int_equal(with_part("undelivered"), 0);
	assert_int_equal(with_part("ticket"), ERR_MALFORMED);
	assert_int_equal(with_part("folder"), ERR_MALFORMED);
	assert_int_equal(with("hop", "kind", tos_int(3)), ERR_TOO_LARGE);
	assert_int_equal(with("hop", "n", tos_int(-1)), ERR_MALFORMED);
}

static int with_split(const char *name, int64_t value)
{
	struct tos_value *v = sample_tree("hop-clone");

	tos_set(tos_get_mut(v, "split"), name, tos_int(value));
	return verdict("hop-clone", v, NULL);
}

static void a_clones_record_says_what_it_may_use(void **state)
{
	struct tos_value *v = sample_tree("hop-clone");

	(void)state;
	assert_int_equal(with_split("clones", 0), 0);
	assert_int_equal(with_split("hops", -1), ERR_MALFORMED);
	assert_int_equal(with_split("clones", limit_greatest[LIMIT_clones] + 1), ERR_TOO_LARGE);
	assert_int_equal(with_split("memory", 1), ERR_MALFORMED);
	assert_int_equal(with("hop-clone", "suffix", tos_text("")), ERR_MALFORMED);
	assert_int_equal(with("hop-clone", "suffix", tos_text(".0")), ERR_MALFORMED);
	assert_int_equal(with("hop", "kind", tos_int(2)), ERR_MALFORMED);
	assert_int_equal(with("hop-clone", "kind", tos_int(0)), ERR_MALFORMED);
	tos_unset(tos_get_mut(v, "split"), "sent");
	assert_int_equal(verdict("hop-clone", v, NULL), ERR_MALFORMED);
}

static void incarnations_are_ordered_by_count_then_nonce(void **state)
{
	struct incarnation a = { 1, { 0, 9 } }, b = { 1, { 1 } }, c = { 2, { 0 } };

	(void)state;
	assert_true(incarnation_compare(&a, &b) < 0);
	assert_true(incarnation_compare(&b, &c) < 0);
	assert_true(incarnation_compare(&c, &a) > 0);
	assert_int_equal(incarnation_compare(&a, &a), 0);
}

static void briefcase_is_walked_in_its_order(void **state)
{
	struct slice name, elements;
	AUTOBUF b = BUF_INIT;
	AUTOBUF folder = BUF_INIT;
	size_t at = 0;

	(void)state;
	sample_make("briefcase", &b);
	struct slice bytes = { b.data, b.len };

	assert_int_equal(briefcase_check(bytes, NULL), 0);
	assert_true(briefcase_next(bytes, &at, &name, &elements));
	assert_int_equal(name.n, 0);
	assert_true(briefcase_next(bytes, &at, &name, &elements));
	assert_memory_equal(name.p, "RESULTS", 7);
	folder_put(&folder, name, elements);
	assert_int_equal(
		folder_check((struct slice){ folder.data, folder.len }, NULL, NULL), 0);
	assert_false(briefcase_next(bytes, &at, &name, &elements));
	at = 0;
	assert_false(briefcase_next(
		(struct slice){ (const uint8_t *)"\xa0", 1 }, &at, &name, &elements));
	assert_int_equal(with("briefcase", "\n", tos_array()), ERR_MALFORMED);
	assert_int_equal(with("briefcase", "x", tos_int(1)), ERR_MALFORMED);
}

static void envelope_wants_every_part_in_shape(void **state)
{
	struct errmsg em = { "" };
	struct envelope e;
	AUTOBUF b = BUF_INIT;

	(void)state;
	for (size_t i = 0; i < PART_COUNT; i++) {
		assert_int_equal(with("envelope", envelope_part_names[i], NULL), ERR_MALFORMED);
		assert_int_equal(
			with("envelope", envelope_part_names[i], tos_nil()), ERR_MALFORMED);
	}
	assert_int_equal(with("envelope", "state", tos_bytes(NULL, 0)), 0);
	assert_int_equal(with("envelope", "state", tos_bytes("\xff", 1)), ERR_MALFORMED);
	assert_int_equal(with("envelope", "state", tos_bytes("\x01\x01", 2)), ERR_MALFORMED);
	struct tos_value *trail = tos_array();

	tos_push(trail, tos_int(1));
	assert_int_equal(with("envelope", "trail", trail), ERR_MALFORMED);
	sample_make("envelope", &b);
	b.data[b.len - 1] = 0xff;
	assert_int_equal(
		envelope_decode((struct slice){ b.data, b.len }, &e, &em), ERR_MALFORMED);
	assert_string_equal(em.text, "envelope: malformed at \"undelivered\"");
}

static void failures_say_where(void **state)
{
	struct tos_value *v = sample_tree("ticket");
	AUTOBUF b = BUF_INIT;
	struct errmsg em;
	struct ticket t;

	(void)state;
	tos_set(v, "nonce", tos_bytes("short", 5));
	value_put(&b, v);
	tos_value_free(v);
	assert_int_equal(
		ticket_decode((struct slice){ b.data, b.len }, &t, &em), ERR_MALFORMED);
	assert_string_equal(em.text, "ticket: malformed at \"nonce\"");
}

static void decoders_survive_each_failed_allocation(void **state)
{
	static const char *const kinds[] = { "ticket", "hop", "manifest" };

	(void)state;
	for (size_t k = 0; k < ARRAY_LEN(kinds); k++) {
		AUTOBUF in = BUF_INIT;
		unsigned nth;

		sample_make(kinds[k], &in);
		for (nth = 1; fault_alloc(nth); nth++) {
			struct slice s = { in.data, in.len };
			struct ticket t;
			struct hop h;
			struct manifest m;
			int rc = 0;

			if (k == 0 && (rc = ticket_decode(s, &t, NULL)) == 0)
				ticket_fini(&t);
			else if (k == 1 && (rc = hop_decode(s, &h, NULL)) == 0)
				hop_fini(&h);
			else if (k == 2 && (rc = manifest_decode(s, &m, NULL)) == 0)
				manifest_fini(&m);
			else
				assert_int_equal(rc, ERR_NOMEM);
		}
		assert_true(nth > 1);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(limits_are_read_in_their_units),
		cmocka_unit_test(wrong_limits_are_explained),
		cmocka_unit_test(every_key_of_a_ticket_is_needed),
		cmocka_unit_test(protected_folders_have_one_shape),
		cmocka_unit_test(unknown_keys_are_refused_unless_they_say_that_they_may_be),
		cmocka_unit_test(ticket_has_an_end_after_its_beginning),
		cmocka_unit_test(ticket_limits_are_all_there_and_within_the_table),
		cmocka_unit_test(ticket_knows_what_to_do_when_a_host_is_unreachable),
		cmocka_unit_test(names_hold_no_blanks_or_control_characters),
		cmocka_unit_test(path_is_a_list_of_texts),
		cmocka_unit_test(files_stay_within_their_bundle),
		cmocka_unit_test(hop_record_names_known_parts),
		cmocka_unit_test(a_clones_record_says_what_it_may_use),
		cmocka_unit_test(incarnations_are_ordered_by_count_then_nonce),
		cmocka_unit_test(briefcase_is_walked_in_its_order),
		cmocka_unit_test(envelope_wants_every_part_in_shape),
		cmocka_unit_test(failures_say_where),
		cmocka_unit_test(decoders_survive_each_failed_allocation),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
