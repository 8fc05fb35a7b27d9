/* Claims about the firewall. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "core/firewall.h"
#include "seal/seal.h"

static const struct subject alices_carrier = { "carrier", "alice", ROLE_OWNER, "host1", "",
	NULL, NULL };
static const struct subject alice = { "client", "alice", ROLE_OWNER, "", "", NULL, NULL };
static const struct subject root = { "client", "root", ROLE_ADMIN, "", "", NULL, NULL };
static const struct subject kernel1 = { "kernel", "", 0, "host1", "", NULL, NULL };

static struct firewall *with(const char *const *rules, size_t n)
{
	struct firewall *f = firewall_new();

	for (size_t i = 0; i < n; i++)
		assert_int_equal(firewall_add(f, rules[i], NULL), 0);
	return f;
}
#define WITH(...)                                                                              \
	with((const char *const[]){ __VA_ARGS__ },                                             \
		sizeof((const char *const[]){ __VA_ARGS__ }) / sizeof(char *))

static int ask(struct firewall *f, const struct subject *s, const char *action,
	const char *name, const char *owner)
{
	struct object o = { name, owner };
	const char *why = NULL;
	int rc = firewall_check(f, s, action, &o, &why);

	assert_non_null(why);
	/* The second time from the cache, with the same reason. */
	const char *again = NULL;
	assert_int_equal(firewall_check(f, s, action, &o, &again), rc);
	assert_ptr_equal(why, again);
	return rc;
}

static void nothing_is_allowed_without_a_rule(void **state)
{
	struct firewall *f = firewall_new();
	struct object o = { "Echo", "" };
	const char *why = NULL;

	(void)state;
	assert_int_equal(firewall_check(f, &root, "post", &o, &why), ERR_DENIED);
	assert_string_equal(why, "no rule allows it");
	firewall_free(f);
}

static void the_more_specific_rule_wins_whatever_the_order(void **state)
{
	static const struct {
		const char *weaker, *stronger;
	} pairs[] = {
		{ "* post Echo", "class:carrier * *" },
		{ "class:carrier post Echo", "role:owner * *" },
		{ "role:owner post Echo", "carrier-of:alice * *" },
		{ "role:owner post Echo", "kernel:host1 * *" },
		{ "class:carrier * Echo", "class:carrier post *" },
		{ "class:carrier post *", "class:carrier post own" },
		{ "class:carrier post own", "class:carrier post Echo" },
		{ "class:carrier post own", "class:carrier post owner:alice" },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(pairs); i++) {
		for (int turn = 0; turn < 4; turn++) {
			bool allow = turn & 1;
			char rule[2][100];

			snprintf(rule[0], 100, "%s %s", allow ? "deny" : "allow",
				pairs[i].weaker);
			snprintf(rule[1], 100, "%s %s", allow ? "allow" : "deny",
				pairs[i].stronger);
			struct firewall *f =
				turn & 2 ? WITH(rule[0], rule[1]) : WITH(rule[1], rule[0]);

			assert_int_equal(ask(f, &alices_carrier, "post", "Echo", "alice"),
				allow ? 0 : ERR_DENIED);
			firewall_free(f);
		}
	}
}

static void at_a_tie_deny_wins(void **state)
{
	struct firewall *f =
		WITH("allow class:client post Echo", "deny class:client post Echo");

	(void)state;
	assert_int_equal(ask(f, &alice, "post", "Echo", ""), ERR_DENIED);
	firewall_free(f);
	f = WITH("deny principal:alice post *", "allow principal:alice post *");
	assert_int_equal(ask(f, &alice, "post", "Echo", ""), ERR_DENIED);
	firewall_free(f);
}

static void a_principal_in_person_is_not_its_carriers(void **state)
{
	struct firewall *f =
		WITH("allow principal:alice kill *", "allow carrier-of:alice post Echo");

	(void)state;
	assert_int_equal(ask(f, &alice, "kill", "x", ""), 0);
	assert_int_equal(ask(f, &alices_carrier, "kill", "x", ""), ERR_DENIED);
	assert_int_equal(ask(f, &alices_carrier, "post", "Echo", ""), 0);
	assert_int_equal(ask(f, &alice, "post", "Echo", ""), ERR_DENIED);
	firewall_free(f);
}

