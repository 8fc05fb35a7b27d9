"""Whole kernels for tests: a Fleet is a TOS_HOME of its own with n kernels that the tos command keeps up.

Nothing here waits for time: wait_for() asks again until something is so, or the deadline has come. The build tree is
$TOS_BUILD. What fails shows the logs of all kernels, merged by time (conftest.py).
"""
import ctypes
import fcntl
import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import time

BUILD = os.environ.get("TOS_BUILD", "")
TOS = os.path.join(BUILD, "src/cli/tos")
KERNEL = os.path.join(BUILD, "src/kernel/tos-kernel")
BUSY_MS = 40 if os.environ.get("TOS_SANITIZE") == "1" else 8  # CPU a second of a kernel that has nothing to do: 0.8
REST_S, FEW = 0.4, 4  # how long it is looked at; how often a second something may still happen
LIVE = {"arriving", "ready", "running", "suspended", "departing", "faulted"}
SANITIZED = os.environ.get("TOS_SANITIZE") == "1"  # slower by some times
DEADLINE = float(os.environ.get("TOS_DEADLINE", 180.0 if SANITIZED else 60.0))

# Short enough that a test does not wait, long enough for a sanitizer build on a busy machine.
QUICK = {"timing": {"retry": "200ms", "ping": "500ms", "silent": "3s", "offer": "3s", "report": "3s"}}

# A carrier's text: what notes in the outcome where it has been, and one that does so at each stop.
NOTE = 'tos.briefcase:folder("RESULTS"):push { kernel = tos.kernel() }'
TOUR = f"function begin(self) self.n = (self.n or 0) + 1; {NOTE}; tos.sleep(0.03) end"

alone = False  # whether this process has a network namespace of its own
running = []  # fleets that the present test may want to see the logs of


def own_network():
    """A loopback of our own, where that can be had: no port is anybody else's."""
    libc = ctypes.CDLL(None, use_errno=True)
    if os.geteuid() != 0 or libc.unshare(0x40000000):  # CLONE_NEWNET
        return False
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        fcntl.ioctl(s, 0x8914, struct.pack("16sH14x", b"lo", 1 | 64))  # SIOCSIFFLAGS: up, running
    return True


def wait_for(what, deadline=DEADLINE, text=""):
    """what() until it is true; its value."""
    end = time.monotonic() + deadline
    while True:
        got = what()
        if got:
            return got
        assert time.monotonic() < end, f"not so within {deadline:g} s: {text or getattr(what, '__doc__', '') or what}"
        time.sleep(0.02)


def process_table():
    """pid -> (parent, name, state, argv) of every process."""
    table = {}
    for pid in os.listdir("/proc"):
        if not pid.isdigit():
            continue
        try:
            with open(f"/proc/{pid}/stat") as f:
                stat = f.read()
            with open(f"/proc/{pid}/cmdline", "rb") as f:
                argv = f.read().split(b"\0")
        except OSError:
            continue
        name = stat[stat.index("(") + 1:stat.rindex(")")]
        rest = stat[stat.rindex(")") + 2:].split()
        table[int(pid)] = (int(rest[1]), name, rest[0], argv)
    return table


def cpu_ticks(pid):
    """User and system time of a process, in clock ticks."""
    with open(f"/proc/{pid}/stat") as f:
        stat = f.read()
    rest = stat[stat.rindex(")") + 2:].split()
    return int(rest[11]) + int(rest[12])


def cpu_ms(pid):
    """CPU time of a process, all its threads, in ms; None if it is gone."""
    total = 0
    try:
        for task in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{task}/schedstat") as f:
                total += int(f.read().split()[0])
    except (OSError, IndexError):
        return None
    return total / 1e6


def end_soon(pids):
    """Wait until these processes are gone. However long that takes on this machine, they compute for little of it."""
    had = {p: cpu_ms(p) for p in pids}
    last = dict(had)

    def gone():
        for p in pids:
            last[p] = cpu_ms(p) or last[p]
        return all(process_table().get(p, (0, "", "Z"))[2] == "Z" for p in pids)

    wait_for(gone, text="they are gone")
    assert all(had[p] is None or last[p] - had[p] < 1000 * (5 if SANITIZED else 1) for p in pids), (had, last)


