"""Download: files by URL, from listed places only, whole or not at all; over connections that the kernel makes."""
import datetime
import hashlib
import http.server
import json
import os
import signal
import ssl
import threading

import pytest

import fleet as fleets
from fleet import BUILD, Fleet, QUICK, conf_text, wait_for

pytestmark = pytest.mark.skipif(not os.path.exists(os.path.join(BUILD, "extensions/download/download.so")),
                                reason="built without libcurl")

BIG = hashlib.shake_256(b"big").digest(3_000_000)
SMALL = b"#!/bin/sh\necho hello\n"
FILES = {"/pkgs/big.bin": BIG, "/pkgs/small.sh": SMALL, "/other/small.sh": SMALL, "/pkgs/cut.bin": BIG,
         "/pkgs/stubborn.bin": BIG, "/pkgs/short.bin": BIG, "/pkgs/held.bin": BIG, "/pkgs/endless.bin": BIG,
         "/pkgs/spread.bin": BIG[:1_000_000]}


def sha(data):
    return hashlib.sha256(data).hexdigest()


class Origin(http.server.BaseHTTPRequestHandler):
    """What a server may do. Requests are kept: (path, range)."""
    protocol_version = "HTTP/1.1"
    seen, lock = [], threading.Lock()
    release, late = threading.Event(), threading.Event()

    def log_message(self, *_):
        pass

    def answer(self, code, **headers):
        self.send_response(code)
        for k, v in headers.items():
            self.send_header(k.replace("_", "-"), str(v))
        self.end_headers()

    def do_GET(self):
        try:
            self.serve()
        except (BrokenPipeError, ConnectionResetError):
            pass
        self.close_connection = True

    def serve(self):
        path, ranged = self.path, self.headers.get("Range")
        with self.lock:
            self.seen.append((path, ranged))
            nth = sum(1 for p, _ in self.seen if p == path)
        port = self.server.server_address[1]
        if path == "/pkgs/out":
            return self.answer(302, Location=f"http://127.0.0.1:{port}/other/small.sh", Content_Length=0)
        if path == "/pkgs/in":
            return self.answer(302, Location="/pkgs/small.sh", Content_Length=0)
        if path == "/pkgs/up":
            return self.answer(302, Location="/pkgs/../other/small.sh", Content_Length=0)
        if path == "/pkgs/loop":
            return self.answer(302, Location="/pkgs/loop", Content_Length=0)
        if path == "/pkgs/file":
            return self.answer(302, Location="file:///etc/passwd", Content_Length=0)
        if path == "/pkgs/late":
            self.late.wait(60)
            return self.answer(404, Content_Length=0)
        if path == "/pkgs/broken":
            return self.answer(500, Content_Length=0)
        data = FILES.get(path)
        if data is None:
            return self.answer(404, Content_Length=0)
        start = int(ranged[6:].rstrip("-")) if ranged and path not in ("/pkgs/stubborn.bin", "/pkgs/short.bin") else 0
        if path == "/pkgs/endless.bin":
            self.answer(200, Connection="close")
            while True:
                self.wfile.write(data)
        if start:
            self.answer(206, Content_Length=len(data) - start, Content_Range=f"bytes {start}-{len(data) - 1}/{len(data)}")
        else:
            self.answer(200, Content_Length=len(data))
        end = len(data)
        if path in ("/pkgs/cut.bin", "/pkgs/stubborn.bin") and nth == 1 or path == "/pkgs/short.bin":
            end = start + (end - start) // 2
        if path == "/pkgs/held.bin" and nth == 1:
            self.wfile.write(data[:len(data) // 2])
            self.wfile.flush()
            self.release.wait(60)
            return
        self.wfile.write(data[start:end])


def requests(path):
    return [r for p, r in Origin.seen if p == path]


def authority(where):
    """A CA of our own, and a certificate for localhost; their files."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    now, made = datetime.datetime.utcnow(), []
    root = ec.generate_private_key(ec.SECP256R1())
    for name, issuer, key, ca in (("ca", "ca", root, True), ("localhost", "ca", ec.generate_private_key(ec.SECP256R1()), False)):
        b = x509.CertificateBuilder().subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        b = b.issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)])).public_key(key.public_key())
        b = b.serial_number(x509.random_serial_number()).not_valid_before(now - datetime.timedelta(days=1))
        b = b.not_valid_after(now + datetime.timedelta(days=30)).add_extension(x509.BasicConstraints(ca, None), True)
        b = b.add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), False)
        pem = b.sign(root, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
        secret = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        made.append(os.path.join(where, name + ".pem"))
        with open(made[-1], "wb") as f:
            f.write(pem + (b"" if ca else secret))
    return made


@pytest.fixture(scope="module")
def origin(tmp_path_factory):
    where = str(tmp_path_factory.mktemp("origin"))
    for d in (where, os.path.dirname(where), os.path.dirname(os.path.dirname(where))):
        os.chmod(d, 0o755)
    ca, cert = authority(where)
    plain = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Origin)
    safe = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Origin)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert)
    safe.socket = context.wrap_socket(safe.socket, server_side=True)
    for s in (plain, safe):
        s.daemon_threads = True
        threading.Thread(target=s.serve_forever, daemon=True).start()
    yield plain.server_address[1], safe.server_address[1], ca
    Origin.release.set()
    plain.shutdown()
    safe.shutdown()


@pytest.fixture(scope="module")
def fleet(origin):
    plain, safe, ca = origin
    with open(ca) as f:
        pem = f.read()

    def conf(places, ca):
        listed = ", ".join(f'"{p}"' for p in places)
        return (f'default_extensions = true\nextension "Download" {{ library = "download" where = "isolated" '
                f'privileges = "net-out" places = {{{listed}}} ca = "{ca}" property = {{"/max_bytes=4000000"}} }}\n')

    http, https = f"http://127.0.0.1:{plain}", f"https://localhost:{safe}"

    def prepare(f):
        path = os.path.join(f.path, "ca.pem")
        with open(path, "w") as out:
            out.write(pem)
        os.chmod(path, 0o644)
        for name in f.names:
            places = [http + "/pkgs/ admit", f"http://localhost:{plain}/pkgs/", https + "/pkgs/ private", "tos://* admit"]
            f.configure(name, conf(places if name != "host2" else ["tos://host0"], path))

    with Fleet(3, conf=conf_text(QUICK), prepare=prepare) as f:
        f.http, f.https = http, https
        for name in f.names:
            ready(f, name)
        yield f


def ready(f, kernel):
    """An isolated extension starts beside its kernel."""
    wait_for(lambda: f.run("call", f"{kernel}/Download", "--folder", "PLACES").returncode == 0)


def get(f, url, data=None, kernel="host0", timeout="40s", **args):
    """What a client gets: (exit code, answer or text)."""
    args["url"] = url
    if data is not None:
        args.setdefault("sha256", sha(data) if isinstance(data, bytes) else data)
    r = f.run("call", f"{kernel}/Download", "--folder", "GET", json.dumps(args), "--json", "--timeout", timeout)
    return (0, json.loads(r.stdout)["elements"][0]) if r.returncode == 0 else (r.returncode, r.stderr)


def stored(f, kernel="host0"):
    return {row["digest"]: row for row in f.json("content", "list", "--kernel", kernel)}


def audit(f, event, kernel="host0"):
    lines = f.tos("audit", "--json", "--kernel", kernel, "--most", "5000").splitlines()
    return [row for row in map(json.loads, filter(str.strip, lines)) if row["event"] == event]


def test_a_file_comes_whole_over_http_and_https(fleet):
    rc, got = get(fleet, fleet.http + "/pkgs/big.bin", BIG)
    assert rc == 0 and (got["size"], got["admitted"]) == (len(BIG), False), got
    with open(f"{fleet.home}/kernels/host0/content/{sha(BIG)}", "rb") as f:
        assert f.read() == BIG
    assert stored(fleet)[sha(BIG)]["name"] == "big.bin"
    assert get(fleet, fleet.http + "/pkgs/big.bin", BIG)[1]["from"] == "the store"
    assert len(requests("/pkgs/big.bin")) == 1
    rc, got = get(fleet, fleet.https + "/pkgs/small.sh", SMALL)
    assert rc == 0 and got["from"] == fleet.https + "/pkgs/small.sh", got
    fleet.tos("content", "drop", sha(SMALL))


def test_a_carrier_downloads_and_hears_how_it_goes(fleet):
    before = len(requests("/pkgs/small.sh"))
    lua = f"""function begin(self)
        local inbox = tos.inbox("how")
        local a, code, text = tos.call("Download", {{ url = "{fleet.http}/pkgs/small.sh", sha256 = "{sha(SMALL)}",
            progress = "how" }}, 30)
        local last
        repeat
            local m = inbox:next(10)
            last = m and m.data
        until not last or last.state == "done" or last.state == "failed"
        tos.briefcase:folder("RESULTS"):push {{ kernel = tos.kernel(), size = a and a.size, code = code, text = text,
            state = last and last.state }}
    end"""
    row = fleet.outcome(fleet.launch(lua))["briefcase"]["RESULTS"][0]
    assert (row.get("size"), row.get("state")) == (len(SMALL), "done"), row
    assert len(requests("/pkgs/small.sh")) == before + 1
    fleet.tos("content", "drop", sha(SMALL))


@pytest.mark.parametrize("url", [
    "{http}/other/small.sh", "{http}/pkgs", "{http}/pkgsmall.sh", "{http}/pkgs/../other/small.sh", "{http}/pkgs/%2e%2e/other/small.sh",
    "{http}/pkgs/..%2fother/small.sh", "{http}/pkgs/%252e%252e/x", "{http}/pkgs\\\\..\\\\other", "{http}/pkgs/./small.sh",
    "http://user@127.0.0.1:1/pkgs/x", "http://127.0.0.1:1/pkgs/small.sh", "https://127.0.0.1/pkgs/small.sh", "file:///etc/passwd",
    "ftp://127.0.0.1/pkgs/x", "{http}/pkgs/small.sh#x", "http://127.0.0.1.evil.example/pkgs/x", "http://2130706433/pkgs/x", "pkgs/x"])
def test_what_no_place_lists_is_refused_without_a_connection(fleet, url):
    before = len(Origin.seen), fleet.metric("host0", "tos_extension_connects_total")
    rc, text = get(fleet, url.format(http=fleet.http), SMALL)
    assert rc == 3, (rc, text)
    assert (len(Origin.seen), fleet.metric("host0", "tos_extension_connects_total")) == before


def test_refusals_are_written_down(fleet):
    assert get(fleet, fleet.http + "/other/refused", SMALL)[0] == 3
    wait_for(lambda: any(r["url"].endswith("/other/refused") and "/client/" in r["who"]
                         for r in audit(fleet, "download-refused")))
    assert sha(SMALL) not in stored(fleet)


@pytest.mark.parametrize("path,word", [("out", "no place lists"), ("up", "goes up"), ("file", "it has no"), ("loop", "too many")])
def test_redirects_out_of_the_list_are_refused(fleet, path, word):
    before = len(requests("/other/small.sh"))
    rc, text = get(fleet, f"{fleet.http}/pkgs/{path}", SMALL)
    assert rc in (1, 3) and word in text, text
    assert len(requests("/other/small.sh")) == before and sha(SMALL) not in stored(fleet)


def test_a_redirect_within_the_list_is_followed(fleet):
    rc, got = get(fleet, fleet.http + "/pkgs/in", SMALL)
    assert rc == 0 and got["from"].endswith("/pkgs/small.sh"), got
    fleet.tos("content", "drop", sha(SMALL))


def test_a_name_that_leads_to_a_private_address_is_refused(fleet):
    """The place says localhost, and does not say private: the kernel looks the name up, and makes no connection."""
    url = fleet.http.replace("127.0.0.1", "localhost")
    before = len(Origin.seen)
    rc, text = get(fleet, url + "/pkgs/small.sh", SMALL)
    assert rc == 3 and "private" in text and len(Origin.seen) == before, text
    wait_for(lambda: any(r["host"] == "localhost" and r["extension"] == "Download" for r in audit(fleet, "connect-refused")))
    assert fleet.metric("host0", "tos_extension_connects_refused_total") >= 1


def test_the_kernel_holds_to_the_list_itself(fleet):
    """host2 lists another kernel only: whatever its Download thinks, no connection can come about."""
    rc, text = get(fleet, fleet.http + "/pkgs/small.sh", SMALL, kernel="host2")
    assert rc == 3, text
    assert fleet.metric("host2", "tos_extension_connects_total") == 0


@pytest.mark.parametrize("path,word,how", [
    ("nothing.here", "404", {}), ("small.sh", "not those of the digest", {"sha256": "ab" * 32}), ("broken", "500", {}),
    ("small.sh", "not 5", {"size": 5}), ("big2", "404", {}), ("endless.bin", "taken", {"sha256": "cd" * 32}),
    ("cut.bin", "at most", {"max": 1000}), ("short.bin", "short file", {"sha256": "ef" * 32})])
def test_what_is_wrong_is_said_and_leaves_nothing(fleet, path, word, how):
    how.setdefault("sha256", sha(SMALL))
    rc, text = get(fleet, f"{fleet.http}/pkgs/{path}", None, **how)
    assert rc in (1, 5) and word in text, (rc, text)
    assert how["sha256"] not in stored(fleet)
    assert any(r["event"] for r in audit(fleet, "download-failed"))


def test_a_certificate_of_nobody_is_refused(fleet, origin):
    """The right host with a certificate of another name."""
    fleet.down("host1")
    with open(f"{fleet.home}/kernels/host1/tosd.conf") as f:
        text = f.read()
    with open(f"{fleet.home}/kernels/host1/tosd.conf", "w") as f:
        f.write(text.replace(fleet.https + "/pkgs/ private", fleet.https.replace("localhost", "127.0.0.1") + "/pkgs/"))
    fleet.up()
    ready(fleet, "host1")
    rc, text = get(fleet, fleet.https.replace("localhost", "127.0.0.1") + "/pkgs/small.sh", SMALL, kernel="host1")
    assert rc == 3 and "certificate" in text, text


def test_a_cut_connection_is_gone_on_with(fleet):
    cut = BIG[::-1]
    FILES["/pkgs/cut.bin"] = cut
    Origin.seen[:] = [s for s in Origin.seen if s[0] != "/pkgs/cut.bin"]
    rc, got = get(fleet, fleet.http + "/pkgs/cut.bin", cut)
    assert rc == 0 and sha(cut) in stored(fleet), got
    first, second = requests("/pkgs/cut.bin")
    assert first is None and int(second[6:-1]) > 0, (first, second)
    # A server that knows no parts: from the beginning.
    stubborn = BIG[1:]
    FILES["/pkgs/stubborn.bin"] = stubborn
    rc, got = get(fleet, fleet.http + "/pkgs/stubborn.bin", stubborn)
    assert rc == 0 and sha(stubborn) in stored(fleet), got
    for digest in (sha(cut), sha(stubborn)):
        fleet.tos("content", "drop", digest)


def test_killed_midway_its_next_life_goes_on(fleet):
    held = BIG[2:]
    FILES["/pkgs/held.bin"] = held
    p = fleet.start("call", "Download", "--folder", "GET", "--timeout", "60s",
                    json.dumps({"url": fleet.http + "/pkgs/held.bin", "sha256": sha(held)}))
    pids = [pid for pid in fleet.processes("host0", "tos-ext")
            if b"Download" in fleets.process_table().get(pid, (0, "", "", []))[3]]
    assert len(pids) == 1
    where = f"{fleet.home}/kernels/host0/content"
    wait_for(lambda: any(n.startswith(".put") and 1 << 20 <= os.path.getsize(f"{where}/{n}") < len(held) // 2
                         for n in os.listdir(where)))
    os.kill(pids[0], signal.SIGKILL)
    _, err = p.communicate(timeout=60)
    assert p.returncode == 1 and "restarts" in err, err
    Origin.release.set()
    rc, got = get(fleet, fleet.http + "/pkgs/held.bin", held)
    assert rc == 0 and sha(held) in stored(fleet), got
    assert int(requests("/pkgs/held.bin")[-1][6:-1]) >= 1 << 20
    fleet.tos("content", "drop", sha(held))


def test_many_who_ask_share_one_download(fleet):
    shared = BIG[3:]
    FILES["/pkgs/shared.bin"] = shared
    calls = [fleet.start("call", "Download", "--folder", "GET", "--timeout", "40s",
                         json.dumps({"url": fleet.http + "/pkgs/shared.bin", "sha256": sha(shared)})) for _ in range(6)]
    for p in calls:
        out, err = p.communicate(timeout=60)
        assert p.returncode == 0, err
    assert len(requests("/pkgs/shared.bin")) == 1
    fleet.tos("content", "drop", sha(shared))


def test_one_that_asks_elsewhere_does_not_fail_with_the_first(fleet):
    """It joined a download of the same digest from where there is nothing: its own URL is asked then."""
    data = BIG[4:]
    FILES["/pkgs/there.bin"] = data

    def asks(path):
        return fleet.start("call", "Download", "--folder", "GET", "--timeout", "40s",
                           json.dumps({"url": fleet.http + path, "sha256": sha(data)}))

    def joined():
        return [m for m in fleet.tos("metrics").splitlines() if 'extension="Download",name="shared"' in m]

    before = joined()
    first = asks("/pkgs/late")
    wait_for(lambda: requests("/pkgs/late"))
    second = asks("/pkgs/there.bin")
    wait_for(lambda: joined() != before)
    Origin.late.set()
    out, err = second.communicate(timeout=60)
    assert second.returncode == 0 and json.loads(out)["from"].endswith("/pkgs/there.bin"), (out, err)
    _, err = first.communicate(timeout=60)
    assert first.returncode == 1 and "404" in err, err
    fleet.tos("content", "drop", sha(data))


def test_admission_hangs_on_the_place(fleet):
    program, evil = b"#!/bin/sh\necho good\n", b"#!/bin/sh\necho evil\n"
    FILES["/pkgs/program"] = program
    rc, got = get(fleet, fleet.http + "/pkgs/program", program, admit=True, version="3", kind="program")
    assert rc == 0 and got["admitted"], got
    row = {r["digest"]: r for r in fleet.json("content", "admitted")}[sha(program)]
    assert (row["how"], row["version"], row["name"]) == ("download", "3", "program")
    # What came here in another way does not become a program by naming a place.
    with open(os.path.join(fleet.path, "evil"), "wb") as f:
        f.write(evil)
    fleet.tos("content", "put", "evil")
    FILES["/pkgs/evil"] = program
    rc, text = get(fleet, fleet.http + "/pkgs/evil", evil, admit=True)
    assert rc == 1 and "digest" in text, text
    assert sha(evil) not in {r["digest"] for r in fleet.json("content", "admitted")}
    # Nor from a place that does not say admit.
    assert get(fleet, fleet.https + "/pkgs/program", program, admit=True)[0] == 3
    # Along kernels, as the place says.
    rc, got = get(fleet, f"tos://host0/sha256/{sha(program)}", kernel="host1", admit=True)
    assert rc == 0 and got["admitted"] and got["from"] == "host0", got
    rc, text = get(fleet, f"tos://host0/sha256/{sha(program)}", kernel="host2", admit=True)
    assert rc == 3, text
    rc, got = get(fleet, f"tos://host0/sha256/{sha(program)}", kernel="host2")
    assert rc == 0 and got["from"] == "host0"
    assert get(fleet, f"tos://host1/sha256/{sha(program)}", kernel="host2")[0] == 3
    # What was withdrawn stays so.
    fleet.tos("content", "withdraw", sha(program))
    rc, text = get(fleet, fleet.http + "/pkgs/program", program, admit=True)
    assert rc != 0 and "withdrew" in text, text


def test_a_statement_takes_the_place_of_the_digest(fleet):
    data = b"signed by an officer"
    FILES["/pkgs/signed"] = data
    with open(os.path.join(fleet.path, "signed"), "wb") as f:
        f.write(data)
    fleet.tos("principal", "add", "olga", "--role", "officer", "--here")
    fleet.tos("content", "sign", "signed", "--as", "olga")
    with open(os.path.join(fleet.path, "signed.admit"), "rb") as f:
        statement = f.read()
    hexed = "".join(f"\\x{b:02x}" for b in statement)
    lua = f"""
        local a, code, text = tos.call("Download", {{ url = "{fleet.https}/pkgs/signed", statement = tos.bytes("{hexed}") }}, 30)
        tos.briefcase:folder("RESULTS"):push {{ kernel = tos.kernel(), sha256 = a and a.sha256, code = code, text = text }}"""
    row = fleet.outcome(fleet.launch(lua))["briefcase"]["RESULTS"][0]
    assert row.get("sha256") == sha(data), row
    assert sha(data) in stored(fleet) and sha(data) in {r["digest"] for r in fleet.json("content", "admitted")}


def test_one_of_a_tree_asks_the_origin(fleet):
    data = FILES["/pkgs/spread.bin"]
    before = len(requests("/pkgs/spread.bin"))
    calls = [fleet.start("call", f"{kernel}/Download", "--folder", "GET", "--timeout", "40s", json.dumps(
        {"url": fleet.http + "/pkgs/spread.bin", "sha256": sha(data), "via": ["host0", "host1"]})) for kernel in ("host1", "host0")]
    for p in calls:
        out, err = p.communicate(timeout=60)
        assert p.returncode == 0, err
    assert len(requests("/pkgs/spread.bin")) == before + 1
    assert sha(data) in stored(fleet, "host0") and sha(data) in stored(fleet, "host1")


def test_a_carrier_stays_small_however_large_the_file_is(fleet):
    """GEN-6: the carrier brings the rule, Download brings the bytes."""
    def moved():
        rows = fleet.json("call", "Control", "--folder", "ACCOUNTS", '{"principal":"admin"}')["elements"][0]
        return sum(row["moved_bytes"] for row in rows)

    sizes = []
    for n in (1000, 3_000_000):
        data = BIG[4:4 + n]
        FILES[f"/pkgs/size{n}"] = data
        lua = f"""function begin(self)
            local a, code, text = tos.call("Download", {{ url = "{fleet.http}/pkgs/size{n}", sha256 = "{sha(data)}" }}, 30)
            if not a then error(code .. ": " .. text) end
        end"""
        before = moved()
        name = fleet.launch(lua, "--path", "host1")
        o = fleet.outcome(name)
        assert o["state"] == "finished", o
        assert sha(data) in stored(fleet, "host1")
        sizes.append(moved() - before)
    assert sizes[0] < 16384 and abs(sizes[1] - sizes[0]) < 256, sizes
