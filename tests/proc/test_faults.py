"""Exactly once, by faults: kernels die at each fault point of src/base/fault.h, and each
carrier still ends once, with each hand-off accepted once.

make test walks every point once with kill -9; with the sanitizers every other round.
"""
import hashlib
import os
import time

import pytest

import faults
from conftest import fleet_fixture
from faults import POINTS
from fleet import BUILD, DEADLINE, KERNEL, NOTE, QUICK, SANITIZED, TOUR, events, visited, wait_for

pytestmark = pytest.mark.skipif(not os.path.exists(faults.FAULTY), reason="this build has no tos-kernel-faults (-Dfaults=true)")
HOOK = os.path.join(BUILD, "tests/proc/ext/hook.so")
EXTENSIONS = "".join(f'extension "{n}" {{ library = "{n.lower()}" where = "kernel" }}\n'
                     for n in ("Echo", "Mobility", "Messenger", "Directory"))
SHORT = {"timing": dict(QUICK["timing"], restart="100ms", report="2s", offer="2s", handshake="2s", offer_again="0")}
# Tables that nothing writes yet: whoever begins to gets a walk here.
UNUSED = {"write-directory", "write-dedup"}
# What no journey of a carrier reaches: test_commit.py walks it, and test_clone_faults.py what is of clones. Where a read
# fails is for test_races.py.
ELSEWHERE = {"clone-taken", "clone-commit", "clone-journaled", "clone-answered", "cloned-taken", "cloned-commit",
             "cloned-journaled", "write-journal", "write-extension", "journal-commit",
             "journal-journaled", "ext-send", "ext-deliver", "answer-looked"}


def start():
    def fixture(**kw):
        return fleet_fixture(rests=True, conf=SHORT, prepare=faults.prepare, tos=faults.tree(), **kw)
    return fixture(n=3, each={"host2": EXTENSIONS + f'extension "Hook" {{ library = "{HOOK}" where = "kernel" }}\n'})


fleet = start() if os.path.exists(faults.FAULTY) else None


# ---- what is looked at after each round

def stops(outcome):
    """Where it has been; a begin that was repeated there counts once."""
    seen = visited(outcome)
    return [k for i, k in enumerate(seen) if i == 0 or seen[i - 1] != k]


def ended_once(fleet, name, path, arrivals=None):
    """Finished, every stop made in order, each hand-off accepted once, nothing left; the outcome."""
    o = fleet.outcome(name)
    assert o["state"] == "finished", o["fault"]
    assert stops(o) == [k for i, k in enumerate(path) if i == 0 or path[i - 1] != k], visited(o)
    assert events(o, "arrived") == (arrivals or path), o["trail"]
    assert len(events(o, "finished")) == 1, o["trail"]
    nothing_left(fleet, name)
    assert fleet.outcome(name) == o
    return o


def nothing_left(fleet, name):
    for kernel in fleet.names:
        wait_for(lambda k=kernel: fleet.status(k), text=f"{kernel} is back")
    wait_for(lambda: not fleet.residents(name), text="no copy is left")


def all_up(fleet):
    for kernel in fleet.names:
        wait_for(lambda k=kernel: fleet.status(k), text=f"{kernel} is back")
    wait_for(lambda: all(row["linked"] or row["name"] == "host0" for row in fleet.json("kernels")), text="all are linked")


def arm(fleet, points):
    """{kernel: point}"""
    for kernel, point in points.items():
        fleet.faults[kernel].arm(point)


def reached(fleet, points):
    """Each was, or will be; those that were not are disarmed and given back."""
    end = time.monotonic() + DEADLINE
    while any(not fleet.faults[k].fired(p) for k, p in points.items()) and time.monotonic() < end:
        time.sleep(0.02)
    left = {k: p for k, p in points.items() if not fleet.faults[k].fired(p)}
    for kernel, point in left.items():
        fleet.faults[kernel].disarm(point)
    return left


# ---- journeys, each through other points

def tour(fleet):
    path = ["host1", "host2", "host0", "host1", "host2"]
    ended_once(fleet, fleet.launch(TOUR, "--path", ",".join(path)), path)


def stay(fleet):
    """A checkpoint at host1, moves to itself, and an end at its home."""
    path = ["host1", "host1", "host2", "host0"]
    name = fleet.launch(f"function begin(self) self.n = (self.n or 0) + 1; tos.checkpoint(); {NOTE} end", "--path", ",".join(path))
    ended_once(fleet, name, path)


def refusal(fleet):
    """host2's hook refuses it after the hop record has come: it takes the alternative."""
    lua = f"function begin(self) if not tos.briefcase:has('REFUSE') then tos.briefcase:folder('REFUSE'):push(1) end {NOTE} end"
    name = fleet.launch(lua, "--path", "host1,host2|host0", "--on-unreachable", "alternate")
    ended_once(fleet, name, ["host1", "host0"])


def again(fleet, *args):
    """A command until it was taken: its kernel may die over it."""
    def run():
        r = fleet.run(*args)
        return r if r.returncode in (0, 1) and "closed the connection" not in r.stderr else None
    return wait_for(run, text="tos " + " ".join(args))


