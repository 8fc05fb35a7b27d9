/*
 * The table of programs and the inbox Programs, by which extensions start them, read what they
 * write, signal and forget them. See programs.h.
 */
#include "kernel/services/programs.h"

#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/text.h"
#include "kernel/carrier/account.h"
#include "kernel/carrier/admit.h"
#include "kernel/carrier/resident.h"
#include "kernel/services/actions.h"

#define ENDED_KEPT_MS 600000 /* an ended one that nobody forgets */
#define ANSWER_BYTES  65536  /* of output in one answer */
#define STOP_MS       5000   /* from SIGTERM to SIGKILL, for people */
#define KILL_MOST_MS  86400000

static void program_free(struct program *p);
static void stay_over(struct kernel *k, const char *carrier);

static int64_t running_count; /* of this process's one kernel */

void programs_init(struct kernel *k)
{
	k->programs = map_new();
	k->stay_over = stay_over;
}

struct program *program_by_slot(struct kernel *k, uint64_t slot)
{
	return map_find(k->programs, &slot, sizeof(slot));
}

static struct program *by_handle(struct kernel *k, const char *handle)
{
	struct program *p;
	size_t it = 0;

	while ((p = map_next(k->programs, &it, NULL, NULL)))
		if (strcmp(p->handle, handle) == 0)
			return p;
	return NULL;
}

size_t programs_running(const struct kernel *k)
{
	(void)k;
	return (size_t)running_count;
}

static void count_running(struct kernel *k, int delta)
{
	running_count += delta;
	metric_set(k->metrics, "programs_running", NULL, (double)running_count);
}

/* ---- what is told */

static const char *cause_word(uint32_t cause)
{
	static const char *const words[] = { [TOSD_EXITED] = "exited",
		[TOSD_SIGNALLED] = "signalled",
		[TOSD_SECCOMP] = "sandbox",
		[TOSD_CPU_LIMIT] = "cpu",
		[TOSD_MEMORY_LIMIT] = "memory",
		[TOSD_KILLED] = "killed" };

	return cause < ARRAY_LEN(words) && words[cause] ? words[cause] : "unknown";
}

static const char *state_word(const struct program *p)
{
	return p->state == PROGRAM_ENDED     ? "ended"
	       : p->state == PROGRAM_RUNNING ? "running"
					     : "starting";
}

static void end_set(const struct program *p, struct tos_value *m)
{
	tos_set(m, "cause", tos_text(p->why[0] ? p->why : cause_word(p->cause)));
	tos_set(m, p->cause == TOSD_EXITED ? "code" : "signal", tos_int(p->status));
	tos_set(m, "cpu_ms", tos_int((int64_t)(p->cpu_us / 1000)));
	tos_set(m, "peak_bytes", tos_int((int64_t)p->peak_bytes));
	tos_set(m, "ran_ms", tos_int(p->ended_ms - p->started_ms));
}

static struct tos_value *row(const struct program *p, bool handle)
{
	struct tos_value *m = tos_map();
	char hex[2 * DIGEST_BYTES + 1];

	if (handle)
		tos_set(m, "handle", tos_text(p->handle));
	tos_set(m, "number", tos_int((int64_t)(p->slot & 0xffffff)));
	tos_set(m, "name", tos_text(p->name));
	tos_set(m, "carrier", tos_text(p->carrier));
	tos_set(m, "owner", tos_text(p->owner));
	tos_set(m, "program", tos_text(p->shown));
	tos_set(m, "digest", tos_text(text_hex(p->digest, DIGEST_BYTES, hex)));
	tos_set(m, "state", tos_text(state_word(p)));
	tos_set(m, "pid", tos_int(p->pid));
	tos_set(m, "stays", tos_bool(p->stays));
	tos_set(m, "started_ms", tos_int(p->started_ms));
	tos_set(m, "stdout_bytes", tos_int((int64_t)p->written[0]));
	tos_set(m, "stderr_bytes", tos_int((int64_t)p->written[1]));
	tos_set(m, "waiting_bytes", tos_int((int64_t)p->kept));
	if (p->state == PROGRAM_ENDED)
		end_set(p, m);
	return m;
}

