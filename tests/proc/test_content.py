"""The content store and the registry of admitted digests: put, get, fetch, quota, who may."""
import hashlib
import json
import os
import signal

import pytest

import wire
from fleet import Fleet, QUICK, wait_for

CONF = dict(QUICK, content={"max": "8M"})


@pytest.fixture(scope="module")
def fleet():
    with Fleet(3, conf=CONF, each={"host2": "content { share = 100 }\n", "host1": "content { files = 16 }\n"}) as f:
        yield f


def blob(f, name, size, seed=b"x"):
    """A file of that size, never the same for two names; its digest."""
    data = hashlib.shake_256(seed + name.encode()).digest(size)
    with open(os.path.join(f.path, name), "wb") as out:
        out.write(data)
    return hashlib.sha256(data).hexdigest(), data


def stored(f, kernel="host0"):
    return {row["digest"]: row for row in f.json("content", "list", "--kernel", kernel)}


def files(f, kernel="host0"):
    return sorted(os.listdir(f"{f.home}/kernels/{kernel}/content"))


def act_of(f, *args, **kw):
    r = f.run(*args, **kw)
    return r.returncode, r.stderr


def test_what_is_put_is_got_and_fetched_whole(fleet):
    digest, data = blob(fleet, "one.bin", 1_500_001)
    assert fleet.tos("content", "put", "one.bin").split() == [digest, "one.bin"]
    row = stored(fleet)[digest]
    assert (row["size"], row["name"], row["source"]) == (len(data), "one.bin", "put by admin")
    fleet.tos("content", "get", digest[:8], "-o", "back.bin")
    with open(os.path.join(fleet.path, "back.bin"), "rb") as f:
        assert f.read() == data
    assert fleet.json("content", "fetch", digest, "--from", "host2,host0", "--kernel", "host1")["from"] == "host0"
    assert stored(fleet, "host1")[digest]["name"] == "one.bin"
    mode = os.stat(f"{fleet.home}/kernels/host1/content/{digest}").st_mode & 0o7777
    assert mode == 0o555 and os.stat(f"{fleet.home}/kernels/host1/content").st_mode & 0o077 == 0
    assert fleet.metric("host1", "tos_content_fetches_total") == 1
    # An empty one, too; and what was put again is not sent again.
    empty, _ = blob(fleet, "empty.bin", 0)
    fleet.tos("content", "put", "empty.bin", "one.bin")
    assert stored(fleet)[empty]["size"] == 0
    fleet.tos("content", "drop", digest)
    assert digest not in stored(fleet) and digest not in files(fleet)


def test_what_nobody_has_is_not_found_and_who_is_away_is_waited_for(fleet):
    missing = "ab" * 32
    code, text = act_of(fleet, "content", "fetch", missing, "--from", "host1,host2")
    assert code == 1 and "not here" in text
    digest, data = blob(fleet, "away.bin", 700_000)
    fleet.tos("content", "put", "away.bin", "--kernel", "host2")
    fleet.freeze("host2")
    p = fleet.start("content", "fetch", digest, "--from", "host2", "--timeout", "50s")
    try:
        wait_for(lambda: fleet.status("host0"))
    finally:
        fleet.thaw("host2")
    out, err = p.communicate(timeout=60)
    assert p.returncode == 0 and out.strip() == digest, err


def test_a_fetch_goes_on_where_its_source_died(fleet):
    """Half of it from one kernel, which is killed; the rest from the next one."""
    digest, data = blob(fleet, "big.bin", 4_000_000)
    for kernel in ("host1", "host2"):
        fleet.tos("content", "put", "big.bin", "--kernel", kernel)
    p = fleet.start("content", "fetch", digest, "--from", "host1,host2", "--timeout", "50s")
    fleet.kill("host1", "tos-kernel")
    out, err = p.communicate(timeout=60)
    assert p.returncode == 0 and out.strip() == digest, err
    with open(f"{fleet.home}/kernels/host0/content/{digest}", "rb") as f:
        assert f.read() == data
    wait_for(lambda: fleet.status("host1"))
    for kernel in fleet.names:
        fleet.run("content", "drop", digest, "--kernel", kernel)


