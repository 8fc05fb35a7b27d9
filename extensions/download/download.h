/*
 * What the files of Download share. ask.c reads what is asked for, job.c has the jobs, source.c where they
 * look, transfer.c what comes over http; index_ask.c reads an index; download.c is the inbox.
 */
#pragma once

#include <tos/extension.h>

#include <curl/curl.h>
#include <openssl/evp.h>
#include <stdio.h>

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

/* ---- what was asked for */

struct ask {
	uint64_t token;
	char sender[160], owner[80], progress[200];
	int64_t deadline_ms;
	struct url url;
	bool admit, place_admits, index;
	uint8_t digest[32]; /* of an index: of its URL */
	char name[129], kind[16], version[64], machine[32];
	int64_t size, max;
	char peers[PEERS_MAX][64];
	size_t n_peers;
	struct tos_value *via; /* kernels in the order of the tree, or NULL */
};

struct waiter {
	struct waiter *next;
	struct ask ask;
	bool first; /* the job is after what this one asked for */
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
	struct tos_value *statements, *rows, *refused; /* of an index */
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

/* What a call about a job brings along; the job may be over when its answer comes. */
struct later {
	uint64_t number;
	size_t n; /* bytes, or which peer */
	int64_t at;
};

#define NO_CALLS "the kernel takes no calls"

struct state *state_of(struct tos_ext *x);
void digest_hex(const uint8_t digest[32], char out[65]);

/* ---- ask.c */

/* GET: answered, now or when its job is over. */
void ask_get(struct tos_ext *x, const struct tos_message *m);
/* May it be taken from there? *admits: for admission, too. */
bool place_lists(struct tos_ext *x, const struct url *u, bool *admits);
/* Counts and audits that it was refused or failed. */
void ask_refused(
	struct tos_ext *x, const struct ask *a, const char *url, int rc, const char *text);

/* It comes to no job: that, and whoever asked is told. */
void ask_refuse(
	struct tos_ext *x, const struct ask *a, const char *url, int rc, const char *text);
/* Who asks, until when. */
void ask_init(struct ask *a, struct tos_ext *x, const struct tos_message *m);

/* ---- index_ask.c */

/* INDEX: answered, now or when its job is over. */
void index_ask(struct tos_ext *x, const struct tos_message *m);
/* All of it came. */
void index_over(struct job *j);

/* ---- job.c */

/* A job for it, or it joins one. Takes what a owns. */
void ask_do(struct tos_ext *x, struct ask *a);
/* The job of that number unless it is over, or NULL. */
struct job *job_by_number(struct tos_ext *x, uint64_t number);
/* Everybody who waits is answered. Not from within a callback of libcurl. j is gone. */
void job_end(struct job *j, int rc, const char *text, bool admitted);
void job_fail(struct job *j, int rc, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
/* All of it came over http: admitted if that was asked for, then over. */
void job_stored(struct job *j);
/* Admitted as the map says, or as was asked; then over. */
void job_admit(struct job *j, const struct tos_value *as);
/* Progress to all that wait: what is a state, text may be NULL. */
void job_tell(struct job *j, const char *what, const char *text);
/* Until the last of the deadlines, at least 1. */
uint32_t job_left_ms(const struct job *j);
struct later *later_new(const struct job *j);
/* The job of an answer that came, or NULL where it is over. Frees l. */
struct job *later_job(struct tos_ext *x, struct later *l);
/* A call about this job; takes args and l. False: it was not made. */
bool job_call(struct job *j, const char *dest, const char *verb, struct tos_value *args,
	uint32_t timeout_ms, tos_answer_fn *done, struct later *l);
/* {digest}, for calls to Content. */
struct tos_value *digest_args(const struct job *j);
/* What j owns; it is in no list any more. */
void job_free(struct job *j);

/* ---- source.c */

void job_from_via(struct job *j);
void job_from_url(struct job *j);
/* It came from that kernel's store ("": from one that is not named). */
void peer_has_it(struct job *j, const char *kernel);

/* ---- transfer.c */

/* The multi handle and its callbacks; NULL: no memory. */
CURLM *transfers_new(struct tos_ext *x);
/* A connection is asked for; the file comes from where the store has it up to. */
void transfer_begin(struct job *j);
void transfer_drop(struct job *j);
/* From the first byte: what the store has of it is forgotten. */
void job_restart(struct job *j);
