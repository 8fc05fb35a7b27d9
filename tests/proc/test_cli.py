"""The tos command as people meet it: first what needs no kernel, then three kernels on this machine.

The build tree is $TOS_BUILD.
"""
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time

import pytest

BUILD = os.environ.get("TOS_BUILD", "")
TOS = os.path.join(BUILD, "src/cli/tos")
KERNEL = os.path.join(BUILD, "src/kernel/tos-kernel")
HELLO = """-- says hello
function begin(self)
	self.stops = (self.stops or 0) + 1
	tos.post("Echo", "Hello, World")
	tos.briefcase:folder("RESULTS"):push { kernel = tos.kernel(), stop = self.stops }
end
"""

pytestmark = pytest.mark.skipif(not os.path.exists(TOS), reason="TOS_BUILD names no build with tos")
kernels = pytest.mark.skipif(not os.path.exists(KERNEL), reason="no tos-kernel in the build")


class Home:
    def __init__(self, path):
        self.path = path
        self.env = dict(os.environ, TOS_HOME=os.path.join(path, "h"), HOME=path)
        self.env.pop("TOS_PASSPHRASE", None)

    def run(self, *args, expect=0, timeout=60, cwd=None):
        r = subprocess.run([TOS, *args], env=self.env, cwd=cwd or self.path, timeout=timeout,
                           capture_output=True, text=True)
        assert expect is None or r.returncode == expect, \
            f"tos {' '.join(args)}: {r.returncode}\n{r.stdout}\n{r.stderr}\n{self.logs()}"
        return r

    def out(self, *args, **kw):
        return self.run(*args, **kw).stdout

    def json(self, *args, **kw):
        return json.loads(self.out(*args, "--json", **kw))

    def file(self, name, text):
        path = os.path.join(self.path, name)
        with open(path, "w") as f:
            f.write(text)
        return path

    def logs(self):
        lines = []
        base = os.path.join(self.env["TOS_HOME"], "kernels")
        for name in os.listdir(base) if os.path.isdir(base) else []:
            try:
                with open(os.path.join(base, name, "log")) as f:
                    lines += f.readlines()[-100:]
            except FileNotFoundError:
                pass
        return "".join(sorted(lines))


@pytest.fixture
def home():
    path = tempfile.mkdtemp(prefix="tos-cli.")
    h = Home(path)
    yield h
    subprocess.run([TOS, "down"], env=h.env, capture_output=True, timeout=60)
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(scope="module")
def fleet():
    path = tempfile.mkdtemp(prefix="tos-cli.")
    os.chmod(path, 0o755)
    h = Home(path)
    h.run("up", "-n", "3")
    h.file("hello.lua", HELLO)
    yield h
    subprocess.run([TOS, "down"], env=h.env, capture_output=True, timeout=60)
    shutil.rmtree(path, ignore_errors=True)


def commands():
    out = subprocess.run([TOS, "manual"], capture_output=True, text=True).stdout if os.path.exists(TOS) else ""
    return out.split()


# ---- without a kernel

def test_help_is_printed_for_each_command(home):
    assert "launch" in home.out("--help")
    for c in commands():
        text = home.out(c, "--help")
        assert text.startswith(f"usage: tos {c}")
        assert "--json" in text


def test_version_and_no_command(home):
    assert re.match(r"tos \d+\.\d+\.\d+\n", home.out("--version"))
    assert "usage" in home.run(expect=2).stderr


@pytest.mark.parametrize("args", [["fly"], ["ps", "--bogus"], ["kill"], ["launch"], ["init", "x"], ["launch", "-e", "x", "y"],
                                  ["ps", "--timeout", "soon"], ["up", "-n", "0"], ["principal", "praise"],
                                  ["resolve"], ["join", "x", "--listen", "nowhere"]])
def test_wrong_usage_is_exit_2_and_one_line(home, args):
    home.run("init")
    r = home.run(*args, expect=2)
    assert r.stdout == ""
    assert len(r.stderr.splitlines()) == 1


