"""Debian's Slurm for real: munged, slurmctld, and two slurmd on this host, all from one folder.

Each node has two GPUs of the fake NVML: n1 those with the indices 0 and 1, n2 those with 2 and 3.
"""

import getpass
import os
import platform
import secrets
import shutil
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path

from bench.harness.ports import free_port
from gpu_worker import tree
from tests.e2e.conftest import eventually

ROOT = Path(__file__).parents[2]
FAKE_NVML = ROOT / "tests" / "worker" / "fake_nvml"
PATH = os.environ["PATH"] + ":/usr/sbin"
NODES = ("n1", "n2")
# Processes of their own, with a first one that reaps.
MACHINE = ("bwrap", "--die-with-parent", "--dev-bind", "/", "/", "--unshare-pid", "--proc", "/proc")
# For what Slurm does in a few minutes on a real cluster.
NODE_SECONDS, KILL_SECONDS = 5, 15

CONFIGURATION = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser={user}
SlurmdUser={user}
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/%n.pid
StateSaveLocation={folder}
SlurmdSpoolDir={folder}/%n
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
MpiDefault=none
ProctrackType=proctrack/{proctrack}
TaskPlugin=task/none
SlurmdParameters=config_overrides
JobAcctGatherType=jobacct_gather/none
TaskProlog={folder}/prolog
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
GresTypes=gpu
SlurmdTimeout={node_seconds}
ReturnToService=2
KillWait={kill_seconds}
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SchedulerParameters=sched_interval=1
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={port_1} CPUs=4 Gres=gpu:2
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={port_2} CPUs=4 Gres=gpu:2
PartitionName=gpu Nodes=n1,n2 Default=YES MaxTime=INFINITE PriorityTier=1
PartitionName=urgent Nodes=n1,n2 MaxTime=INFINITE PriorityTier=2
"""
# A node's devices have the indices 0 and 1; those of the second node follow in the fake NVML.
PROLOG = """#!/bin/sh
if [ "$SLURMD_NODENAME" = n2 ]; then
  echo "export CUDA_VISIBLE_DEVICES=$(echo "$CUDA_VISIBLE_DEVICES" | tr 01 23)"
fi
"""


class Cluster:
    """Ended with `close`; a node that was killed comes back with `boot`.

    `proctrack` says who gets the signal that ends a task: every process of it with "linuxproc", the
    worker alone with "pgid", and on most real clusters.
    """

    def __init__(self, proctrack: str) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="slurm-"))  # short, for the socket
        self.folder.chmod(0o755)
        self.environment = {"SLURM_CONF": str(self.folder / "slurm.conf"), "PATH": PATH}
        self._daemons: dict[str, subprocess.Popen[bytes]] = {}
        self._configure(proctrack)
        files = ("socket", "key-file", "pid-file", "seed-file", "log-file")
        munge = (f"--{name}={self.folder}/munge.{name.removesuffix('-file')}" for name in files)
        self._start("munged", "--foreground", "--force", *munge)
        eventually((self.folder / "munge.socket").exists, what="munge")
        self._start("slurmctld", "-D", "-c")
        for node in NODES:
            self.boot(node)

    def _configure(self, proctrack: str) -> None:
        ports = {name: free_port() for name in ("port", "port_1", "port_2")}
        text = CONFIGURATION.format(
            host=platform.node().partition(".")[0], user=getpass.getuser(), folder=self.folder,
            node_seconds=NODE_SECONDS, kill_seconds=KILL_SECONDS,
            proctrack=proctrack, **ports,
        )  # fmt: skip
        (self.folder / "slurm.conf").write_text(text)
        # Some devices; nothing opens them.
        (self.folder / "gres.conf").write_text("Name=gpu File=/dev/null\nName=gpu File=/dev/zero\n")
        (self.folder / "prolog").write_text(PROLOG)
        (self.folder / "prolog").chmod(0o755)
        (self.folder / "munge.key").touch(0o600)
        (self.folder / "munge.key").write_text(secrets.token_hex(64))

    def _start(self, program: str, *arguments: str, name: str = "") -> None:
        with (self.folder / f"{name or program}.out").open("ab") as log:
            self._daemons[name or program] = subprocess.Popen(
                [program, *arguments],
                env=os.environ | self.environment, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip

    def boot(self, node: str) -> None:
        self._start(*MACHINE, "slurmd", "-D", "-N", node, name=node)
        eventually(lambda: self.call("sinfo", "-h", "-n", node, "-o", "%T") in ("idle", "mixed"),
                   60, f"node {node}")  # fmt: skip

    def call(self, *command: str) -> str:
        done = subprocess.run(
            command, env=os.environ | self.environment, capture_output=True, text=True, check=False
        )
        return done.stdout.strip()

    def state(self, task: str) -> str:
        """A task's state; empty after its end."""
        return self.call("squeue", "-h", "-r", "-j", task, "-o", "%T")

    def processes(self) -> dict[int, str]:
        """What runs on the nodes besides slurmd: pids and command lines."""
        pids = [
            pid
            for node in NODES
            if node in self._daemons
            for pid in tree.descendants(self._daemons[node].pid)
        ]
        found = {}
        for pid in pids:
            with suppress(OSError):  # it has ended
                found[pid] = Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
        return {pid: line for pid, line in found.items() if "slurmd -D" not in line}

    def kill(self, node: str) -> None:
        """As if the machine lost its power: with its first process all others die."""
        process = self._daemons.pop(node)
        process.kill()
        process.wait()

    def clear(self) -> None:
        """End all jobs, and let dead nodes come back."""
        self.call("scancel", "--user", getpass.getuser())
        for node in set(NODES) - self._daemons.keys():
            self.boot(node)
        eventually(lambda: not self.processes() and not self.call("squeue", "-h"), 60, "the end")

    def close(self) -> None:
        for node in NODES:
            self.kill(node)
        for process in self._daemons.values():
            process.terminate()
            process.wait(30)
        shutil.rmtree(self.folder)
