"""`/mcp` of an orchestrator that cannot load the protocol's library."""

import pytest

from orchestrator.mcp import asgi_app
from tests.conftest import Api


def _broken(*_: object) -> None:
    raise ImportError("no such library")


def test_mcp_that_cannot_start_says_so_and_everything_else_is_served(
    api: Api, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """503 to agents, the reason in the log, and workers are served as before."""
    monkeypatch.setattr(asgi_app, "_manager", _broken)
    for _ in range(2):
        response = api.http.post("/mcp", json={})
        assert response.status_code == 503
        assert "MCP is not served" in response.json()["error"]
    assert "no such library" in caplog.text
    assert api.get("/readyz")["status"] == "ready"
    assert api.get("/api/pool/list")["total"] == 0
