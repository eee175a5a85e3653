"""The embedded server with real processes: who starts it, who stops it, what a kill leaves, and
which error a damaged folder gives. What the server's commands do is not tested here."""

import contextlib
import fcntl
import logging
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from orchestrator import embedded
from orchestrator.embedded import EmbeddedServer, HomeGone
from orchestrator.errors import SetupError
from orchestrator.settings import HomePaths
from tests.conftest import eventually

# A second orchestrator: prints the server's pid, keeps its share until stdin closes.
USER = """
import sys
from pathlib import Path
import redis
from orchestrator.embedded import EmbeddedServer
from orchestrator.settings import HomePaths
with EmbeddedServer(HomePaths(Path(sys.argv[1]))) as url:
    with redis.Redis.from_url(url) as client:
        client.incr("starts")
        print(client.info("server")["process_id"], flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def paths(tmp_path: Path) -> Iterator[HomePaths]:
    """A home; afterwards no server may live on it."""
    paths = HomePaths(tmp_path / "a home #1")
    yield paths
    left = alive(paths)
    if left:
        os.kill(pid_of(paths), signal.SIGKILL)
    assert not left


def locked(paths: HomePaths, name: str) -> bool:
    """True if a process holds that lock exclusively."""
    try:
        with (paths.redis_dir / name).open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def alive(paths: HomePaths) -> bool:
    """True if a server process holds its lock."""
    return locked(paths, "server.lock")


def pid_of(paths: HomePaths) -> int:
    return int((paths.redis_dir / "server.pid").read_text())


def open_files(pid: int) -> set[str]:
    """What its descriptors name; one that is closed while we read the list is left out."""
    names = set()
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            names.add(str(descriptor.readlink()))
    return names


def kill_server(paths: HomePaths) -> None:
    os.kill(pid_of(paths), signal.SIGKILL)
    eventually(lambda: not alive(paths))


def user(paths: HomePaths) -> "subprocess.Popen[str]":
    """Another process that uses the home."""
    return subprocess.Popen(
        [sys.executable, "-c", USER, str(paths.home)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def served_by(process: "subprocess.Popen[str]") -> int:
    """The pid of the server that the process found or started."""
    assert process.stdout is not None
    return int(process.stdout.readline())


def aof(paths: HomePaths) -> Path:
    """The file that takes the writes."""
    (path,) = (paths.redis_dir / "appendonlydir").glob("*.incr.aof")
    return path


def write(url: str, **values: str) -> None:
    with redis.Redis.from_url(url) as client:
        for key, value in values.items():
            client.set(key, value)


def read(url: str, key: str) -> object:
    with redis.Redis.from_url(url, decode_responses=True) as client:
        return client.get(key)


def test_every_write_is_on_disk_before_it_is_acknowledged(paths: HomePaths) -> None:
    """The server runs with the durable settings, without TCP, in a folder of its owner alone."""
    with EmbeddedServer(paths) as url, redis.Redis.from_url(url, decode_responses=True) as client:
        config = client.config_get()
    wanted = {
        "appendonly": "yes",
        "appendfsync": "always",
        "aof-load-truncated": "yes",
        "maxmemory-policy": "noeviction",
        "save": "",
        "port": "0",
        "unixsocketperm": "700",
        "dir": str(paths.redis_dir),
    }
    assert {key: config[key] for key in wanted} == wanted
    assert paths.redis_dir.stat().st_mode & 0o777 == 0o700


def test_the_server_lives_in_a_session_of_its_own(paths: HomePaths) -> None:
    """Neither a Ctrl-C at the terminal nor our end reaches it, and it has none of our locks."""
    with EmbeddedServer(paths):
        pid = pid_of(paths)
        assert os.getsid(pid) == pid
        if Path(f"/proc/{pid}/fd").exists():
            names = open_files(pid)
            assert str(paths.redis_dir / "server.lock") in names
            assert not names & {str(paths.redis_dir / f"{n}.lock") for n in ("start", "users")}


def test_an_orderly_end_leaves_the_data_and_no_process(paths: HomePaths) -> None:
    """The last user stops the server; the next start finds what was written."""
    with EmbeddedServer(paths) as url:
        write(url, key="kept")
    assert not alive(paths)
    with EmbeddedServer(paths) as url:
        assert read(url, "key") == "kept"


def test_a_killed_server_comes_back_with_every_acknowledged_write(paths: HomePaths) -> None:
    """`ensure_running` does nothing while the server lives and restarts it when it is gone."""
    server = EmbeddedServer(paths)
    with server as url:
        write(url, key="kept")
        assert not server.ensure_running()
        kill_server(paths)
        assert server.ensure_running()
        assert read(url, "key") == "kept"
        assert not server.ensure_running()


def test_a_start_clears_what_a_killed_server_left(paths: HomePaths) -> None:
    """A stale socket and a pid file that names another process do no harm."""
    server = EmbeddedServer(paths)
    with server as url:
        kill_server(paths)
        assert (paths.redis_dir / "valkey.sock").exists()
        (paths.redis_dir / "server.pid").write_text(f"{os.getpid()}\n")
        assert server.ensure_running()
        assert read(url, "key") is None
        assert pid_of(paths) != os.getpid()


def test_the_end_is_orderly_even_when_the_server_died_before(paths: HomePaths) -> None:
    """There is nothing to stop, and nothing to complain about."""
    with EmbeddedServer(paths):
        kill_server(paths)


def test_a_late_watchdog_does_not_revive_the_server(paths: HomePaths) -> None:
    """After `release`, `ensure_running` starts nothing."""
    server = EmbeddedServer(paths)
    with server:
        pass
    assert not server.ensure_running()


def test_the_server_stays_until_its_last_user_leaves(paths: HomePaths) -> None:
    """Two share it: the first to leave, also if it started it, does not stop it."""
    first, second = EmbeddedServer(paths), EmbeddedServer(paths)
    assert first.acquire() == second.acquire()
    pid = pid_of(paths)
    first.release()
    assert alive(paths)
    assert pid_of(paths) == pid
    second.release()
    assert not alive(paths)
    second.release()  # once more does no harm


def test_a_killed_user_leaves_the_server_for_the_next(paths: HomePaths) -> None:
    """After kill -9 of its only user the server runs on, is found, and its next user stops it."""
    with user(paths) as process:
        pid = served_by(process)
        process.kill()
    assert process.returncode == -signal.SIGKILL
    assert alive(paths)
    with EmbeddedServer(paths) as url:
        assert read(url, "starts") == "1"
        assert pid_of(paths) == pid


def test_starts_at_once_give_one_server(paths: HomePaths) -> None:
    """Several processes start together and all meet one server; it ends with the last of them."""
    processes = [user(paths) for _ in range(4)]
    assert len({served_by(process) for process in processes}) == 1
    for process in processes:
        process.communicate("")
    assert [process.returncode for process in processes] == [0] * 4
    assert not alive(paths)


def test_a_start_waits_until_the_last_stop_is_over(paths: HomePaths) -> None:
    """A user that comes while the last one stops the server gets a new one, not the dying one."""
    last = EmbeddedServer(paths)
    write(last.acquire(), key="kept")
    pid = pid_of(paths)
    os.kill(pid, signal.SIGSTOP)  # it will be long in stopping
    leaving = threading.Thread(target=last.release)
    leaving.start()
    eventually(lambda: locked(paths, "users.lock"))
    threading.Timer(0.3, os.kill, (pid, signal.SIGCONT)).start()
    with EmbeddedServer(paths) as url:
        assert read(url, "key") == "kept"
        assert pid_of(paths) != pid
        leaving.join()
        assert alive(paths)


def test_users_that_come_and_go_at_once_are_all_served(paths: HomePaths) -> None:
    """However starts and stops interleave, every user's write is answered and kept."""
    loop = USER[: USER.index("with Emb")] + (
        "for _ in range(15):\n"
        "    with EmbeddedServer(HomePaths(Path(sys.argv[1]))) as url:\n"
        "        with redis.Redis.from_url(url, retry=None) as client:\n"
        "            client.incr('served')\n"
    )
    command = [sys.executable, "-c", loop, str(paths.home)]
    processes = [subprocess.Popen(command) for _ in range(3)]
    assert [process.wait() for process in processes] == [0] * 3
    assert not alive(paths)
    with EmbeddedServer(paths) as url:
        assert read(url, "served") == "45"


