/*
 * One link: TLS, hello and admission, up and down, heartbeats. The conversation's rules are
 * talk.c's, bytes are conn's, addresses are dial.c's, and the set of links with its timer is
 * links.c's.
 */
#include "link/link.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/socket.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/text.h"
#include "link/inside.h"

#define CLIENT_QUEUE_BYTES (2u << 20)
#define SUSPECT_MS         2000

/* ---- states */

static const struct link_rule {
	enum link_state from;
	enum link_event event;
	enum link_state to;
} link_rules[] = {
	{ LINK_DIALLING, LINK_EV_CONNECTED, LINK_SECURING },
	{ LINK_DIALLING, LINK_EV_NEXT, LINK_DIALLING },
	{ LINK_SECURING, LINK_EV_NEXT, LINK_DIALLING },
	{ LINK_SECURING, LINK_EV_SECURED, LINK_GREETING },
	{ LINK_GREETING, LINK_EV_PARK, LINK_PARKED },
	{ LINK_GREETING, LINK_EV_ACCEPTED, LINK_UP },
	{ LINK_PARKED, LINK_EV_ACCEPTED, LINK_UP },
	{ LINK_DIALLING, LINK_EV_END, LINK_CLOSING },
	{ LINK_SECURING, LINK_EV_END, LINK_CLOSING },
	{ LINK_GREETING, LINK_EV_END, LINK_CLOSING },
	{ LINK_PARKED, LINK_EV_END, LINK_CLOSING },
	{ LINK_UP, LINK_EV_END, LINK_CLOSING },
	{ LINK_CLOSING, LINK_EV_GONE, LINK_DEAD },
};

bool link_event_allowed(enum link_state from, enum link_event ev, enum link_state *to)
{
	for (size_t i = 0; i < ARRAY_LEN(link_rules); i++)
		if (link_rules[i].from == from && link_rules[i].event == ev) {
			*to = link_rules[i].to;
			return true;
		}
	return false;
}

void link_event(struct link *l, enum link_event ev)
{
	enum link_state to = l->state;

	must(link_event_allowed(l->state, ev, &to));
	l->state = to;
}

static const struct talk_callbacks talk_cb;

static void talk_begin(struct link *l)
{
	const struct links_config *c = &l->ls->config;

	talk_init(&l->talk, &talk_cb, l, c->queue_bytes, c->credit_posts, c->credit_chunks);
}

struct link *link_new(struct links *ls, enum link_kind kind, bool over_tls)
{
	struct link *l = mem_new(struct link);

	l->tag = LINK_TAG;
	l->ls = ls;
	l->kind = kind;
	l->over_tls = over_tls;
	l->uid = (uid_t)-1;
	l->since_ms = l->in_ms = clock_ms();
	l->deadline_ms = l->since_ms + ls->config.handshake_ms;
	talk_begin(l);
	list_add(&ls->all, &l->node);
	links_wake(ls);
	return l;
}

void link_flow_add(const struct link *l, struct links_flow *f)
{
	f->frames_in += l->talk.frames_in;
	f->frames_out += l->talk.frames_out;
	f->pings_in += l->talk.pings_in;
	f->pings_out += l->talk.pings_out;
	f->bytes_in += l->bytes_in;
	f->bytes_out += l->bytes_out;
}

void link_free(struct link *l)
{
	must(l->state == LINK_DEAD && !l->conn);
	if (l->told_up)
		link_flow_add(l, &l->ls->stats.flow[l->kind]);
	list_del(&l->node);
	tls_session_free(l->tls);
	talk_fini(&l->talk);
	buf_fini(&l->hello_bytes);
	l->tag = 0;
	free(l);
}

/* Where it is counted while it is up: strangers apart, so that they shut nobody out. */
static size_t *counter(struct link *l)
{
	struct links *ls = l->ls;

	return l->kind == LINK_KERNEL   ? &ls->n_links
	       : l->kind == LINK_JOINER ? &ls->n_joiners
					: &ls->n_clients;
}

/* ---- the end */

