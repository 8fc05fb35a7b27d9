"""Whoever sits at the other end of a listener: slow, silent, half open, flooding, or with a certificate that is no good.

Each has its bound and its end, and meanwhile carriers go on and the command is answered.
"""
import contextlib
import os
import socket
import ssl
import struct
import subprocess
import threading
import time

import pytest

import wire
from conftest import fleet_fixture
from fleet import DEADLINE, KERNEL, SANITIZED, wait_for

pytestmark = pytest.mark.skipif(not os.path.exists(KERNEL), reason="TOS_BUILD names no build with tos-kernel")
CONF = {"timing": {"retry": "200ms", "ping": "500ms", "silent": "3s", "offer": "3s", "report": "3s", "handshake": "2s"}}
fleet = fleet_fixture(n=3, conf=CONF)


@pytest.fixture(scope="module")
def domain(fleet):
    fleet.tos("principal", "add", "alice", "--role", "owner,author")
    return wire.Domain(fleet.home)


def ended(sock, deadline=DEADLINE):
    """Read until the other end closes."""
    sock.settimeout(deadline)
    with contextlib.suppress(ConnectionError, ssl.SSLError):
        while sock.recv(65536):
            pass
    sock.close()


def others_are_served(fleet, within=10):
    """A carrier through all kernels, and the command, in time."""
    began = time.monotonic()
    assert fleet.outcome(fleet.launch("return {1}", "--path", "host1,host0,host2"))["state"] == "finished"
    assert fleet.tos("kernels", "--timeout", "5s")
    assert time.monotonic() - began < within * (10 if SANITIZED else 1)


def link_port(domain):
    host, port = domain.address("host0").rsplit(":", 1)
    return socket.create_connection((host, int(port)), timeout=30)


def local_socket(domain):
    s = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    s.settimeout(30)
    s.connect(f"{domain.home}/kernels/host0/sock")
    return s


def secured(domain, signer, name):
    key, cert = signer.pem(domain.home, f"peer-{name}")
    ctx = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    ctx.check_hostname, ctx.verify_mode = False, ssl.CERT_NONE
    ctx.load_cert_chain(cert, key)
    return ctx.wrap_socket(link_port(domain))


# What each does after it has connected; then it says nothing more.
HALF_HELLO = wire.to_bytes([wire.HELLO, {"version": [1, 1], "name": ""}])[:9]
HELLO_RECORD = bytes.fromhex("16030100f8010000f4030351")  # the first bytes of a TLS hello


@pytest.mark.parametrize("name, listener, said", [
    ("silent", link_port, b""), ("half a TLS hello", link_port, HELLO_RECORD), ("no TLS", link_port, b"GET / HTTP/1.0\r\n\r\n"),
    ("silent", local_socket, b""), ("half a frame", local_socket, HALF_HELLO), ("a huge frame", local_socket, b"\xff\xff\xff\xff"),
    ("an empty frame", local_socket, bytes(4)), ("no frame", local_socket, b"GET / HTTP/1.0\r\n\r\n")],
    ids=lambda v: v if isinstance(v, str) else getattr(v, "__name__", None))
def test_a_crowd_that_never_says_hello_keeps_nobody_out(fleet, domain, name, listener, said):
    crowd = []
    for _ in range(150):  # more than may be unfinished at a time
        with contextlib.suppress(OSError):
            s = listener(domain)
            crowd.append(s)
            if said:
                s.sendall(said)
    others_are_served(fleet)
    for s in crowd:
        ended(s)
    # The last one's place is free a moment after its socket's end was seen.
    wait_for(lambda: fleet.status("host0"), text="host0 takes a client")


def test_a_hello_that_drips_has_its_time(fleet, domain):
    """A byte each 100 ms would take minutes: the whole handshake has 2 s."""
    for listener, text in ((link_port, HELLO_RECORD + bytes(240)), (local_socket, wire.to_bytes([wire.HELLO, {"version": [1, 1]}]) + bytes(9))):
        s, began = listener(domain), time.monotonic()
        s.settimeout(0.1)
        closed = False
        for byte in text:
            try:
                s.sendall(bytes([byte]))
                closed = not s.recv(100)
            except (TimeoutError, socket.timeout):
                continue
            except ConnectionError:
                closed = True
            if closed:
                break
        assert closed and time.monotonic() - began < DEADLINE
        s.close()
    others_are_served(fleet)


