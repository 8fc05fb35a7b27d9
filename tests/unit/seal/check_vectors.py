#!/usr/bin/python3
"""Signed objects across two implementations: ours in C, and this one on cbor2 and cryptography.

    check_vectors.py SEAL_TOOL DATA_FOLDER            what either makes, the other judges as it should
    check_vectors.py --write SEAL_TOOL DATA_FOLDER    makes the kept files anew

cose-python.json is made here with fixed keys, so it is the same each time; cose-c.json was made by
seal_tool. Both are also made afresh with random keys at each run.
"""
import datetime
import hashlib
import json
import os
import subprocess
import sys
import tempfile

import cbor2
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID

DAY = 86400
NOW = 1795305600  # 2026-11-22
SKEW_MS = 300000
KINDS = ("tos:root", "tos:registrar", "tos:joiner")


def stamp(seconds):
    return datetime.datetime(1970, 1, 1) + datetime.timedelta(seconds=seconds)


def der(cert):
    return cert.public_bytes(Encoding.DER)


# ---- making


class Maker:
    """Keys and serials come from a seed, so that the same seed makes the same bytes."""

    def __init__(self, seed):
        self.seed = seed
        self.n = 0
        self.cases = []
        self.root_key, self.registrar_key = self.key(), self.key()
        self.root = self.cert(self.root_key, None, self.root_key, "a domain", ["tos:root"],
                              ca=True, path=1, usage=("sign", "ca"))
        self.registrar = self.cert(self.root_key, self.root, self.registrar_key, "a registrar",
                                   ["tos:registrar"], ca=True, path=0, usage=("ca",))
        self.alice_key, self.host_key = self.key(), self.key()
        self.alice = self.by_root(self.alice_key, "alice",
                                  ["tos:principal:alice", "tos:role:owner"])
        self.host = self.by_registrar(self.host_key, "host1", ["tos:kernel:host1"])

    def random(self, size):
        self.n += 1
        return hashlib.sha512(self.seed + self.n.to_bytes(4, "big")).digest()[:size]

    def key(self):
        return ed25519.Ed25519PrivateKey.from_private_bytes(self.random(32))

    def cert(self, by_key, by, key, name, uris, ca=False, path=None, usage=("sign",),
             start=-DAY, end=365 * DAY, subject=None, names=None, extra=None):
        subject = subject or x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        public = key if not hasattr(key, "public_key") else key.public_key()
        b = x509.CertificateBuilder(
            issuer_name=by.subject if by else subject, subject_name=subject, public_key=public,
            serial_number=int.from_bytes(b"\x5a" + self.random(15), "big"),
            not_valid_before=stamp(NOW + start), not_valid_after=stamp(NOW + end))
        b = b.add_extension(x509.BasicConstraints(ca, path if ca else None), True)
        if usage:
            b = b.add_extension(x509.KeyUsage(
                "sign" in usage, False, False, False, False, "ca" in usage, False, False, False),
                True)
        names = names or [x509.UniformResourceIdentifier(u) for u in uris]
        b = b.add_extension(x509.SubjectAlternativeName(names), False)
        for extension, critical in extra or []:
            b = b.add_extension(extension, critical)
        return b.sign(by_key, None)

    def by_root(self, key, name, uris, **kw):
        return self.cert(self.root_key, self.root, key, name, uris, **kw)

    def by_registrar(self, key, name, uris, **kw):
        return self.cert(self.registrar_key, self.registrar, key, name, uris, **kw)

    def protected(self, kind, chain, alg=-8):
        chain = [c if isinstance(c, bytes) else der(c) for c in chain]
        return cbor2.dumps({1: alg, 16: "application/tos-" + kind,
                            33: chain[0] if len(chain) == 1 else chain}, canonical=True)

    def sign(self, kind, chain, key, payload=b"\xa0", aad=b"", context="Signature1",
             protected=None, unprotected=None):
        protected = protected or self.protected(kind, chain)
        tbs = cbor2.dumps([context, protected, aad, payload], canonical=True)
        return cbor2.dumps(cbor2.CBORTag(18, [protected, unprotected or {}, payload,
                                              key.sign(tbs)]), canonical=True)

    def revocation(self, *certs):
        serials = sorted(c.serial_number.to_bytes(16, "big") for c in certs)
        payload = cbor2.dumps({"issued": NOW * 1000, "number": 5, "revoked": serials},
                              canonical=True)
        return self.sign("revocation", [self.root], self.root_key, payload)

    def case(self, name, cose, result, kind="act", who=None, revocation=None, at=0):
        c = {"name": name, "kind": kind, "now_ms": (NOW + at) * 1000, "skew_ms": SKEW_MS,
             "root": der(self.root).hex(), "cose": cose.hex(), "result": result}
        if result == "ok":
            parts = cbor2.loads(cose).value
            c["who"] = who
            c["id"] = hashlib.sha256(cbor2.dumps([parts[0], parts[2]])).hexdigest()
        if revocation:
            c["revocation"] = revocation.hex()
        self.cases.append(c)

    def leaf(self, name, result, uris, cn="eve", by="root", via=None, **kw):
        """A case that differs in its leaf only."""
        key = self.key()
        cert = (self.by_root if by == "root" else self.by_registrar)(key, cn, uris, **kw)
        chain = [cert] if by == "root" else [cert, self.registrar]
        self.case(name, self.sign("act", via or chain, key), result, who=cn)


