"""Where kernels live: other users, closed directories, no user namespaces, full and read-only disks, wrong clocks,
broken files, and peers and clients that talk nonsense."""
import contextlib
import os
import shutil
import socket
import struct
import subprocess
import tempfile

import pytest

import wire
from conftest import fleet_fixture
from fleet import BUILD, KERNEL, TOS, wait_for

pytestmark = pytest.mark.skipif(not os.path.exists(KERNEL), reason="TOS_BUILD names no build with tos-kernel")
fleet = fleet_fixture(n=2)
TOSD = os.path.join(BUILD, "src/tosd/tosd")
ROOT = os.geteuid() == 0
AS_USER = ["setpriv", "--reuid", "12345", "--regid", "12345", "--clear-groups"]
asroot = pytest.mark.skipif(not ROOT, reason="needs root")
WAITS = "tos.inbox('done'):next(3600)"


class Home:
    """A TOS_HOME of one kernel, as this user or as 12345."""

    def __init__(self, user=False, mode=0o755, below=None):
        self.base = below or tempfile.mkdtemp(prefix="tos-env.")
        self.own = not below
        self.path = os.path.join(self.base, "x") if not below else self.base
        os.makedirs(self.path, exist_ok=True)
        self.user = AS_USER if user and ROOT else []
        if self.user:
            os.chown(self.path, 12345, 12345)
        os.chmod(self.base, 0o755)
        os.chmod(self.path, mode)
        self.home = os.path.join(self.path, "h")
        self.env = dict(os.environ, TOS_HOME=self.home, HOME=self.path)
        self.conf = f"{self.home}/kernels/host0/tosd.conf"

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.run("down", timeout=90)
        if self.own:
            shutil.rmtree(self.base, ignore_errors=True)

    def run(self, *args, timeout=90, env=None):
        return subprocess.run([*self.user, TOS, *args], env={**self.env, **(env or {})}, cwd="/", timeout=timeout,
                              capture_output=True, text=True)

    def tos(self, *args, expect=0, **kw):
        r = self.run(*args, **kw)
        assert r.returncode == expect, f"tos {' '.join(args)}: {r.returncode}\n{r.stdout}\n{r.stderr}\n{self.log()}"
        return r.stdout

    def log(self):
        try:
            with open(f"{self.home}/kernels/host0/log", errors="replace") as f:
                return f.read()
        except OSError:
            return ""

    def configure(self, text):
        with open(self.conf, "a") as f:
            f.write(text)

    def tosd(self, *args, timeout=60, wrap=()):
        """tosd in the foreground; its result once it has ended."""
        return subprocess.run([*wrap, *self.user, TOSD, *(args or ("-c", self.conf))], env=self.env, timeout=timeout,
                              capture_output=True, text=True, cwd="/")

    def tour(self):
        self.tos("up")
        r = self.tos("launch", "facts", "--path", "@all", "--wait", "--json")
        assert '"finished"' in r and '"host0"' in r


# ---- who and where

def test_as_an_ordinary_user():
    with Home(user=True) as h:
        h.tour()


@pytest.mark.skipif(not ROOT, reason="needs root")
def test_somebody_elses_kernels_are_not_started():
    with Home() as h:
        h.tos("init")
        h.user = AS_USER
        r = h.run("up")
        assert r.returncode == 3 and "this user may not write in" in r.stderr, r.stderr
        assert "did not start" not in r.stderr and h.log() == ""
        h.user = []


@pytest.mark.parametrize("user", [False, True])
def test_below_a_directory_that_only_its_owner_may_enter(user):
    with Home(user=user, mode=0o700) as h:
        h.tour()


@pytest.mark.parametrize("user", [False, True])
def test_without_user_namespaces_the_level_is_reduced_with_one_warning(user):
    with Home(user=user) as h:
        h.tos("init")
        h.configure("sandbox { test_no_userns = true }\n")
        h.tour()
        warnings = [line for line in h.log().splitlines() if " warning " in line and "reduced" in line]
        assert len(warnings) == 1, h.log()
        assert "reduced" in h.run("doctor").stdout


def test_a_required_layer_that_is_missing_refuses_to_start():
    with Home() as h:
        h.tos("init")
        h.configure('sandbox { test_no_userns = true require = {"user-namespace"} }\n')
        r = h.tosd()
        assert r.returncode != 0
        assert r.stderr.splitlines()[-1].startswith("tosd: sandbox.require wants user-namespace"), r.stderr


# ---- what is in the way

def errors(r):
    return [line for line in r.stderr.splitlines() if " error " in line or line.startswith(("tosd:", "tos:"))]


