"""What the fault tests have in common: small disks, a Redis of one's own, decisions counted."""

import os
import resource
import signal
import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import redis

from orchestrator.embedded import EmbeddedServer
from orchestrator.settings import HomePaths
from tests.conftest import redis_server, server_binaries
from tests.e2e.conftest import System
from tests.proxy import Proxy


def decisions(url: str) -> Counter[str]:
    """How often each experiment was decided, from the event stream itself."""
    with redis.Redis.from_url(url, decode_responses=True) as client:
        entries = client.xrange("ar:events")
    return Counter(fields["id"] for _, fields in entries if fields["type"] == "decided")


def embedded_url(system: System) -> str:
    return EmbeddedServer(HomePaths(system.folder / "home")).url()


def try_post(system: System, path: str, **body: Any) -> httpx.Response:
    return httpx.post(system.url + path, json=body, timeout=40)


def outcomes(system: System, experiment_id: str) -> list[str | None]:
    found = system.get(f"/api/experiment/{experiment_id}")
    return [attempt["outcome"] for attempt in found["attempts"]]


@contextmanager
def own_redis(system: System) -> Iterator[tuple[Proxy, int, str]]:
    """A Redis beside the system, which ends first: a proxy in front of it, its pid, its address."""
    folder = system.folder / "redis"
    folder.mkdir()
    with redis_server(server_binaries()[0], folder) as url:
        with redis.Redis.from_url(url) as client:
            pid = int(client.info("server")["process_id"])
        proxy = Proxy(str(folder / "redis.sock"))
        try:
            yield proxy, pid, url
        finally:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
            system.stop()
            proxy.close()


class Disk:
    """Folders on a small disk of their own, which can be filled to the last byte.

    Where no file system can be mounted, the processes that write there are forbidden to write any
    file instead: the same failed write with another errno.
    """

    def __init__(self, *folders: Path, mib: int = 8) -> None:
        self.folders = folders
        self.writers: list[int] = []
        self.mounted = True
        for folder in folders:
            folder.mkdir(parents=True, exist_ok=True)
            done = subprocess.run(
                ["mount", "-t", "tmpfs", "-o", f"size={mib}m", "tmpfs", str(folder)],
                check=False,
                capture_output=True,
            )
            self.mounted = self.mounted and done.returncode == 0

    def fill(self) -> None:
        for pid in [] if self.mounted else self.writers:
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
        for folder in self.folders if self.mounted else ():
            with suppress(OSError), (folder / "ballast").open("wb", buffering=0) as file:
                while True:
                    file.write(bytes(4096))

    def free(self) -> None:
        for pid in [] if self.mounted else self.writers:
            unlimited = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
            resource.prlimit(pid, resource.RLIMIT_FSIZE, unlimited)
        for folder in self.folders if self.mounted else ():
            (folder / "ballast").unlink()

    def close(self) -> None:
        for folder in self.folders:
            subprocess.run(["umount", "-l", str(folder)], check=False, capture_output=True)
