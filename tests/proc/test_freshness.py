"""What must not get old: the revocation list, certificates; and who had a name before."""
import base64
import json
import os
import sqlite3
import subprocess

import cbor2
import pytest

import wire
from conftest import fleet_fixture
from fleet import KERNEL, QUICK, wait_for

pytestmark = pytest.mark.skipif(not os.path.exists(KERNEL), reason="TOS_BUILD names no build with tos-kernel")
fleet = fleet_fixture(n=3, conf=QUICK, each={"host1": 'revocation { max_age = "4s" }\n'})


@pytest.fixture(scope="module")
def domain(fleet):
    return wire.Domain(fleet.home)


def audit(domain, kernel, event):
    with domain.client(kernel) as c:
        return [r for r in c.call(f"{kernel}/Control", "AUDIT", {"after": 0, "most": 1000}) if r["event"] == event]


def visit(fleet, kernel):
    r = fleet.run("launch", "-e", "return {k = tos.kernel()}", "--path", kernel, "--on-unreachable", "fail", "--wait", "--json")
    return json.loads(r.stdout)


def age(fleet, kernel):
    return fleet.metric(kernel, "tos_revocation_age_seconds")


# ---- the revocation list

def test_a_kernel_keeps_its_list_confirmed_and_admits_carriers(fleet):
    """host1's list may be 4 s old; it has been up for longer by the end, and asks the registrar by itself."""
    first = fleet.metric("host1", "tos_uptime_seconds")
    wait_for(lambda: fleet.metric("host1", "tos_uptime_seconds") > max(first, 5))
    assert age(fleet, "host1") < 4
    assert age(fleet, "host0") == 0
    assert visit(fleet, "host1")["state"] == "finished"
    assert "revocation" in fleet.tos("doctor", "--kernel", "host1", "--json")


def test_cut_off_from_the_registrar_it_admits_none_and_says_why(fleet, domain):
    """host1 hears from host2 only, which can't have anything newer to tell."""
    assert visit(fleet, "host2,host1")["state"] == "finished"  # they are linked
    name = fleet.launch("function begin(self) local box = tos.inbox('go') box:next(3600) end", "--path", "host2,host1",
                        "--on-unreachable", "fail")
    wait_for(lambda: "host2" in fleet.residents(name))
    fleet.freeze("host0")
    try:
        wait_for(lambda: age(fleet, "host1") > 5, text="host1's list is too old")
        assert "too old" in fleet.log_text("host1")
        with domain.client("host2") as c:
            c.post(f"{name}/go", "now")
        # refused at the offer: the carrier is still at host2, faulted or looking for its home
        wait_for(lambda: "revocation.max_age" in fleet.log_text("host2"))
        assert not [r for r in audit(domain, "host1", "arrived") if r["carrier"] == name]
    finally:
        fleet.thaw("host0")
    wait_for(lambda: age(fleet, "host1") < 4)
    wait_for(lambda: "admitted again" in fleet.log_text("host1"))
    assert visit(fleet, "host1")["state"] == "finished"
    fleet.tos("kill", name)


