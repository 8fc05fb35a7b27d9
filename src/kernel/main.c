/*
 * tos-kernel: reads the configuration, opens the store, joins the parts, and runs the loop.
 *
 * Started by tosd with one socket on descriptor 3. It is unprivileged: what it needs beyond its
 * state directory (listening sockets, processes) tosd gives it. `--check-config` is run by tosd
 * too, and gives back the little that tosd must know, so that tosd need not parse anything.
 */
#include "kernel/services/broker.h"
#include "kernel/services/content.h"
#include "kernel/settings.h"
#include "kernel/kernel.h"
#include "kernel/services/actions.h"
#include "kernel/services/extender.h"
#include "kernel/services/grants.h"
#include "kernel/services/journal.h"
#include "kernel/services/programs.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <malloc.h>
#include <pthread.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fault.h"
#include "base/log.h"
#include "base/text.h"
#include "base/where.h"
#include "ipc/ipc.h"
#include "kernel/carrier/account.h"
#include "kernel/carrier/resident.h"
#include "kernel/carrier/vms.h"
#include "kernel/handoff/moves.h"
#include "kernel/handoff/restored.h"
#include "kernel/upload.h"
#include "kernel/home/home.h"
#include "kernel/trust/trust.h"

#define TOSD_FD        3
#define TICK_MS        100
#define SMALL_STACK    ((size_t)256 << 10)
#define CONFIG_WAIT_MS 10000
#define STOP_MS        5000
#define EXPIRE_TICKS   600

/* ---- links: what the kernel answers */

static void on_hello(void *arg, const char *peer_name, struct hello *h)
{
	struct kernel *k = arg;

	snprintf(h->name, sizeof(h->name), "%s", k->config.name);
	text_hex(k->domain, DIGEST_BYTES, h->domain);
	h->boot_count = k->boot_count;
	memcpy(h->boot_nonce, k->boot_nonce, sizeof(h->boot_nonce));
	h->store_seq = store_seq(k->store);
	restored_hello(k, peer_name, h);
	witness_hello(k, h);
	h->revocation = k->revocation ? revocation_number(k->revocation) : 0;
	snprintf(h->address, sizeof(h->address), "%s", k->config.advertise);
}

static int on_up(void *arg, struct link *l, const struct hello *h, struct errmsg *em)
{
	struct kernel *k = arg;

	if (link_kind(l) != LINK_KERNEL)
		return client_up(k, l, h, em);
	if (k->stopping)
		return err_set(em, ERR_CLOSED, "the kernel stops");
	log_info("link up", KV_STR("peer", link_name(l)), KV_STR("address", link_address(l)));
	link_on_writable(l, (void (*)(void *, struct link *))content_writable, k);
	restored_link_up(k, link_name(l), h);
	peer_link_up(k, l, h);
	if (strcmp(link_name(l), k->config.registrar) == 0)
		directory_register(k);
	witness_link_up(k, link_name(l), h);
	fresh_link_up(k, link_name(l), h->revocation);
	handoff_link_up(k, link_name(l));
	home_link_up(k, link_name(l));
	return 0;
}

static void on_down(void *arg, struct link *l, int rc, const char *why)
{
	struct kernel *k = arg;

	if (link_kind(l) != LINK_KERNEL) {
		client_down(k, l);
		return;
	}
	log_info("link down", KV_STR("peer", link_name(l)), KV_STR("error", err_word(rc)),
		KV_STR("reason", why));
	content_link_down(k, link_name(l));
	peer_link_down(k, l);
	handoff_link_down(k, link_name(l));
	if (!links_find(k->links, link_name(l)))
		calls_link_down(k, link_name(l));
}

static void on_clone(void *arg, const char *name, const char *address, const char *linked)
{
	restored_clone_refused(arg, name, address, linked);
}

static void on_dial_failed(void *arg, const char *name, int rc, const char *why)
{
	if (rc == ERR_CLONE)
		restored_clone(arg, name, why);
	peer_dial_failed(arg, name, rc, why);
}

