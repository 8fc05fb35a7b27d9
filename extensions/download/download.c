/*
 * Download: files named by URLs, into the content store of its kernel. Isolated: it has no network
 * of its own; the kernel connects for it to the places that the configuration names, and hands the
 * socket over (tos_connect). What it takes from there must have the digest that was asked for.
 *
 * One job for each digest, whoever asks; asks that come later join it. A job looks into the store,
 * then asks the kernels named (peers, via), then the URL. What comes goes to the store in pieces,
 * a few of them under way; a cut connection is gone on with where it was (Range), also by the
 * next life of this process, since the store keeps what it has.
 *
 * Admission: only what this process itself took over http from places that say admit, in this
 * life, or what a kernel whose place says so has admitted.
 */
#include <tos/extension.h>

#include <curl/curl.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "url.h"

#define JOBS_MAX      64
#define ACTIVE_MAX    8
#define WAITERS_MAX   1024
#define PIECE_BYTES   ((size_t)256 << 10)
#define PUTS_MAX      4
#define TRIES_MAX     5
#define RETRY_MS      200u
#define REDIRECTS_MAX 5
#define PEERS_MAX     16
#define PROGRESS_MS   500
#define PUT_MS        30000
#define TREE_CHILDREN 2
#define USER_AGENT    "TOS-Download"

/* Numbers of enum err, doc/errors.md. */
enum {
	DENIED = -2,
	FULL = -3,
	UNREACHABLE = -4,
	TOO_LARGE = -6,
	MALFORMED = -8,
	NO_MEMORY = -10,
	NOT_FOUND = -14,
	EXISTS = -13,
	UNTRUSTED = -16,
	TIMED_OUT = -21,
	IO = -23,
	REFUSED = -30,
	CLOSED = -33,
	BAD_DIGEST = -39
};

/* ---- what was asked for */

struct ask {
	uint64_t token;
	char sender[160], owner[80], progress[200];
	int64_t deadline_ms;
	struct url url;
	bool admit, place_admits;
	uint8_t digest[32];
	char name[129], kind[16], version[64], machine[32];
	int64_t size, max;
	char peers[PEERS_MAX][64];
	size_t n_peers;
	struct tos_value *via; /* kernels in the order of the tree, or NULL */
};

struct waiter {
	struct waiter *next;
	struct ask ask;
};

enum action { GO_ON, REDIRECT, RESTART, RETRY, FAIL };

struct job {
	struct job *next;
	struct tos_ext *x;
	uint64_t number;
	struct ask ask; /* the first's; url changes with redirects */
	struct url url;
	struct waiter *waiters, *later; /* later: must wait until this job is over */
	size_t n_waiters;
	bool active, over, verify_only, begun;
	/* the transfer */
	CURL *easy;
	struct curl_slist *resolve;
	int fd;
	char location[1024];
	int64_t range_start, length; /* of the present answer; -1: none seen */
	long code;
	enum action action;
	int rc;
	char why[400];
	unsigned tries, redirects;
	bool admits, no_range, paused, received;
	int64_t total; /* of the whole file; -1: not known */
	int64_t sent;  /* bytes given to the store, or to the digest */
	uint8_t *buf;
	size_t n_buf, n_puts;
	bool last_put, stored;
	EVP_MD_CTX *digest;
	struct tos_timer *retry, *deadline;
	int64_t told_ms;
	const char *from; /* for the answer */
	char from_text[1100];
};

struct state {
	CURLM *multi;
	struct tos_timer *timer;
	struct job *jobs;
	size_t n_jobs, n_active;
	uint64_t next_number;
};

static struct state *state_of(struct tos_ext *x)
{
	return tos_data(x);
}

static void hex_of(const uint8_t digest[32], char out[65])
{
	for (int i = 0; i < 32; i++)
		snprintf(out + 2 * i, 3, "%02x", digest[i]);
}

static int64_t most_bytes(struct tos_ext *x)
{
	const char *p = tos_property(x, "max_bytes");

	return p ? strtoll(p, NULL, 10) : 0;
}

static struct job *job_by_number(struct tos_ext *x, uint64_t number)
{
	struct job *j = state_of(x)->jobs;

	while (j && j->number != number)
		j = j->next;
	return j && !j->over ? j : NULL;
}

static struct job *job_of(struct tos_ext *x, const uint8_t digest[32])
{
	struct job *j = state_of(x)->jobs;

	while (j && (j->over || memcmp(j->ask.digest, digest, 32) != 0))
		j = j->next;
	return j;
}

/* ---- telling */

static void refusal(
	struct tos_ext *x, const struct ask *a, const char *url, int rc, const char *text)
{
	struct tos_value *m = tos_map();

	tos_count(x, rc == DENIED ? "refused" : "failed", 1);
	tos_set(m, "url", tos_text(url));
	tos_set(m, "who", tos_text(a->sender));
	tos_set(m, "owner", tos_text(a->owner));
	tos_set(m, "code", tos_int(rc));
	tos_set(m, "text", tos_text(text));
	tos_audit(x, rc == DENIED ? "download-refused" : "download-failed", m);
}

static void progress_to(
	struct job *j, struct waiter *w, const char *what, int rc, const char *text)
{
	struct tos_value *m, *e;
	char hex[65];

	if (!w->ask.progress[0])
		return;
	hex_of(j->ask.digest, hex);
	m = tos_map();
	tos_set(m, "state", tos_text(what));
	tos_set(m, "url", tos_text(j->url.text));
	tos_set(m, "sha256", tos_text(hex));
	tos_set(m, "bytes", tos_int(j->sent + (int64_t)j->n_buf));
	if (j->total >= 0)
		tos_set(m, "size", tos_int(j->total));
	if (rc)
		tos_set(m, "code", tos_int(rc));
	if (text && *text)
		tos_set(m, "text", tos_text(text));
	e = tos_array();
	tos_push(e, m);
	tos_post(j->x, w->ask.progress, "progress", e);
}

static void progress(struct job *j, const char *what, const char *text)
{
	j->told_ms = tos_now_ms(j->x);
	for (struct waiter *w = j->waiters; w; w = w->next)
		progress_to(j, w, what, 0, text);
}

/* ---- the end of a job */

static void ask_do(struct tos_ext *x, struct ask *a);
static void jobs_start(struct tos_ext *x);

static void transfer_drop(struct job *j)
{
	if (j->easy) {
		curl_multi_remove_handle(state_of(j->x)->multi, j->easy);
		curl_easy_cleanup(j->easy);
		j->easy = NULL;
	}
	if (j->fd >= 0) /* it was not given to libcurl */
		close(j->fd);
	j->fd = -1;
	curl_slist_free_all(j->resolve);
	j->resolve = NULL;
	j->paused = false;
}

static void waiter_free(struct waiter *w)
{
	tos_value_free(w->ask.via);
	free(w);
}

