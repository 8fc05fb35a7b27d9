"""How other hosts come in: tokens on one machine, and kernels in network namespaces of their own."""
import base64
import json
import os
import subprocess
import tempfile

import pytest

import wire
from conftest import fleet_fixture
from fleet import KERNEL, TOS, wait_for

pytestmark = pytest.mark.skipif(not os.path.exists(KERNEL), reason="TOS_BUILD names no build with tos-kernel")
fleet = fleet_fixture(n=1)


class Host:
    """A TOS_HOME of its own below the fleet's folder, as another machine would have it."""

    def __init__(self, path, name, within=()):
        self.name, self.within = name, list(within)
        self.dir = os.path.join(path, "hosts", name)
        os.makedirs(self.dir, exist_ok=True)
        self.home = os.path.join(self.dir, "h")
        self.env = dict(os.environ, TOS_HOME=self.home, HOME=self.dir)
        self.env.pop("TOS_PASSPHRASE", None)

    def run(self, *args, timeout=90):
        return subprocess.run([*self.within, TOS, *args], env=self.env, cwd=self.dir, timeout=timeout,
                              capture_output=True, text=True)

    def tos(self, *args, expect=0, timeout=90):
        r = self.run(*args, timeout=timeout)
        assert r.returncode == expect, f"tos {' '.join(args)} at {self.name}: {r.returncode}\n{r.stdout}\n{r.stderr}\n{self.log()}"
        return r.stdout if expect == 0 else r.stderr

    def log(self):
        try:
            with open(f"{self.home}/kernels/{self.name}/log") as f:
                return f.read()[-4000:]
        except OSError:
            return ""

    def cert(self):
        with open(f"{self.home}/kernels/{self.name}/cert") as f:
            return f.read()


@pytest.fixture
def hosts(fleet):
    made = []

    def make(name, directory=None):
        made.append(Host(os.path.join(fleet.path, directory or f"d{len(made)}"), name))
        return made[-1]

    yield make
    for h in made:
        h.run("down")


def token(fleet, name, *args):
    return fleet.tos("enroll", name, *args).split()[-1]


def linked(fleet):
    return {k["name"] for k in fleet.json("kernels") if k["linked"]}


def test_a_host_joins_and_carriers_visit_it(fleet, hosts):
    h = hosts("web1")
    said = h.tos("join", token(fleet, "web1"), "--listen", "127.0.0.1:31201")
    assert "tos up" in said
    h.tos("up")
    wait_for(lambda: "web1" in linked(fleet))
    o = fleet.json("launch", "-e", "return {k = tos.kernel()}", "--path", "@all", "--wait")
    assert o["state"] == "finished" and {r["k"] for r in o["briefcase"]["RESULTS"]} == {"host0", "web1"}
    # its key never left it, and no key of the domain came to it
    assert sorted(os.listdir(h.home)) == ["domain.conf", "kernels"]
    assert os.stat(f"{h.home}/kernels/web1/key").st_mode & 0o077 == 0


def test_tokens_that_do_not_hold(fleet, hosts):
    t = token(fleet, "web2")
    a = hosts("web2")
    changed = t[:-3] + ("AAA" if t[-3:] != "AAA" else "BBB")
    assert len(a.run("join", changed, "--listen", "127.0.0.1:31202").stderr.splitlines()) == 1
    assert not os.path.exists(f"{a.home}/kernels/web2/tosd.conf")
    a.tos("join", "tos1.rubbish", "--listen", "127.0.0.1:31202", expect=1)
    late = token(fleet, "web3", "--expires", "1ms")
    err = hosts("web3").tos("join", late, "--listen", "127.0.0.1:31203", expect=1)
    assert "expired" in err and "tos enroll" in err
    # the registrar itself looks at the time: the joining clock is a day late
    late = token(fleet, "web3", "--expires", "1ms")
    h = hosts("web3")
    h.env["TOS_CLOCK_SHIFT_S"] = "-86400"
    r = h.run("join", late, "--listen", "127.0.0.1:31203")
    assert r.returncode != 0 and "expired" in r.stderr or "valid" in r.stderr, r.stderr


