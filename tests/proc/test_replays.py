"""Hand-offs that a peer with a valid certificate sends twice, again, too late, or in the wrong order: each is taken at most
once, gets the answer that it got before, and harms nobody else.

host2's key is in the hands of this test (rogue.py); host3 takes carriers as they come, host4 asks their home first.
"""
import os
import time

import pytest

import wire
from conftest import fleet_fixture
from fleet import DEADLINE, KERNEL, QUICK, events, wait_for
from rogue import audit, fixtures as rogue_fixtures

pytestmark = pytest.mark.skipif(not os.path.exists(KERNEL), reason="TOS_BUILD names no build with tos-kernel")
CONF = {"timing": {**QUICK["timing"], "silent": "10s"}, "clock": {"skew": "1s"}}
fleet = fleet_fixture(n=5, conf=CONF, each={"host4": "policy { confirm = true }\n"})
WAITS = "function begin(self) if tos.kernel() ~= 'host0' then tos.inbox('on'):next(3600) end end\n"


domain, rogue = rogue_fixtures()


@pytest.fixture(autouse=True)
def others_are_unharmed(fleet, rogue):
    """An honest carrier waits at host1 all the while, and goes on when the test is over."""
    honest = fleet.launch(WAITS, "--path", "host1,host3,host0")
    wait_for(lambda: "host1" in fleet.residents(honest), text="it waits at host1")
    yield
    said = []

    def on():
        at = list(fleet.residents(honest))
        if at and at != said[-1:]:
            fleet.tos("post", f"{honest}/on", "on")
            said[:] = at
        return fleet.state(honest) == "finished"
    wait_for(on, text="the honest one goes on")
    assert events(fleet.outcome(honest), "arrived") == ["host1", "host3", "host0"]


def at_host2(domain, rogue, *then, **changes):
    """A carrier that has come to host2, as its home knows; it would go on to these."""
    carol = domain.principal("carol")
    with domain.client() as c:
        _, got = wire.launch(c, carol, carol, path=["host2", *then], source=WAITS, **changes)
    assert rogue.take() == got["name"]
    rogue.report(got["name"], n=1, state="running", in_doubt=False)
    return got["name"]


def send(rogue, kernel, record):
    return rogue.tell(kernel, "Handoff", "SEND", **record)


def arrived(domain, kernel, name):
    return [r for r in audit(domain, kernel, "arrived") if r["carrier"] == name]


def refused(domain, kernel, code):
    return [r for r in audit(domain, kernel, "arrival-refused") if r["from"] == "host2" and r["code"] == code]


def only_at(fleet, name, kernel):
    wait_for(lambda: list(fleet.residents(name)) == [kernel] and fleet.show(name)["kernel"] == kernel,
             text=f"{name} is at {kernel} only")


def ended(fleet, name):
    wait_for(lambda: not fleet.residents(name), text="no copy is left")


def same(a, b):
    """Answers but for the sender's own position in its store."""
    return {k: v for k, v in a.items() if k != "store"} == {k: v for k, v in b.items() if k != "store"}


