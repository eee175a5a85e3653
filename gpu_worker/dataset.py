"""What runs read: its identity, and how a host that lacks it gets it.

The identity is one hash over the tokenizer and the tokens of every shard. prepare.py stores a
record with the SHA-256 beside each token file, and its host check compares the files with their
records. This hash is over the records, so it is cheap enough for every claim. Equal hashes mean
equal training and validation text in equal tokens.
"""

import hashlib
import json
import logging
import os
import sys
from pathlib import Path

import anyio

from gpu_worker import hostcheck
from gpu_worker.settings import WorkerSettings

logger = logging.getLogger(__name__)

_REMEDY = "`uv run prepare.py"  # as the host check names it


def digest(cache: Path) -> str | None:
    """None where the cache is not prepared."""
    try:
        meta = json.loads((cache / "tokenizer" / "meta.json").read_bytes())
        # As prepare.py names the folder of a tokenizer's tokens.
        folder = hashlib.sha256(json.dumps(meta).encode()).hexdigest()[:16]
        records = sorted((cache / "tokens" / folder).glob("*.tokens.json"))
        hashes = [f"{path.name} {json.loads(path.read_bytes())['sha256']}" for path in records]
        lines = [f"tokenizer {meta['ranks_sha256']}", *hashes]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


async def mend(problem: str, settings: WorkerSettings) -> None:
    """Before the next host check: make the data that are missing, if that is wanted; else wait.

    prepare.py locks the cache and makes only what is missing. So of the daemons of a host, or of
    the hosts that share a folder, one does the work, and the others then find it done.
    """
    before = digest(settings.cache_folder)
    if settings.prepare is not None and _REMEDY in problem:
        await _prepare(settings)
    if digest(settings.cache_folder) == before:  # or a check that finds no end would not rest
        await anyio.sleep(settings.recheck_seconds)


async def _prepare(settings: WorkerSettings) -> None:
    argv = [*settings.command, "prepare.py", "--source", settings.prepare or ""]
    env = os.environ | {"AUTORESEARCH_CACHE": str(settings.cache_folder)}
    logger.info("preparing the training data: %s", " ".join(argv))
    try:
        async with hostcheck.own_process(argv, settings.project, env, sys.stderr.fileno()) as made:
            code = await made.wait()
    except OSError as error:
        logger.error("cannot start %s: %s", argv[0], error)  # noqa: TRY400 - its text says all
        return
    if code != 0:
        logger.error("prepare.py ended with exit code %d; what it printed is above", code)
