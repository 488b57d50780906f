"""Frozen layers computed once: the same run as with them in every epoch, and when it is not."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image, ImageOps
from safetensors.torch import load_file, save_file

from finetune.pipeline import run
from finetune.recipe.schema import Recipe
from finetune.torchvision_ops import register_missing_ops
from finetune.train.events import EpochEnded, FrozenLayers, Warned

pytestmark = pytest.mark.slow  # each test trains once or more

FULL = {"name": "last", "train": {"last": 2}, "epochs": 3, "lr": 1e-3}
RUNTIME = {"precision": "fp32", "device": "cpu", "workers": 0}

Train = Callable[..., tuple[dict[str, torch.Tensor], list[Any]]]


@pytest.fixture
def train(tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Train:
    """Run one stage, its stores in the test's folder; give the saved weights and what was told."""
    monkeypatch.setenv("FINETUNE_CACHE", str(tmp_path / "cache"))

    def make(name: str, backbone: str = "test_vit", *, stage: dict[str, Any], **values: Any):
        events: list[Any] = []
        recipe = Recipe(
            stages=[{**FULL, **stage}],
            **{
                "model": {"backbone": backbone, "pretrained": False},
                "data": {"path": str(tiny_folder)},
                "augment": "none",
                "runtime": RUNTIME,
                **values,
            },
        )
        done = run(recipe, out=tmp_path / name, on_event=events.append)
        return load_file(done.folder / "model" / "model.safetensors"), events

    return make


def told(events: list[Any]) -> FrozenLayers:
    """Give what was said of frozen layers."""
    return next(event for event in events if isinstance(event, FrozenLayers))


def losses(events: list[Any]) -> list[float]:
    """Give the training loss of each epoch."""
    return [event.train_loss for event in events if isinstance(event, EpochEnded)]


@pytest.mark.parametrize("training", [{}, {"ema": 0.9}, {"accumulate": 2}])
def test_training_from_the_store_is_training_from_images_bit_for_bit(
    train: Train, training: dict[str, Any]
) -> None:
    plain, expected = train("plain", stage={"views": 0}, training=training)
    once, events = train("once", stage={"views": 1}, training=training)
    assert told(events).is_stored
    assert losses(events) == losses(expected)
    assert all(torch.equal(once[name], tensor) for name, tensor in plain.items())


def test_with_batch_normalisations_folded_it_is_the_same_but_for_rounding(train: Train) -> None:
    plain, _ = train("plain", "test_resnet", stage={"views": 0})
    once, _ = train("once", "test_resnet", stage={"views": 1})
    for name, tensor in plain.items():
        torch.testing.assert_close(once[name], tensor, atol=1e-4, rtol=1e-4)


def test_frozen_layers_in_bf16_take_half_the_bytes_and_train_alike(train: Train) -> None:
    exact, exactly = train("exact", "test_resnet", stage={"views": 1})
    runtime = {**RUNTIME, "frozen_precision": "bf16"}
    rounded, roughly = train("rounded", "test_resnet", stage={"views": 1}, runtime=runtime)
    assert "; 2.2 MiB on disk" in told(exactly).reason
    assert "; 1.1 MiB on disk" in told(roughly).reason
    for name, tensor in exact.items():
        torch.testing.assert_close(rounded[name], tensor, atol=0.05, rtol=0.05)


def test_a_second_run_with_another_recipe_computes_nothing_again(train: Train) -> None:
    _, first = train("first", stage={"views": 1})
    _, second = train("second", stage={"views": 1, "lr": 1e-4, "epochs": 1})
    assert "30 views computed, 0 were there" in told(first).reason
    assert "0 views computed, 30 were there" in told(second).reason


def test_without_a_budget_on_disk_the_store_is_in_memory_and_the_same(
    train: Train,
) -> None:
    on_disk, _ = train("disk", stage={"views": 1})
    in_memory, events = train("memory", stage={"views": 1}, runtime={**RUNTIME, "cache_gib": 0})
    assert "in memory, of" in told(events).reason
    assert "30 views computed, 0 were there" in told(events).reason
    assert all(torch.equal(in_memory[name], tensor) for name, tensor in on_disk.items())


def test_what_is_stored_is_mixed_where_the_recipe_says_so(train: Train) -> None:
    plain, _ = train("plain", stage={"views": 1})
    mixed, events = train("mixed", stage={"views": 1}, training={"manifold_mixup": 0.4})
    again, _ = train("again", stage={"views": 1}, training={"manifold_mixup": 0.4})
    assert told(events).is_stored
    assert any(not torch.equal(mixed[name], tensor) for name, tensor in plain.items())
    assert all(torch.equal(mixed[name], tensor) for name, tensor in again.items())