static void own_means_the_same_owner_and_nobody_owns_what_has_none(void **state)
{
	struct firewall *f = WITH("allow * kill own");

	(void)state;
	assert_int_equal(ask(f, &alice, "kill", "host0#1", "alice"), 0);
	assert_int_equal(ask(f, &alice, "kill", "host0#1", "bob"), ERR_DENIED);
	assert_int_equal(ask(f, &kernel1, "kill", "host0#1", ""), ERR_DENIED);
	firewall_free(f);
}

static void a_role_is_needed_not_a_name(void **state)
{
	struct firewall *f = WITH("allow role:admin * *");

	(void)state;
	assert_int_equal(ask(f, &root, "revoke", "x", ""), 0);
	assert_int_equal(ask(f, &alice, "revoke", "x", ""), ERR_DENIED);
	firewall_free(f);
}

static void a_kernel_can_be_shut_out_with_all_that_comes_from_it(void **state)
{
	struct firewall *f = WITH(
		"allow role:owner arrive *", "allow class:kernel * *", "deny kernel:host1 * *");

	(void)state;
	assert_int_equal(ask(f, &alices_carrier, "arrive", "host0", "alice"), ERR_DENIED);
	assert_int_equal(ask(f, &kernel1, "post", "Home", ""), ERR_DENIED);
	assert_int_equal(ask(f, &alice, "arrive", "host0", "alice"), 0);
	firewall_free(f);
}

static void a_new_rule_counts_at_once(void **state)
{
	struct firewall *f = WITH("allow class:client post *");

	(void)state;
	assert_int_equal(ask(f, &alice, "post", "Echo", ""), 0);
	assert_int_equal(firewall_add(f, "deny principal:alice * *", NULL), 0);
	assert_int_equal(ask(f, &alice, "post", "Echo", ""), ERR_DENIED);
	assert_int_equal(firewall_count(f), 2);
	assert_string_equal(firewall_rule(f, 1), "deny principal:alice * *");
	assert_null(firewall_rule(f, 2));
	firewall_free(f);
}

static void a_bad_rule_is_refused_and_the_word_named(void **state)
{
	static const char *const bad[][2] = { { "", "four words" },
		{ "allow * *", "four words" }, { "allow * * * *", "four words" },
		{ "permit * * *", "'permit'" }, { "allow alice * *", "'alice'" },
		{ "allow role:king * *", "'role:king'" },
		{ "allow class:human * *", "'class:human'" },
		{ "allow principal: * *", "'principal:'" },
		{ "allow principal:* * *", "'principal:*'" }, { "allow * sing *", "'sing'" },
		{ "allow * post owner:", "'owner:'" }, { "allow * post own:x", "'own:x'" } };
	struct firewall *f = firewall_new();
	char endless[700];

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		struct errmsg em = { "" };

		assert_int_equal(firewall_add(f, bad[i][0], &em), ERR_SYNTAX);
		if (!strstr(em.text, bad[i][1]))
			fail_msg("'%s': %s", bad[i][0], em.text);
	}
	memset(endless, 'a', sizeof(endless));
	memcpy(endless, "allow * post ", 13);
	endless[sizeof(endless) - 1] = 0;
	assert_int_equal(firewall_add(f, endless, NULL), ERR_SYNTAX);
	endless[300] = 0;
	assert_int_equal(firewall_add(f, endless, NULL), ERR_SYNTAX);
	assert_int_equal(firewall_count(f), 0);
	firewall_free(f);
}

static void names_made_up_by_a_peer_do_not_fill_the_cache(void **state)
{
	struct firewall *f = WITH("allow class:kernel post Echo");
	char name[400];

	(void)state;
	for (int i = 0; i < 20000; i++) {
		snprintf(name, sizeof(name), "n%d", i);
		assert_int_equal(ask(f, &kernel1, "post", name, ""), ERR_DENIED);
	}
	memset(name, 'x', sizeof(name) - 1);
	name[sizeof(name) - 1] = 0;
	struct object o = { name, name }; /* too long to remember, decided all the same */
	assert_int_equal(firewall_check(f, &kernel1, "post", &o, NULL), ERR_DENIED);
	assert_int_equal(ask(f, &kernel1, "post", "Echo", ""), 0);
	firewall_free(f);
}

