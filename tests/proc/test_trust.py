"""Trust: what is refused, with which code, that the audit names it, and that nothing of it ran."""
import os
import subprocess

import pytest

import wire
from conftest import fleet_fixture
from fleet import KERNEL, wait_for

pytestmark = pytest.mark.skipif(not os.path.exists(KERNEL), reason="TOS_BUILD names no build with tos-kernel")
fleet = fleet_fixture(n=3)

WAITS = "tos.inbox('done'):next(3600)"


@pytest.fixture(scope="module")
def domain(fleet):
    fleet.tos("principal", "add", "alice", "--role", "owner")
    fleet.tos("principal", "add", "bob", "--role", "author")
    fleet.tos("principal", "add", "carol", "--role", "owner,author")
    return wire.Domain(fleet.home)


@pytest.fixture
def client(domain):
    with domain.client() as c:
        yield c


def audit(client, after=0):
    """All entries behind this one."""
    rows = []
    while True:
        got = client.call(f"{client.kernel}/Control", "AUDIT", {"after": rows[-1]["seq"] if rows else after, "most": 200})
        rows += got
        if len(got) < 200:
            return rows


class Watched:
    """What came into the audit since; that no carrier was started meanwhile."""

    def __init__(self, client):
        self.client = client
        rows = audit(client)
        self.after = rows[-1]["seq"] if rows else 0
        self.before = {r["name"] for r in self.carriers()}

    def carriers(self):
        return self.client.call(f"{self.client.kernel}/Control", "PS", {"all": True})

    def found(self, event, **fields):
        return any(r["event"] == event and all(str(v) in str(r.get(k)) for k, v in fields.items())
                   for r in audit(self.client, self.after))

    def check(self, event, again=None, **fields):
        """again: what led to it; entries of one second are bounded, so one may have been left out."""
        def there():
            found = self.found(event, **fields)
            if not found and again:
                again()
            return found
        wait_for(there, text=f"audit has {event} {fields}")

    def nothing_ran(self):
        assert {r["name"] for r in self.carriers()} == self.before


def refused(client, code, owner, author, make=None, event="launch-refused", **changes):
    """A launch with these changes is refused with this code, audited, and not run."""
    w = Watched(client)
    if make is None:
        e = wire.failure(wire.launch, client, owner, author, **changes)
    else:
        e = wire.failure(make)
    assert e.code == code, e
    w.check(event, code=code)
    w.nothing_ran()
    return e


def parts(client, owner, author, source="function begin(self) end\n", briefcase=b"\xa0", **changes):
    given = client.call("host0/Control", "NAME", {})
    code = wire.bundle(author, source)
    t = wire.ticket(given["name"], given["nonce"], code, briefcase, **changes)
    return {"ticket": wire.sign(owner, "ticket", t), "code": code, "briefcase": briefcase}, t


# ---- who may

def test_author_and_owner_may_differ_and_the_carrier_comes_home(fleet, domain, client):
    _, got = wire.launch(client, domain.principal("alice"), domain.principal("bob"),
                         path=["host0", "host1", "host2"])
    o = fleet.outcome(got["name"])
    assert o["state"] == "finished"
    assert [t["kernel"] for t in o["trail"] if t["event"] == "arrived"] == ["host0", "host1", "host2"]
    assert fleet.show(got["name"])["owner"] == "alice"
    assert any(r["event"] == "launched" and r["owner"] == "alice" and r["author"] == "bob" for r in audit(client))


def test_a_role_that_is_missing_is_denied(domain, client):
    alice, bob = domain.principal("alice"), domain.principal("bob")
    assert "author" in refused(client, "denied", alice, alice).text
    assert "owner" in refused(client, "denied", bob, bob).text


def test_a_kernel_signs_neither_code_nor_tickets(domain, client):
    carol, host1 = domain.principal("carol"), domain.kernel("host1")
    refused(client, "denied", host1, carol)
    refused(client, "denied", carol, host1)


def test_another_domain_is_not_trusted(domain, client):
    carol = domain.principal("carol")
    for ca in (wire.root(), wire.root("another root")):
        stranger = wire.principal("carol", ["owner", "author", "admin"], ca)
        refused(client, "untrusted", stranger, carol)
        refused(client, "untrusted", carol, stranger)
        e = wire.failure(client.call, "host0/Control", "ACT", {"cose": wire.act(stranger, "host0", "kill", "host0#1")})
        assert e.code == "untrusted"
    # neither a principal's key nor a kernel's issues certificates
    for issuer in (carol, domain.kernel("host1")):
        refused(client, "untrusted", wire.principal("dave", ["owner", "author"], issuer), carol)