def test_a_stage_that_has_nothing_stored_to_mix_is_told(train: Train) -> None:
    _, events = train(
        "sizes",
        "mobilenetv4_conv_small_050",
        stage={"views": 1, "epochs": 1, "train": "head"},
        training={"manifold_mixup": 0.4},
    )
    assert Warned("stage 'last' goes without manifold_mixup") in events


def test_changed_weights_are_computed_anew(train: Train) -> None:
    train("first", stage={"views": 1})
    _, events = train("second", stage={"views": 1}, seed=1)  # random weights, so of another seed
    assert "30 views computed, 0 were there" in told(events).reason


def test_a_photo_changed_in_place_with_the_same_size_and_time_is_computed_anew(
    train: Train, tiny_folder: Path, tmp_path: Path
) -> None:
    own = tmp_path / "own"
    write_uncompressed(tiny_folder, own)
    train("first", stage={"views": 1}, data={"path": str(own)})
    photo = next(own.rglob("*.bmp"))
    before = photo.stat()
    ImageOps.invert(Image.open(photo)).save(photo)
    os.utime(photo, ns=(before.st_atime_ns, before.st_mtime_ns))
    after = photo.stat()
    assert (after.st_size, after.st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    weights, events = train("second", stage={"views": 1}, data={"path": str(own)})
    assert "1 views computed, 29 were there" in told(events).reason
    expected, _ = train("plain", stage={"views": 0}, data={"path": str(own)})
    assert all(torch.equal(weights[name], tensor) for name, tensor in expected.items())


def test_weights_swapped_under_the_same_name_are_computed_anew(
    train: Train, tmp_path: Path
) -> None:
    folder = tmp_path / "backbone"
    write_local_backbone(folder, seed=1)
    model = {"backbone": f"local-dir:{folder}"}
    train("first", stage={"views": 1}, model=model)
    before = (folder / "model.safetensors").stat()
    write_local_backbone(folder, seed=2)
    os.utime(folder / "model.safetensors", ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (folder / "model.safetensors").stat().st_size == before.st_size
    weights, events = train("second", stage={"views": 1}, model=model)
    assert "30 views computed, 0 were there" in told(events).reason
    expected, _ = train("plain", stage={"views": 0}, model=model)
    assert all(torch.equal(weights[name], tensor) for name, tensor in expected.items())


def write_uncompressed(folder: Path, own: Path) -> None:
    """Copy photos as BMP, where one of the same sides has the same bytes."""
    for path in folder.rglob("*.png"):
        copy = own / path.relative_to(folder).with_suffix(".bmp")
        copy.parent.mkdir(parents=True, exist_ok=True)
        Image.open(path).convert("RGB").save(copy)


def write_local_backbone(folder: Path, *, seed: int) -> None:
    """Write a folder of weights as timm reads it with `local-dir:`."""
    register_missing_ops()
    import timm

    torch.manual_seed(seed)
    model = timm.create_model("test_vit", num_classes=7)
    folder.mkdir(exist_ok=True)
    save_file(model.state_dict(), folder / "model.safetensors")
    config = {"architecture": "test_vit", "num_classes": 7, "pretrained_cfg": model.pretrained_cfg}
    (folder / "config.json").write_text(json.dumps(config))


def test_augmented_views_are_drawn_anew_in_every_epoch_and_repeat(train: Train) -> None:
    first, events = train("first", stage={"views": 3}, augment="standard")
    second, _ = train("second", stage={"views": 3}, augment="standard")
    assert "78 views computed, 0 were there" in told(events).reason  # 24 of train thrice, 6 of val
    assert all(torch.equal(second[name], tensor) for name, tensor in first.items())


@pytest.mark.parametrize(
    ("stage", "training", "reason"),
    [
        ({"train": "all"}, {}, "the first layer"),
        ({}, {"mixup": 0.2}, "mixup and CutMix mix images"),
    ],
)
def test_what_cannot_be_stored_goes_the_plain_way_and_says_why(
    train: Train, stage: dict[str, Any], training: dict[str, Any], reason: str
) -> None:
    _, events = train("plain", stage={"views": 1, "epochs": 1, **stage}, training=training)
    assert not told(events).is_stored
    assert reason in told(events).reason


def test_a_network_that_trains_at_another_size_goes_the_plain_way(train: Train) -> None:
    _, events = train(
        "sizes", "mobilenetv4_conv_small_050", stage={"views": 1, "epochs": 1, "train": "head"}
    )
    assert told(events) == FrozenLayers(
        "last", False, "it trains at another size of image than it evaluates at"
    )
