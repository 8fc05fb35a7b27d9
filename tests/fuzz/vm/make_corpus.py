#!/usr/bin/env python3
"""Writes corpus/state: states as an independent encoder makes them, and some that must be refused.
And corpus/library: calls of string and table, as fuzz_library.c reads them."""

import pathlib

import cbor2

CORPUS = pathlib.Path(__file__).parent / "corpus"
HERE = CORPUS / "state"


def main():
    HERE.mkdir(parents=True, exist_ok=True)
    plain = {"a": [1, -1, 2.5, "text", b"\xff", True, False, {"n": {}}], "seen": 3}
    cyclic = {}
    cyclic["self"] = cyclic
    cyclic["list"] = [cyclic, [cyclic]]
    states = {
        "empty": b"\xa0",
        "plain": cbor2.dumps(plain, canonical=True),
        "numbers": cbor2.dumps([0, 23, 24, 255, 256, 65536, 2**32, 2**63 - 1, -(2**63), 1e300, 1.5, float("inf")]),
        "cyclic": cbor2.dumps(cyclic, value_sharing=True),
        "shared": bytes.fromhex("a26161d81c8101616 2d81d00".replace(" ", "")),
        "tag-in-key": bytes.fromhex("a1d81c8001"),
        "reference-to-nothing": bytes.fromhex("d81d00"),
        "reference-to-later": bytes.fromhex("82d81d00d81c80"),
        "shared-text": bytes.fromhex("d81c6161"),
        "other-tag": bytes.fromhex("c100"),
        "nan-key": bytes.fromhex("a1f97e0001"),
        "null-key": bytes.fromhex("a1f601"),
        "nulls": bytes.fromhex("8301f603"),
        "huge-array": bytes.fromhex("9b7fffffffffffffff"),
        "huge-text": bytes.fromhex("7b7fffffffffffffff"),
        "deep": b"\x81" * 127 + b"\x80",
        "too-deep": b"\x81" * 300 + b"\x80",
        "indefinite": bytes.fromhex("9f01ff"),
        "long-form": bytes.fromhex("1800"),
        "keys-out-of-order": bytes.fromhex("a2616201616101"),
        "key-twice": bytes.fromhex("a2616101616102"),
        "int-and-float-key": bytes.fromhex("a201 01 f93c00 02".replace(" ", "")),
        "not-utf8": bytes.fromhex("61ff"),
    }
    for name, data in states.items():
        (HERE / name).write_bytes(data)
    library()
    port()


FIND, PLAIN, MATCH, GMATCH, GSUB, GSUB_TABLE, GSUB_CALL, REP, TURN, FORMAT = range(10)
CONCAT, SORT, INSERT, MOVE, UNPACK, SORT_CALL = range(10, 16)


def call(op, pattern, subject, replacement=b"", n=1, m=0, doublings=0):
    head = bytes([op, doublings, n & 255, m & 255, len(pattern), len(replacement)])
    return head + pattern + replacement + subject