def test_certificates_tickets_and_manifests_have_their_time(domain, client):
    carol, root = domain.principal("carol"), domain.root
    old = wire.principal("dave", ["owner", "author"], root, begin_s=-7200, life_s=3600)
    early = wire.principal("dave", ["owner", "author"], root, begin_s=3600)
    now = wire.now_ms()
    refused(client, "expired", old, carol)
    refused(client, "expired", carol, old)
    refused(client, "not-yet-valid", early, carol)
    refused(client, "not-yet-valid", carol, early)
    refused(client, "expired", carol, carol, issued=now - 7200000, expires=now - 3600000)
    refused(client, "not-yet-valid", carol, carol, issued=now + 3600000, expires=now + 7200000)
    for word, issued, expires in (("expired", now - 7200000, now - 3600000), ("not-yet-valid", now + 3600000, now + 7200000)):
        p, _ = parts(client, carol, carol)
        given = client.call("host0/Control", "NAME", {})
        code = wire.bundle(carol, issued=issued, expires=expires)
        p = {"ticket": wire.sign(carol, "ticket", wire.ticket(given["name"], given["nonce"], code)), "code": code}
        refused(client, word, carol, carol, make=lambda p=p: client.call("host0/Control", "LAUNCH", p))


@pytest.mark.parametrize("name", ["tos.system", "tacoma.shell", "java.lang"])
def test_names_of_the_system_are_refused(domain, client, name):
    carol = domain.principal("carol")
    given = client.call("host0/Control", "NAME", {})
    for code in (wire.bundle(carol, name=name), wire.bundle(carol, files={"main.lua": b"return 1", name: b"return 2"}),
                 wire.bundle(carol, files={"main.lua": b"return 1", "string.lua": b"return {}"})):
        t = wire.sign(carol, "ticket", wire.ticket(given["name"], given["nonce"], code))
        refused(client, "bad-name", carol, carol,
                make=lambda t=t, code=code: client.call("host0/Control", "LAUNCH", {"ticket": t, "code": code}))


# ---- what was signed

def test_tampered_code_is_refused(domain, client):
    carol = domain.principal("carol")

    def launch(p):
        return lambda: client.call("host0/Control", "LAUNCH", p)

    p, _ = parts(client, carol, carol)
    other = wire.bundle(carol, "function begin(self) tos.log('evil') end\n")
    refused(client, "bad-signature", carol, carol, make=launch({**p, "code": other}))
    # the files changed below the author's manifest, and the ticket for just these bytes
    manifest, files = wire.cbor2.loads(wire.bundle(carol))
    given = client.call("host0/Control", "NAME", {})
    code = wire.det([manifest, {"main.lua": b"function begin(self) tos.log('evil') end\n"}])
    t = wire.sign(carol, "ticket", wire.ticket(given["name"], given["nonce"], code))
    refused(client, "bad-signature", carol, carol, make=launch({"ticket": t, "code": code}))
    code = wire.det([wire.flip(manifest), files])
    t = wire.sign(carol, "ticket", wire.ticket(given["name"], given["nonce"], code))
    refused(client, "bad-signature", carol, carol, make=launch({"ticket": t, "code": code}))


def test_tampered_limits_path_and_briefcase_are_refused(domain, client):
    carol = domain.principal("carol")
    p, t = parts(client, carol, carol, path=["host0"])
    tag = wire.cbor2.loads(p["ticket"])
    protected, _, _, signature = tag.value
    for change in ({"limits": {**wire.LIMITS, "cpu": 10 ** 9}}, {"path": ["host0", "host2"]}, {"itinerant": True},
                   {"briefcase": wire.sha(b"\xa1aaaa")}, {"expires": t["expires"] + 10 ** 9}):
        forged = wire.det(wire.Tag(18, [protected, {}, wire.det({**t, **change}), signature]))
        refused(client, "bad-signature", carol, carol,
                make=lambda f=forged: client.call("host0/Control", "LAUNCH", {**p, "ticket": f}))
    briefcase = wire.det({"EVIL": ["x"]})
    refused(client, "bad-signature", carol, carol,
            make=lambda: client.call("host0/Control", "LAUNCH", {**p, "briefcase": briefcase}))
    # a signature of one kind is none of another
    as_act = wire.sign(carol, "act", wire.det(t))
    refused(client, "malformed", carol, carol,
            make=lambda: client.call("host0/Control", "LAUNCH", {**p, "ticket": as_act}))


