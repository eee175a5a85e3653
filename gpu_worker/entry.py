"""The first thing that a run's Python executes: `entry.py train.py`, which becomes train.py.

It takes the run's nonce from the descriptor that AUTORESEARCH_MEASURES_FD names, so that neither
the environment nor a child process of train.py has nonce or descriptor, and gives prepare.py the
module `autoresearch_run`. Its `measured` tells the supervisor what evaluate_bpb measured; a line
without the nonce does not count. train.py shares this process and can call it too. Standard library
only.
"""

# ruff: noqa: PTH100, PTH120, PTH123 - pathlib would be a third of a short run's start
import os
import sys

TYPE_CHECKING = False  # of typing, which is slow to import
if TYPE_CHECKING:
    from typing import Any


def _open_channel() -> None:
    descriptor = int(os.environ.pop("AUTORESEARCH_MEASURES_FD"))
    nonce, write = os.read(descriptor, 64), os.write  # train.py may use the name `os`
    os.set_inheritable(descriptor, False)  # noqa: FBT003

    def measured(value: float) -> None:
        write(descriptor, b"%s %s\n" % (nonce, repr(value).encode()))

    module = type(sys)("autoresearch_run", "Where evaluate_bpb reports its measures.")
    module.measured = measured  # type: ignore[attr-defined]
    sys.modules[module.__name__] = module


def _hide_frames() -> None:
    """Let tracebacks begin in train.py, as those of `python train.py` do."""
    here, show = __file__, sys.excepthook

    def excepthook(kind: "Any", error: BaseException, trace: "Any") -> None:
        while trace is not None and trace.tb_frame.f_code.co_filename == here:
            trace = trace.tb_next
        show(kind, error.with_traceback(trace), trace)

    sys.excepthook = excepthook


def _become(script: str) -> None:
    """Execute `script` as __main__, as `python script` would."""
    here = os.path.dirname(os.path.abspath(__file__))
    if sys.path and os.path.abspath(sys.path[0]) == here:  # not so with -I
        sys.path[0] = os.path.dirname(os.path.abspath(script))
    del sys.argv[0]
    with open(script, "rb") as file:
        code = compile(file.read(), script, "exec")
    for name in [name for name in globals() if not name.startswith("__")]:
        del globals()[name]
    globals().update(__file__=script, __doc__=None)
    exec(code, globals())  # noqa: S102 - that is what a run is


if __name__ == "__main__":
    _open_channel()
    _hide_frames()
    _become(sys.argv[1])
