"""What comes between two steps: reports, arrivals and ends that meet a transaction that is still being written, and answers that
never came. Most of these the model of the hand-off (doc/model/) found before any test did.

host2's key is in the hands of this test (rogue.py). The writer thread of a kernel is held (HOLD of src/base/fault.h) while its
loop goes on.
"""
import hashlib
import os
import signal
import sqlite3
import time

import pytest

import faults
import wire
from conftest import fleet_fixture
from faults import FAIL, HOLD
from fleet import QUICK, events, wait_for
from rogue import ident, payload, fixtures as rogue_fixtures

pytestmark = pytest.mark.skipif(not os.path.exists(faults.FAULTY), reason="this build has no tos-kernel-faults (-Dfaults=true)")
CONF = {"timing": dict(QUICK["timing"], silent="20s", call="1s", report="10s", restart="100ms", offer_again="0")}
fleet = fleet_fixture(n=5, rests=True, conf=CONF, prepare=faults.prepare, tos=faults.tree()) if os.path.exists(faults.FAULTY) else None

WAITS = "function begin(self) if tos.kernel() == 'host4' or tos.kernel() == HERE then tos.inbox('on'):next(3600) end end\n"


domain, rogue = rogue_fixtures()


@pytest.fixture(autouse=True)
def nothing_is_held(fleet, rogue):
    yield
    for f in fleet.faults.values():
        f.disarm()


def launch(domain, *path, here="''"):
    carol = domain.principal("carol")
    with domain.client() as c:
        return wire.launch(c, carol, carol, path=list(path), source=WAITS.replace("HERE", here))[1]["name"]


def at_host2(domain, rogue, *then, **kw):
    """A carrier that has come to host2, as its home knows; it would go on to these."""
    rogue.link("host0")
    name = launch(domain, "host2", *then, **kw)
    assert rogue.take() == name
    rogue.report(name, n=1, state="running", in_doubt=False)
    return name


def never_answered(fleet, domain, rogue, *then, **kw):
    """One that host1 has sent to host2, which took it without a word."""
    rogue.link("host1")
    name = launch(domain, "host1", "host2", *then, **kw)
    assert rogue.take("host1", answers=False) == name
    return name


def rows(fleet, kernel, table, key=None):
    with sqlite3.connect(f"file:{fleet.home}/kernels/{kernel}/store.db?mode=ro", uri=True) as db:
        keys = [bytes(k) if isinstance(k, bytes) else k.encode() for k, in db.execute(f"SELECT key FROM {table}")]
        return len([k for k in keys if key in (None, k.decode(errors="replace"))])


def later(c, dest, verb, args):
    """Ask now; the tag by which the answer is to be had."""
    c.tag += 1
    c.post(dest, verb, args, kind=wire.CALL, sender="host2/Kernel", tag=c.tag)
    return c.tag


def about(rogue, name, **args):
    hop, envelope, _ = rogue.sent[name]
    return {"name": name, "id": ident(envelope["ticket"]), "e": payload(hop)["e"], "hop": hop, **args}


def held(fleet, kernel, point, what):
    """The tag of what was asked for, when the writer of that kernel is held over it."""
    fleet.faults[kernel].arm(point, HOLD)
    tag = what()
    wait_for(lambda: fleet.faults[kernel].fired(point), text=f"{kernel} is held at {point}")
    return tag


def goes_on(fleet, kernel):
    fleet.faults[kernel].disarm()


def declared_dead(fleet, kernel):
    """By all that can be asked; that one itself can't."""
    fleet.run("resolve", "--dead", kernel, "--timeout", "2s")
    assert rows(fleet, "host0", "declared", kernel) == 1


def killed(fleet, name):
    fleet.run("kill", name)
    wait_for(lambda: fleet.state(name) in ("killed", "lost", "finished"))


def test_an_older_copy_stays_until_it_is_written_down_that_the_later_one_is_here(fleet, domain, rogue):
    name = never_answered(fleet, domain, rogue, "host1")
    n = payload(rogue.sent[name][0])["n"] + 1
    fleet.faults["host1"].arm("write-answer", FAIL)
    assert wire.failure(rogue.depart, name, "host1", n).code == "store"
    row = fleet.ps("host1")[name]
    assert row["state"] == "departing" and row["kernel"] == "host1"  # as before: it is asked for again, and killed if need be

    def taken():
        """A store that refused a write admits nothing until one has worked."""
        nonlocal n
        answer = rogue.depart(name, "host1", n)
        assert answer["answer"] == "accepted" or answer["code"] == "store", answer
        n += 1
        return answer["answer"] == "accepted"
    wait_for(taken, text="the later copy is taken")
    o = fleet.outcome(name)
    assert o["state"] == "finished" and events(o, "arrived") == ["host1", "host1"], o["trail"]
    wait_for(lambda: not fleet.ps("host1").get(name) or fleet.ps("host1")[name]["state"] == "finished")


