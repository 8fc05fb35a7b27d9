#!/usr/bin/env python3
"""Both ways between our codec and an independent one: what C makes Python verifies, and what Python
makes C decodes and encodes again; and the examples of doc/protocol.md. Arguments: wire_tool, the folder of
the vectors, protocol.md. Exit 77: no cbor2."""
import json
import random
import re
import subprocess
import sys

tool_path, data = sys.argv[1], sys.argv[2]
sys.path.insert(0, data)
try:
    import cbor2
    import make_vectors
except ImportError as e:
    print("skipped:", e)
    sys.exit(77)

tool = subprocess.Popen([tool_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def ask(*words):
    tool.stdin.write(" ".join(words) + "\n")
    tool.stdin.flush()
    return tool.stdout.readline().strip()


def claim(ok, *what):
    if not ok:
        print("FAILED:", *what)
        sys.exit(1)


golden = {row["kind"]: row["hex"] for row in json.load(open(data + "/wire.json"))}
claim(golden == {k: v.hex() for k, v in make_vectors.VECTORS.items()}, "wire.json is not what make_vectors.py makes")
claim(set(ask("kinds").split()) == set(golden), "the kinds differ", ask("kinds"))
for kind, hexed in golden.items():
    made = ask("make", kind)
    claim(made == hexed, kind, "made by C", made, "expected", hexed)
    body = bytes.fromhex(made)
    if make_vectors.VECTORS[kind][:1] == b"\0":
        claim(int.from_bytes(body[:4], "big") == len(body) - 4, kind, "length")
        body = body[4:]
    cbor2.loads(body)
    claim(ask("again", kind, hexed) == "ok " + hexed, kind, "made by Python", ask("again", kind, hexed))
    # Nothing is accepted in part, and nothing with something behind it.
    for cut in range(0, len(hexed), 2 * max(1, len(hexed) // 60)):
        claim(not ask("again", kind, hexed[:cut]).startswith("ok"), kind, "accepted when cut at", cut // 2)
    claim(not ask("again", kind, hexed + "00").startswith("ok"), kind, "accepted with a byte behind")

# Values at random, encoded by Python.
rnd = random.Random(8949)


def scalar():
    return rnd.choice([
        lambda: rnd.randrange(-2**rnd.randrange(1, 64), 2**rnd.randrange(1, 64)),
        lambda: rnd.uniform(-1, 1) * 10.0**rnd.randrange(-300, 300),
        lambda: float(rnd.randrange(-3000, 3000)) / 2**rnd.randrange(0, 30),
        lambda: rnd.randbytes(rnd.randrange(0, 300)),
        lambda: "".join(chr(rnd.choice([65, 0xe9, 0x20ac, 0x1f600, 10])) for _ in range(rnd.randrange(0, 30))),
        lambda: rnd.choice([True, False, None, float("inf"), float("-inf"), float("nan"), 0.0, -0.0]),
    ])()


def value(depth):
    kind = rnd.randrange(4) if depth else 3
    if kind == 0:
        return [value(depth - 1) for _ in range(rnd.randrange(0, 6))]
    if kind == 1:
        keys = [k for k in (scalar() for _ in range(rnd.randrange(0, 30))) if k == k]
        return {k: value(depth - 1) for k in keys}  # two NaN would be the same key twice
    return scalar()


for _ in range(300):
    encoded = make_vectors.det(value(4))
    if len(encoded) < 400000:
        got = ask("again", "cbor", encoded.hex())
        claim(got == "ok " + encoded.hex(), "value", encoded.hex(), got)

# Examples of the manual: "<!-- example: KIND -->", diagnostic notation, an empty line, hex.
manual = open(sys.argv[3]).read()
examples = re.findall(r"<!-- example: (\S+) -->\n```text\n(.*?)\n\n(.*?)\n```", manual, re.S)
claim(len(examples) >= 15, "protocol.md has only", len(examples), "examples")
for kind, diag, hexed in examples:
    claim("".join(hexed.split()) == golden[kind], "protocol.md:", kind, "is not", golden[kind])
    claim("".join(diag.split()) == "".join(ask("diag", kind).split()), "protocol.md:", kind, "is not", ask("diag", kind))
tool.stdin.close()
claim(tool.wait() == 0, "wire_tool ended badly")
print("both ways:", len(golden), "kinds")
