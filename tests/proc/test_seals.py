"""Folders that the owner sealed or made append-only, on a path with kernels that lie (SEC-31).

host1 and host2 are in the hands of this test: it takes the carrier in as host1, and hands it on as host2. host0,
the carrier's home, is honest and must find what was changed, and by whom.
"""
import os

import cbor2
import pytest

import wire
from conftest import fleet_fixture
from fleet import KERNEL, wait_for

pytestmark = pytest.mark.skipif(not os.path.exists(KERNEL), reason="TOS_BUILD names no build with tos-kernel")
fleet = fleet_fixture(n=3)

PARTS = ("state", "path", "counters", "trail", "log", "undelivered", "channels")


def growth(name, elements):
    """[count, head], from the words of doc/protocol.md."""
    head = wire.sha(name.encode())
    for e in elements:
        head = wire.sha(head + wire.sha(wire.det(e)))
    return [len(elements), head]


def digest(name, elements):
    return wire.sha(wire.det([name, elements]))


@pytest.fixture(scope="module")
def domain(fleet):
    for name in ("host1", "host2"):
        fleet.tos("down", name)
    return wire.Domain(fleet.home)


@pytest.fixture
def client(domain):
    with domain.client() as c:
        yield c


def take_in(link, name):
    """What an honest host1 would answer; the arguments of SEND for this carrier."""
    while True:
        f = link.frame()
        if f[0] != wire.POST or f[1] != wire.CALL:
            continue
        verb, args = f[7][0], f[7][1][0]
        folder = ["failure", ["unsupported", "not here"]]
        if verb == "OFFER":
            folder = ["ok", [{"granted": dict(wire.LIMITS), "need_code": True}]]
        elif verb == "SEND":
            folder = ["ok", [{"answer": "accepted"}]]
        link.send(wire.POST, wire.FAILURE if folder[0] == "failure" else wire.ANSWER, f[3], f[2], f[4], 20000, b"", folder)
        if verb == "SEND" and args["hop"]:
            return args


class Tour:
    """host0 -> host1 -> host2 -> host0, of a carrier with sealed folder CONF and append-only folder LOG."""

    def __init__(self, domain, client, **changes):
        self.domain = domain
        admin = domain.principal("admin")
        briefcase = {"CONF": ["keep", 1], "LOG": ["begun"], "FREE": [1]}
        changes.setdefault("sealed", {"CONF": digest("CONF", briefcase["CONF"])})
        changes.setdefault("append", {"LOG": growth("LOG", briefcase["LOG"])})
        with domain.as_kernel("host1", "host0") as link:
            _, a = wire.launch(client, admin, admin, path=["host1", "host2", "host0"], briefcase=wire.det(briefcase),
                               **changes)
            self.name = a["name"]
            self.args = take_in(link, self.name)
        self.envelope = cbor2.loads(self.args["envelope"])
        self.hop, self.cose = self.record(self.args["hop"]), self.args["hop"]

    @staticmethod
    def record(cose):
        return cbor2.loads(cbor2.loads(cose).value[2])

    def go(self, sender, dest, change=None, **fields):
        """The next record of the chain: sender changes the briefcase and says that it is all right."""
        if change:
            change(self.envelope["briefcase"])
        env = self.envelope
        env["hops"] = [*env["hops"], self.cose]
        env["path"] = env["path"][1:]
        b = env["briefcase"]
        hop = {**self.hop, "n": self.hop["n"] + 1, "from": sender, "dest": dest, "prev": wire.sha(self.cose),
               "time": wire.now_ms(), "grown": {"LOG": growth("LOG", b.get("LOG", []))},
               "parts": {**{p: wire.sha(wire.det(env[p])) for p in PARTS},
                         **{f"folder/{n}": digest(n, e) for n, e in b.items()}}, **fields}
        hop = {k: v for k, v in hop.items() if v is not None}
        self.hop, self.cose = hop, wire.sign(self.domain.kernel(sender), "hop", hop)
        return self

    def arrive(self):
        """What host0 answers to host2."""
        with self.domain.as_kernel("host2", "host0") as link:
            return link.call("host0/Handoff", "SEND", {"hop": self.cose, "envelope": wire.det(self.envelope),
                                                       "code": self.args["code"]}, sender="host2/Kernel")


def test_an_honest_path_keeps_the_one_and_lets_the_other_grow(fleet, domain, client):
    def work(b):
        b["LOG"].append("at a host")
        b["FREE"] = [2]
        b["NEW"] = ["x"]

    t = Tour(domain, client)
    assert t.go("host1", "host2", work).go("host2", "host0", work).arrive()["answer"] == "accepted"
    o = fleet.outcome(t.name)
    assert o["state"] == "finished", o
    assert o["briefcase"] == {"CONF": ["keep", 1], "LOG": ["begun", "at a host", "at a host"], "FREE": [2], "NEW": ["x"]}
    shown = fleet.show(t.name)
    assert shown["sealed"] == ["CONF"] and shown["append_only"] == ["LOG"]


def change(b):
    b["CONF"][0] = "other"


def remove(b):
    del b["CONF"]


def shorten(b):
    b["LOG"].pop()


def rewrite(b):
    b["LOG"] = ["never begun", "more"]