void link_end(struct link *l, int rc, const char *why)
{
	struct links *ls = l->ls;
	bool heard = !l->over_tls || (l->tls && tls_ready(l->tls));

	if (l->state >= LINK_CLOSING)
		return;
	rc = rc < 0 ? rc : ERR_CLOSED;
	l->rc = rc;
	if (why != l->why)
		snprintf(l->why, sizeof(l->why), "%s", why && *why ? why : err_text(rc));
	link_event(l, LINK_EV_END);
	if (l->counted)
		*counter(l) -= 1;
	l->counted = false;
	if (heard && l->conn && !l->talk.peer_bye)
		talk_bye(&l->talk, rc, l->why);
	l->talk.state = TALK_OVER;
	links_dial_ended(ls, l);
	if (l->conn)
		conn_finish(l->conn, rc, l->why, LINK_LINGER_MS);
	else
		link_event(l, LINK_EV_GONE);
	links_wake(ls);
}

void link_refuse(struct link *l, int rc, const char *why)
{
	static struct log_rate rate;
	struct links *ls = l->ls;

	if (l->state >= LINK_CLOSING)
		return;
	if (rc == ERR_MALFORMED || rc == ERR_TOO_LARGE)
		ls->stats.malformed++;
	else
		ls->stats.refused++;
	if (log_rate_ok(&rate, 5))
		log_notice("link refused", KV_STR("peer", l->name),
			KV_STR("address", l->address), KV_STR("error", err_word(rc)),
			KV_STR("reason", why));
	link_end(l, rc, why);
}

void link_close(struct link *l, int rc, const char *why)
{
	link_end(l, rc, why);
}

/* Give this address up; the connection still says its last words (a TLS alert), but is ours no
 * more. */
static void try_next(struct link *l, int rc, const char *why)
{
	struct conn *c = l->conn;
	char text[256];

	snprintf(text, sizeof(text), "%s: %s", l->address, why && *why ? why : err_text(rc));
	link_event(l, LINK_EV_NEXT);
	l->conn = NULL;
	if (c)
		conn_finish(c, rc, text, LINK_LINGER_MS);
	tls_session_free(l->tls);
	l->tls = NULL;
	talk_fini(&l->talk);
	talk_begin(l);
	dial_next(l, rc, text);
}

/* TLS failed. Before hello a dialled link may have another address to try. */
static void link_fail(struct link *l, int rc, const char *why)
{
	if (l->dialled && l->state < LINK_GREETING)
		try_next(l, rc, why);
	else if (rc == ERR_CLOSED || (l->dialled && l->state == LINK_GREETING))
		link_end(l, rc,
			why); /* they closed or refused us, which is no fault of theirs */
	else
		link_refuse(l, rc, why);
}

/* ---- hello */

static void hello_fill(struct link *l, const char *peer_name, struct hello *h)
{
	memset(h, 0, sizeof(*h));
	h->version_min = l->ls->config.version_min;
	h->version_max = l->ls->config.version_max;
	l->ls->cb->hello(l->ls->arg, peer_name, h);
	memcpy(l->domain, h->domain, sizeof(l->domain));
	l->our_min = h->version_min;
	l->our_max = h->version_max;
}

static void hello_say(struct link *l)
{
	struct hello h;

	hello_fill(l, l->name, &h);
	talk_say_hello(&l->talk, &h);
	conn_kick(l->conn);
}

static int hello_keep(struct link *l, const struct hello *h)
{
	int rc;

	l->hello = *h;
	l->hello.audit_head.p = l->hello.features.p = NULL;
	buf_add(&l->hello_bytes, h->audit_head.p, h->audit_head.n);
	rc = buf_add(&l->hello_bytes, h->features.p, h->features.n);
	if (rc < 0)
		return rc;
	if (h->audit_head.n > 0)
		l->hello.audit_head.p = l->hello_bytes.data;
	if (h->features.n > 0)
		l->hello.features.p = l->hello_bytes.data + h->audit_head.n;
	return 0;
}

static int version_agree(struct link *l, const struct hello *h, struct errmsg *em)
{
	uint32_t most = h->version_max < l->our_max ? h->version_max : l->our_max;
	uint32_t least = h->version_min > l->our_min ? h->version_min : l->our_min;

	if (least > most)
		return err_set(em, ERR_VERSION,
			"you speak protocol %u to %u, this kernel %u to %u", h->version_min,
			h->version_max, l->our_min, l->our_max);
	l->version = most;
	return 0;
}

