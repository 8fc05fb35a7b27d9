"""Commit: all act or none, whoever dies. The walk kills coordinator and participants at each step (each message and each
write of their Commit); make test takes a part of it, the soak all of it.
"""
import json
import os
import random
import time

import pytest

import faults
import wire
from conftest import fleet_fixture
from fleet import BUILD, DEADLINE, KERNEL, QUICK, SANITIZED, wait_for

pytestmark = pytest.mark.skipif(not os.path.exists(faults.FAULTY), reason="this build has no tos-kernel-faults (-Dfaults=true)")
SOAK = os.environ.get("TOS_SOAK") == "1"
EXTENSIONS = "".join(f'extension "{n}" {{ library = "{n.lower()}" where = "kernel" }}\n'
                     for n in ("Echo", "Mobility", "Messenger", "Directory"))
CONF = ('timing { retry = "200ms" ping = "500ms" silent = "3s" offer = "3s" report = "3s" restart = "100ms" }\n' + EXTENSIONS +
        'extension "Commit" { library = "commit" where = "kernel" property = {"/ask/ms=200"} }\n')
fleet = None
if os.path.exists(faults.FAULTY):
    fleet = fleet_fixture(n=3, conf=CONF, prepare=faults.prepare, tos=faults.tree())

# Asks its Commit what it is told to, and says what it was told.
PUPPET = """
function begin(self)
    local orders, said = tos.inbox("do"), tos.inbox("commit")
    while true do
        local m = orders:next(600)
        local d = m and m.data or { verb = "END" }
        if d.verb == "END" then
            if m then m:answer(true) end
            return
        elseif d.verb == "TOLD" then
            local told = {}
            local mail = said:next(d.timeout or 5)
            while mail do
                mail:answer(true)
                told[#told + 1] = { verb = mail.name, tx = mail.data.tx, plan = mail.data.plan, data = mail.data.data, dry = mail.data.dry,
                                    text = mail.data.text }
                mail = said:poll()
            end
            m:answer({ { told = told } })
        else
            local answer, code, text = tos.call(d.to or "Commit", d.args, d.timeout or 20, { name = d.verb })
            if answer == nil then m:refuse(code, text) else m:answer({ answer }) end
        end
    end
end"""


class Puppet:
    def __init__(self, fleet, kernel, *args):
        self.fleet, self.kernel = fleet, kernel
        self.name = fleet.launch(PUPPET, "--path", kernel, "--limit", "cpu=60s", *args)
        wait_for(lambda: fleet.residents(self.name).get(kernel, {}).get("state") == "running", text=f"{self.name} is at {kernel}")

    def start(self, verb, **args):
        """Its answer is asked for later: answer()."""
        timeout, to = args.pop("_timeout", 20), args.pop("_to", None)
        self.link = wire.Domain(self.fleet.home).client()
        self.link.tag += 1
        order = {"verb": verb, "args": args, "timeout": timeout}
        if to:
            order["to"] = to
        self.link.post(f"{self.name}/do", "", order, kind=wire.CALL, tag=self.link.tag, deadline_ms=1000 * timeout + 5000)
        return self

    def answer(self):
        try:
            return self.link.answer(self.link.tag)
        finally:
            self.link.close()

    def __call__(self, verb, **args):
        return self.start(verb, **args).answer()

    def refusal(self, verb, **args):
        return wire.failure(self, verb, **args).code

    def told(self, *verbs):
        """What comes to its inbox `commit`, until there was the last of these."""
        seen = []
        wait_for(lambda: seen.extend(self("TOLD", _timeout=2)["told"]) or any(t["verb"] == verbs[-1] for t in seen), 20,
                 f"{self.name} is told {verbs}")
        return [t for t in seen if t["verb"] in verbs]

    def end(self):
        self("END")


def cast(fleet, *kernels):
    return [Puppet(fleet, k) for k in kernels]


