"""Each host's own policy: rules, limits, extensions; what a kernel says about itself."""
import json
import os
import shutil
import subprocess

import pytest

import wire
from conftest import fleet_fixture
from fleet import BUILD, KERNEL, wait_for

HOOK = os.path.join(BUILD, "tests/proc/ext/hook.so")

pytestmark = pytest.mark.skipif(not os.path.exists(KERNEL), reason="TOS_BUILD names no build with tos-kernel")


def policy(*more):
    return "policy { rules = {" + ", ".join(f'"{r}"' for r in more) + "} }\n"


EXTENSIONS = "".join(f'extension "{n}" {{ library = "{n.lower()}" where = "kernel" }}\n'
                     for n in ("Echo", "Mobility", "Messenger", "Directory"))

fleet = fleet_fixture(n=5, each={
    "host0": policy("allow carrier-of:vera put Content", "allow carrier-of:vera run /usr/bin/*", "allow carrier-of:bob put Content"),
    "host1": policy("deny carrier-of:alice arrive *", "deny class:carrier post Echo"),
    "host2": 'limits { cpu = "5s" memory = "16M" posts = "10" hops = "3" }\n'
             + policy("deny author:otto * *", "allow author:otto arrive *", "allow author:otto post Directory"),
    "host3": 'extension "Echo" { library = "echo" where = "kernel" }\n',
    "host4": EXTENSIONS + f'extension "Hook" {{ library = "{HOOK}" where = "kernel" }}\n',
})


@pytest.fixture(scope="module")
def domain(fleet):
    fleet.tos("principal", "add", "alice", "--role", "owner,author")
    fleet.tos("principal", "add", "bob", "--role", "owner,author")
    return wire.Domain(fleet.home)


def visited(o):
    return [r["k"] for r in o["briefcase"].get("RESULTS", [])]


def go(fleet, who, path, *args, lua="return {k = tos.kernel()}"):
    r = fleet.run("launch", "-e", lua, "--path", path, "--as", who, "--wait", "--json", *args)
    return json.loads(r.stdout)


def test_a_role_denied_at_one_host_runs_at_the_others(fleet, domain):
    o = go(fleet, "alice", "host0,host1,host2", "--on-unreachable", "skip")
    assert "host1" not in visited(o) and visited(o)[0] == "host0"
    trail = str(o["trail"]) + str(o["fault"])
    assert "denied" in trail and "host1" in trail
    assert visited(go(fleet, "bob", "host0,host1,host2")) == ["host0", "host1", "host2"]
    assert any(r["event"] == "denied" and r["principal"] == "alice" and r["action"] == "arrive"
               for r in audit(domain, "host1"))


def test_rules_for_an_author_narrow_what_the_owner_may(fleet, domain):
    fleet.tos("principal", "add", "otto", "--role", "author")
    lua = """local function try(inbox) return select(2, tos.call(inbox, {'x'}, 5)) or 'ok' end
             return {echo = try('Echo'), directory = try('Directory')}"""
    (row,) = go(fleet, "bob", "host2", lua=lua)["briefcase"]["RESULTS"]
    assert (row["echo"], row["directory"]) == ("ok", "malformed"), "bob's own code"
    (row,) = go(fleet, "bob", "host2", "--author", "otto", lua=lua)["briefcase"]["RESULTS"]
    assert (row["echo"], row["directory"]) == ("denied", "malformed"), "otto's, whoever launched it"
    assert can(fleet, "carrier-of:bob", "post", "Echo", "--author", "otto", "--kernel", "host2",
               expect=3)["rules"][0]["rule"] == "deny author:otto * *"
    assert can(fleet, "carrier-of:bob", "post", "Directory", "--author", "otto", "--kernel", "host2")["allowed"]
    # an author's rule grants nothing: alice may not arrive at host1, whoever wrote it
    assert not can(fleet, "carrier-of:alice", "arrive", "--author", "otto", "--kernel", "host1", expect=3)["allowed"]
    # and launching at a host that wants none of his code is refused there
    r = fleet.run("launch", "-e", "return 1", "--as", "bob", "--author", "otto", "--kernel", "host2")
    assert r.returncode == 3 and "deny author:otto" in r.stderr, r.stderr


ASKS = """local function try(verb, args) return select(2, tos.call("Content", args, 10, { name = verb })) or "ok" end
    return { stat = try("STAT", {}), put = try("PUT", { digest = ("7"):rep(64), offset = 0, size = 9, bytes = "x" }),
        echo = select(2, tos.call("Echo", { "x" }, 5)) or "ok", away = select(2, tos.call("host3/Echo", { "x" }, 5)) or "ok" }"""


