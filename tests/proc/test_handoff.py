"""The hand-off between kernels whose processes are killed, frozen and away: one live copy, never two, never none."""
import os
import signal
import time

import pytest

from conftest import fleet_fixture
from fleet import KERNEL, QUICK, cpu_ticks, process_table, wait_for

pytestmark = pytest.mark.skipif(not os.path.exists(KERNEL), reason="TOS_BUILD names no build with tos-kernel")
fleet = fleet_fixture(n=3, conf=QUICK)

NOTE = 'tos.briefcase:folder("RESULTS"):push { kernel = tos.kernel() }'
TOUR = f"function begin(self) self.n = (self.n or 0) + 1; {NOTE}; tos.sleep(0.03) end"
STAY = "while true do tos.sleep(0.05) end"
BUSY = "while true do end"


def visited(outcome):
    return [row["kernel"] for row in outcome["briefcase"].get("RESULTS", [])]


def events(outcome, event):
    return [line["kernel"] for line in outcome["trail"] if line["event"] == event]


def one_copy_at_most(fleet, name):
    """No two kernels may hold a copy that runs; one that departs may have been accepted already."""
    found = fleet.residents(name)
    running = [k for k, row in found.items() if row["state"] != "departing"]
    assert len(running) <= 1, found


# ---- processes that die

# What is killed, at which kernel, after how many stops; a tos-vm's death faults its carrier, which is retried.
DEATHS = [(kind, kernel, stop) for kind in ("tos-kernel", "tosd", "tosd-launcher", "tos-ext")
          for kernel, stop in (("host0", 1), ("host1", 3), ("host2", 4))]


@pytest.mark.parametrize("kind,kernel,stop", DEATHS)
def test_a_tour_survives_the_death_of_a_process(fleet, kind, kernel, stop):
    path = ["host1", "host2", "host0", "host1", "host2", "host0"]
    name = fleet.launch(TOUR, "--path", ",".join(path))

    def reached():
        shown = fleet.show(name)
        return not shown or shown["hop"] >= stop or shown["state"] == "finished"

    wait_for(reached)
    fleet.kill(kernel, kind)
    one_copy_at_most(fleet, name)
    o = fleet.outcome(name)
    assert o["state"] == "finished", o["fault"]
    # begin may run again at a kernel that died; no stop is left out, and none comes out of order.
    seen = visited(o)
    assert [k for i, k in enumerate(seen) if i == 0 or seen[i - 1] != k] == path, seen
    # Each hand-off was accepted once: the trail's arrivals are the path.
    assert events(o, "arrived") == path, o["trail"]
    wait_for(lambda: not fleet.residents(name), text="no copy is left")


def test_kernels_killed_again_and_again_lose_no_carrier(fleet):
    path = ["host1", "host2", "host0"] * 3
    names = [fleet.launch(TOUR, "--path", ",".join(path)) for _ in range(6)]
    for i in range(6):
        victim = fleet.names[i % 3]
        fleet.kill(victim)
        for name in names:
            one_copy_at_most(fleet, name)
        wait_for(lambda: fleet.status(victim), text=f"{victim} is back")
    for name in names:
        o = fleet.outcome(name)
        assert o["state"] == "finished", o["fault"]
        assert events(o, "arrived") == path, o["trail"]
    wait_for(lambda: not any(fleet.residents(name) for name in names))


def test_the_death_of_its_tos_vm_faults_a_carrier_and_retry_runs_it_again(fleet):
    lua = f"""function begin(self)
        self.n = (self.n or 0) + 1
        if tos.kernel() == "host1" and self.n < 99 then
            tos.inbox("go"):next(60)
        end
        {NOTE}
    end"""
    name = fleet.launch(lua, "--path", "host1,host2")
    fleet.wait_state(name, "running")
    wait_for(lambda: fleet.processes("host1", "tos-vm"))
    fleet.kill("host1", "tos-vm")
    fleet.wait_state(name, "faulted")
    shown = fleet.show(name)
    assert "tos-vm" in shown["fault"]["text"] and shown["fault"]["kernel"] == "host1"
    before = shown["incarnation"] if "incarnation" in shown else 0
    fleet.tos("retry", name)
    wait_for(lambda: fleet.ps("host1").get(name, {}).get("state") == "running")
    fleet.tos("post", f"{name}/go", "on")
    o = fleet.outcome(name)
    assert o["state"] == "finished" and visited(o) == ["host1", "host2"]
    assert before == 0 or fleet.show(name).get("incarnation", before + 1) > before