static int domain_check(const struct link *l, const struct hello *h, struct errmsg *em)
{
	if (l->kind != LINK_KERNEL && h->domain[0] == 0)
		return 0; /* a client needn't say: its certificate or user id has been looked at
			   */
	if (strcmp(h->domain, l->domain) != 0)
		return err_set(em, ERR_UNTRUSTED, "you belong to another domain");
	return 0;
}

static int on_hello(void *arg, const struct hello *h, struct errmsg *em)
{
	struct link *l = TAGGED(arg, struct link, LINK_TAG);
	struct hello ours;
	int rc;

	if (!l->dialled) /* what we would say, to compare; it is said when the link has been
			    accepted */
		hello_fill(l, l->name, &ours);
	rc = version_agree(l, h, em);
	if (rc == 0)
		rc = domain_check(l, h, em);
	if (rc < 0)
		return rc;
	if (l->kind == LINK_KERNEL && strcmp(h->name, l->cert.name) != 0)
		return err_set(em, ERR_UNTRUSTED, "your certificate is for %s", l->cert.name);
	return hello_keep(l, h);
}

/* ---- one link between two kernels */

static bool same_boot(const struct hello *a, const struct hello *b)
{
	return a->boot_count == b->boot_count &&
	       memcmp(a->boot_nonce, b->boot_nonce, sizeof(a->boot_nonce)) == 0;
}

/* Something says that the other end has lost this link: it has to show otherwise soon. */
static void suspect(struct link *l)
{
	if (l->suspect_ms != 0)
		return;
	l->suspect_ms = clock_ms() + SUSPECT_MS;
	talk_ping(&l->talk, clock_us());
	conn_kick(l->conn);
	links_wake(l->ls);
}

/*
 * May this new connection take the place of that open link to the same kernel? A kernel dials
 * only while it has no link. So a peer that dials again has lost the old one, unless our own
 * dial and its crossed; that can only be so where we dialled the old one and it is not the
 * peer's to win.
 */
static int may_replace(struct link *old, const struct link *l, struct errmsg *em)
{
	const struct links *ls = l->ls;

	if (l->hello.boot_count > old->hello.boot_count)
		return 0;
	if (!same_boot(&l->hello, &old->hello)) {
		log_warning("link refused: two kernels of one name", KV_STR("peer", l->name),
			KV_STR("address", l->address), KV_STR("linked", old->address));
		if (ls->cb->clone)
			ls->cb->clone(ls->arg, l->name, l->address, old->address);
		/* Should that one be gone without a word, the next try finds its place free. */
		suspect(old);
		return err_set(em, ERR_CLONE,
			"another kernel with this name and key is linked, at %s", old->address);
	}
	if (clock_ms() - old->in_ms > 2 * (int64_t)ls->config.ping_ms)
		return 0;
	if (!l->dialled && (!old->dialled || strcmp(l->name, ls->config.name) < 0))
		return 0;
	suspect(old);
	return err_set(em, ERR_EXISTS, "there is a link already");
}

static bool must_wait(const struct link *l, const struct peer *p)
{
	return !l->dialled && p && p->dial && p->dial->state == LINK_GREETING &&
	       strcmp(l->ls->config.name, l->name) < 0;
}

static int decide_kernel(struct link *l, struct errmsg *em)
{
	struct peer *p = links_peer(l->ls, l->name);
	int rc = 0;

	if (p && p->up && p->up != l) {
		rc = may_replace(p->up, l, em);
		if (rc == 0)
			link_end(p->up, ERR_CLOSED, "replaced by a new connection");
	} else if (must_wait(l, p)) {
		rc = ERR_AGAIN;
		if (l->state == LINK_GREETING)
			link_event(l, LINK_EV_PARK);
	}
	return rc;
}

/* No local user, whom any may be, takes all the places of the others. */
static bool user_has_many(const struct link *l)
{
	size_t n = 0;
	struct list *e;

	LIST_EACH(e, &l->ls->all)
	{
		const struct link *other = LIST_ITEM(e, struct link, node);

		n += other->counted && other->kind == LINK_LOCAL && other->uid == l->uid;
	}
	return n >= (l->ls->config.max_clients + 3) / 4;
}

