"""Clones: names, budgets, families, and what a kernel that lies can make of them."""
import json
import os

import pytest

from conftest import fleet_fixture
from fleet import KERNEL, QUICK, events, visited, wait_for

pytestmark = pytest.mark.skipif(not os.path.exists(KERNEL), reason="TOS_BUILD names no build with tos-kernel")
fleet = fleet_fixture(n=3, rests=True, conf=QUICK)

# `made` runs in the original only; every member notes where it was.
FAMILY = """function begin(self)
    local me = tos.self()
    tos.briefcase:folder("RESULTS"):push { kernel = tos.kernel(), who = me.name, parent = me.parent, was = self.was }
    if me.parent then %s return end
    self.was = "before"
    local function say(...) tos.log("made", ...) return ... end
    %s
end"""


def family(fleet, made, *args, clone="", expect=0, path="host1,host2,host0", clones=20):
    """Launched and waited for, with all its clones; (the members' outcomes by name, the log of the original)."""
    name = fleet.launch(FAMILY % (clone, made), "--path", path, "--limit", f"clones={clones}", *args)
    got = fleet.json("wait", "--family", name, "--timeout", "60s", expect=expect)
    assert got["complete"]
    return {m["name"]: m for m in got["members"]}, [line[2] for line in got["members"][0]["log"]]


def rows(outcome):
    return [(r["kernel"], r["who"]) for r in outcome["briefcase"]["RESULTS"]]


def ended(fleet, name):
    """It may not be known yet."""
    wait_for(lambda: fleet.run("wait", "--quiet", name, "--timeout", "1s").returncode == 0, text=f"{name} has finished")


def audit(fleet, kernel):
    return [json.loads(line) for line in fleet.tos("audit", "--json", "--kernel", kernel).splitlines()]


# ---- names and places

def test_a_copy_goes_to_the_paths_next_entry_and_the_original_stays(fleet):
    members, log = family(fleet, "say(tos.clone()) self.was = 'after' tos.path:clear()")
    one, two = members
    assert two == f"{one}.1" and log == [f"made {two}"]
    assert rows(members[one]) == [("host1", one)]
    # The state is that of the call, the briefcase's too; begin runs anew at each kernel.
    assert rows(members[two]) == [("host1", one), ("host2", two), ("host0", two)]
    assert [r.get("parent") for r in members[two]["briefcase"]["RESULTS"]] == [None, one, one]
    assert members[two]["briefcase"]["RESULTS"][1]["was"] == "before"
    assert events(members[two], "cloned") == ["host1"] and events(members[two], "arrived") == ["host2", "host0"]
    assert events(members[one], "clone") == ["host1"] and members[one]["clones"] == 1


def test_names_are_those_of_the_first_ancestor_with_a_number_for_each_sibling(fleet):
    made = """if not me.parent then say(tos.clone("host2")) say(tos.clone("host2")) tos.path:clear() end"""
    clone = "if me.name:match('#%d+%.1$') and tos.kernel() == 'host2' then tos.clone() end"
    members, _ = family(fleet, made, clone=clone)
    one = next(iter(members))
    assert list(members) == [one, f"{one}.1", f"{one}.1.1", f"{one}.2"] and one.startswith("host0#")
    shown = {n: fleet.show(n) for n in members}
    assert len({s["id"] for s in shown.values()}) == 4
    assert shown[one]["clones"] == [f"{one}.1", f"{one}.2"] and shown[f"{one}.1"]["clones"] == [f"{one}.1.1"]
    assert shown[f"{one}.1.1"]["parent"] == f"{one}.1" and "parent" not in shown[one]
    assert {r["name"]: r.get("parent") for r in fleet.json("ps") if r["name"] in members}[f"{one}.2"] == one
    text = fleet.tos("show", f"{one}.1")
    assert f"parent      {one}\n" in text and f"clones      {one}.1.1\n" in text


def test_a_copy_can_begin_here_and_both_are_told_apart(fleet):
    members, _ = family(fleet, "say(tos.clone(tos.kernel())) tos.path:clear()", clone="tos.path:clear()", path="host1")
    one, two = members
    assert rows(members[two]) == [("host1", one), ("host1", two)] and not events(members[two], "arrived")


