"""The embedded Valkey server: started, restarted after a crash, stopped by its last user.

Several orchestrators may share one home, and each may be killed at any time, so no state is kept in
memory. Two `flock` files beside the data hold it, and the kernel releases them when a process ends:

- `users.lock`: shared, held by every orchestrator that uses the home; exclusive while the last user
  stops the server, so that no new user connects to a server that is stopping.
- `server.lock`: exclusive, taken by the orchestrator that starts the server and inherited by the
  server's process: held exactly as long as that lives, so that there are never two.

So a reused pid or a silent (paused) server is never misread. With a folder that is deleted or moved
the socket's path goes too: a connection is kept open to stop the server then.

The server knows one user, whose password is in a file beside the data (valkey.py says what it may
do); who reaches the socket without the password may do nothing.

Not covered: an external server (REDIS_URL), and when to call `ensure_running` (cli/run/serve.py).
"""

import contextlib
import fcntl
import hashlib
import logging
import os
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO
from urllib.parse import quote

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from orchestrator import folder, valkey
from orchestrator.errors import SetupError
from orchestrator.settings import HomePaths

_log = logging.getLogger(__name__)

_PASSWORD = "password"  # noqa: S105 - a file's name
_MAX_PATH_BYTES = 90  # a socket address holds 104 on macOS, 108 on Linux


class HomeGone(SetupError):
    """The server's folder is no longer where it was, so what the server acknowledges is lost."""


