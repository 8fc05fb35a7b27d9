"""n kernels, each in a network namespace of its own, and what happens to them in a storm: kernels are killed, links cut.
Without root, or without namespaces, they share a loopback and no link is cut: honest, and said.
"""
import json
import os
import random
import shutil
import signal
import subprocess
import tempfile
import time

import fleet as fleets
from fleet import TOS, conf_text, process_table, stir, wait_for

CONF = {"timing": {"retry": "200ms", "ping": "500ms", "silent": "2s", "offer": "2s", "report": "2s", "handshake": "2s",
                   "call": "3s", "restart": "400ms"}}


def ip(*args):
    subprocess.run(["ip", *args], check=True, capture_output=True, timeout=20)


class Kernel:
    """One of them, with a TOS_HOME of its own as if on another machine."""

    def __init__(self, path, name, space, address):
        self.name, self.space, self.address = name, space, address
        self.dir = os.path.join(path, name)
        os.makedirs(self.dir)
        self.home = os.path.join(self.dir, "h")
        self.env = dict(os.environ, TOS_HOME=self.home, HOME=self.dir)
        self.within = ["ip", "netns", "exec", space] if space else []
        self.cut = False
        self.kills = 0

    def run(self, *args, timeout=90):
        return subprocess.run([*self.within, TOS, *map(str, args)], env=self.env, cwd=self.dir, timeout=timeout,
                              capture_output=True, text=True)

    def tos(self, *args, **kw):
        r = self.run(*args, **kw)
        assert r.returncode == 0, f"tos {' '.join(map(str, args))} at {self.name}: {r.returncode}\n{r.stdout}\n{r.stderr}"
        return r.stdout

    def configure(self, listen=None):
        path = f"{self.home}/kernels/{self.name}/tosd.conf"
        with open(path) as f:
            text = f.read()
        if listen:
            old = next(line.split('"')[1] for line in text.splitlines() if line.startswith("listen"))
            text = text.replace(old, listen)
        with open(path, "w") as f:
            f.write(text + conf_text(CONF))

    def log(self):
        try:
            with open(f"{self.home}/kernels/{self.name}/log", errors="replace") as f:
                return f.read()
        except OSError:
            return ""

    def pids(self, kind="tos-kernel"):
        """Its processes of that kind, by the keeper that is theirs."""
        try:
            with open(f"{self.home}/kernels/{self.name}/keeper.pid") as f:
                keeper = int(f.read())
        except (OSError, ValueError):
            return []
        table = process_table()
        tosd = [p for p, row in table.items() if row[0] == keeper and row[1] == "tosd"]
        return tosd if kind == "tosd" else [p for p, row in table.items() if row[0] in tosd and row[1] == kind]

    def stir(self, seconds):
        pids = {p: f"{kind} of {self.name}" for kind in ("tosd", "tos-kernel", "tos-ext", "tos-vm") for p in self.pids(kind)}
        return stir(pids, {self.name: lambda: self.run("metrics", "--timeout", "5s").stdout}, seconds)

    def kill(self, kind="tos-kernel"):
        for pid in self.pids(kind):
            try:
                os.kill(pid, signal.SIGKILL)
                self.kills += 1
            except ProcessLookupError:
                pass

    def audit(self):
        """Everything that its audit trail has."""
        events, after = [], 0
        while True:
            lines = self.tos("audit", "--json", "--after", after, "--most", 5000, "--kernel", self.name).splitlines()
            if not lines:
                return events
            events += [json.loads(line) for line in lines]
            after = events[-1]["seq"]

    def ps(self):
        r = self.run("ps", "--json", "--kernel", self.name)
        return json.loads(r.stdout) if r.returncode == 0 else None