def test_only_the_registrars_word_counts_and_only_about_the_list_that_is_there(fleet, domain):
    """Statements by another kernel, by a principal, of a time to come, about another list."""
    fleet.tos("down", "host2")
    with domain.client() as c:
        before = c.call("host0/Control", "STATUS", {})["boot"]
    host1_age = age(fleet, "host1")
    link = domain.as_kernel("host2", "host0", directory=fleet.path)
    answer = link.call("host0/Kernel", "REVOCATION", {}, sender="host2/Kernel")
    good = wire.cbor2.loads(wire.cbor2.loads(answer["current"]).value[2])
    assert good["list"] == wire.sha(answer["list"]) and abs(good["wall"] - wire.now_ms()) < 60000
    link.close()
    # host1 asks whoever links to it when its list gets old: it is told lies
    fleet.freeze("host0")
    try:
        wait_for(lambda: age(fleet, "host1") > 5)
        lies = [wire.sign(domain.kernel("host2"), "current", good), wire.sign(domain.principal("admin"), "current", good),
                wire.sign(domain.kernel("host0"), "act", good), wire.flip(answer["current"]),
                wire.sign(domain.kernel("host0"), "current", {**good, "wall": good["wall"] + 3600000}),
                wire.sign(domain.kernel("host0"), "current", {**good, "number": good["number"] + 1}),
                wire.sign(domain.kernel("host0"), "current", {**good, "list": bytes(32)}),
                wire.sign(domain.kernel("host0"), "current", {**good, "more": 1})]
        for i, lie in enumerate(lies):
            c = domain.as_kernel("host2", "host1", directory=fleet.path, boot=(1 << 41) + i)
            asked = False
            while not asked:
                f = c.frame()
                if f[0] == wire.POST and f[1] == wire.CALL and f[7][0] == "REVOCATION":
                    asked = True
                    c.send(wire.POST, wire.ANSWER, f[3], f[2], f[4], 0, b"",
                           ["ok", [{"list": answer["list"], "current": lie}]])
            c.call("host1/Echo", "behind it", sender="host2/Kernel")
            assert age(fleet, "host1") > 5, i
            c.close()
    finally:
        fleet.thaw("host0")
    fleet.up()
    wait_for(lambda: age(fleet, "host1") < 4)
    assert before and host1_age >= 0


def test_the_root_can_sign_the_list_anew(fleet):
    assert "signed anew (list" in fleet.tos("principal", "refresh")


# ---- certificates

def days(path):
    out = subprocess.run(["openssl", "x509", "-in", path, "-noout", "-enddate", "-serial"], capture_output=True, text=True)
    return out.stdout


def test_a_kernels_certificate_renews_itself_at_two_thirds_of_its_life(fleet, domain):
    """host2 starts with a certificate of the registrar's whose end is near."""
    fleet.tos("down", "host2")
    key, cert = f"{fleet.home}/kernels/host2/key", f"{fleet.home}/kernels/host2/cert"
    registrar = wire.load(f"{fleet.home}/ca/registrar.key", f"{fleet.home}/ca/registrar.crt")
    old = domain.kernel("host2")
    short = wire.issue("host2", ["tos:kernel:host2"], registrar, begin_s=-3600, life_s=4000, key=old.key)
    wire.Signer(old.key, short.chain + registrar.chain).pem(fleet.path, "short")
    with open(f"{fleet.path}/short.crt", "rb") as f:
        text = f.read()
    with open(cert, "wb") as f:
        f.write(text)
    before = days(cert)
    fleet.tos("up")
    wait_for(lambda: days(cert) != before, text="the file is another one")
    wait_for(lambda: audit(domain, "host2", "certificate-renewed"))
    assert [r["name"] for r in audit(domain, "host0", "renewed")] == ["host2"]
    assert fleet.metric("host2", "tos_certificate_seconds") > 300 * 86400
    # what it signs and shows from now on, and what was signed before: all good
    assert domain.kernel("host2").public == old.public
    assert fleet.outcome(fleet.launch("return {1}", "--path", "host2,host1"))["state"] == "finished"
    fleet.kill("host2")
    wait_for(lambda: fleet.status("host2"))
    assert fleet.outcome(fleet.launch("return {1}", "--path", "host2,host1"))["state"] == "finished"
    # both are revoked with the name
    host2 = domain.kernel("host2")
    with domain.client() as c:
        admin = domain.principal("admin")
        serials = c.call("host0/Control", "ACT", {"cose": wire.act(admin, "host0", "remove", "host2")})["serials"]
    assert {s.lstrip(b"\0") for s in serials} == {s.serial.lstrip(b"\0") for s in (short, host2)}