void programs_list_verb(struct kernel *k, struct request *rq)
{
	struct tos_value *m, *list;
	struct program *p;
	size_t it = 0;

	if (control_may_read(k, rq) < 0)
		return;
	m = tos_map();
	list = tos_array();
	while ((p = map_next(k->programs, &it, NULL, NULL)))
		tos_push(list, row(p, false));
	tos_set(m, "programs", list);
	request_ok(rq, m);
}

/* A number is before a name: whoever runs one chooses its name. owner NULL: anybody's. */
static struct program *by_people(struct kernel *k, const char *which, const char *owner)
{
	struct program *p, *named = NULL;
	size_t it = 0;
	int64_t number;

	if (text_int(which, 0, 0xffffff, &number) < 0)
		number = -1;
	while ((p = map_next(k->programs, &it, NULL, NULL))) {
		if (p->state == PROGRAM_ENDED || (owner && strcmp(p->owner, owner) != 0))
			continue;
		if ((int64_t)(p->slot & 0xffffff) == number)
			return p;
		if (!named && p->name[0] && strcmp(p->name, which) == 0)
			named = p;
	}
	return named;
}

const char *program_owner(struct kernel *k, const char *which, const char *asker)
{
	struct program *p = by_people(k, which, asker);

	p = p ? p : by_people(k, which, NULL);
	return p ? p->owner : "";
}

static void audit(const struct program *p, const char *event, int rc, const char *text)
{
	struct tos_value *m = tos_map();
	char hex[2 * DIGEST_BYTES + 1];

	tos_set(m, "carrier", tos_text(p->carrier));
	tos_set(m, "owner", tos_text(p->owner));
	tos_set(m, "program", tos_text(p->shown));
	if (rc < 0) {
		tos_set(m, "code", tos_text(err_word(rc)));
		tos_set(m, "text", tos_text(text));
	} else {
		tos_set(m, "digest", tos_text(text_hex(p->digest, DIGEST_BYTES, hex)));
	}
	audit_event(p->k, kernel_lazy(p->k), event, m);
}

/* ---- lives */

static void program_free(struct program *p)
{
	if (p->starter)
		request_fail(STEAL(p->starter), ERR_CANCELLED, "the program was given up");
	if (p->reader)
		request_fail(STEAL(p->reader), ERR_NOT_FOUND, "the program was forgotten");
	pipes_close(p);
	while (!list_empty(&p->chunks)) {
		struct program_chunk *c = LIST_ITEM(p->chunks.next, struct program_chunk, node);

		list_del(&c->node);
		free(c);
	}
	map_del(p->k->programs, &p->slot, sizeof(p->slot));
	free(p->spawn);
	free(p);
}

static struct program *program_new(struct kernel *k)
{
	struct program *p = mem_new(struct program);
	uint8_t bits[16];

	random_bytes(bits, sizeof(bits));
	text_hex(bits, sizeof(bits), p->handle);
	do /* a kernel that comes later must not meet those of this one's that stayed */
		random_bytes(&p->slot, sizeof(p->slot));
	while (program_by_slot(k, p->slot |= (uint64_t)1 << 63));
	p->k = k;
	list_init(&p->chunks);
	map_put(k->programs, &p->slot, sizeof(p->slot), p);
	return p;
}

static void kill_now(struct program *p, const char *why)
{
	p->killing = true;
	if (!p->why[0] && why)
		snprintf(p->why, sizeof(p->why), "%s", why);
	if (p->state == PROGRAM_STARTING || p->state == PROGRAM_RUNNING)
		child_signal_program(p->k, p, SIGKILL);
}

/* It never ran. */
static void start_failed(struct program *p, int rc, const char *text)
{
	metric_add(p->k->metrics, "programs_refused_total", NULL, 1);
	audit(p, "program-refused", rc, text);
	log_notice("a program was not started", KV_STR("carrier", p->carrier),
		KV_STR("program", p->shown), KV_STR("reason", text));
	if (p->starter)
		request_fail(STEAL(p->starter), rc, "%s", text);
	program_free(p);
}

