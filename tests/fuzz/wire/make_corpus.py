#!/usr/bin/env python3
"""Writes the first inputs of corpus/: the golden vectors of tests/data, and the vectors of RFC 8949."""
import json
import pathlib

here = pathlib.Path(__file__).parent
data = here.parent.parent / "data"
golden = {row["kind"]: bytes.fromhex(row["hex"]) for row in json.loads((data / "wire.json").read_text())}
FRAMES = ["hello", "hello-audit", "hello-client", "post", "credit", "ping", "pong", "want", "chunk", "lack", "vouch", "bye",
          "carry", "taken"]


def put(target, name, content):
    folder = here / "corpus" / target
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(content)


for kind, content in golden.items():
    put(kind.split("-")[0], kind, content)
    put("conversation" if kind in FRAMES else "cbor", kind, (b"\x80" if kind in FRAMES else b"") + content)
put("conversation", "all", b"\x55" + b"".join(golden[kind] for kind in FRAMES))
for i, vector in enumerate(json.loads((data / "rfc8949-appendix-a.json").read_text())):
    put("cbor", f"rfc8949-{i:02}", bytes.fromhex(vector["hex"]))
