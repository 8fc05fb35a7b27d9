/*
 * What Download is asked for: GET, read and held against the places.
 */
#include "download.h"

#include <stdlib.h>
#include <string.h>

void ask_refused(
	struct tos_ext *x, const struct ask *a, const char *url, int rc, const char *text)
{
	struct tos_value *m = tos_map();

	tos_count(x, rc == TOS_ERR_DENIED ? "refused" : "failed", 1);
	tos_set(m, "url", tos_text(url));
	tos_set(m, "who", tos_text(a->sender));
	tos_set(m, "owner", tos_text(a->owner));
	tos_set(m, "code", tos_int(rc));
	tos_set(m, "text", tos_text(text));
	tos_audit(x, rc == TOS_ERR_DENIED ? "download-refused" : "download-failed", m);
}

void ask_refuse(
	struct tos_ext *x, const struct ask *a, const char *url, int rc, const char *text)
{
	struct tos_value *m, *e;

	ask_refused(x, a, url, rc, text);
	if (a->token)
		tos_fail(x, a->token, rc, text);
	if (!a->progress[0])
		return;
	m = tos_map();
	tos_set(m, "state", tos_text("failed"));
	tos_set(m, "url", tos_text(url));
	tos_set(m, "code", tos_int(rc));
	tos_set(m, "text", tos_text(text));
	e = tos_array();
	tos_push(e, m);
	tos_post(x, a->progress, "progress", e);
}

bool place_lists(struct tos_ext *x, const struct url *u, bool *admits)
{
	const char *place;
	bool found = false, admit;

	*admits = false;
	for (size_t i = 0; (place = tos_place(x, i)); i++)
		if (url_at(u, place, &admit)) {
			found = true;
			*admits |= admit;
		}
	return found;
}

/* ---- GET */

static bool digest_arg(const struct tos_value *m, uint8_t out[32])
{
	const struct tos_value *v = tos_get(m, "sha256");
	size_t n;
	const uint8_t *p = tos_as_bytes(v ? v : tos_get(m, "digest"), &n);

	if (p && n == 32) {
		memcpy(out, p, 32);
		return true;
	}
	return tos_type(v) == TOS_TEXT && hex_digest(tos_as_text(v, ""), out);
}

static void copy(char *out, size_t cap, const char *s)
{
	snprintf(out, cap, "%s", s);
}

/* The kernels named must be places, too: "tos://host1" or "tos://" and a star. */
static const char *peer_add(struct tos_ext *x, struct ask *a, const char *name)
{
	struct url u = { .scheme = "tos" };
	bool admits;

	if (strcmp(name, tos_kernel_name(x)) == 0)
		return NULL;
	copy(u.host, sizeof(u.host), name);
	if (!place_lists(x, &u, &admits))
		return name;
	if (a->n_peers < PEERS_MAX)
		copy(a->peers[a->n_peers++], sizeof(a->peers[0]), name);
	return NULL;
}

static int ask_read(
	struct tos_ext *x, const struct tos_value *m, struct ask *a, char *text, size_t cap)
{
	const char *url = tos_get_text(m, "url", ""), *wrong = url_parse(url, &a->url);
	const struct tos_value *peers = tos_get(m, "peers"), *via = tos_get(m, "via");
	const char *base;
	uint8_t named[32];

	if (wrong) {
		copy(a->url.text, sizeof(a->url.text), url);
		snprintf(text, cap, "'%.200s': %s", url, wrong);
		return TOS_ERR_DENIED;
	}
	if (!place_lists(x, &a->url, &a->place_admits)) {
		snprintf(text, cap, "%s: no place of this kernel's Download lists it",
			a->url.text);
		return TOS_ERR_DENIED;
	}
	a->admit = tos_get_bool(m, "admit", false);
	if (a->admit && !a->place_admits) {
		snprintf(text, cap, "%s: nothing from there is admitted by its place",
			a->url.text);
		return TOS_ERR_DENIED;
	}
	if (strcmp(a->url.scheme, "tos") == 0) {
		if (!url_digest(&a->url, a->digest)) {
			snprintf(text, cap, "%s: it is tos://KERNEL/sha256/HEX", a->url.text);
			return TOS_ERR_MALFORMED;
		}
		if (digest_arg(m, named) && memcmp(named, a->digest, 32) != 0) {
			snprintf(text, cap, "%s: sha256 is another digest", a->url.text);
			return TOS_ERR_DIGEST;
		}
	} else if (!digest_arg(m, a->digest)) {
		snprintf(text, cap, "sha256 is missing: 64 hexadecimal digits, or a statement");
		return TOS_ERR_MALFORMED;
	}
	for (size_t i = 0; i < tos_len(peers); i++) {
		wrong = peer_add(x, a, tos_as_text(tos_at(peers, i), ""));
		if (wrong) {
			snprintf(text, cap,
				"peer %.63s: no place of this kernel's Download lists tos://%.63s",
				wrong, wrong);
			return TOS_ERR_DENIED;
		}
	}
	for (size_t i = 0; i < tos_len(via); i++) {
		struct ask none = { .token = 0 };

		wrong = peer_add(x, &none, tos_as_text(tos_at(via, i), ""));
		if (wrong) {
			snprintf(text, cap,
				"via %.63s: no place of this kernel's Download lists tos://%.63s",
				wrong, wrong);
			return TOS_ERR_DENIED;
		}
	}
	a->via = tos_len(via) ? tos_value_copy(via) : NULL;
	base = strrchr(a->url.path, '/');
	copy(a->name, sizeof(a->name), tos_get_text(m, "name", ""));
	if (!a->name[0])
		snprintf(a->name, sizeof(a->name), "%.*s", (int)strcspn(base + 1, "?"),
			base + 1);
	copy(a->kind, sizeof(a->kind), tos_get_text(m, "kind", "program"));
	copy(a->version, sizeof(a->version), tos_get_text(m, "version", ""));
	copy(a->machine, sizeof(a->machine), tos_get_text(m, "machine", "any"));
	a->size = tos_get_int(m, "size", -1);
	a->max = tos_get_int(m, "max", 0);
	return 0;
}

