/*
 * The kernel's children: the conversation with tosd, which makes and ends them, and with each
 * tos-vm. A child is known by its slot, a number that is never used twice in one boot.
 */
#include "kernel/kernel.h"

#include <errno.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fault.h"
#include "base/log.h"
#include "ipc/ipc.h"
#include "loop/stream.h"
#include "wire/vmproto.h"

#define TOSD_QUEUE_MAX 8192
/* briefcase and state are bounded by the carrier's limits */
#define VM_FRAME_MAX     ((size_t)160 << 20)
#define VM_ADDRESS_EXTRA ((uint64_t)96 << 20)

struct child {
	enum tosd_kind kind;
	uint64_t slot;
	struct vm *vm;
	char ext[64];
	int pidfd;
};

struct queued_msg {
	struct list node;
	size_t n;
	uint8_t bytes[];
};

/* ---- tosd */

static void tosd_poll_update(struct kernel *k);

int tosd_send(struct kernel *k, const void *msg, size_t n)
{
	struct errmsg em = { "" };
	struct queued_msg *q;
	int rc = ERR_AGAIN;

	if (list_empty(&k->tosd_queue))
		rc = ipc_send(k->tosd_fd, msg, n, NULL, 0, &em);
	if (rc != ERR_AGAIN)
		return rc;
	if (k->tosd_queued >= TOSD_QUEUE_MAX)
		return ERR_FULL;
	q = mem_zero(sizeof(*q) + n);
	q->n = n;
	memcpy(q->bytes, msg, n);
	list_add(&k->tosd_queue, &q->node);
	k->tosd_queued++;
	tosd_poll_update(k);
	return 0;
}

static void tosd_flush(struct kernel *k)
{
	while (!list_empty(&k->tosd_queue)) {
		struct queued_msg *q = LIST_ITEM(k->tosd_queue.next, struct queued_msg, node);

		if (ipc_send(k->tosd_fd, q->bytes, q->n, NULL, 0, NULL) == ERR_AGAIN)
			return;
		list_del(&q->node);
		k->tosd_queued--;
		free(q);
	}
	tosd_poll_update(k);
}

static void head_set(struct tosd_head *h, enum tosd_type type, size_t n)
{
	*h = (struct tosd_head){ TOSD_MSG_VERSION, (uint16_t)type, (uint32_t)n };
}

void tosd_ready(struct kernel *k)
{
	struct tosd_simple m = { .slot = 0 };

	head_set(&m.head, TOSD_KERNEL_READY, sizeof(m));
	tosd_send(k, &m, sizeof(m));
}

static int child_signal(struct kernel *k, uint64_t slot, enum tosd_signal_what what)
{
	struct tosd_signal m = { .slot = slot, .what = what };

	head_set(&m.head, TOSD_SIGNAL, sizeof(m));
	return tosd_send(k, &m, sizeof(m));
}

static struct child *child_find(struct kernel *k, uint64_t slot)
{
	return map_find(k->children, &slot, sizeof(slot));
}

static struct child *child_new(struct kernel *k, enum tosd_kind kind)
{
	struct child *c = mem_new(struct child);

	c->kind = kind;
	c->slot = ++k->next_slot;
	c->pidfd = -1;
	map_put(k->children, &c->slot, sizeof(c->slot), c);
	return c;
}

static void child_forget(struct kernel *k, struct child *c)
{
	map_del(k->children, &c->slot, sizeof(c->slot));
	mem_close(c->pidfd);
	free(c);
}

static int spawn(struct kernel *k, struct child *c, uint32_t ext, uint64_t address_bytes,
	uint32_t cpu_s, const char *label)
{
	struct tosd_spawn m = { .slot = c->slot,
		.kind = c->kind,
		.ext = ext,
		.address_bytes = address_bytes,
		.cpu_s = cpu_s };

	head_set(&m.head, TOSD_SPAWN, sizeof(m));
	snprintf(m.label, sizeof(m.label), "%s", label);
	return tosd_send(k, &m, sizeof(m));
}

/* ---- isolated extensions */

int child_spawn_ext(struct kernel *k, const char *name)
{
	struct child *c;
	uint32_t index = 0;
	int rc;

	for (size_t i = 0; i < k->config.n_extensions; i++) {
		if (!k->config.extensions[i].isolated)
			continue;
		if (strcmp(k->config.extensions[i].name, name) == 0)
			break;
		index++;
	}
	c = child_new(k, TOSD_EXT);
	snprintf(c->ext, sizeof(c->ext), "%s", name);
	rc = spawn(k, c, index, 0, 0, name);
	if (rc < 0)
		child_forget(k, c);
	return rc;
}

