"""Where a submitted train.py comes from, and what makes it fit to queue."""

import re
import subprocess
import sys
import threading
import warnings
from dataclasses import dataclass
from pathlib import Path

import anyio

from orchestrator import schemas
from orchestrator.errors import Conflict, Invalid, NotFound, TooLarge, Unavailable
from orchestrator.files import Files

# catch_warnings changes the whole process, and sources are checked in threads.
_quiet = threading.Lock()
_PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"


@dataclass(frozen=True)
class Source:
    """A train.py that has been kept, and the label that stands for its commit."""

    sha256: str
    commit_sha: str


class Sources:
    def __init__(self, files: Files, repo: Path | None) -> None:
        self._files = files
        self._repo = repo

    async def keep(self, train_py: str | None, commit_sha: str | None) -> Source:
        """Check and keep the source: the text, or else the commit's train.py."""
        if train_py is None:
            assert commit_sha is not None  # noqa: S101 - the request's schema demands one of them
            train_py = await anyio.to_thread.run_sync(self._from_repo, commit_sha)
        text: str = train_py
        await anyio.to_thread.run_sync(check, text)
        sha256 = await anyio.to_thread.run_sync(self._files.put_source, text)
        return Source(sha256, commit_sha or sha256[:7])

    def _from_repo(self, commit_sha: str) -> str:
        if self._repo is None:
            raise Conflict(
                "No AUTORESEARCH_REPO is set here, so a commit_sha alone names no source;"
                " send the file's text as train_py."
            )
        if not re.fullmatch(r"[0-9A-Fa-f]{4,64}", commit_sha):
            raise Invalid(f"commit_sha {commit_sha!r} is not a hexadecimal commit id.")
        try:
            shown = subprocess.run(
                ["git", "-C", str(self._repo), "show", f"{commit_sha}:train.py"],
                capture_output=True,
                timeout=30,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise Unavailable(f"git cannot read AUTORESEARCH_REPO: {error}.") from error
        if shown.returncode != 0:
            message = shown.stderr.decode(errors="replace").strip().splitlines()
            raise NotFound(
                f"No train.py at commit {commit_sha} of AUTORESEARCH_REPO"
                f" ({message[-1] if message else 'git says nothing'}); push it there or send"
                " the text as train_py."
            )
        try:
            return shown.stdout.decode()
        except UnicodeDecodeError as error:
            raise Invalid(f"train.py at commit {commit_sha} is not UTF-8: {error}.") from error


def check(text: str) -> None:
    """Refuse a source that cannot run at all, before it takes GPU time.

    Raises:
        TooLarge: more than 1 MiB.
        Invalid: not Python, with the line.
    """
    try:
        size = len(text.encode())
    except UnicodeEncodeError as error:
        raise Invalid("train_py holds a lone surrogate, which is not text.") from error
    if size > schemas.SOURCE_LIMIT_BYTES:
        raise TooLarge(f"train_py has {size} bytes; the limit is {schemas.SOURCE_LIMIT_BYTES}.")
    try:
        with _quiet, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an odd escape in an agent's string is no error
            # The compiler, not the parser alone: it also finds a `return` outside a function.
            compile(text.removeprefix("\ufeff"), "train.py", "exec", dont_inherit=True)
    except SyntaxError as error:
        # The same text may be right in a newer Python.
        why = f"train.py line {error.lineno}: {error.msg} (read as Python {_PYTHON})"
        raise Invalid(why, line=error.lineno, text=error.text) from error
    except (ValueError, RecursionError, MemoryError) as error:
        raise Invalid(f"train.py cannot be parsed: {error or type(error).__name__}") from error