def test_a_void_is_said_until_it_is_answered_and_passed_on_along_gone_records(fleet, domain, rogue):
    """The home is away: only the kernels that had the carrier can tell the one that has it."""
    fleet.outcome(fleet.launch("return 1", "--path", "host3,host4"))  # now it can reach host4 without asking where that is
    name = never_answered(fleet, domain, rogue, "host3", "host4")
    rogue.unlink("host1")
    wait_for(lambda: fleet.ps("host1").get(name, {}).get("in_doubt"), text="host1 is in doubt")
    wait_for(lambda: not any(k["name"] == "host2" and k["linked"] for k in fleet.json("kernels")), text="host2 is away")
    declared_dead(fleet, "host2")
    wait_for(lambda: not fleet.ps("host1").get(name, {}).get("in_doubt", True), text="host1 may go on")
    fleet.freeze("host0")
    try:
        # What host2 had moves on from there, twice.
        assert rogue.depart(name, "host3", payload(rogue.sent[name][0])["n"] + 1)["answer"] == "accepted"
        wait_for(lambda: fleet.ps("host4").get(name, {}).get("state") == "running", text="host4 has it")
        # host1 tells host2, and again while that says nothing, over a link that stays up.
        began = time.monotonic()  # before the first can have been sent
        c, voids = rogue.link("host1"), []
        while len(voids) < 3:
            f = c.frame(30)
            if f[0] == wire.POST and f[1] == wire.CALL and f[7][0] == "VOID":
                voids.append(f)
                rogue.used["host1"] = time.monotonic()
        assert 2 < time.monotonic() - began and len({str(f[7]) for f in voids}) == 1
        f = voids[-1]
        c.send(wire.POST, wire.ANSWER, f[3], "host2/Handoff", f[4], 0, b"", ["ok", [{}]])
        wait_for(lambda: rows(fleet, "host1", "void") == 0, text="host1 is content")
        # host2 passes it on, so does host3, which has a gone record only.
        assert name not in fleet.ps("host3")
        assert rogue.tell("host3", "Handoff", "VOID", **f[7][1][0]) == {}
        wait_for(lambda: fleet.ps("host4").get(name, {}).get("state") != "running", text="host4 ends its copy")
        wait_for(lambda: rows(fleet, "host3", "void") == 0, text="host3 is content")
    finally:
        fleet.thaw("host0")
    wait_for(lambda: fleet.status("host0"))
    assert list(fleet.residents(name)) == ["host1"] and fleet.show(name)["kernel"] == "host1"
    killed(fleet, name)


def test_while_an_end_is_written_down_nothing_else_of_the_carrier_is(fleet, domain, rogue):
    name = at_host2(domain, rogue)
    c = rogue.link("host0")
    outcome = held(fleet, "host0", "store-commit",
                   lambda: later(c, "host0/Handoff", "SEND", rogue.record(name, "host0", 1, kind=1)))
    # A report that came a moment later used to write the home's record as it had been.
    assert wire.failure(rogue.report, name, n=1, state="running", in_doubt=False).code == "wrong-state"
    assert wire.failure(rogue.report, name, "ASK", n=0, dest="host4").code == "wrong-state"
    assert wire.failure(rogue.report, name, "GONE", n=1, dest="host3").code == "wrong-state"
    assert wire.failure(rogue.report, name, "ENDED", state="killed", why="x").code == "wrong-state"
    assert fleet.state(name) == "running"  # nor is anybody told
    goes_on(fleet, "host0")
    assert c.answer(outcome)["answer"] == "accepted"
    assert fleet.state(name) == "finished"
    fleet.kill("host0")
    rogue.unlink("host0")
    wait_for(lambda: fleet.status("host0"))
    assert fleet.state(name) == "finished"


