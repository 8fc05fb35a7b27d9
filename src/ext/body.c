/*
 * The extension's side of the ABI; see body.h. Runs in tos-kernel and in tos-ext. Inboxes, properties,
 * and whose turn it is are here, the rest as body_in.h says.
 */
#include "ext/body_in.h"

#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/text.h"

/* One folder in a queue. */
struct item {
	struct list link;
	struct slice folder; /* owned, behind the struct */
	struct tos_value *info;
	uint64_t token;
	int64_t deadline_at; /* 0: none */
	char sender[NAME_BYTES_MAX + 1];
};

void body_due(struct body *b, int64_t when)
{
	if (when < b->due) {
		b->due = when;
		b->ops->busy(b->arg); /* so that the embedding loop learns the new time */
	}
}

static void item_free(struct item *it)
{
	if (!it)
		return;
	tos_value_free(it->info);
	free(it);
}

/* What the last tos_inbox_next() gave out is valid until now. */
static void inbox_give_back(struct tos_inbox *in)
{
	item_free(in->lent);
	in->lent = NULL;
	tos_value_free(in->elements);
	in->elements = NULL;
}

static size_t host_inbox_size(struct tos_inbox *in)
{
	return in->n;
}

static struct item *inbox_pop(struct tos_inbox *in)
{
	struct item *it = LIST_ITEM(in->items.next, struct item, link);

	list_del(&it->link);
	in->n--;
	in->body->ops->taken(in->body->arg, in->spec->name, 1);
	return it;
}

static bool host_inbox_next(struct tos_inbox *in, struct tos_message *out)
{
	struct body *b = in->body;
	int64_t now = clock_ms();

	inbox_give_back(in);
	while (in->n) {
		struct item *it = inbox_pop(in);

		in->lent = it;
		/* Its caller has been told timed-out already. */
		if (it->deadline_at && it->deadline_at <= now) {
			inbox_give_back(in);
			continue;
		}
		if (folder_decode(it->folder, in->folder, &in->elements) < 0) {
			if (it->token)
				b->ops->fail(b->arg, it->token, ERR_NOMEM, err_text(ERR_NOMEM));
			inbox_give_back(in);
			continue;
		}
		*out = (struct tos_message){ it->sender, in->folder, in->elements, it->info,
			it->token, it->deadline_at ? (uint32_t)(it->deadline_at - now) : 0 };
		return true;
	}
	return false;
}

static void host_log(struct tos_ext *x, int level, const char *text)
{
	struct body *b = body_of(x);

	b->ops->log(b->arg, level < 0 ? 0 : level > 4 ? 4 : level, text ? text : "");
}

static void host_count(struct tos_ext *x, const char *name, uint64_t delta)
{
	struct body *b = body_of(x);

	b->ops->count(b->arg, name, delta);
}

static struct prop *prop_find(struct body *b, const char *path)
{
	for (size_t i = 0; i < b->n_props; i++)
		if (strcmp(b->prop[i].spec->path, path) == 0)
			return &b->prop[i];
	return NULL;
}

static const char *host_property(struct tos_ext *x, const char *path)
{
	struct prop *p = prop_find(body_of(x), path);

	return p ? p->value : NULL;
}

static int prop_set(struct prop *p, const char *value)
{
	int rc = body_value_ok(p->spec->type, p->spec->min, p->spec->max, value);

	return rc < 0 ? rc : text_copy(p->value, sizeof(p->value), value, strlen(value));
}

static int host_property_set(struct tos_ext *x, const char *path, const char *value)
{
	struct body *b = body_of(x);
	struct prop *p = prop_find(b, path);
	int rc;

	if (!p)
		return ERR_NOT_FOUND;
	if (!p->spec->read_only)
		return ERR_DENIED;
	rc = prop_set(p, value);
	if (!rc)
		b->ops->property(b->arg, path, p->value);
	return rc;
}

static const char *host_kernel_name(struct tos_ext *x)
{
	return body_of(x)->kernel;
}

static void *host_data(struct tos_ext *x)
{
	return body_of(x)->data;
}

static void host_set_data(struct tos_ext *x, void *data)
{
	body_of(x)->data = data;
}

static int64_t host_now_ms(struct tos_ext *x)
{
	(void)x;
	return clock_ms();
}

static const struct tos_host_table host_table = {
	.size = sizeof(struct tos_host_table),
	.inbox_size = host_inbox_size,
	.inbox_next = host_inbox_next,
	.reply = host_reply,
	.fail = host_fail,
	.forward = host_forward,
	.post = host_post,
	.call = host_call,
	.timer = host_timer,
	.timer_stop = host_timer_stop,
	.log = host_log,
	.count = host_count,
	.property = host_property,
	.property_set = host_property_set,
	.kernel_name = host_kernel_name,
	.data = host_data,
	.set_data = host_set_data,
	.now_ms = host_now_ms,
	.place = host_place,
	.connect = host_connect,
	.watch = host_watch,
	.trusted = host_trusted,
	.audit = host_audit,
	.directory = host_directory,
	.accept = host_accept,
};

/* ---- life */