def test_a_part_is_not_served_as_a_whole_and_a_crash_leaves_nothing_half(fleet):
    digest, data = blob(fleet, "cut.bin", 3_000_000)
    lua = f"""
        local a, code, text = tos.call("Content", {{ digest = "{digest}", offset = 0, size = {len(data)}, bytes = ("x"):rep(1000) }},
            10, {{ name = "PUT" }})
        tos.briefcase:folder("RESULTS"):push {{ kernel = tos.kernel(), have = a and a.have, code = code, text = text }}"""
    name = fleet.launch(lua)
    wait_for(lambda: fleet.state(name) in ("finished", "faulted"))
    assert any(f.startswith(".put-") for f in files(fleet)), fleet.outcome(name)
    assert digest not in stored(fleet)
    fleet.kill("host0", "tos-kernel", signal.SIGKILL)
    wait_for(lambda: fleet.status("host0"))
    assert not any(f.startswith(".put-") for f in files(fleet))
    # A file that somebody put there, and one whose bytes were cut: neither is ours.
    fleet.tos("content", "put", "cut.bin")
    fleet.down("host0")
    where = f"{fleet.home}/kernels/host0/content"
    with open(f"{where}/{'cd' * 32}", "w") as f:
        f.write("planted")
    os.chmod(f"{where}/{digest}", 0o755)
    os.truncate(f"{where}/{digest}", 10)
    fleet.up()
    assert digest not in stored(fleet) and files(fleet) == sorted(stored(fleet))


def test_other_bytes_than_the_digest_says_are_refused(fleet):
    """A carrier sends something else under a digest: nothing stays, and it is counted."""
    before = fleet.metric("host0", "tos_content_mismatches_total")
    lua = """
        local a, code = tos.call("Content", { digest = ("7"):rep(64), offset = 0, size = 5, bytes = "hello" }, 10,
            { name = "PUT" })
        tos.briefcase:folder("RESULTS"):push { kernel = tos.kernel(), code = code }"""
    o = fleet.outcome(fleet.launch(lua))
    assert o["briefcase"]["RESULTS"][0]["code"] == "bad-digest", o
    assert fleet.metric("host0", "tos_content_mismatches_total") == before + 1
    assert not any(f.startswith(".put-") for f in files(fleet))


def gets(link):
    """The GETs that come over that link of ours, one after the other."""
    while True:
        f = link.frame(30)
        if f[0] == wire.POST and f[1] == wire.CALL and f[7][0] == "GET":
            yield f


def test_a_source_that_lies_about_the_size_does_not_keep_the_others_from_being_believed(fleet):
    """It says a size, gives a piece, and then has nothing any more. Nor does what it said stay for the next fetch."""
    digest, data = blob(fleet, "sized.bin", 200_000)
    fleet.tos("content", "put", "sized.bin", "--kernel", "host1")
    fleet.down("host2")
    try:
        with wire.Domain(fleet.home).as_kernel("host2", "host0") as k:
            asked = fleet.start("content", "fetch", digest, "--from", "host2,host1", "--timeout", "15s")
            for i, f in enumerate(gets(k)):
                if i == 0:
                    k.send(wire.POST, wire.ANSWER, f[3], f[2], f[4], 0, b"",
                           ["ok", [{"offset": 0, "bytes": data[:65536], "size": 300_000}]])
                else:
                    k.send(wire.POST, wire.FAILURE, f[3], f[2], f[4], 0, b"", ["failure", ["io", "a bad disk"]])
                    break
            out, err = asked.communicate(timeout=60)
        assert asked.returncode == 0 and stored(fleet)[digest]["size"] == len(data), (out, err)
    finally:
        fleet.up()
        fleet.tos("content", "drop", digest)


