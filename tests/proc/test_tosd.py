"""tosd with real processes: a stand-in for tos-kernel, and probes in the places of tos-vm and tos-ext.

The builds of the stand-ins are found in $TOS_BUILD (the build tree).  Run as root these tests cover both
a tosd of root's and one of an ordinary user's; otherwise only the latter.
"""
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

import pytest

BUILD = os.environ.get("TOS_BUILD", "")
TOSD = os.path.join(BUILD, "src/tosd/tosd")
PROBES = os.path.join(BUILD, "tests/unit/tosd")
NOBODY = 65534
WAIT = 20.0
SANITIZED = os.environ.get("TOS_SANITIZE") == "1"

pytestmark = pytest.mark.skipif(not os.path.exists(TOSD), reason="TOS_BUILD names no build with tosd")
plain = pytest.mark.skipif(SANITIZED, reason="the sandbox is tested in plain builds")

ROOT = os.geteuid() == 0
# "root-nocap": the same where user namespaces are allowed.  "root-container": root with the capabilities of a default container, and no namespaces.
WHO = ["root", "user", "root-reduced", "user-reduced", "root-container", "root-nocap"] if ROOT else ["user", "user-reduced"]


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def state_letter(pid):
    try:
        with open(f"/proc/{pid}/stat") as f:
            return f.read().rsplit(")", 1)[1].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return None


def is_dead(pid):
    return state_letter(pid) in (None, "Z", "X")


def until(what, condition, limit=WAIT):
    end = time.monotonic() + limit
    while time.monotonic() < end:
        got = condition()
        if got:
            return got
        time.sleep(0.01)
    raise AssertionError(f"never came: {what}")


class Tosd:
    """One tosd, and the line to the stand-in for its tos-kernel."""

    def __init__(self, base, who, config="", env=None, wrap=()):
        self.who = who
        self.base = base
        self.user = who.startswith("user") and ROOT
        self.programs = os.path.join(base, "programs")
        self.state = os.path.join(base, "state")
        self.port = free_port()
        self.proc = None
        self.ctl = None
        self.buffer = b""
        self.env = dict(os.environ, **(env or {}))
        self.env.pop("NOTIFY_SOCKET", None)
        self.env.update(env or {})
        self.wrap = list(wrap)
        os.makedirs(self.programs)
        os.makedirs(self.state)
        for probe, name in (("kernel_probe", "tos-kernel"), ("vm_probe", "tos-vm"), ("ext_probe", "tos-ext")):
            shutil.copy(os.path.join(PROBES, probe), os.path.join(self.programs, name))
        self.library = shutil.copy(os.path.join(PROBES, "probe_library.so"), base)
        self.conf = os.path.join(self.state, "tosd.conf")
        lines = f"name probe0\nlisten 127.0.0.1:{self.port}\n"
        self.reduced = who.endswith(("reduced", "container"))
        if who.endswith(("container", "nocap")):
            kept = "chown dac_override fsetid fowner setgid setuid setpcap kill sys_chroot".split()
            self.wrap = ["setpriv", "--bounding-set", "-all" + "".join(",+" + c for c in kept)] + self.wrap
        if self.reduced:
            lines += "no_userns 1\n"
        with open(self.conf, "w") as f:
            f.write(lines + config)
        if self.user:
            for root, dirs, files in os.walk(base):
                for n in dirs + files:
                    os.lchown(os.path.join(root, n), NOBODY, NOBODY)
            os.chown(base, NOBODY, NOBODY)
        self.log = open(os.path.join(base, "log"), "ab+")

    def command(self, *args):
        cmd = self.wrap + [TOSD, "--programs", self.programs, "-c", self.conf, *args]
        if self.user:
            cmd = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"] + cmd
        return cmd

    def run(self, *args):
        return subprocess.run(self.command(*args), capture_output=True, text=True, timeout=30, env=self.env,
                              cwd="/")

    def start(self):
        self.proc = subprocess.Popen(self.command(), stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log,
                                     env=self.env, cwd="/")
        return self.connect()

    def connect(self):
        """The greeting of a fresh tos-kernel: a dict, with the layers."""
        if self.ctl:
            self.ctl.close()
        self.buffer = b""

        def dial():
            assert self.proc.poll() is None, self.text()
            s = socket.socket(socket.AF_UNIX)
            try:
                s.connect(os.path.join(self.state, "ctl"))
                return s
            except OSError:
                s.close()
                return None

        self.ctl = until("the socket of tos-kernel", dial)
        self.ctl.settimeout(WAIT)
        greeting, layers = {}, {}
        while True:
            line = self.line()
            if line == "UP":
                break
            if line.startswith("CONFIG"):
                greeting = dict(w.split("=", 1) for w in line.split()[1:])
            elif line.startswith("LAYER"):
                _, name, state, *_rest = line.split(" ")
                layers[name] = state
        greeting["layers"] = layers
        return greeting

    def line(self):
        while b"\n" not in self.buffer:
            got = self.ctl.recv(65536)
            assert got, "tos-kernel closed; log:\n" + self.text()
            self.buffer += got
        line, self.buffer = self.buffer.split(b"\n", 1)
        return line.decode()

    def say(self, text):
        self.ctl.sendall(text.encode() + b"\n")

    def expect(self, *start):
        while True:
            line = self.line()
            if line.startswith(start):
                return line

    def spawn(self, slot, kind="vm", ext=0, space=0, cpu=0):
        self.say(f"spawn {slot} {kind} {ext} {space} {cpu}")
        line = self.expect(f"SPAWNED {slot} ", f"FAILED {slot} ")
        assert line.startswith("SPAWNED"), line + "\n" + self.text()
        return int(line.split()[2])

    def ask(self, slot, text):
        self.say(f"ask {slot} {text}")
        return self.expect(f"REPLY {slot} ").split(" ", 2)[2]

    def died(self, slot):
        line = self.expect(f"DIED {slot} ")
        return {k: int(v) for k, v in re.findall(r"(\w+)=(\d+)", line)}

    def kernel_pid(self):
        self.say("who")
        return int(re.search(r"pid=(\d+)", self.expect("WHO")).group(1))

    def children(self):
        with open(f"/proc/{self.proc.pid}/task/{self.proc.pid}/children") as f:
            return [int(p) for p in f.read().split()]

    def stop(self):
        if self.proc and self.proc.poll() is None:
            self.proc.send_signal(signal.SIGTERM)
            try:
                self.proc.wait(15)
            except subprocess.TimeoutExpired:
                self.proc.kill()
                self.proc.wait()
        if self.ctl:
            self.ctl.close()

    def text(self):
        self.log.seek(0)
        return self.log.read().decode(errors="replace")


