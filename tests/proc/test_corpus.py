"""Every field of everything that is signed, changed in every way that its type allows: none of it is believed.

Tables and generators, not hand-picked cases; each test says how many it tried, and ends with the unchanged thing, which
is taken. The carriers of it all are real kernels; host2's key is in the hands of these tests.
"""
import os

import cbor2
import pytest

import wire
from conftest import fleet_fixture
from fleet import KERNEL, QUICK, wait_for
from rogue import digests, payload, fixtures as rogue_fixtures

pytestmark = pytest.mark.skipif(not os.path.exists(KERNEL), reason="TOS_BUILD names no build with tos-kernel")
fleet = fleet_fixture(n=3, conf=QUICK)

WAITS = "function begin(self) tos.inbox('done'):next(3600) end\n"
# What a changed thing may be called; which one comes first is not the point. Never an answer.
REFUSED = {"bad-signature", "malformed", "untrusted", "too-large", "denied", "expired", "not-yet-valid", "replayed", "bad-name",
           "unsupported", "limit", "full", "not-found", "unknown", "exists", "superseded", "revoked"}


@pytest.fixture(scope="module")
def domain(fleet):
    for name, roles in (("carol", "owner,author"), ("olga", "owner"), ("otto", "author"), ("oscar", "officer")):
        fleet.tos("principal", "add", name, "--role", roles, "--here")
    return wire.Domain(fleet.home)


@pytest.fixture
def client(domain):
    with domain.client() as c:
        yield c


# ---- ways to change a value

def changed(value):
    """(how, other value) for each way in which a value of its type can be another."""
    return ((how, other) for how, other in ways(value) if wire.det(other) != wire.det(value))