def grow(b):
    b["LOG"].append("at a host")


def drop(b):
    del b["LOG"]


@pytest.mark.parametrize("liar", ["host1", "host2"])
@pytest.mark.parametrize("folder,lie", [("CONF", change), ("CONF", remove), ("LOG", shorten), ("LOG", rewrite), ("LOG", drop)])
def test_the_next_honest_kernel_finds_the_change_and_names_who_made_it(fleet, domain, client, folder, lie, liar):
    before = fleet.metric("host0", "tos_seals_broken_total")
    t = Tour(domain, client)
    t.go("host1", "host2", lie if liar == "host1" else grow)  # host2 shortens it by what host1 had added
    answer = t.go("host2", "host0", lie if liar == "host2" else None).arrive()
    assert answer["answer"] == "refused" and answer["code"] == "bad-signature", answer
    assert f"folder {folder} " in answer["text"] and f"changed at {liar}" in answer["text"], answer
    assert fleet.metric("host0", "tos_seals_broken_total") == before + 1
    wait_for(lambda: f"folder={folder} by={liar}" in fleet.log_text("host0"), text="the log names it")
    fleet.tos("kill", t.name)


def test_a_record_that_leaves_the_growth_out_is_no_record(fleet, domain, client):
    for who, fields in (("host1", {"grown": None}), ("host2", {"grown": {"LOG": [0, wire.sha(b"LOG")]}})):
        t = Tour(domain, client)
        t.go("host1", "host2", None, **(fields if who == "host1" else {}))
        answer = t.go("host2", "host0", None, **(fields if who == "host2" else {})).arrive()
        assert answer["answer"] == "refused" and f"changed at {who}" in answer["text"], answer


def test_a_ticket_that_seals_something_else_is_not_launched(fleet, domain, client):
    for changes in ({"sealed": {"CONF": bytes(32)}}, {"sealed": {"NONE": bytes(32)}}, {"append": {"LOG": [0, bytes(32)]}},
                    {"append": {"LOG": growth("LOG", [])}}):
        admin = domain.principal("admin")
        b = {"CONF": ["keep"], "LOG": ["begun"]}
        e = wire.failure(wire.launch, client, admin, admin, briefcase=wire.det(b), **changes)
        assert e.code == "bad-signature" and ("CONF" in e.text or "NONE" in e.text or "LOG" in e.text), e


def test_more_elements_than_can_be_followed_are_refused_at_the_launch(fleet, domain, client):
    admin, elements = domain.principal("admin"), [1] * 16385
    e = wire.failure(wire.launch, client, admin, admin, briefcase=wire.det({"LOG": elements}),
                     append={"LOG": growth("LOG", elements)})
    assert e.code == "too-large", e


def test_a_carrier_finds_its_folders_sealed(fleet):
    lua = """
        local c, l = tos.briefcase:folder("CONF"), tos.briefcase:folder("LOG")
        local function no(f, ...) return not pcall(f, ...) end
        l:push("one"):enqueue("two") l[#l + 1] = "three" l:set(#l + 1, "four")
        return { c:seal(), l:seal(), tos.briefcase:folder("FREE"):seal() or "none", c[1], #l,
            no(c.push, c, 1), no(c.pop, c), no(c.set, c, 1, 2), no(c.clear, c), no(function() c[1] = 2 end),
            no(function() tos.briefcase.CONF = nil end), no(function() tos.briefcase:delete("CONF") end),
            no(l.pop, l), no(l.dequeue, l), no(l.clear, l), no(l.set, l, 1, 2), no(l.set, l, { 1 }),
            no(function() tos.briefcase.LOG = {} end), no(function() tos.briefcase:unarchive(tos.briefcase:archive()) end) }"""
    name = fleet.launch(lua, "--data", "CONF=1", "--seal", "CONF", "--append-only", "LOG")
    o = fleet.outcome(name)
    assert o["state"] == "finished", o["fault"]
    assert o["briefcase"]["RESULTS"][0]["value"] == ["sealed", "append", "none", 1, 4] + [True] * 14
    assert o["briefcase"]["CONF"] == [1] and o["briefcase"]["LOG"] == ["one", "two", "three", "four"]
    text = fleet.tos("show", name)
    assert "sealed      CONF" in text and "append only LOG" in text


def test_what_cannot_be_sealed_is_said_before_anything_is_sent(fleet):
    for args, words in ((("--seal", "NONE"), "there is no folder NONE"), (("--seal", "CODE"), "signatures of their own"),
                        (("--data", "A=1", "--seal", "A", "--append-only", "A"), "not both")):
        r = fleet.run("launch", "-e", "return 1", *args)
        assert r.returncode == 1 and words in r.stderr or r.returncode == 2 and words in r.stderr, (r.returncode, r.stderr)
    fleet.file("c.lua", "function begin() end\n")
    fleet.tos("build", "c.lua", "--data", "A=1", "--seal", "A", "--append-only", "B", "-o", "c.tos")
    v = fleet.json("verify", "c.tos")
    assert v["sealed"] == {"A": digest("A", [1]).hex()} and v["append_only"] == ["B"]
    shown = fleet.show(fleet.tos("launch", "c.tos").strip())
    assert shown["sealed"] == ["A"] and shown["append_only"] == ["B"]