CAUSE = dict(exited=1, signalled=2, seccomp=3, cpu=4, memory=5, killed=6)


@pytest.fixture
def make(request):
    made = []
    bases = []

    def factory(who="root" if ROOT else "user", config="", **more):
        base = tempfile.mkdtemp(prefix="tosd-")
        bases.append(base)
        os.chmod(base, 0o755)
        t = Tosd(base, who, config, **more)
        made.append(t)
        return t

    yield factory
    for t in made:
        t.stop()
        if request.node.stash.get("failed", False):
            sys.stderr.write(t.text())
        t.log.close()
    for base in bases:
        shutil.rmtree(base, ignore_errors=True)


@pytest.fixture(params=WHO)
def tosd(request, make):
    t = make(request.param)
    t.greeting = t.start()
    return t


def test_check_prints_the_configuration(make):
    t = make()
    r = t.run("-t")
    assert (r.returncode, r.stdout, r.stderr) == (0, "# normalised\nname probe0\n", "")


def test_broken_configuration_names_file_and_line(make):
    t = make(config="colour red\n")
    for args in (["-t"], []):
        r = t.run(*args)
        assert r.returncode == 1
        assert f'{t.conf}:3: unknown key "colour"' in r.stderr


def test_missing_configuration_is_one_line(make):
    t = make()
    os.unlink(t.conf)
    r = t.run()
    assert r.returncode == 1 and t.conf in r.stderr and "No such file" in r.stderr


def test_checker_of_another_build_is_refused(make):
    r = make(config="short 1\n").run("-t")
    assert r.returncode == 1 and "different builds" in r.stderr


def test_wrong_options_exit_2(make):
    assert make().run("--wrong").returncode == 2
    assert make().run("extra").returncode == 2


