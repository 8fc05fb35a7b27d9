/* The holder of a carrier tells its home (report.c). */
#pragma once

#include "kernel/kernel.h"

/* A resident whose home is this kernel or another has news. */
void home_report(struct resident *r);
/* It began to run. Its home elsewhere hears of that unless it has moved on by then. */
void home_report_soon(struct resident *r);
/* What shows the home that the carrier came here, into the arguments of a report. */
void home_evidence(struct resident *r, struct tos_value *args);
/* In the transaction that drops the row. */
void home_report_gone(struct store_txn *t, struct resident *r, uint64_t n, const char *dest);
/* A clone was made here: in its transaction, and once that is durable. */
void home_birth_put(struct store_txn *t, const struct resident *r);
void home_birth_send(const struct resident *r);
void home_ended(
	struct store_txn *t, struct resident *r, enum shell_state state, const char *why);
/* The report of its end still waits for the home. */
bool home_ended_waits(struct kernel *k, const char *name);
void home_event(struct kernel *k, const char *home, const char *name, const char *kind,
	const char *state, const char *text);
void reports_send(struct kernel *k, const char *peer); /* NULL: whoever can be reached */
