"""Short ways of the hand-off: carriers of memory only (--fast), of which a crash at either end may lose one, and never doubles
it; records that are sent without an offer; and those that share a signature."""
import os
import time

import pytest

import wire
from conftest import fleet_fixture
from fleet import BUILD, KERNEL, NOTE, QUICK, events, visited, wait_for

pytestmark = pytest.mark.skipif(not os.path.exists(KERNEL), reason="TOS_BUILD names no build with tos-kernel")
HOOK = os.path.join(BUILD, "tests/proc/ext/hook.so")
EXTENSIONS = "".join(f'extension "{n}" {{ library = "{n.lower()}" where = "kernel" }}\n'
                     for n in ("Echo", "Mobility", "Messenger", "Directory"))
fleet = fleet_fixture(
    n=3, conf={"timing": dict(QUICK["timing"], hook="10m")},
    each={"host2": EXTENSIONS + f'extension "Hook" {{ library = "{HOOK}" where = "kernel" }}\n'})

TOUR = f"function begin(self) {NOTE} end"
STAY = "tos.inbox('go'):next(60)"
# host2 thinks for some seconds about whoever brings a folder HOLD, between the hop record and its answer.
HELD = f"""function begin(self)
    {NOTE}
    if tos.kernel() == "host1" and not tos.briefcase:has("HOLD") then
        tos.inbox("go"):next(60)
        tos.briefcase:folder("HOLD"):push(1)
    end
end"""


def starts(fleet, kernel, name):
    """How often it was started there."""
    return sum(f"carrier={name} " in line + " " and "to=running" in line for line in fleet.log_text(kernel).splitlines())


def lost(fleet, name):
    """It is given up by its home, and there is no copy."""
    o = fleet.outcome(name, expect=1)
    assert o["state"] == "lost", o
    wait_for(lambda: not fleet.residents(name), text="no copy is left")


def on_its_way_to_host2(fleet):
    """A carrier whose record host2 has and has not answered."""
    name = fleet.launch(HELD, "--path", "host1,host2", "--fast")
    wait_for(lambda: fleet.ps("host1").get(name, {}).get("state") == "running")
    fleet.tos("post", f"{name}/go", "on")
    wait_for(lambda: f"holding {name}" in fleet.log_text("host2"), text="host2 holds it")
    return name


def test_it_tours_and_nothing_of_it_is_journaled_on_the_way(fleet):
    before = {k: fleet.metric(k, "tos_moves_total") for k in fleet.names}
    o = fleet.outcome(fleet.launch(TOUR, "--path", "host1,host0,host1,host0,host1", "--fast"))
    assert o["state"] == "finished" and visited(o) == ["host1", "host0", "host1", "host0", "host1"], o
    assert events(o, "arrived") == ["host1", "host0", "host1", "host0", "host1"]
    assert fleet.metric("host1", "tos_moves_total") - before["host1"] == 3  # the outcome too


def test_where_it_lives_dies_and_it_is_lost(fleet):
    name = fleet.launch(STAY, "--path", "host1", "--fast")
    wait_for(lambda: fleet.ps("host1").get(name, {}).get("state") == "running")
    fleet.kill("host1")
    lost(fleet, name)
    assert starts(fleet, "host1", name) == 1


def test_its_home_dies_after_departure_0_and_has_no_copy(fleet):
    name = fleet.launch(f"{STAY} return 5", "--path", "host1", "--fast")
    wait_for(lambda: fleet.ps("host1").get(name, {}).get("state") == "running")
    fleet.kill("host0")
    wait_for(lambda: fleet.status("host0"))
    # Its home may have forgotten the last news; what it hears again is that of host1.
    wait_for(lambda: list(fleet.residents(name)) == ["host1"])
    fleet.tos("post", f"{name}/go", "on")
    o = fleet.outcome(name)
    assert o["state"] == "finished" and o["briefcase"]["RESULTS"][0]["value"] == 5
    assert starts(fleet, "host0", name) <= 1  # departure 0 itself


