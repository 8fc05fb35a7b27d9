/*
 * The router: every post passes here, whoever sent it. It takes the address apart, asks the
 * firewall, and hands the post to an inbox, a carrier, a client, or another kernel.
 *
 * Posts to carriers that are elsewhere go through a stream each (sender, destination): one post
 * at a time, so that order is kept while the carrier moves (doc/protocol.md, "Posts to
 * carriers").
 */
#include "kernel/kernel.h"

#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "tos/extension.h"

#define STREAMS_MAX           50000
#define STREAM_POSTS_MAX      1024
#define PLACES_MAX            100000
#define MOVED_PAUSE_MS        20
#define DELIVER_MS            10000
#define DENIALS_AUDITED_PER_S 20

struct place {
	char kernel[64];
	int64_t at_ms;
};

struct stream_post {
	struct list node;
	int64_t deadline_at_ms;
	struct origin from;
	struct post post; /* slices into bytes */
	size_t n;
	bool travels; /* held, and in the envelope of the departure under way */
	uint8_t bytes[];
};

/* Posts of one sender to one carrier that is elsewhere. */
struct stream_queue {
	char key[2 * NAME_BYTES_MAX + 4];
	char dest[NAME_BYTES_MAX + 1]; /* the carrier, without the inbox */
	struct list posts;
	size_t n;
	bool busy;
	bool located; /* the present try is by the Messenger's word, not by our memory */
	int64_t again_at_ms;
};

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

void blob_set(struct blob *b, struct slice s)
{
	uint8_t *copy = mem_dup(s.p, s.n);

	free(b->p);
	b->p = copy;
	b->n = s.n;
}

void blob_free(struct blob *b)
{
	free(b->p);
	*b = (struct blob){ NULL, 0 };
}

bool slice_equal(struct slice a, struct slice b)
{
	return a.n == b.n && (a.n == 0 || memcmp(a.p, b.p, a.n) == 0);
}

void slice_copy_text(struct slice s, char *out, size_t cap)
{
	size_t n = s.n < cap ? s.n : cap - 1;

	if (n)
		memcpy(out, s.p, n);
	out[n] = 0;
}

void subject_of(const struct origin *from, struct subject *out)
{
	*out = (struct subject){ .class_name = origin_class_word(from->cls),
		.principal = from->principal,
		.roles = from->roles,
		.kernel = from->kernel };
}