static void rules_for_an_author_narrow_and_never_grant(void **state)
{
	struct firewall *f = WITH("allow carrier-of:alice post *", "deny author:mallory * *",
		"allow author:mallory post Echo", "allow author:mallory post Shells",
		"allow author:zoe * *");
	struct subject s = { "carrier", "alice", ROLE_OWNER, "", "mallory", NULL, NULL };

	(void)state;
	assert_int_equal(ask(f, &s, "post", "Echo", ""), 0);
	assert_int_equal(ask(f, &s, "post", "Monitor", ""), ERR_DENIED);
	s.author = "alice";
	assert_int_equal(ask(f, &s, "post", "Monitor", ""), 0);
	/* what the author's may, the owner's must be allowed as well */
	s = (struct subject){ "carrier", "bob", ROLE_OWNER, "", "mallory", NULL, NULL };
	assert_int_equal(ask(f, &s, "post", "Echo", ""), ERR_DENIED);
	s.author = "zoe";
	assert_int_equal(ask(f, &s, "post", "Echo", ""), ERR_DENIED);
	/* only code is meant, not the author in person */
	s = (struct subject){ "client", "alice", ROLE_OWNER, "", "mallory", NULL, NULL };
	assert_int_equal(ask(f, &s, "post", "Echo", ""), ERR_DENIED);
	firewall_free(f);
}

static void the_first_rule_that_matches_is_the_one_that_decides(void **state)
{
	static const char *const rules[] = { "allow role:owner * *", "deny * post Echo",
		"allow principal:alice post *", "allow carrier-of:alice post Echo",
		"deny role:owner kill *", "allow role:owner kill own", "deny class:carrier * *",
		"allow class:carrier post *", "deny author:mallory * *",
		"allow author:mallory post Echo" };
	static const char *const classes[] = { "carrier", "client" };
	static const char *const principals[] = { "alice", "bob" };
	static const char *const action[] = { "post", "kill", "launch" };
	static const char *const object[] = { "Echo", "other" };
	struct firewall *f = with(rules, ARRAY_LEN(rules));
	size_t at[ARRAY_LEN(rules)], some[2], n;
	const char *why;

	(void)state;
	for (unsigned i = 0; i < 2 * 2 * 3 * 2 * 2 * 2 * 2; i++) {
		struct subject s = { classes[i & 1], principals[i >> 1 & 1],
			i >> 2 & 1 ? ROLE_OWNER : 0, "", i >> 5 & 1 ? "mallory" : "", NULL,
			NULL };
		struct object o = { object[i >> 3 & 1], i >> 4 & 1 ? "alice" : "" };
		int rc = firewall_check(f, &s, action[i % 3], &o, &why);

		n = firewall_matches(f, &s, action[i % 3], &o, at, ARRAY_LEN(at));
		assert_int_equal(rc == 0, n && firewall_rule_allows(f, at[0]));
		if (n)
			assert_string_equal(why, firewall_rule(f, at[0]));
		assert_int_equal(
			firewall_matches(f, &s, action[i % 3], &o, some, ARRAY_LEN(some)), n);
		for (size_t k = 0; k < n && k < ARRAY_LEN(some); k++)
			assert_int_equal(some[k], at[k]);
	}
	firewall_free(f);
}

static void restrictions(struct rights *r, const char *of, const char *text)
{
	struct errmsg em = { "" };

	assert_int_equal(rights_parse(text, of, r, &em), 0);
}

