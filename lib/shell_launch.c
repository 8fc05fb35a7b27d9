/* The owner's ticket for a shell, and its launch by a kernel. */
#include "lib/shell.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/mem.h"
#include "lib/groups.h"
#include "lib/internal.h"
#include "seal/folders.h"

#define UPLOAD_FROM     ((size_t)512 << 10) /* a larger launch goes ahead in chunks */
#define DAY_MS          ((int64_t)86400000)
#define LAUNCH_AGAIN_MS 20000 /* how long a home that went away is waited for */

static int ask_one(struct tos_connection *c, const char *verb, struct tos_value *args,
	struct tos_value **out, struct errmsg *em)
{
	struct tos_value *elements = tos_array(), *answer = NULL;
	int rc = tos_push(elements, args ? args : tos_map());

	if (rc == 0)
		rc = tos_ask(c, "Control", verb, elements, 30000, NULL, &answer, public_of(em));
	tos_value_free(elements);
	if (rc == 0)
		*out = tos_take_at(answer, 0);
	tos_value_free(answer);
	if (rc == 0 && !*out)
		return err_set(em, ERR_MALFORMED, "the kernel's answer to %s is empty", verb);
	return rc;
}

int connection_kernels(struct tos_connection *c, struct names *out, struct errmsg *em)
{
	struct tos_value *list = NULL;
	int rc = ask_one(c, "KERNELS", NULL, &list, em);

	if (rc == 0)
		rc = names_add(out, tos_connection_kernel(c));
	for (size_t i = 0; rc == 0 && i < tos_len(list); i++) {
		const char *name = tos_get_text(tos_at(list, i), "name", "");

		if (*name && strcmp(name, tos_connection_kernel(c)) != 0)
			rc = names_add(out, name);
	}
	if (rc == 0 && out->n)
		qsort(out->v, out->n, sizeof(*out->v), names_compare);
	tos_value_free(list);
	return rc;
}

/* With every group expanded. */
static int path_members(const char *path, struct tos_connection *c, const struct names *all,
	struct tos_value **out, struct errmsg *em)
{
	struct groups groups = { .value = NULL };
	int rc = strchr(path, '@') ? groups_find(c, &groups, em) : 0;

	rc = rc ? rc : path_entries(path, &groups, all, out, em);
	groups_fini(&groups);
	return rc;
}

int shell_unknown_hosts(const struct tos_shell *s, struct tos_connection *c,
	struct buf *unknown, struct buf *known, struct errmsg *em)
{
	struct names all = { NULL, 0 };
	struct tos_value *entries = NULL;
	int rc = *s->path ? connection_kernels(c, &all, em) : 0;

	if (rc == 0 && *s->path)
		rc = path_members(s->path, c, &all, &entries, em);
	for (size_t i = 0; rc == 0 && i < tos_len(entries); i++) {
		char name[64];

		for (unsigned k = 0;
			path_alternative(tos_as_text(tos_at(entries, i), ""), k, name); k++) {
			bool found = false;

			for (size_t j = 0; j < all.n; j++)
				found = found || strcmp(all.v[j], name) == 0;
			if (!found)
				buf_printf(unknown, "%s%s", unknown->len ? ", " : "", name);
		}
	}
	for (size_t j = 0; j < all.n; j++)
		buf_printf(known, "%s%s", known->len ? ", " : "", all.v[j]);
	tos_value_free(entries);
	names_fini(&all);
	return rc;
}

int path_expand(
	const char *path, struct tos_connection *c, struct tos_value **out, struct errmsg *em)
{
	struct names all = { NULL, 0 };
	int rc = strchr(path, '@') ? connection_kernels(c, &all, em) : 0;

	if (rc == 0)
		rc = path_members(path, c, &all, out, em);
	names_fini(&all);
	return rc;
}

int signer_expired(const struct signer *s, struct errmsg *em)
{
	char when[CLOCK_TEXT_BYTES];

	if (s->info.not_after_ms > clock_wall_ms())
		return 0;
	return err_set(em, ERR_EXPIRED,
		"the certificate of %s ran out at %s; 'tos principal renew %s', where the root key "
		"is, gives the key a new one",
		s->info.name, clock_text(s->info.not_after_ms, when), s->info.name);
}

static int64_t ticket_expiry(const struct tos_shell *s, const struct signer *owner, int64_t now)
{
	int64_t at = now + (s->expires_ms ? s->expires_ms : s->limits[LIMIT_lifetime] + DAY_MS);

	return at > owner->info.not_after_ms ? owner->info.not_after_ms : at;
}

/* What NAME answered goes in: the home chose the name and the nonce. */
static int ticket_make(const struct tos_shell *s, struct tos_connection *c,
	const struct signer *owner, const struct tos_value *named, struct slice briefcase,
	struct buf *out, struct errmsg *em)
{
	struct ticket t;
	size_t n = 0;
	const uint8_t *nonce = tos_get_bytes(named, "nonce", &n);
	int rc;

