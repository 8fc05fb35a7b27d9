#!/usr/bin/env python3
"""Write the corpora of fuzz_url (here) and of seal's fuzz_package, below the folder tests/fuzz that is named."""
import os
import sys

top = sys.argv[1]
sys.path.insert(0, os.path.join(top, "../data"))
from make_vectors import det  # noqa: E402

URLS = {
    "plain": ("http://dl.example.org/pkgs/a-1.tar", "/pkgs/b"), "https": ("https://[::1]:8443/x?y=z", "https://other.example/x"),
    "tos": ("tos://host0/sha256/" + "ab" * 32, "tos://*"), "up": ("http://h/a/../b", "../c"),
    "escaped": ("http://h/a%20b", "%2e%2e/x"), "user": ("http://u@h/", "//evil.example/x"),
    "place": ("http://h:8080/pkgs/x", "http://h:8080/pkgs/ admit private"), "case": ("HTTP://H/X", "?q"),
}
INDEXES = {"index": [b"one", b"two"], "index-none": [], "index-other": [{"code": -2, "text": "no"}], "index-text": ["x"]}
DESCRIPTION = {"abi": [1, 0], "files": {"x86_64": "probe.so"}, "where": "isolated", "inboxes": ["Probe"], "privileges": ""}
MANIFEST = {"name": "probe", "version": "1", "runtime": "extension-lua", "entry": "extension",
            "files": {"extension": bytes(32), "probe.so": bytes(32)}, "limits": {}, "permissions": [], "issued": 10**12,
            "expires": 4 * 10**12}
PACKAGES = {
    "description": b"d" + det(DESCRIPTION),
    "kernel": b"d" + det({**DESCRIPTION, "where": "kernel", "privileges": "read-proc", "inboxes": ["A", "B"]}),
    "many": b"d" + det({**DESCRIPTION, "inboxes": ["x" * 63] * 16}),
    "machine": b"d" + det({**DESCRIPTION, "files": {"any": "nothing"}}),
    "manifest": b"m" + det(MANIFEST),
    "bundle": det([b"manifest", {"extension": b"x"}]),
}

written = {**{f"download/corpus/url/{n}": b"u" + f"{a}\n{b}".encode() for n, (a, b) in URLS.items()},
           **{f"download/corpus/url/{n}": b"i" + det(v) for n, v in INDEXES.items()},
           **{f"seal/corpus/package/{n}": v for n, v in PACKAGES.items()}}
for name, data in written.items():
    os.makedirs(os.path.dirname(os.path.join(top, name)), exist_ok=True)
    with open(os.path.join(top, name), "wb") as f:
        f.write(data)
