"""What a kernel can make of a carrier that may be cloned when its key is in the hands of somebody else: no more clones, and
no more of any budget, than the carrier had."""
import itertools
import os

import pytest

import wire
from conftest import fleet_fixture
from fleet import KERNEL, QUICK, wait_for
from rogue import audit, digests, ident, payload, fixtures as rogue_fixtures

pytestmark = pytest.mark.skipif(not os.path.exists(KERNEL), reason="TOS_BUILD names no build with tos-kernel")
CONF = {"timing": {**QUICK["timing"], "silent": "10s"}}
fleet = fleet_fixture(n=4, conf=CONF)

WAITS = "function begin(self) tos.inbox('done'):next(3600) end\n"
BUDGET = {"cpu": 10000, "hops": 64, "sent": 64 << 20, "clones": 4}
# An answer to one departure is repeated: each that is tried is another clone.
numbers = itertools.count(1)
SMALL = {"cpu": 1000, "hops": 5, "sent": 1000, "clones": 0}


domain, rogue = rogue_fixtures("host0")


def take(domain, rogue):
    """A carrier that may be cloned four times, at host2."""
    with domain.client() as client:
        _, got = wire.launch(client, domain.principal("carol"), domain.principal("carol"), path=["host2", "host1"], source=WAITS,
                             limits={**wire.LIMITS, "clones": 4})
    name = rogue.take()
    assert name == got["name"]
    rogue.report(name, n=1, state="running", in_doubt=False)
    return name


@pytest.fixture
def taken(fleet, domain, rogue):
    name = take(domain, rogue)
    yield name
    fleet.run("kill", name, "--family")


@pytest.fixture(scope="module")
def unborn(domain, rogue):
    """One of which nothing that is tried is ever made."""
    return take(domain, rogue)


def birth(rogue, name, born_as, split, prev=None, **changes):
    """The birth record of a clone as host2 would sign it, and the envelope that goes with it."""
    hop, envelope, _ = rogue.sent[name]
    hops = [*envelope["hops"], hop]
    root = ident(envelope["ticket"])
    born = {**envelope, "hops": hops, "counters": {"launched": envelope["counters"]["launched"]}, "path": envelope["path"][1:]}
    record = wire.sign(rogue.key, "hop", {
        "id": wire.sha(root + born_as.encode()), "suffix": born_as, "e": [0, bytes(8)], "n": 0, "from": "host2",
        "dest": "host2", "kind": 2, "parts": digests(born), "prev": prev or wire.sha(hop), "time": wire.now_ms(), "split": split, **changes})
    return record, {**born, "hops": [*hops, record]}


def send(rogue, name, record, envelope, dest="host1", **changes):
    """The clone goes to host1; the answer."""
    p = payload(record)
    hop = wire.sign(rogue.key, "hop", {
        "id": p["id"], "suffix": p["suffix"], "e": [0, bytes(8)], "n": 1, "from": "host2", "dest": dest, "kind": 0,
        "parts": digests(envelope), "prev": wire.sha(record), "time": wire.now_ms(), **changes})
    return rogue.tell(dest, "Handoff", "SEND", hop=hop, envelope=wire.det(envelope), code=rogue.sent[name][2])


def cloned(rogue, name, suffix, records):
    """CLONED to the home; the failure, or None."""
    try:
        rogue.tell("host0", "Home", "CLONED", name=name + suffix, id=payload(records[-1])["id"], birth=records)
    except wire.Failure as e:
        return e.code
    return None


def known(fleet, name):
    """Its clones that the home knows; tos show would ask host2."""
    return sorted(n for n in fleet.ps("host0") if n.startswith(name + "."))


def test_an_honest_birth_is_taken_and_the_home_learns_of_it(fleet, rogue, taken):
    record, envelope = birth(rogue, taken, ".1", SMALL)
    assert send(rogue, taken, record, envelope)["answer"] == "accepted"
    wait_for(lambda: known(fleet, taken) == [f"{taken}.1"])
    limits = fleet.show(f"{taken}.1")["limits"]
    assert {k: limits[k] for k in SMALL} == SMALL
    assert cloned(rogue, taken, ".1", [rogue.sent[taken][0], record]) is None  # said again


