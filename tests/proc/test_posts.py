"""Posts between carriers on different kernels: order while the carrier moves, bounds in bytes, lost links."""
import time

import pytest

import wire
from fleet import QUICK, Fleet, wait_for

WIDE = ["--limit", "posts=100000", "--limit", "inbox=4096", "--limit", "hops=10000"]

# Takes what comes until so many have said "end", and moves on after every few.
NOMAD = """
function begin(self)
    local box = assert(tos.inbox("in"))
    self.got, self.hops = self.got or {}, (self.hops or 0) + 1
    local hosts = { "host0", "host1", "host2" }
    for i = 1, %d do
        local mail = box:next(0.3)
        local v = mail and mail.elements[1]
        if type(v) == "table" then v = v[1] end
        if v == "end" then self.ends = (self.ends or 0) + 1 end
        if self.ends == tonumber(tos.briefcase.ENDS[1]) then
            for _, x in ipairs(self.got) do tos.briefcase:folder("RESULTS"):push(x) end
            tos.briefcase:folder("HOPS"):push(self.hops)
            return
        elseif v and v ~= "end" then
            self.got[#self.got + 1] = v
        end
    end
    tos.go(hosts[self.hops %% 3 + 1])
end
"""

# Posts BASE+1 .. BASE+N and "end" to the carrier in TO; what failed is in FAILED.
SENDER = """
function begin()
    local to, n = tos.briefcase.TO[1] .. "/in", tonumber(tos.briefcase.N[1])
    local failures = assert(tos.inbox("failures"))
    local size, pause = tonumber(tos.briefcase.SIZE[1]), tonumber(tos.briefcase.PAUSE[1])
    local pad = ("x"):rep(size)
    local base = tonumber(tos.briefcase.BASE[1])
    for i = base + 1, base + n do
        assert(tos.post(to, size > 0 and { i, pad } or i))
        if pause > 0 and i %% 10 == 0 then tos.sleep(pause) end
    end
    if tos.briefcase.LAST[1] == "yes" then assert(tos.post(to, "end")) end
    while true do
        local f = failures:next(tonumber(tos.briefcase.LISTEN[1]))
        if not f then break end
        tos.briefcase:folder("FAILED"):push(f.elements[1])
    end
end
""".replace("%%", "%")


@pytest.fixture(scope="module")
def fleet():
    """host2 gives up early what went over a lost link; nothing of a stream may take more than 64 KiB."""
    lost = {"host0": "30s", "host1": "30s", "host2": "500ms"}
    timing = {k: {"timing": dict(QUICK["timing"], silent="2s", lost=v)} for k, v in lost.items()}
    with Fleet(3, conf={"queue": {"stream_bytes": "64K"}}, each=timing, rests=True) as f:
        yield f


def sender(fleet, to, n, *args, size=0, pause=0, last="yes", listen=0.5, base=0):
    data = {"TO": to, "BASE": base, "N": n, "SIZE": size, "PAUSE": pause, "LAST": last, "LISTEN": listen}
    return fleet.launch(SENDER, *[x for k, v in data.items() for x in ("--data", f"{k}={v}")], *WIDE, *args, name="sender.lua")


def receiver(fleet, take, *args, ends=1):
    name = fleet.launch(NOMAD % take, "--data", f"ENDS={ends}", *WIDE, *args, name="nomad.lua")
    fleet.wait_state(name, "running")
    return name


def failed(outcome):
    return outcome["briefcase"].get("FAILED", [])


@pytest.mark.parametrize("take", [3, 17])
def test_order_is_kept_while_the_carrier_moves(fleet, take):
    """Many posts are on their way at each moment, from two kernels, and the receiver is never long at one place."""
    to, n = receiver(fleet, take, "--itinerant", ends=2), 150
    senders = [sender(fleet, to, n, "--path", f"host{i}", pause=0.01, base=1000 * i) for i in range(2)]
    for name in senders:
        assert not failed(fleet.outcome(name))
    o = fleet.outcome(to)
    got = o["briefcase"]["RESULTS"]
    assert [x for x in got if x < 1000] == list(range(1, n + 1))
    assert [x for x in got if x > 1000] == list(range(1001, 1001 + n))
    assert o["briefcase"]["HOPS"][0] > 2


def test_a_stream_is_bounded_in_bytes(fleet):
    """What does not fit while its kernel does not answer is `full`, and the rest comes in order."""
    to = receiver(fleet, 100000, "--path", "host1")
    first = sender(fleet, to, 1, last="no")
    fleet.outcome(first)
    fleet.freeze("host1")
    try:
        o = fleet.outcome(sender(fleet, to, 100, size=1000, last="no"))
    finally:
        fleet.thaw("host1")
    assert set(failed(o)) == {"full"}
    fits = 100 - len(failed(o))
    assert 50 < fits < 66
    fleet.outcome(sender(fleet, to, 0))
    assert fleet.outcome(to)["briefcase"]["RESULTS"] == [1, *range(1, fits + 1)]


