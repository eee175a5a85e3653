"""`python -m gpu_worker`: serve one GPU of this host, the CPU, or every GPU.

Flags override the variables of the same names. `autoresearch worker` does the same.
"""

import argparse
import signal
import sys

from pydantic import ValidationError

from gpu_worker import daemon, fleet, streams, tree
from gpu_worker.settings import WorkerSettings


def main(argv: list[str] | None = None) -> int:
    streams.complete()
    given = {k: v for k, v in vars(_parser().parse_args(argv)).items() if v is not None}
    if given.pop("leave_with_parent"):
        tree.die_with_parent(signal.SIGTERM)
    try:
        settings = WorkerSettings(**given)
    except ValidationError as error:
        for problem in error.errors():
            name = str(problem["loc"][0])
            where = f"--{name.replace('_', '-')} (AUTORESEARCH_{name.upper()})"
            sys.stderr.write(f"{where}: {problem['msg'].removeprefix('Value error, ')}\n")
        return daemon.EXIT_CANNOT_SERVE
    return fleet.run_all(settings) if settings.gpu == "all" else daemon.run(settings)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="gpu_worker", description=__doc__)
    device = parser.add_mutually_exclusive_group()
    device.add_argument("--gpu", help='an index, a UUID, "auto", "all" or "cpu"')
    device.add_argument("--cpu", dest="gpu", action="store_const", const="cpu", default=None)
    for name in WorkerSettings.model_fields.keys() - {"gpu"}:
        parser.add_argument(f"--{name.replace('_', '-')}")
    parser.add_argument(
        "--leave-with-parent", action="store_true", help="drain when the parent process ends"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
