/*
 * Transfers of Download: one file over http, with libcurl on connections that the kernel made; what
 * comes goes to the store in pieces.
 */
#include "download.h"
#include "index.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

/* ---- pieces into the store */

static void job_retry(struct job *j, int rc, const char *text);

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
		job_fail(j, TOS_ERR_IO, "the store lost what it had");
		return;
	}
	if (j->last_put && j->n_puts == 0) {
		if (j->stored)
			job_stored(j);
		else
			job_fail(j, TOS_ERR_IO, "the store did not take the end");
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

static int64_t most_bytes(struct tos_ext *x)
{
	const char *p = tos_property(x, "max_bytes");

	return p ? strtoll(p, NULL, 10) : 0;
}

static int64_t bound_of(const struct job *j)
{
	int64_t most = j->ask.index ? (int64_t)INDEX_BYTES_MAX : most_bytes(j->x);

	return j->ask.max > 0 && j->ask.max < most ? j->ask.max : most;
}

/* The whole file's size is known: may it be that? */
static bool total_ok(struct job *j)
{
	if (j->ask.size >= 0 && j->total != j->ask.size)
		fail_with(j, FAIL, TOS_ERR_DIGEST, "%s has %lld bytes, not %lld", j->url.text,
			(long long)j->total, (long long)j->ask.size);
	else if (j->total > bound_of(j))
		fail_with(j, FAIL, TOS_ERR_TOO_LARGE,
			"%s has %lld bytes, at most %lld are taken", j->url.text,
			(long long)j->total, (long long)bound_of(j));
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
		fail_with(j, FAIL, TOS_ERR_NOT_FOUND,
			"%s: the server says %ld, there is no such file", j->url.text, j->code);
		return false;
	case 416:
		fail_with(j, RESTART, 0, "it has no such part");
		return false;
	default:
		fail_with(j, j->code >= 500 || j->code == 429 ? RETRY : FAIL, TOS_ERR_REFUSED,
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
	/* More than any file has would not add up with where it begins. */
	return end == text || v < 0 || v > INT64_MAX / 4 ? -1 : v;
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
		fail_with(j, FAIL, TOS_ERR_TOO_LARGE,
			"%s has more than the %lld bytes that are taken", j->url.text,
			(long long)bound_of(j));
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
			fail_with(j, FAIL, TOS_ERR_IO, NO_CALLS);
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
		job_tell(j, "receiving", NULL);
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

void transfer_drop(struct job *j)
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
		job_fail(j, TOS_ERR_NOMEM, "no memory");
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
	job_tell(j, "connecting", NULL);
}

static void on_connected(struct tos_ext *x, void *arg, int rc, const char *text, int fd)
{
	struct job *j = later_job(x, arg);

	if (!j) {
		if (fd >= 0)
			close(fd);
		return;
	}
	if (rc == TOS_ERR_DENIED || rc == TOS_ERR_FULL) {
		job_fail(j, rc, "%s", text);
	} else if (rc < 0) {
		job_retry(j, rc, text);
	} else {
		j->fd = fd;
		transfer_go(j, text);
	}
}

void transfer_begin(struct job *j)
{
	struct later *l = later_new(j);
	uint32_t ms = job_left_ms(j);

	if (!l || tos_connect(j->x, j->url.host, j->url.port, ms < 20000 ? ms : 20000,
			  on_connected, l) < 0) {
		free(l);
		job_fail(j, TOS_ERR_IO, "no connection can be asked for");
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
	job_tell(j, "retrying", text);
	tos_count(j->x, "retries", 1);
	j->retry = tos_timer(
		j->x, RETRY_MS << (j->tries - 1), on_retry, (void *)(uintptr_t)j->number);
	if (!j->retry)
		job_fail(j, TOS_ERR_NOMEM, "no memory");
}

static void job_redirect(struct job *j)
{
	struct url to;
	bool admits;
	const char *wrong = j->location[0] ? url_resolve(&j->url, j->location, &to)
					   : "it does not say where to";

	transfer_drop(j);
	if (wrong)
		job_fail(j, TOS_ERR_DENIED, "%s redirects to %.200s: %s", j->url.text,
			j->location, wrong);
	else if (strcmp(to.scheme, "tos") == 0 || !place_lists(j->x, &to, &admits))
		job_fail(j, TOS_ERR_DENIED, "%s redirects to %s, which no place lists",
			j->url.text, to.text);
	else if (j->ask.admit && !admits)
		job_fail(j, TOS_ERR_DENIED,
			"%s redirects to %s, from where nothing is admitted", j->url.text,
			to.text);
	else if (++j->redirects > REDIRECTS_MAX)
		job_fail(j, TOS_ERR_REFUSED, "%s: too many redirects", j->ask.url.text);
	else {
		j->url = to;
		tos_count(j->x, "redirects", 1);
		transfer_begin(j);
	}
}

static void on_cancelled(struct tos_ext *x, void *arg, int rc, const char *text,
	const char *folder, const struct tos_value *elements)
{
	struct job *j = later_job(x, arg);

	(void)rc;
	(void)text;
	(void)folder;
	(void)elements;
	if (j)
		transfer_begin(j);
}

/* From the first byte: what the store has of it is forgotten. */
void job_restart(struct job *j)
{
	transfer_drop(j);
	if (++j->tries >= TRIES_MAX) {
		job_fail(j, TOS_ERR_REFUSED, "%s: %s", j->url.text, j->why);
		return;
	}
	j->sent = 0;
	j->n_buf = 0;
	j->total = -1;
	if (!job_call(
		    j, "Content", "CANCEL", digest_args(j), 10000, on_cancelled, later_new(j)))
		job_fail(j, TOS_ERR_IO, NO_CALLS);
}

/* The whole file came. */
static void body_over(struct job *j)
{
	uint8_t digest[32];
	int64_t bytes = j->sent + (int64_t)j->n_buf;

	if (j->ask.index) {
		index_over(j);
		return;
	}
	if (j->ask.size >= 0 && bytes != j->ask.size) {
		job_fail(j, TOS_ERR_DIGEST, "%s has %lld bytes, not %lld", j->url.text,
			(long long)bytes, (long long)j->ask.size);
		return;
	}
	if (!j->verify_only) {
		transfer_drop(j);
		j->total = bytes;
		if (!put_piece(j, true))
			job_fail(j, TOS_ERR_IO, NO_CALLS);
		return;
	}
	EVP_DigestFinal_ex(j->digest, digest, NULL);
	if (memcmp(digest, j->ask.digest, 32) == 0)
		job_stored(j);
	else
		job_fail(j, TOS_ERR_DIGEST, "%s is not what the digest says", j->url.text);
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
		job_fail(j, TOS_ERR_UNTRUSTED, "%s: %s", j->url.text, curl_easy_strerror(code));
	} else if (code == CURLE_PARTIAL_FILE && j->total >= 0) {
		snprintf(text, sizeof(text), "%.200s: short file, %lld of %lld bytes came",
			j->url.text, (long long)j->sent + (long long)j->n_buf,
			(long long)j->total);
		/* What came is kept. */
		if (j->n_buf && !j->verify_only && !put_piece(j, false))
			job_fail(j, TOS_ERR_IO, NO_CALLS);
		else
			job_retry(j, TOS_ERR_CLOSED, text);
	} else {
		snprintf(text, sizeof(text), "%.200s: %s", j->url.text,
			curl_easy_strerror(code));
		if (j->n_buf && !j->verify_only && !put_piece(j, false))
			job_fail(j, TOS_ERR_IO, NO_CALLS);
		else
			job_retry(j,
				code == CURLE_OPERATION_TIMEDOUT ? TOS_ERR_TIMEOUT
								 : TOS_ERR_UNREACHABLE,
				text);
	}
}

CURLM *transfers_new(struct tos_ext *x)
{
	CURLM *multi = curl_multi_init();

	if (!multi)
		return NULL;
	curl_multi_setopt(multi, CURLMOPT_SOCKETFUNCTION, set_socket);
	curl_multi_setopt(multi, CURLMOPT_SOCKETDATA, x);
	curl_multi_setopt(multi, CURLMOPT_TIMERFUNCTION, set_timer);
	curl_multi_setopt(multi, CURLMOPT_TIMERDATA, x);
	return multi;
}