def test_a_retry_starts_from_the_state_of_arrival(fleet):
    lua = f"""function begin(self)
        self.tries = (self.tries or 0) + 1
        {NOTE}
        if tos.kernel() == "host1" and not tos.inbox("second"):next(1) then error("not yet") end
        tos.briefcase:folder("TRIES"):push(self.tries)
    end"""
    name = fleet.launch(lua, "--path", "host0,host1")
    fleet.wait_state(name, "faulted")
    fleet.tos("retry", name)
    fleet.tos("post", f"{name}/second", "now")
    o = fleet.outcome(name)
    assert visited(o) == ["host0", "host1"]
    assert o["briefcase"]["TRIES"] == [1, 2]


# ---- hosts that are down

@pytest.fixture
def without_host2(fleet):
    fleet.tos("down", "host2", timeout=120)
    yield fleet
    fleet.up()


def test_an_unreachable_host_is_waited_for(without_host2):
    fleet = without_host2
    name = fleet.launch(TOUR, "--path", "host1,host2,host0", "--on-unreachable", "wait=60s")
    wait_for(lambda: "host2" in str(fleet.show(name, "--kernel", "host1") or fleet.show(name)) and
             fleet.residents(name).get("host1", {}).get("state") == "running" and
             events(fleet.show(name), "started")[-1:] == ["host1"])
    fleet.up()
    o = fleet.outcome(name)
    assert o["state"] == "finished" and visited(o) == ["host1", "host2", "host0"]


def test_an_unreachable_host_is_skipped(without_host2):
    o = without_host2.outcome(without_host2.launch(TOUR, "--path", "host1,host2,host0", "--on-unreachable", "skip"))
    assert o["state"] == "finished" and visited(o) == ["host1", "host0"]
    skipped = [line for line in o["trail"] if line["event"] == "skipped"]
    assert len(skipped) == 1 and "host2" in str(skipped[0]) and "unreachable" in str(skipped[0])


def test_an_alternative_is_taken(without_host2):
    o = without_host2.outcome(without_host2.launch(TOUR, "--path", "host2|host1,host0", "--on-unreachable", "alternate"))
    assert o["state"] == "finished" and visited(o) == ["host1", "host0"]


def test_fail_faults_and_names_the_host(without_host2):
    r = without_host2.run("launch", "-e", "return 1", "--path", "host1,host2", "--on-unreachable", "fail", "--wait")
    assert r.returncode == 1 and "host2" in r.stderr
    name = r.stdout.split()[0]
    shown = without_host2.show(name)
    assert shown["state"] == "faulted" and shown["fault"]["code"] == "unreachable", shown["fault"]
    without_host2.tos("kill", name)


def test_a_waiting_launch_names_host_and_remedy(without_host2):
    p = without_host2.start("launch", "-e", "return 1", "--path", "host2", "--on-unreachable", "wait=3s", "--wait")
    out, err = p.communicate(timeout=60)
    assert p.returncode == 1 and "host2" in err and "--on-unreachable skip" in err
    without_host2.tos("kill", out.split()[0])


def test_the_outcome_waits_for_a_launcher_that_went_away(fleet):
    p = fleet.start("launch", "-e", "tos.sleep(0.5) return 7", "--path", "host1,host2", "--wait")
    name = p.stdout.readline().strip()
    p.kill()
    p.communicate()
    o = fleet.outcome(name)
    assert [r["value"] for r in o["briefcase"]["RESULTS"]] == [7, 7]
    assert fleet.outcome(name) == o


