"""The tos command as people meet it: first what needs no kernel, then three kernels on this machine.

The build tree is $TOS_BUILD.
"""
import base64
import hashlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time

import pytest

from fleet import wait_for

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
        assert all(len(line) <= 80 for line in text.split("Examples:")[0].splitlines()), text
        assert "--json" in text


def test_help_is_a_word_as_well(home):
    assert home.out("help") == home.out("--help")
    assert home.out("help", "launch") == home.out("launch", "--help")
    assert "is it launch?" in home.run("help", "launhc", expect=2).stderr
    assert home.out("completion", "bash") == home.out("completion")
    assert "bash only" in home.run("completion", "fish", expect=2).stderr


def test_the_list_of_commands_fits_a_terminal_and_is_in_groups(home):
    text = home.out("--help")
    assert all(len(line) <= 80 for line in text.splitlines())
    groups = re.findall(r"^([A-Z][^\n]*):$", text, re.M)
    assert groups[0].startswith("Domain") and groups[-1] == "Everywhere" and len(set(groups)) == 7
    assert re.findall(r"^  ([a-z]+) ", text, re.M) == [c for c in home.out("manual").split()]


def test_what_a_newcomer_types_gets_a_hint(home):
    assert "there is no command" not in home.run("help", "ps", "and", "more").stderr
    assert "tos run -- uname -s" in home.run("run", "uname", "-s", expect=2).stderr
    assert "--" not in home.run("ps", "-q", expect=2).stderr.split(";")[0]  # ps takes no command
    assert "is it --hosts?" in home.run("run", "--path", "host1", "--", "true", expect=2).stderr
    assert "is it" not in home.run("run", "--on", "host1", "--", "true", expect=2).stderr  # not --env
    home.run("init")
    assert "-k NAME" in home.run("log", "host0", expect=1).stderr
    assert "lower case" in home.run("launch", "facts", "--path", "Host0", expect=1).stderr


def test_a_start_that_fails_says_why_and_little_else(home):
    home.run("init")
    with socket.socket() as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        s.bind(("127.0.0.1", 0))
        s.listen()
        conf = os.path.join(home.env["TOS_HOME"], "kernels/host0/tosd.conf")
        with open(conf) as f:
            text = re.sub(r'127\.0\.0\.1:\d+', "127.0.0.1:%d" % s.getsockname()[1], f.read())
        with open(conf, "w") as f:
            f.write(text)
        r = home.run("up", expect=1)
    assert "is in use" in r.stderr and " info " not in r.stderr


def test_somebody_elses_key_is_not_taken_for_none(home):
    home.run("init")
    keys = os.path.join(home.env["TOS_HOME"], "keys/admin")
    if os.geteuid() == 0:
        os.chmod(home.path, 0o755)
        other = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"]
    else:
        os.chmod(keys, 0)
        other = []
    r = subprocess.run([*other, TOS, "launch", "facts"], env=home.env, capture_output=True, text=True, timeout=30)
    if not other:
        os.chmod(keys, 0o700)
    if r.stderr.startswith("setpriv:"):
        pytest.skip("others may not run this build")
    assert r.returncode == 3 and "cannot be read by this user" in r.stderr, r.stderr


