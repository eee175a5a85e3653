"""Stub trainings: comments of a train.py that a shell script interprets.

The orchestrator compiles every train.py that it gets, so a stub is valid Python; but a shell script
runs it, because starting CPython would take most of the time of a short job. The last digits of the
result are the attempt's epoch, so that the audit can tell whose result was stored.
"""

from dataclasses import dataclass
from pathlib import Path
from random import Random

# What reads the comments. Each line of a stub is `# VERB REST`; Python sees comments only.
LAUNCHER = r"""
while read -r mark verb rest; do
  [ "$mark" = "#" ] || continue
  case $verb in
    say) echo "$rest" ;;
    sleep) sleep "$rest" ;;
    result) printf -- '---\nval_bpb: %s%03d\ntraining_seconds: 1.5\n' "$rest" "${AUTORESEARCH_RUN##*.}" ;;
    flood) head -c "$rest" /dev/zero | tr '\0' 'x'; echo ;;
    escape) setsid sh -c 'trap "" TERM HUP; while :; do sleep 1; done' & ;;
    deaf) trap '' TERM ;;
    effect) gain=$((gain + ${rest%% *})) ;;
    race)
      chance=$({ cat "$1"; echo "$AUTORESEARCH_SEED"; } | cksum | cut -d' ' -f1)
      [ $((chance % 100)) -ge "$rest" ] || { echo "ValueError: the loss is too high"; exit 1; }
      value=$((20000 - gain + chance / 100 % 61 + chance / 6100 % 61 - 60))
      printf -- '---\nval_bpb: %d.%04d%03d\ntraining_seconds: 1.5\n' \
        $((value / 10000)) $((value % 10000)) "${AUTORESEARCH_RUN##*.}" ;;
    exit) exit "$rest" ;;
  esac
done < "$1"
"""  # noqa: E501 - one line a verb

_NOISE = 0.004

# A train.py for the keep rule `race`: the sum of its effects is its truth, in units of 0.0001. The
# seed adds noise with a standard deviation of 25 units, or makes it crash in 4 % of cases. Between
# two effects is a line that stays, so that ideas on different ones can be merged.
BASELINE = "\n".join(
    ["# say step 1 (50%) | loss: 2.5", "# sleep 0.1", *["# effect 0", "# --"] * 12, "# race 4"]
)

# Digits of a result before those of the epoch.
DIGITS = 4
EPOCH_DIGITS = 3

# What a train.py may do, with its share of all jobs.
BEHAVIOURS = {
    "well": 0.86,
    "crash": 0.03,
    "nan": 0.02,
    "silent": 0.02,
    "flood": 0.02,
    "escape": 0.03,
    "hang": 0.01,
    "long": 0.01,
}


def epoch_in(val_bpb: float) -> int:
    """The epoch of the attempt that printed this result."""
    digits = round(val_bpb * 10 ** (DIGITS + EPOCH_DIGITS))
    return int(digits % 10**EPOCH_DIGITS)


def write_launcher(folder: Path) -> Path:
    path = folder / "stub.sh"
    path.write_text(LAUNCHER)
    return path


@dataclass(frozen=True)
class Results:
    """Which results trainings reach: falling from 2 to about 1 over four fifths of the jobs.

    The noise has a lower end, so that in time the best is met again and again: ties. With `steep`
    most results are better than all before, which is what decisions on old snapshots get wrong.
    """

    jobs: int
    steep: bool = False

    def draw(self, number: int, random: Random) -> str:
        """What the training of this number reaches, with DIGITS decimals: so ties occur."""
        if self.steep:
            value = 2.0 - 0.001 * number + random.uniform(-0.002, 0.002)
        else:
            progress = min(1.0, 1.25 * number / self.jobs)
            value = 1.0 + (1 - progress) ** 2 + max(random.gauss(0, _NOISE), -1.5 * _NOISE)
        return f"{max(value, 0.5):.{DIGITS}f}"


def idea(number: int, base: str, random: Random) -> str:
    """`base`, a source for the keep rule `race`, with another effect."""
    lines = base.splitlines()
    places = [place for place, line in enumerate(lines) if line.startswith("# effect")]
    effect = random.choice((0, random.randint(10, 80), random.randint(-80, -10)))
    lines[random.choice(places)] = f"# effect {effect} by idea {number}"
    return "\n".join(lines) + "\n"


def truth(train_py: str) -> float:
    """What such a source reads without noise."""
    effects = (line.split()[2] for line in train_py.splitlines() if line.startswith("# effect"))
    return 2.0 - sum(map(int, effects)) / 10**DIGITS


def draw(number: int, results: Results, random: Random) -> str:
    """A train.py, unlike any other of the run."""
    kind = random.choices(list(BEHAVIOURS), list(BEHAVIOURS.values()))[0]
    seconds = random.uniform(0.05, 0.25)
    head = [f"# {number} {kind}", "# say step 1 (50%) | loss: 2.5"]
    return "\n".join(head + _body(kind, seconds, results.draw(number, random))) + "\n"


def _body(kind: str, seconds: float, result: str) -> list[str]:
    sleep, end = f"# sleep {seconds:.2f}", f"# result {result}"
    return {
        "well": [sleep, end],
        "crash": [sleep, "# say ValueError: the loss is too high", "# exit 1"],
        "nan": [sleep, "# say ---", "# say val_bpb: nan"],
        "silent": [sleep, "# say that was it"],
        "flood": ["# flood 300000", sleep, end],
        "escape": ["# escape", sleep, end],
        "hang": ["# deaf", "# sleep 600"],
        "long": [sleep, "# sleep 1.5", end],
    }[kind]