def test_an_outcome_waits_for_its_home(fleet):
    name = fleet.launch(f"function begin(self) tos.inbox('go'):next(60) {NOTE} end", "--path", "host1")
    fleet.wait_state(name, "running")
    fleet.tos("down", "host0", timeout=120)
    fleet.tos("post", "--kernel", "host1", f"{name}/go", "on")
    wait_for(lambda: fleet.ps("host1").get(name, {}).get("state") == "departing")
    fleet.kill("host1")
    wait_for(lambda: fleet.ps("host1").get(name, {}).get("state") == "departing", text="kept over its kernel's death")
    fleet.up()
    o = fleet.outcome(name)
    assert o["state"] == "finished" and visited(o) == ["host1"]
    wait_for(lambda: not fleet.residents(name))


# ---- in doubt

BIG = """function begin(self)
    if tos.kernel() == "host1" then
        tos.inbox("go"):next(60)
        if not self.big then self.big = string.rep("x", 3000000) end
    else
        self.big = nil
    end
    %s
end""" % NOTE


def frozen_in_flight(fleet, lua=BIG):
    """host2 is frozen while the envelope (3 MB in chunks) is on its way to it; the name of the carrier."""
    for _ in range(30):
        name = fleet.launch(lua, "--path", "host1,host2,host0", "--on-unreachable", "wait=60s", "--limit", "memory=64M",
                            "--limit", "state=8M")
        wait_for(lambda: fleet.ps("host1").get(name, {}).get("state") == "running")
        pid = fleet.pid("host2", "tos-kernel")
        fleet.tos("post", f"{name}/go", "on")
        while (fleet.ps("host1").get(name) or {}).get("state") == "running":
            pass
        os.kill(pid, signal.SIGSTOP)
        row = fleet.ps("host1").get(name)
        if row and row["state"] == "departing":
            return name
        os.kill(pid, signal.SIGCONT)
        fleet.outcome(name)
    pytest.skip("no move could be caught in flight")


def test_a_destination_that_freezes_leaves_a_doubt_and_settles_it(fleet):
    name = frozen_in_flight(fleet)
    try:
        wait_for(lambda: fleet.ps("host1").get(name, {"in_doubt": True})["in_doubt"], 30, "ps shows the doubt")
    finally:
        fleet.thaw("host2")
    o = fleet.outcome(name)
    assert o["state"] == "finished" and visited(o) == ["host1", "host2", "host0"]
    assert events(o, "arrived") == ["host1", "host2", "host0"]


@pytest.mark.parametrize("who", ["host1", "host2"])
def test_a_death_during_the_sending_settles_by_the_same_record(fleet, who):
    for _ in range(5):
        name = fleet.launch(BIG, "--path", "host1,host2,host0", "--on-unreachable", "wait=60s", "--limit", "memory=64M",
                            "--limit", "state=8M")
        wait_for(lambda: fleet.ps("host1").get(name, {}).get("state") == "running")
        pid = fleet.pid(who, "tos-kernel")
        fleet.tos("post", f"{name}/go", "on")
        while (fleet.ps("host1").get(name) or {}).get("state") == "running":
            pass
        os.kill(pid, signal.SIGKILL)
        o = fleet.outcome(name)
        assert o["state"] == "finished", o["fault"]
        assert [k for i, k in enumerate(visited(o)) if i == 0 or visited(o)[i - 1] != k] == ["host1", "host2", "host0"]
        assert events(o, "arrived") == ["host1", "host2", "host0"]
        wait_for(lambda: fleet.status(who))


# ---- acts, wherever it is