def flows(text):
    """What must stand still, of tos metrics: frames to other kernels without pings, writes, dials, failures, and posts (of
    which asking for this is some). None: there was no answer."""
    if not text:
        return None
    got = dict(line.rsplit(" ", 1) for line in text.splitlines() if line.startswith("tos_"))
    out = {n: float(v) for n, v in got.items()
           if n.startswith(("tos_store_commits_total", "tos_link_dialled_total", "tos_posts_failed_total", "tos_posts_total"))}
    sent = 'direction="out",kind="kernel"}'
    out["frames"] = float(got.get("tos_link_frames_total{" + sent, 0)) - float(got.get("tos_link_pings_total{" + sent, 0))
    return out


def stir(pids, metrics, seconds):
    """What goes on within a while: as texts. pids: of processes, and what they are; metrics: of kernels, how to have them."""
    before = {k: flows(ask()) for k, ask in metrics.items()}
    cpu, began = {p: cpu_ms(p) for p in pids}, time.monotonic()
    time.sleep(seconds)
    took = time.monotonic() - began
    found = []
    for p, what in pids.items():
        after = cpu_ms(p)
        if after is not None and cpu[p] is not None and (after - cpu[p]) / took > BUSY_MS:
            found.append(f"{what}: {(after - cpu[p]) / took:.1f} ms of CPU a second")
    for k, ask in metrics.items():
        after = flows(ask())
        if before[k] is None or after is None:
            found.append(f"{k}: does not answer")
            continue
        found += [f"{k}: {name}: {n - before[k].get(name, 0):+g} in {took:.1f} s" for name, n in after.items()
                  if n - before[k].get(name, 0) > took * (8 * FEW if name == "tos_posts_total" else FEW)]
    return found


def come_to_rest(look, deadline=DEADLINE):
    """look() until nothing goes on any more."""
    found = []

    def rest():
        found[:] = look()
        return not found

    try:
        wait_for(rest, deadline)
    except AssertionError:
        raise AssertionError("it does not come to rest:\n" + "\n".join(found)) from None


def conf_text(conf):
    """{"timing": {"retry": "200ms"}} as tosd.conf says it; a text is taken as it is."""
    if not conf or isinstance(conf, str):
        return conf or ""
    out = []
    for section, values in conf.items():
        if isinstance(values, dict):
            out.append(section + " {\n" + "".join(f'\t{k} = "{v}"\n' for k, v in values.items()) + "}\n")
        else:
            out.append(f'{section} = "{values}"\n')
    return "".join(out)


def visited(outcome):
    """The kernels that NOTE was run at."""
    return [row["kernel"] for row in outcome["briefcase"].get("RESULTS", [])]


def events(outcome, event):
    """The kernels at which this happened to it, by its trail."""
    return [line["kernel"] for line in outcome["trail"] if line["event"] == event]


def installed(vm):
    """A copy of the installed tree in a folder of its own, with another program in the place of tos-vm: the folder, and the
    path of its tos."""
    root = tempfile.mkdtemp(prefix="tos-installed.")
    os.chmod(root, 0o755)
    r = subprocess.run(["meson", "install", "-C", BUILD, "--no-rebuild", "--quiet", "--tags", "runtime", "--destdir", root],
                       capture_output=True, text=True)
    assert r.returncode == 0, r.stdout + r.stderr
    prefix = next(os.path.dirname(d) for d, _, files in os.walk(root) if os.path.basename(d) == "bin" and "tos" in files)
    shutil.copy(vm, f"{prefix}/libexec/tos/tos-vm")
    return root, f"{prefix}/bin/tos"


class Failed(AssertionError):
    def __init__(self, args, r):
        super().__init__(f"tos {' '.join(args)}: exit {r.returncode}\n{r.stdout}\n{r.stderr}")
        self.code, self.stdout, self.stderr = r.returncode, r.stdout, r.stderr


