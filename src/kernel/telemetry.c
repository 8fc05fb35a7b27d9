/*
 * What the kernel tells of itself: audit records, metrics, properties, and the recent log.
 */
#include "kernel/services/journal.h"
#include "kernel/settings.h"
#include "kernel/kernel.h"

#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "kernel/carrier/account.h"
#include "kernel/carrier/resident.h"
#include "kernel/trust/trust.h"

#define LOG_RING_LINES 2000
#define REFUSALS_PER_S 10 /* rows of the audit that one kernel can cause by what it sends */

#define LATE_MS  15 /* whoever waits has been served; one that goes to and fro is back */
#define LAZY_MAX 1000

/* ---- audit */

struct tos_value *audit_carrier(const struct resident *r, uint64_t n)
{
	struct tos_value *m = tos_map();

	tos_set(m, "carrier", tos_text(r->name));
	tos_set(m, "id", tos_bytes(r->id, DIGEST_BYTES));
	tos_set(m, "e", tos_int((int64_t)r->e.count));
	tos_set(m, "n", tos_int((int64_t)n));
	return m;
}

void audit_event(struct kernel *k, struct store_txn *t, const char *event, struct tos_value *m)
{
	struct store_txn *own = t ? NULL : store_begin(k->store);
	uint8_t *bytes = NULL;
	size_t n;

	tos_set(m, "event", tos_text(event));
	if (tos_encode(m, &bytes, &n) == 0)
		store_audit(t ? t : own, bytes, n);
	free(bytes);
	tos_value_free(m);
	if (own)
		store_commit(own, NULL, NULL);
	metric_add(k->metrics, "audit_records_total", NULL, 1);
}

void audit_refusal(struct kernel *k, struct store_txn *t, const char *kernel, const char *event,
	struct tos_value *m)
{
	struct peer *p = kernel[0] ? map_find_str(k->peers, kernel) : NULL;
	struct log_rate *rate = p ? &p->rate_refused : &k->rate_denied;

	if (!log_rate_ok(rate, REFUSALS_PER_S)) {
		metric_add(k->metrics, "audit_rows_dropped_total", NULL, 1);
		tos_value_free(m);
		return;
	}
	if (rate->dropped && p) {
		tos_set(m, "dropped_before", tos_int(rate->dropped));
		rate->dropped = 0;
	}
	audit_event(k, t, event, m);
}

void audit_refused(
	struct kernel *k, const struct request *rq, const char *event, struct tos_value *m)
{
	if (rq->from.kernel[0])
		audit_refusal(k, NULL, rq->from.kernel, event, m);
	else
		audit_event(k, NULL, event, m);
}

bool refusal_may_be_kept(struct kernel *k, const char *kernel)
{
	struct peer *p = kernel[0] ? map_find_str(k->peers, kernel) : NULL;

	return !p || log_rate_ok(&p->rate_answers, REFUSALS_PER_S * 5);
}

/* Of what is in memory only (--fast): the record follows within a tick, many in one transaction. */
struct store_txn *kernel_lazy(struct kernel *k)
{
	if (k->lazy && ++k->n_lazy >= LAZY_MAX)
		lazy_flush(k);
	if (!k->lazy)
		k->lazy = store_begin(k->store);
	return k->lazy;
}

void lazy_flush(struct kernel *k)
{
	struct store_txn *t = k->lazy;

	k->lazy = NULL;
	k->n_lazy = 0;
	if (t)
		store_commit(t, NULL, NULL);
}

void late_flush(struct kernel *k)
{
	lazy_flush(k);
	store_nudge(k->store);
}

static void on_late(uv_timer_t *t)
{
	struct kernel *k = t->data;

	store_nudge(k->store);
}

void late_soon(struct kernel *k)
{
	if (!uv_is_active((uv_handle_t *)&k->late_timer) && !k->stopping)
		uv_timer_start(&k->late_timer, on_late, LATE_MS, 0);
}

bool admission_closed(const struct kernel *k, struct errmsg *em)
{
	struct store_stats st;

	store_stats(k->store, &st);
	if (st.failed)
		err_set(em, ERR_STORE,
			"%s admits nothing while its store cannot be written: %s",
			k->config.name, st.failure);
	return st.failed;
}