def test_the_same_hand_off_twice_at_once_and_again_later(fleet, domain, rogue):
    name = at_host2(domain, rogue, "host1", "host3")
    record = rogue.record(name, "host1", 1)
    c = rogue.link("host1")
    tags = [c.tag + 1, c.tag + 2]
    c.tag += 2
    for tag in tags:
        c.post("host1/Handoff", "SEND", record, kind=wire.CALL, sender="host2/Kernel", tag=tag)
    answers, end = {}, time.monotonic() + DEADLINE
    while len(answers) < 2:
        f = c.frame(end - time.monotonic())
        if f[0] == wire.POST and f[1] in (wire.ANSWER, wire.FAILURE) and f[4] in tags:
            answers[f[4]] = f[7]
    first, second = (folder[1][0] for folder in answers.values())
    assert first["answer"] == "accepted" and same(first, second), answers
    assert same(send(rogue, "host1", record), first)
    rogue.unlink("host1")
    assert same(send(rogue, "host1", record), first)
    only_at(fleet, name, "host1")
    assert len(arrived(domain, "host1", name)) == 1
    # after the kernel's death: its journal answers
    fleet.kill("host1")
    wait_for(lambda: fleet.status("host1"), text="host1 is back")
    rogue.unlink("host1")
    assert same(send(rogue, "host1", record), first)
    only_at(fleet, name, "host1")
    # after it has moved on
    fleet.tos("post", f"{name}/on", "on")
    only_at(fleet, name, "host3")
    repeated = fleet.metric("host1", "tos_answers_repeated_total")
    assert same(send(rogue, "host1", record), first)
    assert fleet.metric("host1", "tos_answers_repeated_total") == repeated + 1
    only_at(fleet, name, "host3")
    # the same to whom it does not name
    assert wire.failure(send, rogue, "host3", record).code == "denied"
    wait_for(lambda: [r for r in audit(domain, "host3", "hop-record-refused") if r["from"] == "host2"], text="it is audited")
    only_at(fleet, name, "host3")
    # after its end
    fleet.tos("post", f"{name}/on", "on")
    o = fleet.outcome(name)
    assert o["state"] == "finished"
    assert same(send(rogue, "host1", record), first)
    ended(fleet, name)
    assert fleet.outcome(name) == o
    assert len(arrived(domain, "host1", name)) == 1 and len(arrived(domain, "host3", name)) == 1


def test_two_records_in_the_wrong_order(fleet, domain, rogue):
    name = at_host2(domain, rogue, "host1")
    early, late = rogue.record(name, "host1", 1), rogue.record(name, "host1", 2)
    assert send(rogue, "host1", late)["answer"] == "accepted"
    answer = send(rogue, "host1", early)
    assert answer["answer"] == "refused" and answer["code"] == "replayed", answer
    assert same(send(rogue, "host1", early), answer) and send(rogue, "host1", late)["answer"] == "accepted"
    only_at(fleet, name, "host1")
    assert len(arrived(domain, "host1", name)) == 1
    assert [r["carrier"] for r in refused(domain, "host1", "replayed")] == [name]
    fleet.tos("post", f"{name}/on", "on")
    assert fleet.outcome(name)["state"] == "finished"


@pytest.mark.parametrize("kernel", ["host3", "host4"])
def test_one_that_was_held_back_until_its_carrier_had_ended(fleet, domain, rogue, kernel):
    name = at_host2(domain, rogue, kernel)
    held = rogue.record(name, kernel, 1)
    outcome = rogue.record(name, "host0", 2, kind=1)
    first = send(rogue, "host0", outcome)
    assert first["answer"] == "accepted", first
    o = fleet.outcome(name)
    assert o["state"] == "finished"
    assert same(send(rogue, "host0", outcome), first)
    answer = send(rogue, kernel, held)
    if kernel == "host4":  # asks first
        assert answer["answer"] in ("refused", "superseded"), answer
        assert not arrived(domain, kernel, name)
    again = send(rogue, kernel, held)
    assert same(again, answer)
    ended(fleet, name)
    assert len(arrived(domain, kernel, name)) <= 1 and fleet.outcome(name) == o
    assert len([r for r in audit(domain, "host0", "finished") if r["carrier"] == name]) == 1


def test_one_that_was_held_back_until_its_ticket_had_expired(fleet, domain, rogue):
    expires = wire.now_ms() + 4000
    name = at_host2(domain, rogue, "host3", expires=expires)
    held = rogue.record(name, "host3", 1)
    wait_for(lambda: wire.now_ms() > expires + 1500)
    answer = send(rogue, "host3", held)
    assert answer["answer"] == "refused" and answer["code"] == "expired", answer
    assert same(send(rogue, "host3", held), answer)
    assert not arrived(domain, "host3", name)
    row, = refused(domain, "host3", "expired")
    assert name in (row["carrier"], row.get("claims")) and len(row["id"]) == 64
    ended(fleet, name)
