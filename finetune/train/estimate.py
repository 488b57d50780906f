"""How long a run is expected to take: what it will do, times what that costs on this machine.

Which stages compute their frozen layers once is foreseen by the rules of `once.py`; what is left to
train costs the share of a step that runs from the first module that learns to its gradient. What a
few images cannot tell is taken to be long: nothing is stored yet, and reading and computing wait
for each other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from finetune.components.policies import AllPolicy, lora_of
from finetune.data.decode import decode
from finetune.data.loading import EvalImages
from finetune.model.depth import describe_parameters
from finetune.runtime.device import processor_seconds
from finetune.train.once import why_plain
from finetune.train.speed import measure_course

if TYPE_CHECKING:
    from finetune.data.kept import KeptViews
    from finetune.model.create import Model
    from finetune.recipe.schema import ResolvedRecipe, ResolvedStage
    from finetune.types import DataFacts, Index, MachineFacts

__all__ = [
    "MARGIN",
    "SETUP_SECONDS",
    "Costs",
    "Foreseen",
    "estimate_seconds",
    "foresee_stages",
    "measure_costs",
]

SETUP_SECONDS = 2.0  # Accelerate set up, a small head fitted, the model saved and loaded
MARGIN = 1.15  # for optimiser, figures, and copies of the best weights, which are not measured
_NUM_READ = 8  # images, spread over all
_LEAST_SHARE = 0.01  # of a pass: what the first layers take is not worth a store, nor is it cut
_NUM_PROVEN = 31  # images that tracing and proving a cut send through the network


@dataclass(frozen=True, slots=True)
class Foreseen:
    """What becomes of the frozen layers of a stage.

    Attributes:
        before: Share of a forward pass that they take, in [0, 1].
        behind: Share of a training step that what comes after them takes, in [0, 1].
        is_stored: Whether they are computed once; every epoch computes them otherwise.
    """

    before: float = 0.0
    behind: float = 1.0
    is_stored: bool = False


@dataclass(frozen=True, slots=True)
class Costs:
    """What one image costs on this machine, in seconds.

    Attributes:
        forward: A pass in eval mode.
        fused: The same with batch normalisations folded, in fp32: of prediction.
        frozen: The same in the precision of frozen layers: of the probe, and of layers that are
            computed once.
        step: Forward and backward of everything.
        read: To decode and transform it, all workers at it.
        look: The same of what evaluation sees, which is kept in memory as far as there is room.
    """

    forward: float
    fused: float
    frozen: float
    step: float
    read: float
    look: float


def estimate_seconds(
    recipe: ResolvedRecipe,
    data: DataFacts,
    costs: Costs,
    *,
    stages: Sequence[Foreseen],
    num_test: int = 0,
) -> float:
    """Estimate the seconds of all stages and of the figures at the end, rather long than short.

    Args:
        recipe: What will be done.
        data: Counts of images.
        costs: What one of them costs.
        stages: What becomes of the frozen layers of each stage.
        num_test: Images of the test part.
    """
    seconds = SETUP_SECONDS + (data.num_val + num_test) * (costs.read + costs.fused)
    for stage, foreseen in zip(recipe.stages, stages, strict=True):
        if stage.solver == "probe":
            seconds += (data.num_train + data.num_val) * (costs.look + costs.frozen)
        elif foreseen.is_stored:
            seconds += _stored_seconds(stage, data, costs, foreseen)
        else:
            seconds += _plain_seconds(stage, data, costs, foreseen)
    return MARGIN * seconds


def measure_costs(
    recipe: ResolvedRecipe,
    model: Model,
    index: Index,
    *,
    speed: Mapping[str, float],
    kept: KeptViews,
) -> Costs:
    """Find what an image costs: some are read; how fast the network is was measured before.

    Args:
        recipe: What will be done.
        model: The network's input.
        index: Checked samples.
        speed: What `measure_speed` gave.
        kept: What evaluation sees of the images, as far as it was kept.
    """
    runtime = recipe.runtime
    read = _measure_reading(recipe, model, index) / max(1, runtime.workers)
    is_missing = 1.0 - min(1.0, len(kept) / max(1, len(index.samples)))
    frozen = speed["fused"]
    if runtime.frozen_precision == "bf16":
        frozen = speed.get("fused_bf16", frozen)
    forward = speed.get("forward", speed["fused"])
    # Where memory did not suffice to measure a step of everything: as long as three passes.
    step = speed.get(f"train_{runtime.precision}", speed.get("train_fp32", forward / 3))
    return Costs(
        forward=1 / forward,
        fused=1 / speed["fused"],
        frozen=1 / frozen,
        step=1 / step,
        read=read,
        look=is_missing * read,
    )


def foresee_stages(
    recipe: ResolvedRecipe, model: Model, machine: MachineFacts
) -> tuple[Foreseen, ...]:
    """Foresee what becomes of the frozen layers of each stage; nothing is traced for it."""
    steps = [stage for stage in recipe.stages if stage.solver == "gradient"]
    if all(isinstance(stage.train, AllPolicy) for stage in steps):
        return (Foreseen(),) * len(recipe.stages)
    is_last = recipe.runtime.memory_format == "channels_last"
    course = measure_course(model, machine, channels_last=is_last)
    params = describe_parameters(model.network)
    train_size = (model.train_spec.height, model.train_spec.width)
    reason = why_plain(recipe, train_size=train_size, input_size=model.network.input_size)
    stages = []
    for stage in recipe.stages:
        learning = [rule.name for rule in stage.train.rules(params) if rule.trainable]
        if lora_of(stage.train) is not None:  # its adapters are not there yet: at every layer
            learning = [param.name for param in params]
        before = min((course.before.get(name, 0.0) for name in learning), default=0.0)
        behind = max((course.behind.get(name, 1.0) for name in learning), default=1.0)
        is_stored = bool(stage.views) and not reason and before > _LEAST_SHARE
        stages.append(Foreseen(before, behind, is_stored))
    return tuple(stages)


def _stored_seconds(
    stage: ResolvedStage, data: DataFacts, costs: Costs, foreseen: Foreseen
) -> float:
    """Seconds of a stage whose frozen layers are computed once: as if nothing were there yet."""
    num_views = data.num_train * stage.views + data.num_val
    reading = (data.num_train + data.num_val) * costs.look
    reading += data.num_train * (stage.views - 1) * costs.read
    once = _NUM_PROVEN * costs.forward + num_views * foreseen.before * costs.frozen + reading
    step, look = foreseen.behind * costs.step, (1.0 - foreseen.before) * costs.forward
    return once + stage.epochs * (data.num_train * step + data.num_val * look)


def _plain_seconds(
    stage: ResolvedStage, data: DataFacts, costs: Costs, foreseen: Foreseen
) -> float:
    """Seconds of a stage that computes all in every epoch; backward ends at what is frozen."""
    step = foreseen.before * costs.forward + foreseen.behind * costs.step
    look = data.num_val * (costs.look + costs.forward)
    return stage.epochs * (data.num_train * (costs.read + step) + look)


def _measure_reading(recipe: ResolvedRecipe, model: Model, index: Index) -> float:
    """Measure the processor time that one process takes to read an image, in seconds."""
    samples = index.samples[:: max(1, len(index.samples) // _NUM_READ)][:_NUM_READ]
    preprocessing = model.preprocessing
    read = partial(
        decode,
        max_pixels=recipe.data.max_pixels,
        channels=preprocessing.channels,
        reduction=preprocessing.reduction,
    )
    images = EvalImages(samples, preprocessing.transform(), index.classes, read)
    started = processor_seconds()
    for position in range(len(images)):
        images[position]
    return (processor_seconds() - started) / max(1, len(images))