/* Nothing may be left to write here once nobody is admitted: whether there is room again is tried. */
void admission_tick(struct kernel *k)
{
	struct store_stats st;
	struct store_txn *t;
	int64_t now = clock_wall_ms();

	store_stats(k->store, &st);
	if (!st.failed || st.queued > 0)
		return;
	t = store_begin(k->store);
	store_put(t, T_META, "probe", 5, &now, sizeof(now), 0);
	store_commit(t, NULL, NULL);
}

/* ---- metrics */

static const struct {
	const char *name, *type, *help;
} metric_list[] = {
	{ "posts_total", "counter", "Posts that passed the router." },
	{ "programs_running", "gauge", "Programs that run here now." },
	{ "programs_started_total", "counter", "Programs that were started." },
	{ "programs_refused_total", "counter",
		"Programs that were not started, and handles refused." },
	{ "programs_first_output_total", "counter", "Programs that wrote something." },
	{ "programs_first_output_us_total", "counter",
		"From asking for a program until its first output, summed." },
	{ "programs_ended_total", "counter", "Programs that ended, by cause." },
	{ "programs_kept_total", "counter",
		"Programs that outlived a kernel before this one." },
	{ "actions_running", "gauge",
		"Named actions that tosd was asked for and that have not ended." },
	{ "actions_total", "counter", "Named actions that ended, by cause." },
	{ "actions_refused_total", "counter", "Named actions that were not run, by code." },
	{ "posts_failed_total", "counter", "Posts that failed, by code." },
	{ "posts_forwarded_total", "counter", "Posts delivered to carriers at other kernels." },
	{ "denied_total", "counter", "Requests that the firewall denied." },
	{ "answers_unexpected_total", "counter", "Answers that nobody waited for." },
	{ "answers_lost_total", "counter", "Answers whose receiver was gone." },
	{ "answers_repeated_total", "counter", "Hand-off answers repeated from the journal." },
	{ "vouches_refused_total", "counter",
		"Vouchings for carriers and clients that did not hold." },
	{ "introductions_total", "counter", "Clients that showed whose they are." },
	{ "introductions_forgotten_total", "counter",
		"Clients of other kernels of whom nothing was heard for longest, to make room for others." },
	{ "introductions_refused_total", "counter",
		"Introductions of clients that did not hold." },
	{ "vms_started_total", "counter", "Processes started for carriers." },
	{ "carriers_charged_us_total", "counter",
		"microseconds of the kernel's CPU time charged to the carriers that it worked for" },
	{ "vms_spare_used_total", "counter",
		"Of them, those that were ready before their carrier." },
	{ "vms_shared_total", "counter",
		"Carriers that came into a process that was there for their like." },
	{ "vms_hung_total", "counter",
		"Such processes ended because they could not stop a carrier." },
	{ "carriers_restarted_total", "counter",
		"Carriers begun again because their process ended, not by their fault." },
	{ "vms_start_us_total", "counter",
		"Microseconds from asking for such a process until it was ready, in sum." },
	{ "vm_frames_refused_total", "counter",
		"Frames of tos-vm processes that broke the protocol." },
	{ "seccomp_kills_total", "counter", "Processes ended for a forbidden system call." },
	{ "carrier_states_total", "counter", "Changes of carriers into each state." },
	{ "carriers", "gauge", "Carriers here, by state." },
	{ "carriers_in_doubt", "gauge", "Departures whose destination has not answered." },
	{ "carriers_ended_total", "counter", "Carriers killed, superseded or lost here." },
	{ "carrier_log_lines_dropped_total", "counter",
		"Log lines of carriers over the rate." },
	{ "residents_unloadable_total", "counter",
		"Rows of the store that could not be loaded." },
	{ "faults_total", "counter", "Carriers that faulted here." },
	{ "limits_exceeded_total", "counter", "Limits reached, by limit." },
	{ "moves_total", "counter", "Carriers that moved on from here." },
	{ "moves_failed_total", "counter", "Moves that did not come about, by code." },
	{ "moves_in_doubt_total", "counter", "Moves that became in doubt." },
	{ "home_reports_ignored_total", "counter",
		"Reports of carriers by kernels that do not hold them." },
	{ "home_forks_total", "counter",
		"Second copies of carriers, departed from where they were not." },
	{ "audit_rewritten_total", "counter",
		"Times that a peer's audit log was not what it had been." },
	{ "audit_rows_dropped_total", "counter",
		"Audit records of refusals beyond the rate that one peer may cause." },
	{ "offers_refused_total", "counter", "Offers of carriers refused." },
	{ "arrivals_total", "counter", "Carriers accepted." },
	{ "arrivals_unconfirmed_total", "counter",
		"Carriers accepted though their home could not be asked (policy.confirm)." },
	{ "arrivals_refused_total", "counter", "Carriers refused after they were sent." },
	{ "seals_broken_total", "counter",
		"Arrivals refused because a protected folder was changed." },
	{ "launches_total", "counter", "Carriers launched here." },
	{ "launches_refused_total", "counter", "Launches refused." },
	{ "outcomes_total", "counter", "Carriers launched here that have ended." },
	{ "acts_total", "counter", "Signed acts carried out." },
	{ "acts_refused_total", "counter", "Signed acts refused." },
	{ "audit_records_total", "counter", "Audit records written." },
	{ "watch_events_lost_total", "counter", "Events that a watching client did not get." },
	{ "chunks_refused_total", "counter",
		"Contents that were not staged for want of room." },
	{ "extension_connects_total", "counter", "Connections made for isolated extensions." },
	{ "extension_connects_refused_total", "counter",
		"Of them, those refused: no such place, or a private address." },
	{ "extension_audits_total", "counter", "Audit records that extensions asked for." },
	{ "content_bytes", "gauge", "Bytes of the content store." },
	{ "content_files", "gauge", "Files in it." },
	{ "content_added_total", "counter", "Files that came into the content store." },
	{ "content_evicted_total", "counter", "Files dropped to make room for others." },
	{ "content_share_refused_total", "counter",
		"Puts, fetches and pins refused for a principal's share of the content store." },
	{ "content_mismatches_total", "counter",
		"Contents that were not what their digest said." },
	{ "content_written_bytes_total", "counter", "Bytes that came into the content store." },
	{ "content_read_bytes_total", "counter", "Bytes read from it by GET." },
	{ "content_denied_total", "counter", "Requests to inbox Content that were denied." },
	{ "content_fetches_total", "counter", "Contents fetched from other kernels." },
	{ "content_fetches_failed_total", "counter", "Fetches that failed." },
	{ "admitted", "gauge", "Digests admitted, or withdrawn." },
	{ "admit_refused_total", "counter", "Admissions that were refused." },
	{ "extension_events_total", "counter",
		"Counters of extensions, by extension and name." },
	{ "extension_restarts_total", "counter",
		"Isolated extensions that died, by extension." },
	{ "links", "gauge", "Open connections, by kind." },
	{ "link_accepted_total", "counter", "Connections accepted." },
	{ "link_dialled_total", "counter", "Connections dialled." },
	{ "link_failed_total", "counter", "Dials that failed." },
	{ "link_malformed_total", "counter", "Connections closed for breaking the format." },
	{ "link_refused_total", "counter", "Connections refused." },
	{ "calls_lost_total", "counter",
		"Calls given up because the link to the kernel asked was lost." },
	{ "link_silent_total", "counter", "Links closed because the peer fell silent." },
	{ "link_frames_total", "counter",
		"Frames over connections that came up, by direction and kind." },
	{ "link_pings_total", "counter",
		"Of them, those that only ask whether the other end is there, and the answers." },
	{ "link_bytes_total", "counter", "Bytes of all that, as sent, by direction and kind." },
	{ "store_commits_total", "counter", "Transactions made durable." },
	{ "store_failures_total", "counter", "Transactions that failed." },
	{ "store_queued", "gauge", "Transactions that wait for the disk." },
	{ "store_bytes", "gauge", "Size of the store." },
	{ "accounts_disk_bytes", "gauge", "Bytes of the store that count against principals." },
	{ "sandbox_layer", "gauge", "1 where a layer of the sandbox is on." },
	{ "renewals_failed_total", "counter",
		"Times that this kernel's certificate could not be renewed." },
	{ "revocation_age_seconds", "gauge",
		"Since the revocation list was confirmed to be the newest." },
	{ "certificate_seconds", "gauge", "Until this kernel's certificate runs out." },
	{ "uptime_seconds", "gauge", "Since this kernel started." },
	{ "boots", "gauge", "How often this kernel has started." },
};

