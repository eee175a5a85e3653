"""A GPU inside `strict`: it computes, compiles, and is the only one. Run these with `-m gpu`."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from gpu_worker import isolation, seccomp
from gpu_worker.devices import open_gpu
from gpu_worker.settings import WorkerSettings
from gpu_worker.workspace import base_environment

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

SCRIPT = """
import os, torch
x = torch.randn(1024, 1024, device="cuda", dtype=torch.bfloat16)
assert torch.isfinite(x @ x).all()
compiled = torch.compile(lambda x: (x * 2).relu().sum())
assert torch.isfinite(compiled(x.float()))
print(torch.cuda.device_count(), *sorted(n for n in os.listdir("/dev") if n.startswith("nvidia")))
"""


def test_a_run_computes_and_compiles_on_its_gpu_and_sees_no_other(tmp_path: Path) -> None:
    settings = WorkerSettings(home=tmp_path / "home", launcher=sys.executable)
    device = open_gpu("auto").device
    walls = isolation.prepare_for(settings, device, "strict")
    workspace, compiled = tmp_path / "workspace", tmp_path / "compiled"
    workspace.mkdir()
    compiled.mkdir()
    filter_fd = seccomp.open_program()
    argv = walls.wrap(
        [*walls.command(settings.command), "-c", SCRIPT],
        workspace,
        compiled=compiled,
        seccomp_fd=filter_fd,
    )
    env = walls.environment(base_environment(settings, device.uuid or ""))
    done = subprocess.run(
        argv,
        env=env,
        pass_fds=[filter_fd],
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    os.close(filter_fd)
    assert done.returncode == 0, done.stderr
    count, *files = done.stdout.split()
    assert count == "1"
    numbered = [name for name in files if name.removeprefix("nvidia").isdigit()]
    assert numbered == [f"nvidia{device.minor}"]
