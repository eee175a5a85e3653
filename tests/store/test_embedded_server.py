"""The embedded server with real processes: who starts it, who stops it, what a kill leaves, and
which error a damaged folder gives. What the server's commands do is not tested here."""

import contextlib
import fcntl
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
import redis

from orchestrator import folder, valkey
from orchestrator.embedded import EmbeddedServer, HomeGone
from orchestrator.errors import SetupError
from orchestrator.settings import HomePaths
from orchestrator.store import scripts
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
        client.execute_command("INCR", "ar:starts")
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


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a server that holds a key, for tests that must not change it."""
    with EmbeddedServer(HomePaths(tmp_path_factory.mktemp("serving"))) as url:
        write(url, key="kept")
        yield url


def socket_of(url: str) -> str:
    return unquote(urlsplit(url).path)


def alive(paths: HomePaths) -> bool:
    """True if a server process holds its lock."""
    try:
        with (paths.redis_dir / "server.lock").open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


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
            client.set(f"ar:{key}", value)


def read(url: str, key: str) -> object:
    with redis.Redis.from_url(url, decode_responses=True) as client:
        return client.get(f"ar:{key}")


def test_every_write_is_on_disk_before_it_is_acknowledged(
    paths: HomePaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server runs with the durable settings, without TCP, in a folder of its owner alone."""
    monkeypatch.setattr(valkey, "COMMANDS", f"{valkey.COMMANDS} config|get")
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


# Each takes the state, breaks it, or looks beyond our keys.
FORBIDDEN = [
    "FLUSHALL", "FLUSHDB", "CONFIG GET *", "CONFIG SET dir /tmp", "DEBUG SLEEP 0", "KEYS *",
    "ACL LIST", "ACL SETUSER default on nopass", "MODULE LIST", "SCRIPT FLUSH", "MONITOR", "SAVE",
    "REPLICAOF 127.0.0.1 1", "SLAVEOF NO ONE", "CLIENT KILL TYPE normal", "CLIENT LIST",
    "BGREWRITEAOF", "PUBLISH news x", "SUBSCRIBE ar:news", "FUNCTION LIST", "MIGRATE h 1 k 0 1",
    "DUMP ar:key", "RENAME ar:key ar:other", "SORT ar:key", "GET foreign", "SET foreign x",
    "SELECT 1",
]  # fmt: skip


@pytest.mark.parametrize("command", [*FORBIDDEN, "GET ar:key", "EVAL return,1 0", "SHUTDOWN"])
def test_whoever_reaches_the_socket_without_the_password_may_do_nothing(
    serving: str, command: str
) -> None:
    with (
        redis.Redis(unix_socket_path=socket_of(serving), retry=None) as stranger,
        pytest.raises(redis.AuthenticationError),
    ):
        stranger.execute_command(*command.replace(",", "\0").split())
    assert read(serving, "key") == "kept"


@pytest.mark.parametrize("command", FORBIDDEN)
def test_the_orchestrator_itself_may_use_its_keys_and_no_other_command(
    serving: str, command: str
) -> None:
    """Neither directly nor in a script."""
    words = command.split()
    script = "return redis.call(unpack(ARGV))"
    for call in (words, ["EVAL", script, "0", *words]):
        with redis.Redis.from_url(serving) as client, pytest.raises(redis.ResponseError) as caught:
            client.execute_command(*call)
        assert any(word in str(caught.value) for word in ("permission", "not allowed", "unknown"))
    assert read(serving, "key") == "kept"


def test_every_command_of_the_scripts_is_allowed() -> None:
    called = {
        name.lower()
        for file in Path(scripts.__file__).parent.glob("lua/*.lua")
        for name in re.findall(r"redis\.call\('(\w+)'", file.read_text("utf-8"))
    }
    assert len(called) > 20
    assert called <= set(valkey.COMMANDS.split())


def test_the_password_is_in_one_file_of_its_owner_and_nowhere_else(paths: HomePaths) -> None:
    with EmbeddedServer(paths) as url:
        password = urlsplit(url).password or ""
        process = Path(f"/proc/{pid_of(paths)}")
        told = (process / "cmdline").read_bytes() + (process / "environ").read_bytes()
        assert password.encode() not in told
    assert len(bytes.fromhex(password)) == 32
    holders = [
        path
        for path in paths.redis_dir.rglob("*")
        if path.is_file() and password in path.read_text("latin-1")
    ]
    assert holders == [paths.redis_dir / "password"]
    assert holders[0].stat().st_mode & 0o777 == 0o600
    with EmbeddedServer(paths) as url:
        assert urlsplit(url).password == password


