"""Stores that are older than what was seen of them, and one image that is started twice: nothing runs twice, what is
elsewhere is dropped, what is nowhere is lost, the rest goes on; a clone is refused and named.
"""
import json
import contextlib
import os
import shutil
import sqlite3
import subprocess

import pytest

from conftest import fleet_fixture
from fleet import BUILD, KERNEL, NOTE, QUICK, TOS, visited, wait_for

pytestmark = pytest.mark.skipif(not os.path.exists(KERNEL), reason="TOS_BUILD names no build with tos-kernel")
fleet = fleet_fixture(n=3, rests=True, conf=QUICK)

# Waits at each stop until it is told to go on, and counts its runs in the log, which travels.
WAITER = f"""function begin(self)
    {NOTE}
    tos.log("at " .. tos.kernel())
    tos.inbox("go"):next(600)
end"""


def store(fleet, kernel):
    return f"{fleet.home}/kernels/{kernel}/store.db"


def backup(fleet, kernel):
    """A consistent copy of a running kernel's store."""
    out = os.path.join(fleet.path, f"{kernel}.backup")
    for suffix in ("", "-wal", "-shm"):  # those of a copy before would be taken for this one's
        if os.path.exists(out + suffix):
            os.unlink(out + suffix)
    with contextlib.closing(sqlite3.connect(f"file:{store(fleet, kernel)}?mode=ro", uri=True)) as src, \
            contextlib.closing(sqlite3.connect(out)) as dst:
        src.backup(dst)
    return out


def put_back(fleet, kernel, copy, same_file):
    """Over the old file, so that it stays the same one, or as another file in its place."""
    for suffix in ("-wal", "-shm"):
        if os.path.exists(store(fleet, kernel) + suffix):
            os.unlink(store(fleet, kernel) + suffix)
    if same_file:
        with open(copy, "rb") as src, open(store(fleet, kernel), "r+b") as dst:
            dst.truncate(0)
            shutil.copyfileobj(src, dst)
    else:
        os.unlink(store(fleet, kernel))
        shutil.copy(copy, store(fleet, kernel))
        os.chmod(store(fleet, kernel), 0o600)


def at(fleet, name, kernel, line=True):
    wait_for(lambda: fleet.ps(kernel).get(name, {}).get("state") == "running", text=f"{name} runs at {kernel}")
    if line:
        wait_for(lambda: f"{name}" in fleet.log_text(kernel) and f"at {kernel}" in fleet.log_text(kernel))


def go(fleet, name):
    wait_for(lambda: fleet.run("post", f"{name}/go", "on").returncode == 0, text=f"{name} takes a post")


def audited(fleet, kernel, event):
    rows = map(json.loads, fleet.tos("audit", "--kernel", kernel, "--json").splitlines())
    return [row for row in rows if row["event"] == event]


def runs(fleet, name, kernel):
    """How often begin ran there, by that kernel's own log."""
    return sum(1 for line in fleet.log_text(kernel).splitlines()
               if f"carrier={name}" in line and "carrier says" in line and f"at {kernel}" in line)


def settled(fleet, kernel):
    """What it had of old was settled since its last start."""

    def so():
        log = fleet.log_text(kernel)
        return "all that this store had of old is settled" in log[log.rindex("kernel ready"):]

    wait_for(so, text=f"{kernel} has settled")


