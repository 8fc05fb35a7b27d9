"""examples/sweep: one carrier over fifty kernels, a report for each; nothing is changed but what travels."""
import hashlib
import json
import os
import re
import subprocess

import pytest

from conftest import fleet_fixture
from fleet import BUILD, KERNEL

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


# ---- the doorknob's sensors, on thirty of them

DOORKNOB = os.path.join(TOP, "examples/doorknob")
WATCHED = [f"host{i}" for i in range(10, 40)]


def deploy(fleet, sensor, chains, expect):
    """Until each host says so: the time, and the panel's last word."""
    correlator = fleet.tos("content", "put", os.path.join(BUILD, "examples/doorknob-correlator")).split()[0]
    panel = subprocess.Popen(
        [os.path.join(BUILD, "examples/doorknob-panel"), "--sensor", sensor, "--correlator", correlator, "--carriers", DOORKNOB,
         "--chains", str(chains), "--for", "60", *WATCHED, "--", "1000"], env=fleet.env, stdout=subprocess.PIPE, text=True)
    said = {}
    for line in panel.stdout:
        at, host, state = line.split()[:3]
        if host == "-":
            continue
        said[host] = (state, float(at))
        if len(said) == len(WATCHED):
            break
    panel.terminate()
    last = panel.communicate(timeout=60)[0].splitlines()[-1]
    assert {state for state, _ in said.values()} == {expect}, said
    return max(at for _, at in said.values()), last


def test_the_trusted_host_serves_as_many_as_there_are_chains(fleet, tmp_path, capsys):
    took, served = {}, {}
    for chains in (3, len(WATCHED)):
        sensor = tmp_path / f"sensor{chains}"  # any program; one of its own each time, so that nobody has it
        with open("/bin/sleep", "rb") as f:
            sensor.write_bytes(f.read() + os.urandom(1 << 20))
        sensor.chmod(0o755)
        digest = fleet.tos("content", "put", str(sensor)).split()[0]
        before = fleet.metric("host0", "tos_content_read_bytes_total") or 0
        took[chains], last = deploy(fleet, digest, chains, "started")
        served[chains] = (fleet.metric("host0", "tos_content_read_bytes_total") - before) / sensor.stat().st_size
        assert last.startswith("0 alarms; sensors: 30 stopped, 0 missed, 0 failed"), last
    with capsys.disabled():
        print(f"\n30 hosts: {took[3]:.2f} s in 3 chains, {took[30]:.2f} s each from the trusted host, which served "
              f"{served[3]:.0f} and {served[30]:.0f} of them")
    assert round(served[3], 2) == 3 and round(served[30], 2) == 30  # its own word for bytes, so no part was sent again


def test_a_sensor_that_the_trusted_host_does_not_have_runs_nowhere(fleet):
    _, last = deploy(fleet, hashlib.sha256(b"somebody's").hexdigest(), 3, "failed")
    assert last.startswith("0 alarms; sensors: 0 stopped, 0 missed, 30 failed"), last