static size_t on_resolve(void *arg, const char *name, char (*out)[128], size_t most)
{
	return peer_resolve(arg, name, out, most);
}

static const struct link_callbacks link_callbacks = { .hello = on_hello,
	.up = on_up,
	.frame = kernel_frame,
	.down = on_down,
	.dial_failed = on_dial_failed,
	.resolve = on_resolve,
	.clone = on_clone };

/* ---- extensions: what the kernel answers */

/* What an extension denies is written down as what the firewall does. */
static void ext_denied(struct kernel *k, const char *inbox, const struct post *p)
{
	char folder[NAME_BYTES_MAX + 1], who[NAME_BYTES_MAX + 1];
	struct tos_value *v = NULL;

	if (folder_decode(p->folder, folder, &v) == 0 &&
		strcmp(tos_as_text(tos_at(v, 0), ""), err_word(ERR_DENIED)) == 0) {
		struct origin from = { .cls = ORIGIN_CLIENT };

		slice_copy_text(p->dest, who, sizeof(who));
		snprintf(from.name, sizeof(from.name), "%s", who);
		audit_denial(k, &from, "ask", inbox, tos_as_text(tos_at(v, 1), ""));
	}
	tos_value_free(v);
}

static int on_ext_send(
	void *arg, const char *sender, const struct post *given, struct errmsg *em)
{
	struct kernel *k = arg;
	struct origin from = { .cls = ORIGIN_EXTENSION, .may_read = true };
	struct post p = *given;

	snprintf(from.name, sizeof(from.name), "%s/%s", k->config.name, sender);
	p.sender = slice_text(from.name);
	FAULT_AT(EXT_SEND);
	if (p.kind == POST_FAILURE)
		ext_denied(k, sender, &p);
	if (p.dest.n == 0) {
		calls_answer(k, "", &p);
		return 0;
	}
	return kernel_route(k, &from, &p, em);
}

static int on_ext_forward(void *arg, const struct post *original, const char *kernel)
{
	return calls_forwarded(arg, original, kernel);
}

static int on_ext_spawn(void *arg, const char *key)
{
	return child_spawn_ext(arg, key);
}

static void on_ext_kill(void *arg, const char *key)
{
	child_kill_ext(arg, key);
}

static void on_ext_count(void *arg, const char *ext, const char *name, uint64_t delta)
{
	struct kernel *k = arg;
	char label[160];

	snprintf(label, sizeof(label), "extension=\"%.48s\",name=\"%.64s\"", ext, name);
	metric_add(k->metrics, "extension_events_total", label, delta);
}

struct ext_property {
	char value[512];
	enum property_type type;
};

static struct tos_value *read_ext_property(void *arg)
{
	struct ext_property *p = arg;
	int64_t v;

	switch (p->type) {
	case PROPERTY_INT:
		return text_int(p->value, INT64_MIN, INT64_MAX, &v) == 0 ? tos_int(v)
									 : tos_text(p->value);
	case PROPERTY_FLOAT:
		return tos_float(strtod(p->value, NULL));
	case PROPERTY_BOOL:
		return tos_bool(strcmp(p->value, "true") == 0);
	default:
		return tos_text(p->value);
	}
}

static void on_ext_property(void *arg, const char *ext, const char *path, const char *type,
	const char *unit, const char *doc, int64_t min, int64_t max, bool read_only,
	const char *value)
{
	static const char *const types[] = { "int", "float", "text", "bool" };
	struct kernel *k = arg;
	struct ext_property *p;
	struct errmsg em = { "" };
	char full[256];
	int rc;

	snprintf(full, sizeof(full), "/%s/%s", ext, path);
	if (!k->ext_properties)
		k->ext_properties = map_new();
	p = map_find_str(k->ext_properties, full);
	if (!p) {
		p = mem_new(struct ext_property);
		map_put_str(k->ext_properties, full, p);
	}
	snprintf(p->value, sizeof(p->value), "%s", value ? value : "");
	p->type = PROPERTY_TEXT;
	for (size_t i = 0; i < ARRAY_LEN(types); i++)
		if (strcmp(types[i], type) == 0)
			p->type = (enum property_type)i;
	property_remove(k->properties, full);
	rc = property_add(k->properties, full, p->type, unit ? unit : "", doc ? doc : "", min,
		max, read_only, read_ext_property, p, &em);
	if (rc < 0)
		log_warning("a property of an extension was not taken", KV_STR("path", full),
			KV_ERR(rc, &em));
}

