/*
 * The router: every post passes here, whoever sent it. It takes the address apart, asks the
 * firewall, and hands the post to an inbox, a carrier, a client, or another kernel.
 * Those to carriers elsewhere are streams.c's.
 */
#include "kernel/trust/introduce.h"

#include <string.h>

#include "base/clock.h"
#include "base/fault.h"
#include "base/log.h"
#include "base/text.h"
#include "kernel/carrier/resident.h"
#include "kernel/handoff/moves.h"
#include "kernel/upload.h"
#include "kernel/trust/trust.h"
#include "tos/extension.h"

#define DENIALS_AUDITED_PER_S 20

/* ---- small things */

const char *origin_class_word(enum origin_class c)
{
	static const char *const words[] = { "kernel", "extension", "carrier", "client",
		"joiner" };

	return words[c];
}

void origin_self(const struct kernel *k, struct origin *o)
{
	*o = (struct origin){ .cls = ORIGIN_KERNEL, .may_read = true };
	snprintf(o->name, sizeof(o->name), "%s/Kernel", k->config.name);
}

void subject_of(const struct origin *from, struct subject *out)
{
	*out = (struct subject){ .class_name = origin_class_word(from->cls),
		.principal = from->principal,
		.roles = from->roles,
		.kernel = from->kernel,
		.author = from->author,
		.owner_only = from->owner_only,
		.author_only = from->author_only };
}

void audit_denial(struct kernel *k, const struct origin *from, const char *action,
	const char *object, const char *why)
{
	struct tos_value *m;

	metric_add(k->metrics, "denied_total", NULL, 1);
	if (!log_rate_ok(&k->rate_denied, DENIALS_AUDITED_PER_S))
		return;
	m = tos_map();
	tos_set(m, "who", tos_text(from->name));
	tos_set(m, "principal", tos_text(from->principal));
	tos_set(m, "action", tos_text(action));
	tos_set(m, "object", tos_text(object));
	tos_set(m, "rule", tos_text(why));
	audit_event(k, NULL, "denied", m);
	log_notice("denied", KV_STR("who", from->name), KV_STR("principal", from->principal),
		KV_STR("action", action), KV_STR("object", object), KV_STR("rule", why));
}

int kernel_allowed(struct kernel *k, const struct origin *from, const char *action,
	const char *object, const char *owner, struct errmsg *em)
{
	struct subject s;
	struct object o = { object, owner };
	const char *why = "";

	/* A host that joins has no principal yet: its token is checked by the Registrar. */
	if (from->cls == ORIGIN_JOINER && strcmp(action, "post") == 0 &&
		strcmp(object, "Registrar") == 0)
		return 0;
	subject_of(from, &s);
	if (firewall_check(k->firewall, &s, action, &o, &why) == 0)
		return 0;
	audit_denial(k, from, action, object, why);
	return err_set(em, ERR_DENIED, "%s may not %s %s at %s (%s)",
		from->principal[0] ? from->principal : from->name, action, object,
		k->config.name, why);
}

/* ---- failures and answers */

void kernel_answer(struct kernel *k, const char *dest, uint64_t tag, enum post_kind kind,
	const char *folder, const struct tos_value *elements)
{
	AUTOBUF bytes = BUF_MAX(FRAME_BYTES_MAX);
	const struct tos_value *parts[64];
	size_t n = tos_len(elements) < ARRAY_LEN(parts) ? tos_len(elements) : ARRAY_LEN(parts);
	struct origin self;
	struct errmsg em = { "" };
	int rc;

	for (size_t i = 0; i < n; i++)
		parts[i] = tos_at(elements, i);
	folder_encode(&bytes, folder, parts, n);
	origin_self(k, &self);
	struct post p = { .kind = kind,
		.dest = slice_text(dest),
		.sender = slice_text(self.name),
		.tag = tag,
		.folder = slice_buf(&bytes) };

	if ((buf_check(&bytes) < 0 || bytes.len > FRAME_BYTES_MAX - 512) &&
		kind == POST_ANSWER && content_answer(k, dest, tag, folder, elements) == 0)
		return;
	if (buf_check(&bytes) < 0 || bytes.len > FRAME_BYTES_MAX - 512) {
		/* The answer does not fit a frame; the caller is told so instead. */
		buf_clear(&bytes);
		struct tos_value *word = tos_text(err_word(ERR_TOO_LARGE));
		struct tos_value *text = tos_text("the answer does not fit a frame");

		folder_encode(
			&bytes, "failure", (const struct tos_value *const[]){ word, text }, 2);
		tos_value_free(word);
		tos_value_free(text);
		p.kind = POST_FAILURE;
		p.folder = slice_buf(&bytes);
	}
	rc = kernel_route(k, &self, &p, &em);
	if (rc < 0)
		metric_add(k->metrics, "answers_lost_total", NULL, 1);
}

