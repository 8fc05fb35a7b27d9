"""tos run: on many hosts at once, in waves, and what is left when something dies."""
import json
import os
import signal

import pytest

from fleet import Fleet, QUICK, wait_for

MARK = """function begin(self)
	for _, h in ipairs(tos.briefcase:folder("BAD")) do
		if h == tos.kernel() then error("this host is bad", 0) end
	end
	tos.briefcase:folder("RESULTS"):push { kernel = tos.kernel(), home = tos.self().home }
end
"""
# One that waits until somebody says go on.
GATE = """function begin(self)
	local m = tos.inbox("gate"):next(60)
	tos.briefcase:folder("RESULTS"):push { kernel = tos.kernel(), word = m and m.data }
end
"""


@pytest.fixture(scope="module")
def fleet():
    with Fleet(4, conf=QUICK, rests=True) as f:
        f.file("mark.lua", MARK)
        f.file("gate.lua", GATE)
        yield f


def run(fleet, *args, expect=0):
    """host -> row, and the whole."""
    r = fleet.run("run", "--json", *args)
    assert r.returncode == expect, r.stdout + r.stderr
    whole = json.loads(r.stdout)
    return {row["host"]: row for row in whole["hosts"]}, whole


def at_gate(fleet, host):
    """The carrier that waits there."""
    def found():
        for name, row in fleet.ps(host).items():
            if row["kernel"] == host and row["state"] == "running" and name.split("#")[0] == "host0" and \
                    fleet.run("post", f"{name}/gate", "on", "--kernel", host).returncode == 0:
                return name
        return None
    return wait_for(found, text=f"one waits at {host}")


def test_a_carrier_on_every_kernel(fleet):
    rows, whole = run(fleet, "mark.lua")
    assert list(rows) == fleet.names and whole["state"] == "finished" and whole["count"] == {"all": 4, "done": 4}
    assert all(r["state"] == "done" and r["rows"] == [{"kernel": h, "home": "host0"}] for h, r in rows.items())
    r = fleet.run("run", "facts", "--hosts", "host1,host2")
    assert r.returncode == 0 and r.stdout.startswith("kernel") and r.stdout.count("GiB") >= 6, r.stdout
    assert "HOST" in r.stderr and r.stderr.rstrip().endswith(": 2 done"), r.stderr
    assert "HOST" not in fleet.run("run", "mark.lua", "--quiet").stderr


def test_what_fails_is_told_by_host_and_by_the_exit_code(fleet):
    rows, whole = run(fleet, "mark.lua", "--data", "BAD=host1", "--data", "BAD=host3", expect=1)
    assert [rows[h]["state"] for h in fleet.names] == ["done", "failed", "done", "failed"]
    assert rows["host1"]["text"] == "this host is bad" and whole["state"] == "finished"  # all were under way


def test_waves_stop_when_too_much_fails(fleet):
    rows, whole = run(fleet, "mark.lua", "--wave", "1,2", "--data", "BAD=host1", expect=1)
    assert whole["state"] == "stopped" and whole["why"] == "too much failed"
    assert [(rows[h]["state"], rows[h].get("wave")) for h in fleet.names] == \
        [("done", 1), ("failed", 2), ("done", 2), ("waiting", None)]
    rows, whole = run(fleet, "mark.lua", "--wave", "1,2", "--max-fail", "1", "--data", "BAD=host1", expect=1)
    assert whole["state"] == "finished" and rows["host3"]["wave"] == 3
    rows, _ = run(fleet, "mark.lua", "--wave", "4", "--retries", "2", "--data", "BAD=host1", expect=1)
    assert rows["host1"]["tries"] == 3 and rows["host0"]["tries"] == 1


def test_a_host_that_is_not_there_is_down_and_an_alternative_takes_its_place(fleet):
    rows, whole = run(fleet, "mark.lua", "--hosts", "host1,nowhere,host2", expect=1)
    assert rows["nowhere"]["state"] == "down" and rows["nowhere"]["code"] == "unreachable"
    assert whole["count"] == {"all": 3, "done": 2, "down": 1}
    rows, _ = run(fleet, "mark.lua", "--hosts", "nowhere|host3,host2")
    assert rows["nowhere"]["at"] == "host3" and rows["nowhere"]["rows"][0]["kernel"] == "host3"
    fleet.down("host3", hard=True)
    try:
        rows, _ = run(fleet, "mark.lua", "--hosts", "host1,host3", "--arrive", "20s", expect=1)
        assert rows["host3"]["state"] == "down" and rows["host1"]["state"] == "done"
    finally:
        fleet.up()