static void audit_denial(struct kernel *k, const struct origin *from, const char *action,
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
	char sender[NAME_BYTES_MAX + 1], label[64];

	snprintf(label, sizeof(label), "code=\"%s\"", err_word(rc));
	metric_add(k->metrics, "posts_failed_total", label, 1);
	if (p->kind == POST_ANSWER || p->kind == POST_FAILURE)
		return;
	slice_copy_text(p->sender, sender, sizeof(sender));
	elements = tos_array();
	tos_push(elements, tos_text(err_word(rc)));
	tos_push(elements, tos_text(text && text[0] ? text : err_text(rc)));
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
	if (!ext_has_inbox(k->exts, inbox, &flags))
		return err_set(em, ERR_NO_INBOX, "%s has no inbox %s", k->config.name, inbox);
	info = origin_info(from);
	if (from->cls == ORIGIN_CARRIER && !from->kernel[0])
		incarnation_info(k, from, p, info);
	/* Extensions know the kernel that they live in by the empty name: nobody else can have
	 * it. */
	struct post to = *p;

	if (from->cls == ORIGIN_KERNEL && !from->kernel[0])
		to.sender = (struct slice){ (const uint8_t *)"", 0 };
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

static int route_remote(struct kernel *k, const struct origin *from, const struct post *p,
	const char *kernel, struct errmsg *em)
{
	AUTOBUF frame = BUF_MAX(FRAME_BYTES_MAX + 16);
	uint32_t wait_ms = p->deadline_ms ? p->deadline_ms : k->config.call_ms;

	if (from->kernel[0])
		return err_set(em, ERR_DENIED, "%s does not pass posts on to %s",
			k->config.name, kernel);
	post_encode(&frame, p);
	if (buf_check(&frame) < 0 || frame.len > FRAME_BYTES_MAX)
		return err_set(
			em, ERR_TOO_LARGE, "a post is at most %u bytes", FRAME_BYTES_MAX);
	return peer_send(k, kernel, slice_buf(&frame), clock_ms() + wait_ms, 0,
		from->cls == ORIGIN_CARRIER ? from->name : NULL, em);
}

/* ---- to carriers elsewhere */

void place_note(struct kernel *k, const char *carrier, const char *kernel)
{
	struct place *pl = map_find_str(k->places, carrier);

	if (!name_kernel_ok(kernel))
		return;
	if (!pl) {
		if (map_size(k->places) >= PLACES_MAX)
			return;
		pl = mem_new(struct place);
		map_put_str(k->places, carrier, pl);
	}
	snprintf(pl->kernel, sizeof(pl->kernel), "%s", kernel);
	pl->at_ms = clock_ms();
}

void place_forget(struct kernel *k, const char *carrier)
{
	free(map_del_str(k->places, carrier));
}

static void stream_next(struct kernel *k, struct stream_queue *q);

static struct stream_post *stream_first(struct stream_queue *q)
{
	return list_empty(&q->posts) ? NULL
				     : LIST_ITEM(q->posts.next, struct stream_post, node);
}

static void stream_pop(struct stream_queue *q)
{
	struct stream_post *sp = stream_first(q);

	list_del(&sp->node);
	q->n--;
	q->located = false;
	free(sp);
}

/* The key travels through callbacks, never the pointer: the queue may be gone by then. */
static void on_delivered(
	struct kernel *k, void *arg, int rc, const char *text, const struct tos_value *elements)
{
	AUTOFREE char *key = arg;
	struct stream_queue *q = map_find_str(k->streams, key);
	struct stream_post *sp = q ? stream_first(q) : NULL;

	(void)elements;
	if (!sp)
		return;
	q->busy = false;
	if (rc == 0) {
		metric_add(k->metrics, "posts_forwarded_total", NULL, 1);
		stream_pop(q);
	} else if (rc == ERR_MOVED && clock_ms() < sp->deadline_at_ms) {
		place_note(k, q->dest, text);
		q->again_at_ms = clock_ms() + MOVED_PAUSE_MS;
	} else if (rc == ERR_NOT_FOUND && !q->located && clock_ms() < sp->deadline_at_ms) {
		place_forget(k, q->dest); /* our memory was stale: ask the Messenger */
		q->again_at_ms = clock_ms() + MOVED_PAUSE_MS;
	} else {
		kernel_fail_back(k, &sp->post, rc, text);
		stream_pop(q);
	}
	stream_next(k, q);
}

static struct tos_value *deliver_args(
	const struct origin *from, const struct post *p, int64_t left_ms)
{
	struct tos_value *args = tos_map();

	tos_set(args, "kind", tos_int(p->kind));
	tos_set(args, "dest", tos_text_n((const char *)p->dest.p, p->dest.n));
	tos_set(args, "sender", tos_text(from->name));
	tos_set(args, "tag", tos_int((int64_t)p->tag));
	tos_set(args, "deadline_ms", tos_int(left_ms));
	tos_set(args, "folder", tos_bytes(p->folder.p, p->folder.n));
	return args;
}

static void stream_send(struct kernel *k, struct stream_queue *q, const char *kernel)
{
	struct stream_post *sp = stream_first(q);
	int64_t left = sp->deadline_at_ms - clock_ms();
	struct tos_value *elements = tos_array();

	if (left < 1)
		left = 1;
	tos_push(elements, deliver_args(&sp->from, &sp->post, left));
	if (sp->post.kind == POST_CALL)
		callers_sent(k, sp->from.name, sp->post.tag, kernel);
	q->busy = true;
	call_start(k, kernel, "Kernel", "DELIVER", elements,
		(uint32_t)(left < DELIVER_MS ? left : DELIVER_MS),
		sp->from.cls == ORIGIN_CARRIER ? sp->from.name : NULL, on_delivered,
		mem_strdup(q->key));
}

static void on_located(
	struct kernel *k, void *arg, int rc, const char *text, const struct tos_value *elements)
{
	AUTOFREE char *key = arg;
	struct stream_queue *q = map_find_str(k->streams, key);
	struct stream_post *sp = q ? stream_first(q) : NULL;
	const char *kernel = tos_get_text(tos_at(elements, 0), "kernel", "");

	if (!sp)
		return;
	q->busy = false;
	if (rc == 0 && kernel[0]) {
		struct resident *r = resident_find(k, q->dest);

		if (r && strcmp(kernel, k->config.name) == 0) {
			stream_next(k, q); /* delivers it here */
			return;
		}
		if (strcmp(kernel, k->config.name) != 0) {
			place_note(k, q->dest, kernel);
			q->located = true;
			stream_send(k, q, kernel);
			return;
		}
		rc = ERR_NOT_FOUND;
		text = "the carrier is not here";
	}
	kernel_fail_back(k, &sp->post, rc, text);
	stream_pop(q);
	stream_next(k, q);
}

static void stream_locate(struct kernel *k, struct stream_queue *q)
{
	const char *inbox = ext_hook(k->exts, TOS_INBOX_LOCATES, 0);
	struct stream_post *sp = stream_first(q);
	struct tos_value *args;
	struct address a;
	int64_t left = sp->deadline_at_ms - clock_ms();

	if (!inbox) {
		kernel_fail_back(k, &sp->post, ERR_UNSUPPORTED,
			"no extension of this kernel locates carriers (Messenger is not loaded)");
		stream_pop(
			q); /* stream_next(), which called us, goes on: q must outlive this */
		return;
	}
	args = tos_map();
	tos_set(args, "dest", tos_text(q->dest));
	if (address_parse(q->dest, strlen(q->dest), &a, NULL) == 0)
		tos_set(args, "home", tos_text(a.kernel));
	q->busy = true;
	kernel_call(k, "", inbox, "LOCATE", args, (uint32_t)(left < 1 ? 1 : left), on_located,
		mem_strdup(q->key));
}

static void stream_deliver(struct kernel *k, struct stream_queue *q, struct resident *r)
{
	struct stream_post *sp = stream_first(q);
	struct slice dest = sp->post.dest;
	const uint8_t *slash = memchr(dest.p, '/', dest.n);
	struct errmsg em = { "" };
	char inbox[64] = "";
	int rc;

	if (slash)
		slice_copy_text(
			(struct slice){ slash + 1, dest.n - (size_t)(slash + 1 - dest.p) },
			inbox, sizeof(inbox));
	rc = resident_post(r, &sp->from, &sp->post, inbox, &em);
	if (rc < 0)
		kernel_fail_back(k, &sp->post, rc, err_show(rc, &em));
	stream_pop(q);
}

static void stream_next(struct kernel *k, struct stream_queue *q)
{
	while (!q->busy && stream_first(q)) {
		struct stream_post *sp = stream_first(q);
		struct place *pl = map_find_str(k->places, q->dest);
		struct resident *r = resident_find(k, q->dest);

		if (clock_ms() >= sp->deadline_at_ms) {
			kernel_fail_back(
				k, &sp->post, ERR_EXPIRED, "the carrier was not found in time");
			stream_pop(q);
			continue;
		}
		if (clock_ms() < q->again_at_ms)
			return;                    /* the tick comes back */
		if (r && !shell_ended(r->state)) { /* it came here meanwhile */
			stream_deliver(k, q, r);
			continue;
		}
		if (pl && strcmp(pl->kernel, k->config.name) != 0)
			stream_send(k, q, pl->kernel);
		else
			stream_locate(k, q);
	}
	if (!q->busy && !stream_first(q)) {
		map_del_str(k->streams, q->key);
		free(q);
	}
}

static int stream_add(struct kernel *k, const struct origin *from, const struct post *p,
	const char *carrier, struct errmsg *em)
{
	struct stream_queue *q;
	struct stream_post *sp;
	char key[sizeof(q->key)];
	size_t n = p->dest.n + p->folder.n + NAME_BYTES_MAX + 1;
	uint8_t *at;

	snprintf(key, sizeof(key), "%s|%s", from->name, carrier);
	q = map_find_str(k->streams, key);
	if (q && q->n >= STREAM_POSTS_MAX)
		return err_set(em, ERR_FULL, "%zu posts wait for %s", q->n, carrier);
	if (!q && map_size(k->streams) >= STREAMS_MAX)
		return err_set(em, ERR_FULL, "too many carriers are being looked for");
	sp = mem_try(sizeof(*sp) + n);
	if (!sp)
		return ERR_NOMEM;
	sp->travels = false;
	if (!q) {
		q = mem_new(struct stream_queue);
		snprintf(q->key, sizeof(q->key), "%s", key);
		snprintf(q->dest, sizeof(q->dest), "%s", carrier);
		list_init(&q->posts);
		map_put_str(k->streams, key, q);
	}
	sp->from = *from;
	sp->post = *p;
	sp->deadline_at_ms = clock_ms() + (p->deadline_ms ? p->deadline_ms : k->config.call_ms);
	at = sp->bytes;
	memcpy(at, p->dest.p, p->dest.n);
	sp->post.dest.p = at;
	at += p->dest.n;
	memcpy(at, p->folder.p, p->folder.n);
	sp->post.folder.p = at;
	sp->post.sender = slice_text(sp->from.name);
	sp->post.trace = (struct slice){ NULL, 0 };
	list_add(&q->posts, &sp->node);
	q->n++;
	if (!q->busy && q->n == 1)
		stream_next(k, q);
	return 0;
}

static bool stream_waits(struct kernel *k, const struct origin *from, const char *carrier)
{
	char key[2 * NAME_BYTES_MAX + 4];

	snprintf(key, sizeof(key), "%s|%s", from->name, carrier);
	return !from->kernel[0] && map_find_str(k->streams, key) != NULL;
}

/* An answer goes to where the caller asked from, and nobody says that it came: calls end when their
 * caller leaves, so it is not sought elsewhere. It stays behind posts that are on their way. */
static bool answer_sent(
	struct kernel *k, const struct origin *from, const struct post *p, const char *carrier)
{
	struct place *pl = map_find_str(k->places, carrier);
	uint32_t left_ms = p->deadline_ms ? p->deadline_ms : k->config.call_ms;

	if ((p->kind != POST_ANSWER && p->kind != POST_FAILURE) || p->tag == 0 || !pl ||
		strcmp(pl->kernel, k->config.name) == 0 || stream_waits(k, from, carrier))
		return false;
	kernel_notify_for(k, pl->kernel, "Kernel", "DELIVER", deliver_args(from, p, left_ms),
		left_ms, from->cls == ORIGIN_CARRIER ? from->name : NULL);
	metric_add(k->metrics, "posts_forwarded_total", NULL, 1);
	return true;
}

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
	if (r && !shell_ended(r->state) && (answer || !stream_waits(k, from, a->carrier)))
		return resident_post(r, from, p, a->inbox, em);
	if (from->kernel[0])
		return err_set(
			em, ERR_NOT_FOUND, "%s is not at %s", a->carrier, k->config.name);
	if (answer_sent(k, from, p, a->carrier))
		return 0;
	return stream_add(k, from, p, a->carrier, em);
}

