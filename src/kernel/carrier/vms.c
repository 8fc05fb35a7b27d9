/*
 * The tos-vm processes, and which carrier is in which.
 *
 * Carriers of equal owner, author and roles share one, up to limits.vm_carriers. Each is known
 * there by a number that is never used twice in one boot. A tos-vm that holds nobody is kept for
 * IDLE_KEEP_MS, for the next.
 *
 * A tos-vm is hostile as soon as it runs a carrier. It accounts for the CPU time of each of them
 * and enforces their limits; what the kernel counts on is the process's own clock. One that
 * shows no sign of life for HANG_CPU_US of it, does not let a carrier go, or uses much more than
 * it says, is ended.
 *
 * When a tos-vm ends with several carriers in it, the one that it said it could not stop is
 * faulted. The others, and all where it said nothing, start again from what the kernel holds of
 * them, as after a crash; those that this happens to again within SUSPECT_MS start again in
 * smaller company, alone at last, and who ends a tos-vm alone is the culprit.
 */
#include "kernel/carrier/family.h"

#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/fault.h"
#include "base/log.h"
#include "kernel/carrier/account.h"
#include "kernel/carrier/admit.h"
#include "kernel/carrier/automata.h"
#include "kernel/carrier/resident.h"
#include "kernel/carrier/seals.h"
#include "kernel/carrier/vms.h"
#include "kernel/handoff/report.h"
#include "loop/stream.h"
#include "wire/vmproto.h"

/* briefcase and state are bounded by the carrier's limits */
#define VM_FRAME_MAX     ((size_t)160 << 20)
#define VM_ADDRESS_EXTRA ((uint64_t)96 << 20)
#define IDLE_KEEP_MS     3000
#define SUSPECT_MS       60000
#define SUSPECTS         16 /* carriers in a tos-vm whose carriers have seen two die */
#ifdef TOS_SANITIZE
#define SLOWER 8
#else
#define SLOWER 1
#endif
#define BUSY_MS      200
#define BUSY_PERCENT 60 /* of one processor */
#define HANG_CPU_US  ((int64_t)1000000 * SLOWER)
/* Bytes a microsecond at which it goes over a carrier in one go, at worst. */
#define HOST_PER_US  16
#define STUCK_CPU_US ((int64_t)100000 * SLOWER) /* after it has said so */
#define END_MS       60000
#define HIDDEN_US    ((int64_t)5000000) /* of CPU time that it does not account for */

static unsigned processors = 1;

static void vm_end(struct vm *v);
static void vm_lost(struct vm *v, const struct tosd_died *d, const char *why);

static int64_t vm_process_cpu_us(const struct vm *v)
{
	clockid_t clock;
	struct timespec ts;

	if (v->pid <= 0 || v->died || clock_getcpuclockid(v->pid, &clock) != 0 ||
		clock_gettime(clock, &ts) != 0)
		return 0;
	return (int64_t)ts.tv_sec * 1000000 + ts.tv_nsec / 1000;
}

/* ---- spare ones: where carriers come for which none is there, one after the other, the next
 * tos-vm is made ahead, as confined as any, and holds nothing. Idle kernels have none. */

/* Carriers further apart than this get their tos-vm when they come. */
#define SPARE_KEEP_MS  3000
#define SPARE_DELAY_MS 5

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

void spares_end(struct kernel *k)
{
	while (k->n_spares > 0)
		vm_end(k->spares[0]);
}

/* The oldest that fits, since it is the likeliest to be ready. */
static struct vm *spare_take(struct kernel *k, uint64_t address_bytes)
{
	for (size_t i = 0; i < k->n_spares; i++) {
		struct vm *v = k->spares[i];

		if (v->address_bytes != address_bytes || v->closed)
			continue;
		spare_forget(v);
		metric_add(k->metrics, "vms_spare_used_total", NULL, 1);
		return v;
	}
	return NULL;
}

static struct vm *vm_new(struct kernel *k, uint64_t address_bytes, const char *label)
{
	struct vm *v = mem_new(struct vm);

