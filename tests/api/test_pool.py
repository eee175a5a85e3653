"""The GPU pool by hand: register, heartbeat, acquire, release."""

from concurrent.futures import ThreadPoolExecutor

from tests.conftest import Api, MakeApi, eventually


def test_a_gpu_registers_and_shows_in_the_list(api: Api) -> None:
    answer = api.post(
        "/api/pool/register", gpu_id="gpu-0", gpu_index=0, gpu_name="H100", vram_mb=81559
    )
    assert answer["registered"] is True
    assert answer["worker"]["status"] == "idle"
    assert {
        "id", "name", "gpu_index", "gpu_name", "vram_mb", "status", "current_experiment_id",
        "registered_at", "last_heartbeat",
    } <= set(answer["worker"])  # fmt: skip
    assert answer["timing"]["lease_seconds"] == 30
    pool = api.get("/api/pool/list")
    assert pool["workers"] == [answer["worker"]]
    assert (pool["total"], pool["idle"], pool["training"], pool["offline"]) == (1, 1, 0, 0)


def test_a_heartbeat_of_an_unknown_gpu_is_not_found(api: Api) -> None:
    assert "register" in api.post("/api/pool/heartbeat", 404, gpu_id="nosuch")["error"]


def test_a_silent_gpu_is_offline_and_returns_with_its_heartbeat(api: Api) -> None:
    """Reading changes nothing; an offline GPU is never acquired."""
    api.tag()
    api.gpu()
    api.silence("gpu-0")
    assert api.get("/api/pool/list")["workers"][0]["status"] == "offline"
    answer = api.post("/api/pool/acquire", experiment_id=api.register())
    assert (answer["acquired"], answer["gpu_id"]) == (False, None)
    assert answer["reason"]
    api.post("/api/pool/heartbeat", gpu_id="gpu-0")
    assert api.get("/api/pool/list")["idle"] == 1
    assert api.post("/api/pool/acquire", experiment_id=api.register())["acquired"]


def test_acquire_takes_the_idle_gpu_that_registered_first(api: Api) -> None:
    """Registration order counts, and registering again does not change it."""
    api.tag()
    for index, gpu_id in enumerate(("zeta", "alpha", "mid")):
        api.gpu(gpu_id, index)
    api.gpu("zeta", 0)
    taken = [
        api.post("/api/pool/acquire", experiment_id=api.register())["gpu_id"] for _ in range(4)
    ]
    assert taken == ["zeta", "alpha", "mid", None]


def test_acquire_finds_the_one_gpu_behind_many_silent_ones_and_others_of_another_model(
    api: Api,
) -> None:
    api.tag(gpu_model="Big GPU")
    for index in range(50):
        model = "Big GPU" if index % 3 == 0 else "Test GPU"
        api.gpu(f"gpu-{index:02}", index, gpu_name=model)
        if index % 3 == 0:
            api.silence(f"gpu-{index:02}")
    api.gpu("gpu-last", 50, gpu_name="Big GPU")
    taken = [
        api.post("/api/pool/acquire", experiment_id=api.register())["gpu_id"] for _ in range(2)
    ]
    assert taken == ["gpu-last", None]


def test_of_many_who_acquire_at_once_each_gets_another_gpu(api: Api) -> None:
    api.tag()
    for index in range(8):
        api.gpu(f"gpu-{index}", index)
    ids = [api.register() for _ in range(20)]
    with ThreadPoolExecutor(10) as threads:
        answers = list(
            threads.map(lambda i: api.post("/api/pool/acquire", experiment_id=i)["gpu_id"], ids)
        )
    taken = [gpu_id for gpu_id in answers if gpu_id]
    assert sorted(taken) == [f"gpu-{i}" for i in range(8)]


def test_a_held_gpu_stays_taken_until_it_is_released(api: Api) -> None:
    """complete does not free it, its daemon claims nothing, another's release is refused."""
    api.tag()
    api.gpu()
    holder, other = api.register(), api.register()
    assert api.post("/api/pool/acquire", experiment_id=holder)["gpu_index"] == 0
    assert api.post("/api/pool/acquire", experiment_id=holder)["gpu_id"] == "gpu-0"
    api.complete(holder, 1.0)
    api.submit("1")
    assert api.claim() is None
    worker = api.get("/api/pool/list")["workers"][0]
    assert (worker["status"], worker["current_experiment_id"]) == ("training", holder)
    api.post("/api/pool/release", 409, gpu_id="gpu-0", experiment_id=other)
    assert api.post("/api/pool/release", gpu_id="gpu-0", experiment_id=holder)["released"]
    assert api.post("/api/pool/release", gpu_id="gpu-0", experiment_id=holder)["released"]
    api.post("/api/pool/release", 409, gpu_id="gpu-0", experiment_id=other)
    assert api.claim() is not None


def test_release_without_the_experiment_works_for_a_hand_run_only(api: Api) -> None:
    """Upstream's manual leaves it out; a leased GPU is released by its worker alone."""
    api.tag()
    api.gpu()
    api.post("/api/pool/acquire", experiment_id=api.register())
    api.post("/api/pool/release", gpu_id="gpu-0")
    api.submit("1")
    job = api.claim()
    answer = api.post("/api/pool/release", 409, gpu_id="gpu-0")
    assert job["experiment_id"] in answer["error"]
    api.post("/api/pool/deregister", 409, gpu_id="gpu-0")