@pytest.mark.parametrize("what", list(BUDGET))
def test_no_clone_has_more_than_its_parent(fleet, rogue, unborn, what):
    suffix = f".{next(numbers)}"
    record, envelope = birth(rogue, unborn, suffix, {**SMALL, what: BUDGET[what] + (0 if what == "clones" else 1)})
    answer = send(rogue, unborn, record, envelope)
    assert answer["answer"] == "refused" and answer["code"] == "limit" and "more than its parent had" in answer["text"]
    assert cloned(rogue, unborn, suffix, [rogue.sent[unborn][0], record]) == "denied"
    assert known(fleet, unborn) == []


def test_all_together_have_no_more_either(fleet, domain, rogue, taken):
    """host1 cannot know what the sister got: the home does."""
    for n, split in enumerate([{**SMALL, "clones": 1}, {**SMALL, "clones": 1}], 1):
        record, envelope = birth(rogue, taken, f".{n}", split)
        assert send(rogue, taken, record, envelope)["answer"] == "accepted"
    wait_for(lambda: len(known(fleet, taken)) == 2)
    before = fleet.metric("host0", "tos_clones_denied_total")
    for suffix, split in ((".3", SMALL), (".4", {**SMALL, "clones": 2}), (".5", {**SMALL, "hops": 60})):
        record, envelope = birth(rogue, taken, suffix, split)
        assert send(rogue, taken, record, envelope)["answer"] == "accepted"
        wait_for(lambda s=suffix: not fleet.residents(taken + s), text="it is ended again")
    assert known(fleet, taken) == [f"{taken}.1", f"{taken}.2"]
    assert fleet.metric("host0", "tos_clones_denied_total") >= before + 3
    found = [r for r in audit(domain, "host0", "cloning-refused") if r["parent"] == taken]
    assert {r["suffix"] for r in found} == {".3", ".4", ".5"} and found[-1]["from"] == "host2"


def test_one_name_is_one_clone(fleet, rogue, taken):
    record, envelope = birth(rogue, taken, ".1", SMALL)
    assert send(rogue, taken, record, envelope)["answer"] == "accepted"
    wait_for(lambda: known(fleet, taken) == [f"{taken}.1"])
    other, envelope = birth(rogue, taken, ".1", {**SMALL, "hops": 6})
    assert cloned(rogue, taken, ".1", [rogue.sent[taken][0], other]) == "denied"
    assert send(rogue, taken, other, envelope, dest="host3")["answer"] == "accepted"  # it can't know better
    wait_for(lambda: list(fleet.residents(f"{taken}.1")) == ["host1"])


@pytest.mark.parametrize("changes", [
    {"suffix": ".1.1"}, {"suffix": ""}, {"id": bytes(32)}, {"dest": "host1"}, {"from": "host1", "dest": "host1"}, {"n": 3},
    {"e": [1, bytes(8)]}, {"prev": bytes(32)}, {"kind": 0}, {"split": {"cpu": 1}}, {"split": {**SMALL, "memory": 1}},
], ids=lambda c: ",".join(c))
def test_a_birth_record_that_does_not_fit_is_refused(fleet, rogue, unborn, changes):
    changes = {"prev": None, **changes}
    prev = changes.pop("prev")
    split = changes.pop("split", SMALL)
    suffix = f".{next(numbers)}"
    record, envelope = birth(rogue, unborn, suffix, split, prev=prev, **changes)
    answer = send(rogue, unborn, record, envelope)
    assert answer["answer"] == "refused" and answer["code"] in ("bad-signature", "malformed"), answer
    assert cloned(rogue, unborn, suffix, [rogue.sent[unborn][0], record]) == "denied"
    assert known(fleet, unborn) == []


def test_nobody_makes_clones_of_what_it_never_had(fleet, domain, rogue, unborn):
    name = fleet.launch(WAITS, "--path", "host1", "--limit", "clones=4")
    fleet.wait_state(name, "running")
    _, mine, code = rogue.sent[unborn]
    with domain.client() as c:
        other = c.call("host0/Control", "SHOW", {"name": name})
    root = bytes.fromhex(other["id"])
    record = wire.sign(rogue.key, "hop", {
        "id": wire.sha(root + b".1"), "suffix": ".1", "e": [0, bytes(8)], "n": 0, "from": "host2", "dest": "host2", "kind": 2,
        "parts": {}, "prev": bytes(32), "time": wire.now_ms(), "split": SMALL})
    assert cloned(rogue, name, ".1", [record]) == "denied"
    assert cloned(rogue, name, ".1", [rogue.sent[unborn][0], record]) == "denied"
    assert cloned(rogue, "host0#99999", ".1", [record]) == "not-found"
    assert known(fleet, name) == []
    fleet.tos("kill", name)