def test_help_and_version():
    assert subprocess.run([TOSD, "-h"], capture_output=True, text=True).stdout.startswith("usage: tosd")
    assert re.match(r"tosd \d", subprocess.run([TOSD, "-V"], capture_output=True, text=True).stdout)


def test_port_in_use_names_the_port_and_the_remedy(make):
    t = make()
    with socket.socket() as s:
        s.bind(("127.0.0.1", t.port))
        s.listen()
        r = t.run()
    assert r.returncode == 1
    assert f"127.0.0.1:{t.port} is in use" in r.stderr and "change listen in" in r.stderr


def test_second_tosd_on_one_state_directory_is_refused(make):
    t = make()
    t.start()
    r = t.run()
    assert r.returncode == 1 and f"pid {t.proc.pid}" in r.stderr


def test_required_layer_that_is_missing_refuses(make):
    who = "root-reduced" if ROOT else "user-reduced"
    r = make(who, config="require mount-namespace\n").run()
    assert r.returncode == 1 and "mount-namespace" in r.stderr
    r = make(who, config="require colour\n").run()
    assert r.returncode == 1 and "colour" in r.stderr


def test_kernel_gets_listeners_state_and_layers(tosd):
    g = tosd.greeting
    assert g["listeners"] == "1" and g["fds"] == "2" and g["restarts"] == "0"
    assert g["layers"]["seccomp"] == "on"
    assert g["file"] == g["state"] + "/tosd.conf"
    if tosd.reduced:
        assert g["level"] == "reduced"
        assert g["layers"]["user-namespace"] == "off"
    if ROOT and not tosd.user:
        assert int(g["uid"]) >= 200000
        # Its files are the kernel's, but not what tosd obeys.
        for name, uid in (("", 0), ("tosd.conf", 0), ("lock", 0), ("ctl", int(g["uid"]))):
            assert os.stat(os.path.join(tosd.state, name)).st_uid == uid, name
        assert os.stat(tosd.state).st_mode & 0o7772 == 0o1770
    with socket.create_connection(("127.0.0.1", tosd.port), 5):
        pass


@plain
def test_kernel_writes_only_in_its_state(tosd):
    if tosd.greeting["layers"]["landlock"] == "off":
        pytest.skip("no Landlock here")
    tosd.say("write " + tosd.greeting["state"] + "/new")
    assert tosd.expect("OPENED") == "OPENED ok"
    tosd.say("write /tmp/tosd-test-new")
    assert tosd.expect("OPENED") == "OPENED Permission denied"


def test_state_below_a_closed_directory_works(make):
    if not ROOT:
        pytest.skip("only root's children have other uids")
    t = make("root")
    os.chmod(t.base, 0o700)
    g = t.start()
    assert int(g["uid"]) >= 200000 and g["state"] == "/run/tos-state"
    t.spawn(1)
    assert t.ask(1, "uid").startswith("uid ")


def test_closed_directory_without_mounts_keeps_the_uid(make):
    if not ROOT:
        pytest.skip("only root's children have other uids")
    t = make("root-reduced")
    os.chmod(t.base, 0o700)
    g = t.start()
    assert g["uid"] == "0"
    t.spawn(1)
    assert int(t.ask(1, "uid").split()[1]) >= 200000


def test_vm_starts_answers_and_ends(tosd):
    pid = tosd.spawn(7)
    assert tosd.ask(7, "args") == f"args 1 - env {int(SANITIZED)}"
    assert pid in tosd.children()
    tosd.say("ask 7 exit 3")
    d = tosd.died(7)
    assert (d["cause"], d["status"]) == (CAUSE["exited"], 3)
    assert d["peak"] > 0


def test_vm_gives_way_to_the_kernel(tosd):
    pid, own = tosd.spawn(3), os.getpriority(os.PRIO_PROCESS, tosd.kernel_pid())
    assert os.getpriority(os.PRIO_PROCESS, pid) == min(own + 10, 19)