def library():
    calls = {
        "find": call(FIND, b"(%a+)%s*=%s*(%d*)", b"  name = 42"),
        "find-plain": call(PLAIN, b"a.b", b"xxa.bxx", n=-4),
        "find-long": call(FIND, b"needle$", b"needle", doublings=14),
        "match-balance": call(MATCH, b"%b()(.-)%1", b"f(a(b)c)xyxy"),
        "match-frontier": call(MATCH, b"%f[%w]%w+%f[^%w]", b"the (quick) fox"),
        "match-set": call(MATCH, b"[]%-a-z^]+[^]a-]*()", b"]-az^b-]q"),
        "match-back": call(MATCH, b"(a*(.)%w(%s*))%2", b"aabb bb"),
        "match-malformed": call(MATCH, b"[a", b"a"),
        "match-escape-last": call(MATCH, b"a%", b"a"),
        "match-deep": call(MATCH, b"(" * 40, b"a"),
        "match-too-many-steps": call(MATCH, b".-" * 20 + b"b", b"a", doublings=9),
        "gmatch": call(GMATCH, b"()(%w)", b"a b c d e f g h i j"),
        "gmatch-anchor": call(GMATCH, b"^a*", b"aab"),
        "gsub": call(GSUB, b"(%w)(%w)", b"hello world", b"%2%1%0%%"),
        "gsub-long": call(GSUB, b"l+", b"hello world", b"[%0]", doublings=12),
        "gsub-empty": call(GSUB, b"", b"abc", b"-", m=2),
        "gsub-bad": call(GSUB, b"a", b"abc", b"%x"),
        "gsub-table": call(GSUB_TABLE, b"%w", b"abcab", b"c"),
        "gsub-call": call(GSUB_CALL, b"(.)(.)", b"abcdef", b"c"),
        "rep": call(REP, b"", b"abc", b", ", n=100, doublings=10),
        "turn": call(TURN, b"", b"aB\xff\x00z", doublings=15),
        "format": call(FORMAT, b"%s %5.1d %q %x %-8s %g %%", b"text", b"a\n\x00\"1"),
        "format-long-quote": call(FORMAT, b"%q %d %q %i %q", b"a\n\x01\"1\\", b"x", doublings=12),
        "format-malformed": call(FORMAT, b"%0100d %", b"text"),
        "concat": call(CONCAT, b"", b"abcdef", b", ", n=2, m=-1),
        "concat-slow": call(CONCAT, b"", b"abcdefg", b"+", m=1, doublings=9),
        "sort": call(SORT, b"", b"the quick brown fox jumps", doublings=8),
        "sort-call": call(SORT_CALL, b"", b"the quick brown fox jump.", m=1, doublings=8),
        "insert": call(INSERT, b"end", b"abcdef", b"new", n=3, m=2),
        "insert-long": call(INSERT, b"", b"abcdefg", b"new", n=1, m=1, doublings=10),
        "move-up": call(MOVE, b"1234", b"abcdefgh", n=1, m=100, doublings=10),
        "move-down": call(MOVE, b"", b"abcdefgh", b"12", n=3, m=100, doublings=10),
        "move-away": call(MOVE, b"12345", b"abcdefgh", b"1234", n=-3, m=9),
        "unpack": call(UNPACK, b"", b"abcdef", n=-2, m=9),
    }
    folder = CORPUS / "library"
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in calls.items():
        (folder / name).write_bytes(data)


RAW, START, DELIVER, DONE, END, PAUSE, LIMITS, TURN = range(8)
ECHO, GO, ASK, GREEDY, BUSY, BROKEN = range(6)


def port():
    def step(op, arg=0, carrier=1, data=b""):
        return bytes([carrier << 6 | op, arg]) + data

    def deliver(flags, tag, text, carrier=1):
        # The low six bits also say how many bytes: what is missing is cut.
        return step(DELIVER, flags | tag << 4, carrier, text.ljust((flags | tag << 4) & 63, b"."))

    turn = step(TURN)
    accepted = lambda seq: step(DONE, seq << 2)
    echo = step(START, ECHO) + turn + accepted(1) + turn
    conversations = {
        "echo": echo + deliver(4, 0, b"one") + turn + deliver(5, 2, b"two") + turn,
        "echo-full": echo + 5 * deliver(5, 3, b"many") + turn + turn + accepted(2) + turn,
        "inbox-refused": step(START, ECHO) + turn + step(DONE, 1 << 2 | 1) + turn,
        "no-such-inbox": step(START, GO) + deliver(5, 1, b"who") + turn,
        "go": step(START, GO) + turn + step(END),
        "go-refused": step(START, GO) + turn + step(DONE, 1 << 2 | 1) + turn + turn,
        "ask": step(START, ASK) + turn + deliver(2, 1, b"answer") + turn + deliver(3, 2, b"failure") + turn,
        "greedy": step(START, GREEDY) + turn + turn,
        "less-memory": step(START, GREEDY) + step(LIMITS, 20) + turn + turn,
        "busy": step(START, BUSY) + turn + step(PAUSE, 1) + turn + step(PAUSE, 0) + turn + turn,
        "broken": step(START, BROKEN) + turn,
        "several": b"".join(step(START, n, n) for n in range(4)) + 4 * turn + step(END, 0, 2) + turn,
        "twice": step(START, GO) + step(START, GO),
        "unknown": step(END, 0, 3),
    }
    frames = {
        "raw-start": [32, 1, {"name": "host0#1", "entry": "main.lua", "bundle": b"\x80"}],
        "raw-limits": [36, 1, {"memory": 2**62, "cpu": -1}],
        "raw-deliver": [33, 1, 1, "x", "a", 7, ["f", [1]]],
        "raw-done": [34, 1, 1, "denied", "", {"a": None}],
        "raw-cpu": [32, 1, {"limits": {"cpu": 2**63 - 1}, "usage": {"cpu": -1}}],
    }
    for name, frame in frames.items():
        data = cbor2.dumps(frame, canonical=True)
        before = b"" if frame[0] == 32 else echo
        conversations[name] = before + step(RAW, len(data), 1, data) + turn
    folder = CORPUS / "port"
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in conversations.items():
        (folder / name).write_bytes(data)


main()
