"""Whose a post is, as the kernel that took it established it: of carriers by their tickets, of clients by what their principal
signed, of everybody else not at all. Carriers that take orders take them from their owner."""
import os

import pytest

import wire
from conftest import fleet_fixture
from fleet import QUICK, wait_for

fleet = fleet_fixture(n=3, rests=True, conf=QUICK)
TELLS = """function begin(self)
    local box = tos.inbox("who")
    while true do
        local m = box:next(60)
        if m and m.wants_answer then m:answer({ { owner = m.owner or "nobody", class = m.class, sender = m.sender } }) end
    end
end"""


@pytest.fixture(scope="module")
def domain(fleet):
    for name, *roles in (("bob", "owner", "author"), ("eve", "owner"), ("zoe", "owner"), ("ada", "admin")):
        fleet.tos("principal", "add", name, *(w for r in roles for w in ("--role", r)))
    return wire.Domain(fleet.home)


@pytest.fixture(scope="module")
def tells(fleet, domain):
    """Carriers that say who posts to them, at their home and elsewhere; whose: the default principal's."""
    names = {at: fleet.launch(TELLS, "--path", at, name="tells.lua") for at in ("host0", "host1")}
    for at, name in names.items():
        wait_for(lambda a=at, n=name: fleet.ps(a).get(n, {}).get("state") == "running")
    return {at: name + "/who" for at, name in names.items()}


def said(fleet, *args):
    return fleet.json("call", *args)["elements"][0]


def introduction(signer, link, **changes):
    here = link.call("Control", "INTRODUCE", {})
    now = wire.now_ms()
    return wire.sign(signer, "client", {"boot": here["boot"], "client": here["client"], "issued": now, "expires": now + 60000,
                                        **changes})


def tls(fleet, domain, name, kernel="host0"):
    directory = f"{fleet.home}/keys/{name}"
    link = wire.connect_tls(domain.address(kernel), f"{directory}/key", f"{directory}/cert")
    link.kernel = kernel
    link.hello(domain=domain.fingerprint.hex())
    return link


@pytest.mark.parametrize("at", ["host0", "host1"])
@pytest.mark.parametrize("kernel", ["host0", "host1"])
def test_a_command_shows_whose_it_is(fleet, tells, at, kernel):
    owner = fleet.show(tells[at].split("/")[0])["owner"]
    for args, who in (((), owner), (("--as", "bob"), "bob")):
        got = said(fleet, tells[at], "hello", "--kernel", kernel, *args)
        assert (got["owner"], got["class"]) == (who, "client") and got["sender"].startswith(f"{kernel}/client/"), got


@pytest.mark.parametrize("at", ["host0", "host1"])
def test_carriers_are_known_by_their_tickets(fleet, tells, at):
    for place in ("host0", "host1", "host2"):
        source = f'function begin(self) tos.briefcase:folder("SAID"):push((tos.call("{tells[at]}", "x", 30))) end'
        name = fleet.launch(source, "--path", place, "--as", "bob", name="asks.lua")
        (got,) = fleet.outcome(name)["briefcase"]["SAID"]
        assert (got["owner"], got["class"], got["sender"]) == ("bob", "carrier", name)


def test_who_has_not_said_is_nobody(fleet, domain, tells):
    with domain.client() as c:
        for at in tells:
            assert c.call(tells[at], "", "x")["owner"] == "nobody"
        c.call("Control", "INTRODUCE", {"cose": introduction(domain.principal("bob"), c)})
        for at in tells:
            assert c.call(tells[at], "", "x")["owner"] == "bob"
        # Once more, as somebody else: that holds here and for kernels that know the first.
        c.call("Control", "INTRODUCE", {"cose": introduction(domain.principal("eve"), c)})
        for at in tells:
            assert c.call(tells[at], "", "x")["owner"] == "eve"
    # What a client has shown ends with its connection: the next one's name is another.
    with domain.client() as c:
        assert c.call(tells["host1"], "", "x")["owner"] == "nobody"