void child_kill_ext(struct kernel *k, const char *name)
{
	struct child *c;
	size_t it = 0;

	while ((c = map_next(k->children, &it, NULL, NULL)))
		if (c->kind == TOSD_EXT && strcmp(c->ext, name) == 0)
			child_signal(k, c->slot, TOSD_KILL);
}

/* ---- spare VMs: where carriers come one after the other, the next tos-vm is made ahead of its
 * carrier, as confined as any, and holds nothing. Idle kernels have none. */

/* Carriers further apart than this get their tos-vm when they come. */
#define SPARE_KEEP_MS  3000
#define SPARE_DELAY_MS 5
/* The process's own CPU limit is a backstop; one made ahead may be this much looser. */
#define SPARE_CPU_S 8

static void spare_forget(struct vm *v)
{
	struct kernel *k = v->k;

	if (!v->spare)
		return;
	v->spare = false;
	for (size_t i = 0; i < k->n_spares; i++)
		if (k->spares[i] == v) {
			k->n_spares--;
			memmove(&k->spares[i], &k->spares[i + 1],
				(k->n_spares - i) * sizeof(k->spares[0]));
			return;
		}
}

static void spare_end(struct vm *v)
{
	spare_forget(v);
	v->phase = VM_PHASE_DYING;
	if (!v->died)
		child_signal(v->k, v->slot, TOSD_KILL);
	if (v->stream)
		stream_close(v->stream);
}

void spares_end(struct kernel *k)
{
	while (k->n_spares > 0)
		spare_end(k->spares[0]);
}

void spares_tick(struct kernel *k, int64_t now_ms)
{
	if (k->n_spares > 0 && now_ms - k->spare_used_ms > SPARE_KEEP_MS)
		spares_end(k);
}

static bool spare_fits(const struct vm *v, uint64_t address_bytes, uint32_t cpu_s)
{
	return v->address_bytes == address_bytes && v->cpu_s >= cpu_s &&
	       v->cpu_s <= cpu_s + SPARE_CPU_S;
}

/* The oldest that fits, since it is the likeliest to be ready. */
static struct vm *spare_take(struct kernel *k, uint64_t address_bytes, uint32_t cpu_s)
{
	for (size_t i = 0; i < k->n_spares; i++) {
		struct vm *v = k->spares[i];

		if (!spare_fits(v, address_bytes, cpu_s))
			continue;
		spare_forget(v);
		metric_add(k->metrics, "vms_spare_used_total", NULL, 1);
		return v;
	}
	return NULL;
}

static struct vm *vm_new(
	struct kernel *k, uint64_t address_bytes, uint32_t cpu_s, const char *label)
{
	struct child *c = child_new(k, TOSD_VM);
	struct vm *v = mem_new(struct vm);

	v->magic = VM_MAGIC;
	v->k = k;
	v->slot = c->slot;
	v->pidfd = -1;
	v->asked_us = clock_us();
	v->address_bytes = address_bytes;
	v->cpu_s = cpu_s;
	c->vm = v;
	if (spawn(k, c, 0, address_bytes, cpu_s, label) < 0) {
		child_forget(k, c);
		free(v);
		return NULL;
	}
	metric_add(k->metrics, "vms_started_total", NULL, 1);
	return v;
}

static void spares_fill(uv_timer_t *t)
{
	struct kernel *k = t->data;

	while (!k->stopping && k->n_spares < k->config.spare_vms) {
		struct vm *v = vm_new(k, k->spare_address_bytes, k->spare_cpu_s, "spare");

		if (!v)
			return;
		v->spare = true;
		k->spares[k->n_spares++] = v;
	}
}

/* A carrier has just got its tos-vm: if another came not long ago, make ready for the next. A little
 * later, so that making it does not hold up the one that has come. */
