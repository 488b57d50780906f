"""From a recipe with "auto" in it to one without: pure, every choice with its reason.

Rules, not measurements: the same recipe, data, backbone and kind of machine give the same choices.
What a person wrote stands; only "auto" is chosen, and a batch larger than the data is lowered.
Resolving what was resolved changes nothing.
"""

import math
from collections.abc import Iterator
from typing import Any, TypeVar

from finetune.components.policies import AllPolicy, BlocksPolicy, LastBlocksPolicy, LastPolicy
from finetune.errors import Problem, RecipeError
from finetune.recipe.kinds import (
    BatchNormMode,
    FrozenPrecision,
    MemoryFormat,
    Precision,
    ResizeMode,
)
from finetune.recipe.schema import (
    Recipe,
    ResolvedDataSection,
    ResolvedRecipe,
    ResolvedRuntimeSection,
    ResolvedStage,
)
from finetune.recipe.stages import Stage, cannot_fire
from finetune.types import BackboneFacts, Choice, DataFacts, MachineFacts

__all__ = ["NUM_REFERENCE", "choose_epochs", "resolve"]

T = TypeVar("T")

# Training photos at most that novelty compares with, in fp32; docs/adr/0023-doubt.md has the cost.
NUM_REFERENCE = 500
_STEPS = (
    400  # the middle of the 300 to 500 that the contract aims at; BiT-HyperRule: 500 (1912.11370)
)
_MIN_EPOCHS, _MAX_EPOCHS, _MAX_EPOCHS_LARGE = 5, 30, 10
_LARGE = 2_000  # training images from which on passes count, not steps
_SCRATCH_STEPS = 1_500  # nothing is known beforehand, so about four times as many
_SCRATCH_MIN_EPOCHS, _SCRATCH_MAX_EPOCHS = 20, 100
_MOST_VIEWS = 4  # as accurate as views drawn anew in each epoch: docs/benchmarks/tuning.md
_WORTH_ROUNDING = 1.5  # times; bf16 moves features by a tenth; docs/benchmarks/frozen.json
_LAYER_DECAY = {
    "conv": (1.0, "a convolutional network with batch normalisation: every depth at the full rate"),
    "convnext": (
        0.9,
        "a convolutional network with layer normalisation: 0.9 a depth, as AutoGluon ships",
    ),
    "hybrid": (0.9, "convolutions and attention: 0.9 a depth, as AutoGluon ships"),
    "vit": (0.75, "a vision transformer: 0.75 a depth, as BEiT a block (2106.08254)"),
}
_RESIZE: dict[str, ResizeMode] = {"center": "crop", "border": "pad", "squash": "squash"}


def resolve(
    recipe: Recipe, *, data: DataFacts, backbone: BackboneFacts, machine: MachineFacts
) -> ResolvedRecipe:
    """Choose every value that a recipe leaves open.

    Args:
        recipe: With `data.path` set.
        data: Counts of images, after splitting.
        backbone: What kind of network it is, and how deep.
        machine: Device and cores; of `runtime.device` where that is given.

    Raises:
        RecipeError: A stage asks for more depth than the backbone has, early stopping cannot fire
            within the epochs chosen, or no data is named.
    """
    reasons: dict[str, str] = {}
    batch_size = _note(reasons, "training.batch_size", _choose_batch_size(recipe, data))
    training = recipe.training.model_copy(update={"batch_size": batch_size})
    images_per_step = batch_size * training.accumulate
    stages = []
    for index, stage in enumerate(recipe.stages):
        epochs = _choose_stage_epochs(recipe, stage, data.num_train, images_per_step)
        decay = _choose_layer_decay(recipe, stage, backbone)
        norm = _choose_batch_norm(recipe, stage, backbone)
        values = {
            **dict(stage),
            "epochs": _note(reasons, f"stages.{index}.epochs", epochs),
            "layer_decay": _note(reasons, f"stages.{index}.layer_decay", decay),
            "batch_norm": _note(reasons, f"stages.{index}.batch_norm", norm),
            "views": _note(
                reasons, f"stages.{index}.views", _choose_views(recipe, stage, epochs.value)
            ),
        }
        stages.append(values)
    problems = [
        *_find_depth_problems(recipe, backbone),
        *_find_mixing_problems(recipe, stages),
        *_find_patience_problems(stages),
    ]
    if recipe.data.path is None:
        problems.append(Problem("data.path", "no photos are named", hint="--data FOLDER"))
    if problems:
        raise RecipeError(problems)
    resize = _note(reasons, "data.resize", _choose_resize(recipe, backbone))
    return ResolvedRecipe(
        **{
            **dict(recipe),
            "data": ResolvedDataSection(**{**dict(recipe.data), "resize": resize}),
            "stages": tuple(ResolvedStage(**values) for values in stages),
            "training": training,
            "runtime": _resolve_runtime(recipe, data, backbone, machine, reasons),
            "reasons": reasons,
        }
    )


