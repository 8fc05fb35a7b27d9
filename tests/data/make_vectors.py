#!/usr/bin/env python3
"""Golden vectors of everything on the wire, from an implementation that is not ours.

python3-cbor2 encodes the scalars; what makes the encoding deterministic (RFC 8949, section 4.2.1:
shortest heads, map keys in bytewise order) is written here once more from the RFC. Prints JSON: a list
of {"kind", "sha256", "hex"}. tests/data/wire.json is its output; the test compares both.
"""
import hashlib
import json
import sys

import cbor2

T0 = 1700000000000


class Tag:
    def __init__(self, number, value):
        self.number, self.value = number, value


def head(major, n):
    for size, info in ((1, 24), (2, 25), (4, 26), (8, 27)):
        if n < 24:
            return bytes([major << 5 | n])
        if n < 1 << 8 * size:
            return bytes([major << 5 | info]) + n.to_bytes(size, "big")
    raise ValueError(n)


def det(v):
    """The core deterministic encoding."""
    if isinstance(v, dict):
        pairs = sorted((det(k), det(x)) for k, x in v.items())
        return head(5, len(pairs)) + b"".join(k + x for k, x in pairs)
    if isinstance(v, (list, tuple)):
        return head(4, len(v)) + b"".join(det(x) for x in v)
    if isinstance(v, Tag):
        return head(6, v.number) + det(v.value)
    return cbor2.dumps(v, canonical=True)


def frame(*items):
    body = det(list(items))
    return len(body).to_bytes(4, "big") + body


def run(first, n):
    return bytes((first + i) & 255 for i in range(n))


FOLDER = ["greeting", ["Hello, World",
                       {"list": [-1, 1.5, 1.1, None, True], "a": run(0, 3), 1000: "thousand", -1: "minus"},
                       None]]
LIMITS = {"cpu": 10000, "memory": 16 << 20, "lifetime": 3600000, "hops": 64, "posts": 1000,
          "sent": 64 << 20, "state": 4 << 20, "inbox": 256, "clones": 0, "places": 0, "channels": 0,
          "programs": 0}
TICKET = {
    "alternate": "", "briefcase": run(3, 32), "code": run(2, 32), "expires": T0 + 3600000,
    "home": "host0", "issued": T0, "itinerant": True, "limits": LIMITS, "name": "host0#42",
    "nonce": run(1, 16), "options": {"fast": False, "on-unreachable": "wait=30000"},
    "path": ["host0", "host1|host2"],
}
HOP = {
    "dest": "host1", "e": [1, run(5, 8)], "from": "host0", "id": run(4, 32), "kind": 0, "n": 2,
    "parts": {"state": run(8, 32), "folder/RESULTS": run(9, 32), "path": run(10, 32)},
    "prev": run(6, 32), "suffix": ".1.3", "time": T0,
}
SEALED = {"CONFIG": run(11, 32)}
GROWN = {"RESULTS": [2, run(12, 32)], "LOG": [0, run(13, 32)]}
BRIEFCASE = {"RESULTS": ["one", 2], "": []}


def protected(*chain):
    return det({1: -8, 16: "application/tos-ticket", 33: chain[0] if len(chain) == 1 else list(chain)})


def cose(*chain):
    return det(Tag(18, [protected(*chain), {}, det(TICKET), run(64, 64)]))


LEAF, REGISTRAR = b"leaf certificate", b"registrar certificate"

