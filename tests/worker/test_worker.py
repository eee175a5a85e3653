"""A worker's ordinary life: join the pool, train what it is given, report, leave."""


from tests.worker.conftest import BLOCK, GPU_ID, Host, end
from tests.worker.stub import Stub


def test_a_run_is_claimed_trained_and_reported(host: Host, stub: Stub) -> None:
    """The whole way of one run, with everything that the orchestrator learns from it."""
    run = stub.submit("print('step 1 ( 50.0%) | loss: 3.0 | dt: 1ms')" + BLOCK)
    worker = host.start()
    report = stub.report(run)
    assert report["outcome"] == "completed", report
    assert report["metrics"]["val_bpb"] == 1.2345
    assert stub.output(run).startswith("step 1 ( 50.0%)")
    assert end(worker) == 0
    assert stub.deregistered == [GPU_ID]
