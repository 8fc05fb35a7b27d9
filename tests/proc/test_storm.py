"""A storm: five kernels, carriers with many hops, kernels killed about every second, cables pulled at random. Afterwards
a checker (checker.py) reads what every kernel has written down.

make test: 150 carriers x 10 hops plain, 30 x 6 in the sanitizer build, which is several times slower. TOS_SOAK=1:
500 x 20, or as many as are launched within TOS_SOAK_SECONDS, and up to 1,000 cuts. TOS_SEED repeats a storm as far as chance decides it.
"""
import json
import os
import random
import threading
import time

import pytest

import checker
from fleet import KERNEL, NOTE, REST_S, SANITIZED, come_to_rest, wait_for
from storm import Storm

pytestmark = pytest.mark.skipif(not os.path.exists(KERNEL), reason="TOS_BUILD names no build with tos-kernel")
SOAK = os.environ.get("TOS_SOAK") == "1"
SECONDS = float(os.environ.get("TOS_SOAK_SECONDS", 600)) if SOAK else 0
CARRIERS, HOPS, CUTS = (500, 20, min(1000, int(2 * SECONDS))) if SOAK else (30, 6, 20) if SANITIZED else (150, 10, 100)
DEADLINE = SECONDS + 600 if SOAK else 240
SEED = int(os.environ.get("TOS_SEED", time.time_ns() % 100000))
LUA = f"function begin(self) self.n = (self.n or 0) + 1; {NOTE}; tos.sleep(0.02) end"


def launch(storm, rng, paths):
    """A walk over all kernels, from host0. A launch that could not be said is said again."""
    home = storm.kernels[0]
    path = []
    while len(path) < HOPS:
        path.append(rng.choice([k.name for k in storm.kernels if not path or k.name != path[-1]]))

    def launched():
        r = home.run("launch", "carrier.lua", "--path", ",".join(path), "--on-unreachable", "wait=1h", "--limit", "hops=200")
        assert r.returncode == 0 or "is running" in r.stderr or "closed the connection" in r.stderr, r.stderr
        return r.stdout.strip()

    paths[wait_for(launched, DEADLINE, "host0 takes a launch")] = path


def outcomes_of(storm, names):
    """Those that are there; asks once."""
    rows = storm.kernels[0].run("ps", "--json", "--kernel", "host0")
    if rows.returncode != 0:
        return {}
    return {r["name"]: r["state"] for r in json.loads(rows.stdout) if r["name"] in names}


def test_a_storm_loses_and_doubles_no_carrier():
    rng = random.Random(SEED)
    print(f"seed {SEED}: {CARRIERS} carriers x {HOPS} hops")
    with Storm(5) as storm:
        with open(os.path.join(storm.kernels[0].dir, "carrier.lua"), "w") as f:
            f.write(LUA)
        paths, failed, all_out, done = {}, [], threading.Event(), threading.Event()
        last_launch = time.monotonic() + SECONDS

        def launches():
            try:
                for _ in range(CARRIERS):
                    if SOAK and time.monotonic() > last_launch:
                        break
                    launch(storm, rng, paths)
                all_out.set()
            except BaseException as e:  # the test says it
                failed.append(e)

        def watch():
            end = time.monotonic() + DEADLINE
            while time.monotonic() < end and not failed:
                states = outcomes_of(storm, paths)
                if all_out.is_set() and len(states) == len(paths) and all(s == "finished" for s in states.values()):
                    break
                time.sleep(0.5)
            done.set()

        threads = [threading.Thread(target=t) for t in (launches, watch)]
        begun = time.monotonic()
        for t in threads:
            t.start()
        storm.rage(done.is_set, SEED, 1.0, 0.35, 0 if failed or not storm.spaces else CUTS)
        for t in threads:
            t.join()
        took = time.monotonic() - begun
        assert not failed, failed
        kills = sum(k.kills for k in storm.kernels)
        print(f"{took:.0f} s, {len(paths)} of {CARRIERS} carriers, {kills} kernels killed, {storm.cuts} links cut")
        storm.linked()
        outcomes = {}
        for name in paths:
            r = storm.kernels[0].run("wait", name, "--json", "--timeout", "10s")
            if r.returncode in (0, 1) and r.stdout:
                outcomes[name] = json.loads(r.stdout)
        for k in storm.kernels:
            wait_for(lambda k=k: k.ps() is not None, text=f"{k.name} answers")
        left = {k.name: [r["name"] for r in k.ps() if r["kernel"] == k.name and r["state"] not in
                         ("finished", "killed", "superseded", "lost")] for k in storm.kernels}
        histories = {k.name: k.audit() for k in storm.kernels}
        report = checker.check(histories, outcomes, paths, {k.name: k.log() for k in storm.kernels})
        assert not report.wrong, f"seed {SEED}\n{report}"
        assert not any(left.values()), left
        come_to_rest(lambda: [said for k in storm.kernels for said in k.stir(REST_S / len(storm.kernels))], 60)
        assert all(o["state"] == "finished" for o in outcomes.values()) and len(outcomes) == len(paths)
        assert kills >= (5 if SANITIZED else 15), "a storm that killed nobody shows nothing"
        assert not storm.spaces or storm.cuts >= CUTS