static int count_in(struct link *l, struct errmsg *em)
{
	const struct links_config *c = &l->ls->config;
	size_t *n = counter(l);
	size_t most = l->kind == LINK_KERNEL   ? c->max_links
		      : l->kind == LINK_JOINER ? c->max_joiners
					       : c->max_clients;

	if (*n >= most)
		return err_set(em, ERR_LIMIT, "too many %s",
			l->kind == LINK_KERNEL   ? "links"
			: l->kind == LINK_JOINER ? "joining hosts"
						 : "clients");
	if (l->kind == LINK_LOCAL && l->uid != 0 && user_has_many(l))
		return err_set(em, ERR_LIMIT, "too many clients of this user");
	(*n)++;
	l->counted = true;
	return 0;
}

static void settle_peer(struct link *l)
{
	struct peer *p = links_peer(l->ls, l->name);
	struct link *other = p->dial;

	p->asked = p->failed = false;
	p->retry_at_ms = 0;
	p->dial = NULL;
	if (other && other != l)
		link_end(other, ERR_EXISTS, "linked the other way round");
}

static int link_raise(struct link *l, struct errmsg *em)
{
	struct links *ls = l->ls;
	int rc = count_in(l, em);

	if (rc < 0)
		return rc;
	links_tell_downs(ls); /* of the link that this one replaces: before the new one's up */
	if (l->state >= LINK_CLOSING)
		return 0;
	link_event(l, LINK_EV_ACCEPTED);
	talk_open(&l->talk);
	l->since_ms = l->in_ms = l->moved_ms = clock_ms();
	if (l->kind == LINK_KERNEL)
		links_peer_get(ls, l->name)->up = l;
	else
		l->talk.out_max = CLIENT_QUEUE_BYTES < l->talk.out_max ? CLIENT_QUEUE_BYTES
								       : l->talk.out_max;
	rc = ls->cb->up(ls->arg, l, &l->hello, em);
	if (rc < 0) {
		buf_clear(&l->talk.out); /* it may have been given something to send already */
		return rc;
	}
	l->told_up = true;
	links_wake(ls);
	if (l->state != LINK_UP) /* closed in the callback */
		return 0;
	if (!l->dialled)
		hello_say(l);
	if (l->kind == LINK_KERNEL)
		settle_peer(l);
	log_debug("link begun", KV_STR("peer", l->name), KV_STR("address", l->address),
		KV_STR("dialled", l->dialled ? "yes" : "no"));
	return 0;
}

int link_decide(struct link *l, struct errmsg *em)
{
	int rc = l->kind == LINK_KERNEL ? decide_kernel(l, em) : 0;

	return rc < 0 ? rc : link_raise(l, em);
}

static int on_ready(void *arg, struct errmsg *em)
{
	return link_decide(TAGGED(arg, struct link, LINK_TAG), em);
}

/* ---- who is it */

static int identify_dialled(struct link *l, struct errmsg *em)
{
	if (l->cert.kind != CERT_KERNEL || strcmp(l->cert.name, l->wanted) != 0)
		return err_set(em, ERR_UNTRUSTED, "who answers there is %s, not kernel %s",
			l->cert.name, l->wanted);
	return 0;
}

static int identify_accepted(struct link *l, struct errmsg *em)
{
	static const struct {
		enum cert_kind cert;
		enum link_kind link;
	} kinds[] = {
		{ CERT_KERNEL, LINK_KERNEL },
		{ CERT_PRINCIPAL, LINK_CLIENT },
		{ CERT_JOINER, LINK_JOINER },
	};

	text_copy(l->name, sizeof(l->name), l->cert.name, strlen(l->cert.name));
	if (l->cert.kind == CERT_KERNEL && strcmp(l->cert.name, l->ls->config.name) == 0)
		return err_set(em, ERR_EXISTS, "this is kernel %s already", l->cert.name);
	for (size_t i = 0; i < ARRAY_LEN(kinds); i++)
		if (kinds[i].cert == l->cert.kind) {
			l->kind = kinds[i].link;
			return 0;
		}
	return err_set(em, ERR_UNTRUSTED, "a certificate of this kind is not for links");
}