void kernel_fail_back(struct kernel *k, const struct post *p, int rc, const char *text)
{
	struct tos_value *elements;
	char sender[NAME_BYTES_MAX + 1], label[64], why[ERRMSG_BYTES];

	snprintf(label, sizeof(label), "code=\"%s\"", err_word(rc));
	metric_add(k->metrics, "posts_failed_total", label, 1);
	if (p->kind == POST_ANSWER || p->kind == POST_FAILURE)
		return;
	slice_copy_text(p->sender, sender, sizeof(sender));
	snprintf(why, sizeof(why), "%s", text && text[0] ? text : err_text(rc));
	text_mend(why);
	elements = tos_array();
	tos_push(elements, tos_text(err_word(rc)));
	tos_push(elements, tos_text(why));
	if (p->kind == POST_CALL) {
		kernel_answer(k, sender, p->tag, POST_FAILURE, "failure", elements);
	} else {
		struct resident *r = resident_find(k, sender);

		/* Later failures of one-way posts go to the carrier's inbox `failures`. */
		if (r) {
			AUTOBUF bytes = BUF_INIT;
			struct origin self;
			struct errmsg em;
			struct post f;
			char own[NAME_BYTES_MAX + 16];
			struct tos_value *dest = tos_text_n((const char *)p->dest.p, p->dest.n);
			const struct tos_value *parts[] = { tos_at(elements, 0),
				tos_at(elements, 1), dest };

			origin_self(k, &self);
			folder_encode(&bytes, "failure", parts, 3);
			snprintf(own, sizeof(own), "%s/failures", r->name);
			f = (struct post){ .kind = POST_ONEWAY,
				.dest = slice_text(own),
				.sender = slice_text(self.name),
				.folder = slice_buf(&bytes) };
			resident_post(r, &self, &f, "failures", &em);
			tos_value_free(dest);
		}
	}
	tos_value_free(elements);
}

/* ---- to inboxes here */

static struct tos_value *origin_info(const struct origin *from)
{
	struct tos_value *info = tos_map();
	struct tos_value *roles = tos_array();

	tos_set(info, "class", tos_text(origin_class_word(from->cls)));
	tos_set(info, "kernel", tos_text(from->kernel));
	tos_set(info, "owner", tos_text(from->principal));
	for (unsigned bit = 1; bit <= ROLE_OFFICER; bit <<= 1)
		if (from->roles & bit)
			tos_push(roles, tos_text(role_word((enum role)bit)));
	tos_set(info, "roles", roles);
	return info;
}

/* What a durable extension needs to tell a repeat from a new request (doc/protocol.md,
 * "Hand-off"). */
static void incarnation_info(struct kernel *k, const struct origin *from, const struct post *p,
	struct tos_value *info)
{
	struct resident *r = resident_find(k, from->name);

	if (!r)
		return;
	tos_set(info, "id", tos_bytes(r->id, sizeof(r->id)));
	tos_set(info, "e", incarnation_value(&r->e));
	tos_set(info, "n", tos_int((int64_t)r->n));
	tos_set(info, "seq", tos_int((int64_t)p->tag));
}