def test_the_same_launch_again_is_answered_other_content_under_its_name_is_a_replay(fleet, domain, client):
    carol = domain.principal("carol")
    p, t = parts(client, carol, carol, source="function begin(self) tos.briefcase:folder('N'):push(1) end\n")
    first = client.call("host0/Control", "LAUNCH", p)
    assert fleet.outcome(first["name"])["briefcase"]["N"] == [1]
    w = Watched(client)
    assert client.call("host0/Control", "LAUNCH", p)["name"] == first["name"]
    w.nothing_ran()
    assert not w.found("launched")
    other = wire.sign(carol, "ticket", {**t, "expires": t["expires"] + 1})
    refused(client, "replayed", carol, carol, make=lambda: client.call("host0/Control", "LAUNCH", {**p, "ticket": other}))
    # a name that was never given out, a nonce of another, the name of another home
    for change in ({"name": "host0#99999"}, {"nonce": os.urandom(16)}):
        refused(client, "replayed", carol, carol, **change)
    refused(client, "denied", carol, carol, name="host1#5", home="host1")


# ---- acts

def test_acts_are_checked_where_they_are_carried_out(fleet, domain, client):
    name = fleet.launch(WAITS, "--path", "host1")
    wait_for(lambda: "host1" in fleet.residents(name))
    admin = domain.principal("admin")

    def do(cose):
        return client.call("host0/Control", "ACT", {"cose": cose})

    def no(code, cose):
        w = Watched(client)
        e = wire.failure(do, cose)
        assert e.code == code, e
        w.check("act-refused", code=code)

    now = wire.now_ms()
    no("denied", wire.act(admin, "host1", "kill", name))
    no("denied", wire.act(domain.principal("carol"), "host0", "kill", name))
    no("denied", wire.act(domain.principal("bob"), "host0", "kill", name))
    no("denied", wire.act(domain.kernel("host1"), "host0", "kill", name))
    no("denied", wire.act(domain.principal("carol"), "host0", "revoke", "x", {"list": b"x"}))
    no("denied", wire.act(domain.principal("carol"), "host0", "enroll", "host9"))
    no("denied", wire.act(domain.principal("carol"), "host0", "declare-dead", "host2"))
    no("expired", wire.act(admin, "host0", "kill", name, deadline=now - 3600000))
    no("not-yet-valid", wire.act(admin, "host0", "kill", name, deadline=now + 30 * 86400000))
    no("bad-signature", wire.flip(wire.act(admin, "host0", "kill", name)))
    no("malformed", wire.act(admin, "host0", "kill", name, extra=1))
    no("malformed", wire.act(admin, "host0", "kill", name, nonce=b"short"))
    no("unsupported", wire.act(admin, "host0", "explode", name))
    assert fleet.residents(name)["host1"]["state"] == "running"
    once = wire.act(admin, "host0", "suspend", name)
    do(once)
    fleet.wait_state(name, "suspended")
    do(wire.act(admin, "host0", "resume", name))
    fleet.wait_state(name, "running")
    no("replayed", once)
    assert fleet.state(name) == "running"
    do(wire.act(admin, "host0", "kill", name))
    fleet.wait_state(name, "killed")


def test_one_act_sent_many_times_at_once_is_done_once(fleet, domain):
    name = fleet.launch(WAITS)
    once = wire.act(domain.principal("admin"), "host0", "suspend", name)
    clients = [domain.client() for _ in range(8)]
    for c in clients:
        c.post("host0/Control", "ACT", {"cose": once}, kind=wire.CALL, tag=1)
    codes = []
    for c in clients:
        try:
            c.answer(1)
            codes.append("ok")
        except wire.Failure as e:
            codes.append(e.code)
        c.close()
    assert sorted(codes) == ["ok"] + ["replayed"] * 7
    fleet.tos("kill", name)


