"""Extensions that are installed, replaced and removed while the kernel runs, and who may do that."""
import base64
import json
import os
import subprocess

import pytest

import faults
from fleet import BUILD, KERNEL, QUICK, SANITIZED, TOS, Fleet, conf_text, process_table, wait_for

pytestmark = pytest.mark.skipif(not os.path.exists(KERNEL) or not os.path.exists(TOS), reason="TOS_BUILD names no build")

SOAK = os.environ.get("TOS_SOAK") == "1"
POSTERS, REPLACEMENTS = (50, 100) if SOAK else (20, 12)

INCLUDE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../include")
SOURCES = os.path.join(os.path.dirname(os.path.abspath(__file__)), "ext")
CONF = dict(QUICK, extender={"privileges": "read-proc"})
# What carriers that are nobody's administrator may post to.
RULES = 'policy { rules = {"allow class:carrier post Greeter"} }\n'


def compiled(fleet, out, source="greeter.c", **defines):
    """greeter.c as a shared object; its path."""
    flags = [f"-D{k}={v}" for k, v in defines.items()]
    path = os.path.join(fleet.path, out)
    subprocess.run(["cc", "-std=gnu11", "-shared", "-fPIC", "-I", INCLUDE, *flags, "-o", path, os.path.join(SOURCES, source)],
                   check=True)
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
    with Fleet(n=2, conf=conf_text(CONF) + RULES, rests=True) as f:
        f.tos("principal", "add", "olga", "--role", "officer", "--here")
        f.tos("principal", "add", "carl")  # owner, author
        f.tos("build", f.file("plain.lua", "function begin(self) end"), "-o", "plain.ext")
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


def test_what_it_writes_down_is_told_in_its_own_name(fleet):
    """It says that an administrator acted: nobody who reads the audit trail takes that for the kernel's word."""
    fleet.tos("extension", "install", packaged(fleet, "1"))
    fleet.tos("post", "Greeter", "forge")
    (row,) = wait_for(lambda: audited(fleet, "greeter-act"))
    assert (row["extension"], row["by"]) == ("Greeter", "admin")
    assert not [r for r in audited(fleet, "act") if r.get("extension") or r["act"] == "revoke"]


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
            (["build", "Greeter-1.so"], "--sign NAME"),
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
    no(packaged(fleet, "14", PRIVILEGES='"net-out"'), "extender.privileges", "denied")
    no(packaged(fleet, "15", PRIVILEGES='"all"'), "unknown privilege", "unsupported")
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


def test_a_package_larger_than_a_post_goes_to_another_machine(fleet):
    """By way of the content store, from the command and by a carrier; without it there the act says so."""
    package = packaged(fleet, "1", LARGE=2000000)
    (row,) = fleet.json("extension", "install", package, "--kernel", "host0", "--hosts", "host1")
    assert row["kernel"] == "host1" and asked(fleet, inbox="host1/Greeter") == "1"
    (stored,) = [r for r in fleet.json("content", "list", "--kernel", "host1") if r["digest"] == row["package"]]
    assert stored["size"] > 2000000
    fleet.tos("extension", "remove", "Greeter", "--hosts", "host1")
    packaged(fleet, "2", LARGE=3000000)
    digest = fleet.json("content", "put", "Greeter-2.ext", "--kernel", "host0")["digest"]
    o = fleet.outcome(fleet.tos("launch", "install-extension", "--path", "host1", "--briefcase",
                                briefcase(fleet, DIGEST=[digest], FROM=["host0"])).strip())
    assert o["briefcase"]["RESULTS"][0]["done"] == "installed", o
    assert asked(fleet, inbox="host1/Greeter") == "2"
    o = fleet.outcome(fleet.tos("launch", "install-extension", "--path", "host1", "--briefcase",
                                briefcase(fleet, DIGEST=["ab" * 32], FROM=["host0"])).strip())
    assert o["briefcase"]["RESULTS"][0]["why"] == "not-found", o


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


def briefcase(fleet, **folders):
    """A file for --briefcase, of packages (by path) and texts."""
    def element(v):
        if not v.endswith(".ext"):
            return v
        with open(os.path.join(fleet.path, v), "rb") as f:
            return {"base64": base64.b64encode(f.read()).decode()}
    return fleet.file("briefcase.json", json.dumps({k: [element(v) for v in vs] for k, vs in folders.items()}))


