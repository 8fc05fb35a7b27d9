"""The kernel's side of descriptor 3, for tests: starts a real tos-vm and talks frames with it."""

import fcntl
import os
import select
import socket
import struct
import subprocess
import time

import cbor2

START, DELIVER, DONE, END, LIMITS, PAUSE, CHARGE, RUN = range(32, 40)
READY, STARTED, SEND, GO, FINISHED, FAULT, CHECKPOINT, LOG, INBOX, TAKEN, USAGE, FORGOTTEN, STUCK, CLONE = range(48, 62)
ONEWAY, CALL, ANSWER, FAILURE = range(4)

WAIT_S = float(os.environ.get("TOS_TEST_WAIT", "20"))


def binary():
    return os.environ["TOS_VM"]


def shortest(item):
    """The core deterministic encoding, for maps whose keys are all texts."""
    return cbor2.dumps(item, canonical=True)


class Ended(Exception):
    """The tos-vm closed the connection."""


class Vm:
    def __init__(self):
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)

        def place():
            # Descriptor 3 only; whatever else is open is close-on-exec.
            if theirs.fileno() != 3:
                os.dup2(theirs.fileno(), 3)
            os.set_inheritable(3, True)
            fcntl.fcntl(3, fcntl.F_SETOWN, os.getpid())  # as the sandbox does

        self.process = subprocess.Popen(
            [binary()],
            preexec_fn=place,
            close_fds=False,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        theirs.close()
        self.socket = ours
        self.pending = b""
        self.usage = None
        self.kept = []
        frame = self.read()
        assert frame == [READY, 1]

    def close(self):
        self.socket.close()
        out, err = self.process.communicate(timeout=WAIT_S)
        assert out == b"" and err == b"", err.decode(errors="replace")  # sanitizers report there

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def raw(self, data):
        self.socket.sendall(data)

    def send(self, *frame):
        if frame[0] == DELIVER and len(frame) == 7:
            frame += ("", "")  # whose the sender is: not known
        data = shortest(list(frame))
        self.raw(struct.pack(">I", len(data)) + data)

    def _fill(self, n, until):
        while len(self.pending) < n:
            left = until - time.monotonic()
            ready, _, _ = select.select([self.socket], [], [], max(0, left))
            if not ready:
                raise TimeoutError("no frame from tos-vm")
            try:
                data = self.socket.recv(1 << 16)
            except ConnectionResetError:
                data = b""
            if not data:
                raise Ended()
            self.pending += data

    def read(self, wait=WAIT_S):
        until = time.monotonic() + wait
        self._fill(4, until)
        (n,) = struct.unpack(">I", self.pending[:4])
        self._fill(4 + n, until)
        data, self.pending = self.pending[4 : 4 + n], self.pending[4 + n :]
        frame = cbor2.loads(data)
        # What it says is deterministic (state keeps its own encoding inside).
        assert shortest(frame) == data, "not the deterministic encoding"
        return frame

    def frame(self, wait=WAIT_S):
        """The next frame that is not a USAGE."""
        while True:
            frame = self.read(wait)
            if frame[0] == USAGE:
                assert frame[2] >= 0 and frame[3] >= 0
                self.usage = frame
                continue
            return frame

    def expect(self, kind, carrier=1):
        frame = self.frame()
        assert frame[0] == kind and frame[1] == carrier, frame
        return frame[2:]

    def start(self, code, carrier=1, files=None, **more):
        files = dict(files or {})
        if code is not None:
            files["main.lua"] = code.encode() if isinstance(code, str) else code
        bundle = shortest([b"no manifest is looked at here", files])
        start = {
            "begun": False,
            "briefcase": {},
            "bundle": bundle,
            "cpu_us": 0,
            "entry": "main.lua",
            "function": "begin",
            "home": "host0",
            "kernel": "host1",
            "limits": {},
            "name": "host0#42",
            "owner": "alice",
            "path": [],
            "state": b"",
            "usage": {},
        }
        start.update(more)
        self.send(START, carrier, start)

    def run(self, code, carrier=1, **more):
        """Start it, and past STARTED."""
        self.start(code, carrier, **more)
        self.expect(STARTED, carrier)

    def outcome(self, code, **more):
        """Run to the end; logs are collected. Returns (logs, last frame)."""
        self.run(code, **more)
        return self.to_end()

    def to_end(self):
        logs = []
        while True:
            frame = self.frame()
            if frame[0] == LOG:
                logs.append(frame[3])
            elif frame[0] in (FINISHED, FAULT):
                return logs, frame
            else:
                self.kept.append(frame)


def logs_of(code, **more):
    with Vm() as vm:
        logs, last = vm.outcome(code, **more)
        assert last[0] == FINISHED, last
        return logs


def folder(name, *elements):
    return [name, list(elements)]