def retry(fleet):
    lua = f"""function begin(self)
        if tos.kernel() == "host1" then
            tos.post("Echo", 1)
            if not tos.inbox("ok"):next(0.3) then error("not yet") end
        end
        {NOTE}
    end"""
    name = fleet.launch(lua, "--path", "host1,host2")
    fleet.wait_state(name, "faulted")
    end = time.monotonic() + DEADLINE
    while fleet.state(name) != "finished" and time.monotonic() < end:
        if fleet.state(name) == "faulted":
            again(fleet, "retry", name)
        fleet.run("post", f"{name}/ok", "on")
    o = fleet.outcome(name)
    assert o["state"] == "finished" and stops(o) == ["host1", "host2"], o
    assert events(o, "arrived") == ["host1", "host2"]
    nothing_left(fleet, name)


def kill(fleet):
    name = fleet.launch("tos.inbox('never'):next(3600)", "--path", "host1")
    wait_for(lambda: fleet.residents(name).get("host1", {}).get("state") == "running")
    again(fleet, "kill", name)
    end = time.monotonic() + DEADLINE
    while fleet.state(name) != "killed" and time.monotonic() < end:
        again(fleet, "kill", name)
    assert fleet.outcome(name, expect=1)["state"] == "killed"
    nothing_left(fleet, name)


def repeated(fleet):
    """The source dies with the answer in its hand; it asks again."""
    fleet.faults["host1"].arm("answer-taken")
    name = fleet.launch(f"function begin(self) tos.sleep(0.3) {NOTE} end", "--path", "host1,host2")
    ended_once(fleet, name, ["host1", "host2"])
    assert fleet.faults["host1"].fired("answer-taken")


def doubt(fleet):
    """host2 takes the carrier and dies before it can say so; it is declared dead, and comes back after that."""
    fleet.freeze("host2", "tosd")
    try:
        fleet.faults["host2"].arm("arrive-journaled")
        name = fleet.launch(f"function begin(self) tos.sleep(0.01) {NOTE} end", "--path", "host1,host2|host0",
                            "--on-unreachable", "alternate")
        wait_for(lambda: fleet.faults["host2"].fired("arrive-journaled"), text="host2 has it")

        def goes_on():
            fleet.run("resolve", "--dead", "host2", "--timeout", "3s")
            return fleet.state(name) == "finished"

        wait_for(goes_on, text="it goes on without host2")
    finally:
        fleet.thaw("host2", "tosd")
    all_up(fleet)
    o = fleet.outcome(name)
    assert o["state"] == "finished" and stops(o) == ["host1", "host0"], o
    assert events(o, "arrived") == ["host1", "host0"] and len(events(o, "finished")) == 1, o["trail"]
    nothing_left(fleet, name)
    assert fleet.outcome(name) == o


def trust(fleet):
    """A host that joins, and the revocation list: said again until it worked, it is so once."""
    other = f"other{time.monotonic_ns() % 10**9}"
    env = dict(fleet.env, TOS_HOME=os.path.join(fleet.path, other))

    def said(*args, **kw):
        return wait_for(lambda: (r := fleet.run(*args, **kw)).returncode == 0 and r, text="tos " + " ".join(args))

    token = said("enroll", other, "--replace").stdout.split()[-1]
    all_up(fleet)
    said("join", token, "--listen", "127.0.0.1:31299", env=env)
    all_up(fleet)
    said("kernels", "remove", other)
    all_up(fleet)
    assert other not in {k["name"] for k in fleet.json("kernels")}


def content(fleet):
    """A file for the content store, put again until it stays: its row is written a moment later than it is said to be there."""
    name, data = f"file{time.monotonic_ns()}", os.urandom(100000)
    with open(os.path.join(fleet.path, name), "wb") as f:
        f.write(data)
    digest = hashlib.sha256(data).hexdigest()
    wait_for(lambda: fleet.run("content", "put", name).returncode == 0, text="tos content put")
    wait_for(lambda: fleet.faults["host0"].fired("write-content"), text="the row is being written")
    all_up(fleet)
    wait_for(lambda: fleet.run("content", "put", name).returncode == 0, text="tos content put")
    assert [r["size"] for r in fleet.json("content", "list") if r["digest"] == digest] == [len(data)]
    fleet.tos("content", "get", digest, "-o", name + ".back")
    with open(os.path.join(fleet.path, name + ".back"), "rb") as f:
        assert f.read() == data


def admit(fleet):
    """A digest that programs may have, said again until it is in the registry: it is there once."""
    digest = hashlib.sha256(os.urandom(16)).hexdigest()
    wait_for(lambda: fleet.run("content", "admit", digest).returncode == 0, text="tos content admit")
    all_up(fleet)
    wait_for(lambda: fleet.run("content", "admit", digest).returncode == 0, text="tos content admit")
    assert len([r for r in fleet.json("content", "admitted") if r["digest"] == digest]) == 1