@plain
def test_vm_can_do_nothing(tosd):
    """Whatever is off the list kills, or is an errno that libc expects."""
    full = not tosd.reduced
    tosd.spawn(1)
    assert tosd.ask(1, "fds") == "fds 0 1 2 3"
    assert tosd.ask(1, "open /etc/passwd").startswith("errno 2 ")
    assert tosd.ask(1, "create /x").startswith("errno 2 ")
    slot = 10
    killers = ["socket 1", "socket 2", "socket 40", "fork", "newuser", "ptrace 1", "mount", "exec", "io_uring",
               "keyctl", "prlimit 1", "wx"]
    for what in killers:
        slot += 1
        tosd.spawn(slot)
        tosd.say(f"ask {slot} {what}")
        d = tosd.died(slot)
        assert (d["cause"], d["status"]) == (CAUSE["seccomp"], signal.SIGSYS), what
    for what, code in (("clone3", 38), ("kill -1", 1), ("tgkill 1", 1), ("prctl", 1)):
        slot += 1
        tosd.spawn(slot)
        assert tosd.ask(slot, what).startswith(f"errno {code} "), what
    if full:
        slot += 1
        tosd.spawn(slot)
        assert tosd.ask(slot, "uid").split()[3] == "1"


# What a static tos-vm may call (src/sandbox/filter.c), written down once more: a change there has to be meant.
VM_MAY = set("""read write readv writev recvmsg sendmsg recvfrom sendto poll ppoll epoll_create1 epoll_ctl epoll_wait epoll_pwait
    epoll_pwait2 close shutdown lseek fstat munmap mremap madvise brk rt_sigaction rt_sigprocmask rt_sigreturn sigaltstack
    restart_syscall futex sched_yield clock_gettime clock_getres clock_nanosleep nanosleep gettimeofday time setitimer getitimer
    timer_create timer_settime timer_gettime timer_delete timer_getoverrun getrandom exit exit_group getpid gettid getuid geteuid
    getgid getegid getrusage uname arch_prctl set_tid_address set_robust_list rseq newfstatat""".split())
# Answered, and nothing done: the errno.
VM_TOLD = {"clone3": 38, "tgkill": 1, "kill": 1, "prctl": 1, "readlink": 2, "readlinkat": 2, "openat": 2, "open": 2, "access": 2}
# By their arguments: with these they end it, or fail.
VM_SOMETIMES = {"mmap", "mprotect", "fcntl", "ioctl", "prlimit64", "execveat"}


# uretprobe and uprobe, which Linux lets pass every filter of late: only a probe's own trampoline gets anything from them.
PROBES_PASS = {335, 336}


def system_calls():
    """name -> number, as the C library's headers have them."""
    r = subprocess.run(["cc", "-E", "-dM", "-include", "sys/syscall.h", "-x", "c", "/dev/null"], capture_output=True, text=True)
    return {m[0]: int(m[1]) for m in re.findall(r"#define __NR_(\w+) (\d+)$", r.stdout, re.M)}


@plain
def test_no_other_system_call_gets_through(make):
    """From inside a tos-vm that was broken into: every call there is, and numbers that are none, by every door."""
    t = make()
    t.start()
    calls = system_calls()
    if not calls:
        pytest.skip("no headers of the C library")
    assert len(calls) > 300 and VM_MAY <= set(calls) | {"epoll_pwait2"}
    numbers = {n: name for name, n in calls.items()}
    top = max(numbers)
    slot, tried, ended = 0, 0, 0
    for n in [*range(top + 20), 0x3fffffff, 0x40000000, 0x40000000 | calls["read"], 0x40000000 | calls["execve"]]:
        name = numbers.get(n)
        if name in VM_MAY:
            continue
        tried += 1
        slot += 1
        t.spawn(slot)
        t.say(f"ask {slot} call {n}")
        line = t.expect(f"REPLY {slot} ", f"DIED {slot} ")
        if line == f"REPLY {slot} closed":
            line = t.expect(f"DIED {slot} ")
        what = f"{n} {name}: {line}"
        if name in VM_TOLD:
            assert f"errno {VM_TOLD[name]} " in line, what
        elif line.startswith("REPLY"):
            assert (name in VM_SOMETIMES or n in PROBES_PASS) and "errno " in line, what
        else:
            d = {k: int(v) for k, v in re.findall(r"(\w+)=(\d+)", line)}
            assert (d["cause"], d["status"]) == (CAUSE["seccomp"], signal.SIGSYS) or (n in PROBES_PASS and d["status"] == signal.SIGILL), what
            ended += 1
            continue
        t.say(f"signal {slot} 1")
        t.died(slot)
    assert ended > 250 and tried - ended <= len(VM_TOLD) + len(VM_SOMETIMES) + len(PROBES_PASS)
    if os.uname().machine == "x86_64":
        for n in (1, 3, 5, 11, 120):  # exit, read, open, execve, clone of 32-bit programs
            slot += 1
            t.spawn(slot)
            t.say(f"ask {slot} call32 {n}")
            assert not t.expect(f"REPLY {slot} ", f"DIED {slot} ").startswith(f"REPLY {slot} ok 0"), n