static void flow_set(
	struct kernel *k, const char *metric, const char *kind, uint64_t in, uint64_t out)
{
	char label[64];

	snprintf(label, sizeof(label), "direction=\"in\",kind=\"%s\"", kind);
	metric_set(k->metrics, metric, label, (double)in);
	snprintf(label, sizeof(label), "direction=\"out\",kind=\"%s\"", kind);
	metric_set(k->metrics, metric, label, (double)out);
}

static void collect_links(struct kernel *k)
{
	static const char *const kinds[LINK_KINDS] = { "kernel", "client", "local", "joiner" };
	size_t n[4] = { 0 };
	struct links_stats st;
	struct link *l = NULL;

	while ((l = links_next(k->links, l)))
		n[link_kind(l)]++;
	for (size_t i = 0; i < ARRAY_LEN(kinds); i++) {
		char label[32];

		snprintf(label, sizeof(label), "kind=\"%s\"", kinds[i]);
		metric_set(k->metrics, "links", label, (double)n[i]);
	}
	links_stats(k->links, &st);
	metric_set(k->metrics, "link_accepted_total", NULL, (double)st.accepted);
	metric_set(k->metrics, "link_dialled_total", NULL, (double)st.dialled);
	metric_set(k->metrics, "link_failed_total", NULL, (double)st.failed);
	metric_set(k->metrics, "link_malformed_total", NULL, (double)st.malformed);
	metric_set(k->metrics, "link_refused_total", NULL, (double)st.refused);
	metric_set(k->metrics, "link_silent_total", NULL, (double)st.silent);
	for (size_t i = 0; i < ARRAY_LEN(kinds); i++) {
		const struct links_flow *f = &st.flow[i];

		flow_set(k, "link_frames_total", kinds[i], f->frames_in, f->frames_out);
		flow_set(k, "link_pings_total", kinds[i], f->pings_in, f->pings_out);
		flow_set(k, "link_bytes_total", kinds[i], f->bytes_in, f->bytes_out);
	}
}