static int secured(struct link *l, struct errmsg *em)
{
	int rc = tls_peer(l->tls, &l->cert);

	if (rc < 0)
		return err_set(em, rc, "the certificate could not be read");
	rc = l->dialled ? identify_dialled(l, em) : identify_accepted(l, em);
	if (rc < 0)
		return rc;
	l->talk.credit_first = l->kind == LINK_KERNEL;
	link_event(l, LINK_EV_SECURED);
	if (l->dialled)
		hello_say(l);
	return 0;
}

/* ---- bytes */

static void set_socket(struct link *l)
{
	int fd = conn_fd(l->conn), on = 1;
	unsigned ms = l->ls->config.silent_ms;

	/* Both only make things better; where they can't be had we go on without. */
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &ms, sizeof(ms));
}

static int send_wire(struct link *l, const struct buf *wire)
{
	return wire->len == 0 ? 0 : conn_send(l->conn, wire->data, wire->len);
}

void link_connected(struct link *l)
{
	AUTOBUF wire = BUF_INIT;
	struct errmsg em = { "" };
	int rc;

	if (!l->over_tls)
		return;
	set_socket(l);
	l->tls = tls_session_new(l->ls->tls, !l->dialled);
	if (!l->dialled)
		return;
	link_event(l, LINK_EV_CONNECTED);
	rc = tls_start(l->tls, &wire, &em);
	if (rc == 0)
		rc = send_wire(l, &wire);
	if (rc < 0)
		try_next(l, rc, em.text);
}

static void on_connected(void *arg, struct conn *c)
{
	struct link *l = TAGGED(arg, struct link, LINK_TAG);

	if (c == l->conn && l->state == LINK_DIALLING)
		link_connected(l);
}

static void feed_frames(struct link *l)
{
	struct errmsg em = { "" };
	int rc;

	if (l->state < LINK_GREETING || l->state >= LINK_CLOSING)
		return;
	rc = talk_feed(&l->talk, clock_us(), &em);
	if (l->state >= LINK_CLOSING)
		return;
	if (l->talk.peer_bye)
		link_end(l, l->talk.peer_rc, em.text);
	else if (rc < 0)
		link_refuse(l, rc, err_show(rc, &em));
	else
		conn_kick(l->conn); /* there may be an answer to send */
}

static void feed_tls(struct link *l, const uint8_t *p, size_t n)
{
	AUTOBUF wire = BUF_INIT;
	struct errmsg em = { "" };
	int rc = tls_feed(l->tls, p, n, &l->talk.in.in, &wire, &em);
	int sent = send_wire(l, &wire);

	rc = rc < 0 ? rc : sent;
	if (l->state == LINK_SECURING && rc == 0 && tls_ready(l->tls))
		rc = secured(l, &em);
	feed_frames(l); /* before a failure: the last frame may say why the other side closed */
	if (rc < 0 && l->state < LINK_CLOSING)
		link_fail(l, rc, err_show(rc, &em));
}

static void on_bytes(void *arg, struct conn *c, const uint8_t *p, size_t n)
{
	struct link *l = TAGGED(arg, struct link, LINK_TAG);
	int rc;

	if (c != l->conn || l->state >= LINK_CLOSING)
		return;
	l->in_ms = clock_ms();
	l->suspect_ms = 0;
	l->bytes_in += n;
	if (l->over_tls) {
		feed_tls(l, p, n);
		return;
	}
	rc = buf_add(&l->talk.in.in, p, n);
	if (rc < 0)
		link_refuse(l, rc, err_text(rc));
	else
		feed_frames(l);
}

static void room_changed(struct link *l)
{
	if (l->state != LINK_UP)
		return;
	if (link_chunk_room(l) == 0) {
		l->blocked = true;
	} else if (l->blocked) {
		l->blocked = false;
		if (l->writable)
			l->writable(l->writable_arg, l);
	}
}

