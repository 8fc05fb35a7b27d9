"""The hand-off between kernels whose processes are killed, frozen and away: one live copy, never two, never none."""
import os
import signal

import pytest

import wire
from conftest import fleet_fixture
from fleet import KERNEL, LIVE, NOTE, QUICK, TOUR, events, visited, wait_for

pytestmark = pytest.mark.skipif(not os.path.exists(KERNEL), reason="TOS_BUILD names no build with tos-kernel")
fleet = fleet_fixture(n=3, rests=True, conf=QUICK)


def running_copies(fleet, name):
    """kernel -> hop of each copy that runs, as those say that have it: a home that was killed remembers where it was. One that
    departs may have been accepted already."""
    found = {}
    for k in fleet.names:
        try:
            with wire.Domain(fleet.home).client(k) as c:
                rows = c.call(f"{k}/Control", "RESIDENTS", {})
        except (OSError, wire.Closed, wire.Failure):
            continue
        found.update({k: r["hop"] for r in rows if r["name"] == name and r["state"] in LIVE - {"departing"}})
    return found


def one_copy_at_most(fleet, name):
    """The kernels are asked one after the other, and it moves meanwhile: two copies are those seen in the same stay
    before and after."""
    found = running_copies(fleet, name)
    if len(found) > 1:
        again = running_copies(fleet, name)
        assert len([k for k, hop in found.items() if again.get(k) == hop]) <= 1, (found, again)


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


def test_a_retry_that_was_not_heard_of_yet_is_not_overtaken_by_the_next(fleet):
    """Its copy would be ended for an incarnation that nobody has."""
    lua = f"""function begin(self)
        if tos.kernel() == "host1" and not tos.inbox("ok"):next(1) then error("not yet") end
        {NOTE}
    end"""
    name = fleet.launch(lua, "--path", "host1,host2")
    fleet.wait_state(name, "faulted")
    fleet.freeze("host1")
    try:
        for _ in range(3):
            fleet.tos("retry", name)
    finally:
        fleet.thaw("host1")
    wait_for(lambda: fleet.run("post", f"{name}/ok", "on") and fleet.state(name) == "finished", text="it goes on")
    assert visited(fleet.outcome(name)) == ["host1", "host2"]


def test_an_incarnation_that_has_faulted_is_not_begun_again(fleet):
    """Told again by a home that has not heard of the fault: it would run twice, and what it asks anew be taken for repeats.
    Here host2's key, its carrier's home, is the test's."""
    name = fleet.launch("function begin(self) error('always') end", "--path", "host1", "--kernel", "host2")
    wait_for(lambda: fleet.ps("host1").get(name, {}).get("state") == "faulted")
    fleet.tos("down", "host2")
    faults = fleet.metric("host1", "tos_faults_total")
    domain = wire.Domain(fleet.home)
    home = domain.as_kernel("host2", "host1", directory=fleet.path)
    first, second = [1000, os.urandom(8)], [1001, os.urandom(8)]

    def command(wanted, e):
        return home.call("host1/Handoff", "COMMAND", {"name": name, "wanted": wanted, "e": e}, sender="host2/Kernel")["state"]

    try:
        assert command("retry", first) != "faulted"
        wait_for(lambda: fleet.metric("host1", "tos_faults_total") == faults + 1)
        assert [command("retry", e) for e in (first, [999, bytes(8)], first)] == ["faulted"] * 3
        assert command("retry", second) != "faulted"
        wait_for(lambda: fleet.metric("host1", "tos_faults_total") == faults + 2)
        command("killed", second)
        wait_for(lambda: not fleet.residents(name))
    finally:
        home.close()
        fleet.up()


def test_a_destination_that_freezes_leaves_a_doubt_and_settles_it(fleet):
    name = frozen_in_flight(fleet)
    try:
        wait_for(lambda: fleet.ps("host1").get(name, {"in_doubt": True})["in_doubt"], text="ps shows the doubt")
    finally:
        fleet.thaw("host2")
    o = fleet.outcome(name)
    assert o["state"] == "finished" and visited(o) == ["host1", "host2", "host0"]
    assert events(o, "arrived") == ["host1", "host2", "host0"]


@pytest.mark.parametrize("who", ["host1", "host2"])
def test_a_death_during_the_sending_settles_by_the_same_record(fleet, who):
    for _ in range(3):
        name = fleet.launch(BIG, "--path", "host1,host2,host0", "--on-unreachable", "wait=60s", "--limit", "memory=64M",
                            "--limit", "state=8M")
        wait_for(lambda: fleet.ps("host1").get(name, {}).get("state") == "running")
        pid = fleet.pid(who, "tos-kernel")
        fleet.tos("post", f"{name}/go", "on")
        while (fleet.ps("host1").get(name) or {}).get("state") == "running":
            pass
        os.kill(pid, signal.SIGKILL)
        # Killed before the departure was on the disk: it begins again, and what it took is taken.
        wait_for(lambda: fleet.status(who))
        fleet.run("post", "--kernel", who, f"{name}/go", "on")
        o = fleet.outcome(name)
        assert o["state"] == "finished", o["fault"]
        assert [k for i, k in enumerate(visited(o)) if i == 0 or visited(o)[i - 1] != k] == ["host1", "host2", "host0"]
        assert events(o, "arrived") == ["host1", "host2", "host0"]
        wait_for(lambda: fleet.status(who))