def test_hosts_are_selected_by_group_and_by_what_their_monitors_say(fleet):
    with open(f"{fleet.home}/domain.conf", "a") as f:
        f.write('group "web" { hosts = {"host1", "host2"} }\nhost "host2" { labels = {"rack=3"} }\n')
    assert list(run(fleet, "mark.lua", "--group", "web")[0]) == ["host1", "host2"]
    assert list(run(fleet, "mark.lua", "--group", "rack=3", "--hosts", "host0,host2")[0]) == ["host0", "host2"]
    assert len(run(fleet, "mark.lua", "--where", "os=Linux,memory>64M,cpus>=1,memory.available>1K")[0]) == 4
    rows, whole = run(fleet, "mark.lua", "--where", "os=Linux,memory>900T")
    assert rows == {} and whole["count"]["all"] == 0
    for bad, said in (("colour=red", "there is no fact colour"), ("os>3", "texts can be compared"), ("memory", "no condition"),
                      ("memory>much", "much is no number"), ("os.colour=red", "has no field colour")):
        r = fleet.run("run", "mark.lua", "--where", bad)
        assert r.returncode == 1 and said in r.stderr, r.stderr


def test_usage(fleet):
    for args, said in (([], "what is to be run"), (["uname", "x"], "what is to be run"), (["x", "--", "y"], "stands behind --"),
                       (["--"], "stands behind --"), (["none"], "no shipped carrier"), (["mark.lua", "--arrive", "x"], "--arrive x"),
                       (["mark.lua", "--retries", "-1"], "--retries"), (["mark.lua", "--group", "none"], "no group"),
                       (["mark.lua", "--limit", "memory"], "--limit"), (["mark.lua", "--env", "=1"], "--env"),
                       (["mark.lua", "--wave", "200%"], "such as 1,10%,100%"), (["mark.lua", "--wave", "1,,2"], "--wave 1,,2 is not"),
                       (["mark.lua", "--wave", "1, 0"], "--wave 1, 0"), (["mark.lua", "--wave", "2", "--max-fail", "1.5"], "--max-fail 1.5"),
                       (["--stdin", "--", "cat"], "--stdin needs a value"), (["--", "uname -a"], "tos run -- sh -c 'uname -a'")):
        r = fleet.run("run", *args)
        assert r.returncode in (1, 2) and said in r.stderr, (args, r.stderr)


def test_detached_it_goes_on(fleet):
    p = fleet.start("run", "gate.lua", "--hosts", "host1,host2")
    at_gate(fleet, "host1")
    p.send_signal(signal.SIGINT)
    out, err = p.communicate(timeout=30)
    assert p.returncode == 130 and "still running: tos wait host0#" in err, err
    at_gate(fleet, "host2")
    name = err.split("tos wait ")[1].split()[0]
    o = fleet.outcome(name)
    assert o["briefcase"]["SUMMARY"][0]["count"] == {"all": 2, "done": 2}
    assert {x["host"]: x["rows"][0]["word"] for x in o["briefcase"]["OUTPUT"]} == {"host1": "on", "host2": "on"}


def test_it_is_paused_resumed_and_stopped_by_posts(fleet):
    p = fleet.start("run", "mark.lua", "--wave", "1", "--pause", "each")
    line = p.stderr.readline()
    assert line.startswith("paused behind wave 1"), line
    name = line.split("tos post ")[1].split("/")[0]
    fleet.tos("post", f"{name}/run", "resume")
    assert p.stderr.readline().startswith("paused behind wave 2")
    fleet.tos("post", f"{name}/run", "stop")
    out, err = p.communicate(timeout=30)
    assert p.returncode == 1 and "2 done, 2 not begun; stopped" in err, err