def test_suspend_stops_its_time_and_resume_starts_it(fleet):
    name = fleet.launch(BUSY, "--path", "host1", "--limit", "cpu=60")
    fleet.wait_state(name, "running")
    # An older test's may be on its way out still: ours is alone, and busy.
    wait_for(lambda: len(fleet.processes("host1", "tos-vm")) == 1)
    pid = fleet.processes("host1", "tos-vm")[0]
    wait_for(lambda: cpu_ticks(pid) > 5)
    fleet.tos("suspend", name)
    fleet.wait_state(name, "suspended")
    wait_for(lambda: process_table()[pid][2] == "T", text="its tos-vm is stopped")
    before = cpu_ticks(pid)
    fleet.ps("host1")
    time.sleep(0.3)  # the claim is about time that passes
    assert cpu_ticks(pid) == before
    fleet.tos("resume", name)
    fleet.wait_state(name, "running")
    wait_for(lambda: cpu_ticks(pid) > before + 5)
    fleet.tos("kill", name)
    assert fleet.outcome(name, expect=1)["state"] == "killed"
    wait_for(lambda: pid not in process_table() or process_table()[pid][2] == "Z", 5)


def test_a_suspended_carrier_stays_so_over_a_restart(fleet):
    name = fleet.launch(STAY, "--path", "host1")
    fleet.wait_state(name, "running")
    fleet.tos("suspend", name)
    fleet.wait_state(name, "suspended")
    fleet.kill("host1")
    wait_for(lambda: fleet.ps("host1").get(name, {}).get("state") == "suspended")
    fleet.tos("resume", name)
    wait_for(lambda: fleet.ps("host1").get(name, {}).get("state") == "running")
    fleet.tos("kill", name)
    fleet.wait_state(name, "killed")


@pytest.mark.parametrize("where", ["host0", "host1"])
def test_kill_ends_a_busy_carrier_at_once(fleet, where):
    name = fleet.launch(BUSY, "--path", where, "--limit", "cpu=60")
    fleet.wait_state(name, "running")
    wait_for(lambda: fleet.processes(where, "tos-vm"))
    began = time.monotonic()
    fleet.tos("kill", name)
    wait_for(lambda: not fleet.processes(where, "tos-vm"), 10)
    assert time.monotonic() - began < 5  # 1 s without a sanitizer and with the machine to itself
    assert fleet.outcome(name, expect=1)["state"] == "killed"


def test_a_kill_is_done_when_its_kernel_returns(fleet):
    name = fleet.launch(STAY, "--path", "host2")
    wait_for(lambda: fleet.ps("host2").get(name, {}).get("state") == "running")
    fleet.tos("down", "host2", timeout=120)
    fleet.tos("kill", name)
    fleet.up()
    assert fleet.outcome(name, expect=1)["state"] == "killed"
    wait_for(lambda: not fleet.residents(name))


def test_acts_catch_a_carrier_that_moves_all_the_time(fleet):
    lua = f"function begin(self) {NOTE} end"
    name = fleet.launch(lua, "--path", ",".join(["host1", "host2"] * 200), "--limit", "hops=1000")
    fleet.tos("suspend", name)
    fleet.wait_state(name, "suspended")
    hop = fleet.show(name)["hop"]
    fleet.tos("resume", name)
    wait_for(lambda: fleet.show(name)["hop"] > hop)
    fleet.tos("kill", name)
    assert fleet.outcome(name, expect=1)["state"] == "killed"
    wait_for(lambda: not fleet.residents(name))


# ---- paths and limits

def test_a_move_to_the_same_kernel(fleet):
    for path in ("host0,host0", "host1,host1,host1"):
        o = fleet.outcome(fleet.launch(TOUR, "--path", path))
        assert o["state"] == "finished" and visited(o) == path.split(",")
        assert events(o, "arrived") == path.split(",")


def test_twenty_hops(fleet):
    path = [fleet.names[i % 3] for i in range(20)]
    o = fleet.outcome(fleet.launch(f"function begin(self) {NOTE} end", "--path", ",".join(path)))
    assert o["state"] == "finished" and visited(o) == path


