"""Commit: all act or none, whoever dies. The walk kills coordinator and participants at each step (each message and each
write of their Commit); make test takes a part of it, the soak all of it.
"""
import os
import random

import pytest

import faults
import wire
from conftest import fleet_fixture
from fleet import wait_for

pytestmark = pytest.mark.skipif(not os.path.exists(faults.FAULTY), reason="this build has no tos-kernel-faults (-Dfaults=true)")
SOAK = os.environ.get("TOS_SOAK") == "1"
EXTENSIONS = "".join(f'extension "{n}" {{ library = "{n.lower()}" where = "kernel" }}\n'
                     for n in ("Echo", "Mobility", "Messenger", "Directory"))
CONF = ('timing { retry = "200ms" ping = "500ms" silent = "3s" offer = "3s" report = "3s" restart = "100ms" }\n' + EXTENSIONS +
        'extension "Commit" { library = "commit" where = "kernel" property = {"/ask/ms=200"} }\n')
fleet = None
if os.path.exists(faults.FAULTY):
    fleet = fleet_fixture(n=3, rests=True, conf=CONF, prepare=faults.prepare, tos=faults.tree())

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
                mail:answer(d.args.reply or true)
                told[#told + 1] = { verb = mail.name, tx = mail.data.tx, plan = mail.data.plan, data = mail.data.data, dry = mail.data.dry,
                                    text = mail.data.text, answer = mail.data.answer }
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

    def told(self, *verbs, reply=None):
        """What comes to its inbox `commit`, until there was the last of these; answered with that."""
        seen = []
        wait_for(lambda: seen.extend(self("TOLD", _timeout=2, reply=reply)["told"]) or any(t["verb"] == verbs[-1] for t in seen), 20,
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
    wait_for(lambda: all(m["done"] for m in c("STATUS", tx=tx)["members"]), text="all have said so")
    for p in (c, *parts):
        p.end()


def test_who_has_a_certificate_sees_its_own_transactions(fleet):
    """An administrator sees all, and so do the local users whom a kernel lets read."""
    c, part = cast(fleet, "host0", "host0")
    tx = c("BEGIN", name="seen")["tx"]
    part("JOIN", tx=tx)
    owner = fleet.show(c.name)["owner"]
    domain = wire.Domain(fleet.home)
    for name, role in (("zoe", "owner"), ("ada", "admin")):
        fleet.tos("principal", "add", name, "--role", role)
    for name in ("zoe", "ada", owner):
        directory = f"{fleet.home}/keys/{name}"
        with wire.connect_tls(domain.address("host0"), f"{directory}/key", f"{directory}/cert") as link:
            link.hello(domain=domain.fingerprint.hex())
            seen = {r["role"] for r in link.call("host0/Commit", "LIST") if r["tx"] == tx}
            if name == "zoe":
                assert not seen and wire.failure(link.call, "host0/Commit", "STATUS", {"tx": tx}).code == "not-found"
            else:
                assert seen == {"coordinator", "participant"}, name
                assert link.call("host0/Commit", "STATUS", {"tx": tx})["tx"] == tx
    assert set(rows(fleet, "host0", tx)) == {"coordinator", "participant"}
    c("ABORT", tx=tx)
    for p in (c, part):
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


def test_the_answer_to_the_question_may_be_the_vote(fleet):
    """Yes with a plan; no; and what is none, which is a no."""
    c, a = cast(fleet, "host0", "host1")
    for reply, said in (({"yes": True, "plan": "p"}, None), ({"yes": False, "text": "no room"}, "no room"),
                        ({"yes": 1}, "its vote was none"), ({"yes": True, "plan": "x" * (17 << 10)}, "its vote was none")):
        tx = c("BEGIN")["tx"]
        a("JOIN", tx=tx)
        ready = c.start("PREPARE", tx=tx, expect=1)
        assert a.told("PREPARE", reply=reply)[-1]["answer"] is True
        got = ready.answer()
        if said:
            assert got["state"] == "aborted" and said in got["text"], got
            assert said in a.told("ABORT")[-1]["text"]
            continue
        assert got["state"] == "ready" and got["members"][0]["plan"] == "p", got
        assert a("VOTE", tx=tx, yes=True, plan="p")["state"] == "prepared", "a repeat"
        assert a.refusal("VOTE", tx=tx, yes=True, plan="another") == "diverged"
        assert c("COMMIT", tx=tx)["state"] == "committed"
        assert a.told("COMMIT")[-1]["plan"] == "p"
        a("DONE", tx=tx)
    for p in (c, a):
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
    open_to_all = c("BEGIN")["tx"]
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
            # One of its own making, of which it is the home: whose it is the owner has to have signed.
            with wire.Domain(fleet.home).client() as client:
                key = wire.Domain(fleet.home).principal("admin")
                other_ticket, _ = wire.launch(client, key, key)
            mine = wire.sign(wire.Domain(fleet.home).kernel("host2"), "ticket", {"name": "host2#7"})
            for tag, ticket in enumerate((None, b"", mine, other_ticket, wire.flip(other_ticket)), 500):
                k.post("host0/Commit", "ENTER", {"tx": open_to_all, "carrier": "host2#7", "e": [0, bytes(8)]}, kind=wire.CALL,
                       sender="host2/Commit", tag=tag)
                while True:
                    f = k.frame()
                    if f[0] == wire.POST and f[1] == wire.CALL and f[7][0] == "WHERE":
                        break
                answer = {"kernel": "host2", "owner": "admin", "state": "running", "ticket": ticket}
                k.post(f[3], "ok", answer, kind=wire.ANSWER, sender=f[2], tag=f[4])
                e = wire.failure(k.answer, tag)
                assert e.code == "denied" and "no ticket" in e.text, e
    finally:
        fleet.up()
    assert fleet.metric("host0", "tos_extension_events_total{extension=\"Commit\",name=\"forged_total\"}") >= 1
    assert "does not admit" in fleet.tos("audit", "--kernel", "host0")
    for p in (c, a, other, eve):
        p.end()


# ---- failures

def metric(fleet, kernel, name):
    return fleet.metric(kernel, f'tos_extension_events_total{{extension="Commit",name="{name}"}}')


def test_who_dies_before_its_vote_aborts_it(fleet):
    c, a, b = cast(fleet, "host0", "host1", "host2")
    tx = c("BEGIN")["tx"]
    for p in (a, b):
        p("JOIN", tx=tx)
    done = c.start("COMMIT", tx=tx, expect=2, timeout_ms=1500)
    a.told("PREPARE"), b.told("PREPARE")
    a("VOTE", tx=tx, yes=True)
    fleet.tos("kill", b.name)
    said = wire.failure(done.answer)
    assert said.code == "aborted" and f"{b.name} at host2" in said.text, said
    assert "no vote in time" in a.told("ABORT")[-1]["text"]
    for p in (c, a):
        p.end()


def test_the_carrier_that_began_it_may_die(fleet):
    """Before the decision: an abort by the deadline. After it: it stands, and is delivered."""
    for decided in (False, True):
        c, a = cast(fleet, "host0", "host1")
        tx = c("BEGIN", timeout_ms=2500)["tx"]
        a("JOIN", tx=tx)
        ready = c.start("PREPARE", tx=tx, expect=1)
        a.told("PREPARE")
        a("VOTE", tx=tx, yes=True)
        assert ready.answer()["state"] == "ready"
        if decided:
            fleet.freeze("host1")
            try:
                c.start("COMMIT", tx=tx)
                wait_for(lambda: rows(fleet, "host0", tx)["coordinator"]["state"] == "committed", text="it is decided")
                fleet.run("kill", c.name)
            finally:
                fleet.thaw("host1")
        else:
            fleet.tos("kill", c.name)
        assert a.told("COMMIT" if decided else "ABORT")
        a("DONE", tx=tx)
        a.end()


def test_a_participant_in_doubt_is_seen_and_settled(fleet):
    """The coordinator is away after the vote: seen as in doubt, settled by its return or by an operator's word."""
    for by_operator in (False, True):
        c, a = cast(fleet, "host1", "host2")
        tx = c("BEGIN", timeout_ms=2500)["tx"]
        a("JOIN", tx=tx)
        c.start("PREPARE", tx=tx, expect=1)
        a.told("PREPARE")
        fleet.down("host1")
        a("VOTE", tx=tx, yes=True)
        wait_for(lambda: rows(fleet, "host2", tx)["participant"]["state"] == "in-doubt", text="in doubt")
        wait_for(lambda: fleet.get("host2", "/Commit")["/Commit/in_doubt"] == 1)
        if by_operator:
            r = fleet.run("resolve", "--tx", tx, "commit")
            assert r.returncode == 1 and "--yes" in r.stderr and "may have decided otherwise" in r.stderr, r.stderr
            got = fleet.json("resolve", "--tx", tx, "commit", "--yes")
            assert [g["kernel"] for g in got] == ["host2"], got
            assert a.told("COMMIT")
            a("DONE", tx=tx)
            assert rows(fleet, "host2", tx)["participant"]["by"] == "admin"
            assert "resolve-tx" in fleet.tos("audit", "--kernel", "host2")
        fleet.up()
        if not by_operator:
            assert "began again" in a.told("ABORT")[-1]["text"]
            a("DONE", tx=tx)
        wait_for(lambda: fleet.get("host2", "/Commit")["/Commit/in_doubt"] == 0)
        assert fleet.run("resolve", "--tx", tx, "abort", "--yes").returncode == 1, "nobody is in doubt"
        a.end()


def member(c, tx):
    return c("STATUS", tx=tx)["members"][0]


def test_a_decision_is_kept_where_the_carrier_does_not_act(fleet):
    """COMMIT is answered when the kernel has heard it. It dies before it has written that down: in doubt, it asks, and its carrier is told
    again. Then it has it on its disk, and needs nobody any more."""
    c, a = cast(fleet, "host1", "host2")
    tx = c("BEGIN")["tx"]
    a("JOIN", tx=tx)
    ready = c.start("PREPARE", tx=tx, expect=1)
    a.told("PREPARE")
    a("VOTE", tx=tx, yes=True)
    ready.answer()
    fleet.faults["host2"].arm("journal-commit", faults.HOLD)
    assert c("COMMIT", tx=tx)["state"] == "committed"
    got = member(c, tx)
    assert got["told"] and not got["done"], got
    wait_for(lambda: fleet.faults["host2"].fired("journal-commit"), text="it is about to write")
    assert not member(c, tx)["kept"]
    fleet.freeze("host1")
    try:
        fleet.kill("host2")
        fleet.faults["host2"].disarm("journal-commit")
        wait_for(lambda: fleet.status("host2"), text="it is back")
        wait_for(lambda: rows(fleet, "host2", tx).get("participant", {}).get("state") == "in-doubt", text="in doubt")
    finally:
        fleet.thaw("host1")
    wait_for(lambda: member(c, tx)["kept"], text="it is on its disk")
    assert rows(fleet, "host2", tx)["participant"]["state"] == "committed"
    fleet.freeze("host1")
    try:
        fleet.kill("host2")
        wait_for(lambda: fleet.status("host2"), text="it is back")
        wait_for(lambda: rows(fleet, "host2", tx).get("participant", {}).get("state") == "committed", text="it asks nobody")
    finally:
        fleet.thaw("host1")
    assert a.told("COMMIT")
    a("DONE", tx=tx)
    wait_for(lambda: member(c, tx)["done"], text="its coordinator hears of it")
    for p in (c, a):
        p.end()


def test_a_coordinator_that_keeps_nothing_is_answered_from_the_disk(fleet):
    """DECIDE without `later`, as other versions send it; and with it, of a kernel that is no Commit of ours."""
    a = Puppet(fleet, "host1")
    fleet.down("host2")
    try:
        with wire.Domain(fleet.home).as_kernel("host2", "host1") as k:
            def call(verb, **args):
                k.tag += 1
                k.post("host1/Commit", verb, args, kind=wire.CALL, sender="host2/Commit", tag=k.tag, deadline_ms=10000)
                return k.tag

            for n, later in enumerate((False, True)):
                tx = f"host2/0190a1b2c3d4{n:08x}"
                a.start("JOIN", tx=tx)
                while True:
                    f = k.frame()
                    if f[0] == wire.POST and f[1] == wire.CALL and f[7][0] == "ENTER":
                        break
                k.post(f[3], "ok", {"state": "open", "phases": 2, "left_ms": 20000}, kind=wire.ANSWER, sender=f[2], tag=f[4])
                assert a.answer()["state"] == "joined"
                poll = call("POLL", tx=tx, carrier=a.name, dry=False, left_ms=20000)
                a.told("PREPARE", reply={"yes": True})
                assert k.answer(poll)["vote"] is True
                args = {"tx": tx, "carrier": a.name, "commit": True}
                if later:
                    args["later"] = True
                got = k.answer(call("DECIDE", **args))
                assert got.get("later", False) is later and not got.get("done"), got
                assert a.told("COMMIT")
                a("DONE", tx=tx)
                got = k.answer(call("DECIDE", **args))
                assert "later" not in got and got["done"] is True, got
    finally:
        fleet.up()
    a.end()


def test_a_retried_carrier_supersedes_itself(fleet):
    lua = """function begin(self)
        local r = assert(tos.call("Commit", { name = "again", timeout_ms = 30000 }, 5, { name = "BEGIN" }))
        tos.briefcase:folder("TX"):push(r.tx)
        if not tos.briefcase:has("OK") then tos.post("host0#1/x", r.tx) error(r.tx) end
    end"""
    name = fleet.launch(lua, "--path", "host1")
    fleet.wait_state(name, "faulted")
    first = fleet.show(name)["fault"]["text"].split()[-1]
    fleet.tos("retry", name)
    wait_for(lambda: len([1 for t in txs(fleet, "host1", name)]) == 2, text="it began anew")

    def states():
        return {t["tx"]: t["state"] for t in txs(fleet, "host1", name)}

    wait_for(lambda: sorted(states().values()) == ["aborted", "open"], text="the first is over, the second has begun")
    assert states()[first] == "aborted", states()
    fleet.tos("kill", name)


def txs(fleet, kernel, carrier):
    with wire.Domain(fleet.home).client(kernel) as c:
        return [r for r in c.call("Commit", "LIST") if r["carrier"] == carrier and r["role"] == "coordinator"]


def test_a_restored_coordinator_presumes_nothing(fleet):
    """A commit that its store forgot is not taken for an abort."""
    c, a = cast(fleet, "host1", "host2")
    fleet.tos("backup", "host1", "commit.backup")
    tx = c("BEGIN")["tx"]
    a("JOIN", tx=tx)
    ready = c.start("PREPARE", tx=tx, expect=1)
    a.told("PREPARE")
    a("VOTE", tx=tx, yes=True)
    ready.answer()
    fleet.freeze("host2")
    c.start("COMMIT", tx=tx)
    wait_for(lambda: rows(fleet, "host1", tx)["coordinator"]["state"] == "committed", text="it is decided")
    fleet.down("host1", hard=True)
    fleet.kill("host2")  # the decision has not come; when it begins again it loads its yes, and asks at once
    fleet.tos("restore", "commit.backup")
    fleet.up()
    wait_for(lambda: rows(fleet, "host2", tx).get("participant", {}).get("state") == "in-doubt", text="in doubt")
    before = metric(fleet, "host2", "asked_total")
    wait_for(lambda: metric(fleet, "host2", "asked_total") > before + 2, text="it asks, and is not told to abort")
    assert rows(fleet, "host2", tx)["participant"]["state"] == "in-doubt"
    fleet.tos("resolve", "--tx", tx, "commit", "--yes")
    wait_for(lambda: rows(fleet, "host2", tx)["participant"]["state"] == "committed")


# ---- the walk

COORDINATOR = """local commit = require "commit"
function begin(self)
    tos.sleep(0.2) -- so that tos launch is over when its kernel dies
    local r, code, text = commit.coordinate { name = "walk", expect = 2, timeout = 2.5, data = "v2", wait = tos.briefcase.WAIT[1], begun = function(tx)
        for _, to in ipairs(tos.briefcase.TO:get()) do tos.post(to .. "/tx", tx) end
    end }
    tos.briefcase.STATE = r and r.state or code
    tos.briefcase.TX = r and r.tx or text
end"""
PARTICIPANT = """local commit = require "commit"
function begin(self)
    if not self.tx then
        local mail = tos.inbox("tx"):next(6)
        self.tx = mail and mail.data
        if not self.tx then return end
        tos.checkpoint()
    end
    local state, why = commit.participant { tx = self.tx, timeout = 4,
        prepare = function(data) return { will = data } end,
        commit = function(plan) tos.briefcase.ACTED = plan.will return 1 end,
        abort = function() tos.briefcase.ACTED = "undone" end,
    }
    tos.briefcase.STATE = tostring(state)
    tos.briefcase.TX = self.tx
end"""
STEPS = ["ext-send", "ext-deliver", "journal-commit", "journal-journaled", "write-journal"]


def walk(fleet, killed):
    """One transaction, in which each kernel dies at its hit of a point: {kernel: (point, how many before)}."""
    parts = [fleet.launch(PARTICIPANT, "--path", k, name=f"p{k}.lua") for k in ("host1", "host2")]
    for name, k in zip(parts, ("host1", "host2")):
        wait_for(lambda n=name, k=k: fleet.residents(n).get(k, {}).get("state") == "running", text=f"{name} at {k}")
    for kernel, (point, skip) in killed.items():
        fleet.faults[kernel].arm(point, skip=skip)
    c = fleet.launch(COORDINATOR, "--data", f"TO={parts[0]}", "--data", f"TO={parts[1]}",
                     "--data", "WAIT=" + ("told" if sum(skip for _, skip in killed.values()) % 2 else "done"), name="c.lua")
    said = fleet.outcome(c)["briefcase"]
    acted = [fleet.outcome(p) for p in parts]
    fired = {k: fleet.faults[k].fired(p) for k, (p, _) in killed.items()}
    for k in killed:
        fleet.faults[k].disarm()
    states = [o["briefcase"].get("STATE", ["never"])[0] for o in acted]
    did = [o["briefcase"].get("ACTED", [None])[0] for o in acted]
    if "committed" in states or said["STATE"] == ["committed"]:
        assert said["STATE"] == ["committed"] and states == ["committed"] * 2 and did == ["v2"] * 2, (killed, said, states, did)
    else:
        assert "v2" not in did and said["STATE"][0] in ("aborted", "not-found"), (killed, said, states, did)
    return fired, states


def plan():
    every = [(k, p, n) for k, n_most in (("host0", 60), ("host1", 30)) for p in STEPS
             for n in range(0, n_most if p.startswith("ext") else 5)]
    if SOAK:
        return every
    chosen = [("host0", "journal-commit", 0), ("host0", "journal-journaled", 1), ("host0", "journal-commit", 1),
              ("host1", "journal-journaled", 0), ("host1", "journal-commit", 1)]
    rest = random.Random(7).sample([e for e in every if e[1].startswith("ext") and e[2] < (24 if e[0] == "host0" else 12)], 4)
    return chosen + rest


@pytest.mark.parametrize("kernel,point,skip", plan(), ids=str)
def test_all_or_none_whoever_dies_when(fleet, kernel, point, skip):
    both = {kernel: (point, skip)}
    fired, states = walk(fleet, both)
    for k in fleet.names:
        wait_for(lambda k=k: fleet.status(k), text=f"{k} is back")


def test_all_or_none_when_two_die(fleet):
    for seed in range(40 if SOAK else 1):
        r = random.Random(seed if SOAK else 3)
        walk(fleet, {"host0": (r.choice(STEPS), r.randrange(6)), "host1": (r.choice(STEPS), r.randrange(6))})
        for k in fleet.names:
            wait_for(lambda k=k: fleet.status(k), text=f"{k} is back")


def test_it_commits_where_nobody_dies(fleet):
    _, states = walk(fleet, {})
    assert states == ["committed"] * 2
    for point in STEPS:
        assert fleet.faults["host0"].hits(point) and fleet.faults["host1"].hits(point)
