"""Named actions: what tosd runs for whom, and what neither a carrier nor a kernel that lies can make of it.

The first half has the stand-in for tos-kernel of test_tosd.py ask tosd; the second whole kernels and carriers.
"""
import json
import os
import signal

import pytest

from conftest import fleet_fixture
from fleet import KERNEL, wait_for
from test_tosd import ROOT, Tosd, is_dead, make, until  # noqa: F401 (a fixture)

pytestmark = pytest.mark.skipif(not os.path.exists(KERNEL), reason="TOS_BUILD names no build with tos-kernel")


# ---- tosd, and a kernel that may lie

def script(base, name, text):
    path = os.path.join(base, name)
    with open(path, "w") as f:
        f.write("#!/bin/sh\n" + text)
    os.chmod(path, 0o755)
    return path


@pytest.fixture(params=["root", "user"] if ROOT else ["user"])
def tosd(request, make, tmp_path_factory):  # noqa: F811
    where = str(tmp_path_factory.mktemp("actions"))
    for d in (where, os.path.dirname(where), os.path.dirname(os.path.dirname(where))):
        os.chmod(d, 0o755)
    scripts = {n: script(where, n, text) for n, text in {
        "slow": 'echo $$; trap "" TERM; sleep 60 & wait; sleep 60',
        "noisy": "i=0; while [ $i -lt 2000 ]; do echo 0123456789; i=$((i+1)); done; echo last",
        "environment": "env | sort; ls /proc/self/fd | wc -l; pwd; umask; id -u",
    }.items()}
    open_to_all = script(where, "open", "echo no")
    os.chmod(open_to_all, 0o777)
    t = make(request.param, config=(
        "action echo 5000 address,hours:number /bin/echo {address} - {hours}h {x y}\n"
        f"action slow 300 - {scripts['slow']}\n"
        f"action noisy 5000 - {scripts['noisy']}\n"
        f"action environment 5000 - {scripts['environment']}\n"
        "action fail 5000 - /bin/false\n"
        "action missing 5000 - /nonexistent/program\n"
        f"action open 5000 - {open_to_all}\n"
        "action nap 5000 - /bin/sleep 0.3\n"
        "action long 20000 - /bin/sleep 20\n"))
    t.start()
    return t


def act(t, slot, *words, within=5000):
    t.say(f"act {slot} {within} " + " ".join(words))
    return t.expect(f"ACTION {slot} ")


def test_an_action_runs_with_its_values_and_tells_how_it_ended(tosd):
    assert act(tosd, 1, "echo", "192.0.2.7", "12") == "ACTION 1 rc=0 status=0 late=0 n=22 cut=0 192.0.2.7 - 12h {x y}|"
    assert "status=256" in act(tosd, 2, "fail")  # exit code 1, as waitpid() has it


def test_it_gets_nothing_of_tosds_but_its_rights(tosd):
    said = act(tosd, 1, "environment").split(" ", 7)[7].split("|")
    assert "HOME=/" in said and "TOS_ACTION=environment" in said and "TOS_KERNEL=probe0" in said
    assert not [w for w in said if w.startswith(("TOS_HOME", "PYTHON", "TOS_BUILD"))]
    fds, where, mask, uid = [w for w in said if w][-4:]
    assert int(fds) == 4 and where == "/" and mask == "0022"  # 0, 1, 2, and the folder that ls reads
    assert int(uid) == (65534 if tosd.user else os.geteuid())


@pytest.mark.parametrize("words", [
    ["reboot"], ["echo"], ["echo", "192.0.2.7"], ["echo", "192.0.2.7", "1", "2"], ["echo", "-n", "1"],
    ["echo", "192.0.2.7;id", "1"], ["echo", "$(id)", "1"], ["echo", "192.0.2.7", "-1"], ["../../bin/sh"], ["/bin/sh", "-c", "id"]])
def test_what_the_table_does_not_hold_is_refused_whatever_the_kernel_says(tosd, words):
    kernel = tosd.kernel_pid()
    assert "rc=-14" in act(tosd, 7, *words) if len(words) == 1 and words[0] != "echo" or words[0] == "/bin/sh" \
        else "rc=-26" in act(tosd, 7, *words)
    assert "rc=0" in act(tosd, 8, "echo", "192.0.2.7", "1") and tosd.kernel_pid() == kernel
    assert "action begun" in tosd.text() and tosd.text().count("action begun") == 1


@pytest.mark.parametrize("kind", ["name", "value", "values", "length", "slot", "many"])
def test_a_request_that_is_no_message_ends_the_kernel(tosd, kind):
    kernel = tosd.kernel_pid()
    tosd.say("act-garbage " + kind)
    until("the end of tos-kernel", lambda: is_dead(kernel))
    tosd.connect()
    assert "broke the protocol" in tosd.text()
    assert "rc=0" in act(tosd, 3, "echo", "192.0.2.7", "1")


def test_one_that_takes_too_long_is_ended_with_all_it_started(tosd):
    said = act(tosd, 1, "slow")
    assert "late=1" in said and "status=9 " in said
    pid = int(said.split()[-1].rstrip("|"))
    assert is_dead(pid) and "an action takes too long" in tosd.text()


