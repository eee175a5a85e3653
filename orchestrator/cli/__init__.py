"""The command `autoresearch`: composition and printing; the work is done by the packages below.

Exit codes: 0 done, 1 failed (a crash verdict, nothing found), 2 usage or configuration, 3 the
orchestrator cannot be reached, 4 a discard verdict, 130 interrupted. For a service (`up`, `serve`,
`worker`) and for `watch`, an orderly stop on a signal is 0.
"""

import errno
import sys
from collections.abc import Sequence

from typer.main import get_command

from gpu_worker import streams
from orchestrator.cli.app import app
from orchestrator.cli.errors import FAILED, INTERRUPTED, USAGE, CommandError
from orchestrator.cli.output import UsageError, fail, note
from orchestrator.errors import AutoresearchError, SetupError, reason


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line (`sys.argv` by default) and return its exit code."""
    streams.complete()
    args = list(sys.argv[1:] if arguments is None else arguments)
    as_json = "--json" in args
    try:
        code = _run(args, as_json=as_json)
    except OSError as error:
        unwritten = streams.flush_stdout()
        where = "" if error.filename is None else f"{error.filename}: "
        code = FAILED if unwritten else fail(f"{where}{reason(error)}", FAILED, as_json=as_json)
    else:
        unwritten = streams.flush_stdout()
    if unwritten is None:
        return code
    if unwritten.errno != errno.EPIPE:  # as with `| head`, the reader has had enough
        note(f"error: stdout takes no more: {reason(unwritten)}")
    return code or FAILED


def _run(args: list[str], *, as_json: bool) -> int:
    try:
        # In standalone mode typer prints a usage error itself; with --json we print it as JSON.
        code = get_command(app).main(args, "autoresearch", standalone_mode=not as_json) or 0
        return fail("interrupted", code, as_json=True) if code == INTERRUPTED else int(code)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else FAILED
    except UsageError as error:
        return fail(error.format_message(), USAGE, as_json=as_json)
    except CommandError as error:
        return fail(error.message, error.exit_code, as_json=as_json, **error.extra)
    except AutoresearchError as error:
        code = USAGE if isinstance(error, SetupError) else FAILED
        return fail(error.message, code, as_json=as_json)
    except KeyboardInterrupt:
        return fail("interrupted", INTERRUPTED, as_json=as_json)