static void on_ext_ready(void *arg, const char *key, int rc, const char *why)
{
	struct kernel *k = arg;
	const char *ext = extender_name(k, key);

	if (extender_ready(k, key, rc, why)) {
		log_info("installed extension", KV_STR("extension", ext), KV_STR("key", key),
			KV_STR("state", rc < 0 ? "failed" : "ready"), KV_STR("reason", why));
		if (rc == 0)
			settings_apply(k, ext);
		if (rc == 0)
			grants_ready(k, ext);
		return;
	}
	if (rc < 0) {
		char path[80];

		snprintf(path, sizeof(path), "/%.64s", ext);
		property_remove(k->properties, path);
		log_error("an extension did not start", KV_STR("extension", ext),
			KV_STR("error", err_word(rc)), KV_STR("reason", why));
	} else
		log_info("extension ready", KV_STR("extension", ext));
	if (rc == 0) {
		settings_apply(k, ext);
		grants_ready(k, ext);
	}
	if (rc == 0 && strcmp(ext, "Directory") == 0 &&
		strcmp(k->config.registrar, k->config.name) == 0)
		directory_register(k);
}

static void on_ext_lost(void *arg, const char *key, const char *why)
{
	struct kernel *k = arg;
	const char *ext = extender_name(k, key);
	char label[80];

	snprintf(label, sizeof(label), "extension=\"%.48s\"", ext);
	metric_add(k->metrics, "extension_restarts_total", label, 1);
	log_warning("an extension died; it is started again", KV_STR("extension", ext),
		KV_STR("reason", why));
}

static void on_ext_gone(void *arg, const char *key)
{
	char name[64];

	snprintf(name, sizeof(name), "%.63s", extender_name(arg, key));
	extender_gone(arg, key);
	grants_left(arg, name);
}

static bool on_ext_reserved(void *arg, const char *inbox)
{
	(void)arg;
	return inbox_is_kernels(inbox);
}

static const struct ext_callbacks ext_callbacks = { .send = on_ext_send,
	.forward = on_ext_forward,
	.spawn = on_ext_spawn,
	.kill = on_ext_kill,
	.count = on_ext_count,
	.property = on_ext_property,
	.ready = on_ext_ready,
	.lost = on_ext_lost,
	.gone = on_ext_gone,
	.connect = broker_connect,
	.outside = broker_outside,
	.audit = broker_audit,
	.listen = grants_listen,
	.accept = grants_accept,
	.reserved = on_ext_reserved };

static const char *configured_property(void *arg, const char *path)
{
	return config_property(arg, path);
}

static struct tos_value *read_system(void *arg)
{
	(void)arg;
	return tos_text(TRUST_SYSTEM);
}

static struct tos_value *read_where(void *arg)
{
	return tos_text(((struct config_extension *)arg)->isolated ? "isolated" : "kernel");
}

static int extension_properties(struct kernel *k, struct config_extension *x, struct errmsg *em)
{
	char path[128];
	int rc;

	snprintf(path, sizeof(path), "/extensions/%s/trust", x->name);
	rc = property_add(k->properties, path, PROPERTY_TEXT, "",
		"Its trust domain: system, or user for what carriers are.", 0, 0, true,
		read_system, x, em);
	snprintf(path, sizeof(path), "/extensions/%s/where", x->name);
	return rc ? rc
		  : property_add(k->properties, path, PROPERTY_TEXT, "",
			    "In the kernel's process, or isolated in one of its own.", 0, 0,
			    true, read_where, x, em);
}