def test_who_is_revoked_while_an_end_is_written_down_ends_so(fleet, domain):
    """There is nothing to kill any more; the kernel used to try that for ever."""
    fleet.tos("principal", "add", "erin", "--role", "owner,author")
    erin = domain.principal("erin")
    with domain.client() as c:
        name = wire.launch(c, erin, erin, source="function begin(self) tos.inbox('on'):next(3600) end\n")[1]["name"]
    wait_for(lambda: fleet.state(name) == "running", text="it runs")
    lists, ends = fleet.log_text("host0").count("revocation list"), fleet.faults["host0"].hits("outcome-here-commit")
    held(fleet, "host0", "store-commit", lambda: fleet.tos("post", f"{name}/on", "go"))
    wait_for(lambda: fleet.faults["host0"].hits("outcome-here-commit") > ends, text="its end is being written down")
    revoke = fleet.start("principal", "revoke", "erin")
    wait_for(lambda: fleet.log_text("host0").count("revocation list") > lists, text="host0 has the list")
    goes_on(fleet, "host0")
    assert revoke.wait(30) == 0
    assert fleet.state(name) == "finished"


def test_an_answer_that_cannot_be_read_is_not_another_one(fleet, domain, rogue):
    """The journal says nothing of a record that was accepted: it used to be refused, and two kernels had the carrier."""
    name = at_host2(domain, rogue)
    record = rogue.record(name, "host4", 1)
    assert rogue.tell("host4", "Handoff", "SEND", **record)["answer"] == "accepted"
    fleet.faults["host4"].arm("answer-looked", FAIL)
    assert wire.failure(rogue.tell, "host4", "Handoff", "SEND", **record).code == "store"
    assert rogue.tell("host4", "Handoff", "SEND", **record)["answer"] == "accepted"
    killed(fleet, name)


def test_while_an_incarnation_is_raised_nothing_else_of_the_carrier_is_taken(fleet, domain, rogue):
    name = at_host2(domain, rogue, "host9")
    declared_dead(fleet, "host9")  # it never was
    c = rogue.link("host0")
    ask = about(rogue, name, n=1, dest="host9")
    first = held(fleet, "host0", "store-commit", lambda: later(c, "host0/Home", "ASK", ask))
    assert wire.failure(rogue.report, name, n=2, state="running", in_doubt=False).code == "wrong-state"
    assert wire.failure(rogue.report, name, "ENDED", state="killed", why="x").code == "wrong-state"
    outcome = rogue.record(name, "host0", 2, kind=1)
    assert wire.failure(rogue.tell, "host0", "Handoff", "SEND", **outcome).code == "wrong-state"
    # A copy of the old incarnation comes home all the same: its home is also a kernel like any other.
    home = later(c, "host0/Handoff", "SEND", rogue.record(name, "host0", 1))
    goes_on(fleet, "host0")
    granted = c.answer(first)
    assert granted["answer"] == "granted" and granted["e"][0] == 1
    assert c.answer(home)["answer"] == "accepted"
    # Its answer got lost: the holder asks anew and hears the same, whatever was reported meanwhile.
    assert rogue.report(name, n=1, state="departing", in_doubt=True)["e"] == granted["e"]
    assert c.call("host0/Home", "ASK", ask, sender="host2/Kernel") == granted
    # And the old copy that ends at home does not end the carrier.
    wait_for(lambda: "host0" not in fleet.residents(name), text="the old copy is over")
    assert fleet.state(name) not in ("finished", "lost") and fleet.show(name)["kernel"] == "host2"


def test_lost_is_told_when_it_is_written_down(fleet, domain, rogue):
    name = at_host2(domain, rogue)
    rogue.unlink("host0")
    wait_for(lambda: not any(k["name"] == "host2" and k["linked"] for k in fleet.json("kernels")), text="host2 is away")
    fleet.faults["host0"].arm("write-home", HOLD)
    resolve = fleet.start("resolve", "--dead", "host2", "--timeout", "30s")
    wait_for(lambda: fleet.faults["host0"].fired("write-home"), text="it is being written")
    assert fleet.state(name) == "running"
    # Its holder, back in this moment, is not told to end its copy.
    assert "wanted" not in (rogue_says(rogue, name) or {})
    goes_on(fleet, "host0")
    resolve.wait(30)
    wait_for(lambda: fleet.state(name) == "lost")


def rogue_says(rogue, name):
    try:
        return rogue.report(name, n=1, state="running", in_doubt=False)
    except wire.Failure as e:
        assert e.code == "wrong-state", e