@plain
def test_vm_memory_is_bounded(tosd):
    tosd.spawn(1, space=64 << 20)
    assert tosd.ask(1, "alloc 16") == "ok 0"
    assert tosd.ask(1, "alloc 128").startswith("errno 12 ")


def test_vm_that_loops_ends_at_its_cpu_limit(tosd):
    tosd.spawn(1, cpu=1)
    tosd.say("ask 1 loop")
    d = tosd.died(1)
    assert d["cause"] == CAUSE["cpu"], d
    assert d["cpu_us"] >= 500000


def test_crash_and_kill_have_their_causes(tosd):
    tosd.spawn(1)
    tosd.say("ask 1 crash")
    assert tosd.died(1)["cause"] in (CAUSE["signalled"], CAUSE["exited"] if SANITIZED else 2)
    tosd.spawn(2)
    tosd.say("signal 2 1")
    d = tosd.died(2)
    assert (d["cause"], d["status"]) == (CAUSE["killed"], signal.SIGKILL)


def test_freeze_and_thaw(tosd):
    pid = tosd.spawn(1)
    tosd.say("signal 1 2")
    until("it stops", lambda: state_letter(pid) == "T")
    tosd.say("signal 1 3")
    until("it goes on", lambda: state_letter(pid) in ("S", "R"))
    tosd.say("signal 1 2")
    tosd.say("signal 1 1")
    assert tosd.died(1)["cause"] == CAUSE["killed"]


def test_signal_to_one_that_is_gone_is_harmless(tosd):
    tosd.say("signal 99 1")
    tosd.spawn(1)
    assert tosd.ask(1, "uid").startswith("uid")


def test_many_at_once_and_each_has_its_own_uid(tosd):
    n = 40
    for i in range(1, n + 1):
        tosd.say(f"spawn {i} vm 0 0 0")
    pids = {}
    while len(pids) < n:
        w = tosd.expect("SPAWNED", "FAILED").split()
        assert w[0] == "SPAWNED", w
        pids[int(w[1])] = int(w[2])
    uids = {os.stat(f"/proc/{p}").st_uid for p in pids.values()}
    if not tosd.user and ROOT:
        with_uid = set()
        for p in pids.values():
            with open(f"/proc/{p}/status") as f:
                with_uid.add(re.search(r"Uid:\s+(\d+)", f.read()).group(1))
        assert len(with_uid) == n and "0" not in with_uid
    assert uids
    for i in range(1, n + 1):
        tosd.say(f"signal {i} 1")
    dead = set()
    while len(dead) < n:
        dead.add(int(tosd.expect("DIED").split()[1]))


