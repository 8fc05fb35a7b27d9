"""Carriers that take what they can get are stopped by their limits, by name, and others hardly notice."""
import os
import time

import pytest

from conftest import fleet_fixture
from fleet import KERNEL, QUICK, wait_for

pytestmark = pytest.mark.skipif(not os.path.exists(KERNEL), reason="TOS_BUILD names no build with tos-kernel")
fleet = fleet_fixture(n=1, conf=QUICK)

GREEDY = {
    "cpu": ("function begin(self) while true do end end", "cpu=1"),
    "cpu at the top": ("while true do end function begin(self) end", "cpu=1"),
    "memory": ("function begin(self) local t = {} while true do t[#t + 1] = ('x'):rep(1000) .. #t end end", "memory=16M"),
    "sent": ("function begin(self) while true do tos.post('Echo', ('x'):rep(100)) tos.sleep(0) end end", "posts=100"),
}


def test_greedy_carriers_are_stopped_by_name_while_another_answers(fleet):
    asked = """local began = tos.clock()
        for i = 1, 20 do assert(tos.call("Monitor", "load", 10)) end
        return 20"""
    began = time.monotonic()
    assert fleet.outcome(fleet.launch(asked, "--path", "host0"))["state"] == "finished"
    alone = time.monotonic() - began
    names = {}
    for what, (lua, limit) in GREEDY.items():
        # Endless posting is slowed by its limit; what ends it is its CPU time.
        args = ["--path", "host0", "--limit", limit] + (["--limit", "cpu=2"] if "cpu" not in limit else [])
        names[what] = fleet.launch(lua, *args, name=what.replace(" ", "_") + ".lua")
    began = time.monotonic()
    assert fleet.outcome(fleet.launch(asked, "--path", "host0"))["state"] == "finished"
    assert time.monotonic() - began < 10 + 20 * alone
    for what, name in names.items():
        fleet.wait_state(name, "faulted")
        said = fleet.show(name)["fault"]["text"]
        wanted = {"memory": ("memory",), "sent": ("posts", "cpu")}.get(what, ("cpu",))
        assert any(w in said for w in wanted), (what, said)
        fleet.tos("kill", name)
    wait_for(lambda: not fleet.processes("host0", "tos-vm"))
