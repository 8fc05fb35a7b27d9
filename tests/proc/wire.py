"""The wire from the other side: frames, signed objects and certificates made by python3-cbor2 and
python3-cryptography, for tests that say what no honest client or kernel would say (doc/protocol.md).
"""
import datetime
import hashlib
import os
import socket
import ssl
import struct
import sys
import time

import cbor2
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.x509.oid import NameOID

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "data"))
from make_vectors import Tag, det  # noqa: E402  the deterministic encoding, written from the RFC

ONEWAY, CALL, ANSWER, FAILURE = range(4)
HELLO, POST, CREDIT, PING, PONG, WANT, CHUNK, LACK, VOUCH, BYE = range(10)
LIMITS = {"cpu": 10000, "memory": 32 << 20, "lifetime": 3600000, "hops": 64, "posts": 1000, "sent": 64 << 20,
          "state": 4 << 20, "inbox": 256, "clones": 0, "places": 0, "channels": 0, "programs": 0}


def now_ms():
    return time.time_ns() // 1_000_000


def sha(data):
    return hashlib.sha256(data).digest()


class Failure(Exception):
    """The answer was a failure: its code and text."""

    def __init__(self, code, text):
        super().__init__(f"{code}: {text}")
        self.code, self.text = code, text


class Closed(Exception):
    """The other side ended the connection, with this bye if it said one."""

    def __init__(self, code="", text=""):
        super().__init__(f"closed {code} {text}")
        self.code, self.text = code, text


# ---- certificates and keys

class Signer:
    """A key and the chain above it, root left out."""

    def __init__(self, key, chain):
        self.key, self.chain = key, chain

    @property
    def name(self):
        cert = x509.load_der_x509_certificate(self.chain[0])
        return cert.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value

    @property
    def serial(self):
        n = x509.load_der_x509_certificate(self.chain[0]).serial_number
        return n.to_bytes(n.bit_length() // 8 + 1, "big")

    @property
    def public(self):
        return self.key.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)

    def pem(self, directory, name):
        """key and chain as two files, for ssl."""
        key, cert = os.path.join(directory, name + ".key"), os.path.join(directory, name + ".crt")
        with open(key, "wb") as f:
            f.write(self.key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8,
                                           serialization.NoEncryption()))
        with open(cert, "wb") as f:
            for der in self.chain:
                f.write(x509.load_der_x509_certificate(der).public_bytes(serialization.Encoding.PEM))
        return key, cert


def load(key_path, cert_path):
    with open(key_path, "rb") as f:
        key = serialization.load_pem_private_key(f.read(), None)
    with open(cert_path) as f:
        pems = f.read().split("-----END CERTIFICATE-----\n")[:-1]
    return Signer(key, [ssl.PEM_cert_to_DER_cert(p + "-----END CERTIFICATE-----\n") for p in pems])


def issue(name, uris, issuer=None, ca=False, path_length=None, begin_s=-600, life_s=86400, key=None):
    """A certificate as src/seal makes them; without an issuer it is self-signed (a root, a joiner)."""
    key = key or Ed25519PrivateKey.generate()
    now = datetime.datetime.now(datetime.timezone.utc)
    begin = now + datetime.timedelta(seconds=begin_s)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    above = x509.load_der_x509_certificate(issuer.chain[0]) if issuer else None
    public = key.public_key()
    b = (x509.CertificateBuilder().subject_name(subject).issuer_name(above.subject if above else subject)
         .public_key(public).serial_number(x509.random_serial_number() >> 8)
         .not_valid_before(begin).not_valid_after(begin + datetime.timedelta(seconds=life_s))
         .add_extension(x509.BasicConstraints(ca=ca, path_length=path_length), critical=True)
         .add_extension(x509.KeyUsage(digital_signature=not ca or not issuer, content_commitment=False,
                                      key_encipherment=False, data_encipherment=False, key_agreement=False,
                                      key_cert_sign=ca, crl_sign=False, encipher_only=False,
                                      decipher_only=False), critical=True)
         .add_extension(x509.SubjectAlternativeName([x509.UniformResourceIdentifier(u) for u in uris]),
                        critical=False)
         .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
         .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(
             above.public_key() if above else public), critical=False))
    cert = b.sign(issuer.key if issuer else key, None)
    return Signer(key, [cert.public_bytes(serialization.Encoding.DER)])


def root(name="tos root"):
    return issue(name, ["tos:root"], ca=True, path_length=1)


def principal(name, roles, issuer, **kw):
    return issue(name, [f"tos:principal:{name}"] + [f"tos:role:{r}" for r in roles], issuer, **kw)


def joiner():
    return issue("joiner", ["tos:joiner"])


# ---- signed objects