@pytest.mark.parametrize("same_file", [True, False], ids=["seen-by-peers", "another-file"])
def test_an_old_backup_of_a_place_doubles_nothing(fleet, same_file):
    moved = fleet.launch(WAITER, "--path", "host1,host2", name="w.lua")
    stays = fleet.launch(WAITER, "--path", "host1,host0", name="w.lua")
    at(fleet, moved, "host1")
    at(fleet, stays, "host1")
    copy = backup(fleet, "host1")
    late = fleet.launch(WAITER, "--path", "host1", name="w.lua")  # the backup knows nothing of it
    at(fleet, late, "host1")
    go(fleet, moved)
    at(fleet, moved, "host2")
    assert runs(fleet, moved, "host1") == 1
    fleet.down("host1", hard=True)
    put_back(fleet, "host1", copy, same_file)
    settled_before = len(audited(fleet, "host0", "clone-refused"))
    fleet.up()
    settled(fleet, "host1")
    why = audited(fleet, "host1", "store-restored")[-1]["why"]
    assert ("has seen" in why or "later departure" in why) if same_file else ("copy" in why), why
    # The one that had moved on is where it went to, and began here once.
    assert set(fleet.residents(moved)) == {"host2"}
    assert runs(fleet, moved, "host1") == 1
    # The one that had not goes on; the one that came later is lost, and its home says so.
    at(fleet, stays, "host1", line=False)
    go(fleet, stays)
    at(fleet, stays, "host0", line=False)
    go(fleet, stays)
    go(fleet, moved)
    o = fleet.outcome(moved)
    assert o["state"] == "finished" and visited(o) == ["host1", "host2"], o
    o = fleet.outcome(stays)
    assert o["state"] == "finished" and visited(o) == ["host1", "host0"], o
    o = fleet.outcome(late, expect=1)
    assert o["state"] == "lost", o
    assert len(audited(fleet, "host0", "clone-refused")) == settled_before


def test_an_old_backup_of_a_home_finds_its_carriers_again(fleet):
    away = fleet.launch(WAITER, "--path", "host0,host1,host2", name="w.lua")
    stays = fleet.launch(WAITER, "--path", "host0", name="w.lua")
    done = fleet.launch(WAITER, "--path", "host0,host1", name="w.lua")
    for name in (away, stays, done):
        at(fleet, name, "host0")
    copy = backup(fleet, "host0")
    for name in (away, done):
        go(fleet, name)
        at(fleet, name, "host1")
    go(fleet, away)
    at(fleet, away, "host2")
    go(fleet, done)
    assert fleet.outcome(done)["state"] == "finished"
    fleet.down("host0", hard=True)
    put_back(fleet, "host0", copy, same_file=False)
    fleet.up()
    settled(fleet, "host0")
    wait_for(lambda: set(fleet.residents(away)) == {"host2"}, text="the copy at home gave way")
    wait_for(lambda: fleet.show(away)["kernel"] == "host2", text="its home knows where it is")
    assert runs(fleet, away, "host0") == runs(fleet, done, "host0") == 1
    # Its outcome was in what the backup lacks: it is not run again.
    o = fleet.outcome(done, expect=1)
    assert o["state"] == "lost" and "backup" in o["fault"]["text"], o
    go(fleet, away)
    o = fleet.outcome(away)
    assert o["state"] == "finished" and visited(o) == ["host0", "host1", "host2"], o
    at(fleet, stays, "host0", line=False)
    go(fleet, stays)
    assert fleet.outcome(stays)["state"] == "finished"
    # No name is given out a second time.
    assert fleet.launch(NOTE) not in (away, stays, done)


def test_what_a_restored_home_forgot_is_known_again_when_it_comes_home(fleet):
    """Launched after the backup: the home has no record, and makes one of the ticket and of its own hop record."""
    copy = backup(fleet, "host0")
    ends = fleet.launch(WAITER, "--path", "host1", name="w.lua")
    passes = fleet.launch(WAITER, "--path", "host1,host0,host2", name="w.lua")
    for name in (ends, passes):
        at(fleet, name, "host1")
    fleet.down("host0", hard=True)
    put_back(fleet, "host0", copy, same_file=False)
    fleet.up()
    settled(fleet, "host0")
    assert fleet.show(ends) is None and fleet.show(passes) is None

    def goes(name, kernel):
        wait_for(lambda: fleet.run("post", "--kernel", kernel, f"{name}/go", "on").returncode == 0, text=f"{name} takes a post")

    goes(ends, "host1")
    wait_for(lambda: fleet.state(ends) == "finished", text="its outcome is taken")
    o = fleet.outcome(ends)
    assert visited(o) == ["host1"], o
    goes(passes, "host1")
    at(fleet, passes, "host0", line=False)
    assert fleet.show(passes)["kernel"] == "host0"
    goes(passes, "host0")
    at(fleet, passes, "host2", line=False)
    goes(passes, "host2")
    o = fleet.outcome(passes)
    assert o["state"] == "finished" and visited(o) == ["host1", "host0", "host2"], o
    assert {r["carrier"] for r in audited(fleet, "host0", "home-learnt-again")} == {ends, passes}
    wait_for(lambda: not fleet.residents(ends) and not fleet.residents(passes), text="no copy is left")
    # It stays so: the record is in the store.
    fleet.kill("host0")
    wait_for(lambda: fleet.status("host0"), text="host0 is back")
    assert fleet.state(ends) == fleet.state(passes) == "finished"