class Storm:
    def __init__(self, n):
        self.path = tempfile.mkdtemp(prefix="tos-storm.")
        os.chmod(self.path, 0o755)
        self.home = self.path  # for the heading of what failed
        self.spaces, self.bridge, self.kernels = [], None, []
        self.cuts = 0
        fleets.running.append(self)
        try:
            self.net(n)
            self.begin(n)
        except BaseException:
            self.close()
            raise

    def net(self, n):
        if os.geteuid() != 0:
            return
        try:
            self.bridge = f"tosS{os.getpid() % 100000}"
            ip("link", "add", self.bridge, "type", "bridge")
            ip("link", "set", self.bridge, "up")
            for i in range(n):
                name, link = f"tosS{i}-{os.getpid()}", f"s{i}v{os.getpid() % 100000}"
                ip("netns", "add", name)
                self.spaces.append(name)
                ip("link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", name)
                ip("link", "set", link, "master", self.bridge, "up")
                ip("-n", name, "addr", "add", f"10.78.0.{i + 1}/24", "dev", "eth0")
                ip("-n", name, "link", "set", "eth0", "up")
                ip("-n", name, "link", "set", "lo", "up")
        except (OSError, subprocess.CalledProcessError):
            self.net_down()

    def net_down(self):
        for name in self.spaces:
            subprocess.run(["ip", "netns", "del", name], capture_output=True, timeout=20)
        if self.bridge:
            subprocess.run(["ip", "link", "del", self.bridge], capture_output=True, timeout=20)
        self.spaces, self.bridge = [], None

    def begin(self, n):
        for i in range(n):
            space = self.spaces[i] if self.spaces else None
            address = f"10.78.0.{i + 1}:21212" if space else f"127.0.0.1:{31300 + i}"
            self.kernels.append(Kernel(self.path, f"host{i}", space, address))
        first = self.kernels[0]
        first.tos("init")
        first.configure(first.address)
        first.tos("up")
        for k in self.kernels[1:]:
            k.tos("join", first.tos("enroll", k.name).split()[-1], "--listen", k.address)
            k.configure()
            k.tos("up")
        self.linked()

    def linked(self):
        def all_of_them():
            r = self.kernels[0].run("kernels", "--json")
            return r.returncode == 0 and {k["name"] for k in json.loads(r.stdout) if k["linked"]} | {"host0"} == \
                {k.name for k in self.kernels}
        wait_for(all_of_them, 120, "all kernels are linked")

    def close(self):
        for k in reversed(self.kernels):
            self.link(k, True)
            k.run("down")
            k.kill("tosd")
        self.net_down()
        if self in fleets.running:
            fleets.running.remove(self)
        shutil.rmtree(self.path, ignore_errors=True)

    def __enter__(self):
        return self

    def __exit__(self, failed, *_):
        if failed:
            print(self.logs())
        self.close()

    def logs(self, last=300):
        lines = sorted(line for k in self.kernels for line in (f"{x[:24]} {k.name} {x[24:]}" for x in k.log().splitlines()))
        return "\n".join(lines[-last:])

    # ---- what happens

    def link(self, k, up):
        """Its cable: pulled, or put back."""
        if not self.spaces or k.cut == (not up):
            return
        port = f"s{self.kernels.index(k)}v{os.getpid() % 100000}"
        subprocess.run(["ip", "link", "set", port, "up" if up else "down"], capture_output=True, timeout=20)
        k.cut = not up
        self.cuts += not up

    def rage(self, over, seed, every, cut_every, until_cuts=0):
        """Until over() and so many cuts have been made: a kernel is killed about every so many seconds (tosd now and
        then), a cable is pulled for a while."""
        rng = random.Random(seed)
        next_kill = next_cut = time.monotonic()
        back = []
        while not over() or self.cuts < until_cuts:
            now = time.monotonic()
            if now >= next_kill:
                next_kill = now + every * rng.uniform(0.5, 1.5)
                rng.choice(self.kernels).kill("tosd" if rng.random() < 0.1 else "tos-kernel")
            if now >= next_cut and self.spaces:
                next_cut = now + cut_every * rng.uniform(0.5, 1.5)
                k = rng.choice(self.kernels)
                self.link(k, False)
                back.append((now + rng.choice([0.05, 0.05, 0.1, 0.1, 0.3, 0.3, 1, 3]), k))
            for due in [b for b in back if b[0] <= now]:
                self.link(due[1], True)
                back.remove(due)
            time.sleep(0.02)
        for k in self.kernels:
            self.link(k, True)
