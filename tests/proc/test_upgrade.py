"""A real replicated service is upgraded on all hosts, or on none (examples/upgrade)."""
import json
import os
import subprocess

import pytest

from fleet import BUILD, KERNEL

pytestmark = pytest.mark.skipif(not os.path.exists(KERNEL), reason="TOS_BUILD names no build with tos-kernel")
DEMO = os.path.join(os.path.dirname(__file__), "../../examples/upgrade/demo")
SOAK = os.environ.get("TOS_SOAK") == "1"


def test_all_hosts_run_the_new_version_or_all_the_old_one():
    cases = "dry,checksum,disk,port,killed,dies-before,dies-after,outage" if SOAK else "port,killed,dies-after,outage"
    r = subprocess.run([DEMO, "--json", "--hosts", "5" if SOAK else "3", "--only", cases], capture_output=True, text=True, timeout=240,
                       env=dict(os.environ, TOS_BUILD=BUILD))
    if r.returncode == 77:
        pytest.skip(r.stdout.strip())
    assert r.returncode == 0, r.stdout + r.stderr
    got = json.loads(r.stdout)
    for case, what in got.items():
        assert what["state"] == {"dies-after": "committed", "outage": "committed", "killed": "restarted"}.get(case, "aborted"), what
        assert len(set(what["runs"])) == 1, what
    assert got["outage"]["together"] < got["outage"]["one_by_one"], got["outage"]