def test_a_carrier_installs_uses_and_removes_one(fleet, nothing_left):
    """From a carrier, not from a shell on the host; the kernel's process stays the same."""
    packaged(fleet, "1")
    o = fleet.outcome(fleet.launch("""
function begin(self)
    local R = tos.briefcase:folder("RESULTS")
    local function ask(...)
        local answer, code = tos.call(...)
        R:push { answer = answer, code = code }
    end
    ask("Greeter", "version", 10)
    ask("Extender", { package = tos.briefcase:folder("PACKAGE")[1] }, 30, { name = "INSTALL" })
    ask("Greeter", "version", 10)
    tos.sleep(0.05)
    self.other = tos.call("Greeter", "count", 10)
    ask("Extender", { name = "Greeter" }, 30, { name = "REMOVE" })
    ask("Greeter", "version", 10)
end""", "--briefcase", briefcase(fleet, PACKAGE=["Greeter-1.ext"])))
    assert o["state"] == "finished", o["fault"]
    before, installed, used, removed, after = o["briefcase"]["RESULTS"]
    assert before["code"] == after["code"] == "no-such-inbox" and used["answer"] == "1"
    assert installed["answer"]["version"] == "1" and installed["answer"]["via"] == o["name"]
    assert removed["answer"]["name"] == "Greeter"
    assert fleet.pid("host0", "tos-kernel") == nothing_left and not rows(fleet)
    assert audited(fleet, "extension-installed")[-1]["via"] == o["name"]


def test_a_carrier_delivers_what_others_use(fleet):
    """The shipped carrier, at every kernel; then others post to what it brought, from its kernel and elsewhere."""
    packaged(fleet, "1")
    packaged(fleet, "2", name="Second")
    o = fleet.outcome(fleet.tos("launch", "install-extension", "--path", "@all", "--briefcase",
                                briefcase(fleet, PACKAGE=["Greeter-1.ext", "Second-2.ext"])).strip())
    assert [(r["kernel"], r["extension"], r["done"]) for r in o["briefcase"]["RESULTS"]] == [
        (k, e, "installed") for k in fleet.names for e in ("Greeter", "Second")]
    other = fleet.outcome(fleet.launch("""
function begin(self)
    tos.briefcase:folder("RESULTS"):push { here = tos.call("Greeter", "version", 10),
        there = tos.call("host1/Greeter", "version", 10) }
end""", "--path", "@all", "--as", "carl"))
    assert other["briefcase"]["RESULTS"] == [{"here": "1", "there": "1"}] * 2
    o = fleet.outcome(fleet.tos("launch", "install-extension", "--path", "host1", "--briefcase",
                                briefcase(fleet, REMOVE=["Second", "Nothing"])).strip())
    assert [(r.get("done"), r.get("why")) for r in o["briefcase"]["RESULTS"]] == [("removed", None), (None, "not-found")]
    assert set(rows(fleet, "host1")) == {"Greeter"}


def test_a_carrier_of_somebody_else_may_not(fleet):
    """Its owner is no admin; its author is none; nor can a client say so by itself, nor a carrier with a package that
    no officer has signed."""
    packaged(fleet, "1")
    install = """
function begin(self)
    local answer, code, text = tos.call("Extender", { package = tos.briefcase:folder("PACKAGE")[1] }, 30, { name = "INSTALL" })
    tos.briefcase:folder("RESULTS"):push { answer = answer, code = code, text = text }
end"""
    for package, owner, code in (("Greeter-1.ext", "carl", "denied"), ("plain.ext", "admin", "malformed")):
        o = fleet.outcome(fleet.launch(install, "--briefcase", briefcase(fleet, PACKAGE=[package]), "--as", owner))
        (answer,) = o["briefcase"]["RESULTS"]
        assert "answer" not in answer and answer["code"] == code, answer
    fleet.tos("build", fleet.file("by_carl.lua", install), "--as", "carl", "-o", "by_carl.bundle")
    o = fleet.outcome(fleet.tos("launch", "by_carl.bundle", "--briefcase", briefcase(fleet, PACKAGE=["Greeter-1.ext"])).strip())
    assert o["briefcase"]["RESULTS"][0]["code"] == "denied"
    r = fleet.run("call", "Extender", '{"name": "Monitor"}', "--folder", "REMOVE")
    assert r.returncode != 0 and "signed acts" in r.stderr, r.stderr
    assert not rows(fleet)
    wait_for(lambda: any(r.get("object") == "Extender" for r in audited(fleet, "denied")))