def good_cases(m):
    m.case("principal", m.sign("act", [m.alice], m.alice_key), "ok", who="alice")
    m.case("kernel through a registrar",
           m.sign("hop", [m.host, m.registrar], m.host_key, b"x" * 300), "ok", "hop", "host1")
    m.leaf("kernel by the root", "ok", ["tos:kernel:host2"], cn="host2")
    m.leaf("all roles", "ok", ["tos:principal:eve", "tos:role:admin", "tos:role:owner",
                               "tos:role:author", "tos:role:officer"])
    m.leaf("uncritical extension", "ok", ["tos:kernel:eve"],
           extra=[(x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.99999.1"),
                                              b"\x05\x00"), False)])
    m.leaf("just expired, within the skew", "ok", ["tos:kernel:eve"], end=-60)
    m.leaf("valid soon, within the skew", "ok", ["tos:kernel:eve"], start=60)
    m.leaf("valid beyond 2049", "ok", ["tos:kernel:eve"], end=36500 * DAY)
    m.case("revocation list without the signer", m.sign("act", [m.alice], m.alice_key), "ok",
           who="alice", revocation=m.revocation(m.host))
    m.case("empty revocation list", m.sign("act", [m.alice], m.alice_key), "ok", who="alice",
           revocation=m.revocation())


def standing_cases(m):
    m.leaf("expired", "expired", ["tos:kernel:eve"], end=-DAY / 2)
    m.leaf("not yet valid", "not-yet-valid", ["tos:kernel:eve"], start=DAY)
    m.case("expired registrar", m.sign("act", [m.host, m.registrar], m.host_key), "expired",
           at=366 * DAY)
    m.case("revoked", m.sign("act", [m.alice], m.alice_key), "revoked",
           revocation=m.revocation(m.host, m.alice))
    m.case("revoked registrar", m.sign("act", [m.host, m.registrar], m.host_key), "revoked",
           revocation=m.revocation(m.registrar))
    good = bytearray(m.revocation(m.host))
    good[-1] ^= 1
    m.case("revocation list with a bad signature", m.sign("act", [m.alice], m.alice_key),
           "bad-signature", revocation=bytes(good))
    m.case("revocation list by a principal", m.sign("act", [m.alice], m.alice_key), "untrusted",
           revocation=m.sign("revocation", [m.alice], m.alice_key))