def test_posts_find_each_of_them(fleet):
    made = """local box = tos.inbox("box")
    local name = say(tos.clone("host2"))
    tos.path:clear()
    local m = box:next(20)
    say(m.sender == name, m.data)
    say(tos.call(name .. "/ask", { "who" }, 10))"""
    clone = """(function()
        local ask = tos.inbox("ask")
        tos.post(me.parent .. "/box", "here I am")
        ask:next(20):answer { me.name }
        tos.path:clear()
    end)()"""
    members, log = family(fleet, made, clone=clone)
    two = list(members)[1]
    assert log == [f"made {two}", "made true here I am", f"made {two}"]


def test_the_home_knows_that_they_run_elsewhere(fleet):
    """As it says by itself, without asking the kernels where they are."""
    lua = """function begin(self)
        if not tos.self().parent then tos.clone("host2") end
        tos.inbox("x"):next(600)
    end"""
    for _ in range(3):
        name = fleet.launch(lua, "--path", "host1,host2", "--limit", "clones=1")
        wait_for(lambda: {n: (r["kernel"], r["state"]) for n, r in fleet.ps("host0").items() if n.startswith(name)} ==
                 {name: ("host1", "running"), f"{name}.1": ("host2", "running")}, text="the home knows that both run")
        fleet.tos("suspend", f"{name}.1")
        wait_for(lambda: fleet.ps("host0")[f"{name}.1"]["state"] == "suspended")
        fleet.tos("resume", f"{name}.1")
        wait_for(lambda: fleet.ps("host0")[f"{name}.1"]["state"] == "running")
        fleet.tos("kill", name, f"{name}.1")


# ---- what is refused costs no clone

@pytest.mark.parametrize("made, code, text", [
    ("tos.clone('host7')", "unreachable", "host7: "),
    ("tos.clone('host2', { clones = 30 })", "limit", "limit clones: 20 are left"),
    ("tos.clone('host2', { cpu = 11 })", "limit", "limit cpu: "),
    ("tos.clone('host2', { hops = 64 })", "limit", "limit hops: "),
    ("tos.clone('host2', { cpu = 0 })", "limit", "limit cpu: "),
    ("tos.clone('host0#1')", "bad-name", ""),
])
def test_what_can_not_be_had_is_said_and_nothing_is_made(fleet, made, code, text):
    members, log = family(fleet, f"say({made}) say(tos.usage().clones) tos.path:clear()", "--itinerant")
    assert len(members) == 1
    assert log[0].startswith(f"made nil {code} {text}"), log
    assert log[1] == "made 0"


def test_without_a_limit_for_clones_there_are_none(fleet):
    members, log = family(fleet, "say(tos.clone()) tos.path:clear()", clones=0)
    assert len(members) == 1 and "limit clones: 0 are left" in log[0]


def test_only_an_itinerant_one_may_send_its_clone_off_the_path(fleet):
    members, log = family(fleet, "say(tos.clone('host0')) tos.path:clear()", path="host1,host2")
    assert len(members) == 1 and log[0].startswith("made nil denied")
    refused = [r for r in audit(fleet, "host1") if r["event"] == "cloning-refused"]
    assert refused and refused[-1]["code"] == "denied"
    members, log = family(fleet, "say(tos.clone('host0')) tos.path:clear()", "--itinerant", path="host1,host2",
                          clone="tos.path:clear()")
    assert len(members) == 2 and visited(list(members.values())[1]) == ["host1", "host0"]


# ---- budgets

def test_budgets_are_split_and_half_of_what_is_left_is_given(fleet):
    made = """local b, u = tos.limits(), tos.usage()
    tos.clone("host2", { hops = 10, clones = 3, sent = 1000, cpu = 2 })
    local a = tos.limits()
    say(b.hops - a.hops, b.sent - a.sent, b.cpu - a.cpu, tos.usage().clones)
    tos.clone("host2")
    tos.path:clear()"""
    clone = "tos.log('got', tos.limits().hops, tos.limits().sent, tos.limits().cpu, tos.limits().clones) tos.path:clear()"
    members, log = family(fleet, made, clone=clone)
    one, two, three = members.values()
    assert log == ["made 10 1000 2.0 4"]
    assert two["log"][-1][2] == "got 10 1000 2.0 3"
    # Of 64 hops one is used and ten are given; of 20 clones four are.
    assert three["log"][-1][2].startswith("got 26 ") and three["log"][-1][2].endswith(" 7")