def test_of_much_output_beginning_and_end_are_kept(tosd):
    said = act(tosd, 1, "noisy")
    assert "n=4096" in said and f"cut={2000 * 11 + 5 - 4096}" in said


def test_a_program_that_is_missing_or_that_others_may_write_is_not_run(tosd):
    assert "rc=-14" in act(tosd, 1, "missing")
    assert "rc=-2" in act(tosd, 2, "open")


def test_one_of_a_name_at_a_time_in_their_order_and_those_that_came_too_late_not_at_all(tosd):
    for slot, within in ((1, 5000), (2, 5000), (3, 100)):
        tosd.say(f"act {slot} {within} nap")
    assert "rc=0" in act(tosd, 4, "echo", "192.0.2.7", "1")  # another name does not wait
    assert "rc=-21" in tosd.expect("ACTION")  # the third, before the first has ended
    assert [tosd.expect("ACTION")[:13] for _ in range(2)] == ["ACTION 1 rc=0", "ACTION 2 rc=0"]


def test_it_goes_on_when_the_kernel_dies_and_is_ended_with_tosd(tosd):
    tosd.say("act 1 5000 nap")
    tosd.say("act 2 5000 long")
    until("both to run", lambda: tosd.text().count("action begun") == 2)
    tosd.say("exit 9")
    until("its end", lambda: "action ended" in tosd.text())
    tosd.connect()
    assert "rc=-21" in act(tosd, 1, "long", within=100)  # the one before still runs, and nobody hears of it
    tosd.proc.send_signal(signal.SIGTERM)
    tosd.proc.wait(15)
    assert tosd.proc.returncode == 0 and tosd.text().count("action ended") == 2


def test_a_reload_takes_the_table_and_a_broken_one_leaves_it(tosd):
    with open(tosd.conf, "a") as f:
        f.write("action new 5000 - /bin/echo new\n")
    assert "rc=-14" in act(tosd, 1, "new")
    tosd.proc.send_signal(signal.SIGHUP)
    assert tosd.expect("RELOADED").startswith("RELOADED 0")
    assert "new|" in act(tosd, 2, "new")
    with open(tosd.conf, "a") as f:
        f.write("action worse 5000 - /bin/echo {port}\n")  # the checker lets it through: tosd does not
    tosd.proc.send_signal(signal.SIGHUP)
    assert tosd.expect("RELOADED").startswith("RELOADED -25")
    assert "new|" in act(tosd, 3, "new") and "rc=-14" in act(tosd, 4, "worse")


# ---- whole kernels

CONF = '''
action "greet" { run = {"/bin/echo", "hello {who}, {{address}}"} args = {"who:name", "address"} }
action "both" { run = {"/bin/sh", "-c", "echo out; echo err >&2; exit 3"} }
action "nap" { run = {"/bin/sleep", "5"} timeout = "200ms" }
action "slow" { run = {"/bin/sleep", "1"} }
policy { rules = {"allow role:admin action *", "deny role:admin action both", "allow carrier-of:alice action greet"} }
'''
fleet = fleet_fixture(n=2, each={"host1": CONF})


@pytest.fixture(scope="module")
def domain(fleet):
    for name in ("alice", "bob"):
        fleet.tos("principal", "add", name, "--role", "owner,author")
    return fleet


def ask(fleet, action, args="{}", who=None, within=20, more=""):
    lua = (f"local a, c, t = tos.call('Executor', {{'ACTION', {{name = '{action}', args = {args}{more}}}}}, {within}) "
           "return a or {refused = c, text = t}")
    r = fleet.run("launch", "-e", lua, "--path", "host1", "--wait", "--json", *(["--as", who] if who else []))
    o = json.loads(r.stdout)
    assert o["state"] == "finished", o
    return o["briefcase"]["RESULTS"][0]


def audited(fleet, event):
    rows = [json.loads(line) for line in fleet.tos("audit", "--json", "--kernel", "host1").splitlines()]
    return [r for r in rows if r["event"] == event]


def test_a_carrier_has_an_action_run_and_gets_what_it_said(fleet, domain):
    o = ask(fleet, "greet", "{who = 'you', address = '2001:DB8::1'}")
    assert (o["stdout"], o["code"], o["cause"]) == ("hello you, {2001:db8::1}\n", 0, "exited")
    wait_for(lambda: audited(fleet, "action-ended"))
    (row,) = audited(fleet, "action-run")
    assert row["action"] == "greet" and row["args"] == {"who": "you", "address": "2001:DB8::1"} and row["owner"] == "admin"
    assert audited(fleet, "action-ended")[0]["code"] == 0
    assert fleet.metric("host1", 'tos_actions_total{cause="exited"}') == 1
    assert fleet.metric("host1", "tos_actions_running") == 0


