"""Policy for people: keys made elsewhere."""
import glob
import json
import os
import shutil
import subprocess

import pytest

from conftest import fleet_fixture
from fleet import KERNEL

pytestmark = pytest.mark.skipif(not os.path.exists(KERNEL), reason="TOS_BUILD names no build with tos-kernel")

fleet = fleet_fixture(n=2)


# ---- keys made elsewhere

@pytest.fixture
def elsewhere(fleet, tmp_path):
    """The tos command on another machine: a TOS_HOME of its own, without a domain."""

    def run(*args, expect=0, home="olga", **env):
        r = fleet.run(*args, env=dict(fleet.env, TOS_HOME=str(tmp_path / home), **env))
        assert r.returncode == expect, (args, r.stdout, r.stderr)
        return json.loads(r.stdout) if "--json" in args else r.stdout + r.stderr

    run.home = lambda home="olga": str(tmp_path / home)
    return run


def test_an_officers_key_never_leaves_the_officers_machine(fleet, elsewhere):
    asked = elsewhere("principal", "request", "olga", "--role", "officer", "--json")
    assert asked["roles"] == ["officer"] and asked["file"].endswith("keys/olga/request")
    again = elsewhere("principal", "request", "olga", "--role", "officer", "--json")
    assert again["fingerprint"] == asked["fingerprint"], "another try has the same key"
    signed = fleet.json("principal", "sign", asked["file"], "--fingerprint", asked["fingerprint"][:20])
    assert signed["fingerprint"] == asked["fingerprint"] and signed["roles"] == ["officer"]
    with open(signed["file"]) as f:
        first = f.read()
    fleet.tos("principal", "sign", asked["file"])
    with open(signed["file"]) as f:
        assert f.read() == first, "signed once"
    got = elsewhere("principal", "import", signed["file"], "--json")
    assert got["name"] == "olga" and not os.path.exists(asked["file"])
    # the administrator's machine has the certificate and no key, and says so
    assert sorted(os.listdir(f"{fleet.home}/keys/olga")) == ["cert"]
    (row,) = [p for p in fleet.json("principal", "list") if p["name"] == "olga"]
    assert row["roles"] == ["officer"] and row["key"] is False
    with open(elsewhere.home() + "/keys/olga/key") as f:
        key = f.read()
    for path in glob.glob(fleet.home + "/**", recursive=True):
        if os.path.isfile(path) and not path.endswith(("store.db", "-wal", "-shm")):
            with open(path, "rb") as f:
                assert key.encode().splitlines()[1] not in f.read(), path


def test_a_key_made_elsewhere_launches_here_and_is_renewed_and_revoked(fleet, elsewhere):
    asked = elsewhere("principal", "request", "vera", "--json", TOS_PASSPHRASE="only vera")
    signed = fleet.json("principal", "sign", asked["file"], "--role", "owner", "--role", "author")
    assert "passphrase" in elsewhere("principal", "import", signed["file"], expect=3, TOS_PASSPHRASE="a guess")
    assert "passphrase" in elsewhere("principal", "import", signed["file"], expect=3)
    elsewhere("principal", "import", signed["file"], TOS_PASSPHRASE="only vera")
    # vera works at a kernel of the domain that is on her machine
    shutil.copytree(elsewhere.home() + "/keys/vera", fleet.home + "/keys/vera", dirs_exist_ok=True)
    env = dict(fleet.env, TOS_PASSPHRASE="only vera")
    r = fleet.run("launch", "-e", "return tos.kernel()", "--as", "vera", "--wait", "--json", env=env)
    assert r.returncode == 0 and json.loads(r.stdout)["state"] == "finished", r.stderr
    os.unlink(fleet.home + "/keys/vera/key")
    fleet.tos("principal", "renew", "vera")
    elsewhere("principal", "import", fleet.home + "/keys/vera/cert", TOS_PASSPHRASE="only vera")
    fleet.tos("principal", "revoke", "vera")
    shutil.copytree(elsewhere.home() + "/keys/vera", fleet.home + "/keys/vera", dirs_exist_ok=True)
    r = fleet.run("launch", "-e", "return 1", "--as", "vera", env=env)
    assert r.returncode != 0 and "revoked" in r.stderr, r.stderr


def test_what_is_wrong_with_a_request_is_said(fleet, elsewhere, tmp_path):
    asked = elsewhere("principal", "request", "otto", "--role", "officer", "--json")
    other = elsewhere("principal", "request", "otto", "--role", "officer", "--json", home="mallory")

    def sign(*args, expect=1):
        r = fleet.run("principal", "sign", *args)
        assert r.returncode == expect, (args, r.stdout, r.stderr)
        return r.stderr

    assert asked["fingerprint"] in sign(asked["file"], "--fingerprint", other["fingerprint"], expect=3)
    sign(asked["file"], "--fingerprint", "12", expect=2)
    assert "no signing request" in sign(fleet.home + "/domain.conf")
    assert "not a signing request" in sign(fleet.home + "/keys/admin/cert")
    with open(asked["file"]) as f:
        text = f.read().splitlines()
    flipped = text[:]
    flipped[-2] = ("A" if flipped[-2][0] != "A" else "B") + flipped[-2][1:]
    (tmp_path / "flipped").write_text("\n".join(flipped) + "\n")
    r = fleet.run("principal", "sign", tmp_path / "flipped")
    assert r.returncode and ("bad signing request" in r.stderr or "not signed by the key" in r.stderr), r.stderr
    sign(asked["file"], expect=0)
    assert "--replace" in sign(other["file"])  # the name is taken by another key
    assert "another key" in elsewhere("principal", "import", fleet.home + "/keys/otto/cert", home="mallory", expect=3)
    # a lost key: a new request in its place, and what the old one signed is worth nothing
    sign(other["file"], "--replace", expect=0)
    elsewhere("principal", "import", fleet.home + "/keys/otto/cert", home="mallory")
    assert "another key" in elsewhere("principal", "import", fleet.home + "/keys/otto/cert", expect=3)
    assert "request" in elsewhere("principal", "import", fleet.home + "/keys/otto/cert", home="nobody", expect=1)
    # an officer's key is not made where the root key is, unless that is said
    assert "principal request" in fleet.run("principal", "add", "oscar", "--role", "officer").stderr
    fleet.tos("principal", "add", "oscar", "--role", "officer", "--here")


def test_a_request_that_openssl_made_is_signed_too(fleet, tmp_path):
    if not shutil.which("openssl"):
        pytest.skip("no openssl")
    key, req = tmp_path / "key", tmp_path / "req"
    subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", key], check=True)

    def request(names):
        subprocess.run(["openssl", "req", "-new", "-key", key, "-out", req, "-subj", "/CN=hsm", "-addext",
                        "subjectAltName=" + names], check=True, capture_output=True)
        return fleet.run("principal", "sign", req, "--json")

    for names in ("URI:tos:kernel:hsm", "URI:tos:root", "URI:tos:principal:admin,URI:tos:role:officer",
                  "URI:tos:principal:hsm", "URI:tos:principal:hsm,URI:tos:role:king", "DNS:hsm"):
        r = request(names)
        assert r.returncode == 1 and "bad signing request" in r.stderr, (names, r.stderr)
    r = request("URI:tos:principal:hsm,URI:tos:role:officer")
    assert r.returncode == 0 and json.loads(r.stdout)["roles"] == ["officer"], r.stderr
