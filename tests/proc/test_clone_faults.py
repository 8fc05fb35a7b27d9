"""Clones, exactly once: kernels die at each step of making one and of telling the home. Each clone that its parent was told
of ends once, none is made twice, and the home knows all of them. The histories of all kernels are read by checker.py."""
import json
import os

import pytest

import checker
import faults
from conftest import fleet_fixture
from fleet import QUICK, SANITIZED, wait_for

pytestmark = pytest.mark.skipif(not os.path.exists(faults.FAULTY), reason="this build has no tos-kernel-faults (-Dfaults=true)")
SHORT = {"timing": dict(QUICK["timing"], restart="100ms", report="1s", offer="2s", handshake="2s", offer_again="0")}


def start():
    return fleet_fixture(n=3, rests=True, conf=SHORT, prepare=faults.prepare, tos=faults.tree())


fleet = start() if os.path.exists(faults.FAULTY) else None
launched = []

# At host1: a copy to host2, a copy that begins here and makes another one of its own, then on to host2.
LUA = """function begin(self)
    local me = tos.self()
    tos.briefcase:folder("RESULTS"):push { kernel = tos.kernel(), who = me.name }
    if me.parent then
        if me.parent:find("%.") == nil and tos.kernel() == "host1" then self.made = tos.clone("host0", { clones = 0 }) or "none" end
        tos.path:clear()
        return
    end
    if tos.kernel() ~= "host1" then return end
    self.one = tos.clone("host2", { clones = 0 })
    self.two = tos.clone("host1", { clones = 1 })
    tos.briefcase:folder("MADE"):push { self.one or "none", self.two or "none" }
end"""
PLACES = {"clone-taken": "host1", "clone-commit": "host1", "clone-journaled": "host1", "clone-answered": "host1",
          "cloned-taken": "host0", "cloned-commit": "host0", "cloned-journaled": "host0",
          "note-acked": "host1", "report-taken": "host0", "write-outbox": "host1", "write-resident": "host1",
          "write-home": "host0", "store-durable": "host1", "arrive-journaled": "host2", "outcome-journaled": "host0"}


def all_up(fleet):
    for kernel in fleet.names:
        wait_for(lambda k=kernel: fleet.status(k), text=f"{kernel} is back")


def family_of(fleet, name):
    def complete():
        r = fleet.run("wait", "--family", name, "--json", "--timeout", "5s")
        return json.loads(r.stdout) if r.returncode in (0, 1) and r.stdout.startswith("{") else None
    return wait_for(complete, 60, f"all of the family of {name}")


def journey(fleet):
    args = ["--path", "host1,host2", "--itinerant", "--limit", "clones=3", "--on-unreachable", "wait=1h"]
    name = wait_for(lambda: fleet.run("launch", fleet.file("carrier.lua", LUA), *args).stdout.strip(), text="it is launched")
    launched.append(name)
    got = family_of(fleet, name)
    members = {m["name"]: m for m in got["members"]}
    # Three clones, or fewer where a kernel was down that one was to go to: that was said, and cost none.
    made = [n for pair in members[name]["briefcase"]["MADE"][-1:] for n in pair if n != "none"]
    assert set(made) <= set(members) and len(members) <= 4, (made, list(members))
    assert all(m["state"] == "finished" for m in members.values()), {n: m["state"] for n, m in members.items()}
    for n, m in members.items():
        births = [t["event"] for t in m["trail"] if t["event"] in ("launched", "cloned")]
        assert births == (["cloned"] if n != name else ["launched"]), m["trail"]
        assert len([t for t in m["trail"] if t["event"] == "finished"]) == 1
        assert m["briefcase"]["RESULTS"][-1]["who"] == n
    all_up(fleet)
    wait_for(lambda: not [n for n in members if fleet.residents(n)], text="no copy is left")
    assert {m["name"] for m in family_of(fleet, name)["members"]} == set(members)
    return members


@pytest.mark.parametrize("point", list(PLACES)[::3 if SANITIZED else 1])
@pytest.mark.parametrize("skip", [0, 1] if not SANITIZED else [0])
def test_a_kernel_is_killed_at_each_step(fleet, point, skip):
    all_up(fleet)
    fleet.faults[PLACES[point]].arm(point, skip=skip if point.startswith("clone") else 5 * skip)
    try:
        journey(fleet)
        assert fleet.faults[PLACES[point]].fired(point) or not point.startswith("clone")
    finally:
        fleet.faults[PLACES[point]].disarm(point)


def test_a_full_disk_makes_no_clone_and_is_got_over(fleet):
    all_up(fleet)

    def one_is_missing():
        """Another row of that table may take the fault, a report that is late."""
        fleet.faults["host1"].arm("write-outbox", faults.FAIL)
        members = journey(fleet)
        return len(members) < 4 and "none" in next(iter(members.values()))["briefcase"]["MADE"][0]

    wait_for(one_is_missing)
    fleet.faults["host1"].disarm("write-outbox")
    members = journey(fleet)
    assert len(members) == 4


def test_no_clone_was_lost_or_doubled(fleet):
    """All that has happened since the beginning of this file."""
    all_up(fleet)
    histories = {}
    for kernel in fleet.names:
        rows = [json.loads(line) for line in fleet.tos("audit", "--json", "--most", "5000", "--kernel", kernel).splitlines()]
        histories[kernel] = rows
    r = checker.Report()
    names = checker.launched(histories, r)
    checker.check_ids(histories, names, r)
    checker.check_ends(histories, names, r)
    checker.check_arrivals(histories, r)
    checker.check_begins({k: fleet.log_text(k) for k in fleet.names}, r)
    assert not r.wrong, r
    family = {n for n in names if n.split(".")[0] in launched}
    assert len(family) > 2 * len(launched) and {n for n in family if "." not in n} == set(launched)
    assert fleet.metric("host0", "tos_clones_denied_total") == 0
