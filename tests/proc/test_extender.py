"""Extensions that are installed, replaced and removed while the kernel runs, and who may do that."""
import json
import os
import signal
import subprocess

import pytest

from fleet import KERNEL, QUICK, SANITIZED, TOS, Failed, Fleet, process_table, wait_for

pytestmark = pytest.mark.skipif(not os.path.exists(KERNEL) or not os.path.exists(TOS), reason="TOS_BUILD names no build")

INCLUDE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../include")
SOURCE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "ext/greeter.c")
CONF = dict(QUICK, extender={"privileges": "read-proc"})


def compiled(fleet, out, **defines):
    """greeter.c as a shared object; its path."""
    flags = [f"-D{k}={v}" for k, v in defines.items()]
    path = os.path.join(fleet.path, out)
    subprocess.run(["cc", "-std=gnu11", "-shared", "-fPIC", "-I", INCLUDE, *flags, "-o", path, SOURCE], check=True)
    return path


def packaged(fleet, release, *args, name="Greeter", sign="olga", file=None, **defines):
    """A package of it, signed; its path."""
    out = f"{name}-{release}.ext"
    so = file or compiled(fleet, f"{name}-{release}.so", RELEASE=f'"{release}"', INBOX=f'"{name}"', **defines)
    fleet.tos("extension", "build", so, "--name", name, "--release", release, "--sign", sign, "-o", out, *args)
    return out


def rows(fleet, kernel="host0"):
    """name -> its rows, of what was installed."""
    found = {}
    for row in fleet.json("extension", "list", "--hosts", kernel):
        if row["source"] == "installed":
            found.setdefault(row["name"], []).append(row)
    return found


def running(fleet, name="Greeter", kernel="host0"):
    """The version that runs, or None."""
    ready = [r["version"] for r in rows(fleet, kernel).get(name, []) if r["state"] == "ready"]
    return ready[0] if ready else None


def asked(fleet, what="version", inbox="Greeter", **kw):
    return fleet.tos("call", inbox, what, **kw).strip()


def refused(fleet, *args, says=""):
    """What tos extension says to that, which is no."""
    r = fleet.run("extension", *args)
    assert r.returncode != 0 and says in r.stderr, (r.returncode, r.stdout, r.stderr)
    return r.stderr


def audited(fleet, event, kernel="host0"):
    lines = fleet.tos("audit", "--kernel", kernel, "--json").splitlines()
    return [r for r in map(json.loads, lines) if r.get("event") == event]


@pytest.fixture(scope="module")
def fleet():
    with Fleet(n=2, conf=CONF) as f:
        f.tos("principal", "add", "olga", "--role", "officer", "--here")
        f.tos("principal", "add", "carl")  # owner, author
        yield f


@pytest.fixture(autouse=True)
def nothing_left(fleet):
    kernel = fleet.pid("host0", "tos-kernel")
    yield kernel
    for host in fleet.names:
        for name in rows(fleet, host):
            fleet.tos("extension", "remove", name, "--hosts", host)


def test_installed_used_removed_while_the_kernel_runs(fleet, nothing_left):
    package = packaged(fleet, "1")
    r = fleet.run("call", "Greeter", "version")
    assert r.returncode != 0 and "no inbox Greeter" in r.stderr
    (row,) = fleet.json("extension", "install", package)
    assert (row["name"], row["version"], row["by"], row["officer"]) == ("Greeter", "1", "admin", "olga")
    assert asked(fleet) == "1"
    listed = rows(fleet)["Greeter"][0]
    pid = listed["pid"]
    assert listed["where"] == "isolated" and pid in fleet.processes("host0", "tos-ext")
    assert fleet.metric("host0", "tos_extensions_installed") == 1
    sockets = len(os.listdir(f"/proc/{nothing_left}/fd"))
    fleet.tos("extension", "remove", "Greeter")
    assert pid not in process_table() and not rows(fleet)
    assert len(os.listdir(f"/proc/{nothing_left}/fd")) < sockets
    r = fleet.run("call", "Greeter", "version")
    assert r.returncode != 0 and "no inbox Greeter" in r.stderr
    assert fleet.pid("host0", "tos-kernel") == nothing_left
    for event in "extension-installed", "extension-removed":
        row = audited(fleet, event)[-1]
        assert (row["name"], row["version"], row["officer"], row["by"]) == ("Greeter", "1", "olga", "admin")


def test_it_takes_two(fleet):
    """An administrator with what no officer signed, an officer's package without an administrator, and one person alone:
    each is refused with a code, a reason and an audit row."""
    package = packaged(fleet, "1")
    unsigned = os.path.join(fleet.path, "carrier.bundle")
    fleet.tos("build", fleet.file("c.lua", "function begin(self) end"), "-o", unsigned)
    for args, says in (
            (["install", package, "--as", "carl"], "carl may not install Greeter"),
            (["install", package, "--as", "olga"], "olga may not install Greeter"),
            (["install", unsigned], "signed as manifest where extension is wanted"),
            (["build", "Greeter-1.so", "--sign", "admin"], "lacks the role officer"),
            (["build", "Greeter-1.so", "--sign", "carl"], "lacks the role officer")):
        refused(fleet, *args, says=says)
    wait_for(lambda: [r["code"] for r in audited(fleet, "act-refused")] == ["denied", "denied"])
    # a package that was changed after it was signed
    with open(os.path.join(fleet.path, package), "rb") as f:
        bytes_ = bytearray(f.read())
    at = bytes_.index(b"\x7fELF") + 4096
    bytes_[at] ^= 1
    with open(os.path.join(fleet.path, "changed.ext"), "wb") as f:
        f.write(bytes_)
    refused(fleet, "install", "changed.ext", says="is not what the officer signed")
    row = wait_for(lambda: [r for r in audited(fleet, "extension-refused") if r["code"] == "bad-signature"])[0]
    assert row["code"] == "bad-signature" and row["by"] == "admin" and row["officer"] == "olga"
    # one person with both roles
    fleet.tos("principal", "add", "both", "--role", "admin,officer", "--here")
    refused(fleet, "install", packaged(fleet, "7", sign="both"), "--as", "both", says="it takes two")
    assert not rows(fleet) and fleet.metric("host0", "tos_extensions_refused_total") >= 3