def test_nobody_takes_all_the_places_of_fetches(fleet):
    """A carrier fetches what nobody has from a kernel that is away, and does not wait for it."""
    fleet.down("host2")
    try:
        lua = """
            for i = 1, 60 do
                tos.post("Content", { digest = ("%064x"):format(i), from = "host2", timeout_ms = 86000000 }, { name = "FETCH" })
            end
            tos.sleep(0.3)"""
        fleet.outcome(fleet.launch(lua))
        blob(fleet, "wanted.bin", 1000)
        digest = fleet.tos("content", "put", "wanted.bin", "--kernel", "host1").split()[0]
        assert fleet.json("content", "fetch", digest, "--from", "host1")["from"] == "host1"
    finally:
        fleet.up()


def test_room_is_made_of_what_was_not_used_for_longest(fleet):
    for row in stored(fleet, "host2"):
        fleet.tos("content", "drop", row, "--kernel", "host2")
    first, _ = blob(fleet, "q1.bin", 3_000_000)
    second, _ = blob(fleet, "q2.bin", 3_000_000)
    third, _ = blob(fleet, "q3.bin", 3_000_000)
    fourth, _ = blob(fleet, "q4.bin", 3_000_000)
    fleet.tos("content", "put", "q1.bin", "q2.bin", "--kernel", "host2")
    fleet.tos("content", "get", first, "--kernel", "host2", "-o", "x")  # used last
    fleet.tos("content", "put", "q3.bin", "--kernel", "host2")
    assert set(stored(fleet, "host2")) == {first, third}
    fleet.tos("content", "pin", first, "--kernel", "host2")
    fleet.tos("content", "pin", third, "--kernel", "host2")
    code, text = act_of(fleet, "content", "put", "q4.bin", "--kernel", "host2")
    assert code == 1 and "pinned" in text and set(stored(fleet, "host2")) == {first, third}
    fleet.tos("content", "pin", third, "--undo", "--kernel", "host2")
    fleet.tos("content", "put", "q4.bin", "--kernel", "host2")
    assert set(stored(fleet, "host2")) == {first, fourth}
    huge, _ = blob(fleet, "huge.bin", 9_000_000)
    code, text = act_of(fleet, "content", "put", "huge.bin", "--kernel", "host2")
    assert code == 1 and "content.max" in text
    assert fleet.metric("host2", "tos_content_evicted_total") == 2


def test_nothing_goes_for_bytes_that_have_not_come(fleet):
    """host2 keeps 8M. Who announces a file and sends nothing of it pushes nothing out; each piece takes what it needs."""
    for row in stored(fleet, "host2"):
        fleet.tos("content", "drop", row, "--kernel", "host2")
    old = [blob(fleet, f"old{i}.bin", 2_500_000)[0] for i in range(3)]
    fleet.tos("content", "put", "old0.bin", "old1.bin", "old2.bin", "--kernel", "host2")
    data = os.urandom(7_000_000)
    digest = hashlib.sha256(data).digest()
    domain = wire.Domain(fleet.home)
    with wire.connect_tls(domain.address("host2"), f"{fleet.home}/keys/admin/key", f"{fleet.home}/keys/admin/cert") as link:
        link.hello(domain=domain.fingerprint.hex())

        def put(**args):
            return link.call("Content", "PUT", {"digest": digest, **args})

        assert put(size=len(data)) == {"have": 0, "size": len(data), "done": False}
        assert set(stored(fleet, "host2")) == set(old)
        # It has its room all the same: what is promised is nobody else's.
        blob(fleet, "more.bin", 2_000_000)
        code, text = act_of(fleet, "content", "put", "more.bin", "--kernel", "host2")
        assert code == 1 and "content.max" in text
        left, step = {}, 1 << 16
        for at in range(0, len(data), step):
            answer = put(offset=at, bytes=data[at:at + step])
            if at % (20 * step) == 0:
                left[answer["have"]] = set(stored(fleet, "host2"))
        assert answer["done"]
        for have, names in left.items():
            assert 2_500_000 * len(names) + have <= 8 << 20 and (len(names) == 3 or 2_500_000 * (len(names) + 1) + have > 8 << 20)
    assert set(stored(fleet, "host2")) == {digest.hex()}
    fleet.tos("content", "drop", digest.hex(), "--kernel", "host2")