static void job_unlink(struct job *j)
{
	struct job **at = &state_of(j->x)->jobs;

	while (*at != j)
		at = &(*at)->next;
	*at = j->next;
	state_of(j->x)->n_jobs--;
	if (j->active)
		state_of(j->x)->n_active--;
}

static void waiter_answer(struct job *j, struct waiter *w, bool admitted)
{
	struct tos_value *m = tos_map(), *e = tos_array();
	char hex[65];

	hex_of(j->ask.digest, hex);
	tos_set(m, "sha256", tos_text(hex));
	tos_set(m, "digest", tos_bytes(j->ask.digest, 32));
	tos_set(m, "from", tos_text(j->from ? j->from : ""));
	if (j->total >= 0)
		tos_set(m, "size", tos_int(j->total));
	tos_set(m, "admitted", tos_bool(admitted));
	tos_push(e, m);
	if (w->ask.token)
		tos_reply(j->x, w->ask.token, "ok", e);
	else
		tos_value_free(e);
}

static struct tos_value *digest_args(const struct job *j)
{
	struct tos_value *m = tos_map();

	tos_set(m, "digest", tos_bytes(j->ask.digest, 32));
	return m;
}

static struct tos_value *one_element(struct tos_value *v)
{
	struct tos_value *e = tos_array();

	tos_push(e, v);
	return e;
}

/* Not from within a callback of libcurl. j is gone. */
static void job_end(struct job *j, int rc, const char *text, bool admitted)
{
	struct tos_ext *x = j->x;
	struct waiter *w, *later = j->later;
	char hex[65];

	j->over = true;
	transfer_drop(j);
	if (j->retry)
		tos_timer_stop(x, j->retry);
	if (j->deadline)
		tos_timer_stop(x, j->deadline);
	hex_of(j->ask.digest, hex);
	/* What came is kept where another try may go on with it. */
	if (rc < 0 && rc != CLOSED && rc != UNREACHABLE && rc != TIMED_OUT && !j->verify_only &&
		j->sent > 0)
		tos_post(x, "Content", "CANCEL", one_element(digest_args(j)));
	if (rc < 0) {
		refusal(x, &j->ask, j->url.text, rc, text);
	} else {
		tos_count(x, "files", 1);
		tos_log(x, 1, hex);
	}
	while ((w = j->waiters)) {
		j->waiters = w->next;
		progress_to(j, w, rc < 0 ? "failed" : "done", rc, text);
		if (rc == 0)
			waiter_answer(j, w, admitted);
		else if (w->ask.token)
			tos_fail(x, w->ask.token, rc, text);
		waiter_free(w);
	}
	job_unlink(j);
	EVP_MD_CTX_free(j->digest);
	tos_value_free(j->ask.via);
	free(j->buf);
	free(j);
	while ((w = later)) {
		later = w->next;
		ask_do(x, &w->ask);
		free(w);
	}
	jobs_start(x);
}

static void job_fail(struct job *j, int rc, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
static void job_fail(struct job *j, int rc, const char *fmt, ...)
{
	char text[600];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	job_end(j, rc, text, false);
}

/* ---- asking the store */

struct later {
	uint64_t number;
	size_t n; /* bytes, or which peer */
	int64_t at;
};

static struct later *later_new(const struct job *j)
{
	struct later *l = calloc(1, sizeof(*l));

	if (l)
		l->number = j->number;
	return l;
}

/* A call about this job; takes args and l. */
static bool job_call(struct job *j, const char *dest, const char *verb, struct tos_value *args,
	uint32_t timeout_ms, tos_answer_fn *done, struct later *l)
{
	struct tos_value *e = tos_array();

	tos_push(e, args);
	if (l && tos_call(j->x, dest, verb, e, timeout_ms, done, l) == 0)
		return true;
	if (!l)
		tos_value_free(e);
	free(l);
	return false;
}

#define NO_CALLS "the kernel takes no calls"

static uint32_t left_ms(const struct job *j)
{
	int64_t left = 0, now = tos_now_ms(j->x);

	for (const struct waiter *w = j->waiters; w; w = w->next)
		if (w->ask.deadline_ms - now > left)
			left = w->ask.deadline_ms - now;
	return left > 0 ? (uint32_t)left : 1;
}

/* ---- admission */

static void on_admit(struct tos_ext *x, void *arg, int rc, const char *text, const char *folder,
	const struct tos_value *elements)
{
	struct later *l = arg;
	struct job *j = job_by_number(x, l->number);

	(void)folder;
	(void)elements;
	free(l);
	if (!j)
		return;
	if (rc < 0)
		job_fail(j, rc, "it is here, but was not admitted: %s", text);
	else
		job_end(j, 0, "", true);
}

static void admit(struct job *j, const struct tos_value *as)
{
	struct tos_value *m = digest_args(j);

	tos_set(m, "kind", tos_text(tos_get_text(as, "kind", j->ask.kind)));
	tos_set(m, "name", tos_text(tos_get_text(as, "name", j->ask.name)));
	tos_set(m, "version", tos_text(tos_get_text(as, "version", j->ask.version)));
	tos_set(m, "machine", tos_text(tos_get_text(as, "machine", j->ask.machine)));
	if (!job_call(j, "Content", "ADMIT", m, 10000, on_admit, later_new(j)))
		job_fail(j, IO, NO_CALLS);
}

/* All of it came over http. */
static void job_stored(struct job *j)
{
	j->from = j->url.text;
	if (j->ask.admit)
		admit(j, NULL);
	else
		job_end(j, 0, "", false);
}

/* ---- pieces into the store */

static void transfer_begin(struct job *j);
static void job_retry(struct job *j, int rc, const char *text);
static void from_url(struct job *j);

static void on_put(struct tos_ext *x, void *arg, int rc, const char *text, const char *folder,
	const struct tos_value *elements)
{
	struct later *l = arg;
	struct job *j = job_by_number(x, l->number);
	const struct tos_value *m = tos_at(elements, 0);
	int64_t have = tos_get_int(m, "have", -1), want = l->at + (int64_t)l->n;
	bool done = tos_get_bool(m, "done", false);

	(void)folder;
	free(l);
	if (!j)
		return;
	j->n_puts--;
	if (rc < 0) {
		job_fail(j, rc, "%s: %s", j->url.text, text);
		return;
	}
	if (done) {
		j->stored = true;
	} else if (have != want) {
		job_fail(j, IO, "the store lost what it had");
		return;
	}
	if (j->last_put && j->n_puts == 0) {
		if (j->stored)
			job_stored(j);
		else
			job_fail(j, IO, "the store did not take the end");
		return;
	}
	if (j->paused && j->easy) {
		j->paused = false;
		curl_easy_pause(j->easy, CURLPAUSE_CONT);
	}
}

/* Also from within libcurl: no job ends here. */
static bool put_piece(struct job *j, bool last)
{
	struct tos_value *m = digest_args(j);
	struct later *l = later_new(j);

	tos_set(m, "offset", tos_int(j->sent));
	tos_set(m, "bytes", tos_bytes(j->buf, j->n_buf));
	tos_set(m, "source", tos_text(j->url.text));
	tos_set(m, "name", tos_text(j->ask.name));
	if (j->total >= 0)
		tos_set(m, "size", tos_int(j->total));
	tos_set(m, "last", tos_bool(last));
	if (l) {
		l->n = j->n_buf;
		l->at = j->sent;
	}
	j->sent += (int64_t)j->n_buf;
	j->n_buf = 0;
	j->n_puts++;
	j->last_put = last;
	return job_call(j, "Content", "PUT", m, PUT_MS, on_put, l);
}

/* ---- libcurl's callbacks: nothing of libcurl is called from them, and no job ends in them */

static void fail_with(struct job *j, enum action action, int rc, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));
static void fail_with(struct job *j, enum action action, int rc, const char *fmt, ...)
{
	va_list ap;

	j->action = action;
	j->rc = rc;
	va_start(ap, fmt);
	vsnprintf(j->why, sizeof(j->why), fmt, ap);
	va_end(ap);
}