def test_each_is_granted_by_its_name(fleet, domain):
    assert ask(fleet, "both")["refused"] == "denied"
    assert ask(fleet, "greet", "{who = 'me', address = '::'}", who="alice")["code"] == 0
    assert ask(fleet, "slow", who="alice")["refused"] == "denied"
    assert ask(fleet, "greet", "{who = 'me', address = '::'}", who="bob")["refused"] == "denied"
    assert ask(fleet, "nonesuch", who="bob")["refused"] == "denied"  # and not whether there is one
    assert fleet.run("can", "carrier-of:alice", "action", "greet", "--kernel", "host1").returncode == 0
    assert fleet.run("can", "carrier-of:bob", "action", "greet", "--kernel", "host1").returncode == 3
    # where no rule names it, to be allowed everything else is not enough
    assert fleet.run("can", "carrier-of:admin", "action", "greet", "--kernel", "host0").returncode == 3
    wait_for(lambda: {(r["owner"], r["action"], r["code"]) for r in audited(fleet, "action-refused")} >= {
        ("admin", "both", "denied"), ("alice", "slow", "denied"), ("bob", "greet", "denied"), ("bob", "nonesuch", "denied")})
    assert fleet.metric("host1", 'tos_actions_refused_total{code="denied"}') == 4


@pytest.mark.parametrize("action, args, code", [
    ("greet", "{who = 'you'}", "usage"),
    ("greet", "{who = 'you', address = 'example.org'}", "usage"),
    ("greet", "{who = '-rf', address = '::'}", "usage"),
    ("greet", "{who = '; id', address = '::'}", "usage"),
    ("greet", "{who = ('x'):rep(5000), address = '::'}", "usage"),
    ("greet", "{who = {}, address = '::'}", "usage"),
    ("greet", "{who = 'you', address = '::', more = '1'}", "usage"),
    ("greet", "'you'", "usage"),
    ("nonesuch", "{}", "not-found"),
])
def test_bad_arguments_are_refused_with_code_and_reason(fleet, domain, action, args, code):
    o = ask(fleet, action, args)
    assert o["refused"] == code and o["text"], o


def test_it_ends_in_its_time_and_who_waits_too_short_is_told(fleet, domain):
    o = ask(fleet, "nap")
    assert o["cause"] == "wall" and o["signal"] == signal.SIGTERM
    o = ask(fleet, "slow", within=0.2)
    assert o["refused"] == "timed-out"
    assert ask(fleet, "slow", more=", dry = true") == {"action": "slow", "kernel": "host1"}


def test_tos_run_and_tos_action_know_them(fleet, domain):
    r = fleet.run("run", "--hosts", "host1", "--action", "greet", "who=all", "address=10.0.0.1")
    assert r.returncode == 0 and r.stdout.split() == ["host1", "hello", "all,", "{10.0.0.1}"], (r.stdout, r.stderr)
    r = fleet.run("run", "--action", "greet", "who=all", "address=10.0.0.1", "--json")
    rows = {row["host"]: row for row in json.loads(r.stdout)["hosts"]}
    assert r.returncode == 1 and rows["host0"]["code"] == "denied" and rows["host1"]["exit"] == 0
    assert fleet.run("run", "--dry-run", "--hosts", "host1", "--action", "greet", "who=all", "address=x").returncode == 1
    assert fleet.run("run", "--action", "greet", "who").returncode == 2
    assert fleet.run("run", "--action", "greet", "--", "id").returncode == 2
    assert {a["name"] for a in fleet.json("action", "--kernel", "host1")} == {"greet", "both", "nap", "slow"}
    table = fleet.tos("action", "list", "--kernel", "host1")
    assert "who:name address" in table and "/bin/echo hello {who}, {{address}}" in table
    assert fleet.json("action", "--kernel", "host0") == []


def test_a_reload_brings_changes_and_takes_away(fleet, domain):
    path = f"{fleet.home}/kernels/host1/tosd.conf"
    with open(path) as f:
        was = f.read()
    try:
        with open(path, "w") as f:
            f.write(was.replace("hello {who}", "good day {who}").replace('action "slow"', 'action "slower"'))
        said = json.loads(fleet.tos("reload", "--kernel", "host1", "--json"))
        assert {c["key"] for c in said["changed"]} == {"action greet", "action slow", "action slower"} and said["kept"] == []
        assert ask(fleet, "greet", "{who = 'you', address = '::'}")["stdout"] == "good day you, {::}\n"
        assert ask(fleet, "slow")["refused"] == "not-found" and ask(fleet, "slower")["code"] == 0
    finally:
        with open(path, "w") as f:
            f.write(was)
        fleet.tos("reload", "--kernel", "host1")


def test_what_runs_outlives_the_kernel_and_is_in_tosds_log(fleet, domain):
    name = fleet.launch("function begin(self) tos.call('Executor', {'ACTION', {name = 'slow'}}, 20) end", "--path", "host1", "--fast")

    def log():
        with open(f"{fleet.home}/kernels/host1/log") as f:
            return f.read()

    begun = log().count("action begun")
    wait_for(lambda: audited(fleet, "action-run")[-1]["action"] == "slow" and "action begun" in log())
    ended = log().count("action ended")
    os.kill(fleet.pid("host1", "tos-kernel"), signal.SIGKILL)
    wait_for(lambda: log().count("action ended") > ended)
    assert begun and name