def test_a_certificate_says_it_too(fleet, domain, tells):
    with tls(fleet, domain, "bob") as c:
        assert c.call(tells["host0"], "", "x")["owner"] == "bob"
        wrong = wire.failure(c.call, "Control", "INTRODUCE", {"cose": introduction(domain.principal("eve"), c)})
        assert wrong.code == "denied" and "connection is bob's" in wrong.text
        # To inboxes of other kernels it would pass for any client of this one.
        assert wire.failure(c.call, "host1/Echo", "", "x").code == "denied"
        c.call("Control", "INTRODUCE", {"cose": introduction(domain.principal("bob"), c)})
        assert c.call(tells["host1"], "", "x")["owner"] == "bob"
        assert c.call("host1/Echo", "", "x") is not None


def test_no_other_introduction_is_taken(fleet, domain, tells):
    bob, now = domain.principal("bob"), wire.now_ms()
    before = fleet.metric("host0", "tos_introductions_refused_total") or 0
    with domain.client() as c, domain.client() as other:
        of_other = introduction(bob, other)
        wrong = {
            "of another client": (of_other, "denied"),
            "of a client of another kernel": (introduction(bob, c, client="host1/client/1"), "denied"),
            "of no client": (introduction(bob, c, client="host0/Echo"), "denied"),
            "of a name that was chosen": (introduction(bob, c, client="host0/client/panel"), "denied"),
            "of another run": (introduction(bob, c, boot=os.urandom(16)), "denied"),
            "that has expired": (introduction(bob, c, issued=now - 700000, expires=now - 600000), "expired"),
            "of the future": (introduction(bob, c, issued=now + 600000, expires=now + 700000), "not-yet-valid"),
            "for too long": (introduction(bob, c, expires=now + 4000000), "limit"),
            "with more in it": (introduction(bob, c, role="admin"), "malformed"),
            "by a kernel": (introduction(domain.kernel("host1"), c), "denied"),
            "by a stranger": (introduction(wire.principal("bob", ["owner"], wire.root()), c), "untrusted"),
            "that is an act": (wire.act(bob, "host0", "introduce", ""), "malformed"),
            "changed": (wire.flip(introduction(bob, c)), "bad-signature"),
        }
        for what, (cose, code) in wrong.items():
            assert wire.failure(c.call, "Control", "INTRODUCE", {"cose": cose}).code == code, what
            assert c.call(tells["host0"], "", "x")["owner"] == "nobody", what
        assert fleet.metric("host0", "tos_introductions_refused_total") == before + len(wrong)
        # At another kernel than one's own.
        assert wire.failure(c.call, "host1/Control", "INTRODUCE", {"cose": of_other}).code == "denied"
    # A name of one's own choosing can be another's tomorrow; numbers are not to be had.
    with domain.client(want="panel") as c:
        assert wire.failure(c.call, "Control", "INTRODUCE", {"cose": introduction(bob, c)}).code == "denied"
    with domain.client(want="77777") as c:
        assert c.call("Control", "INTRODUCE", {})["client"] != "host0/client/77777"
    with domain.client() as c:
        rows = c.call("Control", "AUDIT", {"after": 0, "most": 1000})
        assert any(row["event"] == "introduction-refused" for row in rows)


def test_another_kernel_speaks_for_its_own_clients_only(fleet, domain, tells):
    """A kernel has what clients elsewhere showed it, and may show that on; it is believed from theirs alone."""
    bob = domain.principal("bob")
    with domain.client() as c:
        shown = introduction(bob, c)
        c.call("Control", "INTRODUCE", {"cose": shown})
        name = c.call(tells["host0"], "", "x")["sender"]
        fleet.tos("down", "host2")
        with domain.as_kernel("host2", "host0", directory=fleet.path) as rogue:
            rogue.send(wire.VOUCH, shown, [])
            for sender in (name, "host2/client/1"):
                if sender == name:
                    assert wire.failure(rogue.call, tells["host0"], "", "x", sender=sender).code == "denied"
                else:
                    assert rogue.call(tells["host0"], "", "x", sender=sender)["owner"] == "nobody"
        fleet.up()


