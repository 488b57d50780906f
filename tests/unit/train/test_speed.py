"""Measured speed chooses the precision."""

from pathlib import Path

import pytest
import torch

from finetune.model.create import Model, create_model
from finetune.model.network import Network
from finetune.recipe.load import load_recipe
from finetune.train.speed import measure_course, measure_speed, with_bf16_choice
from finetune.types import MachineFacts

MACHINE = MachineFacts("cpu", "as asked for", has_fast_bf16=False, num_cpus=2)


def test_bf16_is_chosen_where_it_pays() -> None:
    machine = with_bf16_choice(MACHINE, {"train_fp32": 10.0, "train_bf16": 15.0})
    assert machine.has_fast_bf16
    assert machine.bf16_reason == "measured here: 15 images/s in bf16, 10 in fp32"


def test_bf16_is_not_chosen_where_it_is_clearly_slower() -> None:
    assert not with_bf16_choice(MACHINE, {"train_fp32": 10.0, "train_bf16": 8.9}).has_fast_bf16


def test_gain_of_a_pass_in_bf16_is_told() -> None:
    machine = with_bf16_choice(MACHINE, {"fused": 10.0, "fused_bf16": 25.0})
    assert machine.bf16_pass_gain == 2.5


def test_rule_of_a_gpu_stands() -> None:
    assert with_bf16_choice(MACHINE, {"train_fp32": 10.0}) is MACHINE


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Model:
    """A small network for small images, its figures kept in the test's folder."""
    monkeypatch.setenv("FINETUNE_CACHE", str(tmp_path))
    # A processor without bf16 imitates it, very slowly.
    section = {"backbone": "test_resnet", "pretrained": False, "image_size": 64}
    recipe = load_recipe({"model": section})
    return create_model(recipe, num_classes=2)


def test_network_is_measured_once_and_left_as_it_was(model: Model) -> None:
    before = {name: value.clone() for name, value in model.network.state_dict().items()}
    speed = measure_speed(model, MACHINE, channels_last=True)
    assert set(speed) - {"fused_bf16", "train_bf16"} == {"forward", "fused", "train_fp32"}
    assert all(value > 0 for value in speed.values())
    assert measure_speed(model, MACHINE, channels_last=True) == speed
    after = model.network.state_dict()
    assert all(value.equal(after[name]) for name, value in before.items())


@pytest.mark.parametrize(("has_bf16", "rounds"), [(False, 2), (True, 3)])
def test_one_round_is_enough_where_no_precision_is_chosen(
    model: Model, monkeypatch: pytest.MonkeyPatch, has_bf16: bool, rounds: int
) -> None:
    monkeypatch.setattr("finetune.train.speed.may_compute", lambda *names: has_bf16)
    timed: list[torch.dtype | None] = []

    def time_training(network: object, images: object, precision: torch.dtype | None = None):
        timed.append(precision)
        return 1.0

    monkeypatch.setattr("finetune.train.speed._time_training", time_training)
    measure_speed(model, MACHINE, channels_last=True)
    assert timed.count(None) == rounds


def test_without_steps_no_step_is_measured(model: Model) -> None:
    speed = measure_speed(model, MACHINE, channels_last=True, is_trained=False)
    assert set(speed) - {"fused_bf16"} == {"fused"}


@pytest.mark.parametrize(
    ("capabilities", "passes", "steps"),
    [
        ({"amx_bf16": True, "avx512_bf16": True}, True, True),
        ({"amx_bf16": False, "avx512_bf16": True}, False, True),
        ({"amx_bf16": False, "avx512_bf16": False}, False, False),
        ({"bf16": True}, True, True),  # ARM
        ({"bf16": False}, True, False),
        ({}, True, True),
    ],
)
def test_bf16_is_timed_where_a_processor_may_compute_it(
    model: Model,
    monkeypatch: pytest.MonkeyPatch,
    capabilities: dict[str, bool],
    passes: bool,
    steps: bool,
) -> None:
    monkeypatch.setattr("torch.cpu.get_capabilities", lambda: capabilities, raising=False)
    speed = measure_speed(model, MACHINE, channels_last=True)
    assert ("fused_bf16" in speed, "train_bf16" in speed) == (passes, steps)


def test_course_of_a_step_runs_from_the_first_layer_to_the_last_and_back(model: Model) -> None:
    course = measure_course(model, MACHINE, channels_last=True)
    names = {name for name, _ in model.network.named_parameters()}
    assert set(course.before) == set(course.behind) == names
    first, last = "backbone.conv1.0.weight", "backbone.fc.weight"
    assert 0 <= course.before[first] < course.before[last] <= 1
    assert 0 < course.behind[last] < course.behind[first] <= 1


@pytest.mark.parametrize("most", [4, 1])
def test_a_network_that_memory_hardly_holds_is_measured_on_fewer_images(
    model: Model, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    compute = type(model.network).forward

    def forward(self: Network, images: torch.Tensor) -> torch.Tensor:
        if len(images) > most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return compute(self, images)

    monkeypatch.setattr(type(model.network), "forward", forward)
    assert measure_speed(model, MACHINE, channels_last=True)["train_fp32"] > 0
    assert measure_course(model, MACHINE, channels_last=True).behind


def test_a_network_that_memory_does_not_hold_is_told(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forward(self: Network, images: torch.Tensor) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    monkeypatch.setattr(type(model.network), "forward", forward)
    with pytest.raises(RuntimeError, match="CUDA out of memory"):
        measure_speed(model, MACHINE, channels_last=True)


def test_a_network_too_large_to_train_whole_is_timed_as_far_as_it_fits(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lack(*_: object) -> dict[str, float]:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    monkeypatch.setattr("finetune.train.speed._training_steps", lack)
    monkeypatch.setattr("finetune.train.speed._watch_step", lack)
    assert set(measure_speed(model, MACHINE, channels_last=True)) - {"fused_bf16"} == {"fused"}
    course = measure_course(model, MACHINE, channels_last=True)
    assert (course.before, course.behind) == ({}, {})
