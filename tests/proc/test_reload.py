"""What changes while a kernel runs: tos set, tos reload, SIGHUP."""
import json
import os
import re
import signal

import pytest

from conftest import fleet_fixture
from fleet import KERNEL, visited, wait_for

pytestmark = pytest.mark.skipif(not os.path.exists(KERNEL), reason="TOS_BUILD names no build with tos-kernel")

fleet = fleet_fixture(n=2)


def conf(fleet, kernel="host1"):
    return f"{fleet.home}/kernels/{kernel}/tosd.conf"


@pytest.fixture
def edit(fleet):
    """edit(text) appends to host1's configuration; afterwards it is as before."""
    path = conf(fleet)
    with open(path) as f:
        was = f.read()

    def change(text, sub=None):
        with open(path, "w") as f:
            f.write((sub(was) if sub else was) + text)

    yield change
    with open(path, "w") as f:
        f.write(was)
    fleet.tos("reload", "--kernel", "host1")


def property_of(fleet, path, kernel="host1"):
    return fleet.json("get", path, "--kernel", kernel)[0]


def reload(fleet, expect=0):
    r = fleet.run("reload", "--kernel", "host1", "--json")
    assert r.returncode == expect, (r.stdout, r.stderr)
    return json.loads(r.stdout) if expect == 0 else r.stderr


def keys(rows):
    return {r["key"]: (r["from"], r["to"]) for r in rows}


def audited(fleet, event, kernel="host1", **columns):
    rows = [json.loads(line) for line in fleet.tos("audit", "--json", "--kernel", kernel).splitlines()]
    return [r for r in rows if r["event"] == event and all(r.get(c) == v for c, v in columns.items())]


def go(fleet, lua, path="host1", expect=0):
    r = fleet.run("launch", "-e", lua, "--path", path, "--wait", "--json", "--on-unreachable", "fail")
    assert r.returncode == expect, (r.stdout, r.stderr)
    return json.loads(r.stdout)


# ---- reload

def test_rules_limits_and_peers_hold_from_the_reload_on(fleet, edit):
    kernel = fleet.processes("host1", "tos-kernel")
    assert visited(go(fleet, "return {x = 1}")) == ["host1"]
    edit('policy { rules = {"deny carrier-of:admin post Echo"} }\nlimits { hops = "7" memory = "16M" }\n'
         'timing { call = "12s" }\npeer "host9" { address = {"127.0.0.1:9"} }\n'
         'local { principals = {"4711"} }\nlog { level = "debug" }\n')
    said = reload(fleet)
    assert set(keys(said["changed"])) == {"policy.rules", "limits.hops", "limits.memory", "timing.call", "peer host9",
                                          "local.principals", "log.level"} and said["kept"] == []
    assert keys(said["changed"])["limits.hops"] == ("100000", "7")
    assert keys(said["changed"])["timing.call"] == ("30s", "12s")
    o = go(fleet, "local l = tos.limits() local _, code = tos.call('Echo', {1}, 5) "
                  "return {hops = l.hops, memory = l.memory, code = code}")
    (row,) = o["briefcase"]["RESULTS"]
    assert (row["hops"], row["memory"], row["code"]) == (7, 16 << 20, "denied")
    assert fleet.run("can", "carrier-of:admin", "post", "Echo", "--kernel", "host1").returncode == 3
    assert property_of(fleet, "/limits/hops")["origin"] == "tosd.conf"
    assert fleet.processes("host1", "tos-kernel") == kernel, "nothing was started again"
    assert reload(fleet) == {"kernel": "host1", "changed": [], "kept": []}
    wait_for(lambda: audited(fleet, "reloaded", by="admin"))


def test_a_broken_file_changes_nothing(fleet, edit):
    edit('limits { hops = "8" }\nlimits { nonsense = "1" }\n')
    said = reload(fleet, expect=1)
    assert "tosd.conf:" in said and "nonsense" in said
    assert property_of(fleet, "/limits/hops")["value"] == 100000
    edit('limits { hops = "8" }\npolicy { rules = {"allow everybody everything"} }\n')
    assert re.search(r"tosd.conf:\d+: .*rule", reload(fleet, expect=1))
    assert property_of(fleet, "/limits/hops")["value"] == 100000
    wait_for(lambda: len(audited(fleet, "reload-refused", by="admin")) >= 2)
    os.unlink(conf(fleet))
    assert "tosd.conf" in reload(fleet, expect=1)
    assert go(fleet, "return {x = 1}")["state"] == "finished"


def test_what_needs_a_restart_is_named_and_keeps_its_value(fleet, edit):
    edit('timing { ping = "700ms" hook = "4s" }\nsandbox { vm_address = "512M" }\n',
         sub=lambda text: text.replace("listen = {", 'listen = {"127.0.0.1:29999", '))
    said = reload(fleet)
    assert keys(said["changed"]) == {"timing.hook": ("5s", "4s")}
    assert set(keys(said["kept"])) >= {"timing.ping", "sandbox.vm_address", "listen"}
    assert property_of(fleet, "/timing/ping")["value"] == 5000
    assert property_of(fleet, "/timing/ping")["read_only"] and not property_of(fleet, "/timing/hook")["read_only"]
    text = fleet.tos("reload", "--kernel", "host1")
    assert "restart  timing.ping  5s -> 700ms" in text


