"""The clock of one host, set by libfaketime. The monotonic clock stays the real one, as there."""

from pathlib import Path

# What a Python daemon needs besides, by PYTHONPATH.
FAKED_CLOCK = Path(__file__).parent / "faked_clock"
LIBRARIES = sorted(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))


class Clock:
    """The clock of one host: of every process that is started with its variables."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.variables: dict[str, str] = {}

    def set(self, seconds: int) -> None:
        """So far from the real time, also for processes that run already."""
        assert LIBRARIES, "libfaketime is not installed: apt-get install faketime"
        new = self._path.with_suffix(".new")
        new.write_text(f"{seconds:+d}\n")
        new.replace(self._path)
        self.variables = {
            "LD_PRELOAD": str(LIBRARIES[0]),
            "FAKETIME_TIMESTAMP_FILE": str(self._path),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            # The library's cure for an old glibc: with it, threads wait for each other's locks in
            # vain, and Python's for seconds.
            "FAKETIME_FORCE_MONOTONIC_FIX": "0",
        }
