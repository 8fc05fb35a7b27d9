"""tos-vm processes that are made ahead of their carriers (limits.spare_vms), where each has its own (limits.vm_carriers)."""
import pytest

from fleet import Fleet, wait_for


@pytest.fixture(scope="module")
def fleet():
    with Fleet(1, {"limits": {"vm_carriers": "1"}}) as f:
        yield f


def launch(fleet, n):
    for _ in range(n):
        assert fleet.outcome(fleet.launch("return 1"))["state"] == "finished"


def used(fleet):
    return fleet.metric("host0", "tos_vms_spare_used_total")


def test_carriers_that_come_one_after_the_other_find_one_ready(fleet):
    before = used(fleet)
    launch(fleet, 4)
    assert used(fleet) > before


def test_one_that_died_is_not_given_to_a_carrier(fleet):
    launch(fleet, 2)
    wait_for(lambda: fleet.processes("host0", "tos-vm"), text="a spare tos-vm")
    assert fleet.kill("host0", "tos-vm") > 0
    wait_for(lambda: "label=spare" in fleet.log_text("host0"))
    launch(fleet, 3)


def test_a_carrier_with_other_limits_gets_its_own(fleet):
    launch(fleet, 2)
    before = used(fleet)
    name = fleet.tos("launch", "-e", "return 1", "--limit", "memory=3M").strip()
    assert fleet.outcome(name)["state"] == "finished"
    assert used(fleet) == before


def test_an_idle_kernel_has_none(fleet):
    launch(fleet, 2)
    wait_for(lambda: not fleet.processes("host0", "tos-vm"))


def test_none_are_made_where_that_is_switched_off():
    with Fleet(1, {"limits": {"spare_vms": "0"}}) as f:
        launch(f, 3)
        assert used(f) == 0
        wait_for(lambda: not f.processes("host0", "tos-vm"))
