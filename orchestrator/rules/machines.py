"""Which GPUs may run a tag, and why its runs wait if none may. Pure.

Results compare on one platform (profile and data) and on one GPU model. A tag is bound to both by
its first claim; one with `mix_models` runs on several models.
"""

import shlex
from collections.abc import Iterable, Mapping, Sequence

from orchestrator.domain import Tag, profile_of
from orchestrator.gpus import Gpu

NAMED = 3  # GPUs in a sentence
Folders = Mapping[str, Mapping[str, str]]  # where data lie, by their hash and the host


def folders(pool: Iterable[Gpu]) -> Folders:
    found: dict[str, dict[str, str]] = {}
    for gpu in pool:
        if gpu.host and gpu.data_folder:
            found.setdefault(_data_of(gpu.platform), {}).setdefault(gpu.host, gpu.data_folder)
    return found


def blocked(tag: Tag, gpus: Sequence[Gpu], data: Folders) -> str | None:
    """Why none of `gpus`, those that take runs, takes this tag's; None if one does."""
    same = [gpu for gpu in gpus if _compares(gpu, tag)]
    if any(tag.gpu_model in (None, gpu.gpu_name) for gpu in same):
        return None
    if not gpus:
        return "no GPU takes runs: start a worker."
    if not same:
        near = [f" GPU {gpu.id}: {why}." for gpu in gpus if (why := other_data(gpu, tag, data))]
        return (
            f"no GPU has {tag.platform} (profile and data): start a worker on such a host, or set"
            " up a tag for this one." + "".join(near[:1])
        )
    listed = "; ".join(f"GPU {gpu.id} is of the model {gpu.gpu_name}" for gpu in same[:NAMED])
    more = f"; and {len(same) - NAMED} more" if len(same) > NAMED else ""
    return (
        f"tag {tag.name} runs on {tag.gpu_model}; {listed}{more}: start a worker on"
        f" {tag.gpu_model}, or set up a tag with --mix-models, which runs on several models."
    )


class Waiting:
    """The tags that have queued runs, and why idle GPUs of a pool do not take them. GPUs that are
    alike have one answer: there may be thousands, and hundreds of tags."""

    def __init__(self, queued: Iterable[Tag] = (), pool: Iterable[Gpu] = ()) -> None:
        self._queued, self._data = list(queued), folders(pool)
        self._known: dict[tuple[str | None, ...], str | None] = {}

    def passed_over(self, gpu: Gpu) -> str | None:
        kind = (gpu.platform, gpu.gpu_name, gpu.host, gpu.data_folder)
        if kind not in self._known:
            self._known[kind] = passed_over(gpu, self._queued, self._data)
        return self._known[kind]


def passed_over(gpu: Gpu, queued: Sequence[Tag], data: Folders) -> str | None:
    """Why an idle GPU does not take the runs of tags that have `queued` ones, and another model or
    other data."""
    others = [tag for tag in queued if tag.gpu_model not in (None, gpu.gpu_name)]
    if not others:
        return next((why for tag in queued if (why := other_data(gpu, tag, data))), None)
    named = ", ".join(f"{tag.name} runs on {tag.gpu_model}" for tag in others[:NAMED])
    more = f", {len(others) - NAMED} more on others" if len(others) > NAMED else ""
    return f"its model is {gpu.gpu_name}, and tag {named}{more} (see setup --mix-models)"


def other_data(gpu: Gpu, tag: Tag, data: Folders) -> str | None:
    """Says that the data of this GPU's host are not those of the tag, and what brings them there;
    None if they are, or if more than the data differs."""
    if _compares(gpu, tag) or gpu.profile != profile_of(tag.platform):
        return None
    mine, wanted = _data_of(gpu.platform), _data_of(tag.platform)
    says = f"its data are {mine or 'unknown'}, and tag {tag.name} runs on {wanted}"
    having = data.get(wanted, {})
    if beside := having.get(gpu.host or ""):
        return f"{says}: start its worker with AUTORESEARCH_CACHE={shlex.quote(beside)}"
    if not having or not gpu.data_folder:
        return f"{says}: start its worker with AUTORESEARCH_CACHE=FOLDER, one that has these"
    host, folder = next(iter(having.items()))
    there = f"{shlex.quote(f'{host}:{folder}')}/{{data,tokenizer,tokens}}"
    here = shlex.quote(f"{gpu.data_folder}/")
    return f"{says}: on its host, {gpu.host}, run `rsync -a --delete {there} {here}`"


def _compares(gpu: Gpu, tag: Tag) -> bool:
    return tag.platform in (None, gpu.platform, gpu.profile)


def _data_of(platform: str | None) -> str:
    return (platform or "").partition("/")[2]