	memset(&t, 0, sizeof(t));
	if (n != sizeof(t.nonce))
		return err_set(em, ERR_MALFORMED, "the kernel gave no nonce for the ticket");
	memcpy(t.nonce, nonce, n);
	snprintf(t.name, sizeof(t.name), "%s", tos_get_text(named, "name", ""));
	snprintf(t.home, sizeof(t.home), "%s", tos_connection_kernel(c));
	digest_bytes(s->bundle.data, s->bundle.len, t.code);
	digest_bytes(briefcase.p, briefcase.n, t.briefcase);
	t.itinerant = s->itinerant;
	t.fast = s->fast;
	snprintf(t.on_unreachable, sizeof(t.on_unreachable), "%s", s->on_unreachable);
	memcpy(t.limits, s->limits, sizeof(t.limits));
	t.issued_ms = clock_wall_ms();
	t.expires_ms = ticket_expiry(s, owner, t.issued_ms);
	rc = signer_expired(owner, em);
	rc = rc ? rc : path_expand(s->path, c, &t.path, em);
	rc = rc ? rc : shell_sealed(s, &t.sealed, em);
	rc = rc ? rc : shell_appended(s, &t.append);
	if (rc == 0) {
		AUTOBUF payload = BUF_INIT;

		ticket_encode(&payload, &t);
		rc = buf_check(&payload);
		if (rc == 0)
			rc = cose_sign(owner, "ticket",
				(struct slice){ payload.data, payload.len }, out, em);
	}
	ticket_fini(&t);
	return rc;
}

static int launch_args(const struct tos_shell *s, struct tos_connection *c,
	const struct buf *ticket, struct slice briefcase, struct tos_value **out,
	struct errmsg *em)
{
	uint8_t digest[DIGEST_BYTES];
	struct tos_value *args = tos_map();
	int rc = tos_set(args, "ticket", tos_bytes(ticket->data, ticket->len));

	if (s->bundle.len + briefcase.n + ticket->len > UPLOAD_FROM) {
		digest_bytes(s->bundle.data, s->bundle.len, digest);
		if (rc == 0)
			rc = connection_upload(c, digest, s->bundle.data, s->bundle.len, em);
		digest_bytes(briefcase.p, briefcase.n, digest);
		if (rc == 0)
			rc = connection_upload(c, digest, briefcase.p, briefcase.n, em);
	} else {
		rc = rc ? rc : tos_set(args, "code", tos_bytes(s->bundle.data, s->bundle.len));
		rc = rc ? rc : tos_set(args, "briefcase", tos_bytes(briefcase.p, briefcase.n));
	}
	if (rc < 0)
		tos_value_free(args);
	else
		*out = args;
	return rc;
}

/* A name, and a ticket for it. */
static int launch_name(const struct tos_shell *s, struct tos_connection *c,
	const struct signer *owner, struct slice briefcase, struct buf *ticket, char name[129],
	struct errmsg *em)
{
	AUTOBUF made = BUF_INIT;
	struct tos_value *named = NULL;
	int rc = ask_one(c, "NAME", NULL, &named, em);

	if (rc == 0)
		rc = ticket_make(s, c, owner, named, briefcase, &made, em);
	if (rc == 0) {
		snprintf(name, 129, "%s", tos_get_text(named, "name", ""));
		buf_fini(ticket);
		*ticket = made;
		made = (struct buf)BUF_INIT;
	}
	tos_value_free(named);
	return rc;
}

static int launch_once(const struct tos_shell *s, struct tos_connection *c,
	const struct buf *ticket, struct slice briefcase, struct errmsg *em)
{
	struct tos_value *args = NULL, *launched = NULL;
	int rc = launch_args(s, c, ticket, briefcase, &args, em);

	if (rc == 0)
		rc = ask_one(c, "LAUNCH", args, &launched, em);
	tos_value_free(launched);
	return rc;
}

static bool kernel_went(int rc)
{
	return rc == ERR_CLOSED || rc == ERR_UNREACHABLE;
}

/* A kernel that goes away before it has answered may have the carrier or not. The same ticket again
 * finds out, and cannot launch twice: one that has it answers with its name, one that has not does not
 * know the ticket's nonce any more, and then there is a new one. */
static int launch_with(struct tos_shell *s, struct tos_connection *c,
	const struct signer *owner, struct slice briefcase, char name[129], struct errmsg *em)
{
	int64_t until = clock_ms() + LAUNCH_AGAIN_MS;
	const struct timespec pause = { 0, 50000000 };
	AUTOBUF ticket = BUF_INIT;
	char given[129] = "";
	bool went = false;
	int rc;

	for (;;) {
		rc = ticket.len ? 0 : launch_name(s, c, owner, briefcase, &ticket, given, em);
		rc = rc ? rc : launch_once(s, c, &ticket, briefcase, em);
		if (went && rc == ERR_REPLAY && clock_ms() < until) {
			buf_fini(&ticket);
			continue;
		}
		if ((!kernel_went(rc) && !(went && rc == ERR_STATE)) || clock_ms() >= until)
			break;
		went = true;
		nanosleep(&pause, NULL);
		connection_again(c, 2000, em); /* where it is not there, asking says so */
	}
	if (ticket.len && (kernel_went(rc) || rc == ERR_TIMEOUT))
		return err_set(em, rc,
			"%s has not answered: tos show %s says whether the carrier was launched",
			tos_connection_kernel(c), given);
	if (rc == 0)
		snprintf(name, 129, "%s", given);
	return rc;
}

int tos_shell_launch(struct tos_shell *s, struct tos_connection *c,
	const struct tos_principal *owner, char name[129], struct tos_error *err)
{
	const struct signer *o = principal_signer(owner);
	struct errmsg *em = em_of(err);
	uint8_t *briefcase = NULL;
	size_t n = 0;
	int rc = 0;

	if (!(o->info.roles & ROLE_OWNER))
		return err_set(em, ERR_DENIED,
			"%s may not launch: its certificate lacks the role owner",
			o->info.name);
	if (!s->bundle.len)
		rc = tos_shell_sign(s, owner, err);
	if (rc == 0)
		rc = tos_encode(s->briefcase, &briefcase, &n);
	if (rc == 0)
		rc = launch_with(s, c, o, (struct slice){ briefcase, n }, name, em);
	free(briefcase);
	return rc;
}