def test_an_owner_acts_on_its_own_carriers_only(fleet, domain, client):
    carol = domain.principal("carol")
    _, got = wire.launch(client, carol, carol, path=["host1"], source=f"function begin(self) {WAITS} end\n")
    wait_for(lambda: "host1" in fleet.residents(got["name"]))
    e = wire.failure(client.call, "host0/Control", "ACT",
                     {"cose": wire.act(domain.principal("alice"), "host0", "kill", got["name"])})
    assert e.code == "denied"
    client.call("host0/Control", "ACT", {"cose": wire.act(carol, "host0", "kill", got["name"])})
    fleet.wait_state(got["name"], "killed")


# ---- carriers, local users

@pytest.mark.parametrize("inbox", ["Control", "Handoff", "Home", "Shells", "Kernel", "Registrar"])
def test_carriers_may_not_post_to_the_kernels_own_inboxes(fleet, domain, client, inbox):
    w = Watched(client)
    before = fleet.metric("host0", "tos_denied_total")
    lua = (f"local _, here = tos.call('{inbox}', {{'PS'}}, 5) local _, there = tos.call('host1/{inbox}', {{'PS'}}, 5) "
           "return {here = here, there = there}")
    o = fleet.json("launch", "-e", lua, "--wait")
    assert o["briefcase"]["RESULTS"][0] == {"kernel": "host0", "here": "denied", "there": "denied"}
    assert fleet.metric("host0", "tos_denied_total") == before + 1
    wait_for(lambda: w.found("denied", object=inbox) or not fleet.json("launch", "-e", lua, "--wait"))
    with domain.client("host1") as other:
        wait_for(lambda: any(r["event"] == "denied" and r["object"] == inbox for r in audit(other)))


def test_a_local_user_who_may_not_read_is_denied(fleet, domain):
    if os.geteuid() != 0:
        pytest.skip("needs root to become another user")
    for d in (fleet.home, f"{fleet.home}/kernels", f"{fleet.home}/kernels/host0"):
        os.chmod(d, 0o711)
    os.chmod(f"{fleet.home}/kernels/host0/sock", 0o666)
    code = ("import sys; sys.path.insert(0, sys.argv[1]); import wire\n"
            "c = wire.connect_local(sys.argv[2]); c.hello()\n"
            "for dest, verb in (('host0/Control', 'STATUS'), ('host0/Control', 'PS'), ('host0/Control', 'NAME'),\n"
            "                   ('host0/Control', 'AUDIT'), ('host1/Control', 'PS'), ('host0/Registrar', 'ENROLL'),\n"
            "                   ('host0/Echo', 'x'), ('host1/Echo', 'x')):\n"
            "    print(wire.failure(c.call, dest, verb, {}).code)\n")
    r = subprocess.run(["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", "/usr/bin/python3", "-B",
                        "-c", code, os.path.dirname(__file__), f"{fleet.home}/kernels/host0/sock"],
                       capture_output=True, text=True, timeout=60)
    assert r.stdout.split() == ["denied"] * 8, r.stdout + r.stderr


# ---- a kernel that lies

@pytest.fixture
def rogue(fleet, domain):
    """host2's key in the hands of this test, linked to host0."""
    fleet.tos("down", "host2")
    made = []

    def link(to="host0", **kw):
        made.append(domain.as_kernel("host2", to, directory=fleet.path, **kw))
        return made[-1]

    yield link
    for c in made:
        c.close()
    fleet.up()


def hop(signer, ticket_cose, sender, dest, e=None, n=0, prev=bytes(32), parts=None):
    protected, _, payload, _ = wire.cbor2.loads(ticket_cose).value
    return wire.sign(signer, "hop", {
        "id": wire.sha(wire.det([protected, payload])), "suffix": "", "e": e or [1, bytes(8)], "n": n, "from": sender,
        "dest": dest, "kind": 0, "parts": parts or {}, "prev": prev, "time": wire.now_ms()})