static void spares_want(struct kernel *k, uint64_t address_bytes, uint32_t cpu_s)
{
	int64_t now = clock_ms();
	bool often = k->spare_used_ms && now - k->spare_used_ms <= SPARE_KEEP_MS;

	k->spare_used_ms = now;
	k->spare_address_bytes = address_bytes;
	k->spare_cpu_s = (cpu_s + SPARE_CPU_S) / SPARE_CPU_S * SPARE_CPU_S;
	/* Those that did not fit make room. */
	if (k->n_spares > 0 && k->n_spares >= k->config.spare_vms &&
		!spare_fits(k->spares[0], address_bytes, cpu_s))
		spare_end(k->spares[0]);
	if (often && k->config.spare_vms > 0 && !uv_is_active((uv_handle_t *)&k->spare_timer))
		uv_timer_start(&k->spare_timer, spares_fill, SPARE_DELAY_MS, 0);
}

void spares_init(struct kernel *k)
{
	uv_timer_init(k->loop, &k->spare_timer);
	k->spare_timer.data = k;
}

/* ---- VMs */

static void vm_free_when_done(struct vm *v)
{
	struct child *c;

	spare_forget(v);
	if (!v->died || v->stream)
		return;
	c = child_find(v->k, v->slot);
	if (c)
		child_forget(v->k, c);
	free(v);
}

static void vm_bad(struct vm *v, const char *why)
{
	struct resident *r = v->r;

	metric_add(v->k->metrics, "vm_frames_refused_total", NULL, 1);
	log_notice("tos-vm broke the protocol", KV_STR("carrier", r ? r->name : "-"),
		KV_STR("reason", why));
	if (v->spare)
		spare_end(v);
	if (r)
		resident_fault(
			r, ERR_FAULT, "its tos-vm broke the protocol and was ended", why);
}

/* The value's encoding, which must succeed: it was bounded when it was taken in. */
static void put_value(struct buf *b, const struct tos_value *v)
{
	uint8_t *bytes = NULL;
	size_t n = 0;

	if (tos_encode(v, &bytes, &n) == 0)
		buf_add(b, bytes, n);
	else
		b->failed = true;
	free(bytes);
}

static void put_limits(struct buf *b, const int64_t value[LIMIT_COUNT])
{
	struct tos_value *m = tos_map();

	for (int i = 0; i < LIMIT_COUNT; i++)
		tos_set(m, limit_names[i], tos_int(value[i]));
	put_value(b, m);
	tos_value_free(m);
}

/* The start map of vmproto.h; keys in the deterministic order, shorter ones first. */
static void start_map(struct resident *r, struct buf *b)
{
	struct code *code = map_find(r->k->codes, r->code_digest, DIGEST_BYTES);
	struct tos_value *seals = seals_words(&r->ticket);

	cbor_put_map(b, 16);
	cbor_put_text(b, "home");
	cbor_put_text(b, r->ticket.home);
	cbor_put_text(b, "name");
	cbor_put_text(b, r->name);
	cbor_put_text(b, "path");
	put_value(b, r->path);
	cbor_put_text(b, "begun");
	cbor_put_bool(b, false);
	cbor_put_text(b, "entry");
	cbor_put_text(b, code ? code->manifest.entry : "main.lua");
	cbor_put_text(b, "owner");
	cbor_put_text(b, r->owner.name);
	cbor_put_text(b, "seals");
	put_value(b, seals);
	cbor_put_text(b, "state");
	cbor_put_bytes(b, r->state_bytes.p, r->state_bytes.n);
	cbor_put_text(b, "usage");
	put_limits(b, r->usage.used);
	cbor_put_text(b, "bundle");
	cbor_put_bytes(b, r->code.p, r->code.n);
	cbor_put_text(b, "cpu_us");
	cbor_put_uint(b, r->cpu_before_us);
	cbor_put_text(b, "kernel");
	cbor_put_text(b, r->k->config.name);
	cbor_put_text(b, "limits");
	put_limits(b, r->usage.limit);
	cbor_put_text(b, "answers");
	cbor_put_bool(b, true);
	cbor_put_text(b, "function");
	cbor_put_text(b, "begin");
	cbor_put_text(b, "briefcase");
	cbor_put_raw(b, blob_slice(&r->briefcase));
	tos_value_free(seals);
}