static int route_inbox(struct kernel *k, const struct origin *from, const struct post *p,
	const char *inbox, struct errmsg *em)
{
	bool answer = p->kind == POST_ANSWER || p->kind == POST_FAILURE;
	struct tos_value *info;
	uint32_t flags = 0;
	int rc;

	if (answer && strcmp(inbox, "Kernel") == 0) {
		calls_answer(k, from->kernel, p);
		return 0;
	}
	if (answer && inbox_is_kernels(inbox))
		return err_set(em, ERR_NOT_FOUND, "%s made no call", inbox);
	if (!answer) {
		rc = kernel_allowed(k, from, "post", inbox, "", em);
		if (rc < 0)
			return rc;
	}
	if (inbox_is_kernels(inbox)) {
		rc = inbox_dispatch(k, from, inbox, p, em);
		if (rc == ERR_DENIED)
			audit_denial(k, from, "post", inbox, "not for its class");
		return rc;
	}
	if (k->exts_gone || !ext_has_inbox(k->exts, inbox, &flags))
		return err_set(em, ERR_NO_INBOX, "%s has no inbox %s", k->config.name, inbox);
	info = origin_info(from);
	if (from->cls == ORIGIN_CARRIER && !from->kernel[0])
		incarnation_info(k, from, p, info);
	/* Extensions know the kernel that they live in by the empty name: nobody else can have
	 * it. */
	struct post to = *p;

	if (from->cls == ORIGIN_KERNEL && !from->kernel[0])
		to.sender = (struct slice){ (const uint8_t *)"", 0 };
	FAULT_AT(EXT_DELIVER);
	rc = ext_deliver(k->exts, inbox, &to, info, em);
	tos_value_free(info);
	if (rc == ERR_DENIED)
		audit_denial(k, from, "post", inbox, "extensions only");
	return rc;
}

static int route_client(
	struct kernel *k, const struct post *p, const char *name, struct errmsg *em)
{
	struct link *l = map_find_str(k->clients, name);
	AUTOBUF frame = BUF_MAX(FRAME_BYTES_MAX + 16);

	if (!l)
		return err_set(em, ERR_NOT_FOUND, "client %s is gone", name);
	post_encode(&frame, p);
	return buf_check(&frame) < 0 ? ERR_TOO_LARGE
				     : link_send(l, LINK_POSTS, frame.data, frame.len);
}

/* For whom another kernel has to be shown something before a post of his. */
const char *origin_vouched(const struct origin *from)
{
	return from->cls == ORIGIN_CARRIER || (from->cls == ORIGIN_CLIENT && from->principal[0])
		       ? from->name
		       : NULL;
}

static int route_remote(struct kernel *k, const struct origin *from, const struct post *p,
	const char *kernel, struct errmsg *em)
{
	AUTOBUF frame = BUF_MAX(FRAME_BYTES_MAX + 16);
	uint32_t wait_ms = p->deadline_ms ? p->deadline_ms : k->config.call_ms;

	if (from->kernel[0])
		return err_set(em, ERR_DENIED, "%s does not pass posts on to %s",
			k->config.name, kernel);
	/* There it would pass for any client that this kernel lets read. */
	if (from->cls == ORIGIN_CLIENT && from->principal[0] && !introduced_find(k, from->name))
		return err_set(em, ERR_DENIED,
			"a client with a certificate introduces itself (INTRODUCE at Control) before it posts to %s",
			kernel);
	post_encode(&frame, p);
	if (buf_check(&frame) < 0 || frame.len > FRAME_BYTES_MAX)
		return err_set(
			em, ERR_TOO_LARGE, "a post is at most %u bytes", FRAME_BYTES_MAX);
	return peer_send(k, kernel, slice_buf(&frame), clock_ms() + wait_ms, 0,
		origin_vouched(from), em);
}

/* ---- to carriers */

