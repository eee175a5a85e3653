"""Which GPUs may run a tag, on plain values."""

from dataclasses import replace

from hypothesis import given, strategies as st

from orchestrator.domain import Tag
from orchestrator.gpus import Gpu
from orchestrator.rules.machines import blocked, passed_over

MODELS = ("NVIDIA H200", "NVIDIA GeForce RTX 4090", "CPU (Xeon)")
PLATFORMS = (None, "cuda", "cuda/0a1b", "cpu/0a1b")
TAG = Tag("mar11", 0, 300, 0.002, 3)
GPU = Gpu("host:0", "gpu-0", 0, MODELS[1], 24_000, registered_us=0, heartbeat_us=0)
GPUS = st.lists(
    st.builds(
        lambda model, platform: replace(GPU, gpu_name=model, platform=platform),
        st.sampled_from(MODELS),
        st.sampled_from(PLATFORMS),
    )
)
TAGS = st.builds(
    lambda model, platform: replace(TAG, gpu_model=model, platform=platform),
    st.sampled_from((None, *MODELS)),
    st.sampled_from(PLATFORMS),
)


@given(TAGS, GPUS)
def test_a_tag_is_blocked_exactly_if_no_gpu_has_its_platform_and_its_model(
    tag: Tag, gpus: list[Gpu]
) -> None:
    fit = [
        gpu
        for gpu in gpus
        if tag.gpu_model in (None, gpu.gpu_name)
        and tag.platform in (None, gpu.platform, gpu.profile)
    ]
    assert (blocked(tag, gpus) is None) == bool(fit)


@given(TAGS, GPUS)
def test_a_gpu_of_the_pinned_model_passes_over_nothing(tag: Tag, gpus: list[Gpu]) -> None:
    for gpu in gpus:
        assert (passed_over(gpu, [tag]) is None) == (tag.gpu_model in (None, gpu.gpu_name))


def test_the_sentence_names_both_models_the_gpu_and_what_to_do() -> None:
    pinned = replace(TAG, gpu_model="NVIDIA H200")
    assert blocked(pinned, [GPU]) == (
        "tag mar11 runs on NVIDIA H200; GPU host:0 is of the model NVIDIA GeForce RTX 4090: start a"
        " worker on NVIDIA H200, or set up a tag with --mix-models, which runs on several models."
    )
    many = [replace(GPU, id=f"host:{i}") for i in range(9)]
    assert "GPU host:2 is of the model NVIDIA GeForce RTX 4090; and 6 more" in str(
        blocked(pinned, many)
    )
    assert passed_over(GPU, [TAG, pinned]) == (
        "its model is NVIDIA GeForce RTX 4090, and tag mar11 runs on NVIDIA H200"
        " (see setup --mix-models)"
    )
