"""The tree keeps its promises: what each room includes, and headers that compile on their own.

Usage: test_layout.py SOURCE_ROOT COMPILER...   (prints one line for each promise that does not hold)
"""
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

TOP, COMPILER = sys.argv[1], sys.argv[2:]

# Room to the rooms that it may include besides itself: the table of doc/architecture.md, which is compared with this.
# <tos/value.h> belongs to wire: whoever has wire has it.
ROOMS = {
    "base": "", "wire": "base", "ipc": "base", "sandbox": "base", "loop": "base wire", "seal": "base wire",
    "core": "base wire seal", "store": "base wire seal", "link": "base wire seal loop core", "lib": "base wire seal",
    "ext": "base wire ipc sandbox loop core", "vm": "base wire ipc sandbox", "tosd": "base ipc sandbox",
    "kernel": "base wire seal ipc sandbox loop core store link ext", "cli": "base lib seal",
}
# Library headers and the only rooms that may include them.
OWNERS = {
    r"openssl/": {"seal"}, r"sqlite3\.h": {"store"}, r"uv\.h": {"loop", "link", "ext", "kernel"},
    r"(lua|lauxlib|lualib)\.h": {"vm", "ext"}, r"jansson\.h": {"cli"}, r"confuse\.h": {"kernel", "lib"}, r"seccomp\.h": {"sandbox"}, r"zlib\.h": {"vm"},
}
# Headers of the public folder and who may include them in src/ and lib/.
PUBLIC = {"value.h": {r for r in ROOMS if "wire" in ROOMS[r].split()} | {"wire", "seal", "cli"}, "tos.h": {"lib", "cli"},
          "extension.h": {"ext", "kernel"}, "errors.h": {"ext"}}

# The rooms in src/kernel: the headers of each that others may include (all others are its own), and the rooms whose
# headers it may include. What lies in src/kernel itself joins them all; of it a room sees KERNEL_OWN.
KERNEL = {
    "carrier": ("account admit content_share family resident seals vms", "handoff trust"),
    "handoff": ("chain evidence forced moves report restored", "carrier home trust"),
    "home": ("families home", "carrier handoff"),
    "services": ("actions broker content extender grants journal programs", "carrier trust"),
    "trust": ("introduce trust", ""),
}
KERNEL_OWN = {"config", "kernel", "posts", "settings", "upload"}

bad = []


def say(text):
    bad.append(text)
    print(text)


def sources(folder, endings=(".c", ".h")):
    for root, dirs, files in os.walk(os.path.join(TOP, folder)):
        dirs.sort()
        for f in sorted(files):
            if f.endswith(endings):
                yield os.path.relpath(os.path.join(root, f), TOP)


def includes(path):
    with open(os.path.join(TOP, path)) as f:
        return re.findall(r'^\s*#\s*include\s+([<"])([^>"]+)[>"]', f.read(), re.M)


def check_room(room):
    folder = room if room == "lib" else "src/" + room
    allowed = set(ROOMS[room].split()) | {room}
    for path in sources(folder):
        for _, name in includes(path):
            first = name.split("/")[0] if "/" in name else ""
            if first == "tos":
                if room not in PUBLIC.get(name.split("/")[1], set()):
                    say(f"{path}: {room} may not include <{name}>")
            elif first in ROOMS and first not in allowed:
                say(f"{path}: {room} may not include \"{name}\"")
            for pattern, owners in OWNERS.items():
                if re.match(pattern, name) and room not in owners:
                    say(f"{path}: <{name}> belongs to {', '.join(sorted(owners))}")


def check_kernel():
    needed = set()
    for path in sources("src/kernel"):
        room = path.split("/")[2] if path.count("/") > 2 else ""
        for _, name in includes(path):
            at = name.removesuffix(".h").split("/")
            if at[0] != "kernel" or not room or at[1] == room:
                pass
            elif len(at) == 2 and at[1] not in KERNEL_OWN:
                say(f"{path}: \"{name}\" is of src/kernel alone")
            elif len(at) == 3 and at[1] not in KERNEL[room][1].split():
                say(f"{path}: kernel/{room} may not include \"{name}\"")
            elif len(at) == 3:
                needed.add((room, at[1]))
            if at[0] == "kernel" and len(at) == 3 and at[1] != room and at[2] not in KERNEL[at[1]][0].split():
                say(f"{path}: \"{name}\" is of kernel/{at[1]} alone")
    with open(os.path.join(TOP, "doc/architecture.md")) as f:
        rows = dict(re.findall(r"^\| kernel/([a-z]+) \| ([a-z, ]+) \|$", f.read(), re.M))
    for room, (_, may) in KERNEL.items():
        for other in may.split():
            if (room, other) not in needed:
                say(f"kernel/{room} may include what is of kernel/{other}, and does not: its row can be shorter")
        if sorted(rows.get(room, "missing").replace("nothing", "").replace(",", "").split()) != sorted(may.split()):
            say(f"doc/architecture.md: the row of kernel/{room} says {rows.get(room)}, the test {may}")
    for room in os.listdir(os.path.join(TOP, "src/kernel")):
        if os.path.isdir(os.path.join(TOP, "src/kernel", room)) and room not in KERNEL:
            say(f"src/kernel/{room}/ is not in the table")