def test_what_does_not_fit_leaves_nothing(fleet):
    def no(package, says, code, *args):
        refused(fleet, "install", package, *args, says=says)
        version = package.split("-")[1][:-4]
        wait_for(lambda: [r["code"] for r in audited(fleet, "extension-refused") if r["version"] == version][-1:] == [code])
        assert not rows(fleet)

    before = len(fleet.processes("host0", "tos-ext"))
    no(packaged(fleet, "1", ABI_MINOR=9), "built for the extension ABI 1.9", "wrong-version")
    no(packaged(fleet, "2", PRIVILEGES='"read-fs"'), "extender.privileges", "denied")
    no(packaged(fleet, "3", "--in-kernel"), "extender.kernel", "denied")
    no(packaged(fleet, "4", START="-12"), "its start failed", "wrong-state")
    no(packaged(fleet, "5", CRASH=1), "", "closed")
    no(packaged(fleet, "6", name="Monitor"), "belongs to host0 itself", "exists")
    no(packaged(fleet, "7", file=compiled(fleet, "echo.so", INBOX='"Echo"', RELEASE='"1"')), "inbox Echo", "exists")
    no(packaged(fleet, "8", file=compiled(fleet, "shells.so", INBOX='"Shells"', RELEASE='"1"')), "inbox Shells", "exists")
    no(packaged(fleet, "9", name="lower"), "capital letter", "bad-name")
    refused(fleet, "build", compiled(fleet, "large.so", INBOX='"Large"', RELEASE='"1"', LARGE=9000000), "--sign", "olga",
            says="larger than 8388608 bytes")
    assert len(fleet.processes("host0", "tos-ext")) == before
    assert asked(fleet, "Hello", inbox="Echo") is not None
    fleet.tos("extension", "install", packaged(fleet, "11"))
    refused(fleet, "install", "Greeter-11.ext", says="is there already")
    refused(fleet, "install", packaged(fleet, "12", name="Other", file=os.path.join(fleet.path, "Greeter-11.so")),
            says="belongs to extension Greeter")
    refused(fleet, "replace", packaged(fleet, "13", name="Third"), says="no extension Third")
    refused(fleet, "remove", "Third", says="no extension Third")
    refused(fleet, "remove", "Monitor", says="in the configuration")


def test_it_is_there_after_restarts_of_kernel_and_tosd(fleet):
    fleet.tos("extension", "install", packaged(fleet, "1", PRIVILEGES='"read-proc"'))
    assert asked(fleet, "proc") == "yes"
    fleet.kill("host0")
    wait_for(lambda: fleet.status("host0"))
    wait_for(lambda: running(fleet) == "1")
    assert asked(fleet) == "1"
    fleet.kill("host0", "tosd")
    wait_for(lambda: fleet.status("host0"))
    wait_for(lambda: running(fleet) == "1")
    fleet.down("host0")
    fleet.up()
    wait_for(lambda: running(fleet) == "1")
    assert asked(fleet, "proc") == "yes"
    fleet.tos("extension", "remove", "Greeter")
    fleet.kill("host0")
    wait_for(lambda: fleet.status("host0"))
    assert not rows(fleet)


def test_a_crash_is_answered_and_it_comes_back(fleet, nothing_left):
    fleet.tos("extension", "install", packaged(fleet, "1"))
    pid = rows(fleet)["Greeter"][0]["pid"]
    waiting = fleet.start("call", "Greeter", "keep")
    wait_for(lambda: rows(fleet)["Greeter"][0]["calls"] == 1)
    fleet.tos("post", "Greeter", "crash")
    out, err = waiting.communicate(timeout=60)
    assert waiting.returncode != 0 and "Greeter" in err, (out, err)
    wait_for(lambda: running(fleet) == "1" and rows(fleet)["Greeter"][0]["pid"] != pid)
    assert rows(fleet)["Greeter"][0]["restarts"] == 1 and asked(fleet) == "1"
    assert fleet.pid("host0", "tos-kernel") == nothing_left


def test_at_other_hosts_and_all(fleet):
    package = packaged(fleet, "1")
    both = fleet.json("extension", "install", package, "--hosts", "@all")
    assert {r["kernel"] for r in both} == {"host0", "host1"}
    assert asked(fleet, inbox="host1/Greeter") == "1"
    fleet.tos("extension", "remove", "Greeter", "--hosts", "host0,host1")
    assert not rows(fleet) and not rows(fleet, "host1")


def test_a_revoked_officers_extensions_end(fleet):
    fleet.tos("principal", "add", "oskar", "--role", "officer", "--here")
    fleet.tos("extension", "install", packaged(fleet, "1", sign="oskar"))
    fleet.tos("principal", "revoke", "oskar")
    wait_for(lambda: not rows(fleet))
    assert audited(fleet, "extension-removed")[-1]["officer"] == "oskar"
    refused(fleet, "install", "Greeter-1.ext", says="revoked")
