/*
 * Carriers that are here: from the moment they are taken in until they are gone. The states are
 * those of core/shell.h; what a carrier's tos-vm says is read in vm_conversation.c, moves are
 * in depart.c and arrive.c.
 */
#include "kernel/carrier/family.h"
#include "kernel/handoff/forced.h"

#include <string.h>

#include "base/clock.h"
#include "base/fault.h"
#include "base/log.h"
#include "base/text.h"
#include "kernel/carrier/account.h"
#include "kernel/carrier/admit.h"
#include "kernel/carrier/automata.h"
#include "kernel/carrier/resident.h"
#include "kernel/carrier/seals.h"
#include "kernel/carrier/vms.h"
#include "kernel/handoff/moves.h"
#include "kernel/handoff/report.h"
#include "kernel/handoff/restored.h"
#include "kernel/trust/trust.h"
#include "tos/extension.h"
#include "wire/vmproto.h"

#define LOG_LINES_MAX      1000
#define TRAIL_MAX          10000
#define COMPLETED_CALL_MS  30000u
#define ASK_AGAIN_MS       5000
#define OWN_REPORTS_A_TICK 200
#define INBOX_GRACE_MS     2000

static void asked_drop(struct resident *r, bool all);

struct resident *resident_new(struct kernel *k)
{
	struct resident *r = mem_new(struct resident);

	r->k = k;
	r->state = SHELL_ARRIVING;
	r->owner = r->author = &cert_nobody;
	r->path = tos_array();
	lines_init(&r->trail);
	lines_init(&r->log);
	records_init(&r->hops);
	r->undelivered = tos_array();
	r->inboxes = map_new();
	r->asked = map_new();
	list_init(&r->held);
	list_init(&r->signing);
	list_init(&r->costs);
	r->since_ms = clock_wall_ms();
	for (int i = 0; i < LIMIT_COUNT; i++)
		r->minimum[i] = -1;
	blob_set(&r->briefcase, (struct slice){ (const uint8_t *)"\xa0", 1 });
	return r;
}

static void inboxes_drop(struct resident *r)
{
	struct inbox *in;
	size_t it = 0;

	while ((in = map_next(r->inboxes, &it, NULL, NULL))) {
		struct inbox_item *item;

		map_del_str(r->inboxes, in->name);
		while ((item = inbox_take(in))) {
			struct post p;

			inbox_item_post(item, r->name, &p);
			if (p.kind == POST_CALL)
				kernel_fail_back(r->k, &p, ERR_MOVED,
					"the carrier left before it took the call");
			inbox_item_free(item);
		}
		free(in);
	}
	r->n_waiting = 0;
}

void resident_collect(struct resident *r)
{
	struct inbox *in;
	size_t it = 0;

	/* Copies: if the move is refused its tos-vm still has them. */
	while ((in = map_next(r->inboxes, &it, NULL, NULL)))
		for (struct inbox_item *item = in->first; item; item = item->next) {
			struct tos_value *row, *folder = NULL;

			if (item->kind == POST_CALL ||
				tos_decode(item->folder.p, item->folder.n, 0, &folder) < 0)
				continue;
			row = tos_array();
			tos_push(row, tos_text(in->name));
			tos_push(row, tos_text(item->sender));
			tos_push(row, folder);
			tos_push(r->undelivered, row);
		}
}

static void collect_held(struct resident *r, const struct origin *from, const struct post *p)
{
	const uint8_t *slash = memchr(p->dest.p, '/', p->dest.n);
	struct tos_value *row, *folder = NULL;

	if (!slash || tos_decode(p->folder.p, p->folder.n, 0, &folder) < 0)
		return;
	row = tos_array();
	slash++;
	tos_push(row, tos_text_n((const char *)slash, p->dest.n - (size_t)(slash - p->dest.p)));
	tos_push(row, tos_text(from->name));
	tos_push(row, folder);
	tos_push(r->undelivered, row);
}

void resident_collect_held(struct resident *r, bool goes)
{
	r->n_undelivered = tos_len(r->undelivered);
	if (goes)
		router_held_collect(r, collect_held);
}

/* The move did not come about: what waits in the inboxes or for them is there, not on its way. */
void resident_uncollect(struct resident *r)
{
	size_t keep = r->completed ? r->n_undelivered : 0;

	if (!r->completed && !r->vm) {
		/* Its process is gone, and they with it: they wait for the inboxes of the next. */
		inboxes_drop(r);
		router_held_uncollect(r, true);
		resident_undelivered(r);
		return;
	}
	while (tos_len(r->undelivered) > keep)
		tos_value_free(tos_take_at(r->undelivered, tos_len(r->undelivered) - 1));
	router_held_uncollect(r, false);
}

/* An envelope does not say whose the senders are. */
static enum origin_class class_by_name(const char *sender)
{
	struct address a;