# Points to the journey that reaches them and the kernels where it does.
WALKS = [
    (stay, {"checkpoint-commit": ["host1"], "checkpoint-journaled": ["host1"], "self-commit": ["host1"],
            "self-journaled": ["host1"], "outcome-here-commit": ["host0"], "outcome-here-journaled": ["host0"]}),
    (refusal, {"refuse-commit": ["host2"], "refuse-journaled": ["host2"], "refuse-answered": ["host2"],
               "return-commit": ["host1"]}),
    (retry, {"faulted-commit": ["host1"], "want-commit": ["host0"], "want-journaled": ["host0"],
             "retry-commit": ["host1"], "learn-commit": ["host1"],
             "write-incarnation": ["host0"], "write-nonce": ["host0"],
             "home-commit": ["host0"]}),  # a place is saved by the tick, a fault at once
    (retry, {"command-taken": ["host1"]}),  # by itself: a home that dies has it told in the answer to a report
    (kill, {"end-commit": ["host1"], "ended-commit": ["host0"], "ended-journaled": ["host0"]}),
    (repeated, {"answer-repeated": ["host2"]}),
    (doubt, {"doubt": ["host1"], "ask-commit": ["host1"], "ask-journaled": ["host1"], "grant-taken": ["host1"],
             "grant-kept-commit": ["host1"], "grant-kept": ["host1"], "void-send": ["host1"], "void-acked": ["host1"],
             "write-void": ["host1"], "declare-commit": ["host0"], "declare-journaled": ["host0"], "ask-taken": ["host0"],
             "grant-commit": ["host0"], "grant-journaled": ["host0"], "write-declared": ["host0"],
             "void-taken": ["host2"]}),
    (trust, {"write-token": ["host0"], "write-trust": ["host0"], "write-enrolled": ["host0"]}),
    (content, {"write-content": ["host0"]}),
    (admit, {"write-admitted": ["host0"]}),
]
HOME = ["host0"]
TOUR_AT = {p: HOME for p in POINTS if p.startswith(("launch-", "gone-", "home-")) or
           p in ("report-taken", "report-answered", "outcome-taken", "outcome-commit", "outcome-journaled",
                 "outcome-answered", "write-home", "write-meta")}
TOUR_AT |= {p: ["host2"] for p in ("outcome-frozen", "outcome-depart-commit", "outcome-depart-journaled", "outcome-sent",
                                   "outcome-acked")}


def rounds(places):
    """One point a kernel at a time: [{kernel: point}] from {point: [kernels]}."""
    todo, out = dict(places), []
    while todo:
        now = {}
        for point in list(todo):
            at = next((k for k in todo[point] if k not in now), None)
            if at:
                now[at] = point
                del todo[point]
        out.append(now)
    return out


def plan():
    special = {p for _, places in WALKS for p in places}
    everywhere = [p for p in POINTS if p not in special | UNUSED | ELSEWHERE]
    at = {p: TOUR_AT.get(p, ["host1", "host2", "host0"]) for p in everywhere}
    work = [(tour, now) for now in rounds(dict(sorted(at.items(), key=lambda x: len(x[1]))))]
    for journey, places in WALKS:
        work += [(journey, now) for now in rounds(places)]
    return work


def test_the_table_is_walked_completely():
    walked = {p for _, now in plan() for p in now.values()}
    assert walked | UNUSED | ELSEWHERE == set(POINTS) and len(POINTS) == len(set(POINTS))


def test_the_installed_kernel_has_no_fault_points():
    with open(KERNEL, "rb") as f:
        shipped = f.read()
    with open(faults.FAULTY, "rb") as f:
        assert b"fault_open" in f.read() and b"fault_open" not in shipped


@pytest.mark.parametrize("journey,points", plan()[::2 if SANITIZED else 1] if fleet else [],
                         ids=lambda x: x.__name__ if callable(x) else "+".join(sorted(x.values())))
def test_a_kernel_is_killed_at_each_point(fleet, journey, points):
    all_up(fleet)
    arm(fleet, points)
    journey(fleet)
    assert not reached(fleet, points)


def test_what_is_not_used_is_not_reached(fleet):
    assert not [p for p in UNUSED | {"write-journal"} for k in fleet.names if fleet.faults[k].hits(p)]


def test_what_has_ended_is_in_doubt_no_more(fleet):
    """Its home dies over the outcome, hears that the move home is in doubt, takes it, and is started again: it says so no
    more, nor another time since when it has ended."""
    fleet.faults["host0"].arm("outcome-commit")
    name = fleet.launch(TOUR, "--path", "host1")
    wait_for(lambda: fleet.faults["host0"].fired("outcome-commit"))
    fleet.kill("host1")
    assert fleet.outcome(name)["state"] == "finished"
    (before,) = [r for r in fleet.json("ps") if r["name"] == name]
    fleet.kill("host0")
    wait_for(lambda: fleet.status("host0"))
    (after,) = [r for r in fleet.json("ps") if r["name"] == name]
    assert not after["in_doubt"] and before["since_ms"] == after["since_ms"], (before, after)
