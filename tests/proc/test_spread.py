"""A carrier on sixteen kernels by way of its copies (carriers/lib/spread.lua): trees and chains, with some of them down."""
import os

import pytest

from conftest import fleet_fixture
from fleet import KERNEL, QUICK, wait_for

pytestmark = pytest.mark.skipif(not os.path.exists(KERNEL), reason="TOS_BUILD names no build with tos-kernel")
N = 16
ALL = [f"host{i}" for i in range(N)]
FEW = {"timing": QUICK["timing"], "limits": {"spare_vms": "0"}}
fleet = fleet_fixture(n=N, conf=FEW)

LUA = """local spread = require "spread"
function begin(self)
    local missed = spread.%s
    tos.briefcase:folder("RESULTS"):push { kernel = tos.kernel(), who = tos.self().name }
    for _, m in ipairs(missed) do tos.briefcase:folder("MISSED"):push(m) end
end"""


def spread(fleet, how, *args, path=ALL, clones=N, hops=64):
    name = fleet.launch(LUA % how, "--path", ",".join(path), "--limit", f"clones={clones}", "--limit", f"hops={hops}", *args)
    got = fleet.json("wait", "--family", name, "--timeout", "60s")
    assert all(m["state"] == "finished" for m in got["members"])
    at = [r["kernel"] for m in got["members"] for r in m["briefcase"]["RESULTS"]]
    missed = {r["kernel"]: r["code"] for m in got["members"] for r in m["briefcase"].get("MISSED", [])}
    return name, got["members"], at, missed


@pytest.mark.parametrize("how, depth", [("tree(self, 3)", 4), ("tree(self, 15)", 2), ("chain(self, 3)", 6)])
def test_each_host_is_visited_once_and_all_of_it_comes_home(fleet, how, depth):
    name, members, at, missed = spread(fleet, how)
    assert sorted(at) == sorted(ALL) and len(members) == N and not missed
    assert max(m["name"].count(".") for m in members) + 1 <= depth
    assert [m["name"] for m in members if "." not in m["name"]] == [name]


def test_a_list_of_hosts_needs_no_path_but_an_itinerant_ticket(fleet):
    lua = 'tree(self, 2, { "host3", "host4", "host5|host6" })'
    name, members, at, missed = spread(fleet, lua, "--itinerant", path=["host0"])
    assert sorted(at) == ["host0", "host3", "host4", "host5"]
    name, members, at, missed = spread(fleet, lua, path=["host0"])
    assert at == ["host0"] and set(missed.values()) == {"denied"} and len(missed) == 3


def test_who_is_down_costs_only_itself(fleet):
    """host1 heads the first part of the original's, host6 the second; host15 has nobody behind it."""
    down = ["host1", "host6", "host15"]
    for kernel in down:
        fleet.tos("down", kernel, timeout=120)
    try:
        for how in ("tree(self, 3)", "chain(self, 3)"):
            name, members, at, missed = spread(fleet, how)
            assert sorted(at) == sorted(set(ALL) - set(down)) and len(members) == N - len(down), how
            assert missed == {k: "unreachable" for k in down}
    finally:
        fleet.up()


def test_alternatives_are_tried_in_their_order(fleet):
    fleet.tos("down", "host2", timeout=120)
    try:
        name, members, at, missed = spread(fleet, "tree(self, 3)", path=["host0", "host1", "host2|host3", "host4"])
        assert sorted(at) == ["host0", "host1", "host3", "host4"] and not missed
    finally:
        fleet.up()


def test_too_small_a_budget_is_told_for_each_host_that_was_left_out(fleet):
    name, members, at, missed = spread(fleet, "tree(self, 3)", clones=6)
    assert len(at) == len(set(at)) <= 7 and len(at) + len(missed) == N and set(missed.values()) == {"limit"}


def test_a_kernel_that_dies_in_the_midst_of_it_goes_on_when_it_is_back(fleet):
    """The copies that it has sent out are not sent again."""
    lua = LUA % "tree(self, 3)"
    lua = lua.replace("local missed", "if tos.kernel() == 'host1' and not self.x then self.x = true tos.checkpoint() end\n    local missed")
    lua = lua.replace("tos.briefcase:folder(\"RESULTS\"):push {", "if tos.kernel() == 'host1' then tos.inbox('on'):next(60) end\n"
                      "    tos.briefcase:folder(\"RESULTS\"):push {")
    name = fleet.launch(lua, "--path", ",".join(ALL), "--limit", f"clones={N}")
    wait_for(lambda: fleet.residents(f"{name}.1").get("host1", {}).get("state") == "running")
    wait_for(lambda: len([n for n in fleet.ps() if n.startswith(f"{name}.1.")]) == 4, text="its copies are known")
    fleet.kill("host1")
    wait_for(lambda: fleet.residents(f"{name}.1").get("host1", {}).get("state") == "running")
    wait_for(lambda: fleet.run("post", f"{name}.1/on", "go").returncode == 0)
    got = fleet.json("wait", "--family", name, "--timeout", "60s")
    at = [r["kernel"] for m in got["members"] for r in m["briefcase"]["RESULTS"]]
    assert sorted(at) == sorted(ALL) and len(got["members"]) == N
