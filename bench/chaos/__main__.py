"""`python -m bench.chaos`: faults over jobs, and the audit's verdict.

With --sabotage NAME a seeded bug is hunted instead, with `all` every one in turn; `recovery`
measures how long recovery takes at production timings.
"""

import argparse
import asyncio
import shutil
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import get_args

from bench.chaos import hunt, report
from bench.chaos.injector import FULL, NETWORK
from bench.chaos.recovery import Recovery
from bench.chaos.rounds import Harness, Trial
from bench.chaos.sabotage import BUGS
from bench.chaos.switch import enter_new_namespace
from bench.chaos.system import Plan, apart
from orchestrator.domain import KeepRule

_INTERRUPTED = 130


def main() -> int:
    arguments = _parser().parse_args()
    if arguments.network:
        enter_new_namespace()  # before there are threads, which would stay behind
    work = _recover if arguments.command == "recovery" else _hunt if arguments.sabotage else _run
    try:
        return asyncio.run(work(arguments))
    except KeyboardInterrupt:
        return _INTERRUPTED  # every process has been ended on the way


async def _run(arguments: argparse.Namespace) -> int:
    folder = Path(tempfile.mkdtemp(prefix="chaos-", dir=arguments.folder))
    plan = apart(folder, arguments.seed) if arguments.network else Plan(folder)
    plan = replace(
        plan,
        workers=arguments.workers or plan.workers,
        orchestrators=arguments.orchestrators or plan.orchestrators,
        sandbox=arguments.sandbox,
    )
    trial = Trial(
        arguments.jobs,
        arguments.faults,
        arguments.seed,
        mix=NETWORK if arguments.network else FULL,
        keep_rule=arguments.keep_rule,
    )
    async with Harness.running(plan, trial) as harness:
        async with report.follow(harness):
            await harness.round()
        report.print_audit(harness)
        clean = not harness.findings.found
    report.print_network(harness)
    _tidy(folder, keep=arguments.keep or not clean)
    return 0 if clean else 1


async def _hunt(arguments: argparse.Namespace) -> int:
    baits = hunt.NETWORK_BAITS if arguments.network else hunt.BAITS
    wanted = list(baits) if arguments.sabotage == "all" else [arguments.sabotage]
    if not baits.keys() >= set(wanted):
        raise SystemExit(f"with --network only these are hunted: {', '.join(baits)}")
    catches = []
    for bug in wanted:
        folder = Path(tempfile.mkdtemp(prefix="chaos-", dir=arguments.folder))
        catches.append(await hunt.hunt(bug, folder, arguments.seed, network=arguments.network))
        report.print_catch(catches[-1])
        _tidy(folder, keep=arguments.keep or catches[-1].invariant is None)
    print(hunt.markdown(catches))
    return 0 if all(catch.invariant for catch in catches) else 1


async def _recover(arguments: argparse.Namespace) -> int:
    folder = Path(tempfile.mkdtemp(prefix="chaos-", dir=arguments.folder))
    samples = await Recovery(folder, arguments.seed).run(arguments.repeat)
    report.print_recovery(samples)
    _tidy(folder, keep=arguments.keep)
    return 0


def _tidy(folder: Path, *, keep: bool) -> None:
    """Logs and journals stay where they are needed."""
    if keep:
        print(f"logs, journals and Redis' data: {folder}")
    else:
        shutil.rmtree(folder, ignore_errors=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="bench.chaos", description=__doc__)
    parser.add_argument("command", nargs="?", choices=["recovery"])
    parser.add_argument("--repeat", type=int, default=3, help="rounds of `recovery`")
    parser.add_argument("--jobs", type=int, default=300)
    parser.add_argument("--faults", type=int, default=60)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--workers", type=int, help="5; with --network 2")
    parser.add_argument("--orchestrators", type=int, help="3; with --network 1")
    parser.add_argument(
        "--network", action="store_true", help="each process on a host of its own, over TLS"
    )
    parser.add_argument("--sandbox", default="none", choices=["strict", "pid", "none"])
    parser.add_argument(
        "--keep-rule", default="greedy", choices=get_args(KeepRule), help="of the first tag"
    )
    parser.add_argument("--folder", type=Path, help="where the run's own folder is created")
    parser.add_argument("--keep", action="store_true", help="keep the folder of a clean run too")
    parser.add_argument("--sabotage", choices=[*BUGS, "all"], help="hunt a seeded bug")
    return parser


if __name__ == "__main__":
    sys.exit(main())
