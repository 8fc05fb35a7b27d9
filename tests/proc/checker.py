"""Reads the histories of all kernels after a storm and says what cannot have been (test_checker.py plants such things).

A history is a list of events, in the order in which one kernel wrote them: maps with `event` and, of carriers, carrier,
id, e, n as the audit trail has them (tos audit --json); of kernels, `started` with boot. Besides, `stays`: what the log
of a kernel says of carriers that began there.
"""
import re

ENDS = {"finished", "killed", "lost"}


class Report:
    def __init__(self):
        self.wrong = []

    def say(self, kind, text):
        self.wrong.append((kind, text))

    def kinds(self):
        return {k for k, _ in self.wrong}

    def __str__(self):
        return "\n".join(f"{k}: {t}" for k, t in self.wrong[:40]) + (f"\n... {len(self.wrong)} in all" if len(self.wrong) > 40 else "")


def launched(histories, r):
    """name -> id, launched or cloned once each."""
    names = {}
    for kernel, events in histories.items():
        for e in events:
            if e["event"] in ("launched", "cloned"):
                if e["carrier"] in names:
                    r.say("doubled launch", f"{e['carrier']} at {kernel}")
                names[e["carrier"]] = e["id"]
    return names


def check_ids(histories, names, r):
    for kernel, events in histories.items():
        for e in events:
            if "id" not in e:
                continue
            if e["carrier"] not in names:
                r.say("unknown id", f"{e['carrier']} {e['event']} at {kernel}, launched nowhere")
            elif names[e["carrier"]] != e["id"]:
                r.say("unknown id", f"{e['carrier']} {e['event']} at {kernel} with another id than it was launched with")


def check_ends(histories, names, r):
    ends = {}
    for kernel, events in histories.items():
        for e in events:
            if e["event"] in ENDS:
                ends.setdefault(e["carrier"], []).append((e["event"], kernel))
    for name in names:
        got = ends.get(name, [])
        if not got:
            r.say("lost carrier", f"{name} has no end")
        elif len(got) > 1:
            r.say("doubled finish", f"{name}: {got}")
        elif got[0][0] != "finished":
            r.say("lost carrier", f"{name} was {got[0][0]} at {got[0][1]}")


def check_arrivals(histories, r):
    """Each departure (id, e, n) was accepted once, and dropped at its source at most once, for the place that took it."""
    taken, dropped = {}, {}
    for kernel, events in histories.items():
        for e in events:
            key = (e.get("carrier"), e.get("e"), e.get("n"))
            if e["event"] == "arrived":
                taken.setdefault(key, []).append(kernel)
            elif e["event"] == "departed":
                dropped.setdefault(key, []).append((kernel, e["dest"]))
    for key, kernels in taken.items():
        if len(kernels) > 1:
            r.say("doubled arrival", f"{key} was accepted at {kernels}")
    for key, drops in dropped.items():
        if len(drops) > 1:
            r.say("doubled departure", f"{key} was dropped at {drops}")
        if [d for _, d in drops] != taken.get(key, []) and len(drops) == 1:
            r.say("lost hop", f"{key} was dropped for {drops[0][1]}, accepted at {taken.get(key, [])}")


def check_paths(outcomes, paths, r):
    """The arrivals of the trail are the path, and so are the stops that the carrier noted."""
    for name, o in outcomes.items():
        arrived = [t["kernel"] for t in o["trail"] if t["event"] == "arrived"]
        if arrived != paths[name]:
            r.say("wrong path", f"{name}: {arrived} for {paths[name]}")
        noted = [row["kernel"] for row in o["briefcase"].get("RESULTS", [])]
        if noted != paths[name]:
            r.say("wrong stops", f"{name}: it noted {noted} for {paths[name]}")


LINE = re.compile(r"state carrier=(\S+) from=(\S+) to=(\S+) event=(\S+)")


def begins(text):
    """Of one kernel's log: (carrier, number of the stay) -> [begins, boots of the kernel meanwhile], for the carriers
    that came in by an arrival. What runs on after a departure that came to nothing is no new begin."""
    stays, last, boots = {}, {}, 0
    for line in text.splitlines():
        if ": kernel ready boot=" in line:
            boots += 1
        m = LINE.search(line)
        if not m:
            continue
        name, before, after, event = m.groups()
        if event == "admit":
            key = (name, last.get(name, (name, 0))[1] + 1)
            last[name] = key
            stays[key] = {"begins": 0, "boots": boots, "crashes": 0, "returned": False}
        elif name in last:
            s = stays[last[name]]
            s["crashes"] = boots - s["boots"]
            if event == "returned":
                s["returned"] = True
            elif event == "start" and after == "running":
                s["begins"] += not s["returned"]
                s["returned"] = False
    return stays


def check_begins(logs, r):
    """A carrier begins once in a stay, and once more for each time that its kernel was started again during it."""
    for kernel, text in logs.items():
        for (name, stay), s in begins(text).items():
            if s["begins"] > 1 + s["crashes"]:
                r.say("unexplained begin", f"{name} began {s['begins']} times in its stay {stay} at {kernel}, "
                      f"which was started again {s['crashes']} times meanwhile")


def check_trails(outcomes, r):
    """The same by the trail that travelled along: between two arrivals, one `started` and one more for each `restarted`."""
    for name, o in outcomes.items():
        started = restarted = 0
        for t in o["trail"] + [{"event": "arrived", "kernel": ""}]:
            if t["event"] == "arrived":
                if started > 1 + restarted:
                    r.say("unexplained begin", f"{name} began {started} times in one stay, restarted {restarted} times")
                started = restarted = 0
            started += t["event"] == "started"
            restarted += t["event"] == "restarted"


def check(histories, outcomes, paths, logs):
    """histories: kernel -> events; outcomes, paths: carrier -> outcome, list of kernels; logs: kernel -> text."""
    r = Report()
    names = launched(histories, r)
    for name in paths:
        if name not in names:
            r.say("unknown id", f"{name} was launched by its owner, and no kernel has noted it")
    check_ids(histories, names, r)
    check_ends(histories, names, r)
    check_arrivals(histories, r)
    check_paths(outcomes, paths, r)
    check_begins(logs, r)
    check_trails(outcomes, r)
    return r
