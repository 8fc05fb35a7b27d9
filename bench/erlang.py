"""Two Erlang nodes linked over TLS with certificates on both sides, as a yardstick for tools/bench."""
import json
import os
import shutil
import socket
import subprocess
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
SSL_CONF = '[{server, [{cacertfile, "%s/ca.pem"}, {certfile, "%s/node.pem"}, {keyfile, "%s/node.key"}, {verify, verify_peer}, ' \
    '{fail_if_no_peer_cert, true}, {versions, [\'tlsv1.3\']}]}, ' \
    '{client, [{cacertfile, "%s/ca.pem"}, {certfile, "%s/node.pem"}, {keyfile, "%s/node.key"}, {verify, verify_peer}, ' \
    '{versions, [\'tlsv1.3\']}]}].\n'


class Erlang:
    def __init__(self, core):
        self.path = tempfile.mkdtemp(prefix="tos-bench.")
        self.nodes = []
        self.certificates()
        subprocess.run(["erlc", "-o", self.path, os.path.join(HERE, "bench_echo.erl")], check=True, capture_output=True)
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            port = s.getsockname()[1]
        self.node(core, port, "b", [], "bench_echo:server()")
        self.client = self.node(core, port, "a", ["-dist_listen", "false"], "bench_echo:run('b@127.0.0.1')")

    @classmethod
    def start(cls, core):
        """None where Erlang or its ssl is not installed."""
        if not shutil.which("erl") or not shutil.which("openssl"):
            return None
        if subprocess.run(["erl", "-noshell", "-eval", "halt(case code:which(ssl) of non_existing -> 1; _ -> 0 end)."],
                          capture_output=True).returncode:
            return None
        return cls(core)

    def openssl(self, *args):
        subprocess.run(["openssl", *args], cwd=self.path, check=True, capture_output=True)

    def certificates(self):
        self.openssl("req", "-x509", "-newkey", "ed25519", "-nodes", "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=ca",
                     "-days", "2")
        self.openssl("req", "-newkey", "ed25519", "-nodes", "-keyout", "node.key", "-out", "node.csr", "-subj", "/CN=127.0.0.1")
        with open(os.path.join(self.path, "names"), "w") as f:
            f.write("subjectAltName=DNS:127.0.0.1,IP:127.0.0.1\n")
        self.openssl("x509", "-req", "-extfile", "names", "-in", "node.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2",
                     "-out", "node.pem")
        with open(os.path.join(self.path, "ssl.conf"), "w") as f:
            f.write(SSL_CONF % ((self.path,) * 6))

    def node(self, core, port, name, more, run):
        p = subprocess.Popen(["taskset", "-c", str(core), "erl", "-noshell", "-noinput" if name == "b" else "-noshell",
                              "-proto_dist", "inet_tls", "-ssl_dist_optfile", f"{self.path}/ssl.conf",
                              "-start_epmd", "false", "-erl_epmd_port", str(port), "-setcookie", "bench",
                              "-name", f"{name}@127.0.0.1", "-pa", self.path, *more, "-eval", run + "."],
                             stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=dict(os.environ, HOME=self.path))
        self.nodes.append(p)
        line = p.stdout.readline()
        if line.strip() != "ready":
            self.stop()
            raise SystemExit(f"the Erlang node {name} did not start: {line}")
        return p

    def command(self, *words):
        self.client.stdin.write(" ".join(map(str, words)) + "\n")
        self.client.stdin.flush()
        return json.loads(self.client.stdout.readline())

    def rpc(self, n, outstanding):
        return self.command("rpc", n, outstanding)

    def move(self, n):
        return self.command("move", n)

    def first(self, n):
        return self.command("first", n)

    def stop(self):
        for p in self.nodes:
            p.kill()
            p.wait()
        shutil.rmtree(self.path, ignore_errors=True)
