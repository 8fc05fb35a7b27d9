/*
 * What may be launched here or arrive: tickets, code and their signers, the limits that are
 * granted, how many carriers there may be, and the hooks by which extensions inspect, change or
 * refuse a carrier.
 */
#include "kernel/carrier/admit.h"

#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "kernel/carrier/automata.h"
#include "kernel/carrier/resident.h"
#include "kernel/carrier/seals.h"
#include "kernel/trust/trust.h"
#include "tos/extension.h"

#define CODES_MAX       1000
#define CODES_BYTES_MAX ((size_t)128 << 20)
#define CODE_CHECK_MS   1000

/* ---- tickets */

static int ticket_times(struct kernel *k, const struct ticket *t, struct errmsg *em)
{
	int64_t now = clock_wall_ms();
	char when[CLOCK_TEXT_BYTES];

	if (t->issued_ms > now + k->config.skew_ms)
		return err_set(em, ERR_NOT_YET,
			"the ticket of %s is valid only from %s on; check the clocks", t->name,
			clock_text(t->issued_ms, when));
	if (t->expires_ms < now - k->config.skew_ms)
		return err_set(em, ERR_EXPIRED, "the ticket of %s expired at %s", t->name,
			clock_text(t->expires_ms, when));
	return 0;
}

int ticket_verify(struct kernel *k, struct slice cose_bytes, struct ticket *out,
	uint8_t id[DIGEST_BYTES], struct cert_info *owner, struct errmsg *em)
{
	struct trust trust;
	struct address a;
	struct cose cose;
	int rc;

	kernel_trust(k, &trust);
	rc = cose_verify(&trust, "ticket", cose_bytes, &cose, owner, em);
	if (rc < 0)
		return rc;
	if (owner->kind != CERT_PRINCIPAL || !(owner->roles & (ROLE_OWNER | ROLE_ADMIN)))
		return err_set(em, ERR_DENIED,
			"%s signed the ticket but has not the role owner", owner->name);
	rc = ticket_decode(cose.payload, out, em);
	if (rc < 0)
		return rc;
	cose_id(&cose, id);
	rc = address_parse(out->name, strlen(out->name), &a, em);
	if (rc == 0 && (a.kind != ADDRESS_CARRIER || a.inbox[0] || a.suffix[0] ||
			       strcmp(a.kernel, out->home) != 0))
		rc = err_set(em, ERR_NAME, "%s is not a carrier's name of home %s", out->name,
			out->home);
	return rc < 0 ? rc : ticket_times(k, out, em);
}

/* Of a carrier in our own store, whose signatures were checked when it was admitted: a kernel with
 * ten thousand of them is to serve again soon. The next kernel checks them for itself. */
int ticket_look(struct slice bytes, struct ticket_look *out, struct errmsg *em)
{
	int rc = cose_decode(bytes, &out->cose, em);

	if (rc == 0 && out->cose.n_chain == 0)
		rc = err_set(em, ERR_MALFORMED, "a ticket without a certificate");
	if (rc == 0)
		cose_id(&out->cose, out->id);
	return rc;
}

int ticket_seen(const struct ticket_look *look, struct ticket *out, uint8_t id[DIGEST_BYTES],
	const struct cert_info **owner, struct errmsg *em)
{
	static struct cert_info known; /* of the last one: carriers have few owners */
	static struct blob known_der;
	struct slice leaf = look->cose.chain[0];
	int rc = 0;

	if (!slice_equal(leaf, blob_slice(&known_der))) {
		rc = cert_info(leaf, &known, em);
		if (rc == 0)
			blob_set(&known_der, leaf);
		else
			blob_free(&known_der);
	}
	if (rc == 0)
		rc = ticket_decode(look->cose.payload, out, em);
	if (rc < 0)
		return rc;
	cert_keep(owner, &known);
	memcpy(id, look->id, DIGEST_BYTES);
	return 0;
}

int ticket_stored(struct slice bytes, struct ticket *out, uint8_t id[DIGEST_BYTES],
	const struct cert_info **owner, struct errmsg *em)
{
	struct ticket_look look;
	int rc = ticket_look(bytes, &look, em);

	return rc < 0 ? rc : ticket_seen(&look, out, id, owner, em);
}

/* A carrier has the lesser of its owner's and its author's rights: owner is the launch's own role, all
 * others count only where both have them. */
unsigned carrier_roles(const struct cert_info *owner, const struct cert_info *author)
{
	return (owner->roles & ROLE_OWNER) | (author ? owner->roles & author->roles : 0);
}

/* ---- code */