static int load_extensions(struct kernel *k, const char *extensions_dir, struct errmsg *em)
{
	int rc = ext_host_new(
		k->loop, k->config.name, k->config.inbox_bound, &ext_callbacks, k, &k->exts);

	for (size_t i = 0; rc == 0 && i < k->config.n_extensions; i++) {
		struct config_extension *x = &k->config.extensions[i];
		struct ext_load what = { .name = x->name,
			.library = x->library,
			.privileges = x->privileges,
			.isolated = x->isolated,
			.property = configured_property,
			.arg = x };
		char path[TOSD_PATH_BYTES * 2];
		const char *base = strrchr(x->library, '/');

		/* Where the library's folder is closed to our uid tosd shows it to us
		 * elsewhere. */
		if (access(x->library, R_OK) != 0 && extensions_dir[0] && base) {
			snprintf(path, sizeof(path), "%s/%s", extensions_dir, base + 1);
			what.library = path;
		}
		rc = ext_load(k->exts, &what, em);
		if (rc == 0)
			rc = extension_properties(k, x, em);
		if (rc < 0)
			return err_wrap(em, rc, "extension %s", x->name);
	}
	if (rc == 0 && !ext_hook(k->exts, 8u /* TOS_INBOX_ON_COMPLETION */, 0))
		log_warning(
			"no mobility extension is loaded: no carrier can reach this kernel");
	return rc;
}

/* ---- time */

static void on_tick(uv_timer_t *t)
{
	static unsigned ticks;
	struct kernel *k = t->data;
	int64_t now = clock_ms();

	calls_tick(k, now);
	peers_tick(k, now);
	router_tick(k, now);
	residents_tick(k, now);
	accounts_tick(k, now);
	journal_tick(k, now);
	shares_tick(k, now);
	costs_tick(k);
	handoff_tick(k, now);
	homes_tick(k, now);
	vms_tick(k, now);
	programs_tick(k, now);
	actions_tick(now);
	reload_tick(k, now);
	accounts_save(k);
	late_flush(k);
	restored_tick(k, now);
	fresh_tick(k, now);
	renew_tick(k, now);
	witness_tick(k, now);
	content_tick(k, now);
	broker_tick(k, now);
	grants_tick(k, now);
	if (++ticks % 10 == 0) {
		uploads_tick(k, now);
		admission_tick(k);
	}
	if (ticks % EXPIRE_TICKS == 0) {
		store_expire(k->store);
		handoff_expire(k);
		incarnations_expire(k);
	}
}

static void on_store(uv_async_t *a)
{
	struct kernel *k = a->data;

	store_poll(k->store);
	handoff_sign(k);
}

static void store_wake(void *arg)
{
	struct kernel *k = arg;

	uv_async_send(&k->store_wake);
}

/* ---- starting */

static int load_keys(struct kernel *k, struct errmsg *em)
{
	char key[TOSD_PATH_BYTES + 32], cert[TOSD_PATH_BYTES + 32], root[TOSD_PATH_BYTES + 32];
	struct buf ders[COSE_CHAIN_MAX] = { BUF_INIT };
	struct cert_info info;
	size_t n = 0;
	int rc;

	snprintf(key, sizeof(key), "%s/key", k->dir);
	snprintf(cert, sizeof(cert), "%s/cert", k->dir);
	snprintf(root, sizeof(root), "%s/root.crt", k->dir);
	rc = certs_load(root, ders, &n, em);
	if (rc == 0 && n > 0) {
		k->root_der = ders[0];
		ders[0] = (struct buf)BUF_INIT;
		rc = cert_info((struct slice){ k->root_der.data, k->root_der.len }, &info, em);
		memcpy(k->domain, info.fingerprint, DIGEST_BYTES);
	}
	for (size_t i = 0; i < n; i++)
		buf_fini(&ders[i]);
	if (rc == 0)
		rc = signer_load(key, cert, NULL, &k->signer, em);
	if (rc == 0 && (k->signer->info.kind != CERT_KERNEL ||
			       strcmp(k->signer->info.name, k->config.name) != 0))
		rc = err_set(em, ERR_CONFIG, "%s is the certificate of %s, not of kernel %s",
			cert, k->signer->info.name, k->config.name);
	if (rc < 0)
		return rc;
	snprintf(key, sizeof(key), "%s/registrar.key", k->dir);
	snprintf(cert, sizeof(cert), "%s/registrar.crt", k->dir);
	if (access(key, R_OK) == 0)
		rc = signer_load(key, cert, NULL, &k->registrar, em);
	return rc;
}

