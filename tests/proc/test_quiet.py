"""A fleet that has nothing to do does nothing: what goes on for ever is a fault that no other test would see.

Others call fleet.quiet() where their scenarios end; here is what rests by itself, and what would not without a pause.
"""
import os
import socket
import ssl
import threading
import time

import pytest

import wire
from conftest import fleet_fixture
from fleet import KERNEL, SANITIZED, QUICK, cpu_ms, wait_for

pytestmark = pytest.mark.skipif(not os.path.exists(KERNEL), reason="TOS_BUILD names no build with tos-kernel")
fleet = fleet_fixture(n=3, conf=QUICK)


def switches(pid):
    """How often it went to sleep."""
    total = 0
    for task in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{task}/status") as f:
            total += int(next(line for line in f if line.startswith("voluntary_ctxt_switches")).split()[1])
    return total


def test_idle_kernels_wake_up_for_their_tick_alone(fleet):
    assert fleet.outcome(fleet.launch("return {1}", "--path", "host1,host2"))["state"] == "finished"
    fleet.quiet()
    pids = [fleet.pid(name, "tos-kernel") for name in fleet.names]

    def a_second():
        before, began = [switches(p) for p in pids], time.monotonic()
        time.sleep(1)
        took = time.monotonic() - began
        return max((switches(p) - n) / took for p, n in zip(pids, before))

    # ten ticks, and two links with two pings a second each way, which are four messages each
    wait_for(lambda: a_second() < 35, text="an idle kernel wakes up less than 35 times a second")
    ext = [p for name in fleet.names for p in fleet.processes(name, "tos-ext")]
    before = [cpu_ms(p) for p in ext]
    time.sleep(0.3)
    assert sum(cpu_ms(p) - n for p, n in zip(ext, before)) < 20 * (5 if SANITIZED else 1)


class Touchy:
    """host2, in the hands of a test: closes each link as soon as something is sent over it."""

    def __init__(self, fleet, domain):
        host, port = domain.address("host2").rsplit(":", 1)
        key, cert = domain.kernel("host2").pem(fleet.path, "touchy")
        self.ctx = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.ctx.load_cert_chain(cert, key)
        self.ctx.load_verify_locations(cadata=ssl.DER_cert_to_PEM_cert(domain.root.chain[0]))
        self.ctx.verify_mode = ssl.CERT_OPTIONAL
        self.domain, self.links, self.closed, self.boot = domain, 0, 0, os.urandom(16)
        self.listener = socket.create_server((host, int(port)))
        self.thread = threading.Thread(target=self.serve)
        self.thread.start()

    def serve(self):
        while True:
            try:
                s = self.listener.accept()[0]
                c = wire.Connection(self.ctx.wrap_socket(s, server_side=True), seconds=30)
            except ssl.SSLError:
                continue
            except OSError:
                return
            try:
                assert c.frame()[0] == wire.HELLO
                c.send(wire.HELLO, {"version": [1, 2], "name": "host2", "domain": self.domain.fingerprint.hex(),
                                    "boot": [1 << 40, self.boot], "store": 1 << 30, "seen": 0, "revocation": 0})
                c.send(wire.CREDIT, 1000, 100)
                self.links += 1
                c.frame()
                self.closed += 1
            except (OSError, wire.Closed, TimeoutError):
                pass
            c.close()

    def close(self):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.thread.join()


def test_a_peer_that_closes_at_each_post_is_dialled_with_pauses(fleet):
    """What it did not acknowledge is sent again when the link is back, and closes it again."""
    to = fleet.launch("tos.sleep(600)", "--path", "host2")
    wait_for(lambda: "host2" in fleet.residents(to), text="it is there")
    fleet.down("host2", hard=True)
    peer = Touchy(fleet, wire.Domain(fleet.home))
    try:
        asker = fleet.launch(f"tos.call('{to}/in', 'x', 60)", "--path", "host1")
        wait_for(lambda: peer.closed > 3, text="it was closed some times")
        n, began = peer.links, time.monotonic()
        time.sleep(1.5)
        assert (peer.links - n) / (time.monotonic() - began) < 8  # two kernels, each after 0.1, 0.2, 0.4 ... s
        fleet.tos("kill", asker)
    finally:
        peer.close()
        fleet.up()
    fleet.tos("kill", to)
    fleet.quiet()