def said(fleet, who, *args):
    (row,) = go(fleet, who, "host0", *args, lua=ASKS)["briefcase"]["RESULTS"]
    return {k: row[k] for k in ("stat", "put", "echo", "away")}


def test_a_certificate_narrows_what_hosts_grant_and_grants_nothing(fleet, domain):
    """The host grants vera's carriers to put and to run; her certificate says read only: the intersection counts."""
    all_of_it = {"stat": "ok", "put": "ok", "echo": "ok", "away": "ok"}
    fleet.tos("principal", "add", "vera", "--role", "owner,author")
    assert said(fleet, "vera") == all_of_it
    fleet.tos("principal", "add", "vera", "--role", "owner,author", "--replace",
              "--restrict", "allow launch,arrive,post,read,run *", "--restrict", "deny post Echo", "--restrict", "allow read Registrar")
    assert said(fleet, "vera") == {"stat": "ok", "put": "denied", "echo": "denied", "away": "denied"}
    # What the certificate allows the host need not: nobody granted that.
    assert not can(fleet, "carrier-of:vera", "run", "/opt/x", expect=3)["allowed"]
    assert can(fleet, "carrier-of:vera", "run", "/usr/bin/ls")["allowed"]
    no = can(fleet, "carrier-of:vera", "put", "Content", expect=3)
    assert no["rules"][0]["rule"] == "allow carrier-of:vera put Content" and no["why"].endswith("a certificate does not")
    assert no["restrictions"] == [{"of": "vera", "allows": False, "restriction": "no restriction in the certificate of vera allows it"}]
    assert "- certificate of vera: deny post Echo\n" in fleet.tos("can", "carrier-of:vera", "post", "Echo", expect=3)
    wait_for(lambda: any(r["event"] == "denied" and r["principal"] == "vera" and r["action"] == "put" and
                         "certificate of vera" in r["rule"] for r in audit(domain, "host0")))
    # In person, too: she may not kill her own carrier any more.
    name = fleet.tos("launch", "-e", "tos.sleep(60)", "--as", "vera").split()[0]
    r = fleet.run("kill", name, "--as", "vera")
    assert r.returncode == 3 and "certificate of vera" in r.stderr
    fleet.tos("kill", name)


def test_the_authors_certificate_narrows_whoever_launches_its_code(fleet, domain):
    fleet.tos("principal", "add", "zoe", "--role", "author", "--restrict", "allow * *", "--restrict", "deny put *",
              "--restrict", "deny post Echo")
    assert said(fleet, "bob") == {"stat": "ok", "put": "ok", "echo": "ok", "away": "ok"}
    assert said(fleet, "bob", "--author", "zoe") == {"stat": "ok", "put": "denied", "echo": "denied", "away": "denied"}
    no = can(fleet, "carrier-of:bob", "put", "Content", "--author", "zoe", expect=3)
    assert [r["restriction"] for r in no["restrictions"]] == ["certificate of zoe: deny put *"]


def test_restrictions_are_shown_and_renewed_and_mistakes_are_not_signed(fleet, domain):
    rules = ["allow launch,arrive,post *", "deny post host9/x"]
    fleet.tos("principal", "add", "yves", *[w for r in rules for w in ("--restrict", r)])
    fleet.tos("principal", "renew", "yves", "--expires", "30d")
    assert [p["only"] for p in fleet.json("principal", "list") if p["name"] == "yves"] == [rules]
    assert f"restricted  {rules[0]}\n            {rules[1]}\n" in fleet.tos("principal", "show", "yves")
    for bad in ("allow teleport *", "post *", "allow post a b", "x" * 600):
        r = fleet.run("principal", "add", "xaver", "--restrict", bad)
        assert r.returncode == 2 and "--restrict: " in r.stderr or "at most" in r.stderr, r.stderr


@pytest.mark.parametrize("only, why", [
    ("tos:only:allow%20teleport%20*", "is not understood"),
    ("tos:only:allow%20*%20*%20*", "is not understood"),
])
def test_what_a_certificate_says_in_words_of_a_later_version_allows_nothing(fleet, domain, only, why):
    s = wire.issue("wanda", ["tos:principal:wanda", "tos:role:owner", "tos:role:author", "tos:only:allow%20*%20*", only], domain.root)
    with domain.client() as c:
        e = wire.failure(wire.launch, c, s, s)
    assert e.code == "denied" and why in str(e), e
    wait_for(lambda: any(r["event"] == "denied" and r["principal"] == "wanda" and why in r["rule"] for r in audit(domain, "host0")))


@pytest.mark.parametrize("only", ["tos:only:", "tos:only:allow * *", "tos:only:%61", "tos:only:%2a", "tos:only:a%0Ab", "tos:only:a%"])
def test_a_malformed_restriction_makes_no_certificate(fleet, domain, only):
    s = wire.issue("wanda", ["tos:principal:wanda", "tos:role:owner", "tos:role:author", only], domain.root)
    with domain.client() as c:
        e = wire.failure(wire.launch, c, s, s)
    assert e.code == "malformed" and "bad certificate" in str(e), e