def test_a_token_is_good_for_one_key_which_may_repeat(fleet, hosts):
    t = token(fleet, "web4")
    a, b = hosts("web4"), hosts("web4")
    a.tos("join", t, "--listen", "127.0.0.1:31204")
    first = a.cert()
    err = b.tos("join", t, "--listen", "127.0.0.1:31205", expect=1)
    assert "another key" in err
    os.unlink(f"{a.home}/kernels/web4/tosd.conf")
    os.unlink(f"{a.home}/kernels/web4/cert")
    a.tos("join", t, "--listen", "127.0.0.1:31204")
    assert a.cert() == first
    # the name is taken now
    r = fleet.run("enroll", "web4")
    assert r.returncode == 1 and "--replace" in r.stderr
    b.tos("join", token(fleet, "web4", "--replace"), "--listen", "127.0.0.1:31205")
    assert b.cert() != first
    b.tos("up")
    wait_for(lambda: "web4" in linked(fleet))


def test_of_two_tokens_for_a_name_one_is_used(fleet, hosts):
    one, two = token(fleet, "web5"), token(fleet, "web5")
    hosts("web5").tos("join", one, "--listen", "127.0.0.1:31206")
    err = hosts("web5").tos("join", two, "--listen", "127.0.0.1:31207", expect=1)
    assert "enrolled" in err


def test_a_token_sent_many_times_at_once_makes_one_certificate(fleet):
    """Different keys race for it: one wins, the others are refused."""
    domain = wire.Domain(fleet.home)
    admin = domain.principal("admin")
    with domain.client() as c:
        text = c.call("host0/Control", "ACT", {"cose": wire.act(admin, "host0", "enroll", "web6")})["token"]

    raw = text.split(".", 1)[1]
    secret = wire.cbor2.loads(base64.urlsafe_b64decode(raw + "=" * (-len(raw) % 4)))["secret"]
    links, codes = [], []
    for i in range(6):
        key, cert = wire.joiner().pem(fleet.path, f"joiner{i}")
        links.append(wire.connect_tls(domain.address("host0"), key, cert))
        links[-1].hello(domain=domain.fingerprint.hex())
    for i, c in enumerate(links):
        c.post("host0/Registrar", "ENROLL", {"name": "web6", "secret": secret, "public_key": bytes([i]) * 32, "address": ""},
               kind=wire.CALL, tag=1)
    for c in links:
        try:
            codes.append("ok" if c.answer(1)["chain"] else "?")
        except wire.Failure as e:
            codes.append(e.code)
        c.close()
    assert sorted(codes) == ["ok"] + ["replayed"] * 5


def test_the_registrar_and_linked_names_need_replace(fleet):
    r = fleet.run("enroll", "host0")
    assert r.returncode == 1 and "--replace" in r.stderr
    assert fleet.run("enroll", "Not A Name").returncode != 0
    assert fleet.run("kernels", "remove", "host0").returncode == 1
    r = fleet.run("kernels", "remove", "hots1")  # nobody of that name: not "removed"
    assert r.returncode == 1 and "no kernel hots1 is in the Directory" in r.stderr and not r.stdout


def test_a_removed_kernel_is_out(fleet, hosts):
    h = hosts("web7")
    h.tos("join", token(fleet, "web7"), "--listen", "127.0.0.1:31208")
    h.tos("up")
    wait_for(lambda: "web7" in linked(fleet))
    assert "revoked" in fleet.tos("kernels", "remove", "web7")
    wait_for(lambda: "web7" not in linked(fleet))
    assert "web7" not in {k["name"] for k in fleet.json("kernels")}
    # started again it is not let in; its log says why
    h.tos("down")
    h.run("up", "--timeout", "3s")
    wait_for(lambda: "revoked" in h.log(), text="the log of web7 says revoked")
    assert "web7" not in linked(fleet)