def test_a_kernel_speaks_for_nobody_else(fleet, domain, client, rogue):
    carol = domain.principal("carol")
    t, got = wire.launch(client, carol, carol, path=["host1"], source=f"function begin(self) {WAITS} end\n")
    wait_for(lambda: "host1" in fleet.residents(got["name"]))
    c = rogue()
    for sender in (got["name"], got["name"] + "/replies", "host0#777", "host1/Kernel", "host1/Mobility", "host0/Kernel",
                   "host1/client/1", "Kernel", "", "host2host2/Kernel"):
        w = Watched(client)

        def post(sender=sender):
            c.post("host0/Echo", "hi", kind=wire.CALL, sender=sender, tag=5)
            return wire.failure(c.answer, 5).code

        assert post() in ("denied", "bad-name"), sender
        if sender:
            w.check("denied", again=post)
    # a ticket and a hop record of one's own making vouch for nothing
    c.send(wire.VOUCH, t, [hop(domain.kernel("host2"), t, "host2", "host2")])
    c.send(wire.VOUCH, t, [hop(domain.kernel("host2"), t, "host1", "host2")])
    assert wire.failure(c.call, "host0/Echo", "hi", sender=got["name"]).code == "denied"
    # in its own name it may
    assert c.call("host0/Echo", "hi", 1, sender="host2/Kernel") is not None
    assert wire.failure(c.call, "host0/Control", "ACT", {"cose": b"x"}, sender="host2/client/1").code == "malformed"
    assert fleet.state(got["name"]) == "running"
    fleet.tos("kill", got["name"])


def test_a_kernel_cannot_end_or_take_carriers_that_never_came_to_it(fleet, domain, client, rogue):
    carol = domain.principal("carol")
    t, got = wire.launch(client, carol, carol, source=f"function begin(self) {WAITS} end\n")
    fleet.wait_state(got["name"], "running")
    protected, _, payload, _ = wire.cbor2.loads(t).value
    ident = wire.sha(wire.det([protected, payload]))
    c, key, high = rogue(), domain.kernel("host2"), [10 ** 6, os.urandom(8)]

    def no(*codes, dest="Handoff", verb="SEND", **args):
        e = wire.failure(c.call, f"host0/{dest}", verb, args, sender="host2/Kernel")
        assert e.code in codes, e

    w = Watched(client)
    no("denied", verb="VOID", id=ident, e=high)
    w.check("void-refused", **{"from": "host2"})
    no("denied", dest="Home", verb="ARRIVED", name=got["name"], id=ident, e=high, n=9, state="running")
    no("denied", dest="Home", verb="ENDED", name=got["name"], id=ident, e=high, state="killed", why="x")
    w.check("report-refused", **{"from": "host2"})
    # a hop record of another kernel's, or with another destination
    no("bad-signature", hop=hop(key, t, "host1", "host0", high), envelope=b"x")
    no("denied", hop=hop(key, t, "host2", "host1", high), envelope=b"x")
    no("not-found", "unsupported", "denied", verb="COMMAND", name=got["name"], wanted="killed", e=high)
    # one of its own, about a carrier that was never sent to it: refused, and the carrier is not superseded
    answer = c.call("host0/Handoff", "SEND", {"hop": hop(key, t, "host2", "host0", high), "envelope": b"x"},
                    sender="host2/Kernel")
    assert answer["answer"] == "refused"
    w.check("arrival-refused", **{"from": "host2"})
    envelope = wire.det({"briefcase": {}, "channels": [], "code": bytes(32), "counters": {}, "hops": [], "log": [],
                         "path": [], "state": b"", "ticket": t, "trail": [], "undelivered": []})
    answer = c.call("host0/Handoff", "SEND", {"hop": hop(key, t, "host2", "host0", high, n=1), "envelope": envelope},
                    sender="host2/Kernel")
    assert answer["answer"] == "refused"
    w.nothing_ran()
    assert fleet.state(got["name"]) == "running"
    fleet.tos("kill", got["name"])
    fleet.wait_state(got["name"], "killed")


def test_only_the_kernel_that_was_asked_answers_a_client(fleet, domain, rogue):
    c = rogue()
    with domain.client(want="victim") as victim:
        assert victim.call("host0/Control", "STATUS", {})["name"] == "host0"
        victim.post("host0/Control", "OUTCOME", {"name": "host0#1", "wait_ms": 1}, kind=wire.CALL, tag=77)
        c.post("host0/client/victim", "ok", {"forged": True}, kind=wire.ANSWER, sender="host2/Kernel", tag=78)
        c.call("host0/Echo", "later", sender="host2/Kernel")
        try:
            victim.answer(77)
        except wire.Failure:
            pass
        victim.call("host0/Control", "STATUS", {})
        assert not [f for f in victim.seen if f[4] == 78]


