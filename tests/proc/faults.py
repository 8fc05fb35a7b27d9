"""Fault points of tos-kernel-faults from the test's side (src/base/fault.h): a build tree whose kernel has them, and
the file that each kernel maps.
"""
import atexit
import glob
import mmap
import os
import re
import shutil
import struct
import tempfile

from fleet import BUILD

FAULTY = os.path.join(BUILD, "tests/proc/tos-kernel-faults")
HEADER = os.path.join(os.path.dirname(__file__), "../../src/base/fault.h")
NOTHING, KILL, HOLD, FAIL = range(4)
MAGIC = 0x31544C46


def points():
    """Their names, in the order of the table."""
    with open(HEADER) as f:
        return re.findall(r'^\tX\(\w+,\s*"([a-z-]+)",', f.read(), re.M)


POINTS = points()


def tree():
    """A copy of the build tree by links, with the faulty kernel in the kernel's place; the path of its tos. Each process that
    runs tests has its own: others may run at the same time."""
    top = os.path.join(BUILD, f"tests/proc/faulty-{os.getpid()}")
    for old in glob.glob(os.path.join(BUILD, "tests/proc/faulty-*")):
        if not os.path.exists("/proc/" + old.rsplit("-", 1)[1]):
            shutil.rmtree(old, ignore_errors=True)  # its process was killed
    atexit.register(shutil.rmtree, top, ignore_errors=True)
    new = tempfile.mkdtemp(dir=os.path.dirname(top))
    os.chmod(new, 0o755)
    files = {"src/cli/tos", "src/tosd/tosd", "src/vm/tos-vm", "src/ext/tos-ext"}
    files |= {os.path.relpath(p, BUILD) for p in glob.glob(f"{BUILD}/extensions/*/*.so") + glob.glob(f"{BUILD}/carriers/*.lua") + glob.glob(f"{BUILD}/carriers/lib/*.lua")}
    for path, source in [(p, os.path.join(BUILD, p)) for p in sorted(files)] + [("src/kernel/tos-kernel", FAULTY)]:
        to = os.path.join(new, path)
        os.makedirs(os.path.dirname(to), exist_ok=True)
        try:
            os.link(source, to)
        except OSError:
            shutil.copy2(source, to)
    shutil.rmtree(top, ignore_errors=True)
    os.rename(new, top)
    return os.path.join(top, "src/cli/tos")


class Faults:
    """The cells of one kernel."""

    def __init__(self, state_dir):
        path = os.path.join(state_dir, "faults")
        size = 16 + 16 * len(POINTS)
        with open(path, "wb") as f:
            f.write(struct.pack("=IIq", MAGIC, len(POINTS), 0) + bytes(size - 16))
        os.chmod(path, 0o666)
        with open(path, "r+b") as f:
            self.map = mmap.mmap(f.fileno(), size)

    @staticmethod
    def at(point):
        return 16 + 16 * POINTS.index(point)

    def arm(self, point, action=KILL, skip=0):
        """At the hit after `skip` more; fired counts from 0 again."""
        at = self.at(point)
        struct.pack_into("=I", self.map, at + 12, 0)
        struct.pack_into("=I", self.map, at + 4, skip)
        struct.pack_into("=I", self.map, at, action)

    def disarm(self, point=None):
        for p in [point] if point else POINTS:
            struct.pack_into("=I", self.map, self.at(p), NOTHING)

    def hits(self, point):
        return struct.unpack_from("=I", self.map, self.at(point) + 8)[0]

    def fired(self, point):
        return struct.unpack_from("=I", self.map, self.at(point) + 12)[0]

    def clock(self, seconds):
        """As if somebody had set the wall clock so much later."""
        struct.pack_into("=q", self.map, 8, int(seconds * 1000))


def prepare(fleet):
    fleet.faults = {name: Faults(f"{fleet.home}/kernels/{name}") for name in fleet.names}