def test_sighup_to_tosd_does_the_same(fleet, edit):
    tosd = fleet.processes("host1", "tosd")
    pid = tosd[0]
    edit('limits { hops = "9" }\n')
    os.kill(pid, signal.SIGHUP)
    wait_for(lambda: property_of(fleet, "/limits/hops")["value"] == 9)
    wait_for(lambda: audited(fleet, "reloaded", by="SIGHUP"))
    edit('limits { hops = "many" }\n')
    os.kill(pid, signal.SIGHUP)
    wait_for(lambda: audited(fleet, "reload-refused", by="SIGHUP"))
    assert property_of(fleet, "/limits/hops")["value"] == 9
    assert "the configuration is broken" in fleet.log_text("host1")
    edit("")
    for _ in range(20):  # many at once are as good as one
        os.kill(pid, signal.SIGHUP)
    wait_for(lambda: property_of(fleet, "/limits/hops")["value"] == 100000)
    assert fleet.processes("host1", "tosd") == tosd


def test_properties_of_extensions_are_told_while_they_run(fleet, edit):
    def value():
        return property_of(fleet, "/Messenger/cache/ms")["value"]

    assert value() == 0
    edit('extension "Echo" { library = "echo" where = "isolated" }\n'
         'extension "Mobility" { library = "mobility" where = "kernel" }\n'
         'extension "Messenger" { library = "messenger" where = "kernel" property = {"/cache/ms=1234"} }\n')
    said = reload(fleet)
    assert "extension Echo" in keys(said["kept"]) and "extension Directory" in keys(said["kept"])
    assert value() == 1234 and property_of(fleet, "/Messenger/cache/ms")["origin"] == "tosd.conf"
    edit('extension "Messenger" { library = "messenger" where = "kernel" property = {"/cache/ms=99999999"} }\n')
    reload(fleet)
    assert value() == 1234 and "a configured value is not used" in fleet.log_text("host1")
    edit("")
    reload(fleet)
    assert value() == 0


# ---- set

def test_what_is_set_holds_at_once_and_after_a_restart(fleet, edit):
    fleet.tos("set", "/limits/hops", "5", "--kernel", "host1")
    got = property_of(fleet, "/limits/hops")
    assert (got["value"], got["origin"], got["read_only"]) == (5, "set by admin", False)
    (row,) = go(fleet, "return {hops = tos.limits().hops}")["briefcase"]["RESULTS"]
    assert row["hops"] == 5
    fleet.tos("set", "/Mobility/offer/timeout_ms", "4321", "--kernel", "host1")
    # the file says something else: what was set counts more, until it is taken back
    edit('limits { hops = "6" }\n')
    assert keys(reload(fleet)["changed"])["limits.hops"] == ("100000", "6")
    assert property_of(fleet, "/limits/hops")["value"] == 5
    fleet.tos("down", "host1", timeout=120)
    fleet.tos("up", timeout=120)
    assert property_of(fleet, "/limits/hops")["value"] == 5
    got = property_of(fleet, "/Mobility/offer/timeout_ms")
    assert (got["value"], got["origin"], got["read_only"]) == (4321, "set by admin", False)
    fleet.tos("set", "/limits/hops", "--default", "--kernel", "host1")
    fleet.tos("set", "/Mobility/offer/timeout_ms", "--default", "--kernel", "host1")
    assert property_of(fleet, "/limits/hops")["value"] == 6
    assert property_of(fleet, "/Mobility/offer/timeout_ms")["value"] == 10000
    wait_for(lambda: audited(fleet, "set", path="/limits/hops", value="5", by="admin"))
    wait_for(lambda: audited(fleet, "unset", path="/limits/hops", by="admin"))


def test_bad_values_and_strangers_change_nothing(fleet):
    fleet.tos("principal", "add", "walter")

    def fails(*args, expect=1):
        r = fleet.run("set", *args, "--kernel", "host1")
        assert r.returncode == expect, (args, r.stdout, r.stderr)
        return r.stderr

    assert "no whole number" in fails("/limits/hops", "many")
    assert "above the greatest" in fails("/limits/hops", "100000000000")
    assert "tosd.conf" in fails("/timing/ping", "1s") and "start" in fails("/sandbox/vm_address", "1G")
    assert "no property" in fails("/limits/nonsense", "1")
    assert "no property" in fails("/Nobody/x", "1")
    assert "is no int" in fails("/Mobility/offer/timeout_ms", "soon")
    assert "no path" in fails("limits", "1")
    assert "no path" in fails("/" + "x" * 300 + "/y", "1")
    assert "may not set /limits/hops" in fails("/limits/hops", "4", "--as", "walter", expect=3)
    fails("/limits/hops", expect=2)
    assert property_of(fleet, "/limits/hops")["value"] == 100000
    r = fleet.run("reload", "--kernel", "host1", "--as", "walter")
    assert r.returncode == 3 and "may not reload host1" in r.stderr
    wait_for(lambda: audited(fleet, "act-refused", act="set", by="walter"))