/* What comes back should this kernel die and the program not. */
static int cookie_make(const struct program *p, struct tosd_spawn_program *m)
{
	struct tos_value *v = tos_map();
	uint8_t *bytes = NULL;
	size_t n = 0;
	int rc;

	tos_set(v, "handle", tos_text(p->handle));
	tos_set(v, "name", tos_text(p->name));
	tos_set(v, "carrier", tos_text(p->carrier));
	tos_set(v, "owner", tos_text(p->owner));
	tos_set(v, "shown", tos_text(p->shown));
	tos_set(v, "note", tos_text(p->note));
	tos_set(v, "digest", tos_bytes(p->digest, DIGEST_BYTES));
	tos_set(v, "request", tos_bytes(p->request, DIGEST_BYTES));
	tos_set(v, "started", tos_int(clock_wall_ms()));
	tos_set(v, "wall", tos_int(p->limits.wall_ms));
	rc = tos_encode(v, &bytes, &n);
	if (rc == 0 && n > sizeof(m->cookie))
		rc = ERR_TOO_LARGE;
	if (rc == 0)
		memcpy(m->cookie, bytes, n);
	m->n_cookie = rc == 0 ? (uint32_t)n : 0;
	free(bytes);
	tos_value_free(v);
	return rc;
}

/* Its bytes were looked at. */
static void looked(struct kernel *k, uint64_t slot, int fd, int rc, const char *text)
{
	struct program *p = program_by_slot(k, slot);
	struct tosd_spawn_program *m;

	if (!p || p->killing) {
		if (fd >= 0)
			mem_close(fd);
		if (p)
			start_failed(p, ERR_CANCELLED, "its carrier has left");
		return;
	}
	if (rc < 0) {
		start_failed(p, rc, text);
		return;
	}
	if (p->dry) {
		if (fd >= 0)
			mem_close(fd);
		if (p->starter)
			request_ok(STEAL(p->starter), row(p, false));
		program_free(p);
		return;
	}
	m = p->spawn;
	p->spawn = NULL;
	p->state = PROGRAM_STARTING;
	if (p->stays && cookie_make(p, m) < 0) {
		mem_close(fd);
		free(m);
		start_failed(p, ERR_TOO_LARGE, "the program's name and note are too long");
		return;
	}
	rc = child_spawn_program(k, p, m, fd);
	free(m);
	if (rc < 0)
		start_failed(p, rc, err_text(rc));
}

void program_spawned(struct program *p, const int fds[3], int pid)
{
	p->pid = pid;
	p->state = PROGRAM_RUNNING;
	p->started_ms = clock_wall_ms();
	if (p->limits.wall_ms)
		p->wall_at_ms = clock_ms() + p->limits.wall_ms;
	count_running(p->k, 1);
	metric_add(p->k->metrics, "programs_started_total", NULL, 1);
	audit(p, "program-run", 0, NULL);
	log_info("program started", KV_STR("carrier", p->carrier), KV_STR("program", p->shown),
		KV_INT("pid", pid));
	if (pipes_open(p, fds) < 0)
		kill_now(p, "its pipes could not be watched");
	if (p->killing)
		kill_now(p, NULL);
	if (p->starter)
		request_ok(STEAL(p->starter), row(p, true));
}

void program_failed(struct program *p, int rc, const char *text)
{
	start_failed(p, rc == 0 ? ERR_SANDBOX : rc, text);
}

void program_died(struct program *p, const struct tosd_died *d)
{
	char label[64];

	count_running(p->k, -1);
	p->state = PROGRAM_ENDED;
	p->ended_ms = clock_wall_ms();
	p->cause = d->cause;
	p->status = d->status;
	p->cpu_us = d->cpu_us;
	p->peak_bytes = d->peak_bytes;
	snprintf(label, sizeof(label), "cause=\"%s\"", cause_word(p->cause));
	metric_add(p->k->metrics, "programs_ended_total", label, 1);
	account_program(p->k, p->owner, p->cpu_us, p->peak_bytes, p->ended_ms - p->started_ms);
	log_info("program ended", KV_STR("carrier", p->carrier), KV_STR("program", p->shown),
		KV_STR("cause", cause_word(p->cause)), KV_INT("status", p->status));
	program_wrote(p);
}