static int route_carrier(struct kernel *k, const struct origin *from, const struct post *p,
	const struct address *a, struct errmsg *em)
{
	struct resident *r = resident_find(k, a->carrier);
	bool answer = p->kind == POST_ANSWER || p->kind == POST_FAILURE;
	int rc;

	if (!answer) {
		rc = kernel_allowed(k, from, "post", "carrier", "", em);
		if (rc < 0)
			return rc;
	}
	/* Behind those of the same sender that are still being brought to it. */
	if (r && !shell_ended(r->state) &&
		(answer || from->kernel[0] || !stream_waits(k, from->name, a->carrier)))
		return resident_post(r, from, p, a->inbox, em);
	if (from->kernel[0])
		return err_set(
			em, ERR_NOT_FOUND, "%s is not at %s", a->carrier, k->config.name);
	if (answer && answer_sent(k, from, p, a->carrier))
		return 0;
	return stream_add(k, from, p, a->carrier, 0, em);
}

/* ---- all of it */

/* What goes before every rule: strangers reach the Registrar here and nothing else, and a local
 * user who may not read may not write either. Elsewhere their posts would pass for those of our
 * clients. */
static int may_post(struct kernel *k, const struct origin *from, const struct address *a,
	bool here, struct errmsg *em)
{
	const char *why = NULL;

	if (from->cls == ORIGIN_JOINER &&
		!(here && a->kind == ADDRESS_INBOX && strcmp(a->inbox, "Registrar") == 0))
		why = "a host that joins may only talk to the Registrar";
	else if (from->cls == ORIGIN_CLIENT && !from->may_read)
		why = "only the owner of the state directory and local.principals";
	if (!why)
		return 0;
	audit_denial(k, from, "post", a->inbox, why);
	return err_set(
		em, ERR_DENIED, "%s may not post to %s: %s", from->name, k->config.name, why);
}

/* An answer or failure to one of ours, from whom that one asked? */
static int may_answer(struct kernel *k, const struct origin *from, const struct post *p,
	const struct address *a, struct errmsg *em)
{
	char name[2 * NAME_BYTES_MAX];
	const char *caller = name;

	if (a->kind == ADDRESS_INBOX && inbox_is_kernels(a->inbox))
		return 0; /* calls.c knows what the kernel itself asked */
	if (a->kind == ADDRESS_CARRIER)
		caller = a->carrier;
	else
		snprintf(name, sizeof(name), "%s/%s%s", k->config.name,
			a->kind == ADDRESS_CLIENT ? "client/" : "", a->inbox);
	if (callers_answered(k, caller, from, p))
		return 0;
	metric_add(k->metrics, "answers_unexpected_total", NULL, 1);
	return err_set(em, ERR_DENIED, "%s was not asked by %s", from->name, caller);
}

/* A call of one of ours that somebody elsewhere may answer. */
static bool asks_elsewhere(
	const struct origin *from, const struct post *p, const struct address *a, bool here)
{
	return p->kind == POST_CALL && !from->kernel[0] && from->cls != ORIGIN_KERNEL &&
	       (!here || a->kind == ADDRESS_CARRIER);
}

/* Elsewhere the author of a carrier's code is not known, so what certificates restrict is asked here, too. */
static int narrowed(struct kernel *k, const struct origin *from, const struct post *p,
	const char *inbox, struct errmsg *em)
{
	struct subject s;
	const char *why = "";

	subject_of(from, &s);
	if (p->kind == POST_ANSWER || p->kind == POST_FAILURE ||
		firewall_narrow(&s, "post", &(struct object){ inbox, "" }, &why) == 0)
		return 0;
	audit_denial(k, from, "post", inbox, why);
	return err_set(em, ERR_DENIED, "%s may not post %s (%s)",
		from->principal[0] ? from->principal : from->name, inbox, why);
}