def issuer_cases(m):
    m.leaf("principal through a registrar", "untrusted", ["tos:principal:eve", "tos:role:admin"],
           by="registrar")
    m.leaf("registrar as signer", "untrusted", ["tos:registrar"], ca=True, path=0, usage=("ca",))
    m.leaf("joiner", "untrusted", ["tos:joiner"])
    second_key = m.key()
    second = m.by_registrar(second_key, "second", ["tos:registrar"], ca=True, path=0,
                            usage=("ca",))
    key = m.key()
    leaf = m.cert(second_key, second, key, "eve", ["tos:kernel:eve"])
    m.case("registrar by a registrar", m.sign("act", [leaf, second], key), "untrusted")
    m.case("registrar by a registrar, both shown",
           m.sign("act", [leaf, second, m.registrar], key), "untrusted")
    child = m.cert(m.host_key, m.host, key, "eve", ["tos:kernel:eve"])
    m.case("issued by a kernel", m.sign("act", [child, m.host], key), "untrusted")
    m.case("chain without its registrar", m.sign("act", [m.host], m.host_key), "untrusted")
    m.case("chain with the root", m.sign("act", [m.alice, m.root], m.alice_key), "untrusted")
    m.case("signed by the root", m.sign("act", [m.root], m.root_key), "untrusted")
    double_key = m.key()
    double = m.cert(double_key, None, double_key, "a domain", ["tos:root"], ca=True, path=1,
                    usage=("sign", "ca"))
    fake = m.cert(double_key, double, key, "eve", ["tos:kernel:eve"])
    m.case("another root of the same name", m.sign("act", [fake], key), "untrusted")
    m.case("another root, shown", m.sign("act", [fake, double], key), "untrusted")


def profile_cases(m):
    kernel = ["tos:kernel:eve"]
    m.leaf("leaf that is an authority", "malformed", kernel, ca=True, path=0)
    m.leaf("leaf without key usage", "malformed", kernel, usage=())
    m.leaf("leaf that may sign certificates", "malformed", kernel, usage=("sign", "ca"))
    m.leaf("two kinds", "malformed", ["tos:kernel:eve", "tos:principal:eve", "tos:role:owner"])
    m.leaf("no kind", "malformed", ["tos:role:owner"])
    m.leaf("two names", "malformed", ["tos:kernel:eve", "tos:kernel:host1"])
    m.leaf("name that is not the subject's", "malformed", ["tos:kernel:host1"])
    m.leaf("longer name than the subject's", "malformed", ["tos:kernel:eve2"])
    m.leaf("unknown purpose", "malformed", ["tos:kernel:eve", "tos:emperor"])
    m.leaf("unknown role", "malformed", ["tos:principal:eve", "tos:role:king"])
    m.leaf("role twice", "malformed", ["tos:principal:eve", "tos:role:owner", "tos:role:owner"])
    m.leaf("principal without a role", "malformed", ["tos:principal:eve"])
    m.leaf("kernel with a role", "malformed", ["tos:kernel:eve", "tos:role:admin"])
    m.leaf("DNS name beside", "malformed", [], names=[
        x509.UniformResourceIdentifier("tos:kernel:eve"), x509.DNSName("eve")])
    m.leaf("upper-case kernel name", "malformed", ["tos:kernel:Eve"], cn="Eve")
    m.leaf("more than a common name", "malformed", kernel, subject=x509.Name([
        x509.NameAttribute(NameOID.ORGANIZATION_NAME, "x"),
        x509.NameAttribute(NameOID.COMMON_NAME, "eve")]))
    m.leaf("unknown critical extension", "malformed", kernel, extra=[(x509.UnrecognizedExtension(
        x509.ObjectIdentifier("1.3.6.1.4.1.99999.1"), b"\x05\x00"), True)])
    m.leaf("certificate of more than 4096 bytes", "too-large", kernel, extra=[(
        x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.99999.1"),
                                   b"\x04\x82\x10\x00" + bytes(4096)), False)])
    p256 = ec.derive_private_key(int.from_bytes(m.random(31), "big"), ec.SECP256R1())
    cert = m.by_root(p256.public_key(), "eve", kernel)
    m.case("P-256 key", m.sign("act", [cert], m.key()), "malformed")
    long_registrar = m.cert(m.root_key, m.root, m.registrar_key, "a registrar",
                            ["tos:registrar"], ca=True, path=3, usage=("ca",))
    m.case("registrar with a longer path", m.sign("act", [m.host, long_registrar], m.host_key),
           "malformed")
    m.case("junk as certificate", m.sign("act", [b"junk"], m.alice_key), "malformed")


