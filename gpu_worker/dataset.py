"""The identity of what runs read: one hash over the tokenizer and the tokens of every shard.

prepare.py stores a record with the SHA-256 beside each token file, and its host check compares the
files with their records. This hash is over the records, so it is cheap enough for every claim.
Equal hashes mean equal training and validation text in equal tokens.
"""

import hashlib
import json
from pathlib import Path


def digest(cache: Path) -> str | None:
    """None where the cache is not prepared."""
    try:
        meta = json.loads((cache / "tokenizer" / "meta.json").read_bytes())
        # As prepare.py names the folder of a tokenizer's tokens.
        folder = hashlib.sha256(json.dumps(meta).encode()).hexdigest()[:16]
        records = sorted((cache / "tokens" / folder).glob("*.tokens.json"))
        hashes = [f"{path.name} {json.loads(path.read_bytes())['sha256']}" for path in records]
        lines = [f"tokenizer {meta['ranks_sha256']}", *hashes]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