static int route_to(struct kernel *k, const struct origin *from, const struct post *p,
	const struct address *a, bool here, struct errmsg *em)
{
	if (a->kind == ADDRESS_CARRIER)
		return route_carrier(k, from, p, a, em);
	if (!here && a->kind == ADDRESS_INBOX && narrowed(k, from, p, a->inbox, em) < 0)
		return ERR_DENIED;
	if (!here)
		return route_remote(k, from, p, a->kernel, em);
	if (a->kind == ADDRESS_CLIENT) {
		char name[NAME_BYTES_MAX + 1];

		snprintf(name, sizeof(name), "%s/client/%s", k->config.name, a->inbox);
		return route_client(k, p, name, em);
	}
	return route_inbox(k, from, p, a->inbox, em);
}

int kernel_route(
	struct kernel *k, const struct origin *from, const struct post *p, struct errmsg *em)
{
	struct address a;
	int rc = address_parse((const char *)p->dest.p, p->dest.n, &a, em);
	bool here;

	if (rc < 0)
		return rc;
	*k->count.posts += 1;
	here = !a.kernel[0] || strcmp(a.kernel, k->config.name) == 0;
	rc = may_post(k, from, &a, here, em);
	if (rc < 0)
		return rc;
	if ((p->kind == POST_ANSWER || p->kind == POST_FAILURE) &&
		(here || a.kind == ADDRESS_CARRIER))
		rc = may_answer(k, from, p, &a, em);
	if (rc < 0)
		return rc;
	if (!asks_elsewhere(from, p, &a, here))
		return route_to(k, from, p, &a, here, em);
	rc = callers_note(k, from->name, p, &a, em);
	if (rc < 0)
		return rc;
	rc = route_to(k, from, p, &a, here, em);
	if (rc < 0)
		callers_forget(k, from->name, p->tag);
	return rc;
}

/* Who sends, as this peer may claim: its own kernel, extensions and clients, and carriers it
 * vouched for. */
static int origin_from_peer(struct kernel *k, const char *peer, struct slice sender,
	struct origin *out, struct errmsg *em)
{
	struct peer *p = map_find_str(k->peers, peer);
	const struct origin *vouched = p ? peer_vouched_for(k, p, sender) : NULL;
	struct address a;
	int rc = address_parse((const char *)sender.p, sender.n, &a, em);

	*out = (struct origin){ .cls = ORIGIN_EXTENSION };
	if (rc < 0 || !p)
		return rc < 0 ? rc : ERR_STATE;
	slice_copy_text(sender, out->name, sizeof(out->name));
	snprintf(out->kernel, sizeof(out->kernel), "%s", peer);
	if (a.kind == ADDRESS_CARRIER) {
		if (!vouched)
			return err_set(
				em, ERR_DENIED, "nobody vouches for %s at %s", a.carrier, peer);
		*out = *vouched;
		place_note(k, a.carrier, peer);
		return 0;
	}
	if (strcmp(a.kernel, peer) != 0)
		return err_set(em, ERR_DENIED, "%s does not speak for %.*s", peer,
			(int)sender.n, (const char *)sender.p);
	if (a.kind == ADDRESS_CLIENT && !vouched && introduced_forgotten(p, sender))
		return err_set(em, ERR_DENIED,
			"%s no longer knows whose %.*s is, so many clients of %s were introduced "
			"since: connect anew",
			k->config.name, (int)sender.n, (const char *)sender.p, peer);
	if (a.kind == ADDRESS_CLIENT && vouched)
		*out = *vouched;
	else if (a.kind == ADDRESS_CLIENT)
		out->cls = ORIGIN_CLIENT;
	else if (strcmp(a.inbox, "Kernel") == 0)
		out->cls = ORIGIN_KERNEL;
	out->may_read = true; /* its kernel checked the uid */
	return 0;
}

static int frame_post(
	struct kernel *k, struct link *l, struct cbor_cursor *c, struct errmsg *em)
{
	struct origin from;
	struct post p;
	int rc = post_decode(c, &p);