# ---- each kernel in a network namespace of its own

class Net:
    """A bridge, and namespaces on it with 10.77.0.N; all named after this process."""

    def __init__(self):
        self.spaces, self.bridge = [], f"tosb{os.getpid() % 100000}"
        self.ip("link", "add", self.bridge, "type", "bridge")
        self.ip("addr", "add", "10.77.0.254/24", "dev", self.bridge)
        self.ip("link", "set", self.bridge, "up")

    @staticmethod
    def ip(*args):
        subprocess.run(["ip", *args], check=True, capture_output=True, timeout=20)

    def space(self, n):
        name, link = f"tos{n}-{os.getpid()}", f"t{n}v{os.getpid() % 100000}"
        self.ip("netns", "add", name)
        self.spaces.append(name)
        self.ip("link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", name)
        self.ip("link", "set", link, "master", self.bridge, "up")
        self.ip("-n", name, "addr", "add", f"10.77.0.{n}/24", "dev", "eth0")
        self.ip("-n", name, "link", "set", "eth0", "up")
        self.ip("-n", name, "link", "set", "lo", "up")
        return name

    def close(self):
        for name in self.spaces:
            subprocess.run(["ip", "netns", "del", name], capture_output=True, timeout=20)
        subprocess.run(["ip", "link", "del", self.bridge], capture_output=True, timeout=20)


@pytest.fixture
def net():
    if os.geteuid() != 0:
        pytest.skip("network namespaces need root")
    try:
        n = Net()
    except (OSError, subprocess.CalledProcessError) as e:
        pytest.skip(f"no bridge can be made here: {e}")
    try:
        try:
            n.space(1)
        except subprocess.CalledProcessError as e:
            pytest.skip(f"no network namespace can be made here: {e.stderr}")
        yield n
    finally:
        n.close()


def test_a_carrier_visits_kernels_in_their_own_networks_one_of_which_only_dials_out(net):
    with tempfile.TemporaryDirectory(prefix="tos-net.") as path:
        os.chmod(path, 0o755)
        spaces = net.spaces + [net.space(n) for n in (2, 3)]
        a, b, far = (Host(path, name, ["ip", "netns", "exec", space])
                     for name, space in zip(("host0", "near", "far"), spaces))
        try:
            a.tos("init")
            conf = f"{a.home}/kernels/host0/tosd.conf"
            with open(conf) as f:
                text = f.read()
            address = next(line.split('"')[1] for line in text.splitlines() if line.startswith("listen"))
            with open(conf, "w") as f:
                f.write(text.replace(address, "10.77.0.1:21212"))
            a.tos("up")
            t = a.tos("enroll", "near").split()[-1]
            b.tos("join", t, "--listen", "0.0.0.0:21212")
            t = a.tos("enroll", "far").split()[-1]
            far.tos("join", t, "--listen", "127.0.0.1:21212", "--advertise", "")
            b.tos("up")
            far.tos("up")

            def all_linked():
                return {k["name"] for k in json.loads(a.tos("kernels", "--json")) if k["linked"]} == {"host0", "near", "far"}

            wait_for(all_linked)
            # nobody can dial it
            r = subprocess.run(["ip", "netns", "exec", spaces[1], "/usr/bin/python3", "-c",
                                "import socket; socket.create_connection(('10.77.0.3', 21212), 3)"],
                               capture_output=True, timeout=30)
            assert r.returncode != 0
            for path_ in ("@all", "host0,near,far,near,far,host0"):
                o = json.loads(a.tos("launch", "-e", "return {k = tos.kernel()}", "--path", path_, "--wait", "--json"))
                assert o["state"] == "finished", o
                got = [r["k"] for r in o["briefcase"]["RESULTS"]]
                assert set(got) == {"host0", "near", "far"} and (path_ == "@all" or got == path_.split(","))
            wait_for(lambda: json.loads(b.tos("kernels", "--json")))
        finally:
            for h in (far, b, a):
                h.run("down")
