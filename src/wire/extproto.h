/*
 * Between a kernel and a tos-ext (descriptor 3, frames as on links); the isolated side of
 * include/tos/extension.h.
 *
 * kernel -> ext
 *   [64, {kernel, name, properties: {path: value}}]   EXT_START
 *   [65, inbox, kind, sender, token, deadline_ms, info map, folder]  EXT_DELIVER  token 0: no answer wanted
 *   [66]                                    EXT_STOP
 *   [67, seq, kind, folder]                 EXT_ANSWER  to a call that the extension made (answer or failure)
 * ext -> kernel
 *   [80, {abi: [major, minor], doc, inboxes: [...], name, privileges: [...], properties: [...]}]  EXT_HELLO
 *   [81]                                    EXT_STARTED
 *   [82, kind, dest, seq, deadline_ms, folder]  EXT_SEND
 *   [83, token, folder]                     EXT_REPLY
 *   [84, token, code, text]                 EXT_FAIL
 *   [85, inbox, n]                          EXT_TAKEN   so many folders left the queue
 *   [86, level, text]                       EXT_LOG
 *   [87, name, delta]                       EXT_COUNT
 *   [88, path, value]                       EXT_PROPERTY  a read-only property's new value
 *   [89, token, via]                        EXT_FORWARD  pass that post on through that kernel
 */
#pragma once

enum ext_frame {
	EXT_START = 64,
	EXT_DELIVER = 65,
	EXT_STOP = 66,
	EXT_ANSWER = 67,
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
};
