"""A small process per run: it owns the run's process tree, log, deadline and the GPU's lock.

The worker starts it ahead of time, `python -m gpu_worker.supervisor CHANNEL_FD LOCK_FD`, and sends
an order when there is a job; without one it ends with its worker. Once it has a run it outlives its
worker: for almost a lease a new one may connect to its socket. It sends the worker what it saw, and
writes a result that is not settled at once to `result.json`. Standard library only, one thread.
"""

import os
import selectors
import signal
import socket
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from fcntl import F_SETFD, FD_CLOEXEC, fcntl
from pathlib import Path

from gpu_worker import cgroup, channel, durable, limits, seccomp, tree
from gpu_worker.channel import EndReason, Message, Order, Result, StopReason
from gpu_worker.folders import RunFolder
from gpu_worker.measures import Channel
from gpu_worker.output import CappedLog

_READ_BYTES = 65536
_SETTLE_SECONDS = 0.5
_VERIFY_LOG_BYTES = 64 * 1024


class Supervisor:
    """A run from its first byte to the end of its last process."""

    def __init__(self, order: Order, worker: socket.socket, lock_fd: int) -> None:
        self._order = order
        self._lock_fd = lock_fd
        self._folder = RunFolder(Path(order.folder))
        self._log = CappedLog(self._folder.log, order.log_limit_bytes)
        self._selector = selectors.DefaultSelector()
        self._worker: socket.socket | None = None
        self._end_reason: EndReason | None = None
        self._stop_reason: StopReason | None = None
        self._kill_at = float("inf")
        self._unkillable: list[int] = []
        self._watched: limits.Watch | None = None
        self._next_check = 0.0
        self._excess = ""
        self._statuses: dict[int, int] = {}
        self._cgroup = self._make_cgroup()
        self._oom_kills = cgroup.oom_kills(self._cgroup)
        self._listener = channel.listen(self._folder.socket)
        self._watch(self._listener.fileno(), self._accept_worker)
        self._attach(worker)

    def run(self) -> None:
        self._catch_signals()
        self._journal("started")
        started = time.monotonic()
        if self._order.level == "strict":
            self._watched = limits.Watch([self._folder.workspace, self._folder.compiled])
        self._execute(self._order.argv, self._order.deadline_seconds, self._log)
        seconds = time.monotonic() - started
        self._log.finish()
        if self._cgroup is not None and self._end_reason is None:
            self._excess = cgroup.excess(self._cgroup)
            self._end_reason = "excess" if self._excess else None
        result = self._result(seconds)
        if self._may_be_best(result):
            result = self._verify(result)
        self._journal("ended")
        if self._cgroup is not None:
            cgroup.remove(self._cgroup)
        self._finish(result._replace(ended=time.monotonic()))

    def _execute(self, argv: Sequence[str], seconds: float, log: CappedLog) -> None:
        """Run a command until no process of it is left."""
        self._start(argv, seconds, log)
        while self._guard not in self._statuses and not self._unkillable:
            for key, _ in self._selector.select(self._seconds_to_wait()):
                key.data()
            self._check_deadlines()
        self._unkillable = self._unkillable or tree.kill_descendants(self._statuses)
        for descriptor in (self._output, self._measures.fileno()):
            with suppress(KeyError):  # it has ended and is no longer watched
                self._selector.unregister(descriptor)
        with suppress(BlockingIOError):  # all writers of the pipe are dead: it ends or runs dry
            while data := os.read(self._output, _READ_BYTES):
                log.write(data)
        self._measures.read(64)  # more than its socket holds
        os.close(self._output)
        self._measures.close()  # but not the other pipe, which `_stop` may read at any time

    def _may_be_best(self, result: Result) -> bool:
        """True for a run without fault that measured less than the best and saved its model."""
        order, measures = self._order, result.measures or ()
        fine = result.reason == "exited" and result.exit_code == 0 and not result.unkillable
        below = any(value < order.verify_below for value in measures)
        return bool(order.verify_argv) and fine and below and self._folder.has_checkpoint()

    def _verify(self, result: Result) -> Result:
        """Measure the saved model in a sandbox of its own. What ends that ends no run."""
        try:
            log = CappedLog(self._folder.verify_log, _VERIFY_LOG_BYTES)
        except OSError as error:  # a full disk must not cost the run
            return result._replace(verify_exit=-1, verify_output=str(error.strerror))
        self._execute(self._order.verify_argv, self._order.verify_seconds, log)
        log.finish()
        log.close()
        words = self._folder.verify_log.read_bytes().decode(errors="replace").split("\n")
        status = self._statuses.get(self._guard)
        return result._replace(
            verified=next(reversed(self._measures.values), None),
            verify_exit=-1 if status is None else tree.exit_code(status),
            verify_output=next((line for line in reversed(words) if line.strip()), "")[:500],
            unkillable=self._unkillable,
        )

    def _make_cgroup(self) -> Path | None:
        if not self._order.cgroup:
            return None
        folder = Path(self._order.cgroup)
        try:
            cgroup.create(folder)
        except OSError as error:  # the worker's host allowed it a while ago
            self._order = self._order._replace(cgroup="")
            self._log.write(f"the memory of this run is not limited: {error}\n".encode())
            return None
        return folder

    def _watch(self, descriptor: int, action: Callable[[], None]) -> None:
        self._selector.register(descriptor, selectors.EVENT_READ, action)

    def _catch_signals(self) -> None:
        """SIGCHLD wakes the loop. Signals of a terminal are for the worker."""
        self._wake, wake_end = os.pipe()
        os.set_blocking(wake_end, False)
        signal.set_wakeup_fd(wake_end, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGTERM, lambda *_: self._stop("terminated", kill_after=0))
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        self._watch(self._wake, self._on_signal)

    def _on_signal(self) -> None:
        os.read(self._wake, 4096)
        tree.reap(self._statuses)

    def _start(self, argv: Sequence[str], seconds: float, log: CappedLog) -> None:
        self._output, output_end = os.pipe()
        self._info, info_end = os.pipe()
        os.set_blocking(self._output, False)
        os.set_blocking(self._info, False)
        self._measures = Channel()
        self._deadline = time.monotonic() + seconds
        fds = tree.Descriptors(
            output=output_end,
            info=info_end,
            lock=self._lock_fd,
            measures=self._measures.remote.detach(),
            seccomp=seccomp.open_program(),
        )
        self._guard = tree.start(self._order._replace(argv=list(argv)), fds)
        for descriptor in (output_end, info_end, fds.measures, fds.seccomp):
            os.close(descriptor)
        self._watch(self._output, lambda: self._read_output(log))
        self._watch(self._measures.fileno(), self._read_measures)
        self._send({"event": "started"})

    def _journal(self, event: str) -> None:
        order = self._order
        try:
            durable.append_to_journal(Path(order.journal), event, order.run, order.lock)
        except OSError as error:  # a full disk must not cost the run
            self._log.error = f"the journal could not be written: {error.strerror}"

    def _read_output(self, log: CappedLog) -> None:
        with suppress(BlockingIOError):
            if data := os.read(self._output, _READ_BYTES):
                log.write(data)
            else:
                self._selector.unregister(self._output)

    def _read_measures(self) -> None:
        if not self._measures.read():
            self._selector.unregister(self._measures.fileno())

    def _accept_worker(self) -> None:
        connection, _ = self._listener.accept()
        if self._worker is not None:
            connection.sendall(channel.encode({"event": "busy"}))
            connection.close()
            return
        # The message carries the lock: the new worker now holds it as the first one did.
        socket.send_fds(connection, [channel.encode({"event": "hello"})], [self._lock_fd])
        self._attach(connection)

    def _attach(self, worker: socket.socket) -> None:
        worker.settimeout(0)
        self._worker = worker
        self._decoder = channel.MessageDecoder()
        self._orphaned_at = time.monotonic() + self._order.orphan_seconds
        self._watch(worker.fileno(), lambda: self._receive(worker))

    def _receive(self, worker: socket.socket) -> None:
        try:
            data = worker.recv(_READ_BYTES)
        except OSError:
            data = b""
        if not data:
            self._selector.unregister(worker.fileno())
            worker.close()
            self._worker = None
            return
        self._orphaned_at = time.monotonic() + self._order.orphan_seconds
        for message in self._decoder.feed(data):
            if "stop" in message:
                self._stop_reason = self._stop_reason or message["stop"]
                self._stop("stopped", 0 if message["now"] else self._order.kill_after_seconds)

    def _send(self, message: Message) -> None:
        if self._worker is not None:
            # A worker that cannot read this reads result.json, or connects again.
            with suppress(OSError):
                self._worker.sendall(channel.encode(message))

    def _seconds_to_wait(self) -> float:
        moment = self._kill_at if self._end_reason else min(self._deadline, self._orphaned_at)
        longest = limits.CHECK_SECONDS if self._watched else 60.0
        return max(0.0, min(moment - time.monotonic(), longest))

    def _check_deadlines(self) -> None:
        now = time.monotonic()
        if self._end_reason is None:
            if now >= self._deadline:
                self._stop("deadline", self._order.kill_after_seconds)
            elif now >= self._orphaned_at:
                # Another worker may get the run from now on: no time for SIGTERM.
                self._stop("orphaned", kill_after=0)
        if self._watched is not None and now >= self._next_check:  # also while it is being stopped
            self._check_limits(self._watched)
            self._next_check = time.monotonic() + limits.CHECK_SECONDS
        if now >= self._kill_at:
            self._unkillable = tree.kill_descendants(self._statuses)

    def _check_limits(self, watch: limits.Watch) -> None:
        self._excess = self._excess or watch.excess() or ""
        if not self._excess and limits.may_exceed_processes():
            count = len(tree.descendants(os.getpid()))
            if count > limits.PROCESSES:
                self._excess = f"it had {count:,} processes; {limits.PROCESSES:,} are allowed"
        if self._excess:
            self._stop("excess", kill_after=0)
        elif danger := watch.disk_danger():
            self._excess = danger
            self._stop("terminated", kill_after=0)

    def _stop(self, reason: EndReason, kill_after: float) -> None:
        """SIGTERM to the run's process group, SIGKILL to all of it `kill_after` seconds later."""
        if self._end_reason is None:
            self._end_reason = reason
            leader = tree.group_leader(self._info)
            if leader is None:
                kill_after = 0
            elif kill_after > 0:
                tree.kill_group(leader, signal.SIGTERM)
        self._kill_at = min(self._kill_at, time.monotonic() + kill_after)

    def _finish(self, result: Result) -> None:
        text = result.to_json()
        self._send({"event": "ended", "result": text.decode()})
        # Usually the report is settled within this time. A sync of the disk would only delay the
        # next run, and the verdict too where Redis syncs to the same disk.
        if not self._is_settled_within(_SETTLE_SECONDS):
            self._log.close()
            with suppress(OSError):  # a full disk: the worker, if it lives, got the message
                durable.write_durably(self._folder.result, text)

    def _result(self, seconds: float) -> Result:
        status = self._statuses.get(self._guard)
        return Result(
            reason=self._end_reason or "exited",
            exit_code=None if status is None else tree.exit_code(status),
            seconds=seconds,
            ended=time.monotonic(),
            stop=self._stop_reason,
            oom_kills=cgroup.oom_kills(self._cgroup) - self._oom_kills,
            dropped_bytes=self._log.dropped,
            problem=self._log.error,
            unwritten=self._log.unwritten.decode(errors="replace"),
            unkillable=self._unkillable,
            measures=self._measures.values,
            excess=self._excess,
            level=self._order.level,
        )

    def _is_settled_within(self, seconds: float) -> bool:
        """Wait for the worker's message that the result is no longer needed."""
        deadline = time.monotonic() + seconds
        with suppress(OSError):  # a time-out is one
            while self._worker is not None and (left := deadline - time.monotonic()) > 0:
                self._worker.settimeout(left)
                data = self._worker.recv(_READ_BYTES)
                if not data:
                    return False
                if any("settled" in message for message in self._decoder.feed(data)):
                    return True
        return False


def main() -> None:
    worker = socket.socket(fileno=int(sys.argv[1]))
    lock_fd = int(sys.argv[2])
    fcntl(lock_fd, F_SETFD, FD_CLOEXEC)  # the guard keeps the lock, the launcher must not
    tree.become_subreaper()
    worker.sendall(channel.encode({"event": "ready"}))
    order = channel.receive_order(worker)
    if order is not None:
        Supervisor(order, worker, lock_fd).run()


if __name__ == "__main__":
    main()