def choose_epochs(num_train: int, batch_size: int) -> Choice[int]:
    """Choose how long a pretrained network trains: 300 to 500 steps, or 5 to 10 passes.

    Fewer than 2,000 images are shown for about 400 steps, more of them 5 to 10 times; never fewer
    than 5 times nor more than 30. Counting steps is BiT-HyperRule's idea (1912.11370).

    Args:
        num_train: Training images, ≥ 1.
        batch_size: Images a step, ≥ 1.

    Example:
        >>> choose_epochs(600, 32)
        Choice(value=21, reason='21 epochs of 19 steps make 399 steps, near 400')
    """
    is_large = num_train >= _LARGE
    highest = _MAX_EPOCHS_LARGE if is_large else _MAX_EPOCHS
    return _choose_passes(num_train, batch_size, _STEPS, lowest=_MIN_EPOCHS, highest=highest)


def _choose_passes(
    num_train: int, batch_size: int, num_steps: int, *, lowest: int, highest: int
) -> Choice[int]:
    """Choose the epochs that come nearest to a number of steps, within limits."""
    steps = math.ceil(num_train / batch_size)
    epochs = min(max(round(num_steps / steps), lowest), highest)
    text = f"{epochs} epochs of {steps} steps make {epochs * steps:,} steps"
    if epochs == lowest and epochs * steps > num_steps:
        return Choice(epochs, f"{text}, the fewest epochs there are for {num_train:,} images")
    if epochs == highest and epochs * steps < num_steps:
        return Choice(epochs, f"{text}, the most epochs there are for {num_train:,} images")
    return Choice(epochs, f"{text}, near {num_steps:,}")


def _note(reasons: dict[str, str], path: str, choice: Choice[T]) -> T:
    """Keep the reason of a choice, where it is one, and give its value."""
    if choice.reason:
        reasons[path] = choice.reason
    return choice.value


def _choose_batch_size(recipe: Recipe, data: DataFacts) -> Choice[int]:
    """Lower a batch that is larger than the data."""
    wanted = recipe.training.batch_size
    if wanted <= data.num_train:
        return Choice(wanted, "")
    return Choice(data.num_train, f"{wanted} lowered to the number of training images")


def _choose_stage_epochs(
    recipe: Recipe, stage: Stage, num_train: int, images_per_step: int
) -> Choice[int]:
    """Choose the epochs of a stage; a probe takes none, and has one pass over the images."""
    if stage.solver == "probe":
        return Choice(1, "")
    if stage.epochs != "auto":
        return Choice(stage.epochs, "")
    if recipe.model.pretrained:
        return choose_epochs(num_train, images_per_step)
    choice = _choose_passes(
        num_train,
        images_per_step,
        _SCRATCH_STEPS,
        lowest=_SCRATCH_MIN_EPOCHS,
        highest=_SCRATCH_MAX_EPOCHS,
    )
    return Choice(choice.value, f"{choice.reason}: training starts from nothing")


def _choose_layer_decay(recipe: Recipe, stage: Stage, backbone: BackboneFacts) -> Choice[float]:
    """Choose how much slower deeper layers learn."""
    if stage.layer_decay != "auto":
        return Choice(stage.layer_decay, "")
    if not recipe.model.pretrained:
        return Choice(1.0, "no pretrained weights to keep: every depth at the full rate")
    return Choice(*_LAYER_DECAY[backbone.family])


def _choose_batch_norm(
    recipe: Recipe, stage: Stage, backbone: BackboneFacts
) -> Choice[BatchNormMode]:
    """Choose whether batch statistics of the blocks that train follow their batches."""
    if stage.batch_norm != "auto":
        return Choice(stage.batch_norm, "")
    if stage.solver == "probe" or not backbone.has_batch_norm:
        return Choice("frozen", "")
    if not recipe.model.pretrained:
        return Choice("trained", "there are no statistics of pretraining to keep")
    return Choice("frozen", "pretraining knew more photos than a batch has: ahead on three sets")


def _choose_views(recipe: Recipe, stage: Stage, epochs: int) -> Choice[int]:
    """Choose how many views of a photo frozen layers compute once, for all epochs to draw from."""
    if stage.views != "auto":
        return Choice(stage.views, "")
    if stage.solver == "probe" or isinstance(stage.train, AllPolicy):
        return Choice(0, "")
    views = min(epochs, _MOST_VIEWS)
    if recipe.augment.kind == "none":
        return Choice(1, "without augmentation every view of a photo is the same")
    told = "1 view" if views == 1 else f"{views} views"
    return Choice(views, f"frozen layers compute {told} of a photo for {epochs} epochs")


def _choose_resize(recipe: Recipe, backbone: BackboneFacts) -> Choice[ResizeMode]:
    """Choose how images come to the input's shape: as the weights were evaluated."""
    if recipe.data.resize != "auto":
        return Choice(recipe.data.resize, "")
    return Choice(_RESIZE[backbone.crop_mode], "as the weights were evaluated")