def can(fleet, *args, expect=0):
    r = fleet.run("can", *args, "--json")
    assert r.returncode == expect, (args, r.stdout, r.stderr)
    return json.loads(r.stdout) if r.stdout else r.stderr


def test_can_says_which_rule_decides_and_where_it_stands(fleet, domain):
    path = f"{fleet.home}/kernels/host1/tosd.conf"
    with open(path) as f:
        line = next(i for i, text in enumerate(f, 1) if "deny carrier-of:alice" in text)
    said = can(fleet, "alice", "arrive", "--kernel", "host1", expect=3)
    assert not said["allowed"] and said["kernel"] == "host1"
    assert said["rules"][0] == {"rule": "deny carrier-of:alice arrive *", "at": f"{path}:{line}"}
    assert {"rule": "allow role:owner arrive *", "at": "default"} in said["rules"]
    assert can(fleet, "bob", "arrive", "--kernel", "host1")["rules"][0]["rule"] == "allow role:owner arrive *"
    assert can(fleet, "alice", "arrive", "--kernel", "host0")["allowed"]
    assert can(fleet, "carrier-of:bob", "post", "Echo", "--kernel", "host1", expect=3)["rules"][0]["at"] == f"{path}:{line}"
    # what a class may never do, and what nobody has spoken of
    assert "takes nothing from a carrier" in can(fleet, "carrier-of:bob", "post", "Handoff", expect=3)["why"]
    assert "no rule" in can(fleet, "bob", "declare", "host1", expect=3)["why"]
    # its own carriers and those of others, whose owner the home knows
    name = fleet.tos("launch", "-e", "tos.sleep(60)", "--as", "alice").split()[0]
    assert can(fleet, "alice", "kill", name)["rules"][0]["rule"] == "allow role:owner kill own"
    can(fleet, "bob", "kill", name, expect=3)
    can(fleet, "bob", "kill", "host9#1", "--owner", "bob")
    fleet.tos("kill", name, "--as", "alice")
    # roles without a certificate, and words that there are not
    assert "--role" in fleet.run("can", "nobody", "launch").stderr
    can(fleet, "nobody", "launch", "--role", "owner")
    can(fleet, "nobody", "launch", "--role", "officer", expect=3)
    r = fleet.run("can", "alice", "jump")
    assert r.returncode == 1 and "'jump' is no action; there are post, launch" in r.stderr, r.stderr
    assert fleet.run("can", "what:alice", "post", "Echo").returncode == 1
    text = fleet.tos("can", "alice", "arrive", "--kernel", "host1", expect=3)
    assert text.startswith("denied at host1: ") and f"* deny carrier-of:alice arrive *    ({path}:{line})" in text


def test_a_rule_of_the_hosts_own_adds_to_the_defaults(fleet, domain):
    lua = """local function try(inbox) return select(2, tos.call(inbox, {'x'}, 5)) or 'ok' end
             return {k = tos.kernel(), echo = try('Echo'), directory = try('Directory')}"""
    (a, b) = go(fleet, "bob", "host0,host1", lua=lua)["briefcase"]["RESULTS"]
    assert a["echo"] == "ok" and b["echo"] == "denied"
    assert a["directory"] == b["directory"] == "malformed"  # it was asked, and did not understand
    r = subprocess.run([os.path.join(BUILD, "src/tosd/tosd"), "-t", "-c", f"{fleet.home}/kernels/host1/tosd.conf"],
                       capture_output=True, text=True, timeout=60)
    assert '\t\t"deny class:carrier post Echo"' in r.stdout and "#\tallow class:carrier post Echo" in r.stdout, r.stdout


def audit(domain, kernel):
    with domain.client(kernel) as c:
        return c.call(f"{kernel}/Control", "AUDIT", {"after": 0, "most": 1000})


def test_limits_are_the_least_of_ticket_and_host(fleet, domain):
    o = go(fleet, "bob", "host0,host2", "--limit", "cpu=8", "--limit", "memory=64M",
           lua="local l = tos.limits() return {k = tos.kernel(), cpu = l.cpu, memory = l.memory, posts = l.posts}")
    a, b = o["briefcase"]["RESULTS"]
    assert a["memory"] == 64 << 20 and b["memory"] == 16 << 20
    assert b["posts"] == 10 and a["posts"] > 10
    assert a["cpu"] in (8, 8000) and b["cpu"] in (5, 5000)


