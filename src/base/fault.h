/*
 * Fault points: named places on the way of a carrier where a test can end the process, hold it, or
 * have the step fail. Only the tos-kernel that is built for tests (-DTOS_FAULTS, never installed)
 * contains them; elsewhere each is nothing at all.
 *
 * A test makes a file `faults` in the state directory before the kernel starts, and maps it, as the
 * kernel does (tests/proc/faults.py): a cell for each point, in the order of this table. What is
 * counted there outlives the process. A cell disarms itself when it fires.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

/* X(symbol, name, what has just happened, or is about to); the steps of doc/protocol.md,
 * "Hand-off". "commit": the transaction is about to be given to the journal; "journaled": it is
 * durable, nothing has followed from it yet. */
/* clang-format off */
#define FAULT_POINTS(X)                                                                             \
	/* launch, at the home */                                                                   \
	X(LAUNCH_NAMED,     "launch-named",      "a name was asked for, not yet given")             \
	X(LAUNCH_TAKEN,     "launch-taken",      "a launch has come")                               \
	X(LAUNCH_COMMIT,    "launch-commit",     "home record and carrier")                         \
	X(LAUNCH_JOURNALED, "launch-journaled",  "not yet answered")                                \
	X(LAUNCH_ANSWERED,  "launch-answered",   "not yet started")                                 \
	/* a stay */                                                                                \
	X(START,            "start",             "START is about to be given to the tos-vm")        \
	X(STARTED,          "started",           "the tos-vm has it")                               \
	X(CHECKPOINT_COMMIT, "checkpoint-commit", "state at a checkpoint")                          \
	X(CHECKPOINT_JOURNALED, "checkpoint-journaled", "the carrier does not know yet")            \
	X(COMPLETED_COMMIT, "completed-commit",  "begin has returned")                              \
	X(COMPLETED,        "completed",         "Mobility is about to be asked")                   \
	X(FAULTED_COMMIT,   "faulted-commit",    "a fault, to be kept for a retry")                 \
	X(RETRY_COMMIT,     "retry-commit",      "the retried carrier, at its place")               \
	X(END_COMMIT,       "end-commit",        "killed, superseded or lost, at its place")        \
	/* a clone, where its parent is; its birth, at the home */                                  \
	X(CLONE_TAKEN,      "clone-taken",       "Spawner has said where it goes")                  \
	X(CLONE_COMMIT,     "clone-commit",      "the parent's number, the clone and the note")     \
	X(CLONE_JOURNALED,  "clone-journaled",   "nobody knows yet")                                \
	X(CLONE_ANSWERED,   "clone-answered",    "the parent has its name, the home is being told") \
	X(CLONED_TAKEN,     "cloned-taken",      "at the home")                                     \
	X(CLONED_COMMIT,    "cloned-commit",     "home record of the clone, and its parent's")      \
	X(CLONED_JOURNALED, "cloned-journaled",  "not yet answered")                                \
	/* the hand-off, at the source */                                                           \
	X(OFFER_SEND,       "offer-send",        "nothing is committed")                            \
	X(OFFER_GRANTED,    "offer-granted",     "the destination would take it")                   \
	X(DEPART_FROZEN,    "depart-frozen",     "n is raised, in memory")                          \
	X(DEPART_COMMIT,    "depart-commit",     "departing, envelope and hop record")              \
	X(DEPART_JOURNALED, "depart-journaled",  "nothing was sent")                                \
	X(HOP_SENT,         "hop-sent",          "the hop record was given to the link")            \
	X(ANSWER_TAKEN,     "answer-taken",      "the destination has answered")                    \
	X(DROP_COMMIT,      "drop-commit",       "gone, and the copy deleted")                      \
	X(DROP_COMMITTED,   "drop-committed",    "given to the journal")                            \
	X(DROPPED,          "dropped",           "gone is durable")                                 \
	X(RETURN_COMMIT,    "return-commit",     "refused: it stays")                               \
	X(SELF_COMMIT,      "self-commit",       "a move to the kernel itself")                     \
	X(SELF_JOURNALED,   "self-journaled",    "arrived, not yet started")                        \
	/* at the destination */                                                                    \
	X(OFFER_TAKEN,      "offer-taken",       "an offer has come")                               \
	X(OFFER_ANSWERED,   "offer-answered",    "and was granted")                                 \
	X(HOP_TAKEN,        "hop-taken",         "a hop record has come")                           \
	X(ARRIVE_CHECKED,   "arrive-checked",    "everything verified, hooks not yet run")          \
	X(ARRIVE_COMMIT,    "arrive-commit",     "accepted, with the carrier")                      \
	X(ARRIVE_COMMITTED, "arrive-committed",  "given to the journal")                            \
	X(ARRIVE_PREPARED,  "arrive-prepared",   "made ready in its tos-vm, nothing of it runs")    \
	X(ARRIVE_JOURNALED, "arrive-journaled",  "not yet started")                                 \
	X(ARRIVE_GOES_ON,   "arrive-goes-on",    "its start is due")                                \
	X(ARRIVE_ANSWERED,  "arrive-answered",   "once it runs, or soon after")                     \
	X(REFUSE_COMMIT,    "refuse-commit",     "refused")                                         \
	X(REFUSE_JOURNALED, "refuse-journaled",  "not yet answered")                                \
	X(REFUSE_ANSWERED,  "refuse-answered",   "the answer was given to the link")                \
	X(ANSWER_LOOKED,    "answer-looked",     "whether a record was answered is looked up")      \
	X(ANSWER_REPEATED,  "answer-repeated",   "the same record came again")                      \
	/* the outcome: a hand-off to the home */                                                   \
	X(OUTCOME_FROZEN,   "outcome-frozen",    "at the last kernel, in memory")                   \
	X(OUTCOME_DEPART_COMMIT, "outcome-depart-commit", "at the last kernel")                     \
	X(OUTCOME_DEPART_JOURNALED, "outcome-depart-journaled", "nothing was sent")                 \
	X(OUTCOME_SENT,     "outcome-sent",      "given to the link")                               \
	X(OUTCOME_ACKED,    "outcome-acked",     "the home has answered")                           \
	X(OUTCOME_TAKEN,    "outcome-taken",     "at the home: everything verified")                \
	X(OUTCOME_COMMIT,   "outcome-commit",    "answer and home record")                          \
	X(OUTCOME_JOURNALED, "outcome-journaled", "not yet answered")                               \
	X(OUTCOME_ANSWERED, "outcome-answered",  "the answer was given to the link")                \
	X(OUTCOME_HERE_COMMIT, "outcome-here-commit", "it ends at its home")                        \
	X(OUTCOME_HERE_JOURNALED, "outcome-here-journaled", "nobody knows yet")                     \
	/* reports */                                                                               \
	X(REPORT_SEND,      "report-send",       "ARRIVED, at its place")                           \
	X(REPORT_ACKED,     "report-acked",      "the home has answered it")                        \
	X(REPORT_TAKEN,     "report-taken",      "ARRIVED, at the home")                            \
	X(REPORT_ANSWERED,  "report-answered",   "at the home")                                     \
	X(GONE_TAKEN,       "gone-taken",        "GONE, at the home")                               \
	X(ENDED_COMMIT,     "ended-commit",      "ENDED, at the home")                              \
	X(ENDED_JOURNALED,  "ended-journaled",   "at the home, not yet answered")                   \
	X(NOTE_ACKED,       "note-acked",        "GONE or ENDED was answered; still kept")          \
	X(HOME_COMMIT,      "home-commit",       "what the home knows of a carrier")                \
	/* commands */                                                                              \
	X(WANT_COMMIT,      "want-commit",       "a kill, suspension, resumption or retry, at the home") \
	X(WANT_JOURNALED,   "want-journaled",    "it was not passed on yet")                        \
	X(COMMAND_TAKEN,    "command-taken",     "it has come to the carrier's place")              \
	/* doubts */                                                                                \
	X(DOUBT,            "doubt",             "the destination has not answered")                \
	X(DECLARE_COMMIT,   "declare-commit",    "a kernel is declared dead")                       \
	X(DECLARE_JOURNALED, "declare-journaled", "nothing has followed yet")                       \
	X(ASK_COMMIT,       "ask-commit",        "the holder will ask the home")                    \
	X(ASK_JOURNALED,    "ask-journaled",     "it has not asked yet")                            \
	X(ASK_TAKEN,        "ask-taken",         "at the home")                                     \
	X(GRANT_COMMIT,     "grant-commit",      "the incarnation is raised, at the home")          \
	X(GRANT_JOURNALED,  "grant-journaled",   "not yet answered")                                \
	X(GRANT_TAKEN,      "grant-taken",       "the holder has the answer")                       \
	X(GRANT_KEPT_COMMIT, "grant-kept-commit", "the higher incarnation, at the holder")          \
	X(GRANT_KEPT,       "grant-kept",        "it has not started yet")                          \
	X(VOID_SEND,        "void-send",         "the holder tells the dead destination")           \
	X(VOID_TAKEN,       "void-taken",        "there")                                           \
	X(VOID_ACKED,       "void-acked",        "the holder still keeps it")                       \
	X(LEARN_COMMIT,     "learn-commit",      "an incarnation that a kernel has heard of")       \
	/* extensions: every step of Commit passes one of these */                                  \
	X(EXT_SEND,         "ext-send",          "an extension posts, calls or answers")            \
	X(EXT_DELIVER,      "ext-deliver",       "a folder is given to an extension's inbox")       \
	X(JOURNAL_COMMIT,   "journal-commit",    "rows of an extension")                            \
	X(JOURNAL_JOURNALED, "journal-journaled", "the extension does not know yet")                \
	/* the writer thread */                                                                     \
	X(STORE_COMMIT,     "store-commit",      "a group is written and not yet committed")        \
	X(STORE_DURABLE,    "store-durable",     "it is on the disk, and nobody knows")             \
	/* a row of each table is about to be written; in the order of enum store_table */          \
	X(WRITE_META,       "write-meta",        "")                                                \
	X(WRITE_RESIDENT,   "write-resident",    "")                                                \
	X(WRITE_CODE,       "write-code",        "")                                                \
	X(WRITE_ANSWER,     "write-answer",      "")                                                \
	X(WRITE_GONE,       "write-gone",        "")                                                \
	X(WRITE_HOME,       "write-home",        "")                                                \
	X(WRITE_VOID,       "write-void",        "")                                                \
	X(WRITE_INCARNATION, "write-incarnation", "")                                               \
	X(WRITE_DECLARED,   "write-declared",    "")                                                \
	X(WRITE_NONCE,      "write-nonce",       "")                                                \
	X(WRITE_DIRECTORY,  "write-directory",   "")                                                \
	X(WRITE_TOKEN,      "write-token",       "")                                                \
	X(WRITE_ENROLLED,   "write-enrolled",    "")                                                \
	X(WRITE_PEER,       "write-peer",        "")                                                \
	X(WRITE_ACCOUNT,    "write-account",     "")                                                \
	X(WRITE_TRUST,      "write-trust",       "")                                                \
	X(WRITE_OUTBOX,     "write-outbox",      "")                                                \
	X(WRITE_DEDUP,      "write-dedup",       "")                                                \
	X(WRITE_JOURNAL,    "write-journal",     "")                                                \
	X(WRITE_CONTENT,    "write-content",     "")                                                \
	X(WRITE_ADMITTED,   "write-admitted",    "")                                                \
	X(WRITE_EXTENSION,  "write-extension",   "")                                                \
	X(WRITE_AUDIT,      "write-audit",       "")
/* clang-format on */

enum fault_point {
#define FAULT_ENUM(sym, name, text) FAULT_##sym,
	FAULT_POINTS(FAULT_ENUM)
#undef FAULT_ENUM
		FAULT_COUNT
};

#ifdef TOS_FAULTS
/* Maps the file, if it is there; of another table: abort, so that a test sees it. */
void fault_open(const char *path);
/* Does what the point's cell says. True: the step is to fail as if the disk were full. */
bool fault_at(unsigned point);
/* Added to the wall clock: as if somebody had set it. */
int64_t fault_clock_shift_ms(void);
#define FAULT_AT(sym)                  ((void)fault_at(FAULT_##sym))
#define FAULT_AT_EITHER(cond, yes, no) ((void)fault_at((cond) ? FAULT_##yes : FAULT_##no))
#define FAULT_FAILS(point)             fault_at(point)
#else
#define FAULT_AT(sym)                  ((void)0)
#define FAULT_AT_EITHER(cond, yes, no) ((void)0)
#define FAULT_FAILS(point)             (false)
#endif
