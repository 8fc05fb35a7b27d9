"""Moves whose end is not known: by itself when the destination is back, by the operator's declaration when it is not.

Either way one copy goes on and there is one outcome.
"""
import os
import signal
import sqlite3
import time

import pytest

from conftest import fleet_fixture
from fleet import BUILD, KERNEL, NOTE, QUICK, events, visited, wait_for

pytestmark = pytest.mark.skipif(not os.path.exists(KERNEL), reason="TOS_BUILD names no build with tos-kernel")
HOOK = os.path.join(BUILD, "tests/proc/ext/hook.so")
EXTENSIONS = "".join(f'extension "{n}" {{ library = "{n.lower()}" where = "kernel" }}\n'
                     for n in ("Echo", "Mobility", "Messenger", "Directory"))
fleet = fleet_fixture(
    rests=True, n=3, conf={"timing": dict(QUICK["timing"], report="1500ms", offer="1500ms", silent="2s", handshake="2s", hook="10m")},
    each={"host2": EXTENSIONS + f'extension "Hook" {{ library = "{HOOK}" where = "kernel" }}\n'})

# host2 thinks for some seconds about whoever brings a folder HOLD, between the hop record and its answer.
HELD = f"""function begin(self)
    if tos.kernel() == "host1" and not tos.briefcase:has("HOLD") then
        tos.inbox("go"):next(60)
        tos.briefcase:folder("HOLD"):push(1)
    end
    {NOTE}
end"""
PATH = ("--path", "host1,host2|host0", "--on-unreachable", "alternate")


def in_doubt_towards_host2(fleet):
    """host2 is frozen when the carrier has been sent to it from host1, and has not been accepted; its name, once
    host1 is in doubt."""
    name = fleet.launch(HELD, *PATH)
    wait_for(lambda: fleet.ps("host1").get(name, {}).get("state") == "running")
    pid = fleet.pid("host2", "tos-kernel")
    fleet.tos("post", f"{name}/go", "on")
    wait_for(lambda: f"holding {name}" in fleet.log_text("host2"), text="host2 holds it")
    os.kill(pid, signal.SIGSTOP)
    wait_for(lambda: fleet.ps("host1").get(name, {}).get("in_doubt"), text="host1 is in doubt")
    return name


def wait_unlinked(fleet, kernel, others):
    """They have noticed that it is silent."""
    for other in others:
        wait_for(lambda o=other: not any(k["name"] == kernel and k["linked"]
                                         for k in fleet.json("kernels", "--kernel", o)), text=f"{other} misses {kernel}")


def went_on(fleet, name):
    """At host1, and over the alternative; the outcome."""
    o = fleet.outcome(name)
    assert o["state"] == "finished" and visited(o) == ["host1", "host0"], o
    assert [line["peer"] if "peer" in line else line for line in o["trail"] if line["event"] == "resolved"], o["trail"]
    return o


def one_outcome(fleet, name, o):
    """When the dead one is back: its copy gives way, and nothing becomes of it."""
    wait_for(lambda: not fleet.residents(name), text="no copy is left")
    assert fleet.outcome(name) == o
    rows = [fleet.ps(k).get(name) for k in fleet.names]
    assert {r["state"] for r in rows if r} <= {"finished"}, rows


@pytest.fixture
def doubt(fleet):
    """A carrier in doubt at host1, host2 frozen."""
    name = in_doubt_towards_host2(fleet)
    try:
        yield name
    finally:
        fleet.thaw("host2")
        fleet.up()
        wait_for(lambda: fleet.status("host2"))


def test_a_doubt_is_shown_and_settles_itself_when_the_destination_is_back(fleet, doubt):
    wait_for(lambda: fleet.ps("host0").get(doubt, {}).get("in_doubt"), text="the home shows the doubt")
    r = fleet.run("resolve", doubt)
    assert r.returncode == 1 and "nobody declared dead" in r.stderr and "tos resolve --dead host2" in r.stderr
    fleet.thaw("host2")
    o = fleet.outcome(doubt)
    assert o["state"] == "finished" and visited(o) == ["host1", "host2"], o
    assert events(o, "arrived") == ["host1", "host2"]
    one_outcome(fleet, doubt, o)


def test_a_declaration_lets_the_source_go_on_and_the_dead_one_gives_way(fleet, doubt):
    wait_unlinked(fleet, "host2", ["host0", "host1"])
    fleet.tos("resolve", "--dead", "host2")
    o = went_on(fleet, doubt)
    assert fleet.metric("host1", "carriers_in_doubt") == 0
    # What is known of incarnations ends with the ticket, and the days in which answers are kept.
    with sqlite3.connect(f"file:{fleet.home}/kernels/host1/store.db?mode=ro", uri=True) as db:
        rows = db.execute("SELECT expires FROM incarnation").fetchall()
    assert rows and all(0 < e / 1000 - time.time() < 40 * 86400 for e, in rows), rows
    fleet.thaw("host2")
    one_outcome(fleet, doubt, o)


