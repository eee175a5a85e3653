"""`python -m bench.chaos`: faults over jobs, and the audit's verdict."""

import argparse
import asyncio
import sys
import tempfile
from pathlib import Path

from bench.chaos.report import follow, table
from bench.chaos.rounds import Harness, Trial
from bench.chaos.system import Plan


def main() -> int:
    arguments = _parser().parse_args()
    folder = Path(tempfile.mkdtemp(prefix="chaos-", dir=arguments.folder))
    plan = Plan(folder, workers=arguments.workers, orchestrators=arguments.orchestrators)
    trial = Trial(arguments.jobs, arguments.faults, arguments.seed)
    return asyncio.run(_run(plan, trial))


async def _run(plan: Plan, trial: Trial) -> int:
    async with Harness.running(plan, trial) as harness:
        async with follow(harness):
            await harness.round()
        table(harness)
        return 1 if harness.findings.found else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="bench.chaos", description=__doc__)
    parser.add_argument("--jobs", type=int, default=300)
    parser.add_argument("--faults", type=int, default=60)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--workers", type=int, default=5)
    parser.add_argument("--orchestrators", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where the run's own folder is created")
    return parser


if __name__ == "__main__":
    sys.exit(main())
