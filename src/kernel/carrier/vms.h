/* The tos-vm processes, and which carrier is in which (vms.c). */
#pragma once

#include "kernel/kernel.h"

enum vm_phase { VM_PHASE_SPAWNING, VM_PHASE_BOOTING, VM_PHASE_READY, VM_PHASE_DYING };
struct vm {
	uint32_t magic;
	struct kernel *k;
	uint64_t slot;
	enum vm_phase phase;
	struct stream *stream;
	bool closed; /* its stream has ended; tosd has not said yet how it did */
	int pid;
	bool died;
	bool spare; /* made ahead: nobody's yet, and in kernel.spares */
	int64_t asked_us;
	uint64_t address_bytes; /* its limit as a process */
	/* whose it is: owner, author, roles, and with how many it may be shared */
	char key[2 * CERT_NAME_MAX + 64];
	size_t company;        /* the most carriers in it */
	uint64_t memory_each;  /* the most that a carrier in it may be granted */
	struct map *carriers;  /* number -> struct resident */
	uint64_t newest;       /* no number that it was given is higher */
	int64_t idle_since_ms; /* monotonic; while `carriers` is empty */
	/* signs of life; times are of its own CPU clock */
	uint64_t n_frames, frames_seen;
	int64_t alive_cpu_us;
	uint64_t stuck; /* the carrier that it says it can't stop; 0 none */
	int64_t stuck_cpu_us;
	unsigned n_ending; /* carriers that it was told to forget and has not confirmed */
	int64_t ending_ms, ending_cpu_us;
	bool busy; /* it uses most of a processor */
	int64_t busy_at_ms, busy_cpu_us;
	int64_t told_cpu_us; /* what it says that its carriers have used */
};
#define VM_MAGIC 0x766d3031u
/* Finds a tos-vm, or asks tosd for one, and hands the carrier over. */
int vm_start(struct resident *r, struct errmsg *em);
/* The same ahead of vm_start(): it is made ready there, but nothing of it runs, and what becomes of
 * that tos-vm is nothing to it. It may fail without a word. */
void vm_prepare(struct resident *r);
/* It is not to run any more; r->vm becomes NULL at once. */
void vm_abandon(struct resident *r);
void vm_freeze(struct resident *r, bool freeze);
/* from: who is known to have sent it; NULL: not known, or an answer */
int vm_deliver(struct resident *r, enum post_kind kind, const char *inbox, const char *sender,
	uint64_t tag, struct slice folder, const struct origin *from);
int vm_done(struct resident *r, uint64_t seq, int rc, const char *text); /* rc 0: worked */
void vm_charge(struct resident *r, int64_t us); /* CPU time that others spent on it */
void vm_limits(struct resident *r);             /* they have changed */
uint64_t vm_cpu_us(const struct resident *r);   /* as far as it has been told */
void vm_told_usage(struct resident *r, uint64_t cpu_us);
uint64_t vm_memory_bytes(const struct resident *r);
/* From tosd. */
void vm_spawned(struct vm *v, int fd, int pid); /* takes fd */
void vm_failed(struct vm *v, int rc, const char *text);
void vm_died(struct vm *v, const struct tosd_died *d);
void vms_init(struct kernel *k);
void vms_tick(struct kernel *k, int64_t now_ms);
void spares_end(struct kernel *k);
