/* What happens in this room when memory runs out: an error, nothing lost, nothing believed. */
#include "domain.h"

#include <stdio.h>
#include <unistd.h>

static struct domain d;
static struct signer *alice;
static struct buf signed_act, list;

static int setup(void **state)
{
	struct slice serial = { (const uint8_t *)"\x01\x02", 2 };

	(void)state;
	domain_init(&d);
	alice = signer_new(&d, CERT_PRINCIPAL, "alice", ROLE_OWNER, -DAY, DAY);
	return cose_sign(alice, "act", slice_text("kill"), &signed_act, NULL) < 0 ||
			       revocation_make(d.root_key, slice_buf(&d.root), 1, d.now_ms,
				       &serial, 1, &list, NULL) < 0
		       ? -1
		       : 0;
}

static int teardown(void **state)
{
	(void)state;
	signer_free(alice);
	buf_fini(&signed_act);
	buf_fini(&list);
	domain_fini(&d);
	return 0;
}

typedef int try_fn(void);

/* Fails each allocation in turn; returns how many there were. */
static unsigned walk(try_fn *fn)
{
	unsigned nth = 1;

	for (; fault_alloc(nth); nth++) {
		int rc = fn();

		if (rc == 0) /* none was left to fail */
			break;
		assert_true(rc == ERR_NOMEM || rc == ERR_TOO_LARGE);
	}
	fault_alloc(UINT32_MAX);
	fault_alloc(UINT32_MAX);
	assert_int_equal(fn(), 0);
	return nth - 1;
}

static int try_sign(void)
{
	AUTOBUF out = BUF_INIT;

	return cose_sign(alice, "act", slice_text("kill"), &out, NULL);
}

static int try_verify(void)
{
	struct cert_info who;
	struct cose c;

	return cose_verify(&d.trust, "act", slice_buf(&signed_act), &c, &who, NULL);
}

static int try_issue(void)
{
	AUTOBUF out = BUF_INIT;
	uint8_t public_key[32];

	key_public(alice->key, public_key);
	return cert_issue(d.root_key, slice_buf(&d.root), CERT_KERNEL, "host0", 0, public_key,
		d.now_ms, d.now_ms + DAY, &out, NULL);
}

static int try_list(void)
{
	AUTO(revocation) r = NULL;

	return revocation_decode(slice_buf(&list), slice_buf(&d.root), &r, NULL);
}

static int try_make_list(void)
{
	AUTOBUF out = BUF_INIT;
	struct slice serial = { (const uint8_t *)"\x01\x02", 2 };

	return revocation_make(
		d.root_key, slice_buf(&d.root), 1, d.now_ms, &serial, 1, &out, NULL);
}

static int try_token(void)
{
	struct token t = { .n_addresses = 1, .name = "host1", .addresses = { "a:1" } }, back;
	AUTOBUF text = BUF_INIT;
	int rc = token_text(&t, &text);

	if (rc < 0)
		return rc;
	rc = token_parse(buf_cstr(&text), &back, NULL);
	return rc == ERR_MALFORMED ? ERR_NOMEM : rc; /* it can't tell a lack from a fault */
}

static void lack_of_memory_is_an_error(void **state)
{
	(void)state;
	assert_true(walk(try_sign) > 0);
	assert_true(walk(try_verify) > 0);
	assert_true(walk(try_issue) > 0);
	assert_true(walk(try_list) > 0);
	assert_true(walk(try_make_list) > 0);
	assert_true(walk(try_token) > 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(lack_of_memory_is_an_error),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
