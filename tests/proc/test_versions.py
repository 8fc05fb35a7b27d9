"""Kernels of the version before and the one after in one fleet with this one: carriers, their posts, outcomes and commands go
between all of them, over each pair in the version that both speak.
"""
import os

import pytest

from conftest import fleet_fixture
from fleet import KERNEL, NOTE, QUICK, TOUR, Fleet, events, visited, wait_for

pytestmark = pytest.mark.skipif(not os.path.exists(KERNEL), reason="TOS_BUILD names no build with tos-kernel")
# host0 speaks what this build does. host1 is a kernel of the version before: it speaks no later one. host2 offers one that
# nobody knows yet, as a kernel of the next version will.
OLD, NEW = 1, 3
fleet = fleet_fixture(n=3, rests=True, conf=QUICK, each={
    "host1": f"timing {{ test_protocol_max = {OLD} }}\n",
    "host2": f"timing {{ test_protocol_max = {NEW} }}\n"})

LISTENER = """function begin(self)
    local box = tos.inbox("talk")
    for i = 1, 20 do
        local m = box:next(60)
        if m.wants_answer then m:answer(m.data .. " heard") end
    end
end"""
SPEAKER = """function begin(self)
    local to = tos.briefcase:folder("TO"):get(1)
    for i = 1, 10 do
        tos.post(to, i)
        local got = assert(tos.call(to, "word " .. i, 20))
        tos.briefcase:folder("HEARD"):push(got)
    end
end"""


def versions(fleet, kernel):
    return {row["name"]: row["protocol"] for row in fleet.json("kernels", "--kernel", kernel) if row["linked"]}


def test_each_pair_speaks_the_highest_that_both_know(fleet):
    for path in ("host1,host2", "host2,host1"):
        assert fleet.outcome(fleet.launch(TOUR, "--path", path))["state"] == "finished"
    assert versions(fleet, "host0").items() >= {"host1": 1, "host2": 2}.items()
    assert versions(fleet, "host1")["host2"] == 1


@pytest.mark.parametrize("home", ["host0", "host1", "host2"])
def test_carriers_go_everywhere_from_every_home(fleet, home):
    path = "host0,host1,host2,host1,host0,host2,host0"
    big = fleet.file("big.json", '{"BULK": ["' + "x" * 1500000 + '"]}')
    small = [fleet.launch(TOUR, "--path", path, "--kernel", home) for _ in range(4)]
    large = fleet.launch(TOUR, "--path", path, "--kernel", home, "--briefcase", big)
    for name in [*small, large]:
        o = fleet.outcome(name)
        assert o["state"] == "finished" and visited(o) == path.split(","), o["trail"]
        assert len(events(o, "arrived")) == len(path.split(","))


@pytest.mark.parametrize("here,there", [("host0", "host1"), ("host1", "host0"), ("host1", "host2"), ("host2", "host1"),
                                        ("host2", "host0")])
def test_carriers_talk_across_versions(fleet, here, there):
    listener = fleet.launch(LISTENER, "--path", there, name="listener.lua")
    wait_for(lambda: fleet.ps(there).get(listener, {}).get("state") == "running")
    speaker = fleet.launch(SPEAKER, "--path", here, "--data", f"TO={listener}/talk", name="speaker.lua")
    o = fleet.outcome(speaker)
    assert o["state"] == "finished", o["fault"]
    assert o["briefcase"]["HEARD"] == [f"word {i} heard" for i in range(1, 11)]
    assert fleet.outcome(listener)["state"] == "finished"


def test_commands_and_crashes_across_versions(fleet):
    for place in ("host1", "host2"):
        name = fleet.launch("tos.sleep(600)", "--path", place)
        wait_for(lambda p=place, n=name: fleet.ps(p).get(n, {}).get("state") == "running")
        fleet.tos("suspend", name)
        fleet.wait_state(name, "suspended")
        fleet.kill(place)
        wait_for(lambda p=place: fleet.status(p))
        fleet.tos("resume", name)
        fleet.wait_state(name, "running")
        fleet.tos("kill", name)
        assert fleet.outcome(name, expect=1)["state"] == "killed"


def test_without_a_version_in_common_there_is_no_link_and_the_log_says_why():
    f = Fleet(2, conf=QUICK)
    try:
        f.tos("down")
        f.configure("host0", f"timing {{ test_protocol_max = {OLD} }}\n")
        f.configure("host1", "timing { test_protocol_min = 2 }\n")
        r = f.run("up", "--timeout", "3s")
        assert r.returncode == 4, r.stderr
        said = f.log_text("host0") + f.log_text("host1")
        assert "wrong-version" in said and "speak" in said, said[-2000:]
        name = f.launch(NOTE, "--path", "host1", "--on-unreachable", "fail")
        o = f.outcome(name, expect=1)
        assert o["state"] == "faulted" and o["fault"]["code"] == "unreachable", o["fault"]
    finally:
        f.close()
