#!/usr/bin/python3
"""Writes the first inputs of this folder's fuzz targets from the kept vectors (tests/data).

    make_corpus.py cose-python.json
"""
import base64
import json
import os
import ssl
import sys

import cbor2

HERE = os.path.dirname(os.path.abspath(__file__))
CERTS = 12  # the good ones; the others differ in little
TOKENS = (["192.0.2.1:21212"], ["h:1", "[2001:db8::1]:21212", "host0.example.org", "a"])


def write(target, name, data):
    folder = os.path.join(HERE, "corpus", target)
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, name), "wb") as f:
        f.write(data)


def chain_of(cose):
    chain = cbor2.loads(cbor2.loads(cose).value[0])[33]
    return chain if isinstance(chain, list) else [chain]


def write_signed(cases):
    seen = set()
    for i, case in enumerate(cases[:CERTS]):
        cose = bytes.fromhex(case["cose"])
        write("cose_verify", f"{i:02}", cose)
        for cert in chain_of(cose) + [bytes.fromhex(case["root"])]:
            if cert not in seen:
                write("cert_info", f"{len(seen):02}", cert)
                seen.add(cert)
        if "revocation" in case:
            whole = bytes.fromhex(case["revocation"])
            write("revocation", f"{i:02}", whole)
            write("revocation", f"{i:02}-content", cbor2.loads(whole).value[2])


def write_root(root):
    with open(os.path.join(HERE, "root.inc"), "w") as f:
        f.write("/* The root of tests/data/cose-python.json; make_corpus.py wrote this. */\n")
        for i in range(0, len(root), 12):
            f.write(" ".join(f"0x{b:02x}," for b in root[i:i + 12]) + "\n")


def write_tokens():
    for i, addresses in enumerate(TOKENS):
        data = cbor2.dumps({"name": "host7", "secret": bytes(32), "expires": 1795305600000,
                            "addresses": addresses, "fingerprint": bytes(range(32))},
                           canonical=True)
        text = base64.urlsafe_b64encode(data).rstrip(b"=")
        write("token", str(i), b"tos1." + text)


def write_hello():
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    sent = ssl.MemoryBIO()
    try:
        context.wrap_bio(ssl.MemoryBIO(), sent).do_handshake()
    except ssl.SSLWantReadError:
        pass
    write("tls", "client-hello", sent.read())
    write("tls", "http", b"GET / HTTP/1.1\r\n\r\n")


def main():
    with open(sys.argv[1]) as f:
        cases = json.load(f)["cases"]
    write_signed(cases)
    write_root(bytes.fromhex(cases[0]["root"]))
    write_tokens()
    write_hello()


if __name__ == "__main__":
    main()
