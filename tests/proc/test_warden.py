"""Security automata: Warden gives them to carriers that arrive, the kernel asks them, and no carrier gets around."""
import json
import os

import pytest

from conftest import fleet_fixture
from fleet import KERNEL, QUICK, wait_for

pytestmark = pytest.mark.skipif(not os.path.exists(KERNEL), reason="TOS_BUILD names no build with tos-kernel")
NAMES = ("Echo", "Mobility", "Messenger", "Spawner", "Directory")
TEN = "go post,call * 10 same; go post,call * * deny; go * * * same"
HOST1 = "".join(f'extension "{n}" {{ library = "{n.lower()}" where = "kernel" }}\n' for n in NAMES) + \
    f'extension "Warden" {{ library = "warden" where = "isolated" property = {{"/rules={TEN}", "/exempt=carol"}} }}\n'
fleet = fleet_fixture(n=2, conf=QUICK, each={"host1": HOST1})

# Each way that a carrier might find to a function which is not watched; SINK is the inbox of another carrier.
TRIES = """
    local plain = { tos.post, _G.tos.post, rawget(_G, "tos").post }
    local meta = getmetatable(tos) or {}
    for _, f in pairs(type(meta.__index) == "table" and meta.__index or {}) do plain[#plain + 1] = f end
    local tricks = {
        function() tos.post(SINK, "x") end,
        function() for _, f in ipairs(plain) do pcall(f, SINK, "x") end end,
        function() coroutine.wrap(function() tos.post(SINK, "x") end)() end,
        function() coroutine.resume(coroutine.create(tos.post), SINK, "x") end,
        function() tos.call(SINK, { "x" }, 1) end,
        function() setmetatable({}, { __index = tos }).post(SINK, "x") end,
        function() setmetatable({}, { __close = function() tos.post(SINK, "x") end, __index = tos.post }) end,
        function() tos = setmetatable({}, { __index = tos }) tos.post(SINK, "x") end,
        function() _ENV = setmetatable({}, { __index = _G }) tos.post(SINK, "x") end,
        function() return ("x"):gsub("x", function() tos.post(SINK, "x") end) end,
        function() table.sort({ 1, 2 }, function() tos.post(SINK, "x") return false end) end,
        function() require("other")(SINK) end,
        function() debug.getregistry() end,
        function() load("tos.post(...)")(SINK, "x") end,
    }
    for round = 1, 4 do for _, f in ipairs(tricks) do pcall(f) end end
"""


@pytest.fixture(autouse=True)
def ten(fleet):
    yield
    rules(fleet, TEN)


def rules(fleet, text):
    parts = text.split("\n")
    for path, value in (("/Warden/rules", parts[0]), ("/Warden/rules2", "".join(parts[1:]))):
        if fleet.get("host1", path)[path] != value:
            fleet.tos("set", path, value, "--kernel", "host1")


def go(fleet, lua, *args, path="host1", expect=0):
    name = fleet.launch(f"function begin(self)\n{lua}\nend", "--path", path, *args)
    return name, fleet.outcome(name, expect=expect)


def denials(fleet, name):
    rows = [json.loads(line) for line in fleet.tos("audit", "--json", "--most", "500", "--kernel", "host1").splitlines()]
    return [(r["action"], r["object"], r["rule"]) for r in rows if r["event"] == "denied" and r["who"] == name]


def test_at_most_ten_posts_per_stay_and_the_eleventh_is_stopped(fleet):
    name, o = go(fleet, """
        local said = {}
        for i = 1, 12 do local a, code, text = tos.call("Echo", { i }, 10) said[i] = a and "ok" or code .. ": " .. text end
        tos.briefcase:folder("RESULTS"):push { said = said, kernel = tos.kernel() }""", path="host1,host0")
    here, there = o["briefcase"]["RESULTS"]
    why = f"{name} may not call Echo at host1 (automaton of Warden, state go: go post,call * * deny)"
    assert here["said"] == ["ok"] * 10 + [f"denied: {why}"] * 2
    # The code is its author's: where there is no automaton nothing is stopped, and the trail says who watched it where.
    assert there["said"] == ["ok"] * 12
    assert [(t["kernel"], t["peer"]) for t in o["trail"] if t["event"] == "watched"] == [("host1", "Warden")]
    wait_for(lambda: denials(fleet, name) == [("call", "Echo", "automaton of Warden, state go: go post,call * * deny")] * 2)
    assert fleet.metric("host1", "tos_automata_denied_total") >= 2