	if (rc < 0)
		return err_set(em, rc, "a post does not decode");
	link_consumed(l, LINK_POSTS, 1);
	if (link_kind(l) == LINK_KERNEL) {
		rc = origin_from_peer(k, link_name(l), p.sender, &from, em);
	} else {
		client_origin(k, l, &from);
		p.sender = slice_text(from.name);
		rc = p.kind == POST_ANSWER || p.kind == POST_FAILURE
			     ? err_set(em, ERR_DENIED, "a client does not answer calls")
			     : 0;
	}
	if (rc == ERR_DENIED)
		audit_denial(k, &from, "post", "", err_show(rc, em));
	if (rc == 0)
		rc = kernel_route(k, &from, &p, em);
	if (rc < 0) {
		/* The post failed, not the link. The sender's kernel passes the failure on. */
		AUTOBUF folder = BUF_INIT, frame = BUF_INIT;
		struct tos_value *word = tos_text(err_word(rc)),
				 *text = tos_text(err_show(rc, em));
		char label[64];

		snprintf(label, sizeof(label), "code=\"%s\"", err_word(rc));
		metric_add(k->metrics, "posts_failed_total", label, 1);
		if (p.kind == POST_CALL || p.kind == POST_ONEWAY) {
			struct tos_value *dest = tos_text_n((const char *)p.dest.p, p.dest.n);
			struct origin self;

			origin_self(k, &self);
			folder_encode(&folder, "failure",
				(const struct tos_value *const[]){ word, text, dest }, 3);
			tos_value_free(dest);
			post_encode(&frame, &(struct post){ .kind = POST_FAILURE,
						    .dest = p.sender,
						    .sender = slice_text(self.name),
						    .tag = p.tag,
						    .folder = slice_buf(&folder) });
			link_send(l, LINK_POSTS, frame.data, frame.len);
		}
		tos_value_free(word);
		tos_value_free(text);
	}
	return 0;
}

/* Content is staged in memory: not for strangers. */
static bool may_upload(struct kernel *k, struct link *l)
{
	struct origin from;

	if (link_kind(l) == LINK_KERNEL)
		return true;
	client_origin(k, l, &from);
	return from.cls == ORIGIN_CLIENT && from.may_read;
}

static int frame_carry(
	struct kernel *k, struct link *l, struct cbor_cursor *c, struct errmsg *em);
static int frame_taken(
	struct kernel *k, struct link *l, struct cbor_cursor *c, struct errmsg *em);

int kernel_frame(void *arg, struct link *l, struct slice frame, struct errmsg *em)
{
	struct kernel *k = arg;
	struct cbor_cursor c;
	struct chunk chunk;
	struct slice ticket, hops;
	int type;

	cbor_init(&c, frame.p, frame.n);
	type = frame_open(&c, frame);
	switch (type) {
	case FRAME_POST:
		return frame_post(k, l, &c, em);
	case FRAME_CHUNK:
		if (!may_upload(k, l))
			break;
		type = chunk_decode(&c, &chunk);
		link_consumed(l, LINK_CHUNKS, 1);
		return type < 0 ? type : upload_chunk(k, l, &chunk, em);
	case FRAME_VOUCH:
		if (link_kind(l) != LINK_KERNEL)
			break;
		type = vouch_decode(&c, &ticket, &hops);
		return type < 0 ? type : peer_vouch_frame(k, l, ticket, hops, em);
	case FRAME_CARRY:
	case FRAME_TAKEN:
		if (link_kind(l) != LINK_KERNEL || link_version(l) < 2)
			break;
		return type == FRAME_CARRY ? frame_carry(k, l, &c, em)
					   : frame_taken(k, l, &c, em);
	case FRAME_WANT:
	case FRAME_LACK:
		return 0; /* nothing is asked for in this version; a newer peer may */
	default:
		break;
	}
	return err_set(em, ERR_MALFORMED, "a frame of type %d is out of place here", type);
}

/* ---- posts to carriers, from other kernels */

