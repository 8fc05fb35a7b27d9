"""What was built here runs on a machine that has nothing but its files (GEN-1): a root of its own with the installed
tree, the shared libraries it names, and no shell, no compiler, no language runtime."""
import glob
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile

import pytest

from conftest import fleet_fixture
from fleet import BUILD, KERNEL, wait_for

pytestmark = [pytest.mark.skipif(not os.path.exists(KERNEL), reason="TOS_BUILD names no build with tos-kernel"),
              pytest.mark.skipif(os.geteuid() != 0, reason="a root of its own takes root"),
              pytest.mark.skipif(os.environ.get("TOS_SANITIZE") == "1", reason="the sanitizers' libraries are no runtime")]
fleet = fleet_fixture(n=1)

# argv: root, program and its arguments. Everything is loaded before the root is another one.
ENTER = """
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
def do(rc):
    if rc != 0:
        e = ctypes.get_errno()
        raise OSError(e, os.strerror(e))
root = sys.argv[1].encode()
MS_BIND, MS_REC, MS_PRIVATE, MNT_DETACH = 4096, 16384, 1 << 18, 2
do(libc.unshare(0x00020000))
do(libc.mount(None, b"/", None, MS_REC | MS_PRIVATE, None))
do(libc.mount(root, root, None, MS_BIND | MS_REC, None))
do(libc.mount(b"proc", root + b"/proc", b"proc", 0, None))
for dev in (b"null", b"zero", b"urandom"):
    do(libc.mount(b"/dev/" + dev, root + b"/dev/" + dev, None, MS_BIND, None))
os.chdir(root)
do(libc.syscall(155, b".", b"old")) if os.uname().machine == "x86_64" else do(libc.syscall(41, b".", b"old"))
os.chdir("/")
do(libc.umount2(b"/old", MNT_DETACH))
os.execve(sys.argv[2], sys.argv[2:], {"TOS_HOME": "/state", "HOME": "/"})
"""


@pytest.fixture(scope="module")
def machine():
    """The second machine's root."""
    root = tempfile.mkdtemp(prefix="tos-machine.")
    os.chmod(root, 0o755)
    r = subprocess.run(["meson", "install", "-C", BUILD, "--no-rebuild", "--quiet", "--tags", "runtime", "--destdir", root],
                       capture_output=True, text=True)
    assert r.returncode == 0, r.stdout + r.stderr
    prefix = next(os.path.dirname(d) for d, _, files in os.walk(root) if os.path.basename(d) == "bin" and "tos" in files)
    programs = [f"{prefix}/bin/tos", f"{prefix}/sbin/tosd", *glob.glob(f"{prefix}/libexec/tos/*"),
                *glob.glob(f"{prefix}/lib/tos/extensions/*.so")]
    named = set()
    for p in programs:
        out = subprocess.run(["ldd", p], capture_output=True, text=True).stdout
        named |= set(re.findall(r"(/\S+) \(0x", out))
    for lib in named:
        os.makedirs(root + os.path.dirname(lib), exist_ok=True)
        shutil.copyfile(os.path.realpath(lib), root + lib)
        os.chmod(root + lib, 0o755)
    for d in ("proc", "dev", "run", "tmp", "old", "state"):
        os.makedirs(f"{root}/{d}", exist_ok=True)
    for dev in ("null", "zero", "urandom"):
        open(f"{root}/dev/{dev}", "w").close()
    yield root, prefix[len(root):]
    shutil.rmtree(root, ignore_errors=True)


def there(machine, *args, **kw):
    """A program of the second machine, run there."""
    root, prefix = machine
    return subprocess.Popen([sys.executable, "-c", ENTER, root, prefix + args[0], *args[1:]], text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **kw)


def test_its_files_and_one_configuration_are_a_node(fleet, machine):
    root, _ = machine
    files = [os.path.relpath(os.path.join(d, f), root) for d, _, names in os.walk(root) for f in names]
    print(len(files), "files,", sum(os.path.getsize(os.path.join(root, f)) for f in files) >> 20, "MiB")
    assert not [f for f in files if re.search(r"/(sh|bash|python[\d.]*|lua[\d.]*|cc|gcc)$", f)], files
    token = fleet.tos("enroll", "far").split()[-1]
    join = there(machine, "/bin/tos", "join", token, "--listen", "127.0.0.1:29331")
    assert join.wait(60) == 0, join.stdout.read()
    tosd = there(machine, "/sbin/tosd", "-c", "/state/kernels/far/tosd.conf", start_new_session=True)
    try:
        wait_for(lambda: "far" in {k["name"] for k in fleet.json("kernels") if k["linked"]}, text="far is linked")
        o = fleet.outcome(fleet.launch("""local os = tos.call("Monitor", { "os" }, 10)
            tos.post("Echo", "Hello, World")
            return { kernel = tos.kernel(), os = os ~= nil, roots = #tos.kernel() }""", "--path", "host0,far,host0"))
        assert o["state"] == "finished", o["fault"]
        assert [(r["kernel"], r["os"]) for r in o["briefcase"]["RESULTS"]] == [("host0", True), ("far", True), ("host0", True)]
        o = fleet.outcome(fleet.tos("launch", "facts", "--path", "@all").strip())
        assert {r["kernel"] for r in o["briefcase"]["RESULTS"]} == {"host0", "far"}
        e = fleet.run("launch", "-e", "return io.open('/etc/passwd')", "--path", "far", "--wait")
        assert e.returncode == 1 and "io" in e.stderr + e.stdout
    finally:
        tosd.send_signal(signal.SIGTERM)
        try:
            said = tosd.communicate(timeout=60)[0]
        except subprocess.TimeoutExpired:
            tosd.kill()
            said = tosd.communicate()[0]
        print(said[-3000:])
    assert tosd.returncode == 0