	if (address_parse(sender, strlen(sender), &a, NULL) < 0)
		return ORIGIN_CLIENT;
	return a.kind == ADDRESS_CARRIER        ? ORIGIN_CARRIER
	       : a.kind == ADDRESS_CLIENT       ? ORIGIN_CLIENT
	       : strcmp(a.inbox, "Kernel") == 0 ? ORIGIN_KERNEL
						: ORIGIN_EXTENSION;
}

void resident_undelivered(struct resident *r)
{
	struct list later;

	list_init(&later);
	list_take(&r->held, &later);
	for (size_t i = 0; i < tos_len(r->undelivered); i++) {
		const struct tos_value *row = tos_at(r->undelivered, i);
		struct origin from = { .cls = ORIGIN_CLIENT };
		struct post p = { .kind = POST_ONEWAY };
		char dest[2 * NAME_BYTES_MAX + 2];
		uint8_t *bytes = NULL;
		size_t n = 0;

		snprintf(from.name, sizeof(from.name), "%s", tos_as_text(tos_at(row, 1), ""));
		from.cls = class_by_name(from.name);
		snprintf(dest, sizeof(dest), "%s/%s", r->name, tos_as_text(tos_at(row, 0), ""));
		if (strlen(dest) <= NAME_BYTES_MAX &&
			tos_encode(tos_at(row, 2), &bytes, &n) == 0) {
			p.dest = slice_text(dest);
			p.folder = (struct slice){ bytes, n };
			router_hold(r, &from, &p, true);
		}
		free(bytes);
	}
	while (!list_empty(&later)) {
		struct list *node = later.next;

		list_del(node);
		list_add(&r->held, node);
	}
	tos_value_free(r->undelivered);
	r->undelivered = tos_array();
}

void resident_inboxes_drop(struct resident *r)
{
	inboxes_drop(r);
}

static bool drop_held(struct resident *r, const struct origin *from, const struct post *p)
{
	(void)from;
	kernel_fail_back(r->k, p, ERR_NOT_FOUND, "the carrier has ended");
	return true;
}

void resident_waits(struct resident *r, const char *what)
{
	free(r->waiting);
	r->waiting = mem_strdup(what);
}

void resident_want_link(struct resident *r, bool want)
{
	if (r->wants_link == want)
		return;
	r->wants_link = want;
	peer_want(r->k, r->dest, want);
}

void resident_free(struct resident *r)
{
	if (!r)
		return;
	r->k->stay_over(r->k, r->name);
	vm_abandon(r);
	move_cancel(r);
	resident_want_link(r, false);
	call_cancel(r->k, r->completed_call);
	clone_cancel(r);
	automata_free(r);
	tos_value_free(r->clones);
	if (map_find_str(r->k->residents, r->name) == r)
		map_del_str(r->k->residents, r->name);
	if (r->saved)
		account_stored(r->k, STORED_RESIDENT, r->name, r->owner->name, 0, 0);
	router_held_each(r, drop_held);
	inboxes_drop(r);
	map_free(r->inboxes);
	asked_drop(r, true);
	map_free(r->asked);
	ticket_fini(&r->ticket);
	blob_free(&r->ticket_cose);
	blob_free(&r->code);
	blob_free(&r->briefcase);
	blob_free(&r->state_bytes);
	list_del(&r->signing);
	list_del(&r->costs);
	blob_free(&r->hop);
	blob_free(&r->hop_cose);
	blob_free(&r->envelope);
	tos_value_free(r->path);
	lines_fini(&r->trail);
	lines_fini(&r->log);
	records_fini(&r->hops);
	tos_value_free(r->undelivered);
	tos_value_free(r->fault);
	cert_leave(&r->owner);
	cert_leave(&r->author);
	free(r->waiting);
	free(r->speaks_as);
	free(r);
}

struct resident *resident_find(struct kernel *k, const char *name)
{
	return map_find_str(k->residents, name);
}

struct resident *resident_by_id(struct kernel *k, const uint8_t id[DIGEST_BYTES])
{
	struct resident *r;
	size_t it = 0;

	while ((r = map_next(k->residents, &it, NULL, NULL)))
		if (memcmp(r->id, id, DIGEST_BYTES) == 0)
			return r;
	return NULL;
}

size_t residents_of(struct kernel *k, const char *principal)
{
	struct resident *r;
	size_t it = 0, n = 0;

	while ((r = map_next(k->residents, &it, NULL, NULL)))
		n += strcmp(r->owner->name, principal) == 0;
	return n;
}

/* ---- states */

int resident_event(struct resident *r, enum shell_event ev, struct errmsg *em)
{
	enum shell_state to;
	char label[48];
	int rc = shell_next(r->state, ev, &to);

	if (rc < 0)
		return err_set(em, rc, "%s is %s: %s is not possible", r->name,
			shell_state_word(r->state), shell_event_word(ev));
	if (to != r->state) {
		log_info("state", KV_STR("carrier", r->name),
			KV_STR("from", shell_state_word(r->state)),
			KV_STR("to", shell_state_word(to)),
			KV_STR("event", shell_event_word(ev)));
		snprintf(label, sizeof(label), "state=\"%s\"", shell_state_word(to));
		metric_add(r->k->metrics, "carrier_states_total", label, 1);
		r->state = to;
		r->since_ms = clock_wall_ms();
	}
	return 0;
}