void metrics_collect(struct kernel *k)
{
	size_t n[SHELL_STATE_COUNT] = { 0 };
	struct store_stats st;
	struct resident *r;
	size_t it = 0;
	char label[64];

	while ((r = map_next(k->residents, &it, NULL, NULL)))
		n[r->state]++;
	for (int s = 0; s < SHELL_STATE_COUNT; s++) {
		snprintf(label, sizeof(label), "state=\"%s\"",
			shell_state_word((enum shell_state)s));
		if (!shell_ended((enum shell_state)s))
			metric_set(k->metrics, "carriers", label, (double)n[s]);
	}
	store_stats(k->store, &st);
	metric_set(k->metrics, "store_commits_total", NULL, (double)st.commits);
	metric_set(k->metrics, "store_failures_total", NULL, (double)st.failures);
	metric_set(k->metrics, "store_queued", NULL, (double)st.queued);
	metric_set(k->metrics, "store_bytes", NULL, (double)st.bytes);
	metric_set(k->metrics, "accounts_disk_bytes", NULL, (double)accounts_disk(k));
	for (uint32_t i = 0; i < k->layers.n; i++) {
		snprintf(label, sizeof(label), "layer=\"%.24s\"", k->layers.layer[i].name);
		metric_set(k->metrics, "sandbox_layer", label,
			strcmp(k->layers.layer[i].state, "on") == 0);
	}
	metric_set(k->metrics, "uptime_seconds", NULL,
		(double)(clock_ms() - k->started_ms) / 1000);
	metric_set(k->metrics, "revocation_age_seconds", NULL, (double)fresh_age_ms(k) / 1000);
	metric_set(k->metrics, "certificate_seconds", NULL,
		(double)(k->signer->info.not_after_ms - clock_wall_ms()) / 1000);
	metric_set(k->metrics, "boots", NULL, (double)k->boot_count);
	journal_metrics(k);
	collect_links(k);
}

/* ---- the recent log */