def test_the_link_needs_a_kernels_certificate_of_this_domain(fleet, domain, rogue):
    stranger = wire.issue("host2", ["tos:kernel:host2"], wire.root())
    for signer in (stranger, wire.issue("host2", ["tos:kernel:host2"], stranger),
                   wire.issue("host2", ["tos:kernel:host2"], domain.principal("admin")),
                   wire.issue("host2", ["tos:kernel:host2"], domain.root, begin_s=-7200, life_s=3600)):
        with pytest.raises((wire.Closed, OSError)):
            rogue(signer=signer)
    # a principal's makes a client of it, which cannot choose its sender
    c = rogue(signer=domain.principal("alice"))
    assert wire.failure(c.call, "host0/Handoff", "VOID", {}, sender="host2/Kernel").code == "denied"
    key, cert = domain.kernel("host2").pem(fleet.path, "lies")
    c = wire.connect_tls(domain.address("host0"), key, cert)
    with pytest.raises(wire.Closed):
        c.hello(name="host1", domain=domain.fingerprint.hex(), boot=[1 << 41, bytes(16)])
        c.call("host0/Echo", "hi", sender="host1/Kernel")
    c.close()


def test_a_stranger_reaches_the_registrar_and_nothing_else(fleet, domain, client):
    key, cert = wire.joiner().pem(fleet.path, "joiner")
    c = wire.connect_tls(domain.address("host0"), key, cert)
    c.hello(domain=domain.fingerprint.hex())
    w = Watched(client)
    for dest, verb in (("host0/Control", "STATUS"), ("host0/Control", "PS"), ("host1/Control", "PS"), ("host0/Echo", "x"),
                       ("host1/Echo", "x"), ("host0/Handoff", "OFFER"), ("host0/Directory", "LIST"), ("host0#1", "x")):
        e = wire.failure(c.call, dest, verb, {})
        assert e.code == "denied", (dest, e)
    w.check("denied", again=lambda: wire.failure(c.call, "host0/Control", "STATUS", {}), object="Control")
    e = wire.failure(c.call, "host0/Registrar", "ENROLL", {"name": "host9", "secret": bytes(32), "public_key": bytes(32),
                                                             "address": ""})
    assert e.code == "denied"
    w.check("enrolment-refused")
    # content is not staged for it
    c.send(wire.CHUNK, wire.sha(b"x"), 0, 1, b"x")
    assert c.closed().code
    c.close()


# ---- revocation: last, for the fleet is not whole after it

def test_a_revoked_owners_carriers_are_killed_everywhere(fleet, domain, client):
    carol, names = domain.principal("carol"), []
    for kernel in ("host0", "host1", "host2"):
        _, got = wire.launch(client, carol, carol, path=[kernel], source=f"function begin(self) {WAITS} end\n")
        names.append(got["name"])
        wait_for(lambda k=kernel, n=got["name"]: k in fleet.residents(n))
    fleet.tos("principal", "revoke", "carol")
    for name in names:
        fleet.wait_state(name, "killed")
        assert not fleet.residents(name)
    e = refused(client, "revoked", carol, domain.principal("bob"))
    assert "carol" in e.text
    refused(client, "revoked", domain.principal("alice"), carol)
    assert wire.failure(client.call, "host0/Control", "ACT",
                        {"cose": wire.act(carol, "host0", "kill", names[0])}).code == "revoked"
    for kernel in ("host1", "host2"):
        with domain.client(kernel) as c:
            wait_for(lambda c=c: any(r["event"] == "revocation-list" for r in audit(c)))


def test_a_revoked_kernel_is_cut_off_and_cannot_come_back(fleet, domain, client):
    host2 = domain.kernel("host2")
    fleet.tos("kernels", "remove", "host2")
    for kernel in ("host0", "host1"):
        with domain.client(kernel) as c:
            wait_for(lambda c=c: not any(r["name"] == "host2" and r["linked"]
                                         for r in c.call(f"{c.kernel}/Control", "KERNELS", {})), text="host2 is not linked")
    fleet.tos("down", "host2")
    with pytest.raises((wire.Closed, OSError)):
        domain.as_kernel("host2", "host0", signer=host2, directory=fleet.path)
    # and it is not gone to
    o = fleet.run("launch", "-e", "return {x = 1}", "--path", "host2", "--on-unreachable", "fail", "--wait", "--json")
    assert o.returncode == 1