def test_init_makes_a_domain_once(home):
    said = home.out("init")
    assert "host0" in said and "next" in said
    top = home.env["TOS_HOME"]
    for f in ["domain.conf", "ca/root.key", "ca/root.crt", "ca/revoked", "keys/admin/key", "keys/admin/cert",
              "kernels/host0/tosd.conf", "kernels/host0/key", "kernels/host0/cert", "kernels/host0/root.crt"]:
        assert os.path.exists(os.path.join(top, f)), f
    assert os.stat(os.path.join(top, "ca/root.key")).st_mode & 0o777 == 0o600
    before = open(os.path.join(top, "ca/root.key")).read()
    assert "nothing was changed" in home.run("init", expect=1).stderr
    assert open(os.path.join(top, "ca/root.key")).read() == before


def test_the_configuration_that_init_writes_is_understood(home):
    if not os.path.exists(KERNEL):
        pytest.skip("no tos-kernel in the build")
    home.run("init")
    conf = os.path.join(home.env["TOS_HOME"], "kernels/host0/tosd.conf")
    r = subprocess.run([os.path.join(BUILD, "src/tosd/tosd"), "-t", "-c", conf], capture_output=True, text=True)
    assert r.returncode == 0, r.stderr
    assert "host0" in r.stdout


def test_a_root_key_can_have_a_passphrase(home):
    home.file("phrase", "correct horse\n")
    home.run("init", "--passphrase-file", "phrase")
    assert "TOS_PASSPHRASE" in home.run("principal", "add", "alice", expect=None).stderr
    home.env["TOS_PASSPHRASE"] = "wrong"
    assert home.run("principal", "add", "alice", expect=None).returncode != 0
    home.env["TOS_PASSPHRASE"] = "correct horse"
    home.run("principal", "add", "alice")


def test_principals_are_added_listed_and_revoked(home):
    home.run("init")
    home.run("principal", "add", "alice", "--role", "owner", "--expires", "30d")
    rows = {p["name"]: p for p in home.json("principal", "list")}
    assert rows["alice"]["roles"] == ["owner"] and not rows["alice"]["revoked"]
    assert set(rows["admin"]["roles"]) == {"admin", "owner", "author"}
    home.run("principal", "add", "alice", expect=1)
    home.run("principal", "add", "bob", "--role", "emperor", expect=2)
    home.run("principal", "add", "../bob", expect=1)
    home.run("principal", "revoke", "alice")
    rows = {p["name"]: p for p in home.json("principal", "list")}
    assert rows["alice"]["revoked"] and not rows["admin"]["revoked"]
    home.run("principal", "revoke", "nobody", expect=1)


def test_what_is_built_verifies_and_what_is_changed_does_not(home):
    home.run("init")
    home.file("hello.lua", HELLO)
    assert home.out("build", "hello.lua") == "hello.bundle\n"
    v = home.json("verify", "hello.bundle")
    assert v["valid"] and v["author"] == "admin" and v["files"] == {"hello.lua": len(HELLO)}
    path = os.path.join(home.path, "hello.bundle")
    data = bytearray(open(path, "rb").read())
    at = data.index(b"Hello")
    data[at] ^= 1
    open(path, "wb").write(data)
    r = home.run("verify", "hello.bundle", expect=3)
    assert "hello.lua" in r.stderr
    home.run("principal", "add", "bob", "--role", "owner")
    assert "role author" in home.run("build", "hello.lua", "--as", "bob", expect=3).stderr
    home.run("build", "hello.lua")
    home.run("principal", "add", "carol", "--role", "author")
    home.run("build", "hello.lua", "-o", "c.bundle", "--as", "carol")
    home.run("principal", "revoke", "carol")
    home.run("verify", "hello.bundle")
    assert "revoked" in home.run("verify", "c.bundle", expect=3).stderr


def test_a_bundle_of_another_domain_is_not_trusted(home):
    home.run("init")
    home.file("hello.lua", HELLO)
    home.run("build", "hello.lua")
    home.env["TOS_HOME"] += "2"
    home.run("init")
    home.run("verify", "hello.bundle", expect=3)


@pytest.mark.parametrize("verb", ["build", "launch"])
def test_a_syntax_error_is_told_with_file_and_line_before_anything_is_sent(home, verb):
    home.run("init")
    home.file("bad.lua", "function begin(self)\n  x x\nend\n")
    r = home.run(verb, "bad.lua", expect=1)
    assert "bad.lua:2:" in r.stderr
    assert "begin" in home.run(verb, home.file("none.lua", "local x = 1\n"), expect=1).stderr