def test_a_carrier_that_needs_more_than_is_granted_is_not_sent(fleet, domain):
    bob = domain.principal("bob")
    with domain.client() as c:
        given = c.call("host0/Control", "NAME", {})
        code = wire.bundle(bob, "function begin(self) tos.briefcase:folder('N'):push(tos.kernel()) end\n",
                           limits={"memory": 32 << 20})
        t = wire.ticket(given["name"], given["nonce"], code, path=["host0", "host2"])
        t["options"]["on-unreachable"] = "fail"
        c.call("host0/Control", "LAUNCH", {"ticket": wire.sign(bob, "ticket", t), "code": code})
    wait_for(lambda: fleet.state(given["name"]) in ("faulted", "finished"))
    shown = fleet.show(given["name"])
    assert "limit memory" in str(shown["fault"]) + str(shown["trail"]) and "host2" in str(shown["fault"]) + str(shown["trail"])
    assert not any(r["event"] in ("arrived", "arrival-refused") and r.get("carrier") == given["name"]
                   for r in audit(domain, "host2"))
    # and a ticket that gives less than the code needs is not launched at all
    with domain.client() as c:
        given = c.call("host0/Control", "NAME", {})
        t = wire.ticket(given["name"], given["nonce"], code, limits={**wire.LIMITS, "memory": 1 << 20})
        e = wire.failure(c.call, "host0/Control", "LAUNCH", {"ticket": wire.sign(bob, "ticket", t), "code": code})
        assert e.code == "limit" and "memory" in e.text


def test_a_kernel_without_mobility_lets_no_carrier_in(fleet, domain):
    o = go(fleet, "bob", "host0,host3", "--on-unreachable", "fail")
    assert visited(o) == ["host0"]
    assert "host3" in str(o["fault"]) + str(o["trail"])
    assert "mobility" in fleet.log_text("host3")
    assert not any(r["event"] == "arrived" for r in audit(domain, "host3"))
    with domain.client("host3") as c:
        assert c.call("host3/Echo", "x", 1) is not None


def test_properties_have_type_unit_and_help_below_their_path(fleet):
    rows = fleet.json("get", "/", "--kernel", "host2")
    paths = {r["path"]: r for r in rows}
    assert len(paths) == len(rows) > 10
    assert any(p.startswith("/Mobility") for p in paths) and all(p.startswith("/") for p in paths)
    for r in rows:
        assert r["type"] and r["doc"], r
    below = fleet.json("get", "/Mobility", "--kernel", "host2")
    assert below and {r["path"] for r in below} == {p for p in paths if p.startswith("/Mobility")}
    assert not any(p.startswith("/Mobility") for p in fleet.get("host3", "/"))


def test_metrics_are_what_prometheus_reads(fleet):
    if not shutil.which("promtool"):
        pytest.skip("promtool is not installed")
    for kernel in fleet.names:
        text = fleet.tos("metrics", "--kernel", kernel)
        r = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, text=True, timeout=30)
        # it would rather have seconds than the units that are counted
        assert [x for x in r.stderr.splitlines() if "abbreviated units" not in x] == [], r.stdout + r.stderr


def test_a_hook_inspects_changes_and_refuses_carriers_before_they_run(fleet, domain):
    bob = domain.principal("bob")
    files = {"main.lua": b"""function begin(self)
	local what = require 'what'
	tos.briefcase:folder('RESULTS'):push { k = tos.kernel(), what = what }
end
""", "what.lua": b"return 'as signed'\n"}
    with domain.client() as c:
        given = c.call("host0/Control", "NAME", {})
        code = wire.bundle(bob, files=files)
        t = wire.ticket(given["name"], given["nonce"], code, path=["host4", "nowhere", "host0"])
        c.call("host0/Control", "LAUNCH", {"ticket": wire.sign(bob, "ticket", t), "code": code})
    o = fleet.outcome(given["name"])
    assert o["state"] == "finished", o
    # the file was replaced for that stay only, the folder stays, the entry is gone
    assert o["briefcase"]["RESULTS"] == [{"k": "host4", "what": "replaced"}, {"k": "host0", "what": "as signed"}]
    assert o["briefcase"]["HOOK"] == ["was here"]
    # one that it does not like is refused before anything of it runs
    r = fleet.run("launch", "-e", "return {k = tos.kernel()}", "--path", "host0,host4", "--data", "REFUSE=1",
                  "--on-unreachable", "fail", "--wait", "--json")
    o = json.loads(r.stdout)
    assert visited(o) == ["host0"] and "the hook does not like it" in str(o["trail"]) + str(o["fault"])
    # and nobody but the kernel posts to it
    assert "denied" in fleet.run("post", "host4/Hook", "ARRIVAL", "--kernel", "host4").stderr or \
        fleet.metric("host4", "tos_denied_total") > 0
