/*
 * What a carrier's tos-vm says. It is hostile as soon as it runs the carrier: each frame is
 * decoded strictly, bounded by the limits granted, and one out of order ends it.
 */
#include "kernel/carrier/family.h"

#include <string.h>

#include "base/clock.h"
#include "base/fault.h"
#include "base/log.h"
#include "base/text.h"
#include "core/path.h"
#include "kernel/carrier/account.h"
#include "kernel/carrier/admit.h"
#include "kernel/carrier/automata.h"
#include "kernel/carrier/resident.h"
#include "kernel/carrier/seals.h"
#include "kernel/carrier/vms.h"
#include "kernel/handoff/moves.h"
#include "kernel/trust/trust.h"
#include "wire/vmproto.h"

#define TEXT_MAX       4096
#define TRACEBACK_MAX  16384
#define CALLS_OPEN_MAX 4096
#define INBOXES_MAX    1024

struct frozen {
	struct slice path, state, briefcase;
};

/* frozen = {path, state, briefcase}: in the order of their encodings. */
static void frozen_read(struct cbor_cursor *c, struct frozen *f)
{
	if (cbor_open_map_max(c, 3) != 3)
		cbor_fail(c, ERR_MALFORMED);
	cbor_expect_text(c, "path");
	f->path = cbor_any(c);
	cbor_expect_text(c, "state");
	f->state = cbor_bytes(c, 0, (size_t)128 << 20);
	cbor_expect_text(c, "briefcase");
	f->briefcase = cbor_any(c);
	cbor_close(c);
}

/* Whether it may keep this as what travels: size, form, and a path that it may have. */
static int frozen_check(
	struct resident *r, const struct frozen *f, struct tos_value **path, struct errmsg *em)
{
	size_t bytes = f->path.n + f->state.n + f->briefcase.n;
	struct tos_value *v = NULL;
	int rc;

	r->usage.used[LIMIT_state] = (int64_t)bytes;
	if ((int64_t)bytes > r->usage.limit[LIMIT_state]) {
		r->usage.exceeded[LIMIT_state]++;
		metric_add(r->k->metrics, "limits_exceeded_total", "limit=\"state\"", 1);
		return err_set(em, ERR_LIMIT, "limit state: %zu of %lld bytes", bytes,
			(long long)r->usage.limit[LIMIT_state]);
	}
	rc = briefcase_check(f->briefcase, em);
	if (rc == 0)
		rc = account_room(r->k, r->owner->name,
			(int64_t)(bytes) - (int64_t)(r->briefcase.n + r->state_bytes.n), em);
	if (rc == 0)
		rc = seals_kept(r, f->briefcase, em);
	if (rc == 0)
		rc = tos_decode(f->path.p, f->path.n, 0, &v);
	if (rc == 0 && (tos_type(v) != TOS_ARRAY || tos_len(v) > PATH_ENTRIES_MAX))
		rc = err_set(em, ERR_MALFORMED, "the path is not a list");
	for (size_t i = 0; rc == 0 && i < tos_len(v); i++)
		if (tos_type(tos_at(v, i)) != TOS_TEXT)
			rc = err_set(em, ERR_MALFORMED, "a path entry is not a text");
	if (rc == 0 && !r->ticket.itinerant && !path_is_suffix(v, r->ticket.path))
		rc = err_set(em, ERR_DENIED,
			"the path was changed, and the ticket does not say itinerant");
	if (rc < 0)
		tos_value_free(v);
	else
		*path = v;
	return rc;
}

static void frozen_take(struct resident *r, const struct frozen *f, struct tos_value *path)
{
	blob_set(&r->briefcase, f->briefcase);
	blob_set(&r->state_bytes, f->state);
	tos_value_free(r->path);
	r->path = path;
	/* A run that begins again does so from here, behind the clones made so far. */
	clone_checkpoint(r);
	automata_keep(r);
}

static int finish_frame(struct cbor_cursor *c)
{
	cbor_close(c);
	return cbor_finish(c);
}

/* ---- posts */

/* Into its own inbox `failures`, as any other post. */
static void failure_post(struct resident *r, struct slice folder)
{
	char dest[NAME_BYTES_MAX + 16];
	struct origin self;
	struct errmsg em;
	struct post p = { .kind = POST_ONEWAY, .folder = folder };

	origin_self(r->k, &self);
	snprintf(dest, sizeof(dest), "%s/failures", r->name);
	p.dest = slice_text(dest);
	p.sender = slice_text(self.name);
	resident_post(r, &self, &p, "failures", &em);
}