def ways(value):
    if isinstance(value, bool):
        yield "turned over", not value
    elif isinstance(value, int):
        yield from (("one more", value + 1), ("one less", value - 1), ("negative", -1 - value), ("huge", 2 ** 63 - 1),
                    ("not a number", str(value)))
    elif isinstance(value, bytes):
        yield from (("truncated", value[:-1]), ("longer", value + b"\0"), ("empty", b""), ("text", value.hex()))
        for at in sorted({0, len(value) // 2, len(value) - 1}) if value else ():
            yield f"bit of byte {at}", wire.flip(value, at)
    elif isinstance(value, str):
        yield from (("longer", value + "x"), ("blank", value + " "), ("NUL", value + "\0"), ("bytes", value.encode()))
        if value:
            yield from (("empty", ""), ("truncated", value[:-1]), ("another letter", chr(ord(value[0]) ^ 1) + value[1:]))
    elif isinstance(value, list):
        yield from (("one more", [*value, value[-1] if value else 0]), ("a map", {}))
        if value:
            yield from (("one less", value[:-1]), ("none", []))
        for i, v in enumerate(value):
            for how, other in changed(v):
                yield f"[{i}] {how}", [*value[:i], other, *value[i + 1:]]
    elif isinstance(value, dict):
        yield from (("one key more", {**value, "more": 1}), ("an array", list(value)))
        for k, v in value.items():
            yield f"{k} left out", {q: w for q, w in value.items() if q != k}
            for how, other in changed(v):
                yield f"{k} {how}", {**value, k: other}


def repacked(cose):
    """(how, bytes) for each part of a COSE_Sign1 changed, its signature left as it was."""
    tag = cbor2.loads(cose)
    protected, unprotected, body, signature = tag.value
    header = cbor2.loads(protected)

    def pack(p=protected, u=unprotected, b=body, s=signature, number=18):
        return wire.det(wire.Tag(number, [p, u, b, s]))

    for how, other in changed(cbor2.loads(body)):
        yield f"payload: {how}", pack(b=wire.det(other))
    for how, other in changed(header):
        yield f"header: {how}", pack(p=wire.det(other))
    for i in range(len(signature)):
        yield f"signature byte {i}", pack(s=wire.flip(signature, i))
    yield from (("signature truncated", pack(s=signature[:-1])), ("signature empty", pack(s=b"")),
                ("signature longer", pack(s=signature + b"\0")), ("unprotected header", pack(u={1: -8})),
                ("payload empty", pack(b=b"")), ("nothing", b""), ("no tag", wire.det([protected, {}, body, signature])),
                ("bytes behind", cose + b"\0"))
    for at in range(0, len(cose), 7):
        yield f"cut after {at}", cose[:at]
        yield f"bit of byte {at}", wire.flip(cose, at)


def resigned(signer, kind, good, others):
    """The same payload by those who may not say it, as another kind, with another's certificate."""
    for name, other in others.items():
        yield f"signed by {name}", wire.sign(other, kind, good)
        yield f"signed by {name}, with the right certificate", wire.sign(wire.Signer(other.key, signer.chain), kind, good)
        yield f"certificate of {name} shown", wire.sign(wire.Signer(signer.key, other.chain), kind, good)
    for word in ("act", "ticket", "manifest", "hop", "revocation", "current"):
        if word != kind:
            yield f"as {word}", wire.sign(signer, word, good)


class Tried:
    """Counts, and that each was refused."""

    def __init__(self):
        self.codes, self.n = {}, 0

    def refuse(self, how, fn, *args, **kw):
        self.n += 1
        try:
            got = fn(*args, **kw)
        except wire.Failure as e:
            assert e.code in REFUSED, (how, e)
            code = e.code
        else:
            # SEND answers a refusal, too
            assert isinstance(got, dict) and got.get("answer") in ("refused", "superseded"), (how, got)
            code = got.get("code", got["answer"])
            assert code in REFUSED, (how, got)
        self.codes[code] = self.codes.get(code, 0) + 1

    def at_least(self, n):
        print(f"{self.n} tried: {self.codes}")
        assert self.n >= n, self.n


@pytest.fixture(scope="module")
def others(domain):
    """Signers who may not: by role, by domain, by time."""
    strange = wire.root("another root")
    return {"a kernel": domain.kernel("host1"), "an officer": domain.principal("oscar"),
            "the root itself": domain.root,
            "a stranger": wire.principal("carol", ["owner", "author", "admin"], strange),
            "one that has run out": wire.principal("carol", ["owner", "author", "admin"], domain.root, begin_s=-7200, life_s=3600),
            "one to come": wire.principal("carol", ["owner", "author", "admin"], domain.root, begin_s=3600),
            "one that a principal issued": wire.principal("carol", ["owner", "author"], domain.principal("carol")),
            "one that a kernel issued": wire.principal("carol", ["owner", "author"], domain.kernel("host1"))}


# ---- what is launched

def test_no_changed_ticket_launches(fleet, domain, client, others):
    carol, tried = domain.principal("carol"), Tried()
    given = client.call("host0/Control", "NAME", {})
    code = wire.bundle(carol)
    t = wire.ticket(given["name"], given["nonce"], code, path=["host0", "host1|host2"])
    good = wire.sign(carol, "ticket", t)

    def launch(cose):
        return client.call("host0/Control", "LAUNCH", {"ticket": cose, "code": code, "briefcase": b"\xa0"})

    before = fleet.metric("host0", "tos_launches_total")
    for how, cose in repacked(good):
        tried.refuse(how, launch, cose)
    for how, cose in resigned(carol, "ticket", t, {**others, "an author": domain.principal("otto")}):
        tried.refuse(how, launch, cose)
    assert fleet.metric("host0", "tos_launches_total") == before
    tried.at_least(400)
    assert launch(good)["name"] == given["name"]
    assert fleet.outcome(given["name"])["state"] == "finished"


def test_no_changed_code_is_launched(fleet, domain, client, others):
    carol, tried = domain.principal("carol"), Tried()
    code = wire.bundle(carol, files={"main.lua": b"function begin(self) end\n", "a/b.lua": b"return {}\n"}, permissions=["Echo"])
    manifest, files = cbor2.loads(code)

    def launch(bundle):
        given = client.call("host0/Control", "NAME", {})
        t = wire.sign(carol, "ticket", wire.ticket(given["name"], given["nonce"], bundle))
        return client.call("host0/Control", "LAUNCH", {"ticket": t, "code": bundle, "briefcase": b"\xa0"})

    for how, cose in repacked(manifest):
        tried.refuse(how, launch, wire.det([cose, files]))
    for how, cose in resigned(carol, "manifest", payload(manifest), {**others, "an owner": domain.principal("olga")}):
        tried.refuse(how, launch, wire.det([cose, files]))
    for how, other in changed(files):
        tried.refuse(f"files: {how}", launch, wire.det([manifest, other]))
    for how, other in changed(code):
        tried.refuse(f"bundle: {how}", launch, other if isinstance(other, bytes) else other.encode())
    tried.at_least(300)
    assert fleet.outcome(launch(code)["name"])["state"] == "finished"


# ---- what is done

def test_no_changed_act_is_carried_out(fleet, domain, client, others):
    admin, tried = domain.principal("admin"), Tried()
    name = fleet.launch(WAITS)
    fleet.wait_state(name, "running")
    body = {"act": "suspend", "args": {"x": [1, b"y"]}, "deadline": wire.now_ms() + 60000, "kernel": "host0",
            "nonce": os.urandom(16), "target": name}
    good = wire.sign(admin, "act", body)

    def act(cose):
        return client.call("host0/Control", "ACT", {"cose": cose})

    for how, cose in repacked(good):
        tried.refuse(how, act, cose)
    for how, cose in resigned(admin, "act", body, {**others, "another owner": domain.principal("carol")}):
        tried.refuse(how, act, cose)
    assert fleet.state(name) == "running"
    tried.at_least(300)
    act(good)
    fleet.wait_state(name, "suspended")
    tried.refuse("again", act, good)
    fleet.tos("kill", name)


def test_no_byte_of_a_certificate_can_be_another(fleet, domain, client):
    """The certificate in the header of an act that is signed anew each time, so that only it is wrong."""
    admin, tried = domain.principal("admin"), Tried()
    der = admin.chain[0]

    def act(chain):
        return client.call("host0/Control", "ACT", {"cose": wire.act(wire.Signer(admin.key, chain), "host0", "kill", "host0#99999")})

    for i in range(len(der)):
        tried.refuse(f"byte {i}", act, [wire.flip(der, i)])
    for i in range(0, len(der), 5):
        tried.refuse(f"cut after {i}", act, [der[:i]])
    root, registrar = domain.root.chain[0], wire.load(f"{fleet.home}/ca/registrar.key", f"{fleet.home}/ca/registrar.crt").chain[0]
    for chain in ([der, der], [der, root], [der, registrar], [registrar, der], [der, registrar, root], [root], [registrar],
                  [der + b"\0"], [domain.kernel("host1").chain[0], der]):
        tried.refuse("chain", act, chain)
    tried.at_least(len(der))
    e = wire.failure(act, [der])
    assert e.code == "not-found", e  # believed: there just is no such carrier


# ---- what moves

_, rogue = rogue_fixtures("host0")


def test_no_changed_envelope_or_hop_record_arrives(fleet, domain, client, rogue, others):
    carol, tried = domain.principal("carol"), Tried()
    _, got = wire.launch(client, carol, carol, path=["host2", "host1"], source=WAITS, briefcase=wire.det({"A": [1, b"x"], "B": []}))
    name, n = rogue.take(), [1]
    hop, envelope, code = rogue.sent[name]
    assert name == got["name"]
    rogue.report(name, n=1, state="running", in_doubt=False)
    envelope = {**envelope, "path": ["host1"], "hops": [hop]}

    def record(signer=None, **changes):
        n[0] += 1
        body = {**payload(hop), "n": n[0], "from": "host2", "dest": "host1", "kind": 0, "parts": digests(envelope),
                "prev": wire.sha(hop), "time": wire.now_ms(), **changes}
        return wire.sign(signer or rogue.key, "hop", {k: v for k, v in body.items() if v is not None})

    def send(cose, env=None, code=code):
        return rogue.tell("host1", "Handoff", "SEND", hop=cose, code=code, envelope=env if env is not None else wire.det(envelope))

    # the envelope below its record: each part, each way
    for how, other in changed(envelope):
        tried.refuse(f"envelope: {how}", send, record(), wire.det(other))
    for how, other in changed(code):
        tried.refuse(f"code: {how}", send, record(), None, other if isinstance(other, bytes) else other.encode())
    # the record below its signature
    for how, cose in repacked(record()):
        tried.refuse(how, send, cose)
    for who, signer in {**others, "another kernel": domain.kernel("host0"), "the owner": carol}.items():
        tried.refuse(f"signed by {who}", send, record(signer))
        tried.refuse(f"signed by {who} in host2's name", send, record(wire.Signer(signer.key, rogue.key.chain)))
    # its own signature over what is not so
    for changes in ({"id": bytes(32)}, {"suffix": ".1"}, {"from": "host0"}, {"from": "host1"}, {"dest": "host0"}, {"dest": "host2"},
                    {"kind": 1}, {"kind": 2}, {"kind": -1}, {"prev": bytes(32)}, {"prev": wire.sha(b"x")}, {"parts": {}},
                    {"parts": {**digests(envelope), "more": bytes(32)}}, {"e": [0, b"short"]}, {"e": [-1, bytes(8)]},
                    {"n": -1}, {"time": -1}, {"more": 1}, {"prev": None}, {"parts": None}, {"time": None}, {"boot": b"short"}):
        tried.refuse(f"signed by host2: {changes}", send, record(**changes))
    # a chain that is not the one it came by
    for how, hops in (("none", []), ("twice", [hop, hop]), ("forged", [wire.sign(rogue.key, "hop", payload(hop))]),
                      ("another's", [wire.flip(hop, -1)])):
        env = {**envelope, "hops": hops}
        tried.refuse(f"chain: {how}", send, record(parts=digests(env)), wire.det(env))
    # a ticket or a path that the owner did not sign, under a record that says so
    for how, changes in (("path", {"path": ["host1", "host0"]}), ("ticket", {"ticket": wire.flip(envelope["ticket"])}),
                         ("code", {"code": wire.sha(b"other")})):
        env = {**envelope, **changes}
        tried.refuse(f"envelope signed by host2: {how}", send, record(parts=digests(env)), wire.det(env))
    assert not fleet.residents(name)
    tried.at_least(500)
    env = {**envelope, "path": []}
    assert send(record(parts=digests(env)), wire.det(env))["answer"] == "accepted"
    wait_for(lambda: "host1" in fleet.residents(name))
    tried.refuse("replayed", send, record(n=1, parts=digests(env)), wire.det(env))
    fleet.tos("kill", name)
    fleet.wait_state(name, "killed")


# ---- revocation

def test_no_changed_revocation_list_is_taken_and_what_is_on_its_way_is_stopped(fleet, domain, client, rogue, others):
    admin, carol, tried = domain.principal("admin"), domain.principal("carol"), Tried()
    with open(f"{fleet.home}/ca/revoked", "rb") as f:
        number = payload(f.read())["number"]
    body = {"issued": wire.now_ms(), "number": number + 1, "revoked": sorted([carol.serial], key=lambda s: (len(s), s))}
    good = wire.sign(domain.root, "revocation", body)

    def revoke(cose):
        return client.call("host0/Control", "ACT", {"cose": wire.act(admin, "host0", "revoke", "", {"list": cose})})

    # in transit: host2 has carol's carrier when she is revoked
    _, got = wire.launch(client, carol, carol, path=["host2", "host1"], source=WAITS)
    rogue.unlink("host0")
    name = rogue.take()
    rogue.report(name, n=1, state="running", in_doubt=False)
    for how, cose in repacked(good):
        tried.refuse(how, revoke, cose)
    for how, cose in resigned(domain.root, "revocation", body, {k: v for k, v in others.items() if k != "the root itself"}):
        tried.refuse(how, revoke, cose)
    tried.refuse("older", revoke, wire.sign(domain.root, "revocation", {**body, "number": number - 1}))
    unsorted = {**body, "revoked": [b"\x02", b"\x01"]}
    tried.refuse("unsorted", revoke, wire.sign(domain.root, "revocation", unsorted))
    tried.at_least(200)
    assert revoke(good)["number"] == number + 1
    for kernel in ("host0", "host1"):
        wait_for(lambda kernel=kernel: f"revocation list number={number + 1} " in fleet.log_text(kernel))
    # each way on is closed to it
    rogue.unlink("host1")
    answer = rogue.depart(name, "host1", 1)
    assert answer["answer"] == "refused" and answer["code"] == "revoked", answer
    e = wire.failure(rogue.tell, "host1", "Handoff", "OFFER", ticket=rogue.sent[name][1]["ticket"], code=bytes(32))
    assert e.code == "revoked", e
    assert not fleet.residents(name) and got["name"] == name