/* Most lines are never looked at here: it is made as it travels. The order is that of the keys'
 * encodings. */
void resident_trail(struct resident *r, const char *event, const char *peer, const char *error)
{
	bool has_peer = peer && peer[0] && text_utf8(peer, strlen(peer));
	bool has_error = error && error[0] && text_utf8(error, strlen(error));
	AUTOBUF b = BUF_INIT;

	if (lines_count(&r->trail) >= TRAIL_MAX || !text_utf8(event, strlen(event)))
		return;
	cbor_put_map(&b, 3u + has_peer + has_error);
	if (has_peer) {
		cbor_put_text(&b, "peer");
		cbor_put_text(&b, peer);
	}
	cbor_put_text(&b, "wall");
	cbor_put_int(&b, clock_wall_ms());
	if (has_error) {
		cbor_put_text(&b, "error");
		cbor_put_text(&b, error);
	}
	cbor_put_text(&b, "event");
	cbor_put_text(&b, event);
	cbor_put_text(&b, "kernel");
	cbor_put_text(&b, r->k->config.name);
	if (buf_check(&b) == 0)
		lines_push_encoded(&r->trail, slice_buf(&b));
}

void resident_log(struct resident *r, const char *level, const char *text)
{
	struct tos_value *line = tos_array();

	tos_push(line, tos_int(clock_wall_ms()));
	tos_push(line, tos_text(r->k->config.name));
	tos_push(line, tos_text(text));
	if (lines_count(&r->log) >= LOG_LINES_MAX)
		tos_value_free(tos_take_at(lines_all(&r->log), 0));
	lines_push(&r->log, line);
	log_info("carrier says", KV_STR("carrier", r->name), KV_STR("level", level),
		KV_STR("text", text));
	home_event(r->k, r->ticket.home, r->name, "log", NULL, text);
}

/* ---- going on */

static void completed_done(
	struct kernel *k, void *arg, int rc, const char *text, const struct tos_value *elements)
{
	AUTOFREE char *name = arg;
	struct resident *r = resident_find(k, name);

	(void)elements;
	if (!r)
		return;
	r->completed_call = 0;
	/* No answer, or Mobility died over it: it is asked again. */
	if (rc < 0 && rc != ERR_TIMEOUT && rc != ERR_UNKNOWN && rc != ERR_FULL &&
		r->state == SHELL_RUNNING && !r->move)
		resident_fault(r, rc, text, "");
}

/* Mobility decides what becomes of a carrier whose begin returned, or that called tos.go. */
static void ask_mobility(struct resident *r, const char *dest)
{
	struct kernel *k = r->k;
	const char *inbox = ext_hook(k->exts, TOS_INBOX_ON_COMPLETION, 0);
	struct tos_value *args;

	if (!inbox) {
		if (r->via_go) {
			vm_done(r, r->go_seq, ERR_UNSUPPORTED,
				"this kernel has no mobility extension");
			r->go_seq = 0;
			r->via_go = false;
		} else if (tos_len(r->path) == 0) {
			outcome_begin(r);
		} else {
			resident_fault(r, ERR_UNSUPPORTED,
				"this kernel has no mobility extension", "");
		}
		return;
	}
	call_cancel(k, r->completed_call);
	args = tos_map();
	tos_set(args, "name", tos_text(r->name));
	tos_set(args, "path", tos_value_copy(r->path));
	tos_set(args, "on_unreachable", tos_text(r->ticket.on_unreachable));
	tos_set(args, "itinerant", tos_bool(r->ticket.itinerant));
	tos_set(args, "why", tos_text(r->via_go ? "go" : "returned"));
	tos_set(args, "dest", tos_text(dest));
	r->ask_again_ms = clock_ms() + ASK_AGAIN_MS;
	r->completed_call = kernel_call(k, "", inbox, "COMPLETED", args, COMPLETED_CALL_MS,
		completed_done, mem_strdup(r->name));
}

void resident_completed(struct resident *r, const char *dest)
{
	if (r->completed && !r->via_go)
		resident_waits(r, NULL);
	ask_mobility(r, dest);
}

void resident_go_on_now(struct resident *r)
{
	struct kernel *k = r->k;
	struct errmsg em = { "" };
	int rc;

	r->scheduled = false;
	if (r->state != SHELL_READY || (r->vm && !r->vm_held) || k->stopping ||
		restored_waits(r))
		return;
	/* That came while it was departing, or the kernel died before it had killed it. */
	if (resident_revoked(r))
		return;
	if (r->completed) {
		vm_abandon(r);
		resident_event(r, SHELL_EV_START, NULL);
		ask_mobility(r, "");
		return;
	}
	rc = vm_start(r, &em);
	if (rc < 0)
		resident_fault(r, rc, err_show(rc, &em), "");
}

static void go_on(struct kernel *k, void *arg)
{
	AUTOFREE char *name = arg;
	struct resident *r = resident_find(k, name);

	if (r)
		resident_go_on_now(r);
}

