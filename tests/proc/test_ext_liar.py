"""A tos-ext that somebody has broken into: what it says on descriptor 3 ends it, or is refused, and harms nobody else. The
extension that does so, ext/lying.c, is installed as any other; kernel, tosd, tos-ext and sandbox are the real ones.
"""
import os

import pytest

from fleet import KERNEL, TOS, process_table, wait_for
from test_extender import SOAK, asked, compiled, events_of, fleet, nothing_left, packaged, rows, running  # noqa: F401

pytestmark = pytest.mark.skipif(not os.path.exists(KERNEL) or not os.path.exists(TOS), reason="TOS_BUILD names no build")

BYTES = range(1, 8)  # garbage, lengths, encodings
MEANING = range(20, 42)  # well-formed frames that mean what they must not
MUCH = range(50, 56)  # allowed, and far too much, or refused
LIES = [*BYTES, *MEANING] if SOAK else [*BYTES, *MEANING][::2]


def test_one_that_lies_to_the_kernel_ends_itself_only(fleet, nothing_left):
    """Every lie ends that process, its callers are told, and nobody else notices."""
    fleet.tos("extension", "install", packaged(fleet, "1"))
    greeter = rows(fleet)["Greeter"][0]["pid"]
    package = packaged(fleet, "1", name="Liar", file=compiled(fleet, "liar.so", "lying.c"))
    fleet.tos("extension", "install", package)
    # each end makes the pause before the next life longer, a new installation begins anew
    for i, lie in enumerate(LIES):
        if i % 2 == 0:
            fleet.tos("extension", "replace", package)
        wait_for(lambda: running(fleet, "Liar"))
        row = [r for r in rows(fleet)["Liar"] if r["state"] == "ready"][0]
        waiting = fleet.start("call", "Liar", "keep", "--timeout", "30s")
        wait_for(lambda: [r["calls"] for r in rows(fleet)["Liar"] if r["pid"] == row["pid"]] == [1])
        fleet.tos("post", "Liar", "lie", str(lie))
        out, err = waiting.communicate(timeout=60)
        assert waiting.returncode != 0 and "extension Liar" in err, (lie, out, err)
        wait_for(lambda: row["pid"] not in process_table(), text=f"lie {lie}: its process is gone")
        assert fleet.pid("host0", "tos-kernel") == nothing_left, lie
    assert events_of(fleet, "bad_frames", "Liar") >= len(LIES) // 2
    for lie in MUCH:
        fleet.tos("extension", "replace", package)
        waiting = fleet.start("call", "Liar", "keep", "--timeout", "3s")
        wait_for(lambda: sum(r["calls"] for r in rows(fleet)["Liar"]) == 1)
        fleet.tos("post", "Liar", "lie", str(lie))
        assert asked(fleet) == "1"
        waiting.communicate(timeout=60)
        assert fleet.pid("host0", "tos-kernel") == nothing_left, lie
    assert rows(fleet)["Greeter"][0]["pid"] == greeter and rows(fleet)["Greeter"][0]["restarts"] == 0
    assert asked(fleet) == "1" and "evil" not in fleet.tos("metrics")
    assert fleet.outcome(fleet.launch("return 1"))["state"] == "finished"