struct program *program_kept(struct kernel *k, const struct tosd_kept *m, const int fds[3])
{
	struct program *p = program_new(k);
	struct tos_value *v = NULL;
	const uint8_t *bytes;
	size_t n;

	if (m->n_cookie > sizeof(m->cookie) || tos_decode(m->cookie, m->n_cookie, 0, &v) < 0) {
		for (int i = 0; i < 3; i++)
			mem_close(fds[i]);
		program_free(p);
		return NULL;
	}
	map_del(k->programs, &p->slot, sizeof(p->slot));
	p->slot = m->slot;
	map_put(k->programs, &p->slot, sizeof(p->slot), p);
	snprintf(p->handle, sizeof(p->handle), "%s", tos_get_text(v, "handle", ""));
	snprintf(p->name, sizeof(p->name), "%s", tos_get_text(v, "name", ""));
	snprintf(p->carrier, sizeof(p->carrier), "%s", tos_get_text(v, "carrier", ""));
	snprintf(p->owner, sizeof(p->owner), "%s", tos_get_text(v, "owner", ""));
	snprintf(p->shown, sizeof(p->shown), "%s", tos_get_text(v, "shown", ""));
	snprintf(p->note, sizeof(p->note), "%s", tos_get_text(v, "note", ""));
	bytes = tos_get_bytes(v, "digest", &n);
	if (n == DIGEST_BYTES)
		memcpy(p->digest, bytes, n);
	bytes = tos_get_bytes(v, "request", &n);
	if (n == DIGEST_BYTES)
		memcpy(p->request, bytes, n);
	p->started_ms = tos_get_int(v, "started", 0);
	p->limits.wall_ms = tos_get_int(v, "wall", 0);
	tos_value_free(v);
	p->stays = true;
	p->state = PROGRAM_RUNNING;
	p->pid = m->pid;
	if (p->limits.wall_ms) /* what is left of it */
		p->wall_at_ms =
			clock_ms() + p->limits.wall_ms - (clock_wall_ms() - p->started_ms);
	count_running(k, 1);
	metric_add(k->metrics, "programs_kept_total", NULL, 1);
	log_notice("a program outlived the kernel before this one",
		KV_STR("carrier", p->carrier), KV_STR("program", p->shown),
		KV_INT("pid", p->pid));
	if (pipes_open(p, fds) < 0)
		kill_now(p, "its pipes could not be watched");
	v = row(p, true);
	tos_set(v, "note", tos_text(p->note));
	kernel_notify(k, k->config.name, "Executor", "KEPT", v);
	return p;
}

/* What that carrier runs ends with its stay, unless it may outlive it. */
static void stay_over(struct kernel *k, const char *carrier)
{
	struct program *p;
	size_t it = 0;

	while ((p = map_next(k->programs, &it, NULL, NULL))) {
		if (p->stays || strcmp(p->carrier, carrier) != 0)
			continue;
		if (p->state == PROGRAM_ENDED)
			program_free(p);
		else
			kill_now(p, "its carrier left");
	}
}

void programs_tick(struct kernel *k, int64_t now_ms)
{
	struct program *p;
	size_t it = 0;

	while ((p = map_next(k->programs, &it, NULL, NULL))) {
		if (p->state == PROGRAM_RUNNING && p->wall_at_ms && now_ms >= p->wall_at_ms) {
			p->wall_at_ms = 0;
			kill_now(p, "wall");
		}
		if (p->state == PROGRAM_RUNNING && p->kill_at_ms && now_ms >= p->kill_at_ms) {
			p->kill_at_ms = 0;
			kill_now(p, NULL);
		}
		if (p->reader && p->reader->deadline_at_ms &&
			now_ms >= p->reader->deadline_at_ms)
			request_fail(STEAL(p->reader), ERR_TIMEOUT, "it has written nothing");
		if (p->state == PROGRAM_ENDED && clock_wall_ms() - p->ended_ms > ENDED_KEPT_MS)
			program_free(p);
	}
}

/* ---- reading */

/* What there is to read, or its end; NULL: neither yet. */
static struct tos_value *news(struct program *p)
{
	struct tos_value *m, *list;
	size_t n = 0;

