"""Which GPUs may run a tag, on plain values."""

from dataclasses import replace

from hypothesis import given, strategies as st

from orchestrator.domain import Tag, profile_of
from orchestrator.gpus import Gpu
from orchestrator.rules.machines import Waiting, blocked, folders, passed_over

MODELS = ("NVIDIA H200", "NVIDIA GeForce RTX 4090", "CPU (Xeon)")
PLATFORMS = (None, "cuda", "cuda/0a1b", "cpu/0a1b", "cpu/ffff")
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
    assert (blocked(tag, gpus, folders(gpus)) is None) == bool(fit)


@given(TAGS, GPUS)
def test_a_gpu_of_the_pinned_model_with_the_tag_s_data_passes_over_nothing(
    tag: Tag, gpus: list[Gpu]
) -> None:
    """One of another profile says nothing: its host cannot change that."""
    waiting = Waiting([tag], gpus)
    for gpu in gpus:
        same_model = tag.gpu_model in (None, gpu.gpu_name)
        same_profile = profile_of(tag.platform) == gpu.profile
        other_data = same_profile and tag.platform not in (None, gpu.platform, gpu.profile)
        assert (waiting.passed_over(gpu) is None) == (same_model and not other_data)


def test_the_sentence_names_both_models_the_gpu_and_what_to_do() -> None:
    pinned = replace(TAG, gpu_model="NVIDIA H200")
    assert blocked(pinned, [GPU], {}) == (
        "tag mar11 runs on NVIDIA H200; GPU host:0 is of the model NVIDIA GeForce RTX 4090: start a"
        " worker on NVIDIA H200, or set up a tag with --mix-models, which runs on several models."
    )
    many = [replace(GPU, id=f"host:{i}") for i in range(9)]
    assert "GPU host:2 is of the model NVIDIA GeForce RTX 4090; and 6 more" in str(
        blocked(pinned, many, {})
    )
    assert passed_over(GPU, [TAG, pinned], {}) == (
        "its model is NVIDIA GeForce RTX 4090, and tag mar11 runs on NVIDIA H200"
        " (see setup --mix-models)"
    )


def test_a_gpu_with_other_data_says_how_its_host_gets_those_of_the_tag() -> None:
    tag = replace(TAG, platform="cuda/0a1b")
    other = replace(GPU, host="new", platform="cuda/ffff", data_folder="/mnt/my data")
    having = replace(GPU, id="old:0", host="old", platform="cuda/0a1b", data_folder="/srv/data")
    said = "its data are ffff, and tag mar11 runs on 0a1b: "
    command = "rsync -a --delete old:/srv/data/{data,tokenizer,tokens} '/mnt/my data/'"
    there = folders([other, having])
    assert passed_over(other, [TAG, tag], there) == f"{said}on its host, new, run `{command}`"
    assert str(blocked(tag, [other], there)).endswith(
        f"GPU host:0: {said}on its host, new, run `{command}`."
    )
    assert passed_over(replace(other, host="old"), [tag], there) == (
        f"{said}start its worker with AUTORESEARCH_CACHE=/srv/data"
    )
    assert passed_over(other, [tag], folders([other])) == (
        f"{said}start its worker with AUTORESEARCH_CACHE=FOLDER, one that has these"
    )


def test_a_folder_s_name_is_no_command() -> None:
    """A worker says it, and a person may paste it."""
    tag = replace(TAG, platform="cuda/0a1b")
    other = replace(GPU, host="new", platform="cuda/ffff", data_folder="/a")
    evil = replace(GPU, host="$(x)", platform="cuda/0a1b", data_folder="/b; rm -rf /")
    assert "'$(x):/b; rm -rf /'/{data" in str(passed_over(other, [tag], folders([evil])))