def test_strangers_who_join_take_no_place_from_clients_and_have_their_time(fleet, domain):
    joiners, begun, at_once = [], [], 0
    for i in range(40):
        key, cert = wire.joiner().pem(fleet.path, "joiner")
        began = time.monotonic()
        try:
            c = wire.connect_tls(domain.address("host0"), key, cert)
            c.hello(domain=domain.fingerprint.hex())
        except (wire.Closed, OSError):
            continue
        joiners.append(c)
        begun.append(began)
        # On a slow machine the first have gone when the last come: they answer no ping yet, and have 3 s for that.
        at_once = max(at_once, sum(time.monotonic() - x < 3 for x in begun))
    assert 0 < at_once <= 16
    others_are_served(fleet)
    began = time.monotonic()
    # they answer each ping, and must go all the same
    for c in joiners:
        with contextlib.suppress(OSError):
            c.closed()
        c.close()
    assert time.monotonic() - began < DEADLINE


def test_one_local_user_leaves_room_for_others(fleet, domain):
    if os.geteuid() != 0:
        pytest.skip("needs root to become another user")
    for d in (fleet.home, f"{fleet.home}/kernels", f"{fleet.home}/kernels/host0"):
        os.chmod(d, 0o711)
    os.chmod(f"{fleet.home}/kernels/host0/sock", 0o666)
    code = ("import sys; sys.path.insert(0, sys.argv[1]); import wire\n"
            "kept = []\n"
            "for i in range(300):\n"
            "    c = wire.connect_local(sys.argv[2])\n"
            "    try:\n"
            "        c.hello(); kept.append(c)\n"
            "    except (wire.Closed, OSError): pass\n"
            "print(len(kept), flush=True)\n"
            "sys.stdin.read()\n")
    p = subprocess.Popen(["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", "/usr/bin/python3", "-B", "-c", code,
                          os.path.dirname(__file__), f"{fleet.home}/kernels/host0/sock"], stdin=subprocess.PIPE,
                         stdout=subprocess.PIPE, text=True)
    try:
        kept = int(p.stdout.readline())
        assert 10 < kept <= 64, kept
        others_are_served(fleet)
    finally:
        p.stdin.close()
        p.wait(timeout=60)


# ---- peers that are in

def rogue(fleet, domain, boot):
    return domain.as_kernel("host2", "host0", directory=fleet.path, boot=boot)


def test_a_peer_that_sends_what_it_may_not_is_cut_off_and_nobody_else(fleet, domain):
    fleet.tos("down", "host2")
    frames = {
        "more posts than credit": lambda c: [c.post("host0/Echo", "x", sender="host2/Kernel") for _ in range(5000)],
        "chunks without end": lambda c: [c.send(wire.CHUNK, wire.sha(b"x"), 65536 * i, 1 << 27, bytes(65536)) for i in range(300)],
        "a second hello": lambda c: c.send(wire.HELLO, {"version": [1, 1]}),
        "an unknown frame": lambda c: c.send(77, 1),
        "no array": lambda c: c.raw(struct.pack(">I", 1) + b"\xa0"),
        "half a frame, then nothing": lambda c: c.raw(struct.pack(">I", 100) + b"\x82"),
        "a frame beyond the limit": lambda c: c.raw(struct.pack(">I", (1 << 20) + 1)),
        "credit beyond all": lambda c: [c.send(wire.CREDIT, 2 ** 32 - 1, 0) for _ in range(3)],
        "nothing at all": lambda c: None,
        "ticket that is none": lambda c: c.send(wire.VOUCH, b"x", [b"y"] * 65),
    }
    try:
        for i, (name, do) in enumerate(frames.items()):
            c = rogue(fleet, domain, (1 << 40) + i)
            with contextlib.suppress(OSError):
                do(c)
            c.sock.settimeout(DEADLINE)
            assert silence(c), name
            c.close()
            assert fleet.outcome(fleet.launch("return {1}", "--path", "host1"))["state"] == "finished", name
    finally:
        fleet.up()
    others_are_served(fleet)


def silence(c):
    """Until it is cut off; pings are not answered."""
    try:
        while True:
            c.read(4)
    except (wire.Closed, OSError):
        return True


def test_a_peer_that_reads_nothing_fills_no_memory(fleet, domain):
    """What is asked for and never read is bounded, and the link ends."""
    fleet.tos("down", "host2")
    try:
        c = rogue(fleet, domain, 1 << 41)
        before = rss(fleet, "host0")
        with contextlib.suppress(OSError, wire.Closed):
            for _ in range(2000):
                c.post("host0/Echo", "x", "y" * 50000, kind=wire.CALL, sender="host2/Kernel", tag=1)
        others_are_served_by(fleet)
        wait_for(lambda: not [k for k in fleet.json("kernels") if k["name"] == "host2" and k["linked"]])
        assert SANITIZED or rss(fleet, "host0") < before + (64 << 20)  # a sanitizer keeps what was freed
        c.close()
    finally:
        fleet.up()