class EmbeddedServer:
    """One orchestrator's share in the server of a home.

    `acquire` (or `with`) once, `ensure_running` every second, `release` (or leaving `with`) once.
    """

    def __init__(self, paths: HomePaths, *, timeout_seconds: float = 30) -> None:
        self._dir = paths.redis_dir
        # How long a live server may stay silent; loading data may take longer.
        self._timeout_seconds = timeout_seconds
        self._users: IO[bytes] | None = None
        self._connection: socket.socket | None = None
        self._password = ""
        self._watch = threading.Lock()  # a late `ensure_running` must not restart after `release`

    def acquire(self) -> str:
        """Start the server, or find it running; return its URL for redis-py (SetupError if not)."""
        with self._explained():
            self._dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._dir.chmod(0o700)
            self._password = folder.secret(self._dir / _PASSWORD)
            users = self._open("users.lock")
            try:
                self._wait(
                    lambda: _flock(users, fcntl.LOCK_SH),
                    f"Another orchestrator is still stopping the server in {self._dir}: end it if "
                    "it hangs, then try again.",
                )
                if self._state() == "open":
                    self._end_open_server(users)
                self._start()
            except BaseException:
                self._leave(users)
                raise
            self._users = users
            return self.url()

    def url(self) -> str:
        """The server's URL for redis-py, with the password."""
        password = self._password or folder.secret(self._dir / _PASSWORD)
        return f"unix://{valkey.USER}:{password}@{quote(str(self._socket_path()))}?db=0"

    def ensure_running(self) -> bool:
        """Start the server again if its process is gone; True if this call did so.

        Cheap while it lives, paused or not. SetupError when it cannot start: call again later.
        HomeGone when its folder is gone: `release`.
        """
        with self._explained(), self._watch:
            if self._users is None:
                return False
            if self._is_gone(self._users):
                raise HomeGone(
                    f"{self._dir} was deleted, moved or replaced while the orchestrator ran. It "
                    "stops, because nothing that it wrote now would be kept. Put the folder back, "
                    "or `autoresearch restore` a backup, and start again."
                )
            self._socket_path()  # a cleaner of the temp folder may have removed the link
            return not self._alive() and self._start()

    def release(self) -> None:
        """Give the share back; the last user stops the server and waits until it is gone."""
        with self._explained(), self._watch:
            users, self._users = self._users, None
            if users is not None:
                self._leave(users)
            self._close_connection()

    def __enter__(self) -> str:
        return self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()

    def _leave(self, users: IO[bytes]) -> None:
        with users:
            # Unlocked first: two that leave at once would otherwise each see the other's share.
            fcntl.flock(users, fcntl.LOCK_UN)
            if not _flock(users, fcntl.LOCK_EX):
                return
            if self._is_gone(users):
                self._stop_without_folder()
                return
            try:
                self._stop(self.url())
            except (redis.RedisError, SetupError) as exc:
                # It may be paused. The next user of the home finds it again, with its data.
                _log.warning("left the embedded Redis server in %s running: %s", self._dir, exc)
                return
            if (link := self._socket_path().parent) != self._dir:
                link.unlink()

    def _is_gone(self, users: IO[bytes]) -> bool:
        """True if the folder does not hold the lock file that we have open."""
        try:
            return not os.path.samestat(os.fstat(users.fileno()), (self._dir / "users.lock").stat())
        except FileNotFoundError:
            return True

    def _stop_without_folder(self) -> None:
        if self._connection is None:
            return
        self._connection.settimeout(self._timeout_seconds)
        try:
            self._connection.sendall(b"SHUTDOWN NOSAVE\r\n")
            answer = self._connection.recv(512)  # nothing, once the server has ended
        except OSError as exc:
            answer = str(exc).encode()
        if answer:
            _log.warning("left the server of %s running: %s", self._dir, answer.decode())

    def _stop(self, url: str) -> None:
        with redis.Redis.from_url(
            url, socket_timeout=self._timeout_seconds, retry=Retry(NoBackoff(), 0)
        ) as client:
            client.shutdown()
        self._wait(lambda: not self._alive(), "it does not end")

    def _end_open_server(self, users: IO[bytes]) -> None:
        """Stop a server that an earlier version left running, which lets everyone in."""
        if not _flock(users, fcntl.LOCK_EX):
            raise SetupError(
                f"An orchestrator of an earlier version uses the server in {self._dir}, which has "
                "no password: end that orchestrator first, then start this one again."
            )
        _log.warning("the server of an earlier version in %s is started again", self._dir)
        try:
            self._stop(f"unix://{quote(str(self._socket_path()))}")
        except redis.RedisError as exc:
            raise SetupError(
                f"The server of an earlier version in {self._dir} has no password and cannot be "
                f"stopped ({exc}): end it (its pid is in {valkey.PID})."
            ) from exc
        _flock(users, fcntl.LOCK_SH)

    def _start(self) -> bool:
        """Return when the server answers; True if it had to be started."""
        spawned = False

        def ready() -> bool:
            nonlocal spawned
            state = self._state()
            if state == "ready":
                return True
            if state == "closed":
                raise SetupError(
                    f"The server in {self._dir} refuses the password in {_PASSWORD}, which was "
                    f"replaced while it ran: end that server (its pid is in {valkey.PID})."
                )
            with self._open("server.lock") as lock:
                if _flock(lock, fcntl.LOCK_EX):  # no server lives
                    if spawned:
                        raise SetupError(self._why_it_died())
                    self._spawn(lock)
                    spawned = True
            return False

        self._wait(
            ready,
            f"The embedded Redis server of {self._dir} is alive but does not answer: it is paused, "
            "or on another host that shares this folder. Resume or end it (its pid is in "
            f"{valkey.PID}), or set AUTORESEARCH_HOME to another folder.",
        )
        for line in self._log_lines() if spawned else ():
            if "Truncating the AOF" in line:
                _log.warning(
                    "A crash or a full disk cut short the last write in %s, which was never "
                    "acknowledged: it is dropped, all before it is loaded. (%s)",
                    self._dir,
                    line,
                )
        self._close_connection()
        self._connection = socket.socket(socket.AF_UNIX)
        self._connection.settimeout(self._timeout_seconds)
        self._connection.connect(str(self._socket_path()))
        valkey.log_in(self._connection, self._password)
        return spawned

    def _close_connection(self) -> None:
        if self._connection is not None:
            self._connection.close()

    def _spawn(self, lock: IO[bytes]) -> None:
        """Start the server, which inherits `lock` and holds it while it lives."""
        log = self._dir / valkey.LOG
        if log.exists():
            log.replace(log.with_suffix(".log.1"))  # the log before a crash; older logs go
        with log.open("ab") as out:
            subprocess.run(
                valkey.command(),
                check=False,
                cwd=self._dir,
                input=valkey.users(self._password).encode(),
                stdout=out,
                stderr=out,
                pass_fds=(lock.fileno(),),
                start_new_session=True,
            )

    def _log_lines(self) -> list[str]:
        """The last server's warnings without time stamps; without warnings, its whole log."""
        text = (self._dir / valkey.LOG).read_text(errors="replace")
        # "123:M 23 Nov 2026 20:29:13.157 # Bad file format"; in capitals, advice on the kernel.
        warnings = [line.partition(" # ")[2] for line in text.splitlines() if " # " in line]
        return [line for line in warnings if not line.startswith("WARNING")] or text.splitlines()

    def _why_it_died(self) -> str:
        # Valkey's hint to run its check tool is left out: the tool of Valkey 9 takes a sound base
        # file for a damaged one, and its --fix empties the file (valkey-io/valkey#4739).
        said = " / ".join(line.split(": make a backup")[0] for line in self._log_lines()[-4:])
        full = shutil.disk_usage(self._dir).free < 1 << 20
        return (
            f"The embedded Redis server cannot start on {self._dir}. "
            f"{'The disk is full. ' if full else ''}It said: {said or 'nothing'}. "
            "If its data are damaged, or written by a newer version, restore that folder from a "
            f"backup or move it away to begin empty. Its whole log: {self._dir / valkey.LOG}"
        )

    def _wait(self, done: Callable[[], bool], failure: str) -> None:
        deadline, told = time.monotonic() + self._timeout_seconds, False
        while not done():
            if self._state() == "loading":
                deadline = time.monotonic() + self._timeout_seconds
                if not told:
                    _log.warning("the embedded Redis server is loading %s", self._dir)
                told = True
            elif time.monotonic() > deadline:
                raise SetupError(failure)
            time.sleep(0.02)

    def _state(self) -> str:
        return valkey.state(self._socket_path(), self._password)

    def _alive(self) -> bool:
        with self._open("server.lock") as lock:
            return not _flock(lock, fcntl.LOCK_SH)

    def _open(self, name: str) -> IO[bytes]:
        return (self._dir / name).open("ab")

    def _socket_path(self) -> Path:
        """The socket's path, through a link in the temp folder if it is too long for a socket."""
        path = self._dir / valkey.SOCKET
        if len(os.fsencode(path)) < _MAX_PATH_BYTES:
            return path
        name = hashlib.sha256(os.fsencode(self._dir)).hexdigest()[:16]
        link = Path(tempfile.gettempdir()) / f"autoresearch-{os.getuid()}-{name}"
        with contextlib.suppress(FileExistsError):
            link.symlink_to(self._dir)
        # All users may write there, and the owner of the link could answer instead of the server.
        ours = link.lstat().st_uid == os.getuid() and link.is_symlink()
        if not ours or link.readlink() != self._dir or len(os.fsencode(link)) >= _MAX_PATH_BYTES:
            raise SetupError(
                f"{path} is too long for a socket, and {link} cannot stand for it: it is somebody "
                "else's, or too long too. Set a shorter AUTORESEARCH_HOME, or another TMPDIR."
            )
        return link / valkey.SOCKET

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except OSError as exc:
            raise SetupError(
                f"Cannot set up the embedded Redis server in {self._dir}: {exc}. Repair that, or "
                "set AUTORESEARCH_HOME to a writable folder on a local disk."
            ) from exc


def _flock(file: IO[bytes], kind: int) -> bool:
    """Take the lock if that is possible now."""
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