static void certificates_narrow_what_hosts_allow(void **state)
{
	struct firewall *f = WITH("allow carrier-of:alice * *",
		"allow carrier-of:alice run /usr/*", "deny carrier-of:alice read Control");
	struct subject s = { "carrier", "alice", ROLE_OWNER, "", "zoe", NULL, NULL };
	struct rights a, z;
	const char *why = NULL;
	struct object o = { "Content", "" };

	(void)state;
	restrictions(&a, "alice", "allow post,read *\nallow run /usr/bin/*\ndeny read Journal");
	restrictions(&z, "zoe", "allow * *\ndeny run /usr/bin/sh\ndeny post Echo");
	s.owner_only = &a;
	assert_int_equal(ask(f, &s, "read", "Content", ""), 0);
	assert_int_equal(ask(f, &s, "put", "Content", ""), ERR_DENIED);
	assert_int_equal(ask(f, &s, "read", "Journal", ""), ERR_DENIED);
	/* the certificate grants nothing that the host denies */
	assert_int_equal(ask(f, &s, "read", "Control", ""), ERR_DENIED);
	assert_int_equal(ask(f, &s, "run", "/usr/bin/ls", ""), 0);
	assert_int_equal(ask(f, &s, "run", "/usr/sbin/ls", ""), ERR_DENIED);
	assert_int_equal(ask(f, &s, "run", "/usr/bin/sh", ""), 0);
	assert_int_equal(ask(f, &s, "post", "Echo", ""), 0);
	/* and the author's, too */
	s.author_only = &z;
	assert_int_equal(ask(f, &s, "run", "/usr/bin/sh", ""), ERR_DENIED);
	assert_int_equal(ask(f, &s, "run", "/usr/bin/ls", ""), 0);
	assert_int_equal(ask(f, &s, "post", "Echo", ""), ERR_DENIED);
	s.owner_only = NULL;
	assert_int_equal(ask(f, &s, "put", "Content", ""), 0);
	s.owner_only = &a;
	assert_int_equal(firewall_check(f, &s, "put", &o, &why), ERR_DENIED);
	assert_string_equal(why, "no restriction in the certificate of alice allows it");
	o.name = "Journal";
	assert_int_equal(firewall_check(f, &s, "read", &o, &why), ERR_DENIED);
	assert_string_equal(why, "certificate of alice: deny read Journal");
	/* its own, in person */
	restrictions(&a, "alice", "allow kill own");
	s = alice;
	s.owner_only = &a;
	firewall_add(f, "allow principal:alice * *", NULL);
	assert_int_equal(ask(f, &s, "kill", "host0#1", "alice"), 0);
	assert_int_equal(ask(f, &s, "kill", "host0#2", "bob"), ERR_DENIED);
	firewall_free(f);
}

static void a_restriction_that_is_not_understood_allows_nothing(void **state)
{
	static const char *const bad[] = { "allow teleport *", "permit * *", "allow *",
		"allow * * *", "allow post, *", "allow ,post *", "allow post,,read *",
		"allow post a:b", " ", "", "allow post *\n\nallow read *",
		"allow * *\nallow Post *", "allow *,post *" };
	char many[RIGHTS_BYTES];
	struct errmsg em;
	struct rights r;
	const char *why;

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		int rc = rights_parse(bad[i], "alice", &r, &em);

		/* no text is no restriction; whoever has none does not come here */
		assert_int_equal(rc, bad[i][0] ? ERR_SYNTAX : 0);
		assert_int_equal(
			rights_check(&r, "post", "alice", "Echo", "", &why), ERR_DENIED);
		assert_non_null(strstr(why, "certificate of alice"));
	}
	many[0] = 0;
	for (int i = 0; i <= RIGHTS_MAX; i++)
		strcat(many, "allow post a\n");
	assert_int_equal(rights_parse(many, "alice", &r, &em), ERR_SYNTAX);
	assert_int_equal(rights_check(&r, "post", "alice", "a", "", NULL), ERR_DENIED);
	memset(many, 'a', sizeof(many) - 1);
	many[sizeof(many) - 1] = 0;
	assert_int_equal(rights_parse(many, "alice", &r, &em), ERR_SYNTAX);
	assert_int_equal(rights_check(NULL, "post", "alice", "a", "", NULL), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(rules_for_an_author_narrow_and_never_grant),
		cmocka_unit_test(the_first_rule_that_matches_is_the_one_that_decides),
		cmocka_unit_test(certificates_narrow_what_hosts_allow),
		cmocka_unit_test(a_restriction_that_is_not_understood_allows_nothing),
		cmocka_unit_test(nothing_is_allowed_without_a_rule),
		cmocka_unit_test(the_more_specific_rule_wins_whatever_the_order),
		cmocka_unit_test(at_a_tie_deny_wins),
		cmocka_unit_test(a_principal_in_person_is_not_its_carriers),
		cmocka_unit_test(own_means_the_same_owner_and_nobody_owns_what_has_none),
		cmocka_unit_test(a_role_is_needed_not_a_name),
		cmocka_unit_test(a_kernel_can_be_shut_out_with_all_that_comes_from_it),
		cmocka_unit_test(a_new_rule_counts_at_once),
		cmocka_unit_test(a_bad_rule_is_refused_and_the_word_named),
		cmocka_unit_test(names_made_up_by_a_peer_do_not_fill_the_cache),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
