"""examples/sweep: one carrier over fifty kernels, a report for each; nothing is changed but what travels."""
import hashlib
import json
import os
import re
import subprocess

import pytest

from conftest import fleet_fixture
from fleet import KERNEL

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
SWEEP = os.path.join(TOP, "examples/sweep")
N = 50

pytestmark = pytest.mark.skipif(not os.path.exists(KERNEL) or not os.path.exists("/usr/bin/dpkg-query"),
                                reason="TOS_BUILD names no build with tos-kernel, or this is no Debian")

# One host refuses that anybody's carriers look.
fleet = fleet_fixture(n=N, prepare=lambda f: f.configure("host7", 'policy { rules = {"deny carrier-of:admin post Executor"} }\n'))


@pytest.fixture(scope="module")
def installed():
    text = subprocess.run(["dpkg-query", "-W", "-f", "${Package}\t${Version}\t${db:Status-Status}\n"],
                          capture_output=True, text=True, check=True).stdout
    return {p: v for p, v, s in (line.split("\t") for line in text.splitlines()) if s == "installed"}


def sweep(fleet, policy, *args):
    path = os.path.join(fleet.path, "policy.json")
    with open(path, "w") as f:
        json.dump({"POLICY": [policy]}, f)
    o = fleet.json("launch", SWEEP + "/sweep.lua", "--briefcase", path, "--seal", "POLICY", "--append-only", "RESULTS",
                   "--append-only", "FINDINGS", "--on-unreachable", "skip", "--wait", *args, timeout=180)
    assert o["state"] == "finished", o["fault"]
    return o["briefcase"].get("RESULTS", []), o["briefcase"].get("FINDINGS", []), o


def test_each_host_is_judged_on_the_spot_and_reported(fleet, installed):
    with open(KERNEL, "rb") as f:
        before = hashlib.sha256(f.read()).hexdigest()
    pids = fleet.processes("host3", "tos-kernel")
    licensed = ["host0", "host10", "host49"]
    rows, findings, o = sweep(fleet, {"licensed": {"bash": licensed, "no-such-package": []}, "minimum": {"dpkg": "99:1.0"}},
                              "--path", "@all")
    assert sorted(r["kernel"] for r in rows) == sorted(f"host{i}" for i in range(N))
    for row in rows:
        if row["kernel"] == "host7":
            assert row["findings"].startswith("not known: ") and "Executor" in row["findings"] and row["packages"] == "-"
            continue
        want = 0 if row["kernel"] in licensed else 1
        assert (row["packages"], row["unlicensed"], row["outdated"]) == (len(installed), want, 1), row
    assert {f["version"] for f in findings if f["package"] == "bash"} == {installed["bash"]}
    assert {f["kernel"] for f in findings if f["what"] == "unlicensed"} == \
        {f"host{i}" for i in range(N)} - set(licensed) - {"host7"}
    # a new policy is a file and a carrier: the program is the same, and so is the process
    with open(KERNEL, "rb") as f:
        assert hashlib.sha256(f.read()).hexdigest() == before
    assert fleet.processes("host3", "tos-kernel") == pids


def test_versions_are_compared_as_dpkg_does(fleet, installed):
    version = installed["dpkg"]
    cases = ["1.0", "99:1.0", version, version + "~rc1", version + "+b1", version + ".1", "0:" + version, "1:" + version,
             "1.9", "1.10", "1.22.6~", "1.22.6a", "2", "1.22.06", "1.22.", "1.22+dfsg-1", "1.22-1~bpo12+1", "a", "~"]
    names = sorted(installed)[:len(cases)]
    rows, findings, _ = sweep(fleet, {"minimum": dict(zip(names, cases))}, "--path", "host0")
    outdated = {f["package"] for f in findings}
    for name, least in zip(names, cases):
        lt = subprocess.run(["dpkg", "--compare-versions", installed[name], "lt", least], stderr=subprocess.DEVNULL)
        assert (name in outdated) == (lt.returncode == 0), (name, installed[name], least)


def test_the_readme_shows_what_there_is(fleet):
    with open(SWEEP + "/policy.json") as f:
        policy = json.load(f)["POLICY"][0]
    with open(SWEEP + "/README.md") as f:
        shown = re.findall(r"^(host\d+) .* (\d+) +\d+ +(\d+)$", f.read(), flags=re.M)
    rows, _, _ = sweep(fleet, policy, "--path", ",".join(h for h, _, _ in shown))
    assert [(r["kernel"], str(int(r["outdated"])), str(int(r["unlicensed"]))) for r in rows] == shown
    r = subprocess.run(["sh", "-n", SWEEP + "/sweep"], capture_output=True, text=True)
    assert r.returncode == 0, r.stderr
