"""Programs that carriers have run: what they get, what becomes of them, and what they can't do."""
import hashlib
import json
import os

import pytest

from conftest import fleet_fixture
from fleet import KERNEL, wait_for

pytestmark = pytest.mark.skipif(not os.path.exists(KERNEL), reason="TOS_BUILD names no build with tos-kernel")

PINNED = hashlib.sha256(open("/usr/bin/true", "rb").read()).hexdigest()
fleet = fleet_fixture(n=2, each={
    "host1": 'programs { memory = "64M" cpu = "2s" processes = 24 wall = "20s" file_size = "4M" scratch = "8M"\n'
             f'  pin = {{"/usr/bin/true={PINNED}", "/usr/bin/false={PINNED}"}} }}\n'
             'policy { rules = {"allow role:owner run /usr/bin/uname", "deny role:admin run /usr/bin/nl"} }\n',
})


@pytest.fixture(scope="module")
def domain(fleet):
    fleet.tos("principal", "add", "alice", "--role", "owner,author")
    return fleet


def results(fleet, lua, *args, path="host1", who=None):
    """Run it at host1 and get what it returned there."""
    more = ["--as", who] if who else []
    r = fleet.run("launch", "-e", lua, "--path", path, "--wait", "--json", *more, *args)
    o = json.loads(r.stdout)
    assert o["state"] == "finished", o
    return o["briefcase"]["RESULTS"]


def call(request):
    """Lua: the answer, or [code, text]."""
    return f"local a, c, t = tos.call('Executor', {request}, 20) return a or {{refused = c, text = t}}"


def run(fleet, program, *args, more="", **kw):
    argv = ", ".join(json.dumps(a) for a in args)
    return results(fleet, call(f"{{'RUN', {{program = '{program}', args = {{{argv}}}, wait = true, {more}}}}}"), **kw)[0]


def sh(fleet, script, more="", **kw):
    return run(fleet, "/bin/sh", "-c", script, more=more, **kw)


# ---- what it gets

def test_an_unmodified_tool_runs_and_its_output_and_exit_code_come_home(fleet, domain):
    o = run(fleet, "/usr/bin/uname", "-s")
    assert o["stdout"] == "Linux\n" and o["code"] == 0 and o["cause"] == "exited" and o["stderr"] == ""
    assert o["digest"] == hashlib.sha256(open("/usr/bin/uname", "rb").read()).hexdigest()
    o = sh(fleet, "echo out; echo err >&2; exit 3")
    assert (o["stdout"], o["stderr"], o["code"]) == ("out\n", "err\n", 3)


def test_arguments_environment_and_stdin_can_be_set(fleet, domain):
    o = sh(fleet, 'echo "$A|$HOME|$TOS_CARRIER"; cat', more="env = {A = 'x y'}, stdin = 'from afar'")
    first, second = o["stdout"].split("\n")
    assert first.startswith("x y|/tmp|host0#") and second == "from afar"
    assert run(fleet, "echo", "a b", "c")["stdout"] == "a b c\n"  # by its name alone


def test_a_signal_is_told_from_an_exit(fleet, domain):
    o = sh(fleet, "kill -9 $$")
    assert o["cause"] == "signalled" and o["signal"] == 9 and "code" not in o


# ---- what is refused

@pytest.mark.parametrize("request_, code", [
    ("{program = '/etc/hostname', wait = true}", "denied"),  # no rule admits it
    ("{program = '/usr/bin/nl', wait = true}", "denied"),  # one forbids it
    ("{program = '/usr/bin/../bin/uname'}", "usage"),
    ("{program = 'nonesuch'}", "not-found"),
    ("{program = {mips = '/bin/true', sparc = '/bin/true'}}", "not-found"),
    ("{program = 'uname', limits = {memory = 1e9}}", "limit"),
    ("{program = 'uname', limits = {magic = 1}}", "usage"),
    ("{program = '/usr/bin/false'}", "bad-digest"),  # is not what was pinned
    ("{program = 'uname', stay = true, name = 'x'}", "limit"),  # the ticket grants no place
])
def test_what_is_not_admitted_is_refused_with_code_reason_and_audit_row(fleet, domain, request_, code):
    before = fleet.metric("host1", "tos_programs_refused_total") or 0
    (o,) = results(fleet, call(f"{{'RUN', {request_}}}"))
    assert o["refused"] == code and o["text"], o
    if "mips" not in request_:  # that is found out before the kernel is asked
        assert fleet.metric("host1", "tos_programs_refused_total") == before + 1


