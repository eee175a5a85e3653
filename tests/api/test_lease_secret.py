"""A lease's secret: only who was given the run can renew it, write its log, or end it."""

from typing import Any

import pytest
import redis

from tests.conftest import Api, lease_of

WRONG = ["", "0" * 32, "é", None]
CALLS: dict[str, dict[str, Any]] = {
    "/api/job/renew": {},
    "/api/job/progress": {"curve": [{"step": 1, "percent": 2, "loss": 3}]},
    "/api/job/finish": {"outcome": "completed", "metrics": {"val_bpb": 0.001}},
    "finish as a crash": {"outcome": "crash"},
    "finish as cancelled": {"outcome": "cancelled"},
    "finish as lost": {"outcome": "lost"},
    "finish as handed back": {"outcome": "handed_back"},
}


def leased(api: Api, **gpu: Any) -> Any:
    api.tag()
    api.submit("1")
    api.gpu(**gpu)
    return api.claim()


def test_each_lease_has_a_secret_of_128_bits_that_no_read_shows(api: Api) -> None:
    job = leased(api)
    secret = job["lease_secret"]
    assert len(bytes.fromhex(secret)) == 16
    for path in (
        f"/api/experiment/{job['experiment_id']}", "/api/report/export?tag=mar11",
        "/api/pool/list", "/api/experiment/history?tag=mar11", "/api/report/overview",
        "/api/report/series?tag=mar11", "/api/report/journal?tag=mar11",
    ):  # fmt: skip
        assert secret not in api.http.get(path).text, path
    api.finish(job, outcome="lost")
    assert api.claim()["lease_secret"] != secret


def test_a_claim_sent_again_gets_the_same_secret(api: Api) -> None:
    api.tag()
    api.submit("1")
    api.gpu()
    assert api.claim(claim_id="claim-01") == api.claim(claim_id="claim-01")


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("secret", WRONG)
def test_a_caller_without_the_lease_s_secret_changes_nothing(
    api: Api, call: str, secret: str | None
) -> None:
    """Epoch and GPU are easily guessed; before and after the end of the run."""
    job = leased(api)
    path = call if call.startswith("/") else "/api/job/finish"
    body = lease_of(job) | CALLS[call] | {"lease_secret": secret}
    before = api.get(f"/api/experiment/{job['experiment_id']}")
    refusal = api.post(path, 409, **body)
    assert "lease_secret" in refusal["error"]
    assert api.get(f"/api/experiment/{job['experiment_id']}") == before
    assert api.finish(job, 0.9)["status"] == "keep"
    api.post(path, 409, **body)


def test_a_daemon_of_an_older_version_goes_on_without_a_secret(api: Api) -> None:
    """It registers with a boot id and does not say that it sends secrets."""
    job = leased(api, boot_id="b")
    assert job["lease_secret"] is None
    lease = {name: value for name, value in lease_of(job).items() if value is not None}
    api.post("/api/job/renew", **lease)
    assert api.post("/api/job/finish", outcome="lost", **lease)["status"] == "queued"
    api.gpu(boot_id="b", lease_secrets=True)  # it was upgraded
    job = api.claim()
    api.post("/api/job/renew", 409, **(lease_of(job) | {"lease_secret": None}))
    assert api.finish(job, 0.9)["status"] == "keep"


@pytest.mark.parametrize("of_an_earlier_epoch", [False, True])
def test_an_attempt_from_before_the_upgrade_is_reported_without_a_secret(
    api: Api, of_an_earlier_epoch: bool
) -> None:
    """Also one that an older orchestrator granted after a newer one had granted the run before."""
    job = leased(api)
    assert api.settings.redis_url is not None
    with redis.Redis.from_url(api.settings.redis_url.get_secret_value()) as client:
        name = f"ar:{{mar11}}:run:{job['experiment_id']}"
        client.hdel(name, "lease_secret")
        if of_an_earlier_epoch:
            client.hset(name, "lease_secret", "0 " + "5e" * 16)
    lease = {name: job[name] for name in ("experiment_id", "gpu_id", "epoch")}
    api.post("/api/job/renew", **lease)
    answer = api.post("/api/job/finish", outcome="completed", metrics={"val_bpb": 0.9}, **lease)
    assert answer["status"] == "keep"