def test_clients_of_whom_nothing_was_heard_for_longest_make_room_and_are_nobodys(fleet, domain, tells):
    """A kernel does not say which of its clients are gone: their number must not keep others from showing whose they are."""
    bob, nonce, most, now = domain.principal("bob"), os.urandom(16), 2048, wire.now_ms()
    fleet.tos("down", "host2")
    key, cert = domain.kernel("host2").pem(fleet.path, "many-host2")
    with wire.connect_tls(domain.address("host0"), key, cert) as c:
        c.hello(name="host2", domain=domain.fingerprint.hex(), boot=[1 << 41, nonce])

        def show(number):
            c.send(wire.VOUCH, wire.sign(bob, "client", {"boot": nonce, "client": f"host2/client/{number}", "issued": now,
                                                         "expires": now + 600000}), [])

        def owner(number):
            return c.call(tells["host0"], "", "x", sender=f"host2/client/{number}")["owner"]

        for number in range(most):
            show(number)
        assert (owner(0), owner(1), owner(most)) == ("bob", "bob", "nobody")
        for number in range(most, most + 3):
            show(number)
        assert {owner(n) for n in (0, 1, 5, most, most + 2)} == {"bob"}
        # 2, 3 and 4 made room. They do not pass for a local user of their kernel.
        for number in (2, 4):
            forgotten = wire.failure(owner, number)
            assert forgotten.code == "denied" and "connect anew" in forgotten.text
        assert fleet.metric("host0", "tos_introductions_forgotten_total") == 3
        show(4)
        assert owner(4) == "bob" and wire.failure(owner, 6).code == "denied"
    fleet.up()


def rows(link, tx):
    return {r["role"] for r in link.call("host0/Commit", "LIST") if r["tx"] == tx}


def test_who_has_a_certificate_sees_its_own_transactions_from_another_kernel(fleet, domain):
    source = """function begin(self)
        local r = assert(tos.call("Commit", { name = "far" }, 20, { name = "BEGIN" }))
        tos.briefcase:folder("TX"):push(r.tx)
        tos.checkpoint()
        tos.inbox("stay"):next(600)
    end"""
    name = fleet.launch(source, "--as", "bob", name="begins.lua")
    tx = wait_for(lambda: next((t["tx"] for t in fleet.json("commit", "list", "--kernel", "host0")
                                if t["carrier"] == name), None))
    for who, sees in (("zoe", set()), ("bob", {"coordinator"}), ("ada", {"coordinator"})):
        with tls(fleet, domain, who, "host1") as link:
            assert wire.failure(link.call, "host0/Commit", "LIST").code == "denied"
            link.call("Control", "INTRODUCE", {"cose": introduction(domain.principal(who), link)})
            assert rows(link, tx) == sees, who
    assert tx in {r["tx"] for r in fleet.json("commit", "list", "--kernel", "host1")} | {
        r["tx"] for r in fleet.json("commit", "list")}
    fleet.tos("kill", name, "--as", "bob")


def test_a_run_obeys_its_owner(fleet, domain):
    fleet.file("mark.lua", "function begin(self) end")
    p = fleet.start("run", "mark.lua", "--wave", "1", "--pause", "each")
    line = p.stderr.readline()
    assert line.startswith("paused behind wave 1"), line
    run = line.split("tos post ")[1].split("/")[0] + "/run"
    r = fleet.run("call", run, "stop", "--as", "bob")
    assert r.returncode != 0 and "its owner steers this run" in r.stderr, r.stderr
    with domain.client() as c:
        assert wire.failure(c.call, run, "", "stop").code == "denied"
        assert wire.failure(c.call, run, "client", "host0/client/thief").code == "denied"
    fleet.tos("post", run, "stop", "--as", "eve")
    fleet.tos("post", run, "resume")
    assert p.stderr.readline().startswith("paused behind wave 2")
    fleet.tos("post", run, "stop")
    p.communicate(timeout=60)


def test_who_is_revoked_is_nobody(fleet, domain, tells):
    with domain.client() as c:
        c.call("Control", "INTRODUCE", {"cose": introduction(domain.principal("eve"), c)})
        for at in tells:
            assert c.call(tells[at], "", "x")["owner"] == "eve"
        fleet.tos("principal", "revoke", "eve")
        for at in tells:
            wait_for(lambda a=at: c.call(tells[a], "", "x")["owner"] == "nobody")
        again = introduction(domain.principal("eve"), c)
        assert wire.failure(c.call, "Control", "INTRODUCE", {"cose": again}).code == "revoked"