void resident_go_on(struct resident *r)
{
	if (!r->scheduled) {
		r->scheduled = true;
		/* Thousands may go on at once after a restart: clients are served in between. */
		(r->loaded ? kernel_later_slow : kernel_later)(
			r->k, go_on, mem_strdup(r->name));
	}
}

/* ---- faults and ends */

/* A move, a clone or an end that was under way is not gone on with. */
static void leaving_cancel(struct resident *r)
{
	move_cancel(r);
	clone_cancel(r);
	call_cancel(r->k, r->completed_call);
	r->completed_call = 0;
	r->go_seq = 0;
	r->via_go = false;
}

void resident_fault(struct resident *r, int rc, const char *text, const char *traceback)
{
	char error[300];

	if (r->ending)
		return;
	r->k->stay_over(r->k, r->name);
	vm_abandon(r);
	/* A copy that may have been sent is settled by its destination's answer, whatever its
	 * process says or does by then. */
	if (r->state == SHELL_DEPARTING)
		return;
	leaving_cancel(r);
	if (resident_event(r, SHELL_EV_FAULT, NULL) < 0)
		return;
	resident_waits(r, NULL);
	tos_value_free(r->fault);
	r->fault = tos_map();
	tos_set(r->fault, "code", tos_text(err_word(rc)));
	tos_set(r->fault, "text", tos_text(text && text[0] ? text : err_text(rc)));
	tos_set(r->fault, "traceback", tos_text(traceback ? traceback : ""));
	tos_set(r->fault, "kernel", tos_text(r->k->config.name));
	tos_set(r->fault, "wall", tos_int(clock_wall_ms()));
	snprintf(error, sizeof(error), "%s", text && text[0] ? text : err_text(rc));
	resident_trail(r, "fault", "", error);
	metric_add(r->k->metrics, "faults_total", NULL, 1);
	log_notice("carrier faulted", KV_STR("carrier", r->name), KV_STR("error", err_word(rc)),
		KV_STR("reason", text), KV_STR("traceback", traceback ? traceback : ""));
	inboxes_drop(r);
	FAULT_AT(FAULTED_COMMIT);
	resident_save(r);
	home_report(r);
}

static void end_saved(void *arg, int rc, const struct errmsg *em)
{
	(void)arg;
	if (rc < 0)
		log_error("a carrier's end could not be saved", KV_ERR(rc, em));
}

void resident_end(struct resident *r, enum shell_event ev, const char *why)
{
	struct kernel *k = r->k;
	struct store_txn *t;
	struct tos_value *m;

	if (r->ending || resident_event(r, ev, NULL) < 0)
		return;
	/* The kill is journaled, then done; if it can't be journaled it is done all the same:
	 * the VM ends here, before the store has answered. */
	vm_abandon(r);
	resident_trail(r, shell_state_word(r->state), "", why);
	t = store_begin(k->store);
	m = audit_carrier(r, r->n);
	tos_set(m, "owner", tos_text(r->owner->name));
	tos_set(m, "why", tos_text(why));
	account_charge(t, r);
	resident_del(t, r);
	audit_event(k, t, shell_state_word(r->state), m);
	home_ended(t, r, r->state, why);
	FAULT_AT(END_COMMIT);
	store_commit(t, end_saved, k);
	metric_add(k->metrics, "carriers_ended_total", NULL, 1);
	resident_free(r);
}

/* Give up a move of which nothing was committed, or one that moves all the time is never
 * caught. Mobility is asked again when it goes on; tos.go returns. */
static void stop_moving(struct resident *r)
{
	if (r->state != SHELL_RUNNING)
		return;
	move_cancel(r);
	call_cancel(r->k, r->completed_call);
	r->completed_call = 0;
	if (r->via_go) {
		vm_done(r, r->go_seq, ERR_CANCELLED, "it was suspended before it moved");
		r->via_go = false;
		r->go_seq = 0;
	}
}

static void suspend(struct resident *r)
{
	stop_moving(r);
	if (r->state == SHELL_READY)
		vm_abandon(r); /* one that is being made would find it not ready */
	resident_event(r, SHELL_EV_SUSPEND, NULL);
	vm_freeze(r, true);
}

static void resume(struct resident *r)
{
	resident_event(r, SHELL_EV_RESUME, NULL);
	if (r->vm) {
		vm_freeze(r, false);
		if (r->vm_runs)
			resident_event(r, SHELL_EV_START, NULL);
	} else {
		resident_go_on(r);
	}
}

void resident_pause(struct resident *r)
{
	if (r->state == SHELL_RUNNING) {
		suspend(r);
		r->paused = true;
	} else if (r->state == SHELL_READY) {
		vm_abandon(r);
	}
}

void resident_unpause(struct resident *r)
{
	if (r->paused && r->state == SHELL_SUSPENDED)
		resume(r);
	else if (r->state == SHELL_READY)
		resident_go_on(r);
	else if (r->state == SHELL_DEPARTING)
		r->resend_at_ms = 0;
	r->paused = false;
	r->report_due = true;
	r->report_at_ms = 0;
}