def others_are_served_by(fleet):
    assert fleet.outcome(fleet.launch("return {1}", "--path", "host1"))["state"] == "finished"


def rss(fleet, kernel):
    with open(f"/proc/{fleet.pid(kernel, 'tos-kernel')}/statm") as f:
        return int(f.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


# ---- certificates on both ends of TLS

def bad_certificates(domain):
    registrar = wire.load(f"{domain.home}/ca/registrar.key", f"{domain.home}/ca/registrar.crt")
    strange = wire.root("another root")
    made = {
        "foreign": wire.issue("host2", ["tos:kernel:host2"], strange),
        "expired": wire.issue("host2", ["tos:kernel:host2"], registrar, begin_s=-7200, life_s=3600),
        "not yet valid": wire.issue("host2", ["tos:kernel:host2"], registrar, begin_s=7200),
        "another name": wire.issue("host9", ["tos:kernel:host9"], registrar),
        "name and URI differ": wire.issue("host2", ["tos:kernel:host1"], registrar),
        "a principal": wire.principal("host2", ["admin"], domain.root),
        "a principal by the registrar": wire.principal("host2", ["admin"], registrar),
        "two kinds": wire.issue("host2", ["tos:kernel:host2", "tos:principal:host2", "tos:role:admin"], domain.root),
        "an authority": wire.issue("host2", ["tos:kernel:host2"], registrar, ca=True, path_length=0),
        "a joiner": wire.joiner(),
        "issued by a kernel": wire.issue("host2", ["tos:kernel:host2"], domain.kernel("host1")),
        "no purpose": wire.issue("host2", [], registrar),
    }
    for name, s in made.items():
        if name in ("expired", "not yet valid", "another name", "name and URI differ", "a principal by the registrar", "an authority",
                    "no purpose"):
            s.chain = [*s.chain, *registrar.chain]
    return made


def test_no_kernel_takes_a_peer_with_a_certificate_that_is_no_good(fleet, domain):
    fleet.tos("down", "host2")
    try:
        for i, (name, signer) in enumerate(bad_certificates(domain).items()):
            try:
                c = domain.as_kernel("host2", "host0", signer=signer, directory=fleet.path, boot=(1 << 42) + i)
                e = wire.failure(c.call, "host0/Handoff", "HOLDS", {"name": "x", "id": bytes(32)}, sender="host2/Kernel")
                assert e.code == "denied", (name, e)  # it is a client then, or a joiner
                c.close()
            except (wire.Closed, OSError):
                pass
            assert not [k for k in fleet.json("kernels") if k["name"] == "host2" and k["linked"]], name
        c = domain.as_kernel("host2", "host0", directory=fleet.path, boot=1 << 43)
        assert c.call("host0/Handoff", "HOLDS", {"name": "x", "id": bytes(32)}, sender="host2/Kernel")["state"] == "unknown"
        c.close()
        # an older TLS, and none of our own certificates
        host, port = domain.address("host0").rsplit(":", 1)
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            ctx = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            ctx.check_hostname, ctx.verify_mode, ctx.maximum_version = False, ssl.CERT_NONE, version
            with pytest.raises((OSError, wire.Closed)):
                c = wire.Connection(ctx.wrap_socket(socket.create_connection((host, int(port)), timeout=30)))
                c.hello(name="host2")
    finally:
        fleet.up()


def test_no_kernel_says_anything_to_a_server_with_a_certificate_that_is_no_good(fleet, domain):
    """host2's port is taken by somebody: what host0 dials there hears no hello."""
    fleet.tos("down", "host2")
    host, port = domain.address("host2").rsplit(":", 1)
    heard = {}
    try:
        for name, signer in bad_certificates(domain).items():
            key, cert = signer.pem(fleet.path, "server")
            ctx = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            ctx.load_cert_chain(cert, key)
            ctx.verify_mode = ssl.CERT_NONE
            with socket.socket() as listener:
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                listener.bind((host, int(port)))
                listener.listen()
                listener.settimeout(DEADLINE)
                done = threading.Event()

                def serve():
                    heard[name] = b""
                    try:
                        s = ctx.wrap_socket(listener.accept()[0], server_side=True)
                        s.settimeout(DEADLINE)
                        heard[name] = s.recv(1000)
                    except OSError:
                        pass
                    done.set()

                t = threading.Thread(target=serve)
                t.start()
                name_of = fleet.launch("return {1}", "--path", "host2", "--on-unreachable", "fail")
                assert done.wait(DEADLINE), name
                t.join()
            assert heard[name] == b"", (name, heard[name])
            fleet.run("kill", name_of)
    finally:
        fleet.up()
    assert len(heard) == 12
