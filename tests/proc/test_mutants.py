"""Requests of the right shape with one thing wrong, to every inbox, from a client, from another kernel and from a carrier:
each call is answered once, the kernel and its isolated extensions live on, and the store is whole afterwards.

TOS_MUTANTS=N makes it N of each kind; TOS_MUTANTS_SEED another run."""
import json
import os
import random

import pytest

import wire
from conftest import fleet_fixture
from fleet import KERNEL, SANITIZED, wait_for

pytestmark = pytest.mark.skipif(not os.path.exists(KERNEL), reason="TOS_BUILD names no build with tos-kernel")
fleet = fleet_fixture(n=3)
N = int(os.environ.get("TOS_MUTANTS", 300 if SANITIZED else 600))
SEED = int(os.environ.get("TOS_MUTANTS_SEED", 1))
DIGEST, HANDLE, TX = wire.sha(b"x"), "ab" * 16, "host0/01a2022fce6538077c78"

# One good request for each verb, as far as whoever asks may be known to send it.
REQUESTS = {
    "Content": [
        ("HAS", {"digests": [DIGEST]}), ("GET", {"digest": DIGEST, "offset": 0, "max": 1000}), ("LIST", {"digest": DIGEST, "most": 5}),
        ("STAT", {"digest": DIGEST}), ("STAT", {}),
        ("PUT", {"digest": DIGEST, "offset": 0, "bytes": b"x", "size": 1, "last": True, "name": "n", "private": True}),
        ("CANCEL", {"digest": DIGEST}), ("FETCH", {"digest": DIGEST, "from": ["host1", "nobody"], "name": "n", "pin": True, "timeout_ms": 100}),
        ("DROP", {"digest": DIGEST}), ("ADMIT", {"digest": DIGEST, "kind": "program", "name": "n", "version": "1", "machine": "any", "expires": 0}),
        ("ADMIT", {"statement": b"\x84"}), ("CHECK", {"statements": [b"\x84", b""]}), ("WITHDRAW", {"digest": DIGEST}), ("ADMITTED", {}),
    ],
    "Executor": [
        ("RUN", {"program": "true", "args": ["a", 1], "env": {"A": "b"}, "stdin": "x", "input": True, "limits": {"memory": 1 << 26, "cpu": 1},
                 "output": "capture", "by": "line", "capture": 100, "wait": True, "name": "p", "stay": False, "network": False}),
        ("RUN", {"program": {"x86_64": "sha256:" + "ab" * 32, "any": "true"}, "dry": True}), ("WAIT", {"handle": HANDLE}),
        ("READ", {"handle": HANDLE}), ("WRITE", {"handle": HANDLE, "data": "x", "close": True}), ("SIGNAL", {"handle": HANDLE, "signal": "TERM"}),
        ("STOP", {"handle": HANDLE, "after": 0.1}), ("STATUS", {"handle": HANDLE}), ("LIST", {}),
    ],
    "Programs": [("START", {"for": "host0#1", "program": "true", "note": "n"}), ("READ", {"handle": HANDLE}), ("FORGET", {"handle": HANDLE})],
    "Commit": [
        ("BEGIN", {"name": "t", "phases": 2, "timeout_ms": 500, "admit": {"principals": ["a"], "carriers": ["host0#1"], "kernels": ["host1"]}}),
        ("JOIN", {"tx": TX, "inbox": "commit"}), ("PREPARE", {"tx": TX, "expect": 1, "data": {}, "dry": True, "timeout_ms": 100}),
        ("COMMIT", {"tx": TX, "wait": "done"}), ("ABORT", {"tx": TX, "text": "no"}), ("VOTE", {"tx": TX, "yes": True, "plan": {"a": 1}}),
        ("DONE", {"tx": TX, "result": 1}), ("STATUS", {"tx": TX}), ("LIST", {}), ("ENTER", {"tx": TX, "carrier": "host2#1", "e": [1, b"12345678"]}),
        ("OUTCOME", {"tx": TX, "carrier": "host2#1"}), ("ENDED", {"tx": TX, "carrier": "host2#1"}), ("POLL", {"tx": TX}),
        ("DECIDE", {"tx": TX, "decision": "abort"}), ("RESOLVE", {"tx": TX, "decision": "abort", "by": "x"}),
    ],
    "Journal": [
        ("PUT", {"key": "k", "value": 1, "expires": 1}), ("DROP", {"key": "k"}), ("BATCH", {"ops": [{"key": "k", "value": 1}, {"key": "l"}]}),
        ("GET", {"key": "k"}), ("LIST", {"prefix": "k", "after": b"k", "most": 3}), ("INFO", {}),
    ],
    "Spawner": [("CLONE", {"id": bytes(32), "dest": "host1", "limits": {"cpu": 1}}), ("SPAWN", {"id": bytes(32)})],
    "Shells": [("MOVE", {"id": bytes(32), "dest": "host1"}), ("SPAWN", {"id": bytes(32), "dest": "host1"}), ("FINISH", {"id": bytes(32)})],
    "Extender": [("INSTALL", {"package": b"\x82"}), ("INSTALL", {"package": DIGEST, "replace": True}), ("REMOVE", {"name": "x"}), ("LIST", {})],
    "Mobility": [("COMPLETED", {"id": bytes(32), "path": ["host1"]}), ("GO", {"dest": "host1"})],
    "Directory": [("REGISTER", {"name": "host9", "addresses": ["127.0.0.1:1"]}), ("LOOKUP", {"name": "host1"}), ("REMOVE", {"name": "x"}), ("LIST", {})],
    "Messenger": [("WHERE", {"name": "host0#1"})],
    "Handoff": [("OFFER", {"ticket": b"\x84", "parts": [DIGEST], "limits": {"cpu": 1}}), ("SEND", {"record": b"\x84"}), ("VOID", {"id": bytes(32)})],
    "Home": [("REPORT", {"id": bytes(32), "name": "host0#1", "state": "running", "e": [0, bytes(8)], "n": 1}), ("KNOWN", {"id": bytes(32)})],
    "Registrar": [("ENROLL", {"name": "x", "secret": bytes(16), "public_key": bytes(32), "address": "127.0.0.1:1"}), ("RENEW", {"public_key": bytes(32)})],
    "Control": [
        ("PS", {"all": True}), ("SHOW", {"name": "host0#1"}), ("OUTCOME", {"name": "host0#1", "wait_ms": 10}), ("LOG", {"name": "x", "after": 1, "most": 2}),
        ("GET", {"path": "/"}), ("CAN", {"who": "alice", "action": "run", "object": "x", "roles": ["owner"]}), ("AUDIT", {"after": 0, "most": 5}),
        ("LAUNCH", {"ticket": b"\x84", "code": b"\x82", "briefcase": b"\xa0"}), ("ACT", {"cose": b"\x84"}), ("ACCOUNTS", {"principal": "x"}),
    ],
    "Monitor": [("", ["filesystem", "/"])],
}