static int vm_hand_over(struct vm *v)
{
	struct resident *r = v->r;
	AUTOBUF b = BUF_MAX(VM_FRAME_MAX);
	struct errmsg em = { "" };
	size_t at = frame_begin(&b);
	int rc;

	cbor_put_array(&b, 3);
	cbor_put_uint(&b, VM_START);
	cbor_put_uint(&b, v->slot);
	start_map(r, &b);
	frame_end(&b, at);
	rc = buf_check(&b);
	if (rc == 0)
		rc = resident_event(r, SHELL_EV_START, &em);
	FAULT_AT(START);
	if (rc == 0)
		rc = stream_send(v->stream, b.data, b.len);
	if (rc == 0) {
		v->phase = VM_PHASE_RUNNING;
		r->started_ms = clock_ms();
	}
	return rc;
}

static void on_vm_frame(void *arg, struct stream *s, struct slice frame)
{
	struct vm *v = TAGGED(arg, struct vm, VM_MAGIC);
	struct errmsg em = { "" };
	struct cbor_cursor c;
	int rc;

	(void)s;
	if (!v->r && !v->spare)
		return; /* abandoned: whatever it says, nobody listens */
	if (v->phase == VM_PHASE_BOOTING) {
		rc = frame_open(&c, frame);
		if (rc != VM_READY || cbor_uint(&c, UINT32_MAX) != VM_PROTOCOL) {
			vm_bad(v, "the first frame was not READY");
			return;
		}
		metric_add(v->k->metrics, "vms_start_us_total", NULL,
			(uint64_t)(clock_us() - v->asked_us));
		v->phase = VM_PHASE_IDLE;
		if (v->spare)
			return;
		rc = vm_hand_over(v);
		if (rc < 0)
			resident_fault(v->r, rc, "it could not be handed to its tos-vm", "");
		return;
	}
	if (v->spare) {
		vm_bad(v, "it speaks though it holds no carrier");
		return;
	}
	rc = vm_frame(v->r, frame, &em);
	if (rc < 0)
		vm_bad(v, err_show(rc, &em));
}

static void on_vm_closed(void *arg, struct stream *s, int rc, const char *why)
{
	struct vm *v = TAGGED(arg, struct vm, VM_MAGIC);

	(void)s;
	v->stream = NULL;
	if (v->r && rc != 0 && rc != ERR_CLOSED)
		vm_bad(v, why);
	/* tosd tells of its death with the cause; a tos-vm that only closed is ended. */
	if (!v->died)
		child_signal(v->k, v->slot, TOSD_KILL);
	vm_free_when_done(v);
}

static const struct stream_callbacks vm_callbacks = { on_vm_frame, on_vm_closed, NULL };

int vm_start(struct resident *r, struct errmsg *em)
{
	struct kernel *k = r->k;
	int64_t left_ms = r->usage.limit[LIMIT_cpu] - r->usage.used[LIMIT_cpu];
	uint64_t address_bytes = (uint64_t)r->usage.limit[LIMIT_memory] + VM_ADDRESS_EXTRA;
	/* The hard limit is the backstop: the kernel reads the CPU clock and is more exact. */
	uint32_t cpu_s = (uint32_t)(left_ms / 1000) + 2;
	struct vm *v = spare_take(k, address_bytes, cpu_s);
	int rc = 0;

	if (!v)
		v = vm_new(k, address_bytes, cpu_s, r->name);
	if (!v)
		return err_set(em, ERR_FULL, "tosd takes no more requests");
	v->r = r;
	r->vm = v;
	r->cpu_before_us = (uint64_t)r->usage.used[LIMIT_cpu] * 1000;
	if (v->phase == VM_PHASE_IDLE)
		rc = vm_hand_over(v);
	spares_want(k, address_bytes, cpu_s);
	return rc < 0 ? err_set(em, rc, "it could not be handed to its tos-vm") : 0;
}

void vm_abandon(struct resident *r)
{
	struct vm *v = r->vm;

	if (!v)
		return;
	r->usage.used[LIMIT_cpu] = (int64_t)(vm_cpu_us(r) / 1000);
	r->vm = NULL;
	v->r = NULL;
	v->phase = VM_PHASE_DYING;
	if (!v->died)
		child_signal(v->k, v->slot, TOSD_KILL);
	if (v->stream)
		stream_close(v->stream);
}

void vm_freeze(struct resident *r, bool freeze)
{
	if (r->vm && r->vm->pid > 0 && r->vm->frozen != freeze) {
		r->vm->frozen = freeze;
		child_signal(r->k, r->vm->slot, freeze ? TOSD_FREEZE : TOSD_THAW);
	}
}