def rows(fleet, kernel, tx):
    """What that kernel's Commit knows of it: role -> row."""
    with wire.Domain(fleet.home).client(kernel) as c:
        return {r["role"]: r for r in c.call("Commit", "LIST") if r["tx"] == tx}


# ---- one and two phases

@pytest.mark.skipif(not fleet, reason="no faults")
def test_all_act_on_the_coordinators_commit(fleet):
    """One phase, five carriers (EXT-9)."""
    c, *parts = cast(fleet, "host0", "host1", "host1", "host2", "host2", "host0")
    tx = c("BEGIN", phases=1)["tx"]
    assert tx.startswith("host0/")
    for p in parts:
        assert p("JOIN", tx=tx)["phases"] == 1
    assert c.refusal("PREPARE", tx=tx) == "wrong-state"
    assert c("COMMIT", tx=tx, expect=5)["state"] == "committed"
    for p in parts:
        assert [t["tx"] for t in p.told("COMMIT")][-1] == tx
        p("DONE", tx=tx, result=1)
    wait_for(lambda: all(m["done"] for m in c("STATUS", tx=tx)["members"]), 10, "all have said so")
    for p in (c, *parts):
        p.end()


def test_all_vote_yes_and_all_commit_what_they_voted(fleet):
    c, a, b = cast(fleet, "host0", "host1", "host2")
    tx = c("BEGIN", name="two")["tx"]
    assert c("BEGIN", name="two")["tx"] == tx, "a repeat"
    assert c.refusal("BEGIN", name="two", phases=1) == "diverged"
    assert c.refusal("STATUS", tx="host0/0000000000000000beef") == "not-found"
    for p in (a, b):
        p("JOIN", tx=tx)
        assert p.refusal("VOTE", tx=tx, yes=True) == "wrong-state", "nobody asked yet"
        assert p.refusal("DONE", tx=tx) == "wrong-state"
    ready = c.start("PREPARE", tx=tx, expect=2, data={"version": 2})
    for p in (a, b):
        asked = p.told("PREPARE")[-1]
        assert asked["data"] == {"version": 2} and asked["dry"] is False
        assert p("VOTE", tx=tx, yes=True, plan=["step", p.kernel])["state"] == "prepared"
        assert p("VOTE", tx=tx, yes=True, plan=["step", p.kernel])["state"] == "prepared", "a repeat"
        assert p.refusal("VOTE", tx=tx, yes=False) == "diverged"
        assert p.refusal("VOTE", tx=tx, yes=True, plan="another") == "diverged"
    got = ready.answer()
    assert got["state"] == "ready" and [m["plan"] for m in got["members"]] == [["step", "host1"], ["step", "host2"]]
    assert c("COMMIT", tx=tx)["state"] == "committed"
    for p in (a, b):
        assert p.told("COMMIT")[-1]["plan"] == ["step", p.kernel]
        assert p.refusal("VOTE", tx=tx, yes=True) == "committed", "the code names the decision"
        p("DONE", tx=tx)
        p("DONE", tx=tx)
    assert c.refusal("ABORT", tx=tx) == "committed"
    assert c("COMMIT", tx=tx, wait="done")["state"] == "committed"
    for p in (c, a, b):
        p.end()


def test_one_no_and_all_abort(fleet):
    c, a, b = cast(fleet, "host0", "host1", "host2")
    tx = c("BEGIN")["tx"]
    for p in (a, b):
        p("JOIN", tx=tx)
    done = c.start("COMMIT", tx=tx, expect=2)
    a.told("PREPARE"), b.told("PREPARE")
    a("VOTE", tx=tx, yes=True)
    assert b("VOTE", tx=tx, yes=False, text="the disk is full")["state"] == "aborted"
    said = wire.failure(done.answer)
    assert said.code == "aborted" and "the disk is full" in said.text and "host2" in said.text
    for p in (a, b):
        assert "the disk is full" in p.told("ABORT")[-1]["text"]
        p("DONE", tx=tx)
    assert b("VOTE", tx=tx, yes=False)["state"] == "aborted", "a repeat"
    assert b.refusal("VOTE", tx=tx, yes=True) == "aborted" and a.refusal("VOTE", tx=tx, yes=True) == "aborted"
    assert a.refusal("JOIN", tx="host0/0190a1b2c3d49f31c2aa") == "not-found"
    for p in (c, a, b):
        p.end()