/* One record a turn, or several where much waits. */
static int encrypt(struct link *l, struct buf *out)
{
	struct slice s = talk_pending(&l->talk, LINK_RECORD);
	int rc = 0;

	if (s.n > 0) {
		rc = l->over_tls ? tls_send(l->tls, s.p, s.n, out, NULL)
				 : buf_add(out, s.p, s.n);
		if (rc == 0)
			talk_taken(&l->talk, s.n);
	}
	if (rc == 0 && l->state == LINK_CLOSING && talk_queued(&l->talk) == 0 && l->over_tls &&
		!l->tls_closed) {
		l->tls_closed = true;
		tls_close(l->tls, out);
	}
	return rc;
}

static void on_turn(void *arg, struct conn *c, struct buf *out)
{
	struct link *l = TAGGED(arg, struct link, LINK_TAG);
	size_t before = out->len;
	int rc;

	if (c != l->conn || (l->over_tls && (!l->tls || !tls_ready(l->tls))))
		return;
	rc = l->talk.out.failed ? ERR_NOMEM : encrypt(l, out);
	l->bytes_out += out->len - before;
	if (rc < 0)
		conn_close(c, rc, NULL);
	else
		room_changed(l);
}

static void on_closed(void *arg, struct conn *c, int rc, const char *why)
{
	struct link *l = TAGGED(arg, struct link, LINK_TAG);

	l->n_conns--;
	links_wake(l->ls);
	if (c != l->conn) /* an address that was given up */
		return;
	l->conn = NULL;
	if (l->state == LINK_CLOSING)
		link_event(l, LINK_EV_GONE);
	else if (l->dialled && l->state < LINK_GREETING)
		try_next(l, rc, why);
	else
		link_end(l, rc, why);
}

static int on_frame(void *arg, struct slice frame, struct errmsg *em)
{
	struct link *l = TAGGED(arg, struct link, LINK_TAG);

	return l->ls->cb->frame(l->ls->arg, l, frame, em);
}

static void on_credit(void *arg)
{
	room_changed(TAGGED(arg, struct link, LINK_TAG));
}

const struct conn_callbacks link_conn_callbacks = {
	.connected = on_connected,
	.bytes = on_bytes,
	.turn = on_turn,
	.closed = on_closed,
};
static const struct talk_callbacks talk_cb = {
	.hello = on_hello,
	.ready = on_ready,
	.frame = on_frame,
	.credit = on_credit,
};

/* ---- time */

static void tick_handshake(struct link *l, int64_t now)
{
	if (now >= l->deadline_ms) {
		l->ls->stats.handshake_timeouts++;
		if (l->dialled)
			link_end(l, ERR_TIMEOUT,
				l->rc < 0 ? l->why : "no answer within the time for it");
		else
			link_refuse(
				l, ERR_TIMEOUT, "it did not say hello within the time for it");
		return;
	}
	links_due(l->ls, l->deadline_ms - now);
	if (!l->dialled || l->state >= LINK_GREETING || l->try_until_ms == 0)
		return;
	if (now >= l->try_until_ms)
		try_next(l, ERR_TIMEOUT, "no answer");
	else
		links_due(l->ls, l->try_until_ms - now);
}

static void silent(struct link *l, const char *why)
{
	l->ls->stats.silent++;
	link_end(l, ERR_TIMEOUT, why);
}

/* A peer that pings but doesn't read is as good as dead: what we send never arrives. */
static bool stalled(struct link *l, int64_t now)
{
	uint64_t taken = conn_taken(l->conn);

	if (taken != l->moved || conn_queued(l->conn) + talk_queued(&l->talk) == 0) {
		l->moved = taken;
		l->moved_ms = now;
	}
	return now - l->moved_ms >= l->ls->config.silent_ms;
}

