"""Every port of a kernel, fed at random with what no honest peer sends: bytes before TLS, frames before the hello, frames and
folders behind it, as a stranger, a host that joins, a kernel and a local client. The kernel goes on, no larger than it was.

A few seconds of it in each run; TOS_SOAK=1 has it go on for TOS_SOAK_SECONDS (an hour of the sanitizer build: SEC-41).
TOS_SEED repeats an order. The fuzzers proper (tests/fuzz) run the decoders in memory, where coverage leads them.
"""
import glob
import os
import random
import re
import socket
import time

import cbor2
import pytest

import wire
from conftest import fleet_fixture
from fleet import KERNEL, QUICK, SANITIZED, wait_for

pytestmark = pytest.mark.skipif(not os.path.exists(KERNEL), reason="TOS_BUILD names no build with tos-kernel")
TOP = os.path.join(os.path.dirname(__file__), "../..")
SECONDS = float(os.environ.get("TOS_SOAK_SECONDS", 3600)) if os.environ.get("TOS_SOAK") == "1" else 6.0
SEED = int(os.environ.get("TOS_SEED", time.time_ns() % 100000))
GROWTH_KIB = 48 << 10
CONF = {"timing": dict(QUICK["timing"], handshake="2s")}
fleet = fleet_fixture(n=3, conf=CONF)


def verbs():
    """(inbox, verb, names of arguments) as doc/inboxes.md has them."""
    found, inbox = [], None
    with open(os.path.join(TOP, "doc/inboxes.md")) as f:
        for line in f:
            if line.startswith("## "):
                inbox = line[3:].split(":")[0].split()[0]
            cells = line.split("|")
            if inbox and len(cells) > 3 and re.fullmatch(r" [A-Z_]+ ", cells[1]):
                found.append((inbox, cells[1].strip(), re.findall(r"\b[a-z_]+\b", cells[2].split("}")[0])))
    assert len(found) > 30, found
    return found


def seeds():
    out = []
    for path in glob.glob(os.path.join(TOP, "tests/fuzz/wire/corpus/*/*")) + glob.glob(os.path.join(TOP, "tests/fuzz/link/corpus/*/*")):
        with open(path, "rb") as f:
            out.append(f.read(1 << 16))
    assert len(out) > 50, len(out)
    return sorted(out)