def test_removing_a_kernel_names_every_certificate_that_it_ever_got(fleet, domain):
    """It asks for many at once, and goes on asking with the old one; then its host is given to another."""
    fleet.tos("down", "host2")
    registrar = wire.load(f"{fleet.home}/ca/registrar.key", f"{fleet.home}/ca/registrar.crt")
    own = domain.kernel("host2")
    short = wire.issue("host2", ["tos:kernel:host2"], registrar, begin_s=-3600, life_s=4000, key=own.key)
    got = {short.serial.lstrip(b"\0")}

    def take(answer):
        got.add(wire.Signer(own.key, answer["chain"]).serial.lstrip(b"\0"))

    with domain.as_kernel("host2", "host0", signer=wire.Signer(own.key, short.chain + registrar.chain),
                          directory=fleet.path, boot=1 << 44) as c:
        for tag in range(1, 5):
            c.post("host0/Registrar", "RENEW", {"public_key": own.public}, kind=wire.CALL, sender="host2/Kernel", tag=tag)
        for tag in range(1, 5):
            try:
                take(c.answer(tag))
            except wire.Failure as e:
                assert e.code == "wrong-state"
        for _ in range(3):
            c.tag += 10
            take(c.call("host0/Registrar", "RENEW", {"public_key": own.public}, sender="host2/Kernel"))
    assert len(got) == 2
    key, cert = wire.joiner().pem(fleet.path, "joiner")
    with domain.client() as c:
        admin = domain.principal("admin")
        text = c.call("host0/Control", "ACT",
                      {"cose": wire.act(admin, "host0", "enroll", "host2", {"replace": True})})["token"]
    raw = text.split(".", 1)[1]
    secret = wire.cbor2.loads(base64.urlsafe_b64decode(raw + "=" * (-len(raw) % 4)))["secret"]
    c = wire.connect_tls(domain.address("host0"), key, cert)
    c.hello(domain=domain.fingerprint.hex())
    fresh = wire.joiner()
    take(c.call("host0/Registrar", "ENROLL", {"name": "host2", "secret": secret, "public_key": fresh.public, "address": ""}))
    c.close()
    with domain.client() as c:
        serials = c.call("host0/Control", "ACT", {"cose": wire.act(admin, "host0", "remove", "host2")})["serials"]
    assert got <= {s.lstrip(b"\0") for s in serials}
    fleet.up()


def test_a_renewal_is_for_whom_the_link_shows_and_for_its_own_key(fleet, domain):
    key, cert = wire.joiner().pem(fleet.path, "joiner")
    c = wire.connect_tls(domain.address("host0"), key, cert)
    c.hello(domain=domain.fingerprint.hex())
    assert wire.failure(c.call, "host0/Registrar", "RENEW", {"public_key": bytes(32)}).code == "denied"
    c.close()
    fleet.tos("down", "host2")
    c = domain.as_kernel("host2", "host0", directory=fleet.path)
    e = wire.failure(c.call, "host0/Registrar", "RENEW", {"public_key": bytes(32)}, sender="host2/Kernel")
    assert e.code == "denied", e
    own = domain.kernel("host2").public
    e = wire.failure(c.call, "host0/Registrar", "RENEW", {"public_key": own}, sender="host2/Kernel")
    assert e.code == "wrong-state", e  # too early
    assert wire.failure(c.call, "host1/Registrar", "RENEW", {"public_key": own}, sender="host2/Kernel").code
    c.close()
    fleet.up()


def test_a_principal_is_renewed_with_its_key_and_revoked_with_all_its_certificates(fleet, domain):
    fleet.tos("principal", "add", "dora", "--role", "owner,author", "--expires", "1h")
    old = domain.principal("dora")
    assert "new certificate" in fleet.tos("principal", "renew", "dora", "--expires", "30d")
    new = domain.principal("dora")
    assert new.serial != old.serial and new.public == old.public
    assert fleet.tos("launch", "-e", "return {1}", "--as", "dora", "--wait")
    fleet.tos("principal", "revoke", "dora")
    with domain.client() as c:
        for who in (old, new):
            e = wire.failure(wire.launch, c, who, who)
            assert e.code == "revoked", e
    r = fleet.run("principal", "renew", "dora")
    assert r.returncode == 3 and "revoked" in r.stderr
    assert fleet.run("principal", "renew", "nobody").returncode == 1