static void code_free(struct code *c)
{
	if (c) {
		blob_free(&c->bundle);
		manifest_fini(&c->manifest);
		free(c);
	}
}

/* Make room for one of so many bytes: what was used longest ago goes, it can be had from the store
 * again. */
static void codes_trim(struct kernel *k, size_t bytes)
{
	for (;;) {
		struct code *c, *oldest = NULL;
		size_t it = 0, all = bytes;

		while ((c = map_next(k->codes, &it, NULL, NULL))) {
			all += blob_slice(&c->bundle).n;
			if (!oldest || c->used_ms < oldest->used_ms)
				oldest = c;
		}
		if (!oldest || (map_size(k->codes) < CODES_MAX && all <= CODES_BYTES_MAX))
			return;
		map_del(k->codes, oldest->digest, DIGEST_BYTES);
		code_free(oldest);
	}
}

/* Names that belong to the system are nobody's to take. */
static int name_free(const char *name, struct errmsg *em)
{
	static const char *const reserved[] = { "tos.", "tacoma.", "java." };

	for (size_t i = 0; i < ARRAY_LEN(reserved); i++)
		if (strncmp(name, reserved[i], strlen(reserved[i])) == 0)
			return err_set(em, ERR_NAME, "the name %s belongs to the system", name);
	return 0;
}

/* A file in the place of a standard library would never be loaded, and mislead whoever reads the
 * code. */
static int file_free(const char *file, struct errmsg *em)
{
	static const char *const reserved[] = { "coroutine.lua", "math.lua", "string.lua",
		"table.lua", "tos.lua", "utf8.lua" };

	for (size_t i = 0; i < ARRAY_LEN(reserved); i++)
		if (strcmp(file, reserved[i]) == 0)
			return err_set(em, ERR_NAME,
				"the file %s has the name of a standard library", file);
	return name_free(file, em);
}

static int manifest_rules(const struct manifest *m, const struct bundle *b,
	const struct cert_info *author, int64_t skew_ms, struct errmsg *em)
{
	bool entry = false;
	int rc;

	if (author->kind != CERT_PRINCIPAL || !(author->roles & (ROLE_AUTHOR | ROLE_ADMIN)))
		return err_set(em, ERR_DENIED, "%s signed the code but has not the role author",
			author->name);
	if (strcmp(m->runtime, "lua5.4") != 0)
		return err_set(
			em, ERR_UNSUPPORTED, "no runtime %s here, only lua5.4", m->runtime);
	if (m->expires_ms < clock_wall_ms() - skew_ms)
		return err_set(em, ERR_EXPIRED, "the manifest of %s has expired", m->name);
	if (m->issued_ms > clock_wall_ms() + skew_ms)
		return err_set(em, ERR_NOT_YET, "the manifest of %s is not yet valid", m->name);
	rc = name_free(m->name, em);
	for (uint64_t i = 0; i < m->n_files && rc == 0; i++)
		rc = strcmp(m->files[i].name, m->entry) == 0 ? name_free(m->entry, em)
							     : file_free(m->files[i].name, em);
	if (rc < 0)
		return rc;
	if (b->n_files != m->n_files)
		return err_set(
			em, ERR_MALFORMED, "the bundle has other files than its manifest says");
	for (uint64_t i = 0; i < m->n_files; i++) {
		bool found = false;

		for (uint64_t j = 0; j < b->n_files && !found; j++) {
			uint8_t digest[DIGEST_BYTES];

			if (!slice_equal(b->files[j].name, slice_text(m->files[i].name)))
				continue;
			digest_bytes(b->files[j].content.p, b->files[j].content.n, digest);
			if (memcmp(digest, m->files[i].digest, sizeof(digest)) != 0)
				return err_set(em, ERR_SIGNATURE,
					"file %s is not what its author signed",
					m->files[i].name);
			found = true;
		}
		if (!found)
			return err_set(em, ERR_MALFORMED, "file %s is missing in the bundle",
				m->files[i].name);
		entry |= strcmp(m->files[i].name, m->entry) == 0;
	}
	return entry ? 0
		     : err_set(em, ERR_MALFORMED, "the entry %s is not in the bundle",
			       m->entry);
}