static void on_log(void *arg, enum log_level level, const char *line)
{
	static const char *const words[] = { "debug", "info", "notice", "warning", "error" };
	struct kernel *k = arg;
	struct tos_value *m = tos_map();

	tos_set(m, "seq", tos_int((int64_t)++k->log_seq));
	tos_set(m, "wall", tos_int(clock_wall_ms()));
	tos_set(m, "level", tos_text(words[level]));
	tos_set(m, "kernel", tos_text(k->config.name));
	if (tos_set(m, "text", tos_text(line)) < 0)
		tos_set(m, "text", tos_text("(not UTF-8)"));
	if (tos_len(k->log_ring) >= LOG_RING_LINES)
		tos_value_free(tos_take_at(k->log_ring, 0));
	tos_push(k->log_ring, m);
}

/* Whether the line is about this carrier: its name as a whole word. */
static bool about(const char *line, const char *name)
{
	size_t n = strlen(name);

	for (const char *p = line; (p = strstr(p, name)); p += n)
		if ((p[n] == ' ' || p[n] == 0 || p[n] == '"') && p > line &&
			(p[-1] == '=' || p[-1] == '"'))
			return true;
	return false;
}

struct tos_value *log_lines(
	struct kernel *k, const char *name, uint64_t after, size_t most, uint64_t *next)
{
	struct tos_value *out = tos_array();
	size_t n = tos_len(k->log_ring), bytes = 0;

	*next = k->log_seq;
	for (size_t i = 0; i < n && tos_len(out) < most && bytes < (512 << 10); i++) {
		const struct tos_value *line = tos_at(k->log_ring, i);
		const char *text = tos_get_text(line, "text", "");

		if ((uint64_t)tos_get_int(line, "seq", 0) <= after ||
			(name[0] && !about(text, name)))
			continue;
		bytes += strlen(text) + 64;
		tos_push(out, tos_value_copy(line));
		*next = (uint64_t)tos_get_int(line, "seq", 0);
	}
	return out;
}

/* ---- properties */

struct property_of {
	struct kernel *k;
	char text[TOSD_PATH_BYTES];
};

static struct tos_value *read_text(void *arg)
{
	return tos_text(((struct property_of *)arg)->text);
}

static struct tos_value *read_carriers(void *arg)
{
	return tos_int((int64_t)map_size(((struct property_of *)arg)->k->residents));
}

/* Properties live as long as the kernel: their arguments are kept until the process ends. */
static int add_text(struct kernel *k, const char *path, const char *doc, const char *value,
	struct errmsg *em)
{
	struct property_of *p = mem_new(struct property_of);

	p->k = k;
	snprintf(p->text, sizeof(p->text), "%s", value);
	return property_add(
		k->properties, path, PROPERTY_TEXT, "", doc, 0, 0, true, read_text, p, em);
}

int properties_init(struct kernel *k, struct errmsg *em)
{
	struct property_of *carriers = mem_new(struct property_of);
	int rc = add_text(k, "/name", "Name of this kernel.", k->config.name, em);

	carriers->k = k;
	if (rc == 0)
		rc = add_text(k, "/version", "Version of the program.", TOS_VERSION, em);
	if (rc == 0)
		rc = add_text(k, "/address", "Where other kernels dial this one.",
			k->config.advertise, em);
	if (rc == 0)
		rc = add_text(k, "/trust",
			"Its trust domain: system, as its extensions; carriers and clients are user.",
			TRUST_SYSTEM, em);
	if (rc == 0)
		rc = add_text(k, "/registrar", "The kernel whose Directory is asked for names.",
			k->config.registrar, em);
	if (rc == 0)
		rc = property_add(k->properties, "/carriers/here", PROPERTY_INT, "",
			"Carriers here.", 0, 0, true, read_carriers, carriers, em);
	if (rc == 0)
		rc = settings_properties(k, em);
	return rc;
}

int telemetry_init(struct kernel *k, struct errmsg *em)
{
	k->metrics = metrics_new();
	k->properties = properties_new();
	k->log_ring = tos_array();
	for (size_t i = 0; i < ARRAY_LEN(metric_list); i++)
		metric_describe(k->metrics, metric_list[i].name, metric_list[i].type,
			metric_list[i].help);
	log_tap(on_log, k);
	return properties_init(k, em);
}
