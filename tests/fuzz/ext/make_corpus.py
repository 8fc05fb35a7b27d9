#!/usr/bin/env python3
"""Write the corpus of fuzz_extension: conversations as a tos-ext would lead them."""
import os
import struct
import sys

import cbor2


def frame(*item):
    data = cbor2.dumps(list(item), canonical=True)
    return struct.pack(">I", len(data)) + data


def hello(**changes):
    inbox = {"name": "Probe", "doc": "", "protocol": "", "flags": 0, "bound": 4}
    closed = {"name": "Closed", "doc": "", "protocol": "", "flags": 16, "bound": 0}
    prop = {"path": "late", "type": "int", "unit": "", "doc": "", "min": 0, "max": 9, "value": "1",
            "read_only": True}
    value = {"abi": [1, 0], "name": "probe", "doc": "d", "privileges": "",
             "inboxes": [inbox, closed], "properties": [prop]}
    value.update(changes)
    return frame(80, value)


BEGIN = hello() + frame(81)
CONVERSATIONS = {
    "silent": b"",
    "hello": hello(),
    "begin": BEGIN,
    "failed": hello() + frame(90, -11, "no"),
    "abi": hello(abi=[2, 0]),
    "privileges": hello(privileges="read-proc"),
    "work": BEGIN + frame(85, "Probe", 2) + frame(83, 1, ["", []]) + frame(84, 2, -14, "none") +
            frame(82, 0, "Echo", 0, 0, ["f", [1, "x"]]) + frame(86, 2, "line") +
            frame(87, "done", 3) + frame(88, "late", "7") + frame(89, 3, "host1"),
    "twice": BEGIN + frame(83, 1, ["", []]) + frame(83, 1, ["", []]),
    "taken": BEGIN + frame(85, "Probe", 4),
    "garbage": BEGIN + b"\xff\xff\xff\xff",
}

for name, data in CONVERSATIONS.items():
    with open(os.path.join(sys.argv[1], name), "wb") as f:
        f.write(data)
