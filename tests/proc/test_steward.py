"""An application that manages itself (GEN-3, GEN-11, GEN-25): the shipped carrier steward and its workers keep five instances
of a program running, whatever dies, and upgrade them together or not at all. Nobody does anything but kill."""
import json
import os
import signal

import pytest

import wire
from fleet import Fleet, QUICK, process_table, wait_for

SECONDS = str(100000 + os.getpid() % 10000)  # so that its programs are known by their arguments
LOST = 3


def programs(*args):
    """pids of `sleep ARGS`."""
    wanted = [b"sleep", *[a.encode() for a in args], b""]
    return [pid for pid, row in process_table().items() if row[3] == wanted and row[2] != "Z"]


@pytest.fixture(scope="module")
def fleet():
    with Fleet(6, conf=QUICK) as f:
        yield f


@pytest.fixture(scope="module")
def app(fleet):
    app = {"program": "sleep", "args": [SECONDS], "workers": 5, "hosts": fleet.names, "lost": LOST, "pause": 0.1, "orders": ["bob"]}
    fleet.file("app.json", json.dumps({"APP": [app]}))
    return fleet.tos("launch", "steward", "--briefcase", "app.json", "--itinerant", "--limit", "clones=100", "--limit", "cpu=10m",
                     "--limit", "lifetime=1h").strip()


def status(fleet, app):
    r = fleet.run("call", f"{app}/steward", "status", "--json")
    return {row["worker"]: row for row in json.loads(r.stdout)["elements"][0]} if r.returncode == 0 else {}


def all_run(fleet, app, version=1):
    def so():
        rows = status(fleet, app)
        ok = len(rows) == 5 and all(r["state"] == "running" and r["version"] == version for r in rows.values())
        return rows if ok else None
    return wait_for(so, text="all five run")


def test_five_are_placed_on_hosts_of_their_own(fleet, app):
    rows = all_run(fleet, app)
    assert len({r["host"] for r in rows.values()}) == 5 and len(programs(SECONDS)) == 5, rows


def test_what_died_is_started_again_where_it_was(fleet, app):
    before = all_run(fleet, app)
    os.kill(programs(SECONDS)[0], signal.SIGKILL)
    after = wait_for(lambda: (rows := status(fleet, app)) and sum(r["restarts"] for r in rows.values()) == 1 and rows)
    assert [after[n]["host"] for n in after] == [before[n]["host"] for n in before]
    assert wait_for(lambda: len(programs(SECONDS)) == 5)


def test_whoever_is_not_its_owner_is_refused(fleet, app):
    """It runs programs with its owner's rights: whoever may post to it must not have it run others."""
    before = all_run(fleet, app)
    for name in ("mallory", "bob"):
        fleet.tos("principal", "add", name, "--role", "owner", "--role", "author")
    fleet.tos("launch", "--as", "mallory", "-e", f"""
        for _, what in ipairs {{ {{ upgrade = {{ args = {{ "1" }}, version = 9 }} }}, "stop", "look", "status" }} do
            local a, code = tos.call("{app}/steward", {{ what }}, 20)
            assert(not a and code == "denied", tostring(code))
        end
        tos.post("{app}/steward", "stop")""", "--wait")
    for kernel in ("host0", "host3"):
        r = fleet.run("call", f"{app}/steward", "stop", "--as", "mallory", "--kernel", kernel)
        assert r.returncode != 0 and "its owner steers this one" in r.stderr, r.stderr
    with wire.Domain(fleet.home).client() as nobody:
        assert wire.failure(nobody.call, f"{app}/steward", "", "stop").code == "denied"
    # Whom its data names is as good as its owner, and so is a carrier of its owner.
    assert len(fleet.json("call", f"{app}/steward", "status", "--as", "bob", "--kernel", "host3")["elements"][0]) == 5
    fleet.tos("launch", "-e", f'assert(#tos.call("{app}/steward", "status", 20) == 5)', "--wait")
    assert {n: r["pid"] for n, r in all_run(fleet, app).items()} == {n: r["pid"] for n, r in before.items()}


def test_all_are_upgraded_or_none(fleet, app):
    all_run(fleet, app)
    def call(what):
        return fleet.json("call", f"{app}/steward", json.dumps({"upgrade": what}), "--timeout", "60s", timeout=90)["elements"][0]

    r = call({"args": [SECONDS, "1"], "version": 2, "check": ["0"]})
    assert r["state"] == "committed" and r["version"] == 2, r
    all_run(fleet, app, version=2)
    assert wait_for(lambda: len(programs(SECONDS, "1")) == 5 and not programs(SECONDS))
    # One that does not work anywhere is taken nowhere: the old one runs on.
    running = sorted(programs(SECONDS, "1"))
    r = call({"args": ["none"], "version": 3, "check": ["none"]})
    assert r["state"] == "aborted" and r["version"] == 2 and "invalid time interval" in r["text"], r
    all_run(fleet, app, version=2)
    assert sorted(programs(SECONDS, "1")) == running


def test_a_worker_whose_host_dies_is_placed_on_another(fleet, app):
    rows = all_run(fleet, app, version=2)
    victim = next(r for r in rows.values() if r["host"] != "host0")
    spare = (set(fleet.names) - {r["host"] for r in rows.values()}).pop()
    fleet.down(victim["host"], hard=True)
    moved = wait_for(lambda: (now := status(fleet, app).get(victim["worker"])) and now["host"] == spare and now["state"] == "running"
                     and now, text="the worker is on the spare host")
    assert moved["moves"] == 1 and moved["carrier"] != victim["carrier"]
    assert wait_for(lambda: len(programs(SECONDS, "1")) == 5)
    # The lost one comes back, is told that it was replaced, and ends: there are never six.
    fleet.up()
    wait_for(lambda: fleet.state(victim["carrier"]) == "finished", text="the old worker has ended")
    assert len(programs(SECONDS, "1")) == 5 and all_run(fleet, app, version=2)[victim["worker"]]["host"] == spare


def test_the_home_may_die_too(fleet, app):
    rows = all_run(fleet, app, version=2)
    away = [r for r in rows.values() if r["host"] != "host0"]
    fleet.kill("host0")
    after = all_run(fleet, app, version=2)
    assert {r["carrier"] for r in away} <= {r["carrier"] for r in after.values()}  # they ran on


def test_it_ends_when_it_is_told_to(fleet, app):
    wait_for(lambda: fleet.run("call", f"{app}/steward", "stop").returncode == 0)
    o = fleet.outcome(app)
    assert len(o["briefcase"]["RESULTS"]) == 5
    assert wait_for(lambda: not programs(SECONDS, "1"))
