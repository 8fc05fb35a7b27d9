"""Every carrier of tests/hostile is stopped by what its head names, within the time that it names, and nobody else is.

The head of each file:  -- stopped by: WHAT [or WHAT...]   -- limits: NAME=VALUE...   -- within: N s
WHAT is "limit NAME": it is faulted, and the fault names that limit; "error TEXT|TEXT...": it is faulted with one of these
texts; "launch TEXT": it is not even sent; "refusal CODE": it finishes, and its folder STOPPED holds this code (*: any).
"""
import glob
import json
import os
import re
import time

import pytest

from conftest import fleet_fixture
from fleet import DEADLINE, KERNEL, QUICK, SANITIZED, wait_for

pytestmark = pytest.mark.skipif(not os.path.exists(KERNEL), reason="TOS_BUILD names no build with tos-kernel")
FOLDER = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "hostile")
AT_ONCE = 12
SLOWER = 4 if SANITIZED else 1
fleet = fleet_fixture(n=1, conf=QUICK)


def heads():
    """name -> (what may stop it, its limits, seconds)"""
    found = {}
    for path in sorted(glob.glob(os.path.join(FOLDER, "*.lua"))):
        with open(path) as f:
            head = dict(re.findall(r"^-- (stopped by|limits|within): (.*)$", f.read(), re.M))
        name = os.path.basename(path)[:-4]
        assert {"stopped by", "within"} <= set(head), f"{name}: its head does not say what stops it"
        found[name] = (head["stopped by"].split(" or "), head.get("limits", "").split(), int(head["within"].split()[0]))
    return found


def stopped_by(shown, what):
    """Whether this is what stopped it; shown is what tos show says of it."""
    kind, _, word = what.partition(" ")
    fault = (shown.get("fault") or {}).get("text", "")
    if kind == "limit" and word == "lifetime":
        return shown["state"] == "killed" and any("lifetime" in str(line) for line in shown["trail"])
    if kind == "limit":
        memory = word == "memory" and "not enough memory" in fault
        return shown["state"] == "faulted" and (f"limit {word}" in fault or memory)
    if kind == "error":
        return shown["state"] == "faulted" and (not word or any(w in fault for w in word.split("|")))
    codes = (shown.get("briefcase") or {}).get("STOPPED", [])
    return shown["state"] == "finished" and bool(codes) and word in ("*", codes[0])


def run_group(fleet, group, hostile):
    began, names, wrong = {}, {}, []
    for name in group:
        limits = [arg for limit in hostile[name][1] for arg in ("--limit", limit)]
        began[name] = time.monotonic()
        r = fleet.run("launch", os.path.join(FOLDER, name + ".lua"), "--path", "host0", "--itinerant", *limits)
        kind, _, word = hostile[name][0][0].partition(" ")
        if (kind == "launch") != (r.returncode != 0) or (kind == "launch" and word not in r.stderr):
            wrong.append((name, r.returncode, r.stdout, r.stderr))
        elif r.returncode == 0:
            names[name] = r.stdout.split()[0]
    # A carrier of the same owner and author, and so perhaps of the same process, goes on meanwhile.
    good = fleet.launch('for i = 1, 5 do assert(tos.call("Echo", i, 20) == i) tos.sleep(0.05) end return 5', "--path", "host0")
    assert fleet.outcome(good)["state"] == "finished"
    left = dict(names)
    while left:
        for name, carrier in list(left.items()):
            shown, took = fleet.show(carrier), time.monotonic() - began[name]
            if shown and shown["state"] in ("faulted", "finished", "killed"):
                del left[name]
                if shown["state"] != "faulted":
                    shown = json.loads(fleet.run("wait", carrier, "--json").stdout)
                if not any(stopped_by(shown, w) for w in hostile[name][0]):
                    wrong.append((name, shown["state"], shown.get("fault"), (shown.get("briefcase") or {}).get("STOPPED")))
                if shown["state"] == "faulted":
                    fleet.run("kill", carrier)
            elif took > hostile[name][2] * SLOWER * (len(os.sched_getaffinity(0)) < AT_ONCE and 2 or 1):
                del left[name]
                wrong.append((name, "still " + (shown or {}).get("state", "?"), f"after {took:.0f} s"))
                fleet.run("kill", carrier)
        time.sleep(0.05)
    return wrong


def test_each_is_stopped_by_what_its_head_names(fleet):
    hostile, wrong = heads(), []
    kernel = fleet.pid("host0", "tos-kernel")
    names = list(hostile)
    only = os.environ.get("TOS_HOSTILE")
    if only:
        names = [n for n in names if re.match(only, n)]
    if SANITIZED and not only:
        names = names[::3]  # all of them would take minutes
    # Mixed, so that loops and what finishes at once share a group.
    for i in range(0, len(names), AT_ONCE):
        wrong += run_group(fleet, names[i:i + AT_ONCE], hostile)
    assert not wrong, "\n".join(map(str, wrong))
    assert fleet.pid("host0", "tos-kernel") == kernel, "tos-kernel went down"
    wait_for(lambda: not fleet.ps("host0") or all(r["state"] in ("finished", "killed") for r in fleet.ps("host0").values()), DEADLINE)
