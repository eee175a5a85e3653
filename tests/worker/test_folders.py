"""A run's folder is removed whatever the run did to it, also by a worker that is not root."""

import json
import subprocess
import sys
from pathlib import Path

from gpu_worker.folders import RunFolder

# Root may do anything, so as root the test becomes nobody. It has imported before: nobody may be
# unable to read this checkout.
AS_A_USER = """
import json, logging, os, pathlib, shutil, subprocess, sys, tempfile
from gpu_worker.folders import RunFolder
if os.getuid() == 0:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
home = pathlib.Path(tempfile.mkdtemp(dir="/tmp"))
os.chdir(home)
outside = home / "outside"
outside.mkdir()
(outside / "file").touch()
outside.chmod(0o500)
run = RunFolder(home / "exp-1.1")
deep = run.workspace / "a" / "b" / "c"
deep.mkdir(parents=True)
(deep / "file").touch(0o000)
run.job.touch()
(run.workspace / "link").symlink_to(outside)
for folder in (deep, deep.parent, deep.parent.parent, run.workspace, run.path):
    folder.chmod(int(sys.argv[1], 8))
run.settle()
settled = not run.job.exists()
run.remove()
answer = {"settled": settled, "left": run.path.exists(), "outside": oct(outside.stat().st_mode)}
print(json.dumps(answer))
outside.chmod(0o700)
for each in (run.path, *run.path.rglob("*")) if run.path.exists() else ():
    if each.is_dir() and not each.is_symlink():
        each.chmod(0o700)
shutil.rmtree(home)
"""


def test_a_folder_without_permissions_that_a_run_leaves_is_removed() -> None:
    """Read-only, closed to everybody, and without a link being followed out of the folder."""
    for mode in ("500", "000", "400"):
        command = [sys.executable, "-c", AS_A_USER, mode]
        ended = subprocess.run(command, capture_output=True, text=True, check=False)
        assert ended.stderr == ""
        assert json.loads(ended.stdout) == {"settled": True, "left": False, "outside": "0o40500"}


def test_a_folder_that_is_gone_is_removed_without_a_word(tmp_path: Path) -> None:
    """Two that clean up at once may meet."""
    RunFolder(tmp_path / "exp-1.1").remove()


def test_folders_nested_too_deep_for_a_recursive_deletion_are_removed(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "exp-1.1")
    run.workspace.mkdir(parents=True)
    nest = "import os\nfor _ in range(1500): os.mkdir('d'); os.chdir('d')"
    subprocess.run([sys.executable, "-c", nest], cwd=run.workspace, check=True)
    run.remove()
    assert not run.path.exists()