int body_new(const struct tos_extension *spec, const char *kernel, uint64_t first_seq,
	const struct body_ops *ops, void *arg, struct body **out)
{
	struct body *b = mem_new(struct body);

	b->ext.host = &host_table;
	b->spec = spec;
	b->ops = ops;
	b->arg = arg;
	b->next_seq = first_seq;
	b->due = NEVER;
	list_init(&b->calls);
	list_init(&b->answers);
	list_init(&b->timers);
	list_init(&b->connects);
	b->by_seq = map_new();
	snprintf(b->kernel, sizeof(b->kernel), "%s", kernel);
	for (; spec->inboxes && spec->inboxes[b->n_inboxes].name; b->n_inboxes++) {
		struct tos_inbox *in = &b->inbox[b->n_inboxes];

		must(b->n_inboxes < EXT_INBOXES_MAX);
		*in = (struct tos_inbox){ .host = &host_table,
			.body = b,
			.spec = &spec->inboxes[b->n_inboxes],
			.wake_at = NEVER };
		list_init(&in->items);
	}
	for (; spec->properties && spec->properties[b->n_props].path; b->n_props++) {
		struct prop *p = &b->prop[b->n_props];

		must(b->n_props < EXT_PROPERTIES_MAX);
		p->spec = &spec->properties[b->n_props];
		snprintf(
			p->value, sizeof(p->value), "%s", p->spec->value ? p->spec->value : "");
	}
	*out = b;
	return 0;
}

void body_free(struct body *b)
{
	struct list *pos, *tmp;

	if (!b)
		return;
	for (size_t i = 0; i < b->n_inboxes; i++) {
		inbox_give_back(&b->inbox[i]);
		LIST_EACH_SAFE(pos, tmp, &b->inbox[i].items)
		item_free(LIST_ITEM(pos, struct item, link));
	}
	calls_free(b);
	map_free(b->by_seq);
	outside_free(b);
	free(b);
}

int body_configure(struct body *b, const char *path, const char *value, struct errmsg *em)
{
	struct prop *p = prop_find(b, path);

	if (!p)
		return err_set(em, ERR_NOT_FOUND, "has no property %s", path);
	if (prop_set(p, value) < 0)
		return err_set(em, ERR_MALFORMED,
			"property %s: \"%s\" is no %s within its bounds", path, value,
			p->spec->type);
	return 0;
}

int body_start(struct body *b, struct errmsg *em)
{
	int rc = b->spec->start ? b->spec->start(&b->ext) : 0;
	int64_t now = clock_ms();

	if (rc != 0)
		return err_set(em, rc < 0 ? rc : ERR_FAULT, "its start failed: %s",
			err_text(rc < 0 ? rc : ERR_FAULT));
	b->started = true;
	for (size_t i = 0; i < b->n_inboxes; i++)
		if (b->inbox[i].spec->wait_ms)
			b->inbox[i].wake_at = now + b->inbox[i].spec->wait_ms;
	b->ops->busy(b->arg);
	return 0;
}

void body_stop(struct body *b)
{
	if (b->started && b->spec->stop)
		b->spec->stop(&b->ext);
	b->started = false;
}

/* ---- what comes in */

static struct tos_inbox *inbox_find(struct body *b, const char *name)
{
	for (size_t i = 0; i < b->n_inboxes; i++)
		if (strcmp(b->inbox[i].spec->name, name) == 0)
			return &b->inbox[i];
	return NULL;
}

int body_deliver(struct body *b, const char *inbox, const struct post *p, uint64_t token,
	uint32_t deadline_ms, const struct tos_value *info)
{
	struct tos_inbox *in = inbox_find(b, inbox);
	struct item *it;

	if (!in)
		return ERR_NO_INBOX;
	it = mem_try(sizeof(*it) + p->folder.n);
	if (!it)
		return ERR_NOMEM;
	*it = (struct item){ .token = token,
		.deadline_at = token ? clock_ms() + deadline_ms : 0,
		.folder = { (uint8_t *)(it + 1), p->folder.n },
		.info = info ? tos_value_copy(info) : tos_map() };
	if (!it->info) {
		free(it);
		return ERR_NOMEM;
	}
	if (p->folder.n)
		memcpy(it + 1, p->folder.p, p->folder.n);
	text_copy(it->sender, sizeof(it->sender), (const char *)p->sender.p, p->sender.n);
	list_add(&in->items, &it->link);
	in->n++;
	in->posted = true;
	b->ops->busy(b->arg);
	return 0;
}

void body_drain(struct body *b)
{
	struct list *pos, *tmp;

	for (size_t i = 0; i < b->n_inboxes; i++) {
		struct tos_inbox *in = &b->inbox[i];

		LIST_EACH_SAFE(pos, tmp, &in->items)
		item_free(LIST_ITEM(pos, struct item, link));
		list_init(&in->items);
		in->n = 0;
		in->posted = false;
	}
}

/* ---- calling the extension */

/* What was lent to the extension ends with the return to us. */
void inboxes_take_back(struct body *b)
{
	for (size_t i = 0; i < b->n_inboxes; i++)
		inbox_give_back(&b->inbox[i]);
}

static void run_inboxes(struct body *b, int64_t now)
{
	for (size_t i = 0; i < b->n_inboxes; i++) {
		struct tos_inbox *in = &b->inbox[i];

		if (!in->posted && in->wake_at > now)
			continue;
		in->posted = false;
		if (in->spec->wait_ms)
			in->wake_at = now + in->spec->wait_ms;
		in->spec->wake(&b->ext, in);
		inboxes_take_back(b);
	}
}

int64_t body_run(struct body *b)
{
	int64_t now = clock_ms(), due;

	if (!b->started)
		return -1;
	if (b->due <= now) {
		b->due = NEVER;
		calls_expire(b, now);
		outside_run(b, now);
		timers_run(b, now);
	}
	answers_run(b);
	run_inboxes(b, now);

	due = list_empty(&b->answers) ? b->due : now;
	for (size_t i = 0; i < b->n_inboxes; i++) {
		if (b->inbox[i].posted)
			due = now;
		else if (b->inbox[i].wake_at < due)
			due = b->inbox[i].wake_at;
	}
	if (due == NEVER)
		return -1;
	now = clock_ms();
	return due > now ? due - now : 0;
}
