"""A tos-vm that hangs with its carriers in it: who is faulted, and who starts again.

An installed tree with hangs.c in the place of tos-vm: the real one, but that table.hang() does not come back. Kernel,
tosd and sandbox are the real ones too. All carriers here are of one owner and one author, so they share their tos-vm.
"""
import os
import shutil

import pytest

from fleet import BUILD, KERNEL, Fleet, events, installed, wait_for

HANGS = os.path.join(BUILD, "tests/proc/hangs")
pytestmark = pytest.mark.skipif(not os.path.exists(KERNEL) or not os.path.exists(HANGS), reason="TOS_BUILD names no build with hangs")

# Waits for a word, and says how often it began: a restart begins again.
WAITS = """function begin(self)
    local inbox = tos.inbox("word")
    tos.log("began")
    while true do
        local mail = inbox:next(120)
        if mail and mail.data == "hang" then table.hang(KIND) end
        if mail and mail.data == "go" then return end
    end
end"""
# Less memory has the kernel give up sooner: what it allows for going over a heap depends on that.
SMALL = ("--limit", "memory=1M")


@pytest.fixture(scope="module")
def fleet():
    root, tos = installed(HANGS)
    try:
        with Fleet(n=1, tos=tos) as f:
            yield f
    finally:
        shutil.rmtree(root, ignore_errors=True)


def waiting(fleet, kind="host"):
    name = fleet.launch(WAITS.replace("KIND", f'"{kind}"'), *SMALL)
    ready(fleet, name)
    return name


def ready(fleet, name):
    """It waits for its word (again)."""
    wait_for(lambda: "inbox" in (fleet.show(name) or {}).get("waiting", "inbox") and fleet.state(name) == "running"
             and fleet.run("post", f"{name}/word", "nothing").returncode == 0, text=f"{name} waits")


def restarts(fleet, name):
    return events(fleet.show(name), "restarted")


def ends(fleet, names):
    for name in names:
        ready(fleet, name)
        fleet.tos("post", f"{name}/word", "go")
        assert fleet.outcome(name)["state"] == "finished"


def test_the_one_that_could_not_be_stopped_is_faulted_and_the_others_start_again(fleet):
    hung = fleet.metric("host0", "tos_vms_hung_total")
    others, culprit = [waiting(fleet), waiting(fleet)], waiting(fleet)
    assert len(fleet.processes("host0", "tos-vm")) <= 2  # theirs, and perhaps a spare one
    fleet.tos("post", f"{culprit}/word", "hang")
    fleet.wait_state(culprit, "faulted")
    assert fleet.show(culprit)["fault"]["text"] == "hung: its tos-vm could not stop it"
    for name in others:
        fleet.wait_state(name, "running")
        assert len(restarts(fleet, name)) == 1
    assert fleet.metric("host0", "tos_vms_hung_total") == hung + 1
    ends(fleet, others)
    fleet.tos("kill", culprit)


# That it took the word "hang" was not said any more: it waits in the inbox of the next run, which hangs, too.

def test_one_that_hangs_without_a_word_is_found_by_its_being_alone(fleet):
    """Nobody is named: all start again; who has seen two deaths, in smaller company; three, alone."""
    hung = fleet.metric("host0", "tos_vms_hung_total")
    others, culprit = [waiting(fleet), waiting(fleet)], waiting(fleet, "deaf")
    fleet.tos("post", f"{culprit}/word", "hang")
    fleet.wait_state(culprit, "faulted")
    assert fleet.show(culprit)["fault"]["text"] == "hung: its tos-vm gave no sign of life"
    assert fleet.metric("host0", "tos_vms_hung_total") - hung == 4
    assert len(restarts(fleet, culprit)) == 3
    for name in others:  # they were with it the first three times
        fleet.wait_state(name, "running")
        assert len(restarts(fleet, name)) == 3
    ends(fleet, others)
    fleet.tos("kill", culprit)


def test_the_second_death_leaves_each_alone_where_few_share(fleet):
    fleet.tos("down", timeout=120)
    fleet.configure("host0", 'limits { vm_carriers = "8" }\n')
    fleet.up()
    carriers = [waiting(fleet, "deaf") for _ in range(4)]
    assert len(fleet.processes("host0", "tos-vm")) <= 3
    fleet.tos("post", f"{carriers[0]}/word", "hang")
    fleet.wait_state(carriers[0], "faulted")
    for name in carriers:
        assert len(restarts(fleet, name)) == 2, name
    ends(fleet, carriers[1:])
    fleet.tos("kill", carriers[0])


def test_many_that_only_compute_are_not_taken_for_one_that_hangs(fleet):
    """Each of a hundred has so little of the processor that it alone would say for seconds nothing of what it has used."""
    hung = fleet.metric("host0", "tos_vms_hung_total")
    lua = """function begin(self)
        tos.inbox("word"):next(120)
        local used = tos.usage().cpu
        while tos.usage().cpu - used < 0.025 do for _ = 1, 10000 do end end
    end"""
    names = [fleet.launch(lua, *SMALL) for _ in range(100)]
    wait_for(lambda: all(fleet.ps()[name]["state"] == "running" for name in names))
    starter = " ".join(f"tos.post('{name}/word', 'go')" for name in names)
    fleet.outcome(fleet.launch(starter))
    wait_for(lambda: all(fleet.ps()[name]["state"] == "finished" for name in names))
    assert not any(events(fleet.show(name), "restarted") for name in names[::10])
    assert fleet.metric("host0", "tos_vms_hung_total") == hung
