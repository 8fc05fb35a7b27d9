"""Fifty OpenSSH servers of our own, and what administrators drive them with: parallel-ssh and ansible."""
import os
import pwd
import shutil
import subprocess
import time

from sshd import Sshd

SSH = ["StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "LogLevel=ERROR"]


class Farm:
    """n servers, each on a port of its own; as a context."""

    def __init__(self, n):
        self.servers = []
        self.user = pwd.getpwuid(os.geteuid()).pw_name
        try:
            for _ in range(n):
                self.servers.append(Sshd.start(self.servers[0] if self.servers else None))
        except BaseException:
            self.stop()
            raise
        self.path = self.servers[0].path
        with open(f"{self.path}/hosts", "w") as f:
            f.writelines(f"127.0.0.1:{s.port}\n" for s in self.servers)
        with open(f"{self.path}/inventory", "w") as f:
            f.writelines(f"h{i} ansible_host=127.0.0.1 ansible_port={s.port} ansible_user={self.user} "
                         f"ansible_ssh_private_key_file={self.path}/user ansible_python_interpreter=/usr/bin/python3\n"
                         for i, s in enumerate(self.servers))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    def stop(self):
        for s in reversed(self.servers):  # the first one's folder has the keys
            s.stop()

    def timed(self, args, env, word):
        begun = time.monotonic()
        r = subprocess.run(args, env=env, capture_output=True, text=True, timeout=300)
        seconds = time.monotonic() - begun
        if r.stdout.count(word) != len(self.servers):
            raise SystemExit(f"{args[0]} reached {r.stdout.count(word)} of {len(self.servers)}: {r.stderr[-500:]}")
        return seconds

    def pssh(self):
        """Seconds for `true` on all at once; None where parallel-ssh is not installed."""
        program = shutil.which("parallel-ssh") or shutil.which("pssh")
        if not program:
            return None
        options = [w for o in [*SSH, "BatchMode=yes", f"IdentityFile={self.path}/user"] for w in ("-O", o)]
        return self.timed([program, "-h", f"{self.path}/hosts", "-p", str(len(self.servers)), "-l", self.user, *options, "true"],
                          os.environ, "SUCCESS")

    def ansible(self):
        """The same by ansible's module command; its connections are kept between runs, as by default."""
        program = shutil.which("ansible")
        if not program:
            return None
        env = dict(os.environ, HOME=self.path, ANSIBLE_HOST_KEY_CHECKING="False", ANSIBLE_NOCOLOR="1", ANSIBLE_PIPELINING="True",
                   ANSIBLE_LOCAL_TEMP=f"{self.path}/tmp",
                   ANSIBLE_SSH_ARGS=" ".join(["-F none -o ControlMaster=auto -o ControlPersist=60s", *(f"-o {o}" for o in SSH)]))
        return self.timed([program, "-i", f"{self.path}/inventory", "all", "-m", "command", "-a", "true", "-f",
                           str(len(self.servers))], env, "CHANGED")
