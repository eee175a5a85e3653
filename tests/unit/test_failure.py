"""The last words of a failed run are found in its output."""

import pytest
from hypothesis import given, strategies as st

from orchestrator.rules import failure
from tests import hostile_log as hostile

TORCH = """
step 00012 ( 4.0%) | loss: 3.0 | dt: 10ms
Traceback (most recent call last):
  File "train.py", line 9, in first
    caught()
KeyError: 'caught'
Traceback (most recent call last):
  File "/tmp/w/train.py", line 690, in <module>
    sys.exit(main())
             ^^^^^^
  File "/tmp/w/train.py", line 412, in forward
    x = q @ k
        ~~^~~
  File "/lib/torch/a.py", line 1, in one
    one()
  File "/lib/torch/b.py", line 2, in two
    two()
  File "/lib/torch/c.py", line 3, in three
torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 20 GiB.
See the documentation.
"""


def test_the_last_traceback_gives_exception_message_and_innermost_frames() -> None:
    """The agent's own line is among the frames, though a library failed below it."""
    said = failure.read(TORCH.encode())
    assert said.exception == "torch.OutOfMemoryError"
    assert said.message.startswith("CUDA out of memory. Tried to allocate 20 GiB.")
    assert [(f.file, f.line, f.function, f.code) for f in said.frames] == [
        ("/tmp/w/train.py", 412, "forward", "x = q @ k"),
        ("/lib/torch/b.py", 2, "two", "two()"),
        ("/lib/torch/c.py", 3, "three", ""),
    ]


def test_a_fail_line_is_the_message() -> None:
    """train.py says so when it gives up by itself."""
    said = failure.read(b"step 1 | loss: nan\n\nFAIL: loss nan at step 7\n")
    assert (said.exception, said.message) == ("", "loss nan at step 7")


def test_without_either_the_last_lines_are_kept() -> None:
    """Progress lines are skipped."""
    assert failure.read(b"one\ntwo\nthree\nfour\nstep 9 (1%) | loss: 1\r").last_words == (
        "two\nthree\nfour"
    )


def test_the_record_s_error_replaces_a_log_that_is_gone() -> None:
    """A hand-run has no log; a leased one keeps its traceback in the record, too."""
    said = failure.read(b"", 'exit code 1\nTraceback (most recent call last):\nValueError: "no"\n')
    assert (said.exception, said.message) == ("ValueError", '"no"')


TRACE = "Traceback (most recent call last):"
BLOCK = "---\nval_bpb: 0.9979\nmfu_percent: 3.1\nprofile: cpu\ntraining_seconds: 2\n"


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (f"exit code 3\n{BLOCK}", "exit code 3"),
        (f"exit code 3\nsaving\n{BLOCK}", "exit code 3: saving"),
        (f"exit code 3\n{BLOCK}disk: full", "exit code 3: disk: full"),
        (f"exit code 1\nFAIL: too late\n{BLOCK}", "too late"),
        (
            "out of GPU memory; exit code 1\nCUDA out of memory",
            "out of GPU memory; exit code 1: CUDA out of memory",
        ),
        ("val_bpb: nan", "val_bpb: nan"),
        ("val_bpb: 1.5", "val_bpb: 1.5"),
        ("killed by SIGKILL; exit code 137\nGPTConfig\nstep 1", "killed by SIGKILL; exit code 137"),
        ("stopped after 9 s\nThe last output:\none\ntwo", "stopped after 9 s"),
        (f"exit code 1\n{TRACE}\nValueError: no\n", "ValueError: no"),
        (f"exit code 1\n{TRACE}\nKeyboardInterrupt\n", "KeyboardInterrupt"),
        (f"{TRACE}\nValueError: a\nand more", "ValueError: a"),
        ("out of GPU memory; exit code 1\nFAIL: halve the batch", "halve the batch"),
        ("exit code 3\none\ntwo\n", "exit code 3: two"),
        ("RuntimeError: by hand", "RuntimeError: by hand"),
        ("    x = f(y)\nOSError: of a log's tail by hand", "OSError: of a log's tail by hand"),
        ("", ""),
    ],
)
def test_the_headline_is_the_cause(error: str, line: str) -> None:
    """The worker's own where it knows one, or else the run's."""
    assert failure.headline(error) == line


def test_an_agent_is_not_given_a_result_block_as_a_run_s_last_words() -> None:
    said = failure.read(f"saving\n{BLOCK}".encode(), f"exit code 3\n{BLOCK}")
    assert said.last_words == "saving"


@given(st.binary(max_size=2000), st.text(max_size=500))
def test_no_output_breaks_it(output: bytes, error: str) -> None:
    """Any output can be read, and the result is clean."""
    assert "\n" not in failure.headline(error)
    for said in (failure.read(output, error), failure.read(hostile.RUN_LOG + output, error)):
        texts = [said.exception, said.message, said.last_words]
        texts += [t for f in said.frames for t in (f.file, f.function, f.code)]
        for text in texts:
            hostile.assert_harmless(text)
