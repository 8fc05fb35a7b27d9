/* Claims about the configuration. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/mem.h"
#include "core/firewall.h"
#include "kernel/config.h"
#include "seal/seal.h"

static struct config *read_text(const char *text)
{
	struct config *c = mem_new(struct config);
	struct errmsg em = { "" };

	if (config_parse(text, strlen(text), "dir/tosd.conf", c, &em) < 0)
		fail_msg("%s", em.text);
	return c;
}

static void drop(struct config *c)
{
	config_fini(c);
	free(c);
}

static void assert_refused(const char *text, const char *says)
{
	struct config *c = mem_new(struct config);
	struct errmsg em = { "" };
	int rc = config_parse(text, strlen(text), "tosd.conf", c, &em);

	if (rc != ERR_CONFIG || !strstr(em.text, says) || strchr(em.text, '\n'))
		fail_msg("%d '%s', not '%s' for: %s", rc, em.text, says, text);
	assert_null(c->rules);
	free(c);
}

static void a_name_alone_is_a_configuration_with_every_default(void **state)
{
	struct config *c = read_text("name = \"host0\"\n");
	size_t n;

	(void)state;
	(void)config_default_rules(&n);
	assert_string_equal(c->name, "host0");
	assert_string_equal(c->state_dir, "dir");
	assert_string_equal(c->listen[0], "0.0.0.0:21212");
	assert_non_null(strstr(c->advertise, ":21212"));
	assert_null(strstr(c->advertise, "0.0.0.0"));
	assert_string_equal(c->registrar, "");
	assert_string_equal(c->log_level, "info");
	assert_true(c->n_rules == n && n > 10);
	assert_int_equal(c->n_extensions, 8);
	assert_string_equal(c->extensions[0].name, "Echo");
	assert_false(c->extensions[0].isolated);
	assert_string_equal(c->extensions[5].name, "Monitor");
	assert_true(c->extensions[5].isolated);
	assert_string_equal(c->extensions[5].privileges, "read-proc read-fs");
	assert_true(c->limits[LIMIT_cpu] == limit_greatest[LIMIT_cpu]);
	assert_true(c->carriers == 1000 && c->carriers_per_principal == 500);
	assert_true(c->disk_per_principal == 1 << 30);
	assert_true(c->journal_rows == 100000 && c->journal_bytes == 64 << 20);
	assert_true(c->vm_address_bytes == 1 << 30 && c->link_bytes == 8 << 20);
	assert_true(c->skew_ms == 300000 && c->inbox_bound == 1024 && c->silent_ms == 15000);
	drop(c);
}

static const char *const everything =
	"# all that can be said\n"
	"name = \"host0\"\n"
	"listen = {\"127.0.0.1:21212\", \"[::1]:21212\"}\n"
	"advertise = \"\"\n"
	"registrar = 'host1'\n"
	"uid_base = 300000\n"
	"log { level = notice json = true }\n"
	"sandbox { require = {\"seccomp\", \"landlock\"} vm_address = \"512M\" test_no_userns "
	"= yes }\n"
	"limits { cpu = \"60s\" memory = \"64M\" hops = 9 carriers = 10 carriers_per_principal "
	"= 5 disk_per_principal = \"20M\" sent_rate = \"1M\" cpu_share = 20 "
	"journal_rows = 7 journal_bytes = \"9K\" }\n"
	"policy { defaults = false rules = {\"allow role:admin * *\", \"deny principal:mallory * *\"} }\n"
	"local { principals = {1000, \"1001\"} }\n"
	"clock { skew = \"90s\" }\n"
	"queue { inbox = 16 link_bytes = \"2M\" stream = 7 stream_bytes = \"8K\" streams_bytes = \"1M\" }\n"
	"timing { handshake = \"250ms\" retry = \"1500ms\" restart = \"400ms\" }\n"
	"peer \"host1\" { address = {\"127.0.0.1:21213\", \"example.org:21212\"} }\n"
	"peer \"host2\" { }\n"
	"extension \"Disk\" { library = \"/opt/a \\\"b\\\" \\\\c/disk.so\" where = "
	"\"isolated\" privileges = \"read-fs\"\n"
	"  property = {\"/interval=5s\", \"/text=a=b\"} }\n";

static void every_key_arrives_where_it_belongs(void **state)
{
	struct config *c = read_text(everything);

	(void)state;
	assert_int_equal(c->n_listen, 2);
	assert_string_equal(c->listen[1], "[::1]:21212");
	assert_string_equal(c->advertise, "");
	assert_string_equal(c->registrar, "host1");
	assert_true(c->uid_base == 300000);
	assert_string_equal(c->log_level, "notice");
	assert_true(c->log_json && c->test_no_userns);
	assert_int_equal(c->n_require, 2);
	assert_string_equal(c->require[1], "landlock");
	assert_true(c->vm_address_bytes == 512 << 20);
	assert_true(c->limits[LIMIT_cpu] == 60000 && c->limits[LIMIT_memory] == 64 << 20);
	assert_true(c->limits[LIMIT_hops] == 9);
	assert_true(c->carriers == 10 && c->carriers_per_principal == 5);
	assert_true(c->disk_per_principal == 20 << 20);
	assert_true(c->journal_rows == 7 && c->journal_bytes == 9 << 10);
	assert_true(c->sent_rate == 1 << 20 && c->sent_rate_per_principal == 0);
	assert_true(c->cpu_share == 20 && c->cpu_share_per_principal == 0);
	assert_int_equal(c->n_rules, 2);
	assert_string_equal(c->rules[1], "deny principal:mallory * *");
	assert_true(c->n_local_uids == 2 && c->local_uids[1] == 1001);
	assert_true(c->skew_ms == 90000 && c->inbox_bound == 16 && c->link_bytes == 2 << 20);
	assert_true(c->stream_posts == 7 && c->stream_bytes == 8 << 10 &&
		    c->streams_bytes == 1 << 20);
	assert_true(c->handshake_ms == 250 && c->retry_ms == 1500 && c->restart_ms == 400 &&
		    c->ping_ms == 5000);
	assert_int_equal(c->n_peers, 2);
	assert_string_equal(c->peers[0].address[1], "example.org:21212");
	assert_true(c->peers[1].n_address == 0);
	assert_int_equal(c->n_extensions, 1);
	assert_string_equal(c->extensions[0].library, "/opt/a \"b\" \\c/disk.so");
	assert_true(c->extensions[0].isolated && c->extensions[0].n_property == 2);
	assert_string_equal(c->extensions[0].property[1][0], "/text");
	assert_string_equal(c->extensions[0].property[1][1], "a=b");
	drop(c);
}

static void what_is_printed_reads_back_and_prints_the_same(void **state)
{
	static const char *texts[2];

	(void)state;
	texts[0] = everything;
	texts[1] = "name = host0";
	for (size_t i = 0; i < 2; i++) {
		struct config *c = read_text(texts[i]), *d;
		AUTOBUF one = BUF_INIT, two = BUF_INIT;

		assert_int_equal(config_print(c, &one), 0);
		d = read_text(buf_cstr(&one));
		assert_int_equal(config_print(d, &two), 0);
		assert_string_equal(buf_cstr(&one), buf_cstr(&two));
		assert_string_equal(c->extensions[0].library, d->extensions[0].library);
		for (int k = 0; k < LIMIT_COUNT; k++)
			assert_true(c->limits[k] == d->limits[k]);
		drop(c);
		drop(d);
	}
}

static void a_mistake_is_named_with_file_and_line(void **state)
{
	static const char *const bad[][2] = {
		{ "", "name is missing" },
		{ "name = \"host0\"\nnmae = \"x\"\n", "tosd.conf:2: no such option 'nmae'" },
		{ "name = \"Host\"\n", "tosd.conf:1: name: 'Host' is no kernel's name" },
		{ "\n\nname = \"client\"\n", "tosd.conf:3: name:" },
		{ "name = \"a\"\nname = \"b\"\n", "tosd.conf:2: name is given twice" },
		{ "name = \"\"\nname = \"b\"\n", "tosd.conf:1: name" },
		{ "name = a\nlisten = {\"1.2.3.4:1\"}\nlisten = {\"1.2.3.4:2\"}\n",
			"tosd.conf:3: listen is given twice" },
		{ "name = a\nlisten = {\"localhost:21212\"}\n", "numeric address" },
		{ "name = a\nlisten = {\"127.0.0.1\"}\n",
			"tosd.conf:2: listen: '127.0.0.1' is not host:port" },
		{ "name = a\nlisten = {\"127.0.0.1:0\"}\n", "a port is a number" },
		{ "name = a\nlisten = {\"127.0.0.1:65536\"}\n", "a port is a number" },
		{ "name = a\nlisten = {\"127.0.0.1:021\"}\n", "a port is a number" },
		{ "name = a\nlisten = {\"::1:21212\"}\n", "numeric address" },
		{ "name = a\nadvertise = \"a b:1\"\n", "names no host" },
		{ "name = a\nuid_base = 010\n",
			"tosd.conf:2: uid_base: '010' is not a number" },
		{ "name = a\nuid_base = 0x10\n", "is not a number" },
		{ "name = a\nuid_base = -1\n", "uid_base" },
		{ "name = a\nuid_base = 99999999999\n", "is not from 0 to 4000000000" },
		{ "name = a\nsandbox { require = {\"magic\"} }\n",
			"'magic' is none of full, " },
		{ "name = a\nlog { level = \"loud\" }\n",
			"tosd.conf:2: level: 'loud' is none of debug" },
		{ "name = a\nlog { json = maybe }\n", "'maybe' is not true or false" },
		{ "name = a\nlog { json = true\njson = true }\n",
			"tosd.conf:3: json is given twice" },
		{ "name = a\nlog { json = true }\nlog { json = true }\n",
			"tosd.conf:3: json is given twice" },
		{ "name = a\nlimits { cpu = \"1x\" }\n", "tosd.conf:2: cpu:" },
		{ "name = a\nlimits { hops = -1 }\n", "tosd.conf:2: hops:" },
		{ "name = a\nlimits { memory = \"9999G\" }\n", "tosd.conf:2: memory:" },
		{ "name = a\nlimits { wings = 2 }\n", "no such option 'wings'" },
		{ "name = a\nsandbox { vm_address = \"1K\" }\n", "vm_address: 1K is not from" },
		{ "name = a\nclock { skew = \"2d\" }\n", "skew: 2d is not from 0s to 86400s" },
		{ "name = a\ntiming { ping = \"1ms\" }\n",
			"ping: 1ms is not from 10ms to 3600s" },
		{ "name = a\npolicy { rules = {\"allow all\"} }\n",
			"tosd.conf:2: rules: 'allow all': a rule has four words" },
		{ "name = a\npolicy { rules = {\"allow * * *\",\n\"allow * fly *\"} }\n",
			"tosd.conf:3: rules: 'fly' is no action" },
		{ "name = a\npeer \"B\" { }\n", "peer 'B' is no kernel's name" },
		{ "name = a\npeer \"x\ny\" { }\n", "peer 'x?y' is no kernel's name" },
		{ "name = a\nextension \"\xff\" { }\n", "extension '?'" },
		{ "name = a\nend-of-configuration = x\n", "tosd.conf:" },
		{ "name = a\npeer \"b\" { }\npeer \"b\" { }\n", "tosd.conf:3: " },
		{ "name = a\npeer \"b\" { address = {\"x:1\",\"x:2\",\"x:3\",\"x:4\",\"x:5\"} "
		  "}\n",
			"more than 4" },
		{ "name = a\nextension \"echo\" { library = \"echo\" }\n", "extension 'echo'" },
		{ "name = a\nextension \"Echo\" { }\n", "Echo has no library" },
		{ "name = a\nextension \"Echo\" { library = \"../echo\" }\n",
			"absolute path or a shipped" },
		{ "name = a\nextension \"Echo\" { library = \"echo\" where = \"here\" }\n",
			"none of kernel, isolated" },
		{ "name = a\nextension \"Echo\" { library = \"echo\" property = {\"x\"} }\n",
			"/path=value" },
		{ "name = a\naction \"x\" { }\n", "tosd.conf:2: action 'x': run begins with" },
		{ "name = a\naction \"X y\" { run = {\"/bin/true\"} }\n",
			"tosd.conf:2: action 'X y': an action's name" },
		{ "name = a\naction \"x\" { run = {\"true\"} }\n", "absolute path" },
		{ "name = a\naction \"x\" { run = {\"/bin/a/../b\"} }\n", "absolute path" },
		{ "name = a\naction \"x\" { run = {\"/bin/true\", \"{who}\"} }\n",
			"run has {who}, and there is no such argument" },
		{ "name = a\naction \"x\" { run = {\"/bin/true\"} args = {\"name\"} }\n",
			"does not use the argument {name}" },
		{ "name = a\naction \"x\" { run = {\"/bin/true\"} args = {\"who:anybody\"} }\n",
			"'who:anybody' is not NAME:KIND" },
		{ "name = a\naction \"x\" { run = {\"/bin/true\"} timeout = \"1h\" }\n",
			"timeout is from 100ms to 600s" },
		{ "name = a\naction \"x\" { run = {\"/bin/true\"} }\naction \"x\" { run = {\"/bin/true\"} }\n",
			"tosd.conf:3: " },
		{ "name = a\nregistrar = \"${HOME}\"\n",
			"tosd.conf:2: ${...} is not expanded" },
		{ "name = a\nregistrar = \"\\x24{HOME}\"\n", "not plain text" },
		{ "name = \"a\\nb\"\n", "control character" },
		{ "name = a\nlocal { principals = {\"bob\"} }\n", "'bob' is not a number" },
		{ "name = a\ninclude(\"/etc/passwd\")\n", "no such option 'include'" },
		{ "name = \"a\n", "tosd.conf:" },
		{ "name = a\nlog {\n", "the file ends too early" },
		{ "name = a\nlog { level = ", "the file ends" },
		{ "name = a\npeer \"b\" { address = {\"b:1\"", "tosd.conf:" },
		{ "name = a\n/* a comment", "tosd.conf" },
		{ "name", "tosd.conf:" },
		{ "}", "tosd.conf:" },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(bad); i++)
		assert_refused(bad[i][0], bad[i][1]);
	assert_int_equal(config_parse("name = a\0", 9, "x", NULL, NULL), ERR_CONFIG);
}

static void an_action_goes_to_tosd_as_it_was_written(void **state)
{
	static struct tosd_config out;
	struct config *c = read_text(
		"name = a\ndefault_extensions = false\n"
		"action \"block\" { run = {\"/usr/sbin/nft\", \"{ {address} \\\"x\\\" }\"}\n"
		"args = {\"address\"} timeout = \"2s\" }\n"
		"action \"again\" { run = {\"/bin/true\"} }\n");
	AUTOBUF text = BUF_INIT;

	(void)state;
	config_to_tosd(c, &out, NULL); /* libraries of extensions need not be here */
	assert_int_equal(c->n_actions, 2);
	assert_int_equal(out.n_actions, 2);
	assert_string_equal(out.action[0].name, "block");
	assert_string_equal(
		out.action[0].text + sizeof("/usr/sbin/nft"), "{ {address} \"x\" }");
	assert_int_equal(out.action[0].timeout_ms, 2000);
	assert_string_equal(out.action[0].arg[0].name, "address");
	assert_int_equal(out.action[1].timeout_ms, 30000);
	assert_int_equal(config_print(c, &text), 0);
	assert_non_null(strstr(buf_cstr(&text),
		"action \"block\" {\n\trun = {\"/usr/sbin/nft\", \"{ {address} \\\"x\\\" }\"}\n"
		"\targs = {\"address:address\"}\n\ttimeout = \"2000ms\"\n}\n"));
	drop(c);
	c = read_text(buf_cstr(&text));
	assert_memory_equal(&c->actions[0], &out.action[0], sizeof(out.action[0]));
	drop(c);
}