POSTING = """
function begin(self)
    local stop = tos.inbox("stop")
    local posted, calls, n, versions, why = 0, 0, 0, {}, {}
    while stop:size() == 0 do
        n = n + 1
        if tos.post("Greeter", tos.folder("", "note", n)) then posted = posted + 1 end
        if n % 8 == 0 then
            local version, code = tos.call("Greeter", n % 16 == 0 and "slow" or "version", 30)
            if version then calls = calls + 1; versions[version] = true else why[#why + 1] = code end
        end
        tos.sleep(0.01)
    end
    local failures = tos.inbox("failures"):size()
    tos.briefcase:folder("RESULTS"):push { posted = posted, calls = calls, failures = failures, why = why, n = n }
    for v in pairs(versions) do tos.briefcase:folder("VERSIONS"):push(v) end
end"""


def events_of(fleet, name, extension="Greeter"):
    """What the extension counted."""
    for line in fleet.tos("metrics").splitlines():
        if line.startswith(f'tos_extension_events_total{{extension="{extension}",name="{name}"}}'):
            return int(float(line.rsplit(" ", 1)[1]))
    return 0


def test_replaced_under_load_nothing_is_lost(fleet, nothing_left):
    """Posting carriers, and one version after the other: every folder is taken once, in order, every call is answered."""
    fleet.tos("extension", "install", packaged(fleet, "0"))
    packages = [packaged(fleet, f"{v}") for v in range(1, 4)]
    before, disorder = events_of(fleet, "notes"), events_of(fleet, "disorder")
    carriers = [fleet.launch(POSTING) for _ in range(POSTERS)]
    wait_for(lambda: events_of(fleet, "notes") > before + 2 * POSTERS)
    for i in range(REPLACEMENTS):
        (row,) = fleet.json("extension", "replace", packages[i % 3])
        assert row["version"] == str(i % 3 + 1) and row["replaces"] == (str((i - 1) % 3 + 1) if i else "0")
        if i % 5 == 0:
            refused(fleet, "replace", "plain.ext", says="signed as manifest")
    wait_for(lambda: [r["state"] for r in rows(fleet)["Greeter"]] == ["ready"], text="the old ones have ended")
    for c in carriers:
        fleet.tos("post", f"{c}/stop", "now")
    results = [fleet.outcome(c) for c in carriers]
    assert all(o["state"] == "finished" for o in results), [o["fault"] for o in results]
    told = [o["briefcase"]["RESULTS"][0] for o in results]
    posted = sum(r["posted"] for r in told)
    assert not any(r["failures"] or r["why"] for r in told), told
    wait_for(lambda: events_of(fleet, "notes") - before >= posted)
    assert events_of(fleet, "notes") - before == posted and events_of(fleet, "disorder") == disorder
    assert all(r["posted"] == r["n"] for r in told) and fleet.pid("host0", "tos-kernel") == nothing_left
    print(f"{REPLACEMENTS} replacements, {POSTERS} carriers, {posted} folders, {sum(r['calls'] for r in told)} calls")
    seen = {v for o in results for v in o["briefcase"].get("VERSIONS", [])}
    assert seen == {"1", "2", "3"} or seen == {"0", "1", "2", "3"}, seen
    last = str((REPLACEMENTS - 1) % 3 + 1)
    assert f"extension replaced extension=Greeter version={last} replaces=" in fleet.log_text("host0")
    row = audited(fleet, "extension-replaced")[-1]
    assert row["version"] == last and row["replaces"] != last
    assert fleet.metric("host0", "tos_extensions_replaced_total") >= REPLACEMENTS


def test_a_version_that_does_not_start_leaves_the_old_one(fleet):
    """Whatever is wrong with the new one, the old one never stopped."""
    fleet.tos("extension", "install", packaged(fleet, "1"))
    fleet.tos("call", "Greeter", "one")
    pid = rows(fleet)["Greeter"][0]["pid"]
    for release, wrong in enumerate(({"ABI_MINOR": 9}, {"PRIVILEGES": '"read-fs"'}, {"START": "-1"}, {"CRASH": 1},
                                     {"HANG": 1}), 2):
        if "HANG" in wrong and not SOAK:
            continue  # ten seconds
        refused(fleet, "replace", packaged(fleet, str(release), **wrong))
        assert asked(fleet) == "1" and [r["pid"] for r in rows(fleet)["Greeter"] if r["state"] == "ready"] == [pid]
    # one that has another inbox than its package says, and one that wants somebody else's
    with open(os.path.join(fleet.path, packaged(fleet, "8")), "rb") as f:
        package = f.read()
    assert package.count(b"Greeter") >= 2
    refused(fleet, "replace", packaged(fleet, "9", name="Greeter", file=compiled(
        fleet, "echo.so", INBOX='"Echo"', RELEASE='"9"')), says="belongs to host0")
    assert asked(fleet, "count") == "1" and asked(fleet) == "1"
    fleet.kill("host0")
    wait_for(lambda: fleet.status("host0"))
    wait_for(lambda: running(fleet) == "1")