def test_carriers_of_others_neither_steer_a_run_nor_report_for_it(fleet):
    fleet.tos("principal", "add", "mallory", "--role", "owner", "--role", "author")
    p = fleet.start("run", "mark.lua", "--wave", "1", "--pause", "each")
    line = p.stderr.readline()
    assert line.startswith("paused behind wave 1"), line
    name = line.split("tos post ")[1].split("/")[0]
    fleet.tos("launch", "-e", f"""
        local to = "{name}/run"
        for _, verb in ipairs {{ "done", "ready", "undone", "word", "no such" }} do
            for _, host in ipairs {{ "host0", "host1", "host2", "host3" }} do
                local a, code = tos.call(to, {{{{ host = host, result = {{ ok = true }} }}}}, 20, {{ name = verb }})
                assert(not a and code == "malformed", tostring(code))
            end
        end
        local a, code = tos.call(to, {{ "stop" }}, 20)
        assert(not a and code == "denied", tostring(code))
        tos.post(to, "stop")
        tos.post(to, "host0/client/thief", {{ name = "client" }})""", "--wait", "--as", "mallory")
    fleet.tos("post", f"{name}/run", "resume")
    line = p.stderr.readline()
    assert line.startswith("paused behind wave 2"), line
    fleet.tos("post", f"{name}/run", "stop")
    p.communicate(timeout=60)


def test_a_durable_run_survives_its_home(fleet):
    p = fleet.start("run", "gate.lua", "--durable", "--hosts", "host1,host2", "--json")
    at_gate(fleet, "host1")
    fleet.kill("host0")
    at_gate(fleet, "host2")
    out, err = p.communicate(timeout=60)
    assert p.returncode == 0, out + err
    whole = json.loads(out)
    assert whole["count"] == {"all": 2, "done": 2} and "waiting for the home" in err, err


def test_what_a_crash_came_over_is_not_done_twice(fleet):
    """A durable run: the host's kernel dies in the middle of the task, which is told and not begun again."""
    p = fleet.start("run", "gate.lua", "--durable", "--hosts", "host1,host2", "--json")
    at_gate(fleet, "host2")
    wait_for(lambda: [r for r in fleet.ps("host1").values() if r["kernel"] == "host1" and r["state"] == "running"])
    fleet.kill("host1")
    out, err = p.communicate(timeout=60)
    rows = {r["host"]: r for r in json.loads(out)["hosts"]}
    assert p.returncode == 1 and rows["host2"]["state"] == "done"
    assert rows["host1"]["state"] == "failed" and rows["host1"]["code"] == "unknown", rows


# ---- commands

def test_a_command_on_every_kernel(fleet):
    r = fleet.run("run", "--", "uname", "-s")
    assert r.returncode == 0 and sorted(r.stdout.splitlines()) == [f"host{i}  Linux" for i in range(4)], r.stdout + r.stderr
    lines = r.stderr.splitlines()
    assert lines[1].split() == ["HOST", "STATE", "EXIT", "TIME", "WHY"] and lines[2].split()[:3] == ["host0", "done", "0"]
    assert lines[-1].endswith(": 4 done")


def test_what_a_command_says_and_how_it_ends(fleet):
    rows, _ = run(fleet, "--hosts", "host1,host2", "--env", "A=b c", "--", "sh", "-c",
                  "cat; echo \"$A\" >&2; test $TOS_KERNEL = host2 || exit 7", expect=1)
    assert rows["host1"]["exit"] == 7 and rows["host1"]["state"] == "failed" and rows["host2"]["exit"] == 0
    assert rows["host1"]["stderr"] == "b c\n" and rows["host1"]["stdout"] == ""
    fleet.file("in", "a line\n\x1b[31mred\n")
    r = fleet.run("run", "--hosts", "host1", "--stdin", "in", "--", "cat")
    assert r.stdout == "host1  a line\nhost1  ?[31mred\n", r.stdout  # no terminal is steered
    rows, _ = run(fleet, "--hosts", "host1", "--", "sh", "-c", "kill -9 $$", expect=1)
    assert rows["host1"]["signal"] == 9 and "exit" not in rows["host1"]
    rows, _ = run(fleet, "--hosts", "host1", "--timeout", "1s", "--", "sleep", "100", expect=1)
    assert rows["host1"]["code"] == "timed-out" and rows["host1"]["ms"] >= 900
    rows, _ = run(fleet, "--hosts", "host1", "--", "no-such-program", expect=1)
    assert rows["host1"]["code"] == "not-found" and rows["host1"]["state"] == "failed"
    rows, _ = run(fleet, "--hosts", "host1", "--", "sh", "-c", "head -c 3000000 /dev/zero | tr '\\0' x")
    assert 1000 < len(rows["host1"]["stdout"]) < 600000 and rows["host1"]["cut"] is True


