"""Carriers that take what they can get are stopped by their limits, by name, and others hardly notice."""
import os
import signal
import time

import pytest

from conftest import fleet_fixture
from fleet import KERNEL, QUICK, Fleet, wait_for

pytestmark = pytest.mark.skipif(not os.path.exists(KERNEL), reason="TOS_BUILD names no build with tos-kernel")
# One processor: where there are more, a tos-vm that computes all the time is not shared with who comes next.
os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:1])
fleet = fleet_fixture(n=1, conf={**QUICK, "limits": {"spare_vms": "0"}})

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


ANSWERS = """function begin(self)
    local box = tos.inbox("in")
    self.n = 0
    tos.checkpoint()
    while true do
        local m = box:next(60)
        if m and m.data == "end" then return end
        if m then self.n = self.n + 1 m:answer(self.n) end
    end
end"""

# What it does -> the words of which one names what stopped it.
HOSTILE = {
    "while true do pcall(function() while true do end end) end": ["limit cpu"],
    "while true do coroutine.wrap(function() while true do end end)() end": ["limit cpu"],
    "return setmetatable({}, { __index = function() while true do end end }).x": ["limit cpu"],
    "table.sort({ 1, 2, 3 }, function() while true do end end)": ["limit cpu"],
    "string.gsub('x', 'x', function() while true do end end)": ["limit cpu"],
    "error(setmetatable({}, { __tostring = function() while true do end end }))": ["without a message", "too long", "hung", "limit cpu"],
    "tostring(setmetatable({}, { __tostring = function() while true do end end }))": ["too long", "limit cpu"],
    "('a'):rep(3000):find('.-.-.-b')": ["too complex", "too long", "limit cpu"],
    "local t = {} while true do t[#t + 1] = ('x'):rep(1000) .. #t end": ["limit memory"],
    "local t = setmetatable({}, { __gc = function() while true do end end })": ["__gc"],
}


def alone(fleet):
    """The one tos-vm that there is."""
    wait_for(lambda: len(fleet.processes("host0", "tos-vm")) == 1, text="one tos-vm")
    return fleet.processes("host0", "tos-vm")[0]


def ask(fleet, name):
    return fleet.json("call", f"{name}/in", "x", "--timeout", "30s")["elements"][0]


def started(fleet, name):
    return [line["event"] for line in fleet.show(name)["trail"]].count("started")


def test_what_one_does_in_a_shared_tos_vm_is_nothing_to_its_neighbours(fleet):
    good = [fleet.launch(ANSWERS, "--path", "host0", "--limit", "cpu=60") for _ in range(2)]
    assert [ask(fleet, g) for g in good] == [1, 1]
    pid = alone(fleet)
    names = {fleet.launch(lua, "--path", "host0", "--limit", "cpu=1"): words for lua, words in HOSTILE.items()}
    assert fleet.processes("host0", "tos-vm") == [pid]
    for i in range(2, 7):
        assert [ask(fleet, g) for g in good] == [i, i]
    for name, words in names.items():
        fleet.wait_state(name, "faulted")
        said = fleet.show(name)["fault"]["text"]
        assert any(w in said for w in words), (said, words)
        fleet.tos("kill", name)
    assert [ask(fleet, g) for g in good] == [7, 7]
    assert [started(fleet, g) for g in good] == [1, 1] and alone(fleet) == pid
    for g in good:
        fleet.tos("post", f"{g}/in", "end")
        assert fleet.outcome(g)["state"] == "finished"


def test_suspend_and_kill_are_for_one_of_them(fleet):
    busy = fleet.launch("function begin() while true do end end", "--path", "host0", "--limit", "cpu=60")
    good = fleet.launch(ANSWERS, "--path", "host0")
    fleet.wait_state(busy, "running")
    assert ask(fleet, good) == 1
    fleet.tos("suspend", good)
    fleet.wait_state(good, "suspended")
    assert fleet.state(busy) == "running"
    fleet.tos("resume", good)
    assert ask(fleet, good) == 2
    fleet.tos("kill", busy)
    assert ask(fleet, good) == 3 and started(fleet, good) == 1
    fleet.tos("kill", good)


def test_when_a_tos_vm_dies_its_carriers_begin_again_without_a_fault(fleet):
    good = [fleet.launch(ANSWERS, "--path", "host0") for _ in range(3)]
    assert [ask(fleet, g) for g in good] == [1, 1, 1]
    os.kill(alone(fleet), signal.SIGKILL)
    for g in good:
        wait_for(lambda: started(fleet, g) == 2, text="begun again")
        assert ask(fleet, g) == 1 and fleet.show(g)["fault"] is None
        assert "restarted" in [line["event"] for line in fleet.show(g)["trail"]]
        fleet.tos("post", f"{g}/in", "end")
        assert fleet.outcome(g)["state"] == "finished"


def test_who_ends_its_tos_vm_again_and_again_is_found_alone(fleet):
    good = [fleet.launch(ANSWERS, "--path", "host0") for _ in range(2)]
    assert [ask(fleet, g) for g in good] == [1, 1]
    # A signal from outside stands for what a carrier may do to its process.
    for n in range(3):
        os.kill(alone(fleet), signal.SIGKILL)
        for g in good:
            wait_for(lambda: started(fleet, g) == n + 2, text="begun again")
            ask(fleet, g)
    two = fleet.processes("host0", "tos-vm")
    assert len(two) == 2, "each has its own by now"
    os.kill(two[0], signal.SIGKILL)
    wait_for(lambda: sorted(map(fleet.state, good)) == ["faulted", "running"], text="one is faulted")
    culprit = [g for g in good if fleet.state(g) == "faulted"][0]
    assert "its tos-vm died" in fleet.show(culprit)["fault"]["text"]
    for g in good:
        fleet.tos("kill", g)


def test_each_has_its_own_where_that_is_configured():
    with Fleet(1, {"limits": {"vm_carriers": "1"}}) as f:
        good = [f.launch(ANSWERS, "--path", "host0") for _ in range(2)]
        assert [ask(f, g) for g in good] == [1, 1]
        busy = [p for p in f.processes("host0", "tos-vm")]
        assert len(busy) >= 2
        for g in good:
            f.tos("kill", g)