static void installed_ones_have_grants_and_properties(void **state)
{
	static const char text[] =
		"name = \"h\"\ninstalled \"Mail\" { directory = \"/srv/mail read-only\"\n"
		"file_size = \"1M\" listen = \"127.0.0.1:2525\" property = {\"/to=Echo\"} }\n"
		"installed \"Own\" { }\n";
	struct config *c = read_text(text), *again;
	const struct config_extension *x = config_extension(c, "Mail");
	char path[TOSD_DIRECTORY_BYTES];
	struct tosd_config t;
	AUTOBUF printed = BUF_INIT;

	(void)state;
	assert_true(config_directory(x, path));
	assert_string_equal(path, "/srv/mail");
	assert_int_equal(x->file_bytes, 1 << 20);
	assert_string_equal(x->listen, "127.0.0.1:2525");
	assert_string_equal(config_property(x, "to"), "Echo");
	assert_false(config_directory(config_extension(c, "Own"), path));
	assert_string_equal(path, "");
	assert_null(config_extension(c, "Other"));
	c->n_extensions = 0; /* whose libraries need not be there */
	assert_int_equal(config_to_tosd(c, &t, NULL), 0);
	assert_int_equal(t.n_installed, 2);
	assert_string_equal(t.installed[0].directory, "/srv/mail");
	assert_int_equal(t.installed[0].read_only, 1);
	assert_int_equal(t.installed[1].file_bytes, TOSD_FILE_BYTES);
	assert_int_equal(config_print(c, &printed), 0);
	again = read_text(buf_cstr(&printed));
	assert_int_equal(again->n_installed, 2);
	assert_memory_equal(again->installed, c->installed, sizeof(c->installed));
	drop(again);
	drop(c);
}

