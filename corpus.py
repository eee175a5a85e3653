"""The command `uv run prepare.py`: bring text into the cache, train the tokenizer, tokenize.

- Covers three sources: climbmix from its hub, text that this machine has anyway, a folder of yours.
- Leaves out the network (download.py) and what training needs (prepare.py). A tag pins prepare.py
  only, so a change here does not separate old runs from new ones.
"""

import argparse
import hashlib
import os
import shutil
import sys
import sysconfig
from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext, suppress
from dataclasses import replace
from itertools import chain
from pathlib import Path

import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.parquet as pq  # type: ignore[import-untyped]

import prepare
from download import LAST_SHARD, default_shards, download_all, hub_error, shard_name
from prepare import VALIDATION_SHARD, Manifest, PrepareError, TokenFile, Tokenizer, TokenShards, log

# Text of this machine or of a folder --------------------------------------------------------------

OFFLINE_BYTES = 60_000_000  # of text in the offline corpus; it is made in half a minute
FOLDER_BYTES = 200_000_000  # of text from a folder, at most
VALIDATION_BYTES = 10_000_000  # of text held out, but at most a twelfth of all
SMALLEST_BYTES = 1_000_000  # of text that a corpus needs
OFFLINE_SUFFIXES = {".py", ".md", ".rst", ".txt"}
SECTION_CHARS = 64_000  # trained on or held out as a whole, because neighbouring text is alike
DOCUMENT_CHARS = 4_000  # about half a context, because what exceeds a row is cropped and lost


def text_hash(text: bytes) -> bytes:
    """Identifies a text. Sorting by it shuffles with a fixed seed, alike on every machine."""
    return hashlib.blake2b(text, key=b"42").digest()


def split_text(text: str, limit: int) -> Iterator[str]:
    """Cut a text into pieces of at most `limit` characters, at blank lines, else lines or words."""
    start = 0
    while len(text) - start > limit:
        half, end = start + limit // 2, start + limit
        ends = (text.rfind(mark, half, end) + len(mark) for mark in ("\n\n", "\n", " "))
        stop = next((at for at in ends if at > half), end)
        yield text[start:stop]
        start = stop
    yield text[start:]


