"""An OpenSSH server of our own on loopback, with keys of its own, as a yardstick for tools/bench."""
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time

CONF = """Port {port}
ListenAddress 127.0.0.1
HostKey {path}/host
AuthorizedKeysFile {path}/user.pub
PidFile none
UsePAM no
StrictModes no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
MaxStartups 200
Subsystem sftp internal-sftp
"""


class Sshd:
    def __init__(self, program, keys_of=None):
        self.path = tempfile.mkdtemp(prefix="tos-bench.")
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            self.port = s.getsockname()[1]
        for key in ("host", "user"):
            if keys_of:  # fifty pairs take a while to make
                for end in ("", ".pub"):
                    shutil.copy(f"{keys_of.path}/{key}{end}", f"{self.path}/{key}{end}")
                continue
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", f"{self.path}/{key}"], check=True)
        with open(f"{self.path}/conf", "w") as f:
            f.write(CONF.format(port=self.port, path=self.path))
        if os.geteuid() == 0:
            os.makedirs("/run/sshd", 0o755, exist_ok=True)  # it wants this one, whatever its configuration says
        self.server = subprocess.Popen([program, "-D", "-f", f"{self.path}/conf", "-E", f"{self.path}/log"])
        self.wait()

    @classmethod
    def start(cls, keys_of=None):
        """None where ssh or its server is not installed."""
        program = shutil.which("sshd", path=os.environ.get("PATH", "") + ":/usr/sbin")
        return cls(program, keys_of) if program and shutil.which("ssh") else None

    def wait(self):
        end = time.monotonic() + 10
        while subprocess.run(self.command(), capture_output=True).returncode:
            if time.monotonic() > end or self.server.poll() is not None:
                with open(f"{self.path}/log") as f:
                    said = f.read()
                self.stop()
                raise SystemExit(f"the ssh server did not start: {said}")
            time.sleep(0.05)

    def command(self, *words):
        """A new connection, and `true` over it."""
        options = ["BatchMode=yes", "StrictHostKeyChecking=no", f"UserKnownHostsFile={self.path}/known", "LogLevel=ERROR"]
        return ["ssh", "-F", "none", "-p", str(self.port), "-i", f"{self.path}/user",
                *[w for o in options for w in ("-o", o)], pwd.getpwuid(os.geteuid()).pw_name + "@127.0.0.1", *(words or ["true"])]

    def stop(self):
        self.server.terminate()
        self.server.wait()
        shutil.rmtree(self.path, ignore_errors=True)
