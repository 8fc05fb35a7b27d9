"""Field upgrade without anybody's hand (GEN-17): the carrier steward looks for a newer version of its program in an index on a
web server, or in the store of another kernel; has it fetched, and admitted under each host's policy; has all hosts take it
together. Nobody does anything but publish files."""
import hashlib
import http.server
import json
import os
import subprocess
import threading

import pytest

from fleet import BUILD, TOS, Fleet, QUICK, conf_text, process_table, wait_for

pytestmark = pytest.mark.skipif(not os.path.exists(os.path.join(BUILD, "extensions/download/download.so")),
                                reason="built without libcurl")

SECONDS = str(200000 + os.getpid() % 10000)  # so that its programs are known by their arguments


class Shelf(http.server.BaseHTTPRequestHandler):
    """The web server: what lies on it, and whether it is there."""
    files, down = {}, False

    def log_message(self, *_):
        pass

    def do_GET(self):
        data = None if self.down else self.files.get(self.path)
        self.send_response(503 if self.down else 200 if data is not None else 404)
        self.send_header("Content-Length", str(len(data or b"")))
        self.end_headers()
        self.wfile.write(data or b"")


def test_versions_are_compared_part_by_part(tmp_path):
    rising = ["beta", "", "0", "0.9", "1.0alpha", "1.0beta2", "1.0beta10", "1.0rc1", "1.0", "1.0.0", "1.0.1", "1.9", "1.10", "2",
              "10", "2026.11.22", "99999999999999999999999", "100000000000000000000000"]
    lua = tmp_path / "c.lua"
    lua.write_text("""local releases, out = require "releases", {}
function begin(self)
    for i, a in ipairs(LIST) do for j, b in ipairs(LIST) do
        if releases.compare(a, b) ~= (i < j and -1 or i > j and 1 or 0) then out[#out + 1] = a .. " and " .. b end
    end end
    out[#out + 1] = tostring(releases.compare("01.002", "1.2") == 0 and releases.compare(2, "2") == 0 and not releases.newer("1.0", "1-0"))
    tos.briefcase.OUT = out
end""".replace("LIST", "{" + ", ".join(f'"{v}"' for v in rising) + "}"))
    r = subprocess.run([TOS, "launch", str(lua), "--local", "--json"], env=dict(os.environ, TOS_HOME=str(tmp_path / "h"), HOME=str(tmp_path)),
                       capture_output=True, text=True, timeout=60)
    assert r.returncode == 0 and json.loads(r.stdout)["briefcase"]["OUT"] == ["true"], r.stdout + r.stderr


@pytest.fixture(scope="module")
def shelf():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Shelf)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}/pkgs/"
    server.shutdown()


@pytest.fixture(scope="module")
def fleet(shelf):
    def prepare(f):
        for name in f.names:
            f.configure(name, f'default_extensions = true\nextension "Download" {{ library = "download" where = "isolated" '
                              f'privileges = "net-out" places = {{"{shelf}", "tos://* admit"}} }}\n')

    with Fleet(4, conf=conf_text(QUICK), prepare=prepare) as f:
        f.shelf = shelf
        f.tos("principal", "add", "olga", "--role", "officer", "--here")
        f.tos("principal", "add", "mallory", "--role", "owner,author", "--here")
        for name in f.names:
            wait_for(lambda name=name: f.run("call", f"{name}/Download", "--folder", "PLACES").returncode == 0)
        yield f


def program(version, check=0):
    """A program that can be told apart by what it leaves in the process table."""
    text = f"#!/bin/sh\n[ \"$1\" = check ] && {{ echo {version} does not work here >&2; exit {check}; }}\nexec sleep {SECONDS} {version}\n"
    return text.encode()


def running(version):
    wanted = [b"sleep", SECONDS.encode(), version.encode(), b""]
    return [pid for pid, row in process_table().items() if row[3] == wanted and row[2] != "Z"]


