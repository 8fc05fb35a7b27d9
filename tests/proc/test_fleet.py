"""Three kernels as people use them: the demonstration, a traceback, and the shapes of what --json prints."""
import json
import os
import subprocess

import pytest

from conftest import fleet_fixture
from fleet import KERNEL, TOS, wait_for

pytestmark = pytest.mark.skipif(not os.path.exists(KERNEL), reason="TOS_BUILD names no build with tos-kernel")
fleet = fleet_fixture(n=3)

TOUR = """
function begin(self)
	self.stops = (self.stops or 0) + 1
	tos.log("stop " .. self.stops)
	tos.post("Echo", "Hello, World")
	tos.briefcase:folder("RESULTS"):push { kernel = tos.kernel(), stop = self.stops }
end
"""


def test_a_carrier_visits_every_kernel_and_brings_home_what_it_found(fleet):
    o = fleet.json("launch", fleet.file("tour.lua", TOUR), "--path", "@all", "--wait")
    assert set(o) >= {"name", "state", "briefcase", "trail", "fault"}
    assert o["state"] == "finished" and not o["fault"]
    assert o["briefcase"]["RESULTS"] == [{"kernel": k, "stop": i + 1} for i, k in enumerate(fleet.names)]
    events = [(t["kernel"], t["event"]) for t in o["trail"]]
    assert [e for e in events if e[1] == "arrived"] == [(k, "arrived") for k in fleet.names]


def test_a_fault_comes_home_with_its_traceback(fleet):
    lua = "function deeper() error('boom') end\nfunction begin(self) deeper() end\n"
    r = fleet.run("launch", fleet.file("boom.lua", lua), "--path", "host1", "--wait")
    assert r.returncode == 1 and "boom.lua:1: boom" in r.stderr
    name = r.stdout.split()[0]
    shown = fleet.show(name)
    assert shown["state"] == "faulted" and shown["fault"]["kernel"] == "host1"
    assert "deeper" in shown["fault"]["traceback"]
    fleet.tos("kill", name)
    wait_for(lambda: fleet.state(name) == "killed")


def test_json_of_ps_show_log_locate_and_wait(fleet):
    name = fleet.launch("tos.log('here I am') tos.inbox('done'):next()", "--path", "host2")
    wait_for(lambda: "running" == fleet.ps("host2").get(name, {}).get("state"))
    for kernel in ("host0", "host2"):
        row = fleet.ps(kernel)[name]
        assert set(row) >= {"name", "state", "in_doubt", "kernel", "home", "owner", "hop", "since_ms"}
        assert (row["kernel"], row["home"], row["owner"]) == ("host2", "host0", "admin")
        assert row["in_doubt"] is False and isinstance(row["hop"], int) and row["since_ms"] > 1_600_000_000_000
    shown = fleet.show(name)
    assert {"trail", "limits", "usage", "fault"} <= set(shown)
    assert {"cpu", "memory", "lifetime", "hops", "state"} <= set(shown["limits"])
    where = fleet.json("locate", name)
    assert (where[0] if isinstance(where, list) else where)["kernel"] == "host2"
    wait_for(lambda: "here I am" in fleet.tos("log", name))
    fleet.tos("wait", name, "--timeout", "200ms", expect=4)
    fleet.tos("post", f"{name}/done", "now")
    o = fleet.outcome(name)
    assert o["state"] == "finished" and o["name"] == name
    assert json.dumps(o["trail"])
    assert fleet.outcome(name) == o


@pytest.mark.skipif(os.geteuid() != 0, reason="takes another user")
def test_another_user_is_told_that_it_may_not(fleet):
    for path in fleet.path, fleet.home:
        os.chmod(path, 0o755)
    r = subprocess.run([TOS, "ps"], env=dict(os.environ, TOS_HOME=fleet.home), user=65534, group=65534, extra_groups=[],
                       capture_output=True, text=True, timeout=60)
    assert r.returncode == 3 and "does not let this user in" in r.stderr, r


def test_ps_names_whom_it_leaves_out(fleet):
    """A kernel that does not answer may hold anything; one that is not running holds nothing that runs."""
    fleet.freeze("host1")
    r = fleet.run("ps", "--timeout", "1s")
    fleet.thaw("host1")
    assert r.returncode == 0 and "host1 is left out" in r.stderr, r.stderr
    fleet.down("host1")
    assert fleet.run("ps").stderr == ""
    fleet.up()