/* The list that came with enrolment, or that init wrote; a newer one in the store wins. */
static void load_revocation(struct kernel *k)
{
	char path[TOSD_PATH_BYTES + 32];
	AUTOBUF list = BUF_MAX((size_t)16 << 20);
	struct errmsg em = { "" };
	uint8_t bytes[8192];
	size_t n;
	FILE *f;

	snprintf(path, sizeof(path), "%s/revoked", k->dir);
	f = fopen(path, "re");
	if (!f)
		return;
	while ((n = fread(bytes, 1, sizeof(bytes), f)) > 0)
		buf_add(&list, bytes, n);
	fclose(f);
	if (revocation_accept(k, slice_buf(&list), &em) < 0)
		log_notice("the file with the revocation list was not taken",
			KV_STR("file", path), KV_STR("reason", em.text));
}

static int load_names(struct kernel *k, struct errmsg *em)
{
	AUTOBUF be = BUF_INIT;
	int rc = store_get(k->store, T_META, "names", 5, &be, em);

	if (rc == 0 && be.len == 8)
		for (int i = 0; i < 8; i++)
			k->next_name = k->next_name << 8 | be.data[i];
	k->names_reserved = k->next_name;
	return rc == ERR_NOT_FOUND ? 0 : rc;
}

static int load_rules(struct kernel *k, struct errmsg *em)
{
	int rc = 0;

	k->firewall = firewall_new();
	for (size_t i = 0; i < k->config.n_rules && rc == 0; i++)
		rc = firewall_add(k->firewall, k->config.rules[i], em);
	return rc;
}

static int open_store(struct kernel *k, struct errmsg *em)
{
	char path[TOSD_PATH_BYTES + 32];
	int rc;

#ifdef TOS_FAULTS
	snprintf(path, sizeof(path), "%s/faults", k->dir);
	fault_open(path);
#endif
	snprintf(path, sizeof(path), "%s/store.db", k->dir);
	if (uv_async_init(k->loop, &k->store_wake, on_store) != 0)
		return err_set(em, ERR_IO, "no wake-up handle");
	k->store_wake.data = k;
	rc = store_open_unchecked(path, store_wake, k, &k->store, em);
	if (rc == 0)
		k->boot_count = (uint64_t)store_boot_count(k->store);
	return rc;
}

static int open_links(struct kernel *k, const int *listeners, size_t n, struct errmsg *em)
{
	struct links_config lc;
	char path[TOSD_PATH_BYTES + 32];
	int rc;

	links_config_defaults(&lc);
	snprintf(lc.name, sizeof(lc.name), "%s", k->config.name);
	lc.handshake_ms = k->config.handshake_ms;
	lc.joiner_ms = 3 * k->config.handshake_ms;
	lc.ping_ms = k->config.ping_ms;
	lc.silent_ms = k->config.silent_ms;
	lc.queue_bytes = k->config.link_bytes;
	lc.version_min = k->config.test_protocol_min;
	lc.version_max = k->config.test_protocol_max;
	rc = tls_context_new(
		k->signer, (struct slice){ k->root_der.data, k->root_der.len }, &k->tls, em);
	if (rc == 0) {
		tls_context_trust(k->tls, k->revocation, k->config.skew_ms);
		rc = links_new(k->loop, &lc, k->tls, &link_callbacks, k, &k->links, em);
	}
	for (size_t i = 0; rc == 0 && i < n; i++)
		rc = links_listen_tcp(k->links, listeners[i], em);
	snprintf(path, sizeof(path), "%s/sock", k->dir);
	if (rc == 0)
		rc = links_listen_local(k->links, path, em);
	return rc;
}