int code_verify(struct kernel *k, struct slice bytes, struct code **out, struct errmsg *em)
{
	uint8_t digest[DIGEST_BYTES];
	struct trust trust;
	struct bundle *b;
	struct code *c;
	struct cose cose;
	int rc;

	digest_bytes(bytes.p, bytes.n, digest);
	b = mem_new(struct bundle);
	c = mem_new(struct code);
	kernel_trust(k, &trust);
	rc = bundle_decode(bytes, b, em);
	if (rc == 0)
		rc = cose_verify(&trust, "manifest", b->manifest_cose, &cose, &c->author, em);
	if (rc == 0)
		rc = manifest_decode(cose.payload, &c->manifest, em);
	if (rc == 0)
		rc = manifest_rules(&c->manifest, b, &c->author, k->config.skew_ms, em);
	free(b);
	if (rc < 0) {
		code_free(c);
		return err_wrap(em, rc, "the code");
	}
	memcpy(c->digest, digest, sizeof(digest));
	c->used_ms = c->checked_ms = clock_ms();
	c->checked_revocation = kernel_trust_number(k);
	struct code *known = map_find(k->codes, digest, sizeof(digest));

	if (known) {
		code_free(c);
		known->used_ms = known->checked_ms = clock_ms();
		known->checked_revocation = kernel_trust_number(k);
		*out = known;
		return 0;
	}
	blob_set(&c->bundle, bytes);
	codes_trim(k, bytes.n);
	map_put(k->codes, c->digest, DIGEST_BYTES, c);
	*out = c;
	return 0;
}

struct code *code_find(struct kernel *k, const uint8_t digest[DIGEST_BYTES], struct errmsg *em)
{
	struct code *c = map_find(k->codes, digest, DIGEST_BYTES);
	AUTOBUF bytes = BUF_MAX((size_t)64 << 20);
	struct code *found = NULL;

	/* Known code is checked again: its author may have been revoked, its certificate may have
	 * run out. Not more than once a second under the same revocation list. */
	if (c && clock_ms() - c->checked_ms < CODE_CHECK_MS &&
		c->checked_revocation == kernel_trust_number(k)) {
		c->used_ms = clock_ms();
		return c;
	}
	if (c) {
		if (code_verify(k, blob_slice(&c->bundle), &found, em) < 0)
			return NULL;
		return found;
	}
	if (store_get(k->store, T_CODE, digest, DIGEST_BYTES, &bytes, em) < 0 ||
		code_verify(k, slice_buf(&bytes), &found, em) < 0)
		return NULL;
	if (memcmp(found->digest, digest, DIGEST_BYTES) != 0) {
		err_set(em, ERR_STORE, "the code in the store is not what its digest says");
		return NULL;
	}
	return found;
}

/* ---- limits and numbers */

int admit_limits(struct kernel *k, const int64_t asked[LIMIT_COUNT],
	const int64_t minimum[LIMIT_COUNT], int64_t out[LIMIT_COUNT], struct errmsg *em)
{
	limits_least(out, asked, k->config.limits);
	for (int i = 0; i < LIMIT_COUNT; i++)
		if (minimum[i] >= 0 && out[i] < minimum[i])
			return err_set(em, ERR_LIMIT,
				"limit %s: the carrier needs %lld, %s grants %lld",
				limit_names[i], (long long)minimum[i], k->config.name,
				(long long)out[i]);
	return 0;
}

int admit_author(struct kernel *k, const struct cert_info *owner,
	const struct cert_info *author, const char *action, struct errmsg *em)
{
	struct origin who = {
		.cls = ORIGIN_CARRIER, .roles = owner->roles, .owner_only = rights_of(k, owner)
	};

	snprintf(who.name, sizeof(who.name), "%s", owner->name);
	snprintf(who.principal, sizeof(who.principal), "%s", owner->name);
	snprintf(who.author, sizeof(who.author), "%s", author->name);
	who.author_only = rights_of(k, author);
	return kernel_allowed(k, &who, action, k->config.name, owner->name, em);
}