def test_a_lost_link_loses_and_doubles_nothing(fleet):
    """Frozen until the others have given the link up, it gets the rest over the next one."""
    to = receiver(fleet, 100000, "--path", "host1")
    fleet.outcome(sender(fleet, to, 1, last="no"))
    before = fleet.log_text("host0").count("link down")
    s = sender(fleet, to, 300, pause=0.05, listen=3)
    wait_for(lambda: fleet.state(s) == "running")
    time.sleep(0.2)  # in the middle of it; whenever that is
    fleet.freeze("host1")
    try:
        wait_for(lambda: fleet.log_text("host0").count("link down") > before, text="host0 gave its link up")
    finally:
        fleet.thaw("host1")
    assert not failed(fleet.outcome(s))
    assert fleet.outcome(to)["briefcase"]["RESULTS"] == [1, *range(1, 301)]


ASKER = """
function begin()
    local to = tos.briefcase.TO[1]
    assert(tos.call("host1/Echo", "warm"))
    tos.briefcase:folder("READY"):push(true)
    tos.log("the link is warm")
    tos.sleep(1.5)
    local at = tos.clock()
    local a, b = tos.ask("host1/Echo", "x", 50), tos.ask(to .. "/in", { 1 }, 50)
    for _, q in ipairs { a, b } do
        local ok, code = tos.await(q)
        tos.briefcase:folder("CODES"):push(ok and "answered" or code)
    end
    tos.briefcase:folder("TOOK"):push(tos.clock() - at)
end
"""


def test_calls_to_a_frozen_kernel_end_early(fleet):
    """Long before their deadline: the link is given up, and half a second later what went over it."""
    to = receiver(fleet, 100000, "--path", "host1")
    fleet.outcome(sender(fleet, to, 1, "--path", "host2", last="no"))  # host2 knows where it is
    asker = fleet.launch(ASKER, "--data", f"TO={to}", "--path", "host2", name="asker.lua")
    wait_for(lambda: "the link is warm" in fleet.tos("log", asker), text="it is warm")
    fleet.freeze("host1")
    try:
        o = fleet.outcome(asker)
    finally:
        fleet.thaw("host1")
    assert o["briefcase"]["CODES"] == ["unknown", "unknown"]
    assert o["briefcase"]["TOOK"][0] < 15
    assert fleet.metric("host2", "tos_calls_lost_total") >= 1
    fleet.tos("kill", to)


def test_a_kernel_started_anew_leaves_no_post_waiting(fleet):
    """What was on its way when the kernel died is `unknown` as soon as it is back."""
    to = receiver(fleet, 100000, "--path", "host1")
    fleet.outcome(sender(fleet, to, 1, last="no"))
    fleet.freeze("host1")
    s = sender(fleet, to, 5, last="no", listen=8)
    wait_for(lambda: fleet.state(s) == "running")
    fleet.kill("host1")
    o = fleet.outcome(s)
    assert set(failed(o)) <= {"unknown"} and failed(o)
    fleet.tos("kill", to)


def test_watchers_elsewhere_that_are_gone_make_room(fleet):
    """Nobody tells a home that a client of another kernel has gone: an event for it fails."""
    domain = wire.Domain(fleet.home)
    name = fleet.launch("function begin(self) tos.inbox('in'):next(300) end", "--path", "host0")
    for _ in range(64):
        with domain.client("host1") as c:
            c.call("host0/Control", "WATCH", {"name": name})
    with domain.client("host1") as late:

        def admitted():
            try:
                return late.call("host0/Control", "WATCH", {"name": name})
            except wire.Failure as e:
                assert e.code == "full"
                return None

        assert not admitted(), "all 64 are thought to be there"
        assert wait_for(admitted)["name"] == name
        assert admitted(), "one that watches may say so again"
        fleet.tos("kill", name)
        wait_for(lambda: any("killed" in str(f) for f in [late.frame(10)]))


def test_who_has_ended_is_not_sought_in_a_circle(fleet):
    """Its home, where it came from, and the kernel where it ended each remember the other: a third one asks the home."""
    o = fleet.outcome(fleet.launch("if tos.kernel() == 'host0' then tos.go('host2') end "
                                   "if tos.kernel() == 'host2' then tos.go('host1') end", "--itinerant"))
    name = o["name"]
    asked = fleet.launch(f"local _, code, text = tos.call('{name}/box', 'give', 20) "
                         "tos.briefcase:folder('RESULTS'):push(code) tos.briefcase:folder('RESULTS'):push(text)",
                         "--path", "host2")
    code, text = fleet.outcome(asked)["briefcase"]["RESULTS"]
    assert code == "not-found" and "has ended" in text