	if (list_empty(&p->chunks) && !(p->state == PROGRAM_ENDED && pipes_ended(p)))
		return NULL;
	m = tos_map();
	list = tos_array();
	while (!list_empty(&p->chunks) && n < ANSWER_BYTES) {
		struct program_chunk *c = LIST_ITEM(p->chunks.next, struct program_chunk, node);
		struct tos_value *pair = tos_array();

		tos_push(pair, tos_int(c->which));
		tos_push(pair, tos_bytes(c->bytes, c->n));
		tos_push(list, pair);
		n += c->n;
		p->kept -= c->n;
		list_del(&c->node);
		free(c);
	}
	if (n == 0)
		tos_set(m, "ended", row(p, true));
	tos_set(m, "output", list);
	return m;
}

void program_wrote(struct program *p)
{
	struct tos_value *m;

	if (p->asked_us && p->kept) {
		metric_add(p->k->metrics, "programs_first_output_total", NULL, 1);
		metric_add(p->k->metrics, "programs_first_output_us_total", NULL,
			(uint64_t)(clock_us() - p->asked_us));
		p->asked_us = 0;
	}
	m = p->reader ? news(p) : NULL;
	if (!m)
		return;
	request_ok(STEAL(p->reader), m);
	pipes_go_on(p);
}

static void read_verb(struct kernel *k, struct request *rq)
{
	struct program *p = by_handle(k, tos_get_text(rq->args, "handle", ""));

	if (!p || p->reader) {
		request_fail(rq, p ? ERR_STATE : ERR_NOT_FOUND,
			p ? "somebody reads it already" : "there is no such program");
		return;
	}
	p->reader = rq;
	program_wrote(p);
}

/* ---- starting */

/* Who asks: a carrier that is here, by what this kernel knows of it. Others have no right to run
 * anything but what policy gives their class by name. */
int program_starter(struct kernel *k, const struct tos_value *args, struct origin *from,
	struct resident **out, struct errmsg *em)
{
	const char *name = tos_get_text(args, "for", "");
	struct resident *r = resident_find(k, name);

	memset(from, 0, sizeof(*from));
	if (!r || r->state != SHELL_RUNNING)
		return err_set(em, ERR_STATE,
			"programs and actions are run on behalf of carriers that are here, and %s is not",
			name[0] ? name : "nobody");
	from->cls = ORIGIN_CARRIER;
	snprintf(from->name, sizeof(from->name), "%s", r->name);
	snprintf(from->principal, sizeof(from->principal), "%s", r->owner->name);
	snprintf(from->author, sizeof(from->author), "%s", r->author->name);
	from->roles = carrier_roles(r->owner, r->author);
	*out = r;
	return 0;
}

/* What the ticket and the host grant to this carrier. */
static int room_check(struct kernel *k, const struct resident *r, bool stays, struct errmsg *em)
{
	size_t it = 0, n = 0, kept = 0;
	struct program *p;

	while ((p = map_next(k->programs, &it, NULL, NULL))) {
		bool own = strcmp(p->carrier, r->name) == 0 && p->state != PROGRAM_ENDED;

		n += own;
		kept += own && p->stays;
	}
	if ((int64_t)n > r->usage.limit[LIMIT_programs])
		return err_set(em, ERR_LIMIT, "limit programs: %lld may run at once for %s",
			(long long)r->usage.limit[LIMIT_programs], r->name);
	if (stays && (int64_t)kept > r->usage.limit[LIMIT_places])
		return err_set(em, ERR_LIMIT,
			"limit places: a program that stays keeps a place of its carrier here, and "
			"%lld are granted; launch with --limit places=N",
			(long long)r->usage.limit[LIMIT_places]);
	if (map_size(k->programs) > k->config.n_programs)
		return err_set(em, ERR_LIMIT, "this host runs no more than %u programs at once",
			k->config.n_programs);
	return 0;
}