def sign(signer, kind, payload):
    """COSE_Sign1 over a payload (bytes, or a map that is encoded)."""
    if not isinstance(payload, bytes):
        payload = det(payload)
    chain = signer.chain
    protected = det({1: -8, 16: "application/tos-" + kind, 33: chain[0] if len(chain) == 1 else list(chain)})
    signature = signer.key.sign(det(["Signature1", protected, b"", payload]))
    return det(Tag(18, [protected, {}, payload, signature]))


def flip(data, at=-1):
    """The same with one bit turned over."""
    out = bytearray(data)
    out[at] ^= 1
    return bytes(out)


def bundle(author, source="function begin(self) end\n", name="test", files=None, **changes):
    files = files or {"main.lua": source.encode()}
    manifest = {"name": name, "version": "1", "runtime": "lua5.4", "entry": "main.lua",
                "files": {f: sha(c) for f, c in files.items()}, "permissions": [], "limits": {},
                "issued": now_ms(), "expires": now_ms() + 3600000, **changes}
    return det([sign(author, "manifest", manifest), files])


def ticket(given, once, code, briefcase=b"\xa0", path=(), **changes):
    return {"name": given, "nonce": once, "home": given.split("#")[0], "alternate": "", "code": sha(code),
            "briefcase": sha(briefcase), "path": list(path), "itinerant": False, "limits": dict(LIMITS),
            "options": {"fast": False, "on-unreachable": "wait=5000"}, "issued": now_ms(),
            "expires": now_ms() + 3600000, **changes}


def envelope(ticket_cose, code, **changes):
    """What travels of a carrier that has not run yet."""
    return {"ticket": ticket_cose, "code": sha(code), "briefcase": {}, "path": [], "state": b"", "counters": {}, "trail": [],
            "log": [], "undelivered": [], "channels": [], "hops": [], **changes}


def parts(env):
    """The digests of an envelope's parts, as a hop record has them."""
    out = {p: sha(det(env[p])) for p in ("state", "path", "counters", "trail", "log", "undelivered", "channels")}
    return out | {"folder/" + name: sha(det([name, elements])) for name, elements in env["briefcase"].items()}


def hop(env, sender, dest, n=0, **changes):
    """The payload of the record of departure n."""
    protected, _, payload, _ = cbor2.loads(env["ticket"]).value
    return {"id": sha(det([protected, payload])), "suffix": "", "e": [1, bytes(8)], "n": n, "from": sender, "dest": dest,
            "kind": 0, "parts": parts(env), "prev": sha(env["hops"][-1]) if env["hops"] else bytes(32), "time": now_ms(),
            **changes}


def tree_root(leaves):
    """RFC 9162, section 2.1."""
    if len(leaves) == 1:
        return hashlib.sha256(b"\0" + leaves[0]).digest()
    k = 1 << (len(leaves) - 1).bit_length() - 1
    return hashlib.sha256(b"\1" + tree_root(leaves[:k]) + tree_root(leaves[k:])).digest()


def tree_path(i, leaves):
    if len(leaves) == 1:
        return []
    k = 1 << (len(leaves) - 1).bit_length() - 1
    if i < k:
        return tree_path(i, leaves[:k]) + [tree_root(leaves[k:])]
    return tree_path(i - k, leaves[k:]) + [tree_root(leaves[:k])]


def batch(signer, hops):
    """The records of these hops (payloads) under one signature."""
    hops = [det(h) for h in hops]
    cose = sign(signer, "hops", {"root": tree_root(hops), "count": len(hops)})
    return [det([h, i, tree_path(i, hops), cose]) for i, h in enumerate(hops)]


def act(signer, kernel, what, target, args=None, **changes):
    return sign(signer, "act", {"act": what, "args": args or {}, "deadline": now_ms() + 60000, "kernel": kernel,
                                "nonce": os.urandom(16), "target": target, **changes})


# ---- a connection

def to_bytes(frame):
    body = det(frame)
    return struct.pack(">I", len(body)) + body


