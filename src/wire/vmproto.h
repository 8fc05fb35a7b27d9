/*
 * Between a kernel and a tos-vm (descriptor 3, frames as on links). Every frame names the
 * carrier it is about by a number that the kernel chose, so that one tos-vm can hold several.
 *
 * The tos-vm is hostile as soon as it runs a carrier: the kernel bounds and checks everything
 * here and ends it at the first frame that is out of order.
 *
 * kernel -> vm
 *   [32, c, start map]        START   take the carrier and run it
 *   [33, c, kind, inbox, sender, tag, folder, owner, class]  DELIVER  a post (kind as in frame.h); inbox is
 *                                              the part behind the slash, "" for answers to a
 *                                                  call
 *                                    owner, class: of the sender, as the kernel knows; "" not known
 *   [34, c, seq, code, text, value]  DONE   answer to GO, CHECKPOINT, INBOX, SLEEP-less
 *                                    requests; code "" means it worked. A GO that was accepted
 *                                        is not answered: END comes
 *   [35, c]                   END     forget the carrier
 *   [36, c, limits, usage]    LIMITS  limits and clones changed; both {name: int}
 *   [37, c, bool]             PAUSE   suspended: not to run, not even to the end of its slice;
 *                                     false: go on
 *   [38, c, us]               CHARGE  the kernel has used so much CPU time for it
 *   [39, c]                   RUN     once, where START said `held`: now it may
 * vm -> kernel
 *   [48, version]             READY   sandbox on, libraries there
 *   [49, c]                   STARTED top-level chunk is about to run
 *   [50, c, kind, dest, tag, deadline_ms, folder]  SEND  a post or a call
 *   [51, c, seq, dest, frozen]  GO       dest "" means the next entry of the path
 *   [52, c, frozen]           FINISHED begin returned
 *   [53, c, code, text, traceback, frozen | null]  FAULT    code is an error word; text names
 *                                                  file:line
 *   [54, c, seq, frozen]      CHECKPOINT
 *   [55, c, level, text]      LOG
 *   [56, c, seq, open: bool, name, bound]  INBOX  open or close NAME/x
 *   [57, c, inbox, n]         TAKEN    n folders were taken out of that inbox
 *   [58, c, cpu_us, memory_bytes]  USAGE   each 50 ms of its CPU time, and before GO, FINISHED,
 *                                          FAULT
 *   [59, c, cpu_us]           FORGOTTEN  the answer to END: nothing more of c comes
 *   [61, c, seq, dest, split, frozen]  CLONE  dest "" means the next entry of the path; split is
 *                                     {name: int} of what the clone is to get; DONE's text is its name
 *   [60, c]                   STUCK   c runs, and can neither be paused nor ended
 *
 * start map = {begun: bool, briefcase, bundle: bstr, cpu_us, entry: tstr (file in the bundle),
 * function: tstr ("begin"), held: true (it is made ready, but nothing of it runs before RUN; if that can't be
 * done FAULT comes at once) | absent, home, kernel, limits: {name: int}, name, owner, parent: tstr ("": no
 * clone), path: [tstr],
 * seals: {folder: "sealed" | "append"}, state: bstr, usage: {name: int}, failure: [code, text] | absent} frozen = {briefcase, path:
 * [tstr], state: bstr}
 */
#pragma once

enum vm_frame {
	VM_START = 32,
	VM_DELIVER = 33,
	VM_DONE = 34,
	VM_END = 35,
	VM_LIMITS = 36,
	VM_PAUSE = 37,
	VM_CHARGE = 38,
	VM_RUN = 39,
	VM_READY = 48,
	VM_STARTED = 49,
	VM_SEND = 50,
	VM_GO = 51,
	VM_FINISHED = 52,
	VM_FAULT = 53,
	VM_CHECKPOINT = 54,
	VM_LOG = 55,
	VM_INBOX = 56,
	VM_TAKEN = 57,
	VM_USAGE = 58,
	VM_FORGOTTEN = 59,
	VM_STUCK = 60,
	VM_CLONE = 61,
};
#define VM_PROTOCOL 1