@plain
def test_extension_has_what_it_was_granted(make):
    for who in WHO:
        base = tempfile.mkdtemp(prefix="tosd-ext-")
        library = shutil.copy(os.path.join(PROBES, "probe_library.so"), base)
        os.chmod(base, 0o755)
        t = make(who, config=f"ext {library}\next {library} read-proc\next {library} read-proc read-fs\n")
        g = t.start()
        mounts = g["layers"]["mount-namespace"] == "on"
        landlock = g["layers"]["landlock"] != "off"
        for i in range(3):
            t.spawn(i + 1, "ext", i)
            assert t.ask(i + 1, "args") == "args 3 Probe env 0"
            assert t.ask(i + 1, "library") == "library ok"
            assert t.ask(i + 1, "thread") == "thread 0"
            for what in ("socket 1", "socket 2", "socket 16", "socket 40", "fork", "newuser", "mount", "kill -1",
                         "io_uring", "keyctl", "exec"):
                assert t.ask(i + 1, what).startswith("errno 1 "), (who, i, what)
            assert t.ask(i + 1, "create /tmp/tosd-ext-new").startswith("errno "), (who, i)
            if mounts or landlock:
                assert t.ask(i + 1, f"read {t.conf}").startswith("errno "), (who, i)
                assert t.ask(i + 1, "read /etc/passwd").startswith("errno "), (who, i)
        if mounts or landlock:
            assert t.ask(1, "read /proc/uptime").startswith("errno "), who
        assert t.ask(2, "read /proc/uptime").startswith("ok "), who
        assert t.ask(2, "read /proc/1/stat").startswith("ok "), who
        assert t.ask(3, "read /proc/loadavg").startswith("ok "), who
        blocks = os.statvfs("/tmp").f_blocks
        assert t.ask(3, "statvfs /tmp") == f"ok blocks={blocks}", who
        t.stop()
        shutil.rmtree(base)


def test_extension_without_its_library_fails(make):
    t = make(config="ext /nonexistent/lib.so\n")
    t.start()
    t.say("spawn 1 ext 0 0 0")
    assert "No such file" in t.expect("FAILED 1 ")


@pytest.mark.parametrize("kind", ["version", "type", "length", "kind", "ext", "short"])
def test_kernel_that_breaks_the_protocol_is_ended_and_restarted(make, kind):
    t = make()
    t.start()
    t.spawn(1)
    pid = t.kernel_pid()
    t.say("garbage " + kind)
    until("its end", lambda: is_dead(pid))
    g = t.connect()
    assert g["restarts"] == "1"


def test_slot_in_use_breaks_the_protocol(make):
    t = make()
    t.start()
    t.spawn(1)
    pid = t.kernel_pid()
    t.say("spawn 1 vm 0 0 0")
    until("its end", lambda: is_dead(pid))


def test_children_die_before_a_new_kernel_gets_any(tosd):
    """The new kernel starts while they are being ended, and may use their numbers."""
    pids = [tosd.spawn(i) for i in (1, 2, 3)]
    tosd.say("signal 3 2")
    os.kill(tosd.kernel_pid(), signal.SIGKILL)
    g = tosd.connect()
    assert g["restarts"] == "1"
    tosd.spawn(1)
    assert all(is_dead(p) for p in pids)


def test_what_a_launcher_makes_for_a_dead_kernel_is_ended_first(make):
    t = make()
    t.start()
    launcher = launcher_of(t)
    os.kill(launcher, signal.SIGSTOP)
    for slot in (1, 2):
        t.say(f"spawn {slot} vm 0 0 0")
    t.say("signal 9 1")  # of nobody; behind the others
    os.kill(t.kernel_pid(), signal.SIGKILL)
    t.connect()
    kernel = t.kernel_pid()
    os.kill(launcher, signal.SIGCONT)
    pid = t.spawn(1)
    assert set(t.children()) == {launcher, kernel, pid}


def test_kernel_that_came_back_is_left_alone(make):
    t = make()
    t.start()
    os.kill(t.kernel_pid(), signal.SIGKILL)
    t.connect()
    pid = t.kernel_pid()
    time.sleep(1.5)  # a deadline of its predecessor's would have passed
    assert t.kernel_pid() == pid


def test_back_off_grows(make):
    """It counts from one start to the next: who ran for longer than that is there again at once."""
    t = make()
    t.start()
    starts = [time.monotonic()]
    for _ in range(4):
        t.say("exit 1")
        t.connect()
        starts.append(time.monotonic())
    gaps = [b - a for a, b in zip(starts, starts[1:])]
    assert gaps[3] >= 0.7 and min(gaps[:3]) < gaps[3]  # one may have been held up


def test_broken_store_ends_tosd(make):
    t = make()
    t.start()
    t.say("exit 78")
    assert t.proc.wait(WAIT) == 1
    assert "cannot work with its configuration or store" in t.text()


def test_sigterm_stops_cleanly(tosd):
    pid = tosd.spawn(1)
    tosd.proc.send_signal(signal.SIGTERM)
    assert tosd.expect("STOP") == "STOP"
    assert tosd.proc.wait(WAIT) == 0
    assert is_dead(pid)