	v->magic = VM_MAGIC;
	v->k = k;
	v->asked_us = clock_us();
	v->address_bytes = address_bytes;
	v->carriers = map_new();
	if (child_spawn_vm(k, v, address_bytes, label) < 0) {
		map_free(v->carriers);
		free(v);
		return NULL;
	}
	map_put(k->vms, &v->slot, sizeof(v->slot), v);
	metric_add(k->metrics, "vms_started_total", NULL, 1);
	return v;
}

static void spares_fill(uv_timer_t *t)
{
	struct kernel *k = t->data;

	while (!k->stopping && k->n_spares < k->config.spare_vms) {
		struct vm *v = vm_new(k, k->spare_address_bytes, "spare");

		if (!v)
			return;
		v->spare = true;
		k->spares[k->n_spares++] = v;
	}
}

/* A carrier has just got a tos-vm that nobody had: if that was so not long ago too, make ready for
 * the next. A little later, so that making it does not hold up the one that has come. */
static void spares_want(struct kernel *k, uint64_t address_bytes)
{
	int64_t now = clock_ms();
	bool often = k->spare_used_ms && now - k->spare_used_ms <= SPARE_KEEP_MS;

	k->spare_used_ms = now;
	k->spare_address_bytes = address_bytes;
	/* Those that did not fit make room. */
	if (k->n_spares > 0 && k->n_spares >= k->config.spare_vms &&
		k->spares[0]->address_bytes != address_bytes)
		vm_end(k->spares[0]);
	if (often && k->config.spare_vms > 0 && !uv_is_active((uv_handle_t *)&k->spare_timer))
		uv_timer_start(&k->spare_timer, spares_fill, SPARE_DELAY_MS, 0);
}

void vms_init(struct kernel *k)
{
	costs_init(k);
	k->vms = map_new();
	processors = uv_available_parallelism();
	uv_timer_init(k->loop, &k->spare_timer);
	k->spare_timer.data = k;
}

/* ---- which one */

/* How many may share one with it: fewer where some that it was in have died of late. */
static size_t company_of(struct resident *r)
{
	if (r->vm_deaths && clock_ms() - r->vm_death_ms > SUSPECT_MS)
		r->vm_deaths = 0;
	if (r->vm_deaths < 2)
		return r->k->config.vm_carriers;
	/* Where so few share one anyway, a smaller company is none. */
	return r->vm_deaths == 2 && r->k->config.vm_carriers > SUSPECTS ? SUSPECTS : 1;
}

static void key_of(struct resident *r, size_t company, char *out, size_t cap)
{
	snprintf(out, cap, "%s\n%s\n%x\n%s%zu", r->owner->name, r->author->name,
		carrier_roles(r->owner, r->author), r->vm_deaths ? "suspect " : "", company);
}

/* Rounded up, so that small differences don't tell processes apart. */
static uint64_t memory_of(const struct resident *r)
{
	uint64_t most = (uint64_t)1 << 20;

	while (most < (uint64_t)r->usage.limit[LIMIT_memory])
		most *= 2;
	return most;
}

/* The fullest that has room, but one that computes all the time only where there are as many as
 * processors. What a carrier has had for itself is not for a second one. */
static struct vm *vm_with_room(struct kernel *k, const char *key, uint64_t memory)
{
	struct vm *v, *best = NULL;
	size_t it = 0;
	unsigned like = 0;

	while ((v = map_next(k->vms, &it, NULL, NULL))) {
		if (v->phase == VM_PHASE_DYING || v->closed || v->spare ||
			strcmp(v->key, key) != 0)
			continue;
		like++;
		if (v->memory_each < memory || map_size(v->carriers) >= v->company ||
			v->company == 1)
			continue;
		if (!best || (best->busy && !v->busy) ||
			(best->busy == v->busy &&
				map_size(v->carriers) > map_size(best->carriers)))
			best = v;
	}
	return best && best->busy && like < processors ? NULL : best;
}