def test_processes_that_ask_for_a_secret_at_once_get_the_same(tmp_path: Path) -> None:
    ask = (
        "import sys; from pathlib import Path; from orchestrator.folder import secret\n"
        "sys.stdin.read(1); print(secret(Path(sys.argv[1])))"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", ask, str(tmp_path / "secret")],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        for _ in range(6)
    ]  # fmt: skip
    answers = {process.communicate("x")[0] for process in processes}
    assert len(answers) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["secret"]


def test_a_secret_file_that_was_emptied_is_named(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("")
    with pytest.raises(SetupError, match="64 hexadecimal digits"):
        folder.secret(tmp_path / "secret")


@contextlib.contextmanager
def server_of_an_earlier_version(paths: HomePaths) -> Iterator[None]:
    """It has the same files and locks, and lets everyone in."""
    paths.redis_dir.mkdir(parents=True)
    with (paths.redis_dir / "server.lock").open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        subprocess.run(
            [valkey.server_binary(), *valkey.OPTIONS],
            cwd=paths.redis_dir,
            pass_fds=(lock.fileno(),),
            check=True,
            stdout=subprocess.DEVNULL,
        )
    socket_path = str(paths.redis_dir / "valkey.sock")

    def written() -> bool:
        with (
            contextlib.suppress(redis.ConnectionError),
            redis.Redis(unix_socket_path=socket_path) as client,
        ):
            return bool(client.set("ar:key", "kept"))
        return False

    eventually(written)
    yield


def test_a_server_that_an_earlier_version_left_running_is_replaced_with_its_data(
    paths: HomePaths,
) -> None:
    with server_of_an_earlier_version(paths):
        before = pid_of(paths)
        with EmbeddedServer(paths) as url:
            assert read(url, "key") == "kept"
            assert pid_of(paths) != before
            with (
                redis.Redis(unix_socket_path=socket_of(url), retry=None) as stranger,
                pytest.raises(redis.AuthenticationError),
            ):
                stranger.ping()


def test_a_server_that_an_orchestrator_of_an_earlier_version_uses_is_left_to_it(
    paths: HomePaths,
) -> None:
    """Its own calls have no password, so the new one waits for its end, and says so."""
    with server_of_an_earlier_version(paths):
        pid = pid_of(paths)
        with (paths.redis_dir / "users.lock").open("ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH)
            with pytest.raises(SetupError, match=r"earlier version .* end that orchestrator first"):
                EmbeddedServer(paths).acquire()
            assert pid_of(paths) == pid
            assert alive(paths)
        with EmbeddedServer(paths) as url:
            assert read(url, "key") == "kept"


def test_a_password_file_replaced_while_the_server_runs_is_said_so(paths: HomePaths) -> None:
    with EmbeddedServer(paths):
        file = paths.redis_dir / "password"
        right = file.read_text()
        file.write_text("0" * 64)
        with pytest.raises(SetupError, match="refuses the password"):
            EmbeddedServer(paths).acquire()
        file.write_text(right)


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


def test_a_start_waits_until_the_last_stop_is_over(
    paths: HomePaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A user that comes while the last one stops the server gets a new one, not the dying one."""
    last, stopping, stop = EmbeddedServer(paths), threading.Event(), EmbeddedServer._stop
    monkeypatch.setattr(last, "_stop", lambda url: (stopping.set(), stop(last, url)))
    write(last.acquire(), key="kept")
    pid = pid_of(paths)
    os.kill(pid, signal.SIGSTOP)  # it will be long in stopping
    leaving = threading.Thread(target=last.release)
    leaving.start()
    assert stopping.wait(60)  # it has its lock; to look at that by taking it would disturb it
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
        "            client.execute_command('INCR', 'ar:served')\n"
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


@pytest.mark.slow  # the data must load for longer than a busy machine may leave a server silent
def test_a_start_waits_for_data_that_load_slowly(
    paths: HomePaths, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A server that answers LOADING is given more time than a silent one, and that is said once."""
    with EmbeddedServer(paths) as url, redis.Redis.from_url(url) as client:
        many = client.pipeline(transaction=False)
        for number in range(30_000):
            many.set(f"ar:key{number}", number)
        many.execute()
    # Microseconds for each of 30 000 commands, ten times that on busy cores; it answers after 1024.
    slow = (*valkey.OPTIONS, "--key-load-delay", "500")
    monkeypatch.setattr(valkey, "OPTIONS", slow)
    with EmbeddedServer(paths, timeout_seconds=15) as url:
        assert read(url, "key29999") == "29999"
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
    assert "cut short" not in caplog.text


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
    monkeypatch.setattr(valkey.importlib.util, "find_spec", lambda _: None)
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
    monkeypatch.setattr(valkey, "server_binary", lambda: str(program))
    with pytest.raises(SetupError, match=r"It said: GLIBC_9.99 not found\."):
        EmbeddedServer(paths).acquire()