static int64_t bound_of(const struct job *j)
{
	int64_t most = most_bytes(j->x);

	return j->ask.max > 0 && j->ask.max < most ? j->ask.max : most;
}

/* The whole file's size is known: may it be that? */
static bool total_ok(struct job *j)
{
	if (j->ask.size >= 0 && j->total != j->ask.size)
		fail_with(j, FAIL, BAD_DIGEST, "%s has %lld bytes, not %lld", j->url.text,
			(long long)j->total, (long long)j->ask.size);
	else if (j->total > bound_of(j))
		fail_with(j, FAIL, TOO_LARGE, "%s has %lld bytes, at most %lld are taken",
			j->url.text, (long long)j->total, (long long)bound_of(j));
	else
		return true;
	return false;
}

/* The head is complete. False: nothing of the body is wanted. */
static bool head_judge(struct job *j)
{
	int64_t length = j->length;
	int64_t at = j->verify_only ? 0 : j->sent;

	curl_easy_getinfo(j->easy, CURLINFO_RESPONSE_CODE, &j->code);
	if (j->code < 200)
		return true;
	switch (j->code) {
	case 200:
		if (at > 0) {
			fail_with(j, RESTART, 0, "it does not send parts");
			return false;
		}
		if (length >= 0)
			j->total = length;
		return length < 0 || total_ok(j);
	case 206:
		if (at == 0 || j->range_start != at) {
			fail_with(j, RESTART, 0, "it sent another part");
			return false;
		}
		if (length >= 0)
			j->total = at + length;
		return length < 0 || total_ok(j);
	case 301:
	case 302:
	case 303:
	case 307:
	case 308:
		fail_with(j, REDIRECT, 0, "redirect");
		return false;
	case 404:
	case 410:
		fail_with(j, FAIL, NOT_FOUND, "%s: the server says %ld, there is no such file",
			j->url.text, j->code);
		return false;
	case 416:
		fail_with(j, RESTART, 0, "it has no such part");
		return false;
	default:
		fail_with(j, j->code >= 500 || j->code == 429 ? RETRY : FAIL, REFUSED,
			"%s: the server says %ld", j->url.text, j->code);
		return false;
	}
}

/* -1: there is none. */
static int64_t number_at(const char *p, size_t n)
{
	char text[32], *end;
	int64_t v;

	n = n < sizeof(text) - 1 ? n : sizeof(text) - 1;
	memcpy(text, p, n);
	text[n] = 0;
	v = strtoll(text, &end, 10);
	return end == text || v < 0 ? -1 : v;
}

static size_t on_header(char *p, size_t size, size_t n, void *arg)
{
	struct job *j = arg;

	n *= size;
	if (n > 5 && strncasecmp(p, "HTTP/", 5) == 0) { /* an answer begins */
		j->location[0] = 0;
		j->range_start = j->length = -1;
	} else if (n > 15 && strncasecmp(p, "content-length:", 15) == 0) {
		j->length = number_at(p + 15, n - 15);
	} else if (n > 9 && strncasecmp(p, "location:", 9) == 0) {
		size_t skip = 9 + strspn(p + 9, " \t"), len = n > skip ? n - skip : 0;

		while (len && strchr("\r\n \t", p[skip + len - 1]))
			len--;
		if (len < sizeof(j->location)) {
			memcpy(j->location, p + skip, len);
			j->location[len] = 0;
		}
	} else if (n > 20 && strncasecmp(p, "content-range: bytes", 20) == 0) {
		j->range_start = number_at(p + 20, n - 20);
	} else if (n <= 2) {
		return head_judge(j) ? n : 0;
	}
	return n;
}

static size_t on_body(char *p, size_t size, size_t n, void *arg)
{
	struct job *j = arg;

	n *= size;
	if (j->sent + (int64_t)(j->n_buf + n) > bound_of(j)) {
		fail_with(j, FAIL, TOO_LARGE, "%s has more than the %lld bytes that are taken",
			j->url.text, (long long)bound_of(j));
		return 0;
	}
	if (j->n_buf + n > PIECE_BYTES) {
		if (!j->verify_only && j->n_puts >= PUTS_MAX) {
			j->paused = true;
			return CURL_WRITEFUNC_PAUSE;
		}
		if (j->verify_only) {
			j->sent += (int64_t)j->n_buf;
			j->n_buf = 0;
		} else if (!put_piece(j, false)) {
			fail_with(j, FAIL, IO, NO_CALLS);
			return 0;
		}
	}
	memcpy(j->buf + j->n_buf, p, n);
	j->n_buf += n;
	j->received = true;
	if (j->verify_only)
		EVP_DigestUpdate(j->digest, p, n);
	tos_count(j->x, "bytes", n);
	if (tos_now_ms(j->x) - j->told_ms >= PROGRESS_MS)
		progress(j, "receiving", NULL);
	return n;
}

/* The kernel connected it. */
static curl_socket_t on_opensocket(void *arg, curlsocktype purpose, struct curl_sockaddr *a)
{
	struct job *j = arg;
	int fd = j->fd;

	(void)purpose;
	(void)a;
	j->fd = -1;
	return fd < 0 ? CURL_SOCKET_BAD : fd;
}

static int on_sockopt(void *arg, curl_socket_t fd, curlsocktype purpose)
{
	(void)arg;
	(void)fd;
	(void)purpose;
	return CURL_SOCKOPT_ALREADY_CONNECTED;
}

/* ---- one transfer */

static void from_via(struct job *j);

static void transfer_over(struct job *j, CURLcode code);

static void multi_look(struct tos_ext *x)
{
	CURLMsg *m;
	int left;

	while ((m = curl_multi_info_read(state_of(x)->multi, &left))) {
		struct job *j = NULL;

		if (m->msg != CURLMSG_DONE)
			continue;
		curl_easy_getinfo(m->easy_handle, CURLINFO_PRIVATE, &j);
		transfer_over(j, m->data.result);
	}
}