def test_a_hold_lapses_after_budget_and_grace(make_api: MakeApi) -> None:
    api = make_api(grace_seconds=0.2, lease_seconds=1)
    api.tag(time_budget_seconds=0.2)
    api.gpu()
    api.post("/api/pool/acquire", experiment_id=api.register())
    eventually(lambda: api.get("/api/pool/list")["idle"] == 1)


def test_registering_again_never_clears_a_live_lease(api: Api) -> None:
    api.tag()
    api.submit("1")
    api.submit("2")
    api.gpu()
    job = api.claim()
    api.gpu()
    assert api.claim() is None
    worker = api.get("/api/pool/list")["workers"][0]
    assert worker["current_experiment_id"] == job["experiment_id"]


def test_the_list_says_what_started_a_daemon_until_another_one_starts(api: Api) -> None:
    def placement() -> str | None:
        (worker,) = api.get("/api/pool/list")["workers"]
        return worker.get("placement")

    api.gpu(boot_id="1", placement="slurm 12_3")
    assert placement() == "slurm 12_3"
    api.gpu(boot_id="1")
    assert placement() is None


def test_deregister_takes_a_gpu_out(api: Api) -> None:
    api.gpu()
    assert api.post("/api/pool/deregister", gpu_id="gpu-0")["deregistered"]
    assert api.get("/api/pool/list")["total"] == 0
    api.post("/api/pool/deregister", 404, gpu_id="gpu-0")


def test_health_is_the_workers_last_report_with_its_age(api: Api) -> None:
    api.gpu()
    assert api.get("/api/gpu/gpu-0/health")["age_seconds"] is None
    health = {"temperature_c": 61, "memory_used_mb": 1000, "memory_total_mb": 80000}
    api.post("/api/pool/heartbeat", gpu_id="gpu-0", health=health)
    answer = api.post("/api/gpu/gpu-0/health")
    assert answer["temperature_c"] == 61
    assert answer["utilization_percent"] is None
    assert 0 <= answer["age_seconds"] < 10
    api.get("/api/gpu/nosuch/health", 404)


def test_train_sends_an_experiment_to_that_gpu_and_no_other(api: Api) -> None:
    """The queue's other workers do not get it, whatever they ask."""
    api.tag()
    api.gpu("gpu-0", 0)
    api.gpu("gpu-1", 1)
    experiment_id = api.submit("1")
    answer = api.post("/api/gpu/gpu-1/train", 202, experiment_id=experiment_id)
    assert (answer["status"], answer["gpu_id"]) == ("queued", "gpu-1")
    assert api.claim("gpu-0") is None
    job = api.claim("gpu-1")
    api.finish(job, 0.9)
    done = api.post("/api/gpu/gpu-1/train", experiment_id=experiment_id)
    assert (done["status"], done["val_bpb"]) == ("success", 0.9)
    assert done["log_path"]
    api.post("/api/gpu/gpu-0/train", 409, experiment_id=experiment_id)
    api.post("/api/gpu/nosuch/train", 404, experiment_id=api.submit("2"))


def sent_to_gpu_1(api: Api) -> str:
    """A run that was sent to the second of two GPUs."""
    api.tag()
    api.gpu("gpu-0", 0)
    api.gpu("gpu-1", 1)
    experiment_id = api.submit("1")
    api.post("/api/gpu/gpu-1/train", 202, experiment_id=experiment_id)
    return experiment_id


def test_a_run_that_its_gpu_lost_or_cannot_take_any_more_goes_to_another(api: Api) -> None:
    experiment_id = sent_to_gpu_1(api)
    api.finish(api.claim("gpu-1"), outcome="lost")
    job = api.claim("gpu-0")
    assert job["experiment_id"] == experiment_id
    api.finish(job, 0.9)
    experiment_id = api.submit("2")
    api.post("/api/gpu/gpu-1/train", 202, experiment_id=experiment_id)
    job = api.claim("gpu-1")
    api.post("/api/pool/drain", gpu_id="gpu-1", reason="maintenance")
    api.finish(job, outcome="handed_back")
    assert api.claim("gpu-0")["experiment_id"] == experiment_id


def test_a_run_that_was_sent_to_a_gpu_that_takes_none_says_so(api: Api) -> None:
    experiment_id = sent_to_gpu_1(api)
    assert "blocked" not in api.get(f"/api/experiment/{experiment_id}")
    api.post("/api/pool/drain", gpu_id="gpu-1", reason="maintenance")
    blocked = api.get(f"/api/experiment/{experiment_id}")["blocked"]
    assert blocked.startswith("it was sent to GPU gpu-1, which is draining: take that GPU out")
    api.post("/api/pool/deregister", gpu_id="gpu-1")
    assert api.claim("gpu-0")["experiment_id"] == experiment_id


def test_a_held_gpu_cannot_leave_the_pool_and_be_taken_again(api: Api) -> None:
    """Deregister and register would give it to a second caller."""
    api.tag()
    api.gpu()
    holder = api.register()
    api.post("/api/pool/acquire", experiment_id=holder)
    assert holder in api.post("/api/pool/deregister", 409, gpu_id="gpu-0")["error"]
    api.gpu()
    assert not api.post("/api/pool/acquire", experiment_id=api.register())["acquired"]


def test_a_health_field_that_does_not_exist_is_refused(api: Api) -> None:
    api.gpu()
    for health in ({"temprature_c": 3}, {"temperature_c": True}):
        response = api.http.post("/api/pool/heartbeat", json={"gpu_id": "gpu-0", "health": health})
        assert response.status_code == 422, health