def statement(fleet, data, version, by="olga", name="agent"):
    path = fleet.file(f"{name}-{version}-{by}", data.decode())
    fleet.tos("content", "sign", path, "--as", by, "--name", name, "--version-of", version, "-o", path + ".admit")
    return path + ".admit"


def publish(fleet, *versions, **kw):
    """{version: bytes}... as the index, and the files beside it."""
    statements = []
    for version, data in versions:
        Shelf.files["/pkgs/" + hashlib.sha256(data).hexdigest()] = data
        statements.append(statement(fleet, data, version, **kw))
    out = os.path.join(fleet.path, "index")
    fleet.tos("content", "index", *statements, "-o", out)
    with open(out, "rb") as f:
        Shelf.files["/pkgs/index"] = f.read()


def index(fleet, kernel="host0", path="index"):
    r = fleet.run("call", f"{kernel}/Download", "--folder", "INDEX", json.dumps({"url": fleet.shelf + path}), "--json")
    return (0, json.loads(r.stdout)["elements"][0]) if r.returncode == 0 else (r.returncode, r.stderr)


def launch(fleet, app, **watch):
    app = {"workers": 3, "hosts": fleet.names, "lost": 3, "pause": 0.1, "check": ["check"], "watch": dict({"name": "agent", "every": 1}, **watch),
           **app}
    fleet.file("app.json", json.dumps({"APP": [app]}))
    return fleet.tos("launch", "steward", "--briefcase", "app.json", "--itinerant", "--limit", "clones=100", "--limit", "cpu=10m",
                     "--limit", "lifetime=1h").strip()


def status(fleet, app):
    r = fleet.run("call", f"{app}/steward", "status", "--json")
    return {row["worker"]: row for row in json.loads(r.stdout)["elements"][0]} if r.returncode == 0 else {}


def all_run(fleet, app, version, n=3):
    def so():
        rows = status(fleet, app)
        return len(rows) == n and all(r["state"] == "running" and r.get("version") == version for r in rows.values()) and rows
    return wait_for(so, text=f"all {n} run version {version}")


def logged(fleet, app, *words):
    lines = fleet.tos("log", app, "--json").splitlines()
    return [line for line in lines if all(w in json.loads(line)["text"] for w in words)]


@pytest.fixture(scope="module")
def app(fleet):
    Shelf.down = True
    fleet.tos("content", "put", fleet.file("agent-1", program("1.9").decode()), "--admit", "--name", "agent", "--version-of", "1.9")
    digest = hashlib.sha256(program("1.9")).hexdigest()
    for name in fleet.names[1:]:
        fleet.tos("content", "fetch", digest, "--from", "host0", "--kernel", name)
        fleet.tos("content", "admit", digest, "--kernel", name)
    app = launch(fleet, {"program": "sha256:" + digest, "version": "1.9"}, index=fleet.shelf + "index")
    all_run(fleet, app, "1.9")
    return app


def test_an_index_that_is_not_there_is_waited_for(fleet, app):
    wait_for(lambda: logged(fleet, app, "looking for a new version", "503"))
    Shelf.down = False
    wait_for(lambda: logged(fleet, app, "looking for a new version", "404"))
    assert len(logged(fleet, app, "looking for a new version")) <= 4  # once for each reason
    all_run(fleet, app, "1.9")