def test_one_that_hangs_is_replaced_all_the_same(fleet):
    """What it was sent it may have taken: lost, and callers are told. What comes meanwhile is its successor's."""
    fleet.tos("extension", "install", packaged(fleet, "1"))
    fleet.tos("post", "Greeter", "hang")
    before = fleet.start("call", "Greeter", "version", "--timeout", "40s")
    wait_for(lambda: rows(fleet)["Greeter"][0]["calls"] == 1)
    fleet.tos("extension", "replace", packaged(fleet, "2"))
    assert asked(fleet, timeout=60) == "2"  # posted while the old one is asked to give its inboxes back
    out, err = before.communicate(timeout=60)
    assert before.returncode != 0 and "did not give its inboxes back" in err, (out, err)
    wait_for(lambda: len(rows(fleet)["Greeter"]) == 1)
    assert running(fleet) == "2" and events_of(fleet, "folders_lost") == 2


def test_an_officer_signs_at_home(fleet):
    """With a key that was never anywhere else, and no kernel."""
    home = os.path.join(fleet.path, "olive")
    fleet.tos("principal", "request", "olive", "--role", "officer", "--home", home)
    fleet.tos("principal", "sign", f"{home}/keys/olive/request")
    fleet.tos("principal", "import", "--home", home, f"{fleet.home}/keys/olive/cert")
    so = compiled(fleet, "olive.so", RELEASE='"1"', INBOX='"Greeter"')
    assert fleet.tos("extension", "build", so, "--home", home, "--sign", "olive").strip() == so[:-3] + ".ext"
    (row,) = fleet.json("extension", "install", so[:-3] + ".ext")
    assert row["officer"] == "olive" and asked(fleet) == "1"


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


BARE = 'extension "Echo" { library = "echo" where = "kernel" }\nextender { kernel = {"Mobility"} }\n'


def test_mobility_is_installed_where_there_was_none():
    """A kernel without it lets no carrier in; from then on carriers come, also when it is replaced by one in the kernel."""
    with Fleet(2, conf=QUICK, each={"host1": BARE}) as f:
        f.tos("principal", "add", "olga", "--role", "officer", "--here")
        so = os.path.join(BUILD, "extensions/mobility/mobility.so")
        kernel = f.pid("host1", "tos-kernel")

        def visit(ok):
            r = f.run("launch", "-e", "return 1", "--path", "host1", "--on-unreachable", "fail", "--wait")
            assert (r.returncode == 0) is ok, r.stderr

        visit(False)
        for release, where, args in ("1", "isolated", []), ("2", "kernel", ["--in-kernel"]), ("3", "isolated", []):
            package = packaged(f, release, *args, name="Mobility", file=so)
            (row,) = f.json("extension", "install", package, "--replace", "--hosts", "host1")
            assert row["where"] == where and row["inboxes"] == ["Mobility"]
            visit(True)
            wait_for(lambda: [r["version"] for r in rows(f, "host1")["Mobility"]] == [release])
        assert len(f.processes("host1", "tos-ext")) == 1
        f.kill("host1")
        wait_for(lambda: f.status("host1"))
        visit(True)
        f.tos("extension", "remove", "Mobility", "--hosts", "host1")
        visit(False)
        refused(f, "install", "Mobility-2.ext", "--hosts", "host0", says="belongs to host0 itself")
        # and where nothing may be installed at all
        f.configure("host0", "extender { enabled = false }\n")
        f.down("host0")
        f.up()
        refused(f, "install", packaged(f, "1"), "--hosts", "host0", says="extender.enabled")
        assert kernel


LUA = """
local kept
extension {
    name = "script", doc = "everything that a script can do", privileges = PRIVILEGES,
    inboxes = {
        Script = function(m)
            local what = m.elements[1]
            if what == "echo" then return table.unpack(m.elements, 2) end
            if what == "sender" then return m.sender, m.info.class, m.folder end
            if what == "no" then return nil, "denied", "not today" end
            if what == "error" then error("it went wrong") end
            if what == "loop" then while true do end end
            if what == "memory" then local t = {} while true do t[#t + 1] = ("x"):rep(1000000) .. #t end end
            if what == "odd" then return print end
            if what == "late" then tos.timer(0.05, function() m:reply("later", tos.now() > 0) end) return end
            if what == "ask" then
                tos.call("Monitor", { "load" }, 10, function(a, code) m:reply(a and a.one ~= nil or code) end)
                return
            end
            if what == "world" then
                local f = io.open("/etc/passwd")
                return f == nil, os.execute("true") == nil, load == nil and require == nil, #(os.getenv("HOME") or "")
            end
            if what == "proc" then return io.open("/proc/loadavg") ~= nil end
            if what == "post" then return tos.post("Script", { "note" }) end
            if what == "note" then kept = (kept or 0) + 1 end
            if what == "kept" then return kept end
            if what == "fail" then m:fail("limit", "by hand") end
        end,
    },
    start = function() tos.count("started") end,
    stop = function() for i = 1, 20 do tos.log("last word " .. i .. " of " .. tostring(kept)) end end,
}
"""