void resident_wanted(struct resident *r, const char *wanted, const struct incarnation *e)
{
	/* While it is held back only a kill is done; the rest is told again when it reports. */
	if (r->ending || (r->quarantined && strcmp(wanted, "killed") != 0))
		return;
	if (strcmp(wanted, "killed") == 0) {
		resident_end(r, SHELL_EV_KILL, "killed by its owner or an administrator");
	} else if (strcmp(wanted, "suspended") == 0) {
		if (r->state == SHELL_RUNNING || r->state == SHELL_READY) {
			suspend(r);
			resident_save(r);
			home_report(r);
		}
	} else if (strcmp(wanted, "running") == 0) {
		if (r->state == SHELL_SUSPENDED) {
			resume(r);
			resident_save(r);
			home_report(r);
		}
	} else if (strcmp(wanted, "retry") == 0) {
		/* One run of an incarnation: what was granted before, and was the one that has faulted
		 * now, is told again only until its home has heard of that. */
		if (r->state == SHELL_FAULTED && (!e || incarnation_compare(e, &r->e) <= 0)) {
			r->report_due = true;
			r->report_at_ms = clock_ms() + r->k->config.retry_ms;
		} else if (r->state == SHELL_FAULTED) {
			r->e = *e;
			incarnation_learn(r->k, r->id, e, r->ticket.expires_ms);
			clone_forget(r);
			resident_event(r, SHELL_EV_RETRY, NULL);
			tos_value_free(r->fault);
			r->fault = NULL;
			resident_trail(r, "retry", "", "");
			FAULT_AT(RETRY_COMMIT);
			resident_save(r);
			home_report(r);
			resident_go_on(r);
		}
	}
}

/* ---- its VM's end */

void resident_vm_failed(struct resident *r, int rc, const char *text)
{
	char why[400];

	snprintf(why, sizeof(why), "no tos-vm could be started: %s", text);
	resident_fault(r, rc < 0 ? rc : ERR_SANDBOX, why, "");
}

void resident_vm_died(struct resident *r, const struct tosd_died *d, const char *why)
{
	int rc = ERR_FAULT;

	if (d && d->cause == TOSD_MEMORY_LIMIT) {
		rc = ERR_LIMIT;
		why = "limit memory: its tos-vm was ended by the system";
	}
	/* A move whose envelope has gone out does not need the VM any more. */
	if (r->state == SHELL_DEPARTING)
		return;
	if (r->completed)
		return;
	resident_fault(r, rc, why, "");
}

void resident_restart(struct resident *r, const char *why)
{
	bool suspended = r->state == SHELL_SUSPENDED;

	if (r->state == SHELL_DEPARTING || r->completed)
		return; /* it does not need the VM any more */
	leaving_cancel(r);
	if (resident_event(r, SHELL_EV_REBOOT, NULL) < 0)
		return;
	metric_add(r->k->metrics, "carriers_restarted_total", NULL, 1);
	resident_waits(r, NULL);
	r->started_ms = 0;
	resident_trail(r, "restarted", "", why);
	/* What waited in its inboxes waits for those of the next run. */
	resident_collect(r);
	inboxes_drop(r);
	asked_drop(r, true);
	resident_undelivered(r);
	resident_save(r);
	home_report(r);
	if (!suspended)
		resident_go_on(r);
}

/* ---- posts to it */

#define ASKED_MAX 4096

/* A call that was delivered to it: only what was asked may be answered. */
struct asked {
	int64_t until_ms;
};

static size_t asked_key(uint64_t tag, struct slice sender, uint8_t key[NAME_BYTES_MAX + 8])
{
	size_t n = sender.n < NAME_BYTES_MAX ? sender.n : NAME_BYTES_MAX;

	memcpy(key, &tag, sizeof(tag));
	memcpy(key + sizeof(tag), sender.p, n);
	return sizeof(tag) + n;
}

static void asked_drop(struct resident *r, bool all)
{
	struct asked *a;
	const void *key;
	size_t it = 0, n;

	while ((a = map_next(r->asked, &it, &key, &n)))
		if (all || clock_ms() > a->until_ms) {
			map_del(r->asked, key, n);
			free(a);
		}
}

static int asked_note(struct resident *r, const struct post *p)
{
	uint8_t key[NAME_BYTES_MAX + 8];
	size_t n = asked_key(p->tag, p->sender, key);
	struct asked *a;

	if (map_size(r->asked) >= ASKED_MAX)
		asked_drop(r, false);
	if (map_size(r->asked) >= ASKED_MAX)
		return ERR_FULL;
	a = mem_new(struct asked);
	a->until_ms =
		kernel_now(r->k) + (p->deadline_ms ? p->deadline_ms : r->k->config.call_ms);
	free(map_put(r->asked, key, n, a));
	return 0;
}