def test_go_needs_a_path_or_an_itinerant_ticket(fleet):
    lua = f"""function begin(self)
        {NOTE}
        if self.there then return end
        local ok, code, text = tos.go("host2")
        tos.briefcase:folder("SAID"):push {{ ok = ok, code = code, text = text }}
    end"""
    o = fleet.outcome(fleet.launch(lua, "--path", "host1"))
    assert visited(o) == ["host1"]
    assert o["briefcase"]["SAID"][0]["code"] == "denied"
    go = lua.replace("local ok", "self.there = true local ok")
    o = fleet.outcome(fleet.launch(go, "--path", "host1", "--itinerant"))
    assert visited(o) == ["host1", "host2"] and "SAID" not in o["briefcase"]
    o = fleet.outcome(fleet.launch(go, "--path", "host1,host2"))
    assert visited(o) == ["host1", "host2"]


def test_go_to_nowhere_returns_in_the_same_run(without_host2):
    lua = """function begin(self)
        local mine = {}
        for _, dest in ipairs { "host2", "nowhere" } do
            local ok, code, text = tos.go(dest)
            mine[#mine + 1] = { ok = ok == nil, code = code, text = text }
        end
        for _, m in ipairs(mine) do tos.briefcase:folder("SAID"):push(m) end
    end"""
    o = without_host2.outcome(without_host2.launch(lua, "--path", "host1", "--itinerant"))
    assert o["state"] == "finished"
    said = o["briefcase"]["SAID"]
    assert [s["ok"] for s in said] == [True, True]
    assert said[0]["code"] == "unreachable" and said[1]["code"] == "unreachable", said
    assert all(s["text"] for s in said)


def test_limits_of_hops_state_and_lifetime_are_named(fleet):
    r = fleet.run("launch", "-e", "return 1", "--path", "host1,host2,host0,host1", "--limit", "hops=2", "--wait")
    assert r.returncode == 1 and "limit hops" in r.stderr
    r = fleet.run("launch", fleet.file("s.lua", "function begin(self) self.s = string.rep('x', 300000) end"), "--path",
                  "host1,host2", "--limit", "state=100K", "--wait")
    assert r.returncode == 1 and "limit state" in r.stderr
    name = fleet.launch(STAY, "--path", "host1", "--limit", "lifetime=2s")
    o = fleet.outcome(name, expect=1)
    assert o["state"] == "killed" and "limit lifetime" in o["fault"]["text"]



def test_a_large_briefcase_travels_in_chunks(fleet):
    lua = """function begin(self)
        local f = tos.briefcase:folder("BIG")
        if #f == 0 then for i = 1, 32 do f:push(string.rep(string.char(64 + i), 65536)) end end
        tos.briefcase:folder("RESULTS"):push { kernel = tos.kernel(), bytes = f:bytes(), last = f:get(32):sub(-3) }
        if tos.kernel() == "host0" then f:clear() end
    end"""
    o = fleet.outcome(fleet.launch(lua, "--path", "host1,host2,host0", "--limit", "memory=64M", "--limit", "state=8M"))
    assert visited(o) == ["host1", "host2", "host0"]
    assert all(r["bytes"] >= 32 * 65536 for r in o["briefcase"]["RESULTS"])
    assert all(r["last"] == "```" for r in o["briefcase"]["RESULTS"])


def test_a_hundred_carriers_at_once(fleet):
    names = []
    procs = []
    path = "host1,host2,host0"
    file = fleet.file("many.lua", f"function begin(self) {NOTE} end")
    for _ in range(100):
        procs.append(fleet.start("launch", file, "--path", path))
        if len(procs) == 8:
            p = procs.pop(0)
            names.append(p.communicate(timeout=60)[0].strip())
    names += [p.communicate(timeout=60)[0].strip() for p in procs]
    assert len(set(names)) == 100
    for name in names:
        o = fleet.outcome(name)
        assert o["state"] == "finished" and visited(o) == path.split(","), o["fault"]
    wait_for(lambda: not [1 for k in fleet.names for row in fleet.ps(k).values()
                          if row["kernel"] == k and row["name"] in names and row["state"] != "finished"])


# ---- posts and calls