/* A post to a carrier that is said to be here. ERR_MOVED: em has the kernel. */
static int deliver_here(struct kernel *k, const struct origin *from, const char *peer,
	const struct post *p, const struct address *a, struct errmsg *em)
{
	struct resident *r = resident_find(k, a->carrier);
	const char *place;
	int rc;

	if (r && !shell_ended(r->state)) {
		rc = p->kind == POST_ANSWER || p->kind == POST_FAILURE
			     ? may_answer(k, from, p, a, em)
			     : kernel_allowed(k, from, "post", "carrier", "", em);
		/* A kernel passes on no other kernel's posts: what would have to wait here
		 * waits where it was sent, in order, and comes again. */
		if (rc == 0 && resident_would_hold(r, a->inbox))
			return err_set(em, ERR_MOVED, "%s", k->config.name);
		return rc < 0 ? rc : resident_post(r, from, p, a->inbox, em);
	}
	place = place_find(k, a->carrier);
	if (place && strcmp(place, k->config.name) != 0 && strcmp(place, peer) != 0)
		return err_set(em, ERR_MOVED, "%s", place);
	return err_set(em, ERR_NOT_FOUND, "%s is not at %s", a->carrier, k->config.name);
}

/* What a kernel of version 1 sends: one at a time. */
static void deliver_verb(struct kernel *k, struct request *rq)
{
	struct origin from = { 0 };
	struct address a;
	struct post p = { .kind = POST_ONEWAY };
	struct errmsg em = { "" };
	const char *sender = tos_get_text(rq->args, "sender", "");
	int rc;

	p.kind = (enum post_kind)tos_get_int(rq->args, "kind", 0);
	p.dest = slice_text(tos_get_text(rq->args, "dest", ""));
	p.sender = slice_text(sender);
	p.tag = (uint64_t)tos_get_int(rq->args, "tag", 0);
	p.deadline_ms = (uint32_t)tos_get_int(rq->args, "deadline_ms", 0);
	p.folder.p = tos_get_bytes(rq->args, "folder", &p.folder.n);
	rc = address_parse((const char *)p.dest.p, p.dest.n, &a, &em);
	if (rc == 0 && (p.kind > POST_FAILURE || !p.folder.p))
		rc = err_set(&em, ERR_MALFORMED, "DELIVER lacks kind or folder");
	if (rc == 0 && a.kind != ADDRESS_CARRIER)
		rc = err_set(&em, ERR_NAME, "DELIVER is for carriers");
	if (rc == 0)
		rc = folder_check(p.folder, NULL, NULL);
	if (rc == 0)
		rc = origin_from_peer(k, rq->from.kernel, p.sender, &from, &em);
	if (rc == 0)
		rc = deliver_here(k, &from, rq->from.kernel, &p, &a, &em);
	if (rc == 0)
		request_ok(rq, NULL);
	else
		request_fail(rq, rc, "%s", rc == ERR_MOVED ? em.text : err_show(rc, &em));
}

/* A carrier that is not there breaks the row: what is behind it goes where it went. */
static bool breaks_row(int rc)
{
	return rc == ERR_MOVED || rc == ERR_NOT_FOUND;
}

static int carry_deal(struct kernel *k, struct peer *peer, const struct post *p,
	const struct address *a, struct errmsg *em)
{
	struct origin from = { 0 };
	const struct origin *who = peer_vouched_for(k, peer, p->sender);
	int rc = 0;

	if (who && who->cls == ORIGIN_CARRIER) {
		place_note(k, who->name, peer->name);
	} else {
		rc = origin_from_peer(k, peer->name, p->sender, &from, em);
		who = &from;
	}
	return rc < 0 ? rc : deliver_here(k, who, peer->name, p, a, em);
}

static int frame_carry(
	struct kernel *k, struct link *l, struct cbor_cursor *c, struct errmsg *em)
{
	struct peer *peer = map_find_str(k->peers, link_name(l));
	enum courier_verdict verdict = COURIER_NEW;
	struct errmsg why = { "" };
	struct slice carrier;
	struct address a;
	struct carry y;
	int rc = carry_decode(c, &y);