def test_what_a_program_may_have_can_be_limited(fleet):
    rows, _ = run(fleet, "--hosts", "host1", "--limit", "file_size=1K", "--", "sh", "-c", "head -c 4096 /dev/zero > /tmp/x", expect=1)
    assert rows["host1"]["state"] == "failed"
    rows, _ = run(fleet, "--hosts", "host1", "--limit", "colour=3", "--", "true", expect=1)
    assert rows["host1"]["code"] == "usage" and "no limit colour" in rows["host1"]["text"]


def test_a_change_is_taken_back_where_it_was_made(fleet, tmp_path):
    """The commands have no file system in common with us: they tell by what they print."""
    rows, whole = run(fleet, "--wave", "1,2", "--undo", "exit $(test $TOS_KERNEL = host0; echo $?)", "--", "sh", "-c",
                      "test $TOS_KERNEL != host2", expect=1)
    assert whole["state"] == "undone"
    assert [rows[h]["state"] for h in fleet.names] == ["undone", "stuck", "stuck", "waiting"], rows


def test_one_who_may_not_run_programs_is_told_by_each_host(fleet):
    fleet.tos("principal", "add", "dora", "--role", "owner", "--role", "author")
    rows, _ = run(fleet, "--as", "dora", "--hosts", "host1", "--", "true", expect=1)
    assert rows["host1"]["code"] == "denied" and rows["host1"]["state"] == "failed", rows


def test_a_program_is_brought_along_once(fleet):
    agent = os.path.join(fleet.path, "agent")
    with open(agent, "w") as f:
        f.write("#!/bin/sh\necho first $1 on $TOS_KERNEL\n" + "# filler\n" * 20000)

    def fetched():
        return [fleet.metric(h, "tos_content_written_bytes_total") for h in ("host1", "host2")]

    rows, _ = run(fleet, "--file", "agent", "--hosts", "host1,host2", "--", "agent", "run")
    assert [rows[h]["stdout"] for h in rows] == ["first run on host1\n", "first run on host2\n"], rows
    before = fetched()
    assert min(before) > 100000
    rows, _ = run(fleet, "--file", "agent", "--hosts", "host1,host2", "--", "agent", "again")
    assert rows["host2"]["stdout"] == "first again on host2\n" and fetched() == before  # nothing was sent
    with open(agent, "w") as f:
        f.write("#!/bin/sh\necho second\n")
    rows, _ = run(fleet, "--file", "agent", "--hosts", "host1,host2", "--", "agent")
    assert rows["host1"]["stdout"] == "second\n" and all(0 < b - a < 1000 for a, b in zip(before, fetched()))
    for args, said in ((["--file", "none", "--", "x"], "none"), (["--file", "agent", "mark.lua"], "is a carrier")):
        r = fleet.run("run", *args)
        assert r.returncode in (1, 2) and said in r.stderr, r.stderr


def test_a_dry_run_asks_the_hosts_and_runs_nothing(fleet):
    before = [fleet.metric(h, "tos_programs_started_total") for h in fleet.names]
    rows, whole = run(fleet, "--dry-run", "--wave", "1,100%", "--hosts", "host0,host1,nowhere", "--", "sh", "-c", "exit 1", expect=1)
    assert [(rows[h]["state"], rows[h]["wave"]) for h in ("host0", "host1", "nowhere")] == [("done", 1), ("done", 2), ("down", 2)]
    assert rows["host0"]["text"].startswith("would run /") and rows["host0"]["text"].endswith("bin/sh"), rows
    rows, _ = run(fleet, "--dry-run", "--hosts", "host1", "--", "no-such-program", expect=1)
    assert rows["host1"]["code"] == "not-found"
    rows, _ = run(fleet, "--dry-run", "--hosts", "host1", "--as", "dora", "--", "true", expect=1)
    assert rows["host1"]["code"] == "denied"
    assert [fleet.metric(h, "tos_programs_started_total") for h in fleet.names] == before
    r = fleet.run("run", "-n", "mark.lua", "--hosts", "host1")
    assert r.returncode == 0 and r.stdout == "" and "ready" in r.stderr and r.stderr.rstrip().endswith(": 1 ready"), r.stderr