/* Whether it was asked that and has not answered yet. */
bool resident_answers(struct resident *r, uint64_t tag, struct slice sender)
{
	uint8_t key[NAME_BYTES_MAX + 8];
	struct asked *a = map_del(r->asked, key, asked_key(tag, sender, key));

	free(a);
	return a != NULL;
}

/* Put a folder into one of its inboxes. */
static int inbox_deliver(
	struct resident *r, const struct origin *from, const struct post *p, const char *inbox)
{
	char sender[NAME_BYTES_MAX + 1];
	struct inbox *in = map_find_str(r->inboxes, inbox);
	int rc;

	if (!in || !r->vm_runs)
		return ERR_STATE;
	slice_copy_text(p->sender, sender, sizeof(sender));
	rc = inbox_push(in, p, (struct slice){ NULL, 0 }, 0);
	if (rc == 0 && p->kind == POST_CALL)
		rc = asked_note(r, p);
	if (rc == 0)
		rc = vm_deliver(r, p->kind, inbox, sender, p->tag, p->folder, from);
	if (rc == 0) {
		r->n_waiting++;
		r->received += (int64_t)p->folder.n;
	}
	return rc;
}

static bool inbox_grace(const struct resident *r)
{
	return r->state == SHELL_ARRIVING || r->state == SHELL_READY || r->started_ms == 0 ||
	       clock_ms() - r->started_ms < INBOX_GRACE_MS;
}

bool resident_would_hold(const struct resident *r, const char *inbox)
{
	if (!inbox[0] || r->state == SHELL_FAULTED)
		return false; /* refused at once */
	if (r->state == SHELL_DEPARTING || r->completed)
		return true;
	return !map_find_str(r->inboxes, inbox) && inbox_grace(r);
}

int resident_post(struct resident *r, const struct origin *from, const struct post *p,
	const char *inbox, struct errmsg *em)
{
	bool answer = p->kind == POST_ANSWER || p->kind == POST_FAILURE;
	struct inbox *in = map_find_str(r->inboxes, inbox);
	char sender[NAME_BYTES_MAX + 1];

	slice_copy_text(p->sender, sender, sizeof(sender));
	if (p->kind == POST_FAILURE && p->tag == 0) {
		/* A one-way post of its own failed later, at another kernel. */
		struct post f = *p;

		f.kind = POST_ONEWAY;
		return map_find_str(r->inboxes, "failures") && r->state == SHELL_RUNNING
			       ? inbox_deliver(r, from, &f, "failures")
			       : 0;
	}
	if (answer) {
		/* Calls end with the stay: an answer that comes while it departs has no caller. */
		if (r->state == SHELL_DEPARTING || !r->vm)
			return err_set(em, ERR_NOT_FOUND, "the call was given up");
		r->received += (int64_t)p->folder.n;
		return vm_deliver(r, p->kind, "", sender, p->tag, p->folder, NULL);
	}
	if (!inbox[0])
		return err_set(
			em, ERR_NO_INBOX, "say which inbox of %s: %s/NAME", r->name, r->name);
	if ((int64_t)(r->n_held + r->n_waiting) >= r->usage.limit[LIMIT_inbox]) {
		r->usage.exceeded[LIMIT_inbox]++;
		return err_set(em, ERR_FULL, "%zu folders wait for %s",
			r->n_held + r->n_waiting, r->name);
	}
	if (r->state == SHELL_FAULTED)
		return err_set(em, ERR_STATE, "%s is faulted", r->name);
	if (r->state != SHELL_DEPARTING && !r->completed && in)
		return inbox_deliver(r, from, p, inbox);
	/* While it departs posts wait here and follow it; just after the start its inbox may be
	 * about to open. */
	if (r->state == SHELL_DEPARTING || r->completed || inbox_grace(r))
		return router_hold(r, from, p, false);
	return err_set(em, ERR_NO_INBOX, "%s has no inbox %s", r->name, inbox);
}

static bool held_try(struct resident *r, const struct origin *from, const struct post *p)
{
	const char *slash = memchr(p->dest.p, '/', p->dest.n);
	char inbox[64] = "";

	if (slash)
		slice_copy_text(
			(struct slice){ (const uint8_t *)slash + 1,
				p->dest.n - (size_t)(slash + 1 - (const char *)p->dest.p) },
			inbox, sizeof(inbox));
	/* Its copy here is as good as gone: what its tos-vm got now would be lost. */
	if (r->state == SHELL_DEPARTING || r->completed)
		return false;
	if (map_find_str(r->inboxes, inbox))
		return inbox_deliver(r, from, p, inbox) == 0;
	if (inbox_grace(r))
		return false;
	kernel_fail_back(r->k, p, ERR_NO_INBOX, "the carrier has no such inbox");
	return true;
}

void resident_deliver_held(struct resident *r)
{
	if (r->n_held)
		router_held_each(r, held_try);
}

/* ---- what is shown of it */

struct tos_value *resident_row(struct resident *r)
{
	struct tos_value *m = tos_map();

