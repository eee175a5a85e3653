"""Which GPUs may run a tag, and why its runs wait if none may. Pure.

Results compare on one platform (profile and data) and on one GPU model. A tag is bound to both by
its first claim; one with `mix_models` runs on several models.
"""

from collections.abc import Iterable, Sequence

from orchestrator.domain import Tag
from orchestrator.gpus import Gpu

NAMED = 3  # GPUs in a sentence


def blocked(tag: Tag, gpus: Sequence[Gpu]) -> str | None:
    """Why none of `gpus`, those that take runs, takes this tag's; None if one does."""
    same = [gpu for gpu in gpus if tag.platform in (None, gpu.platform, gpu.profile)]
    if any(tag.gpu_model in (None, gpu.gpu_name) for gpu in same):
        return None
    if not gpus:
        return "no GPU takes runs: start a worker."
    if not same:
        return (
            f"no GPU has {tag.platform} (profile and data): start a worker on such a host, or set"
            " up a tag for this one."
        )
    listed = "; ".join(f"GPU {gpu.id} is of the model {gpu.gpu_name}" for gpu in same[:NAMED])
    more = f"; and {len(same) - NAMED} more" if len(same) > NAMED else ""
    return (
        f"tag {tag.name} runs on {tag.gpu_model}; {listed}{more}: start a worker on"
        f" {tag.gpu_model}, or set up a tag with --mix-models, which runs on several models."
    )


def passed_over(gpu: Gpu, queued: Iterable[Tag]) -> str | None:
    """Why an idle GPU does not take the runs of tags that have `queued` ones and another model."""
    others = [tag for tag in queued if tag.gpu_model not in (None, gpu.gpu_name)]
    if not others:
        return None
    named = ", ".join(f"{tag.name} runs on {tag.gpu_model}" for tag in others[:NAMED])
    more = f", {len(others) - NAMED} more on others" if len(others) > NAMED else ""
    return f"its model is {gpu.gpu_name}, and tag {named}{more} (see setup --mix-models)"
