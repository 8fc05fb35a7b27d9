"""tos drain, and tos stop --all with tos resume --all."""
import os
import time

import pytest

from conftest import fleet_fixture
from fleet import KERNEL, NOTE, QUICK, process_table, visited, wait_for

pytestmark = pytest.mark.skipif(not os.path.exists(KERNEL), reason="TOS_BUILD names no build with tos-kernel")
fleet = fleet_fixture(n=3, conf=QUICK)
WAITER = f'function begin(self) {NOTE} tos.inbox("go"):next(600) end'
# Leaves when it is asked to, and says what it was told.
POLITE = f"""function begin(self)
    local m = tos.inbox("drain"):next(600)
    tos.log("asked to leave by " .. m.data)
    {NOTE}
end"""


def running_at(fleet, kernel, name):
    wait_for(lambda: fleet.ps(kernel).get(name, {}).get("state") == "running", text=f"{name} runs at {kernel}")


def test_a_drained_kernel_takes_nobody_and_says_when_the_last_has_left(fleet):
    polite = fleet.launch(POLITE, "--path", "host1,host2", name="polite.lua")
    stays = fleet.launch(WAITER, "--path", "host1")
    running_at(fleet, "host1", polite)
    running_at(fleet, "host1", stays)
    r = fleet.run("drain", "host1", "--timeout", "2s")
    assert r.returncode == 4 and "1 carriers are still at host1" in r.stderr and stays in r.stderr, r.stderr
    running_at(fleet, "host2", polite)
    assert "asked to leave by host1" in fleet.log_text("host1")
    # Who comes waits, or goes elsewhere; a launch there is refused.
    other = fleet.launch(NOTE, "--path", "host1|host2", "--on-unreachable", "alternate")
    assert visited(fleet.outcome(other)) == ["host2"]
    waits = fleet.launch(NOTE, "--path", "host1")
    wait_for(lambda: "drained" in (fleet.show(waits) or {}).get("waiting", ""), text="it waits for host1")
    r = fleet.run("launch", "-e", NOTE, "--kernel", "host1")
    assert r.returncode == 1 and "drained" in r.stderr, r.stderr
    # It lasts over a restart.
    fleet.kill("host1")
    wait_for(lambda: fleet.status("host1"))
    running_at(fleet, "host1", stays)
    assert fleet.metric("host1", "tos_draining") == 1
    drain = fleet.start("drain", "host1", "--json")
    wait_for(lambda: fleet.run("post", f"{stays}/go", "on").returncode == 0)
    out, _ = drain.communicate(timeout=60)
    assert drain.returncode == 0 and '"left": []' in out.replace("\n", ""), out
    assert fleet.outcome(stays)["state"] == "finished"
    assert fleet.json("drain", "host1", "--undo")["draining"] is False
    assert visited(fleet.outcome(waits)) == ["host1"]
    fleet.tos("post", f"{polite}/drain", "x")
    assert fleet.outcome(polite)["state"] == "finished"


def test_draining_is_an_act_that_policy_decides_on(fleet):
    fleet.tos("principal", "add", "ole", "--role", "owner")
    r = fleet.run("drain", "host1", "--as", "ole")
    assert r.returncode == 3 and "may not drain" in r.stderr, r.stderr
    assert fleet.metric("host1", "tos_draining") == 0


def of_home(fleet):
    """Every process that was started with this TOS_HOME, or by one that was."""
    table = process_table()
    mine = {p for p, row in table.items()
            if any(a.startswith(fleet.home.encode()) for a in row[3]) and row[2] != "Z" and
            row[1] in ("tosd", "tos")}
    while True:
        more = {p for p, row in table.items() if row[0] in mine and row[2] != "Z"} - mine
        if not more:
            return mine
        mine |= more


def test_stop_all_ends_everything_even_what_hangs_until_it_is_resumed(fleet):
    r = fleet.run("stop")
    assert r.returncode == 2 and "--all" in r.stderr
    name = fleet.launch(WAITER, "--path", "host1")
    running_at(fleet, "host1", name)
    for kind in ("tosd", "tos-kernel"):
        fleet.freeze("host2", kind)
    assert len(of_home(fleet)) > 12
    began = time.monotonic()
    said = fleet.json("stop", "--all")
    assert said["kernels"] == said["marked"] == 3 and said["processes"] > 12, said
    assert not of_home(fleet) and time.monotonic() - began < 10
    r = fleet.run("up")
    assert r.returncode == 1 and "tos resume --all" in r.stderr, r.stderr
    tosd = fleet.run("keeper", "host1")  # as whoever else would start it
    assert tosd.returncode != 0 and "tos resume --all" in fleet.log_text("host1")
    assert not of_home(fleet)
    assert fleet.json("resume", "--all") == {"kernels": 3}
    fleet.up()
    running_at(fleet, "host1", name)
    assert "tos stop --all" in fleet.tos("audit", "--kernel", "host1")
    fleet.tos("post", f"{name}/go", "on")
    assert fleet.outcome(name)["state"] == "finished"
    assert fleet.json("resume", "--all") == {"kernels": 0}
