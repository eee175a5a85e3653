"""What `limited.py` runs in a process of its own: `check` compiles a source, `diff` compares two.

Sources come on standard input, the answer goes to standard output. It imports nothing of ours, and
little else, because a new one is started for each source.
"""

import resource
import sys


def check(source: str) -> str:
    """Empty for a source that compiles, else the `repr` of (line or None, message, text)."""
    try:
        # The compiler, not the parser alone: it also finds a `return` outside a function.
        compile(source.removeprefix("\ufeff"), "train.py", "exec", dont_inherit=True)
    except SyntaxError as error:
        return ascii((error.lineno, error.msg, error.text))
    except (ValueError, RecursionError) as error:
        return ascii((None, str(error), None))
    return ""


def diff(before: str, after: str, before_name: str, after_name: str) -> str:
    from difflib import unified_diff

    lines = unified_diff(
        before.splitlines(keepends=True),
        after.splitlines(keepends=True),
        f"{before_name}/train.py",
        f"{after_name}/train.py",
    )
    return "".join(line if line.endswith("\n") else f"{line}\n" for line in lines)


def main(cpu_seconds: str, memory_bytes: str, verb: str, first_bytes: str, *names: str) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CPU, (int(cpu_seconds),) * 2)
    if sys.platform == "linux":  # macOS refuses a limit below what it has mapped already
        resource.setrlimit(resource.RLIMIT_AS, (int(memory_bytes),) * 2)
    sources = sys.stdin.buffer.read()
    first, second = sources[: int(first_bytes)], sources[int(first_bytes) :]
    if verb == "check":
        answer = check(first.decode())
    else:
        answer = diff(first.decode(), second.decode(), *names)
    sys.stdout.buffer.write(answer.encode())


if __name__ == "__main__":
    main(*sys.argv[1:])
