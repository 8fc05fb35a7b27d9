/*
 * Extensions that come and go while the kernel runs: publishing one, in the place of another of
 * its name or anew, and having one leave.
 *
 * In the place of another: that one is told to take nothing more, and says so; until then what is
 * posted waits here. Then what it had not taken, in order, and what has come since go to the new
 * one, and the old one ends when it has answered what it had taken. A process that does not say
 * so in time, or dies, is ended: it may have taken any of what it was sent, and a post is
 * delivered at most once, so that is lost as in any crash; what it was not sent is not.
 */
#include <stdlib.h>
#include <string.h>

#include <tos/value.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/map.h"
#include "base/mem.h"
#include "ext/host.h"

#define DRAIN_MS  2000  /* for a process to say that it takes nothing more */
#define FINISH_MS 30000 /* for a replaced one to answer what it has taken */
#define END_MS    1000  /* for a process that was told to stop */

static bool has_process(const struct ext *e)
{
	return e->isolated && e->state == EXT_READY;
}

/* ---- one in the place of another */

static void inherit_one(struct ext *e, struct decl_inbox *in, struct kept *kept, size_t bytes)
{
	struct ext *heir = e->heir;
	struct decl_inbox *to = decl_inbox_find(heir->decl, in->name);
	uint64_t token = kept->token;
	char text[160];
	int rc = to ? decl_waits(heir->decl, to, bytes) : ERR_NO_INBOX;

	if (rc == 0) {
		if (token)
			token_inherit(e, heir, token, to);
		rc = remote_redeliver(heir, to, kept);
		if (rc == 0)
			return;
		decl_unwait(heir->decl, to);
		e = heir;
	} else {
		free(kept);
	}
	snprintf(text, sizeof(text), "extension %s was replaced, and inbox %s %s", heir->name,
		in->name, rc == ERR_NO_INBOX ? "is no more" : "has no room left");
	if (token)
		ext_fail(e, token, rc, text);
	else
		heir->host->cb->count(heir->host->arg, heir->name, "folders_lost", 1);
}

void swap_drained(struct ext *e)
{
	struct ext *heir = e->heir;

	if (!heir)
		return;
	for (size_t i = 0; e->decl && i < e->decl->n_inboxes; i++) {
		struct decl_inbox *in = &e->decl->inbox[i];
		struct kept *kept;
		size_t bytes;

		while ((kept = decl_take_kept(e->decl, in, &bytes)))
			inherit_one(e, in, kept, bytes);
	}
	e->heir = NULL;
	e->retiring = e->replaced = true;
	e->retire_due = clock_ms() + FINISH_MS;
	heir->hidden = heir->publishing = false;
	ext_announce(heir);
	host_busy(e->host);
}

void swap_lost(struct ext *e, const char *why)
{
	uint64_t lost = 0;
	char text[320];

	snprintf(text, sizeof(text), "extension %s was replaced: %s", e->name, why);
	for (size_t i = 0; e->heir && e->decl && i < e->decl->n_inboxes; i++) {
		struct decl_inbox *in = &e->decl->inbox[i];
		struct kept *kept;
		size_t bytes;

		while (in->waiting > in->unsent &&
			(kept = decl_take_kept(e->decl, in, &bytes))) {
			lost++;
			if (kept->token)
				ext_fail(e, kept->token, ERR_UNKNOWN, text);
			free(kept);
		}
	}
	if (lost)
		e->host->cb->count(e->host->arg, e->name, "folders_lost", lost);
	swap_drained(e);
}

static void succeed(struct ext *e, struct ext *old)
{
	/* Calls that it inherits keep their numbers; some of them are still to come. */
	e->next_token = old->next_token + ((uint64_t)1 << 32);
	e->publishing = true;
	old->heir = e;
	old->retire_due = clock_ms() + DRAIN_MS;
	/* In the kernel what it has it takes in this turn of the loop or the next. */
	if (!old->isolated || !has_process(old)) {
		swap_drained(old);
		if (old->isolated)
			swap_leave(old);
	} else if (remote_drain(old) < 0) {
		old->retire_due = 0;
	}
	host_busy(e->host);
}