def test_nobody_pushes_out_what_is_within_anothers_share(fleet):
    """host1 keeps 8M: a share is 4M. What nobody else needs may be used beyond it."""
    for row in stored(fleet, "host1"):
        fleet.tos("content", "drop", row, "--kernel", "host1")
    for name in ("ann", "ben"):
        fleet.tos("principal", "add", name, "--role", "admin")

    def put(who, name, size, *more, pushed=()):
        digest, _ = blob(fleet, name, size)
        before = set(stored(fleet, "host1"))
        r = fleet.run("content", "put", name, "--kernel", "host1", "--as", who, *more)
        gone = before - set(stored(fleet, "host1"))
        assert gone == set(pushed), (r.stderr, gone)
        return digest if r.returncode == 0 else r.stderr

    def content_bytes(who):
        (here,) = [r for r in fleet.json("principal", "show", who)["kernels"] if r["kernel"] == "host1"]
        return here["content_bytes"]

    anns = [put("ann", f"ann{i}", 1_900_000) for i in range(4)]  # alone, she has nearly all of it
    assert content_bytes("ann") == 7_600_000
    # Another takes his share of that, and no more: then it is his own that goes.
    bens = [put("ben", "ben0", 1_900_000, pushed=[anns[0]]), put("ben", "ben1", 1_900_000, pushed=[anns[1]])]
    bens.append(put("ben", "ben2", 1_900_000, pushed=[bens[0]]))
    assert set(stored(fleet, "host1")) == {anns[2], anns[3], bens[1], bens[2]}
    # What is fetched counts, too.
    digest, _ = blob(fleet, "far", 2_500_000)
    fleet.tos("content", "put", "far", "--kernel", "host0")
    fleet.tos("content", "fetch", digest, "--from", "host0", "--kernel", "host1", "--as", "ben")
    assert set(stored(fleet, "host1")) == {anns[2], anns[3], bens[2], digest} and content_bytes("ben") == 4_400_000
    # Pins are within the share, and what is pinned is not taken from oneself either.
    fleet.tos("content", "pin", anns[2], "--kernel", "host1", "--as", "ann")
    fleet.tos("content", "pin", anns[3], "--kernel", "host1", "--as", "ann")
    before = fleet.metric("host1", "tos_content_share_refused_total")
    assert "more would be pinned for ann than its share" in put("ann", "ann4", 1_000_000, "--pin")
    assert "ann has its share" in put("ann", "ann5", 2_000_000)
    put("ann", "ann6", 300_000, pushed=[bens[2]])
    assert fleet.metric("host1", "tos_content_share_refused_total") == before + 2
    # It is counted anew at each start.
    fleet.kill("host1")
    wait_for(lambda: fleet.run("content", "list", "--kernel", "host1").returncode == 0)
    assert "ann has its share" in put("ann", "ann7", 2_500_000)
    fleet.tos("content", "pin", anns[3], "--undo", "--kernel", "host1", "--as", "ann")
    last = put("ann", "ann8", 2_400_000, pushed=[anns[3]])
    r = fleet.run("content", "pin", last, "--kernel", "host1", "--as", "ann")
    assert r.returncode == 1 and "content.share" in r.stderr


