/*
 * What comes for a carrier while it does something else: folders for its inboxes, answers to its
 * questions, the kernel's DONE. It waits in C memory, counted in `held` and bounded by its cap.
 */
#include "vm/vm.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "wire/vmproto.h"

/* ---- messages */

static size_t msg_bytes(const struct vm_msg *m)
{
	return sizeof *m + m->n_sender + m->n_folder + m->n_owner + m->n_class;
}

void msg_free(struct vm_carrier *c, struct vm_msg *m)
{
	if (!m)
		return;
	c->held -= msg_bytes(m);
	free(m);
}

static void msg_part(struct vm_msg *m, size_t *at, struct slice part)
{
	if (part.n)
		memcpy(m->bytes + *at, part.p, part.n);
	*at += part.n;
}

static struct vm_msg *msg_new(
	struct vm_carrier *c, unsigned kind, uint64_t tag, const struct slice part[4])
{
	size_t bytes = sizeof(struct vm_msg) + part[0].n + part[1].n + part[2].n + part[3].n;
	size_t at = 0;
	struct vm_msg *m;

	if (bytes > c->cap || c->held > c->cap - bytes)
		return NULL;
	m = mem_try(bytes);
	if (!m)
		return NULL;
	c->held += bytes;
	m->next = NULL;
	m->kind = kind;
	m->tag = tag;
	m->n_sender = part[0].n;
	m->n_folder = part[1].n;
	m->n_owner = part[2].n;
	m->n_class = part[3].n;
	for (int i = 0; i < 4; i++)
		msg_part(m, &at, part[i]);
	return m;
}

/* ---- inboxes */

struct vm_inbox *carrier_inbox(struct vm_carrier *c, const char *name, size_t n)
{
	for (size_t i = 0; i < c->n_inboxes; i++)
		if (strlen(c->inbox[i]->name) == n && memcmp(c->inbox[i]->name, name, n) == 0)
			return c->inbox[i];
	return NULL;
}

void carrier_add_inbox(struct vm_carrier *c, struct vm_inbox *box)
{
	if (c->n_inboxes == c->cap_inboxes) {
		size_t cap = c->cap_inboxes ? 2 * c->cap_inboxes : 2;
		struct vm_inbox **more = mem_zero(cap * sizeof(struct vm_inbox *));

		if (c->n_inboxes)
			memcpy(more, c->inbox, c->n_inboxes * sizeof(struct vm_inbox *));
		free(c->inbox);
		c->inbox = more;
		c->cap_inboxes = cap;
	}
	c->inbox[c->n_inboxes++] = box;
}

void carrier_drop_inbox(struct vm_carrier *c, struct vm_inbox *box)
{
	while (box->first) {
		struct vm_msg *next = box->first->next;

		msg_free(c, box->first);
		box->first = next;
	}
	for (size_t i = 0; i < c->n_inboxes; i++)
		if (c->inbox[i] == box)
			c->inbox[i] = c->inbox[--c->n_inboxes];
	free(box);
}

void carrier_drop_mail(struct vm_carrier *c)
{
	while (c->calls) {
		struct vm_call *next = c->calls->next;

		msg_free(c, c->calls->answer);
		free(c->calls);
		c->calls = next;
	}
	while (c->n_inboxes)
		carrier_drop_inbox(c, c->inbox[0]);
	free(c->inbox);
	c->inbox = NULL;
	c->cap_inboxes = 0;
}

/* ---- frames for it */

/* A folder that there is no room for is answered where somebody asked, and counted. */
static void refuse_folder(
	struct vm_carrier *c, unsigned kind, struct slice sender, uint64_t tag)
{
	struct buf *b = &c->port->out;
	size_t at;