static void on_curl_timer(struct tos_ext *x, void *arg)
{
	int running;

	(void)arg;
	state_of(x)->timer = NULL;
	curl_multi_socket_action(state_of(x)->multi, CURL_SOCKET_TIMEOUT, 0, &running);
	multi_look(x);
}

static int set_timer(CURLM *multi, long ms, void *arg)
{
	struct tos_ext *x = arg;
	struct state *s = state_of(x);

	(void)multi;
	if (s->timer)
		tos_timer_stop(x, s->timer);
	s->timer = ms < 0 ? NULL : tos_timer(x, (uint32_t)ms, on_curl_timer, NULL);
	return 0;
}

static void on_ready(struct tos_ext *x, void *arg, int fd, unsigned events)
{
	int running;

	(void)arg;
	curl_multi_socket_action(state_of(x)->multi, fd,
		(events & TOS_READABLE ? CURL_CSELECT_IN : 0) |
			(events & TOS_WRITABLE ? CURL_CSELECT_OUT : 0),
		&running);
	multi_look(x);
}

static int set_socket(CURL *easy, curl_socket_t fd, int what, void *arg, void *sockp)
{
	unsigned events = (what & CURL_POLL_IN ? TOS_READABLE : 0) |
			  (what & CURL_POLL_OUT ? TOS_WRITABLE : 0);

	(void)easy;
	(void)sockp;
	tos_watch(arg, fd, what == CURL_POLL_REMOVE ? 0 : events, on_ready, NULL);
	return 0;
}