def test_an_extension_in_lua(fleet, nothing_left):
    file = os.path.join(fleet.path, fleet.file("script.lua", LUA.replace("PRIVILEGES", '""')))
    fleet.tos("extension", "install", packaged(fleet, "1", name="Script", file=file))
    row = rows(fleet)["Script"][0]
    assert row["language"] == "lua" and row["where"] == "isolated" and row["doc"].startswith("everything")

    def ask(*words):
        answer = fleet.json("call", "Script", *words)["elements"]
        return answer[0] if len(answer) == 1 else answer

    def no(*words):
        r = fleet.run("call", "Script", *words)
        assert r.returncode != 0
        return r.stderr

    assert ask("echo", "a", '{"b": [1, 2.5, true, null], "c": {}}') == ["a", {"b": [1, 2.5, True], "c": []}]
    sender = ask("sender")
    assert sender[0].startswith("host0/client/") and sender[1:] == ["client", ""]
    assert "not today" in no("no") and "it went wrong" in no("error") and "by hand" in no("fail")
    assert "can't be posted" in no("odd") and "2000 ms" in no("loop") and "memory" in no("memory")
    assert ask("late") == ["later", True] and ask("ask") is True
    assert ask("world") == [True, True, True, 0] and ask("proc") is SANITIZED  # whose runtimes read it
    assert ask("post") is True
    wait_for(lambda: ask("kept") == 1)
    assert row["pid"] == rows(fleet)["Script"][0]["pid"], "it was started again"
    # a next version, with a privilege; and one that does not compile, declares nothing, or fails at its start
    file2 = os.path.join(fleet.path, fleet.file("script2.lua", LUA.replace("PRIVILEGES", '"read-proc"')))
    fleet.tos("extension", "replace", packaged(fleet, "2", name="Script", file=file2))
    assert ask("proc") is True and ask("late") == ["later", True]
    wait_for(lambda: "last word 20 of 1" in fleet.log_text("host0"), text="what the first one said while it stopped")
    for text, says in (("extension {", "expected"), ("x = 1", "declares no extension"),
                       ('extension { name = "x", inboxes = { X = 1 } }', "has no function")):
        refused(fleet, "build", fleet.file("bad.lua", text), "--sign", "olga", says=says)
    bad = LUA.replace("PRIVILEGES", '""').replace('tos.count("started")', 'error("no")')
    refused(fleet, "replace", packaged(fleet, "3", name="Script", file=os.path.join(fleet.path, fleet.file("bad.lua", bad))),
            says="its start failed")
    refused(fleet, "install", packaged(fleet, "4", "--in-kernel", name="Fifth", file=file), says="isolated only")
    assert ask("proc") is True
    assert fleet.pid("host0", "tos-kernel") == nothing_left


@pytest.mark.skipif(not os.path.exists(faults.FAULTY), reason="a build without fault points")
def test_a_kernel_killed_over_it_or_out_of_disk_has_the_old_version():
    """Half of an installation is none, of a replacement the version that was there, of a removal nothing or all of it."""
    with Fleet(1, conf=QUICK, prepare=faults.prepare, tos=faults.tree()) as f:
        f.tos("principal", "add", "olga", "--role", "officer", "--here")
        one, two = packaged(f, "1"), packaged(f, "2")
        armed = f.faults["host0"]

        def after(*args, version):
            armed.arm("write-extension", faults.KILL)
            assert f.run("extension", *args, "--timeout", "3s").returncode != 0
            wait_for(lambda: f.status("host0"))
            armed.disarm()
            wait_for(lambda: running(f) == version)
            assert version is None or asked(f) == version
            armed.arm("write-extension", faults.FAIL)
            refused(f, *args)
            armed.disarm()
            assert running(f) == version
            wait_for(lambda: len(rows(f).get("Greeter", [])) == (version is not None))

        after("install", one, version=None)
        f.tos("extension", "install", one)
        after("replace", two, version="1")
        f.tos("extension", "replace", two)
        after("remove", "Greeter", version="2")
        f.tos("extension", "remove", "Greeter")
        assert not rows(f)
