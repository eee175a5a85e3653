"""A worker and an agent with tokens of their roles, as real processes."""

import os

import httpx

from tests.e2e.conftest import System, eventually, stub

ADMIN = "0123456789abcdef" * 4


def test_a_worker_and_an_agent_need_no_more_than_their_roles(system: System) -> None:
    """Registered, claimed, renewed, logged, reported, and gone again when it is stopped."""
    system.serve(AUTORESEARCH_TOKEN=ADMIN)
    admin = httpx.Client(base_url=system.url, timeout=40)
    admin.headers["authorization"] = f"Bearer {ADMIN}"

    def token(role: str) -> str:
        made = admin.post("/api/token/create", json={"role": role, "label": role})
        return str(made.json()["secret"])

    admin.post("/api/experiment/setup", json={"tag": "t"}).raise_for_status()
    worker = system.worker(AUTORESEARCH_TOKEN=token("worker"))
    with httpx.Client(base_url=system.url, timeout=40) as agent:
        agent.headers["authorization"] = f"Bearer {token('agent')}"
        body = {"tag": "t", "hypothesis": "h", "train_py": stub(0.9)}
        ident = agent.post("/api/experiment/submit", json=body).json()["experiment_id"]

        def decided() -> bool:
            path = f"/api/experiment/{ident}/wait?timeout=5"
            return agent.get(path).json()["verdict"] is not None

        eventually(decided, 60, "the verdict")
        assert agent.get(f"/api/experiment/{ident}").json()["status"] == "keep"
        assert "val_bpb" in agent.get(f"/api/experiment/{ident}/log").text
    worker.terminate()
    assert worker.wait(30) == os.EX_OK
    assert admin.get("/api/pool/list").json()["total"] == 0
    admin.close()