/* The store has been checked meanwhile. Where it is damaged, that is also what else went wrong. */
static int checked(struct kernel *k, int rc, struct errmsg *em)
{
	struct errmsg why = { "" };
	int verdict = k->store ? store_checked(k->store, &why) : 0;

	if (verdict == 0)
		return rc;
	*em = why;
	return verdict;
}

static int kernel_start(struct kernel *k, const int *listeners, size_t n,
	const char *extensions_dir, struct errmsg *em)
{
	int rc;

	k->loop = uv_default_loop();
	k->started_ms = clock_ms();
	random_bytes(k->boot_nonce, sizeof(k->boot_nonce));
	k->clients = map_new();
	k->introduced = map_new();
	k->uploads = map_new();
	k->names = map_new();
	k->watchers = map_new();
	k->acting = map_new();
	calls_init(k);
	vms_init(k);
	programs_init(k);
	actions_init();
	rc = telemetry_init(k, em);
	router_init(k);
	if (rc == 0)
		rc = peers_init(k, em);
	if (rc == 0)
		rc = load_rules(k, em);
	if (rc == 0)
		rc = load_keys(k, em);
	if (rc == 0)
		rc = open_store(k, em);
	if (rc == 0)
		rc = content_init(k, em);
	if (rc == 0)
		rc = accounts_load(k, em);
	if (rc == 0)
		rc = journal_load(k, em);
	if (rc == 0)
		rc = load_names(k, em);
	if (rc == 0)
		rc = restored_load(k, em);
	if (rc == 0)
		drain_load(k);
	if (rc == 0)
		rc = registrar_init(k, em);
	if (rc == 0) {
		load_revocation(k);
		fresh_load(k);
		rc = handoff_load(k, em);
	}
	homes_begin(k);
	if (rc == 0)
		rc = tosd_begin(k, em);
	if (rc == 0)
		rc = open_links(k, listeners, n, em);
	if (rc == 0)
		rc = settings_load(k, em);
	if (rc == 0)
		rc = load_extensions(k, extensions_dir, em);
	if (rc == 0)
		rc = extender_load(k, em);
	if (rc == 0)
		rc = residents_load(k, em);
	rc = checked(k, rc, em);
	if (rc == 0)
		restored_loaded(k);
	return rc;
}

static void kernel_serve(struct kernel *k)
{
	struct tos_value *m = tos_map();
	char resumed[TOSD_PATH_BYTES + 32];

	uv_timer_init(k->loop, &k->tick);
	k->tick.data = k;
	uv_timer_start(&k->tick, on_tick, TICK_MS, TICK_MS);
	k->ready = true;
	tos_set(m, "boot", tos_int((int64_t)k->boot_count));
	snprintf(resumed, sizeof(resumed), "%s/resumed", k->dir);
	if (unlink(resumed) == 0)
		tos_set(m, "after", tos_text("tos stop --all"));
	audit_event(k, NULL, "started", m);
	if (strcmp(k->config.registrar, k->config.name) == 0)
		directory_register(k);
	else if (k->config.registrar[0])
		peer_want(k, k->config.registrar, true);
	handoff_voids_begin(k);
	tosd_ready(k);
	log_notice("kernel ready", KV_INT("boot", k->boot_count),
		KV_INT("carriers", map_size(k->residents)));
	uv_run(k->loop, UV_RUN_DEFAULT);
}

/* ---- stopping: running carriers go on from their arrival or last checkpoint at the next start */

static void stop_hard(uv_timer_t *t)
{
	struct kernel *k = t->data;

	store_close(k->store, 2000);
	_exit(k->exit_code);
}

/* No name is given out any more: the numbers that were reserved beyond the last one are free
 * again. */
static void names_give_back(struct kernel *k)
{
	struct store_txn *t;
	uint8_t be[8];

	if (k->names_reserved == k->next_name)
		return;
	for (int i = 0; i < 8; i++)
		be[i] = (uint8_t)(k->next_name >> (56 - 8 * i));
	t = store_begin(k->store);
	store_put(t, T_META, "names", 5, be, sizeof(be), 0);
	store_commit(t, NULL, NULL);
}

