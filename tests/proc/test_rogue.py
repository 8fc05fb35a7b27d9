"""A kernel with a valid certificate that turned bad: it had a carrier, or only knows its name, and says what is not so.

host2's key is in the hands of this test (class Rogue); host3 takes carriers as they come, host4 asks their home first.
"""
import os

import pytest

import wire
from conftest import fleet_fixture
from fleet import KERNEL, QUICK, wait_for
from rogue import Rogue, audit, digests, ident, payload, fixtures as rogue_fixtures

pytestmark = pytest.mark.skipif(not os.path.exists(KERNEL), reason="TOS_BUILD names no build with tos-kernel")
CONF = {"timing": {**QUICK["timing"], "silent": "10s"}}
fleet = fleet_fixture(n=5, rests=True, conf=CONF, each={"host4": "policy { confirm = true }\n"})

WAITS = "function begin(self) tos.inbox('done'):next(3600) end\n"


domain, rogue = rogue_fixtures("host0")


@pytest.fixture
def client(domain):
    with domain.client() as c:
        yield c


def passed_through(fleet, domain, client, rogue):
    """A carrier that came to host1 through host2, and that its home knows to be there."""
    _, got = wire.launch(client, domain.principal("carol"), domain.principal("carol"), path=["host2", "host1"], source=WAITS)
    name = rogue.take()
    assert name == got["name"]
    rogue.report(name, n=1, state="running", in_doubt=False)
    assert payload(rogue.sent[name][0])["parts"] == digests(rogue.sent[name][1])
    assert rogue.depart(name, "host1", 1)["answer"] == "accepted"
    wait_for(lambda: fleet.show(name)["kernel"] == "host1" and "host1" in fleet.residents(name))
    return name


def test_a_second_departure_of_an_old_copy_is_ended_when_the_homes_hear_of_it(fleet, domain, client, rogue):
    name = passed_through(fleet, domain, client, rogue)
    forks = fleet.metric("host0", "tos_home_forks_total")
    assert rogue.depart(name, "host3", 2)["answer"] == "accepted"  # it can't know better
    wait_for(lambda: fleet.metric("host0", "tos_home_forks_total") > forks)
    wait_for(lambda: list(fleet.residents(name)) == ["host1"])
    assert fleet.residents(name)["host1"]["state"] == "running" and fleet.show(name)["kernel"] == "host1"
    found = audit(domain, "host0", "forked")[-1]
    assert found["carrier"] == name and found["from"] == "host3" and found["signed_by"] == "host2"
    # the same number again, to a third: it is no later than what the home knows
    assert rogue.depart(name, "host3", 1)["answer"] in ("accepted", "refused")
    wait_for(lambda: list(fleet.residents(name)) == ["host1"])
    fleet.tos("kill", name)
    fleet.wait_state(name, "killed")


def test_a_host_that_asks_first_never_starts_such_a_copy(fleet, domain, client, rogue):
    name = passed_through(fleet, domain, client, rogue)
    answer = rogue.depart(name, "host4", 2)
    assert answer["answer"] == "refused" and answer["code"] == "replayed", answer
    assert not [r for r in audit(domain, "host4", "arrived") if r["carrier"] == name]
    assert list(fleet.residents(name)) == ["host1"]
    # and an honest one it takes
    other = fleet.launch("function begin(self) tos.log(tos.kernel()) end", "--path", "host4,host1")
    assert fleet.outcome(other)["state"] == "finished"
    fleet.tos("kill", name)
    fleet.wait_state(name, "killed")


def test_the_home_itself_takes_none_of_them(fleet, domain, client, rogue):
    name = passed_through(fleet, domain, client, rogue)
    answer = rogue.depart(name, "host0", 2)
    assert answer["answer"] == "refused" and answer["code"] == "replayed", answer
    # nor does it believe an outcome, a departure, or an end
    rogue.depart(name, "host0", 3, kind=1)
    rogue.report(name, "GONE", n=7, dest="host3")
    rogue.report(name, "ENDED", state="killed", why="x")
    rogue.report(name, n=9, state="running", in_doubt=False)
    assert fleet.show(name)["kernel"] == "host1" and fleet.state(name) == "running"
    fleet.tos("kill", name)
    fleet.wait_state(name, "killed")


def test_what_was_never_there_can_not_be_made_void(fleet, domain, client, rogue):
    """VOID for a carrier that is not there is not remembered: it can come later."""
    t, got = wire.launch(client, domain.principal("carol"), domain.principal("carol"), path=["host0", "host3"],
                         source="function begin(self) if tos.kernel() == 'host0' then tos.sleep(1.5) end end\n")
    assert rogue.tell("host3", "Handoff", "VOID", id=ident(t), e=[99, bytes(8)]) == {}
    o = fleet.outcome(got["name"])
    assert o["state"] == "finished"
    assert "host3" in [line["kernel"] for line in o["trail"] if line["event"] == "arrived"]


def test_only_who_has_or_had_a_carrier_tells_its_watchers(fleet, domain, client, rogue):
    name = fleet.launch(WAITS, "--path", "host1")
    wait_for(lambda: "host1" in fleet.residents(name))
    with domain.client() as watcher:
        watcher.call("host0/Control", "WATCH", {"name": name})
        ignored = fleet.metric("host0", "tos_home_reports_ignored_total")
        rogue.link("host0").post("host0/Home", "EVENT", {"name": name, "kind": "log", "text": "forged", "kernel": "host1",
                                                         "wall": 1}, sender="host2/Kernel")
        wait_for(lambda: fleet.metric("host0", "tos_home_reports_ignored_total") > ignored)
        watcher.call("host0/Control", "STATUS", {})
        assert not [f for f in watcher.seen if "forged" in str(f)]
    fleet.tos("kill", name)


def test_a_flood_of_what_is_refused_writes_few_rows(fleet, domain, client, rogue):
    name = passed_through(fleet, domain, client, rogue)
    before = len(audit(domain, "host3", "arrival-refused"))
    c, n = rogue.link("host3"), 400
    hop, envelope, _ = rogue.sent[name]
    codes = {}
    for i in range(n):
        record = wire.sign(rogue.key, "hop", {**payload(hop), "n": 100 + i, "from": "host2", "dest": "host3",
                                              "prev": bytes(32)})
        try:
            a = c.call("host3/Handoff", "SEND", {"hop": record, "envelope": b"x"}, sender="host2/Kernel")
            codes[a["answer"]] = codes.get(a["answer"], 0) + 1
        except wire.Failure as e:
            codes[e.code] = codes.get(e.code, 0) + 1
    assert codes.get("full", 0) > 0 and codes.get("refused", 0) > 0 and sum(codes.values()) == n, codes
    rows = len(audit(domain, "host3", "arrival-refused")) - before
    assert 0 < rows < n / 2, rows
    assert fleet.metric("host3", "tos_audit_rows_dropped_total") > 0
    # others are not held up by it
    assert fleet.outcome(fleet.launch("return {1}", "--path", "host3"))["state"] == "finished"
    fleet.tos("kill", name)
    fleet.wait_state(name, "killed")
