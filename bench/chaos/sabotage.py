"""Seeded bugs: each removes one safeguard of the product, in the processes of one run.

    python -m bench.chaos.sabotage NAME MODULE ARGUMENTS...

applies the patches (bugs.py) and then runs MODULE as `python -m MODULE` would. The product has no
switch for it.
"""

import runpy
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass

from bench.chaos import bugs

# Instead of a module: try the patches, run nothing.
_CHECK = "check"


@dataclass(frozen=True)
class Bug:
    """A missing safeguard, and the patches that remove it."""

    without: str
    orchestrator: Callable[[], None] | None = None
    worker: Callable[[], None] | None = None


BUGS = {
    "no-epoch-check": Bug("the comparison of epochs: any attempt may report", bugs.no_epoch_check),
    "no-nonce": Bug("nonces: a script that is sent again acts again", bugs.no_nonce),
    "short-lease": Bug("a lease longer than the time between renewals", bugs.short_lease),
    "parent-only-kill": Bug(
        "the end of the whole tree: only the direct child is killed", worker=bugs.parent_only_kill
    ),
    "no-compare": Bug("the comparison of revisions: decisions on old snapshots", bugs.no_compare),
    "two-step-claim": Bug(
        "the atomic claim: look in one script, take in another", bugs.two_step_claim
    ),
    "client-clocks": Bug("Redis' clock: orchestrators judge by their own", bugs.client_clocks),
    "finish-decides-again": Bug(
        "the stored verdict: a report that comes again decides again", bugs.finish_decides_again
    ),
    "hasty-reaper": Bug("the reaper's waiting lease: it judges by stamps alone", bugs.hasty_reaper),
    "no-reaper": Bug("the reaper: dead leases stay", bugs.no_reaper),
    "no-release": Bug("the release of the GPU with the decision", bugs.no_release),
    "keep-on-tie": Bug("strictness: a tie with the best is kept", bugs.keep_on_tie),
    "no-gpu-lock": Bug("the lock of the GPU on its host", worker=bugs.no_gpu_lock),
    "no-wait-for-the-end": Bug(
        "the wait for the old run's end before the next begins", worker=bugs.no_wait_for_the_end
    ),
    # Made by how the harness starts Redis.
    "volatile-redis": Bug("the append-only file: Redis forgets when it is killed"),
}  # fmt: skip


def check(name: str) -> None:
    """Raise CalledProcessError if a patch no longer applies; its error is on stderr."""
    subprocess.run([sys.executable, "-m", "bench.chaos.sabotage", name, _CHECK], check=True)


def main() -> None:
    name, module, *arguments = sys.argv[1:]
    bug = BUGS[name]
    for patch, where in ((bug.orchestrator, "orchestrator."), (bug.worker, "gpu_worker")):
        if patch is not None and (module == _CHECK or module.startswith(where)):
            patch()
    if module == _CHECK:
        return
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