def test_what_no_officer_signed_counts_for_nothing(fleet, app):
    publish(fleet, ("66", program("66")), by="mallory")
    rc, text = index(fleet)
    assert rc == 3 and "content.admit_signed" in text, text
    wait_for(lambda: logged(fleet, app, "looking for a new version", "mallory"))
    good = Shelf.files["/pkgs/index"]
    for at in (len(good) // 2, len(good) - 3):  # a byte of the certificate, and one of the signature
        Shelf.files["/pkgs/index"] = good[:at] + bytes([good[at] ^ 1]) + good[at + 1:]
        assert index(fleet)[0] != 0
    for bad in (b"", b"no index", b"\x80", b"\x81\x01", b"\x81\x40", bytes(200_000)):
        Shelf.files["/pkgs/index"] = bad
        rc, text = index(fleet)
        assert rc != 0 and any(w in text for w in ("no index", "statements", "taken", "COSE")), (bad[:10], text)
    assert index(fleet, path="../index")[0] == 3
    all_run(fleet, app, "1.9")


def test_an_older_version_is_not_taken(fleet, app):
    publish(fleet, ("1.8", program("1.8")), ("1.9beta2", program("1.9beta2")))
    wait_for(lambda: logged(fleet, app, "version 1.9beta2 is offered, 1.9 runs: it stays"))
    all_run(fleet, app, "1.9")


def test_a_file_that_is_not_what_was_signed_changes_nothing(fleet, app):
    publish(fleet, ("1.10", program("1.10")))
    Shelf.files["/pkgs/" + hashlib.sha256(program("1.10")).hexdigest()] = program("evil")
    wait_for(lambda: logged(fleet, app, "version 1.10 is not taken", "not those of the digest"))
    assert not running("evil") and not running("1.10")
    all_run(fleet, app, "1.9")


def test_one_that_does_not_work_is_taken_nowhere(fleet, app):
    before = sorted(running("1.9"))
    publish(fleet, ("1.11", program("1.11", check=1)))
    wait_for(lambda: logged(fleet, app, "upgrade from version 1.9 to 1.11: aborted", "does not work here"))
    assert sorted(running("1.9")) == before and len(before) == 3


def test_a_newer_version_comes_by_itself_and_the_log_says_from_what_to_what(fleet, app):
    publish(fleet, ("1.9", program("1.9")), ("1.12", program("1.12")), ("1.9.1", program("1.9.1")))
    all_run(fleet, app, "1.12")
    assert wait_for(lambda: len(running("1.12")) == 3 and not running("1.9"))
    assert logged(fleet, app, "a new version: 1.9 → 1.12")
    assert logged(fleet, app, "upgrade from version 1.9 to 1.12: committed")
    row = {r["digest"]: r for r in fleet.json("content", "admitted", "--kernel", "host1")}.get(
        hashlib.sha256(program("1.12")).hexdigest())
    assert not row or (row["how"], row["by"]) == ("signed", "olga")


def test_it_waits_until_all_hosts_are_there(fleet, app):
    rows = all_run(fleet, app, "1.12")
    gone = {r["host"] for r in rows.values() if r["host"] != "host0"} | {n for n in fleet.names if n not in
                                                                          {r["host"] for r in rows.values()} and n != "host0"}
    for name in gone:
        fleet.down(name, hard=True)
    publish(fleet, ("1.13", program("1.13")))
    wait_for(lambda: logged(fleet, app, "version 1.13 waits"))
    assert not running("1.13")
    fleet.up()
    all_run(fleet, app, "1.13")


def test_another_kernels_store_is_a_source_too_and_the_home_may_die_midway(fleet, app):
    wait_for(lambda: fleet.run("call", f"{app}/steward", "stop").returncode == 0)
    fleet.outcome(app)
    app = launch(fleet, {"program": "sleep", "args": [SECONDS, "1"], "version": 1, "hosts": ["host1", "host2"], "workers": 2},
                 **{"from": "host3"})
    all_run(fleet, app, 1, 2)
    fleet.tos("content", "put", fleet.file("agent-2", program("2.0").decode()), "--admit", "--name", "agent", "--version-of", "2.0",
              "--kernel", "host3")
    wait_for(lambda: logged(fleet, app, "a new version: 1 → 2.0"))
    fleet.kill("host0")
    all_run(fleet, app, "2.0", 2)
    assert wait_for(lambda: len(running("2.0")) == 2 and not running("1"))
    wait_for(lambda: fleet.run("call", f"{app}/steward", "stop").returncode == 0)
    fleet.outcome(app)
    assert wait_for(lambda: not running("2.0"))