static void tick_up(struct link *l, int64_t now)
{
	const struct links_config *c = &l->ls->config;
	int64_t heard = l->in_ms;

	if (l->kind == LINK_LOCAL) /* a Unix socket's end of file always comes */
		return;
	if (l->kind == LINK_JOINER) {
		if (now - l->since_ms >= c->joiner_ms) {
			silent(l, "a host that joins has no more time");
			return;
		}
		links_due(l->ls, l->since_ms + c->joiner_ms - now);
	}
	if (now - heard >= c->silent_ms || (l->suspect_ms != 0 && now >= l->suspect_ms)) {
		silent(l, "nothing was heard for too long");
		return;
	}
	if (stalled(l, now)) {
		silent(l, "it reads nothing");
		return;
	}
	if (l->talk.ping_sent_ms > heard)
		heard = l->talk.ping_sent_ms;
	if (now - heard >= c->ping_ms) {
		talk_ping(&l->talk, clock_us());
		conn_kick(l->conn);
		heard = now;
	}
	links_due(l->ls, heard + c->ping_ms - now);
	links_due(l->ls, l->in_ms + c->silent_ms - now);
	if (l->suspect_ms != 0)
		links_due(l->ls, l->suspect_ms - now);
}

void link_tick(struct link *l, int64_t now)
{
	if (l->state < LINK_UP)
		tick_handshake(l, now);
	else if (l->state == LINK_UP)
		tick_up(l, now);
}

/* ---- what users call */

int link_send(struct link *l, enum link_class cls, const void *frame, size_t n)
{
	enum talk_class c = cls == LINK_POSTS    ? TALK_POSTS
			    : cls == LINK_CHUNKS ? TALK_CHUNKS
						 : TALK_CLASSES;
	int rc;

	if (l->state != LINK_UP)
		return ERR_CLOSED;
	rc = talk_send(&l->talk, c, frame, n);
	if (rc < 0)
		return rc;
	if (link_chunk_room(l) == 0)
		l->blocked = true;
	conn_kick(l->conn);
	return 0;
}

void link_consumed(struct link *l, enum link_class cls, uint32_t n)
{
	if (l->state != LINK_UP || cls == LINK_CONTROL)
		return;
	talk_consumed(&l->talk, cls == LINK_POSTS ? TALK_POSTS : TALK_CHUNKS, n);
	conn_kick(l->conn);
}

uint32_t link_chunk_room(const struct link *l)
{
	uint64_t queued, credit;

	if (l->state != LINK_UP)
		return 0;
	queued = talk_queued(&l->talk) + conn_queued(l->conn);
	credit = (uint64_t)l->talk.may_send[TALK_CHUNKS] * CHUNK_BYTES_MAX;
	if (queued >= LINK_CHUNK_ROOM)
		return 0;
	return (uint32_t)(credit < LINK_CHUNK_ROOM - queued ? credit
							    : LINK_CHUNK_ROOM - queued);
}

void link_on_writable(struct link *l, void (*fn)(void *arg, struct link *l), void *arg)
{
	l->writable = fn;
	l->writable_arg = arg;
	l->blocked = link_chunk_room(l) == 0;
}

enum link_kind link_kind(const struct link *l)
{
	return l->kind;
}

const char *link_name(const struct link *l)
{
	return l->name;
}

void link_set_name(struct link *l, const char *name)
{
	must(l->kind != LINK_KERNEL);
	text_copy(l->name, sizeof(l->name), name, strlen(name));
}

const struct cert_info *link_cert(const struct link *l)
{
	return l->over_tls ? &l->cert : NULL;
}

uid_t link_uid(const struct link *l)
{
	return l->uid;
}

pid_t link_pid(const struct link *l)
{
	return l->pid;
}

const struct hello *link_hello(const struct link *l)
{
	return &l->hello;
}

uint32_t link_version(const struct link *l)
{
	return l->version;
}

bool link_dialled(const struct link *l)
{
	return l->dialled;
}

int64_t link_heard_ms(const struct link *l)
{
	return l->in_ms;
}

const char *link_address(const struct link *l)
{
	return l->address;
}

void *link_data(const struct link *l)
{
	return l->data;
}

void link_set_data(struct link *l, void *data)
{
	l->data = data;
}

void link_stats(const struct link *l, struct link_stats *out)
{
	*out = (struct link_stats){
		.frames_in = l->talk.frames_in,
		.frames_out = l->talk.frames_out,
		.bytes_in = l->bytes_in,
		.bytes_out = l->bytes_out,
		.since_ms = (uint64_t)(clock_ms() - l->since_ms),
		.rtt_us = l->talk.rtt_us,
		.queued = talk_queued(&l->talk) + (l->conn ? conn_queued(l->conn) : 0),
	};
}
