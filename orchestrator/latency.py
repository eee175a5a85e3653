"""Measures requests for /metrics, from arrival to the first byte of the answer.

It is the outermost middleware, so refusals count too. Long polls and the event stream do not: their
caller chooses how long they take.
"""

from time import perf_counter

from prometheus_client import Histogram
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_WAITING = frozenset({"/api/job/claim", "/api/events", "/api/experiment/{experiment_id}/wait"})


class Measured:
    """ASGI middleware around everything else."""

    def __init__(self, app: ASGIApp, latency: Histogram) -> None:
        self._app = app
        self._latency = latency

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start = perf_counter()

        async def measured(message: Message) -> None:
            if message["type"] == "http.response.start":
                route = getattr(scope.get("route"), "path", "other")
                if route not in _WAITING and b"wait=" not in scope["query_string"]:
                    labels = self._latency.labels(route, f"{message['status'] // 100}xx")
                    labels.observe(perf_counter() - start)
            await send(message)

        await self._app(scope, receive, measured)
