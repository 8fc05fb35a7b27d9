"""The doorknob monitor of examples/: its sensor and correlator by themselves, then all of it between namespaces, with a real scanner."""
import os
import shutil
import signal
import socket
import struct
import subprocess
import time

import pytest

from fleet import BUILD, process_table, wait_for

HERE = os.path.dirname(os.path.abspath(__file__))
EXAMPLE = os.path.join(HERE, "../../examples/doorknob")
SENSOR, CORRELATOR = (os.path.join(BUILD, "examples", f"doorknob-{name}") for name in ("sensor", "correlator"))
pytestmark = pytest.mark.skipif(not os.path.exists(SENSOR), reason="TOS_BUILD names no build with the examples")


# ---- the sensor

def ip_packet(data, offset=0, more=False, source="10.1.2.3", kind=8):
    """An ICMP message, or a fragment of one: offset and data count from the message's first byte, its header included."""
    head = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(data), 1, (0x2000 if more else 0) | offset // 8, 64, 1, 0,
                       socket.inet_aton(source), socket.inet_aton("10.1.2.4"))
    return head + (bytes([kind]) + data[1:] if offset == 0 else data)


def capture(*packets):
    out = struct.pack("<IHHiIII", 0xa1b2c3d4, 2, 4, 0, 0, 65535, 101)
    return out + b"".join(struct.pack("<IIII", 0, 0, len(p), len(p)) + p for p in packets)


def fragments(data_bytes, **kw):
    """An echo request with so many octets of data, as it comes over Ethernet."""
    message = bytes(8 + data_bytes)
    return [ip_packet(message[at:at + 1480], at, at + 1480 < len(message), **kw) for at in range(0, len(message), 1480)]


def ping(*packets, expect=0):
    r = subprocess.run([SENSOR, "ping"], input=capture(*packets), capture_output=True, timeout=20)
    assert r.returncode == expect, r.stderr
    return r.stdout.decode().splitlines()[1:]


def test_a_datagram_over_65507_octets_is_told_and_one_of_65507_is_not():
    assert ping(*fragments(65507)) == []
    assert ping(*fragments(65508, source="10.9.9.9")) == ["attempt 10.9.9.9 ping-of-death"]
    assert ping(ip_packet(bytes(64)), *fragments(300)) == []


def test_an_echo_reply_and_what_is_no_capture_are_no_attempts():
    assert ping(ip_packet(bytes(64), kind=0)) == []
    r = subprocess.run([SENSOR, "ping"], input=b"GIF89a" * 10, capture_output=True, timeout=20)
    assert r.returncode == 1 and b"no capture" in r.stderr
    r = subprocess.run([SENSOR, "ping"], input=capture(ip_packet(bytes(64)))[:-5], capture_output=True, timeout=20)
    assert r.returncode == 1


def test_who_knocks_at_a_held_port_is_named_and_a_served_port_is_exposed():
    with socket.create_server(("127.0.0.1", 0)) as real, socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
        probe.close()
        p = subprocess.Popen([SENSOR, "ports", str(real.getsockname()[1]), str(port)], stdout=subprocess.PIPE, text=True)
        try:
            assert p.stdout.readline() == f"exposed tcp/{real.getsockname()[1]}\n"
            assert p.stdout.readline() == f"watching tcp/{port}\n"
            with socket.socket() as s:
                s.connect_ex(("127.0.0.1", port))  # it is reset at once, perhaps before we are told
            assert p.stdout.readline() == f"attempt 127.0.0.1 tcp/{port}\n"
        finally:
            p.kill()
            p.wait()


# ---- the correlator

CONFIG = "threshold 3\nwithin 60\nhost a\nhost b\nhost c\n"


def correlate(lines, config=CONFIG, expect=0):
    r = subprocess.run([CORRELATOR, "-"], input=config + "\n" + "\n".join(lines) + "\n", capture_output=True, text=True, timeout=20)
    assert r.returncode == expect, r.stderr
    return r.stdout.splitlines()


def test_probes_that_sweep_the_hosts_give_one_alarm_with_source_time_and_targets_in_order():
    (line,) = correlate(["b exposed tcp/23", "b attempt 10.0.0.9 tcp/23", "a attempt 10.0.0.9 tcp/23", "a attempt 10.0.0.9 tcp/24",
                         "c attempt 10.0.0.9 tcp/23", "c attempt 10.0.0.9 tcp/25"])
    word, source, at, *targets = line.split()
    assert (word, source) == ("alarm", "10.0.0.9") and abs(float(at) - time.time()) < 60
    assert targets == ["b:tcp/23:exposed", "a:tcp/23:closed", "c:tcp/23:closed"]


def test_a_single_probe_and_probes_of_different_sources_and_strangers_give_none():
    assert correlate(["a attempt 10.0.0.9 tcp/23"] * 5) == []
    assert correlate([f"{h} attempt 10.0.0.{i} tcp/23" for i, h in enumerate("abc")]) == []
    assert correlate([f"{h} attempt 10.0.0.9 tcp/23" for h in "xyz"]) == []


