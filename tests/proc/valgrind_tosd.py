"""tosd in valgrind, with a real kernel behind it: what it reads before it is written, or where nothing is, and what it loses.

Run by tools/check: valgrind_tosd.py TOSD, of a build with -Dvalgrind=true; $TOS_BUILD is an ordinary one, whose other programs
it starts, outside valgrind. In valgrind are tosd, its launchers, and what each child does until it executes its program.
Not seen there, since valgrind does not know the calls: that a seccomp filter is loaded (it is made), Landlock, mount_setattr
(the older remount is tried instead), and the limit of descriptors.
"""
import os
import shutil
import signal
import sys
import tempfile

import fleet as fleets
from fleet import Fleet, installed, process_table, wait_for

SUPPRESSED = os.path.join(os.path.dirname(os.path.abspath(__file__)), "tosd.supp")
CONF = """
action "greet" { run = {"/bin/echo", "hello {who}"} args = {"who:name"} }
action "nap" { run = {"/bin/sleep", "5"} timeout = "200ms" }
programs { memory = "64M" cpu = "2s" processes = 24 wall = "20s" }
policy { rules = {"allow role:owner run /usr/bin/uname", "allow role:admin action *"} }
"""


def wrapped(tosd, log):
    """An installed tree whose tosd is this one in valgrind."""
    root, tos = installed(os.path.join(fleets.BUILD, "src/vm/tos-vm"))
    prefix = os.path.dirname(os.path.dirname(tos))
    path = os.path.join(prefix, "sbin/tosd")
    os.unlink(path)
    with open(path, "w") as f:
        # One file for all of its forks: those in a pid namespace all call themselves number 1.
        f.write(f"#!/bin/sh\nexec 9>>{log}\nexec valgrind --quiet --log-fd=9 --trace-children=no --leak-check=full "
                f"--show-leak-kinds=definite --errors-for-leak-kinds=definite --suppressions={SUPPRESSED} "
                f"{tosd} --programs {prefix}/libexec/tos \"$@\"\n")
    os.chmod(path, 0o755)
    return root, tos


def tosd_of(fleet, kernel):
    """The child of its keeper."""
    keeper = fleet.keeper(kernel)
    return wait_for(lambda: [p for p, row in process_table().items() if row[0] == keeper and keeper and row[2] != "Z"],
                    text=f"{kernel} has a tosd")[0]


def child_of(fleet, kernel, name):
    tosd = tosd_of(fleet, kernel)
    return wait_for(lambda: [p for p, row in process_table().items() if row[0] == tosd and row[3][0] == name.encode()],
                    text=f"{kernel} has a {name}")[0]


def answer(fleet, lua):
    """What a carrier returns at host1."""
    o = fleet.json("launch", "-e", lua, "--path", "host1", "--wait")
    assert o["state"] == "finished", o
    row = dict(o["briefcase"]["RESULTS"][0])
    row.pop("kernel", None)
    return row


def act(fleet, action, args="{}"):
    return answer(fleet, f"return tos.call('Executor', {{'ACTION', {{name = '{action}', args = {args}}}}}, 60)")


def facts(fleet):
    o = fleet.json("launch", "facts", "--path", "@all", "--wait")
    assert o["state"] == "finished" and len(o["briefcase"]["RESULTS"]) == 2, o


def reload(fleet):
    """One that is good, and one that is broken."""
    conf = f"{fleet.home}/kernels/host1/tosd.conf"
    for text, said in (('limits { hops = "9" }\n', "configuration read again"), ('limits { hops = "many" }\n', "the configuration is broken")):
        with open(conf) as f:
            was = f.read()
        with open(conf, "a") as f:
            f.write(text)
        os.kill(tosd_of(fleet, "host1"), signal.SIGHUP)
        wait_for(lambda: said in fleet.log_text("host1"), text=said)
    with open(conf, "w") as f:
        f.write(was)


def kill(fleet, name):
    pid = child_of(fleet, "host1", name)
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: pid not in process_table(), text=f"{name} is gone")


def scenario(fleet):
    facts(fleet)
    ran = answer(fleet, "return tos.call('Executor', {'RUN', {program = '/usr/bin/uname', args = {'-s'}, wait = true}}, 60)")
    assert ran["stdout"] == "Linux\n" and ran["code"] == 0, ran
    assert act(fleet, "greet", "{who = 'ada'}")["stdout"] == "hello ada\n"
    assert act(fleet, "nap")["cause"] == "wall"
    reload(fleet)
    kill(fleet, "tos-kernel")
    wait_for(lambda: fleet.status("host1"), text="host1 answers again")
    facts(fleet)
    name = fleet.launch("tos.sleep(60)", "--path", "host1")
    fleet.wait_state(name, "running")
    kill(fleet, "tos-vm")
    fleet.wait_state(name, "faulted")
    facts(fleet)


def main(tosd):
    folder = tempfile.mkdtemp(prefix="tos-valgrind.")
    log = os.path.join(folder, "log")
    root, tos = wrapped(tosd, log)
    try:
        with Fleet(2, conf=CONF, tos=tos) as fleet:
            try:
                scenario(fleet)
                fleet.tos("down", timeout=120)
                said = fleet.log_text("host1")
                for event in ("the configuration was checked", "program ended", "an action takes too long"):
                    assert event in said, event
            except BaseException:
                print(fleet.logs())
                raise
        with open(log, errors="replace") as f:
            lines = [line for line in f if line.startswith("==")]
        print("".join(lines))
        return 1 if lines else 0
    finally:
        shutil.rmtree(root, ignore_errors=True)
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    fleets.own_network()
    sys.exit(main(os.path.abspath(sys.argv[1])))