def test_without_a_kernel_the_remedy_is_named(home):
    assert "tos up" in home.run("ps", expect=1).stderr
    home.run("init")
    r = home.run("ps", expect=5)
    assert "tos up" in r.stderr and len(r.stderr.splitlines()) == 1
    assert "tos kernels" in home.run("ps", "--kernel", "host9", expect=1).stderr


def test_doctor_works_without_a_domain(home):
    r = home.run("doctor", expect=None)
    assert "seccomp" in r.stdout and "clock" in r.stdout
    assert {"where", "check", "state", "text"} <= set(json.loads(home.run("doctor", "--json", expect=None).stdout)[0])


def test_a_port_in_use_is_left_alone(home):
    import socket
    with socket.socket() as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            s.bind(("127.0.0.1", 21212))
            s.listen()
        except OSError:
            pass  # somebody else has it: as good
        home.run("init")
        conf = open(os.path.join(home.env["TOS_HOME"], "kernels/host0/tosd.conf")).read()
    assert '"127.0.0.1:21212"' not in conf


def test_completion_and_manual_come_from_the_table(home):
    script = home.out("completion")
    assert subprocess.run(["bash", "-n"], input=script, text=True).returncode == 0
    for c in commands():
        assert c in script
        if shutil.which("scdoc"):
            page = subprocess.run(["scdoc"], input=home.out("manual", c), text=True, capture_output=True)
            assert page.returncode == 0, page.stderr
            if shutil.which("mandoc"):
                lint = subprocess.run(["mandoc", "-T", "lint", "-W", "error"], input=page.stdout, text=True,
                                      capture_output=True)
                assert lint.returncode == 0, lint.stdout


def test_joining_with_a_bad_token_fails(home):
    home.run("join", "tos1.AAAA", expect=1)
    home.run("join", "nonsense", expect=1)


# ---- with kernels

@kernels
def test_up_is_idempotent(fleet):
    assert all(not k["started"] for k in fleet.json("up", "-n", "3"))


@kernels
def test_a_carrier_visits_all_and_comes_home(fleet):
    r = fleet.run("launch", "hello.lua", "--path", "host0,host1,host2", "--wait")
    assert r.stdout.splitlines()[0].startswith("host0#")
    assert re.search(r"^host2 +3$", r.stdout, re.M) and "trail" in r.stdout


@kernels
def test_facts_of_all_hosts(fleet):
    o = fleet.json("launch", "facts", "--path", "@all", "--wait")
    assert o["state"] == "finished"
    assert [row["kernel"] for row in o["briefcase"]["RESULTS"]] == ["host0", "host1", "host2"]
    rows = {c["name"]: c for c in fleet.json("ps")}
    assert rows[o["name"]]["state"] == "finished"
    assert {"name", "state", "in_doubt", "kernel", "home", "owner", "hop", "since_ms"} <= set(rows[o["name"]])
    assert fleet.json("wait", o["name"])["state"] == "finished"
    assert {"trail", "limits", "usage", "fault"} <= set(fleet.json("show", o["name"]))
    assert "host number 3" in fleet.out("log", o["name"])


@kernels
def test_one_line_of_lua_and_data(fleet):
    o = fleet.json("launch", "-e", "return tos.briefcase:folder('N'):get(1) * 2", "--data", "N=21", "--path", "host1", "--wait")
    assert o["briefcase"]["RESULTS"] == [{"kernel": "host1", "value": 42}]


@kernels
def test_an_unknown_host_is_named_at_launch(fleet):
    r = fleet.run("launch", "hello.lua", "--path", "host0,hots1", expect=1)
    assert "hots1" in r.stderr and "host2" in r.stderr


@kernels
def test_a_fault_is_told_with_its_place(fleet):
    r = fleet.run("launch", "-e", "error('boom')", "--path", "host1", "--wait", expect=1)
    assert "line.lua:1: boom" in r.stderr and "host1" in r.stderr
    assert "traceback" in fleet.out("show", r.stdout.split()[0])


@kernels
def test_suspend_resume_kill(fleet):
    name = fleet.out("launch", "-e", "while true do tos.sleep(0.05) end", "--path", "host1").strip()

    def reaches(state):
        end = time.monotonic() + 10
        while time.monotonic() < end:
            if fleet.json("show", name)["state"] == state:
                return True
            time.sleep(0.05)
        return False

    assert reaches("running")
    fleet.run("suspend", name)
    assert reaches("suspended")
    fleet.run("resume", name)
    assert reaches("running")
    fleet.run("wait", name, "--timeout", "300ms", expect=4)
    fleet.run("kill", name)
    assert "killed" in fleet.run("wait", name, "--timeout", "10s", expect=1).stderr