def test_what_was_done_decides_what_may_be_done(fleet):
    rules(fleet, "clean call Echo 1 tainted; clean * * * same; tainted go host0 * same\ntainted inbox a* * same; tainted call host1/x * same")
    name, o = go(fleet, """
        if tos.kernel() == "host0" then return end
        local function say(what, ok, code) tos.briefcase:folder("RESULTS"):push { what, ok and "ok" or code } end
        say("before", tos.call("host0/Echo", { "x" }, 10))
        say("reads", tos.call("host1/Echo", { "x" }, 10))
        say("after", tos.call("host0/Echo", { "x" }, 10))
        say("inbox", pcall(tos.inbox, "abc"))
        say("other", select(2, pcall(tos.inbox, "bcd")) and false, "no")
        say("clone", tos.clone("host0"))
        say("far", tos.go("host7"))
        tos.go("host0")""", "--itinerant", "--limit", "clones=2")
    got = [tuple(r) for r in o["briefcase"]["RESULTS"]]
    assert got[:3] == [("before", "ok"), ("reads", "ok"), ("after", "denied")], got
    assert ("clone", "denied") in got and ("far", "denied") in got and ("inbox", "ok") in got
    wait_for(lambda: {(a, obj) for a, obj, _ in denials(fleet, name)} == {("call", "host0/Echo"), ("inbox", "bcd"), ("clone", "host0"), ("go", "host7")})
    assert all("state tainted: no rule fits" in rule for _, _, rule in denials(fleet, name))


def test_an_automaton_can_end_a_carrier(fleet):
    rules(fleet, "a post * 2 same; a post * * end; a * * * same")
    name, o = go(fleet, "for i = 1, 9 do tos.post('Echo', i) tos.sleep(0.01) end", expect=1)
    assert o["state"] == "faulted" and o["fault"]["code"] == "denied" and "automaton of Warden" in o["fault"]["text"]
    shown = fleet.show(name)
    assert shown["state"] == "faulted"
    fleet.tos("kill", name)


def test_a_run_that_begins_again_goes_on_with_what_was_kept(fleet):
    """Four before the checkpoint count after the crash; what came after it happens again and is counted once."""
    lua = """
        local function call() return tos.call("Echo", { "x" }, 10) and "ok" or "no" end
        if not self.said then
            self.said = {}
            for i = 1, 4 do self.said[i] = call() end
            tos.checkpoint()
            call()
            call()
            tos.log("waits")
            tos.inbox("on"):next(60)
        end
        for i = 1, 8 do self.said[#self.said + 1] = call() end
        tos.briefcase:folder("RESULTS"):push(self.said)"""
    name = fleet.launch(f"function begin(self)\n{lua}\nend", "--path", "host1")
    wait_for(lambda: "waits" in fleet.tos("log", name))
    assert [a["by"] for a in fleet.show(name)["automata"]] == ["Warden"]
    rules(fleet, "a * * * same")  # what is configured now is for those that come now
    fleet.kill("host1", "tos-kernel")
    o = fleet.outcome(name)
    assert o["briefcase"]["RESULTS"][0] == ["ok"] * 10 + ["no"] * 2


def test_a_host_whose_automaton_is_malformed_admits_nobody(fleet):
    rules(fleet, "a post * *")
    name = fleet.launch("function begin(self) end", "--path", "host1", "--on-unreachable", "fail")
    o = fleet.outcome(name, expect=1)
    assert "the automaton of Warden" in o["fault"]["text"], o["fault"]
    fleet.tos("kill", name)


# Last: what it is denied is more than the audit takes in a second.
def test_no_trick_in_the_carrier_gets_around_it(fleet):
    fleet.tos("principal", "add", "carol", "--role", "owner,author")
    sink = fleet.launch("""function begin(self)
        local box, n = tos.inbox("box"), 0
        while true do
            local m = box:next(60)
            if m.data == "how many" then m:answer { n } else n = n + 1 end
        end
    end""", "--path", "host1", "--as", "carol")
    fleet.wait_state(sink, "running")
    other = os.path.join(fleet.path, "other.lua")
    with open(other, "w") as f:
        f.write("return function(sink) tos.post(sink, 'x') end\n")
    name, o = go(fleet, f'SINK = "{sink}/box"\n' + TRIES, "--limit", "posts=1000")
    assert o["state"] == "finished"
    # A carrier that is not watched asks.
    lua = f'tos.briefcase:folder("RESULTS"):push {{ n = tos.call("{sink}/box", {{ "how many" }}, 10) }}'
    _, o = go(fleet, lua, "--as", "carol")
    assert o["briefcase"]["RESULTS"][0]["n"] == 10
    assert fleet.show(sink).get("automata") is None
    fleet.tos("kill", sink)