def test_a_port_in_use_is_named():
    with Home() as h:
        h.tos("init")
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            s.listen()
            port = s.getsockname()[1]
            with open(h.conf) as f:
                text = f.read()
            listen = next(line for line in text.splitlines() if line.startswith("listen"))
            with open(h.conf, "w") as f:
                f.write(text.replace(listen, f'listen = {{"127.0.0.1:{port}"}}'))
            r = h.tosd()
            assert r.returncode != 0 and str(port) in r.stderr and len(errors(r)) == 1, r.stderr
            r = h.run("up")
            assert r.returncode == 1 and str(port) in r.stderr, r.stderr


@pytest.mark.parametrize("text, word", [("nonsense = 1\n", "nonsense"), ('limits { cpu = "soon" }\n', "soon"),
                                        ('policy { rules = {"allow everybody"} }\n', "everybody"), ("log {\n", "")])
def test_a_broken_configuration_is_named_with_file_and_line(text, word):
    with Home() as h:
        h.tos("init")
        with open(h.conf) as f:
            line = len(f.read().splitlines()) + 1
        h.configure(text)
        for r in (h.tosd("-t", "-c", h.conf), h.tosd(), h.run("up")):
            assert r.returncode != 0
            assert word in r.stderr and f"tosd.conf:{line}" in r.stderr or text == "log {\n" and "tosd.conf:" in r.stderr, r.stderr
        assert not os.path.exists(f"{h.home}/kernels/host0/sock")


def test_a_read_only_state_directory_is_one_line():
    with Home(user=True) as h:
        h.tos("init")
        state = f"{h.home}/kernels/host0"
        if ROOT:
            os.chown(state, 0, 0)
        os.chmod(state, 0o555)
        for name in os.listdir(state):
            os.chmod(os.path.join(state, name), 0o644)
        r = h.tosd()
        assert r.returncode != 0 and len(errors(r)) == 1 and "host0" in r.stderr, r.stderr
        os.chmod(state, 0o755)


def test_a_corrupt_store_is_one_line_and_is_not_touched():
    with Home() as h:
        h.tour()
        h.tos("down")
        path = f"{h.home}/kernels/host0/store.db"
        for extra in ("-wal", "-shm"):
            if os.path.exists(path + extra):
                os.unlink(path + extra)
        with open(path, "r+b") as f:
            f.write(b"rubbish" * 600)
        with open(path, "rb") as f:
            before = f.read()
        r = h.tosd()
        assert r.returncode != 0 and path in errors(r)[0] and "restore" in errors(r)[0], r.stderr
        r = h.run("up")
        assert r.returncode == 1 and "store" in r.stderr, r.stderr
        with open(path, "rb") as f:
            assert f.read() == before


def test_a_second_tosd_on_one_state_directory_is_refused(fleet):
    r = subprocess.run([TOSD, "-c", f"{fleet.home}/kernels/host0/tosd.conf"], env=fleet.env, capture_output=True,
                       text=True, timeout=60)
    assert r.returncode != 0 and len(errors(r)) == 1, r.stderr
    assert fleet.status("host0")


def test_a_clock_far_off_is_named_and_nothing_is_lost():
    with Home() as h:
        h.tour()
        h.tos("down")
        r = h.run("up", env={"TOS_CLOCK_SHIFT_S": str(-40 * 365 * 86400)})
        r2 = h.run("launch", "-e", "return {}", "--wait", "--timeout", "10s")
        assert r.returncode or r2.returncode
        text = r.stderr + r2.stderr + h.log()
        assert "clock" in text or "not-yet-valid" in text or "not yet valid" in text, text
        h.run("down")
        h.tos("up")
        assert '"finished"' in h.tos("launch", "facts", "--wait", "--json")
        assert '"host0#1"' in h.tos("ps", "--all", "--json")


def fill(path):
    """Until there is no room for 512 bytes."""
    with open(path, "ab", buffering=0) as f:
        for piece in (bytes(65536), bytes(512)):
            with contextlib.suppress(OSError):
                while True:
                    f.write(piece)


@asroot
def test_a_full_disk_stops_what_is_new_but_killing_works():
    base = tempfile.mkdtemp(prefix="tos-full.")
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=12m", "none", base], capture_output=True).returncode == 0
    if not mounted:
        os.rmdir(base)
        pytest.skip("no tmpfs can be mounted here")
    try:
        with Home(below=base) as h:
            h.tos("up")
            name = h.tos("launch", "-e", WAITS).strip()
            wait_for(lambda: '"running"' in h.run("show", name, "--json").stdout)
            filler = os.path.join(base, "filler")
            fill(filler)

            def refused():
                r = h.run("launch", "-e", "return {}")
                return r.returncode == 1 and r.stderr
            said = wait_for(refused, text="a launch is refused")
            assert len(said.splitlines()) == 1, said
            r = h.run("kill", name)
            wait_for(lambda: '"killed"' in h.run("show", name, "--json").stdout, text=r.stderr + h.log())
            h.run("down")
            fill(filler)
            r = h.run("up")
            assert r.returncode == 1 and "is full; free some space" in r.stderr, r.stderr
            os.unlink(filler)
            h.tos("up")
            assert '"finished"' in h.tos("launch", "facts", "--wait", "--json")
    finally:
        subprocess.run(["umount", "-l", base], capture_output=True)
        shutil.rmtree(base, ignore_errors=True)