static void send_failed(struct resident *r, enum post_kind kind, uint64_t tag, int rc,
	const char *text, const char *dest)
{
	AUTOBUF folder = BUF_INIT;
	struct tos_value *parts[3] = { tos_text(err_word(rc)), tos_text(text), tos_text(dest) };

	folder_encode(&folder, "failure", (const struct tos_value *const *)parts, 3);
	if (kind == POST_ANSWER || kind == POST_FAILURE)
		metric_add(r->k->metrics, "answers_lost_total", NULL, 1);
	else if (kind == POST_CALL)
		vm_deliver(r, POST_FAILURE, "", "", tag, slice_buf(&folder), NULL);
	else if (map_find_str(r->inboxes, "failures"))
		failure_post(r, slice_buf(&folder));
	for (int i = 0; i < 3; i++)
		tos_value_free(parts[i]);
}

/* Who it is does not change in its stay. */
static const struct origin *speaks_as(struct resident *r)
{
	struct origin *o = r->speaks_as;

	if (!o) {
		o = r->speaks_as = mem_new(struct origin);
		o->cls = ORIGIN_CARRIER;
		snprintf(o->name, sizeof(o->name), "%s", r->name);
		snprintf(o->principal, sizeof(o->principal), "%s", r->owner->name);
		snprintf(o->author, sizeof(o->author), "%s", r->author->name);
		o->roles = carrier_roles(r->owner, r->author);
		o->owner_only = rights_of(r->k, r->owner);
		o->author_only = rights_of(r->k, r->author);
	}
	return o;
}

static int on_send(struct resident *r, struct cbor_cursor *c, struct errmsg *em)
{
	const struct origin *from = speaks_as(r);
	struct post p;
	struct errmsg why;
	bool ended = false;
	int rc;

	p.kind = (enum post_kind)cbor_uint(c, POST_FAILURE);
	p.dest = cbor_text(c, 1, NAME_BYTES_MAX);
	p.tag = cbor_uint(c, INT64_MAX);
	p.deadline_ms = (uint32_t)cbor_uint(c, UINT32_MAX);
	p.folder = cbor_any(c);
	p.trace = (struct slice){ NULL, 0 };
	rc = finish_frame(c);
	if (rc == 0)
		rc = folder_form(p.folder);
	if (rc < 0)
		return err_set(em, rc, "a SEND frame does not decode");
	why.text[0] = 0;
	p.sender = slice_text(from->name);
	if ((p.kind == POST_ANSWER || p.kind == POST_FAILURE) &&
		!resident_answers(r, p.tag, p.dest))
		return 0; /* answered before, or too late: nobody waits for it */
	if (!rate_take(&r->post_rate, 1, kernel_now(r->k))) {
		r->usage.exceeded[LIMIT_posts]++;
		metric_add(r->k->metrics, "limits_exceeded_total", "limit=\"posts\"", 1);
		rc = err_set(&why, ERR_LIMIT, "limit posts: %lld in a second",
			(long long)r->usage.limit[LIMIT_posts]);
	}
	if (rc == 0)
		rc = account_send(r, (int64_t)p.folder.n, &why);
	if (rc == 0)
		rc = usage_add(&r->usage, LIMIT_sent, (int64_t)p.folder.n, &why);
	if (rc == ERR_LIMIT && r->usage.exceeded[LIMIT_posts] > 100000)
		return err_set(em, ERR_LIMIT, "limit posts: it goes on posting without end");
	if (rc == 0)
		rc = automata_post(r, p.kind, p.dest, &ended, &why);
	if (ended)
		return 0;
	if (rc == 0)
		rc = kernel_route(r->k, from, &p, &why);
	if (rc == 0)
		r->n_posts++;
	if (rc < 0) {
		char dest[NAME_BYTES_MAX + 1];

		slice_copy_text(p.dest, dest, sizeof(dest));
		send_failed(r, p.kind, p.tag, rc, err_show(rc, &why), dest);
	}
	return 0;
}

/* ---- moves and ends */