	if (rc < 0 || !peer)
		return err_set(em, rc < 0 ? rc : ERR_STATE, "a post does not decode");
	link_consumed(l, LINK_POSTS, 1);
	rc = address_parse((const char *)y.post.dest.p, y.post.dest.n, &a, &why);
	if (rc < 0 || a.kind != ADDRESS_CARRIER)
		return err_set(em, ERR_MALFORMED, "a post to a carrier names none");
	carrier = slice_text(a.carrier);
	if (y.seq) {
		rc = courier_in_post(
			&peer->in, y.seq, y.seen, y.post.sender, carrier, &verdict);
		if (rc < 0)
			return err_set(em, rc, "more posts are on their way than may be");
	}
	rc = verdict == COURIER_NEW ? carry_deal(k, peer, &y.post, &a, &why) : 0;
	if (verdict == COURIER_NEW && y.seq)
		courier_in_done(&peer->in, y.seq, rc,
			rc == ERR_MOVED ? why.text : err_show(rc, &why), breaks_row(rc),
			y.post.sender, carrier);
	else if (rc < 0)
		metric_add(k->metrics, "answers_lost_total", NULL, 1);
	peer_took(k, peer);
	return 0;
}

static int frame_taken(
	struct kernel *k, struct link *l, struct cbor_cursor *c, struct errmsg *em)
{
	struct peer *peer = map_find_str(k->peers, link_name(l));

	return peer ? streams_taken(k, peer, c, em) : ERR_STATE;
}

/* The registrar is asked to have one kernel dial another. */
static void relay_dial_verb(struct kernel *k, struct request *rq)
{
	const char *to = tos_get_text(rq->args, "to", "");
	const char *dial = tos_get_text(rq->args, "dial", "");
	struct tos_value *args;

	if (strcmp(dial, rq->from.kernel) != 0 || !name_kernel_ok(to) ||
		!links_find(k->links, to)) {
		request_fail(rq, ERR_UNREACHABLE, "%s is not linked here", to);
		return;
	}
	args = tos_map();
	tos_set(args, "name", tos_text(dial));
	kernel_notify(k, to, "Kernel", "DIAL", args);
	request_ok(rq, NULL);
}

static void dial_verb(struct kernel *k, struct request *rq)
{
	const char *name = tos_get_text(rq->args, "name", "");

	if (strcmp(rq->from.kernel, k->config.registrar) != 0 || !peer_get(k, name)) {
		request_fail(rq, ERR_DENIED, "only the registrar may ask that");
		return;
	}
	peer_want(k, name, true);
	peer_want(k, name, false);
	request_ok(rq, NULL);
}

/* A peer passes a revocation list on. */
static void revoked_verb(struct kernel *k, struct request *rq)
{
	struct errmsg em = { "" };
	struct slice list;
	int rc;

	list.p = tos_get_bytes(rq->args, "list", &list.n);
	rc = list.p ? revocation_accept(k, list, &em) : ERR_MALFORMED;
	if (rc < 0)
		request_fail(rq, rc, "%s", err_show(rc, &em));
	else
		request_ok(rq, NULL);
}

const struct verb kernel_verbs[] = {
	{ "REVOKED", revoked_verb },
	{ "DELIVER", deliver_verb },
	{ "RELAY_DIAL", relay_dial_verb },
	{ "DIAL", dial_verb },
	{ "GROUPS", groups_give },
	{ "REVOCATION", fresh_answer },
	{ "AUDIT_AT", witness_answer },
	{ NULL, NULL },
};

void router_init(struct kernel *k)
{
	streams_init(k);
	k->callers = map_new();
	k->count.posts = metric_counter(k->metrics, "posts_total");
	k->count.posts_forwarded = metric_counter(k->metrics, "posts_forwarded_total");
}

void router_tick(struct kernel *k, int64_t now_ms)
{
	streams_tick(k, now_ms);
	callers_tick(k, now_ms);
}