def test_a_clone_that_has_used_its_share_is_stopped_and_the_others_are_not(fleet):
    members, _ = family(fleet, "tos.clone('host2', { cpu = 0.2 }) tos.path:clear()", clone="(function() while true do end end)()",
                        expect=1)
    one, two = members.values()
    assert one["state"] == "finished" and two["state"] == "faulted" and "limit cpu" in two["fault"]["text"]


def test_a_fork_bomb_stays_within_the_limit_of_its_ticket(fleet):
    lua = """function begin(self)
        tos.path:clear()
        for i = 1, 20 do
            for _, where in ipairs { "host0", "host1", "host2" } do tos.clone(where) end
        end
    end"""
    name = fleet.launch(lua, "--path", "host0,host1,host2", "--limit", "clones=40", "--limit", "cpu=60", "--limit", "hops=1000",
                        "--itinerant")
    got = fleet.json("wait", "--family", name, "--timeout", "90s")
    assert 20 < len(got["members"]) <= 41
    assert fleet.metric("host0", "tos_clones_denied_total") == 0


# ---- the family

def test_a_launch_waits_for_the_clones_and_prints_one_table(fleet):
    out = fleet.tos("launch", fleet.file("f.lua", FAMILY % ("", "tos.clone() tos.path:clear()")), "--path", "host1,host2,host0",
                  "--limit", "clones=3", "--wait")
    name = out.split()[0]
    table = out.split("\n\n")[0]
    assert "carrier" in table and f"{name}.1" in table and table.count("host2") == 1
    assert f"{name}.1  finished" in out and "trail" not in out


def test_a_wait_for_one_is_not_a_wait_for_all(fleet):
    lua = FAMILY % ("tos.inbox('end'):next(60)", "tos.clone('host2') tos.path:clear()")
    name = fleet.launch(lua, "--path", "host1,host2", "--limit", "clones=3")
    assert fleet.outcome(name)["clones"] == 1
    fleet.tos("wait", "--family", name, "--timeout", "500ms", expect=4)
    fleet.wait_state(f"{name}.1", "running")
    fleet.tos("post", f"{name}.1/end", "now")
    assert fleet.outcome(f"{name}.1")["state"] == "finished"
    assert fleet.json("wait", "--family", name)["complete"]


def test_a_family_is_suspended_resumed_and_killed_as_one(fleet):
    lua = FAMILY % ("(function() while true do tos.sleep(0.05) end end)()", """tos.path:clear()
        tos.clone("host2") tos.clone("host0")
        local box = tos.inbox("more")
        while box:next(60) do tos.clone("host2") end""")
    name = fleet.launch(lua, "--path", "host1,host2,host0", "--limit", "clones=9", "--itinerant")
    names = [name, f"{name}.1", f"{name}.2"]
    for n in names:
        fleet.wait_state(n, "running")
    assert "3 carriers" in fleet.tos("suspend", name, "--family")
    for n in names:
        fleet.wait_state(n, "suspended")
    fleet.tos("resume", name, "--family")
    for n in names:
        fleet.wait_state(n, "running")
    # One of them alone: its siblings go on.
    fleet.tos("kill", f"{name}.1")
    fleet.wait_state(f"{name}.1", "killed")
    assert fleet.state(name) == fleet.state(f"{name}.2") == "running"
    fleet.tos("kill", name, "--family")
    got = fleet.json("wait", "--family", name, "--timeout", "20s", expect=1)
    assert [m["state"] for m in got["members"]] == ["killed"] * 3


def test_a_kill_of_the_family_reaches_clones_that_are_heard_of_later(fleet):
    """host2, where the clones are made, cannot tell the home before it is told to kill them."""
    lua = FAMILY % ("(function() while true do tos.sleep(0.05) end end)()", """tos.path:clear()
        local box = tos.inbox("more")
        while box:next(60) do tos.clone(tos.kernel()) end""")
    name = fleet.launch(lua, "--path", "host2", "--limit", "clones=9")
    fleet.wait_state(name, "running")
    fleet.freeze("host0")  # the home
    try:
        wait_for(lambda: fleet.run("post", f"{name}/more", "one", "--kernel", "host2").returncode == 0)
        wait_for(lambda: f"{name}.1" in fleet.ps("host2"))
    finally:
        fleet.thaw("host0")
    fleet.tos("kill", name, "--family")
    got = wait_for(lambda: (g := fleet.json("wait", "--family", name, "--timeout", "20s", expect=1)) and len(g["members"]) == 2 and g)
    assert [m["state"] for m in got["members"]] == ["killed"] * 2
    wait_for(lambda: not [n for n in fleet.ps("host2") if n.startswith(name) and fleet.residents(n)])