static void a_directory_is_none_of_the_hosts_own(void **state)
{
#define MAIL(text) "name = \"h\"\ninstalled \"Mail\" { " text " }\n"
	(void)state;
	assert_refused(MAIL("directory = \"srv\""), "absolute path");
	assert_refused(MAIL("directory = \"/srv rw\""), "absolute path");
	assert_refused(MAIL("directory = \"/srv/../etc\""), "without ..");
	assert_refused(MAIL("directory = \"/etc\""), "is the host's");
	assert_refused(MAIL("directory = \"/ read-only\""), "is the host's");
	assert_refused(MAIL("listen = \"localhost:80\""), "numeric address");
	assert_refused(MAIL("file_size = \"1\""), "is not from");
	assert_refused(MAIL("library = \"x\""), "library");
	assert_refused("name = \"h\"\ninstalled \"mail\" { }\n", "capital letter");
	assert_refused("name = \"h\"\ninstalled \"Echo\" { }\n", "is configured here");
#undef MAIL
}

static void a_list_may_be_added_to(void **state)
{
	struct config *c =
		read_text("name = a\nlisten = {\"1.2.3.4:1\"}\nlisten += {\"1.2.3.4:2\"}\n");

	(void)state;
	assert_int_equal(c->n_listen, 2);
	assert_string_equal(c->advertise, "1.2.3.4:1");
	drop(c);
}