ODD = [None, True, False, 0, -1, 1, 2**31, 2**32, 2**53, 2**63 - 1, -2**63, 0.5, -1.0, 1e308, "", "x", "/", "..", "host0#1", "\x01", "é" * 40,
       "x" * 300, "y" * 70000, b"", b"\xff", bytes(31), bytes(32), bytes(33), bytes(4096), [], [[]], [1, "a", b"b"], ["x"] * 5000, {}, {"a": {"b": []}},
       {"x" * 200: 1}]


def nested(depth):
    return [nested(depth - 1)] if depth else {"deep": 1}


def mutant(rnd, value):
    """The same with one thing changed."""
    if rnd.random() < 0.25 or not isinstance(value, (dict, list)) or not value:
        return nested(rnd.randrange(1, 25)) if rnd.random() < 0.1 else rnd.choice(ODD)
    if isinstance(value, dict):
        out = dict(value)
        key = rnd.choice(list(value))
        how = rnd.randrange(4)
        if how == 0:
            del out[key]
        elif how == 1:
            out[rnd.choice(["x", "name", "digest", "for", "limits", "\x00"])] = rnd.choice(ODD)
        else:
            out[key] = mutant(rnd, value[key])
        return out
    out = list(value)
    at = rnd.randrange(len(out))
    out[at] = mutant(rnd, out[at])
    return out * rnd.choice([1, 1, 1, 2, 500]) if rnd.random() < 0.1 else out


