"""axe-core, from npm at test time: the serious and critical violations of a page."""

import functools
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

import pytest
from playwright.sync_api import Page

PACKAGE = "axe-core@^4.10"


@functools.cache
def _source() -> str:
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("no npm here, which axe-core comes from")
    with tempfile.TemporaryDirectory() as folder:
        packing = subprocess.run(
            [npm, "pack", "--silent", PACKAGE], cwd=folder, capture_output=True, check=False
        )
        if packing.returncode:
            pytest.skip(f"npm did not give {PACKAGE}: {packing.stderr.decode()[-200:]}")
        with tarfile.open(next(Path(folder).glob("*.tgz"))) as archive:
            script = archive.extractfile("package/axe.min.js")
            assert script is not None
            return script.read().decode()


def serious_violations(page: Page) -> list[str]:
    """Each with its rule and where it is; empty for a page that everybody can use."""
    page.evaluate(_source())
    found = page.evaluate("axe.run(document, { resultTypes: ['violations'] })")
    return [
        f"{violation['id']}: {violation['help']}: {[n['target'] for n in violation['nodes'][:4]]}"
        for violation in found["violations"]
        if violation["impact"] in ("serious", "critical")
    ]