static void configured_rules_add_to_the_defaults_unless_those_are_off(void **state)
{
	static const char *const texts[] = {
		"name = a\npolicy { rules = {\"deny principal:mallory * *\"} }\n",
		"name = a\npolicy { defaults = false rules = {\"deny principal:mallory * *\"} }\n",
		"name = a\npolicy { defaults = off }\n",
	};
	size_t n, own[] = { 1, 1, 0 };

	(void)state;
	(void)config_default_rules(&n);
	for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
		struct config *c = read_text(texts[i]);

		assert_true(c->n_own_rules == own[i]);
		assert_true(c->n_rules == own[i] + (i == 0 ? n : 0));
		drop(c);
	}
}

static void the_default_rules_are_rules_and_do_what_they_should(void **state)
{
	struct subject owner = { "client", "alice", ROLE_OWNER, "", "", NULL, NULL };
	struct subject carrier = { "carrier", "bob", 0, "host1", "", NULL, NULL };
	struct object mine = { "host0#1", "alice" }, other = { "host0#2", "bob" },
		      echo = { "Echo", "" };
	struct object control = { "Control", "" }, private = { "carrier", "" };
	struct firewall *f = firewall_new();
	size_t n;
	const char *const *rules = config_default_rules(&n);

	(void)state;
	for (size_t i = 0; i < n; i++)
		assert_int_equal(firewall_add(f, rules[i], NULL), 0);
	assert_int_equal(firewall_check(f, &owner, "kill", &mine, NULL), 0);
	assert_int_equal(firewall_check(f, &owner, "kill", &other, NULL), ERR_DENIED);
	assert_int_equal(firewall_check(f, &owner, "revoke", &other, NULL), ERR_DENIED);
	assert_int_equal(firewall_check(f, &owner, "launch", &mine, NULL), 0);
	assert_int_equal(firewall_check(f, &carrier, "post", &echo, NULL), 0);
	assert_int_equal(firewall_check(f, &carrier, "post", &private, NULL), 0);
	assert_int_equal(firewall_check(f, &carrier, "post", &control, NULL), ERR_DENIED);
	firewall_free(f);
}

