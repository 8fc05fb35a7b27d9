"""The small profile (meson -Dsmall=true): built, measured, and its node takes in and runs carriers with 18 MiB of
address space for its kernel (GEN-4)."""
import os
import shutil
import subprocess

import pytest

from fleet import BUILD, TOS, Fleet

TOP = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", ".."))
MIB = 18
pytestmark = pytest.mark.skipif(os.environ.get("TOS_SANITIZE") == "1" or not shutil.which("meson"),
                                reason="sizes say nothing with sanitizers; or no meson")


@pytest.fixture(scope="module")
def small():
    """A build tree of its own beside this one, kept for the next time: what runs on a node. The command, which is no
    smaller, is this build's; it looks for the others where it lies."""
    tree = os.path.join(BUILD, "small-profile")
    env = dict(os.environ, CC=("ccache cc" if shutil.which("ccache") else "cc"))
    if not os.path.exists(os.path.join(tree, "build.ninja")):
        subprocess.run(["meson", "setup", tree, TOP, "-Dsmall=true", f"-Dsmall_mib={MIB}", "-Dtests=disabled",
                        "-Ddebug=false"], env=env, check=True, capture_output=True, timeout=120)
    r = subprocess.run(["ninja", "-C", tree, "node"], env=env, capture_output=True, text=True, timeout=550)
    assert r.returncode == 0 and "warning:" not in r.stdout, r.stdout[-3000:]
    shutil.copy2(TOS, os.path.join(tree, "src/cli/tos"))
    return tree


@pytest.fixture(scope="module")
def fleet(small):
    with Fleet(2, tos=os.path.join(small, "src/cli/tos")) as f:
        yield f
        f.tos("down", timeout=120)


def kib(pid, *keys):
    with open(f"/proc/{pid}/status") as f:
        s = dict(line.split(":", 1) for line in f if ":" in line)
    return [int(s[k].split()[0]) for k in keys]


def test_it_is_small(small):
    sizes = {}
    for name in ("tosd/tosd", "kernel/tos-kernel", "vm/tos-vm", "ext/tos-ext"):
        out = os.path.join(small, "stripped")
        subprocess.run(["strip", "-o", out, os.path.join(small, "src", name)], check=True)
        sizes[name] = os.path.getsize(out)
    print(sizes)
    assert sizes["kernel/tos-kernel"] < 850 << 10 and sum(sizes.values()) < 2750 << 10, sizes


def test_its_node_takes_in_and_runs_a_carrier_in_little_address_space(fleet):
    for k in fleet.names:
        pid = fleet.pid(k, "tos-kernel")
        with open(f"/proc/{pid}/limits") as f:
            bound = next(line.split()[3] for line in f if line.startswith("Max address space"))
        assert int(bound) == MIB << 20
    o = fleet.outcome(fleet.tos("launch", "facts", "--path", "@all").strip())
    assert o["state"] == "finished" and [r["kernel"] for r in o["briefcase"]["RESULTS"]] == ["host0", "host1"], o
    names = [fleet.launch("self.x = string.rep('x', 50000) tos.post('Echo', 'hi') return #self.x", "--path", "host1,host0")
             for _ in range(5)]
    for name in names:
        assert fleet.outcome(name)["state"] == "finished"
    for k in fleet.names:
        peak, resident = kib(fleet.pid(k, "tos-kernel"), "VmPeak", "VmRSS")
        print(k, "address space", peak, "KiB, resident", resident, "KiB")
        assert peak <= MIB << 10 and resident < 14 << 10
    assert fleet.get("host0", "/limits/state") == {"/limits/state": 128 << 10}


def test_what_does_not_fit_is_refused_and_the_kernel_stays(fleet):
    pid = fleet.pid("host0", "tos-kernel")
    o = fleet.outcome(fleet.launch("self.x = string.rep('x', 200000) tos.checkpoint()"), expect=1)
    assert o["fault"]["code"] == "limit" and "limit state" in o["fault"]["text"], o["fault"]
    assert fleet.status("host0") and fleet.pid("host0", "tos-kernel") == pid