def test_the_number_of_files_is_bounded_and_shared(fleet):
    """host1 keeps 16: an empty file, too, costs its kernel memory and a row. Eight are a share."""
    for row in stored(fleet, "host1"):
        fleet.run("content", "pin", row, "--undo", "--kernel", "host1")
        fleet.tos("content", "drop", row, "--kernel", "host1")
    for name in ("cat", "dan"):
        fleet.tos("principal", "add", name, "--role", "admin")

    def put(who, *names):
        return fleet.run("content", "put", *names, "--kernel", "host1", "--as", who)

    digests = [blob(fleet, f"tiny{i}", 9)[0] for i in range(40)]
    assert len(set(digests)) == 40
    names = [f"tiny{i}" for i in range(40)]
    assert put("cat", *names[:18]).returncode == 0  # alone she has all; the first two have gone
    assert set(stored(fleet, "host1")) == set(digests[2:18])
    def pin(who, digest, *undo):
        return fleet.run("content", "pin", digest, *undo, "--kernel", "host1", "--as", who)

    for digest in digests[2:10]:
        assert pin("cat", digest).returncode == 0
    for r in (pin("cat", digests[10]), put("cat", names[38], "--pin")):  # what is pinned leaves the others their share
        assert r.returncode == 1 and "more would be pinned for cat than its share" in r.stderr
    for digest in digests[2:10]:
        assert pin("cat", digest, "--undo").returncode == 0
    assert put("dan", *names[18:28]).returncode == 0  # eight of hers go, then it is his own
    assert set(stored(fleet, "host1")) == set(digests[10:18] + digests[20:28])
    for digest in digests[20:28]:
        assert pin("dan", digest).returncode == 0
    r = put("dan", names[28])
    assert r.returncode == 1 and "dan has its share" in r.stderr and "8 files" in r.stderr
    assert set(stored(fleet, "host1")) == set(digests[10:18] + digests[20:28])
    fleet.kill("host1")  # it is counted anew
    wait_for(lambda: fleet.run("content", "list", "--kernel", "host1").returncode == 0)
    assert "dan has its share" in put("dan", names[28]).stderr
    assert put("cat", names[29]).returncode == 0
    assert set(stored(fleet, "host1")) == set(digests[11:18] + digests[20:28] + [digests[29]])
    for digest in stored(fleet, "host1"):
        fleet.run("content", "pin", digest, "--undo", "--kernel", "host1")
        fleet.tos("content", "drop", digest, "--kernel", "host1")


def test_who_may(fleet):
    """Without a role for it nobody puts; what is private stays with its owner; all is written down."""
    fleet.tos("principal", "add", "rita", "--role", "author")
    digest, _ = blob(fleet, "rita.bin", 1000)
    code, text = act_of(fleet, "content", "put", "rita.bin", "--as", "rita")
    assert code == 3 and "may not put" in text
    code, text = act_of(fleet, "content", "admit", digest, "--as", "rita")
    assert code == 3
    assert any(row["event"] == "act-refused" and row["by"] == "rita" for row in audit(fleet))
    fleet.tos("content", "put", "rita.bin", "--private")
    code, text = act_of(fleet, "content", "fetch", digest, "--from", "host0", "--kernel", "host1")
    assert code == 1 and "not here" in text
    # A local client sends nothing that no act announced.
    code, text = act_of(fleet, "call", "Content", "--folder", "PUT", '{"digest":"' + "ab" * 32 + '","bytes":"x"}')
    assert code in (1, 3)


def audit(f, kernel="host0"):
    out = []
    for line in f.tos("audit", "--json", "--kernel", kernel).splitlines():
        if line.strip():
            out.append(json.loads(line))
    return out


