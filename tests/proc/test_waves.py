"""The library waves: its rules, run in a tos-vm without any kernel."""
import json
import os
import subprocess

import pytest

from fleet import TOS

PRELUDE = """
local waves = require "waves"
local function hosts(n) local t = {} for i = 0, n - 1 do t[#t + 1] = "h" .. i end return t end
local out = {}
local function note(...) out[#out + 1] = table.concat({ ... }, " ") end
local function states(plan)
    local n, t = waves.count(plan), {}
    for k, v in pairs(n) do if k ~= "all" then t[#t + 1] = k .. "=" .. v end end
    table.sort(t)
    return plan.state .. ": " .. table.concat(t, " ")
end
"""


@pytest.fixture
def lua(tmp_path):
    def run(body):
        env = dict(os.environ, TOS_HOME=str(tmp_path / "h"), HOME=str(tmp_path))
        file = tmp_path / "c.lua"
        file.write_text(PRELUDE + "function begin(self)\n" + body + "\ntos.briefcase.OUT = out\nend\n")
        r = subprocess.run([TOS, "launch", str(file), "--local", "--json"], env=env, capture_output=True, text=True, timeout=60)
        assert r.returncode == 0, r.stdout + r.stderr
        return json.loads(r.stdout)["briefcase"].get("OUT", [])

    return run


def test_sizes(lua):
    out = lua("""
        for _, text in ipairs { "1,10%,100%", "10%", "100%", "3", " 2 , 50% ", "0.5%" } do
            note(table.concat(waves.sizes(text, 50), " "))
        end
        for _, text in ipairs { "", "0", "101%", "-1", "x", "1,,y", "1.5" } do
            note(text, tostring((pcall(waves.sizes, text, 50))))
        end
    """)
    assert out[:6] == ["1 5 50", "5", "50", "3", "2 25", "1"]
    assert out[6:] == [" false", "0 false", "101% false", "-1 false", "x false", "1,,y false", "1.5 false"]


def test_a_canary_then_batches_then_the_rest(lua):
    out = lua("""
        local plan = waves.new(hosts(20), { waves = "1,10%,100%" })
        note(waves.run(plan, { change = function(list)
            note(#list, list[1])
            local r = {}
            for _, h in ipairs(list) do r[h] = true end
            return r
        end }))
        note(states(plan))
    """)
    assert out == ["1 h0", "2 h1", "17 h3", "finished", "finished: done=20"]


@pytest.mark.parametrize("max_fail,broken,want", [
    ("0", {"h0"}, "stopped: failed=1 waiting=19"),
    ("1", {"h0"}, "finished: done=19 failed=1"),
    ("1", {"h0", "h2"}, "stopped: done=1 failed=2 waiting=17"),
    ("50%", {"h0"}, "stopped: failed=1 waiting=19"),  # all of the canary's wave
    ("50%", {"h1"}, "finished: done=19 failed=1"),    # half of the second
    ("49%", {"h1"}, "stopped: done=2 failed=1 waiting=17"),
])
def test_too_much_that_failed_stops_it(lua, max_fail, broken, want):
    table = "{" + ",".join(f"{h}=true" for h in broken) + "}"
    out = lua(f"""
        local broken = {table}
        local plan = waves.new(hosts(20), {{ waves = "1,10%,100%", max_fail = "{max_fail}" }})
        waves.run(plan, {{ change = function(list)
            local r = {{}}
            for _, h in ipairs(list) do r[h] = not broken[h] end
            return r
        end }})
        note(states(plan))
    """)
    assert out == [want]


def test_retry_takes_what_failed_and_goes_on(lua):
    out = lua("""
        local fixed, tried = false, {}
        local function change(list)
            local r = {}
            for _, h in ipairs(list) do tried[h] = (tried[h] or 0) + 1; r[h] = fixed or h ~= "h1" end
            return r
        end
        local plan = waves.new(hosts(6), { waves = "2", retries = 1 })
        note(waves.run(plan, { change = change }), states(plan))
        fixed = true
        note(waves.retry(plan), waves.run(plan, { change = change }), states(plan))
        note(tried.h0, tried.h1, tried.h2, tried.h5)
        note(select("#", waves.retry(plan)), plan.state)
    """)
    assert out == ["stopped stopped: done=1 failed=1 waiting=4", "1 finished finished: done=6", "1 3 1 1", "1 finished"]