	tos_set(m, "name", tos_text(r->name));
	tos_set(m, "state", tos_text(shell_state_word(r->state)));
	tos_set(m, "in_doubt", tos_bool(r->in_doubt || r->quarantined));
	tos_set(m, "kernel", tos_text(r->k->config.name));
	tos_set(m, "home", tos_text(r->ticket.home));
	tos_set(m, "owner", tos_text(r->owner->name));
	tos_set(m, "hop", tos_int((int64_t)r->hop_count));
	tos_set(m, "since_ms", tos_int(r->since_ms));
	tos_set(m, "trust", tos_text(TRUST_USER));
	family_row(r->name, m);
	if (r->quarantined)
		tos_set(m, "waiting", tos_text("held back: the store was restored or copied"));
	else if (r->waiting)
		tos_set(m, "waiting", tos_text(r->waiting));
	return m;
}

static struct tos_value *folder_sizes(struct slice briefcase)
{
	struct tos_value *m = tos_map();
	struct cbor_cursor c;
	uint64_t n;

	cbor_init(&c, briefcase.p, briefcase.n);
	n = cbor_open_map_max(&c, 1 << 20);
	for (uint64_t i = 0; i < n && c.rc == 0; i++) {
		char name[129];

		slice_copy_text(cbor_text(&c, 0, 128), name, sizeof(name));
		tos_set(m, name, tos_int((int64_t)cbor_any(&c).n));
	}
	return m;
}

struct tos_value *resident_show(struct resident *r)
{
	struct tos_value *m = resident_row(r);
	struct tos_value *limits = tos_map(), *usage = tos_map();
	char hex[2 * DIGEST_BYTES + 1];

	r->usage.used[LIMIT_hops] = (int64_t)r->hop_count;
	for (int i = 0; i < LIMIT_COUNT; i++) {
		tos_set(limits, limit_names[i], tos_int(r->usage.limit[i]));
		tos_set(usage, limit_names[i],
			tos_int(i == LIMIT_cpu ? (int64_t)(vm_cpu_us(r) / 1000)
					       : r->usage.used[i]));
	}
	tos_set(m, "limits", limits);
	tos_set(m, "usage", usage);
	tos_set(m, "trail", tos_value_copy(lines_all(&r->trail)));
	tos_set(m, "path", tos_value_copy(r->path));
	tos_set(m, "fault", r->fault ? tos_value_copy(r->fault) : tos_nil());
	tos_set(m, "folders", folder_sizes(blob_slice(&r->briefcase)));
	seals_show(&r->ticket, m);
	if (r->automata)
		tos_set(m, "automata", automata_show(r));
	tos_set(m, "author", tos_text(r->author->name));
	tos_set(m, "incarnation", tos_int((int64_t)r->e.count));
	tos_set(m, "departures", tos_int((int64_t)r->n));
	tos_set(m, "code", tos_text(text_hex(r->code_digest, DIGEST_BYTES, hex)));
	tos_set(m, "id", tos_text(text_hex(r->id, DIGEST_BYTES, hex)));
	if (r->state == SHELL_DEPARTING)
		tos_set(m, "dest", tos_text(r->dest));
	return m;
}

/* ---- time */

static bool check_limits(struct resident *r, int64_t wall_ms)
{
	int64_t lifetime = r->ticket.issued_ms + r->usage.limit[LIMIT_lifetime];
	bool faulted = r->state == SHELL_FAULTED;
	char text[120];

	if (r->vm_runs) {
		uint64_t cpu_ms = vm_cpu_us(r) / 1000;

		if ((int64_t)cpu_ms > r->usage.limit[LIMIT_cpu]) {
			r->usage.exceeded[LIMIT_cpu]++;
			metric_add(r->k->metrics, "limits_exceeded_total", "limit=\"cpu\"", 1);
			snprintf(text, sizeof(text), "limit cpu: used %llu ms of %lld ms",
				(unsigned long long)cpu_ms,
				(long long)r->usage.limit[LIMIT_cpu]);
			resident_fault(r, ERR_LIMIT, text, "");
			return true;
		}
	}
	/* A copy that counts as sent is not ours to end; a fault is kept to be looked at. */
	if (r->state == SHELL_DEPARTING)
		return false;
	if (faulted && wall_ms < r->ticket.expires_ms + KEEP_AFTER_MS)
		return false;
	if (wall_ms > lifetime || wall_ms > r->ticket.expires_ms) {
		metric_add(r->k->metrics, "limits_exceeded_total", "limit=\"lifetime\"", 1);
		snprintf(text, sizeof(text),
			wall_ms > lifetime ? "limit lifetime: %lld ms" : "its ticket expired",
			(long long)r->usage.limit[LIMIT_lifetime]);
		resident_end(r, SHELL_EV_KILL, text);
		return true;
	}
	return false;
}