def test_admission_by_act_and_by_statement_and_its_end(fleet):
    digest, _ = blob(fleet, "prog.bin", 5000)
    fleet.tos("content", "put", "prog.bin", "--admit", "--version-of", "1.2", "--machine", "any")
    row = {r["digest"]: r for r in fleet.json("content", "admitted")}[digest]
    assert (row["by"], row["how"], row["kind"], row["version"], row["here"]) == ("admin", "act", "program", "1.2", True)
    assert any(r["event"] == "admitted" for r in audit(fleet))
    # It lasts over a restart.
    fleet.down("host0")
    fleet.up()
    assert digest in {r["digest"] for r in fleet.json("content", "admitted")}
    # By an officer's statement, wherever it was signed; by nobody else's.
    fleet.tos("principal", "add", "olga", "--role", "officer", "--here")
    fleet.tos("content", "sign", "prog.bin", "--as", "olga", "-o", "good.admit")
    fleet.tos("content", "sign", "prog.bin", "--as", "admin", "-o", "bad.admit")
    code, text = act_of(fleet, "content", "admit", "--statement", "bad.admit", "--kernel", "host1")
    assert code == 3 and "admit_signed" in text
    assert fleet.json("content", "admit", "--statement", "good.admit", "--kernel", "host1")["by"] == "olga"
    broken = bytearray(open(os.path.join(fleet.path, "good.admit"), "rb").read())
    broken[len(broken) // 2] ^= 1
    with open(os.path.join(fleet.path, "broken.admit"), "wb") as f:
        f.write(broken)
    assert act_of(fleet, "content", "admit", "--statement", "broken.admit", "--kernel", "host2")[0] != 0
    # Withdrawn, its statement does not bring it back; an act does.
    fleet.tos("content", "withdraw", digest, "--kernel", "host1")
    code, text = act_of(fleet, "content", "admit", "--statement", "good.admit", "--kernel", "host1")
    assert code != 0 and "withdrew" in text
    fleet.tos("content", "admit", digest, "--kernel", "host1")
    assert digest in {r["digest"] for r in fleet.json("content", "admitted", "--kernel", "host1")}
    # Nor one that comes before the withdrawal is on the disk: of what comes in one piece the statement is last.
    domain = wire.Domain(fleet.home)
    with open(os.path.join(fleet.path, "good.admit"), "rb") as f:
        statement = f.read()
    with wire.connect_tls(domain.address("host1"), f"{fleet.home}/keys/admin/key", f"{fleet.home}/keys/admin/cert") as link:
        link.hello(domain=domain.fingerprint.hex())
        for i in range(5):
            one = {"digest": bytes.fromhex(digest)}
            link.raw(wire.to_bytes([wire.POST, wire.CALL, "Content", "", 100 + i, 20000, b"", ["WITHDRAW", [one]]])
                     + wire.to_bytes([wire.POST, wire.CALL, "Content", "", 200 + i, 20000, b"", ["ADMIT", [{"statement": statement}]]]))
            assert wire.failure(link.answer, 200 + i).code == "revoked"
            assert link.answer(100 + i)["withdrawn"]
            assert wire.failure(link.call, "Content", "ADMITTED", one).code == "not-found"
            fleet.tos("content", "admit", digest, "--kernel", "host1")
    # Nor does it hold longer than its signer's certificate.
    fleet.tos("content", "admit", "--statement", "good.admit", "--kernel", "host2")
    fleet.tos("principal", "revoke", "olga")
    wait_for(lambda: digest not in {r["digest"] for r in fleet.json("content", "admitted", "--kernel", "host2")})


def test_many_who_ask_share_one_transfer(fleet):
    digest, data = blob(fleet, "share.bin", 2_000_000)
    fleet.tos("content", "put", "share.bin", "--kernel", "host1")
    before = fleet.metric("host1", "tos_content_read_bytes_total")
    lua = f"""
        local a, code, text = tos.call("Content", {{ digest = "{digest}", from = "host1" }}, 40, {{ name = "FETCH" }})
        tos.briefcase:folder("RESULTS"):push {{ kernel = tos.kernel(), size = a and a.size, code = code, text = text }}"""
    names = [fleet.launch(lua) for _ in range(8)]
    for name in names:
        row = fleet.outcome(name)["briefcase"]["RESULTS"][0]
        assert row.get("size") == len(data), row
    assert fleet.metric("host1", "tos_content_read_bytes_total") - before == len(data)


def test_a_backup_leaves_content_out_and_keeps_what_is_admitted(fleet):
    digest, _ = blob(fleet, "b.bin", 4000)
    fleet.tos("content", "put", "b.bin", "--admit", "--kernel", "host2")
    fleet.tos("backup", "host2", "host2.backup")
    fleet.down("host2")
    for f in files(fleet, "host2"):
        os.unlink(f"{fleet.home}/kernels/host2/content/{f}")
    fleet.tos("restore", "host2.backup")
    fleet.up()
    assert stored(fleet, "host2") == {}
    assert digest in {r["digest"] for r in fleet.json("content", "admitted", "--kernel", "host2")}
