"""Policy for people: keys made elsewhere."""
import glob
import json
import os
import shutil
import subprocess

import pytest

from conftest import fleet_fixture
from fleet import KERNEL, wait_for

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


# ---- groups and labels

INVENTORY = '''
group "web" { hosts = {"host1", "host0", "host1"} }
group "edge" { hosts = {"@web", "@rack=3"} }
group "gone" { hosts = {"host7"} }
group "empty" { }
host "host1" { labels = {"os=debian", "rack=3"} }
host "host0" { labels = {"os=alpine"} }
'''


@pytest.fixture(scope="module")
def inventory(fleet):
    with open(fleet.home + "/domain.conf", "a") as f:
        f.write(INVENTORY)


def went(fleet, path, *args, expect=0, env=None):
    r = fleet.run("launch", "-e", "return {k = tos.kernel()}", "--path", path, "--wait", "--json", *args, env=env)
    assert r.returncode == expect, (path, r.stdout, r.stderr)
    return [row["k"] for row in json.loads(r.stdout)["briefcase"]["RESULTS"]] if expect == 0 else r.stderr


def audited(fleet, event, kernel="host0", **columns):
    """Rows of that event; denials are written with the next tick."""
    rows = [json.loads(line) for line in fleet.tos("audit", "--json", "--kernel", kernel).splitlines()]
    return [r for r in rows if r["event"] == event and all(r.get(c) == v for c, v in columns.items())]


def test_a_group_is_expanded_into_the_path_at_launch(fleet, inventory):
    assert went(fleet, "@web") == ["host1", "host0"], "each once, in the order given"
    assert went(fleet, "@edge,host0") == ["host1", "host0", "host0"]
    assert went(fleet, "@os=debian") == ["host1"]
    assert went(fleet, "host0,@rack=3") == ["host0", "host1"]
    assert fleet.json("groups", "@edge") == ["host1", "host0"] and fleet.tos("groups", "rack=3") == "host1\n"
    rows = {r["group"]: r for r in fleet.json("groups")}
    assert set(rows) == {"@all", "@web", "@edge", "@gone", "@empty", "@os=debian", "@os=alpine", "@rack=3"}
    assert rows["@web"]["from"] == "domain.conf" and rows["@empty"]["hosts"] == []
    assert fleet.tos("groups", "--names").split() == list(rows)


def test_a_group_that_there_is_not_is_named_with_near_ones(fleet, inventory):
    said = went(fleet, "@wev", expect=1)
    assert "no group @wev" in said and "is it @web?" in said and "@os=debian" in said
    assert "is it @os=debian?" in went(fleet, "@os=debain", expect=1)
    assert "nobody is in the group @empty" in went(fleet, "@empty", expect=1)
    assert "no kernel is known by the name host7" in went(fleet, "@gone", expect=1)
    assert "no group" in went(fleet, "@web|host1", expect=1)
    assert fleet.run("groups", "@nosuch").returncode == 1


def test_other_hosts_take_what_was_published(fleet, inventory, tmp_path):
    assert "4 groups and labels of 2 hosts" in fleet.tos("groups", "publish")
    # another machine: a TOS_HOME with the same kernels, a key, and no groups of its own
    home = tmp_path / "there"
    home.mkdir()
    for name in ("kernels", "keys", "ca"):
        (home / name).symlink_to(f"{fleet.home}/{name}")
    (home / "domain.conf").write_text('principal = "admin"\nkernel = "host1"\n')
    env = dict(fleet.env, TOS_HOME=str(home))
    assert went(fleet, "@web", "--kernel", "host1", env=env) == ["host1", "host0"]
    r = fleet.run("groups", "--json", env=env)
    assert {g["from"] for g in json.loads(r.stdout)} == {"Directory", "registrar host0"}, r.stdout
    # the registrar is away: what it said last
    fleet.tos("down", "host0", timeout=120)
    # (it is written with the next tick)
    wait_for(lambda: fleet.run("groups", "@web", "--kernel", "host1", env=env).stdout == "host1\nhost0\n", text="what it said last")
    fleet.tos("up", timeout=120)
    # who is no admin publishes nothing
    fleet.tos("principal", "add", "walter")
    r = fleet.run("groups", "publish", "--as", "walter")
    assert r.returncode == 3 and "walter may not set groups" in r.stderr, r.stderr
    wait_for(lambda: audited(fleet, "groups-published", by="admin"))
    wait_for(lambda: audited(fleet, "act-refused", by="walter", act="groups"))


@pytest.mark.parametrize("text, said", [
    ('group "a" { hosts = {"@b"} }\ngroup "b" { hosts = {"@a"} }\n', "within itself"),
    ('group "a" { hosts = {"@nowhere"} }\n', "names @nowhere, which there is not"),
    ('group "all" { hosts = {"host0"} }\n', "no name for a group"),
    ('group "a" { hosts = {"host 0"} }\n', "neither a kernel's name"),
    ('group "a" { hosts = {"x"} }\ngroup "a" { hosts = {"y"} }\n', "domain.conf"),
    ('host "host0" { labels = {"os"} }\n', "no label"),
    ('host "Host0" { labels = {"os=x"} }\n', "no kernel's name"),
    ('group "a" { members = {"x"} }\n', "domain.conf"),
    ('group "' + "a" * 70 + '" { hosts = {"x"} }\n', "no name for a group"),
    ('host "h" { labels = {' + ", ".join(f'"k{i}=v"' for i in range(33)) + "} }\n", "more than 32 labels"),
])
def test_a_broken_inventory_is_refused_with_the_reason(fleet, tmp_path, text, said):
    home = tmp_path / "h"
    home.mkdir()
    for name in ("kernels", "keys"):
        (home / name).symlink_to(f"{fleet.home}/{name}")
    (home / "domain.conf").write_text('principal = "admin"\nkernel = "host0"\n' + text)
    r = fleet.run("groups", env=dict(fleet.env, TOS_HOME=str(home)))
    assert r.returncode == 1 and said in r.stderr, r.stderr


def test_what_tos_writes_into_domain_conf_leaves_the_groups(fleet, elsewhere):
    elsewhere("principal", "request", "nora")
    path = elsewhere.home() + "/domain.conf"
    with open(path, "w") as f:
        f.write('# mine\ngroup "web" { hosts = {"host1"} }\n')
    fleet.tos("principal", "sign", elsewhere.home() + "/keys/nora/request")
    elsewhere("principal", "import", fleet.home + "/keys/nora/cert")
    with open(path) as f:
        text = f.read()
    assert 'principal = "nora"' in text and '# mine\ngroup "web"' in text