def test_a_bad_configuration_names_its_line():
    r = subprocess.run([CORRELATOR, "-"], input="host a\nthreshold many\n\n", capture_output=True, text=True, timeout=20)
    assert r.returncode == 1 and "-:2:" in r.stderr


# ---- all of it

@pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root")
@pytest.mark.skipif(not all(map(shutil.which, ("nmap", "nft", "ip"))), reason="nmap, nftables or iproute2 is missing")
def test_a_scan_from_outside_is_reported_and_its_address_blocked_on_every_host(tmp_path):
    told, command = tmp_path / "told", tmp_path / "tell"
    command.write_text(f'#!/bin/sh\necho "$@" >>{told}\n')
    command.chmod(0o755)
    r = subprocess.run([os.path.join(EXAMPLE, "run"), "4"], env=dict(os.environ, TOS_BUILD=BUILD, RESPOND=str(command)),
                       capture_output=True, text=True, timeout=120)
    said = r.stdout
    assert r.returncode == 0, said + r.stderr
    assert said.count(" started ") == 4 and said.count(" stopped ") == 4
    (alarm,) = [line for line in said.splitlines() if " ALARM " in line]
    assert "alarm 10.78.0.200 " in alarm
    # the command is given the alarm's words, one by one
    assert told.read_text().splitlines() == [alarm.split(" alarm ")[1]]
    assert sorted(line.split()[1:] for line in said.splitlines() if line.endswith(" blocked   10.78.0.200")) == [
        [f"host{i}", "blocked", "10.78.0.200"] for i in range(4)]
    assert "1 alarm; sensors: 4 stopped, 0 missed, 0 failed; blocked at 4, open at 0" in said
    # shut out: what was open before is filtered now
    assert said.count("21212/tcp open") == 4 and said.index("21212/tcp open") < said.index("--- a scanner")
    after = said[said.index("--- and again"):]
    assert "21212/tcp open" not in after and after.count("21212/tcp filtered") == 4
    # and nothing of it is left
    assert not subprocess.run(["ip", "netns", "list"], capture_output=True, text=True).stdout.count("-outside")


@pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root")
@pytest.mark.skipif(not shutil.which("ip"), reason="iproute2 is missing")
def test_what_was_taken_away_can_be_brought_again_and_strangers_give_no_orders(tmp_path):
    env = dict(os.environ, LAB=str(tmp_path / "lab"), TOS_BIN=os.path.join(BUILD, "src/cli"))

    def lab(*args):
        r = subprocess.run([os.path.join(EXAMPLE, "../lab"), *args], env=env, capture_output=True, text=True, timeout=60)
        assert r.returncode == 0, r.stdout + r.stderr
        return r.stdout

    def running():
        return [line.split()[0] for line in lab("in", "host0", "tos", "ps").splitlines()[1:] if " running " in line]

    lab("up", "2")
    try:
        digests = [lab("in", "host0", "tos", "content", "put", p).split()[0] for p in (SENSOR, CORRELATOR)]
        for kill in (False, True):
            panel = subprocess.Popen(
                [os.path.join(EXAMPLE, "../lab"), "in", "host0", os.path.join(BUILD, "examples/doorknob-panel"), "--sensor", digests[0],
                 "--correlator", digests[1], "--carriers", EXAMPLE, "--for", "60", "host0", "host1", "--", "ports", "2323"],
                env=env, stdout=subprocess.PIPE, text=True)
            said = [panel.stdout.readline() for _ in range(3)]
            assert [line.split()[2] for line in said] == ["correlating", "started", "started"], said
            assert digests[0] in lab("in", "host1", "tos", "content", "list")
            # the correlator's carrier, and behind it those of the crew whose place the home has heard of
            _, *crew = wait_for(lambda: (rows := running()) and len(rows) >= 2 and rows)
            for name in crew:  # an order of somebody else's
                lab("in", "host0", "tos", "post", f"{name}/work", '{"stop": true}', "--folder", "order")
                wait_for(lambda n=name: "not from the panel" in lab("in", "host0", "tos", "log", n))
            if kill:  # by hand: it is told before it could be missed, which it is after 6 s
                (sensor,) = [pid for pid in map(int, subprocess.check_output(["ip", "netns", "pids", lab("space", "host1").strip()]).split())
                             if process_table()[pid][3][0] == b"sensor"]
                os.kill(sensor, signal.SIGKILL)
                killed = time.monotonic()
                assert panel.stdout.readline().split()[1:3] == ["host1", "down"]
                assert time.monotonic() - killed < 5
            panel.terminate()
            out = panel.communicate(timeout=60)[0]
            assert f"0 alarms; sensors: {2 - kill} stopped, 0 missed, {0 + kill} failed" in out, out
            assert digests[0] not in lab("in", "host1", "tos", "content", "list")
    finally:
        lab("down")