def test_a_kernel_that_is_linked_is_not_dead_whatever_is_still_written(fleet, domain, rogue):
    name = never_answered(fleet, domain, rogue, "host3")
    rogue.unlink("host1")
    wait_for(lambda: fleet.ps("host1").get(name, {}).get("in_doubt"), text="host1 is in doubt")
    wait_for(lambda: not any(k["name"] == "host2" and k["linked"] for k in fleet.json("kernels")), text="host2 is away")
    fleet.freeze("host1")
    try:
        declared_dead(fleet, "host2")
        fleet.faults["host0"].arm("write-declared", HOLD)
        rogue.link("host0")
        wait_for(lambda: fleet.faults["host0"].fired("write-declared"), text="the declaration is being lifted")
    finally:
        fleet.thaw("host1")
    assert rows(fleet, "host0", "declared", "host2") == 1
    wait_for(lambda: fleet.status("host1"))
    # It may be asking by itself just then.
    r = wait_for(lambda: (r := fleet.run("resolve", name)).returncode == 1 and "is being asked" not in r.stderr and r)
    assert "nobody declared dead" in r.stderr, r.stderr
    assert fleet.ps("host1")[name]["in_doubt"]
    goes_on(fleet, "host0")
    wait_for(lambda: rows(fleet, "host0", "declared", "host2") == 0)


# ---- content

def test_what_two_put_at_once_is_answered_when_it_is_durable(fleet, domain):
    """Both bring the same bytes while the writer is held; then the kernel dies: neither was told that it is there."""
    lua = """function begin(self)
        tos.inbox("go"):next(3600)
        tos.log("puts")
        local a, code = tos.call("Content", { digest = "%s", offset = 0, size = 5, bytes = "bytes" }, 30, { name = "PUT" })
        tos.log(a and a.done and "it is there" or "failed", code)
    end"""
    digest = hashlib.sha256(b"bytes").hexdigest()
    names = [fleet.launch(lua % digest, "--as", who) for who in ("admin", "carol")]
    for n in names:
        fleet.wait_state(n, "running")
    fleet.faults["host0"].arm("store-durable", HOLD)
    wait_for(lambda: fleet.faults["host0"].fired("store-durable"))
    for n in names:
        fleet.tos("post", f"{n}/go", "now")
    wait_for(lambda: all("puts" in fleet.tos("log", n) for n in names))
    # Each is a call that the kernel answers when the files are written; a third, later, is behind them.
    where = f"{fleet.home}/kernels/host0/content"
    wait_for(lambda: os.listdir(where) == [digest], text="both files have become one")
    assert fleet.json("content", "list") == []
    said = [fleet.tos("log", n) for n in names]
    fleet.kill("host0")
    goes_on(fleet, "host0")
    wait_for(lambda: fleet.status("host0"))
    assert not any("it is there" in text for text in said)
    assert digest not in [row["digest"] for row in fleet.json("content", "list")]
    for n in names:
        killed(fleet, n)


def test_what_is_put_again_after_it_was_dropped_stays(fleet):
    with open(os.path.join(fleet.path, "again"), "w") as f:
        f.write("again")
    digest = fleet.tos("content", "put", "again").split()[0]
    for _ in range(5):
        fleet.tos("content", "drop", digest)
        fleet.tos("content", "put", "again", "--pin")
    fleet.kill("host0")
    wait_for(lambda: fleet.status("host0"))
    assert [(row["digest"], row["pinned"]) for row in fleet.json("content", "list")] == [(digest, True)]


def test_a_process_that_has_ended_is_no_place_for_who_arrives(fleet):
    """The carrier is made ready in a tos-vm that ends while the arrival is being written, and tosd has not said so yet."""
    def sockets():
        return sum(os.readlink(f"/proc/{kernel}/fd/{fd}").startswith("socket") for fd in os.listdir(f"/proc/{kernel}/fd"))

    def vms():
        return fleet.processes("host3", "tos-vm")

    fleet.outcome(fleet.launch("return 1", "--path", "host3"))  # leaves one, and links
    kernel, tosd = fleet.pid("host3", "tos-kernel"), fleet.pid("host3", "tosd")
    fleet.faults["host3"].arm("write-resident", HOLD)
    name = fleet.launch("tos.sleep(0.01)", "--path", "host3")
    wait_for(lambda: fleet.faults["host3"].fired("write-resident"), text="the arrival is being written")
    before = sockets()
    os.kill(tosd, signal.SIGSTOP)
    try:
        for pid in vms():
            os.kill(pid, signal.SIGKILL)
        wait_for(lambda: sockets() < before, text="the kernel has seen that it ended")
        fleet.faults["host3"].disarm()
        wait_for(lambda: fleet.ps("host3").get(name, {}).get("state") in ("ready", "running"), text="host3 has it, and answers")
    finally:
        os.kill(tosd, signal.SIGCONT)
    assert fleet.outcome(name)["state"] == "finished"
    assert fleet.pid("host3", "tos-kernel") == kernel