/* Progress goes to whoever asked, and to nobody else: to the client, or to an inbox of the carrier's
 * own. */
static void progress_set(struct ask *a, const struct tos_value *m, const char *sender)
{
	const char *inbox = tos_get_text(m, "progress", "");

	if (!inbox[0])
		return;
	if (strstr(sender, "/client/"))
		copy(a->progress, sizeof(a->progress), sender);
	else if (strchr(sender, '#') && !strchr(inbox, '/') && strlen(inbox) < 32)
		snprintf(a->progress, sizeof(a->progress), "%.159s/%.31s", sender, inbox);
}

struct signed_ask {
	struct ask ask;
	struct tos_value *m;
};

static void get_with(struct tos_ext *x, struct ask *a, const struct tos_value *m)
{
	char text[600];
	int rc = ask_read(x, m, a, text, sizeof(text));

	if (rc == 0) {
		tos_count(x, "requests", 1);
		ask_do(x, a);
		return;
	}
	ask_refuse(x, a, a->url.text, rc, text);
	tos_value_free(a->via);
}

/* The kernel has looked at the signature: the digest is what it says. */
static void on_statement(struct tos_ext *x, void *arg, int rc, const char *text,
	const char *folder, const struct tos_value *elements)
{
	struct signed_ask *s = arg;
	size_t n;
	const uint8_t *p = tos_get_bytes(tos_at(elements, 0), "digest", &n);

	(void)folder;
	if (rc == 0 && p && n == 32) {
		tos_set(s->m, "sha256", tos_bytes(p, n));
		tos_set(s->m, "admit", tos_bool(false)); /* it is, already */
		get_with(x, &s->ask, s->m);
	} else {
		ask_refuse(x, &s->ask, tos_get_text(s->m, "url", ""),
			rc ? rc : TOS_ERR_MALFORMED,
			text ? text : "the kernel did not say which digest");
	}
	tos_value_free(s->m);
	free(s);
}

void ask_init(struct ask *a, struct tos_ext *x, const struct tos_message *m)
{
	*a = (struct ask){ .token = m->token, .size = -1 };
	copy(a->sender, sizeof(a->sender), m->sender);
	copy(a->owner, sizeof(a->owner), tos_get_text(m->info, "owner", ""));
	a->deadline_ms = tos_now_ms(x) + (m->token ? m->deadline_ms : 600000);
}

void ask_get(struct tos_ext *x, const struct tos_message *m)
{
	const struct tos_value *args = tos_at(m->elements, 0);
	struct ask a;
	struct signed_ask *s;
	struct tos_value *e, *statement;
	size_t n;
	const uint8_t *p = tos_get_bytes(args, "statement", &n);

	ask_init(&a, x, m);
	progress_set(&a, args, m->sender);
	if (!p) {
		get_with(x, &a, args);
		return;
	}
	s = calloc(1, sizeof(*s));
	if (!s) {
		if (a.token)
			tos_fail(x, a.token, TOS_ERR_NOMEM, "no memory");
		return;
	}
	s->ask = a;
	s->m = tos_value_copy(args);
	e = tos_array();
	statement = tos_map();
	tos_set(statement, "statement", tos_bytes(p, n));
	tos_push(e, statement);
	if (tos_call(x, "Content", "ADMIT", e, 10000, on_statement, s) < 0) {
		tos_value_free(s->m);
		free(s);
		if (a.token)
			tos_fail(x, a.token, TOS_ERR_IO, NO_CALLS);
	}
}
