"""Programs that carriers have run: what they get, what becomes of them, and what they can't do."""
import hashlib
import json
import os

import pytest

from conftest import fleet_fixture
import wire
from fleet import KERNEL, Failed as fleet_failed, wait_for
from test_trust import hop

pytestmark = pytest.mark.skipif(not os.path.exists(KERNEL), reason="TOS_BUILD names no build with tos-kernel")

PINNED = hashlib.sha256(open("/usr/bin/true", "rb").read()).hexdigest()
fleet = fleet_fixture(n=2, rests=True, each={
    "host1": 'programs { memory = "64M" cpu = "2s" processes = 24 wall = "20s" file_size = "4M" scratch = "8M"\n'
             f'  pin = {{"/usr/bin/true={PINNED}", "/usr/bin/false={PINNED}"}} }}\n'
             'policy { rules = {"allow role:owner run /usr/bin/uname", "allow role:owner run /usr/bin/sleep", "deny role:admin run /usr/bin/nl"} }\n',
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
    rows = o["briefcase"]["RESULTS"]
    for row in rows:
        row.pop("kernel", None)  # added by the command
    return rows


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


def test_the_hosts_network_is_there_only_where_policy_grants_it(fleet, domain):
    """What listens on the host's loopback is reached, and by nobody who may run the same program without that right."""
    address = json.loads(fleet.tos("kernels", "--json"))[1]["address"].replace(":", "/")
    script = f"exec 3<>/dev/tcp/{address} && echo reached"
    o = run(fleet, "/bin/bash", "-c", script)
    assert o["code"] != 0 and "reached" not in o["stdout"]
    o = run(fleet, "/bin/bash", "-c", script, more="network = true")
    assert o["stdout"] == "reached\n", o
    assert run(fleet, "/usr/bin/uname", more="network = true", who="alice")["refused"] == "denied"


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


HOGS = """
import mmap, os, sys, time
how, n, size = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]) << 20
def fill(block):
    for at in range(0, len(block), 4096):
        block[at] = 1
block = bytearray(size) if how == "common" else None
for _ in range(n):
    if os.fork() == 0:
        if how == "each":
            block = bytearray(size)
        elif how == "shared":
            block = mmap.mmap(-1, size)
        if how != "common":
            fill(block)
        time.sleep(1 if how == "common" else 15)
        os._exit(0)
for _ in range(n):
    os.wait()
print("all ended")
"""


@pytest.mark.parametrize("how, n, size", [("each", 4, 25), ("shared", 1, 90)])
def test_all_processes_of_a_program_share_its_memory_limit(fleet, domain, how, n, size):
    """None of them is over 64M by what it asked for itself; together, or in shared memory, they are."""
    o = run(fleet, "python3", "-c", HOGS, how, str(n), str(size))
    assert (o["cause"], o["stdout"]) == ("memory", ""), o
    assert o["peak_bytes"] > 64 << 20 and o["ran_ms"] < 14000
    wait_for(lambda: not fleet.metric("host1", "tos_programs_running"))


def test_what_processes_have_in_common_counts_once(fleet, domain):
    o = run(fleet, "python3", "-c", HOGS, "common", "6", "30")
    assert (o["cause"], o["stdout"]) == ("exited", "all ended\n"), o


def test_memory_that_no_process_maps_is_not_to_be_had(fleet, domain):
    o = run(fleet, "python3", "-c", "import os; os.memfd_create('x')")
    assert o["code"] == 1 and "not implemented" in o["stderr"], o


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


# ---- programs that were brought along

CONTENT = """
    local function raw(hex) return (hex:gsub('..', function(h) return string.char(tonumber(h, 16)) end)) end
    local function content(verb, args) return tos.call('Content', args, 20, {name = verb}) end
    local function exec(args) local a, c, t = tos.call('Executor', {'RUN', args}, 20) return a or {refused = c, text = t} end
"""
SCRIPT = "#!/bin/sh -e\necho \"carried $1 $(cat)\"\n"
SCRIPT_DIGEST = hashlib.sha256(SCRIPT.encode()).hexdigest()
ECHO_DIGEST = hashlib.sha256(open("/usr/bin/echo", "rb").read()).hexdigest()


def test_what_was_admitted_by_digest_runs_and_the_one_for_this_machine_is_chosen(fleet, domain):
    machine = os.uname().machine
    (o,) = results(fleet, CONTENT + f"""
        local script, elf = raw('{SCRIPT_DIGEST}'), raw('{ECHO_DIGEST}')
        local bytes = exec {{program = 'cat', args = {{'/usr/bin/echo'}}, wait = true, capture = 400000}}.stdout
        assert(content('PUT', {{digest = script, offset = 0, bytes = {json.dumps(SCRIPT)}, last = true, name = 'script'}}))
        assert(content('PUT', {{digest = elf, offset = 0, bytes = bytes, last = true, name = 'elf'}}))
        local before = exec {{program = 'sha256:{SCRIPT_DIGEST}', wait = true}}
        assert(content('ADMIT', {{digest = script, kind = 'program', name = 'carried', machine = 'any'}}))
        assert(content('ADMIT', {{digest = elf, kind = 'program', name = 'echo2', machine = '{machine}'}}))
        local folder = {{['{machine}'] = 'sha256:{ECHO_DIGEST}', vax = 'sha256:{SCRIPT_DIGEST}'}}
        return {{before = before.refused,
                 script = exec {{program = 'sha256:{SCRIPT_DIGEST}', args = {{'a'}}, stdin = 'in', wait = true}},
                 named = exec {{program = 'carried', args = {{'b'}}, wait = true}},
                 elf = exec {{program = folder, args = {{'native'}}, wait = true}},
                 none = exec {{program = {{vax = 'sha256:{SCRIPT_DIGEST}'}}, wait = true}}}}""", "--limit", "cpu=30")
    assert o["before"] == "denied"
    assert o["script"]["stdout"] == "carried a in\n" and o["named"]["stdout"] == "carried b \n", o
    assert o["elf"]["stdout"] == "native\n" and o["elf"]["digest"] == ECHO_DIGEST
    assert o["none"]["refused"] == "not-found" and machine in o["none"]["text"] and "vax" in o["none"]["text"]


def test_a_name_that_an_act_gave_goes_to_another_digest_by_an_act_only(fleet, domain):
    other = "#!/bin/sh\necho other\n"
    digest = hashlib.sha256(other.encode()).hexdigest()
    fleet.tos("content", "admit", SCRIPT_DIGEST, "--name", "kept", "--machine", "any", "--kernel", "host1")
    (o,) = results(fleet, CONTENT + f"""
        local other = raw('{digest}')
        assert(content('PUT', {{digest = other, offset = 0, bytes = {json.dumps(other)}, last = true, name = 'kept'}}))
        assert(content('ADMIT', {{digest = other, kind = 'program', name = 'kept', machine = 'any'}}))
        return {{named = exec {{program = 'kept', args = {{'b'}}, wait = true}},
                 digest = exec {{program = 'sha256:{digest}', wait = true}}}}""")
    assert o["named"]["stdout"] == "carried b \n" and o["digest"]["stdout"] == "other\n", o
    fleet.tos("content", "admit", digest, "--name", "kept", "--machine", "any", "--kernel", "host1")
    assert run(fleet, "kept")["stdout"] == "other\n"


def test_a_reason_that_quotes_half_a_character_is_told_all_the_same(fleet):
    refused = run(fleet, "xy/" + "\u00e4" * 150 + "/")
    assert refused["refused"] == "usage" and "\u00e4?'" in refused["text"] and "an absolute path" in refused["text"], refused


def test_what_is_admitted_hides_no_program_of_the_hosts(fleet, domain):
    """Its name is the choice of whoever admits; who means that one says so."""
    fleet.file("uname", "#!/bin/sh\necho not the host\n")
    fleet.tos("content", "put", "uname", "--admit", "--machine", "any", "--kernel", "host1")
    assert run(fleet, "uname")["stdout"] == "Linux\n"
    assert run(fleet, "admitted:uname")["stdout"] == "not the host\n"
    refused = run(fleet, "admitted:sleep")
    assert refused["refused"] == "not-found" and "admitted:sleep" in refused["text"]


def test_what_was_altered_on_the_disk_is_refused(fleet, domain):
    path = f"{fleet.home}/kernels/host1/content/{SCRIPT_DIGEST}"
    os.chmod(path, 0o755)
    with open(path, "a") as f:
        f.write("echo evil\n")
    o = run(fleet, f"sha256:{SCRIPT_DIGEST}")
    assert o["refused"] == "bad-digest" and "admitted" in o["text"]


# ---- handles

def test_a_handle_gives_status_wait_write_signal_and_stop(fleet, domain):
    (o,) = results(fleet, """
        local function ask(verb, args) local a, c = tos.call('Executor', {verb, args}, 20) return a or c end
        local p = ask('RUN', {program = 'cat', input = true, name = 'copy'})
        local s = ask('STATUS', {handle = p.handle})
        ask('WRITE', {handle = p.handle, data = 'one '})
        ask('WRITE', {handle = p.handle, data = 'two', close = true})
        local e = ask('WAIT', {handle = p.handle})
        local q = ask('RUN', {program = 'sleep', args = {'60'}})
        local n = #ask('LIST').programs
        ask('SIGNAL', {handle = q.handle, signal = 'INT'})
        local qe = ask('WAIT', {handle = q.handle})
        local late = ask('SIGNAL', {handle = q.handle, signal = 'INT'})
        return {state = s.state, name = s.name, out = e.stdout, signal = qe.signal, n = n, late = late,
                forged = ask('WAIT', {handle = ('0'):rep(32)}), none = ask('STOP', {})}""")
    assert o["state"] == "running" and o["name"] == "copy" and o["out"] == "one two" and o["n"] >= 1
    assert o["signal"] == 2 and o["late"] in ("wrong-state", "not-found")
    assert o["forged"] == "not-found" and o["none"] == "not-found"


def test_another_carriers_handle_is_refused(fleet, domain):
    name = fleet.launch("""function begin()
        local p = tos.call('Executor', {'RUN', {program = 'sleep', args = {'60'}}}, 10)
        tos.post('Echo', 'handle ' .. p.handle)
        tos.inbox('end'):next(60)
    end""", "--path", "host1")
    handle = wait_for(lambda: next((line.split("handle ")[1].split()[0].strip('"') for line in
                                    fleet.log_text("host1").splitlines() if f"{name}: handle " in line), None))
    (o,) = results(fleet, f"""
        local function ask(verb) return (select(2, tos.call('Executor', {{verb, {{handle = '{handle}'}}}}, 20))) end
        return {{all = {{ask('WAIT'), ask('STATUS'), ask('STOP'), ask('SIGNAL'), ask('WRITE'), ask('READ')}}}}""")
    assert o["all"] == ["not-found"] * 6
    fleet.tos("kill", name)
    fleet.wait_state(name, "killed")
    wait_for(lambda: not fleet.metric("host1", "tos_programs_running"))


def test_whoever_gives_up_waiting_makes_room_for_who_waits_next(fleet, domain):
    rows = results(fleet, """
        local job = assert(tos.call('Executor', {'RUN', {program = '/bin/sh', args = {'-c', 'read x; exit 4'}, input = true}}, 20))
        for i = 1, 20 do
            local a, code = tos.call('Executor', {'WAIT', {handle = job.handle}}, 0.05)
            assert(not a and code ~= 'full', code)
        end
        tos.call('Executor', {'WRITE', {handle = job.handle, data = 'go\\n', close = true}}, 20)
        return tos.call('Executor', {'WAIT', {handle = job.handle}}, 20).code""")
    assert rows == [{"value": 4}], rows


def test_more_input_than_is_kept_is_refused_and_all_that_is_taken_arrives(fleet, domain):
    count = call("{'RUN', {program = '/usr/bin/wc', args = {'-c'}, stdin = ('x'):rep(%d), wait = true}}")
    assert results(fleet, count % (256 << 10))[0]["stdout"] == f"{256 << 10}\n"
    assert results(fleet, count % ((256 << 10) + 1))[0]["refused"] == "too-large"


def test_a_time_to_kill_that_no_clock_has_is_refused(fleet, domain):
    rows = results(fleet, """
        local job = assert(tos.call('Executor', {'RUN', {program = '/bin/sleep', args = {'60'}}}, 20))
        local a, code = tos.call('Executor', {'SIGNAL', {handle = job.handle, signal = 'CONT', kill_ms = math.maxinteger}}, 20)
        local s = tos.call('Executor', {'STATUS', {handle = job.handle}}, 20)
        return { code = code, state = s.state }""")
    assert rows == [{"code": "usage", "state": "running"}], rows


def test_stop_kills_what_ignores_sigterm(fleet, domain):
    (o,) = results(fleet, """
        local p = tos.call('Executor', {'RUN', {program = '/bin/sh', output = 'lines',
            args = {'-c', 'trap "echo no" TERM; echo ready; while :; do sleep 0.1; done'}}}, 20)
        tos.inbox('lines'):next(10)
        local e = tos.call('Executor', {'STOP', {handle = p.handle, after = 1}}, 20)
        local polite = tos.call('Executor', {'RUN', {program = 'sleep', args = {'60'}}}, 20)
        local pe = tos.call('Executor', {'STOP', {handle = polite.handle, after = 20}}, 20)
        return {cause = e.cause, signal = e.signal, ran = e.ran_ms, polite = pe.signal, in_ms = pe.ran_ms}""")
    assert o["cause"] == "killed" and o["signal"] == 9 and o["ran"] >= 1000
    assert o["polite"] == 15 and o["in_ms"] < 10000


def test_tos_programs_lists_and_stops(fleet, domain):
    lua = """function begin()
        tos.call('Executor', {'RUN', {program = 'sleep', args = {'60'}, name = 'long'}}, 10)
        tos.inbox('end'):next(60)
    end"""

    def long(owner):
        return [p for p in fleet.json("programs", "--kernel", "host1") if p["name"] == "long" and p["owner"] == owner]

    name = fleet.launch(lua, "--path", "host1")
    (row,) = wait_for(lambda: long("admin"))
    assert row["carrier"] == name and row["owner"] == "admin" and "handle" not in row
    text = fleet.tos("programs", "--kernel", "host1")
    assert "long" in text and "/usr/bin/sleep" in text and str(row["number"]) in text
    fleet.tos("programs", "stop", "long", "--kernel", "host1", "--as", "alice", expect=3)
    # Of several of that name, the asker's own is meant.
    other = fleet.launch(lua, "--path", "host1", "--as", "alice")
    wait_for(lambda: long("alice"))
    fleet.tos("programs", "stop", "long", "--kernel", "host1", "--as", "alice")
    wait_for(lambda: not long("alice"))
    assert long("admin")
    fleet.tos("kill", other)
    fleet.tos("programs", "stop", str(row["number"]), "--kernel", "host1")
    wait_for(lambda: not [p for p in fleet.json("programs", "--kernel", "host1") if p["name"] == "long"])
    assert "cause=signalled status=15" in fleet.log_text("host1")
    fleet.tos("programs", "stop", "long", "--kernel", "host1", expect=1)
    fleet.tos("kill", name)


def test_what_programs_used_is_charged_to_the_owner(fleet, domain):
    before = fleet.get("host1", "/accounts/admin")
    sh(fleet, "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done")
    after = fleet.get("host1", "/accounts/admin")
    assert after["/accounts/admin/programs"] == before["/accounts/admin/programs"] + 1
    assert after["/accounts/admin/cpu"] > before["/accounts/admin/cpu"]
    assert after["/accounts/admin/memory"] > before["/accounts/admin/memory"]


# ---- streaming

def test_each_line_reaches_the_carriers_inbox_when_it_is_written_and_the_end_comes_last(fleet, domain):
    (o,) = results(fleet, """
        local p = tos.call('Executor', {'RUN', {program = '/bin/sh', output = 'lines', input = true,
            args = {'-c', 'while read x; do echo "got $x"; done; printf rest >&2'}}}, 20)
        local seen, box = {}, tos.inbox('lines')
        for i = 1, 3 do
            tos.call('Executor', {'WRITE', {handle = p.handle, data = i .. '\\n', close = i == 3}}, 10)
            seen[i] = box:next(10).data.line
        end
        local rest, last = box:next(10), box:next(10)
        return {seen = seen, rest = rest.data.line, stream = rest.data.stream, last = last.name, code = last.data.code}""")
    assert o == {"seen": ["got 1", "got 2", "got 3"], "rest": "rest", "stream": "stderr", "last": "end", "code": 0}


def test_a_flood_into_an_inbox_stalls_the_program_and_loses_nothing(fleet, domain):
    (o,) = results(fleet, """
        tos.call('Executor', {'RUN', {program = 'seq', args = {'1', '5000'}, output = 'lines'}}, 20)
        local n, box = 0, tos.inbox('lines')
        while true do
            local m = box:next(20)
            if m.name == 'end' then return {n = n, lost = m.data.lost or 0, code = m.data.code} end
            n = n + 1
            if m.data.line ~= tostring(n) then return {n = n, line = m.data.line} end
        end""", "--limit", "inbox=16", "--limit", "cpu=60")
    assert o == {"n": 5000, "lost": 0, "code": 0}


def test_a_carrier_that_reads_nothing_is_not_tried_for_ever_at_once(fleet, domain):
    """Its inbox is full, its program waits: and so does everybody else."""
    name = fleet.launch("local box = tos.inbox('lines') tos.call('Executor', {'RUN', {program = 'seq', args = {'1', '99999'}, "
                        "output = 'lines', wall = 60}}, 20) tos.log('started') tos.sleep(600)", "--path", "host1",
                        "--limit", "inbox=16")
    wait_for(lambda: "started" in fleet.tos("log", name))
    fleet.quiet()
    fleet.tos("kill", name)


def test_output_can_be_read_piece_by_piece(fleet, domain):
    (o,) = results(fleet, """
        local p = tos.call('Executor', {'RUN', {program = 'seq', args = {'1', '200000'}, output = 'read'}}, 20)
        local n = 0
        while true do
            local m = assert(tos.call('Executor', {'READ', {handle = p.handle}}, 20))
            n = n + #(m.stdout or '')
            if m.ended then return {n = n, code = m.ended.code} end
        end""", "--limit", "cpu=30")
    assert o == {"n": sum(len(str(i)) + 1 for i in range(1, 200001)), "code": 0}


# ---- how long it lives

def test_a_program_ends_with_its_carriers_stay(fleet, domain):
    results(fleet, """if tos.kernel() == 'host1' then
            tos.call('Executor', {'RUN', {program = 'sleep', args = {'60'}}}, 20)
        end return true""", path="host1,host0")
    wait_for(lambda: not fleet.metric("host1", "tos_programs_running"))
    (o,) = results(fleet, call("{'LIST'}"))
    assert not o["programs"]


STAYS = """{'RUN', {program = '/bin/sh', stay = true, name = '%s', output = 'read', input = true,
    args = {'-c', 'while read x; do echo "$$ $x"; done'}}}"""


def test_one_that_stays_outlives_its_carrier_and_a_kernel_and_is_never_doubled(fleet, domain):
    start = call(STAYS % "keeper")
    (a,) = results(fleet, start, "--limit", "places=1")
    assert a["state"] == "running" and a["stays"]
    fleet.kill("host1")
    wait_for(lambda: answers(fleet) and fleet.metric("host1", "tos_programs_kept_total") == 1)
    (b,) = results(fleet, start, "--limit", "places=1")
    assert b.get("pid") == a["pid"], b
    assert b["pid"] == a["pid"] and b["handle"] == a["handle"] and b["again"]
    (other,) = results(fleet, call(STAYS.replace("echo", "printf") % "keeper"), "--limit", "places=1")
    assert other["refused"] == "exists"
    (o,) = results(fleet, f"""
        local p = tos.call('Executor', {{'LIST'}}, 10).programs[1]
        tos.call('Executor', {{'WRITE', {{handle = p.handle, data = 'still here\\n', close = true}}}}, 10)
        local out, r = '', nil
        repeat
            r = assert(tos.call('Executor', {{'READ', {{handle = p.handle}}}}, 10))
            out = out .. (r.stdout or '')
        until r.ended
        return {{out = out, code = r.ended.code}}""")
    assert o["out"].endswith(" still here\n") and o["code"] == 0
    (o,) = results(fleet, call("{'LIST'}"), who="alice")
    assert not o["programs"]  # she has none


def test_one_that_does_not_stay_dies_with_the_kernel_and_all_die_with_tosd(fleet, domain):
    lua = "function begin() tos.call('Executor', %s, 20) tos.inbox('x'):next(100) end"
    a = fleet.launch(lua % "{'RUN', {program = 'sleep', args = {'7777'}}}", "--path", "host1")
    b = fleet.launch(lua % "{'RUN', {program = 'sleep', args = {'8888'}, stay = true, name = 'b', limits = {wall = 20}}}",
                     "--path", "host1", "--limit", "places=1")
    wait_for(lambda: sleeping("7777") and sleeping("8888"))
    fleet.kill("host1", "tosd")
    wait_for(lambda: not sleeping("7777") and not sleeping("8888"))
    for name in (a, b):
        fleet.tos("kill", name)


def test_a_kernel_that_dies_while_a_program_that_stays_is_being_made_is_started_again(fleet, domain):
    name = fleet.launch("""function begin()
        tos.call('Executor', {'RUN', {program = 'sleep', args = {'9999'}, wait = true, limits = {wall = 1}}}, 20)
        tos.call('Executor', {'RUN', {program = 'sleep', args = {'9999'}, stay = true, name = 'm', limits = {wall = 20}}}, 20)
    end""", "--path", "host1", "--limit", "places=1")
    wait_for(lambda: sleeping("9999"))
    fleet.freeze("host1", "tosd-programs")
    try:
        wait_for(lambda: [p["state"] for p in fleet.json("programs", "--kernel", "host1") if p["name"] == "m"] == ["starting"])
        old = fleet.pid("host1", "tos-kernel")
        fleet.kill("host1")
        wait_for(lambda: old not in fleet.processes("host1", "tos-kernel"))
    finally:
        fleet.thaw("host1", "tosd-programs")
    wait_for(lambda: answers(fleet))
    fleet.run("kill", name)  # unless it has ended, and its programs with their limit
    wait_for(lambda: not sleeping("9999"))


def answers(fleet):
    try:
        return fleet.status("host1")
    except fleet_failed:
        return None


def sleeping(seconds):
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as f:
                if f.read() == f"sleep\0{seconds}\0".encode():
                    found.append(int(pid))
        except OSError:
            pass
    return found


def test_a_kernel_that_had_a_carrier_once_runs_nothing_as_it(fleet, domain):
    """host1 may speak for a carrier that has been there; it has no part in what that one may at host0."""
    d = wire.Domain(fleet.home)
    admin = d.principal("admin")
    with d.client() as client:
        t, got = wire.launch(client, admin, admin, path=["host1", "host0"], limits={**wire.LIMITS, "programs": 2},
                             source="function begin(self) if tos.kernel() == 'host0' then tos.inbox('w'):next(600) end end\n")
    wait_for(lambda: any((r["name"], r["kernel"], r["state"]) == (got["name"], "host0", "running") for r in fleet.json("ps")))
    fleet.tos("down", "host1")
    try:
        with d.as_kernel("host1", "host0", directory=fleet.path) as link:
            link.send(wire.VOUCH, t, [hop(d.kernel("host0"), t, "host0", "host1")])
            # it may speak; what it asks is answered to the carrier, where that is
            link.post("host0/Executor", "RUN", {"program": "/usr/bin/true"}, sender=got["name"])
            link.call("host0/Echo", "behind it", sender="host1/Kernel")
            assert run(fleet, "/usr/bin/true", path="host0")["code"] == 0
        runs = [line for line in fleet.log_text("host0").splitlines() if "program started" in line]
        assert runs and not any(f"carrier={got['name']} " in line for line in runs), runs
    finally:
        fleet.up()
    fleet.tos("kill", got["name"])