# ---- crashes

ONCE = """function begin(self)
    local me = tos.self()
    tos.briefcase:folder("RESULTS"):push { kernel = tos.kernel(), who = me.name }
    tos.path:clear()
    if me.parent then return end
    tos.log("got", tos.clone("host2", { clones = 0 }))
    %s
    tos.inbox("on"):next(60)
end"""


@pytest.mark.parametrize("after, lines", [
    ("tos.log('got', tos.clone('host2', { clones = 1 }))", ["1", "1", "2"]),
    ("if not self.x then self.x = true tos.checkpoint() end tos.log('got', tos.clone('host2', { clones = 1 }))",
     ["1", "2"]),
], ids=["from the arrival", "from a checkpoint"])
def test_a_run_that_begins_again_gets_the_clones_that_it_has_made(fleet, after, lines):
    lua = ONCE.replace("%s", after)
    if "checkpoint" in after:  # what stands before it is not said again
        lua = lua.replace('tos.log("got", tos.clone("host2", { clones = 0 }))',
                          'if not self.x then tos.log("got", tos.clone("host2", { clones = 0 })) end')
    name = fleet.launch(lua, "--path", "host1,host2", "--limit", "clones=9")
    ended(fleet, f"{name}.2")
    fleet.kill("host1")
    wait_for(lambda: fleet.status("host1") and fleet.residents(name).get("host1", {}).get("state") == "running")
    wait_for(lambda: fleet.run("post", f"{name}/on", "go").returncode == 0)
    got = fleet.json("wait", "--family", name, "--timeout", "60s")
    assert [m["name"] for m in got["members"]] == [name, f"{name}.1", f"{name}.2"]
    assert got["members"][0]["clones"] == 2
    # Of the first run's log there is what was saved with the second clone, or by the checkpoint.
    said = [line[2].removeprefix("got " + name + ".") for line in got["members"][0]["log"] if line[2].startswith("got")]
    assert said == lines
    assert all(len(m["briefcase"]["RESULTS"]) >= 1 for m in got["members"])
    if "checkpoint" not in after:
        assert fleet.metric("host1", "tos_clones_repeated_total") >= 2


def test_another_request_than_before_the_crash_is_told_so(fleet):
    lua = ONCE.replace('"host2", { clones = 0 }', '({ "host2", "host0" })[tos.now() // 1 % 2 + 1]').replace("%s", "")
    name = fleet.launch(lua, "--path", "host1,host2,host0", "--itinerant", "--limit", "clones=9")
    ended(fleet, f"{name}.1")

    def diverged():
        fleet.kill("host1")
        wait_for(lambda: fleet.status("host1") and fleet.residents(name).get("host1", {}).get("state") == "running")
        return "diverged" in fleet.tos("log", name)

    wait_for(diverged, text="a run in a second of the other kind")
    wait_for(lambda: fleet.run("post", f"{name}/on", "go").returncode == 0)
    got = fleet.json("wait", "--family", name, "--timeout", "60s")
    assert [m["name"] for m in got["members"]] == [name, f"{name}.1"]
    assert any("diverged" in line[2] for line in got["members"][0]["log"])


def test_a_retry_makes_new_ones_and_a_kernel_declared_dead_takes_no_numbers_along(fleet):
    lua = ONCE.replace("%s", "if not tos.inbox('on'):next(0.2) then error('not yet') end")
    name = fleet.launch(lua, "--path", "host1,host2", "--limit", "clones=9")
    fleet.wait_state(name, "faulted")
    fleet.tos("retry", name)
    ended(fleet, f"{name}.2")
    fleet.tos("kill", name)
    got = fleet.json("wait", "--family", name, expect=1)
    assert [m["name"] for m in got["members"]] == [name, f"{name}.1", f"{name}.2"]