# ---- nonsense on the wire

def bodies():
    good = {"version": [1, 1], "name": "", "domain": "", "boot": [0, bytes(16)], "store": 0, "seen": 0, "revocation": 0}
    post = [wire.POST, 1, "host0/Echo", "", 1, 1000, b"", ["x", []]]
    return {
        "a frame too long": [struct.pack(">I", 2 << 20) + b"x" * 100],
        "an empty frame": [struct.pack(">I", 0)],
        "no CBOR": [struct.pack(">I", 4) + b"\xff\xff\xff\xff"],
        "a deep nest": [struct.pack(">I", 200) + b"\x81" * 200],
        "an endless array": [struct.pack(">I", 4) + b"\x9f\x00\x00\xff"],
        "a long form": [struct.pack(">I", 3) + b"\x82\x18\x00"],
        "a type that is not known": [wire.to_bytes([77, 1])],
        "a type of our own processes": [wire.to_bytes([wire.HELLO, good]), wire.to_bytes([32, 1, {}])],
        "a post before the hello": [wire.to_bytes(post)],
        "a second hello": [wire.to_bytes([wire.HELLO, good])] * 2,
        "another version": [wire.to_bytes([wire.HELLO, {**good, "version": [7, 9]}])],
        "a version upside down": [wire.to_bytes([wire.HELLO, {**good, "version": [2, 1]}])],
        "a name that is too long": [wire.to_bytes([wire.HELLO, {**good, "name": "x" * 500}])],
        "a post that is none": [wire.to_bytes([wire.HELLO, good]), wire.to_bytes([wire.POST, 9, 9])],
        "a voucher of a client": [wire.to_bytes([wire.HELLO, good]), wire.to_bytes([wire.VOUCH, b"x", []])],
        "HTTP": [b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"],
    }


@pytest.mark.parametrize("what", bodies())
def test_nonsense_on_the_local_socket_ends_that_connection_only(fleet, what):
    domain = wire.Domain(fleet.home)
    with domain.client() as other:
        c = wire.connect_local(f"{fleet.home}/kernels/host0/sock")
        for part in bodies()[what]:
            try:
                c.raw(part)
            except OSError:
                break
        c.closed()
        c.close()
        assert other.call("host0/Control", "STATUS", {})["ready"]


@pytest.mark.parametrize("what", ["a frame too long", "no CBOR", "a type that is not known", "a second hello", "a post that is none",
                                  "another version", "HTTP"])
def test_nonsense_from_a_kernel_ends_its_link_and_names_it(fleet, what):
    domain = wire.Domain(fleet.home)
    fleet.tos("down", "host1")
    refused = fleet.metric("host0", "tos_link_malformed_total") + fleet.metric("host0", "tos_link_refused_total")
    key, cert = domain.kernel("host1").pem(fleet.path, "nonsense")
    c = wire.connect_tls(domain.address("host0"), key, cert)
    hello = {"name": "host1", "domain": domain.fingerprint.hex(), "boot": [1 << 40, os.urandom(16)]}
    parts = bodies()[what]
    if what not in ("another version",):
        c.hello(**hello)
        parts = parts[-1:]
    before = len(fleet.log_text("host0"))
    for part in parts:
        try:
            c.raw(part)
        except OSError:
            break
    c.closed()
    c.close()
    if what != "another version":
        wait_for(lambda: "host1" in fleet.log_text("host0")[before:], text="the log names host1")
    assert fleet.status("host0")
    after = fleet.metric("host0", "tos_link_malformed_total") + fleet.metric("host0", "tos_link_refused_total")
    assert after > refused or what == "HTTP"
    fleet.up()


def test_plain_bytes_and_silence_on_the_port_harm_nobody(fleet):
    domain = wire.Domain(fleet.home)
    host, port = domain.address("host0").rsplit(":", 1)
    silent = []
    for i in range(100):
        s = socket.create_connection((host, int(port)), 10)
        if i % 2:
            s.sendall(b"\x16\x03\x01" if i % 4 == 1 else b"hello?\n")
        silent.append(s)
    o = fleet.json("launch", "-e", "return {k = tos.kernel()}", "--path", "@all", "--wait")
    assert o["state"] == "finished"
    for s in silent:
        s.close()
    locals_ = [wire.connect_local(f"{fleet.home}/kernels/host0/sock") for _ in range(60)]
    assert fleet.status("host0")
    for c in locals_:
        c.close()
