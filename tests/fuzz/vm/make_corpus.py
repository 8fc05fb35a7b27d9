#!/usr/bin/env python3
"""Writes corpus/state: states as an independent encoder makes them, and some that must be refused."""

import pathlib

import cbor2

HERE = pathlib.Path(__file__).parent / "corpus" / "state"


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


main()
