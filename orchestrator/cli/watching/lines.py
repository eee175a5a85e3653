"""What `watch` says where there is no screen to draw on: one line for each thing that happens.

Pure, but for the clock and its zone."""

from datetime import datetime, timezone
from typing import Any

from orchestrator.cli.events import Event, Live, Lost, Missed, Sign
from orchestrator.cli.text import one_line


def line(sign: Sign) -> str:
    """A sign of the event stream in words, with the local time in front."""
    return f"{_clock(sign)} {one_line(_words(sign))}"


def object_of(sign: Sign) -> dict[str, Any]:
    """The same for a script; an event's `id` is what `--since` takes."""
    if isinstance(sign, Event):
        return {"event": sign.kind, "id": sign.id, "tag": sign.tag, "subject": sign.subject,
                **sign.data}  # fmt: skip
    name = type(sign).__name__.lower()
    return {"event": name, "why": sign.why} if isinstance(sign, Lost) else {"event": name}


def _words(sign: Sign) -> str:
    if isinstance(sign, Live):
        return "following the orchestrator's events"
    if isinstance(sign, Lost):
        return f"stale: {sign.why}; trying again"
    if isinstance(sign, Missed):
        return "some events may have been missed"
    data = sign.data
    words = [sign.kind, sign.subject or sign.tag]
    if data.get("status"):
        words.append(str(data["status"]))
    if data.get("val_bpb"):
        words.append(f"val_bpb {float(data['val_bpb']):.6f}")
    if data.get("mode"):
        words.append(f"{data['mode']}: {data.get('reason', '')}")
    if data.get("gpu_id"):
        words.append(f"on {data['gpu_id']}")
    return " ".join(words)


def _clock(sign: Sign) -> str:
    """When it happened; an event's id begins with Redis' time in milliseconds."""
    if isinstance(sign, Event):
        moment = datetime.fromtimestamp(int(sign.id.partition("-")[0]) / 1000, timezone.utc)
    else:
        moment = datetime.now(timezone.utc)
    return moment.astimezone().strftime("%H:%M:%S")