def cose_cases(m):
    chain, key = [m.alice], m.alice_key
    good = m.sign("act", chain, key)
    parts = cbor2.loads(good).value
    m.case("another payload", cbor2.dumps(cbor2.CBORTag(18, [parts[0], {}, b"\xa1", parts[3]])),
           "bad-signature")
    m.case("another's signature", m.sign("act", chain, m.host_key), "bad-signature")
    m.case("zero signature", cbor2.dumps(cbor2.CBORTag(18, parts[:3] + [bytes(64)])),
           "bad-signature")
    m.case("external data", m.sign("act", chain, key, aad=b"x"), "bad-signature")
    m.case("context of another structure", m.sign("act", chain, key, context="Signature"),
           "bad-signature")
    m.case("another kind", m.sign("ticket", chain, key), "malformed")
    m.case("kind of another application", m.sign("act", chain, key, protected=cbor2.dumps(
        {1: -8, 16: "application/act", 33: der(m.alice)}, canonical=True)), "malformed")
    m.case("another algorithm", m.sign("act", chain, key,
                                       protected=m.protected("act", chain, -7)), "malformed")
    m.case("unprotected header", m.sign("act", chain, key, unprotected={4: b"x"}), "too-large")
    m.case("unknown header", m.sign("act", chain, key, protected=cbor2.dumps(
        {1: -8, 16: "application/tos-act", 33: der(m.alice), 99: 1}, canonical=True)), "too-large")
    m.case("no chain", m.sign("act", chain, key, protected=cbor2.dumps(
        {1: -8, 16: "application/tos-act"}, canonical=True)), "malformed")
    m.case("chain of one as an array", m.sign("act", chain, key, protected=cbor2.dumps(
        {1: -8, 16: "application/tos-act", 33: [der(m.alice)]}, canonical=True)), "malformed")
    m.case("no tag", cbor2.dumps(parts), "malformed")
    m.case("tag of COSE_Sign", cbor2.dumps(cbor2.CBORTag(98, parts)), "malformed")
    m.case("detached payload", cbor2.dumps(cbor2.CBORTag(18, [parts[0], {}, None, parts[3]])),
           "malformed")
    m.case("short signature", cbor2.dumps(cbor2.CBORTag(18, parts[:3] + [parts[3][:63]])),
           "malformed")
    m.case("bytes behind it", good + b"\0", "malformed")
    m.case("indefinite length", b"\xd2\x9f" + good[2:] + b"\xff", "malformed")


# ---- batches of hop records: the hash tree of RFC 9162, section 2.1, from its definitions


def leaf(hop):
    return hashlib.sha256(b"\0" + hop).digest()


def split(n):
    """The largest power of two below n."""
    return 1 << (n - 1).bit_length() - 1


def tree_root(hops):
    if len(hops) == 1:
        return leaf(hops[0])
    k = split(len(hops))
    return hashlib.sha256(b"\1" + tree_root(hops[:k]) + tree_root(hops[k:])).digest()


def tree_path(i, hops):
    if len(hops) == 1:
        return []
    k = split(len(hops))
    if i < k:
        return tree_path(i, hops[:k]) + [tree_root(hops[k:])]
    return tree_path(i - k, hops[k:]) + [tree_root(hops[:k])]


def root_of(hop, i, n, path):
    """What the path leads to, from the top: the last digest is the sibling of the first split."""
    if n == 1:
        assert not path
        return leaf(hop)
    k = split(n)
    if i < k:
        return hashlib.sha256(b"\1" + root_of(hop, i, k, path[:-1]) + path[-1]).digest()
    return hashlib.sha256(b"\1" + path[-1] + root_of(hop, i - k, n - k, path[:-1])).digest()


