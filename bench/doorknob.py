"""The doorknob monitor of examples/ between hosts in namespaces, and how long after a scanner's first probe its panel shows the
alarm. The scanner connects to one port of each host in turn, each time from another address; three hosts make an alarm."""
import os
import queue
import subprocess
import tempfile
import threading
import time

TOP = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
LAB = os.path.join(TOP, "examples", "lab")
# Prints the time before its first connect, of the clock that all processes share.
SCAN = """import socket, sys, time
print(time.monotonic(), flush=True)
for host in range(1, int(sys.argv[2]) + 1):
    s = socket.socket()
    s.bind((sys.argv[1], 0))
    s.connect_ex((f"10.78.0.{host}", 2323))"""


def alarms(build, rounds, hosts=4):
    """Milliseconds from probe to panel, one a round."""
    with tempfile.TemporaryDirectory(prefix="tos-doorknob.") as path:
        env = dict(os.environ, LAB=os.path.join(path, "lab"), TOS_BIN=os.path.join(build, "src/cli"), OUTSIDER="1")
        names = [f"host{i}" for i in range(hosts)]

        def lab(*args, **kw):
            return subprocess.run([LAB, *args], env=env, check=True, capture_output=True, text=True, timeout=120, **kw).stdout

        try:
            lab("up", str(hosts))
            digests = [lab("in", "host0", "tos", "content", "put", os.path.join(build, "examples", f"doorknob-{p}")).split()[0]
                       for p in ("sensor", "correlator")]
            panel = subprocess.Popen(
                [LAB, "in", "host0", os.path.join(build, "examples/doorknob-panel"), "--sensor", digests[0], "--correlator", digests[1],
                 "--carriers", os.path.join(TOP, "examples/doorknob"), "--for", "120", *names, "--", "ports", "2323"],
                env=env, stdout=subprocess.PIPE, text=True)
            said = queue.Queue()
            threading.Thread(target=lambda: [said.put((time.monotonic(), line)) for line in panel.stdout], daemon=True).start()

            def hears(word):
                """When the panel printed the next line with that word."""
                while True:
                    at, line = said.get(timeout=30)
                    if word in line:
                        return at

            try:
                for _ in names:
                    hears(" started ")
                out = []
                for i in range(rounds):
                    source = f"10.78.0.{201 + i}"
                    lab("in", "outside", "ip", "addr", "add", f"{source}/24", "dev", "eth0")
                    begun = float(lab("in", "outside", "/usr/bin/python3", "-c", SCAN, source, str(hosts)).split()[0])
                    out.append(1000 * (hears(" ALARM ") - begun))
                return out
            finally:
                panel.terminate()
                panel.wait(60)
        finally:
            lab("down")