	c->dropped_folders++;
	if (kind != POST_CALL || !sender.n || c->going || !c->answers)
		return;
	at = port_begin(c->port, 5, VM_SEND, c->number);
	cbor_put_uint(b, POST_FAILURE);
	cbor_put_text_n(b, (const char *)sender.p, sender.n);
	cbor_put_uint(b, tag);
	cbor_put_uint(b, 0);
	cbor_put_array(b, 2);
	cbor_put_text(b, "failure");
	cbor_put_array(b, 2);
	cbor_put_text(b, err_word(ERR_FULL));
	cbor_put_text(b, "the carrier has no room for it");
	port_send_later(c->port, at);
}

static void deliver_answer(struct vm_carrier *c, struct vm_msg *m)
{
	for (struct vm_call *call = c->calls; call && m; call = call->next)
		if (call->tag == m->tag && !call->answer) {
			call->answer = m;
			if (c->state == VM_WAITING && c->wait == WAIT_CALL &&
				c->wait_id == m->tag)
				sched_wake(c);
			return;
		}
	msg_free(c, m); /* nobody waits for it any more */
}

void carrier_taken(struct vm_carrier *c, struct vm_inbox *box, uint64_t n)
{
	size_t at;

	box->n_owed += n;
	if (c->going || !box->n_owed)
		return;
	at = port_begin(c->port, 2, VM_TAKEN, c->number);
	cbor_put_text(&c->port->out, box->name);
	cbor_put_uint(&c->port->out, box->n_owed);
	port_send_later(c->port, at);
	box->n_owed = 0;
}

void carrier_gone_back(struct vm_carrier *c)
{
	c->going = false;
	for (size_t i = 0; i < c->n_inboxes; i++)
		carrier_taken(c, c->inbox[i], 0);
}

int carrier_deliver(struct vm_carrier *c, struct cbor_cursor *cur)
{
	unsigned kind = (unsigned)cbor_uint(cur, POST_FAILURE);
	struct slice inbox = cbor_text(cur, 0, NAME_BYTES_MAX),
		     sender = cbor_text(cur, 0, NAME_BYTES_MAX);
	uint64_t tag = cbor_uint(cur, UINT64_MAX);
	struct slice folder = cbor_any(cur), owner = cbor_text(cur, 0, NAME_BYTES_MAX),
		     class_word = cbor_text(cur, 0, 32);
	struct vm_inbox *box;
	struct vm_msg *m;
	int rc;

	cbor_close(cur);
	rc = cbor_finish(cur);
	if (rc || c->state == VM_ENDED)
		return rc;
	m = msg_new(c, kind, tag, (const struct slice[]){ sender, folder, owner, class_word });
	if (inbox.n == 0) {
		deliver_answer(c, m);
		return 0;
	}
	box = carrier_inbox(c, (const char *)inbox.p, inbox.n);
	if (!box || box->n >= box->bound || !m) {
		msg_free(c, m);
		refuse_folder(c, kind, sender, tag);
		if (box)
			carrier_taken(c, box, 1);
		return 0;
	}
	*box->last = m;
	box->last = &m->next;
	box->n++;
	if (c->state == VM_WAITING && c->wait == WAIT_INBOX && c->wait_box == box)
		sched_wake(c);
	return 0;
}

int carrier_done(struct vm_carrier *c, struct cbor_cursor *cur)
{
	uint64_t seq = cbor_uint(cur, UINT64_MAX);
	struct slice code = cbor_text(cur, 0, 64), text = cbor_text(cur, 0, FRAME_BYTES_MAX);
	int rc;

	cbor_any(cur);
	cbor_close(cur);
	rc = cbor_finish(cur);
	if (rc || c->state != VM_WAITING || c->wait != WAIT_DONE || c->wait_id != seq)
		return rc;
	c->done_rc = code.n ? err_from_word((const char *)code.p, code.n) : 0;
	free(c->done_text);
	c->done_text = NULL;
	if (text.n) {
		c->done_text = mem_zero(text.n + 1);
		memcpy(c->done_text, text.p, text.n);
	}
	sched_wake(c);
	return 0;
}