def test_a_paused_server_is_not_started_twice(paths: HomePaths) -> None:
    """The watchdog waits for a silent server, a new user gets an error, and no write is lost."""
    server = EmbeddedServer(paths)
    with server as url:
        write(url, key="kept")
        pid = pid_of(paths)
        os.kill(pid, signal.SIGSTOP)
        try:
            assert not server.ensure_running()
            with pytest.raises(SetupError, match="alive but does not answer: it is paused"):
                EmbeddedServer(paths, timeout_seconds=0.1).acquire()
        finally:
            os.kill(pid, signal.SIGCONT)
        assert pid_of(paths) == pid
        assert read(url, "key") == "kept"


def test_the_last_user_of_a_paused_server_leaves_it_running(
    paths: HomePaths, caplog: pytest.LogCaptureFixture
) -> None:
    """It cannot be stopped in order, so it is left to the next user, and that is said."""
    server = EmbeddedServer(paths)
    server.acquire()
    server._timeout_seconds = 0.1  # only now: the start itself may take longer
    pid = pid_of(paths)
    os.kill(pid, signal.SIGSTOP)
    try:
        server.release()
        assert alive(paths)
    finally:
        os.kill(pid, signal.SIGCONT)
    assert f"left the embedded Redis server in {paths.redis_dir} running" in caplog.text
    with EmbeddedServer(paths):
        assert pid_of(paths) == pid