def test_posts_to_a_moving_carrier_arrive_once_and_in_order(fleet):
    hunted = fleet.launch("""function begin(self)
        local box = tos.inbox("in")
        local from = tos.clock()
        while tos.clock() - from < 0.05 do
            local m = box:next(0.05)
            if m then
                tos.briefcase:folder("GOT"):push(m.data)
                if m.data == 150 then self.last = true end
            end
        end
        if self.last then while tos.path:pop() do end end
    end""", "--path", ",".join(["host1", "host2", "host0"] * 60), "--limit", "hops=1000", "--itinerant", name="hunted.lua")
    fleet.wait_state(hunted, "running", "departing")
    hunter = fleet.launch("""function begin(self)
        local failures = tos.inbox("failures")
        local to = tos.briefcase:folder("TO"):get(1) .. "/in"
        for i = 1, 150 do
            tos.post(to, i)
            tos.sleep(0.01)
        end
        tos.sleep(0.5)
        while failures:size() > 0 do
            tos.briefcase:folder("FAILED"):push(failures:poll().elements)
        end
    end""", "--path", "host1", "--data", f"TO={hunted}", "--limit", "posts=1000", name="hunter.lua")
    sent = fleet.outcome(hunter)
    assert sent["state"] == "finished" and "FAILED" not in sent["briefcase"], sent["briefcase"]
    o = fleet.outcome(hunted)
    assert o["state"] == "finished", o["fault"]
    assert o["briefcase"]["GOT"] == list(range(1, 151))


def test_calls_between_carriers_on_different_kernels(fleet):
    served = fleet.launch("""local box = tos.inbox("ask")
        while true do
            local m = box:next(60)
            if m.data == "stop" then m:answer("bye") break end
            m:answer(m.data * 2)
        end""", "--path", "host2", name="served.lua")
    wait_for(lambda: fleet.ps("host2").get(served, {}).get("state") == "running")
    o = fleet.outcome(fleet.launch("""function begin(self)
        local to = tos.briefcase:folder("TO"):get(1) .. "/ask"
        local asked = {}
        for i = 1, 50 do asked[i] = tos.ask(to, i, 20) end
        local good = 0
        for i = 50, 1, -1 do if asked[i]:await() == 2 * i then good = good + 1 end end
        tos.briefcase:folder("GOOD"):push(good)
        tos.briefcase:folder("GOOD"):push(tos.call(to, "stop", 20))
    end""", "--path", "host1", "--data", f"TO={served}", "--limit", "posts=1000"))
    assert o["briefcase"]["GOOD"] == [50, "bye"], o
    assert fleet.outcome(served)["state"] == "finished"


def test_a_full_inbox_answers_full(fleet):
    slow = fleet.launch("local b = tos.inbox('in') tos.inbox('go'):next(60) return b:size()", "--path", "host2", "--limit",
                        "inbox=10", name="slow.lua")
    wait_for(lambda: fleet.ps("host2").get(slow, {}).get("state") == "running")
    o = fleet.outcome(fleet.launch("""function begin(self)
        local to = tos.briefcase:folder("TO"):get(1) .. "/in"
        local bad = tos.inbox("failures")
        for i = 1, 30 do tos.post(to, i) end
        for i = 1, 20 do
            local m = bad:next(10)
            tos.briefcase:folder("CODES"):push(m and m.elements[1] or "none")
        end
    end""", "--path", "host1", "--data", f"TO={slow}", "--limit", "posts=1000"))
    assert o["state"] == "finished", o["fault"]
    assert o["briefcase"]["CODES"] == ["full"] * 20
    fleet.tos("kill", slow)


def test_posts_to_nobody_come_back_to_the_inbox_failures(fleet):
    o = fleet.outcome(fleet.launch("""function begin(self)
        local bad = tos.inbox("failures")
        tos.post("host2/Nobody", 1)
        tos.post("host0#99999/in", 1)
        for i = 1, 2 do
            local m = bad:next(20)
            tos.briefcase:folder("CODES"):push(m and m.elements[1] or "none")
        end
    end""", "--path", "host1"))
    assert sorted(o["briefcase"]["CODES"]) == ["no-such-inbox", "not-found"]
