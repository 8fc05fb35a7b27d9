"""The inbox Journal: what extensions keep is on the disk when it is said, is theirs alone, bounded, and in backups."""
import os
import time

import pytest

import wire
from conftest import fleet_fixture
from fleet import BUILD, KERNEL, QUICK, wait_for

pytestmark = pytest.mark.skipif(not os.path.exists(KERNEL), reason="TOS_BUILD names no build with tos-kernel")

DEFAULTS = "".join(f'extension "{n}" {{ library = "{n.lower()}" where = "kernel" }}\n'
                   for n in ("Echo", "Mobility", "Messenger", "Directory"))
EXT = DEFAULTS + f'''extension "Keep" {{ library = "{BUILD}/tests/proc/ext/keep.so" where = "%s" }}
extension "Other" {{ library = "{BUILD}/tests/proc/ext/other.so" where = "kernel" }}
limits {{ journal_rows = 40 journal_bytes = "400K" }}
'''
fleet = fleet_fixture(n=2, conf=QUICK, each={"host0": EXT % "kernel", "host1": EXT % "isolated"})


def ask(fleet, kernel, verb, _to="Keep", **args):
    with wire.Domain(fleet.home).client(kernel) as c:
        return c.call(_to, verb, args)


def answers(fleet, kernel):
    """Once it does, after a restart: an isolated extension is ready a little later than its kernel."""
    def it():
        try:
            return ask(fleet, kernel, "INFO")
        except (wire.Failure, OSError, wire.Closed):
            return None
    return wait_for(it, text=f"Keep of {kernel} answers")


def keys(answer):
    return [r["key"].decode() for r in answer["rows"]]


def test_what_is_written_is_found_after_a_kill(fleet):
    for kernel in ("host0", "host1"):
        ask(fleet, kernel, "PUT", key="a/1", value={"x": [1, 2.5, None]})
        ask(fleet, kernel, "BATCH", ops=[{"key": "a/2", "value": 2}, {"key": "b", "value": b"\0"}, {"key": "a/1"}])
        ask(fleet, kernel, "PUT", key="a/2", value="new")
        fleet.kill(kernel)
        answers(fleet, kernel)
        got = ask(fleet, kernel, "LIST")
        assert keys(got) == ["a/2", "b"] and got["rows"][0]["value"] == "new" and not got["more"], got
        assert ask(fleet, kernel, "GET", key="b")["value"] == b"\0"
        assert wire.failure(ask, fleet, kernel, "GET", key="a/1").code == "not-found"
        ask(fleet, kernel, "DROP", key="b")
        ask(fleet, kernel, "DROP", key="b")
        assert keys(ask(fleet, kernel, "LIST")) == ["a/2"]


def test_each_sees_its_own_and_strangers_nothing(fleet):
    ask(fleet, "host0", "PUT", key="mine", value=1)
    ask(fleet, "host0", "PUT", _to="Other", key="mine", value=2)
    assert ask(fleet, "host0", "GET", key="mine")["value"] == 1
    assert keys(ask(fleet, "host0", "LIST", _to="Other")) == ["mine"]
    r = fleet.run("call", "Journal", '{"key": "x"}', "--folder", "GET")
    assert r.returncode == 3 and "not for a client" in r.stderr, r.stderr
    o = fleet.outcome(fleet.launch("tos.briefcase.R = { select(2, tos.call('Journal', {{key='mine'}}, 5, {name='GET'})) }"))
    assert o["briefcase"]["R"][0] == "denied", o
    assert "Journal" in fleet.tos("audit", "--kernel", "host0")
    # An extension of another kernel has nothing to look for here, either.
    fleet.down("host1")
    try:
        with wire.Domain(fleet.home).as_kernel("host1", "host0") as k:
            assert wire.failure(k.call, "host0/Journal", "LIST", {}, sender="host1/Keep").code == "denied"
    finally:
        fleet.up()


def test_lists_go_on_where_they_stopped(fleet):
    ask(fleet, "host0", "BATCH", ops=[{"key": f"l/{i:02}", "value": i} for i in range(10)])
    first = ask(fleet, "host0", "LIST", prefix="l/", most=4)
    assert keys(first) == [f"l/{i:02}" for i in range(4)] and first["more"]
    rest = ask(fleet, "host0", "LIST", prefix="l/", after=first["rows"][-1]["key"])
    assert keys(rest) == [f"l/{i:02}" for i in range(4, 10)] and not rest["more"]
    assert ask(fleet, "host0", "LIST", prefix="zz")["rows"] == []