def test_a_start_waits_for_data_that_load_slowly(
    paths: HomePaths, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A server that answers LOADING is given more time than a silent one, and that is said once."""
    with EmbeddedServer(paths) as url, redis.Redis.from_url(url) as client:
        many = client.pipeline(transaction=False)
        for number in range(15_000):
            many.set(f"key{number}", number)
        many.execute()
    # Microseconds for each of 15 000 commands; it answers after every 1024.
    slow = (*embedded._OPTIONS, "--key-load-delay", "200")
    monkeypatch.setattr(embedded, "_OPTIONS", slow)
    with EmbeddedServer(paths, timeout_seconds=2.5) as url:
        assert read(url, "key14999") == "14999"
    assert caplog.text.count("is loading") == 1


def test_a_damaged_aof_is_named_with_what_to_do(paths: HomePaths) -> None:
    """The error quotes the server, names the folder, and the next start begins empty if moved."""
    with EmbeddedServer(paths) as url:
        write(url, key="kept")
    with aof(paths).open("ab") as file:
        file.write(b"no command\r\n")
    with pytest.raises(SetupError) as caught:
        EmbeddedServer(paths).acquire()
    message = str(caught.value)
    assert f"Bad file format reading the append only file {aof(paths).name}" in message
    assert f"cannot start on {paths.redis_dir}" in message
    assert "move it away" in message
    assert "check-aof" not in message  # see embedded.py
    paths.redis_dir.rename(paths.home / "away")
    with EmbeddedServer(paths) as url:
        assert read(url, "key") is None


def test_data_of_a_newer_version_are_refused_untouched(paths: HomePaths) -> None:
    """A base file in a format yet to come gets the same clear error."""
    with EmbeddedServer(paths):
        pass
    (base,) = (paths.redis_dir / "appendonlydir").glob("*.base.rdb")
    magic = base.read_bytes()
    newer = magic[:6] + b"999" + magic[9:]
    base.write_bytes(newer)
    with pytest.raises(SetupError, match=r"version 999.*newer version, restore that folder"):
        EmbeddedServer(paths).acquire()
    assert base.read_bytes() == newer


def test_a_write_cut_short_is_dropped_and_reported(
    paths: HomePaths, caplog: pytest.LogCaptureFixture
) -> None:
    """What was acknowledged before it is loaded; a sound start reports nothing."""
    with EmbeddedServer(paths) as url:
        write(url, first="kept", second="cut")
    with aof(paths).open("r+b") as file:
        file.truncate(aof(paths).stat().st_size - 3)
    with EmbeddedServer(paths) as url:
        assert (read(url, "first"), read(url, "second")) == ("kept", None)
    assert "cut short the last write" in caplog.text
    assert aof(paths).name in caplog.text
    caplog.clear()
    with EmbeddedServer(paths):
        pass
    assert [r for r in caplog.records if r.levelno >= logging.WARNING] == []


def test_a_home_with_a_long_path_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A link in the temp folder stands for it, comes back if cleaned away, and goes at the end."""
    with tempfile.TemporaryDirectory(prefix="ar-") as temp:
        monkeypatch.setattr(tempfile, "tempdir", temp)
        paths = HomePaths(tmp_path / ("x" * 150))
        server = EmbeddedServer(paths)
        with server as url:
            write(url, key="kept")
            (link,) = Path(temp).iterdir()
            link.unlink()
            assert not server.ensure_running()
            assert read(url, "key") == "kept"
        assert not alive(paths)
        assert list(Path(temp).iterdir()) == []


@pytest.mark.parametrize("theirs", ["folder", "link"])
def test_a_foreign_file_in_the_temp_folder_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, theirs: str
) -> None:
    """The owner of a link with our name could answer instead of the server."""
    with tempfile.TemporaryDirectory(prefix="ar-") as temp:
        monkeypatch.setattr(tempfile, "tempdir", temp)
        server = EmbeddedServer(HomePaths(tmp_path / ("x" * 150)))
        if theirs == "folder":
            link = server._socket_path().parent
            link.unlink()
            link.mkdir()
        else:
            # Another uid's file needs root to make; the other way round it does not.
            monkeypatch.setattr(os, "getuid", lambda: 4_000_000)
        with pytest.raises(SetupError, match="somebody else's"):
            server.acquire()


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    """The error names the folder, the cause and the setting."""
    (tmp_path / "file").touch()
    with pytest.raises(SetupError, match=r"file/home/redis.*Not a directory.*AUTORESEARCH_HOME"):
        EmbeddedServer(HomePaths(tmp_path / "file" / "home")).acquire()