VECTORS = {
    "folder": det(FOLDER),
    "post": frame(1, 1, "host1/Echo", "host0#42", 7, 2000, run(0, 16), FOLDER),
    "hello": frame(0, {
        "version": [1, 1], "name": "host0", "domain": "ab12", "boot": [3, run(16, 16)], "store": 1000,
        "seen": 99, "revocation": 2, "address": "127.0.0.1:21212", "audit": run(32, 32),
        "features": ["chunks"]}),
    "hello-audit": frame(0, {
        "version": [1, 2], "name": "host0", "domain": "ab12", "boot": [3, run(16, 16)], "store": 1000,
        "seen": 99, "revocation": 2, "audit": run(32, 32), "audit_seq": 2000, "boot_seen": [7, run(48, 16)],
        "seen_before": 70}),
    "hello-client": frame(0, {
        "version": [1, 2], "name": "", "domain": "", "boot": [0, bytes(16)], "store": 0, "seen": 0,
        "revocation": 0, "want": "panel"}),
    "credit": frame(2, 256, 16),
    "ping": frame(3, 2**63 - 1),
    "pong": frame(4, 5),
    "want": frame(5, run(1, 32), 65536),
    "chunk": frame(6, run(1, 32), 65536, 65540, run(7, 4)),
    "lack": frame(7, run(1, 32)),
    "vouch": frame(8, b"ticket", [b"first", b"second"]),
    "bye": frame(9, "wrong-version", "this kernel speaks 1 to 1"),
    "carry": frame(10, 12, 7, 0, "host0#42/replies", "host1#3", 0, 2000, b"", FOLDER),
    "taken": frame(11, 14, [[12, "moved", "host2"], [13, "full", "256 folders wait for host0#42"]]),
    "manifest": det({
        "name": "facts", "version": "1.2", "runtime": "lua5.4", "entry": "main.lua",
        "files": {"main.lua": run(0, 32), "a/b.lua": run(100, 32)},
        "limits": {"memory": 16 << 20, "cpu": 2000}, "permissions": ["Monitor", "Echo"],
        "issued": T0, "expires": T0 + 86400000}),
    "bundle": det([b"manifest", {"main.lua": b"function begin() end\n", "a/b.lua": b""}]),
    "ticket": det(TICKET),
    "ticket-sealed": det({**TICKET, "sealed": SEALED, "append": GROWN}),
    "hop": det(HOP),
    "hop-grown": det({**HOP, "grown": GROWN}),
    "hop-clone": det({**HOP, "kind": 2, "n": 0, "dest": "host0", "suffix": ".1.4",
                      "split": {"cpu": 5000, "hops": 31, "sent": 1 << 20, "clones": 7}}),
    "hop-fast": det({**HOP, "kind": 1, "boot": run(7, 16)}),
    "record": det([det(HOP), 2, [run(20, 32), run(21, 32), run(22, 32)], b"batch"]),
    "batch": det({"root": run(23, 32), "count": 5}),
    "briefcase": det(BRIEFCASE),
    "envelope": det({
        "briefcase": BRIEFCASE, "channels": [], "code": run(2, 32), "counters": {"cpu": 12, "hops": 1},
        "hops": [b"hop"], "log": [[T0, "host0", "hi there"]], "path": ["host2"],
        "state": det(Tag(28, [Tag(29, 0)])), "ticket": b"ticket", "trail": [{"kernel": "host0"}],
        "undelivered": [["replies", "host1/Echo", FOLDER]]}),
    "cose": cose(LEAF),
    "cose-chain": cose(LEAF, REGISTRAR),
    "statement": det({"digest": run(1, 32), "kind": "program", "name": "agent", "version": "1.10", "machine": "x86_64",
                      "issued": T0, "expires": 0}),
    "index": det([b"statement", b"another"]),
    "introduction": det({"client": "host0/client/7", "boot": run(16, 16), "issued": T0, "expires": T0 + 600000}),
    "package-entry": det({"abi": [1, 0], "files": {"x86_64": "probe-x86_64.so", "aarch64": "probe-aarch64.so"},
                          "where": "isolated", "inboxes": ["Probe"], "privileges": "read-proc"}),
    "cose-to-sign": det(["Signature1", protected(LEAF), b"", det(TICKET)]),
}


def main():
    rows = [{"kind": k, "sha256": hashlib.sha256(v).hexdigest(), "hex": v.hex()} for k, v in VECTORS.items()]
    json.dump(rows, sys.stdout, indent=1)
    print()


if __name__ == "__main__":
    main()