def test_one_image_started_twice_is_refused_and_named(fleet):
    wait_for(lambda: all(row["linked"] or row["name"] == "host0" for row in fleet.json("kernels")) and len(fleet.json("kernels")) == 3,
             text="host0, which was started anew, knows the others")
    name = fleet.launch(WAITER, "--path", "host1", name="w.lua")
    at(fleet, name, "host1")
    fleet.tos("down", "host1")
    other = os.path.join(fleet.path, "h2")
    shutil.copytree(fleet.home, other, ignore=shutil.ignore_patterns("sock", "lock", "*.pid", "host0", "host2", "log"))
    conf = f"{other}/kernels/host1/tosd.conf"
    with open(conf) as f:
        text = f.read()
    with open(conf, "w") as f:
        f.write(text.replace("127.0.0.1:21213", "127.0.0.1:29213"))
    fleet.up()
    env = dict(fleet.env, TOS_HOME=other)
    try:
        subprocess.run([TOS, "up", "--timeout", "2s"], env=env, capture_output=True, text=True, timeout=60)

        def clone(*args):
            return subprocess.run([TOS, *args, "--json"], env=env, capture_output=True, text=True, timeout=60)

        wait_for(lambda: audited(fleet, "host0", "clone-refused"), text="the registrar refuses one of them")
        row = audited(fleet, "host0", "clone-refused")[-1]
        assert row["kernel"] == "host1", row
        # Two of one key: the one that is refused holds everything back, and says why.
        logs = [f"{home}/kernels/host1/log" for home in (fleet.home, other)]

        def refused():
            return [p for p in logs if "with this one's name and key" in open(p).read()]

        assert len(wait_for(refused)) == 1
        states = [r for r in (fleet.ps("host1").get(name), {r["name"]: r for r in json.loads(clone("ps").stdout or "[]")}.get(name)) if r]
        running = [r for r in states if r["state"] == "running" and not r["in_doubt"]]
        assert len(running) <= 1, states
        assert fleet.metric("host0", "tos_clones_refused_total") >= 1
    finally:
        subprocess.run([TOS, "down"], env=env, capture_output=True, timeout=120)
    wait_for(lambda: fleet.ps("host1").get(name, {}).get("state") == "running" and
             not fleet.ps("host1")[name]["in_doubt"], text="the remaining one goes on")
    go(fleet, name)
    assert fleet.outcome(name)["state"] == "finished"


def test_tosd_restored_holds_everything_back_from_the_first_second(fleet):
    """The same store, and nobody has seen more of it: only the option says that it is an old one."""
    name = fleet.launch(WAITER, "--path", "host1", name="w.lua")
    at(fleet, name, "host1")
    fleet.tos("down", "host1")
    tosd = subprocess.Popen([os.path.join(BUILD, "src/tosd/tosd"), "--restored", "-c",
                             f"{fleet.home}/kernels/host1/tosd.conf"], env=fleet.env, stderr=subprocess.PIPE, text=True)
    try:
        wait_for(lambda: fleet.ps("host1").get(name, {}).get("state") == "running" and
                 not fleet.ps("host1")[name]["in_doubt"], text="it goes on when its home has been asked")
        assert audited(fleet, "host1", "store-restored")[-1]["why"] == "it was started as a restored store"
        assert not os.path.exists(f"{fleet.home}/kernels/host1/restored")
    finally:
        tosd.terminate()
        said = tosd.communicate(timeout=60)[1]
    assert said.index("held back until") < said.index("kernel ready") < said.index(f"carrier={name} from=ready"), said
    fleet.up()
    at(fleet, name, "host1", line=False)
    go(fleet, name)
    assert fleet.outcome(name)["state"] == "finished"