def test_a_dry_run_says_what_each_would_do_and_does_nothing(fleet):
    c, a, b = cast(fleet, "host0", "host1", "host2")
    tx = c("BEGIN")["tx"]
    for p in (a, b):
        p("JOIN", tx=tx)
    ready = c.start("PREPARE", tx=tx, expect=2, dry=True)
    assert a.told("PREPARE")[-1]["dry"] is True and b.told("PREPARE")[-1]["dry"] is True
    a("VOTE", tx=tx, yes=False, text="no space")
    b("VOTE", tx=tx, yes=True, plan="would write")
    got = ready.answer()
    assert got["state"] == "aborted" and "dry run" in got["text"], got
    assert {m["kernel"]: (m["vote"], m.get("plan"), m.get("text")) for m in got["members"]} == {
        "host1": ("no", None, "no space"), "host2": ("yes", "would write", None)}
    assert b.told("ABORT") and c.refusal("COMMIT", tx=tx) == "aborted"
    for p in (c, a, b):
        p.end()


# ---- who may

def test_strangers_and_forgers_are_refused(fleet):
    fleet.tos("principal", "add", "eve", "--role", "owner,author")
    c, a = cast(fleet, "host0", "host1")
    eve = Puppet(fleet, "host1", "--as", "eve")
    tx = c("BEGIN", admit={"kernels": ["host1", "host0"]})["tx"]
    assert eve.refusal("JOIN", tx=tx) == "denied"
    a("JOIN", tx=tx)
    assert eve.refusal("VOTE", tx=tx, yes=True) == "not-found" and eve.refusal("STATUS", tx=tx) == "not-found"
    for verb in ("PREPARE", "COMMIT", "ABORT"):
        assert eve.refusal(verb, tx=tx) == "not-found" and a.refusal(verb, tx=tx) == "not-found"
    assert a.refusal("VOTE", tx=tx, yes=True, _to="host0/Commit") == "denied", "only where it is"
    other = Puppet(fleet, "host0")
    assert other.refusal("COMMIT", tx=tx) == "denied", "another carrier of the same owner"
    away = Puppet(fleet, "host2")
    assert away.refusal("JOIN", tx=tx) == "denied", "not from that kernel"
    with wire.Domain(fleet.home).client() as client:
        for verb in ("ENTER", "POLL", "DECIDE", "RESOLVE", "VOTE", "BEGIN"):
            assert wire.failure(client.call, "Commit", verb, {"tx": tx}).code == "denied"
    # A kernel that claims to have a carrier that is elsewhere, and another's participant.
    fleet.down("host2")
    try:
        with wire.Domain(fleet.home).as_kernel("host2", "host0") as k:
            enter = {"tx": tx, "carrier": other.name, "e": [0, bytes(8)]}
            assert wire.failure(k.call, "host0/Commit", "ENTER", enter, sender="host2/Commit").code == "denied"
            ended = {"tx": tx, "carrier": a.name}
            assert wire.failure(k.call, "host0/Commit", "ENDED", ended, sender="host2/Commit").code == "not-found"
            assert wire.failure(k.call, "host0/Commit", "ENTER", enter, sender="host2/Evil").code == "denied"
    finally:
        fleet.up()
    assert fleet.metric("host0", "tos_extension_events_total{extension=\"Commit\",name=\"forged_total\"}") >= 1
    assert "does not admit" in fleet.tos("audit", "--kernel", "host0")
    for p in (c, a, other, eve):
        p.end()