def check_outside():
    for path in sources("extensions"):
        for mark, name in includes(path):
            beside = os.path.exists(os.path.join(TOP, os.path.dirname(path), name))
            if (mark == '"' and not beside) or (name.startswith("tos/") and name not in ("tos/extension.h", "tos/value.h", "tos/errors.h")):
                say(f"{path}: an extension includes {name}")
    for path in sources("examples"):
        for mark, name in includes(path):
            if mark == '"' and "/" in name:
                say(f"{path}: an example includes {name}")
    for path in sources("src"):
        for mark, name in includes(path):
            if "tests/" in name:
                say(f"{path}: shipped code includes {name}")


def check_table():
    with open(os.path.join(TOP, "doc/architecture.md")) as f:
        text = f.read()
    written = {}
    for rooms, may in re.findall(r"^\| ([a-z, ]+) \| ([^|]+) \|$", text.split("What it may include:")[1].split("##")[0], re.M):
        may = re.sub(r"\([^)]*\)", "", may)
        for room in rooms.split(", "):
            if may.startswith("all but "):
                written[room] = set(ROOMS) - {"lib", "cli", room} - set(re.findall(r"[a-z]+", may[8:]))
            elif not may.startswith("only"):
                written[room] = set(re.findall(r"[a-z]+", may)) & set(ROOMS)
    for room, may in ROOMS.items():
        if written.get(room) != set(may.split()):
            say(f"doc/architecture.md: the row of {room} says {sorted(written.get(room, []))}, the test {sorted(may.split())}")
    for room in os.listdir(os.path.join(TOP, "src")):
        if room not in ROOMS:
            say(f"src/{room}/ is not in the table")


def compile_alone(path):
    with open(os.path.join(TOP, path)) as f:
        once = "#pragma once" in f.read()
    r = subprocess.run([*COMPILER, "-fsyntax-only", "-std=gnu11", "-D_GNU_SOURCE", '-DTOS_VERSION="0"', "-Wall", "-Wextra",
                        "-Werror", "-Wno-unused", "-I" + os.path.join(TOP, "src"), "-I" + os.path.join(TOP, "include"),
                        "-I" + TOP, "-x", "c", "-include", os.path.join(TOP, path), "/dev/null"], capture_output=True, text=True)
    lines = r.stderr.strip().splitlines()
    return path, once, r.returncode, lines[0] if lines else ""


def check_headers():
    # Lua and SQLite headers come from pkg-config folders where they are not in the default ones.
    for package in ("lua5.4", "lua-5.4"):
        r = subprocess.run(["pkg-config", "--cflags", package], capture_output=True, text=True)
        if r.returncode == 0:
            COMPILER.extend(r.stdout.split())
            break
    paths = [p for folder in ("include", "lib", "src") for p in sources(folder, (".h",))]
    with ThreadPoolExecutor(2) as pool:
        for path, once, rc, why in pool.map(compile_alone, paths):
            if not once:
                say(f"{path}: has no #pragma once")
            if rc:
                say(f"{path}: does not compile on its own: {why}")


def check_faults():
    """Each fault point is somewhere; those of the store's tables are counted from the first one."""
    with open(os.path.join(TOP, "src/base/fault.h")) as f:
        points = re.findall(r"^\tX\((\w+),", f.read(), re.M)
    text = ""
    for path in sources("src"):
        if path != "src/base/fault.h":
            with open(os.path.join(TOP, path)) as f:
                text += f.read()
    either = re.findall(r"FAULT_AT_EITHER\(.*?, (\w+), (\w+)\)", text)
    used = set(re.findall(r"FAULT_AT\((\w+)\)", text)) | set(re.findall(r"\bFAULT_(\w+)\b", text)) | {p for both in either for p in both}
    for point in points:
        if point not in used and not point.startswith("WRITE_"):
            say(f"src/base/fault.h: no code is at {point}")
    if len(points) < 80:
        say(f"src/base/fault.h: {len(points)} points were found")


for r in ROOMS:
    check_room(r)
check_kernel()
check_faults()
check_outside()
check_table()
check_headers()
sys.exit(bool(bad))