static struct vm *vm_for(struct resident *r)
{
	struct kernel *k = r->k;
	size_t company = company_of(r);
	uint64_t memory = memory_of(r), address = VM_ADDRESS_EXTRA + company * memory;
	char key[sizeof(((struct vm *)0)->key)];
	struct vm *v;

	key_of(r, company, key, sizeof(key));
	v = vm_with_room(k, key, memory);
	if (v) {
		metric_add(k->metrics, "vms_shared_total", NULL, 1);
		return v;
	}
	v = spare_take(k, address);
	if (!v)
		v = vm_new(k, address, r->name);
	if (!v)
		return NULL;
	snprintf(v->key, sizeof(v->key), "%s", key);
	v->company = company;
	v->memory_each = memory;
	spares_want(k, address);
	return v;
}

/* ---- the end of one */

static void vm_free_when_done(struct vm *v)
{
	spare_forget(v);
	if (!v->died || v->stream)
		return;
	child_forget_vm(v->k, v);
	map_del(v->k->vms, &v->slot, sizeof(v->slot));
	map_free(v->carriers);
	free(v);
}

static void vm_end(struct vm *v)
{
	spare_forget(v);
	v->phase = VM_PHASE_DYING;
	if (!v->died)
		child_kill_vm(v->k, v);
	if (v->stream)
		stream_close(v->stream);
}

/* r is not in it any more; it may not know yet. */
static struct vm *vm_leave(struct resident *r)
{
	struct vm *v = r->vm;

	r->usage.used[LIMIT_cpu] = (int64_t)(vm_cpu_us(r) / 1000);
	r->cpu_before_us = vm_cpu_us(r);
	r->vm_cpu_us = 0;
	r->vm = NULL;
	r->vm_runs = r->vm_held = r->vm_prepared = false;
	map_del(v->carriers, &r->vm_number, sizeof(r->vm_number));
	if (map_size(v->carriers) == 0)
		v->idle_since_ms = clock_ms();
	return v;
}

/* It ended, or must: what becomes of those that are in it. d: what tosd saw, or NULL. */
static void vm_lost(struct vm *v, const struct tosd_died *d, const char *why)
{
	struct resident *r, *culprit = map_find(v->carriers, &v->stuck, sizeof(v->stuck));
	bool alone = map_size(v->carriers) == 1;
	int64_t now = clock_ms();
	size_t it = 0;

	v->phase = VM_PHASE_DYING;
	if (map_size(v->carriers) > 0)
		log_notice("a tos-vm ended with its carriers",
			KV_INT("carriers", map_size(v->carriers)), KV_STR("reason", why),
			KV_STR("culprit", culprit ? culprit->name : "unknown"));
	while ((r = map_next(v->carriers, &it, NULL, NULL))) {
		bool held = r->vm_held;

		vm_leave(r);
		if (held)
			continue; /* nothing of it ran: it is given to another when it may */
		if (r == culprit || alone) {
			resident_vm_died(r, d, why);
			continue;
		}
		if (!culprit) {
			r->vm_deaths++;
			r->vm_death_ms = now;
		}
		resident_restart(r, why);
	}
	vm_end(v);
}

static void vm_bad(struct vm *v, const char *why)
{
	metric_add(v->k->metrics, "vm_frames_refused_total", NULL, 1);
	log_notice("tos-vm broke the protocol", KV_STR("reason", why));
	v->stuck = 0; /* nothing that it said counts */
	vm_lost(v, NULL, "its tos-vm broke the protocol and was ended");
}

static void vm_hung(struct vm *v, const char *why)
{
	metric_add(v->k->metrics, "vms_hung_total", NULL, 1);
	vm_lost(v, NULL, why);
}