static int on_go(struct resident *r, struct cbor_cursor *c, struct errmsg *em)
{
	uint64_t seq = cbor_uint(c, INT64_MAX);
	struct slice dest = cbor_text(c, 0, NAME_BYTES_MAX);
	struct tos_value *path = NULL;
	struct errmsg why = { "" };
	struct frozen f;
	char name[NAME_BYTES_MAX + 1];
	bool ended;
	int rc;

	frozen_read(c, &f);
	rc = finish_frame(c);
	if (rc < 0)
		return err_set(em, rc, "a GO frame does not decode");
	if (r->go_seq || r->move)
		return err_set(em, ERR_STATE, "GO while a move is under way");
	slice_copy_text(dest, name, sizeof(name));
	rc = automata_go(r, name, &ended, &why);
	if (ended)
		return 0;
	if (rc == 0)
		rc = frozen_check(r, &f, &path, &why);
	if (rc == 0 && r->hop_count + 1 > (uint64_t)r->usage.limit[LIMIT_hops]) {
		r->usage.exceeded[LIMIT_hops]++;
		metric_add(r->k->metrics, "limits_exceeded_total", "limit=\"hops\"", 1);
		rc = err_set(&why, ERR_LIMIT, "limit hops: %llu of %lld",
			(unsigned long long)r->hop_count,
			(long long)r->usage.limit[LIMIT_hops]);
		tos_value_free(path);
	}
	if (rc < 0) {
		vm_done(r, seq, rc, err_show(rc, &why));
		return 0;
	}
	frozen_take(r, &f, path);
	r->go_seq = seq;
	r->via_go = true;
	resident_completed(r, name);
	return 0;
}

static int on_finished(struct resident *r, struct cbor_cursor *c, struct errmsg *em)
{
	struct tos_value *path = NULL;
	struct errmsg why = { "" };
	struct frozen f;
	int rc;

	frozen_read(c, &f);
	rc = finish_frame(c);
	if (rc < 0)
		return err_set(em, rc, "a FINISHED frame does not decode");
	rc = frozen_check(r, &f, &path, &why);
	if (rc < 0) {
		resident_fault(r, rc, err_show(rc, &why), "");
		return 0;
	}
	frozen_take(r, &f, path);
	r->completed = true;
	vm_abandon(r);
	resident_collect(r);
	resident_inboxes_drop(r);
	FAULT_AT(COMPLETED_COMMIT);
	/* Saved, if it is still here at the next tick, so that a crash then does not run begin
	 * again: mostly it departs at once, and that is journaled anyway. */
	r->completion_due = true;
	FAULT_AT(COMPLETED);
	if (r->state == SHELL_RUNNING)
		resident_completed(r, "");
	return 0;
}

/* "limit NAME: ..." */
static void note_limit(struct resident *r, const char *text)
{
	char label[48];

	for (int i = 0; i < LIMIT_COUNT; i++) {
		size_t n = strlen(limit_names[i]);

		if (strncmp(text, "limit ", 6) != 0 ||
			strncmp(text + 6, limit_names[i], n) != 0 || text[6 + n] != ':')
			continue;
		snprintf(label, sizeof(label), "limit=\"%s\"", limit_names[i]);
		metric_add(r->k->metrics, "limits_exceeded_total", label, 1);
		r->usage.exceeded[i]++;
	}
}

static int on_fault(struct resident *r, struct cbor_cursor *c, struct errmsg *em)
{
	char word[40], text[TEXT_MAX + 1], traceback[TRACEBACK_MAX + 1];
	struct tos_value *path = NULL;
	struct frozen f;
	bool has_state;
	int rc;

	slice_copy_text(cbor_text(c, 0, 32), word, sizeof(word));
	slice_copy_text(cbor_text(c, 0, TEXT_MAX), text, sizeof(text));
	slice_copy_text(cbor_text(c, 0, TRACEBACK_MAX), traceback, sizeof(traceback));
	has_state = cbor_peek(c) == CBOR_MAP;
	if (has_state)
		frozen_read(c, &f);
	else
		cbor_null(c);
	rc = finish_frame(c);
	if (rc < 0)
		return err_set(em, rc, "a FAULT frame does not decode");
	(void)path;
	if (strcmp(word, "limit") == 0)
		note_limit(r, text);
	/* What a retry starts from is the arrival, or the last checkpoint: not the broken
	 * state. */
	resident_fault(r, err_from_word(word, strlen(word)), text, traceback);
	return 0;
}

struct checkpoint {
	struct kernel *k;
	char name[NAME_BYTES_MAX + 1];
	uint64_t seq;
};

static void checkpoint_saved(void *arg, int rc, const struct errmsg *em)
{
	AUTOFREE struct checkpoint *cp = arg;
	struct resident *r = resident_find(cp->k, cp->name);

	FAULT_AT(CHECKPOINT_JOURNALED);
	if (r)
		vm_done(r, cp->seq, rc, rc < 0 ? err_show(rc, em) : "");
}

