"""What the world does to the journal and the clock: a disk that is full at a write, a clock that jumps by a day. Each
carrier ends once all the same.

The full disk is a fault point in the writer thread (SQLITE_FULL is simulated there; test_environments.py fills a real
one); the clock is shifted in tos-kernel-faults by what a test writes into its fault table, for no namespace moves
CLOCK_REALTIME.
"""
import json
import os
import time

import pytest

import faults
from conftest import fleet_fixture
from faults import FAIL
from fleet import DEADLINE, NOTE, QUICK, TOUR, events, visited, wait_for

pytestmark = pytest.mark.skipif(not os.path.exists(faults.FAULTY), reason="this build has no tos-kernel-faults (-Dfaults=true)")
SHORT = {"timing": dict(QUICK["timing"], restart="100ms", handshake="2s", offer_again="0")}
fleet = fleet_fixture(n=3, conf=SHORT, prepare=faults.prepare, tos=faults.tree()) if os.path.exists(faults.FAULTY) else None
PATH = ["host1", "host2", "host0", "host1", "host2"]
SOAK = os.environ.get("TOS_SOAK") == "1"
DAY = 86400


CLOCK = ("not-yet-valid", "expired", "untrusted", "bad-signature")


def retried(fleet, name, *codes):
    """The outcome. A carrier that cannot go on as things are is faulted and kept, and says why: its owner has it tried
    again when they are mended. A kernel whose store refused a write admits nothing until a later write has worked."""
    end = time.monotonic() + DEADLINE
    while True:
        o = json.loads(fleet.run("wait", name, "--json", timeout=2 * DEADLINE).stdout)
        if o["state"] != "faulted" or time.monotonic() > end:
            break
        assert o["fault"]["code"] in codes, o["fault"]
        # the retry has to be written down too
        wait_for(lambda: fleet.run("retry", name).returncode == 0 or fleet.state(name) != "faulted", text="it is retried")
        wait_for(lambda: fleet.state(name) != "faulted" or (fleet.show(name)["fault"] or {}).get("wall") != o["fault"]["wall"],
                 text="it goes on")
    assert o["state"] == "finished", o["fault"]
    return o


def ended_once(fleet, name, path=PATH):
    o = retried(fleet, name, *CLOCK)
    seen = visited(o)  # begin may run again where the kernel died
    assert [k for i, k in enumerate(seen) if i == 0 or seen[i - 1] != k] == path and events(o, "arrived") == path, o
    wait_for(lambda: not fleet.residents(name), text="no copy is left")
    return o


def launched(fleet, *args):
    """A launch is refused with one line while the journal cannot be written, and works again after that."""
    def once():
        r = fleet.run("launch", fleet.file("tour.lua", TOUR), "--on-unreachable", "wait=1h", *args)
        assert r.returncode == 0 or len(r.stderr.splitlines()) == 1, r.stderr
        return r.returncode == 0 and r.stdout.strip()
    return wait_for(once, text="a launch is taken")


# ---- the disk is full for one write

@pytest.mark.parametrize("point", ["store-commit", "write-resident", "write-code", "write-answer", "write-gone",
                                   "write-home", "write-outbox", "write-account", "write-audit"])
def test_a_write_that_finds_the_disk_full_loses_nothing(fleet, point):
    for nth in range(8 if SOAK else 2):
        for kernel in ("host0", "host1", "host2"):
            fleet.faults[kernel].arm(point, FAIL, skip=nth)
        name = launched(fleet, "--path", ",".join(PATH))
        o = retried(fleet, name, "store")
        seen = visited(o)
        assert [k for i, k in enumerate(seen) if i == 0 or seen[i - 1] != k] == PATH and events(o, "arrived") == PATH, o
        wait_for(lambda n=name: not fleet.residents(n), text="no copy is left")
        for kernel in ("host0", "host1", "host2"):
            fleet.faults[kernel].disarm(point)
    assert any(fleet.faults[k].fired(point) for k in ("host0", "host1", "host2")) or nth > 0


@pytest.mark.parametrize("kernel,point", [("host1", "write-resident"), ("host2", "write-answer")])
def test_who_waits_for_unreachable_kernels_waits_for_disks_too(fleet, kernel, point):
    """The departure cannot be written down here, or the arrival there: it is tried again, and nobody has to say so."""
    name = fleet.launch(f"function begin(self) if tos.kernel() == 'host1' then tos.inbox('go'):next(60) end {NOTE} end",
                        "--path", "host1,host2", "--on-unreachable", "wait=1h")
    wait_for(lambda: fleet.residents(name).get("host1", {}).get("state") == "running")
    fleet.faults[kernel].arm(point, FAIL)
    fleet.tos("post", "--kernel", "host1", f"{name}/go", "on")
    o = fleet.outcome(name)
    assert fleet.faults[kernel].fired(point)
    assert o["state"] == "finished" and visited(o) == ["host1", "host2"] and not events(o, "faulted"), o["trail"]


# ---- the clock jumps

@pytest.mark.parametrize("days", [1, -1])
def test_a_clock_that_jumps_by_a_day_doubles_and_loses_nothing(fleet, days):
    there = fleet.launch(f"function begin(self) if tos.kernel() == 'host1' then tos.inbox('go'):next(60) end {NOTE} end",
                         "--path", "host1,host2", "--limit", "lifetime=72h", "--on-unreachable", "wait=1h")
    wait_for(lambda: fleet.residents(there).get("host1", {}).get("state") == "running")
    fleet.faults["host1"].clock(days * DAY)
    try:
        names = [launched(fleet, "--path", ",".join(PATH), "--limit", "lifetime=72h") for _ in range(3)]
        fleet.tos("post", "--kernel", "host1", f"{there}/go", "on")
        fleet.kill("host1")  # it comes up with the wrong time
        wait_for(lambda: fleet.status("host1"))
        wait_for(lambda: all(fleet.state(n) in ("finished", "faulted") or "host1" in str(fleet.show(n)) for n in names))
    finally:
        fleet.faults["host1"].clock(0)

    def on():
        fleet.run("post", f"{there}/go", "on")
        return fleet.state(there) in ("finished", "faulted")

    wait_for(on, text="it is let go")
    ended_once(fleet, there, ["host1", "host2"])
    for name in names:
        ended_once(fleet, name)