static void stopped(void *arg)
{
	struct kernel *k = arg;

	if (--k->n_closing)
		return;
	names_give_back(k);
	accounts_save(k);
	lazy_flush(k);
	store_close(k->store, STOP_MS);
	exit(k->exit_code);
}

/* Their processes may end after the host that kept them. */
static void exts_stopped(void *arg)
{
	struct kernel *k = arg;

	k->exts_gone = true;
	stopped(k);
}

void kernel_stop(struct kernel *k)
{
	struct resident *r;
	size_t it = 0;

	if (k->stopping)
		return;
	k->stopping = true;
	log_notice("kernel stops", KV_INT("carriers", map_size(k->residents)));
	handoff_answer_all(k);
	while ((r = map_next(k->residents, &it, NULL, NULL)))
		vm_abandon(r);
	spares_end(k);
	uv_timer_start(&k->tick, stop_hard, STOP_MS, 0);
	k->n_closing = 2;
	ext_host_close(k->exts, exts_stopped, k);
	links_close(k->links, stopped, k);
}

/* ---- the command line and tosd's first message */

static int config_receive(struct kernel *k, int listeners[TOSD_LISTEN_MAX], size_t *n,
	char *extensions, size_t cap, struct errmsg *em)
{
	struct tosd_config_msg m;
	struct pollfd pfd = { .fd = TOSD_FD, .events = POLLIN };
	int fds[IPC_FDS_MAX];
	size_t len = 0, n_fds = 0;
	int rc;

	if (poll(&pfd, 1, CONFIG_WAIT_MS) != 1)
		return err_set(em, ERR_USAGE, "tos-kernel is started by tosd, not by hand");
	rc = ipc_recv(TOSD_FD, &m, sizeof(m), &len, fds, ARRAY_LEN(fds), &n_fds, em);
	if (rc < 0)
		return rc;
	if (len != sizeof(m) || m.head.type != TOSD_CONFIG ||
		m.head.version != TOSD_MSG_VERSION || m.n_listen > TOSD_LISTEN_MAX ||
		n_fds != m.n_listen + 1)
		return err_set(em, ERR_VERSION, "tosd is of another version");
	memcpy(listeners, fds, m.n_listen * sizeof(int));
	*n = m.n_listen;
	mem_close(fds[m.n_listen]);
	snprintf(k->dir, sizeof(k->dir), "%s", m.state_path);
	snprintf(k->socket_path, sizeof(k->socket_path), "%s", m.socket_path);
	snprintf(extensions, cap, "%s", m.extensions);
	k->as_root = m.as_root;
	k->dir_owner = m.owner_uid;
	return 0;
}

static int check_config(const char *path)
{
	AUTOFREE struct config *c = mem_new(struct config);
	AUTOFREE struct tosd_config *t = mem_new(struct tosd_config);
	AUTOBUF text = BUF_INIT;
	struct errmsg em = { "" };
	int rc = config_load(path, c, &em);

	if (rc < 0) {
		fprintf(stderr, "%s\n", err_show(rc, &em));
		return 1;
	}
	rc = config_to_tosd(c, t, &em);
	if (rc == 0)
		rc = config_print(c, &text);
	config_fini(c);
	if (rc < 0) {
		fprintf(stderr, "%s\n", err_show(rc, &em));
		return 1;
	}
	if (fwrite(text.data, 1, text.len, stdout) != text.len || fflush(stdout) != 0)
		return 1;
	/* Without tosd at the other end there is no descriptor 3, and only the text is wanted. */
	if (write(TOSD_FD, t, sizeof(*t)) != (ssize_t)sizeof(*t) && errno != EBADF)
		return 1;
	return 0;
}

