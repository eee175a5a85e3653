"""The command `autoresearch`: composition and printing only; what it runs lives elsewhere.

`--help` and usage errors must be quick, so modules here import what is heavy inside functions.

Exit codes: 0 done, 1 the thing asked for failed (a crash verdict, nothing found), 2 usage or
configuration, 3 the orchestrator cannot be reached, 4 a discard verdict, 130 interrupted. A service
(`up`, `serve`, `worker`), or a `watch`, that is told to stop and does so has done its work: 0.
"""

import sys
from collections.abc import Sequence

from orchestrator.cli.output import UsageError, fail
from orchestrator.errors import AutoresearchError, SetupError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line (`sys.argv` by default) and return its exit code."""
    from typer.main import get_command

    from orchestrator.cli.app import app
    from orchestrator.cli.errors import INTERRUPTED, USAGE, CommandError

    args = list(sys.argv[1:] if arguments is None else arguments)
    as_json = "--json" in args
    try:
        # Standing alone, typer explains a usage error itself; for --json the error is wanted.
        code = get_command(app).main(args, "autoresearch", standalone_mode=not as_json) or 0
        return fail("interrupted", code, as_json=True) if code == INTERRUPTED else int(code)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 1
    except UsageError as error:
        return fail(error.format_message(), USAGE, as_json=as_json)
    except CommandError as error:
        return fail(error.message, error.exit_code, as_json=as_json, **error.extra)
    except SetupError as error:
        return fail(error.message, USAGE, as_json=as_json)
    except AutoresearchError as error:
        return fail(error.message, 1, as_json=as_json)
    except KeyboardInterrupt:
        return fail("interrupted", INTERRUPTED, as_json=as_json)
