"""The storm's checker finds what was planted, and nothing in an honest history."""
import copy

import pytest

import checker

PATH = ["a", "b"]


def ev(event, n, **more):
    return {"event": event, "carrier": "a#1", "id": "aa", "e": 0, "n": n, **more}


def trail(*what):
    return [{"event": e, "kernel": k} for e, k in what]


def log(kernel, *lines):
    return "\n".join(f"2026-01-01T00:00:00.000Z info tos-kernel {kernel}: {line}" for line in lines)


def state(a, b, event):
    return f"state carrier=a#1 from={a} to={b} event={event}"


def history():
    """a launches a#1 for a,b; b crashes once during its stay."""
    events = {
        "a": [{"event": "started", "boot": 1}, ev("launched", 0), ev("arrived", 0, **{"from": "a"}), ev("departed", 1, dest="b"),
              ev("finished", 2, **{"from": "b"})],
        "b": [{"event": "started", "boot": 1}, ev("arrived", 1, **{"from": "a"}), {"event": "started", "boot": 2},
              ev("outcome-delivered", 2, dest="a")]}
    outcomes = {"a#1": {"briefcase": {"RESULTS": [{"kernel": "a"}, {"kernel": "b"}]}, "trail": trail(
        ("launched", "a"), ("arrived", "a"), ("started", "a"), ("departed", "a"), ("arrived", "b"), ("restarted", "b"),
        ("started", "b"), ("finished", "b"))}}
    logs = {"a": log("a", "kernel ready boot=1 carriers=0", state("arriving", "ready", "admit"), state("ready", "running", "start"),
                     state("running", "departing", "depart"), state("departing", "gone", "accepted")),
            "b": log("b", "kernel ready boot=1 carriers=0", state("arriving", "ready", "admit"), state("ready", "running", "start"),
                     "kernel ready boot=2 carriers=1", state("ready", "running", "start"), state("running", "departing", "depart"))}
    return events, outcomes, {"a#1": PATH}, logs


def doubled_finish(h):
    h[0]["b"].append(ev("finished", 2))


def doubled_arrival(h):
    h[0]["a"].append(ev("arrived", 1))


def doubled_arrival_at_the_same_kernel(h):
    h[0]["b"].append(ev("arrived", 1))


def unknown_carrier(h):
    h[0]["b"].append({**ev("arrived", 7), "carrier": "c#9"})


def unknown_id(h):
    h[0]["b"][1]["id"] = "bb"


def no_launch(h):
    del h[0]["a"][1]


def lost_carrier(h):
    del h[0]["a"][4]


def killed_carrier(h):
    h[0]["a"][4]["event"] = "killed"


def lost_hop(h):
    del h[0]["b"][1]


def doubled_departure(h):
    h[0]["a"].append(ev("departed", 1, dest="b"))


def doubled_launch(h):
    h[0]["a"].append(ev("launched", 0))


def begin_without_a_crash(h):
    h[3]["a"] = h[3]["a"].replace("from=running to=departing event=depart", "from=ready to=running event=start")


def begin_without_a_crash_in_the_trail(h):
    h[1]["a#1"]["trail"].insert(3, {"event": "started", "kernel": "a"})


def stop_left_out(h):
    h[1]["a#1"]["briefcase"]["RESULTS"].pop()


def stop_twice(h):
    h[1]["a#1"]["briefcase"]["RESULTS"].append({"kernel": "b"})


def arrival_out_of_order(h):
    h[1]["a#1"]["trail"].insert(1, {"event": "arrived", "kernel": "b"})


def test_an_honest_history_is_believed():
    assert str(checker.check(*history())) == ""


@pytest.mark.parametrize("plant,kind", [
    (doubled_finish, "doubled finish"), (doubled_arrival, "doubled arrival"),
    (doubled_arrival_at_the_same_kernel, "doubled arrival"), (unknown_carrier, "unknown id"), (unknown_id, "unknown id"),
    (no_launch, "unknown id"), (lost_carrier, "lost carrier"), (killed_carrier, "lost carrier"), (lost_hop, "lost hop"),
    (doubled_departure, "doubled departure"), (doubled_launch, "doubled launch"),
    (begin_without_a_crash, "unexplained begin"), (begin_without_a_crash_in_the_trail, "unexplained begin"),
    (stop_left_out, "wrong stops"), (stop_twice, "wrong stops"), (arrival_out_of_order, "wrong path")])
def test_what_was_planted_is_found(plant, kind):
    h = copy.deepcopy(history())
    plant(h)
    r = checker.check(*h)
    assert kind in r.kinds(), (kind, str(r))