static void request_digest(const struct tos_value *args, uint8_t out[DIGEST_BYTES])
{
	struct tos_value *asked = tos_value_copy(args);
	uint8_t *bytes = NULL;
	size_t n = 0;

	memset(out, 0, DIGEST_BYTES);
	tos_unset(asked, "for"); /* any carrier of the owner's may ask again */
	if (tos_encode(asked, &bytes, &n) == 0)
		digest_bytes(bytes, n, out);
	free(bytes);
	tos_value_free(asked);
}

/* One of the owner's that stays goes by its name: the same request again, after a restart, finds it.
 */
static struct program *by_name(struct kernel *k, const char *owner, const char *name)
{
	struct program *p;
	size_t it = 0;

	while ((p = map_next(k->programs, &it, NULL, NULL)))
		if (p->stays && p->name[0] && strcmp(p->name, name) == 0 &&
			strcmp(p->owner, owner) == 0)
			return p;
	return NULL;
}

/* True if the request was answered (or waits): there is one of that name. */
static bool start_again(struct kernel *k, const struct origin *from, struct request *rq)
{
	struct program *p = by_name(k, from->principal, tos_get_text(rq->args, "name", ""));
	uint8_t digest[DIGEST_BYTES];
	struct tos_value *m;

	if (!p)
		return false;
	if (p->state == PROGRAM_ENDED && list_empty(&p->chunks) && !p->reader) {
		program_free(p);
		return false;
	}
	request_digest(rq->args, digest);
	if (memcmp(digest, p->request, sizeof(digest)) != 0 || p->state < PROGRAM_RUNNING) {
		request_fail(rq, ERR_EXISTS, "a program of the name %s runs here for %s",
			p->name, p->owner);
		return true;
	}
	m = row(p, true);
	tos_set(m, "again", tos_bool(true));
	request_ok(rq, m);
	return true;
}

static void start_verb(struct kernel *k, struct request *rq)
{
	struct errmsg em = { "" };
	struct resident *r = NULL;
	struct origin from;
	struct program *p;
	int rc = program_starter(k, rq->args, &from, &r, &em);

	if (rc < 0) {
		request_fail(rq, rc, "%s", em.text);
		return;
	}
	if (tos_get_bool(rq->args, "stay", false) && start_again(k, &from, rq))
		return;
	p = program_new(k);
	p->starter = rq;
	p->asked_us = clock_us();
	p->stays = tos_get_bool(rq->args, "stay", false);
	p->dry = tos_get_bool(rq->args, "dry", false);
	snprintf(p->carrier, sizeof(p->carrier), "%s", from.name);
	snprintf(p->owner, sizeof(p->owner), "%s", from.principal);
	snprintf(p->name, sizeof(p->name), "%s", tos_get_text(rq->args, "name", ""));
	snprintf(p->note, sizeof(p->note), "%s", tos_get_text(rq->args, "note", ""));
	snprintf(p->shown, sizeof(p->shown), "%.500s", tos_get_text(rq->args, "program", ""));
	request_digest(rq->args, p->request);
	if (p->stays && !p->name[0])
		rc = err_set(&em, ERR_USAGE, "a program that stays has a name");
	if (rc == 0)
		rc = program_ask(p, &from, rq->args, &em);
	if (rc == 0)
		rc = room_check(k, r, p->stays, &em);
	if (rc < 0)
		start_failed(p, rc, err_show(rc, &em));
	else
		program_look(p, looked);
}

/* ---- the other verbs */

/* The program of that handle, if it is this carrier's: its own, or one of its owner's that stays.
 * Who guesses learns nothing. */
static struct program *own(struct kernel *k, struct request *rq)
{
	struct program *p = by_handle(k, tos_get_text(rq->args, "handle", ""));
	const char *carrier = tos_get_text(rq->args, "for", "");
	struct resident *r = resident_find(k, carrier);

	if (p && *carrier &&
		(strcmp(p->carrier, carrier) == 0 ||
			(p->stays && r && strcmp(r->owner->name, p->owner) == 0)))
		return p;
	if (p) {
		metric_add(k->metrics, "programs_refused_total", NULL, 1);
		audit(p, "program-refused", ERR_NOT_FOUND, "a handle of another carrier");
	}
	request_fail(rq, ERR_NOT_FOUND, "%s has no program of that handle here",
		*carrier ? carrier : "nobody");
	return NULL;
}

