"""The chaos harness with each process on a host of its own: TCP over a network that is cut."""

import re
import shutil
import subprocess
import sys

import pytest

# Namespaces and devices need rights that a container may lack even for root.
_TRIED = ("unshare", "--net", "ip", "tuntap", "add", "wire", "mode", "tun")
_APART = (
    shutil.which("unshare") is not None
    and not subprocess.run(_TRIED, capture_output=True, check=False).returncode
)

pytestmark = [
    pytest.mark.chaos,
    pytest.mark.usefixtures("_clean_environment"),
    pytest.mark.skipif(not _APART, reason="network namespaces cannot be made here"),
]


def test_partitions_between_hosts_break_no_invariant() -> None:
    """Latency, loss, ways that are cut and heal, processes that die, all of it over TLS, and one
    clock an hour ahead. In a process of its own, because the harness leaves this one's network."""
    words = ("--network", "--jobs", "10", "--faults", "6", "--seed", "7")
    done = subprocess.run(
        [sys.executable, "-m", "bench.chaos", *words],
        capture_output=True, check=False, text=True, timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    packets = re.search(r"packets: (?=.* lost)(?=.* cut)(\d+) carried", done.stdout)
    assert packets is not None, done.stdout
    assert int(packets[1]) > 1000