def test_second_sigterm_does_not_wait(make):
    t = make()
    t.start()
    t.say("mute")
    t.kernel_pid()  # it has read so far
    t.proc.send_signal(signal.SIGTERM)
    until("stopping", lambda: "stopping" in t.text())
    begin = time.monotonic()
    t.proc.send_signal(signal.SIGINT)
    assert t.proc.wait(WAIT) == 0
    assert time.monotonic() - begin < 5


def test_sighup_has_the_configuration_checked_and_ends_nothing(make):
    t = make()
    t.start()
    pid = t.kernel_pid()
    t.proc.send_signal(signal.SIGHUP)
    until("checked", lambda: "the configuration was checked" in t.text())
    assert t.kernel_pid() == pid
    t.spawn(1)


def test_killed_tosd_takes_everything_along(tosd):
    pids = [tosd.spawn(i) for i in (1, 2)] + tosd.children()
    tosd.proc.kill()
    tosd.proc.wait()
    until("all are dead", lambda: all(is_dead(p) for p in pids))


def launcher_of(t):
    for p in t.children():
        with open(f"/proc/{p}/comm") as f:
            if f.read() == "tosd-launcher\n":
                return p
    raise AssertionError("no launcher")


def test_launcher_that_dies_is_replaced_and_children_live(tosd):
    pid = tosd.spawn(1)
    launcher = launcher_of(tosd)
    os.kill(launcher, signal.SIGKILL)
    until("its end", lambda: is_dead(launcher))
    tosd.spawn(2)
    assert not is_dead(pid)
    assert tosd.ask(1, "uid").startswith("uid")


def test_launcher_that_hangs_midway_fails_only_what_it_had(make):
    t = make()
    t.start()
    launcher = launcher_of(t)
    os.kill(launcher, signal.SIGSTOP)
    t.say("spawn 1 vm 0 0 0")
    t.say("who")
    t.expect("WHO")
    os.kill(launcher, signal.SIGKILL)
    said = t.expect("FAILED 1 ")  # it had the request, or was to get it just then
    assert "launcher died" in said or "closed the socket" in said
    t.spawn(2)


def test_systemd_is_told(make, tmp_path):
    path = tempfile.mkdtemp() + "/notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
        s.bind(path)
        s.settimeout(WAIT)
        t = make(env={"NOTIFY_SOCKET": path})
        t.start()
        t.say("ready")
        assert s.recv(100) == b"READY=1"
        t.proc.send_signal(signal.SIGTERM)
        assert s.recv(100) == b"STOPPING=1"
        t.proc.wait(WAIT)
    shutil.rmtree(os.path.dirname(path))


def test_no_descriptor_leaks(make):
    t = make()
    t.start()
    t.spawn(1)
    count = lambda: len(os.listdir(f"/proc/{t.proc.pid}/fd"))
    before = count()
    for i in range(2, 30):
        t.spawn(i)
        t.say(f"signal {i} 1")
        t.died(i)
    until("as few as before", lambda: count() <= before)
    assert len(os.listdir(f"/proc/{launcher_of(t)}/fd")) <= 8


@plain
@pytest.mark.skipif(not shutil.which("strace"), reason="strace takes seccomp away")
def test_without_seccomp_no_sandbox_starts(make):
    wrap = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=seccomp", "-e", "inject=seccomp:error=ENOSYS"]
    t = make(wrap=wrap)
    g = t.start()
    assert g["level"] == "none" and g["layers"]["seccomp"] == "off"
    t.say("spawn 1 vm 0 0 0")
    assert "no seccomp" in t.expect("FAILED 1 ")
    t.say("exit 78")  # a signal would only reach strace
    t.proc.wait(WAIT)
    r = make(config="require seccomp\n", wrap=wrap).run()
    assert r.returncode == 1 and "sandbox.require wants seccomp" in r.stderr


@plain
def test_a_sandbox_starts_quickly(make):
    t = make()
    t.start()
    t.spawn(1)
    begin = time.monotonic()
    for i in range(2, 52):
        t.spawn(i)
    each = (time.monotonic() - begin) / 50
    print(f"{each * 1000:.2f} ms a sandbox")
    assert each < 0.1  # 5 ms is the aim; the machine may be busy