static void transfer_go(struct job *j, const char *address)
{
	struct tos_ext *x = j->x;
	char entry[600], range[40];
	size_t n_ca = 0;
	const void *ca = tos_trusted(x, &n_ca);
	struct curl_blob blob = { (void *)(uintptr_t)ca, n_ca, CURL_BLOB_NOCOPY };
	CURL *c = j->easy = curl_easy_init();

	if (!c) {
		job_fail(j, NO_MEMORY, "no memory");
		return;
	}
	j->location[0] = 0;
	j->range_start = j->length = -1;
	j->code = 0;
	j->action = GO_ON;
	j->why[0] = 0;
	snprintf(entry, sizeof(entry), "%s:%u:%s%s%s", j->url.host, j->url.port,
		strchr(address, ':') ? "[" : "", address, strchr(address, ':') ? "]" : "");
	j->resolve = curl_slist_append(NULL, entry);
	curl_easy_setopt(c, CURLOPT_RESOLVE, j->resolve);
	curl_easy_setopt(c, CURLOPT_URL, j->url.text);
	curl_easy_setopt(c, CURLOPT_PATH_AS_IS, 1L);
	curl_easy_setopt(c, CURLOPT_PROTOCOLS_STR, "http,https");
	curl_easy_setopt(c, CURLOPT_REDIR_PROTOCOLS_STR, "http,https");
	curl_easy_setopt(c, CURLOPT_FOLLOWLOCATION, 0L); /* each is looked at here */
	curl_easy_setopt(c, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
	curl_easy_setopt(c, CURLOPT_PROXY, "");
	curl_easy_setopt(c, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(c, CURLOPT_USERAGENT, USER_AGENT);
	curl_easy_setopt(c, CURLOPT_FORBID_REUSE, 1L);
	curl_easy_setopt(c, CURLOPT_FRESH_CONNECT, 1L);
	curl_easy_setopt(c, CURLOPT_OPENSOCKETFUNCTION, on_opensocket);
	curl_easy_setopt(c, CURLOPT_OPENSOCKETDATA, j);
	curl_easy_setopt(c, CURLOPT_SOCKOPTFUNCTION, on_sockopt);
	curl_easy_setopt(c, CURLOPT_HEADERFUNCTION, on_header);
	curl_easy_setopt(c, CURLOPT_HEADERDATA, j);
	curl_easy_setopt(c, CURLOPT_WRITEFUNCTION, on_body);
	curl_easy_setopt(c, CURLOPT_WRITEDATA, j);
	curl_easy_setopt(c, CURLOPT_PRIVATE, j);
	curl_easy_setopt(c, CURLOPT_LOW_SPEED_LIMIT, 1L);
	curl_easy_setopt(c, CURLOPT_LOW_SPEED_TIME, 30L);
	curl_easy_setopt(c, CURLOPT_CONNECTTIMEOUT_MS, 20000L);
	curl_easy_setopt(c, CURLOPT_CAINFO, NULL);
	curl_easy_setopt(c, CURLOPT_CAPATH, NULL);
	if (ca)
		curl_easy_setopt(c, CURLOPT_CAINFO_BLOB, &blob);
	if (j->sent > 0 && !j->verify_only) {
		snprintf(range, sizeof(range), "%lld-", (long long)j->sent);
		curl_easy_setopt(c, CURLOPT_RANGE, range);
		tos_count(x, "resumed", 1);
	}
	curl_multi_add_handle(state_of(x)->multi, c);
	progress(j, "connecting", NULL);
}

static void on_connected(struct tos_ext *x, void *arg, int rc, const char *text, int fd)
{
	struct later *l = arg;
	struct job *j = job_by_number(x, l->number);

	free(l);
	if (!j) {
		if (fd >= 0)
			close(fd);
		return;
	}
	if (rc == DENIED || rc == FULL) {
		job_fail(j, rc, "%s", text);
	} else if (rc < 0) {
		job_retry(j, rc, text);
	} else {
		j->fd = fd;
		transfer_go(j, text);
	}
}

static void transfer_begin(struct job *j)
{
	struct later *l = later_new(j);
	uint32_t ms = left_ms(j);

	if (!l || tos_connect(j->x, j->url.host, j->url.port, ms < 20000 ? ms : 20000,
			  on_connected, l) < 0) {
		free(l);
		job_fail(j, IO, "no connection can be asked for");
	}
}

static void on_retry(struct tos_ext *x, void *arg)
{
	struct job *j = job_by_number(x, (uint64_t)(uintptr_t)arg);

	if (!j)
		return;
	j->retry = NULL;
	transfer_begin(j);
}

/* Once more from where it is, after a pause; a few times. */
static void job_retry(struct job *j, int rc, const char *text)
{
	transfer_drop(j);
	if (++j->tries >= TRIES_MAX) {
		job_fail(j, rc, "%s", text);
		return;
	}
	if (j->verify_only) { /* that is not kept anywhere */
		j->sent = 0;
		j->n_buf = 0;
		EVP_DigestInit_ex(j->digest, EVP_sha256(), NULL);
	}
	progress(j, "retrying", text);
	tos_count(j->x, "retries", 1);
	j->retry = tos_timer(
		j->x, RETRY_MS << (j->tries - 1), on_retry, (void *)(uintptr_t)j->number);
	if (!j->retry)
		job_fail(j, NO_MEMORY, "no memory");
}

/* May it be taken from there? *admits: for admission too. */
static bool listed(struct tos_ext *x, const struct url *u, bool *admits)
{
	const char *place;
	bool found = false, admit;

	*admits = false;
	for (size_t i = 0; (place = tos_place(x, i)); i++)
		if (url_at(u, place, &admit)) {
			found = true;
			*admits |= admit;
		}
	return found;
}

static void job_redirect(struct job *j)
{
	struct url to;
	bool admits;
	const char *wrong = j->location[0] ? url_resolve(&j->url, j->location, &to)
					   : "it does not say where to";

	transfer_drop(j);
	if (wrong)
		job_fail(j, DENIED, "%s redirects to %.200s: %s", j->url.text, j->location,
			wrong);
	else if (strcmp(to.scheme, "tos") == 0 || !listed(j->x, &to, &admits))
		job_fail(j, DENIED, "%s redirects to %s, which no place lists", j->url.text,
			to.text);
	else if (j->ask.admit && !admits)
		job_fail(j, DENIED, "%s redirects to %s, from where nothing is admitted",
			j->url.text, to.text);
	else if (++j->redirects > REDIRECTS_MAX)
		job_fail(j, REFUSED, "%s: too many redirects", j->ask.url.text);
	else {
		j->url = to;
		tos_count(j->x, "redirects", 1);
		transfer_begin(j);
	}
}

static void on_cancelled(struct tos_ext *x, void *arg, int rc, const char *text,
	const char *folder, const struct tos_value *elements)
{
	struct later *l = arg;
	struct job *j = job_by_number(x, l->number);

	(void)rc;
	(void)text;
	(void)folder;
	(void)elements;
	free(l);
	if (j)
		transfer_begin(j);
}

/* From the first byte: what the store has of it is forgotten. */
static void job_restart(struct job *j)
{
	transfer_drop(j);
	if (++j->tries >= TRIES_MAX) {
		job_fail(j, REFUSED, "%s: %s", j->url.text, j->why);
		return;
	}
	j->sent = 0;
	j->n_buf = 0;
	j->total = -1;
	if (!job_call(
		    j, "Content", "CANCEL", digest_args(j), 10000, on_cancelled, later_new(j)))
		job_fail(j, IO, NO_CALLS);
}

/* The whole file came. */
static void body_over(struct job *j)
{
	uint8_t digest[32];
	int64_t bytes = j->sent + (int64_t)j->n_buf;

	if (j->ask.size >= 0 && bytes != j->ask.size) {
		job_fail(j, BAD_DIGEST, "%s has %lld bytes, not %lld", j->url.text,
			(long long)bytes, (long long)j->ask.size);
		return;
	}
	if (!j->verify_only) {
		transfer_drop(j);
		j->total = bytes;
		if (!put_piece(j, true))
			job_fail(j, IO, NO_CALLS);
		return;
	}
	EVP_DigestFinal_ex(j->digest, digest, NULL);
	if (memcmp(digest, j->ask.digest, 32) == 0)
		job_stored(j);
	else
		job_fail(j, BAD_DIGEST, "%s is not what the digest says", j->url.text);
}

static void transfer_over(struct job *j, CURLcode code)
{
	char text[300];

	switch (j->action) {
	case REDIRECT:
		job_redirect(j);
		return;
	case RESTART:
		job_restart(j);
		return;
	case RETRY:
		snprintf(text, sizeof(text), "%.299s", j->why);
		job_retry(j, j->rc, text);
		return;
	case FAIL:
		job_fail(j, j->rc, "%s", j->why);
		return;
	case GO_ON:
		break;
	}
	if (code == CURLE_OK) {
		body_over(j);
	} else if (code == CURLE_PEER_FAILED_VERIFICATION || code == CURLE_SSL_CACERT_BADFILE) {
		job_fail(j, UNTRUSTED, "%s: %s", j->url.text, curl_easy_strerror(code));
	} else if (code == CURLE_PARTIAL_FILE && j->total >= 0) {
		snprintf(text, sizeof(text), "%.200s: short file, %lld of %lld bytes came",
			j->url.text, (long long)j->sent + (long long)j->n_buf,
			(long long)j->total);
		/* What came is kept. */
		if (j->n_buf && !j->verify_only && !put_piece(j, false))
			job_fail(j, IO, NO_CALLS);
		else
			job_retry(j, CLOSED, text);
	} else {
		snprintf(text, sizeof(text), "%.200s: %s", j->url.text,
			curl_easy_strerror(code));
		if (j->n_buf && !j->verify_only && !put_piece(j, false))
			job_fail(j, IO, NO_CALLS);
		else
			job_retry(j, code == CURLE_OPERATION_TIMEDOUT ? TIMED_OUT : UNREACHABLE,
				text);
	}
}

/* ---- from the URL: what the store has of it first */

static void on_begun(struct tos_ext *x, void *arg, int rc, const char *text, const char *folder,
	const struct tos_value *elements)
{
	struct later *l = arg;
	struct job *j = job_by_number(x, l->number);
	const struct tos_value *m = tos_at(elements, 0);

	(void)folder;
	free(l);
	if (!j)
		return;
	if (rc < 0) {
		job_fail(j, rc, "%s", text);
		return;
	}
	if (tos_get_bool(m, "done", false)) { /* somebody else was faster */
		j->stored = true;
		j->from = "the store";
		if (!j->ask.admit) {
			job_end(j, 0, "", false);
			return;
		}
		j->verify_only = true;
	} else {
		j->sent = tos_get_int(m, "have", 0);
	}
	transfer_begin(j);
}

static void from_url(struct job *j)
{
	struct tos_value *m;

	if (strcmp(j->url.scheme, "tos") == 0) {
		job_fail(j, NOT_FOUND, "%s: %s", j->url.text,
			j->why[0] ? j->why : "it is not there");
		return;
	}
	if (j->verify_only) {
		transfer_begin(j);
		return;
	}
	/* What an earlier life or another job left may be from elsewhere: it does not count where
	 * admission hangs on the place. */
	if (j->ask.admit) {
		job_restart(j);
		return;
	}
	m = digest_args(j);
	tos_set(m, "offset", tos_int(0));
	tos_set(m, "source", tos_text(j->url.text));
	tos_set(m, "name", tos_text(j->ask.name));
	if (j->ask.size >= 0)
		tos_set(m, "size", tos_int(j->ask.size));
	if (!job_call(j, "Content", "PUT", m, PUT_MS, on_begun, later_new(j)))
		job_fail(j, IO, NO_CALLS);
}

/* ---- from other kernels */

/* The kernel that had it has admitted it: if its place says admit, it is here, too. */
static void on_peer_admitted(struct tos_ext *x, void *arg, int rc, const char *text,
	const char *folder, const struct tos_value *elements)
{
	struct later *l = arg;
	struct job *j = job_by_number(x, l->number);

	(void)folder;
	free(l);
	if (!j)
		return;
	if (rc == 0) {
		admit(j, tos_at(elements, 0));
	} else {
		snprintf(
			j->why, sizeof(j->why), "it is here, but not admitted there: %s", text);
		j->verify_only = true;
		from_url(j);
	}
}

static void peer_has_it(struct job *j, const char *kernel)
{
	struct url u = { .scheme = "tos" };
	char dest[80];
	bool admits = false;

	snprintf(u.host, sizeof(u.host), "%s", kernel);
	snprintf(dest, sizeof(dest), "%.63s/Content", kernel);
	snprintf(j->from_text, sizeof(j->from_text), "%s", kernel);
	j->from = j->from_text;
	tos_count(j->x, "from_kernels", 1);
	if (!j->ask.admit) {
		job_end(j, 0, "", false);
	} else if (!kernel[0] || !listed(j->x, &u, &admits) || !admits) {
		/* It is here, but nobody whose word counts says what it is. */
		j->verify_only = true;
		from_url(j);
	} else if (!job_call(j, dest, "ADMITTED", digest_args(j), 10000, on_peer_admitted,
			   later_new(j))) {
		job_fail(j, IO, NO_CALLS);
	}
}

static void on_fetched(struct tos_ext *x, void *arg, int rc, const char *text,
	const char *folder, const struct tos_value *elements)
{
	struct later *l = arg;
	struct job *j = job_by_number(x, l->number);

	(void)folder;
	free(l);
	if (!j)
		return;
	if (rc == 0) {
		j->total = tos_get_int(tos_at(elements, 0), "size", -1);
		peer_has_it(j, tos_get_text(tos_at(elements, 0), "from", ""));
	} else {
		snprintf(j->why, sizeof(j->why), "%s", text);
		from_url(j);
	}
}

static void from_kernels(struct job *j)
{
	struct tos_value *m = digest_args(j), *from = tos_array();
	uint32_t ms = left_ms(j);

	if (strcmp(j->url.scheme, "tos") == 0)
		tos_push(from, tos_text(j->url.host));
	for (size_t i = 0; i < j->ask.n_peers; i++)
		tos_push(from, tos_text(j->ask.peers[i]));
	if (tos_len(from) == 0) {
		tos_value_free(from);
		tos_value_free(m);
		from_url(j);
		return;
	}
	tos_set(m, "from", from);
	tos_set(m, "name", tos_text(j->ask.name));
	/* Where there is a URL, too, kernels get half of the time. */
	if (strcmp(j->url.scheme, "tos") != 0)
		ms /= 2;
	if (!job_call(j, "Content", "FETCH", m, ms, on_fetched, later_new(j)))
		job_fail(j, IO, NO_CALLS);
}

/* The parent has it now, or could not get it. */
static void on_parent(struct tos_ext *x, void *arg, int rc, const char *text,
	const char *folder, const struct tos_value *elements)
{
	struct later *l = arg;
	struct job *j = job_by_number(x, l->number);

	(void)folder;
	(void)elements;
	if (j && rc < 0) {
		char line[300];

		snprintf(line, sizeof(line), "%s could not get it for us: %s", j->ask.peers[0],
			text);
		tos_log(x, 1, line);
		j->ask.n_peers = 0;
	}
	free(l);
	if (j)
		from_kernels(j);
}

/* Our place in the tree of kernels that all want it: the first asks the URL, each other one its
 * parent. */
static void from_via(struct job *j)
{
	const char *me = tos_kernel_name(j->x), *parent = NULL;
	struct tos_value *m;
	char dest[80], hex[65];
	size_t n = tos_len(j->ask.via), i = 0;

	while (i < n && strcmp(tos_as_text(tos_at(j->ask.via, i), ""), me) != 0)
		i++;
	if (i > 0 && n > 0)
		parent = tos_as_text(
			tos_at(j->ask.via, i < n ? (i - 1) / TREE_CHILDREN : 0), NULL);
	if (!parent || strcmp(parent, me) == 0) {
		from_kernels(j);
		return;
	}
	m = tos_map();
	hex_of(j->ask.digest, hex);
	tos_set(m, "url", tos_text(j->ask.url.text));
	tos_set(m, "sha256", tos_text(hex));
	tos_set(m, "name", tos_text(j->ask.name));
	tos_set(m, "kind", tos_text(j->ask.kind));
	tos_set(m, "version", tos_text(j->ask.version));
	tos_set(m, "machine", tos_text(j->ask.machine));
	tos_set(m, "admit", tos_bool(j->ask.admit));
	if (j->ask.size >= 0)
		tos_set(m, "size", tos_int(j->ask.size));
	tos_set(m, "via", tos_value_copy(j->ask.via));
	snprintf(dest, sizeof(dest), "%.63s/Download", parent);
	memmove(j->ask.peers[1], j->ask.peers[0], sizeof(j->ask.peers[0]) * (PEERS_MAX - 1));
	snprintf(j->ask.peers[0], sizeof(j->ask.peers[0]), "%s", parent);
	if (j->ask.n_peers < PEERS_MAX)
		j->ask.n_peers++;
	if (!job_call(j, dest, "GET", m, left_ms(j) / 4 * 3, on_parent, later_new(j)))
		job_fail(j, IO, NO_CALLS);
}

/* ---- a job begins */

static void on_stat(struct tos_ext *x, void *arg, int rc, const char *text, const char *folder,
	const struct tos_value *elements)
{
	struct later *l = arg;
	struct job *j = job_by_number(x, l->number);

	(void)text;
	(void)folder;
	free(l);
	if (!j)
		return;
	if (rc < 0) {
		from_via(j);
		return;
	}
	j->total = tos_get_int(tos_at(elements, 0), "size", -1);
	j->from = "the store";
	if (!j->ask.admit) {
		job_end(j, 0, "", false);
		return;
	}
	/* It may have come here in any way: what the place has is looked at again. */
	j->verify_only = true;
	j->total = -1;
	if (strcmp(j->url.scheme, "tos") == 0)
		peer_has_it(j, j->url.host);
	else
		from_url(j);
}

static void on_admitted(struct tos_ext *x, void *arg, int rc, const char *text,
	const char *folder, const struct tos_value *elements)
{
	struct later *l = arg;
	struct job *j = job_by_number(x, l->number);

	(void)text;
	(void)folder;
	(void)elements;
	free(l);
	if (!j)
		return;
	if (rc == 0) /* before: only the bytes are wanted */
		j->ask.admit = false;
	if (!job_call(j, "Content", "STAT", digest_args(j), 10000, on_stat, later_new(j)))
		job_fail(j, IO, NO_CALLS);
}

static void job_start(struct job *j)
{
	const char *verb = j->ask.admit ? "ADMITTED" : "STAT";

	j->active = true;
	state_of(j->x)->n_active++;
	if (!job_call(j, "Content", verb, digest_args(j), 10000,
		    j->ask.admit ? on_admitted : on_stat, later_new(j)))
		job_fail(j, IO, NO_CALLS);
}

static void jobs_start(struct tos_ext *x)
{
	struct state *s = state_of(x);
	struct job *j = s->jobs;

	while (j && s->n_active < ACTIVE_MAX) {
		if (!j->active && !j->over && j->begun) {
			job_start(j);
			j = s->jobs; /* the list may be another one now */
		} else {
			j = j->next;
		}
	}
}

static void deadline_set(struct job *j);

static void on_deadline(struct tos_ext *x, void *arg)
{
	struct job *j = job_by_number(x, (uint64_t)(uintptr_t)arg);
	int64_t now = tos_now_ms(x);
	bool somebody = false;

	if (!j)
		return;
	j->deadline = NULL;
	for (struct waiter *w = j->waiters; w; w = w->next)
		somebody |= w->ask.deadline_ms > now;
	if (somebody)
		deadline_set(j);
	else
		job_fail(j, TIMED_OUT, "%s: %lld bytes came in time", j->url.text,
			(long long)j->sent + (long long)j->n_buf);
}

static void deadline_set(struct job *j)
{
	j->deadline = tos_timer(j->x, left_ms(j), on_deadline, (void *)(uintptr_t)j->number);
}

static struct job *job_new(struct tos_ext *x, const struct ask *a)
{
	struct state *s = state_of(x);
	struct job *j = s->n_jobs < JOBS_MAX ? calloc(1, sizeof(*j)) : NULL;

	if (!j)
		return NULL;
	j->buf = malloc(PIECE_BYTES);
	j->digest = EVP_MD_CTX_new();
	if (!j->buf || !j->digest || EVP_DigestInit_ex(j->digest, EVP_sha256(), NULL) != 1) {
		EVP_MD_CTX_free(j->digest);
		free(j->buf);
		free(j);
		return NULL;
	}
	j->x = x;
	j->number = ++s->next_number;
	j->ask = *a;
	j->ask.via = a->via ? tos_value_copy(a->via) : NULL;
	j->url = a->url;
	j->fd = -1;
	j->total = j->range_start = -1;
	j->next = s->jobs;
	s->jobs = j;
	s->n_jobs++;
	return j;
}

/* Takes what a owns. */
static void ask_do(struct tos_ext *x, struct ask *a)
{
	struct job *j = job_of(x, a->digest);
	bool fresh = !j, joins = j && (!a->admit || j->ask.admit);
	struct waiter *w = calloc(1, sizeof(*w));

	if (fresh)
		j = job_new(x, a);
	if (!j || !w || j->n_waiters >= WAITERS_MAX) {
		if (a->token)
			tos_fail(x, a->token, FULL, "too many downloads are under way");
		tos_value_free(a->via);
		free(w);
		return;
	}
	w->ask = *a;
	j->n_waiters++;
	if (!fresh && !joins) { /* this one admits nothing: afterwards */
		w->next = j->later;
		j->later = w;
		return;
	}
	w->next = j->waiters;
	j->waiters = w;
	if (!fresh) {
		tos_count(x, "shared", 1);
		return;
	}
	j->begun = true;
	deadline_set(j);
	jobs_start(x);
}

/* ---- GET */

static bool digest_arg(const struct tos_value *m, uint8_t out[32])
{
	const struct tos_value *v = tos_get(m, "sha256");
	size_t n;
	const uint8_t *p = tos_as_bytes(v ? v : tos_get(m, "digest"), &n);

	if (p && n == 32) {
		memcpy(out, p, 32);
		return true;
	}
	return tos_type(v) == TOS_TEXT && hex_digest(tos_as_text(v, ""), out);
}

static void copy(char *out, size_t cap, const char *s)
{
	snprintf(out, cap, "%s", s);
}

/* The kernels named must be places, too: "tos://host1" or "tos://" and a star. */
static const char *peer_add(struct tos_ext *x, struct ask *a, const char *name)
{
	struct url u = { .scheme = "tos" };
	bool admits;

	if (strcmp(name, tos_kernel_name(x)) == 0)
		return NULL;
	copy(u.host, sizeof(u.host), name);
	if (!listed(x, &u, &admits))
		return name;
	if (a->n_peers < PEERS_MAX)
		copy(a->peers[a->n_peers++], sizeof(a->peers[0]), name);
	return NULL;
}

static int ask_read(
	struct tos_ext *x, const struct tos_value *m, struct ask *a, char *text, size_t cap)
{
	const char *url = tos_get_text(m, "url", ""), *wrong = url_parse(url, &a->url);
	const struct tos_value *peers = tos_get(m, "peers"), *via = tos_get(m, "via");
	const char *base;
	uint8_t named[32];

	if (wrong) {
		copy(a->url.text, sizeof(a->url.text), url);
		snprintf(text, cap, "'%.200s': %s", url, wrong);
		return DENIED;
	}
	if (!listed(x, &a->url, &a->place_admits)) {
		snprintf(text, cap, "%s: no place of this kernel's Download lists it",
			a->url.text);
		return DENIED;
	}
	a->admit = tos_get_bool(m, "admit", false);
	if (a->admit && !a->place_admits) {
		snprintf(text, cap, "%s: nothing from there is admitted by its place",
			a->url.text);
		return DENIED;
	}
	if (strcmp(a->url.scheme, "tos") == 0) {
		if (!url_digest(&a->url, a->digest)) {
			snprintf(text, cap, "%s: it is tos://KERNEL/sha256/HEX", a->url.text);
			return MALFORMED;
		}
		if (digest_arg(m, named) && memcmp(named, a->digest, 32) != 0) {
			snprintf(text, cap, "%s: sha256 is another digest", a->url.text);
			return BAD_DIGEST;
		}
	} else if (!digest_arg(m, a->digest)) {
		snprintf(text, cap, "sha256 is missing: 64 hexadecimal digits, or a statement");
		return MALFORMED;
	}
	for (size_t i = 0; i < tos_len(peers); i++) {
		wrong = peer_add(x, a, tos_as_text(tos_at(peers, i), ""));
		if (wrong) {
			snprintf(text, cap,
				"peer %.63s: no place of this kernel's Download lists tos://%.63s",
				wrong, wrong);
			return DENIED;
		}
	}
	for (size_t i = 0; i < tos_len(via); i++) {
		struct ask none = { .token = 0 };

		wrong = peer_add(x, &none, tos_as_text(tos_at(via, i), ""));
		if (wrong) {
			snprintf(text, cap,
				"via %.63s: no place of this kernel's Download lists tos://%.63s",
				wrong, wrong);
			return DENIED;
		}
	}
	a->via = tos_len(via) ? tos_value_copy(via) : NULL;
	base = strrchr(a->url.path, '/');
	copy(a->name, sizeof(a->name), tos_get_text(m, "name", ""));
	if (!a->name[0])
		snprintf(a->name, sizeof(a->name), "%.*s", (int)strcspn(base + 1, "?"),
			base + 1);
	copy(a->kind, sizeof(a->kind), tos_get_text(m, "kind", "program"));
	copy(a->version, sizeof(a->version), tos_get_text(m, "version", ""));
	copy(a->machine, sizeof(a->machine), tos_get_text(m, "machine", "any"));
	a->size = tos_get_int(m, "size", -1);
	a->max = tos_get_int(m, "max", 0);
	return 0;
}

/* Progress goes to whoever asked, and to nobody else: to the client, or to an inbox of the carrier's
 * own. */
static void progress_set(struct ask *a, const struct tos_value *m, const char *sender)
{
	const char *inbox = tos_get_text(m, "progress", "");

	if (!inbox[0])
		return;
	if (strstr(sender, "/client/"))
		copy(a->progress, sizeof(a->progress), sender);
	else if (strchr(sender, '#') && !strchr(inbox, '/') && strlen(inbox) < 32)
		snprintf(a->progress, sizeof(a->progress), "%.159s/%.31s", sender, inbox);
}

struct signed_ask {
	struct ask ask;
	struct tos_value *m;
};

static void get_with(struct tos_ext *x, struct ask *a, const struct tos_value *m)
{
	char text[600];
	int rc = ask_read(x, m, a, text, sizeof(text));

	if (rc == 0) {
		tos_count(x, "requests", 1);
		ask_do(x, a);
		return;
	}
	refusal(x, a, a->url.text, rc, text);
	if (a->token)
		tos_fail(x, a->token, rc, text);
	tos_value_free(a->via);
}

/* The kernel has looked at the signature: the digest is what it says. */
static void on_statement(struct tos_ext *x, void *arg, int rc, const char *text,
	const char *folder, const struct tos_value *elements)
{
	struct signed_ask *s = arg;
	size_t n;
	const uint8_t *p = tos_get_bytes(tos_at(elements, 0), "digest", &n);

	(void)folder;
	if (rc == 0 && p && n == 32) {
		tos_set(s->m, "sha256", tos_bytes(p, n));
		tos_set(s->m, "admit", tos_bool(false)); /* it is, already */
		get_with(x, &s->ask, s->m);
	} else {
		refusal(x, &s->ask, tos_get_text(s->m, "url", ""), rc ? rc : MALFORMED, text);
		if (s->ask.token)
			tos_fail(x, s->ask.token, rc ? rc : MALFORMED, text);
	}
	tos_value_free(s->m);
	free(s);
}

static void get(struct tos_ext *x, const struct tos_message *m)
{
	const struct tos_value *args = tos_at(m->elements, 0);
	struct ask a = { .token = m->token, .size = -1 };
	struct signed_ask *s;
	struct tos_value *e, *statement;
	size_t n;
	const uint8_t *p = tos_get_bytes(args, "statement", &n);

	copy(a.sender, sizeof(a.sender), m->sender);
	copy(a.owner, sizeof(a.owner), tos_get_text(m->info, "owner", ""));
	a.deadline_ms = tos_now_ms(x) + (m->token ? m->deadline_ms : 600000);
	progress_set(&a, args, m->sender);
	if (!p) {
		get_with(x, &a, args);
		return;
	}
	s = calloc(1, sizeof(*s));
	if (!s) {
		if (a.token)
			tos_fail(x, a.token, NO_MEMORY, "no memory");
		return;
	}
	s->ask = a;
	s->m = tos_value_copy(args);
	e = tos_array();
	statement = tos_map();
	tos_set(statement, "statement", tos_bytes(p, n));
	tos_push(e, statement);
	if (tos_call(x, "Content", "ADMIT", e, 10000, on_statement, s) < 0) {
		tos_value_free(s->m);
		free(s);
		if (a.token)
			tos_fail(x, a.token, IO, NO_CALLS);
	}
}

/* ---- the inbox */

static void places(struct tos_ext *x, const struct tos_message *m)
{
	struct tos_value *e = tos_array(), *list = tos_array();
	const char *place;

	for (size_t i = 0; (place = tos_place(x, i)); i++)
		tos_push(list, tos_text(place));
	tos_push(e, list);
	tos_reply(x, m->token, "ok", e);
}

static void wake(struct tos_ext *x, struct tos_inbox *in)
{
	struct tos_message m;

	while (tos_inbox_next(in, &m)) {
		if (strcmp(m.folder, "PLACES") == 0 && m.token)
			places(x, &m);
		else if ((m.folder[0] == 0 || strcmp(m.folder, "GET") == 0) &&
			 tos_type(tos_at(m.elements, 0)) == TOS_MAP)
			get(x, &m);
		else if (m.token)
			tos_fail(x, m.token, MALFORMED, "it takes GET with a map, and PLACES");
	}
}

static int start(struct tos_ext *x)
{
	struct state *s = calloc(1, sizeof(*s));

	if (!s || curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK) {
		free(s);
		return NO_MEMORY;
	}
	s->multi = curl_multi_init();
	curl_multi_setopt(s->multi, CURLMOPT_SOCKETFUNCTION, set_socket);
	curl_multi_setopt(s->multi, CURLMOPT_SOCKETDATA, x);
	curl_multi_setopt(s->multi, CURLMOPT_TIMERFUNCTION, set_timer);
	curl_multi_setopt(s->multi, CURLMOPT_TIMERDATA, x);
	tos_set_data(x, s);
	return 0;
}

/* What waits is answered by the host. */
static void stop(struct tos_ext *x)
{
	struct state *s = state_of(x);

	while (s->jobs) {
		struct job *j = s->jobs;
		struct waiter *w;

		s->jobs = j->next;
		transfer_drop(j);
		while ((w = j->waiters ? j->waiters : j->later)) {
			if (w == j->waiters)
				j->waiters = w->next;
			else
				j->later = w->next;
			waiter_free(w);
		}
		EVP_MD_CTX_free(j->digest);
		tos_value_free(j->ask.via);
		free(j->buf);
		free(j);
	}
	curl_multi_cleanup(s->multi);
	free(s);
	tos_set_data(x, NULL);
}

static const struct tos_inbox_spec inboxes[] = {
	{ .name = "Download",
		.doc = "Files named by URLs, into the content store.",
		.wake = wake,
		.bound = 256,
		.protocol =
			"GET {url, sha256 | statement, [size], [max], [admit], [name], [kind], "
			"[version], [machine], [progress: inbox], [peers: [kernel]], [via: "
			"[kernel]]} -> ok {sha256, digest, from, size, admitted}; PLACES -> ok "
			"[text]" },
	{ .name = NULL },
};

static const struct tos_property_spec properties[] = {
	{ .path = "max_bytes",
		.type = "int",
		.unit = "B",
		.doc = "The largest file that is taken.",
		.min = 1,
		.max = (int64_t)64 << 30,
		.value = "1073741824" },
	{ .path = NULL },
};

const struct tos_extension tos_extension = {
	TOS_ABI,
	.name = "download",
	.doc = "Files named by URLs, from the places that the configuration lists.",
	.inboxes = inboxes,
	.properties = properties,
	.privileges = "net-out",
	.start = start,
	.stop = stop,
};