def source_files(source: str) -> list[Path]:
    """The files of a source, in an order that depends only on their paths within it; for "offline"
    the sources and documentation of Python and of the installed packages."""
    offline = source == "offline"
    libraries = (sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib"))
    found: dict[Path, bytes] = {}
    for root in sorted(set(libraries)) if offline else [source]:
        for folder, folders, names in os.walk(root):
            folders[:] = [name for name in folders if not name.startswith(".")]
            for path in (Path(folder, name) for name in names if not name.startswith(".")):
                if not offline or path.suffix in OFFLINE_SUFFIXES:
                    found.setdefault(path, text_hash(os.fsencode(path.relative_to(root))))
    return sorted(found, key=found.__getitem__) or [Path(source)]


def read_sections(path: Path) -> Iterator[list[str]]:
    """Sections of a file, each a list of documents; a row of a parquet file is a section."""
    if path.suffix == ".parquet":
        yield from ([text] for texts in prepare.read_texts(path) for text in texts)
    elif path.is_file():  # not a broken link, nor a pipe, which would block
        with suppress(PermissionError, UnicodeDecodeError), path.open(encoding="utf-8") as file:
            text = file.read(FOLDER_BYTES)
            for section in split_text(text, SECTION_CHARS) if "\0" not in text else ():
                yield [piece for piece in split_text(section, DOCUMENT_CHARS) if piece.strip()]


def collect_sections(paths: Iterable[Path], limit: int) -> tuple[list[list[str]], int]:
    """The files' sections without repetitions, shuffled, up to about `limit` bytes; their bytes."""
    sections: dict[bytes, list[str]] = {}
    size = 0
    for section in chain.from_iterable(map(read_sections, paths)):
        text = "".join(section).encode()
        if sections.setdefault(text_hash(text), section) is section:
            size += len(text)
        if size >= limit:
            break
    if size < SMALLEST_BYTES:
        few = f"There are only {size:,} bytes of text; a corpus needs {SMALLEST_BYTES:,} at least."
        raise PrepareError(f"{few} Name a larger folder with --source.")
    return [sections[key] for key in sorted(sections)], size


def hold_out(sections: Iterable[list[str]], limit: int) -> tuple[list[str], list[str]]:
    """(training, validation) documents, shuffled; the first `limit` bytes of sections are held out.
    A document that several sections share is in the result once, so it is never in both splits."""
    documents: dict[bytes, tuple[bool, str]] = {}
    size = 0
    for section in sections:
        held_out = size < limit
        for text in section:
            size += len(data := text.encode())
            documents.setdefault(text_hash(data), (held_out, text))
    shuffled = [documents[key] for key in sorted(documents)]
    train = [text for held_out, text in shuffled if not held_out]
    return train, [text for held_out, text in shuffled if held_out]


# The corpus in the cache --------------------------------------------------------------------------


def reset_corpus(source: str, shards: list[str]) -> Manifest:
    """Remove the old corpus and all that was made from it, no other files; save a new manifest."""
    folder, tokenizer = Manifest.folder(), prepare.cache_dir() / "tokenizer"
    ours = [tokenizer / "meta.json", tokenizer / "ranks.tiktoken", folder / "manifest.json"]
    for path in [*ours, *folder.glob("shard_?????.parquet*")]:
        path.unlink(missing_ok=True)
    shutil.rmtree(prepare.cache_dir() / "tokens", ignore_errors=True)
    manifest = Manifest(source, shards)
    manifest.save()
    return manifest


def finish_corpus(manifest: Manifest) -> None:
    """Record that all shards are there, with the hash of the validation shard."""
    validation = (manifest.folder() / VALIDATION_SHARD).read_bytes()
    manifest = replace(manifest, validation_sha256=hashlib.sha256(validation).hexdigest())
    if manifest != Manifest.load():
        manifest.save()


def write_shards(source: str, train: list[str], validation: list[str]) -> None:
    """Replace the corpus by one training and one validation shard, in climbmix's layout."""
    shards = {shard_name(0): train, VALIDATION_SHARD: validation}
    manifest = reset_corpus(source, list(shards))
    for name, texts in shards.items():
        table = pa.table({"text": pa.array(texts, pa.string())})
        with prepare.atomic_write(manifest.folder() / name) as part:
            pq.write_table(table, part, compression="zstd", row_group_size=1024)
    finish_corpus(manifest)


def copy_shards(source: Path) -> None:
    """Replace the corpus by a copy of a folder that has climbmix's layout; its split stays."""
    if source == Manifest.folder().resolve():
        raise PrepareError(f"{source} is the cache itself. Name another folder.")
    shards = sorted(source.glob("shard_" + "[0-9]" * 5 + ".parquet"))
    for shard in shards:
        next(prepare.read_texts(shard), None)  # raises if it holds something else
    if len(shards) < 2:
        raise PrepareError(f"{source} has {VALIDATION_SHARD} but no shard to train on.")
    manifest = reset_corpus(str(source), [shard.name for shard in shards])
    for shard in shards:
        with prepare.atomic_write(manifest.folder() / shard.name) as part:
            shutil.copyfile(shard, part)
    finish_corpus(manifest)


def prepare_data(source: str | None, num_shards: int | None, *, force: bool) -> None:
    """Complete the corpus in the cache, or make the one that is asked for (None: the default)."""
    current = None if force else Manifest.load()
    if source not in (None, "climbmix", "offline"):
        source = str(Path(source).expanduser().resolve())
    if current is not None and source not in (None, current.source):
        raise PrepareError(
            f"{current.folder()} already holds {current.source!r}, and results on two corpora do "
            "not compare. Replace it with --force, or set AUTORESEARCH_CACHE to another folder."
        )
    if current is not None:
        source = current.source
    elif source is None and (error := hub_error()):
        log(f"The hub of climbmix cannot be reached ({error}): taking text of this machine.")
        source = "offline"
    source = source or "climbmix"
    if source == "climbmix":
        prepare_climbmix(current, num_shards, force=force)
    elif num_shards is not None:
        raise PrepareError(f"--num-shards is for climbmix only; the source is {source!r}.")
    else:
        prepare_text(current, source, force=force)


def prepare_climbmix(current: Manifest | None, num_shards: int | None, *, force: bool) -> None:
    """Download what is missing of the validation shard and `num_shards` others (-1: all)."""
    n = LAST_SHARD if num_shards == -1 else num_shards or default_shards()
    names = [*map(shard_name, range(n)), VALIDATION_SHARD]
    if current is not None and num_shards is None:
        names = current.shards
    wanted = Manifest("climbmix", names)
    # Shards without a manifest are another program's: download() compares their sizes.
    if missing := wanted.missing() if current else names:
        if error := hub_error():
            raise PrepareError(
                f"{len(missing)} shards of climbmix are to be downloaded, but its hub cannot be "
                f"reached ({error}). Try again later; `--source offline` needs no network."
            )
        if force:
            reset_corpus("climbmix", names)
        wanted.save()
        log(f"data: downloading {len(missing)} shards to {wanted.folder()}")
        download_all(missing, wanted.folder())
    finish_corpus(wanted)
    log(f"data: climbmix, {len(names) - 1} shards to train on, one to validate")


def prepare_text(current: Manifest | None, source: str, *, force: bool) -> None:
    """Build the corpus "offline" or that of the path `source`, unless it is there."""
    if current is not None and current.validation_sha256 is not None:
        if missing := current.missing():
            raise PrepareError(
                f"{missing[0]} is missing in {current.folder()}. This corpus can only be built "
                "again, perhaps with other text: `uv run prepare.py --force`."
            )
        log(f"data: {source!r} is there already")
        return
    if current is None and not force and any(Manifest.folder().glob("shard_?????.parquet")):
        raise PrepareError(
            f"{Manifest.folder()} holds shards of another program. `--source climbmix` keeps those "
            "that are climbmix's (needs the network); --force removes them."
        )
    if source != "offline" and not Path(source).exists():
        raise PrepareError(f"There is no {source}. Apart from paths: climbmix or offline.")
    log(f"data: collecting text ({source})")
    if source != "offline" and (Path(source) / VALIDATION_SHARD).is_file():
        copy_shards(Path(source))
    else:
        limit = OFFLINE_BYTES if source == "offline" else FOLDER_BYTES
        sections, total = collect_sections(source_files(source), limit)
        train, validation = hold_out(sections, min(VALIDATION_BYTES, total // 12))
        write_shards(source, train, validation)
        log(f"data: {len(train):,} documents to train on, {len(validation):,} to validate")
    log("data: val_bpb on this corpus compares only with itself")


# Tokenizer and token files ------------------------------------------------------------------------

TOKENIZER_CHARS = 1_000_000_000  # of text that the tokenizer is trained on, at most
TOKENIZER_DOCUMENT_CHARS = 10_000  # of each document, so that a few long ones do not dominate


def train_tokenizer(documents: Iterator[str], vocab_size: int = prepare.VOCAB_SIZE) -> Tokenizer:
    """PrepareError if the documents do not give a vocabulary of `vocab_size` tokens."""
    import rustbpe  # type: ignore[import-untyped]

    ordinary = vocab_size - len(prepare.SPECIAL_TOKENS)
    trainer = rustbpe.Tokenizer()
    trainer.train_from_iterator(documents, ordinary, pattern=prepare.SPLIT_PATTERN)
    ranks = {bytes(token): rank for token, rank in trainer.get_mergeable_ranks()}
    if len(ranks) != ordinary:
        found = f"it gives {len(ranks)} of the {ordinary} tokens of the vocabulary"
        raise PrepareError(f"The corpus is too small or too uniform: {found}. Use a larger one.")
    return Tokenizer(ranks)


def training_texts() -> Iterator[str]:
    """What the tokenizer is trained on: the beginnings of training documents, up to a limit."""
    left = TOKENIZER_CHARS
    for path in Manifest.require().paths("train"):
        for text in chain.from_iterable(prepare.read_texts(path)):
            if left <= 0:
                return
            left -= min(len(text), TOKENIZER_DOCUMENT_CHARS)
            yield text[:TOKENIZER_DOCUMENT_CHARS]


def prepare_tokenizer() -> None:
    """Train the tokenizer, unless there is one that can be used."""
    directory = prepare.cache_dir() / "tokenizer"
    try:
        Tokenizer.load(directory)
    except PrepareError as error:
        if directory.exists():
            log(error)
        log(f"tokenizer: training {prepare.VOCAB_SIZE} tokens")
        train_tokenizer(training_texts()).save(directory)
    log(f"tokenizer: {directory}")


def prepare_tokens() -> None:
    """Tokenize what is missing or damaged, so that runs need not."""
    tokenizer = Tokenizer.load()
    train, validation = TokenShards(tokenizer, "train"), TokenShards(tokenizer, "val")
    for shards in (train, validation):
        shards.build(shards.missing(TokenFile.intact))
    # For every profile, because the machine that trains may have another device.
    for shape in {(profile.max_seq_len, profile.eval_tokens) for profile in prepare.PROFILES}:
        if not (file := prepare.validation_file(validation, *shape)).intact():
            file.write(prepare.pack_validation(validation, *shape))
    log(f"tokens: {validation.folder}")


def read_only() -> bool:
    """True for a cache that nobody here can change, as on a share."""
    unwritable = Manifest.folder().is_dir() and not os.access(prepare.cache_dir(), os.W_OK)
    if unwritable:
        log("This cache can only be read here: run prepare.py elsewhere for what it lacks.")
    return unwritable


def parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="prepare.py",
        description="Fill the cache with training data and a tokenizer; does only what is missing.",
        epilog="AUTORESEARCH_CACHE moves the cache from ~/.cache/autoresearch.",
    )
    parser.add_argument(
        "--source",
        metavar="climbmix|offline|PATH",
        help="climbmix: shards of karpathy/climbmix-400b-shuffle; offline: text of Python and its "
        f"packages here; PATH: text or parquet, whose split stays if it has {VALIDATION_SHARD}. "
        "Default: what the cache holds, else climbmix, else offline",
    )
    shards = f"of climbmix, 90 MB each; -1: all. Default: what a run here needs, {default_shards()}"
    parser.add_argument("--num-shards", type=int, metavar="N", help=shards)
    parser.add_argument("--force", action="store_true", help="replace the data and the tokenizer")
    parser.add_argument("--check", action="store_true", help="only print JSON; exit 1 if not ok")
    args = parser.parse_args(argv)
    if args.num_shards not in (None, -1, *range(1, LAST_SHARD + 1)):
        parser.error(f"--num-shards must be -1 or lie in 1 ... {LAST_SHARD}")
    return args


def main(argv: Sequence[str]) -> int:
    with suppress(AttributeError):  # of a stream that is no file's
        sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    args, code = parse(argv), 0
    try:
        if args.check:
            return prepare.check()
        prepare.active_profile()  # a wrong setting is reported now, not when training starts
        prepare.time_budget()
        with nullcontext() if read_only() else prepare.cache_lock():
            prepare_data(args.source, args.num_shards, force=args.force)
            prepare_tokenizer()
            prepare_tokens()
        log("Ready. Train with: uv run train.py")
    except KeyboardInterrupt:
        log("\nInterrupted. The same command goes on where this one stopped.")
        code = 130
    except (PrepareError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        code = 1
    try:
        print(end="", flush=True)
    except OSError:  # Python would write the rest once more at its end, with a traceback
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return code