def _resolve_runtime(
    recipe: Recipe,
    data: DataFacts,
    backbone: BackboneFacts,
    machine: MachineFacts,
    reasons: dict[str, str],
) -> ResolvedRuntimeSection:
    """Choose device, arithmetic, layout and workers."""
    runtime = recipe.runtime
    chosen: dict[str, Choice[Any]] = {
        "device": Choice(machine.device, machine.device_reason),
        "precision": _choose_precision(recipe, machine),
        "frozen_precision": _choose_frozen_precision(recipe, data, machine),
        "memory_format": _choose_memory_format(backbone, machine.device),
        "workers": machine.choose_workers(data.num_train),
    }
    values = {
        name: _note(reasons, f"runtime.{name}", choice)
        for name, choice in chosen.items()
        if getattr(runtime, name) == "auto"
    }
    return ResolvedRuntimeSection(**{**dict(runtime), **values})


def _choose_precision(recipe: Recipe, machine: MachineFacts) -> Choice[Precision]:
    """Choose the arithmetic of training; figures are fp32 in any case."""
    if not recipe.makes_steps:
        return Choice("fp32", "nothing is trained in steps")
    return Choice("bf16" if machine.has_fast_bf16 else "fp32", machine.bf16_reason)


def _choose_frozen_precision(
    recipe: Recipe, data: DataFacts, machine: MachineFacts
) -> Choice[FrozenPrecision]:
    """Choose the arithmetic of what is computed once: features of a probe, and frozen layers."""
    wanted, gain = recipe.runtime.precision, machine.bf16_pass_gain
    if wanted in ("fp32", "fp16"):
        return Choice("fp32", f"with precision {wanted} nothing is rounded to bf16")
    if gain is None:
        return Choice("fp32", "this device has no bf16 units that would pay for the rounding")
    passes = f"measured here: a pass in bf16 is {gain:.2g} times as fast"
    if gain < _WORTH_ROUNDING:
        return Choice("fp32", f"{passes}, too little for its rounding")
    num_again = min(data.num_train, NUM_REFERENCE) if recipe.evaluate.novelty else 0
    if data.num_train < _WORTH_ROUNDING * (data.num_train / gain + num_again):
        again = (
            f"but novelty needs {num_again} of {data.num_train:,} training images in fp32 as well"
        )
        return Choice("fp32", f"{passes}, {again}")
    return Choice("bf16", passes)


def _choose_memory_format(backbone: BackboneFacts, device: str) -> Choice[MemoryFormat]:
    """Choose the layout of image tensors."""
    if backbone.prefers_channels_last(device):
        return Choice("channels_last", "convolutions run faster with channels last")
    if backbone.family == "vit":
        return Choice("contiguous", "a transformer's work is on tokens, not on images")
    if backbone.is_narrow:
        return Choice("contiguous", "a narrow strided convolution crashes torch with channels last")
    return Choice("contiguous", f"on {device} torch computes wrong gradients with channels last")


def _find_depth_problems(recipe: Recipe, backbone: BackboneFacts) -> Iterator[Problem]:
    """Find stages that ask for more depth than there is."""
    depths = backbone.num_depths
    for index, stage in enumerate(recipe.stages):
        place = f"stages.{index}.train"
        policy = stage.train
        if isinstance(policy, LastPolicy) and policy.last > depths:
            message = f"the backbone has {depths} coarse groups, not {policy.last}"
            yield Problem(
                f"{place}.last", message, hint=f"write all, or {{last: {depths}}} at most"
            )
        if isinstance(policy, LastBlocksPolicy) and policy.last_blocks > backbone.num_blocks:
            message = f"the backbone has {backbone.num_blocks} blocks, not {policy.last_blocks}"
            hint = f"write all, or {{last_blocks: {backbone.num_blocks}}} at most"
            yield Problem(f"{place}.last_blocks", message, hint=hint)
        blocks = policy.blocks if isinstance(policy, BlocksPolicy) else ()
        for block in (block for block in blocks if block != "stem" and block >= depths):
            message = (
                f"the backbone has no coarse group {block}; they are stem and 1 to {depths - 1}"
            )
            yield Problem(f"{place}.blocks", message)


def _find_mixing_problems(recipe: Recipe, stages: list[dict[str, Any]]) -> Iterator[Problem]:
    """Find manifold mixup where no stage trains from what could be mixed."""
    if recipe.training.manifold_mixup and not any(stage["views"] for stage in stages):
        message = "no stage trains from what frozen layers computed once"
        yield Problem("training.manifold_mixup", message, hint="write training.mixup")


def _find_patience_problems(stages: list[dict[str, Any]]) -> Iterator[Problem]:
    """Find early stopping that needs more epochs than were chosen."""
    for index, stage in enumerate(stages):
        stopping, epochs = stage["early_stopping"], stage["epochs"]
        if stopping and stopping.patience >= epochs:
            place = f"stages.{index}.early_stopping.patience"
            yield Problem(place, cannot_fire(stopping.patience, epochs), hint="write epochs")