/* ---- what is said to it */

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
	char parent[NAME_BYTES_MAX + 1];

	family_parent_name(r->name, parent);
	cbor_put_map(b, r->vm_held ? 18 : 17);
	if (r->vm_held) {
		cbor_put_text(b, "held");
		cbor_put_bool(b, true);
	}
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
	cbor_put_text(b, r->owner->name);
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
	cbor_put_text(b, "parent");
	cbor_put_text(b, parent);
	cbor_put_text(b, "answers");
	cbor_put_bool(b, true);
	cbor_put_text(b, "function");
	cbor_put_text(b, "begin");
	cbor_put_text(b, "briefcase");
	cbor_put_raw(b, blob_slice(&r->briefcase));
	tos_value_free(seals);
}

/* Which tos-vm and which carrier in it: the beginning of every frame. */
static size_t vm_frame_begin(struct buf *b, const struct resident *r, uint64_t n, unsigned type)
{
	size_t at = frame_begin(b);

	cbor_put_array(b, 2 + n);
	cbor_put_uint(b, type);
	cbor_put_uint(b, r->vm_number);
	return at;
}

static int vm_send(struct vm *v, struct buf *b, size_t at)
{
	frame_end(b, at);
	if (buf_check(b) < 0)
		return ERR_TOO_LARGE;
	/* It has closed, and tosd has not said yet what became of it. */
	return v->stream ? stream_send(v->stream, b->data, b->len) : ERR_CLOSED;
}

/* START, or RUN to one that was prepared. */
static void hand_over_frame(struct resident *r, struct buf *b)
{
	size_t at;

	if (r->vm_prepared) {
		at = vm_frame_begin(b, r, 0, VM_RUN);
	} else {
		at = vm_frame_begin(b, r, 1, VM_START);
		automata_back(r);
		start_map(r, b);
	}
	frame_end(b, at);
}

static int vm_hand_over(struct resident *r)
{
	AUTOBUF b = BUF_MAX(VM_FRAME_MAX);
	struct errmsg em = { "" };
	int rc;

	hand_over_frame(r, &b);
	rc = buf_check(&b);
	if (rc == 0 && !r->vm_held)
		rc = resident_event(r, SHELL_EV_START, &em);
	if (!r->vm_held)
		FAULT_AT(START);
	/* One that has closed takes it with the others that are in it: tosd will say what became of them. */
	if (rc == 0 && r->vm->stream)
		rc = stream_send(r->vm->stream, b.data, b.len);
	if (rc < 0 && rc != ERR_CLOSED)
		return rc;
	r->vm_prepared = r->vm_held;
	if (r->vm_held)
		return 0;
	r->vm_runs = true;
	r->started_ms = clock_ms();
	home_report_soon(r);
	return 0;
}

static void vm_hand_over_all(struct vm *v)
{
	struct resident *r;
	size_t it = 0;

	while ((r = map_next(v->carriers, &it, NULL, NULL))) {
		bool held = r->vm_held;
		int rc = r->vm_runs ? 0 : vm_hand_over(r);

		if (rc < 0 && held)
			vm_abandon(r);
		else if (rc < 0)
			resident_fault(r, rc, "it could not be handed to its tos-vm", "");
	}
}

/* Into a tos-vm, which may have to be made first. */
static int vm_enter(struct resident *r, bool held)
{
	struct kernel *k = r->k;
	struct vm *v = vm_for(r);

	if (!v)
		return ERR_FULL;
	r->vm = v;
	r->vm_number = ++k->next_vm_number;
	r->vm_runs = r->vm_prepared = r->throttled = false;
	r->vm_held = held;
	r->clone_calls = r->clone_base;
	r->vm_cpu_us = 0;
	r->cpu_before_us = (uint64_t)r->usage.used[LIMIT_cpu] * 1000;
	v->newest = r->vm_number;
	map_put(v->carriers, &r->vm_number, sizeof(r->vm_number), r);
	return v->phase == VM_PHASE_READY ? vm_hand_over(r) : 0;
}

int vm_start(struct resident *r, struct errmsg *em)
{
	int rc = 0;

	if (r->vm_held && r->vm->closed)
		vm_leave(r); /* nothing of it ran there */
	if (r->vm_held) {
		r->vm_held = false;
		if (r->vm->phase == VM_PHASE_READY)
			rc = vm_hand_over(r);
	} else {
		rc = vm_enter(r, false);
	}
	if (rc < 0)
		return err_set(em, rc,
			r->vm ? "it could not be handed to its tos-vm"
			      : "tosd takes no more requests");
	return 0;
}