def test_a_reader_that_has_had_enough_is_no_failure(home):
    p = subprocess.Popen([TOS, "manual", "run"], env=home.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    p.stdout.close()  # whatever is written now finds nobody
    assert (p.stderr.read(), p.wait(20)) == ("", 0)


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
    home.run("principal", "add", "nobody", "--replace", expect=1)
    home.run("principal", "add", "alice", "--role", "owner,author", "--replace")
    again = {p["name"]: p for p in home.json("principal", "list")}
    assert again["alice"]["roles"] == ["owner", "author"] and again["alice"]["serial"] != rows["alice"]["serial"]
    assert not again["alice"]["revoked"] and set(again) == set(rows)
    home.run("principal", "add", "bob", "--role", "emperor", expect=2)
    home.run("principal", "add", "../bob", expect=1)
    home.run("principal", "revoke", "alice")
    rows = {p["name"]: p for p in home.json("principal", "list")}
    assert rows["alice"]["revoked"] and not rows["admin"]["revoked"]
    home.run("principal", "revoke", "nobody", expect=1)


def test_nobody_locks_everybody_out_by_one_word(home):
    home.run("init")

    def revoked():
        return {p["name"] for p in home.json("principal", "list") if p["revoked"]}

    home.run("principal", "add", "ada", "--role", "admin", "--expires", "1s")
    home.run("principal", "add", "bob", "--role", "owner")
    said = wait_for(lambda: "signs for this command" not in (r := home.run("principal", "revoke", "admin", expect=1)).stderr
                    and r.stderr, text="ada's certificate has run out")
    assert "is the last admin that is known here" in said
    # What ran out says so, and what to do, before anything is sent.
    assert re.search(r"^ada .* expired$", home.out("principal", "list"), re.M)
    home.file("hello.lua", HELLO)
    home.run("principal", "add", "old", "--expires", "1s")
    said = wait_for(lambda: home.run("build", "hello.lua", "-o", "old.bundle", "--as", "old", expect=None).stderr,
                    text="old's certificate has run out")
    assert "the certificate of old ran out at" in said and "tos principal renew old" in said
    home.run("principal", "add", "eve", "--role", "admin")
    assert "signs for this command" in home.run("principal", "revoke", "admin", expect=1).stderr
    assert "signs for this command" in home.run("principal", "revoke", "eve", "--as", "eve", expect=1).stderr
    assert revoked() == set()
    home.run("principal", "revoke", "admin", "--force")
    assert revoked() == {"admin"}
    assert "is the last admin that is known here" in home.run("principal", "revoke", "eve", expect=1).stderr
    # Who is none is revoked as before; and a last one gets a new key.
    home.run("principal", "revoke", "bob")
    home.run("principal", "add", "eve", "--role", "admin", "--replace")
    assert revoked() == {"admin", "bob"}


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


def test_a_file_without_begin_is_refused_before_anything_of_it_runs(home):
    """CAR-1: with a message that names begin, where there is a kernel and where there is none."""
    name = home.file("misspelt.lua", "print('it ran')\nfunction begn(self)\nend\n")
    for args in (["launch", name], ["launch", name, "--local"], ["build", name]):
        home.run("init", expect=None)
        r = home.run(*args, expect=1)
        assert "misspelt.lua:1: a carrier must define function begin(self)" in r.stderr and "it ran" not in r.stdout + r.stderr


def test_a_syntax_error_of_a_line_names_the_line_that_was_typed(home):
    home.run("init")
    r = home.run("launch", "-e", "retur 1", expect=1)
    assert r.stderr.startswith("tos launch: -e 'retur 1', line 1: syntax error near '1'"), r.stderr


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


@kernels
def test_kernels_listen_where_they_are_told_to_and_say_so_in_tokens(home):
    port = free_port()
    assert "127.0.0.2" in home.out("init", "--listen", f"127.0.0.2:{port}")
    up = home.json("up", "-n", "2", "--listen", "127.0.0.3")
    assert [k["listen"].rsplit(":", 1)[0] for k in up] == ["127.0.0.2", "127.0.0.3"], up
    assert {k["name"]: k["address"] for k in home.json("kernels")}["host0"] == f"127.0.0.2:{port}"
    token = home.out("enroll", "other").split()[-1]
    raw = base64.urlsafe_b64decode(token.split(".", 1)[1] + "==")
    assert f"127.0.0.2:{port}".encode() in raw
    o = home.json("launch", "-e", "return 1", "--path", "host1", "--wait")
    assert o["state"] == "finished"


def test_where_nobody_could_dial_is_no_place_to_listen(home):
    for args, words in ((("--listen", "0.0.0.0"), "--advertise"), (("--listen", "[::]:21212"), "--advertise"),
                        (("--listen", "example.org"), "numeric"), (("--listen", "127.0.0.1:0"), "numeric"),
                        (("--listen", "127.0.0.1:70000"), "numeric"), (("--advertise", "a"), "--listen")):
        assert words in home.run("init", *args, expect=2).stderr, args
    home.out("init", "--listen", "0.0.0.0:29171", "--advertise", "web.example.org")
    with open(os.path.join(home.env["TOS_HOME"], "kernels/host0/tosd.conf")) as f:
        text = f.read()
    assert 'listen = {"0.0.0.0:29171"}' in text and 'advertise = "web.example.org:29171"' in text, text


@kernels
def test_two_kernels_of_one_name_differ_by_their_port(home):
    """NAM-2: the other one's port is a part of its name, of its carriers' and of its inboxes'."""
    port, other = free_port(), Home(home.path)
    other.env["TOS_HOME"] = os.path.join(home.path, "other")
    home.run("up", "-n", "1")
    join = home.out("enroll", f"host0:{port}").split()[1:]
    try:
        other.run(*join, "--listen", f"127.0.0.1:{port}")
        other.run("up")
        o = home.json("launch", "-e", "return tos.call('host0/Echo', 1) == 1", "--path", f"host0:{port},host0", "--wait")
        assert [r["kernel"] for r in o["briefcase"]["RESULTS"]] == [f"host0:{port}", "host0"]
        assert all(r["value"] for r in o["briefcase"]["RESULTS"])
        assert home.json("call", f"host0:{port}/Echo", "hi")["elements"] == ["hi"]
        shutil.copytree(os.path.join(home.env["TOS_HOME"], "keys"), os.path.join(other.env["TOS_HOME"], "keys"))
        name = other.out("launch", "-e", "return tos.self().name", "--as", "admin", "--path", "host0").strip()
        assert name == f"host0:{port}#1"
        assert other.json("wait", name)["briefcase"]["RESULTS"] == [{"kernel": "host0", "value": name}]
        assert other.json("show", name)["home"] == f"host0:{port}"
    finally:
        other.run("down", expect=None)
    for bad in ("host0:21212", "host0:0", "host0:x", "host0:70000"):
        assert home.run("enroll", bad, expect=None).returncode in (1, 2), bad


@kernels
def test_each_object_shows_its_trust_domain(fleet):
    """SEC-19: carriers are user, kernels and extensions are system."""
    name = fleet.out("launch", "-e", "tos.inbox('end'):next(60)", "--path", "host1").strip()
    rows = {r["name"]: r for r in fleet.json("ps")}
    assert rows[name]["trust"] == "user" and all(r["trust"] == "user" for r in rows.values())
    assert fleet.json("show", name)["trust"] == "user" and "trust       user" in fleet.out("show", name)
    assert {k["trust"] for k in fleet.json("kernels")} == {"system"}
    got = {p["path"]: p["value"] for p in fleet.json("get", "/")}
    assert got["/trust"] == "system"
    extensions = {p.split("/")[2] for p in got if p.startswith("/extensions/")}
    assert extensions >= {"Echo", "Mobility", "Messenger", "Directory", "Monitor", "Commit", "Spawner", "Executor"}
    assert all(got[f"/extensions/{x}/trust"] == "system" for x in extensions)
    assert got["/extensions/Monitor/where"] == "isolated" and got["/extensions/Echo/where"] == "kernel"
    fleet.run("kill", name)


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


# ---- without any kernel: --local, --briefcase, saved carriers

@kernels
def test_a_carrier_runs_without_a_kernel_or_a_domain(home):
    home.file("hello.lua", HELLO)
    r = home.run("launch", "hello.lua", "--local")
    assert re.search(r"^local +1$", r.stdout, re.M) and "sandbox" in r.stderr
    lua = """tos.log("here", tos.kernel())
        local answer, code = tos.call("Monitor", {"os"}, 5)
        local went, why = tos.go("host1")
        return { code = code, why = why, kept = tos.checkpoint(), n = tos.briefcase.N[1].a, raw = tos.bytes("xy") }"""
    r = home.run("launch", "-e", lua, "--data", 'N={"a": 7}', "--local", "--json")
    o = json.loads(r.stdout)
    row = o["briefcase"]["RESULTS"][0]
    assert (row["code"], row["why"], row["kept"], row["n"]) == ("no-such-inbox", "unsupported", True, 7)
    assert row["raw"] == "base64:" + base64.b64encode(b"xy").decode()
    assert o["state"] == "finished" and o["log"][0][1:] == ["local", "here local"]
    assert "local  here local" in r.stderr
    assert not os.path.exists(home.env["TOS_HOME"])


@kernels
def test_a_local_run_keeps_its_limits(home):
    r = home.run("launch", "-e", "while true do end", "--limit", "cpu=300ms", "--local", expect=1)
    assert "limit cpu" in r.stderr
    r = home.run("launch", "-e", "local t = {} while true do t[#t + 1] = ('x'):rep(1000) .. #t end", "--local", expect=1)
    assert "limit memory" in r.stderr
    assert "boom" in home.run("launch", "-e", "error('boom')", "--local", expect=1).stderr
    home.run("launch", "-e", "tos.sleep(60)", "--local", "--timeout", "200ms", expect=4)


@kernels
def test_a_local_run_has_no_files_and_no_network(home):
    p = subprocess.Popen([TOS, "launch", "-e", "tos.log('up') tos.sleep(60)", "--local"], env=home.env, cwd=home.path,
                         stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while "up" not in p.stderr.readline():
        assert p.poll() is None
    child = open(f"/proc/{p.pid}/task/{p.pid}/children").read().split()[0]
    status = dict(line.split(":", 1) for line in open(f"/proc/{child}/status"))
    assert status["NoNewPrivs"].strip() == "1"
    assert set(os.listdir(f"/proc/{child}/fd")) <= {"0", "1", "2", "3"}
    if "libasan" not in open(f"/proc/{child}/maps").read():
        assert status["Seccomp"].strip() == "2"
    p.send_signal(signal.SIGINT)
    p.communicate(timeout=10)
    assert p.returncode == 130
    assert not os.path.exists(f"/proc/{child}") or "Z" in open(f"/proc/{child}/stat").read()


BRIEFCASE = {
    "CODE": ["function begin(self) tos.briefcase.RESULTS = { kernel = tos.kernel(), n = #tos.briefcase.RAW[1] } end\n"],
    "HOST": ["host1"],
    "RAW": ["base64:" + base64.b64encode(bytes(range(256))).decode()],
    "MIXED": [1, -2, 1.5, True, None, "text", {"k": [[]]}, {"base64": "AAE="}],
    "EMPTY": [],
}


@kernels
def test_a_briefcase_goes_out_and_comes_back(home):
    home.file("b.json", json.dumps(BRIEFCASE))
    out = home.out("launch", "--briefcase", "b.json", "--local", "--json")
    got = json.loads(out)["briefcase"]
    assert got["RESULTS"] == [{"kernel": "local", "n": 256}]
    assert got["RAW"] == BRIEFCASE["RAW"] and got["EMPTY"] == []
    assert got["MIXED"] == BRIEFCASE["MIXED"][:-1] + ["base64:AAE="]
    assert "CODE" not in got and "HOST" not in got
    home.file("again.json", out)  # what was printed is read again, and the same
    again = json.loads(home.out("launch", "-e", "", "--briefcase", "again.json", "--local", "--json"))["briefcase"]
    assert again == got
    cbor2 = pytest.importorskip("cbor2")
    data = cbor2.dumps({"N": [b"\x00\xff", 5]}, canonical=True)
    with open(os.path.join(home.path, "b.cbor"), "wb") as f:
        f.write(data)
    lua = "return { n = #tos.briefcase.N[1], m = tos.briefcase.N[2] }"
    o = json.loads(home.out("launch", "-e", lua, "--briefcase", "b.cbor", "--local", "--json"))
    assert o["briefcase"]["RESULTS"] == [{"kernel": "local", "n": 2, "m": 5}]
    assert o["briefcase"]["N"] == ["base64:AP8=", 5]


def test_a_wrong_briefcase_is_told_with_file_and_place(home):
    for text, says in [('{"A": [1', "x:1:"), ("", "x is empty"), ('{"A": 1}', "x: folder 'A' is not a list"),
                       ('{"A": []}', "x has no folder CODE"), ('{"CODE": []}', "x: folder CODE"),
                       ('{"CODE": ["function begin() x x end"]}', "x:1:"),
                       ('{"CODE": ["function begin() end"], "HOST": ["A B"]}', "x: folder HOST")]:
        home.file("x", text)
        r = home.run("launch", "--briefcase", "x", "--local", expect=None)
        assert r.returncode in (1, 2) and says in r.stderr and len(r.stderr.splitlines()) == 1, (text, r.stderr)
    assert "no file" in home.run("launch", "--briefcase", "y", "--local", expect=1).stderr


def test_a_saved_carrier_shows_its_parts(home):
    home.run("init")
    home.file("hello.lua", HELLO)
    args = ["build", "hello.lua", "--path", "host0,host1|host2", "--data", "N=[1, 2]", "--limit", "cpu=2s"]
    assert home.out(*args, "-o", "c.tos") == "c.tos\n"
    v = home.json("verify", "c.tos")
    assert v["valid"] and v["path"] == "host0,host1|host2" and v["folders"] == {"N": 1} and v["limits"] == {"cpu": 2000}
    parts = {p["part"]: p for p in v["parts"]}
    assert set(parts) == {"code", "path", "data"} and parts["code"]["sha256"] == v["code"]
    data = bytes.fromhex("a1614e81820102")  # {"N": [[1, 2]]}
    assert (parts["data"]["bytes"], parts["data"]["sha256"]) == (len(data), hashlib.sha256(data).hexdigest())
    path = b"\x82\x65host0\x6bhost1|host2"
    assert (parts["path"]["bytes"], parts["path"]["sha256"]) == (len(path), hashlib.sha256(path).hexdigest())
    text = home.out("verify", "c.tos")
    assert "host0,host1|host2" in text and parts["data"]["sha256"] in text and "cpu=2s" in text
    # To a stream it is the same bytes, but for the moment at which it was signed.
    with open(os.path.join(home.path, "s.tos"), "wb") as f:
        subprocess.run([TOS, *args, "-o", "-"], env=home.env, cwd=home.path, stdout=f, check=True)
    assert os.path.getsize(os.path.join(home.path, "s.tos")) == os.path.getsize(os.path.join(home.path, "c.tos"))
    with open(os.path.join(home.path, "s.tos"), "rb") as f:
        r = subprocess.run([TOS, "verify", "-"], env=home.env, cwd=home.path, stdin=f, capture_output=True)
    assert r.returncode == 0, r.stderr
    size = os.path.getsize(os.path.join(home.path, "c.tos"))
    os.truncate(os.path.join(home.path, "c.tos"), size // 2)
    assert "c.tos" in home.run("verify", "c.tos", expect=1).stderr


def complete(home, line):
    script = f"""source <({TOS} completion)
COMP_WORDS=({line}); [[ '{line}' == *' ' ]] && COMP_WORDS+=('')
COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); _tos; printf '%s\\n' "${{COMPREPLY[@]}}" """
    env = dict(home.env, PATH=os.path.dirname(TOS) + ":" + home.env["PATH"])
    r = subprocess.run(["bash", "-c", script], env=env, cwd=home.path, capture_output=True, text=True, timeout=30)
    assert r.stderr == "", r.stderr
    return set(r.stdout.split())


def test_bash_completes_commands_options_and_names(home):
    home.run("init")
    home.run("principal", "add", "alice")
    home.file("mine.lua", HELLO)
    assert {"launch", "log", "locate"} == complete(home, "tos l")
    assert {"launch", "ps", "doctor"} <= complete(home, "tos ")
    assert {"--limit", "--local"} == complete(home, "tos launch --l")
    assert complete(home, "tos --home /x laun") == {"launch"}
    assert {"facts", "postman", "mine.lua"} <= complete(home, "tos launch ")
    assert complete(home, "tos launch facts --path ho") == {"host0"}
    assert complete(home, "tos launch facts --as al") == {"alice"}
    assert complete(home, "tos ps --kernel ") == {"host0"} == complete(home, "tos down ")
    assert complete(home, "tos verify mi") == {"mine.lua"}
    assert complete(home, "tos principal add bob --role o") == {"owner", "officer"}
    assert "tos get --timeout 2s" in home.out("completion").split("\tget) words")[1].split(";;")[0]


def test_a_missing_carrier_names_the_shipped_ones(home):
    r = home.run("launch", "nothing", expect=1)
    assert "nothing" in r.stderr and "facts" in r.stderr and "postman" in r.stderr


# ---- with kernels

@kernels
def test_up_is_idempotent(fleet):
    assert all(not k["started"] for k in fleet.json("up", "-n", "3"))


@kernels
def test_words_that_list_need_not_say_so(fleet):
    for command in ("commit", "kernels", "principal", "extension", "content", "action", "programs", "groups"):
        assert isinstance(fleet.json(command), list), command


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
def test_a_program_without_dashes_is_told_how_to_run_it(fleet):
    assert "tos run -- uname" in fleet.run("run", "uname", expect=1).stderr


@kernels
def test_a_fault_does_not_steer_the_terminal(fleet):
    r = fleet.run("launch", "-e", r"error('\27[2J\u{9b}31m first\nsecond')", "--wait", expect=1)
    name = r.stdout.split()[0]
    shown = r.stdout + r.stderr + fleet.out("show", name) + fleet.out("log", name)
    assert "?[2J?31m first" in r.stderr and "\nsecond" in r.stderr, r.stderr
    assert "\x1b" not in shown and "\x9b" not in shown, shown


@kernels
def test_suspend_resume_kill(fleet):
    name = fleet.out("launch", "-e", "while true do tos.sleep(0.05) end", "--path", "host1").strip()

    def reaches(state):
        return wait_for(lambda: fleet.json("show", name)["state"] == state, text=state)

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
    p = subprocess.Popen([TOS, "launch", "-e", "while true do tos.log('up') tos.sleep(0.05) end", "--wait"], env=fleet.env,
                         stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=fleet.path)
    name = p.stdout.readline().strip()
    assert "up" in p.stderr.readline()  # it watches
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
def test_a_saved_carrier_and_a_raw_briefcase_travel(fleet):
    fleet.run("build", "hello.lua", "--path", "host1,host2", "--data", "N=1", "-o", "c.tos")
    o = fleet.json("launch", "c.tos", "--wait")
    assert [r["kernel"] for r in o["briefcase"]["RESULTS"]] == ["host1", "host2"] and o["briefcase"]["N"] == [1]
    fleet.file("b.json", json.dumps(BRIEFCASE))
    o = fleet.json("launch", "--briefcase", "b.json", "--wait")
    assert o["briefcase"]["RESULTS"] == [{"kernel": "host1", "n": 256}] and o["briefcase"]["RAW"] == BRIEFCASE["RAW"]
    o = fleet.json("launch", "--briefcase", "b.json", "--path", "host2", "--wait")  # the command line knows better
    assert o["briefcase"]["RESULTS"][0]["kernel"] == "host2"


@kernels
def test_the_launcher_in_c_delivers_to_all_three(fleet):
    r = subprocess.run([os.path.join(BUILD, "examples/launch"), "hello.lua"], env=fleet.env, cwd=fleet.path, timeout=30,
                       capture_output=True, text=True)
    assert r.returncode == 0, r.stderr
    name = r.stdout.strip()
    o = fleet.json("wait", name, "--timeout", "30s")
    assert [row["kernel"] for row in o["briefcase"]["RESULTS"]] == ["host0", "host1", "host2"]
    for k in ["host0", "host1", "host2"]:
        with open(os.path.join(fleet.env["TOS_HOME"], "kernels", k, "log")) as f:
            assert f"{name}: Hello, World\n" in f.read(), k


@kernels
def test_a_retried_carrier_finishes(fleet):
    lua = "if tos.now() < tos.briefcase.AT[1] then error('too early') end return 1"
    at = time.time() + 3  # time enough to be launched in
    r = fleet.run("launch", "-e", lua, "--data", f"AT={at}", "--path", "host1", "--wait", expect=1)
    name = r.stdout.split()[0]
    assert "too early" in r.stderr and f"tos retry {name}" in r.stderr
    wait_for(lambda: time.time() >= at)
    fleet.run("retry", name)
    wait_for(lambda: fleet.json("show", name)["state"] == "finished", text="it has finished")
    assert fleet.json("wait", name, "--timeout", "5s")["state"] == "finished"
    assert fleet.json("show", name)["incarnation"] == 1
    assert "is finished; no move of it is in doubt" in fleet.run("resolve", name, expect=1).stderr


@kernels
def test_dropped_log_lines_are_not_passed_over(fleet):
    r = fleet.run("launch", "-e", "for i = 1, 1000 do tos.log('line ' .. i) end", "--path", "host1,host2", "--wait")
    for host in ("host1", "host2"):
        lines = [line for line in r.stderr.splitlines() if line.startswith(host + "  ")]
        said = [line for line in lines if "lines were dropped here" in line]
        assert len(said) == 1, r.stderr
        assert int(said[0].split()[1]) == 1000 - sum("  line " in line for line in lines)


@kernels
def test_a_revoked_principal_launches_no_more(fleet):
    fleet.run("principal", "add", "carol", "--role", "owner,author")
    assert fleet.json("launch", "-e", "return 1", "--as", "carol", "--wait")["state"] == "finished"
    fleet.run("principal", "revoke", "carol")
    assert "revoked" in fleet.run("launch", "-e", "return 1", "--as", "carol", expect=3).stderr


def watched(home, args, until, then=None):
    """What `tos ARGS` printed until a line has `until` in it; Ctrl-C then ends it well."""
    p = subprocess.Popen([TOS, *args], env=home.env, cwd=home.path, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                         text=True)
    try:
        line = p.stdout.readline()
        if then:
            then()
        while until not in line:
            line = p.stdout.readline()
            assert line, p.stderr.read()
        p.send_signal(signal.SIGINT)
        p.communicate(timeout=10)
        return p.returncode
    finally:
        p.kill()


@kernels
def test_watching(fleet):
    name = fleet.out("launch", "-e", "tos.sleep(60)", "--path", "host2").strip()
    assert watched(fleet, ["ps", "--watch"], name) == 0
    assert watched(fleet, ["log", "--follow"], "marker of a test",
                   lambda: fleet.run("launch", "-e", "tos.log('marker of a test')", "--wait")) == 0
    assert {"name": name, "kernel": "host2", "home": "host0"}.items() <= fleet.json("locate", name)[0].items()
    assert re.search(rf"^{name} +host2 ", fleet.out("locate", name), re.M)
    assert name in fleet.out("ps", "--all") and name in fleet.out("ps", "--kernel", "host2")
    assert name in complete(fleet, "tos kill ")
    fleet.run("kill", name)
    names = [c["name"] for c in fleet.json("ps")]
    assert names == sorted(names, key=lambda n: int(n.split("#")[1]))


@kernels
def test_output_is_clean(fleet):
    name = fleet.out("launch", "-e", "tos.log('said once')", "--path", "host1", "--wait").split()[0]
    shown = fleet.out("show", name)
    assert not re.search(r"^wanted *$", shown, re.M) and "cpu=10s" in shown and "memory=16M" in shown
    assert fleet.out("log", name).count("said once") == 1
    for args in [["kernels"], ["ps"], ["get"], ["doctor"], ["show", name]]:
        assert not re.search(r" +$", fleet.out(*args), re.M), args
    assert "seccomp" in fleet.out("doctor", "--all", "--kernel", "host1")
    assert fleet.out("get", "/name", "--value", "--kernel", "host2") == "host2\n"
    text = fleet.out("metrics")
    assert all(re.match(r"# (HELP|TYPE) |[a-z_]+({.*})? [-+.0-9e]+$|[a-z_]+({.*})? \+Inf$", line) for line in text.splitlines())


@kernels
def test_another_host_joins_and_is_removed(fleet):
    token = fleet.json("enroll", "web1")["token"]
    other = Home(tempfile.mkdtemp(prefix="tos-join."))
    try:
        other.run("join", token, "--listen", "127.0.0.1:21790")
        other.run("join", token, expect=1)  # it is configured already
        assert "your key" in other.out("up")  # nobody's is here
        assert "where your key is" in other.run("run", "--", "true", expect=1).stderr
        o = fleet.json("launch", "hello.lua", "--path", "host1,web1", "--wait")
        assert [r["kernel"] for r in o["briefcase"]["RESULTS"]] == ["host1", "web1"]
        # It has no socket here: what it is asked goes through a kernel that has.
        assert fleet.out("get", "/name", "--value", "--kernel", "web1") == "web1\n"
        assert isinstance(fleet.json("ps", "--kernel", "web1"), list)
        assert "one" in json.loads(fleet.out("call", "Monitor", "load", "--kernel", "web1"))
        fleet.run("post", "Echo", "over there", "--kernel", "web1")
        assert "web1" in fleet.out("doctor", "--kernel", "web1")
        assert "--path web1" in fleet.run("launch", "hello.lua", "--kernel", "web1", expect=1).stderr
        assert "web9" in fleet.run("ps", "--kernel", "web9", expect=None).stderr
        fleet.run("enroll", "web1", expect=1)  # needs --replace
        fleet.run("kernels", "remove", "web1")
        wait_for(lambda: not any(k["name"] == "web1" and k["linked"] for k in fleet.json("kernels")), text="it is cut off")
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
    conf = open(os.path.join(fleet.env["TOS_HOME"], "kernels/host1/tosd.conf")).read()
    port = int(re.search(r"127\.0\.0\.1:(\d+)", conf).group(1))
    with socket.socket() as s:  # somebody else took the port meanwhile
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        s.bind(("127.0.0.1", port))
        s.listen()
        r = fleet.run("up", expect=1)
        assert "host1" in r.stderr.splitlines()[-1] and f"{port} is in use" in r.stderr
        r = fleet.run("doctor", expect=1)
        assert re.search(rf"host1 +port +failed +127.0.0.1:{port}: .*in use", r.stdout)
        fleet.run("down")
    fleet.run("up")
    assert fleet.json("ps", "--all")
