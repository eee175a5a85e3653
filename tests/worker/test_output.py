"""The capped log keeps head and tail, and no output of a run breaks it."""

from pathlib import Path

from hypothesis import HealthCheck, given, settings, strategies as st

from gpu_worker.output import CappedLog


def _written(path: Path, limit: int, pieces: list[bytes]) -> tuple[bytes, CappedLog]:
    path.unlink(missing_ok=True)
    log = CappedLog(path, limit)
    for piece in pieces:
        log.write(piece)
    log.finish()
    log.close()
    return path.read_bytes(), log


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.binary(max_size=300), max_size=30), st.integers(4, 400))
def test_output_is_kept_whole_or_as_its_head_and_tail(
    tmp_path: Path, pieces: list[bytes], limit: int
) -> None:
    """Under the cap nothing is changed; over it, the middle is dropped and counted."""
    everything = b"".join(pieces)
    kept, log = _written(tmp_path / "log", limit, pieces)
    if len(everything) <= limit:
        assert kept == everything
        assert log.dropped == 0
        return
    head, tail = limit - limit // 4, limit // 4
    notice = f"\n[... {log.dropped} bytes of output left out ...]\n".encode()
    assert kept == everything[:head] + notice + everything[-tail:]
    assert log.dropped == len(everything) - limit


def test_the_head_is_in_the_file_while_the_run_goes_on(tmp_path: Path) -> None:
    """A reader can follow the log from the first byte."""
    log = CappedLog(tmp_path / "log", 1000)
    log.write(b"first")
    assert (tmp_path / "log").read_bytes() == b"first"
    log.close()


def test_a_full_disk_stops_the_log_and_not_the_run(tmp_path: Path) -> None:
    """The error is kept for the result; writing raises nothing."""
    (tmp_path / "log").symlink_to("/dev/full")
    log = CappedLog(tmp_path / "log", 1000)
    for _ in range(100):
        log.write(b"x" * 100)
    log.finish()
    assert log.error is not None
    assert "No space left" in log.error
    log.close()