static void status_verb(struct kernel *k, struct request *rq)
{
	struct program *p = own(k, rq);

	if (p)
		request_ok(rq, row(p, true));
}

static void list_verb(struct kernel *k, struct request *rq)
{
	const char *carrier = tos_get_text(rq->args, "for", "");
	struct resident *r = resident_find(k, carrier);
	struct tos_value *m = tos_map(), *list = tos_array();
	struct program *p;
	size_t it = 0;

	while (r && (p = map_next(k->programs, &it, NULL, NULL)))
		if (strcmp(p->carrier, carrier) == 0 ||
			(p->stays && strcmp(p->owner, r->owner->name) == 0))
			tos_push(list, row(p, true));
	tos_set(m, "programs", list);
	request_ok(rq, m);
}

static const struct {
	const char *word;
	int number;
} signals[] = { { "TERM", SIGTERM }, { "KILL", SIGKILL }, { "INT", SIGINT }, { "HUP", SIGHUP },
	{ "QUIT", SIGQUIT }, { "USR1", SIGUSR1 }, { "USR2", SIGUSR2 }, { "WINCH", SIGWINCH },
	{ "CONT", SIGCONT }, { "TSTP", SIGTSTP } };

static void signal_verb(struct kernel *k, struct request *rq)
{
	const char *word = tos_get_text(rq->args, "signal", "TERM");
	int64_t kill_ms = tos_get_int(rq->args, "kill_ms", 0);
	struct program *p = own(k, rq);
	size_t i = 0;

	if (!p)
		return;
	while (i < ARRAY_LEN(signals) && strcmp(signals[i].word, word) != 0)
		i++;
	if (i == ARRAY_LEN(signals) || kill_ms < 0 || kill_ms > KILL_MOST_MS) {
		request_fail(rq, ERR_USAGE,
			i < ARRAY_LEN(signals)
				? "kill_ms is a number of milliseconds, of a day at most"
				: "a signal is TERM, KILL, INT, HUP, QUIT, USR1, USR2, WINCH, TSTP or CONT");
		return;
	}
	if (p->state == PROGRAM_ENDED) {
		request_fail(rq, ERR_STATE, "the program has ended");
		return;
	}
	if (signals[i].number == SIGKILL)
		kill_now(p, NULL);
	else
		child_signal_program(k, p, signals[i].number);
	if (kill_ms)
		p->kill_at_ms = clock_ms() + kill_ms;
	request_ok(rq, NULL);
}

void programs_stop(struct kernel *k, struct request *rq, const char *which, const char *owner)
{
	struct program *p = by_people(k, which, owner);

	if (!p) {
		request_fail(rq, ERR_NOT_FOUND, "no program of that number or name runs here");
		return;
	}
	child_signal_program(k, p, SIGTERM);
	p->kill_at_ms = clock_ms() + STOP_MS;
	request_ok(rq, row(p, false));
}

static void write_verb(struct kernel *k, struct request *rq)
{
	struct program *p = own(k, rq);
	size_t n;
	const uint8_t *data;
	int rc;

	if (!p)
		return;
	data = tos_get_bytes(rq->args, "data", &n);
	rc = pipes_write(p, data, n, tos_get_bool(rq->args, "close", false));
	if (rc == 0)
		request_ok(rq, NULL);
	else
		request_fail(rq, rc, "%s",
			rc == ERR_FULL ? "the program has not read what was written before"
				       : "the program's stdin is closed");
}

static void forget_verb(struct kernel *k, struct request *rq)
{
	struct program *p = by_handle(k, tos_get_text(rq->args, "handle", ""));

	if (p && p->state == PROGRAM_ENDED)
		program_free(p);
	request_ok(rq, NULL);
}

const struct verb programs_verbs[] = {
	{ "START", start_verb },
	{ "READ", read_verb },
	{ "STATUS", status_verb },
	{ "LIST", list_verb },
	{ "SIGNAL", signal_verb },
	{ "WRITE", write_verb },
	{ "FORGET", forget_verb },
	{ "ACTION", action_verb },
	{ NULL, NULL },
};
