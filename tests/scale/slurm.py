"""A Slurm cluster of one node on loopback, from Debian's slurm-wlm and munge: a controller, a node, real sbatch.

Needs root, since slurmd starts jobs as their users. Everything lives in one folder and is gone after `stop`.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scancel")


def missing() -> str | None:
    """Why no cluster can be started here, or None."""
    absent = [name for name in PROGRAMS if shutil.which(name) is None]
    if absent:
        return f"no {', '.join(absent)}; on Debian: apt-get install slurm-wlm munge"
    return None if os.geteuid() == 0 else "slurmd needs root"


class Slurm:
    """munged, slurmctld and slurmd in `folder`; `environment` makes sbatch and the rest talk to them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.unseen: Path | None = None  # a folder that the node's jobs find empty
        self.environment = {"SLURM_CONF": str(folder / "slurm.conf")}
        self.processes: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        """Start the three daemons and wait until the node is idle. Raises TimeoutError."""
        # munged refuses folders that others may write, as /tmp's are.
        self._secure(self.folder)
        (self.folder / "munge.key").write_bytes(b"pretrain-test-key" * 8)
        (self.folder / "munge.key").chmod(0o400)
        (self.folder / "slurm.conf").write_text(self._configuration(), "utf-8")
        self._run(
            *("munged", "--foreground", "--force", f"--socket={self.folder}/munge.socket"),
            *(f"--key-file={self.folder}/munge.key", f"--pid-file={self.folder}/munged.pid"),
            *(f"--log-file={self.folder}/munged.log", f"--seed-file={self.folder}/munge.seed"),
        )
        self._run("slurmctld", "-D", "-f", self.environment["SLURM_CONF"])
        node = ("slurmd", "-D", "-f", self.environment["SLURM_CONF"], "-N", "node1")
        self._run(*(without(self.unseen, *node) if self.unseen else node))
        deadline = time.monotonic() + 30
        while "idle" not in self.call("sinfo", "--noheader", "--format=%T"):
            if time.monotonic() > deadline:
                raise TimeoutError(f"no idle node; see {self.folder}/*.log")
            time.sleep(0.5)

    def stop(self) -> None:
        """End the daemons."""
        for process in reversed(self.processes):
            process.terminate()
            process.wait()

    def call(self, *command: str) -> str:
        """Standard output of one of Slurm's commands."""
        done = subprocess.run(command, env=os.environ | self.environment, capture_output=True, text=True, check=False)
        return done.stdout

    def _run(self, *command: str) -> None:
        with (self.folder / f"{command[0]}.out").open("wb") as output:
            process = subprocess.Popen(command, stdout=output, stderr=output, env=os.environ | self.environment)
        self.processes.append(process)

    @staticmethod
    def _secure(folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o755)

    def _configuration(self) -> str:
        controller, node = free_port(), free_port()
        host = socket.gethostname()
        for name in ("state", "spool"):
            (self.folder / name).mkdir(exist_ok=True)
        return f"""
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={self.folder}/munge.socket,cred_expire=10
CredType=cred/munge
StateSaveLocation={self.folder}/state
SlurmdSpoolDir={self.folder}/spool
SlurmctldPidFile={self.folder}/slurmctld.pid
SlurmdPidFile={self.folder}/slurmd.pid
SlurmctldLogFile={self.folder}/slurmctld.log
SlurmdLogFile={self.folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1
JobCompType=jobcomp/none
AccountingStorageType=accounting_storage/none
ReturnToService=2
SwitchType=switch/none
MpiDefault=none
NodeName=node1 NodeHostname={host} NodeAddr=127.0.0.1 Port={node} CPUs=2 RealMemory=4000 State=UNKNOWN
PartitionName=main Nodes=node1 Default=YES MaxTime=INFINITE State=UP
"""


def without(folder: Path, *command: str) -> tuple[str, ...]:
    """The command in a mount namespace of its own, in which the folder is empty."""
    return ("unshare", "--mount", "sh", "-c", 'mount -t tmpfs none "$0" && exec "$@"', str(folder), *command)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