def each(seed, n=N):
    rnd = random.Random(f"{SEED}/{seed}")
    for _ in range(n):
        inbox = rnd.choice(list(REQUESTS))
        verb, args = rnd.choice(REQUESTS[inbox])
        yield inbox, verb if rnd.random() < 0.97 else rnd.choice(["", "x", "RUN", "é"]), mutant(rnd, args)


@pytest.fixture(scope="module")
def domain(fleet):
    return wire.Domain(fleet.home)


@pytest.fixture(autouse=True)
def lives(fleet):
    """The same processes before and after, and a store that is whole."""
    def now():
        return {(name, what): sorted(fleet.processes(name, what)) for name in ("host0", "host1") for what in ("tos-kernel", "tos-ext")}

    before = now()
    yield
    assert now() == before
    for name in ("host0", "host1"):
        assert fleet.json("doctor", "--kernel", name), name
    assert fleet.outcome(fleet.launch(f"{'function begin(self) tos.call(%r, 1, 5) end' % 'host1/Echo'}"))["state"] == "finished"


def answers(client, at):
    """Every call has one answer; how many were not failures."""
    good = 0
    for inbox, verb, args in at:
        client.send(wire.CREDIT, 1, 1)
        try:
            client.call(inbox, verb, args, deadline_ms=200)
            good += 1
        except wire.Failure as e:
            assert e.code, e
    return good


def test_of_a_client(fleet, domain):
    with domain.client("host0") as c:
        good = answers(c, each("client"))
        assert 0 < good < N
        good = answers(c, ((f"host1/{inbox}", verb, args) for inbox, verb, args in each("client elsewhere", N // 4)))
        assert not [f for f in c.seen if f[0] == wire.POST and f[1] in (wire.ANSWER, wire.FAILURE)], "an answer too many"


def test_of_another_kernel(fleet, domain):
    fleet.tos("down", "host2")
    with domain.as_kernel("host2", "host0") as c:
        for inbox, verb, args in each("kernel"):
            c.send(wire.CREDIT, 1, 1)
            try:
                c.call(f"host0/{inbox}", verb, args, sender=f"host2/{inbox}", deadline_ms=200)
            except wire.Failure as e:
                assert e.code, e


def test_of_a_carrier(fleet, domain):
    """The mutants go along as bytes, and are asked from within."""
    calls = [[inbox, verb, args] for inbox, verb, args in each("carrier", N // 2) if inbox not in ("Control", "Registrar")]
    lua = """
    local function thaw(v)
        if type(v) ~= "table" then return v end
        if v.hex then return tos.bytes((v.hex:gsub("%x%x", function(two) return string.char(tonumber(two, 16)) end))) end
        local out = {}
        for k, x in pairs(v) do out[k] = thaw(x) end
        return out
    end
    function begin(self)
        for _, name in ipairs { "p", "capture", "commit" } do tos.inbox(name) end
        local answered, good = 0, 0
        for _, c in ipairs(tos.briefcase.CALLS:get()) do
            local ok, a, code = pcall(tos.call, c[1], thaw(c[3]), 0.2, { name = c[2] ~= "" and c[2] or nil })
            if ok and not a and not code then error(c[1] .. " " .. c[2] .. ": neither answer nor code") end
            answered, good = answered + 1, good + (ok and a and 1 or 0)
        end
        tos.briefcase:folder("RESULTS"):push { answered = answered, good = good }
    end"""

    def frozen(v):
        if isinstance(v, bytes):
            return {"hex": v.hex()}
        if isinstance(v, dict):
            return {k: frozen(x) for k, x in v.items()}
        return [frozen(x) for x in v] if isinstance(v, list) else v

    calls = [c for c in frozen(calls) if len(json.dumps(c)) < 2000 and "\\u0000" not in json.dumps(c)]
    fleet.file("calls.json", json.dumps({"CALLS": calls}))
    o = fleet.outcome(fleet.launch(lua, "--briefcase", "calls.json", "--limit", "cpu=1m", "--limit", "posts=100000", "--limit", "inbox=1000"))
    assert o["state"] == "finished" and o["briefcase"]["RESULTS"][0]["answered"] == len(calls), o["fault"]
    assert 0 < o["briefcase"]["RESULTS"][0]["good"] < len(calls)
    wait_for(lambda: not fleet.metric("host0", "tos_programs_running"))