@kernels
def test_ctrl_c_detaches_and_says_so(fleet):
    p = subprocess.Popen([TOS, "launch", "-e", "tos.sleep(60)", "--wait"], env=fleet.env, stdout=subprocess.PIPE,
                         stderr=subprocess.PIPE, text=True, cwd=fleet.path)
    name = p.stdout.readline().strip()
    time.sleep(0.3)
    p.send_signal(signal.SIGINT)
    _, err = p.communicate(timeout=10)
    assert p.returncode == 130
    assert f"still running: tos wait {name}" in err
    fleet.run("kill", name)


@kernels
def test_acts_of_others_are_denied(fleet):
    fleet.run("principal", "add", "mallory", "--role", "owner,author")
    name = fleet.out("launch", "-e", "tos.sleep(60)").strip()
    fleet.run("kill", name, "--as", "mallory", expect=3)
    fleet.run("kill", name)


@kernels
def test_a_large_carrier_goes_ahead_in_chunks(fleet):
    fleet.file("large.lua", HELLO + "-- " + "x" * 1500000 + "\n")
    o = fleet.json("launch", "large.lua", "--path", "host1,host2", "--limit", "memory=64M", "--wait", expect=None)
    assert o["state"] == "finished", o.get("fault")


@kernels
def test_post_and_call(fleet):
    fleet.run("post", "host2/Echo", "Hello from a test")
    assert "Nobody" in fleet.run("post", "Nobody", "x", expect=1).stderr
    assert "one" in json.loads(fleet.out("call", "host1/Monitor", "load"))
    assert "no" in fleet.run("call", "Nobody", "x", expect=1).stderr


@kernels
def test_reading_a_kernel(fleet):
    assert any(p["path"].startswith("/Mobility") for p in fleet.json("get", "/Mobility"))
    assert "# TYPE" in fleet.out("metrics")
    assert "launched" in fleet.out("audit")
    assert {k["name"] for k in fleet.json("kernels")} == {"host0", "host1", "host2"}
    fleet.run("doctor")


@kernels
def test_another_host_joins_and_is_removed(fleet):
    token = fleet.json("enroll", "web1")["token"]
    other = Home(tempfile.mkdtemp(prefix="tos-join."))
    try:
        other.run("join", token, "--listen", "127.0.0.1:21790")
        other.run("join", token, expect=1)  # it is configured already
        other.run("up")
        o = fleet.json("launch", "hello.lua", "--path", "host1,web1", "--wait")
        assert [r["kernel"] for r in o["briefcase"]["RESULTS"]] == ["host1", "web1"]
        fleet.run("enroll", "web1", expect=1)  # needs --replace
        fleet.run("kernels", "remove", "web1")
        end = time.monotonic() + 10
        while any(k["name"] == "web1" and k["linked"] for k in fleet.json("kernels")) and time.monotonic() < end:
            time.sleep(0.1)
        assert not any(k["name"] == "web1" and k["linked"] for k in fleet.json("kernels"))
    finally:
        subprocess.run([TOS, "down"], env=other.env, capture_output=True, timeout=60)
        shutil.rmtree(other.path, ignore_errors=True)


@kernels
def test_a_killed_tosd_comes_back_and_the_outcome_too(fleet):
    name = fleet.out("launch", "-e", "tos.sleep(1)", "--path", "host1,host2").strip()
    pids = subprocess.run(["pgrep", "-f", f"tosd -c {fleet.env['TOS_HOME']}/kernels/host1/"], capture_output=True,
                          text=True).stdout.split()
    assert pids
    os.kill(int(pids[0]), signal.SIGKILL)
    assert fleet.json("wait", name, "--timeout", "30s")["state"] == "finished"


@kernels
def test_down_and_up_again(fleet):
    assert {k["state"] for k in fleet.json("down")} == {"stopped"}
    assert {k["state"] for k in fleet.json("down")} == {"was not running"}
    fleet.run("ps", expect=5)
    fleet.run("up")
    assert fleet.json("ps", "--all")