static void the_file_must_be_ours_alone(void **state)
{
	char dir[] = "/tmp/test_config.XXXXXX", path[64];
	struct config *c = mem_new(struct config);
	struct errmsg em = { "" };
	FILE *f;

	(void)state;
	assert_non_null(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/tosd.conf", dir);
	assert_int_equal(config_load(path, c, &em), ERR_CONFIG);
	assert_non_null(strstr(em.text, "No such file"));
	assert_int_equal(config_load(dir, c, &em), ERR_CONFIG);
	f = fopen(path, "w");
	fputs("name = \"host0\"\n", f);
	fclose(f);
	chmod(path, 0664);
	assert_int_equal(config_load(path, c, &em), ERR_CONFIG);
	assert_non_null(strstr(em.text, "chmod go-w"));
	chmod(path, 0600);
	assert_int_equal(config_load(path, c, &em), 0);
	assert_string_equal(c->state_dir, dir);
	config_fini(c);
	if (geteuid() == 0) {
		assert_int_equal(chown(path, 1234, 1234), 0);
		assert_int_equal(config_load(path, c, &em), ERR_CONFIG);
		assert_non_null(strstr(em.text, "another user (uid 1234)"));
	}
	unlink(path);
	rmdir(dir);
	free(c);
}

static void tosd_gets_the_isolated_ones_and_a_missing_library_is_said(void **state)
{
	struct tosd_config out;
	struct errmsg em = { "" };
	struct config *c = read_text("name = a\nlisten = {\"127.0.0.1:21212\"}\nuid_base = 7\n"
				     "extension \"One\" { library = \"/proc/self/exe\" }\n"
				     "extension \"Two\" { library = \"/proc/self/exe\" where = "
				     "isolated privileges = \"read-fs\" }\n");

	(void)state;
	assert_int_equal(config_to_tosd(c, &out, &em), 0);
	assert_true(out.version == TOSD_MSG_VERSION && out.length == sizeof(out));
	assert_string_equal(out.name, "a");
	assert_string_equal(out.state_dir, "dir");
	assert_string_equal(out.listen[0], "127.0.0.1:21212");
	assert_true(out.n_listen == 1 && out.uid_base == 7 && out.n_ext == 1);
	assert_string_equal(out.ext[0].name, "Two");
	assert_string_equal(out.ext[0].path, "/proc/self/exe");
	assert_string_equal(out.ext[0].privileges, "read-fs");
	drop(c);
	c = read_text("name = a\nextension \"One\" { library = \"nowhere\" }\n");
	assert_int_equal(config_to_tosd(c, &out, &em), ERR_CONFIG);
	assert_non_null(strstr(em.text, "'nowhere'"));
	drop(c);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_name_alone_is_a_configuration_with_every_default),
		cmocka_unit_test(every_key_arrives_where_it_belongs),
		cmocka_unit_test(what_is_printed_reads_back_and_prints_the_same),
		cmocka_unit_test(a_mistake_is_named_with_file_and_line),
		cmocka_unit_test(an_action_goes_to_tosd_as_it_was_written),
		cmocka_unit_test(installed_ones_have_grants_and_properties),
		cmocka_unit_test(a_directory_is_none_of_the_hosts_own),
		cmocka_unit_test(a_list_may_be_added_to),
		cmocka_unit_test(configured_rules_add_to_the_defaults_unless_those_are_off),
		cmocka_unit_test(the_default_rules_are_rules_and_do_what_they_should),
		cmocka_unit_test(the_file_must_be_ours_alone),
		cmocka_unit_test(tosd_gets_the_isolated_ones_and_a_missing_library_is_said),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