/* People know the state directory by its own path, not by the one that tosd gave it in here. */
static void show_outside(const struct kernel *k, struct errmsg *em)
{
	const char *at = k->dir[0] ? strstr(em->text, k->dir) : NULL;
	const char *slash = strrchr(k->socket_path, '/');
	struct errmsg said = *em;

	if (at && slash)
		snprintf(em->text, sizeof(em->text), "%.*s%.*s%s", (int)(at - em->text),
			said.text, (int)(slash - k->socket_path), k->socket_path,
			said.text + (at - em->text) + strlen(k->dir));
}

static int usage(int status)
{
	fprintf(status ? stderr : stdout,
		"usage: tos-kernel -c FILE                 (started by tosd)\n"
		"       tos-kernel --check-config -c FILE  check a configuration and print it normalised\n"
		"       tos-kernel --backup DIR FILE [--keys], --restore FILE DIR, --inspect FILE\n"
		"                                          what tos backup and tos restore run\n"
		"       tos-kernel -V | -h\n");
	return status;
}

/* Memory that is reserved and never used counts against a bound on the address space: one arena,
 * small stacks, one thread for names. Before there is a second thread. */
static void be_small(void)
{
#if defined(TOS_SMALL) && !defined(TOS_SANITIZE)
	struct rlimit stack;
	pthread_attr_t attr;

	mallopt(M_ARENA_MAX, 1);
	mallopt(M_MMAP_THRESHOLD, 64 << 10);
	mallopt(M_TRIM_THRESHOLD, 64 << 10);
	setenv("UV_THREADPOOL_SIZE", "1", 1);
	if (getrlimit(RLIMIT_STACK, &stack) == 0) {
		stack.rlim_cur = SMALL_STACK; /* what libuv gives its threads */
		setrlimit(RLIMIT_STACK, &stack);
	}
	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, SMALL_STACK);
	pthread_setattr_default_np(&attr);
	pthread_attr_destroy(&attr);
#endif
}

int main(int argc, char **argv)
{
	struct kernel *k;
	int listeners[TOSD_LISTEN_MAX];
	char extensions[TOSD_PATH_BYTES] = "";
	struct errmsg em = { "" };
	const char *conf = NULL;
	bool check = false;
	size_t n = 0;
	int rc;

	if (argc > 2 && backup_mode(argc, argv, &rc))
		return rc;
	for (int i = 1; i < argc; i++) {
		if (strcmp(argv[i], "-c") == 0 && i + 1 < argc)
			conf = argv[++i];
		else if (strcmp(argv[i], "--check-config") == 0)
			check = true;
		else if (strcmp(argv[i], "-V") == 0 || strcmp(argv[i], "--version") == 0)
			return printf("tos-kernel %s\n", TOS_VERSION) > 0 ? 0 : 1;
		else
			return usage(
				strcmp(argv[i], "-h") == 0 || strcmp(argv[i], "--help") == 0
					? 0
					: 2);
	}
	if (!conf)
		return usage(2);
	if (check)
		return check_config(conf);
	be_small();
	k = mem_new(struct kernel); /* for the life of the process */
	signal(SIGPIPE, SIG_IGN);
	prctl(PR_SET_DUMPABLE, 0);
	log_init("tos-kernel", NULL, LOG_INFO, false);
	k->tosd_fd = TOSD_FD;
	snprintf(k->conf_path, sizeof(k->conf_path), "%s", conf);
	rc = config_receive(k, listeners, &n, extensions, sizeof(extensions), &em);
	if (rc == 0)
		rc = config_load(conf, &k->config, &em);
	if (rc == 0) {
		log_init("tos-kernel", k->config.name, log_level_parse(k->config.log_level),
			k->config.log_json);
		rc = kernel_start(k, listeners, n, extensions, &em);
	}
	if (rc < 0) {
		show_outside(k, &em);
		log_error("kernel does not start", KV_ERR(rc, &em));
		/* What a restart cannot mend is not tried again. */
		return rc == ERR_CONFIG || rc == ERR_STORE || rc == ERR_SYNTAX ||
				       rc == ERR_UNTRUSTED || rc == ERR_NOT_FOUND ||
				       rc == ERR_IO
			       ? TOSD_EXIT_BROKEN
			       : 1;
	}
	kernel_serve(k);
	return k->exit_code;
}