void vm_prepare(struct resident *r)
{
	if (!r->vm && vm_enter(r, true) < 0)
		vm_abandon(r);
}

void vm_abandon(struct resident *r)
{
	AUTOBUF b = BUF_INIT;
	bool there = r->vm_runs || r->vm_prepared;
	struct vm *v;

	if (!r->vm)
		return;
	v = vm_leave(r);
	if (map_size(v->carriers) == 0 && (v->k->stopping || v->company == 1)) {
		vm_end(v);
		return;
	}
	if (!there || !v->stream || v->phase == VM_PHASE_DYING)
		return;
	if (v->n_ending++ == 0) {
		v->ending_ms = clock_ms();
		v->ending_cpu_us = vm_process_cpu_us(v);
	}
	if (vm_send(v, &b, vm_frame_begin(&b, r, 0, VM_END)) < 0)
		vm_hung(v, "its tos-vm did not read what it was told");
}

void vm_freeze(struct resident *r, bool freeze)
{
	AUTOBUF b = BUF_INIT;
	size_t at;

	if (!r->vm || !r->vm_runs || !r->vm->stream)
		return;
	at = vm_frame_begin(&b, r, 1, VM_PAUSE);
	cbor_put_bool(&b, freeze);
	vm_send(r->vm, &b, at);
}

int vm_deliver(struct resident *r, enum post_kind kind, const char *inbox, const char *sender,
	uint64_t tag, struct slice folder, const struct origin *from)
{
	AUTOBUF b = BUF_MAX(FRAME_BYTES_MAX + 4096);
	size_t at;

	if (!r->vm || !r->vm_runs || !r->vm->stream)
		return ERR_STATE;
	at = vm_frame_begin(&b, r, 7, VM_DELIVER);
	cbor_put_uint(&b, kind);
	cbor_put_text(&b, inbox);
	cbor_put_text(&b, sender);
	cbor_put_uint(&b, tag);
	cbor_put_raw(&b, folder);
	cbor_put_text(&b, from ? from->principal : "");
	cbor_put_text(&b, from ? origin_class_word(from->cls) : "");
	return vm_send(r->vm, &b, at);
}

int vm_done(struct resident *r, uint64_t seq, int rc, const char *text)
{
	AUTOBUF b = BUF_MAX(FRAME_BYTES_MAX);
	size_t at;

	if (!r->vm || !r->vm->stream)
		return ERR_STATE;
	at = vm_frame_begin(&b, r, 4, VM_DONE);
	cbor_put_uint(&b, seq);
	cbor_put_text(&b, rc ? err_word(rc) : "");
	cbor_put_text(&b, text ? text : "");
	cbor_put_null(&b);
	return vm_send(r->vm, &b, at);
}

void vm_limits(struct resident *r)
{
	AUTOBUF b = BUF_INIT;
	size_t at;

	if (!r->vm || !r->vm_runs || !r->vm->stream)
		return;
	at = vm_frame_begin(&b, r, 2, VM_LIMITS);
	put_limits(&b, r->usage.limit);
	put_limits(&b, r->usage.used);
	vm_send(r->vm, &b, at);
}

void vm_charge(struct resident *r, int64_t us)
{
	AUTOBUF b = BUF_INIT;
	size_t at;

	if (!r->vm || !r->vm_runs || !r->vm->stream || map_size(r->vm->carriers) < 2)
		return;
	at = vm_frame_begin(&b, r, 1, VM_CHARGE);
	cbor_put_uint(&b, (uint64_t)us);
	vm_send(r->vm, &b, at);
}

/* ---- what it says */

/* It may be gone by the end of its frame. */
static int carrier_frame(
	struct vm *v, struct resident *r, int type, struct cbor_cursor *c, struct errmsg *em)
{
	uint64_t number = r->vm_number;
	int64_t began_us = clock_us();
	int rc = vm_frame(r, type, c, em);