class Connection:
    """Frames over a connected socket. Every wait has a deadline."""

    def __init__(self, sock, seconds=30):
        self.sock = sock
        sock.settimeout(seconds)
        self.pending, self.tag, self.name, self.credit = b"", 0, "", 0
        self.seen = []  # frames that nobody waited for

    def close(self):
        self.sock.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def raw(self, data):
        self.sock.sendall(data)

    def send(self, *frame):
        self.raw(to_bytes(list(frame)))

    def read(self, n):
        while len(self.pending) < n:
            try:
                got = self.sock.recv(65536)
            except (ConnectionError, ssl.SSLError) as e:
                raise Closed(text=str(e)) from e
            if not got:
                raise Closed()
            self.pending += got
        out, self.pending = self.pending[:n], self.pending[n:]
        return out

    def frame(self, seconds=None):
        """The next frame but pings (answered) and credit (counted). Pings alone do not make it wait longer than so."""
        end = time.monotonic() + seconds if seconds is not None else None
        while True:
            if end and time.monotonic() > end:
                raise TimeoutError(f"no frame but pings within {seconds:g} s")
            f = cbor2.loads(self.read(struct.unpack(">I", self.read(4))[0]))
            if f[0] == PING:
                self.send(PONG, f[1])
            elif f[0] == CREDIT:
                self.credit += f[1]
            elif f[0] == BYE:
                raise Closed(f[1], f[2])
            elif f[0] != PONG:
                return f

    def hello(self, **fields):
        h = {"version": [1, 1], "name": "", "domain": "", "boot": [0, bytes(16)], "store": 0, "seen": 0,
             "revocation": 0, **fields}
        self.send(HELLO, h)
        self.send(CREDIT, 1000, 100)
        f = self.frame()
        assert f[0] == HELLO, f
        self.server = f[1]
        return f[1]

    def post(self, dest, verb, *elements, kind=ONEWAY, sender="", tag=0, deadline_ms=20000):
        self.send(POST, kind, dest, sender, tag, deadline_ms, b"", [verb, list(elements)])

    def call(self, dest, verb, *elements, sender="", deadline_ms=20000):
        """The first element of the answer; Failure if it is one."""
        self.tag += 1
        self.post(dest, verb, *elements, kind=CALL, sender=sender, tag=self.tag, deadline_ms=deadline_ms)
        return self.answer(self.tag, deadline_ms / 1000 + 10)

    def answer(self, tag, seconds=60):
        end = time.monotonic() + seconds
        while True:
            f = self.frame(end - time.monotonic())
            if f[0] == POST and f[1] in (ANSWER, FAILURE) and f[4] == tag:
                folder = f[7]
                if f[1] == FAILURE:
                    raise Failure(folder[1][0], folder[1][1])
                return folder[1][0] if folder[1] else None
            self.seen.append(f)

    def closed(self):
        """Read until the other side ends the connection; its Closed."""
        try:
            while True:
                self.seen.append(self.frame())
        except Closed as e:
            return e


def connect_local(path):
    s = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    s.connect(path)
    return Connection(s)


def connect_tls(address, key, cert):
    host, port = address.rsplit(":", 1)
    ctx = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    ctx.minimum_version = ssl.TLSVersion.TLSv1_3
    ctx.check_hostname = False
    ctx.verify_mode = ssl.CERT_NONE
    ctx.load_cert_chain(cert, key)
    s = socket.create_connection((host, int(port)), timeout=30)
    return Connection(ctx.wrap_socket(s))


def failure(fn, *args, **kw):
    """The Failure that the call ends with."""
    try:
        got = fn(*args, **kw)
    except Failure as e:
        return e
    raise AssertionError(f"it worked: {got!r}")


class Domain:
    """The keys and kernels under a TOS_HOME."""

    def __init__(self, home):
        self.home = home
        self.root = load(f"{home}/ca/root.key", f"{home}/ca/root.crt")
        self.fingerprint = sha(self.root.chain[0])

    def principal(self, name):
        return load(f"{self.home}/keys/{name}/key", f"{self.home}/keys/{name}/cert")

    def kernel(self, name):
        return load(f"{self.home}/kernels/{name}/key", f"{self.home}/kernels/{name}/cert")

    def address(self, name):
        with open(f"{self.home}/kernels/{name}/tosd.conf") as f:
            return next(line.split('"')[1] for line in f if line.startswith("listen"))

    def client(self, kernel="host0", **hello):
        c = connect_local(f"{self.home}/kernels/{kernel}/sock")
        c.kernel = kernel
        c.hello(**hello)
        return c

    def as_kernel(self, name, to, signer=None, directory=None, boot=1 << 40, **hello):
        """A link to kernel `to` with the key of kernel `name`, which must be down."""
        key, cert = (signer or self.kernel(name)).pem(directory or self.home, f"rogue-{name}")
        c = connect_tls(self.address(to), key, cert)
        c.hello(name=name, domain=self.fingerprint.hex(), boot=[boot, os.urandom(16)], **hello)
        return c


def launch(client, owner, author, path=(), source="function begin(self) end\n", briefcase=b"\xa0", **changes):
    """An honest launch but for the changes to its ticket; the ticket's COSE, and what Control answered."""
    given = client.call(f"{client.kernel}/Control", "NAME", {})
    code = bundle(author, source)
    t = sign(owner, "ticket", ticket(given["name"], given["nonce"], code, briefcase, path, **changes))
    return t, client.call(f"{client.kernel}/Control", "LAUNCH", {"ticket": t, "code": code, "briefcase": briefcase})