int admit_check(struct kernel *k, const struct cert_info *owner, const char *action,
	bool counts, struct errmsg *em)
{
	struct origin who = {
		.cls = ORIGIN_CARRIER, .roles = owner->roles, .owner_only = rights_of(k, owner)
	};
	size_t here;
	int rc;

	snprintf(who.name, sizeof(who.name), "%s", owner->name);
	snprintf(who.principal, sizeof(who.principal), "%s", owner->name);
	rc = kernel_allowed(k, &who, action, k->config.name, owner->name, em);
	if (rc == 0)
		rc = admission_closed(k, em) ? ERR_STORE : 0;
	/* Somebody may have been revoked since. What is launched here is another matter. */
	if (rc == 0 && strcmp(action, "arrive") == 0 && !fresh_enough(k, em))
		rc = ERR_EXPIRED;
	/* Nobody could have it move on. It may have been removed since the last one came. */
	if (rc == 0 && counts && strcmp(action, "arrive") == 0 &&
		!ext_hook(k->exts, TOS_INBOX_ON_COMPLETION, 0))
		rc = err_set(
			em, ERR_UNSUPPORTED, "%s has no mobility extension", k->config.name);
	/* As good as not there: those that would come wait, or go elsewhere. */
	if (rc == 0 && counts && k->draining)
		rc = err_set(em, strcmp(action, "arrive") == 0 ? ERR_UNREACHABLE : ERR_STATE,
			"%s is being drained (tos drain)", k->config.name);
	if (rc < 0 || !counts)
		return rc;
	here = map_size(k->residents) + map_size(k->arrivals);
	/* Once it was sent, an arrival is itself among the arrivals. */
	if (here > k->config.carriers ||
		(here == k->config.carriers &&
			(strcmp(action, "arrive") != 0 || map_size(k->arrivals) == 0)))
		return err_set(em, ERR_LIMIT, "limit carriers: %s holds %zu", k->config.name,
			map_size(k->residents));
	if (residents_of(k, owner->name) >= k->config.carriers_per_principal)
		return err_set(em, ERR_LIMIT, "limit carriers_per_principal: %s has %zu at %s",
			owner->name, residents_of(k, owner->name), k->config.name);
	return 0;
}

/* ---- hooks */

struct hooks {
	struct resident *r; /* an arrival's is kept by whoever runs the hooks; */
	bool resident;      /* one that is in the table may end meanwhile */
	uint32_t flag;
	size_t next;
	char dest[64], from[64], by[64], name[NAME_BYTES_MAX + 1];
	hooks_done_fn *done;
	void *arg;
};

static void hooks_step(struct kernel *k, struct hooks *h);

static struct tos_value *hook_args(struct resident *r, const struct hooks *h)
{
	struct tos_value *m = tos_map(), *limits = tos_map(), *show = resident_show(r);
	struct code *code = map_find(r->k->codes, r->code_digest, DIGEST_BYTES);
	struct tos_value *files = tos_array();

	for (uint64_t i = 0; code && i < code->manifest.n_files; i++)
		tos_push(files, tos_text(code->manifest.files[i].name));
	tos_set(m, "files", files);
	tos_set(m, "name", tos_text(r->name));
	tos_set(m, "owner", tos_text(r->owner->name));
	tos_set(m, "author", tos_text(r->author->name));
	tos_set(m, "home", tos_text(r->ticket.home));
	tos_set(m, "from", tos_text(h->from));
	tos_set(m, "dest", tos_text(h->dest));
	tos_set(m, "path", tos_value_copy(r->path));
	tos_set(m, "code", tos_bytes(r->code_digest, DIGEST_BYTES));
	tos_set(m, "folders", tos_value_copy(tos_get(show, "folders")));
	for (int i = 0; i < LIMIT_COUNT; i++)
		tos_set(limits, limit_names[i], tos_int(r->usage.limit[i]));
	tos_set(m, "limits", limits);
	tos_set(m, "hop", tos_int((int64_t)r->hop_count));
	tos_value_free(show);
	return m;
}

static int change_briefcase(struct resident *r, const struct tos_value *set,
	const struct tos_value *unset, struct errmsg *em)
{
	struct tos_value *b = NULL;
	uint8_t *bytes = NULL;
	size_t n = 0;
	int rc;

	if (tos_decode(r->briefcase.p, r->briefcase.n, (size_t)256 << 20, &b) < 0)
		return 0;
	for (size_t i = 0; i < tos_len(set); i++)
		tos_set_value(b, tos_value_copy(tos_key_at(set, i)),
			tos_value_copy(tos_value_at(set, i)));
	for (size_t i = 0; i < tos_len(unset); i++)
		tos_unset(b, tos_as_text(tos_at(unset, i), ""));
	if (tos_encode(b, &bytes, &n) == 0 &&
		briefcase_check((struct slice){ bytes, n }, NULL) == 0) {
		rc = seals_kept(r, (struct slice){ bytes, n }, em);
		if (rc == 0)
			blob_set(&r->briefcase, (struct slice){ bytes, n });
	} else {
		rc = 0;
	}
	free(bytes);
	tos_value_free(b);
	return rc;
}