	r = map_find(v->carriers, &number, sizeof(number));
	if (r)
		cost_note(r, clock_us() - began_us);
	return rc;
}

/* Of the process itself, or of a carrier that has left it. */
static int vm_own_frame(struct vm *v, int type, uint64_t number, struct cbor_cursor *c)
{
	if (type == VM_FORGOTTEN && v->n_ending > 0) {
		v->told_cpu_us += (int64_t)cbor_uint(c, INT64_MAX / 4);
		v->n_ending--;
		v->ending_ms = clock_ms();
		v->ending_cpu_us = vm_process_cpu_us(v);
		return 0;
	}
	if (type == VM_STUCK && number <= v->newest) {
		v->stuck = number;
		v->stuck_cpu_us = vm_process_cpu_us(v);
		return 0;
	}
	/* What was on its way when it was told to forget the carrier. */
	return number <= v->newest ? 0 : ERR_MALFORMED;
}

static void vm_first_frame(struct vm *v, struct slice frame)
{
	struct cbor_cursor c;

	if (frame_open(&c, frame) != VM_READY || cbor_uint(&c, UINT32_MAX) != VM_PROTOCOL) {
		vm_bad(v, "the first frame was not READY");
		return;
	}
	metric_add(v->k->metrics, "vms_start_us_total", NULL,
		(uint64_t)(clock_us() - v->asked_us));
	v->phase = VM_PHASE_READY;
	v->idle_since_ms = clock_ms();
	vm_hand_over_all(v);
}

static void on_vm_frame(void *arg, struct stream *s, struct slice frame)
{
	struct vm *v = TAGGED(arg, struct vm, VM_MAGIC);
	struct errmsg em = { "" };
	struct resident *r;
	struct cbor_cursor c;
	uint64_t number;
	int type, rc = 0;

	(void)s;
	if (v->phase == VM_PHASE_DYING)
		return; /* whatever it says, nobody listens */
	if (v->phase == VM_PHASE_BOOTING) {
		vm_first_frame(v, frame);
		return;
	}
	type = frame_open(&c, frame);
	number = cbor_uint(&c, INT64_MAX);
	if (type < 0 || c.rc < 0 || v->spare) {
		vm_bad(v, v->spare ? "it speaks though it holds no carrier"
				   : "a frame does not decode");
		return;
	}
	v->n_frames++;
	r = map_find(v->carriers, &number, sizeof(number));
	if (type != VM_STUCK)
		v->stuck = 0; /* it has come back */
	if (r && r->vm_held && type != VM_STUCK)
		/* It could not be made ready: what is wrong is told when it is started. */
		vm_abandon(r);
	else if (!r || type == VM_STUCK)
		rc = vm_own_frame(v, type, number, &c);
	else
		rc = carrier_frame(v, r, type, &c, &em);
	if (rc < 0)
		vm_bad(v, err_show(rc, &em));
}

static void on_vm_closed(void *arg, struct stream *s, int rc, const char *why)
{
	struct vm *v = TAGGED(arg, struct vm, VM_MAGIC);

	(void)s;
	v->stream = NULL;
	v->closed = true;
	if (v->phase != VM_PHASE_DYING && rc != 0 && rc != ERR_CLOSED)
		vm_bad(v, why);
	/* tosd tells of its death with the cause; a tos-vm that only closed is ended. */
	if (!v->died)
		child_kill_vm(v->k, v);
	vm_free_when_done(v);
}

static const struct stream_callbacks vm_callbacks = { on_vm_frame, on_vm_closed, NULL };

/* ---- what tosd says */

void vm_spawned(struct vm *v, int fd, int pid)
{
	struct errmsg em = { "" };
	int rc;

	v->pid = pid;
	if (v->phase == VM_PHASE_DYING) {
		mem_close(fd);
		return;
	}
	v->phase = VM_PHASE_BOOTING;
	rc = stream_open(v->k->loop, fd, VM_FRAME_MAX, &vm_callbacks, v, &v->stream, &em);
	if (rc == 0)
		stream_set_max_queue(v->stream, VM_FRAME_MAX);
	else
		vm_lost(v, NULL, err_show(rc, &em));
}