class Fleet:
    """n kernels host0 ... ; conf goes to all of them, each[NAME] to one (as conf_text). prepare(fleet) runs before the
    configured kernels start. tos: another build's command, whose kernels are that build's. rests: at the end of its tests
    it has to come to rest."""

    def __init__(self, n=3, conf=None, each=None, prepare=None, tos=TOS, rests=False):
        self.tos_path, self.rests = tos, rests
        self.path = tempfile.mkdtemp(prefix="tos-fleet.")
        os.chmod(self.path, 0o755)
        self.home = os.path.join(self.path, "h")
        self.env = dict(os.environ, TOS_HOME=self.home, HOME=self.path)
        self.env.pop("TOS_PASSPHRASE", None)
        self.names = [f"host{i}" for i in range(n)]
        running.append(self)
        try:
            self.tos("up", "-n", str(n), timeout=120)
            if conf or each or prepare:
                self.tos("down", timeout=120)
                for name in self.names:
                    self.configure(name, conf_text(conf) + conf_text((each or {}).get(name)))
                if prepare:
                    prepare(self)
                self.tos("up", timeout=120)
        except BaseException:
            self.close()
            raise

    def configure(self, name, text):
        with open(f"{self.home}/kernels/{name}/tosd.conf", "a") as f:
            f.write(text)

    def close(self):
        for pid in self.stopped():
            os.kill(pid, signal.SIGCONT)
        subprocess.run([self.tos_path, "down"], env=self.env, capture_output=True, timeout=120)
        keepers = [k for k in map(self.keeper, self.names) if k]
        for pid in keepers:
            os.kill(pid, signal.SIGKILL)
        running.remove(self)
        shutil.rmtree(self.path, ignore_errors=True)

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        try:
            if self.rests and kind is None:
                self.quiet()
        finally:
            self.close()

    # ---- the command

    def run(self, *args, timeout=DEADLINE, env=None):
        """The result, whatever it is."""
        return subprocess.run([self.tos_path, *map(str, args)], env=env or self.env, cwd=self.path, timeout=timeout,
                              capture_output=True, text=True)

    def tos(self, *args, expect=0, timeout=DEADLINE):
        """What it prints."""
        r = self.run(*args, timeout=timeout)
        if r.returncode != expect:
            raise Failed(list(map(str, args)), r)
        return r.stdout

    def json(self, *args, expect=0, timeout=DEADLINE):
        return json.loads(self.tos(*args, "--json", expect=expect, timeout=timeout))

    def start(self, *args):
        """A tos that runs beside the test."""
        return subprocess.Popen([self.tos_path, *map(str, args)], env=self.env, cwd=self.path, stdout=subprocess.PIPE,
                                stderr=subprocess.PIPE, text=True)

    def file(self, name, text):
        with open(os.path.join(self.path, name), "w") as f:
            f.write(text)
        return name

    def launch(self, lua, *args, name="carrier.lua"):
        """Launch this Lua text (a function begin, or the lines of one); the carrier's name."""
        if "function begin" not in lua:
            return self.tos("launch", "-e", lua, *args).strip()
        return self.tos("launch", self.file(name, lua), *args).strip()

    def ps(self, kernel="host0"):
        """name -> row; of one kernel. Empty if it does not answer."""
        r = self.run("ps", "--json", "--kernel", kernel)
        return {row["name"]: row for row in json.loads(r.stdout)} if r.returncode == 0 else {}

    def residents(self, name):
        """The kernels that hold a live copy of this carrier, as they say themselves: kernel -> row."""
        found = {}
        for kernel in self.names:
            row = self.ps(kernel).get(name)
            if row and row["kernel"] == kernel and row["state"] in LIVE:
                found[kernel] = row
        return found

    def show(self, name, *args):
        r = self.run("show", name, "--json", *args)
        return json.loads(r.stdout) if r.returncode == 0 else None

    def state(self, name):
        return (self.show(name) or {}).get("state")

    def wait_state(self, name, *states, deadline=DEADLINE):
        return wait_for(lambda: self.state(name) in states, deadline, f"{name} is {' or '.join(states)}")

    def outcome(self, name, timeout=f"{DEADLINE:g}s", expect=0):
        return self.json("wait", name, "--timeout", timeout, expect=expect, timeout=2 * DEADLINE)

    def status(self, kernel):
        """Whether it answers, as tos kernels says it."""
        return self.run("ps", "--json", "--kernel", kernel, "--timeout", "2s").returncode == 0

    def get(self, kernel, path):
        return {p["path"]: p["value"] for p in self.json("get", path, "--kernel", kernel)}

    def metric(self, kernel, name):
        """The sum of a metric over its labels."""
        total = 0.0
        for line in self.tos("metrics", "--kernel", kernel).splitlines():
            if line.startswith(name) and line[len(name):len(name) + 1] in " {":
                total += float(line.rsplit(" ", 1)[1])
        return total

    # ---- whether it has come to rest

    def stir(self, seconds):
        """What goes on within a while, of all kernels that run."""
        table = process_table()
        stopped = {k for k in self.names for p in self.processes(k) if table.get(p, (0, "", ""))[2] == "T"}
        up = [k for k in self.names if self.processes(k, "tos-kernel") and k not in stopped]
        pids = {p: f"{kind} of {k}" for k in up for kind in ("tosd", "tos-kernel", "tos-ext", "tos-vm")
                for p in self.processes(k, kind)}
        return stir(pids, {k: lambda k=k: self.run("metrics", "--kernel", k, "--timeout", "5s").stdout for k in up}, seconds)

    def quiet(self, deadline=DEADLINE):
        """Wait until it has come to rest, which it must: no kernel computes, and nothing but pings goes over links."""
        come_to_rest(lambda: self.stir(REST_S), deadline)

    # ---- its processes

    def keeper(self, kernel):
        try:
            with open(f"{self.home}/kernels/{kernel}/keeper.pid") as f:
                pid = int(f.read())
        except (OSError, ValueError):
            return None
        p = process_table().get(pid)
        return pid if p and kernel.encode() in p[3] and p[2] != "Z" else None

    def processes(self, kernel, kind=None):
        """pids of that kernel's processes: tosd, tosd-launcher, tos-kernel, tos-ext, tos-vm."""
        table, keeper = process_table(), self.keeper(kernel)
        tosd = [p for p, row in table.items() if row[0] == keeper and row[1] == "tosd" and keeper]
        found = [(p, "tosd") for p in tosd]
        for p, (parent, name, state, argv) in table.items():
            if parent in tosd and state != "Z":
                base = os.path.basename(argv[0].decode(errors="replace").split(" ")[0]) if argv else ""
                found.append((p, name if name.startswith("tos") else base))
        return [p for p, name in found if kind is None or name == kind]

    def pid(self, kernel, kind, deadline=DEADLINE):
        return wait_for(lambda: self.processes(kernel, kind), deadline, f"{kernel} has a {kind}")[0]

    def kill(self, kernel, kind="tos-kernel", sig=signal.SIGKILL):
        """Signal each such process; how many there were."""
        n = 0
        for pid in self.processes(kernel, kind):
            try:
                os.kill(pid, sig)
                n += 1
            except ProcessLookupError:
                pass
        return n

    def stopped(self):
        mine = [p for name in self.names for p in self.processes(name)]
        table = process_table()
        return [p for p in mine if p in table and table[p][2] == "T"]

    def freeze(self, kernel, kind="tos-kernel"):
        assert self.kill(kernel, kind, signal.SIGSTOP)

    def thaw(self, kernel, kind="tos-kernel"):
        self.kill(kernel, kind, signal.SIGCONT)

    def down(self, kernel, hard=False):
        """Stop it, or (hard) kill everything of it at once, the keeper first."""
        if not hard:
            self.tos("down", kernel, timeout=120)
            return
        keeper, all_of_it = self.keeper(kernel), self.processes(kernel)
        for pid in [keeper, *all_of_it]:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        wait_for(lambda: not any(process_table().get(p, (0, "", "Z"))[2] != "Z" for p in [keeper, *all_of_it]),
                 text=f"{kernel} is dead")

    def up(self):
        """Start what does not run; returns when all are ready and linked."""
        self.tos("up", timeout=120)

    # ---- its logs

    def log_text(self, kernel):
        try:
            with open(f"{self.home}/kernels/{kernel}/log", errors="replace") as f:
                return f.read()
        except OSError:
            return ""

    def logs(self, last=400):
        lines = []
        for name in self.names:
            at = ""
            for line in self.log_text(name).splitlines():
                if line[:2] == "20":
                    at = line[:24]
                lines.append((at, f"{name}: {line}"))
        lines.sort(key=lambda x: x[0])
        return "\n".join(line for _, line in lines[-last:])

    def sanitizer_reports(self):
        """What AddressSanitizer and its like had to say in any of the logs."""
        marks = ("ERROR: AddressSanitizer", "ERROR: LeakSanitizer", "runtime error:", "assertion failed", "must(")
        found = []
        for name in self.names:
            lines = self.log_text(name).splitlines()
            for i, line in enumerate(lines):
                if any(m in line for m in marks):
                    found.append(f"{name}: " + "\n  ".join(lines[i:i + 60]))
        return "\n".join(found)
