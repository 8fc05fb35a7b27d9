/*
 * Between a kernel and a tos-ext (descriptor 3, frames as on links); the isolated side of
 * include/tos/extension.h. Order: HELLO, START, STARTED or FAILED, then the rest.
 *
 * ext -> kernel
 *   [80, hello]                             EXT_HELLO   first, unasked
 *        hello = {abi: [major, minor], doc, inboxes: [{bound, doc, flags, name, protocol}...],
 *                 name, privileges: text, properties: [{doc, max, min, path, read_only, type,
 *                     unit, value}...]}
 *   [81]                                    EXT_STARTED its start() returned 0
 *   [82, kind, dest, seq, deadline_ms, folder]  EXT_SEND  kind one-way (seq 0) or call; seq
 *                                               ascends
 *   [83, token, folder]                     EXT_REPLY
 *   [84, token, code, text]                 EXT_FAIL    code: number of enum err, negated
 *   [85, inbox, n]                          EXT_TAKEN   so many folders left the queue
 *   [86, level, text]                       EXT_LOG
 *   [87, name, delta]                       EXT_COUNT
 *   [88, path, value]                       EXT_PROPERTY  a read-only property's new value
 *   [89, token, via]                        EXT_FORWARD  pass that post on through that kernel
 *   [90, code, text]                        EXT_FAILED  start() refused: not to be tried again
 *   [91]                                    EXT_DRAINED nothing was taken since, and nothing
 *                                           will be
 *   [92, number, host, port, timeout_ms]    EXT_CONNECT  numbers ascend; answered by CONNECTED
 *   [93, event, map]                        EXT_AUDIT
 *   [94, number, timeout_ms]                EXT_ACCEPT  the next connection to its address; numbers
 *                                           and answer as of CONNECT
 *   [95, n, came]                           EXT_WATCHING  so many descriptors are watched, so many
 *                                           sockets came in this life: whenever one of them changes
 * kernel -> ext
 *   [64, {kernel: text, places: [text], properties: {path: value}, seq: uint, trusted: bytes}]
 *                                                               EXT_START  seq: number of its
 *                                                               first call
 *   [65, inbox, sender, token, deadline_ms, info map, folder]   EXT_DELIVER  token 0: no answer
 *                                                               wanted
 *   [66]                                    EXT_STOP
 *   [67, seq, kind, folder]                 EXT_ANSWER  to a call that the extension made
 *                                           (answer or failure)
 *   [68]                                    EXT_DRAIN   another takes over its inboxes: it drops
 *                                           what it has not taken and says DRAINED; calls that
 *                                           it has taken it still answers
 *   [69, number, code, text]                EXT_CONNECTED  or accepted; code 0: its first byte brings the
 *                                           socket along (SCM_RIGHTS); else a failure, negated
 *   [71, path, value]                       EXT_SET     a property that is not read-only
 */
#pragma once

enum ext_frame {
	EXT_START = 64,
	EXT_DELIVER = 65,
	EXT_STOP = 66,
	EXT_ANSWER = 67,
	EXT_DRAIN = 68,
	EXT_CONNECTED = 69,
	EXT_SET = 71,
	EXT_HELLO = 80,
	EXT_STARTED = 81,
	EXT_SEND = 82,
	EXT_REPLY = 83,
	EXT_FAIL = 84,
	EXT_TAKEN = 85,
	EXT_LOG = 86,
	EXT_COUNT = 87,
	EXT_PROPERTY = 88,
	EXT_FORWARD = 89,
	EXT_FAILED = 90,
	EXT_DRAINED = 91,
	EXT_CONNECT = 92,
	EXT_AUDIT = 93,
	EXT_ACCEPT = 94,
	EXT_WATCHING = 95,
};

/* A frame between the two may hold a whole post and what stands around it. */
#define EXT_FRAME_BYTES_MAX ((1u << 20) + (64u << 10))
#define EXT_TEXT_BYTES_MAX  1024 /* of a log line or a failure */