def test_a_destination_killed_for_good_is_declared_and_comes_back_by_a_new_start(fleet, doubt):
    fleet.down("host2", hard=True)
    fleet.tos("resolve", "--dead", "host2")
    o = went_on(fleet, doubt)
    fleet.up()
    one_outcome(fleet, doubt, o)
    # It is no dead kernel any more: carriers go there, and are not lost.
    again = fleet.outcome(fleet.launch(NOTE, "--path", "host2"))
    assert again["state"] == "finished" and visited(again) == ["host2"]


def test_a_holder_that_dies_while_it_asks_asks_again(fleet, doubt):
    wait_unlinked(fleet, "host2", ["host0", "host1"])
    fleet.freeze("host0")
    try:
        # Only the holder hears of it: its home does not answer.
        r = fleet.run("resolve", "--dead", "host2", "--kernel", "host1", "--timeout", "3s")
        assert "host1" in r.stdout
        old = fleet.pid("host1", "tos-kernel")
        fleet.kill("host1")
        wait_for(lambda: fleet.processes("host1", "tos-kernel") not in ([], [old]) and fleet.status("host1"))
        row = fleet.ps("host1")[doubt]
        assert row["state"] == "departing" and row["in_doubt"]
    finally:
        fleet.thaw("host0")
    wait_for(lambda: fleet.status("host0"))
    assert fleet.ps("host1")[doubt]["state"] == "departing"
    wait_unlinked(fleet, "host2", ["host0"])
    fleet.tos("resolve", "--dead", "host2")
    o = went_on(fleet, doubt)
    fleet.thaw("host2")
    one_outcome(fleet, doubt, o)


def test_a_carrier_at_a_kernel_declared_dead_is_lost(fleet):
    name = fleet.launch("tos.inbox('go'):next(60)", "--path", "host2")
    wait_for(lambda: fleet.ps("host2").get(name, {}).get("state") == "running")
    wait_for(lambda: fleet.ps("host0").get(name, {}).get("kernel") == "host2")
    fleet.freeze("host2")
    try:
        wait_unlinked(fleet, "host2", ["host0", "host1"])
        fleet.tos("resolve", "--dead", "host2")
        o = fleet.outcome(name, expect=1)
        assert o["state"] == "lost" and "declared dead" in o["fault"]["text"] and o["fault"]["kernel"] == "host2", o
    finally:
        fleet.thaw("host2")
    wait_for(lambda: fleet.status("host2"))
    wait_for(lambda: not fleet.residents(name), text="the copy that was declared dead is ended")
    assert fleet.state(name) == "lost"


def test_a_carrier_that_its_place_denies_twice_is_lost(fleet):
    name = fleet.launch("tos.inbox('go'):next(60)", "--path", "host2")
    wait_for(lambda: fleet.ps("host2").get(name, {}).get("state") == "running")
    wait_for(lambda: fleet.ps("host0").get(name, {}).get("kernel") == "host2")
    fleet.tos("down", "host2", timeout=120)
    with sqlite3.connect(f"{fleet.home}/kernels/host2/store.db") as db:
        assert db.execute("DELETE FROM resident").rowcount == 1
    db.close()
    fleet.up()
    o = fleet.outcome(name, expect=1)
    assert o["state"] == "lost" and "host2 does not hold it" in o["fault"]["text"], o


def test_forced_without_the_home_it_goes_on_and_the_higher_incarnation_survives(fleet, doubt):
    """Home and destination are both away: the holder goes on, moves on, and is believed when the home is back."""
    fleet.freeze("host0")
    try:
        r = fleet.run("resolve", "--force", doubt, "--kernel", "host1")
        assert r.returncode == 1 and "there may be two of it" in r.stderr and "--yes" in r.stderr, r.stderr
        assert fleet.ps("host1")[doubt]["in_doubt"]
        rows = fleet.json("resolve", "--force", doubt, "--kernel", "host1", "--yes")
        assert rows[0]["kernel"] == "host1", rows
        wait_for(lambda: not fleet.ps("host1").get(doubt, {"in_doubt": True})["in_doubt"], text="it goes on")
    finally:
        fleet.thaw("host0")
    o = fleet.outcome(doubt)
    assert o["state"] == "finished" and [line for line in o["trail"] if line["event"] == "forced"], o
    assert visited(o) == ["host1", "host0"], o
    # The other copy comes to life too, and gives way when it hears of the higher one.
    fleet.thaw("host2")
    one_outcome(fleet, doubt, o)
    assert '"forced"' in fleet.tos("audit", "--kernel", "host1", "--json")
    assert '"force-learnt"' in fleet.tos("audit", "--kernel", "host0", "--json")


def test_force_is_refused_where_nothing_is_in_doubt_or_policy_says_no(fleet, doubt):
    fleet.tos("principal", "add", "otto", "--role", "owner")
    r = fleet.run("resolve", "--force", doubt, "--kernel", "host1", "--yes", "--as", "otto")
    assert r.returncode == 3, r.stderr
    sound = fleet.launch("tos.sleep(30)")
    r = fleet.run("resolve", "--force", sound, "--kernel", "host0", "--yes")
    assert r.returncode == 1 and "in doubt" in r.stderr, r.stderr
    fleet.tos("kill", sound)
    assert fleet.metric("host1", "tos_forced_total") <= 1
