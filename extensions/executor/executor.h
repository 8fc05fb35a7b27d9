/*
 * What the files of Executor share. job.c has the programs that were started here: what becomes of
 * what they write, and who waits for their end; capture.c keeps output within a bound. run.c reads
 * what a carrier wants run. executor.c is the inbox, and what carriers ask the kernel for through it.
 */
#pragma once

#include <tos/extension.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CAPTURE_MAX   (512u << 10) /* of each stream; two of them fit into one answer, nearly */
#define CARRIER_BYTES 192
#define OWNER_BYTES   80
#define INBOX_BYTES   96
#define HANDLE_BYTES  33

/* What becomes of what a program writes. */
enum mode {
	CAPTURE, /* kept, within a bound, until its end */
	POST,    /* to an inbox of the carrier */
	READ     /* the carrier reads it */
};

/* Whose a program is, and what becomes of its output. */
struct terms {
	char carrier[CARRIER_BYTES], owner[OWNER_BYTES];
	bool stays; /* when the carrier leaves */
	enum mode mode;
	char inbox[INBOX_BYTES];
	bool lines;     /* a folder for each line; else as it comes */
	size_t capture; /* bytes of each stream */
};

struct executor {
	struct job *jobs; /* job.c's, as the next two */
	size_t n_jobs;
	uintptr_t numbers;
	struct ask *asks; /* executor.c's */
	char machine[65]; /* of uname; "" if that said nothing */
};

/* ---- capture.c */

/* The beginning and the end of what came; what lay between is counted. */
struct capture {
	uint8_t *head, *tail;
	size_t n_head, n_tail, tail_at, most; /* of each of them */
	uint64_t total;
};
/* Without memory it is counted as cut. */
void capture_add(struct capture *c, const uint8_t *p, size_t n);
size_t capture_held(const struct capture *c);  /* bytes */
uint64_t capture_cut(const struct capture *c); /* bytes */
/* Text where it is some, else bytes; the caller's. NULL: no memory. */
struct tos_value *capture_value(const struct capture *c);
void capture_free(struct capture *c);
struct tos_value *text_or_bytes(const void *p, size_t n);

/* ---- job.c: a program that was started; it may be forgotten whenever a callback has run */

struct job;
struct job *job_find(struct tos_ext *x, const char *handle); /* NULL */
/* NULL: too many are remembered, or no memory. t is copied. */
struct job *job_new(struct tos_ext *x, const char *handle, const struct terms *t);
/* Takes what it writes, unless that is the carrier's to read. False: no call could be made, and it
 * is forgotten. */
bool job_begin(struct job *j);
bool job_ended(const struct job *j);
const struct terms *job_terms(const struct job *j); /* lent */
/* The kernel's last word about one whose output the carrier reads; copied. */
void job_end_read(struct job *j, const struct tos_value *end);
/* Answers the token at its end, or at once: ERR_FULL where too many wait. until_ms: tos_now_ms() by
 * which nobody waits for it any more. Token 0: nobody asks. */
void job_wait(struct job *j, uint64_t token, int64_t until_ms);
/* The oldest that have ended make room: by number, age and what they hold. */
void jobs_trim(struct executor *e);
void jobs_free(struct executor *e);

/* ---- run.c */
void run_verb(struct tos_ext *x, const struct tos_message *m, const struct tos_value *args);
/* From the kernel: a program that outlived the one before; row is borrowed. */
void run_kept(struct tos_ext *x, const struct tos_value *row);

/* ---- executor.c */

/* What a call to the kernel was made for; it is its callback's to free. */
struct ask {
	struct ask *next, **at;
	uint64_t token;
	int64_t until_ms; /* nobody waits for the answer any more */
	char handle[HANDLE_BYTES];
	struct terms terms; /* of RUN; of the others only whose it is */
	bool wait, input, dry;
	uint8_t *text; /* of stdin */
	size_t n_text;
};
/* NULL: no memory, and m was answered so. */
struct ask *ask_new(struct tos_ext *x, const struct tos_message *m);
void ask_free(struct ask *a);
/* Answer whoever asked, and free it; v is taken. */
void ask_reply(struct tos_ext *x, struct ask *a, struct tos_value *v);
void ask_refuse(struct tos_ext *x, struct ask *a, int rc, const char *text);
/* Ask the kernel on behalf of the sender. Takes args and a: done gets it. */
void kernel_ask(struct tos_ext *x, struct ask *a, const char *verb, struct tos_value *args,
	tos_answer_fn *done);
struct tos_value *one(struct tos_value *v); /* an array with it; takes v */
/* Token 0: nobody asked. v is taken. */
void reply(struct tos_ext *x, uint64_t token, struct tos_value *v);
void refuse(struct tos_ext *x, uint64_t token, int rc, const char *text);
