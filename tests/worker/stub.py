"""A small real HTTP orchestrator for the worker's tests: a thread per connection, state in memory.

It implements the workers' part of the API (leases by epoch, one answer per claim id) and checks
every body against the schemas; it decides nothing. Tests script it through its attributes.
"""

import base64
import contextlib
import hashlib
import json
import socket
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from pydantic import BaseModel, ValidationError

from orchestrator import schemas

Json = dict[str, Any]

LEASE_SECRET = "5e" * 16

REQUESTS: dict[str, type[BaseModel]] = {
    "/api/pool/register": schemas.RegisterGpuRequest,
    "/api/pool/heartbeat": schemas.HeartbeatRequest,
    "/api/pool/deregister": schemas.GpuRequest,
    "/api/job/claim": schemas.ClaimRequest,
    "/api/job/renew": schemas.RenewRequest,
    "/api/job/progress": schemas.ProgressRequest,
    "/api/job/finish": schemas.FinishRequest,
}


class Stub:
    def __init__(self) -> None:
        self.lease_seconds = 10.0
        self.heartbeat_seconds = 0.2  # as the registration says
        self.interval: float | None = None  # as the heartbeats' answers say, if they do
        self.mode = "up"  # or "503", or "silent": connections are closed without an answer
        self.jobs: list[Json] = []
        self.gpus: dict[str, Json] = {}
        self.deregistered: list[str] = []
        self.leases: dict[str, str] = {}  # run -> gpu_id
        self.lost: set[str] = set()
        self.cancelled: set[str] = set()
        self.finished: dict[str, Json] = {}
        self.logs: dict[str, bytearray] = {}
        self.curves: dict[str, list[Json]] = {}
        self.prepares: dict[str, bytes] = {}
        self.calls: list[tuple[str, Json]] = []
        self.violations: list[str] = []  # requests that broke the contract
        self.refuse_registration = False
        self.report_status = 200  # with another one, each report but `lost` is refused
        self.lose_claim_answers = 0  # how many grants are lost on the way
        self.delay_grants_until_drain = False
        self.registration_seconds = 0.0  # how long each takes
        self.granted_for: dict[str, str | None] = {}  # run -> data that its GPU had registered
        self._granted: dict[str, Json] = {}
        self.changed = threading.Condition()
        self._server: ThreadingHTTPServer | None = None
        self.port = 0

    def start(self) -> None:
        handler = type("Handler", (_Handler,), {"stub": self})
        self._server = _Server(("127.0.0.1", self.port), handler)
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        """As after a kill: the port refuses connections."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server.drop_connections()
            self._server = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def submit(self, train_py: str, **more: Any) -> str:
        """Queue a run; its name is `<experiment>.<epoch>`."""
        with self.changed:
            number = len(self._granted) + len(self.jobs) + 1
            job = {
                "experiment_id": f"exp-{number}",
                "tag": "test",
                "epoch": 1,
                "lease_secret": LEASE_SECRET,
                "seed": 42,
                "time_budget_seconds": 20.0,
                "grace_seconds": 20.0,
                "lease_seconds": self.lease_seconds,
                "train_py": train_py,
                "source_sha256": hashlib.sha256(train_py.encode()).hexdigest(),
                "prepare_sha256": None,
                **more,
            }
            self.jobs.append(job)
            self.changed.notify_all()
        return f"{job['experiment_id']}.{job['epoch']}"

    def wait_for(self, what: Callable[[], Any], seconds: float = 60.0) -> Any:
        """Wait until `what()` is true, and return it."""
        deadline = time.monotonic() + seconds
        with self.changed:
            while not (found := what()):
                left = deadline - time.monotonic()
                assert left > 0, f"it did not happen; finished: {self.finished}, {self.violations}"
                self.changed.wait(min(left, 0.05))
            return found

    def report(self, run: str, seconds: float = 60.0) -> Json:
        return self.wait_for(lambda: self.finished.get(run), seconds)

    def output(self, run: str) -> str:
        return bytes(self.logs[run]).decode(errors="replace")

    def is_draining(self, gpu_id: str) -> bool:
        return gpu_id not in self.gpus or bool(self.gpus[gpu_id].get("draining"))

    def count(self, path: str) -> int:
        return sum(called == path for called, _ in self.calls)

    def answer(self, path: str, query: dict[str, list[str]], body: Json) -> tuple[int, Json]:
        with self.changed:
            self.calls.append((path, body))
            try:
                return self._answer(path, float(query.get("wait", ["0"])[0]), body)
            finally:
                self.changed.notify_all()

    def _answer(self, path: str, wait: float, body: Json) -> tuple[int, Json]:
        if path == "/api/job/claim":
            return self._claim(body, wait)
        return self._pool(path, body) if "/pool/" in path else self._job(path, body)

    def _pool(self, path: str, body: Json) -> tuple[int, Json]:
        gpu_id = body["gpu_id"]
        if path == "/api/pool/register":
            if self.refuse_registration:
                return 400, {"error": "not this one"}
            self.changed.wait_for(lambda: False, self.registration_seconds)
            self.gpus[gpu_id] = body
            return 200, self._registered(body)
        if gpu_id not in self.gpus:
            return 404, {"error": f"no GPU {gpu_id}"}
        if path == "/api/pool/deregister":
            self.deregistered.append(gpu_id)
            del self.gpus[gpu_id]
            return 200, {"deregistered": True}
        self.gpus[gpu_id] |= {"problem": None, **body}
        return 200, {"ok": True, "heartbeat_seconds": self.interval}

    def _job(self, path: str, body: Json) -> tuple[int, Json]:
        run = f"{body['experiment_id']}.{body['epoch']}"
        if body["lease_secret"] != LEASE_SECRET:
            self.violations.append(f"{path}: {run} without its lease's secret")
        if run in self.finished:
            return 200, self._finish_answer(body)
        if run in self.lost or self.leases.get(run) != body["gpu_id"]:
            return 409, {"error": f"{run} belongs to another worker"}
        if path == "/api/job/finish":
            if self.report_status != 200 and body["outcome"] != "lost":
                return self.report_status, {"error": "not this report"}
            self.finished[run] = body
            return 200, self._finish_answer(body)
        if path == "/api/job/progress":
            self._save_progress(run, body)
        known = body["gpu_id"] in self.gpus
        return 200, {"ok": True, "cancel": run in self.cancelled, "gpu_known": known}

    def _claim(self, body: Json, wait: float) -> tuple[int, Json]:
        gpu_id, claim_id = body["gpu_id"], body["claim_id"]
        if gpu_id not in self.gpus:
            return 404, {"error": f"no GPU {gpu_id}"}
        deadline = time.monotonic() + wait
        while claim_id not in self._granted:
            gpu = self.gpus.get(gpu_id)
            fit = gpu and not gpu.get("problem") and not gpu.get("draining")
            if self.jobs and fit:
                job = self.jobs.pop(0) | {"gpu_id": gpu_id}
                self._granted[claim_id] = job
                run = f"{job['experiment_id']}.{job['epoch']}"
                self.leases[run], self.granted_for[run] = gpu_id, gpu["data_sha256"]
            elif time.monotonic() >= deadline:
                return 200, {"job": None}
            else:
                self.changed.wait(max(0.0, min(0.05, deadline - time.monotonic())))
        return 200, {"job": self._granted[claim_id]}

    def _save_progress(self, run: str, body: Json) -> None:
        if body["curve"]:
            self.curves[run] = body["curve"]
        if chunk := body["log"]:
            log = self.logs.setdefault(run, bytearray())
            data, offset = base64.b64decode(chunk["data"]), chunk["offset"]
            if offset > len(log):
                self.violations.append(f"{run}: a gap in the log: {offset} > {len(log)}")
            log[offset : offset + len(data)] = data

    def _registered(self, body: Json) -> Json:
        worker = {
            "id": body["gpu_id"],
            "name": body["name"],
            "gpu_index": body["gpu_index"],
            "gpu_name": body["gpu_name"],
            "vram_mb": body["vram_mb"],
            "status": "idle",
            "current_experiment_id": None,
            "registered_at": "2026-01-01T00:00:00.000000Z",
            "last_heartbeat": "2026-01-01T00:00:00.000000Z",
        }
        timing = {"lease_seconds": self.lease_seconds, "heartbeat_seconds": self.heartbeat_seconds}
        return {"registered": True, "worker": worker, "timing": timing}

    def _finish_answer(self, body: Json) -> Json:
        status = {"completed": "keep", "lost": "queued", "handed_back": "queued"}
        outcome = body["outcome"]
        return {"experiment_id": body["experiment_id"], "status": status.get(outcome, outcome)}


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._connections: set[socket.socket] = set()

    def get_request(self) -> tuple[socket.socket, Any]:
        connection, address = super().get_request()
        self._connections.add(connection)
        return connection, address

    def shutdown_request(self, request: Any) -> None:
        self._connections.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A worker that was killed leaves half a request: expected here."""

    def drop_connections(self) -> None:
        for connection in list(self._connections):
            with contextlib.suppress(OSError):  # its thread may have closed it just now
                connection.shutdown(socket.SHUT_RDWR)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    stub: Stub

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        if self._refused():
            return
        content = self.stub.prepares.get(self.path.rpartition("/")[2])
        self._send(404 if content is None else 200, content or b'{"error": "no such file"}')

    def do_POST(self) -> None:
        length = int(self.headers["Content-Length"])
        raw = self.rfile.read(length)
        if len(raw) < length:  # the worker was killed in the middle of it
            self.close_connection = True
            return
        if self._refused():
            return
        url = urlsplit(self.path)
        try:
            body = REQUESTS[url.path].model_validate_json(raw).model_dump(mode="json")
        except ValidationError as error:
            self.stub.violations.append(f"{url.path}: {error}")
            self._send(422, b'{"error": "broken contract"}')
            return
        status, answer = self.stub.answer(url.path, parse_qs(url.query), body)
        if url.path == "/api/job/claim" and answer.get("job") and self.stub.lose_claim_answers:
            self.stub.lose_claim_answers -= 1
            self.close_connection = True
            return
        if answer.get("job") and self.stub.delay_grants_until_drain:
            self.stub.wait_for(lambda: self.stub.is_draining(body["gpu_id"]))
        self._send(status, json.dumps(answer).encode())

    def _refused(self) -> bool:
        if self.stub.mode == "503":
            self._send(503, b'{"error": "Redis is away"}')
        elif self.stub.mode == "silent":
            self.close_connection = True
        return self.stub.mode != "up"

    def _send(self, status: int, content: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)
