"""A tos-vm that somebody has broken into: what it says on descriptor 3 ends it, or is refused, and harms nobody else.

An installed tree with liar.c in the place of tos-vm; kernels, tosd and sandbox are the real ones. Every system call that
such a process could try is in test_tosd.py.
"""
import os
import shutil

import pytest

from fleet import BUILD, KERNEL, SANITIZED, Fleet, installed, wait_for

DEADLINE = 100 if SANITIZED else 20

LIAR = os.path.join(BUILD, "tests/proc/liar")
pytestmark = pytest.mark.skipif(not os.path.exists(KERNEL) or not os.path.exists(LIAR), reason="TOS_BUILD names no build with liar")

BYTES = range(1, 8)  # garbage, lengths, encodings
MEANING = range(20, 35)  # well-formed frames that mean what they must not
MUCH = range(50, 57)  # allowed, and far too much; or policy refuses it
CONF = {"limits": {"inbox": "64", "state": "256K", "lifetime": "120s"}}


@pytest.fixture(scope="module")
def fleet():
    root, tos = installed(LIAR)
    try:
        with Fleet(n=2, conf=CONF, tos=tos) as f:
            f.tos("principal", "add", "neighbour", "--role", "owner,author")
            f.tos("principal", "add", "halfway", "--role", "owner,author")
            yield f
    finally:
        shutil.rmtree(root, ignore_errors=True)


def launch(fleet, lie, *args):
    """It never runs as Lua: only its number is read."""
    return fleet.launch(f"function begin(self) end -- LIE:{lie} {os.urandom(4).hex()}\n", *args)


@pytest.fixture
def neighbour(fleet):
    """A carrier of another owner that waits meanwhile, and one more that comes later."""
    name = launch(fleet, 70, "--as", "neighbour")
    fleet.wait_state(name, "running")
    kernel = fleet.pid("host0", "tos-kernel")
    yield name
    assert fleet.pid("host0", "tos-kernel") == kernel, "the kernel is another one"
    assert fleet.state(name) == "running"
    fleet.tos("post", f"{name}/x", "go")
    assert fleet.outcome(name, timeout=f"{DEADLINE}s")["state"] == "finished"
    assert fleet.outcome(launch(fleet, 0, "--as", "neighbour"), timeout=f"{DEADLINE}s")["state"] == "finished"


def test_the_stand_in_is_taken_for_a_tos_vm(fleet, neighbour):
    o = fleet.outcome(launch(fleet, 0))
    assert o["state"] == "finished" and o["fault"] is None


def settled(fleet, name):
    """Ended, or kept as faulted; whatever else it does it can be killed."""
    return fleet.state(name) in ("faulted", "finished", "killed", "lost")


def test_garbage_on_its_descriptor_ends_that_process_only(fleet, neighbour):
    refused = fleet.metric("host0", "tos_vm_frames_refused_total")
    for lie in BYTES:
        # half a frame, and then nothing: whatever shares that process never goes on; so it is another owner's
        name = launch(fleet, lie, *(["--as", "halfway"] if lie == 6 else []))
        if lie == 6:
            fleet.wait_state(name, "running")
        else:
            wait_for(lambda name=name: settled(fleet, name), deadline=DEADLINE, text=f"LIE:{lie} is over")
            assert fleet.state(name) == "faulted", lie
        fleet.tos("kill", name)
        fleet.wait_state(name, "killed")
    assert fleet.metric("host0", "tos_vm_frames_refused_total") >= refused + len(BYTES) - 1


def test_frames_that_mean_what_they_must_not_end_that_process_only(fleet, neighbour):
    said = {}
    for lie in MEANING:
        name = launch(fleet, lie)
        try:
            wait_for(lambda name=name, lie=lie: settled(fleet, name) or (lie in QUIET and fleet.state(name) == "running"),
                     deadline=3, text=f"LIE:{lie} is over")
        except AssertionError:
            pass
        said[lie] = fleet.state(name)
        assert said[lie] != "finished" or lie in (22, 25), said
        fleet.run("kill", name)
        wait_for(lambda name=name: fleet.state(name) in ("killed", "finished"), deadline=DEADLINE)
    print(said)
    assert fleet.state(neighbour) == "running"


# What is taken for news of a carrier that runs on: nothing was gained by it.
QUIET = {26, 27, 28, 31, 32, 33, 34}


def test_too_much_of_what_is_allowed_meets_its_limits(fleet, neighbour):
    for lie in MUCH:
        name = launch(fleet, lie)
        wait_for(lambda name=name: settled(fleet, name) or fleet.state(name) == "running", text=f"LIE:{lie} is seen")
        assert fleet.run("ps", "--timeout", "5s").returncode == 0  # it is served meanwhile
        if lie == 53:  # it asked to go where its path does not lead, was refused, and does nothing more
            assert not settled(fleet, name)
            fleet.tos("kill", name)
        wait_for(lambda name=name: settled(fleet, name), deadline=DEADLINE, text=f"LIE:{lie} is over")
        o = fleet.json("wait", name, "--timeout", f"{DEADLINE}s", expect=0 if fleet.state(name) == "finished" else 1)
        assert len(str(o)) < 2 << 20, lie
        assert "host1" not in [t["kernel"] for t in o["trail"]], lie  # nor did it go where no path leads
        fleet.run("kill", name)
    assert not fleet.json("ps", "--kernel", "host1") or all(r["kernel"] != "host1" for r in fleet.json("ps", "--kernel", "host1"))


def test_one_that_goes_away_or_never_stops_is_over_by_a_kill(fleet, neighbour):
    for lie in (71, 72):
        name = launch(fleet, lie)
        wait_for(lambda name=name: settled(fleet, name))
        assert fleet.state(name) == "faulted"
        fleet.tos("kill", name)
    name = launch(fleet, 73)
    wait_for(lambda: fleet.state(name) in ("running", "faulted"))
    fleet.tos("kill", name)
    fleet.wait_state(name, "killed")
    wait_for(lambda: len([p for p in fleet.processes("host0", "tos-vm")]) < 12)