void vm_failed(struct vm *v, int rc, const char *text)
{
	struct resident *r;
	size_t it = 0;

	v->died = true;
	v->phase = VM_PHASE_DYING;
	while ((r = map_next(v->carriers, &it, NULL, NULL))) {
		bool held = r->vm_held;

		vm_leave(r);
		if (!held)
			resident_vm_failed(r, rc, text);
	}
	vm_free_when_done(v);
}

void vm_died(struct vm *v, const struct tosd_died *d)
{
	char why[160];

	v->died = true;
	snprintf(why, sizeof(why), "its tos-vm died (%s %d)",
		d->cause == TOSD_EXITED    ? "exit status"
		: d->cause == TOSD_SECCOMP ? "forbidden system call, signal"
					   : "signal",
		d->status);
	if (d->cause == TOSD_SECCOMP)
		metric_add(v->k->metrics, "seccomp_kills_total", NULL, 1);
	vm_lost(v, d, why);
	vm_free_when_done(v);
}

/* ---- figures and time */

uint64_t vm_cpu_us(const struct resident *r)
{
	return r->vm ? r->cpu_before_us + r->vm_cpu_us
		     : (uint64_t)r->usage.used[LIMIT_cpu] * 1000;
}

void vm_told_usage(struct resident *r, uint64_t cpu_us)
{
	if (cpu_us < r->vm_cpu_us)
		return;
	int64_t used = (int64_t)(cpu_us - r->vm_cpu_us);

	r->vm->told_cpu_us += used;
	r->vm_cpu_us = cpu_us;
	share_used(r, used);
}

uint64_t vm_memory_bytes(const struct resident *r)
{
	return (uint64_t)r->usage.used[LIMIT_memory];
}

static void vm_check_life(struct vm *v, int64_t now_ms)
{
	int64_t cpu_us = vm_process_cpu_us(v);
	int64_t hang_us = HANG_CPU_US + (int64_t)(v->memory_each / HOST_PER_US);

	if (now_ms - v->busy_at_ms >= BUSY_MS) {
		v->busy = (cpu_us - v->busy_cpu_us) / 10 >
			  (now_ms - v->busy_at_ms) * BUSY_PERCENT;
		v->busy_at_ms = now_ms;
		v->busy_cpu_us = cpu_us;
	}
	if (v->n_frames != v->frames_seen) {
		v->frames_seen = v->n_frames;
		v->alive_cpu_us = cpu_us;
	}
	if (v->stuck && cpu_us - v->stuck_cpu_us > STUCK_CPU_US)
		vm_hung(v, "hung: its tos-vm could not stop it");
	else if (cpu_us - v->alive_cpu_us > hang_us)
		vm_hung(v, "hung: its tos-vm gave no sign of life");
	else if (v->n_ending &&
		 (cpu_us - v->ending_cpu_us > hang_us || now_ms - v->ending_ms > END_MS))
		vm_hung(v, "hung: its tos-vm did not let a carrier go");
	else if (cpu_us > HIDDEN_US + 2 * v->told_cpu_us)
		vm_hung(v, "its tos-vm used CPU time that it did not account for");
}

void vms_tick(struct kernel *k, int64_t now_ms)
{
	struct vm *v;
	size_t it = 0;

	if (k->n_spares > 0 && now_ms - k->spare_used_ms > SPARE_KEEP_MS)
		spares_end(k);
	while ((v = map_next(k->vms, &it, NULL, NULL))) {
		if (v->phase != VM_PHASE_READY)
			continue;
		if (map_size(v->carriers) == 0 && !v->spare &&
			now_ms - v->idle_since_ms > IDLE_KEEP_MS)
			vm_end(v);
		else
			vm_check_life(v, now_ms);
	}
}