def test_pause_resume_and_stop(lua):
    out = lua("""
        local function change(list) local r = {} for _, h in ipairs(list) do r[h] = true end return r end
        local plan = waves.new(hosts(6), { waves = "2", pause = true })
        note(waves.run(plan, { change = change }), states(plan))
        note(waves.run(plan, { change = change }), states(plan))
        waves.resume(plan)
        note(waves.run(plan, { change = change }), states(plan))
        waves.resume(plan)
        note(waves.stop(plan), plan.why, select("#", waves.next(plan)))
        plan = waves.new(hosts(6), { waves = "2" })
        local n = 0
        note(waves.run(plan, { change = change, between = function() n = n + 1 return n == 2 and "pause" or nil end }))
        note(n, states(plan))
        waves.resume(plan)
        note(waves.run(plan, { change = change, between = function() return "stop" end }), states(plan))
        -- stopped in the middle of a wave: what is under way is still told
        plan = waves.new(hosts(4), { waves = "2", retries = 3 })
        local list = waves.next(plan)
        waves.stop(plan)
        waves.report(plan, list[1], false)
        note(plan.state)
        waves.report(plan, list[2], true)
        note(states(plan))
    """)
    assert out == [
        "paused paused: done=2 waiting=4", "paused paused: done=2 waiting=4", "paused paused: done=4 waiting=2",
        "stopped stopped 2", "paused", "2 paused: done=4 waiting=2", "finished finished: done=6",
        "running", "stopped: done=1 failed=1 waiting=2"]


def test_what_was_changed_is_undone_in_reverse(lua):
    out = lua("""
        local plan = waves.new(hosts(6), { waves = "1,2,100%", undo = true })
        note(waves.run(plan, {
            change = function(list)
                local r = {}
                for _, h in ipairs(list) do r[h] = h ~= "h2" or { ok = false, code = "full" } end
                r.h1 = r.h1 and { down = true }
                return r
            end,
            undo = function(list)
                note("undo", table.concat(list, " "))
                return { h2 = true }
            end }))
        note(states(plan), plan.hosts.h2.result.code)
    """)
    assert out == ["undo h2 h0", "undone", "undone: down=1 stuck=1 undone=1 waiting=3 full"]


def test_an_alternative_takes_the_place_of_a_host_that_is_down(lua):
    out = lua("""
        local plan = waves.new({ "a", "b", "a" }, { alternatives = { a = { "c", "d" } } })
        local function change(list, p)
            local r = {}
            for _, h in ipairs(list) do
                local at = waves.at(p, h)
                note(h, at)
                r[h] = at == "d" or at == "b" or { down = true, code = "unreachable" }
            end
            return r
        end
        note(waves.run(plan, { change = change }), states(plan))
    """)
    assert out == ["a a", "b b", "a c", "a d", "finished finished: done=2"]


def test_what_was_under_way_in_a_crash_is_begun_again(lua):
    out = lua("""
        local plan = waves.new(hosts(4), { waves = "2" })
        local list = waves.next(plan)
        waves.report(plan, list[1], true)
        note(waves.recover(plan), plan.wave)
        list = waves.next(plan)
        note(#list, list[1], plan.wave)
        waves.report(plan, list[1], true)
        note(states(plan), tostring(pcall(waves.report, plan, "h0", true)), tostring(pcall(waves.report, plan, "x", true)))
        note(states(waves.new({}, {})), tostring(waves.next(waves.new({}, {}))))
    """)
    assert out == ["1 1", "1 h1 1", "ready: done=2 waiting=2 false false", "ready:  nil"]