@pytest.mark.parametrize("what", ["deleted", "moved", "replaced", "emptied"])
def test_a_server_whose_folder_is_gone_is_reported_and_stopped(
    paths: HomePaths, what: str, caplog: pytest.LogCaptureFixture
) -> None:
    """What it acknowledged from then on would be lost, and its socket has no path any more."""
    server = EmbeddedServer(paths)
    write(server.acquire(), key="value")
    pid = pid_of(paths)
    if what == "moved":
        paths.home.rename(paths.home.with_name("elsewhere"))
    else:
        shutil.rmtree(paths.redis_dir if what == "emptied" else paths.home)
    if what == "replaced":
        paths.redis_dir.mkdir(parents=True)
        (paths.redis_dir / "users.lock").touch()
    for _ in range(2):
        with pytest.raises(HomeGone, match="was deleted, moved or replaced"):
            server.ensure_running()
    server.release()
    eventually(lambda: not Path(f"/proc/{pid}").exists())
    assert caplog.messages == []
    if what == "moved":  # in order: its data are complete where they are now
        paths.home.with_name("elsewhere").rename(paths.home)
        with EmbeddedServer(paths) as url:
            assert read(url, "key") == "value"


def test_without_any_server_program_the_error_says_what_to_install(
    paths: HomePaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No wheel for this machine and nothing on PATH: install one, or set REDIS_URL."""
    monkeypatch.setattr(embedded.importlib.util, "find_spec", lambda _: None)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(SetupError, match=r"Install one, or set REDIS_URL"):
        EmbeddedServer(paths).acquire()


def test_a_server_program_that_dies_at_once_is_quoted(
    paths: HomePaths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A binary for another C library, say: what it printed is in the error."""
    program = tmp_path / "valkey-server"
    program.write_text("#!/bin/sh\necho 'GLIBC_9.99 not found' >&2\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setattr(embedded, "server_binary", lambda: str(program))
    with pytest.raises(SetupError, match=r"It said: GLIBC_9.99 not found\."):
        EmbeddedServer(paths).acquire()