def batch_cases(m):
    chain, key = [m.host, m.registrar], m.host_key

    def batch(hops, **kw):
        payload = {"root": tree_root(hops), "count": len(hops), **kw}
        return m.sign("hops", chain, key, cbor2.dumps(payload, canonical=True))

    def case(name, result, hop, i, path, cose):
        m.case(name, cbor2.dumps([hop, i, path, cose]), result, "record")

    def good(name, hop, i, path, cose):
        m.cases.append({"name": name, "kind": "record", "now_ms": NOW * 1000, "skew_ms": SKEW_MS, "root": der(m.root).hex(),
                        "cose": cbor2.dumps([hop, i, path, cose]).hex(), "result": "ok", "who": "host1"})

    for n in (2, 3, 4, 5, 7, 8, 13, 256):
        hops = [b"hop %d" % i for i in range(n)]
        signed = batch(hops)
        for i in {0, 1, n // 2, n - 2, n - 1}:
            good(f"{i} of {n}", hops[i], i, tree_path(i, hops), signed)
    hops = [b"hop %d" % i for i in range(6)]
    signed, path = batch(hops), tree_path(3, hops)
    case("another hop", "bad-signature", b"forged", 3, path, signed)
    case("another's place", "bad-signature", hops[3], 2, path, signed)
    case("another's path", "bad-signature", hops[3], 3, tree_path(2, hops), signed)
    case("beyond the batch", "bad-signature", hops[3], 6, path, signed)
    case("a path too short", "bad-signature", hops[3], 3, path[:-1], signed)
    case("a path too long", "bad-signature", hops[3], 3, path + [bytes(32)], signed)
    case("a node as a leaf", "bad-signature", leaf(hops[0]) + leaf(hops[1]), 0, tree_path(0, hops)[1:], signed)
    case("another batch's signature", "bad-signature", hops[3], 3, path, batch([b"x"] * 6))
    case("another count", "bad-signature", hops[3], 3, path, batch(hops, count=4))
    case("the root signed as a hop", "malformed", hops[3], 3, path, m.sign("hop", chain, key, cbor2.dumps(
        {"root": tree_root(hops), "count": 6}, canonical=True)))
    case("a batch of one", "malformed", hops[0], 0, [], batch(hops[:1]))
    case("a batch too large", "too-large", hops[3], 3, path, batch(hops, count=257))
    case("a batch with more in it", "too-large", hops[3], 3, path, batch(hops, more=1))
    case("a flipped signature", "bad-signature", hops[3], 3, path, signed[:-1] + bytes([signed[-1] ^ 1]))
    case("signed by another", "bad-signature", hops[3], 3, path, m.sign("hops", chain, m.alice_key, cbor2.dumps(
        {"root": tree_root(hops), "count": 6}, canonical=True)))


def make(seed):
    m = Maker(seed)
    for add in (good_cases, standing_cases, issuer_cases, profile_cases, cose_cases, batch_cases):
        add(m)
    return {"comment": "Made by tests/unit/seal/check_vectors.py with fixed keys.",
            "cases": m.cases}


# ---- judging what C made


class Refused(Exception):
    pass


def utc(moment):
    return (moment - datetime.datetime(1970, 1, 1)).total_seconds()


def signed_by(cert, issuer):
    try:
        issuer.public_key().verify(cert.signature, cert.tbs_certificate_bytes)
    except InvalidSignature:
        return False
    return cert.issuer == issuer.subject


def describe(cert):
    uris = cert.extensions.get_extension_for_class(
        x509.SubjectAlternativeName).value.get_values_for_type(x509.UniformResourceIdentifier)
    usage = cert.extensions.get_extension_for_class(x509.KeyUsage)
    basic = cert.extensions.get_extension_for_class(x509.BasicConstraints)
    name = cert.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value
    assert usage.critical and basic.critical
    assert cert.version == x509.Version.v3 and 0 < cert.serial_number < 1 << 159
    kinds = [u for u in uris if not u.startswith("tos:role:")]
    assert len(kinds) == 1
    kind = kinds[0]
    if kind not in KINDS:
        assert kind in ("tos:kernel:" + name, "tos:principal:" + name)
    authority = kind in ("tos:root", "tos:registrar")
    assert basic.value.ca == authority and usage.value.key_cert_sign == authority
    assert usage.value.digital_signature == (kind != "tos:registrar")
    assert basic.value.path_length == {"tos:root": 1, "tos:registrar": 0}.get(kind)
    identifier = cert.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    raw = cert.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    assert identifier.digest == hashlib.sha1(raw).digest()
    return kind, name


def open_cose(data, kind):
    tag = cbor2.loads(data)
    assert cbor2.dumps(tag, canonical=True) == data and tag.tag == 18
    protected, unprotected, payload, signature = tag.value
    header = cbor2.loads(protected)
    assert header[1] == -8 and header[16] == "application/tos-" + kind and set(header) == {1, 16, 33}
    assert cbor2.dumps(header, canonical=True) == protected and unprotected == {}
    chain = header[33] if isinstance(header[33], list) else [header[33]]
    chain = [x509.load_der_x509_certificate(c) for c in chain]
    tbs = cbor2.dumps(["Signature1", protected, b"", payload], canonical=True)
    chain[0].public_key().verify(signature, tbs)
    return chain, payload, hashlib.sha256(cbor2.dumps([protected, payload])).hexdigest()


def revoked_serials(case, root):
    if "revocation" not in case:
        return []
    chain, payload, _ = open_cose(bytes.fromhex(case["revocation"]), "revocation")
    assert chain == [root]
    content = cbor2.loads(payload)
    assert set(content) == {"issued", "number", "revoked"}
    assert cbor2.dumps(content, canonical=True) == payload
    return [int.from_bytes(s, "big") for s in content["revoked"]]


def judge(case):
    root = x509.load_der_x509_certificate(bytes.fromhex(case["root"]))
    assert describe(root)[0] == "tos:root" and signed_by(root, root)
    if case["kind"] == "record":
        data = bytes.fromhex(case["cose"])
        hop, index, path, signed = cbor2.loads(data)
        assert cbor2.dumps([hop, index, path, signed], canonical=True) == data and hop == case["hop"].encode()
        chain, payload, _ = open_cose(signed, "hops")
        batch = cbor2.loads(payload)
        assert set(batch) == {"root", "count"} and index < batch["count"]
        assert root_of(hop, index, batch["count"], path) == batch["root"]
    else:
        chain, _, digest = open_cose(bytes.fromhex(case["cose"]), case["kind"])
        assert digest == case["id"]
    described = [describe(c) for c in chain]
    assert described[0][1] == case["who"]
    if len(chain) > 1:
        assert described[0][0].startswith("tos:kernel:") and described[1][0] == "tos:registrar"
    for cert, issuer in zip(chain, chain[1:] + [root]):
        assert signed_by(cert, issuer)
        assert utc(cert.not_valid_before) <= case["now_ms"] / 1000 <= utc(cert.not_valid_after)
    bad = revoked_serials(case, root)
    return "revoked" if any(c.serial_number in bad for c in chain) else "ok"


def judge_all(name, text):
    cases = json.loads(text)["cases"]
    assert len(cases) >= 5
    for case in cases:
        result = judge(case)
        assert result == case["result"], f"{name}: {case['name']}: {result}"
    print(f"{name}: {len(cases)} cases of C judged alike")


def main():
    args = sys.argv[1:]
    write = args[:1] == ["--write"]
    tool, data = args[write:]
    from_python, from_c = (os.path.join(data, f) for f in ("cose-python.json", "cose-c.json"))
    fixed = json.dumps(make(b"tos test vectors"), indent=1) + "\n"
    made = subprocess.run([tool, "make"], check=True, stdout=subprocess.PIPE, text=True).stdout
    if write:
        with open(from_python, "w") as f:
            f.write(fixed)
        with open(from_c, "w") as f:
            f.write(made)
    with open(from_python) as f:
        kept = f.read()
    assert kept == fixed, "cose-python.json is not what this program makes"
    with open(from_c) as f:
        judge_all("kept", f.read())
    judge_all("fresh", made)
    subprocess.run([tool, "check", from_python], check=True)
    with tempfile.NamedTemporaryFile("w", suffix=".json") as f:
        json.dump(make(os.urandom(16)), f)
        f.flush()
        subprocess.run([tool, "check", f.name], check=True, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    main()