def test_a_pinned_program_that_is_unaltered_runs(fleet, domain):
    assert run(fleet, "/usr/bin/true")["code"] == 0


def test_another_role_runs_only_what_policy_names_for_it(fleet, domain):
    assert run(fleet, "/usr/bin/uname", who="alice")["code"] == 0
    assert run(fleet, "/usr/bin/id", who="alice")["refused"] == "denied"
    assert run(fleet, "/usr/bin/uname", who="alice", path="host0")["refused"] == "denied"


# ---- the sandbox from inside

def test_it_sees_neither_keys_nor_state_nor_other_processes_nor_a_network(fleet, domain):
    o = sh(fleet, f"""
        ls {fleet.home} 2>&1; cat /etc/shadow 2>&1; ls /root /home 2>&1
        echo "-- processes"; ls /proc | grep -c '^[0-9]'; tr '\\0' ' ' < /proc/1/cmdline; cat /proc/1/environ 2>&1
        echo "-- net"; cat /proc/net/dev | grep -v lo: | tail -n +3; cat /proc/net/route | tail -n +2""")
    before, processes = o["stdout"].split("-- processes\n")
    processes, net = processes.split("-- net\n")
    assert before.count("No such file") + before.count("cannot access") >= 3 and "root:" not in before, before
    assert int(processes.split()[0]) <= 8 and fleet.home not in processes and "ermission denied" in processes
    assert net == ""


def test_it_can_neither_gain_rights_nor_leave_its_sandbox(fleet, domain):
    o = sh(fleet, """
        grep -E 'CapPrm|CapEff|CapBnd|NoNewPrivs' /proc/self/status
        unshare -U true 2>&1; mount -t tmpfs x /tmp 2>&1; umount /proc 2>&1; chroot / true 2>&1; hostname evil 2>&1
        touch /usr/x 2>&1; touch /x 2>&1; cp /bin/true /tmp/t; chmod +x /tmp/t; /tmp/t 2>&1; kill -9 1; echo alive""")
    out = o["stdout"]
    assert out.count("0000000000000000") == 3 and "NoNewPrivs:\t1" in out
    for line in ("unshare", "mount", "umount", "chroot", "hostname", "'/usr/x'", "'/x'", "/tmp/t"):
        assert any(line in x and ("denied" in x or "permitted" in x or "Read-only" in x or "only root" in x or "superuser" in x or "failed" in x or "must be root" in x)
                   for x in out.splitlines()), (line, out)
    assert out.endswith("alive\n")


def test_its_memory_files_processes_and_time_are_bounded(fleet, domain):
    o = run(fleet, "/usr/bin/python3", "-c", "x = bytearray(200 << 20)")
    assert "MemoryError" in o["stderr"] and o["code"] == 1
    o = sh(fleet, "head -c 20000000 /dev/zero > /tmp/a; wc -c < /tmp/a; head -c 3000000 /dev/zero > /tmp/b;"
                  " head -c 3000000 /dev/zero > /tmp/c && echo room")
    assert int(o["stdout"].split()[0]) <= 4 << 20 and "room" not in o["stdout"]
    o = sh(fleet, "while :; do :; done")
    assert o["cause"] == "cpu" and 1000 <= o["cpu_ms"] < 6000
    o = sh(fleet, "sleep 60", more="limits = {wall = 1}")
    assert o["cause"] == "wall" and o["ran_ms"] < 10000


def test_a_fork_bomb_ends_with_its_program(fleet, domain):
    o = sh(fleet, "bomb() { bomb | bomb & }; bomb; sleep 1; echo survived", more="limits = {wall = 6}")
    assert o["cause"] in ("exited", "wall", "signalled", "cpu")
    wait_for(lambda: not fleet.metric("host1", "tos_programs_running"), text="the bomb to be gone")
    assert run(fleet, "uname")["code"] == 0


def test_a_flood_of_output_is_cut_in_the_middle_and_counted(fleet, domain):
    o = sh(fleet, "seq 1 300000", more="capture = 20000")
    total = sum(len(str(i)) + 1 for i in range(1, 300001))
    assert len(o["stdout"]) + o["stdout_cut"] == total and len(o["stdout"]) == 20000
    assert o["stdout"].startswith("1\n2\n3\n") and o["stdout"].endswith("299999\n300000\n")
