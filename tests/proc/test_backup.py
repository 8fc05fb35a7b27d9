"""tos backup of a running kernel, tos restore of it: what was there goes on, what must be refused is."""
import os
import shutil
import sqlite3
import stat

import pytest

from conftest import fleet_fixture
from fleet import KERNEL, NOTE, QUICK, visited, wait_for

pytestmark = pytest.mark.skipif(not os.path.exists(KERNEL), reason="TOS_BUILD names no build with tos-kernel")
fleet = fleet_fixture(n=2, conf=QUICK)
WAITER = f'function begin(self) {NOTE} tos.inbox("go"):next(600) end'


def waiting_at(fleet, kernel, name):
    wait_for(lambda: fleet.ps(kernel).get(name, {}).get("state") == "running" and not fleet.ps(kernel)[name]["in_doubt"],
             text=f"{name} runs at {kernel}")


def go(fleet, name):
    wait_for(lambda: fleet.run("post", f"{name}/go", "on").returncode == 0)


def refused(fleet, text, *args, expect=1):
    r = fleet.run(*args)
    assert r.returncode == expect and text in r.stderr, (r.returncode, r.stderr)


def test_a_backup_is_taken_while_it_runs_and_put_back(fleet):
    name = fleet.launch(WAITER, "--path", "host1")
    waiting_at(fleet, "host1", name)
    made = fleet.json("backup", "host1", "one.backup")
    assert made["kernel"] == "host1" and made["carriers"] == 1 and not made["keys"], made
    path = os.path.join(fleet.path, "one.backup")
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    with sqlite3.connect(path) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert "key" not in [n for n, in db.execute("SELECT name FROM backup")]
    acts = [line for line in fleet.tos("audit", "--kernel", "host1").splitlines() if "backup" in line]
    assert acts and "admin" in acts[-1], acts
    assert fleet.metric("host1", "tos_backups_total") == 1
    refused(fleet, "is there already", "backup", "host1", "one.backup")
    refused(fleet, "tos down host1", "restore", "one.backup")
    fleet.tos("down", "host1")
    back = fleet.json("restore", "one.backup")
    assert back["kernel"] == "host1", back
    assert os.path.exists(f"{fleet.home}/kernels/host1/store.db.before-restore")
    fleet.up()
    waiting_at(fleet, "host1", name)
    assert "held back" in fleet.log_text("host1") and not os.path.exists(f"{fleet.home}/kernels/host1/restored")
    go(fleet, name)
    o = fleet.outcome(name)
    assert o["state"] == "finished" and "host1" in visited(o), o


def test_with_its_keys_a_kernel_is_rebuilt_from_nothing(fleet):
    name = fleet.launch(WAITER, "--path", "host1")
    waiting_at(fleet, "host1", name)
    fleet.tos("backup", "host1", "keys.backup", "--keys")
    fleet.tos("backup", "host1", "bare.backup")
    fleet.tos("down", "host1")
    shutil.rmtree(f"{fleet.home}/kernels/host1")
    refused(fleet, "has the key of host1", "restore", "bare.backup")
    fleet.tos("restore", "keys.backup")
    key = f"{fleet.home}/kernels/host1/key"
    assert stat.S_IMODE(os.stat(key).st_mode) == 0o600
    fleet.up()
    waiting_at(fleet, "host1", name)
    go(fleet, name)
    assert fleet.outcome(name)["state"] == "finished"


def test_what_must_not_be_put_back_is_refused(fleet):
    refused(fleet, "on the kernel's own host", "backup", "host7", "seven.backup")
    refused(fleet, "No such file", "restore", "nothing.backup")
    fleet.file("text.backup", "hello" * 1000)
    refused(fleet, "", "restore", "text.backup")
    fleet.tos("down", "host1")
    try:
        fleet.tos("backup", "host1", "good.backup")  # a kernel that is down has nobody to ask
        with open(os.path.join(fleet.path, "good.backup"), "rb") as f:
            good = f.read()
        before = os.stat(f"{fleet.home}/kernels/host1/store.db").st_ino

        def changed(name, sql):
            with open(os.path.join(fleet.path, name), "wb") as f:
                f.write(good)
            with sqlite3.connect(os.path.join(fleet.path, name)) as db:
                for one in sql:
                    db.execute(one)

        changed("newer.backup", ["PRAGMA user_version=999"])
        refused(fleet, "newer version", "restore", "newer.backup")
        changed("other.backup", ["UPDATE backup SET body = CAST('host0' AS BLOB) WHERE name = 'kernel'"])
        refused(fleet, "runs: 'tos down host0' first", "restore", "other.backup")
        changed("domain.backup", ["UPDATE backup SET body = CAST('x' AS BLOB) WHERE name = 'root.crt'"])
        refused(fleet, "of another domain", "restore", "domain.backup")
        with open(os.path.join(fleet.path, "torn.backup"), "wb") as f:
            f.write(good[:len(good) // 2 // 4096 * 4096])
        refused(fleet, "torn.backup", "restore", "torn.backup")
        assert os.stat(f"{fleet.home}/kernels/host1/store.db").st_ino == before
    finally:
        fleet.up()


def test_who_may_not_is_refused_by_the_kernel(fleet):
    fleet.tos("principal", "add", "olga", "--role", "owner")
    refused(fleet, "may not backup", "backup", "host1", "olga.backup", "--as", "olga", expect=3)
    assert not os.path.exists(os.path.join(fleet.path, "olga.backup"))