static int on_checkpoint(struct resident *r, struct cbor_cursor *c, struct errmsg *em)
{
	uint64_t seq = cbor_uint(c, INT64_MAX);
	struct tos_value *path = NULL;
	struct errmsg why = { "" };
	struct checkpoint *cp;
	struct store_txn *t;
	struct frozen f;
	int rc;

	frozen_read(c, &f);
	rc = finish_frame(c);
	if (rc < 0)
		return err_set(em, rc, "a CHECKPOINT frame does not decode");
	rc = frozen_check(r, &f, &path, &why);
	if (rc < 0) {
		vm_done(r, seq, rc, err_show(rc, &why));
		return 0;
	}
	frozen_take(r, &f, path);
	cp = mem_new(struct checkpoint);
	cp->k = r->k;
	cp->seq = seq;
	snprintf(cp->name, sizeof(cp->name), "%s", r->name);
	t = store_begin(r->k->store);
	resident_put(t, r);
	FAULT_AT(CHECKPOINT_COMMIT);
	rc = store_commit(t, checkpoint_saved, cp);
	if (rc < 0) {
		free(cp);
		vm_done(r, seq, rc, "the store takes no more");
	}
	return 0;
}

/* split = {name: int}: of the limits that are split, those that it cares for. */
static void split_said(struct cbor_cursor *c, int64_t split[LIMIT_COUNT])
{
	uint64_t n = cbor_open_map_max(c, SPLIT_COUNT);

	for (int i = 0; i < LIMIT_COUNT; i++)
		split[i] = -1;
	for (uint64_t i = 0; i < n && !c->rc; i++) {
		struct slice name = cbor_text(c, 1, 16);
		int id = c->rc ? -1 : limit_find((const char *)name.p, name.n);
		bool known = false;

		for (size_t j = 0; j < SPLIT_COUNT && id >= 0; j++)
			known |= split_limits[j] == (enum limit_id)id;
		if (!known)
			cbor_fail(c, ERR_MALFORMED);
		else
			split[id] = (int64_t)cbor_uint(c, INT64_MAX / 2);
	}
	cbor_close(c);
}

static int on_clone(struct resident *r, struct cbor_cursor *c, struct errmsg *em)
{
	struct clone_asked a = { .path = NULL };
	struct errmsg why = { "" };
	struct frozen f;
	bool ended;
	int rc;

	a.seq = cbor_uint(c, INT64_MAX);
	a.dest = cbor_text(c, 0, 63);
	split_said(c, a.split);
	frozen_read(c, &f);
	rc = finish_frame(c);
	if (rc < 0)
		return err_set(em, rc, "a CLONE frame does not decode");
	if (r->cloning || r->go_seq || r->move)
		return err_set(em, ERR_STATE, "CLONE while it waits for something else");
	rc = automata_clone(r, a.dest, &ended, &why);
	if (ended)
		return 0;
	if (rc == 0)
		rc = frozen_check(r, &f, &a.path, &why);
	if (rc < 0) {
		vm_done(r, a.seq, rc, err_show(rc, &why));
		return 0;
	}
	a.state = f.state;
	a.briefcase = f.briefcase;
	clone_begin(r, &a);
	return 0;
}

/* ---- the rest */

static int on_log(struct resident *r, struct cbor_cursor *c, struct errmsg *em)
{
	static const char *const levels[] = { "debug", "info", "notice", "warning", "error" };
	uint64_t level = cbor_uint(c, 4);
	char text[TEXT_MAX + 1];
	int rc;

	slice_copy_text(cbor_text(c, 0, 65536), text, sizeof(text));
	rc = finish_frame(c);
	if (rc < 0)
		return err_set(em, rc, "a LOG frame does not decode");
	if (rate_take(&r->log_rate, 1, clock_ms()))
		resident_log(r, levels[level], text);
	else
		metric_add(r->k->metrics, "carrier_log_lines_dropped_total", NULL, 1);
	return 0;
}