void residents_tick(struct kernel *k, int64_t now_ms)
{
	struct resident *r;
	size_t it = 0;
	int own_reports = OWN_REPORTS_A_TICK;
	int64_t wall_ms = clock_wall_ms();

	while ((r = map_next(k->residents, &it, NULL, NULL))) {
		if (check_limits(r, wall_ms))
			continue; /* it may be gone; the walk is by index */
		if (r->n_held)
			resident_deliver_held(r);
		if (r->completion_due && r->state != SHELL_DEPARTING)
			resident_save(r);
		if (r->quarantined)
			continue;
		/* Thousands at once after a restart: those that are at home can wait their turn. */
		if (r->report_due && !r->reporting && now_ms >= r->report_at_ms &&
			(strcmp(r->ticket.home, k->config.name) != 0 || own_reports-- > 0))
			home_report(r);
		/* Mobility lost it (its process or the call died): ask again. */
		if (r->state == SHELL_RUNNING && r->completed && !r->move &&
			!r->completed_call && !r->scheduled && now_ms >= r->ask_again_ms)
			resident_completed(r, "");
	}
}

/* ---- Shells: what extensions may do with a completed carrier */

/* Answers where there is none: rq is gone then, so read what it says before. */
static struct resident *shells_resident(struct kernel *k, struct request *rq)
{
	const char *name = tos_get_text(rq->args, "name", "");
	struct resident *r = resident_find(k, name);

	if (!r)
		request_fail(rq, ERR_NOT_FOUND, "no carrier %s here", name);
	return r;
}

static void shells_move(struct kernel *k, struct request *rq)
{
	int64_t timeout = tos_get_int(rq->args, "timeout_ms", 0);
	struct resident *r = shells_resident(k, rq);

	if (!r)
		return;
	if (timeout <= 0 || timeout > 600000)
		timeout = k->config.offer_ms;
	move_begin(r, rq, tos_get_text(rq->args, "dest", ""),
		tos_get_bool(rq->args, "entry", false), (uint32_t)timeout);
}

static void shells_drop_entry(struct kernel *k, struct request *rq)
{
	struct resident *r = shells_resident(k, rq);

	if (!r)
		return;
	if (tos_len(r->path) == 0 || r->move) {
		request_fail(rq, ERR_STATE, "there is no entry to take off");
		return;
	}
	tos_value_free(tos_take_at(r->path, 0));
	resident_save(r);
	request_ok(rq, NULL);
}

static void shells_finish(struct kernel *k, struct request *rq)
{
	struct resident *r = shells_resident(k, rq);

	if (!r)
		return;
	if (r->state != SHELL_RUNNING || r->move) {
		request_fail(rq, ERR_STATE, "%s is %s", r->name, shell_state_word(r->state));
		return;
	}
	request_ok(rq, NULL);
	outcome_begin(r);
}

static void shells_fault(struct kernel *k, struct request *rq)
{
	const char *code = tos_get_text(rq->args, "code", "fault");
	struct resident *r = shells_resident(k, rq);
	AUTOFREE char *text = NULL;

	if (!r)
		return;
	if (r->state != SHELL_RUNNING || r->move) {
		request_fail(rq, ERR_STATE, "%s is %s", r->name, shell_state_word(r->state));
		return;
	}
	text = mem_strdup(tos_get_text(rq->args, "text", ""));
	resident_fault(r, err_from_word(code, strlen(code)), text, "");
	request_ok(rq, NULL);
}

static void shells_resume(struct kernel *k, struct request *rq)
{
	const char *code = tos_get_text(rq->args, "code", "refused");
	struct resident *r = shells_resident(k, rq);

	if (!r)
		return;
	if (!r->via_go || r->move) {
		request_fail(rq, ERR_STATE, "%s does not wait for tos.go", r->name);
		return;
	}
	r->via_go = false;
	resident_waits(r, NULL);
	vm_done(r, r->go_seq, err_from_word(code, strlen(code)),
		tos_get_text(rq->args, "text", ""));
	r->go_seq = 0;
	request_ok(rq, NULL);
}

static void shells_trail(struct kernel *k, struct request *rq)
{
	struct resident *r = shells_resident(k, rq);

	if (!r)
		return;
	resident_trail(r, tos_get_text(rq->args, "event", "note"),
		tos_get_text(rq->args, "kernel", ""), tos_get_text(rq->args, "error", ""));
	request_ok(rq, NULL);
}

static void shells_waiting(struct kernel *k, struct request *rq)
{
	struct resident *r = shells_resident(k, rq);
	char what[256];

	if (!r)
		return;
	snprintf(what, sizeof(what), "for %s: %s", tos_get_text(rq->args, "dest", "?"),
		tos_get_text(rq->args, "text", ""));
	resident_waits(r, what);
	home_event(k, r->ticket.home, r->name, "wait", NULL, r->waiting);
	request_ok(rq, NULL);
}

const struct verb shells_verbs[] = {
	{ "MOVE", shells_move },
	{ "DROP_ENTRY", shells_drop_entry },
	{ "FINISH", shells_finish },
	{ "FAULT", shells_fault },
	{ "RESUME", shells_resume },
	{ "TRAIL", shells_trail },
	{ "WAITING", shells_waiting },
	{ "SPAWN", shells_spawn },
	{ NULL, NULL },
};