void router_forward_held(struct kernel *k, struct resident *r, const char *kernel)
{
	place_note(k, r->name, kernel);
	while (!list_empty(&r->held)) {
		struct stream_post *sp = LIST_ITEM(r->held.next, struct stream_post, node);
		struct errmsg em;
		int rc;

		list_del(&sp->node);
		rc = sp->travels ? 0 : stream_add(k, &sp->from, &sp->post, r->name, &em);
		if (rc < 0)
			kernel_fail_back(k, &sp->post, rc, err_show(rc, &em));
		free(sp);
	}
	r->n_held = 0;
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
	char caller[2 * NAME_BYTES_MAX];

	if (a->kind == ADDRESS_INBOX && inbox_is_kernels(a->inbox))
		return 0; /* calls.c knows what the kernel itself asked */
	if (a->kind == ADDRESS_CARRIER)
		snprintf(caller, sizeof(caller), "%s", a->carrier);
	else
		snprintf(caller, sizeof(caller), "%s/%s%s", k->config.name,
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

static int route_to(struct kernel *k, const struct origin *from, const struct post *p,
	const struct address *a, bool here, struct errmsg *em)
{
	if (a->kind == ADDRESS_CARRIER)
		return route_carrier(k, from, p, a, em);
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
	metric_add(k->metrics, "posts_total", NULL, 1);
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
	const struct origin *vouched;
	struct address a;
	int rc = address_parse((const char *)sender.p, sender.n, &a, em);

	*out = (struct origin){ .cls = ORIGIN_EXTENSION };
	if (rc < 0 || !p)
		return rc < 0 ? rc : ERR_STATE;
	slice_copy_text(sender, out->name, sizeof(out->name));
	snprintf(out->kernel, sizeof(out->kernel), "%s", peer);
	if (a.kind == ADDRESS_CARRIER) {
		vouched = peer_vouched_for(p, a.carrier);
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
	if (a.kind == ADDRESS_CLIENT)
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
	case FRAME_WANT:
	case FRAME_LACK:
		return 0; /* nothing is asked for in this version; a newer peer may */
	default:
		break;
	}
	return err_set(em, ERR_MALFORMED, "a frame of type %d is out of place here", type);
}

/* DELIVER: a post to a carrier that is said to be here. */
static void deliver_verb(struct kernel *k, struct request *rq)
{
	struct origin from = { 0 };
	struct address a;
	struct post p = { .kind = POST_ONEWAY };
	struct errmsg em = { "" };
	const char *sender = tos_get_text(rq->args, "sender", "");
	struct resident *r;
	struct place *pl;
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
	if (rc < 0) {
		request_fail(rq, rc, "%s", err_show(rc, &em));
		return;
	}
	r = resident_find(k, a.carrier);
	pl = map_find_str(k->places, a.carrier);
	if (r && !shell_ended(r->state)) {
		rc = p.kind == POST_ANSWER || p.kind == POST_FAILURE
			     ? may_answer(k, &from, &p, &a, &em)
			     : kernel_allowed(k, &from, "post", "carrier", "", &em);
		/* A kernel passes on no other kernel's posts: what would have to wait here
		 * waits where it was sent, in order, and comes again. */
		if (rc == 0 && resident_would_hold(r, a.inbox))
			rc = err_set(&em, ERR_MOVED, "%s", k->config.name);
		if (rc == 0)
			rc = resident_post(r, &from, &p, a.inbox, &em);
		if (rc == ERR_MOVED)
			request_fail(rq, rc, "%s", em.text);
		else if (rc < 0)
			request_fail(rq, rc, "%s", err_show(rc, &em));
		else
			request_ok(rq, NULL);
	} else if (pl && strcmp(pl->kernel, k->config.name) != 0 &&
		   strcmp(pl->kernel, rq->from.kernel) != 0) {
		request_fail(rq, ERR_MOVED, "%s", pl->kernel);
	} else {
		request_fail(rq, ERR_NOT_FOUND, "%s is not at %s", a.carrier, k->config.name);
	}
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
	struct peer *p = peer_get(k, name);

	if (strcmp(rq->from.kernel, k->config.registrar) != 0 || !p) {
		request_fail(rq, ERR_DENIED, "only the registrar may ask that");
		return;
	}
	peer_want(k, name, true);
	peer_want(k, name, false);
	request_ok(rq, NULL);
}

static void revocation_verb(struct kernel *k, struct request *rq)
{
	struct tos_value *out;

	if (!k->revocation_cose.n) {
		request_fail(rq, ERR_NOT_FOUND, "no revocation list");
		return;
	}
	out = tos_map();
	tos_set(out, "list", tos_bytes(k->revocation_cose.p, k->revocation_cose.n));
	request_ok(rq, out);
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
	{ "REVOCATION", revocation_verb },
	{ NULL, NULL },
};

int router_init(struct kernel *k)
{
	k->places = map_new();
	k->streams = map_new();
	k->callers = map_new();
	return 0;
}

void router_tick(struct kernel *k, int64_t now_ms)
{
	struct stream_queue *q;
	struct place *pl;
	const void *key;
	size_t it = 0, len;

	while ((q = map_next(k->streams, &it, NULL, NULL))) {
		if (!q->busy && q->again_at_ms && now_ms >= q->again_at_ms) {
			q->again_at_ms = 0;
			stream_next(k, q);
			it = 0;
		}
	}
	callers_tick(k, now_ms);
	it = 0;
	while ((pl = map_next(k->places, &it, &key, &len)))
		if (now_ms - pl->at_ms > 600000) {
			map_del(k->places, key, len);
			free(pl);
		}
}

/* Keep a post for a carrier that can't take it yet. */
int router_hold(struct resident *r, const struct origin *from, const struct post *p)
{
	struct stream_post *sp = mem_try(sizeof(*sp) + p->dest.n + p->folder.n + 1);

	if (!sp)
		return ERR_NOMEM;
	sp->travels = false;
	sp->from = *from;
	sp->post = *p;
	sp->deadline_at_ms =
		clock_ms() + (p->deadline_ms ? p->deadline_ms : r->k->config.call_ms);
	memcpy(sp->bytes, p->dest.p, p->dest.n);
	sp->post.dest.p = sp->bytes;
	memcpy(sp->bytes + p->dest.n, p->folder.p, p->folder.n);
	sp->post.folder.p = sp->bytes + p->dest.n;
	sp->post.sender = slice_text(sp->from.name);
	sp->post.trace = (struct slice){ NULL, 0 };
	list_add(&r->held, &sp->node);
	r->n_held++;
	return 0;
}

/* One-way posts that wait for an inbox go along with the carrier: they may be of senders that this
 * kernel can't speak for. Calls are left to be sent after it. */
void router_held_collect(struct resident *r,
	void (*fn)(struct resident *r, const struct origin *from, const struct post *p))
{
	struct list *pos, *tmp;

	LIST_EACH_SAFE(pos, tmp, &r->held)
	{
		struct stream_post *sp = LIST_ITEM(pos, struct stream_post, node);

		sp->travels = sp->post.kind == POST_ONEWAY;
		if (sp->travels)
			fn(r, &sp->from, &sp->post);
	}
}

/* The departure came about, to here (`gone`: they are in what arrived), or not at all. */
void router_held_uncollect(struct resident *r, bool gone)
{
	struct list *pos, *tmp;

	LIST_EACH_SAFE(pos, tmp, &r->held)
	{
		struct stream_post *sp = LIST_ITEM(pos, struct stream_post, node);

		if (sp->travels && gone) {
			list_del(&sp->node);
			r->n_held--;
			free(sp);
		} else {
			sp->travels = false;
		}
	}
}

/* The same carrier is back: what its former copy holds waits for the new one, behind what that
 * one holds. */
void router_held_move(struct resident *from, struct resident *to)
{
	router_held_uncollect(from, true);
	while (!list_empty(&from->held)) {
		struct list *node = from->held.next;

		list_del(node);
		list_add(&to->held, node);
		to->n_held++;
	}
	from->n_held = 0;
}

/* Give each held post to fn, which returns true to have it taken out of the queue. */
void router_held_each(struct resident *r,
	bool (*fn)(struct resident *r, const struct origin *from, const struct post *p))
{
	struct list *pos, *tmp;
	int64_t now = clock_ms();

	LIST_EACH_SAFE(pos, tmp, &r->held)
	{
		struct stream_post *sp = LIST_ITEM(pos, struct stream_post, node);
		bool late = now >= sp->deadline_at_ms;

		if (late)
			kernel_fail_back(r->k, &sp->post, ERR_EXPIRED,
				"the carrier did not take it in time");
		if (late || fn(r, &sp->from, &sp->post)) {
			list_del(&sp->node);
			r->n_held--;
			free(sp);
		}
	}
}