class Storm:
    def __init__(self, fleet, domain):
        self.fleet, self.domain, self.r = fleet, domain, random.Random(SEED)
        self.seeds, self.verbs, self.n, self.boot = seeds(), verbs(), {}, 1 << 40
        self.ids = [name for name in ("host0#1", "host0#2", "host1", "host2", "Echo", "admin", "")]

    # ---- what is said

    def bytes(self):
        b, r = bytearray(self.r.choice(self.seeds)), self.r
        for _ in range(r.randrange(5)):
            how, at = r.randrange(5), r.randrange(len(b) + 1)
            if how == 0 and b:
                b[at % len(b)] ^= 1 << r.randrange(8)
            elif how == 1:
                del b[at:at + r.randrange(1, 9)]
            elif how == 2:
                b[at:at] = r.randbytes(r.randrange(1, 9))
            elif how == 3:
                b[at:at] = r.choice(self.seeds)[:r.randrange(1, 200)]
            elif b:
                b[at % len(b)] = r.choice((0, 0x7f, 0x80, 0x9f, 0xbf, 0xff))
        return bytes(b)

    def value(self, depth=3):
        r, kind = self.r, self.r.randrange(9 if depth else 6)
        if kind == 0:
            return r.choice((0, 1, -1, 23, 24, 2 ** 31, 2 ** 63 - 1, -2 ** 63, 2 ** 64 - 1))
        if kind == 1:
            return r.choice(self.ids)
        if kind == 2:
            return r.choice((b"", bytes(16), bytes(32), self.bytes()[:4000]))
        if kind == 3:
            return r.choice((True, False, None, 1.5))
        if kind == 4:
            return r.choice(("x" * 200, "\0", "../..", "host0/Control", "%s%n", "é" * 40))
        if kind == 5:
            return r.randbytes(r.randrange(40))
        if kind == 6:
            return [self.value(depth - 1) for _ in range(r.randrange(4))]
        if kind == 7:
            return {r.choice(("name", "id", "e", "n", "x")): self.value(depth - 1) for _ in range(r.randrange(4))}
        return [r.choice((0, 1, 2 ** 40)), r.randbytes(8)]  # an incarnation

    def post(self, c, sender, kernel="host0"):
        r = self.r
        inbox, verb, names = r.choice(self.verbs)
        args = {n: self.value() for n in names if r.random() < 0.8}
        if r.random() < 0.1:
            args[r.choice(("more", "name", ""))] = self.value()
        elements = [args] if r.random() < 0.9 else [self.value() for _ in range(r.randrange(3))]
        dest = r.choice((f"{kernel}/{inbox}",) * 8 + (inbox, "host0#1/x", "", "host9/" + inbox))
        c.send(wire.POST, r.choice((0, 1, 1, 1, 1, 2, 3, 9)), dest, r.choice((sender,) * 8 + ("host1/Kernel", "host0#1", "")),
               r.randrange(1, 99), r.choice((0, 20, 20000, 2 ** 40)), r.choice((b"", bytes(16), b"x")), [verb, elements])

    # ---- where

    def tcp(self):
        host, port = self.domain.address("host0").rsplit(":", 1)
        with socket.create_connection((host, int(port)), timeout=5) as s:
            s.sendall(self.bytes())

    def secured(self, signer, name):
        key, cert = signer.pem(self.fleet.path, name)
        return wire.connect_tls(self.domain.address("host0"), key, cert)

    def before_hello(self, c):
        with c:
            for _ in range(self.r.randrange(1, 4)):
                b = self.bytes()
                c.raw(b if self.r.random() < 0.3 else len(b).to_bytes(4, "big") + b)

    def stranger(self):
        root = wire.root("another root")
        self.before_hello(self.secured(wire.principal("host1", ["admin"], root), "stranger"))

    def joiner(self):
        c = self.secured(wire.joiner(), "joiner")
        if self.r.random() < 0.5:
            self.before_hello(c)
            return
        with c:
            c.hello()
            self.talk(c, "", 10)

    def kernel(self):
        self.boot += 1
        with self.domain.as_kernel("host2", "host0", directory=self.fleet.path, boot=self.boot) as c:
            self.talk(c, "host2/Kernel", 120)

    def raw_kernel(self):
        self.before_hello(self.secured(self.domain.kernel("host2"), "host2"))

    def client(self):
        with self.domain.client() as c:
            self.talk(c, "", 120)

    def raw_client(self):
        self.before_hello(wire.connect_local(f"{self.domain.home}/kernels/host0/sock"))

    def talk(self, c, sender, most):
        """Folders that mean something, mostly, and now and then a frame that does not."""
        for _ in range(self.r.randrange(1, most)):
            self.post(c, sender)
        if self.r.random() < 0.7:
            b = self.bytes()
            c.raw(len(b).to_bytes(4, "big") + b)
        c.sock.settimeout(0.05)  # what it answers is taken, not looked at
        while True:
            c.frame(0.3)

    def once(self):
        how = self.r.choice((self.tcp, self.stranger, self.joiner, self.kernel, self.kernel, self.raw_kernel, self.client, self.client,
                             self.raw_client))
        self.n[how.__name__] = self.n.get(how.__name__, 0) + 1
        try:
            how()
        except (OSError, wire.Closed, wire.Failure, AssertionError, TimeoutError, cbor2.CBORError):
            pass  # cut off, mostly; whether the kernel is well is looked at elsewhere


def rss_kib(pid):
    with open(f"/proc/{pid}/status") as f:
        return next(int(line.split()[1]) for line in f if line.startswith("VmRSS"))


def goes_round(fleet):
    o = fleet.outcome(fleet.launch("function begin(self) self.n = (self.n or 0) + 1 end", "--path", "host0,host1,host0"))
    assert o["state"] == "finished", o


def test_what_comes_through_the_ports_ends_nobody_and_stays_in_no_memory(fleet):
    print(f"TOS_SEED={SEED}")
    fleet.tos("down", "host2")
    storm, pid = Storm(fleet, wire.Domain(fleet.home)), fleet.pid("host0", "tos-kernel")
    end, warm, before, looked = time.monotonic() + SECONDS, time.monotonic() + min(SECONDS / 3, 60), 0, 0
    while time.monotonic() < end:
        storm.once()
        if not before and time.monotonic() > warm:
            before = rss_kib(pid)
        if time.monotonic() > looked + 30:
            looked = time.monotonic()
            assert fleet.processes("host0", "tos-kernel") == [pid], f"the kernel ended; TOS_SEED={SEED}"
            goes_round(fleet)
    print(storm.n)
    assert fleet.processes("host0", "tos-kernel") == [pid], f"the kernel ended; TOS_SEED={SEED}"
    wait_for(lambda: fleet.status("host0"))
    goes_round(fleet)
    assert sum(storm.n.values()) > 5 and {"kernel", "client"} <= set(storm.n), storm.n
    # With the sanitizers freed memory waits, and LeakSanitizer has its say at the end.
    if not SANITIZED:
        assert rss_kib(pid) < before + GROWTH_KIB, (before, rss_kib(pid))
