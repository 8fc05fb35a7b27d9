"""A kernel with a valid certificate that turned bad: host2's key in the hands of a test (doc/protocol.md, "Hand-off")."""
import time

import pytest

import wire
from fleet import DEADLINE


def fixtures(*links):
    """The fixtures domain and rogue of a module whose fleet has a host2: that is down, and the rogue has its key, linked to these."""
    @pytest.fixture(scope="module")
    def domain(fleet):
        fleet.tos("principal", "add", "carol", "--role", "owner,author")
        return wire.Domain(fleet.home)

    @pytest.fixture(scope="module")
    def rogue(fleet, domain):
        fleet.tos("down", "host2")
        r = Rogue(fleet, domain)
        for to in links:
            r.link(to)
        yield r
        r.close()

    return domain, rogue


class Rogue:
    """host2, linked to some kernels: takes carriers as an honest one would, and keeps what it was sent."""

    def __init__(self, fleet, domain):
        self.fleet, self.domain, self.key, self.links = fleet, domain, domain.kernel("host2"), {}
        self.boot, self.used = 1 << 40, {}
        self.sent = {}  # carrier's name -> (hop record, envelope) by which it came

    def link(self, to):
        if to in self.links and time.monotonic() - self.used[to] > 1:
            self.unlink(to)  # nobody answered pings there meanwhile
        self.used[to] = time.monotonic()
        if to not in self.links:
            self.boot += 1
            self.links[to] = self.domain.as_kernel("host2", to, signer=self.key, directory=self.fleet.path, boot=self.boot)
        return self.links[to]

    def unlink(self, to):
        """A link that nobody read from for a while is given up at the other end: the next use makes a new one."""
        if to in self.links:
            self.links.pop(to).close()

    def close(self):
        for c in self.links.values():
            c.close()

    def take(self, frm="host0", answers=True):
        """Serve that link until a carrier was accepted; its name. answers=False: taken, and not a word said."""
        c, name, end = self.link(frm), None, time.monotonic() + DEADLINE
        while not name:
            f = c.frame(end - time.monotonic())
            if f[0] != wire.POST or f[1] != wire.CALL:
                continue
            verb, args = f[7][0], f[7][1][0]
            answer = {}
            if verb == "OFFER":
                answer = {"granted": wire.LIMITS, "need_code": True}
            elif verb == "SEND":
                answer = {"answer": "accepted"}
                envelope = wire.cbor2.loads(args["envelope"])
                name = wire.cbor2.loads(wire.cbor2.loads(envelope["ticket"]).value[2])["name"]
                self.sent[name] = (args["hop"], envelope, args.get("code"))
                if not answers:
                    break
            c.send(wire.POST, wire.ANSWER, f[3], f"host2/{f[2].split('/')[1]}", f[4], 0, b"", ["ok", [answer]])
        return name

    def report(self, name, verb="ARRIVED", **args):
        hop, _, _ = self.sent[name]
        return self.tell("host0", "Home", verb, name=name, id=ident(self.sent[name][1]["ticket"]), e=payload(hop)["e"],
                         hop=hop, **args)

    def tell(self, kernel, inbox, verb, **args):
        return self.link(kernel).call(f"{kernel}/{inbox}", verb, args, sender="host2/Kernel")

    def depart(self, name, dest, n, **changes):
        """A hand-off of the copy it once had, as departure n; the answer."""
        return self.tell(dest, "Handoff", "SEND", **self.record(name, dest, n, **changes))

    def record(self, name, dest, n, **changes):
        """What such a SEND says, to be sent as often, and when, one likes."""
        hop, envelope, code = self.sent[name]
        envelope = {**envelope, "hops": [*envelope["hops"], hop], "path": envelope["path"][1:]}
        record = wire.sign(self.key, "hop", {**payload(hop), "n": n, "from": "host2", "dest": dest, "kind": 0,
                                             "parts": digests(envelope), "prev": wire.sha(hop), "time": wire.now_ms(),
                                             **changes})
        return {"hop": record, "envelope": wire.det(envelope), "code": code}


def payload(cose):
    return wire.cbor2.loads(wire.cbor2.loads(cose).value[2])


def ident(ticket):
    protected, _, body, _ = wire.cbor2.loads(ticket).value
    return wire.sha(wire.det([protected, body]))


def digests(envelope):
    parts = {p: wire.sha(wire.det(envelope[p]))
             for p in ("state", "path", "counters", "trail", "log", "undelivered", "channels")}
    return {**parts, **{f"folder/{n}": wire.sha(wire.det([n, e])) for n, e in envelope["briefcase"].items()}}


def audit(domain, kernel, event):
    with domain.client(kernel) as c:
        rows, got = [], None
        while got is None or len(got) == 200:
            got = c.call(f"{kernel}/Control", "AUDIT", {"after": rows[-1]["seq"] if rows else 0, "most": 200})
            rows += got
        return [r for r in rows if r["event"] == event]