int ext_publish(struct ext_host *h, const char *key, struct errmsg *em)
{
	struct ext *e = host_by_key(h, key), *old;

	if (!e || !e->hidden)
		return err_set(em, ERR_NOT_FOUND, "no extension waits as %s", key);
	if (e->state != EXT_READY || e->publishing)
		return err_set(em, ERR_STATE, "extension %s is not ready", e->name);
	old = host_published(h, e->name);
	if (old && old->heir)
		return err_set(em, ERR_STATE, "extension %s is being replaced", e->name);
	if (old) {
		succeed(e, old);
	} else {
		e->hidden = false;
		ext_announce(e);
	}
	return 0;
}

/* ---- leaving */

void swap_leave(struct ext *e)
{
	e->state = EXT_LEAVING;
	e->retiring = true;
	e->retire_due = clock_ms() + END_MS;
	decl_emptied(e->decl);
	host_busy(e->host);
}

static void finish(struct ext *e)
{
	uint64_t lost = 0;
	char text[160];

	for (size_t i = 0; e->decl && i < e->decl->n_inboxes; i++)
		lost += e->decl->inbox[i].waiting;
	if (lost)
		e->host->cb->count(e->host->arg, e->name, "folders_lost", lost);
	snprintf(text, sizeof(text), "extension %s is no more", e->name);
	ext_fail_all(e, ERR_NO_INBOX, text);
	if (e->body)
		body_stop(e->body);
	else
		remote_stop(e);
	swap_leave(e);
}

static bool idle(const struct ext *e)
{
	for (size_t i = 0; e->decl && i < e->decl->n_inboxes; i++)
		if (e->decl->inbox[i].waiting)
			return false;
	/* Whoever is connected to what was replaced has not asked for that. */
	return map_size(e->tokens) == 0 && !(e->replaced && e->watching);
}

static int64_t leaving_turn(struct ext *e, int64_t now)
{
	if (e->process_gone && e->n_streams == 0) {
		host_forget(e);
		return -1;
	}
	if (now < e->retire_due)
		return e->retire_due - now;
	if (!e->process_gone) {
		remote_drop(e);
		e->host->cb->kill(e->host->arg, e->key);
	}
	e->retire_due = now + END_MS;
	return END_MS;
}

int64_t swap_turn(struct ext *e, int64_t now)
{
	if (e->state == EXT_LEAVING)
		return leaving_turn(e, now);
	if (e->heir && now < e->retire_due)
		return e->retire_due - now;
	if (e->heir) {
		log_warning("an extension that is replaced does not give its inboxes back",
			KV_STR("extension", e->name), KV_INT("pid", e->pid));
		swap_lost(e, "it did not give its inboxes back");
		e->retire_due = now; /* hangs: nothing of it is waited for */
	}
	if (!e->retiring)
		return -1;
	if (!idle(e) && now < e->retire_due)
		return e->retire_due - now;
	finish(e);
	return 0;
}

int ext_retire(struct ext_host *h, const char *name, uint32_t limit_ms, struct errmsg *em)
{
	struct ext *e = host_published(h, name);

	if (!e)
		return err_set(em, ERR_NOT_FOUND, "there is no extension %s", name);
	if (e->heir)
		return err_set(em, ERR_STATE, "extension %s is being replaced", name);
	e->retiring = true;
	/* Between two lives there is nobody who could deal with what waits. */
	e->retire_due = clock_ms() + (e->isolated && !has_process(e) ? 0 : limit_ms);
	host_busy(h);
	return 0;
}

void ext_abandon(struct ext_host *h, const char *key)
{
	struct ext *e = host_by_key(h, key);

	if (!e || !e->hidden || e->publishing)
		return;
	ext_fail_all(e, ERR_NO_INBOX, "the extension was not taken");
	if (e->body)
		body_stop(e->body);
	remote_drop(e);
	if (!e->process_gone)
		h->cb->kill(h->arg, e->key);
	swap_leave(e);
}