int vm_deliver(struct resident *r, enum post_kind kind, const char *inbox, const char *sender,
	uint64_t tag, struct slice folder)
{
	AUTOBUF b = BUF_MAX(FRAME_BYTES_MAX + 4096);
	size_t at = frame_begin(&b);

	if (!r->vm || !r->vm->stream || r->vm->phase != VM_PHASE_RUNNING)
		return ERR_STATE;
	cbor_put_array(&b, 7);
	cbor_put_uint(&b, VM_DELIVER);
	cbor_put_uint(&b, r->vm->slot);
	cbor_put_uint(&b, kind);
	cbor_put_text(&b, inbox);
	cbor_put_text(&b, sender);
	cbor_put_uint(&b, tag);
	cbor_put_raw(&b, folder);
	frame_end(&b, at);
	return buf_check(&b) < 0 ? ERR_TOO_LARGE : stream_send(r->vm->stream, b.data, b.len);
}

int vm_done(struct resident *r, uint64_t seq, int rc, const char *text)
{
	AUTOBUF b = BUF_MAX(FRAME_BYTES_MAX);
	size_t at = frame_begin(&b);

	if (!r->vm || !r->vm->stream)
		return ERR_STATE;
	cbor_put_array(&b, 6);
	cbor_put_uint(&b, VM_DONE);
	cbor_put_uint(&b, r->vm->slot);
	cbor_put_uint(&b, seq);
	cbor_put_text(&b, rc ? err_word(rc) : "");
	cbor_put_text(&b, text ? text : "");
	cbor_put_null(&b);
	frame_end(&b, at);
	return stream_send(r->vm->stream, b.data, b.len);
}

uint64_t vm_cpu_us(const struct resident *r)
{
	clockid_t clock;
	struct timespec ts;

	if (!r->vm || r->vm->pid <= 0 || clock_getcpuclockid(r->vm->pid, &clock) != 0 ||
		clock_gettime(clock, &ts) != 0)
		return (uint64_t)r->usage.used[LIMIT_cpu] * 1000;
	return r->cpu_before_us + (uint64_t)ts.tv_sec * 1000000 + (uint64_t)ts.tv_nsec / 1000;
}

uint64_t vm_memory_bytes(const struct resident *r)
{
	return (uint64_t)r->usage.used[LIMIT_memory];
}

/* ---- messages from tosd */

static int on_layers(void *arg, const void *msg, int *fds, size_t n_fds)
{
	struct kernel *k = arg;

	(void)fds;
	(void)n_fds;
	memcpy(&k->layers, msg, sizeof(k->layers));
	k->layers.level[sizeof(k->layers.level) - 1] = 0;
	if (k->layers.n > TOSD_LAYERS_MAX)
		k->layers.n = TOSD_LAYERS_MAX;
	if (strcmp(k->layers.level, "full") != 0)
		log_warning(
			"the sandbox is not complete on this host; tos doctor says what is missing",
			KV_STR("level", k->layers.level));
	return 0;
}

static int on_spawned(void *arg, const void *msg, int *fds, size_t n_fds)
{
	struct kernel *k = arg;
	const struct tosd_spawned *m = msg;
	struct child *c = child_find(k, m->slot);
	struct errmsg em = { "" };
	int rc;

	(void)n_fds;
	if (!c || c->pidfd >= 0) {
		mem_close(fds[0]);
		mem_close(fds[1]);
		return 0;
	}
	c->pidfd = fds[1];
	if (c->kind == TOSD_EXT) {
		rc = ext_attach(k->exts, c->ext, fds[0], m->pid, &em);
		if (rc < 0)
			log_warning("an extension's process could not be taken over",
				KV_STR("extension", c->ext), KV_ERR(rc, &em));
		return 0;
	}
	c->vm->pid = m->pid;
	c->vm->phase = c->vm->r || c->vm->spare ? VM_PHASE_BOOTING : VM_PHASE_DYING;
	if (c->vm->phase == VM_PHASE_DYING) {
		mem_close(fds[0]);
		return 0;
	}
	rc = stream_open(
		k->loop, fds[0], VM_FRAME_MAX, &vm_callbacks, c->vm, &c->vm->stream, &em);
	if (rc == 0)
		stream_set_max_queue(c->vm->stream, VM_FRAME_MAX);
	else if (c->vm->r)
		resident_fault(c->vm->r, rc, err_show(rc, &em), "");
	else
		spare_end(c->vm);
	return 0;
}