def test_a_large_row_does_not_end_a_list(fleet):
    """One that is larger than what an answer holds otherwise comes alone, and those behind it come, too."""
    ask(fleet, "host0", "PUT", key="g/1", value=1)
    ask(fleet, "host0", "PUT", key="g/2", value=bytes(300 << 10))
    ask(fleet, "host0", "PUT", key="g/3", value=3)
    got, after = [], {}
    for _ in range(4):
        part = ask(fleet, "host0", "LIST", prefix="g/", **after)
        got += keys(part)
        if not part["more"]:
            break
        after = {"after": part["rows"][-1]["key"]}
    assert got == ["g/1", "g/2", "g/3"]
    ask(fleet, "host0", "DROP", key="g/2")


def test_a_batch_frees_a_row_once(fleet):
    """Naming it again and again makes no room for more than it had."""
    ask(fleet, "host0", "PUT", _to="Other", key="a", value=bytes(200 << 10))
    b = {"key": "b", "value": bytes(450 << 10)}
    assert wire.failure(ask, fleet, "host0", "BATCH", _to="Other", ops=[{"key": "a"}, {"key": "a"}, b]).code == "limit"
    b["value"] = bytes(350 << 10)
    ask(fleet, "host0", "BATCH", _to="Other", ops=[{"key": "a"}] * 4 + [b])
    ask(fleet, "host0", "DROP", _to="Other", key="b")


def test_what_one_may_keep_is_bounded(fleet):
    at = ask(fleet, "host0", "INFO", _to="Other")
    assert at["most_rows"] == 40 and at["most_bytes"] == 400 << 10 and at["restored_ms"] == 0
    said = wire.failure(ask, fleet, "host0", "BATCH", _to="Other", ops=[{"key": f"r{i}", "value": 1} for i in range(41)])
    assert said.code == "limit" and "journal_rows" in said.text
    assert ask(fleet, "host0", "INFO", _to="Other")["rows"] == at["rows"], "all or nothing"
    ask(fleet, "host0", "PUT", _to="Other", key="big", value=bytes(300 << 10))
    assert wire.failure(ask, fleet, "host0", "PUT", _to="Other", key="big2", value=bytes(300 << 10)).code == "limit"
    ask(fleet, "host0", "PUT", _to="Other", key="big", value=bytes(350 << 10))  # in the place of the first
    ask(fleet, "host0", "DROP", _to="Other", key="big")
    assert ask(fleet, "host0", "INFO", _to="Other") == at
    assert fleet.metric("host0", "tos_journal_rows") >= at["rows"]
    assert "limit=\"journal\"" in fleet.tos("metrics", "--kernel", "host0")
    for bad in ({"key": "", "value": 1}, {"key": "k" * 201, "value": 1}, {"value": 1}, {"key": "k"}):
        assert wire.failure(ask, fleet, "host0", "PUT", **bad).code == "malformed"


def test_rows_expire(fleet):
    ask(fleet, "host0", "PUT", key="soon", value=1, expires=wire.now_ms() + 700)
    assert ask(fleet, "host0", "GET", key="soon")["value"] == 1
    wait_for(lambda: "soon" not in keys(ask(fleet, "host0", "LIST")))
    assert wire.failure(ask, fleet, "host0", "GET", key="soon").code == "not-found"


def test_a_backup_has_them_and_says_that_it_is_old(fleet):
    ask(fleet, "host1", "PUT", key="kept", value="before")
    fleet.tos("backup", "host1", "journal.backup")
    ask(fleet, "host1", "PUT", key="later", value="lost")
    begun = int(time.time() * 1000)
    fleet.tos("down", "host1")
    fleet.tos("restore", "journal.backup")
    fleet.up()
    got = answers(fleet, "host1")
    assert ask(fleet, "host1", "GET", key="kept")["value"] == "before"
    assert wire.failure(ask, fleet, "host1", "GET", key="later").code == "not-found"
    assert got["restored_ms"] >= begun