# ---- the audit log, as others remember it

def heads(fleet, kernel):
    db = sqlite3.connect(f"{fleet.home}/kernels/{kernel}/store.db")
    rows = {key[6:].decode(): cbor2.loads(body) for key, body in db.execute("SELECT key, body FROM trust")
            if key.startswith(b"audit|")}
    db.close()
    return rows


def tampered(fleet, kernel, sql, *args):
    """That kernel's store while it is down, changed by somebody who got at the disk."""
    fleet.tos("down", kernel)
    db = sqlite3.connect(f"{fleet.home}/kernels/{kernel}/store.db")
    changed = db.execute(sql, args).rowcount
    db.commit()
    db.close()
    fleet.up()
    return changed


def test_peers_notice_that_an_audit_log_was_cut_off_or_written_anew(fleet, domain):
    fleet.up()
    assert fleet.outcome(fleet.launch("return {1}", "--path", "host1"))["state"] == "finished"
    fleet.tos("down", "host1")
    fleet.up()  # an honest restart changes nothing
    wait_for(lambda: "host1" in heads(fleet, "host0"))
    assert not audit(domain, "host0", "audit-rewritten")
    known = heads(fleet, "host0")["host1"]
    # cut off: what comes instead has the same numbers
    assert tampered(fleet, "host1", "DELETE FROM audit WHERE seq >= ?", known["seq"])
    found = wait_for(lambda: audit(domain, "host0", "audit-rewritten"))[0]
    assert found["kernel"] == "host1" and found["record"] == known["seq"]
    assert fleet.metric("host0", "tos_audit_rewritten_total") == 1
    assert "is not the one that it was" in fleet.log_text("host0")
    assert fleet.run("doctor", "--kernel", "host0").returncode == 1
    # said once; then written anew in the middle
    wait_for(lambda: heads(fleet, "host0")["host1"]["chain"] != known["chain"])
    known = heads(fleet, "host0")["host1"]
    assert tampered(fleet, "host1", "UPDATE audit SET chain = ? WHERE seq = ?", os.urandom(32), known["seq"]) == 1
    wait_for(lambda: len(audit(domain, "host0", "audit-rewritten")) == 2)
    # the kernel itself sees that one, too
    assert fleet.run("doctor", "--kernel", "host1").returncode == 1


# ---- a name that is given to another host: last, for host2 is out then

def test_enroll_replace_revokes_the_certificate_that_the_name_had(fleet, domain):
    old = domain.kernel("host2")
    fleet.up()
    r = fleet.run("enroll", "host2", "--replace")
    assert r.returncode == 0 and "is revoked" in r.stderr and r.stdout.startswith("tos join tos1."), r
    wait_for(lambda: "host2" not in {k["name"] for k in fleet.json("kernels") if k["linked"]})
    fleet.tos("down", "host2")
    with pytest.raises((wire.Closed, OSError)):
        domain.as_kernel("host2", "host0", signer=old, directory=fleet.path)
    r = fleet.run("enroll", "host2", "--replace", "--keep-old")
    assert r.returncode == 0 and "revoked" not in r.stderr
    os.rename(f"{fleet.home}/ca/root.key", f"{fleet.home}/ca/away")
    try:
        r = fleet.run("enroll", "host2", "--replace")
        assert r.returncode == 1 and "--keep-old" in r.stderr and not r.stdout
    finally:
        os.rename(f"{fleet.home}/ca/away", f"{fleet.home}/ca/root.key")