def test_a_source_that_dies_after_sending_leaves_one_copy(fleet):
    name = on_its_way_to_host2(fleet)
    fleet.kill("host1")
    o = fleet.outcome(name)
    assert o["state"] == "finished" and visited(o) == ["host1", "host2"], o
    assert starts(fleet, "host1", name) == starts(fleet, "host2", name) == 1
    wait_for(lambda: not fleet.residents(name), text="no copy is left")


def test_a_destination_that_dies_before_it_answered_leaves_none(fleet):
    name = on_its_way_to_host2(fleet)
    fleet.kill("host2")
    lost(fleet, name)
    assert starts(fleet, "host1", name) == 1 and starts(fleet, "host2", name) == 0


# ---- without an offer

def test_what_is_refused_without_an_offer_goes_on_in_the_same_run(fleet):
    assert fleet.outcome(fleet.launch(TOUR, "--path", "host1,host2"))["state"] == "finished"  # now host1 knows host2
    name = fleet.launch("""function begin(self)
        local here = {}
        tos.briefcase:folder("REFUSE"):push(1)
        for i = 1, 2 do
            local ok, code, text = tos.go("host2")
            here[#here + 1] = code
        end
        tos.briefcase:folder("REFUSE"):clear()
        for _, code in ipairs(here) do tos.briefcase:folder("SAID"):push(code) end
    end""", "--path", "host1", "--itinerant")
    o = fleet.outcome(name)
    assert o["state"] == "finished" and o["briefcase"]["SAID"] == ["denied", "denied"], o
    # The first refusal was of the record itself, and is in the trail; the second one of an offer, or of a record again.
    assert events(o, "refused")[:1] == ["host1"] and events(o, "arrived") == ["host1"]
    wait_for(lambda: not fleet.residents(name), text="no copy is left")
    assert starts(fleet, "host2", name) == 0


def test_departures_that_are_ready_together_share_a_signature(fleet):
    lua = f"""function begin(self)
        if not self.at then
            self.at = tos.briefcase:folder("AT"):get(1)
            tos.sleep(math.max(0, self.at - tos.now()))
        end
        {NOTE}
    end"""
    path = ["host1", "host0", "host1", "host2", "host0"]
    for after in (2, 4, 8, 16, 32):
        at = time.time() + after  # by then all of them wait at host1; later where the machine is busy
        names = [fleet.launch(lua, "--path", ",".join(path), "--data", f"AT={at}") for _ in range(16)]
        for name in names:
            o = fleet.outcome(name)
            assert o["state"] == "finished" and visited(o) == path and events(o, "arrived") == path, o
        if sum(fleet.metric(k, "tos_hops_batched_total") for k in fleet.names):
            return
    raise AssertionError("none did")


# ---- the record itself, from a source that sends it again

@pytest.fixture(scope="module")
def domain(fleet):
    return wire.Domain(fleet.home)


@pytest.fixture(scope="module")
def carol(fleet):
    fleet.tos("principal", "add", "carol", "--role", "owner", "--role", "author")
    return wire.Domain(fleet.home).principal("carol")


@pytest.fixture
def source(fleet, domain):
    """Links to host1 as host2, which is down, and which host1 does not believe any more afterwards."""
    fleet.tos("down", "host2", timeout=120)
    made = []

    def link():
        c = domain.as_kernel("host2", "host1", directory=fleet.path, boot=(1 << 40) + len(made))
        made.append(c)
        return c

    yield link
    for c in made:
        c.close()
    fleet.up()


number = iter(range(7001, 8000))


def journey(carol, fast=True, lua=STAY, path=("host1",)):
    """A carrier of host2's that has not left: its name, envelope and code."""
    code = wire.bundle(carol, f"{lua}\n")
    name = f"host2#{next(number)}"
    t = wire.ticket(name, os.urandom(16), code, options={"fast": fast, "on-unreachable": "wait=5000"}, path=list(path))
    return name, wire.envelope(wire.sign(carol, "ticket", t), code, path=list(path)[1:]), code


def departure(domain, carol, boot=None, fast=True):
    """Departure 0 of such a carrier to host1: its name and the arguments of SEND."""
    name, env, code = journey(carol, fast)
    record = wire.hop(env, "host2", "host1", **({"boot": boot} if boot else {}))
    return name, {"hop": wire.sign(domain.kernel("host2"), "hop", record), "envelope": wire.det(env), "code": code}