/* Replace files for this stay only; what travels on is the author's bundle. */
static void change_code(struct resident *r, const struct tos_value *files)
{
	struct bundle *b = mem_new(struct bundle);
	AUTOBUF out = BUF_MAX((size_t)64 << 20);
	struct slice *names = mem_zero(sizeof(*names) * MANIFEST_FILES_MAX);
	struct slice *contents = mem_zero(sizeof(*contents) * MANIFEST_FILES_MAX);

	if (bundle_decode(blob_slice(&r->code), b, NULL) == 0) {
		for (uint64_t i = 0; i < b->n_files; i++) {
			char name[129];
			size_t n;
			const uint8_t *p;

			slice_copy_text(b->files[i].name, name, sizeof(name));
			p = tos_get_bytes(files, name, &n);
			names[i] = b->files[i].name;
			contents[i] = p ? (struct slice){ p, n } : b->files[i].content;
		}
		bundle_encode(&out, b->manifest_cose, names, contents, (size_t)b->n_files);
		if (buf_check(&out) == 0) {
			blob_set(&r->code, slice_buf(&out));
			r->code_changed = true;
		}
	}
	free(names);
	free(contents);
	free(b);
}

/* Fails where it would break what the owner sealed: the next kernel would refuse the carrier; and with an
 * automaton that is none. by: the inbox of an arrival's hook; NULL: a departure's. */
static int hook_apply(
	struct resident *r, const char *by, const struct tos_value *m, struct errmsg *em)
{
	const struct tos_value *path = tos_get(m, "path"), *limits = tos_get(m, "limits");
	int rc = 0;

	if (tos_type(path) == TOS_ARRAY) {
		tos_value_free(r->path);
		r->path = tos_value_copy(path);
	}
	if (tos_get(m, "set") || tos_get(m, "unset"))
		rc = change_briefcase(r, tos_get(m, "set"), tos_get(m, "unset"), em);
	for (int i = 0; i < LIMIT_COUNT; i++) {
		int64_t v = tos_get_int(limits, limit_names[i], r->usage.limit[i]);

		if (v >= 0 && v < r->usage.limit[i])
			r->usage.limit[i] = v; /* a hook takes away, it never grants */
	}
	if (tos_type(tos_get(m, "code")) == TOS_MAP)
		change_code(r, tos_get(m, "code"));
	if (rc == 0 && by && tos_get(m, "automaton"))
		rc = automata_add(r, by, tos_get(m, "automaton"), em);
	return rc;
}

static void hook_answered(
	struct kernel *k, void *arg, int rc, const char *text, const struct tos_value *elements)
{
	struct hooks *h = arg;
	struct errmsg em = { "" };

	if (h->resident && resident_find(k, h->name) != h->r) {
		rc = ERR_CANCELLED;
		text = "the carrier has ended";
	}
	if (rc < 0) {
		h->done(k, h->arg, rc, text);
		free(h);
		return;
	}
	rc = hook_apply(
		h->r, h->flag == TOS_INBOX_ON_ARRIVAL ? h->by : NULL, tos_at(elements, 0), &em);
	if (rc < 0) {
		h->done(k, h->arg, rc, err_show(rc, &em));
		free(h);
		return;
	}
	hooks_step(k, h);
}

static void hooks_over(struct kernel *k, void *arg)
{
	struct hooks *h = arg;

	h->done(k, h->arg, 0, "");
	free(h);
}

static void hooks_step(struct kernel *k, struct hooks *h)
{
	const char *inbox = ext_hook(k->exts, h->flag, h->next++);

	if (!inbox) {
		kernel_later(k, hooks_over, h);
		return;
	}
	snprintf(h->by, sizeof(h->by), "%s", inbox);
	kernel_call(k, "", inbox, h->flag == TOS_INBOX_ON_ARRIVAL ? "ARRIVAL" : "DEPARTURE",
		hook_args(h->r, h), k->config.hook_ms, hook_answered, h);
}

void hooks_run(struct kernel *k, struct resident *r, uint32_t flag, const char *dest,
	const char *from, hooks_done_fn *done, void *arg)
{
	struct hooks *h = mem_new(struct hooks);

	h->r = r;
	h->resident = resident_find(k, r->name) == r;
	h->flag = flag;
	snprintf(h->name, sizeof(h->name), "%s", r->name);
	snprintf(h->dest, sizeof(h->dest), "%s", dest);
	snprintf(h->from, sizeof(h->from), "%s", from);
	h->done = done;
	h->arg = arg;
	hooks_step(k, h);
}

/* ---- who may not run any more */

bool resident_revoked(struct resident *r)
{
	if (!cert_revoked(r->k, r->owner) && !cert_revoked(r->k, r->author))
		return false;
	resident_end(r, SHELL_EV_KILL, "the certificate of its owner or author was revoked");
	return true;
}

void residents_revoked(struct kernel *k)
{
	struct resident *r;
	size_t it = 0;

	/* Once each: one whose end is being written down stays in the table until that is durable. */
	while ((r = map_next(k->residents, &it, NULL, NULL)))
		if (r->state != SHELL_DEPARTING)
			resident_revoked(r);
}