static int on_failed(void *arg, const void *msg, int *fds, size_t n_fds)
{
	struct kernel *k = arg;
	const struct tosd_failed *m = msg;
	struct child *c = child_find(k, m->slot);
	char text[TOSD_TEXT_BYTES];

	(void)fds;
	(void)n_fds;
	if (!c)
		return 0;
	snprintf(text, sizeof(text), "%.*s", (int)sizeof(m->text) - 1, m->text);
	if (c->kind == TOSD_EXT) {
		char name[64];

		snprintf(name, sizeof(name), "%s", c->ext);
		child_forget(k, c);
		if (!k->exts_gone)
			ext_died(k->exts, name, text);
		return 0;
	}
	c->vm->died = true;
	if (c->vm->r)
		resident_vm_failed(c->vm->r, m->rc, text);
	vm_free_when_done(c->vm);
	return 0;
}

static int on_died(void *arg, const void *msg, int *fds, size_t n_fds)
{
	struct kernel *k = arg;
	const struct tosd_died *m = msg;
	struct child *c = child_find(k, m->slot);
	struct vm *v;

	(void)fds;
	(void)n_fds;
	if (!c)
		return 0;
	if (c->kind == TOSD_EXT) {
		char name[64], why[96];

		snprintf(name, sizeof(name), "%s", c->ext);
		snprintf(why, sizeof(why), "%s %d",
			m->cause == TOSD_EXITED ? "exit status" : "signal", m->status);
		child_forget(k, c);
		if (!k->exts_gone)
			ext_died(k->exts, name, why);
		return 0;
	}
	v = c->vm;
	v->died = true;
	if (v->r)
		resident_vm_died(v->r, m);
	if (v->stream)
		stream_close(v->stream);
	vm_free_when_done(v);
	return 0;
}

static int on_stop(void *arg, const void *msg, int *fds, size_t n_fds)
{
	(void)msg;
	(void)fds;
	(void)n_fds;
	kernel_stop(arg);
	return 0;
}

static const struct ipc_rule tosd_rules[] = {
	/* type          when  bytes                         fds handler */
	{ TOSD_LAYERS, 1, sizeof(struct tosd_layers), 0, on_layers },
	{ TOSD_SPAWNED, 1, sizeof(struct tosd_spawned), 2, on_spawned },
	{ TOSD_FAILED, 1, sizeof(struct tosd_failed), 0, on_failed },
	{ TOSD_DIED, 1, sizeof(struct tosd_died), 0, on_died },
	{ TOSD_STOP, 1, sizeof(struct tosd_simple), 0, on_stop },
};

static void on_tosd(uv_poll_t *poll, int status, int events)
{
	struct kernel *k = poll->data;
	union {
		struct tosd_layers align;
		uint8_t bytes[16384];
	} msg;

	if (status == 0 && (events & UV_WRITABLE))
		tosd_flush(k);
	for (int i = 0; i < 64 && status == 0; i++) {
		int fds[IPC_FDS_MAX];
		size_t n, n_fds;
		struct errmsg em = { "" };
		int rc = ipc_recv(
			k->tosd_fd, &msg, sizeof(msg), &n, fds, ARRAY_LEN(fds), &n_fds, &em);

		if (rc == ERR_AGAIN)
			return;
		if (rc == 0)
			rc = ipc_dispatch(tosd_rules, ARRAY_LEN(tosd_rules), 1, k, &msg, n, fds,
				n_fds, &em);
		if (rc < 0) {
			/* Without tosd there is nobody to make or end processes: stop at once.
			 * The store has all that counts. */
			log_error("tosd is gone", KV_ERR(rc, &em));
			_exit(1);
		}
	}
}

static void tosd_poll_update(struct kernel *k)
{
	int events = UV_READABLE | (list_empty(&k->tosd_queue) ? 0 : UV_WRITABLE);

	uv_poll_start(&k->tosd_poll, events, on_tosd);
}

int tosd_begin(struct kernel *k, struct errmsg *em)
{
	list_init(&k->tosd_queue);
	k->children = map_new();
	if (uv_poll_init(k->loop, &k->tosd_poll, k->tosd_fd) != 0)
		return err_set(em, ERR_IO, "cannot watch tosd's socket");
	k->tosd_poll.data = k;
	tosd_poll_update(k);
	return 0;
}