def send(c, args):
    return c.call("host1/Handoff", "SEND", args, sender="host2/Kernel")["answer"]


def test_a_record_sent_again_is_answered_again_and_runs_once(fleet, domain, carol, source):
    c = source()
    name, args = departure(domain, carol, c.server["boot"][1])
    assert send(c, args) == "accepted"
    wait_for(lambda: fleet.ps("host1").get(name, {}).get("state") == "running")
    assert send(c, args) == "accepted"
    assert send(source(), args) == "accepted"
    assert starts(fleet, "host1", name) == 1
    # It ends there; the record is as old as before.
    fleet.kill("host1")
    wait_for(lambda: fleet.status("host1"))
    assert send(source(), args) == "unknown"
    assert name not in fleet.ps("host1") and starts(fleet, "host1", name) == 1


def test_a_record_for_another_boot_is_unknown(fleet, domain, carol, source):
    name, args = departure(domain, carol, os.urandom(16))
    assert send(source(), args) == "unknown"
    assert name not in fleet.ps("host1")


def test_a_record_that_names_no_boot_is_journaled(fleet, domain, carol, source):
    name, args = departure(domain, carol, fast=False)
    assert send(source(), args) == "accepted"
    fleet.kill("host1")
    wait_for(lambda: fleet.status("host1"))
    wait_for(lambda: fleet.ps("host1").get(name, {}).get("state") == "running")
    assert send(source(), args) == "accepted"
    wait_for(lambda: list(fleet.residents(name)) == ["host1"])


def test_a_record_whose_code_is_not_there_is_not_answered_until_it_comes(fleet, domain, carol, source):
    c = source()
    name, args = departure(domain, carol, fast=False)
    assert wire.failure(send, c, {k: v for k, v in args.items() if k != "code"}).code == "not-found"
    assert name not in fleet.ps("host1")
    assert send(c, args) == "accepted"
    wait_for(lambda: list(fleet.residents(name)) == ["host1"])


# ---- records under one signature

def test_records_of_a_batch_are_taken_and_mixed_up_or_forged_ones_are_not(fleet, domain, carol, source):
    c = source()
    made = [journey(carol, False, TOUR, ("host1", "host0")) for _ in range(5)]
    hops = [wire.hop(env, "host2", "host1") for _, env, _ in made]
    good = wire.batch(domain.kernel("host2"), hops)

    def args(i, record):
        return {"hop": record, "envelope": wire.det(made[i][1]), "code": made[i][2]}

    def code_of(i, record):
        return wire.failure(send, c, args(i, record)).code

    hop, index, path, cose = wire.cbor2.loads(good[3])
    other = wire.cbor2.loads(good[2])
    bad = [wire.det([hop, 2, path, cose]), wire.det([hop, index, other[2], cose]), wire.det([other[0], index, path, cose]),
           wire.det([hop, index, path[:-1], cose]), wire.det([hop, index, path, wire.flip(cose)]),
           wire.det([wire.det(dict(hops[3], n=1)), index, path, cose]),
           wire.batch(carol, hops)[3],                       # whoever signed the root is no kernel,
           wire.batch(domain.kernel("host0"), hops)[3]]      # or another one than the hop names
    for i, record in enumerate(bad):
        assert code_of(3, record) == "bad-signature", i
    # A good record of another carrier does not go with this envelope.
    stray = wire.hop(journey(carol, False)[1], "host2", "host1")
    assert send(c, args(3, wire.batch(domain.kernel("host2"), [hops[0], stray])[1])) == "refused"
    assert not any(name in fleet.ps("host1") for name, _, _ in made)
    for i in (0, 4, 1, 2, 3):
        assert send(c, args(i, good[i])) == "accepted"
    # host0 has never seen the batch: it checks what each of them brings along.
    for name, _, _ in made:
        wait_for(lambda n=name: starts(fleet, "host0", n) == 1, text=f"{name} got on to host0")