static int on_inbox(struct resident *r, struct cbor_cursor *c, struct errmsg *em)
{
	uint64_t seq = cbor_uint(c, INT64_MAX);
	bool open = cbor_bool(c);
	char name[64];
	uint64_t bound;
	struct inbox *in;
	struct errmsg why = { "" };
	bool ended;
	int rc;

	slice_copy_text(cbor_text(c, 1, 63), name, sizeof(name));
	bound = cbor_uint(c, UINT32_MAX);
	rc = finish_frame(c);
	if (rc < 0)
		return err_set(em, rc, "an INBOX frame does not decode");
	in = map_find_str(r->inboxes, name);
	if (!open) {
		if (in) {
			r->n_waiting -= in->n < r->n_waiting ? in->n : r->n_waiting;
			map_del_str(r->inboxes, name);
			inbox_fini(in);
			free(in);
		}
		vm_done(r, seq, 0, "");
		return 0;
	}
	if (!name_private_ok(name)) {
		vm_done(r, seq, name_inbox_ok(name) ? ERR_DENIED : ERR_NAME,
			"a carrier's own inbox has lower-case letters, digits, '-' and '_'; global names belong to extensions");
		return 0;
	}
	if (in) {
		vm_done(r, seq, ERR_EXISTS, "the inbox is open already");
		return 0;
	}
	rc = automata_inbox(r, name, &ended, &why);
	if (ended)
		return 0;
	if (rc < 0) {
		vm_done(r, seq, rc, err_show(rc, &why));
		return 0;
	}
	if (map_size(r->inboxes) >= INBOXES_MAX) {
		vm_done(r, seq, ERR_LIMIT, "too many inboxes");
		return 0;
	}
	in = mem_new(struct inbox);
	if (!bound || bound > (uint64_t)r->usage.limit[LIMIT_inbox])
		bound = (uint64_t)r->usage.limit[LIMIT_inbox];
	inbox_init(in, name, (uint32_t)bound, (size_t)r->usage.limit[LIMIT_state], 0);
	map_put_str(r->inboxes, name, in);
	vm_done(r, seq, 0, "");
	resident_deliver_held(r);
	return 0;
}

static int on_taken(struct resident *r, struct cbor_cursor *c, struct errmsg *em)
{
	struct inbox_item *item;
	struct inbox *in;
	char name[64];
	uint64_t n;
	int rc;

	slice_copy_text(cbor_text(c, 1, 63), name, sizeof(name));
	n = cbor_uint(c, UINT32_MAX);
	rc = finish_frame(c);
	in = map_find_str(r->inboxes, name);
	if (rc < 0 || !in || n > in->n || n > r->n_waiting)
		return err_set(em, rc < 0 ? rc : ERR_STATE, "a TAKEN frame is wrong");
	for (uint64_t i = 0; i < n; i++) {
		item = inbox_take(in);
		inbox_item_free(item);
	}
	r->n_waiting -= n;
	return 0;
}

static int on_usage(struct resident *r, struct cbor_cursor *c, struct errmsg *em)
{
	uint64_t cpu_us = cbor_uint(c, INT64_MAX / 4);
	int rc;

	r->usage.used[LIMIT_memory] = (int64_t)cbor_uint(c, (uint64_t)1 << 42);
	rc = finish_frame(c);
	if (rc < 0)
		return err_set(em, rc, "a USAGE frame does not decode");
	vm_told_usage(r, cpu_us);
	return 0;
}

static int on_started(struct resident *r, struct cbor_cursor *c, struct errmsg *em)
{
	int rc = finish_frame(c);

	FAULT_AT(STARTED);
	resident_trail(r, "started", "", "");
	return rc < 0 ? err_set(em, rc, "a STARTED frame does not decode") : 0;
}

static const struct vm_rule {
	enum vm_frame type;
	bool when_suspended; /* what was on its way when it was frozen */
	int (*handler)(struct resident *r, struct cbor_cursor *c, struct errmsg *em);
} vm_rules[] = {
	{ VM_STARTED, true, on_started },
	{ VM_SEND, true, on_send },
	{ VM_GO, true, on_go },
	{ VM_FINISHED, true, on_finished },
	{ VM_FAULT, true, on_fault },
	{ VM_CHECKPOINT, true, on_checkpoint },
	{ VM_CLONE, true, on_clone },
	{ VM_LOG, true, on_log },
	{ VM_INBOX, true, on_inbox },
	{ VM_TAKEN, true, on_taken },
	{ VM_USAGE, true, on_usage },
};

int vm_frame(struct resident *r, int type, struct cbor_cursor *c, struct errmsg *em)
{
	if (r->answer_late)
		handoff_started(r);
	/* The copy that counts as sent says nothing any more. */
	if (r->state == SHELL_DEPARTING && type == VM_LOG)
		return 0;
	if (r->state == SHELL_DEPARTING && type != VM_USAGE)
		return err_set(em, ERR_STATE, "a frame of type %d while departing", type);
	for (size_t i = 0; i < ARRAY_LEN(vm_rules); i++)
		if ((int)vm_rules[i].type == type)
			return vm_rules[i].handler(r, c, em);
	return err_set(em, ERR_MALFORMED, "a frame of type %d is not a tos-vm's to send", type);
}
